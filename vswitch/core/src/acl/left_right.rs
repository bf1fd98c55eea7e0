//! What a change replaced, kept so that the next change finds memory that is nearly right.
//!
//! Packets may read what is published, so a change never touches it: it makes another. A copy of everything would cost more
//! than most changes. But what the last change replaced, nobody reads any more once all workers have left it, and it lacks
//! just that change: it catches up, takes the next change in, and is published in its turn.

use alloc::sync::Arc;
use alloc::vec::Vec;

/// How many are kept: filters of so many groups change in turn without a copy.
const SPARES_MAX: usize = 8;
/// Bytes of one that is kept at most.
const SPARE_BYTES_MAX: usize = 8 << 20;

/// Things that are published, each with the one before it, and the change that lies between.
#[derive(Debug)]
pub(crate) struct LeftRight<T, C = ()>(Vec<RetiredCopy<T, C>>);

#[derive(Debug)]
struct RetiredCopy<T, C> {
    before: Arc<T>,
    change: C,
    now: Arc<T>,
}

impl<T, C> Default for LeftRight<T, C> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Clone, C> LeftRight<T, C> {
    /// What follows from `now`, which has so many `bytes`, by a change; none if `make`, which makes changes, says that it
    /// failed.
    pub(crate) fn change(
        &mut self,
        now: &Arc<T>,
        mut make: impl FnMut(&mut T, &C) -> bool,
        change: C,
        bytes: usize,
    ) -> Option<Arc<T>> {
        let spare = self.0.iter().position(|spare| Arc::ptr_eq(&spare.now, now)).map(|place| self.0.remove(place));
        let caught_up = spare.and_then(|RetiredCopy { mut before, change, .. }| {
            let has_caught_up = Arc::get_mut(&mut before).is_some_and(|before| make(before, &change));
            has_caught_up.then_some(before)
        });
        let mut next = caught_up.unwrap_or_else(|| Arc::new(T::clone(now)));
        if !Arc::get_mut(&mut next).is_some_and(|next| make(next, &change)) {
            return None;
        }
        if bytes <= SPARE_BYTES_MAX {
            if self.0.len() >= SPARES_MAX {
                self.0.remove(0);
            }
            self.0.push(RetiredCopy { before: Arc::clone(now), change, now: Arc::clone(&next) });
        }
        Some(next)
    }
}
