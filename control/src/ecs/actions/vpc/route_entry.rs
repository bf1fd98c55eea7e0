//! Custom entries of route tables, which are the routes by which the switch forwards.

use super::route::{Entry, SERVICE_BLOCK, entries_of, named_table};
use crate::command::{Batch, Command, VpcRouteAdd, VpcRouteRemove};
use crate::ecs::dialect::call::{Context, Plan, members};
use crate::ecs::dialect::parameters::Parameters;
use crate::ecs::dialect::refusal;
use crate::ecs::dialect::scope::Access;
use crate::ecs::dialect::validate::missing;
use crate::error::{ApiError, CIDR_BLOCK_MALFORMED, ErrorKind, INVALID_PARAMETER, ROUTE_ENTRY_NOT_FOUND};
use crate::model::Vpc;
use ipnet::{IpNet, Ipv4Net};
use serde_json::json;
use vswitch_core::config::ids::VpcId;

const DUPLICATED: ErrorKind = ErrorKind { code: "RouterEntryConflict.Duplicated", status: 400 };
const HOP_NOT_FOUND: ErrorKind = ErrorKind { code: "ResourceNotFound.InstanceId", status: 404 };

/// The requested route.
struct Wanted {
    table: String,
    destination: Option<String>,
    hop_kind: Option<String>,
    hop: Option<String>,
    name: Option<String>,
    description: Option<String>,
}

/// The destination as it is stored: a bare address is a block of its own, and host bits are removed.
fn destination_of(text: &str) -> Result<IpNet, ApiError> {
    let malformed = || {
        let message = "write a block like 192.168.0.0/16 or 2001:db8::/32.";
        CIDR_BLOCK_MALFORMED.error(message).field("DestinationCidrBlock")
    };
    let block = crate::model::prefix(text).ok_or_else(malformed)?;
    let service: Ipv4Net = SERVICE_BLOCK.parse().map_err(|_| malformed())?;
    if block.trunc() != block || IpNet::V4(service).contains(&block) {
        return Err(malformed());
    }
    Ok(block)
}

/// The command that adds a route, unless there is one to that destination.
fn addition(context: &Context<'_>, wanted: Wanted, id: String) -> Result<Command, ApiError> {
    let (vpc_id, vpc) = named_table(context, &wanted.table, Access::Own)?;
    context.check_vpc_made(&vpc_id, vpc)?;
    let text = wanted.destination.ok_or_else(|| missing(context.call.action.schema(), "DestinationCidrBlock"))?;
    let destination = destination_of(&text)?;
    let mut others = entries_of(context, &vpc_id, vpc).into_iter();
    if others.any(|entry| entry.destination == destination.to_string()) {
        let message = format!("{destination} is in the table already.");
        return Err(DUPLICATED.error(message).field("DestinationCidrBlock"));
    }
    let hop = wanted.hop.ok_or_else(|| missing(context.call.action.schema(), "NextHopId"))?;
    let (eni, instance) = next_hop(context, wanted.hop_kind.as_deref(), &hop)?;
    Ok(Command::VpcRouteAdd(VpcRouteAdd {
        vpc: vpc_id.to_string(),
        destination: destination.to_string(),
        eni,
        id: Some(id),
        instance,
        name: wanted.name,
        description: wanted.description,
    }))
}

/// The interface of the next hop, and the instance if one is named.
fn next_hop(context: &Context<'_>, kind: Option<&str>, id: &str) -> Result<(String, Option<String>), ApiError> {
    match kind.unwrap_or("Instance") {
        "Instance" => {
            let primary = context.scope.primary_of(context.scope.instance(id)?);
            let (eni, _) = primary.ok_or_else(|| HOP_NOT_FOUND.error("it has no interface.").field("NextHopId"))?;
            Ok((eni.to_string(), Some(id.to_owned())))
        }
        "NetworkInterface" => Ok((context.scope.eni(id)?.0.to_string(), None)),
        // There are no gateways of any kind here.
        kind => Err(HOP_NOT_FOUND.error(format!("there is no next hop of type {kind}.")).field("NextHopId")),
    }
}

pub(in crate::ecs) fn create(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    if parameters.has("NextHopList") {
        return context
            .refuse("NextHopList", "routes of equal cost lead to router interfaces, of which there are none.");
    }
    let wanted = Wanted {
        table: parameters.owned("RouteTableId").unwrap_or_default(),
        destination: parameters.owned("DestinationCidrBlock"),
        hop_kind: parameters.owned("NextHopType"),
        hop: parameters.owned("NextHopId"),
        name: parameters.owned("RouteEntryName"),
        description: parameters.owned("Description"),
    };
    let id = context.environment.new_id("rte");
    let command = addition(context, wanted, id.clone())?;
    Ok(context.change(vec![command], Box::new(move |_| members(json!({"RouteEntryId": id})))))
}

pub(in crate::ecs) fn create_all(context: &Context<'_>) -> Result<Plan, ApiError> {
    let entries = context.parameters().objects("RouteEntries")?;
    let mut ids = Vec::new();
    let decided = entries.into_iter().map(|(_, entry)| {
        let id = context.environment.new_id("rte");
        ids.push(id.clone());
        let command = family_of(&entry).and_then(|()| {
            let wanted = Wanted {
                table: entry.owned("RouteTableId").unwrap_or_default(),
                destination: entry.owned("DstCidrBlock"),
                hop_kind: entry.owned("NextHopType"),
                hop: entry.owned("NextHop"),
                name: entry.owned("Name"),
                description: entry.owned("Description").or_else(|| entry.owned("Describption")),
            };
            addition(context, wanted, id)
        });
        (entry, command)
    });
    let decided = decided.collect();
    one_by_one(context, decided, ids)
}

/// Refuses a destination of another family than the entry names.
fn family_of(entry: &Parameters) -> Result<(), ApiError> {
    let said = entry.integer("IpVersion")?;
    let is_ipv6 = entry.text("DstCidrBlock").is_some_and(|text| text.contains(':'));
    match said {
        None => Ok(()),
        Some(4) if !is_ipv6 => Ok(()),
        Some(6) if is_ipv6 => Ok(()),
        Some(_) => Err(INVALID_PARAMETER.error("it is not of that family.").field("IpVersion")),
    }
}

/// Refuses a second route to the same destination in one call.
fn refuse_twice(earlier: &[Command], command: &Command) -> Result<(), ApiError> {
    let Command::VpcRouteAdd(new) = command else { return Ok(()) };
    let same = |other: &Command| matches!(other, Command::VpcRouteAdd(other) if other.vpc == new.vpc && other.destination == new.destination);
    match earlier.iter().any(same) {
        true => Err(DUPLICATED.error(format!("{} is named twice.", new.destination)).field("DstCidrBlock")),
        false => Ok(()),
    }
}

/// Makes those changes that are possible, one after the other, and reports why the others are not. If none is possible,
/// the response is the first reason.
fn one_by_one(
    context: &Context<'_>,
    decided: Vec<(Parameters, Result<Command, ApiError>)>,
    ids: Vec<String>,
) -> Result<Plan, ApiError> {
    let (mut commands, mut made, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    let mut first = None;
    for (place, (entry, command)) in decided.into_iter().enumerate() {
        let tried = command.and_then(|command| {
            refuse_twice(&commands, &command)?;
            let mut all: Vec<Command> = commands.clone();
            all.push(command.clone());
            context.scope.could_change(&Command::Batch(Batch { commands: all }), context.environment)?;
            Ok(command)
        });
        match tried {
            Ok(command) => {
                commands.push(command);
                made.extend(ids.get(place).cloned());
            }
            Err(error) => {
                let error = refusal(context.call, error);
                failed.push(json!({
                    "DstCidrBlock": entry.text("DstCidrBlock").unwrap_or_default(),
                    "NextHop": entry.text("NextHop").unwrap_or_default(),
                    "RouteEntryId": entry.text("RouteEntryId").unwrap_or_default(),
                    "FailedCode": error.code,
                    "FailedMessage": error.message,
                }));
                first = first.or(Some(error));
            }
        }
    }
    if let Some(error) = first.filter(|_| commands.is_empty()) {
        return Err(error);
    }
    let count = commands.len();
    let is_creation = !ids.is_empty();
    let answer = move |_: &Context<'_>| {
        let mut answer = members(json!({
            "SuccessCount": count, "FailedCount": failed.len(), "FailedRouteEntries": failed,
        }));
        if is_creation {
            answer.insert("RouteEntryIds".into(), made.into());
        }
        answer
    };
    Ok(context.change(commands, Box::new(answer)))
}

/// The custom entry that a call names, by its identifier or by table and destination.
fn named_entry<'a>(
    context: &Context<'a>,
    fields: &Parameters,
    destination: &str,
) -> Result<(VpcId, &'a Vpc, Entry), ApiError> {
    let table = fields.text("RouteTableId");
    let id = fields.text("RouteEntryId");
    let vpcs: Vec<(VpcId, &Vpc)> = match (table, id) {
        (Some(table), _) => vec![named_table(context, table, Access::Own)?],
        (None, Some(_)) => {
            context.scope.vpcs().filter_map(|(id, _)| context.scope.vpc(id.as_str(), Access::Own).ok()).collect()
        }
        (None, None) => return Err(missing(context.call.action.schema(), "RouteTableId")),
    };
    let block = match (id, fields.text(destination)) {
        (_, Some(text)) => Some(crate::model::prefix(text).map_or_else(|| text.to_owned(), |block| block.to_string())),
        (Some(_), None) => None,
        (None, None) => return Err(missing(context.call.action.schema(), destination)),
    };
    for (vpc_id, vpc) in vpcs {
        let fits = |entry: &Entry| {
            entry.custom
                && id.is_none_or(|id| id == entry.id)
                && block.as_ref().is_none_or(|block| *block == entry.destination)
        };
        if let Some(entry) = entries_of(context, &vpc_id, vpc).into_iter().find(fits) {
            return Ok((vpc_id, vpc, entry));
        }
    }
    Err(ROUTE_ENTRY_NOT_FOUND.error("there is no such custom route.").field(destination))
}

/// The command that removes a route.
fn removal(context: &Context<'_>, fields: &Parameters, destination: &str, hop: &str) -> Result<Command, ApiError> {
    let (vpc_id, vpc, entry) = named_entry(context, fields, destination)?;
    context.check_vpc_made(&vpc_id, vpc)?;
    if fields.text(hop).is_some_and(|hop| hop != entry.hop.1) {
        let message = format!("the route to {} leads elsewhere.", entry.destination);
        return Err(ROUTE_ENTRY_NOT_FOUND.error(message).field(hop));
    }
    Ok(Command::VpcRouteRemove(VpcRouteRemove { vpc: vpc_id.to_string(), destination: entry.destination }))
}

pub(in crate::ecs) fn delete(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    // Of a list of next hops, a route here can only have the one to which it leads.
    let hops = parameters.objects("NextHopList")?;
    let command = removal(context, parameters, "DestinationCidrBlock", "NextHopId")?;
    if let [(_, first), rest @ ..] = hops.as_slice() {
        let (_, _, entry) = named_entry(context, parameters, "DestinationCidrBlock")?;
        if !rest.is_empty() || first.text("NextHopId").is_some_and(|hop| hop != entry.hop.1) {
            return Err(ROUTE_ENTRY_NOT_FOUND.error("the route has one next hop.").field("NextHopList"));
        }
    }
    Ok(context.quiet_change(vec![command]))
}

pub(in crate::ecs) fn delete_all(context: &Context<'_>) -> Result<Plan, ApiError> {
    let entries = context.parameters().objects("RouteEntries")?;
    let decided = entries.into_iter().map(|(_, entry)| {
        let command = removal(context, &entry, "DstCidrBlock", "NextHop");
        (entry, command)
    });
    let decided = decided.collect();
    one_by_one(context, decided, Vec::new())
}

pub(in crate::ecs) fn modify(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let (vpc_id, vpc, entry) = named_entry(context, parameters, "DestinationCidrBlock")?;
    context.check_vpc_made(&vpc_id, vpc)?;
    let hop = match parameters.text("NewNextHopId") {
        Some(id) => next_hop(context, parameters.text("NewNextHopType"), id)?,
        None if parameters.has("NewNextHopType") => {
            return Err(missing(context.call.action.schema(), "NewNextHopId"));
        }
        None => next_hop(context, Some(entry.hop.0), &entry.hop.1)?,
    };
    let (eni, instance) = hop;
    let change = VpcRouteAdd {
        vpc: vpc_id.to_string(),
        destination: entry.destination,
        eni,
        id: None,
        instance,
        name: parameters.owned("RouteEntryName"),
        description: parameters.owned("Description"),
    };
    Ok(context.quiet_change(vec![Command::VpcRouteAdd(change)]))
}
