//! What an idle switch does: nothing, but for a sweep a second. `bench/peers/idle` measures what that costs.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

#[allow(dead_code, reason = "shared with other tests, which use more of it")]
mod running;

use running::{RunningSwitch, TestClient};
use std::time::Duration;
use vswitch_core::config::desired::Desired;
use vswitch_core::config::protocol::{RequestBody, SwitchReplyBody};

const PORTS: usize = 100;

/// Turns and sleeps of all workers so far.
fn counts(client: &mut TestClient) -> Vec<(u64, u64)> {
    let SwitchReplyBody::Status(status) = client.ask(RequestBody::Status) else { panic!("no status") };
    status.workers.iter().map(|worker| (worker.turns_busy + worker.turns_idle, worker.sleeps)).collect()
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
    let mut running = RunningSwitch::start(2);
    let namespace = format!("sluice-idle-{}", std::process::id());
    let replace = RequestBody::Replace { generation: 1, desired: desired(&namespace) };
    let started = std::time::Instant::now();
    let SwitchReplyBody::Applied(applied) = running.connect().ask(replace) else { panic!() };
    println!("{PORTS} ports opened in {:?}", started.elapsed());
    assert!(applied.ports_down.is_empty(), "{applied:?}");
    // The kernel greets its new devices for a while; after that, a worker wakes once a second to sweep.
    const WINDOW_S: u64 = 2;
    let mut client = running.connect();
    let mut is_quiet = || {
        let before = counts(&mut client);
        std::thread::sleep(Duration::from_secs(WINDOW_S));
        let after = counts(&mut client);
        let differences: Vec<_> =
            after.iter().zip(&before).map(|(after, before)| (after.0 - before.0, after.1 - before.1)).collect();
        println!("turns and sleeps in {WINDOW_S} s: {differences:?}");
        // Each question wakes it too. Before each sleep it spins for a while: thousands of turns, where one that never
        // slept would have millions.
        differences.iter().all(|(turns, sleeps)| *sleeps <= 2 * WINDOW_S + 2 && *turns < 20_000)
    };
    assert!((0..10).any(|_| is_quiet()), "it does not come to rest");
    let started = std::time::Instant::now();
    running.stop();
    println!("{PORTS} ports closed in {:?}", started.elapsed());
}
