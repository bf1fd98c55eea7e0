//! ARP (RFC 826).

use super::reply::{NETWORK, is_answered_for, to_sender};
use crate::config::ids::MacAddress;
use crate::packet::FrameBuffer;
use crate::packet::headers::Addresses;
use crate::packet::verdict::{DropReason, Verdict};
use crate::policy::eni_context::EniContext;
use crate::tables::route::AddressRoute;

/// RFC 826: the router has its own addresses, and those of the VPC but the guest's.
pub(super) fn arp(context: &EniContext<'_>, buffer: &mut FrameBuffer) -> Verdict {
    let frame = buffer.frame_mut();
    let Some(fields) = frame.get_mut(NETWORK + 6..NETWORK + 28) else {
        return Verdict::Drop(DropReason::FrameTruncated);
    };
    let is_request = fields[..2] == [0, 1];
    let sender: [u8; 4] = [fields[8], fields[9], fields[10], fields[11]];
    let target: [u8; 4] = [fields[18], fields[19], fields[20], fields[21]];
    let asked = Addresses::V4 { source: 0, destination: u32::from_be_bytes(target) };
    let route = context.network.route(asked);
    if !is_request || target == sender || route == AddressRoute::Owner(context.index) {
        return Verdict::Drop(DropReason::ArpConsumed);
    }
    if !is_answered_for(context, route) {
        return Verdict::Drop(DropReason::NoRoute);
    }
    let sender_mac = MacAddress([fields[2], fields[3], fields[4], fields[5], fields[6], fields[7]]);
    let asker = Station { mac: sender_mac, address: sender };
    write_reply(fields, asker, Station { mac: context.network.gateway_mac, address: target });
    to_sender(context, frame)
}

/// The addresses of a station.
pub(super) struct Station {
    pub(super) mac: MacAddress,
    pub(super) address: [u8; 4],
}

/// Turns the fields of a request, from the operation on, into the reply to `asker` that says where `asked` is.
pub(super) fn write_reply(fields: &mut [u8], asker: Station, asked: Station) {
    fields[1] = 2;
    fields[2..8].copy_from_slice(&asked.mac.0);
    fields[8..12].copy_from_slice(&asked.address);
    fields[12..18].copy_from_slice(&asker.mac.0);
    fields[18..22].copy_from_slice(&asker.address);
}
