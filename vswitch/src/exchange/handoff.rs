//! Packets for ENIs of other workers: a bounded ring for each ordered pair of workers, and a ring on which the buffers
//! return, so that each worker's pool keeps its size.

use crate::exchange::sync::ArrayQueue;
use crate::port::buffer_pool::PoolSize;
use std::sync::Arc;
use vswitch_core::config::ids::EniIndex;
use vswitch_core::config::limits::{BURST_PACKETS, HANDOFF_PACKETS};
use vswitch_core::packet::{FrameBuffer, Packet};

/// How many buffers one worker may have in the rings to all others together, however many there are.
const HANDOFF_BUFFERS_MAX: usize = 8 * HANDOFF_PACKETS;

/// How many packets of flooding ports a ring takes.
const HANDOFF_PACKETS_FLOODING: usize = HANDOFF_PACKETS - HANDOFF_PACKETS / 4;

/// How many packets may wait for evaluation in the ring from one worker to another.
const RECEIVED_PACKETS_MAX: usize = 4 * BURST_PACKETS;

/// The size of each worker's pool if there are `workers` workers: for bursts being processed, and for packets in the
/// rings to others.
pub const fn pool_size(workers: usize) -> PoolSize {
    // Bounded, or all pools together would grow with the square of the workers.
    let in_rings = HANDOFF_PACKETS * (workers - 1);
    let in_rings = if in_rings < HANDOFF_BUFFERS_MAX { in_rings } else { HANDOFF_BUFFERS_MAX };
    PoolSize::for_workers(4 * BURST_PACKETS + in_rings, workers)
}

/// How many buffers have to be added to all pools together when `before` workers become `after`.
pub const fn buffers_to_add(before: usize, after: usize) -> PoolSize {
    let (old, new) = (pool_size(if before == 0 { 1 } else { before }), pool_size(after));
    let (stay, come) = (if before < after { before } else { after }, after.saturating_sub(before));
    PoolSize {
        small: stay * new.small.saturating_sub(old.small) + come * new.small,
        large: stay * new.large.saturating_sub(old.large) + come * new.large,
    }
}

/// A packet on its way to another worker.
#[derive(Debug)]
pub struct Handoff {
    /// The packet, which has passed its sender's egress.
    pub packet: Packet,
    /// The ENI it goes to.
    pub to: EniIndex,
    /// Distinguishes the ENIs that have had this index.
    pub eni_generation: u32,
}

/// A packet received on an rx queue by a worker that does not own the ENI.
#[derive(Debug)]
pub struct ReceivedHandoff {
    /// The packet.
    pub packet: Packet,
    /// The ENI that sent it.
    pub from: EniIndex,
    /// Distinguishes the ENIs that have had this index.
    pub eni_generation: u32,
    /// Whether the rx queue had more than a burst.
    pub is_flooding: bool,
}

/// The link from one worker to another.
#[derive(Debug)]
pub struct WorkerLink {
    /// Packets that have passed egress, in order.
    pub packets: ArrayQueue<Handoff>,
    /// Packets that the owner of their ENI has to evaluate, in order. They have a ring of their own because such a
    /// packet waits until the receiver can give a buffer in exchange; packets that would bring buffers back must not
    /// wait behind it.
    pub received: ArrayQueue<ReceivedHandoff>,
    /// Buffers of delivered packets on their way back. It cannot be full: it holds as many as the sender's pool.
    pub returns: ArrayQueue<FrameBuffer>,
}

impl WorkerLink {
    /// Whether there is room for another packet. The last quarter of the ring is reserved for ports that do not flood,
    /// so that flooding ports bear the cost of a full ring themselves.
    pub fn has_room(&self, is_flooding: bool) -> bool {
        self.packets.len() < if is_flooding { HANDOFF_PACKETS_FLOODING } else { HANDOFF_PACKETS }
    }
}

/// One worker's ends of all links, by the number of the other worker; `None` at its own.
#[derive(Clone, Debug)]
pub struct WorkerLinks {
    /// The links on which it sends.
    pub outbound: Vec<Option<Arc<WorkerLink>>>,
    /// The links on which it receives.
    pub inbound: Vec<Option<Arc<WorkerLink>>>,
}

impl WorkerLinks {
    /// How many packets of a burst there is room for on the way to their owner.
    pub fn received_room(&self, owner: u16) -> usize {
        let link = self.outbound.get(usize::from(owner)).and_then(Option::as_ref);
        // Only this worker fills the ring, so the room can only grow until the burst is pushed.
        link.map_or(0, |link| (RECEIVED_PACKETS_MAX - link.received.len()).min(BURST_PACKETS))
    }
}

/// Connects `workers` workers with each other. Returns the ends of each, by worker number.
pub fn connect(workers: usize) -> Vec<WorkerLinks> {
    let mut ends = vec![WorkerLinks { outbound: vec![None; workers], inbound: vec![None; workers] }; workers];
    for from in 0..workers {
        for to in (0..workers).filter(|to| *to != from) {
            let (packets, returns) = (ArrayQueue::new(HANDOFF_PACKETS), ArrayQueue::new(pool_size(workers).total()));
            let link = Arc::new(WorkerLink { packets, received: ArrayQueue::new(RECEIVED_PACKETS_MAX), returns });
            ends[from].outbound[to] = Some(Arc::clone(&link));
            ends[to].inbound[from] = Some(link);
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_shares_one_link_in_each_direction() {
        let ends = connect(3);
        for from in 0..3 {
            assert!(ends[from].outbound[from].is_none() && ends[from].inbound[from].is_none());
            for to in (0..3).filter(|to| *to != from) {
                let (out, inn) = (ends[from].outbound[to].as_ref().unwrap(), ends[to].inbound[from].as_ref().unwrap());
                assert!(Arc::ptr_eq(out, inn));
            }
        }
    }
}
