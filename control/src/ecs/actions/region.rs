//! Regions, zones and quotas of an account.

use crate::ecs::catalogue::region_name;
use crate::ecs::dialect::call::{Context, Plan};
use crate::error::{ApiError, ErrorKind};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const LANGUAGE: ErrorKind = ErrorKind { code: "InvalidAcceptLanguage.NotFound", status: 404 };

const CHARGE_TYPE: ErrorKind = ErrorKind { code: "InvalidInstanceChargeType.NotFound", status: 404 };
const SPOT_STRATEGY: ErrorKind = ErrorKind { code: "InvalidSpotStrategy", status: 400 };
const RESOURCE_TYPE: ErrorKind = ErrorKind { code: "InvalidResourceType.NotFound", status: 404 };

fn check_language(context: &Context<'_>) -> Result<(), ApiError> {
    context.word("AcceptLanguage", &["zh-CN", "en-US", "ja"], LANGUAGE).map(drop)
}

/// Whether names are wanted in English; the default is Chinese.
fn is_english(context: &Context<'_>) -> bool {
    context.parameters().text("AcceptLanguage").is_some_and(|language| language.eq_ignore_ascii_case("en-US"))
}

pub(in crate::ecs) fn describe_regions(context: &Context<'_>) -> Result<Plan, ApiError> {
    check_language(context)?;
    context.word("ResourceType", &["instance", "disk", "reservedinstance", "scu"], RESOURCE_TYPE)?;
    Ok(Plan::answer(json!({"Regions": {"Region": regions(context, "ecs", true)}})))
}

pub(in crate::ecs) fn describe_vpc_regions(context: &Context<'_>) -> Result<Plan, ApiError> {
    Ok(Plan::answer(json!({"Regions": {"Region": regions(context, "vpc", false)}})))
}

fn regions(context: &Context<'_>, product: &str, with_status: bool) -> Vec<Value> {
    let mut known: Vec<((usize, &str), &String)> =
        context.settings.regions.iter().map(|id| (region_name(id, is_english(context)), id)).collect();
    known.sort_by_key(|((place, _), _)| *place);
    let region = |((_, name), id): ((usize, &str), &String)| {
        let mut value = json!({
            "RegionId": id,
            "LocalName": name,
            "RegionEndpoint": format!("{product}.{id}.aliyuncs.com"),
        });
        if with_status {
            value["Status"] = json!("available");
        }
        value
    };
    known.into_iter().map(region).collect()
}

/// A zone's name, by its region's name and its own letter.
fn zone_name(context: &Context<'_>, id: &str) -> String {
    let letter = id.chars().next_back().unwrap_or_default().to_ascii_uppercase();
    match region_name(context.region(), is_english(context)).1 {
        name if is_english(context) => format!("{name} Zone {letter}"),
        name => format!("{name} 可用区{letter}"),
    }
}

pub(in crate::ecs) fn describe_zones(context: &Context<'_>) -> Result<Plan, ApiError> {
    check_language(context)?;
    context.word("InstanceChargeType", &["PostPaid", "PrePaid"], CHARGE_TYPE)?;
    context.word("SpotStrategy", &["NoSpot", "SpotWithPriceLimit", "SpotAsPriceGo"], SPOT_STRATEGY)?;
    let catalogue = &context.settings.catalogue;
    let types: Vec<&str> = catalogue.instance_types.iter().map(|one| one.id.as_str()).collect();
    let families: BTreeSet<&str> = catalogue.instance_types.iter().map(|one| one.family()).collect();
    let disks = &catalogue.disk_categories;
    let is_verbose = context.parameters().boolean("Verbose")?.unwrap_or(true);
    let zone = |id: String| {
        let resources = json!({
            "IoOptimized": true,
            "InstanceTypes": {"supportedInstanceType": types},
            "InstanceTypeFamilies": {"supportedInstanceTypeFamily": families},
            "SystemDiskCategories": {"supportedSystemDiskCategory": disks},
            "DataDiskCategories": {"supportedDataDiskCategory": disks},
            "NetworkTypes": {"supportedNetworkCategory": ["vpc"]},
        });
        let resources: Vec<Value> = is_verbose.then_some(resources).into_iter().collect();
        json!({
            "ZoneId": id,
            "LocalName": zone_name(context, &id),
            "ZoneType": "AvailabilityZone",
            "AvailableInstanceTypes": {"InstanceTypes": if is_verbose { &types[..] } else { &[] }},
            "AvailableDiskCategories": {"DiskCategories": disks},
            "AvailableResourceCreation": {"ResourceTypes": ["VSwitch", "IoOptimized", "Instance", "Disk"]},
            "AvailableResources": {"ResourcesInfo": resources},
        })
    };
    let zones: Vec<Value> = context.zones_of(context.region()).into_iter().map(zone).collect();
    Ok(Plan::answer(json!({"Zones": {"Zone": zones}})))
}

pub(in crate::ecs) fn describe_vpc_zones(context: &Context<'_>) -> Result<Plan, ApiError> {
    let zone = |id: String| json!({"ZoneId": id, "LocalName": zone_name(context, &id), "ZoneType": "Zone"});
    let zones: Vec<Value> = context.zones_of(context.region()).into_iter().map(zone).collect();
    Ok(Plan::answer(json!({"Zones": {"Zone": zones}})))
}

pub(in crate::ecs) fn describe_account_attributes(context: &Context<'_>) -> Result<Plan, ApiError> {
    let asked = context.parameters().list("AttributeName")?;
    let attributes = [
        ("max-security-groups", vec![context.scope.quotas().groups_max.to_string()]),
        ("supported-network-types", vec!["vpc".to_owned()]),
        ("instance-network-type", vec!["vpc".to_owned()]),
        ("instance-subnets-max", vec![context.scope.quotas().vswitches_per_vpc_max.to_string()]),
        ("max-elastic-network-interfaces", vec![context.scope.quotas().enis_max.to_string()]),
    ];
    let wanted = attributes.iter().filter(|(name, _)| asked.is_empty() || asked.iter().any(|asked| asked == name));
    let item = |(name, values): &(&str, Vec<String>)| {
        let values: Vec<Value> = values.iter().map(|value| json!({"Value": value})).collect();
        json!({"AttributeName": name, "AttributeValues": {"ValueItem": values}})
    };
    let items: Vec<Value> = wanted.map(item).collect();
    Ok(Plan::answer(json!({"AccountAttributeItems": {"AccountAttributeItem": items}})))
}
