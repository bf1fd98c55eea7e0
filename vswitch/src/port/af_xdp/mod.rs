//! An existing network interface of the machine, through an `AF_XDP` socket in copy mode, which every driver with XDP
//! supports: each frame whole and by itself, received without a system call. The rest of the kernel does not see what
//! the interface receives.

pub mod socket;

use crate::os::namespace;
use crate::port::af_packet::{describe, explain};
use crate::port::af_xdp::socket::{FRAME_BYTES_MAX, XdpSocket};
use crate::port::buffer_pool::BufferPool;
use crate::port::{Port, Received, Sent, drop_all};
use rustix::fd::AsFd;
use rustix::io::Errno;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;
use vswitch_core::config::desired;
use vswitch_core::config::limits::ETHERNET_HEADER_BYTES;
use vswitch_core::packet::Packet;
use vswitch_core::packet::offload::Offload;
use vswitch_core::packet::verdict::{DropReason, Verdict};

/// How many empty receives pass between two checks that the interface still exists, which an empty ring does not show.
const EMPTY_RECEIVES_PER_CHECK: u8 = 4;

/// An interface in use.
#[derive(Debug)]
pub struct AfXdpPort {
    socket: XdpSocket,
    empty_receives: u8,
    /// As of the last time something was sent.
    is_down: bool,
    /// For error messages.
    description: String,
}

impl AfXdpPort {
    /// Opens the interface in its namespace.
    ///
    /// # Errors
    /// What failed, with interface and namespace, including why a raw socket could not use it.
    pub fn open(port: &desired::PacketPort) -> io::Result<Self> {
        let description = describe(port);
        let work = || open_with_retries(&port.device);
        let opened = namespace::within_any(port.namespace.as_deref(), work);
        let socket = opened.map_err(|error| {
            let reason = match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::BUSY) => "another XDP program or socket already uses the interface",
                Some(Errno::OPNOTSUPP) => "its driver does not support XDP",
                Some(Errno::RANGE) => "its driver supports XDP only for smaller frames; lower the MTU of both ends",
                _ => return explain(&description, error),
            };
            io::Error::new(error.kind(), format!("{description}: {reason}"))
        })?;
        Ok(Self { socket, empty_receives: 0, is_down: false, description })
    }

    /// Checks whether the interface is up; fails if it is gone.
    fn look(&mut self) -> io::Result<()> {
        self.is_down = match self.socket.check() {
            Ok(()) => false,
            Err(Errno::NETDOWN) => true,
            Err(error) => return Err(explain(&self.description, error.into())),
        };
        Ok(())
    }
}

/// The kernel releases a socket a little after it is closed.
fn open_with_retries(device: &str) -> io::Result<XdpSocket> {
    const TIMES: u32 = 20;
    const PAUSE: Duration = Duration::from_millis(5);
    for _ in 1..TIMES {
        match XdpSocket::open(device) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(PAUSE),
            opened => return opened,
        }
    }
    XdpSocket::open(device)
}

impl Port for AfXdpPort {
    fn receive(&mut self, pool: &mut BufferPool, burst: &mut Vec<Packet>, packets_max: usize) -> io::Result<Received> {
        if !self.is_down && self.sent().held() > 0 {
            // The kernel may now accept what it did not accept before.
            self.flush()?;
        }
        let (mut count, mut received) = (0, Received::Drained);
        self.socket.receive(|frame| {
            let buffer = if count < packets_max { pool.take(frame.len()) } else { None };
            let Some(mut buffer) = buffer else {
                received = Received::MaybeMore;
                return false;
            };
            buffer.fill(frame);
            burst.push(Packet::claiming(buffer, Offload::undone_in(frame)));
            count += 1;
            true
        });
        if count == 0 && received == Received::Drained {
            self.empty_receives = (self.empty_receives + 1) % EMPTY_RECEIVES_PER_CHECK;
            if self.empty_receives == 0 {
                self.look()?;
            }
        }
        Ok(received)
    }

    fn send(&mut self, burst: &mut [Packet]) -> io::Result<()> {
        if self.is_down {
            self.look().inspect_err(|_| drop_all(burst, DropReason::PortDown))?;
            if self.is_down {
                drop_all(burst, DropReason::PortDown);
                return Ok(());
            }
        }
        for packet in &mut *burst {
            let frame = packet.buffer.frame();
            // A frame that is longer than a chunk can never be sent, however empty the ring is.
            packet.verdict = if !(ETHERNET_HEADER_BYTES..=FRAME_BYTES_MAX).contains(&frame.len()) {
                Verdict::Drop(DropReason::PortRefused)
            } else if self.socket.push(frame) {
                Verdict::Deliver
            } else {
                Verdict::Drop(DropReason::PortFull)
            };
        }
        self.flush().inspect_err(|_| drop_all(burst, DropReason::PortDown))
    }

    fn sent(&self) -> Sent {
        self.socket.sent()
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.socket.flush() {
            Ok(()) => Ok(()),
            // What is queued waits until the interface is up, or until rules change.
            Err(Errno::NETDOWN) => self.look(),
            Err(error) => Err(explain(&self.description, error.into())),
        }
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }
}
