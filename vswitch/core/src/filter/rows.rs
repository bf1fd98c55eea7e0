//! Rows of bits, one bit a rule.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use hashbrown::HashMap;

/// Words that are looked at together; a row is a multiple of them.
const STEP: usize = 4;

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
    numbers: HashMap<Box<[u64]>, u32>,
}

impl RowCollector {
    pub(super) fn new(rules: usize) -> Self {
        Self { words: words_of(rules), bits: Vec::new(), numbers: HashMap::new() }
    }

    /// A row without a bit.
    pub(super) fn empty(&self) -> Vec<u64> {
        vec![0; self.words]
    }

    /// The number of a row with these bits.
    pub(super) fn add(&mut self, row: &[u64]) -> u32 {
        if let Some(&number) = self.numbers.get(row) {
            return number;
        }
        let number = self.numbers.len() as u32;
        self.bits.extend_from_slice(row);
        self.numbers.insert(row.into(), number);
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

/// The lowest bit that all rows have and that `is_true` confirms.
#[inline]
pub(super) fn first_common<const N: usize>(rows: [&[u64]; N], is_true: impl Fn(u32) -> bool) -> Option<u32> {
    let steps = rows.map(|row| row.as_chunks::<STEP>().0);
    let count = steps.iter().map(|row| row.len()).min().unwrap_or(0);
    let steps = steps.map(|row| &row[..count]);
    for step in 0..count {
        let mut common = [u64::MAX; STEP];
        for row in &steps {
            for (common, word) in common.iter_mut().zip(&row[step]) {
                *common &= word;
            }
        }
        if common.iter().fold(0, |any, word| any | word) == 0 {
            continue;
        }
        for (place, mut word) in common.into_iter().enumerate() {
            while word != 0 {
                let bit = ((step * STEP + place) as u32) * u64::BITS + word.trailing_zeros();
                if is_true(bit) {
                    return Some(bit);
                }
                word &= word - 1;
            }
        }
    }
    None
}
