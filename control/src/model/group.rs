//! Security groups and their members (`semantics.md` §1.1, §5, §7–§9).

use super::eni::Eni;
use super::parse::{description, name};
use super::{Event, Model};
use crate::command::{GroupCreate, GroupDelete, GroupJoin, GroupLeave, GroupModify};
use crate::environment::Environment;
use crate::error::{
    ACL_LIMIT, ADVANCED_GROUP_ENI_LIMIT, ApiError, ENI_VPC_MISMATCH, ErrorKind, GROUP_DELETE_NOT_FOUND,
    GROUP_DEPENDENCY, GROUP_DESCRIPTION_MALFORMED, GROUP_ID_REPEATED, GROUP_INNER_ACCESS, GROUP_MANAGED,
    GROUP_MEMBER_LIMIT, GROUP_NAME_MALFORMED, GROUP_NOT_FOUND, GROUP_POLICY_MALFORMED, GROUP_TYPE, JOIN_ALREADY_MEMBER,
    JOIN_GROUP_LIMIT, JOIN_MEMBER_LIMIT, JOIN_MULTI_GROUP_TYPE, JOINED_GROUP_LIMIT, LEAVE_LAST_GROUP, LEAVE_NOT_MEMBER,
    MISSING_PARAMETER, MULTI_GROUP_TYPE,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use vswitch_core::config::desired::{GroupKind, Policy};
use vswitch_core::config::ids::{EniId, GroupId, VpcId, quoted};

/// A security group. Its rules are objects of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The VPC it has effect in; empty for a classic group.
    pub vpc: VpcId,
    /// Basic or advanced.
    pub kind: GroupKind,
    /// Whether members of a basic group reach each other without rules; `Drop` in advanced groups.
    pub inner_access: Policy,
    /// Whether a cloud service owns it.
    pub service_managed: bool,
    /// Whether it is the default group of its VPC.
    pub is_default: bool,
    /// A name for people.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// When it was made, seconds since 1970.
    pub created_s: u64,
}

/// The refusals of a set of groups, which the cloud names differently when a single group is joined.
struct MembershipErrors {
    kinds_mixed: ErrorKind,
    groups_limit: ErrorKind,
    members_limit: ErrorKind,
}

const REPLACING: MembershipErrors = MembershipErrors {
    kinds_mixed: MULTI_GROUP_TYPE,
    groups_limit: JOINED_GROUP_LIMIT,
    members_limit: GROUP_MEMBER_LIMIT,
};
const JOINING: MembershipErrors = MembershipErrors {
    kinds_mixed: JOIN_MULTI_GROUP_TYPE,
    groups_limit: JOIN_GROUP_LIMIT,
    members_limit: JOIN_MEMBER_LIMIT,
};

impl Group {
    /// Whether it is in no VPC. It then has rules but no members, and no packet is evaluated by it.
    pub(crate) fn is_classic(&self) -> bool {
        self.vpc.as_str().is_empty()
    }
}

impl Model {
    pub(crate) fn group(&self, id: &str) -> Result<(GroupId, &Group), ApiError> {
        let id = GroupId::from(id);
        match self.groups.get(&id) {
            Some(group) => Ok((id, group)),
            None => {
                let message = format!("there is no security group {id}: see sluice sg list");
                Err(GROUP_NOT_FOUND.error(message).field("group").object(id))
            }
        }
    }

    /// A group that its user may change.
    pub(super) fn own_group(&self, id: &str) -> Result<(GroupId, &Group), ApiError> {
        let (id, group) = self.group(id)?;
        if group.service_managed {
            let message = format!(
                "{id} is managed by a cloud service: it can be looked at, not changed (sluice sg modify \
                 --service-managed false ends that)"
            );
            return Err(GROUP_MANAGED.error(message).field("group").object(id));
        }
        Ok((id, group))
    }

    pub(super) fn group_create(&self, create: &GroupCreate, environment: &Environment) -> Result<Vec<Event>, ApiError> {
        let id = self.choose_id(create.id.as_deref(), "sg", environment, |id| self.groups.contains_key(&id.into()))?;
        let vpc = match create.classic && create.vpc.is_empty() {
            true => VpcId::from(""),
            false => self.vpc(&create.vpc)?.0,
        };
        let kind = kind(create.kind.as_deref().unwrap_or("normal"))?;
        if create.classic && kind == GroupKind::Advanced {
            return Err(GROUP_TYPE.error("an advanced group is in a VPC: name one").field("kind"));
        }
        let inner_access = match (kind, create.inner_access.as_deref()) {
            (GroupKind::Basic, text) => inner_access(text.unwrap_or("accept"))?,
            (GroupKind::Advanced, None) => Policy::Drop,
            (GroupKind::Advanced, Some(_)) => return Err(inner_access_denied(&id)),
        };
        let group = Group {
            vpc,
            kind,
            inner_access,
            service_managed: create.service_managed.unwrap_or(false),
            is_default: false,
            name: name(create.name.as_deref(), GROUP_NAME_MALFORMED)?,
            description: description(create.description.as_deref(), 2, 256, GROUP_DESCRIPTION_MALFORMED)?,
            created_s: environment.now_s,
        };
        Ok(vec![Event::Group(id.into(), Some(group))])
    }

    pub(super) fn group_modify(&self, modify: &GroupModify) -> Result<Vec<Event>, ApiError> {
        let says_more = modify.name.is_some() || modify.description.is_some() || modify.inner_access.is_some();
        // The mark can be taken off together with other changes, but not set with them: that would pass by the check.
        let (id, old) = match modify.service_managed {
            Some(managed) if !(managed && says_more) => self.group(&modify.group)?,
            _ => self.own_group(&modify.group)?,
        };
        let mut new = old.clone();
        new.service_managed = modify.service_managed.unwrap_or(old.service_managed);
        if let Some(text) = &modify.name {
            new.name = name(Some(text), GROUP_NAME_MALFORMED)?;
        }
        if let Some(text) = &modify.description {
            new.description = description(Some(text), 2, 256, GROUP_DESCRIPTION_MALFORMED)?;
        }
        if let Some(text) = &modify.inner_access {
            new.inner_access = inner_access(text)?;
            // The kind never changes, so the old one decides.
            if old.kind == GroupKind::Advanced {
                return Err(inner_access_denied(id.as_str()));
            }
        }
        Ok(if new == *old { vec![] } else { vec![Event::Group(id, Some(new))] })
    }

    pub(super) fn group_delete(&self, delete: &GroupDelete) -> Result<Vec<Event>, ApiError> {
        // The cloud has a code of its own for an unknown group here.
        let (id, _) = self.own_group(&delete.group).map_err(|error| match error.code == GROUP_NOT_FOUND.code {
            true => ApiError { code: GROUP_DELETE_NOT_FOUND.code, ..error },
            false => error,
        })?;
        if let Some(eni) = self.index.members(&id).next() {
            let message = format!("{id} has members, such as {eni}: take them out first with sluice sg leave");
            return Err(GROUP_DEPENDENCY.error(message).object(id));
        }
        let names = self.rules.iter().find_map(|(holder, rules)| {
            let rule = rules.iter().find(|(_, rule)| rule.names_group(&id))?.0;
            // Rules of the group's own that name it go with it, and refuse nothing.
            (*holder != id).then_some((holder, rule))
        });
        if let Some((holder, rule)) = names {
            let message = format!("rule {rule} of {holder} names {id}: revoke it first");
            return Err(GROUP_DEPENDENCY.error(message).object(id));
        }
        // The rules are removed with the group, but each is reported, so that a store need not know about that.
        let rules = self.rules.get(&id).into_iter().flatten();
        let rules = rules.map(|(rule, _)| Event::Rule(id.clone(), rule.clone(), None));
        Ok(rules.chain([Event::Group(id.clone(), None)]).collect())
    }

    pub(super) fn group_join(&self, join: &GroupJoin) -> Result<Vec<Event>, ApiError> {
        let (group, _) = self.own_group(&join.group)?;
        let (id, old) = self.eni(&join.eni)?;
        let mut new = old.clone();
        if !new.groups.insert(group.clone()) {
            let message = format!("{id} is a member of {group} already");
            return Err(JOIN_ALREADY_MEMBER.error(message).field("eni").object(id));
        }
        self.check_membership(Some((&id, old)), &new, &JOINING).map_err(|error| error.field("group"))?;
        Ok(vec![Event::Eni(id, Some(Box::new(new)))])
    }

    pub(super) fn group_leave(&self, leave: &GroupLeave) -> Result<Vec<Event>, ApiError> {
        let (group, _) = self.own_group(&leave.group)?;
        let (id, old) = self.eni(&leave.eni)?;
        let mut new = old.clone();
        if !new.groups.remove(&group) {
            let message = format!("{id} is not a member of {group}");
            return Err(LEAVE_NOT_MEMBER.error(message).field("group").object(id));
        }
        if new.groups.is_empty() {
            let message = format!("{group} is the only group of {id}: let it join another one first");
            return Err(LEAVE_LAST_GROUP.error(message).field("group").object(id));
        }
        Ok(vec![Event::Eni(id, Some(Box::new(new)))])
    }

    /// The set of groups that a list names.
    pub(super) fn group_set(&self, ids: &[String]) -> Result<BTreeSet<GroupId>, ApiError> {
        if ids.is_empty() {
            let message = "an interface is a member of at least one group: name one";
            return Err(MISSING_PARAMETER.error(message).field("groups"));
        }
        let mut groups = BTreeSet::new();
        for id in ids {
            let (id, _) = self.group(id).map_err(|error| error.field("groups"))?;
            if !groups.insert(id.clone()) {
                return Err(GROUP_ID_REPEATED.error(format!("{id} is named twice")).field("groups").object(id));
            }
        }
        Ok(groups)
    }

    /// Refuses sets of groups that `new` may not have.
    pub(super) fn check_groups(&self, old: Option<(&EniId, &Eni)>, new: &Eni) -> Result<(), ApiError> {
        let kept = old.map(|(_, old)| &old.groups);
        let is_kept = |id: &GroupId| kept.is_some_and(|kept| kept.contains(id));
        for id in &new.groups {
            // Only groups that are joined or left have to be the user's own: an interface in a managed group can join
            // others.
            if !is_kept(id) {
                self.own_group(id.as_str()).map_err(|error| error.field("groups"))?;
            }
        }
        for id in kept.into_iter().flatten().filter(|id| !new.groups.contains(*id)) {
            self.own_group(id.as_str()).map_err(|error| error.field("groups"))?;
        }
        self.check_membership(old, new, &REPLACING).map_err(|error| error.field("groups"))
    }

    fn check_membership(
        &self,
        old: Option<(&EniId, &Eni)>,
        new: &Eni,
        errors: &MembershipErrors,
    ) -> Result<(), ApiError> {
        let mut kinds = BTreeSet::new();
        for (id, group) in new.groups.iter().filter_map(|id| self.groups.get_key_value(id)) {
            if group.vpc != new.vpc {
                let message =
                    format!("{id} is in {}, the interface in {}: choose groups of one VPC", group.vpc, new.vpc);
                return Err(ENI_VPC_MISMATCH.error(message).object(id));
            }
            kinds.insert(group.kind);
            if kinds.len() > 1 {
                let message = "an interface is in basic or in advanced groups, not in both: replace the whole set";
                return Err(errors.kinds_mixed.error(message).object(id));
            }
        }
        if new.groups.len() > self.quotas.groups_per_eni_max {
            let message = format!("an interface is in at most {} groups", self.quotas.groups_per_eni_max);
            return Err(errors.groups_limit.error(message));
        }
        for id in &new.groups {
            self.check_capacity(id, old, new, errors.members_limit)?;
        }
        let weight: usize = new.groups.iter().map(|id| self.group_weight(id)).sum();
        let before: usize = old.map_or(0, |(_, old)| old.groups.iter().map(|id| self.group_weight(id)).sum());
        // An interface above the limit, because rules were added since, can still leave groups.
        if weight > self.quotas.rules_per_eni_max && weight > before {
            let message =
                format!("the groups together weigh {weight} rules, at most {} may be", self.quotas.rules_per_eni_max);
            return Err(ACL_LIMIT.error(message));
        }
        Ok(())
    }

    /// Refuses a member, or more addresses of a member, if a group has no room for it.
    fn check_capacity(
        &self,
        id: &GroupId,
        old: Option<(&EniId, &Eni)>,
        new: &Eni,
        kind: ErrorKind,
    ) -> Result<(), ApiError> {
        let Some(group) = self.groups.get(id) else { return Ok(()) };
        let own = old.map(|(id, _)| id);
        // A group above its limit, because the quota was lowered, still lets its members be changed.
        let grows = old.is_none_or(|(_, old)| {
            !old.groups.contains(id) || new.prefixes_of_all().count() > old.prefixes_of_all().count()
        });
        // The interface itself is counted below, with its new addresses.
        let others = self.index.members(id).filter(|member| Some(*member) != own);
        let (count, most, what, kind) = match group.kind {
            GroupKind::Advanced => {
                (others.count() + 1, self.quotas.advanced_group_enis_max, "interfaces", ADVANCED_GROUP_ENI_LIMIT)
            }
            GroupKind::Basic => {
                let addresses =
                    others.filter_map(|member| self.enis.get(member)).map(|eni| eni.prefixes_of_all().count());
                let count = addresses.sum::<usize>() + new.prefixes_of_all().count();
                (count, self.quotas.basic_group_addresses_max, "private addresses", kind)
            }
        };
        if grows && count > most {
            let message = format!("{id} would have {count} {what} of members, at most {most} may be");
            return Err(kind.error(message).object(id));
        }
        Ok(())
    }

    /// An account's default group in a VPC, and the events that make it if it does not exist yet (§8).
    pub(super) fn default_group(
        &self,
        vpc: &VpcId,
        owner: &str,
        environment: &Environment,
    ) -> Result<(GroupId, Vec<Event>), ApiError> {
        // Each account has a default group of its own in a VPC, also in a shared one.
        let is_owned = |id: &GroupId| self.label(id.as_str()).owner == owner;
        let mut defaults = self.groups.iter().filter(|(_, group)| group.is_default && group.vpc == *vpc);
        if let Some((id, _)) = defaults.find(|(id, _)| is_owned(id)) {
            return Ok((id.clone(), vec![]));
        }
        let taken = |id: &str| self.groups.contains_key(&id.into());
        let id = GroupId::from(self.choose_id(None, "sg", environment, taken)?);
        let group = Group {
            vpc: vpc.clone(),
            kind: GroupKind::Basic,
            inner_access: Policy::Accept,
            service_managed: false,
            is_default: true,
            name: String::new(),
            description: "System created security group.".into(),
            created_s: environment.now_s,
        };
        let mut events = vec![Event::Group(id.clone(), Some(group))];
        events.extend(
            self.default_rules(environment)
                .into_iter()
                .map(|(rule, content)| Event::Rule(id.clone(), rule, Some(content))),
        );
        Ok((id, events))
    }
}

fn kind(text: &str) -> Result<GroupKind, ApiError> {
    match text.to_ascii_lowercase().as_str() {
        "normal" | "basic" => Ok(GroupKind::Basic),
        "enterprise" | "advanced" => Ok(GroupKind::Advanced),
        _ => {
            let message = format!(
                "{text} is not a kind of group: write basic (normal) or advanced (enterprise)",
                text = quoted(text)
            );
            Err(GROUP_TYPE.error(message).field("kind"))
        }
    }
}

fn inner_access(text: &str) -> Result<Policy, ApiError> {
    match text.to_ascii_lowercase().as_str() {
        "accept" => Ok(Policy::Accept),
        "drop" => Ok(Policy::Drop),
        _ => {
            let message = format!("{text} is not an inner access policy: write accept or drop", text = quoted(text));
            Err(GROUP_POLICY_MALFORMED.error(message).field("inner_access"))
        }
    }
}

fn inner_access_denied(id: &str) -> ApiError {
    let message = "members of an advanced group are always isolated: leave inner_access out, or use a basic group";
    GROUP_INNER_ACCESS.error(message).field("inner_access").object(id)
}
