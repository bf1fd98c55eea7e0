//! Applies what a decision asks for to the sessions.

use crate::config::desired::{Direction, Settings};
use crate::config::ids::{EniEpoch, EniIndex};
use crate::config::limits::ICMP_ERRORS_PER_S;
use crate::config::packed_timeouts::PackedTimeouts;
use crate::conntrack::fragments::{FragmentAction, FragmentDecision, FragmentKey};
use crate::conntrack::opener::Opener;
use crate::conntrack::quota::EvictionCandidate;
use crate::conntrack::state::ConnectionState;
use crate::conntrack::syns::Syn;
use crate::conntrack::table::TableFull;
use crate::conntrack::tables::{ConnectionTables, LookupKey, SessionSlot};
use crate::conntrack::{Connection, Origin, Session, tcp};
use crate::datapath::shard::Shard;
use crate::hw::time::Tick;
use crate::packet::Packet;
use crate::packet::headers::tcp_flags::{ACK, RST, SYN};
use crate::packet::headers::{Fragment, Segment, protocol};
use crate::packet::offload::Wire;
use crate::packet::verdict::{Decision, DropReason, Verdict};
use crate::policy::eni_context::EniContext;
use crate::policy::evaluate::{Admission, Evaluation, Lookup, SessionUpdate};

impl Shard {
    /// Applies the decision about a packet at one ENI. Returns the record that was opened, if one was.
    #[inline]
    pub(crate) fn apply(
        &mut self,
        context: &EniContext<'_>,
        packet: &Packet,
        ((decision, update), lookup): (Evaluation, &Lookup),
        now: Tick,
    ) -> Result<Option<SessionSlot>, DropReason> {
        let mut opened = None;
        if update == SessionUpdate::Relate {
            self.take_related_error(context, now)?;
        }
        if let Lookup::Session(entry) = lookup {
            match update {
                SessionUpdate::None | SessionUpdate::Relate => {}
                SessionUpdate::Touch(slot) | SessionUpdate::Readmit(slot, _) => {
                    // Packets that only this ENI sees make its session differ from the other end's, so it gets its own
                    // record.
                    let slot = self.split_if_shared(slot, entry, context.eni.epoch);
                    self.refresh(slot, &[(context, (decision, update))], (packet, lookup), now);
                }
                SessionUpdate::Revoke(slot, is_needed) => self.revoke(slot, entry, context, is_needed.then_some(now)),
                SessionUpdate::Open(admission) => {
                    opened = Some(self.open_session(context, packet, (admission, entry), now)?)
                }
                SessionUpdate::Reopen(slot, admission) => {
                    // The old session ends first: it still counts toward the limit that the new one is checked
                    // against.
                    self.end_session_of(slot, context);
                    opened = Some(self.open_session(context, packet, (admission, entry), now)?);
                }
            }
        }
        // Also for refused packets: later fragments share the fate of the first.
        self.note_fragment(context, packet, decision, now);
        Ok(opened)
    }

    /// Remembers the decision about a first fragment, if others are to follow it.
    #[inline]
    pub(crate) fn note_fragment(&mut self, context: &EniContext<'_>, packet: &Packet, decision: Decision, now: Tick) {
        if packet.headers.fragment == Fragment::First && context.snapshot.settings().follow_first_fragment {
            self.remember_fragment(context, packet, decision, now);
        }
    }

    /// The record of a valid session, if the session of `other` is in it as well.
    #[inline]
    pub(crate) fn shared_record(&self, update: SessionUpdate, other: EniEpoch) -> Option<SessionSlot> {
        update.continues().filter(|slot| self.sessions.connection(*slot).place_of(other).is_some())
    }

    /// Counts a packet in a record in which each of `sessions` is valid, and restarts its timer.
    #[inline]
    pub(crate) fn refresh(
        &mut self,
        slot: SessionSlot,
        sessions: &[(&EniContext<'_>, Evaluation)],
        (packet, lookup): (&Packet, &Lookup),
        now: Tick,
    ) {
        for (context, evaluation) in sessions {
            if let SessionUpdate::Readmit(_, admitted_by) = evaluation.1 {
                self.readmit(slot, context, admitted_by);
            }
        }
        let Lookup::Session(entry) = lookup else { return };
        let is_tcp = packet.headers.tuple.protocol == protocol::TCP;
        // SYNs and resets concern the numbers of both ends; all other segments only advance the edges.
        if is_tcp && packet.headers.tcp_flags & (SYN | RST) != 0 {
            self.update_tcp_state(slot, entry, packet, now);
        } else if is_tcp && self.sessions.connection(slot).sessions.iter().any(|session| session.has_syn()) {
            let from_opener = entry.swapped == self.sessions.connection(slot).is_swapped();
            self.resolve_syn(slot, packet.headers.segment(), from_opener, now);
        }
        let connection = self.sessions.connection_mut(slot);
        let way = usize::from(entry.swapped != connection.is_swapped());
        if connection.count(packet.headers.segment(), packet.wire(), way, now) {
            self.sessions.origin_mut(slot).bytes_high[way].carry();
        }
    }

    /// Updates a session after a SYN or a reset: with the sequence numbers on which both ends will agree, or by ending
    /// it. A reset that its receiver would not accept has no effect.
    #[cold]
    fn update_tcp_state(&mut self, slot: SessionSlot, entry: &LookupKey, packet: &Packet, now: Tick) {
        let connection = self.sessions.connection(slot);
        let from_opener = entry.swapped == connection.is_swapped();
        let segment = packet.headers.segment();
        if segment.flags & RST == 0 {
            return self.note_syn(slot, (segment, packet.window_scale()), from_opener, now);
        }
        let (edges, state) = (connection.edges, connection.state);
        let known = (edges, self.sessions.origin(slot).scales, state);
        let answers_syn = self.answered_syn(slot, segment, from_opener, now).is_some();
        // The SYN has its answer, so nothing else may be taken for one.
        if answers_syn {
            self.forget_syn(slot);
        }
        if answers_syn || tcp::believes(known, segment, from_opener) {
            self.sessions.connection_mut(slot).state = tcp::next(state, segment.flags, from_opener);
        }
    }

    /// Updates the edges from a SYN: at once during a handshake, otherwise when its receiver answers, since the
    /// receiver may still be in the previous connection.
    fn note_syn(&mut self, slot: SessionSlot, (segment, scale): (Segment, Option<u8>), from_opener: bool, now: Tick) {
        let (connection, origin) = (*self.sessions.connection(slot), *self.sessions.origin(slot));
        let (mut edges, mut scales, mut state) = (connection.edges, origin.scales, connection.state);
        let is_answer = segment.flags & ACK != 0;
        if state.is_shaking_hands() {
            if is_answer {
                tcp::learn_answer(&mut edges, segment, from_opener);
            } else if tcp::learn_syn(&mut edges, &mut scales, segment, from_opener) && from_opener {
                state = ConnectionState::TcpOpening;
            }
            tcp::observe_scale(&mut scales, scale, from_opener);
        } else if is_answer {
            let answered = self.answered_syn(slot, segment, from_opener, now);
            let Some(syn) = answered.filter(|_| tcp::is_outside(edges, scales, segment, from_opener)) else { return };
            self.forget_syn(slot);
            // The scales of the old connection do not apply to the new one.
            (state, scales) = (ConnectionState::TcpAnswered, [0; 2]);
            tcp::learn_answer(&mut edges, segment, from_opener);
            tcp::observe_scale(&mut scales, syn.scale, !from_opener);
            tcp::observe_scale(&mut scales, scale, from_opener);
        // In a closed session a SYN opens another one (`evaluate_session`).
        } else if state != ConnectionState::TcpClosed {
            let syn = Syn { from_opener, acknowledgment: segment.sequence.wrapping_add(1), scale, seen: now };
            for (place, session) in connection.sessions() {
                self.sessions.syns.note(self.sessions.syn_key(slot, session.epoch()), syn);
                self.sessions.connection_mut(slot).sessions[place].set_syn(true);
            }
        }
        let connection = self.sessions.connection_mut(slot);
        (connection.edges, connection.state) = (edges, state);
        self.sessions.origin_mut(slot).scales = scales;
    }

    /// The remembered SYN in the middle of a session that a segment answers, with a SYN of its own or with a reset (RFC
    /// 9293 §3.10.7.3).
    fn answered_syn(&self, slot: SessionSlot, segment: Segment, from_opener: bool, now: Tick) -> Option<Syn> {
        let syn = self.syn_of(slot, now).filter(|_| segment.flags & ACK != 0)?;
        (syn.from_opener != from_opener && syn.acknowledgment == segment.acknowledgment).then_some(syn)
    }

    fn syn_of(&self, slot: SessionSlot, now: Tick) -> Option<Syn> {
        let ConnectionTables { syns, .. } = &self.sessions;
        let mut sessions = self.sessions.connection(slot).sessions().filter(|(_, session)| session.has_syn());
        sessions.find_map(|(_, session)| syns.of(&self.sessions.syn_key(slot, session.epoch()), now))
    }

    fn forget_syn(&mut self, slot: SessionSlot) {
        // A shared record has the SYN of each of its sessions under a key of its own.
        for (place, session) in self.sessions.connection(slot).sessions() {
            let key = self.sessions.syn_key(slot, session.epoch());
            self.sessions.syns.forget(&key);
            self.sessions.connection_mut(slot).sessions[place].set_syn(false);
        }
    }

    /// Resolves a remembered SYN of the segment's sender: the segment shows either that the old connection continues,
    /// or that a new one was agreed on, whose numbers then become the session's.
    #[cold]
    fn resolve_syn(&mut self, slot: SessionSlot, segment: Segment, from_opener: bool, now: Tick) {
        let syn = self.syn_of(slot, now);
        if syn.is_some_and(|syn| syn.from_opener != from_opener || segment.flags & ACK == 0) {
            return;
        }
        // A segment of the SYN's sender settles the question either way.
        self.forget_syn(slot);
        if syn.is_none() {
            return; // It is over.
        }
        // Both ends may have agreed on other scales, unseen; until known, the largest is assumed.
        let scales = &mut self.sessions.origin_mut(slot).scales;
        let before = core::mem::take(scales);
        let connection = self.sessions.connection_mut(slot);
        if connection.state == ConnectionState::TcpClosed
            || !tcp::is_outside(connection.edges, before, segment, from_opener)
        {
            self.sessions.origin_mut(slot).scales = before;
            return;
        }
        connection.state = ConnectionState::TcpAnswered;
        tcp::learn_agreement(&mut connection.edges, segment, from_opener);
    }

    #[cold]
    fn readmit(&mut self, slot: SessionSlot, context: &EniContext<'_>, admitted_by: Option<Decision>) {
        let connection = self.sessions.connection_mut(slot);
        let Some(place) = connection.place_of(context.eni.epoch) else { return };
        let session = &mut connection.sessions[place];
        session.revision = context.revision;
        // A revoked session did not count; from now on it does again.
        if session.is_revoked() {
            session.set_revoked(false);
            self.counters[context.counters_index()].sessions += 1;
        }
        let session = &mut self.sessions.connection_mut(slot).sessions[place];
        if let Some(decision) = admitted_by {
            session.set_stage(decision.stage);
            self.sessions.origin_mut(slot).grounds[place] = decision.ground;
        }
    }

    /// Marks a session as revoked. It no longer counts against its ENI's limit, and gives way before any live session.
    /// Its timer is restarted only if a time is given.
    #[cold]
    fn revoke(&mut self, slot: SessionSlot, entry: &LookupKey, context: &EniContext<'_>, now: Option<Tick>) {
        let slot = self.split_if_shared(slot, entry, context.eni.epoch);
        let connection = self.sessions.connection_mut(slot);
        let Some(place) = connection.place_of(context.eni.epoch) else { return };
        let session = &mut connection.sessions[place];
        session.revision = context.revision;
        let was_live = !session.is_revoked();
        session.set_revoked(true);
        // Without a new time, a packet that other rules refuse anyway does not keep the memory alive.
        connection.last_seen = now.unwrap_or(connection.last_seen);
        if was_live {
            self.counters[context.counters_index()].forget_session();
        }
    }

    /// Counts an ICMP error against the ENI's rate limit.
    #[cold]
    fn take_related_error(&mut self, context: &EniContext<'_>, now: Tick) -> Result<(), DropReason> {
        // Only errors that enter a guest are limited: it is the one that they could flood.
        if context.direction == Direction::Egress {
            return Ok(());
        }
        let has_room = self.counters[context.counters_index()].related_errors.take(ICMP_ERRORS_PER_S, now);
        if has_room { Ok(()) } else { Err(DropReason::IcmpErrorRate) }
    }

    /// Returns a record that holds the session of `epoch` alone.
    #[inline]
    fn split_if_shared(&mut self, slot: SessionSlot, entry: &LookupKey, epoch: EniEpoch) -> SessionSlot {
        if self.sessions.connection(slot).is_shared() { self.sessions.split(slot, entry, epoch) } else { slot }
    }

    fn open_session(
        &mut self,
        context: &EniContext<'_>,
        packet: &Packet,
        (admission, entry): (Admission, &LookupKey),
        now: Tick,
    ) -> Result<SessionSlot, DropReason> {
        // The quota comes first: a refused session must not displace anything in a full table.
        self.check_quota(context, now)?;
        // A packet whose opener is unknown counts as from its sender: the table needs one direction.
        let from_opener = admission.opener != Opener::Receiver;
        let record = NewConnection::by(packet, from_opener).record(context.timeouts(), now);
        let session = NewSession {
            session: session_of(context, admission, entry.swapped),
            ground: admission.by.ground,
            counters_index: context.counters_index(),
            sessions_max: context.eni.sessions_max,
        };
        let (sessions, at) = ([Some(session), None], (context.snapshot.settings(), now));
        if let Ok(slot) = self.open_record(entry, record, sessions, at) {
            return Ok(slot);
        }
        // Making room is tried only now, since searching for a victim costs more than the insert that mostly succeeds.
        self.make_room(context, entry, now)?;
        self.open_record(entry, record, sessions, at).map_err(|TableFull| DropReason::FlowTableFull)
    }

    /// Opens and counts sessions, of one ENI or both, in a record of their own; used by both paths.
    #[inline(always)]
    pub(super) fn open_record(
        &mut self,
        entry: &LookupKey,
        (mut connection, mut origin): (Connection, Origin),
        sessions: [Option<NewSession>; 2],
        at: (&Settings, Tick),
    ) -> Result<SessionSlot, TableFull> {
        for (number, new) in sessions.iter().enumerate() {
            if let Some(new) = new {
                (connection.sessions[number], origin.grounds[number]) = (new.session, new.ground);
            }
        }
        // Counted only once the record exists: without room, nothing may be left behind.
        let slot = self.insert(entry, (connection, origin), at)?;
        for new in sessions.iter().flatten() {
            self.note_session(new.counters_index, new.sessions_max, entry);
        }
        Ok(slot)
    }

    /// Stores a record, preferably in the place of an expired connection.
    #[inline(always)]
    fn insert(
        &mut self,
        entry: &LookupKey,
        record: (Connection, Origin),
        (settings, now): (&Settings, Tick),
    ) -> Result<SessionSlot, TableFull> {
        let (slot, ended) = self.sessions.insert(entry, record, |connection| connection.is_expired(settings, now))?;
        for session in ended {
            // A revoked session was taken out of the count when it was revoked.
            if session.is_live() {
                self.forget_session(session.epoch());
            }
        }
        Ok(slot)
    }

    /// Whether an ENI may have another session.
    #[inline(always)]
    pub(crate) fn has_room(&self, context: &EniContext<'_>) -> bool {
        self.counters[context.counters_index()].sessions < context.eni.sessions_max
    }

    /// Whether an ENI may open another session; if so, counts it against the ENI's rate limit.
    fn check_quota(&mut self, context: &EniContext<'_>, now: Tick) -> Result<(), DropReason> {
        if !self.has_room(context) && !self.reclaim(context, now) {
            return Err(DropReason::SessionLimit);
        }
        // The limit comes before the rate, so that a session that finds no place costs no token.
        let (counters, eni) = (&mut self.counters[context.counters_index()], context.eni);
        match eni.new_sessions_per_s {
            Some(per_s) if !counters.bucket.take(per_s, now) => Err(DropReason::SessionRate),
            _ => Ok(()),
        }
    }

    /// Ends a connection of an ENI that holds more than its share, to make room for the new session.
    #[cold]
    fn make_room(&mut self, context: &EniContext<'_>, entry: &LookupKey, now: Tick) -> Result<(), DropReason> {
        let (snapshot, asking) = (context.snapshot, context.eni.epoch);
        let asks_with = self.counters[context.counters_index()].sessions;
        let (places, counters) = (&self.places, &self.counters);
        // How many sessions an ENI holds, and whether it has to give way to the one that asks.
        let holds = |epoch: EniEpoch| {
            let own = places.of(epoch, counters).and_then(|place| Some((place, counters.get(place)?.sessions)));
            let eni = own.and_then(|(place, held)| Some((snapshot.eni(EniIndex(place as u32))?, held)));
            // An index may have passed to another ENI; the epoch tells whose sessions these are.
            match eni.filter(|(eni, _)| eni.epoch == epoch) {
                Some((eni, held)) => (held, held > eni.sessions_guaranteed && (held >= asks_with || epoch == asking)),
                None => (u32::MAX, true), // It is gone.
            }
        };
        let eviction_score = |connection: &Connection| {
            // Where both ends are here, the one whose session left its guest opened the connection.
            let opener = connection.sessions().max_by_key(|(_, session)| session.opened() == Direction::Egress);
            let (held, is_opener_over) = opener.map_or((0, false), |(_, session)| holds(session.epoch()));
            let candidate = EvictionCandidate {
                state: connection.state,
                is_dead: connection.is_dead(),
                is_expired: connection.is_expired(snapshot.settings(), now),
                is_opener_over,
                are_all_over: connection.sessions().all(|(_, session)| holds(session.epoch()).1),
                held,
                last_seen: connection.last_seen,
            };
            candidate.eviction_score()
        };
        let slot = self.sessions.lowest_score(entry, eviction_score).ok_or(DropReason::FlowTableFull)?;
        let connection = *self.sessions.connection(slot);
        let is_expired = connection.is_expired(snapshot.settings(), now);
        for (_, session) in connection.sessions() {
            self.end_session(slot, session.epoch());
            // An expired session ends in any case, so it is no victim.
            if let Some(place) = self.place_of(session.epoch()).filter(|_| session.is_live() && !is_expired) {
                self.counters[place].evicted += 1;
            }
        }
        Ok(())
    }

    /// Opens the receiver's session for a packet that opened the sender's in the record `slot`: in the same record, if
    /// both have the same timeouts and opener.
    pub(crate) fn add_session(
        &mut self,
        slot: SessionSlot,
        context: &EniContext<'_>,
        packet: &Packet,
        ((decision, update), lookup): (Evaluation, &Lookup),
        now: Tick,
    ) -> Result<Option<SessionSlot>, DropReason> {
        let (Lookup::Session(entry), Some(admission)) = (lookup, update.admission()) else { return Ok(None) };
        let its = session_of(context, admission, entry.swapped);
        let connection = self.sessions.connection(slot);
        // Two ENIs may disagree about who opened the connection.
        let is_alike = connection.timeouts == context.timeouts() && connection.is_swapped() == its.is_swapped();
        // `apply` also remembers the decision about a first fragment for this ENI.
        if !is_alike || packet.headers.fragment == Fragment::First {
            return self.apply(context, packet, ((decision, update), lookup), now);
        }
        // The session it replaces ends first, as it counts toward the limit.
        if let SessionUpdate::Reopen(over, _) = update {
            self.end_session_of(over, context);
        }
        self.check_quota(context, now)?;
        let (connection, ground) = (self.sessions.connection_mut(slot), admission.by.ground);
        // The opener's session comes first.
        let place = usize::from(its.opened() == Direction::Ingress);
        connection.sessions = if place == 0 { [its, connection.sessions[0]] } else { [connection.sessions[0], its] };
        let grounds = &mut self.sessions.origin_mut(slot).grounds;
        *grounds = if place == 0 { [ground, grounds[0]] } else { [grounds[0], ground] };
        self.note_session(context.counters_index(), context.eni.sessions_max, entry);
        Ok(Some(slot))
    }

    fn end_session_of(&mut self, slot: SessionSlot, context: &EniContext<'_>) {
        self.end_session(slot, context.eni.epoch);
    }

    #[cold]
    fn remember_fragment(&mut self, context: &EniContext<'_>, packet: &Packet, decision: Decision, now: Tick) {
        let eni = context.eni;
        let entry = self.sessions.fragment_entry(FragmentKey::of(eni.epoch, &packet.headers));
        let opener = Opener::of(&packet.headers, context.direction, context.snapshot.settings());
        let first_decision = FragmentDecision::new(decision, context.revision, (packet.headers.tuple, opener), now);
        self.sessions.fragments.remember(&entry, first_decision);
    }

    /// Decides what happens to a fragment as it leaves its sender; `None` means that it is forwarded.
    #[cold]
    pub(crate) fn track_fragment(&mut self, context: &EniContext<'_>, packet: &Packet, now: Tick) -> Option<Verdict> {
        let headers = &packet.headers;
        let follows = context.snapshot.settings().follow_first_fragment;
        // A fragment that waited has been tracked when it arrived.
        if headers.fragment == Fragment::Whole || !follows || self.is_releasing {
            return None;
        }
        let entry = self.sessions.fragment_entry(FragmentKey::of(context.eni.epoch, headers));
        let fragments = &mut self.sessions.fragments;
        match fragments.take(&entry, headers.part, now) {
            Ok(FragmentAction::Pass) => None,
            Ok(FragmentAction::Wait) => match fragments.hold(entry.0, context.index, packet.buffer.frame(), now) {
                Ok(()) => Some(Verdict::Wait),
                Err(reason) => Some(Verdict::Drop(reason)),
            },
            Err(reason) => Some(Verdict::Drop(reason)),
        }
    }
}

/// A session to be opened, and where to count it.
#[derive(Clone, Copy)]
pub(super) struct NewSession {
    pub(super) session: Session,
    /// The rule or group that admitted it.
    pub(super) ground: u32,
    pub(super) counters_index: usize,
    /// How many sessions its ENI may hold.
    pub(super) sessions_max: u32,
}

/// What a packet determines about the connection that it opens.
pub(crate) struct NewConnection {
    pub(crate) protocol: u8,
    /// Whether it comes from the opener; if not, it is an answer.
    pub(crate) from_opener: bool,
    pub(crate) state: ConnectionState,
    pub(crate) segment: Segment,
    /// The window scale that it offers.
    pub(crate) scale: Option<u8>,
    pub(crate) wire: Wire,
}

impl NewConnection {
    fn by(packet: &Packet, from_opener: bool) -> Self {
        Self {
            protocol: packet.headers.tuple.protocol,
            from_opener,
            state: ConnectionState::opened_by(&packet.headers, from_opener),
            segment: packet.headers.segment(),
            scale: packet.window_scale(),
            wire: packet.wire(),
        }
    }

    /// The record of the connection, without sessions.
    #[inline(always)]
    pub(crate) fn record(&self, timeouts: PackedTimeouts, now: Tick) -> (Connection, Origin) {
        let Self { protocol, from_opener, state, segment, scale, wire } = *self;
        let (mut edges, mut scales) = ([0; 2], [0; 2]);
        if protocol == protocol::TCP {
            tcp::observe(&mut edges, segment, from_opener);
            if segment.flags & SYN != 0 {
                tcp::observe_scale(&mut scales, scale, from_opener);
            }
        }
        let [mut packets, mut bytes_low] = [[0; 2]; 2];
        let way = usize::from(!from_opener);
        (packets[way], bytes_low[way]) = (wire.packets, wire.bytes as u32);
        let connection = Connection {
            protocol,
            state,
            timeouts,
            last_seen: now,
            packets,
            bytes_low,
            edges,
            ..Connection::default()
        };
        (connection, Origin { opened_at: now, scales, ..Origin::default() })
    }
}

/// The session that a packet opens at an ENI; `swapped` if the packet's source is the key's second end.
const fn session_of(context: &EniContext<'_>, Admission { by, opener }: Admission, swapped: bool) -> Session {
    let is_answer = matches!(opener, Opener::Receiver);
    let opened = if is_answer { context.direction.reverse() } else { context.direction };
    // An answer's source is the responder, so the opener's end is the other one.
    let session = Session::new((context.eni.epoch, context.revision), opened, swapped != is_answer, by.stage);
    if matches!(opener, Opener::Unknown) { session.of_unknown_opener() } else { session }
}
