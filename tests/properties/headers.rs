//! The hot parser against `etherparse`, and the door against any bytes at all.

use super::cases;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use harness::frame::{Ip, TcpFlags, ethernet, tagged};
use harness::world::{Build, World, accept_in, accept_out};
use proptest::prelude::*;
use proptest::sample::select;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vswitch_core::config::desired::Desired;
use vswitch_core::config::ids::MacAddress;
use vswitch_core::packet::headers::{self, Addresses, Fragment, Headers, Network};
use vswitch_core::packet::verdict::DropReason;

const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const GATEWAY: MacAddress = MacAddress([0xee, 0xff, 0xff, 0xff, 0xff, 0xff]);

fn ends() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        any::<(u32, u32)>().prop_map(|(a, b)| (Ipv4Addr::from_bits(a).into(), Ipv4Addr::from_bits(b).into())),
        any::<(u128, u128)>().prop_map(|(a, b)| (Ipv6Addr::from_bits(a).into(), Ipv6Addr::from_bits(b).into())),
    ]
}

fn well_formed() -> impl Strategy<Value = Ip> {
    let extensions =
        proptest::collection::vec((select(vec![60u8, 43]), proptest::collection::vec(0u8..1, 0..20)), 0..3);
    let part = proptest::option::weighted(0.3, (any::<u16>(), 0u16..40, any::<bool>()));
    let options = select(vec![0usize, 4, 8, 40]);
    (ends(), any::<(u16, u16)>(), 0u8..7, options, extensions, part).prop_map(
        |((source, destination), (near, far), kind, options, extensions, part)| {
            let mut ip = Ip::between(source, destination);
            if source.is_ipv4() {
                ip = ip.options(&vec![1; options]);
            } else {
                // Routing headers come first, and once: etherparse holds to the order of RFC 8200.
                ip.extensions = extensions.into_iter().take(1).collect();
            }
            let ip = match kind {
                0 | 1 => ip.tcp(near, far, TcpFlags::SYN),
                2 | 3 => ip.udp(near, far),
                4 => ip.ping(near),
                5 => ip.gre(),
                _ => ip.raw(253, &[0; 16]),
            };
            match part {
                Some((id, 0, true)) => ip.part(id as u32, 0, true),
                Some((id, units, more)) if units > 2 => {
                    let protocol = ip.protocol;
                    ip.raw(protocol, &[0xaa; 24]).part(id as u32, units * 8, more)
                }
                _ => ip,
            }
        },
    )
}

/// What etherparse says: addresses, whether a fragment, protocol, ports.
type Reading = (IpAddr, IpAddr, bool, u8, Option<(u16, u16)>);

fn read_slowly(frame: &[u8]) -> Option<Reading> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let (source, destination, payload) = match sliced.net.as_ref()? {
        NetSlice::Ipv4(packet) => {
            (packet.header().source_addr().into(), packet.header().destination_addr().into(), packet.payload())
        }
        NetSlice::Ipv6(packet) => {
            (packet.header().source_addr().into(), packet.header().destination_addr().into(), packet.payload())
        }
        _ => return None,
    };
    let ports = match &sliced.transport {
        Some(TransportSlice::Tcp(segment)) => Some((segment.source_port(), segment.destination_port())),
        Some(TransportSlice::Udp(datagram)) => Some((datagram.source_port(), datagram.destination_port())),
        _ => None,
    };
    Some((source, destination, payload.fragmented, payload.ip_number.0, ports))
}

/// Mobility, HIP and shim6 headers: RFC 6564 lets a parser walk on, and etherparse stops.
const WALKED_BY_ONE: [u8; 3] = [135, 139, 140];

/// What follows the fragment header of a later fragment is data, whatever kind it says that it is the middle of;
/// etherparse walks on through it.
fn is_data_read_as_headers(found: &Headers) -> bool {
    let is_v6 = matches!(found.tuple.addresses, Addresses::V6 { .. });
    is_v6 && found.fragment == Fragment::Later && matches!(found.tuple.protocol, 0 | 43 | 44 | 51 | 60)
}

fn assert_same(found: &Headers, expected: &Reading) {
    let &(source, destination, fragmented, protocol, ports) = expected;
    assert_eq!(Some(found.tuple.addresses), Addresses::new(source, destination));
    assert_eq!(found.tuple.protocol, protocol);
    assert_eq!(found.fragment != Fragment::Whole, fragmented);
    if let Some(ports) = ports.filter(|_| found.fragment == Fragment::Whole) {
        assert_eq!((found.tuple.source_port, found.tuple.destination_port), ports);
    }
}

fn world() -> World {
    let desired = Desired::default()
        .vpc("vpc-1")
        .vswitch("vsw-1", "vpc-1", "10.0.0.0/24", "fd00::/64")
        .vswitch("vsw-2", "vpc-1", "10.0.1.0/24", "fd00:1::/64")
        .open_group(
            "sg-1",
            "vpc-1",
            &[accept_in("r-1", "0.0.0.0/0"), accept_out("r-2", "::/0"), accept_in("r-3", "::/0")],
        )
        .eni("eni-1", "vsw-1", &["10.0.0.5", "fd00::5"], &["sg-1"])
        .eni("eni-2", "vsw-2", &["10.0.1.5", "fd00:1::5"], &["sg-1"]);
    let mut world = World::new(desired);
    world.change_eni("eni-1", |eni| eni.source_dest_check = false);
    world
}

proptest! {
    #![proptest_config(cases(6000))]

    #[test]
    fn well_formed_frames_are_read_as_etherparse_reads_them(ip in well_formed()) {
        let frame = ip.frame(MAC, GATEWAY);
        let found = headers::parse::parse(&frame).expect("a well-formed frame");
        let expected = read_slowly(&frame).expect("etherparse reads it too");
        assert_same(&found, &expected);
        prop_assert_eq!(found.network, Network::Ip);
        prop_assert_eq!(found.end as usize, frame.len());
        prop_assert_eq!(headers::parse::parse(&tagged(&frame, 7)), Err(DropReason::VlanTagged));
        let mut padded = frame.clone();
        padded.extend_from_slice(&[0x55; 9]);
        prop_assert_eq!(headers::parse::parse(&padded), Ok(found));
    }

    #[test]
    fn a_first_fragment_has_the_ports_of_its_transport_header(ip in well_formed(), ports in any::<(u16, u16)>()) {
        let first = Ip { part: None, ..ip }.udp(ports.0, ports.1).part(77, 0, true);
        let found = headers::parse::parse(&first.frame(MAC, GATEWAY)).expect("a well-formed frame");
        prop_assert_eq!((found.tuple.source_port, found.tuple.destination_port), ports);
        prop_assert_eq!((found.fragment, found.fragment_id), (Fragment::First, 77));
    }

    #[test]
    fn mutated_frames_are_never_read_otherwise(
        ip in well_formed(),
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::weighted(0.3, any::<proptest::sample::Index>()),
    ) {
        let mut frame = ip.frame(MAC, GATEWAY);
        for (place, value) in flips {
            let place = place.index(frame.len());
            frame[place] = value;
        }
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len()));
        }
        if let Ok(found) = headers::parse::parse(&frame)
            && found.network == Network::Ip
            && !is_data_read_as_headers(&found)
            && let Some(expected) = read_slowly(&frame).filter(|reading| !WALKED_BY_ONE.contains(&reading.3))
        {
            assert_same(&found, &expected);
        }
    }

    #[test]
    fn no_bytes_make_the_parser_panic(
        ether_type in select(vec![0x0800u16, 0x86dd, 0x0806, 0x8100, 0x88a8, 0x1234]),
        mut bytes in proptest::collection::vec(any::<u8>(), 0..160),
        version in select(vec![0x45u8, 0x46, 0x4f, 0x60]),
    ) {
        let _ = headers::parse::parse(&bytes);
        if let Some(first) = bytes.first_mut() { *first = version }
        let frame = ethernet(MAC, GATEWAY, ether_type, &bytes);
        if let Ok(found) = headers::parse::parse(&frame) {
            prop_assert!(found.end as usize <= frame.len());
            let _ = headers::parse::quoted(&frame, &found);
        }
    }

    #[test]
    fn no_quote_makes_the_parser_panic(ends in ends(), code in any::<(u8, u8)>(), quote in proptest::collection::vec(any::<u8>(), 0..90)) {
        let mut quote = quote;
        if let Some(first) = quote.first_mut() { *first = if ends.0.is_ipv4() { 0x45 } else { 0x60 } }
        let ip = Ip::between(ends.0, ends.1).icmp(code.0, code.1, [0; 4], &quote);
        let frame = ip.frame(MAC, GATEWAY);
        let found = headers::parse::parse(&frame).expect("a well-formed frame");
        let _ = headers::parse::quoted(&frame, &found);
    }

    #[test]
    fn a_quote_is_read_like_the_packet(ip in well_formed(), near in any::<u32>()) {
        let about = headers::parse::parse(&ip.frame(MAC, GATEWAY)).expect("a well-formed frame");
        let from = if ip.source.is_ipv4() { Ipv4Addr::from_bits(near).into() } else { ip.destination };
        let error = Ip::between(from, ip.source).unreachable(&ip);
        let frame = error.frame(MAC, GATEWAY);
        let found = headers::parse::parse(&frame).expect("a well-formed frame");
        let quote = headers::parse::quoted(&frame, &found);
        prop_assert_eq!(quote.map(|quote| (quote.tuple, quote.fragment)), Some((about.tuple, about.fragment)));
    }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn no_frames_make_the_door_panic(
        frames in proptest::collection::vec(
            (select(vec![0x0800u16, 0x86dd, 0x0806]), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..120), well_formed(), any::<u16>()),
            40,
        ),
    ) {
        let mut world = world();
        for (ether_type, is_noise, mut noise, ip, flip) in frames {
            let frame = if is_noise {
                if let Some(first) = noise.first_mut() { *first = if ether_type == 0x86dd { 0x60 } else { 0x45 } }
                ethernet(MAC, GATEWAY, ether_type, &noise)
            } else {
                let to: IpAddr = if ip.source.is_ipv4() { "10.0.1.5" } else { "fd00:1::5" }.parse().expect("an address");
                let mut frame = Ip { destination: to, hop_limit: flip as u8 % 4, ..ip }.frame(MAC, GATEWAY);
                let place = 14 + flip as usize % (frame.len() - 14);
                frame[place] ^= (flip >> 8) as u8;
                frame
            };
            world.send_frame("eni-1", &frame);
        }
    }
}
