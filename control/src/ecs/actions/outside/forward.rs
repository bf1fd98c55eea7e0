//! Forwards (DNAT) of NAT gateways.

use super::{asks_for, forward_table, named_table};
use crate::command::{Command, ForwardAdd, ForwardModify, ForwardRemove};
use crate::ecs::dialect::call::{Context, Plan, members};
use crate::ecs::dialect::paging::page;
use crate::error::{ApiError, ErrorKind, FORWARD_EXTERNAL, FORWARD_NOT_FOUND};
use crate::model::{ForwardEntry, ForwardProtocol};
use serde_json::{Value, json};

const TABLE_NOT_FOUND: ErrorKind = ErrorKind { code: "InvalidForwardTableId.NotFound", status: 404 };
const INTERNAL_PORT: ErrorKind = ErrorKind { code: "InvalidInternalPort.Malformed", status: 400 };

/// The first port of what the call writes, which is one, a range, or any.
fn first_port(text: &str) -> Result<u16, ApiError> {
    if text.eq_ignore_ascii_case("any") {
        return Ok(1);
    }
    let first = text.split(['/', '-']).next().and_then(|port| port.parse().ok()).filter(|port| *port > 0);
    first.ok_or_else(|| INTERNAL_PORT.error("write a port, a range such as 10-20, or any.").field("InternalPort"))
}

/// How many ports a text names; none if it is none.
fn port_count(text: &str) -> Option<u32> {
    if text.eq_ignore_ascii_case("any") {
        return Some(u32::from(u16::MAX));
    }
    let (first, last) = text.split_once(['/', '-']).unwrap_or((text, text));
    let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
    last.checked_sub(first).map(|more| more + 1)
}

/// Refuses private ports that are not as many as the external ones.
fn check_counts(external: &str, internal: &str) -> Result<(), ApiError> {
    match (port_count(external), port_count(internal)) {
        // What is no port at all is refused with the port itself.
        (Some(external), Some(internal)) if external != internal => {
            Err(INTERNAL_PORT.error("there are not as many as external ones.").field("InternalPort"))
        }
        _ => Ok(()),
    }
}

/// Refuses an external address that the gateway does not have.
fn check_external(context: &Context<'_>, nat: &str, external: &str) -> Result<(), ApiError> {
    let mut own = context.scope.eips().filter(|(_, eip)| eip.nat() == Some(nat));
    match own.any(|(_, eip)| eip.address.to_string() == external) {
        true => Ok(()),
        false => Err(FORWARD_EXTERNAL.error("it is no address of the gateway.").field("ExternalIp")),
    }
}

pub(in crate::ecs) fn create(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let text = |name: &str| parameters.owned(name).unwrap_or_default();
    let (nat_id, nat) = named_table(context, "ForwardTableId", forward_table, TABLE_NOT_FOUND)?;
    check_external(context, nat_id, &text("ExternalIp"))?;
    check_counts(&text("ExternalPort"), &text("InternalPort"))?;
    let id = context.environment.new_id("fwd");
    let add = ForwardAdd {
        id: Some(id.clone()),
        vpc: nat.vpc.to_string(),
        external: parameters.owned("ExternalIp"),
        protocol: parameters.owned("IpProtocol"),
        ports: text("ExternalPort"),
        to: text("InternalIp"),
        to_port: Some(first_port(&text("InternalPort"))?),
        name: parameters.owned("ForwardEntryName"),
    };
    Ok(context.change(vec![Command::ForwardAdd(add)], Box::new(move |_| members(json!({"ForwardEntryId": id})))))
}

/// The forward that the call names, in the table that it names.
fn named<'a>(context: &Context<'a>) -> Result<(&'a String, &'a ForwardEntry), ApiError> {
    let (nat, _) = named_table(context, "ForwardTableId", forward_table, TABLE_NOT_FOUND)?;
    let id = context.parameters().text("ForwardEntryId").unwrap_or_default();
    let found = context.scope.forwards().find(|(forward, it)| *forward == id && it.nat.as_deref() == Some(nat));
    found.ok_or_else(|| FORWARD_NOT_FOUND.error("there is none of that name.").field("ForwardEntryId"))
}

pub(in crate::ecs) fn modify(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let (id, forward) = named(context)?;
    if let (Some(external), Some(nat)) = (parameters.text("ExternalIp"), &forward.nat) {
        check_external(context, nat, external)?;
    }
    let external = parameters.owned("ExternalPort").unwrap_or_else(|| forward.ports_text());
    let internal = parameters.owned("InternalPort").unwrap_or_else(|| forward.private_ports_text());
    check_counts(&external, &internal)?;
    let modify = ForwardModify {
        forward: id.clone(),
        external: parameters.owned("ExternalIp"),
        protocol: parameters.owned("IpProtocol"),
        ports: parameters.owned("ExternalPort"),
        to: parameters.owned("InternalIp"),
        to_port: parameters.text("InternalPort").map(first_port).transpose()?,
        name: parameters.given("ForwardEntryName").map(str::to_owned),
    };
    Ok(context.quiet_change(vec![Command::ForwardModify(modify)]))
}

pub(in crate::ecs) fn delete(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (id, _) = named(context)?;
    Ok(context.quiet_change(vec![Command::ForwardRemove(ForwardRemove { forward: id.clone() })]))
}

fn protocol(forward: &ForwardEntry) -> &'static str {
    match forward.protocol {
        ForwardProtocol::Tcp => "tcp",
        ForwardProtocol::Udp => "udp",
        ForwardProtocol::Any => "any",
    }
}

/// Ports as the API writes them.
fn ports(text: String) -> String {
    if text == "any" { "Any".into() } else { text.replace('-', "/") }
}

pub(in crate::ecs) fn describe(context: &Context<'_>) -> Result<Plan, ApiError> {
    if context.parameters().has("ForwardTableId") {
        named_table(context, "ForwardTableId", forward_table, TABLE_NOT_FOUND)?;
    }
    let wanted_protocol = context.parameters().text("IpProtocol");
    // Those of the uplink's own address are in no table.
    let of_gateways = context.scope.forwards().filter_map(|(id, it)| Some((id, it, it.nat.as_deref()?)));
    let entries = of_gateways.filter_map(|(id, forward, nat)| {
        let (table, external, internal) =
            (forward_table(nat), forward.external.to_string(), forward.private.to_string());
        let (external_port, internal_port) = (ports(forward.ports_text()), ports(forward.private_ports_text()));
        let is_wanted = asks_for(context, "ForwardTableId", &table)
            && asks_for(context, "NatGatewayId", nat)
            && asks_for(context, "ForwardEntryId", id)
            && asks_for(context, "ForwardEntryName", &forward.name)
            && asks_for(context, "ExternalIp", &external)
            && asks_for(context, "ExternalPort", &external_port)
            && asks_for(context, "InternalIp", &internal)
            && asks_for(context, "InternalPort", &internal_port)
            && wanted_protocol.is_none_or(|wanted| wanted.eq_ignore_ascii_case(protocol(forward)));
        let value = json!({
            "ForwardEntryId": id, "ForwardEntryName": forward.name, "ForwardTableId": table, "NatGatewayId": nat,
            "ExternalIp": external, "ExternalPort": external_port, "IpProtocol": protocol(forward),
            "InternalIp": internal, "InternalPort": internal_port, "Status": "Available",
        });
        is_wanted.then(|| (id.clone(), value))
    });
    let entries: Vec<(String, Value)> = entries.collect();
    let page = page(context, entries, true)?;
    let mut answer = page.about;
    answer.insert("ForwardTableEntries".into(), json!({ "ForwardTableEntry": page.entries }));
    Ok(Plan::Answer(answer))
}
