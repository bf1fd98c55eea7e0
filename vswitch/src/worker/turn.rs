//! One turn of a worker: what it takes, in which order, and where it puts it.

use super::{BurstSource, Delivery, PortEntry, Worker};
use crate::exchange::handoff::Handoff;
use crate::exchange::publish::{EniLocation, Published};
use crate::port::Received;
use crate::port::vhost_user::DeferredPayloads;
use crate::worker::mailbox::{PortFailure, WorkerCommand};
use crate::worker::stats::Activity;
use std::io;
use std::sync::Arc;
use vswitch_core::config::desired::Direction;
use vswitch_core::config::ids::EniIndex;
use vswitch_core::config::limits::{BURST_PACKETS, SWEEP_RECORDS_PER_TURN, SWEEP_ROUND_NS};
use vswitch_core::datapath::forward::ShardOwner;
use vswitch_core::datapath::stage_timing::Phase;
use vswitch_core::hw::time::Time;
use vswitch_core::packet::verdict::{DropReason, Verdict};
use vswitch_core::packet::{FrameBuffer, Packet};

/// Time between two steps of the sweep, ns.
const SWEEP_INTERVAL_NS: u64 = 1_000_000;
/// Room for a question for a next hop, bytes: the shortest frame of Ethernet, and a neighbour solicitation.
const NEXT_HOP_QUESTION_BYTES: usize = 128;
/// How many records the sweep examines in one turn at most, even after a sleep, since packets wait meanwhile.
const SWEEP_RECORDS_MAX: usize = 64 * SWEEP_RECORDS_PER_TURN;

/// Whose burst is forwarded.
struct BurstOwner<'a> {
    published: &'a Published,
    worker: usize,
    payloads: &'a DeferredPayloads,
}

impl ShardOwner for BurstOwner<'_> {
    #[inline]
    fn is_here(&self, eni: EniIndex) -> bool {
        self.published.location(eni).is_some_and(|location| usize::from(location.worker) == self.worker)
    }

    fn fetch_deferred(&self, buffer: &mut FrameBuffer) {
        self.payloads.fetch(buffer);
    }
}

impl Worker {
    /// One pass over all inputs, at one instant.
    pub fn turn(&mut self, now: Time) -> Activity {
        self.now = now;
        // Crossing comes first, so that everything else in this turn is evaluated by the newest snapshot.
        let mut activity = Activity { commands: self.cross(now), ..Activity::default() };
        // Read before the rings are emptied: whatever was in them at the request has left them by the end of this turn.
        let drain = self.peers.publication.drain_requested();
        activity.commands += self.run_command(now);
        // Buffers come back before they are needed for receiving.
        self.reclaim_buffers();
        // Packets of others first: they hold buffers of other pools, and their senders may wait for these.
        activity.packets += self.take_handoffs(now);
        activity.packets += self.take_service_replies();
        self.take_received(now, &mut activity);
        self.poll_ports(now, &mut activity);
        // The sweep comes after packets, which wait for it otherwise.
        activity.sweep_due = self.sweep(now);
        activity.commands += self.drain(drain, now);
        match activity.packets {
            0 => self.stats.turns_idle += 1,
            _ => self.stats.turns_busy += 1,
        }
        activity
    }

    /// Whether another thread has put something in place that a turn would handle.
    pub fn has_input(&self) -> bool {
        // Whatever a turn handles has to be named here, or the worker would sleep over it.
        let publication = &self.peers.publication;
        publication.is_newer_than(self.current.sequence)
            || publication.drain_requested() != self.drained
            || self.peers.mailbox.has_commands()
            || self.has_packets_from_others()
            || self.peers.services.has_replies(self.peers.number)
    }

    pub(crate) fn has_packets_from_others(&self) -> bool {
        let mut links = self.peers.links.inbound.iter().flatten();
        links.any(|link| !link.packets.is_empty() || !link.received.is_empty())
    }

    /// Counts that its thread goes to sleep.
    pub fn note_sleep(&mut self) {
        self.stats.sleeps += 1;
    }

    pub(super) fn cross(&mut self, now: Time) -> usize {
        if !self.peers.publication.is_newer_than(self.current.sequence) {
            return 0;
        }
        // First take over the ports that were sent before the new snapshot was published: whoever is told that it is in
        // force may rely on them.
        while self.run_command(now) > 0 {}
        let publication = &self.peers.publication;
        // The publication keeps the old snapshot until all workers have crossed, so nothing is freed here.
        self.current = publication.newest();
        publication.cross(self.peers.number, self.current.sequence);
        1
    }

    pub(super) fn run_command(&mut self, now: Time) -> usize {
        if !self.peers.mailbox.has_commands() {
            return 0;
        }
        let mailbox = Arc::clone(&self.peers.mailbox);
        let Some(command) = mailbox.next_command() else { return 0 };
        match command {
            WorkerCommand::Attach { slot, eni, eni_generation, rx_queue, port, frame_bytes_max } => {
                let entry = PortEntry::new((eni, eni_generation), rx_queue, port, frame_bytes_max);
                self.attach(slot, entry);
            }
            WorkerCommand::Adjust { slot, frame_bytes_max } => {
                if let Some(Some(entry)) = self.ports.get_mut(slot as usize) {
                    entry.frame_bytes_max = frame_bytes_max;
                }
            }
            WorkerCommand::Detach { slot, ticket } => {
                self.count_held(slot);
                mailbox.answer_detached(ticket, self.detach(slot).and_then(|entry| entry.port));
            }
            WorkerCommand::Query { query, ticket } => {
                mailbox.answer(ticket, query.run(&mut self.shard, &self.current.snapshot, self.stats, now));
            }
        }
        1
    }

    /// Takes over a port.
    pub(crate) fn attach(&mut self, slot: u32, entry: PortEntry) {
        let index = slot as usize;
        if self.ports.len() <= index {
            self.ports.resize_with(index + 1, || None);
        }
        // A slot that was used before may still be listed as ready.
        self.ready.retain(|ready| *ready != slot);
        self.draining.forget(slot);
        self.ports[index] = Some(PortEntry { is_ready: false, ..entry });
        // Frames may have arrived before the descriptor was registered.
        self.mark_ready(index);
    }

    /// Gives up a port.
    pub(crate) fn detach(&mut self, slot: u32) -> Option<PortEntry> {
        self.ready.retain(|ready| *ready != slot);
        // The slot may get another port, or this port another slot: neither was served last turn.
        self.served.retain(|served| *served != slot);
        self.draining.forget(slot);
        self.ports.get_mut(slot as usize).and_then(Option::take)
    }

    pub(super) fn reclaim_buffers(&mut self) {
        for link in self.peers.links.outbound.iter().flatten() {
            while let Some(buffer) = link.returns.pop() {
                self.pool.put(buffer);
            }
        }
    }

    /// Takes what is in the rings now; what others add in the meantime waits for the next turn.
    pub(super) fn take_handoffs(&mut self, now: Time) -> usize {
        let mut taken = 0;
        for pool_owner in 0..self.peers.links.inbound.len() {
            let link = self.peers.links.inbound[pool_owner].as_ref().filter(|link| !link.packets.is_empty());
            // The reference count is only touched if there is something to take.
            let Some(link) = link.cloned() else { continue };
            for _ in 0..link.packets.len() {
                let Some(Handoff { packet, to, eni_generation }) = link.packets.pop() else { break };
                taken += 1;
                // A packet may arrive after its ENI was deleted and its index given away, hence the generation.
                let location = self.current.location(to).filter(|location| location.eni_generation == eni_generation);
                if location.is_some_and(|location| usize::from(location.worker) == self.peers.number) {
                    self.push_ingress(packet, Delivery { to, pool_owner: pool_owner as u16 });
                } else {
                    self.shard.count_drop(to, Direction::Ingress, DropReason::EniGone, packet.wire().packets);
                    self.recycle(packet, pool_owner as u16);
                }
                if self.ingress_packets.len() == BURST_PACKETS {
                    self.deliver_ingress(now);
                }
            }
        }
        self.deliver_ingress(now);
        taken
    }

    fn poll_ports(&mut self, now: Time, activity: &mut Activity) {
        let mut at = 0;
        while let Some(&slot) = self.ready.get(at) {
            if self.poll_port(slot, now, activity) {
                at += 1;
                continue;
            }
            if let Some(Some(entry)) = self.ports.get_mut(slot as usize) {
                entry.is_ready = false;
            }
            // Keeps the order of the others, so that each is served once before any is served twice.
            self.ready.remove(at);
        }
        std::mem::swap(&mut self.served, &mut self.served_now);
        self.served_now.clear();
    }

    /// Takes one burst from a port. Returns whether to poll it again without waiting for its descriptor.
    fn poll_port(&mut self, slot: u32, now: Time, activity: &mut Activity) -> bool {
        let Some(Some(entry)) = self.ports.get_mut(slot as usize) else { return false };
        let eni = entry.eni;
        if entry.port.is_none() {
            return false;
        }
        // Born closed: until the snapshot that names this port for its ENI is in force here, its frames stay where they
        // are. The same check closes it when its ENI is gone and the port is not detached yet.
        let Some(location) = self.current.location(eni) else { return true };
        let is_here = usize::from(location.worker) == self.peers.number;
        let is_live = match entry.rx_queue {
            0 => is_here && location.slot == Some(slot),
            _ => location.is_open_for(entry.eni_generation),
        };
        if !is_live {
            return true;
        }
        let packets_max = if is_here { BURST_PACKETS } else { self.peers.links.received_room(location.worker) };
        if packets_max == 0 {
            activity.is_starved = true;
            return true;
        }
        let others = self.served.iter().any(|other| *other != slot);
        if !entry.is_due(others) {
            // The frames wait in the port, and the worker must not sleep.
            activity.is_starved = true;
            return true;
        }
        let Some(port) = entry.port.as_mut() else { return false };
        self.shard.stopwatch.start();
        let result = port.receive_deferred(&mut self.pool, &mut self.burst, packets_max, &mut self.payloads);
        entry.offloads = port.offloads();
        self.shard.stopwatch.lap(Phase::Receive);
        let is_flooding = matches!(result, Ok(Received::MaybeMore));
        let count = self.burst.len();
        activity.packets += count;
        let stays = match result {
            Ok(Received::MaybeMore) => {
                entry.empty_receives = 0;
                activity.is_starved |= count == 0;
                true
            }
            Ok(Received::Drained) => {
                entry.empty_receives = if count == 0 { entry.empty_receives.saturating_add(1) } else { 0 };
                entry.stays_polled(self.ready.len())
            }
            Err(error) => {
                self.fail(slot, error);
                false
            }
        };
        let source = BurstSource { eni, is_flooding };
        let refused = match count {
            0 => 0,
            _ if is_here => self.forward_burst(source, now),
            _ => {
                self.hand_to_owner(source, location);
                0
            }
        };
        if count > 0 {
            self.finish_burst(slot);
        }
        if let Some(Some(entry)) = self.ports.get_mut(slot as usize) {
            entry.note_refused(refused, is_flooding);
        }
        self.shard.stopwatch.lap(Phase::Send);
        self.shard.stopwatch.finish(count);
        stays
    }

    /// Notes that a burst of this port was served, and has the port give back what deferred payloads were in.
    fn finish_burst(&mut self, slot: u32) {
        self.served_now.push(slot);
        if self.payloads.is_empty() {
            return;
        }
        self.payloads.clear();
        if let Some(port) =
            self.ports.get_mut(slot as usize).and_then(Option::as_mut).and_then(|entry| entry.port.as_mut())
        {
            port.release();
        }
    }

    /// Drops what exceeds the limit of `eni` from the burst that its guest sent. Returns how many packets that were.
    fn limit_burst(&mut self, eni: EniIndex, now: Time) -> usize {
        let snapshot = &self.current.snapshot;
        if !snapshot.has_rate_limits() {
            return 0;
        }
        let (shard, pool) = (&mut self.shard, &mut self.pool);
        let before = self.burst.len();
        let exceeds = self
            .burst
            .extract_if(.., |packet| !shard.admits_rate(snapshot, eni, Direction::Egress, packet.wire(), now));
        exceeds.for_each(|packet| pool.put(packet.buffer));
        before - self.burst.len()
    }

    /// Evaluates a burst and sends its packets on. Returns how many were refused.
    pub(super) fn forward_burst(&mut self, source: BurstSource, now: Time) -> usize {
        let eni = source.eni;
        let limited = self.limit_burst(eni, now);
        let owner = BurstOwner { published: &self.current, worker: self.peers.number, payloads: &self.payloads };
        self.shard.forward((&self.current.snapshot, now), eni, &mut self.burst, owner);
        let refused = limited + self.send_burst(source, now);
        while let Some(bytes) = self.shard.released_bytes() {
            // If the pool has no buffer, the next burst finds it here again.
            let Some(mut buffer) = self.pool.take(bytes) else { break };
            let Some(eni) = self.shard.take_released(&mut buffer) else {
                self.pool.put(buffer);
                break;
            };
            self.burst.push(Packet::new(buffer));
            let owner = BurstOwner { published: &self.current, worker: self.peers.number, payloads: &self.payloads };
            self.shard.forward_released((&self.current.snapshot, now), eni, &mut self.burst, owner);
            self.send_burst(BurstSource { eni, ..source }, now);
        }
        refused
    }

    /// Sends the packets of a burst where their verdicts say. Returns how many go nowhere.
    fn send_burst(&mut self, source: BurstSource, now: Time) -> usize {
        let number = self.peers.number;
        let mut burst = std::mem::take(&mut self.burst);
        let pool_owner = number as u16;
        let (mut last, mut refused) = (None, 0);
        let goes_along = |one: &Packet, next: &Packet| {
            (one.verdict, next.verdict) == (Verdict::Deliver, Verdict::Deliver) && one.receiver == next.receiver
        };
        for together in burst.chunk_by_mut(goes_along) {
            if self.send_as_they_are(together, &mut last) {
                continue;
            }
            for mut packet in
                together.iter_mut().map(|packet| std::mem::replace(packet, Packet::new(FrameBuffer::default())))
            {
                self.payloads.fetch(&mut packet.buffer);
                match packet.verdict {
                    Verdict::Answer => self.dispatch(packet, Delivery { to: source.eni, pool_owner }, &mut last),
                    Verdict::Serve(by) => refused += self.request_service(source.eni, packet, by, &mut last, now),
                    Verdict::Forward(to) => self.hand_off(source, to, packet),
                    Verdict::Deliver => {
                        let to = packet.receiver;
                        self.dispatch(packet, Delivery { to, pool_owner }, &mut last);
                    }
                    Verdict::Drop(_) => {
                        refused += 1;
                        self.pool.put(packet.buffer);
                    }
                    Verdict::Wait => self.pool.put(packet.buffer),
                }
            }
        }
        burst.clear();
        self.burst = burst;
        self.finish_dispatch(last);
        // Once per burst, not per packet: ringing costs a fence each time.
        self.ring_doorbells();
        refused
    }

    /// Puts a packet into the ring of the worker that owns its receiver.
    fn hand_off(&mut self, source: BurstSource, to: EniIndex, packet: Packet) {
        let from = source.eni;
        let Some(location) = self.current.location(to) else {
            self.shard.count_drop(from, Direction::Egress, DropReason::EniGone, packet.wire().packets);
            return self.pool.put(packet.buffer);
        };
        let Some(link) = &self.peers.links.outbound[usize::from(location.worker)] else {
            debug_assert!(false, "what is here was delivered");
            return self.pool.put(packet.buffer);
        };
        // Only this worker fills the ring, so there will still be room for the push.
        if !link.has_room(source.is_flooding) {
            self.shard.count_drop(from, Direction::Egress, DropReason::HandoffFull, packet.wire().packets);
            return self.pool.put(packet.buffer);
        }
        let pushed = link.packets.push(Handoff { packet, to, eni_generation: location.eni_generation });
        debug_assert!(pushed.is_ok(), "a ring with room takes a packet");
        self.notified[usize::from(location.worker)] = true;
    }

    pub(super) fn ring_doorbells(&mut self) {
        for (notified, doorbell) in self.notified.iter_mut().zip(self.peers.doorbells.iter()) {
            if std::mem::take(notified) {
                doorbell.ring();
            }
        }
    }

    fn push_ingress(&mut self, packet: Packet, delivery: Delivery) {
        self.ingress_packets.push(packet);
        self.ingress_deliveries.push(delivery);
    }

    /// Evaluates and sends what came from other workers.
    fn deliver_ingress(&mut self, now: Time) {
        if self.ingress_packets.is_empty() {
            return;
        }
        self.shard.ingress(&self.current.snapshot, &mut self.ingress_packets, now);
        let mut ingress_packets = std::mem::take(&mut self.ingress_packets);
        let mut deliveries = std::mem::take(&mut self.ingress_deliveries);
        let mut last = None;
        for (packet, delivery) in ingress_packets.drain(..).zip(deliveries.drain(..)) {
            match packet.verdict {
                Verdict::Deliver => self.dispatch(packet, delivery, &mut last),
                _ => self.recycle(packet, delivery.pool_owner),
            }
        }
        self.ingress_packets = ingress_packets;
        self.ingress_deliveries = deliveries;
        self.finish_dispatch(last);
    }

    /// Takes a failed port out of service and passes it to the control thread.
    pub(super) fn fail(&mut self, slot: u32, error: io::Error) {
        self.count_held(slot);
        // Taken out at once, so that it is reported once, and the slot stays until the control thread detaches it.
        let port = self.ports.get_mut(slot as usize).and_then(Option::as_mut).and_then(|entry| entry.port.take());
        if let Some(port) = port {
            self.peers.mailbox.report_failure(PortFailure { slot, port, error });
        }
    }

    /// Sends what the uplinks of this worker have to ask their next hops.
    fn ask_next_hops(&mut self, now: Time) {
        let published = Arc::clone(&self.current);
        let number = self.peers.number;
        let is_own = |location: EniLocation| usize::from(location.worker) == number && location.slot.is_some();
        for &uplink in published.snapshot.uplinks() {
            if !published.location(uplink).is_some_and(is_own) {
                continue;
            }
            let Some(mut buffer) = self.pool.take(NEXT_HOP_QUESTION_BYTES) else { return };
            if !self.shard.ask_next_hop(&published.snapshot, uplink, &mut buffer, now) {
                self.pool.put(buffer);
                continue;
            }
            let mut last = None;
            self.dispatch(Packet::new(buffer), Delivery { to: uplink, pool_owner: number as u16 }, &mut last);
            self.finish_dispatch(last);
        }
    }

    /// Ends expired sessions, at a pace that covers the whole table each second. Returns how far it is behind.
    fn sweep(&mut self, now: Time) -> usize {
        let elapsed_ns = now.as_ns().saturating_sub(self.last_sweep.as_ns());
        if elapsed_ns >= SWEEP_INTERVAL_NS {
            self.last_sweep = now;
            let records = self.shard.flows_max();
            // The pace follows the time that passed, so that a late turn catches up without a second pass.
            let due = records as u64 * elapsed_ns.min(SWEEP_ROUND_NS) / SWEEP_ROUND_NS;
            let due = if self.shard.flow_count() == 0 { 0 } else { self.sweep_due + due as usize };
            // Waiting fragments are checked as well.
            self.sweep_due = due.clamp(1, records);
            self.peers.mailbox.note_table(self.shard.table_percent());
            self.ask_next_hops(now);
        }
        if self.sweep_due > 0 {
            let records = self.sweep_due.min(SWEEP_RECORDS_MAX);
            self.shard.sweep(&self.current.snapshot, now, records);
            self.sweep_due -= records;
        }
        self.sweep_due
    }
}
