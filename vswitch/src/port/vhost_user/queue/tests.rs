//! Queues whose memory is no file, so that Miri runs them too.

use super::{ActiveQueue, QueueParts, WHOLE_BYTES_MAX};
use crate::port::Received;
use crate::port::buffer_pool::{BufferPool, PoolSize};
use crate::port::vhost_user::chain::{FLAG_INDIRECT, FLAG_NEXT, FLAG_WRITE, QueueDirection, RingAddresses};
use crate::port::vhost_user::deferred_payloads::DeferredPayloads;
use crate::port::vhost_user::features::{Feature, Features};
use crate::port::vhost_user::guest_memory::GuestMemory;
use crate::port::vhost_user::guest_memory::testing::memory;
use crate::port::vhost_user::ring::{Ring, RingFormat};
use std::sync::Arc;
use vswitch_core::packet::verdict::{DropReason, Verdict};
use vswitch_core::packet::{FrameBuffer, PRESENT_BYTES_MIN, Packet};

const USER: u64 = 0x7000_0000;
/// Where the parts of the ring are for the guest, and its buffers.
const DRIVER: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const TABLES: u64 = 0x3000;
const BUFFERS: u64 = 0x4000;
const BUFFER_BYTES: u64 = 256;
const MEMORY_BYTES: u64 = 0x8000;
const SIZE: u16 = 8;
const HEADER: usize = 12;
const FEATURES: [Features; 2] = [
    Features(1 << Feature::Version1 as u8 | 1 << Feature::MergeableBuffers as u8),
    Features(1 << Feature::Version1 as u8 | 1 << Feature::MergeableBuffers as u8 | 1 << Feature::PackedRing as u8),
];

/// A queue, and what its guest writes and reads.
struct QueueGuest {
    memory: Arc<GuestMemory>,
    queue: ActiveQueue,
    is_packed: bool,
    /// Descriptors made available and taken back, and chains of a split ring.
    offered: u16,
    taken: u16,
    chains: u16,
}

impl QueueGuest {
    fn new(features: Features, direction: QueueDirection) -> Self {
        // The frames are not in the largest region.
        let memory = memory(&[(0, USER, MEMORY_BYTES), (1 << 40, 1 << 41, 2 * MEMORY_BYTES)]);
        let addresses = RingAddresses { descriptors: USER, driver: USER + DRIVER, device: USER + DEVICE };
        let is_packed = features.has(Feature::PackedRing);
        let format = RingFormat { is_packed, has_event_index: false };
        let ring = Ring::new(&memory, addresses, SIZE, format, 0x8000_8000).unwrap();
        let parts = QueueParts { ring, direction, memory: Arc::clone(&memory), features, log: None, call: None };
        Self { queue: ActiveQueue::new(parts), memory, is_packed, offered: 0, taken: 0, chains: 0 }
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.slice(address, bytes.len()).unwrap().write(bytes);
    }

    fn read<const N: usize>(&self, address: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory.slice(address, N).unwrap().read(&mut bytes);
        bytes
    }

    /// Whether a descriptor of a packed ring is in a round that began with the flags set.
    const fn wrap(index: u16) -> bool {
        (index / SIZE).is_multiple_of(2)
    }

    /// Writes the next descriptor of the ring.
    fn put_descriptor(&mut self, address: u64, bytes: u32, flags: u16) {
        let slot = self.offered % SIZE;
        let round = if Self::wrap(self.offered) { 1 << 7 } else { 1 << 15 };
        let words = if self.is_packed { [slot, flags | round] } else { [flags, (slot + 1) % SIZE] };
        self.write(u64::from(slot) * 16, &descriptor(address, bytes, words));
        self.offered += 1;
    }

    /// Makes a chain of these pieces available: of several descriptors, or in a table.
    fn offer(&mut self, pieces: &[(u64, u32)], flag: u16, is_indirect: bool) {
        let head = self.offered % SIZE;
        let last = pieces.len() - 1;
        let flags = |at: usize| flag | if at < last { FLAG_NEXT } else { 0 };
        if is_indirect {
            let table = TABLES + u64::from(head) * 64;
            for (at, (address, bytes)) in pieces.iter().enumerate() {
                let words = if self.is_packed { [0, flag] } else { [flags(at), at as u16 + 1] };
                self.write(table + at as u64 * 16, &descriptor(*address, *bytes, words));
            }
            self.put_descriptor(table, pieces.len() as u32 * 16, FLAG_INDIRECT);
        } else {
            for (at, (address, bytes)) in pieces.iter().enumerate() {
                self.put_descriptor(*address, *bytes, flags(at));
            }
        }
        self.write(DRIVER + 4 + u64::from(self.chains % SIZE) * 2, &head.to_le_bytes());
        self.chains += 1;
        if !self.is_packed {
            self.write(DRIVER + 2, &self.chains.to_le_bytes());
        }
    }

    /// Takes back a chain of so many descriptors: how many bytes were written to it.
    fn take_back(&mut self, descriptors: u16) -> Option<u32> {
        let written = if self.is_packed {
            let [.., l0, l1, l2, l3, _, _, low, high] = self.read::<16>(u64::from(self.taken % SIZE) * 16);
            let flags = u16::from_le_bytes([low, high]);
            let round = if Self::wrap(self.taken) { 1 << 7 | 1 << 15 } else { 0 };
            (flags & (1 << 7 | 1 << 15) == round).then(|| u32::from_le_bytes([l0, l1, l2, l3]))
        } else {
            let index = u16::from_le_bytes(self.read(DEVICE + 2));
            let entry = DEVICE + 4 + u64::from(self.taken % SIZE) * 8;
            (index != self.taken).then(|| u32::from_le_bytes(self.read(entry + 4)))
        };
        self.taken += if written.is_none() {
            0
        } else if self.is_packed {
            descriptors
        } else {
            1
        };
        written
    }
}

fn descriptor(address: u64, bytes: u32, words: [u16; 2]) -> [u8; 16] {
    let rest = u64::from(bytes) | u64::from(words[0]) << 32 | u64::from(words[1]) << 48;
    (u128::from(address) | u128::from(rest) << 64).to_le_bytes()
}

fn frame(number: u16, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at + usize::from(number)) as u8).collect()
}

const fn buffer(number: u16) -> u64 {
    BUFFERS + (number % SIZE) as u64 * BUFFER_BYTES
}

#[test]
fn frames_of_a_guest_come_whole_however_they_are_laid_out() {
    for features in FEATURES {
        let mut guest = QueueGuest::new(features, QueueDirection::FromGuest);
        let mut pool = BufferPool::new(PoolSize { small: 4, large: 1 });
        for number in 0..40 {
            let frame = frame(number, 60 + usize::from(number));
            let place = buffer(number);
            guest.write(place, &[&[0; HEADER], &frame[..]].concat());
            let bytes = (HEADER + frame.len()) as u32;
            let pieces = [(place, 5), (place + 5, 7), (place + 12, bytes - 12)];
            match number % 3 {
                0 => guest.offer(&[(place, bytes)], 0, false),
                1 => guest.offer(&pieces, 0, false),
                _ => guest.offer(&pieces, 0, true),
            }
            let mut burst = Vec::new();
            assert_eq!(guest.queue.receive(&mut pool, &mut burst, 32, None), Some(Received::Drained));
            let got = burst.pop().unwrap();
            assert_eq!(got.buffer.frame(), frame, "{number}");
            pool.put(got.buffer);
            assert_eq!(guest.take_back(if number % 3 == 1 { 3 } else { 1 }), Some(0), "{number}");
        }
    }
}

#[test]
fn what_the_pool_or_the_burst_has_no_room_for_waits_and_comes_in_its_order() {
    for features in FEATURES {
        let mut guest = QueueGuest::new(features, QueueDirection::FromGuest);
        let mut pool = BufferPool::new(PoolSize { small: 3, large: 0 });
        let (mut sent, mut received) = (0, 0);
        while received < 100 {
            while sent < received + SIZE {
                guest.write(buffer(sent), &[&[0; HEADER], &frame(sent, 64)[..]].concat());
                guest.offer(&[(buffer(sent), 76)], 0, false);
                sent += 1;
            }
            let (mut burst, room) = (Vec::new(), usize::from(received % 5 + 1));
            assert_eq!(guest.queue.receive(&mut pool, &mut burst, room, None), Some(Received::MaybeMore));
            assert_eq!(burst.len(), room.min(3));
            assert!(!guest.queue.arm(), "some wait");
            for packet in burst {
                assert_eq!(packet.buffer.frame(), frame(received, 64));
                pool.put(packet.buffer);
                received += 1;
                assert_eq!(guest.take_back(1), Some(0));
            }
            assert_eq!(guest.take_back(1), None);
        }
    }
}

#[test]
fn a_long_frame_takes_as_many_buffers_as_it_needs() {
    for features in FEATURES {
        let mut guest = QueueGuest::new(features, QueueDirection::ToGuest);
        for number in 0..30 {
            let frame = frame(number, 100 + usize::from(number) * 17);
            let buffers = (HEADER + frame.len()).div_ceil(BUFFER_BYTES as usize) as u16;
            let mut packet = Packet::new(FrameBuffer::with_capacity(2048));
            packet.buffer.fill(&frame);
            guest.queue.send(std::iter::once(&mut packet), 1, &DeferredPayloads::default());
            assert_eq!(packet.verdict, Verdict::Drop(DropReason::PortFull));
            let first = guest.offered;
            for _ in 0..buffers {
                guest.offer(&[(buffer(guest.offered), BUFFER_BYTES as u32)], FLAG_WRITE, false);
            }
            guest.queue.send(std::iter::once(&mut packet), 1, &DeferredPayloads::default());
            assert_eq!(packet.verdict, Verdict::Deliver);
            let mut got = Vec::new();
            for at in first..first + buffers {
                let written = guest.take_back(1).unwrap() as usize;
                let mut bytes = vec![0; written];
                guest.memory.slice(buffer(at), written).unwrap().read(&mut bytes);
                got.extend(bytes);
            }
            assert_eq!(got[10..12], buffers.to_le_bytes());
            assert_eq!(got[HEADER..], frame);
            assert_eq!(guest.take_back(1), None);
        }
    }
}

/// Where the buffers of long frames are, which are in the largest region.
const LONG_BUFFERS: u64 = 1 << 40;
const LONG_BUFFER_BYTES: u64 = 4096;

#[test]
fn the_payload_of_a_long_frame_goes_from_guest_to_guest_and_its_chain_back_afterwards() {
    let guests = FEATURES.iter().flat_map(|from| FEATURES.iter().map(move |to| (*from, *to)));
    for (from, to) in guests {
        let mut sender = QueueGuest::new(from, QueueDirection::FromGuest);
        let mut receiver = QueueGuest::new(to, QueueDirection::ToGuest);
        let mut pool = BufferPool::new(PoolSize { small: 2, large: 1 });
        let mut payloads = DeferredPayloads::default();
        for number in 0..30 {
            let frame = frame(number, 480 + usize::from(number) * 50);
            let (place, bytes) = (LONG_BUFFERS + u64::from(number % 4) * LONG_BUFFER_BYTES, frame.len() as u32);
            sender.write(place, &[&[0; HEADER], &frame[..]].concat());
            let header = HEADER as u32;
            // Also with pieces that end before, at and behind the end of what is copied at once.
            let pieces = match number % 4 {
                0 => vec![(place, header + bytes)],
                1 => vec![(place, header), (place + 12, bytes)],
                2 => vec![(place, header + 128), (place + 140, 200), (place + 340, bytes - 328)],
                _ => vec![(place, 100), (place + 100, 45), (place + 145, header + bytes - 145)],
            };
            sender.offer(&pieces, 0, number % 3 == 0);
            let mut burst = Vec::new();
            sender.queue.receive(&mut pool, &mut burst, 32, Some(&mut payloads)).unwrap();
            let is_long = frame.len() > WHOLE_BYTES_MAX;
            let buffer = &burst[0].buffer;
            assert_eq!((burst.len(), buffer.length(), buffer.deferred().is_some()), (1, frame.len(), is_long));
            assert_eq!(payloads.is_empty(), !is_long);
            assert_eq!(*buffer.frame(), frame[..if is_long { PRESENT_BYTES_MIN } else { frame.len() }]);
            // One buffer, or many small ones.
            let room = if number % 2 == 0 { LONG_BUFFER_BYTES } else { 256 };
            let count = (HEADER + frame.len()).div_ceil(room as usize) as u16;
            let place = |at: u16| LONG_BUFFERS + u64::from(at) * LONG_BUFFER_BYTES;
            (0..count).for_each(|at| receiver.offer(&[(place(at), room as u32)], FLAG_WRITE, false));
            receiver.queue.send(burst.iter_mut(), 1, &payloads);
            assert_eq!(burst[0].verdict, Verdict::Deliver);
            let mut got = Vec::new();
            for at in 0..count {
                let mut bytes = vec![0; receiver.take_back(1).unwrap() as usize];
                receiver.memory.slice(place(at), bytes.len()).unwrap().read(&mut bytes);
                got.extend(bytes);
            }
            assert_eq!(got[HEADER..], frame, "{number}");
            // Whoever needs all of it gets all of it.
            let mut packet = burst.pop().unwrap();
            payloads.fetch(&mut packet.buffer);
            assert_eq!((packet.buffer.frame(), packet.buffer.deferred()), (&frame[..], None));
            pool.put(packet.buffer);
            let slots = if number % 3 == 0 { 1 } else { pieces.len() as u16 };
            assert_eq!(sender.take_back(slots).is_some(), !is_long, "{number}");
            sender.queue.release();
            payloads.clear();
            assert!(!is_long || sender.take_back(slots).is_some(), "{number}");
        }
    }
}

#[test]
fn a_guest_that_writes_anything_harms_itself_alone() {
    let asked = std::env::var("SLUICE_RINGS").ok().map(|text| text.parse().expect("SLUICE_RINGS is a number"));
    let rounds: usize = asked.unwrap_or(if cfg!(miri) { 60 } else { 20_000 });
    let mut state = 1_u64;
    let mut random = move || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        state >> 33
    };
    let mut faults = 0;
    for round in 0..rounds {
        let direction = if round % 2 == 0 { QueueDirection::FromGuest } else { QueueDirection::ToGuest };
        let mut guest = QueueGuest::new(FEATURES[round / 2 % 2], direction);
        let mut pool = BufferPool::new(PoolSize { small: 2, large: 1 });
        for slot in 0..SIZE {
            let (address, bytes) = match random() % 8 {
                0 => (random() << 20, random() as u32),
                1 => (MEMORY_BYTES - random() % 64, (random() % 128) as u32),
                _ => (BUFFERS + random() % 4096, (random() % 2000) as u32),
            };
            // Flags of either format, mostly with sense.
            let flags = [0, FLAG_NEXT, FLAG_WRITE, FLAG_INDIRECT, random() as u16][random() as usize % 5];
            let next = (random() % 9) as u16;
            let words = if guest.is_packed { [next, flags | 1 << 7] } else { [flags, next] };
            guest.write(u64::from(slot) * 16, &descriptor(address, bytes, words));
            guest.write(DRIVER + 4 + u64::from(slot) * 2, &((random() % 9) as u16).to_le_bytes());
        }
        guest.write(DRIVER + 2, &((random() % 10) as u16).to_le_bytes());
        for _ in 0..3 {
            if direction == QueueDirection::FromGuest {
                let mut burst = Vec::new();
                let mut payloads = DeferredPayloads::default();
                let place = Some(&mut payloads).filter(|_| random() % 2 == 0);
                let received = guest.queue.receive(&mut pool, &mut burst, 4, place);
                assert_eq!(received.is_none(), guest.queue.fault().is_some());
                for mut packet in burst {
                    let frame_bytes = packet.buffer.length();
                    payloads.fetch(&mut packet.buffer);
                    assert_eq!(packet.buffer.frame().len(), frame_bytes);
                    pool.put(packet.buffer);
                }
                guest.queue.release();
                continue;
            }
            let mut packet = Packet::new(FrameBuffer::with_capacity(2048));
            packet.buffer.fill(&frame(1, 700));
            guest.queue.send(std::iter::once(&mut packet), 1, &DeferredPayloads::default());
            let is_down = packet.verdict == Verdict::Drop(DropReason::PortDown);
            assert!(!is_down || guest.queue.fault().is_some());
            let is_refused =
                [DropReason::PortFull, DropReason::PortRefused].map(Verdict::Drop).contains(&packet.verdict);
            assert!(is_down || is_refused || packet.verdict == Verdict::Deliver);
        }
        faults += usize::from(guest.queue.fault().is_some());
    }
    assert!(faults > rounds / 10, "{faults} of {rounds}");
}
