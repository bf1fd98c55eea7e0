//! A port in memory, with a test or benchmark as its guest. Deterministic, bounded, and without allocation once warm.

use crate::port::buffer_pool::{BufferPool, SMALL_BYTES};
use crate::port::{Port, Received, drop_all};
use crossbeam::queue::ArrayQueue;
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, OwnedFd};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use vswitch_core::config::ids::EniId;
use vswitch_core::config::limits::BURST_BYTES;
use vswitch_core::packet::offload::{Offload, Offloads};
use vswitch_core::packet::verdict::{DropReason, Verdict};
use vswitch_core::packet::{FrameBuffer, Packet};

/// How many frames a memory port holds in each direction by default.
const FRAMES_MAX_DEFAULT: usize = 256;

/// Frames on their way in one direction, and empty buffers on their way back.
#[derive(Debug)]
struct FrameQueue {
    frames: ArrayQueue<(FrameBuffer, Offload)>,
    spare: ArrayQueue<FrameBuffer>,
}

impl FrameQueue {
    fn new(frames_max: usize) -> Self {
        Self { frames: ArrayQueue::new(frames_max), spare: ArrayQueue::new(frames_max) }
    }

    fn push(&self, frame: &[u8], offload: Offload) -> bool {
        if self.frames.is_full() {
            return false;
        }
        // Spare buffers may be of any size that was needed before.
        let spare = self.spare.pop().filter(|spare| spare.capacity() >= frame.len());
        let mut buffer = spare.unwrap_or_else(|| FrameBuffer::with_capacity(frame.len().max(SMALL_BYTES)));
        buffer.fill(frame);
        self.frames.push((buffer, offload)).is_ok()
    }

    fn pop<T>(&self, take: impl FnOnce(&[u8], Offload) -> T) -> Option<T> {
        let (buffer, offload) = self.frames.pop()?;
        let taken = take(buffer.frame(), offload);
        // If there is no room, there are enough spare buffers.
        let _ = self.spare.push(buffer);
        Some(taken)
    }
}

#[derive(Debug)]
struct MemoryLink {
    from_guest: FrameQueue,
    to_guest: FrameQueue,
    is_failed: AtomicBool,
    /// What the guest accepts as offload requests, as bits.
    offloads: AtomicU8,
    /// Frames of this length are refused; none if zero.
    refused_bytes: AtomicUsize,
    ready_fd: Option<OwnedFd>,
}

/// The switch's end.
#[derive(Debug)]
pub struct MemoryPort(Arc<MemoryLink>);

/// The guest's end. Clones are the same end.
#[derive(Clone, Debug)]
pub struct MemoryGuest(Arc<MemoryLink>);

impl MemoryGuest {
    /// Sends a frame to the switch; false if the queue is full.
    pub fn inject(&self, frame: &[u8]) -> bool {
        self.inject_with_offload(frame, Offload::NONE)
    }

    /// Sends a frame with an offload request to the switch.
    pub fn inject_with_offload(&self, frame: &[u8], offload: Offload) -> bool {
        let is_taken = self.0.from_guest.push(frame, offload);
        if let Some(ready_fd) = &self.0.ready_fd {
            // The counter is only full if nobody ever read it, and then it is already readable.
            let _ = rustix::io::write(ready_fd, &1_u64.to_ne_bytes());
        }
        is_taken
    }

    /// The next frame from the switch.
    pub fn collect(&self) -> Option<Vec<u8>> {
        self.collect_with(<[u8]>::to_vec)
    }

    /// The next frame from the switch, passed to `take` in place.
    pub fn collect_with<T>(&self, take: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.0.to_guest.pop(|frame, _| take(frame))
    }

    /// The next frame from the switch, with its offload request.
    pub fn collect_with_offload(&self) -> Option<(Vec<u8>, Offload)> {
        self.0.to_guest.pop(|frame, offload| (frame.to_vec(), offload))
    }

    /// Sets which offload requests the guest accepts, for ports that are opened later. By default it accepts none.
    pub fn set_offloads(&self, offloads: Offloads) {
        self.0.offloads.store(offloads.bits(), Ordering::Release);
    }

    /// Makes the port refuse frames of this length, like a kernel that does not understand them.
    pub fn refuse(&self, frame_bytes: usize) {
        self.0.refused_bytes.store(frame_bytes, Ordering::Release);
    }

    /// Frames that wait to be collected.
    pub fn waiting(&self) -> usize {
        self.0.to_guest.frames.len()
    }

    /// Makes the port fail at its next use (true), or lets it be opened again (false).
    pub fn set_failed(&self, is_failed: bool) {
        self.0.is_failed.store(is_failed, Ordering::Release);
        if let Some(ready_fd) = &self.0.ready_fd {
            let _ = rustix::io::write(ready_fd, &1_u64.to_ne_bytes());
        }
    }
}

impl MemoryPort {
    fn check(&self) -> io::Result<()> {
        if self.0.is_failed.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "memory port: disconnected by its guest"));
        }
        Ok(())
    }
}

impl Port for MemoryPort {
    fn receive(&mut self, pool: &mut BufferPool, burst: &mut Vec<Packet>, packets_max: usize) -> io::Result<Received> {
        self.check()?;
        let mut bytes = 0;
        for _ in 0..packets_max {
            // Long frames end the burst early, as with real ports.
            if bytes >= BURST_BYTES {
                break;
            }
            // A queue in memory could tell a frame's length in advance, but this does as real ports do.
            let Some(mut large) = pool.take_large() else { break };
            let received = self.0.from_guest.pop(|frame, offload| {
                large.fill(frame);
                offload
            });
            let Some(offload) = received else {
                pool.put(large);
                return Ok(Received::Drained);
            };
            bytes += large.frame().len();
            burst.push(Packet::claiming(pool.exchange(large), offload));
        }
        Ok(Received::MaybeMore)
    }

    fn send(&mut self, burst: &mut [Packet]) -> io::Result<()> {
        self.check().inspect_err(|_| drop_all(burst, DropReason::PortDown))?;
        let refused_bytes = self.0.refused_bytes.load(Ordering::Acquire);
        for packet in burst {
            let frame = packet.buffer.frame();
            packet.verdict = if refused_bytes > 0 && frame.len() == refused_bytes {
                Verdict::Drop(DropReason::PortRefused)
            } else if self.0.to_guest.push(frame, packet.offload) {
                Verdict::Deliver
            } else {
                Verdict::Drop(DropReason::PortFull)
            };
        }
        Ok(())
    }

    fn offloads(&self) -> Offloads {
        Offloads::from_bits(self.0.offloads.load(Ordering::Acquire))
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        self.0.ready_fd.as_ref().map(AsFd::as_fd)
    }
}

/// By ENI and rx queue.
type MemoryLinks = BTreeMap<(EniId, usize), Arc<MemoryLink>>;

/// Gives access to the guests' ends of memory ports, by ENI. Clones are the same hub.
#[derive(Clone, Debug)]
pub struct MemoryHub {
    links: Arc<Mutex<MemoryLinks>>,
    frames_max: usize,
    has_ready_fds: bool,
}

impl Default for MemoryHub {
    fn default() -> Self {
        Self::new(FRAMES_MAX_DEFAULT, false)
    }
}

impl MemoryHub {
    /// A hub whose ports hold `frames_max` frames in each direction. If each has an event descriptor, injecting wakes a
    /// sleeping worker, at the cost of a system call; otherwise workers must be turned manually.
    pub fn new(frames_max: usize, has_ready_fds: bool) -> Self {
        Self { links: Arc::default(), frames_max, has_ready_fds }
    }

    /// The guest's end of an ENI's port, whether or not the port is open.
    pub fn guest(&self, eni: &EniId) -> MemoryGuest {
        self.guest_rx_queue(eni, 0)
    }

    /// The guest's end of one rx queue of an ENI's port.
    pub fn guest_rx_queue(&self, eni: &EniId, rx_queue: usize) -> MemoryGuest {
        MemoryGuest(self.link(eni, rx_queue))
    }

    pub(crate) fn open(&self, eni: &EniId, rx_queue: usize) -> MemoryPort {
        MemoryPort(self.link(eni, rx_queue))
    }

    fn link(&self, eni: &EniId, rx_queue: usize) -> Arc<MemoryLink> {
        let make = || {
            let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
            let ready_fd = if self.has_ready_fds { eventfd(0, flags).ok() } else { None };
            let (from_guest, to_guest) = (FrameQueue::new(self.frames_max), FrameQueue::new(self.frames_max));
            let (is_failed, offloads, refused_bytes) = (AtomicBool::new(false), AtomicU8::new(0), AtomicUsize::new(0));
            Arc::new(MemoryLink { from_guest, to_guest, is_failed, offloads, refused_bytes, ready_fd })
        };
        Arc::clone(self.links.lock().entry((eni.clone(), rx_queue)).or_insert_with(make))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::buffer_pool::PoolSize;

    #[test]
    fn frames_pass_in_order_and_within_bounds() {
        let hub = MemoryHub::new(2, true);
        let eni = EniId::from("eni-1");
        let (guest, mut port) = (hub.guest(&eni), hub.open(&eni, 0));
        assert!(guest.inject(b"one") && guest.inject(b"two"));
        assert!(!guest.inject(b"three"), "the queue holds two");
        let (mut pool, mut burst) = (BufferPool::new(PoolSize { small: 3, large: 1 }), Vec::new());
        port.receive(&mut pool, &mut burst, 1).unwrap();
        port.receive(&mut pool, &mut burst, 8).unwrap();
        let frames: Vec<_> = burst.iter().map(|packet| packet.buffer.frame()).collect();
        assert_eq!(frames, [b"one", b"two"]);
        assert_eq!(pool.free_count(), 2);
        burst.push(Packet::new(pool.take(60).unwrap()));
        port.send(&mut burst).unwrap();
        let verdicts: Vec<_> = burst.iter().map(|packet| packet.verdict).collect();
        assert_eq!(verdicts, [Verdict::Deliver, Verdict::Deliver, Verdict::Drop(DropReason::PortFull)]);
        assert_eq!(guest.collect().as_deref(), Some(&b"one"[..]));
    }

    #[test]
    fn a_cut_port_fails_until_it_is_mended() {
        let hub = MemoryHub::default();
        let eni = EniId::from("eni-1");
        let mut port = hub.open(&eni, 0);
        hub.guest(&eni).set_failed(true);
        assert!(port.send(&mut []).is_err());
        hub.guest(&eni).set_failed(false);
        port.send(&mut []).unwrap();
    }
}
