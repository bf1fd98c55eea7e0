//! All sessions of one worker: a table for each address family behind one door.

use super::key::{FlowKey, Key, KeyV4, KeyV6};
use super::table::{Slot, Table, TableFull};
use super::{Flow, FlowState};
use crate::headers::Tuple;
use crate::ids::FlowScope;

/// See the module's page.
#[derive(Debug)]
pub struct Sessions {
    v4: Table<KeyV4>,
    v6: Table<KeyV6>,
    secret: [u64; 2],
}

/// The place of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionSlot {
    /// In the table for IPv4.
    V4(Slot),
    /// In the table for IPv6.
    V6(Slot),
}

impl Sessions {
    /// Room for `flows_max` sessions of IPv4, and a quarter of it for IPv6.
    pub fn new(flows_max: usize, secret: [u64; 2]) -> Self {
        Self { v4: Table::new(flows_max, secret), v6: Table::new(flows_max / 4, secret), secret }
    }

    /// The hash under which the other calls expect a key.
    pub fn hash(&self, key: &Key) -> u64 {
        key.hash(self.secret)
    }

    /// Asks the memory for what `find` will read first.
    pub fn prefetch(&self, key: &Key, hash: u64) {
        match key {
            Key::V4(_) => self.v4.prefetch(hash),
            Key::V6(_) => self.v6.prefetch(hash),
        }
    }

    /// Where the session with this key is.
    pub fn find(&self, key: &Key, hash: u64) -> Option<SessionSlot> {
        match key {
            Key::V4(key) => self.v4.find(key, hash).map(SessionSlot::V4),
            Key::V6(key) => self.v6.find(key, hash).map(SessionSlot::V6),
        }
    }

    /// Makes room for a session that is not here.
    ///
    /// # Errors
    /// [`TableFull`] where there is none.
    pub fn insert(&mut self, key: Key, hash: u64, flow: Flow) -> Result<SessionSlot, TableFull> {
        match key {
            Key::V4(key) => self.v4.insert(key, hash, flow).map(SessionSlot::V4),
            Key::V6(key) => self.v6.insert(key, hash, flow).map(SessionSlot::V6),
        }
    }

    /// Forgets a session.
    pub fn remove(&mut self, slot: SessionSlot) {
        match slot {
            SessionSlot::V4(slot) => self.v4.remove(slot),
            SessionSlot::V6(slot) => self.v6.remove(slot),
        }
    }

    /// A session.
    pub fn flow(&self, slot: SessionSlot) -> &Flow {
        match slot {
            SessionSlot::V4(slot) => self.v4.flow(slot),
            SessionSlot::V6(slot) => self.v6.flow(slot),
        }
    }

    /// A session, to be changed.
    pub fn flow_mut(&mut self, slot: SessionSlot) -> &mut Flow {
        match slot {
            SessionSlot::V4(slot) => self.v4.flow_mut(slot),
            SessionSlot::V6(slot) => self.v6.flow_mut(slot),
        }
    }

    /// Looks at the next `count` records of each table, in an endless round, and forgets the sessions that `is_over`
    /// says are over; `forgotten` hears of each.
    pub fn sweep(
        &mut self,
        count: usize,
        is_over: impl Fn(FlowScope, &Flow) -> bool,
        mut forgotten: impl FnMut(FlowScope, FlowState),
    ) {
        sweep_table(&mut self.v4, count, &is_over, &mut forgotten);
        sweep_table(&mut self.v6, count, &is_over, &mut forgotten);
    }

    /// All sessions: the ENI, the opener's tuple, and the rest.
    pub fn iter(&self) -> impl Iterator<Item = (FlowScope, Tuple, &Flow)> {
        let v4 = self.v4.iter().map(|(key, flow)| (key.scope(), key.tuple(flow.is_swapped()), flow));
        let v6 = self.v6.iter().map(|(key, flow)| (key.scope(), key.tuple(flow.is_swapped()), flow));
        v4.chain(v6)
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there is no session.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many sessions there is room for.
    pub fn capacity(&self) -> usize {
        self.v4.capacity() + self.v6.capacity()
    }
}

fn sweep_table<K: FlowKey>(
    table: &mut Table<K>,
    count: usize,
    is_over: &impl Fn(FlowScope, &Flow) -> bool,
    forgotten: &mut impl FnMut(FlowScope, FlowState),
) {
    if table.is_empty() {
        return;
    }
    for slot in table.sweep(count) {
        let Some(scope) = table.key(slot).map(FlowKey::scope) else { continue };
        let state = table.flow(slot).state;
        if is_over(scope, table.flow(slot)) {
            table.remove(slot);
            forgotten(scope, state);
        }
    }
}
