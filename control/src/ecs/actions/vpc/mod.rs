//! Private networks.

pub(in crate::ecs) mod block;
pub(in crate::ecs) mod default;
pub(in crate::ecs) mod dhcp;
pub(in crate::ecs) mod route;
pub(in crate::ecs) mod route_entry;

use crate::command::{Command, VpcCreate, VpcDelete, VpcModify};
use crate::ecs::dialect::call::{Context, Plan, members};
use crate::ecs::dialect::paging::page;
use crate::ecs::dialect::scope::Access;
use crate::error::{ApiError, ErrorKind};
use crate::model::{Vpc, timestamp};
use ipnet::{Ipv4Net, Ipv6Net};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, Ipv6Addr};
use vswitch_core::config::ids::VpcId;

const USER_BLOCK: ErrorKind = ErrorKind { code: "InvalidUserCidr.Malformed", status: 400 };
const USER_BLOCK_QUOTA: ErrorKind = ErrorKind { code: "InvalidUserCidr.Quota", status: 400 };
const USER_BLOCKS_MAX: usize = 3;
/// The default block of a VPC.
const BLOCK: &str = "172.16.0.0/12";

pub(in crate::ecs) fn create(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let id = context.environment.new_id("vpc");
    let label = context.new_label(&id, None)?;
    check_user_blocks(parameters.text("UserCidr").unwrap_or_default())?;
    let block = match (parameters.boolean("EnableIpv6")?, parameters.owned("Ipv6CidrBlock")) {
        (Some(false), Some(_)) => return context.refuse("Ipv6CidrBlock", "EnableIpv6 is false"),
        (_, Some(block)) => Some(block),
        (Some(true), None) => Some(new_ipv6_block(context)),
        _ => None,
    };
    let create = VpcCreate {
        id: Some(id.clone()),
        cidr: parameters.owned("CidrBlock").unwrap_or_else(|| BLOCK.into()),
        ipv6_cidr: block,
        name: parameters.owned("VpcName"),
        description: parameters.owned("Description"),
    };
    let commands = [Command::VpcCreate(create)].into_iter().chain(label).collect();
    let answer = move |context: &Context<'_>| {
        members(json!({
            "VpcId": id,
            "VRouterId": sibling("vrt", &id),
            "RouteTableId": sibling("vtb", &id),
            "ResourceGroupId": context.scope.resource_group_of(&id),
        }))
    };
    Ok(context.change(commands, Box::new(answer)))
}

/// Refuses invalid blocks of the customer's own. Valid ones are only stored: routes determine where they are.
fn check_user_blocks(text: &str) -> Result<(), ApiError> {
    let shared = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);
    let blocks: Vec<&str> = text.split(',').map(str::trim).filter(|block| !block.is_empty()).collect();
    if blocks.len() > USER_BLOCKS_MAX {
        return Err(USER_BLOCK_QUOTA.error(format!("{} are given.", blocks.len())).field("UserCidr"));
    }
    let fits =
        |block: &&str| block.parse::<Ipv4Net>().is_ok_and(|net| !net.contains(&shared) && !shared.contains(&net));
    match blocks.iter().find(|block| !fits(block)) {
        Some(_) => Err(USER_BLOCK.error("write blocks like 10.8.0.0/16 outside of it.").field("UserCidr")),
        None => Ok(()),
    }
}

/// A random unique local block.
fn new_ipv6_block(context: &Context<'_>) -> String {
    loop {
        let [a, b, c, d, e, f] = context.environment.new_mac().0;
        let address = Ipv6Addr::from([0xfd, a, b, c, d, e, f, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let block = Ipv6Net::new(address, 56).map(|block| block.trunc()).unwrap_or_default();
        if !context.scope.is_ipv6_block_taken(&block) {
            return block.to_string();
        }
    }
}

/// The identifier of an object that exists as part of a VPC.
pub(in crate::ecs) fn sibling(prefix: &str, vpc: &str) -> String {
    format!("{prefix}-{}", vpc.split_once('-').map_or(vpc, |(_, rest)| rest))
}

pub(in crate::ecs) fn modify(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let (id, vpc) = named(context, Access::Own)?;
    context.check_vpc_made(&id, vpc)?;
    let ipv6_cidr = match (parameters.boolean("EnableIPv6")?, parameters.owned("Ipv6CidrBlock")) {
        (Some(false), Some(_)) => return context.refuse("Ipv6CidrBlock", "EnableIPv6 is false"),
        (Some(false), None) => Some(String::new()),
        (_, Some(block)) => Some(block),
        (Some(true), None) if vpc.ipv6_cidr.is_none() => Some(new_ipv6_block(context)),
        _ => None,
    };
    let modify = VpcModify {
        vpc: id.to_string(),
        name: parameters.given("VpcName").map(str::to_owned),
        description: parameters.given("Description").map(str::to_owned),
        cidr: parameters.owned("CidrBlock"),
        ipv6_cidr,
        ..VpcModify::default()
    };
    let note = context.note_attributes(id.as_str());
    Ok(context.quiet_change([Command::VpcModify(modify)].into_iter().chain(note).collect()))
}

fn named<'a>(context: &Context<'a>, access: Access) -> Result<(VpcId, &'a Vpc), ApiError> {
    context.scope.vpc(context.parameters().text("VpcId").unwrap_or_default(), access)
}

pub(in crate::ecs) fn delete(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (id, vpc) = named(context, Access::Own)?;
    context.check_vpc_made(&id, vpc)?;
    Ok(context.quiet_change(vec![Command::VpcDelete(VpcDelete { vpc: id.to_string() })]))
}

pub(in crate::ecs) fn describe(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let ids: Vec<&str> =
        parameters.text("VpcId").map(|text| text.split(',').map(str::trim).collect()).unwrap_or_default();
    if ids.len() > 20 {
        return context.refuse("VpcId", "name at most 20");
    }
    let default = parameters.boolean("IsDefault")?;
    let with_ipv6 = parameters.boolean("EnableIpv6")?;
    let note = |name: &str, id: &VpcId| context.scope.label(id.as_str()).attribute(name).to_owned();
    let mut entries = Vec::new();
    for (id, vpc) in context.scope.vpcs() {
        let wanted = (ids.is_empty() || ids.contains(&id.as_str()))
            && parameters.text("VpcName").is_none_or(|name| name == vpc.name)
            && parameters.text("VpcOwnerId").is_none_or(|owner| owner == context.scope.owner_of(id.as_str()))
            && with_ipv6.is_none_or(|wanted| wanted == vpc.ipv6_cidr.is_some())
            && default.is_none_or(|wanted| wanted == default::is_default(context, id.as_str()))
            && parameters.text("DhcpOptionsSetId").is_none_or(|wanted| wanted == note(dhcp::NOTED, id))
            && context.has_resource_group(id.as_str())
            && context.has_tags(id.as_str())?;
        if wanted {
            let mut value = vpc_json(context, id, vpc);
            value["RouterTableIds"] = json!({"RouterTableIds": [sibling("vtb", id.as_str())]});
            entries.push((id.to_string(), value));
        }
    }
    let page = page(context, entries, true)?;
    let mut answer = page.about;
    answer.insert("Vpcs".into(), json!({ "Vpc": page.entries }));
    Ok(Plan::Answer(answer))
}

pub(in crate::ecs) fn describe_attribute(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (id, vpc) = named(context, Access::Use)?;
    let mut answer = members(vpc_json(context, &id, vpc));
    let vswitches = context.scope.vswitches().filter(|(_, vswitch)| vswitch.vpc == id).count();
    let resources = [("VRouter", 1), ("VSwitch", vswitches), ("RouteTable", 1)];
    let resources: Vec<Value> =
        resources.iter().map(|(kind, count)| json!({"ResourceType": kind, "ResourceCount": count})).collect();
    answer.insert("CloudResources".into(), json!({ "CloudResourceSetType": resources }));
    Ok(Plan::Answer(answer))
}

fn vpc_json(context: &Context<'_>, id: &VpcId, vpc: &Vpc) -> Value {
    let vswitches: Vec<String> =
        context.scope.vswitches().filter(|(_, vswitch)| vswitch.vpc == *id).map(|(id, _)| id.to_string()).collect();
    let ipv6 = vpc.ipv6_cidr.map(|block| block.to_string());
    let noted = context.scope.label(id.as_str());
    let isp = if noted.attribute("Ipv6Isp").is_empty() { "BGP" } else { noted.attribute("Ipv6Isp") };
    let blocks: Vec<Value> = ipv6.iter().map(|block| json!({"Ipv6CidrBlock": block, "Ipv6Isp": isp})).collect();
    let user = noted.attribute("UserCidr").split(',').map(str::trim).filter(|block| !block.is_empty());
    let names = noted.attribute("EnableDnsHostname").eq_ignore_ascii_case("true");
    let dhcp = noted.attribute(dhcp::NOTED);
    json!({
        "VpcId": id,
        "VpcName": vpc.name,
        "Description": vpc.description,
        "CidrBlock": vpc.cidr,
        "Ipv6CidrBlock": ipv6.unwrap_or_default(),
        "Ipv6CidrBlocks": {"Ipv6CidrBlock": blocks},
        "EnabledIpv6": vpc.ipv6_cidr.is_some(),
        "SecondaryCidrBlocks": {"SecondaryCidrBlock": vpc.secondary_cidrs},
        "UserCidrs": {"UserCidr": user.collect::<Vec<_>>()},
        "DnsHostnameStatus": if names { "ENABLED" } else { "DISABLED" },
        "DhcpOptionsSetId": dhcp,
        "DhcpOptionsSetStatus": if dhcp.is_empty() { "" } else { "InUse" },
        "IsDefault": default::is_default(context, id.as_str()),
        "CreationTime": timestamp(vpc.created_s),
        "RegionId": context.scope.region_of(id.as_str()),
        "OwnerId": context.scope.owner_of(id.as_str()).parse::<u64>().unwrap_or(0),
        "Status": if context.is_passing(vpc.created_s) { "Pending" } else { "Available" },
        "VRouterId": sibling("vrt", id.as_str()),
        "VSwitchIds": {"VSwitchId": vswitches},
        "ResourceGroupId": context.scope.resource_group_of(id.as_str()),
        "Tags": {"Tag": context.vpc_tags_of(id.as_str())},
    })
}
