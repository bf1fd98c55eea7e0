//! Numbers for the set combinations of a VPC: the distinct collections of sets that contain an address or a prefix.

use crate::tables::address_class::{SetCombinationId, SetId};
use crate::tables::cow_array::CowArray;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hashbrown::HashMap;

/// Once there are this many new numbers, in addition to as many as there were, unused ones are dropped. Until then no
/// number is reused, since rows of ACLs refer to it.
const NEW_MAX: usize = 1024;

/// The numbers of a VPC. Zero is the empty combination.
#[derive(Debug)]
pub(super) struct AddressClasses {
    numbers: HashMap<Arc<[SetId]>, SetCombinationId>,
    pub(super) table: CowArray<Arc<[SetId]>>,
    /// How many numbers there were after the last renumbering.
    len_when_numbered: usize,
    /// Scratch space for the combination that is looked up.
    wanted: Vec<SetId>,
}

impl AddressClasses {
    pub(super) fn new() -> Self {
        let mut classes =
            Self { numbers: HashMap::new(), table: CowArray::default(), len_when_numbered: 0, wanted: Vec::new() };
        // The empty combination gets number zero, which is the default of a class.
        classes.of(core::iter::empty());
        classes
    }

    /// How many numbers are assigned.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The sets of each number.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[SetId]> + Clone {
        self.table.iter().take(self.len()).map(|sets| &**sets)
    }

    /// The number of the combination of these sets, which may come in any order and be repeated.
    pub(super) fn of(&mut self, sets: impl Iterator<Item = SetId>) -> SetCombinationId {
        self.wanted.clear();
        self.wanted.extend(sets);
        self.wanted.sort_unstable();
        self.wanted.dedup();
        // Nearly all addresses that only have routes are in no set.
        if self.wanted.is_empty() && !self.numbers.is_empty() {
            return SetCombinationId::default();
        }
        if let Some(&number) = self.numbers.get(&*self.wanted) {
            return number;
        }
        let number = SetCombinationId(self.numbers.len() as u32);
        let sets: Arc<[SetId]> = self.wanted.as_slice().into();
        *self.table.get_mut(number.0 as usize) = Arc::clone(&sets);
        self.numbers.insert(sets, number);
        number
    }

    /// Whether so many numbers were assigned that most of them may be unused.
    pub(super) fn is_worn(&self) -> bool {
        self.len() > self.len_when_numbered * 2 + NEW_MAX
    }

    /// Starts over; `use_all` requests every combination that is in use.
    pub(super) fn renumber(&mut self, use_all: impl FnOnce(&mut Self)) {
        *self = Self::new();
        // Unused numbers cannot be told from used ones without asking everybody, so numbering starts over.
        use_all(self);
        self.len_when_numbered = self.len();
    }
}
