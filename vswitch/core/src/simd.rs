//! Several numbers looked at together: by the instructions that every x86-64 processor has, and in plain words elsewhere.

/// Words that are looked at together.
pub(crate) type Step = [u64; 4];

/// A bit for each of the numbers that is the wanted one.
#[inline(always)]
pub(crate) fn equal_to(numbers: &[u32; 4], wanted: u32) -> u32 {
    arch::equal_to(numbers, wanted)
}

/// A bit for each half of a word, the low one first, in which one of two has a bit that `other` has too. Of at most four
/// steps.
#[inline(always)]
pub(crate) fn common_halves<const STEPS: usize>([one, two]: [&[Step; STEPS]; 2], other: &[Step; STEPS]) -> u32 {
    const { assert!(STEPS <= 4, "a step has eight halves") };
    (0..STEPS).fold(0, |bits, step| bits | arch::common_halves([&one[step], &two[step]], &other[step]) << (step * 8))
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod arch {
    use super::Step;
    use core::arch::x86_64::{
        __m128i, _mm_and_si128, _mm_castsi128_ps, _mm_cmpeq_epi32, _mm_movemask_epi8, _mm_movemask_ps, _mm_or_si128,
        _mm_packs_epi16, _mm_packs_epi32, _mm_set_epi32, _mm_set_epi64x, _mm_set1_epi32, _mm_setzero_si128,
    };

    #[inline(always)]
    fn four(numbers: &[u32], start: usize) -> __m128i {
        let [first, second, third, fourth] = [0, 1, 2, 3].map(|place| numbers[start + place].cast_signed());
        // SAFETY: needs SSE2, which every x86-64 processor has, and nothing else.
        unsafe { _mm_set_epi32(fourth, third, second, first) }
    }

    #[inline(always)]
    fn two(words: &Step, start: usize) -> __m128i {
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
    pub(super) fn common_halves(remote: [&Step; 2], other: &Step) -> u32 {
        // SAFETY: these need SSE2, which every x86-64 processor has, and nothing else.
        unsafe {
            let [low, high] = [0, 2].map(|start| {
                let remote = _mm_or_si128(two(remote[0], start), two(remote[1], start));
                _mm_cmpeq_epi32(_mm_and_si128(remote, two(other, start)), _mm_setzero_si128())
            });
            let missing = _mm_packs_epi16(_mm_packs_epi32(low, high), _mm_setzero_si128());
            !_mm_movemask_epi8(missing).cast_unsigned() & 0xff
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod arch {
    use super::Step;

    pub(super) fn equal_to(numbers: &[u32; 4], wanted: u32) -> u32 {
        (0..4).fold(0, |bits, place| bits | u32::from(numbers[place] == wanted) << place)
    }

    pub(super) fn common_halves([one, two]: [&Step; 2], other: &Step) -> u32 {
        let half = |place: usize| (((one[place / 2] | two[place / 2]) & other[place / 2]) >> (place % 2 * 32)) as u32;
        (0..8).fold(0, |bits, place| bits | u32::from(half(place) != 0) << place)
    }
}
