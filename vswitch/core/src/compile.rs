//! Desired state to snapshot, or every reason why not.
//!
//! A generation takes over from the one before it what did not change: the numbers of ENIs and sets, whole filters, and
//! above all the policy revisions, so that a change makes only those sessions be judged again that it can touch.

use crate::desired::{Desired, Direction, Eni, Port, Ports, Remote, SecurityGroup, Settings};
use crate::filter::{self, Filter, SetId};
use crate::flow::PackedTimeouts;
use crate::flow::SCOPES_MAX;
use crate::ids::{EniId, EniIndex, FlowScope, GroupId, VSwitchId, VpcId};
use crate::limits::MTU_BYTES_MAX;
use crate::prefix_map::PrefixMap;
use crate::protocol::Refusal;
use crate::route::Route;
use crate::snapshot::{EniEntry, SetEntry, SetKey, SetRegistry, Snapshot, VSwitchEntry, VpcNetwork};
use crate::validate::validate;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;
use ipnet::IpNet;

/// Compiles one generation, taking over from `previous` what did not change.
///
/// # Errors
/// Every refusal found. Nothing is half compiled.
pub fn compile(desired: &Desired, generation: u64, previous: Option<&Snapshot>) -> Result<Snapshot, Vec<Refusal>> {
    let refusals = validate(desired);
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let mut sets = previous.map_or_else(SetRegistry::default, |previous| previous.sets.clone());
    let filters = compile_filters(desired, previous, &mut sets);
    let changed = sets.settle(desired, &filters);
    let (by_id, size) = number_enis(desired, previous);
    let vpc_places: BTreeMap<&VpcId, usize> = desired.vpcs.keys().enumerate().map(|(place, id)| (id, place)).collect();
    let vswitch_places = number_vswitches(desired);

    let mut snapshot = Snapshot {
        generation,
        desired: desired.clone(),
        enis: (0..size).map(|_| None).collect(),
        vpcs: Vec::new(),
        revision: previous.map_or(0, |previous| previous.revision),
        scope: previous.map_or(0, |previous| previous.scope),
        by_id,
        filters,
        sets,
    };
    snapshot.vpcs = desired.vpcs.keys().map(|id| compile_vpc(desired, id, &snapshot)).collect();
    let revision = snapshot.revision.checked_add(1).unwrap_or(1);
    for (id, eni) in &desired.enis {
        let Some(filter) = snapshot.filters.get(&filter_key(eni)).cloned() else { continue };
        let before = previous.and_then(|previous| Some((previous, previous.eni(previous.eni_index(id)?)?)));
        let (vpc_id, vswitch) = vswitch_places[&eni.vswitch];
        let kept_scope = before.filter(|(previous, _)| keeps_sessions(desired, &previous.desired, id));
        let scope = match kept_scope {
            Some((_, entry)) => entry.scope,
            None => snapshot.next_scope(previous),
        };
        let kept_revision = kept_scope.filter(|(previous, entry)| {
            Arc::ptr_eq(&entry.filter, &filter)
                && !filter.mentions.iter().any(|set| changed.contains(set))
                && judges_alike(desired, &previous.desired, id)
        });
        let entry = EniEntry {
            id: id.clone(),
            scope,
            revision: kept_revision.map_or(revision, |(_, entry)| entry.revision),
            since_generation: kept_revision.map_or(generation, |(_, entry)| entry.since_generation),
            vpc: vpc_places[vpc_id],
            vswitch,
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
            tcp_window_check: eni.tracking.tcp_window_check,
            mtu_bytes: eni.port.as_ref().map_or(MTU_BYTES_MAX as u16, Port::mtu_bytes),
            timeouts: PackedTimeouts::pack(eni.timeouts, desired.settings.timeout_profile).unwrap_or_default(),
            sessions_max: eni.sessions_max,
            filter,
        };
        let place = snapshot.by_id[id].0 as usize;
        snapshot.enis[place] = Some(entry);
    }
    snapshot.revision = revision;
    Ok(snapshot)
}

impl Snapshot {
    fn next_scope(&mut self, previous: Option<&Snapshot>) -> FlowScope {
        let taken: BTreeSet<u32> = if self.scope + 1 < SCOPES_MAX {
            BTreeSet::new() // Never given before.
        } else {
            let enis = previous.iter().flat_map(|previous| &previous.enis).chain(&self.enis);
            enis.flatten().map(|eni| eni.scope.0).collect()
        };
        loop {
            self.scope = (self.scope + 1) % SCOPES_MAX;
            // Zero stands for no ENI at all.
            if self.scope != 0 && !taken.contains(&self.scope) {
                return FlowScope(self.scope);
            }
        }
    }
}

/// Whether the ENI is the same guest interface as before, so that its sessions go on (§4.4: detaching ends them).
fn keeps_sessions(desired: &Desired, before: &Desired, id: &EniId) -> bool {
    let (Some(now), Some(then)) = (desired.enis.get(id), before.enis.get(id)) else { return false };
    now.port.is_some() == then.port.is_some() && vpc_of(desired, now) == vpc_of(before, then)
}

/// Whether everything but the filter and its sets is as before in the eyes of a judgement at this ENI.
fn judges_alike(desired: &Desired, before: &Desired, id: &EniId) -> bool {
    let (Some(now), Some(then)) = (desired.enis.get(id), before.enis.get(id)) else { return false };
    let judged =
        |settings: &Settings| (settings.intra_group_egress_bypass, settings.smtp_closed, settings.cut_sessions_on_deny);
    now.addresses == then.addresses
        && judged(&desired.settings) == judged(&before.settings)
        && (!desired.settings.smtp_closed || desired.vswitches == before.vswitches)
}

fn vpc_of<'a>(desired: &'a Desired, eni: &Eni) -> Option<&'a VpcId> {
    desired.vswitches.get(&eni.vswitch).map(|vswitch| &vswitch.vpc)
}

fn filter_key(eni: &Eni) -> Box<[GroupId]> {
    eni.groups.iter().cloned().collect()
}

/// One filter for every set of groups that some ENI has.
fn compile_filters(
    desired: &Desired,
    previous: Option<&Snapshot>,
    sets: &mut SetRegistry,
) -> BTreeMap<Box<[GroupId]>, Arc<Filter>> {
    let keys: BTreeSet<Box<[GroupId]>> = desired.enis.values().map(filter_key).collect();
    let mut filters = BTreeMap::new();
    for key in keys {
        let reusable = previous.and_then(|previous| {
            let filter = previous.filters.get(&key)?;
            key.iter().all(|id| is_group_unchanged(desired, &previous.desired, id)).then_some(filter)
        });
        let filter = reusable.cloned().unwrap_or_else(|| {
            let groups: Vec<(&GroupId, &SecurityGroup)> =
                key.iter().filter_map(|id| Some((id, desired.groups.get(id)?))).collect();
            Arc::new(filter::compile::compile(&groups, &desired.port_lists, |remote| sets.intern(remote)))
        });
        filters.insert(key, filter);
    }
    filters
}

fn is_group_unchanged(desired: &Desired, before: &Desired, id: &GroupId) -> bool {
    let (Some(now), Some(then)) = (desired.groups.get(id), before.groups.get(id)) else { return false };
    let lists_unchanged = || {
        now.rules.iter().all(|rule| match &rule.ports {
            Ports::List(list) => desired.port_lists.get(list) == before.port_lists.get(list),
            _ => true,
        })
    };
    now == then && lists_unchanged()
}

impl SetRegistry {
    fn intern(&mut self, remote: &Remote) -> SetId {
        let key = match remote {
            Remote::Prefix(prefix) => SetKey::Prefix(prefix.trunc()),
            Remote::PrefixList(list) => SetKey::PrefixList(list.clone()),
            Remote::Group(group) => SetKey::Group(group.clone()),
        };
        if let Some(entry) = self.sets.get(&key) {
            return entry.id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            SetId(self.next - 1)
        });
        self.sets.insert(key, SetEntry { id, members: Vec::new() });
        id
    }

    /// Drops the sets that no filter mentions and fills in the others. Returns those whose members changed.
    fn settle(&mut self, desired: &Desired, filters: &BTreeMap<Box<[GroupId]>, Arc<Filter>>) -> BTreeSet<SetId> {
        let mentioned: BTreeSet<SetId> = filters.values().flat_map(|filter| filter.mentions.iter().copied()).collect();
        let free = &mut self.free;
        self.sets.retain(|_, entry| {
            let keep = mentioned.contains(&entry.id);
            if !keep {
                free.push(entry.id);
            }
            keep
        });
        let mut by_group: BTreeMap<&GroupId, Vec<IpNet>> = BTreeMap::new();
        for eni in desired.enis.values() {
            for group in &eni.groups {
                by_group.entry(group).or_default().extend(eni.addresses.iter().map(IpNet::trunc));
            }
        }
        let mut changed = BTreeSet::new();
        for (key, entry) in &mut self.sets {
            let members: Vec<IpNet> = match key {
                SetKey::Prefix(prefix) => [*prefix].into(),
                SetKey::PrefixList(list) => {
                    desired.prefix_lists.get(list).map_or_else(Vec::new, |list| list.entries.iter().copied().collect())
                }
                SetKey::Group(group) => {
                    let mut members = by_group.remove(group).unwrap_or_default();
                    members.sort_unstable();
                    members
                }
            };
            if members != entry.members {
                entry.members = members;
                changed.insert(entry.id);
            }
        }
        changed
    }
}

/// ENIs keep their numbers; new ones take places that were free in the generation before, then new places. A place is
/// never passed on within one change: packets on their way to the ENI that left must not meet its successor.
fn number_enis(desired: &Desired, previous: Option<&Snapshot>) -> (BTreeMap<EniId, EniIndex>, usize) {
    let mut by_id = BTreeMap::new();
    let before = previous.map(|previous| &previous.by_id);
    let taken: BTreeSet<u32> = before.iter().flat_map(|by_id| by_id.values()).map(|index| index.0).collect();
    for id in desired.enis.keys() {
        if let Some(&index) = before.and_then(|by_id| by_id.get(id)) {
            by_id.insert(id.clone(), index);
        }
    }
    let mut free = (0u32..).filter(|number| !taken.contains(number));
    for id in desired.enis.keys() {
        if !by_id.contains_key(id) {
            by_id.insert(id.clone(), EniIndex(free.next().unwrap_or(0)));
        }
    }
    let size = by_id.values().map(|index| index.0 as usize + 1).max().unwrap_or(0);
    (by_id, size)
}

/// Each subnet's VPC, and its place among the subnets of that VPC.
fn number_vswitches(desired: &Desired) -> BTreeMap<&VSwitchId, (&VpcId, u32)> {
    let mut counts: BTreeMap<&VpcId, u32> = BTreeMap::new();
    let numbered = desired.vswitches.iter().map(|(id, vswitch)| {
        let count = counts.entry(&vswitch.vpc).or_default();
        *count += 1;
        (id, (&vswitch.vpc, *count - 1))
    });
    numbered.collect()
}

fn compile_vpc(desired: &Desired, id: &VpcId, snapshot: &Snapshot) -> VpcNetwork {
    let vswitches: Vec<_> = desired.vswitches.values().filter(|vswitch| vswitch.vpc == *id).collect();
    let enis = desired.enis.iter().filter(|(_, eni)| vpc_of(desired, eni) == Some(id));
    let vpc = &desired.vpcs[id];
    let mut routes: Vec<(IpNet, Route)> = Vec::new();
    let via = vpc.routes.iter().map(|(prefix, eni)| (prefix.trunc(), Route::Via(snapshot.by_id[eni])));
    routes.extend(via);
    for vswitch in &vswitches {
        let blocks = vswitch.ipv4.map(IpNet::V4).into_iter().chain(vswitch.ipv6.map(IpNet::V6));
        routes.extend(blocks.map(|block| (block.trunc(), Route::Unowned)));
        let gateways = vswitch.ipv4_gateway.map(IpAddr::V4).into_iter().chain(vswitch.ipv6_gateway.map(IpAddr::V6));
        routes.extend(gateways.map(|gateway| (IpNet::from(gateway), Route::Gateway)));
    }
    let mut mentioned = BTreeSet::new();
    for (eni_id, eni) in enis {
        let owner = Route::Owner(snapshot.by_id[eni_id]);
        routes.extend(eni.addresses.iter().map(|prefix| (prefix.trunc(), owner)));
        if let Some(filter) = snapshot.filters.get(&filter_key(eni)) {
            mentioned.extend(filter.mentions.iter().copied());
        }
    }
    let sets = snapshot.sets.sets.values().filter(|entry| mentioned.contains(&entry.id));
    let memberships: Vec<(IpNet, SetId)> =
        sets.flat_map(|entry| entry.members.iter().map(|prefix| (prefix.trunc(), entry.id))).collect();
    let (class_of, classes) = classify(&memberships);
    VpcNetwork {
        salt: salt_of(id),
        gateway_mac: vpc.gateway_mac,
        vswitches: vswitches
            .iter()
            .map(|vswitch| VSwitchEntry { ipv4_gateway: vswitch.ipv4_gateway, ipv6_gateway: vswitch.ipv6_gateway })
            .collect(),
        routes: PrefixMap::build(&routes, |covering| covering.last().copied().unwrap_or(Route::Nowhere)),
        class_of,
        classes,
    }
}

/// A number that differs between VPCs (FNV-1a of the name), the same in every generation.
fn salt_of(id: &VpcId) -> u32 {
    id.as_str().bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Numbers the different sets of sets that addresses are in.
fn classify(memberships: &[(IpNet, SetId)]) -> (PrefixMap<u32>, Vec<Box<[SetId]>>) {
    let mut numbers: BTreeMap<Box<[SetId]>, u32> = BTreeMap::new();
    let mut classes: Vec<Box<[SetId]>> = Vec::new();
    let map = PrefixMap::build(memberships, |covering| {
        let mut sets = covering.to_vec();
        sets.sort_unstable();
        sets.dedup();
        let sets: Box<[SetId]> = sets.into();
        *numbers.entry(sets).or_insert_with_key(|sets| {
            classes.push(sets.clone());
            classes.len() as u32 - 1
        })
    });
    (map, classes)
}

/// Whether members of a basic group pass each other's rules in this direction (§3.2).
pub(crate) fn bypasses_intra_group(desired: &Desired, direction: Direction) -> bool {
    direction == Direction::Ingress || desired.settings.intra_group_egress_bypass
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::{GroupKind, Policy};

    #[test]
    fn an_accepting_inner_policy_counts_for_basic_groups_alone() {
        let group = |kind| SecurityGroup { vpc: "vpc-1".into(), kind, inner_access: Policy::Accept, rules: Vec::new() };
        for (kind, open) in [(GroupKind::Basic, true), (GroupKind::Advanced, false)] {
            let (id, group) = (GroupId::from("sg-1"), group(kind));
            let filter = filter::compile::compile(&[(&id, &group)], &BTreeMap::new(), |_| SetId(0));
            assert_eq!(filter.shared_open_group(&[SetId(0)]).is_some(), open);
        }
    }
}
