//! Which rules name a peer: a row for each class of addresses, and what stands in for a row that is not made.

use super::SetId;
use super::rows::{RowCollector, RowMatrix, row_bytes, set_bit};
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
#[derive(Debug, Default)]
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

    /// The rules that name one of `sets`, which ascend.
    fn of<'a>(&'a self, sets: &'a [SetId]) -> impl Iterator<Item = &'a [u32]> {
        sets.iter().filter_map(|set| self.sets.binary_search(set).ok()).map(|place| self.at(place))
    }

    /// The first rule that names one of `sets`, which ascend, and that `is_true` confirms.
    pub(super) fn first(&self, sets: &[SetId], is_true: impl Fn(u32) -> bool) -> Option<u32> {
        let mut first = None;
        for rules in self.of(sets) {
            let better = rules.iter().copied().take_while(|&rule| first.is_none_or(|first| rule < first));
            first = better.into_iter().find(|&rule| is_true(rule)).or(first);
        }
        first
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.sets) + size_of_val(&*self.ends) + size_of_val(&*self.rules)
    }
}

/// What is known of each class of addresses that was there when this was made, as far as there was room for it.
#[derive(Debug, Default)]
pub(super) struct ClassRows {
    entries: Box<[ClassEntry]>,
    /// Rows of ingress, and of egress.
    matrices: [RowMatrix; 2],
    is_full: bool,
}

#[derive(Clone, Copy, Debug)]
struct ClassEntry {
    /// Numbers of the rows of ingress and egress.
    rows: [u32; 2],
    /// The open group that holds its addresses, as a place among the groups of the filter, or none.
    open_group: u32,
}

/// Stands for no group.
const NO_GROUP: u32 = u32::MAX;

impl ClassRows {
    /// The row of a class; none if it is not made.
    #[inline]
    pub(super) fn row(&self, direction: Direction, class: Class) -> Option<&[u64]> {
        let side = direction as usize;
        let number = self.entries.get(class.0 as usize)?.rows[side];
        if number == NOT_MADE { None } else { Some(self.matrices[side].row(number)) }
    }

    /// The open group that holds addresses of a class, if one does; none if that is not known.
    #[inline]
    pub(super) fn open_group(&self, class: Class) -> Option<Option<u32>> {
        let group = self.entries.get(class.0 as usize)?.open_group;
        Some(if group == NO_GROUP { None } else { Some(group) })
    }

    /// Rows for `classes`, each given by its sets: of ingress and egress, in at most `bytes_max` each. `open_group` tells
    /// of the sets of a class what [`ClassRows::open_group`] is to know.
    pub(super) fn make<'a>(
        sides: [&RulesOfSets; 2],
        classes: impl Iterator<Item = &'a [SetId]>,
        open_group: impl Fn(&[SetId]) -> Option<u32>,
        bytes_max: usize,
    ) -> Self {
        let mut makers = sides.map(|of_sets| RowMaker::new(of_sets, bytes_max));
        let entries_max = bytes_max / size_of::<ClassEntry>();
        let entry = |sets: &[SetId]| ClassEntry {
            rows: [0, 1].map(|side| makers[side].row_of(sets)),
            open_group: open_group(sets).unwrap_or(NO_GROUP),
        };
        let entries: Box<[ClassEntry]> = classes.take(entries_max).map(entry).collect();
        let is_full = entries.len() == entries_max;
        Self { entries, matrices: makers.map(|maker| maker.rows.finish()), is_full }
    }

    /// How many classes were there when this was made; none if there was not room for more.
    pub(super) fn known(&self) -> Option<usize> {
        (!self.is_full).then_some(self.entries.len())
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.entries) + self.matrices.iter().map(RowMatrix::bytes).sum::<usize>()
    }
}

/// Makes the rows of classes in one direction.
struct RowMaker<'a> {
    of_sets: &'a RulesOfSets,
    /// The place of each set in `of_sets`, by its number.
    places: Vec<u32>,
    rows: RowCollector,
    rows_max: usize,
    /// The rows that are made, by the places of their sets.
    made: HashMap<Vec<u32>, u32>,
    named: Vec<u32>,
}

impl<'a> RowMaker<'a> {
    fn new(of_sets: &'a RulesOfSets, bytes_max: usize) -> Self {
        let mut places = vec![NOT_MADE; of_sets.sets.last().map_or(0, |last| last.0 as usize + 1)];
        for (place, set) in of_sets.sets.iter().enumerate() {
            places[set.0 as usize] = place as u32;
        }
        let rules = of_sets.rules.len();
        let rows_max = bytes_max / row_bytes(rules).max(1);
        Self { of_sets, places, rows: RowCollector::new(rules), rows_max, made: HashMap::new(), named: Vec::new() }
    }

    /// The number of the row of a class with these sets.
    fn row_of(&mut self, sets: &[SetId]) -> u32 {
        self.named.clear();
        let places = sets.iter().filter_map(|set| self.places.get(set.0 as usize).copied());
        self.named.extend(places.filter(|place| *place != NOT_MADE));
        if let Some(&number) = self.made.get(&self.named) {
            return number;
        }
        if self.rows.len() >= self.rows_max {
            return NOT_MADE;
        }
        let mut row = self.rows.empty();
        for &place in &self.named {
            self.of_sets.at(place as usize).iter().for_each(|&rule| set_bit(&mut row, rule as usize));
        }
        let number = self.rows.add(&row);
        self.made.insert(self.named.clone(), number);
        number
    }
}
