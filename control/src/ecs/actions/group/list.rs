//! Queries about security groups.

use crate::ecs::dialect::call::{Context, Plan, members};
use crate::ecs::dialect::paging::page;
use crate::error::{ApiError, ErrorKind};
use crate::model::{Group, Rule, protocol_text, timestamp};
use serde_json::{Map, Value, json};
use vswitch_core::config::desired::{Direction, GroupKind, Policy, Ports, Remote};
use vswitch_core::config::ids::{GroupId, RuleId};

const GROUPS_ASKED: ErrorKind = ErrorKind { code: "Abs.GroupNos.Malformed", status: 400 };
const PAGE_NUMBERS: ErrorKind = ErrorKind { code: "NotSupported.PageNumberAndPageSize", status: 400 };

pub(in crate::ecs) fn describe(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let malformed =
        |error| crate::ecs::dialect::validate::of_parameter(context.call.action.schema(), "SecurityGroupIds", error);
    let ids = parameters.json_list("SecurityGroupIds").map_err(malformed)?;
    if ids.as_ref().is_some_and(|ids| ids.len() > 100) {
        return Err(malformed(crate::ecs::dialect::parameters::not_valid("SecurityGroupIds")));
    }
    let by_number = ["PageNumber", "PageSize"].iter().find(|name| parameters.text(name).is_some());
    if let Some(name) = by_number.filter(|_| !context.settings.page_numbers) {
        return Err(PAGE_NUMBERS.error("the setting page_numbers is off.").field(*name));
    }
    let managed = parameters.boolean("ServiceManaged")?;
    let counted = parameters.boolean("IsQueryEcsCount")?.unwrap_or(false);
    let classic = parameters.text("NetworkType").map(|kind| kind.eq_ignore_ascii_case("classic"));
    let fuzzy = parameters.boolean("FuzzyQuery")?.unwrap_or(false);
    let mut entries = Vec::new();
    for (id, group) in context.scope.groups() {
        let named = |wanted: &str| group.name == wanted || fuzzy && group.name.contains(wanted.trim_matches('*'));
        let wanted = ids.as_ref().is_none_or(|ids| ids.iter().any(|wanted| wanted == id.as_str()))
            && parameters.text("SecurityGroupId").is_none_or(|wanted| wanted == id.as_str())
            && parameters.text("VpcId").is_none_or(|vpc| vpc == group.vpc.as_str())
            && classic.is_none_or(|classic| classic == group.is_classic())
            && parameters.text("SecurityGroupType").is_none_or(|kind| kind.eq_ignore_ascii_case(kind_text(group.kind)))
            && parameters.text("SecurityGroupName").is_none_or(named)
            && managed.is_none_or(|managed| managed == group.service_managed)
            && context.has_resource_group(id.as_str())
            && context.has_tags(id.as_str())?;
        if wanted {
            entries.push((id.to_string(), group_json(context, id, group, counted)));
        }
    }
    let page = page(context, entries, true)?;
    let mut answer = page.about;
    answer.insert("RegionId".into(), context.region().into());
    answer.insert("SecurityGroups".into(), json!({ "SecurityGroup": page.entries }));
    Ok(Plan::Answer(answer))
}

fn kind_text(kind: GroupKind) -> &'static str {
    match kind {
        GroupKind::Basic => "normal",
        GroupKind::Advanced => "enterprise",
    }
}

fn group_json(context: &Context<'_>, id: &GroupId, group: &Group, counted: bool) -> Value {
    let rules = context.scope.rules_of(id);
    let quotas = context.scope.quotas();
    let (most, held) = match group.kind {
        GroupKind::Advanced => (quotas.advanced_group_enis_max, context.scope.members(id).len()),
        GroupKind::Basic => {
            let addresses = context.scope.members(id).map(|eni| context.scope.address_count(eni));
            (quotas.basic_group_addresses_max, addresses.sum())
        }
    };
    let instances = context.scope.members(id).filter_map(|eni| context.scope.instance_of(eni));
    let instances: std::collections::BTreeSet<&String> = instances.map(|(id, _)| id).collect();
    json!({
        "SecurityGroupId": id,
        "SecurityGroupName": group.name,
        "Description": group.description,
        "VpcId": group.vpc,
        "SecurityGroupType": kind_text(group.kind),
        "CreationTime": timestamp(group.created_s),
        "ServiceManaged": group.service_managed,
        "ResourceGroupId": context.scope.resource_group_of(id.as_str()),
        "RuleCount": rules.len(),
        "GroupToGroupRuleCount": rules.values().filter(|rule| matches!(rule.conditions.remote, Remote::Group(_))).count(),
        "EcsCount": if counted { instances.len() } else { 0 },
        "AvailableInstanceAmount": if counted { most.saturating_sub(held) } else { 0 },
        "Tags": { "Tag": context.tags_of(id.as_str()) },
    })
}

pub(in crate::ecs) fn describe_attribute(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let (id, group) = context.scope.group(parameters.text("SecurityGroupId").unwrap_or_default())?;
    let direction = parameters.text("Direction").map(str::to_ascii_lowercase);
    let wanted = |rule: &Rule| match direction.as_deref() {
        Some("ingress") => rule.direction == Direction::Ingress,
        Some("egress") => rule.direction == Direction::Egress,
        _ => true,
    };
    // All rules of a group in a VPC are about its private network, whatever NicType says.
    let internet = match parameters.text("NicType").map(str::to_ascii_lowercase).as_deref() {
        Some("internet") if group.is_classic() => Some(true),
        Some("intranet") if group.is_classic() => Some(false),
        _ => None,
    };
    let wanted = |rule: &Rule| wanted(rule) && internet.is_none_or(|internet| internet == rule.internet);
    let rules = context.scope.rules_of(&id).iter().filter(|(_, rule)| wanted(rule));
    let entries = rules.map(|(rule_id, rule)| {
        let weakness = u8::from(rule.policy == Policy::Accept);
        let direction = u8::from(rule.direction == Direction::Egress);
        let key = format!("{direction}{:03}{weakness}{rule_id}", rule.priority);
        (key, rule_json(context, rule_id, rule))
    });
    let page = page(context, entries.collect(), false)?;
    let mut answer = page.about;
    answer.extend(members(json!({
        "RegionId": context.scope.region_of(id.as_str()),
        "SecurityGroupId": id,
        "SecurityGroupName": group.name,
        "Description": group.description,
        "VpcId": group.vpc,
        "InnerAccessPolicy": policy_text(group.inner_access),
        "Permissions": { "Permission": page.entries },
    })));
    Ok(Plan::Answer(answer))
}

fn policy_text(policy: Policy) -> &'static str {
    match policy {
        Policy::Accept => "Accept",
        Policy::Drop => "Drop",
    }
}

fn rule_json(context: &Context<'_>, id: &RuleId, rule: &Rule) -> Value {
    let (object, near) = match rule.direction {
        Direction::Ingress => ("Source", "Dest"),
        Direction::Egress => ("Dest", "Source"),
    };
    let mut value = members(json!({
        "SecurityGroupRuleId": id,
        "Direction": match rule.direction { Direction::Ingress => "ingress", Direction::Egress => "egress" },
        "Policy": policy_text(rule.policy),
        "Priority": rule.priority.to_string(),
        "IpProtocol": protocol_text(rule.conditions.protocol).to_uppercase(),
        "NicType": if rule.internet { "internet" } else { "intranet" },
        "Description": rule.description,
        "CreateTime": timestamp(rule.created_s),
        "SourcePortRange": rule.conditions.source_ports.map(|range| range.to_string()).unwrap_or_default(),
    }));
    match &rule.conditions.remote {
        Remote::Prefix(prefix) => {
            let name = cidr_name(object, matches!(prefix, ipnet::IpNet::V6(_)));
            value.insert(name, rule.remote_text.clone().into());
        }
        Remote::Group(group) => group_object(context, &mut value, object, group),
        Remote::PrefixList(list) => {
            let name = context.scope.prefix_list(list.as_str()).map(|(_, list)| list.name.clone()).unwrap_or_default();
            value.insert(format!("{object}PrefixListId"), json!(list));
            value.insert(format!("{object}PrefixListName"), name.into());
        }
    }
    if let Some(local) = rule.conditions.local {
        let name = cidr_name(near, matches!(local, ipnet::IpNet::V6(_)));
        let text = if rule.local_text.is_empty() { local.to_string() } else { rule.local_text.clone() };
        value.insert(name, text.into());
    }
    match &rule.conditions.ports {
        Ports::Any => drop(value.insert("PortRange".into(), "-1/-1".into())),
        Ports::Range(range) => drop(value.insert("PortRange".into(), range.to_string().into())),
        Ports::List(list) => {
            let name = context.scope.port_list(list.as_str()).map(|(_, list)| list.name.clone()).unwrap_or_default();
            value.insert("PortRangeListId".into(), json!(list));
            value.insert("PortRangeListName".into(), name.into());
        }
    }
    Value::Object(value)
}

fn cidr_name(side: &str, is_ipv6: bool) -> String {
    if is_ipv6 { format!("Ipv6{side}CidrIp") } else { format!("{side}CidrIp") }
}

fn group_object(context: &Context<'_>, value: &mut Map<String, Value>, side: &str, group: &GroupId) {
    let owner = context.scope.owner_of(group.as_str());
    let is_own = owner == context.call.account;
    let name = context.scope.group(group.as_str()).map(|(_, group)| group.name.clone()).unwrap_or_default();
    value.insert(format!("{side}GroupId"), json!(group));
    value.insert(format!("{side}GroupName"), name.into());
    value.insert(format!("{side}GroupOwnerAccount"), if is_own { "" } else { owner }.into());
}

pub(in crate::ecs) fn describe_references(context: &Context<'_>) -> Result<Plan, ApiError> {
    let ids = context.parameters().list("SecurityGroupId")?;
    if ids.is_empty() || ids.len() > 10 {
        return Err(GROUPS_ASKED.error("name 1 to 10 groups.").field("SecurityGroupId"));
    }
    let mut references = Vec::new();
    for id in &ids {
        let (group, _) = context.scope.group(id)?;
        let naming: Vec<Value> = context
            .scope
            .holders_naming(&group)
            .map(|holder| json!({"SecurityGroupId": holder, "AliUid": context.scope.owner_of(holder.as_str())}))
            .collect();
        if !naming.is_empty() {
            references.push(json!({
                "SecurityGroupId": group,
                "ReferencingSecurityGroups": { "ReferencingSecurityGroup": naming },
            }));
        }
    }
    Ok(Plan::answer(json!({ "SecurityGroupReferences": { "SecurityGroupReference": references } })))
}
