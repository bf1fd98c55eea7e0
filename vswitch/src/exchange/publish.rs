//! The newest snapshot, and the barrier that tells when the last worker has left the previous one.
//!
//! The control thread writes it and workers read it, at the cost of one shared load per turn while nothing changes. A
//! change is complete after two steps. *Crossed*: every worker evaluates by the new snapshot. *Drained*: every packet
//! that was evaluated by an older one and waited inside the switch, in a ring between workers or in one that a port
//! shares with the kernel, has left it. After this grace period, nothing that the old rules admitted can come out of a
//! port. Retired snapshots are kept here until the last worker has released them, so that the control thread frees
//! their memory, never the packet path.

use crate::exchange::sync::{AtomicU64, Mutex, Thread, current};
use crossbeam::utils::CachePadded;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vswitch_core::compile::snapshot::Snapshot;
use vswitch_core::config::ids::EniIndex;
use vswitch_core::tables::cow_array::CowArray;

/// The worker and the port of an ENI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EniLocation {
    /// The worker that owns it.
    pub worker: u16,
    /// The slot of its port in that worker, if it has a port.
    pub slot: Option<u32>,
    /// Distinguishes the ENIs that have had this index.
    pub eni_generation: u32,
}

impl EniLocation {
    /// Whether the ENI of this generation has a port, so that its rx queues are open.
    pub fn is_open_for(self, eni_generation: u32) -> bool {
        self.slot.is_some() && self.eni_generation == eni_generation
    }
}

/// One generation as workers see it.
#[derive(Debug)]
pub struct Published {
    /// The number of the publication. Unlike the generation, which the control plane assigns, it only grows.
    pub sequence: u64,
    /// The compiled policy.
    pub snapshot: Arc<Snapshot>,
    /// The location of each ENI, by index.
    pub locations: CowArray<Option<EniLocation>>,
}

impl Published {
    /// The location of an ENI, if it exists.
    pub fn location(&self, eni: EniIndex) -> Option<EniLocation> {
        self.locations.get(eni.0 as usize).copied().flatten()
    }
}

#[derive(Debug, Default)]
struct PublishProgress {
    crossed: AtomicU64,
    drained: AtomicU64,
}

/// The newest snapshot, shared by the control thread and all workers.
#[derive(Debug)]
pub struct Publication {
    sequence: CachePadded<AtomicU64>,
    drain: CachePadded<AtomicU64>,
    newest: Mutex<Arc<Published>>,
    retired: Mutex<Vec<Arc<Published>>>,
    progress: Vec<CachePadded<PublishProgress>>,
    waiter: Mutex<Option<Thread>>,
}

impl Publication {
    /// A publication for up to `workers_max` workers. It starts with `first`, whose sequence is 0.
    pub fn new(workers_max: usize, first: Published) -> Self {
        Self {
            sequence: CachePadded::default(),
            drain: CachePadded::default(),
            newest: Mutex::new(Arc::new(first)),
            retired: Mutex::default(),
            progress: (0..workers_max).map(|_| CachePadded::default()).collect(),
            waiter: Mutex::default(),
        }
    }

    /// Makes `next` the newest. The calling thread is unparked whenever a worker makes progress towards it.
    pub fn publish(&self, next: Published) {
        let sequence = next.sequence;
        // The waiter is known before any worker can cross, so that no progress goes unnoticed.
        *self.waiter.lock() = Some(current());
        let last = std::mem::replace(&mut *self.newest.lock(), Arc::new(next));
        // The old one is kept, so that the last worker to leave it does not have to free it.
        self.retired.lock().push(last);
        // Last, with `Release`: a worker that sees the number finds the snapshot behind the lock.
        self.sequence.store(sequence, Ordering::Release);
    }

    /// The newest one, for a worker that starts.
    pub fn newest(&self) -> Arc<Published> {
        Arc::clone(&self.newest.lock())
    }

    /// Whether there is a newer one than `sequence`.
    pub fn is_newer_than(&self, sequence: u64) -> bool {
        self.sequence.load(Ordering::Acquire) != sequence
    }

    /// Notes that worker `worker` evaluates by `sequence` from now on and holds nothing older.
    pub fn cross(&self, worker: usize, sequence: u64) {
        self.progress[worker].crossed.store(sequence, Ordering::Release);
        self.unpark_waiter();
    }

    /// Asks the workers to drain `sequence`. All have crossed to it, or there is only one worker, which will.
    pub fn request_drain(&self, sequence: u64) {
        self.drain.store(sequence, Ordering::Release);
    }

    /// The sequence that the workers are asked to drain.
    pub fn drain_requested(&self) -> u64 {
        self.drain.load(Ordering::Acquire)
    }

    /// Notes that worker `worker` has emptied its rings of everything older than the request.
    pub fn drained(&self, worker: usize, sequence: u64) {
        self.progress[worker].drained.store(sequence, Ordering::Release);
        self.unpark_waiter();
    }

    /// The first of `workers` workers that has not crossed to `sequence`.
    pub fn first_not_crossed(&self, workers: usize, sequence: u64) -> Option<usize> {
        self.progress.iter().take(workers).position(|progress| progress.crossed.load(Ordering::Acquire) < sequence)
    }

    /// The first of `workers` workers that has not drained `sequence`.
    pub fn first_not_drained(&self, workers: usize, sequence: u64) -> Option<usize> {
        self.progress.iter().take(workers).position(|progress| progress.drained.load(Ordering::Acquire) < sequence)
    }

    /// Frees the snapshots that no worker holds any more. Returns how many are still held.
    pub fn free_retired(&self) -> usize {
        let mut retired = self.retired.lock();
        // The list itself holds one reference; any other belongs to a worker.
        retired.retain(|published| Arc::strong_count(published) > 1);
        retired.len()
    }

    fn unpark_waiter(&self) {
        if let Some(waiter) = &*self.waiter.lock() {
            waiter.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vswitch_core::compile::compile;
    use vswitch_core::config::desired::Desired;

    fn published(sequence: u64) -> Published {
        let snapshot = Arc::new(compile(&Desired::default(), sequence).unwrap());
        Published { sequence, snapshot, locations: CowArray::default() }
    }

    #[test]
    fn the_barrier_opens_with_the_last_worker_and_old_snapshots_go_then() {
        let slot = Publication::new(2, published(0));
        let held = slot.newest();
        slot.publish(published(1));
        assert!(slot.is_newer_than(held.sequence));
        slot.cross(0, 1);
        assert_eq!(slot.first_not_crossed(2, 1), Some(1));
        assert_eq!(slot.free_retired(), 1, "worker 1 still holds it");
        drop(held);
        slot.cross(1, 1);
        assert_eq!((slot.first_not_crossed(2, 1), slot.first_not_drained(2, 1)), (None, Some(0)));
        assert_eq!(slot.free_retired(), 0);
    }
}
