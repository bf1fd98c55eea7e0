//! Split virtqueues (VIRTIO 1.2 §2.7).

use super::chain::{
    Chain, Chains, DESCRIPTOR_BYTES, Descriptor, FLAG_INDIRECT, FLAG_NEXT, RingAddresses, RingFault, TableFormat,
    mark_part, read_indirect,
};
use super::dirty_log::DirtyLog;
use super::guest_memory::{GuestMemory, RingPart, full_fence};
use std::sync::Arc;

/// Offsets within the available and the used part, bytes.
const FLAGS: usize = 0;
const INDEX: usize = 2;
const ENTRIES: usize = 4;
const AVAILABLE_ENTRY_BYTES: usize = 2;
const USED_ENTRY_BYTES: usize = 8;

/// `VIRTQ_AVAIL_F_NO_INTERRUPT`.
const NO_INTERRUPT: u16 = 1;
/// `VIRTQ_USED_F_NO_NOTIFY`.
const NO_NOTIFY: u16 = 1;

/// Which word of a descriptor has the flags, and that each descriptor names the next.
const INDIRECT_FORMAT: TableFormat = TableFormat { flags_word: 0, is_linked: true };

/// A split ring. Chains are given back in the order in which they were made available, so that the used index alone tells where
/// it was left, whatever front end comes next.
#[derive(Debug)]
pub(super) struct SplitRing {
    descriptors: RingPart,
    available: RingPart,
    used: RingPart,
    size: u16,
    has_event_index: bool,
    /// The next chain to read, and the end of those that are known to be available.
    next: u16,
    available_end: u16,
    /// The next used entry, and the first that the guest has not seen.
    used_next: u16,
    published: u16,
}

impl SplitRing {
    pub(super) fn new(
        memory: &Arc<GuestMemory>,
        addresses: RingAddresses,
        size: u16,
        has_event_index: bool,
    ) -> Option<Self> {
        let entries = usize::from(size);
        let event_bytes = if has_event_index { 2 } else { 0 };
        let part = |address, bytes, alignment| RingPart::new(memory, address, bytes, alignment);
        let descriptors = part(addresses.descriptors, entries * DESCRIPTOR_BYTES, 16)?;
        let available = part(addresses.driver, ENTRIES + entries * AVAILABLE_ENTRY_BYTES + event_bytes, 2)?;
        let used = part(addresses.device, ENTRIES + entries * USED_ENTRY_BYTES + event_bytes, 4)?;
        let next = used.load(INDEX);
        Some(Self {
            descriptors,
            available,
            used,
            size,
            has_event_index,
            next,
            available_end: next,
            used_next: next,
            published: next,
        })
    }

    pub(super) fn base(&self) -> u32 {
        u32::from(self.published)
    }

    /// The offset of the used event behind the available entries, and of the available event behind the used ones.
    const fn event_offset(&self, entry_bytes: usize) -> usize {
        ENTRIES + self.size as usize * entry_bytes
    }

    const fn slot(&self, index: u16) -> usize {
        index as usize & (self.size as usize - 1)
    }

    #[inline]
    fn head(&self, index: u16) -> u16 {
        self.available.load_relaxed(ENTRIES + self.slot(index) * AVAILABLE_ENTRY_BYTES)
    }

    #[inline]
    fn refresh(&mut self) -> Result<(), RingFault> {
        if self.next == self.available_end {
            self.available_end = self.available.load(INDEX);
            if self.available_end.wrapping_sub(self.next) > self.size {
                return Err(RingFault::IndexOutOfRange);
            }
        }
        Ok(())
    }

    /// Has the descriptors of up to `chains_max` chains fetched.
    #[inline]
    pub(super) fn prefetch(&mut self, chains_max: usize) -> Result<(), RingFault> {
        self.refresh()?;
        let available = self.available_end.wrapping_sub(self.next);
        for ahead in 0..available.min(chains_max as u16) {
            let head = self.head(self.next.wrapping_add(ahead));
            self.descriptors.prefetch(usize::from(head) * DESCRIPTOR_BYTES);
        }
        Ok(())
    }

    #[inline(always)]
    pub(super) fn next(&mut self, memory: &GuestMemory, chains: &mut Chains) -> Result<bool, RingFault> {
        self.refresh()?;
        if self.next == self.available_end {
            return Ok(false);
        }
        let (head, position) = (self.head(self.next), u32::from(self.next));
        let descriptor = self.descriptor(head)?;
        let [flags, _] = descriptor.words;
        if flags & (FLAG_NEXT | FLAG_INDIRECT) == 0 {
            // Most frames are one descriptor.
            chains.push_whole(descriptor, flags, head, position)?;
        } else {
            self.read_long(memory, descriptor, chains)?;
            chains.end(head, 1, position);
        }
        self.next = self.next.wrapping_add(1);
        Ok(true)
    }

    /// Reads a chain of several descriptors, or in a table.
    #[inline(never)]
    fn read_long(&self, memory: &GuestMemory, first: Descriptor, chains: &mut Chains) -> Result<(), RingFault> {
        let [flags, next] = first.words;
        match flags & (FLAG_NEXT | FLAG_INDIRECT) {
            FLAG_NEXT => {
                chains.push(first, flags)?;
                self.follow(memory, next, chains)
            }
            FLAG_INDIRECT => read_indirect(memory, first, INDIRECT_FORMAT, chains),
            _ => Err(RingFault::IndirectTable),
        }
    }

    #[inline(always)]
    fn descriptor(&self, index: u16) -> Result<Descriptor, RingFault> {
        if index >= self.size {
            return Err(RingFault::DescriptorOutOfRange);
        }
        Ok(Descriptor::read(self.descriptors.descriptor(usize::from(index) * DESCRIPTOR_BYTES)))
    }

    /// Reads the descriptors of a chain behind its first.
    fn follow(&self, memory: &GuestMemory, mut index: u16, chains: &mut Chains) -> Result<(), RingFault> {
        // A chain has no more descriptors than the ring, so one that goes on comes back to some of its own.
        for _ in 1..self.size {
            let descriptor = self.descriptor(index)?;
            let [flags, next] = descriptor.words;
            match flags & (FLAG_NEXT | FLAG_INDIRECT) {
                0 => return chains.push(descriptor, flags),
                FLAG_NEXT => chains.push(descriptor, flags)?,
                FLAG_INDIRECT => return read_indirect(memory, descriptor, INDIRECT_FORMAT, chains),
                _ => return Err(RingFault::IndirectTable),
            }
            index = next;
        }
        Err(RingFault::ChainTooLong)
    }

    pub(super) fn rewind(&mut self, chain: &Chain) {
        self.next = chain.position as u16;
    }

    #[inline]
    pub(super) fn put_used(&mut self, chain: &Chain, written_bytes: u32) {
        let offset = ENTRIES + self.slot(self.used_next) * USED_ENTRY_BYTES;
        self.used.store_pair(offset, [u32::from(chain.identifier), written_bytes]);
        self.used_next = self.used_next.wrapping_add(1);
    }

    #[inline]
    pub(super) fn publish(&mut self, log: Option<&DirtyLog>) -> bool {
        let (old, new) = (self.published, self.used_next);
        if old == new {
            return false;
        }
        self.used.store(INDEX, new);
        self.published = new;
        mark_part(log, &self.used);
        full_fence();
        if self.has_event_index {
            let event = self.available.load_relaxed(self.event_offset(AVAILABLE_ENTRY_BYTES));
            return new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old);
        }
        self.available.load_relaxed(FLAGS) & NO_INTERRUPT == 0
    }

    pub(super) fn want_kicks(&mut self, are_wanted: bool, log: Option<&DirtyLog>) {
        if self.has_event_index {
            // A guest kicks when it passes this index: one that it has passed already keeps it quiet for a whole round.
            let event = if are_wanted { self.next } else { self.next.wrapping_sub(1) };
            self.used.store(self.event_offset(USED_ENTRY_BYTES), event);
        } else {
            self.used.store(FLAGS, if are_wanted { 0 } else { NO_NOTIFY });
        }
        mark_part(log, &self.used);
        full_fence();
    }

    pub(super) fn is_available(&self) -> bool {
        self.available.load(INDEX) != self.next
    }

    pub(super) fn is_untouched(&self) -> bool {
        self.available.is_zero() && self.descriptors.is_zero()
    }
}
