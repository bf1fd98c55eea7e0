//! Queries about tags.

use crate::ecs::actions::tag::{Tagged, kind, objects};
use crate::ecs::dialect::call::{Context, Plan};
use crate::ecs::dialect::paging::page;
use crate::error::ApiError;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub(in crate::ecs) fn list(context: &Context<'_>) -> Result<Plan, ApiError> {
    let kind = kind(context)?;
    let parameters = context.parameters();
    let ids = parameters.list("ResourceId")?;
    let filters = parameters.objects("TagFilter")?;
    let mut entries = Vec::new();
    for Tagged { kind: object_kind, name, id } in objects(context) {
        let named = ids.is_empty() || ids.iter().any(|wanted| wanted == name);
        if Some(object_kind) != kind.as_deref() || !named || !context.has_tags(id)? {
            continue;
        }
        let tags = &context.scope.label(id).tags;
        let mut passes = true;
        for (_, filter) in &filters {
            let values = filter.list("TagValues")?;
            let found = filter.text("TagKey").and_then(|key| tags.get(key));
            passes &= found.is_some_and(|value| values.is_empty() || values.contains(value));
        }
        for (key, value) in tags.iter().filter(|_| passes) {
            let entry = json!({"ResourceId": name, "ResourceType": object_kind, "TagKey": key, "TagValue": value});
            entries.push((format!("{id} {key}"), entry));
        }
    }
    let page = page(context, entries, false)?;
    let mut answer = page.about;
    answer.insert("TagResources".into(), json!({ "TagResource": page.entries }));
    Ok(Plan::Answer(answer))
}

pub(in crate::ecs) fn describe_tags(context: &Context<'_>) -> Result<Plan, ApiError> {
    let kind = kind(context)?;
    let parameters = context.parameters();
    let id_asked = parameters.text("ResourceId");
    let wanted = context.parameters().objects("Tag")?;
    // All tags here are custom ones.
    let is_custom = parameters.text("Category").is_none_or(|category| !category.eq_ignore_ascii_case("system"));
    let mut counts: BTreeMap<(&str, &str), BTreeMap<&str, u64>> = BTreeMap::new();
    for Tagged { kind: object_kind, name, id } in objects(context) {
        let is_asked = is_custom
            && kind.as_deref().is_none_or(|kind| kind == object_kind)
            && id_asked.is_none_or(|asked| asked == name);
        for (key, value) in context.scope.label(id).tags.iter().filter(|_| is_asked) {
            let fits = wanted.is_empty()
                || wanted.iter().any(|(_, tag)| {
                    tag.text("Key").is_none_or(|wanted| wanted == key)
                        && tag.text("Value").is_none_or(|wanted| wanted == value)
                });
            if fits {
                *counts.entry((key, value)).or_default().entry(object_kind).or_default() += 1;
            }
        }
    }
    let entry = |((key, value), counts): ((&str, &str), BTreeMap<&str, u64>)| {
        let counted: Map<String, Value> = counts
            .into_iter()
            .filter_map(|(kind, count)| {
                let name = match kind {
                    "instance" => "Instance",
                    "securitygroup" => "Securitygroup",
                    "eni" => "Eni",
                    "disk" => "Disk",
                    "keypair" => "KeyPair",
                    _ => return None,
                };
                Some((name.to_owned(), json!(count)))
            })
            .collect();
        (format!("{key} {value}"), json!({"TagKey": key, "TagValue": value, "ResourceTypeCount": counted}))
    };
    let page = page(context, counts.into_iter().map(entry).collect(), false)?;
    let mut answer = page.about;
    answer.insert("Tags".into(), json!({ "Tag": page.entries }));
    Ok(Plan::Answer(answer))
}

pub(in crate::ecs) fn describe_resources(context: &Context<'_>) -> Result<Plan, ApiError> {
    let kind = kind(context)?;
    let mut entries = Vec::new();
    for Tagged { kind: object_kind, name, id } in objects(context) {
        let is_asked = kind.as_deref().is_none_or(|kind| kind == object_kind);
        if is_asked && !context.scope.label(id).tags.is_empty() && context.has_tags(id)? {
            let entry =
                json!({"ResourceId": name, "ResourceType": object_kind, "RegionId": context.scope.region_of(id)});
            entries.push((id.to_owned(), entry));
        }
    }
    let page = page(context, entries, false)?;
    let mut answer = page.about;
    answer.insert("Resources".into(), json!({ "Resource": page.entries }));
    Ok(Plan::Answer(answer))
}
