//! What the first fragment of a packet was translated to: later fragments have no ports to look it up by.

use crate::config::ids::EniIndex;
use crate::conntrack::fragments::{FragmentEntry, FragmentKey};
use crate::hw::time::Tick;
use alloc::vec;
use alloc::vec::Vec;

/// Packets that are remembered.
const PACKETS_MAX: usize = 1024;
/// Places in which a packet may be.
const WAYS: usize = 4;
/// How long a packet is remembered, seconds (RFC 791 §3.2; kernels use 30).
const TIMEOUT_S: u32 = 30;

/// What became of a first fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FragmentTarget {
    /// The ENI that it went to, or came from.
    pub(crate) eni: EniIndex,
    /// The address that one of its ends got.
    pub(crate) address: u32,
}

/// The packets of which a first fragment was translated. Where there is no room, the oldest gives way.
#[derive(Debug, Default)]
pub(crate) struct TranslatedFragments {
    /// Empty until there is one.
    slots: Vec<Option<(FragmentKey, FragmentTarget, Tick)>>,
}

impl TranslatedFragments {
    /// Remembers what became of a packet's first fragment.
    #[cold]
    pub(crate) fn note(&mut self, (key, hash): &FragmentEntry, target: FragmentTarget, now: Tick) {
        if self.slots.is_empty() {
            self.slots = vec![None; PACKETS_MAX];
        }
        let set = &mut self.slots[set_of(*hash)..][..WAYS];
        let is_same =
            |slot: &Option<(FragmentKey, FragmentTarget, Tick)>| slot.is_some_and(|(other, ..)| other == *key);
        let age =
            |slot: &Option<(FragmentKey, FragmentTarget, Tick)>| slot.map_or(u32::MAX, |(.., at)| at.age_ticks(now));
        let place = set.iter().position(is_same).or_else(|| (0..WAYS).max_by_key(|place| age(&set[*place])));
        if let Some(place) = place {
            set[place] = Some((*key, target, now));
        }
    }

    /// What became of the first fragment of a packet.
    #[cold]
    pub(crate) fn find(&self, (key, hash): &FragmentEntry, now: Tick) -> Option<FragmentTarget> {
        let set = self.slots.get(set_of(*hash)..)?.get(..WAYS)?;
        let found = set.iter().flatten().find(|(other, ..)| other == key)?;
        (!found.2.is_older_than(TIMEOUT_S, now)).then_some(found.1)
    }
}

const fn set_of(hash: u64) -> usize {
    (hash as usize % (PACKETS_MAX / WAYS)) * WAYS
}
