//! All connections of one worker: a table for each address family behind a common interface.

use crate::config::desired::Direction;
use crate::config::ids::EniEpoch;
use crate::conntrack::fragments::{FragmentEntry, FragmentKey, Fragments};
use crate::conntrack::key::{ConnectionKey, Key, KeyV4, KeyV6, hash_of, key_of, ordered, turned};
use crate::conntrack::recent::RecentSession;
use crate::conntrack::slot::Slot;
use crate::conntrack::syns::{SynKey, Syns};
use crate::conntrack::table::{MemoryAdvice, Table, TableFull};
use crate::conntrack::{Connection, Expiry, Origin, Session};
use crate::packet::headers::fast_parse::Plain;
use crate::packet::headers::{Addresses, Tuple};

/// From the golden ratio's digits: a multiplier needs a good mix of bits, whatever the secret.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The connections of one worker. See the module's page.
#[derive(Debug)]
pub struct ConnectionTables {
    pub(crate) v4: Table<KeyV4>,
    pub(crate) v6: Table<KeyV6>,
    pub(crate) fragments: Fragments,
    pub(crate) syns: Syns,
    secret: [u64; 2],
}

/// The slot of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionSlot {
    /// In the table for IPv4.
    V4(Slot),
    /// In the table for IPv6.
    V6(Slot),
}

/// A key with its hash, ready to be looked up.
#[derive(Clone, Copy, Debug)]
pub struct LookupKey {
    pub(crate) key: Key,
    pub(crate) protocol: u8,
    /// Whether the packet's source is the key's second end.
    pub swapped: bool,
    pub(crate) hash: u64,
}

impl LookupKey {
    /// A key that finds nothing.
    pub(crate) const NONE: Self = Self { key: Key::V4(KeyV4::NONE), protocol: 0, swapped: false, hash: 0 };

    /// The source and destination ports of the packet that it was made from.
    #[inline(always)]
    pub(crate) fn ports(&self) -> [u16; 2] {
        let ports = match &self.key {
            Key::V4(key) => key.ports(),
            Key::V6(key) => key.ports(),
        };
        let ports = turned(ports, self.swapped);
        [(ports >> 16) as u16, ports as u16]
    }

    /// The tuple that it was made from.
    pub fn tuple(&self) -> Tuple {
        self.key.tuple(self.protocol, self.swapped)
    }
}

/// The session of one ENI, as it was found.
#[derive(Clone, Copy, Debug)]
pub struct FoundSession<'a> {
    /// The slot of its record.
    pub slot: SessionSlot,
    /// The part of the record that both sides share.
    pub connection: &'a Connection,
    /// This ENI's session.
    pub session: Session,
}

/// A session, as a walk through all sessions returns it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listed<'a> {
    /// Its place in the walk, which sessions of the same bucket share.
    pub(crate) place: usize,
    pub(crate) slot: SessionSlot,
    /// The tuple of the packet that opened it.
    pub(crate) tuple: Tuple,
    pub(crate) connection: &'a Connection,
    /// Which side of the record it is.
    pub(crate) index: usize,
}

impl ConnectionTables {
    /// Room for `flows_max` IPv4 connections, and a quarter as many IPv6 ones.
    pub fn new(flows_max: usize, secret: [u64; 2], advice: MemoryAdvice<'_>) -> Self {
        let (v4, v6) = (Table::new(flows_max, advice), Table::new(flows_max / 4, advice));
        Self { v4, v6, fragments: Fragments::new(), syns: Syns::new(), secret: [secret[0], secret[1] ^ GOLDEN] }
    }

    /// The key with which to look up the session of a packet with this tuple in the network with this salt.
    #[inline]
    pub fn entry(&self, tuple: &Tuple, salt: u32) -> LookupKey {
        let (key, swapped) = key_of(tuple);
        LookupKey { key, protocol: tuple.protocol, swapped, hash: key.hash(tuple.protocol, salt, self.secret) }
    }

    /// The key with which to look up a fragmented packet.
    pub(crate) fn fragment_entry(&self, key: FragmentKey) -> FragmentEntry {
        let (tuple, salt) = key.as_tuple();
        (key, key_of(&tuple).0.hash(tuple.protocol, salt, self.secret))
    }

    /// The same as [`ConnectionTables::entry`], and prefetches what `find` reads first.
    #[inline]
    pub(crate) fn reach_for(&self, tuple: &Tuple, salt: u32) -> (LookupKey, Slot) {
        let entry = self.entry(tuple, salt);
        let bucket = match entry.key {
            Key::V4(_) => self.v4.prefetch(entry.hash),
            Key::V6(_) => self.v6.prefetch(entry.hash),
        };
        (entry, bucket)
    }

    /// [`ConnectionTables::reach_for`] for a plain packet between `ends`, whose seed is known; `table` is that of its
    /// family.
    #[inline(always)]
    pub(crate) fn reach_for_plain<K: ConnectionKey>(
        &self,
        table: &Table<K>,
        (ends, seed, swapped): (K, u64, bool),
        plain: &Plain<K::Address>,
    ) -> (LookupKey, Slot) {
        let ports = turned(plain.ports, swapped);
        let hash = hash_of(seed, ports, plain.protocol, self.secret);
        (LookupKey { key: ends.with_ports(ports).any(), protocol: plain.protocol, swapped, hash }, table.prefetch(hash))
    }

    /// [`ConnectionTables::reach_for`] for a packet between addresses of the family of `table`; the source's port is in the
    /// upper half of `ports`.
    // A tuple would go through memory, written in small parts and read in large ones, which costs more than the rest.
    #[inline(always)]
    pub(crate) fn reach_between<K: ConnectionKey>(
        &self,
        table: &Table<K>,
        addresses: [K::Address; 2],
        ports: u32,
        protocol: u8,
        salt: u32,
    ) -> (LookupKey, Slot) {
        let (key, swapped) = ordered::<K>(addresses, ports);
        let hash = key.hash(protocol, salt, self.secret);
        (LookupKey { key: key.any(), protocol, swapped, hash }, table.prefetch(hash))
    }

    /// The key of packets between two addresses, without ports; the seed of its hash in the network with this salt; and
    /// whether the source is the second end.
    pub(crate) fn ends_of(&self, addresses: Addresses, salt: u32) -> (Key, u64, bool) {
        match addresses {
            Addresses::V4 { source, destination } => ends_between::<KeyV4>([source, destination], salt, self.secret),
            Addresses::V6 { source, destination } => ends_between::<KeyV6>([source, destination], salt, self.secret),
        }
    }

    /// Prefetches what opening a connection writes besides its record.
    pub(crate) fn prefetch_origin(&self, entry: &LookupKey, bucket: Slot) {
        match &entry.key {
            Key::V4(_) => self.v4.prefetch_origin(bucket),
            Key::V6(_) => self.v6.prefetch_origin(bucket),
        }
    }

    /// A better guess than `guess` of the slot of an entry's record, and whether the record may be further along the
    /// chain.
    #[inline(always)]
    pub(crate) fn guess_on(&self, entry: &LookupKey, guess: Slot) -> (Slot, bool) {
        match &entry.key {
            Key::V4(key) => self.v4.guess_on(key, guess),
            Key::V6(key) => self.v6.guess_on(key, guess),
        }
    }

    /// Whether a second round of guesses pays off.
    #[inline]
    pub(crate) fn are_far(&self) -> bool {
        self.v4.is_far() || self.v6.is_far()
    }

    /// The session of `epoch`.
    #[inline]
    pub fn find(&self, entry: &LookupKey, epoch: EniEpoch) -> Option<FoundSession<'_>> {
        let (slot, connection) = match &entry.key {
            Key::V4(key) => {
                let slot = self.v4.find(key, entry.protocol, epoch, entry.hash)?;
                (SessionSlot::V4(slot), self.v4.connection(slot))
            }
            Key::V6(key) => {
                let slot = self.v6.find(key, entry.protocol, epoch, entry.hash)?;
                (SessionSlot::V6(slot), self.v6.connection(slot))
            }
        };
        Some(FoundSession { slot, connection, session: connection.sessions[connection.place_of(epoch)?] })
    }

    /// Stores a record, perhaps in the place of a connection that `is_over`, whose sessions are returned as well.
    ///
    /// # Errors
    /// [`TableFull`] if there is no room.
    #[inline(always)]
    pub fn insert(
        &mut self,
        entry: &LookupKey,
        record: (Connection, Origin),
        is_over: impl Fn(&Connection) -> bool,
    ) -> Result<(SessionSlot, [Session; 2]), TableFull> {
        match entry.key {
            Key::V4(key) => {
                self.v4.insert((key, entry.hash), record, is_over).map(|(slot, ended)| (SessionSlot::V4(slot), ended))
            }
            Key::V6(key) => {
                self.v6.insert((key, entry.hash), record, is_over).map(|(slot, ended)| (SessionSlot::V6(slot), ended))
            }
        }
    }

    /// The same as [`ConnectionTables::insert`], without ending another connection.
    fn insert_beside(&mut self, entry: &LookupKey, record: (Connection, Origin)) -> Result<SessionSlot, TableFull> {
        self.insert(entry, record, |_| false).map(|(slot, _)| slot)
    }

    /// Takes over the only session of a record of another shard. If the record of the connection's other end is here
    /// and has seen the same packets, the session joins that record.
    ///
    /// # Errors
    /// [`TableFull`] if there is no room.
    pub(crate) fn adopt(
        &mut self,
        entry: &LookupKey,
        connection: Connection,
        origin: Origin,
    ) -> Result<SessionSlot, TableFull> {
        let is_other_end = |other: &Connection, its: &Origin| {
            other.has_seen_the_same(&connection) && its.has_seen_the_same(&origin) && other.is_other_end_of(&connection)
        };
        let found = match &entry.key {
            Key::V4(key) => self.v4.find_by(key, (entry.protocol, entry.hash), is_other_end).map(SessionSlot::V4),
            Key::V6(key) => self.v6.find_by(key, (entry.protocol, entry.hash), is_other_end).map(SessionSlot::V6),
        };
        // Adopting must not end a connection of another ENI, hence no `is_over`.
        let Some(slot) = found else { return self.insert_beside(entry, (connection, origin)) };
        let both = [(*self.connection(slot), *self.origin(slot)), (connection, origin)];
        for (connection, origin) in &both {
            for (place, session) in connection.sessions() {
                // The opener's session comes first.
                let shared = usize::from(session.opened() == Direction::Ingress);
                self.connection_mut(slot).sessions[shared] = session;
                self.origin_mut(slot).grounds[shared] = origin.grounds[place];
            }
        }
        Ok(slot)
    }

    /// The record with the lowest `eviction_score` among those of which one must go before there is room for `entry`,
    /// if any of them may go.
    pub(crate) fn lowest_score<W: Ord>(
        &mut self,
        entry: &LookupKey,
        eviction_score: impl Fn(&Connection) -> Option<W>,
    ) -> Option<SessionSlot> {
        match entry.key {
            Key::V4(_) => lowest_score(&mut self.v4, entry.hash, eviction_score).map(SessionSlot::V4),
            Key::V6(_) => lowest_score(&mut self.v6, entry.hash, eviction_score).map(SessionSlot::V6),
        }
    }

    /// Ends the session of `epoch` in a record, and removes the record if that was its last session.
    pub(crate) fn end(&mut self, slot: SessionSlot, epoch: EniEpoch) {
        let connection = self.connection_mut(slot);
        if let Some(place) = connection.place_of(epoch) {
            connection.sessions[place] = Session::default();
        }
        if connection.sessions().next().is_none() {
            match slot {
                SessionSlot::V4(slot) => self.v4.remove(slot),
                SessionSlot::V6(slot) => self.v6.remove(slot),
            }
        }
    }

    /// Moves the session of `epoch` to a record of its own, because from now on the two sides see different packets. If
    /// there is no room, both stay in one record and share its counts.
    #[cold]
    pub(crate) fn split(&mut self, slot: SessionSlot, entry: &LookupKey, epoch: EniEpoch) -> SessionSlot {
        let (mut connection, origin) = (*self.connection(slot), *self.origin(slot));
        let Some(place) = connection.place_of(epoch) else { return slot };
        connection.sessions[1 - place] = Session::default();
        let Ok(own) = self.insert_beside(entry, (connection, origin)) else { return slot };
        // The original is cleared only now: without room for the copy, the session would be lost.
        self.connection_mut(slot).sessions[place] = Session::default();
        own
    }

    /// What an ENI remembers of a session that it opens.
    #[inline(always)]
    pub(crate) fn recent(&self, entry: &LookupKey) -> RecentSession {
        match &entry.key {
            Key::V4(key) => RecentSession::new(self.v4.trace_of(key, entry.hash), false),
            Key::V6(key) => RecentSession::new(self.v6.trace_of(key, entry.hash), true),
        }
    }

    /// Prefetches what looking up a remembered session reads first.
    pub(crate) fn prefetch_recent(&self, session: RecentSession) {
        if session.is_ipv6() {
            self.v6.prefetch_trace(session.trace());
        } else {
            self.v4.prefetch_trace(session.trace());
        }
    }

    /// The remembered session of `epoch`, if it still exists.
    pub(crate) fn find_recent(&self, session: RecentSession, epoch: EniEpoch) -> Option<SessionSlot> {
        if session.is_ipv6() {
            self.v6.find_trace(session.trace(), epoch).map(SessionSlot::V6)
        } else {
            self.v4.find_trace(session.trace(), epoch).map(SessionSlot::V4)
        }
    }

    /// The key under which a SYN in the middle of the session of `epoch` is remembered.
    pub(crate) fn syn_key(&self, slot: SessionSlot, epoch: EniEpoch) -> SynKey {
        let trace = match slot {
            SessionSlot::V4(slot) => self.v4.trace_at(slot),
            SessionSlot::V6(slot) => self.v6.trace_at(slot),
        };
        (trace, epoch)
    }

    /// The addresses of the packet that opened a session; `swapped` as the session says.
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
    pub fn connection(&self, slot: SessionSlot) -> &Connection {
        match slot {
            SessionSlot::V4(slot) => self.v4.connection(slot),
            SessionSlot::V6(slot) => self.v6.connection(slot),
        }
    }

    /// A record, mutable.
    #[inline]
    pub fn connection_mut(&mut self, slot: SessionSlot) -> &mut Connection {
        match slot {
            SessionSlot::V4(slot) => self.v4.connection_mut(slot),
            SessionSlot::V6(slot) => self.v6.connection_mut(slot),
        }
    }

    /// The separately stored part of a record.
    pub fn origin(&self, slot: SessionSlot) -> &Origin {
        match slot {
            SessionSlot::V4(slot) => self.v4.origin(slot),
            SessionSlot::V6(slot) => self.v6.origin(slot),
        }
    }

    /// The separately stored part of a record, mutable.
    pub fn origin_mut(&mut self, slot: SessionSlot) -> &mut Origin {
        match slot {
            SessionSlot::V4(slot) => self.v4.origin_mut(slot),
            SessionSlot::V6(slot) => self.v6.origin_mut(slot),
        }
    }

    /// Examines the next `count` records of each table, in an endless round, and removes expired ones; `forgotten` is
    /// called with the ENI of each live session in them.
    pub(crate) fn sweep(&mut self, count: usize, expiry: &mut Expiry<'_>, mut forgotten: impl FnMut(EniEpoch)) {
        let mut forget = |connection: &Connection| {
            connection
                .sessions
                .iter()
                .filter(|session| session.is_live())
                .for_each(|session| forgotten(session.epoch()));
        };
        if !self.v4.is_empty() {
            self.v4.sweep(count, expiry, &mut forget);
        }
        if !self.v6.is_empty() {
            self.v6.sweep(count, expiry, &mut forget);
        }
    }

    /// The sessions of `count` places from `place` on. A session keeps its place while it exists.
    pub(crate) fn scan(&self, place: usize, count: usize) -> impl Iterator<Item = Listed<'_>> {
        let (behind, v4_buckets) = (place + count, self.v4.buckets());
        let first_v6 = place.max(v4_buckets);
        let v4 = self
            .v4
            .scan(place, count)
            .map(|(bucket, slot, key, connection)| (bucket, SessionSlot::V4(slot), Key::V4(*key), connection));
        let v6 = self.v6.scan(first_v6 - v4_buckets, behind.saturating_sub(first_v6)).map(
            move |(bucket, slot, key, connection)| {
                (v4_buckets + bucket, SessionSlot::V6(slot), Key::V6(*key), connection)
            },
        );
        v4.chain(v6).flat_map(|(place, slot, key, connection)| {
            let of_session = move |(index, session): (usize, Session)| Listed {
                place,
                slot,
                tuple: key.tuple(connection.protocol, session.is_swapped()),
                connection,
                index,
            };
            connection.sessions().map(of_session)
        })
    }

    /// The number of places in a walk through all sessions.
    pub(crate) fn places(&self) -> usize {
        self.v4.buckets() + self.v6.buckets()
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

    /// The fill level of the fuller table, as a percentage of its intended size.
    pub fn percent(&self) -> usize {
        self.v4.percent().max(self.v6.percent())
    }

    /// The sizes of the tables for IPv4 and IPv6 in memory, bytes.
    pub fn memory_bytes(&self) -> [usize; 2] {
        [self.v4.memory_bytes(), self.v6.memory_bytes()]
    }
}

fn ends_between<K: ConnectionKey>(addresses: [K::Address; 2], salt: u32, secret: [u64; 2]) -> (Key, u64, bool) {
    let (key, swapped) = K::between(addresses);
    (key.any(), key.seed(salt, secret), swapped)
}

fn lowest_score<K: ConnectionKey, W: Ord>(
    table: &mut Table<K>,
    hash: u64,
    eviction_score: impl Fn(&Connection) -> Option<W>,
) -> Option<Slot> {
    let in_the_way = table.in_the_way(hash);
    let scores = in_the_way
        .filter_map(|slot| eviction_score(table.connection(slot)).map(|eviction_score| (eviction_score, slot)));
    scores.min_by(|(one, _), (other, _)| one.cmp(other)).map(|(_, slot)| slot)
}
