//! Refusals for lack of room: each is counted, and they are logged together, so that whoever causes them cannot fill a
//! log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Refusals are logged at most this often.
const TOLD_PERIOD: Duration = Duration::from_secs(10);

/// Counts refusals of one kind.
#[derive(Debug)]
pub(crate) struct RefusalLog {
    /// What had no room, and the limits.
    what: String,
    count: AtomicU64,
    /// When they were last logged, and how many there were then.
    told: Mutex<Option<(Instant, u64)>>,
}

impl RefusalLog {
    pub(crate) fn new(what: String) -> Self {
        Self { what, count: AtomicU64::new(0), told: Mutex::new(None) }
    }

    /// The number of refusals.
    pub(crate) fn total(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts a refusal, and logs those since the last time if that was long enough ago.
    pub(crate) fn count(&self) {
        let total = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(new) = self.unreported(total, Instant::now()) {
            log::warn!("no room for {new} more, {total} in all: {}", self.what);
        }
    }

    fn unreported(&self, total: u64, now: Instant) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match *told {
            Some((at, _)) if now.duration_since(at) < TOLD_PERIOD => return None,
            Some((_, before)) => before,
            None => 0,
        };
        *told = Some((now, total));
        Some(total.saturating_sub(before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_refusals_are_told_in_one_line_a_period() {
        let log = RefusalLog::new("clients".into());
        let start = Instant::now();
        assert_eq!(log.unreported(1, start), Some(1));
        assert_eq!(log.unreported(2, start), None);
        assert_eq!(log.unreported(900, start + TOLD_PERIOD / 2), None);
        assert_eq!(log.unreported(1000, start + TOLD_PERIOD), Some(999));
        assert_eq!(log.unreported(1001, start + TOLD_PERIOD), None);
    }
}
