//! Rate limits: every frame is admitted or dropped as textbook token buckets in exact arithmetic would have it.

use super::cases;
use harness::world::{Build, World};
use proptest::prelude::*;
use vswitch_core::config::desired::{Desired, Direction};
use vswitch_core::config::rate_limits::RateLimits;
use vswitch_core::packet::offload::Wire;

const ENI: &str = "eni";
const NS_PER_S: i128 = 1_000_000_000;
/// The production code keeps time in sixteenths of a nanosecond, and so takes up to one too little for a frame.
const FRACTIONS_PER_NS: i128 = 16;

/// A bucket: tokens flow in at the rate, up to what flows in during a burst. Its unit is a billionth of a bit or packet, so
/// that a nanosecond brings a whole number of them.
#[derive(Clone, Debug)]
struct TokenBucketOracle {
    per_ns: i128,
    most: i128,
    tokens: i128,
    at_ns: i128,
    /// How many frames it gave tokens for.
    taken: i128,
}

impl TokenBucketOracle {
    fn new(per_s: u64, burst_ms: u32) -> Self {
        let per_ns = i128::from(per_s);
        let most = per_ns * i128::from(burst_ms) * 1_000_000;
        Self { per_ns, most, tokens: most, at_ns: 0, taken: 0 }
    }

    fn flow_in(&mut self, now_ns: u64) {
        let now_ns = i128::from(now_ns);
        self.tokens = self.most.min(self.tokens + (now_ns - self.at_ns) * self.per_ns);
        self.at_ns = now_ns;
    }

    /// How many tokens are missing. Whoever needs more than the bucket holds waits until it is full.
    fn missing(&self, amount: u64) -> i128 {
        (i128::from(amount) * NS_PER_S).min(self.most) - self.tokens
    }

    fn take(&mut self, amount: u64) {
        self.tokens -= i128::from(amount) * NS_PER_S;
        self.taken += 1;
    }

    /// How many tokens rounding may have left in the other's bucket.
    fn rounding(&self) -> i128 {
        (self.taken + 1) * self.per_ns / FRACTIONS_PER_NS + 1
    }
}

fn rate(most: u32) -> impl Strategy<Value = Option<u32>> {
    prop_oneof![1 => Just(None), 4 => (1..=most).prop_map(Some)]
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn frames_pass_as_exact_buckets_have_it(
        kbit_per_s in rate(100_000_000),
        packets_per_s in rate(20_000_000),
        burst_ms in 1u32..=200,
        is_egress: bool,
        frames in prop::collection::vec((0u64..3_000_000, 64u64..70_000, 1u32..50), 1..400),
    ) {
        let direction = if is_egress { Direction::Egress } else { Direction::Ingress };
        let limits = match direction {
            Direction::Egress => RateLimits {
                egress_kbit_per_s: kbit_per_s, egress_packets_per_s: packets_per_s, burst_ms, ..RateLimits::default()
            },
            Direction::Ingress => RateLimits {
                ingress_kbit_per_s: kbit_per_s, ingress_packets_per_s: packets_per_s, burst_ms, ..RateLimits::default()
            },
        };
        let desired = Desired::default()
            .vpc("vpc-1")
            .vswitch("vsw-1", "vpc-1", "10.0.0.0/24", "fd00::/64")
            .closed_group("sg", "vpc-1", &[])
            .eni(ENI, "vsw-1", &["10.0.0.10"], &["sg"]);
        let mut world = World::new(desired);
        world.change_eni(ENI, |eni| eni.rate_limits = limits);
        let index = world.index(ENI);
        let per_s = [kbit_per_s.map(|rate| u64::from(rate) * 1000), packets_per_s.map(u64::from)];
        let mut buckets = per_s.map(|per_s| per_s.map(|per_s| TokenBucketOracle::new(per_s, burst_ms)));
        let (mut dropped, mut elapsed_ns) = (0, 0);
        for (pause_ns, bytes, packets) in frames {
            elapsed_ns += pause_ns;
            let now = world.now + elapsed_ns;
            let amounts = [bytes * 8, u64::from(packets)];
            buckets.iter_mut().flatten().for_each(|bucket| bucket.flow_in(elapsed_ns));
            let is_admitted = world.shards[0].admits_rate(&world.snapshot, index, direction, Wire { packets, bytes }, now);
            let each = buckets.iter_mut().zip(amounts).filter_map(|(bucket, amount)| Some((bucket.as_mut()?, amount)));
            let mut all_have_enough = true;
            for (bucket, amount) in each {
                let missing = bucket.missing(amount);
                all_have_enough &= missing <= 0;
                prop_assert!(!is_admitted || missing <= bucket.rounding(), "admitted, but {missing} are missing");
                if is_admitted {
                    bucket.take(amount);
                }
            }
            prop_assert!(is_admitted || !all_have_enough, "dropped, but there is enough");
            dropped += u64::from(!is_admitted) * u64::from(packets);
        }
        let stats = world.shards[0].stats(&world.snapshot, index).expect("the ENI is there");
        let counted = match direction {
            Direction::Egress => stats.egress.drops,
            Direction::Ingress => stats.ingress.drops,
        };
        prop_assert_eq!(counted.values().sum::<u64>(), dropped);
    }
}
