//! SYNs in the middle of sessions: what their answers are to be held against.
//!
//! A connection may begin anew between the same ports while the session of the one before lives: an end crashed, or both.
//! Whether the SYN counts is not known before its receiver answers: one that is still in the old connection answers with
//! its numbers. So the session keeps its own, and what the SYN says is remembered for a while, here: few sessions ever need
//! it. What finds no room takes the place of another, whose answer is then held against the numbers of old.

use super::table::Trace;
use crate::ids::FlowScope;
use alloc::vec;
use alloc::vec::Vec;

/// What a SYN said that came in the middle of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Syn {
    pub(crate) from_opener: bool,
    /// What acknowledges it.
    pub(crate) acknowledgment: u32,
    /// The window scale that it offers.
    pub(crate) scale: Option<u8>,
}

/// Whose session, and of which connection.
pub(crate) type SynKey = (Trace, FlowScope);

const SETS: usize = 256;
const PLACES: usize = 4;

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Syns {
    places: Vec<Option<(SynKey, Syn)>>,
    /// The place in its set of the next that finds no room.
    next: usize,
}

impl Syns {
    pub(crate) fn new() -> Self {
        Self { places: vec![None; SETS * PLACES], next: 0 }
    }

    fn set((trace, scope): &SynKey) -> usize {
        let mixed = (trace.home ^ scope.0.rotate_left(16)).wrapping_mul(0x9e37_79b9) ^ trace.ports;
        mixed.wrapping_mul(0x85eb_ca6b) as usize >> 8 & (SETS - 1)
    }

    pub(crate) fn of(&self, key: &SynKey) -> Option<Syn> {
        let start = Self::set(key) * PLACES;
        self.places[start..start + PLACES].iter().flatten().find(|(other, _)| other == key).map(|(_, syn)| *syn)
    }

    pub(crate) fn note(&mut self, key: SynKey, syn: Syn) {
        let start = Self::set(&key) * PLACES;
        let set = &mut self.places[start..start + PLACES];
        let known = set.iter().position(|place| place.is_some_and(|(other, _)| other == key));
        let place = known.or_else(|| set.iter().position(Option::is_none)).unwrap_or_else(|| {
            self.next = (self.next + 1) % PLACES;
            self.next
        });
        set[place] = Some((key, syn));
    }

    pub(crate) fn forget(&mut self, key: &SynKey) {
        let start = Self::set(key) * PLACES;
        for place in &mut self.places[start..start + PLACES] {
            place.take_if(|(other, _)| other == key);
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
        let key = |number: u32| (Trace { home: number, ports: 7 }, FlowScope(number % 3));
        let syn = |number: u32| Syn { from_opener: true, acknowledgment: number, scale: None };
        for number in 0..100_000 {
            syns.note(key(number), syn(0));
            syns.note(key(number), syn(number));
            assert_eq!(syns.of(&key(number)), Some(syn(number)));
        }
        let kept = (0..100_000).filter(|number| syns.of(&key(*number)).is_some()).count();
        assert!(kept > SETS * PLACES / 2 && kept <= SETS * PLACES, "{kept}");
        syns.forget(&key(99_999));
        assert_eq!(syns.of(&key(99_999)), None);
    }
}
