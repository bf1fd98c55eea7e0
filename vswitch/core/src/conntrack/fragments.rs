//! Fragmented IP packets (`semantics.md` §2): which parts of each have been seen, what was decided for the first
//! fragment, and the fragments that wait for it. Everything is bounded and allocated once; when there is no room, the
//! ENI that holds most gives way.

use crate::config::ids::{EniEpoch, EniIndex};
use crate::config::limits::{
    ETHERNET_HEADER_BYTES, FRAGMENTED_PACKETS_MAX, FRAGMENTS_WAITING_MAX, FRAGMENTS_WAITING_PER_ENI_MAX, MTU_BYTES_MAX,
};
use crate::conntrack::opener::Opener;
use crate::hw::time::Tick;
use crate::packet::FrameBuffer;
use crate::packet::fragment_coverage::{FragmentCoverage, Part};
use crate::packet::headers::{Addresses, Headers, Tuple};
use crate::packet::verdict::{Decision, DropReason};
use alloc::vec;
use alloc::vec::Vec;

/// How long the fragments of a packet are remembered, seconds (RFC 8200 §4.5 says 60, kernels use 30).
const TIMEOUT_S: u32 = 30;
/// How long a fragment waits for the first, seconds: the fragments of a packet leave their sender together.
const WAIT_S: u32 = 2;
/// Slots in which a packet may be remembered.
const WAYS: usize = 8;
/// How many of them one sender at one ENI may hold while others want them.
const WAYS_PER_SENDER: usize = WAYS / 2;

/// An IP packet at an ENI. Its fragments share addresses and an identification; IPv4 also distinguishes packets by
/// protocol (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FragmentKey {
    epoch: EniEpoch,
    addresses: Addresses,
    id: u32,
    protocol: u8,
}

impl FragmentKey {
    /// The key of the IP packet that a fragment belongs to.
    pub(crate) const fn of(epoch: EniEpoch, headers: &Headers) -> Self {
        let tuple = &headers.tuple;
        let protocol = match tuple.addresses {
            // IPv6 fragments of one packet may differ in the next header, and RFC 8200 §4.5 identifies a packet
            // without it.
            Addresses::V4 { .. } => tuple.protocol,
            Addresses::V6 { .. } => 0,
        };
        Self { epoch, addresses: tuple.addresses, id: headers.fragment_id, protocol }
    }

    fn is_of_sender(&self, other: &Self) -> bool {
        self.epoch == other.epoch && self.addresses.source() == other.addresses.source()
    }

    /// The key in the form of a tuple, for hashing; and the parts that a tuple does not have.
    pub(super) const fn as_tuple(&self) -> (Tuple, u32) {
        let (source_port, destination_port) = ((self.id >> 16) as u16, self.id as u16);
        let tuple = Tuple::of_connection(self.addresses, self.protocol, [source_port, destination_port]);
        (tuple, self.epoch.0)
    }
}

/// A key, and the hash that determines where it is stored.
pub(crate) type FragmentEntry = (FragmentKey, u64);

/// The decision for a first fragment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FragmentDecision {
    /// The ENI's policy revision under which it was made.
    pub(crate) revision: u32,
    pub(crate) decision: Decision,
    /// The first fragment's tuple, for evaluating it again: later fragments do not have the ports.
    pub(crate) first: Tuple,
    pub(crate) opener: Opener,
    seen: Tick,
}

impl FragmentDecision {
    /// The decision for a packet whose first fragment has the tuple `first`, made at `seen`.
    pub(crate) const fn new(decision: Decision, revision: u32, (first, opener): (Tuple, Opener), seen: Tick) -> Self {
        Self { revision, decision, first, opener, seen }
    }
}

/// A fragmented packet.
#[derive(Clone, Copy, Debug)]
struct FragmentSlot {
    key: FragmentKey,
    /// When its first fragment arrived, or whichever fragment came first.
    seen: Tick,
    /// Its number in the order of arrival, since many packets arrive in one tick.
    order: u64,
    first_decision: Option<FragmentDecision>,
    /// Which parts of it have left the sender.
    coverage: FragmentCoverage,
}

/// A fragment that waits for the first.
#[derive(Debug)]
struct Waiting {
    key: FragmentKey,
    eni: EniIndex,
    since: Tick,
    is_released: bool,
}

/// What to do with a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FragmentAction {
    /// Forward it.
    Pass,
    /// Keep it until the first one arrives.
    Wait,
}

/// The fragmented packets that one worker knows.
#[derive(Debug)]
pub(crate) struct Fragments {
    slots: Vec<Option<FragmentSlot>>,
    /// How many packets have been seen.
    count: u64,
    waiting: Vec<Option<Waiting>>,
    /// The frames of the waiting fragments, at the same indexes.
    frames: Vec<FrameBuffer>,
    waiting_count: usize,
    released_count: usize,
}

impl Fragments {
    /// Allocates room for as many as there may be.
    pub(crate) fn new() -> Self {
        let frame = || FrameBuffer::with_capacity(MTU_BYTES_MAX + ETHERNET_HEADER_BYTES);
        Self {
            slots: vec![None; FRAGMENTED_PACKETS_MAX],
            count: 0,
            waiting: (0..FRAGMENTS_WAITING_MAX).map(|_| None).collect(),
            frames: (0..FRAGMENTS_WAITING_MAX).map(|_| frame()).collect(),
            waiting_count: 0,
            released_count: 0,
        }
    }

    /// The decision for the packet's first fragment, if it arrived and has not expired.
    pub(crate) fn find(&self, (key, hash): &FragmentEntry, now: Tick) -> Option<&FragmentDecision> {
        let slot = self.set(*hash).iter().flatten().find(|slot| slot.key == *key)?;
        slot.first_decision.as_ref().filter(|first_decision| !first_decision.seen.is_older_than(TIMEOUT_S, now))
    }

    /// Remembers the decision for a packet's first fragment.
    pub(crate) fn remember(&mut self, entry: &FragmentEntry, first_decision: FragmentDecision) {
        let slot = self.slot(entry, first_decision.seen);
        // The slot ages with its decision: fragments that came before the first must not make it expire sooner.
        (slot.first_decision, slot.seen) = (Some(first_decision), first_decision.seen);
    }

    /// Takes note of a fragment that leaves its sender. The first one releases those that wait for it.
    ///
    /// # Errors
    /// The reason why it must be dropped.
    pub(crate) fn take(&mut self, entry: &FragmentEntry, part: Part, now: Tick) -> Result<FragmentAction, DropReason> {
        let slot = self.slot(entry, now);
        if part.start == 0 && slot.coverage.is_whole() {
            // That packet is complete, so this is another one with the same identification.
            *slot = FragmentSlot::new(entry.0, now, slot.order);
        }
        slot.coverage.add(part)?;
        if !slot.coverage.has_first() {
            return Ok(FragmentAction::Wait);
        }
        if part.start == 0 && self.waiting_count > 0 {
            // A fragment that has waited too long is left to the sweep, which counts it as dropped.
            let is_theirs = |part: &&mut Waiting| {
                !part.is_released && part.key == entry.0 && !part.since.is_older_than(WAIT_S, now)
            };
            for waiting in self.waiting.iter_mut().flatten().filter(is_theirs) {
                waiting.is_released = true;
                self.released_count += 1;
            }
        }
        Ok(FragmentAction::Pass)
    }

    /// Keeps the frame of a fragment until the first arrives.
    ///
    /// # Errors
    /// There is no room, or as many fragments of the ENI are waiting as may.
    pub(crate) fn hold(&mut self, key: FragmentKey, eni: EniIndex, frame: &[u8], now: Tick) -> Result<(), DropReason> {
        // The ENI's own share is checked as well: one that never sends first fragments must not take every place.
        let own = self.waiting.iter().flatten().filter(|waiting| waiting.key.epoch == key.epoch).count();
        let place = self.waiting.iter().position(Option::is_none).filter(|_| own < FRAGMENTS_WAITING_PER_ENI_MAX);
        let Some(place) = place.filter(|place| frame.len() <= self.frames[*place].capacity()) else {
            return Err(DropReason::FragmentsFull);
        };
        self.frames[place].fill(frame);
        self.waiting[place] = Some(Waiting { key, eni, since: now, is_released: false });
        self.waiting_count += 1;
        Ok(())
    }

    /// The length of the next frame that waited and whose first fragment has arrived, if there is one.
    #[inline]
    pub(crate) fn released_bytes(&self) -> Option<usize> {
        if self.released_count == 0 { None } else { self.released().map(|place| self.frames[place].frame().len()) }
    }

    fn released(&self) -> Option<usize> {
        self.waiting.iter().position(|waiting| waiting.as_ref().is_some_and(|part| part.is_released))
    }

    /// Moves that frame into `frame` and returns the ENI that sent it.
    pub(crate) fn take_released(&mut self, frame: &mut FrameBuffer) -> Option<EniIndex> {
        let place = self.released()?;
        let waiting = self.waiting[place].take()?;
        frame.fill(self.frames[place].frame());
        self.waiting_count -= 1;
        self.released_count -= 1;
        Some(waiting.eni)
    }

    /// Drops fragments that have waited too long; `forgotten` is called with the ENI of each.
    pub(crate) fn sweep(&mut self, now: Tick, mut forgotten: impl FnMut(EniEpoch)) {
        if self.waiting_count == 0 {
            return;
        }
        for place in &mut self.waiting {
            // A released fragment only waits to be taken, so its age no longer counts.
            let is_over = |part: &mut Waiting| !part.is_released && part.since.is_older_than(WAIT_S, now);
            if let Some(part) = place.take_if(is_over) {
                self.waiting_count -= 1;
                forgotten(part.key.epoch);
            }
        }
    }

    /// Moves the packets of some ENIs to `other`; `refused` is called with the ENI of each waiting fragment that has no
    /// room there.
    pub(crate) fn move_to(
        &mut self,
        other: &mut Self,
        leaves: impl Fn(EniEpoch) -> bool,
        now: Tick,
        mut refused: impl FnMut(EniEpoch),
    ) {
        if self.count == 0 {
            return;
        }
        for place in 0..self.slots.len() {
            // Both tables hash with the same secret, so the set is the same.
            let Some(slot) = self.slots[place].take_if(|slot| leaves(slot.key.epoch)) else { continue };
            other.count += 1;
            let set = &mut other.slots[place / WAYS * WAYS..][..WAYS];
            set[place_to_give(set, &slot.key, now)] = Some(FragmentSlot { order: other.count, ..slot });
        }
        for place in 0..self.waiting.len() {
            let Some(part) = self.waiting[place].take_if(|part| leaves(part.key.epoch)) else { continue };
            let released = usize::from(part.is_released);
            self.waiting_count -= 1;
            self.released_count -= released;
            let Some(free) = other.waiting.iter().position(Option::is_none) else {
                refused(part.key.epoch);
                continue;
            };
            // Swapping copies no frame, and both workers keep as many buffers as before.
            core::mem::swap(&mut self.frames[place], &mut other.frames[free]);
            other.waiting[free] = Some(part);
            other.waiting_count += 1;
            other.released_count += released;
        }
    }

    fn set(&self, hash: u64) -> &[Option<FragmentSlot>] {
        let start = self.first_way(hash);
        &self.slots[start..start + WAYS]
    }

    fn first_way(&self, hash: u64) -> usize {
        let sets = self.slots.len() / WAYS;
        ((hash as u128 * sets as u128) >> 64) as usize * WAYS
    }

    /// The slot of a packet; a new one if it has none.
    fn slot(&mut self, (key, hash): &FragmentEntry, now: Tick) -> &mut FragmentSlot {
        let start = self.first_way(*hash);
        self.count += 1;
        let set = &mut self.slots[start..start + WAYS];
        let known = set.iter().position(|slot| slot.is_some_and(|slot| slot.key == *key));
        let place = known.unwrap_or_else(|| place_to_give(set, key, now));
        // An expired packet with the same key is another one: its coverage would make new fragments look like
        // overlaps.
        if set[place].is_some_and(|slot| slot.key != *key || slot.seen.is_older_than(TIMEOUT_S, now)) {
            set[place] = None;
        }
        set[place].get_or_insert_with(|| FragmentSlot::new(*key, now, self.count))
    }
}

impl FragmentSlot {
    const fn new(key: FragmentKey, now: Tick, order: u64) -> Self {
        Self { key, seen: now, order, first_decision: None, coverage: FragmentCoverage::NONE }
    }

    /// The order in which slots are given up, lowest first: expired ones, then refused ones, since anybody can send
    /// those, then the oldest.
    fn worth(&self, now: Tick) -> (bool, bool, u64) {
        // A packet whose parts have all arrived expects nothing more, so forgetting it costs no fragment.
        let is_needed = !self.seen.is_older_than(TIMEOUT_S, now) && !self.coverage.is_whole();
        let is_refused = self.first_decision.is_some_and(|first_decision| !first_decision.decision.accepts());
        (is_needed, !is_refused, self.order)
    }
}

/// The slot of a set to use for another packet: a free or expired one; else one of the same sender at the same ENI, if
/// that has its share; else one of whoever holds most.
fn place_to_give(set: &[Option<FragmentSlot>], key: &FragmentKey, now: Tick) -> usize {
    let share = |of: &FragmentKey| set.iter().flatten().filter(|slot| slot.key.is_of_sender(of)).count();
    // A sender at its share gives up a packet of its own, so that sending more displaces nobody else.
    let gives = if share(key) >= WAYS_PER_SENDER {
        *key
    } else {
        set.iter().flatten().map(|slot| slot.key).max_by_key(|of| share(of)).unwrap_or(*key)
    };
    let worth = |slot: &Option<FragmentSlot>| match slot {
        None => (false, false, false, 0),
        Some(slot) => {
            let (is_needed, is_accepted, seen) = slot.worth(now);
            // What is no longer needed goes first, whoever sent it; only then does it count who holds most.
            (is_needed, is_needed && !slot.key.is_of_sender(&gives), is_accepted, seen)
        }
    };
    let cheapest = set.iter().enumerate().min_by_key(|(_, slot)| worth(slot));
    cheapest.map_or(0, |(place, _)| place)
}

const _: () = assert!(FRAGMENTED_PACKETS_MAX.is_multiple_of(WAYS));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::desired::Policy;
    use crate::packet::verdict::Stage;

    const NOW: Tick = Tick(1000);

    fn entry(epoch: u32, id: u32) -> FragmentEntry {
        let addresses = Addresses::V4 { source: 1, destination: 2 };
        // All in one set.
        (FragmentKey { epoch: EniEpoch(epoch), addresses, id, protocol: 17 }, 0)
    }

    fn first_decision(policy: Policy) -> FragmentDecision {
        let tuple = Tuple::of_connection(entry(1, 1).0.addresses, 17, [1, 2]);
        FragmentDecision::new(Decision::by(policy, Stage::Rule), 1, (tuple, Opener::Sender), NOW)
    }

    #[test]
    fn whoever_sends_most_gives_way() {
        let mut fragments = Fragments::new();
        fragments.remember(&entry(7, 1), first_decision(Policy::Accept));
        for id in 0..1000 {
            fragments.remember(&entry(8, id), first_decision(Policy::Accept));
        }
        assert!(fragments.find(&entry(7, 1), NOW).is_some(), "a neighbour's flood pushes out its own");
        assert!(fragments.find(&entry(8, 999), NOW).is_some());
        assert!(fragments.find(&entry(8, 1), NOW).is_none());
    }

    #[test]
    fn what_was_refused_pushes_out_nothing_that_was_accepted() {
        let mut fragments = Fragments::new();
        fragments.remember(&entry(7, 1), first_decision(Policy::Accept));
        for id in 10..1000 {
            fragments.remember(&entry(7, id), first_decision(Policy::Drop));
        }
        assert!(fragments.find(&entry(7, 1), NOW).is_some());
    }

    #[test]
    fn parts_wait_for_their_first_and_not_for_long() {
        let mut fragments = Fragments::new();
        let later = Part { start: 16, end: 32, is_last: true };
        let (one, other) = (entry(7, 1), entry(7, 2));
        for (number, entry) in [&one, &other].into_iter().enumerate() {
            assert_eq!(fragments.take(entry, later, NOW), Ok(FragmentAction::Wait));
            fragments.hold(entry.0, EniIndex(3), &[number as u8], NOW).unwrap();
        }
        assert_eq!(fragments.take(&one, Part { start: 0, end: 16, is_last: false }, NOW), Ok(FragmentAction::Pass));
        let mut frame = FrameBuffer::with_capacity(10);
        assert_eq!(fragments.take_released(&mut frame), Some(EniIndex(3)));
        assert_eq!(frame.frame(), [0]);
        assert_eq!(fragments.take_released(&mut frame), None);
        let mut forgotten = 0;
        fragments.sweep(Tick(NOW.0 + 31), |_| forgotten += 1);
        assert_eq!(forgotten, 0);
        fragments.sweep(Tick(NOW.0 + 32), |_| forgotten += 1);
        assert_eq!((forgotten, fragments.waiting_count), (1, 0));
    }

    #[test]
    fn a_part_is_released_once() {
        let mut fragments = Fragments::new();
        let (one, first) = (entry(7, 1), Part { start: 0, end: 16, is_last: false });
        assert_eq!(fragments.take(&one, Part { start: 16, end: 32, is_last: true }, NOW), Ok(FragmentAction::Wait));
        fragments.hold(one.0, EniIndex(3), &[0], NOW).unwrap();
        // The first fragment of this packet, and of the next one with its identification, before the waiting fragment
        // is taken.
        for _ in 0..2 {
            assert_eq!(fragments.take(&one, first, NOW), Ok(FragmentAction::Pass));
        }
        assert!(fragments.take_released(&mut FrameBuffer::with_capacity(10)).is_some());
        assert_eq!((fragments.released_count, fragments.released_bytes()), (0, None));
    }

    #[test]
    fn one_eni_does_not_fill_the_waiting_room() {
        let mut fragments = Fragments::new();
        let mut hold = |epoch, id| fragments.hold(entry(epoch, id).0, EniIndex(epoch), &[0], NOW);
        for id in 0..FRAGMENTS_WAITING_PER_ENI_MAX as u32 {
            assert_eq!(hold(1, id), Ok(()));
        }
        assert_eq!(hold(1, 99), Err(DropReason::FragmentsFull));
        assert_eq!(hold(2, 0), Ok(()));
    }
}
