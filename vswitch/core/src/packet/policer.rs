//! Token buckets for the bytes and packets of one direction.

use crate::hw::time::Time;
use crate::packet::offload::Wire;

/// Times are kept in sixteenths of a nanosecond: a small packet takes a few nanoseconds at the highest rates.
const FRACTIONS_PER_NS: u64 = 16;
const FRACTIONS_PER_S: u64 = 1_000_000_000 * FRACTIONS_PER_NS;
const FRACTIONS_PER_MS: u64 = 1_000_000 * FRACTIONS_PER_NS;

/// The buckets of one direction, each as the time at which all that was taken from it will have flowed in again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policer {
    bits: u64,
    packets: u64,
}

impl Policer {
    /// Nothing is taken yet.
    pub(crate) const FULL: Self = Self { bits: 0, packets: 0 };

    /// Takes what a frame costs from both buckets, if both have it. A frame that is larger than a whole bucket needs a
    /// full one.
    pub(crate) fn take(&mut self, rates: [Option<u32>; 2], burst_ms: u32, wire: Wire, now: Time) -> bool {
        let [kbit_per_s, packets_per_s] = rates;
        let now = now.as_ns() * FRACTIONS_PER_NS;
        let full = now + u64::from(burst_ms) * FRACTIONS_PER_MS;
        let after = |level: u64, cost: u64| {
            let after = level.max(now) + cost;
            (after <= full || level <= now).then_some(after)
        };
        let bits = match kbit_per_s {
            Some(rate) => after(self.bits, cost(wire.bytes * 8, u64::from(rate) * 1000)),
            None => Some(0),
        };
        let packets = match packets_per_s {
            Some(rate) => after(self.packets, cost(wire.packets.into(), rate.into())),
            None => Some(0),
        };
        if let (Some(bits), Some(packets)) = (bits, packets) {
            *self = Self { bits, packets };
            return true;
        }
        false
    }
}

/// How long an amount takes to flow in at a rate.
fn cost(amount: u64, per_s: u64) -> u64 {
    (u128::from(amount) * u128::from(FRACTIONS_PER_S) / u128::from(per_s)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(limits: [Option<u32>; 2], frame_bytes: u64, interval_ns: u64, seconds: u64) -> u64 {
        let mut policer = Policer::FULL;
        let start = 1_000_000_000;
        let times = (start..start + seconds * 1_000_000_000).step_by(interval_ns as usize);
        let wire = Wire { packets: 1, bytes: frame_bytes };
        times.filter(|now| policer.take(limits, 50, wire, Time::from_ns(*now))).count() as u64
    }

    #[test]
    fn a_flood_passes_at_the_rate_and_a_burst_above() {
        for (kbit_per_s, frame_bytes) in [(10_000, 1514), (1_000_000, 64), (4_000_000_000, 64)] {
            let interval_ns = (frame_bytes * 8 * 1_000_000 / u64::from(kbit_per_s)).div_ceil(2).max(1);
            let seconds = if kbit_per_s > 1_000_000 { 0 } else { 1 };
            let most = u64::from(kbit_per_s) * 1000 / 8 * (1000 * seconds + 50) / 1000;
            let bytes = passed([Some(kbit_per_s), None], frame_bytes, interval_ns, seconds) * frame_bytes;
            assert!(bytes <= most && (seconds == 0 || bytes + 2 * frame_bytes >= most), "{bytes} of {most}");
        }
        assert_eq!(passed([None, Some(1000)], 64, 100_000, 2), 2000 + 50 - 1, "the last comes when the time is over");
        // The narrower of two counts, and takes nothing from the other.
        assert_eq!(passed([Some(1_000_000), Some(10)], 64, 1_000_000, 1), 10);
    }

    #[test]
    fn a_frame_larger_than_the_bucket_passes_when_that_is_full() {
        // 512 kbit at 100 kbit/s are 5.12 s.
        assert_eq!(passed([Some(100), None], 64_000, 1_000_000, 60), 12);
    }
}
