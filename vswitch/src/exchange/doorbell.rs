//! Wakes a sleeping worker, and costs one that is awake nothing.
//!
//! No wake-up is lost. The worker first declares that it is about to sleep, then checks all its inputs once more, then
//! sleeps. A sender first puts the input in place, then checks whether the worker sleeps. Each has a sequentially
//! consistent fence between its two steps, so at least one of them sees what the other did: either the worker finds the
//! input, or the sender sees the declaration and rings. A ring before the worker has reached `epoll_wait` stays in the
//! waker's event counter and ends the wait at once. Frames need no ring: a port's descriptor is edge-triggered, a
//! worker sleeps only after every port has been drained, and a later frame makes a new edge, which epoll keeps until
//! somebody waits.

pub use crate::exchange::sync::Waker;
use crate::exchange::sync::{AtomicBool, fence};
use std::sync::atomic::Ordering;

/// The doorbell of one worker.
#[derive(Debug, Default)]
pub struct Doorbell {
    is_asleep: AtomicBool,
    waker: Option<Waker>,
}

impl Doorbell {
    /// A doorbell that rings through `waker`; one without it belongs to a worker that is driven manually.
    pub fn new(waker: Option<Waker>) -> Self {
        Self { is_asleep: AtomicBool::new(false), waker }
    }

    /// Wakes the worker if it sleeps. Call it after putting the input in place.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        // The relaxed load spares senders the exchange while the worker is awake, which is nearly always.
        if self.is_asleep.load(Ordering::Relaxed)
            // Of several senders only one rings: the exchange clears the declaration for the others.
            && self.is_asleep.compare_exchange(true, false, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            && let Some(waker) = &self.waker
        {
            // Writing to an event counter only fails if it is full, and then the wake-up is already pending.
            let _ = waker.wake();
        }
    }

    /// Declares that the worker is about to sleep. It must check all its inputs afterwards, before it sleeps.
    pub fn declare_asleep(&self) {
        self.is_asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Declares that the worker is awake.
    pub fn declare_awake(&self) {
        self.is_asleep.store(false, Ordering::Relaxed);
    }
}
