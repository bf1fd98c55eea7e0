//! Packed virtqueues (VIRTIO 1.2 §2.8).
//!
//! Nothing in a packed ring says where its device is. The position is kept in the event structure of the device, which the
//! guest reads as the place of which it is to tell, and ignores otherwise: there the next front end finds it, also after one that
//! died.

use super::chain::{
    Chain, Chains, DESCRIPTOR_BYTES, Descriptor, FLAG_INDIRECT, FLAG_NEXT, FLAG_WRITE, RingAddresses, RingFault,
    TableFormat, mark_part, read_indirect,
};
use super::dirty_log::DirtyLog;
use super::guest_memory::{GuestMemory, RingPart, full_fence};
use std::sync::Arc;

/// `VIRTQ_DESC_F_AVAIL` and `VIRTQ_DESC_F_USED`.
const FLAG_AVAILABLE: u16 = 1 << 7;
const FLAG_USED: u16 = 1 << 15;

/// Offsets within a descriptor, bytes.
const DESCRIPTOR_LENGTH: usize = 8;
const DESCRIPTOR_IDENTIFIER: usize = 12;
const DESCRIPTOR_FLAGS: usize = 14;

/// Offsets within an event structure, and what its flags say: `RING_EVENT_FLAGS_*`.
const EVENT_BYTES: usize = 4;
const EVENT_POSITION: usize = 0;
const EVENT_FLAGS: usize = 2;
const EVENTS_ENABLED: u16 = 0;
const EVENTS_DISABLED: u16 = 1;
const EVENTS_AT_POSITION: u16 = 2;

/// The wrap counter in a position.
const WRAP: u16 = 1 << 15;

/// How far ahead descriptors are fetched; four of them are in a cache line.
const DESCRIPTORS_AHEAD: u16 = 3;

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
    descriptors: RingPart,
    driver: RingPart,
    device: RingPart,
    size: u16,
    has_event_index: bool,
    next: RingPosition,
    used_next: RingPosition,
    /// The first used descriptor that the guest has not seen, with the flags that will show it.
    unpublished: Option<(RingPosition, u16)>,
}

impl PackedRing {
    pub(super) fn new(
        memory: &Arc<GuestMemory>,
        addresses: RingAddresses,
        size: u16,
        has_event_index: bool,
        base: u32,
    ) -> Option<Self> {
        let descriptors = RingPart::new(memory, addresses.descriptors, usize::from(size) * DESCRIPTOR_BYTES, 16)?;
        let driver = RingPart::new(memory, addresses.driver, EVENT_BYTES, 4)?;
        let device = RingPart::new(memory, addresses.device, EVENT_BYTES, 4)?;
        let kept = device.load(EVENT_POSITION);
        let position = if kept == 0 {
            // Nothing is kept: the ring is new, unless an odd number of rounds has just ended.
            let flags = descriptors.load(DESCRIPTOR_FLAGS);
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

    const fn offset(index: u16) -> usize {
        index as usize * DESCRIPTOR_BYTES
    }

    #[inline]
    pub(super) fn is_available(&self) -> bool {
        let flags = self.descriptors.load(Self::offset(self.next.index) + DESCRIPTOR_FLAGS);
        (flags & FLAG_AVAILABLE != 0) == self.next.wrap && (flags & FLAG_USED != 0) != self.next.wrap
    }

    #[inline(always)]
    pub(super) fn next(&mut self, memory: &GuestMemory, chains: &mut Chains) -> Result<bool, RingFault> {
        if !self.is_available() {
            return Ok(false);
        }
        let (start, position) = (self.next, u32::from(self.next.bits()));
        let descriptor = self.descriptor(start);
        let [identifier, flags] = descriptor.words;
        let mut slots = 1;
        if flags & (FLAG_NEXT | FLAG_INDIRECT) == 0 {
            // Most frames are one descriptor.
            chains.push_whole(descriptor, flags, identifier, position)?;
        } else {
            let identifier;
            (identifier, slots) = self.read_long(memory, start, descriptor, chains)?;
            chains.end(identifier, slots, position);
        }
        self.next = start.advance(slots, self.size);
        self.descriptors.prefetch(Self::offset(self.next.index + DESCRIPTORS_AHEAD));
        Ok(true)
    }

    /// Reads a chain of several descriptors, or in a table: its identifier, and how many descriptors of the ring it takes.
    #[inline(never)]
    fn read_long(
        &self,
        memory: &GuestMemory,
        start: RingPosition,
        first: Descriptor,
        chains: &mut Chains,
    ) -> Result<(u16, u16), RingFault> {
        let [identifier, flags] = first.words;
        match flags & (FLAG_NEXT | FLAG_INDIRECT) {
            FLAG_NEXT => {
                chains.push(first, flags)?;
                self.follow(start, chains)
            }
            FLAG_INDIRECT => read_indirect(memory, first, INDIRECT_FORMAT, chains).map(|()| (identifier, 1)),
            _ => Err(RingFault::IndirectTable),
        }
    }

    #[inline(always)]
    fn descriptor(&self, position: RingPosition) -> Descriptor {
        Descriptor::read(self.descriptors.descriptor(Self::offset(position.index)))
    }

    /// Reads the descriptors of a chain behind its first: its identifier, which the last has, and how many there are.
    fn follow(&self, start: RingPosition, chains: &mut Chains) -> Result<(u16, u16), RingFault> {
        for slots in 1..self.size {
            let descriptor = self.descriptor(start.advance(slots, self.size));
            let [identifier, flags] = descriptor.words;
            if flags & FLAG_INDIRECT != 0 {
                return Err(RingFault::IndirectTable);
            }
            chains.push(descriptor, flags)?;
            if flags & FLAG_NEXT == 0 {
                return Ok((identifier, slots + 1));
            }
        }
        Err(RingFault::ChainTooLong)
    }

    pub(super) fn rewind(&mut self, chain: &Chain) {
        self.next = RingPosition::from_bits(chain.position as u16);
    }

    #[inline]
    pub(super) fn put_used(&mut self, chain: &Chain, written_bytes: u32) {
        let position = self.used_next;
        let offset = Self::offset(position.index);
        let mut flags = if position.wrap { FLAG_AVAILABLE | FLAG_USED } else { 0 };
        if written_bytes > 0 {
            flags |= FLAG_WRITE;
        }
        self.descriptors.store_u32(offset + DESCRIPTOR_LENGTH, written_bytes);
        self.descriptors.store(offset + DESCRIPTOR_IDENTIFIER, chain.identifier);
        match self.unpublished {
            // The guest looks at the first of them first, so its flags show all.
            None => self.unpublished = Some((position, flags)),
            Some(_) => self.descriptors.store(offset + DESCRIPTOR_FLAGS, flags),
        }
        self.used_next = position.advance(chain.slots, self.size);
    }

    #[inline]
    pub(super) fn publish(&mut self, log: Option<&DirtyLog>) -> bool {
        let Some((first, flags)) = self.unpublished.take() else { return false };
        self.descriptors.store(Self::offset(first.index) + DESCRIPTOR_FLAGS, flags);
        self.device.store(EVENT_POSITION, self.used_next.bits());
        mark_part(log, &self.descriptors);
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
        self.device.store(EVENT_POSITION, self.next.bits());
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
        self.descriptors.is_zero()
    }
}
