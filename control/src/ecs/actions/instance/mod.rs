//! Instances: starting, stopping, changing and deleting them.

pub(in crate::ecs) mod attributes;
pub(in crate::ecs) mod create;
mod filter;
pub(in crate::ecs) mod list;
mod names;
pub(in crate::ecs) mod public_address;

use super::disk::of_ended_instance;
use crate::command::{Command, EniModify, InstanceDelete, InstanceModify, InstanceMove, InstanceRun};
use crate::ecs::dialect::call::{Context, Plan, members};
use crate::ecs::dialect::refusal;
use crate::ecs::dialect::scope::Access;
use crate::ecs::dialect::validate::missing;
use crate::error::{ApiError, ErrorKind, INSTANCE_STATUS, INVALID_PARAMETER, MULTI_GROUP_TYPE};
use crate::model::Instance;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const OTHER_VPC: ErrorKind = ErrorKind { code: "InvalidSecurityGroupVpc.NotBelongToOneVpc", status: 404 };
const MIXED_GROUPS: &str = "EnterpriseGroupLimited.MutliGroupType";
const OTHER_ZONE: ErrorKind = ErrorKind { code: "InvalidVSwitchId.Mismatch", status: 400 };
const VSWITCH_OF_OTHER_VPC: ErrorKind = ErrorKind { code: "InvalidVSwitch.NotBelongToVpc", status: 404 };

/// The status that an instance shows.
pub(in crate::ecs) fn status(context: &Context<'_>, instance: &Instance) -> &'static str {
    let is_new = instance.changed_s == instance.created_s;
    match (instance.running, context.is_passing(instance.changed_s)) {
        (true, true) if is_new => "Pending",
        (true, true) => "Starting",
        (true, false) => "Running",
        (false, true) if is_new => "Pending",
        (false, true) => "Stopping",
        (false, false) => "Stopped",
    }
}

/// Refuses an instance in a transient state.
pub(in crate::ecs) fn refuse_passing(context: &Context<'_>, id: &str) -> Result<(), ApiError> {
    let instance = context.scope.instance(id)?;
    if context.is_passing(instance.changed_s) {
        let message = format!("{id} is {}.", status(context, instance));
        return Err(INSTANCE_STATUS.error(message).object(id));
    }
    Ok(())
}

fn named(context: &Context<'_>) -> String {
    context.parameters().owned("InstanceId").unwrap_or_default()
}

pub(in crate::ecs) fn start(context: &Context<'_>) -> Result<Plan, ApiError> {
    run(context, vec![named(context)], true, false)
}

pub(in crate::ecs) fn stop(context: &Context<'_>) -> Result<Plan, ApiError> {
    run(context, vec![named(context)], false, false)
}

pub(in crate::ecs) fn reboot(context: &Context<'_>) -> Result<Plan, ApiError> {
    run(context, vec![named(context)], true, true)
}

pub(in crate::ecs) fn start_all(context: &Context<'_>) -> Result<Plan, ApiError> {
    run(context, context.parameters().list("InstanceId")?, true, false)
}

pub(in crate::ecs) fn stop_all(context: &Context<'_>) -> Result<Plan, ApiError> {
    run(context, context.parameters().list("InstanceId")?, false, false)
}

pub(in crate::ecs) fn reboot_all(context: &Context<'_>) -> Result<Plan, ApiError> {
    run(context, context.parameters().list("InstanceId")?, true, true)
}

/// Changes the type of a stopped instance.
pub(in crate::ecs) fn modify_spec(context: &Context<'_>) -> Result<Plan, ApiError> {
    let id = named(context);
    let instance = context.scope.instance(&id)?;
    let instance_type = context.parameters().owned("InstanceType");
    if instance_type.is_some() && instance.running {
        return Err(INSTANCE_STATUS.error(format!("{id} runs: stop it first.")).object(id));
    }
    if instance_type.as_ref().is_some_and(|kind| !kind.starts_with("ecs.")) {
        return Err(create::INSTANCE_TYPE.error("types begin with ecs.").field("InstanceType"));
    }
    let noted = context.note_attributes(&id);
    let modify = InstanceModify { instance: id, instance_type, ..InstanceModify::default() };
    Ok(context.quiet_change([Command::InstanceModify(modify)].into_iter().chain(noted).collect()))
}

fn run(context: &Context<'_>, ids: Vec<String>, running: bool, again: bool) -> Result<Plan, ApiError> {
    let change = |id: &String| Command::InstanceRun(InstanceRun { instance: id.clone(), running, again });
    let can = |id: &String| {
        refuse_passing(context, id)?;
        context.scope.could_change(&change(id), context.environment)
    };
    let one_by_one = context.word("BatchOptimization", &["AllTogether", "SuccessFirst"], INVALID_PARAMETER)? == Some(1);
    let (mut commands, mut before) = (Vec::new(), Vec::new());
    for id in ids {
        let refusal = match can(&id) {
            Err(error) if one_by_one => Some(refusal(context.call, error)),
            decided => decided.map(|()| None)?,
        };
        if refusal.is_none() {
            commands.push(change(&id));
            commands.extend(context.note_attributes(&id));
        }
        let previous = context.scope.instance(&id).map_or("", |instance| status(context, instance));
        before.push((id, previous, refusal));
    }
    if !context.call.action.name.ends_with('s') {
        return Ok(context.quiet_change(commands));
    }
    let answer = move |context: &Context<'_>| {
        let response = |(id, previous, refusal): &(String, &str, Option<ApiError>)| {
            let current = context.scope.instance(id).map_or("", |instance| status(context, instance));
            let (code, message) = refusal.as_ref().map_or(("200", "success"), |error| (error.code, &error.message));
            json!({
                "InstanceId": id, "PreviousStatus": previous, "CurrentStatus": current, "Code": code,
                "Message": message,
            })
        };
        let responses: Vec<Value> = before.iter().map(response).collect();
        members(json!({"InstanceResponses": {"InstanceResponse": responses}}))
    };
    Ok(context.change(commands, Box::new(answer)))
}

pub(in crate::ecs) fn delete(context: &Context<'_>) -> Result<Plan, ApiError> {
    end(context, vec![named(context)])
}

pub(in crate::ecs) fn delete_all(context: &Context<'_>) -> Result<Plan, ApiError> {
    end(context, context.parameters().list("InstanceId")?)
}

fn end(context: &Context<'_>, ids: Vec<String>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let force = parameters.boolean("Force")?.unwrap_or(false) || parameters.boolean("ForceStop")?.unwrap_or(false);
    for id in &ids {
        context.scope.instance(id)?;
    }
    let disks = ids.iter().flat_map(|id| of_ended_instance(context, id)).collect::<Vec<_>>();
    let change = |instance| Command::InstanceDelete(InstanceDelete { instance, force });
    Ok(context.quiet_change(ids.into_iter().map(change).chain(disks).collect()))
}

pub(in crate::ecs) fn modify_attribute(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let id = named(context);
    let groups = parameters.list("SecurityGroupIds")?;
    let instance = context.scope.instance(&id)?;
    context.check_groups(&groups)?;
    let primary = context.scope.primary_of(instance);
    let noted = context.note_attributes(&id);
    let mut commands = vec![Command::InstanceModify(InstanceModify {
        instance: id,
        name: parameters.owned("InstanceName"),
        description: parameters.owned("Description"),
        host_name: parameters.owned("HostName"),
        deletion_protection: parameters.boolean("DeletionProtection")?,
        ..InstanceModify::default()
    })];
    commands.extend(noted);
    if let Some((eni_id, eni)) = primary.filter(|_| !groups.is_empty()) {
        check_set(context, &groups, &eni.vpc)?;
        let modify = EniModify { eni: eni_id.to_string(), groups: Some(groups), ..EniModify::default() };
        commands.push(Command::EniModify(modify));
    }
    Ok(context.quiet_change(commands))
}

/// Refuses a set of groups with the errors for replacing all groups of an instance.
fn check_set(context: &Context<'_>, groups: &[String], vpc: &vswitch_core::config::ids::VpcId) -> Result<(), ApiError> {
    let found: Vec<_> = groups.iter().filter_map(|id| Some(context.scope.group(id).ok()?.1)).collect();
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

pub(in crate::ecs) fn modify_vpc_attribute(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let instance = named(context);
    let groups = parameters.list("SecurityGroupId")?;
    refuse_passing(context, &instance)?;
    let present = context.scope.primary_of(context.scope.instance(&instance)?);
    let (vswitch_id, vswitch) = context.scope.vswitch(parameters.text("VSwitchId").unwrap_or_default(), Access::Use)?;
    context.check_vswitch_made(&vswitch_id, vswitch)?;
    let zone = context.zone_of(&vswitch_id);
    if present.is_some_and(|(_, eni)| context.zone_of(&eni.vswitch) != zone) {
        return Err(OTHER_ZONE.error(format!("{vswitch_id} is in {zone}.")).field("VSwitchId"));
    }
    // Without a VPC, the instance's present one is meant.
    let target = parameters.text("VpcId").or(present.map(|(_, eni)| eni.vpc.as_str()));
    if target.is_some_and(|vpc| vpc != vswitch.vpc.as_str()) {
        return Err(VSWITCH_OF_OTHER_VPC.error(format!("{vswitch_id} is in {}.", vswitch.vpc)).field("VpcId"));
    }
    if groups.is_empty() && present.is_some_and(|(_, eni)| eni.vpc != vswitch.vpc) {
        return Err(missing(context.call.action.schema(), "SecurityGroupId"));
    }
    context.check_groups(&groups)?;
    check_set(context, &groups, &vswitch.vpc)?;
    let change = InstanceMove {
        instance,
        vswitch: vswitch_id.to_string(),
        primary_ip: parameters.owned("PrivateIpAddress"),
        groups,
    };
    Ok(context.quiet_change(vec![Command::InstanceMove(change)]))
}
