//! Forwarding: every packet passes here twice, at its sender's ENI and at its receiver's.
//!
//! A burst is processed in phases, so that the memory for one packet is fetched while others are processed: prefetch
//! all frames; parse, check and route all packets and prefetch their sessions; then evaluate and apply in order. If
//! sender and receiver are in the same shard, both decisions are made at once.

use crate::compile::snapshot::Snapshot;
use crate::config::desired::Direction;
use crate::config::ids::EniIndex;
use crate::config::limits::BURST_PACKETS;
use crate::datapath::fast_path::{self, BurstPolicies};
use crate::datapath::packet_context::PacketContext;
use crate::datapath::path_cache::BurstPaths;
use crate::datapath::shard::Shard;
use crate::datapath::slow_path::{egress_checks, ingress_checks};
use crate::datapath::stage_timing::Phase;
use crate::hw::time::{Tick, Time};
use crate::packet::verdict::{DropReason, Verdict};
use crate::packet::{FrameBuffer, Marker, Packet};
use crate::policy::eni_context::EniContext;
use crate::tables::address_entry::AddressEntry;

/// What forwarding asks whoever has the shard.
pub trait ShardOwner {
    /// Whether an ENI is in this shard.
    fn is_here(&self, eni: EniIndex) -> bool;

    /// Makes a frame whole part of which is [deferred](FrameBuffer::defer).
    fn fetch_deferred(&self, buffer: &mut FrameBuffer);

    /// Makes a packet whole, if part of its frame is deferred.
    #[inline]
    fn make_whole(&self, packet: &mut Packet) {
        if packet.buffer.deferred().is_some() {
            self.fetch_deferred(&mut packet.buffer);
        }
    }
}

/// For bursts of whole frames: whether an ENI is in this shard.
impl<F: Fn(EniIndex) -> bool> ShardOwner for F {
    fn is_here(&self, eni: EniIndex) -> bool {
        self(eni)
    }

    fn fetch_deferred(&self, buffer: &mut FrameBuffer) {
        debug_assert!(buffer.deferred().is_none(), "a frame that its sender still has");
    }
}

impl Shard {
    /// Forwards a burst that the guest behind `eni` sent: through egress and, if `owner` says that the receiver is in
    /// this shard, through the receiver's ingress. Sets the verdict of each packet: `Deliver` to its receiver,
    /// `Forward` to an ENI of another shard, `Answer`, `Drop` or `Wait`. Only packets that took the fast path may leave it
    /// with a part deferred.
    pub fn forward(
        &mut self,
        (snapshot, now): (&Snapshot, Time),
        eni: EniIndex,
        burst: &mut [Packet],
        owner: impl ShardOwner,
    ) {
        let is_here = |eni| owner.is_here(eni);
        // Prefetched first of all, so that the frames arrive while the ENI is looked up.
        burst.iter().take(BURST_PACKETS).for_each(|packet| packet.buffer.prefetch());
        let Some(context) = self.context_of(snapshot, eni, Direction::Egress) else {
            return burst.iter_mut().for_each(|packet| packet.verdict = Verdict::Drop(DropReason::EniGone));
        };
        let now = now.tick();
        if let Some(uplink) = context.as_uplink() {
            burst.iter_mut().for_each(|packet| owner.make_whole(packet));
            return self.enter(&uplink, burst, now, is_here);
        }
        // Taken out of the shard so that it can be borrowed while they are written; put back below.
        let (mut packet_contexts, mut path_cache) =
            (core::mem::take(&mut self.packet_contexts), core::mem::take(&mut self.path_cache));
        for burst in burst.chunks_mut(BURST_PACKETS) {
            let mut burst_paths = path_cache.begin_burst(&context);
            self.egress_checks_of_burst(&context, burst, &mut packet_contexts, &mut burst_paths, &owner);
            // The receivers' counters are in place before the first packet is counted there.
            for delivery in burst_paths.deliveries() {
                self.hold_place(delivery.receiver, delivery.receiver_epoch);
            }
            self.stopwatch.lap(Phase::Admit);
            let (mut policies, mut other, mut exit) = (BurstPolicies::default(), None, None);
            for (packet, packet_context) in burst.iter_mut().zip(&mut packet_contexts) {
                if let Some(mut on) = burst_paths.of(packet_context) {
                    if self.try_fast_path(&context, &mut on, &mut policies, packet, packet_context, now) {
                        continue;
                    }
                    owner.make_whole(packet);
                    // The slow path gets what the first phase found, so that the destination is not looked up twice.
                    packet_context.place = on.path.place;
                    let next = Verdict::Forward(on.path.receiver);
                    packet.verdict = packet.parse().map_or_else(Verdict::Drop, |()| next);
                } else if packet_context.path == PacketContext::LEAVES {
                    let exit = exit.get_or_insert_with(|| self.exit_of(&context, now, &is_here));
                    if self.try_leave(&context, exit, packet, packet_context, now) {
                        continue;
                    }
                    owner.make_whole(packet);
                    *packet_context = self.egress_checks_unusual(&context, packet);
                }
                if let Verdict::Forward(next) = packet.verdict {
                    self.slow_path_to(next, (&context, &mut other), (packet, packet_context), (now, &is_here));
                } else {
                    // The limit comes before counting, so that an answer beyond it is counted as a drop.
                    packet.verdict = self.counters[context.counters_index()].limit_answers(packet.verdict, now);
                    self.counters[context.counters_index()].egress.count(packet.verdict, packet.wire());
                }
            }
            self.count_deliveries(&context, &burst_paths);
            if let Some(Some(exit)) = &exit {
                self.count_exit(&context, exit);
            }
            self.stopwatch.lap(Phase::Evaluate);
        }
        (self.packet_contexts, self.path_cache) = (packet_contexts, path_cache);
    }

    /// The length of the next fragment that waited and whose first fragment has arrived, if there is one. It has to be
    /// taken and forwarded before the next burst.
    #[inline]
    pub fn released_bytes(&self) -> Option<usize> {
        self.sessions.fragments.released_bytes()
    }

    /// Moves the frame of that fragment into `frame` and returns the ENI that sent it.
    pub fn take_released(&mut self, frame: &mut FrameBuffer) -> Option<EniIndex> {
        self.sessions.fragments.take_released(frame)
    }

    /// [`Shard::forward`] for a fragment that has waited.
    pub fn forward_released(
        &mut self,
        at: (&Snapshot, Time),
        eni: EniIndex,
        burst: &mut [Packet],
        owner: impl ShardOwner,
    ) {
        self.is_releasing = true;
        self.forward(at, eni, burst, owner);
        self.is_releasing = false;
    }

    /// The first half of [`Shard::forward`]: takes a burst that the guest behind `eni` sent through egress.
    pub fn egress(&mut self, snapshot: &Snapshot, eni: EniIndex, burst: &mut [Packet], now: Time) {
        self.forward((snapshot, now), eni, burst, |_: EniIndex| false);
    }

    /// The second half: takes packets that carry `Verdict::Forward` to ENIs of this shard through ingress. Sets the
    /// verdict of each: `Deliver` or `Drop`.
    pub fn ingress(&mut self, snapshot: &Snapshot, burst: &mut [Packet], now: Time) {
        let mut rest = burst;
        while let Some(first) = rest.first() {
            let target = first.verdict;
            // Consecutive packets to one ENI share its context; a burst from one sender often has a single receiver.
            let is_same = |packet: &&Packet| packet.verdict == target;
            let length = rest.iter().take(BURST_PACKETS).take_while(is_same).count();
            let (run, others) = rest.split_at_mut(length);
            if let Verdict::Forward(eni) = target {
                self.ingress_of(snapshot, eni, run, now.tick());
            }
            rest = others;
        }
    }

    /// Ingress for packets of a burst that go to one ENI.
    pub(super) fn ingress_of(&mut self, snapshot: &Snapshot, eni: EniIndex, run: &mut [Packet], now: Tick) {
        let Some(context) = self.context_of(snapshot, eni, Direction::Ingress) else {
            return run.iter_mut().for_each(|packet| packet.verdict = Verdict::Drop(DropReason::EniGone));
        };
        if let Some(uplink) = context.as_uplink() {
            return run.iter_mut().for_each(|packet| packet.verdict = self.send_out(&uplink, packet, now));
        }
        let mut packet_contexts = [PacketContext::NONE; BURST_PACKETS];
        for (packet, packet_context) in run.iter_mut().zip(&mut packet_contexts) {
            let is_translated = packet.marker == Marker::Uplink;
            let is_mapped = match is_translated.then(|| self.translate_incoming(&context, packet, now)) {
                Some(Err(reason)) => {
                    packet.verdict = Verdict::Drop(reason);
                    continue;
                }
                Some(Ok(is_mapped)) => is_mapped,
                None => false,
            };
            // What another shard found is not known here, so look up the owner.
            let place = context.network.destination(packet.headers.tuple.addresses);
            packet.decision = None;
            packet.verdict = ingress_checks(&context, packet, place.route());
            *packet_context = self.context_of_packet(&context, packet, place);
            if is_mapped && !self.is_solicited(&context, packet, packet_context, now) {
                packet.verdict = Verdict::Drop(DropReason::NatUnsolicited);
            }
        }
        for (packet, packet_context) in run.iter_mut().zip(&packet_contexts) {
            if let Verdict::Forward(_) = packet.verdict {
                let lookup = self.lookup(&context, packet, packet_context);
                let evaluation = self.evaluate(&context, (packet, &lookup), now);
                packet.verdict = match self.apply(&context, packet, (evaluation, &lookup), now) {
                    // A refused packet may still change its session (it may be revoked), hence `apply` comes first.
                    _ if !evaluation.0.accepts() => evaluation.0.refusal(),
                    Ok(opened) => {
                        if packet.marker == Marker::Uplink {
                            let slot = opened.or_else(|| evaluation.1.continues());
                            self.keep_incoming(&context, &packet.headers.tuple, slot, now);
                        }
                        Verdict::Deliver
                    }
                    Err(reason) => Verdict::Drop(reason),
                };
            }
            self.finish(&context, packet);
        }
    }

    /// The first phases of egress: parse, check, route, and prefetch the sessions.
    #[inline(always)]
    fn egress_checks_of_burst(
        &self,
        context: &EniContext<'_>,
        burst: &mut [Packet],
        packet_contexts: &mut [PacketContext],
        burst_paths: &mut BurstPaths<'_>,
        owner: &impl ShardOwner,
    ) {
        let is_here = |eni| owner.is_here(eni);
        for (packet, packet_context) in burst.iter_mut().zip(&mut *packet_contexts) {
            if fast_path::find_path((context, &self.sessions), (&mut *burst_paths, &is_here), (packet, packet_context))
                .is_none()
            {
                owner.make_whole(packet);
                *packet_context = self.egress_checks_unusual(context, packet);
            }
        }
        let packet_contexts = &mut packet_contexts[..burst.len()];
        // The records prefetched first have arrived by now, and tell where to look next.
        if !self.sessions.are_far() {
            return packet_contexts.iter_mut().for_each(|packet_context| {
                (packet_context.guess, _) = self.sessions.guess_on(&packet_context.entry, packet_context.guess)
            });
        }
        let (mut chained, mut count) = ([0; BURST_PACKETS], 0);
        for (number, packet_context) in packet_contexts.iter_mut().enumerate() {
            let (guess, is_chained) = self.sessions.guess_on(&packet_context.entry, packet_context.guess);
            packet_context.guess = guess;
            // Written whether chained or not, and overwritten unless it counts: a branch would be mispredicted.
            chained[count % BURST_PACKETS] = number as u8;
            count += usize::from(is_chained);
        }
        for &number in &chained[..count] {
            let packet_context = &mut packet_contexts[usize::from(number)];
            (packet_context.guess, _) = self.sessions.guess_on(&packet_context.entry, packet_context.guess);
        }
    }

    #[inline(never)]
    fn egress_checks_unusual(&self, context: &EniContext<'_>, packet: &mut Packet) -> PacketContext {
        packet.decision = None;
        let (verdict, place) = egress_checks(context, packet);
        packet.verdict = verdict;
        self.context_of_packet(context, packet, place)
    }

    #[inline]
    fn context_of_packet(&self, context: &EniContext<'_>, packet: &Packet, place: AddressEntry) -> PacketContext {
        if !packet.headers.is_plain {
            return PacketContext { place, ..PacketContext::NONE };
        }
        let (entry, guess) = self.sessions.reach_for(&packet.headers.tuple, context.network.salt);
        PacketContext { entry, guess, place, ..PacketContext::NONE }
    }
}
