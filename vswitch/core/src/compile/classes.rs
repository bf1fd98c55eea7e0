//! Numbers for the different sets of sets that addresses of a VPC are in.

use crate::chunks::Chunks;
use crate::filter::SetId;
use crate::snapshot::Class;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hashbrown::HashMap;

/// New classes, besides as many as there were, after which those that are not in use any more are dropped. A number is
/// never passed on before: rows of filters know it.
const NEW_MAX: usize = 1024;

/// The classes of a VPC. Class 0 is in no set.
#[derive(Debug)]
pub(super) struct Classes {
    numbers: HashMap<Arc<[SetId]>, Class>,
    pub(super) table: Chunks<Arc<[SetId]>>,
    /// Classes after the last renumbering.
    settled: usize,
    /// The sets of the class that is looked for.
    wanted: Vec<SetId>,
}

impl Classes {
    pub(super) fn new() -> Self {
        let mut classes = Self { numbers: HashMap::new(), table: Chunks::default(), settled: 0, wanted: Vec::new() };
        classes.of(core::iter::empty());
        classes
    }

    /// How many numbers are given.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The sets of each class.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[SetId]> {
        self.table.iter().take(self.len()).map(|sets| &**sets)
    }

    /// The class of addresses in these sets, which may come in any order and several times.
    pub(super) fn of(&mut self, sets: impl Iterator<Item = SetId>) -> Class {
        self.wanted.clear();
        self.wanted.extend(sets);
        self.wanted.sort_unstable();
        self.wanted.dedup();
        if let Some(&class) = self.numbers.get(&*self.wanted) {
            return class;
        }
        let class = Class(self.numbers.len() as u32);
        let sets: Arc<[SetId]> = self.wanted.as_slice().into();
        *self.table.get_mut(class.0 as usize) = Arc::clone(&sets);
        self.numbers.insert(sets, class);
        class
    }

    /// The class of addresses that are in these sets besides those of a class.
    pub(super) fn with(&mut self, class: Class, more: &[SetId]) -> Class {
        let sets = self.table.get(class.0 as usize).map(Arc::clone).unwrap_or_default();
        self.of(sets.iter().chain(more).copied())
    }

    /// Whether so many numbers were given that most of them may be out of use.
    pub(super) fn is_worn(&self) -> bool {
        self.len() > self.settled * 2 + NEW_MAX
    }

    /// Starts over; whatever is in use is asked for again by `use_all`.
    pub(super) fn renumber(&mut self, use_all: impl FnOnce(&mut Self)) {
        *self = Self::new();
        use_all(self);
        self.settled = self.len();
    }
}
