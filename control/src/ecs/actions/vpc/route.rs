//! Routers and route tables of VPCs. Each VPC has one of each, made and removed with it: the system route table.

use super::sibling;
use crate::command::{Command, LabelModify};
use crate::ecs::dialect::call::{Context, Plan, members};
use crate::ecs::dialect::paging::page;
use crate::ecs::dialect::scope::Access;
use crate::error::{ApiError, ErrorKind};
use crate::model::{Route, VSwitch, Vpc, timestamp};
use ipnet::IpNet;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use vswitch_core::config::ids::{VSwitchId, VpcId};

const TABLE_NOT_FOUND: ErrorKind = ErrorKind { code: "InvalidRouteTableId.NotFound", status: 404 };
const ROUTER_NOT_FOUND: ErrorKind = ErrorKind { code: "InvalidVRouterId.NotFound", status: 404 };
/// The block of the cloud's own services, in every VPC.
pub(super) const SERVICE_BLOCK: &str = "100.64.0.0/10";

/// The VPC whose route table the call names.
pub(super) fn named_table<'a>(context: &Context<'a>, id: &str, access: Access) -> Result<(VpcId, &'a Vpc), ApiError> {
    let mut found = context.scope.vpcs().filter(|(vpc, _)| sibling("vtb", vpc.as_str()) == id);
    let granted = found.find_map(|(vpc, _)| context.scope.vpc(vpc.as_str(), access).ok());
    granted.ok_or_else(|| TABLE_NOT_FOUND.error("The specified route table does not exist.").field("RouteTableId"))
}

/// One entry of a route table.
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) destination: String,
    pub(super) hop: (&'static str, String),
    pub(super) custom: bool,
    name: String,
    description: String,
    made_s: u64,
}

impl Entry {
    /// Somebody who only uses the VPC is not told to which of its owner's interfaces a route leads.
    fn of_route(context: &Context<'_>, vpc: &VpcId, route: &Route) -> Self {
        let is_seen = context.scope.eni(route.eni.as_str()).is_ok();
        let hop = match &route.instance {
            Some(instance) => ("Instance", instance.clone()),
            None => ("NetworkInterface", route.eni.to_string()),
        };
        let hop = if is_seen { hop } else { (hop.0, String::new()) };
        // Old stores have routes without identifiers.
        let id = if route.id.is_empty() { old_id(vpc, route.destination) } else { route.id.clone() };
        let (name, description) = (route.name.clone(), route.description.clone());
        let destination = route.destination.to_string();
        Self { id, destination, hop, custom: true, name, description, made_s: route.created_s }
    }

    fn of_subnet(id: &VSwitchId, vswitch: &VSwitch, block: IpNet) -> Self {
        let family = if block.addr().is_ipv6() { "-6" } else { "" };
        let id = format!("{}{family}", sibling("rte", id.as_str()));
        Self::of_system(id, block.to_string(), "local", vswitch.created_s)
    }

    fn of_system(id: String, destination: String, hop: &'static str, made_s: u64) -> Self {
        let (name, description) = (String::new(), String::new());
        Self { id, destination, hop: (hop, String::new()), custom: false, name, description, made_s }
    }

    pub(super) fn is_ipv6(&self) -> bool {
        self.destination.contains(':')
    }

    fn json(&self, context: &Context<'_>, table: &str) -> Value {
        let (kind, hop) = &self.hop;
        let status = if context.is_passing(self.made_s) { "Pending" } else { "Available" };
        json!({
            "RouteEntryId": self.id,
            "RouteTableId": table,
            "DestinationCidrBlock": self.destination,
            "IpVersion": if self.is_ipv6() { "ipv6" } else { "ipv4" },
            "Type": if self.custom { "Custom" } else { "System" },
            "Status": status,
            "RouteEntryName": self.name,
            "Description": self.description,
            "NextHopType": kind,
            "InstanceId": hop,
            "NextHops": {"NextHop": [{"NextHopType": kind, "NextHopId": hop, "Enabled": 1, "Weight": 0}]},
            "GmtModified": timestamp(self.made_s),
        })
    }
}

fn old_id(vpc: &VpcId, destination: IpNet) -> String {
    let digits = destination.to_string().replace(['.', ':', '/'], "-");
    format!("{}-{digits}", sibling("rte", vpc.as_str()))
}

/// All entries of a VPC's route table: its custom routes, its subnets, and the cloud's services.
pub(super) fn entries_of(context: &Context<'_>, id: &VpcId, vpc: &Vpc) -> Vec<Entry> {
    let service = sibling("rte", id.as_str());
    let service = Entry::of_system(service, SERVICE_BLOCK.into(), "service", vpc.created_s);
    let subnets = vswitches_of(context, id)
        .flat_map(|(id, vswitch)| vswitch.blocks().map(|block| Entry::of_subnet(id, vswitch, block)));
    vpc.routes.iter().map(|route| Entry::of_route(context, id, route)).chain(subnets).chain([service]).collect()
}

fn vswitches_of<'a>(context: &Context<'a>, id: &VpcId) -> impl Iterator<Item = (&'a VSwitchId, &'a VSwitch)> {
    let id = id.clone();
    context.scope.vswitches().filter(move |(_, vswitch)| vswitch.vpc == id)
}

/// The VPCs whose router and table have what the call asks for.
fn wanted<'a>(context: &Context<'a>) -> Vec<(&'a VpcId, &'a Vpc)> {
    let parameters = context.parameters();
    let is = |name: &str, value: &str| parameters.text(name).is_none_or(|wanted| wanted == value);
    let one_of = |name: &str, values: [&str; 2]| {
        parameters.text(name).is_none_or(|wanted| values[0] == wanted || values[1] == wanted)
    };
    let fits = |(id, _): &(&VpcId, &Vpc)| {
        let router = sibling("vrt", id.as_str());
        is("VpcId", id.as_str())
            && is("RouterId", &router)
            && is("VRouterId", &router)
            && is("RouteTableId", &sibling("vtb", id.as_str()))
            && is("RouteTableName", noted(context, id, TABLE_NAME))
            && one_of("RouteTableType", ["System", "system"])
            && one_of("RouterType", ["VRouter", "vrouter"])
            && context.has_resource_group(id.as_str())
    };
    context.scope.vpcs().filter(fits).collect()
}

/// An attribute of a VPC.
fn noted<'a>(context: &Context<'a>, id: &VpcId, name: &str) -> &'a str {
    context.scope.label(id.as_str()).attribute(name)
}

const TABLE_NAME: &str = "RouteTableName";
const TABLE_DESCRIPTION: &str = "RouteTableDescription";
const PROPAGATION: &str = "RoutePropagationEnable";
const ROUTER_NAME: &str = "VRouterName";
const ROUTER_DESCRIPTION: &str = "VRouterDescription";

pub(in crate::ecs) fn describe_table_list(context: &Context<'_>) -> Result<Plan, ApiError> {
    let table = |(id, vpc): (&VpcId, &Vpc)| {
        let vswitches: Vec<&VSwitchId> = vswitches_of(context, id).map(|(id, _)| id).collect();
        let value = json!({
            "VpcId": id,
            "RouterId": sibling("vrt", id.as_str()),
            "RouterType": "VRouter",
            "RouteTableId": sibling("vtb", id.as_str()),
            "RouteTableType": "System",
            "RouteTableName": noted(context, id, TABLE_NAME),
            "Description": noted(context, id, TABLE_DESCRIPTION),
            "RoutePropagationEnable": noted(context, id, PROPAGATION) != "false",
            "AssociateType": "VSwitch",
            "VSwitchIds": {"VSwitchId": vswitches},
            "ResourceGroupId": context.scope.resource_group_of(id.as_str()),
            "OwnerId": context.scope.owner_of(id.as_str()).parse::<u64>().unwrap_or(0),
            "Status": status(context, vpc),
            "CreationTime": timestamp(vpc.created_s),
        });
        (id.to_string(), value)
    };
    // VPCs have tags; their tables do not.
    let tagged = context.parameters().has("Tag");
    let tables = wanted(context).into_iter().filter(|_| !tagged).map(table).collect();
    let page = page(context, tables, true)?;
    let mut answer = page.about;
    answer.extend(members(json!({
        "Code": "200", "Message": "successful", "Success": true,
        "RouterTableList": {"RouterTableListType": page.entries},
    })));
    Ok(Plan::Answer(answer))
}

fn status(context: &Context<'_>, vpc: &Vpc) -> &'static str {
    if context.is_passing(vpc.created_s) { "Pending" } else { "Available" }
}

pub(in crate::ecs) fn describe_tables(context: &Context<'_>) -> Result<Plan, ApiError> {
    let custom = context.parameters().text("Type").map(|kind| kind.eq_ignore_ascii_case("Custom"));
    let table = |(id, vpc): (&VpcId, &Vpc)| {
        let table = sibling("vtb", id.as_str());
        let entries = entries_of(context, id, vpc);
        let entries = entries.iter().filter(|entry| custom.is_none_or(|custom| entry.custom == custom));
        let entries: Vec<Value> = entries.map(|entry| entry.json(context, &table)).collect();
        let vswitches: Vec<&VSwitchId> = vswitches_of(context, id).map(|(id, _)| id).collect();
        let value = json!({
            "RouteTableId": table,
            "RouteTableType": "System",
            "VRouterId": sibling("vrt", id.as_str()),
            "VSwitchIds": {"VSwitchId": vswitches},
            "ResourceGroupId": context.scope.resource_group_of(id.as_str()),
            "Status": status(context, vpc),
            "CreationTime": timestamp(vpc.created_s),
            "RouteEntrys": {"RouteEntry": entries},
        });
        (id.to_string(), value)
    };
    let page = page(context, wanted(context).into_iter().map(table).collect(), true)?;
    let mut answer = page.about;
    answer.insert("RouteTables".into(), json!({ "RouteTable": page.entries }));
    Ok(Plan::Answer(answer))
}

pub(in crate::ecs) fn describe_routers(context: &Context<'_>) -> Result<Plan, ApiError> {
    let router = |(id, vpc): (&VpcId, &Vpc)| {
        let value = json!({
            "VRouterId": sibling("vrt", id.as_str()),
            "VpcId": id,
            "VRouterName": noted(context, id, ROUTER_NAME),
            "Description": noted(context, id, ROUTER_DESCRIPTION),
            "RegionId": context.scope.region_of(id.as_str()),
            "RouteTableIds": {"RouteTableId": [sibling("vtb", id.as_str())]},
            "CreationTime": timestamp(vpc.created_s),
        });
        (id.to_string(), value)
    };
    let page = page(context, wanted(context).into_iter().map(router).collect(), true)?;
    let mut answer = page.about;
    answer.insert("VRouters".into(), json!({ "VRouter": page.entries }));
    Ok(Plan::Answer(answer))
}

pub(in crate::ecs) fn describe_entries(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let table = parameters.text("RouteTableId").unwrap_or_default();
    let (id, vpc) = named_table(context, table, Access::Use)?;
    let is = |name: &str, value: &str| parameters.text(name).is_none_or(|wanted| wanted.eq_ignore_ascii_case(value));
    let destinations = parameters.list("DestCidrBlockList")?;
    let fits = |entry: &Entry| {
        is("RouteEntryId", &entry.id)
            && is("DestinationCidrBlock", &entry.destination)
            && (destinations.is_empty() || destinations.contains(&entry.destination))
            && is("RouteEntryName", &entry.name)
            && is("RouteEntryType", if entry.custom { "Custom" } else { "System" })
            && is("NextHopType", entry.hop.0)
            && is("NextHopId", &entry.hop.1)
            && is("IpVersion", if entry.is_ipv6() { "ipv6" } else { "ipv4" })
            && parameters.text("ServiceType").is_none()
    };
    let entries = entries_of(context, &id, vpc).into_iter().filter(fits);
    let entries = entries.map(|entry| (entry.id.clone(), entry.json(context, table))).collect();
    let page = page(context, entries, false)?;
    let mut answer = page.about;
    answer.insert("RouteEntrys".into(), json!({ "RouteEntry": page.entries }));
    Ok(Plan::Answer(answer))
}

pub(in crate::ecs) fn modify_table(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let (id, _) = named_table(context, parameters.text("RouteTableId").unwrap_or_default(), Access::Own)?;
    let texts = [("RouteTableName", TABLE_NAME, 128), ("Description", TABLE_DESCRIPTION, 256)];
    let mut noted = noted_texts(context, texts)?;
    if let Some(enabled) = parameters.boolean("RoutePropagationEnable")? {
        noted.insert(PROPAGATION.to_owned(), if enabled { String::new() } else { "false".to_owned() });
    }
    let note = LabelModify { object: id.to_string(), attributes: noted, ..LabelModify::default() };
    let success = |_: &Context<'_>| members(json!({"Code": "200", "Message": "successful", "Success": true}));
    Ok(context.change(vec![Command::LabelModify(note)], Box::new(success)))
}

pub(in crate::ecs) fn modify_router(context: &Context<'_>) -> Result<Plan, ApiError> {
    let router = context.parameters().text("VRouterId").unwrap_or_default();
    let mut found = context.scope.vpcs().filter(|(vpc, _)| sibling("vrt", vpc.as_str()) == router);
    let own = found.find_map(|(vpc, _)| context.scope.vpc(vpc.as_str(), Access::Own).ok());
    let (id, _) = own.ok_or_else(|| ROUTER_NOT_FOUND.error("there is none of that name.").field("VRouterId"))?;
    let noted = noted_texts(context, [("VRouterName", ROUTER_NAME, 128), ("Description", ROUTER_DESCRIPTION, 256)])?;
    let note = LabelModify { object: id.to_string(), attributes: noted, ..LabelModify::default() };
    Ok(context.quiet_change(vec![Command::LabelModify(note)]))
}

/// Names and descriptions that the call gives, each with its attribute and the most characters.
fn noted_texts(context: &Context<'_>, texts: [(&str, &str, usize); 2]) -> Result<BTreeMap<String, String>, ApiError> {
    let mut noted = BTreeMap::new();
    for (parameter, name, most) in texts {
        if let Some(text) = context.parameters().given(parameter) {
            context.check_text(parameter, text, most)?;
            noted.insert(name.to_owned(), text.to_owned());
        }
    }
    Ok(noted)
}
