//! The driver's side of a virtqueue, in memory that is a file.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAILABLE: u16 = 1 << 7;
const USED: u16 = 1 << 15;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DriverFormat {
    Split,
    Packed,
}

/// What one descriptor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DriverPiece {
    pub(crate) address: u64,
    pub(crate) bytes: u32,
    pub(crate) is_writable: bool,
}

/// A queue. Its parts are at fixed places behind its start.
#[derive(Clone, Debug)]
pub(crate) struct DriverQueue {
    format: DriverFormat,
    start: u64,
    size: u16,
    /// Descriptors that nobody has.
    free: Vec<u16>,
    /// Descriptors of each chain that the device has, by its identifier.
    chains: Vec<Vec<u16>>,
    next: u16,
    wrap: bool,
    used: u16,
    used_wrap: bool,
    sent: u64,
}

pub(crate) fn descriptor(address: u64, bytes: u32, words: [u16; 2]) -> Vec<u8> {
    let mut descriptor = address.to_le_bytes().to_vec();
    descriptor.extend(bytes.to_le_bytes());
    words.iter().for_each(|word| descriptor.extend(word.to_le_bytes()));
    descriptor
}

impl DriverQueue {
    pub(crate) fn new(format: DriverFormat, start: u64, size: u16) -> Self {
        let chains = vec![Vec::new(); usize::from(size)];
        let free = (0..size).rev().collect();
        Self { format, start, size, free, chains, next: 0, wrap: true, used: 0, used_wrap: true, sent: 0 }
    }

    /// Offsets of descriptors, of what the driver writes, and of what the device writes.
    pub(crate) fn addresses(&self) -> [u64; 3] {
        [self.start, self.start + 0x8000, self.start + 0xa000]
    }

    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// Chains that were ever made available.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Makes a chain available, by a table at an address if there is one; its identifier, unless the ring is full.
    pub(crate) fn offer(&mut self, memory: &File, pieces: &[DriverPiece], table: Option<u64>) -> Option<u16> {
        let slots = if table.is_some() { 1 } else { pieces.len() };
        if self.free.len() < slots {
            return None;
        }
        self.sent += 1;
        let flags = |piece: &DriverPiece| if piece.is_writable { WRITE } else { 0 };
        let last = pieces.len() - 1;
        let direct = match table {
            None => pieces.iter().map(|piece| (*piece, flags(piece))).collect(),
            Some(address) => {
                let entry = |(at, piece): (usize, &DriverPiece)| {
                    let next = if at < last { NEXT } else { 0 };
                    let words = match self.format {
                        DriverFormat::Split => [flags(piece) | next, at as u16 + 1],
                        DriverFormat::Packed => [0, flags(piece)],
                    };
                    descriptor(piece.address, piece.bytes, words)
                };
                let bytes: Vec<u8> = pieces.iter().enumerate().flat_map(entry).collect();
                memory.write_all_at(&bytes, address).unwrap();
                vec![(DriverPiece { address, bytes: bytes.len() as u32, is_writable: false }, INDIRECT)]
            }
        };
        Some(match self.format {
            DriverFormat::Split => self.offer_split(memory, &direct),
            DriverFormat::Packed => self.offer_packed(memory, &direct),
        })
    }

    fn offer_split(&mut self, memory: &File, pieces: &[(DriverPiece, u16)]) -> u16 {
        let own: Vec<u16> = (0..pieces.len()).map(|_| self.free.pop().unwrap()).collect();
        for (at, (piece, flags)) in pieces.iter().enumerate() {
            let next = own.get(at + 1).copied();
            let words = [flags | if next.is_some() { NEXT } else { 0 }, next.unwrap_or(0)];
            let bytes = descriptor(piece.address, piece.bytes, words);
            memory.write_all_at(&bytes, self.start + u64::from(own[at]) * 16).unwrap();
        }
        let head = own[0];
        self.chains[usize::from(head)] = own;
        self.offer_head(memory, head);
        head
    }

    /// Puts any head into the available part of a split ring.
    pub(crate) fn offer_head(&mut self, memory: &File, head: u16) {
        let [_, driver, _] = self.addresses();
        let slot = u64::from(self.next % self.size);
        memory.write_all_at(&head.to_le_bytes(), driver + 4 + slot * 2).unwrap();
        self.next = self.next.wrapping_add(1);
        memory.write_all_at(&self.next.to_le_bytes(), driver + 2).unwrap();
    }

    fn offer_packed(&mut self, memory: &File, pieces: &[(DriverPiece, u16)]) -> u16 {
        let identifier = *self.free.last().unwrap();
        let own: Vec<u16> = (0..pieces.len()).map(|_| self.free.pop().unwrap()).collect();
        self.chains[usize::from(identifier)] = own;
        let mut first = None;
        for (at, (piece, flags)) in pieces.iter().enumerate() {
            let mut flags = flags | if self.wrap { AVAILABLE } else { USED };
            if at + 1 < pieces.len() {
                flags |= NEXT;
            }
            let place = self.start + u64::from(self.next) * 16;
            let bytes = descriptor(piece.address, piece.bytes, [identifier, flags]);
            match first {
                None => first = Some((bytes, place)),
                Some(_) => memory.write_all_at(&bytes, place).unwrap(),
            }
            self.next += 1;
            if self.next == self.size {
                (self.next, self.wrap) = (0, !self.wrap);
            }
        }
        let (bytes, place) = first.unwrap();
        memory.write_all_at(&bytes[..14], place).unwrap();
        memory.write_all_at(&bytes[14..], place + 14).unwrap();
        identifier
    }

    /// A chain that the device has given back, and how many bytes it says that it wrote. None also where the memory has
    /// gone.
    pub(crate) fn take_used(&mut self, memory: &File) -> Option<(u16, u32)> {
        let (identifier, written) = match self.format {
            DriverFormat::Split => {
                let [_, _, device] = self.addresses();
                let mut index = [0; 2];
                memory.read_exact_at(&mut index, device + 2).ok()?;
                if u16::from_le_bytes(index) == self.used {
                    return None;
                }
                let mut entry = [0; 8];
                memory.read_exact_at(&mut entry, device + 4 + u64::from(self.used % self.size) * 8).ok()?;
                self.used = self.used.wrapping_add(1);
                let word = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().unwrap());
                (word(0) as u16, word(4))
            }
            DriverFormat::Packed => {
                let mut bytes = [0; 16];
                memory.read_exact_at(&mut bytes, self.start + u64::from(self.used) * 16).ok()?;
                let flags = u16::from_le_bytes([bytes[14], bytes[15]]);
                if (flags & AVAILABLE != 0) != self.used_wrap || (flags & USED != 0) != self.used_wrap {
                    return None;
                }
                let identifier = u16::from_le_bytes([bytes[12], bytes[13]]);
                // Somebody may have written what stands for no chain, which would be taken again and again.
                let chain = self.chains.get(usize::from(identifier)).filter(|chain| !chain.is_empty())?;
                self.used += chain.len() as u16;
                if self.used >= self.size {
                    (self.used, self.used_wrap) = (self.used - self.size, !self.used_wrap);
                }
                (identifier, u32::from_le_bytes(bytes[8..12].try_into().unwrap()))
            }
        };
        // Somebody may have written any identifier over the device's.
        self.free.extend(std::mem::take(self.chains.get_mut(usize::from(identifier))?).into_iter().rev());
        Some((identifier, written))
    }
}
