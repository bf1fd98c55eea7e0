//! Addresses of network interfaces: assigning and unassigning.

use super::prefix_count;
use crate::command::{Command, EniAssign, EniUnassign};
use crate::ecs::dialect::call::{Context, Plan, members};
use crate::ecs::dialect::validate::missing;
use crate::error::ApiError;
use crate::model::Eni;
use ipnet::IpNet;
use serde_json::json;
use std::net::IpAddr;
use vswitch_core::config::ids::EniId;

/// The names of one family's parameters.
struct FamilyParameters {
    address: &'static str,
    count: &'static str,
    prefix: &'static str,
    prefix_count: &'static str,
}

const IPV4: FamilyParameters = FamilyParameters {
    address: "PrivateIpAddress",
    count: "SecondaryPrivateIpAddressCount",
    prefix: "Ipv4Prefix",
    prefix_count: "Ipv4PrefixCount",
};
const IPV6: FamilyParameters = FamilyParameters {
    address: "Ipv6Address",
    count: "Ipv6AddressCount",
    prefix: "Ipv6Prefix",
    prefix_count: "Ipv6PrefixCount",
};

pub(in crate::ecs) fn assign_ipv4(context: &Context<'_>) -> Result<Plan, ApiError> {
    assign(context, &IPV4)
}

pub(in crate::ecs) fn assign_ipv6(context: &Context<'_>) -> Result<Plan, ApiError> {
    assign(context, &IPV6)
}

pub(in crate::ecs) fn unassign_ipv4(context: &Context<'_>) -> Result<Plan, ApiError> {
    unassign(context, &IPV4)
}

pub(in crate::ecs) fn unassign_ipv6(context: &Context<'_>) -> Result<Plan, ApiError> {
    unassign(context, &IPV6)
}

fn assign(context: &Context<'_>, family: &FamilyParameters) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let addresses = parameters.list(family.address)?;
    let count = parameters.count::<u8>(family.count)?.unwrap_or(0);
    let prefixes = parameters.list(family.prefix)?;
    let prefix_count = prefix_count(parameters, family.prefix, family.prefix_count)?;
    if addresses.is_empty() && prefixes.is_empty() && count == 0 && prefix_count == 0 {
        return Err(missing(context.call.action.schema(), family.address));
    }
    if !addresses.is_empty() && count > 0 {
        return context.refuse(family.count, "give addresses or their count, not both");
    }
    check_family(context, family, &addresses, &prefixes)?;
    let (id, eni) = context.scope.eni(parameters.text("NetworkInterfaceId").unwrap_or_default())?;
    let before = eni.clone();
    let is_ipv6 = family.address == IPV6.address;
    let of_family = |count| if is_ipv6 { (0, count) } else { (count, 0) };
    let ((ipv4_count, ipv6_count), (ipv4_prefix_count, ipv6_prefix_count)) =
        (of_family(count), of_family(prefix_count));
    let eni = id.to_string();
    let assign = EniAssign { eni, addresses, prefixes, ipv4_count, ipv6_count, ipv4_prefix_count, ipv6_prefix_count };
    let answer = move |context: &Context<'_>| {
        let after = context.scope.eni(id.as_str()).ok();
        members(after.map(|(id, after)| assigned(&id, &before, after, is_ipv6)).unwrap_or_default())
    };
    Ok(context.change(vec![Command::EniAssign(assign)], Box::new(answer)))
}

/// What an interface has now and did not have before.
fn assigned(id: &EniId, before: &Eni, after: &Eni, is_ipv6: bool) -> serde_json::Value {
    let prefixes: Vec<&IpNet> = after.prefixes.difference(&before.prefixes).collect();
    if is_ipv6 {
        let addresses: Vec<_> = after.ipv6.difference(&before.ipv6).collect();
        return json!({
            "NetworkInterfaceId": id,
            "Ipv6Sets": {"Ipv6Address": addresses},
            "Ipv6PrefixSets": {"Ipv6Prefix": prefixes},
        });
    }
    let addresses: Vec<_> = after.secondary.difference(&before.secondary).collect();
    json!({"AssignedPrivateIpAddressesSet": {
        "NetworkInterfaceId": id,
        "PrivateIpSet": {"PrivateIpAddress": addresses},
        "Ipv4PrefixSet": {"Ipv4Prefixes": prefixes},
    }})
}

fn unassign(context: &Context<'_>, family: &FamilyParameters) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let addresses = parameters.list(family.address)?;
    let prefixes = parameters.list(family.prefix)?;
    if addresses.is_empty() && prefixes.is_empty() {
        return Err(missing(context.call.action.schema(), family.address));
    }
    check_family(context, family, &addresses, &prefixes)?;
    let (id, _) = context.scope.eni(parameters.text("NetworkInterfaceId").unwrap_or_default())?;
    let unassign = EniUnassign { eni: id.to_string(), addresses, prefixes };
    Ok(context.quiet_change(vec![Command::EniUnassign(unassign)]))
}

fn check_family(
    context: &Context<'_>,
    family: &FamilyParameters,
    addresses: &[String],
    prefixes: &[String],
) -> Result<(), ApiError> {
    let is_ipv6 = family.address == IPV6.address;
    let fits = |text: &String| text.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6() == is_ipv6);
    if !addresses.iter().all(fits) {
        let message = format!("the entries of {} are addresses of its family.", family.address);
        let error = crate::error::IP_MALFORMED.error(message).field(family.address);
        return Err(crate::ecs::dialect::validate::in_words_of(context.call.action.schema(), error));
    }
    // The model refuses what is not a prefix at all.
    let strange = |text: &String| text.parse::<IpNet>().is_ok_and(|net| net.addr().is_ipv6() != is_ipv6);
    match prefixes.iter().any(strange) {
        true => context.refuse(family.prefix, "its entries are prefixes of its family."),
        false => Ok(()),
    }
}
