//! All connections of one worker: a table for each address family behind one door.

use crate::config::desired::Direction;
use crate::config::ids::FlowScope;
use crate::conntrack::fragments::{FragmentEntry, FragmentKey, Fragments};
use crate::conntrack::key::{FlowKey, Key, KeyV4, KeyV6, hash_of, key_of, turned};
use crate::conntrack::recent::RecentSession;
use crate::conntrack::syns::{SynKey, Syns};
use crate::conntrack::table::{MemoryAdvice, Slot, Table, TableFull};
use crate::conntrack::{Expiry, Flow, Origin, Side};
use crate::packet::headers::fast_parse::Plain;
use crate::packet::headers::{Addresses, Tuple};

/// The golden ratio's digits: what multiplies in a hash has bits of all kinds, whatever the secret.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// See the module's page.
#[derive(Debug)]
pub struct Sessions {
    pub(crate) v4: Table<KeyV4>,
    pub(crate) v6: Table<KeyV6>,
    pub(crate) fragments: Fragments,
    pub(crate) syns: Syns,
    secret: [u64; 2],
}

/// The place of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionSlot {
    /// In the table for IPv4.
    V4(Slot),
    /// In the table for IPv6.
    V6(Slot),
}

/// A key ready to be looked for.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub(crate) key: Key,
    pub(crate) protocol: u8,
    /// Whether the packet's source is the key's second end.
    pub swapped: bool,
    pub(crate) hash: u64,
}

impl Entry {
    /// What leads to no session.
    pub(crate) const NONE: Self = Self { key: Key::V4(KeyV4::NONE), protocol: 0, swapped: false, hash: 0 };

    /// The source and destination ports of the packet that it was made of.
    #[inline(always)]
    pub(crate) fn ports(&self) -> [u16; 2] {
        let ports = match &self.key {
            Key::V4(key) => key.ports(),
            Key::V6(key) => key.ports(),
        };
        let ports = turned(ports, self.swapped);
        [(ports >> 16) as u16, ports as u16]
    }

    /// The tuple that it was made of.
    pub fn tuple(&self) -> Tuple {
        self.key.tuple(self.protocol, self.swapped)
    }
}

/// The session of one ENI, as found.
#[derive(Clone, Copy, Debug)]
pub struct Session<'a> {
    /// Where its record is.
    pub slot: SessionSlot,
    /// What both sides of the record share.
    pub flow: &'a Flow,
    /// What is this ENI's alone.
    pub side: Side,
}

/// A session, as a walk through all of them meets it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listed<'a> {
    /// Where it stands in the walk, together with the few that have the same home.
    pub(crate) place: usize,
    pub(crate) slot: SessionSlot,
    /// The tuple of the packet that opened it.
    pub(crate) tuple: Tuple,
    pub(crate) flow: &'a Flow,
    /// Which of the record's sides it is.
    pub(crate) side: usize,
}

impl Sessions {
    /// Room for `flows_max` connections of IPv4, and a quarter of it for IPv6.
    pub fn new(flows_max: usize, secret: [u64; 2], advice: MemoryAdvice<'_>) -> Self {
        let (v4, v6) = (Table::new(flows_max, advice), Table::new(flows_max / 4, advice));
        Self { v4, v6, fragments: Fragments::new(), syns: Syns::new(), secret: [secret[0], secret[1] ^ GOLDEN] }
    }

    /// What to look for to find the session of a packet with this tuple, in the network with this salt.
    #[inline]
    pub fn entry(&self, tuple: &Tuple, salt: u32) -> Entry {
        let (key, swapped) = key_of(tuple);
        Entry { key, protocol: tuple.protocol, swapped, hash: key.hash(tuple.protocol, salt, self.secret) }
    }

    /// What to look for to find a packet in parts.
    pub(crate) fn fragment_entry(&self, key: FragmentKey) -> FragmentEntry {
        let (tuple, salt) = key.as_tuple();
        (key, key_of(&tuple).0.hash(tuple.protocol, salt, self.secret))
    }

    /// [`Sessions::entry`], and asks the memory for what `find` will read first.
    #[inline]
    pub(crate) fn reach_for(&self, tuple: &Tuple, salt: u32) -> (Entry, Slot) {
        let entry = self.entry(tuple, salt);
        let home = match entry.key {
            Key::V4(_) => self.v4.prefetch(entry.hash),
            Key::V6(_) => self.v6.prefetch(entry.hash),
        };
        (entry, home)
    }

    /// The same for a plain packet of one family, whose `table` this is: between `ends`, whose seed is known.
    #[inline(always)]
    pub(crate) fn reach_for_plain<K: FlowKey>(
        &self,
        table: &Table<K>,
        (ends, seed, swapped): (K, u64, bool),
        plain: &Plain<K::Address>,
    ) -> (Entry, Slot) {
        let ports = turned(plain.ports, swapped);
        let hash = hash_of(seed, ports, plain.protocol, self.secret);
        (Entry { key: ends.with_ports(ports).any(), protocol: plain.protocol, swapped, hash }, table.prefetch(hash))
    }

    /// The key of packets between two addresses, but for the ports; what these addresses give to its hash in the network
    /// with this salt; and whether the source is the second end.
    pub(crate) fn ends_of(&self, addresses: Addresses, salt: u32) -> (Key, u64, bool) {
        match addresses {
            Addresses::V4 { source, destination } => ends_between::<KeyV4>([source, destination], salt, self.secret),
            Addresses::V6 { source, destination } => ends_between::<KeyV6>([source, destination], salt, self.secret),
        }
    }

    /// Asks for what opening a connection will write besides its record.
    pub(crate) fn prefetch_origin(&self, entry: &Entry, home: Slot) {
        match &entry.key {
            Key::V4(_) => self.v4.prefetch_origin(home),
            Key::V6(_) => self.v6.prefetch_origin(home),
        }
    }

    /// A better guess than `guess` where the record of an entry is, and whether it may be further on.
    #[inline(always)]
    pub(crate) fn guess_on(&self, entry: &Entry, guess: Slot) -> (Slot, bool) {
        match &entry.key {
            Key::V4(key) => self.v4.guess_on(key, guess),
            Key::V6(key) => self.v6.guess_on(key, guess),
        }
    }

    /// Whether it pays to look for a better guess a second time.
    #[inline]
    pub(crate) fn are_far(&self) -> bool {
        self.v4.is_far() || self.v6.is_far()
    }

    /// The session of `scope`.
    #[inline]
    pub fn find(&self, entry: &Entry, scope: FlowScope) -> Option<Session<'_>> {
        let (slot, flow) = match &entry.key {
            Key::V4(key) => {
                let slot = self.v4.find(key, entry.protocol, scope, entry.hash)?;
                (SessionSlot::V4(slot), self.v4.flow(slot))
            }
            Key::V6(key) => {
                let slot = self.v6.find(key, entry.protocol, scope, entry.hash)?;
                (SessionSlot::V6(slot), self.v6.flow(slot))
            }
        };
        Some(Session { slot, flow, side: flow.sides[flow.place_of(scope)?] })
    }

    /// Makes room for a record: perhaps that of a connection that `is_over`, whose sessions are returned with it.
    ///
    /// # Errors
    /// [`TableFull`] where there is none.
    #[inline(always)]
    pub fn insert(
        &mut self,
        entry: &Entry,
        record: (Flow, Origin),
        is_over: impl Fn(&Flow) -> bool,
    ) -> Result<(SessionSlot, [Side; 2]), TableFull> {
        match entry.key {
            Key::V4(key) => {
                self.v4.insert((key, entry.hash), record, is_over).map(|(slot, ended)| (SessionSlot::V4(slot), ended))
            }
            Key::V6(key) => {
                self.v6.insert((key, entry.hash), record, is_over).map(|(slot, ended)| (SessionSlot::V6(slot), ended))
            }
        }
    }

    /// The same, where no other connection is to end for it.
    fn insert_beside(&mut self, entry: &Entry, record: (Flow, Origin)) -> Result<SessionSlot, TableFull> {
        self.insert(entry, record, |_| false).map(|(slot, _)| slot)
    }

    /// Takes in the only session of a record of another shard. It joins the record of the other end of its connection if that is
    /// here and has seen the same packets.
    ///
    /// # Errors
    /// [`TableFull`] where there is no room.
    pub(crate) fn adopt(&mut self, entry: &Entry, flow: Flow, origin: Origin) -> Result<SessionSlot, TableFull> {
        let is_other_end = |other: &Flow, its: &Origin| {
            other.has_seen_the_same(&flow) && its.has_seen_the_same(&origin) && other.is_other_end_of(&flow)
        };
        let found = match &entry.key {
            Key::V4(key) => self.v4.find_by(key, (entry.protocol, entry.hash), is_other_end).map(SessionSlot::V4),
            Key::V6(key) => self.v6.find_by(key, (entry.protocol, entry.hash), is_other_end).map(SessionSlot::V6),
        };
        let Some(slot) = found else { return self.insert_beside(entry, (flow, origin)) };
        let both = [(*self.flow(slot), *self.origin(slot)), (flow, origin)];
        for (flow, origin) in &both {
            for (place, side) in flow.sessions() {
                // The opener's session comes first.
                let shared = usize::from(side.opened() == Direction::Ingress);
                self.flow_mut(slot).sides[shared] = side;
                self.origin_mut(slot).grounds[shared] = origin.grounds[place];
            }
        }
        Ok(slot)
    }

    /// The record of least `worth` among those of which one must go before `entry` finds room, if one of them may.
    pub(crate) fn least_worthy<W: Ord>(
        &mut self,
        entry: &Entry,
        worth: impl Fn(&Flow) -> Option<W>,
    ) -> Option<SessionSlot> {
        match entry.key {
            Key::V4(_) => least_worthy(&mut self.v4, entry.hash, worth).map(SessionSlot::V4),
            Key::V6(_) => least_worthy(&mut self.v6, entry.hash, worth).map(SessionSlot::V6),
        }
    }

    /// Ends the session of `scope` in a record, and the record with its last session.
    pub(crate) fn end(&mut self, slot: SessionSlot, scope: FlowScope) {
        let flow = self.flow_mut(slot);
        if let Some(place) = flow.place_of(scope) {
            flow.sides[place] = Side::default();
        }
        if flow.sessions().next().is_none() {
            match slot {
                SessionSlot::V4(slot) => self.v4.remove(slot),
                SessionSlot::V6(slot) => self.v6.remove(slot),
            }
        }
    }

    /// Gives the session of `scope` a record of its own, as it was: from here on the two sides see different packets.
    /// Without room they go on in one record, and share what it counts.
    #[cold]
    pub(crate) fn split(&mut self, slot: SessionSlot, entry: &Entry, scope: FlowScope) -> SessionSlot {
        let (mut flow, origin) = (*self.flow(slot), *self.origin(slot));
        let Some(place) = flow.place_of(scope) else { return slot };
        flow.sides[1 - place] = Side::default();
        let Ok(own) = self.insert_beside(entry, (flow, origin)) else { return slot };
        self.flow_mut(slot).sides[place] = Side::default();
        own
    }

    /// What an ENI keeps in mind of a session that it opens.
    #[inline(always)]
    pub(crate) fn recent(&self, entry: &Entry) -> RecentSession {
        match &entry.key {
            Key::V4(key) => RecentSession::new(self.v4.trace_of(key, entry.hash), false),
            Key::V6(key) => RecentSession::new(self.v6.trace_of(key, entry.hash), true),
        }
    }

    /// Asks for what looking for it will read first.
    pub(crate) fn prefetch_recent(&self, session: RecentSession) {
        if session.is_ipv6() {
            self.v6.prefetch_trace(session.trace());
        } else {
            self.v4.prefetch_trace(session.trace());
        }
    }

    /// The session of `scope` that was kept in mind, if it lives.
    pub(crate) fn find_recent(&self, session: RecentSession, scope: FlowScope) -> Option<SessionSlot> {
        if session.is_ipv6() {
            self.v6.find_trace(session.trace(), scope).map(SessionSlot::V6)
        } else {
            self.v4.find_trace(session.trace(), scope).map(SessionSlot::V4)
        }
    }

    /// Under which key a SYN in the middle of the session of `scope` is remembered.
    pub(crate) fn syn_key(&self, slot: SessionSlot, scope: FlowScope) -> SynKey {
        let trace = match slot {
            SessionSlot::V4(slot) => self.v4.trace_at(slot),
            SessionSlot::V6(slot) => self.v6.trace_at(slot),
        };
        (trace, scope)
    }

    /// The addresses of the packet that opened a session, as its side is turned.
    pub(crate) fn addresses(&self, slot: SessionSlot, swapped: bool) -> Addresses {
        let addresses = |key: Key| key.tuple(0, swapped).addresses;
        let none = Addresses::V4 { source: 0, destination: 0 };
        match slot {
            SessionSlot::V4(slot) => self.v4.key(slot).map_or(none, |key| addresses(Key::V4(*key))),
            SessionSlot::V6(slot) => self.v6.key(slot).map_or(none, |key| addresses(Key::V6(*key))),
        }
    }

    /// A record.
    #[inline]
    pub fn flow(&self, slot: SessionSlot) -> &Flow {
        match slot {
            SessionSlot::V4(slot) => self.v4.flow(slot),
            SessionSlot::V6(slot) => self.v6.flow(slot),
        }
    }

    /// A record, to be changed.
    #[inline]
    pub fn flow_mut(&mut self, slot: SessionSlot) -> &mut Flow {
        match slot {
            SessionSlot::V4(slot) => self.v4.flow_mut(slot),
            SessionSlot::V6(slot) => self.v6.flow_mut(slot),
        }
    }

    /// What is kept apart of a record.
    pub fn origin(&self, slot: SessionSlot) -> &Origin {
        match slot {
            SessionSlot::V4(slot) => self.v4.origin(slot),
            SessionSlot::V6(slot) => self.v6.origin(slot),
        }
    }

    /// What is kept apart of a record, to be changed.
    pub fn origin_mut(&mut self, slot: SessionSlot) -> &mut Origin {
        match slot {
            SessionSlot::V4(slot) => self.v4.origin_mut(slot),
            SessionSlot::V6(slot) => self.v6.origin_mut(slot),
        }
    }

    /// Looks at the next `count` records of each table, in an endless round, and forgets those that are over; `forgotten`
    /// hears whose live sessions they were.
    pub(crate) fn sweep(&mut self, count: usize, expiry: &mut Expiry<'_>, mut forgotten: impl FnMut(FlowScope)) {
        let mut forget = |flow: &Flow| {
            flow.sides.iter().filter(|side| side.is_live()).for_each(|side| forgotten(side.scope()));
        };
        if !self.v4.is_empty() {
            self.v4.sweep(count, expiry, &mut forget);
        }
        if !self.v6.is_empty() {
            self.v6.sweep(count, expiry, &mut forget);
        }
    }

    /// The sessions of `count` places from `place` on, in an order of places that does not change while they live.
    pub(crate) fn scan(&self, place: usize, count: usize) -> impl Iterator<Item = Listed<'_>> {
        let (behind, v4_homes) = (place + count, self.v4.homes());
        let first_v6 = place.max(v4_homes);
        let v4 = self
            .v4
            .scan(place, count)
            .map(|(home, slot, key, flow)| (home, SessionSlot::V4(slot), Key::V4(*key), flow));
        let v6 = self
            .v6
            .scan(first_v6 - v4_homes, behind.saturating_sub(first_v6))
            .map(move |(home, slot, key, flow)| (v4_homes + home, SessionSlot::V6(slot), Key::V6(*key), flow));
        v4.chain(v6).flat_map(|(place, slot, key, flow)| {
            let of_side = move |(side, session): (usize, Side)| Listed {
                place,
                slot,
                tuple: key.tuple(flow.protocol, session.is_swapped()),
                flow,
                side,
            };
            flow.sessions().map(of_side)
        })
    }

    /// How many places a walk through all sessions has.
    pub(crate) fn places(&self) -> usize {
        self.v4.homes() + self.v6.homes()
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there is no connection.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many connections there is room for.
    pub fn capacity(&self) -> usize {
        self.v4.capacity() + self.v6.capacity()
    }

    /// How full the fuller of the tables is, percent of what it was made for.
    pub fn percent(&self) -> usize {
        self.v4.percent().max(self.v6.percent())
    }

    /// Bytes of memory that the tables for IPv4 and IPv6 take.
    pub fn memory_bytes(&self) -> [usize; 2] {
        [self.v4.memory_bytes(), self.v6.memory_bytes()]
    }
}

fn ends_between<K: FlowKey>(addresses: [K::Address; 2], salt: u32, secret: [u64; 2]) -> (Key, u64, bool) {
    let (key, swapped) = K::between(addresses);
    (key.any(), key.seed(salt, secret), swapped)
}

fn least_worthy<K: FlowKey, W: Ord>(
    table: &mut Table<K>,
    hash: u64,
    worth: impl Fn(&Flow) -> Option<W>,
) -> Option<Slot> {
    let in_the_way = table.in_the_way(hash);
    let worths = in_the_way.filter_map(|slot| worth(table.flow(slot)).map(|worth| (worth, slot)));
    worths.min_by(|(one, _), (other, _)| one.cmp(other)).map(|(_, slot)| slot)
}
