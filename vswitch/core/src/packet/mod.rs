//! A packet: the bytes of a frame, and what has been learnt about them.

pub(crate) mod checksum;
pub(crate) mod fragment_coverage;
pub mod gro;
pub mod gso;
pub mod headers;
pub mod ip_fragments;
pub mod offload;
pub(crate) mod policer;
pub mod verdict;

use crate::config::ids::EniIndex;
use crate::config::limits::{BURST_PACKETS, FRAME_BYTES_MAX};
use crate::packet::headers::Headers;
use crate::packet::offload::{Offload, Wire};
use crate::packet::verdict::{Decision, DropReason, Verdict};
use alloc::boxed::Box;
use alloc::vec;
use core::ops::Range;

/// Bytes before a frame: room for a header that the port's kernel or guest expects directly in front of it, so that
/// both cross in one piece.
pub const HEADROOM_BYTES: usize = 16;

/// Bytes of a frame that are in its buffer at least: all headers that the fast path reads and writes.
pub const PRESENT_BYTES_MIN: usize = 128;

/// Room for one frame, allocated once and reused. Frames begin at a cache line boundary. The default has no room.
///
/// The end of a long frame may be [deferred](Self::defer): still where its sender has it. Only the fast path, and a port that can
/// copy it from there, handle such a frame; everybody else has it fetched first.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    /// The headroom, then the room for the frame.
    bytes: Box<[u8]>,
    /// Bytes of the frame that are here.
    present_bytes: u32,
    /// Bytes of the frame that are deferred.
    deferred_bytes: u16,
    start: u8,
    /// Which of the deferred payloads of its burst.
    deferred_number: u8,
}

const _: () = {
    assert!(PRESENT_BYTES_MIN >= NETWORK_MAX + TCP_HEADER_BYTES_MAX);
    assert!(FRAME_BYTES_MAX - PRESENT_BYTES_MIN <= u16::MAX as usize);
    assert!(HEADROOM_BYTES + CACHE_LINE_BYTES <= u8::MAX as usize);
    assert!(BURST_PACKETS <= u8::MAX as usize);
};

/// The end of a frame that its sender still has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeferredPayload {
    /// Which of those of its burst.
    pub number: u8,
    /// How long it is.
    pub bytes: usize,
}

/// Bytes of the headers of Ethernet and IPv6.
const NETWORK_MAX: usize = 54;
const TCP_HEADER_BYTES_MAX: usize = 60;
const CACHE_LINE_BYTES: usize = 64;
/// Bytes of an 802.1Q tag.
const VLAN_TAG_BYTES: usize = 4;

impl FrameBuffer {
    /// An empty buffer with room for `capacity_bytes`.
    pub fn with_capacity(capacity_bytes: usize) -> Self {
        // Room to move the beginning of the frame to a boundary.
        let bytes = vec![0; HEADROOM_BYTES + capacity_bytes + CACHE_LINE_BYTES - 1].into_boxed_slice();
        // If an allocation cannot be aligned, the buffer still works, only slower.
        let skipped = bytes[HEADROOM_BYTES..].as_ptr().align_offset(CACHE_LINE_BYTES);
        let start = HEADROOM_BYTES + if skipped < CACHE_LINE_BYTES { skipped } else { 0 };
        Self { start: start as u8, bytes, present_bytes: 0, deferred_bytes: 0, deferred_number: 0 }
    }

    /// How many bytes a frame in this buffer may have.
    #[inline]
    pub fn capacity(&self) -> usize {
        // Without the part reserved for alignment, so that all buffers of a size have the same capacity.
        self.bytes.len() + 1 - CACHE_LINE_BYTES - HEADROOM_BYTES
    }

    /// All bytes of the buffer, for a port to receive into; [`FrameBuffer::set_length`] then says how many were used.
    pub fn room(&mut self) -> &mut [u8] {
        self.room_with_header(0)
    }

    /// All bytes of the buffer, preceded by room for a header of up to [`HEADROOM_BYTES`].
    #[inline]
    pub fn room_with_header(&mut self, header_bytes: usize) -> &mut [u8] {
        let (start, end) = (self.start as usize - header_bytes, self.start as usize + self.capacity());
        &mut self.bytes[start..end]
    }

    /// Declares the first `length_bytes` to be the frame; limited to the capacity.
    #[inline]
    pub fn set_length(&mut self, length_bytes: usize) {
        // Bounded here, so that a wrong length from outside cannot lead to a read behind the buffer.
        self.present_bytes = length_bytes.min(self.capacity()) as u32;
        self.deferred_bytes = 0;
    }

    /// As [`FrameBuffer::set_length`]; returns the place of the frame, preceded by a header of up to [`HEADROOM_BYTES`].
    #[inline]
    pub fn place_with_header(&mut self, header_bytes: usize, length_bytes: usize) -> &mut [u8] {
        self.set_length(length_bytes);
        let start = self.start as usize;
        &mut self.bytes[start - header_bytes..start + self.present_bytes as usize]
    }

    /// Says that another `bytes` of the frame follow, which its sender still has as the deferred payload of this number. Limited
    /// to the capacity.
    #[inline]
    pub fn defer(&mut self, DeferredPayload { number, bytes }: DeferredPayload) {
        let room = self.capacity() - self.present_bytes as usize;
        self.deferred_bytes = u16::try_from(bytes.min(room)).unwrap_or(u16::MAX);
        self.deferred_number = number;
    }

    /// What of the frame its sender still has.
    #[inline]
    pub const fn deferred(&self) -> Option<DeferredPayload> {
        match self.deferred_bytes {
            0 => None,
            bytes => Some(DeferredPayload { number: self.deferred_number, bytes: bytes as usize }),
        }
    }

    /// Makes the frame whole; returns the place of what was deferred, which is to be filled.
    pub fn place_of_deferred(&mut self) -> &mut [u8] {
        let start = self.start as usize + self.present_bytes as usize;
        let bytes = usize::from(core::mem::take(&mut self.deferred_bytes));
        self.present_bytes += bytes as u32;
        &mut self.bytes[start..start + bytes]
    }

    /// Copies `frame` into the buffer; limited to the capacity.
    pub fn fill(&mut self, frame: &[u8]) {
        self.set_length(frame.len());
        let length = self.present_bytes as usize;
        self.frame_mut().copy_from_slice(&frame[..length]);
    }

    /// The frame, or what is here of it.
    #[inline]
    pub fn frame(&self) -> &[u8] {
        &self.bytes[self.place()]
    }

    #[inline(always)]
    fn place(&self) -> Range<usize> {
        self.start as usize..self.start as usize + self.present_bytes as usize
    }

    /// The length of the whole frame, bytes.
    #[inline]
    pub fn length(&self) -> usize {
        self.present_bytes as usize + usize::from(self.deferred_bytes)
    }

    /// The frame, or what is here of it, for changes in place.
    #[inline]
    pub fn frame_mut(&mut self) -> &mut [u8] {
        let place = self.place();
        &mut self.bytes[place]
    }

    /// The frame, or what is here of it, preceded by a header of up to [`HEADROOM_BYTES`], in one piece.
    #[inline]
    pub fn frame_with_header(&mut self, header: &[u8]) -> &[u8] {
        let start = self.start as usize;
        self.bytes[start - header.len()..start].copy_from_slice(header);
        &self.bytes[start - header.len()..][..header.len() + self.present_bytes as usize]
    }

    /// Prefetches the headers of the frame.
    #[inline]
    pub(crate) fn prefetch(&self) {
        // The address is computed, not read: prefetching must not wait for memory.
        crate::hw::prefetch::prefetch_at(self.bytes.as_ptr().wrapping_add(self.start as usize));
    }
}

/// A mark that the data path itself put on a packet; never derived from what a guest sent (§3.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Marker {
    /// Ordinary traffic.
    #[default]
    None,
    /// Forwarded by a load balancer of the platform.
    LoadBalancer,
    /// A reachability probe of the platform.
    Probe,
    /// From outside, or to an external address: not translated yet until it is at the ENI that it is for.
    Uplink,
}

/// One packet on its way through the switch. All of it except the headers is one cache line: the fast path touches no
/// more.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Packet {
    /// The frame.
    pub buffer: FrameBuffer,
    /// What its sender left undone: as claimed, until [`Packet::parse`] has verified it.
    // Here it is aligned to eight bytes, and written as one and a half words.
    pub offload: Offload,
    /// What the data path knows about its origin.
    pub marker: Marker,
    /// Its fate so far. Forwarding sets it; ingress expects [`Verdict::Forward`].
    pub verdict: Verdict,
    /// The last decision it met; none if it ended before the first.
    pub decision: Option<Decision>,
    /// The ENI that it was forwarded to last.
    pub receiver: EniIndex,
    pub(crate) headers: Headers,
}

impl Packet {
    /// A packet that has not been parsed.
    #[inline]
    pub fn new(buffer: FrameBuffer) -> Self {
        Self {
            buffer,
            marker: Marker::None,
            offload: Offload::NONE,
            // A packet that nothing decides about is dropped.
            verdict: Verdict::Drop(DropReason::EniGone),
            decision: None,
            receiver: EniIndex(u32::MAX),
            headers: Headers::default(),
        }
    }

    /// A packet whose sender claims to have left something undone.
    #[inline]
    pub fn claiming(buffer: FrameBuffer, offload: Offload) -> Self {
        Self { offload, ..Self::new(buffer) }
    }

    /// Parses the headers, and verifies against them what the sender left undone. Egress does so itself; only a packet
    /// that enters at an ENI's ingress needs this call.
    ///
    /// # Errors
    /// The reason under which the frame is to be dropped.
    #[inline]
    pub fn parse(&mut self) -> Result<(), DropReason> {
        // Without a claim there is nothing to verify, as for nearly all small frames.
        if self.offload.is_none() {
            self.offload = Offload::NONE;
            return match headers::parse::read(self.buffer.frame(), &mut self.headers) {
                Err(DropReason::VlanTagged) => self.parse_without_priority(),
                read => read,
            };
        }
        // A dropped frame counts as one packet, whatever it claims.
        let mut claimed = core::mem::replace(&mut self.offload, Offload::NONE);
        match headers::parse::read(self.buffer.frame(), &mut self.headers) {
            Err(DropReason::VlanTagged) => {
                self.parse_without_priority()?;
                // The guest counted its offsets with the tag, which is gone now.
                claimed.move_forward(VLAN_TAG_BYTES as u16);
            }
            read => read?,
        }
        self.offload = offload::settle(claimed, &self.headers, self.buffer.frame_mut())?;
        Ok(())
    }

    /// Takes off a tag that names no VLAN and only a priority (IEEE 802.1Q §6.9.3), and parses what is behind it.
    #[cold]
    fn parse_without_priority(&mut self) -> Result<(), DropReason> {
        const TAG_AT: usize = 12;
        const VLAN: u16 = 0x0fff;
        let frame = self.buffer.frame_mut();
        let has_priority_only = match *frame.get(TAG_AT..).unwrap_or_default() {
            [0x81, 0x00, high, low, ..] => u16::from_be_bytes([high, low]) & VLAN == 0,
            _ => false,
        };
        if !has_priority_only {
            return Err(DropReason::VlanTagged);
        }
        frame.copy_within(TAG_AT + VLAN_TAG_BYTES.., TAG_AT);
        self.buffer.set_length(self.buffer.length() - VLAN_TAG_BYTES);
        headers::parse::read(self.buffer.frame(), &mut self.headers)
    }

    /// Reads the headers of a packet that took the fast path, which leaves them unread: whoever completes a checksum, or cuts a frame
    /// into segments, needs them.
    pub fn read_headers(&mut self) {
        if self.headers.end == 0 && headers::parse::read(self.buffer.frame(), &mut self.headers).is_err() {
            debug_assert!(false, "the fast path takes plain packets");
        }
    }

    /// The window scale that it offers, if it is a SYN with that option.
    pub(crate) fn window_scale(&self) -> Option<u8> {
        let Headers { transport_offset, end, tcp_flags, .. } = self.headers;
        let is_syn = tcp_flags & headers::tcp_flags::SYN != 0;
        let segment = self.buffer.frame().get(transport_offset as usize..end as usize)?;
        if is_syn { headers::tcp_options::window_scale(segment) } else { None }
    }

    /// What the packet is on the wire.
    #[inline]
    pub fn wire(&self) -> Wire {
        self.offload.wire(self.buffer.length())
    }

    /// The longest frame that it becomes on the wire, bytes.
    #[inline]
    pub fn longest_frame_bytes(&self) -> usize {
        self.offload.longest_frame_bytes(self.buffer.length())
    }

    /// Completes the checksum that the sender left undone. Only for a packet that is not to be segmented.
    // Behind the end of the packet there may be padding, which the sum does not cover.
    pub fn complete_checksum(&mut self) {
        self.read_headers();
        let end = self.headers.end as usize;
        if let Some(partial) = self.offload.checksum.take()
            && let Some(bytes) = self.buffer.frame_mut().get_mut(usize::from(partial.start)..end)
        {
            checksum::complete(bytes, usize::from(partial.offset));
        }
    }
}
