//! ICMP of both families: replies to pings, and reports about packets that are not forwarded.

use super::reply::{NETWORK, router_addresses, set_ipv4_ttl, to_sender, write};
use crate::packet::headers::{Addresses, Fragment, Headers, IcmpKind};
use crate::packet::offload::{Offload, Segmentation};
use crate::packet::verdict::{DropReason, Verdict};
use crate::packet::{FrameBuffer, Packet, checksum};
use crate::policy::eni_context::EniContext;
use core::net::Ipv4Addr;
use etherparse::{Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber, Ipv4Header, Ipv6Header};

/// The time to live of what the router sends itself.
pub(super) const HOP_LIMIT: u8 = 64;

/// Whether a packet is an echo request that is answered.
pub(super) fn is_ping(headers: &Headers) -> bool {
    headers.icmp_kind() == Some(IcmpKind::Request)
        && matches!(headers.icmp_type, 8 | 128)
        && headers.fragment == Fragment::Whole
}

/// Settles an echo request.
pub(super) fn answer_ping(context: &EniContext<'_>, packet: &mut Packet) -> Verdict {
    match echo(&packet.headers, &mut packet.buffer) {
        Some(()) => to_sender(context, packet.buffer.frame_mut()),
        None => Verdict::Drop(DropReason::GatewayUnserved),
    }
}

/// RFC 792, RFC 4443 §4.2: the reply is the request with its sides changed, one type number away, so its checksum
/// follows from the request's.
fn echo(headers: &Headers, buffer: &mut FrameBuffer) -> Option<()> {
    let icmp_at = headers.transport_offset as usize;
    let frame = buffer.frame_mut();
    let reply_type: u8 = match headers.tuple.addresses {
        Addresses::V4 { .. } => {
            let header = frame.get_mut(NETWORK..)?;
            swap_ranges(header.get_mut(12..20)?, 4);
            set_ipv4_ttl(header, HOP_LIMIT)?;
            0
        }
        Addresses::V6 { .. } => {
            let header = frame.get_mut(NETWORK..)?;
            swap_ranges(header.get_mut(8..40)?, 16);
            header[7] = HOP_LIMIT;
            129
        }
    };
    let icmp = frame.get_mut(icmp_at..)?;
    let checksum: [u8; 2] = [*icmp.get(2)?, *icmp.get(3)?];
    let updated = checksum::update(checksum, [icmp[0], icmp[1]], [reply_type, icmp[1]]);
    icmp[0] = reply_type;
    icmp[2..4].copy_from_slice(&updated);
    Some(())
}

fn swap_ranges(bytes: &mut [u8], half: usize) {
    let (left, right) = bytes.split_at_mut(half);
    left.swap_with_slice(right);
}

fn write_icmpv4(
    buffer: &mut FrameBuffer,
    kind: Icmpv4Type,
    (source, destination): ([u8; 4], [u8; 4]),
    payload: &[u8],
) -> Option<()> {
    let icmp = Icmpv4Header::with_checksum(kind, payload);
    let payload_bytes = (icmp.header_len() + payload.len()).try_into().ok()?;
    let mut ip = Ipv4Header::new(payload_bytes, HOP_LIMIT, IpNumber::ICMP, source, destination).ok()?;
    ip.header_checksum = ip.calc_header_checksum();
    write(buffer, &[&ip.to_bytes(), &icmp.to_bytes(), payload])
}

/// Writes an ICMPv6 packet behind the Ethernet header, which stays.
pub(super) fn write_icmpv6(
    buffer: &mut FrameBuffer,
    kind: Icmpv6Type,
    (source, destination): ([u8; 16], [u8; 16]),
    (payload, hop_limit): (&[u8], u8),
) -> Option<()> {
    let icmp = Icmpv6Header::with_checksum(kind, source, destination, payload).ok()?;
    let ip = Ipv6Header {
        traffic_class: 0,
        flow_label: etherparse::Ipv6FlowLabel::ZERO,
        payload_length: (icmp.header_len() + payload.len()).try_into().ok()?,
        next_header: IpNumber::IPV6_ICMP,
        hop_limit,
        source,
        destination,
    };
    write(buffer, &[&ip.to_bytes(), &icmp.to_bytes(), payload])
}

/// Whether a packet is longer than a port with this MTU can carry.
#[inline]
pub(crate) fn is_too_big(packet: &Packet, mtu_bytes: u16) -> bool {
    let packet_bytes = match packet.offload.segmentation {
        Segmentation::None => packet.headers.end as usize,
        _ => packet.longest_frame_bytes(),
    };
    packet_bytes > NETWORK + usize::from(mtu_bytes)
}

/// Turns a packet that its receiver's port cannot carry, and that must not be fragmented, into the report that says so
/// (RFC 1191, RFC 8201). What may be fragmented goes on, and ends at the port.
#[cold]
pub(crate) fn refuse_too_big(context: &EniContext<'_>, packet: &mut Packet, mtu_bytes: u16) -> Option<Verdict> {
    const DONT_FRAGMENT: u8 = 0x40;
    let is_ipv4 = matches!(packet.headers.tuple.addresses, Addresses::V4 { .. });
    if is_ipv4 && packet.buffer.frame().get(NETWORK + 6)? & DONT_FRAGMENT == 0 {
        return None;
    }
    let needed = etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu_bytes };
    let report = IcmpError {
        v4: Icmpv4Type::DestinationUnreachable(needed),
        v6: Icmpv6Type::PacketTooBig { mtu: mtu_bytes.into() },
    };
    report.instead_of(context, packet)
}

/// What the router tells the sender of a packet that it does not forward.
pub(super) struct IcmpError {
    pub(super) v4: Icmpv4Type,
    pub(super) v6: Icmpv6Type,
}

impl IcmpError {
    /// Writes the report over the packet. None, and the packet stays, where there must be no report or no address to
    /// send it from.
    pub(super) fn instead_of(self, context: &EniContext<'_>, packet: &mut Packet) -> Option<Verdict> {
        const QUOTE_BYTES: usize = 128;
        let headers = packet.headers;
        // RFC 1812 §4.3.2.7: no error about an error, or about a later fragment.
        if headers.icmp_kind() == Some(IcmpKind::Error) || headers.fragment == Fragment::Later {
            return None;
        }
        let (ipv4, ipv6) = router_addresses(context);
        let quoted = packet.buffer.frame().get(NETWORK..headers.end as usize)?;
        let mut quote = [0; QUOTE_BYTES];
        let length = quoted.len().min(QUOTE_BYTES);
        quote[..length].copy_from_slice(&quoted[..length]);
        let quote = &quote[..length];
        match headers.tuple.addresses {
            Addresses::V4 { source, .. } => {
                let ends = (ipv4?.octets(), Ipv4Addr::from_bits(source).octets());
                write_icmpv4(&mut packet.buffer, self.v4, ends, quote)?;
            }
            Addresses::V6 { source, .. } => {
                let ends = (ipv6?.octets(), source.to_be_bytes());
                write_icmpv6(&mut packet.buffer, self.v6, ends, (quote, HOP_LIMIT))?;
            }
        }
        // The reply is whole, whatever was left undone in the packet that asked for it.
        packet.offload = Offload::NONE;
        Some(to_sender(context, packet.buffer.frame_mut()))
    }
}
