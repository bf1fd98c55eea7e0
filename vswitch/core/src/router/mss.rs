//! Clamps the maximum segment size that a SYN offers (RFC 9293 §3.7.1) to what both ports carry, so that TCP needs no
//! path-MTU reports, which guests' own filters often drop.

use crate::packet::headers::{Addresses, Fragment, tcp_flags, tcp_options};
use crate::packet::{Packet, checksum};

/// The headers of a segment without options: TCP and IPv4, or IPv6.
const HEADER_BYTES: [u16; 2] = [40, 60];
const CHECKSUM_AT: usize = 16;

/// Lowers the offer of a SYN to what ports with this MTU carry. Other packets, and lower offers, stay.
pub(crate) fn clamp(packet: &mut Packet, mtu_bytes: u16) {
    let headers = packet.headers;
    if !headers.is_tcp() || headers.tcp_flags & tcp_flags::SYN == 0 || headers.fragment != Fragment::Whole {
        return;
    }
    let is_v6 = matches!(headers.tuple.addresses, Addresses::V6 { .. });
    let most = mtu_bytes.saturating_sub(HEADER_BYTES[usize::from(is_v6)]).to_be_bytes();
    let is_summed = packet.offload.checksum.is_none();
    let segment = packet.buffer.frame_mut().get_mut(headers.transport_offset as usize..headers.end as usize);
    let Some(segment) = segment else { return };
    let Some(place) = tcp_options::maximum_segment_size(segment) else { return };
    let offered = [segment[place], segment[place + 1]];
    if offered <= most {
        return;
    }
    segment[place..place + 2].copy_from_slice(&most);
    if is_summed {
        // The sum is over words that begin at even places.
        let word = |[high, low]: [u8; 2]| if place % 2 == 0 { [high, low] } else { [low, high] };
        let old = [segment[CHECKSUM_AT], segment[CHECKSUM_AT + 1]];
        let new = checksum::update(old, word(offered), word(most));
        segment[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&new);
    }
}
