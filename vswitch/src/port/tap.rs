//! A TAP device of the kernel: one frame per read and write, but a frame may be 64 KiB long.
//!
//! Where the kernel offers it, a virtio header goes before each frame, and the guest leaves checksums and cutting to
//! whoever needs them: nobody, if the receiver takes them undone too.

use crate::namespace;
use crate::netlink::{self, Interface};
use crate::port::pool::BufferPool;
use crate::port::virtio::{self, HEADER_BYTES};
use crate::port::{Port, Received, Sent};
use crate::sys::{self, tap_offloads};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::io;
use std::os::fd::BorrowedFd;
use vswitch_core::desired::TapPort;
use vswitch_core::limits::BURST_BYTES;
use vswitch_core::offload::{Offload, Offloads};
use vswitch_core::packet::{FrameBuffer, Packet};

/// An open TAP device. It disappears when this is dropped, unless it existed before.
#[derive(Debug)]
pub struct Tap {
    device: OwnedFd,
    /// What it takes undone, and its guest leaves so; none without the header.
    offloads: Option<Offloads>,
    /// For the text of errors.
    place: String,
}

impl Tap {
    /// Creates the device, or adopts it if it exists, in its namespace; sets `interface` on it if one is given.
    ///
    /// # Errors
    /// What failed, naming device and namespace.
    pub fn open(tap: &TapPort, interface: Option<&Interface>) -> io::Result<Self> {
        Self::open_with(tap, interface, Offloads::ALL)
    }

    /// As [`Tap::open`], with only those of `wanted` left undone that the kernel knows.
    ///
    /// # Errors
    /// What failed, naming device and namespace.
    pub fn open_with(tap: &TapPort, interface: Option<&Interface>, wanted: Offloads) -> io::Result<Self> {
        let place = place(tap);
        let work = || {
            let opened = open_device(&tap.device, wanted)?;
            if let Some(interface) = interface {
                netlink::configure(&tap.device, interface, None)?;
            }
            Ok(opened)
        };
        let opened = match &tap.namespace {
            Some(name) if tap.create_namespace => namespace::ensure(name).and_then(|()| namespace::within(name, work)),
            Some(name) => namespace::within(name, work),
            None => work(),
        };
        match opened {
            Ok((device, offloads)) => Ok(Self { device, offloads, place }),
            Err(error) => Err(explain(&place, error)),
        }
    }
}

/// Opens the device with as much of `wanted` as the kernel knows: without UDP before Linux 6.2, without any if it has no
/// header for it.
fn open_device(name: &str, wanted: Offloads) -> io::Result<(OwnedFd, Option<Offloads>)> {
    let plain = || {
        let device = sys::open_tap(name, false)?;
        // Whoever held the device before may have let its guest leave things undone.
        sys::set_tap_offloads(&device, 0)?;
        Ok((device, None))
    };
    if wanted == Offloads::NONE {
        return plain();
    }
    let device = match sys::open_tap(name, true) {
        // Also what a name of another kind of device gives; then the second try says so again.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => return plain(),
        opened => opened?,
    };
    sys::set_tap_header_bytes(&device, HEADER_BYTES as i32)?;
    let tcp = Offloads::TCP_V4.with(Offloads::TCP_V6);
    for offered in [Offloads::ALL, Offloads::CHECKSUM.with(tcp), Offloads::CHECKSUM, Offloads::NONE] {
        let flags_of = |offload, flags| if offered.contains(offload) && wanted.contains(offload) { flags } else { 0 };
        let flags = flags_of(Offloads::CHECKSUM, tap_offloads::CHECKSUM)
            | flags_of(tcp, tap_offloads::TCP)
            | flags_of(Offloads::UDP, tap_offloads::UDP);
        if sys::set_tap_offloads(&device, flags).is_ok() {
            return Ok((device, Some(Offloads::from_bits(offered.bits() & wanted.bits()))));
        }
    }
    plain()
}

/// Sets another interface on the device of a running port.
///
/// # Errors
/// What failed, naming device and namespace.
pub fn adjust(tap: &TapPort, wanted: &Interface, previous: Option<&Interface>) -> io::Result<()> {
    let work = || netlink::configure(&tap.device, wanted, previous);
    let adjusted = match &tap.namespace {
        Some(name) => namespace::within(name, work),
        None => work(),
    };
    adjusted.map_err(|error| explain(&place(tap), error))
}

fn place(tap: &TapPort) -> String {
    match &tap.namespace {
        Some(name) => format!("TAP device {} in network namespace {name}", tap.device),
        None => format!("TAP device {}", tap.device),
    }
}

fn explain(place: &str, error: io::Error) -> io::Error {
    let text = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::BADFD) => "the device was removed".to_owned(),
        Some(Errno::BUSY) => "another process holds the device".to_owned(),
        Some(Errno::PERM | Errno::ACCESS) => format!("{error}; this needs the capability CAP_NET_ADMIN"),
        Some(Errno::INVAL) => {
            format!("{error}; a device of the name exists and is no TAP device, or is of other options")
        }
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("{place}: {text}"))
}

impl Tap {
    fn header_bytes(&self) -> usize {
        if self.offloads.is_some() { HEADER_BYTES } else { 0 }
    }

    /// Reads one frame.
    fn read(&self, buffer: &mut FrameBuffer) -> rustix::io::Result<Offload> {
        let length = rustix::io::read(&self.device, buffer.room_with_header(self.header_bytes()))?;
        Ok(self.take(buffer, length))
    }

    /// Declares what was read, and what its header claims.
    fn take(&self, buffer: &mut FrameBuffer, read_bytes: usize) -> Offload {
        buffer.set_length(read_bytes.saturating_sub(self.header_bytes()));
        match self.offloads {
            Some(_) => buffer.room_with_header(HEADER_BYTES).first_chunk().map_or(Offload::NONE, virtio::decode),
            None => Offload::NONE,
        }
    }

    /// Writes one frame.
    fn write(&self, packet: &mut Packet) -> rustix::io::Result<usize> {
        match self.offloads {
            Some(_) => {
                let header = virtio::encode(&packet.offload);
                rustix::io::write(&self.device, packet.buffer.frame_with_header(&header))
            }
            None => rustix::io::write(&self.device, packet.buffer.frame()),
        }
    }
}

impl Port for Tap {
    fn receive(&mut self, pool: &mut BufferPool, burst: &mut Vec<Packet>, packets_max: usize) -> io::Result<Received> {
        let mut bytes = 0;
        for _ in 0..packets_max {
            let Some(mut buffer) = pool.take_large() else { break };
            let offload = match self.read(&mut buffer) {
                Ok(offload) => offload,
                Err(error) => {
                    pool.put(buffer);
                    return match error {
                        Errno::AGAIN => Ok(Received::Drained),
                        Errno::INTR => Ok(Received::MaybeMore),
                        error => Err(explain(&self.place, error.into())),
                    };
                }
            };
            bytes += buffer.frame().len();
            burst.push(Packet::claiming(pool.exchange(buffer), offload));
            if bytes >= BURST_BYTES {
                break;
            }
        }
        Ok(Received::MaybeMore)
    }

    fn send(&mut self, burst: &mut [Packet]) -> io::Result<Sent> {
        for (number, packet) in burst.iter_mut().enumerate() {
            match self.write(packet) {
                Ok(_) => {}
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::INTR) => return Ok(Sent::Full(number)),
                // The device is there, and whoever uses it has set it down.
                Err(Errno::IO) => return Ok(Sent::LinkDown(number)),
                // The kernel looks into frames. What it refuses is the sender's fault, not the port's.
                Err(Errno::INVAL) => return Ok(Sent::Refused(number)),
                // What was sent stays sent: the failure is told by the next call.
                Err(_) if number > 0 => return Ok(Sent::LinkDown(number)),
                Err(error) => return Err(explain(&self.place, error.into())),
            }
        }
        Ok(Sent::All)
    }

    fn offloads(&self) -> Offloads {
        self.offloads.unwrap_or_default()
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.device.as_fd())
    }
}
