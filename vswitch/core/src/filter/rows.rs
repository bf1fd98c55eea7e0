//! Rows of bits, one bit a rule.

use crate::simd::{Step, common_halves};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::hash::BuildHasher;
use hashbrown::{DefaultHashBuilder, HashTable};

/// Words that are looked at together; a row is a multiple of them.
const STEP: usize = size_of::<Step>() / size_of::<u64>();
/// Steps that are looked at together.
const BLOCK: usize = 4;

/// Rows of equal width.
#[derive(Debug, Default)]
pub(super) struct RowMatrix {
    /// Steps of a row.
    steps: usize,
    bits: Box<[Step]>,
}

impl RowMatrix {
    /// The row with this number.
    #[inline(always)]
    pub(super) fn row(&self, number: u32) -> &[Step] {
        let start = number as usize * self.steps;
        &self.bits[start..start + self.steps]
    }

    /// The same; none if there is no such row.
    #[inline(always)]
    pub(super) fn find(&self, number: u32) -> Option<&[Step]> {
        let start = number as usize * self.steps;
        self.bits.get(start..start + self.steps)
    }

    /// Rows of `words` each, one after the other.
    pub(super) fn new(words: usize, bits: Vec<u64>) -> Self {
        Self { steps: words / STEP, bits: bits.as_chunks().0.into() }
    }

    /// Bytes of all rows.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.bits)
    }
}

/// Bytes of one row for this many rules.
pub(super) const fn row_bytes(rules: usize) -> usize {
    words_of(rules) * size_of::<u64>()
}

const fn words_of(rules: usize) -> usize {
    rules.div_ceil(u64::BITS as usize * STEP) * STEP
}

/// Collects rows, and numbers the different ones.
pub(super) struct RowCollector {
    words: usize,
    bits: Vec<u64>,
    numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl RowCollector {
    pub(super) fn new(rules: usize) -> Self {
        let (numbers, hasher) = (HashTable::new(), DefaultHashBuilder::default());
        Self { words: words_of(rules), bits: Vec::new(), numbers, hasher }
    }

    /// A row without a bit.
    pub(super) fn empty(&self) -> Vec<u64> {
        vec![0; self.words]
    }

    /// The number of a row with these bits.
    pub(super) fn add(&mut self, row: &[u64]) -> u32 {
        let Self { words, bits, numbers, hasher } = self;
        let hash = hasher.hash_one(row);
        let at = |number: u32| &bits[number as usize * *words..][..*words];
        if let Some(&number) = numbers.find(hash, |&number| at(number) == row) {
            return number;
        }
        let number = numbers.len() as u32;
        numbers.insert_unique(hash, number, |&number| hasher.hash_one(at(number)));
        bits.extend_from_slice(row);
        number
    }

    /// How many different rows there are.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(super) fn finish(self) -> RowMatrix {
        RowMatrix::new(self.words, self.bits)
    }
}

pub(super) fn set_bit(row: &mut [u64], bit: usize) {
    row[bit / 64] |= 1 << (bit % 64);
}

pub(super) fn clear_bit(row: &mut [u64], bit: usize) {
    row[bit / 64] &= !(1 << (bit % 64));
}

#[inline(always)]
pub(super) fn has_bit(row: &[u64], bit: u32) -> bool {
    row[bit as usize / 64] >> (bit % 64) & 1 == 1
}

/// The lowest bit that one of two rows has, and `other` too. Looks at 1024 rules in one go, without a branch that depends
/// on what is found: where the deciding rule is cannot be foreseen, and a wrong guess costs as much as all of that.
#[inline(always)]
pub(super) fn first_common([one, two]: [&[Step]; 2], other: &[Step]) -> Option<u32> {
    if let ([one], [two], [other]) = (one, two, other) {
        return first_within([one, two].map(core::array::from_ref), core::array::from_ref(other));
    }
    let [(ones, one), (twos, two), (others, other)] = [one, two, other].map(|row| row.as_chunks::<BLOCK>());
    for (block, ((one, two), other)) in ones.iter().zip(twos).zip(others).enumerate() {
        if let Some(bit) = first_within([one, two], other) {
            return Some((block * size_of::<[Step; BLOCK]>() * 8) as u32 + bit);
        }
    }
    for (step, ((one, two), other)) in one.iter().zip(two).zip(other).enumerate() {
        if let Some(bit) = first_within([one, two].map(core::array::from_ref), core::array::from_ref(other)) {
            return Some(((ones.len() * BLOCK + step) * size_of::<Step>() * 8) as u32 + bit);
        }
    }
    None
}

#[inline(always)]
fn first_within<const STEPS: usize>(remote @ [one, two]: [&[Step; STEPS]; 2], other: &[Step; STEPS]) -> Option<u32> {
    let halves = common_halves(remote, other);
    // The low half of the word is empty if the high one is the first that is not.
    let word = halves.trailing_zeros() as usize / 2;
    let at = |row: &[Step; STEPS]| row.as_flattened().get(word).copied();
    let common = (at(one)? | at(two)?) & at(other)?;
    Some(word as u32 * u64::BITS + common.trailing_zeros())
}

/// The lowest bit that one of two rows has, all `others` too, and that `is_true` confirms.
pub(super) fn first_confirmed(
    [one, two]: [&[Step]; 2],
    others: [&[Step]; 3],
    is_true: impl Fn(u32) -> bool,
) -> Option<u32> {
    let ([one, two], others) = ([one, two].map(<[Step]>::as_flattened), others.map(<[Step]>::as_flattened));
    for place in 0..one.len().min(two.len()) {
        let mut common = others.iter().fold(one[place] | two[place], |common, row| common & row[place]);
        while common != 0 {
            let bit = place as u32 * u64::BITS + common.trailing_zeros();
            if is_true(bit) {
                return Some(bit);
            }
            common &= common - 1;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(row: &[u64]) -> &[Step] {
        row.as_chunks().0
    }

    #[test]
    fn the_first_common_bit_is_found_wherever_it_is() {
        let rules_tried: &[usize] =
            if cfg!(miri) { &[1, 65, 300] } else { &[1, 64, 65, 256, 257, 1000, 1024, 1025, 5000] };
        for &rules in rules_tried {
            let mut rows = RowCollector::new(rules);
            let empty = rows.empty();
            assert_eq!(first_common([steps(&empty); 2], steps(&empty)), None);
            for bit in (0..rules).step_by(17).chain([rules - 1]) {
                let (mut one, mut other) = (rows.empty(), rows.empty());
                for later in bit..rules {
                    set_bit(if later % 2 == 0 { &mut one } else { &mut other }, later);
                }
                set_bit(&mut one, bit);
                set_bit(&mut other, bit);
                set_bit(&mut one, rules - 1);
                set_bit(&mut other, rules - 1);
                assert_eq!(
                    first_common([&one, &empty].map(|row| steps(row)), steps(&other)),
                    Some(bit as u32),
                    "{rules}"
                );
                assert_eq!(
                    first_common([&empty, &one].map(|row| steps(row)), steps(&other)),
                    Some(bit as u32),
                    "{rules}"
                );
                assert_eq!(
                    first_confirmed([&one, &empty].map(|row| steps(row)), [steps(&other); 3], |found| found as usize
                        != bit)
                    .is_some(),
                    bit != rules - 1
                );
            }
            rows.add(&empty);
        }
    }
}
