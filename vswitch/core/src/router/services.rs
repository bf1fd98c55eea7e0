//! What the router leaves to others: DHCP and router solicitations to the service thread, metadata and names to the
//! services process. Here is only decided what goes there.

use super::icmp::{answer_ping, is_ping};
use super::unreachable;
use crate::config::desired::Direction;
use crate::config::limits::SERVICE_FRAME_BYTES_MAX;
use crate::config::services::{DNS_PORT, METADATA_PORT, ServiceAddress};
use crate::packet::headers::{Fragment, Headers, protocol};
use crate::packet::verdict::{Decision, DropReason, ServedBy, Verdict};
use crate::packet::{Marker, Packet};
use crate::policy::eni_context::EniContext;
use crate::policy::evaluate::visible_to_rules;
use crate::tables::route::AddressRoute;

/// A DHCP message of a guest, whoever it is addressed to: only the switch serves it.
pub(super) fn of_dhcp(headers: &Headers) -> Verdict {
    // A message fits into one frame (RFC 2131 §2, RFC 8415 §5), so nobody needs to send one in parts.
    if headers.fragment != Fragment::Whole || headers.end as usize > SERVICE_FRAME_BYTES_MAX {
        return Verdict::Drop(DropReason::DhcpMalformed);
    }
    Verdict::Serve(ServedBy::Thread)
}

/// A router solicitation (RFC 4861 §6.2.6). An ENI without IPv6 has no router of that family.
pub(super) fn of_router_solicitation(context: &EniContext<'_>) -> Verdict {
    match context.eni.ipv6 {
        Some(_) => Verdict::Serve(ServedBy::Thread),
        None => Verdict::Drop(DropReason::NeighborConsumed),
    }
}

/// Whether the services process serves a packet to the address of a service.
pub(crate) fn is_served(headers: &Headers, address: ServiceAddress) -> bool {
    let tuple = &headers.tuple;
    headers.fragment == Fragment::Whole
        && match (address, tuple.protocol) {
            (ServiceAddress::Metadata, protocol::TCP) => tuple.destination_port == METADATA_PORT,
            (ServiceAddress::NameServer, protocol::TCP | protocol::UDP) => tuple.destination_port == DNS_PORT,
            (ServiceAddress::Metadata | ServiceAddress::NameServer | ServiceAddress::Elsewhere, _) => false,
        }
}

/// Settles a packet to an address of a service, unless rules forbid it.
pub(super) fn of_address(context: &EniContext<'_>, packet: &mut Packet, address: ServiceAddress) -> Verdict {
    packet.decision = decide(context, &packet.headers, address);
    match packet.decision {
        Some(decision) if !decision.accepts() => decision.refusal(),
        _ if is_served(&packet.headers, address) => Verdict::Serve(ServedBy::Process),
        Some(_) if is_ping(&packet.headers) => answer_ping(context, packet),
        _ => refuse(context, packet, address),
    }
}

/// Settles a packet to an address of a service that nobody serves.
pub(super) fn refuse(context: &EniContext<'_>, packet: &mut Packet, address: ServiceAddress) -> Verdict {
    match (address, packet.headers.tuple.protocol) {
        // There is no such host, so it sends no reply to a ping and no port of it is closed; but a reset ends the wait
        // of every client at once, which an unreachable network does not.
        (ServiceAddress::Elsewhere, number) if number != protocol::TCP => {
            unreachable::no_route(context, packet, AddressRoute::Nowhere)
        }
        _ => unreachable::unserved(context, packet).unwrap_or(Verdict::Drop(DropReason::GatewayUnserved)),
    }
}

/// The service at a packet's destination, which the switch has unless an ENI has the address.
pub(crate) fn at_destination(headers: &Headers, route: AddressRoute) -> Option<ServiceAddress> {
    match route {
        AddressRoute::Owner(_) => None,
        AddressRoute::Nowhere
        | AddressRoute::Unowned
        | AddressRoute::Gateway
        | AddressRoute::Via(_)
        | AddressRoute::Peer(_) => ServiceAddress::of(headers.tuple.addresses.destination()),
    }
}

/// The decision about a packet to a service; `None` where nobody answers anyway. No session is kept, so every packet is
/// evaluated by the rules of its own time; replies pass unevaluated, as those of DHCP do.
pub(crate) fn decide(context: &EniContext<'_>, headers: &Headers, address: ServiceAddress) -> Option<Decision> {
    match address {
        ServiceAddress::Elsewhere => None,
        ServiceAddress::Metadata | ServiceAddress::NameServer => {
            let exempt = context.exempt(headers, Marker::None);
            Some(exempt.unwrap_or_else(|| context.decide_by_rules(Direction::Egress, &visible_to_rules(headers))))
        }
    }
}
