//! Packed virtqueues (VIRTIO 1.2 §2.8).
//!
//! Nothing in a packed ring says where its device is. The position is kept in the event structure of the device, which the
//! guest reads as the place of which it is to tell, and ignores otherwise: there the next front end finds it, also after one that
//! died.

use super::burst_ring::BurstRing;
use super::chain::{
    Chain, ChainPieces, Chains, Descriptor, FLAG_INDIRECT, FLAG_NEXT, FLAG_WRITE, RingAddresses, RingFault,
    TableFormat, mark_part, read_indirect,
};
use super::dirty_log::DirtyLog;
use super::guest_memory::GuestMemory;
use super::ring_memory::{DescriptorTable, RingPart, full_fence};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vswitch_core::config::limits::BURST_PACKETS;

/// `VIRTQ_DESC_F_AVAIL` and `VIRTQ_DESC_F_USED`.
const FLAG_AVAILABLE: u16 = 1 << 7;
const FLAG_USED: u16 = 1 << 15;

/// Where the identifier and the flags are in the second word of a descriptor; its length has the lower half.
const IDENTIFIER_SHIFT: u32 = 32;
const FLAGS_SHIFT: u32 = 48;

/// Offsets within an event structure, and what its flags say: `RING_EVENT_FLAGS_*`.
const EVENT_BYTES: usize = 4;
const EVENT_POSITION: usize = 0;
const EVENT_FLAGS: usize = 2;
const EVENTS_ENABLED: u16 = 0;
const EVENTS_DISABLED: u16 = 1;
const EVENTS_AT_POSITION: u16 = 2;

/// The wrap counter in a position.
const WRAP: u16 = 1 << 15;

/// Descriptors in a cache line.
const DESCRIPTORS_OF_LINE: usize = 4;

/// Which word of a descriptor has the flags, and that the descriptors of a table follow each other.
const INDIRECT_FORMAT: TableFormat = TableFormat { flags_word: 1, is_linked: false };

/// Where in the ring, and in which kind of round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RingPosition {
    index: u16,
    wrap: bool,
}

impl RingPosition {
    const fn from_bits(bits: u16) -> Self {
        Self { index: bits & !WRAP, wrap: bits & WRAP != 0 }
    }

    const fn bits(self) -> u16 {
        self.index | if self.wrap { WRAP } else { 0 }
    }

    #[inline]
    fn advance(self, slots: u16, size: u16) -> Self {
        let index = self.index + slots;
        if index >= size { Self { index: index - size, wrap: !self.wrap } } else { Self { index, ..self } }
    }
}

/// A packed ring.
#[derive(Debug)]
pub(super) struct PackedRing {
    descriptors: DescriptorTable,
    driver: RingPart,
    device: RingPart,
    size: u16,
    has_event_index: bool,
    next: RingPosition,
    used_next: RingPosition,
    /// The first used descriptor that the guest has not seen, with the word that will show it.
    unpublished: Option<(RingPosition, u64)>,
}

impl PackedRing {
    pub(super) fn new(
        memory: &Arc<GuestMemory>,
        addresses: RingAddresses,
        size: u16,
        has_event_index: bool,
        base: u32,
    ) -> Option<Self> {
        let descriptors = DescriptorTable::new(memory, addresses.descriptors, size)?;
        let driver = RingPart::new(memory, addresses.driver, EVENT_BYTES, 4)?;
        let device = RingPart::new(memory, addresses.device, EVENT_BYTES, 4)?;
        let kept = device.load(EVENT_POSITION);
        let position = if kept == 0 {
            // Nothing is kept: the ring is new, unless an odd number of rounds has just ended.
            let [_, flags] = descriptors.all().first().map(Descriptor::load)?.words;
            let given = base as u16;
            if flags & FLAG_USED != 0 { RingPosition::from_bits(0) } else { RingPosition::from_bits(given | WRAP) }
        } else {
            RingPosition::from_bits(kept)
        };
        let next = Some(position).filter(|position| position.index < size)?;
        Some(Self { descriptors, driver, device, size, has_event_index, next, used_next: next, unpublished: None })
    }

    pub(super) fn base(&self) -> u32 {
        let bits = u32::from(self.used_next.bits());
        bits | bits << 16
    }

    pub(super) fn is_available(&self) -> bool {
        let RingPosition { index, wrap } = self.next;
        self.descriptors.all().get(usize::from(index)).is_some_and(|next| is_available(Descriptor::load(next), wrap))
    }

    /// Reads a chain of several descriptors, or in a table: its identifier, and how many descriptors of the ring it takes.
    #[inline(never)]
    fn read_long(
        &self,
        memory: &GuestMemory,
        start: RingPosition,
        first: Descriptor,
        pieces: &mut ChainPieces,
    ) -> Result<(u16, u16), RingFault> {
        let [identifier, flags] = first.words;
        match flags & (FLAG_NEXT | FLAG_INDIRECT) {
            FLAG_NEXT => {
                pieces.push(first, flags)?;
                self.follow(start, pieces)
            }
            FLAG_INDIRECT => read_indirect(memory, first, INDIRECT_FORMAT, pieces).map(|()| (identifier, 1)),
            0 => pieces.push(first, flags).map(|()| (identifier, 1)),
            _ => Err(RingFault::IndirectTable),
        }
    }

    /// Reads the descriptors of a chain behind its first: its identifier, which the last has, and how many there are.
    fn follow(&self, start: RingPosition, pieces: &mut ChainPieces) -> Result<(u16, u16), RingFault> {
        for slots in 1..self.size {
            let RingPosition { index, .. } = start.advance(slots, self.size);
            let descriptor = self.descriptors.all().get(usize::from(index)).ok_or(RingFault::DescriptorOutOfRange)?;
            let descriptor = Descriptor::load(descriptor);
            let [identifier, flags] = descriptor.words;
            if flags & FLAG_INDIRECT != 0 {
                return Err(RingFault::IndirectTable);
            }
            pieces.push(descriptor, flags)?;
            if flags & FLAG_NEXT == 0 {
                return Ok((identifier, slots + 1));
            }
        }
        Err(RingFault::ChainTooLong)
    }

    /// Writes the second word of a descriptor; the guest that sees it sees what was written before.
    #[inline(always)]
    fn store_rest(&self, position: RingPosition, rest: u64) {
        if let Some([_, word]) = self.descriptors.all().get(usize::from(position.index)) {
            word.store(rest, Ordering::Release);
        }
    }

    #[inline]
    pub(super) fn publish(&mut self, log: Option<&DirtyLog>) -> bool {
        let Some((first, rest)) = self.unpublished.take() else { return false };
        self.store_rest(first, rest);
        self.device.store(EVENT_POSITION, self.used_next.bits());
        mark_part(log, self.descriptors.part());
        mark_part(log, &self.device);
        full_fence();
        match self.driver.load_relaxed(EVENT_FLAGS) {
            EVENTS_DISABLED => false,
            EVENTS_AT_POSITION if self.has_event_index => {
                let event = RingPosition::from_bits(self.driver.load_relaxed(EVENT_POSITION));
                let new = self.used_next.index;
                let distance = |index: u16, wrap| {
                    let rounds = if wrap == self.used_next.wrap { 0 } else { self.size };
                    new.wrapping_add(rounds).wrapping_sub(index)
                };
                // How far back the event is, and how far back this burst began.
                distance(event.index, event.wrap).wrapping_sub(1) < distance(first.index, first.wrap)
            }
            _ => true,
        }
    }

    pub(super) fn want_kicks(&mut self, are_wanted: bool, log: Option<&DirtyLog>) {
        // Position first: the guest reads both at once, or the flags last.
        // While kicks are not wanted, it is where another front end would go on; they are only wanted where no chain waits.
        self.device.store(EVENT_POSITION, self.used_next.bits());
        let flags = match (are_wanted, self.has_event_index) {
            (false, _) => EVENTS_DISABLED,
            (true, false) => EVENTS_ENABLED,
            (true, true) => EVENTS_AT_POSITION,
        };
        self.device.store(EVENT_FLAGS, flags);
        mark_part(log, &self.device);
        full_fence();
    }

    pub(super) fn is_untouched(&self) -> bool {
        self.descriptors.part().is_zero()
    }
}

/// Whether a descriptor says in a round of this kind that it is available.
#[inline(always)]
const fn is_available(descriptor: Descriptor, wrap: bool) -> bool {
    let [_, flags] = descriptor.words;
    flags & (FLAG_AVAILABLE | FLAG_USED) == if wrap { FLAG_AVAILABLE } else { FLAG_USED }
}

impl BurstRing for PackedRing {
    #[inline(always)]
    fn read(&mut self, memory: &GuestMemory, chains: &mut Chains, chains_max: usize) -> Result<(), RingFault> {
        if chains.count() >= chains_max {
            return Ok(());
        }
        let (room, pieces) = chains.room(chains_max);
        let whole = pieces.whole();
        let (table, mut next, mut count) = (self.descriptors.all(), self.next, 0);
        for chain in room {
            let Some(descriptor) = table.get(usize::from(next.index)) else { break };
            let descriptor = Descriptor::load(descriptor);
            if !is_available(descriptor, next.wrap) {
                break;
            }
            let [identifier, flags] = descriptor.words;
            if whole.has(flags) {
                // Most frames are one descriptor.
                *chain = Chain::whole(descriptor, identifier);
                next = next.advance(1, self.size);
            } else {
                let (identifier, slots) = self.read_long(memory, next, descriptor, pieces)?;
                *chain = pieces.end(identifier, slots);
                next = next.advance(slots, self.size);
            }
            whole.prefetch(memory, chain);
            count += 1;
        }
        self.next = next;
        chains.add(count);
        Ok(())
    }

    #[inline(always)]
    fn read_ahead(&mut self, memory: &GuestMemory, chains: &mut Chains) -> Result<(), RingFault> {
        self.read(memory, chains, BURST_PACKETS)?;
        if chains.count() >= BURST_PACKETS {
            // Else the guest is writing there now. What is read there is given back there.
            for ahead in (0..BURST_PACKETS as u16).step_by(DESCRIPTORS_OF_LINE) {
                self.descriptors.prefetch_to_write(self.next.advance(ahead, self.size).index);
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn put_used(&mut self, chains: &[Chain], written_bytes: impl Fn(&Chain) -> u32) {
        let (table, mut position) = (self.descriptors.all(), self.used_next);
        let mut is_first = self.unpublished.is_none();
        for chain in chains {
            let written_bytes = written_bytes(chain);
            let mut flags = if position.wrap { FLAG_AVAILABLE | FLAG_USED } else { 0 };
            if written_bytes > 0 {
                flags |= FLAG_WRITE;
            }
            let identifier = u64::from(chain.identifier) << IDENTIFIER_SHIFT;
            let rest = u64::from(written_bytes) | identifier | u64::from(flags) << FLAGS_SHIFT;
            if std::mem::take(&mut is_first) {
                // The guest looks at the first of them first, so its flags show all.
                self.unpublished = Some((position, rest));
            } else if let Some([_, word]) = table.get(usize::from(position.index)) {
                word.store(rest, Ordering::Relaxed);
            }
            position = position.advance(chain.slots, self.size);
        }
        self.used_next = position;
    }
}
