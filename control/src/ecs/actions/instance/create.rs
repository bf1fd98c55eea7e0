//! Making instances: a stopped one, or several running ones.

use super::attributes::change;
use super::{names, public_address};
use crate::command::{Command, EniAssign, EniCreate, InstanceAttach, InstanceCreate, LabelModify};
use crate::ecs::actions::disk;
use crate::ecs::actions::eni::list::CARD;
use crate::ecs::actions::eni::one_form_of_groups;
use crate::ecs::actions::key_pair::check_key_pair;
use crate::ecs::dialect::call::{Context, Plan, ZONE_NOT_FOUND, members};
use crate::ecs::dialect::parameters::Parameters;
use crate::ecs::dialect::scope::Access;
use crate::ecs::dialect::validate::missing;
use crate::error::{ApiError, ErrorKind};
use crate::model::PUBLIC_ADDRESS;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

pub(in crate::ecs) const INSTANCE_TYPE: ErrorKind =
    ErrorKind { code: "InvalidInstanceType.ValueNotSupported", status: 400 };
const INTERFACES: ErrorKind = ErrorKind { code: "InvalidParam.NetworkInterface", status: 400 };
const ADDRESS_OUTSIDE: ErrorKind = ErrorKind { code: "InvalidPrivateIpAddress", status: 400 };
const ADDRESS_MALFORMED: ErrorKind = ErrorKind { code: "InvalidPrivateIpAddress.Malformed", status: 400 };
const AMOUNT: ErrorKind = ErrorKind { code: "InvalidParam.Amount", status: 403 };
const MIN_AMOUNT: ErrorKind = ErrorKind { code: "InvalidMinAmount.Malformed", status: 400 };
/// Instances of one call.
const INSTANCES_MAX: u32 = 100;

pub(in crate::ecs) fn run(context: &Context<'_>) -> Result<Plan, ApiError> {
    let amount = context.parameters().count::<u32>("Amount")?.unwrap_or(1);
    if !(1..=INSTANCES_MAX).contains(&amount) {
        return Err(AMOUNT.error(format!("one call makes 1 to {INSTANCES_MAX} instances.")).field("Amount"));
    }
    if context.parameters().count::<u32>("MinAmount")?.is_some_and(|least| !(1..=amount).contains(&least)) {
        return Err(MIN_AMOUNT.error(format!("it is 1 to Amount, {amount}.")).field("MinAmount"));
    }
    let (ids, commands) = instances(context, amount, true)?;
    let answer = move |_: &Context<'_>| members(json!({"InstanceIdSets": {"InstanceIdSet": ids}}));
    Ok(context.change(commands, Box::new(answer)))
}

pub(in crate::ecs) fn create(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (ids, commands) = instances(context, 1, false)?;
    let answer = move |_: &Context<'_>| members(json!({"InstanceId": ids.first()}));
    Ok(context.change(commands, Box::new(answer)))
}

fn instances(context: &Context<'_>, amount: u32, running: bool) -> Result<(Vec<String>, Vec<Command>), ApiError> {
    let parameters = context.parameters();
    let kind = parameters.text("InstanceType");
    if kind.is_some_and(|kind| !kind.starts_with("ecs.")) {
        return Err(INSTANCE_TYPE.error("types begin with ecs.").field("InstanceType"));
    }
    check_key_pair(context)?;
    check_room(context, kind)?;
    let is_public = parameters.count::<u32>("InternetMaxBandwidthOut")?.is_some_and(|bandwidth| bandwidth > 0);
    // Finding free ones takes a look at every object, so it is only done if one is wanted.
    let mut addresses = is_public.then(|| public_address::free(context)).into_iter().flatten();
    let Primary { create: primary, present, noted: primary_noted } = primary(context)?;
    if present.is_some() && amount > 1 {
        return Err(INTERFACES.error("one interface cannot be of several instances.").field("Amount"));
    }
    check_zone(context, &primary)?;
    let secondary = secondary(context, &primary)?;
    let unique = amount > 1 && parameters.boolean("UniqueSuffix")?.unwrap_or(false);
    let host_names = parameters.list("HostNames")?;
    let bandwidth_in = usual_bandwidth_in(parameters)?;
    let (mut ids, mut commands) = (Vec::new(), Vec::new());
    for number in 0..amount {
        let id = context.environment.new_id("i");
        let named = |name: &str| names::nth(name, number, unique);
        let own_host_name = host_names.get(number as usize).cloned();
        let primary_ip = match &primary.primary_ip {
            Some(text) => Some(nth_address(text, number)?),
            None => None,
        };
        let eni = present.clone().unwrap_or_else(|| context.environment.new_id("eni"));
        let create = InstanceCreate {
            id: Some(id.clone()),
            primary: EniCreate { primary_ip, id: Some(eni.clone()), ..primary.clone() },
            primary_eni: present.clone(),
            port: context.settings.instance_port,
            sockets: Some(context.settings.instance_sockets.clone()).filter(|folder| !folder.is_empty()),
            running,
            name: parameters.text("InstanceName").map(named),
            description: parameters.owned("Description"),
            host_name: own_host_name
                .or_else(|| parameters.text("HostName").map(named))
                .or_else(|| Some(names::usual_host(&id))),
            instance_type: parameters.owned("InstanceType"),
            image: parameters.owned("ImageId"),
            deletion_protection: parameters.boolean("DeletionProtection")?.unwrap_or(false),
        };
        commands.push(Command::InstanceCreate(Box::new(create)));
        commands.extend(noted_with(&eni, &primary_noted));
        commands.extend(context.new_label(&id, None)?);
        commands.extend(bandwidth_in.map(|bandwidth| change(&id, [(BANDWIDTH_IN, bandwidth.to_string())])));
        if is_public {
            let address = addresses.next().ok_or_else(public_address::none_left)?;
            commands.push(change(&id, [(PUBLIC_ADDRESS, address.to_string())]));
        }
        commands.extend(disk::of_new_instance(context, &id)?);
        commands.extend(attachments(context, &id, &secondary));
        ids.push(id);
    }
    Ok((ids, commands))
}

const BANDWIDTH_IN: &str = "InternetMaxBandwidthIn";

/// The incoming bandwidth if only the outgoing one is given: the same, and at least 10 Mbit/s.
fn usual_bandwidth_in(parameters: &Parameters) -> Result<Option<u32>, ApiError> {
    let out = parameters.count::<u32>("InternetMaxBandwidthOut")?.filter(|out| *out > 0);
    Ok(out.filter(|_| !parameters.has(BANDWIDTH_IN)).map(|out| out.max(10)))
}

/// Refuses a zone other than the subnet's.
fn check_zone(context: &Context<'_>, primary: &EniCreate) -> Result<(), ApiError> {
    let Some(zone) = context.parameters().text("ZoneId") else { return Ok(()) };
    if !context.zones_of(context.region()).iter().any(|known| known == zone) {
        return Err(ZONE_NOT_FOUND.error("see DescribeZones.").field("ZoneId"));
    }
    let (id, _) = context.scope.vswitch(&primary.vswitch, Access::Use)?;
    match context.zone_of(&id) {
        own if own == zone => Ok(()),
        own => context.refuse("ZoneId", &format!("{id} is in {own}: leave it out, or choose another vSwitch")),
    }
}

/// Refuses more interfaces than the type has room for.
fn check_room(context: &Context<'_>, kind: Option<&str>) -> Result<(), ApiError> {
    let wanted = context.parameters().objects("NetworkInterface")?.len().max(1);
    match kind.and_then(|kind| context.settings.catalogue.instance_type(kind)) {
        Some(kind) if wanted > kind.enis as usize => {
            let message = format!("{} has room for {}.", kind.id, kind.enis);
            Err(INTERFACES.error(message).field("NetworkInterface"))
        }
        _ => Ok(()),
    }
}

/// Attributes of an interface that is made with an instance.
type Noted = BTreeMap<String, String>;

fn noted_of(fields: &Parameters) -> Noted {
    const NAMES: [&str; 5] = [CARD, "NetworkInterfaceTrafficMode", "QueueNumber", "QueuePairNumber", "InstanceType"];
    let given = NAMES.iter().filter_map(|name| Some(((*name).to_owned(), fields.owned(name)?)));
    // Its position tells which one is the primary interface.
    given.filter(|(name, value)| name != "InstanceType" || value == "Trunk").collect()
}

fn noted_with(eni: &str, noted: &Noted) -> Option<Command> {
    let modify = LabelModify { object: eni.to_owned(), attributes: noted.clone(), ..LabelModify::default() };
    (!noted.is_empty()).then_some(Command::LabelModify(modify))
}

fn nth_address(text: &str, number: u32) -> Result<String, ApiError> {
    let address: Ipv4Addr =
        text.parse().map_err(|_| ADDRESS_MALFORMED.error("write one like 10.0.0.7.").field("PrivateIpAddress"))?;
    Ok(Ipv4Addr::from(u32::from(address).saturating_add(number)).to_string())
}

/// The requested primary interface.
struct Primary {
    /// A new one, or the properties of an existing one.
    create: EniCreate,
    /// The existing one.
    present: Option<String>,
    noted: Noted,
}

/// The primary interface, from the parameters of the call or from the entry of `NetworkInterface` marked as primary.
fn primary(context: &Context<'_>) -> Result<Primary, ApiError> {
    let parameters = context.parameters();
    let entries = parameters.objects("NetworkInterface")?;
    let is_primary =
        |fields: &Parameters| fields.text("InstanceType").is_some_and(|kind| kind.eq_ignore_ascii_case("Primary"));
    let mut named = entries.iter().map(|(_, fields)| fields).filter(|fields| is_primary(fields));
    let (fields, address) = match (named.next(), named.next()) {
        (None, _) => (parameters, "PrivateIpAddress"),
        (Some(fields), None) => (fields, "PrimaryIpAddress"),
        (Some(_), Some(_)) => {
            return Err(INTERFACES.error("there is one primary interface.").field("NetworkInterface"));
        }
    };
    if address == "PrimaryIpAddress" && (parameters.has("SecurityGroupIds") || parameters.has("SecurityGroupId")) {
        let message = "with a primary NetworkInterface, its groups are named there.";
        return Err(INTERFACES.error(message).field("SecurityGroupId"));
    }
    let is_named = address == "PrimaryIpAddress";
    if let Some(id) = fields.text("NetworkInterfaceId").filter(|_| is_named) {
        let (id, eni) = context.scope.eni(id)?;
        let groups = eni.groups.iter().map(ToString::to_string).collect();
        let like = EniCreate { vswitch: eni.vswitch.to_string(), groups, ..EniCreate::default() };
        return Ok(Primary { create: like, present: Some(id.to_string()), noted: noted_of(fields) });
    }
    let vswitch = fields.text("VSwitchId").or(parameters.text("VSwitchId"));
    let Some(vswitch) = vswitch else { return Err(missing(context.call.action.schema(), "VSwitchId")) };
    let groups = one_form_of_groups(context, fields)?.unwrap_or_default();
    let (vswitch_id, vswitch) = context.scope.vswitch(vswitch, Access::Use)?;
    context.check_vswitch_made(&vswitch_id, vswitch)?;
    context.check_groups(&groups)?;
    let primary_ip = fields.owned(address);
    if let Some(text) = &primary_ip {
        let ip: Ipv4Addr =
            text.parse().map_err(|_| ADDRESS_MALFORMED.error("write one like 10.0.0.7.").field(address))?;
        if !vswitch.cidr.contains(&ip) {
            return Err(ADDRESS_OUTSIDE.error(format!("{vswitch_id} is {}.", vswitch.cidr)).field(address));
        }
    }
    let create = EniCreate {
        vswitch: vswitch_id.to_string(),
        primary_ip,
        ipv6_addresses: fields.list("Ipv6Address")?,
        ipv6_count: fields.count("Ipv6AddressCount")?.unwrap_or(0),
        groups,
        name: fields.owned("NetworkInterfaceName").filter(|_| is_named),
        description: fields.owned("Description").filter(|_| is_named),
        source_dest_check: if is_named { fields.boolean("SourceDestCheck")? } else { None },
        delete_on_release: Some(true),
        ..EniCreate::default()
    };
    Ok(Primary { create, present: None, noted: if is_named { noted_of(fields) } else { Noted::new() } })
}

/// An interface of an instance in addition to its primary one.
enum Secondary {
    New(Box<EniCreate>, u8, Noted),
    Present(String),
}

fn secondary(context: &Context<'_>, primary: &EniCreate) -> Result<Vec<Secondary>, ApiError> {
    let mut list = Vec::new();
    for (_, fields) in context.parameters().objects("NetworkInterface")? {
        if fields.text("InstanceType").is_some_and(|kind| kind.eq_ignore_ascii_case("Primary")) {
            continue;
        }
        if let Some(id) = fields.text("NetworkInterfaceId") {
            let (eni, _) = context.scope.eni(id)?;
            list.push(Secondary::Present(eni.to_string()));
            continue;
        }
        let vswitch = fields.owned("VSwitchId").unwrap_or_else(|| primary.vswitch.clone());
        let (vswitch, _) = context.scope.vswitch(&vswitch, Access::Use)?;
        let groups = one_form_of_groups(context, &fields)?.unwrap_or_else(|| primary.groups.clone());
        context.check_groups(&groups)?;
        let create = EniCreate {
            vswitch: vswitch.to_string(),
            primary_ip: fields.owned("PrimaryIpAddress"),
            ipv6_addresses: fields.list("Ipv6Address")?,
            ipv6_count: fields.count("Ipv6AddressCount")?.unwrap_or(0),
            groups,
            source_dest_check: fields.boolean("SourceDestCheck")?,
            delete_on_release: fields.boolean("DeleteOnRelease")?,
            name: fields.owned("NetworkInterfaceName"),
            description: fields.owned("Description"),
            ..EniCreate::default()
        };
        let more = fields.count("SecondaryPrivateIpAddressCount")?.unwrap_or(0);
        list.push(Secondary::New(Box::new(create), more, noted_of(&fields)));
    }
    Ok(list)
}

fn attachments(context: &Context<'_>, instance: &str, secondary: &[Secondary]) -> Vec<Command> {
    let mut commands = Vec::new();
    for wanted in secondary {
        let eni = match wanted {
            Secondary::Present(eni) => eni.clone(),
            Secondary::New(create, more, noted) => {
                let id = context.environment.new_id("eni");
                let create = EniCreate { id: Some(id.clone()), ..EniCreate::clone(create) };
                commands.push(Command::EniCreate(Box::new(create)));
                commands.extend(noted_with(&id, noted));
                if *more > 0 {
                    let assign = EniAssign { eni: id.clone(), ipv4_count: *more, ..EniAssign::default() };
                    commands.push(Command::EniAssign(assign));
                }
                id
            }
        };
        commands.push(Command::InstanceAttach(InstanceAttach { instance: instance.to_owned(), eni }));
    }
    commands
}
