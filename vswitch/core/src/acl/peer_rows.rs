//! Which rules name a peer: a row for each combination of sets that contains one, and what replaces a row that was not
//! made.

use crate::acl::bit_matrix::{BitMatrix, has_bit, put_bit, row_bytes};
use crate::acl::rules_by_set::RulesBySet;
use crate::config::desired::Direction;
use crate::tables::address_class::{AddressClass, SetCombinationId, SetId};
use alloc::sync::Arc;
use alloc::vec::Vec;
use hashbrown::HashMap;

/// Marks a row that was not made. Its index is beyond the end of every matrix.
pub(super) const NOT_MADE: u32 = u32::MAX;
const _: () = assert!(usize::BITS >= 64, "the place of a row that is not made can be told");
/// Marks the absence of a group; greater than any group's index.
const NO_GROUP: u32 = u32::MAX;
/// The size of a class without its rows, bytes.
const CLASS_BYTES: usize = 3 * size_of::<u32>();
/// Above this many added and removed rules, all rows are made anew.
const EDITS_MAX: usize = 256;

/// The rows for all set combinations that existed when they were made, as far as there was room.
#[derive(Clone, Debug)]
pub(crate) struct PeerRows {
    /// Ingress, then egress.
    directions: [DirectionRows; 2],
    /// For each class, the index of the first open group among its sets, or [`NO_GROUP`]. Empty if no group is open.
    open_groups: Vec<u32>,
    classes_max: usize,
}

/// The rows of one direction.
#[derive(Clone, Debug)]
struct DirectionRows {
    /// The rules that the rows stand for.
    rules_by_set: Arc<RulesBySet>,
    /// The row of each class, or [`NOT_MADE`].
    of_classes: Vec<u32>,
    /// A bit for each set that the rows distinguish: those that rules name, and some that they named before.
    named: Vec<u64>,
    /// The distinguished sets of each row.
    rows: Vec<Arc<[SetId]>>,
    numbers: HashMap<Arc<[SetId]>, u32>,
    /// The row without a set. Most classes have it, so it is found without a look-up.
    empty: Option<u32>,
    matrix: BitMatrix,
    rows_max: usize,
}

impl PeerRows {
    /// The row number of each class in one direction, or one that no row has; and the rows.
    pub(super) fn matrix(&self, direction: Direction) -> (&[u32], &BitMatrix) {
        let rows = &self.directions[direction as usize];
        (&rows.of_classes, &rows.matrix)
    }

    /// The rows for the prefixes of an address of this class and for the address itself, or `None` if one was not made.
    #[inline]
    pub(super) fn rows(&self, direction: Direction, class: AddressClass) -> Option<[&[u64]; 2]> {
        let (of_classes, matrix) = self.matrix(direction);
        // No matrix has as many rows as NOT_MADE would need.
        let row = |sets: SetCombinationId| matrix.find(*of_classes.get(sets.0 as usize)?);
        Some([row(class.by_prefix)?, row(class.by_host)?])
    }

    /// The open group that contains addresses of a class, if there is one; the outer `None` means that it is unknown.
    #[inline]
    pub(super) fn open_group(&self, class: AddressClass) -> Option<Option<u32>> {
        let group = |sets: SetCombinationId| self.open_groups.get(sets.0 as usize).copied();
        let first = group(class.by_prefix)?.min(group(class.by_host)?);
        Some(if first == NO_GROUP { None } else { Some(first) })
    }

    /// Makes the rows for `all` classes, each given by its sets, in at most `bytes_max` per direction. `open_group`
    /// returns the first open group among some sets; it is `None` if no group is open.
    pub(super) fn make<'a>(
        rules_by_set: [&Arc<RulesBySet>; 2],
        all: impl Iterator<Item = &'a [SetId]>,
        open_group: Option<impl Fn(&[SetId]) -> Option<u32>>,
        bytes_max: usize,
    ) -> Self {
        let directions = rules_by_set.map(|rules_by_set| DirectionRows::new(rules_by_set, bytes_max));
        let mut rows = Self { directions, open_groups: Vec::new(), classes_max: bytes_max / CLASS_BYTES };
        rows.learn(all, open_group);
        rows
    }

    /// Adds rows for the classes that came later.
    fn learn<'a>(
        &mut self,
        all: impl Iterator<Item = &'a [SetId]>,
        open_group: Option<impl Fn(&[SetId]) -> Option<u32>>,
    ) {
        let known = self.directions[0].of_classes.len();
        // The skip makes this incremental: numbers of classes only grow, so known rows stay where they are.
        for sets in all.take(self.classes_max).skip(known) {
            for rows in &mut self.directions {
                let row = rows.row_of(sets);
                rows.of_classes.push(row);
            }
            if let Some(open_group) = &open_group {
                self.open_groups.push(open_group(sets).unwrap_or(NO_GROUP));
            }
        }
    }

    /// Whether the rows stand for these rules.
    pub(super) fn tell(&self, rules_by_set: [&Arc<RulesBySet>; 2]) -> bool {
        self.directions
            .iter()
            .zip(rules_by_set)
            // Comparing the lists costs less than making the rows, but more than comparing two pointers.
            .all(|(rows, now)| Arc::ptr_eq(&rows.rules_by_set, now) || rows.rules_by_set == *now)
    }

    /// Changes the rows to those of other rules, and adds the new classes. Returns false if they have to be made anew.
    pub(super) fn follow<'a>(
        &mut self,
        rules_by_set: [&Arc<RulesBySet>; 2],
        all: impl Iterator<Item = &'a [SetId]> + Clone,
        open_group: Option<impl Fn(&[SetId]) -> Option<u32>>,
    ) -> bool {
        let follows = self.directions.iter_mut().zip(rules_by_set).all(|(rows, now)| rows.follow(now, all.clone()));
        if follows {
            self.learn(all, open_group);
        }
        follows
    }

    /// How many set combinations existed when the rows were made, or `None` if there was no room for more.
    pub(super) fn known(&self) -> Option<usize> {
        let known = self.directions[0].of_classes.len();
        (known < self.classes_max).then_some(known)
    }

    pub(super) fn bytes(&self) -> usize {
        self.directions[0].of_classes.len() * CLASS_BYTES
            + self.directions.iter().map(DirectionRows::bytes).sum::<usize>()
    }
}

impl DirectionRows {
    fn new(rules_by_set: &Arc<RulesBySet>, bytes_max: usize) -> Self {
        let mut rows = Self {
            rules_by_set: Arc::clone(rules_by_set),
            of_classes: Vec::new(),
            named: Vec::new(),
            rows: Vec::new(),
            numbers: HashMap::new(),
            empty: None,
            matrix: BitMatrix::empty(rules_by_set.words()),
            // An ACL without rules has rows of no bytes; the divisor must not be zero.
            rows_max: bytes_max / row_bytes(rules_by_set.len()).max(1),
        };
        rules_by_set.sets().iter().for_each(|set| rows.name(*set));
        rows
    }

    fn name(&mut self, set: SetId) {
        let words = set.0 as usize / u64::BITS as usize + 1;
        if self.named.len() < words {
            self.named.resize(words, 0);
        }
        put_bit(&mut self.named, set.0, true);
    }

    fn is_named(&self, set: SetId) -> bool {
        (set.0 as usize) < self.named.len() * u64::BITS as usize && has_bit(&self.named, set.0)
    }

    /// The number of the row for these sets.
    fn row_of(&mut self, sets: &[SetId]) -> u32 {
        // Sets that no rule names are ignored, so that classes that differ only in those share a row.
        let named: Vec<SetId> = sets.iter().copied().filter(|set| self.is_named(*set)).collect();
        let known = if named.is_empty() { self.empty } else { self.numbers.get(&*named).copied() };
        if let Some(number) = known {
            return number;
        }
        if self.rows.len() >= self.rows_max {
            return NOT_MADE;
        }
        let number = self.matrix.push();
        for &set in &named {
            self.rules_by_set.of(set).iter().for_each(|&rule| self.matrix.put(number, rule, true));
        }
        let named: Arc<[SetId]> = named.into();
        self.rows.push(Arc::clone(&named));
        if named.is_empty() {
            self.empty = Some(number);
        } else {
            self.numbers.insert(named, number);
        }
        number
    }

    /// See [`PeerRows::follow`].
    fn follow<'a>(&mut self, now: &Arc<RulesBySet>, all: impl Iterator<Item = &'a [SetId]>) -> bool {
        // The other direction of the same change often stays as it was.
        if Arc::ptr_eq(&self.rules_by_set, now) {
            return true;
        }
        let Some(edits) = self.rules_by_set.edits_to(now, EDITS_MAX) else { return false };
        self.rules_by_set = Arc::clone(now);
        let new: Vec<SetId> = edits.iter().map(|edit| edit.set).filter(|set| !self.is_named(*set)).collect();
        // Classes with a newly named set may have shared a row with classes without it; these must be told apart.
        if !new.is_empty() {
            new.iter().for_each(|set| self.name(*set));
            let known = self.of_classes.len();
            for (class, sets) in all.take(known).enumerate() {
                if new.iter().any(|set| sets.contains(set)) {
                    self.of_classes[class] = self.row_of(sets);
                }
            }
        }
        // A bit may pass from one rule to another, so clear before setting.
        for is_set in [false, true] {
            for edit in edits.iter().filter(|edit| edit.is_set == is_set) {
                for (number, _) in self.rows.iter().enumerate().filter(|(_, sets)| sets.contains(&edit.set)) {
                    self.matrix.put(number as u32, edit.bit, is_set);
                }
            }
        }
        true
    }

    fn bytes(&self) -> usize {
        let rows = self.rows.iter().map(|sets| 2 * size_of_val(sets) + size_of::<u32>() + size_of_val(&**sets));
        rows.sum::<usize>() + size_of_val(&*self.named) + self.matrix.bytes()
    }
}
