//! Subnets of private networks.

pub(in crate::ecs) mod reservation;

use super::vpc::default::is_default;
use super::vpc::sibling;
use crate::command::{Command, VswitchCreate, VswitchDelete, VswitchModify};
use crate::ecs::dialect::call::{Context, Plan, ZONE_NOT_FOUND, members};
use crate::ecs::dialect::paging::page;
use crate::ecs::dialect::scope::Access;
use crate::ecs::dialect::validate::missing;
use crate::error::{ApiError, IPV6_NOT_TURNED_ON};
use crate::model::{VSwitch, Vpc, timestamp};
use ipnet::Ipv6Net;
use serde_json::{Value, json};
use std::net::Ipv6Addr;
use vswitch_core::config::ids::VSwitchId;

pub(in crate::ecs) fn create(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let zone = parameters.text("ZoneId").unwrap_or_default();
    let known = match parameters.text("RegionId") {
        Some(region) => context.zones_of(region),
        None => context.settings.regions.iter().flat_map(|region| context.zones_of(region)).collect(),
    };
    if !known.iter().any(|known| known == zone) {
        return Err(ZONE_NOT_FOUND.error("see DescribeZones.").field("ZoneId"));
    }
    let id = context.environment.new_id("vsw");
    let label = context.new_label(&id, Some(zone.to_owned()))?;
    let (vpc_id, vpc) = context.scope.vpc(parameters.text("VpcId").unwrap_or_default(), Access::Own)?;
    context.check_vpc_made(&vpc_id, vpc)?;
    let region = context.scope.region_of(vpc_id.as_str());
    if !context.zones_of(region).iter().any(|known| known == zone) {
        return Err(ZONE_NOT_FOUND.error(format!("{vpc_id} is in {region}: see DescribeZones.")).field("ZoneId"));
    }
    let create = VswitchCreate {
        id: Some(id.clone()),
        vpc: vpc_id.to_string(),
        cidr: parameters.owned("CidrBlock").unwrap_or_default(),
        ipv6_cidr: ipv6_block(context, vpc)?,
        name: parameters.owned("VSwitchName"),
        description: parameters.owned("Description"),
    };
    let commands = [Command::VswitchCreate(create)].into_iter().chain(label).collect();
    Ok(context.change(commands, Box::new(move |_| members(json!({"VSwitchId": id})))))
}

/// The /64 of a VPC's block that the call names by its last eight bits.
pub(in crate::ecs) fn ipv6_block(context: &Context<'_>, vpc: &Vpc) -> Result<Option<String>, ApiError> {
    let parameters = context.parameters();
    let of_vpc = parameters.text("VpcIpv6CidrBlock").map(|text| text.parse::<Ipv6Net>().ok());
    if of_vpc.is_some_and(|block| block.is_none() || block != vpc.ipv6_cidr) {
        return context.refuse("VpcIpv6CidrBlock", "it is not an IPv6 block of the VPC");
    }
    let Some(number) = parameters.count::<u8>("Ipv6CidrBlock")? else { return Ok(None) };
    let Some(block) = vpc.ipv6_cidr else {
        return Err(IPV6_NOT_TURNED_ON.error("the VPC has no IPv6 block.").field("Ipv6CidrBlock"));
    };
    let network = u128::from(block.network()) | u128::from(number) << 64;
    let subnet = Ipv6Net::new(Ipv6Addr::from(network), 64).map(|subnet| subnet.to_string());
    Ok(subnet.ok())
}

pub(in crate::ecs) fn modify(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let (id, vswitch) = named(context, Access::Own)?;
    context.check_vswitch_made(&id, vswitch)?;
    let (_, vpc) = context.scope.vpc(vswitch.vpc.as_str(), Access::Use)?;
    let ipv6_cidr = match (parameters.boolean("EnableIPv6")?, ipv6_block(context, vpc)?) {
        (Some(false), Some(_)) => return context.refuse("Ipv6CidrBlock", "EnableIPv6 is false"),
        (Some(false), None) => Some(String::new()),
        (Some(true), None) if vswitch.ipv6_cidr.is_none() => {
            return Err(missing(context.call.action.schema(), "Ipv6CidrBlock"));
        }
        (_, block) => block,
    };
    let modify = VswitchModify {
        vswitch: id.to_string(),
        name: parameters.given("VSwitchName").map(str::to_owned),
        description: parameters.given("Description").map(str::to_owned),
        ipv6_cidr,
    };
    Ok(context.quiet_change(vec![Command::VswitchModify(modify)]))
}

fn named<'a>(context: &Context<'a>, access: Access) -> Result<(VSwitchId, &'a VSwitch), ApiError> {
    context.scope.vswitch(context.parameters().text("VSwitchId").unwrap_or_default(), access)
}

pub(in crate::ecs) fn delete(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (id, vswitch) = named(context, Access::Own)?;
    context.check_vswitch_made(&id, vswitch)?;
    Ok(context.quiet_change(vec![Command::VswitchDelete(VswitchDelete { vswitch: id.to_string() })]))
}

pub(in crate::ecs) fn describe(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let default = parameters.boolean("IsDefault")?;
    let with_ipv6 = parameters.boolean("EnableIpv6")?;
    let is_asked = |name: &str, value: &str| parameters.text(name).is_none_or(|wanted| wanted == value);
    let mut entries = Vec::new();
    for (id, vswitch) in context.scope.vswitches() {
        let wanted = is_asked("VSwitchId", id.as_str())
            && is_asked("VpcId", vswitch.vpc.as_str())
            && is_asked("VSwitchName", &vswitch.name)
            && is_asked("ZoneId", &context.zone_of(id))
            && is_asked("VSwitchOwnerId", context.scope.owner_of(id.as_str()))
            && is_asked("RouteTableId", &sibling("vtb", vswitch.vpc.as_str()))
            && with_ipv6.is_none_or(|wanted| wanted == vswitch.ipv6_cidr.is_some())
            && default.is_none_or(|wanted| wanted == is_default(context, id.as_str()))
            && context.has_resource_group(id.as_str())
            && context.has_tags(id.as_str())?;
        if wanted {
            entries.push((id.to_string(), vswitch_json(context, id, vswitch)));
        }
    }
    let page = page(context, entries, true)?;
    let mut answer = page.about;
    answer.insert("VSwitches".into(), json!({ "VSwitch": page.entries }));
    Ok(Plan::Answer(answer))
}

pub(in crate::ecs) fn describe_attributes(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (id, vswitch) = named(context, Access::Use)?;
    Ok(Plan::answer(vswitch_json(context, &id, vswitch)))
}

fn vswitch_json(context: &Context<'_>, id: &VSwitchId, vswitch: &VSwitch) -> Value {
    // The first address and the last three are reserved.
    let size = 1_u64 << (32 - u32::from(vswitch.cidr.prefix_len()));
    let taken = context.scope.taken_ipv4_addresses(id);
    json!({
        "VSwitchId": id,
        "VSwitchName": vswitch.name,
        "Description": vswitch.description,
        "VpcId": vswitch.vpc,
        "CidrBlock": vswitch.cidr,
        "Ipv6CidrBlock": vswitch.ipv6_cidr.map(|block| block.to_string()).unwrap_or_default(),
        "EnabledIpv6": vswitch.ipv6_cidr.is_some(),
        "IsDefault": is_default(context, id.as_str()),
        "AvailableIpAddressCount": size.saturating_sub(4).saturating_sub(taken),
        "CreationTime": timestamp(vswitch.created_s),
        "Status": if context.is_passing(vswitch.created_s) { "Pending" } else { "Available" },
        "ZoneId": context.zone_of(id),
        "OwnerId": context.scope.owner_of(id.as_str()).parse::<u64>().unwrap_or(0),
        "ResourceGroupId": context.scope.resource_group_of(id.as_str()),
        "RouteTable": {"RouteTableId": sibling("vtb", vswitch.vpc.as_str()), "RouteTableType": "System"},
        "Tags": {"Tag": context.vpc_tags_of(id.as_str())},
    })
}
