//! The caller's account: who it is, and its resource groups.

use crate::ecs::dialect::call::{Context, Plan, RESOURCE_GROUP_NOT_FOUND};
use crate::ecs::dialect::paging::page;
use crate::ecs::dialect::settings::DEFAULT_RESOURCE_GROUP;
use crate::error::ApiError;
use crate::model::timestamp;
use serde_json::{Value, json};

pub(in crate::ecs) fn caller_identity(context: &Context<'_>) -> Result<Plan, ApiError> {
    let account = &context.call.account;
    Ok(Plan::answer(json!({
        "AccountId": account,
        "UserId": account,
        "PrincipalId": account,
        "IdentityType": "Account",
        "Arn": format!("acs:ram::{account}:root"),
    })))
}

/// The caller's resource groups by identifier, each with its name: the default one first, then those of the
/// configuration.
fn groups<'a>(context: &Context<'a>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let configured = context.settings.resource_groups.iter().map(|(id, name)| (id.as_str(), name.as_str()));
    let is_named = context.settings.resource_groups.contains_key(DEFAULT_RESOURCE_GROUP);
    (!is_named).then_some((DEFAULT_RESOURCE_GROUP, "default")).into_iter().chain(configured)
}

fn group_json(context: &Context<'_>, (id, name): (&str, &str)) -> Value {
    json!({
        "Id": id,
        "Name": name,
        "DisplayName": name,
        "Status": "OK",
        "AccountId": context.call.account,
        "CreateDate": timestamp(0),
    })
}

pub(in crate::ecs) fn list_resource_groups(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let ids = parameters.list("ResourceGroupIds")?;
    let is_asked = |name: &str, value: &str| parameters.text(name).is_none_or(|wanted| wanted == value);
    let wanted = groups(context).filter(|(id, name)| {
        is_asked("ResourceGroupId", id)
            && is_asked("Name", name)
            && is_asked("DisplayName", name)
            && is_asked("Status", "OK")
            && (ids.is_empty() || ids.iter().any(|wanted| wanted == id))
    });
    let entries = wanted.map(|group| (group.0.to_owned(), group_json(context, group))).collect();
    let page = page(context, entries, false)?;
    let mut answer = page.about;
    answer.insert("ResourceGroups".into(), json!({ "ResourceGroup": page.entries }));
    Ok(Plan::Answer(answer))
}

pub(in crate::ecs) fn resource_group(context: &Context<'_>) -> Result<Plan, ApiError> {
    let id = context.parameters().text("ResourceGroupId").unwrap_or_default();
    let group = groups(context).find(|(known, _)| *known == id);
    let group = group.ok_or_else(|| RESOURCE_GROUP_NOT_FOUND.error("see ListResourceGroups.").field("ResourceGroupId"));
    Ok(Plan::answer(json!({"ResourceGroup": group_json(context, group?)})))
}
