//! Unix sockets that keep the boundaries of messages (`SOCK_SEQPACKET`), without waiting.

use rustix::fd::{AsRawFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_send_buffer_size, socket_peercred};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, recv,
    send, socket_with,
};
use rustix::process::geteuid;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A listening socket.
#[derive(Debug)]
pub struct SeqpacketListener(OwnedFd);

/// A connected socket.
#[derive(Debug)]
pub struct SeqpacketStream(OwnedFd);

impl SeqpacketListener {
    /// Listens at a path, in place of whoever listened there before. Anybody may connect: who it is decides whether the
    /// connection is accepted.
    ///
    /// # Errors
    /// The kernel's.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
        listen(&socket, 4)?;
        Ok(Self(socket))
    }

    /// The next connection of this user or of `other`; those of others are closed. None if there is none.
    ///
    /// # Errors
    /// The kernel's.
    pub fn accept(&self, other: u32) -> io::Result<Option<SeqpacketStream>> {
        loop {
            let socket = match accept_with(&self.0, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(error) => return Err(error.into()),
            };
            let user = socket_peercred(&socket)?.uid;
            if user == geteuid() || user.as_raw() == other {
                return Ok(Some(SeqpacketStream(socket)));
            }
            log::warn!("user {} may not connect to the socket of the services process", user.as_raw());
        }
    }
}

impl SeqpacketStream {
    /// Bounds what waits in the kernel.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_send_buffer_bytes(&self, bytes: usize) -> io::Result<()> {
        Ok(set_socket_send_buffer_size(&self.0, bytes)?)
    }

    /// Sends a message. Returns false if there is no room for it now.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn send(&self, message: &[u8]) -> io::Result<bool> {
        loop {
            match send(&self.0, message, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(true),
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives a message into `room`. None if none waits.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn receive<'a>(&self, room: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        loop {
            match recv(&self.0, &mut *room, RecvFlags::empty()) {
                // An empty message is the end.
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((length, _)) => return Ok(room.get(..length)),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsRawFd for SeqpacketListener {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsRawFd for SeqpacketStream {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
