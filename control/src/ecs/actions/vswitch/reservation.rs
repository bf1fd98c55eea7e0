//! Reservations: parts of a subnet's blocks for delegated prefixes.

use crate::command::{Command, VswitchReservationModify, VswitchReserve, VswitchUnreserve};
use crate::ecs::dialect::call::{Context, Plan, members};
use crate::ecs::dialect::paging::page;
use crate::ecs::dialect::scope::Access;
use crate::error::{ApiError, RESERVATION_NOT_FOUND};
use crate::model::{Reservation, VSwitch, timestamp};
use ipnet::IpNet;
use serde_json::{Value, json};
use vswitch_core::config::ids::VSwitchId;

pub(in crate::ecs) fn create(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let vswitch = parameters.text("VSwitchId").unwrap_or_default();
    let (vswitch_id, vswitch) = context.scope.vswitch(vswitch, Access::Own)?;
    context.check_vswitch_made(&vswitch_id, vswitch)?;
    let ipv6 = parameters.text("IpVersion").is_some_and(|version| version.eq_ignore_ascii_case("IPv6"));
    let cidr = parameters.owned("VSwitchCidrReservationCidr");
    if cidr.as_ref().is_some_and(|cidr| cidr.contains(':') != ipv6) {
        return context.refuse("VSwitchCidrReservationCidr", "it is not of the family that IpVersion says");
    }
    let id = context.environment.new_id("vcr");
    let reserve = VswitchReserve {
        id: Some(id.clone()),
        vswitch: vswitch_id.to_string(),
        cidr,
        mask: parameters.count("VSwitchCidrReservationMask")?,
        ipv6,
        name: parameters.owned("VSwitchCidrReservationName"),
        description: parameters.owned("VSwitchCidrReservationDescription"),
        tags: context.tags("Tag")?,
    };
    let answer = move |_: &Context<'_>| members(json!({"VSwitchCidrReservationId": id}));
    Ok(context.change(vec![Command::VswitchReserve(reserve)], Box::new(answer)))
}

/// The caller's reservation that a call names, with its subnet.
fn named<'a>(context: &Context<'a>) -> Result<(VSwitchId, &'a VSwitch, String), ApiError> {
    let id = context.parameters().text("VSwitchCidrReservationId").unwrap_or_default();
    let found = own(context).find(|(_, vswitch)| vswitch.reservations.contains_key(id));
    let none = || RESERVATION_NOT_FOUND.error("there is none of that name.").field("VSwitchCidrReservationId");
    found.map(|(vswitch_id, vswitch)| (vswitch_id.clone(), vswitch, id.to_owned())).ok_or_else(none)
}

/// The caller's own subnets.
fn own<'a>(context: &Context<'a>) -> impl Iterator<Item = (&'a VSwitchId, &'a VSwitch)> {
    let scope = context.scope;
    scope.vswitches().filter(move |(id, _)| scope.vswitch(id.as_str(), Access::Own).is_ok())
}

pub(in crate::ecs) fn modify(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (vswitch, _, reservation) = named(context)?;
    let given = |name: &str| context.parameters().given(name).map(str::to_owned);
    let modify = VswitchReservationModify {
        vswitch: vswitch.to_string(),
        reservation,
        name: given("VSwitchCidrReservationName"),
        description: given("VSwitchCidrReservationDescription"),
    };
    Ok(context.quiet_change(vec![Command::VswitchReservationModify(modify)]))
}

pub(in crate::ecs) fn delete(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (vswitch, _, reservation) = named(context)?;
    let unreserve = VswitchUnreserve { vswitch: vswitch.to_string(), reservation };
    Ok(context.quiet_change(vec![Command::VswitchUnreserve(unreserve)]))
}

fn family(cidr: IpNet) -> &'static str {
    if cidr.addr().is_ipv6() { "IPv6" } else { "IPv4" }
}

pub(in crate::ecs) fn list(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let ids = parameters.list("VSwitchCidrReservationIds")?;
    let tags = parameters.objects("Tags")?;
    let is = |name: &str, value: &str| parameters.text(name).is_none_or(|wanted| wanted.eq_ignore_ascii_case(value));
    let mut entries = Vec::new();
    for (vswitch_id, vswitch) in own(context).filter(|(id, _)| is("VSwitchId", id.as_str())) {
        for (id, kept) in &vswitch.reservations {
            let tagged = tags.iter().all(|(_, tag)| match (tag.text("Key"), tag.text("Value")) {
                (Some(key), Some(value)) => kept.tags.get(key).is_some_and(|present| present == value),
                (Some(key), None) => kept.tags.contains_key(key),
                (None, _) => true,
            });
            let wanted = (ids.is_empty() || ids.contains(id))
                && is("IpVersion", family(kept.cidr))
                && is("VSwitchCidrReservationType", "prefix")
                && tagged;
            if wanted {
                entries.push((id.clone(), reservation_json(context, (vswitch_id, vswitch), id, kept)));
            }
        }
    }
    paged(context, entries, "VSwitchCidrReservations")
}

/// A page of entries, with their total number and the page's size.
fn paged(context: &Context<'_>, entries: Vec<(String, Value)>, name: &str) -> Result<Plan, ApiError> {
    let total = entries.len();
    let size = context.parameters().integer("MaxResults")?.unwrap_or(10);
    let page = page(context, entries, false)?;
    let mut answer = page.about;
    answer.extend(members(json!({"TotalCount": total, "MaxResults": size})));
    answer.insert(name.into(), page.entries.into());
    Ok(Plan::Answer(answer))
}

fn reservation_json(
    context: &Context<'_>,
    (vswitch_id, vswitch): (&VSwitchId, &VSwitch),
    id: &str,
    kept: &Reservation,
) -> Value {
    let all = 1_u64.checked_shl(u32::from(kept.prefix_bits() - kept.cidr.prefix_len())).unwrap_or(u64::MAX);
    let assigned = context.scope.delegated(vswitch_id).filter(|(prefix, _)| kept.cidr.contains(prefix)).count();
    let tags: Vec<Value> = kept.tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect();
    json!({
        "VSwitchCidrReservationId": id,
        "VSwitchCidrReservationName": kept.name,
        "VSwitchCidrReservationDescription": kept.description,
        "VSwitchCidrReservationCidr": kept.cidr,
        "IpVersion": family(kept.cidr),
        "Type": "prefix",
        "Status": "Assigned",
        "VSwitchId": vswitch_id,
        "VpcId": vswitch.vpc,
        "AssignedCidrCount": assigned,
        "AvailableCidrCount": all.saturating_sub(assigned as u64),
        "CreationTime": timestamp(kept.created_s),
        "Tags": tags,
    })
}

pub(in crate::ecs) fn usage(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (vswitch_id, vswitch, id) = named(context)?;
    let Some(kept) = vswitch.reservations.get(&id) else { return paged(context, vec![], "CidrReservationUsages") };
    let used = context.scope.delegated(&vswitch_id).filter(|(prefix, _)| kept.cidr.contains(prefix));
    let entries = used.map(|(prefix, eni)| {
        let value = json!({
            "IpPrefixCidr": prefix,
            "ResourceId": eni.map(ToString::to_string).unwrap_or_default(),
            "ResourceType": "NetworkInterface",
            "VSwitchCidrReservationId": id,
            "VSwitchId": vswitch_id,
        });
        (prefix.to_string(), value)
    });
    let entries = entries.collect();
    paged(context, entries, "CidrReservationUsages")
}
