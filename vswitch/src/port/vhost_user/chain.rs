//! Chains of descriptors that a guest makes available and the device gives back used: what both formats of virtqueues have in
//! common (VIRTIO 1.2 §2.6).
//!
//! The guest may change its rings at any moment. Each descriptor is copied once, checked, and never read again.

use super::dirty_log::DirtyLog;
use super::guest_memory::GuestMemory;
use super::ring_memory::{DESCRIPTOR_BYTES, RingPart};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// The largest ring (VIRTIO 1.2 §2.7, §2.8).
pub(super) const RING_SIZE_MAX: u32 = 32_768;
/// Descriptors of one chain: the longest frame in pages, with room.
pub(super) const CHAIN_DESCRIPTORS_MAX: usize = 1024;
/// Chains that wait to be used at most: those of the longest frame in mergeable buffers, or a burst.
pub(super) const CHAINS_MAX: usize = 128;
/// Places in the list of chains: it is moved to the front once in some bursts.
const PLACES: usize = 2 * CHAINS_MAX;

const CACHE_LINE_BYTES: u64 = 64;
/// Bytes of the longest header in front of a frame.
pub(super) const HEADER_BYTES_MAX: usize = 12;

/// `VIRTQ_DESC_F_NEXT`, `VIRTQ_DESC_F_WRITE`, `VIRTQ_DESC_F_INDIRECT`.
pub(super) const FLAG_NEXT: u16 = 1;
pub(super) const FLAG_WRITE: u16 = 2;
pub(super) const FLAG_INDIRECT: u16 = 4;

/// Which way a queue carries frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueDirection {
    /// To the guest: the even queues.
    ToGuest,
    /// From the guest: the odd queues.
    FromGuest,
}

/// A ring whose guest broke the rules. It is not used until the guest sets it up anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RingFault {
    /// More chains are available than the ring has descriptors.
    IndexOutOfRange,
    /// A chain goes on at a descriptor that the ring does not have.
    DescriptorOutOfRange,
    /// A chain has no end, or too many descriptors.
    ChainTooLong,
    /// An indirect table is empty, has a part of a descriptor, or holds another table.
    IndirectTable,
    /// A descriptor is for the other direction.
    WrongDirection,
    /// Memory that is not shared.
    NotMapped,
    /// Memory that was shared is gone.
    MemoryLost,
}

impl fmt::Display for RingFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::IndexOutOfRange => "more chains are available than the ring has descriptors",
            Self::DescriptorOutOfRange => "a chain goes on at a descriptor that the ring does not have",
            Self::ChainTooLong => "a chain of descriptors has no end",
            Self::IndirectTable => "an indirect table of descriptors is malformed",
            Self::WrongDirection => "a descriptor is for the other direction",
            Self::NotMapped => "a descriptor points to memory that is not shared",
            Self::MemoryLost => "the file behind the guest's memory became shorter",
        })
    }
}

/// A descriptor as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) bytes: u32,
    /// The two last words: flags and next in a split ring, identifier and flags in a packed one.
    pub(super) words: [u16; 2],
}

impl Descriptor {
    /// A descriptor of a table. What the guest wrote before its second word is seen after this.
    #[inline(always)]
    pub(super) fn load([address, rest]: &[AtomicU64; 2]) -> Self {
        let rest = rest.load(Ordering::Acquire);
        // Read last: it is the device's only once the rest says so.
        Self::new(address.load(Ordering::Relaxed), rest)
    }

    /// From its two words.
    #[inline(always)]
    pub(super) const fn new(address: u64, rest: u64) -> Self {
        Self { address, bytes: rest as u32, words: [(rest >> 32) as u16, (rest >> 48) as u16] }
    }

    fn read(bytes: [u8; DESCRIPTOR_BYTES]) -> Self {
        let [a0, a1, a2, a3, a4, a5, a6, a7, rest @ ..] = bytes;
        Self::new(u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]), u64::from_le_bytes(rest))
    }
}

/// A piece of memory that a chain consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BufferPiece {
    pub(super) address: u64,
    pub(super) bytes: u32,
}

/// A chain that the guest made available. Its pieces are in the list that it was read into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// What it is given back by.
    pub(super) identifier: u16,
    /// Descriptors of the ring that it takes, if the format counts them.
    pub(super) slots: u16,
    /// Bytes of all pieces; once it is used, how many have been written.
    pub(super) bytes: u32,
    /// Its first piece, which is the only one of most; without bytes if there is none.
    first_bytes: u32,
    first_address: u64,
    /// Its other pieces in the list: the first of them, and the first of the next chain.
    others: (u32, u32),
}

impl Chain {
    #[inline(always)]
    pub(super) const fn whole(descriptor: Descriptor, identifier: u16) -> Self {
        let Descriptor { address, bytes, .. } = descriptor;
        Self { identifier, slots: 1, bytes, first_bytes: bytes, first_address: address, others: (0, 0) }
    }

    /// Its first piece.
    #[inline(always)]
    pub(super) const fn first(&self) -> BufferPiece {
        BufferPiece { address: self.first_address, bytes: self.first_bytes }
    }

    /// Whether it has no piece but the first.
    #[inline(always)]
    pub(super) const fn is_one_piece(&self) -> bool {
        self.first_bytes == self.bytes
    }
}

// Two of them are in a cache line.
const _: () = assert!(size_of::<Chain>() == 32);

/// Chains of one direction: those that have been read from a ring, and not given back yet. They are read before they are used,
/// so that the memory of their frames is fetched meanwhile.
#[derive(Debug)]
pub(super) struct Chains {
    list: Box<[Chain; PLACES]>,
    /// Which of them wait to be used.
    start: usize,
    end: usize,
    pieces: ChainPieces,
}

/// Pieces of chains, and the chain that is being read.
#[derive(Debug)]
pub(super) struct ChainPieces {
    /// Pieces of chains, without the first of each.
    others: Vec<BufferPiece>,
    /// What the flags of every descriptor say of its direction.
    write_flag: u16,
    /// The chain that is being read: its first piece, where its others begin, and bytes so far.
    first: BufferPiece,
    others_first: usize,
    bytes: u64,
}

impl Chains {
    pub(super) fn new(direction: QueueDirection) -> Self {
        let write_flag = if direction == QueueDirection::ToGuest { FLAG_WRITE } else { 0 };
        let others = Vec::with_capacity(CHAINS_MAX);
        let pieces = ChainPieces { others, write_flag, first: BufferPiece::default(), others_first: 0, bytes: 0 };
        Self { list: Box::new([Chain::default(); PLACES]), start: 0, end: 0, pieces }
    }

    /// How many wait to be used.
    #[inline(always)]
    pub(super) const fn count(&self) -> usize {
        self.end - self.start
    }

    /// The chains that wait to be used.
    #[inline(always)]
    pub(super) fn waiting(&self) -> &[Chain] {
        &self.list[self.start..self.end]
    }

    /// Those, to note in them how many bytes have been written; and the pieces of all.
    #[inline(always)]
    pub(super) fn waiting_mut(&mut self) -> (&mut [Chain], &ChainPieces) {
        (&mut self.list[self.start..self.end], &self.pieces)
    }

    /// Says that the next `count` have been given back.
    #[inline(always)]
    pub(super) fn forget(&mut self, count: usize) {
        self.start += count;
    }

    /// Room for more chains, so that up to `chains_max` wait, and what their pieces are read into.
    #[inline(always)]
    pub(super) fn room(&mut self, chains_max: usize) -> (&mut [Chain], &mut ChainPieces) {
        if self.start == self.end {
            (self.start, self.end, self.pieces.others_first) = (0, 0, 0);
            self.pieces.others.clear();
        } else if self.start + chains_max > PLACES {
            self.move_to_front();
        }
        let end = (self.start + chains_max).clamp(self.end, PLACES);
        (&mut self.list[self.end..end], &mut self.pieces)
    }

    /// Says that the next `count` places have been filled.
    #[inline(always)]
    pub(super) fn add(&mut self, count: usize) {
        self.end += count;
    }

    #[inline(never)]
    fn move_to_front(&mut self) {
        self.list.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.count());
        let ChainPieces { others, others_first, .. } = &mut self.pieces;
        let waiting = &mut self.list[..self.end];
        // The pieces of chains are in the order of the chains.
        let used =
            waiting.iter().find(|chain| !chain.is_one_piece()).map_or(others.len() as u32, |chain| chain.others.0);
        others.drain(..used as usize);
        *others_first -= used as usize;
        for chain in waiting.iter_mut().filter(|chain| !chain.is_one_piece()) {
            chain.others = (chain.others.0 - used, chain.others.1 - used);
        }
    }
}

impl ChainPieces {
    /// The pieces of a chain behind its first.
    #[inline]
    pub(super) fn others(&self, chain: &Chain) -> &[BufferPiece] {
        &self.others[chain.others.0 as usize..chain.others.1 as usize]
    }

    /// Which flags a chain of one descriptor has.
    #[inline(always)]
    pub(super) const fn whole(&self) -> WholeChains {
        WholeChains { write_flag: self.write_flag }
    }

    /// Adds a descriptor to the chain that is being read; one without bytes adds nothing.
    pub(super) fn push(&mut self, descriptor: Descriptor, flags: u16) -> Result<(), RingFault> {
        if flags & FLAG_WRITE != self.write_flag {
            return Err(RingFault::WrongDirection);
        }
        let piece = BufferPiece { address: descriptor.address, bytes: descriptor.bytes };
        if piece.bytes == 0 {
            return Ok(());
        }
        self.bytes += u64::from(piece.bytes);
        if self.others.len() - self.others_first >= CHAIN_DESCRIPTORS_MAX || self.bytes > u64::from(u32::MAX) {
            return Err(RingFault::ChainTooLong);
        }
        match self.first.bytes {
            0 => self.first = piece,
            _ => self.others.push(piece),
        }
        Ok(())
    }

    /// The chain has been read whole.
    pub(super) fn end(&mut self, identifier: u16, slots: u16) -> Chain {
        let others = (self.others_first as u32, self.others.len() as u32);
        let (BufferPiece { address: first_address, bytes: first_bytes }, bytes) = (self.first, self.bytes as u32);
        (self.first, self.others_first, self.bytes) = (BufferPiece::default(), self.others.len(), 0);
        Chain { identifier, slots, bytes, first_bytes, first_address, others }
    }
}

/// What the chains of one direction have in common where they are of one descriptor.
#[derive(Clone, Copy)]
pub(super) struct WholeChains {
    write_flag: u16,
}

impl WholeChains {
    /// Whether flags are of such a chain.
    #[inline(always)]
    pub(super) const fn has(self, flags: u16) -> bool {
        flags & (FLAG_NEXT | FLAG_INDIRECT | FLAG_WRITE) == self.write_flag
    }

    /// Has the memory with which a chain begins fetched: the header of a frame and what follows.
    #[inline(always)]
    pub(super) fn prefetch(self, memory: &GuestMemory, chain: &Chain) {
        let (address, next) = (chain.first_address, chain.first_address.wrapping_add(CACHE_LINE_BYTES));
        if self.write_flag == 0 {
            memory.prefetch(address);
            return memory.prefetch(next);
        }
        // A header in a line of its own is mostly read alone.
        let has_own_line = address % CACHE_LINE_BYTES >= CACHE_LINE_BYTES - HEADER_BYTES_MAX as u64;
        if has_own_line {
            memory.prefetch(address);
        } else {
            memory.prefetch_to_write(address);
        }
        memory.prefetch_to_write(next);
    }
}

/// How the two last words of the descriptors in an indirect table are used.
#[derive(Clone, Copy, Debug)]
pub(super) struct TableFormat {
    /// Which of them has the flags.
    pub(super) flags_word: usize,
    /// Whether the other names the next descriptor; else they follow each other.
    pub(super) is_linked: bool,
}

/// Reads the descriptors of an indirect table (VIRTIO 1.2 §2.7.5.3, §2.8.7).
pub(super) fn read_indirect(
    memory: &GuestMemory,
    table: Descriptor,
    format: TableFormat,
    pieces: &mut ChainPieces,
) -> Result<(), RingFault> {
    let TableFormat { flags_word, is_linked } = format;
    let count = table.bytes as usize / DESCRIPTOR_BYTES;
    if count == 0 || !(table.bytes as usize).is_multiple_of(DESCRIPTOR_BYTES) {
        return Err(RingFault::IndirectTable);
    }
    if count > CHAIN_DESCRIPTORS_MAX && !is_linked {
        return Err(RingFault::ChainTooLong);
    }
    let bytes = memory.slice(table.address, table.bytes as usize).ok_or(RingFault::NotMapped)?;
    let mut at = 0;
    for _ in 0..count.min(CHAIN_DESCRIPTORS_MAX) {
        let mut raw = [0; DESCRIPTOR_BYTES];
        bytes.from(at * DESCRIPTOR_BYTES).read(&mut raw);
        let descriptor = Descriptor::read(raw);
        let flags = descriptor.words[flags_word];
        if flags & FLAG_INDIRECT != 0 {
            return Err(RingFault::IndirectTable);
        }
        pieces.push(descriptor, flags)?;
        if is_linked && flags & FLAG_NEXT == 0 || !is_linked && at + 1 == count {
            return Ok(());
        }
        at = if is_linked { usize::from(descriptor.words[1]) } else { at + 1 };
        if at >= count {
            return Err(RingFault::DescriptorOutOfRange);
        }
    }
    Err(RingFault::ChainTooLong)
}

/// Where a ring is for its front end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RingAddresses {
    /// Descriptors.
    pub(super) descriptors: u64,
    /// What the driver writes: available chains, or which interrupts it wants.
    pub(super) driver: u64,
    /// What the device writes: used chains, or which kicks it wants.
    pub(super) device: u64,
}

/// Notes in the log that a part of a ring was written.
pub(super) fn mark_part(log: Option<&DirtyLog>, part: &RingPart) {
    if let Some(log) = log {
        log.mark(part.guest_address(), part.len());
    }
}
