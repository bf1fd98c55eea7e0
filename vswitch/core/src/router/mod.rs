//! The replies that the virtual router makes itself: ARP, neighbour discovery, ping, time exceeded. A reply is written
//! over the packet that asked for it.
//!
//! Guests remember whom the router answers for, and the kernels that they run on have room for so many. So it answers
//! for addresses that there are, and each ENI so many times a second.

mod arp;
pub(crate) mod icmp;
pub(crate) mod mss;
mod ndp;
pub(crate) mod next_hop;
mod reply;
pub(crate) mod services;
pub(crate) mod ttl;
pub(crate) mod unreachable;
pub(crate) mod uplink;

use crate::config::services::ServiceAddress;
use crate::packet::Packet;
use crate::packet::headers::{Addresses, Network};
use crate::packet::verdict::{DropReason, Verdict};
use crate::policy::eni_context::EniContext;
use crate::tables::route::{AddressRoute, is_group_destination};

/// Settles a packet that is for the router itself, or for nobody; `route` is where its destination is. None if it is to
/// be forwarded.
#[inline]
pub(crate) fn answer(context: &EniContext<'_>, packet: &mut Packet, route: AddressRoute) -> Option<Verdict> {
    let is_for_one = packet.buffer.frame().first().is_some_and(|octet| octet & 1 == 0);
    if packet.headers.is_plain && is_for_one && matches!(route, AddressRoute::Owner(_)) {
        return None;
    }
    answer_unusual(context, packet, route)
}

#[inline(never)]
fn answer_unusual(context: &EniContext<'_>, packet: &mut Packet, route: AddressRoute) -> Option<Verdict> {
    let headers = packet.headers;
    let drop = |reason| Some(Verdict::Drop(reason));
    if headers.network == Network::Arp {
        return Some(arp::arp(context, &mut packet.buffer));
    }
    if headers.is_router_solicitation() {
        return Some(services::of_router_solicitation(context));
    }
    if headers.is_neighbor_discovery() {
        return Some(ndp::neighbor(context, &headers, &mut packet.buffer));
    }
    if headers.is_dhcp_request() {
        return Some(services::of_dhcp(&headers));
    }
    let to_group_mac = packet.buffer.frame().first().is_some_and(|octet| octet & 1 == 1);
    if to_group_mac || is_group_destination(headers.tuple.addresses) {
        return drop(DropReason::Multicast);
    }
    if let Some(address) = services::at_destination(&headers, route) {
        return Some(services::of_address(context, packet, address));
    }
    if route != AddressRoute::Gateway && !is_for_link_local_router(context, headers.tuple.addresses) {
        return None;
    }
    if icmp::is_ping(&headers) {
        return Some(icmp::answer_ping(context, packet));
    }
    let unserved = unreachable::unserved(context, packet);
    Some(unserved.unwrap_or(Verdict::Drop(DropReason::GatewayUnserved)))
}

/// Settles a packet that was to be served, but whose service is away.
pub(crate) fn refuse_served(context: &EniContext<'_>, packet: &mut Packet) -> Verdict {
    match ServiceAddress::of(packet.headers.tuple.addresses.destination()) {
        Some(address) => services::refuse(context, packet, address),
        None => Verdict::Drop(DropReason::GatewayUnserved),
    }
}

/// Whether a packet is for the address of the router that is good on the guest's link alone.
pub(crate) fn is_for_link_local_router(context: &EniContext<'_>, addresses: Addresses) -> bool {
    match addresses {
        Addresses::V4 { .. } => false,
        Addresses::V6 { destination, .. } => destination == context.network.gateway_mac.link_local().to_bits(),
    }
}
