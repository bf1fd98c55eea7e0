//! Changes: decided one after another, stored and applied together.
//!
//! While the forwarding plane is busy, changes accumulate. Then each is decided on the state that the previous ones
//! lead to, one commit stores them all, one message goes to the forwarding plane, and its acknowledgement answers each.
//! If it refuses them together, each is tried alone, so that only the one at fault is refused.

use super::calls::CallResult;
use super::{ReplyTarget, ResponseBody, Server};
use crate::command::Command;
use crate::ecs::{Call, enis_affected, guest_record};
use crate::environment::Environment;
use crate::error::{ApiError, ErrorKind, FORWARDING_REFUSED, FORWARDING_UNAVAILABLE, INTERNAL_ERROR};
use crate::model::Event;
use crate::socket::protocol::{Changed, Forwarding, ReplyBody, refusals_text};
use crate::state::switch_link::{LinkChange, LinkOutcome};
use crate::state::transaction::{Committed, Summary};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;
use vswitch_core::config::ids::EniId;

/// How many changes are stored and sent together.
const CHANGES_AT_ONCE_MAX: usize = 256;

/// A requested change.
pub(super) struct QueuedChange {
    pub(super) origin: ReplyTarget,
    pub(super) source: ChangeSource,
    pub(super) asked: Instant,
    /// Whether it was refused together with others, any of which may be at fault.
    pub(super) alone: bool,
}

pub(super) enum ChangeSource {
    Command(Box<Command>),
    Call(Arc<Call>),
}

/// A change that is being made, and what will be reported about it.
struct PendingChange {
    queued: QueuedChange,
    summary: Summary,
    answer: ResponseBody,
}

/// Changes that wait for the forwarding plane together.
pub(super) struct InFlight {
    pub(super) ticket: u64,
    kept: Committed,
    changes: Vec<PendingChange>,
}

impl InFlight {
    /// Whether it affects packets.
    pub(super) fn affects_forwarding(&self) -> bool {
        self.kept.delta.is_some()
    }
}

impl Server {
    /// Makes the waiting changes, together if possible, until some have to wait for the forwarding plane.
    pub(super) fn change_next(&mut self) {
        while self.in_flight.is_none() && !self.stopping && !self.waiting.is_empty() {
            let changes = self.stage_waiting();
            if changes.is_empty() {
                continue;
            }
            match self.state.commit() {
                // Only what the forwarding plane would refuse may be the fault of one of several.
                Err(error) if error.code == FORWARDING_REFUSED.code => self.retry_individually(changes, error),
                Err(error) => self.refuse_all(changes, &error),
                Ok(kept) => {
                    self.tell_records(kept.touched());
                    self.send(changes, kept);
                }
            }
        }
    }

    /// Decides the waiting changes in order, each on the state that the previous ones lead to.
    fn stage_waiting(&mut self) -> Vec<PendingChange> {
        let mut changes: Vec<PendingChange> = Vec::new();
        while changes.len() < CHANGES_AT_ONCE_MAX {
            let is_alone = |queued: &QueuedChange| queued.alone;
            // A change that is tried alone is committed alone.
            if !changes.is_empty() && (is_alone(&changes[0].queued) || self.waiting.front().is_some_and(is_alone)) {
                break;
            }
            let Some(queued) = self.waiting.pop_front() else { break };
            let staged = match &queued.source {
                ChangeSource::Command(command) => {
                    let staged = self.state.stage(command, &Environment::real(), |_| Vec::new());
                    staged.map(|summary| (summary, ResponseBody::new()))
                }
                ChangeSource::Call(call) => match self.perform(&Arc::clone(call)) {
                    Ok(CallResult::Staged(summary, answer)) => Ok((summary, answer)),
                    // The original of a repeated request may still be waiting for the forwarding plane.
                    Ok(CallResult::Answer(answer)) => Ok((Summary::default(), answer)),
                    Err(error) => Err(error),
                },
            };
            match staged {
                Ok((summary, answer)) => changes.push(PendingChange { queued, summary, answer }),
                Err(error) => self.refuse(queued.origin, error),
            }
        }
        changes
    }

    /// Passes the changes to the link, including those that do not affect packets or change nothing: their replies
    /// depend on the state before them, of which something may not be in force yet.
    fn send(&mut self, changes: Vec<PendingChange>, kept: Committed) {
        let ticket = self.ticket();
        // The oldest request determines how long the forwarding plane may take.
        let asked = changes.iter().map(|change| change.queued.asked).min().unwrap_or_else(Instant::now);
        match self.link.change(LinkChange { ticket, delta: kept.delta.clone().unwrap_or_default(), asked }) {
            Ok(()) => self.in_flight = Some(InFlight { ticket, kept, changes }),
            // Nothing is in doubt about the change itself: it is stored, and affects no packet.
            Err(_) if kept.delta.is_none() => {
                self.changed(changes, &Forwarding::Pending { reason: "too many requests wait for it".into() });
            }
            Err(_) => {
                let error = self.take_back(kept, FORWARDING_UNAVAILABLE, "too many requests wait for it");
                self.refuse_all(changes, &error);
            }
        }
    }

    /// Tells the services process what became of the ENIs that changes of these objects concern.
    fn tell_records(&self, touched: &[Event]) {
        let (model, settings) = (self.state.model(), &self.settings);
        let affected: BTreeSet<EniId> = touched.iter().flat_map(|event| enis_affected(model, event)).collect();
        self.record_feed
            .tell(affected.into_iter().map(|id| (id.clone(), guest_record(model, settings, &id))).collect());
    }

    /// Undoes what the forwarding plane does not run, and phrases the refusal.
    fn take_back(&mut self, kept: Committed, kind: ErrorKind, reason: &str) -> ApiError {
        // Undoing is a commit of its own and may fail for lack of space.
        let touched = kept.touched().to_vec();
        let undone = self.state.undo(kept);
        self.tell_records(&touched);
        match undone {
            Ok(()) => kind.error(format!("nothing was changed, because of the forwarding plane: {reason}")),
            Err(error) => {
                let message =
                    format!("the forwarding plane cannot run the change ({reason}), and it stays stored: {error}");
                INTERNAL_ERROR.error(message)
            }
        }
    }

    /// Refuses a change for good. Of several, each is tried again alone, so that only the one at fault is refused.
    fn retry_individually(&mut self, changes: Vec<PendingChange>, error: ApiError) {
        if changes.len() == 1 {
            return self.refuse_all(changes, &error);
        }
        // In reverse, each in front of the others, so that they keep their order.
        for PendingChange { queued, .. } in changes.into_iter().rev() {
            self.waiting.push_front(QueuedChange { alone: true, ..queued });
        }
    }

    fn refuse_all(&mut self, changes: Vec<PendingChange>, error: &ApiError) {
        for PendingChange { queued, .. } in changes {
            self.refuse(queued.origin, error.clone());
        }
    }

    pub(super) fn finish(&mut self, in_flight: InFlight, outcome: LinkOutcome) {
        let InFlight { kept, changes, .. } = in_flight;
        match outcome {
            LinkOutcome::Applied(applied) => self.changed(changes, &Forwarding::Applied(applied)),
            LinkOutcome::InForce => self.changed(changes, &Forwarding::Unchanged),
            LinkOutcome::Pending(reason) => self.changed(changes, &Forwarding::Pending { reason }),
            // None of these is refused, but something they depend on.
            LinkOutcome::Refused(refusals) if kept.delta.is_none() => {
                let reason = format!("the forwarding plane refused: {}", refusals_text(&refusals));
                self.changed(changes, &Forwarding::Pending { reason });
            }
            LinkOutcome::Refused(refusals) => {
                let error = self.take_back(kept, FORWARDING_REFUSED, &refusals_text(&refusals));
                // A worker that does not follow is not the fault of a change, and a change that is kept cannot be made
                // again.
                let is_blame =
                    error.code == FORWARDING_REFUSED.code && refusals.iter().all(|one| one.code != "timeout");
                match is_blame {
                    true => self.retry_individually(changes, error),
                    false => self.refuse_all(changes, &error),
                }
            }
        }
    }

    fn changed(&mut self, changes: Vec<PendingChange>, forwarding: &Forwarding) {
        // After the forwarding plane, which makes the device.
        let more = self.masquerade.converge(self.state.model());
        for PendingChange { queued, summary, answer } in changes {
            let Summary { objects, mut warnings } = summary;
            warnings.extend(more.iter().cloned());
            match queued.origin {
                ReplyTarget::Socket { .. } => {
                    let forwarding = forwarding.clone();
                    self.reply(queued.origin, ReplyBody::Changed(Changed { objects, warnings, forwarding }));
                }
                ReplyTarget::Http(_) => {
                    // The cloud's responses have no field for them.
                    warnings.iter().for_each(|warning| log::warn!("{warning}"));
                    let pending = match forwarding {
                        Forwarding::Pending { reason } => Some(reason.clone()),
                        Forwarding::Applied(_) | Forwarding::Unchanged => None,
                    };
                    self.answer_call(queued.origin, Ok(answer), pending);
                }
            }
        }
    }
}
