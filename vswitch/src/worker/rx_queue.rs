//! Rx queues: a worker that receives for another worker's ENI passes the packets on in order, before any evaluation.
//!
//! Buffers stay in their pools: the owner gives one of its free buffers for each packet that it takes. While it has
//! none, or the ring is full, frames wait in the rx queue; nothing that was received is lost.

use super::{BurstSource, Worker};
use crate::exchange::handoff::ReceivedHandoff;
use crate::exchange::publish::EniLocation;
use crate::worker::stats::Activity;
use std::sync::Arc;
use vswitch_core::config::desired::Direction;
use vswitch_core::config::limits::BURST_PACKETS;
use vswitch_core::hw::time::Time;
use vswitch_core::packet::Packet;
use vswitch_core::packet::verdict::DropReason;

impl Worker {
    /// Passes the burst to the worker that owns its ENI. It is no larger than the room there was.
    pub(super) fn hand_to_owner(&mut self, source: BurstSource, location: EniLocation) {
        let owner = usize::from(location.worker);
        let Some(link) = &self.peers.links.outbound[owner] else { return };
        let (from, is_flooding, eni_generation) = (source.eni, source.is_flooding, location.eni_generation);
        for mut packet in self.burst.drain(..) {
            self.payloads.fetch(&mut packet.buffer);
            let pushed = link.received.push(ReceivedHandoff { packet, from, eni_generation, is_flooding });
            debug_assert!(pushed.is_ok(), "only this worker fills the ring, and it had room");
        }
        self.notified[owner] = true;
        self.ring_doorbells();
    }

    /// Evaluates what other workers received for ENIs of this one, at most as many packets of each as are waiting now.
    pub(super) fn take_received(&mut self, now: Time, activity: &mut Activity) {
        for pool_owner in 0..self.peers.links.inbound.len() {
            let link = self.peers.links.inbound[pool_owner].as_ref().filter(|link| !link.received.is_empty());
            let Some(link) = link.map(Arc::clone) else { continue };
            // Count first: the senders of these packets knew of no snapshot that this worker would not see then. A
            // worker that has already crossed may send for an ENI that is new in its snapshot; such packets wait until
            // this worker crosses too.
            let count = link.received.len();
            if self.peers.publication.is_newer_than(self.current.sequence) {
                return;
            }
            let mut last: Option<BurstSource> = None;
            for _ in 0..count {
                if !self.pool.has_all_sizes() {
                    // That returns the buffers of received packets, or sends them to where buffers return from.
                    self.forward_received(last.take(), now);
                    if !self.pool.has_all_sizes() {
                        activity.is_starved = true;
                        break;
                    }
                }
                let Some(received) = link.received.pop() else { break };
                activity.packets += 1;
                let ReceivedHandoff { packet, from, eni_generation, is_flooding } = received;
                let location = self.current.location(from).filter(|location| location.is_open_for(eni_generation));
                if location.is_none_or(|location| usize::from(location.worker) != self.peers.number) {
                    self.shard.count_drop(from, Direction::Egress, DropReason::EniGone, packet.wire().packets);
                    self.recycle(packet, pool_owner as u16);
                    continue;
                }
                if let Some(spare) = self.pool.take_like(&packet.buffer) {
                    self.recycle(Packet::new(spare), pool_owner as u16);
                }
                // A burst has one sender, so another one ends it.
                if self.burst.len() == BURST_PACKETS || last.is_some_and(|last| last.eni != from) {
                    self.forward_received(last.take(), now);
                }
                last = Some(BurstSource { eni: from, is_flooding });
                self.burst.push(packet);
            }
            self.forward_received(last, now);
        }
    }

    fn forward_received(&mut self, source: Option<BurstSource>, now: Time) {
        if let Some(source) = source {
            self.forward_burst(source, now);
        }
    }
}
