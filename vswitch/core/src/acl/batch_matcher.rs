//! Matches a batch of packets step by step against the rows of an ACL in one direction: each step prefetches what the
//! next one reads. Its decisions are those of [`Acl::decide`](crate::acl::Acl::decide).

use crate::acl::bit_matrix::{BitMatrix, NARROW, WIDE, first_in_piece};
use crate::acl::peer_rows::NOT_MADE;
use crate::acl::port_rows::PortTables;
use crate::acl::rule_set::RuleSet;

use crate::packet::headers::Tuple;
use crate::packet::verdict::Decision;
use crate::tables::address_class::{AddressClass, SetCombinationId};

/// The rows of one direction, by the width of their pieces.
#[derive(Clone, Copy)]
pub(crate) enum BatchMatcher<'a> {
    Narrow(BatchRows<'a, NARROW>),
    Wide(BatchRows<'a, WIDE>),
}

/// Rows in pieces of `WORDS` words.
#[derive(Clone, Copy)]
pub(crate) struct BatchRows<'a, const WORDS: usize> {
    of_classes: &'a [u32],
    peers: &'a [[u64; WORDS]],
    ports: &'a PortTables,
    services: &'a [[u64; WORDS]],
    /// How many pieces a row has.
    pieces: usize,
    rules: &'a RuleSet,
    default: Decision,
}

impl<'a, const WORDS: usize> BatchRows<'a, WORDS> {
    pub(super) fn new(rules: &'a RuleSet, (of_classes, peers): (&'a [u32], &'a BitMatrix), default: Decision) -> Self {
        let (ports, services) = rules.services.rows();
        let ((peers, _), (services, pieces)) = (peers.pieces(), services.pieces());
        Self { of_classes, peers, ports, services, pieces, rules, default }
    }

    /// The index of the first piece of the row for a packet's protocol and ports.
    #[inline(always)]
    pub(crate) fn service(&self, tuple: &Tuple) -> usize {
        let start = self.ports.row(tuple) as usize * self.pieces;
        self.services.get(start).into_iter().for_each(prefetch_piece);
        start
    }

    /// The indexes of the first pieces of the two rows for a peer of this class.
    #[inline(always)]
    pub(crate) fn peer(&self, class: AddressClass) -> [usize; 2] {
        // A class newer than the rows has an index beyond their end and is treated like one without room.
        let start = |sets: SetCombinationId| {
            // No matrix has as many rows as NOT_MADE would need.
            let start = *self.of_classes.get(sets.0 as usize).unwrap_or(&NOT_MADE) as usize * self.pieces;
            self.peers.get(start).into_iter().for_each(prefetch_piece);
            start
        };
        [start(class.by_prefix), start(class.by_host)]
    }

    /// The decision for a packet whose rows begin at these indexes; `None` if one of the rows was not made.
    #[inline(always)]
    pub(crate) fn decide(&self, service: usize, peer: [usize; 2]) -> Option<Decision> {
        let found = match self.first_in(0, service, peer)? {
            // Most decisions fall in the first piece; the loop over the others stays out of the inlined code.
            None if self.pieces > 1 => self.first_after(service, peer),
            found => found,
        };
        Some(self.rules.decision(found, self.default))
    }

    #[inline(always)]
    fn first_in(&self, piece: usize, service: usize, [around, own]: [usize; 2]) -> Option<Option<u32>> {
        let (around, own) = (self.peers.get(around + piece)?, self.peers.get(own + piece)?);
        Some(first_in_piece([around, own], self.services.get(service + piece)?, piece))
    }

    /// The first match in the pieces after the first.
    #[inline(never)]
    fn first_after(&self, service: usize, peer: [usize; 2]) -> Option<u32> {
        (1..self.pieces).find_map(|piece| self.first_in(piece, service, peer)?)
    }
}

/// Prefetches a piece of a row.
#[inline(always)]
fn prefetch_piece<const WORDS: usize>(piece: &[u64; WORDS]) {
    const LINE_WORDS: usize = 8;
    let mut word = 0;
    while word < WORDS {
        crate::hw::prefetch::prefetch(&piece[word]);
        word += LINE_WORDS;
    }
}
