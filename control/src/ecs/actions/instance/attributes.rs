//! Attributes of instances that have nothing to do with packets: stored as they were given, and returned.

use crate::command::{Command, LabelModify};
use crate::ecs::catalogue::family_of;
use crate::ecs::dialect::call::{Context, Plan, members};
use crate::ecs::dialect::paging::page;
use crate::error::ApiError;
use crate::model::PUBLIC_ADDRESS;
use crate::model::{Instance, Metadata, timestamp};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Seconds in a month of a subscription.
const MONTH_S: u64 = 31 * 86_400;
/// Seconds of a week.
const WEEK_S: u64 = 7 * 86_400;

/// The instances that a call names, in whichever form its action has.
fn named(context: &Context<'_>) -> Result<Vec<String>, ApiError> {
    let parameters = context.parameters();
    let mut ids = parameters.list("InstanceId")?;
    ids.extend(parameters.owned("InstanceId"));
    ids.extend(parameters.json_list("InstanceIds")?.unwrap_or_default());
    ids.iter().try_for_each(|id| context.scope.instance(id).map(drop))?;
    Ok(ids)
}

/// A change of an instance's attributes; an empty value removes one.
pub(in crate::ecs) fn change<const N: usize>(instance: &str, attributes: [(&str, String); N]) -> Command {
    let attributes = attributes.map(|(name, value)| (name.to_owned(), value));
    let attributes = BTreeMap::from(attributes);
    Command::LabelModify(LabelModify { object: instance.to_owned(), attributes, ..LabelModify::default() })
}

/// Stores the call's attributes with each instance that it names.
pub(in crate::ecs) fn note(context: &Context<'_>) -> Result<Plan, ApiError> {
    let ids = named(context)?;
    Ok(context.quiet_change(ids.iter().filter_map(|id| context.note_attributes(id)).collect()))
}

/// Sets the time at which an instance is released; without one it is never.
pub(in crate::ecs) fn auto_release_time(context: &Context<'_>) -> Result<Plan, ApiError> {
    let time = context.parameters().owned("AutoReleaseTime").unwrap_or_default();
    let ids = named(context)?;
    Ok(context.quiet_change(ids.iter().map(|id| change(id, [("AutoReleaseTime", time.clone())])).collect()))
}

pub(in crate::ecs) fn attach_ram_role(context: &Context<'_>) -> Result<Plan, ApiError> {
    ram_role(context, "AttachInstanceRamRole", context.parameters().owned("RamRoleName").unwrap_or_default())
}

pub(in crate::ecs) fn detach_ram_role(context: &Context<'_>) -> Result<Plan, ApiError> {
    ram_role(context, "DetachInstanceRamRole", String::new())
}

fn ram_role(context: &Context<'_>, name: &str, role: String) -> Result<Plan, ApiError> {
    let ids = named(context)?;
    let result = |id: &String| json!({"InstanceId": id, "Code": "200", "Message": "success", "Success": true});
    let results: Vec<Value> = ids.iter().map(result).collect();
    let commands = ids.iter().map(|id| change(id, [("RamRoleName", role.clone())])).collect();
    let answer = json!({
        format!("{name}Results"): {format!("{name}Result"): results},
        "RamRoleName": context.parameters().text("RamRoleName").unwrap_or_default(),
        "TotalCount": ids.len(),
        "FailCount": 0,
    });
    Ok(context.change(commands, Box::new(move |_| members(answer))))
}

/// A page about the caller's instances, or those named, with an entry for each for which `entry` returns one.
fn list(
    context: &Context<'_>,
    names: [&str; 2],
    entry: impl Fn(&str, &Metadata) -> Option<Value>,
) -> Result<Plan, ApiError> {
    let wanted = named(context)?;
    let instances = context.scope.instances().filter(|(id, _)| wanted.is_empty() || wanted.contains(id));
    let entries = instances.filter_map(|(id, _)| Some((id.clone(), entry(id, context.scope.label(id))?)));
    let page = page(context, entries.collect(), true)?;
    let mut answer = page.about;
    // One of these actions only returns the number of entries.
    let published = &context.call.action.schema().response;
    answer.retain(|name, _| published.get(name).is_some());
    answer.insert(names[0].into(), json!({ names[1]: page.entries }));
    Ok(Plan::Answer(answer))
}

pub(in crate::ecs) fn describe_ram_roles(context: &Context<'_>) -> Result<Plan, ApiError> {
    let wanted = context.parameters().text("RamRoleName");
    list(context, ["InstanceRamRoleSets", "InstanceRamRoleSet"], |id, noted| {
        let role = noted.attribute("RamRoleName");
        let shown = !role.is_empty() && wanted.is_none_or(|wanted| wanted == role);
        shown.then(|| json!({"InstanceId": id, "RamRoleName": role}))
    })
}

pub(in crate::ecs) fn describe_maintenance(context: &Context<'_>) -> Result<Plan, ApiError> {
    list(context, ["MaintenanceAttributes", "MaintenanceAttribute"], |id, noted| {
        let window = |number: usize| {
            let time = |end: &str| noted.attribute(&format!("MaintenanceWindow.{number}.{end}"));
            (!time("StartTime").is_empty()).then(|| json!({"StartTime": time("StartTime"), "EndTime": time("EndTime")}))
        };
        let windows: Vec<Value> = (1..=5).filter_map(window).collect();
        let action = non_empty(noted.attribute("ActionOnMaintenance"), "AutoRecover");
        Some(json!({
            "InstanceId": id,
            "MaintenanceWindows": {"MaintenanceWindow": windows},
            "ActionOnMaintenance": {
                "Value": action,
                "DefaultValue": "AutoRecover",
                "SupportedValues": {"SupportedValue": ["Stop", "AutoRecover", "AutoRedeploy"]},
            },
            "NotifyOnMaintenance": noted.attribute("NotifyOnMaintenance").eq_ignore_ascii_case("true"),
        }))
    })
}

pub(in crate::ecs) fn describe_attachment(context: &Context<'_>) -> Result<Plan, ApiError> {
    list(context, ["Instances", "Instance"], |id, noted| {
        let criteria = non_empty(noted.attribute("PrivatePoolOptions.MatchCriteria"), "Open");
        Some(json!({
            "InstanceId": id,
            "PrivatePoolOptionsId": noted.attribute("PrivatePoolOptions.Id"),
            "PrivatePoolOptionsMatchCriteria": criteria,
        }))
    })
}

pub(in crate::ecs) fn describe_auto_renew(context: &Context<'_>) -> Result<Plan, ApiError> {
    let wanted = context.parameters().text("RenewalStatus");
    list(context, ["InstanceRenewAttributes", "InstanceRenewAttribute"], |id, noted| {
        let is_on = noted.attribute("AutoRenew").eq_ignore_ascii_case("true");
        let status = non_empty(noted.attribute("RenewalStatus"), if is_on { "AutoRenewal" } else { "Normal" });
        let duration = non_empty(noted.attribute("Duration"), noted.attribute("AutoRenewPeriod"));
        let is_prepaid = noted.attribute("InstanceChargeType") == "PrePaid";
        let shown = is_prepaid && wanted.is_none_or(|wanted| wanted == status);
        shown.then(|| {
            json!({
                "InstanceId": id,
                "AutoRenewEnabled": status == "AutoRenewal",
                "RenewalStatus": status,
                "Duration": duration.parse::<u64>().unwrap_or(0),
                "PeriodUnit": non_empty(noted.attribute("PeriodUnit"), "Month"),
            })
        })
    })
}

pub(in crate::ecs) fn describe_user_data(context: &Context<'_>) -> Result<Plan, ApiError> {
    let id = context.parameters().text("InstanceId").unwrap_or_default();
    context.scope.instance(id)?;
    let user_data = context.scope.label(id).attribute("UserData");
    Ok(Plan::answer(json!({"InstanceId": id, "RegionId": context.scope.region_of(id), "UserData": user_data})))
}

fn non_empty<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

/// When a subscription instance expires; others do not.
fn expires(instance: &Instance, noted: &Metadata) -> String {
    if noted.attribute("InstanceChargeType") != "PrePaid" {
        return "2099-12-31T15:59Z".into();
    }
    let unit_s = if noted.attribute("PeriodUnit") == "Week" { WEEK_S } else { MONTH_S };
    let periods = noted.attribute("Period").parse::<u64>().unwrap_or(1).min(120);
    let text = timestamp(instance.created_s + unit_s * periods);
    // To the minute, as in the cloud.
    format!("{}Z", text.rsplit_once(':').map_or("", |(minute, _)| minute))
}

/// What both queries about instances return.
pub(in crate::ecs) fn shared_json(id: &str, instance: &Instance, noted: &Metadata) -> Map<String, Value> {
    let number = |name: &str| noted.attribute(name).parse::<u64>().unwrap_or(0);
    let text = |name: &str, otherwise: &'static str| non_empty(noted.attribute(name), otherwise).to_owned();
    let public = noted.attribute(PUBLIC_ADDRESS);
    let addresses: Vec<&str> = Some(public).filter(|address| !address.is_empty()).into_iter().collect();
    let stopped_mode = if instance.running { "Not-applicable".into() } else { text("StoppedMode", "KeepCharging") };
    members(json!({
        "SerialNumber": serial_number(id),
        "InstanceChargeType": text("InstanceChargeType", "PostPaid"),
        "InternetChargeType": text("InternetChargeType", "PayByTraffic"),
        "InternetMaxBandwidthIn": number("InternetMaxBandwidthIn"),
        "InternetMaxBandwidthOut": number("InternetMaxBandwidthOut"),
        "PublicIpAddress": {"IpAddress": addresses},
        "CreditSpecification": text("CreditSpecification", ""),
        "StoppedMode": stopped_mode,
        "ExpiredTime": expires(instance, noted),
    }))
}

/// What the list of instances returns in addition.
pub(in crate::ecs) fn listed_json(instance: &Instance, noted: &Metadata, cpus: u32) -> Map<String, Value> {
    let number = |name: &str| noted.attribute(name).parse::<u64>().unwrap_or(0);
    let text = |name: &str, otherwise: &'static str| non_empty(noted.attribute(name), otherwise).to_owned();
    let truth = |name: &str| noted.attribute(name).eq_ignore_ascii_case("true");
    let given = |name: &str| noted.attribute(name).parse::<u64>().ok().filter(|number| *number > 0);
    let threads = given("CpuOptions.ThreadsPerCore").unwrap_or(if cpus > 1 { 2 } else { 1 });
    let cores = given("CpuOptions.Core").unwrap_or_else(|| (u64::from(cpus) / threads).max(1));
    members(json!({
        "InstanceTypeFamily": family_of(&instance.instance_type),
        "KeyPairName": text("KeyPairName", ""),
        "SpotStrategy": text("SpotStrategy", "NoSpot"),
        "SpotPriceLimit": noted.attribute("SpotPriceLimit").parse::<f64>().unwrap_or(0.0),
        "SpotDuration": number("SpotDuration"),
        "SpotInterruptionBehavior": text("SpotInterruptionBehavior", ""),
        "AutoReleaseTime": text("AutoReleaseTime", ""),
        "HpcClusterId": text("HpcClusterId", ""),
        "DeploymentSetId": text("DeploymentSetId", ""),
        "DeploymentSetGroupNo": number("DeploymentSetGroupNo"),
        "Recyclable": truth("Recyclable"),
        "CpuOptions": {
            "CoreCount": cores,
            "ThreadsPerCore": threads,
            "Numa": text("CpuOptions.Numa", ""),
            "TopologyType": text("CpuOptions.TopologyType", ""),
        },
        "AdditionalInfo": {"EnableHighDensityMode": truth("AdditionalInfo.EnableHighDensityMode")},
        "ImageOptions": {"LoginAsNonRoot": truth("ImageOptions.LoginAsNonRoot")},
        "HibernationOptions": {"Configured": truth("HibernationOptions.Configured")},
        "SecurityOptions": {"EnableSecureBoot": truth("SecurityOptions.EnableSecureBoot")},
        "MetadataOptions": {
            "HttpEndpoint": text("HttpEndpoint", "enabled"),
            "HttpTokens": text("HttpTokens", "optional"),
            "HttpPutResponseHopLimit": number("HttpPutResponseHopLimit"),
        },
        "PrivateDnsNameOptions": {
            "HostnameType": text("PrivateDnsNameOptions.HostnameType", ""),
            "EnableIpDnsARecord": truth("PrivateDnsNameOptions.EnableIpDnsARecord"),
            "EnableIpDnsPtrRecord": truth("PrivateDnsNameOptions.EnableIpDnsPtrRecord"),
            "EnableInstanceIdDnsARecord": truth("PrivateDnsNameOptions.EnableInstanceIdDnsARecord"),
            "EnableInstanceIdDnsAAAARecord": truth("PrivateDnsNameOptions.EnableInstanceIdDnsAAAARecord"),
        },
    }))
}

/// A number that an instance finds in its firmware, derived from its identifier so that it never changes.
pub(in crate::ecs) fn serial_number(id: &str) -> String {
    let digits = crate::ecs::dialect::hash(id.as_bytes());
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..32]];
    parts.join("-")
}
