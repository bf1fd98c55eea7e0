//! Network interfaces: making, changing, attaching and deleting them.

pub(in crate::ecs) mod address;
pub(in crate::ecs) mod list;

use super::eni::list::{CARD, TRUNK, eni_json};
use super::instance::attributes::change;
use crate::command::{Command, EniAssign, EniCreate, EniDelete, EniModify, InstanceAttach, TimeoutsChange};
use crate::ecs::dialect::call::{Context, Plan};
use crate::ecs::dialect::parameters::Parameters;
use crate::ecs::dialect::scope::Access;
use crate::ecs::dialect::validate::missing;
use crate::error::{ApiError, ENI_STATE, ErrorKind, INSTANCE_ENI_LIMIT, INVALID_PARAMETER, INVALID_PARAMETER_CONFLICT};

const PRIMARY_FIXED: ErrorKind =
    ErrorKind { code: "InvalidOperation.PrimaryEniOnlySupportModifyNameAndDesc", status: 404 };
const OTHER_ZONE: ErrorKind = ErrorKind { code: "InvalidOperation.AvailabilityZoneMismatch", status: 403 };
const ENI_TYPE: ErrorKind = ErrorKind { code: "InvalidOperation.InvalidEniType", status: 403 };
const TIMEOUTS: ErrorKind = ErrorKind { code: "InvalidParameter.EniConnectionTrackingConfiguration", status: 400 };

pub(in crate::ecs) fn create(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let groups = one_form_of_groups(context, parameters)?;
    let Some(groups) = groups else { return Err(missing(context.call.action.schema(), "SecurityGroupId")) };
    let id = context.environment.new_id("eni");
    let label = context.new_label(&id, None)?;
    let timeouts = timeouts(parameters)?;
    let prefixes = [parameters.list("Ipv4Prefix")?, parameters.list("Ipv6Prefix")?].concat();
    let ipv4_prefix_count = prefix_count(parameters, "Ipv4Prefix", "Ipv4PrefixCount")?;
    let ipv6_prefix_count = prefix_count(parameters, "Ipv6Prefix", "Ipv6PrefixCount")?;
    let (vswitch, _) = context.scope.vswitch(parameters.text("VSwitchId").unwrap_or_default(), Access::Use)?;
    context.check_groups(&groups)?;
    let mut secondary_ips = parameters.list("PrivateIpAddress")?;
    let primary_ip = parameters.owned("PrimaryIpAddress");
    secondary_ips.retain(|address| Some(address) != primary_ip.as_ref());
    let secondary_count = parameters.count("SecondaryPrivateIpAddressCount")?.unwrap_or(0);
    let create = EniCreate {
        id: Some(id.clone()),
        vswitch: vswitch.to_string(),
        primary_ip,
        secondary_ips,
        ipv6_addresses: parameters.list("Ipv6Address")?,
        ipv6_count: parameters.count("Ipv6AddressCount")?.unwrap_or(0),
        prefixes,
        groups,
        source_dest_check: parameters.boolean("SourceDestCheck")?,
        timeouts,
        delete_on_release: parameters.boolean("DeleteOnRelease")?,
        name: parameters.owned("NetworkInterfaceName"),
        description: parameters.owned("Description"),
        ..EniCreate::default()
    };
    let mut commands = vec![Command::EniCreate(Box::new(create))];
    if [secondary_count, ipv4_prefix_count, ipv6_prefix_count] != [0; 3] {
        commands.push(Command::EniAssign(EniAssign {
            eni: id.clone(),
            ipv4_count: secondary_count,
            ipv4_prefix_count,
            ipv6_prefix_count,
            ..EniAssign::default()
        }));
    }
    commands.extend(label);
    Ok(context.change(
        commands,
        Box::new(move |context| {
            let eni = context.scope.eni(&id).ok();
            crate::ecs::dialect::call::members(eni.map(|(id, eni)| eni_json(context, &id, eni)).unwrap_or_default())
        }),
    ))
}

/// The groups given in one of the two forms; `None` if in neither.
pub(in crate::ecs) fn one_form_of_groups(
    context: &Context<'_>,
    parameters: &Parameters,
) -> Result<Option<Vec<String>>, ApiError> {
    let listed = parameters.list("SecurityGroupIds")?;
    match (parameters.text("SecurityGroupId"), listed.is_empty()) {
        (Some(_), false) => {
            let kind = INVALID_PARAMETER_CONFLICT;
            let kind = if context.call.action.schema().lists(kind.code) { kind } else { INVALID_PARAMETER };
            let message = "SecurityGroupId and SecurityGroupIds cannot be given both.";
            Err(kind.error(message).field("SecurityGroupIds"))
        }
        (Some(group), true) => Ok(Some(vec![group.to_owned()])),
        (None, false) => Ok(Some(listed)),
        (None, true) => Ok(None),
    }
}

/// How many prefixes of a family are to be chosen. They are either named or counted, not both.
pub(in crate::ecs) fn prefix_count(parameters: &Parameters, names: &str, count: &str) -> Result<u8, ApiError> {
    let wanted = parameters.count(count)?.unwrap_or(0);
    match wanted > 0 && parameters.has(names) {
        true => Err(INVALID_PARAMETER.error(format!("{count} and {names} cannot be given both.")).field(count)),
        false => Ok(wanted),
    }
}

fn timeouts(parameters: &Parameters) -> Result<Option<TimeoutsChange>, ApiError> {
    let object = parameters.object("ConnectionTrackingConfiguration");
    if object.is_empty() {
        return Ok(None);
    }
    let seconds = |name: &str| object.count::<u16>(name).map_err(|error| TIMEOUTS.error(error.message).field(name));
    Ok(Some(TimeoutsChange {
        tcp_established_s: seconds("TcpEstablishedTimeout")?,
        tcp_closed_s: seconds("TcpClosedAndTimeWaitTimeout")?,
        udp_s: seconds("UdpTimeout")?,
    }))
}

pub(in crate::ecs) fn modify_attribute(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let timeouts = timeouts(parameters)?;
    let groups = parameters.list("SecurityGroupId")?;
    let (id, _) = context.scope.eni(parameters.text("NetworkInterfaceId").unwrap_or_default())?;
    let is_primary = context.scope.instance_of(&id).is_some_and(|(_, instance)| instance.primary() == Some(&id));
    if is_primary && !groups.is_empty() {
        return Err(PRIMARY_FIXED.error(format!("{id} is primary: use ModifyInstanceAttribute.")).object(id));
    }
    context.check_groups(&groups)?;
    let modify = EniModify {
        eni: id.to_string(),
        groups: Some(groups).filter(|groups| !groups.is_empty()),
        source_dest_check: parameters.boolean("SourceDestCheck")?,
        timeouts,
        delete_on_release: parameters.boolean("DeleteOnRelease")?,
        name: parameters.owned("NetworkInterfaceName"),
        description: parameters.owned("Description"),
        ..EniModify::default()
    };
    Ok(context
        .quiet_change([Command::EniModify(modify)].into_iter().chain(context.note_attributes(id.as_str())).collect()))
}

pub(in crate::ecs) fn attach(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (instance, eni) = pair(context)?;
    refuse_passing(context, &instance)?;
    let primary = context.scope.primary_of(context.scope.instance(&instance)?);
    let zone = primary.map(|(_, primary)| context.zone_of(&primary.vswitch));
    if zone.is_some_and(|zone| context.scope.eni(&eni).is_ok_and(|(_, eni)| context.zone_of(&eni.vswitch) != zone)) {
        return Err(OTHER_ZONE.error(format!("{instance} is in another zone than {eni}.")).object(eni));
    }
    let card = context.parameters().owned(CARD).unwrap_or_default();
    let trunk = trunk(context, &instance)?;
    check_room(context, &instance)?;
    let noted = change(&eni, [(CARD, card), (TRUNK, trunk)]);
    Ok(context.quiet_change(vec![Command::InstanceAttach(InstanceAttach { instance, eni }), noted]))
}

pub(in crate::ecs) fn detach(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (instance, eni) = pair(context)?;
    refuse_passing(context, &instance)?;
    let noted = change(&eni, [(CARD, String::new()), (TRUNK, String::new())]);
    Ok(context.quiet_change(vec![Command::InstanceDetach(InstanceAttach { instance, eni }), noted]))
}

/// The trunk interface of the instance that the call names; empty if it names none.
fn trunk(context: &Context<'_>, instance: &str) -> Result<String, ApiError> {
    let Some(named) = context.parameters().text("TrunkNetworkInstanceId") else { return Ok(String::new()) };
    let (id, _) = context.scope.eni(named)?;
    let is_here = context.scope.instance_of(&id).is_some_and(|(other, _)| other == instance);
    match is_here && context.scope.label(id.as_str()).attribute("InstanceType") == "Trunk" {
        true => Ok(id.to_string()),
        false => Err(ENI_TYPE.error(format!("{id} is not a trunk interface of {instance}.")).object(id)),
    }
}

/// Refuses an interface for which the instance's type has no room.
pub(in crate::ecs) fn check_room(context: &Context<'_>, instance: &str) -> Result<(), ApiError> {
    let present = context.scope.instance(instance)?;
    let kind = context.settings.catalogue.instance_type(&present.instance_type);
    match kind.is_some_and(|kind| present.enis.len() >= kind.enis as usize) {
        true => {
            let message = format!("{instance} has {} interfaces, as many as its type may have.", present.enis.len());
            Err(INSTANCE_ENI_LIMIT.error(message).object(instance))
        }
        false => Ok(()),
    }
}

fn pair(context: &Context<'_>) -> Result<(String, String), ApiError> {
    let parameters = context.parameters();
    let instance = parameters.text("InstanceId").unwrap_or_default();
    context.scope.instance(instance)?;
    let (eni, _) = context.scope.eni(parameters.text("NetworkInterfaceId").unwrap_or_default())?;
    Ok((instance.to_owned(), eni.to_string()))
}

fn refuse_passing(context: &Context<'_>, id: &str) -> Result<(), ApiError> {
    super::instance::refuse_passing(context, id)
}

pub(in crate::ecs) fn delete(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (id, eni) = context.scope.eni(context.parameters().text("NetworkInterfaceId").unwrap_or_default())?;
    if eni.instance.is_some() || eni.port.is_some() {
        return Err(ENI_STATE.error(format!("{id} is in use: detach it first.")).object(id));
    }
    Ok(context.quiet_change(vec![Command::EniDelete(EniDelete { eni: id.to_string(), force: false })]))
}
