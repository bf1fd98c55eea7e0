//! TAP ports in namespaces of the kernel. Each test makes and removes its own; without root they say so and pass.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};
use vswitch::os::namespace;
use vswitch::os::netlink::Interface;
use vswitch::os::run_dir::RunDir;
use vswitch::port::buffer_pool::{BufferPool, PoolSize};
use vswitch::port::tap::{self, Tap, TapIo};
use vswitch::port::{Port, Received};
use vswitch_core::config::desired::TapPort;
use vswitch_core::packet::Packet;
use vswitch_core::packet::offload::{Offloads, PartialChecksum};
use vswitch_core::packet::verdict::{DropReason, Verdict};

/// A namespace name of this test alone, which is gone when the test is.
struct TapNamespace(String);

impl TapNamespace {
    fn new(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !std::path::Path::new("/dev/net/tun").exists() {
            eprintln!("SKIPPED: {test} needs root and /dev/net/tun");
            return None;
        }
        Some(Self(format!("sluice-{test}-{}", std::process::id())))
    }

    fn tap(&self) -> TapPort {
        let (namespace, create_namespace) = (Some(self.0.clone()), true);
        TapPort { device: "eth0".into(), namespace, create_namespace, configure: true, mtu_bytes: 1400 }
    }

    fn ip(&self, arguments: &[&str]) -> String {
        let output = Command::new("ip").args(["-n", &self.0]).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }
}

impl Drop for TapNamespace {
    fn drop(&mut self) {
        let _ = namespace::remove_if_made(&self.0, &RunDir::default());
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).output();
    }
}

fn interface() -> Interface {
    Interface {
        mac: "02:00:00:00:00:05".parse().unwrap(),
        mtu_bytes: 1400,
        addresses: vec!["10.9.0.5/24".parse().unwrap(), "2001:db8::5/64".parse().unwrap()],
        gateways: vec!["10.9.0.253".parse().unwrap(), "2001:db8::fd".parse().unwrap()],
        gateway_mac: "02:00:00:00:00:fd".parse().unwrap(),
        routes: Vec::new(),
    }
}

fn receive_within(port: &mut Tap, limit: Duration) -> std::io::Result<Vec<Packet>> {
    let (mut pool, mut burst) = (BufferPool::new(PoolSize { small: 64, large: 2 }), Vec::new());
    let started = Instant::now();
    while burst.is_empty() && started.elapsed() < limit {
        if port.receive(&mut pool, &mut burst, 32)? == Received::Drained {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(burst)
}

fn verdicts(port: &mut Tap, burst: &mut [Packet]) -> Vec<Verdict> {
    port.send(burst).unwrap();
    burst.iter().map(|packet| packet.verdict).collect()
}

#[test]
fn a_device_is_made_in_its_namespace_with_all_that_its_guest_needs() {
    let Some(guest) = TapNamespace::new("make") else { return };
    let mut port = Tap::open(&guest.tap(), Some(&interface())).unwrap();
    let addresses = guest.ip(&["addr", "show", "dev", "eth0"]);
    for expected in ["10.9.0.5/24", "2001:db8::5/64", "02:00:00:00:00:05", "mtu 1400", "UP"] {
        assert!(addresses.contains(expected), "{expected} in {addresses}");
    }
    assert!(!addresses.contains("fe80") && !addresses.contains("tentative"), "{addresses}");
    assert!(guest.ip(&["route"]).contains("default via 10.9.0.253"));
    assert!(guest.ip(&["-6", "route"]).contains("default via 2001:db8::fd"));
    assert!(guest.ip(&["addr", "show", "dev", "lo"]).contains("UP"));
    // What the guest sends comes out here, through the gateway, for whose hardware address nobody asks.
    let gateway = [2, 0, 0, 0, 0, 0xfd];
    for target in ["10.9.0.7:9", "10.9.0.253:9", "192.0.2.1:9", "[2001:db8::7]:9", "[2001:db8::fd]:9"] {
        let target: SocketAddr = target.parse().unwrap();
        let (source, kind) = if target.is_ipv4() { ("0.0.0.0:0", [8, 0]) } else { ("[::]:0", [0x86, 0xdd]) };
        namespace::within(&guest.0, || UdpSocket::bind(source)?.send_to(b"x", target)).unwrap();
        let is_it = |packet: &Packet| {
            let frame = packet.buffer.frame();
            frame[..6] == gateway && frame[12..14] == kind && frame.ends_with(b"x")
        };
        let mut seen = false;
        while !seen {
            let burst = receive_within(&mut port, Duration::from_secs(60)).unwrap();
            assert!(!burst.is_empty(), "nothing came for {target}");
            assert!(burst.iter().all(|packet| packet.buffer.frame()[12..14] != [8, 6]), "no question");
            seen = burst.iter().any(is_it);
        }
    }
    let neighbors = guest.ip(&["neigh", "show", "nud", "all", "dev", "eth0"]);
    let learnt: Vec<&str> =
        neighbors.lines().filter(|line| !line.contains("PERMANENT") && !line.contains("NOARP")).collect();
    assert!(learnt.is_empty(), "{neighbors}");
}

/// Setting its device down takes a guest's routes; up again it has those of its addresses, and asks for neighbours.
#[test]
fn a_guest_that_sets_its_device_down_and_up_still_has_its_subnet() {
    let Some(guest) = TapNamespace::new("bounce") else { return };
    let _port = Tap::open(&guest.tap(), Some(&interface())).unwrap();
    assert!(guest.ip(&["route", "get", "10.9.0.7"]).contains("via 10.9.0.253"));
    guest.ip(&["link", "set", "eth0", "down"]);
    guest.ip(&["link", "set", "eth0", "up"]);
    let route = guest.ip(&["route", "get", "10.9.0.7"]);
    assert!(route.contains("10.9.0.7 dev eth0"), "{route}");
}

#[test]
fn a_device_is_set_anew_while_it_runs() {
    let Some(guest) = TapNamespace::new("anew") else { return };
    let _port = Tap::open(&guest.tap(), Some(&interface())).unwrap();
    let wanted = Interface {
        mtu_bytes: 9000,
        addresses: vec!["10.9.0.6/24".parse().unwrap(), "2001:db8::5/64".parse().unwrap()],
        gateways: vec!["10.9.0.254".parse().unwrap(), "2001:db8::fd".parse().unwrap()],
        gateway_mac: "02:00:00:00:00:fe".parse().unwrap(),
        ..interface()
    };
    for _ in 0..2 {
        tap::adjust(&guest.tap(), &wanted, Some(&interface())).unwrap();
        let addresses = guest.ip(&["addr", "show", "dev", "eth0"]);
        assert!(addresses.contains("10.9.0.6/24") && !addresses.contains("10.9.0.5/24"), "{addresses}");
        assert!(addresses.contains("2001:db8::5/64") && addresses.contains("mtu 9000"), "{addresses}");
        let routes = guest.ip(&["route"]);
        assert!(routes.contains("default via 10.9.0.254") && !routes.contains("10.9.0.253"), "{routes}");
        let neighbors = guest.ip(&["neigh", "show", "nud", "permanent", "dev", "eth0"]);
        assert!(
            neighbors.contains("10.9.0.254 lladdr 02:00:00:00:00:fe") && !neighbors.contains("10.9.0.253"),
            "{neighbors}"
        );
        assert!(neighbors.contains("2001:db8::fd lladdr 02:00:00:00:00:fe"), "{neighbors}");
    }
}

#[test]
fn a_removed_device_is_an_error_that_says_so() {
    let Some(guest) = TapNamespace::new("removed") else { return };
    let mut port = Tap::open(&guest.tap(), Some(&interface())).unwrap();
    assert_eq!(guest.ip(&["link", "delete", "eth0"]), "");
    let error = receive_within(&mut port, Duration::from_secs(60)).unwrap_err();
    assert!(error.to_string().contains("the device was removed"), "{error}");
    assert!(error.to_string().contains(&guest.0), "{error}");
    let packet = Packet::new(vswitch_core::packet::FrameBuffer::with_capacity(64));
    assert!(port.send(&mut [packet]).is_err());
    drop(port);
    Tap::open(&guest.tap(), Some(&interface())).unwrap();
}

#[test]
fn a_link_that_is_down_is_no_failure() {
    let Some(guest) = TapNamespace::new("down") else { return };
    let mut port = Tap::open(&guest.tap(), Some(&interface())).unwrap();
    guest.ip(&["link", "set", "eth0", "down"]);
    let mut buffer = vswitch_core::packet::FrameBuffer::with_capacity(64);
    buffer.fill(&[0; 64]);
    let mut burst = [Packet::new(buffer)];
    assert_eq!(verdicts(&mut port, &mut burst), [Verdict::Drop(DropReason::PortDown)]);
    guest.ip(&["link", "set", "eth0", "up"]);
    assert_eq!(verdicts(&mut port, &mut burst), [Verdict::Deliver]);
}

#[test]
fn a_guest_leaves_checksums_undone_only_where_that_was_offered() {
    for offered in [Offloads::ALL, Offloads::NONE] {
        let Some(guest) = TapNamespace::new("undone") else { return };
        let mut port = Tap::open_with(&guest.tap(), Some(&interface()), offered, TapIo::Plain).unwrap();
        assert!(offered.contains(port.offloads()));
        assert_eq!(port.offloads() == Offloads::NONE, offered == Offloads::NONE, "this kernel has some");
        guest.ip(&["neigh", "replace", "10.9.0.7", "lladdr", "02:00:00:00:00:07", "dev", "eth0"]);
        let target: SocketAddr = "10.9.0.7:9".parse().unwrap();
        namespace::within(&guest.0, || UdpSocket::bind("0.0.0.0:0")?.send_to(&[7; 1000], target)).unwrap();
        let is_ours = |packet: &Packet| packet.buffer.frame()[12..14] == [8, 0] && packet.buffer.frame()[23] == 17;
        let packet = loop {
            let burst = receive_within(&mut port, Duration::from_secs(60)).unwrap();
            assert!(!burst.is_empty(), "the datagram did not come");
            if let Some(packet) = burst.into_iter().find(is_ours) {
                break packet;
            }
        };
        let partial = PartialChecksum { start: 34, offset: 6 };
        assert_eq!(packet.offload.checksum, (offered == Offloads::ALL).then_some(partial));
        // And the kernel takes back what it gave.
        assert_eq!(verdicts(&mut port, &mut [packet]), [Verdict::Deliver]);
    }
}

#[test]
fn what_the_kernel_refuses_is_not_the_ports_failure() {
    let Some(guest) = TapNamespace::new("refuse") else { return };
    let mut port = Tap::open(&guest.tap(), Some(&interface())).unwrap();
    let packet = |bytes: usize| {
        let mut buffer = vswitch_core::packet::FrameBuffer::with_capacity(64);
        buffer.fill(&vec![0; bytes]);
        Packet::new(buffer)
    };
    let refused = Verdict::Drop(DropReason::PortRefused);
    let expected = [Verdict::Deliver, refused, Verdict::Deliver];
    assert_eq!(verdicts(&mut port, &mut [packet(64), packet(5), packet(64)]), expected);
}

/// Opens a device that was closed. A program that another test starts holds all descriptors of this process for a moment.
fn open_once_free(port: &TapPort) -> Tap {
    for _ in 0..500 {
        match Tap::open(port, Some(&interface())) {
            Err(error) if error.to_string().contains("another process has the device open") => {
                sleep(Duration::from_millis(10))
            }
            opened => return opened.unwrap(),
        }
    }
    panic!("{} stays in use", port.device);
}

#[test]
fn a_namespace_that_the_switch_made_survives_it_and_can_be_removed_by_the_next() {
    let Some(guest) = TapNamespace::new("made") else { return };
    drop(Tap::open(&guest.tap(), Some(&interface())).unwrap());
    let first = namespace::identity(&guest.0).unwrap();
    drop(open_once_free(&guest.tap()));
    assert_eq!(namespace::identity(&guest.0).unwrap(), first, "adopted, not made again");
    assert!(namespace::is_made(&guest.0, &RunDir::default()));
    namespace::remove_if_made(&guest.0, &RunDir::default()).unwrap();
    assert!(namespace::identity(&guest.0).is_err());
}

#[test]
fn a_namespace_of_somebody_else_is_never_removed() {
    let Some(guest) = TapNamespace::new("foreign") else { return };
    let without = TapPort { create_namespace: false, ..guest.tap() };
    let error = Tap::open(&without, Some(&interface())).unwrap_err();
    assert!(error.to_string().contains("does not exist"), "{error}");
    assert!(Command::new("ip").args(["netns", "add", &guest.0]).status().unwrap().success());
    drop(Tap::open(&guest.tap(), Some(&interface())).unwrap());
    namespace::remove_if_made(&guest.0, &RunDir::default()).unwrap();
    assert!(namespace::identity(&guest.0).is_ok());
}

#[test]
fn a_namespace_made_anew_under_a_noted_name_is_somebody_elses() {
    let Some(guest) = TapNamespace::new("replaced") else { return };
    namespace::ensure(&guest.0, &RunDir::default()).unwrap();
    for command in ["delete", "add"] {
        assert!(Command::new("ip").args(["netns", command, &guest.0]).status().unwrap().success());
    }
    assert!(!namespace::is_made(&guest.0, &RunDir::default()));
    namespace::remove_if_made(&guest.0, &RunDir::default()).unwrap();
    assert!(namespace::identity(&guest.0).is_ok());
}

#[test]
fn a_device_in_use_is_told_apart_from_one_that_cannot_be_made() {
    let Some(guest) = TapNamespace::new("busy") else { return };
    let _port = Tap::open(&guest.tap(), Some(&interface())).unwrap();
    let error = Tap::open(&guest.tap(), Some(&interface())).unwrap_err();
    assert!(error.to_string().contains("another process has the device open"), "{error}");
    let wrong = TapPort { device: "lo".into(), ..guest.tap() };
    let error = Tap::open(&wrong, None).unwrap_err();
    assert!(error.to_string().contains("not a TAP device"), "{error}");
    let long = TapPort { device: "a-name-beyond-15b".into(), ..guest.tap() };
    assert!(Tap::open(&long, None).unwrap_err().to_string().contains("15 bytes"));
}

#[test]
fn a_device_that_exists_is_adopted_and_left_behind() {
    let Some(guest) = TapNamespace::new("adopt") else { return };
    namespace::ensure(&guest.0, &RunDir::default()).unwrap();
    assert_eq!(guest.ip(&["tuntap", "add", "dev", "eth0", "mode", "tap"]), "");
    let index = || guest.ip(&["-o", "link", "show", "dev", "eth0"]).split(':').next().unwrap().to_owned();
    let before = index();
    let mut port = Tap::open(&guest.tap(), Some(&interface())).unwrap();
    assert_eq!(index(), before);
    receive_within(&mut port, Duration::from_millis(10)).unwrap();
    drop(port);
    assert_eq!(index(), before);
}

#[test]
fn a_command_runs_inside() {
    let Some(guest) = TapNamespace::new("exec") else { return };
    namespace::ensure(&guest.0, &RunDir::default()).unwrap();
    let error = std::thread::scope(|scope| {
        // Fails, or else this process would be gone; on a thread of its own, which stays inside the namespace.
        scope.spawn(|| namespace::exec(&guest.0, &["/nowhere/command".into()])).join().unwrap()
    });
    assert!(error.to_string().contains("/nowhere/command"), "{error}");
    let links = namespace::within(&guest.0, || std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap();
    assert_eq!(links.lines().count(), 3, "two lines of titles, and lo: {links}");
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in ["", ".", "..", "../web", "a/b"] {
        assert!(namespace::identity(name).unwrap_err().to_string().contains("cannot be the name"), "{name}");
        assert!(namespace::ensure(name, &RunDir::default()).is_err());
    }
}

#[test]
fn opening_and_closing_leaves_no_descriptor_behind() {
    let Some(guest) = TapNamespace::new("leak") else { return };
    let eth0 = |link: std::io::Result<std::fs::DirEntry>| {
        let target = std::fs::read_link(link.ok()?.path()).ok()?;
        target.to_str()?.contains(&format!("netns/{}", guest.0)).then_some(())
    };
    for _ in 0..3 {
        drop(Tap::open(&guest.tap(), Some(&interface())).unwrap());
        assert!(Tap::open(&TapPort { device: "lo".into(), ..guest.tap() }, None).is_err());
    }
    assert_eq!(std::fs::read_dir("/proc/self/fd").unwrap().filter_map(eth0).count(), 0);
    assert_eq!(guest.ip(&["-o", "link"]).lines().count(), 1, "only lo is left");
}
