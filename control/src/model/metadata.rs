//! The metadata of any object: its owner, region, zone, tags, resource group and attributes.

use super::{EipTarget, Event, Model, Route};
use crate::command::{LabelModify, OnBehalf};
use crate::environment::Environment;
use crate::error::{ApiError, FORBIDDEN, INVALID_PARAMETER, TAG_LIMIT};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use vswitch_core::config::desired::{Ports, Remote};
use vswitch_core::config::ids::{GroupId, VpcId, quoted};

/// Attributes of one object.
const ATTRIBUTES_MAX: usize = 128;
/// Bytes of all attributes of one object, names and values. The longest is an instance's user data.
const ATTRIBUTE_BYTES_MAX: usize = 64 << 10;

/// The metadata of an object; empty for an object without any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
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
    /// Attributes without effect on packets, which are stored and returned as they were given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

impl Metadata {
    /// Empty metadata.
    pub const NOTHING: Self = Self {
        owner: String::new(),
        region: String::new(),
        zone: String::new(),
        resource_group: String::new(),
        tags: BTreeMap::new(),
        attributes: BTreeMap::new(),
    };

    /// The value of an attribute; empty for none.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// The account and region for which a change is made, each empty for the default one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Holder<'a> {
    pub(super) owner: &'a str,
    /// Also empty if none is named: what is in a VPC then has the VPC's region.
    pub(super) region: &'a str,
}

impl Model {
    /// The metadata of an object.
    pub(crate) fn label(&self, id: &str) -> &Metadata {
        static NOTHING: Metadata = Metadata::NOTHING;
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
            || self.records.contains_key(id)
            || self.uplinks.contains_key(&id.into())
            || self.eips.contains_key(id)
            || self.nat_gateways.contains_key(id)
            || self.snat_entries.contains_key(id)
            || self.forwards.contains_key(id)
            || self.peerings.contains_key(id)
    }

    pub(super) fn label_modify(&self, modify: &LabelModify) -> Result<Vec<Event>, ApiError> {
        if !self.has_object(&modify.object) {
            let message = format!("there is no object {}", quoted(&modify.object));
            return Err(INVALID_PARAMETER.error(message).field("object").object(&modify.object));
        }
        let old = self.label(&modify.object);
        let mut new = old.clone();
        // Removal comes first, so that one call can replace all tags.
        if modify.untag_all {
            new.tags.clear();
        }
        new.tags.retain(|key, _| !modify.untag.contains(key));
        new.tags.extend(modify.tags.clone());
        let most = self.quotas.tags_per_object_max;
        if new.tags.len() > most {
            let message = format!("{} would have {} tags, at most {most} may be", modify.object, new.tags.len());
            return Err(TAG_LIMIT.error(message).field("tags").object(&modify.object));
        }
        if let Some(resource_group) = &modify.resource_group {
            new.resource_group.clone_from(resource_group);
        }
        if let Some(zone) = &modify.zone {
            new.zone.clone_from(zone);
        }
        new.attributes.extend(modify.attributes.clone());
        // An empty value removes an attribute: a request has no other way to say so.
        new.attributes.retain(|_, value| !value.is_empty());
        let bytes: usize = new.attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
        if new.attributes.len() > ATTRIBUTES_MAX || bytes > ATTRIBUTE_BYTES_MAX {
            let message = format!(
                "{} would have {} attributes of {bytes} bytes, at most {ATTRIBUTES_MAX} of {ATTRIBUTE_BYTES_MAX} may be",
                modify.object,
                new.attributes.len()
            );
            return Err(INVALID_PARAMETER.error(message).field("attributes").object(&modify.object));
        }
        if new == *old {
            return Ok(vec![]);
        }
        // Empty metadata is stored as none, so that setting and removing a tag leaves no trace.
        let label = (new != Metadata::default()).then_some(new);
        Ok(vec![Event::Metadata(modify.object.clone(), label)])
    }

    pub(super) fn on_behalf(&self, on_behalf: &OnBehalf, environment: &Environment) -> Result<Vec<Event>, ApiError> {
        let holder = Holder { owner: &on_behalf.owner, region: &on_behalf.region };
        self.decide_for(Some(holder), &on_behalf.command, environment)
    }

    /// Records owner and region of each object that a command makes. They exist from its first moment, so that the next
    /// command of a batch finds them.
    pub(super) fn label_new(&self, holder: Holder<'_>, events: &mut Vec<Event>) {
        let mut labels = Vec::new();
        for event in events.iter().filter(|event| event.is_object() && !event.is_end() && !self.has_object(event.id()))
        {
            let region = match holder.region {
                "" => self.region_of_new(event, events),
                named => named,
            };
            // The last one counts, as it does when they are applied.
            let noted = events.iter().rev().find_map(|other| match other {
                Event::Metadata(object, Some(label)) if object == event.id() => Some(label.clone()),
                _ => None,
            });
            let label = Metadata { owner: holder.owner.into(), region: region.into(), ..noted.unwrap_or_default() };
            if label != Metadata::default() {
                labels.push(Event::Metadata(event.id().to_owned(), Some(label)));
            }
        }
        events.extend(labels);
    }

    /// The region of a new object: that of its VPC, if it is in one.
    fn region_of_new(&self, event: &Event, events: &[Event]) -> &str {
        let vpc = match event {
            Event::VSwitch(_, Some(vswitch)) => Some(&vswitch.vpc),
            Event::Group(_, Some(group)) => Some(&group.vpc),
            Event::Eni(_, Some(eni)) => Some(&eni.vpc),
            Event::Uplink(_, Some(uplink)) => Some(&uplink.vpc),
            Event::NatGateway(_, Some(nat)) => Some(&nat.vpc),
            Event::SnatEntry(_, Some(entry)) => self.nat_gateways.get(&entry.nat).map(|nat| &nat.vpc),
            Event::Forward(_, Some(forward)) => Some(&forward.vpc),
            Event::Peering(_, Some(peering)) => Some(&peering.vpc),
            Event::Instance(_, Some(instance)) => instance.primary().and_then(|primary| {
                let made = events.iter().find_map(|event| match event {
                    Event::Eni(id, Some(eni)) if id == primary => Some(&eni.vpc),
                    _ => None,
                });
                made.or_else(|| self.enis.get(primary).map(|eni| &eni.vpc))
            }),
            _ => None,
        };
        vpc.map_or("", |vpc| self.label(vpc.as_str()).region.as_str())
    }

    /// Refuses a change for one account that affects objects of another. Look-ups on behalf of an account refuse first,
    /// with their own messages; this catches what they miss.
    pub(super) fn refuse_others(&self, holder: Holder<'_>, events: &[Event]) -> Result<(), ApiError> {
        for event in events {
            let object = match event {
                Event::Settings(_) => {
                    return Err(FORBIDDEN.error("the settings are the operator's, and no account's").field("command"));
                }
                Event::Token(..) => continue,
                Event::Rule(group, ..) => group.as_str(),
                _ => event.id(),
            };
            self.refuse_other(holder, object)?;
            self.references(event).into_iter().try_for_each(|object| self.refuse_other(holder, object))?;
        }
        Ok(())
    }

    fn refuse_other(&self, holder: Holder<'_>, object: &str) -> Result<(), ApiError> {
        // An object that the same command makes has no metadata yet; it would count as the first account's.
        match self.has_object(object) && self.label(object).owner != holder.owner {
            true => Err(FORBIDDEN.error(format!("{object} belongs to another account")).object(object)),
            false => Ok(()),
        }
    }

    /// The objects to which an object newly refers and that have to belong to its own account. A rule may name a group
    /// of another account in the same VPC, and an interface may be in a VPC that is shared with its account.
    fn references<'a>(&self, event: &'a Event) -> Vec<&'a str> {
        match event {
            Event::Eni(id, Some(eni)) => {
                let is_new = |group: &&GroupId| self.enis.get(id).is_none_or(|old| !old.groups.contains(*group));
                eni.groups.iter().filter(is_new).map(|group| group.as_str()).collect()
            }
            Event::Rule(_, _, Some(rule)) => {
                let prefix_list =
                    if let Remote::PrefixList(list) = &rule.conditions.remote { Some(list.as_str()) } else { None };
                let port_list = if let Ports::List(list) = &rule.conditions.ports { Some(list.as_str()) } else { None };
                prefix_list.into_iter().chain(port_list).collect()
            }
            Event::Vpc(id, Some(vpc)) => {
                let is_new = |route: &&Route| self.vpcs.get(id).is_none_or(|old| !old.routes.contains(*route));
                vpc.routes.iter().filter(is_new).map(|route| route.eni.as_str()).collect()
            }
            Event::Eip(_, Some(eip)) => match &eip.target {
                Some(EipTarget::Eni { eni, .. }) => vec![eni.as_str()],
                Some(EipTarget::Nat(nat)) => vec![nat],
                None => Vec::new(),
            },
            Event::SnatEntry(_, Some(entry)) => vec![&entry.nat],
            Event::Forward(_, Some(forward)) => forward.nat.iter().map(String::as_str).collect(),
            Event::Uplink(_, Some(uplink)) => vec![uplink.vpc.as_str()],
            Event::Peering(_, Some(peering)) => vec![peering.vpc.as_str(), peering.peer.as_str()],
            Event::Instance(_, Some(instance)) => instance.enis.keys().map(|eni| eni.as_str()).collect(),
            _ => Vec::new(),
        }
    }

    /// Gives objects in a VPC the VPC's region. Old stores recorded another one if a call named none.
    pub(super) fn settle_regions(&mut self) {
        let instances = self.instances.iter().filter_map(|(id, instance)| {
            let primary = self.enis.get(instance.primary()?)?;
            Some((id.as_str(), &primary.vpc))
        });
        let inside = self.vswitches.iter().map(|(id, vswitch)| (id.as_str(), &vswitch.vpc));
        let inside = inside.chain(
            self.groups.iter().filter(|(_, group)| !group.is_classic()).map(|(id, group)| (id.as_str(), &group.vpc)),
        );
        let inside = inside.chain(self.enis.iter().map(|(id, eni)| (id.as_str(), &eni.vpc))).chain(instances);
        let inside = inside.chain(self.nat_gateways.iter().map(|(id, nat)| (id.as_str(), &nat.vpc)));
        let entries = self.snat_entries.iter();
        let entries = entries.filter_map(|(id, it)| Some((id.as_str(), &self.nat_gateways.get(&it.nat)?.vpc)));
        let inside = inside.chain(entries).chain(self.forwards.iter().map(|(id, it)| (id.as_str(), &it.vpc)));
        let region_of = |vpc: &VpcId| self.label(vpc.as_str()).region.clone();
        let moved = inside.filter(|(id, vpc)| self.label(id).region != self.label(vpc.as_str()).region);
        let moved: Vec<(String, String)> = moved.map(|(id, vpc)| (id.to_owned(), region_of(vpc))).collect();
        for (id, region) in moved {
            self.labels.entry(id).or_default().region = region;
        }
    }

    /// Removes the metadata of objects that are removed.
    pub(super) fn end_labels(&self, events: &mut Vec<Event>) {
        let ended: BTreeSet<&str> =
            events.iter().filter(|event| event.is_object() && event.is_end()).map(Event::id).collect();
        let told = |id: &str| events.iter().any(|event| matches!(event, Event::Metadata(other, None) if other == id));
        let labelled = ended.into_iter().filter(|id| self.labels.contains_key(*id) && !told(id));
        let ends: Vec<Event> = labelled.map(|id| Event::Metadata(id.to_owned(), None)).collect();
        events.extend(ends);
    }
}
