//! Additional blocks of a VPC.

use super::{named, new_ipv6_block};
use crate::command::{Command, VpcModify};
use crate::ecs::dialect::call::{Context, Plan, members};
use crate::ecs::dialect::scope::Access;
use crate::ecs::dialect::validate::missing;
use crate::error::{ApiError, CIDR_BLOCK_NOT_FOUND, QUOTA_CIDR_BLOCK};
use ipnet::Ipv6Net;
use serde_json::json;

/// The blocks that the call names, IPv4 and IPv6; there has to be exactly one.
fn named_blocks(context: &Context<'_>) -> Result<(Option<String>, Option<String>), ApiError> {
    let parameters = context.parameters();
    let blocks = (parameters.owned("SecondaryCidrBlock"), parameters.owned("IPv6CidrBlock"));
    match &blocks {
        (Some(_), Some(_)) => context.refuse("IPv6CidrBlock", "give it or SecondaryCidrBlock, not both"),
        _ => Ok(blocks),
    }
}

pub(in crate::ecs) fn associate(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let (id, vpc) = named(context, Access::Own)?;
    context.check_vpc_made(&id, vpc)?;
    let is_ipv6 = parameters.text("IpVersion").is_some_and(|version| version.eq_ignore_ascii_case("IPv6"));
    let mut change = VpcModify { vpc: id.to_string(), ..VpcModify::default() };
    let block = match named_blocks(context)? {
        (Some(_), None) if is_ipv6 => return context.refuse("SecondaryCidrBlock", "IpVersion is IPV6"),
        (Some(block), _) => {
            change.add_cidrs.push(block.clone());
            block
        }
        (None, block) if is_ipv6 || block.is_some() => {
            if let Some(own) = vpc.ipv6_cidr {
                let message = format!("{id} has {own}, and may have one.");
                return Err(QUOTA_CIDR_BLOCK.error(message).field("IPv6CidrBlock"));
            }
            let block = block.unwrap_or_else(|| new_ipv6_block(context));
            change.ipv6_cidr = Some(block.clone());
            block
        }
        (None, _) => return Err(missing(context.call.action.schema(), "SecondaryCidrBlock")),
    };
    let note = context.note_attributes(id.as_str());
    let commands = [Command::VpcModify(change)].into_iter().chain(note).collect();
    Ok(context.change(commands, Box::new(move |_| members(json!({"CidrBlock": block})))))
}

pub(in crate::ecs) fn unassociate(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (id, vpc) = named(context, Access::Own)?;
    context.check_vpc_made(&id, vpc)?;
    let mut change = VpcModify { vpc: id.to_string(), ..VpcModify::default() };
    match named_blocks(context)? {
        (Some(block), _) => change.remove_cidrs.push(block),
        (None, Some(block)) if block.parse::<Ipv6Net>().ok() == vpc.ipv6_cidr => {
            change.ipv6_cidr = Some(String::new());
        }
        (None, Some(_)) => {
            return Err(CIDR_BLOCK_NOT_FOUND.error(format!("{id} does not have it.")).field("IPv6CidrBlock"));
        }
        (None, None) => return Err(missing(context.call.action.schema(), "SecondaryCidrBlock")),
    }
    Ok(context.quiet_change(vec![Command::VpcModify(change)]))
}
