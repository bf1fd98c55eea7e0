//! Which packets follow each other: bursts as ports hand them over, each of one ENI.
//!
//! `peers/dpdk-parts/frames.h` makes the same bursts by the same numbers; the frames of both are compared in every run.

use crate::frames::{self, Flow, Shape, Step};
use crate::world::{PAIRS, Random};
use vswitch_core::limits::BURST_PACKETS;
use vswitch_core::packet::Packet;

/// Kinds of bursts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The flows one after another, each in this step.
    InOrder(Step),
    /// Flows at random, each as likely as any, from clients and servers in turn.
    Established,
    /// First packets of flows that have been silent for long.
    First,
}

/// How many times as many flows take turns in being first as are alive at once.
const FIRST_TURNS: usize = 4;

/// A sequence of bursts: the same seed gives the same everywhere.
pub(crate) struct Traffic {
    pub(crate) shape: Shape,
    pub(crate) frame_bytes: usize,
    /// Flows of each client.
    turns: usize,
    random: Random,
    burst: usize,
}

impl Traffic {
    /// Traffic of about `flows` flows: as many for each client.
    pub(crate) fn new(shape: Shape, frame_bytes: usize, flows: usize, seed: u64) -> Self {
        let turns = flows.div_ceil(PAIRS as usize);
        Self { shape, frame_bytes, turns, random: Random::new(seed), burst: 0 }
    }

    /// How many flows there are.
    pub(crate) fn flows(&self) -> usize {
        self.turns * PAIRS as usize
    }

    /// Begins a kind of bursts anew.
    pub(crate) fn restart(&mut self) {
        self.burst = 0;
    }

    /// Writes the next burst; returns the number of the ENI that sends it.
    pub(crate) fn write(&mut self, burst: &mut [Packet], kind: Kind) -> u16 {
        let pairs = PAIRS as usize;
        let number = self.burst;
        self.burst += 1;
        let (place, is_client) = match kind {
            Kind::InOrder(step) => (number % pairs, step.is_from_client()),
            Kind::Established => (number / 2 % pairs, number.is_multiple_of(2)),
            Kind::First => (number % pairs, true),
        };
        for (position, packet) in burst.iter_mut().enumerate() {
            let in_order = number / pairs * BURST_PACKETS + position;
            let (turn, step) = match kind {
                Kind::InOrder(step) => (in_order % self.turns, step),
                Kind::Established if is_client => (self.random.below(self.turns as u64) as usize, Step::FromClient),
                Kind::Established => (self.random.below(self.turns as u64) as usize, Step::FromServer),
                Kind::First => (in_order % (self.turns * FIRST_TURNS), Step::Open),
            };
            let flow = Flow::numbered(Flow::number_of(place, turn, is_client));
            frames::write(&mut packet.buffer, self.shape, (flow, step), self.frame_bytes);
        }
        (place * 2 + if is_client { 1 } else { 2 }) as u16
    }
}

/// A checksum by which two generators of the same frames know each other: FNV-1a over the bytes.
pub(crate) fn checksum<'a>(frames: impl Iterator<Item = &'a [u8]>) -> u64 {
    let add = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    frames.fold(0xcbf2_9ce4_8422_2325, |sum, frame| frame.iter().fold(sum, add))
}
