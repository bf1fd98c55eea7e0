//! Which rules name a peer: a row for all sets that it is in, and what stands in for a row that is not made.

use super::SetId;
use super::rows::{RowMatrix, row_bytes, set_bit};
use crate::desired::Direction;
use crate::snapshot::Class;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
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

    /// Whether other rules name the same sets.
    pub(super) fn names_the_same(&self, other: &Self) -> bool {
        self.sets == other.sets
    }

    /// The rows of these sets, each given by places among those that rules name.
    fn rows(&self, rows: &[Box<[u32]>]) -> RowMatrix {
        let words = row_bytes(self.rules.len()) / size_of::<u64>();
        let mut bits = vec![0; rows.len() * words];
        for (number, places) in rows.iter().enumerate() {
            let row = &mut bits[number * words..(number + 1) * words];
            for &place in places {
                self.at(place as usize).iter().for_each(|&rule| set_bit(row, rule as usize));
            }
        }
        RowMatrix::new(words, bits)
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.sets) + size_of_val(&*self.ends) + size_of_val(&*self.rules)
    }
}

/// What is known of all sets that addresses were in together when this was made, as far as there was room for it.
#[derive(Debug, Default)]
pub(super) struct ClassRows {
    numbers: Arc<Numbers>,
    /// Rows of ingress, and of egress.
    matrices: [RowMatrix; 2],
}

/// Which row belongs to which sets: the same for all rules that name the same sets, whatever they are.
#[derive(Debug, Default)]
struct Numbers {
    entries: Box<[Entry]>,
    /// The sets of each row of ingress and of egress, as places among those that rules name.
    rows: [Box<[Box<[u32]>]>; 2],
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
        let entries = &self.numbers.entries;
        Some([entries.get(class.around.0 as usize)?, entries.get(class.own.0 as usize)?])
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
        let mut makers = sides.map(|of_sets| RowNumbers::new(of_sets, bytes_max));
        let entries_max = bytes_max / size_of::<Entry>();
        let entry = |sets: &[SetId]| Entry {
            rows: [0, 1].map(|side| makers[side].row_of(sets)),
            open_group: open_group(sets).unwrap_or(NO_GROUP),
        };
        let entries: Box<[Entry]> = all.take(entries_max).map(entry).collect();
        let is_full = entries.len() == entries_max;
        let rows = makers.map(|maker| maker.rows.into());
        Self::of_numbers(Arc::new(Numbers { entries, rows, is_full }), sides)
    }

    fn of_numbers(numbers: Arc<Numbers>, sides: [&RulesOfSets; 2]) -> Self {
        let matrices = [0, 1].map(|side| sides[side].rows(&numbers.rows[side]));
        Self { numbers, matrices }
    }

    /// The same for other rules that name the same sets.
    pub(super) fn with_rules(&self, sides: [&RulesOfSets; 2]) -> Self {
        Self::of_numbers(Arc::clone(&self.numbers), sides)
    }

    /// How many sets of sets were there when this was made; none if there was not room for more.
    pub(super) fn known(&self) -> Option<usize> {
        (!self.numbers.is_full).then_some(self.numbers.entries.len())
    }

    pub(super) fn bytes(&self) -> usize {
        let rows = self.numbers.rows.iter().flat_map(|rows| rows.iter());
        let sets: usize = rows.map(|sets| size_of_val(sets) + size_of_val(&**sets)).sum();
        size_of_val(&*self.numbers.entries) + sets + self.matrices.iter().map(RowMatrix::bytes).sum::<usize>()
    }
}

/// Numbers rows in one direction.
struct RowNumbers {
    /// The place of each set among those that rules name, by its number.
    places: Vec<u32>,
    rows_max: usize,
    /// The sets of each row. Different sets are named by different rules, so no two rows are equal.
    rows: Vec<Box<[u32]>>,
    numbers: HashMap<Box<[u32]>, u32>,
    /// The row without a set, which most classes have: known without a look.
    empty: Option<u32>,
    named: Vec<u32>,
}

impl RowNumbers {
    fn new(of_sets: &RulesOfSets, bytes_max: usize) -> Self {
        let mut places = vec![NOT_MADE; of_sets.sets.last().map_or(0, |last| last.0 as usize + 1)];
        for (place, set) in of_sets.sets.iter().enumerate() {
            places[set.0 as usize] = place as u32;
        }
        let rows_max = bytes_max / row_bytes(of_sets.rules.len()).max(1);
        Self { places, rows_max, rows: Vec::new(), numbers: HashMap::new(), empty: None, named: Vec::new() }
    }

    /// The number of the row of these sets.
    fn row_of(&mut self, sets: &[SetId]) -> u32 {
        self.named.clear();
        let places = sets.iter().filter_map(|set| self.places.get(set.0 as usize).copied());
        self.named.extend(places.filter(|place| *place != NOT_MADE));
        let known = if self.named.is_empty() { self.empty } else { self.numbers.get(&*self.named).copied() };
        if let Some(number) = known {
            return number;
        }
        if self.rows.len() >= self.rows_max {
            return NOT_MADE;
        }
        let number = self.rows.len() as u32;
        self.rows.push(self.named.as_slice().into());
        if self.named.is_empty() {
            self.empty = Some(number);
        } else {
            self.numbers.insert(self.named.as_slice().into(), number);
        }
        number
    }
}
