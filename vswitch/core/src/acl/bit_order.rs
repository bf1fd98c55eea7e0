//! Which bit each rule has. Bits ascend in the order in which rules decide, with gaps for rules that are added later.

use crate::acl::bit_matrix::{first_clear, has_bit, put_bit, words_of};
use crate::config::desired::{DesiredRule, Policy};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// One bit in this many is left free, as far as the row has room.
const RULES_PER_FREE_BIT: usize = 8;

/// The order in which rules decide (§3.1): by ascending priority, then drop before accept. Equal ranks may come in any
/// order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(u16);

impl Rank {
    pub(super) fn of(rule: &DesiredRule) -> Self {
        // Drop sorts before accept of the same priority, which is the precedence of §3.1.
        Self(u16::from(rule.priority) << 1 | u16::from(rule.policy == Policy::Accept))
    }
}

/// Assigns bits to rules.
#[derive(Clone, Debug)]
pub(super) struct BitOrder {
    /// The rank of the rule that has each bit. A free bit has a rank between those of its neighbours.
    ranks: Vec<Rank>,
    taken: Vec<u64>,
}

impl BitOrder {
    /// Assigns bits to rules of ascending ranks, and spreads the free bits among them. Returns the bit of each rule.
    pub(super) fn spread(ranks: &[Rank]) -> (Self, Vec<u32>) {
        let words = words_of(ranks.len());
        let room = words * u64::BITS as usize;
        let free = (room - ranks.len()).min(ranks.len().div_ceil(RULES_PER_FREE_BIT));
        // The first free bit comes before all rules.
        let before = |place: usize| if free == 0 { 0 } else { 1 + place * (free - 1) / ranks.len() };
        let bits: Vec<u32> = (0..ranks.len()).map(|place| (place + before(place)) as u32).collect();
        let mut order = Self { ranks: vec![Rank(0); room], taken: vec![0; words] };
        for (place, (&bit, &rank)) in bits.iter().zip(ranks).enumerate() {
            put_bit(&mut order.taken, bit, true);
            let next = bits.get(place + 1).map_or(room, |next| *next as usize);
            // The free bits behind a rule get its rank, so that `take` finds them by binary search among equals.
            order.ranks[bit as usize..next].fill(rank);
        }
        (order, bits)
    }

    /// The length of a row, words.
    pub(super) const fn words(&self) -> usize {
        self.taken.len()
    }

    /// Takes a bit for a rule of this rank, or returns `None` if no bit at its position is free.
    pub(super) fn take(&mut self, rank: Rank) -> Option<u32> {
        let equals =
            self.ranks.partition_point(|other| *other < rank)..self.ranks.partition_point(|other| *other <= rank);
        // A free bit among rules of the same rank disturbs no other rank, so it is tried first.
        let among = || first_clear(&self.taken, equals.clone());
        let is_free = |bit: &usize| !has_bit(&self.taken, *bit as u32);
        // In the middle of a gap, so that later rules find room on both sides.
        let before = || middle((0..equals.start).rev().take_while(is_free).last()?..equals.start);
        let after = || middle(equals.end..(equals.end..self.ranks.len()).take_while(is_free).last()? + 1);
        let bit = among().or_else(before).or_else(after)?;
        // Free bits between it and rules of the same rank now have that rank as well.
        self.ranks[bit.min(equals.end)..equals.start.max(bit + 1)].fill(rank);
        put_bit(&mut self.taken, bit as u32, true);
        Some(bit as u32)
    }

    /// Frees a bit.
    pub(super) fn free(&mut self, bit: u32) {
        put_bit(&mut self.taken, bit, false);
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.ranks) + size_of_val(&*self.taken)
    }
}

fn middle(bits: Range<usize>) -> Option<usize> {
    Some(bits.start.midpoint(bits.end - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;

    /// Whichever rules come and go: as long as there is room, bits ascend with ranks, and no two rules share one.
    #[test]
    fn bits_ascend_with_ranks_whoever_comes_and_goes() {
        let (sizes, rounds): (&[usize], _) =
            if cfg!(miri) { (&[2, 64], 100) } else { (&[1, 2, 63, 64, 250, 255, 256, 257, 1000, 1023, 1024], 2000) };
        for &rules in sizes {
            let ranks: Vec<Rank> = (0..rules).map(|number| Rank(10 + (number * 40 / rules) as u16)).collect();
            let (mut order, bits) = BitOrder::spread(&ranks);
            let mut of_bits: BTreeMap<u32, Rank> = bits.into_iter().zip(ranks).collect();
            assert_eq!(of_bits.len(), rules, "nobody has another's");
            let mut state = rules as u64;
            for _ in 0..rounds {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let random = (state >> 33) as u32;
                let gone = of_bits.range(random % (order.words() as u32 * 64 + 1)..).next().map(|(bit, _)| *bit);
                match gone.filter(|_| random.is_multiple_of(2)) {
                    Some(bit) => {
                        order.free(bit);
                        of_bits.remove(&bit);
                    }
                    None => {
                        let rank = Rank((random >> 8) as u16 % 60);
                        match order.take(rank) {
                            Some(bit) => assert_eq!(of_bits.insert(bit, rank), None),
                            None => {
                                let stronger = of_bits.iter().rfind(|(_, other)| **other < rank);
                                let weaker = of_bits.iter().find(|(_, other)| **other > rank);
                                let first = stronger.map_or(0, |(bit, _)| bit + 1);
                                let end = weaker.map_or(order.words() as u32 * 64, |(bit, _)| *bit);
                                assert_eq!(
                                    of_bits.range(first..end).count(),
                                    (end - first) as usize,
                                    "there is no room"
                                );
                            }
                        }
                    }
                }
                assert!(of_bits.values().is_sorted(), "{rules}: {of_bits:?}");
                assert!(order.ranks.is_sorted());
            }
        }
    }

    #[test]
    fn there_is_room_before_between_and_after() {
        let (order, _) = BitOrder::spread(&[Rank(10); 200]);
        for rank in [Rank(1), Rank(10), Rank(99)] {
            assert!(order.clone().take(rank).is_some(), "{rank:?}");
        }
        let (mut order, bits) = BitOrder::spread(&[Rank(10); 256]);
        assert_eq!((order.take(Rank(10)), bits.last()), (None, Some(&255)), "all are taken");
        order.free(7);
        assert_eq!(order.take(Rank(10)), Some(7));
    }
}
