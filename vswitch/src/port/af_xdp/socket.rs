//! An `AF_XDP` socket: frames in memory shared with the kernel, announced through four rings. A program in the kernel
//! redirects everything that the interface receives to it, before the rest of the kernel sees it.
//!
//! The memory is divided into chunks. Half of them are for the kernel to fill, the others for frames to be sent. Each
//! belongs either to the kernel or to us, and the rings tell to whom.

use crate::os::sys::{Instruction, attach_xdp, create_socket_map, load_xdp_program, put_socket, receive_queues};
use crate::port::Sent;
use crate::port::af_packet::socket::PacketSocket;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING, XDP_UMEM_PGOFF_COMPLETION_RING,
    XDP_UMEM_PGOFF_FILL_RING, XdpDesc, XdpDescOptions, XdpRingOffset, XdpUmemReg, XdpUmemRegFlags,
};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, socket_with, sockopt};
use std::ffi::c_void;
use std::io;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering};

/// Room for one frame and the headroom that the kernel requires.
const CHUNK_BYTES: usize = 4096;
/// The headroom that the kernel leaves in front of a received frame (`XDP_PACKET_HEADROOM`).
const KERNEL_HEADROOM_BYTES: usize = 256;
/// The number of chunks for each direction and of entries in each ring.
const CHUNKS: u32 = 1024;
/// The longest frame that can be both sent and received, bytes.
pub const FRAME_BYTES_MAX: usize = CHUNK_BYTES - KERNEL_HEADROOM_BYTES;

/// An open socket, alone on its interface.
#[derive(Debug)]
pub struct XdpSocket {
    descriptor: OwnedFd,
    memory: Mapping,
    fill: XdpRing<u64>,
    completion: XdpRing<u64>,
    received: XdpRing<XdpDesc>,
    to_send: XdpRing<XdpDesc>,
    /// Our chunks for frames to be sent.
    free: Vec<u64>,
    /// How many frames were queued.
    given: u64,
    /// Held until this is dropped: the redirection of frames, and promiscuous mode.
    _redirection: (OwnedFd, PacketSocket),
}

impl XdpSocket {
    /// Opens a socket for all frames that the interface of this name receives.
    ///
    /// # Errors
    /// The kernel's error, or `Unsupported` if frames would arrive that this socket does not see.
    pub fn open(device: &str) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let descriptor = socket_with(AddressFamily::XDP, SocketType::RAW, flags, None)?;
        let (opener, index) = PacketSocket::open_unbound(device)?;
        let index = index as u32;
        let queues = receive_queues(&opener, device)?;
        if queues > 1 {
            let text = format!("it receives on {queues} queues, and an XDP socket serves only one");
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        let memory = Mapping::anonymous(2 * CHUNKS as usize * CHUNK_BYTES)?;
        sockopt::set_xdp_umem_reg(
            &descriptor,
            XdpUmemReg {
                addr: memory.start.expose_provenance() as u64,
                len: memory.bytes as u64,
                chunk_size: CHUNK_BYTES as u32,
                headroom: 0,
                flags: XdpUmemRegFlags::empty(),
                tx_metadata_len: 0,
            },
        )?;
        sockopt::set_xdp_umem_fill_ring_size(&descriptor, CHUNKS)?;
        sockopt::set_xdp_umem_completion_ring_size(&descriptor, CHUNKS)?;
        sockopt::set_xdp_rx_ring_size(&descriptor, CHUNKS)?;
        sockopt::set_xdp_tx_ring_size(&descriptor, CHUNKS)?;
        let offsets = sockopt::xdp_mmap_offsets(&descriptor)?;
        let mut fill = XdpRing::<u64>::map(&descriptor, &offsets.fr, XDP_UMEM_PGOFF_FILL_RING)?;
        let completion = XdpRing::map(&descriptor, &offsets.cr, XDP_UMEM_PGOFF_COMPLETION_RING)?;
        let received = XdpRing::map(&descriptor, &offsets.rx, XDP_PGOFF_RX_RING)?;
        let to_send = XdpRing::map(&descriptor, &offsets.tx, XDP_PGOFF_TX_RING)?;
        let chunk = |number: u32| u64::from(number) * CHUNK_BYTES as u64;
        // All receiving chunks belong to the kernel before the program redirects the first frame.
        (0..CHUNKS).for_each(|number| fill.push(chunk(number)));
        fill.publish();
        let free = (CHUNKS..2 * CHUNKS).map(chunk).collect();
        bind(&descriptor, &SocketAddrXdp::new(SocketAddrXdpFlags::XDP_COPY, index, 0))?;
        let map = create_socket_map()?;
        put_socket(&map, &descriptor)?;
        // Attached last, when every frame that it redirects finds a socket with room.
        let redirection = attach_xdp(&load_xdp_program(&program(&map))?, index)?;
        Ok(Self {
            descriptor,
            memory,
            fill,
            completion,
            received,
            to_send,
            free,
            given: 0,
            _redirection: (redirection, opener),
        })
    }

    /// Passes received frames to `take`, in order, while there are any and it accepts them.
    pub fn receive(&mut self, mut take: impl FnMut(&[u8]) -> bool) {
        while let Some(entry) = self.received.peek() {
            // The kernel gives the frame's position in the memory. An invalid one yields an empty frame.
            if !take(self.memory.bytes(entry.addr as usize, entry.len as usize)) {
                break;
            }
            self.received.pop();
            // The kernel reports where the frame begins in its chunk; the chunk begins at a multiple of its size.
            self.fill.push(entry.addr & !(CHUNK_BYTES as u64 - 1));
        }
        // Released before the chunks: the kernel has as many entries in both rings together as there are chunks.
        self.received.release();
        self.fill.publish();
    }

    /// Checks that the interface exists and is up.
    ///
    /// # Errors
    /// `NETDOWN` for an interface that is down, `NXIO` or `NODEV` for one that is gone.
    pub fn check(&self) -> rustix::io::Result<()> {
        // The kernel reports only once that the interface is gone, with the error of one that is down.
        sockopt::socket_error(&self.descriptor)?.map_err(|_| Errno::NXIO)?;
        match rustix::net::recv(&self.descriptor, &mut [0_u8; 0][..], RecvFlags::DONTWAIT) {
            Ok(_) | Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INTR | Errno::BUSY) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Queues a frame of at most [`FRAME_BYTES_MAX`] bytes. Returns whether there was room.
    pub fn push(&mut self, frame: &[u8]) -> bool {
        // Completed chunks are collected only when they are needed, since each look reads a line that the kernel
        // writes.
        if self.free.is_empty() {
            self.reclaim();
        }
        let Some(chunk) = self.free.pop() else { return false };
        self.memory.write(chunk as usize, frame);
        // There are as many entries as chunks, so there is room.
        self.to_send.push(XdpDesc { addr: chunk, len: frame.len() as u32, options: XdpDescOptions::empty() });
        self.given += 1;
        true
    }

    /// How many frames were queued, and how many of these the kernel has taken. Entries cannot be withdrawn, since the
    /// kernel may already have read them.
    pub fn sent(&self) -> Sent {
        Sent { given: self.given, taken: self.given.saturating_sub(self.to_send.waiting().into()) }
    }

    /// Makes the kernel send what is queued. What it leaves is sent with the next call.
    ///
    /// # Errors
    /// As in [`XdpSocket::check`].
    pub fn flush(&mut self) -> rustix::io::Result<()> {
        self.to_send.publish();
        // The kernel takes a few at a time.
        while self.to_send.is_waiting() {
            let waiting = self.to_send.waiting();
            match rustix::net::send(&self.descriptor, &[], SendFlags::DONTWAIT) {
                Ok(_) => {}
                Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::INTR) if self.to_send.waiting() < waiting => {}
                Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::INTR) => break,
                Err(error) => return Err(error),
            }
            // No progress without an error would be an endless loop.
            if self.to_send.waiting() == waiting {
                break;
            }
        }
        self.reclaim();
        Ok(())
    }

    fn reclaim(&mut self) {
        while let Some(chunk) = self.completion.peek() {
            self.completion.pop();
            self.free.push(chunk);
        }
        self.completion.release();
    }
}

impl AsFd for XdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Redirects every frame to the socket of its queue in the map; a frame on a queue without one goes to the kernel.
fn program(map: &OwnedFd) -> [Instruction; 6] {
    use std::os::fd::AsRawFd as _;
    const LOAD_WORD_OF_CONTEXT: u8 = 0x61;
    const LOAD_MAP: u8 = 0x18;
    const SET: u8 = 0xb7;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    /// The offset of the queue number in `struct xdp_md`.
    const QUEUE_OFFSET: i16 = 16;
    const XDP_PASS: i32 = 2;
    const REDIRECT_MAP: i32 = 51;
    [
        Instruction(LOAD_WORD_OF_CONTEXT, 0x12, QUEUE_OFFSET, 0),
        Instruction(LOAD_MAP, 0x11, 0, map.as_raw_fd()),
        // The second half of the instruction that loads the map.
        Instruction(0, 0, 0, 0),
        Instruction(SET, 0x03, 0, XDP_PASS),
        Instruction(CALL, 0, 0, REDIRECT_MAP),
        Instruction(EXIT, 0, 0, 0),
    ]
}

/// Memory shared with the kernel, mapped until this is dropped.
#[derive(Debug)]
struct Mapping {
    start: *mut c_void,
    bytes: usize,
}

// SAFETY: the memory belongs to no thread, and only the owner of the mapping reaches it.
unsafe impl Send for Mapping {}

impl Mapping {
    fn anonymous(bytes: usize) -> io::Result<Self> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::POPULATE);
        // SAFETY: a new mapping at a place that the kernel chooses overlaps no memory that anybody uses.
        let start = unsafe { mmap_anonymous(null_mut(), bytes, protection, flags) }?;
        Ok(Self { start, bytes })
    }

    fn of_socket(socket: impl AsFd, bytes: usize, offset: u64) -> io::Result<Self> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE);
        // SAFETY: as above.
        let start = unsafe { mmap(null_mut(), bytes, protection, flags, socket, offset) }?;
        Ok(Self { start, bytes })
    }

    /// A part that the kernel has given us; empty if it is not entirely inside the mapping.
    fn bytes(&self, offset: usize, bytes: usize) -> &[u8] {
        if offset.checked_add(bytes).is_none_or(|end| end > self.bytes) {
            return &[];
        }
        // SAFETY: the part lies inside the mapping, which lives as long as `self` and was filled with zeros at first. It is in
        // a chunk that the kernel took from the fill ring and told of in the ring of what was received: until it is put
        // into the fill ring again, which needs `&mut`, nobody writes to it.
        unsafe { std::slice::from_raw_parts(self.start.cast::<u8>().add(offset), bytes) }
    }

    /// Writes to a part that belongs to us. Does nothing if it is not inside the mapping.
    fn write(&mut self, offset: usize, content: &[u8]) {
        let bytes = content.len().min(self.bytes.saturating_sub(offset)).min(CHUNK_BYTES);
        // SAFETY: the part lies inside the mapping, which is exclusively borrowed, so no slice of it exists; the kernel only
        // reads chunks for sending, and this one is not in its ring. `content` is elsewhere.
        unsafe { std::ptr::copy_nonoverlapping(content.as_ptr(), self.start.cast::<u8>().add(offset), bytes) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference into it outlives `self`.
        let _gone = unsafe { munmap(self.start, self.bytes) };
    }
}

/// Our end of a ring of [`CHUNKS`] entries, whose other end is the kernel's. In each ring we either push or pop.
#[derive(Debug)]
struct XdpRing<T> {
    memory: Mapping,
    producer: usize,
    consumer: usize,
    entries: usize,
    /// Our own count. The kernel knows it as of the last [`XdpRing::publish`] or [`XdpRing::release`].
    ours: u32,
    kind: std::marker::PhantomData<T>,
}

impl<T: Copy> XdpRing<T> {
    fn map(socket: &OwnedFd, offsets: &XdpRingOffset, offset: u64) -> io::Result<Self> {
        let [producer, consumer, entries] = [offsets.producer, offsets.consumer, offsets.desc].map(|at| at as usize);
        let bytes = entries + CHUNKS as usize * size_of::<T>();
        let memory = Mapping::of_socket(socket, bytes, offset)?;
        let is_aligned = |offset: usize, to: usize| offset.is_multiple_of(to);
        let fits = producer.max(consumer) + size_of::<AtomicU32>() <= entries;
        let counts_are_aligned =
            is_aligned(producer, align_of::<AtomicU32>()) && is_aligned(consumer, align_of::<AtomicU32>());
        if !fits || !counts_are_aligned || !is_aligned(entries, align_of::<T>()) {
            return Err(io::Error::other("the kernel's rings have an unknown layout"));
        }
        Ok(Self { memory, producer, consumer, entries, ours: 0, kind: std::marker::PhantomData })
    }

    fn count(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: `map` has checked that the count lies inside the mapping, aligned. Both sides touch it atomically only.
        unsafe { &*self.memory.start.cast::<u8>().add(offset).cast::<AtomicU32>() }
    }

    fn entry(&self, number: u32) -> *mut T {
        // SAFETY: less than `CHUNKS` entries behind their start, all inside the mapping, as `map` has made it.
        unsafe { self.memory.start.cast::<u8>().add(self.entries).cast::<T>().add((number % CHUNKS) as usize) }
    }

    /// Appends an entry. There is room, since there are never more entries in use than chunks.
    fn push(&mut self, value: T) {
        // SAFETY: the entry is inside the mapping and aligned, and ours until it is published.
        unsafe { self.entry(self.ours).write(value) };
        self.ours = self.ours.wrapping_add(1);
    }

    /// Makes pushed entries visible to the kernel.
    fn publish(&self) {
        // `Release`: the kernel must see the entries before it sees their number.
        self.count(self.producer).store(self.ours, Ordering::Release);
    }

    /// How many entries the kernel has not taken yet.
    fn waiting(&self) -> u32 {
        self.ours.wrapping_sub(self.count(self.consumer).load(Ordering::Acquire))
    }

    fn is_waiting(&self) -> bool {
        self.waiting() > 0
    }

    /// The next entry from the kernel.
    fn peek(&self) -> Option<T> {
        let is_there = self.count(self.producer).load(Ordering::Acquire) != self.ours;
        // SAFETY: the entry is inside the mapping and aligned; the kernel has published it, and does not write to it before it
        // is released. Both kinds of entry are plain numbers.
        is_there.then(|| unsafe { self.entry(self.ours).read() })
    }

    /// Consumes the entry that was peeked at.
    fn pop(&mut self) {
        self.ours = self.ours.wrapping_add(1);
    }

    /// Returns consumed entries to the kernel.
    fn release(&self) {
        self.count(self.consumer).store(self.ours, Ordering::Release);
    }
}
