//! Network interfaces: made, changed, attached and deleted.

use super::check::missing;
use super::desk::{Desk, Plan};
use super::eni_list::eni_json;
use super::parameters::Parameters;
use crate::command::{Command, EniAssign, EniCreate, EniDelete, EniModify, InstanceAttach, TimeoutsChange};
use crate::error::{ApiError, ENI_STATE, ErrorKind, INVALID_PARAMETER, INVALID_PARAMETER_CONFLICT};
use vswitch_core::ids::EniId;

const PRIMARY_FIXED: ErrorKind =
    ErrorKind { code: "InvalidOperation.PrimaryEniOnlySupportModifyNameAndDesc", status: 404 };
const OTHER_ZONE: ErrorKind = ErrorKind { code: "InvalidOperation.AvailabilityZoneMismatch", status: 403 };
const TIMEOUTS: ErrorKind = ErrorKind { code: "InvalidParameter.EniConnectionTrackingConfiguration", status: 400 };

pub(super) fn create(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let parameters = desk.parameters();
    let groups = one_form_of_groups(desk, parameters)?;
    let Some(groups) = groups else { return Err(missing(desk.call.action.fact(), "SecurityGroupId")) };
    let id = desk.environment.new_id("eni");
    let label = desk.new_label(&id, None)?;
    let timeouts = timeouts(parameters)?;
    let prefixes = [parameters.list("Ipv4Prefix")?, parameters.list("Ipv6Prefix")?].concat();
    let ipv4_prefix_count = prefix_count(parameters, "Ipv4Prefix")?;
    let ipv6_prefix_count = prefix_count(parameters, "Ipv6Prefix")?;
    let (vswitch, _) = desk.vswitch(parameters.text("VSwitchId").unwrap_or_default())?;
    desk.check_groups(&groups)?;
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
    Ok(desk.change(
        commands,
        Box::new(move |desk| {
            let id = EniId::from(id.as_str());
            let eni = desk.model.enis.get(&id);
            super::desk::members(eni.map(|eni| eni_json(desk, &id, eni)).unwrap_or_default())
        }),
    ))
}

/// The groups that are given in one of the two forms; none if in neither.
pub(super) fn one_form_of_groups(desk: &Desk<'_>, parameters: &Parameters) -> Result<Option<Vec<String>>, ApiError> {
    let listed = parameters.list("SecurityGroupIds")?;
    match (parameters.text("SecurityGroupId"), listed.is_empty()) {
        (Some(_), false) => {
            let kind = INVALID_PARAMETER_CONFLICT;
            let kind = if desk.call.action.fact().lists(kind.code) { kind } else { INVALID_PARAMETER };
            let message = "SecurityGroupId and SecurityGroupIds cannot be given both.";
            Err(kind.error(message).field("SecurityGroupIds"))
        }
        (Some(group), true) => Ok(Some(vec![group.to_owned()])),
        (None, false) => Ok(Some(listed)),
        (None, true) => Ok(None),
    }
}

/// How many prefixes of a family are to be chosen. They are named or counted, not both.
pub(super) fn prefix_count(parameters: &Parameters, names: &str) -> Result<u8, ApiError> {
    let count = format!("{names}Count");
    let wanted = parameters.count(&count)?.unwrap_or(0);
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

pub(super) fn modify_attribute(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let parameters = desk.parameters();
    let timeouts = timeouts(parameters)?;
    let groups = parameters.list("SecurityGroupId")?;
    let (id, _) = desk.eni(parameters.text("NetworkInterfaceId").unwrap_or_default())?;
    let is_primary = desk.model.instance_of(&id).is_some_and(|(_, instance)| instance.primary() == Some(&id));
    if is_primary && !groups.is_empty() {
        return Err(PRIMARY_FIXED.error(format!("{id} is primary: use ModifyInstanceAttribute.")).object(id));
    }
    desk.check_groups(&groups)?;
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
    Ok(desk.quiet_change(vec![Command::EniModify(modify)]))
}

pub(super) fn attach(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let (instance, eni) = pair(desk)?;
    refuse_passing(desk, &instance)?;
    let zone_of = |id: &EniId| desk.model.enis.get(id).map(|eni| desk.zone_of(&eni.vswitch));
    let zone = desk.instance(&instance)?.primary().and_then(zone_of);
    if zone.is_some() && zone != zone_of(&eni.as_str().into()) {
        return Err(OTHER_ZONE.error(format!("{instance} is in another zone than {eni}.")).object(eni));
    }
    Ok(desk.quiet_change(vec![Command::InstanceAttach(InstanceAttach { instance, eni })]))
}

pub(super) fn detach(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let (instance, eni) = pair(desk)?;
    refuse_passing(desk, &instance)?;
    Ok(desk.quiet_change(vec![Command::InstanceDetach(InstanceAttach { instance, eni })]))
}

fn pair(desk: &Desk<'_>) -> Result<(String, String), ApiError> {
    let parameters = desk.parameters();
    let instance = parameters.text("InstanceId").unwrap_or_default();
    desk.instance(instance)?;
    let (eni, _) = desk.eni(parameters.text("NetworkInterfaceId").unwrap_or_default())?;
    Ok((instance.to_owned(), eni.to_string()))
}

fn refuse_passing(desk: &Desk<'_>, id: &str) -> Result<(), ApiError> {
    super::instance::refuse_passing(desk, id)
}

pub(super) fn delete(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let (id, eni) = desk.eni(desk.parameters().text("NetworkInterfaceId").unwrap_or_default())?;
    if eni.instance.is_some() || eni.port.is_some() {
        return Err(ENI_STATE.error(format!("{id} is in use: detach it first.")).object(id));
    }
    Ok(desk.quiet_change(vec![Command::EniDelete(EniDelete { eni: id.to_string(), force: false })]))
}
