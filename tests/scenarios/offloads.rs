//! Frames that leave something undone for hardware, truthfully and not.

use super::*;
use harness::frame::TcpFlags;
use vswitch_core::config::desired::{DesiredPort, TapPort};
use vswitch_core::packet::offload::{Offload, PartialChecksum, Segmentation};

const MSS: u16 = 1448;

fn long_request(data_bytes: usize) -> Ip {
    request().tcp(40000, 80, TcpFlags::ACK).undone(&vec![7; data_bytes])
}

/// The port of an ENI becomes one of this MTU.
fn narrow(world: &mut World, id: &str, mtu_bytes: u16) {
    let tap = TapPort { device: "eth0".into(), namespace: None, create_namespace: false, configure: false, mtu_bytes };
    world.change_eni(id, |eni| eni.port = Some(DesiredPort::Tap(tap)));
}

fn send(world: &mut World, packet: &Ip, offload: Offload) -> Fate {
    let frame = world.frame_from("client", packet);
    world.send_claiming("client", &frame, offload).0
}

#[test]
fn a_long_frame_is_judged_once_and_counts_as_what_it_is_cut_into() {
    let mut world = connected();
    let packet = long_request(20_000 - 12);
    assert_eq!(send(&mut world, &packet, packet.offload(MSS)), delivered("web"));
    let stats = &world.stats()["web"].ingress;
    // Two packets of the handshake came in before; 20,000 bytes are 14 packets, with 54 bytes of headers each.
    assert_eq!((stats.packets, stats.bytes), (2 + 14, 2 * 66 + 20_000 + 14 * 54));
    assert_eq!(world.flows("web")[0].packets, [16, 1]);
    let refused_packet = request().tcp(40000, 81, TcpFlags::ACK).undone(&[7; 5000]);
    let fate = send(&mut world, &refused_packet, refused_packet.offload(MSS));
    assert_eq!(fate, refused("web", DropReason::DefaultDrop));
    assert_eq!(world.stats()["web"].ingress.drops["default-drop"], 4, "each of the packets is dropped");
}

#[test]
fn what_is_claimed_truthfully_goes_on_as_it_is_with_the_switchs_own_numbers() {
    let mut world = connected();
    for packet in [long_request(20_000), Ip::new(CLIENT_V6, WEB_V6).tcp(40000, 80, TcpFlags::SYN)] {
        let size = if packet.source.is_ipv4() { MSS } else { 0 };
        let claimed = packet.offload(size);
        // Kernels leave the length of the headers open.
        let vague = Offload { header_bytes: 9999, ..claimed };
        let frame = world.frame_from("client", &packet);
        let (fate, left) = world.send_claiming("client", &frame, vague);
        assert_eq!(fate, delivered("web"));
        let expected = if size == 0 { Offload { header_bytes: 0, ..claimed } } else { claimed };
        assert_eq!(left.offload, expected);
    }
    // No longer than one packet: there is nothing to cut.
    let short = long_request(100);
    let frame = world.frame_from("client", &short);
    let (_, left) = world.send_claiming("client", &frame, short.offload(MSS));
    assert_eq!((left.offload.segmentation, left.wire().packets), (Segmentation::None, 1));
}

#[test]
fn claims_that_contradict_the_headers_are_malformed() {
    let packet = long_request(20_000);
    let claimed = packet.offload(MSS);
    let partial = |start, offset| Some(PartialChecksum { start, offset });
    let claims = [
        Offload { checksum: None, ..claimed },
        // The field is in the ports, in the addresses, before the frame's headers, beyond the packet.
        Offload { checksum: partial(34, 2), ..claimed },
        Offload { checksum: partial(34, 2), segmentation: Segmentation::None, ..claimed },
        Offload { checksum: partial(26, 0), segmentation: Segmentation::None, ..claimed },
        Offload { checksum: partial(0, 50), segmentation: Segmentation::None, ..claimed },
        Offload { checksum: partial(34, 21_000), segmentation: Segmentation::None, ..claimed },
        Offload { checksum: partial(u16::MAX, u16::MAX), ..claimed },
        // A checksum behind the headers, of a frame that is to be cut: every part would be another.
        Offload { checksum: partial(60, 16), ..claimed },
        Offload { segment_bytes: 0, ..claimed },
        Offload { segment_bytes: 8, ..claimed },
        Offload { segmentation: Segmentation::TcpV6, ..claimed },
        Offload { segmentation: Segmentation::Udp, ..claimed },
        Offload { segmentation: Segmentation::Unknown, ..claimed },
    ];
    for claim in claims {
        let mut world = connected();
        assert_eq!(send(&mut world, &packet, claim), stopped("client", DropReason::OffloadMalformed), "{claim:?}");
        assert_eq!(world.stats()["client"].egress.drops["offload-malformed"], 1, "whatever it claims to be");
    }
}

#[test]
fn frames_that_cannot_be_cut_must_not_claim_to() {
    let malformed = stopped("client", DropReason::OffloadMalformed);
    let opening = request().tcp(40000, 80, TcpFlags::SYN).undone(&[7; 5000]);
    let ping = request().ping(5);
    let part = request().tcp(40000, 80, TcpFlags::ACK).part(77, 0, true);
    let datagrams = request().udp(40000, 80).undone(&[7; 20_000]);
    let cases = [
        (&opening, opening.offload(MSS)),
        (&ping, Offload { segmentation: Segmentation::Udp, segment_bytes: 8, ..request().udp(1, 2).offload(8) }),
        (&part, request().tcp(40000, 80, TcpFlags::ACK).offload(0)),
        // More datagrams than a kernel makes of one.
        (&datagrams, datagrams.offload(100)),
    ];
    for (packet, claim) in cases {
        assert_eq!(send(&mut World::new(lab()), packet, claim), malformed, "{claim:?}");
    }
    // Bytes behind the packet's end would become packets that no length accounts for.
    let mut world = connected();
    let packet = long_request(5000);
    let mut frame = world.frame_from("client", &packet);
    frame.extend([9; 3000]);
    assert_eq!(world.send_claiming("client", &frame, packet.offload(MSS)).0, malformed);
    let mut short = long_request(5000);
    short = Ip { protocol: 17, ..short };
    short.payload[4..6].copy_from_slice(&100_u16.to_be_bytes());
    assert_eq!(send(&mut world, &short, Offload { segmentation: Segmentation::Udp, ..short.offload(MSS) }), malformed);
    let world = &mut World::new(lab());
    let arp = harness::frame::arp(
        true,
        (world.mac("client"), CLIENT.parse().expect("an address")),
        (world.mac("web"), WEB.parse().expect("an address")),
    );
    assert_eq!(world.send_claiming("client", &arp, packet.offload(0)).0, malformed);
}

#[test]
fn a_checksum_inside_a_tunnel_is_completed_at_once() {
    let mut world = World::new(lab().open_group("sg-tunnel", "vpc-1", &[]));
    for id in ["web", "client"] {
        world.change_eni(id, |eni| eni.groups = ["sg-tunnel".into()].into());
    }
    let inner = Ip::new("192.168.0.1", "192.168.0.2").tcp(1, 2, TcpFlags::SYN).undone(b"inside");
    let whole = {
        let mut frame = inner.frame(Default::default(), Default::default());
        harness::offload::mend_checksum(&mut frame, 34);
        frame.split_off(14)
    };
    for outer in [request().udp(4789, 4789).carrying(&inner.bytes()), request().raw(4, &inner.bytes())] {
        let start = world.frame_from("client", &outer).len() - inner.bytes().len() + 20;
        let claim = Offload { checksum: Some(PartialChecksum { start: start as u16, offset: 16 }), ..Offload::NONE };
        let frame = world.frame_from("client", &outer);
        let (fate, left) = world.send_claiming("client", &frame, claim);
        assert_eq!((fate, left.offload), (delivered("web"), Offload::NONE));
        assert!(left.buffer.frame().ends_with(&whole));
    }
}

#[test]
fn the_router_answers_a_ping_whose_checksum_was_left_undone() {
    let mut world = World::new(lab());
    let ping = Ip::new(CLIENT, "10.0.0.1").ping(7);
    let whole = world.frame_from("client", &ping);
    let mut undone = whole.clone();
    undone[36..38].fill(0);
    let claim = Offload { checksum: Some(PartialChecksum { start: 34, offset: 2 }), ..Offload::NONE };
    let (fate, answer) = world.send_claiming("client", &undone, claim);
    assert_eq!((fate, answer.offload), (Fate::Answered, Offload::NONE));
    let (_, expected) = world.send_frame("client", &whole);
    assert_eq!(answer.buffer.frame(), expected);
}

#[test]
fn what_is_too_big_for_the_receiver_is_reported_where_it_must_not_be_fragmented() {
    let mut world = connected();
    narrow(&mut world, "web", 1400);
    let packet = long_request(20_000);
    let mut frame = world.frame_from("client", &packet);
    assert_eq!(
        world.send_claiming("client", &frame, packet.offload(MSS)).0,
        delivered("web"),
        "it may be fragmented, which is the port's affair"
    );
    frame[14 + 6] = 0x40;
    assert_eq!(world.send_claiming("client", &frame, packet.offload(1360)).0, delivered("web"), "fits exactly");
    let (fate, report) = world.send_claiming("client", &frame, packet.offload(1361));
    assert_eq!((fate, report.offload), (Fate::Answered, Offload::NONE));
    let report = report.buffer.frame();
    // Destination unreachable, fragmentation needed, with the MTU, from the router to the sender, quoting the packet.
    assert_eq!((&report[26..30], &report[30..34]), (&[10, 0, 0, 1][..], &[10, 0, 0, 20][..]));
    assert_eq!((&report[34..36], &report[40..42]), (&[3, 4][..], &1400_u16.to_be_bytes()[..]));
    assert_eq!(report[42..70], frame[14..42]);
    // The same without anything left undone, and over IPv6, where nothing is ever fragmented on the way.
    let whole = Ip::new(CLIENT_V6, WEB_V6).tcp(40000, 80, TcpFlags::SYN).undone(&[7; 1401 - 40 - 32]);
    let frame = world.frame_from("client", &whole);
    let (fate, report) = world.send_claiming("client", &frame, Offload::NONE);
    assert_eq!(fate, Fate::Answered);
    let report = report.buffer.frame();
    assert_eq!((&report[54..56], &report[58..62]), (&[2, 0][..], &1400_u32.to_be_bytes()[..]));
    let fits = Ip::new(CLIENT_V6, WEB_V6).tcp(40001, 80, TcpFlags::SYN).undone(&[7; 1400 - 40 - 32]);
    assert_eq!(world.send("client", &fits), delivered("web"));
}

#[test]
fn a_report_about_a_long_frame_is_whole() {
    let mut world = connected();
    let packet = Ip::new(CLIENT, FAR).hop_limit(1).tcp(40000, 80, TcpFlags::ACK).undone(&[7; 9000]);
    world.set_rules("sg-client", &[accept_in("all", "0.0.0.0/0").tcp(80)]);
    let frame = world.frame_from("client", &packet);
    let (fate, report) = world.send_claiming("client", &frame, packet.offload(MSS));
    assert_eq!((fate, report.offload), (Fate::Answered, Offload::NONE));
    assert_eq!(report.buffer.frame()[34], 11);
}
