//! The sessions that an ENI opened recently, oldest first: the candidates when one has to give way to another of the
//! same ENI. The list is bounded and grows with the number of sessions; whether a session still exists is looked up in
//! its record.

use crate::config::limits::{RECENT_SESSIONS_MAX, RECLAIM_WINDOW};
use crate::conntrack::slot::Trace;
use alloc::vec::Vec;

/// Where a session is found while it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecentSession {
    /// The bucket, with the top bit set for IPv6, and the ports.
    trace: Trace,
}

const IPV6: u32 = 1 << 31;

impl RecentSession {
    /// No session.
    pub(crate) const NONE: Self = Self { trace: Trace { bucket: 0, ports: 0 } };

    pub(crate) const fn new(trace: Trace, is_ipv6: bool) -> Self {
        Self { trace: Trace { bucket: trace.bucket | if is_ipv6 { IPV6 } else { 0 }, ..trace } }
    }

    pub(crate) const fn is_ipv6(self) -> bool {
        self.trace.bucket & IPV6 != 0
    }

    /// A hash of the session's place.
    pub(crate) const fn hash(self) -> u32 {
        (self.trace.bucket ^ self.trace.ports.rotate_left(15)).wrapping_mul(0x9E37_79B1) >> 12
    }

    pub(crate) const fn trace(self) -> Trace {
        Trace { bucket: self.trace.bucket & !IPV6, ..self.trace }
    }
}

/// A ring in which the oldest entry gives way to the newest. See the module's page.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecentSessions {
    ring: Vec<RecentSession>,
    /// The index of the oldest entry, and the number of entries.
    first: usize,
    count: usize,
}

const LEAST: usize = 16;

impl RecentSessions {
    /// Whether there is no room for another.
    #[inline(always)]
    pub(crate) const fn is_full(&self) -> bool {
        self.count == self.ring.len()
    }

    /// Appends a session as the newest. There has to be room.
    #[inline(always)]
    pub(crate) fn push(&mut self, session: RecentSession) {
        // An empty ring has no mask; `get_mut` then finds no place.
        let mask = self.ring.len().wrapping_sub(1);
        if let Some(place) = self.ring.get_mut((self.first + self.count) & mask) {
            *place = session;
            self.count += 1;
        }
    }

    /// Removes the oldest if `is_wanted`.
    pub(crate) fn pop_if(&mut self, is_wanted: bool) -> Option<RecentSession> {
        if is_wanted { self.pop() } else { None }
    }

    /// Removes the oldest.
    pub(crate) fn pop(&mut self) -> Option<RecentSession> {
        let oldest = *self.ring.get(self.first).filter(|_| self.count > 0)?;
        self.first = (self.first + 1) & (self.ring.len() - 1);
        self.count -= 1;
        Some(oldest)
    }

    /// Puts the entry back that was removed last, as the oldest.
    pub(crate) fn put_back(&mut self, session: RecentSession) {
        self.first = self.first.wrapping_sub(1) & self.ring.len().wrapping_sub(1);
        if let Some(place) = self.ring.get_mut(self.first) {
            *place = session;
            self.count += 1;
        }
    }

    /// Makes room for an entry when there is none: forgets sessions that no longer exist; doubles the memory if they
    /// were few; and at the largest size forgets the oldest.
    #[cold]
    pub(crate) fn make_room(&mut self, is_there: impl Fn(RecentSession) -> bool) {
        let length = self.ring.len();
        if length >= RECENT_SESSIONS_MAX {
            self.pop();
            return;
        }
        // `truncate` and `retain` work in the order of memory, so the oldest entry has to come first.
        self.ring.rotate_left(self.first);
        self.ring.truncate(self.count);
        // Comparing each with all others is affordable only while the list is short.
        if self.count <= RECLAIM_WINDOW {
            // Of several sessions with the same bucket and ports, the last one counts.
            for place in (0..self.count).rev() {
                if self.ring[place + 1..].contains(&self.ring[place]) {
                    self.ring.remove(place);
                }
            }
        }
        self.ring.retain(|session| is_there(*session));
        (self.first, self.count) = (0, self.ring.len());
        // Growing only where more than half survived keeps the cost of a clean-up constant per session.
        let wanted = if self.count > length / 2 { length * 2 } else { length };
        self.ring.resize(wanted.max(LEAST), RecentSession::NONE);
    }
}

const _: () = assert!(LEAST.is_power_of_two() && RECENT_SESSIONS_MAX.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    const fn session(number: u32) -> RecentSession {
        RecentSession::new(Trace { bucket: number, ports: 7 }, number.is_multiple_of(2))
    }

    fn push(recent: &mut RecentSessions, number: u32, is_there: impl Fn(RecentSession) -> bool) {
        if recent.is_full() {
            recent.make_room(is_there);
        }
        recent.push(session(number));
    }

    #[test]
    fn the_oldest_come_first_and_give_way() {
        let mut recent = RecentSessions::default();
        for number in 0..10_000 {
            push(&mut recent, number, |_| true);
        }
        assert_eq!(recent.count, RECENT_SESSIONS_MAX);
        let first = 10_000 - RECENT_SESSIONS_MAX as u32;
        let taken: Vec<_> = (0..3).filter_map(|_| recent.pop()).collect();
        assert_eq!(taken, [session(first), session(first + 1), session(first + 2)]);
        assert_eq!((taken[0].is_ipv6(), taken[0].trace().bucket), (first.is_multiple_of(2), first));
        recent.put_back(taken[2]);
        recent.put_back(taken[0]);
        assert_eq!([recent.pop(), recent.pop(), recent.pop()], [taken[0], taken[2], session(first + 3)].map(Some));
    }

    #[test]
    fn what_is_gone_gives_way_before_the_oldest_that_is_there() {
        let mut recent = RecentSessions::default();
        let is_there = |session: RecentSession| session.trace().bucket < 5;
        for number in 0..100_000 {
            push(&mut recent, number, is_there);
        }
        assert_eq!(recent.ring.len(), 16, "an ENI of few sessions takes little room");
        let kept: Vec<_> = (0..5).filter_map(|_| recent.pop()).collect();
        assert_eq!(kept, [0, 1, 2, 3, 4].map(session));
    }
}
