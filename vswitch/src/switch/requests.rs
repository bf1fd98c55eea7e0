//! Maps requests of the control protocol to calls of the switch, and results to replies.

use crate::port::link_state::LinkState;
use crate::switch::{PortRecord, Switch};
use crate::worker::driver::WorkerDriver;
use crate::worker::mailbox::{WorkerAnswer, WorkerQuery};
use vswitch_core::config::desired::Direction;
use vswitch_core::config::explanation::{DecisionReport, Explanation};
use vswitch_core::config::ids::{EniId, EniIndex};
use vswitch_core::config::protocol::{
    Applied, Delta, PacketDescription, RequestBody, Status, SwitchReply, SwitchReplyBody, SwitchRequest, VERSION,
};
use vswitch_core::config::refusal::Refusal;
use vswitch_core::packet::verdict::{DropReason, Verdict};

impl Switch {
    /// Answers one request.
    pub fn answer(&mut self, request: SwitchRequest, driver: &mut dyn WorkerDriver) -> SwitchReply {
        let body = match request.body {
            RequestBody::Status => Ok(SwitchReplyBody::Status(self.status(driver))),
            RequestBody::Replace { generation, desired } => {
                self.apply(desired, generation, driver).map(SwitchReplyBody::Applied)
            }
            RequestBody::Apply { base, generation, delta } => {
                self.change_from(base, generation, delta, driver).map(SwitchReplyBody::Applied)
            }
            RequestBody::Ports => Ok(SwitchReplyBody::Ports { ports: self.port_statuses() }),
            RequestBody::Stats { eni } => self.check_known(eni.as_ref()).map(|()| {
                let enis = self.eni_stats(eni.as_ref(), driver);
                SwitchReplyBody::Stats { enis }
            }),
            RequestBody::Flows { selection, cursor, limit } => self
                .check_known(selection.eni.as_ref())
                .and_then(|()| self.list_flows(&selection, cursor, limit, driver)),
            RequestBody::FlushFlows { selection, cursor } => {
                self.check_known(selection.eni.as_ref()).and_then(|()| self.flush_flows(&selection, cursor, driver))
            }
            RequestBody::Regroup { workers, lanes } => {
                self.resize(workers, lanes, driver).map(SwitchReplyBody::Regrouped)
            }
            RequestBody::Explain { packet } => {
                self.explain(packet, driver).map(SwitchReplyBody::Explained).map_err(|refusal| vec![refusal])
            }
        };
        let body = body.unwrap_or_else(|refusals| SwitchReplyBody::Refused { refusals });
        SwitchReply { version: VERSION, id: request.id, body }
    }

    fn status(&mut self, driver: &mut dyn WorkerDriver) -> Status {
        let workers = self.worker_statuses(driver);
        Status {
            generation: self.generation(),
            process_id: std::process::id(),
            uptime_ms: driver.now().as_ns() / 1_000_000,
            enis: self.compiler.desired().enis.len(),
            flows: workers.iter().map(|worker| worker.flows).sum(),
            lanes: self.rx_queues(),
            lanes_max: self.rx_queues_max(),
            workers,
        }
    }

    fn change_from(
        &mut self,
        base: u64,
        generation: u64,
        delta: Delta,
        driver: &mut dyn WorkerDriver,
    ) -> Result<Applied, Vec<Refusal>> {
        let running = self.generation();
        // Applied to another state, the delta would yield one that nobody has checked.
        if base != running {
            let text = format!("generation {running} is running, not {base}; send the whole state with replace");
            return Err(vec![Refusal::new("generation-mismatch", "base", text)]);
        }
        self.change(delta, generation, driver)
    }

    fn check_known(&self, eni: Option<&EniId>) -> Result<(), Vec<Refusal>> {
        match eni {
            Some(eni) => self.find(eni, &format!("enis/{eni}")).map(drop).map_err(|refusal| vec![refusal]),
            None => Ok(()),
        }
    }

    fn find(&self, eni: &EniId, field: &str) -> Result<(usize, EniIndex), Refusal> {
        let missing = || Refusal::new("unknown", field, format!("there is no ENI {eni}"));
        self.placement.owner(eni).ok_or_else(missing)
    }

    /// Explains a packet by asking the workers that would evaluate it: egress at its sender's, ingress at its
    /// receiver's.
    fn explain(&mut self, packet: PacketDescription, driver: &mut dyn WorkerDriver) -> Result<Explanation, Refusal> {
        let receiver = packet.to.clone().map(|to| self.find(&to, "packet/to")).transpose()?;
        let mut decisions = Vec::new();
        let mut next = receiver.map(|(_, index)| index);
        let mut verdict = None;
        if let Some(from) = packet.from.clone() {
            let owner = self.find(&from, "packet/from")?;
            let (report, after) = self.explain_at(owner, Direction::Egress, &packet, driver)?;
            decisions.extend(report);
            match after {
                // The route decides who receives; another receiver in the question would explain a packet that cannot
                // exist.
                Verdict::Forward(to) if next.is_some_and(|next| next != to) => {
                    let name = self.snapshot.eni_id(to).map_or("another", EniId::as_str);
                    let text = format!("its route leads to {name}: name no receiver, or that one");
                    return Err(Refusal::new("invalid", "packet/to", text));
                }
                Verdict::Forward(to) => next = Some(to),
                ended => verdict = Some(ended),
            }
        }
        if verdict.is_none() {
            let Some(index) = next else {
                return Err(Refusal::new(
                    "invalid",
                    "packet/from",
                    "name the ENI that sends it, or the one that receives it",
                ));
            };
            let eni = self.snapshot.eni_id(index).cloned().unwrap_or_default();
            let owner = self.find(&eni, "packet/to")?;
            let (report, after) = self.explain_at(owner, Direction::Ingress, &packet, driver)?;
            decisions.extend(report);
            // A device that is set down accepts nothing, though its port is open.
            let is_set_down = || matches!(self.links([&eni].into_iter()).get(&eni), Some(Ok(LinkState::Down)));
            let is_up = self.ports.get(&eni).is_some_and(PortRecord::is_up) && !is_set_down();
            verdict =
                Some(if after == Verdict::Deliver && !is_up { Verdict::Drop(DropReason::PortDown) } else { after });
        }
        let verdict = verdict.unwrap_or(Verdict::Drop(DropReason::EniGone));
        Ok(Explanation { delivered: verdict == Verdict::Deliver, verdict: verdict_name(verdict).into(), decisions })
    }

    fn explain_at(
        &mut self,
        (worker, eni): (usize, EniIndex),
        direction: Direction,
        packet: &PacketDescription,
        driver: &mut dyn WorkerDriver,
    ) -> Result<(Option<DecisionReport>, Verdict), Refusal> {
        let query = WorkerQuery::Explain { eni, direction, packet: Box::new(packet.clone()) };
        match self.query(worker, query, driver) {
            Some(WorkerAnswer::Explained(explained)) => explained,
            _ => Err(Refusal::new("timeout", format!("workers/{worker}"), "the worker did not answer in time")),
        }
    }
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Forward(_) => "forward",
        Verdict::Deliver => "deliver",
        Verdict::Answer | Verdict::Serve(_) => "answer",
        Verdict::Wait => "wait",
        Verdict::Drop(reason) => reason.name(),
    }
}
