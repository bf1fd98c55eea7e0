//! Prefix lists (`semantics.md` §1.6).

use super::parse::{description, name, prefix, refuse_reserved_name};
use super::{Event, Model};
use crate::command::{PrefixListCreate, PrefixListDelete, PrefixListEntry, PrefixListModify};
use crate::environment::Environment;
use crate::error::{
    ApiError, INVALID_DESCRIPTION, LIST_MAX_ENTRIES, MISSING_PARAMETER, PREFIX_LIST_CIDR, PREFIX_LIST_CIDR_DUPLICATED,
    PREFIX_LIST_FAMILY, PREFIX_LIST_IN_USE, PREFIX_LIST_NAME, PREFIX_LIST_NOT_FOUND,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use vswitch_core::config::ids::{PrefixListId, quoted};

/// A named list of prefixes of one family. An empty one matches nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefixList {
    /// A name for people.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Whether it holds IPv6 prefixes.
    pub is_ipv6: bool,
    /// Room for this many entries, and its weight in quotas.
    pub max_entries: u32,
    /// The prefixes, each with a description.
    pub entries: BTreeMap<IpNet, String>,
    /// When it was made, seconds since 1970.
    pub created_s: u64,
}

impl Model {
    pub(crate) fn prefix_list(&self, id: &str) -> Result<(PrefixListId, &PrefixList), ApiError> {
        let id = PrefixListId::from(id);
        match self.prefix_lists.get(&id) {
            Some(list) => Ok((id, list)),
            None => {
                let message = format!("there is no prefix list {id}: see sluice prefix-list list");
                Err(PREFIX_LIST_NOT_FOUND.error(message).field("prefix_list").object(id))
            }
        }
    }

    pub(super) fn prefix_list_create(
        &self,
        create: &PrefixListCreate,
        environment: &Environment,
    ) -> Result<Vec<Event>, ApiError> {
        let taken = |id: &str| self.prefix_lists.contains_key(&id.into());
        let id = self.choose_id(create.id.as_deref(), "pl", environment, taken)?;
        let most = self.quotas.prefix_list_entries_max;
        if !(1..=most).contains(&create.max_entries) {
            let message = format!("{} entries: a prefix list has room for 1 to {most}", create.max_entries);
            return Err(LIST_MAX_ENTRIES.error(message).field("max_entries"));
        }
        let mut list = PrefixList {
            name: list_name(&create.name)?,
            description: description(create.description.as_deref(), 2, 256, INVALID_DESCRIPTION)?,
            is_ipv6: is_ipv6(&create.family)?,
            max_entries: create.max_entries,
            entries: BTreeMap::new(),
            created_s: environment.now_s,
        };
        list.add(&create.entries, "entries", BTreeSet::new())?;
        Ok(vec![Event::PrefixList(id.into(), Some(list))])
    }

    pub(super) fn prefix_list_modify(&self, modify: &PrefixListModify) -> Result<Vec<Event>, ApiError> {
        let (id, old) = self.prefix_list(&modify.prefix_list)?;
        let mut new = old.clone();
        if let Some(text) = &modify.name {
            new.name = list_name(text)?;
        }
        if let Some(text) = &modify.description {
            new.description = description(Some(text), 2, 256, INVALID_DESCRIPTION)?;
        }
        let mut gone = BTreeSet::new();
        for (place, text) in modify.remove.iter().enumerate() {
            let removed = entry(text, old.is_ipv6).map_err(|error| error.field(format!("remove[{place}]")))?;
            if !gone.insert(removed) {
                let message = format!("{removed} is named twice");
                return Err(PREFIX_LIST_CIDR_DUPLICATED.error(message).field(format!("remove[{place}]")).object(id));
            }
            if new.entries.remove(&removed).is_none() {
                let message = format!("{removed} is not an entry of {id}");
                return Err(PREFIX_LIST_CIDR.error(message).field(format!("remove[{place}]")).object(id));
            }
        }
        // What was removed counts as named: removing and adding an entry in one call is refused.
        new.add(&modify.add, "add", gone)?;
        Ok(if new == *old { vec![] } else { vec![Event::PrefixList(id, Some(new))] })
    }

    pub(super) fn prefix_list_delete(&self, delete: &PrefixListDelete) -> Result<Vec<Event>, ApiError> {
        let (id, _) = self.prefix_list(&delete.prefix_list)?;
        let names = self.rules.iter().find_map(|(group, rules)| {
            rules.iter().find(|(_, rule)| rule.names_prefix_list(&id)).map(|(rule, _)| (group, rule))
        });
        if let Some((group, rule)) = names {
            let message = format!("rule {rule} of {group} names {id}: revoke it first");
            return Err(PREFIX_LIST_IN_USE.error(message).object(id));
        }
        Ok(vec![Event::PrefixList(id, None)])
    }
}

impl PrefixList {
    /// Adds entries, or changes the descriptions of existing ones. `named` has those that the request has already
    /// named.
    fn add(&mut self, entries: &[PrefixListEntry], field: &str, mut named: BTreeSet<IpNet>) -> Result<(), ApiError> {
        for (place, wanted) in entries.iter().enumerate() {
            let within = format!("{field}[{place}]");
            let added = entry(&wanted.cidr, self.is_ipv6).map_err(|error| error.within(&within))?;
            let text = description(wanted.description.as_deref(), 2, 32, INVALID_DESCRIPTION)
                .map_err(|error| error.within(&within))?;
            if !named.insert(added) {
                let message = format!("{added} is named twice");
                return Err(PREFIX_LIST_CIDR_DUPLICATED.error(message).field(format!("{within}.cidr")));
            }
            self.entries.insert(added, text);
        }
        // The room is checked at the end, because changed descriptions add no entry.
        if self.entries.len() > self.max_entries as usize {
            let message = format!(
                "the list would have {} entries and has room for {}: make a larger list",
                self.entries.len(),
                self.max_entries
            );
            return Err(LIST_MAX_ENTRIES.error(message).field(field));
        }
        Ok(())
    }
}

fn entry(text: &str, is_ipv6: bool) -> Result<IpNet, ApiError> {
    let malformed = |message: String| PREFIX_LIST_CIDR.error(message).field("cidr");
    let cidr = prefix(text)
        .ok_or_else(|| malformed(format!("{text} is not a prefix: write one like 10.0.0.0/8", text = quoted(text))))?;
    if cidr.trunc() != cidr {
        return Err(malformed(format!("{text} has host bits set: write {}", cidr.trunc())));
    }
    if matches!(cidr, IpNet::V6(_)) != is_ipv6 {
        let family = if is_ipv6 { "IPv6" } else { "IPv4" };
        return Err(malformed(format!("{text} is of the other family: this is an {family} list")));
    }
    Ok(cidr)
}

fn list_name(text: &str) -> Result<String, ApiError> {
    if text.is_empty() {
        return Err(MISSING_PARAMETER.error("a prefix list needs a name").field("name"));
    }
    refuse_reserved_name(text, PREFIX_LIST_NAME)?;
    name(Some(text), PREFIX_LIST_NAME)
}

fn is_ipv6(family: &str) -> Result<bool, ApiError> {
    match family.to_ascii_lowercase().as_str() {
        "ipv4" => Ok(false),
        "ipv6" => Ok(true),
        _ => {
            let message = format!("{family} is not an address family: write ipv4 or ipv6", family = quoted(family));
            Err(PREFIX_LIST_FAMILY.error(message).field("family"))
        }
    }
}
