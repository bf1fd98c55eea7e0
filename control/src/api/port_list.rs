//! Port lists. Their answers hold plain lists, without an object around them.

use super::desk::{Desk, Plan, members};
use super::paging::page;
use super::parameters::Parameters;
use crate::command::{Command, PortListCreate, PortListDelete, PortListEntry, PortListModify};
use crate::error::{ApiError, MISSING_PARAMETER};
use crate::model::{PortList, timestamp};
use serde_json::{Value, json};
use vswitch_core::ids::PortListId;

pub(super) fn create(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let parameters = desk.parameters();
    let id = desk.environment.new_id("prl");
    let label = desk.new_label(&id, None)?;
    let create = PortListCreate {
        id: Some(id.clone()),
        name: parameters.owned("PortRangeListName").unwrap_or_default(),
        description: parameters.owned("Description"),
        max_entries: parameters.count("MaxEntries")?.unwrap_or(0),
        entries: entries(parameters, "Entry")?,
    };
    let commands = [Command::PortListCreate(create)].into_iter().chain(label).collect();
    Ok(desk.change(commands, Box::new(move |_| members(json!({"PortRangeListId": id})))))
}

fn entries(parameters: &Parameters, name: &str) -> Result<Vec<PortListEntry>, ApiError> {
    let entry = |(_, fields): (u32, Parameters)| PortListEntry {
        ports: fields.owned("PortRange").unwrap_or_default(),
        description: fields.owned("Description"),
    };
    Ok(parameters.objects(name)?.into_iter().map(entry).collect())
}

pub(super) fn modify(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let parameters = desk.parameters();
    let modify = PortListModify {
        port_list: parameters.owned("PortRangeListId").unwrap_or_default(),
        name: parameters.owned("PortRangeListName"),
        description: parameters.owned("Description"),
        add: entries(parameters, "AddEntry")?,
        remove: entries(parameters, "RemoveEntry")?.into_iter().map(|entry| entry.ports).collect(),
    };
    let says_nothing =
        modify.name.is_none() && modify.description.is_none() && modify.add.is_empty() && modify.remove.is_empty();
    if says_nothing {
        let message = "one of PortRangeListName, Description, AddEntry and RemoveEntry has to be given.";
        return Err(MISSING_PARAMETER.error(message).field("AddEntry"));
    }
    desk.port_list(&modify.port_list)?;
    Ok(desk.quiet_change(vec![Command::PortListModify(modify)]))
}

pub(super) fn delete(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let (id, _) = named(desk)?;
    let delete = PortListDelete { port_list: id.to_string() };
    Ok(desk.quiet_change(vec![Command::PortListDelete(delete)]))
}

fn named<'a>(desk: &Desk<'a>) -> Result<(PortListId, &'a PortList), ApiError> {
    desk.port_list(desk.parameters().text("PortRangeListId").unwrap_or_default())
}

/// The groups of a list's rules.
fn groups(desk: &Desk<'_>, id: &PortListId) -> Vec<String> {
    let naming = desk.model.rules.iter().filter(|(_, rules)| rules.values().any(|rule| rule.names_port_list(id)));
    naming.map(|(group, _)| group.to_string()).collect()
}

pub(super) fn describe(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let parameters = desk.parameters();
    let ids = parameters.list("PortRangeListId")?;
    let mut entries = Vec::new();
    for (id, list) in desk.model.port_lists.iter().filter(|(id, _)| desk.owns(id.as_str())) {
        let wanted = (ids.is_empty() || ids.iter().any(|wanted| wanted == id.as_str()))
            && parameters.text("PortRangeListName").is_none_or(|name| name == list.name)
            && desk.has_resource_group(id.as_str())
            && desk.has_tags(id.as_str())?;
        if wanted {
            let value = json!({
                "PortRangeListId": id,
                "PortRangeListName": list.name,
                "Description": list.description,
                "MaxEntries": list.max_entries,
                "AssociationCount": groups(desk, id).len(),
                "CreationTime": timestamp(list.created_s),
                "ResourceGroupId": desk.label(id.as_str()).resource_group,
                "Tags": desk.tags_of(id.as_str()),
            });
            entries.push((id.to_string(), value));
        }
    }
    let page = page(desk, entries, true)?;
    let mut answer = page.about;
    answer.insert("PortRangeLists".into(), json!(page.entries));
    Ok(Plan::Answer(answer))
}

pub(super) fn describe_entries(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let (_, list) = named(desk)?;
    let entry = |item: &crate::model::PortListItem| json!({"PortRange": item.ports.to_string(), "Description": item.description});
    let entries: Vec<Value> = list.entries.iter().map(entry).collect();
    Ok(Plan::answer(json!({ "Entries": entries })))
}

pub(super) fn describe_associations(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    let (id, _) = named(desk)?;
    let entry = |group: String| (group.clone(), json!({"ResourceId": group, "ResourceType": "securitygroup"}));
    let page = page(desk, groups(desk, &id).into_iter().map(entry).collect(), false)?;
    let mut answer = page.about;
    answer.insert("PortRangeListAssociations".into(), json!(page.entries));
    Ok(Plan::Answer(answer))
}
