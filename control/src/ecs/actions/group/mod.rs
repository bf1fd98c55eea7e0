//! Security groups and their members.

pub(in crate::ecs) mod list;

use crate::command::{Command, GroupCreate, GroupDelete, GroupJoin, GroupLeave, GroupModify};
use crate::ecs::actions::vpc::default::default_vpc;
use crate::ecs::dialect::call::{Context, Plan, members};
use crate::ecs::dialect::scope::Access;
use crate::ecs::dialect::validate::missing;
use crate::error::{
    ApiError, ENI_VPC_MISMATCH, ErrorKind, GROUP_DELETE_NOT_FOUND, GROUP_NOT_FOUND, INSTANCE_STATUS, LEAVE_LAST_GROUP,
};
use crate::model::Eni;
use serde_json::json;
use vswitch_core::config::ids::EniId;

const GROUP_WITHOUT_VPC: ErrorKind = ErrorKind { code: "InvalidVpcId.NotFound", status: 403 };
const ADVANCED_WITHOUT_VPC: ErrorKind = ErrorKind { code: "InvalidParams.VpcIdGroupType", status: 400 };
const TWO_MEMBERS: ErrorKind = ErrorKind { code: "InvalidParam.EniIdAndInstanceId.Conflict", status: 403 };
const INSTANCE_VPC: ErrorKind = ErrorKind { code: "InvalidInstanceId.Mismatch", status: 400 };
const NOT_SECONDARY: ErrorKind = ErrorKind { code: "InvalidOperation.InvalidEniType", status: 403 };
const INSTANCE_LAST_GROUP: ErrorKind = ErrorKind { code: "InstanceLastSecurityGroup", status: 403 };

pub(in crate::ecs) fn create(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let is_advanced = parameters.text("SecurityGroupType").is_some_and(|kind| kind.eq_ignore_ascii_case("enterprise"));
    // If there is no classic network, a basic group without a VPC is in the default VPC.
    let may_default = !is_advanced && !context.settings.classic_network;
    let default = || default_vpc(context).map(|(id, _)| id.as_str()).filter(|_| may_default);
    let vpc = parameters.text("VpcId").or_else(default);
    if vpc.is_none() {
        let kind = if is_advanced { ADVANCED_WITHOUT_VPC } else { GROUP_WITHOUT_VPC };
        if is_advanced || !context.settings.classic_network {
            return Err(kind.error("there is no default VPC here: name one.").field("VpcId"));
        }
    }
    let id = context.environment.new_id("sg");
    let label = context.new_label(&id, None)?;
    if let Some(vpc) = vpc {
        let (vpc_id, found) = context.scope.vpc(vpc, Access::Use)?;
        context.check_vpc_made(&vpc_id, found)?;
    }
    let create = GroupCreate {
        id: Some(id.clone()),
        vpc: vpc.unwrap_or_default().to_owned(),
        classic: vpc.is_none(),
        kind: parameters.owned("SecurityGroupType"),
        inner_access: None,
        service_managed: parameters.boolean("ServiceManaged")?,
        name: parameters.owned("SecurityGroupName"),
        description: parameters.owned("Description"),
    };
    let commands = [Command::GroupCreate(create)].into_iter().chain(label).collect();
    Ok(context.change(commands, Box::new(move |_| members(json!({"SecurityGroupId": id})))))
}

pub(in crate::ecs) fn modify_policy(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let (group, _) = context.scope.group(parameters.text("SecurityGroupId").unwrap_or_default())?;
    let modify = GroupModify {
        group: group.to_string(),
        inner_access: parameters.owned("InnerAccessPolicy"),
        ..GroupModify::default()
    };
    Ok(context.quiet_change(vec![Command::GroupModify(modify)]))
}

pub(in crate::ecs) fn modify_attribute(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let (group, _) = context.scope.group(parameters.text("SecurityGroupId").unwrap_or_default())?;
    let modify = GroupModify {
        group: group.to_string(),
        name: parameters.owned("SecurityGroupName"),
        description: parameters.owned("Description"),
        ..GroupModify::default()
    };
    Ok(context.quiet_change(vec![Command::GroupModify(modify)]))
}

pub(in crate::ecs) fn delete(context: &Context<'_>) -> Result<Plan, ApiError> {
    let group = context.parameters().text("SecurityGroupId").unwrap_or_default();
    let found = context.scope.group(group).map_err(|error| match error.code == GROUP_NOT_FOUND.code {
        true => ApiError { code: GROUP_DELETE_NOT_FOUND.code, ..error },
        false => error,
    });
    let (group, _) = found?;
    Ok(context.quiet_change(vec![Command::GroupDelete(GroupDelete { group: group.to_string() })]))
}

/// The object of a membership, and whether it is an instance.
fn member(context: &Context<'_>) -> Result<(String, bool), ApiError> {
    let parameters = context.parameters();
    match (parameters.text("InstanceId"), parameters.text("NetworkInterfaceId")) {
        (Some(_), Some(_)) => {
            Err(TWO_MEMBERS.error("InstanceId and NetworkInterfaceId cannot be given both.").field("InstanceId"))
        }
        (None, None) => Err(missing(context.call.action.schema(), "InstanceId")),
        (None, Some(eni)) => {
            if parameters.text("RegionId").is_none() {
                return Err(missing(context.call.action.schema(), "RegionId"));
            }
            Ok((eni.to_owned(), false))
        }
        (Some(instance), None) => Ok((instance.to_owned(), true)),
    }
}

fn member_eni<'a>(context: &Context<'a>, (id, is_instance): (String, bool)) -> Result<(EniId, &'a Eni), ApiError> {
    if !is_instance {
        return context.scope.eni(&id);
    }
    let instance = context.scope.instance(&id)?;
    let primary = context.scope.primary_of(instance).filter(|_| !context.is_passing(instance.changed_s));
    primary
        .map(|(eni_id, eni)| (eni_id.clone(), eni))
        .ok_or_else(|| INSTANCE_STATUS.error(format!("{id} is still being changed: try again later")).object(id))
}

/// Refuses a primary interface, whose groups are those of its instance.
fn refuse_primary(context: &Context<'_>, id: &EniId) -> Result<(), ApiError> {
    match context.scope.instance_of(id) {
        Some((instance, found)) if found.primary() == Some(id) => Err(NOT_SECONDARY
            .error(format!("{id} is the primary interface of {instance}: name the instance."))
            .object(id)),
        _ => Ok(()),
    }
}

pub(in crate::ecs) fn join(context: &Context<'_>) -> Result<Plan, ApiError> {
    let member = member(context)?;
    let (group_id, group) = context.scope.group(context.parameters().text("SecurityGroupId").unwrap_or_default())?;
    let is_instance = member.1;
    let (eni, member) = member_eni(context, member)?;
    if !is_instance && !group.service_managed {
        refuse_primary(context, &eni)?;
    }
    if member.vpc != group.vpc && !group.service_managed {
        let kind = if is_instance { INSTANCE_VPC } else { ENI_VPC_MISMATCH };
        return Err(kind.error(format!("{group_id} is in {}, {eni} is not.", group.vpc)).object(eni));
    }
    Ok(context.quiet_change(vec![Command::GroupJoin(GroupJoin { group: group_id.to_string(), eni: eni.to_string() })]))
}

pub(in crate::ecs) fn leave(context: &Context<'_>) -> Result<Plan, ApiError> {
    let member = member(context)?;
    let (group_id, group) = context.scope.group(context.parameters().text("SecurityGroupId").unwrap_or_default())?;
    let is_instance = member.1;
    let (eni, member) = member_eni(context, member)?;
    if !is_instance && !group.service_managed {
        refuse_primary(context, &eni)?;
    }
    let is_last = member.groups.len() == 1 && member.groups.contains(&group_id);
    if is_last && !group.service_managed {
        let kind = if is_instance { INSTANCE_LAST_GROUP } else { LEAVE_LAST_GROUP };
        return Err(kind.error(format!("{group_id} is the only group: join another one first.")).object(eni));
    }
    Ok(context
        .quiet_change(vec![Command::GroupLeave(GroupLeave { group: group_id.to_string(), eni: eni.to_string() })]))
}
