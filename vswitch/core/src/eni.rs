//! The door: every packet of every ENI passes here, once out of its sender and once into its receiver.
//!
//! A burst goes through in phases, so that the memory each packet needs is on its way while the others are worked on:
//! parse and guard all, route all, look up all, then judge and apply in order.

use crate::answer;
use crate::counters::EniCounters;
use crate::desired::Direction;
use crate::flow::sessions::{SessionSlot, Sessions};
use crate::flow::{Flow, FlowFlags, FlowState};
use crate::guard::{self, owns_source};
use crate::headers::{Fragment, Headers};
use crate::ids::{EniIndex, FlowScope};
use crate::judge::{Action, Entry, Lookup, Seat};
use crate::limits::{ETHERNET_HEADER_BYTES, SESSIONS_PER_FRAGMENT_FATE, SWEEP_RECORDS_PER_TURN};
use crate::offload::Wire;
use crate::packet::Packet;
use crate::route::Route;
use crate::snapshot::Snapshot;
use crate::time::{Tick, Time};
use crate::verdict::{DropReason, Judgement, Verdict};
use alloc::vec::Vec;
use hashbrown::HashMap;

/// What one worker alone owns: the sessions and counters of its ENIs.
#[derive(Debug)]
pub struct Shard {
    pub(crate) sessions: Sessions,
    /// By [`EniIndex`].
    counters: Vec<EniCounters>,
    /// Whose counters a scope's sessions are counted in.
    places: HashMap<FlowScope, usize>,
}

impl Shard {
    /// A shard with room for `flows_max` sessions, whose hash is seeded with `secret`.
    pub fn new(flows_max: usize, secret: [u64; 2]) -> Self {
        Self { sessions: Sessions::new(flows_max, secret), counters: Vec::new(), places: HashMap::new() }
    }

    /// A burst that the guest behind `eni` sent. Sets each packet's verdict: `Forward`, `Answer` or `Drop`.
    pub fn egress(&mut self, snapshot: &Snapshot, eni: EniIndex, burst: &mut [Packet], now: Time) {
        let Some(seat) = Seat::new(snapshot, eni, Direction::Egress) else {
            return burst.iter_mut().for_each(|packet| packet.verdict = Verdict::Drop(DropReason::EniGone));
        };
        for packet in burst.iter_mut() {
            packet.verdict = admit(&seat, packet);
        }
        self.judge_all(&seat, burst, now.tick());
        for packet in burst.iter_mut() {
            let Verdict::Forward(next) = packet.verdict else { continue };
            let crossed =
                if crosses_subnets(&seat, next, packet.route) { answer::take_hop(&seat, packet) } else { None };
            if let Some(verdict) = crossed.or_else(|| answer::refuse_too_big(&seat, packet, next)) {
                packet.verdict = verdict;
            }
        }
        self.count(&seat, burst);
    }

    /// A burst whose packets each carry `Verdict::Forward` to an ENI of this shard. Sets each packet's verdict:
    /// `Deliver` or `Drop`.
    pub fn ingress(&mut self, snapshot: &Snapshot, burst: &mut [Packet], now: Time) {
        let mut rest = burst;
        while let Some(first) = rest.first() {
            let target = first.verdict;
            let length = rest.iter().take_while(|packet| packet.verdict == target).count();
            let (run, others) = rest.split_at_mut(length);
            if let Verdict::Forward(eni) = target {
                self.ingress_of(snapshot, eni, run, now.tick());
            }
            rest = others;
        }
    }

    /// Packets of a burst that go to one ENI.
    fn ingress_of(&mut self, snapshot: &Snapshot, eni: EniIndex, run: &mut [Packet], now: Tick) {
        let Some(seat) = Seat::new(snapshot, eni, Direction::Ingress) else {
            return run.iter_mut().for_each(|packet| packet.verdict = Verdict::Drop(DropReason::EniGone));
        };
        for packet in run.iter_mut() {
            if seat.eni.source_dest_check && !owns_source(&seat, packet.headers.tuple.addresses.reverse()) {
                packet.verdict = Verdict::Drop(DropReason::DestinationNotOwned);
            }
        }
        self.judge_all(&seat, run, now);
        for packet in run.iter_mut() {
            if let Verdict::Forward(_) = packet.verdict {
                packet.verdict = Verdict::Deliver;
                address_to(&seat, packet);
            }
        }
        self.count(&seat, run);
    }

    /// Counts `packets` that the door let pass and the shell had to drop at `eni`.
    pub fn count_drop(&mut self, eni: EniIndex, direction: Direction, reason: DropReason, packets: u32) {
        if let Some(counters) = self.counters.get_mut(eni.0 as usize) {
            counters.direction(direction).count_undelivered(reason, packets);
        }
    }

    /// Ends some idle sessions: a bounded step of an endless round.
    pub fn sweep(&mut self, snapshot: &Snapshot, now: Time) {
        let (tick, settings) = (now.tick(), snapshot.settings());
        let Self { sessions, counters, places, .. } = self;
        // What is idle for a while may belong to an ENI that is gone; what is not, does not.
        let is_orphan = |scope: FlowScope| {
            let owner = places.get(&scope).and_then(|&place| snapshot.eni(EniIndex(place as u32)));
            owner.is_none_or(|eni| eni.scope != scope)
        };
        let is_over = |scope: FlowScope, flow: &Flow| {
            flow.is_expired(settings, tick) || (flow.last_seen.is_older_than(ORPHAN_IDLE_S, tick) && is_orphan(scope))
        };
        sessions.sweep(SWEEP_RECORDS_PER_TURN, is_over, |scope, state| {
            if let Some(place) = places.get(&scope).and_then(|&place| counters.get_mut(place)) {
                place.forget(state);
            }
        });
    }

    /// Gives every packet that is still to be forwarded its judgement.
    fn judge_all(&mut self, seat: &Seat<'_>, burst: &mut [Packet], now: Tick) {
        for packet in burst.iter_mut().filter(|packet| matches!(packet.verdict, Verdict::Forward(_))) {
            packet.lookup = seat.lookup(&self.sessions, &packet.headers, packet.buffer.frame());
            if let Lookup::Session(entry) | Lookup::Related(entry) | Lookup::Fragment(entry) = &packet.lookup {
                self.sessions.prefetch(&entry.key, entry.hash);
            }
        }
        let place = self.place(seat);
        for packet in burst.iter_mut().filter(|packet| matches!(packet.verdict, Verdict::Forward(_))) {
            let asked = (&packet.lookup, packet.marker);
            let (judgement, action) = seat.judge(&self.sessions, &packet.headers, asked, now);
            packet.judgement = Some(judgement);
            let applied = self.apply(seat, packet, (judgement, action), (place, now));
            if !judgement.accepts() {
                packet.verdict = Verdict::Drop(judgement.drop_reason());
            } else if let Err(reason) = applied {
                packet.verdict = Verdict::Drop(reason);
            }
        }
    }

    /// Does to the sessions what a judgement asks for.
    fn apply(
        &mut self,
        seat: &Seat<'_>,
        packet: &Packet,
        (judgement, action): (Judgement, Action),
        (place, now): (usize, Tick),
    ) -> Result<(), DropReason> {
        let headers = &packet.headers;
        let wire = packet.wire();
        if let Lookup::Session(entry) = &packet.lookup {
            match action {
                Action::None => {}
                Action::Touch(slot) => self.touch(slot, entry, (headers, wire), now),
                Action::Readmit(slot, admitted_by) => {
                    let flow = self.sessions.flow_mut(slot);
                    flow.revision = seat.revision;
                    flow.set_revoked(false);
                    if let Some(judgement) = admitted_by {
                        flow.set_stage(judgement.stage);
                        flow.ground = judgement.ground;
                    }
                    self.touch(slot, entry, (headers, wire), now);
                }
                Action::Revoke(slot) => {
                    let flow = self.sessions.flow_mut(slot);
                    flow.revision = seat.revision;
                    flow.set_revoked(true);
                    flow.last_seen = now;
                }
                Action::Open => self.open(seat, (headers, wire), (judgement, entry), (place, now))?,
                Action::Reopen(slot) => {
                    self.forget(slot, place);
                    self.open(seat, (headers, wire), (judgement, entry), (place, now))?;
                }
            }
        }
        if headers.fragment == Fragment::First && seat.snapshot.settings().follow_first_fragment {
            self.remember_fate(seat, headers, judgement, (place, now));
        }
        Ok(())
    }

    fn touch(&mut self, slot: SessionSlot, entry: &Entry, (headers, wire): (&Headers, Wire), now: Tick) {
        let flow = self.sessions.flow_mut(slot);
        let from_opener = entry.swapped == flow.is_swapped();
        let side = !from_opener as usize;
        flow.state = flow.state.after(headers, from_opener);
        flow.last_seen = now;
        flow.packets[side] = flow.packets[side].wrapping_add(wire.packets);
        flow.bytes[side] += wire.bytes;
    }

    fn open(
        &mut self,
        seat: &Seat<'_>,
        (headers, wire): (&Headers, Wire),
        (judgement, entry): (Judgement, &Entry),
        (place, now): (usize, Tick),
    ) -> Result<(), DropReason> {
        if self.counters[place].sessions >= seat.eni.sessions_max {
            return Err(DropReason::SessionLimit);
        }
        let flow = Flow {
            bytes: [wire.bytes, 0],
            packets: [wire.packets, 0],
            state: FlowState::opened_by(headers),
            flags: FlowFlags::new(seat.direction, entry.swapped, judgement.stage),
            ..new_record(seat, judgement, now)
        };
        self.sessions.insert(entry.key, entry.hash, flow).map_err(|_| DropReason::FlowTableFull)?;
        self.counters[place].sessions += 1;
        Ok(())
    }

    fn forget(&mut self, slot: SessionSlot, place: usize) {
        let state = self.sessions.flow(slot).state;
        self.sessions.remove(slot);
        self.counters[place].forget(state);
    }

    /// Keeps the judgement of a first fragment for those that follow. Without room they are judged alone.
    fn remember_fate(&mut self, seat: &Seat<'_>, headers: &Headers, judgement: Judgement, (place, now): (usize, Tick)) {
        let entry = seat.fragment_entry(&self.sessions, headers);
        if let Some(slot) = self.sessions.find(&entry.key, entry.hash) {
            self.forget(slot, place);
        }
        // Strangers can send what is refused at will: it must not push out what is accepted.
        let fates_max = (seat.eni.sessions_max / SESSIONS_PER_FRAGMENT_FATE).max(1);
        let share = if judgement.accepts() { fates_max } else { fates_max / 2 };
        if self.counters[place].fates >= share {
            return;
        }
        let flags = FlowFlags::new(seat.direction, false, judgement.stage);
        let mut fate = Flow { flags, ..new_record(seat, judgement, now) };
        fate.remember_first(&headers.tuple);
        fate.set_revoked(!judgement.accepts());
        if self.sessions.insert(entry.key, entry.hash, fate).is_ok() {
            self.counters[place].fates += 1;
        }
    }

    fn count(&mut self, seat: &Seat<'_>, burst: &[Packet]) {
        let place = self.place(seat);
        let counters = self.counters[place].direction(seat.direction);
        for packet in burst {
            counters.count(packet.verdict, packet.wire());
        }
    }

    /// Where the counters of the seat's ENI are; fresh ones if the place was another's.
    fn place(&mut self, seat: &Seat<'_>) -> usize {
        let place = seat.index.0 as usize;
        if self.counters.get(place).is_none_or(|counters| counters.scope != seat.eni.scope) {
            self.take_place(place, seat.eni.scope);
        }
        place
    }

    #[cold]
    fn take_place(&mut self, place: usize, scope: FlowScope) {
        if self.counters.len() <= place {
            self.counters.resize(place + 1, EniCounters::new(FlowScope::default()));
        }
        self.places.remove(&self.counters[place].scope);
        self.counters[place] = EniCounters::new(scope);
        self.places.insert(scope, place);
    }

    pub(crate) fn counters_of(&self, place: usize, scope: FlowScope) -> Option<&EniCounters> {
        self.counters.get(place).filter(|counters| counters.scope == scope)
    }
}

/// How long a session is idle before the sweep asks whether its ENI is still there, seconds.
const ORPHAN_IDLE_S: u32 = 2;

/// The parts that every record has from its ENI and its judgement.
fn new_record(seat: &Seat<'_>, judgement: Judgement, now: Tick) -> Flow {
    Flow {
        revision: seat.revision,
        last_seen: now,
        opened_at: now,
        ground: judgement.ground,
        timeouts: seat.eni.timeouts,
        ..Flow::default()
    }
}

/// The steps of egress before any judgement: what the frame says, whose it is, and where it goes.
fn admit(seat: &Seat<'_>, packet: &mut Packet) -> Verdict {
    packet.judgement = None;
    let guarded = packet.parse().and_then(|()| guard::check(seat, &packet.headers, packet.buffer.frame()));
    if let Err(reason) = guarded {
        return Verdict::Drop(reason);
    }
    packet.route = seat.network.route(packet.headers.tuple.addresses);
    if let Some(verdict) = answer::answer(seat, packet, packet.route) {
        packet.judgement = seat.exempt(&packet.headers, packet.marker);
        return verdict;
    }
    match next_eni(seat, packet.route) {
        Some(next) => Verdict::Forward(next),
        None => Verdict::Drop(DropReason::NoRoute),
    }
}

/// The ENI that a packet of the guest goes to. Never itself: what it sends to its own address stays inside the guest.
pub(crate) fn next_eni(seat: &Seat<'_>, route: Route) -> Option<EniIndex> {
    match route {
        Route::Owner(next) | Route::Via(next) => Some(next).filter(|next| *next != seat.index),
        Route::Nowhere | Route::Unowned | Route::Gateway => None,
    }
}

/// Whether the virtual router forwards between two of its subnets, or out by a custom route (D1).
fn crosses_subnets(seat: &Seat<'_>, next: EniIndex, route: Route) -> bool {
    let same_subnet = seat.snapshot.eni(next).is_some_and(|next| next.vswitch == seat.eni.vswitch);
    !same_subnet || matches!(route, Route::Via(_))
}

/// Writes the Ethernet header of the last hop: from the router to the guest.
fn address_to(seat: &Seat<'_>, packet: &mut Packet) {
    if let Some(header) = packet.buffer.frame_mut().get_mut(..ETHERNET_HEADER_BYTES) {
        header[..6].copy_from_slice(&seat.eni.mac.0);
        header[6..12].copy_from_slice(&seat.network.gateway_mac.0);
    }
}
