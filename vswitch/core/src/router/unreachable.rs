//! What the router says at once about packets that go nowhere: destination unreachable (RFC 792, RFC 4443 §3.1), and a
//! reset for TCP to the router itself (RFC 9293 §3.5.2). Silence would cost the sender minutes.

use super::icmp::{HOP_LIMIT, IcmpError};
use super::reply::{NETWORK, to_sender, write};
use crate::packet::Packet;
use crate::packet::headers::{Addresses, Fragment, protocol, tcp_flags};
use crate::packet::offload::Offload;
use crate::packet::verdict::{DropReason, Verdict};
use crate::policy::eni_context::EniContext;
use crate::tables::route::AddressRoute;
use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::icmpv6::{DestUnreachableCode, ParameterProblemCode, ParameterProblemHeader};
use etherparse::{Icmpv4Type, Icmpv6Type, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, TcpHeader};

/// Settles a packet whose destination no ENI has, and to which no custom route leads. What a guest sends to itself is
/// nobody else's affair.
#[inline(never)]
pub(crate) fn no_route(context: &EniContext<'_>, packet: &mut Packet, route: AddressRoute) -> Verdict {
    let (v4, v6) = match route {
        // In a peer, too, nobody has the address.
        AddressRoute::Unowned | AddressRoute::Peer(_) => (DestUnreachableHeader::Host, DestUnreachableCode::Address),
        AddressRoute::Nowhere => (DestUnreachableHeader::Network, DestUnreachableCode::NoRoute),
        AddressRoute::Gateway | AddressRoute::Owner(_) | AddressRoute::Via(_) => {
            return Verdict::Drop(DropReason::NoRoute);
        }
    };
    report(v4, v6).instead_of(context, packet).unwrap_or(Verdict::Drop(DropReason::NoRoute))
}

/// Settles a packet for the router itself that it does not serve. None, and the packet stays, where there is no reply.
pub(super) fn unserved(context: &EniContext<'_>, packet: &mut Packet) -> Option<Verdict> {
    let headers = &packet.headers;
    match (headers.tuple.protocol, headers.tuple.addresses) {
        // Queries that are not answered, and answers to none.
        (protocol::ICMP, Addresses::V4 { .. }) | (protocol::ICMPV6, Addresses::V6 { .. }) => None,
        (protocol::TCP, _) => reset(context, packet),
        (protocol::UDP, _) => {
            report(DestUnreachableHeader::Port, DestUnreachableCode::Port).instead_of(context, packet)
        }
        _ => {
            let pointer_to_next_header = 6;
            let problem = ParameterProblemHeader {
                code: ParameterProblemCode::UnrecognizedNextHeader,
                pointer: pointer_to_next_header,
            };
            let v4 = Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Protocol);
            IcmpError { v4, v6: Icmpv6Type::ParameterProblem(problem) }.instead_of(context, packet)
        }
    }
}

const fn report(v4: DestUnreachableHeader, v6: DestUnreachableCode) -> IcmpError {
    IcmpError { v4: Icmpv4Type::DestinationUnreachable(v4), v6: Icmpv6Type::DestinationUnreachable(v6) }
}

/// Turns a TCP segment into the reset that answers it. None for a reset, and for a fragment.
fn reset(context: &EniContext<'_>, packet: &mut Packet) -> Option<Verdict> {
    let headers = packet.headers;
    if headers.fragment != Fragment::Whole || headers.tcp_flags & tcp_flags::RST != 0 {
        return None;
    }
    let segment = packet.buffer.frame().get(headers.transport_offset as usize..headers.end as usize)?;
    let header_bytes = usize::from(segment.get(12)? >> 4) * 4;
    let counted = (headers.tcp_flags & (tcp_flags::SYN | tcp_flags::FIN)).count_ones();
    let length = segment.len().saturating_sub(header_bytes) as u32 + counted;
    let tuple = headers.tuple.reverse();
    let mut tcp = TcpHeader::new(tuple.source_port, tuple.destination_port, 0, 0);
    tcp.rst = true;
    if headers.tcp_flags & tcp_flags::ACK != 0 {
        tcp.sequence_number = headers.acknowledgment;
    } else {
        tcp.ack = true;
        tcp.acknowledgment_number = headers.sequence.wrapping_add(length);
    }
    match tuple.addresses {
        Addresses::V4 { source, destination } => {
            let ends = [source, destination].map(u32::to_be_bytes);
            let mut ip = Ipv4Header::new(TcpHeader::MIN_LEN as u16, HOP_LIMIT, IpNumber::TCP, ends[0], ends[1]).ok()?;
            ip.header_checksum = ip.calc_header_checksum();
            tcp.checksum = tcp.calc_checksum_ipv4(&ip, &[]).ok()?;
            write(&mut packet.buffer, &[&ip.to_bytes(), &tcp.to_bytes()])?;
        }
        Addresses::V6 { source, destination } => {
            let ip = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: TcpHeader::MIN_LEN as u16,
                next_header: IpNumber::TCP,
                hop_limit: HOP_LIMIT,
                source: source.to_be_bytes(),
                destination: destination.to_be_bytes(),
            };
            tcp.checksum = tcp.calc_checksum_ipv6(&ip, &[]).ok()?;
            write(&mut packet.buffer, &[&ip.to_bytes(), &tcp.to_bytes()])?;
        }
    }
    debug_assert!(packet.buffer.length() > NETWORK, "what was written is a packet");
    packet.offload = Offload::NONE;
    Some(to_sender(context, packet.buffer.frame_mut()))
}
