//! A TAP device of the kernel: one frame per read and write.

use crate::namespace;
use crate::netlink::{self, Interface};
use crate::port::pool::BufferPool;
use crate::port::{Port, Received, Sent};
use crate::sys;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::io;
use std::os::fd::BorrowedFd;
use vswitch_core::desired::TapPort;
use vswitch_core::packet::Packet;

/// An open TAP device. It disappears when this is dropped, unless it existed before.
#[derive(Debug)]
pub struct Tap {
    device: OwnedFd,
    /// For the text of errors.
    place: String,
}

impl Tap {
    /// Creates the device, or adopts it if it exists, in its namespace; sets `interface` on it if one is given.
    ///
    /// # Errors
    /// What failed, naming device and namespace.
    pub fn open(tap: &TapPort, interface: Option<&Interface>) -> io::Result<Self> {
        let place = place(tap);
        let work = || {
            let device = sys::open_tap(&tap.device)?;
            if let Some(interface) = interface {
                netlink::configure(&tap.device, interface, None)?;
            }
            Ok(device)
        };
        let opened = match &tap.namespace {
            Some(name) if tap.create_namespace => namespace::ensure(name).and_then(|()| namespace::within(name, work)),
            Some(name) => namespace::within(name, work),
            None => work(),
        };
        match opened {
            Ok(device) => Ok(Self { device, place }),
            Err(error) => Err(explain(&place, error)),
        }
    }
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

impl Port for Tap {
    fn receive(&mut self, pool: &mut BufferPool, burst: &mut Vec<Packet>, packets_max: usize) -> io::Result<Received> {
        for _ in 0..packets_max {
            let Some(mut buffer) = pool.take() else { break };
            match rustix::io::read(&self.device, buffer.room()) {
                Ok(length) => {
                    buffer.set_length(length);
                    burst.push(Packet::new(buffer));
                }
                Err(error) => {
                    pool.put(buffer);
                    return match error {
                        Errno::AGAIN => Ok(Received::Drained),
                        Errno::INTR => Ok(Received::MaybeMore),
                        error => Err(explain(&self.place, error.into())),
                    };
                }
            }
        }
        Ok(Received::MaybeMore)
    }

    fn send(&mut self, burst: &[Packet]) -> io::Result<Sent> {
        for (number, packet) in burst.iter().enumerate() {
            match rustix::io::write(&self.device, packet.buffer.frame()) {
                Ok(_) => {}
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::INTR) => return Ok(Sent::Full(number)),
                // The device is there, and whoever uses it has set it down.
                Err(Errno::IO) => return Ok(Sent::LinkDown(number)),
                // What was sent stays sent: the failure is told by the next call.
                Err(_) if number > 0 => return Ok(Sent::LinkDown(number)),
                Err(error) => return Err(explain(&self.place, error.into())),
            }
        }
        Ok(Sent::All)
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.device.as_fd())
    }
}
