//! A matrix of bits, with one column for each rule.

use crate::hw::simd::common_halves;
use alloc::vec;
use alloc::vec::Vec;
use core::hash::BuildHasher;
use core::ops::Range;
use hashbrown::{DefaultHashBuilder, HashTable};

/// Rows of few rules are searched this many words at a time.
pub(super) const NARROW: usize = 4;
/// All other rows are searched this many words at a time; their length is a multiple of it.
pub(super) const WIDE: usize = 16;
/// Words of a cache line.
const LINE_WORDS: usize = 8;

/// Rows of equal width.
#[derive(Debug, Default)]
pub(super) struct BitMatrix {
    /// Words of a row.
    words: usize,
    rows: usize,
    bits: Vec<u64>,
    /// The word at which the rows begin, aligned to a cache line.
    first: usize,
}

impl Clone for BitMatrix {
    fn clone(&self) -> Self {
        self.with_room_for(self.rows / 16 + 4)
    }
}

impl BitMatrix {
    /// The row with this number.
    #[inline]
    pub(super) fn row(&self, number: u32) -> &[u64] {
        &self.bits[self.place(number)..][..self.words]
    }

    /// The row with this number, or `None` if there is no such row.
    #[inline]
    pub(super) fn find(&self, number: u32) -> Option<&[u64]> {
        let start = self.place(number);
        self.bits.get(start..start + self.words)
    }

    #[inline]
    const fn place(&self, number: u32) -> usize {
        self.first + number as usize * self.words
    }

    /// All rows in pieces of `WORDS` words, and the number of pieces in each row.
    pub(super) fn pieces<const WORDS: usize>(&self) -> (&[[u64; WORDS]], usize) {
        let pieces = self.bits.get(self.first..).unwrap_or_default().as_chunks().0;
        (pieces, self.words / WORDS)
    }

    /// A copy with room for `more` additional rows.
    fn with_room_for(&self, more: usize) -> Self {
        let rows = &self.bits[self.first..];
        let mut bits = Vec::with_capacity(rows.len() + more * self.words + LINE_WORDS - 1);
        let first = line_start(bits.spare_capacity_mut());
        // The rows begin on a cache line, so that a piece never touches one line more than it fills.
        bits.resize(first, 0);
        bits.extend_from_slice(rows);
        Self { bits, first, ..*self }
    }

    /// A matrix without rows, whose rows will have this many words.
    pub(super) const fn empty(words: usize) -> Self {
        Self { words, rows: 0, bits: Vec::new(), first: 0 }
    }

    /// How many rows there are.
    pub(super) const fn len(&self) -> usize {
        self.rows
    }

    /// Adds an empty row and returns its number.
    pub(super) fn push(&mut self) -> u32 {
        // A growing `Vec` would move the rows to an address that is no longer aligned.
        if self.bits.capacity() < self.bits.len() + self.words {
            *self = self.with_room_for(self.rows / 4 + 4);
        }
        self.bits.resize(self.bits.len() + self.words, 0);
        self.rows += 1;
        self.rows as u32 - 1
    }

    /// Adds a copy of a row and returns its number.
    pub(super) fn push_copy(&mut self, of: u32) -> u32 {
        let number = self.push();
        let (start, end) = (self.place(of), self.place(number));
        self.bits.copy_within(start..start + self.words, end);
        number
    }

    /// Sets or clears a bit of a row.
    pub(super) fn put(&mut self, number: u32, bit: u32, is_set: bool) {
        let start = self.place(number);
        put_bit(&mut self.bits[start..], bit, is_set);
    }

    /// Sets or clears a bit in every row.
    pub(super) fn put_in_all(&mut self, bit: u32, is_set: bool) {
        (0..self.rows as u32).for_each(|number| self.put(number, bit, is_set));
    }

    /// The size of all rows, bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.bits.capacity() * size_of::<u64>()
    }
}

/// The index of the first word that starts a cache line.
fn line_start<T>(words: &[T]) -> usize {
    let after = words.as_ptr().addr() / size_of::<u64>() % LINE_WORDS;
    (LINE_WORDS - after) % LINE_WORDS
}

/// The size of a row for this many rules, bytes.
pub(super) const fn row_bytes(rules: usize) -> usize {
    words_of(rules) * size_of::<u64>()
}

/// The length of a row for this many rules, words.
pub(super) const fn words_of(rules: usize) -> usize {
    match rules.div_ceil(u64::BITS as usize) {
        0 => 0,
        1..=NARROW => NARROW,
        words => words.next_multiple_of(WIDE),
    }
}

/// Collects rows and gives each distinct one a number.
pub(super) struct RowCollector {
    words: usize,
    bits: Vec<u64>,
    /// The rows' numbers with the hash of each, so that the table can grow without rehashing rows.
    numbers: HashTable<(u64, u32)>,
    hasher: DefaultHashBuilder,
}

impl RowCollector {
    /// A collector sized for about `rows` rows of `words` words.
    pub(super) fn new(words: usize, rows: usize) -> Self {
        let (bits, numbers) = (Vec::with_capacity(words * rows), HashTable::with_capacity(rows));
        Self { words, bits, numbers, hasher: DefaultHashBuilder::default() }
    }

    /// A row of zeros.
    pub(super) fn empty(&self) -> Vec<u64> {
        vec![0; self.words]
    }

    /// The number of a row with these bits; a new one if no row has them yet.
    pub(super) fn add(&mut self, row: &[u64]) -> u32 {
        let Self { words, bits, numbers, hasher } = self;
        let hash = hasher.hash_one(row);
        let at = |number: u32| &bits[number as usize * *words..][..*words];
        // Hashes are compared first: nearly all rows that differ are told apart without reading them.
        if let Some(&(_, number)) = numbers.find(hash, |&(other, number)| other == hash && at(number) == row) {
            return number;
        }
        let number = numbers.len() as u32;
        numbers.insert_unique(hash, (hash, number), |&(hash, _)| hash);
        bits.extend_from_slice(row);
        number
    }

    /// How many distinct rows there are.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(super) fn finish(self) -> BitMatrix {
        // The clone moves the rows to an aligned place, which a growing `Vec` cannot promise.
        BitMatrix { words: self.words, rows: self.numbers.len(), bits: self.bits, first: 0 }.clone()
    }
}

pub(super) fn put_bit(row: &mut [u64], bit: u32, is_set: bool) {
    let (word, bit) = (&mut row[bit as usize / 64], 1 << (bit % 64));
    *word = if is_set { *word | bit } else { *word & !bit };
}

/// The first clear bit in a range.
pub(super) fn first_clear(row: &[u64], bits: Range<usize>) -> Option<usize> {
    let mut start = bits.start;
    while start < bits.end {
        let clear = !row[start / 64] >> (start % 64);
        if clear != 0 {
            return Some(start + clear.trailing_zeros() as usize).filter(|bit| *bit < bits.end);
        }
        start = (start / 64 + 1) * 64;
    }
    None
}

#[inline(always)]
pub(super) fn has_bit(row: &[u64], bit: u32) -> bool {
    row[bit as usize / 64] >> (bit % 64) & 1 == 1
}

/// The lowest bit that is set in `other` and in at least one of the two rows.
#[inline]
pub(super) fn first_common([one, two]: [&[u64]; 2], other: &[u64]) -> Option<u32> {
    if other.len() == NARROW {
        return first_in_pieces::<NARROW>([one, two], other);
    }
    first_in_pieces::<WIDE>([one, two], other)
}

fn first_in_pieces<const WORDS: usize>([one, two]: [&[u64]; 2], other: &[u64]) -> Option<u32> {
    let [one, two, other] = [one, two, other].map(|row| row.as_chunks::<WORDS>().0);
    let mut pieces = one.iter().zip(two).zip(other).enumerate();
    pieces.find_map(|(piece, ((one, two), other))| first_in_piece([one, two], other, piece))
}

/// The lowest bit that the pieces have in common. It does not branch on what it finds: the position of the deciding
/// rule is unpredictable, and a mispredicted branch costs as much as searching 1,024 rules.
#[inline(always)]
pub(super) fn first_in_piece<const WORDS: usize>(
    remote @ [one, two]: [&[u64; WORDS]; 2],
    other: &[u64; WORDS],
    piece: usize,
) -> Option<u32> {
    let halves = common_halves(remote, other);
    // If the first half that is not zero is a high one, the low half of its word is zero.
    let word = halves.trailing_zeros() as usize / 2;
    let common = (one.get(word)? | two[word]) & other[word];
    Some((piece * WORDS + word) as u32 * u64::BITS + common.trailing_zeros())
}

/// The lowest bit that is set in all `others` and in at least one of the two rows, and that `is_true` confirms.
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
            // Clearing the lowest bit leads to the next rule in deciding order.
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
            let mut rows = RowCollector::new(words_of(rules), 1);
            let empty = rows.empty();
            assert_eq!(first_common([&empty, &empty], &empty), None);
            for bit in (0..rules).step_by(17).chain([rules - 1]) {
                let (mut one, mut other) = (rows.empty(), rows.empty());
                for later in bit..rules {
                    put_bit(if later % 2 == 0 { &mut one } else { &mut other }, later as u32, true);
                }
                put_bit(&mut one, bit as u32, true);
                put_bit(&mut other, bit as u32, true);
                put_bit(&mut one, (rules - 1) as u32, true);
                put_bit(&mut other, (rules - 1) as u32, true);
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
