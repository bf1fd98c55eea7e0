//! The fates of first fragments, for those that follow: an IP packet in parts is judged once, by the part that has the
//! transport header (`semantics.md` §2).

use crate::headers::{Addresses, Headers, Tuple};
use crate::ids::FlowScope;
use crate::limits::FRAGMENT_FATES_MAX;
use crate::time::Tick;
use crate::verdict::Judgement;
use alloc::collections::VecDeque;
use hashbrown::HashMap;

/// How long a receiver waits for the parts of a packet at most, seconds (RFC 8200 §4.5 says 60, kernels use 30).
const TIMEOUT_S: u32 = 30;

/// Which IP packet at which ENI. Its parts share addresses and an identification; IPv4 tells packets of different
/// protocols apart as well (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FragmentKey {
    scope: FlowScope,
    addresses: Addresses,
    id: u32,
    protocol: u8,
}

impl FragmentKey {
    /// The key of the IP packet that a fragment is of.
    pub(crate) const fn of(scope: FlowScope, headers: &Headers) -> Self {
        let tuple = &headers.tuple;
        let protocol = match tuple.addresses {
            Addresses::V4 { .. } => tuple.protocol,
            Addresses::V6 { .. } => 0,
        };
        Self { scope, addresses: tuple.addresses, id: headers.fragment_id, protocol }
    }
}

/// What became of a first fragment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fate {
    /// The ENI's policy revision that judged it.
    pub(crate) revision: u32,
    pub(crate) judgement: Judgement,
    /// What it was, for those that judge it again: later parts do not show it.
    pub(crate) first: Tuple,
    seen: Tick,
}

impl Fate {
    /// The fate of the packet with the tuple `first`, judged at `seen`.
    pub(crate) const fn new(judgement: Judgement, revision: u32, first: Tuple, seen: Tick) -> Self {
        Self { revision, judgement, first, seen }
    }

    const fn is_over(&self, now: Tick) -> bool {
        self.seen.is_older_than(TIMEOUT_S, now)
    }
}

/// The fates that one worker remembers. They all last equally long, so the oldest are the first to be over.
#[derive(Debug)]
pub(crate) struct Fragments {
    fates: HashMap<FragmentKey, Fate>,
    /// In the order in which they came; those that were replaced stand here again.
    order: VecDeque<(FragmentKey, Tick)>,
}

impl Fragments {
    /// Room for as many as may be, made once.
    pub(crate) fn new() -> Self {
        Self {
            fates: HashMap::with_capacity(FRAGMENT_FATES_MAX),
            order: VecDeque::with_capacity(2 * FRAGMENT_FATES_MAX),
        }
    }

    /// The fate of the packet's first fragment, if it came and is not over.
    pub(crate) fn find(&self, key: &FragmentKey, now: Tick) -> Option<&Fate> {
        self.fates.get(key).filter(|fate| !fate.is_over(now))
    }

    /// Forgets a fate; whether it was there.
    pub(crate) fn remove(&mut self, key: &FragmentKey) -> bool {
        self.fates.remove(key).is_some()
    }

    /// Remembers a fate that is not there yet; whether there was room.
    pub(crate) fn insert(&mut self, key: FragmentKey, fate: Fate) -> bool {
        if self.fates.len() == FRAGMENT_FATES_MAX || self.order.len() == 2 * FRAGMENT_FATES_MAX {
            return false;
        }
        self.order.push_back((key, fate.seen));
        self.fates.insert(key, fate);
        true
    }

    /// Forgets at most `count` of those that are over; `forgotten` hears whose they were.
    pub(crate) fn sweep(&mut self, count: usize, now: Tick, mut forgotten: impl FnMut(FlowScope)) {
        for _ in 0..count {
            let Some(&(key, seen)) = self.order.front() else { return };
            let is_present = self.fates.get(&key).is_some_and(|fate| fate.seen == seen);
            if is_present && !seen.is_older_than(TIMEOUT_S, now) {
                return;
            }
            self.order.pop_front();
            if is_present && self.remove(&key) {
                forgotten(key.scope);
            }
        }
    }
}
