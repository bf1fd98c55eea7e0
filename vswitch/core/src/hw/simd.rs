//! Comparing several numbers at once: with instructions that every x86-64 processor has (SSE2), and portably elsewhere.

/// A bit for each of the numbers that equals `wanted`.
#[inline(always)]
pub(crate) fn equal_to(numbers: &[u32; 4], wanted: u32) -> u32 {
    arch::equal_to(numbers, wanted)
}

/// A bit for each of the 128-bit numbers that equals `wanted`.
#[inline(always)]
pub(crate) fn equal_to_wide(numbers: &[u128; 4], wanted: u128) -> u32 {
    arch::equal_to_wide(numbers, wanted)
}

/// How many of sixteen ascending numbers are at most `bound`.
#[inline(always)]
pub(crate) fn count_up_to(numbers: &[u32; 16], bound: u32) -> usize {
    // The added bit stands for "none is above", in place of a branch.
    (arch::above(numbers, bound) | 1 << 16).trailing_zeros() as usize
}

/// A bit for each 32-bit half of a word, the low half first, in which `other` and at least one of the two rows have a
/// bit in common. For at most 16 words, a multiple of four.
#[inline(always)]
pub(crate) fn common_halves<const WORDS: usize>(remote: [&[u64; WORDS]; 2], other: &[u64; WORDS]) -> u32 {
    const { assert!(WORDS <= 16 && WORDS.is_multiple_of(4)) };
    let (mut bits, mut start) = (0, 0);
    while start < WORDS {
        bits |= arch::common_halves(remote, other, start) << (start * 2);
        start += 8;
    }
    bits
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod arch {
    use core::arch::x86_64::{
        __m128i, _mm_and_si128, _mm_castsi128_ps, _mm_cmpeq_epi32, _mm_cmpgt_epi32, _mm_movemask_epi8, _mm_movemask_ps,
        _mm_or_si128, _mm_packs_epi16, _mm_packs_epi32, _mm_set_epi32, _mm_set_epi64x, _mm_set1_epi32,
        _mm_setzero_si128, _mm_xor_si128,
    };

    #[inline(always)]
    fn four<const COUNT: usize>(numbers: &[u32; COUNT], start: usize) -> __m128i {
        let at = |place: usize| numbers[start + place].cast_signed();
        // SAFETY: needs SSE2, which every x86-64 processor has, and nothing else.
        unsafe { _mm_set_epi32(at(3), at(2), at(1), at(0)) }
    }

    #[inline(always)]
    fn two<const WORDS: usize>(words: &[u64; WORDS], start: usize) -> __m128i {
        // SAFETY: needs SSE2, which every x86-64 processor has, and nothing else.
        unsafe { _mm_set_epi64x(words[start + 1].cast_signed(), words[start].cast_signed()) }
    }

    #[inline(always)]
    pub(super) fn equal_to(numbers: &[u32; 4], wanted: u32) -> u32 {
        // SAFETY: these need SSE2, which every x86-64 processor has, and nothing else.
        unsafe {
            let equal = _mm_cmpeq_epi32(four(numbers, 0), _mm_set1_epi32(wanted.cast_signed()));
            _mm_movemask_ps(_mm_castsi128_ps(equal)).cast_unsigned()
        }
    }

    #[inline(always)]
    pub(super) fn equal_to_wide(numbers: &[u128; 4], wanted: u128) -> u32 {
        // SAFETY: these need SSE2, which every x86-64 processor has, and nothing else.
        unsafe {
            let wide = |number: u128| _mm_set_epi64x((number >> 64) as i64, number as i64);
            let equal = |place: usize| _mm_cmpeq_epi32(wide(numbers[place]), wide(wanted));
            let (low, high) = (_mm_packs_epi32(equal(0), equal(1)), _mm_packs_epi32(equal(2), equal(3)));
            // Four bytes per number; all their bits are set where all four quarters are equal.
            let quarters = _mm_packs_epi16(low, high);
            let all = _mm_cmpeq_epi32(quarters, _mm_cmpeq_epi32(quarters, quarters));
            _mm_movemask_ps(_mm_castsi128_ps(all)).cast_unsigned()
        }
    }

    /// A bit for each number that exceeds `bound`.
    #[inline(always)]
    pub(super) fn above(numbers: &[u32; 16], bound: u32) -> u32 {
        // SAFETY: these need SSE2, which every x86-64 processor has, and nothing else.
        unsafe {
            // SSE2 compares signed numbers only: flipping the top bit of both sides orders them as unsigned ones.
            let flip = |four: __m128i| _mm_xor_si128(four, _mm_set1_epi32(i32::MIN));
            let bound = flip(_mm_set1_epi32(bound.cast_signed()));
            let above = |start: usize| _mm_cmpgt_epi32(flip(four(numbers, start)), bound);
            let (low, high) = (_mm_packs_epi32(above(0), above(4)), _mm_packs_epi32(above(8), above(12)));
            let all = _mm_packs_epi16(low, high);
            _mm_movemask_epi8(all).cast_unsigned()
        }
    }

    /// Does [`common_halves`](super::common_halves) for eight words from `start`, or for the four that there are.
    #[inline(always)]
    pub(super) fn common_halves<const WORDS: usize>(
        remote: [&[u64; WORDS]; 2],
        other: &[u64; WORDS],
        start: usize,
    ) -> u32 {
        // SAFETY: these need SSE2, which every x86-64 processor has, and nothing else.
        unsafe {
            let missing = |start: usize| {
                if start >= WORDS {
                    return _mm_cmpeq_epi32(_mm_setzero_si128(), _mm_setzero_si128());
                }
                let remote = _mm_or_si128(two(remote[0], start), two(remote[1], start));
                _mm_cmpeq_epi32(_mm_and_si128(remote, two(other, start)), _mm_setzero_si128())
            };
            let low = _mm_packs_epi32(missing(start), missing(start + 2));
            let high = _mm_packs_epi32(missing(start + 4), missing(start + 6));
            !_mm_movemask_epi8(_mm_packs_epi16(low, high)).cast_unsigned() & 0xffff
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod arch {

    pub(super) fn equal_to(numbers: &[u32; 4], wanted: u32) -> u32 {
        (0..4).fold(0, |bits, place| bits | u32::from(numbers[place] == wanted) << place)
    }

    pub(super) fn equal_to_wide(numbers: &[u128; 4], wanted: u128) -> u32 {
        (0..4).fold(0, |bits, place| bits | u32::from(numbers[place] == wanted) << place)
    }

    pub(super) fn above(numbers: &[u32; 16], bound: u32) -> u32 {
        (0..16).fold(0, |bits, place| bits | u32::from(numbers[place] > bound) << place)
    }

    pub(super) fn common_halves<const WORDS: usize>(
        [one, two]: [&[u64; WORDS]; 2],
        other: &[u64; WORDS],
        start: usize,
    ) -> u32 {
        let common = |word: usize| (one[word] | two[word]) & other[word];
        let half = |place: usize| (common(start + place / 2) >> (place % 2 * 32)) as u32;
        (0..16.min(WORDS * 2)).fold(0, |bits, place| bits | u32::from(half(place) != 0) << place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_as_wholes() {
        let wide = [1 << 100, 7, u128::MAX, 7 << 96 | 7];
        for (place, number) in wide.iter().enumerate() {
            assert_eq!(equal_to_wide(&wide, *number), 1 << place);
            assert_eq!(equal_to_wide(&wide, number ^ 1 << 64), 0);
            assert_eq!(equal_to_wide(&wide, number ^ 1), 0);
        }
        assert_eq!(equal_to(&[3, u32::MAX, 3, 0], 3), 0b101);
        let numbers: [u32; 16] = core::array::from_fn(|place| place as u32 * 0x1111_1111);
        for (place, number) in numbers.iter().enumerate() {
            assert_eq!(count_up_to(&numbers, *number), place + 1);
            assert_eq!(count_up_to(&numbers, number.saturating_add(1)), (place + 1).min(16));
        }
    }
}
