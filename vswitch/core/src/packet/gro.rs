//! Generic receive offload: merges consecutive TCP segments into one long frame, for ports that accept those. The
//! reverse of [`crate::packet::gso`]. Each segment has been evaluated and counted; this module only moves bytes, and
//! segmenting the long frame again yields the same segments. Segments are merged under the same conditions as in Linux.

use crate::config::limits::ETHERNET_HEADER_BYTES;
use crate::packet::Packet;
use crate::packet::checksum;
use crate::packet::headers::{protocol, tcp_flags};
use crate::packet::offload::{Offload, PartialChecksum, Segmentation};

const NETWORK: usize = ETHERNET_HEADER_BYTES;
const V4_HEADER_BYTES: usize = 20;
const V6_HEADER_BYTES: usize = 40;
const TCP_HEADER_BYTES: usize = 20;
const TCP_CHECKSUM: usize = 16;
const PUSH: u8 = 0x08;
/// After a segment with any of these flags nothing more is appended.
const LAST: u8 = PUSH | tcp_flags::FIN;
const IP_BYTES_MAX: usize = u16::MAX as usize;

/// A complete TCP packet with data, without IP options or extension headers.
struct GroSegment<'a> {
    frame: &'a [u8],
    is_v4: bool,
    transport: usize,
    data: usize,
}

impl<'a> GroSegment<'a> {
    fn of(frame: &'a [u8]) -> Option<Self> {
        let network = frame.get(NETWORK..)?;
        let (is_whole_tcp, is_v4, header_bytes, packet_bytes) = match (frame[12], frame[13]) {
            (0x08, 0x00) => {
                let header: &[u8; V4_HEADER_BYTES] = network.first_chunk()?;
                // Of the fragmentation flags and offset, only "do not fragment" may be set.
                let is_whole_tcp =
                    header[9] == protocol::TCP && header[0] == 0x45 && header[6] & 0xbf == 0 && header[7] == 0;
                let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
                (is_whole_tcp, true, V4_HEADER_BYTES, length)
            }
            (0x86, 0xdd) => {
                let header: &[u8; V6_HEADER_BYTES] = network.first_chunk()?;
                let length = V6_HEADER_BYTES + usize::from(u16::from_be_bytes([header[4], header[5]]));
                (header[6] == protocol::TCP && header[0] >> 4 == 6, false, V6_HEADER_BYTES, length)
            }
            _ => return None,
        };
        if !is_whole_tcp {
            return None;
        }
        let transport = NETWORK + header_bytes;
        let data = transport + usize::from(*frame.get(transport + 12)? >> 4) * 4;
        let has_data = data >= transport + TCP_HEADER_BYTES && data < frame.len();
        // Padding behind the packet would be taken for data once another segment follows it.
        (has_data && packet_bytes == network.len()).then_some(Self { frame, is_v4, transport, data })
    }

    fn flags(&self) -> u8 {
        self.frame[self.transport + 13]
    }

    fn word(&self, at: usize) -> u32 {
        self.frame[at..].first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
    }

    fn sequence(&self) -> u32 {
        self.word(self.transport + 4)
    }

    fn identification(&self) -> u16 {
        u16::from_be_bytes([self.frame[NETWORK + 4], self.frame[NETWORK + 5]])
    }

    fn data_bytes(&self) -> usize {
        self.frame.len() - self.data
    }

    /// Whether addresses, ports and the header fields around the addresses are equal.
    fn is_same_flow(&self, other: &Self) -> bool {
        let addresses = if self.is_v4 { NETWORK + 12 } else { NETWORK + 8 };
        self.is_v4 == other.is_v4
            && self.frame[addresses..self.transport + 4] == other.frame[addresses..self.transport + 4]
    }

    /// The sum over its pseudo-header, which is all that an offloaded checksum field holds.
    fn pseudo_header_sum(&self) -> u64 {
        let addresses = if self.is_v4 { NETWORK + 12 } else { NETWORK + 8 };
        let length = (self.frame.len() - self.transport) as u64;
        checksum::add(length + u64::from(protocol::TCP), &self.frame[addresses..self.transport])
    }

    /// Whether its checksums are correct, or left to an offload.
    fn is_sound(&self, offload: &Offload) -> bool {
        let is_zero = |sum: u64| checksum::finish(sum) == 0;
        (!self.is_v4 || is_zero(checksum::add(0, &self.frame[NETWORK..self.transport])))
            && (offload.checksum.is_some()
                || is_zero(checksum::add(self.pseudo_header_sum(), &self.frame[self.transport..])))
    }
}

/// How a packet relates to one that left before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The packets belong to different flows, or to none: their order does not matter.
    Other,
    /// The packets belong to the same flow, but cannot be merged: `next` has to leave after `head`.
    Behind,
    /// `next` can be appended to `head`, which makes a frame of this many bytes.
    Next(usize),
}

/// How `next` relates to `head`, which is one segment or several merged ones.
pub fn relation(head: &Packet, next: &Packet) -> Relation {
    // A packet that is no mergeable segment may still belong to the same flow, as one without data does.
    let Some(segment) = GroSegment::of(next.buffer.frame()) else { return Relation::Behind };
    let Some(first) = GroSegment::of(head.buffer.frame()) else { return Relation::Behind };
    if !first.is_same_flow(&segment) {
        return Relation::Other;
    }
    let bytes = first.frame.len() + segment.data_bytes();
    if may_follow(head, &first, next, &segment) && bytes - NETWORK <= IP_BYTES_MAX {
        Relation::Next(bytes)
    } else {
        Relation::Behind
    }
}

fn may_follow(head: &Packet, first: &GroSegment<'_>, next: &Packet, segment: &GroSegment<'_>) -> bool {
    let (done, number) = match head.offload.segmentation {
        Segmentation::None => (first.data_bytes(), 1),
        _ => (usize::from(head.offload.segment_bytes), head.wire().packets as u16),
    };
    let (headers, others) = (first.frame, segment.frame);
    let is_like = |range: core::ops::Range<usize>| headers[range.clone()] == others[range];
    let is_same_network = if first.is_v4 {
        // Type of service, fragmentation flags and TTL must be equal; identifications must ascend by one.
        is_like(NETWORK..NETWORK + 2)
            && is_like(NETWORK + 6..NETWORK + 10)
            && segment.identification() == first.identification().wrapping_add(number)
    } else {
        is_like(NETWORK..NETWORK + 4) && is_like(NETWORK + 6..NETWORK + 8)
    };
    // A long frame is not appended: its own segments would have to have the head's length.
    next.offload.segmentation == Segmentation::None
        && is_like(0..NETWORK)
        && is_same_network
        // A shorter segment ends a frame: segments behind it would be cut at other offsets.
        && first.data_bytes().is_multiple_of(done)
        && segment.data_bytes() <= done
        && segment.sequence() == first.sequence().wrapping_add(first.data_bytes() as u32)
        // Acknowledgment, data offset, window, and the options behind the checksum.
        && is_like(first.transport + 8..first.transport + 13)
        && is_like(first.transport + 14..first.transport + 16)
        && is_like(first.transport + 18..first.data)
        // PSH or FIN ends a frame, and nothing is appended behind it, as in Linux.
        && first.flags() == tcp_flags::ACK
        && segment.flags() & !LAST == tcp_flags::ACK
        // The head was verified when the first segment was appended.
        && (number > 1 || first.is_sound(&head.offload))
        && segment.is_sound(&next.offload)
}

/// Appends a segment that [`relation`] called [`Relation::Next`] to `head`, whose buffer has room for it.
pub fn append(head: &mut Packet, next: &Packet) {
    let (Some(first), Some(segment)) = (GroSegment::of(head.buffer.frame()), GroSegment::of(next.buffer.frame()))
    else {
        return;
    };
    let segment_bytes = match head.offload.segmentation {
        Segmentation::None => first.data_bytes() as u16,
        _ => head.offload.segment_bytes,
    };
    let (is_v4, transport, data, length) = (first.is_v4, first.transport, first.data, first.frame.len());
    let end = length + segment.data_bytes();
    head.buffer.set_length(end);
    let frame = head.buffer.frame_mut();
    frame[length..].copy_from_slice(&segment.frame[data..]);
    // The flags of the last segment are those of the frame; segmenting gives them back to the last one.
    frame[transport + 13] |= segment.flags() & LAST;
    if is_v4 {
        frame[NETWORK + 2..NETWORK + 4].copy_from_slice(&((end - NETWORK) as u16).to_be_bytes());
        frame[NETWORK + 10..NETWORK + 12].fill(0);
        let sum = checksum::finish(checksum::add(0, &frame[NETWORK..transport]));
        frame[NETWORK + 10..NETWORK + 12].copy_from_slice(&sum.to_be_bytes());
    } else {
        frame[NETWORK + 4..NETWORK + 6].copy_from_slice(&((end - transport) as u16).to_be_bytes());
    }
    // The field holds the sum of the pseudo-header alone, as for any checksum that is left to an offload.
    let sum = GroSegment { frame, is_v4, transport, data }.pseudo_header_sum();
    let place = transport + TCP_CHECKSUM;
    frame[place..place + 2].copy_from_slice(&(!checksum::finish(sum)).to_be_bytes());
    head.offload = Offload {
        checksum: Some(PartialChecksum { start: transport as u16, offset: TCP_CHECKSUM as u16 }),
        segmentation: if is_v4 { Segmentation::TcpV4 } else { Segmentation::TcpV6 },
        segment_bytes,
        header_bytes: data as u16,
        marks_congestion_once: false,
    };
}
