//! Compiles the desired state to a snapshot, or reports every reason why it cannot.
//!
//! A [`Compiler`] keeps the desired state and everything compiled from it. A change recompiles only what depends on the
//! objects in it, such as the entry of an address that joins a group, or the ACLs of a group whose rules changed. The
//! next snapshot shares everything else with the one before, including the policy revisions, so that only those
//! sessions are evaluated again that the change can affect.

mod address_classes;
mod address_sets;
mod addresses;
mod network;
pub mod snapshot;
mod uplinks;

use crate::acl::RowLimits;
use crate::acl::compile::Directions;
use crate::compile::snapshot::{EniEntry, GuestFacts, Snapshot};
use crate::config::desired::{Desired, DesiredEni, DesiredPort, DesiredPrefixList, DesiredVpc, Direction, Settings};
use crate::config::ids::{EniEpoch, EniId, EniIndex, GroupId, VSwitchId, VpcId, VpcIndex};
use crate::config::limits::MTU_BYTES_MAX;
use crate::config::packed_timeouts::PackedTimeouts;
use crate::config::protocol::Delta;
use crate::config::refusal::Refusal;
use crate::config::validate::{References, validate};
use crate::conntrack::EPOCHS_MAX;
use crate::tables::cow_array::CowArray;
use alloc::borrow::Cow;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use ipnet::IpNet;
use network::{Dirty, NetworkInput, NetworkState};

/// Compiles a state from scratch.
///
/// # Errors
/// All refusals. Nothing is compiled partially.
pub fn compile(desired: &Desired, generation: u64) -> Result<Snapshot, Vec<Refusal>> {
    Compiler::new([0; 2]).replace(desired, generation)
}

/// The desired state and what was compiled from it.
#[derive(Debug)]
pub struct Compiler {
    secret: [u64; 2],
    limits: Option<RowLimits>,
    desired: Desired,
    references: References,
    vpcs: BTreeMap<VpcId, NetworkState>,
    by_id: BTreeMap<EniId, EniIndex>,
    /// The names of the ENIs, by index.
    names: Vec<Option<Arc<EniId>>>,
    free: BTreeSet<u32>,
    /// ENIs with rate limits.
    rate_limited: BTreeSet<EniIndex>,
    /// The newest generation.
    snapshot: Snapshot,
    /// The newest policy revision that was assigned.
    revision: u32,
    /// The newest epoch that was assigned to an ENI.
    epoch: u32,
    /// The newest version of a table of external addresses.
    nat_version: u64,
}

impl Compiler {
    /// A compiler for a state without objects. `secret` keys the hash tables, so that whoever chooses addresses cannot
    /// choose their places in the tables.
    pub fn new(secret: [u64; 2]) -> Self {
        let snapshot = Snapshot {
            generation: 0,
            identity: Arc::new(()),
            settings: Settings::default(),
            enis: CowArray::default(),
            vpcs: CowArray::default(),
            uplinks: Arc::from([]),
            has_rate_limits: false,
            revision_min: 0,
            numbering: Arc::from([]),
        };
        Self {
            secret,
            limits: None,
            desired: Desired::default(),
            references: References::default(),
            vpcs: BTreeMap::new(),
            by_id: BTreeMap::new(),
            names: Vec::new(),
            free: BTreeSet::new(),
            rate_limited: BTreeSet::new(),
            snapshot,
            revision: 0,
            epoch: 0,
            nat_version: 0,
        }
    }

    /// Sets limits for the rows of ACLs, in place of those that follow from the number of rules.
    pub fn with_limits(self, limits: RowLimits) -> Self {
        Self { limits: Some(limits), ..self }
    }

    /// The state from which the newest generation was compiled.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// The newest generation.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The index of an ENI.
    pub fn eni_index(&self, id: &EniId) -> Option<EniIndex> {
        self.by_id.get(id).copied()
    }

    /// Compiles `desired`, whatever the state was before.
    ///
    /// # Errors
    /// All refusals; the state is then unchanged.
    pub fn replace(&mut self, desired: &Desired, generation: u64) -> Result<Snapshot, Vec<Refusal>> {
        self.apply(Delta::between(&self.desired, desired), generation)
    }

    /// Compiles the state to which `delta` leads.
    ///
    /// # Errors
    /// All refusals; the state is then unchanged.
    pub fn apply(&mut self, delta: Delta, generation: u64) -> Result<Snapshot, Vec<Refusal>> {
        let refusals = delta.refusals(&self.desired);
        if !refusals.is_empty() {
            return Err(refusals);
        }
        let mut before = delta.apply(&mut self.desired);
        // What a delta names but leaves as it was must not cost its sessions a new evaluation.
        before.forget_unchanged(&self.desired);
        // Where the delta keeps all references intact, the walk over the whole state is saved.
        if !self.references.allow(&before, &self.desired) {
            let refusals = validate(&self.desired);
            if !refusals.is_empty() {
                // The state is changed in place and then restored, since copying it would cost more than most changes.
                before.apply(&mut self.desired);
                return Err(refusals);
            }
        }
        self.references.follow(&before, &self.desired);
        self.make(&before);
        self.snapshot.generation = generation;
        // A new identity also for an equal snapshot: caches of paths are invalidated by it, not by the number.
        self.snapshot.identity = Arc::new(());
        self.note_generation(generation);
        Ok(self.snapshot.clone())
    }

    /// Records which generation introduced the newest revision. Entries are few, since only a restart of either plane
    /// makes the two numbers diverge.
    fn note_generation(&mut self, generation: u64) {
        const JUMPS_MAX: usize = 64;
        if self.snapshot.generation_of(self.revision) == Some(generation) {
            return;
        }
        let known = self.snapshot.numbering.iter().filter(|(first, _)| *first < self.revision);
        let mut numbering: Vec<_> = known.copied().collect();
        numbering.push((self.revision, generation));
        self.snapshot.numbering = numbering[numbering.len().saturating_sub(JUMPS_MAX)..].into();
    }

    /// Compiles a change that the desired state already contains; `before` is its inverse.
    fn make(&mut self, before: &Delta) {
        // Taken out so that `self` can be changed while the change borrows the state; put back at the end.
        let desired = core::mem::take(&mut self.desired);
        let revision = self.next_revision();
        // Only these settings take part in the decision about an existing session.
        let evaluated_by = |settings: &Settings| {
            (settings.intra_group_egress_bypass, settings.smtp_closed, settings.cut_sessions_on_deny)
        };
        let is_evaluated_otherwise = evaluated_by(&self.snapshot.settings) != evaluated_by(&desired.settings);
        // A new or removed subnet changes what is Internet, which step 1b depends on.
        if is_evaluated_otherwise || (desired.settings.smtp_closed && !before.vswitches.is_empty()) {
            self.snapshot.revision_min = revision;
        }
        if before.settings.is_some() {
            self.snapshot.settings = desired.settings.clone();
        }
        let change = AppliedDelta::new(before, &desired);
        let mut dirty = BTreeSet::new();
        // Facts are removed before any is added: an object that changed is removed as it was and added as it is.
        self.take_away(&change, &mut dirty);
        self.take_uplinks_away(&change, &mut dirty);
        self.number(&change);
        let acls = self.put_in_place(&change, &mut dirty);
        let uplink_acls = self.put_uplinks_in_place(&change, &mut dirty);
        self.change_lists_and_groups(&change, &mut dirty);
        self.finish(&change, dirty, revision);
        for (id, acl) in acls {
            self.enter(&change, (id, acl), revision);
        }
        for (id, acl) in uplink_acls {
            self.enter_uplink(&change, id, acl, revision);
        }
        // Freed last, so that no index is reused within the change that removes its ENI.
        let gone: Vec<EniIndex> = change.gone().filter_map(|id| self.by_id.remove(&*id)).collect();
        for index in gone {
            self.rate_limited.remove(&index);
            self.names[index.0 as usize] = None;
            *self.snapshot.enis.get_mut(index.0 as usize) = None;
            self.free.insert(index.0);
        }
        self.snapshot.uplinks = self.uplink_indexes(&change);
        self.snapshot.has_rate_limits = !self.rate_limited.is_empty();
        self.desired = desired;
    }

    /// Removes the facts of objects that were removed or changed.
    fn take_away(&mut self, change: &AppliedDelta<'_>, dirty: &mut BTreeSet<VpcId>) {
        let by_id = &self.by_id;
        // ENIs are still in the index here: those that go leave it at the end of `make`.
        let index_of = |id: &EniId| by_id.get(id).copied().unwrap_or_default();
        let places = self.vpc_places();
        let place_of = |id: &VpcId| places.get(id).copied().unwrap_or_default();
        for (id, vpc) in &change.before.vpcs {
            if let (Some(vpc), Some(state)) = (vpc, self.vpcs.get_mut(id)) {
                state.remove_vpc(vpc, index_of, place_of);
                dirty.insert(id.clone());
            }
        }
        for (id, vswitch) in &change.before.vswitches {
            let Some(vswitch) = vswitch else { continue };
            if let Some(state) = self.vpcs.get_mut(&vswitch.vpc) {
                let stays = change.desired.vswitches.get(id).is_some_and(|now| now.vpc == vswitch.vpc);
                state.remove_vswitch(id, vswitch, stays);
                dirty.insert(vswitch.vpc.clone());
            }
        }
        for (id, before) in &change.enis {
            let Some((eni, vpc)) = before else { continue };
            let index = index_of(id);
            let acl = self.snapshot.eni(index).map(|entry| entry.acl);
            if let (Some(state), Some(acl)) = (self.vpcs.get_mut(*vpc), acl) {
                state.remove_eni(eni, index, acl);
                dirty.insert(VpcId::clone(vpc));
            }
        }
    }

    /// Assigns indexes to new ENIs: first those that were free in the previous generation, then new ones. An index is
    /// never reused within one change, since packets on their way to the removed ENI must not reach its successor.
    fn number(&mut self, change: &AppliedDelta<'_>) {
        let uplinks = change.before.uplinks.keys().filter(|id| change.desired.uplinks.contains_key(*id));
        let uplinks = uplinks.map(|id| Cow::Owned(id.interface()));
        for id in change.present().map(|(id, _)| Cow::Borrowed(id)).chain(uplinks) {
            if self.by_id.contains_key(&*id) {
                continue;
            }
            let number = self.free.pop_first().unwrap_or_else(|| {
                self.names.push(None);
                self.names.len() as u32 - 1
            });
            self.names[number as usize] = Some(Arc::new(EniId::clone(&id)));
            self.by_id.insert(id.into_owned(), EniIndex(number));
        }
    }

    /// Adds the facts of objects that are new or changed. Returns the index of the ACL of each ENI.
    fn put_in_place<'a>(&mut self, change: &AppliedDelta<'a>, dirty: &mut BTreeSet<VpcId>) -> Vec<(&'a EniId, u32)> {
        let by_id = &self.by_id;
        let index_of = |id: &EniId| by_id.get(id).copied().unwrap_or_default();
        let here: Vec<(&VpcId, &DesiredVpc)> =
            change.before.vpcs.keys().filter_map(|id| change.desired.vpcs.get_key_value(id)).collect();
        for (id, _) in &here {
            // The lowest free index keeps the array of networks as short as the number of VPCs.
            let taken: BTreeSet<u32> = self.vpcs.values().map(|state| state.place).collect();
            let place = (0..).find(|place| !taken.contains(place)).unwrap_or(0);
            self.vpcs.entry(VpcId::clone(id)).or_insert_with(|| NetworkState::new(id, place, self.secret));
        }
        // Peers have their places only now.
        let places = self.vpc_places();
        let place_of = |id: &VpcId| places.get(id).copied().unwrap_or_default();
        for (id, vpc) in here {
            if let Some(state) = self.vpcs.get_mut(id) {
                state.add_vpc(vpc, index_of, place_of);
                dirty.insert(id.clone());
            }
        }
        for id in change.before.vswitches.keys() {
            let Some(vswitch) = change.desired.vswitches.get(id) else { continue };
            if let Some(state) = self.vpcs.get_mut(&vswitch.vpc) {
                state.add_vswitch(id, vswitch);
                dirty.insert(vswitch.vpc.clone());
            }
        }
        let mut acls = Vec::new();
        for (id, eni) in change.present() {
            let vpc = change.vpc_of(eni);
            if let Some(state) = self.vpcs.get_mut(vpc) {
                acls.push((id, state.add_eni(eni, index_of(id))));
                dirty.insert(vpc.clone());
            }
        }
        acls
    }

    /// The index of each VPC.
    fn vpc_places(&self) -> BTreeMap<VpcId, VpcIndex> {
        self.vpcs.iter().map(|(id, state)| (id.clone(), VpcIndex(state.place))).collect()
    }

    fn change_lists_and_groups(&mut self, change: &AppliedDelta<'_>, dirty: &mut BTreeSet<VpcId>) {
        let nothing = DesiredPrefixList::default();
        for (id, list) in &change.before.prefix_lists {
            let (then, now) = (list.as_ref().unwrap_or(&nothing), change.desired.prefix_lists.get(id));
            // A prefix list may be used in several VPCs, each with sets of its own.
            for (vpc, state) in &mut self.vpcs {
                if state.change_prefix_list(id, then, now.unwrap_or(&nothing)) {
                    dirty.insert(vpc.clone());
                }
            }
        }
        // A rule names a port list by its name, so a changed list changes the rules of those groups.
        let by_lists = change.before.port_lists.keys().flat_map(|list| self.references.groups_with_port_list(list));
        let whole = Dirty { whole: Directions::BOTH, ..Dirty::default() };
        let whole = change.before.groups.keys().chain(by_lists).map(|id| (id, whole));
        let by_rules = change.before.rules.keys().map(|id| {
            let changed = Dirty { by_rules: change.directions_of_rules(id), ..Dirty::default() };
            (id, changed)
        });
        for (id, changed) in whole.chain(by_rules) {
            for (vpc, state) in &mut self.vpcs {
                if state.change_group(id, changed) {
                    dirty.insert(vpc.clone());
                }
            }
        }
    }

    fn finish(&mut self, change: &AppliedDelta<'_>, dirty: BTreeSet<VpcId>, revision: u32) {
        let names = &self.names;
        let name_of = |index: EniIndex| names.get(index.0 as usize)?.as_deref();
        let input =
            NetworkInput { before: change.before, desired: change.desired, name_of: &name_of, limits: self.limits };
        for id in dirty {
            let Some(state) = self.vpcs.get_mut(&id) else { continue };
            let place = state.place as usize;
            *self.snapshot.vpcs.get_mut(place) = if change.desired.vpcs.contains_key(&id) {
                state.finish(&input, revision);
                Some(Arc::new(state.network()))
            } else {
                self.vpcs.remove(&id);
                None
            };
        }
    }

    /// Enters an ENI that is new or changed.
    fn enter(&mut self, change: &AppliedDelta<'_>, (id, acl): (&EniId, u32), revision: u32) {
        let Some((eni, index)) = change.desired.enis.get(id).zip(self.by_id.get(id).copied()) else { return };
        let Some(vswitch) = change.desired.vswitches.get(&eni.vswitch) else { return };
        let Some(state) = self.vpcs.get(&vswitch.vpc) else { return };
        let guest = Arc::new(guest_facts(eni, &vswitch.vpc));
        let (vpc, vswitch) = (state.place, state.vswitch_place(&eni.vswitch));
        let before = change.enis.get(id).copied().flatten();
        // The same guest interface as before: its sessions continue (§4.4: detaching ends them).
        let same = before
            .filter(|(before, was_in)| before.port.is_some() == eni.port.is_some() && *was_in == change.vpc_of(eni));
        let kept = same.zip(self.snapshot.eni(index).map(|entry| (entry.epoch, entry.revision, entry.acl)));
        let epoch = kept.map(|(_, (epoch, ..))| epoch);
        // The ENI's own part of a decision: its ACL and its addresses. Members of sets change the ACL's revision.
        let is_judged_alike =
            |(before, _): &(&DesiredEni, &VpcId), was: u32| was == acl && before.addresses == eni.addresses;
        let kept_revision = kept.filter(|(before, (.., was))| is_judged_alike(before, *was));
        let entry = EniEntry {
            id: self.names[index.0 as usize].clone().unwrap_or_default(),
            guest,
            epoch: epoch.unwrap_or_else(|| self.next_scope()),
            revision: kept_revision.map_or(revision, |(_, (_, revision, _))| revision),
            vpc,
            vswitch,
            acl,
            mac: eni.mac,
            ipv4: eni.addresses.iter().find_map(|address| match address {
                IpNet::V4(net) if net.prefix_len() == 32 => Some(net.addr().to_bits()),
                _ => None,
            }),
            ipv6: eni.addresses.iter().find_map(|address| match address {
                IpNet::V6(net) if net.prefix_len() == 128 => Some(net.addr().to_bits()),
                _ => None,
            }),
            source_dest_check: eni.source_dest_check,
            routed_as_own: eni.routed_as_own,
            is_uplink: false,
            tcp_window_check: eni.tracking.tcp_window_check,
            // Nothing is delivered to an ENI without a port, so any MTU does.
            mtu_bytes: eni.port.as_ref().map_or(MTU_BYTES_MAX as u16, DesiredPort::mtu_bytes),
            timeouts: PackedTimeouts::pack(eni.timeouts).unwrap_or_default(),
            sessions_max: eni.sessions_max,
            sessions_guaranteed: eni.tracking.sessions_guaranteed,
            new_sessions_per_s: eni.tracking.new_sessions_per_s,
            rate_limits: eni.rate_limits.are_any().then(|| Arc::new(eni.rate_limits)),
        };
        if entry.rate_limits.is_some() {
            self.rate_limited.insert(index);
        } else {
            self.rate_limited.remove(&index);
        }
        *self.snapshot.enis.get_mut(index.0 as usize) = Some(entry);
    }

    /// A revision newer than all others. When the numbers are exhausted, everything is evaluated again.
    fn next_revision(&mut self) -> u32 {
        if let Some(next) = self.revision.checked_add(1) {
            self.revision = next;
            return next;
        }
        const FIRST: u32 = 1;
        // Every recorded revision is older than the new one, hence each session is evaluated once more.
        for index in self.by_id.values() {
            if let Some(entry) = self.snapshot.enis.get_mut(index.0 as usize) {
                entry.revision = FIRST;
            }
        }
        for state in self.vpcs.values_mut() {
            state.reset_revisions(FIRST);
            *self.snapshot.vpcs.get_mut(state.place as usize) = Some(Arc::new(state.network()));
        }
        self.snapshot.revision_min = FIRST;
        self.revision = FIRST + 1;
        self.revision
    }

    fn next_scope(&mut self) -> EniEpoch {
        let taken: BTreeSet<u32> = if self.epoch + 1 < EPOCHS_MAX {
            BTreeSet::new() // Never given before.
        } else {
            self.snapshot.enis.iter().flatten().map(|eni| eni.epoch.0).collect()
        };
        loop {
            self.epoch = (self.epoch + 1) % EPOCHS_MAX;
            // Zero stands for no ENI.
            if self.epoch != 0 && !taken.contains(&self.epoch) {
                return EniEpoch(self.epoch);
            }
        }
    }
}

fn guest_facts(eni: &DesiredEni, vpc: &VpcId) -> GuestFacts {
    let ipv6_prefix = eni.addresses.iter().find_map(|address| match address {
        IpNet::V6(net) if net.prefix_len() < 128 => Some(*net),
        _ => None,
    });
    let is_configured = matches!(&eni.port, Some(DesiredPort::Tap(tap)) if tap.configure);
    GuestFacts { vpc: vpc.clone(), hostname: eni.hostname.clone(), ipv6_prefix, is_configured }
}

/// A change, as seen from the state after it.
struct AppliedDelta<'a> {
    /// The inverse change.
    before: &'a Delta,
    desired: &'a Desired,
    /// The ENIs in the change, each as it was, with the VPC that it was in.
    enis: BTreeMap<&'a EniId, Option<(&'a DesiredEni, &'a VpcId)>>,
}

impl<'a> AppliedDelta<'a> {
    fn new(before: &'a Delta, desired: &'a Desired) -> Self {
        let mut change = Self { before, desired, enis: BTreeMap::new() };
        let moved: BTreeSet<&VSwitchId> = before
            .vswitches
            .iter()
            .filter_map(|(id, then)| {
                let (then, now) = (then.as_ref()?, desired.vswitches.get(id)?);
                (then.vpc != now.vpc).then_some(id)
            })
            .collect();
        if !moved.is_empty() {
            // A subnet that moves to another VPC takes its ENIs along, though the delta does not name them.
            let within = desired.enis.iter().filter(|(_, eni)| moved.contains(&eni.vswitch));
            let within: Vec<_> = within.map(|(id, eni)| (id, Some((eni, change.was_in(eni))))).collect();
            change.enis.extend(within);
        }
        let named: Vec<_> =
            before.enis.iter().map(|(id, eni)| (id, eni.as_ref().map(|eni| (eni, change.was_in(eni))))).collect();
        // ENIs that the delta names come last: what it says of them replaces what the subnets imply.
        change.enis.extend(named);
        change
    }

    /// The VPC in which an ENI of the previous state was.
    fn was_in(&self, eni: &'a DesiredEni) -> &'a VpcId {
        match self.before.vswitches.get(&eni.vswitch) {
            // The subnet may have changed in the same delta; its previous VPC is in the inverse.
            Some(Some(vswitch)) => &vswitch.vpc,
            _ => self.vpc_of(eni),
        }
    }

    /// The VPC in which an ENI is.
    fn vpc_of(&self, eni: &DesiredEni) -> &'a VpcId {
        &self.desired.vswitches[&eni.vswitch].vpc
    }

    /// The directions of the rules of a group that changed one by one, both as they were and as they are.
    fn directions_of_rules(&self, id: &GroupId) -> Directions {
        let Some(rules) = self.before.rules.get(id) else { return Directions::default() };
        let group = self.desired.groups.get(id);
        let now = rules.keys().filter_map(|name| group?.rule(name));
        now.chain(rules.values().flatten()).fold(Directions::default(), |all, rule| all.with(rule.direction))
    }

    /// The ENIs in the change that exist after it.
    fn present(&self) -> impl Iterator<Item = (&'a EniId, &'a DesiredEni)> {
        self.enis.keys().filter_map(|id| self.desired.enis.get_key_value(*id))
    }

    /// The ENIs and uplinks that no longer exist.
    fn gone(&self) -> impl Iterator<Item = Cow<'a, EniId>> {
        let enis = self.enis.keys().copied().filter(|id| !self.desired.enis.contains_key(*id));
        let uplinks = self.before.uplinks.keys().filter(|id| !self.desired.uplinks.contains_key(*id));
        enis.map(Cow::Borrowed).chain(uplinks.map(|id| Cow::Owned(id.interface())))
    }
}

/// Whether members of a basic group bypass each other's rules in this direction (§3.2).
pub(crate) fn bypasses_intra_group(settings: &Settings, direction: Direction) -> bool {
    direction == Direction::Ingress || settings.intra_group_egress_bypass
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::compile::Sources;
    use crate::acl::{self, Acl};
    use crate::config::desired::{GroupKind, Policy, SecurityGroup};
    use crate::tables::address_class::{AddressClass, SetId};

    #[test]
    fn an_accepting_inner_policy_counts_for_basic_groups_alone() {
        let group = |kind| SecurityGroup { vpc: "vpc-1".into(), kind, inner_access: Policy::Accept, rules: Vec::new() };
        for (kind, open) in [(GroupKind::Basic, true), (GroupKind::Advanced, false)] {
            let (id, group) = (GroupId::from("sg-1"), group(kind));
            let port_lists = BTreeMap::new();
            let sources = Sources { port_lists: &port_lists, limits: None, holding: &[] };
            let rules = acl::compile::compile(&[(&id, &group)], sources, None, |_| SetId(0));
            let acl = Acl::new(Arc::new(rules), core::iter::empty(), None);
            assert_eq!(acl.shared_open_group(AddressClass::default(), |_| &[SetId(0)]).is_some(), open);
        }
    }

    #[test]
    fn when_revisions_run_out_everything_is_judged_again() {
        let json = r#"{
            "vpcs": {"vpc-1": {}},
            "vswitches": {"vsw-1": {"vpc": "vpc-1", "ipv4": "10.0.0.0/24"}},
            "groups": {"sg-1": {"vpc": "vpc-1", "kind": "basic", "inner_access": "drop"}},
            "enis": {"eni-1": {"vswitch": "vsw-1", "mac": "02:00:00:00:00:01", "groups": ["sg-1"],
                               "addresses": ["10.0.0.5/32"]}}}"#;
        let mut compiler = Compiler::new([0; 2]);
        compiler.revision = u32::MAX - 1;
        let last = compiler.replace(&serde_json::from_str(json).unwrap(), 1).unwrap();
        assert_eq!(last.revision(EniIndex(0)), Some(u32::MAX));
        let next = compiler.apply(Delta::default(), 2).unwrap();
        assert_eq!(next.revision(EniIndex(0)), Some(1));
    }
}
