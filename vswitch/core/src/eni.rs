//! The door.

use crate::desired::Direction;
use crate::ids::EniIndex;
use crate::packet::Packet;
use crate::protocol::{EniStats, FlowDescription, PacketDescription};
use crate::snapshot::Snapshot;
use crate::time::Time;
use crate::trace::JudgementReport;
use crate::verdict::{DropReason, Verdict};
use alloc::vec::Vec;

/// What one worker alone owns: the sessions and counters of its ENIs.
#[derive(Debug)]
pub struct Shard {}

impl Shard {
    /// A shard with room for `flows_max` sessions, whose hash is seeded with `secret`.
    pub fn new(_flows_max: usize, _secret: [u64; 2]) -> Self {
        Self {}
    }
    /// A burst that the guest behind `eni` sent. Sets each packet's verdict: `Forward`, `Answer` or `Drop`.
    pub fn egress(&mut self, _snapshot: &Snapshot, _eni: EniIndex, _burst: &mut [Packet], _now: Time) {}
    /// A burst whose packets each carry `Verdict::Forward` to an ENI of this shard. Sets each packet's verdict:
    /// `Deliver` or `Drop`.
    pub fn ingress(&mut self, _snapshot: &Snapshot, _burst: &mut [Packet], _now: Time) {}
    /// Counts a packet that the shell had to drop at `eni`.
    pub fn count_drop(&mut self, _eni: EniIndex, _direction: Direction, _reason: DropReason) {}
    /// Ends some idle sessions: a bounded step of an endless round.
    pub fn sweep(&mut self, _now: Time) {}
    /// Live sessions.
    pub fn flow_count(&self) -> usize {
        0
    }
    /// Room for sessions.
    pub fn flows_max(&self) -> usize {
        0
    }
    /// The counters of an ENI.
    pub fn stats(&self, _snapshot: &Snapshot, _eni: EniIndex) -> Option<EniStats> {
        None
    }
    /// Sessions, at most `limit`; of one ENI if given.
    pub fn flows(
        &self,
        _snapshot: &Snapshot,
        _eni: Option<EniIndex>,
        _limit: usize,
        _now: Time,
    ) -> Vec<FlowDescription> {
        Vec::new()
    }
    /// Judges a described packet at `eni` without changing anything; the verdict names the next ENI after egress.
    ///
    /// # Errors
    /// The field of the description at fault, and why.
    pub fn explain(
        &self,
        _snapshot: &Snapshot,
        _eni: EniIndex,
        _direction: Direction,
        _packet: &PacketDescription,
        _now: Time,
    ) -> Result<(Option<JudgementReport>, Verdict), crate::protocol::Refusal> {
        Ok((None, Verdict::Drop(DropReason::EniGone)))
    }
}
