//! Rings in memory that a guest shares: words and descriptors, each access within the ring. The guest may change them at any
//! time, so they are read and written by atomics.

use super::guest_memory::GuestMemory;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};
use vswitch_core::hw::prefetch;

const CACHE_LINE_BYTES: usize = 64;

/// A part of a ring, which stays mapped with this value. Its words are in the order of this machine, as VIRTIO 1 has them on
/// every machine that the switch runs on (little-endian).
#[derive(Clone, Debug)]
pub(super) struct RingPart {
    start: NonNull<u8>,
    bytes: usize,
    guest_address: u64,
    /// Keeps it mapped.
    _memory: Arc<GuestMemory>,
}

// SAFETY: it is a pointer into memory that it keeps mapped, accessed by atomics and raw copies alone.
unsafe impl Send for RingPart {}

impl RingPart {
    /// `bytes` at an address of the front end, aligned to `alignment`.
    pub(super) fn new(memory: &Arc<GuestMemory>, user_address: u64, bytes: usize, alignment: u64) -> Option<Self> {
        if !user_address.is_multiple_of(alignment) {
            return None;
        }
        let (slice, guest_address) = memory.user_slice(user_address, bytes)?;
        let start = slice.start();
        // The address for the front end need not be aligned as ours is.
        let is_aligned = (start.as_ptr() as usize).is_multiple_of(alignment as usize);
        is_aligned.then(|| Self { start, bytes, guest_address, _memory: Arc::clone(memory) })
    }

    /// Where it is for the guest.
    pub(super) const fn guest_address(&self) -> u64 {
        self.guest_address
    }

    /// How many bytes it has.
    pub(super) const fn len(&self) -> usize {
        self.bytes
    }

    #[inline(always)]
    fn word(&self, offset: usize) -> &AtomicU16 {
        assert!(offset + size_of::<u16>() <= self.bytes && offset.is_multiple_of(2), "a ring ends before");
        // SAFETY: the word is mapped and aligned, see above; the guest accesses it by whole words as well.
        unsafe { self.start.add(offset).cast::<AtomicU16>().as_ref() }
    }

    /// A word; what the guest wrote before it is seen after this.
    #[inline(always)]
    pub(super) fn load(&self, offset: usize) -> u16 {
        self.word(offset).load(Ordering::Acquire)
    }

    /// A word, in no order with others.
    #[inline(always)]
    pub(super) fn load_relaxed(&self, offset: usize) -> u16 {
        self.word(offset).load(Ordering::Relaxed)
    }

    /// Writes a word; the guest that sees it sees what was written before.
    #[inline(always)]
    pub(super) fn store(&self, offset: usize, value: u16) {
        self.word(offset).store(value, Ordering::Release);
    }

    /// `count` words from `offset` on.
    #[inline(always)]
    pub(super) fn words(&self, offset: usize, count: u16) -> &[AtomicU16] {
        let count = usize::from(count);
        assert!(offset + count * size_of::<u16>() <= self.bytes && offset.is_multiple_of(2), "a ring ends before");
        // SAFETY: the words are mapped and aligned, see above; the guest accesses them by whole words as well.
        unsafe { std::slice::from_raw_parts(self.start.add(offset).cast().as_ptr(), count) }
    }

    /// `count` pairs of double words from `offset` on, in a part that is aligned to as much.
    #[inline(always)]
    pub(super) fn pairs(&self, offset: usize, count: u16) -> &[[AtomicU32; 2]] {
        let (count, start) = (usize::from(count), self.start.as_ptr() as usize);
        let is_aligned = (start + offset).is_multiple_of(align_of::<AtomicU32>());
        assert!(offset + count * size_of::<[u32; 2]>() <= self.bytes && is_aligned, "a ring ends before");
        // SAFETY: as for words.
        unsafe { std::slice::from_raw_parts(self.start.add(offset).cast().as_ptr(), count) }
    }

    /// Has the processor fetch the cache line at `offset`.
    #[inline(always)]
    pub(super) fn prefetch(&self, offset: usize) {
        prefetch::prefetch_at(self.start.as_ptr().wrapping_add(offset));
    }

    /// Has the processor fetch the cache lines of `bytes` from `offset` on, to write there.
    #[inline(always)]
    pub(super) fn prefetch_to_write(&self, offset: usize, bytes: usize) {
        for line in (offset..offset + bytes).step_by(CACHE_LINE_BYTES) {
            prefetch::prefetch_to_write_at(self.start.as_ptr().wrapping_add(line));
        }
    }

    /// Whether all bytes are zero.
    pub(super) fn is_zero(&self) -> bool {
        (0..self.bytes / 2).all(|word| self.load_relaxed(word * 2) == 0)
    }
}

/// Bytes of a descriptor, in either format of rings.
pub(super) const DESCRIPTOR_BYTES: usize = 16;

/// The descriptors of a ring: two words each.
#[derive(Clone, Debug)]
pub(super) struct DescriptorTable(RingPart);

impl DescriptorTable {
    /// `count` descriptors at an address of the front end.
    pub(super) fn new(memory: &Arc<GuestMemory>, user_address: u64, count: u16) -> Option<Self> {
        let bytes = usize::from(count) * DESCRIPTOR_BYTES;
        RingPart::new(memory, user_address, bytes, DESCRIPTOR_BYTES as u64).map(Self)
    }

    /// The bytes that it consists of.
    pub(super) const fn part(&self) -> &RingPart {
        &self.0
    }

    /// The descriptors: the address of a buffer, and the rest.
    #[inline(always)]
    pub(super) fn all(&self) -> &[[AtomicU64; 2]] {
        // SAFETY: so many are mapped, and aligned as the table is, which is asked when it is made; others access them by atomics
        // or from other processes.
        unsafe { std::slice::from_raw_parts(self.0.start.cast().as_ptr(), self.0.bytes / DESCRIPTOR_BYTES) }
    }

    /// Has the processor fetch a descriptor.
    #[inline(always)]
    pub(super) fn prefetch(&self, index: u16) {
        self.0.prefetch(usize::from(index) * DESCRIPTOR_BYTES);
    }

    /// Has the processor fetch a descriptor, to write it.
    #[inline(always)]
    pub(super) fn prefetch_to_write(&self, index: u16) {
        self.0.prefetch_to_write(usize::from(index) * DESCRIPTOR_BYTES, 1);
    }
}

/// What was written before is seen by the guest before what is read after this is read.
pub(super) fn full_fence() {
    fence(Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::super::guest_memory::testing::memory;
    use super::*;

    const MEGABYTE: u64 = 1 << 20;

    #[test]
    fn a_part_is_aligned_and_within_one_region() {
        let memory = memory(&[(0, 0x7000_0000, MEGABYTE), (MEGABYTE, 0x9000_0000, MEGABYTE)]);
        let part = RingPart::new(&memory, 0x9000_0040, 4096, 16).unwrap();
        assert_eq!((part.guest_address(), part.len()), (MEGABYTE + 0x40, 4096));
        assert!(RingPart::new(&memory, 0x9000_0008, 16, 16).is_none(), "not aligned");
        assert!(RingPart::new(&memory, 0x9000_0000 + MEGABYTE - 8, 16, 4).is_none(), "it ends behind the region");
        assert!(RingPart::new(&memory, 0x8000_0000, 16, 4).is_none(), "in no region");
    }

    #[test]
    #[should_panic(expected = "a ring ends before")]
    fn nothing_is_read_behind_a_part() {
        let memory = memory(&[(0, 0x7000_0000, MEGABYTE)]);
        RingPart::new(&memory, 0x7000_0000, 16, 16).unwrap().words(8, 5);
    }
}
