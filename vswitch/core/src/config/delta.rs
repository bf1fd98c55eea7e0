//! A change to a desired state, and the change that reverts it.

use crate::config::desired::{
    Desired, DesiredEni, DesiredPortList, DesiredPrefixList, DesiredRule, DesiredUplink, DesiredVpc, DesiredVswitch,
    SecurityGroup, Settings,
};
use crate::config::ids::{EniId, GroupId, PortListId, PrefixListId, RuleId, UplinkId, VSwitchId, VpcId};
use crate::config::refusal::Refusal;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// A change to a desired state: objects to set whole, objects to remove, and single rules to set or remove.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Delta {
    /// New settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
    /// VPCs: set, or removed where `null`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub vpcs: BTreeMap<VpcId, Option<DesiredVpc>>,
    /// Subnets: set, or removed where `null`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub vswitches: BTreeMap<VSwitchId, Option<DesiredVswitch>>,
    /// Groups: set with all their rules, or removed where `null`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<GroupId, Option<SecurityGroup>>,
    /// Rules of groups that exist, applied after `groups`: set, or removed where `null`. A new rule is inserted before
    /// the first rule with a greater name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: BTreeMap<GroupId, BTreeMap<RuleId, Option<DesiredRule>>>,
    /// Prefix lists: set, or removed where `null`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub prefix_lists: BTreeMap<PrefixListId, Option<DesiredPrefixList>>,
    /// Port lists: set, or removed where `null`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub port_lists: BTreeMap<PortListId, Option<DesiredPortList>>,
    /// ENIs: set, or removed where `null`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub enis: BTreeMap<EniId, Option<DesiredEni>>,
    /// Uplinks: set, or removed where `null`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub uplinks: BTreeMap<UplinkId, Option<DesiredUplink>>,
}

impl Delta {
    /// What turns `old` into `new`.
    pub fn between(old: &Desired, new: &Desired) -> Self {
        let mut delta = Self {
            settings: (old.settings != new.settings).then(|| new.settings.clone()),
            vpcs: map_difference(&old.vpcs, &new.vpcs),
            vswitches: map_difference(&old.vswitches, &new.vswitches),
            prefix_lists: map_difference(&old.prefix_lists, &new.prefix_lists),
            port_lists: map_difference(&old.port_lists, &new.port_lists),
            enis: map_difference(&old.enis, &new.enis),
            uplinks: map_difference(&old.uplinks, &new.uplinks),
            ..Self::default()
        };
        for id in old.groups.keys().filter(|id| !new.groups.contains_key(*id)) {
            delta.groups.insert(id.clone(), None);
        }
        for (id, now) in &new.groups {
            match old.groups.get(id) {
                Some(then) if then == now => {}
                Some(then) if differs_in_rules_alone(then, now) => {
                    delta.rules.insert(id.clone(), rules_difference(&then.rules, &now.rules));
                }
                _ => drop(delta.groups.insert(id.clone(), Some(now.clone()))),
            }
        }
        delta
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Every reason why this change cannot be applied to `desired`, whatever the result would be.
    pub fn refusals(&self, desired: &Desired) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        for (id, rules) in &self.rules {
            let is_there = self.groups.get(id).map_or(desired.groups.contains_key(id), Option::is_some);
            if !is_there {
                refusals.push(Refusal::new("unknown", format!("rules/{id}"), format!("there is no group {id}")));
            }
            for (name, rule) in rules {
                if rule.as_ref().is_some_and(|rule| rule.id != *name) {
                    let message: String = "the rule has another name".into();
                    refusals.push(Refusal::new("invalid", format!("rules/{id}/{name}"), message));
                }
            }
        }
        refusals
    }

    /// Applies this change to `desired`. Returns the change that reverts it: every object named here, as it was before.
    pub fn apply(self, desired: &mut Desired) -> Self {
        let settings = self.settings.map(|settings| core::mem::replace(&mut desired.settings, settings));
        let groups = map_apply(&mut desired.groups, self.groups);
        let mut rules = BTreeMap::new();
        for (id, changes) in self.rules {
            let Some(group) = desired.groups.get_mut(&id) else { continue };
            let back = rules_apply(group, changes);
            if !groups.contains_key(&id) {
                rules.insert(id, back);
            }
        }
        Self {
            settings,
            vpcs: map_apply(&mut desired.vpcs, self.vpcs),
            vswitches: map_apply(&mut desired.vswitches, self.vswitches),
            groups,
            rules,
            prefix_lists: map_apply(&mut desired.prefix_lists, self.prefix_lists),
            port_lists: map_apply(&mut desired.port_lists, self.port_lists),
            enis: map_apply(&mut desired.enis, self.enis),
            uplinks: map_apply(&mut desired.uplinks, self.uplinks),
        }
    }

    /// Removes what already is so in `desired`.
    pub(crate) fn forget_unchanged(&mut self, desired: &Desired) {
        self.settings.take_if(|settings| *settings == desired.settings);
        map_forget(&mut self.vpcs, &desired.vpcs);
        map_forget(&mut self.vswitches, &desired.vswitches);
        map_forget(&mut self.groups, &desired.groups);
        self.rules.retain(|id, rules| {
            let group = desired.groups.get(id);
            rules.retain(|name, rule| rule.as_ref() != group.and_then(|group| group.rule(name)));
            !rules.is_empty()
        });
        map_forget(&mut self.prefix_lists, &desired.prefix_lists);
        map_forget(&mut self.port_lists, &desired.port_lists);
        map_forget(&mut self.enis, &desired.enis);
        map_forget(&mut self.uplinks, &desired.uplinks);
    }
}

fn map_difference<K: Ord + Clone, V: PartialEq + Clone>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) -> BTreeMap<K, Option<V>> {
    let removed = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), None));
    let set = new.iter().filter(|(key, value)| old.get(*key) != Some(*value));
    removed.chain(set.map(|(key, value)| (key.clone(), Some(value.clone())))).collect()
}

fn map_apply<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>, changes: BTreeMap<K, Option<V>>) -> BTreeMap<K, Option<V>> {
    let mut back = BTreeMap::new();
    for (key, value) in changes {
        let before = match value {
            Some(value) => map.insert(key.clone(), value),
            None => map.remove(&key),
        };
        back.insert(key, before);
    }
    back
}

fn map_forget<K: Ord, V: PartialEq>(changes: &mut BTreeMap<K, Option<V>>, map: &BTreeMap<K, V>) {
    changes.retain(|key, value| value.as_ref() != map.get(key));
}

/// Whether a few changes of single rules, inserted where [`Delta::rules`] says, lead from `then` to `now`.
fn differs_in_rules_alone(then: &SecurityGroup, now: &SecurityGroup) -> bool {
    let in_order = |group: &SecurityGroup| group.rules.is_sorted_by(|one, other| one.id < other.id);
    (&then.vpc, then.kind, then.inner_access) == (&now.vpc, now.kind, now.inner_access)
        && in_order(then)
        && in_order(now)
}

/// The rules that differ. `old` and `new` are ordered by name.
fn rules_difference(old: &[DesiredRule], new: &[DesiredRule]) -> BTreeMap<RuleId, Option<DesiredRule>> {
    let find = |rules: &[DesiredRule], id: &RuleId| rules.binary_search_by(|rule| rule.id.cmp(id)).ok();
    let removed = old.iter().filter(|rule| find(new, &rule.id).is_none()).map(|rule| (rule.id.clone(), None));
    let set = new.iter().filter(|rule| find(old, &rule.id).map(|place| &old[place]) != Some(*rule));
    removed.chain(set.map(|rule| (rule.id.clone(), Some(rule.clone())))).collect()
}

fn rules_apply(
    group: &mut SecurityGroup,
    changes: BTreeMap<RuleId, Option<DesiredRule>>,
) -> BTreeMap<RuleId, Option<DesiredRule>> {
    let mut back = BTreeMap::new();
    for (id, rule) in changes {
        let place = group.place_of_rule(&id);
        let rules = &mut group.rules;
        let before = match (place, rule) {
            (Some(place), Some(rule)) => Some(core::mem::replace(&mut rules[place], rule)),
            (Some(place), None) => Some(rules.remove(place)),
            (None, Some(rule)) => {
                let place = rules.iter().position(|other| other.id > id).unwrap_or(rules.len());
                rules.insert(place, rule);
                None
            }
            (None, None) => None,
        };
        back.insert(id, before);
    }
    back
}
