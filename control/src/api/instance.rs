//! Instances: started, stopped, changed and deleted.

use super::desk::{Desk, Plan, members};
use super::refusal;
use crate::command::{Command, EniModify, InstanceDelete, InstanceModify, InstanceMove, InstanceRun};
use crate::error::{ApiError, ErrorKind, INSTANCE_STATUS, INVALID_PARAMETER, MULTI_GROUP_TYPE};
use crate::model::Instance;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const OTHER_VPC: ErrorKind = ErrorKind { code: "InvalidSecurityGroupVpc.NotBelongToOneVpc", status: 404 };
const MIXED_GROUPS: &str = "EnterpriseGroupLimited.MutliGroupType";
const OTHER_ZONE: ErrorKind = ErrorKind { code: "InvalidVSwitchId.Mismatch", status: 400 };
const VSWITCH_OF_OTHER_VPC: ErrorKind = ErrorKind { code: "InvalidVSwitch.NotBelongToVpc", status: 404 };

/// What an instance shows.
pub(super) fn status(desk: &Desk<'_>, instance: &Instance) -> &'static str {
    let is_new = instance.changed_s == instance.created_s;
    match (instance.running, desk.is_passing(instance.changed_s)) {
        (true, true) if is_new => "Pending",
        (true, true) => "Starting",
        (true, false) => "Running",
        (false, true) if is_new => "Pending",
        (false, true) => "Stopping",
        (false, false) => "Stopped",
    }
}

/// Refuses an instance in a passing state.
pub(super) fn refuse_passing(desk: &Desk<'_>, id: &str) -> Result<(), ApiError> {
    let instance = desk.instance(id)?;
    if desk.is_passing(instance.changed_s) {
        let message = format!("{id} is {}.", status(desk, instance));
        return Err(INSTANCE_STATUS.error(message).object(id));
    }
    Ok(())
}

fn named(desk: &Desk<'_>) -> String {
    desk.parameters().owned("InstanceId").unwrap_or_default()
}

pub(super) fn start(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    run(desk, vec![named(desk)], true, false)
}

pub(super) fn stop(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    run(desk, vec![named(desk)], false, false)
}

pub(super) fn reboot(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    run(desk, vec![named(desk)], true, true)
}

pub(super) fn start_all(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    run(desk, desk.parameters().list("InstanceId")?, true, false)
}

pub(super) fn stop_all(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    run(desk, desk.parameters().list("InstanceId")?, false, false)
}

fn run(desk: &Desk<'_>, ids: Vec<String>, running: bool, again: bool) -> Result<Plan, ApiError> {
    let change = |id: &String| Command::InstanceRun(InstanceRun { instance: id.clone(), running, again });
    let can = |id: &String| {
        refuse_passing(desk, id)?;
        desk.model.decide(&change(id), desk.environment).map(drop)
    };
    let one_by_one = desk.word("BatchOptimization", &["AllTogether", "SuccessFirst"], INVALID_PARAMETER)? == Some(1);
    let (mut commands, mut before) = (Vec::new(), Vec::new());
    for id in ids {
        let refusal = match can(&id) {
            Err(error) if one_by_one => Some(refusal(desk.call, error)),
            decided => decided.map(|()| None)?,
        };
        if refusal.is_none() {
            commands.push(change(&id));
        }
        let previous = desk.instance(&id).map_or("", |instance| status(desk, instance));
        before.push((id, previous, refusal));
    }
    if !desk.call.action.name.ends_with('s') {
        return Ok(desk.quiet_change(commands));
    }
    let answer = move |desk: &Desk<'_>| {
        let response = |(id, previous, refusal): &(String, &str, Option<ApiError>)| {
            let current = desk.instance(id).map_or("", |instance| status(desk, instance));
            let (code, message) = refusal.as_ref().map_or(("200", "success"), |error| (error.code, &error.message));
            json!({
                "InstanceId": id, "PreviousStatus": previous, "CurrentStatus": current, "Code": code,
                "Message": message,
            })
        };
        let responses: Vec<Value> = before.iter().map(response).collect();
        members(json!({"InstanceResponses": {"InstanceResponse": responses}}))
    };
    Ok(desk.change(commands, Box::new(answer)))
}

pub(super) fn delete(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    end(desk, vec![named(desk)])
}

pub(super) fn delete_all(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    end(desk, desk.parameters().list("InstanceId")?)
}

fn end(desk: &Desk<'_>, ids: Vec<String>) -> Result<Plan, ApiError> {
    let parameters = desk.parameters();
    let force = parameters.boolean("Force")?.unwrap_or(false) || parameters.boolean("ForceStop")?.unwrap_or(false);
    for id in &ids {
        desk.instance(id)?;
    }
    let change = |instance| Command::InstanceDelete(InstanceDelete { instance, force });
    Ok(desk.quiet_change(ids.into_iter().map(change).collect()))
}

pub(super) fn modify_attribute(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let parameters = desk.parameters();
    let id = named(desk);
    let groups = parameters.list("SecurityGroupIds")?;
    let instance = desk.instance(&id)?;
    desk.check_groups(&groups)?;
    let primary = instance.primary().and_then(|eni| desk.model.enis.get_key_value(eni));
    let mut commands = vec![Command::InstanceModify(InstanceModify {
        instance: id,
        name: parameters.owned("InstanceName"),
        description: parameters.owned("Description"),
        host_name: parameters.owned("HostName"),
        deletion_protection: parameters.boolean("DeletionProtection")?,
    })];
    if let Some((eni_id, eni)) = primary.filter(|_| !groups.is_empty()) {
        check_set(desk, &groups, &eni.vpc)?;
        let modify = EniModify { eni: eni_id.to_string(), groups: Some(groups), ..EniModify::default() };
        commands.push(Command::EniModify(modify));
    }
    Ok(desk.quiet_change(commands))
}

/// Refuses a set of groups in the words that are used where it replaces all of an instance's.
fn check_set(desk: &Desk<'_>, groups: &[String], vpc: &vswitch_core::ids::VpcId) -> Result<(), ApiError> {
    let found: Vec<_> = groups.iter().filter_map(|id| desk.model.groups.get(&id.as_str().into())).collect();
    if found.iter().any(|group| group.vpc != *vpc) {
        return Err(OTHER_VPC.error(format!("all have to be in {vpc}.")).field("SecurityGroupIds"));
    }
    let kinds: BTreeSet<_> = found.iter().map(|group| group.kind).collect();
    if kinds.len() > 1 {
        let error = MULTI_GROUP_TYPE.error("basic and advanced groups do not mix.");
        return Err(ApiError { code: MIXED_GROUPS, ..error }.field("SecurityGroupIds"));
    }
    Ok(())
}

pub(super) fn modify_vpc_attribute(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let parameters = desk.parameters();
    let instance = named(desk);
    let groups = parameters.list("SecurityGroupId")?;
    let present = desk.instance(&instance)?.primary().and_then(|eni| desk.model.enis.get(eni));
    let (vswitch_id, vswitch) = desk.vswitch(parameters.text("VSwitchId").unwrap_or_default())?;
    desk.check_vswitch_made(&vswitch_id, vswitch)?;
    let zone = desk.zone_of(&vswitch_id);
    if present.is_some_and(|eni| desk.zone_of(&eni.vswitch) != zone) {
        return Err(OTHER_ZONE.error(format!("{vswitch_id} is in {zone}.")).field("VSwitchId"));
    }
    if parameters.text("VpcId").is_some_and(|vpc| vpc != vswitch.vpc.as_str()) {
        return Err(VSWITCH_OF_OTHER_VPC.error(format!("{vswitch_id} is in {}.", vswitch.vpc)).field("VpcId"));
    }
    desk.check_groups(&groups)?;
    check_set(desk, &groups, &vswitch.vpc)?;
    let change = InstanceMove {
        instance,
        vswitch: vswitch_id.to_string(),
        primary_ip: parameters.owned("PrivateIpAddress"),
        groups,
    };
    Ok(desk.quiet_change(vec![Command::InstanceMove(change)]))
}
