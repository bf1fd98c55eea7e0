//! The queues of a port, which its workers and its front ends share: whoever has a queue holds its lock for a burst or a change.

use super::chain::QueueDirection;
use super::features::Features;
use super::queue::{ActiveQueue, QueueParts};
use crate::port::peer_state::PeerState;
use mio::{Registry, Waker};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use vswitch_core::config::desired::VhostUserPort;
use vswitch_core::config::ids::MacAddress;
use vswitch_core::packet::offload::Offloads;

/// Kicks of a guest whose rings were never written to, after which its memory is taken for not shared. One may be left of
/// an earlier driver.
const KICKS_WITHOUT_CHAINS: u8 = 2;

/// Where the events of one rx queue of the port arrive.
#[derive(Debug)]
pub(super) struct PartEvents {
    pub(super) registry: Registry,
    pub(super) waker: Waker,
}

/// A queue, if one is active, and the front end that it belongs to.
#[derive(Debug, Default)]
struct QueueSlot {
    front_end: u64,
    queue: Option<ActiveQueue>,
    kicks_without_chains: u8,
}

/// All queues of a port, and what its front ends are told.
#[derive(Debug)]
pub(super) struct PortQueues {
    slots: Vec<Mutex<QueueSlot>>,
    /// Which queues to the guest, and from it, are active, by pairs.
    to_guest: AtomicU32,
    from_guest: AtomicU32,
    offloads: AtomicU8,
    pub(super) parts: Vec<PartEvents>,
    pub(super) peer: PeerState,
    pub(super) spec: VhostUserPort,
    pub(super) mac: MacAddress,
}

impl PortQueues {
    pub(super) fn new(parts: Vec<PartEvents>, peer: PeerState, spec: VhostUserPort, mac: MacAddress) -> Self {
        let slots = (0..2 * spec.queues).map(|_| Mutex::default()).collect();
        Self {
            slots,
            to_guest: AtomicU32::new(0),
            from_guest: AtomicU32::new(0),
            offloads: AtomicU8::new(0),
            parts,
            peer,
            spec,
            mac,
        }
    }

    /// Queues of both directions.
    pub(super) fn count(&self) -> usize {
        self.slots.len()
    }

    /// Which way the queue of an index goes.
    pub(super) const fn direction(index: usize) -> QueueDirection {
        if index.is_multiple_of(2) { QueueDirection::ToGuest } else { QueueDirection::FromGuest }
    }

    /// The part of the port that has the queue of an index.
    pub(super) fn part(&self, index: usize) -> &PartEvents {
        &self.parts[index / 2 % self.parts.len()]
    }

    /// Pairs whose queue to the guest is active, as bits.
    #[inline]
    pub(super) fn pairs_to_guest(&self) -> u32 {
        self.to_guest.load(Ordering::Acquire)
    }

    /// Pairs whose queue from the guest is active, as bits.
    #[inline]
    pub(super) fn pairs_from_guest(&self) -> u32 {
        self.from_guest.load(Ordering::Acquire)
    }

    /// What frames to the guest may leave undone.
    #[inline]
    pub(super) fn offloads(&self) -> Offloads {
        Offloads::from_bits(self.offloads.load(Ordering::Relaxed))
    }

    /// Does something with the queue of an index, if it is active. Tells of a fault that it got by that.
    #[inline]
    pub(super) fn with<T>(&self, index: usize, work: impl FnOnce(&mut ActiveQueue) -> T) -> Option<T> {
        let mut slot = self.slots.get(index)?.lock();
        let queue = slot.queue.as_mut()?;
        let had_fault = queue.fault().is_some();
        let done = work(queue);
        if !had_fault && let Some(fault) = queue.fault() {
            drop(slot);
            self.report_fault(index, &fault.to_string());
        }
        Some(done)
    }

    #[cold]
    fn report_fault(&self, index: usize, fault: &str) {
        let problem = format!("queue {index} of the guest is stopped: {fault}; it goes on when its driver starts anew");
        self.peer.count_fault();
        if self.peer.set_problem(&problem) {
            log::warn!("vhost-user port at {}: {problem}", self.spec.path);
        }
    }

    /// Takes up a queue that a front end has started, in place of another's.
    pub(super) fn install(&self, index: usize, front_end: u64, parts: QueueParts) {
        let features = parts.features;
        let queue = ActiveQueue::new(parts);
        // The guest may have waited for an interrupt that the last front end owed.
        queue.interrupt();
        *self.slots[index].lock() = QueueSlot { front_end, queue: Some(queue), kicks_without_chains: 0 };
        if Self::direction(index) == QueueDirection::ToGuest {
            self.set_features(features);
        }
        self.active(index).fetch_or(1 << (index / 2), Ordering::AcqRel);
        self.peer.set_ready();
        // What the guest made available before may wait there, with no kick to come.
        let _ = self.part(index).waker.wake();
    }

    /// Where the bit of a queue is. A burst takes no lock of a queue that is not active.
    fn active(&self, index: usize) -> &AtomicU32 {
        match Self::direction(index) {
            QueueDirection::ToGuest => &self.to_guest,
            QueueDirection::FromGuest => &self.from_guest,
        }
    }

    fn set_features(&self, features: Features) {
        self.offloads.store(features.offloads().bits(), Ordering::Relaxed);
    }

    /// Takes a queue away from a front end; where it was left, if it had one. Nothing of it is in use afterwards.
    pub(super) fn remove(&self, index: usize, front_end: u64) -> Option<u32> {
        let mut slot = self.slots.get(index)?.lock();
        if slot.front_end != front_end {
            return None;
        }
        let queue = slot.queue.take()?;
        self.active(index).fetch_and(!(1 << (index / 2)), Ordering::AcqRel);
        Some(queue.base())
    }

    /// Whether any queue is active.
    pub(super) fn is_active(&self) -> bool {
        self.slots.iter().any(|slot| slot.lock().queue.is_some())
    }

    /// Whether the queues of the front end are the port's.
    pub(super) fn is_active_for(&self, front_end: u64) -> bool {
        self.slots.iter().map(|slot| slot.lock()).any(|slot| slot.queue.is_some() && slot.front_end == front_end)
    }

    /// The guest kicked this queue. If it does so again and again while its rings are as new, they are not where the front end
    /// says that they are.
    pub(super) fn note_kick(&self, index: usize) {
        let Some(slot) = self.slots.get(index) else { return };
        let mut slot = slot.lock();
        let Some(queue) = slot.queue.as_ref().filter(|queue| queue.fault().is_none()) else { return };
        if !queue.is_untouched() {
            if std::mem::take(&mut slot.kicks_without_chains) >= KICKS_WITHOUT_CHAINS {
                self.peer.set_ready();
            }
            return;
        }
        slot.kicks_without_chains = slot.kicks_without_chains.saturating_add(1);
        drop(slot);
        if self.slots[index].lock().kicks_without_chains == KICKS_WITHOUT_CHAINS {
            let problem = "the guest kicks, but what it writes does not arrive: its memory is not shared; for QEMU add \
                           share=on to its -object memory-backend-memfd";
            if self.peer.set_problem(problem) {
                log::warn!("vhost-user port at {}: {problem}", self.spec.path);
            }
        }
    }
}

impl PartEvents {
    /// Where events of a poll arrive.
    ///
    /// # Errors
    /// No descriptors are left.
    pub(super) fn new(poll: &mio::Poll, waker: mio::Token) -> io::Result<Self> {
        Ok(Self { registry: poll.registry().try_clone()?, waker: Waker::new(poll.registry(), waker)? })
    }
}

/// Queues that workers and front ends share.
pub(super) type SharedQueues = Arc<PortQueues>;
