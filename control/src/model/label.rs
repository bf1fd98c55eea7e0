//! What is noted about any object besides what it is: who owns it, where, its tags and its resource group.

use super::{Event, Model};
use crate::command::{LabelModify, OnBehalf};
use crate::environment::Environment;
use crate::error::{ApiError, INVALID_PARAMETER, TAG_LIMIT};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Tags of one object.
const TAGS_MAX: usize = 20;

/// What is noted about an object. An object without a label has an empty one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// The account; empty for the first one.
    pub owner: String,
    /// The region; empty for the first one.
    pub region: String,
    /// The zone of a subnet; empty for the region's first one.
    pub zone: String,
    /// The resource group; empty for none.
    pub resource_group: String,
    /// The tags.
    pub tags: BTreeMap<String, String>,
}

impl Model {
    /// What is noted about an object.
    pub(crate) fn label(&self, id: &str) -> &Label {
        static NOTHING: Label = Label {
            owner: String::new(),
            region: String::new(),
            zone: String::new(),
            resource_group: String::new(),
            tags: BTreeMap::new(),
        };
        self.labels.get(id).unwrap_or(&NOTHING)
    }

    /// Whether there is such an object.
    pub(crate) fn has_object(&self, id: &str) -> bool {
        self.vpcs.contains_key(&id.into())
            || self.vswitches.contains_key(&id.into())
            || self.groups.contains_key(&id.into())
            || self.enis.contains_key(&id.into())
            || self.prefix_lists.contains_key(&id.into())
            || self.port_lists.contains_key(&id.into())
            || self.instances.contains_key(id)
    }

    pub(super) fn label_modify(&self, modify: &LabelModify) -> Result<Vec<Event>, ApiError> {
        if !self.has_object(&modify.object) {
            let message = format!("there is no object {:?}", modify.object);
            return Err(INVALID_PARAMETER.error(message).field("object").object(&modify.object));
        }
        let old = self.label(&modify.object);
        let mut new = old.clone();
        if modify.untag_all {
            new.tags.clear();
        }
        new.tags.retain(|key, _| !modify.untag.contains(key));
        new.tags.extend(modify.tags.clone());
        if new.tags.len() > TAGS_MAX {
            let message = format!("{} would have {} tags, at most {TAGS_MAX} may be", modify.object, new.tags.len());
            return Err(TAG_LIMIT.error(message).field("tags").object(&modify.object));
        }
        if let Some(resource_group) = &modify.resource_group {
            new.resource_group.clone_from(resource_group);
        }
        if let Some(zone) = &modify.zone {
            new.zone.clone_from(zone);
        }
        if new == *old {
            return Ok(vec![]);
        }
        let label = (new != Label::default()).then_some(new);
        Ok(vec![Event::Label(modify.object.clone(), label)])
    }

    pub(super) fn on_behalf(&self, on_behalf: &OnBehalf, environment: &Environment) -> Result<Vec<Event>, ApiError> {
        let mut events = self.decide_unlimited(&on_behalf.command, environment)?;
        if on_behalf.owner.is_empty() && on_behalf.region.is_empty() {
            return Ok(events);
        }
        let is_object = |event: &&Event| !matches!(event, Event::Settings(_) | Event::Rule(..) | Event::Token(..));
        let created: BTreeSet<String> = events
            .iter()
            .filter(is_object)
            .filter(|event| !event.is_end() && !self.has_object(event.id()))
            .map(|event| event.id().to_owned())
            .collect();
        for id in created {
            // The last label of a batch that made the object may hold its tags.
            let decided = events.iter().rev().find_map(|event| match event {
                Event::Label(object, Some(label)) if *object == id => Some(label.clone()),
                _ => None,
            });
            let label = Label {
                owner: on_behalf.owner.clone(),
                region: on_behalf.region.clone(),
                ..decided.unwrap_or_default()
            };
            events.push(Event::Label(id, Some(label)));
        }
        Ok(events)
    }

    /// Ends what is noted about objects that end.
    pub(super) fn end_labels(&self, events: &mut Vec<Event>) {
        let is_object = |event: &&Event| !matches!(event, Event::Label(..) | Event::Rule(..) | Event::Token(..));
        let ended: BTreeSet<&str> =
            events.iter().filter(is_object).filter(|event| event.is_end()).map(Event::id).collect();
        let told = |id: &str| events.iter().any(|event| matches!(event, Event::Label(other, None) if other == id));
        let labelled = ended.into_iter().filter(|id| self.labels.contains_key(*id) && !told(id));
        let ends: Vec<Event> = labelled.map(|id| Event::Label(id.to_owned(), None)).collect();
        events.extend(ends);
    }
}
