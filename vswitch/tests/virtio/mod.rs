//! A virtual machine as a vhost-user port sees it: a front end that speaks the protocol, and a virtio driver in memory of its own
//! (VIRTIO 1.2 §2.7, §2.8). It breaks every rule on request.

#![allow(dead_code, reason = "not every test breaks everything")]

pub(crate) mod driver;
pub(crate) mod socket_rig;

use driver::{DriverFormat, DriverPiece, DriverQueue};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::fs::File;
use std::io::{IoSlice, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use vswitch::port::virtio_header::{self, HEADER_BYTES};
use vswitch_core::packet::offload::Offload;

pub(crate) const CSUM: u64 = 1;
pub(crate) const GUEST_CSUM: u64 = 1 << 1;
pub(crate) const GUEST_TSO: u64 = 1 << 7 | 1 << 8;
pub(crate) const HOST_TSO: u64 = 1 << 11 | 1 << 12;
pub(crate) const MERGEABLE: u64 = 1 << 15;
pub(crate) const LOG_ALL: u64 = 1 << 26;
pub(crate) const INDIRECT: u64 = 1 << 28;
pub(crate) const EVENT_INDEX: u64 = 1 << 29;
pub(crate) const PROTOCOL_FEATURES: u64 = 1 << 30;
pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const PACKED: u64 = 1 << 34;
pub(crate) const USO: u64 = 1 << 54 | 1 << 55 | 1 << 56;
/// What a guest of today agrees to.
pub(crate) const MODERN: u64 =
    CSUM | GUEST_CSUM | GUEST_TSO | HOST_TSO | MERGEABLE | INDIRECT | EVENT_INDEX | PROTOCOL_FEATURES | VERSION_1 | USO;

/// Requests of the protocol, by their numbers.
pub(crate) const GET_FEATURES: u32 = 1;
pub(crate) const SET_FEATURES: u32 = 2;
pub(crate) const SET_OWNER: u32 = 3;
pub(crate) const SET_MEM_TABLE: u32 = 5;
pub(crate) const SET_LOG_BASE: u32 = 6;
pub(crate) const SET_VRING_NUM: u32 = 8;
pub(crate) const SET_VRING_ADDR: u32 = 9;
pub(crate) const SET_VRING_BASE: u32 = 10;
pub(crate) const GET_VRING_BASE: u32 = 11;
pub(crate) const SET_VRING_KICK: u32 = 12;
pub(crate) const SET_VRING_CALL: u32 = 13;
pub(crate) const GET_PROTOCOL_FEATURES: u32 = 15;
pub(crate) const SET_PROTOCOL_FEATURES: u32 = 16;
pub(crate) const SET_VRING_ENABLE: u32 = 18;
pub(crate) const SEND_RARP: u32 = 19;
pub(crate) const ADD_MEM_REG: u32 = 37;
pub(crate) const REM_MEM_REG: u32 = 38;
pub(crate) const SET_STATUS: u32 = 39;

pub(crate) const NEED_REPLY: u32 = 1 << 3;

/// Bytes of guest memory.
pub(crate) const MEMORY_BYTES: u64 = 32 << 20;
/// Where the front end has the memory mapped, as it says.
pub(crate) const USER_BASE: u64 = 0x7f00_0000_0000;
/// Where the first buffer of the guest is.
const BUFFERS: u64 = 1 << 20;
/// Bytes between two queues' rings.
const QUEUE_BYTES: u64 = 0x1_0000;
/// Bytes of a buffer of the receive queue, with and without mergeable buffers.
const MERGEABLE_BYTES: u32 = 2048;
const WHOLE_BYTES: u32 = 68 << 10;

/// Where a buffer is, and how long.
type GuestBuffer = (u64, u32);

/// A guest and its hypervisor.
#[derive(Debug)]
pub(crate) struct VirtualMachine {
    pub(crate) memory: File,
    pub(crate) socket: Option<UnixStream>,
    pub(crate) queues: Vec<DriverQueue>,
    pub(crate) features: u64,
    /// Kicks and interrupts of each queue.
    pub(crate) counters: Vec<(OwnedFd, OwnedFd)>,
    size: u16,
    next_buffer: u64,
    /// Buffers of the receive queues, by their descriptors' identifiers.
    receive_buffers: Vec<Vec<GuestBuffer>>,
}

impl VirtualMachine {
    /// A guest with `pairs` pairs of queues of `size` entries.
    pub(crate) fn new(features: u64, pairs: usize, size: u16) -> Self {
        let memory = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&memory, MEMORY_BYTES).unwrap();
        let format = if features & PACKED != 0 { DriverFormat::Packed } else { DriverFormat::Split };
        let queues = (0..2 * pairs).map(|index| DriverQueue::new(format, QUEUE_BYTES * index as u64, size)).collect();
        let counter = || eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap();
        let counters = (0..2 * pairs).map(|_| (counter(), counter())).collect();
        let receive_buffers = vec![vec![(0, 0); usize::from(size)]; 2 * pairs];
        let memory = File::from(memory);
        Self { memory, socket: None, queues, features, counters, size, next_buffer: BUFFERS, receive_buffers }
    }

    pub(crate) fn header_bytes(&self) -> usize {
        if self.features & (VERSION_1 | MERGEABLE) != 0 { 12 } else { 10 }
    }

    /// A message of the protocol.
    pub(crate) fn message(&self, request: u32, body: &[u8], descriptors: &[BorrowedFd<'_>]) {
        self.message_with_flags(request, 1, body, descriptors);
    }

    pub(crate) fn message_with_flags(&self, request: u32, flags: u32, body: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let mut bytes = Vec::new();
        [request, flags, body.len() as u32].iter().for_each(|word| bytes.extend(word.to_ne_bytes()));
        bytes.extend(body);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        let socket = self.socket.as_ref().unwrap();
        // The port may have let go of a front end that breaks the protocol.
        let _ = sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL);
    }

    /// The body of the next reply.
    pub(crate) fn reply(&self) -> Vec<u8> {
        let mut socket = self.socket.as_ref().unwrap();
        let mut header = [0; 12];
        socket.read_exact(&mut header).unwrap();
        let mut body = vec![0; u32::from_ne_bytes(header[8..].try_into().unwrap()) as usize];
        socket.read_exact(&mut body).unwrap();
        body
    }

    pub(crate) fn connect(&mut self, path: &Path) {
        self.socket = Some(UnixStream::connect(path).unwrap());
    }

    /// What a front end says when its driver is ready, for all queues.
    pub(crate) fn start(&self) {
        self.message(SET_OWNER, &[], &[]);
        self.message(SET_FEATURES, &self.features.to_ne_bytes(), &[]);
        if self.features & PROTOCOL_FEATURES != 0 {
            self.message(SET_PROTOCOL_FEATURES, &(1_u64 | 1 << 1 | 1 << 3 | 1 << 15).to_ne_bytes(), &[]);
        }
        self.share_memory();
        (0..self.queues.len()).for_each(|index| self.start_queue(index));
    }

    pub(crate) fn share_memory(&self) {
        let body = words(&[1, 0, MEMORY_BYTES, USER_BASE, 0]);
        self.message(SET_MEM_TABLE, &body, &[self.memory.as_fd()]);
    }

    pub(crate) fn start_queue(&self, index: usize) {
        self.set_up_queue(index, u32::from(self.size));
        if self.features & PROTOCOL_FEATURES != 0 {
            self.message(SET_VRING_ENABLE, &pair(index as u32, 1), &[]);
        }
    }

    pub(crate) fn set_up_queue(&self, index: usize, size: u32) {
        let number = index as u32;
        self.message(SET_VRING_NUM, &pair(number, size), &[]);
        let base = if self.features & PACKED != 0 { 0x8000_8000 } else { 0 };
        self.message(SET_VRING_BASE, &pair(number, base), &[]);
        let [descriptors, driver, device] = self.queues[index].addresses().map(|address| USER_BASE + address);
        let mut body = pair(number, 0).to_vec();
        body.extend(words(&[descriptors, device, driver, 0]));
        self.message(SET_VRING_ADDR, &body, &[]);
        let (kick, call) = &self.counters[index];
        self.message(SET_VRING_CALL, &words(&[index as u64]), &[call.as_fd()]);
        self.message(SET_VRING_KICK, &words(&[index as u64]), &[kick.as_fd()]);
    }

    /// Fills the receive queues with buffers.
    pub(crate) fn fill(&mut self) {
        for index in (0..self.queues.len()).step_by(2) {
            let bytes = if self.features & MERGEABLE != 0 { MERGEABLE_BYTES } else { WHOLE_BYTES };
            while self.queues[index].free() > 0 && self.next_buffer + u64::from(bytes) <= MEMORY_BYTES / 2 {
                let address = self.take_memory(bytes);
                self.offer_buffer(index, address, bytes);
            }
        }
    }

    fn offer_buffer(&mut self, index: usize, address: u64, bytes: u32) {
        let piece = DriverPiece { address, bytes, is_writable: true };
        let identifier = self.queues[index].offer(&self.memory, &[piece], None).unwrap();
        self.receive_buffers[index][usize::from(identifier)] = (address, bytes);
    }

    /// Memory that nothing else is in.
    pub(crate) fn take_memory(&mut self, bytes: u32) -> u64 {
        let address = self.next_buffer;
        self.next_buffer += u64::from(bytes.next_multiple_of(64));
        address
    }

    /// Sends a frame by a queue from the guest: by one descriptor, or by a header and pieces, or by an indirect table.
    pub(crate) fn send(&mut self, index: usize, frame: &[u8], offload: Offload, shape: FrameLayout) {
        while self.queues[index].take_used(&self.memory).is_some() {}
        let mut bytes = vec![0; self.header_bytes()];
        bytes[..HEADER_BYTES].copy_from_slice(&virtio_header::encode(&offload));
        bytes.extend(frame);
        // The same memory again and again: what was sent is used by then.
        let slot = MEMORY_BYTES / 2
            + ((self.queues[index].sent() * self.queues.len() as u64 + index as u64) % 200) * (72 << 10);
        self.memory.write_all_at(&bytes, slot).unwrap();
        let piece = |from: usize, to: usize| DriverPiece {
            address: slot + from as u64,
            bytes: (to - from) as u32,
            is_writable: false,
        };
        let (header, all) = (self.header_bytes(), bytes.len());
        let middle = header + (all - header) / 2;
        let pieces = match shape {
            FrameLayout::One => vec![piece(0, all)],
            FrameLayout::Pieces | FrameLayout::Indirect => {
                vec![piece(0, 3), piece(3, header), piece(header, header), piece(header, middle), piece(middle, all)]
            }
        };
        let table = (shape == FrameLayout::Indirect).then_some(slot + (70 << 10));
        self.queues[index].offer(&self.memory, &pieces, table).unwrap();
        self.kick(index);
    }

    pub(crate) fn kick(&self, index: usize) {
        rustix::io::write(&self.counters[index].0, &1_u64.to_ne_bytes()).unwrap();
    }

    /// How often the guest was interrupted for a queue.
    pub(crate) fn interrupts(&self, index: usize) -> u64 {
        let mut bytes = [0; 8];
        let read = rustix::io::read(&self.counters[index].1, &mut bytes);
        read.map_or(0, |_| u64::from_ne_bytes(bytes))
    }

    /// Frames that have come by a queue to the guest. Their buffers are offered again.
    pub(crate) fn collect(&mut self, index: usize) -> Vec<(Vec<u8>, Offload)> {
        let (mut frames, header_bytes) = (Vec::new(), self.header_bytes());
        while let Some((mut bytes, buffers)) = self.take_buffer(index) {
            let wanted = if header_bytes == 12 { u16::from_le_bytes([bytes[10], bytes[11]]).into() } else { 1 };
            let mut all = buffers;
            while all.len() < wanted {
                let (more, buffer) = self.take_buffer(index).expect("a frame comes with all its buffers");
                bytes.extend(more);
                all.extend(buffer);
            }
            let offload = virtio_header::decode(bytes[..HEADER_BYTES].try_into().unwrap());
            frames.push((bytes[header_bytes..].to_vec(), offload));
            all.into_iter().for_each(|(address, bytes)| self.offer_buffer(index, address, bytes));
        }
        frames
    }

    fn take_buffer(&mut self, index: usize) -> Option<(Vec<u8>, Vec<GuestBuffer>)> {
        let (identifier, written) = self.queues[index].take_used(&self.memory)?;
        let (address, bytes) = self.receive_buffers[index][usize::from(identifier)];
        assert!(written <= bytes, "the device wrote behind a buffer");
        let mut content = vec![0; written as usize];
        self.memory.read_exact_at(&mut content, address).unwrap();
        Some((content, vec![(address, bytes)]))
    }
}

/// How a guest lays a frame out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameLayout {
    One,
    Pieces,
    Indirect,
}

pub(crate) fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

pub(crate) fn pair(index: u32, value: u32) -> [u8; 8] {
    let [a, b, c, d] = index.to_ne_bytes();
    let [e, f, g, h] = value.to_ne_bytes();
    [a, b, c, d, e, f, g, h]
}
