//! What guests ask of the switch and the service thread answers: a worker hands the requests over, and sends the replies.

use super::{Delivery, Worker};
use crate::exchange::services::{ServedEni, ServiceOutcome};
use std::sync::Arc;
use vswitch_core::config::desired::Direction;
use vswitch_core::config::ids::EniIndex;
use vswitch_core::hw::time::Time;
use vswitch_core::packet::Packet;
use vswitch_core::packet::verdict::DropReason;

impl Worker {
    /// Hands a request to the service thread. How many packets were refused.
    pub(super) fn request_service(&mut self, eni: EniIndex, packet: Packet, now: Time) -> usize {
        let handed = match self.current.location(eni) {
            Some(location) => {
                let eni = ServedEni { index: eni, generation: location.eni_generation };
                self.peers.services.request(eni, packet.buffer.frame(), now)
            }
            None => Err(DropReason::EniGone),
        };
        self.pool.put(packet.buffer);
        if let Err(reason) = handed {
            self.shard.count_drop(eni, Direction::Egress, reason, 1);
        }
        usize::from(handed.is_err())
    }

    /// Sends what the service thread has for guests of this worker. How much that was.
    pub(super) fn take_service_replies(&mut self) -> usize {
        if !self.peers.services.has_replies(self.peers.number) {
            return 0;
        }
        let services = Arc::clone(&self.peers.services);
        let (mut taken, mut last) = (0, None);
        while let Some(reply) = services.next_reply(self.peers.number) {
            taken += 1;
            let eni = reply.eni.index;
            let location = self.current.location(eni).filter(|location| {
                location.eni_generation == reply.eni.generation && usize::from(location.worker) == self.peers.number
            });
            let outcome = if location.is_some() { reply.outcome } else { ServiceOutcome::Dropped(DropReason::EniGone) };
            if let ServiceOutcome::Dropped(reason) = outcome {
                self.shard.count_drop(eni, Direction::Egress, reason, 1);
            } else if let Some(mut buffer) = self.pool.take(reply.buffer.length()) {
                buffer.fill(reply.buffer.frame());
                if outcome == ServiceOutcome::Reply {
                    self.shard.count_served(eni);
                }
                self.dispatch(Packet::new(buffer), self.own_delivery(eni), &mut last);
            } else if outcome == ServiceOutcome::Reply {
                self.shard.count_drop(eni, Direction::Egress, DropReason::ServiceFull, 1);
            }
            services.put_back(reply.outcome, reply.buffer);
        }
        self.finish_dispatch(last);
        taken
    }

    fn own_delivery(&self, to: EniIndex) -> Delivery {
        Delivery { to, pool_owner: self.peers.number as u16 }
    }
}
