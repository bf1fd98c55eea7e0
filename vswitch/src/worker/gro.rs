//! Generic receive offload: combines segments of a burst for a port that takes long frames, so that one crossing
//! carries many.

use super::Worker;
use vswitch_core::packet::Packet;
use vswitch_core::packet::gro::{self, Relation};
use vswitch_core::packet::offload::{Offloads, Segmentation};

/// How many of the last queued packets are searched for one of the same flow.
const PACKETS_SEARCHED_MAX: usize = 8;

/// Whether a packet may be combined with others for a port with these offloads.
pub(super) fn is_eligible(packet: &Packet, offloads: Offloads) -> bool {
    const TCP: Offloads = Offloads::CHECKSUM.with(Offloads::TCP_V4).with(Offloads::TCP_V6);
    // A long frame can only be combined if the port segments all of it, for either family.
    packet.offload.segmentation == Segmentation::None && offloads.contains(TCP)
}

impl Worker {
    /// Appends a packet to the last queued packet of its flow, if possible. Returns false if it has to be queued
    /// itself.
    pub(super) fn append_to_flow(&mut self, packet: &Packet) -> bool {
        // Only the last few are searched: segments of a flow mostly leave one after another.
        let first = self.outgoing.len().saturating_sub(PACKETS_SEARCHED_MAX);
        for index in (first..self.outgoing.len()).rev() {
            match gro::relation(&self.outgoing[index], packet) {
                Relation::Other => {}
                // Order within a flow counts more than combining: this packet must not overtake the other.
                Relation::Behind => return false,
                Relation::Next(bytes) => {
                    // Small buffers hold one frame; a large one is taken only once there is something to append.
                    let has_room = self.outgoing[index].buffer.capacity() >= bytes || self.enlarge(index);
                    if has_room {
                        gro::append(&mut self.outgoing[index], packet);
                    }
                    return has_room;
                }
            }
        }
        false
    }

    /// Moves a queued packet to a large buffer, unless none is free.
    fn enlarge(&mut self, index: usize) -> bool {
        let Some(mut large) = self.pool.take_large() else { return false };
        large.fill(self.outgoing[index].buffer.frame());
        let small = std::mem::replace(&mut self.outgoing[index].buffer, large);
        // The new buffer comes from this worker's pool, whoever owned the old one.
        let pool_owner = std::mem::replace(&mut self.outgoing_pool_owners[index], self.peers.number as u16);
        self.recycle(Packet::new(small), pool_owner);
        true
    }
}
