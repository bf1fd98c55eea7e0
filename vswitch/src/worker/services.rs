//! What guests ask of the switch and others answer: a worker hands the requests over, and sends the replies.

use super::{Delivery, Worker};
use crate::exchange::services::{ServiceLink, ServiceOutcome};
use std::sync::Arc;
use vswitch_core::config::desired::Direction;
use vswitch_core::config::ids::EniIndex;
use vswitch_core::config::limits::SERVICE_FRAME_BYTES_MAX;
use vswitch_core::config::services::frame::ServedEni;
use vswitch_core::hw::time::Time;
use vswitch_core::packet::Packet;
use vswitch_core::packet::gso::Segments;
use vswitch_core::packet::offload::{Offloads, Preparation};
use vswitch_core::packet::verdict::{DropReason, ServedBy, Verdict};

impl Worker {
    /// Hands a request to whoever serves it. How many packets were refused. What the guest is told where nobody serves is
    /// queued like other packets; those of `last` are waiting already.
    pub(super) fn request_service(
        &mut self,
        eni: EniIndex,
        mut packet: Packet,
        by: ServedBy,
        last: &mut Option<EniIndex>,
        now: Time,
    ) -> usize {
        let link = match by {
            ServedBy::Thread => Arc::clone(&self.peers.services.thread),
            ServedBy::Process => Arc::clone(&self.peers.services.process),
        };
        if !link.is_open() {
            self.shard.refuse_served(&self.current.snapshot, eni, &mut packet, now);
            if packet.verdict == Verdict::Answer {
                self.dispatch(packet, self.own_delivery(eni), last);
            } else {
                self.pool.put(packet.buffer);
            }
            return 1;
        }
        let handed = match self.current.location(eni) {
            Some(location) => {
                let eni = ServedEni { index: eni, generation: location.eni_generation };
                hand_over(&link, eni, &mut packet, now)
            }
            None => Err((DropReason::EniGone, packet.wire().packets)),
        };
        self.pool.put(packet.buffer);
        match handed {
            Ok(()) => 0,
            Err((reason, packets)) => {
                self.shard.count_drop(eni, Direction::Egress, reason, packets);
                packets as usize
            }
        }
    }

    /// Sends what others have for guests of this worker. How much that was.
    pub(super) fn take_service_replies(&mut self) -> usize {
        if !self.peers.services.has_replies(self.peers.number) {
            return 0;
        }
        let links = self.peers.services.clone();
        let (mut taken, mut last) = (0, None);
        for link in [&links.thread, &links.process] {
            while let Some(reply) = link.next_reply(self.peers.number) {
                taken += 1;
                let eni = reply.eni.index;
                let location = self.current.location(eni).filter(|location| {
                    location.eni_generation == reply.eni.generation && usize::from(location.worker) == self.peers.number
                });
                match reply.outcome {
                    _ if location.is_none() => self.shard.count_drop(eni, Direction::Egress, DropReason::EniGone, 1),
                    ServiceOutcome::Dropped(reason) => self.shard.count_drop(eni, Direction::Egress, reason, 1),
                    ServiceOutcome::Taken => self.shard.count_served(eni),
                    ServiceOutcome::Reply | ServiceOutcome::Unsolicited => {
                        let is_reply = reply.outcome == ServiceOutcome::Reply;
                        match self.pool.take(reply.buffer.length()) {
                            Some(mut buffer) => {
                                buffer.fill(reply.buffer.frame());
                                if is_reply {
                                    self.shard.count_served(eni);
                                }
                                self.dispatch(Packet::new(buffer), self.own_delivery(eni), &mut last);
                            }
                            None if is_reply => {
                                self.shard.count_drop(eni, Direction::Egress, DropReason::ServiceFull, 1);
                            }
                            None => self.shard.count_drop(eni, Direction::Ingress, DropReason::PortFull, 1),
                        }
                    }
                }
                link.put_back(reply.outcome, reply.buffer);
            }
        }
        self.finish_dispatch(last);
        taken
    }

    fn own_delivery(&self, to: EniIndex) -> Delivery {
        Delivery { to, pool_owner: self.peers.number as u16 }
    }
}

/// Hands a packet over, as frames whose checksums are complete and which Ethernet carries.
///
/// # Errors
/// The reason under which the rest of it is dropped, and how many packets that is.
fn hand_over(link: &ServiceLink, eni: ServedEni, packet: &mut Packet, now: Time) -> Result<(), (DropReason, u32)> {
    if packet.longest_frame_bytes() > SERVICE_FRAME_BYTES_MAX {
        return Err((DropReason::FrameTooLong, packet.wire().packets));
    }
    match Offloads::NONE.preparation(&packet.offload) {
        Preparation::Pass => {}
        Preparation::Checksum => packet.complete_checksum(),
        Preparation::Segment => {
            let mut segments = Segments::default();
            while segments.next_bytes(packet).is_some() {
                let left = segments.left(packet);
                let handed = link.request(eni, now, |buffer| _ = segments.write_next(packet, buffer));
                handed.map_err(|reason| (reason, left))?;
            }
            return Ok(());
        }
    }
    link.request(eni, now, |buffer| buffer.fill(packet.buffer.frame())).map_err(|reason| (reason, 1))
}
