//! Which rules name a peer: a row for all sets that it is in, and what stands in for a row that is not made.

use super::SetId;
use super::rows::{RowMatrix, row_bytes, set_bit, words_of};
use crate::desired::Direction;
use crate::snapshot::{Class, SetsId};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use hashbrown::HashMap;

/// Stands for a row that is not made: where it would be lies beyond every matrix.
pub(super) const NOT_MADE: u32 = u32::MAX;
const _: () = assert!(usize::BITS >= 64, "the place of a row that is not made can be told");

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

    /// Every set that a rule names, ascending.
    pub(super) fn sets(&self) -> &[SetId] {
        &self.sets
    }

    /// Whether other rules name the same sets.
    pub(super) fn names_the_same(&self, other: &Self) -> bool {
        self.sets == other.sets
    }

    /// The rows of these sets, each given by places among those that rules name.
    fn rows(&self, rows: &[Box<[u32]>]) -> RowMatrix {
        let words = words_of(self.rules.len());
        RowMatrix::new(words, rows.len(), |bits| {
            for (row, places) in bits.chunks_exact_mut(words.max(1)).zip(rows) {
                places.iter().flat_map(|&place| self.at(place as usize)).for_each(|&rule| set_bit(row, rule as usize));
            }
        })
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
    matrices: [Arc<RowMatrix>; 2],
}

/// Which row belongs to which sets: the same for all rules that name the same sets, whatever they are.
#[derive(Debug, Default)]
struct Numbers {
    /// The row of each class, or [`NOT_MADE`]: of ingress, and of egress.
    of_classes: [Box<[u32]>; 2],
    /// The first open group among the sets of each class, as a place among the groups of the filter, or [`NO_GROUP`].
    /// Empty if no group is open.
    open_groups: Box<[u32]>,
    /// The sets of each row of ingress and of egress, as places among those that rules name.
    rows: [Box<[Box<[u32]>]>; 2],
    is_full: bool,
}

/// Stands for no group; greater than any.
const NO_GROUP: u32 = u32::MAX;
/// Bytes that a class takes beside its rows.
const CLASS_BYTES: usize = 3 * size_of::<u32>();

impl ClassRows {
    /// The row of each class in one direction, or a number that no row has; and the rows.
    pub(super) fn side(&self, direction: Direction) -> (&[u32], &RowMatrix) {
        (&self.numbers.of_classes[direction as usize], &self.matrices[direction as usize])
    }

    /// The rows of the sets around an address of a class and of its own sets; none if one is not made.
    #[inline]
    pub(super) fn rows(&self, direction: Direction, class: Class) -> Option<[&[u64]; 2]> {
        let (of_classes, matrix) = self.side(direction);
        // No matrix has as many rows as NOT_MADE would need.
        let row = |sets: SetsId| matrix.find(*of_classes.get(sets.0 as usize)?);
        Some([row(class.around)?, row(class.own)?])
    }

    /// The open group that holds addresses of a class, if one does; none if that is not known.
    #[inline]
    pub(super) fn open_group(&self, class: Class) -> Option<Option<u32>> {
        let group = |sets: SetsId| self.numbers.open_groups.get(sets.0 as usize).copied();
        let first = group(class.around)?.min(group(class.own)?);
        Some(if first == NO_GROUP { None } else { Some(first) })
    }

    /// Rows for `all`, each given by its sets: of ingress and egress, in at most `bytes_max` each. `open_group` tells the
    /// first open group among some sets, if any group is open.
    pub(super) fn make<'a>(
        sides: [&RulesOfSets; 2],
        all: impl Iterator<Item = &'a [SetId]>,
        open_group: Option<impl Fn(&[SetId]) -> Option<u32>>,
        bytes_max: usize,
    ) -> Self {
        let mut makers = sides.map(|of_sets| RowNumbers::new(of_sets, bytes_max));
        let classes_max = bytes_max / CLASS_BYTES;
        let (mut of_classes, mut open_groups) = ([Vec::new(), Vec::new()], Vec::new());
        for sets in all.take(classes_max) {
            for (maker, of_classes) in makers.iter_mut().zip(&mut of_classes) {
                of_classes.push(maker.row_of(sets));
            }
            if let Some(open_group) = &open_group {
                open_groups.push(open_group(sets).unwrap_or(NO_GROUP));
            }
        }
        let is_full = of_classes[0].len() == classes_max;
        let (of_classes, rows) = (of_classes.map(Into::into), makers.map(|maker| maker.rows.into()));
        let numbers = Numbers { of_classes, open_groups: open_groups.into(), rows, is_full };
        let matrices = [0, 1].map(|side| Arc::new(sides[side].rows(&numbers.rows[side])));
        Self { numbers: Arc::new(numbers), matrices }
    }

    /// The same for other rules that name the same sets, in those directions where there are some.
    pub(super) fn with_rules(&self, sides: [Option<&RulesOfSets>; 2]) -> Self {
        let matrix = |side: usize| match sides[side] {
            Some(of_sets) => Arc::new(of_sets.rows(&self.numbers.rows[side])),
            None => Arc::clone(&self.matrices[side]),
        };
        Self { numbers: Arc::clone(&self.numbers), matrices: [matrix(0), matrix(1)] }
    }

    /// How many sets of sets were there when this was made; none if there was not room for more.
    pub(super) fn known(&self) -> Option<usize> {
        (!self.numbers.is_full).then_some(self.numbers.of_classes[0].len())
    }

    pub(super) fn bytes(&self) -> usize {
        let rows = self.numbers.rows.iter().flat_map(|rows| rows.iter());
        let sets: usize = rows.map(|sets| size_of_val(sets) + size_of_val(&**sets)).sum();
        self.numbers.of_classes[0].len() * CLASS_BYTES
            + sets
            + self.matrices.iter().map(|matrix| matrix.bytes()).sum::<usize>()
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
