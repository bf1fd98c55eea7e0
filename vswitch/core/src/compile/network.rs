//! The state of one VPC between two generations: its addresses, subnets and groups, and the network compiled from them.

use super::addresses::{AddressFacts, Fact};
use crate::acl::compile::{Directions, Edit, Edits, Sources};
use crate::acl::{self, Acl, LeftRight, PeerRows, RowLimits, RuleSet, Rules};
use crate::compile::address_classes::AddressClasses;
use crate::compile::address_sets::{SetKey, Sets};
use crate::compile::snapshot::{AclEntry, UplinkEntry, VSwitchEntry, VpcNetwork};
use crate::config::desired::{Desired, DesiredEni, DesiredPrefixList, DesiredRule, DesiredVpc, DesiredVswitch};
use crate::config::dhcp::DhcpOptionsSet;
use crate::config::ids::{EniId, EniIndex, GroupId, MacAddress, PrefixListId, VSwitchId, VpcId, VpcIndex};
use crate::config::protocol::Delta;
use crate::tables::address_class::SetId;
use crate::tables::cow_array::CowArray;
use crate::tables::route::AddressRoute;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;
use ipnet::IpNet;

/// An ACL's rows are renewed if it lacks this many address classes, in addition to a quarter of those it knows.
const UNKNOWN_CLASSES_MAX: usize = 256;
/// How many ACLs one change renews for that reason alone.
const FILTERS_RENEWED_MAX: usize = 2;

/// How many ACLs of a group are searched for rules to share.
const FILTERS_RELATED_MAX: usize = 4;

/// If more single rules of an ACL's groups change than this, its rules are compiled from scratch.
const EDITS_MAX: usize = 64;

/// The directions in which the rules of an ACL are outdated.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dirty {
    /// Only single rules changed, those in the change at hand.
    pub(super) by_rules: Directions,
    /// Anything may have changed.
    pub(super) whole: Directions,
}

/// An ACL in use.
#[derive(Debug)]
struct AclUse {
    groups: Box<[GroupId]>,
    enis: usize,
}

/// Everything from which the network of one VPC is compiled.
#[derive(Debug)]
pub(super) struct NetworkState {
    /// Its index in the snapshot.
    pub(super) place: u32,
    salt: u32,
    gateway_mac: MacAddress,
    dhcp: Arc<DhcpOptionsSet>,
    pub(super) uplink: Option<Arc<UplinkEntry>>,
    addresses: AddressFacts,
    classes: AddressClasses,
    sets: Sets,
    members: BTreeMap<GroupId, BTreeSet<EniIndex>>,
    vswitches: CowArray<VSwitchEntry>,
    vswitch_places: BTreeMap<VSwitchId, u32>,
    acls: CowArray<Option<AclEntry>>,
    uses: BTreeMap<u32, AclUse>,
    by_groups: BTreeMap<Box<[GroupId]>, u32>,
    by_group: BTreeMap<GroupId, BTreeSet<u32>>,
    free_filters: Vec<u32>,
    /// ACLs that are new or whose rules changed.
    dirty: BTreeMap<u32, Dirty>,
    /// The copies that recent changes of single rules replaced.
    spare_rules: LeftRight<RuleSet, Vec<Edit>>,
    spare_rows: LeftRight<PeerRows>,
    /// ACLs whose last ENI was removed.
    left: BTreeSet<u32>,
    /// Where the search for ACLs that lack new classes continues.
    renewed: u32,
}

impl NetworkState {
    pub(super) fn new(id: &VpcId, place: u32, secret: [u64; 2]) -> Self {
        Self {
            place,
            salt: salt_of(id),
            gateway_mac: MacAddress::default(),
            dhcp: Arc::default(),
            uplink: None,
            addresses: AddressFacts::new(secret),
            classes: AddressClasses::new(),
            sets: Sets::default(),
            members: BTreeMap::new(),
            vswitches: CowArray::default(),
            vswitch_places: BTreeMap::new(),
            acls: CowArray::default(),
            uses: BTreeMap::new(),
            by_groups: BTreeMap::new(),
            by_group: BTreeMap::new(),
            free_filters: Vec::new(),
            dirty: BTreeMap::new(),
            spare_rules: LeftRight::default(),
            spare_rows: LeftRight::default(),
            left: BTreeSet::new(),
            renewed: 0,
        }
    }

    /// The network as packets use it. It shares everything with this state.
    pub(super) fn network(&self) -> VpcNetwork {
        VpcNetwork {
            salt: self.salt,
            gateway_mac: self.gateway_mac,
            vswitches: self.vswitches.clone(),
            v4: self.addresses.v4.places.clone(),
            v6: self.addresses.v6.places.clone(),
            sets: self.classes.table.clone(),
            dhcp: Arc::clone(&self.dhcp),
            uplink: self.uplink.clone(),
            acls: self.acls.clone(),
        }
    }

    /// Adds what a VPC says. `place_of` is the place of a peer.
    pub(super) fn add_vpc(
        &mut self,
        vpc: &DesiredVpc,
        index_of: impl Fn(&EniId) -> EniIndex,
        place_of: impl Fn(&VpcId) -> VpcIndex,
    ) {
        self.gateway_mac = vpc.gateway_mac;
        self.dhcp = Arc::new(vpc.dhcp.clone());
        for (prefix, eni) in &vpc.routes {
            self.addresses.add_fact(prefix, Fact::Route(AddressRoute::Via(index_of(eni))));
        }
        for (block, peer) in &vpc.peers {
            self.addresses.add_fact(block, Fact::Route(AddressRoute::Peer(place_of(peer))));
        }
    }

    /// Removes what [`NetworkState::add_vpc`] added.
    pub(super) fn remove_vpc(
        &mut self,
        vpc: &DesiredVpc,
        index_of: impl Fn(&EniId) -> EniIndex,
        place_of: impl Fn(&VpcId) -> VpcIndex,
    ) {
        for (prefix, eni) in &vpc.routes {
            self.addresses.remove_fact(prefix, Fact::Route(AddressRoute::Via(index_of(eni))));
        }
        for (block, peer) in &vpc.peers {
            self.addresses.remove_fact(block, Fact::Route(AddressRoute::Peer(place_of(peer))));
        }
    }

    pub(super) fn add_vswitch(&mut self, id: &VSwitchId, vswitch: &DesiredVswitch) {
        for (prefix, route) in routes_of(vswitch) {
            self.addresses.add_fact(&prefix, Fact::Route(route));
        }
        let place = self.vswitch_places.get(id).copied().unwrap_or_else(|| {
            let taken: BTreeSet<u32> = self.vswitch_places.values().copied().collect();
            (0..).find(|place| !taken.contains(place)).unwrap_or(0)
        });
        self.vswitch_places.insert(id.clone(), place);
        // Destructured, so that a new field of a subnet does not compile until it is entered or ignored here.
        let DesiredVswitch { vpc: _, ipv4, ipv4_gateway, ipv6, ipv6_gateway } = *vswitch;
        let entry = VSwitchEntry { ipv4, ipv6, ipv4_gateway, ipv6_gateway };
        *self.vswitches.get_mut(place as usize) = entry;
    }

    /// Removes a subnet; also its index, unless it `stays` to be added again.
    pub(super) fn remove_vswitch(&mut self, id: &VSwitchId, vswitch: &DesiredVswitch, stays: bool) {
        for (prefix, route) in routes_of(vswitch) {
            self.addresses.remove_fact(&prefix, Fact::Route(route));
        }
        if !stays {
            self.vswitch_places.remove(id);
        }
    }

    pub(super) fn vswitch_place(&self, id: &VSwitchId) -> u32 {
        self.vswitch_places.get(id).copied().unwrap_or_default()
    }

    /// Adds an ENI. Returns the index of its ACL.
    pub(super) fn add_eni(&mut self, eni: &DesiredEni, index: EniIndex) -> u32 {
        self.speak_of(eni, index, AddressFacts::add_fact);
        for group in &eni.groups {
            self.members.entry(group.clone()).or_default().insert(index);
        }
        self.add_acl_use(eni.groups.iter().cloned().collect())
    }

    /// Adds an interface with the rules of these groups. Returns the index of the ACL.
    pub(super) fn add_acl_use(&mut self, groups: Box<[GroupId]>) -> u32 {
        // ENIs with the same groups share one ACL, however many they are.
        if let Some(&place) = self.by_groups.get(&groups) {
            if let Some(found) = self.uses.get_mut(&place) {
                found.enis += 1;
            }
            return place;
        }
        let place = self.free_filters.pop().unwrap_or(self.uses.len() as u32);
        for group in &groups {
            self.by_group.entry(group.clone()).or_default().insert(place);
        }
        self.by_groups.insert(groups.clone(), place);
        self.uses.insert(place, AclUse { groups, enis: 1 });
        self.dirty.insert(place, Dirty { whole: Directions::BOTH, ..Dirty::default() });
        place
    }

    /// Removes an ENI. Its ACL stays until [`NetworkState::finish`], and beyond if another ENI uses it by then.
    pub(super) fn remove_eni(&mut self, eni: &DesiredEni, index: EniIndex, acl: u32) {
        self.speak_of(eni, index, AddressFacts::remove_fact);
        for group in &eni.groups {
            if let Some(members) = self.members.get_mut(group) {
                members.remove(&index);
                if members.is_empty() {
                    self.members.remove(group);
                }
            }
        }
        self.remove_acl_use(acl);
    }

    /// Removes an interface that has an ACL.
    pub(super) fn remove_acl_use(&mut self, acl: u32) {
        if let Some(found) = self.uses.get_mut(&acl) {
            found.enis -= 1;
            // Not removed yet: the same change may bring another ENI with these groups.
            if found.enis == 0 {
                self.left.insert(acl);
            }
        }
    }

    fn speak_of(&mut self, eni: &DesiredEni, index: EniIndex, speak: impl Fn(&mut AddressFacts, &IpNet, Fact)) {
        let sets: Vec<SetId> =
            eni.groups.iter().filter_map(|group| self.sets.find(&SetKey::Group(group.clone()))).collect();
        for prefix in &eni.addresses {
            speak(&mut self.addresses, prefix, Fact::Route(AddressRoute::Owner(index)));
            // A group that no rule names has no set, and its members need none.
            sets.iter().for_each(|set| speak(&mut self.addresses, prefix, Fact::Member(*set)));
        }
    }

    /// Notes that the entries of a prefix list changed. Returns whether this VPC uses the list.
    pub(super) fn change_prefix_list(
        &mut self,
        id: &PrefixListId,
        before: &DesiredPrefixList,
        now: &DesiredPrefixList,
    ) -> bool {
        let Some(set) = self.sets.find(&SetKey::PrefixList(id.clone())) else { return false };
        for gone in before.entries.difference(&now.entries) {
            self.addresses.remove_fact(gone, Fact::Member(set));
        }
        for new in now.entries.difference(&before.entries) {
            self.addresses.add_fact(new, Fact::Member(set));
        }
        true
    }

    /// Notes that the rules of a group, or their port lists, changed. Returns whether this VPC uses the group.
    pub(super) fn change_group(&mut self, id: &GroupId, changed: Dirty) -> bool {
        let found = self.by_group.get(id);
        for place in found.into_iter().flatten() {
            let dirty = self.dirty.entry(*place).or_default();
            dirty.by_rules = dirty.by_rules.union(changed.by_rules);
            dirty.whole = dirty.whole.union(changed.whole);
        }
        found.is_some()
    }

    /// Brings everything up to date. Every ACL whose decisions may differ gets the new `revision`.
    pub(super) fn finish(&mut self, input: &NetworkInput<'_>, revision: u32) {
        for place in core::mem::take(&mut self.left) {
            // An ENI that was added in the same change may use it again.
            if self.uses.get(&place).is_some_and(|found| found.enis == 0) {
                self.drop_filter(place);
            }
        }
        let mut dirty = core::mem::take(&mut self.dirty);
        dirty.retain(|place, _| self.uses.contains_key(place));
        let mut compiled: BTreeMap<u32, Arc<Rules>> = BTreeMap::new();
        for place in dirty.keys() {
            let rules = self.compile_rules(*place, (&dirty, &compiled), input);
            compiled.insert(*place, Arc::new(rules));
        }
        for (place, rules) in &compiled {
            let before = self.acls.get(*place as usize).and_then(Option::as_ref);
            let before = before.map(|entry| entry.acl.rules().mentions().to_vec()).unwrap_or_default();
            // Mentions come before worn sets are taken, so that a set that moves between ACLs is kept.
            self.sets.mention(*place, &before, rules.mentions());
        }
        for (set, key) in self.sets.take_new() {
            self.members_of(&key, input).iter().for_each(|prefix| self.addresses.add_fact(prefix, Fact::Member(set)));
        }
        for (set, key) in self.sets.take_worn() {
            self.members_of(&key, input)
                .iter()
                .for_each(|prefix| self.addresses.remove_fact(prefix, Fact::Member(set)));
        }
        let mut affected = BTreeSet::new();
        self.addresses.finish(&mut self.classes, &mut affected);
        // The ACL stays as it is; only its revision tells sessions that a member came or went.
        for place in affected.into_iter().flat_map(|set| self.sets.filters_of(set)) {
            if let Some(entry) = self.acls.get_mut(place as usize) {
                entry.revision = revision;
            }
        }
        for (place, rules) in compiled {
            let alike = |place: u32| self.acls.get(place as usize)?.as_ref()?.acl.with_rules(&rules);
            let alike = self.related(place).find_map(alike);
            let before = self.acls.get(place as usize).and_then(Option::as_ref);
            let left_right = &mut self.spare_rows;
            let follow = || before?.acl.following(&rules, self.classes.iter(), left_right);
            let acl = alike.or_else(follow);
            // Sharing comes first, then editing, and rows are made anew only where neither is possible.
            let acl = acl.unwrap_or_else(|| Acl::new(rules, self.classes.iter(), input.limits));
            *self.acls.get_mut(place as usize) = Some(AclEntry { revision, acl: Arc::new(acl) });
        }
        if self.classes.is_worn() {
            let addresses = &mut self.addresses;
            self.classes.renumber(|classes| addresses.renumber(classes));
            // The rows of all ACLs refer to the old numbers.
            let all: Vec<u32> = self.uses.keys().copied().collect();
            all.into_iter().for_each(|place| self.renew(place, input));
        }
        self.renew_some(input);
    }

    /// Compiles the rules of an ACL. Those of ACLs that are not `dirty`, or that are in `compiled`, are valid.
    fn compile_rules(
        &mut self,
        place: u32,
        (dirty, compiled): (&BTreeMap<u32, Dirty>, &BTreeMap<u32, Arc<Rules>>),
        input: &NetworkInput<'_>,
    ) -> Rules {
        let then = |place: u32| Some(Arc::clone(self.acls.get(place as usize)?.as_ref()?.acl.rules()));
        let dirty = |place: u32| dirty.get(&place).copied().unwrap_or_default();
        let holding = |place: u32| match compiled.get(&place) {
            Some(rules) => Some((Arc::clone(rules), Directions::BOTH)),
            None => Some((then(place)?, dirty(place).by_rules.union(dirty(place).whole).others())),
        };
        let holding: Vec<(Arc<Rules>, Directions)> = self.related(place).filter_map(holding).collect();
        let groups = self.uses.get(&place).map(|used| &*used.groups).unwrap_or_default();
        let (gone, new) = (input.rules_before(groups), input.rules_now(groups));
        // Beyond that, following the edits costs more than compiling.
        let is_small = gone.len().max(new.len()) <= EDITS_MAX;
        let edits = then(place).filter(|_| is_small).map(|then| {
            let (directions, left_right) = (dirty(place).whole.others(), &mut self.spare_rules);
            Edits { then, directions, gone, new, left_right }
        });
        let groups: Vec<_> = groups.iter().filter_map(|id| input.desired.groups.get_key_value(id)).collect();
        let sources = Sources { port_lists: &input.desired.port_lists, limits: input.limits, holding: &holding };
        let sets = &mut self.sets;
        acl::compile::compile(&groups, sources, edits, |remote| sets.intern(remote))
    }

    /// ACLs with which an ACL may share rules: itself, and a few for each of its groups.
    fn related(&self, place: u32) -> impl Iterator<Item = u32> {
        let groups = self.uses.get(&place).map(|used| &*used.groups).unwrap_or_default();
        let places = groups.iter().filter_map(|group| self.by_group.get(group));
        core::iter::once(place).chain(places.flat_map(|places| places.iter().take(FILTERS_RELATED_MAX).copied()))
    }

    fn drop_filter(&mut self, place: u32) {
        let Some(used) = self.uses.remove(&place) else { return };
        for group in &used.groups {
            if let Some(acls) = self.by_group.get_mut(group) {
                acls.remove(&place);
                if acls.is_empty() {
                    self.by_group.remove(group);
                }
            }
        }
        self.by_groups.remove(&used.groups);
        // ACLs are numbered densely, so that the array does not grow with each change of groups.
        self.free_filters.push(place);
        if let Some(entry) = self.acls.get_mut(place as usize).take() {
            self.sets.mention(place, entry.acl.rules().mentions(), &[]);
        }
    }

    /// The prefixes that are now in a set.
    fn members_of(&self, key: &SetKey, input: &NetworkInput<'_>) -> Vec<IpNet> {
        match key {
            SetKey::Prefix(prefix) => [*prefix].into(),
            SetKey::PrefixList(list) => {
                let list = input.desired.prefix_lists.get(list);
                list.map(|list| list.entries.iter().copied().collect()).unwrap_or_default()
            }
            SetKey::Group(group) => {
                let members = self.members.get(group).into_iter().flatten();
                let enis = members.filter_map(|index| input.desired.enis.get((input.name_of)(*index)?));
                enis.flat_map(|eni| eni.addresses.iter().copied()).collect()
            }
        }
    }

    /// Renews the rows of an ACL for the classes that exist now.
    fn renew(&mut self, place: u32, input: &NetworkInput<'_>) {
        if let Some(entry) = self.acls.get_mut(place as usize) {
            let rules = Arc::clone(entry.acl.rules());
            entry.acl = Arc::new(Acl::new(rules, self.classes.iter(), input.limits));
        }
    }

    /// Renews the rows of a few ACLs that lack many classes.
    fn renew_some(&mut self, input: &NetworkInput<'_>) {
        let classes = self.classes.len();
        let misses_many = |entry: &AclEntry| {
            entry.acl.classes_known().is_some_and(|known| classes > known + UNKNOWN_CLASSES_MAX + known / 4)
        };
        let behind: Vec<u32> =
            self.uses.range(self.renewed..).map(|(place, _)| *place).take(FILTERS_RENEWED_MAX * 8).collect();
        // The search starts over at zero after the last ACL.
        self.renewed = behind.last().map_or(0, |last| last + 1);
        let found = behind
            .into_iter()
            .filter(|place| self.acls.get(*place as usize).and_then(Option::as_ref).is_some_and(misses_many));
        let found: Vec<u32> = found.take(FILTERS_RENEWED_MAX).collect();
        found.into_iter().for_each(|place| self.renew(place, input));
    }

    /// Restarts all revisions at this one.
    pub(super) fn reset_revisions(&mut self, revision: u32) {
        for &place in self.uses.keys() {
            if let Some(entry) = self.acls.get_mut(place as usize) {
                entry.revision = revision;
            }
        }
    }
}

/// The inputs to [`NetworkState::finish`].
pub(super) struct NetworkInput<'a> {
    /// The inverse of the change.
    pub(super) before: &'a Delta,
    pub(super) desired: &'a Desired,
    pub(super) name_of: &'a dyn Fn(EniIndex) -> Option<&'a EniId>,
    pub(super) limits: Option<RowLimits>,
}

impl<'a> NetworkInput<'a> {
    /// The single rules of groups that were removed or changed, as they were.
    fn rules_before(&self, groups: &[GroupId]) -> Vec<(&'a GroupId, &'a DesiredRule)> {
        let changed = groups.iter().filter_map(|id| self.before.rules.get_key_value(id));
        changed.flat_map(|(id, rules)| rules.values().flatten().map(move |rule| (id, rule))).collect()
    }

    /// The single rules of groups that were added or changed, as they are now.
    fn rules_now(&self, groups: &[GroupId]) -> Vec<(&'a GroupId, &'a DesiredRule)> {
        let changed =
            groups.iter().filter_map(|id| Some((self.desired.groups.get(id)?, self.before.rules.get_key_value(id)?)));
        let now = changed.flat_map(|(group, (id, rules))| rules.keys().map(move |name| (id, group.rule(name))));
        now.filter_map(|(id, rule)| Some((id, rule?))).collect()
    }
}

/// A number that differs between VPCs (FNV-1a of the name) and is the same in every generation.
fn salt_of(id: &VpcId) -> u32 {
    // Not keyed and not secret: the hash of a connection is, and this only separates VPCs.
    id.as_str().bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn routes_of(vswitch: &DesiredVswitch) -> impl Iterator<Item = (IpNet, AddressRoute)> {
    let blocks = vswitch.ipv4.map(IpNet::V4).into_iter().chain(vswitch.ipv6.map(IpNet::V6));
    let gateways = vswitch.ipv4_gateway.map(IpAddr::V4).into_iter().chain(vswitch.ipv6_gateway.map(IpAddr::V6));
    let blocks = blocks.map(|block| (block, AddressRoute::Unowned));
    blocks.chain(gateways.map(|gateway| (IpNet::from(gateway), AddressRoute::Gateway)))
}
