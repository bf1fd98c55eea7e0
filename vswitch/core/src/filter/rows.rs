//! Rows of bits, one bit a rule.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::hash::BuildHasher;
use hashbrown::{DefaultHashBuilder, HashTable};

/// Words that are looked at together; a row is a multiple of them.
const STEP: usize = 4;
/// Steps that are looked at together.
const BLOCK: usize = 4;

/// Rows of equal width.
#[derive(Debug, Default)]
pub(super) struct RowMatrix {
    words: usize,
    bits: Box<[u64]>,
}

impl RowMatrix {
    /// The row with this number.
    #[inline]
    pub(super) fn row(&self, number: u32) -> &[u64] {
        let start = number as usize * self.words;
        &self.bits[start..start + self.words]
    }

    /// Rows of `words` each, one after the other.
    pub(super) fn new(words: usize, bits: Vec<u64>) -> Self {
        Self { words, bits: bits.into() }
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
        RowMatrix { words: self.words, bits: self.bits.into() }
    }
}

pub(super) fn set_bit(row: &mut [u64], bit: usize) {
    row[bit / 64] |= 1 << (bit % 64);
}

pub(super) fn clear_bit(row: &mut [u64], bit: usize) {
    row[bit / 64] &= !(1 << (bit % 64));
}

#[inline]
pub(super) fn has_bit(row: &[u64], bit: u32) -> bool {
    row[bit as usize / 64] >> (bit % 64) & 1 == 1
}

/// The lowest bit that one of two rows has, and `other` too. Looks at 1024 rules in one go, without a branch that depends
/// on what is found: where the deciding rule is cannot be foreseen, and a wrong guess costs as much as all of that.
#[inline]
pub(super) fn first_common([one, two]: [&[u64]; 2], other: &[u64]) -> Option<u32> {
    let [one, two, other] = [one, two, other].map(|row| row.as_chunks::<STEP>().0);
    if let ([one], [two], [other]) = (one, two, other) {
        return first_in_step(one, two, other);
    }
    let [one, two, other] = [one, two, other].map(|row| row.chunks(BLOCK));
    for (block, ((one, two), other)) in one.zip(two).zip(other).enumerate() {
        let mut any = [0; BLOCK];
        for (any, ((one, two), other)) in any.iter_mut().zip(one.iter().zip(two).zip(other)) {
            *any = (0..STEP).fold(0, |any, word| any | ((one[word] | two[word]) & other[word]));
        }
        let step = first_set(any);
        if let (Some(one), Some(two), Some(other)) = (one.get(step), two.get(step), other.get(step)) {
            let before = ((block * BLOCK + step) * STEP) as u32 * u64::BITS;
            return first_in_step(one, two, other).map(|bit| before + bit);
        }
    }
    None
}

#[inline(always)]
fn first_in_step(one: &[u64; STEP], two: &[u64; STEP], other: &[u64; STEP]) -> Option<u32> {
    let common: [u64; STEP] = core::array::from_fn(|word| (one[word] | two[word]) & other[word]);
    let word = first_set(common);
    let bit = common[word & (STEP - 1)].trailing_zeros();
    (word < STEP).then_some(word as u32 * u64::BITS + bit)
}

/// The place of the first word with a bit, of four; 4 if there is none.
#[inline]
fn first_set(words: [u64; 4]) -> usize {
    let [first, second, third, fourth] = words;
    let second = first | second;
    let third = second | third;
    usize::from(first == 0) + usize::from(second == 0) + usize::from(third == 0) + usize::from(third | fourth == 0)
}

/// The lowest bit that one of two rows has, all `others` too, and that `is_true` confirms.
pub(super) fn first_confirmed(
    [one, two]: [&[u64]; 2],
    others: [&[u64]; 3],
    is_true: impl Fn(u32) -> bool,
) -> Option<u32> {
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

    #[test]
    fn the_first_common_bit_is_found_wherever_it_is() {
        let rules_tried: &[usize] =
            if cfg!(miri) { &[1, 65, 300] } else { &[1, 64, 65, 256, 257, 1000, 1024, 1025, 5000] };
        for &rules in rules_tried {
            let mut rows = RowCollector::new(rules);
            let empty = rows.empty();
            assert_eq!(first_common([&empty, &empty], &empty), None);
            for bit in (0..rules).step_by(17).chain([rules - 1]) {
                let (mut one, mut other) = (rows.empty(), rows.empty());
                for later in bit..rules {
                    set_bit(if later % 2 == 0 { &mut one } else { &mut other }, later);
                }
                set_bit(&mut one, bit);
                set_bit(&mut other, bit);
                set_bit(&mut one, rules - 1);
                set_bit(&mut other, rules - 1);
                assert_eq!(first_common([&one, &empty], &other), Some(bit as u32), "{rules}");
                assert_eq!(first_common([&empty, &one], &other), Some(bit as u32), "{rules}");
                assert_eq!(
                    first_confirmed([&one, &empty], [&other; 3], |found| found as usize != bit).is_some(),
                    bit != rules - 1
                );
            }
            rows.add(&empty);
        }
    }
}
