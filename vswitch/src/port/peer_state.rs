//! What a port knows of the program at its other end, told to the control thread. Such a port is open while nobody is
//! there, so an error of the port cannot tell it.

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Whether a program is at the other end of a port, and what is wrong with it. Clones are the same state.
#[derive(Clone, Debug)]
pub struct PeerState(Arc<PeerRecord>);

#[derive(Debug)]
struct PeerRecord {
    problem: Mutex<Option<String>>,
    faults: AtomicU64,
}

impl PeerState {
    /// A peer that is not there yet, for this reason.
    pub fn absent(reason: impl Into<String>) -> Self {
        Self(Arc::new(PeerRecord { problem: Mutex::new(Some(reason.into())), faults: AtomicU64::new(0) }))
    }

    /// The peer is there, and nothing is wrong with it.
    pub fn set_ready(&self) {
        *self.0.problem.lock() = None;
    }

    /// The port carries nothing, for this reason. Returns whether that is news.
    pub fn set_problem(&self, reason: &str) -> bool {
        // News only, so that a peer that keeps failing does not fill the log.
        let mut problem = self.0.problem.lock();
        let is_news = problem.as_deref() != Some(reason);
        if is_news {
            *problem = Some(reason.to_owned());
        }
        is_news
    }

    /// Why the port carries nothing, if it does not.
    pub fn problem(&self) -> Option<String> {
        self.0.problem.lock().clone()
    }

    /// Counts that the peer broke a rule.
    pub fn count_fault(&self) {
        self.0.faults.fetch_add(1, Ordering::Relaxed);
    }

    /// How often the peer broke a rule.
    pub fn faults(&self) -> u64 {
        self.0.faults.load(Ordering::Relaxed)
    }
}
