//! Real kernels' stacks through a real Sluice: both planes as processes, guests in namespaces that the switch makes.

#![allow(clippy::unwrap_used)] // A test that cannot prepare its world has failed.

use control::command::{Command, RuleAuthorize, RuleRevoke, RuleSpec, VpcDelete};
use harness::netns::{Namespace, PATIENCE, RunningSluice, eventually};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use vswitch_core::config::desired::Direction;

const LAB: &str = r#"
    vpc = [{ id = "vpc-1", cidr = "10.0.0.0/16", ipv6_cidr = "2001:db8:1::/56" }, { id = "vpc-2", cidr = "10.0.0.0/16" }]
    vswitch = [
        { id = "vsw-1", vpc = "vpc-1", cidr = "10.0.1.0/24", ipv6_cidr = "2001:db8:1:1::/64" },
        { id = "vsw-2", vpc = "vpc-1", cidr = "10.0.2.0/24" },
        { id = "vsw-3", vpc = "vpc-2", cidr = "10.0.1.0/24" },
    ]
    [[group]]
    id = "sg-web"
    vpc = "vpc-1"
    ingress = [
        { id = "sgr-icmp", protocol = "icmp", cidr = "10.0.0.0/16" },
        { id = "sgr-icmpv6", protocol = "icmpv6", ipv6_cidr = "2001:db8:1:1::/64" },
        { id = "sgr-tcp", protocol = "tcp", ports = "80/80", group = "sg-client" },
        { id = "sgr-udp", protocol = "udp", ports = "53/53", cidr = "10.0.1.20" },
    ]
    [[group]]
    id = "sg-client"
    vpc = "vpc-1"
    [[group]]
    id = "sg-twin"
    vpc = "vpc-2"
    [[eni]]
    id = "eni-web"
    vswitch = "vsw-1"
    ip = "10.0.1.10"
    ipv6_addresses = ["2001:db8:1:1::10"]
    groups = ["sg-web"]
    namespace = "@-web"
    [[eni]]
    id = "eni-client"
    vswitch = "vsw-1"
    ip = "10.0.1.20"
    ipv6_addresses = ["2001:db8:1:1::20"]
    groups = ["sg-client"]
    namespace = "@-client"
    [[eni]]
    id = "eni-far"
    vswitch = "vsw-2"
    ip = "10.0.2.30"
    groups = ["sg-client"]
    namespace = "@-far"
    [[eni]]
    id = "eni-twin"
    vswitch = "vsw-3"
    ip = "10.0.1.10"
    groups = ["sg-twin"]
    namespace = "@-twin"
"#;

/// A Sluice with the lab, or a loud word why not.
fn lab(workers: usize) -> Option<RunningSluice> {
    RunningSluice::start_lab(workers, LAB, &[])
}

/// The same, where every packet takes the slow path.
fn lab_without_fast_path(workers: usize) -> Option<RunningSluice> {
    let running = lab(workers)?;
    let changed = running.sluice(&["settings", "modify", "--fast-path", "false"]);
    assert!(changed.status.success(), "{changed:?}");
    Some(running)
}

fn passes(running: &RunningSluice, guest: &str, command: &[&str]) -> bool {
    running.inside(guest, command).status.success()
}

fn revoke(rule: &str) -> Command {
    let ids = [rule.to_owned()].into();
    Command::RuleRevoke(RuleRevoke { group: "sg-web".into(), direction: None, ids, rules: Vec::new() })
}

fn authorize(id: &str, protocol: &str, ports: Option<&str>) -> Command {
    let rule = RuleSpec {
        id: Some(id.into()),
        protocol: protocol.into(),
        ports: ports.map(Into::into),
        cidr: Some("10.0.0.0/16".into()),
        ..RuleSpec::default()
    };
    Command::RuleAuthorize(RuleAuthorize { group: "sg-web".into(), direction: Direction::Ingress, rules: vec![rule] })
}

#[test]
fn pings_and_http_obey_the_rules() {
    pings_and_http_are_judged(lab(2));
}

#[test]
fn pings_and_http_obey_the_rules_without_the_fast_path() {
    pings_and_http_are_judged(lab_without_fast_path(2));
}

fn pings_and_http_are_judged(running: Option<RunningSluice>) {
    let Some(running) = running else { return };
    let ping = ["ping", "-q", "-c", "2", "-i", "0.1", "-W", "1"];
    let ping = |guest: &str, address: &str| passes(&running, guest, &[&ping[..], &[address]].concat());
    assert!(ping("client", "10.0.1.10"), "an ICMP rule admits");
    assert!(ping("client", "2001:db8:1:1::10"), "an ICMPv6 rule admits");
    assert!(ping("far", "10.0.1.10"), "between subnets");
    assert!(ping("client", "10.0.1.253") && ping("client", "2001:db8:1:1:ffff:ffff:ffff:fffd"), "the router answers");
    assert!(!ping("web", "10.0.1.20"), "no rule admits the way back");
    assert!(!ping("twin", "10.0.1.20"), "another VPC with the same addresses");
    let traced = running.inside("far", &["ping", "-c", "1", "-t", "1", "-W", "1", "10.0.1.10"]);
    assert!(String::from_utf8_lossy(&traced.stdout).contains("10.0.2.253"), "the router reports the last hop");

    let mut server = running.inside_command("web", &["busybox", "httpd", "-f", "-p", "80", "-h", "/proc/self"]).spawn();
    let fetch = ["curl", "-sf", "-o", "/dev/null", "-m", "2", "http://10.0.1.10/comm"];
    eventually("the page is fetched", || passes(&running, "client", &fetch));
    assert!(!passes(&running, "twin", &fetch), "the twin of another VPC");
    let _ = server.as_mut().map(|server| server.kill().and_then(|()| server.wait().map(drop)));
}

#[test]
fn iperf3_runs_through_the_switch_both_ways() {
    let Some(running) = lab(2) else { return };
    running.change(&authorize("sgr-iperf", "tcp", Some("5201/5201")));
    let mut server =
        running.inside_command("web", &["iperf3", "-s"]).stdout(std::process::Stdio::null()).spawn().unwrap();
    for options in [&["-n", "20M"][..], &["-n", "20M", "-R"], &["-n", "4M", "-P", "4"]] {
        let command = [&["iperf3", "-c", "10.0.1.10"], options].concat();
        eventually("iperf3 succeeds", || passes(&running, "client", &command));
    }
    server.kill().and_then(|()| server.wait()).unwrap();
    assert_eq!(running.stats("eni-web").ingress.drops.get("session-revoked"), None);
}

#[test]
fn spoofed_senders_are_dropped_and_counted() {
    let Some(running) = lab(1) else { return };
    assert!(passes(&running, "client", &["ip", "address", "add", "10.0.1.99/32", "dev", "eth0"]));
    assert!(!passes(
        &running,
        "client",
        &["ping", "-q", "-c", "2", "-i", "0.1", "-W", "1", "-I", "10.0.1.99", "10.0.1.10"]
    ));
    let drops = running.stats("eni-client").egress.drops;
    let spoofed = ["source-address-spoofed", "arp-spoofed"].iter().filter_map(|reason| drops.get(*reason)).sum::<u64>();
    assert!(spoofed > 0, "{drops:?}");
    assert!(passes(&running, "client", &["ip", "link", "set", "eth0", "address", "02:00:00:00:00:99"]));
    assert!(!passes(&running, "client", &["ping", "-q", "-c", "1", "-W", "1", "10.0.1.10"]));
    assert!(running.stats("eni-client").egress.drops.contains_key("source-mac-spoofed"));
}

/// A stream of TCP bytes from one guest to another, until it is dropped.
struct Stream {
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Stream {
    fn start(running: &RunningSluice, (from, to): (&str, &str), address: &str) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let listener = running.within(to, || TcpListener::bind(address));
        let mut writer = running.within(from, || TcpStream::connect_timeout(&address, PATIENCE));
        let mut reader = listener.accept().unwrap().0;
        let (received, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        writer.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let _ = writer.write(&[7; 4096]);
                thread::sleep(Duration::from_millis(1));
            }
        });
        let counter = Arc::clone(&received);
        thread::spawn(move || {
            let mut room = [0; 65536];
            while let Ok(count @ 1..) = reader.read(&mut room) {
                counter.fetch_add(count as u64, Ordering::Relaxed);
            }
        });
        Self { received, stop }
    }

    fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    fn wait_until_it_flows(&self) {
        let before = self.received();
        eventually("TCP flows", || self.received() > before);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// After the reply, nothing that the new rules forbid comes out, and what they do not forbid goes on without loss.
fn nothing_passes_after_the_reply(running: Option<RunningSluice>) {
    let Some(running) = running else { return };
    running.change(&authorize("sgr-other", "tcp", Some("81/81")));
    let forbidden = Stream::start(&running, ("client", "web"), "10.0.1.10:80");
    let allowed = Stream::start(&running, ("client", "web"), "10.0.1.10:81");
    let receiver = running.within("web", || UdpSocket::bind("10.0.1.10:53"));
    let sender = running.within("client", || UdpSocket::bind("10.0.1.20:0"));
    receiver.set_nonblocking(true).unwrap();
    let sent = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let (counter, stopped) = (Arc::clone(&sent), Arc::clone(&stop));
    let pump = thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
            let _ = sender.send_to(&number.to_be_bytes(), "10.0.1.10:53");
            thread::sleep(Duration::from_micros(200));
        }
    });
    let mut pinging = running
        .inside_command("client", &["ping", "-q", "-i", "0.002", "10.0.1.10"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let newest = || {
        let (mut newest, mut bytes) = (0, [0; 8]);
        while receiver.recv(&mut bytes).is_ok() {
            newest = u64::from_be_bytes(bytes);
        }
        newest
    };
    for round in 0..5 {
        eventually("UDP flows", || newest() > 0);
        forbidden.wait_until_it_flows();
        let batch = vec![revoke("sgr-udp"), revoke("sgr-tcp"), revoke("sgr-icmp")];
        running.change(&Command::Batch(control::command::Batch { commands: batch }));
        let sent_before_reply = sent.load(Ordering::SeqCst);
        // What was written to the device before the reply may still be on its way up the guest's stack, or to its reader.
        let counts = || (forbidden.received(), echo_requests(&running));
        let mut before = counts();
        eventually("nothing comes by the old rules any more", || {
            let late = newest();
            assert!(late <= sent_before_reply, "round {round}: packet {late} was sent after {sent_before_reply}");
            thread::sleep(Duration::from_millis(500));
            std::mem::replace(&mut before, counts()) == before && late == 0
        });
        assert!(newest() <= sent_before_reply, "round {round}: UDP by the old rule");
        allowed.wait_until_it_flows();
        let batch = vec![
            authorize("sgr-udp", "udp", Some("53/53")),
            authorize("sgr-tcp", "tcp", Some("80/80")),
            authorize("sgr-icmp", "icmp", None),
        ];
        running.change(&Command::Batch(control::command::Batch { commands: batch }));
    }
    let _ = pinging.kill().and_then(|()| pinging.wait().map(drop));
    stop.store(true, Ordering::Relaxed);
    pump.join().unwrap();
}

/// Echo requests that web's kernel got, by its own count.
fn echo_requests(running: &RunningSluice) -> u64 {
    let output = running.inside("web", &["cat", "/proc/net/snmp"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines().filter(|line| line.starts_with("Icmp:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let place = names.split(' ').position(|name| name == "InEchos").unwrap();
    values.split(' ').nth(place).unwrap().parse().unwrap()
}

#[test]
fn nothing_passes_after_the_reply_with_one_worker() {
    nothing_passes_after_the_reply(lab(1));
}

#[test]
fn nothing_passes_after_the_reply_with_two_workers() {
    nothing_passes_after_the_reply(lab(2));
}

#[test]
fn nothing_passes_after_the_reply_without_the_fast_path() {
    nothing_passes_after_the_reply(lab_without_fast_path(2));
}

#[test]
fn sessions_that_no_change_forbids_lose_nothing() {
    let Some(running) = lab(2) else { return };
    let mut ping = running.inside_command("client", &["ping", "-q", "-i", "0.005", "-c", "400", "10.0.1.10"]);
    let ping = thread::spawn(move || ping.output().unwrap());
    for _ in 0..100 {
        running.change(&authorize("sgr-churn", "tcp", Some("8080/8080")));
        running.change(&revoke("sgr-churn"));
    }
    let output = ping.join().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("400 received") || text.contains(" 0% packet loss"), "{text}");
}

#[test]
fn workers_are_set_and_shown_while_guests_talk() {
    let Some(running) = lab(1) else { return };
    let mut ping = running.inside_command("client", &["ping", "-q", "-i", "0.005", "-c", "300", "10.0.1.10"]);
    let ping = thread::spawn(move || ping.output().unwrap());
    for workers in [2, 1, 3, 2, 1] {
        let output = running.sluice(&["--json", "workers", "set", &workers.to_string()]);
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&told["workers"], &told["lanes"]), (&workers.into(), &1.into()), "{told}");
        let output = running.sluice(&["workers", "show"]);
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(shown.starts_with("WORKER") && shown.contains("rx queues: 1 of at most 1"), "{shown}");
        assert_eq!(shown.lines().count(), workers + 3, "{shown}");
    }
    let output = running.sluice(&["workers", "set", "2"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.starts_with("workers: 2, rx queues: 1, ENIs moved: 2, sessions moved: "), "{told}");
    let refused = running.sluice(&["workers", "set", "2", "--rx-queues", "2"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("--rx-queues-max 2"), "{text}");
    let output = ping.join().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(" 0% packet loss"), "{text}");
}

#[test]
fn either_plane_comes_back_and_an_acknowledged_change_survives() {
    let Some(mut running) = lab(1) else { return };
    let ping = ["ping", "-q", "-c", "1", "-W", "1", "10.0.1.10"];
    assert!(passes(&running, "client", &ping));
    running.crash("control");
    assert!(passes(&running, "client", &ping), "forwarding goes on without the control plane");
    running.wait_until_ready();
    running.crash("vswitch");
    running.wait_until_ready();
    eventually("ping passes again", || passes(&running, "client", &ping));
    running.change(&revoke("sgr-icmp"));
    running.restart_violently();
    eventually("ports are up", || passes(&running, "client", &["ping", "-q", "-c", "1", "-W", "1", "10.0.1.253"]));
    assert!(!passes(&running, "client", &ping), "the acknowledged change survives");
    assert!(running.apply(LAB).contains("icmp"), "and only it has to be put back");
    assert!(passes(&running, "client", &ping));
}

#[test]
fn a_second_sluice_on_the_same_folders_is_refused() {
    let Some(running) = lab(1) else { return };
    let second = running.sluice(&["up"]);
    assert!(!second.status.success());
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(text.contains("is already running"), "{text}");
    let other_run = tempfile::tempdir().unwrap();
    let folder = other_run.path().display().to_string();
    let third = running.sluice(&["up", "--run-dir", &folder]);
    assert!(!third.status.success());
    let text = String::from_utf8_lossy(&third.stderr).into_owned();
    assert!(text.contains(&running.data_dir().display().to_string()), "{text}");
    let refusal = running.refusal(&Command::VpcDelete(VpcDelete { vpc: "vpc-1".into() }));
    assert!(refusal.contains("vpc-1"), "the first goes on: {refusal}");
}

#[test]
fn an_applied_lab_becomes_what_the_file_says() {
    let Some(running) = lab(1) else { return };
    assert!(running.apply(LAB).contains("nothing to change"));
    let edits = [
        ("id = \"sg-twin\"", "id = \"sg-twin\"\n    description = \"the twins\"", "~ group sg-twin"),
        ("ip = \"10.0.2.30\"", "ip = \"10.0.2.30\"\n    secondary_ips = [\"10.0.2.31\"]", "~ eni eni-far +10.0.2.31"),
        ("ports = \"80/80\"", "ports = \"8080/8080\"", "- rule of sg-web ingress accept tcp 80/80 sg-client at 1"),
        ("\"icmp\", cidr", "\"icmp\", description = \"ping\", cidr", "~ rule of sg-web ingress accept icmp"),
    ];
    let mut lab = LAB.to_owned();
    for (from, to, step) in edits {
        assert!(lab.contains(from), "{from}");
        lab = lab.replace(from, to);
        let told = running.apply(&lab);
        assert!(told.contains(step), "{step}: {told}");
        assert!(running.apply(&lab).contains("nothing to change"), "{step}");
    }
    let path = running.data_dir().join("wrong.toml");
    std::fs::write(&path, lab.replace("8080/8080", "8080/70000")).unwrap();
    let refused = running.sluice(&["apply", "-f", &path.display().to_string()]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("8080/70000") && text.contains("nothing was changed"), "{text}");
    assert!(running.apply(&lab).contains("nothing to change"));
    let explained = running.sluice(&[
        "explain",
        "--from",
        "eni-client",
        "--destination",
        "2001:db8:1:1::10",
        "--protocol",
        "icmpv6",
    ]);
    assert!(String::from_utf8_lossy(&explained.stdout).contains("by rule sgr-icmpv6 of sg-web"), "{explained:?}");
}

/// The guest sends to the namespace that hosts its port without a pause, past a forwarding plane that is killed and
/// started again: nothing arrives. What that is worth shows when the ENI is gone, and the interface the kernel's
/// again.
#[test]
fn a_killed_forwarding_plane_leaves_guests_shut_out_of_the_kernel_that_hosts_them() {
    let Some(mut running) = lab(1) else { return };
    let made = ["hosting", "behind"].map(|name| Namespace::make(running.namespace(name)));
    let [hosting, guest] = made.each_ref().map(|namespace| namespace.0.clone());
    let ip = |name: &str, arguments: &str| {
        let output = std::process::Command::new("ip").args(["-n", name]).args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "{arguments}: {output:?}");
    };
    ip(&hosting, &format!("link add port0 address 02:00:00:00:00:fe type veth peer name eth0 netns {guest}"));
    for (name, device, address) in [(&hosting, "port0", "10.9.9.1/24"), (&guest, "eth0", "10.9.9.2/24")] {
        ip(name, &format!("addr add {address} dev {device}"));
        ip(name, &format!("link set {device} up"));
    }
    ip(&guest, "neigh add 10.9.9.1 lladdr 02:00:00:00:00:fe dev eth0");
    let create =
        "eni create --id eni-behind --vswitch vsw-1 --ip 10.0.1.40 --group sg-web --host-interface port0 --namespace";
    let told = running.sluice(&[create, &hosting].join(" ").split(' ').collect::<Vec<_>>());
    assert!(told.status.success(), "{told:?}");
    let listener = running.within("hosting", || UdpSocket::bind("10.9.9.1:7"));
    listener.set_nonblocking(true).unwrap();
    let sender = running.within("behind", || UdpSocket::bind("10.9.9.2:0"));
    let stop = Arc::new(AtomicBool::new(false));
    let sending = thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            while !stop.load(Ordering::Relaxed) {
                let _ = sender.send_to(b"x", "10.9.9.1:7");
                thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let has_come = || listener.recv(&mut [0; 8]).is_ok();
    thread::sleep(Duration::from_millis(100));
    assert!(!has_come(), "while the port is up");
    running.crash("vswitch");
    running.wait_until_ready();
    eventually("the port is up again", || {
        let ports = running.sluice(&["port", "list"]);
        let ports = String::from_utf8_lossy(&ports.stdout).into_owned();
        ports.lines().any(|line| line.starts_with("eni-behind") && line.contains("up"))
    });
    assert!(!has_come(), "after the forwarding plane was killed");
    assert!(running.sluice(&["eni", "delete", "eni-behind", "--force"]).status.success());
    eventually("the interface is the kernel's again", has_come);
    stop.store(true, Ordering::Relaxed);
    sending.join().unwrap();
    drop(running);
}

#[test]
fn an_eni_on_an_interface_that_exists_is_a_guest_like_others() {
    let Some(running) = lab(1) else { return };
    let made = Namespace::make(running.namespace("veth"));
    let name = made.0.clone();
    for arguments in [
        "link add port0 type veth peer name eth0 address 02:00:00:00:00:40",
        "link set port0 up",
        "link set eth0 up",
        "addr add 10.0.1.40/24 dev eth0",
    ] {
        let output = std::process::Command::new("ip").args(["-n", &name]).args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "{arguments}: {output:?}");
    }
    let create = "eni create --id eni-veth --vswitch vsw-1 --ip 10.0.1.40 --mac 02:00:00:00:00:40 --group sg-web";
    let told =
        running.sluice(&[create, "--host-interface port0 --namespace", &name].join(" ").split(' ').collect::<Vec<_>>());
    assert!(told.status.success(), "{told:?}");
    let ports = running.sluice(&["port", "list"]);
    let ports = String::from_utf8_lossy(&ports.stdout).into_owned();
    let row = ports.lines().find(|line| line.starts_with("eni-veth")).unwrap_or_else(|| panic!("{ports}"));
    assert!(row.contains("packet") && row.contains("port0") && row.contains("up"), "{row}");
    let ping = |target: &str| ["ping", "-q", "-c", "1", "-W", "1", target].map(str::to_owned);
    let passes = |guest: &str, target: &str| passes(&running, guest, &ping(target).each_ref().map(String::as_str));
    assert!(passes("client", "10.0.1.40") && passes("veth", "10.0.1.10"), "both ways, as the rules say");
    assert!(!passes("veth", "10.0.1.20"), "nothing lets it in there");
    let eni = "[[eni]]\nid = \"eni-veth\"\nvswitch = \"vsw-1\"\nip = \"10.0.1.40\"\ngroups = [\"sg-web\"]\nnamespace = \"@-veth\"\n";
    let lab = [LAB, eni, "host_interface = \"port0\"\n"].join("\n");
    assert!(running.apply(&lab).contains("nothing to change"));
    let path = running.data_dir().join("wrong.toml");
    std::fs::write(&path, lab + "device = \"eth1\"\n").unwrap();
    let refused = running.sluice(&["apply", "-f", &path.display().to_string()]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("eni-veth: host_interface"), "{refused:?}");
    drop(running);
}
