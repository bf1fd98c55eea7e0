//! A queue that carries frames: its ring, the memory its buffers are in, and whom to tell.

mod frame_bytes;
#[cfg(test)]
mod tests;

use super::burst_ring::BurstRing;
use super::chain::{BufferPiece, CHAINS_MAX, Chain, ChainPieces, Chains, HEADER_BYTES_MAX, QueueDirection, RingFault};
use super::deferred_payloads::DeferredPayloads;
use super::dirty_log::DirtyLog;
use super::features::{Feature, Features};
use super::guest_memory::{GuestMemory, GuestSlice};
use super::ring::Ring;
use crate::port::Received;
use crate::port::buffer_pool::{BufferPool, SMALL_BYTES};
use crate::port::virtio_header::{self, HEADER_BYTES};
use frame_bytes::FrameBytes;
use rustix::fd::OwnedFd;
use std::sync::Arc;
use vswitch_core::config::limits::{BURST_BYTES, BURST_PACKETS, ETHERNET_HEADER_BYTES, FRAME_BYTES_MAX};
use vswitch_core::packet::offload::Offload;
use vswitch_core::packet::verdict::{DropReason, Verdict};
use vswitch_core::packet::{FrameBuffer, PRESENT_BYTES_MIN, Packet};

/// What a queue is made from.
#[derive(Debug)]
pub(super) struct QueueParts {
    pub(super) ring: Ring,
    pub(super) direction: QueueDirection,
    pub(super) memory: Arc<GuestMemory>,
    pub(super) features: Features,
    pub(super) log: Option<Arc<DirtyLog>>,
    /// What the guest waits for; none if it polls.
    pub(super) call: Option<Arc<OwnedFd>>,
}

/// A queue that the guest has started and enabled.
#[derive(Debug)]
pub(super) struct ActiveQueue {
    parts: QueueParts,
    header_bytes: usize,
    chains: Chains,
    /// How many of its chains are used and not given back, because payloads in them are still to be copied.
    deferred: usize,
    wants_kicks: bool,
    /// Why it carries nothing any more.
    fault: Option<RingFault>,
}

impl ActiveQueue {
    pub(super) fn new(parts: QueueParts) -> Self {
        let chains = Chains::new(parts.direction);
        let header_bytes = parts.features.header_bytes();
        let mut queue = Self { parts, header_bytes, chains, deferred: 0, wants_kicks: true, fault: None };
        queue.want_kicks(false);
        queue
    }

    /// Where it is in its ring, as the front end is told.
    pub(super) fn base(&self) -> u32 {
        self.parts.ring.base()
    }

    /// Why it carries nothing any more.
    pub(super) fn fault(&self) -> Option<RingFault> {
        self.fault
    }

    /// Whether a guest that kicks has never written to the ring: its memory is another one than that which it shares.
    pub(super) fn is_untouched(&self) -> bool {
        self.parts.ring.is_untouched()
    }

    /// Has the guest kick for new chains, or not.
    fn want_kicks(&mut self, are_wanted: bool) {
        if self.wants_kicks != are_wanted {
            self.wants_kicks = are_wanted;
            self.parts.ring.want_kicks(are_wanted, self.parts.log.as_deref());
        }
    }

    /// Has the guest kick from now on; whether nothing is available meanwhile.
    pub(super) fn arm(&mut self) -> bool {
        if self.fault.is_some() {
            return true;
        }
        if self.chains.count() > 0 {
            return false;
        }
        self.want_kicks(true);
        !self.parts.ring.is_available()
    }

    /// Interrupts the guest, which may have missed one by a front end that died.
    pub(super) fn interrupt(&self) {
        if let Some(call) = &self.parts.call {
            // The counter can only be full if nobody ever read it, and then it is readable already.
            let _ = rustix::io::write(call, &1_u64.to_ne_bytes());
        }
    }

    fn publish(&mut self) {
        if self.parts.ring.publish(self.parts.log.as_deref()) {
            self.interrupt();
        }
    }

    /// Ends the use of a ring that broke a rule, or whose memory is gone.
    fn check<T>(&mut self, done: Result<T, RingFault>) -> Option<T> {
        let lost = || self.parts.memory.is_lost().then_some(RingFault::MemoryLost);
        match done {
            Ok(value) => match lost() {
                None => return Some(value),
                fault => self.fault = fault,
            },
            // What is gone reads as zeros, which breaks other rules.
            Err(fault) => self.fault = Some(lost().unwrap_or(fault)),
        }
        None
    }

    /// Receives up to `packets_max` frames from the guest. None once the ring has a fault, which comes instead of its last
    /// frames. If there is a place for them, payloads of long frames stay in the guest's memory, and the chains are given back by
    /// [`release`](Self::release).
    pub(super) fn receive(
        &mut self,
        pool: &mut BufferPool,
        burst: &mut Vec<Packet>,
        packets_max: usize,
        payloads: Option<&mut DeferredPayloads>,
    ) -> Option<Received> {
        self.release();
        if self.fault.is_some() {
            return None;
        }
        let before = burst.len();
        let Self { parts: QueueParts { ring, memory, .. }, header_bytes, chains, .. } = self;
        let packets_max = packets_max.min(BURST_PACKETS);
        let mut to = ReceivedBurst { pool, burst, packets_max, payloads, deferred: 0 };
        let received = match ring {
            Ring::Split(ring) => take_frames(ring, chains, memory, *header_bytes, &mut to),
            Ring::Packed(ring) => take_frames(ring, chains, memory, *header_bytes, &mut to),
        };
        self.deferred = to.deferred;
        if let Some(payloads) = to.payloads.filter(|payloads| !payloads.is_empty()) {
            payloads.set_memory(memory);
        }
        let received = self.check(received);
        if received.is_some() && self.deferred == 0 && burst.len() > before {
            self.publish();
            self.want_kicks(false);
        }
        received
    }

    /// Gives back the chains of the last burst, if payloads in them were still to be copied.
    pub(super) fn release(&mut self) {
        let count = std::mem::take(&mut self.deferred);
        if count == 0 || self.fault.is_some() {
            return;
        }
        let Self { parts: QueueParts { ring, memory, .. }, chains, .. } = self;
        let given = match ring {
            Ring::Split(ring) => give_back_taken(ring, chains, memory, count),
            Ring::Packed(ring) => give_back_taken(ring, chains, memory, count),
        };
        if self.check(given).is_some() {
            self.publish();
            self.want_kicks(false);
        }
    }

    /// Sends frames to the guest, which sees them once all are written; sets their verdicts. `expected` is how many there are;
    /// `payloads` are what is deferred of them.
    pub(super) fn send<'a>(
        &mut self,
        packets: impl Iterator<Item = &'a mut Packet>,
        expected: usize,
        payloads: &DeferredPayloads,
    ) {
        if self.fault.is_none() {
            self.check(Ok(()));
        }
        let fault = self.fault;
        let Self { parts: QueueParts { ring, memory, features, log, .. }, header_bytes, chains, .. } = self;
        let to = FrameSink {
            memory,
            features: *features,
            log: log.as_deref(),
            header_bytes: *header_bytes,
            packets_expected: expected,
            payloads,
        };
        let put = match ring {
            Ring::Split(ring) => put_frames(ring, chains, &to, packets, fault),
            Ring::Packed(ring) => put_frames(ring, chains, &to, packets, fault),
        };
        if fault.is_none() {
            self.check(put);
        }
        self.publish();
    }
}

/// Where frames of a guest go to.
struct ReceivedBurst<'a> {
    pool: &'a mut BufferPool,
    burst: &'a mut Vec<Packet>,
    packets_max: usize,
    /// Where payloads may stay in the guest's memory, if they may.
    payloads: Option<&'a mut DeferredPayloads>,
    /// How many chains are used and not given back.
    deferred: usize,
}

/// A frame of at most so many bytes is copied whole: to copy its payload later would cost more than to copy it twice.
pub(super) const WHOLE_BYTES_MAX: usize = 512;

/// Copies frames of a guest into buffers of the pool, and gives their chains back unless payloads stay in them.
#[inline(always)]
fn take_frames(
    ring: &mut impl BurstRing,
    chains: &mut Chains,
    memory: &GuestMemory,
    header_bytes: usize,
    to: &mut ReceivedBurst<'_>,
) -> Result<Received, RingFault> {
    let packets_max = to.packets_max;
    let short_bytes_max = if to.payloads.is_some() { WHOLE_BYTES_MAX } else { SMALL_BYTES };
    ring.read(memory, chains, packets_max)?;
    let (waiting, pieces) = chains.waiting_mut();
    let (mut used, mut bytes) = (0, 0);
    for chain in &waiting[..waiting.len().min(packets_max)] {
        // Without room for a header it wraps around, and is no short frame.
        let frame_bytes = (chain.bytes as usize).wrapping_sub(header_bytes);
        if chain.is_one_piece() && frame_bytes <= short_bytes_max {
            let BufferPiece { address, bytes } = chain.first();
            let slice = memory.slice(address, bytes as usize).ok_or(RingFault::NotMapped)?;
            let Some(mut buffer) = to.pool.take(frame_bytes) else { break };
            let place = buffer.place_with_header(header_bytes, frame_bytes);
            slice.read(place);
            // Whether the header says that anything is left undone.
            match place.first_chunk().copied().map(u16::from_ne_bytes) {
                Some(0) => to.burst.push(Packet::new(buffer)),
                _ => {
                    let offload = offload_of(place);
                    to.burst.push(Packet::claiming(buffer, offload));
                }
            }
        } else {
            // A burst of short frames is no longer than this.
            if bytes >= BURST_BYTES {
                break;
            }
            bytes += chain.bytes as usize;
            if !push_long_frame(memory, pieces, chain, header_bytes, to)? {
                break;
            }
        }
        used += 1;
    }
    let has_more = used == packets_max || used < waiting.len();
    if to.payloads.as_ref().is_some_and(|payloads| !payloads.is_empty()) {
        to.deferred = used;
    } else if used > 0 {
        give_back_taken(ring, chains, memory, used)?;
    }
    Ok(if has_more { Received::MaybeMore } else { Received::Drained })
}

/// Gives back chains whose frames have been copied, and reads those of the next burst.
#[inline(always)]
fn give_back_taken(
    ring: &mut impl BurstRing,
    chains: &mut Chains,
    memory: &GuestMemory,
    count: usize,
) -> Result<(), RingFault> {
    ring.put_used(&chains.waiting()[..count], |_| 0);
    chains.forget(count);
    ring.read_ahead(memory, chains)
}

/// What the header in front of a frame says is left undone.
#[inline(never)]
fn offload_of(frame_with_header: &[u8]) -> Offload {
    frame_with_header.first_chunk().map_or(Offload::NONE, virtio_header::decode)
}

/// Adds a frame that is copied out of the pieces of its chain, or the beginning of one; whether a buffer was free. A chain that has no room for a header,
/// or is longer than any frame, becomes an empty frame, which is dropped for its length as any other.
#[inline(never)]
fn push_long_frame(
    memory: &GuestMemory,
    pieces: &ChainPieces,
    chain: &Chain,
    header_bytes: usize,
    ReceivedBurst { pool, burst, payloads, .. }: &mut ReceivedBurst<'_>,
) -> Result<bool, RingFault> {
    let frame_bytes = (chain.bytes as usize).checked_sub(header_bytes).filter(|bytes| *bytes <= FRAME_BYTES_MAX);
    let Some(mut buffer) = pool.take(frame_bytes.unwrap_or(0)) else { return Ok(false) };
    let Some(frame_bytes) = frame_bytes else {
        buffer.set_length(0);
        burst.push(Packet::new(buffer));
        return Ok(true);
    };
    let payloads = payloads.as_mut().filter(|payloads| frame_bytes > WHOLE_BYTES_MAX && payloads.has_room());
    let present_bytes = if payloads.is_some() { PRESENT_BYTES_MIN } else { frame_bytes };
    let place = buffer.place_with_header(header_bytes, present_bytes);
    if let Err(fault) = gather(memory, pieces, chain, place) {
        pool.put(buffer);
        return Err(fault);
    }
    let offload = offload_of(place);
    if let Some(payloads) = payloads {
        let first = chain.first();
        let of_chain = std::iter::once(&first).chain(pieces.others(chain));
        buffer.defer(payloads.add(of_chain, header_bytes + present_bytes));
    }
    burst.push(Packet::claiming(buffer, offload));
    Ok(true)
}

/// Copies the pieces of a chain, as far as there is room, and checks that all are mapped.
fn gather(memory: &GuestMemory, pieces: &ChainPieces, chain: &Chain, room: &mut [u8]) -> Result<(), RingFault> {
    let mut at = 0;
    for piece in std::iter::once(&chain.first()).chain(pieces.others(chain)) {
        let slice = memory.slice(piece.address, piece.bytes as usize).ok_or(RingFault::NotMapped)?;
        slice.read(room.get_mut(at..).unwrap_or_default());
        at += slice.len();
    }
    Ok(())
}

/// Where frames are written to.
struct FrameSink<'a> {
    memory: &'a GuestMemory,
    features: Features,
    log: Option<&'a DirtyLog>,
    header_bytes: usize,
    packets_expected: usize,
    payloads: &'a DeferredPayloads,
}

/// Writes frames into chains of a guest, gives these back, and sets the verdicts of the packets.
#[inline(always)]
fn put_frames<'a>(
    ring: &mut impl BurstRing,
    chains: &mut Chains,
    to: &FrameSink<'_>,
    mut packets: impl Iterator<Item = &'a mut Packet>,
    fault: Option<RingFault>,
) -> Result<(), RingFault> {
    let (header_bytes, has_log) = (to.header_bytes, to.log.is_some());
    let mut done = match fault {
        None => ring.read(to.memory, chains, to.packets_expected.min(BURST_PACKETS)),
        Some(fault) => Err(fault),
    };
    let mut next = packets.next();
    while done.is_ok() && next.is_some() {
        // Frames that fit into a chain each; these are given back together.
        let (waiting, _) = chains.waiting_mut();
        let mut used = 0;
        for chain in waiting {
            let Some(packet) = next.as_mut() else { break };
            let frame_bytes = packet.buffer.length();
            let needed = frame_bytes + header_bytes;
            let fits = chain.is_one_piece() && needed <= chain.bytes as usize;
            if !fits || frame_bytes < ETHERNET_HEADER_BYTES || has_log {
                break;
            }
            done = put_whole_frame(packet, chain, to);
            if done.is_err() {
                break;
            }
            chain.bytes = needed as u32;
            packet.verdict = Verdict::Deliver;
            used += 1;
            next = packets.next();
        }
        give_back(ring, chains, used);
        if done.is_ok()
            && let Some(packet) = next.take()
        {
            let put = put_long_frame(ring, chains, to, packet);
            packet.verdict = match put {
                Ok(reason) => reason.map_or(Verdict::Deliver, Verdict::Drop),
                Err(_) => Verdict::Drop(DropReason::PortDown),
            };
            done = put.map(drop);
            next = packets.next();
        }
    }
    for packet in next.into_iter().chain(packets) {
        packet.verdict = Verdict::Drop(DropReason::PortDown);
    }
    done.and_then(|()| ring.read_ahead(to.memory, chains))
}

/// Gives back the chains that are next, with as many bytes written as they say.
#[inline(always)]
fn give_back(ring: &mut impl BurstRing, chains: &mut Chains, count: usize) {
    ring.put_used(&chains.waiting()[..count], |chain| chain.bytes);
    chains.forget(count);
}

/// Writes a frame into a chain of one piece that has room for it.
#[inline(always)]
fn put_whole_frame(packet: &Packet, chain: &Chain, to: &FrameSink<'_>) -> Result<(), RingFault> {
    let BufferPiece { address, bytes } = chain.first();
    let slice = to.memory.slice(address, bytes as usize).ok_or(RingFault::NotMapped)?;
    // A legacy driver does not get the end of the header.
    let is_legacy = to.header_bytes == HEADER_BYTES;
    if !packet.offload.is_none() {
        slice.write(&header_of(packet, to.features, 1)[..to.header_bytes]);
    } else if is_legacy {
        slice.write_unless_equal(&[0; HEADER_BYTES]);
    } else {
        slice.write_unless_equal(&PLAIN_HEADER);
    }
    let (place, frame) = (slice.from(to.header_bytes), packet.buffer.frame());
    place.write(frame);
    if let Some(payload) = packet.buffer.deferred() {
        FrameBytes::new(&[], to.payloads.slices(payload)).write_to(place.from(frame.len()));
    }
    Ok(())
}

/// Writes a frame into as many chains as it takes; why it is dropped, if so.
#[inline(never)]
fn put_long_frame(
    ring: &mut impl BurstRing,
    chains: &mut Chains,
    to: &FrameSink<'_>,
    packet: &mut Packet,
) -> Result<Option<DropReason>, RingFault> {
    let needed = packet.buffer.length() + to.header_bytes;
    if needed < ETHERNET_HEADER_BYTES + to.header_bytes {
        return Ok(Some(DropReason::PortRefused));
    }
    let chains_max = if to.features.has(Feature::MergeableBuffers) { CHAINS_MAX } else { 1 };
    let (mut count, mut room) = (0, 0);
    while room < needed {
        if count == chains_max {
            // Another chain would not help: without mergeable buffers a frame has to fit into one.
            return Ok(Some(DropReason::PortRefused));
        }
        if count == chains.count() {
            ring.read(to.memory, chains, count + 1)?;
        }
        let Some(chain) = chains.waiting().get(count) else { return Ok(Some(DropReason::PortFull)) };
        room += chain.bytes as usize;
        count += 1;
    }
    let header = header_of(packet, to.features, count);
    let deferred = packet.buffer.deferred();
    let present = with_header(&mut packet.buffer, &header, to.header_bytes);
    let mut bytes = FrameBytes::new(present, deferred.into_iter().flat_map(|payload| to.payloads.slices(payload)));
    let (waiting, pieces) = chains.waiting_mut();
    for chain in &mut waiting[..count] {
        chain.bytes = scatter(to, pieces, chain, &mut bytes)? as u32;
    }
    give_back(ring, chains, count);
    Ok(None)
}

/// What is here of a frame, with its header in front, whose end a legacy driver does not get.
#[inline(always)]
fn with_header<'a>(buffer: &'a mut FrameBuffer, header: &[u8; HEADER_BYTES_MAX], header_bytes: usize) -> &'a [u8] {
    // Copied by its size, which is known in either case.
    match header_bytes {
        HEADER_BYTES => buffer.frame_with_header(&header[..HEADER_BYTES]),
        _ => buffer.frame_with_header(header),
    }
}

/// The header of a frame that is whole and in one buffer.
const PLAIN_HEADER: [u8; HEADER_BYTES_MAX] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// The header of a frame to the guest.
#[inline(never)]
fn header_of(packet: &Packet, features: Features, chains: usize) -> [u8; HEADER_BYTES_MAX] {
    let mut header = [0; HEADER_BYTES_MAX];
    let mut offload = packet.offload;
    offload.marks_congestion_once &= features.has(Feature::GuestEcn);
    header[..HEADER_BYTES].copy_from_slice(&virtio_header::encode(&offload));
    header[HEADER_BYTES..].copy_from_slice(&(chains as u16).to_le_bytes());
    header
}

/// Copies the next bytes of a frame into the pieces of a chain; how many.
fn scatter<'a>(
    to: &FrameSink<'_>,
    pieces: &ChainPieces,
    chain: &Chain,
    bytes: &mut FrameBytes<'a, impl Iterator<Item = GuestSlice<'a>>>,
) -> Result<usize, RingFault> {
    if chain.bytes == 0 {
        // Nobody has checked where it is.
        return Ok(0);
    }
    let mut written = 0;
    for piece in std::iter::once(&chain.first()).chain(pieces.others(chain)) {
        let slice = to.memory.slice(piece.address, piece.bytes as usize).ok_or(RingFault::NotMapped)?;
        let count = bytes.write_to(slice);
        if let Some(log) = to.log {
            log.mark(piece.address, count);
        }
        written += count;
        if count < slice.len() {
            break;
        }
    }
    Ok(written)
}
