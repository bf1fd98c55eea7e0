//! What the router answers on an uplink: questions for its own addresses there and for those that it stands for, and pings
//! of its own.

use super::arp::{self, Station};
use super::next_hop::UplinkNextHops;
use super::reply::{NETWORK, router_addresses, to_sender};
use super::{icmp, ndp};
use crate::config::ids::MacAddress;
use crate::hw::time::Tick;
use crate::packet::Packet;
use crate::packet::headers::{Addresses, Network};
use crate::packet::verdict::{DropReason, Verdict};
use crate::policy::eni_context::UplinkContext;
use crate::tables::route::{AddressRoute, is_group_destination};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Settles a packet from outside that is for the router itself, or for nobody. None if it is to be forwarded.
#[inline]
pub(crate) fn answer(
    uplink: &UplinkContext<'_>,
    packet: &mut Packet,
    next_hops: &mut UplinkNextHops,
    now: Tick,
) -> Option<Verdict> {
    let UplinkContext { context, entry } = uplink;
    let headers = packet.headers;
    if headers.network == Network::Arp {
        return Some(address_resolution(uplink, packet, next_hops, now));
    }
    if headers.is_neighbor_discovery() {
        return Some(neighbor(uplink, packet, next_hops, now));
    }
    let frame = packet.buffer.frame();
    if frame.first().is_some_and(|octet| octet & 1 == 1) || is_group_destination(headers.tuple.addresses) {
        return Some(Verdict::Drop(DropReason::Multicast));
    }
    if frame.get(..6) != Some(entry.mac.0.as_slice()) {
        return Some(Verdict::Drop(DropReason::DestinationMacForeign));
    }
    let is_own = match (headers.tuple.addresses.destination(), router_addresses(context)) {
        (IpAddr::V4(address), (Some(own), _)) => address == own,
        (IpAddr::V6(address), (_, Some(own))) => address == own || address == entry.mac.link_local(),
        _ => false,
    };
    (is_own && icmp::is_ping(&headers)).then(|| icmp::answer_ping(context, packet))
}

/// Whether the router answers for an address on the uplink: its own, external ones, and those of ENIs that are not
/// translated.
fn is_answered_for(uplink: &UplinkContext<'_>, address: IpAddr) -> bool {
    let UplinkContext { context, entry } = uplink;
    let owned = |addresses| matches!(context.network.route(addresses), AddressRoute::Owner(_));
    match (address, router_addresses(context)) {
        (IpAddr::V4(address), (Some(own), _)) => {
            let bits = address.to_bits();
            let routed = || entry.nat.routes_private && owned(Addresses::V4 { source: 0, destination: bits });
            address == own || entry.nat.is_external(bits) || routed()
        }
        (IpAddr::V6(address), (_, Some(own))) => {
            let addresses = Addresses::V6 { source: 0, destination: address.to_bits() };
            address == own || address == entry.mac.link_local() || owned(addresses)
        }
        _ => false,
    }
}

fn address_resolution(
    uplink: &UplinkContext<'_>,
    packet: &mut Packet,
    next_hops: &mut UplinkNextHops,
    now: Tick,
) -> Verdict {
    let frame = packet.buffer.frame_mut();
    let Some(fields) = frame.get_mut(NETWORK + 6..NETWORK + 28) else {
        return Verdict::Drop(DropReason::FrameTruncated);
    };
    let sender_mac = MacAddress([fields[2], fields[3], fields[4], fields[5], fields[6], fields[7]]);
    let sender = [fields[8], fields[9], fields[10], fields[11]];
    let target = [fields[18], fields[19], fields[20], fields[21]];
    if fields[..2] != [0, 1] {
        next_hops.hear_ipv4(uplink.entry, sender, sender_mac, now);
        return Verdict::Drop(DropReason::ArpConsumed);
    }
    if target == sender {
        return Verdict::Drop(DropReason::ArpConsumed);
    }
    if !is_answered_for(uplink, Ipv4Addr::from(target).into()) {
        return Verdict::Drop(DropReason::NoRoute);
    }
    let asker = Station { mac: sender_mac, address: sender };
    arp::write_reply(fields, asker, Station { mac: uplink.entry.mac, address: target });
    to_sender(&uplink.context, frame)
}

fn neighbor(uplink: &UplinkContext<'_>, packet: &mut Packet, next_hops: &mut UplinkNextHops, now: Tick) -> Verdict {
    const TARGET_BYTES: usize = 16;
    let consumed = Verdict::Drop(DropReason::NeighborConsumed);
    let headers = packet.headers;
    let Addresses::V6 { source, .. } = headers.tuple.addresses else { return consumed };
    let body = packet.buffer.frame().get(headers.transport_offset as usize + 8..headers.end as usize);
    let Some((target, options)) = body.and_then(|body| body.split_first_chunk::<TARGET_BYTES>()) else {
        return consumed;
    };
    let target = *target;
    if headers.icmp_type == 136 {
        // The target's hardware address (RFC 4861 §4.6.1); other options before it are skipped by no known stack.
        if let [2, 1, a, b, c, d, e, f, ..] = *options {
            next_hops.hear_ipv6(uplink.entry, target, MacAddress([a, b, c, d, e, f]), now);
        }
        return consumed;
    }
    if headers.icmp_type != 135 {
        return consumed;
    }
    if !is_answered_for(uplink, Ipv6Addr::from(target).into()) {
        return Verdict::Drop(DropReason::NoRoute);
    }
    let buffer = &mut packet.buffer;
    let Some(()) = ndp::advertise(buffer, target, source, uplink.entry.mac) else { return consumed };
    to_sender(&uplink.context, buffer.frame_mut())
}
