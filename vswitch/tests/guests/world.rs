//! A switch with memory ports whose workers are turned by hand, in virtual time.

use super::{eni, number_of};
use std::collections::BTreeMap;
use vswitch::exchange::doorbell::Doorbell;
use vswitch::exchange::services::ServiceLinks;
use vswitch::port::factory::PortFactory;
use vswitch::port::memory::{MemoryGuest, MemoryHub};
use vswitch::switch::{Switch, SwitchConfig, assemble};
use vswitch::worker::Worker;
use vswitch::worker::driver::ManualDriver;
use vswitch_core::config::desired::Desired;
use vswitch_core::config::protocol::{
    Applied, EniStats, Regrouped, RequestBody, SwitchReplyBody, SwitchRequest, VERSION,
};
use vswitch_core::config::refusal::Refusal;
use vswitch_core::hw::time::Time;

pub(crate) struct GuestWorld {
    pub(crate) switch: Switch,
    pub(crate) workers: Vec<Worker>,
    pub(crate) hub: MemoryHub,
    pub(crate) now: Time,
}

impl GuestWorld {
    /// Ports of one rx queue that hold `frames_max` frames in each direction.
    pub(crate) fn new(workers: usize, frames_max: usize) -> Self {
        Self::with_ports(workers, frames_max, PortFactory::default())
    }

    pub(crate) fn with_ports(workers: usize, frames_max: usize, ports: PortFactory) -> Self {
        Self::with_tables(workers, 1024, MemoryHub::new(frames_max, false), ports)
    }

    pub(crate) fn with_tables(workers: usize, flows_max: usize, hub: MemoryHub, ports: PortFactory) -> Self {
        let ports = PortFactory { memory: hub.clone(), ..ports };
        let config = SwitchConfig { workers, flows_max_per_worker: flows_max, secret: [1, 2], ports };
        let links = ServiceLinks::new(Doorbell::new(None), Doorbell::new(None));
        let (switch, workers) = assemble(config, Vec::new(), None, links);
        Self { switch, workers, hub, now: Time::from_ns(1) }
    }

    pub(crate) fn guest(&self, number: u8) -> MemoryGuest {
        self.hub.guest(&eni(number))
    }

    pub(crate) fn guest_rx_queue(&self, number: u8, rx_queue: usize) -> MemoryGuest {
        self.hub.guest_rx_queue(&eni(number), rx_queue)
    }

    pub(crate) fn with_switch<T>(&mut self, work: impl FnOnce(&mut Switch, &mut ManualDriver<'_>) -> T) -> T {
        let mut driver = ManualDriver { workers: &mut self.workers, now: self.now };
        let result = work(&mut self.switch, &mut driver);
        self.now = driver.now;
        result
    }

    pub(crate) fn apply(&mut self, desired: Desired, generation: u64) -> Applied {
        self.with_switch(|switch, driver| switch.apply(desired, generation, driver).unwrap())
    }

    pub(crate) fn resize(&mut self, workers: usize, rx_queues: usize) -> Result<Regrouped, Vec<Refusal>> {
        self.with_switch(|switch, driver| switch.resize(workers, Some(rx_queues), driver))
    }

    pub(crate) fn ask(&mut self, body: RequestBody) -> SwitchReplyBody {
        self.with_switch(|switch, driver| switch.answer(SwitchRequest { version: VERSION, id: 1, body }, driver).body)
    }

    /// Lets the switch look after its ports, some time later.
    pub(crate) fn tick(&mut self, after_ms: u64) {
        self.now = self.now + after_ms * 1_000_000;
        self.with_switch(|switch, driver| switch.tick(driver));
    }

    pub(crate) fn turn(&mut self, times: usize) {
        for _ in 0..times {
            self.now = self.now + 1_000;
            for worker in &mut self.workers {
                worker.turn(self.now);
            }
        }
    }

    pub(crate) fn turn_one(&mut self, worker: usize, times: usize) {
        for _ in 0..times {
            self.now = self.now + 1_000;
            self.workers[worker].turn(self.now);
        }
    }

    pub(crate) fn worker_of(&self, number: u8) -> usize {
        self.switch.port_statuses().into_iter().find(|port| port.eni == eni(number)).unwrap().worker
    }

    pub(crate) fn free_buffers(&self) -> Vec<usize> {
        self.workers.iter().map(Worker::free_buffers).collect()
    }

    pub(crate) fn stats(&mut self, number: u8) -> EniStats {
        self.with_switch(|switch, driver| switch.eni_stats(Some(&eni(number)), driver).remove(0))
    }

    pub(crate) fn drops(&mut self, number: u8, reason: &str) -> u64 {
        let stats = self.stats(number);
        let count = |drops: &BTreeMap<String, u64>| drops.get(reason).copied().unwrap_or(0);
        count(&stats.egress.drops) + count(&stats.ingress.drops)
    }
}

/// The numbers of the packets that arrived at a guest.
pub(crate) fn collect(guest: &MemoryGuest) -> Vec<u32> {
    std::iter::from_fn(|| guest.collect()).map(|frame| number_of(&frame)).collect()
}
