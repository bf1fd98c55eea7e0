//! Floating addresses. What a call makes one stand for is in force before the answer.

use super::asks_for;
use crate::command::{Command, EipAllocate, EipAssociate, EipModify, EipRelease, EipUnassociate};
use crate::ecs::dialect::call::{Context, Plan, members};
use crate::ecs::dialect::paging::page;
use crate::error::{ApiError, EIP_STATUS, EIP_TARGET_NOT_FOUND, ErrorKind};
use crate::model::{Eip, EipTarget, timestamp};
use serde_json::{Value, json};

const KIND: ErrorKind = ErrorKind { code: "InvalidInstanceType.ValueNotSupported", status: 400 };
/// Kinds of targets that exist here, by their names in the API.
const KINDS: [&str; 3] = ["EcsInstance", "NetworkInterface", "Nat"];

pub(in crate::ecs) fn allocate(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let id = context.environment.new_id("eip");
    let resource_group = context.resource_group()?;
    let label = context.new_label(&id, None)?;
    let allocate = EipAllocate {
        id: Some(id.clone()),
        address: parameters.owned("IpAddress"),
        pool: Some(context.settings.public_addresses.to_string()),
        name: parameters.owned("Name"),
        description: parameters.owned("Description"),
    };
    let commands = [Command::EipAllocate(allocate)].into_iter().chain(label).collect();
    let answer = move |context: &Context<'_>| {
        let address = context.scope.eip(&id).map(|eip| eip.address.to_string()).unwrap_or_default();
        let group = resource_group.unwrap_or_else(|| context.scope.resource_group_of(&id).to_owned());
        members(json!({"AllocationId": id, "EipAddress": address, "OrderId": 0, "ResourceGroupId": group}))
    };
    Ok(context.change(commands, Box::new(answer)))
}

/// The floating address that the call names.
fn named<'a>(context: &Context<'a>) -> Result<(String, &'a Eip), ApiError> {
    let id = context.parameters().owned("AllocationId").unwrap_or_default();
    let eip = context.scope.eip(&id)?;
    Ok((id, eip))
}

/// Refuses a target that the caller does not have.
fn check_target(context: &Context<'_>, kind: &str, id: &str) -> Result<(), ApiError> {
    let found = match kind {
        "EcsInstance" => context.scope.instance(id).map(drop),
        "NetworkInterface" => context.scope.eni(id).map(drop),
        "Nat" => context.scope.nat_gateway(id).map(drop),
        kind => return Err(KIND.error(format!("there is no {kind} here.")).field("InstanceType")),
    };
    found.map_err(|_| EIP_TARGET_NOT_FOUND.error("there is none of that name.").field("InstanceId"))
}

pub(in crate::ecs) fn associate(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let (id, eip) = named(context)?;
    let target = parameters.owned("InstanceId").unwrap_or_default();
    check_target(context, parameters.text("InstanceType").unwrap_or(KINDS[0]), &target)?;
    if eip.target.is_some() {
        return Err(EIP_STATUS.error(format!("{} is InUse.", eip.address)).object(id));
    }
    let private_ip = parameters.owned("PrivateIpAddress");
    let mut commands = vec![Command::EipAssociate(EipAssociate { eip: id.clone(), target, private_ip })];
    commands.extend(context.note_attributes(&id));
    Ok(context.quiet_change(commands))
}

pub(in crate::ecs) fn unassociate(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let (id, eip) = named(context)?;
    let (kind, target) = target_of(eip);
    if eip.target.is_none() {
        return Err(EIP_STATUS.error(format!("{} is Available.", eip.address)).object(id));
    }
    let is_other = parameters.text("InstanceId").is_some_and(|wanted| wanted != target)
        || parameters.text("InstanceType").is_some_and(|wanted| wanted != kind);
    if is_other {
        let message = format!("{} stands for something else.", eip.address);
        return Err(EIP_TARGET_NOT_FOUND.error(message).field("InstanceId"));
    }
    let force = parameters.boolean("Force")?.unwrap_or(false);
    Ok(context.quiet_change(vec![Command::EipUnassociate(EipUnassociate { eip: id, force })]))
}

pub(in crate::ecs) fn release(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (id, _) = named(context)?;
    Ok(context.quiet_change(vec![Command::EipRelease(EipRelease { eip: id })]))
}

pub(in crate::ecs) fn modify(context: &Context<'_>) -> Result<Plan, ApiError> {
    let given = |name: &str| context.parameters().given(name).map(str::to_owned);
    let (id, _) = named(context)?;
    let modify = EipModify { eip: id.clone(), name: given("Name"), description: given("Description") };
    let noted = context.note_attributes(&id);
    Ok(context.quiet_change([Command::EipModify(modify)].into_iter().chain(noted).collect()))
}

/// The kind and the identifier of what a floating address stands for, as the API names them.
fn target_of(eip: &Eip) -> (&'static str, &str) {
    match &eip.target {
        Some(EipTarget::Eni { instance: Some(instance), .. }) => (KINDS[0], instance),
        Some(EipTarget::Eni { eni, .. }) => (KINDS[1], eni.as_str()),
        Some(EipTarget::Nat(nat)) => (KINDS[2], nat),
        None => ("", ""),
    }
}

pub(in crate::ecs) fn describe(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let ids: Vec<&str> = parameters.text("AllocationId").map(|text| text.split(',').collect()).unwrap_or_default();
    let addresses: Vec<&str> = parameters.text("EipAddress").map(|text| text.split(',').collect()).unwrap_or_default();
    let mut entries = Vec::new();
    for (id, eip) in context.scope.eips() {
        let (kind, target) = target_of(eip);
        let label = context.scope.label(id);
        let noted = |name: &str, otherwise: &'static str| match label.attribute(name) {
            "" => otherwise.to_owned(),
            text => text.to_owned(),
        };
        let wanted = (ids.is_empty() || ids.contains(&id.as_str()))
            && (addresses.is_empty() || addresses.contains(&eip.address.to_string().as_str()))
            && asks_for(context, "AssociatedInstanceId", target)
            && asks_for(context, "AssociatedInstanceType", kind)
            && asks_for(context, "Status", status(eip))
            && asks_for(context, "EipName", &eip.name)
            && asks_for(context, "ChargeType", &noted("InstanceChargeType", "PostPaid"))
            && asks_for(context, "ISP", &noted("ISP", "BGP"))
            && context.has_resource_group(id)
            && context.has_tags(id)?;
        // None is locked, and none belongs to a pool, a segment or a service.
        let is_special =
            ["LockReason", "PublicIpAddressPoolId", "SegmentInstanceId"].iter().any(|it| parameters.has(it))
                || parameters.boolean("ServiceManaged")?.unwrap_or(false)
                || parameters.boolean("SecurityProtectionEnabled")?.unwrap_or(false);
        if wanted && !is_special {
            entries.push((id.clone(), eip_json(context, id, eip)));
        }
    }
    let page = page(context, entries, true)?;
    let mut answer = page.about;
    answer.insert("EipAddresses".into(), json!({ "EipAddress": page.entries }));
    Ok(Plan::Answer(answer))
}

fn status(eip: &Eip) -> &'static str {
    if eip.target.is_some() { "InUse" } else { "Available" }
}

fn eip_json(context: &Context<'_>, id: &str, eip: &Eip) -> Value {
    let label = context.scope.label(id);
    let noted = |name: &str, otherwise: &'static str| match label.attribute(name) {
        "" => otherwise.to_owned(),
        text => text.to_owned(),
    };
    let (kind, target) = target_of(eip);
    let region = context.scope.region_of(id);
    let protection = label.attributes.iter().filter(|(name, _)| name.starts_with("SecurityProtectionTypes."));
    let protection: Vec<&String> = protection.map(|(_, value)| value).collect();
    let private = eip.end().map(|(_, private)| private.to_string()).unwrap_or_default();
    json!({
        "AllocationId": id,
        "IpAddress": eip.address,
        "Name": eip.name,
        "Description": eip.description,
        "Status": status(eip),
        "InstanceId": target,
        "InstanceType": kind,
        "InstanceRegionId": if target.is_empty() { "" } else { region },
        // As in the cloud, that of a named interface alone.
        "PrivateIpAddress": if kind == KINDS[1] { private } else { String::new() },
        "Mode": noted("Mode", "NAT"),
        "VpcId": "",
        "RegionId": region,
        "Bandwidth": noted("Bandwidth", "5"),
        "EipBandwidth": noted("Bandwidth", "5"),
        "InternetChargeType": noted("InternetChargeType", "PayByBandwidth"),
        "ChargeType": noted("InstanceChargeType", "PostPaid"),
        "ISP": noted("ISP", "BGP"),
        "Netmode": noted("Netmode", "public"),
        "Zone": noted("Zone", ""),
        "BusinessStatus": "Normal",
        "HDMonitorStatus": "OFF",
        "HasReservationData": "false",
        "DeletionProtection": false,
        "SecondLimited": false,
        "ServiceManaged": 0,
        "ExpiredTime": "",
        "AllocationTime": timestamp(eip.created_s),
        "ResourceGroupId": context.scope.resource_group_of(id),
        "OperationLocks": {"LockReason": []},
        "SecurityProtectionTypes": {"SecurityProtectionType": protection},
        "Tags": {"Tag": context.vpc_tags_of(id)},
    })
}

/// The floating address of an instance.
pub(in crate::ecs) fn of_instance<'a>(context: &Context<'a>, instance: &str) -> Option<(&'a String, &'a Eip)> {
    context.scope.eips().find(|(_, eip)| target_of(eip) == (KINDS[0], instance))
}

/// What both queries about instances say about the floating address of the primary interface.
pub(in crate::ecs) fn of_instance_json(context: &Context<'_>, instance: &str) -> Value {
    let Some((id, eip)) = of_instance(context, instance) else {
        return json!({"AllocationId": "", "IpAddress": "", "InternetChargeType": "", "Bandwidth": 0});
    };
    let noted = context.scope.label(id);
    let charge = match noted.attribute("InternetChargeType") {
        "" => "PayByBandwidth",
        text => text,
    };
    let bandwidth = noted.attribute("Bandwidth").parse::<u32>().unwrap_or(5);
    json!({"AllocationId": id, "IpAddress": eip.address, "InternetChargeType": charge, "Bandwidth": bandwidth})
}
