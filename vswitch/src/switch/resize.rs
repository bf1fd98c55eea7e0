//! Changes the number of workers or rx queues while traffic flows.
//!
//! Whatever can fail for lack of memory or threads is done first. Then all workers are stopped between two turns:
//! packets on their way between them arrive, ENIs move with their sessions and ports, and the workers continue. In the
//! meantime frames wait in the devices.

use super::{Switch, WorkerHandle};
use crate::exchange::doorbell::Doorbell;
use crate::exchange::handoff::{self, WorkerLinks};
use crate::exchange::publish::Published;
use crate::os::sys::advise_huge_pages;
use crate::port::buffer_pool::BufferPool;
use crate::worker::driver::{WorkerDriver, WorkerEndpoint};
use crate::worker::mailbox::Mailbox;
use crate::worker::{Doorbells, Worker};
use mio::unix::SourceFd;
use mio::{Interest, Token};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use vswitch_core::config::ids::EniId;
use vswitch_core::config::limits::WORKERS_MAX;
use vswitch_core::config::protocol::Regrouped;
use vswitch_core::config::refusal::Refusal;
use vswitch_core::datapath::migrate::{Move, NoRoom, migrate};
use vswitch_core::datapath::shard::Shard;
use vswitch_core::hw::time::Time;

/// How often workers are turned at most to deliver what is on its way between them. A packet crosses at most twice, but
/// some wait for buffers that return with others.
const ROUNDS_MAX: usize = 4096;

/// What is decided and allocated before any worker is stopped, to keep the pause short.
struct ResizePlan {
    moves: Vec<(EniId, Move)>,
    workers: usize,
    rx_queues: usize,
    /// The new workers.
    created: Vec<(WorkerHandle, Worker)>,
    links: Vec<WorkerLinks>,
    /// Buffers for workers that lack some; afterwards, buffers that are no longer needed.
    spare: BufferPool,
    /// Afterwards, the workers that are no longer needed.
    surplus: Vec<Worker>,
}

impl Switch {
    /// Makes `workers` workers forward, of which `rx_queues` receive for each port (unchanged if `None`). ENIs move
    /// with their sessions, so that no worker has two more than another. Nothing that a worker has taken from a port is
    /// lost, and flows stay in order.
    ///
    /// # Errors
    /// Why it is impossible; nothing has changed then.
    pub fn resize(
        &mut self,
        workers: usize,
        rx_queues: Option<usize>,
        driver: &mut dyn WorkerDriver,
    ) -> Result<Regrouped, Vec<Refusal>> {
        let rx_queues = rx_queues.unwrap_or_else(|| self.rx_queues());
        // Everything that can fail for lack of resources comes before the pause, when nothing has to be undone.
        self.check_resize(workers, rx_queues).map_err(|refusal| vec![refusal])?;
        let reserved = driver.reserve(workers).map_err(|error| {
            let text = format!("{workers} workers are not possible, and nothing has changed: {error}");
            vec![Refusal::new("limit", "workers", text)]
        })?;
        let mut plan = ResizePlan {
            moves: self.placement.moves_to(workers),
            workers,
            rx_queues,
            created: self.create_workers(workers, reserved),
            links: handoff::connect(workers),
            spare: BufferPool::new(handoff::buffers_to_add(self.workers.len(), workers)),
            surplus: Vec::new(),
        };
        let started = driver.now();
        let Some(mut all) = driver.pause_all() else {
            let text = "a worker did not finish its turn in time; nothing has changed";
            return Err(vec![Refusal::new("timeout", "workers", text)]);
        };
        let moved = self.move_enis(&mut plan, &mut all, driver.now());
        // Resumed whether the move succeeded or not: workers that stay paused would be an outage.
        driver.resume(all);
        let pause_ns = driver.now().as_ns() - started.as_ns();
        let (enis_moved, ports_down) = (plan.moves.len(), self.ports_down());
        let sessions_moved = moved.map_err(|refusal| vec![refusal])?;
        Ok(Regrouped { workers, lanes: rx_queues, enis_moved, sessions_moved, pause_ns, ports_down })
    }

    /// How many workers receive for each port.
    pub fn rx_queues(&self) -> usize {
        self.factory.rx_queues.max(1)
    }

    /// The largest possible number of rx queues.
    pub fn rx_queues_max(&self) -> usize {
        self.factory.rx_queues_max
    }

    fn check_resize(&self, workers: usize, rx_queues: usize) -> Result<(), Refusal> {
        if !(1..=WORKERS_MAX).contains(&workers) {
            return Err(Refusal::new("invalid", "workers", format!("a switch has 1 to {WORKERS_MAX} workers")));
        }
        if rx_queues == 0 || rx_queues > workers {
            let text = format!(
                "{rx_queues} rx queues and {workers} workers: each rx queue needs a worker of its own, and there must be at least one"
            );
            return Err(Refusal::new("invalid", "lanes", text));
        }
        if rx_queues > self.rx_queues_max() {
            let text = format!(
                "these devices have {} queues, which the kernel gives them when they are made: --rx-queues-max {rx_queues} \
                 at the start of the switch lets there be as many later",
                self.rx_queues_max()
            );
            return Err(Refusal::new("limit", "lanes", text));
        }
        // Allocation succeeds where memory is overcommitted, and the kernel ends the process later; hence the
        // estimate.
        let needed = self.worker_bytes * workers.saturating_sub(self.workers.len()) as u64;
        match memory_available_bytes() {
            Some(available) if available < needed => {
                let (needed, available) = (needed >> 20, available >> 20);
                let text =
                    format!("the tables of {workers} workers take {needed} MiB more, and {available} MiB are free");
                Err(Refusal::new("limit", "workers", text))
            }
            _ => Ok(()),
        }
    }

    /// Creates those of `workers` workers that do not exist yet.
    pub(super) fn create_workers(&self, workers: usize, endpoints: Vec<WorkerEndpoint>) -> Vec<(WorkerHandle, Worker)> {
        let mut endpoints = endpoints.into_iter();
        let one = |number| {
            let mailbox = Arc::new(Mailbox::new(self.control.clone()));
            let (doorbell, registry, core) = match endpoints.next() {
                Some(WorkerEndpoint { doorbell, registry, core }) => (doorbell, Some(registry), core),
                None => (Arc::new(Doorbell::new(None)), None, None),
            };
            // Huge pages are advised before the tables are written, as only then do they apply to them.
            let shard = Shard::with_memory(self.flows_max_per_worker, self.secret, &advise_huge_pages);
            let (publication, services) = (Arc::clone(&self.publication), self.services.clone());
            let mut worker = Worker::new(number, publication, services, Arc::clone(&mailbox), shard);
            worker.gro = self.factory.gro;
            (WorkerHandle { mailbox, doorbell, is_warned: false, registry, core }, worker)
        };
        (self.workers.len()..workers).map(one).collect()
    }

    /// Connects all workers with each other.
    pub(super) fn connect(&self, workers: &mut [Worker], links: Vec<WorkerLinks>, spare: &mut BufferPool) {
        let doorbells: Doorbells = self.workers.iter().map(|worker| Arc::clone(&worker.doorbell)).collect();
        self.services.set_worker_doorbells(&doorbells);
        for (worker, links) in workers.iter_mut().zip(links) {
            worker.set_peers(links, Arc::clone(&doorbells), spare);
        }
    }

    /// Moves the ENIs. Returns how many sessions moved.
    fn move_enis(&mut self, plan: &mut ResizePlan, all: &mut Vec<Worker>, now: Time) -> Result<usize, Refusal> {
        // Rings are empty before ENIs move, so that no packet reaches a worker that has given its ENI away.
        drain_rings(all, now)?;
        self.take_failures(now);
        let (handles, new): (Vec<_>, Vec<_>) = std::mem::take(&mut plan.created).into_iter().unzip();
        all.extend(new);
        let moves: Vec<Move> = plan.moves.iter().map(|(_, step)| *step).collect();
        let mut shards: Vec<&mut Shard> = all.iter_mut().map(Worker::shard_mut).collect();
        let moved = migrate(&mut shards, &moves, (&self.snapshot, now)).map_err(|no_room| {
            // The new workers were never turned and are dropped with the plan.
            plan.surplus = all.split_off(self.workers.len());
            self.no_room_refusal(no_room)
        })?;
        // From here on, nothing can fail but single ports, which are reopened.
        self.workers.extend(handles);
        self.placement.resize(all.len());
        plan.moves.iter().for_each(|(eni, step)| self.placement.set_owner(eni, step.to));
        let leaving = self.workers.split_off(plan.workers);
        self.factory.rx_queues = plan.rx_queues;
        self.move_ports(all, &leaving, now);
        for (eni, _) in &plan.moves {
            // Slots changed with the ports, so the table of locations is entered anew.
            self.placement.set_slot(eni, self.ports.get(eni).map(|record| record.slot));
        }
        // Removed only after their ports and sessions have moved.
        plan.surplus = all.split_off(plan.workers);
        self.placement.resize(plan.workers);
        self.connect(all, std::mem::take(&mut plan.links), &mut plan.spare);
        self.sequence += 1;
        let (sequence, locations) = (self.sequence, self.placement.table());
        self.publication.publish(Published { sequence, snapshot: Arc::clone(&self.snapshot), locations });
        // Crossed here, while all are paused: when they resume, each evaluates by the new locations.
        all.iter_mut().for_each(|worker| worker.turn_handoffs(now));
        Ok(moved)
    }

    fn no_room_refusal(&self, NoRoom { eni, to }: NoRoom) -> Refusal {
        let eni = self.snapshot.eni_id(eni).map_or("an ENI", EniId::as_str);
        let text = format!(
            "its table has no room for the sessions of {eni}, and nothing has changed: end some with sluice flow flush, or \
             have more workers"
        );
        Refusal::new("limit", format!("workers/{to}"), text)
    }

    /// Gives each rx queue of each port to the worker that is to receive on it. The handles of workers that are removed
    /// are in `leaving`, and no longer in `self.workers`.
    fn move_ports(&mut self, all: &mut [Worker], leaving: &[WorkerHandle], now: Time) {
        let mut failed = Vec::new();
        for eni in self.ports.keys().cloned().collect::<Vec<_>>() {
            let (Some((owner, _)), Some(record)) = (self.placement.owner(&eni), self.ports.get(&eni)) else { continue };
            let old = record.slots();
            let mut new = Vec::new();
            for ((from, slot), to) in old.iter().copied().zip(self.rx_queue_workers(owner, old.len())) {
                if from == to {
                    new.push((to, slot));
                    continue;
                }
                // Detached from the old worker before the new one has it: two must never read one queue.
                let entry = all[from].detach(slot);
                self.placement.put_slot(from, slot);
                new.push((to, self.placement.take_slot(to)));
                let (Some(entry), Some((_, slot))) = (entry, new.last()) else { continue };
                let handle = self.workers.get(from).or_else(|| leaving.get(from - self.workers.len()));
                match move_registration(&entry.readiness(), handle, &self.workers[to], *slot) {
                    Ok(()) => all[to].attach(*slot, entry),
                    // A port that cannot be registered would never wake its worker, so it goes down and is opened
                    // again.
                    Err(error) => failed.push((eni.clone(), error)),
                }
            }
            if let Some(record) = self.ports.get_mut(&eni) {
                (record.worker, record.slot) = new.remove(0);
                record.rx_queues = new;
            }
        }
        for (eni, error) in failed {
            self.mark_down(&eni, &error, now);
        }
    }
}

/// The kernel's estimate of the available memory.
fn memory_available_bytes() -> Option<u64> {
    // What is available, not what is free: the kernel's page cache gives way.
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// Lets packets on their way between workers arrive.
fn drain_rings(workers: &mut [Worker], now: Time) -> Result<(), Refusal> {
    for _ in 0..ROUNDS_MAX {
        workers.iter_mut().for_each(|worker| worker.turn_handoffs(now));
        if !workers.iter().any(Worker::has_packets_from_others) {
            return Ok(());
        }
        // One after another, so that what they evaluate does not overflow a ring.
        for number in 0..workers.len() {
            workers[number].turn_received(now);
            workers.iter_mut().for_each(|worker| worker.turn_handoffs(now));
        }
    }
    Err(Refusal::new("timeout", "workers", "packets between workers did not arrive; nothing has changed"))
}

/// Registers a descriptor with another worker than before.
fn move_registration(
    descriptor: &Option<std::os::fd::BorrowedFd<'_>>,
    from: Option<&WorkerHandle>,
    to: &WorkerHandle,
    slot: u32,
) -> io::Result<()> {
    let Some(descriptor) = descriptor.map(|descriptor| descriptor.as_raw_fd()) else { return Ok(()) };
    // An edge between the two registrations is not lost: attaching marks the port ready.
    if let Some(registry) = from.and_then(|from| from.registry.as_ref()) {
        registry.deregister(&mut SourceFd(&descriptor))?;
    }
    match &to.registry {
        Some(registry) => registry.register(&mut SourceFd(&descriptor), Token(slot as usize), Interest::READABLE),
        None => Ok(()),
    }
}
