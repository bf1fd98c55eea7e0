//! Rules of security groups, as lists of permissions or as a single one in the older flat form.

use crate::command::{Command, RuleAuthorize, RuleChange, RuleModify, RuleRevoke, RuleSpec};
use crate::ecs::dialect::call::{Context, Plan};
use crate::ecs::dialect::parameters::Parameters;
use crate::error::{
    ApiError, ErrorKind, PORT_LIST_NOT_FOUND, PREFIX_LIST_NOT_FOUND, RULE_DEST_GROUP_NOT_FOUND, RULE_DEST_MISSING,
    RULE_ID_NOT_FOUND, RULE_MODIFY_EMPTY, RULE_NIC_TYPE, RULE_SOURCE_GROUP_NOT_FOUND, RULE_SOURCE_MISSING,
    RULES_PERMISSIONS,
};
use crate::model::{Group, Rule, RuleWords, refuse_repeated_rules, same_rule};
use std::collections::BTreeSet;
use vswitch_core::config::desired::Direction;
use vswitch_core::config::ids::quoted;

const PRIORITY_MALFORMED: ErrorKind = ErrorKind { code: "InvalidPriority.Malformed", status: 400 };
const NIC_TYPE_MODIFIED: ErrorKind = ErrorKind { code: "InvalidOperation.ModifyNicType", status: 400 };
const SOURCE_NEEDS_INTRANET: ErrorKind = ErrorKind { code: "InvalidSourceGroupId.Mismatch", status: 403 };
const DEST_NEEDS_INTRANET: ErrorKind = ErrorKind { code: "InvalidDestGroupId.Mismatch", status: 403 };
const RULE_ID_REPEATED: ErrorKind = ErrorKind { code: "InvalidParam.SecurityGroupRuleIdRepeated", status: 400 };
const RULE_SELECTED_NONE: ErrorKind = ErrorKind { code: "SecurityGroupRule.NotFound", status: 404 };
const PORTS_MISMATCH: ErrorKind = ErrorKind { code: "InvalidParam.ProtocolAndPortRangeMismatch", status: 400 };
const DIRECTION_MISMATCH: ErrorKind = ErrorKind { code: "InvalidSourceOrDestGroupId.DirectionMissmatch", status: 400 };

/// The fields of a rule in the flat form, except for those of its object.
const FLAT_FIELDS: [&str; 12] = [
    "Description",
    "DestCidrIp",
    "IpProtocol",
    "Ipv6DestCidrIp",
    "Ipv6SourceCidrIp",
    "NicType",
    "Policy",
    "PortRange",
    "PortRangeListId",
    "Priority",
    "SourceCidrIp",
    "SourcePortRange",
];

pub(in crate::ecs) fn authorize_ingress(context: &Context<'_>) -> Result<Plan, ApiError> {
    authorize(context, Direction::Ingress)
}

pub(in crate::ecs) fn authorize_egress(context: &Context<'_>) -> Result<Plan, ApiError> {
    authorize(context, Direction::Egress)
}

pub(in crate::ecs) fn revoke_ingress(context: &Context<'_>) -> Result<Plan, ApiError> {
    revoke(context, Direction::Ingress)
}

pub(in crate::ecs) fn revoke_egress(context: &Context<'_>) -> Result<Plan, ApiError> {
    revoke(context, Direction::Egress)
}

pub(in crate::ecs) fn modify_ingress(context: &Context<'_>) -> Result<Plan, ApiError> {
    modify(context, Direction::Ingress)
}

pub(in crate::ecs) fn modify_egress(context: &Context<'_>) -> Result<Plan, ApiError> {
    modify(context, Direction::Egress)
}

fn authorize(context: &Context<'_>, direction: Direction) -> Result<Plan, ApiError> {
    let given = permissions(context, direction)?;
    let mut rules: Vec<RuleSpec> = given.iter().map(|fields| read_rule(fields, direction)).collect::<Result<_, _>>()?;
    let (group, holder) = context.scope.group(context.parameters().text("SecurityGroupId").unwrap_or_default())?;
    for (fields, spec) in given.iter().zip(&mut rules) {
        set_nic_type(fields, spec, holder, direction)?;
        check_objects(context, holder, (fields, spec), direction)?;
    }
    let authorize = RuleAuthorize { group: group.to_string(), direction, rules };
    Ok(context.quiet_change(vec![Command::RuleAuthorize(authorize)]))
}

fn revoke(context: &Context<'_>, direction: Direction) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let listed = parameters.list("SecurityGroupRuleId")?;
    let ids: BTreeSet<String> = listed.iter().cloned().collect();
    if ids.len() < listed.len() {
        return Err(RULE_ID_REPEATED.error("a rule is named twice.").field("SecurityGroupRuleId"));
    }
    let by_fields = parameters.has("Permissions") || is_flat(parameters, direction);
    if !ids.is_empty() && by_fields {
        let message = "name rules by SecurityGroupRuleId or by Permissions, not both.";
        return Err(RULES_PERMISSIONS.error(message).field("Permissions"));
    }
    let given = if ids.is_empty() { permissions(context, direction)? } else { Vec::new() };
    let mut rules: Vec<RuleSpec> = given.iter().map(|fields| read_rule(fields, direction)).collect::<Result<_, _>>()?;
    let (group_id, group) = context.scope.group(parameters.text("SecurityGroupId").unwrap_or_default())?;
    for (fields, spec) in given.iter().zip(&mut rules) {
        set_nic_type(fields, spec, group, direction)?;
    }
    if !group.service_managed {
        refuse_repeated_rules(&rules, direction)?;
    }
    if context.settings.revoke_absent_rule_succeeds && !group.service_managed {
        let present = context.scope.rules_of(&group_id);
        rules.retain(|spec| present.values().any(|rule| same_rule(rule, spec, direction)));
        if rules.is_empty() && ids.is_empty() {
            return Ok(context.quiet_change(Vec::new()));
        }
    }
    let revoke = RuleRevoke { group: group_id.to_string(), direction: Some(direction), ids, rules };
    Ok(context.quiet_change(vec![Command::RuleRevoke(revoke)]))
}

fn modify(context: &Context<'_>, direction: Direction) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let strangers: [&str; 2] = match direction {
        Direction::Ingress => ["DestGroupId", "DestPrefixListId"],
        Direction::Egress => ["SourceGroupId", "SourcePrefixListId"],
    };
    if let Some(name) = strangers.iter().find(|name| parameters.text(name).is_some()) {
        return Err(DIRECTION_MISMATCH.error(format!("{name} is of the other direction.")).field(*name));
    }
    let Some(rule) = parameters.text("SecurityGroupRuleId") else { return describe_rule(context, direction) };
    let change = read_change(parameters, direction)?;
    let (group_id, group) = context.scope.group(parameters.text("SecurityGroupId").unwrap_or_default())?;
    let found = context.scope.rules_of(&group_id).get(&rule.into());
    refuse_other_nic_type(parameters, group, found)?;
    if found.is_none_or(|found| found.direction != direction) && !group.service_managed {
        let message = format!("{group_id} has no {direction} rule of this identifier.");
        return Err(RULE_ID_NOT_FOUND.error(message).field("SecurityGroupRuleId"));
    }
    let keeps_ports = change.ports.is_none() && change.port_list.is_none();
    if let (Some(text), Some(found)) = (&change.protocol, found.filter(|_| keeps_ports)) {
        let words = RuleWords::read(&RuleSpec { protocol: text.clone(), ..RuleSpec::default() })?;
        if words.has_ports() != found.conditions.protocol.has_ports() {
            let message = "the rule's ports do not go with the new protocol: give PortRange too.";
            return Err(PORTS_MISMATCH.error(message).field("PortRange"));
        }
    }
    let spec = RuleSpec {
        cidr: change.cidr.clone(),
        ipv6_cidr: change.ipv6_cidr.clone(),
        group: change.group.clone(),
        prefix_list: change.prefix_list.clone(),
        ports: change.ports.clone(),
        port_list: change.port_list.clone(),
        ..RuleSpec::default()
    };
    check_objects(context, group, (parameters, &spec), direction)?;
    let modify = RuleModify { group: group_id.to_string(), rule: rule.to_owned(), change };
    Ok(context.quiet_change(vec![Command::RuleModify(modify)]))
}

/// Refuses to move a rule of a classic group to the other side of the network.
fn refuse_other_nic_type(fields: &Parameters, holder: &Group, found: Option<&Rule>) -> Result<(), ApiError> {
    let (Some(rule), Some(text)) = (found.filter(|_| holder.is_classic()), fields.text("NicType")) else {
        return Ok(());
    };
    let present = if rule.internet { "internet" } else { "intranet" };
    match text.to_ascii_lowercase().as_str() {
        "internet" | "intranet" if !text.eq_ignore_ascii_case(present) => {
            Err(NIC_TYPE_MODIFIED.error(format!("it is {present}.")).field("NicType"))
        }
        "internet" | "intranet" => Ok(()),
        _ => Err(RULE_NIC_TYPE.error("write internet or intranet.").field("NicType")),
    }
}

/// The older form: the fields select a rule, and only its description changes.
fn describe_rule(context: &Context<'_>, direction: Direction) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    if !is_flat(parameters, direction) {
        return Err(RULE_MODIFY_EMPTY.error("no rule is named.").field("SecurityGroupRuleId"));
    }
    let mut spec = read_rule(parameters, direction)?;
    let (group, content) = context.scope.group(parameters.text("SecurityGroupId").unwrap_or_default())?;
    set_nic_type(parameters, &mut spec, content, direction)?;
    check_objects(context, content, (parameters, &spec), direction)?;
    let Some(description) = spec.description.clone() else {
        let message = "without SecurityGroupRuleId only the description can change: give one.";
        return Err(RULE_MODIFY_EMPTY.error(message).field("Description"));
    };
    let rules = context.scope.rules_of(&group);
    let found = rules.iter().find(|(_, rule)| same_rule(rule, &spec, direction));
    let Some((rule, _)) = found else {
        if content.service_managed {
            // The group's refusal takes precedence.
            let authorize = RuleAuthorize { group: group.to_string(), direction, rules: vec![spec] };
            return Ok(context.quiet_change(vec![Command::RuleAuthorize(authorize)]));
        }
        return Err(RULE_SELECTED_NONE.error(format!("{group} has no such {direction} rule.")));
    };
    let change = RuleChange { description: Some(description), ..RuleChange::default() };
    let modify = RuleModify { group: group.to_string(), rule: rule.to_string(), change };
    Ok(context.quiet_change(vec![Command::RuleModify(modify)]))
}

fn object_fields(direction: Direction) -> [&'static str; 4] {
    match direction {
        Direction::Ingress => ["SourceGroupId", "SourceGroupOwnerId", "SourceGroupOwnerAccount", "SourcePrefixListId"],
        Direction::Egress => ["DestGroupId", "DestGroupOwnerId", "DestGroupOwnerAccount", "DestPrefixListId"],
    }
}

fn is_flat(parameters: &Parameters, direction: Direction) -> bool {
    FLAT_FIELDS.iter().chain(&object_fields(direction)).any(|name| parameters.text(name).is_some())
}

/// The fields of each rule that the call gives, in either form.
fn permissions(context: &Context<'_>, direction: Direction) -> Result<Vec<Parameters>, ApiError> {
    let parameters = context.parameters();
    let listed: Vec<Parameters> = parameters.objects("Permissions")?.into_iter().map(|(_, fields)| fields).collect();
    let listed: Vec<Parameters> = listed.into_iter().filter(|fields| !fields.is_empty()).collect();
    match (listed.is_empty(), is_flat(parameters, direction)) {
        (false, false) => Ok(listed),
        (false, true) => {
            let message = "rules are given as Permissions or in the flat form, not in both.";
            Err(RULES_PERMISSIONS.error(message).field("Permissions"))
        }
        (true, true) => Ok(vec![parameters.clone()]),
        (true, false) => {
            let kind = match direction {
                Direction::Ingress => RULE_SOURCE_MISSING,
                Direction::Egress => RULE_DEST_MISSING,
            };
            Err(kind.error("no rule is given.").field("Permissions"))
        }
    }
}

/// The text of a rule, checked as far as no other object is needed.
fn read_rule(fields: &Parameters, direction: Direction) -> Result<RuleSpec, ApiError> {
    let mut spec = words(fields, direction);
    let first = RuleWords::read(&spec)?;
    spec.priority = priority(fields)?;
    first.check(&spec, direction)?;
    Ok(spec)
}

/// The text of a rule from the parameters, without its priority.
fn words(fields: &Parameters, direction: Direction) -> RuleSpec {
    let (object, near) = sides(fields, direction);
    RuleSpec {
        policy: fields.owned("Policy"),
        protocol: fields.text("IpProtocol").unwrap_or_default().to_owned(),
        ports: fields.owned("PortRange"),
        port_list: fields.owned("PortRangeListId"),
        source_ports: fields.owned("SourcePortRange"),
        cidr: object.cidr,
        ipv6_cidr: object.ipv6_cidr,
        group: fields.owned(object_fields(direction)[0]),
        prefix_list: fields.owned(object_fields(direction)[3]),
        local_cidr: near.cidr,
        ipv6_local_cidr: near.ipv6_cidr,
        description: fields.owned("Description"),
        ..RuleSpec::default()
    }
}

fn priority(fields: &Parameters) -> Result<Option<i64>, ApiError> {
    fields.integer("Priority").map_err(|error| PRIORITY_MALFORMED.error(error.message).field("Priority"))
}

struct Sides {
    cidr: Option<String>,
    ipv6_cidr: Option<String>,
}

fn sides(fields: &Parameters, direction: Direction) -> (Sides, Sides) {
    let side = |cidr: &str, ipv6_cidr: &str| Sides { cidr: fields.owned(cidr), ipv6_cidr: fields.owned(ipv6_cidr) };
    let source = side("SourceCidrIp", "Ipv6SourceCidrIp");
    let destination = side("DestCidrIp", "Ipv6DestCidrIp");
    match direction {
        Direction::Ingress => (source, destination),
        Direction::Egress => (destination, source),
    }
}

/// Sets whether a rule is about the public side of the network. In a VPC no rule is, whatever NicType says; in a
/// classic group a rule is unless it says otherwise or names a group.
fn set_nic_type(
    fields: &Parameters,
    spec: &mut RuleSpec,
    holder: &Group,
    direction: Direction,
) -> Result<(), ApiError> {
    if !holder.is_classic() {
        return Ok(());
    }
    let by_group = spec.group.is_some() && spec.cidr.is_none() && spec.ipv6_cidr.is_none();
    spec.internet = match fields.text("NicType").map(str::to_ascii_lowercase).as_deref() {
        None => !by_group,
        Some("intranet") => false,
        Some("internet") if by_group => {
            let kind = match direction {
                Direction::Ingress => SOURCE_NEEDS_INTRANET,
                Direction::Egress => DEST_NEEDS_INTRANET,
            };
            return Err(kind.error("NicType has to be intranet.").field("NicType"));
        }
        Some("internet") => true,
        Some(_) => return Err(RULE_NIC_TYPE.error("write internet or intranet.").field("NicType")),
    };
    Ok(())
}

fn read_change(fields: &Parameters, direction: Direction) -> Result<RuleChange, ApiError> {
    let (protocol, priority) = (fields.owned("IpProtocol"), priority(fields)?);
    Ok(RuleChange { protocol, priority, ..words(fields, direction).into() })
}

/// Refuses objects that the caller does not have, or that do not belong to the account that the rule names.
fn check_objects(
    context: &Context<'_>,
    holder: &Group,
    (fields, spec): (&Parameters, &RuleSpec),
    direction: Direction,
) -> Result<(), ApiError> {
    let names = object_fields(direction);
    let has_cidr = spec.cidr.is_some() || spec.ipv6_cidr.is_some();
    if let Some(group) = spec.group.as_deref().filter(|_| !has_cidr) {
        let account = fields.text(names[1]).or_else(|| fields.text(names[2])).unwrap_or(&context.call.account);
        if !context.scope.is_peer(group, account, holder) {
            let kind = match direction {
                Direction::Ingress => RULE_SOURCE_GROUP_NOT_FOUND,
                Direction::Egress => RULE_DEST_GROUP_NOT_FOUND,
            };
            let shown: String = group.chars().take(100).collect();
            return Err(kind
                .error(format!("account {account} has no group {shown}.", shown = quoted(&shown)))
                .field(names[0]));
        }
    }
    if let Some(list) = spec.prefix_list.as_deref().filter(|_| !has_cidr && spec.group.is_none()) {
        context.scope.prefix_list(list).map_err(|error| PREFIX_LIST_NOT_FOUND.error(error.message).field(names[3]))?;
    }
    if let Some(list) = spec.port_list.as_deref().filter(|_| spec.ports.is_none()) {
        context
            .scope
            .port_list(list)
            .map_err(|error| PORT_LIST_NOT_FOUND.error(error.message).field("PortRangeListId"))?;
    }
    Ok(())
}
