//! Left-right copies: what a change replaced is kept, and the next change is made in it.
//!
//! Packets may be reading the published copy, so a change never writes to it; and copying everything would cost more
//! than most changes. Once all workers have left the copy before it, nobody reads that one any more, and it lacks only
//! the last change. So it is brought up to date, takes the next change, and is published in turn.

use alloc::sync::Arc;
use alloc::vec::Vec;

/// How many retired copies are kept: rule sets of this many groups can change in turn without being copied.
const SPARES_MAX: usize = 8;
/// The largest copy that is kept, bytes.
const SPARE_BYTES_MAX: usize = 8 << 20;

/// The retired copies, each with the copy that replaced it and the change between the two.
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
    /// Returns the successor of `now`, whose size is `bytes`. `make` applies a change and returns false if it cannot;
    /// the result is then `None`.
    pub(crate) fn change(
        &mut self,
        now: &Arc<T>,
        mut make: impl FnMut(&mut T, &C) -> bool,
        change: C,
        bytes: usize,
    ) -> Option<Arc<T>> {
        // The retired copy is taken out of the list: after this change it is either published or useless.
        let spare = self.0.iter().position(|spare| Arc::ptr_eq(&spare.now, now)).map(|place| self.0.remove(place));
        let caught_up = spare.and_then(|RetiredCopy { mut before, change, .. }| {
            // `get_mut` succeeds only if no worker holds the copy, so what packets read is never written.
            let has_caught_up = Arc::get_mut(&mut before).is_some_and(|before| make(before, &change));
            has_caught_up.then_some(before)
        });
        let mut next = caught_up.unwrap_or_else(|| Arc::new(T::clone(now)));
        if !Arc::get_mut(&mut next).is_some_and(|next| make(next, &change)) {
            return None;
        }
        if bytes <= SPARE_BYTES_MAX {
            // The oldest copy goes: the groups that change often have newer ones.
            if self.0.len() >= SPARES_MAX {
                self.0.remove(0);
            }
            self.0.push(RetiredCopy { before: Arc::clone(now), change, now: Arc::clone(&next) });
        }
        Some(next)
    }
}
