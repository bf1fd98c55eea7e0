//! Guests' packets: each is one message of a `SOCK_SEQPACKET` socket (`vswitch_core::config::services::frame`).

use super::{connect_to, unless_waiting};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::{RecvFlags, SendFlags, SocketType, recv, send};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use vswitch_core::config::services::frame::{ServiceFrame, TAKEN};

/// Messages that wait for room in the socket. TCP sends again what is dropped beyond, and clients ask again for names.
const WAITING_MAX: usize = 256;

/// The connection to the forwarding plane.
#[derive(Debug)]
pub struct FrameChannel {
    socket: OwnedFd,
    waiting: VecDeque<Vec<u8>>,
}

impl FrameChannel {
    /// Connects to the forwarding plane.
    ///
    /// # Errors
    /// The kernel's: mostly that nobody listens yet.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = connect_to(path, SocketType::SEQPACKET)?;
        Ok(Self { socket, waiting: VecDeque::new() })
    }

    /// Receives a message with a packet of a guest into `room`, which has room for the longest. `None` if none waits.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn receive<'a>(&self, room: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match recv(&self.socket, &mut *room, RecvFlags::empty()) {
            Ok((0, _)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((length, _)) => Ok(room.get(..length)),
            Err(error) => unless_waiting(error).map(|()| None),
        }
    }

    /// Sends a packet to a guest, now or once there is room.
    pub fn send(&mut self, frame: &ServiceFrame<'_>) {
        let mut message = Vec::with_capacity(frame.packet.len() + 32);
        if self.waiting.len() < WAITING_MAX && frame.write(&mut message).is_some() {
            self.waiting.push_back(message);
        }
    }

    /// Says that packets were taken, if nothing else says so.
    pub fn acknowledge(&mut self) {
        if self.waiting.is_empty() {
            self.waiting.push_back(TAKEN.to_vec());
        }
    }

    /// Sends what waits, while there is room.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some(message) = self.waiting.front() {
            if let Err(error) = send(&self.socket, message, SendFlags::NOSIGNAL) {
                return unless_waiting(error);
            }
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// Whether messages wait for room.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl AsFd for FrameChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
