//! What the control plane tells about ENIs: lines of JSON (`vswitch_core::config::services::record`).

use super::{connect_to, unless_waiting};
use crate::directory::GuestDirectory;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::{RecvFlags, SocketType, recv};
use std::io;
use std::path::Path;
use vswitch_core::config::services::record::{LINE_BYTES_MAX, RecordLine};

/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;

/// The connection to the control plane.
#[derive(Debug)]
pub struct RecordChannel {
    socket: OwnedFd,
    buffer: Vec<u8>,
    room: Box<[u8]>,
}

impl RecordChannel {
    /// Connects to the control plane.
    ///
    /// # Errors
    /// The kernel's: mostly that nobody listens yet.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = connect_to(path, SocketType::STREAM)?;
        Ok(Self { socket, buffer: Vec::new(), room: vec![0; READ_BYTES].into() })
    }

    /// Enters the lines that have arrived into a directory.
    ///
    /// # Errors
    /// The connection has ended, or sends what is no line of this version.
    pub fn read_into(&mut self, directory: &mut GuestDirectory) -> io::Result<()> {
        loop {
            let length = match recv(&self.socket, &mut *self.room, RecvFlags::empty()) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((length, _)) => length,
                Err(error) => return unless_waiting(error),
            };
            self.buffer.extend_from_slice(&self.room[..length]);
            let mut done = 0;
            while let Some(end) = self.buffer[done..].iter().position(|byte| *byte == b'\n') {
                directory.enter(serde_json::from_slice::<RecordLine>(&self.buffer[done..done + end])?);
                done += end + 1;
            }
            self.buffer.drain(..done);
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line about an ENI is too long"));
            }
        }
    }
}

impl AsFd for RecordChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
