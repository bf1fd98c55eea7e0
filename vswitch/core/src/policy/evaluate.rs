//! The decision at one ENI in one direction (`semantics.md` §3): a pure function of the packet's headers, the snapshot,
//! the sessions and the time. Forwarding and explain both use it, so they cannot disagree.

use crate::compile::bypasses_intra_group;
use crate::config::desired::{Direction, Policy};
use crate::conntrack::fragments::{FragmentDecision, FragmentEntry, FragmentKey};
use crate::conntrack::opener::Opener;
use crate::conntrack::state::ConnectionState;
use crate::conntrack::tables::{ConnectionTables, FoundSession, LookupKey, SessionSlot};
use crate::conntrack::{Connection, Session, opens_session, tcp};
use crate::hw::time::Tick;
use crate::packet::Marker;
use crate::packet::headers::parse::quoted;
use crate::packet::headers::{Addresses, Fragment, Headers, IcmpKind, Network, Tuple, protocol, tcp_flags};
use crate::packet::verdict::{Decision, Stage};
use crate::policy::eni_context::EniContext;
use crate::tables::address_entry::AddressEntry;
use crate::tables::route::AddressRoute;

/// What a decision asks to be done with the sessions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum SessionUpdate {
    /// Nothing.
    None,
    /// A live session: count the packet and restart its timer.
    Touch(SessionSlot),
    /// The same, for a session that was admitted again under the present revision: by this decision, if it is the
    /// session's own.
    Readmit(SessionSlot, Option<Decision>),
    /// The present rules refuse the session: mark it as revoked. Restart its timer if only the revoked session refuses
    /// the packet.
    Revoke(SessionSlot, bool),
    /// Open a session.
    Open(Admission),
    /// Open a session in the place of an expired one.
    Reopen(SessionSlot, Admission),
    /// An ICMP error that is admitted by the session it is about: count it against the ENI's rate limit.
    Relate,
}

/// What admits a session that is to be opened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Admission {
    /// The decision about its opener's packets.
    pub(crate) by: Decision,
    pub(crate) opener: Opener,
}

impl Admission {
    /// The admission by a packet whose sender opens the session.
    pub(crate) const fn of_sender(by: Decision) -> Self {
        Self { by, opener: Opener::Sender }
    }
}

/// What a decision may depend on besides the rules.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lookup {
    /// Nothing: rules alone decide.
    None,
    /// Its own session.
    Session(LookupKey),
    /// The session of the packet that this ICMP error quotes.
    Related(LookupKey),
    /// The decision about the first fragment.
    Fragment(FragmentEntry),
    /// Nothing: it is an ICMP error whose quote cannot be genuine, as this stage says.
    Misquoted(Stage),
}

/// A decision, and what it asks to be done.
pub(crate) type Evaluation = (Decision, SessionUpdate);

impl SessionUpdate {
    /// The record of a session that stays valid.
    #[inline]
    pub(crate) const fn continues(self) -> Option<SessionSlot> {
        match self {
            Self::Touch(slot) | Self::Readmit(slot, _) => Some(slot),
            _ => None,
        }
    }

    /// What admits the session to be opened, if there is one.
    pub(crate) const fn admission(self) -> Option<Admission> {
        match self {
            Self::Open(admission) | Self::Reopen(_, admission) => Some(admission),
            _ => None,
        }
    }
}

impl<'a> EniContext<'a> {
    /// What to look up for a packet. `frame` is needed for the quote in an ICMP error.
    pub(crate) fn lookup(&self, sessions: &ConnectionTables, headers: &Headers, frame: &[u8]) -> Lookup {
        if headers.network == Network::Arp {
            Lookup::None
        } else if headers.fragment == Fragment::Later {
            if self.snapshot.settings().follow_first_fragment {
                Lookup::Fragment(sessions.fragment_entry(FragmentKey::of(self.eni.epoch, headers)))
            } else {
                Lookup::None
            }
        } else if headers.has_quote() {
            match quoted(frame, headers) {
                None => Lookup::Misquoted(Stage::QuoteTruncated),
                // An error goes to the sender of what it quotes.
                Some(quote) if quote.tuple.addresses.source() != headers.tuple.addresses.destination() => {
                    Lookup::Misquoted(Stage::QuoteForged)
                }
                // A quote without ports names no session, and a longer error than the standards allow is not believed.
                Some(quote) if quote.fragment == Fragment::Later || !headers.has_error_length() => Lookup::None,
                Some(quote) => Lookup::Related(self.entry(sessions, &quote.tuple)),
            }
        } else if opens_session(headers) {
            Lookup::Session(self.entry(sessions, &headers.tuple))
        } else {
            Lookup::None
        }
    }

    #[inline]
    fn entry(&self, sessions: &ConnectionTables, tuple: &Tuple) -> LookupKey {
        sessions.entry(tuple, self.network.salt)
    }

    /// Step 2 in nearly all cases: whether a packet needs no more than its record, given that [`EniContext::admits`]
    /// its session.
    #[inline(always)]
    pub(crate) fn continues(&self, connection: &Connection, flags: u8, now: Tick) -> bool {
        // A SYN may begin another connection between the same ports, which only the full evaluation can tell.
        !connection.is_expired(self.snapshot.settings(), now) && flags & tcp_flags::SYN == 0
    }

    /// The value that sessions are compared with which this ENI admitted under the present revision.
    #[inline(always)]
    pub(crate) const fn live_side(&self) -> u64 {
        Session::live_under(self.eni.epoch, self.revision)
    }

    /// Whether a session belongs to this ENI and was admitted under the present revision.
    #[inline(always)]
    pub(crate) fn admits(&self, side: Session) -> bool {
        side.is(self.live_side())
    }

    /// Steps 0 to 5.
    #[inline(never)]
    pub(crate) fn evaluate(
        &self,
        sessions: &ConnectionTables,
        headers: &Headers,
        (lookup, marker): (&Lookup, Marker),
        now: Tick,
    ) -> Evaluation {
        let is_over = |session: &FoundSession<'_>| session.connection.is_expired(self.snapshot.settings(), now);
        if let Some(decision) = self.exempt(headers, marker) {
            // The answers to these are exempt in neither direction, so only a session lets them through.
            let needs_session = matches!(decision.stage, Stage::ExemptMetadata | Stage::ExemptSlb | Stage::ExemptProbe);
            let update = match lookup {
                Lookup::Session(entry) if needs_session => match sessions.find(entry, self.eni.epoch) {
                    // No rule admitted this packet, so no change of rules has a say: a revoked session is replaced.
                    Some(session) if is_over(&session) || session.session.is_revoked() => {
                        SessionUpdate::Reopen(session.slot, Admission::of_sender(decision))
                    }
                    Some(session) => SessionUpdate::Touch(session.slot),
                    None => SessionUpdate::Open(Admission::of_sender(decision)),
                },
                _ => SessionUpdate::None,
            };
            return (decision, update);
        }
        match lookup {
            Lookup::Misquoted(stage) => {
                // The rules come first: what they refuse is counted as theirs, not as a forged quote.
                let by_rules = self.decide_by_rules(self.direction, &headers.tuple);
                let decision = if by_rules.accepts() { Decision::by(Policy::Drop, *stage) } else { by_rules };
                (decision, SessionUpdate::None)
            }
            Lookup::None => (self.decide_by_rules(self.direction, &visible_to_rules(headers)), SessionUpdate::None),
            Lookup::Session(entry) => match sessions.find(entry, self.eni.epoch) {
                Some(session) if !is_over(&session) => {
                    let evaluation = self.evaluate_session(&session, headers, entry.swapped);
                    // Only what would pass is checked, so that a revoked session keeps its own drop reason.
                    let is_outside = evaluation.1.continues().is_some()
                        && self.eni.tcp_window_check
                        && self.is_outside(sessions, &session, (headers, entry.swapped), now);
                    if is_outside {
                        (Decision::by(Policy::Drop, Stage::OutOfWindow), SessionUpdate::None)
                    } else {
                        evaluation
                    }
                }
                over => self.evaluate_new(headers, over.map(|session| session.slot)),
            },
            Lookup::Related(entry) => {
                let related = sessions.find(entry, self.eni.epoch).filter(|session| !is_over(session));
                if related.is_some_and(|session| self.admits_related(&session, entry)) {
                    (Decision::by(Policy::Accept, Stage::Session), SessionUpdate::Relate)
                } else {
                    (self.decide_by_rules(self.direction, &headers.tuple), SessionUpdate::None)
                }
            }
            Lookup::Fragment(key) => {
                let decision = match sessions.fragments.find(key, now) {
                    Some(first_decision) if first_decision.revision == self.revision => as_the_first(first_decision),
                    Some(first_decision) => {
                        let entry = self.entry(sessions, &first_decision.first);
                        let session = sessions.find(&entry, self.eni.epoch).filter(|session| !is_over(session));
                        self.reevaluate_fragment(first_decision, session.map(|session| (session, entry.swapped)))
                    }
                    None => self.decide_by_rules(self.direction, &visible_to_rules(headers)),
                };
                (decision, SessionUpdate::None)
            }
        }
    }

    /// Step 2 for a packet whose session has a record.
    fn evaluate_session(&self, session: &FoundSession<'_>, headers: &Headers, swapped: bool) -> Evaluation {
        let accept = Decision::by(Policy::Accept, Stage::Session);
        let FoundSession { slot, connection, session: side } = *session;
        if headers.may_be_its_own_reverse() && contradicts(headers, swapped == side.is_swapped()) {
            return (self.decide_by_rules(self.direction, &headers.tuple), SessionUpdate::None);
        }
        if headers.is_tcp_open() && (connection.state == ConnectionState::TcpClosed || side.is_revoked()) {
            // The connection is over; this is another one between the same ports.
            let (decision, update) = self.evaluate_new(headers, Some(slot));
            return (decision, if decision.accepts() { update } else { SessionUpdate::None });
        }
        if side.revision == self.revision {
            return if side.is_revoked() {
                self.refuse_session(slot, headers)
            } else {
                (accept, SessionUpdate::Touch(slot))
            };
        }
        match self.reevaluate_session(side, &headers.tuple, swapped) {
            (true, decision) => (accept, SessionUpdate::Readmit(slot, decision)),
            (false, _) => self.refuse_session(slot, headers),
        }
    }

    /// Whether a packet of a session is outside its receiver's window. A described packet has no sequence number, and
    /// before a handshake is complete only the receiver can tell.
    fn is_outside(
        &self,
        sessions: &ConnectionTables,
        session: &FoundSession<'_>,
        (headers, swapped): (&Headers, bool),
        now: Tick,
    ) -> bool {
        let FoundSession { slot, connection, session: side } = *session;
        let is_segment = headers.tuple.protocol == protocol::TCP && headers.end != 0;
        let (segment, from_opener) = (headers.segment(), swapped == side.is_swapped());
        is_segment
            && !connection.state.is_shaking_hands()
            && tcp::is_outside(connection.edges, sessions.origin(slot).scales, segment, from_opener)
            // The remembered numbers may be those of an earlier connection between the same ports.
            && !(side.has_syn() && sessions.syns.of(&sessions.syn_key(slot, self.eni.epoch), now).is_some())
    }

    /// §4.4: whether a session is admitted under the present revision, judged by its opening packet; and the decision
    /// that admits it, if it is a new one.
    fn reevaluate_session(&self, side: Session, tuple: &Tuple, swapped: bool) -> (bool, Option<Decision>) {
        // No rule admitted it, so a new revision cannot refuse it.
        if matches!(side.stage(), Stage::ExemptMetadata | Stage::ExemptSlb | Stage::ExemptProbe) {
            return (true, None);
        }
        let opening = if swapped == side.is_swapped() { *tuple } else { tuple.reverse() };
        let decision = self.decide_by_rules(side.opened(), &opening);
        let admits_other = || self.decide_by_rules(side.opened().reverse(), &opening.reverse()).accepts();
        if decision.accepts() && (!side.needs_both() || admits_other()) {
            (true, Some(decision))
        } else {
            // A revoked session stays revoked until rules admit it again.
            (!self.snapshot.settings().cut_sessions_on_deny && !side.is_revoked(), None)
        }
    }

    /// The decision about a first fragment of an older revision as it would be made today: with its session, if that
    /// still exists.
    fn reevaluate_fragment(
        &self,
        first_decision: &FragmentDecision,
        session: Option<(FoundSession<'_>, bool)>,
    ) -> Decision {
        let by_rules = [Stage::Session, Stage::IntraGroup, Stage::Rule, Stage::Default, Stage::AnswerUnsolicited];
        if !by_rules.contains(&first_decision.decision.stage) {
            return as_the_first(first_decision); // No rule had a say.
        }
        let stays = session.as_ref().is_some_and(|(session, swapped)| {
            let is_known = session.session.revision == self.revision;
            if is_known {
                !session.session.is_revoked()
            } else {
                self.reevaluate_session(session.session, &first_decision.first, *swapped).0
            }
        });
        let refused_with_session = session.is_some() && !stays;
        match self.evaluate_opening(first_decision.opener, &first_decision.first).0 {
            _ if stays => Decision::by(Policy::Accept, Stage::Session),
            // The rules would admit a new session, but a refused one is remembered and refuses its fragments as well.
            decision if decision.accepts() && refused_with_session => Decision::by(Policy::Drop, Stage::Session),
            decision => decision,
        }
    }

    /// Refuses a packet whose session is revoked: by its own rules' decision if they refuse it, otherwise by the
    /// session. The revoked session is kept while it is needed, since without it the packet could open another.
    fn refuse_session(&self, slot: SessionSlot, headers: &Headers) -> Evaluation {
        let decision = self.decide_by_rules(self.direction, &visible_to_rules(headers));
        if !decision.accepts() {
            return (decision, SessionUpdate::Revoke(slot, false));
        }
        let opener = Opener::of(headers, self.direction, self.snapshot.settings());
        // Only a packet that would open a session keeps the memory alive: what looks like an answer opens none.
        (Decision::by(Policy::Drop, Stage::Session), SessionUpdate::Revoke(slot, opener == Opener::Sender))
    }

    /// Whether a live session admits an error about one of its packets (§4.3), which must have crossed this ENI in the
    /// other direction.
    fn admits_related(&self, session: &FoundSession<'_>, entry: &LookupKey) -> bool {
        let side = session.session;
        let quoted_is_from_opener = entry.swapped == side.is_swapped();
        let quoted_direction = if quoted_is_from_opener { side.opened() } else { side.opened().reverse() };
        if quoted_direction != self.direction.reverse() {
            return false;
        }
        if side.revision == self.revision {
            return !side.is_revoked();
        }
        self.reevaluate_session(side, &entry.tuple(), entry.swapped).0
    }

    fn evaluate_new(&self, headers: &Headers, over: Option<SessionSlot>) -> Evaluation {
        let opener = Opener::of(headers, self.direction, self.snapshot.settings());
        let (decision, by) = self.evaluate_opening(opener, &headers.tuple);
        if !decision.accepts() {
            return (decision, SessionUpdate::None);
        }
        // Checked after the rules, so that what they refuse is counted as theirs.
        if headers.tuple.protocol == protocol::TCP && !headers.is_tcp_open() && !self.snapshot.settings().tcp_pick_up {
            return (Decision::by(Policy::Drop, Stage::OutOfState), SessionUpdate::None);
        }
        let admission = Admission { by, opener };
        (decision, over.map_or(SessionUpdate::Open(admission), |over| SessionUpdate::Reopen(over, admission)))
    }

    /// Steps 3 to 5 for a packet without a session: the decision about it, and the one that admits the session it
    /// opens.
    fn evaluate_opening(&self, opener: Opener, tuple: &Tuple) -> (Decision, Decision) {
        let unsolicited = Decision::by(Policy::Drop, Stage::AnswerUnsolicited);
        let other_direction = || self.decide_by_rules(self.direction.reverse(), &tuple.reverse());
        if opener == Opener::Receiver {
            let by = other_direction();
            // An answer passes as part of its connection; the rules of its own direction were not asked.
            return if by.accepts() { (Decision::by(Policy::Accept, Stage::Session), by) } else { (unsolicited, by) };
        }
        let own = self.decide_by_rules(self.direction, tuple);
        let is_admitted = !own.accepts() || opener == Opener::Sender || other_direction().accepts();
        (if is_admitted { own } else { unsolicited }, own)
    }

    /// Steps 3 to 5, for a packet that crosses this ENI in `direction`.
    pub(crate) fn decide_by_rules(&self, direction: Direction, tuple: &Tuple) -> Decision {
        self.decide_by_entry(direction, tuple, self.network.source(from_peer(direction, tuple)))
    }

    /// The same as [`EniContext::decide_by_rules`], for a peer whose entry in the address table is known.
    pub(crate) fn decide_by_entry(&self, direction: Direction, tuple: &Tuple, peer: AddressEntry) -> Decision {
        if bypasses_intra_group(self.snapshot.settings(), direction)
            && let Some(ground) = self.network.shared_open_group(self.acl, peer.class)
            && peer.route() != AddressRoute::Owner(self.index)
        {
            return Decision { policy: Policy::Accept, stage: Stage::IntraGroup, ground };
        }
        self.network.decide(self.acl, direction, tuple, peer.class)
    }
}

/// The addresses of a packet that crosses an ENI in `direction`, ordered so that the peer is the source.
pub(crate) fn from_peer(direction: Direction, tuple: &Tuple) -> Addresses {
    match direction {
        Direction::Ingress => tuple.addresses,
        Direction::Egress => tuple.addresses.reverse(),
    }
}

/// The decision about a fragment under the revision that evaluated the first one.
fn as_the_first(first_decision: &FragmentDecision) -> Decision {
    if first_decision.decision.accepts() {
        Decision::by(Policy::Accept, Stage::Session)
    } else {
        first_decision.decision
    }
}

/// Fragments without ports match only rules that do not look at ports (§2).
pub(crate) fn visible_to_rules(headers: &Headers) -> Tuple {
    if headers.fragment == Fragment::Later { headers.tuple.without_ports() } else { headers.tuple }
}

/// Whether an ICMP message contradicts the session that its tuple names: a request from the responder, or a reply from
/// the opener.
fn contradicts(headers: &Headers, from_opener: bool) -> bool {
    matches!((headers.icmp_kind(), from_opener), (Some(IcmpKind::Request), false) | (Some(IcmpKind::Reply), true))
}
