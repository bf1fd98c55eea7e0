//! Tags and resource groups of objects.

use super::Product;
use super::check::missing;
use super::desk::{Desk, Plan};
use crate::command::{Command, LabelModify};
use crate::error::{ApiError, ErrorKind, GROUP_MANAGED};
use std::collections::BTreeSet;
use vswitch_core::ids::VSwitchId;

const RESOURCE_NOT_FOUND: ErrorKind = ErrorKind { code: "InvalidResourceId.NotFound", status: 404 };
const TYPE_NOT_FOUND: ErrorKind = ErrorKind { code: "InvalidResourceType.NotFound", status: 404 };
const SAME_RESOURCE_GROUP: ErrorKind = ErrorKind { code: "InvalidResourceGroup.Duplicate", status: 403 };
const TAG_COUNT: ErrorKind = ErrorKind { code: "InvalidTagCount", status: 400 };

/// Kinds of ECS objects that can be tagged and that there are here, by the names of the interface.
const ECS_TYPES: [&str; 5] = ["instance", "securitygroup", "eni", "prefixlist", "portrangelist"];
/// Kinds that there are in the cloud and not here.
const OTHER_TYPES: [&str; 17] = [
    "disk",
    "snapshot",
    "image",
    "volume",
    "ddh",
    "ddhcluster",
    "keypair",
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

/// The objects of the caller that can be tagged: kind and identifier.
pub(super) fn objects<'a>(desk: &Desk<'a>) -> Vec<(&'static str, &'a str)> {
    let model = desk.model;
    let all: Vec<(&'static str, &str)> = match desk.call.action.product {
        Product::Ecs => model
            .instances
            .keys()
            .map(|id| (ECS_TYPES[0], id.as_str()))
            .chain(model.groups.keys().map(|id| (ECS_TYPES[1], id.as_str())))
            .chain(model.enis.keys().map(|id| (ECS_TYPES[2], id.as_str())))
            .chain(model.prefix_lists.keys().map(|id| (ECS_TYPES[3], id.as_str())))
            .chain(model.port_lists.keys().map(|id| (ECS_TYPES[4], id.as_str())))
            .collect(),
        Product::Vpc => model
            .vpcs
            .keys()
            .map(|id| ("vpc", id.as_str()))
            .chain(model.vswitches.keys().map(|id| ("vswitch", id.as_str())))
            .collect(),
    };
    all.into_iter().filter(|(_, id)| desk.owns(id)).collect()
}

/// The kind that the call names, small.
pub(super) fn kind(desk: &Desk<'_>) -> Result<Option<String>, ApiError> {
    let Some(text) = desk.parameters().text("ResourceType") else { return Ok(None) };
    let kind = text.to_ascii_lowercase();
    let here: &[&str] = match desk.call.action.product {
        Product::Ecs => &ECS_TYPES,
        Product::Vpc => &["vpc", "vswitch"],
    };
    if !here.contains(&kind.as_str()) && !OTHER_TYPES.contains(&kind.as_str()) {
        return Err(TYPE_NOT_FOUND.error("there is no such kind of object.").field("ResourceType"));
    }
    Ok(Some(kind))
}

/// The identifiers of a call, each of an object of that kind that its user may change.
fn named_objects(desk: &Desk<'_>, ids: &[String]) -> Result<(), ApiError> {
    let kind = kind(desk)?;
    for id in ids {
        if !is_of_kind(desk, kind.as_deref().unwrap_or_default(), id) {
            let shown: String = id.chars().take(100).collect();
            return Err(RESOURCE_NOT_FOUND.error(format!("{shown:?} is none.")).field("ResourceId"));
        }
        if desk.model.groups.get(&id.as_str().into()).is_some_and(|group| group.service_managed) {
            return Err(GROUP_MANAGED.error(format!("{id} is managed by a cloud service.")).object(id));
        }
    }
    Ok(())
}

fn is_of_kind(desk: &Desk<'_>, kind: &str, id: &str) -> bool {
    let model = desk.model;
    let exists = match kind {
        "instance" => model.instances.contains_key(id),
        "securitygroup" => model.groups.contains_key(&id.into()),
        "eni" => model.enis.contains_key(&id.into()),
        "prefixlist" => model.prefix_lists.contains_key(&id.into()),
        "portrangelist" => model.port_lists.contains_key(&id.into()),
        "vpc" => model.vpcs.contains_key(&id.into()),
        "vswitch" => model.vswitches.contains_key(&VSwitchId::from(id)),
        _ => false,
    };
    exists && desk.owns(id)
}

pub(super) fn tag(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let tags = desk.tags("Tag")?;
    let ids = desk.parameters().list("ResourceId")?;
    named_objects(desk, &ids)?;
    let change =
        |object: String| Command::LabelModify(LabelModify { object, tags: tags.clone(), ..LabelModify::default() });
    Ok(desk.quiet_change(ids.into_iter().map(change).collect()))
}

pub(super) fn untag(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let parameters = desk.parameters();
    let untag: BTreeSet<String> = parameters.list("TagKey")?.into_iter().collect();
    let untag_all = parameters.boolean("All")?.unwrap_or(false) && untag.is_empty();
    let ids = parameters.list("ResourceId")?;
    named_objects(desk, &ids)?;
    let change = |object: String| {
        Command::LabelModify(LabelModify { object, untag: untag.clone(), untag_all, ..LabelModify::default() })
    };
    Ok(desk.quiet_change(ids.into_iter().map(change).collect()))
}

pub(super) fn add(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let tags = desk.tags("Tag")?;
    if tags.is_empty() || tags.len() > 20 {
        return Err(TAG_COUNT.error("give 1 to 20 tags.").field("Tag"));
    }
    let object = desk.parameters().owned("ResourceId").unwrap_or_default();
    named_objects(desk, std::slice::from_ref(&object))?;
    let modify = LabelModify { object, tags, ..LabelModify::default() };
    Ok(desk.quiet_change(vec![Command::LabelModify(modify)]))
}

pub(super) fn remove(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let tags = desk.tags("Tag")?;
    let object = desk.parameters().owned("ResourceId").unwrap_or_default();
    named_objects(desk, std::slice::from_ref(&object))?;
    let present = &desk.label(&object).tags;
    // A tag with a value goes only with that value.
    let goes = |(key, value): &(&String, &String)| value.is_empty() || present.get(*key) == Some(*value);
    let untag = tags.iter().filter(goes).map(|(key, _)| key.clone()).collect();
    let modify = LabelModify { object, untag, untag_all: tags.is_empty(), ..LabelModify::default() };
    Ok(desk.quiet_change(vec![Command::LabelModify(modify)]))
}

pub(super) fn join_resource_group(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let parameters = desk.parameters();
    for name in ["ResourceGroupId", "ResourceId", "ResourceType"] {
        if parameters.text(name).is_none() {
            return Err(missing(desk.call.action.fact(), name));
        }
    }
    let resource_group = desk.resource_group()?;
    let object = parameters.owned("ResourceId").unwrap_or_default();
    named_objects(desk, std::slice::from_ref(&object))?;
    if Some(&desk.label(&object).resource_group) == resource_group.as_ref() {
        return Err(SAME_RESOURCE_GROUP.error("it is this one.").object(object));
    }
    let modify = LabelModify { object, resource_group, ..LabelModify::default() };
    Ok(desk.quiet_change(vec![Command::LabelModify(modify)]))
}
