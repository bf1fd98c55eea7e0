//! The door: every packet of every ENI passes here, once out of its sender and once into its receiver.
//!
//! A burst goes through in phases, so that the memory each packet needs is on its way while others are worked on: ask
//! for all frames; parse, guard and route all, and ask for their sessions; then judge and apply in order. Where sender
//! and receiver are of one shard, a packet passes both judgements at once.

use crate::compile::snapshot::Snapshot;
use crate::config::desired::Direction;
use crate::config::ids::{EniIndex, FlowScope};
use crate::config::limits::{BURST_PACKETS, ETHERNET_HEADER_BYTES, RECENT_SESSIONS_MAX, SWEEP_RECORDS_PER_TURN};
use crate::conntrack::recent::RecentSessions;
use crate::conntrack::table::{MemoryAdvice, Slot};
use crate::conntrack::tables::{Entry, SessionSlot, Sessions};
use crate::datapath::anti_spoof::{self, owns_source};
use crate::datapath::counters::{CounterPlaces, EniCounters};
use crate::datapath::fast_path::{self, Passage, Passages};
use crate::datapath::path_cache::Ways;
use crate::datapath::stage_timing::{Phase, Stopwatch};
use crate::datapath::sweep::Orphans;
use crate::hw::time::{Tick, Time};
use crate::packet::headers::Segment;
use crate::packet::verdict::{DropReason, Verdict};
use crate::packet::{FrameBuffer, Packet};
use crate::policy::evaluate::{Lookup, Ruling, Seat};
use crate::router::{self, icmp, ttl};
use crate::tables::address_entry::Place;
use crate::tables::route::Route;
use alloc::vec::Vec;

/// What one worker alone owns: the sessions and counters of its ENIs.
#[derive(Debug)]
pub struct Shard {
    pub(crate) sessions: Sessions,
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
    steps: Vec<Step>,
    ways: Ways,
    /// The burst in work waited for first fragments, which have come.
    pub(crate) is_releasing: bool,
}

/// What the first phase finds out about a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// Where the session of a plain packet is looked for.
    pub(crate) entry: Entry,
    /// Where that session probably is.
    pub(crate) guess: Slot,
    /// What it says of its TCP stream, if the short way is open to it.
    pub(crate) segment: Segment,
    /// Which passage it takes, if the short way is open to it so far (`datapath/fast_path.rs`). Its headers are not read then.
    pub(crate) passage: u8,
    /// What the network knows of the destination.
    pub(crate) place: Place,
}

impl Step {
    const NONE: Self = Self {
        entry: Entry::NONE,
        guess: Slot::FIRST,
        segment: Segment { sequence: 0, acknowledgment: 0, flags: 0 },
        passage: Passages::NONE,
        place: Place::NOWHERE,
    };
}

/// A place of judgement, and where its counters are.
#[derive(Clone, Copy)]
pub(crate) struct Desk<'a> {
    pub(crate) seat: Seat<'a>,
    pub(crate) place: usize,
}

impl<'a> Desk<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, eni: EniIndex, direction: Direction) -> Option<Self> {
        let seat = Seat::new(snapshot, eni, direction)?;
        Some(Self { seat, place: seat.index.0 as usize })
    }
}

impl Shard {
    /// A shard with room for `flows_max` connections, whose hash is seeded with `secret`.
    pub fn new(flows_max: usize, secret: [u64; 2]) -> Self {
        Self::with_memory(flows_max, secret, &|_, _| {})
    }

    /// The same; `advice` hears where the large tables are about to be.
    pub fn with_memory(flows_max: usize, secret: [u64; 2], advice: MemoryAdvice<'_>) -> Self {
        Self {
            sessions: Sessions::new(flows_max, secret, advice),
            counters: Vec::new(),
            recent: Vec::new(),
            places: CounterPlaces::new(),
            orphans: Orphans::default(),
            stopwatch: Stopwatch::default(),
            steps: alloc::vec![Step::NONE; BURST_PACKETS],
            ways: Ways::default(),
            is_releasing: false,
        }
    }

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
        let Some(desk) = self.desk(snapshot, eni, Direction::Egress) else {
            return burst.iter_mut().for_each(|packet| packet.verdict = Verdict::Drop(DropReason::EniGone));
        };
        let now = now.tick();
        let (mut steps, mut ways) = (core::mem::take(&mut self.steps), core::mem::take(&mut self.ways));
        ways.follow(snapshot);
        for burst in burst.chunks_mut(BURST_PACKETS) {
            let mut passages = Passages::none();
            self.admit_all(&desk.seat, burst, (&mut steps, &mut passages), (&mut ways, &is_here));
            for Passage { way, .. } in passages.iter() {
                self.hold_place(way.receiver, way.receiver_scope);
            }
            self.stopwatch.lap(Phase::Admit);
            let mut other = None;
            for (packet, step) in burst.iter_mut().zip(&mut steps) {
                if let Some(passage) = passages.of(step) {
                    if self.pass_along(&desk, passage, (packet, step), now) {
                        continue;
                    }
                    step.place = passage.way.place;
                    let next = Verdict::Forward(passage.way.receiver);
                    packet.verdict = packet.parse().map_or_else(Verdict::Drop, |()| next);
                }
                if let Verdict::Forward(next) = packet.verdict {
                    self.pass_to(next, (&desk, &mut other), (packet, step), (now, &is_here));
                } else {
                    packet.verdict = self.counters[desk.place].bound(packet.verdict, now);
                    self.counters[desk.place].egress.count(packet.verdict, packet.wire());
                }
            }
            for passage in passages.iter() {
                self.end_passage(&desk, passage);
                passage.learnt().into_iter().for_each(|way| ways.keep(way));
            }
            self.stopwatch.lap(Phase::Judge);
        }
        (self.steps, self.ways) = (steps, ways);
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
        let Some(desk) = self.desk(snapshot, eni, Direction::Ingress) else {
            return run.iter_mut().for_each(|packet| packet.verdict = Verdict::Drop(DropReason::EniGone));
        };
        let mut steps = [Step::NONE; BURST_PACKETS];
        for (packet, step) in run.iter_mut().zip(&mut steps) {
            // What another shard found is not known here: ask for the owner.
            let place = desk.seat.network.destination(packet.headers.tuple.addresses);
            packet.judgement = None;
            packet.verdict = arrive(&desk.seat, packet, place.route());
            *step = self.step_of(&desk.seat, packet, place);
        }
        for (packet, step) in run.iter_mut().zip(&steps) {
            if let Verdict::Forward(_) = packet.verdict {
                let lookup = self.lookup(&desk.seat, packet, step);
                let ruling = self.judge(&desk, (packet, &lookup), now);
                packet.verdict = match self.apply(&desk, packet, (ruling, &lookup), now) {
                    _ if !ruling.0.accepts() => Verdict::Drop(ruling.0.drop_reason()),
                    Ok(_) => Verdict::Deliver,
                    Err(reason) => Verdict::Drop(reason),
                };
            }
            self.finish(&desk, packet);
        }
    }

    /// The first phases of a burst that leaves: parse, guard, route, and ask for the sessions.
    #[inline(always)]
    fn admit_all(
        &self,
        seat: &Seat<'_>,
        burst: &mut [Packet],
        (steps, passages): (&mut [Step], &mut Passages<'_>),
        (ways, is_here): (&mut Ways, &impl Fn(EniIndex) -> bool),
    ) {
        for (packet, step) in burst.iter_mut().zip(&mut *steps) {
            if fast_path::admit((seat, &self.sessions), passages, (ways, is_here), (packet, step)).is_none() {
                *step = self.admit_unusual(seat, packet);
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
    fn admit_unusual(&self, seat: &Seat<'_>, packet: &mut Packet) -> Step {
        packet.judgement = None;
        let (verdict, place) = admit(seat, packet);
        packet.verdict = verdict;
        self.step_of(seat, packet, place)
    }

    #[inline]
    fn step_of(&self, seat: &Seat<'_>, packet: &Packet, place: Place) -> Step {
        if !packet.headers.is_plain {
            return Step { place, ..Step::NONE };
        }
        let (entry, guess) = self.sessions.reach_for(&packet.headers.tuple, seat.network.salt);
        Step { entry, guess, place, ..Step::NONE }
    }

    /// What to look for to judge a packet.
    #[inline]
    fn lookup(&self, seat: &Seat<'_>, packet: &Packet, step: &Step) -> Lookup {
        if packet.headers.is_plain {
            Lookup::Session(step.entry)
        } else {
            seat.lookup(&self.sessions, &packet.headers, packet.buffer.frame())
        }
    }

    /// The long way of a packet that egress admitted, to the ENI `next`. `other` is where the last such packet went.
    #[inline(never)]
    fn pass_to<'a>(
        &mut self,
        next: EniIndex,
        (sender, other): (&Desk<'a>, &mut Option<Desk<'a>>),
        (packet, step): (&mut Packet, &Step),
        (now, is_here): (Tick, &impl Fn(EniIndex) -> bool),
    ) {
        if other.as_ref().is_none_or(|other| other.seat.index != next) {
            *other = self.desk(sender.seat.snapshot, next, Direction::Ingress);
        }
        let passed = match other {
            Some(receiver) => self.pass(sender, receiver, (packet, step), (now, is_here(next))),
            None => Err(Verdict::Drop(DropReason::EniGone)),
        };
        packet.verdict = passed.unwrap_or_else(|verdict| {
            let verdict = self.counters[sender.place].bound(verdict, now);
            self.counters[sender.place].egress.count(verdict, packet.wire());
            verdict
        });
    }

    /// One packet that egress admitted, through both judgements if its receiver is here. Counts what passes egress, and
    /// everything of ingress.
    ///
    /// # Errors
    /// The verdict with which it ends in egress; that is not counted yet.
    #[inline(never)]
    fn pass(
        &mut self,
        sender: &Desk<'_>,
        receiver: &Desk<'_>,
        (packet, step): (&mut Packet, &Step),
        (now, is_here): (Tick, bool),
    ) -> Result<Verdict, Verdict> {
        if !packet.headers.is_plain
            && let Some(verdict) = self.take_part(sender, packet, now)
        {
            return Err(verdict);
        }
        let next = receiver.seat.index;
        packet.receiver = next;
        let lookup = self.lookup(&sender.seat, packet, step);
        let ruling = self.judge(sender, (packet, &lookup), now);
        if !ruling.0.accepts() {
            let _refused_anyway = self.apply(sender, packet, (ruling, &lookup), now);
            return Err(Verdict::Drop(ruling.0.drop_reason()));
        }
        let crosses =
            receiver.seat.eni.vswitch != sender.seat.eni.vswitch || matches!(step.place.route(), Route::Via(_));
        let mtu_bytes = receiver.seat.eni.mtu_bytes;
        let is_last_hop = crosses && packet.headers.hop_limit <= 1;
        let is_too_big = icmp::is_too_big(packet, mtu_bytes);
        let arrival = if is_here { arrive(&receiver.seat, packet, step.place.route()) } else { Verdict::Forward(next) };
        let enters = is_here && !is_last_hop && !is_too_big && arrival == Verdict::Forward(next);
        // A session that shares its record with the receiver's waits for what the receiver says.
        let shared = if enters { self.shared_record(ruling.1, receiver.seat.eni.scope) } else { None };
        let opened = match shared {
            Some(_) => None,
            None => self.apply(sender, packet, (ruling, &lookup), now).map_err(Verdict::Drop)?,
        };
        if crosses && let Some(verdict) = ttl::take_hop(&sender.seat, packet) {
            return Err(verdict);
        }
        if is_too_big && let Some(verdict) = icmp::refuse_too_big(&sender.seat, packet, mtu_bytes) {
            return Err(verdict);
        }
        self.counters[sender.place].egress.count(Verdict::Forward(next), packet.wire());
        if !is_here {
            return Ok(Verdict::Forward(next));
        }
        packet.verdict = match arrival {
            Verdict::Forward(_) => self.enter((sender, receiver), (packet, step), (ruling, shared, opened), now),
            other => other,
        };
        self.finish(receiver, packet);
        Ok(packet.verdict)
    }

    /// The second judgement of a packet whose first is `ruling`. That was applied, and perhaps `opened` a record, unless
    /// both ENIs have their sessions in one `shared` record.
    fn enter(
        &mut self,
        (sender, receiver): (&Desk<'_>, &Desk<'_>),
        (packet, step): (&mut Packet, &Step),
        (ruling, shared, opened): (Ruling, Option<SessionSlot>, Option<SessionSlot>),
        now: Tick,
    ) -> Verdict {
        let its_lookup = self.lookup(&receiver.seat, packet, step);
        let its_ruling = self.judge(receiver, (packet, &its_lookup), now);
        if let Some(slot) = shared {
            if its_ruling.1.continues() == Some(slot) {
                self.go_on(slot, &[(sender, ruling), (receiver, its_ruling)], (packet, &its_lookup), now);
                self.note_fragment(sender, packet, ruling.0, now);
                self.note_fragment(receiver, packet, its_ruling.0, now);
                return Verdict::Deliver;
            }
            // From here on the two sessions see different packets. The receiver's keeps the record.
            let lookup = self.lookup(&sender.seat, packet, step);
            let applied = self.apply(sender, packet, (ruling, &lookup), now);
            debug_assert!(applied.is_ok(), "a session that goes on needs no room");
        }
        let applied = match opened {
            Some(slot) if its_ruling.1.admission().is_some() => {
                self.join(slot, receiver, packet, (its_ruling, &its_lookup), now)
            }
            _ => self.apply(receiver, packet, (its_ruling, &its_lookup), now),
        };
        match applied {
            _ if !its_ruling.0.accepts() => Verdict::Drop(its_ruling.0.drop_reason()),
            Ok(_) => Verdict::Deliver,
            Err(reason) => Verdict::Drop(reason),
        }
    }

    #[inline]
    fn judge(&self, desk: &Desk<'_>, (packet, lookup): (&mut Packet, &Lookup), now: Tick) -> Ruling {
        let ruling = desk.seat.judge(&self.sessions, &packet.headers, (lookup, packet.marker), now);
        packet.judgement = Some(ruling.0);
        ruling
    }

    /// Counts a packet at the end of its ingress, and addresses it to the guest.
    #[inline]
    fn finish(&mut self, desk: &Desk<'_>, packet: &mut Packet) {
        if packet.verdict == Verdict::Deliver {
            packet.receiver = desk.seat.index;
            address_to(&desk.seat, packet);
        }
        self.counters[desk.place].ingress.count(packet.verdict, packet.wire());
    }

    /// Counts `packets` that the door let pass and the shell had to drop at `eni`.
    pub fn count_drop(&mut self, eni: EniIndex, direction: Direction, reason: DropReason, packets: u32) {
        if let Some(counters) = self.counters.get_mut(eni.0 as usize) {
            counters.direction(direction).count_undelivered(reason, packets);
        }
    }

    /// The place of `direction` at an ENI, with counters; none if the snapshot does not have it.
    #[inline]
    fn desk<'a>(&mut self, snapshot: &'a Snapshot, eni: EniIndex, direction: Direction) -> Option<Desk<'a>> {
        let desk = Desk::new(snapshot, eni, direction)?;
        self.hold_place(eni, desk.seat.eni.scope);
        Some(desk)
    }

    /// Sees to it that the counters at an ENI's place are its own.
    #[inline]
    fn hold_place(&mut self, eni: EniIndex, scope: FlowScope) {
        let place = eni.0 as usize;
        if self.counters.get(place).is_none_or(|counters| counters.scope != scope) {
            self.take_place(place, scope);
        }
    }

    /// The counters of an ENI, which begin where there are none.
    pub(crate) fn counters_at(&mut self, eni: EniIndex, scope: FlowScope) -> &mut EniCounters {
        let place = eni.0 as usize;
        if self.counters.get(place).is_none_or(|counters| counters.scope != scope) {
            self.take_place(place, scope);
        }
        &mut self.counters[place]
    }

    #[cold]
    fn take_place(&mut self, place: usize, scope: FlowScope) {
        if self.counters.len() <= place {
            self.counters.resize(place + 1, EniCounters::new(FlowScope::default()));
            self.recent.resize(place + 1, RecentSessions::default());
        }
        if self.places.remove(self.counters[place].scope) {
            self.orphans.records_left = self.sessions.capacity() + SWEEP_RECORDS_PER_TURN;
        }
        self.counters[place] = EniCounters::new(scope);
        self.recent[place] = RecentSessions::default();
        self.places.insert(scope, place);
    }

    /// Ends the session of `scope` in the record at `slot`.
    pub(crate) fn end_session(&mut self, slot: SessionSlot, scope: FlowScope) {
        let was_live = self.sessions.flow(slot).sides.iter().any(|side| side.scope() == scope && side.is_live());
        self.sessions.end(slot, scope);
        if was_live {
            self.forget_session(scope);
        }
    }

    /// Counts a session more of an ENI that may hold `sessions_max`.
    #[inline(always)]
    pub(crate) fn note_session(&mut self, place: usize, sessions_max: u32, entry: &Entry) {
        let counters = &mut self.counters[place];
        counters.note_session();
        // Far from its limit an ENI of many sessions need not know where they are.
        if counters.sessions > sessions_max / 2 || sessions_max as usize <= RECENT_SESSIONS_MAX {
            self.keep_in_mind(place, entry);
        }
    }

    /// Keeps in mind where an ENI's newest session is, as one that may give way to another.
    #[inline(never)]
    fn keep_in_mind(&mut self, place: usize, entry: &Entry) {
        let (scope, sessions) = (self.counters[place].scope, &self.sessions);
        let recent = &mut self.recent[place];
        if recent.is_full() {
            recent.make_room(|session| sessions.find_recent(session, scope).is_some());
        }
        recent.push(sessions.recent(entry));
    }

    /// Counts a session less, whose record is given away.
    #[inline]
    pub(crate) fn forget_session(&mut self, scope: FlowScope) {
        if let Some(place) = self.place_of(scope) {
            self.counters[place].forget_session();
        }
    }

    /// The place of the ENI whose sessions a scope is about.
    pub(crate) fn place_of(&self, scope: FlowScope) -> Option<usize> {
        self.places.of(scope, &self.counters)
    }

    pub(crate) fn counters_of(&self, place: usize, scope: FlowScope) -> Option<&EniCounters> {
        self.counters.get(place).filter(|counters| counters.scope == scope)
    }
}

/// The steps of egress before any judgement: what the frame says, whose it is, and where it goes.
#[inline]
fn admit(seat: &Seat<'_>, packet: &mut Packet) -> (Verdict, Place) {
    let guarded = match packet.parse() {
        Ok(()) => anti_spoof::check(seat, &packet.headers, packet.buffer.frame()),
        Err(reason) => Err(reason),
    };
    if let Err(reason) = guarded {
        return (Verdict::Drop(reason), Place::NOWHERE);
    }
    let place = seat.network.destination(packet.headers.tuple.addresses);
    if let Some(verdict) = router::answer(seat, packet, place.route()) {
        packet.judgement = seat.exempt(&packet.headers, packet.marker);
        return (verdict, place);
    }
    (next_eni(seat, place.route()).map_or(Verdict::Drop(DropReason::NoRoute), Verdict::Forward), place)
}

/// The step of ingress before any judgement: whether the ENI has the destination, which `route` leads to.
#[inline]
fn arrive(seat: &Seat<'_>, packet: &Packet, route: Route) -> Verdict {
    let is_owner = route == Route::Owner(seat.index)
        || !seat.eni.source_dest_check
        || owns_source(seat, packet.headers.tuple.addresses.reverse());
    if is_owner { Verdict::Forward(seat.index) } else { Verdict::Drop(DropReason::DestinationNotOwned) }
}

/// The ENI that a packet of the guest goes to. Never itself: what it sends to its own address stays inside the guest.
#[inline]
pub(crate) fn next_eni(seat: &Seat<'_>, route: Route) -> Option<EniIndex> {
    match route {
        Route::Owner(next) | Route::Via(next) => Some(next).filter(|next| *next != seat.index),
        Route::Nowhere | Route::Unowned | Route::Gateway => None,
    }
}

/// Writes the Ethernet header of the last hop: from the router to the guest.
#[inline]
fn address_to(seat: &Seat<'_>, packet: &mut Packet) {
    if let Some(header) = packet.buffer.frame_mut().get_mut(..ETHERNET_HEADER_BYTES) {
        header[..6].copy_from_slice(&seat.eni.mac.0);
        header[6..12].copy_from_slice(&seat.network.gateway_mac.0);
    }
}
