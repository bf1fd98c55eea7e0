//! How a thread is asked for its worker, and how whoever asked may think better of it.
//!
//! Both end what they do with one exchange of the same word, so it is one of two: the worker comes, or it goes on turning and
//! nobody waits for it. `tests/models.rs` tries every order.

use crate::exchange::doorbell::Doorbell;
use crate::exchange::sync::AtomicU8;
use std::sync::atomic::Ordering;

/// The thread turns its worker.
const TURNING: u8 = 0;
/// It is to give it back after this turn. Who asked may think better of it.
const ASKED: u8 = 1;
/// It gives it back, or has none.
const RESTING: u8 = 2;

/// What a thread does with its worker.
#[derive(Debug)]
pub struct Recall(AtomicU8);

impl Default for Recall {
    /// That of a thread without a worker.
    fn default() -> Self {
        Self(AtomicU8::new(RESTING))
    }
}

impl Recall {
    /// The thread has a worker from now on: to be called before it gets it.
    pub fn give(&self) {
        self.0.store(TURNING, Ordering::Release);
    }

    /// Asks for the worker of a thread that has one, and wakes it.
    pub fn ask(&self, doorbell: &Doorbell) {
        self.0.store(ASKED, Ordering::Release);
        doorbell.ring();
    }

    /// Takes the question back. If not, it is too late: the worker comes.
    pub fn think_better(&self) -> bool {
        self.0.compare_exchange(ASKED, TURNING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Whether the thread has a worker, as far as is known.
    pub fn has_worker(&self) -> bool {
        self.0.load(Ordering::Acquire) != RESTING
    }

    /// Whether the thread is to turn its worker. To be looked at after it declared that it sleeps, like any input.
    pub fn is_turning(&self) -> bool {
        self.0.load(Ordering::Acquire) == TURNING
    }

    /// Whether the thread gives its worker back now: if it was asked, and nobody thought better of it.
    pub fn gives_back(&self) -> bool {
        self.0.compare_exchange(ASKED, RESTING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}
