//! A queue that carries frames: its ring, the memory its buffers are in, and whom to tell.

use super::chain::{BufferPiece, CHAINS_MAX, Chain, Chains, HEADER_BYTES_MAX, QueueDirection, RingFault};
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
        chains.clear();
        let has_more = ring.read_ahead(memory, chains, packets_max.min(BURST_PACKETS), BURST_BYTES as u64)?;
        for chain in chains.list() {
            let frame_bytes = (chain.bytes as usize).saturating_sub(*header_bytes);
            let Some(mut buffer) = pool.take(if frame_bytes > FRAME_BYTES_MAX { 0 } else { frame_bytes }) else {
                ring.rewind(chain);
                return Ok(Received::MaybeMore);
            };
            match gather(memory, chains, chain, *header_bytes, &mut buffer) {
                Ok(offload) => burst.push(Packet::claiming(buffer, offload)),
                Err(fault) => {
                    pool.put(buffer);
                    return Err(fault);
                }
            }
            ring.put_used(chain, 0);
        }
        Ok(if has_more { Received::MaybeMore } else { Received::Drained })
    }

    /// Sends frames to the guest, which sees them once all are written; sets their verdicts. `expected` is how many there are.
    pub(super) fn send<'a>(&mut self, packets: impl Iterator<Item = &'a mut Packet>, expected: usize) {
        if self.fault.is_none() {
            let Self { parts: QueueParts { ring, memory, .. }, chains, .. } = self;
            chains.clear();
            let read = ring.read_ahead(memory, chains, expected.min(BURST_PACKETS), u64::MAX);
            self.check(read);
        }
        let mut chains_used = 0;
        for packet in packets {
            let put = match self.fault {
                None => self.put_frame(packet, &mut chains_used),
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
        // What was read and not used waits for the next burst.
        if let Some(unused) = self.chains.list().get(chains_used) {
            self.parts.ring.rewind(unused);
        }
        if self.fault.is_none() {
            self.check(Ok(()));
        }
        self.publish();
    }

    /// Writes a frame into as many chains as it takes, from the one at `first` on; why it is dropped, if so.
    #[inline(always)]
    fn put_frame(&mut self, packet: &mut Packet, first: &mut usize) -> Result<Option<DropReason>, RingFault> {
        let Self { parts: QueueParts { ring, memory, features, log, .. }, header_bytes, chains, .. } = self;
        let frame_bytes = packet.buffer.length();
        let needed = frame_bytes + *header_bytes;
        let Some(chain) = chains.list().get(*first) else { return self.put_long_frame(packet, first) };
        let is_whole = chain.is_one_piece() && needed <= chain.bytes as usize && log.is_none();
        if !is_whole || frame_bytes < ETHERNET_HEADER_BYTES {
            return self.put_long_frame(packet, first);
        }
        let header = header_of(packet, *features, 1);
        let BufferPiece { address, bytes } = chain.first();
        let slice = memory.slice(address, bytes as usize).ok_or(RingFault::NotMapped)?;
        // By its size, which is known in either case; a legacy driver does not get the end.
        match header.first_chunk::<HEADER_BYTES>().filter(|_| *header_bytes == HEADER_BYTES) {
            Some(header) => slice.write_unless_equal(header),
            None => slice.write_unless_equal(&header),
        }
        slice.from(*header_bytes).write(packet.buffer.frame());
        ring.put_used(chain, needed as u32);
        *first += 1;
        Ok(None)
    }

    /// As [`Self::put_frame`], for any frame and any chains.
    #[inline(never)]
    fn put_long_frame(&mut self, packet: &mut Packet, first: &mut usize) -> Result<Option<DropReason>, RingFault> {
        let Self { parts: QueueParts { ring, memory, features, log, .. }, header_bytes, chains, .. } = self;
        let needed = packet.buffer.length() + *header_bytes;
        if needed < ETHERNET_HEADER_BYTES + *header_bytes {
            return Ok(Some(DropReason::PortRefused));
        }
        if *first == chains.list().len() {
            chains.clear();
            *first = 0;
        }
        let chains_max = if features.has(Feature::MergeableBuffers) { CHAINS_MAX } else { 1 };
        let (mut end, mut room) = (*first, 0);
        while room < needed {
            if end - *first == chains_max {
                // Another chain would not help: without mergeable buffers a frame has to fit into one.
                return Ok(Some(DropReason::PortRefused));
            }
            if end == chains.list().len() && !ring.next(memory, chains)? {
                return Ok(Some(DropReason::PortFull));
            }
            room += chains.list()[end].bytes as usize;
            end += 1;
        }
        let header = header_of(packet, *features, end - *first);
        let mut bytes = with_header(&mut packet.buffer, &header, *header_bytes);
        for chain in &chains.list()[*first..end] {
            let written = scatter(memory, chains, chain, bytes, log.as_deref())?;
            bytes = &bytes[written..];
            ring.put_used(chain, written as u32);
        }
        *first = end;
        Ok(None)
    }
}

/// A frame with its header in front, whose end a legacy driver does not get.
#[inline(always)]
fn with_header<'a>(buffer: &'a mut FrameBuffer, header: &[u8; HEADER_BYTES_MAX], header_bytes: usize) -> &'a [u8] {
    // Copied by its size, which is known in either case.
    match header_bytes {
        HEADER_BYTES => buffer.frame_with_header(&header[..HEADER_BYTES]),
        _ => buffer.frame_with_header(header),
    }
}

/// The header of a frame to the guest.
#[inline(always)]
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
#[inline(always)]
fn gather(
    memory: &GuestMemory,
    chains: &Chains,
    chain: &Chain,
    header_bytes: usize,
    buffer: &mut FrameBuffer,
) -> Result<Offload, RingFault> {
    let bytes = chain.bytes as usize;
    if bytes < header_bytes || bytes - header_bytes > FRAME_BYTES_MAX {
        buffer.set_length(0);
        return Ok(Offload::NONE);
    }
    let room = buffer.room_with_header(header_bytes);
    let first = chain.first();
    memory.slice(first.address, first.bytes as usize).ok_or(RingFault::NotMapped)?.read(room);
    if !chain.is_one_piece() {
        let mut at = first.bytes as usize;
        for piece in chains.others(chain) {
            let slice = memory.slice(piece.address, piece.bytes as usize).ok_or(RingFault::NotMapped)?;
            slice.read(&mut room[at..]);
            at += slice.len();
        }
    }
    let offload = match room.first_chunk::<HEADER_BYTES>() {
        Some(header) if header[..2] != [0, 0] => virtio_header::decode(header),
        _ => Offload::NONE,
    };
    buffer.set_length(bytes - header_bytes);
    Ok(offload)
}

/// Copies bytes into the pieces of a chain; how many.
fn scatter(
    memory: &GuestMemory,
    chains: &Chains,
    chain: &Chain,
    bytes: &[u8],
    log: Option<&DirtyLog>,
) -> Result<usize, RingFault> {
    if chain.bytes == 0 {
        // Nobody has checked where it is.
        return Ok(0);
    }
    let mut written = 0;
    for piece in std::iter::once(&chain.first()).chain(chains.others(chain)) {
        let slice = memory.slice(piece.address, piece.bytes as usize).ok_or(RingFault::NotMapped)?;
        let count = slice.len().min(bytes.len() - written);
        slice.write(&bytes[written..written + count]);
        if let Some(log) = log {
            log.mark(piece.address, count);
        }
        written += count;
        if written == bytes.len() {
            break;
        }
    }
    Ok(written)
}
