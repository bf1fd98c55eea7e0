//! Rules of security groups: adding, removing, changing (`semantics.md` §1.3–§1.5).

mod text;

use super::group::Group;
use super::{Event, Model};
use crate::command::{RuleAuthorize, RuleChange, RuleModify, RuleRevoke, RuleSpec};
use crate::environment::Environment;
use crate::error::{
    ApiError, MISSING_PARAMETER, RULE_ADVANCED_HOLDER, RULE_ADVANCED_OBJECT, RULE_DEST_GROUP_MISMATCH,
    RULE_DEST_GROUP_NOT_FOUND, RULE_DUPLICATE, RULE_GROUP_OBJECT_LIMIT, RULE_ICMP_WITH_IPV6, RULE_ICMPV6_WITH_IPV4,
    RULE_ID, RULE_ID_NOT_FOUND, RULE_LIMIT, RULE_LIST_FAMILY, RULE_LIST_RESOURCE_LIMIT, RULE_MODIFY_EMPTY,
    RULE_NIC_TYPE, RULE_NOT_EXIST, RULE_SELF_DEST, RULE_SELF_SOURCE, RULE_SOURCE_GROUP_MISMATCH,
    RULE_SOURCE_GROUP_NOT_FOUND, RULES_DUPLICATE, RULES_PERMISSIONS,
};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
pub(super) use text::port_range;
pub(crate) use text::{RuleWords, protocol_text, same_rule};
use vswitch_core::config::desired::{
    Direction, GroupKind, MatchConditions, Policy, PortRange, Ports, Protocol, Remote,
};
use vswitch_core::config::ids::{GroupId, PortListId, PrefixListId, RuleId};

/// A rule of a security group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its direction.
    pub direction: Direction,
    /// What it does.
    pub policy: Policy,
    /// 1 is the strongest.
    pub priority: u8,
    /// The packets that it matches, with host bits masked.
    #[serde(flatten, serialize_with = "text::stored")]
    pub conditions: MatchConditions,
    /// The far side's prefix as it was entered, if it is one.
    pub remote_text: String,
    /// The near side as it was entered, if it is IPv4.
    #[serde(default)]
    pub local_text: String,
    /// Whether it applies to the public side of the classic network.
    #[serde(default)]
    pub internet: bool,
    /// What it is for.
    pub description: String,
    /// When it was made, seconds since 1970.
    pub created_s: u64,
}

impl Rule {
    /// Whether another rule is the same except for its description: the identity key (§1.5).
    pub(super) fn equals(&self, other: &Self) -> bool {
        // Field by field, so that a new one does not compile before it is decided here whether it counts.
        let Self {
            direction,
            policy,
            priority,
            conditions,
            remote_text: _,
            local_text: _,
            internet,
            description: _,
            created_s: _,
        } = self;
        *direction == other.direction
            && *policy == other.policy
            && *priority == other.priority
            && *conditions == other.conditions
            && *internet == other.internet
    }

    pub(crate) fn names_group(&self, group: &GroupId) -> bool {
        matches!(&self.conditions.remote, Remote::Group(named) if named == group)
    }

    pub(crate) fn names_prefix_list(&self, list: &PrefixListId) -> bool {
        matches!(&self.conditions.remote, Remote::PrefixList(named) if named == list)
    }

    pub(crate) fn names_port_list(&self, list: &PortListId) -> bool {
        matches!(&self.conditions.ports, Ports::List(named) if named == list)
    }
}

impl Model {
    pub(crate) fn rules_of(&self, group: &GroupId) -> &BTreeMap<RuleId, Rule> {
        static NONE: BTreeMap<RuleId, Rule> = BTreeMap::new();
        self.rules.get(group).unwrap_or(&NONE)
    }

    pub(super) fn rule_authorize(
        &self,
        authorize: &RuleAuthorize,
        environment: &Environment,
    ) -> Result<Vec<Event>, ApiError> {
        let (group_id, group) = self.own_group(&authorize.group)?;
        self.refuse_count(authorize.rules.len(), "rules")?;
        let present = self.rules_of(&group_id);
        let mut read: Vec<Rule> = Vec::new();
        let mut added: BTreeMap<RuleId, Rule> = BTreeMap::new();
        for (place, spec) in authorize.rules.iter().enumerate() {
            let within = format!("rules[{place}]");
            let rule = text::read(spec, authorize.direction, environment.now_s)
                .and_then(|rule| self.check_objects(&rule, &group_id, group).map(|()| rule))
                .map_err(|error| error.within(&within))?;
            refuse_repeated(&read, &rule, &within)?;
            if !present.values().any(|other| other.equals(&rule)) {
                let taken = |id: &str| {
                    let id = RuleId::from(id);
                    added.contains_key(&id) || self.rules.values().any(|rules| rules.contains_key(&id))
                };
                let id = self.choose_id(spec.id.as_deref(), "sgr", environment, taken);
                added.insert(id.map_err(|error| error.within(&within))?.into(), rule.clone());
            }
            read.push(rule);
        }
        let next: Vec<&Rule> = present.values().chain(added.values()).collect();
        self.check_limits(&group_id, &next)?;
        Ok(added.into_iter().map(|(id, rule)| Event::Rule(group_id.clone(), id, Some(rule))).collect())
    }

    pub(super) fn rule_revoke(&self, revoke: &RuleRevoke) -> Result<Vec<Event>, ApiError> {
        let (group_id, _) = self.own_group(&revoke.group)?;
        self.refuse_count(revoke.ids.len() + revoke.rules.len(), "rules")?;
        let present = self.rules_of(&group_id);
        let mut ended = BTreeSet::new();
        let mut read = Vec::new();
        for id in &revoke.ids {
            let id = RuleId::from(id.as_str());
            let rule =
                present.get(&id).filter(|rule| revoke.direction.is_none_or(|direction| direction == rule.direction));
            if rule.is_none() {
                let message = match revoke.direction {
                    Some(direction) => format!("{group_id} has no {direction} rule {id}: see sluice rule list"),
                    None => format!("{group_id} has no rule {id}: see sluice rule list"),
                };
                return Err(RULE_ID.error(message).field("ids").object(id));
            }
            ended.insert(id);
        }
        for (place, spec) in revoke.rules.iter().enumerate() {
            let within = format!("rules[{place}]");
            let Some(direction) = revoke.direction else {
                let message = "say which direction the rules are for: ingress or egress";
                return Err(MISSING_PARAMETER.error(message).field("direction"));
            };
            let wanted = text::read(spec, direction, 0).map_err(|error| error.within(&within))?;
            refuse_repeated(&read, &wanted, &within)?;
            let found = present.iter().find(|(_, rule)| rule.equals(&wanted));
            let Some((id, _)) = found else {
                let message =
                    format!("{group_id} has no such {direction} rule: see sluice rule list, mind the priority");
                return Err(RULE_NOT_EXIST.error(message).field(within).object(&group_id));
            };
            ended.insert(id.clone());
            read.push(wanted);
        }
        Ok(ended.into_iter().map(|id| Event::Rule(group_id.clone(), id, None)).collect())
    }

    pub(super) fn rule_modify(&self, modify: &RuleModify) -> Result<Vec<Event>, ApiError> {
        let (group_id, group) = self.own_group(&modify.group)?;
        let id = RuleId::from(modify.rule.as_str());
        let present = self.rules_of(&group_id);
        let Some(old) = present.get(&id) else {
            let message = format!("{group_id} has no rule {id}: see sluice rule list");
            return Err(RULE_ID_NOT_FOUND.error(message).field("rule").object(id));
        };
        if modify.change == RuleChange::default() {
            return Err(RULE_MODIFY_EMPTY.error("nothing to change is given").field("change").object(id));
        }
        let new = text::changed(old, &modify.change).map_err(|error| error.within("change"))?;
        self.check_objects(&new, &group_id, group).map_err(|error| error.within("change"))?;
        if new == *old {
            return Ok(vec![]);
        }
        if let Some((other, _)) = present.iter().find(|(other, rule)| **other != id && rule.equals(&new)) {
            let message = format!("the rule would equal {other}: revoke one of them instead");
            return Err(RULE_DUPLICATE.error(message).object(id));
        }
        let others = present.iter().filter(|(other, _)| **other != id).map(|(_, rule)| rule);
        self.check_limits(&group_id, &others.chain([&new]).collect::<Vec<_>>())?;
        Ok(vec![Event::Rule(group_id, id, Some(new))])
    }

    fn refuse_count(&self, count: usize, field: &str) -> Result<(), ApiError> {
        let most = self.quotas.rules_per_call_max;
        if !(1..=most).contains(&count) {
            let message = format!("{count} rules: one call takes 1 to {most}");
            return Err(RULES_PERMISSIONS.error(message).field(field));
        }
        Ok(())
    }

    /// Refuses objects that do not exist or do not fit the group and the rule.
    fn check_objects(&self, rule: &Rule, holder_id: &GroupId, holder: &Group) -> Result<(), ApiError> {
        match &rule.conditions.remote {
            Remote::Prefix(_) => {}
            Remote::Group(named) => self.check_group_object(named, rule.direction, holder_id, holder)?,
            Remote::PrefixList(named) => self.check_list_object(named, rule)?,
        }
        if let Ports::List(named) = &rule.conditions.ports {
            self.port_list(named.as_str())?;
        }
        if rule.internet && !holder.is_classic() {
            let message = format!("{holder_id} is in {}, whose rules are about its private network", holder.vpc);
            return Err(RULE_NIC_TYPE.error(message).field("internet"));
        }
        Ok(())
    }

    fn check_group_object(
        &self,
        named: &GroupId,
        direction: Direction,
        holder_id: &GroupId,
        holder: &Group,
    ) -> Result<(), ApiError> {
        let refuse =
            |kind: crate::error::ErrorKind, message: String| Err(kind.error(message).field("group").object(named));
        let (itself, not_found, mismatch) = match direction {
            Direction::Ingress => (RULE_SELF_SOURCE, RULE_SOURCE_GROUP_NOT_FOUND, RULE_SOURCE_GROUP_MISMATCH),
            Direction::Egress => (RULE_SELF_DEST, RULE_DEST_GROUP_NOT_FOUND, RULE_DEST_GROUP_MISMATCH),
        };
        if holder.kind == GroupKind::Advanced {
            let message = format!("{holder_id} is an advanced group, whose rules name no groups: use a prefix list");
            return refuse(RULE_ADVANCED_HOLDER, message);
        }
        if named == holder_id {
            let message =
                format!("{holder_id} names itself: members of a basic group reach each other by inner access");
            return refuse(itself, message);
        }
        let Some(group) = self.groups.get(named) else {
            return refuse(not_found, format!("there is no security group {named}: see sluice sg list"));
        };
        if group.kind == GroupKind::Advanced {
            let message = format!("{named} is an advanced group, which no rule may name: use a prefix list");
            return refuse(RULE_ADVANCED_OBJECT, message);
        }
        if group.vpc != holder.vpc {
            let message =
                format!("{named} is in {}, {holder_id} in {}: name a group of the same VPC", group.vpc, holder.vpc);
            return refuse(mismatch, message);
        }
        Ok(())
    }

    fn check_list_object(&self, named: &PrefixListId, rule: &Rule) -> Result<(), ApiError> {
        let (id, list) = self.prefix_list(named.as_str())?;
        let family = if list.is_ipv6 { "IPv6" } else { "IPv4" };
        let refuse = |kind: crate::error::ErrorKind, message| Err(kind.error(message).field("prefix_list").object(&id));
        match rule.conditions.protocol {
            Protocol::ICMP if list.is_ipv6 => {
                refuse(RULE_ICMP_WITH_IPV6, format!("ICMP is IPv4 and {id} an {family} list: use the protocol icmpv6"))
            }
            Protocol::ICMPV6 if !list.is_ipv6 => refuse(
                RULE_ICMPV6_WITH_IPV4,
                format!("ICMPv6 is IPv6 and {id} an {family} list: use the protocol icmp"),
            ),
            _ if rule.conditions.local.is_some_and(|local| text::is_ipv6(local) != list.is_ipv6) => {
                refuse(RULE_LIST_FAMILY, format!("{id} is an {family} list, the near side is of the other family"))
            }
            _ => Ok(()),
        }
    }

    /// What a group weighs in the quota of rules.
    pub(crate) fn group_weight(&self, group: &GroupId) -> usize {
        self.rules_of(group).values().map(|rule| self.rule_weight(rule)).sum()
    }

    fn rule_weight(&self, rule: &Rule) -> usize {
        let remote = match &rule.conditions.remote {
            Remote::PrefixList(id) => self.prefix_lists.get(id).map_or(1, |list| list.max_entries as usize),
            _ => 1,
        };
        let ports = match &rule.conditions.ports {
            Ports::List(id) => self.port_lists.get(id).map_or(1, |list| list.max_entries as usize),
            _ => 1,
        };
        remote.saturating_mul(ports)
    }

    /// Refuses rules of a group that exceed a quota, unless they already did.
    fn check_limits(&self, group_id: &GroupId, next: &[&Rule]) -> Result<(), ApiError> {
        let quotas = &self.quotas;
        let present = self.rules_of(group_id);
        let is_by_group = |rule: &&Rule| matches!(rule.conditions.remote, Remote::Group(_));
        let count = next.iter().copied().filter(is_by_group).count();
        if count > quotas.group_objects_per_group_max && count > present.values().filter(is_by_group).count() {
            let most = quotas.group_objects_per_group_max;
            let message = format!("{group_id} would have {count} rules that name groups, at most {most} may be");
            return Err(RULE_GROUP_OBJECT_LIMIT.error(message).object(group_id));
        }
        let before = self.group_weight(group_id);
        let weight: usize = next.iter().map(|rule| self.rule_weight(rule)).sum();
        if weight > before {
            self.check_weight(group_id, weight)?;
        }
        for rule in next {
            let Remote::PrefixList(list) = &rule.conditions.remote else { continue };
            let names = |rules: &BTreeMap<RuleId, Rule>| rules.values().any(|rule| rule.names_prefix_list(list));
            if names(present) {
                continue;
            }
            let groups = self.rules.iter().filter(|(id, rules)| *id != group_id && names(rules)).count() + 1;
            if groups > quotas.prefix_list_groups_max {
                let message = format!("{list} is named by {} groups, as many as may be", groups - 1);
                return Err(RULE_LIST_RESOURCE_LIMIT.error(message).field("prefix_list").object(list));
            }
        }
        Ok(())
    }

    /// Refuses a weight of a group that is too large for its members together with their other groups.
    fn check_weight(&self, group_id: &GroupId, weight: usize) -> Result<(), ApiError> {
        let most = self.quotas.rules_per_eni_max;
        if weight > most {
            let message = format!("{group_id} would weigh {weight} rules, at most {most} may be: revoke some first");
            return Err(RULE_LIMIT.error(message).object(group_id));
        }
        // Members with the same groups need only one check.
        let mut seen = BTreeSet::new();
        for (eni_id, eni) in self.index.members(group_id).filter_map(|id| self.enis.get_key_value(id)) {
            if !seen.insert(&eni.groups) {
                continue;
            }
            let others = eni.groups.iter().filter(|other| *other != group_id);
            let sum = weight + others.map(|other| self.group_weight(other)).sum::<usize>();
            if sum > most {
                let message = format!("the groups of {eni_id} would together weigh {sum} rules, at most {most} may be");
                return Err(RULE_LIMIT.error(message).object(group_id));
            }
        }
        Ok(())
    }

    /// The rules of a default group (§8).
    pub(super) fn default_rules(&self, environment: &Environment) -> Vec<(RuleId, Rule)> {
        let port = |port| Ports::Range(PortRange { first: port, last: port });
        let everybody = Remote::Prefix(IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)));
        [(Protocol::TCP, port(22)), (Protocol::TCP, port(3389)), (Protocol::ICMP, Ports::Any)]
            .map(|(protocol, ports)| {
                let rule = Rule {
                    direction: Direction::Ingress,
                    policy: Policy::Accept,
                    priority: 100,
                    conditions: MatchConditions { protocol, ports, ..MatchConditions::of(everybody.clone()) },
                    remote_text: "0.0.0.0/0".into(),
                    local_text: String::new(),
                    internet: false,
                    description: "System created rule.".into(),
                    created_s: environment.now_s,
                };
                (RuleId(environment.new_id("sgr")), rule)
            })
            .into()
    }
}

/// Refuses a rule that equals another of the same request.
fn refuse_repeated(others: &[Rule], rule: &Rule, field: &str) -> Result<(), ApiError> {
    if others.iter().any(|other| other.equals(rule)) {
        let message = "this rule is in the request twice, or equals another one in all that counts";
        return Err(RULES_DUPLICATE.error(message).field(field));
    }
    Ok(())
}

/// Refuses rules of which one equals another.
pub(crate) fn refuse_repeated_rules(specs: &[RuleSpec], direction: Direction) -> Result<(), ApiError> {
    let mut read = Vec::new();
    for (place, spec) in specs.iter().enumerate() {
        let rule = text::read(spec, direction, 0)?;
        refuse_repeated(&read, &rule, &format!("rules[{place}]"))?;
        read.push(rule);
    }
    Ok(())
}
