//! Rewrites one end of an IPv4 packet, or of the packet that an ICMP error quotes, and mends every checksum that covers it
//! (RFC 1624, RFC 5508 §4). What a checksum said before stays true or false: nothing is summed anew.

use crate::config::limits::ETHERNET_HEADER_BYTES;
use crate::nat::table::NatEnd;
use crate::packet::Packet;
use crate::packet::checksum::never_zero;
use crate::packet::headers::fast_parse::Family;
use crate::packet::headers::{Addresses, Fragment, ICMP_HEADER_BYTES, IcmpKind, Network, parse, protocol};

/// Which end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TranslatedEnd {
    /// Its sender's.
    Source,
    /// Its receiver's.
    Destination,
}

impl TranslatedEnd {
    /// Where the address is in an IPv4 header.
    const fn address_at(self) -> usize {
        match self {
            Self::Source => 12,
            Self::Destination => 16,
        }
    }

    /// Where the port is in a header of TCP or UDP.
    const fn port_at(self) -> usize {
        match self {
            Self::Source => 0,
            Self::Destination => 2,
        }
    }
}

const IPV4_BYTES: usize = 20;
const IPV4_CHECKSUM_AT: usize = 10;
const ICMP_CHECKSUM_AT: usize = 2;
const ICMP_IDENTIFIER_AT: usize = 4;

/// How much a sum of 16-bit words changed.
#[derive(Clone, Copy, Default)]
struct Change(u32);

impl Change {
    /// Writes words of which each is at an even place of what is summed.
    fn write<const N: usize>(&mut self, bytes: &mut [u8], at: usize, new: [u8; N]) -> Option<()> {
        let old: &mut [u8; N] = bytes.get_mut(at..)?.first_chunk_mut()?;
        for (old, new) in old.as_chunks::<2>().0.iter().zip(new.as_chunks::<2>().0) {
            self.0 += u32::from(!u16::from_be_bytes(*old)) + u32::from(u16::from_be_bytes(*new));
        }
        *old = new;
        Some(())
    }

    fn fold(sum: u32) -> u16 {
        let sum = (sum & 0xffff) + (sum >> 16);
        ((sum & 0xffff) + (sum >> 16)) as u16
    }

    /// The checksum after the change.
    fn of_checksum(self, checksum: [u8; 2]) -> u16 {
        !Self::fold(u32::from(!u16::from_be_bytes(checksum)) + self.0)
    }

    /// The sum after the change, where the field has one that is not complemented.
    fn of_sum(self, sum: [u8; 2]) -> u16 {
        Self::fold(u32::from(u16::from_be_bytes(sum)) + self.0)
    }
}

/// A checksum of a transport header.
fn field(bytes: &[u8], at: usize) -> Option<[u8; 2]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// Where the checksum of a transport header is that covers the addresses too.
const fn checksum_at(number: u8) -> Option<usize> {
    match number {
        protocol::TCP => Some(16),
        protocol::UDP => Some(6),
        _ => None,
    }
}

/// Rewrites an end of a packet, in the frame and in what was parsed of it. Without a port the port stays.
///
/// None, and the packet may be half rewritten, if it is not what its headers say; it has to be dropped then.
#[inline]
pub(crate) fn rewrite(packet: &mut Packet, end: TranslatedEnd, to: NatEnd) -> Option<()> {
    let headers = packet.headers;
    let Addresses::V4 { source, destination } = headers.tuple.addresses else { return None };
    let is_sum_undone = packet.offload.checksum.is_some();
    let frame = packet.buffer.frame_mut();
    let ip = frame.get_mut(ETHERNET_HEADER_BYTES..)?;
    let mut change = Change::default();
    change.write(ip, end.address_at(), to.address.to_be_bytes())?;
    let checksum = change.of_checksum(field(ip, IPV4_CHECKSUM_AT)?);
    ip[IPV4_CHECKSUM_AT..IPV4_CHECKSUM_AT + 2].copy_from_slice(&checksum.to_be_bytes());
    let tuple = &mut packet.headers.tuple;
    tuple.addresses = match end {
        TranslatedEnd::Source => Addresses::V4 { source: to.address, destination },
        TranslatedEnd::Destination => Addresses::V4 { source, destination: to.address },
    };
    if headers.fragment == Fragment::Later {
        return Some(());
    }
    let transport = frame.get_mut(headers.transport_offset as usize..headers.end as usize)?;
    if let Some(at) = checksum_at(tuple.protocol) {
        let mut with_port = change;
        if let Some(port) = to.port {
            with_port.write(transport, end.port_at(), port.to_be_bytes())?;
        }
        let old = field(transport, at)?;
        let new = match (is_sum_undone, tuple.protocol) {
            // Whoever completes it sums the ports as well.
            (true, _) => change.of_sum(old),
            // Zero stands for none (RFC 768).
            (false, protocol::UDP) if old == [0; 2] => 0,
            (false, protocol::UDP) => never_zero(with_port.of_checksum(old)),
            (false, _) => with_port.of_checksum(old),
        };
        transport[at..at + 2].copy_from_slice(&new.to_be_bytes());
    } else if let Some(port) = to.port.filter(|_| is_query(headers.icmp_kind())) {
        let mut identifier = Change::default();
        identifier.write(transport, ICMP_IDENTIFIER_AT, port.to_be_bytes())?;
        let new = identifier.of_checksum(field(transport, ICMP_CHECKSUM_AT)?);
        transport[ICMP_CHECKSUM_AT..ICMP_CHECKSUM_AT + 2].copy_from_slice(&new.to_be_bytes());
    }
    if let Some(port) = to.port {
        match end {
            TranslatedEnd::Source => tuple.source_port = port,
            TranslatedEnd::Destination => tuple.destination_port = port,
        }
    }
    Some(())
}

/// Whether a plain frame may take another hop.
#[inline(always)]
pub(crate) fn has_hops_left(frame: &[u8], family: Family) -> bool {
    let at = match family {
        Family::V4 => ETHERNET_HEADER_BYTES + 8,
        Family::V6 => ETHERNET_HEADER_BYTES + 7,
    };
    frame.get(at).is_some_and(|hop_limit| *hop_limit > 1)
}

/// Takes one hop from a plain packet (`fast_parse`), and rewrites an end of it unless it is IPv6
/// or `to` is none.
///
/// None if it is no such packet, or [has no hop left](has_hops_left).
#[inline(always)]
pub(crate) fn rewrite_plain(packet: &mut Packet, family: Family, end: TranslatedEnd, to: Option<NatEnd>) -> Option<()> {
    let is_sum_undone = packet.offload.checksum.is_some();
    let packet = packet.buffer.frame_mut().get_mut(ETHERNET_HEADER_BYTES..)?;
    match family {
        Family::V4 => {
            let (ip, transport) = packet.split_first_chunk_mut::<IPV4_BYTES>()?;
            let [hop_limit, number] = [ip[8], ip[9]];
            ip[8] = hop_limit.checked_sub(1)?;
            // The hop limit is the upper half of its word.
            let mut of_header = u64::from(!0x0100_u16);
            if let Some(to) = to {
                let at = end.address_at();
                let old = u32::from_be_bytes([ip[at], ip[at + 1], ip[at + 2], ip[at + 3]]);
                ip[at..at + 4].copy_from_slice(&to.address.to_be_bytes());
                let of_address = u64::from(!old) + u64::from(to.address);
                of_header += of_address;
                rewrite_plain_transport(transport, is_sum_undone, number, end, to.port, of_address)?;
            }
            let checksum = of_change([ip[IPV4_CHECKSUM_AT], ip[IPV4_CHECKSUM_AT + 1]], of_header);
            ip[IPV4_CHECKSUM_AT..IPV4_CHECKSUM_AT + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        Family::V6 => {
            let hop_limit = packet.get_mut(7)?;
            *hop_limit = hop_limit.checked_sub(1)?;
        }
    }
    Some(())
}

#[inline(always)]
fn rewrite_plain_transport(
    transport: &mut [u8],
    is_sum_undone: bool,
    number: u8,
    end: TranslatedEnd,
    port: Option<u16>,
    of_address: u64,
) -> Option<()> {
    const UDP_BYTES: usize = 8;
    let (ports, rest) = transport.split_first_chunk_mut::<UDP_BYTES>()?;
    let mut change = of_address;
    if let Some(port) = port {
        let at = end.port_at();
        change += u64::from(!u16::from_be_bytes([ports[at], ports[at + 1]])) + u64::from(port);
        ports[at..at + 2].copy_from_slice(&port.to_be_bytes());
    }
    let field: &mut [u8; 2] = match number {
        protocol::UDP => ports[6..].first_chunk_mut()?,
        _ => rest.get_mut(16 - UDP_BYTES..)?.first_chunk_mut()?,
    };
    let old = *field;
    let new = match number {
        // The field has a sum that is not complemented, and whoever completes it sums the ports as well.
        _ if is_sum_undone => !of_change(old.map(|byte| !byte), of_address),
        // Zero stands for none (RFC 768).
        protocol::UDP if old == [0; 2] => return Some(()),
        protocol::UDP => never_zero(of_change(old, change)),
        _ => of_change(old, change),
    };
    *field = new.to_be_bytes();
    Some(())
}

/// A checksum after a change: the sum of the complements of what was there and of what is there now, in words of 16 bits or
/// more (RFC 1624; 2^16 is 1 in this arithmetic).
#[inline(always)]
fn of_change(checksum: [u8; 2], change: u64) -> u16 {
    let sum = u64::from(!u16::from_be_bytes(checksum)) + change;
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

/// Whether an ICMP message has an identifier: a query or a reply to one.
fn is_query(kind: Option<IcmpKind>) -> bool {
    matches!(kind, Some(IcmpKind::Request | IcmpKind::Reply))
}

/// Rewrites an end of the packet that an ICMP error quotes (RFC 5508 §4.2): its addresses, its ports as far as they are
/// quoted, its checksums as far as they are, and the checksum of the error.
///
/// None, and the packet may be half rewritten, if it quotes none.
#[cold]
pub(crate) fn rewrite_quoted(packet: &mut Packet, end: TranslatedEnd, to: NatEnd) -> Option<()> {
    let headers = packet.headers;
    let quoted = parse::quoted(packet.buffer.frame(), &headers)?;
    if quoted.network != Network::Ip || !matches!(quoted.tuple.addresses, Addresses::V4 { .. }) {
        return None;
    }
    let frame = packet.buffer.frame_mut();
    let icmp = frame.get_mut(headers.transport_offset as usize..headers.end as usize)?;
    let (icmp, quote) = icmp.split_at_mut_checked(ICMP_HEADER_BYTES)?;
    // What the checksum of the error covers, and what those of the quoted headers do.
    let (mut all, mut address) = (Change::default(), Change::default());
    address.write(quote, end.address_at(), to.address.to_be_bytes())?;
    all.0 += address.0;
    let checksum = address.of_checksum(field(quote, IPV4_CHECKSUM_AT)?);
    all.write(quote, IPV4_CHECKSUM_AT, checksum.to_be_bytes())?;
    if quoted.fragment != Fragment::Later {
        let transport = quote.get_mut(quoted.transport_offset as usize..)?;
        let mut changed = Change::default();
        let (at, port_at) = match checksum_at(quoted.tuple.protocol) {
            Some(at) => (at, end.port_at()),
            None => (ICMP_CHECKSUM_AT, ICMP_IDENTIFIER_AT),
        };
        if checksum_at(quoted.tuple.protocol).is_some() {
            changed.0 += address.0;
        }
        let has_port = checksum_at(quoted.tuple.protocol).is_some() || is_query(quoted.icmp_kind());
        if let Some(port) = to.port.filter(|_| has_port) {
            let mut ports = Change::default();
            ports.write(transport, port_at, port.to_be_bytes())?;
            (changed.0, all.0) = (changed.0 + ports.0, all.0 + ports.0);
        }
        let is_summed = |old: &[u8; 2]| has_port && !(quoted.tuple.protocol == protocol::UDP && *old == [0; 2]);
        // A quote may end before the checksum.
        if let Some(old) = field(transport, at).filter(is_summed) {
            all.write(transport, at, changed.of_checksum(old).to_be_bytes())?;
        }
    }
    let checksum = all.of_checksum(field(icmp, ICMP_CHECKSUM_AT)?);
    icmp[ICMP_CHECKSUM_AT..ICMP_CHECKSUM_AT + 2].copy_from_slice(&checksum.to_be_bytes());
    Some(())
}
