//! Parses bytes to headers, once per packet. Every length is checked before a byte is read; nothing here panics.

use super::extension::{authentication_header, extension_headers, has_source_route};
use super::fragment::{PartOfPacket, Trust};
use super::{Addresses, Fragment, Headers, ICMP_HEADER_BYTES, IcmpKind, Network, Tuple, fast_parse, protocol};
use crate::config::limits::{ETHERNET_HEADER_BYTES, FRAME_BYTES_MAX};
use crate::packet::verdict::DropReason;

const ETHER_TYPE_IPV4: u16 = 0x0800;
const ETHER_TYPE_ARP: u16 = 0x0806;
const ETHER_TYPE_IPV6: u16 = 0x86dd;
const ETHER_TYPES_VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];
const ARP_BYTES: usize = 28;

/// Parses the headers of a frame.
///
/// # Errors
/// The reason under which the frame is to be dropped.
pub fn parse(frame: &[u8]) -> Result<Headers, DropReason> {
    // The type is read first: a frame without one is no Ethernet frame.
    let ether_type = read_u16(frame, 12).ok_or(DropReason::FrameTruncated)?;
    if frame.len() > FRAME_BYTES_MAX {
        return Err(DropReason::FrameTooLong);
    }
    let packet = &frame[ETHERNET_HEADER_BYTES..];
    let mut headers = match ether_type {
        ETHER_TYPE_IPV4 => ipv4(packet, Trust::Whole)?,
        ETHER_TYPE_IPV6 => ipv6(packet, Trust::Whole)?,
        ETHER_TYPE_ARP => arp(packet)?,
        // The fast parser knows no tags, so a tagged frame always comes here.
        tag if ETHER_TYPES_VLAN.contains(&tag) => return Err(DropReason::VlanTagged),
        _ => return Err(DropReason::EtherTypeUnknown),
    };
    headers.transport_offset += ETHERNET_HEADER_BYTES as u32;
    headers.end += ETHERNET_HEADER_BYTES as u32;
    Ok(headers)
}

/// Parses the headers of a frame into `headers`, which are meaningless after an error.
///
/// # Errors
/// The reason under which the frame is to be dropped.
#[inline]
pub(crate) fn read(frame: &[u8], headers: &mut Headers) -> Result<(), DropReason> {
    if fast_parse::read(frame, headers).is_none() {
        *headers = parse(frame)?;
    }
    Ok(())
}

/// Parses the packet that an ICMP error quotes (RFC 792, RFC 4443 §2.4): at least its ports or identifier, unless it is
/// a later fragment. `None` if too little is quoted.
pub fn quoted(frame: &[u8], headers: &Headers) -> Option<Headers> {
    let start = headers.transport_offset as usize + ICMP_HEADER_BYTES;
    // Up to the end of the packet only: padding is not part of the quote.
    let quote = frame.get(start..headers.end as usize)?;
    let inner = match headers.tuple.addresses {
        Addresses::V4 { .. } => ipv4(quote, Trust::Quote),
        Addresses::V6 { .. } => ipv6(quote, Trust::Quote),
    };
    inner.ok()
}

fn arp(packet: &[u8]) -> Result<Headers, DropReason> {
    let fixed = packet.get(..ARP_BYTES).ok_or(DropReason::FrameTruncated)?;
    let for_ipv4_over_ethernet = fixed[..6] == [0, 1, 8, 0, 6, 4];
    if !for_ipv4_over_ethernet || !matches!(read_u16(fixed, 6), Some(1 | 2)) {
        return Err(DropReason::ArpMalformed);
    }
    Ok(Headers { network: Network::Arp, end: ARP_BYTES as u32, ..Headers::default() })
}

fn ipv4(packet: &[u8], trust: Trust) -> Result<Headers, DropReason> {
    const FIXED_BYTES: usize = 20;
    let fixed = packet.get(..FIXED_BYTES).ok_or(DropReason::FrameTruncated)?;
    let header_bytes = (fixed[0] & 0x0f) as usize * 4;
    let total_bytes = u16::from_be_bytes([fixed[2], fixed[3]]) as usize;
    if fixed[0] >> 4 != 4 || header_bytes < FIXED_BYTES || total_bytes < header_bytes {
        return Err(DropReason::Ipv4Malformed);
    }
    let end = match trust {
        // A quote may be shorter than the packet that it quotes; a frame may not.
        Trust::Whole if total_bytes > packet.len() => return Err(DropReason::Ipv4Malformed),
        Trust::Whole => total_bytes,
        Trust::Quote => total_bytes.min(packet.len()),
    };
    if end < header_bytes {
        return Err(DropReason::Ipv4Malformed);
    }
    let flags_and_offset = u16::from_be_bytes([fixed[6], fixed[7]]);
    let offset_bytes = (flags_and_offset & 0x1fff) as usize * 8;
    let more = flags_and_offset & 0x2000 != 0;
    // The length is that of the fragment's payload, whatever is cut off in a quote.
    let part = PartOfPacket { start: offset_bytes, end: offset_bytes + total_bytes - header_bytes, more };
    let mut headers = Headers {
        network: Network::Ip,
        tuple: Tuple {
            addresses: Addresses::V4 {
                source: u32::from_be_bytes([fixed[12], fixed[13], fixed[14], fixed[15]]),
                destination: u32::from_be_bytes([fixed[16], fixed[17], fixed[18], fixed[19]]),
            },
            protocol: fixed[9],
            source_port: 0,
            destination_port: 0,
        },
        fragment: part.classify(fixed[9], trust)?,
        part: part.kept(),
        fragment_id: u16::from_be_bytes([fixed[4], fixed[5]]) as u32,
        hop_limit: fixed[8],
        has_source_route: has_source_route(packet.get(FIXED_BYTES..header_bytes).unwrap_or_default()),
        transport_offset: header_bytes as u32,
        end: end as u32,
        ..Headers::default()
    };
    // Padding behind the packet is cut off, so that no header is read from it.
    authentication_header(&packet[..end], &mut headers)?;
    transport(&packet[headers.transport_offset as usize..end], &mut headers, trust)?;
    Ok(headers)
}

fn ipv6(packet: &[u8], trust: Trust) -> Result<Headers, DropReason> {
    const FIXED_BYTES: usize = 40;
    let fixed: &[u8; FIXED_BYTES] = packet.first_chunk().ok_or(DropReason::FrameTruncated)?;
    let total_bytes = FIXED_BYTES + u16::from_be_bytes([fixed[4], fixed[5]]) as usize;
    if fixed[0] >> 4 != 6 || (trust == Trust::Whole && total_bytes > packet.len()) {
        return Err(DropReason::Ipv6Malformed);
    }
    let end = total_bytes.min(packet.len());
    let source = read_u128(fixed, 8).ok_or(DropReason::FrameTruncated)?;
    let destination = read_u128(fixed, 24).ok_or(DropReason::FrameTruncated)?;
    let mut headers = Headers {
        network: Network::Ip,
        tuple: Tuple {
            addresses: Addresses::V6 { source, destination },
            protocol: fixed[6],
            source_port: 0,
            destination_port: 0,
        },
        hop_limit: fixed[7],
        transport_offset: FIXED_BYTES as u32,
        end: end as u32,
        ..Headers::default()
    };
    extension_headers(&packet[..end], &mut headers, trust)?;
    transport(&packet[headers.transport_offset as usize..end], &mut headers, trust)?;
    Ok(headers)
}

fn transport(bytes: &[u8], headers: &mut Headers, trust: Trust) -> Result<(), DropReason> {
    if headers.fragment == Fragment::Later {
        return Ok(());
    }
    let (is_icmp, header_bytes_min) = match (headers.tuple.addresses, headers.tuple.protocol) {
        (_, protocol::TCP) => (false, 20),
        (_, protocol::UDP) => (false, 8),
        (Addresses::V4 { .. }, protocol::ICMP) => (true, ICMP_HEADER_BYTES),
        (Addresses::V6 { .. }, protocol::ICMPV6) => (true, ICMP_HEADER_BYTES),
        // Other protocols have no ports, and nothing of their headers is looked at.
        _ => return Ok(()),
    };
    // A quote holds at least 8 bytes of the header; a first fragment must hold all of it (RFC 7112).
    let needed = if trust == Trust::Quote { 8 } else { header_bytes_min };
    let truncated = match headers.fragment {
        Fragment::Whole => DropReason::TransportTruncated,
        _ => DropReason::FragmentTiny,
    };
    let start = bytes.get(..needed).ok_or(truncated)?;
    if is_icmp {
        read_icmp(start, headers);
        return Ok(());
    }
    headers.tuple.source_port = u16::from_be_bytes([start[0], start[1]]);
    headers.tuple.destination_port = u16::from_be_bytes([start[2], start[3]]);
    // Eight bytes of a quote hold the ports and no flags.
    if trust == Trust::Quote {
        return Ok(());
    }
    if headers.tuple.protocol == protocol::TCP {
        let header_bytes = (start[12] >> 4) as usize * 4;
        headers.tcp_flags = start[13];
        headers.sequence = u32::from_be_bytes([start[4], start[5], start[6], start[7]]);
        headers.acknowledgment = u32::from_be_bytes([start[8], start[9], start[10], start[11]]);
        if header_bytes < header_bytes_min || header_bytes > bytes.len() {
            return Err(truncated);
        }
    // The length of a fragmented datagram is that of all fragments together.
    } else if headers.fragment == Fragment::Whole {
        let length_bytes = u16::from_be_bytes([start[4], start[5]]) as usize;
        if length_bytes < header_bytes_min || length_bytes > bytes.len() {
            return Err(truncated);
        }
    }
    Ok(())
}

fn read_icmp(start: &[u8], headers: &mut Headers) {
    headers.icmp_type = start[0];
    headers.icmp_code = start[1];
    let identifier = u16::from_be_bytes([start[4], start[5]]);
    match headers.icmp_kind() {
        Some(IcmpKind::Request) => {
            headers.tuple.source_port = identifier;
            headers.tuple.destination_port = headers.icmp_type as u16;
        }
        Some(IcmpKind::Reply) => {
            headers.tuple.source_port = request_type(headers.icmp_type) as u16;
            headers.tuple.destination_port = identifier;
        }
        _ => {}
    }
}

/// The type of the request to which a reply of this type belongs.
const fn request_type(reply_type: u8) -> u8 {
    match reply_type {
        0 => 8,
        // The ICMP types of replies follow those of their requests, except for echo.
        other => other - 1,
    }
}

fn read_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u16::from_be_bytes(*chunk))
}

fn read_u128(bytes: &[u8], offset: usize) -> Option<u128> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u128::from_be_bytes(*chunk))
}
