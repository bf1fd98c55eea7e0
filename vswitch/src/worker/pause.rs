//! How a thread is asked to pause, which is to give its worker back, and how that request is cancelled.
//!
//! Both sides end with one compare-and-exchange of the same word, so either the thread confirms and the worker comes, or the
//! request is cancelled and the worker runs on. `tests/models.rs` tries every order.

use crate::exchange::doorbell::Doorbell;
use crate::exchange::sync::AtomicU8;
use std::sync::atomic::Ordering;

/// The thread turns its worker.
const RUNNING: u8 = 0;
/// It is to give its worker back after this turn, unless the request is cancelled before.
const REQUESTED: u8 = 1;
/// It has given its worker back, or has none.
const PAUSED: u8 = 2;

/// What a thread does with its worker.
#[derive(Debug)]
pub struct PauseRequest(AtomicU8);

impl Default for PauseRequest {
    /// That of a thread without a worker.
    fn default() -> Self {
        Self(AtomicU8::new(PAUSED))
    }
}

impl PauseRequest {
    /// The thread has a worker from now on: to be called before it gets it.
    pub fn start(&self) {
        self.0.store(RUNNING, Ordering::Release);
    }

    /// Asks for the worker of a thread that has one, and wakes it.
    pub fn request(&self, doorbell: &Doorbell) {
        self.0.store(REQUESTED, Ordering::Release);
        doorbell.ring();
    }

    /// Cancels the request. False if it is too late: the worker comes.
    pub fn cancel(&self) -> bool {
        self.0.compare_exchange(REQUESTED, RUNNING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Whether the thread has a worker, as far as is known.
    pub fn has_worker(&self) -> bool {
        self.0.load(Ordering::Acquire) != PAUSED
    }

    /// Whether the thread is to turn its worker. To be looked at after it declared that it sleeps, like any input.
    pub fn is_running(&self) -> bool {
        self.0.load(Ordering::Acquire) == RUNNING
    }

    /// Whether the thread gives its worker back now: if that was requested, and not cancelled.
    pub fn confirm(&self) -> bool {
        self.0.compare_exchange(REQUESTED, PAUSED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}
