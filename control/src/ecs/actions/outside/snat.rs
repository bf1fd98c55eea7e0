//! Entries for sources (SNAT) of NAT gateways.

use super::{asks_for, named_table, snat_table};
use crate::command::{Command, SnatAdd, SnatModify, SnatRemove};
use crate::ecs::dialect::call::{Context, Plan, members};
use crate::ecs::dialect::paging::page;
use crate::ecs::dialect::scope::Access;
use crate::ecs::dialect::validate::missing;
use crate::error::{ApiError, ErrorKind, SNAT_NOT_FOUND};
use serde_json::json;

const TABLE_NOT_FOUND: ErrorKind = ErrorKind { code: "InvalidSnatTableId.NotFound", status: 404 };

/// External addresses as the call lists them, separated by commas.
fn addresses(text: Option<&str>) -> Vec<String> {
    let texts = text.into_iter().flat_map(|text| text.split(','));
    texts.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect()
}

pub(in crate::ecs) fn create(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let (nat, _) = named_table(context, "SnatTableId", snat_table, TABLE_NOT_FOUND)?;
    let addresses = addresses(parameters.text("SnatIp"));
    if addresses.is_empty() {
        return Err(missing(context.call.action.schema(), "SnatIp"));
    }
    let (vswitch, cidr) = (parameters.owned("SourceVSwitchId"), parameters.owned("SourceCIDR"));
    match (&vswitch, &cidr) {
        (None, None) => return Err(missing(context.call.action.schema(), "SourceVSwitchId")),
        (Some(_), Some(_)) => return context.refuse("SourceCIDR", "give a vSwitch or a block, not both"),
        (Some(vswitch), None) => drop(context.scope.vswitch(vswitch, Access::Own)?),
        (None, Some(_)) => {}
    }
    let id = context.environment.new_id("snat");
    let name = parameters.owned("SnatEntryName");
    let add = SnatAdd { id: Some(id.clone()), nat: nat.clone(), vswitch, cidr, addresses, name };
    let mut commands = vec![Command::SnatAdd(add)];
    commands.extend(context.note_attributes(&id));
    Ok(context.change(commands, Box::new(move |_| members(json!({"SnatEntryId": id})))))
}

/// The entry that the call names, in the table that it names.
fn named(context: &Context<'_>) -> Result<String, ApiError> {
    let (nat, _) = named_table(context, "SnatTableId", snat_table, TABLE_NOT_FOUND)?;
    let id = context.parameters().owned("SnatEntryId").unwrap_or_default();
    match context.scope.snat_entries().any(|(entry, content)| *entry == id && content.nat == *nat) {
        true => Ok(id),
        false => Err(SNAT_NOT_FOUND.error("there is none of that name.").field("SnatEntryId")),
    }
}

pub(in crate::ecs) fn modify(context: &Context<'_>) -> Result<Plan, ApiError> {
    let snat = named(context)?;
    let addresses = Some(addresses(context.parameters().text("SnatIp"))).filter(|addresses| !addresses.is_empty());
    let name = context.parameters().given("SnatEntryName").map(str::to_owned);
    let noted = context.note_attributes(&snat);
    let modify = Command::SnatModify(SnatModify { snat, addresses, name });
    Ok(context.quiet_change([modify].into_iter().chain(noted).collect()))
}

pub(in crate::ecs) fn delete(context: &Context<'_>) -> Result<Plan, ApiError> {
    let snat = named(context)?;
    Ok(context.quiet_change(vec![Command::SnatRemove(SnatRemove { snat })]))
}

pub(in crate::ecs) fn describe(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    if parameters.has("SnatTableId") {
        named_table(context, "SnatTableId", snat_table, TABLE_NOT_FOUND)?;
    }
    let mut entries = Vec::new();
    for (id, entry) in context.scope.snat_entries() {
        let table = snat_table(&entry.nat);
        let vswitch = entry.vswitch.as_ref().map(ToString::to_string).unwrap_or_default();
        let addresses: Vec<String> = entry.addresses.iter().map(ToString::to_string).collect();
        let addresses = addresses.join(",");
        let wanted = asks_for(context, "SnatTableId", &table)
            && asks_for(context, "NatGatewayId", &entry.nat)
            && asks_for(context, "SnatEntryId", id)
            && asks_for(context, "SnatEntryName", &entry.name)
            && asks_for(context, "SnatIp", &addresses)
            && asks_for(context, "SourceVSwitchId", &vswitch)
            && asks_for(context, "SourceCIDR", &entry.source.to_string())
            && parameters.list("NetworkInterfaceIds")?.is_empty();
        let affinity = context.scope.label(id).attribute("EipAffinity");
        if wanted {
            let value = json!({
                "SnatEntryId": id, "SnatEntryName": entry.name, "SnatTableId": table, "NatGatewayId": entry.nat,
                "SnatIp": addresses, "SourceVSwitchId": vswitch, "SourceCIDR": entry.source, "Status": "Available",
                "EipAffinity": if affinity.is_empty() { "0" } else { affinity },
            });
            entries.push((id.clone(), value));
        }
    }
    let page = page(context, entries, true)?;
    let mut answer = page.about;
    answer.insert("SnatTableEntries".into(), json!({ "SnatTableEntry": page.entries }));
    Ok(Plan::Answer(answer))
}
