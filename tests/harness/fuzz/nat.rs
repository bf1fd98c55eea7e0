//! Packets that leave a VPC and come in, whatever they are: no private source gets out, nothing gets in but to its owner, and
//! a checksum that was right is right afterwards.

use crate::frame::ethernet;
use crate::world::{Build, Fate, World, accept_in, prefix_of};
use pnet_packet::util;
use vswitch_core::config::desired::{Desired, PortRange};
use vswitch_core::config::uplink::{DesiredNat, PortForward, PrivateEnd};
use vswitch_core::packet::headers::parse::parse;
use vswitch_core::packet::headers::{Fragment, Headers};

const PACKETS_MAX: usize = 24;
const HEADER_BYTES: usize = 20;
/// Addresses that packets are between: the guests', the external ones, the router's, and others'.
const ADDRESSES: [[u8; 4]; 7] =
    [[10, 0, 0, 10], [10, 0, 0, 20], POOL, FORWARDED, FLOATING, [192, 0, 2, 1], [198, 51, 100, 7]];
const POOL: [u8; 4] = [203, 0, 113, 1];
const FORWARDED: [u8; 4] = [203, 0, 113, 2];
const FLOATING: [u8; 4] = [203, 0, 113, 3];

fn world() -> World {
    let end = |eni: &str, address: [u8; 4]| PrivateEnd { eni: eni.into(), address: address.into() };
    let forward = PortForward {
        external: FORWARDED.into(),
        protocol: 17,
        ports: PortRange { first: 1, last: 999 },
        to: end("eni-a", ADDRESSES[0]),
        port: 1001,
    };
    let nat = DesiredNat {
        sources: [("10.0.0.0/24".parse().expect("a prefix"), [POOL.into()].into())].into(),
        floating: [(FLOATING.into(), end("eni-b", ADDRESSES[1]))].into(),
        forwards: vec![forward],
        port_blocks_max: 2,
        ..DesiredNat::default()
    };
    let desired = Desired::default()
        .vpc("vpc-1")
        .vswitch("vsw-1", "vpc-1", "10.0.0.0/24", "fd00:0:0:1::/64")
        .open_group("sg-1", "vpc-1", &[accept_in("all", "0.0.0.0/0")])
        .eni("eni-a", "vsw-1", &["10.0.0.10"], &["sg-1"])
        .eni("eni-b", "vsw-1", &["10.0.0.20"], &["sg-1"])
        .uplink("upl", "vpc-1", nat);
    World::new(desired)
}

/// Each packet is a byte that says whose it is and between whom, a byte of length, and so many bytes of an IPv4 packet.
pub fn nat(bytes: &[u8]) {
    let (mut world, mut rest) = (world(), bytes);
    for _ in 0..PACKETS_MAX {
        let [what, length, more @ ..] = rest else { return };
        let (packet, others) = more.split_at((*length as usize).min(more.len()));
        rest = others;
        carry(&mut world, *what, packet);
    }
}

fn carry(world: &mut World, what: u8, packet: &[u8]) {
    let from = ["upl", "eni-a", "eni-b", "upl"][usize::from(what & 3)];
    let mut packet = packet.to_vec();
    packet.resize(packet.len().max(HEADER_BYTES), 0);
    let length = packet.len() as u16;
    let header_bytes = usize::from(packet[0] & 0x0f) * 4;
    packet[0] = 0x40 | packet[0] & 0x0f;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    for (at, choice) in [(12, what >> 2 & 7), (16, what >> 5 & 7)] {
        if let Some(address) = ADDRESSES.get(usize::from(choice)) {
            packet[at..at + 4].copy_from_slice(address);
        }
    }
    if let Some(header) = packet.get(..header_bytes).filter(|header| header.len() >= HEADER_BYTES) {
        let sum = util::checksum(header, 5);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let frame = ethernet(world.mac(from), world.gateway_mac(from), 0x0800, &packet);
    let was_right = parse(&frame).ok().map(|headers| checksums(&frame, &headers));
    let (fate, out) = world.send_frame(from, &frame);
    world.release();
    let Fate::Delivered(to) = fate else { return };
    let headers = parse(&out).expect("what is delivered is whole");
    let source: [u8; 4] = out[26..30].try_into().expect("four bytes");
    let destination = std::net::Ipv4Addr::new(out[30], out[31], out[32], out[33]);
    if to == "upl" {
        assert!([POOL, FORWARDED, FLOATING].contains(&source), "{source:?} left");
    } else {
        let owned = &world.desired.enis[&to.as_str().into()].addresses;
        assert!(owned.contains(&prefix_of(&destination.to_string())), "{destination} reached {to}");
    }
    assert_eq!(Some(checksums(&out, &headers)), was_right, "from {from} to {to}");
}

/// Whether the checksum of the IP header is right, and that of a whole segment or datagram.
fn checksums(frame: &[u8], headers: &Headers) -> (bool, Option<bool>) {
    let packet = &frame[14..headers.end as usize];
    let header = &packet[..usize::from(packet[0] & 0x0f) * 4];
    let of_header = util::checksum(header, 5).to_be_bytes() == packet[10..12];
    let at = match headers.tuple.protocol {
        6 => 16,
        17 => 6,
        _ => return (of_header, None),
    };
    let payload = &frame[headers.transport_offset as usize..headers.end as usize];
    let written = payload.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let is_summed = |written: &u16| headers.tuple.protocol == 6 || *written != 0;
    let Some(written) = written.filter(is_summed).filter(|_| headers.fragment == Fragment::Whole) else {
        return (of_header, None);
    };
    let [source, destination] = [&packet[12..16], &packet[16..20]].map(|bytes| {
        let address: [u8; 4] = bytes.try_into().expect("four bytes");
        address.into()
    });
    let number = pnet_packet::ip::IpNextHeaderProtocol(headers.tuple.protocol);
    let sum = util::ipv4_checksum(payload, at / 2, &[], &source, &destination, number);
    // Zero and all ones are one number.
    (of_header, Some(sum % 0xffff == written % 0xffff))
}
