//! Prefix lists.

use crate::command::{Command, PrefixListCreate, PrefixListDelete, PrefixListEntry, PrefixListModify};
use crate::ecs::dialect::call::{Context, Plan, members};
use crate::ecs::dialect::paging::page;
use crate::ecs::dialect::parameters::Parameters;
use crate::error::{ApiError, MISSING_PARAMETER};
use crate::model::{PrefixList, timestamp};
use serde_json::{Value, json};
use vswitch_core::config::ids::PrefixListId;

pub(in crate::ecs) fn create(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let id = context.environment.new_id("pl");
    let label = context.new_label(&id, None)?;
    let create = PrefixListCreate {
        id: Some(id.clone()),
        name: parameters.owned("PrefixListName").unwrap_or_default(),
        description: parameters.owned("Description"),
        family: parameters.owned("AddressFamily").unwrap_or_default(),
        max_entries: parameters.count("MaxEntries")?.unwrap_or(0),
        entries: entries(parameters, "Entry")?,
    };
    let commands = [Command::PrefixListCreate(create)].into_iter().chain(label).collect();
    Ok(context.change(commands, Box::new(move |_| members(json!({"PrefixListId": id})))))
}

fn entries(parameters: &Parameters, name: &str) -> Result<Vec<PrefixListEntry>, ApiError> {
    let entry = |(_, fields): (u32, Parameters)| PrefixListEntry {
        cidr: fields.owned("Cidr").unwrap_or_default(),
        description: fields.owned("Description"),
    };
    Ok(parameters.objects(name)?.into_iter().map(entry).collect())
}

pub(in crate::ecs) fn modify(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let modify = PrefixListModify {
        prefix_list: parameters.owned("PrefixListId").unwrap_or_default(),
        name: parameters.owned("PrefixListName"),
        description: parameters.owned("Description"),
        add: entries(parameters, "AddEntry")?,
        remove: entries(parameters, "RemoveEntry")?.into_iter().map(|entry| entry.cidr).collect(),
    };
    let says_nothing =
        modify.name.is_none() && modify.description.is_none() && modify.add.is_empty() && modify.remove.is_empty();
    if says_nothing {
        let message = "one of PrefixListName, Description, AddEntry and RemoveEntry has to be given.";
        return Err(MISSING_PARAMETER.error(message).field("AddEntry"));
    }
    context.scope.prefix_list(&modify.prefix_list)?;
    Ok(context.quiet_change(vec![Command::PrefixListModify(modify)]))
}

pub(in crate::ecs) fn delete(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (id, _) = named(context)?;
    let delete = PrefixListDelete { prefix_list: id.to_string() };
    Ok(context.quiet_change(vec![Command::PrefixListDelete(delete)]))
}

fn named<'a>(context: &Context<'a>) -> Result<(PrefixListId, &'a PrefixList), ApiError> {
    context.scope.prefix_list(context.parameters().text("PrefixListId").unwrap_or_default())
}

/// The caller's groups whose rules name a list.
fn groups(context: &Context<'_>, id: &PrefixListId) -> Vec<String> {
    context.scope.groups_with(|rule| rule.names_prefix_list(id)).map(ToString::to_string).collect()
}

fn family(list: &PrefixList) -> &'static str {
    if list.is_ipv6 { "IPv6" } else { "IPv4" }
}

pub(in crate::ecs) fn describe(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let ids = parameters.list("PrefixListId")?;
    let mut entries = Vec::new();
    for (id, list) in context.scope.prefix_lists() {
        let wanted = (ids.is_empty() || ids.iter().any(|wanted| wanted == id.as_str()))
            && parameters.text("PrefixListName").is_none_or(|name| name == list.name)
            && parameters.text("AddressFamily").is_none_or(|wanted| wanted.eq_ignore_ascii_case(family(list)))
            && context.has_resource_group(id.as_str())
            && context.has_tags(id.as_str())?;
        if wanted {
            let value = json!({
                "PrefixListId": id,
                "PrefixListName": list.name,
                "Description": list.description,
                "AddressFamily": family(list),
                "MaxEntries": list.max_entries,
                "AssociationCount": groups(context, id).len(),
                "CreationTime": timestamp(list.created_s),
                "ResourceGroupId": context.scope.resource_group_of(id.as_str()),
                "Tags": {"Tag": context.tags_of(id.as_str())},
            });
            entries.push((id.to_string(), value));
        }
    }
    let page = page(context, entries, true)?;
    let mut answer = page.about;
    answer.insert("PrefixLists".into(), json!({ "PrefixList": page.entries }));
    Ok(Plan::Answer(answer))
}

pub(in crate::ecs) fn describe_attributes(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (id, list) = named(context)?;
    let entries: Vec<Value> =
        list.entries.iter().map(|(cidr, description)| json!({"Cidr": cidr, "Description": description})).collect();
    Ok(Plan::answer(json!({
        "PrefixListId": id,
        "PrefixListName": list.name,
        "Description": list.description,
        "AddressFamily": family(list),
        "MaxEntries": list.max_entries,
        "CreationTime": timestamp(list.created_s),
        "Entries": {"Entry": entries},
    })))
}

pub(in crate::ecs) fn describe_associations(context: &Context<'_>) -> Result<Plan, ApiError> {
    let (id, _) = named(context)?;
    let entry = |group: String| (group.clone(), json!({"ResourceId": group, "ResourceType": "securitygroup"}));
    let page = page(context, groups(context, &id).into_iter().map(entry).collect(), false)?;
    let mut answer = page.about;
    answer.insert("PrefixListAssociations".into(), json!({ "PrefixListAssociation": page.entries }));
    Ok(Plan::Answer(answer))
}
