//! What nearly all frames are: TCP or UDP, whole, without IP options or extension headers. Read in one go; for any other
//! frame, and any that is not as it should be, [`parse`](super::parse) says what it is.

use super::{Addresses, Fragment, Headers, METADATA_SERVICE, Network, Tuple, protocol};
use crate::limits::{ETHERNET_HEADER_BYTES, FRAME_BYTES_MAX};

const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const UDP_BYTES: usize = 8;
const TCP_BYTES: usize = 20;
/// The shortest frame with headers of each family.
const FRAME_V4_BYTES_MIN: usize = ETHERNET_HEADER_BYTES + IPV4_BYTES + UDP_BYTES;
const FRAME_V6_BYTES_MIN: usize = ETHERNET_HEADER_BYTES + IPV6_BYTES + UDP_BYTES;

/// None where the frame is not plain; then nothing is said of it.
#[inline(always)]
pub(crate) fn read(frame: &[u8], headers: &mut Headers) -> Option<()> {
    let start: &[u8; FRAME_V4_BYTES_MIN] = frame.first_chunk()?;
    match [start[12], start[13]] {
        [0x08, 0x00] => read_v4(frame, start, headers),
        [0x86, 0xdd] => read_v6(frame, headers),
        _ => None,
    }
}

#[inline(always)]
fn read_v4(frame: &[u8], start: &[u8; FRAME_V4_BYTES_MIN], headers: &mut Headers) -> Option<()> {
    const FRAGMENT_BITS: u16 = 0x3fff;
    const AT: usize = ETHERNET_HEADER_BYTES + IPV4_BYTES;
    let header: &[u8; IPV4_BYTES] = start[ETHERNET_HEADER_BYTES..].first_chunk()?;
    let end = ETHERNET_HEADER_BYTES + u16::from_be_bytes([header[2], header[3]]) as usize;
    let is_fragment = u16::from_be_bytes([header[6], header[7]]) & FRAGMENT_BITS != 0;
    if header[0] != 0x45 || is_fragment || end > frame.len() || frame.len() > FRAME_BYTES_MAX {
        return None;
    }
    let source = u32::from_be_bytes([header[12], header[13], header[14], header[15]]);
    let destination = u32::from_be_bytes([header[16], header[17], header[18], header[19]]);
    let ports: &[u8; UDP_BYTES] = start[AT..].first_chunk()?;
    let transport_bytes = end.checked_sub(AT)?;
    let (tcp_flags, sequence, acknowledgment) =
        transport(header[9], ports, transport_bytes, || frame[AT..].first_chunk())?;
    headers.network = Network::Ip;
    headers.tuple = Tuple {
        addresses: Addresses::V4 { source, destination },
        protocol: header[9],
        source_port: u16::from_be_bytes([ports[0], ports[1]]),
        destination_port: u16::from_be_bytes([ports[2], ports[3]]),
    };
    headers.fragment = Fragment::Whole;
    headers.fragment_id = u16::from_be_bytes([header[4], header[5]]) as u32;
    headers.hop_limit = header[8];
    headers.tcp_flags = tcp_flags;
    headers.sequence = sequence;
    headers.acknowledgment = acknowledgment;
    headers.icmp_type = 0;
    headers.icmp_code = 0;
    headers.transport_offset = AT as u32;
    headers.end = end as u32;
    headers.is_plain = true;
    (destination != METADATA_SERVICE).then_some(())
}

#[inline(always)]
fn read_v6(frame: &[u8], headers: &mut Headers) -> Option<()> {
    const AT: usize = ETHERNET_HEADER_BYTES + IPV6_BYTES;
    let start: &[u8; FRAME_V6_BYTES_MIN] = frame.first_chunk()?;
    let header: &[u8; IPV6_BYTES] = start[ETHERNET_HEADER_BYTES..].first_chunk()?;
    let transport_bytes = u16::from_be_bytes([header[4], header[5]]) as usize;
    let end = AT + transport_bytes;
    if header[0] >> 4 != 6 || end > frame.len() || frame.len() > FRAME_BYTES_MAX {
        return None;
    }
    let source = u128::from_be_bytes(*header[8..].first_chunk()?);
    let destination = u128::from_be_bytes(*header[24..].first_chunk()?);
    let ports: &[u8; UDP_BYTES] = start[AT..].first_chunk()?;
    let (tcp_flags, sequence, acknowledgment) =
        transport(header[6], ports, transport_bytes, || frame[AT..].first_chunk())?;
    headers.network = Network::Ip;
    headers.tuple = Tuple {
        addresses: Addresses::V6 { source, destination },
        protocol: header[6],
        source_port: u16::from_be_bytes([ports[0], ports[1]]),
        destination_port: u16::from_be_bytes([ports[2], ports[3]]),
    };
    headers.fragment = Fragment::Whole;
    headers.fragment_id = 0;
    headers.hop_limit = header[7];
    headers.tcp_flags = tcp_flags;
    headers.sequence = sequence;
    headers.acknowledgment = acknowledgment;
    headers.icmp_type = 0;
    headers.icmp_code = 0;
    headers.transport_offset = AT as u32;
    headers.end = end as u32;
    headers.is_plain = true;
    Some(())
}

/// The TCP flags and numbers, none for UDP, of a transport header of which the first bytes are `ports`. None where it is neither, not
/// whole, or of DHCP.
#[inline(always)]
fn transport<'a>(
    number: u8,
    ports: &[u8; UDP_BYTES],
    transport_bytes: usize,
    tcp: impl Fn() -> Option<&'a [u8; TCP_BYTES]>,
) -> Option<(u8, u32, u32)> {
    match number {
        protocol::TCP => {
            let header = tcp()?;
            let header_bytes = (header[12] >> 4) as usize * 4;
            let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            let acknowledgment = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
            let is_sound = TCP_BYTES <= header_bytes && header_bytes <= transport_bytes;
            is_sound.then_some((header[13], sequence, acknowledgment))
        }
        protocol::UDP => {
            let length_bytes = u16::from_be_bytes([ports[4], ports[5]]) as usize;
            let is_sound = UDP_BYTES <= length_bytes && length_bytes <= transport_bytes;
            let [source, destination] = [[ports[0], ports[1]], [ports[2], ports[3]]].map(u16::from_be_bytes);
            (is_sound && !is_dhcp(source) && !is_dhcp(destination)).then_some((0, 0, 0))
        }
        _ => None,
    }
}

/// The ports of DHCP (RFC 2131 §4.1) and DHCPv6 (RFC 8415 §7.2).
const fn is_dhcp(port: u16) -> bool {
    matches!(port, 67 | 68 | 546 | 547)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::parse;
    use alloc::vec::Vec;

    fn frame(is_v6: bool, number: u8) -> Vec<u8> {
        let mut frame = alloc::vec![2; 12];
        let payload: &[u8] = if number == protocol::TCP {
            &[0x12, 0x34, 1, 187, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0, 9, 9]
        } else {
            &[0x12, 0x34, 1, 187, 0, 10, 0, 0, 9, 9]
        };
        if is_v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, payload.len() as u8, number, 64]);
            frame.extend([0xfd; 16]);
            frame.extend([0xfe; 16]);
        } else {
            frame.extend([8, 0, 0x45, 0, 0, 20 + payload.len() as u8, 7, 8, 0x40, 0, 64, number, 0, 0]);
            frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        }
        frame.extend(payload);
        frame
    }

    /// Whatever it says of a frame, the whole parser says the same: over frames with up to three bytes changed.
    #[test]
    fn agrees_with_the_whole_parser() {
        let mut random = 1u64;
        let mut next = move |bound: usize| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) as usize % bound
        };
        let mut plain = 0;
        for step in 0..200_000 {
            let mut frame = frame(step % 2 == 0, if step % 4 < 2 { protocol::TCP } else { protocol::UDP });
            for _ in 0..next(4) {
                let place = 12 + next(frame.len() - 12);
                frame[place] = [next(256) as u8, frame[place].wrapping_add(1), 0, 67][next(4)];
            }
            frame.truncate(frame.len() - next(3) * next(2));
            let mut found = Headers::default();
            if read(&frame, &mut found).is_some() {
                plain += 1;
                assert_eq!(parse(&frame).map(|whole| Headers { is_plain: true, ..whole }), Ok(found), "{frame:?}");
            }
        }
        assert!(plain > 50_000, "only {plain} frames were plain");
    }
}
