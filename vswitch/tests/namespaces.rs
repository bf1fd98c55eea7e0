//! The whole forwarding plane with guests of the kernel. Each test makes and removes its own namespaces; without root
//! they say so and pass.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

#[allow(dead_code, reason = "shared with other tests, which use more of it")]
mod running;

use running::lab::NamespaceLab;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};
use vswitch::os::io_uring::BatchRing;
use vswitch::os::namespace;
use vswitch::os::run_dir::RunDir;
use vswitch::port::factory::{InterfaceIo, PortFactory};
use vswitch::port::tap::{TapIo, steering};
use vswitch_core::config::desired::{DesiredPort, PacketPort, Policy};
use vswitch_core::config::protocol::{RequestBody, SwitchReplyBody};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn guests_talk_as_the_rules_say_and_a_change_counts_at_once() {
    for workers in [1, 2] {
        let Some(mut lab) = NamespaceLab::new(&format!("talk{workers}"), workers) else { return };
        let open = lab.desired("accept");
        let applied = lab.apply(open.clone());
        assert!(applied.ports_down.is_empty(), "{applied:?}");
        for target in ["10.9.0.2", "10.9.0.253", "2001:db8::2", "2001:db8::fd"] {
            assert!(lab.ping(target), "{target} with {workers} workers");
        }
        let (text, _) = lab.run(1, "ping -q -c 200 -i 0.005 10.9.0.2");
        println!("{workers} workers: {}", text.lines().last().unwrap_or_default());
        assert!(text.contains(" 0% packet loss"), "{text}");
        let mut closed = open.clone();
        closed.groups.values_mut().for_each(|group| group.inner_access = Policy::Drop);
        let applied = lab.apply(closed);
        println!("{workers} workers: barrier {} µs", applied.barrier_ns / 1000);
        assert!(!lab.ping("10.9.0.2"));
        lab.apply(open);
        assert!(lab.ping("10.9.0.2"));
    }
}

#[test]
fn a_stream_arrives_as_it_was_sent_with_offloads_and_without() {
    for (workers, rx_queues, plain_taps, tap_io) in [
        (1, 1, false, TapIo::Plain),
        (2, 1, false, TapIo::Plain),
        (2, 2, false, TapIo::Plain),
        (1, 1, true, TapIo::Plain),
        (1, 1, false, TapIo::Uring),
        (2, 1, true, TapIo::Uring),
        (3, 3, true, TapIo::Uring),
    ] {
        if tap_io == TapIo::Uring && BatchRing::new().is_err() {
            eprintln!("SKIPPED: this kernel gives no rings");
            continue;
        }
        if rx_queues > 1 && steering::load().is_err() {
            eprintln!("SKIPPED: rx queues need the capability for BPF");
            continue;
        }
        let ports = PortFactory { plain_taps, tap_io, rx_queues, ..PortFactory::default() };
        let Some(mut lab) =
            NamespaceLab::with_ports(&format!("tcp{workers}{rx_queues}{plain_taps}{tap_io:?}"), workers, ports)
        else {
            return;
        };
        lab.apply(lab.desired("accept"));
        stream(&mut lab, 1, 2);
    }
}

#[test]
fn a_guest_behind_a_veth_pair_talks_with_one_behind_a_tap() {
    for workers in [1, 2] {
        let Some(mut lab) = NamespaceLab::new(&format!("veth{workers}"), workers) else { return };
        let name = lab.namespace(2);
        namespace::ensure(&name, &RunDir::default()).unwrap();
        for command in [
            "ip link add port0 type veth peer name eth0 address 02:00:00:00:00:02",
            "ip link set lo up",
            "ip link set port0 up",
            "ip link set eth0 up",
            "ip addr add 10.9.0.2/24 dev eth0",
            "ip addr add 2001:db8::2/64 dev eth0 nodad",
        ] {
            assert!(lab.run(2, command).1, "{command}");
        }
        let mut desired = lab.desired("accept");
        let device = PacketPort { device: "port0".into(), namespace: Some(name.clone()), mtu_bytes: 1500 };
        desired.enis.get_mut(&"eni-2".into()).unwrap().port = Some(DesiredPort::Packet(device));
        let applied = lab.apply(desired);
        assert!(applied.ports_down.is_empty(), "{applied:?}");
        assert!(lab.ping("10.9.0.2") && lab.ping("2001:db8::2"));
        stream(&mut lab, 1, 2);
        stream(&mut lab, 2, 1);
        let port = lab.ports().remove(1);
        assert_eq!((port.kind.as_str(), port.device.as_deref(), port.failures), ("packet", Some("port0"), 0));
        // Removed and made again, it is had again.
        assert!(lab.run(2, "ip link delete port0").1);
        let down = lab.wait_for_port(2, false);
        assert!(down.error.as_ref().is_some_and(|error| error.contains("port0")), "{down:?}");
        assert!(lab.run(2, "ip link add port0 type veth peer name eth0").1);
        for device in ["port0", "eth0"] {
            assert!(lab.run(2, &format!("ip link set {device} up")).1);
        }
        lab.wait_for_port(2, true);
        namespace::remove_if_made(&name, &RunDir::default()).unwrap();
    }
}

/// Sends a stream from one guest to the other over both families, and looks at every byte.
fn stream(lab: &mut NamespaceLab, from: u8, to: u8) {
    static CHUNK: [u8; 65_536] = [0xa5; 65_536];
    const CHUNKS: usize = 128;
    for address in [format!("10.9.0.{to}:0"), format!("[2001:db8::{to}]:0")] {
        let before = stats_of(lab, to);
        let listener = namespace::within(&lab.namespace(to), || TcpListener::bind(&address)).unwrap();
        let target = listener.local_addr().unwrap();
        let mut sender = namespace::within(&lab.namespace(from), || TcpStream::connect(target)).unwrap();
        let (mut receiver, _) = listener.accept().unwrap();
        let writer = std::thread::spawn(move || {
            (0..CHUNKS).for_each(|number| sender.write_all(&CHUNK.map(|byte| byte ^ number as u8)).unwrap());
        });
        let mut chunk = vec![0; CHUNK.len()];
        for number in 0..CHUNKS {
            receiver.read_exact(&mut chunk).unwrap();
            assert!(chunk.iter().all(|byte| *byte == 0xa5 ^ number as u8), "chunk {number}");
        }
        writer.join().unwrap();
        let after = stats_of(lab, to);
        let (packets, bytes) = (after.0 - before.0, after.1 - before.1);
        // With 1,500 bytes a packet carries 1,448 of the stream, or 1,428 over IPv6, whoever cut it.
        assert!(packets >= (CHUNKS * CHUNK.len() / 1448) as u64, "{packets} packets");
        assert!(bytes / packets <= 1514, "{bytes} bytes in {packets} packets");
    }
}

/// Packets and bytes that reached a guest.
fn stats_of(lab: &mut NamespaceLab, number: u8) -> (u64, u64) {
    match lab.client.ask(RequestBody::Stats { eni: Some(format!("eni-{number}").as_str().into()) }) {
        SwitchReplyBody::Stats { enis } => (enis[0].ingress.packets, enis[0].ingress.bytes),
        other => panic!("{other:?}"),
    }
}

/// Frames stand in the ring of an XDP socket, because the interface is down, when the rule that let them pass goes.
/// They must not leave with the next that does.
#[test]
fn what_stands_in_the_ring_of_an_xdp_socket_does_not_outlive_its_rules() {
    for workers in [1, 2] {
        let ports = PortFactory { interface_io: InterfaceIo::Xdp, ..PortFactory::default() };
        let Some(mut lab) = NamespaceLab::with_ports(&format!("xdp-ring{workers}"), workers, ports) else { return };
        let name = lab.namespace(2);
        namespace::ensure(&name, &RunDir::default()).unwrap();
        for command in [
            "ip link add port0 type veth peer name eth0 address 02:00:00:00:00:02",
            "ip addr add 10.9.0.2/24 dev eth0",
            "ip link set eth0 up",
            "ip link set port0 up",
        ] {
            assert!(lab.run(2, command).1, "{command}");
        }
        let mut open = lab.desired("accept");
        let device = PacketPort { device: "port0".into(), namespace: Some(name.clone()), mtu_bytes: 1500 };
        open.enis.get_mut(&"eni-2".into()).unwrap().port = Some(DesiredPort::Packet(device));
        assert!(lab.apply(open.clone()).ports_down.is_empty());
        assert!(lab.ping("10.9.0.2"));
        let receiver = namespace::within(&name, || UdpSocket::bind("10.9.0.2:9")).unwrap();
        receiver.set_nonblocking(true).unwrap();
        let sender = namespace::within(&lab.namespace(1), || UdpSocket::bind("10.9.0.1:0")).unwrap();
        assert!(lab.run(2, "ip link set port0 down").1);
        let before = stats_of(&mut lab, 2).0;
        for _ in 0..5 {
            sender.send_to(b"old", "10.9.0.2:9").unwrap();
        }
        let started = Instant::now();
        while stats_of(&mut lab, 2).0 < before + 5 {
            assert!(started.elapsed() < Duration::from_secs(60), "the switch lets them pass");
        }
        let mut closed = open.clone();
        closed.groups.values_mut().for_each(|group| group.inner_access = Policy::Drop);
        lab.apply(closed);
        assert!(lab.run(2, "ip link set port0 up").1);
        lab.wait_for_port(2, true);
        // What the port sends next would have taken them along.
        assert!(lab.run(2, "ping -c 1 -W 60 10.9.0.253").1);
        std::thread::sleep(Duration::from_millis(100));
        assert!(receiver.recv(&mut [0; 8]).is_err(), "{workers} workers: nothing by the old rules after the reply");
        namespace::remove_if_made(&name, &RunDir::default()).unwrap();
    }
}

#[test]
fn a_deleted_device_comes_back() {
    let Some(mut lab) = NamespaceLab::new("device", 2) else { return };
    let desired = lab.desired("accept");
    lab.apply(desired);
    assert!(lab.ping("10.9.0.2"));
    let before = descriptors();
    for round in 1..=3 {
        assert!(lab.run(2, "ip link delete eth0").1);
        let started = Instant::now();
        while lab.ports()[1].failures < round {
            assert!(started.elapsed() < Duration::from_secs(60), "{:?}", lab.ports());
            std::thread::sleep(Duration::from_millis(2));
        }
        lab.wait_for_port(2, true);
        println!("back after {:?}", started.elapsed());
        assert!(lab.ping("10.9.0.2"));
    }
    // The other tests of this process have some of their own for as long as they run.
    let started = Instant::now();
    while descriptors() > before {
        assert!(started.elapsed() < Duration::from_secs(60), "no descriptor is left behind");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_deleted_namespace_comes_back() {
    let Some(mut lab) = NamespaceLab::new("gone", 1) else { return };
    let desired = lab.desired("accept");
    lab.apply(desired);
    assert!(lab.ping("10.9.0.2"));
    assert!(Command::new("ip").args(["netns", "delete", &lab.namespace(2)]).status().unwrap().success());
    let started = Instant::now();
    while lab.ports()[1].failures < 1 {
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", lab.ports());
        std::thread::sleep(Duration::from_millis(2));
    }
    lab.wait_for_port(2, true);
    println!("back after {:?}", started.elapsed());
    assert!(lab.ping("10.9.0.2"));
}

#[test]
fn a_port_that_cannot_be_had_is_down_with_a_reason_until_it_can() {
    let Some(mut lab) = NamespaceLab::new("later", 1) else { return };
    let mut desired = lab.desired("accept");
    for eni in desired.enis.values_mut() {
        if let Some(vswitch_core::config::desired::DesiredPort::Tap(tap)) = &mut eni.port {
            tap.create_namespace = false;
        }
    }
    let applied = lab.apply(desired);
    assert_eq!(applied.ports_down.len(), 2);
    assert!(applied.ports_down[0].error.as_ref().unwrap().contains("does not exist"), "{applied:?}");
    for number in [1, 2] {
        namespace::ensure(&lab.namespace(number), &RunDir::default()).unwrap();
    }
    for number in [1, 2] {
        lab.wait_for_port(number, true);
    }
    assert!(lab.ping("10.9.0.2"));
    for number in [1, 2] {
        namespace::remove_if_made(&lab.namespace(number), &RunDir::default()).unwrap();
        assert!(lab.wait_for_port(number, false).error.unwrap().contains("does not exist"));
    }
}

#[test]
fn an_address_changes_without_the_device_going_away() {
    let Some(mut lab) = NamespaceLab::new("address", 1) else { return };
    let mut desired = lab.desired("accept");
    lab.apply(desired.clone());
    let before = lab.run(2, "cat /sys/class/net/eth0/ifindex").0;
    desired.enis.get_mut(&"eni-2".into()).unwrap().addresses = vec!["10.9.0.77/32".parse().unwrap()];
    lab.apply(desired);
    assert!(lab.ping("10.9.0.77") && !lab.ping("10.9.0.2"));
    assert_eq!(lab.run(2, "cat /sys/class/net/eth0/ifindex").0, before);
}

#[test]
#[ignore = "measures; run by hand with --release"]
fn throughput() {
    for workers in [1, 2] {
        let Some(mut lab) = NamespaceLab::new(&format!("speed{workers}"), workers) else { return };
        let desired = lab.desired("accept");
        lab.apply(desired);
        let namespace = lab.namespace(2);
        let mut server = Command::new("ip")
            .args(["netns", "exec", &namespace, "iperf3", "-s"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(300));
        for options in ["-t 4", "-t 4 -P 8", "-t 4 -R", "-t 4 -u -b 0 -l 18"] {
            let (text, _) = lab.run(1, &format!("iperf3 -c 10.9.0.2 {options}"));
            let lines: Vec<_> =
                text.lines().filter(|line| line.contains("sender") || line.contains("receiver")).collect();
            println!("{workers} workers, {options}: {:#?}", &lines[lines.len().saturating_sub(2)..]);
        }
        println!("{:?}", lab.client.ask(RequestBody::Status));
        println!("{:?}", lab.client.ask(RequestBody::Stats { eni: None }));
        server.kill().unwrap();
        server.wait().unwrap();
    }
}
