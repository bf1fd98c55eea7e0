//! Port lists (`semantics.md` §1.7).

use super::parse::{description, name, refuse_reserved_name};
use super::rule::port_range;
use super::{Event, Model};
use crate::command::{PortListCreate, PortListDelete, PortListEntry, PortListModify};
use crate::environment::Environment;
use crate::error::{
    ApiError, INVALID_DESCRIPTION, LIST_ENTRIES, LIST_MAX_ENTRIES, MISSING_PARAMETER, PORT_LIST_IN_USE,
    PORT_LIST_MAX_ENTRIES, PORT_LIST_NAME, PORT_LIST_NOT_FOUND, PORT_LIST_RANGE, PORT_LIST_RANGE_DUPLICATED,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use vswitch_core::config::desired::PortRange;
use vswitch_core::config::ids::{PortListId, quoted};

/// A named list of destination port ranges. An empty one matches nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortList {
    /// A name for people.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Room for this many entries, and its weight in quotas.
    pub max_entries: u32,
    /// The ranges, sorted.
    pub entries: Vec<PortListItem>,
    /// When it was made, seconds since 1970.
    pub created_s: u64,
}

/// One range of a port list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortListItem {
    /// The range.
    pub ports: PortRange,
    /// What it is for.
    pub description: String,
}

impl Model {
    pub(crate) fn port_list(&self, id: &str) -> Result<(PortListId, &PortList), ApiError> {
        let id = PortListId::from(id);
        match self.port_lists.get(&id) {
            Some(list) => Ok((id, list)),
            None => {
                let message = format!("there is no port list {id}: see sluice port-list list");
                Err(PORT_LIST_NOT_FOUND.error(message).field("port_list").object(id))
            }
        }
    }

    pub(super) fn port_list_create(
        &self,
        create: &PortListCreate,
        environment: &Environment,
    ) -> Result<Vec<Event>, ApiError> {
        let taken = |id: &str| self.port_lists.contains_key(&id.into());
        let id = self.choose_id(create.id.as_deref(), "prl", environment, taken)?;
        let most = self.quotas.port_list_entries_max;
        if !(1..=most).contains(&create.max_entries) {
            let message = format!("{} entries: a port list has room for 1 to {most}", create.max_entries);
            return Err(PORT_LIST_MAX_ENTRIES.error(message).field("max_entries"));
        }
        self.refuse_many_entries(create.entries.len(), "entries")?;
        let mut list = PortList {
            name: list_name(&create.name)?,
            description: description(create.description.as_deref(), 2, 256, INVALID_DESCRIPTION)?,
            max_entries: create.max_entries,
            entries: Vec::new(),
            created_s: environment.now_s,
        };
        list.add(&create.entries, "entries", BTreeSet::new())?;
        Ok(vec![Event::PortList(id.into(), Some(list))])
    }

    pub(super) fn port_list_modify(&self, modify: &PortListModify) -> Result<Vec<Event>, ApiError> {
        let (id, old) = self.port_list(&modify.port_list)?;
        let mut new = old.clone();
        if let Some(text) = &modify.name {
            new.name = list_name(text)?;
        }
        if let Some(text) = &modify.description {
            new.description = description(Some(text), 2, 256, INVALID_DESCRIPTION)?;
        }
        // The counts come first: each removal searches the whole list.
        self.refuse_many_entries(modify.remove.len(), "remove")?;
        self.refuse_many_entries(modify.add.len(), "add")?;
        // A range that is both removed and added is refused as named twice, since it would be unclear which comes
        // first.
        let mut gone = BTreeSet::new();
        for (place, text) in modify.remove.iter().enumerate() {
            let field = format!("remove[{place}]");
            let removed = range(text).map_err(|error| error.field(&field))?;
            if !gone.insert(removed) {
                let message = format!("{removed} is named twice");
                return Err(PORT_LIST_RANGE_DUPLICATED.error(message).field(field).object(id));
            }
            let Some(found) = new.entries.iter().position(|item| item.ports == removed) else {
                let message = format!("{removed} is not an entry of {id}");
                return Err(PORT_LIST_RANGE.error(message).field(field).object(id));
            };
            new.entries.remove(found);
        }
        new.add(&modify.add, "add", gone)?;
        Ok(if new == *old { vec![] } else { vec![Event::PortList(id, Some(new))] })
    }

    pub(super) fn port_list_delete(&self, delete: &PortListDelete) -> Result<Vec<Event>, ApiError> {
        let (id, _) = self.port_list(&delete.port_list)?;
        let names = self.rules.iter().find_map(|(group, rules)| {
            rules.iter().find(|(_, rule)| rule.names_port_list(&id)).map(|(rule, _)| (group, rule))
        });
        if let Some((group, rule)) = names {
            let message = format!("rule {rule} of {group} names {id}: revoke it first");
            return Err(PORT_LIST_IN_USE.error(message).object(id));
        }
        Ok(vec![Event::PortList(id, None)])
    }

    fn refuse_many_entries(&self, count: usize, field: &str) -> Result<(), ApiError> {
        let most = self.quotas.port_list_entries_per_call_max;
        if count > most {
            return Err(LIST_ENTRIES.error(format!("{count} entries: one call takes at most {most}")).field(field));
        }
        Ok(())
    }
}

impl PortList {
    /// Adds entries, or changes the descriptions of existing ones. `named` has those that the request has already
    /// named.
    fn add(&mut self, entries: &[PortListEntry], field: &str, mut named: BTreeSet<PortRange>) -> Result<(), ApiError> {
        for (place, wanted) in entries.iter().enumerate() {
            let within = format!("{field}[{place}]");
            let ports = range(&wanted.ports).map_err(|error| error.within(&within))?;
            let description = description(wanted.description.as_deref(), 2, 32, INVALID_DESCRIPTION)
                .map_err(|error| error.within(&within))?;
            if !named.insert(ports) {
                let message = format!("{ports} is named twice");
                return Err(PORT_LIST_RANGE_DUPLICATED.error(message).field(format!("{within}.ports")));
            }
            self.entries.retain(|item| item.ports != ports);
            self.entries.push(PortListItem { ports, description });
        }
        self.entries.sort_by_key(|item| item.ports);
        // The room is checked at the end, because changed descriptions add no entry.
        if self.entries.len() > self.max_entries as usize {
            let (count, most) = (self.entries.len(), self.max_entries);
            let message = format!("the list would have {count} entries and has room for {most}: make a larger list");
            return Err(LIST_MAX_ENTRIES.error(message).field(field));
        }
        Ok(())
    }
}

fn range(text: &str) -> Result<PortRange, ApiError> {
    port_range(text).ok_or_else(|| {
        let message =
            format!("{text} is not a port range: write first/last, from 1/1 to 65535/65535", text = quoted(text));
        PORT_LIST_RANGE.error(message).field("ports")
    })
}

fn list_name(text: &str) -> Result<String, ApiError> {
    if text.is_empty() {
        return Err(MISSING_PARAMETER.error("a port list needs a name").field("name"));
    }
    refuse_reserved_name(text, PORT_LIST_NAME)?;
    name(Some(text), PORT_LIST_NAME)
}
