//! Frames that a guest should not send.

use super::*;
use harness::frame::{TcpFlags, arp, ethernet, tagged};
use std::net::Ipv4Addr;
use vswitch_core::config::ids::MacAddress;
use vswitch_core::config::limits::SERVICE_REQUESTS_PER_S;

const STRANGER: MacAddress = MacAddress([2, 9, 9, 9, 9, 9]);

/// The client sends a frame that must end at its own egress.
fn assert_stopped(frame: &[u8], reason: DropReason) {
    let mut world = World::new(lab());
    assert_eq!(world.send_frame("client", frame).0, stopped("client", reason));
    assert!(world.flows("client").is_empty());
}

fn client_frame(packet: &Ip) -> Vec<u8> {
    World::new(lab()).frame_from("client", packet)
}

/// The client's frame with some bytes behind the Ethernet header changed.
fn damaged(packet: &Ip, changes: &[(usize, u8)]) -> Vec<u8> {
    let mut frame = client_frame(packet);
    for &(offset, value) in changes {
        frame[14 + offset] = value;
    }
    frame
}

fn request_v6() -> Ip {
    Ip::new(CLIENT_V6, WEB_V6)
}

#[test]
fn a_frame_shorter_than_its_headers_is_truncated() {
    assert_stopped(&[], DropReason::FrameTruncated);
    assert_stopped(&[2; 13], DropReason::FrameTruncated);
    assert_stopped(&client_frame(&request().udp(1, 80))[..14 + 19], DropReason::FrameTruncated);
    assert_stopped(&client_frame(&request_v6().udp(1, 80))[..14 + 39], DropReason::FrameTruncated);
}

#[test]
fn tags_and_unknown_types_are_refused() {
    assert_stopped(&tagged(&client_frame(&request().tcp(1, 80, TcpFlags::SYN)), 5), DropReason::VlanTagged);
    let world = World::new(lab());
    let (near, far) = (world.mac("client"), world.gateway_mac("client"));
    assert_stopped(&ethernet(near, far, 0x88cc, &[0; 60]), DropReason::EtherTypeUnknown);
    assert_stopped(&ethernet(near, far, 0x05dc, &[0; 60]), DropReason::EtherTypeUnknown);
}

/// Windows guests and some drivers send such tags.
#[test]
fn a_tag_that_names_no_vlan_is_taken_off() {
    let mut world = World::new(lab());
    for priority in [0, 7] {
        for packet in [request().tcp(1, 80, TcpFlags::SYN), request_v6().tcp(1, 80, TcpFlags::SYN)] {
            let plain = world.frame_from("client", &packet);
            let (fate, frame) = world.send_frame("client", &tagged(&plain, priority << 13));
            assert_eq!(fate, delivered("web"));
            assert_eq!(frame, packet.frame(world.gateway_mac("web"), world.mac("web")));
        }
    }
    let arp = arp(true, (world.mac("client"), address(CLIENT)), (MacAddress::default(), address("10.0.0.1")));
    assert_eq!(world.send_frame("client", &tagged(&arp, 0)).0, Fate::Answered);
    let twice = tagged(&tagged(&client_frame(&request().tcp(1, 80, TcpFlags::SYN)), 0), 0);
    assert_stopped(&twice, DropReason::VlanTagged);
    assert_stopped(&tagged(&[2; 14], 0)[..15], DropReason::VlanTagged);
}

fn address(text: &str) -> Ipv4Addr {
    text.parse().expect("an IPv4 address")
}

#[test]
fn wrong_versions_and_lengths_are_malformed() {
    let packet = request().tcp(1, 80, TcpFlags::SYN);
    for changes in [[(0, 0x65)], [(0, 0x44)], [(0, 0x4f)], [(2, 0xff)], [(3, 19)]] {
        assert_stopped(&damaged(&packet, &changes), DropReason::Ipv4Malformed);
    }
    let packet = request_v6().tcp(1, 80, TcpFlags::SYN);
    assert_stopped(&damaged(&packet, &[(0, 0x40)]), DropReason::Ipv6Malformed);
    assert_stopped(&damaged(&packet, &[(4, 0xff)]), DropReason::Ipv6Malformed);
    let beyond = request_v6().extension(60, &[0; 6]).tcp(1, 80, TcpFlags::SYN);
    assert_stopped(&damaged(&beyond, &[(41, 200)]), DropReason::Ipv6Malformed);
    let source_routed = request_v6().extension(43, &[0, 1, 0, 0, 0, 0]).tcp(1, 80, TcpFlags::SYN);
    assert_stopped(&client_frame(&source_routed), DropReason::Ipv6Malformed);
}

#[test]
fn a_long_chain_of_extension_headers_is_refused() {
    let chain = |count| (0..count).fold(request_v6(), |packet, _| packet.extension(60, &[1, 4, 0, 0, 0, 0]));
    assert_stopped(&client_frame(&chain(9).tcp(1, 80, TcpFlags::SYN)), DropReason::Ipv6ExtensionsTooMany);
    let mut world = World::new(lab());
    assert_eq!(world.send("client", &chain(8).tcp(1, 80, TcpFlags::SYN)), delivered("web"));
    assert_eq!(world.send("client", &chain(8).tcp(1, 81, TcpFlags::SYN)), refused("web", DropReason::DefaultDrop));
}

#[test]
fn ipv4_options_do_not_hide_ports() {
    let mut world = World::new(lab());
    let with_options = || request().options(&[7, 7, 4, 0, 0, 0, 0, 0]);
    assert_eq!(world.send("client", &with_options().tcp(1, 80, TcpFlags::SYN)), delivered("web"));
    assert_eq!(
        world.send("client", &with_options().tcp(1, 22, TcpFlags::SYN)),
        refused("web", DropReason::DefaultDrop)
    );
}

#[test]
fn a_transport_header_must_fit() {
    for (number, bytes) in [(6, 19), (17, 7), (1, 7)] {
        assert_stopped(&client_frame(&request().raw(number, &vec![0; bytes])), DropReason::TransportTruncated);
    }
    let tcp = request().tcp(1, 80, TcpFlags::SYN);
    assert_stopped(&damaged(&tcp, &[(32, 0x40)]), DropReason::TransportTruncated);
    assert_stopped(&damaged(&tcp, &[(32, 0xf0)]), DropReason::TransportTruncated);
    assert_stopped(&damaged(&request().udp(1, 80), &[(25, 200)]), DropReason::TransportTruncated);
    assert_stopped(&damaged(&request().udp(1, 80), &[(25, 7)]), DropReason::TransportTruncated);
    assert_stopped(&client_frame(&request_v6().raw(58, &[128; 7])), DropReason::TransportTruncated);
}

#[test]
fn arp_that_is_not_for_ipv4_over_ethernet_is_malformed() {
    let world = World::new(lab());
    let address = |text: &str| text.parse::<Ipv4Addr>().expect("an address");
    let question = arp(true, (world.mac("client"), address(CLIENT)), (MacAddress::default(), address(WEB)));
    for (offset, value) in [(1, 6), (2, 0x86), (4, 8), (5, 16), (7, 3), (7, 0)] {
        let mut frame = question.clone();
        frame[14 + offset] = value;
        assert_stopped(&frame, DropReason::ArpMalformed);
    }
    assert_stopped(&question[..40], DropReason::FrameTruncated);
}

#[test]
fn a_foreign_sender_is_spoofed() {
    let world = World::new(lab());
    let gateway = world.gateway_mac("client");
    assert_stopped(&request().tcp(1, 80, TcpFlags::SYN).frame(STRANGER, gateway), DropReason::SourceMacSpoofed);
    for source in [WEB, OUTSIDE, "0.0.0.0", "10.0.0.1", "255.255.255.255", "127.0.0.1"] {
        assert_stopped(&client_frame(&Ip::new(source, WEB).udp(1, 80)), DropReason::SourceAddressSpoofed);
    }
    for source in [WEB_V6, "2001:db8::1", "::", "fe80::1", "::ffff:10.0.0.20"] {
        assert_stopped(&client_frame(&Ip::new(source, WEB_V6).udp(1, 80)), DropReason::SourceAddressSpoofed);
    }
}

#[test]
fn a_guest_does_not_serve_dhcp() {
    assert_stopped(&client_frame(&Ip::new(CLIENT, WEB).udp(67, 68)), DropReason::DhcpServerSpoofed);
    assert_stopped(&client_frame(&Ip::new(CLIENT_V6, WEB_V6).udp(547, 546)), DropReason::DhcpServerSpoofed);
}

#[test]
fn a_foreign_sender_of_arp_or_neighbor_discovery_is_spoofed() {
    let world = World::new(lab());
    let mac = world.mac("client");
    let address = |text: &str| text.parse::<Ipv4Addr>().expect("an address");
    let target = (MacAddress::default(), address("10.0.0.1"));
    assert_stopped(&arp(true, (mac, address(WEB)), target), DropReason::ArpSpoofed);
    let mut lying = arp(true, (mac, address(CLIENT)), target);
    lying[14 + 8..14 + 14].copy_from_slice(&STRANGER.0);
    assert_stopped(&lying, DropReason::ArpSpoofed);
    let target = "fd00:0:0:1::1".parse().expect("an address");
    assert_stopped(&client_frame(&Ip::new(WEB_V6, "ff02::1:ff00:1").solicit(target, mac)), DropReason::NeighborSpoofed);
    let lying = Ip::new(CLIENT_V6, "ff02::1:ff00:1").solicit(target, STRANGER);
    assert_stopped(&client_frame(&lying), DropReason::NeighborSpoofed);
    let endless = Ip::new(CLIENT_V6, "ff02::1:ff00:1").hop_limit(255).icmp(
        135,
        0,
        [0; 4],
        &[[0; 16].as_slice(), &[1, 0]].concat(),
    );
    assert_stopped(&client_frame(&endless), DropReason::NeighborSpoofed);
}

#[test]
fn the_sender_is_not_checked_where_the_check_is_off() {
    let mut world = World::new(lab());
    world.change_eni("client", |eni| eni.source_dest_check = false);
    let packet = Ip::new(OUTSIDE, WEB).tcp(1, 80, TcpFlags::SYN);
    assert_eq!(world.send("client", &packet), delivered("web"));
}

/// It frees a router from the check of addresses, and from nothing else.
#[test]
fn all_but_the_source_address_is_checked_of_everybody() {
    let mut world = World::new(lab());
    world.change_eni("client", |eni| eni.source_dest_check = false);
    world.set_rules("sg-web", &[accept_in("all", "0.0.0.0/0"), accept_in("all-v6", "::/0")]);
    let (mac, gateway) = (world.mac("client"), world.gateway_mac("client"));
    let target = "fd00:0:0:1::1".parse().expect("an address");
    let frames = [
        (Ip::new(OUTSIDE, WEB).tcp(1, 80, TcpFlags::SYN).frame(STRANGER, gateway), DropReason::SourceMacSpoofed),
        (Ip::new(OUTSIDE, WEB).udp(67, 68).frame(mac, gateway), DropReason::DhcpServerSpoofed),
        (Ip::new(CLIENT, WEB).udp(67, 68).part(9, 0, true).frame(mac, gateway), DropReason::DhcpServerSpoofed),
        (Ip::new(CLIENT_V6, WEB_V6).udp(547, 546).frame(mac, gateway), DropReason::DhcpServerSpoofed),
        (
            arp(true, (STRANGER, CLIENT.parse().expect("v4")), (MacAddress::default(), WEB.parse().expect("v4"))),
            DropReason::SourceMacSpoofed,
        ),
        (
            Ip::new(CLIENT_V6, "ff02::1:ff00:1").solicit(target, STRANGER).frame(mac, gateway),
            DropReason::NeighborSpoofed,
        ),
    ];
    for (frame, reason) in frames {
        assert_eq!(world.send_frame("client", &frame).0, stopped("client", reason));
    }
}

#[test]
fn a_frame_for_another_station_is_not_routed() {
    for is_checked in [true, false] {
        let mut world = World::new(lab());
        world.change_eni("client", |eni| eni.source_dest_check = is_checked);
        let (mac, web) = (world.mac("client"), world.mac("web"));
        for to in [web, STRANGER, mac, MacAddress::default()] {
            for packet in
                [request().tcp(40000, 80, TcpFlags::SYN), Ip::new(CLIENT_V6, WEB_V6).tcp(40000, 80, TcpFlags::SYN)]
            {
                let fate = world.send_frame("client", &packet.frame(mac, to)).0;
                assert_eq!(fate, stopped("client", DropReason::DestinationMacForeign));
            }
        }
        assert_eq!(world.send("client", &request().tcp(40000, 80, TcpFlags::SYN)), delivered("web"));
        // Its session is no way around.
        let more = request().tcp(40000, 80, TcpFlags::ACK).frame(mac, web);
        assert_eq!(world.send_frame("client", &more).0, stopped("client", DropReason::DestinationMacForeign));
    }
}

#[test]
fn multicast_and_broadcast_end_at_the_port() {
    let mut world = World::new(lab());
    for destination in ["224.0.0.251", "239.1.1.1", "255.255.255.255"] {
        assert_eq!(
            world.send("client", &Ip::new(CLIENT, destination).udp(1, 2)),
            stopped("client", DropReason::Multicast)
        );
    }
    for source in [CLIENT_V6, "fe80::1"] {
        assert_eq!(
            world.send("client", &Ip::new(source, "ff02::fb").udp(1, 2)),
            stopped("client", DropReason::Multicast)
        );
    }
    let group_mac = request().tcp(1, 80, TcpFlags::SYN).frame(world.mac("client"), MacAddress([0xff; 6]));
    assert_eq!(world.send_frame("client", &group_mac).0, stopped("client", DropReason::Multicast));
}

#[test]
fn dhcp_of_the_guest_is_served_whoever_it_is_addressed_to() {
    let mut world = World::new(lab());
    // One that had another address asks for it from there.
    for (source, destination) in [("0.0.0.0", "255.255.255.255"), (CLIENT, "10.0.0.1"), (CLIENT, WEB), (OUTSIDE, WEB)] {
        assert_eq!(world.send("client", &Ip::new(source, destination).udp(68, 67)), Fate::Served);
    }
    for (source, destination) in [("fe80::1", "ff02::1:2"), (CLIENT_V6, "ff02::1:2")] {
        assert_eq!(world.send("client", &Ip::new(source, destination).udp(546, 547)), Fate::Served);
    }
    let spoofed = Ip::new(WEB_V6, "ff02::1:2").udp(546, 547);
    assert_eq!(world.send("client", &spoofed), stopped("client", DropReason::SourceAddressSpoofed));
    let solicitation = Ip::new("fe80::1", "ff02::2").hop_limit(255).icmp(133, 0, [0; 4], &[]);
    assert_eq!(world.send("client", &solicitation), Fate::Served);
}

#[test]
fn dhcp_in_parts_or_too_long_for_a_frame_is_malformed() {
    assert_stopped(&client_frame(&Ip::new(CLIENT, WEB).udp(68, 67).part(9, 0, true)), DropReason::DhcpMalformed);
    let mut long = Ip::new("0.0.0.0", "255.255.255.255").udp(68, 67);
    long.payload.resize(1481, 0);
    let length = (long.payload.len() as u16).to_be_bytes();
    long.payload[4..6].copy_from_slice(&length);
    assert_stopped(&client_frame(&long), DropReason::DhcpMalformed);
}

#[test]
fn an_eni_asks_for_services_eight_times_a_second() {
    let mut world = World::new(lab());
    let request = Ip::new("0.0.0.0", "255.255.255.255").udp(68, 67);
    for _ in 0..2 {
        for _ in 0..SERVICE_REQUESTS_PER_S {
            assert_eq!(world.send("client", &request), Fate::Served);
        }
        assert_eq!(world.send("client", &request), stopped("client", DropReason::ServiceRate));
        assert_eq!(world.send("web", &request), Fate::Served, "others have a share of their own");
        world.wait_s(1);
    }
}

/// Behind an extension header or in parts, to a group or to one, with whatever hop limit: the guest's neighbours must not
/// take it for their router.
#[test]
fn a_guest_advertises_no_router_and_redirects_nobody() {
    for is_checked in [true, false] {
        let mut world = World::new(lab());
        world.change_eni("client", |eni| eni.source_dest_check = is_checked);
        let reason = stopped("client", DropReason::RouterAdvertSpoofed);
        for kind in [134, 137] {
            for (source, destination) in [("fe80::1", "ff02::1"), (CLIENT_V6, WEB_V6)] {
                for hop_limit in [255, 64] {
                    let packet = Ip::new(source, destination).hop_limit(hop_limit).icmp(kind, 0, [0; 4], &[0; 32]);
                    assert_eq!(world.send("client", &packet), reason);
                    let first = packet.clone().part(9, 0, true);
                    assert_eq!(world.send("client", &first), reason);
                    // Destination options of eight bytes stand before it.
                    let hidden = [[58, 0, 1, 4, 0, 0, 0, 0].as_slice(), &packet.payload].concat();
                    let hidden = Ip::new(source, destination).hop_limit(hop_limit).raw(60, &hidden);
                    assert_eq!(world.send("client", &hidden), reason);
                }
            }
        }
    }
}

/// An authentication header signs a packet, and hides nothing of it from rules, in either family.
#[test]
fn an_authentication_header_is_looked_through() {
    let header = |next: u8, length: u8| [next, length, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1];
    let signed = |port: u16| {
        let segment = request().tcp(40000, port, TcpFlags::SYN);
        request().raw(51, &[header(6, 1).as_slice(), &segment.payload].concat())
    };
    let mut world = World::new(lab());
    assert_eq!(world.send("client", &signed(80)), delivered("web"));
    assert_eq!(world.send("client", &signed(81)), refused("web", DropReason::DefaultDrop));
    assert_eq!(world.flows("web")[0].destination_port, 80);
    for broken in [header(6, 60).to_vec(), header(51, 1).to_vec(), vec![6], header(6, 1)[..11].to_vec()] {
        assert_stopped(&client_frame(&request().raw(51, &broken)), DropReason::Ipv4Malformed);
    }
    assert_stopped(&client_frame(&request().raw(51, &header(6, 1))), DropReason::TransportTruncated);
}

#[test]
fn a_packet_is_cut_once_and_its_hop_by_hop_options_come_first() {
    let (hop_by_hop, fragment, destination) = (0, 44, 60);
    let packet = |extensions: &[u8]| {
        let ip = Ip::new(CLIENT_V6, WEB_V6).udp(1, 2);
        extensions.iter().fold(ip, |ip, number| ip.extension(*number, &[0; 6]))
    };
    for extensions in [[fragment, fragment].as_slice(), &[fragment, destination, fragment], &[destination, hop_by_hop]]
    {
        assert_stopped(&client_frame(&packet(extensions)), DropReason::Ipv6Malformed);
    }
    for extensions in [[hop_by_hop, fragment].as_slice(), &[fragment, destination], &[hop_by_hop, destination]] {
        let mut world = World::new(lab());
        let fate = world.send("client", &packet(extensions));
        assert_eq!(fate, refused("web", DropReason::DefaultDrop), "{extensions:?}");
    }
}

#[test]
fn a_packet_that_names_its_own_way_is_dropped_unless_settings_let_it() {
    let route = |kind: u8| [kind, 7, 4, 10, 0, 1, 30, 1];
    let option = |bytes: &[u8]| request().tcp(40000, 80, TcpFlags::SYN).options(bytes);
    for options in [route(131).as_slice(), &route(137), &[[1, 148, 4, 0, 0].as_slice(), &route(131)].concat()] {
        assert_stopped(&client_frame(&option(options)), DropReason::Ipv4SourceRoute);
        let mut world = World::new(lab());
        world.change_eni("client", |eni| eni.source_dest_check = false);
        assert_eq!(world.send("client", &option(options)), stopped("client", DropReason::Ipv4SourceRoute));
        world.change(|desired| desired.settings.drop_source_routed = false);
        assert_eq!(world.send("client", &option(options)), delivered("web"));
    }
    // A recorded route, and what looks like one behind the end of the options.
    for options in [route(7).as_slice(), &[[0].as_slice(), &route(131)].concat(), &[148, 1], &[148, 200]] {
        let mut world = World::new(lab());
        assert_eq!(world.send("client", &option(options)), delivered("web"), "{options:?}");
    }
}
