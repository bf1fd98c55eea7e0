//! The one owner of the state: decides, checks that the forwarding plane can run it, keeps it, and makes it true, in
//! this order. A refusal at any step leaves all of it as it was.

use crate::command::Command;
use crate::environment::Environment;
use crate::error::{ApiError, FORWARDING_REFUSED, INTERNAL_ERROR};
use crate::lower::lower;
use crate::model::{Event, Model, Quotas};
use crate::store::{Store, StoreError};
use crate::wire::{ChangeKind, ChangedObject, refusals_text};
use std::collections::BTreeSet;
use std::sync::Arc;
use vswitch_core::desired::Desired;
use vswitch_core::validate::validate;

/// Model, store, and what the forwarding plane should run.
pub struct Authority {
    model: Model,
    desired: Arc<Desired>,
    store: Box<dyn Store>,
}

/// A change that was kept.
#[derive(Debug)]
pub struct Kept {
    /// What changed.
    pub objects: Vec<ChangedObject>,
    /// What the forwarding plane should run now; nothing if it would not notice.
    pub desired: Option<Arc<Desired>>,
    undo: Undo,
}

#[derive(Debug)]
struct Undo {
    model: Model,
    desired: Arc<Desired>,
    events: Vec<Event>,
}

impl Authority {
    /// Takes the state from a store.
    ///
    /// # Errors
    /// What keeps the store from giving it.
    pub fn load(mut store: Box<dyn Store>, quotas: Quotas) -> Result<Self, StoreError> {
        let model = Model::load(quotas, store.load()?);
        let desired = Arc::new(lower(&model));
        Ok(Self { model, desired, store })
    }

    /// The state.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What the forwarding plane should run.
    pub fn desired(&self) -> &Arc<Desired> {
        &self.desired
    }

    /// Makes a change for good.
    ///
    /// # Errors
    /// A refusal, after which nothing has changed.
    pub fn change(&mut self, command: &Command, environment: &Environment) -> Result<Kept, ApiError> {
        self.change_and(command, environment, |_| Vec::new())
    }

    /// Makes a change for good, and with it what follows from the state after it.
    ///
    /// # Errors
    /// A refusal, after which nothing has changed.
    pub fn change_and(
        &mut self,
        command: &Command,
        environment: &Environment,
        more: impl FnOnce(&Model) -> Vec<Event>,
    ) -> Result<Kept, ApiError> {
        let mut events = self.model.decide(command, environment)?;
        let mut next = self.model.clone();
        for event in &events {
            next.apply(event.clone());
        }
        for event in more(&next) {
            next.apply(event.clone());
            events.push(event);
        }
        let undo_events = self.model.undo(&events);
        let objects = changed_objects(&events, &undo_events);
        let desired = lower(&next);
        let is_felt = desired != *self.desired;
        if is_felt {
            self.check(&desired)?;
        }
        if !events.is_empty() {
            self.store.append(&events).map_err(|error| INTERNAL_ERROR.error(error.to_string()))?;
        }
        let desired = if is_felt { Arc::new(desired) } else { Arc::clone(&self.desired) };
        let undo = Undo {
            model: std::mem::replace(&mut self.model, next),
            desired: std::mem::replace(&mut self.desired, Arc::clone(&desired)),
            events: undo_events,
        };
        Ok(Kept { objects, desired: is_felt.then_some(desired), undo })
    }

    /// Whether a change could be made.
    ///
    /// # Errors
    /// The refusal that it would meet.
    pub fn could_change(&mut self, command: &Command, environment: &Environment) -> Result<(), ApiError> {
        let mut next = self.model.clone();
        for event in self.model.decide(command, environment)? {
            next.apply(event);
        }
        self.check(&lower(&next))
    }

    /// Takes a change back that the forwarding plane refused. No other change was made since.
    ///
    /// # Errors
    /// Where the store cannot: then the change stays.
    pub fn undo(&mut self, kept: Kept) -> Result<(), StoreError> {
        let Undo { model, desired, events } = kept.undo;
        self.store.append(&events)?;
        self.model = model;
        self.desired = desired;
        Ok(())
    }

    /// Refuses what the forwarding plane would refuse.
    fn check(&self, desired: &Desired) -> Result<(), ApiError> {
        let refusals = validate(desired);
        let Some(first) = refusals.first() else { return Ok(()) };
        let message = format!("the forwarding plane could not run this: {}", refusals_text(&refusals));
        Err(FORWARDING_REFUSED.error(message).object(first.object.clone()))
    }
}

/// What happened to each object, told once: a batch may change one several times.
fn changed_objects(events: &[Event], before: &[Event]) -> Vec<ChangedObject> {
    let mut told = BTreeSet::new();
    let is_told = |event: &Event| !matches!(event, Event::Label(..) | Event::Token(..));
    let last = events.iter().zip(before).rev().filter(|(event, _)| is_told(event) && told.insert(event.key()));
    let mut objects: Vec<ChangedObject> = last.filter_map(|(event, before)| changed_object(event, before)).collect();
    objects.reverse();
    objects
}

fn changed_object(event: &Event, before: &Event) -> Option<ChangedObject> {
    let change = match (before.is_end(), event.is_end()) {
        (true, true) => return None,
        (false, true) => ChangeKind::Deleted,
        (true, false) => ChangeKind::Created,
        (false, false) => ChangeKind::Modified,
    };
    let group = event.group().map(ToString::to_string);
    Some(ChangedObject { kind: event.kind().into(), id: event.id().into(), group, change })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Batch, GroupCreate, VpcCreate, VpcDelete, VpcModify};
    use crate::store::MemoryStore;

    fn vpc(id: &str, cidr: &str) -> Command {
        Command::VpcCreate(VpcCreate { id: Some(id.into()), cidr: cidr.into(), ..VpcCreate::default() })
    }

    fn group(id: &str, vpc: &str) -> Command {
        Command::GroupCreate(GroupCreate { id: Some(id.into()), vpc: vpc.into(), ..GroupCreate::default() })
    }

    #[test]
    fn what_nobody_feels_is_not_sent() {
        let mut authority = Authority::load(Box::new(MemoryStore::default()), Quotas::default()).unwrap();
        let environment = Environment::fixed(0, 0);
        assert!(authority.change(&vpc("vpc-1", "10.0.0.0/16"), &environment).unwrap().desired.is_some());
        let rename =
            Command::VpcModify(VpcModify { vpc: "vpc-1".into(), name: Some("lab".into()), ..VpcModify::default() });
        let kept = authority.change(&rename, &environment).unwrap();
        assert!(kept.desired.is_none());
        assert_eq!(kept.objects[0].change, ChangeKind::Modified);
        assert!(authority.change(&rename, &environment).unwrap().objects.is_empty());
    }

    #[test]
    fn an_undone_change_leaves_neither_model_nor_store_changed() {
        let mut authority = Authority::load(Box::new(MemoryStore::default()), Quotas::default()).unwrap();
        let environment = Environment::fixed(0, 0);
        authority.change(&vpc("vpc-1", "10.0.0.0/16"), &environment).unwrap();
        let before = authority.model().clone();
        let commands = vec![
            vpc("vpc-2", "10.1.0.0/16"),
            group("sg-1", "vpc-2"),
            Command::VpcDelete(VpcDelete { vpc: "vpc-1".into() }),
        ];
        let kept = authority.change(&Command::Batch(Batch { commands }), &environment).unwrap();
        assert_ne!(*authority.model(), before);
        authority.undo(kept).unwrap();
        assert_eq!(*authority.model(), before);
        let stored = authority.store.load().unwrap();
        assert_eq!(Model::load(Quotas::default(), stored), before);
    }
}
