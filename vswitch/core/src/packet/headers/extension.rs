//! Headers between the IP header and the transport header.

use crate::config::limits::IPV6_EXTENSION_HEADERS_MAX;
use crate::packet::headers::fragment::{PartOfPacket, Trust};
use crate::packet::headers::{Fragment, Headers};
use crate::packet::verdict::DropReason;

/// The authentication header (RFC 4302), of either address family.
const AUTHENTICATION: u8 = 51;

/// Whether IPv4 options include a loose or strict source route (RFC 791 §3.1). Malformed options end the search.
pub(super) fn has_source_route(mut options: &[u8]) -> bool {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE: u8 = 131;
    const STRICT: u8 = 137;
    loop {
        options = match *options {
            [LOOSE | STRICT, ..] => return true,
            [NO_OPERATION, ref rest @ ..] => rest,
            [kind, length, ..] if kind != END && length >= 2 => match options.get(usize::from(length)..) {
                Some(rest) => rest,
                None => return false,
            },
            _ => return false,
        }
    }
}

/// Skips an authentication header after an IPv4 header: the packet that it authenticates is evaluated like any other.
pub(super) fn authentication_header(packet: &[u8], headers: &mut Headers) -> Result<(), DropReason> {
    if headers.tuple.protocol != AUTHENTICATION || headers.fragment == Fragment::Later {
        return Ok(());
    }
    let offset = headers.transport_offset as usize;
    let [next, length, ..] = *packet.get(offset..).unwrap_or_default() else { return Err(DropReason::Ipv4Malformed) };
    // Lengths are in words of four bytes, minus two (RFC 4302 §2.2).
    let behind = offset + (usize::from(length) + 2) * 4;
    // Nobody sends one inside another, and the second would hide what follows.
    if next == AUTHENTICATION || behind > packet.len() {
        return Err(DropReason::Ipv4Malformed);
    }
    headers.tuple.protocol = next;
    headers.transport_offset = behind as u32;
    Ok(())
}

/// Walks from the fixed header to the transport header (RFC 8200 §4) and records protocol and offset of the latter.
/// Stops at a later fragment, which has no header.
pub(super) fn extension_headers(packet: &[u8], headers: &mut Headers, trust: Trust) -> Result<(), DropReason> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    let mut next = headers.tuple.protocol;
    let mut offset = headers.transport_offset as usize;
    let (first, mut has_fragment_header) = (offset, false);
    // Without a bound, a packet full of tiny headers would cost as much as many packets.
    for _ in 0..=IPV6_EXTENSION_HEADERS_MAX {
        // Destination options, mobility, HIP and shim6 have the form of hop-by-hop options (RFC 6564).
        if !matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | 60 | 135 | 139 | 140) {
            headers.tuple.protocol = next;
            headers.transport_offset = offset as u32;
            return Ok(());
        }
        let header: &[u8; 8] =
            packet.get(offset..).and_then(|rest| rest.first_chunk()).ok_or(DropReason::Ipv6Malformed)?;
        let length_bytes = match next {
            FRAGMENT => 8,
            AUTHENTICATION => (header[1] as usize + 2) * 4,
            _ => (header[1] as usize + 1) * 8,
        };
        // RFC 8200 §4.1: hop-by-hop options come first or not at all. RFC 5095: routing type 0 must not be followed.
        let is_misplaced = next == HOP_BY_HOP && offset != first;
        // With no segments left there is nothing to follow, and such a header is harmless (RFC 8200 §4.4).
        let is_source_route = next == ROUTING && header[2] == 0 && header[3] != 0;
        // A packet is fragmented once (RFC 8200 §4.5): a second fragment header would overwrite what the first one
        // says.
        let is_cut_twice = next == FRAGMENT && has_fragment_header;
        if is_misplaced || is_source_route || is_cut_twice {
            return Err(DropReason::Ipv6Malformed);
        }
        if next == FRAGMENT {
            has_fragment_header = true;
            let offset_and_more = u16::from_be_bytes([header[2], header[3]]);
            let offset_bytes = (offset_and_more & 0xfff8) as usize;
            let payload_bytes = packet.len().saturating_sub(offset + length_bytes);
            let part =
                PartOfPacket { start: offset_bytes, end: offset_bytes + payload_bytes, more: offset_and_more & 1 == 1 };
            headers.fragment = part.classify(header[0], trust)?;
            headers.part = part.kept();
            headers.fragment_id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        }
        next = header[0];
        offset += length_bytes;
        // Checked at each step, so that no header is read from behind the packet.
        if offset > packet.len() {
            return Err(DropReason::Ipv6Malformed);
        }
        if headers.fragment == Fragment::Later {
            headers.tuple.protocol = next;
            headers.transport_offset = offset as u32;
            return Ok(());
        }
    }
    Err(DropReason::Ipv6ExtensionsTooMany)
}
