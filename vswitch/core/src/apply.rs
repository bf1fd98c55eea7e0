//! Does to the sessions what a judgement asks for.

use crate::desired::{Direction, Settings};
use crate::eni::{Desk, Shard};
use crate::flow::fragments::{Fate, FragmentKey, Turn};
use crate::flow::sessions::{Entry, SessionSlot};
use crate::flow::table::TableFull;
use crate::flow::tcp;
use crate::flow::{Flow, FlowState, Origin, PackedTimeouts, Side};
use crate::headers::tcp_flags::{RST, SYN};
use crate::headers::{Fragment, Segment, protocol};
use crate::ids::{EniIndex, FlowScope};
use crate::judge::{Action, Lookup, Ruling};
use crate::offload::Wire;
use crate::packet::Packet;
use crate::quota::Candidate;
use crate::time::Tick;
use crate::verdict::{DropReason, Judgement, Verdict};

impl Shard {
    /// Does what the judgement of a packet at one ENI asks for. Returns the record that was opened, if one was.
    #[inline]
    pub(crate) fn apply(
        &mut self,
        desk: &Desk<'_>,
        packet: &Packet,
        ((judgement, action), lookup): (Ruling, &Lookup),
        now: Tick,
    ) -> Result<Option<SessionSlot>, DropReason> {
        let mut opened = None;
        if let Lookup::Session(entry) = lookup {
            match action {
                Action::None => {}
                Action::Touch(slot) | Action::Readmit(slot, _) => {
                    let slot = self.own(slot, entry, desk.seat.eni.scope);
                    self.go_on(slot, &[(desk, (judgement, action))], (packet, lookup), now);
                }
                Action::Revoke(slot) => self.revoke(slot, entry, desk, now),
                Action::Open => opened = Some(self.open(desk, packet, (judgement, entry), now)?),
                Action::Reopen(slot) => {
                    self.end(slot, desk);
                    opened = Some(self.open(desk, packet, (judgement, entry), now)?);
                }
            }
        }
        self.note_fragment(desk, packet, judgement, now);
        Ok(opened)
    }

    /// Keeps the judgement of a first fragment, if later ones are to follow it.
    #[inline]
    pub(crate) fn note_fragment(&mut self, desk: &Desk<'_>, packet: &Packet, judgement: Judgement, now: Tick) {
        if packet.headers.fragment == Fragment::First && desk.seat.snapshot.settings().follow_first_fragment {
            self.remember_fate(desk, packet, judgement, now);
        }
    }

    /// The record of a session that goes on, if the session of `other` is in it as well.
    #[inline]
    pub(crate) fn shared_record(&self, action: Action, other: FlowScope) -> Option<SessionSlot> {
        action.continues().filter(|slot| self.sessions.flow(*slot).place_of(other).is_some())
    }

    /// Counts a packet of a record of which each of `sessions` goes on, and restarts its timer.
    #[inline]
    pub(crate) fn go_on(
        &mut self,
        slot: SessionSlot,
        sessions: &[(&Desk<'_>, Ruling)],
        (packet, lookup): (&Packet, &Lookup),
        now: Tick,
    ) {
        for (desk, ruling) in sessions {
            if let Action::Readmit(_, admitted_by) = ruling.1 {
                self.readmit(slot, desk, admitted_by);
            }
        }
        let Lookup::Session(entry) = lookup else { return };
        let is_tcp = packet.headers.tuple.protocol == protocol::TCP;
        if is_tcp && packet.headers.tcp_flags & (SYN | RST) != 0 {
            self.note_turn(slot, entry, packet);
        }
        let flow = self.sessions.flow_mut(slot);
        let way = usize::from(entry.swapped != flow.is_swapped());
        if flow.count(packet.headers.segment(), packet.wire(), way, now) {
            self.sessions.origin_mut(slot).bytes_high[way].carry();
        }
    }

    /// What a SYN or a reset of a session that goes on means for it: the offer of a scale, or its end. A reset that is not
    /// believed means nothing.
    #[cold]
    fn note_turn(&mut self, slot: SessionSlot, entry: &Entry, packet: &Packet) {
        let flow = self.sessions.flow(slot);
        let (from_opener, edges, state) = (entry.swapped == flow.is_swapped(), flow.edges, flow.state);
        let (segment, scale) = (packet.headers.segment(), packet.window_scale());
        let scales = &mut self.sessions.origin_mut(slot).scales;
        if segment.flags & RST == 0 {
            if matches!(state, FlowState::TcpOpening | FlowState::TcpAnswered) {
                tcp::observe_scale(scales, scale, from_opener);
            }
        } else if tcp::believes(edges, *scales, segment, from_opener) {
            self.sessions.flow_mut(slot).state = tcp::next(state, segment.flags, from_opener);
        }
    }

    #[cold]
    fn readmit(&mut self, slot: SessionSlot, desk: &Desk<'_>, admitted_by: Option<Judgement>) {
        let flow = self.sessions.flow_mut(slot);
        let Some(place) = flow.place_of(desk.seat.eni.scope) else { return };
        let side = &mut flow.sides[place];
        side.revision = desk.seat.revision;
        side.set_revoked(false);
        if let Some(judgement) = admitted_by {
            side.set_stage(judgement.stage);
            self.sessions.origin_mut(slot).grounds[place] = judgement.ground;
        }
    }

    #[cold]
    fn revoke(&mut self, slot: SessionSlot, entry: &Entry, desk: &Desk<'_>, now: Tick) {
        let slot = self.own(slot, entry, desk.seat.eni.scope);
        let flow = self.sessions.flow_mut(slot);
        let Some(place) = flow.place_of(desk.seat.eni.scope) else { return };
        flow.sides[place].revision = desk.seat.revision;
        flow.sides[place].set_revoked(true);
        flow.last_seen = now;
    }

    /// A record in which the session of `scope` is alone.
    #[inline]
    fn own(&mut self, slot: SessionSlot, entry: &Entry, scope: FlowScope) -> SessionSlot {
        if self.sessions.flow(slot).is_shared() { self.sessions.split(slot, entry, scope) } else { slot }
    }

    fn open(
        &mut self,
        desk: &Desk<'_>,
        packet: &Packet,
        (judgement, entry): (Judgement, &Entry),
        now: Tick,
    ) -> Result<SessionSlot, DropReason> {
        self.ask_quota(desk, now)?;
        let (mut flow, mut origin) = Opening::by(packet).record(desk.seat.timeouts(), now);
        flow.sides[0] = side(desk, judgement, entry.swapped);
        origin.grounds[0] = judgement.ground;
        let settings = desk.seat.snapshot.settings();
        let slot = match self.insert(entry, (flow, origin), (settings, now)) {
            Ok(slot) => slot,
            Err(TableFull) => {
                self.make_room(desk, entry, now)?;
                let placed = self.insert(entry, (flow, origin), (settings, now));
                placed.map_err(|TableFull| DropReason::FlowTableFull)?
            }
        };
        self.counters[desk.place].note_session();
        Ok(slot)
    }

    /// Makes room for a record, first where a connection is over.
    #[inline(always)]
    pub(crate) fn insert(
        &mut self,
        entry: &Entry,
        record: (Flow, Origin),
        (settings, now): (&Settings, Tick),
    ) -> Result<SessionSlot, TableFull> {
        let (slot, ended) = self.sessions.insert(entry, record, |flow| flow.is_expired(settings, now))?;
        for side in ended {
            if side != Side::default() {
                self.forget_session(side.scope());
            }
        }
        Ok(slot)
    }

    /// Whether an ENI may have one more session.
    #[inline(always)]
    pub(crate) fn has_room(&self, desk: &Desk<'_>) -> bool {
        self.counters[desk.place].sessions < desk.seat.eni.sessions_max
    }

    /// Whether an ENI may open another session, and takes it from what it may open.
    fn ask_quota(&mut self, desk: &Desk<'_>, now: Tick) -> Result<(), DropReason> {
        if !self.has_room(desk) {
            return Err(DropReason::SessionLimit);
        }
        let (counters, eni) = (&mut self.counters[desk.place], desk.seat.eni);
        match eni.new_sessions_per_s {
            Some(per_s) if !counters.bucket.take(per_s, now) => Err(DropReason::SessionRate),
            _ => Ok(()),
        }
    }

    /// Ends a connection of whoever holds more than his share, so that the ENI's new session finds room.
    #[cold]
    fn make_room(&mut self, desk: &Desk<'_>, entry: &Entry, now: Tick) -> Result<(), DropReason> {
        let (snapshot, asking) = (desk.seat.snapshot, desk.seat.eni.scope);
        let asks_with = self.counters[desk.place].sessions;
        let (places, counters) = (&self.places, &self.counters);
        // How many sessions an ENI holds, and whether it has to give way to the one that asks.
        let holds = |scope: FlowScope| {
            let own = places.of(scope, counters).and_then(|place| Some((place, counters.get(place)?.sessions)));
            let eni = own.and_then(|(place, held)| Some((snapshot.eni(EniIndex(place as u32))?, held)));
            match eni.filter(|(eni, _)| eni.scope == scope) {
                Some((eni, held)) => (held, held > eni.sessions_guaranteed && (held >= asks_with || scope == asking)),
                None => (u32::MAX, true), // It is gone.
            }
        };
        let worth = |flow: &Flow| {
            let opener = flow.sessions().max_by_key(|(_, side)| side.opened() == Direction::Egress);
            let (held, is_opener_over) = opener.map_or((0, false), |(_, side)| holds(side.scope()));
            let candidate = Candidate {
                state: flow.state,
                is_expired: flow.is_expired(snapshot.settings(), now),
                is_opener_over,
                are_all_over: flow.sessions().all(|(_, side)| holds(side.scope()).1),
                held,
                last_seen: flow.last_seen,
            };
            candidate.worth()
        };
        let slot = self.sessions.least_worthy(entry, worth).ok_or(DropReason::FlowTableFull)?;
        let flow = *self.sessions.flow(slot);
        let is_expired = flow.is_expired(snapshot.settings(), now);
        for (_, side) in flow.sessions() {
            self.end_session(slot, side.scope());
            if let Some(place) = self.place_of(side.scope()).filter(|_| !is_expired) {
                self.counters[place].evicted += 1;
            }
        }
        Ok(())
    }

    /// Opens the receiver's session of a packet that opened the sender's in the record `slot`: in the same record, if
    /// the two will end at the same time.
    pub(crate) fn join(
        &mut self,
        slot: SessionSlot,
        desk: &Desk<'_>,
        packet: &Packet,
        ((judgement, action), lookup): (Ruling, &Lookup),
        now: Tick,
    ) -> Result<Option<SessionSlot>, DropReason> {
        let Lookup::Session(entry) = lookup else { return Ok(None) };
        if self.sessions.flow(slot).timeouts != desk.seat.timeouts() || packet.headers.fragment == Fragment::First {
            return self.apply(desk, packet, ((judgement, action), lookup), now);
        }
        if let Action::Reopen(over) = action {
            self.end(over, desk);
        }
        self.ask_quota(desk, now)?;
        self.sessions.flow_mut(slot).sides[1] = side(desk, judgement, entry.swapped);
        self.sessions.origin_mut(slot).grounds[1] = judgement.ground;
        self.counters[desk.place].note_session();
        Ok(Some(slot))
    }

    fn end(&mut self, slot: SessionSlot, desk: &Desk<'_>) {
        self.sessions.end(slot, desk.seat.eni.scope);
        self.counters[desk.place].forget_session();
    }

    #[cold]
    fn remember_fate(&mut self, desk: &Desk<'_>, packet: &Packet, judgement: Judgement, now: Tick) {
        let eni = desk.seat.eni;
        let entry = self.sessions.fragment_entry(FragmentKey::of(eni.scope, &packet.headers));
        let fate = Fate::new(judgement, desk.seat.revision, packet.headers.tuple, now);
        self.sessions.fragments.remember(&entry, fate);
    }

    /// What a part of an IP packet may do where it leaves its sender: with `None` it goes on.
    #[cold]
    pub(crate) fn take_part(&mut self, desk: &Desk<'_>, packet: &Packet, now: Tick) -> Option<Verdict> {
        let headers = &packet.headers;
        let follows = desk.seat.snapshot.settings().follow_first_fragment;
        if headers.fragment == Fragment::Whole || !follows || self.is_releasing {
            return None;
        }
        let entry = self.sessions.fragment_entry(FragmentKey::of(desk.seat.eni.scope, headers));
        let fragments = &mut self.sessions.fragments;
        match fragments.take(&entry, headers.part, now) {
            Ok(Turn::Pass) => None,
            Ok(Turn::Wait) => match fragments.hold(entry.0, desk.seat.index, packet.buffer.frame(), now) {
                Ok(()) => Some(Verdict::Wait),
                Err(reason) => Some(Verdict::Drop(reason)),
            },
            Err(reason) => Some(Verdict::Drop(reason)),
        }
    }
}

/// What a packet says of the connection that it opens.
pub(crate) struct Opening {
    pub(crate) protocol: u8,
    pub(crate) state: FlowState,
    pub(crate) segment: Segment,
    /// The window scale that it offers.
    pub(crate) scale: Option<u8>,
    pub(crate) wire: Wire,
}

impl Opening {
    fn by(packet: &Packet) -> Self {
        Self {
            protocol: packet.headers.tuple.protocol,
            state: FlowState::opened_by(&packet.headers),
            segment: packet.headers.segment(),
            scale: packet.window_scale(),
            wire: packet.wire(),
        }
    }

    /// The record of the connection, with nobody's session yet.
    #[inline(always)]
    pub(crate) fn record(&self, timeouts: PackedTimeouts, now: Tick) -> (Flow, Origin) {
        let Self { protocol, state, segment, scale, wire } = *self;
        let (mut edges, mut scales) = ([0; 2], [0; 2]);
        if protocol == protocol::TCP {
            tcp::observe(&mut edges, segment, true);
            if segment.flags & SYN != 0 {
                tcp::observe_scale(&mut scales, scale, true);
            }
        }
        let flow = Flow {
            protocol,
            state,
            timeouts,
            last_seen: now,
            packets: [wire.packets, 0],
            bytes_low: [wire.bytes as u32, 0],
            edges,
            ..Flow::default()
        };
        (flow, Origin { opened_at: now, scales, ..Origin::default() })
    }
}

/// The session of an ENI that a judgement of it opens; `swapped` as the key has the packet's ends.
#[inline(always)]
pub(crate) const fn side(desk: &Desk<'_>, judgement: Judgement, swapped: bool) -> Side {
    let seat = &desk.seat;
    Side::new((seat.eni.scope, seat.revision), seat.direction, swapped, judgement.stage)
}
