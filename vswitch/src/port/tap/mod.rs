//! A TAP device of the kernel. Each read or write moves one frame, but a frame may be 64 KiB long, and a ring may carry
//! many reads or writes at once.
//!
//! If the kernel supports it, a virtio header precedes each frame, and the guest leaves checksums and segmentation to
//! whoever needs them: to nobody, if the receiver accepts such frames too.

pub mod macvtap;
pub mod persistent;
pub mod socket;
pub mod steering;

use crate::os::io_uring::BatchRing;
use crate::os::namespace;
use crate::os::netlink::{self, Interface};
use crate::os::run_dir::RunDir;
use crate::os::sys::{self, TapMode, tap_offloads};
use crate::port::batch_size::BatchSize;
use crate::port::buffer_pool::BufferPool;
use crate::port::virtio_header::{self, HEADER_BYTES};
use crate::port::{Port, Received};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::{Errno, ReadWriteFlags};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;
use vswitch_core::config::desired::TapPort;
use vswitch_core::config::ids::MacAddress;
use vswitch_core::config::limits::{BURST_BYTES, BURST_PACKETS};
use vswitch_core::packet::offload::{Offload, Offloads};
use vswitch_core::packet::verdict::{DropReason, Verdict};
use vswitch_core::packet::{FrameBuffer, Packet};

/// How frames cross TAP devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TapIo {
    /// One system call for each frame.
    #[default]
    Plain,
    /// Many frames in one call, through a ring of the kernel.
    Uring,
}

/// An open TAP device. It disappears when this is dropped, unless it existed before.
#[derive(Debug)]
pub struct Tap {
    device: Device,
    /// The offload requests that it accepts, and that its guest may make.
    offloads: Offloads,
    /// `None` if each frame takes a call of its own.
    batches: Option<Batches>,
    /// For error messages.
    description: String,
    /// Whether this process has made the device persistent.
    is_kept: bool,
}

impl Tap {
    /// Creates the device in its namespace, or attaches to it if it exists, and applies `interface` to it if there is
    /// one.
    ///
    /// # Errors
    /// What failed, with device and namespace.
    pub fn open(tap: &TapPort, interface: Option<&Interface>) -> io::Result<Self> {
        Self::open_with(tap, interface, Offloads::ALL, TapIo::Plain)
    }

    /// The same as [`Tap::open`], with those of the `wanted` offloads that the kernel knows, and with frames moved by
    /// `io`.
    ///
    /// # Errors
    /// What failed, with device and namespace.
    pub fn open_with(tap: &TapPort, interface: Option<&Interface>, wanted: Offloads, io: TapIo) -> io::Result<Self> {
        let opened = Self::open_rx_queues(tap, interface, (wanted, io), 1)?.into_iter().next();
        opened.ok_or_else(|| io::Error::other("a device has at least one queue"))
    }

    /// The same as [`Tap::open_with`], with `rx_queues` queues, each for its share of the flows; only one if the device
    /// exists and cannot have more.
    ///
    /// # Errors
    /// What failed, with device and namespace.
    pub fn open_rx_queues(
        tap: &TapPort,
        interface: Option<&Interface>,
        (wanted, io): (Offloads, TapIo),
        rx_queues: usize,
    ) -> io::Result<Vec<Self>> {
        let description = describe(tap);
        let work = || {
            let opened = open_queues(&tap.device, wanted, rx_queues)?;
            if let Some(interface) = interface {
                netlink::configure(&tap.device, interface, None)?;
            }
            Ok(opened)
        };
        let opened = match &tap.namespace {
            Some(name) if tap.create_namespace => {
                namespace::ensure(name, &RunDir::default()).and_then(|()| namespace::within(name, work))
            }
            name => namespace::within_any(name.as_deref(), work),
        };
        let finish = |(device, offloads)| {
            let batches =
                batches(io).map_err(|error| io::Error::new(error.kind(), format!("{description}: {error}")))?;
            Ok(Self { device, offloads, batches, description: description.clone(), is_kept: false })
        };
        opened.map_err(|error| explain(&description, error))?.into_iter().map(finish).collect()
    }
}

impl Tap {
    /// Sets whether the device stays when no process has it open.
    ///
    /// # Errors
    /// The kernel's error, with device and namespace.
    pub(crate) fn persist(&mut self, stays: bool) -> io::Result<()> {
        sys::set_tap_persistence(&self.device.descriptor, stays).map_err(|error| explain(&self.description, error))?;
        self.is_kept = stays;
        Ok(())
    }
}

/// Opens the device once for each queue. The steering program is attached before the second.
fn open_queues(name: &str, wanted: Offloads, rx_queues: usize) -> io::Result<Vec<(Device, Offloads)>> {
    if rx_queues <= 1 {
        return Ok(vec![open_device(name, wanted, false)?]);
    }
    let program = steering::load()?;
    let first = match open_device(name, wanted, true) {
        // A device that exists with one queue cannot get more; one is better than none.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => return open_queues(name, wanted, 1),
        opened => opened?,
    };
    // Before a second queue exists, so that no frame is steered by the kernel's own choice.
    sys::set_tap_steering(&first.0.descriptor, &program)?;
    let mut queues = vec![first];
    for _ in 1..rx_queues {
        queues.push(open_device(name, wanted, true)?);
    }
    Ok(queues)
}

/// Opens the device with those of the `wanted` offloads that the kernel knows: no UDP before Linux 6.2, and none at all
/// without support for the header.
fn open_device(name: &str, wanted: Offloads, has_queues: bool) -> io::Result<(Device, Offloads)> {
    let plain = || {
        let descriptor = sys::open_tap(name, TapMode { has_header: false, has_queues })?;
        // Whoever had the device open before may have enabled offloads.
        sys::set_tap_offloads(&descriptor, 0)?;
        Ok((Device { descriptor, header_bytes: 0, may_block: false }, Offloads::NONE))
    };
    if wanted == Offloads::NONE {
        return plain();
    }
    let descriptor = match sys::open_tap(name, TapMode { has_header: true, has_queues }) {
        // The name of another kind of device has the same error; the second attempt then reports it again.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => return plain(),
        opened => opened?,
    };
    match negotiate(&descriptor, wanted)? {
        Some(offloads) => Ok((Device { descriptor, header_bytes: HEADER_BYTES, may_block: false }, offloads)),
        None => plain(),
    }
}

/// Agrees with a device that has headers on those of the `wanted` offloads that the kernel knows; none if on nothing at all.
fn negotiate(descriptor: &OwnedFd, wanted: Offloads) -> io::Result<Option<Offloads>> {
    sys::set_tap_header_bytes(descriptor, HEADER_BYTES as i32)?;
    let tcp = Offloads::TCP_V4.with(Offloads::TCP_V6);
    // From most to least, since the kernel refuses a set as a whole if it does not know one of them.
    for offered in [Offloads::ALL, Offloads::CHECKSUM.with(tcp), Offloads::CHECKSUM, Offloads::NONE] {
        let flags_of = |offload, flags| if offered.contains(offload) && wanted.contains(offload) { flags } else { 0 };
        let flags = flags_of(Offloads::CHECKSUM, tap_offloads::CHECKSUM)
            | flags_of(tcp, tap_offloads::TCP)
            | flags_of(Offloads::UDP, tap_offloads::UDP);
        if sys::set_tap_offloads(descriptor, flags).is_ok() {
            return Ok(Some(Offloads::from_bits(offered.bits() & wanted.bits())));
        }
    }
    Ok(None)
}

/// Applies another configuration to the device of a running port.
///
/// # Errors
/// What failed, with device and namespace.
pub fn adjust(tap: &TapPort, wanted: &Interface, previous: Option<&Interface>) -> io::Result<()> {
    let work = || netlink::configure(&tap.device, wanted, previous);
    let adjusted = namespace::within_any(tap.namespace.as_deref(), work);
    adjusted.map_err(|error| explain(&describe(tap), error))
}

/// Sets the MTU of a new device, and its hardware address to the ENI's, since its guest's packets would be dropped with
/// any other.
///
/// # Errors
/// What failed, with device and namespace.
pub(crate) fn set_link(tap: &TapPort, mac: MacAddress) -> io::Result<()> {
    let set = namespace::within_any(tap.namespace.as_deref(), || netlink::set_link(&tap.device, mac, tap.mtu_bytes));
    set.map_err(|error| explain(&describe(tap), error))
}

pub(super) fn describe(tap: &TapPort) -> String {
    match &tap.namespace {
        Some(name) => format!("TAP device {} in network namespace {name}", tap.device),
        None => format!("TAP device {}", tap.device),
    }
}

fn explain(description: &str, error: io::Error) -> io::Error {
    let text = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::BADFD) => "the device was removed".to_owned(),
        Some(Errno::BUSY) => "another process has the device open".to_owned(),
        Some(Errno::PERM | Errno::ACCESS) => format!("{error}; this needs the capability CAP_NET_ADMIN"),
        Some(Errno::INVAL) => {
            format!("{error}; a device of this name exists that is not a TAP device or has other options")
        }
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("{description}: {text}"))
}

/// The open descriptor, and the format of its frames.
#[derive(Debug)]
struct Device {
    descriptor: OwnedFd,
    /// The length of the virtio header in front of each frame, bytes; zero if there is none.
    header_bytes: usize,
    /// Whether another process may have calls wait, so that each has to say that it does not.
    may_block: bool,
}

/// The place in a device that has none.
const NO_OFFSET: u64 = u64::MAX;

impl Device {
    fn read(&self, buffer: &mut FrameBuffer) -> rustix::io::Result<Offload> {
        let room = buffer.room_with_header(self.header_bytes);
        let read_bytes = match self.may_block {
            false => rustix::io::read(&self.descriptor, room)?,
            true => {
                let rooms = &mut [IoSliceMut::new(room)];
                rustix::io::preadv2(&self.descriptor, rooms, NO_OFFSET, ReadWriteFlags::NOWAIT)?
            }
        };
        Ok(self.claim(buffer, read_bytes))
    }

    fn write(&self, packet: &mut Packet) -> rustix::io::Result<usize> {
        let piece = self.piece(packet);
        match self.may_block {
            false => rustix::io::write(&self.descriptor, piece),
            true => rustix::io::pwritev2(&self.descriptor, &[IoSlice::new(piece)], NO_OFFSET, ReadWriteFlags::NOWAIT),
        }
    }

    /// Trims the buffer to the frame that was read and returns the offload request in its header.
    fn claim(&self, buffer: &mut FrameBuffer, read_bytes: usize) -> Offload {
        buffer.set_length(read_bytes.saturating_sub(self.header_bytes));
        if self.header_bytes == 0 {
            return Offload::NONE;
        }
        buffer.room_with_header(HEADER_BYTES).first_chunk().map_or(Offload::NONE, virtio_header::decode)
    }

    /// The bytes to write for a packet.
    fn piece<'a>(&self, packet: &'a mut Packet) -> &'a [u8] {
        match self.header_bytes {
            0 => packet.buffer.frame(),
            _ => packet.buffer.frame_with_header(&virtio_header::encode(&packet.offload)),
        }
    }

    /// Reads frames into as many of the buffers as there are frames. Returns why not all were filled; unused buffers
    /// return to the pool.
    fn receive_batch(
        &self,
        ring: &mut BatchRing,
        buffers: &mut Vec<FrameBuffer>,
        pool: &mut BufferPool,
        burst: &mut Vec<Packet>,
    ) -> Option<Errno> {
        let rooms = buffers.iter_mut().map(|buffer| buffer.room_with_header(self.header_bytes));
        let outcomes = ring.read(self.descriptor.as_fd(), rooms);
        let mut ended = None;
        for (mut buffer, outcome) in buffers.drain(..).zip(outcomes) {
            match outcome {
                Ok(read_bytes) => {
                    let offload = self.claim(&mut buffer, read_bytes);
                    burst.push(Packet::claiming(pool.exchange(buffer), offload));
                }
                Err(error) => {
                    pool.put(buffer);
                    ended = ended.or(Some(error));
                }
            }
        }
        ended
    }

    /// Reads frames one by one until there is none, and returns why.
    fn receive(&self, pool: &mut BufferPool, burst: &mut Vec<Packet>, packets_max: usize) -> Option<Errno> {
        let mut bytes = 0;
        for _ in 0..packets_max {
            // Without a large buffer, frames stay in the device.
            let mut buffer = pool.take_large()?;
            let offload = match self.read(&mut buffer) {
                Ok(offload) => offload,
                Err(error) => {
                    pool.put(buffer);
                    return Some(error);
                }
            };
            bytes += buffer.frame().len();
            burst.push(Packet::claiming(pool.exchange(buffer), offload));
            if bytes >= BURST_BYTES {
                break;
            }
        }
        None
    }
}

/// What moves many frames in one call.
#[derive(Debug)]
struct Batches {
    ring: BatchRing,
    batch_size: BatchSize,
    /// Only keeps its memory between bursts.
    buffers: Vec<FrameBuffer>,
}

impl Batches {
    fn new() -> io::Result<Self> {
        Ok(Self { ring: BatchRing::new()?, batch_size: BatchSize::new(), buffers: Vec::with_capacity(BURST_PACKETS) })
    }
}

/// What moves many frames in one call, where frames cross that way.
fn batches(io: TapIo) -> io::Result<Option<Batches>> {
    let explain = |error: io::Error| io::Error::new(error.kind(), format!("the kernel does not offer a ring: {error}"));
    match io {
        TapIo::Plain => Ok(None),
        TapIo::Uring => Batches::new().map(Some).map_err(explain),
    }
}

/// The verdict on a packet that was written; an error concerns the port itself.
fn write_verdict(written: rustix::io::Result<usize>) -> rustix::io::Result<Verdict> {
    match written {
        Ok(_) => Ok(Verdict::Deliver),
        Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::INTR) => Ok(Verdict::Drop(DropReason::PortFull)),
        // The device exists, and its user has set it down.
        Err(Errno::IO) => Ok(Verdict::Drop(DropReason::PortDown)),
        // The kernel examines frames. What it refuses is the sender's fault, not the port's.
        Err(Errno::INVAL) => Ok(Verdict::Drop(DropReason::PortRefused)),
        Err(error) => Err(error),
    }
}

impl Port for Tap {
    fn receive(&mut self, pool: &mut BufferPool, burst: &mut Vec<Packet>, packets_max: usize) -> io::Result<Received> {
        let device = &self.device;
        let ended = match &mut self.batches {
            None => device.receive(pool, burst, packets_max),
            Some(Batches { ring, batch_size, buffers }) => {
                batch_size.receive(burst, packets_max, |burst, wanted| match wanted {
                    // For a single frame a ring saves nothing, and a lone frame should not wait for it.
                    1 => device.receive(pool, burst, 1),
                    _ => {
                        buffers.extend((0..wanted).map_while(|_| pool.take_large()));
                        device.receive_batch(ring, buffers, pool, burst)
                    }
                })
            }
        };
        match ended {
            None | Some(Errno::INTR) => Ok(Received::MaybeMore),
            Some(Errno::AGAIN) => Ok(Received::Drained),
            Some(error) => Err(explain(&self.description, error.into())),
        }
    }

    fn send(&mut self, burst: &mut [Packet]) -> io::Result<()> {
        let mut failure = None;
        let mut set_verdict = |packet: &mut Packet, written| {
            packet.verdict = write_verdict(written).unwrap_or_else(|error| {
                failure = Some(error);
                Verdict::Drop(DropReason::PortDown)
            });
        };
        let descriptor = self.device.descriptor.as_fd();
        match &mut self.batches {
            Some(batches) if burst.len() > 1 => {
                for some in burst.chunks_mut(BURST_PACKETS) {
                    let pieces = some.iter_mut().map(|packet| self.device.piece(packet));
                    let written = batches.ring.write(descriptor, pieces);
                    some.iter_mut().zip(written).for_each(|(packet, written)| set_verdict(packet, written));
                }
            }
            _ => {
                for packet in burst {
                    let written = self.device.write(packet);
                    set_verdict(packet, written);
                }
            }
        }
        failure.map_or(Ok(()), |error| Err(explain(&self.description, error.into())))
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.device.descriptor.as_fd())
    }

    fn retire(&mut self) {
        if self.is_kept {
            // If that fails, the device is removed once it is closed.
            let _ = self.persist(false);
        }
    }
}
