//! The single owner of the state: it decides a change, checks that the forwarding plane can run it, stores it and
//! applies it, in this order. A refusal at any step leaves everything unchanged.
//!
//! Changes that wait together are stored together: each is staged on the state that the previous ones lead to, and one
//! commit checks and stores them all and sends them to the forwarding plane.

use crate::command::Command;
use crate::environment::Environment;
use crate::error::{ApiError, FORWARDING_REFUSED, INTERNAL_ERROR};
use crate::model::{Event, Model, Quotas};
use crate::socket::protocol::{ChangeKind, ChangedObject, refusals_text, refused_object};
use crate::state::desired_state::{affected, desired, validated_part};
use crate::store::{Store, StoreError};
use std::collections::BTreeSet;
use vswitch_core::config::desired::Desired;
use vswitch_core::config::protocol::Delta;
use vswitch_core::config::validate::validate;

/// The model, the store, and what the forwarding plane should run.
pub struct StateOwner {
    model: Model,
    /// The desired state of the model without what is staged.
    desired: Desired,
    store: Box<dyn Store>,
    staged: Staged,
}

/// Changes that are in the model and nowhere else yet.
#[derive(Default)]
struct Staged {
    events: Vec<Event>,
    /// The events that undo them, the last first.
    undo: Vec<Event>,
}

/// What is reported about a change.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// What changed, in order.
    pub objects: Vec<ChangedObject>,
    /// What cannot work after it.
    pub warnings: Vec<String>,
}

/// Changes that were stored.
#[derive(Debug)]
pub struct Committed {
    /// What changes for the forwarding plane; `None` if nothing does.
    pub delta: Option<Delta>,
    undo: Vec<Event>,
    undo_delta: Delta,
}

impl Committed {
    /// The objects that were changed, each as it was before.
    pub fn touched(&self) -> &[Event] {
        &self.undo
    }
}

impl StateOwner {
    /// Loads the state from a store.
    ///
    /// # Errors
    /// The store's error.
    pub fn load(mut store: Box<dyn Store>, quotas: Quotas) -> Result<Self, StoreError> {
        let model = Model::load(quotas, store.load()?);
        let desired = desired(&model);
        Ok(Self { model, desired, store, staged: Staged::default() })
    }

    /// The state, including what is staged.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What the forwarding plane should run, without what is staged.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// Makes one change.
    ///
    /// # Errors
    /// A refusal; nothing has changed then.
    pub fn change(
        &mut self,
        command: &Command,
        environment: &Environment,
    ) -> Result<(Vec<ChangedObject>, Committed), ApiError> {
        let summary = self.stage(command, environment, |_| Vec::new())?;
        Ok((summary.objects, self.commit()?))
    }

    /// Stages a change in the model, on top of those staged before.
    ///
    /// # Errors
    /// A refusal; this change has changed nothing then.
    pub fn stage(
        &mut self,
        command: &Command,
        environment: &Environment,
        more: impl FnOnce(&Model) -> Vec<Event>,
    ) -> Result<Summary, ApiError> {
        let mut events = self.model.decide(command, environment)?;
        let mut undo = self.apply(&events);
        let (objects, warnings) = (changed_objects(&events, &undo), self.model.warnings(&undo));
        // Further events may depend on the result, such as the answer that is stored with the change.
        let following = more(&self.model);
        undo.extend(self.apply(&following));
        events.extend(following);
        self.staged.events.extend(events);
        // Later changes are undone first.
        undo.append(&mut self.staged.undo);
        self.staged.undo = undo;
        Ok(Summary { objects, warnings })
    }

    /// Makes the staged changes durable, all or nothing.
    ///
    /// # Errors
    /// A refusal; nothing that was staged has changed anything then.
    pub fn commit(&mut self) -> Result<Committed, ApiError> {
        let Staged { events, undo } = std::mem::take(&mut self.staged);
        let delta = affected(&self.model, &events, &self.desired);
        let undo_delta = delta.clone().apply(&mut self.desired);
        let affects_forwarding = !delta.is_empty();
        // Checked before it is stored: what cannot run never reaches the file.
        let refused = self.check(&delta, &undo_delta).and_then(|()| match events.is_empty() {
            // A change without events needs no commit, but is answered after those before it.
            true => Ok(()),
            false => self.store.append(&events).map_err(|error| INTERNAL_ERROR.error(error.to_string())),
        });
        match refused {
            Ok(()) => Ok(Committed { delta: affects_forwarding.then_some(delta), undo, undo_delta }),
            Err(error) => {
                self.apply_all(undo);
                undo_delta.apply(&mut self.desired);
                Err(error)
            }
        }
    }

    /// Whether a change could be made.
    ///
    /// # Errors
    /// The refusal that it would get.
    pub fn could_change(&mut self, command: &Command, environment: &Environment) -> Result<(), ApiError> {
        let events = self.model.decide(command, environment)?;
        let undo = self.apply(&events);
        // Staged changes are part of the state on which this one would be made.
        let both: Vec<Event> = self.staged.events.iter().cloned().chain(events).collect();
        let delta = affected(&self.model, &both, &self.desired);
        let undo_delta = delta.clone().apply(&mut self.desired);
        let checked = self.check(&delta, &undo_delta);
        undo_delta.apply(&mut self.desired);
        self.apply_all(undo);
        checked
    }

    /// Undoes changes that the forwarding plane refused. No other change may have been made since.
    ///
    /// # Errors
    /// The store's error; the changes then stay.
    pub fn undo(&mut self, kept: Committed) -> Result<(), StoreError> {
        // The store first: if it fails, memory still agrees with the file.
        self.store.append(&kept.undo)?;
        self.apply_all(kept.undo);
        kept.undo_delta.apply(&mut self.desired);
        Ok(())
    }

    /// Applies events and returns those that undo them.
    fn apply(&mut self, events: &[Event]) -> Vec<Event> {
        // Computed before the events are applied, from what they replace.
        let undo = self.model.undo(events);
        self.apply_all(events.to_vec());
        undo
    }

    fn apply_all(&mut self, events: Vec<Event>) {
        events.into_iter().for_each(|event| self.model.apply(event));
    }

    /// Refuses what the forwarding plane would refuse of the result of `delta`, which `undo` reverts.
    fn check(&self, delta: &Delta, undo: &Delta) -> Result<(), ApiError> {
        let refusals = validate(&validated_part(delta, undo, &self.desired));
        if refusals.is_empty() {
            return Ok(());
        }
        let message = format!("the forwarding plane could not run this: {}", refusals_text(&refusals));
        Err(ApiError { object: refused_object(&refusals), ..FORWARDING_REFUSED.error(message) })
    }
}

/// What happened to each object, reported once: a batch may change one several times.
fn changed_objects(events: &[Event], before: &[Event]) -> Vec<ChangedObject> {
    let mut told = BTreeSet::new();
    let is_told = |event: &Event| !matches!(event, Event::Metadata(..) | Event::Token(..));
    // From the last: of several events of an object, the last tells what became of it.
    let last = events.iter().zip(before).rev().filter(|(event, _)| is_told(event) && told.insert(event.key()));
    let mut objects: Vec<ChangedObject> = last.filter_map(|(event, before)| changed_object(event, before)).collect();
    objects.reverse();
    objects
}

fn changed_object(event: &Event, before: &Event) -> Option<ChangedObject> {
    let change = match (before.is_end(), event.is_end()) {
        // Made and removed within one batch: nothing to report.
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
    use crate::command::{Batch, GroupCreate, GroupDelete, VpcCreate, VpcDelete, VpcModify};
    use crate::store::MemoryStore;

    fn vpc(id: &str, cidr: &str) -> Command {
        Command::VpcCreate(VpcCreate { id: Some(id.into()), cidr: cidr.into(), ..VpcCreate::default() })
    }

    fn group(id: &str, vpc: &str) -> Command {
        Command::GroupCreate(GroupCreate { id: Some(id.into()), vpc: vpc.into(), ..GroupCreate::default() })
    }

    #[test]
    fn what_no_packet_depends_on_is_not_sent() {
        let mut authority = StateOwner::load(Box::new(MemoryStore::default()), Quotas::default()).unwrap();
        let environment = Environment::fixed(0, 0);
        assert!(authority.change(&vpc("vpc-1", "10.0.0.0/16"), &environment).unwrap().1.delta.is_some());
        let rename =
            Command::VpcModify(VpcModify { vpc: "vpc-1".into(), name: Some("lab".into()), ..VpcModify::default() });
        let (objects, kept) = authority.change(&rename, &environment).unwrap();
        assert!(kept.delta.is_none());
        assert_eq!(objects[0].change, ChangeKind::Modified);
        assert!(authority.change(&rename, &environment).unwrap().0.is_empty());
    }

    #[test]
    fn an_undone_change_leaves_neither_model_nor_store_changed() {
        let mut authority = StateOwner::load(Box::new(MemoryStore::default()), Quotas::default()).unwrap();
        let environment = Environment::fixed(0, 0);
        authority.change(&vpc("vpc-1", "10.0.0.0/16"), &environment).unwrap();
        let before = authority.model().clone();
        let commands = vec![
            vpc("vpc-2", "10.1.0.0/16"),
            group("sg-1", "vpc-2"),
            Command::VpcDelete(VpcDelete { vpc: "vpc-1".into() }),
        ];
        let (_, kept) = authority.change(&Command::Batch(Batch { commands }), &environment).unwrap();
        assert_ne!(*authority.model(), before);
        authority.undo(kept).unwrap();
        assert_eq!(*authority.model(), before);
        let stored = authority.store.load().unwrap();
        assert_eq!(Model::load(Quotas::default(), stored), before);
    }
    #[test]
    fn what_is_staged_is_kept_or_undone_as_one() {
        let mut authority = StateOwner::load(Box::new(MemoryStore::default()), Quotas::default()).unwrap();
        let environment = Environment::fixed(0, 0);
        authority.change(&vpc("vpc-1", "10.0.0.0/16"), &environment).unwrap();
        let (before, ran) = (authority.model().clone(), authority.desired().clone());
        let stage =
            |authority: &mut StateOwner, command: Command| authority.stage(&command, &environment, |_| Vec::new());
        stage(&mut authority, group("sg-1", "vpc-1")).unwrap();
        // A refused one affects neither those before it nor those after.
        stage(&mut authority, group("sg-1", "vpc-1")).unwrap_err();
        authority.could_change(&group("sg-2", "vpc-1"), &environment).unwrap();
        stage(&mut authority, Command::GroupDelete(GroupDelete { group: "sg-1".into() })).unwrap();
        stage(&mut authority, group("sg-2", "vpc-1")).unwrap();
        let kept = authority.commit().unwrap();
        let groups = kept.delta.as_ref().map(|delta| delta.groups.len());
        assert_eq!(groups, Some(1), "a group that came and went is nobody's business");
        assert_eq!(authority.model().groups.len(), 1);
        authority.undo(kept).unwrap();
        assert_eq!((authority.model(), authority.desired()), (&before, &ran));
        assert_eq!(Model::load(Quotas::default(), authority.store.load().unwrap()), before);
    }
}
