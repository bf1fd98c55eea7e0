//! How much an ENI may send and receive.

use crate::config::desired::Direction;
use serde::{Deserialize, Serialize};

/// The shortest and the longest burst, ms.
const BURST_MS: core::ops::RangeInclusive<u32> = 1..=10_000;

/// The rate limits of an ENI; unlimited where absent. Egress leaves the guest, ingress enters it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimits {
    /// Kilobits of frames that the guest may send per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_kbit_per_s: Option<u32>,
    /// Packets that the guest may send per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_packets_per_s: Option<u32>,
    /// Kilobits of frames that the guest may get per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress_kbit_per_s: Option<u32>,
    /// Packets that the guest may get per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress_packets_per_s: Option<u32>,
    /// How much of each may come at once after a pause: what the rate allows in so many ms.
    pub burst_ms: u32,
}

impl RateLimits {
    /// The default burst, ms: what TCP needs to reach a rate over common round-trip times.
    pub const BURST_MS: u32 = 50;

    /// The kilobits and the packets per second of one direction.
    pub const fn of(&self, direction: Direction) -> [Option<u32>; 2] {
        match direction {
            Direction::Egress => [self.egress_kbit_per_s, self.egress_packets_per_s],
            Direction::Ingress => [self.ingress_kbit_per_s, self.ingress_packets_per_s],
        }
    }

    /// Whether there is any limit.
    pub fn are_any(&self) -> bool {
        [Direction::Egress, Direction::Ingress].iter().any(|direction| self.of(*direction) != [None; 2])
    }

    /// What is wrong with them, if anything is.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let rates = [Direction::Egress, Direction::Ingress].map(|direction| self.of(direction));
        if rates.as_flattened().contains(&Some(0)) {
            return Some("a rate is 1 at least; absent is unlimited");
        }
        (!BURST_MS.contains(&self.burst_ms)).then_some("a burst is 1 to 10,000 ms long")
    }
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            egress_kbit_per_s: None,
            egress_packets_per_s: None,
            ingress_kbit_per_s: None,
            ingress_packets_per_s: None,
            burst_ms: Self::BURST_MS,
        }
    }
}
