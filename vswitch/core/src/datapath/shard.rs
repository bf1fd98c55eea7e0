//! What one worker alone owns: the sessions and counters of its ENIs.

use crate::compile::snapshot::Snapshot;
use crate::config::desired::Direction;
use crate::config::ids::{EniEpoch, EniIndex};
use crate::config::limits::{BURST_PACKETS, RECENT_SESSIONS_MAX, SWEEP_RECORDS_PER_TURN};
use crate::conntrack::recent::RecentSessions;
use crate::conntrack::table::MemoryAdvice;
use crate::conntrack::tables::{ConnectionTables, LookupKey, SessionSlot};
use crate::datapath::counters::{CounterPlaces, EniCounters};
use crate::datapath::packet_context::PacketContext;
use crate::datapath::path_cache::PathCache;
use crate::datapath::stage_timing::Stopwatch;
use crate::hw::time::Tick;
use crate::packet::verdict::DropReason;
use crate::policy::eni_context::EniContext;
use alloc::vec::Vec;

/// What one worker alone owns: the sessions and counters of its ENIs.
#[derive(Debug)]
pub struct Shard {
    pub(crate) sessions: ConnectionTables,
    /// By [`EniIndex`].
    pub(crate) counters: Vec<EniCounters>,
    /// At the same places.
    pub(crate) recent: Vec<RecentSessions>,
    /// Whose counters a scope's sessions are counted in.
    pub(crate) places: CounterPlaces,
    pub(crate) orphans: Orphans,
    /// Times some bursts. Whoever owns the shard starts it before a burst is received, and ends it after it was sent.
    pub stopwatch: Stopwatch,
    /// One for each packet of a burst. They mean nothing between bursts, and only keep their room.
    pub(super) packet_contexts: Vec<PacketContext>,
    pub(super) path_cache: PathCache,
    /// The burst in work waited for first fragments, which have come.
    pub(crate) is_releasing: bool,
}

/// Sessions of ENIs that are gone: nothing matches them, and they need not wait until they are over.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    pub(super) looked_at: Tick,
    /// Records among which there may be some.
    pub(crate) records_left: usize,
}

impl Shard {
    /// A shard with room for `flows_max` connections, whose hash is seeded with `secret`.
    pub fn new(flows_max: usize, secret: [u64; 2]) -> Self {
        Self::with_memory(flows_max, secret, &|_, _| {})
    }

    /// The same; `advice` hears where the large tables are about to be.
    pub fn with_memory(flows_max: usize, secret: [u64; 2], advice: MemoryAdvice<'_>) -> Self {
        Self {
            sessions: ConnectionTables::new(flows_max, secret, advice),
            counters: Vec::new(),
            recent: Vec::new(),
            places: CounterPlaces::new(),
            orphans: Orphans::default(),
            stopwatch: Stopwatch::default(),
            packet_contexts: alloc::vec![PacketContext::NONE; BURST_PACKETS],
            path_cache: PathCache::default(),
            is_releasing: false,
        }
    }

    /// Counts `packets` that passed and the shell had to drop at `eni`.
    pub fn count_drop(&mut self, eni: EniIndex, direction: Direction, reason: DropReason, packets: u32) {
        if let Some(counters) = self.counters.get_mut(eni.0 as usize) {
            counters.direction(direction).count_undelivered(reason, packets);
        }
    }

    /// The place of `direction` at an ENI, with counters; none if the snapshot does not have it.
    #[inline]
    pub(super) fn context_of<'a>(
        &mut self,
        snapshot: &'a Snapshot,
        eni: EniIndex,
        direction: Direction,
    ) -> Option<EniContext<'a>> {
        let context = EniContext::new(snapshot, eni, direction)?;
        self.hold_place(eni, context.eni.epoch);
        Some(context)
    }

    /// Sees to it that the counters at an ENI's place are its own.
    #[inline]
    pub(super) fn hold_place(&mut self, eni: EniIndex, epoch: EniEpoch) {
        let place = eni.0 as usize;
        if self.counters.get(place).is_none_or(|counters| counters.epoch != epoch) {
            self.take_place(place, epoch);
        }
    }

    /// The counters of an ENI, which begin where there are none.
    pub(crate) fn counters_at(&mut self, eni: EniIndex, epoch: EniEpoch) -> &mut EniCounters {
        let place = eni.0 as usize;
        if self.counters.get(place).is_none_or(|counters| counters.epoch != epoch) {
            self.take_place(place, epoch);
        }
        &mut self.counters[place]
    }

    #[cold]
    pub(super) fn take_place(&mut self, place: usize, epoch: EniEpoch) {
        if self.counters.len() <= place {
            self.counters.resize(place + 1, EniCounters::new(EniEpoch::default()));
            self.recent.resize(place + 1, RecentSessions::default());
        }
        if self.places.remove(self.counters[place].epoch) {
            self.orphans.records_left = self.sessions.capacity() + SWEEP_RECORDS_PER_TURN;
        }
        self.counters[place] = EniCounters::new(epoch);
        self.recent[place] = RecentSessions::default();
        self.places.insert(epoch, place);
    }

    /// Ends the session of `epoch` in the record at `slot`.
    pub(crate) fn end_session(&mut self, slot: SessionSlot, epoch: EniEpoch) {
        let was_live =
            self.sessions.connection(slot).sessions.iter().any(|session| session.epoch() == epoch && session.is_live());
        self.sessions.end(slot, epoch);
        if was_live {
            self.forget_session(epoch);
        }
    }

    /// Counts a session more of an ENI that may hold `sessions_max`.
    #[inline(always)]
    pub(crate) fn note_session(&mut self, place: usize, sessions_max: u32, entry: &LookupKey) {
        let counters = &mut self.counters[place];
        counters.note_session();
        // Far from its limit an ENI of many sessions need not know where they are.
        if counters.sessions > sessions_max / 2 || sessions_max as usize <= RECENT_SESSIONS_MAX {
            self.keep_in_mind(place, entry);
        }
    }

    /// Keeps in mind where an ENI's newest session is, as one that may give way to another.
    #[inline(never)]
    pub(super) fn keep_in_mind(&mut self, place: usize, entry: &LookupKey) {
        let (epoch, sessions) = (self.counters[place].epoch, &self.sessions);
        let recent = &mut self.recent[place];
        if recent.is_full() {
            recent.make_room(|session| sessions.find_recent(session, epoch).is_some());
        }
        recent.push(sessions.recent(entry));
    }

    /// Counts a session less, whose record is given away.
    #[inline]
    pub(crate) fn forget_session(&mut self, epoch: EniEpoch) {
        if let Some(place) = self.place_of(epoch) {
            self.counters[place].forget_session();
        }
    }

    /// The place of the ENI whose sessions a scope is about.
    pub(crate) fn place_of(&self, epoch: EniEpoch) -> Option<usize> {
        self.places.of(epoch, &self.counters)
    }

    pub(crate) fn counters_of(&self, place: usize, epoch: EniEpoch) -> Option<&EniCounters> {
        self.counters.get(place).filter(|counters| counters.epoch == epoch)
    }
}
