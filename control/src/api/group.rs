//! Security groups and their members.

use super::check::missing;
use super::desk::{Desk, Plan, members};
use crate::command::{Command, GroupCreate, GroupDelete, GroupJoin, GroupLeave, GroupModify};
use crate::error::{
    ApiError, ENI_VPC_MISMATCH, ErrorKind, GROUP_DELETE_NOT_FOUND, GROUP_NOT_FOUND, INSTANCE_STATUS, LEAVE_LAST_GROUP,
};
use serde_json::json;

const GROUP_WITHOUT_VPC: ErrorKind = ErrorKind { code: "InvalidVpcId.NotFound", status: 403 };
const ADVANCED_WITHOUT_VPC: ErrorKind = ErrorKind { code: "InvalidParams.VpcIdGroupType", status: 400 };
const TWO_MEMBERS: ErrorKind = ErrorKind { code: "InvalidParam.EniIdAndInstanceId.Conflict", status: 403 };
const INSTANCE_VPC: ErrorKind = ErrorKind { code: "InvalidInstanceId.Mismatch", status: 400 };
const INSTANCE_LAST_GROUP: ErrorKind = ErrorKind { code: "InstanceLastSecurityGroup", status: 403 };

pub(super) fn create(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let parameters = desk.parameters();
    let Some(vpc) = parameters.text("VpcId") else {
        let is_advanced =
            parameters.text("SecurityGroupType").is_some_and(|kind| kind.eq_ignore_ascii_case("enterprise"));
        let kind = if is_advanced { ADVANCED_WITHOUT_VPC } else { GROUP_WITHOUT_VPC };
        return Err(kind.error("there is no classic network here: name a VPC.").field("VpcId"));
    };
    let id = desk.environment.new_id("sg");
    let label = desk.new_label(&id, None)?;
    let (vpc_id, found) = desk.vpc(vpc)?;
    desk.check_vpc_made(&vpc_id, found)?;
    let create = GroupCreate {
        id: Some(id.clone()),
        vpc: vpc.to_owned(),
        kind: parameters.owned("SecurityGroupType"),
        inner_access: None,
        service_managed: parameters.boolean("ServiceManaged")?.unwrap_or(false),
        name: parameters.owned("SecurityGroupName"),
        description: parameters.owned("Description"),
    };
    let commands = [Command::GroupCreate(create)].into_iter().chain(label).collect();
    Ok(desk.change(commands, Box::new(move |_| members(json!({"SecurityGroupId": id})))))
}

pub(super) fn modify_policy(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let parameters = desk.parameters();
    let (group, _) = desk.group(parameters.text("SecurityGroupId").unwrap_or_default())?;
    let modify = GroupModify {
        group: group.to_string(),
        inner_access: parameters.owned("InnerAccessPolicy"),
        ..GroupModify::default()
    };
    Ok(desk.quiet_change(vec![Command::GroupModify(modify)]))
}

pub(super) fn modify_attribute(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let parameters = desk.parameters();
    let (group, _) = desk.group(parameters.text("SecurityGroupId").unwrap_or_default())?;
    let modify = GroupModify {
        group: group.to_string(),
        name: parameters.owned("SecurityGroupName"),
        description: parameters.owned("Description"),
        ..GroupModify::default()
    };
    Ok(desk.quiet_change(vec![Command::GroupModify(modify)]))
}

pub(super) fn delete(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let group = desk.parameters().text("SecurityGroupId").unwrap_or_default();
    let found = desk.group(group).map_err(|error| match error.code == GROUP_NOT_FOUND.code {
        true => ApiError { code: GROUP_DELETE_NOT_FOUND.code, ..error },
        false => error,
    });
    let (group, _) = found?;
    Ok(desk.quiet_change(vec![Command::GroupDelete(GroupDelete { group: group.to_string() })]))
}

/// The interface that a membership is about, and whether it was named by its instance.
fn member(desk: &Desk<'_>) -> Result<(String, bool), ApiError> {
    let parameters = desk.parameters();
    match (parameters.text("InstanceId"), parameters.text("NetworkInterfaceId")) {
        (Some(_), Some(_)) => {
            Err(TWO_MEMBERS.error("InstanceId and NetworkInterfaceId cannot be given both.").field("InstanceId"))
        }
        (None, None) => Err(missing(desk.call.action.fact(), "InstanceId")),
        (None, Some(eni)) => {
            if parameters.text("RegionId").is_none() {
                return Err(missing(desk.call.action.fact(), "RegionId"));
            }
            Ok((eni.to_owned(), false))
        }
        (Some(instance), None) => Ok((instance.to_owned(), true)),
    }
}

fn member_eni(desk: &Desk<'_>, (id, is_instance): (String, bool)) -> Result<String, ApiError> {
    if !is_instance {
        return desk.eni(&id).map(|(eni, _)| eni.to_string());
    }
    let instance = desk.instance(&id)?;
    let primary = instance.primary().filter(|_| !desk.is_passing(instance.changed_s));
    primary
        .map(ToString::to_string)
        .ok_or_else(|| INSTANCE_STATUS.error(format!("{id} is still being changed: try again later")).object(id))
}

pub(super) fn join(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let member = member(desk)?;
    let (group_id, group) = desk.group(desk.parameters().text("SecurityGroupId").unwrap_or_default())?;
    let is_instance = member.1;
    let eni = member_eni(desk, member)?;
    let other_vpc = desk.model.enis.get(&eni.as_str().into()).is_some_and(|eni| eni.vpc != group.vpc);
    if other_vpc && !group.service_managed {
        let kind = if is_instance { INSTANCE_VPC } else { ENI_VPC_MISMATCH };
        return Err(kind.error(format!("{group_id} is in {}, {eni} is not.", group.vpc)).object(eni));
    }
    Ok(desk.quiet_change(vec![Command::GroupJoin(GroupJoin { group: group_id.to_string(), eni })]))
}

pub(super) fn leave(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let member = member(desk)?;
    let (group_id, group) = desk.group(desk.parameters().text("SecurityGroupId").unwrap_or_default())?;
    let is_instance = member.1;
    let eni = member_eni(desk, member)?;
    let groups = desk.model.enis.get(&eni.as_str().into()).map(|eni| &eni.groups);
    let is_last = groups.is_some_and(|groups| groups.len() == 1 && groups.contains(&group_id));
    if is_last && !group.service_managed {
        let kind = if is_instance { INSTANCE_LAST_GROUP } else { LEAVE_LAST_GROUP };
        return Err(kind.error(format!("{group_id} is the only group: join another one first.")).object(eni));
    }
    Ok(desk.quiet_change(vec![Command::GroupLeave(GroupLeave { group: group_id.to_string(), eni })]))
}
