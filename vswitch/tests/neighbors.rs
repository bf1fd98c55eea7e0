//! The table of neighbours is the kernel's, one for all namespaces of a machine and bounded (`gc_thresh3`): one guest
//! must not be able to fill it for the others. No test here depends on how the machine bounds it, or fills it.
//! Without root they say so and pass.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

#[allow(dead_code, reason = "shared with other tests, which use more of it")]
mod running;

use running::{RunningSwitch, TestClient};
use std::fmt::Write;
use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};
use vswitch::os::namespace;
use vswitch_core::config::desired::Desired;
use vswitch_core::config::protocol::{RequestBody, SwitchReplyBody};

/// Guests beside the one that scans, each with a device of its own, and how many share a namespace.
const GUESTS: usize = 1000;
const GUESTS_PER_NAMESPACE: usize = 100;
/// Addresses that are scanned: more than the kernel's default has room for.
const SCANNED: usize = 1500;
/// As many as leave the machine's other guests alone, whose kernel is asked to remember them.
const SCANNED_BY_A_GUEST_OF_ITS_OWN_MIND: usize = 100;
const WAIT_MAX: Duration = Duration::from_secs(120);

/// One guest, as it is written in the desired state.
struct NeighborGuest {
    name: String,
    address: String,
    device: String,
    namespace: String,
    is_configured: bool,
}

/// A switch with guests in 10.64.0.0/16 and 2001:db8::/64.
struct NeighborPlane {
    running: RunningSwitch,
    client: TestClient,
    prefix: String,
    guests: Vec<NeighborGuest>,
    generation: u64,
}

impl NeighborPlane {
    fn start(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !std::path::Path::new("/dev/net/tun").exists() {
            eprintln!("SKIPPED: {test} needs root and /dev/net/tun");
            return None;
        }
        let running = RunningSwitch::start(1);
        let client = running.connect();
        let prefix = format!("sluice-{test}-{}", std::process::id());
        Some(Self { running, client, prefix, guests: Vec::new(), generation: 0 })
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// Adds a guest with the address of this number; it has a port once the state is applied.
    fn add(&mut self, (name, number): (&str, usize), (device, namespace): (&str, &str), is_configured: bool) {
        let address = format!("10.64.{}.{}", number / 250, number % 250 + 1);
        let namespace = self.namespace(namespace);
        self.guests.push(NeighborGuest { name: name.into(), address, device: device.into(), namespace, is_configured });
    }

    fn apply(&mut self) {
        let mut enis = String::new();
        for (number, guest) in self.guests.iter().enumerate() {
            let NeighborGuest { name, address, device, namespace, is_configured } = guest;
            let [high, low] = (number as u16 + 1).to_be_bytes();
            write!(
                enis,
                r#"{}"{name}": {{"vswitch": "vsw-1", "mac": "02:00:00:00:{high:02x}:{low:02x}", "groups": ["sg-1"],
                    "addresses": ["{address}/32", "2001:db8::{:x}/128"], "port": {{"kind": "tap", "device": "{device}",
                    "namespace": "{namespace}", "create_namespace": true, "configure": {is_configured}}}}}"#,
                if number == 0 { "" } else { "," },
                number + 1
            )
            .unwrap();
        }
        let json = format!(
            r#"{{"vpcs": {{"vpc-1": {{}}}},
                "vswitches": {{"vsw-1": {{"vpc": "vpc-1", "ipv4": "10.64.0.0/16", "ipv4_gateway": "10.64.255.253",
                                          "ipv6": "2001:db8::/64", "ipv6_gateway": "2001:db8::fffd"}}}},
                "groups": {{"sg-1": {{"vpc": "vpc-1", "kind": "basic", "inner_access": "accept"}}}},
                "enis": {{{enis}}}}}"#
        );
        let desired: Desired = serde_json::from_str(&json).unwrap();
        self.generation += 1;
        match self.client.ask(RequestBody::Replace { generation: self.generation, desired }) {
            SwitchReplyBody::Applied(applied) => assert!(applied.ports_down.is_empty(), "{:?}", applied.ports_down),
            other => panic!("{other:?}"),
        }
    }

    fn run(&self, namespace: &str, command: &str) -> (String, bool) {
        let name = self.namespace(namespace);
        let output = Command::new("ip").args(["netns", "exec", &name]).args(command.split(' ')).output().unwrap();
        (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success())
    }

    /// Sends a datagram to each of `count` addresses of either family.
    fn scan(&self, namespace: &str, count: usize) {
        namespace::within(&self.namespace(namespace), || {
            let (v4, v6) = (UdpSocket::bind("0.0.0.0:0")?, UdpSocket::bind("[::]:0")?);
            for number in 0..count {
                // What does not get out because the queue of one neighbour is full is no matter.
                let _ = v4.send_to(b"x", format!("10.64.{}.{}:9", 100 + number / 250, number % 250 + 1));
                let _ = v6.send_to(b"x", format!("[2001:db8::1:{number:x}]:9"));
            }
            Ok(())
        })
        .unwrap();
    }

    /// The neighbours that a namespace's kernel has learnt or asks for, a line each.
    fn learnt(&self, namespace: &str) -> Vec<String> {
        let (text, _) = self.run(namespace, "ip neigh show nud all");
        let is_learnt = |line: &&str| !line.contains("PERMANENT") && !line.contains("NOARP");
        text.lines().filter(is_learnt).map(Into::into).collect()
    }
}

#[test]
fn among_a_thousand_guests_one_that_scans_takes_no_neighbour_from_a_new_one() {
    let Some(mut plane) = NeighborPlane::start("scan") else { return };
    for number in 0..GUESTS {
        let namespace = format!("{}", number / GUESTS_PER_NAMESPACE);
        plane.add((&format!("eni-{number}"), number), (&format!("eth{number}"), &namespace), true);
        // A reply is waited for so long, and a device takes the kernel its time.
        if number % GUESTS_PER_NAMESPACE == GUESTS_PER_NAMESPACE - 1 {
            plane.apply();
        }
    }
    plane.add(("eni-scanner", GUESTS), ("eth0", "scanner"), true);
    plane.apply();
    plane.scan("scanner", SCANNED);
    assert_eq!(plane.learnt("scanner"), [""; 0], "the gateways are all that it needs to know");
    plane.add(("eni-new", GUESTS + 1), ("eth0", "new"), true);
    plane.apply();
    // The first devices of their namespaces, whose routes answers take.
    for target in ["10.64.255.253", "2001:db8::fffd", "10.64.0.1", "10.64.3.151", "2001:db8::1", "2001:db8::385"] {
        assert!(plane.run("new", &format!("ping -c 1 -W 60 {target}")).1, "{target}");
    }
    for namespace in (0..GUESTS / GUESTS_PER_NAMESPACE).map(|number| number.to_string()) {
        assert!(plane.run(&namespace, "ping -c 1 -W 60 10.64.255.253").1, "{namespace}");
        assert_eq!(plane.learnt(&namespace), [""; 0], "{namespace}");
    }
    plane.running.stop();
}

/// A guest that configures itself believes that its subnet is on its link, and asks for each address. It is told of
/// those that there are; what it asks for in vain its kernel gives up and may forget at once.
#[test]
fn a_guest_that_configures_itself_learns_no_addresses_that_nobody_has() {
    let Some(mut plane) = NeighborPlane::start("own") else { return };
    plane.add(("eni-peer", 0), ("eth0", "peer"), true);
    plane.add(("eni-own", 1), ("eth0", "own"), false);
    plane.apply();
    for command in [
        "ip link set eth0 address 02:00:00:00:00:02",
        "ip addr add 10.64.0.2/16 dev eth0",
        "ip -6 addr add 2001:db8::2/64 dev eth0 nodad",
        "ip link set eth0 up",
    ] {
        assert!(plane.run("own", command).1, "{command}");
    }
    // The first one is the router as it advertises itself.
    let known = ["fe80::ecff:ffff:feff:ffff%eth0", "10.64.255.253", "2001:db8::fffd", "10.64.0.1", "2001:db8::1"];
    for target in known {
        assert!(plane.run("own", &format!("ping -c 1 -W 60 {target}")).1, "{target}");
    }
    plane.scan("own", SCANNED_BY_A_GUEST_OF_ITS_OWN_MIND);
    let started = Instant::now();
    loop {
        let learnt = plane.learnt("own");
        assert!(started.elapsed() < WAIT_MAX, "{learnt:?}");
        let is_known =
            |line: &&String| known.iter().any(|address| line.starts_with(address.split('%').next().unwrap()));
        let unknown: Vec<_> = learnt.iter().filter(|line| !is_known(line)).collect();
        let with_address: Vec<_> = unknown.iter().filter(|line| line.contains("lladdr")).collect();
        assert!(with_address.is_empty(), "{with_address:?}");
        if unknown.iter().all(|line| line.contains("FAILED")) {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    plane.running.stop();
}
