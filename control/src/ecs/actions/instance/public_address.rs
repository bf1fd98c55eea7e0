//! Public addresses of instances, from the pool of the configuration.

use super::attributes::change;
use crate::command::Command;
use crate::ecs::dialect::call::{Context, Plan, members};
use crate::error::{ApiError, ErrorKind};
use crate::model::PUBLIC_ADDRESS;
use serde_json::json;
use std::net::Ipv4Addr;

const ALLOCATED: ErrorKind = ErrorKind { code: "AllocatedAlready", status: 403 };
const NOT_ENOUGH: ErrorKind = ErrorKind { code: "InsufficientInventory", status: 403 };
const TAKEN: ErrorKind = ErrorKind { code: "InvalidIpAddress.Conflict", status: 400 };

/// Free addresses of the pool, lowest first.
pub(in crate::ecs) fn free(context: &Context<'_>) -> impl Iterator<Item = Ipv4Addr> {
    let taken = context.scope.taken_external_addresses();
    context.settings.public_addresses.hosts().filter(move |address| !taken.contains(address))
}

pub(in crate::ecs) fn none_left() -> ApiError {
    NOT_ENOUGH.error("no public address is free: widen public_addresses in the configuration.")
}

pub(in crate::ecs) fn allocate(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let id = parameters.owned("InstanceId").unwrap_or_default();
    context.scope.instance(&id)?;
    let present = context.scope.label(&id).attribute(PUBLIC_ADDRESS);
    if !present.is_empty() {
        return Err(ALLOCATED.error(format!("it is {present}.")).object(id));
    }
    let address = match parameters.text("IpAddress") {
        None => free(context).next().ok_or_else(none_left)?,
        Some(text) => {
            let wanted = text.parse().ok().filter(|wanted| context.settings.public_addresses.contains(wanted));
            let wanted = wanted.filter(|wanted| free(context).any(|free| free == *wanted));
            wanted.ok_or_else(|| TAKEN.error("choose a free one of the pool, or none.").field("IpAddress"))?
        }
    };
    let commands = vec![change(&id, [(PUBLIC_ADDRESS, address.to_string())])];
    Ok(context.change(commands, Box::new(move |_| members(json!({"IpAddress": address.to_string()})))))
}

/// Changes an instance's outgoing bandwidth, by which it may gain or lose a public address.
pub(in crate::ecs) fn modify_network_spec(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let id = parameters.owned("InstanceId").unwrap_or_default();
    context.scope.instance(&id)?;
    let mut commands: Vec<Command> = context.note_attributes(&id).into_iter().collect();
    if let Some(kind) = parameters.owned("NetworkChargeType") {
        commands.push(change(&id, [("InternetChargeType", kind)]));
    }
    let present = context.scope.label(&id).attribute(PUBLIC_ADDRESS);
    let out = parameters.count::<u32>("InternetMaxBandwidthOut")?;
    // A subscription instance has its address as long as it has bandwidth.
    let is_prepaid = context.scope.label(&id).attribute("InstanceChargeType") == "PrePaid";
    let wanted = parameters.boolean("AllocatePublicIp")?.unwrap_or(is_prepaid && out.is_some_and(|out| out > 0));
    if out == Some(0) {
        commands.push(change(&id, [(PUBLIC_ADDRESS, String::new())]));
    } else if wanted && present.is_empty() {
        let address = free(context).next().ok_or_else(none_left)?;
        commands.push(change(&id, [(PUBLIC_ADDRESS, address.to_string())]));
    }
    Ok(context.quiet_change(commands))
}
