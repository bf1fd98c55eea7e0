//! The control thread's half of the switch: the desired state, the ports, and the steps from one generation to the
//! next.
//!
//! It knows workers only by their mailboxes and doorbells, so it works with worker threads and with manually driven
//! workers alike. How to wait for them is up to the [`WorkerDriver`].

pub mod control_socket;
mod flows;
pub mod placement;
mod ports;
pub mod reconcile;
mod requests;
mod resize;
mod stats;

use crate::exchange::doorbell::Doorbell;
use crate::exchange::handoff;
use crate::exchange::publish::{Publication, Published};
use crate::exchange::services::ServiceLinks;
use crate::os::namespace;
use crate::os::run_dir::RunDir;
use crate::port::Port;
use crate::port::buffer_pool::BufferPool;
use crate::port::factory::PortFactory;
use crate::port::peer_state::PeerState;
use crate::port::spec::PortSpec;
use crate::port::tap::persistent;
use crate::services::Services;
use crate::services::relay::{FrameRelay, FrameSocket};
use crate::switch::placement::Placement;
use crate::switch::reconcile::{PortStep, plan, port_specs};
use crate::worker::Worker;
use crate::worker::driver::{WorkerDriver, WorkerEndpoint};
use crate::worker::mailbox::{Mailbox, WorkerAnswer, WorkerCommand, WorkerQuery};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use vswitch_core::compile::Compiler;
use vswitch_core::compile::snapshot::Snapshot;
use vswitch_core::config::desired::{Desired, DesiredEni, PacketPort, TapPort};
use vswitch_core::config::ids::{EniId, EniIndex, UplinkId, VpcId};
use vswitch_core::config::limits::{TABLE_WARNING_PERCENT, WORKERS_MAX};
use vswitch_core::config::protocol::{Applied, Delta};
use vswitch_core::config::refusal::Refusal;
use vswitch_core::hw::time::Time;
use vswitch_core::tables::cow_array::CowArray;

/// How long the control thread waits for a worker, ns.
const TIMEOUT_NS: u64 = 5_000_000_000;
/// The pause before a failed port is opened again, ns; it doubles with each attempt.
const RETRY_FIRST_NS: u64 = 100_000_000;
/// The longest pause between two attempts, ns.
const RETRY_MAX_NS: u64 = 5_000_000_000;
/// How many ports are retried at once before other work gets its turn.
const RETRIES_PER_TICK: usize = 16;
/// How often the namespaces of ports are checked, ns. The kernel keeps a namespace alive while a TAP device of it is
/// open, so the device alone does not show that its name is gone.
const NAMESPACE_CHECK_NS: u64 = 1_000_000_000;
/// How many interfaces are checked each time for being kept from the kernel, in rotation.
const ISOLATION_CHECKS_MAX: usize = 16;

/// How many threads close ports if many are closed at once.
const CLOSING_THREADS: usize = 16;

/// The configuration of a switch.
#[derive(Clone, Debug)]
pub struct SwitchConfig {
    /// The number of workers.
    pub workers: usize,
    /// How many sessions each worker has room for.
    pub flows_max_per_worker: usize,
    /// The secret of the connection tables' hash.
    pub secret: [u64; 2],
    /// How ports are opened.
    pub ports: PortFactory,
}

#[derive(Debug)]
pub(crate) enum PortState {
    Up,
    Down { error: String, retry_at: Time, pause_ns: u64 },
}

#[derive(Debug)]
pub(crate) struct PortRecord {
    pub(crate) spec: PortSpec,
    pub(crate) worker: usize,
    pub(crate) slot: u32,
    /// The rx queues after the first: their workers and the slots there.
    rx_queues: Vec<(usize, u32)>,
    pub(crate) index: EniIndex,
    pub(crate) state: PortState,
    pub(crate) failures: u64,
    namespace: Option<namespace::Identity>,
    /// The kernel's index of its device.
    device: Option<u32>,
    /// What is known about the program at the other end.
    peer: Option<PeerState>,
}

impl PortRecord {
    fn namespace_name(&self) -> Option<&str> {
        self.spec.device().and_then(|(_, namespace)| namespace)
    }
}

pub(crate) struct WorkerHandle {
    pub(crate) mailbox: Arc<Mailbox>,
    doorbell: Arc<Doorbell>,
    /// Whether the warning about its filling table was given.
    is_warned: bool,
    registry: Option<mio::Registry>,
    pub(crate) core: Option<usize>,
}

/// The switch without its workers.
pub struct Switch {
    factory: PortFactory,
    publication: Arc<Publication>,
    services: ServiceLinks,
    /// For creating further workers.
    flows_max_per_worker: usize,
    secret: [u64; 2],
    /// The memory of each worker's connection tables, bytes.
    worker_bytes: u64,
    control: Option<Arc<mio::Waker>>,
    pub(crate) workers: Vec<WorkerHandle>,
    pub(crate) compiler: Compiler,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) placement: Placement,
    pub(crate) ports: BTreeMap<EniId, PortRecord>,
    /// The ENIs whose ports went down. Ports that have come up since may still be among them.
    pub(crate) down: BTreeSet<EniId>,
    generation: u64,
    sequence: u64,
    tickets: u64,
    namespaces_checked: Time,
    /// The ENI whose interface was checked last.
    isolation_checked: Option<EniId>,
    /// Whether what an earlier process left behind was removed.
    has_removed_leftovers: bool,
}

impl fmt::Debug for Switch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (generation, ports) = (self.generation, self.ports.len());
        formatter.debug_struct("Switch").field("generation", &generation).field("ports", &ports).finish_non_exhaustive()
    }
}

/// Builds a switch of generation 0 and its workers. With an endpoint for each worker, every worker can be given to a
/// thread; without any, workers are driven manually. Events of workers wake `control`, and requests of guests
/// travel over `services`.
///
/// # Panics
/// If the number of workers is zero or above `WORKERS_MAX`.
pub fn assemble(
    config: SwitchConfig,
    endpoints: Vec<WorkerEndpoint>,
    control: Option<Arc<mio::Waker>>,
    services: ServiceLinks,
) -> (Switch, Vec<Worker>) {
    assert!((1..=WORKERS_MAX).contains(&config.workers), "a switch has 1 to {WORKERS_MAX} workers");
    let compiler = Compiler::new(config.secret);
    let snapshot = Arc::new(compiler.snapshot().clone());
    let first = Published { sequence: 0, snapshot: Arc::clone(&snapshot), locations: CowArray::default() };
    // The number of queues is fixed when a device is created, so later changes stay within this.
    let rx_queues_max = config.ports.queues();
    let mut switch = Switch {
        factory: PortFactory { rx_queues_max, ..config.ports },
        publication: Arc::new(Publication::new(WORKERS_MAX, first)),
        services,
        flows_max_per_worker: config.flows_max_per_worker,
        secret: config.secret,
        worker_bytes: 0,
        control,
        placement: Placement::new(config.workers),
        workers: Vec::new(),
        compiler,
        snapshot,
        ports: BTreeMap::new(),
        down: BTreeSet::new(),
        generation: 0,
        sequence: 0,
        tickets: 0,
        namespaces_checked: Time::default(),
        isolation_checked: None,
        has_removed_leftovers: false,
    };
    let (handles, mut workers): (Vec<_>, Vec<_>) = switch.create_workers(config.workers, endpoints).into_iter().unzip();
    switch.workers = handles;
    switch.worker_bytes = workers.first().map_or(0, Worker::flow_memory_bytes) as u64;
    let links = handoff::connect(workers.len());
    switch.connect(&mut workers, links, &mut BufferPool::default());
    (switch, workers)
}

impl Switch {
    /// The generation that all workers run.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The services that answer guests from what this switch publishes; to be turned by a thread, or by hand. `seed` spreads
    /// what they send unasked.
    pub fn services(&self, seed: u64) -> Services {
        Services::new(Arc::clone(&self.services.thread), Arc::clone(&self.publication), seed)
    }

    /// The exchange with the services process, which connects to `socket`; to be turned by a thread, or by hand.
    pub fn frame_relay(&self, socket: FrameSocket) -> FrameRelay {
        FrameRelay::new(Arc::clone(&self.services.process), Arc::clone(&self.publication), socket)
    }

    /// The policy that all workers run.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
    }

    /// Brings the switch to the state `desired`. When it returns, every worker evaluates by it, and no packet that
    /// older rules admitted is still inside.
    ///
    /// # Errors
    /// Every reason why the state is impossible; nothing has changed then. The code `timeout` means that a worker did
    /// not cross in time: the state is published, but the guarantee above is not given.
    pub fn apply(
        &mut self,
        desired: Desired,
        generation: u64,
        driver: &mut dyn WorkerDriver,
    ) -> Result<Applied, Vec<Refusal>> {
        let applied = self.change(Delta::between(self.compiler.desired(), &desired), generation, driver)?;
        // Only a whole state says what is not wanted any more.
        self.remove_leftovers();
        Ok(applied)
    }

    /// Applies `delta`, with the guarantee of [`Switch::apply`]. The cost depends on the objects in it only.
    ///
    /// # Errors
    /// As in [`Switch::apply`].
    pub fn change(
        &mut self,
        delta: Delta,
        generation: u64,
        driver: &mut dyn WorkerDriver,
    ) -> Result<Applied, Vec<Refusal>> {
        let started = driver.now();
        // Computed from the state before the change, which `apply` replaces.
        let affected = self.affected(&delta);
        self.snapshot = Arc::new(self.compiler.apply(delta, generation)?);
        let compiled = driver.now();
        let wanted = port_specs(self.compiler.desired(), &affected);
        let running =
            affected.iter().filter_map(|eni| Some((eni.clone(), self.ports.get(eni)?.spec.clone()))).collect();
        // A new ENI needs its worker before its port is opened.
        self.placement.update(affected.iter().map(|eni| (eni, self.compiler.eni_index(eni))));
        let mut leaving = BTreeMap::new();
        let mut closed = ClosedPorts { run_dir: self.factory.run_dir.clone(), ..ClosedPorts::default() };
        let mut barrier = Ok(0);
        for step in plan(&running, &wanted) {
            match step {
                PortStep::CloseFirst(eni) => {
                    if let Some(record) = self.ports.remove(&eni) {
                        self.close(record, &mut closed, driver);
                        // The device is needed by a port that the same change opens, so it has to be free before that.
                        closed.close();
                    }
                }
                PortStep::Open(eni) => {
                    // The old port stays in service until the new snapshot no longer names it.
                    if let Some(record) = self.ports.remove(&eni) {
                        leaving.insert(eni.clone(), record);
                    }
                    self.open(&eni, &wanted[&eni], driver);
                }
                PortStep::Publish => {
                    // Slots are entered before publishing: a port is live from the moment the snapshot names it.
                    self.note_slots(&affected);
                    barrier = self.publish(generation, driver);
                }
                PortStep::Adjust(eni) => self.adjust(&eni, &wanted[&eni], driver),
                PortStep::Close(eni) => {
                    if let Some(record) = leaving.remove(&eni).or_else(|| self.ports.remove(&eni)) {
                        // After the barrier no snapshot names the port, so no packet is on its way to it.
                        self.close(record, &mut closed, driver);
                    }
                }
            }
        }
        self.clean_up(closed);
        let compile_ns = compiled.as_ns() - started.as_ns();
        let applied = |barrier_ns| Applied { generation, compile_ns, barrier_ns, ports_down: self.ports_down() };
        barrier.map(applied).map_err(|refusal| vec![refusal])
    }

    /// The ENIs whose ports a change may affect. It includes those in subnets that changed, because guests are told the
    /// router's addresses.
    fn affected(&self, delta: &Delta) -> BTreeSet<EniId> {
        let desired = self.compiler.desired();
        let named = || delta.enis.keys().cloned().chain(self.affected_uplinks(delta));
        let router_changes = |vpc: &VpcId| {
            let now = delta.vpcs.get(vpc).and_then(Option::as_ref);
            now.zip(desired.vpcs.get(vpc)).is_some_and(|(now, before)| now.gateway_mac != before.gateway_mac)
        };
        let routers: BTreeSet<_> = delta.vpcs.keys().filter(|vpc| router_changes(vpc)).collect();
        if delta.vswitches.is_empty() && routers.is_empty() {
            return named().collect();
        }
        let is_concerned = |eni: &DesiredEni| {
            let vswitch = || desired.vswitches.get(&eni.vswitch);
            delta.vswitches.contains_key(&eni.vswitch) || vswitch().is_some_and(|it| routers.contains(&it.vpc))
        };
        let within = desired.enis.iter().filter(|(_, eni)| is_concerned(eni));
        named().chain(within.map(|(id, _)| id.clone())).collect()
    }

    /// The uplinks, by the names of their interfaces, whose ports a change may affect: the hosts behind them have routes to
    /// the subnets of their VPC.
    fn affected_uplinks(&self, delta: &Delta) -> Vec<EniId> {
        let subnets_change = !delta.vswitches.is_empty();
        let all = self.compiler.desired().uplinks.keys().filter(move |_| subnets_change);
        delta.uplinks.keys().chain(all).map(UplinkId::interface).collect()
    }

    /// Enters the ports of these ENIs in the table of locations.
    fn note_slots(&mut self, enis: &BTreeSet<EniId>) {
        for eni in enis {
            // A port that is to be closed ends with the state that had it, not when its worker returns it.
            let desired = self.compiler.desired();
            let is_uplink = desired.uplinks.contains_key(&UplinkId::from(eni.as_str()));
            let stays = is_uplink || desired.enis.get(eni).is_some_and(|eni| eni.port.is_some());
            let slot = self.ports.get(eni).filter(|_| stays).map(|record| record.slot);
            self.placement.set_slot(eni, slot);
        }
    }

    fn publish(&mut self, generation: u64, driver: &mut dyn WorkerDriver) -> Result<u64, Refusal> {
        let started = driver.now();
        self.sequence += 1;
        let (sequence, locations) = (self.sequence, self.placement.table());
        self.publication.publish(Published { sequence, snapshot: Arc::clone(&self.snapshot), locations });
        // Also if a worker turns out to be late: the state is published and cannot be taken back.
        self.generation = generation;
        let (publication, workers) = (Arc::clone(&self.publication), self.workers.len());
        if workers == 1 {
            // A single worker waits for no other, and drains in the turn in which it crosses.
            publication.request_drain(sequence);
        }
        self.ring_all();
        // Crossing first: only then can no ring get another packet of the old rules.
        let crossed = || publication.first_not_crossed(workers, sequence).is_none().then_some(());
        if wait_for(driver, crossed).is_some() {
            if workers > 1 {
                publication.request_drain(sequence);
                self.ring_all();
            }
            let drained = || publication.first_not_drained(workers, sequence).is_none().then_some(());
            wait_for(driver, drained);
            // Ports that could not send what they held are closed here, which drops it.
            self.take_failures(driver.now());
        }
        // Freed by this thread, so that no worker spends packet time on it.
        publication.free_retired();
        let late = publication.first_not_crossed(workers, sequence);
        let late = late.or_else(|| publication.first_not_drained(workers, sequence));
        match late {
            None => Ok(driver.now().as_ns() - started.as_ns()),
            Some(worker) => {
                let text =
                    format!("published, but worker {worker} did not follow within {} s", TIMEOUT_NS / 1_000_000_000);
                Err(Refusal::new("timeout", format!("workers/{worker}"), text))
            }
        }
    }

    /// Does what is due: handles failures that workers reported and namespaces that are gone, and retries ports.
    pub fn tick(&mut self, driver: &mut dyn WorkerDriver) {
        self.take_failures(driver.now());
        let now = driver.now();
        if now.as_ns() - self.namespaces_checked.as_ns() >= NAMESPACE_CHECK_NS {
            self.namespaces_checked = now;
            self.check_devices(driver);
            self.check_isolation(driver);
        }
        let is_due =
            |record: &PortRecord| matches!(&record.state, PortState::Down { retry_at, .. } if *retry_at <= now);
        let due = self.down.iter().filter(|eni| self.ports.get(*eni).is_some_and(is_due)).cloned();
        for eni in due.take(RETRIES_PER_TICK).collect::<Vec<_>>() {
            self.retry(&eni, driver);
        }
        self.publication.free_retired();
        self.warn_of_full_tables();
    }

    /// Warns once when a table fills up, and again only after it has emptied.
    fn warn_of_full_tables(&mut self) {
        for (number, worker) in self.workers.iter_mut().enumerate() {
            let percent = worker.mailbox.table_percent();
            if percent >= TABLE_WARNING_PERCENT && !worker.is_warned {
                log::warn!(
                    "warning: the session table of worker {number} is {percent} % full; \
                     sluice flow top tells who fills it"
                );
                worker.is_warned = true;
            // Half the threshold below, so that a level that swings around it does not warn each time.
            } else if percent < TABLE_WARNING_PERCENT / 2 {
                worker.is_warned = false;
            }
        }
    }

    /// When [`Switch::tick`] has something to do next, unless a worker wakes the control thread first.
    pub fn next_tick(&self) -> Option<Time> {
        let retry = |record: &PortRecord| match &record.state {
            PortState::Down { retry_at, .. } => Some(*retry_at),
            PortState::Up => None,
        };
        let retries = self.down.iter().filter_map(|eni| retry(self.ports.get(eni)?));
        // Only ports whose surroundings can change without an event need a timer.
        let is_checked = |record: &PortRecord| {
            let may_change = record.namespace.is_some()
                || record.spec.interface_that_exists().is_some()
                || record.spec.macvtap().is_some();
            may_change && matches!(record.state, PortState::Up)
        };
        let check = self.ports.values().any(is_checked).then(|| self.namespaces_checked + NAMESPACE_CHECK_NS);
        retries.chain(check).min()
    }

    /// Closes all ports. Namespaces and devices that the switch made remain, with whoever uses them, and existing
    /// interfaces stay isolated from the host's kernel, so that no guest bypasses the switch. The next switch finds
    /// them.
    pub fn close_all(&mut self, driver: &mut dyn WorkerDriver) {
        let mut closed = ClosedPorts { run_dir: self.factory.run_dir.clone(), ..ClosedPorts::default() };
        for (_, record) in std::mem::take(&mut self.ports) {
            self.close(record, &mut closed, driver);
        }
        closed.drop_ports();
    }

    /// Sends a query to a worker and waits for the answer.
    pub(crate) fn query(
        &mut self,
        worker: usize,
        query: WorkerQuery,
        driver: &mut dyn WorkerDriver,
    ) -> Option<WorkerAnswer> {
        let ticket = self.next_ticket();
        self.command(worker, WorkerCommand::Query { query, ticket }, driver)?;
        wait_for(driver, || self.workers[worker].mailbox.take_answer(ticket))
    }

    fn next_ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    fn command(&self, worker: usize, command: WorkerCommand, driver: &mut dyn WorkerDriver) -> Option<()> {
        let mut command = Some(command);
        let mailbox = &self.workers[worker].mailbox;
        let given = wait_for(driver, || match command.take().map(|command| mailbox.command(command)) {
            Some(Err(refused)) => {
                command = Some(refused);
                None
            }
            _ => Some(()),
        });
        // Rung even if the command was refused: the worker has commands to take.
        self.workers[worker].doorbell.ring();
        given
    }

    fn ring_all(&self) {
        self.workers.iter().for_each(|worker| worker.doorbell.ring());
        self.services.thread.doorbell().ring();
    }
}

/// Ports that no worker holds any more, and what may have to be removed with them: namespaces, and the isolation of
/// interfaces from the kernel.
#[derive(Debug, Default)]
struct ClosedPorts {
    ports: Vec<Box<dyn Port>>,
    /// Devices that the switch may have to remove once they are closed.
    devices: Vec<TapPort>,
    namespaces: BTreeSet<String>,
    interfaces: Vec<PacketPort>,
    run_dir: Option<RunDir>,
}

impl ClosedPorts {
    /// The kernel takes tens of milliseconds to release a device, mostly waiting, so many are closed at once.
    fn close(&mut self) {
        self.ports.iter_mut().for_each(|port| port.retire());
        self.drop_ports();
        let Some(run_dir) = &self.run_dir else { return };
        for tap in self.devices.drain(..) {
            if let Err(error) = persistent::remove(&tap, run_dir) {
                log::warn!("{error}");
            }
        }
    }

    fn drop_ports(&mut self) {
        let length = self.ports.len().div_ceil(CLOSING_THREADS).max(1);
        std::thread::scope(|scope| {
            while !self.ports.is_empty() {
                let some = self.ports.split_off(self.ports.len().saturating_sub(length));
                // Without a thread they are dropped here, one after another.
                let _ = std::thread::Builder::new().spawn_scoped(scope, move || drop(some));
            }
        });
    }
}

/// Asks repeatedly until there is an answer; returns `None` after the timeout.
fn wait_for<T>(driver: &mut dyn WorkerDriver, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = driver.now() + TIMEOUT_NS;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        // Checked after asking, so that an answer that came during the last wait counts.
        if driver.now() >= deadline {
            return None;
        }
        driver.wait();
    }
}
