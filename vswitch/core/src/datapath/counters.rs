//! The counters of each ENI: packets and bytes by direction, and drops by reason.

use crate::config::desired::Direction;
use crate::config::ids::EniEpoch;
use crate::config::limits::{ANSWERS_PER_S, ICMP_ERRORS_PER_S, SERVICE_PACKETS_PER_S, SERVICE_REQUESTS_PER_S};
use crate::config::protocol::DirectionStats;
use crate::conntrack::quota::TokenBucket;
use crate::hw::time::Tick;
use crate::packet::offload::Wire;
use crate::packet::policer::Policer;
use crate::packet::verdict::{DropReason, ServedBy, Verdict};
use crate::tables::number_hasher::NumberHasher;
use core::cell::Cell;
use core::hash::BuildHasherDefault;
use hashbrown::HashMap;

/// The counters of one ENI and direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DirectionCounters {
    packets: u64,
    bytes: u64,
    answered: u64,
    drops: [u64; DropReason::COUNT],
}

/// What a shard keeps for each of its ENIs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EniCounters {
    /// Which ENI the counters belong to, since the index may pass to another.
    pub(crate) epoch: EniEpoch,
    /// Live sessions of the ENI in this shard.
    pub(crate) sessions: u32,
    /// Sessions that the ENI opened in this shard.
    pub(crate) opened: u64,
    /// Sessions that gave way to others in a full table.
    pub(crate) evicted: u64,
    /// The rate limit of new sessions.
    pub(crate) bucket: TokenBucket,
    /// The rate limit of ICMP errors about its sessions.
    pub(crate) related_errors: TokenBucket,
    /// The rate limit of the virtual router's answers.
    pub(crate) answers: TokenBucket,
    /// How many requests to the service thread it may make now.
    pub(crate) services: TokenBucket,
    /// How many packets to the services process it may send now.
    pub(crate) service_packets: TokenBucket,
    /// The rate limits of what it sends and of what it gets.
    pub(crate) egress_rate: Policer,
    pub(crate) ingress_rate: Policer,
    pub(crate) egress: DirectionCounters,
    pub(crate) ingress: DirectionCounters,
}

impl DirectionCounters {
    const ZERO: Self = Self { packets: 0, bytes: 0, answered: 0, drops: [0; DropReason::COUNT] };

    /// Counts a packet, or the packets that it is segmented into, by verdict.
    #[inline]
    pub(crate) fn count(&mut self, verdict: Verdict, wire: Wire) {
        match verdict {
            Verdict::Drop(reason) => self.drops[reason as usize] += u64::from(wire.packets),
            Verdict::Answer => self.answered += 1,
            // It is counted once it is released, answered or dropped.
            Verdict::Wait | Verdict::Serve(_) => {}
            Verdict::Forward(_) | Verdict::Deliver => {
                self.packets += u64::from(wire.packets);
                self.bytes += wire.bytes;
            }
        }
    }

    /// Counts a packet that a service of the switch took, or replied to.
    pub(crate) fn count_answered(&mut self) {
        self.answered += 1;
    }

    /// Also counts packets as dropped that passed but could not be delivered by the shell.
    pub(crate) fn count_undelivered(&mut self, reason: DropReason, packets: u32) {
        self.drops[reason as usize] += u64::from(packets);
    }

    /// The counters with names.
    pub(crate) fn report(&self) -> DirectionStats {
        let met = DropReason::ALL.iter().filter(|&&reason| self.drops[reason as usize] > 0);
        DirectionStats {
            packets: self.packets,
            bytes: self.bytes,
            answered: self.answered,
            drops: met.map(|&reason| (reason.name().into(), self.drops[reason as usize])).collect(),
        }
    }
}

impl EniCounters {
    /// Counters of zero.
    pub(crate) const fn new(epoch: EniEpoch) -> Self {
        Self {
            epoch,
            sessions: 0,
            opened: 0,
            evicted: 0,
            bucket: TokenBucket::NEW,
            related_errors: TokenBucket::full(ICMP_ERRORS_PER_S),
            answers: TokenBucket::full(ANSWERS_PER_S),
            services: TokenBucket::full(SERVICE_REQUESTS_PER_S),
            service_packets: TokenBucket::full(SERVICE_PACKETS_PER_S),
            egress_rate: Policer::FULL,
            ingress_rate: Policer::FULL,
            egress: DirectionCounters::ZERO,
            ingress: DirectionCounters::ZERO,
        }
    }

    /// The verdict after the rate limits: an answer or a request for a service beyond them is dropped.
    #[inline]
    pub(crate) fn limit_answers(&mut self, verdict: Verdict, now: Tick) -> Verdict {
        match verdict {
            Verdict::Answer if !self.answers.take(ANSWERS_PER_S, now) => Verdict::Drop(DropReason::AnswerRate),
            Verdict::Serve(ServedBy::Thread) if !self.services.take(SERVICE_REQUESTS_PER_S, now) => {
                Verdict::Drop(DropReason::ServiceRate)
            }
            Verdict::Serve(ServedBy::Process) if !self.service_packets.take(SERVICE_PACKETS_PER_S, now) => {
                Verdict::Drop(DropReason::ServiceRate)
            }
            _ => verdict,
        }
    }

    /// Counts a new session.
    pub(crate) fn note_session(&mut self) {
        self.sessions += 1;
        self.opened += 1;
    }

    /// Counts a session less.
    pub(crate) fn forget_session(&mut self) {
        self.sessions = self.sessions.saturating_sub(1);
    }

    /// The counters of a direction.
    pub(crate) fn direction(&mut self, direction: Direction) -> &mut DirectionCounters {
        match direction {
            Direction::Egress => &mut self.egress,
            Direction::Ingress => &mut self.ingress,
        }
    }
}

/// The index of each ENI's counters, by the epoch of its sessions.
#[derive(Debug)]
pub(crate) struct CounterPlaces {
    by_epoch: HashMap<EniEpoch, usize, BuildHasherDefault<NumberHasher>>,
    /// Indexes found recently, hashed by epoch.
    hints: [Cell<usize>; 64],
}

impl CounterPlaces {
    pub(crate) fn new() -> Self {
        Self { by_epoch: HashMap::default(), hints: [const { Cell::new(usize::MAX) }; 64] }
    }

    /// The index of an ENI's counters in `counters`.
    #[inline]
    pub(crate) fn of(&self, epoch: EniEpoch, counters: &[EniCounters]) -> Option<usize> {
        // A hint is only believed if the counters at its index have the epoch: an index may pass to another ENI.
        let hint = &self.hints[epoch.0 as usize % self.hints.len()];
        if counters.get(hint.get()).is_none_or(|counters| counters.epoch != epoch) {
            hint.set(*self.by_epoch.get(&epoch)?);
        }
        Some(hint.get())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (EniEpoch, usize)> {
        self.by_epoch.iter().map(|(epoch, place)| (*epoch, *place))
    }

    pub(crate) fn contains(&self, epoch: EniEpoch) -> bool {
        self.by_epoch.contains_key(&epoch)
    }

    pub(crate) fn insert(&mut self, epoch: EniEpoch, place: usize) {
        self.by_epoch.insert(epoch, place);
    }

    /// Removes an ENI. Returns whether it was there.
    pub(crate) fn remove(&mut self, epoch: EniEpoch) -> bool {
        // The next ENI with this hint must not find the index of the one that went.
        self.hints[epoch.0 as usize % self.hints.len()].set(usize::MAX);
        self.by_epoch.remove(&epoch).is_some()
    }

    /// Removes the ENIs for which `stays` does not hold. Returns whether there were any.
    pub(crate) fn retain(&mut self, mut stays: impl FnMut(EniEpoch, usize) -> bool) -> bool {
        let before = self.by_epoch.len();
        self.by_epoch.retain(|epoch, place| stays(*epoch, *place));
        let are_fewer = self.by_epoch.len() < before;
        if are_fewer {
            self.hints.iter().for_each(|hint| hint.set(usize::MAX));
        }
        are_fewer
    }
}
