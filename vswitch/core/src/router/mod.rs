//! The replies that the virtual router makes itself: ARP, neighbour discovery, ping, time exceeded. A reply is written
//! over the packet that asked for it.
//!
//! Guests remember whom the router answers for, and the kernels that they run on have room for so many. So it answers
//! for addresses that there are, and each ENI so many times a second.

use crate::config::limits::{ANSWERS_PER_S, ETHERNET_HEADER_BYTES};
use crate::datapath::counters::EniCounters;
use crate::hw::time::Tick;
use crate::packet::headers::{Addresses, Fragment, Headers, IcmpKind, Network};
use crate::packet::offload::{Offload, Segmentation};
use crate::packet::verdict::{DropReason, Verdict};
use crate::packet::{FrameBuffer, Packet};
use crate::policy::evaluate::Seat;
use crate::tables::route::{Route, is_group_destination};
use core::net::{Ipv4Addr, Ipv6Addr};
use etherparse::{Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber, Ipv4Header, Ipv6Header};

const NETWORK: usize = ETHERNET_HEADER_BYTES;
const HOP_LIMIT: u8 = 64;

/// Settles a packet that is for the router itself, or for nobody; `route` is where its destination is. None if it is to
/// be forwarded.
#[inline]
pub(crate) fn answer(seat: &Seat<'_>, packet: &mut Packet, route: Route) -> Option<Verdict> {
    let is_for_one = packet.buffer.frame().first().is_some_and(|octet| octet & 1 == 0);
    if packet.headers.is_plain && is_for_one && matches!(route, Route::Owner(_)) {
        return None;
    }
    answer_unusual(seat, packet, route)
}

#[inline(never)]
fn answer_unusual(seat: &Seat<'_>, packet: &mut Packet, route: Route) -> Option<Verdict> {
    let headers = packet.headers;
    let drop = |reason| Some(Verdict::Drop(reason));
    if headers.network == Network::Arp {
        return Some(arp(seat, &mut packet.buffer));
    }
    if headers.is_neighbor_discovery() {
        return Some(neighbor(seat, &headers, &mut packet.buffer));
    }
    if headers.is_udp(68, 67) || headers.is_udp(546, 547) {
        return drop(DropReason::DhcpUnserved);
    }
    let to_group_mac = packet.buffer.frame().first().is_some_and(|octet| octet & 1 == 1);
    if to_group_mac || is_group_destination(headers.tuple.addresses) {
        return drop(DropReason::Multicast);
    }
    if route != Route::Gateway {
        return None;
    }
    let is_ping = headers.icmp_kind() == Some(IcmpKind::Request)
        && matches!(headers.icmp_type, 8 | 128)
        && headers.fragment == Fragment::Whole;
    if !is_ping {
        return drop(DropReason::GatewayUnserved);
    }
    Some(match echo(&headers, &mut packet.buffer) {
        Some(()) => to_sender(seat, packet.buffer.frame_mut()),
        None => Verdict::Drop(DropReason::GatewayUnserved),
    })
}

/// The verdict that stands in egress: an answer to an ENI that had as many as it gets is dropped.
#[inline]
pub(crate) fn bound(counters: &mut EniCounters, verdict: Verdict, now: Tick) -> Verdict {
    if verdict == Verdict::Answer && !counters.answers.take(ANSWERS_PER_S, now) {
        return Verdict::Drop(DropReason::AnswerRate);
    }
    verdict
}

/// Turns the Ethernet header of a written reply around.
fn to_sender(seat: &Seat<'_>, frame: &mut [u8]) -> Verdict {
    frame[..6].copy_from_slice(&seat.eni.mac.0);
    frame[6..12].copy_from_slice(&seat.network.gateway_mac.0);
    Verdict::Answer
}

/// Whether the router answers for an address whose packets go by `route`: its own, and those of the VPC's other ENIs.
fn is_answered_for(seat: &Seat<'_>, route: Route) -> bool {
    match route {
        Route::Gateway => true,
        Route::Owner(owner) => owner != seat.index,
        Route::Nowhere | Route::Unowned | Route::Via(_) => false,
    }
}

/// RFC 826: the router has its own addresses, and those of the VPC but the guest's.
fn arp(seat: &Seat<'_>, buffer: &mut FrameBuffer) -> Verdict {
    let frame = buffer.frame_mut();
    let Some(fields) = frame.get_mut(NETWORK + 6..NETWORK + 28) else {
        return Verdict::Drop(DropReason::FrameTruncated);
    };
    let is_request = fields[..2] == [0, 1];
    let sender: [u8; 4] = [fields[8], fields[9], fields[10], fields[11]];
    let target: [u8; 4] = [fields[18], fields[19], fields[20], fields[21]];
    let asked = Addresses::V4 { source: 0, destination: u32::from_be_bytes(target) };
    let route = seat.network.route(asked);
    if !is_request || target == sender || route == Route::Owner(seat.index) {
        return Verdict::Drop(DropReason::ArpConsumed);
    }
    if !is_answered_for(seat, route) {
        return Verdict::Drop(DropReason::NoRoute);
    }
    let sender_mac: [u8; 6] = [fields[2], fields[3], fields[4], fields[5], fields[6], fields[7]];
    fields[1] = 2;
    fields[2..8].copy_from_slice(&seat.network.gateway_mac.0);
    fields[8..12].copy_from_slice(&target);
    fields[12..18].copy_from_slice(&sender_mac);
    fields[18..22].copy_from_slice(&sender);
    to_sender(seat, frame)
}

/// RFC 4861 §7.2.4: the router has its own addresses, and those of the VPC but the guest's.
fn neighbor(seat: &Seat<'_>, headers: &Headers, buffer: &mut FrameBuffer) -> Verdict {
    const SOLICITATION: u8 = 135;
    const TARGET_BYTES: usize = 16;
    let consumed = Verdict::Drop(DropReason::NeighborConsumed);
    let Addresses::V6 { source, .. } = headers.tuple.addresses else { return consumed };
    let target_at = headers.transport_offset as usize + 8;
    let frame = buffer.frame();
    let target: Option<&[u8; TARGET_BYTES]> =
        frame.get(target_at..headers.end as usize).and_then(|bytes| bytes.first_chunk());
    let Some(&target) = target.filter(|_| headers.icmp_type == SOLICITATION) else { return consumed };
    let asked = Addresses::V6 { source, destination: u128::from_be_bytes(target) };
    let is_link_local = target[0] == 0xfe && target[1] & 0xc0 == 0x80;
    let route = seat.network.route(asked);
    if route == Route::Owner(seat.index) || is_link_local || is_group_destination(asked) {
        return consumed;
    }
    if !is_answered_for(seat, route) {
        return Verdict::Drop(DropReason::NoRoute);
    }
    // RFC 4861 §7.2.4: an answer to an unspecified source goes to all nodes, unsolicited.
    let (destination, solicited) = if source == 0 {
        (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets(), 0)
    } else {
        (source.to_be_bytes(), 0x40)
    };
    const ROUTER: u8 = 0x80;
    const OVERRIDE: u8 = 0x20;
    let mut payload = [0; TARGET_BYTES + 8];
    payload[..TARGET_BYTES].copy_from_slice(&target);
    payload[TARGET_BYTES..TARGET_BYTES + 2].copy_from_slice(&[2, 1]);
    payload[TARGET_BYTES + 2..].copy_from_slice(&seat.network.gateway_mac.0);
    let flags = Icmpv6Type::Unknown { type_u8: 136, code_u8: 0, bytes5to8: [ROUTER | solicited | OVERRIDE, 0, 0, 0] };
    let Some(()) = write_icmpv6(buffer, flags, (target, destination), (&payload, 255)) else { return consumed };
    to_sender(seat, buffer.frame_mut())
}

/// Writes an ICMPv6 packet behind the Ethernet header, which stays.
fn write_icmpv6(
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

/// Writes the network packet of a frame anew. None, and nothing written, if there is no room.
fn write(buffer: &mut FrameBuffer, parts: &[&[u8]]) -> Option<()> {
    let total = NETWORK + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut room = buffer.room().get_mut(NETWORK..total)?;
    for part in parts {
        let (start, rest) = room.split_at_mut(part.len());
        start.copy_from_slice(part);
        room = rest;
    }
    buffer.set_length(total);
    Some(())
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
    let updated = update_checksum(checksum, [icmp[0], icmp[1]], [reply_type, icmp[1]]);
    icmp[0] = reply_type;
    icmp[2..4].copy_from_slice(&updated);
    Some(())
}

fn swap_ranges(bytes: &mut [u8], half: usize) {
    let (left, right) = bytes.split_at_mut(half);
    left.swap_with_slice(right);
}

/// RFC 1624: the checksum after one 16-bit word changed.
fn update_checksum(checksum: [u8; 2], old: [u8; 2], new: [u8; 2]) -> [u8; 2] {
    let word = |bytes| u16::from_be_bytes(bytes) as u32;
    let mut sum = (!word(checksum) & 0xffff) + (!word(old) & 0xffff) + word(new);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    (!(sum as u16)).to_be_bytes()
}

/// Sets the time to live of an IPv4 header and mends its checksum.
fn set_ipv4_ttl(header: &mut [u8], ttl: u8) -> Option<()> {
    let header = header.get_mut(..20)?;
    let updated = update_checksum([header[10], header[11]], [header[8], header[9]], [ttl, header[9]]);
    header[8] = ttl;
    header[10..12].copy_from_slice(&updated);
    Some(())
}

/// Takes one hop from a packet that crosses from one subnet to another (RFC 1812 §5.3.1, RFC 8200 §3), or turns it
/// into the report that none is left.
pub(crate) fn take_hop(seat: &Seat<'_>, packet: &mut Packet) -> Option<Verdict> {
    let headers = packet.headers;
    if headers.hop_limit > 1 {
        let header = packet.buffer.frame_mut().get_mut(NETWORK..)?;
        match headers.tuple.addresses {
            Addresses::V4 { .. } => set_ipv4_ttl(header, headers.hop_limit - 1)?,
            Addresses::V6 { .. } => *header.get_mut(7)? = headers.hop_limit - 1,
        }
        return None;
    }
    let report = Report {
        v4: Icmpv4Type::TimeExceeded(etherparse::icmpv4::TimeExceededCode::TtlExceededInTransit),
        v6: Icmpv6Type::TimeExceeded(etherparse::icmpv6::TimeExceededCode::HopLimitExceeded),
    };
    Some(report.instead_of(seat, packet).unwrap_or(Verdict::Drop(DropReason::TtlExpired)))
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
pub(crate) fn refuse_too_big(seat: &Seat<'_>, packet: &mut Packet, mtu_bytes: u16) -> Option<Verdict> {
    const DONT_FRAGMENT: u8 = 0x40;
    let is_ipv4 = matches!(packet.headers.tuple.addresses, Addresses::V4 { .. });
    if is_ipv4 && packet.buffer.frame().get(NETWORK + 6)? & DONT_FRAGMENT == 0 {
        return None;
    }
    let needed = etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu_bytes };
    let report = Report {
        v4: Icmpv4Type::DestinationUnreachable(needed),
        v6: Icmpv6Type::PacketTooBig { mtu: mtu_bytes.into() },
    };
    report.instead_of(seat, packet)
}

/// What the router tells the sender of a packet that it does not forward.
struct Report {
    v4: Icmpv4Type,
    v6: Icmpv6Type,
}

impl Report {
    /// Writes the report over the packet. None, and the packet stays, where there must be no report or no address to
    /// send it from.
    fn instead_of(self, seat: &Seat<'_>, packet: &mut Packet) -> Option<Verdict> {
        const QUOTE_BYTES: usize = 128;
        let headers = packet.headers;
        // RFC 1812 §4.3.2.7: no error about an error, or about a later fragment.
        if headers.icmp_kind() == Some(IcmpKind::Error) || headers.fragment == Fragment::Later {
            return None;
        }
        let gateway = seat.network.vswitches.get(seat.eni.vswitch as usize)?;
        let quoted = packet.buffer.frame().get(NETWORK..headers.end as usize)?;
        let mut quote = [0; QUOTE_BYTES];
        let length = quoted.len().min(QUOTE_BYTES);
        quote[..length].copy_from_slice(&quoted[..length]);
        let quote = &quote[..length];
        match headers.tuple.addresses {
            Addresses::V4 { source, .. } => {
                let ends = (gateway.ipv4_gateway?.octets(), Ipv4Addr::from_bits(source).octets());
                write_icmpv4(&mut packet.buffer, self.v4, ends, quote)?;
            }
            Addresses::V6 { source, .. } => {
                let ends = (gateway.ipv6_gateway?.octets(), source.to_be_bytes());
                write_icmpv6(&mut packet.buffer, self.v6, ends, (quote, HOP_LIMIT))?;
            }
        }
        // The reply is whole, whatever was left undone in the packet that asked for it.
        packet.offload = Offload::NONE;
        Some(to_sender(seat, packet.buffer.frame_mut()))
    }
}
