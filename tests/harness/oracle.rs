//! A slow, obvious model of one switch's decisions: the specification read aloud, §3 by the core's reference twin and
//! §4 over a plain map. It sees messages, never bytes; it asks the rules at every packet, never a revision.

use crate::frame::TcpFlags;
use crate::life::{Life, SessionLife};
use crate::message::{Content, Message, MessageEnd, MessageOpener};
use std::collections::HashMap;
use std::net::IpAddr;
use vswitch_core::acl::reference;
use vswitch_core::config::desired::{Desired, Direction, Settings, TimeoutProfile};
use vswitch_core::config::ids::EniId;
use vswitch_core::packet::headers::Tuple;

/// How long the fate of a first fragment is remembered, seconds.
pub(crate) const FATE_S: u64 = 30;
/// ICMP errors about its sessions that an ENI gets in a second.
const ERRORS_PER_S: u64 = 1000;
/// How long a part waits for the first, seconds.
const WAIT_S: u64 = 2;
/// Parts of one ENI that may wait.
const WAITING_MAX: usize = 48;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Name {
    /// ENI, protocol, and both ends in order.
    Session(EniId, u8, MessageEnd, MessageEnd),
    /// ENI, source, destination, identification.
    Fate(EniId, IpAddr, IpAddr, u32),
}

/// The model. It keeps what the switch must remember: sessions, and what became of packets in parts.
#[derive(Debug, Default)]
pub struct Oracle {
    records: HashMap<Name, SessionLife>,
    parts: HashMap<Name, Parts>,
    waiting: Vec<WaitingMessage>,
    /// How many sessions each ENI with a rate may open, as of when.
    may_open: HashMap<EniId, (u64, u64)>,
    refused_sessions: u64,
    order: u64,
    /// How many errors about its sessions each ENI may get, as of when.
    may_have: HashMap<EniId, (u64, u64)>,
}

/// What came of a packet in two parts at its sender.
#[derive(Clone, Debug)]
struct Parts {
    first: bool,
    later: bool,
    since_s: u64,
}

/// A later part that waits for the first.
#[derive(Clone, Debug)]
struct WaitingMessage {
    name: Name,
    message: Message,
    tag: u32,
    since_s: u64,
    is_released: bool,
}

/// What happens to a part before any rule is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gathered {
    /// It goes on.
    Pass,
    /// It waits for the first.
    Wait,
    /// It came before, or waiting has no room.
    Drop,
}

/// Where and when a message is evaluated.
#[derive(Clone, Copy, Debug)]
pub struct EvaluationPlace<'a> {
    /// The state that holds.
    pub desired: &'a Desired,
    /// The ENI that evaluates.
    pub eni: &'a EniId,
    /// The direction it evaluates.
    pub direction: Direction,
    /// The ENI's policy revision, for what is known of fragments only.
    pub revision: u32,
    /// The time.
    pub now_s: u64,
}

impl Oracle {
    /// Ends all sessions of an ENI.
    pub fn forget(&mut self, eni: &EniId) {
        self.records.retain(|name, _| {
            let (Name::Session(owner, ..) | Name::Fate(owner, ..)) = name;
            owner != eni
        });
        self.may_open.remove(eni);
        self.may_have.remove(eni);
        let is_theirs = |name: &Name| matches!(name, Name::Fate(owner, ..) if owner == eni);
        self.parts.retain(|name, _| !is_theirs(name));
        self.waiting.retain(|waiting| !is_theirs(&waiting.name));
    }

    /// What a message may do where it leaves its sender, as a part of a packet. `tag` names it if it has to wait.
    pub fn gather(&mut self, place: EvaluationPlace<'_>, message: &Message, tag: u32) -> Gathered {
        let (Content::FirstPart(id, ..) | Content::LaterPart(id)) = message.content else { return Gathered::Pass };
        if !place.desired.settings.follow_first_fragment {
            return Gathered::Pass;
        }
        let name = Name::Fate(place.eni.clone(), message.source, message.destination, id);
        let new = Parts { first: false, later: false, since_s: place.now_s };
        let parts = self.parts.entry(name.clone()).or_insert_with(|| new.clone());
        let is_first = matches!(message.content, Content::FirstPart(..));
        if place.now_s - parts.since_s >= FATE_S {
            *parts = new.clone();
        } else if is_first && parts.first && parts.later {
            // All of that packet passed: this is another one with its number.
            *parts = new;
            self.records.remove(&name);
        }
        if if is_first { parts.first } else { parts.later } {
            return Gathered::Drop;
        }
        if is_first {
            parts.first = true;
            let waiting = self.waiting.iter_mut().filter(|waiting| waiting.name == name);
            waiting.for_each(|waiting| waiting.is_released = true);
            return Gathered::Pass;
        }
        parts.later = true;
        let is_theirs =
            |waiting: &&WaitingMessage| matches!(&waiting.name, Name::Fate(owner, ..) if owner == place.eni);
        match () {
            () if parts.first => Gathered::Pass,
            () if self.waiting.iter().filter(is_theirs).count() >= WAITING_MAX => Gathered::Drop,
            () => {
                let (message, since_s) = (message.clone(), place.now_s);
                self.waiting.push(WaitingMessage { name, message, tag, since_s, is_released: false });
                Gathered::Wait
            }
        }
    }

    /// The parts that waited and whose first has come: whose each is, what it is, and its tag.
    pub fn release(&mut self) -> Vec<(EniId, Message, u32)> {
        let (released, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|part| part.is_released);
        self.waiting = waiting;
        let released: Vec<WaitingMessage> = released;
        let whose = |part: WaitingMessage| match part.name {
            Name::Fate(eni, ..) => (eni, part.message, part.tag),
            Name::Session(..) => unreachable!("sessions do not wait"),
        };
        released.into_iter().map(whose).collect()
    }

    /// How many packets it refused because the rules of the moment refuse their sessions.
    pub fn refused_sessions(&self) -> u64 {
        self.refused_sessions
    }

    /// How many sessions an ENI holds: what is only remembered is none.
    pub fn sessions_of(&self, eni: &EniId) -> usize {
        let is_theirs = |name: &Name| matches!(name, Name::Session(owner, ..) if owner == eni);
        self.records.iter().filter(|(name, session)| is_theirs(name) && !session.revoked).count()
    }

    /// Ends what idled too long. Returns whose parts waited in vain, and their tags.
    pub fn expire(&mut self, settings: &Settings, now_s: u64) -> Vec<(EniId, u32)> {
        self.records.retain(|_, session| now_s - session.last_seen_s < session.timeout_s(settings));
        let mut orphans = Vec::new();
        self.waiting.retain(|part| {
            let is_over = now_s - part.since_s >= WAIT_S;
            if let (true, Name::Fate(eni, ..)) = (is_over, &part.name) {
                orphans.push((eni.clone(), part.tag));
            }
            !is_over
        });
        orphans
    }

    /// Whether the message passes, and all that follows from it.
    pub fn evaluate(&mut self, place: EvaluationPlace<'_>, message: &Message) -> bool {
        match &message.content {
            Content::Unreachable(about) => {
                // Nobody is told about a packet that he did not send.
                let is_forged = message.destination != about.source;
                match () {
                    () if is_forged => false,
                    () if self.is_related(place, about) => self.may_have_error(place),
                    () => rules_accept(place, place.direction, &message.tuple()),
                }
            }
            Content::LaterPart(id) if place.desired.settings.follow_first_fragment => {
                let name = Name::Fate(place.eni.clone(), message.source, message.destination, *id);
                match self.records.get(&name) {
                    Some(SessionLife { life: Life::Fate(passed, revision, _), .. }) if *revision == place.revision => {
                        *passed
                    }
                    Some(SessionLife { life: Life::Fate(_, _, first), .. }) => match self.records.get(first) {
                        Some(session) => stays(place, session),
                        None => are_admitted(place, &self.records[&name]),
                    },
                    _ => rules_accept(place, place.direction, &message.tuple()),
                }
            }
            Content::FirstPart(id, ..) => {
                let passes = self.evaluate_session(place, message);
                if place.desired.settings.follow_first_fragment && passes != Passes::NoRoom {
                    self.remember_fate(place, message, *id, passes == Passes::Yes);
                }
                passes == Passes::Yes
            }
            Content::LaterPart(_) => rules_accept(place, place.direction, &message.tuple()),
            _ => self.evaluate_session(place, message) == Passes::Yes,
        }
    }

    fn evaluate_session(&mut self, place: EvaluationPlace<'_>, message: &Message) -> Passes {
        let name = session_name(place.eni, message);
        let Some(session) = self.records.get_mut(&name) else {
            return self.evaluate_new(place, message, name);
        };
        if message.is_tcp_open() && (session.revoked || session.is_closed()) {
            return self.evaluate_new(place, message, name);
        }
        if stays(place, session) {
            if place.desired.enis[place.eni].tracking.tcp_window_check && session.is_outside(message, place.now_s) {
                return Passes::Refused;
            }
            session.revoked &= !are_admitted(place, session);
            session.hear(message, place.now_s);
            Passes::Yes
        } else {
            self.refused_sessions += 1;
            session.revoked = true;
            // The memory lives on where nothing else would stop the packet.
            if rules_accept(place, place.direction, &message.tuple())
                && message.opener(place) == Some(MessageOpener::Sender)
            {
                session.last_seen_s = place.now_s;
            }
            Passes::Refused
        }
    }

    fn evaluate_new(&mut self, place: EvaluationPlace<'_>, message: &Message, name: Name) -> Passes {
        let opener = message.opener(place);
        let own = || rules_accept(place, place.direction, &message.tuple());
        let other = || rules_accept(place, place.direction.reverse(), &message.tuple().reverse());
        let is_admitted = match opener {
            Some(MessageOpener::Sender) => own(),
            Some(MessageOpener::Receiver) => other(),
            None => own() && other(),
        };
        if !is_admitted {
            return Passes::Refused;
        }
        let is_answer = opener == Some(MessageOpener::Receiver);
        if message.is_tcp() && !message.is_tcp_open() && !place.desired.settings.tcp_pick_up {
            return Passes::Refused;
        }
        self.records.remove(&name);
        let eni = &place.desired.enis[place.eni];
        if !self.has_room(place.eni, eni.sessions_max as usize) {
            return Passes::NoRoom;
        }
        self.order += 1;
        if let Some(rate) = eni.tracking.new_sessions_per_s.map(u64::from) {
            let (left, since_s) = self.may_open.get(place.eni).copied().unwrap_or((0, 0));
            let left = (left + (place.now_s - since_s) * rate).min(rate);
            self.may_open.insert(place.eni.clone(), (left.saturating_sub(1), place.now_s));
            if left == 0 {
                return Passes::NoRoom;
            }
        }
        let flags = message.tcp_flags();
        let is_syn = flags & TcpFlags::SYN != 0;
        let (sequence, acknowledgment) = message.numbers();
        let life = match message.content {
            Content::Tcp(..) | Content::Blind(..) => {
                let mut fins = [flags & (TcpFlags::FIN | TcpFlags::RST) == TcpFlags::FIN, false];
                let mut expected = [
                    Some(sequence.wrapping_add(is_syn as u32)),
                    (flags & TcpFlags::ACK != 0).then_some(acknowledgment),
                ];
                if is_answer {
                    fins.reverse();
                    expected.reverse();
                }
                let (reset, answered) = (flags & TcpFlags::RST != 0, is_answer && !fins[1]);
                Life::Tcp { answered, established: false, fins, reset, expected, unscaled: is_syn, syn: None }
            }
            Content::Ping(_) | Content::Pong(_) => Life::Icmp,
            Content::Other(_) => Life::Other,
            _ => Life::Udp(0),
        };
        let (_, sender, receiver) = message.ends();
        let session = SessionLife {
            opener: if is_answer { receiver } else { sender },
            opened: if is_answer { place.direction.reverse() } else { place.direction },
            opening: if is_answer { message.tuple().reverse() } else { message.tuple() },
            needs_both: opener.is_none(),
            order: self.order,
            last_seen_s: place.now_s,
            timeouts: eni.timeouts,
            profile: place.desired.settings.timeout_profile,
            revoked: false,
            life,
        };
        self.records.insert(name, session);
        Passes::Yes
    }

    /// Whether an ENI may have one more session, where some that are closing or unanswered may give way to it: of the peer
    /// that has most of them, the oldest.
    fn has_room(&mut self, eni: &EniId, sessions_max: usize) -> bool {
        let wanted = (self.sessions_of(eni) + 1).saturating_sub(sessions_max);
        if wanted == 0 {
            return true;
        }
        let mut all: Vec<(u64, Name)> = Vec::new();
        for (name, session) in &self.records {
            if matches!(name, Name::Session(owner, ..) if owner == eni) {
                all.push((session.order, name.clone()));
            }
        }
        all.sort_by_key(|(order, _)| *order);
        let mut candidates = Vec::new();
        for (_, name) in all {
            match self.records[&name].gives_way() {
                Some(is_closing) => candidates.push((is_closing, name)),
                // It becomes the newest.
                None => {
                    self.order += 1;
                    self.records.get_mut(&name).expect("it is there").order = self.order;
                }
            }
        }
        for _ in 0..wanted {
            let peer = |name: &Name| self.records[name].peer(name);
            let count = |of: IpAddr| candidates.iter().filter(|(closes, name)| !closes && peer(name) == of).count();
            let most = candidates.iter().filter(|(closes, _)| !closes).map(|(_, name)| count(peer(name))).max();
            let closing = candidates.iter().position(|(closes, _)| *closes);
            let of_most = || candidates.iter().position(|(closes, name)| !closes && Some(count(peer(name))) == most);
            let Some(victim) = closing.or_else(of_most) else { break };
            self.records.remove(&candidates.remove(victim).1);
        }
        self.sessions_of(eni) < sessions_max
    }

    fn remember_fate(&mut self, place: EvaluationPlace<'_>, message: &Message, id: u32, passed: bool) {
        let name = Name::Fate(place.eni.clone(), message.source, message.destination, id);
        if let Some(parts) = self.parts.get_mut(&name) {
            parts.since_s = place.now_s;
        }
        let fate = SessionLife {
            opener: message.ends().1,
            opened: place.direction,
            opening: message.tuple(),
            needs_both: message.opener(place).is_none(),
            order: 0,
            last_seen_s: place.now_s,
            timeouts: place.desired.enis[place.eni].timeouts,
            profile: TimeoutProfile::Alibaba,
            revoked: false,
            life: Life::Fate(passed, place.revision, session_name(place.eni, message)),
        };
        self.records.insert(name, fate);
    }

    /// Whether an ENI had fewer errors about its sessions in this second than it may.
    fn may_have_error(&mut self, place: EvaluationPlace<'_>) -> bool {
        if place.direction == Direction::Egress {
            return true;
        }
        let (left, since_s) = self.may_have.get(place.eni).copied().unwrap_or((ERRORS_PER_S, place.now_s));
        let left = (left + (place.now_s - since_s) * ERRORS_PER_S).min(ERRORS_PER_S);
        self.may_have.insert(place.eni.clone(), (left.saturating_sub(1), place.now_s));
        left > 0
    }

    /// §4.3: about a packet of a live session that crossed this ENI the other way.
    fn is_related(&self, place: EvaluationPlace<'_>, about: &Message) -> bool {
        let Some(session) = self.records.get(&session_name(place.eni, about)) else { return false };
        let crossed = if about.ends().1 == session.opener { session.opened } else { session.opened.reverse() };
        crossed == place.direction.reverse() && stays(place, session)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Passes {
    Yes,
    Refused,
    NoRoom,
}

fn session_name(eni: &EniId, message: &Message) -> Name {
    let (number, near, far) = message.ends();
    Name::Session(eni.clone(), number, near.min(far), near.max(far))
}

/// §4.4: whether the rules of now admit the session, or it need not ask them.
fn stays(place: EvaluationPlace<'_>, session: &SessionLife) -> bool {
    let kept = !place.desired.settings.cut_sessions_on_deny && !session.revoked;
    kept || are_admitted(place, session)
}

/// Whether the rules of now admit what is known of the packet that opened the session.
fn are_admitted(place: EvaluationPlace<'_>, session: &SessionLife) -> bool {
    let other = || rules_accept(place, session.opened.reverse(), &session.opening.reverse());
    rules_accept(place, session.opened, &session.opening) && (!session.needs_both || other())
}

fn rules_accept(place: EvaluationPlace<'_>, direction: Direction, tuple: &Tuple) -> bool {
    reference::decide(place.desired, place.eni, direction, tuple).policy
        == vswitch_core::config::desired::Policy::Accept
}
