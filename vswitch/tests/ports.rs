//! What every port promises, for each kind and each way of moving frames: the contract of [`Port`]. The far end of a port
//! of the kernel is a raw socket on the guest's interface. Without root, kernel ports say so and pass.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod port_rig;
mod virtio;

use port_rig::{
    ETHER_TYPE, PortGuest, PortRig, TestedPort, WAIT_MAX, bare, eni, frame, frames, packet, pool, rigs, take,
};
use std::process::Command;
use std::time::{Duration, Instant};
use vswitch::port::Received;
use vswitch::port::af_packet::AfPacketPort;
use vswitch::port::af_xdp::AfXdpPort;
use vswitch::port::buffer_pool::{BufferPool, PoolSize};
use vswitch::port::spec::PortSpec;
use vswitch_core::config::desired;
use vswitch_core::config::ids::MacAddress;
use vswitch_core::config::limits::BURST_PACKETS;
use vswitch_core::packet::Packet;
use vswitch_core::packet::offload::{Offload, Offloads, PartialChecksum, Segmentation};
use vswitch_core::packet::verdict::DropReason;
use vswitch_core::packet::verdict::Verdict;

#[test]
fn frames_pass_both_ways_whole_and_in_order() {
    for mut rig in rigs("order") {
        let free = rig.pool.free_count();
        let mut at = 0;
        for count in [1, 1, 2, 7, 32, 33, 100, 0, 1, 64] {
            let some = frames(at..at + count);
            rig.give(&some, Offload::NONE);
            assert_eq!(bare(rig.receive(count)), some, "{:?}", rig.kind);
            assert_eq!(rig.send(&some, Offload::NONE), vec![Verdict::Deliver; count], "{:?}", rig.kind);
            assert_eq!(bare(rig.collect(count)), some, "{:?}", rig.kind);
            at += count;
        }
        let mut rest = Vec::new();
        while take(rig.port.as_mut().unwrap().as_mut(), &mut rig.pool, 32, &mut rest).unwrap() != Received::Drained {}
        assert!(rest.is_empty(), "{:?}: what it sent must not come back: {rest:?}", rig.kind);
        assert_eq!(rig.pool.free_count(), free, "no buffer is lost");
    }
}

#[test]
fn a_port_takes_no_more_than_it_is_asked_for() {
    for mut rig in rigs("asked") {
        let some = frames(0..50);
        rig.give(&some, Offload::NONE);
        let mut got = Vec::new();
        for packets_max in [1, 2, 3, 4, 5, 6, 7, 22] {
            got.extend(bare(rig.receive(packets_max)));
        }
        assert_eq!(got, some, "{:?}: what is not asked for waits", rig.kind);
    }
}

#[test]
fn without_buffers_frames_wait() {
    for mut rig in rigs("wait") {
        let some = frames(0..40);
        rig.give(&some, Offload::NONE);
        let mut poor = BufferPool::new(PoolSize { small: 3, large: 2 });
        let (mut got, mut held) = (Vec::new(), Vec::new());
        while got.len() < some.len() {
            let mut burst = Vec::new();
            let received = rig.port().receive(&mut poor, &mut burst, BURST_PACKETS).unwrap();
            assert!(burst.len() <= 5, "it has no more buffers");
            if burst.is_empty() && held.is_empty() {
                assert_eq!(received, Received::Drained);
            }
            let is_ours = |packet: &&Packet| packet.buffer.frame()[12..14] == ETHER_TYPE;
            got.extend(burst.iter().filter(is_ours).map(|packet| packet.buffer.frame().to_vec()));
            // The buffers of one burst come back after the next was tried.
            held.into_iter().for_each(|packet: Packet| poor.put(packet.buffer));
            held = burst;
        }
        assert_eq!(got, some, "{:?}", rig.kind);
    }
}

#[test]
fn what_is_left_undone_passes_with_the_frame() {
    for mut rig in rigs("undone").filter(|rig| rig.kind.has_offloads()) {
        let (long, offload) = datagrams(60_000, 1400);
        let (short, sum_only) = datagrams(100, 0);
        for (frame, offload) in [(long, offload), (short, sum_only)] {
            assert!(rig.port().offloads().contains(Offloads::ALL), "{:?}", rig.kind);
            rig.give(std::slice::from_ref(&frame), offload);
            assert_eq!(rig.receive(1), [(frame.clone(), offload)], "{:?}", rig.kind);
            rig.send(std::slice::from_ref(&frame), offload);
            assert_eq!(rig.collect(1), [(frame, offload)], "{:?}", rig.kind);
        }
    }
}

/// Datagrams of `segment_bytes` as one frame; one with its checksum undone if that is zero.
fn datagrams(data_bytes: usize, segment_bytes: u16) -> (Vec<u8>, Offload) {
    let length = (8 + data_bytes) as u16;
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame[16..18].copy_from_slice(&(20 + length).to_be_bytes());
    let words = frame[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    frame[24..26].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    frame.extend([0x10, 0, 0x20, 0, 0, 0, 0, 0]);
    frame[38..40].copy_from_slice(&length.to_be_bytes());
    let sum = 0x0a00 + 1 + 0x0a00 + 2 + 17 + u32::from(length);
    frame[40..42].copy_from_slice(&(((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    frame.resize(frame.len() + data_bytes, 7);
    let is_long = segment_bytes > 0;
    let offload = Offload {
        checksum: Some(PartialChecksum { start: 34, offset: 6 }),
        segmentation: if is_long { Segmentation::Udp } else { Segmentation::None },
        segment_bytes,
        header_bytes: if is_long { 42 } else { 0 },
        marks_congestion_once: false,
    };
    (frame, offload)
}

#[test]
fn what_a_port_refuses_is_dropped_alone() {
    for mut rig in rigs("refused") {
        let mut some = frames(0..9);
        some[4].truncate(5);
        if let Some(PortGuest::Memory(guest)) = &rig.guest {
            guest.refuse(5);
        }
        let mut expected = vec![Verdict::Deliver; 9];
        expected[4] = Verdict::Drop(DropReason::PortRefused);
        assert_eq!(rig.send(&some, Offload::NONE), expected, "{:?}", rig.kind);
        some.remove(4);
        assert_eq!(bare(rig.collect(8)), some, "{:?}", rig.kind);
    }
}

#[test]
fn a_tap_whose_guest_sets_it_down_drops_and_comes_back() {
    for mut rig in rigs("down").filter(|rig| matches!(rig.kind, TestedPort::Tap(_))) {
        let some = frames(0..40);
        rig.ip(&["link", "set", "eth0", "down"]);
        let mut none = Vec::new();
        while take(rig.port.as_mut().unwrap().as_mut(), &mut rig.pool, 32, &mut none).unwrap() != Received::Drained {}
        assert_eq!(rig.send(&some, Offload::NONE), vec![Verdict::Drop(DropReason::PortDown); 40], "{:?}", rig.kind);
        rig.ip(&["link", "set", "eth0", "up"]);
        assert_eq!(rig.send(&some, Offload::NONE), vec![Verdict::Deliver; 40], "{:?}", rig.kind);
    }
}

#[test]
fn an_interface_that_is_down_is_no_port_until_it_is_up() {
    let Some(mut rig) = PortRig::new("link", TestedPort::Packet) else { return };
    rig.ip(&["link", "set", "port0", "down"]);
    assert_eq!(rig.send(&frames(0..2), Offload::NONE), [Verdict::Drop(DropReason::PortDown); 2]);
    let error = take(rig.port.as_mut().unwrap().as_mut(), &mut rig.pool, 32, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("is down"), "{error}");
    let (device, namespace) = ("port0".to_owned(), Some(rig.namespace.clone()));
    let error = AfPacketPort::open(&desired::PacketPort { device, namespace, mtu_bytes: 1500 }).unwrap_err();
    assert!(error.to_string().contains("is down"), "{error}");
    rig.open();
    assert_eq!(rig.send(&frames(0..2), Offload::NONE), [Verdict::Deliver; 2]);
}

#[test]
fn a_removed_device_is_an_error_that_says_so_and_can_be_had_again() {
    // One that is handed over waits for another.
    for mut rig in rigs("removed").filter(|rig| rig.kind.is_of_kernel() && rig.kind != TestedPort::TapSocket) {
        rig.ip(&["link", "delete", rig.device()]);
        let started = Instant::now();
        let error = loop {
            assert!(started.elapsed() < WAIT_MAX, "{:?}", rig.kind);
            match take(rig.port.as_mut().unwrap().as_mut(), &mut rig.pool, 32, &mut Vec::new()) {
                Ok(_) => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.contains("was removed") && error.contains(&rig.namespace), "{error}");
        let mut burst = [packet(&frame(0), Offload::NONE), packet(&frame(1), Offload::NONE)];
        assert!(rig.port().send(&mut burst).is_err(), "{:?}", rig.kind);
        assert!(burst.iter().all(|packet| packet.verdict == Verdict::Drop(DropReason::PortDown)), "{:?}", rig.kind);
        rig.port = None;
        rig.open();
        assert_eq!(rig.send(&frames(0..2), Offload::NONE), [Verdict::Deliver; 2], "{:?}", rig.kind);
    }
}

#[test]
fn a_port_closed_with_frames_waiting_leaves_nothing_behind() {
    for mut rig in rigs("closed").filter(|rig| matches!(rig.kind, TestedPort::Tap(_))) {
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        rig.give(&frames(0..50), Offload::NONE);
        rig.receive(3);
        rig.guest = None;
        rig.port = None;
        let before = open();
        const TIMES: usize = 40;
        for _ in 0..TIMES {
            rig.open();
            rig.send(&frames(0..3), Offload::NONE);
            rig.port = None;
        }
        // Other tests of this process open and close meanwhile, but not so many.
        assert!(open() < before + TIMES, "{:?}", rig.kind);
    }
}

#[test]
fn a_tag_that_the_kernel_took_out_is_put_back() {
    let Some(mut rig) = PortRig::new("tagged", TestedPort::Packet) else { return };
    let mut tagged = frame(3);
    tagged.splice(12..12, [0x81, 0, 0x20, 7]);
    rig.give(std::slice::from_ref(&tagged), Offload::NONE);
    assert_eq!(bare(rig.receive(1)), [tagged]);
}

#[test]
fn an_interface_that_is_none_is_refused_with_the_reason() {
    let Some(rig) = PortRig::new("none", TestedPort::Packet) else { return };
    for (device, reason) in [("absent0", "there is no such interface"), ("lo", "not an Ethernet interface")] {
        let (device, namespace) = (device.to_owned(), Some(rig.namespace.clone()));
        let error = AfPacketPort::open(&desired::PacketPort { device, namespace, mtu_bytes: 1500 }).unwrap_err();
        assert!(error.to_string().contains(reason) && error.to_string().contains(&rig.namespace), "{error}");
    }
}

fn interface(rig: &PortRig) -> desired::PacketPort {
    desired::PacketPort { device: "port0".into(), namespace: Some(rig.namespace.clone()), mtu_bytes: 1500 }
}

#[test]
fn an_xdp_port_tells_checksums_that_are_undone_and_takes_none() {
    let Some(mut rig) = PortRig::new("xdp-sum", TestedPort::Xdp) else { return };
    assert_eq!(rig.port().offloads(), Offloads::NONE);
    let link = Command::new("ip").args(["-n", &rig.namespace, "-d", "link", "show", "port0"]).output().unwrap();
    let link = String::from_utf8(link.stdout).unwrap();
    assert!(link.contains("promiscuity 1") && link.contains("xdp"), "{link}");
    let (frame, offload) = datagrams(100, 0);
    rig.give(std::slice::from_ref(&frame), offload);
    assert_eq!(rig.receive(1), [(frame.clone(), offload)]);
    rig.give(std::slice::from_ref(&frame), Offload::NONE);
    assert_eq!(rig.receive(1), [(frame, offload)], "nobody says so, but it is to be seen");
    let (mut summed, _) = datagrams(100, 0);
    summed[40] ^= 0x55;
    rig.give(std::slice::from_ref(&summed), Offload::NONE);
    assert_eq!(rig.receive(1), [(summed, Offload::NONE)]);
}

#[test]
fn an_xdp_port_whose_interface_is_set_down_drops_and_comes_back() {
    let Some(mut rig) = PortRig::new("xdp-down", TestedPort::Xdp) else { return };
    rig.ip(&["link", "set", "port0", "down"]);
    // The first to find out; what is in line then waits there.
    rig.send(&frames(0..2), Offload::NONE);
    assert_eq!(rig.send(&frames(2..9), Offload::NONE), [Verdict::Drop(DropReason::PortDown); 7]);
    let mut none = Vec::new();
    for _ in 0..20 {
        assert_eq!(take(rig.port.as_mut().unwrap().as_mut(), &mut rig.pool, 32, &mut none).unwrap(), Received::Drained);
    }
    rig.ip(&["link", "set", "port0", "up"]);
    assert_eq!(rig.send(&frames(9..20), Offload::NONE), [Verdict::Deliver; 11]);
    assert_eq!(bare(rig.collect(13)), [frames(0..2), frames(9..20)].concat());
}

#[test]
fn where_an_xdp_socket_cannot_be_a_raw_one_takes_its_place() {
    let Some(mut rig) = PortRig::new("xdp-not", TestedPort::Xdp) else { return };
    let error = AfXdpPort::open(&interface(&rig)).unwrap_err().to_string();
    assert!(error.contains("already uses the interface") && error.contains(&rig.namespace), "{error}");
    rig.port = None;
    let remake = |rig: &PortRig, options: &[&str]| {
        rig.ip(&["link", "delete", "port0"]);
        rig.ip(&[&["link", "add", "port0"], options, &["type", "veth", "peer", "name", "eth0"], options].concat());
        rig.ip(&["link", "set", "eth0", "up"]);
        rig.ip(&["link", "set", "port0", "up"]);
    };
    remake(&rig, &["numrxqueues", "2", "numtxqueues", "2"]);
    let error = AfXdpPort::open(&interface(&rig)).unwrap_err().to_string();
    assert!(error.contains("on 2 queues"), "{error}");
    remake(&rig, &["mtu", "9000"]);
    let error = AfXdpPort::open(&interface(&rig)).unwrap_err().to_string();
    assert!(error.contains("lower the MTU"), "{error}");
    let spec =
        PortSpec { port: desired::DesiredPort::Packet(interface(&rig)), mac: MacAddress::default(), interface: None };
    let port = rig.factory.open(&eni(), &spec).unwrap();
    assert!(port.offloads().contains(Offloads::CHECKSUM), "{port:?}");
}

#[test]
fn after_an_xdp_port_the_kernel_has_the_frames_again() {
    let Some(mut rig) = PortRig::new("xdp-end", TestedPort::Xdp) else { return };
    let mut kernel = AfPacketPort::open(&interface(&rig)).unwrap();
    let (mut pool, mut seen) = (pool(), Vec::new());
    rig.give(&frames(0..3), Offload::NONE);
    assert_eq!(bare(rig.receive(3)), frames(0..3));
    rig.port = None;
    let started = Instant::now();
    while seen.is_empty() && started.elapsed() < WAIT_MAX {
        // A program that another test starts holds all descriptors of this process for a moment, the port's too.
        rig.give(&frames(3..5), Offload::NONE);
        std::thread::sleep(Duration::from_millis(20));
        take(&mut kernel, &mut pool, 32, &mut seen).unwrap();
    }
    let seen = bare(seen);
    assert!(!seen.is_empty() && seen.iter().all(|frame| frames(3..5).contains(frame)), "and had none before");
}
