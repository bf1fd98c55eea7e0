//! The door: every packet of every ENI passes here, once out of its sender and once into its receiver.
//!
//! A burst goes through in phases, so that the memory each packet needs is on its way while others are worked on: ask
//! for all frames; parse, guard and route all, and ask for their sessions; then judge and apply in order. Where sender
//! and receiver are of one shard, a packet passes both decisions at once.

use crate::compile::snapshot::Snapshot;
use crate::config::desired::Direction;
use crate::config::ids::EniIndex;
use crate::config::limits::BURST_PACKETS;
use crate::datapath::fast_path::{self, BurstPath, BurstPaths};
use crate::datapath::packet_context::Step;
use crate::datapath::path_cache::PathCache;
use crate::datapath::shard::Shard;
use crate::datapath::slow_path::{admit, arrive};
use crate::datapath::stage_timing::Phase;
use crate::hw::time::{Tick, Time};
use crate::packet::verdict::{DropReason, Verdict};
use crate::packet::{FrameBuffer, Packet};
use crate::policy::eni_context::EniContext;
use crate::tables::address_entry::AddressEntry;

impl Shard {
    /// A burst that the guest behind `eni` sent, out of its ENI and, where `is_here` says that the receiver is of this
    /// shard, into the receiver's. Sets each packet's verdict: `Deliver` to its receiver, `Forward` to the ENI of another
    /// shard, `Answer` or `Drop`.
    pub fn forward(
        &mut self,
        (snapshot, now): (&Snapshot, Time),
        eni: EniIndex,
        burst: &mut [Packet],
        is_here: impl Fn(EniIndex) -> bool,
    ) {
        burst.iter().take(BURST_PACKETS).for_each(|packet| packet.buffer.prefetch());
        let Some(context) = self.context_of(snapshot, eni, Direction::Egress) else {
            return burst.iter_mut().for_each(|packet| packet.verdict = Verdict::Drop(DropReason::EniGone));
        };
        let now = now.tick();
        let (mut steps, mut path_cache) = (core::mem::take(&mut self.steps), core::mem::take(&mut self.path_cache));
        path_cache.invalidate_if_stale(snapshot);
        for burst in burst.chunks_mut(BURST_PACKETS) {
            let mut burst_paths = BurstPaths::none();
            self.admit_all(&context, burst, (&mut steps, &mut burst_paths), (&mut path_cache, &is_here));
            for BurstPath { path, .. } in burst_paths.iter() {
                self.hold_place(path.receiver, path.receiver_scope);
            }
            self.stopwatch.lap(Phase::Admit);
            let mut other = None;
            for (packet, step) in burst.iter_mut().zip(&mut steps) {
                if let Some(burst_path) = burst_paths.of(step) {
                    if self.pass_along(&context, burst_path, (packet, step), now) {
                        continue;
                    }
                    step.place = burst_path.path.place;
                    let next = Verdict::Forward(burst_path.path.receiver);
                    packet.verdict = packet.parse().map_or_else(Verdict::Drop, |()| next);
                }
                if let Verdict::Forward(next) = packet.verdict {
                    self.pass_to(next, (&context, &mut other), (packet, step), (now, &is_here));
                } else {
                    packet.verdict = self.counters[context.counters_index()].bound(packet.verdict, now);
                    self.counters[context.counters_index()].egress.count(packet.verdict, packet.wire());
                }
            }
            for burst_path in burst_paths.iter() {
                self.count_burst_path(&context, burst_path);
                burst_path.dirty_path().into_iter().for_each(|path| path_cache.keep(path));
            }
            self.stopwatch.lap(Phase::Judge);
        }
        (self.steps, self.path_cache) = (steps, path_cache);
    }

    /// How long a fragment is that waited and whose first has come, if there is one: it is to be taken and sent on its way
    /// before the next burst.
    #[inline]
    pub fn released_bytes(&self) -> Option<usize> {
        self.sessions.fragments.released_bytes()
    }

    /// Moves the frame of such a fragment into `frame`: whose it is.
    pub fn take_released(&mut self, frame: &mut FrameBuffer) -> Option<EniIndex> {
        self.sessions.fragments.take_released(frame)
    }

    /// [`Shard::forward`] for a fragment that waited.
    pub fn forward_released(
        &mut self,
        at: (&Snapshot, Time),
        eni: EniIndex,
        burst: &mut [Packet],
        is_here: impl Fn(EniIndex) -> bool,
    ) {
        self.is_releasing = true;
        self.forward(at, eni, burst, is_here);
        self.is_releasing = false;
    }

    /// The first half of [`Shard::forward`] alone: a burst that the guest behind `eni` sent, out of its ENI.
    pub fn egress(&mut self, snapshot: &Snapshot, eni: EniIndex, burst: &mut [Packet], now: Time) {
        self.forward((snapshot, now), eni, burst, |_| false);
    }

    /// The second half: a burst whose packets each carry `Verdict::Forward` to an ENI of this shard. Sets each packet's
    /// verdict: `Deliver` or `Drop`.
    pub fn ingress(&mut self, snapshot: &Snapshot, burst: &mut [Packet], now: Time) {
        let mut rest = burst;
        while let Some(first) = rest.first() {
            let target = first.verdict;
            let is_same = |packet: &&Packet| packet.verdict == target;
            let length = rest.iter().take(BURST_PACKETS).take_while(is_same).count();
            let (run, others) = rest.split_at_mut(length);
            if let Verdict::Forward(eni) = target {
                self.ingress_of(snapshot, eni, run, now.tick());
            }
            rest = others;
        }
    }

    /// Packets of a burst that go to one ENI.
    fn ingress_of(&mut self, snapshot: &Snapshot, eni: EniIndex, run: &mut [Packet], now: Tick) {
        let Some(context) = self.context_of(snapshot, eni, Direction::Ingress) else {
            return run.iter_mut().for_each(|packet| packet.verdict = Verdict::Drop(DropReason::EniGone));
        };
        let mut steps = [Step::NONE; BURST_PACKETS];
        for (packet, step) in run.iter_mut().zip(&mut steps) {
            // What another shard found is not known here: ask for the owner.
            let place = context.network.destination(packet.headers.tuple.addresses);
            packet.decision = None;
            packet.verdict = arrive(&context, packet, place.route());
            *step = self.step_of(&context, packet, place);
        }
        for (packet, step) in run.iter_mut().zip(&steps) {
            if let Verdict::Forward(_) = packet.verdict {
                let lookup = self.lookup(&context, packet, step);
                let evaluation = self.evaluate(&context, (packet, &lookup), now);
                packet.verdict = match self.apply(&context, packet, (evaluation, &lookup), now) {
                    _ if !evaluation.0.accepts() => Verdict::Drop(evaluation.0.drop_reason()),
                    Ok(_) => Verdict::Deliver,
                    Err(reason) => Verdict::Drop(reason),
                };
            }
            self.finish(&context, packet);
        }
    }

    /// The first phases of a burst that leaves: parse, guard, route, and ask for the sessions.
    #[inline(always)]
    fn admit_all(
        &self,
        context: &EniContext<'_>,
        burst: &mut [Packet],
        (steps, burst_paths): (&mut [Step], &mut BurstPaths<'_>),
        (path_cache, is_here): (&mut PathCache, &impl Fn(EniIndex) -> bool),
    ) {
        for (packet, step) in burst.iter_mut().zip(&mut *steps) {
            if fast_path::admit((context, &self.sessions), burst_paths, (path_cache, is_here), (packet, step)).is_none()
            {
                *step = self.admit_unusual(context, packet);
            }
        }
        let steps = &mut steps[..burst.len()];
        // By now what was asked for first is here, and tells where to look.
        if !self.sessions.are_far() {
            return steps.iter_mut().for_each(|step| (step.guess, _) = self.sessions.guess_on(&step.entry, step.guess));
        }
        let (mut chained, mut count) = ([0; BURST_PACKETS], 0);
        for (number, step) in steps.iter_mut().enumerate() {
            let (guess, is_chained) = self.sessions.guess_on(&step.entry, step.guess);
            step.guess = guess;
            chained[count % BURST_PACKETS] = number as u8;
            count += usize::from(is_chained);
        }
        for &number in &chained[..count] {
            let step = &mut steps[usize::from(number)];
            (step.guess, _) = self.sessions.guess_on(&step.entry, step.guess);
        }
    }

    #[inline(never)]
    fn admit_unusual(&self, context: &EniContext<'_>, packet: &mut Packet) -> Step {
        packet.decision = None;
        let (verdict, place) = admit(context, packet);
        packet.verdict = verdict;
        self.step_of(context, packet, place)
    }

    #[inline]
    fn step_of(&self, context: &EniContext<'_>, packet: &Packet, place: AddressEntry) -> Step {
        if !packet.headers.is_plain {
            return Step { place, ..Step::NONE };
        }
        let (entry, guess) = self.sessions.reach_for(&packet.headers.tuple, context.network.salt);
        Step { entry, guess, place, ..Step::NONE }
    }
}
