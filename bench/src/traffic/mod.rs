//! Sequences of packets: bursts as ports deliver them, each of one ENI.
//!
//! `peers/dpdk-parts/frames.h` generates the same bursts with the same random numbers for the mixes that are compared
//! with peers; the frames of both are compared in every run.

pub(crate) mod frames;
pub(crate) mod mix;
pub(crate) mod probe;

use crate::fixture::FixtureRandom;
use crate::traffic::mix::{FlowTransport, Mix, Popularity, Size};
use frames::{Flow, FlowStep, Shape};
use std::collections::VecDeque;
use vswitch_core::config::limits::BURST_PACKETS;
use vswitch_core::packet::Packet;
use vswitch_core::packet::offload::{Offload, PartialChecksum};

/// Kinds of bursts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BurstKind {
    /// The existing flows one after another, each in this step, to establish them.
    InOrder(FlowStep),
    /// By the mix, alternating between clients and servers.
    Mixed,
    /// First packets only, of flows that have been idle for long.
    First,
}

/// How many times as many flows are opened in rotation as exist at once.
const NEW_TURNS: usize = 4;

/// A sequence of bursts; the same seed gives the same one everywhere.
pub(crate) struct BurstTraffic {
    shape: Shape,
    /// What the senders leave undone in each packet.
    offload: Offload,
    size: Size,
    /// How many clients there are, and servers.
    pairs: usize,
    /// Flows of each client that exist from the beginning.
    turns: usize,
    popularity: Popularity,
    /// The share among a client's packets.
    denied_share: f64,
    new_share: f64,
    random: FixtureRandom,
    burst: usize,
    /// Flows of each client that were opened later, or denied.
    opened: Vec<usize>,
    /// The packets to follow, by ENI, of flows that are opened and closed.
    due: Vec<VecDeque<(Flow, FlowStep)>>,
}

/// A burst that was written: its sender, and which of its packets should be denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Burst {
    pub(crate) eni: u16,
    pub(crate) denied: u32,
}

const _: () = assert!(BURST_PACKETS <= u32::BITS as usize);

/// A checksum that is to be completed, of such packets.
fn undone_checksum(mix: &Mix) -> Offload {
    let start = if mix.ipv6 { frames::TRANSPORT_V6 } else { frames::TRANSPORT_V4 } as u16;
    let offset = match mix.protocol {
        FlowTransport::Tcp => 16,
        FlowTransport::Udp => 6,
    };
    Offload { checksum: Some(PartialChecksum { start, offset }), ..Offload::NONE }
}

impl BurstTraffic {
    pub(crate) fn new(mix: &Mix) -> Self {
        let pairs = usize::from(mix.pairs);
        let turns = mix.flows.div_ceil(pairs);
        Self {
            shape: Shape { is_v6: mix.ipv6, transport: mix.protocol, services: mix.services, addresses: mix.addresses },
            offload: if mix.checksums_undone { undone_checksum(mix) } else { Offload::NONE },
            size: mix.size,
            pairs,
            turns,
            popularity: Popularity::zipf(turns, mix.zipf),
            denied_share: mix.denied_share * 2.0,
            new_share: mix.new_share * 2.0,
            random: FixtureRandom::new(mix.seed),
            burst: 0,
            opened: vec![0; pairs],
            due: vec![VecDeque::new(); pairs * 2 + 1],
        }
    }

    /// How many flows exist from the beginning, the same number for each client.
    pub(crate) fn flows(&self) -> usize {
        self.turns * self.pairs
    }

    /// Restarts the bursts of a kind.
    pub(crate) fn restart(&mut self) {
        self.burst = 0;
    }

    /// Writes the next burst.
    pub(crate) fn write(&mut self, packets: &mut [Packet], kind: BurstKind) -> Burst {
        let pairs = self.pairs;
        let number = self.burst;
        self.burst += 1;
        let (place, is_client) = match kind {
            BurstKind::InOrder(step) => (number % pairs, step.is_from_client()),
            BurstKind::Mixed => (number / 2 % pairs, number.is_multiple_of(2)),
            BurstKind::First => (number % pairs, true),
        };
        let eni = (place * 2 + if is_client { 1 } else { 2 }) as u16;
        let mut burst = Burst { eni, denied: 0 };
        for (position, packet) in packets.iter_mut().enumerate() {
            let in_order = number / pairs * BURST_PACKETS + position;
            let known = |turn: usize| Flow::of(place, turn, is_client, pairs);
            let (flow, step) = match kind {
                BurstKind::InOrder(step) => (known(in_order % self.turns), step),
                BurstKind::First => (known(in_order % (self.turns * NEW_TURNS)), FlowStep::Open),
                BurstKind::Mixed => self.draw(place, is_client),
            };
            burst.denied |= u32::from(step == FlowStep::Denied) << position;
            let frame_bytes = self.size.draw(&mut self.random);
            frames::write(&mut packet.buffer, self.shape, (flow, step), frame_bytes);
            packet.offload = self.offload;
        }
        burst
    }

    /// Draws a packet of this client or server.
    fn draw(&mut self, place: usize, is_client: bool) -> (Flow, FlowStep) {
        let is_drawn = |random: &mut FixtureRandom, share: f64| share > 0.0 && random.unit() < share;
        if is_client && is_drawn(&mut self.random, self.denied_share) {
            return (self.unused(place), FlowStep::Denied);
        }
        // The share is one of all packets, so divide by the share that is not denied.
        if is_client && is_drawn(&mut self.random, self.new_share / (1.0 - self.denied_share).max(f64::EPSILON)) {
            let flow = self.unused(place);
            self.follow(flow, FlowStep::Open);
            return (flow, FlowStep::Open);
        }
        let eni = place * 2 + if is_client { 1 } else { 2 };
        if let Some((flow, step)) = self.due[eni].pop_front() {
            self.follow(flow, step);
            return (flow, step);
        }
        let turn = self.popularity.draw(&mut self.random);
        let step = if is_client { FlowStep::FromClient } else { FlowStep::FromServer };
        (Flow::of(place, turn, is_client, self.pairs), step)
    }

    /// A flow of this client that has been idle for long.
    fn unused(&mut self, place: usize) -> Flow {
        let turn = self.turns + self.opened[place];
        self.opened[place] += 1;
        Flow::of(place, turn, true, self.pairs)
    }

    fn follow(&mut self, flow: Flow, step: FlowStep) {
        if let Some(following) = step.following(self.shape.transport) {
            let eni = if following.is_from_client() { flow.client } else { flow.server };
            self.due[usize::from(eni)].push_back((flow, following));
        }
    }
}

/// A checksum by which two generators of the same frames can be compared: FNV-1a over the bytes.
pub(crate) fn checksum<'a>(frames: impl Iterator<Item = &'a [u8]>) -> u64 {
    let add = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    frames.fold(0xcbf2_9ce4_8422_2325, |sum, frame| frame.iter().fold(sum, add))
}
