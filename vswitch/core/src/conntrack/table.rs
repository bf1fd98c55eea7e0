//! One worker's connections of one address family: a hash table in a fixed array of records.
//!
//! The first part of the array is the *buckets*, each a single record that a hash selects. Connections that share a
//! bucket are chained through the second part, which is two fifths as large: as many as collide by chance if there are
//! as many connections as buckets, and some to spare. Only the sweep moves records, so a slot is valid until then. What
//! few packets touch is stored in a second array with the same indexes.

mod guess;
mod sweep;

use crate::config::ids::EniEpoch;
use crate::config::limits::{EVICTION_CANDIDATES, FLOW_CHAIN_MAX};
use crate::conntrack::key::{ConnectionKey, KeyV4, KeyV6};
use crate::conntrack::slot::{Slot, Trace};
use crate::conntrack::state::ConnectionState;
use crate::conntrack::{Connection, Origin, Session};
use alloc::vec::Vec;
use core::iter::successors;
use core::mem::offset_of;

/// The table has no room for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFull;

/// Receives the address and size in bytes of a large array before anything is written to it.
pub type MemoryAdvice<'a> = &'a dyn Fn(usize, usize);

/// One cache line for an IPv4 connection, two for an IPv6 one.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
struct ConnectionRecord<K> {
    key: K,
    connection: Connection,
}

impl<K: ConnectionKey> ConnectionRecord<K> {
    #[inline(always)]
    fn is_of(&self, key: &K, protocol: u8) -> bool {
        self.key == *key && self.connection.protocol == protocol
    }
}

/// About the size of a core's private cache.
const CACHE_BYTES: usize = 2 << 20;

/// The connections of this many records are counted together, so that the sweep can skip segments without any.
const SEGMENT_RECORDS: usize = 1024;

/// A table of connections. See the module's page.
#[derive(Debug)]
pub struct Table<K> {
    records: Vec<ConnectionRecord<K>>,
    origins: Vec<Origin>,
    buckets: u32,
    /// The index of the first free record of the second part plus one; free records are linked by `next`.
    free: u32,
    live: u32,
    /// The number of connections in each segment of the records.
    live_in_segments: Vec<u16>,
    /// Where the sweep continues.
    sweep_at: u32,
    /// Where the search for a connection to evict continues, in the second part.
    evict_at: u32,
}

impl<K: ConnectionKey> Table<K> {
    /// A table for `flows_max` connections, at least one.
    pub fn new(flows_max: usize, advice: MemoryAdvice<'_>) -> Self {
        let buckets = flows_max.clamp(1, (u32::MAX / 2) as usize) as u32;
        let total = (buckets + buckets / 5 * 2 + 1) as usize;
        let mut records = room_for::<ConnectionRecord<K>>(total, advice);
        for (position, record) in records.iter_mut().enumerate().skip(buckets as usize) {
            record.connection.next = position as u32 + 2;
        }
        if let Some(last) = records.last_mut() {
            last.connection.next = 0;
        }
        Self {
            records,
            origins: room_for(total, advice),
            buckets,
            free: buckets + 1,
            live: 0,
            live_in_segments: alloc::vec![0; total.div_ceil(SEGMENT_RECORDS)],
            sweep_at: 0,
            evict_at: 0,
        }
    }

    /// The bucket of a key with this hash. Prefetches what is read there first.
    #[inline]
    pub fn prefetch(&self, hash: u64) -> Slot {
        let bucket = self.bucket(hash);
        let record = &self.records[bucket as usize];
        crate::hw::prefetch::prefetch(record);
        if size_of::<ConnectionRecord<K>>() > 64 {
            crate::hw::prefetch::prefetch(&record.connection.edges);
        }
        Slot(bucket)
    }

    /// Whether the records exceed a core's private cache, so that walking a chain costs as much as a packet.
    #[inline]
    pub(crate) fn is_far(&self) -> bool {
        size_of_val(&*self.records) > CACHE_BYTES
    }

    /// Prefetches what opening a connection in this bucket writes besides the record.
    #[inline]
    pub(crate) fn prefetch_origin(&self, bucket: Slot) {
        if let Some(origin) = self.origins.get(bucket.0 as usize) {
            crate::hw::prefetch::prefetch(origin);
        }
    }

    /// The record with this key in which `epoch` has a session.
    #[inline]
    pub fn find(&self, key: &K, protocol: u8, epoch: EniEpoch, hash: u64) -> Option<Slot> {
        // A free record has no session of any ENI.
        self.first_in_chain(hash, |record| record.is_of(key, protocol) && record.connection.place_of(epoch).is_some())
    }

    /// A record with this key, whichever ENIs have sessions in it; `guess` is looked at first.
    #[inline(always)]
    pub(crate) fn find_any(&self, key: &K, protocol: u8, (hash, guess): (u64, Slot)) -> Option<Slot> {
        let is_live = |record: &ConnectionRecord<K>| {
            record.is_of(key, protocol) && record.connection.state != ConnectionState::Free
        };
        if is_live(&self.records[guess.0 as usize]) { Some(guess) } else { self.first_in_chain(hash, is_live) }
    }

    /// Where a connection can be found later, whatever happens to it in between: its bucket and ports.
    #[inline(always)]
    pub(crate) fn trace_of(&self, key: &K, hash: u64) -> Trace {
        Trace { bucket: self.bucket(hash), ports: key.ports() }
    }

    /// The trace of the connection at a slot.
    pub(crate) fn trace_at(&self, slot: Slot) -> Trace {
        Trace { bucket: self.origins[slot.0 as usize].bucket, ports: self.records[slot.0 as usize].key.ports() }
    }

    /// Prefetches what [`Table::find_trace`] reads first.
    pub(crate) fn prefetch_trace(&self, trace: Trace) {
        if let Some(record) = self.records.get(trace.bucket as usize) {
            crate::hw::prefetch::prefetch(record);
        }
    }

    /// The connection from which a trace was taken, if `epoch` has a session in it.
    pub(crate) fn find_trace(&self, trace: Trace, epoch: EniEpoch) -> Option<Slot> {
        let mut position = trace.bucket;
        loop {
            let record = self.records.get(position as usize)?;
            if record.key.ports() == trace.ports && record.connection.place_of(epoch).is_some() {
                return Some(Slot(position));
            }
            position = record.connection.next.checked_sub(1)?;
        }
    }

    /// A record with this key for which `is_it` holds.
    pub(crate) fn find_by(
        &self,
        key: &K,
        (protocol, hash): (u8, u64),
        is_it: impl Fn(&Connection, &Origin) -> bool,
    ) -> Option<Slot> {
        let following = |place: &u32| self.records[*place as usize].connection.next.checked_sub(1);
        let mut chain = successors(Some(self.bucket(hash)), following);
        let is_wanted = |place: &u32| {
            let record = &self.records[*place as usize];
            let is_live = record.is_of(key, protocol) && record.connection.state != ConnectionState::Free;
            is_live && is_it(&record.connection, &self.origins[*place as usize])
        };
        chain.find(is_wanted).map(Slot)
    }

    #[inline]
    fn first_in_chain(&self, hash: u64, is_it: impl Fn(&ConnectionRecord<K>) -> bool) -> Option<Slot> {
        let mut position = self.bucket(hash);
        loop {
            let record = &self.records[position as usize];
            if is_it(record) {
                return Some(Slot(position));
            }
            position = record.connection.next.checked_sub(1)?;
        }
    }

    /// Stores a record in a free slot, or in that of a connection that `is_over`, whose sessions are returned as well.
    /// Other ENIs may have records with the same key.
    ///
    /// # Errors
    /// [`TableFull`] if no record is free or the chain is as long as it may be.
    #[inline(always)]
    pub fn insert(
        &mut self,
        (key, hash): (K, u64),
        (connection, origin): (Connection, Origin),
        is_over: impl Fn(&Connection) -> bool,
    ) -> Result<(Slot, [Session; 2]), TableFull> {
        let bucket = self.bucket(hash);
        let position = self.place_for(bucket, is_over)?;
        let record = &mut self.records[position as usize];
        let (next, ended) = (record.connection.next, record.connection.sessions);
        if record.connection.state == ConnectionState::Free {
            self.live += 1;
            self.live_in_segments[position as usize / SEGMENT_RECORDS] += 1;
        }
        *record = ConnectionRecord { key, connection: Connection { next, ..connection } };
        self.origins[position as usize] = Origin { bucket, ..origin };
        Ok((Slot(position), ended))
    }

    /// Where to put the next connection of a bucket.
    #[inline]
    fn place_for(&mut self, bucket: u32, is_over: impl Fn(&Connection) -> bool) -> Result<u32, TableFull> {
        let mut position = bucket;
        for _ in 0..FLOW_CHAIN_MAX {
            let connection = &self.records[position as usize].connection;
            if connection.state == ConnectionState::Free || is_over(connection) {
                return Ok(position);
            }
            let Some(next) = connection.next.checked_sub(1) else { return self.append(position) };
            position = next;
        }
        if is_over(&self.records[position as usize].connection) { Ok(position) } else { Err(TableFull) }
    }

    /// The connections of which one must go before there is room for another with this hash: those in its chain and,
    /// unless the chain is too long, the next few of an endless round.
    pub fn in_the_way(&mut self, hash: u64) -> impl Iterator<Item = Slot> + use<K> {
        let mut chain = [None; FLOW_CHAIN_MAX + 1];
        let mut at = Some(self.bucket(hash));
        for link in &mut chain {
            *link = at.map(Slot);
            at = at.and_then(|at| self.records[at as usize].connection.next.checked_sub(1));
        }
        let (first, second_part) = (self.buckets, self.records.len() as u32 - self.buckets);
        let is_long = chain.iter().all(Option::is_some);
        let count = if self.free == 0 && !is_long { (EVICTION_CANDIDATES as u32).min(second_part) } else { 0 };
        let start = self.evict_at;
        self.evict_at = (start + count) % second_part;
        let others = (0..count).map(move |step| Slot(first + (start + step) % second_part));
        chain.into_iter().flatten().chain(others)
    }

    /// Removes a connection.
    pub fn remove(&mut self, slot: Slot) {
        let record = &mut self.records[slot.0 as usize];
        if record.connection.state == ConnectionState::Free {
            return;
        }
        record.connection.state = ConnectionState::Free;
        record.connection.sessions = Default::default();
        self.live -= 1;
        self.live_in_segments[slot.0 as usize / SEGMENT_RECORDS] -= 1;
        if slot.0 >= self.buckets {
            self.unlink(slot.0);
        }
    }

    /// For the sweep: fills an empty bucket from its chain. Returns whether there was a connection to move.
    pub fn refill(&mut self, slot: Slot) -> bool {
        let bucket = self.records[slot.0 as usize].connection;
        let is_empty_home = slot.0 < self.buckets && bucket.state == ConnectionState::Free;
        let (true, Some(position)) = (is_empty_home, bucket.next.checked_sub(1)) else { return false };
        self.records[slot.0 as usize] = self.records[position as usize];
        self.origins[slot.0 as usize] = self.origins[position as usize];
        self.records[position as usize].connection = Connection { next: self.free, ..Connection::default() };
        self.free = position + 1;
        self.live_in_segments[slot.0 as usize / SEGMENT_RECORDS] += 1;
        self.live_in_segments[position as usize / SEGMENT_RECORDS] -= 1;
        true
    }

    /// A connection.
    #[inline]
    pub fn connection(&self, slot: Slot) -> &Connection {
        &self.records[slot.0 as usize].connection
    }

    /// A connection, mutable.
    #[inline]
    pub fn connection_mut(&mut self, slot: Slot) -> &mut Connection {
        &mut self.records[slot.0 as usize].connection
    }

    /// The separately stored part of a connection.
    pub fn origin(&self, slot: Slot) -> &Origin {
        &self.origins[slot.0 as usize]
    }

    /// The separately stored part of a connection, mutable.
    pub fn origin_mut(&mut self, slot: Slot) -> &mut Origin {
        &mut self.origins[slot.0 as usize]
    }

    /// The number of buckets.
    pub fn buckets(&self) -> usize {
        self.buckets as usize
    }

    /// The connections of `count` buckets from `bucket` on, which may be past the end, each with its bucket. A
    /// connection keeps its bucket as long as it exists, wherever the sweep moves its record.
    pub fn scan(&self, bucket: usize, count: usize) -> impl Iterator<Item = (usize, Slot, &K, &Connection)> {
        let buckets = bucket..bucket.saturating_add(count).min(self.buckets());
        let following = |place: &usize| Some(self.records[*place].connection.next.checked_sub(1)? as usize);
        let places =
            buckets.flat_map(move |bucket| successors(Some(bucket), following).map(move |place| (bucket, place)));
        let live = places.filter(|(_, place)| self.records[*place].connection.state != ConnectionState::Free);
        live.map(|(bucket, place)| {
            let record = &self.records[place];
            (bucket, Slot(place as u32), &record.key, &record.connection)
        })
    }

    /// The key at a slot, if there is a connection.
    pub fn key(&self, slot: Slot) -> Option<&K> {
        let record = &self.records[slot.0 as usize];
        (record.connection.state != ConnectionState::Free).then_some(&record.key)
    }

    /// All connections.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &Connection, &Origin)> {
        let live = self
            .records
            .iter()
            .zip(&self.origins)
            .filter(|(record, _)| record.connection.state != ConnectionState::Free);
        live.map(|(record, origin)| (&record.key, &record.connection, origin))
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.live as usize
    }

    /// Whether there is no connection.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// How many connections there is room for.
    pub fn capacity(&self) -> usize {
        self.records.len()
    }

    /// The fill level, as a percentage of the intended size. Collisions leave room for little more than 100.
    pub fn percent(&self) -> usize {
        100 * self.live as usize / self.buckets as usize
    }

    /// The size of the table in memory, bytes.
    pub fn memory_bytes(&self) -> usize {
        self.records.len() * (size_of::<ConnectionRecord<K>>() + size_of::<Origin>())
    }

    #[inline]
    fn bucket(&self, hash: u64) -> u32 {
        ((hash as u128 * self.buckets as u128) >> 64) as u32
    }

    /// Takes a free record of the second part and appends it to the chain whose last record is at `position`.
    fn append(&mut self, position: u32) -> Result<u32, TableFull> {
        let free = self.free.checked_sub(1).ok_or(TableFull)?;
        self.free = self.records[free as usize].connection.next;
        if let Some(next_free) = self.free.checked_sub(1) {
            // The next collision will need this record.
            crate::hw::prefetch::prefetch(&self.records[next_free as usize]);
            crate::hw::prefetch::prefetch(&self.origins[next_free as usize]);
        }
        self.records[free as usize].connection.next = 0;
        self.records[position as usize].connection.next = free + 1;
        Ok(free)
    }

    /// Removes a record of the second part from its chain and frees it.
    fn unlink(&mut self, position: u32) {
        let mut before = self.origins[position as usize].bucket;
        while let Some(next) = self.records[before as usize].connection.next.checked_sub(1) {
            if next == position {
                self.records[before as usize].connection.next = self.records[position as usize].connection.next;
                self.records[position as usize].connection.next = self.free;
                self.free = position + 1;
                return;
            }
            before = next;
        }
    }
}

/// An array of default values. `advice` gets its address before it is written.
fn room_for<T: Clone + Default>(count: usize, advice: MemoryAdvice<'_>) -> Vec<T> {
    let mut array = Vec::with_capacity(count);
    let room = array.spare_capacity_mut();
    advice(room.as_ptr().addr(), size_of_val(room));
    array.resize(count, T::default());
    array
}

const _: () = assert!(size_of::<ConnectionRecord<KeyV4>>() == 64, "an IPv4 connection is one cache line");
const _: () = assert!(SEGMENT_RECORDS <= u16::MAX as usize);
const _: () = assert!(size_of::<ConnectionRecord<KeyV6>>() == 128, "an IPv6 connection is two cache lines");
const _: () = assert!(offset_of!(ConnectionRecord<KeyV6>, connection.packets) == 64, "the first to find it");

/// The version of the memory layout, in which records refer to each other by index, not by address. Whatever keeps or
/// passes on a table beyond the process that made it has to compare this number.
pub const LAYOUT_VERSION: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::desired::{Direction, Settings};
    use crate::conntrack::Expiry;
    use crate::conntrack::key::{Key, key_of};
    use crate::conntrack::slot::Slot;
    use crate::hw::time::Tick;
    use crate::packet::headers::{Addresses, Tuple};
    use crate::packet::verdict::Stage;

    #[test]
    fn a_layout_has_a_version_of_its_own() {
        let layout = [
            offset_of!(ConnectionRecord<KeyV4>, connection),
            offset_of!(ConnectionRecord<KeyV6>, connection),
            offset_of!(Connection, protocol),
            offset_of!(Connection, state),
            offset_of!(Connection, timeouts),
            offset_of!(Connection, sessions),
            offset_of!(Connection, last_seen),
            offset_of!(Connection, next),
            offset_of!(Connection, packets),
            offset_of!(Connection, bytes_low),
            offset_of!(Connection, edges),
            offset_of!(Origin, opened_at),
            offset_of!(Origin, grounds),
            offset_of!(Origin, bytes_high),
            offset_of!(Origin, scales),
            offset_of!(Origin, bucket),
        ];
        let versions = [(2, [12, 36, 0, 1, 2, 4, 20, 24, 28, 36, 44, 0, 4, 12, 18, 20])];
        assert_eq!(versions.last(), Some(&(LAYOUT_VERSION, layout)), "a new layout needs a new version");
    }

    const SECRET: [u64; 2] = [0x1234_5678_9abc_def1, 0xfedc_ba98_7654_3211];
    const SCOPE: EniEpoch = EniEpoch(1);
    const UDP: u8 = 17;

    fn key(number: u32) -> KeyV4 {
        let addresses = Addresses::V4 { source: number, destination: 7 };
        let tuple = Tuple::of_connection(addresses, 6, [1, 2]);
        match key_of(&tuple).0 {
            Key::V4(key) => key,
            Key::V6(_) => unreachable!(),
        }
    }

    fn connection(number: u32) -> Connection {
        let sessions = [Session::new((SCOPE, 1), Direction::Egress, false, Stage::Rule), Session::default()];
        Connection {
            protocol: UDP,
            state: ConnectionState::Udp,
            last_seen: Tick(number),
            sessions,
            ..Connection::default()
        }
    }

    fn hash(key: &KeyV4) -> u64 {
        key.hash(UDP, 0, SECRET)
    }

    fn insert(table: &mut Table<KeyV4>, key: KeyV4, connection: Connection) -> Result<Slot, TableFull> {
        let (slot, ended) = table.insert((key, hash(&key)), (connection, Origin::default()), |_| false)?;
        assert_eq!(ended, [Session::default(); 2]);
        Ok(slot)
    }

    fn no_advice(_: usize, _: usize) {}

    #[test]
    fn behaves_like_a_map_under_churn() {
        let mut table = Table::new(64, &no_advice);
        let mut model = alloc::collections::BTreeMap::new();
        let mut random = 1u64;
        for step in 0..if cfg!(miri) { 500u32 } else { 20_000 } {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let number = (random >> 33) as u32 % 100;
            let (key, hash) = (key(number), hash(&key(number)));
            match table.find(&key, UDP, SCOPE, hash) {
                Some(slot) => {
                    assert_eq!(model.get(&number), Some(&table.connection(slot).last_seen.0), "step {step}");
                    if random & 1 == 0 {
                        table.remove(slot);
                        model.remove(&number);
                    }
                }
                None => {
                    assert!(!model.contains_key(&number), "step {step}");
                    if insert(&mut table, key, connection(step)).is_ok() {
                        model.insert(number, step);
                    }
                }
            }
            assert_eq!(table.len(), model.len());
        }
        assert_eq!(table.iter().count(), model.len());
    }

    #[test]
    fn a_full_table_refuses_and_recovers() {
        let mut table = Table::new(4, &no_advice);
        let mut slots = Vec::new();
        for number in 0..1000 {
            let key = key(number);
            if let Ok(slot) = insert(&mut table, key, connection(number)) {
                slots.push(slot);
            }
        }
        assert_eq!(table.len(), table.capacity());
        for slot in slots {
            table.remove(slot);
        }
        assert!(table.is_empty());
        let key = key(5000);
        assert!(insert(&mut table, key, connection(1)).is_ok());
    }

    #[test]
    fn what_is_over_gives_its_record_to_the_next_of_its_home() {
        let mut table = Table::new(1, &no_advice);
        let old = (0..4).filter(|&number| insert(&mut table, key(number), connection(number)).is_ok()).count();
        assert_eq!((old, table.len()), (2, 2), "a home, and one chained to it");
        for (number, is_over) in [(10, 1), (11, 0)] {
            let key = key(number);
            let placed = table.insert((key, hash(&key)), (connection(number), Origin::default()), |connection| {
                connection.last_seen.0 == is_over
            });
            let (slot, ended) = placed.expect("one of them is over");
            assert_eq!(ended, connection(is_over).sessions);
            assert_eq!(table.find(&key, UDP, SCOPE, hash(&key)), Some(slot));
            assert_eq!(table.find(&self::key(is_over), UDP, SCOPE, hash(&self::key(is_over))), None);
        }
        assert_eq!(table.len(), 2);
        assert_eq!(insert(&mut table, key(12), connection(12)), Err(TableFull));
    }

    #[test]
    fn a_walk_meets_every_connection_once_though_the_sweep_moves_them() {
        let mut table = Table::new(64, &no_advice);
        let all = (0..80).filter(|&number| insert(&mut table, key(number), connection(number)).is_ok());
        let all: Vec<u32> = all.collect();
        let (mut met, mut moved) = (Vec::new(), 0);
        for bucket in (0..table.buckets()).step_by(4) {
            let some: Vec<_> =
                table.scan(bucket, 4).map(|(_, slot, _, connection)| (slot, connection.last_seen.0)).collect();
            met.extend(some.iter().map(|(_, number)| *number));
            some.iter().step_by(2).for_each(|(slot, _)| table.remove(*slot));
            moved += (0..table.buckets() as u32).filter(|&bucket| table.refill(Slot(bucket))).count();
        }
        met.sort_unstable();
        assert_eq!(met, all);
        assert!(moved > 0);
    }

    #[test]
    fn the_sweep_comes_to_every_record() {
        let mut table: Table<KeyV4> = Table::new(10, &no_advice);
        for number in 0..1000 {
            let _full = insert(&mut table, key(number), connection(number));
        }
        assert_eq!(table.len(), table.capacity());
        let (settings, mut seen) = (Settings::default(), Vec::new());
        for _ in 0..table.capacity() {
            let before = seen.len();
            let mut expiry = Expiry::at(Tick(100_000), &settings);
            table.sweep(3, &mut expiry, &mut |connection| seen.push(connection.last_seen.0));
            assert!(seen.len() >= before + 3 || table.is_empty());
        }
        assert!(table.is_empty());
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), table.capacity());
    }
}
