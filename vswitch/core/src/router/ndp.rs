//! Neighbour discovery (RFC 4861).

use super::icmp::write_icmpv6;
use super::reply::{is_answered_for, to_sender};
use crate::config::ids::MacAddress;
use crate::packet::FrameBuffer;
use crate::packet::headers::{Addresses, Headers};
use crate::packet::verdict::{DropReason, Verdict};
use crate::policy::eni_context::EniContext;
use crate::tables::route::{AddressRoute, is_group_destination};
use core::net::Ipv6Addr;
use etherparse::Icmpv6Type;

/// RFC 4861 §7.2.4: the router has its own addresses, and those of the VPC but the guest's.
pub(super) fn neighbor(context: &EniContext<'_>, headers: &Headers, buffer: &mut FrameBuffer) -> Verdict {
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
    // Router advertisements come from this one, and guests take it for their gateway.
    let is_router = target == context.network.gateway_mac.link_local().octets();
    let route = if is_router { AddressRoute::Gateway } else { context.network.route(asked) };
    if route == AddressRoute::Owner(context.index) || is_link_local && !is_router || is_group_destination(asked) {
        return consumed;
    }
    if !is_answered_for(context, route) {
        return Verdict::Drop(DropReason::NoRoute);
    }
    let Some(()) = advertise(buffer, target, source, context.network.gateway_mac) else { return consumed };
    to_sender(context, buffer.frame_mut())
}

/// Writes the advertisement that `target` is at `mac`, for whoever solicits it from `source`, behind the Ethernet header.
pub(super) fn advertise(buffer: &mut FrameBuffer, target: [u8; 16], source: u128, mac: MacAddress) -> Option<()> {
    const TARGET_BYTES: usize = 16;
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
    payload[TARGET_BYTES + 2..].copy_from_slice(&mac.0);
    let flags = Icmpv6Type::Unknown { type_u8: 136, code_u8: 0, bytes5to8: [ROUTER | solicited | OVERRIDE, 0, 0, 0] };
    write_icmpv6(buffer, flags, (target, destination), (&payload, 255))
}
