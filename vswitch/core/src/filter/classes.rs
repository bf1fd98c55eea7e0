//! Which rules name a peer: a row for all sets that it is in, and what stands in for a row that is not made.

use super::SetId;
use super::rows::{RowMatrix, row_bytes, set_bit};
use crate::desired::Direction;
use crate::snapshot::Class;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use hashbrown::HashMap;

/// Stands for a row that is not made.
const NOT_MADE: u32 = u32::MAX;

/// The rules that name each set, in their deciding order.
#[derive(Debug, Default, PartialEq)]
pub(super) struct RulesOfSets {
    /// Ascending.
    sets: Box<[SetId]>,
    /// Where the rules of each set end in `rules`.
    ends: Box<[u32]>,
    rules: Box<[u32]>,
}

impl RulesOfSets {
    /// `sets` are those that the rules name, in the order of the rules.
    pub(super) fn new(sets: &[SetId]) -> Self {
        let mut by_set: BTreeMap<SetId, Vec<u32>> = BTreeMap::new();
        for (bit, set) in sets.iter().enumerate() {
            by_set.entry(*set).or_default().push(bit as u32);
        }
        let mut rules = Vec::with_capacity(sets.len());
        let mut ends = Vec::with_capacity(by_set.len());
        for of_set in by_set.values() {
            rules.extend_from_slice(of_set);
            ends.push(rules.len() as u32);
        }
        Self { sets: by_set.into_keys().collect(), ends: ends.into(), rules: rules.into() }
    }

    fn at(&self, place: usize) -> &[u32] {
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.rules[start as usize..self.ends[place] as usize]
    }

    /// The first rule that names one of `sets`, and that `is_true` confirms.
    pub(super) fn first<'a>(
        &self,
        sets: impl Iterator<Item = &'a SetId>,
        is_true: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let mut first = None;
        for place in sets.filter_map(|set| self.sets.binary_search(set).ok()) {
            let rules = self.at(place);
            let better = rules.iter().copied().take_while(|&rule| first.is_none_or(|first| rule < first));
            first = better.into_iter().find(|&rule| is_true(rule)).or(first);
        }
        first
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.sets) + size_of_val(&*self.ends) + size_of_val(&*self.rules)
    }
}

/// What is known of all sets that addresses were in together when this was made, as far as there was room for it.
#[derive(Debug, Default)]
pub(super) struct ClassRows {
    entries: Box<[Entry]>,
    /// Rows of ingress, and of egress.
    matrices: [RowMatrix; 2],
    is_full: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Numbers of the rows of ingress and egress.
    rows: [u32; 2],
    /// The first open group among the sets, as a place among the groups of the filter, or none.
    open_group: u32,
}

/// Stands for no group; greater than any.
const NO_GROUP: u32 = u32::MAX;

impl ClassRows {
    #[inline]
    fn entries(&self, class: Class) -> Option<[&Entry; 2]> {
        Some([self.entries.get(class.around.0 as usize)?, self.entries.get(class.own.0 as usize)?])
    }

    /// The rows of the sets around an address of a class and of its own sets; none if one is not made.
    #[inline]
    pub(super) fn rows(&self, direction: Direction, class: Class) -> Option<[&[u64]; 2]> {
        let side = direction as usize;
        let [around, own] = self.entries(class)?.map(|entry| entry.rows[side]);
        if around == NOT_MADE || own == NOT_MADE {
            return None;
        }
        Some([around, own].map(|number| self.matrices[side].row(number)))
    }

    /// The open group that holds addresses of a class, if one does; none if that is not known.
    #[inline]
    pub(super) fn open_group(&self, class: Class) -> Option<Option<u32>> {
        let [around, own] = self.entries(class)?.map(|entry| entry.open_group);
        let first = around.min(own);
        Some(if first == NO_GROUP { None } else { Some(first) })
    }

    /// Rows for `all`, each given by its sets: of ingress and egress, in at most `bytes_max` each. `open_group` tells the
    /// first open group among some sets.
    pub(super) fn make<'a>(
        sides: [&RulesOfSets; 2],
        all: impl Iterator<Item = &'a [SetId]>,
        open_group: impl Fn(&[SetId]) -> Option<u32>,
        bytes_max: usize,
    ) -> Self {
        let mut makers = sides.map(|of_sets| RowMaker::new(of_sets, bytes_max));
        let entries_max = bytes_max / size_of::<Entry>();
        let entry = |sets: &[SetId]| Entry {
            rows: [0, 1].map(|side| makers[side].row_of(sets)),
            open_group: open_group(sets).unwrap_or(NO_GROUP),
        };
        let entries: Box<[Entry]> = all.take(entries_max).map(entry).collect();
        let is_full = entries.len() == entries_max;
        Self { entries, matrices: makers.map(RowMaker::finish), is_full }
    }

    /// How many sets of sets were there when this was made; none if there was not room for more.
    pub(super) fn known(&self) -> Option<usize> {
        (!self.is_full).then_some(self.entries.len())
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.entries) + self.matrices.iter().map(RowMatrix::bytes).sum::<usize>()
    }
}

/// Makes rows in one direction.
struct RowMaker<'a> {
    of_sets: &'a RulesOfSets,
    /// The place of each set in `of_sets`, by its number.
    places: Vec<u32>,
    words: usize,
    bits: Vec<u64>,
    rows_max: usize,
    /// The rows that are made, by the places of their sets. Different sets of a filter are named by different rules, so
    /// no two of them are equal.
    made: HashMap<Box<[u32]>, u32>,
    named: Vec<u32>,
}

impl<'a> RowMaker<'a> {
    fn new(of_sets: &'a RulesOfSets, bytes_max: usize) -> Self {
        let mut places = vec![NOT_MADE; of_sets.sets.last().map_or(0, |last| last.0 as usize + 1)];
        for (place, set) in of_sets.sets.iter().enumerate() {
            places[set.0 as usize] = place as u32;
        }
        let bytes = row_bytes(of_sets.rules.len());
        let (words, rows_max) = (bytes / size_of::<u64>(), bytes_max / bytes.max(1));
        Self { of_sets, places, words, bits: Vec::new(), rows_max, made: HashMap::new(), named: Vec::new() }
    }

    /// The number of the row of these sets.
    fn row_of(&mut self, sets: &[SetId]) -> u32 {
        self.named.clear();
        let places = sets.iter().filter_map(|set| self.places.get(set.0 as usize).copied());
        self.named.extend(places.filter(|place| *place != NOT_MADE));
        if let Some(&number) = self.made.get(&*self.named) {
            return number;
        }
        let number = self.made.len();
        if number >= self.rows_max {
            return NOT_MADE;
        }
        let start = self.bits.len();
        self.bits.resize(start + self.words, 0);
        for &place in &self.named {
            self.of_sets.at(place as usize).iter().for_each(|&rule| set_bit(&mut self.bits[start..], rule as usize));
        }
        self.made.insert(self.named.as_slice().into(), number as u32);
        number as u32
    }

    fn finish(self) -> RowMatrix {
        RowMatrix::new(self.words, self.bits)
    }
}
