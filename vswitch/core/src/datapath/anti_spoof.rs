//! Whether a packet really comes from the ENI that sent it (`semantics.md` §3.4). This is checked first.

use crate::config::ids::MacAddress;
use crate::config::limits::ETHERNET_HEADER_BYTES;
use crate::packet::headers::{Addresses, Headers, Network};
use crate::packet::verdict::DropReason;
use crate::policy::eni_context::{EniContext, UplinkContext};
use crate::router;
use crate::tables::route::{AddressRoute, is_group_destination};

/// Checks a packet that the guest sent. If the ENI's source check is off, it may forward packets with foreign
/// addresses; everything else is checked nonetheless (§3.4).
///
/// # Errors
/// The reason why the packet is dropped.
#[inline]
pub(crate) fn check(context: &EniContext<'_>, headers: &Headers, frame: &[u8]) -> Result<(), DropReason> {
    if mac_at(frame, 6) != Some(context.eni.mac) {
        return Err(DropReason::SourceMacSpoofed);
    }
    if !is_for_router(context, frame) {
        return Err(DropReason::DestinationMacForeign);
    }
    if headers.is_plain && (!context.eni.source_dest_check || may_send_from(context, headers.tuple.addresses)) {
        return Ok(());
    }
    check_unusual(context, headers, frame)
}

#[inline(never)]
fn check_unusual(context: &EniContext<'_>, headers: &Headers, frame: &[u8]) -> Result<(), DropReason> {
    match headers.network {
        Network::Arp => check_arp(context, frame),
        _ if headers.is_of_router() => Err(DropReason::RouterAdvertSpoofed),
        _ if headers.is_neighbor_discovery() => check_neighbor_discovery(context, headers, frame),
        // Ingress exempts DHCP at every ENI (§3.4), so only the platform may serve it.
        _ if headers.has_source_route && context.snapshot.settings().drop_source_routed => {
            Err(DropReason::Ipv4SourceRoute)
        }
        _ if headers.is_dhcp_answer() => Err(DropReason::DhcpServerSpoofed),
        _ if !context.eni.source_dest_check => Ok(()),
        _ => check_source(context, headers),
    }
}

/// Whether the source of `addresses` belongs to the ENI.
#[inline(always)]
pub(super) fn owns_source(context: &EniContext<'_>, addresses: Addresses) -> bool {
    context.eni.is_first_address(addresses)
        || context.network.route(addresses.reverse()) == AddressRoute::Owner(context.index)
}

/// Whether the ENI may send from the source of `addresses` while its source check is on: it is one of its own
/// addresses, or it is in a block that a custom route sends to the ENI and such blocks count as its own.
#[inline(always)]
pub(crate) fn may_send_from(context: &EniContext<'_>, addresses: Addresses) -> bool {
    if context.eni.is_first_address(addresses) {
        return true;
    }
    match context.network.route(addresses.reverse()) {
        AddressRoute::Owner(owner) => owner == context.index,
        AddressRoute::Via(next) => next == context.index && context.eni.routed_as_own,
        AddressRoute::Nowhere | AddressRoute::Unowned | AddressRoute::Gateway | AddressRoute::Peer(_) => false,
    }
}

/// Whether a frame is for the router or a multicast group: there is no other station on the guest's link.
#[inline]
fn is_for_router(context: &EniContext<'_>, frame: &[u8]) -> bool {
    mac_at(frame, 0).is_some_and(|mac| mac == context.network.gateway_mac || mac.0[0] & 1 == 1)
}

fn check_arp(context: &EniContext<'_>, frame: &[u8]) -> Result<(), DropReason> {
    const SENDER_MAC: usize = ETHERNET_HEADER_BYTES + 8;
    const SENDER_ADDRESS: usize = ETHERNET_HEADER_BYTES + 14;
    let sender: Option<&[u8; 4]> = frame.get(SENDER_ADDRESS..).and_then(|rest| rest.first_chunk());
    let source = sender.map_or(0, |bytes| u32::from_be_bytes(*bytes));
    // RFC 5227: a probe does not have a sender address yet.
    let address_fits = source == 0 || owns_source(context, Addresses::V4 { source, destination: 0 });
    if mac_at(frame, SENDER_MAC) == Some(context.eni.mac) && address_fits {
        Ok(())
    } else {
        Err(DropReason::ArpSpoofed)
    }
}

fn check_neighbor_discovery(context: &EniContext<'_>, headers: &Headers, frame: &[u8]) -> Result<(), DropReason> {
    let Addresses::V6 { source, .. } = headers.tuple.addresses else { return Err(DropReason::NeighborSpoofed) };
    let source_fits = source == 0 || is_link_local(source) || owns_source(context, headers.tuple.addresses);
    let fixed_bytes = match headers.icmp_type {
        133 => 8,
        134 => 16,
        137 => 40,
        _ => 24,
    };
    let options = frame.get(headers.transport_offset as usize + fixed_bytes..headers.end as usize).unwrap_or_default();
    if source_fits && link_layer_options_fit(options, context.eni.mac) {
        Ok(())
    } else {
        Err(DropReason::NeighborSpoofed)
    }
}

/// Whether every link-layer address option (RFC 4861 §4.6.1) names the ENI, and the options are well formed.
fn link_layer_options_fit(mut options: &[u8], mac: MacAddress) -> bool {
    while let [kind, length_units, ..] = *options {
        let Some(option) = options.get(..length_units as usize * 8).filter(|option| !option.is_empty()) else {
            return false;
        };
        if matches!(kind, 1 | 2) && option.get(2..8) != Some(mac.0.as_slice()) {
            return false;
        }
        options = &options[option.len()..];
    }
    options.is_empty()
}

/// Checks the source address alone.
///
/// # Errors
/// The reason under which a packet of a false source is to be dropped.
pub(crate) fn check_source(context: &EniContext<'_>, headers: &Headers) -> Result<(), DropReason> {
    if may_send_from(context, headers.tuple.addresses) {
        return Ok(());
    }
    let has_no_address_yet = match headers.tuple.addresses {
        // A client that renews an address that it no longer has sends from it; the request is never forwarded.
        Addresses::V4 { .. } => headers.is_dhcp_request(),
        // Link-local sources are used for neighbour discovery and multicast listener reports, neither of which is
        // forwarded.
        Addresses::V6 { source, .. } => {
            (source == 0 || is_link_local(source))
                && (router::is_for_link_local_router(context, headers.tuple.addresses)
                    || headers.is_dhcp_request()
                    || is_group_destination(headers.tuple.addresses))
        }
    };
    if has_no_address_yet { Ok(()) } else { Err(DropReason::SourceAddressSpoofed) }
}

/// Whether a packet from outside claims to be from inside: from an address of the VPC, or from an external one.
#[inline(always)]
pub(super) fn is_from_inside(uplink: &UplinkContext<'_>, addresses: Addresses) -> bool {
    let UplinkContext { context, entry } = uplink;
    entry.nat.is_external_destination(addresses.reverse())
        || context.network.source(addresses).route() != AddressRoute::Nowhere
}

fn is_link_local(address: u128) -> bool {
    address >> 118 == 0b11_1111_1010 // fe80::/10
}

fn mac_at(frame: &[u8], offset: usize) -> Option<MacAddress> {
    frame.get(offset..)?.first_chunk().map(|octets| MacAddress(*octets))
}
