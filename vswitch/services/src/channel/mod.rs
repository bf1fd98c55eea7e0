//! The connections to the forwarding plane and to the control plane.

pub mod frames;
pub mod records;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::io;
use std::path::Path;

/// Connects to a Unix socket of this kind, without waiting then or later.
fn connect_to(path: &Path, kind: SocketType) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, kind, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// The error of a call, or `None` if it only had to wait.
fn unless_waiting(error: Errno) -> io::Result<()> {
    match error {
        Errno::AGAIN | Errno::INTR => Ok(()),
        error => Err(error.into()),
    }
}
