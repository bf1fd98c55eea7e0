//! DHCP options sets: stored, returned, attached to VPCs, and told to their guests by DHCP.

use crate::command::{Command, LabelModify, RecordCreate, RecordDelete};
use crate::ecs::dialect::call::{Context, Plan, members};
use crate::ecs::dialect::paging::page;
use crate::ecs::dialect::scope::Access;
use crate::error::{ApiError, ErrorKind};
use crate::model::Metadata;
pub(super) use crate::model::dhcp::ATTACHED_SET as NOTED;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use vswitch_core::config::ids::VpcId;

pub(super) const KIND: &str = "dhcp-options-set";
const NOT_FOUND: ErrorKind = ErrorKind { code: "InvalidDhcpOptionsSetId.NotFound", status: 404 };
const ATTACHED: ErrorKind = ErrorKind { code: "DependencyViolation.VpcAttachment", status: 400 };
const OTHER_ATTACHED: ErrorKind = ErrorKind { code: "OperationDenied.DhcpOptionsSetAttached", status: 400 };
const SERVERS_MAX: usize = 4;
/// How long addresses may be leased: hours, or days.
const LEASE_HOURS: [std::ops::RangeInclusive<u32>; 2] = [24..=1176, 87_600..=175_200];
const LEASE_DAYS: [std::ops::RangeInclusive<u32>; 2] = [1..=49, 3650..=7300];
const LEASE: &str = "3650d";

/// One of the caller's sets.
pub(super) fn find<'a>(context: &Context<'a>, id: &str) -> Result<(&'a str, &'a Metadata), ApiError> {
    let found = context.scope.records(KIND).find(|(set, ..)| *set == id);
    let none = || NOT_FOUND.error("there is no such set.").field("DhcpOptionsSetId");
    found.map(|(id, _, noted)| (id, noted)).ok_or_else(none)
}

fn named<'a>(context: &Context<'a>) -> Result<(&'a str, &'a Metadata), ApiError> {
    find(context, context.parameters().text("DhcpOptionsSetId").unwrap_or_default())
}

/// Refuses invalid options.
fn check(context: &Context<'_>) -> Result<(), ApiError> {
    let text = |name: &str| context.parameters().text(name).unwrap_or_default();
    context.check_text("DhcpOptionsSetName", text("DhcpOptionsSetName"), 128)?;
    context.check_text("DhcpOptionsSetDescription", text("DhcpOptionsSetDescription"), 256)?;
    let servers: Vec<&str> = text("DomainNameServers").split(',').filter(|server| !server.is_empty()).collect();
    if servers.len() > SERVERS_MAX || servers.iter().any(|server| server.trim().parse::<IpAddr>().is_err()) {
        return context.refuse("DomainNameServers", "write at most four addresses, with commas between them");
    }
    let is_label = |label: &str| {
        let letters = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        letters && (1..=63).contains(&label.len())
    };
    let domain = text("DomainName");
    if !domain.is_empty() && (domain.len() > 253 || !domain.trim_end_matches('.').split('.').all(is_label)) {
        return context.refuse("DomainName", "write a domain such as example.com");
    }
    for name in ["LeaseTime", "Ipv6LeaseTime"].into_iter().filter(|name| !text(name).is_empty()) {
        let lease = text(name);
        let (number, ranges) = match (lease.strip_suffix('h'), lease.strip_suffix('d')) {
            (Some(hours), _) => (hours, LEASE_HOURS),
            (_, Some(days)) => (days, LEASE_DAYS),
            (None, None) => ("", LEASE_DAYS),
        };
        let is_good = number.parse::<u32>().is_ok_and(|number| ranges.iter().any(|range| range.contains(&number)));
        if !is_good {
            return context.refuse(name, "write 24h to 1176h, 87600h to 175200h, 1d to 49d, or 3650d to 7300d");
        }
    }
    Ok(())
}

pub(in crate::ecs) fn create(context: &Context<'_>) -> Result<Plan, ApiError> {
    check(context)?;
    let id = context.environment.new_id("dopt");
    let mut tags = context.tags("Tag")?;
    // Some clients use the plural.
    tags.extend(context.tags("Tags")?);
    let label = LabelModify {
        object: id.clone(),
        tags,
        resource_group: context.resource_group()?,
        attributes: context.attributes(),
        ..LabelModify::default()
    };
    let create = RecordCreate { id: id.clone(), kind: KIND.into() };
    let commands = vec![Command::RecordCreate(create), Command::LabelModify(label)];
    let answer = move |context: &Context<'_>| {
        members(json!({"DhcpOptionsSetId": id, "ResourceGroupId": context.scope.resource_group_of(&id)}))
    };
    Ok(context.change(commands, Box::new(answer)))
}

pub(in crate::ecs) fn update(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (id, _) = named(context)?;
    check(context)?;
    // An empty value removes an option.
    let kept = |name: &str| Some((name.to_owned(), context.parameters().given(name)?.to_owned()));
    let names = ["DhcpOptionsSetName", "DhcpOptionsSetDescription"];
    let attributes: BTreeMap<String, String> =
        names.into_iter().chain(OPTIONS.map(|(name, _)| name)).filter_map(kept).collect();
    let modify = LabelModify { object: id.to_owned(), attributes, ..LabelModify::default() };
    Ok(context.quiet_change(vec![Command::LabelModify(modify)]))
}

/// The options and their defaults.
const OPTIONS: [(&str, &str); 6] = [
    ("BootFileName", ""),
    ("DomainName", ""),
    ("DomainNameServers", ""),
    ("Ipv6LeaseTime", LEASE),
    ("LeaseTime", LEASE),
    ("TFTPServerName", ""),
];

/// The caller's VPCs that a set is attached to.
fn vpcs<'a>(context: &Context<'a>, id: &'a str) -> impl Iterator<Item = &'a VpcId> {
    let scope = context.scope;
    scope.vpcs().map(|(vpc, _)| vpc).filter(move |vpc| scope.label(vpc.as_str()).attribute(NOTED) == id)
}

fn set_json(context: &Context<'_>, id: &str, noted: &Metadata) -> Map<String, Value> {
    let options: Map<String, Value> = OPTIONS
        .iter()
        .map(|(name, default)| {
            let text = if noted.attribute(name).is_empty() { default } else { noted.attribute(name) };
            ((*name).to_owned(), json!(text))
        })
        .collect();
    members(json!({
        "DhcpOptionsSetId": id,
        "DhcpOptionsSetName": noted.attribute("DhcpOptionsSetName"),
        "DhcpOptionsSetDescription": noted.attribute("DhcpOptionsSetDescription"),
        "DhcpOptions": options,
        "ResourceGroupId": context.scope.resource_group_of(id),
        "OwnerId": context.scope.owner_of(id).parse::<u64>().unwrap_or(0),
        "Status": if vpcs(context, id).next().is_some() { "InUse" } else { "Available" },
        "Tags": context.vpc_tags_of(id),
    }))
}

pub(in crate::ecs) fn get(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (id, noted) = named(context)?;
    let mut answer = set_json(context, id, noted);
    let vpcs: Vec<Value> = vpcs(context, id).map(|vpc| json!({"VpcId": vpc, "AssociateStatus": "InUse"})).collect();
    answer.insert("AssociateVpcs".into(), vpcs.into());
    Ok(Plan::Answer(answer))
}

pub(in crate::ecs) fn list(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let ids = parameters.list("DhcpOptionsSetId")?;
    let mut entries = Vec::new();
    for (id, _, noted) in context.scope.records(KIND) {
        let is = |name: &str| parameters.text(name).is_none_or(|wanted| wanted == noted.attribute(name));
        let wanted = (ids.is_empty() || ids.iter().any(|wanted| wanted == id))
            && is("DhcpOptionsSetName")
            && is("DomainName")
            && context.has_resource_group(id)
            && context.has_tags_named("Tags", id)?;
        if wanted {
            let mut entry = set_json(context, id, noted);
            entry.insert("AssociateVpcCount".into(), json!(vpcs(context, id).count()));
            entries.push((id.to_owned(), Value::Object(entry)));
        }
    }
    let total = entries.len();
    let page = page(context, entries, false)?;
    let mut answer = page.about;
    answer.insert("TotalCount".into(), json!(total.to_string()));
    answer.insert("DhcpOptionsSets".into(), page.entries.into());
    Ok(Plan::Answer(answer))
}

pub(in crate::ecs) fn delete(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (id, _) = named(context)?;
    if let Some(vpc) = vpcs(context, id).next() {
        return Err(ATTACHED.error(format!("it is attached to {vpc}.")).object(id));
    }
    Ok(context.quiet_change(vec![Command::RecordDelete(RecordDelete { record: id.to_owned() })]))
}

/// The VPC that the call names, and the set that it has.
fn vpc_and_set<'a>(context: &Context<'a>) -> Result<(VpcId, &'a str), ApiError> {
    let (id, vpc) = super::named(context, Access::Own)?;
    context.check_vpc_made(&id, vpc)?;
    let present = context.scope.label(id.as_str()).attribute(NOTED);
    Ok((id, present))
}

fn note(context: &Context<'_>, vpc: &VpcId, set: &str) -> Plan {
    let attributes = [(NOTED.to_owned(), set.to_owned())].into();
    let modify = LabelModify { object: vpc.to_string(), attributes, ..LabelModify::default() };
    context.quiet_change(vec![Command::LabelModify(modify)])
}

pub(in crate::ecs) fn attach(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (id, _) = named(context)?;
    let (vpc, present) = vpc_and_set(context)?;
    if !present.is_empty() && present != id {
        let message = format!("{vpc} has {present}: detach it first, or replace it.");
        return Err(OTHER_ATTACHED.error(message).object(vpc));
    }
    Ok(note(context, &vpc, id))
}

pub(in crate::ecs) fn replace(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (id, _) = named(context)?;
    let (vpc, _) = vpc_and_set(context)?;
    Ok(note(context, &vpc, id))
}

pub(in crate::ecs) fn detach(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (id, _) = named(context)?;
    let (vpc, present) = vpc_and_set(context)?;
    if present != id {
        return Err(NOT_FOUND.error(format!("{vpc} does not have it.")).field("DhcpOptionsSetId"));
    }
    Ok(note(context, &vpc, ""))
}
