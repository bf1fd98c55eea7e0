//! Tags and resource groups of objects.

pub(in crate::ecs) mod list;

use super::{disk, key_pair};
use crate::command::{Command, LabelModify};
use crate::ecs::dialect::Product;
use crate::ecs::dialect::call::{Context, Plan};
use crate::ecs::dialect::scope::Access;
use crate::ecs::dialect::validate::missing;
use crate::error::{ApiError, ErrorKind, GROUP_MANAGED};
use std::collections::BTreeSet;
use vswitch_core::config::ids::quoted;

const RESOURCE_NOT_FOUND: ErrorKind = ErrorKind { code: "InvalidResourceId.NotFound", status: 404 };
const TYPE_NOT_FOUND: ErrorKind = ErrorKind { code: "InvalidResourceType.NotFound", status: 404 };
const SAME_RESOURCE_GROUP: ErrorKind = ErrorKind { code: "InvalidResourceGroup.Duplicate", status: 403 };
const TAG_COUNT: ErrorKind = ErrorKind { code: "InvalidTagCount", status: 400 };

/// Kinds of ECS objects that can be tagged and exist here, by their names in the API.
const ECS_TYPES: [&str; 7] = ["instance", "securitygroup", "eni", "prefixlist", "portrangelist", "disk", "keypair"];
/// Kinds that exist in the cloud and not here.
const OTHER_TYPES: [&str; 15] = [
    "snapshot",
    "image",
    "volume",
    "ddh",
    "ddhcluster",
    "launchtemplate",
    "reservedinstance",
    "snapshotpolicy",
    "elasticityassurance",
    "capacityreservation",
    "command",
    "invocation",
    "activation",
    "managedinstance",
    "route_table",
];

/// An object that can be tagged.
pub(in crate::ecs) struct Tagged<'a> {
    /// Its kind, by its name in the API.
    pub(in crate::ecs) kind: &'static str,
    /// What the API calls it: usually its identifier.
    pub(in crate::ecs) name: &'a str,
    /// Its identifier.
    pub(in crate::ecs) id: &'a str,
}

/// The objects of the caller that can be tagged.
pub(in crate::ecs) fn objects<'a>(context: &Context<'a>) -> Vec<Tagged<'a>> {
    let scope = context.scope;
    let plain: Vec<(&'static str, &'a str)> = match context.call.action.product {
        Product::Sts | Product::ResourceManager => Vec::new(),
        Product::Ecs => scope
            .instances()
            .map(|(id, _)| (ECS_TYPES[0], id.as_str()))
            .chain(scope.groups().map(|(id, _)| (ECS_TYPES[1], id.as_str())))
            .chain(scope.enis().map(|(id, _)| (ECS_TYPES[2], id.as_str())))
            .chain(scope.prefix_lists().map(|(id, _)| (ECS_TYPES[3], id.as_str())))
            .chain(scope.port_lists().map(|(id, _)| (ECS_TYPES[4], id.as_str())))
            .chain(scope.records(disk::KIND).map(|(id, ..)| (ECS_TYPES[5], id)))
            .chain(scope.records(key_pair::KIND).map(|(id, ..)| (ECS_TYPES[6], id)))
            .collect(),
        // What is only shared with the caller cannot be tagged by the caller.
        Product::Vpc => scope
            .vpcs()
            .filter(|(id, _)| scope.vpc(id.as_str(), Access::Own).is_ok())
            .map(|(id, _)| ("vpc", id.as_str()))
            .chain(
                scope
                    .vswitches()
                    .filter(|(id, _)| scope.vswitch(id.as_str(), Access::Own).is_ok())
                    .map(|(id, _)| ("vswitch", id.as_str())),
            )
            .chain(scope.eips().map(|(id, _)| ("eip", id.as_str())))
            .chain(scope.nat_gateways().map(|(id, _)| ("natgateway", id.as_str())))
            .chain(scope.records("dhcp-options-set").map(|(id, ..)| ("dhcpoptionsset", id)))
            .collect(),
    };
    let named = |(kind, id): (&'static str, &'a str)| {
        let name = if kind == ECS_TYPES[6] { scope.label(id).attribute(key_pair::NAME) } else { id };
        Tagged { kind, name, id }
    };
    plain.into_iter().map(named).collect()
}

/// The kind that the call names, in lower case.
pub(in crate::ecs) fn kind(context: &Context<'_>) -> Result<Option<String>, ApiError> {
    let Some(text) = context.parameters().text("ResourceType") else { return Ok(None) };
    let kind = text.to_ascii_lowercase();
    let here: &[&str] = match context.call.action.product {
        Product::Ecs => &ECS_TYPES,
        Product::Vpc => &["vpc", "vswitch", "dhcpoptionsset", "eip", "natgateway"],
        Product::Sts | Product::ResourceManager => &[],
    };
    if !here.contains(&kind.as_str()) && !OTHER_TYPES.contains(&kind.as_str()) {
        return Err(TYPE_NOT_FOUND.error("there is no such kind of object.").field("ResourceType"));
    }
    Ok(Some(kind))
}

/// The identifiers that a call names, each of an object of that kind that the caller may change.
fn named_objects(context: &Context<'_>, ids: &[String]) -> Result<Vec<String>, ApiError> {
    let kind = kind(context)?;
    let mut objects = Vec::new();
    for id in ids {
        let found = match kind.as_deref().unwrap_or_default() {
            "keypair" => key_pair::find(context, id),
            kind => is_of_kind(context, kind, id).then(|| id.clone()),
        };
        let Some(object) = found else {
            let shown: String = id.chars().take(100).collect();
            return Err(RESOURCE_NOT_FOUND
                .error(format!("{shown} is none.", shown = quoted(&shown)))
                .field("ResourceId"));
        };
        if context.scope.group(id).is_ok_and(|(_, group)| group.service_managed) {
            return Err(GROUP_MANAGED.error(format!("{id} is managed by a cloud service.")).object(id));
        }
        objects.push(object);
    }
    Ok(objects)
}

/// The one object that a call names.
fn named_object(context: &Context<'_>) -> Result<String, ApiError> {
    let id = context.parameters().owned("ResourceId").unwrap_or_default();
    let mut objects = named_objects(context, std::slice::from_ref(&id))?;
    Ok(objects.pop().unwrap_or(id))
}

fn is_of_kind(context: &Context<'_>, kind: &str, id: &str) -> bool {
    let scope = context.scope;
    match kind {
        "instance" => scope.instance(id).is_ok(),
        "securitygroup" => scope.group(id).is_ok(),
        "eni" => scope.eni(id).is_ok(),
        "prefixlist" => scope.prefix_list(id).is_ok(),
        "portrangelist" => scope.port_list(id).is_ok(),
        "vpc" => scope.vpc(id, Access::Own).is_ok(),
        "eip" => scope.eip(id).is_ok(),
        "natgateway" => scope.nat_gateway(id).is_ok(),
        "vswitch" => scope.vswitch(id, Access::Own).is_ok(),
        "disk" => scope.records(disk::KIND).any(|(disk, ..)| disk == id),
        "dhcpoptionsset" => scope.records("dhcp-options-set").any(|(set, ..)| set == id),
        _ => false,
    }
}

pub(in crate::ecs) fn tag(context: &Context<'_>) -> Result<Plan, ApiError> {
    let tags = context.tags("Tag")?;
    let ids = named_objects(context, &context.parameters().list("ResourceId")?)?;
    let change =
        |object: String| Command::LabelModify(LabelModify { object, tags: tags.clone(), ..LabelModify::default() });
    Ok(context.quiet_change(ids.into_iter().map(change).collect()))
}

pub(in crate::ecs) fn untag(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let untag: BTreeSet<String> = parameters.list("TagKey")?.into_iter().collect();
    let untag_all = parameters.boolean("All")?.unwrap_or(false) && untag.is_empty();
    let ids = named_objects(context, &parameters.list("ResourceId")?)?;
    let change = |object: String| {
        Command::LabelModify(LabelModify { object, untag: untag.clone(), untag_all, ..LabelModify::default() })
    };
    Ok(context.quiet_change(ids.into_iter().map(change).collect()))
}

pub(in crate::ecs) fn add(context: &Context<'_>) -> Result<Plan, ApiError> {
    let tags = context.tags("Tag")?;
    if tags.is_empty() || tags.len() > 20 {
        return Err(TAG_COUNT.error("give 1 to 20 tags.").field("Tag"));
    }
    let object = named_object(context)?;
    let modify = LabelModify { object, tags, ..LabelModify::default() };
    Ok(context.quiet_change(vec![Command::LabelModify(modify)]))
}

pub(in crate::ecs) fn remove(context: &Context<'_>) -> Result<Plan, ApiError> {
    let tags = context.tags("Tag")?;
    let object = named_object(context)?;
    let present = &context.scope.label(&object).tags;
    // A tag with a value is only removed if the value matches.
    let goes = |(key, value): &(&String, &String)| value.is_empty() || present.get(*key) == Some(*value);
    let untag = tags.iter().filter(goes).map(|(key, _)| key.clone()).collect();
    let modify = LabelModify { object, untag, untag_all: tags.is_empty(), ..LabelModify::default() };
    Ok(context.quiet_change(vec![Command::LabelModify(modify)]))
}

pub(in crate::ecs) fn join_resource_group(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    for name in ["ResourceGroupId", "ResourceId", "ResourceType"] {
        if parameters.text(name).is_none() {
            return Err(missing(context.call.action.schema(), name));
        }
    }
    let resource_group = context.resource_group()?;
    let object = named_object(context)?;
    if Some(context.scope.resource_group_of(&object)) == resource_group.as_deref() {
        return Err(SAME_RESOURCE_GROUP.error("it is this one.").object(object));
    }
    let modify = LabelModify { object, resource_group, ..LabelModify::default() };
    Ok(context.quiet_change(vec![Command::LabelModify(modify)]))
}

/// The same as for instances, with the errors for networks, where moving to the present group is allowed.
pub(in crate::ecs) fn move_resource_group(context: &Context<'_>) -> Result<Plan, ApiError> {
    let resource_group = context.resource_group_named("NewResourceGroupId")?;
    let object = named_object(context)?;
    let modify = LabelModify { object, resource_group, ..LabelModify::default() };
    Ok(context.quiet_change(vec![Command::LabelModify(modify)]))
}
