//! Packets for an ENI of another worker: one bounded ring for each ordered pair of workers, and a ring on which the
//! buffers come back, so that each worker's pool keeps what it was made with.

use crate::exchange::sync::ArrayQueue;
use crate::port::buffer_pool::PoolSize;
use std::sync::Arc;
use vswitch_core::config::ids::EniIndex;
use vswitch_core::config::limits::{BURST_PACKETS, HANDOFF_PACKETS};
use vswitch_core::packet::{FrameBuffer, Packet};

/// Buffers that one worker may have in rings to all others together, however many there are.
const HANDOFF_BUFFERS_MAX: usize = 8 * HANDOFF_PACKETS;

/// Packets up to which a ring takes those of ports that flood.
const HANDOFF_PACKETS_FLOODING: usize = HANDOFF_PACKETS - HANDOFF_PACKETS / 4;

/// Packets that wait to be evaluated in the ring from one worker to another.
const RECEIVED_PACKETS_MAX: usize = 4 * BURST_PACKETS;

/// The pool of each of `workers` workers: bursts in work, and packets in the rings of others.
pub const fn pool_size(workers: usize) -> PoolSize {
    let in_rings = HANDOFF_PACKETS * (workers - 1);
    let in_rings = if in_rings < HANDOFF_BUFFERS_MAX { in_rings } else { HANDOFF_BUFFERS_MAX };
    PoolSize::for_workers(4 * BURST_PACKETS + in_rings, workers)
}

/// Buffers that all pools lack together where `before` workers become `after`.
pub const fn buffers_to_add(before: usize, after: usize) -> PoolSize {
    let (old, new) = (pool_size(if before == 0 { 1 } else { before }), pool_size(after));
    let (stay, come) = (if before < after { before } else { after }, after.saturating_sub(before));
    PoolSize {
        small: stay * new.small.saturating_sub(old.small) + come * new.small,
        large: stay * new.large.saturating_sub(old.large) + come * new.large,
    }
}

/// A packet between two workers.
#[derive(Debug)]
pub struct Handoff {
    /// The packet, evaluated by its sender's egress.
    pub packet: Packet,
    /// The ENI it goes to.
    pub to: EniIndex,
    /// Which of the ENIs that ever had this number is meant.
    pub eni_generation: u32,
}

/// A packet that came in by an rx queue of another worker than its ENI's.
#[derive(Debug)]
pub struct ReceivedHandoff {
    /// The packet.
    pub packet: Packet,
    /// The ENI it is from.
    pub from: EniIndex,
    /// Which of the ENIs that ever had this number is meant.
    pub eni_generation: u32,
    /// The rx queue had more than a burst to give.
    pub is_flooding: bool,
}

/// The way from one worker to one other.
#[derive(Debug)]
pub struct WorkerLink {
    /// Packets, in order.
    pub packets: ArrayQueue<Handoff>,
    /// Packets that only their ENI's worker can evaluate, in order. A ring of its own, because such a packet waits until the
    /// receiver has a buffer to give for it: those that would bring buffers back must not wait behind it.
    pub received: ArrayQueue<ReceivedHandoff>,
    /// Buffers of such packets on their way back. Never full: it holds as many as the sender's pool.
    pub returns: ArrayQueue<FrameBuffer>,
}

impl WorkerLink {
    /// Whether there is room for one more packet. The last quarter of the ring is kept for ports that do not flood: those
    /// that do pay for a full ring themselves.
    pub fn has_room(&self, is_flooding: bool) -> bool {
        self.packets.len() < if is_flooding { HANDOFF_PACKETS_FLOODING } else { HANDOFF_PACKETS }
    }
}

/// One worker's ends of all links, by the number of the other worker; none for itself.
#[derive(Clone, Debug)]
pub struct WorkerLinks {
    /// Links on which this worker sends.
    pub outbound: Vec<Option<Arc<WorkerLink>>>,
    /// Links on which it receives.
    pub inbound: Vec<Option<Arc<WorkerLink>>>,
}

impl WorkerLinks {
    /// How many packets of a burst there is room for on the way to be evaluated by `owner`.
    pub fn received_room(&self, owner: u16) -> usize {
        let link = self.outbound.get(usize::from(owner)).and_then(Option::as_ref);
        link.map_or(0, |link| (RECEIVED_PACKETS_MAX - link.received.len()).min(BURST_PACKETS))
    }
}

/// Connects `workers` workers with each other; the ends of each, by its number.
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
