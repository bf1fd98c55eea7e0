//! Collects what workers and ports report into the reports of the protocol.

use crate::port::peer_state::PeerState;
use crate::switch::{PortRecord, PortState, Switch};
use crate::worker::driver::WorkerDriver;
use crate::worker::mailbox::{WorkerAnswer, WorkerQuery};
use vswitch_core::config::ids::{EniId, EniIndex, UplinkId};
use vswitch_core::config::protocol::{EniStats, GuestAsked, PortStatus, WorkerStatus};
use vswitch_core::config::services::frame::ServedEni;
use vswitch_core::hw::time::Time;

/// How many ENIs a worker reports on in one turn, since packets have to wait meanwhile.
const ENIS_PER_QUERY: usize = 64;
const NS_PER_MS: u64 = 1_000_000;

impl Switch {
    /// The current state of all ports. It includes devices that were set down or moved while their ports were open.
    pub fn port_statuses(&self) -> Vec<PortStatus> {
        let mut links = self.links(self.ports.keys());
        let status = |(eni, record): (&EniId, &PortRecord)| {
            let status = port_status(eni, record);
            let problem = match links.remove(eni) {
                Some(Ok(link)) => link.problem(&record.spec),
                Some(Err(error)) => Some(error.to_string()),
                None => record.peer.as_ref().filter(|_| status.up).and_then(PeerState::problem),
            };
            // A device that is set down is reported as down, though its port is open and in order.
            PortStatus { up: status.up && problem.is_none(), error: problem.or(status.error.clone()), ..status }
        };
        self.ports.iter().map(status).collect()
    }

    /// The ports that are configured but not up.
    pub fn ports_down(&self) -> Vec<PortStatus> {
        let is_down = |(_, record): &(&EniId, &PortRecord)| matches!(record.state, PortState::Down { .. });
        let records = self.down.iter().filter_map(|eni| self.ports.get_key_value(eni));
        records.filter(is_down).map(|(eni, record)| port_status(eni, record)).collect()
    }

    /// The load of each worker.
    pub fn worker_statuses(&mut self, driver: &mut dyn WorkerDriver) -> Vec<WorkerStatus> {
        let workers = self.workers.len();
        let status = |worker: usize| {
            let (core, enis) = (self.workers[worker].core, self.placement.load(worker));
            // A worker that does not answer is left out, rather than reported with zeros.
            let Some(WorkerAnswer::Load { flows, flows_max, turn_stats, phases }) =
                self.query(worker, WorkerQuery::Load, driver)
            else {
                return None;
            };
            let (turns_busy, turns_idle, sleeps) = (turn_stats.turns_busy, turn_stats.turns_idle, turn_stats.sleeps);
            let table_percent = self.workers[worker].mailbox.table_percent();
            Some(WorkerStatus { core, enis, flows, flows_max, table_percent, turns_busy, turns_idle, sleeps, phases })
        };
        (0..workers).filter_map(status).collect()
    }

    /// The counters of these ENIs, ordered by name.
    pub fn eni_stats(&mut self, only: Option<&EniId>, driver: &mut dyn WorkerDriver) -> Vec<EniStats> {
        let mut by_worker: Vec<Vec<EniIndex>> = vec![Vec::new(); self.workers.len()];
        let desired = self.compiler.desired();
        let every = desired.enis.keys().cloned().chain(desired.uplinks.keys().map(UplinkId::interface));
        let every = every.filter(|eni| only.is_none_or(|only| only == eni));
        for (worker, index) in every.filter_map(|eni| self.placement.owner(&eni)) {
            by_worker[worker].push(index);
        }
        let mut stats = Vec::new();
        for (worker, enis) in by_worker.into_iter().enumerate() {
            for chunk in enis.chunks(ENIS_PER_QUERY) {
                if let Some(WorkerAnswer::Stats(some)) = self.query(worker, WorkerQuery::Stats(chunk.to_vec()), driver)
                {
                    stats.extend(some);
                }
            }
        }
        for eni in &mut stats {
            eni.asked = self.asked(&eni.eni, driver.now());
        }
        // Workers answer by index, people look for names.
        stats.sort_by(|one, other| one.eni.cmp(&other.eni));
        stats
    }
}

impl Switch {
    /// How long ago the guest of an ENI was told what it asked for.
    fn asked(&self, eni: &EniId, now: Time) -> GuestAsked {
        let owner = self.placement.owner(eni).zip(self.placement.eni_generation(eni));
        let Some(((_, index), generation)) = owner else { return GuestAsked::default() };
        let told = self.services.thread.told(ServedEni { index, generation });
        let [dhcp_ms_ago, dhcp6_ms_ago, router_ms_ago] =
            told.map(|told| told.map(|told| now.as_ns().saturating_sub(told.as_ns()) / NS_PER_MS));
        GuestAsked { dhcp_ms_ago, dhcp6_ms_ago, router_ms_ago }
    }
}

fn port_status(eni: &EniId, record: &PortRecord) -> PortStatus {
    let device = record.spec.port.resource();
    let error = match &record.state {
        PortState::Up => None,
        PortState::Down { error, .. } => Some(error.clone()),
    };
    PortStatus {
        eni: eni.clone(),
        kind: record.spec.kind().into(),
        device: device.map(|(device, _)| device.to_owned()),
        namespace: device.and_then(|(_, namespace)| namespace.map(str::to_owned)),
        worker: record.worker,
        up: error.is_none(),
        error,
        failures: record.failures + record.peer.as_ref().map_or(0, PeerState::faults),
    }
}
