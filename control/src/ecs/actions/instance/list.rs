//! Queries about instances.

use super::attributes;
use super::filter::InstanceFilter;
use super::status;
use crate::ecs::actions::eni::list::addresses_json;
use crate::ecs::actions::outside::eip;
use crate::ecs::dialect::call::{Context, Plan, ZONE_NOT_FOUND, members};
use crate::ecs::dialect::paging::page;
use crate::error::ApiError;
use crate::model::{Eni, Instance, timestamp};
use serde_json::{Value, json};
use vswitch_core::config::ids::EniId;

pub(in crate::ecs) fn describe(context: &Context<'_>) -> Result<Plan, ApiError> {
    let filter = InstanceFilter::read(context)?;
    let mut entries = Vec::new();
    for (id, instance) in context.scope.instances() {
        let Some((eni_id, eni)) = context.scope.primary_of(instance) else { continue };
        if filter.fits(context, id, instance, eni)? {
            entries.push((id.clone(), (id, instance, (eni_id, eni))));
        }
    }
    let page = page(context, entries, true)?;
    let shown = page.entries.into_iter().map(|(id, instance, primary)| instance_json(context, id, instance, primary));
    let shown: Vec<Value> = shown.collect();
    let mut answer = page.about;
    answer.insert("Instances".into(), json!({ "Instance": shown }));
    Ok(Plan::Answer(answer))
}

fn instance_json(context: &Context<'_>, id: &str, instance: &Instance, primary: (&EniId, &Eni)) -> Value {
    let interfaces =
        instance.enis.iter().filter_map(|(eni, number)| Some((context.scope.eni(eni.as_str()).ok()?, number)));
    let mut interfaces: Vec<_> = interfaces.collect();
    interfaces.sort_by_key(|(_, number)| **number);
    let interface = |((eni_id, eni), number): &((EniId, &Eni), &u32)| {
        let mut value = members(addresses_json(context, eni_id, eni));
        value.extend(members(json!({
            "NetworkInterfaceId": eni_id,
            "PrimaryIpAddress": eni.primary,
            "MacAddress": eni.mac,
            "Type": if **number == 0 { "Primary" } else { "Secondary" },
        })));
        Value::Object(value)
    };
    let interfaces: Vec<Value> = interfaces.iter().map(interface).collect();
    let (cpus, memory_mib) = size(context, instance);
    let started_s = if instance.started_s == 0 { instance.created_s } else { instance.started_s };
    let image = context.settings.catalogue.image(&instance.image);
    let mut value = shared_json(context, id, instance, primary.1);
    value.extend(attributes::listed_json(instance, context.scope.label(id), cpus));
    value.extend(members(json!({
        "Cpu": cpus,
        "Memory": memory_mib,
        "OSType": image.map_or("linux", |image| image.os_type.as_str()),
        "OSName": image.map_or("", |image| image.os_name.as_str()),
        "OSNameEn": image.map_or("", |image| image.os_name.as_str()),
        "DeviceAvailable": true,
        "IoOptimized": true,
        "DeletionProtection": instance.deletion_protection,
        "NetworkInterfaces": {"NetworkInterface": interfaces},
        "ResourceGroupId": context.scope.resource_group_of(id),
        "StartTime": timestamp(started_s),
        "Tags": {"Tag": context.tags_of(id)},
    })));
    Value::Object(value)
}

/// Processors and memory in MiB of an instance's type, or the smallest if the catalogue does not have the type.
fn size(context: &Context<'_>, instance: &Instance) -> (u32, u32) {
    let kind = context.settings.catalogue.instance_type(&instance.instance_type);
    kind.map_or((1, 1024), |kind| (kind.cpus, kind.memory_mib))
}

/// What both actions return.
fn shared_json(context: &Context<'_>, id: &str, instance: &Instance, eni: &Eni) -> serde_json::Map<String, Value> {
    let mut value = attributes::shared_json(id, instance, context.scope.label(id));
    value.insert("EipAddress".into(), eip::of_instance_json(context, id));
    value.extend(members(json!({
        "InstanceId": id,
        "InstanceName": instance.name,
        "Description": instance.description,
        "HostName": instance.host_name,
        "ImageId": instance.image,
        "InstanceType": instance.instance_type,
        "InstanceNetworkType": "vpc",
        "CreationTime": timestamp(instance.created_s),
        "RegionId": context.scope.region_of(id),
        "ZoneId": context.zone_of(&eni.vswitch),
        "Status": status(context, instance),
        "SecurityGroupIds": {"SecurityGroupId": eni.groups},
        "VpcAttributes": {
            "VpcId": eni.vpc,
            "VSwitchId": eni.vswitch,
            "PrivateIpAddress": {"IpAddress": [eni.primary]},
        },
    })));
    value
}

pub(in crate::ecs) fn describe_status(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let ids = parameters.list("InstanceId")?;
    let zone = parameters.text("ZoneId");
    if zone.is_some_and(|zone| !context.zones_of(context.region()).iter().any(|known| known == zone)) {
        return Err(ZONE_NOT_FOUND.error("see DescribeZones.").field("ZoneId"));
    }
    let shown = context.scope.instances().filter(|(id, instance)| {
        let placed = || context.scope.primary_of(instance).map(|(_, eni)| context.zone_of(&eni.vswitch));
        (ids.is_empty() || ids.contains(id)) && zone.is_none_or(|zone| placed().as_deref() == Some(zone))
    });
    let entry = |(id, instance): (&String, &Instance)| {
        (id.clone(), json!({"InstanceId": id, "Status": status(context, instance)}))
    };
    let page = page(context, shown.map(entry).collect(), true)?;
    let mut answer = page.about;
    answer.insert("InstanceStatuses".into(), json!({ "InstanceStatus": page.entries }));
    Ok(Plan::Answer(answer))
}

pub(in crate::ecs) fn describe_attribute(context: &Context<'_>) -> Result<Plan, ApiError> {
    let id = context.parameters().text("InstanceId").unwrap_or_default();
    let instance = context.scope.instance(id)?;
    let Some((_, eni)) = context.scope.primary_of(instance) else { return Ok(Plan::answer(json!({}))) };
    let mut answer = shared_json(context, id, instance, eni);
    let (cpus, memory_mib) = size(context, instance);
    let noted = context.scope.label(id);
    // As last changed, or as given when it was made.
    let truth = |name: &str| match noted.attribute(name) {
        "" => noted.attribute(&format!("NetworkOptions.{name}")).eq_ignore_ascii_case("true"),
        text => text.eq_ignore_ascii_case("true"),
    };
    answer.extend(members(json!({
        "Cpu": cpus,
        "Memory": memory_mib,
        "IoOptimized": "optimized",
        "EnableJumboFrame": truth("EnableJumboFrame"),
        "EnableNetworkEncryption": truth("EnableNetworkEncryption"),
        "NetworkOptions": {
            "EnableJumboFrame": truth("EnableJumboFrame"),
            "EnableNetworkEncryption": truth("EnableNetworkEncryption"),
            "BandwidthWeighting": noted.attribute("NetworkOptions.BandwidthWeighting"),
        },
    })));
    Ok(Plan::Answer(answer))
}
