//! Wakes a worker that sleeps, at no cost for one that does not.
//!
//! Why no wake-up is lost: the sleeper first declares that it sleeps, then looks at all its inputs once more, then
//! sleeps. Whoever gives it something first puts that in place, then looks whether it sleeps. Between the two steps
//! both have a sequentially consistent fence, so at least one of them sees what the other did: either the sleeper
//! finds the input, or the giver finds the declaration and rings. A ring before the sleeper has reached `epoll_wait`
//! stays in the waker's event counter and ends the wait at once. Frames need no ring: a port's descriptor is
//! edge-triggered, a worker sleeps only after every port said that it is drained, and any frame later than that makes
//! a new edge, which epoll keeps until somebody waits.

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
    /// A doorbell that rings through `waker`; without one it belongs to a worker that is turned by hand.
    pub fn new(waker: Option<Waker>) -> Self {
        Self { is_asleep: AtomicBool::new(false), waker }
    }

    /// Wakes the worker if it sleeps. To be called after its input is in place.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.is_asleep.load(Ordering::Relaxed)
            && self.is_asleep.compare_exchange(true, false, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            && let Some(waker) = &self.waker
        {
            // Writing to an event counter fails only when it is full, and then the wake-up is already pending.
            let _ = waker.wake();
        }
    }

    /// Declares that the worker is about to sleep. It must look at all its inputs after this and before it sleeps.
    pub fn declare_asleep(&self) {
        self.is_asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Declares that the worker is awake.
    pub fn declare_awake(&self) {
        self.is_asleep.store(false, Ordering::Relaxed);
    }
}
