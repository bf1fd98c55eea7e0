//! Questions about instances.

use super::desk::{Desk, Plan, members};
use super::eni_list::addresses_json;
use super::instance::status;
use super::paging::page;
use crate::error::ApiError;
use crate::model::{Eni, Instance, timestamp};
use serde_json::{Value, json};
use vswitch_core::ids::EniId;

pub(super) fn describe(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let parameters = desk.parameters();
    let ids = parameters.json_list("InstanceIds")?;
    let private = parameters.json_list("PrivateIpAddresses")?;
    for (name, list) in [("InstanceIds", &ids), ("PrivateIpAddresses", &private)] {
        if list.as_ref().is_some_and(|list| list.len() > 100) {
            return desk.refuse(name, "name at most 100");
        }
    }
    let is_asked = |name: &str, value: &str| parameters.text(name).is_none_or(|wanted| wanted == value);
    let classic = parameters.text("InstanceNetworkType").is_some_and(|kind| kind.eq_ignore_ascii_case("classic"));
    let mut entries = Vec::new();
    for (id, instance) in desk.model.instances.iter().filter(|(id, _)| desk.owns(id) && !classic) {
        let Some((eni_id, eni)) = primary(desk, instance) else { continue };
        let address = eni.primary.to_string();
        let group_wanted = parameters.text("SecurityGroupId");
        let name_wanted = parameters.text("InstanceName");
        let wanted = ids.as_ref().is_none_or(|ids| ids.contains(id))
            && private.as_ref().is_none_or(|list| list.contains(&address))
            && is_asked("VpcId", eni.vpc.as_str())
            && is_asked("VSwitchId", eni.vswitch.as_str())
            && is_asked("ZoneId", &desk.zone_of(&eni.vswitch))
            && is_asked("InstanceType", &instance.instance_type)
            && is_asked("ImageId", &instance.image)
            && parameters.text("Status").is_none_or(|wanted| wanted.eq_ignore_ascii_case(status(desk, instance)))
            && name_wanted.is_none_or(|wanted| name_fits(wanted, &instance.name))
            && group_wanted.is_none_or(|group| eni.groups.iter().any(|own| own.as_str() == group))
            && desk.has_resource_group(id)
            && desk.has_tags(id)?;
        if wanted {
            entries.push((id.clone(), instance_json(desk, id, instance, (eni_id, eni))));
        }
    }
    let page = page(desk, entries, true)?;
    let mut answer = page.about;
    answer.insert("Instances".into(), json!({ "Instance": page.entries }));
    Ok(Plan::Answer(answer))
}

/// A name, or the beginning or the end of one with `*` for the rest.
fn name_fits(wanted: &str, name: &str) -> bool {
    match (wanted.strip_prefix('*'), wanted.strip_suffix('*')) {
        (Some(_), Some(_)) => name.contains(wanted.trim_matches('*')),
        (Some(end), None) => name.ends_with(end),
        (None, Some(start)) => name.starts_with(start),
        (None, None) => name == wanted,
    }
}

fn primary<'a>(desk: &Desk<'a>, instance: &'a Instance) -> Option<(&'a EniId, &'a Eni)> {
    instance.primary().and_then(|eni| desk.model.enis.get_key_value(eni))
}

fn instance_json(desk: &Desk<'_>, id: &str, instance: &Instance, primary: (&EniId, &Eni)) -> Value {
    let interfaces =
        instance.enis.iter().filter_map(|(eni, number)| Some((desk.model.enis.get_key_value(eni)?, number)));
    let mut interfaces: Vec<_> = interfaces.collect();
    interfaces.sort_by_key(|(_, number)| **number);
    let interface = |((eni_id, eni), number): &((&EniId, &Eni), &u32)| {
        let mut value = members(addresses_json(eni));
        value.extend(members(json!({
            "NetworkInterfaceId": eni_id,
            "PrimaryIpAddress": eni.primary,
            "MacAddress": eni.mac,
            "Type": if **number == 0 { "Primary" } else { "Secondary" },
        })));
        Value::Object(value)
    };
    let interfaces: Vec<Value> = interfaces.iter().map(interface).collect();
    let (cpu, memory) = (1, 1024);
    let started_s = if instance.started_s == 0 { instance.created_s } else { instance.started_s };
    let mut value = shared_json(desk, id, instance, primary.1);
    value.extend(members(json!({
        "Cpu": cpu,
        "Memory": memory,
        "OSType": "linux",
        "DeviceAvailable": true,
        "IoOptimized": true,
        "DeletionProtection": instance.deletion_protection,
        "InstanceTypeFamily": instance.instance_type.rsplit_once('.').map_or("", |(family, _)| family),
        "NetworkInterfaces": {"NetworkInterface": interfaces},
        "ResourceGroupId": desk.label(id).resource_group,
        "StartTime": timestamp(started_s),
        "Tags": {"Tag": desk.tags_of(id)},
    })));
    Value::Object(value)
}

/// What both actions show.
fn shared_json(desk: &Desk<'_>, id: &str, instance: &Instance, eni: &Eni) -> serde_json::Map<String, Value> {
    members(json!({
        "InstanceId": id,
        "InstanceName": instance.name,
        "Description": instance.description,
        "HostName": instance.host_name,
        "ImageId": instance.image,
        "InstanceType": instance.instance_type,
        "InstanceNetworkType": "vpc",
        "InstanceChargeType": "PostPaid",
        "CreationTime": timestamp(instance.created_s),
        "RegionId": desk.region_of(id),
        "ZoneId": desk.zone_of(&eni.vswitch),
        "Status": status(desk, instance),
        "SecurityGroupIds": {"SecurityGroupId": eni.groups},
        "VpcAttributes": {
            "VpcId": eni.vpc,
            "VSwitchId": eni.vswitch,
            "PrivateIpAddress": {"IpAddress": [eni.primary]},
        },
    }))
}

pub(super) fn describe_status(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let parameters = desk.parameters();
    let ids = parameters.list("InstanceId")?;
    let zone = parameters.text("ZoneId");
    let shown = desk.model.instances.iter().filter(|(id, instance)| {
        let placed = || primary(desk, instance).map(|(_, eni)| desk.zone_of(&eni.vswitch));
        desk.owns(id)
            && (ids.is_empty() || ids.contains(id))
            && zone.is_none_or(|zone| placed().as_deref() == Some(zone))
    });
    let entry = |(id, instance): (&String, &Instance)| {
        (id.clone(), json!({"InstanceId": id, "Status": status(desk, instance)}))
    };
    let page = page(desk, shown.map(entry).collect(), true)?;
    let mut answer = page.about;
    answer.insert("InstanceStatuses".into(), json!({ "InstanceStatus": page.entries }));
    Ok(Plan::Answer(answer))
}

pub(super) fn describe_attribute(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let id = desk.parameters().text("InstanceId").unwrap_or_default();
    let instance = desk.instance(id)?;
    let Some((_, eni)) = primary(desk, instance) else { return Ok(Plan::answer(json!({}))) };
    let mut answer = shared_json(desk, id, instance, eni);
    answer.extend(members(json!({"Cpu": 1, "Memory": 1024, "IoOptimized": "optimized"})));
    Ok(Plan::Answer(answer))
}
