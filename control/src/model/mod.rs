//! The objects of customers: VPCs, subnets, interfaces, groups, rules and lists, and everything that governs changes to
//! them.
//!
//! [`Model::decide`] turns a command into events or a refusal and changes nothing; [`Model::apply`] changes the model
//! and cannot fail. An [`Event`] is the new state of one object, or its removal, so that a store needs no history and
//! applying an event twice is harmless. A model holds the objects of all accounts and regions; the metadata of each
//! object names its owner.

mod client_token;
mod eni;
mod event;
mod group;
mod index;
mod instance;
mod metadata;
mod parse;
mod port_list;
mod prefix_list;
mod quota;
mod record;
mod rule;
mod settings;
mod uplink;
mod vpc;
mod vswitch;
mod warning;

pub use client_token::Token;
pub use eni::Eni;
pub use event::{Event, RecordError};
pub use group::Group;
pub use instance::Instance;
use metadata::Holder;
pub use metadata::Metadata;
pub(crate) use parse::{prefix, timestamp};
pub use port_list::{PortList, PortListItem};
pub use prefix_list::PrefixList;
pub use quota::Quotas;
pub use record::Record;
pub use rule::Rule;
pub(crate) use rule::refuse_repeated_rules;
pub(crate) use rule::{RuleWords, protocol_text, same_rule};
pub(crate) use uplink::PUBLIC_ADDRESS;
pub use uplink::{DEFAULT_POOL, Eip, EipTarget, ForwardEntry, ForwardProtocol, NatGateway, SnatEntry, Uplink};
pub(crate) use vpc::dhcp;
pub use vpc::{Peering, Route, Vpc};
pub use vswitch::{Reservation, VSwitch};

use crate::command::{Batch, Command};
use crate::environment::Environment;
use crate::error::{ApiError, INVALID_PARAMETER};
use index::Index;
use std::collections::BTreeMap;
use std::sync::Arc;
use vswitch_core::config::desired::Settings;
use vswitch_core::config::ids::{EniId, GroupId, PortListId, PrefixListId, RuleId, UplinkId, VSwitchId, VpcId};

/// Commands that one batch may hold.
pub const BATCH_COMMANDS_MAX: usize = 100_000;

/// The whole state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    pub(crate) quotas: Quotas,
    pub(crate) settings: Settings,
    pub(crate) vpcs: BTreeMap<VpcId, Vpc>,
    pub(crate) vswitches: BTreeMap<VSwitchId, VSwitch>,
    pub(crate) groups: BTreeMap<GroupId, Group>,
    pub(crate) rules: BTreeMap<GroupId, BTreeMap<RuleId, Rule>>,
    pub(crate) enis: BTreeMap<EniId, Eni>,
    pub(crate) prefix_lists: BTreeMap<PrefixListId, PrefixList>,
    pub(crate) port_lists: BTreeMap<PortListId, PortList>,
    pub(crate) instances: BTreeMap<String, Instance>,
    pub(crate) records: BTreeMap<String, Record>,
    pub(crate) uplinks: BTreeMap<UplinkId, Uplink>,
    pub(crate) eips: BTreeMap<String, Eip>,
    pub(crate) nat_gateways: BTreeMap<String, NatGateway>,
    pub(crate) snat_entries: BTreeMap<String, SnatEntry>,
    pub(crate) forwards: BTreeMap<String, ForwardEntry>,
    pub(crate) peerings: BTreeMap<String, Peering>,
    pub(crate) labels: BTreeMap<String, Metadata>,
    /// Shared between a model and its successor, because it is large and rarely changes.
    pub(crate) tokens: Arc<BTreeMap<String, Token>>,
    pub(crate) index: Index,
}

impl Model {
    /// An empty model that keeps these quotas.
    pub fn new(quotas: Quotas) -> Self {
        Self { quotas, ..Self::default() }
    }

    /// A model with the objects that `events` leave.
    pub fn load(quotas: Quotas, events: impl IntoIterator<Item = Event>) -> Self {
        let mut model = Self::new(quotas);
        for event in events {
            model.apply(event);
        }
        // The metadata of a VPC may come after the objects in it.
        model.settle_regions();
        model
    }

    /// The events that a command leads to, or its refusal. Without events there is nothing to change.
    ///
    /// # Errors
    /// The first reason found, with the field and the object at fault.
    pub fn decide(&self, command: &Command, environment: &Environment) -> Result<Vec<Event>, ApiError> {
        // The quotas of accounts are checked once everything about a command is known.
        let events = self.decide_for(None, command, environment)?;
        self.check_quotas(&events)?;
        Ok(events)
    }

    /// The events of a command, made for an account or by the operator, who may change everything. Quotas are not
    /// checked.
    fn decide_for(
        &self,
        holder: Option<Holder<'_>>,
        command: &Command,
        environment: &Environment,
    ) -> Result<Vec<Event>, ApiError> {
        match command {
            Command::Batch(batch) => return self.batch(holder, batch, environment),
            Command::OnBehalf(_) if holder.is_some() => {
                let message = "a change is made for one account: it cannot hold one that is made for another";
                return Err(INVALID_PARAMETER.error(message).field("command"));
            }
            Command::OnBehalf(on_behalf) => return self.on_behalf(on_behalf, environment),
            _ => {}
        }
        let mut events = self.decide_objects(holder.unwrap_or_default(), command, environment)?;
        self.follow_enis(&mut events);
        if let Some(holder) = holder {
            self.refuse_others(holder, &events)?;
        }
        self.label_new(holder.unwrap_or_default(), &mut events);
        self.end_labels(&mut events);
        Ok(events)
    }

    fn decide_objects(
        &self,
        holder: Holder<'_>,
        command: &Command,
        environment: &Environment,
    ) -> Result<Vec<Event>, ApiError> {
        match command {
            Command::VpcCreate(create) => self.vpc_create(create, environment),
            Command::VpcModify(modify) => self.vpc_modify(modify),
            Command::VpcDelete(delete) => self.vpc_delete(delete),
            Command::VpcRouteAdd(route) => self.vpc_route_add(route, environment),
            Command::VpcRouteRemove(route) => self.vpc_route_remove(route),
            Command::VswitchCreate(create) => self.vswitch_create(create, environment),
            Command::VswitchModify(modify) => self.vswitch_modify(modify),
            Command::VswitchDelete(delete) => self.vswitch_delete(delete),
            Command::VswitchReserve(reserve) => self.vswitch_reserve(reserve, environment),
            Command::VswitchReservationModify(modify) => self.vswitch_reservation_modify(modify),
            Command::VswitchUnreserve(unreserve) => self.vswitch_unreserve(unreserve),
            Command::EniCreate(create) => self.eni_create(create, holder, environment),
            Command::EniModify(modify) => self.eni_modify(modify),
            Command::EniDelete(delete) => self.eni_delete(delete),
            Command::EniAssign(assign) => self.eni_assign(assign),
            Command::EniUnassign(unassign) => self.eni_unassign(unassign),
            Command::EniAttach(attach) => self.eni_attach(attach),
            Command::EniDetach(detach) => self.eni_detach(detach),
            Command::GroupCreate(create) => self.group_create(create, environment),
            Command::GroupModify(modify) => self.group_modify(modify),
            Command::GroupDelete(delete) => self.group_delete(delete),
            Command::GroupJoin(join) => self.group_join(join),
            Command::GroupLeave(leave) => self.group_leave(leave),
            Command::RuleAuthorize(authorize) => self.rule_authorize(authorize, environment),
            Command::RuleRevoke(revoke) => self.rule_revoke(revoke),
            Command::RuleModify(modify) => self.rule_modify(modify),
            Command::PrefixListCreate(create) => self.prefix_list_create(create, environment),
            Command::PrefixListModify(modify) => self.prefix_list_modify(modify),
            Command::PrefixListDelete(delete) => self.prefix_list_delete(delete),
            Command::PortListCreate(create) => self.port_list_create(create, environment),
            Command::PortListModify(modify) => self.port_list_modify(modify),
            Command::PortListDelete(delete) => self.port_list_delete(delete),
            Command::SettingsModify(modify) => self.settings_modify(modify),
            Command::InstanceCreate(create) => self.instance_create(create, holder, environment),
            Command::InstanceModify(modify) => self.instance_modify(modify),
            Command::InstanceRun(run) => self.instance_run(run, environment),
            Command::InstanceDelete(delete) => self.instance_delete(delete),
            Command::InstanceAttach(attach) => self.instance_attach(attach, environment),
            Command::InstanceDetach(detach) => self.instance_detach(detach, environment),
            Command::InstanceMove(change) => self.instance_move(change),
            Command::LabelModify(modify) => self.label_modify(modify),
            Command::RecordCreate(create) => self.record_create(create, environment),
            Command::RecordDelete(delete) => self.record_delete(delete),
            Command::OnBehalf(_) | Command::Batch(_) => self.decide_for(Some(holder), command, environment),
            outside => self.decide_outside(holder, outside, environment),
        }
    }

    fn batch(
        &self,
        holder: Option<Holder<'_>>,
        batch: &Batch,
        environment: &Environment,
    ) -> Result<Vec<Event>, ApiError> {
        if batch.commands.len() > BATCH_COMMANDS_MAX {
            let message = format!("a batch holds at most {BATCH_COMMANDS_MAX} commands: split it");
            return Err(INVALID_PARAMETER.error(message).field("commands"));
        }
        // Each command finds what those before it did, and a refusal leaves the model itself as it was.
        let mut next = self.clone();
        let mut events = Vec::new();
        for (place, command) in batch.commands.iter().enumerate() {
            let within = format!("commands[{place}]");
            if matches!(command, Command::Batch(_)) {
                return Err(INVALID_PARAMETER.error("batches do not nest: list the commands in one").field(within));
            }
            let decided = next.decide_for(holder, command, environment).map_err(|error| error.within(&within))?;
            for event in &decided {
                next.apply(event.clone());
            }
            events.extend(decided);
        }
        Ok(events)
    }

    /// Applies an event.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Settings(settings) => self.settings = settings,
            Event::Vpc(id, vpc) => set(&mut self.vpcs, id, vpc),
            Event::VSwitch(id, vswitch) => set(&mut self.vswitches, id, vswitch),
            Event::Group(id, group) => {
                if group.is_none() {
                    self.rules.remove(&id);
                }
                set(&mut self.groups, id, group);
            }
            Event::Rule(group, id, rule) => {
                let rules = self.rules.entry(group.clone()).or_default();
                set(rules, id, rule);
                // Models are compared, and an empty table would differ from none.
                if rules.is_empty() {
                    self.rules.remove(&group);
                }
            }
            Event::Eni(id, eni) => {
                // The old entries go first: the new state mostly has the same addresses.
                if let Some(old) = self.enis.get(&id) {
                    self.index.remove(&id, old);
                }
                if let Some(eni) = &eni {
                    self.index.insert(&id, eni);
                }
                set(&mut self.enis, id, eni.map(|eni| *eni));
            }
            Event::PrefixList(id, list) => set(&mut self.prefix_lists, id, list),
            Event::PortList(id, list) => set(&mut self.port_lists, id, list),
            Event::Instance(id, instance) => set(&mut self.instances, id, instance.map(|instance| *instance)),
            Event::Record(id, record) => set(&mut self.records, id, record),
            Event::Uplink(id, uplink) => set(&mut self.uplinks, id, uplink.map(|uplink| *uplink)),
            Event::Eip(id, eip) => set(&mut self.eips, id, eip),
            Event::NatGateway(id, nat) => set(&mut self.nat_gateways, id, nat),
            Event::SnatEntry(id, entry) => set(&mut self.snat_entries, id, entry),
            Event::Forward(id, forward) => set(&mut self.forwards, id, forward),
            Event::Peering(id, peering) => set(&mut self.peerings, id, peering),
            Event::Metadata(id, label) => set(&mut self.labels, id, label),
            Event::Token(id, token) => set(Arc::make_mut(&mut self.tokens), id, token),
        }
    }

    /// The events that make this model from an empty one.
    pub fn events(&self) -> Vec<Event> {
        let settings = std::iter::once(Event::Settings(self.settings.clone()));
        let rules = self.rules.iter().flat_map(|(group, rules)| {
            rules.iter().map(|(id, rule)| Event::Rule(group.clone(), id.clone(), Some(rule.clone())))
        });
        settings
            .chain(self.vpcs.iter().map(|(id, vpc)| Event::Vpc(id.clone(), Some(vpc.clone()))))
            .chain(self.vswitches.iter().map(|(id, vswitch)| Event::VSwitch(id.clone(), Some(vswitch.clone()))))
            .chain(self.groups.iter().map(|(id, group)| Event::Group(id.clone(), Some(group.clone()))))
            .chain(rules)
            .chain(self.prefix_lists.iter().map(|(id, list)| Event::PrefixList(id.clone(), Some(list.clone()))))
            .chain(self.port_lists.iter().map(|(id, list)| Event::PortList(id.clone(), Some(list.clone()))))
            .chain(self.enis.iter().map(|(id, eni)| Event::Eni(id.clone(), Some(Box::new(eni.clone())))))
            .chain(
                self.instances.iter().map(|(id, object)| Event::Instance(id.clone(), Some(Box::new(object.clone())))),
            )
            .chain(self.records.iter().map(|(id, record)| Event::Record(id.clone(), Some(record.clone()))))
            .chain(self.outside_events())
            .chain(self.labels.iter().map(|(id, label)| Event::Metadata(id.clone(), Some(label.clone()))))
            .chain(self.tokens.iter().map(|(id, token)| Event::Token(id.clone(), Some(token.clone()))))
            .collect()
    }

    /// Events that undo `events`, which were decided on this model.
    pub fn undo(&self, events: &[Event]) -> Vec<Event> {
        // Each is the whole former state of an object, so their order does not matter.
        let mut undo: Vec<Event> = events.iter().map(|event| self.now(event)).collect();
        // Removing a group also removed its rules.
        for event in events {
            if let Event::Group(id, None) = event {
                let rules = self.rules.get(id).into_iter().flatten();
                undo.extend(rules.map(|(rule, content)| Event::Rule(id.clone(), rule.clone(), Some(content.clone()))));
            }
        }
        undo
    }

    /// The event with the present state of an object.
    fn now(&self, event: &Event) -> Event {
        match event {
            Event::Settings(_) => Event::Settings(self.settings.clone()),
            Event::Vpc(id, _) => Event::Vpc(id.clone(), self.vpcs.get(id).cloned()),
            Event::VSwitch(id, _) => Event::VSwitch(id.clone(), self.vswitches.get(id).cloned()),
            Event::Group(id, _) => Event::Group(id.clone(), self.groups.get(id).cloned()),
            Event::Rule(group, id, _) => {
                let rule = self.rules.get(group).and_then(|rules| rules.get(id)).cloned();
                Event::Rule(group.clone(), id.clone(), rule)
            }
            Event::Eni(id, _) => Event::Eni(id.clone(), self.enis.get(id).cloned().map(Box::new)),
            Event::PrefixList(id, _) => Event::PrefixList(id.clone(), self.prefix_lists.get(id).cloned()),
            Event::PortList(id, _) => Event::PortList(id.clone(), self.port_lists.get(id).cloned()),
            Event::Instance(id, _) => Event::Instance(id.clone(), self.instances.get(id).cloned().map(Box::new)),
            Event::Record(id, _) => Event::Record(id.clone(), self.records.get(id).cloned()),
            Event::Uplink(id, _) => Event::Uplink(id.clone(), self.uplinks.get(id).cloned().map(Box::new)),
            Event::Eip(id, _) => Event::Eip(id.clone(), self.eips.get(id).cloned()),
            Event::NatGateway(id, _) => Event::NatGateway(id.clone(), self.nat_gateways.get(id).cloned()),
            Event::SnatEntry(id, _) => Event::SnatEntry(id.clone(), self.snat_entries.get(id).cloned()),
            Event::Forward(id, _) => Event::Forward(id.clone(), self.forwards.get(id).cloned()),
            Event::Peering(id, _) => Event::Peering(id.clone(), self.peerings.get(id).cloned()),
            Event::Metadata(id, _) => Event::Metadata(id.clone(), self.labels.get(id).cloned()),
            Event::Token(id, _) => Event::Token(id.clone(), self.tokens.get(id).cloned()),
        }
    }
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}
