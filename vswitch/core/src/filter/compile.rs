//! Groups and their rules to [`Rules`].

use super::classes::RulesOfSets;
use super::local::Local;
use super::services::{PortCheck, Services};
use super::{Check, FilterGroup, FilterRule, RowLimits, RuleSet, Rules, SetId};
use crate::desired::{Direction, GroupKind, Policy, PortList, PortRange, Ports, Remote, Rule, SecurityGroup};
use crate::ids::{GroupId, PortListId};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

/// What there is to compile with.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// A port list that is missing matches nothing.
    pub port_lists: &'a BTreeMap<PortListId, PortList>,
    /// Bounds for rows that are other than those that suit their number of rules.
    pub limits: Option<RowLimits>,
    /// What was compiled before, and in which directions it still holds: there it is shared, where it is of the groups that
    /// are asked for.
    pub holding: &'a [(Arc<Rules>, Directions)],
}

/// Some directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directions([bool; 2]);

impl Directions {
    /// Both of them.
    pub const BOTH: Self = Self([true; 2]);

    /// These and one more.
    #[must_use]
    pub const fn with(mut self, direction: Direction) -> Self {
        self.0[direction as usize] = true;
        self
    }

    /// These and others.
    #[must_use]
    pub const fn union(self, Self([ingress, egress]): Self) -> Self {
        Self([self.0[0] | ingress, self.0[1] | egress])
    }

    /// The directions that are not among these.
    #[must_use]
    pub const fn others(self) -> Self {
        Self([!self.0[0], !self.0[1]])
    }

    const fn contains(self, direction: Direction) -> bool {
        self.0[direction as usize]
    }
}

/// Compiles the rules of ENIs with `groups`, which are all of one kind. `set_of` names the set of a rule's object.
pub fn compile(
    groups: &[(&GroupId, &SecurityGroup)],
    sources: Sources<'_>,
    mut set_of: impl FnMut(&Remote) -> SetId,
) -> Rules {
    let kind = groups.first().map_or(GroupKind::Basic, |(_, group)| group.kind);
    let mut mentions = Vec::new();
    let mut filter_groups = Vec::with_capacity(groups.len());
    for &(id, group) in groups {
        let is_open = group.kind == GroupKind::Basic && group.inner_access == Policy::Accept;
        let open_members = is_open.then(|| set_of(&Remote::Group(id.clone())));
        mentions.extend(open_members);
        filter_groups.push(FilterGroup { id: id.clone(), open_members });
    }
    let mut direction = |direction| {
        let has_rules =
            |(_, group): &&(&GroupId, &SecurityGroup)| group.rules.iter().any(|rule| rule.direction == direction);
        let groups: Vec<_> = groups.iter().filter(has_rules).copied().collect();
        let is_of_groups = |rules: &RuleSet| rules.groups.iter().eq(groups.iter().map(|(id, _)| *id));
        let holding = sources.holding.iter().filter(|(_, directions)| directions.contains(direction));
        let mut holding = holding.map(|(rules, _)| rules.of(direction));
        let rules = holding.find(|rules| is_of_groups(rules)).cloned().unwrap_or_else(|| {
            let mut rules: Vec<(u32, SetId, &Rule)> = Vec::new();
            for (place, (_, group)) in groups.iter().enumerate() {
                let of_direction = group.rules.iter().filter(|rule| rule.direction == direction);
                rules.extend(of_direction.map(|rule| (place as u32, set_of(&rule.remote), rule)));
            }
            let groups = groups.iter().map(|(id, _)| GroupId::clone(id)).collect();
            Arc::new(rule_set(groups, rules, (sources.port_lists, sources.limits)))
        });
        mentions.extend(rules.of_sets.sets());
        rules
    };
    let (ingress, egress) = (direction(Direction::Ingress), direction(Direction::Egress));
    mentions.sort_unstable();
    mentions.dedup();
    let has_open_groups = filter_groups.iter().any(|group| group.open_members.is_some());
    Rules { groups: filter_groups.into(), has_open_groups, kind, ingress, egress, mentions: mentions.into() }
}

fn rule_set(
    groups: Box<[GroupId]>,
    mut rules: Vec<(u32, SetId, &Rule)>,
    (port_lists, limits): (&BTreeMap<PortListId, PortList>, Option<RowLimits>),
) -> RuleSet {
    // §3.1: priority ascending, then drop before accept. Equals may stand in any order: those of one set together make
    // rows that share words.
    rules.sort_by_key(|(_, set, rule)| {
        u64::from(rule.priority) << 33 | u64::from(rule.policy == Policy::Accept) << 32 | u64::from(set.0)
    });
    let limits = limits.unwrap_or(RowLimits::of_rules(rules.len()));
    let sources: Vec<&Rule> = rules.iter().map(|&(_, _, rule)| rule).collect();
    let ranges: Vec<Vec<PortRange>> = sources.iter().map(|rule| ranges_of(rule, port_lists)).collect();
    let (services, is_exact) = Services::compile(&sources, &ranges, limits.services_bytes_max);
    let local = Local::compile(&sources, limits.services_bytes_max);
    let needs_checks = !is_exact || matches!(local, Local::Checked);
    let check =
        |(rule, ranges): (&&Rule, &Vec<PortRange>)| Check { ports: PortCheck::new(rule, ranges), local: rule.local };
    let sets: Vec<SetId> = rules.iter().map(|(_, set, _)| *set).collect();
    let mut accepts = vec![0; rules.len().div_ceil(u64::BITS as usize)];
    let accepting = sources.iter().enumerate().filter(|(_, rule)| rule.policy == Policy::Accept);
    accepting.for_each(|(bit, _)| super::rows::set_bit(&mut accepts, bit));
    RuleSet {
        groups,
        accepts: accepts.into(),
        of_sets: RulesOfSets::new(&sets),
        services,
        local,
        checks: needs_checks.then(|| sources.iter().zip(&ranges).map(check).collect::<Box<[Check]>>()),
        rules: rules.into_iter().map(|(group, _, rule)| FilterRule { id: rule.id.clone(), group }).collect(),
    }
}

/// The destination ports of a rule that has some.
fn ranges_of(rule: &Rule, port_lists: &BTreeMap<PortListId, PortList>) -> Vec<PortRange> {
    match &rule.ports {
        Ports::Any => Vec::new(),
        Ports::Range(range) => vec![*range],
        Ports::List(list) => port_lists.get(list).map_or_else(Vec::new, |list| list.entries.iter().copied().collect()),
    }
}
