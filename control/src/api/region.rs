//! Regions, zones and what an account may have.

use super::desk::{Desk, Plan, zones_of};
use crate::error::{ApiError, ErrorKind};
use serde_json::{Value, json};

const LANGUAGE: ErrorKind = ErrorKind { code: "InvalidAcceptLanguage.NotFound", status: 404 };

const CHARGE_TYPE: ErrorKind = ErrorKind { code: "InvalidInstanceChargeType.NotFound", status: 404 };
const SPOT_STRATEGY: ErrorKind = ErrorKind { code: "InvalidSpotStrategy", status: 400 };
const RESOURCE_TYPE: ErrorKind = ErrorKind { code: "InvalidResourceType.NotFound", status: 404 };

fn check_language(desk: &Desk<'_>) -> Result<(), ApiError> {
    desk.word("AcceptLanguage", &["zh-CN", "en-US", "ja"], LANGUAGE).map(drop)
}

pub(super) fn describe_regions(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    check_language(desk)?;
    desk.word("ResourceType", &["instance", "disk", "reservedinstance", "scu"], RESOURCE_TYPE)?;
    Ok(Plan::answer(json!({"Regions": {"Region": regions(desk, "ecs", true)}})))
}

pub(super) fn describe_vpc_regions(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    Ok(Plan::answer(json!({"Regions": {"Region": regions(desk, "vpc", false)}})))
}

fn regions(desk: &Desk<'_>, product: &str, with_status: bool) -> Vec<Value> {
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
    desk.settings.regions.iter().map(region).collect()
}

pub(super) fn describe_zones(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    check_language(desk)?;
    desk.word("InstanceChargeType", &["PostPaid", "PrePaid"], CHARGE_TYPE)?;
    desk.word("SpotStrategy", &["NoSpot", "SpotWithPriceLimit", "SpotAsPriceGo"], SPOT_STRATEGY)?;
    let zone = |id: String| {
        json!({
            "ZoneId": id,
            "LocalName": id,
            "ZoneType": "AvailabilityZone",
            "AvailableResourceCreation": {"ResourceTypes": ["VSwitch", "Instance"]},
        })
    };
    let zones: Vec<Value> = zones_of(desk.region()).into_iter().map(zone).collect();
    Ok(Plan::answer(json!({"Zones": {"Zone": zones}})))
}

pub(super) fn describe_vpc_zones(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let zone = |id: String| json!({"ZoneId": id, "LocalName": id, "ZoneType": "Zone"});
    let zones: Vec<Value> = zones_of(desk.region()).into_iter().map(zone).collect();
    Ok(Plan::answer(json!({"Zones": {"Zone": zones}})))
}

pub(super) fn describe_account_attributes(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let asked = desk.parameters().list("AttributeName")?;
    let attributes = [
        ("max-security-groups", vec![desk.model.quotas.groups_max.to_string()]),
        ("supported-network-types", vec!["vpc".to_owned()]),
        ("instance-network-type", vec!["vpc".to_owned()]),
        ("instance-subnets-max", vec![desk.model.quotas.vswitches_per_vpc_max.to_string()]),
        ("max-elastic-network-interfaces", vec![desk.model.quotas.enis_max.to_string()]),
    ];
    let wanted = attributes.iter().filter(|(name, _)| asked.is_empty() || asked.iter().any(|asked| asked == name));
    let item = |(name, values): &(&str, Vec<String>)| {
        let values: Vec<Value> = values.iter().map(|value| json!({"Value": value})).collect();
        json!({"AttributeName": name, "AttributeValues": {"ValueItem": values}})
    };
    let items: Vec<Value> = wanted.map(item).collect();
    Ok(Plan::answer(json!({"AccountAttributeItems": {"AccountAttributeItem": items}})))
}
