//! One worker: its ports, the shard of its ENIs, and one turn over them.
//!
//! A worker has no thread, and no clock but a stopwatch. Whoever turns it passes in the time: a thread of the daemon,
//! or a test that drives several workers. It shares nothing with others but bounded queues and the newest snapshot.

pub mod busy_poll;
mod drain;
pub mod driver;
mod gro;
pub mod mailbox;
pub mod pause;
mod poll_set;
mod resize;
mod rx_queue;
mod send;
mod services;
pub mod stats;
pub mod thread;
pub mod threads;
mod turn;

use crate::exchange::doorbell::Doorbell;
use crate::exchange::handoff::WorkerLinks;
use crate::exchange::publish::{Publication, Published};
use crate::exchange::services::ServiceLinks;
use crate::port::Port;
use crate::port::buffer_pool::BufferPool;
use crate::port::vhost_user::DeferredPayloads;
use crate::worker::mailbox::Mailbox;
use crate::worker::stats::TurnStats;
use std::sync::Arc;
use vswitch_core::config::ids::EniIndex;
use vswitch_core::config::limits::BURST_PACKETS;
use vswitch_core::datapath::shard::Shard;
use vswitch_core::datapath::stage_timing;
use vswitch_core::hw::time::Time;
use vswitch_core::packet::Packet;
use vswitch_core::packet::offload::Offloads;

/// What a refused packet costs, in packets that pass. If several ports have more to offer than the worker can handle,
/// each gets its share of the worker's time, whatever happens to its packets.
const REFUSED_COST: usize = 5;

/// A port, or one of its rx queues, in its worker.
#[derive(Debug)]
pub(crate) struct PortEntry {
    eni: EniIndex,
    eni_generation: u32,
    /// The number of the rx queue. The first one is at the ENI's owner and is also used for sending.
    rx_queue: usize,
    /// `None` while the port is down.
    port: Option<Box<dyn Port>>,
    frame_bytes_max: usize,
    offloads: Offloads,
    has_readiness: bool,
    is_polled_without_call: bool,
    is_ready: bool,
    empty_receives: u16,
    /// How many packets other ports are served before this port is served again.
    debt: usize,
}

impl PortEntry {
    fn new(
        (eni, eni_generation): (EniIndex, u32),
        rx_queue: usize,
        port: Box<dyn Port>,
        frame_bytes_max: usize,
    ) -> Self {
        let (has_readiness, offloads) = (port.readiness().is_some(), port.offloads());
        let is_polled_without_call = port.is_polled_without_call();
        let (port, is_ready, empty_receives, debt) = (Some(port), false, 0, 0);
        Self {
            eni,
            eni_generation,
            rx_queue,
            port,
            frame_bytes_max,
            offloads,
            has_readiness,
            is_polled_without_call,
            is_ready,
            empty_receives,
            debt,
        }
    }

    /// Whether it is polled again although it was empty, given how many ports are polled.
    // A port without a descriptor cannot announce frames, so polling is the only way.
    fn stays_polled(&mut self, ports: usize) -> bool {
        !self.has_readiness
            || self.is_polled_without_call && ports <= poll_set::PORTS_ALWAYS_POLLED_MAX
            || usize::from(self.empty_receives) < poll_set::empty_receives_max(ports)
            || self.port.as_mut().is_some_and(|port| !port.await_readiness())
    }

    /// Whether to serve it although it has a debt; `others` tells whether other ports have frames.
    fn is_due(&mut self, others: bool) -> bool {
        if self.debt < BURST_PACKETS || !others {
            return true;
        }
        self.debt -= BURST_PACKETS;
        false
    }

    /// Notes how many packets of a burst were refused. Only a port that had more to offer incurs a debt.
    fn note_refused(&mut self, refused: usize, is_flooding: bool) {
        // Of an old debt only the part below one burst remains: the rest was paid by skipped turns.
        let debt = self.debt % BURST_PACKETS + refused * (REFUSED_COST - 1);
        self.debt = if is_flooding { debt } else { 0 };
    }
}

/// The doorbells of all workers, by number.
pub type Doorbells = Arc<[Arc<Doorbell>]>;

/// What a worker shares with others.
#[derive(Clone, Debug)]
struct Peers {
    /// The worker's number.
    number: usize,
    /// The newest snapshot.
    publication: Arc<Publication>,
    /// Its ends of the links to other workers.
    links: WorkerLinks,
    /// Its commands and answers.
    mailbox: Arc<Mailbox>,
    doorbells: Doorbells,
    /// Requests of its guests for services, and the replies.
    services: ServiceLinks,
}

/// One worker.
#[derive(Debug)]
pub struct Worker {
    peers: Peers,
    current: Arc<Published>,
    shard: Shard,
    ports: Vec<Option<PortEntry>>,
    /// The slots of ports that may have frames.
    ready: Vec<u32>,
    /// The slots of ports that had frames in the last turn or in this one.
    served: Vec<u32>,
    served_now: Vec<u32>,
    pool: BufferPool,
    /// The time of the current turn.
    now: Time,
    last_sweep: Time,
    /// How many records the sweep is behind.
    sweep_due: usize,
    drained: u64,
    draining: Draining,
    /// Whether TCP segments are combined for ports that take long frames.
    pub(crate) gro: bool,
    stats: TurnStats,
    /// The burst being processed. This and the following are empty between steps and only keep their memory.
    burst: Vec<Packet>,
    /// What is deferred of its frames.
    payloads: DeferredPayloads,
    ingress_packets: Vec<Packet>,
    ingress_deliveries: Vec<Delivery>,
    outgoing: Vec<Packet>,
    outgoing_pool_owners: Vec<u16>,
    notified: Vec<bool>,
}

/// A request to drain that is not fulfilled yet.
#[derive(Debug, Default)]
struct Draining {
    requested: u64,
    began: Time,
    /// The ports that still have to send something, by slot, with the amount that each had been given at the request.
    ports: Vec<(u32, u64)>,
}

impl Draining {
    /// Forgets a slot, because it is empty or gets another port.
    fn forget(&mut self, slot: u32) {
        self.ports.retain(|(held_by, _)| *held_by != slot);
    }
}

/// The origin of a burst.
#[derive(Clone, Copy, Debug)]
struct BurstSource {
    eni: EniIndex,
    /// Whether the port had more than a burst.
    is_flooding: bool,
}

/// The destination of a packet, and the worker whose pool its buffer belongs to.
#[derive(Clone, Copy, Debug)]
struct Delivery {
    to: EniIndex,
    pool_owner: u16,
}

impl Worker {
    /// A worker that has no ports and no buffers and knows no other workers.
    pub(crate) fn new(
        number: usize,
        publication: Arc<Publication>,
        services: ServiceLinks,
        mailbox: Arc<Mailbox>,
        shard: Shard,
    ) -> Self {
        let links = WorkerLinks { outbound: Vec::new(), inbound: Vec::new() };
        Self {
            current: publication.newest(),
            peers: Peers { number, publication, links, mailbox, doorbells: Arc::new([]), services },
            shard,
            ports: Vec::new(),
            ready: Vec::new(),
            served: Vec::new(),
            served_now: Vec::new(),
            pool: BufferPool::default(),
            now: Time::default(),
            last_sweep: Time::default(),
            sweep_due: 0,
            drained: 0,
            draining: Draining::default(),
            gro: false,
            stats: TurnStats::default(),
            burst: Vec::with_capacity(BURST_PACKETS),
            payloads: DeferredPayloads::default(),
            ingress_packets: Vec::with_capacity(BURST_PACKETS),
            ingress_deliveries: Vec::with_capacity(BURST_PACKETS),
            outgoing: Vec::with_capacity(BURST_PACKETS),
            outgoing_pool_owners: Vec::with_capacity(BURST_PACKETS),
            notified: Vec::new(),
        }
    }

    /// The worker's number.
    pub fn number(&self) -> usize {
        self.peers.number
    }

    /// Times some of its bursts with this clock.
    pub fn set_stopwatch_clock(&mut self, clock: stage_timing::Clock) {
        self.shard.stopwatch.set_clock(clock);
    }

    /// The counts of its turns and sleeps.
    pub fn stats(&self) -> TurnStats {
        self.stats
    }

    /// The size of its connection tables in memory, bytes.
    pub fn flow_memory_bytes(&self) -> usize {
        self.shard.memory_bytes().iter().sum()
    }

    /// The number of free buffers.
    pub fn free_buffers(&self) -> usize {
        self.pool.free_count()
    }
}
