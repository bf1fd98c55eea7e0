//! The rules that name each set.

use crate::tables::address_class::SetId;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// The rules that name each set, by their bits and so in deciding order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RulesBySet {
    /// Ascending.
    sets: Vec<SetId>,
    /// The end of each set's rules in `rules`.
    ends: Vec<u32>,
    rules: Vec<u32>,
    /// The length of a row, words.
    words: usize,
}

/// A rule that names a set from now on, or no longer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SetEdit {
    pub(super) set: SetId,
    pub(super) bit: u32,
    pub(super) is_set: bool,
}

impl RulesBySet {
    /// `named` yields the sets that rules name with the bits of these rules, ascending.
    pub(super) fn new(named: impl Iterator<Item = (SetId, u32)>, words: usize) -> Self {
        let mut by_set: BTreeMap<SetId, Vec<u32>> = BTreeMap::new();
        for (set, bit) in named {
            by_set.entry(set).or_default().push(bit);
        }
        let mut rules = Vec::new();
        let mut ends = Vec::with_capacity(by_set.len());
        for of_set in by_set.values() {
            rules.extend_from_slice(of_set);
            ends.push(rules.len() as u32);
        }
        Self { sets: by_set.into_keys().collect(), ends, rules, words }
    }

    /// The length of a row, words.
    pub(super) const fn words(&self) -> usize {
        self.words
    }

    /// How many rules there are.
    pub(super) const fn len(&self) -> usize {
        self.rules.len()
    }

    fn start(&self, place: usize) -> usize {
        place.checked_sub(1).map_or(0, |before| self.ends[before] as usize)
    }

    fn at(&self, place: usize) -> &[u32] {
        &self.rules[self.start(place)..self.ends[place] as usize]
    }

    /// The rules that name a set.
    pub(super) fn of(&self, set: SetId) -> &[u32] {
        self.sets.binary_search(&set).map_or(&[], |place| self.at(place))
    }

    /// Adds a rule that names a set.
    pub(super) fn insert(&mut self, set: SetId, bit: u32) {
        let place = self.sets.binary_search(&set).unwrap_or_else(|place| {
            self.sets.insert(place, set);
            // An empty set ends where it begins; its rules are inserted below.
            self.ends.insert(place, self.start(place) as u32);
            place
        });
        let among = self.at(place).partition_point(|other| *other < bit);
        self.rules.insert(self.start(place) + among, bit);
        self.ends[place..].iter_mut().for_each(|end| *end += 1);
    }

    /// Removes a rule that names a set.
    pub(super) fn remove(&mut self, set: SetId, bit: u32) {
        let Ok(place) = self.sets.binary_search(&set) else { return };
        let Ok(among) = self.at(place).binary_search(&bit) else { return };
        self.rules.remove(self.start(place) + among);
        self.ends[place..].iter_mut().for_each(|end| *end -= 1);
        // A set without rules must not stay: `sets` says what a decision can depend on.
        if self.at(place).is_empty() {
            self.sets.remove(place);
            self.ends.remove(place);
        }
    }

    /// The edits that turn these rules into `now`, or `None` if there are more than `edits_max` or the row widths
    /// differ.
    pub(super) fn edits_to(&self, now: &Self, edits_max: usize) -> Option<Vec<SetEdit>> {
        let mut edits = Vec::new();
        let (mut old, mut new) = (0, 0);
        while old < self.sets.len() || new < now.sets.len() {
            let (then_set, now_set) = (self.sets.get(old), now.sets.get(new));
            // Both lists ascend, so the smaller head is the next set of either.
            let set = *then_set.into_iter().chain(now_set).min()?;
            let then = if then_set == Some(&set) { self.at(old) } else { &[] };
            let later = if now_set == Some(&set) { now.at(new) } else { &[] };
            if then != later {
                let only = |one: &'_ [u32], other: &'_ [u32], is_set| -> Vec<SetEdit> {
                    let only = one.iter().filter(|bit| other.binary_search(bit).is_err());
                    only.map(|&bit| SetEdit { set, bit, is_set }).collect()
                };
                edits.extend(only(then, later, false));
                edits.extend(only(later, then, true));
            }
            old += usize::from(then_set == Some(&set));
            new += usize::from(now_set == Some(&set));
            if edits.len() > edits_max {
                return None;
            }
        }
        // Bits of rows of different width mean the same rules, but the rows themselves cannot be edited.
        (self.words == now.words).then_some(edits)
    }

    /// The first rule that names one of `sets` and that `is_true` confirms.
    pub(super) fn first<'a>(
        &self,
        sets: impl Iterator<Item = &'a SetId>,
        is_true: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let mut first = None;
        for place in sets.filter_map(|set| self.sets.binary_search(set).ok()) {
            let rules = self.at(place);
            // Only rules that would decide before the best so far are worth a check.
            let better = rules.iter().copied().take_while(|&rule| first.is_none_or(|first| rule < first));
            first = better.into_iter().find(|&rule| is_true(rule)).or(first);
        }
        first
    }

    /// Every set that a rule names, ascending.
    pub(super) fn sets(&self) -> &[SetId] {
        &self.sets
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.sets) + size_of_val(&*self.ends) + size_of_val(&*self.rules)
    }
}
