//! What changes in a worker when the number of workers does. It is not turned in the meantime.

use super::{Doorbells, PortEntry, Worker};
use crate::exchange::handoff::{WorkerLinks, pool_size};
use crate::port::Port;
use crate::port::buffer_pool::BufferPool;
use crate::worker::stats::Activity;
use std::os::fd::BorrowedFd;
use vswitch_core::datapath::shard::Shard;
use vswitch_core::hw::time::Time;

impl PortEntry {
    /// The descriptor that becomes readable when there are frames, unless the port is down or has none.
    pub(crate) fn readiness(&self) -> Option<BorrowedFd<'_>> {
        self.port.as_deref().and_then(Port::readiness)
    }
}

impl Worker {
    /// Makes it one of as many workers as there are `doorbells`, with the number of buffers that this requires; missing
    /// ones are taken from `spare`. Its previous links must be empty.
    pub(crate) fn set_peers(&mut self, links: WorkerLinks, doorbells: Doorbells, spare: &mut BufferPool) {
        debug_assert!(!self.has_packets_from_others(), "what is on its way arrives first");
        // Buffers on return rings would be lost with the links.
        self.reclaim_buffers();
        self.pool.resize(pool_size(doorbells.len()), spare);
        self.notified = vec![false; doorbells.len()];
        self.peers.links = links;
        self.peers.doorbells = doorbells;
    }

    /// A turn that receives nothing from ports and evaluates nothing from other workers' rx queues: packets that have
    /// passed egress arrive.
    pub(crate) fn turn_handoffs(&mut self, now: Time) {
        self.cross(now);
        let drain = self.peers.publication.drain_requested();
        // All commands, since ports must be in place before they move.
        while self.run_command(now) > 0 {}
        self.reclaim_buffers();
        self.take_handoffs(now);
        self.drain(drain, now);
    }

    /// Evaluates what other workers received for its ENIs.
    pub(crate) fn turn_received(&mut self, now: Time) {
        self.take_received(now, &mut Activity::default());
    }

    /// The sessions and counters of its ENIs.
    pub(crate) fn shard_mut(&mut self) -> &mut Shard {
        &mut self.shard
    }
}
