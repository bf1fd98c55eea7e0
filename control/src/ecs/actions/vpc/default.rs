//! The default VPC of a region and its subnets, one in each zone, for calls that name no network.

use super::{BLOCK, new_ipv6_block, sibling};
use crate::command::{Command, LabelModify, VpcCreate, VswitchCreate};
use crate::ecs::actions::vswitch::ipv6_block;
use crate::ecs::dialect::call::{Context, Plan, ZONE_NOT_FOUND, members};
use crate::ecs::dialect::scope::Access;
use crate::error::{ApiError, CIDR_BLOCK_OVERLAPPED, ErrorKind, IPV6_NOT_TURNED_ON};
use crate::model::Vpc;
use ipnet::Ipv4Net;
use serde_json::json;
use vswitch_core::config::ids::VpcId;

const VPC_EXISTS: ErrorKind = ErrorKind { code: "OperationDenied.DefaultVpcExists", status: 400 };
const VSWITCH_EXISTS: ErrorKind = ErrorKind { code: "OperationDenied.DefaultVSwitchExists", status: 400 };
/// The attribute of a default network.
const NOTED: &str = "IsDefault";
/// The length of a default subnet's block.
const SUBNET_BITS: u8 = 20;
const FIRST_SUBNET: &str = "172.16.0.0/20";

/// Whether a VPC or subnet is a default one.
pub(in crate::ecs) fn is_default(context: &Context<'_>, id: &str) -> bool {
    context.scope.label(id).attribute(NOTED) == "true"
}

/// The command that marks a new VPC or subnet as a default one.
fn note(context: &Context<'_>, object: &str, zone: Option<String>) -> Result<Command, ApiError> {
    let resource_group = context.resource_group()?;
    let attributes = [(NOTED.to_owned(), "true".to_owned())].into();
    let object = object.to_owned();
    Ok(Command::LabelModify(LabelModify { object, resource_group, zone, attributes, ..LabelModify::default() }))
}

/// The caller's default VPC in the region of the call.
pub(in crate::ecs) fn default_vpc<'a>(context: &Context<'a>) -> Option<(&'a VpcId, &'a Vpc)> {
    let own = context.scope.vpcs().filter(|(id, _)| context.scope.vpc(id.as_str(), Access::Own).is_ok());
    let mut here = own.filter(|(id, _)| context.scope.region_of(id.as_str()) == context.region());
    here.find(|(id, _)| is_default(context, id.as_str()))
}

pub(in crate::ecs) fn create_vpc(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    if let Some((id, _)) = default_vpc(context) {
        return Err(VPC_EXISTS.error(format!("it is {id}.")).object(id));
    }
    let ipv6_cidr = match (parameters.boolean("EnableIpv6")?, parameters.owned("Ipv6CidrBlock")) {
        (Some(true), block) => Some(block.unwrap_or_else(|| new_ipv6_block(context))),
        (_, Some(_)) => return context.refuse("Ipv6CidrBlock", "EnableIpv6 is not true"),
        (_, None) => None,
    };
    let id = context.environment.new_id("vpc");
    let create = VpcCreate { id: Some(id.clone()), cidr: BLOCK.into(), ipv6_cidr, ..VpcCreate::default() };
    let mut commands = vec![Command::VpcCreate(create), note(context, &id, None)?];
    let mut subnets = Vec::new();
    if parameters.boolean("EnableDefaultVSwitch")?.unwrap_or(false) {
        let zone = match parameters.owned("ZoneId") {
            Some(zone) => named_zone(context, zone)?,
            None => context.zones_of(context.region()).into_iter().next().unwrap_or_default(),
        };
        let subnet = context.environment.new_id("vsw");
        let (cidr, vpc) = (FIRST_SUBNET.into(), id.clone());
        let create = VswitchCreate { id: Some(subnet.clone()), vpc, cidr, ..VswitchCreate::default() };
        commands.extend([Command::VswitchCreate(create), note(context, &subnet, Some(zone.clone()))?]);
        subnets.push(json!({"VSwitchId": subnet, "ZoneId": zone}));
    }
    let answer = move |_: &Context<'_>| {
        let (router, table) = (sibling("vrt", &id), sibling("vtb", &id));
        members(json!({"VpcId": id, "VRouterId": router, "RouteTableId": table, "DefaultVSwitchs": subnets}))
    };
    Ok(context.change(commands, Box::new(answer)))
}

/// A zone of the region of the call.
fn named_zone(context: &Context<'_>, zone: String) -> Result<String, ApiError> {
    match context.zones_of(context.region()).contains(&zone) {
        true => Ok(zone),
        false => Err(ZONE_NOT_FOUND.error("see DescribeZones.").field("ZoneId")),
    }
}

pub(in crate::ecs) fn create_vswitch(context: &Context<'_>) -> Result<Plan, ApiError> {
    let zone = named_zone(context, context.parameters().owned("ZoneId").unwrap_or_default())?;
    let (mut commands, vpc_id, cidr, ipv6_cidr) = match default_vpc(context) {
        Some((id, vpc)) => {
            context.check_vpc_made(id, vpc)?;
            (vec![], id.to_string(), free_block(context, id, vpc, &zone)?, ipv6_block(context, vpc)?)
        }
        None if context.parameters().has("Ipv6CidrBlock") => {
            return Err(IPV6_NOT_TURNED_ON.error("there is no default VPC yet.").field("Ipv6CidrBlock"));
        }
        // The VPC is then made together with it.
        None => {
            let id = context.environment.new_id("vpc");
            let create = VpcCreate { id: Some(id.clone()), cidr: BLOCK.into(), ..VpcCreate::default() };
            (vec![Command::VpcCreate(create), note(context, &id, None)?], id, FIRST_SUBNET.into(), None)
        }
    };
    let id = context.environment.new_id("vsw");
    let create = VswitchCreate { id: Some(id.clone()), vpc: vpc_id, cidr, ipv6_cidr, ..VswitchCreate::default() };
    commands.extend([Command::VswitchCreate(create), note(context, &id, Some(zone))?]);
    Ok(context.change(commands, Box::new(move |_| members(json!({"VSwitchId": id})))))
}

/// The first free block of a default VPC, if the zone has no default subnet yet.
fn free_block(context: &Context<'_>, vpc_id: &VpcId, vpc: &Vpc, zone: &str) -> Result<String, ApiError> {
    let siblings: Vec<_> = context.scope.vswitches().filter(|(_, vswitch)| vswitch.vpc == *vpc_id).collect();
    let mut defaults = siblings.iter().filter(|(id, _)| is_default(context, id.as_str()));
    if let Some((id, _)) = defaults.find(|(id, _)| context.zone_of(id) == zone) {
        return Err(VSWITCH_EXISTS.error(format!("that of {zone} is {id}.")).object(id));
    }
    let is_free =
        |block: &Ipv4Net| siblings.iter().all(|(_, other)| !other.cidr.contains(block) && !block.contains(&other.cidr));
    let found = vpc.cidr.subnets(SUBNET_BITS).ok().and_then(|mut blocks| blocks.find(is_free));
    let full = || CIDR_BLOCK_OVERLAPPED.error(format!("{vpc_id} has no free /{SUBNET_BITS} left."));
    Ok(found.ok_or_else(full)?.to_string())
}
