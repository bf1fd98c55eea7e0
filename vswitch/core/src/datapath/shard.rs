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
use crate::datapath::uplink::receivers::Receivers;
use crate::datapath::uplink::shard_nat::ShardNat;
use crate::hw::time::{Tick, Time};
use crate::packet::Packet;
use crate::packet::verdict::{DropReason, Verdict};
use crate::policy::eni_context::EniContext;
use crate::router;
use crate::router::next_hop::UplinkNextHops;
use alloc::vec::Vec;

/// What one worker alone owns: the sessions and counters of its ENIs.
#[derive(Debug)]
pub struct Shard {
    pub(crate) sessions: ConnectionTables,
    /// By [`EniIndex`].
    pub(crate) counters: Vec<EniCounters>,
    /// The recent sessions of each ENI, at the same index.
    pub(crate) recent: Vec<RecentSessions>,
    /// Where the sessions of an epoch are counted.
    pub(crate) places: CounterPlaces,
    pub(crate) orphans: Orphans,
    /// Times some bursts. The owner of the shard starts it before a burst is received, and stops it after sending.
    pub stopwatch: Stopwatch,
    /// One for each packet of a burst. Between bursts they are meaningless and only reserve memory.
    pub(super) packet_contexts: Vec<PacketContext>,
    pub(super) path_cache: PathCache,
    /// The external ends of connections, and what became of first fragments.
    pub(crate) nat: ShardNat,
    /// The ENIs to which its uplinks bring packets.
    pub(super) receivers: Receivers,
    /// The next hops of this shard's uplinks.
    pub(crate) next_hops: Vec<UplinkNextHops>,
    /// Whether the packets at hand are fragments that waited for their first one.
    pub(crate) is_releasing: bool,
}

/// Sessions of ENIs that no longer exist. Nothing matches them, so they can be removed before they expire.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    pub(super) looked_at: Tick,
    /// How many records may still contain some.
    pub(crate) records_left: usize,
}

impl Shard {
    /// A shard with room for `flows_max` connections, whose hash is keyed with `secret`.
    pub fn new(flows_max: usize, secret: [u64; 2]) -> Self {
        Self::with_memory(flows_max, secret, &|_, _| {})
    }

    /// The same as [`Shard::new`]; `advice` is called with the location of each large table before it is written.
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
            nat: ShardNat::new(secret),
            receivers: Receivers::default(),
            next_hops: Vec::new(),
            is_releasing: false,
        }
    }

    /// Counts `packets` that passed at `eni` and that the shell had to drop.
    pub fn count_drop(&mut self, eni: EniIndex, direction: Direction, reason: DropReason, packets: u32) {
        if let Some(counters) = self.counters.get_mut(eni.0 as usize) {
            counters.direction(direction).count_undelivered(reason, packets);
        }
    }

    /// Turns a packet that was to be served into what its guest is told where the service is away, and counts it.
    pub fn refuse_served(&mut self, snapshot: &Snapshot, eni: EniIndex, packet: &mut Packet, now: Time) {
        packet.verdict = match self.context_of(snapshot, eni, Direction::Egress) {
            Some(context) => {
                let verdict = router::refuse_served(&context, packet);
                let verdict = self.counters[context.counters_index()].limit_answers(verdict, now.tick());
                self.counters[context.counters_index()].egress.count(verdict, packet.wire());
                verdict
            }
            None => Verdict::Drop(DropReason::EniGone),
        };
    }

    /// Counts a packet that `eni` sent and a service of the switch took, or replied to.
    pub fn count_served(&mut self, eni: EniIndex) {
        if let Some(counters) = self.counters.get_mut(eni.0 as usize) {
            counters.egress.count_answered();
        }
    }

    /// The context of `direction` at an ENI, with its counters in place; `None` if the snapshot does not have the ENI.
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

    /// Makes sure that the counters at an index belong to this ENI.
    #[inline]
    pub(super) fn hold_place(&mut self, eni: EniIndex, epoch: EniEpoch) {
        let place = eni.0 as usize;
        if self.counters.get(place).is_none_or(|counters| counters.epoch != epoch) {
            self.take_place(place, epoch);
        }
    }

    /// The counters of an ENI; new ones if there are none.
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
        // Sessions of the previous ENI are still in the table and are removed by the next round of the sweep.
        if self.places.remove(self.counters[place].epoch) {
            self.orphans.records_left = self.sessions.capacity() + SWEEP_RECORDS_PER_TURN;
        }
        self.counters[place] = EniCounters::new(epoch);
        self.recent[place] = RecentSessions::default();
        self.places.insert(epoch, place);
    }

    /// Ends the session of `epoch` in the record at `slot`.
    pub(crate) fn end_session(&mut self, slot: SessionSlot, epoch: EniEpoch) {
        // Looked up before it ends; afterwards the record may be free.
        let was_live =
            self.sessions.connection(slot).sessions.iter().any(|session| session.epoch() == epoch && session.is_live());
        self.sessions.end(slot, epoch);
        if was_live {
            self.forget_session(epoch);
        }
    }

    /// Counts a new session of an ENI that may hold `sessions_max`, and remembers it if it may have to give way.
    #[inline(always)]
    pub(crate) fn note_session(&mut self, place: usize, sessions_max: u32, entry: &LookupKey) {
        let counters = &mut self.counters[place];
        counters.note_session();
        // An ENI that may have many sessions and is far from its limit need not know where they are.
        if counters.sessions > sessions_max / 2 || sessions_max as usize <= RECENT_SESSIONS_MAX {
            self.keep_in_mind(place, entry);
        }
    }

    /// Remembers an ENI's newest session as one that may give way to another.
    #[inline(never)]
    pub(super) fn keep_in_mind(&mut self, place: usize, entry: &LookupKey) {
        let (epoch, sessions) = (self.counters[place].epoch, &self.sessions);
        let recent = &mut self.recent[place];
        if recent.is_full() {
            recent.make_room(|session| sessions.find_recent(session, epoch).is_some());
        }
        recent.push(sessions.recent(entry));
    }

    /// Counts a session less, whose record was reused.
    #[inline]
    pub(crate) fn forget_session(&mut self, epoch: EniEpoch) {
        if let Some(place) = self.place_of(epoch) {
            self.counters[place].forget_session();
        }
    }

    /// The index of the ENI with this epoch.
    pub(crate) fn place_of(&self, epoch: EniEpoch) -> Option<usize> {
        self.places.of(epoch, &self.counters)
    }

    pub(crate) fn counters_of(&self, place: usize, epoch: EniEpoch) -> Option<&EniCounters> {
        self.counters.get(place).filter(|counters| counters.epoch == epoch)
    }
}
