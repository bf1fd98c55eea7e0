//! Walks through the sessions of all workers, a page per request, so that both the work and the reply are bounded.

use crate::switch::Switch;
use crate::worker::driver::WorkerDriver;
use crate::worker::mailbox::{WorkerAnswer, WorkerQuery};
use vswitch_core::config::protocol::{FlowCursor, FlowSelection, SwitchReplyBody};
use vswitch_core::config::refusal::Refusal;

/// Sessions in one reply.
const FLOWS_PER_REPLY: usize = 4096;
/// Queries to workers for one request; each takes a bounded part of a turn.
const QUERIES_PER_REQUEST: usize = 256;

impl Switch {
    /// Returns one page of sessions.
    pub(crate) fn list_flows(
        &mut self,
        selection: &FlowSelection,
        cursor: Option<FlowCursor>,
        limit: usize,
        driver: &mut dyn WorkerDriver,
    ) -> Result<SwitchReplyBody, Vec<Refusal>> {
        // At least one, or the walk would never advance.
        let limit = limit.clamp(1, FLOWS_PER_REPLY);
        let mut flows = Vec::new();
        let next = self.walk(selection, cursor, |switch, FlowCursor { worker, place }| {
            if flows.len() >= limit {
                return Some(WalkStep::Pause);
            }
            let query = WorkerQuery::Flows { selection: selection.clone(), place, limit: limit - flows.len() };
            let Some(WorkerAnswer::Flows(page)) = switch.query(worker, query, driver) else { return None };
            flows.extend(page.flows);
            Some(WalkStep::On(page.next))
        })?;
        Ok(SwitchReplyBody::Flows { flows, next })
    }

    /// Ends the sessions in one part of the tables.
    pub(crate) fn flush_flows(
        &mut self,
        selection: &FlowSelection,
        cursor: Option<FlowCursor>,
        driver: &mut dyn WorkerDriver,
    ) -> Result<SwitchReplyBody, Vec<Refusal>> {
        let mut ended = 0;
        let next = self.walk(selection, cursor, |switch, FlowCursor { worker, place }| {
            let query = WorkerQuery::Flush { selection: selection.clone(), place };
            let Some(WorkerAnswer::Flushed { flows, next }) = switch.query(worker, query, driver) else { return None };
            ended += flows;
            Some(WalkStep::On(next))
        })?;
        Ok(SwitchReplyBody::Flushed { flows: ended, next })
    }

    /// Continues from worker to worker until none is left or the request has done its share. Returns where to continue,
    /// if anywhere.
    fn walk(
        &mut self,
        selection: &FlowSelection,
        cursor: Option<FlowCursor>,
        mut step: impl FnMut(&mut Self, FlowCursor) -> Option<WalkStep>,
    ) -> Result<Option<FlowCursor>, Vec<Refusal>> {
        // All sessions of an ENI are at its worker.
        let owner = selection.eni.as_ref().and_then(|eni| self.placement.owner(eni)).map(|(worker, _)| worker);
        let (first, behind) = owner.map_or((0, self.workers.len()), |worker| (worker, worker + 1));
        let mut at = cursor.unwrap_or(FlowCursor { worker: first, place: 0 });
        for _ in 0..QUERIES_PER_REQUEST {
            if at.worker >= behind {
                return Ok(None);
            }
            match step(self, at) {
                Some(WalkStep::On(Some(place))) => at.place = place,
                Some(WalkStep::On(None)) => at = FlowCursor { worker: at.worker + 1, place: 0 },
                Some(WalkStep::Pause) => break,
                None => {
                    let object = format!("workers/{}", at.worker);
                    return Err(vec![Refusal::new("timeout", object, "the worker did not answer in time")]);
                }
            }
        }
        Ok((at.worker < behind).then_some(at))
    }
}

enum WalkStep {
    /// Continue here, or with the next worker if this one is done.
    On(Option<u64>),
    /// The reply is full.
    Pause,
}
