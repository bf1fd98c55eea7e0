//! The rate limits of an ENI: token policer for bytes and packets in each direction. The shell asks before a frame of
//! the guest is forwarded, and before one is sent to it, so that both paths between are as they are without limits.

use crate::compile::snapshot::Snapshot;
use crate::config::desired::Direction;
use crate::config::ids::EniIndex;
use crate::datapath::shard::Shard;
use crate::hw::time::Time;
use crate::packet::offload::Wire;
use crate::packet::verdict::{DropReason, Verdict};

impl Shard {
    /// Whether the rate limits of an ENI admit a frame in a direction. Counts it as dropped if they do not.
    pub fn admits_rate(
        &mut self,
        snapshot: &Snapshot,
        eni: EniIndex,
        direction: Direction,
        wire: Wire,
        now: Time,
    ) -> bool {
        let Some(entry) = snapshot.eni(eni) else { return true };
        let Some(limits) = &entry.rate_limits else { return true };
        let counters = self.counters_at(eni, entry.epoch);
        let policer = match direction {
            Direction::Egress => &mut counters.egress_rate,
            Direction::Ingress => &mut counters.ingress_rate,
        };
        if policer.take(limits.of(direction), limits.burst_ms, wire, now) {
            return true;
        }
        counters.direction(direction).count(Verdict::Drop(DropReason::RateLimited), wire);
        false
    }
}
