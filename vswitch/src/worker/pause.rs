//! How a thread is asked to pause, that is, to return its worker, and how that request is cancelled.
//!
//! Both outcomes are a compare-and-exchange of the same word: either the thread confirms and the worker is returned, or
//! the request is cancelled and the worker continues. `tests/models.rs` tries every interleaving.

use crate::exchange::doorbell::Doorbell;
use crate::exchange::sync::AtomicU8;
use std::sync::atomic::Ordering;

/// The thread turns its worker.
const RUNNING: u8 = 0;
/// The thread is to return its worker after this turn, unless the request is cancelled first.
const REQUESTED: u8 = 1;
/// The thread has returned its worker, or has none.
const PAUSED: u8 = 2;

/// The state of a thread and its worker.
#[derive(Debug)]
pub struct PauseRequest(AtomicU8);

impl Default for PauseRequest {
    /// The state of a thread without a worker.
    fn default() -> Self {
        Self(AtomicU8::new(PAUSED))
    }
}

impl PauseRequest {
    /// Notes that the thread gets a worker. Call it before passing the worker on.
    // Before the worker is passed on: a request right after it must find a running thread.
    pub fn start(&self) {
        self.0.store(RUNNING, Ordering::Release);
    }

    /// Asks a thread that has a worker to return it, and wakes the thread.
    pub fn request(&self, doorbell: &Doorbell) {
        self.0.store(REQUESTED, Ordering::Release);
        doorbell.ring();
    }

    /// Cancels the request. Returns false if it is too late and the worker is being returned.
    pub fn cancel(&self) -> bool {
        self.0.compare_exchange(REQUESTED, RUNNING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Whether the thread has a worker, as far as is known.
    pub fn has_worker(&self) -> bool {
        self.0.load(Ordering::Acquire) != PAUSED
    }

    /// Whether the thread should turn its worker. Like any input, it has to be checked after declaring sleep.
    pub fn is_running(&self) -> bool {
        self.0.load(Ordering::Acquire) == RUNNING
    }

    /// Whether the thread returns its worker now: true if that was requested and not cancelled.
    pub fn confirm(&self) -> bool {
        self.0.compare_exchange(REQUESTED, PAUSED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}
