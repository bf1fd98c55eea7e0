//! Groups and their rules to a [`Filter`].

use super::rows::{LocalRows, RowCollector, Services, set_bit};
use super::{Filter, FilterGroup, FilterRule, RuleSet, SetId};
use crate::desired::{Direction, GroupKind, Policy, PortList, PortRange, Ports, Remote, Rule, SecurityGroup};
use crate::ids::{GroupId, PortListId};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

/// Compiles the filter of an ENI with `groups`, which are all of one kind. `set_of` names the set of a rule's object;
/// a port list that is missing matches nothing.
pub fn compile(
    groups: &[(&GroupId, &SecurityGroup)],
    port_lists: &BTreeMap<PortListId, PortList>,
    mut set_of: impl FnMut(&Remote) -> SetId,
) -> Filter {
    let kind = groups.first().map_or(GroupKind::Basic, |(_, group)| group.kind);
    let mut mentions = BTreeSet::new();
    let mut filter_groups = Vec::with_capacity(groups.len());
    for &(id, group) in groups {
        let is_open = group.kind == GroupKind::Basic && group.inner_access == Policy::Accept;
        let open_members = is_open.then(|| set_of(&Remote::Group(id.clone())));
        mentions.extend(open_members);
        filter_groups.push(FilterGroup { id: id.clone(), open_members });
    }
    let mut direction = |direction| {
        let mut rules: Vec<(u32, &Rule)> = Vec::new();
        for (place, (_, group)) in groups.iter().enumerate() {
            let of_direction = group.rules.iter().filter(|rule| rule.direction == direction);
            rules.extend(of_direction.map(|rule| (place as u32, rule)));
        }
        rule_set(rules, port_lists, &mut set_of, &mut mentions)
    };
    let (ingress, egress) = (direction(Direction::Ingress), direction(Direction::Egress));
    Filter { groups: filter_groups.into(), kind, ingress, egress, mentions: mentions.into_iter().collect() }
}

fn rule_set(
    mut rules: Vec<(u32, &Rule)>,
    port_lists: &BTreeMap<PortListId, PortList>,
    set_of: &mut impl FnMut(&Remote) -> SetId,
    mentions: &mut BTreeSet<SetId>,
) -> RuleSet {
    // §3.1: priority ascending, then drop before accept. The sort is stable, so equals stay in the order they came.
    rules.sort_by_key(|(_, rule)| (rule.priority, rule.policy == Policy::Accept));
    let sources: Vec<&Rule> = rules.iter().map(|&(_, rule)| rule).collect();
    let mut rows = RowCollector::new(sources.len());
    let mut by_set: BTreeMap<SetId, Vec<u64>> = BTreeMap::new();
    for (bit, rule) in sources.iter().enumerate() {
        let set = set_of(&rule.remote);
        mentions.insert(set);
        set_bit(by_set.entry(set).or_insert_with(|| rows.empty()), bit);
    }
    let remote: Box<[(SetId, u32)]> = by_set.into_iter().map(|(set, row)| (set, rows.add(&row))).collect();
    let ranges_of = |ports: &Ports| match ports {
        Ports::Any => Vec::new(),
        Ports::Range(range) => vec![*range],
        Ports::List(list) => port_lists.get(list).map_or_else(Vec::new, ranges_of_list),
    };
    RuleSet {
        remote,
        remote_rows: rows.finish(),
        services: Services::compile(&sources, ranges_of),
        local: LocalRows::compile(&sources),
        rules: rules
            .into_iter()
            .map(|(group, rule)| FilterRule { id: rule.id.clone(), policy: rule.policy, group })
            .collect(),
    }
}

fn ranges_of_list(list: &PortList) -> Vec<PortRange> {
    list.entries.iter().copied().collect()
}
