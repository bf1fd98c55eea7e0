//! The virtual router: its answers, byte for byte, and its routes.

use super::*;
use harness::frame::{TcpFlags, TcpSegment, arp, assert_checksums, ethernet};
use harness::world::prefix_of;
use std::net::{Ipv4Addr, Ipv6Addr};
use vswitch_core::config::ids::{EniIndex, MacAddress};
use vswitch_core::config::limits::ANSWERS_PER_S;
use vswitch_core::packet::headers::parse::parse;
use vswitch_core::packet::verdict::Verdict;

const GATEWAY: &str = "10.0.0.1";
const GATEWAY_V6: &str = "fd00:0:0:1::1";

fn v4(text: &str) -> Ipv4Addr {
    text.parse().expect("an IPv4 address")
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("an IPv6 address")
}

/// The client's frame is answered by exactly these bytes.
fn assert_answer(frame: &[u8], expected: &[u8]) {
    let mut world = World::new(lab());
    let (fate, answer) = world.send_frame("client", frame);
    assert_eq!(fate, Fate::Answered);
    assert_eq!(answer, expected);
    assert_checksums(&answer);
}

fn macs() -> (MacAddress, MacAddress) {
    let world = World::new(lab());
    (world.mac("client"), world.gateway_mac("client"))
}

#[test]
fn the_router_answers_arp_for_all_that_is_there_with_its_own_address() {
    let (mac, gateway) = macs();
    for target in [GATEWAY, "10.0.1.1", WEB, FAR] {
        let question = arp(true, (mac, v4(CLIENT)), (MacAddress::default(), v4(target)));
        assert_answer(&question, &arp(false, (gateway, v4(target)), (mac, v4(CLIENT))));
    }
    let probe = arp(true, (mac, v4("0.0.0.0")), (MacAddress::default(), v4(WEB)));
    assert_answer(&probe, &arp(false, (gateway, v4(WEB)), (mac, v4("0.0.0.0"))));
}

/// Otherwise a guest that asks for all addresses of its subnet would fill the table of neighbours of the kernel it
/// runs on, which all guests there share.
#[test]
fn the_router_does_not_answer_for_addresses_that_nobody_has() {
    let mut world = World::new(lab());
    world.change(|desired| {
        let vpc = desired.vpcs.get_mut(&"vpc-1".into()).expect("it is there");
        vpc.routes.insert(prefix_of("192.0.2.0/24"), "far".into());
    });
    let mac = world.mac("client");
    for target in ["10.0.0.99", "10.0.0.255", OUTSIDE, "203.0.113.1", "255.255.255.255"] {
        for sender in [CLIENT, "0.0.0.0"] {
            let question = arp(true, (mac, v4(sender)), (MacAddress::default(), v4(target)));
            assert_eq!(world.send_frame("client", &question).0, stopped("client", DropReason::NoRoute), "{target}");
        }
    }
    for target in ["fd00:0:0:1::99", "2001:db8::1"] {
        let question = Ip::new(CLIENT_V6, "ff02::1:ff00:99").solicit(v6(target), mac);
        assert_eq!(world.send("client", &question), stopped("client", DropReason::NoRoute), "{target}");
        let detection = Ip::new("::", "ff02::1:ff00:99").hop_limit(255).icmp(135, 0, [0; 4], &v6(target).octets());
        assert_eq!(world.send("client", &detection), stopped("client", DropReason::NoRoute), "{target}");
    }
    // Once somebody has it, it is answered for, and not after.
    let question = arp(true, (mac, v4(CLIENT)), (MacAddress::default(), v4("10.0.0.99")));
    world.change_eni("web", |eni| eni.addresses.push(prefix_of("10.0.0.99")));
    assert_eq!(world.send_frame("client", &question).0, Fate::Answered);
    world.change_eni("web", |eni| eni.addresses.retain(|address| *address != prefix_of("10.0.0.99")));
    assert_eq!(world.send_frame("client", &question).0, stopped("client", DropReason::NoRoute));
}

/// Whatever makes the router speak is bounded, for each ENI by itself.
#[test]
fn the_router_answers_an_eni_so_many_times_a_second() {
    let mut world = World::new(lab());
    let (mac, gateway) = macs();
    world.set_rules("sg-client", &[accept_in("all", "0.0.0.0/0"), accept_in("all-v6", "::/0")]);
    let question = arp(true, (mac, v4(CLIENT)), (MacAddress::default(), v4(WEB)));
    let solicitation = Ip::new(CLIENT_V6, "ff02::1:ff00:1").solicit(v6(WEB_V6), mac).frame(mac, gateway);
    let ping = Ip::new(CLIENT, GATEWAY).ping(77).frame(mac, gateway);
    let late = Ip::new(CLIENT, FAR).hop_limit(1).udp(5, 6).frame(mac, gateway);
    let kinds = [question, solicitation, ping, late];
    for number in 0..ANSWERS_PER_S as usize {
        assert_eq!(world.send_frame("client", &kinds[number % kinds.len()]).0, Fate::Answered, "{number}");
    }
    for frame in &kinds {
        assert_eq!(world.send_frame("client", frame).0, stopped("client", DropReason::AnswerRate));
    }
    let its_question = arp(true, (world.mac("web"), v4(WEB)), (MacAddress::default(), v4(CLIENT)));
    assert_eq!(world.send_frame("web", &its_question).0, Fate::Answered, "others have their own");
    let through = Ip::new(CLIENT, FAR).udp(5, 6);
    assert_eq!(world.send("client", &through), delivered("far"), "what is forwarded is not bounded");
    world.wait_s(1);
    for frame in &kinds {
        assert_eq!(world.send_frame("client", frame).0, Fate::Answered);
    }
}

#[test]
fn arp_that_asks_nothing_of_the_router_is_consumed() {
    let mut world = World::new(lab());
    let mac = world.mac("client");
    let announcement = arp(true, (mac, v4(CLIENT)), (MacAddress::default(), v4(CLIENT)));
    let probe = arp(true, (mac, v4("0.0.0.0")), (MacAddress::default(), v4(CLIENT)));
    let answer = arp(false, (mac, v4(CLIENT)), (world.gateway_mac("client"), v4(GATEWAY)));
    for frame in [announcement, probe, answer] {
        assert_eq!(world.send_frame("client", &frame).0, stopped("client", DropReason::ArpConsumed));
    }
}

/// RFC 4861 §4.4 with a target link-layer option.
fn advertisement(target: &str, to: &str, flags: u8, gateway: MacAddress) -> Ip {
    let body = [v6(target).octets().as_slice(), &[2, 1], &gateway.0].concat();
    Ip::new(target, to).hop_limit(255).icmp(136, 0, [flags, 0, 0, 0], &body)
}

#[test]
fn the_router_answers_solicitations_for_all_that_is_there_with_its_own_address() {
    let (mac, gateway) = macs();
    for target in [GATEWAY_V6, WEB_V6, FAR_V6] {
        let question = Ip::new(CLIENT_V6, "ff02::1:ff00:1").solicit(v6(target), mac);
        let answer = advertisement(target, CLIENT_V6, 0xe0, gateway);
        assert_answer(&question.frame(mac, MacAddress([0x33, 0x33, 0xff, 0, 0, 1])), &answer.frame(gateway, mac));
    }
    let without_option = v6(WEB_V6).octets();
    let detection = Ip::new("::", "ff02::1:ff00:10").hop_limit(255).icmp(135, 0, [0; 4], &without_option);
    let answer = advertisement(WEB_V6, "ff02::1", 0xa0, gateway);
    assert_answer(&detection.frame(mac, gateway), &answer.frame(gateway, mac));
}

#[test]
fn neighbor_discovery_that_asks_nothing_of_the_router_is_consumed() {
    let mut world = World::new(lab());
    let mac = world.mac("client");
    let own = Ip::new("::", "ff02::1:ff00:20").hop_limit(255).icmp(135, 0, [0; 4], &v6(CLIENT_V6).octets());
    let link_local = Ip::new(CLIENT_V6, "ff02::1:ff00:1").solicit(v6("fe80::1"), mac);
    let to_a_peer = Ip::new(CLIENT_V6, WEB_V6).hop_limit(255).icmp(136, 0, [0x20, 0, 0, 0], &v6(CLIENT_V6).octets());
    for packet in [own, link_local, to_a_peer] {
        assert_eq!(world.send("client", &packet), stopped("client", DropReason::NeighborConsumed));
    }
}

/// Guests take it from router advertisements, and ask for its hardware address again and again.
#[test]
fn the_router_answers_for_its_link_local_address() {
    let (mac, gateway) = macs();
    assert_eq!(gateway, MacAddress([0xee, 0xff, 0xff, 0xff, 0xff, 0xff]));
    let router = v6("fe80::ecff:ffff:feff:ffff");
    let question = Ip::new("fe80::1", "ff02::1:ffff:ffff").solicit(router, mac);
    let mut world = World::new(lab());
    let (fate, answer) = world.send_frame("client", &question.frame(mac, gateway));
    assert_eq!(fate, Fate::Answered);
    assert_checksums(&answer);
    assert_eq!((&answer[22..38], &answer[62..78]), (router.octets().as_slice(), router.octets().as_slice()));
    let detection = Ip::new("::", "ff02::1:ffff:ffff").hop_limit(255).icmp(135, 0, [0; 4], &router.octets());
    assert_eq!(world.send("client", &detection), Fate::Answered, "a guest does not take it for its own");
}

#[test]
fn discovery_that_crossed_a_router_is_none() {
    let mut world = World::new(lab());
    world.set_rules("sg-web", &[]);
    let forged = Ip::new(CLIENT_V6, WEB_V6).icmp(136, 0, [0x20, 0, 0, 0], &v6(CLIENT_V6).octets());
    assert_eq!(world.send("client", &forged.hop_limit(254)), refused("web", DropReason::DefaultDrop));
}

#[test]
fn the_router_answers_ping_at_each_of_its_addresses() {
    let (mac, gateway) = macs();
    for (from, to) in [(CLIENT, GATEWAY), (CLIENT, "10.0.1.1"), (CLIENT_V6, GATEWAY_V6), (CLIENT_V6, "fd00:0:0:2::1")] {
        for hop_limit in [1, 64, 255] {
            let question = Ip::new(from, to).hop_limit(hop_limit).ping(77);
            let answer = Ip::new(to, from).hop_limit(64).pong(77);
            assert_answer(&question.frame(mac, gateway), &answer.frame(gateway, mac));
        }
    }
}

/// What it does not serve it says at once: a reset, or an error.
#[test]
fn the_router_refuses_what_it_does_not_serve() {
    let (mac, gateway) = macs();
    for (from, to) in [(CLIENT, GATEWAY), (CLIENT_V6, GATEWAY_V6)] {
        let (v4, ends) = (from == CLIENT, Ip::new(to, from));
        let syn = Ip::new(from, to).segment(&TcpSegment { sequence: 7, ..TcpSegment::new((1, 80), TcpFlags::SYN) });
        let reset =
            TcpSegment { sequence: 0, acknowledgment: 8, ..TcpSegment::new((80, 1), TcpFlags::RST | TcpFlags::ACK) };
        assert_reset(&syn.frame(mac, gateway), &ends, &reset);
        let ack = TcpSegment { sequence: 7, acknowledgment: 9, length: 5, ..TcpSegment::new((1, 80), TcpFlags::ACK) };
        let reset = TcpSegment { sequence: 9, acknowledgment: 0, ..TcpSegment::new((80, 1), TcpFlags::RST) };
        assert_reset(&Ip::new(from, to).segment(&ack).frame(mac, gateway), &ends, &reset);
        let datagram = Ip::new(from, to).udp(1, 53);
        let report = if v4 { (3, 3) } else { (1, 4) };
        let report = ends.clone().icmp(report.0, report.1, [0; 4], &datagram.bytes());
        assert_answer_but_identification(&datagram.frame(mac, gateway), &report.frame(gateway, mac));
        let other = Ip::new(from, to).gre();
        let report = if v4 { (3, 2, [0; 4]) } else { (4, 1, [0, 0, 0, 6]) };
        let report = ends.icmp(report.0, report.1, report.2, &other.bytes());
        assert_answer_but_identification(&other.frame(mac, gateway), &report.frame(gateway, mac));
    }
}

/// The frame is answered by this segment, whatever window it has.
fn assert_reset(frame: &[u8], ends: &Ip, expected: &TcpSegment) {
    let (fate, answer) = World::new(lab()).send_frame("client", frame);
    assert_eq!(fate, Fate::Answered);
    assert_checksums(&answer);
    let expected = ends.clone().segment(&TcpSegment { length: 0, ..*expected });
    let tcp_at = answer.len() - 20;
    assert_eq!(answer[tcp_at..tcp_at + 14], expected.payload[..14]);
    assert_eq!(
        parse(&answer).expect("a whole frame").tuple.addresses,
        parse(&expected.frame(MacAddress([2; 6]), MacAddress([4; 6]))).expect("a whole frame").tuple.addresses
    );
}

#[test]
fn nothing_is_said_about_resets_queries_and_parts() {
    let mut world = World::new(lab());
    let to_router = || Ip::new(CLIENT, GATEWAY);
    let others = [
        to_router().tcp(1, 80, TcpFlags::RST),
        to_router().tcp(1, 80, TcpFlags::SYN).part(1, 0, true),
        to_router().pong(1),
        to_router().icmp(13, 0, [0; 4], &[0; 12]),
        to_router().ping(1).part(1, 0, true),
        to_router().raw(17, &[0; 16]).part(3, 16, false),
        to_router().unreachable(&Ip::new(GATEWAY, CLIENT).udp(1, 2)),
    ];
    for packet in others {
        assert_eq!(world.send("client", &packet), stopped("client", DropReason::GatewayUnserved));
    }
}

#[test]
fn the_router_answers_at_its_link_local_address() {
    let (mac, gateway) = macs();
    let router = "fe80::ecff:ffff:feff:ffff";
    let ping = Ip::new("fe80::1", router).ping(7).frame(mac, gateway);
    assert_answer(&ping, &Ip::new(router, "fe80::1").hop_limit(64).pong(7).frame(gateway, mac));
    let elsewhere = Ip::new("fe80::1", "fe80::2").ping(7).frame(mac, gateway);
    assert_eq!(
        World::new(lab()).send_frame("client", &elsewhere).0,
        stopped("client", DropReason::SourceAddressSpoofed)
    );
}

#[test]
fn time_to_live_falls_only_between_subnets() {
    let mut world = World::new(lab());
    world.set_rules("sg-client", &[accept_in("all", "0.0.0.0/0"), accept_in("all-v6", "::/0")]);
    for (to, peer, hop_limit, left) in
        [("far", FAR, 64, 63), ("far", FAR, 2, 1), ("client", CLIENT, 64, 64), ("client", CLIENT, 1, 1)]
    {
        let packet = |hop_limit| Ip::new(WEB, peer).hop_limit(hop_limit).udp(5, 6);
        let (fate, frame) = world.send_frame("web", &world.frame_from("web", &packet(hop_limit)));
        assert_eq!(fate, delivered(to));
        assert_eq!(frame, packet(left).frame(world.gateway_mac(to), world.mac(to)));
        assert_checksums(&frame);
    }
    let packet = |hop_limit| Ip::new(WEB_V6, FAR_V6).hop_limit(hop_limit).udp(5, 6);
    let (fate, frame) = world.send_frame("web", &world.frame_from("web", &packet(9)));
    assert_eq!((fate, frame), (delivered("far"), packet(8).frame(world.gateway_mac("far"), world.mac("far"))));
}

#[test]
fn a_packet_out_of_time_is_reported_to_its_sender() {
    let (mac, gateway) = macs();
    for hop_limit in [0, 1] {
        let late = Ip::new(CLIENT, FAR).hop_limit(hop_limit).udp(5, 6);
        let report = Ip::new(GATEWAY, CLIENT).icmp(11, 0, [0; 4], &late.bytes());
        assert_answer_but_identification(&late.frame(mac, gateway), &report.frame(gateway, mac));
        let late = Ip::new(CLIENT_V6, FAR_V6).hop_limit(hop_limit).udp(5, 6);
        let report = Ip::new(GATEWAY_V6, CLIENT_V6).icmp(3, 0, [0; 4], &late.bytes());
        assert_answer(&late.frame(mac, gateway), &report.frame(gateway, mac));
    }
}

/// Identification, flags and with them the header checksum are the router's own choice.
fn assert_answer_but_identification(frame: &[u8], expected: &[u8]) {
    let (fate, answer) = World::new(lab()).send_frame("client", frame);
    assert_eq!(fate, Fate::Answered);
    assert_checksums(&answer);
    let visible = |frame: &[u8]| [&frame[..14 + 4], &frame[14 + 8..14 + 10], &frame[14 + 12..]].concat();
    assert_eq!(visible(&answer), visible(expected));
}

#[test]
fn nothing_is_reported_about_errors_and_later_fragments() {
    let mut world = World::new(lab());
    let error = Ip::new(CLIENT, FAR).hop_limit(1).unreachable(&Ip::new(FAR, CLIENT).udp(1, 2));
    assert_eq!(world.send("client", &error), stopped("client", DropReason::TtlExpired));
    assert_eq!(
        world.send("client", &Ip::new(CLIENT, FAR).udp(1, 2).part(3, 0, true)),
        refused("far", DropReason::DefaultDrop)
    );
    world.set_rules("sg-client", &[accept_in("all", "0.0.0.0/0")]);
    let later = Ip::new(CLIENT, FAR).hop_limit(1).raw(17, &[0; 16]).part(3, 16, false);
    assert_eq!(world.send("client", &later), stopped("client", DropReason::TtlExpired));
}

#[test]
fn nobody_has_the_address_and_the_sender_is_told_at_once() {
    let (mac, gateway) = macs();
    for (from, to, kind, code) in [
        (CLIENT, "10.0.0.99", 3, 1),
        (CLIENT, "10.0.0.255", 3, 1),
        (CLIENT, OUTSIDE, 3, 0),
        (CLIENT, "169.254.169.254", 3, 0),
        (CLIENT_V6, "fd00:0:0:1::99", 1, 3),
        (CLIENT_V6, "2001:db8::1", 1, 0),
    ] {
        let router = if kind == 3 { GATEWAY } else { GATEWAY_V6 };
        for packet in
            [Ip::new(from, to).udp(1, 2), Ip::new(from, to).ping(3), Ip::new(from, to).udp(1, 2).part(9, 0, true)]
        {
            let report = Ip::new(router, from).icmp(kind, code, [0; 4], &packet.bytes());
            assert_answer_but_identification(&packet.frame(mac, gateway), &report.frame(gateway, mac));
        }
    }
    // Nothing is said about errors, parts, and what never leaves the guest.
    let mut world = World::new(lab());
    let silent = [
        Ip::new(CLIENT, CLIENT).udp(1, 2),
        Ip::new(CLIENT, OUTSIDE).unreachable(&Ip::new(OUTSIDE, CLIENT).udp(1, 2)),
        Ip::new(CLIENT, OUTSIDE).raw(17, &[0; 16]).part(3, 16, false),
    ];
    for packet in silent {
        assert_eq!(world.send("client", &packet), stopped("client", DropReason::NoRoute));
    }
}

/// A SYN with a maximum segment size of 9,500 bytes, more than any port carries.
fn greedy_syn(from: &str, to: &str, is_padded: bool) -> Ip {
    let mut syn =
        Ip::new(from, to).segment(&TcpSegment { scale: Some(7), ..TcpSegment::new((4000, 80), TcpFlags::SYN) });
    let options: &[u8] = if is_padded { &[1, 2, 4, 37, 28, 1, 1, 1] } else { &[2, 4, 37, 28] };
    syn.payload.truncate(20);
    syn.payload.extend_from_slice(options);
    syn.payload[12] = (syn.payload.len() as u8 / 4) << 4;
    syn
}

#[test]
fn the_segment_size_is_clamped_where_that_is_on() {
    for (from, to, most) in [(CLIENT, WEB, 9000 - 40), (CLIENT_V6, WEB_V6, 9000 - 60_u16)] {
        for (is_on, is_padded) in [(false, false), (true, false), (true, true)] {
            let mut world = World::new(lab());
            world.change(|desired| desired.settings.clamp_mss = is_on);
            let mut frame = world.frame_from("client", &greedy_syn(from, to, is_padded));
            let tcp_at = frame.len() - if is_padded { 28 } else { 24 };
            let sum = sum_of_tcp(&frame, tcp_at);
            frame[tcp_at + 16..tcp_at + 18].copy_from_slice(&sum.to_be_bytes());
            let (fate, received) = world.send_frame("client", &frame);
            assert_eq!(fate, delivered("web"));
            assert_checksums(&received);
            let size_at = tcp_at + 20 + if is_padded { 3 } else { 2 };
            let size = u16::from_be_bytes([received[size_at], received[size_at + 1]]);
            assert_eq!(size, if is_on { most } else { 9500 }, "{from}");
        }
    }
}

/// The checksum that a segment needs, of a frame whose addresses stand right before it but for IPv4's lack of options.
fn sum_of_tcp(frame: &[u8], tcp_at: usize) -> u16 {
    let addresses = if frame[12] == 8 { &frame[26..34] } else { &frame[22..54] };
    let mut segment = frame[tcp_at..].to_vec();
    segment[16..18].fill(0);
    let words =
        addresses.chunks(2).chain(segment.chunks(2)).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum = words.sum::<u32>() + 6 + segment.len() as u32;
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[test]
fn a_custom_route_leads_through_an_eni() {
    let mut world = World::new(lab());
    world.change(|desired| {
        let vpc = desired.vpcs.get_mut(&"vpc-1".into()).expect("it is there");
        vpc.routes.insert(prefix_of("0.0.0.0/0"), "far".into());
    });
    let out = || Ip::new(CLIENT, OUTSIDE).udp(1, 2);
    world.set_rules("sg-client", &[accept_in("all", "0.0.0.0/0")]);
    assert_eq!(world.send("client", &out()), refused("far", DropReason::DestinationNotOwned));
    world.change_eni("far", |eni| eni.source_dest_check = false);
    assert_eq!(world.send("client", &out()), delivered("far"));
    // What comes back bears the far sender's address; the router need not have it.
    assert_eq!(world.send("far", &Ip::new(OUTSIDE, CLIENT).udp(2, 1)), delivered("client"));
    assert_eq!(world.send("client", &Ip::new(CLIENT, "10.0.0.99").udp(1, 2)), Fate::Answered);
}

#[test]
fn what_is_routed_to_an_eni_may_count_as_its_own() {
    let mut world = World::new(lab());
    world.change(|desired| {
        let vpc = desired.vpcs.get_mut(&"vpc-1".into()).expect("it is there");
        vpc.routes.insert(prefix_of("198.51.100.0/24"), "far".into());
    });
    world.set_rules("sg-client", &[accept_in("all", "0.0.0.0/0")]);
    let (inside, outside) = ("198.51.100.7", "192.0.2.7");
    let to = |address| Ip::new(CLIENT, address).udp(1, 2);
    let from = |address| Ip::new(address, CLIENT).udp(2, 1);
    assert_eq!(world.send("client", &to(inside)), refused("far", DropReason::DestinationNotOwned));
    assert_eq!(world.send("far", &from(inside)), stopped("far", DropReason::SourceAddressSpoofed));
    world.change_eni("far", |eni| eni.routed_as_own = true);
    assert_eq!(world.send("client", &to(inside)), delivered("far"));
    assert_eq!(world.send("far", &from(inside)), delivered("client"));
    // Nothing else does, nor is it anybody else's, nor may a claim to have such an address be spread.
    assert_eq!(world.send("far", &from(outside)), stopped("far", DropReason::SourceAddressSpoofed));
    world.change_eni("web", |eni| eni.routed_as_own = true);
    assert_eq!(world.send("web", &from(inside)), stopped("web", DropReason::SourceAddressSpoofed));
    world.change(|desired| desired.vpcs.get_mut(&"vpc-1".into()).expect("it is there").routes.clear());
    assert_eq!(world.send("far", &from(inside)), stopped("far", DropReason::SourceAddressSpoofed));
}

#[test]
fn overlapping_vpcs_do_not_see_each_other() {
    let mut world = World::new(lab());
    let syn = || request().tcp(4000, 80, TcpFlags::SYN);
    assert_eq!(world.send("shadow-client", &syn()), delivered("shadow-web"));
    assert_eq!(world.send("client", &syn()), delivered("web"));
    world.set_rules("sg-web", &[]);
    assert_eq!(world.send("client", &syn()), refused("web", DropReason::DefaultDrop));
    assert_eq!(world.send("shadow-client", &syn()), delivered("shadow-web"));
    assert_eq!(world.send("shadow-client", &Ip::new(CLIENT, FAR).udp(1, 2)), Fate::Answered, "nobody has it there");
}

#[test]
fn an_eni_that_is_gone_passes_nothing() {
    let mut world = World::new(lab());
    let frame = world.frame_from("client", &request().tcp(1, 80, TcpFlags::SYN));
    let client = world.index("client");
    let mut on_its_way = world.egress("client", &frame);
    assert!(matches!(on_its_way.verdict, Verdict::Forward(_)));
    world.change(|desired| desired.enis.retain(|id, _| !matches!(id.as_str(), "web" | "client")));
    world.ingress(&mut on_its_way);
    assert_eq!(on_its_way.verdict, Verdict::Drop(DropReason::EniGone));
    let mut late = vswitch_core::packet::Packet::new(vswitch_core::packet::FrameBuffer::with_capacity(2048));
    late.buffer.fill(&frame);
    world.shards[0].egress(&world.snapshot, client, std::slice::from_mut(&mut late), world.now);
    assert_eq!(late.verdict, Verdict::Drop(DropReason::EniGone));
    assert!(world.snapshot.eni_id(EniIndex(999)).is_none());
}

#[test]
fn a_packet_on_its_way_never_meets_the_successor_of_its_receiver() {
    let mut world = World::new(lab());
    let frame = world.frame_from("client", &request().tcp(1, 80, TcpFlags::SYN));
    let mut on_its_way = world.egress("client", &frame);
    // In one change the receiver leaves, and an ENI of another VPC takes over its address, and could take its number.
    world.change(|desired| {
        desired.enis.remove(&"web".into());
        desired.enis.get_mut(&"shadow-web".into()).expect("it is there").addresses = vec![prefix_of("10.0.0.77")];
        *desired = std::mem::take(desired).eni("successor", "vsw-3", &[WEB], &["sg-shadow"]);
    });
    world.ingress(&mut on_its_way);
    assert_eq!(on_its_way.verdict, Verdict::Drop(DropReason::EniGone));
}

#[test]
fn unanswered_frames_keep_their_bytes() {
    let mut world = World::new(lab());
    let (mac, gateway) = macs();
    let noise = ethernet(mac, gateway, 0x88cc, &[7; 40]);
    let (fate, left) = world.send_frame("client", &noise);
    assert_eq!((fate, left), (stopped("client", DropReason::EtherTypeUnknown), noise));
}

const METADATA: [&str; 2] = ["100.100.100.200", "fd00:100::100:200"];
const NAME_SERVERS: [&str; 4] = ["100.100.2.136", "100.100.2.138", "fd00:100::100:136", "fd00:100::100:138"];

fn own_address_toward(destination: &str) -> &'static str {
    if destination.contains(':') { CLIENT_V6 } else { CLIENT }
}

#[test]
fn metadata_is_served_whatever_the_rules_and_names_as_the_rules_say() {
    let mut world = World::new(lab().advanced_group("sg-strict", "vpc-1", &[]));
    let to = |address: &str| Ip::new(own_address_toward(address), address);
    for is_strict in [false, true] {
        for address in METADATA {
            assert_eq!(world.send("client", &to(address).tcp(40000, 80, TcpFlags::SYN)), Fate::Served, "{address}");
        }
        for address in NAME_SERVERS {
            let fate = if is_strict { stopped("client", DropReason::DefaultDrop) } else { Fate::Served };
            assert_eq!(world.send("client", &to(address).udp(40000, 53)), fate, "{address}");
            assert_eq!(world.send("client", &to(address).tcp(40000, 53, TcpFlags::SYN)), fate, "{address}");
        }
        world.change_eni("client", |eni| eni.groups = ["sg-strict".into()].into());
    }
    // A default route leads past none of them.
    world.change(|desired| {
        let vpc = desired.vpcs.get_mut(&"vpc-1".into()).expect("it is there");
        vpc.routes.insert(prefix_of("0.0.0.0/0"), "far".into());
    });
    assert_eq!(world.send("client", &to(METADATA[0]).tcp(40000, 80, TcpFlags::SYN)), Fate::Served);
}

#[test]
fn what_a_service_does_not_serve_is_refused_at_once() {
    let mut world = World::new(lab());
    let to = |address: &str| Ip::new(own_address_toward(address), address);
    for address in METADATA {
        for packet in [to(address).tcp(40000, 8080, TcpFlags::SYN), to(address).udp(40000, 80)] {
            assert_eq!(world.send("client", &packet), Fate::Answered, "{address}");
        }
        // A reset is answered by none.
        let reset = to(address).tcp(40000, 8080, TcpFlags::RST);
        assert_eq!(world.send("client", &reset), stopped("client", DropReason::GatewayUnserved));
    }
    for address in NAME_SERVERS {
        for packet in [to(address).tcp(40000, 80, TcpFlags::SYN), to(address).udp(40000, 123)] {
            assert_eq!(world.send("client", &packet), Fate::Answered, "{address}");
        }
    }
    // Where other clouds have it: a reset, and for the rest as with any address that is nowhere.
    let elsewhere = "169.254.169.254";
    let question = world.frame_from("client", &to(elsewhere).tcp(40000, 80, TcpFlags::SYN));
    let (_, answer) = world.send_frame("client", &question);
    let answer = parse(&answer).expect("a packet");
    assert_eq!(answer.tcp_flags & TcpFlags::RST, 4);
    assert_eq!(world.send("client", &to(elsewhere).udp(40000, 53)), Fate::Answered);
}
