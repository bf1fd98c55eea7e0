//! The end of a packet's way: it leaves through its receiver's port, after whatever the port cannot offload has been
//! done, and its buffer returns to its pool.

use super::{Delivery, Worker, gro, poll_set};
use vswitch_core::config::desired::Direction;
use vswitch_core::config::ids::EniIndex;
use vswitch_core::config::limits::BURST_PACKETS;
use vswitch_core::packet::gso::Segments;
use vswitch_core::packet::ip_fragments::IpFragments;
use vswitch_core::packet::offload::Preparation;
use vswitch_core::packet::verdict::{DropReason, Verdict};
use vswitch_core::packet::{FrameBuffer, Packet};

/// What a packet is cut into whose receiver's port does not carry it as it is.
enum Pieces {
    Segments(Segments),
    Fragments(IpFragments),
}

impl Pieces {
    /// How long the next piece is, if one is left.
    fn next_bytes(&self, packet: &Packet) -> Option<usize> {
        match self {
            Self::Segments(segments) => segments.next_bytes(packet),
            Self::Fragments(fragments) => fragments.next_bytes(packet),
        }
    }

    fn write_next(&mut self, packet: &Packet, target: &mut FrameBuffer) -> bool {
        match self {
            Self::Segments(segments) => segments.write_next(packet, target),
            Self::Fragments(fragments) => fragments.write_next(packet, target),
        }
    }

    fn count_left(&self, packet: &Packet) -> u32 {
        match self {
            Self::Segments(segments) => segments.left(packet),
            Self::Fragments(fragments) => fragments.count_left(),
        }
    }
}

impl Worker {
    /// Sends packets of one verdict and receiver, from a burst of this worker, without queueing them first. Whether it did:
    /// only if they are to be delivered and the port takes each as it is.
    pub(super) fn send_as_they_are(&mut self, packets: &mut [Packet], last: &mut Option<EniIndex>) -> bool {
        let Some(&Packet { verdict: Verdict::Deliver, receiver: to, .. }) = packets.first() else { return false };
        let Some(slot) = self.slot_of(to).filter(|_| !self.current.snapshot.has_rate_limits()) else { return false };
        let Some(Some(entry)) = self.ports.get(slot as usize) else { return false };
        let (frame_bytes_max, offloads, gro) = (entry.frame_bytes_max, entry.offloads, self.gro);
        let goes_as_it_is = |packet: &Packet| {
            packet.longest_frame_bytes() <= frame_bytes_max
                && offloads.preparation(&packet.offload) == Preparation::Pass
                && !(gro && gro::is_eligible(packet, offloads))
        };
        if !packets.iter().all(goes_as_it_is) {
            return false;
        }
        // What is queued came before.
        self.finish_dispatch(last.take());
        self.send_to_port(Some(slot), to, packets);
        packets.iter_mut().for_each(|packet| self.pool.put(std::mem::take(&mut packet.buffer)));
        true
    }

    /// Queues a packet for its receiver's port. If packets are queued for another receiver, `last`, these are sent
    /// first.
    pub(super) fn dispatch(&mut self, packet: Packet, delivery: Delivery, last: &mut Option<EniIndex>) {
        if *last != Some(delivery.to) {
            self.finish_dispatch(last.replace(delivery.to));
        }
        match self.slot_of(delivery.to) {
            Some(slot) => self.put_outgoing(slot, packet, delivery),
            None => {
                self.shard.count_drop(delivery.to, Direction::Ingress, DropReason::PortDown, packet.wire().packets);
                self.recycle(packet, delivery.pool_owner);
            }
        }
    }

    pub(super) fn finish_dispatch(&mut self, last: Option<EniIndex>) {
        if let Some(last) = last {
            self.send_outgoing(self.slot_of(last), last);
        }
    }

    pub(super) fn slot_of(&self, eni: EniIndex) -> Option<u32> {
        self.current.location(eni).and_then(|location| location.slot)
    }

    /// Queues a packet for an ENI's port, after doing what the port cannot offload.
    pub(super) fn put_outgoing(&mut self, slot: u32, mut packet: Packet, delivery: Delivery) {
        if let Some(Some(entry)) = self.ports.get(slot as usize) {
            if packet.longest_frame_bytes() > entry.frame_bytes_max {
                if let Some(fragments) = IpFragments::of(&packet, entry.frame_bytes_max) {
                    packet.complete_checksum();
                    self.cut_outgoing(slot, &packet, Pieces::Fragments(fragments), delivery.to);
                    return self.recycle(packet, delivery.pool_owner);
                }
                let packets = packet.wire().packets;
                self.shard.count_drop(delivery.to, Direction::Ingress, DropReason::FrameTooLong, packets);
                return self.recycle(packet, delivery.pool_owner);
            }
            match entry.offloads.preparation(&packet.offload) {
                Preparation::Pass if self.gro && gro::is_eligible(&packet, entry.offloads) => {
                    if self.append_to_flow(&packet) {
                        return self.recycle(packet, delivery.pool_owner);
                    }
                }
                Preparation::Pass => {}
                Preparation::Checksum => packet.complete_checksum(),
                Preparation::Segment => {
                    packet.read_headers();
                    self.cut_outgoing(slot, &packet, Pieces::Segments(Segments::default()), delivery.to);
                    return self.recycle(packet, delivery.pool_owner);
                }
            }
        }
        self.outgoing.push(packet);
        self.outgoing_pool_owners.push(delivery.pool_owner);
    }

    /// Cuts a packet into pieces and queues these. Sends whenever a burst is full or the pool is empty.
    fn cut_outgoing(&mut self, slot: u32, packet: &Packet, mut pieces: Pieces, to: EniIndex) {
        let pool_owner = self.peers.number as u16;
        while let Some(bytes) = pieces.next_bytes(packet) {
            if self.outgoing.len() >= BURST_PACKETS {
                self.send_outgoing(Some(slot), to);
            }
            let mut buffer = self.pool.take(bytes);
            if buffer.is_none() {
                self.send_outgoing(Some(slot), to);
                buffer = self.pool.take(bytes);
            }
            let Some(mut buffer) = buffer else {
                // All buffers are in rings of other workers, which is like a full port.
                let left = pieces.count_left(packet);
                return self.shard.count_drop(to, Direction::Ingress, DropReason::PortFull, left);
            };
            pieces.write_next(packet, &mut buffer);
            self.outgoing.push(Packet::new(buffer));
            self.outgoing_pool_owners.push(pool_owner);
        }
    }

    /// Drops what exceeds the limit of `eni` from the packets that are queued for its port.
    fn limit_outgoing(&mut self, eni: EniIndex) {
        if !self.current.snapshot.has_rate_limits() {
            return;
        }
        let mut place = 0;
        while let Some(packet) = self.outgoing.get(place) {
            let wire = packet.wire();
            if self.shard.admits_rate(&self.current.snapshot, eni, Direction::Ingress, wire, self.now) {
                place += 1;
                continue;
            }
            let (packet, pool_owner) = (self.outgoing.remove(place), self.outgoing_pool_owners.remove(place));
            self.recycle(packet, pool_owner);
        }
    }

    /// Sends the queued packets to the port of `eni` in `slot`.
    pub(super) fn send_outgoing(&mut self, slot: Option<u32>, eni: EniIndex) {
        self.limit_outgoing(eni);
        if self.outgoing.is_empty() {
            return;
        }
        let mut outgoing = std::mem::take(&mut self.outgoing);
        let mut pool_owners = std::mem::take(&mut self.outgoing_pool_owners);
        self.send_to_port(slot, eni, &mut outgoing);
        for (packet, pool_owner) in outgoing.drain(..).zip(pool_owners.drain(..)) {
            self.recycle(packet, pool_owner);
        }
        self.outgoing = outgoing;
        self.outgoing_pool_owners = pool_owners;
    }

    /// Sends packets to the port of `eni` in `slot`, and counts those that are dropped there.
    fn send_to_port(&mut self, slot: Option<u32>, eni: EniIndex, packets: &mut [Packet]) {
        let entry = slot.and_then(|slot| self.ports.get_mut(slot as usize)).and_then(Option::as_mut);
        let port = entry.filter(|entry| entry.eni == eni).and_then(|entry| entry.port.as_mut());
        let is_down = port.is_none();
        let is_short = packets.len() <= poll_set::ANSWERED_AT_ONCE_MAX;
        let (sent, is_held) = match port {
            Some(port) => (port.send_deferred(packets, &self.payloads), port.sent().held() > 0),
            None => (Ok(()), false),
        };
        for packet in packets {
            let reason = match packet.verdict {
                _ if is_down => DropReason::PortDown,
                Verdict::Drop(reason) => reason,
                _ => continue,
            };
            self.shard.count_drop(eni, Direction::Ingress, reason, packet.wire().packets);
        }
        match (slot, sent) {
            (Some(slot), Err(error)) => self.fail(slot, error),
            (Some(slot), Ok(())) if is_short || is_held => self.mark_ready(slot as usize),
            _ => {}
        }
    }

    pub(super) fn recycle(&mut self, packet: Packet, pool_owner: u16) {
        match &self.peers.links.inbound[usize::from(pool_owner)] {
            None => self.pool.put(packet.buffer),
            Some(link) => {
                let returned = link.returns.push(packet.buffer);
                debug_assert!(returned.is_ok(), "the ring of returns holds the whole pool of its sender");
            }
        }
    }
}
