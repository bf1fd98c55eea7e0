//! SYNs in the middle of sessions.
//!
//! A connection may begin anew between the same ports while the previous one still has a session: an end crashed, or
//! both did. Whether the SYN counts is unknown until the other end has answered: an end that is still in the old
//! connection, or in an attempt that was not seen here, answers with other numbers, and the sender of the SYN then
//! resets. So the session keeps its sequence numbers, windows are not checked in the meantime, and the SYN is
//! remembered here for a while, as few sessions ever need that. When there is no room, a SYN takes the place of
//! another, whose answers are then compared with the old numbers.

use crate::config::ids::EniEpoch;
use crate::conntrack::slot::Trace;
use crate::hw::time::Tick;
use alloc::vec;
use alloc::vec::Vec;

/// A SYN that arrived in the middle of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Syn {
    pub(crate) from_opener: bool,
    /// The number that acknowledges it.
    pub(crate) acknowledgment: u32,
    /// The window scale that it offers.
    pub(crate) scale: Option<u8>,
    pub(crate) seen: Tick,
}

/// The session that it belongs to: its place and its ENI.
pub(crate) type SynKey = (Trace, EniEpoch);

/// How long a SYN is remembered, seconds: longer than its sender waits before repeating it.
const TIMEOUT_S: u32 = 70;
const SETS: usize = 256;
const PLACES: usize = 4;

/// The remembered SYNs. See the module's page.
#[derive(Debug)]
pub(crate) struct Syns {
    places: Vec<Option<(SynKey, Syn)>>,
    count: usize,
    /// Which entry of a full set is replaced next.
    next: usize,
    /// Where the sweep continues.
    sweep_at: usize,
}

impl Syns {
    pub(crate) fn new() -> Self {
        Self { places: vec![None; SETS * PLACES], count: 0, next: 0, sweep_at: 0 }
    }

    /// Whether no SYN is remembered.
    #[inline(always)]
    pub(crate) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn set((trace, epoch): &SynKey) -> usize {
        let mixed = (trace.bucket ^ epoch.0.rotate_left(16)).wrapping_mul(0x9e37_79b9) ^ trace.ports;
        mixed.wrapping_mul(0x85eb_ca6b) as usize >> 8 & (SETS - 1)
    }

    /// The SYN of a session, if it has not expired at `now`.
    pub(crate) fn of(&self, key: &SynKey, now: Tick) -> Option<Syn> {
        if self.is_empty() {
            return None;
        }
        let start = Self::set(key) * PLACES;
        let known = self.places[start..start + PLACES].iter().flatten().find(|(other, _)| other == key);
        known.map(|(_, syn)| *syn).filter(|syn| !syn.seen.is_older_than(TIMEOUT_S, now))
    }

    /// Forgets some of the expired entries.
    pub(crate) fn sweep(&mut self, now: Tick) {
        if self.is_empty() {
            return;
        }
        // One set per call bounds the work of a turn, however many SYNs are remembered.
        let set = &mut self.places[self.sweep_at * PLACES..][..PLACES];
        for place in set {
            let is_over = |(_, syn): &mut (SynKey, Syn)| syn.seen.is_older_than(TIMEOUT_S, now);
            self.count -= usize::from(place.take_if(is_over).is_some());
        }
        self.sweep_at = (self.sweep_at + 1) % SETS;
    }

    pub(crate) fn note(&mut self, key: SynKey, syn: Syn) {
        let start = Self::set(&key) * PLACES;
        let set = &mut self.places[start..start + PLACES];
        let known = set.iter().position(|place| place.is_some_and(|(other, _)| other == key));
        let place = known.or_else(|| set.iter().position(Option::is_none)).unwrap_or_else(|| {
            // The victim rotates, so that a flood into one set does not always displace the same session's SYN.
            self.next = (self.next + 1) % PLACES;
            self.next
        });
        self.count += usize::from(set[place].is_none());
        set[place] = Some((key, syn));
    }

    pub(crate) fn forget(&mut self, key: &SynKey) {
        let start = Self::set(key) * PLACES;
        for place in &mut self.places[start..start + PLACES] {
            self.count -= usize::from(place.take_if(|(other, _)| other == key).is_some());
        }
    }
}

const _: () = assert!(SETS.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_syn_of_a_session_is_kept_and_others_give_way() {
        let mut syns = Syns::new();
        let key = |number: u32| (Trace { bucket: number, ports: 7 }, EniEpoch(number % 3));
        let syn = |number: u32| Syn { from_opener: true, acknowledgment: number, scale: None, seen: Tick(100) };
        let now = Tick(100 + 16 * 69);
        for number in 0..100_000 {
            syns.note(key(number), syn(0));
            syns.note(key(number), syn(number));
            assert_eq!(syns.of(&key(number), now), Some(syn(number)));
        }
        let kept = (0..100_000).filter(|number| syns.of(&key(*number), now).is_some()).count();
        assert!(kept > SETS * PLACES / 2 && kept == syns.count, "{kept}");
        syns.forget(&key(99_999));
        assert_eq!((syns.of(&key(99_999), now), syns.count), (None, kept - 1));
        let later = Tick(now.0 + 16);
        assert_eq!(syns.of(&key(99_998), later), None);
        (0..SETS).for_each(|_| syns.sweep(later));
        assert!(syns.is_empty());
    }
}
