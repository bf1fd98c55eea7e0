//! The parser for what nearly all frames are: unfragmented TCP or UDP, without IP options or extension headers. Any
//! other frame, and any malformed one, is left to [`parse`](crate::packet::headers::parse::parse).

use crate::config::limits::{ETHERNET_HEADER_BYTES, FRAME_BYTES_MAX};
use crate::config::services::{METADATA_V4, METADATA_V6};
use crate::packet::headers::{Addresses, Fragment, Headers, Network, Part, Segment, Tuple, protocol};

const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const UDP_BYTES: usize = 8;
const TCP_BYTES: usize = 20;
const TRANSPORT_V4: usize = ETHERNET_HEADER_BYTES + IPV4_BYTES;
const TRANSPORT_V6: usize = ETHERNET_HEADER_BYTES + IPV6_BYTES;

/// The header fields of a plain frame, with addresses of one family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain<A> {
    /// Source and destination address.
    pub(crate) addresses: [A; 2],
    /// Source port in the upper half, destination port in the lower half.
    pub(crate) ports: u32,
    pub(crate) protocol: u8,
    /// TCP fields; all zero for UDP.
    pub(crate) segment: Segment,
    /// Where the packet ends in the frame.
    pub(crate) end: u32,
}

impl<A> Plain<A> {
    /// The five-tuple; `addresses` are those of the frame.
    #[inline(always)]
    pub(crate) const fn tuple(&self, addresses: Addresses) -> Tuple {
        let (source_port, destination_port) = ((self.ports >> 16) as u16, self.ports as u16);
        Tuple { addresses, protocol: self.protocol, source_port, destination_port }
    }
}

/// The address family of a frame, by its Ethernet header.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Family {
    V4,
    V6,
}

/// The family; `None` if the frame is neither IPv4 nor IPv6.
#[inline(always)]
pub(crate) fn family(frame: &[u8]) -> Option<Family> {
    match u16::from_le_bytes(*frame.get(12..14)?.first_chunk()?).to_be() {
        0x0800 => Some(Family::V4),
        0x86dd => Some(Family::V6),
        _ => None,
    }
}

/// Source and destination of an IPv4 frame, as raw words.
#[inline(always)]
pub(crate) fn ends_v4(frame: &[u8]) -> Option<[u64; 1]> {
    let ends = frame.get(ETHERNET_HEADER_BYTES + 12..)?.first_chunk()?;
    Some([u64::from_ne_bytes(*ends)])
}

/// Source and destination of an IPv6 frame, as raw words.
#[inline(always)]
pub(crate) fn ends_v6(frame: &[u8]) -> Option<[u64; 4]> {
    let (ends, _) = frame.get(ETHERNET_HEADER_BYTES + 8..)?.first_chunk::<32>()?.as_chunks();
    Some([ends[0], ends[1], ends[2], ends[3]].map(u64::from_ne_bytes))
}

/// Parses an IPv4 frame of `frame_bytes`, all or the beginning of which is `frame`; `None` if it is not plain. The result may be addressed to the metadata service, or exceed the
/// longest frame that is forwarded.
#[inline(always)]
pub(crate) fn read_v4(frame: &[u8], frame_bytes: usize) -> Option<Plain<u32>> {
    const FRAGMENT_BITS: u16 = 0x3fff;
    let start: &[u8; TRANSPORT_V4 + UDP_BYTES] = frame.first_chunk()?;
    let header: &[u8; IPV4_BYTES] = start[ETHERNET_HEADER_BYTES..].first_chunk()?;
    let packet_bytes = u16::from_be_bytes([header[2], header[3]]) as usize;
    let is_fragment = u16::from_be_bytes([header[6], header[7]]) & FRAGMENT_BITS != 0;
    let end = ETHERNET_HEADER_BYTES + packet_bytes;
    // Header length five and version four in one comparison: any option leads to the full parser.
    if header[0] != 0x45 || is_fragment || end > frame_bytes {
        return None;
    }
    let source = u32::from_be_bytes([header[12], header[13], header[14], header[15]]);
    let destination = u32::from_be_bytes([header[16], header[17], header[18], header[19]]);
    let ports: &[u8; UDP_BYTES] = start[TRANSPORT_V4..].first_chunk()?;
    let tcp = || frame[TRANSPORT_V4..].first_chunk();
    let segment = transport(header[9], ports, (IPV4_BYTES, packet_bytes), tcp)?;
    Some(Plain {
        addresses: [source, destination],
        ports: u32::from_be_bytes([ports[0], ports[1], ports[2], ports[3]]),
        protocol: header[9],
        segment,
        end: end as u32,
    })
}

/// Parses an IPv6 frame of `frame_bytes`, all or the beginning of which is `frame`; `None` if it is not plain. The result may exceed the longest frame that is forwarded.
#[inline(always)]
pub(crate) fn read_v6(frame: &[u8], frame_bytes: usize) -> Option<Plain<u128>> {
    let start: &[u8; TRANSPORT_V6 + UDP_BYTES] = frame.first_chunk()?;
    let header: &[u8; IPV6_BYTES] = start[ETHERNET_HEADER_BYTES..].first_chunk()?;
    let transport_bytes = u16::from_be_bytes([header[4], header[5]]) as usize;
    let end = TRANSPORT_V6 + transport_bytes;
    if header[0] >> 4 != 6 || end > frame_bytes {
        return None;
    }
    let source = u128::from_be_bytes(*header[8..].first_chunk()?);
    let destination = u128::from_be_bytes(*header[24..].first_chunk()?);
    let ports: &[u8; UDP_BYTES] = start[TRANSPORT_V6..].first_chunk()?;
    let segment = transport(header[6], ports, (0, transport_bytes), || frame[TRANSPORT_V6..].first_chunk())?;
    Some(Plain {
        addresses: [source, destination],
        ports: u32::from_be_bytes([ports[0], ports[1], ports[2], ports[3]]),
        protocol: header[6],
        segment,
        end: end as u32,
    })
}

/// Where the transport header of a plain frame is.
#[inline(always)]
pub(crate) const fn transport_offset(family: Family) -> usize {
    match family {
        Family::V4 => TRANSPORT_V4,
        Family::V6 => TRANSPORT_V6,
    }
}

/// The bytes of a plain frame from its transport header on.
#[inline]
pub(crate) fn transport_of(frame: &[u8]) -> Option<&[u8]> {
    frame.get(transport_offset(family(frame)?)..)
}

/// Parses a plain frame into `headers`. `None` if the frame is not plain; then `headers` mean nothing.
#[inline]
pub(crate) fn read(frame: &[u8], headers: &mut Headers) -> Option<()> {
    // Longer frames are left to the full parser, which names the reason.
    if frame.len() > FRAME_BYTES_MAX {
        return None;
    }
    match family(frame)? {
        Family::V4 => {
            let plain = read_v4(frame, frame.len())?;
            let [source, destination] = plain.addresses;
            // The metadata service is exempt from rules, which a plain packet is not.
            if destination == METADATA_V4.to_bits() {
                return None;
            }
            *headers = headers_of(&plain, Addresses::V4 { source, destination });
            headers.fragment_id = u16::from_be_bytes([frame[18], frame[19]]) as u32;
            headers.hop_limit = frame[22];
            headers.transport_offset = TRANSPORT_V4 as u32;
        }
        Family::V6 => {
            let plain = read_v6(frame, frame.len())?;
            let [source, destination] = plain.addresses;
            if destination == METADATA_V6.to_bits() {
                return None;
            }
            *headers = headers_of(&plain, Addresses::V6 { source, destination });
            headers.hop_limit = frame[21];
            headers.transport_offset = TRANSPORT_V6 as u32;
        }
    }
    Some(())
}

#[inline(always)]
const fn headers_of<A>(plain: &Plain<A>, addresses: Addresses) -> Headers {
    Headers {
        network: Network::Ip,
        tuple: plain.tuple(addresses),
        fragment: Fragment::Whole,
        fragment_id: 0,
        part: Part::NONE,
        hop_limit: 0,
        tcp_flags: plain.segment.flags,
        sequence: plain.segment.sequence,
        acknowledgment: plain.segment.acknowledgment,
        icmp_type: 0,
        icmp_code: 0,
        has_source_route: false,
        transport_offset: 0,
        end: plain.end,
        is_plain: true,
    }
}

/// Reads a transport header that begins with `ports`, at offset `before` of `total` bytes. `None` if it is neither TCP
/// nor UDP, is incomplete, or belongs to DHCP.
#[inline(always)]
fn transport<'a>(
    number: u8,
    ports: &[u8; UDP_BYTES],
    (before, total): (usize, usize),
    tcp: impl Fn() -> Option<&'a [u8; TCP_BYTES]>,
) -> Option<Segment> {
    match number {
        protocol::TCP => {
            let header = tcp()?;
            let header_bytes = (header[12] >> 4) as usize * 4;
            let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            let acknowledgment = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
            // The header has to fit into the packet, not only into the frame: padding may follow.
            let is_sound = TCP_BYTES <= header_bytes && before + header_bytes <= total;
            is_sound.then_some(Segment { sequence, acknowledgment, flags: header[13] })
        }
        protocol::UDP => {
            let length_bytes = u16::from_be_bytes([ports[4], ports[5]]) as usize;
            let is_sound = UDP_BYTES <= length_bytes && before + length_bytes <= total;
            let [source, destination] = [[ports[0], ports[1]], [ports[2], ports[3]]].map(u16::from_be_bytes);
            // DHCP is exempt from rules and answered by the switch, which a plain packet is not.
            (is_sound && !is_dhcp(source) && !is_dhcp(destination)).then_some(Segment::default())
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
    use crate::packet::headers::parse::parse;
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

    /// Whatever it reads from a frame, the full parser reads the same: for frames with up to three bytes changed.
    #[test]
    fn agrees_with_the_whole_parser() {
        let mut random = 1u64;
        let mut next = move |bound: usize| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) as usize % bound
        };
        let mut plain = 0;
        let steps = if cfg!(miri) { 1000 } else { 200_000 };
        for step in 0..steps {
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
        assert!(plain > steps / 4, "only {plain} frames were plain");
    }
}
