//! What an idle switch costs. Alone in its binary: it measures the whole process.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

#[allow(dead_code, reason = "shared with other tests, which use more of it")]
mod running;

use running::Running;
use std::time::Duration;
use vswitch_core::desired::Desired;
use vswitch_core::protocol::{ReplyBody, RequestBody};

const PORTS: usize = 100;

fn busy_ns() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let busy = |task: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
    };
    tasks.map(busy).sum()
}

fn desired(namespace: &str) -> Desired {
    let eni = |number: usize| {
        format!(
            r#""eni-{number}": {{"vswitch": "vsw-1", "mac": "02:00:00:00:01:{number:02x}", "groups": ["sg-1"],
               "addresses": ["10.9.1.{number}/32"], "port": {{"kind": "tap", "device": "tap{number}",
               "namespace": "{namespace}", "create_namespace": true}}}}"#
        )
    };
    let enis: Vec<String> = (1..=PORTS).map(eni).collect();
    let json = format!(
        r#"{{"vpcs": {{"vpc-1": {{}}}},
            "vswitches": {{"vsw-1": {{"vpc": "vpc-1", "ipv4": "10.9.1.0/24", "ipv4_gateway": "10.9.1.253"}}}},
            "groups": {{"sg-1": {{"vpc": "vpc-1", "kind": "basic", "inner_access": "accept"}}}},
            "enis": {{{}}}}}"#,
        enis.join(",")
    );
    serde_json::from_str(&json).unwrap()
}

#[test]
fn an_idle_switch_with_many_ports_sleeps() {
    if !rustix::process::geteuid().is_root() || !std::path::Path::new("/dev/net/tun").exists() {
        return eprintln!("SKIPPED: this needs root and /dev/net/tun");
    }
    let mut running = Running::start(2);
    let namespace = format!("sluice-idle-{}", std::process::id());
    let replace = RequestBody::Replace { generation: 1, desired: desired(&namespace) };
    let started = std::time::Instant::now();
    let ReplyBody::Applied(applied) = running.connect().ask(replace) else { panic!() };
    println!("{PORTS} ports opened in {:?}", started.elapsed());
    assert!(applied.ports_down.is_empty(), "{applied:?}");
    // The kernel greets its new devices for a while.
    std::thread::sleep(Duration::from_secs(3));
    let before = busy_ns();
    std::thread::sleep(Duration::from_secs(4));
    let busy = Duration::from_nanos(busy_ns() - before);
    println!("busy {busy:?} of 4 s: {:.3} % of a core", busy.as_secs_f64() / 4.0 * 100.0);
    assert!(busy < Duration::from_millis(40), "more than 1 % of a core");
    let started = std::time::Instant::now();
    running.stop();
    println!("{PORTS} ports closed in {:?}", started.elapsed());
}
