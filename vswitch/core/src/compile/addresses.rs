//! The facts about prefixes, and the entries of the address tables that follow from them. A change recomputes only the
//! insides of the prefixes that it touches.

use crate::compile::address_classes::AddressClasses;
use crate::tables::address_class::{AddressClass, SetId};
use crate::tables::address_entry::AddressEntry;
use crate::tables::address_table::AddressTable;
use crate::tables::host_table::HostTable;
use crate::tables::lpm::{Address, Intervals, first_of, last_of};
use crate::tables::route::AddressRoute;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use ipnet::IpNet;

/// If more prefixes than this change at once, all addresses are recomputed.
const REGIONS_MAX: usize = 8;

/// A fact about the addresses in a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    Route(AddressRoute),
    Member(SetId),
}

/// All facts about one prefix. The same fact may be added several times.
#[derive(Clone, Debug, Default, PartialEq)]
struct PrefixFacts {
    routes: Vec<AddressRoute>,
    /// Ascending.
    sets: Vec<SetId>,
}

impl PrefixFacts {
    fn add_fact(&mut self, fact: Fact) {
        match fact {
            Fact::Route(route) => self.routes.push(route),
            // The list may hold one set several times: two facts of different origin must be removed one by one.
            Fact::Member(set) => self.sets.insert(self.sets.partition_point(|other| *other < set), set),
        }
    }

    fn remove_fact(&mut self, fact: Fact) {
        match fact {
            Fact::Route(route) => {
                if let Some(place) = self.routes.iter().position(|other| *other == route) {
                    self.routes.swap_remove(place);
                }
            }
            Fact::Member(set) => {
                if let Ok(place) = self.sets.binary_search(&set) {
                    self.sets.remove(place);
                }
            }
        }
    }

    const fn is_empty(&self) -> bool {
        self.routes.is_empty() && self.sets.is_empty()
    }

    /// If a prefix has several routes, that of an owner wins over the router's, that over the subnet's, and that over a
    /// custom route.
    fn route(&self) -> Option<AddressRoute> {
        let strength = |route: &AddressRoute| match route {
            AddressRoute::Nowhere => 0,
            AddressRoute::Via(_) | AddressRoute::Peer(_) => 1,
            AddressRoute::Unowned => 2,
            AddressRoute::Gateway => 3,
            AddressRoute::Owner(_) => 4,
        };
        self.routes.iter().copied().max_by_key(strength)
    }

    /// The sets that only one of the two has.
    fn difference(&self, other: &Self) -> impl Iterator<Item = SetId> {
        let only = |one: &Self, other: &Self| {
            one.sets.iter().filter(|set| other.sets.binary_search(set).is_err()).copied().collect::<Vec<_>>()
        };
        only(self, other).into_iter().chain(only(other, self))
    }
}

/// The addresses of one family in one VPC.
#[derive(Debug)]
pub(super) struct FamilyAddresses<A> {
    /// The facts about single addresses.
    hosts: BTreeMap<A, PrefixFacts>,
    /// The facts about all other prefixes, by first address and length.
    prefixes: BTreeMap<(A, u8), PrefixFacts>,
    /// How many prefixes there are of each length.
    lengths: BTreeMap<u8, usize>,
    /// The previous facts of the prefixes that changed.
    changed: BTreeMap<(A, u8), PrefixFacts>,
    pub(super) places: AddressTable<A>,
}

impl<A: Address> FamilyAddresses<A> {
    pub(super) fn new(secret: [u64; 2]) -> Self {
        Self {
            hosts: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            lengths: BTreeMap::new(),
            changed: BTreeMap::new(),
            places: AddressTable {
                hosts: HostTable::new(secret),
                prefixes: Arc::new(Intervals::all(AddressEntry::NOWHERE)),
            },
        }
    }

    fn facts_of(&mut self, (first, length): (A, u8)) -> &mut PrefixFacts {
        if length == A::BITS {
            return self.hosts.entry(first).or_default();
        }
        self.prefixes.entry((first, length)).or_insert_with(|| {
            *self.lengths.entry(length).or_default() += 1;
            PrefixFacts::default()
        })
    }

    fn change_facts(&mut self, (address, length): (A, u8), change: impl FnOnce(&mut PrefixFacts)) {
        let key = (first_of(address, length), length);
        let facts_of = self.facts_of(key);
        let before = facts_of.clone();
        change(facts_of);
        // Only the first change of a delta sees the facts from before it.
        self.changed.entry(key).or_insert(before);
    }

    fn forget_if_empty(&mut self, (first, length): (A, u8)) {
        if length == A::BITS {
            if self.hosts.get(&first).is_some_and(PrefixFacts::is_empty) {
                self.hosts.remove(&first);
            }
        } else if self.prefixes.get(&(first, length)).is_some_and(PrefixFacts::is_empty) {
            self.prefixes.remove(&(first, length));
            if let Some(count) = self.lengths.get_mut(&length) {
                *count -= 1;
            }
            self.lengths.retain(|_, count| *count > 0);
        }
    }

    /// Recomputes what changed. The sets whose members changed are added to `affected`.
    pub(super) fn finish(&mut self, classes: &mut AddressClasses, affected: &mut BTreeSet<SetId>) {
        let mut hosts: Vec<A> = Vec::new();
        let mut regions: Vec<(A, u8)> = Vec::new();
        for (key, before) in core::mem::take(&mut self.changed) {
            let now = self.facts_of(key);
            // A fact that was removed and added again leaves nothing to recompute.
            if *now != before {
                affected.extend(now.difference(&before));
                match key {
                    (first, length) if length == A::BITS => hosts.push(first),
                    // Of two nested prefixes, the shorter one has the lower key.
                    (first, length) => {
                        let is_inside = |&(outer, outer_length): &(A, u8)| first <= last_of(outer, outer_length);
                        if !regions.last().is_some_and(is_inside) {
                            regions.push((first, length));
                        }
                    }
                }
            }
            self.forget_if_empty(key);
        }
        // Cutting copies all intervals each time, so beyond a few prefixes one cut of everything is cheaper.
        if regions.len() > REGIONS_MAX {
            regions = [(A::of_bits(0), 0)].into();
        }
        for region in regions {
            self.cut(region, classes);
            // Hosts inside inherit the prefixes' class and route, so they change with them.
            let within = self.hosts.range(region.0..=last_of(region.0, region.1));
            hosts.extend(within.map(|(host, _)| *host));
        }
        hosts.sort_unstable();
        hosts.dedup();
        hosts.into_iter().for_each(|host| self.locate(host, classes));
    }

    /// Recomputes everything, with new class numbers.
    pub(super) fn renumber(&mut self, classes: &mut AddressClasses) {
        self.places.prefixes = Arc::new(Intervals::all(AddressEntry::NOWHERE));
        self.cut((A::of_bits(0), 0), classes);
        let hosts: Vec<A> = self.hosts.keys().copied().collect();
        hosts.into_iter().for_each(|host| self.locate(host, classes));
    }

    /// Recomputes the entry of a single address from the prefixes around it and its own facts.
    fn locate(&mut self, host: A, classes: &mut AddressClasses) {
        let Some(facts_of) = self.hosts.get(&host) else { return self.places.hosts.remove(host) };
        let around = self.places.prefixes.find(host);
        let class = AddressClass { by_host: classes.of(facts_of.sets.iter().copied()), ..around.class };
        let place = AddressEntry::new(facts_of.route().unwrap_or(around.route()), class);
        // Writing an equal entry would copy a page that older generations share.
        if self.places.hosts.find(host) != Some(place) {
            self.places.hosts.insert(host, place);
        }
    }

    /// Recomputes the pieces inside a prefix.
    fn cut(&mut self, (first, length): (A, u8), classes: &mut AddressClasses) {
        let last = last_of(first, length);
        // Prefixes around the region cover its pieces as well; one look-up per length finds them.
        let shorter = self.lengths.keys().take_while(|other| **other < length);
        let around = shorter.filter_map(|length| self.prefixes.get(&(first_of(first, *length), *length))).collect();
        let inside = self.prefixes.range((first, length)..=(last, A::BITS));
        let inside = inside.map(|(&(first, length), facts_of)| (first, last_of(first, length), facts_of)).collect();
        let resolve = |covering: &[&PrefixFacts]| {
            // The most specific prefix that has a route decides; longer ones may only be members of sets.
            let route = covering.iter().rev().find_map(|facts_of| facts_of.route()).unwrap_or(AddressRoute::Nowhere);
            let around = classes.of(covering.iter().flat_map(|facts_of| facts_of.sets.iter().copied()));
            AddressEntry::new(route, AddressClass { by_prefix: around, ..AddressClass::default() })
        };
        self.places.prefixes = Arc::new(self.places.prefixes.cut((first, last), around, inside, resolve));
    }
}

/// The addresses of a VPC.
#[derive(Debug)]
pub(super) struct AddressFacts {
    pub(super) v4: FamilyAddresses<u32>,
    pub(super) v6: FamilyAddresses<u128>,
}

impl AddressFacts {
    pub(super) fn new(secret: [u64; 2]) -> Self {
        Self { v4: FamilyAddresses::new(secret), v6: FamilyAddresses::new(secret) }
    }

    pub(super) fn add_fact(&mut self, prefix: &IpNet, fact: Fact) {
        match prefix {
            IpNet::V4(prefix) => {
                self.v4.change_facts((prefix.addr().to_bits(), prefix.prefix_len()), |facts_of| facts_of.add_fact(fact))
            }
            IpNet::V6(prefix) => {
                self.v6.change_facts((prefix.addr().to_bits(), prefix.prefix_len()), |facts_of| facts_of.add_fact(fact))
            }
        }
    }

    pub(super) fn remove_fact(&mut self, prefix: &IpNet, fact: Fact) {
        match prefix {
            IpNet::V4(prefix) => self
                .v4
                .change_facts((prefix.addr().to_bits(), prefix.prefix_len()), |facts_of| facts_of.remove_fact(fact)),
            IpNet::V6(prefix) => self
                .v6
                .change_facts((prefix.addr().to_bits(), prefix.prefix_len()), |facts_of| facts_of.remove_fact(fact)),
        }
    }

    pub(super) fn finish(&mut self, classes: &mut AddressClasses, affected: &mut BTreeSet<SetId>) {
        self.v4.finish(classes, affected);
        self.v6.finish(classes, affected);
    }

    pub(super) fn renumber(&mut self, classes: &mut AddressClasses) {
        self.v4.renumber(classes);
        self.v6.renumber(classes);
    }
}
