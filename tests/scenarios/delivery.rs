//! What the door lets pass and the switch cannot bring to its guest: counted at the ENI where it ends, and nowhere else.

use super::*;
use harness::world::SECRET;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::collections::BTreeMap;
use vswitch::exchange::doorbell::Doorbell;
use vswitch::exchange::services::ServiceLinks;
use vswitch::port::factory::PortFactory;
use vswitch::port::memory::{MemoryGuest, MemoryHub};
use vswitch::services::relay::FrameSocket;
use vswitch::services::thread::ServiceTurn;
use vswitch::switch::{Switch, SwitchConfig, assemble};
use vswitch::worker::Worker;
use vswitch::worker::driver::ManualDriver;
use vswitch_core::config::ids::EniId;
use vswitch_core::config::limits::{
    BURST_PACKETS, ETHERNET_HEADER_BYTES, HANDOFF_PACKETS, MTU_BYTES_MAX, SERVICE_REQUESTS_MAX,
};
use vswitch_core::config::protocol::EniStats;
use vswitch_core::config::rate_limits::RateLimits;
use vswitch_core::hw::time::Time;
use vswitch_core::packet::offload::{Offload, PartialChecksum, Segmentation};

/// A switch with memory ports, turned by hand.
struct DeliveryLab {
    switch: Switch,
    workers: Vec<Worker>,
    hub: MemoryHub,
    now: Time,
}

impl DeliveryLab {
    fn new(workers: usize, frames_max: usize) -> Self {
        let hub = MemoryHub::new(frames_max, false);
        let ports = PortFactory { memory: hub.clone(), ..PortFactory::default() };
        let config = SwitchConfig { workers, flows_max_per_worker: 64, secret: SECRET, ports };
        let links = ServiceLinks::new(Doorbell::new(None), Doorbell::new(None));
        let (switch, workers) = assemble(config, Vec::new(), None, links);
        let mut lab = Self { switch, workers, hub, now: Time::from_ns(1_000_000_000) };
        lab.apply(pair());
        lab
    }

    fn apply(&mut self, desired: Desired) {
        let generation = self.switch.generation() + 1;
        let mut driver = ManualDriver { workers: &mut self.workers, now: self.now };
        self.switch.apply(desired, generation, &mut driver).expect("a valid state");
        self.now = driver.now;
    }

    fn guest(&self, id: &str) -> MemoryGuest {
        self.hub.guest(&id.into())
    }

    fn turn(&mut self, times: usize) {
        for _ in 0..times {
            for worker in &mut self.workers {
                worker.turn(self.now);
            }
        }
    }

    fn stats(&mut self) -> BTreeMap<EniId, EniStats> {
        let mut driver = ManualDriver { workers: &mut self.workers, now: self.now };
        self.switch.eni_stats(None, &mut driver).into_iter().map(|stats| (stats.eni.clone(), stats)).collect()
    }

    /// Sends `count` frames of `frame_bytes` each from the client to the web server and says what all counters must
    /// be then: both decisions let them pass, but `dropped` of them end at `end`.
    fn assert_counted(
        &mut self,
        (count, frame_bytes): (u64, usize),
        end: DeliveryEnd,
        (dropped, reason): (u64, DropReason),
    ) {
        let stats = self.stats();
        let sent = count - if matches!(end, DeliveryEnd::BeforeEgress) { dropped } else { 0 };
        let arrived = sent - if matches!(end, DeliveryEnd::BeforeIngress) { dropped } else { 0 };
        for (id, passed) in [("eni-client", sent), ("eni-web", 0)] {
            let egress = &stats[&id.into()].egress;
            assert_eq!((egress.packets, egress.bytes), (passed, passed * frame_bytes as u64), "{id} egress");
        }
        for (id, passed) in [("eni-client", 0), ("eni-web", arrived)] {
            let ingress = &stats[&id.into()].ingress;
            assert_eq!((ingress.packets, ingress.bytes), (passed, passed * frame_bytes as u64), "{id} ingress");
        }
        let (at, direction) = match end {
            DeliveryEnd::BeforeEgress | DeliveryEnd::BeforeIngress => ("eni-client", Direction::Egress),
            DeliveryEnd::AtPort => ("eni-web", Direction::Ingress),
        };
        for (id, stats) in &stats {
            for (seat, counters) in [(Direction::Egress, &stats.egress), (Direction::Ingress, &stats.ingress)] {
                let is_here = dropped > 0 && (id.as_str(), seat) == (at, direction);
                let expected = is_here.then(|| (reason.name().to_owned(), dropped));
                assert_eq!(counters.drops, expected.into_iter().collect(), "{id} {seat}");
                assert_eq!(counters.answered, 0);
            }
        }
    }
}

#[derive(Clone, Copy)]
enum DeliveryEnd {
    BeforeEgress,
    BeforeIngress,
    AtPort,
}

fn pair() -> Desired {
    Desired::default()
        .vpc("vpc-1")
        .vswitch("vsw-1", "vpc-1", "10.0.0.0/24", "fd00:0:0:1::/64")
        .open_group("sg-open", "vpc-1", &[])
        .eni("eni-client", "vsw-1", &[CLIENT], &["sg-open"])
        .eni("eni-web", "vsw-1", &[WEB], &["sg-open"])
}

/// What the door lets the services have: each request is counted once, when it is known what becomes of it.
#[test]
fn requests_for_services_are_counted_by_what_becomes_of_them() {
    let mut lab = DeliveryLab::new(1, 256);
    let desired = pair();
    let client = &desired.enis[&"eni-client".into()];
    // It is no DHCP message but for its ports.
    let mut request = Ip::new("0.0.0.0", "255.255.255.255").udp(68, 67);
    request.payload.resize(8 + 236, 0);
    request.payload[5] = 8 + 236;
    let mut services = lab.switch.services(1);
    let ask = |lab: &mut DeliveryLab, request: &Ip| {
        lab.now = lab.now + 1_000_000_000;
        assert!(lab.guest("eni-client").inject(&request.frame(client.mac, desired.vpcs[&"vpc-1".into()].gateway_mac)));
        lab.turn(2);
    };
    let mut dropped = |lab: &mut DeliveryLab, reason: DropReason| {
        services.turn(lab.now);
        lab.turn(2);
        let stats = &lab.stats()[&"eni-client".into()].egress;
        assert_eq!((stats.packets, stats.answered), (0, 0));
        stats.drops.get(reason.name()).copied().unwrap_or(0)
    };
    ask(&mut lab, &request);
    assert_eq!(dropped(&mut lab, DropReason::DhcpMalformed), 1);
    // A release of the address that it has.
    request.payload[8..16].copy_from_slice(&[1, 1, 6, 0, 0, 0, 0, 1]);
    request.payload[8 + 28..8 + 34].copy_from_slice(&client.mac.0);
    request.payload.extend([99, 130, 83, 99, 53, 1, 7, 255]);
    request.payload[5] += 8;
    ask(&mut lab, &request);
    assert_eq!(dropped(&mut lab, DropReason::DhcpUnserved), 1);
    (0..SERVICE_REQUESTS_MAX + 3).for_each(|_| ask(&mut lab, &request));
    assert_eq!(dropped(&mut lab, DropReason::ServiceFull), 3);
    assert_eq!(dropped(&mut lab, DropReason::DhcpUnserved), 1 + SERVICE_REQUESTS_MAX as u64);
}

/// A guest's packets to the services process are counted when it is known whether that takes them.
#[test]
fn what_the_services_process_does_not_take_is_refused_or_counted() {
    let desired = pair();
    let mut lab = DeliveryLab::new(1, 4096);
    let client = &desired.enis[&"eni-client".into()];
    let question = Ip::new(CLIENT, "100.100.2.136").udp(40000, 53);
    let frame = question.frame(client.mac, desired.vpcs[&"vpc-1".into()].gateway_mac);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("frames.sock");
    let poll = mio::Poll::new().expect("a poll");
    let mut relay = lab.switch.frame_relay(FrameSocket::listen(&path, poll.registry()).expect("a socket"));
    let mut ask = |lab: &mut DeliveryLab| {
        lab.now = lab.now + 1_000_000;
        assert!(lab.guest("eni-client").inject(&frame));
        lab.turn(2);
        relay.turn(lab.now);
        lab.turn(2);
        lab.stats()[&"eni-client".into()].egress.clone()
    };
    // Nobody is there: the guest is told so.
    assert_eq!(ask(&mut lab).answered, 1);
    assert!(lab.guest("eni-client").collect().is_some());
    let flags = SocketFlags::CLOEXEC;
    let process = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a socket");
    connect(&process, &SocketAddrUnix::new(&path).expect("a short path")).expect("somebody listens");
    // The relay takes the connection in its next turn.
    assert_eq!(ask(&mut lab).answered, 2);
    let mut asked = 2;
    let stuck = loop {
        let egress = ask(&mut lab);
        asked += 1;
        if egress.answered < asked {
            break egress;
        }
    };
    assert!(asked > 30 && stuck.drops.is_empty(), "it was taken while there was room: {asked}");
    drop(process);
    let egress = ask(&mut lab);
    assert_eq!(egress.drops.get(DropReason::ServiceAway.name()), Some(&2));
    assert_eq!(egress.answered, asked - 1);
}

/// What exceeds a rate is counted where it is limited: at the sender before any decision, at the receiver behind all.
#[test]
fn what_exceeds_a_rate_limit_is_dropped_and_counted() {
    const BURST_MS: u32 = 10;
    const FRAMES: u64 = 30;
    for (limits, end, passed) in [
        (RateLimits { egress_packets_per_s: Some(1000), ..RateLimits::default() }, DeliveryEnd::BeforeEgress, 10),
        (RateLimits { ingress_packets_per_s: Some(1000), ..RateLimits::default() }, DeliveryEnd::AtPort, 10),
        // A frame of 100 bytes is 800 bits.
        (RateLimits { egress_kbit_per_s: Some(1600), ..RateLimits::default() }, DeliveryEnd::BeforeEgress, 20),
        (RateLimits { ingress_kbit_per_s: Some(1600), ..RateLimits::default() }, DeliveryEnd::AtPort, 20),
    ] {
        for workers in [1, 2] {
            let mut lab = DeliveryLab::new(workers, 256);
            let mut desired = pair();
            let limited = if matches!(end, DeliveryEnd::AtPort) { "eni-web" } else { "eni-client" };
            let eni = desired.enis.get_mut(&limited.into()).expect("it is there");
            eni.rate_limits = RateLimits { burst_ms: BURST_MS, ..limits };
            lab.apply(desired);
            (0..FRAMES).for_each(|_| assert!(lab.guest("eni-client").inject(&frame(100))));
            lab.turn(3);
            lab.assert_counted((FRAMES, 100), end, (FRAMES - passed, DropReason::RateLimited));
            assert_eq!(lab.guest("eni-web").waiting() as u64, passed);
            // After as long as a burst may take, there is room for one more.
            lab.now = lab.now + u64::from(BURST_MS) * 1_000_000;
            (0..FRAMES).for_each(|_| assert!(lab.guest("eni-client").inject(&frame(100))));
            lab.turn(3);
            assert_eq!(lab.guest("eni-web").waiting() as u64, 2 * passed);
            // Without limits all pass again.
            lab.apply(pair());
            (0..FRAMES).for_each(|_| assert!(lab.guest("eni-client").inject(&frame(100))));
            lab.turn(3);
            assert_eq!(lab.guest("eni-web").waiting() as u64, 2 * passed + FRAMES);
        }
    }
}

/// A UDP packet from the client to the web server, whose frame has this length.
fn frame(frame_bytes: usize) -> Vec<u8> {
    let desired = pair();
    let transport_bytes = frame_bytes - ETHERNET_HEADER_BYTES - 20;
    let mut packet = Ip::new(CLIENT, WEB).udp(1000, 2000);
    packet.payload.resize(transport_bytes, 0);
    packet.payload[4..6].copy_from_slice(&(transport_bytes as u16).to_be_bytes());
    packet.frame(desired.enis[&EniId::from("eni-client")].mac, desired.vpcs[&"vpc-1".into()].gateway_mac)
}

#[test]
fn a_port_that_is_not_there_or_has_failed_is_down() {
    for workers in [1, 2] {
        let mut lab = DeliveryLab::new(workers, 256);
        let mut detached = pair();
        detached.enis.get_mut(&EniId::from("eni-web")).expect("it is there").port = None;
        lab.apply(detached);
        (0..3).for_each(|_| assert!(lab.guest("eni-client").inject(&frame(100))));
        lab.turn(3);
        lab.assert_counted((3, 100), DeliveryEnd::AtPort, (3, DropReason::PortDown));

        let mut lab = DeliveryLab::new(workers, 256);
        lab.guest("eni-web").set_failed(true);
        (0..5).for_each(|_| assert!(lab.guest("eni-client").inject(&frame(100))));
        lab.turn(3);
        lab.assert_counted((5, 100), DeliveryEnd::AtPort, (5, DropReason::PortDown));
        assert_eq!(lab.guest("eni-web").waiting(), 0);
    }
}

#[test]
fn a_port_whose_guest_does_not_collect_is_full() {
    for workers in [1, 2] {
        let mut lab = DeliveryLab::new(workers, 8);
        for _ in 0..3 {
            (0..6).for_each(|_| assert!(lab.guest("eni-client").inject(&frame(100))));
            lab.turn(3);
        }
        lab.assert_counted((18, 100), DeliveryEnd::AtPort, (10, DropReason::PortFull));
        assert_eq!(lab.guest("eni-web").waiting(), 8);
    }
}

const LONGEST: usize = MTU_BYTES_MAX + ETHERNET_HEADER_BYTES;

#[test]
fn a_packet_beyond_the_mtu_of_the_port_is_fragmented() {
    for workers in [1, 2] {
        for (frame_bytes, parts) in [(LONGEST, 1), (LONGEST + 1, 2), (2 * LONGEST, 3)] {
            let mut lab = DeliveryLab::new(workers, 256);
            let sent = frame(frame_bytes);
            (0..2).for_each(|_| assert!(lab.guest("eni-client").inject(&sent)));
            lab.turn(3);
            lab.assert_counted((2, frame_bytes), DeliveryEnd::AtPort, (0, DropReason::FrameTooLong));
            assert_eq!(lab.guest("eni-web").waiting(), 2 * parts);
            let received = std::iter::from_fn(|| lab.guest("eni-web").collect()).take(parts);
            let payload: Vec<u8> = received
                .flat_map(|part| {
                    assert!(part.len() <= LONGEST);
                    part[ETHERNET_HEADER_BYTES + 20..].to_vec()
                })
                .collect();
            assert_eq!(payload, sent[ETHERNET_HEADER_BYTES + 20..]);
        }
    }
}

/// The parts of a frame that its sender left to be segmented are as long as the sender says.
#[test]
fn segments_beyond_the_mtu_of_the_port_are_too_long() {
    for workers in [1, 2] {
        let mut lab = DeliveryLab::new(workers, 256);
        let offload = Offload {
            checksum: Some(PartialChecksum { start: 34, offset: 6 }),
            segmentation: Segmentation::Udp,
            segment_bytes: (MTU_BYTES_MAX - 28 + 1) as u16,
            header_bytes: 42,
            ..Offload::NONE
        };
        assert!(lab.guest("eni-client").inject_with_offload(&frame(2 * LONGEST), offload));
        lab.turn(3);
        assert_eq!(lab.guest("eni-web").waiting(), 0);
        let drops = &lab.stats()[&"eni-web".into()].ingress.drops;
        assert_eq!(drops[DropReason::FrameTooLong.name()], 3);
    }
}

#[test]
fn a_frame_that_the_port_does_not_understand_is_refused_alone() {
    for workers in [1, 2] {
        let mut lab = DeliveryLab::new(workers, 256);
        (0..3).for_each(|_| assert!(lab.guest("eni-client").inject(&frame(100))));
        lab.turn(3);
        assert_eq!(lab.guest("eni-web").waiting(), 3);
        lab.guest("eni-web").refuse(100);
        (0..2).for_each(|_| assert!(lab.guest("eni-client").inject(&frame(100))));
        lab.turn(3);
        lab.assert_counted((5, 100), DeliveryEnd::AtPort, (2, DropReason::PortRefused));
        assert_eq!(lab.guest("eni-web").waiting(), 3);
    }
}

#[test]
fn a_ring_that_the_other_worker_does_not_empty_is_full_for_who_fills_it() {
    let mut lab = DeliveryLab::new(2, 2 * HANDOFF_PACKETS);
    let sent = HANDOFF_PACKETS + 40;
    (0..sent).for_each(|_| assert!(lab.guest("eni-client").inject(&frame(100))));
    // Before the first packet is sent, the worker of the sender is the one that finds something.
    let now = lab.now;
    let sender = (0..2).find(|worker| lab.workers[*worker].turn(now).packets > 0).expect("one has the client's port");
    for _ in 0..=sent / BURST_PACKETS {
        lab.workers[sender].turn(now);
    }
    lab.turn(3);
    // A port with more than a burst to give does not get the last quarter; the end of what it had does.
    let passed = HANDOFF_PACKETS - HANDOFF_PACKETS / 4 + sent % BURST_PACKETS;
    lab.assert_counted(
        (sent as u64, 100),
        DeliveryEnd::BeforeIngress,
        ((sent - passed) as u64, DropReason::HandoffFull),
    );
    assert_eq!(lab.guest("eni-web").waiting(), passed);
}
