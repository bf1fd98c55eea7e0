//! A port for virtual machines: the back end of a virtio network device, whose driver and buffers are in memory that a hypervisor
//! shares (the vhost-user protocol). A frame crosses it without a system call.
//!
//! The worker that owns the port polls the rings of the guest, and handles what the front end says between two bursts. A
//! port with several rx queues has a part at each worker; a part receives from some of the guest's queues, and the first
//! sends to all and has the front ends.

mod burst_ring;
mod chain;
mod deferred_payloads;
mod device;
mod dirty_log;
mod features;
mod front_end;
mod front_ends;
mod guest_memory;
mod packed_ring;
mod port_queues;
mod queue;
mod ring;
mod ring_memory;
mod split_ring;

use crate::os::sys::poll_descriptor;
use crate::port::buffer_pool::BufferPool;
use crate::port::peer_state::PeerState;
use crate::port::{Port, Received, drop_all};
pub use deferred_payloads::DeferredPayloads;
use front_ends::FrontEnds;
use mio::{Events, Poll};
use port_queues::{PortQueues, SharedQueues};
use queue::ActiveQueue;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use vswitch_core::config::desired::VhostUserPort as VhostUserSpec;
use vswitch_core::config::ids::MacAddress;
use vswitch_core::config::limits::BURST_PACKETS;
use vswitch_core::packet::Packet;
use vswitch_core::packet::offload::Offloads;
use vswitch_core::packet::verdict::DropReason;

/// Bursts between two looks at what front ends say, while the guest has frames.
const RECEIVES_PER_ATTENTION: u32 = 256;

/// A part of a vhost-user port, at one worker.
#[derive(Debug)]
pub struct VhostUser {
    queues: SharedQueues,
    /// Which part, and of how many.
    part: usize,
    poll: Poll,
    events: Events,
    /// At the first part.
    front_ends: Option<FrontEnds>,
    receives: u32,
    /// Whether the guest was told to kick, and the worker may have slept since.
    is_armed: bool,
    has_more_messages: bool,
    /// The pairs of queues that it receives from, as bits, and the one where it goes on.
    own_pairs: u32,
    next_pair: u32,
    /// The queue that payloads of the last burst are still in.
    deferring: Option<usize>,
}

impl VhostUser {
    /// Listens or connects at the path of the port; a part for each of `rx_queues` workers.
    ///
    /// # Errors
    /// What failed, naming the path.
    pub fn open(spec: &VhostUserSpec, mac: MacAddress, rx_queues: usize) -> io::Result<Vec<Self>> {
        let explain = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", describe(spec)));
        let (mut polls, mut parts) = (Vec::new(), Vec::new());
        for _ in 0..rx_queues.max(1) {
            let (poll, events) = front_ends::part().map_err(explain)?;
            polls.push(poll);
            parts.push(events);
        }
        let peer = PeerState::absent(FrontEnds::absence(spec));
        let queues = Arc::new(PortQueues::new(parts, peer, spec.clone(), mac));
        let mut front_ends = Some(FrontEnds::new(Arc::clone(&queues)).map_err(explain)?);
        let of_part = |(part, poll)| Self {
            queues: Arc::clone(&queues),
            part,
            poll,
            events: front_ends::events(),
            front_ends: front_ends.take(),
            receives: 0,
            is_armed: true,
            has_more_messages: false,
            own_pairs: (part..usize::from(spec.queues))
                .step_by(rx_queues.max(1))
                .fold(0, |bits, pair| bits | 1 << pair),
            next_pair: 0,
            deferring: None,
        };
        Ok(polls.into_iter().enumerate().map(of_part).collect())
    }

    /// Looks after kicks and messages.
    fn attend(&mut self) {
        let has_events = front_ends::take_events(&mut self.poll, &mut self.events, &self.queues);
        let is_due = has_events || self.has_more_messages || self.receives == 0;
        if is_due && let Some(front_ends) = &mut self.front_ends {
            self.has_more_messages = front_ends.attend();
        }
    }

    /// Receives frames of its queues; those that payloads may stay in are one in a burst.
    fn receive_from_queues(
        &mut self,
        pool: &mut BufferPool,
        burst: &mut Vec<Packet>,
        packets_max: usize,
        mut payloads: Option<&mut DeferredPayloads>,
    ) -> Received {
        if std::mem::take(&mut self.is_armed) || self.receives >= RECEIVES_PER_ATTENTION || self.has_more_messages {
            self.receives = 0;
            self.attend();
        }
        self.receives += 1;
        let active = self.queues.pairs_from_guest() & self.own_pairs;
        let mut received = if self.has_more_messages { Received::MaybeMore } else { Received::Drained };
        // Each of its queues in turn begins, so that a flooded one does not starve the others.
        for _ in 0..active.count_ones() {
            if burst.len() >= packets_max || self.deferring.is_some() {
                return Received::MaybeMore;
            }
            let ahead = active & u32::MAX << self.next_pair;
            let pair = if ahead != 0 { ahead } else { active }.trailing_zeros();
            self.next_pair = (pair + 1) % u32::BITS;
            let index = pair as usize * 2 + 1;
            let room = packets_max - burst.len();
            let from_queue = self.queues.with(index, |queue| queue.receive(pool, burst, room, payloads.as_deref_mut()));
            if let Some(Some(Received::MaybeMore)) = from_queue {
                received = Received::MaybeMore;
            }
            if payloads.as_ref().is_some_and(|payloads| !payloads.is_empty()) {
                self.deferring = Some(index);
            }
        }
        received
    }

    fn send_to_queues(&mut self, burst: &mut [Packet], payloads: &DeferredPayloads) {
        let active = self.queues.pairs_to_guest();
        if active == 0 {
            return drop_all(burst, DropReason::PortDown);
        }
        if active.count_ones() == 1 {
            let index = active.trailing_zeros() as usize * 2;
            let count = burst.len();
            let sent = self.queues.with(index, |queue| queue.send(burst.iter_mut(), count, payloads));
            if sent.is_none() {
                drop_all(burst, DropReason::PortDown);
            }
            return;
        }
        for burst in burst.chunks_mut(BURST_PACKETS) {
            drop_all(burst, DropReason::PortDown);
            let mut pairs = [0_u8; BURST_PACKETS];
            for (pair, packet) in pairs.iter_mut().zip(&*burst) {
                *pair = choose(active, queue_hash(packet.buffer.frame())) as u8;
            }
            for pair in (0..self.pairs()).filter(|pair| active >> pair & 1 != 0) {
                let is_of_pair = |of: u8| usize::from(of) == pair;
                let count = pairs[..burst.len()].iter().filter(|of| is_of_pair(**of)).count();
                if count == 0 {
                    continue;
                }
                let packets = burst.iter_mut().zip(pairs).filter(|(_, of)| is_of_pair(*of)).map(|(packet, _)| packet);
                self.queues.with(pair * 2, |queue| queue.send(packets, count, payloads));
            }
        }
    }

    fn pairs(&self) -> usize {
        self.queues.count() / 2
    }

    /// Indices of the queues that this part receives from.
    fn own_queues(&self) -> impl Iterator<Item = usize> + use<> {
        let step = self.queues.parts.len();
        (self.part..self.pairs()).step_by(step).map(|pair| pair * 2 + 1)
    }
}

/// What a port is and where, for the text of errors.
pub fn describe(spec: &VhostUserSpec) -> String {
    format!("vhost-user port at {}", spec.path)
}

/// Which of several queues to the guest carries a flow: the same for all its packets, by their addresses.
fn queue_hash(frame: &[u8]) -> u32 {
    const V4: u16 = 0x0800;
    const V6: u16 = 0x86dd;
    let kind = frame.get(12..14).map_or(0, |kind| u16::from_be_bytes([kind[0], kind[1]]));
    let words = match kind {
        V4 => 26..34,
        V6 => 22..54,
        _ => return 0,
    };
    let Some(bytes) = frame.get(words) else { return 0 };
    let mixed = bytes.chunks_exact(4).fold(0_u32, |mixed, word| {
        (mixed.rotate_left(5) ^ u32::from_be_bytes([word[0], word[1], word[2], word[3]])).wrapping_mul(0x9e37_79b1)
    });
    mixed >> 16
}

/// The place of the set bit of `bits` that a hash chooses.
fn choose(bits: u32, hash: u32) -> usize {
    let nth = hash % bits.count_ones().max(1);
    let rest = (0..nth).fold(bits, |rest, _| rest & rest.wrapping_sub(1));
    rest.trailing_zeros() as usize
}

impl Port for VhostUser {
    fn receive(&mut self, pool: &mut BufferPool, burst: &mut Vec<Packet>, packets_max: usize) -> io::Result<Received> {
        Ok(self.receive_from_queues(pool, burst, packets_max, None))
    }

    fn receive_deferred(
        &mut self,
        pool: &mut BufferPool,
        burst: &mut Vec<Packet>,
        packets_max: usize,
        payloads: &mut DeferredPayloads,
    ) -> io::Result<Received> {
        Ok(self.receive_from_queues(pool, burst, packets_max, Some(payloads)))
    }

    fn release(&mut self) {
        if let Some(index) = self.deferring.take() {
            self.queues.with(index, ActiveQueue::release);
        }
    }

    fn send(&mut self, burst: &mut [Packet]) -> io::Result<()> {
        self.send_deferred(burst, &DeferredPayloads::default())
    }

    fn send_deferred(&mut self, burst: &mut [Packet], payloads: &DeferredPayloads) -> io::Result<()> {
        self.send_to_queues(burst, payloads);
        Ok(())
    }

    fn offloads(&self) -> Offloads {
        self.queues.offloads()
    }

    fn await_readiness(&mut self) -> bool {
        // The worker may have been told of messages while it asked for frames alone, and is not told again.
        self.receives = 0;
        self.attend();
        self.is_armed = true;
        let mut may_sleep = !self.has_more_messages;
        for index in self.own_queues() {
            may_sleep &= self.queues.with(index, |queue| queue.arm()).unwrap_or(true);
        }
        may_sleep
    }

    fn is_polled_without_call(&self) -> bool {
        true
    }

    fn peer(&self) -> Option<PeerState> {
        Some(self.queues.peer.clone())
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(poll_descriptor(&self.poll))
    }
}
