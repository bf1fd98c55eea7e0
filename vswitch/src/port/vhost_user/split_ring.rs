//! Split virtqueues (VIRTIO 1.2 §2.7).

use super::burst_ring::BurstRing;
use super::chain::{
    Chain, ChainPieces, Chains, Descriptor, FLAG_INDIRECT, FLAG_NEXT, RingAddresses, RingFault, TableFormat, mark_part,
    read_indirect,
};
use super::dirty_log::DirtyLog;
use super::guest_memory::GuestMemory;
use super::ring_memory::{DescriptorTable, RingPart, full_fence};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use vswitch_core::config::limits::BURST_PACKETS;

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
    descriptors: DescriptorTable,
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
        let descriptors = DescriptorTable::new(memory, addresses.descriptors, size)?;
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

    /// The heads of chains that were made available, by their slots.
    #[inline(always)]
    fn heads(&self) -> &[AtomicU16] {
        self.available.words(ENTRIES, self.size)
    }

    /// How many chains are known to be available and not read yet.
    #[inline(always)]
    const fn known(&self) -> usize {
        self.available_end.wrapping_sub(self.next) as usize
    }

    /// Has the descriptors of the next chains fetched.
    #[inline(always)]
    fn prefetch(&self, count: usize) {
        let (heads, next) = (self.heads(), usize::from(self.next));
        for at in next..next + count {
            self.descriptors.prefetch(heads[at & (heads.len() - 1)].load(Ordering::Relaxed));
        }
    }

    /// Reads chains, so many of which are available.
    #[inline(always)]
    fn take(&mut self, memory: &GuestMemory, chains: &mut Chains, count: usize) -> Result<(), RingFault> {
        let (room, pieces) = chains.room(chains.count() + count);
        let whole = pieces.whole();
        let (heads, table, next) = (self.heads(), self.descriptors.all(), usize::from(self.next));
        let count = room.len();
        for (at, chain) in (next..).zip(room) {
            let head = heads[at & (heads.len() - 1)].load(Ordering::Relaxed);
            let descriptor = table.get(usize::from(head)).ok_or(RingFault::DescriptorOutOfRange)?;
            let descriptor = Descriptor::load(descriptor);
            let [flags, _] = descriptor.words;
            if whole.has(flags) {
                // Most frames are one descriptor.
                *chain = Chain::whole(descriptor, head);
            } else {
                self.read_long(memory, descriptor, pieces)?;
                *chain = pieces.end(head, 1);
            }
            whole.prefetch(memory, chain);
        }
        chains.add(count);
        self.next = self.next.wrapping_add(count as u16);
        Ok(())
    }

    /// Reads a chain of several descriptors, or in a table.
    #[inline(never)]
    fn read_long(&self, memory: &GuestMemory, first: Descriptor, pieces: &mut ChainPieces) -> Result<(), RingFault> {
        let [flags, next] = first.words;
        match flags & (FLAG_NEXT | FLAG_INDIRECT) {
            FLAG_NEXT => {
                pieces.push(first, flags)?;
                self.follow(memory, next, pieces)
            }
            FLAG_INDIRECT => read_indirect(memory, first, INDIRECT_FORMAT, pieces),
            0 => pieces.push(first, flags),
            _ => Err(RingFault::IndirectTable),
        }
    }

    /// Reads the descriptors of a chain behind its first.
    fn follow(&self, memory: &GuestMemory, mut index: u16, pieces: &mut ChainPieces) -> Result<(), RingFault> {
        // A chain has no more descriptors than the ring, so one that goes on comes back to some of its own.
        for _ in 1..self.size {
            let descriptor = self.descriptors.all().get(usize::from(index)).ok_or(RingFault::DescriptorOutOfRange)?;
            let descriptor = Descriptor::load(descriptor);
            let [flags, next] = descriptor.words;
            match flags & (FLAG_NEXT | FLAG_INDIRECT) {
                0 => return pieces.push(descriptor, flags),
                FLAG_NEXT => pieces.push(descriptor, flags)?,
                FLAG_INDIRECT => return read_indirect(memory, descriptor, INDIRECT_FORMAT, pieces),
                _ => return Err(RingFault::IndirectTable),
            }
            index = next;
        }
        Err(RingFault::ChainTooLong)
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
        self.available.is_zero() && self.descriptors.part().is_zero()
    }
}

impl BurstRing for SplitRing {
    #[inline(always)]
    fn read(&mut self, memory: &GuestMemory, chains: &mut Chains, chains_max: usize) -> Result<(), RingFault> {
        let missing = chains_max.saturating_sub(chains.count());
        if missing == 0 {
            return Ok(());
        }
        if self.known() < missing {
            self.available_end = self.available.load(INDEX);
            if self.known() > usize::from(self.size) {
                return Err(RingFault::IndexOutOfRange);
            }
        }
        let count = missing.min(self.known());
        self.prefetch(count);
        self.take(memory, chains, count)
    }

    #[inline(always)]
    fn read_ahead(&mut self, memory: &GuestMemory, chains: &mut Chains) -> Result<(), RingFault> {
        let missing = BURST_PACKETS.saturating_sub(chains.count());
        self.take(memory, chains, missing.min(self.known()))?;
        let used = ENTRIES + self.slot(self.used_next) * USED_ENTRY_BYTES;
        self.used.prefetch_to_write(used, chains.count().min(BURST_PACKETS) * USED_ENTRY_BYTES);
        match self.known().min(BURST_PACKETS) {
            // The guest may have made more available when it is looked for.
            0 => self.available.prefetch(INDEX),
            count => self.prefetch(count),
        }
        Ok(())
    }

    #[inline(always)]
    fn put_used(&mut self, chains: &[Chain], written_bytes: impl Fn(&Chain) -> u32) {
        let (entries, next) = (self.used.pairs(ENTRIES, self.size), usize::from(self.used_next));
        for (at, chain) in (next..).zip(chains) {
            let [identifier, written] = &entries[at & (entries.len() - 1)];
            identifier.store(chain.identifier.into(), Ordering::Relaxed);
            written.store(written_bytes(chain), Ordering::Relaxed);
        }
        self.used_next = self.used_next.wrapping_add(chains.len() as u16);
    }
}
