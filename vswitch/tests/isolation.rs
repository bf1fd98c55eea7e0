//! An interface that a port has is the switch's alone: no frame of its guest reaches the stack of the namespace that
//! hosts it, and none that this stack sends reaches the guest. Each test makes and removes its own namespaces;
//! without root they say so and pass.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

#[path = "isolation/frames.rs"]
mod frames;
#[allow(dead_code, reason = "shared with other tests, which use more of it")]
mod running;

use frames::{ETHER_TYPES, frames, ipv4, packet_of};
use running::{RunningSwitch, TestClient};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::num::NonZeroU32;
use std::process::Command;
use std::time::{Duration, Instant};
use vswitch::os::namespace;
use vswitch::os::run_dir::RunDir;
use vswitch::port::af_packet::AfPacketPort;
use vswitch::port::buffer_pool::{BufferPool, PoolSize};
use vswitch::port::factory::{InterfaceIo, PortFactory};
use vswitch::port::spec::PortSpec;
use vswitch::port::{Port, isolation};
use vswitch_core::config::desired::{self, Desired};
use vswitch_core::config::ids::{EniId, MacAddress};
use vswitch_core::config::protocol::PortStatus;
use vswitch_core::config::protocol::RequestBody;
use vswitch_core::config::protocol::SwitchReplyBody;
use vswitch_core::packet::Packet;
use vswitch_core::packet::verdict::Verdict;

/// How long what must not come is waited for.
const QUIET: Duration = Duration::from_millis(300);
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A hosting namespace with `port0`, and a guest's with the other end, `eth0`. Both have addresses in 10.9.9.0/24.
struct IsolationNamespaces {
    host: String,
    guest: String,
}

impl IsolationNamespaces {
    fn new(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: {test} needs root");
            return None;
        }
        let name = |side: &str| format!("sluice-{test}-{side}-{}", std::process::id());
        let place = Self { host: name("host"), guest: name("guest") };
        namespace::ensure(&place.host, &RunDir::default()).unwrap();
        namespace::ensure(&place.guest, &RunDir::default()).unwrap();
        place.plug();
        Some(place)
    }

    /// Makes the pair of interfaces.
    fn plug(&self) {
        let peer = format!("type veth peer name eth0 netns {} address 02:00:00:00:00:02", self.guest);
        self.in_host(&format!("ip link add port0 address 02:00:00:00:00:fe {peer}"));
        for command in [
            "ip link set port0 up",
            "ip addr add 10.9.9.1/24 dev port0",
            "ip neigh add 10.9.9.2 lladdr 02:00:00:00:00:02 dev port0",
        ] {
            self.in_host(command);
        }
        for command in [
            "ip addr add 10.9.0.2/24 dev eth0",
            "ip addr add 10.9.9.2/24 dev eth0",
            "ip link set eth0 up",
            "ip route add 224.0.0.0/4 dev eth0",
            "ip neigh add 10.9.9.1 lladdr 02:00:00:00:00:fe dev eth0",
            "ip -6 neigh add fe80::fe lladdr 02:00:00:00:00:fe dev eth0",
            "ip -6 addr add fe80::2/64 dev eth0 nodad",
        ] {
            run(&self.guest, command);
        }
        self.in_host("ip -6 addr add fe80::fe/64 dev port0 nodad");
    }

    fn in_host(&self, command: &str) {
        run(&self.host, command);
    }

    fn interface(&self) -> desired::PacketPort {
        desired::PacketPort { device: "port0".into(), namespace: Some(self.host.clone()), mtu_bytes: 1500 }
    }

    fn spec(&self) -> PortSpec {
        PortSpec { port: desired::DesiredPort::Packet(self.interface()), mac: MacAddress::default(), interface: None }
    }

    /// An ENI on the interface, from which nothing is let out.
    fn desired(&self) -> Desired {
        let json = format!(
            r#"{{"vpcs": {{"vpc-1": {{}}}},
                "vswitches": {{"vsw-1": {{"vpc": "vpc-1", "ipv4": "10.9.0.0/24", "ipv4_gateway": "10.9.0.253"}}}},
                "groups": {{"sg-1": {{"vpc": "vpc-1", "kind": "advanced", "inner_access": "drop"}}}},
                "enis": {{"eni-1": {{"vswitch": "vsw-1", "mac": "02:00:00:00:00:02", "groups": ["sg-1"],
                   "addresses": ["10.9.0.2/32"],
                   "port": {{"kind": "packet", "device": "port0", "namespace": "{}", "mtu_bytes": 1500}}}}}}}}"#,
            self.host
        );
        serde_json::from_str(&json).unwrap()
    }

    /// How many IP packets the stack of a namespace got, of both versions.
    fn packets_in(name: &str) -> u64 {
        let read = |file: &'static str| namespace::within(name, move || std::fs::read_to_string(file)).unwrap();
        let (v4, v6) = (read("/proc/thread-self/net/snmp"), read("/proc/thread-self/net/snmp6"));
        let mut lines = v4.lines().filter(|line| line.starts_with("Ip:"));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let at = names.split(' ').position(|name| name == "InReceives").unwrap();
        let v4: u64 = values.split(' ').nth(at).unwrap().parse().unwrap();
        let v6 = v6.lines().find(|line| line.starts_with("Ip6InReceives")).unwrap();
        v4 + v6.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    }

    /// The guest tries everything: its own stack, and frames of every kind made by hand.
    fn guest_sends_everything(&self) {
        namespace::within(&self.guest, || {
            let v4 = UdpSocket::bind("0.0.0.0:0")?;
            v4.set_broadcast(true)?;
            v4.set_multicast_ttl_v4(4)?;
            for target in ["10.9.9.1:7", "10.9.9.255:7", "239.1.1.1:7"] {
                v4.send_to(b"x", target)?;
            }
            let scope = std::fs::read_to_string("/proc/thread-self/net/if_inet6")?;
            let scope =
                scope.lines().find(|line| line.ends_with("eth0")).and_then(|line| line.split_whitespace().nth(1));
            let scope = scope.and_then(|index| u32::from_str_radix(index, 16).ok()).unwrap();
            let v6 = UdpSocket::bind("[::]:0")?;
            for target in ["fe80::fe", "ff02::1"] {
                let address = std::net::SocketAddrV6::new(target.parse().unwrap(), 7, 0, scope);
                v6.send_to(b"x", address)?;
            }
            let refused = TcpStream::connect_timeout(&"10.9.9.1:7".parse().unwrap(), QUIET);
            assert!(refused.is_err());
            Ok(())
        })
        .unwrap();
        let eth0 = desired::PacketPort { device: "eth0".into(), namespace: Some(self.guest.clone()), mtu_bytes: 1500 };
        let mut port = AfPacketPort::open(&eth0).unwrap();
        let mut burst: Vec<Packet> = frames().iter().map(|frame| packet_of(frame)).collect();
        port.send(&mut burst).unwrap();
        assert!(burst.iter().all(|packet| packet.verdict == Verdict::Deliver));
    }
}

impl Drop for IsolationNamespaces {
    fn drop(&mut self) {
        for name in [&self.host, &self.guest] {
            let _ = namespace::remove_if_made(name, &RunDir::default());
        }
    }
}

fn run(name: &str, command: &str) {
    let output = Command::new("ip").args(["netns", "exec", name]).args(command.split(' ')).output().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
}

/// What frames of some types meet behind the filters of the hosting namespace: sockets of protocols, as the stack's
/// own are.
struct Witness {
    place: String,
    sockets: Vec<OwnedFd>,
    packets_before: u64,
}

impl Witness {
    fn new(name: &str) -> Self {
        let open = |ether_type: &u16| {
            let protocol = NonZeroU32::new(u32::from(ether_type.to_be())).map(Protocol::from_raw);
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            Ok(socket_with(AddressFamily::PACKET, SocketType::RAW, flags, protocol)?)
        };
        let sockets = namespace::within(name, || ETHER_TYPES.iter().map(open).collect()).unwrap();
        Self { place: name.into(), sockets, packets_before: IsolationNamespaces::packets_in(name) }
    }

    /// Frames that came so far, and IP packets that the stack counted.
    fn seen(&self) -> (usize, u64) {
        let mut room = [0; 2048];
        let frames = self
            .sockets
            .iter()
            .map(|socket| std::iter::from_fn(|| recv(socket, &mut room[..], RecvFlags::DONTWAIT).ok()).count());
        (frames.sum(), IsolationNamespaces::packets_in(&self.place) - self.packets_before)
    }
}

struct IsolationPlane {
    running: RunningSwitch,
    client: TestClient,
    generation: u64,
}

impl IsolationPlane {
    fn start(interface_io: InterfaceIo) -> Self {
        Self::with(PortFactory { interface_io, ..PortFactory::default() })
    }

    fn with(ports: PortFactory) -> Self {
        let running = RunningSwitch::start_with(1, ports);
        let client = running.connect();
        Self { running, client, generation: 0 }
    }

    fn apply(&mut self, desired: Desired) {
        self.generation += 1;
        let reply = self.client.ask(RequestBody::Replace { generation: self.generation, desired });
        assert!(matches!(reply, SwitchReplyBody::Applied(_)), "{reply:?}");
    }

    fn port(&mut self) -> PortStatus {
        match self.client.ask(RequestBody::Ports) {
            SwitchReplyBody::Ports { mut ports } => ports.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn wait_for_port(&mut self, is_up: bool) -> PortStatus {
        let started = Instant::now();
        loop {
            let port = self.port();
            if port.up == is_up {
                return port;
            }
            assert!(started.elapsed() < WAIT_MAX, "{port:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Frames of the guest that the switch dropped.
    fn drops(&mut self) -> u64 {
        match self.client.ask(RequestBody::Stats { eni: Some("eni-1".into()) }) {
            SwitchReplyBody::Stats { enis } => enis[0].egress.drops.values().sum(),
            other => panic!("{other:?}"),
        }
    }
}

/// The same with another ENI instead, which has no interface.
fn with_other_eni(desired: &Desired) -> Desired {
    let mut desired = desired.clone();
    let eni = desired.enis.remove(&EniId::from("eni-1")).unwrap();
    desired.enis.insert("eni-2".into(), desired::DesiredEni { port: None, ..eni });
    desired
}

fn without_enis(desired: &Desired) -> Desired {
    let mut desired = desired.clone();
    desired.enis.clear();
    desired
}

#[test]
fn no_frame_of_a_guest_reaches_the_kernel_that_hosts_its_port() {
    for (name, interface_io) in [("in", InterfaceIo::Packet), ("xin", InterfaceIo::Xdp)] {
        let Some(place) = IsolationNamespaces::new(&format!("isolate-{name}")) else { return };
        let mut plane = IsolationPlane::start(interface_io);
        plane.apply(place.desired());
        plane.wait_for_port(true);
        let witness = Witness::new(&place.host);
        place.guest_sends_everything();
        std::thread::sleep(QUIET);
        assert_eq!(witness.seen(), (0, 0), "{interface_io:?}: frames and packets that reached the hosting kernel");
        let started = Instant::now();
        while plane.drops() < frames().len() as u64 / 2 {
            assert!(started.elapsed() < WAIT_MAX, "{interface_io:?}: the switch has them, and drops them");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(witness.seen(), (0, 0), "{interface_io:?}: nor once the switch has had them all");
        // What this is worth: without the port the same frames do reach it.
        plane.apply(without_enis(&place.desired()));
        place.guest_sends_everything();
        let started = Instant::now();
        // Whether one with a tag comes to a protocol is up to the kernel's support of VLANs.
        let plain =
            frames().iter().filter(|frame| ETHER_TYPES.iter().any(|kind| frame[12..14] == kind.to_be_bytes())).count();
        let (mut seen, mut packets) = (0, 0);
        while (seen < plain || packets < 10) && started.elapsed() < WAIT_MAX {
            let (more, all) = witness.seen();
            (seen, packets) = (seen + more, all);
        }
        assert!(seen >= plain && packets >= 10, "{interface_io:?}: {seen} frames, {packets} packets");
        plane.running.stop();
    }
}

#[test]
fn what_the_hosting_kernel_sends_does_not_reach_the_guest() {
    for (name, interface_io) in [("out", InterfaceIo::Packet), ("xout", InterfaceIo::Xdp)] {
        let Some(place) = IsolationNamespaces::new(&format!("isolate-{name}")) else { return };
        let mut plane = IsolationPlane::start(interface_io);
        plane.apply(place.desired());
        plane.wait_for_port(true);
        let send = || {
            namespace::within(&place.host, || {
                let socket = UdpSocket::bind("10.9.9.1:0")?;
                for target in ["10.9.9.2:7", "10.9.9.77:7"] {
                    let _refused_is_fine = socket.send_to(b"x", target);
                }
                Ok(())
            })
            .unwrap();
        };
        let witness = Witness::new(&place.guest);
        send();
        std::thread::sleep(QUIET);
        assert_eq!(witness.seen(), (0, 0), "{interface_io:?}: frames and packets that reached the guest");
        // The switch's own frames do.
        run(&place.guest, "ping -c 1 -W 60 10.9.0.253");
        plane.apply(without_enis(&place.desired()));
        let witness = Witness::new(&place.guest);
        send();
        let started = Instant::now();
        while witness.seen().1 == 0 {
            assert!(started.elapsed() < WAIT_MAX, "{interface_io:?}: without the port it comes");
        }
        plane.running.stop();
    }
}

/// A bridge takes frames of its members before any protocol does, and answers for addresses of its own.
#[test]
fn a_bridge_that_the_interface_is_in_gets_nothing_either() {
    let Some(place) = IsolationNamespaces::new("isolate-bridge") else { return };
    for command in [
        "ip link add br0 type bridge",
        "ip link set br0 up",
        "ip link set port0 master br0",
        "ip addr del 10.9.9.1/24 dev port0",
        "ip addr add 10.9.9.1/24 dev br0",
        "ip link set br0 address 02:00:00:00:00:fe",
    ] {
        place.in_host(command);
    }
    let mut plane = IsolationPlane::start(InterfaceIo::Packet);
    plane.apply(place.desired());
    plane.wait_for_port(true);
    let witness = Witness::new(&place.host);
    place.guest_sends_everything();
    std::thread::sleep(QUIET);
    assert_eq!(witness.seen(), (0, 0));
    plane.running.stop();
}

/// The sockets of a process that is killed are closed, and nothing else happens.
#[test]
fn a_killed_process_leaves_the_kernel_shut_out_and_the_next_one_takes_over() {
    for interface_io in [InterfaceIo::Packet, InterfaceIo::Xdp] {
        let Some(place) = IsolationNamespaces::new("isolate-kill") else { return };
        let factory = PortFactory { interface_io, ..PortFactory::default() };
        for _ in 0..2 {
            drop(factory.open(&EniId::from("eni-1"), &place.spec()).unwrap());
            let witness = Witness::new(&place.host);
            place.guest_sends_everything();
            std::thread::sleep(QUIET);
            assert_eq!(witness.seen(), (0, 0), "{interface_io:?}");
        }
        let mut plane = IsolationPlane::start(interface_io);
        plane.apply(place.desired());
        plane.wait_for_port(true);
        plane.apply(without_enis(&place.desired()));
        assert_eq!(queueing(&place), "", "what earlier processes left is gone with the port");
        plane.running.stop();
    }
}

/// Whether its ENI is still there when the next process starts or not: in the end the interface is the kernel's again.
#[test]
fn what_a_killed_process_left_is_given_back_when_its_eni_is_gone() {
    let Some(place) = IsolationNamespaces::new("isolate-left") else { return };
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("interfaces");
    let ports =
        PortFactory { run_dir: Some(RunDir::beside(&folder.path().join("vswitch.sock"))), ..PortFactory::default() };
    drop(ports.open(&EniId::from("eni-1"), &place.spec()).unwrap());
    assert!(queueing(&place).contains("clsact"));
    assert_eq!(std::fs::read_dir(&run_dir).unwrap().count(), 1);
    for is_there_first in [true, false] {
        drop(ports.open(&EniId::from("eni-1"), &place.spec()).unwrap());
        let mut plane = IsolationPlane::with(ports.clone());
        if is_there_first {
            plane.apply(place.desired());
            plane.wait_for_port(true);
            assert!(queueing(&place).contains("clsact"), "it is a port");
        }
        plane.apply(with_other_eni(&place.desired()));
        assert_eq!(queueing(&place), "");
        assert_eq!(std::fs::read_dir(&run_dir).unwrap().count(), 0);
        plane.running.stop();
    }
}

/// Its ENI is still there, as far as anybody knows: no guest gets around a switch that does not run, or that has lost its
/// state.
#[test]
fn a_stop_and_a_state_without_enis_leave_the_kernel_shut_out() {
    for interface_io in [InterfaceIo::Packet, InterfaceIo::Xdp] {
        let Some(place) = IsolationNamespaces::new("isolate-stop") else { return };
        let folder = tempfile::tempdir().unwrap();
        let run_dir = RunDir::beside(&folder.path().join("vswitch.sock"));
        let ports = PortFactory { run_dir: Some(run_dir.clone()), interface_io, ..PortFactory::default() };
        let states = [place.desired(), without_enis(&place.desired()), place.desired()];
        for (number, state) in states.into_iter().enumerate() {
            let mut plane = IsolationPlane::with(ports.clone());
            let has_port = !state.enis.is_empty();
            plane.apply(state);
            if has_port {
                plane.wait_for_port(true);
            }
            plane.running.stop();
            let witness = Witness::new(&place.host);
            place.guest_sends_everything();
            std::thread::sleep(QUIET);
            assert_eq!(witness.seen(), (0, 0), "{interface_io:?}, after process {number}");
            assert_eq!(isolation::recorded(&run_dir), [place.interface()], "{interface_io:?}, after process {number}");
        }
        isolation::release(&place.interface(), Some(&run_dir)).unwrap();
        assert_eq!(queueing(&place), "");
        assert_eq!(isolation::recorded(&run_dir), []);
    }
}

/// What queueing disciplines with filters `port0` has.
fn queueing(place: &IsolationNamespaces) -> String {
    let output = Command::new("tc").args(["-n", &place.host, "qdisc", "show", "dev", "port0"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| line.contains("clsact") || line.contains("ingress")).collect()
}

#[test]
fn a_port_that_cannot_be_isolated_stays_down_and_says_why() {
    let Some(place) = IsolationNamespaces::new("isolate-not") else { return };
    let cases = [
        ("tc qdisc add dev port0 ingress", "tc qdisc delete dev port0 ingress", "tc qdisc delete dev port0 ingress"),
        (
            "tc qdisc add dev port0 clsact",
            "tc filter delete dev port0 ingress pref 1",
            "tc filter delete dev port0 ingress pref 1",
        ),
    ];
    for (number, (before, after, told)) in cases.into_iter().enumerate() {
        let mut plane = IsolationPlane::start(InterfaceIo::Packet);
        place.in_host(before);
        if number == 1 {
            filter(&place, "ingress pref 1");
        }
        plane.apply(place.desired());
        let port = plane.wait_for_port(false);
        let error = port.error.unwrap_or_default();
        assert!(error.contains(told) && error.contains("port0") && error.contains(&place.host), "{error}");
        // Whatever the switch could not use it leaves alone.
        let others = queueing(&place);
        plane.apply(without_enis(&place.desired()));
        assert!(!others.is_empty() && queueing(&place) == others, "{others}, then {}", queueing(&place));
        plane.apply(place.desired());
        plane.wait_for_port(false);
        place.in_host(after);
        plane.wait_for_port(true);
        plane.apply(without_enis(&place.desired()));
        plane.running.stop();
    }
    let loopback = desired::PacketPort { device: "lo".into(), ..place.interface() };
    let spec = PortSpec { port: desired::DesiredPort::Packet(loopback), mac: MacAddress::default(), interface: None };
    let error = PortFactory::default().open(&EniId::from("eni-1"), &spec).unwrap_err().to_string();
    assert!(error.contains("not an Ethernet interface"), "{error}");
    let output = Command::new("tc").args(["-n", &place.host, "qdisc", "show", "dev", "lo"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stdout).contains("clsact"), "the loopback device is left alone");
}

/// A filter of somebody else, that lets everything pass.
fn filter(place: &IsolationNamespaces, at: &str) {
    let words = format!("filter add dev port0 {at} protocol all bpf da bytecode");
    let status =
        Command::new("tc").args(["-n", &place.host]).args(words.split(' ')).arg("1,6 0 0 0,").status().unwrap();
    assert!(status.success());
}

#[test]
fn filters_of_others_stay_and_filters_that_are_taken_away_come_back() {
    let Some(place) = IsolationNamespaces::new("isolate-back") else { return };
    let mut plane = IsolationPlane::start(InterfaceIo::Packet);
    place.in_host("tc qdisc add dev port0 clsact");
    filter(&place, "egress pref 7");
    plane.apply(place.desired());
    plane.wait_for_port(true);
    let is_isolated = || {
        let interface = place.interface();
        namespace::within(&place.host, || Ok(vswitch::os::isolation::is_isolated(&interface.device))).unwrap()
    };
    assert!(is_isolated());
    place.in_host("tc qdisc delete dev port0 clsact");
    assert!(!is_isolated());
    let started = Instant::now();
    while !is_isolated() {
        assert!(started.elapsed() < WAIT_MAX, "nobody puts it back");
        std::thread::sleep(Duration::from_millis(20));
    }
    filter(&place, "egress pref 7");
    plane.apply(without_enis(&place.desired()));
    assert!(!is_isolated() && queueing(&place).contains("clsact"), "the other's filter is still there");
    isolation::release(&place.interface(), None).unwrap();
    place.in_host("tc qdisc delete dev port0 clsact");
    isolation::release(&place.interface(), None).unwrap();
    isolation::release(&desired::PacketPort { device: "absent0".into(), ..place.interface() }, None).unwrap();
    plane.running.stop();
}

/// A TAP device that is in a bridge when the switch takes it stays there, and stays when the switch lets it go:
/// whatever the bridge connects is behind the port, the hosting stack included.
#[test]
fn a_tap_in_a_bridge_has_all_that_the_bridge_connects_behind_it() {
    let Some(place) = IsolationNamespaces::new("isolate-tap-bridge") else { return };
    for command in [
        "ip tuntap add tap1 mode tap",
        "ip link add br0 type bridge",
        "ip link set tap1 master br0 up",
        "ip link set port0 master br0",
        "ip link set br0 up",
    ] {
        place.in_host(command);
    }
    run(&place.guest, "ip neigh add 10.9.9.77 lladdr 02:00:00:00:00:77 dev eth0");
    let (device, namespace) = ("tap1".into(), Some(place.host.clone()));
    let (create_namespace, configure) = (false, false);
    let tap = desired::TapPort { device, namespace, create_namespace, configure, mtu_bytes: 1500 };
    let spec = PortSpec { port: desired::DesiredPort::Tap(tap), mac: MacAddress::default(), interface: None };
    let mut port = PortFactory::default().open(&EniId::from("eni-1"), &spec).unwrap();
    let socket = namespace::within(&place.guest, || UdpSocket::bind("10.9.9.2:0")).unwrap();
    let (mut pool, mut burst) = (BufferPool::new(PoolSize { small: 64, large: 2 }), Vec::new());
    let started = Instant::now();
    let is_ours = |packet: &Packet| packet.buffer.frame().windows(6).any(|bytes| bytes == b"bridge");
    while !burst.iter().any(is_ours) {
        assert!(started.elapsed() < WAIT_MAX, "what a member of the bridge sends comes to the port");
        socket.send_to(b"bridge", "10.9.9.77:7").unwrap();
        burst.drain(..).for_each(|packet: Packet| pool.put(packet.buffer));
        port.receive(&mut pool, &mut burst, 32).unwrap();
    }
    drop(port);
    let links = Command::new("ip").args(["-n", &place.host, "link", "show", "tap1"]).output().unwrap();
    assert!(String::from_utf8_lossy(&links.stdout).contains("master br0"), "{links:?}");
}

/// A TAP device without a namespace has the hosting stack as its guest: whatever it says is evaluated as that ENI's.
#[test]
fn the_guest_of_a_tap_without_a_namespace_is_the_kernel_that_hosts_it() {
    let Some(place) = IsolationNamespaces::new("isolate-tap") else { return };
    let tap = desired::TapPort {
        device: "tap0".into(),
        namespace: None,
        create_namespace: false,
        configure: false,
        mtu_bytes: 1500,
    };
    let port = desired::DesiredPort::Tap(tap);
    let spec = PortSpec { port, mac: MacAddress::default(), interface: None };
    let mut port =
        namespace::within(&place.host, || PortFactory::default().open(&EniId::from("eni-1"), &spec)).unwrap();
    place.in_host("ip addr add 10.9.7.1/24 dev tap0");
    place.in_host("ip link set tap0 address 02:00:00:00:00:07 up");
    place.in_host("ip neigh add 10.9.7.9 lladdr 02:00:00:00:00:09 dev tap0");
    let socket = namespace::within(&place.host, || UdpSocket::bind("10.9.7.1:9")).unwrap();
    socket.set_read_timeout(Some(WAIT_MAX)).unwrap();
    let target: SocketAddr = (Ipv4Addr::new(10, 9, 7, 9), 9).into();
    socket.send_to(b"out", target).unwrap();
    let (mut pool, mut burst) = (BufferPool::new(PoolSize { small: 64, large: 2 }), Vec::new());
    let started = Instant::now();
    let is_ours = |packet: &Packet| packet.buffer.frame().windows(3).any(|bytes| bytes == b"out");
    while !burst.iter().any(is_ours) {
        assert!(started.elapsed() < WAIT_MAX, "what the hosting stack sends is what the port receives");
        burst.drain(..).for_each(|packet: Packet| pool.put(packet.buffer));
        port.receive(&mut pool, &mut burst, 32).unwrap();
    }
    let before = IsolationNamespaces::packets_in(&place.host);
    let frame = [[2, 0, 0, 0, 0, 7].as_slice(), &[2, 0, 0, 0, 0, 9], &[8, 0], &ipv4([10, 9, 7, 1])].concat();
    let mut burst = [packet_of(&frame)];
    port.send(&mut burst).unwrap();
    let started = Instant::now();
    while IsolationNamespaces::packets_in(&place.host) == before {
        assert!(started.elapsed() < WAIT_MAX, "what the port sends is what the hosting stack receives");
    }
}
