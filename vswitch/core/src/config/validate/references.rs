//! Which objects refer to which, so that a change can be checked by the objects in it.

use crate::config::desired::{Desired, DesiredEni, DesiredRule, Ports, Remote};
use crate::config::ids::{EniId, GroupId, PortListId, PrefixListId, VSwitchId, VpcId};
use crate::config::limits::{ENIS_MAX, RULES_PER_FILTER_MAX};
use crate::config::protocol::Delta;
use crate::config::validate::Validator;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use ipnet::IpNet;

/// If a change contains more ENIs than this, all ENIs are checked.
const ENIS_CHECKED_MAX: usize = 64;

/// What is referred to in a valid state, and by which objects.
#[derive(Debug, Default)]
pub(crate) struct References {
    owners: BTreeMap<VpcId, Owners>,
    devices: BTreeMap<(Option<String>, String), EniId>,
    members: BTreeMap<GroupId, usize>,
    /// For each object, how many rules of which groups name it.
    naming: BTreeMap<Named, BTreeMap<GroupId, usize>>,
}

/// What a rule may refer to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    Group(GroupId),
    PrefixList(PrefixListId),
    PortList(PortListId),
}

/// The addresses of a VPC.
#[derive(Debug, Default)]
struct Owners {
    by_address: BTreeMap<IpNet, EniId>,
    /// How many addresses there are of each prefix length, by family (IPv6 or not).
    lengths: BTreeMap<(bool, u8), usize>,
}

impl Owners {
    fn insert(&mut self, address: IpNet, eni: &EniId) {
        if self.by_address.insert(address, eni.clone()).is_none() {
            *self.lengths.entry(length_of(&address)).or_default() += 1;
        }
    }

    fn remove(&mut self, address: IpNet, eni: &EniId) {
        if self.by_address.get(&address) == Some(eni) {
            self.by_address.remove(&address);
            if let Some(count) = self.lengths.get_mut(&length_of(&address)) {
                *count -= 1;
            }
            self.lengths.retain(|_, count| *count > 0);
        }
    }

    /// Whether an address of an ENI for which `is_other` holds contains `address`, or is contained in it.
    fn collides(&self, address: IpNet, is_other: impl Fn(&EniId) -> bool) -> bool {
        let (is_v6, length) = length_of(&address);
        let lengths = self.lengths.range((is_v6, 0)..(is_v6, length)).map(|((_, length), _)| *length);
        let mut around = lengths.filter_map(|length| {
            let around = IpNet::new(address.addr(), length).ok()?.trunc();
            self.by_address.get(&around)
        });
        let last = IpNet::from(address.broadcast());
        around.any(&is_other) || self.by_address.range(address..=last).any(|(_, owner)| is_other(owner))
    }
}

fn length_of(address: &IpNet) -> (bool, u8) {
    (matches!(address, IpNet::V6(_)), address.prefix_len())
}

impl References {
    /// Whether the state that a change has led to is valid, as far as the objects in the change can show it, given that
    /// the state before was valid. `before` reverts the change. If the answer is no, the state may still be valid.
    pub(crate) fn allow(&self, before: &Delta, desired: &Desired) -> bool {
        let is_small = before.vpcs.is_empty()
            && before.vswitches.is_empty()
            && before.uplinks.is_empty()
            && before.enis.len() <= ENIS_CHECKED_MAX;
        // What is translated names ENIs and their addresses.
        let mut translated = desired.uplinks.values().flat_map(|uplink| uplink.nat.enis());
        let is_small = is_small && !translated.any(|id| before.enis.contains_key(id));
        let mut check = Validator { desired, refusals: Vec::new() };
        check.settings();
        is_small
            && self.allow_groups(before, &mut check)
            && self.allow_lists(before, &mut check)
            && self.allow_enis(before, &mut check)
            && check.refusals.is_empty()
    }

    fn allow_groups(&self, before: &Delta, check: &mut Validator<'_>) -> bool {
        for (id, then) in &before.groups {
            let Some(now) = check.desired.groups.get(id) else {
                if self.is_named(&Named::Group(id.clone())) || self.members.contains_key(id) {
                    return false;
                }
                continue;
            };
            if then.as_ref().is_some_and(|then| (&then.vpc, then.kind) != (&now.vpc, now.kind)) {
                return false;
            }
            check.group(id, now);
        }
        for (id, rules) in &before.rules {
            let Some(group) = check.desired.groups.get(id) else { return false };
            let now = rules.keys().filter_map(|name| group.rule(name));
            let is_good = now.map(|rule| check.rule(rule, &group.vpc)).all(|result| result.is_ok());
            if !is_good || group.rules.len() > RULES_PER_FILTER_MAX {
                return false;
            }
        }
        true
    }

    fn allow_lists(&self, before: &Delta, check: &mut Validator<'_>) -> bool {
        for (id, then) in &before.prefix_lists {
            let now = check.desired.prefix_lists.get(id);
            let family = |list: Option<&crate::config::desired::DesiredPrefixList>| {
                list.and_then(|list| list.entries.first()).map(|entry| matches!(entry, IpNet::V6(_)))
            };
            // A list without entries is of any family.
            let fits = match now {
                Some(_) if family(now).is_none() || family(now) == family(then.as_ref()) => true,
                Some(_) => self.rules_with(id, check.desired).all(|(rule, vpc)| check.rule(rule, vpc).is_ok()),
                None => !self.is_named(&Named::PrefixList(id.clone())),
            };
            if !fits {
                return false;
            }
            now.into_iter().for_each(|list| check.prefix_list(id, list));
        }
        for id in before.port_lists.keys() {
            match check.desired.port_lists.get(id) {
                Some(list) => check.port_list(id, list),
                None if self.is_named(&Named::PortList(id.clone())) => return false,
                None => {}
            }
        }
        true
    }

    fn allow_enis(&self, before: &Delta, check: &mut Validator<'_>) -> bool {
        let is_other = |id: &EniId| !before.enis.contains_key(id);
        let (mut addresses, mut devices) = (BTreeMap::new(), BTreeSet::new());
        for (id, then) in &before.enis {
            let now = check.desired.enis.get(id);
            let moved = then.as_ref().filter(|then| now.is_none_or(|now| now.vswitch != then.vswitch));
            let was_in = moved.and_then(|then| check.desired.vswitches.get(&then.vswitch));
            let vpc = was_in.and_then(|vswitch| check.desired.vpcs.get(&vswitch.vpc));
            if vpc.is_some_and(|vpc| vpc.routes.values().any(|next_hop| next_hop == id)) {
                return false;
            }
            let Some(now) = now else { continue };
            let Some(vswitch) = check.eni(id, now) else { return false };
            let owners = self.owners.get(&vswitch.vpc);
            for address in now.addresses.iter().map(IpNet::trunc) {
                let is_taken = owners.is_some_and(|owners| owners.collides(address, is_other));
                if is_taken || addresses.insert((&vswitch.vpc, address), id).is_some() {
                    return false;
                }
            }
            if let Some(device) = device_of(now) {
                let is_taken = self.devices.get(&device).is_some_and(is_other);
                if is_taken || !devices.insert(device) {
                    return false;
                }
            }
        }
        check.nested(&addresses);
        check.desired.enis.len() <= ENIS_MAX
    }

    fn is_named(&self, named: &Named) -> bool {
        self.naming.contains_key(named)
    }

    /// The rules that refer to a prefix list, each with the VPC of its group: rules of groups that referred to it
    /// before.
    fn rules_with<'a>(
        &'a self,
        id: &'a PrefixListId,
        desired: &'a Desired,
    ) -> impl Iterator<Item = (&'a DesiredRule, &'a VpcId)> {
        let groups = self.naming.get(&Named::PrefixList(id.clone())).into_iter().flat_map(BTreeMap::keys);
        let groups = groups.filter_map(|group| desired.groups.get(group));
        let rules = groups.flat_map(|group| group.rules.iter().map(|rule| (rule, &group.vpc)));
        rules.filter(move |(rule, _)| matches!(&rule.conditions.remote, Remote::PrefixList(list) if list == id))
    }

    /// The groups with rules that refer to a port list.
    pub(crate) fn groups_with_port_list(&self, list: &PortListId) -> impl Iterator<Item = &GroupId> {
        self.naming.get(&Named::PortList(list.clone())).into_iter().flat_map(BTreeMap::keys)
    }

    /// Follows a change that led to the valid state `desired`; `before` reverts it.
    pub(crate) fn follow(&mut self, before: &Delta, desired: &Desired) {
        let was_in = |id: &VSwitchId| match before.vswitches.get(id) {
            Some(then) => then.as_ref(),
            None => desired.vswitches.get(id),
        };
        let moved =
            |id: &&VSwitchId| was_in(id).map(|then| &then.vpc) != desired.vswitches.get(*id).map(|now| &now.vpc);
        let moved: BTreeSet<&VSwitchId> = before.vswitches.keys().filter(moved).collect();
        let stayed =
            desired.enis.iter().filter(|(id, eni)| moved.contains(&eni.vswitch) && !before.enis.contains_key(*id));
        let stayed: Vec<_> = if moved.is_empty() { Vec::new() } else { stayed.collect() };
        let then = before.enis.iter().filter_map(|(id, eni)| Some((id, eni.as_ref()?)));
        for (id, eni) in then.chain(stayed.iter().copied()) {
            if let Some(vswitch) = was_in(&eni.vswitch) {
                self.forget_eni(id, eni, &vswitch.vpc);
            }
        }
        let now = before.enis.keys().filter_map(|id| desired.enis.get_key_value(id));
        for (id, eni) in now.chain(stayed.iter().copied()) {
            if let Some(vswitch) = desired.vswitches.get(&eni.vswitch) {
                self.add_eni(id, eni, &vswitch.vpc);
            }
        }
        for (id, then) in &before.groups {
            let rules_of =
                |group: Option<&crate::config::desired::SecurityGroup>| group.map(|group| group.rules.clone());
            rules_of(then.as_ref()).iter().flatten().for_each(|rule| self.name(id, rule, false));
            rules_of(desired.groups.get(id)).iter().flatten().for_each(|rule| self.name(id, rule, true));
        }
        for (id, rules) in &before.rules {
            rules.values().flatten().for_each(|rule| self.name(id, rule, false));
            let group = desired.groups.get(id);
            let now = rules.keys().filter_map(|name| group?.rule(name));
            now.for_each(|rule| self.name(id, rule, true));
        }
    }

    fn add_eni(&mut self, id: &EniId, eni: &DesiredEni, vpc: &VpcId) {
        let owners = self.owners.entry(vpc.clone()).or_default();
        eni.addresses.iter().for_each(|address| owners.insert(address.trunc(), id));
        for group in &eni.groups {
            *self.members.entry(group.clone()).or_default() += 1;
        }
        if let Some(device) = device_of(eni) {
            self.devices.insert(device, id.clone());
        }
    }

    fn forget_eni(&mut self, id: &EniId, eni: &DesiredEni, vpc: &VpcId) {
        if let Some(owners) = self.owners.get_mut(vpc) {
            eni.addresses.iter().for_each(|address| owners.remove(address.trunc(), id));
            if owners.by_address.is_empty() {
                self.owners.remove(vpc);
            }
        }
        for group in &eni.groups {
            count(&mut self.members, group.clone(), false);
        }
        if let Some(device) = device_of(eni) {
            self.devices.remove(&device);
        }
    }

    /// Records that a rule of `group` exists, or no longer does.
    fn name(&mut self, group: &GroupId, rule: &DesiredRule, is_there: bool) {
        let object = match &rule.conditions.remote {
            Remote::Prefix(_) => None,
            Remote::PrefixList(list) => Some(Named::PrefixList(list.clone())),
            Remote::Group(other) => Some(Named::Group(other.clone())),
        };
        let ports =
            if let Ports::List(list) = &rule.conditions.ports { Some(Named::PortList(list.clone())) } else { None };
        for named in object.into_iter().chain(ports) {
            let groups = self.naming.entry(named.clone()).or_default();
            count(groups, group.clone(), is_there);
            if groups.is_empty() {
                self.naming.remove(&named);
            }
        }
    }
}

/// Counts one up or down; entries that reach zero are removed.
fn count<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K, up: bool) {
    if up {
        *counts.entry(key).or_default() += 1;
    } else if let Some(number) = counts.get_mut(&key) {
        *number -= 1;
        if *number == 0 {
            counts.remove(&key);
        }
    }
}

fn device_of(eni: &DesiredEni) -> Option<(Option<String>, String)> {
    let (device, namespace) = eni.port.as_ref()?.device()?;
    Some((namespace.map(String::from), String::from(device)))
}
