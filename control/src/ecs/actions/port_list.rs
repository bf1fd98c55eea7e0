//! Port lists. Their answers hold plain lists, without an object around them.

use crate::command::{Command, PortListCreate, PortListDelete, PortListEntry, PortListModify};
use crate::ecs::dialect::call::{Context, Plan, members};
use crate::ecs::dialect::paging::page;
use crate::ecs::dialect::parameters::Parameters;
use crate::error::{ApiError, MISSING_PARAMETER};
use crate::model::{PortList, timestamp};
use serde_json::{Value, json};
use vswitch_core::config::ids::PortListId;

pub(in crate::ecs) fn create(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let id = context.environment.new_id("prl");
    let label = context.new_label(&id, None)?;
    let create = PortListCreate {
        id: Some(id.clone()),
        name: parameters.owned("PortRangeListName").unwrap_or_default(),
        description: parameters.owned("Description"),
        max_entries: parameters.count("MaxEntries")?.unwrap_or(0),
        entries: entries(parameters, "Entry")?,
    };
    let commands = [Command::PortListCreate(create)].into_iter().chain(label).collect();
    Ok(context.change(commands, Box::new(move |_| members(json!({"PortRangeListId": id})))))
}

fn entries(parameters: &Parameters, name: &str) -> Result<Vec<PortListEntry>, ApiError> {
    let entry = |(_, fields): (u32, Parameters)| PortListEntry {
        ports: fields.owned("PortRange").unwrap_or_default(),
        description: fields.owned("Description"),
    };
    Ok(parameters.objects(name)?.into_iter().map(entry).collect())
}

pub(in crate::ecs) fn modify(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
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
    context.scope.port_list(&modify.port_list)?;
    Ok(context.quiet_change(vec![Command::PortListModify(modify)]))
}

pub(in crate::ecs) fn delete(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (id, _) = named(context)?;
    let delete = PortListDelete { port_list: id.to_string() };
    Ok(context.quiet_change(vec![Command::PortListDelete(delete)]))
}

fn named<'a>(context: &Context<'a>) -> Result<(PortListId, &'a PortList), ApiError> {
    context.scope.port_list(context.parameters().text("PortRangeListId").unwrap_or_default())
}

/// The caller's groups whose rules name a list.
fn groups(context: &Context<'_>, id: &PortListId) -> Vec<String> {
    context.scope.groups_with(|rule| rule.names_port_list(id)).map(ToString::to_string).collect()
}

pub(in crate::ecs) fn describe(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let ids = parameters.list("PortRangeListId")?;
    let mut entries = Vec::new();
    for (id, list) in context.scope.port_lists() {
        let wanted = (ids.is_empty() || ids.iter().any(|wanted| wanted == id.as_str()))
            && parameters.text("PortRangeListName").is_none_or(|name| name == list.name)
            && context.has_resource_group(id.as_str())
            && context.has_tags(id.as_str())?;
        if wanted {
            let value = json!({
                "PortRangeListId": id,
                "PortRangeListName": list.name,
                "Description": list.description,
                "MaxEntries": list.max_entries,
                "AssociationCount": groups(context, id).len(),
                "CreationTime": timestamp(list.created_s),
                "ResourceGroupId": context.scope.resource_group_of(id.as_str()),
                "Tags": context.tags_of(id.as_str()),
            });
            entries.push((id.to_string(), value));
        }
    }
    let page = page(context, entries, true)?;
    let mut answer = page.about;
    answer.insert("PortRangeLists".into(), json!(page.entries));
    Ok(Plan::Answer(answer))
}

pub(in crate::ecs) fn describe_entries(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (_, list) = named(context)?;
    let entry = |item: &crate::model::PortListItem| json!({"PortRange": item.ports.to_string(), "Description": item.description});
    let entries: Vec<Value> = list.entries.iter().map(entry).collect();
    Ok(Plan::answer(json!({ "Entries": entries })))
}

pub(in crate::ecs) fn describe_associations(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (id, _) = named(context)?;
    let entry = |group: String| (group.clone(), json!({"ResourceId": group, "ResourceType": "securitygroup"}));
    let page = page(context, groups(context, &id).into_iter().map(entry).collect(), false)?;
    let mut answer = page.about;
    answer.insert("PortRangeListAssociations".into(), json!(page.entries));
    Ok(Plan::Answer(answer))
}
