//! Compiles groups and their rules to [`Rules`].

use crate::acl::bit_matrix::{put_bit, words_of};
use crate::acl::bit_order::{BitOrder, Rank};
use crate::acl::left_right::LeftRight;
use crate::acl::local_address::LocalAddress;
use crate::acl::rule_check::RuleCheck;
use crate::acl::rule_set::{AclRule, RuleSet};
use crate::acl::rules_by_set::RulesBySet;
use crate::acl::service_rows::{Numbered, ServiceRows};
use crate::acl::{AclGroup, RowLimits, Rules};
use crate::config::desired::{
    DesiredPortList, DesiredRule, Direction, GroupKind, Policy, PortRange, Ports, Remote, SecurityGroup,
};
use crate::config::ids::{GroupId, PortListId};
use crate::tables::address_class::SetId;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

/// What rules are compiled from.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The port lists. A missing one matches nothing.
    pub port_lists: &'a BTreeMap<PortListId, DesiredPortList>,
    /// Limits for the rows, in place of those that follow from the number of rules.
    pub limits: Option<RowLimits>,
    /// Rules that were compiled before, with the directions in which they are still valid. Those of the same groups are
    /// shared.
    pub holding: &'a [(Arc<Rules>, Directions)],
}

/// A change of a few rules of a set of groups.
pub(crate) struct Edits<'a> {
    /// The rules before the change.
    pub(crate) then: Arc<Rules>,
    /// The directions in which nothing else changed.
    pub(crate) directions: Directions,
    /// The rules that were removed or changed, as they were, with their groups.
    pub(crate) gone: Vec<(&'a GroupId, &'a DesiredRule)>,
    /// The rules that were added or changed, as they are now, with their groups.
    pub(crate) new: Vec<(&'a GroupId, &'a DesiredRule)>,
    /// The copies that recent changes replaced.
    pub(crate) left_right: &'a mut LeftRight<RuleSet, Vec<Edit>>,
}

/// A rule that is added or removed.
#[derive(Debug)]
pub(crate) struct Edit {
    rule: DesiredRule,
    set: SetId,
    /// The index in [`RuleSet::groups`].
    group: u32,
    /// The destination ports.
    ranges: Vec<PortRange>,
    is_there: bool,
}

/// A set of directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directions([bool; 2]);

impl Directions {
    /// Both directions.
    pub const BOTH: Self = Self([true; 2]);

    /// Adds a direction.
    #[must_use]
    pub const fn with(mut self, direction: Direction) -> Self {
        self.0[direction as usize] = true;
        self
    }

    /// The directions in either set.
    #[must_use]
    pub const fn union(self, Self([ingress, egress]): Self) -> Self {
        Self([self.0[0] | ingress, self.0[1] | egress])
    }

    /// The directions that are not in the set.
    #[must_use]
    pub const fn others(self) -> Self {
        Self([!self.0[0], !self.0[1]])
    }

    /// Whether a direction is in the set.
    pub const fn contains(self, direction: Direction) -> bool {
        self.0[direction as usize]
    }
}

/// Compiles the rules of ENIs that are in `groups`, which are all of one kind. `set_of` returns the set of a rule's
/// remote object. `edits` are all changes in the directions for which `sources.holding` has no rules.
pub(crate) fn compile(
    groups: &[(&GroupId, &SecurityGroup)],
    sources: Sources<'_>,
    mut edits: Option<Edits<'_>>,
    mut set_of: impl FnMut(&Remote) -> SetId,
) -> Rules {
    let kind = groups.first().map_or(GroupKind::Basic, |(_, group)| group.kind);
    let mut mentions = Vec::new();
    let mut filter_groups = Vec::with_capacity(groups.len());
    for &(id, group) in groups {
        let is_open = group.kind == GroupKind::Basic && group.inner_access == Policy::Accept;
        // A group whose members reach each other is asked for even if no rule names it.
        let open_members = is_open.then(|| set_of(&Remote::Group(id.clone())));
        mentions.extend(open_members);
        filter_groups.push(AclGroup { id: id.clone(), open_members });
    }
    let mut direction = |direction| {
        let has_rules =
            |(_, group): &&(&GroupId, &SecurityGroup)| group.rules.iter().any(|rule| rule.direction == direction);
        // ENIs whose groups differ only by groups without rules in this direction share the compiled direction.
        let groups: Vec<_> = groups.iter().filter(has_rules).copied().collect();
        let is_of_groups = |rules: &RuleSet| rules.groups.iter().eq(groups.iter().map(|(id, _)| *id));
        let holding = sources.holding.iter().filter(|(_, directions)| directions.contains(direction));
        let mut holding = holding.map(|(rules, _)| rules.of(direction));
        let holding = holding.find(|rules| is_of_groups(rules)).cloned();
        let mut edited = || {
            let edits = edits.as_mut().filter(|edits| edits.directions.contains(direction))?;
            is_of_groups(edits.then.of(direction)).then_some(())?;
            edits.rule_set(direction, sources.port_lists, &mut set_of)
        };
        // Unchanged rules are shared before edits are considered, and only what neither covers is compiled.
        let rules = holding.or_else(&mut edited).unwrap_or_else(|| {
            let mut rules: Vec<(u32, SetId, &DesiredRule)> = Vec::new();
            for (place, (_, group)) in groups.iter().enumerate() {
                let of_direction = group.rules.iter().filter(|rule| rule.direction == direction);
                rules.extend(of_direction.map(|rule| (place as u32, set_of(&rule.conditions.remote), rule)));
            }
            let groups = groups.iter().map(|(id, _)| GroupId::clone(id)).collect();
            Arc::new(rule_set(groups, rules, (sources.port_lists, sources.limits)))
        });
        mentions.extend(rules.rules_by_set.sets());
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
    mut rules: Vec<(u32, SetId, &DesiredRule)>,
    (port_lists, limits): (&BTreeMap<PortListId, DesiredPortList>, Option<RowLimits>),
) -> RuleSet {
    // Equal ranks may come in any order. Adjacent rules of one set make rows that share words.
    rules.sort_by_key(|(_, set, rule)| (Rank::of(rule), *set));
    let bytes_max = limits.unwrap_or(RowLimits::of_rules(rules.len())).services_bytes_max;
    let ranks: Vec<Rank> = rules.iter().map(|(.., rule)| Rank::of(rule)).collect();
    let (order, bits) = BitOrder::spread(&ranks);
    let words = order.words();
    let ranges: Vec<Vec<PortRange>> = rules.iter().map(|(.., rule)| ranges_of(rule, port_lists)).collect();
    let with_ranges = bits.iter().zip(&rules).zip(&ranges);
    let numbered: Vec<Numbered<'_>> =
        with_ranges.map(|((&bit, &(.., rule)), ranges)| Numbered { bit, rule, ranges }).collect();
    let services = ServiceRows::compile(&numbered, words, bytes_max);
    let local = LocalAddress::compile(&numbered, words, bytes_max);
    let is_checked = |rule: &Numbered<'_>| RuleCheck::is_needed_for(&rule.rule.conditions);
    let needs_checks = !services.is_exact || matches!(local, LocalAddress::Checked) || numbered.iter().any(is_checked);
    let room = words * u64::BITS as usize;
    let rules_by_set = RulesBySet::new(rules.iter().map(|(_, set, _)| *set).zip(bits.iter().copied()), words);
    let mut set = RuleSet {
        groups,
        accepts: vec![0; words],
        rules_by_set: Arc::new(rules_by_set),
        services,
        local,
        checks: needs_checks.then(|| vec![RuleCheck::default(); room]),
        rules: vec![None; room],
        order,
    };
    for (rule, (group, ..)) in numbered.iter().zip(&rules) {
        set.enter(*rule, *group);
    }
    set
}

impl Edits<'_> {
    /// The rules of a direction with these edits applied, or `None` if they have to be compiled anew.
    fn rule_set(
        &mut self,
        direction: Direction,
        port_lists: &BTreeMap<PortListId, DesiredPortList>,
        mut set_of: impl FnMut(&Remote) -> SetId,
    ) -> Option<Arc<RuleSet>> {
        let then = self.then.of(direction);
        let mut edit = |group: &GroupId, rule: &DesiredRule, is_there: bool| {
            let group = then.groups.binary_search(group).ok()? as u32;
            let (set, ranges) = (set_of(&rule.conditions.remote), ranges_of(rule, port_lists));
            Some(Edit { rule: rule.clone(), set, group, ranges, is_there })
        };
        let of_direction = |(_, rule): &&(&GroupId, &DesiredRule)| rule.direction == direction;
        // Removals come first: they free bits that the additions may then take.
        let gone = self.gone.iter().filter(of_direction).map(|(group, rule)| (*group, *rule, false));
        let new = self.new.iter().filter(of_direction).map(|(group, rule)| (*group, *rule, true));
        let edits: Option<Vec<Edit>> =
            gone.chain(new).map(|(group, rule, is_there)| edit(group, rule, is_there)).collect();
        let make = |rules: &mut RuleSet, edits: &Vec<Edit>| edits.iter().all(|edit| rules.edit(edit));
        // Rows that would be mostly empty cost every look-up, so a set that shrank much is compiled anew.
        self.left_right.change(then, make, edits?, then.bytes()).filter(|rules| rules.is_well_filled())
    }
}

impl RuleSet {
    /// Applies an edit. If it returns false, the rule set is unusable.
    fn edit(&mut self, edit: &Edit) -> bool {
        let Edit { rule, set, group, ranges, is_there } = edit;
        if !is_there {
            let is_it = |bit: &u32| {
                let found = self.rules[*bit as usize].as_ref();
                found.is_some_and(|found| found.id == rule.id && found.group == *group)
            };
            let Some(bit) = self.rules_by_set.of(*set).iter().copied().find(is_it) else { return false };
            self.services.remove(Numbered { bit, rule, ranges });
            self.local.put(bit, rule, false);
            self.order.free(bit);
            put_bit(&mut self.accepts, bit, false);
            self.rules[bit as usize] = None;
            Arc::make_mut(&mut self.rules_by_set).remove(*set, bit);
            return true;
        }
        // A set without confirmations never confirms, so it cannot take a rule that needs it.
        if self.checks.is_none() && RuleCheck::is_needed_for(&rule.conditions) {
            return false;
        }
        let Some(bit) = self.order.take(Rank::of(rule)) else { return false };
        let rule = Numbered { bit, rule, ranges };
        self.enter(rule, *group);
        Arc::make_mut(&mut self.rules_by_set).insert(*set, bit);
        // The result matters: a rule whose local prefix or ports have no rows makes the edited set unusable.
        self.local.put(bit, rule.rule, true) && self.services.insert(rule)
    }

    /// Enters the rule itself, without its rows.
    fn enter(&mut self, Numbered { bit, rule, ranges }: Numbered<'_>, group: u32) {
        put_bit(&mut self.accepts, bit, rule.policy == Policy::Accept);
        self.rules[bit as usize] = Some(AclRule { id: rule.id.clone(), group });
        if let Some(checks) = &mut self.checks {
            checks[bit as usize] = RuleCheck::new(Numbered { bit, rule, ranges });
        }
    }

    /// Whether the rows are not much longer than the number of rules requires.
    fn is_well_filled(&self) -> bool {
        let rules = self.rules_by_set.len();
        // A sixteenth of slack keeps a set at a boundary from being compiled anew with every other change.
        words_of(rules + rules / 16) >= self.order.words()
    }
}

/// The destination ports of a rule; empty if it does not look at ports.
fn ranges_of(rule: &DesiredRule, port_lists: &BTreeMap<PortListId, DesiredPortList>) -> Vec<PortRange> {
    match &rule.conditions.ports {
        Ports::Any => Vec::new(),
        Ports::Range(range) => vec![*range],
        Ports::List(list) => port_lists.get(list).map_or_else(Vec::new, |list| list.entries.iter().copied().collect()),
    }
}
