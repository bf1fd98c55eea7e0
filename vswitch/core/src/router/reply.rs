//! A reply of the router, written over the packet that asked for it.

use crate::config::limits::ETHERNET_HEADER_BYTES;
use crate::packet::verdict::Verdict;
use crate::packet::{FrameBuffer, checksum};
use crate::policy::eni_context::{EniContext, UplinkContext};
use crate::tables::route::AddressRoute;
use core::net::{Ipv4Addr, Ipv6Addr};

/// Where the network packet begins in a frame.
pub(super) const NETWORK: usize = ETHERNET_HEADER_BYTES;

/// Turns the Ethernet header of a written reply around.
pub(super) fn to_sender(context: &EniContext<'_>, frame: &mut [u8]) -> Verdict {
    if let Some(uplink) = context.as_uplink() {
        // There may be several stations on its link.
        frame.copy_within(6..12, 0);
        frame[6..12].copy_from_slice(&uplink.entry.mac.0);
        return Verdict::Answer;
    }
    frame[..6].copy_from_slice(&context.eni.mac.0);
    frame[6..12].copy_from_slice(&context.network.gateway_mac.0);
    Verdict::Answer
}

/// The addresses that the router has on the link of an ENI, or of an uplink.
pub(super) fn router_addresses(context: &EniContext<'_>) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    match context.as_uplink() {
        Some(UplinkContext { entry, .. }) => {
            (entry.ipv4.map(|it| it.address.addr()), entry.ipv6.map(|it| it.address.addr()))
        }
        None => {
            let vswitch = context.network.vswitches.get(context.eni.vswitch as usize);
            vswitch.map_or((None, None), |vswitch| (vswitch.ipv4_gateway, vswitch.ipv6_gateway))
        }
    }
}

/// Whether the router answers for an address whose packets go by `route`: its own, and those of the VPC's other ENIs.
pub(super) fn is_answered_for(context: &EniContext<'_>, route: AddressRoute) -> bool {
    match route {
        AddressRoute::Gateway => true,
        AddressRoute::Owner(owner) => owner != context.index,
        AddressRoute::Nowhere | AddressRoute::Unowned | AddressRoute::Via(_) | AddressRoute::Peer(_) => false,
    }
}

/// Writes the network packet of a frame anew. None, and nothing written, if there is no room.
pub(super) fn write(buffer: &mut FrameBuffer, parts: &[&[u8]]) -> Option<()> {
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

/// Sets the time to live of an IPv4 header and mends its checksum.
pub(super) fn set_ipv4_ttl(header: &mut [u8], ttl: u8) -> Option<()> {
    let header = header.get_mut(..20)?;
    let updated = checksum::update([header[10], header[11]], [header[8], header[9]], [ttl, header[9]]);
    header[8] = ttl;
    header[10..12].copy_from_slice(&updated);
    Some(())
}
