//! A queue that carries frames: its ring, the memory its buffers are in, and whom to tell.

use super::chain::{BufferPiece, CHAINS_MAX, Chains, QueueDirection, RingFault};
use super::dirty_log::DirtyLog;
use super::features::{Feature, Features};
use super::guest_memory::GuestMemory;
use super::ring::Ring;
use crate::port::Received;
use crate::port::buffer_pool::BufferPool;
use crate::port::virtio_header::{self, HEADER_BYTES};
use rustix::fd::OwnedFd;
use std::sync::Arc;
use vswitch_core::config::limits::{BURST_BYTES, BURST_PACKETS, ETHERNET_HEADER_BYTES, FRAME_BYTES_MAX};
use vswitch_core::packet::offload::Offload;
use vswitch_core::packet::verdict::{DropReason, Verdict};
use vswitch_core::packet::{FrameBuffer, Packet};

/// Bytes of the longest header in front of a frame.
const HEADER_BYTES_MAX: usize = 12;

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
    wants_kicks: bool,
    /// Why it carries nothing any more.
    fault: Option<RingFault>,
}

impl ActiveQueue {
    pub(super) fn new(parts: QueueParts) -> Self {
        let chains = Chains::new(parts.direction);
        let header_bytes = parts.features.header_bytes();
        let mut queue = Self { parts, header_bytes, chains, wants_kicks: true, fault: None };
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
    /// frames.
    pub(super) fn receive(
        &mut self,
        pool: &mut BufferPool,
        burst: &mut Vec<Packet>,
        packets_max: usize,
    ) -> Option<Received> {
        if self.fault.is_some() {
            return None;
        }
        let before = burst.len();
        let received = self.take_frames(pool, burst, packets_max);
        let is_new = burst.len() > before;
        let received = self.check(received);
        if received.is_some() {
            if is_new {
                self.want_kicks(false);
            }
            self.publish();
        }
        received
    }

    fn take_frames(
        &mut self,
        pool: &mut BufferPool,
        burst: &mut Vec<Packet>,
        packets_max: usize,
    ) -> Result<Received, RingFault> {
        let Self { parts: QueueParts { ring, memory, .. }, header_bytes, chains, .. } = self;
        let packets_max = packets_max.min(BURST_PACKETS);
        if !ring.prefetch(packets_max)? {
            return Ok(Received::Drained);
        }
        chains.clear();
        let (mut bytes, mut received) = (0, Received::MaybeMore);
        while chains.list().len() < packets_max && bytes < BURST_BYTES {
            if !ring.next(memory, chains)? {
                received = Received::Drained;
                break;
            }
            if let Some(chain) = chains.list().last() {
                bytes += chain.bytes as usize;
                if let Some(first) = chains.pieces(chain).first() {
                    memory.prefetch(first.address);
                }
            }
        }
        for chain in chains.list() {
            let frame_bytes = (chain.bytes as usize).saturating_sub(*header_bytes);
            let Some(mut buffer) = pool.take(if frame_bytes > FRAME_BYTES_MAX { 0 } else { frame_bytes }) else {
                ring.rewind(chain);
                received = Received::MaybeMore;
                break;
            };
            match gather(memory, chains.pieces(chain), *header_bytes, frame_bytes, &mut buffer) {
                Ok(offload) => burst.push(Packet::claiming(buffer, offload)),
                Err(fault) => {
                    pool.put(buffer);
                    return Err(fault);
                }
            }
            ring.put_used(chain, 0);
        }
        Ok(received)
    }

    /// Begins a burst of up to `packets_max` frames to the guest.
    pub(super) fn begin_send(&mut self, packets_max: usize) {
        if self.fault.is_none() {
            let fetched = self.parts.ring.prefetch(packets_max);
            self.check(fetched);
        }
    }

    /// Sends a frame to the guest, which sees it once the burst ends; sets its verdict.
    #[inline]
    pub(super) fn send(&mut self, packet: &mut Packet) {
        let put = match self.fault {
            None => self.put_frame(packet),
            Some(fault) => Err(fault),
        };
        packet.verdict = match put {
            Ok(None) => Verdict::Deliver,
            Ok(Some(reason)) => Verdict::Drop(reason),
            Err(fault) => {
                self.fault = Some(fault);
                Verdict::Drop(DropReason::PortDown)
            }
        };
    }

    /// Shows the guest what was sent.
    pub(super) fn end_send(&mut self) {
        if self.fault.is_none() {
            self.check(Ok(()));
        }
        self.publish();
    }

    /// Writes a frame into as many chains as it takes; why it is dropped, if so.
    fn put_frame(&mut self, packet: &mut Packet) -> Result<Option<DropReason>, RingFault> {
        let Self { parts: QueueParts { ring, memory, features, log, .. }, header_bytes, chains, .. } = self;
        let needed = packet.buffer.length() + *header_bytes;
        if needed < ETHERNET_HEADER_BYTES + *header_bytes {
            return Ok(Some(DropReason::PortRefused));
        }
        let chains_max = if features.has(Feature::MergeableBuffers) { CHAINS_MAX } else { 1 };
        chains.clear();
        let (mut room, mut refusal) = (0, None);
        while room < needed {
            if chains.list().len() == chains_max {
                // Another chain would not help: without mergeable buffers a frame has to fit into one.
                refusal = Some(DropReason::PortRefused);
                break;
            }
            if !ring.next(memory, chains)? {
                refusal = Some(DropReason::PortFull);
                break;
            }
            room += chains.list().last().map_or(0, |chain| chain.bytes as usize);
        }
        if refusal.is_some() {
            // What was read waits for the next frame.
            chains.list().first().iter().for_each(|first| ring.rewind(first));
            return Ok(refusal);
        }
        let header = header_of(packet, *features, chains.list().len());
        let frame = packet.buffer.frame_with_header(&header[..*header_bytes]);
        let mut at = 0;
        for chain in chains.list() {
            let written = scatter(memory, chains.pieces(chain), &frame[at..], log.as_deref())?;
            at += written;
            ring.put_used(chain, written as u32);
        }
        Ok(None)
    }
}

/// The header of a frame to the guest, whose end is not sent to a legacy driver.
fn header_of(packet: &Packet, features: Features, chains: usize) -> [u8; HEADER_BYTES_MAX] {
    let mut header = [0; HEADER_BYTES_MAX];
    if !packet.offload.is_none() {
        let mut offload = packet.offload;
        offload.marks_congestion_once &= features.has(Feature::GuestEcn);
        header[..HEADER_BYTES].copy_from_slice(&virtio_header::encode(&offload));
    }
    header[HEADER_BYTES..].copy_from_slice(&(chains as u16).to_le_bytes());
    header
}

/// Copies a frame out of the pieces of its chain. A chain that has no room for a header, or is longer than any frame, becomes an
/// empty frame, which is dropped for its length as any other.
fn gather(
    memory: &GuestMemory,
    pieces: &[BufferPiece],
    header_bytes: usize,
    frame_bytes: usize,
    buffer: &mut FrameBuffer,
) -> Result<Offload, RingFault> {
    if frame_bytes > FRAME_BYTES_MAX {
        buffer.set_length(0);
        return Ok(Offload::NONE);
    }
    let room = buffer.room_with_header(header_bytes);
    let mut at = 0;
    for piece in pieces {
        let slice = memory.slice(piece.address, piece.bytes as usize).ok_or(RingFault::NotMapped)?;
        slice.read(&mut room[at..]);
        at += slice.len();
    }
    if at < header_bytes {
        buffer.set_length(0);
        return Ok(Offload::NONE);
    }
    let offload = match room.first_chunk::<HEADER_BYTES>() {
        Some(header) if header[..2] != [0, 0] => virtio_header::decode(header),
        _ => Offload::NONE,
    };
    buffer.set_length(at - header_bytes);
    Ok(offload)
}

/// Copies bytes into the pieces of a chain; how many.
fn scatter(
    memory: &GuestMemory,
    pieces: &[BufferPiece],
    bytes: &[u8],
    log: Option<&DirtyLog>,
) -> Result<usize, RingFault> {
    let mut at = 0;
    for piece in pieces {
        let slice = memory.slice(piece.address, piece.bytes as usize).ok_or(RingFault::NotMapped)?;
        let count = slice.len().min(bytes.len() - at);
        slice.write(&bytes[at..at + count]);
        if let Some(log) = log {
            log.mark(piece.address, count);
        }
        at += count;
        if at == bytes.len() {
            break;
        }
    }
    Ok(at)
}
