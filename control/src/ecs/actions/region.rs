//! Regions, zones and what an account may have.

use crate::ecs::dialect::call::{Context, Plan, zones_of};
use crate::error::{ApiError, ErrorKind};
use serde_json::{Value, json};

const LANGUAGE: ErrorKind = ErrorKind { code: "InvalidAcceptLanguage.NotFound", status: 404 };

const CHARGE_TYPE: ErrorKind = ErrorKind { code: "InvalidInstanceChargeType.NotFound", status: 404 };
const SPOT_STRATEGY: ErrorKind = ErrorKind { code: "InvalidSpotStrategy", status: 400 };
const RESOURCE_TYPE: ErrorKind = ErrorKind { code: "InvalidResourceType.NotFound", status: 404 };

fn check_language(context: &Context<'_>) -> Result<(), ApiError> {
    context.word("AcceptLanguage", &["zh-CN", "en-US", "ja"], LANGUAGE).map(drop)
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
    let region = |id: &String| {
        let mut value = json!({
            "RegionId": id,
            "LocalName": id,
            "RegionEndpoint": format!("{product}.{id}.aliyuncs.com"),
        });
        if with_status {
            value["Status"] = json!("available");
        }
        value
    };
    context.settings.regions.iter().map(region).collect()
}

pub(in crate::ecs) fn describe_zones(context: &Context<'_>) -> Result<Plan, ApiError> {
    check_language(context)?;
    context.word("InstanceChargeType", &["PostPaid", "PrePaid"], CHARGE_TYPE)?;
    context.word("SpotStrategy", &["NoSpot", "SpotWithPriceLimit", "SpotAsPriceGo"], SPOT_STRATEGY)?;
    let zone = |id: String| {
        json!({
            "ZoneId": id,
            "LocalName": id,
            "ZoneType": "AvailabilityZone",
            "AvailableResourceCreation": {"ResourceTypes": ["VSwitch", "Instance"]},
        })
    };
    let zones: Vec<Value> = zones_of(context.region()).into_iter().map(zone).collect();
    Ok(Plan::answer(json!({"Zones": {"Zone": zones}})))
}

pub(in crate::ecs) fn describe_vpc_zones(context: &Context<'_>) -> Result<Plan, ApiError> {
    let zone = |id: String| json!({"ZoneId": id, "LocalName": id, "ZoneType": "Zone"});
    let zones: Vec<Value> = zones_of(context.region()).into_iter().map(zone).collect();
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
