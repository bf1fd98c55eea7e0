//! Replies in datagrams.

use etherparse::PacketBuilder;
use std::net::IpAddr;

/// The time to live of a reply.
const HOP_LIMIT: u8 = 64;

/// The packet that replies to one between these addresses and ports. None if it would be too long for one.
pub fn reply([source, destination]: [IpAddr; 2], ports: [u16; 2], payload: &[u8]) -> Option<Vec<u8>> {
    let builder = match (destination, source) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), HOP_LIMIT),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), HOP_LIMIT),
        _ => return None,
    };
    let builder = builder.udp(ports[1], ports[0]);
    let mut packet = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut packet, payload).ok()?;
    Some(packet)
}
