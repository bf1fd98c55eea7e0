//! Converts a packet in text form to the bytes of a frame, so that cases pass through the production parser.

use super::format::{CaseError, FragmentText, PacketText};
use super::world::protocol_number;
use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header};
use std::net::IpAddr;
use vswitch_core::config::ids::MacAddress;

/// The frame that carries the packet from one hardware address to another.
pub(super) fn frame(packet: &PacketText, source: MacAddress, destination: MacAddress) -> Result<Vec<u8>, CaseError> {
    let mut frame = Vec::with_capacity(128);
    frame.extend_from_slice(&destination.0);
    frame.extend_from_slice(&source.0);
    check_ethertype(packet)?;
    if packet.proto == "arp" {
        frame.extend_from_slice(&[0x08, 0x06]);
        frame.extend(arp(packet, source)?);
        return Ok(frame);
    }
    let is_v6 = matches!(ends(packet)?, (IpAddr::V6(_), _));
    frame.extend_from_slice(if is_v6 { &[0x86, 0xdd] } else { &[0x08, 0x00] });
    frame.extend(ip_packet(packet)?);
    Ok(frame)
}

fn check_ethertype(packet: &PacketText) -> Result<(), CaseError> {
    let carried = match (packet.proto == "arp", ends(packet)?) {
        (true, _) => "arp",
        (false, (IpAddr::V4(_), _)) => "ipv4",
        (false, (IpAddr::V6(_), _)) => "ipv6",
    };
    match &packet.ethertype {
        Some(named) if !named.eq_ignore_ascii_case(carried) => {
            Err(CaseError(format!("packet: its ethertype is {carried}, not {named}")))
        }
        _ => Ok(()),
    }
}

fn address(text: &str) -> Result<IpAddr, CaseError> {
    text.parse().map_err(|_| CaseError(format!("packet: {text} is not an address")))
}

fn ends(packet: &PacketText) -> Result<(IpAddr, IpAddr), CaseError> {
    Ok((address(&packet.src)?, address(&packet.dst)?))
}

fn arp(packet: &PacketText, sender: MacAddress) -> Result<Vec<u8>, CaseError> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = ends(packet)? else {
        return Err(CaseError("packet: ARP is for IPv4".into()));
    };
    let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, 1];
    bytes.extend_from_slice(&sender.0);
    bytes.extend_from_slice(&source.octets());
    bytes.extend_from_slice(&[0; 6]);
    bytes.extend_from_slice(&destination.octets());
    Ok(bytes)
}

fn ip_packet(packet: &PacketText) -> Result<Vec<u8>, CaseError> {
    let number = match &packet.proto {
        serde_json::Value::String(name) => protocol_number(name)?,
        value => value
            .as_u64()
            .and_then(|number| u8::try_from(number).ok())
            .ok_or_else(|| CaseError(format!("packet: {value} is not a protocol")))?,
    };
    let hop_limit = packet.ttl.unwrap_or(if is_neighbor_discovery(packet, number) { 255 } else { 64 });
    let mut payload = transport(packet, number)?;
    if let Some(fragment) = &packet.fragment {
        // Every part but the last has a multiple of 8 bytes; later parts hold data, not a header.
        payload.resize(payload.len().next_multiple_of(8), 0);
        if fragment.offset > 0 {
            payload.fill(0xaa);
        }
    }
    let malformed = |_| CaseError("packet: too long".into());
    match ends(packet)? {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let length = payload.len().try_into().map_err(malformed)?;
            let mut header =
                Ipv4Header::new(length, hop_limit, IpNumber(number), source.octets(), destination.octets())
                    .map_err(|error| CaseError(format!("packet: {error}")))?;
            if let Some(fragment) = &packet.fragment {
                header.identification = fragment.id as u16;
                header.dont_fragment = false;
                header.more_fragments = fragment.more;
                header.fragment_offset = offset(fragment)?;
            }
            header.header_checksum = header.calc_header_checksum();
            Ok([header.to_bytes().as_slice(), &payload].concat())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut next_header = IpNumber(number);
            if let Some(fragment) = &packet.fragment {
                let header = Ipv6FragmentHeader::new(next_header, offset(fragment)?, fragment.more, fragment.id);
                payload.splice(0..0, header.to_bytes());
                next_header = IpNumber::IPV6_FRAGMENTATION_HEADER;
            }
            let header = Ipv6Header {
                payload_length: payload.len().try_into().map_err(malformed)?,
                next_header,
                hop_limit,
                source: source.octets(),
                destination: destination.octets(),
                ..Ipv6Header::default()
            };
            Ok([header.to_bytes().as_slice(), &payload].concat())
        }
        _ => Err(CaseError("packet: source and destination are of two families".into())),
    }
}

fn offset(fragment: &FragmentText) -> Result<IpFragOffset, CaseError> {
    IpFragOffset::try_new(fragment.offset / 8).map_err(|error| CaseError(format!("packet: {error}")))
}

fn is_neighbor_discovery(packet: &PacketText, number: u8) -> bool {
    number == 58 && packet.icmp_type.is_some_and(|kind| (133..=137).contains(&kind))
}

/// The transport header, with a checksum of zero: the switch forwards without verifying it.
fn transport(packet: &PacketText, number: u8) -> Result<Vec<u8>, CaseError> {
    let ports = || [packet.sport.to_be_bytes(), packet.dport.to_be_bytes()].concat();
    Ok(match number {
        6 => {
            let mut bytes = ports();
            bytes.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0x50, tcp_flags(packet)?, 0xff, 0xff, 0, 0, 0, 0]);
            bytes
        }
        17 => {
            let mut bytes = ports();
            bytes.extend_from_slice(&[0, 8, 0, 0]);
            bytes
        }
        1 | 58 => {
            let echo_request = if number == 1 { 8 } else { 128 };
            let mut bytes = vec![packet.icmp_type.unwrap_or(echo_request), packet.icmp_code, 0, 0];
            bytes.extend_from_slice(&packet.ident.to_be_bytes());
            bytes.extend_from_slice(&[0, 1]);
            if is_neighbor_discovery(packet, number) {
                bytes.extend_from_slice(&[0; 16]);
            }
            if let Some(inner) = &packet.inner {
                bytes.extend(ip_packet(inner)?);
            }
            bytes
        }
        _ => vec![0; 8],
    })
}

fn tcp_flags(packet: &PacketText) -> Result<u8, CaseError> {
    let letters = packet.flags.as_deref().unwrap_or("S").chars();
    letters.filter(|letter| !matches!(letter, '-' | '.' | '+' | ' ')).try_fold(0, |flags, letter| {
        let bit = match letter.to_ascii_uppercase() {
            'F' => 0x01,
            'S' => 0x02,
            'R' => 0x04,
            'P' => 0x08,
            'A' => 0x10,
            'U' => 0x20,
            other => return Err(CaseError(format!("packet: {other} is not a TCP flag"))),
        };
        Ok(flags | bit)
    })
}
