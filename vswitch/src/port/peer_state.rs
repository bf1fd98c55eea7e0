//! What a port knows of the program at its other end, told to the control thread. Such a port is open while nobody is
//! there, so an error of the port cannot tell it.

use parking_lot::Mutex;
use std::sync::Arc;

/// Whether a program is at the other end of a port, and what is wrong with it. Clones are the same state.
#[derive(Clone, Debug)]
pub struct PeerState(Arc<Mutex<Option<String>>>);

impl PeerState {
    /// A peer that is not there yet, for this reason.
    pub fn absent(reason: impl Into<String>) -> Self {
        Self(Arc::new(Mutex::new(Some(reason.into()))))
    }

    /// The peer is there, and nothing is wrong with it.
    pub fn set_ready(&self) {
        *self.0.lock() = None;
    }

    /// The port carries nothing, for this reason. Returns whether that is news.
    pub fn set_problem(&self, reason: &str) -> bool {
        let mut problem = self.0.lock();
        let is_news = problem.as_deref() != Some(reason);
        if is_news {
            *problem = Some(reason.to_owned());
        }
        is_news
    }

    /// Why the port carries nothing, if it does not.
    pub fn problem(&self) -> Option<String> {
        self.0.lock().clone()
    }
}
