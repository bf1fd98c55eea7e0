//! Connects to a Unix socket in bounded time: one whose owner hangs eventually accepts no more connections, and an
//! ordinary `connect` would wait as long as it hangs.

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect as connect_socket, socket_with};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Connects within `patience`.
///
/// # Errors
/// `TimedOut` if the owner does not accept the connection in time; otherwise the kernel's error.
pub fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    const STEP: Duration = Duration::from_millis(5);
    let deadline = Instant::now() + patience;
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    loop {
        match connect_socket(&socket, &address) {
            Ok(()) => break,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if Instant::now() < deadline => thread::sleep(STEP),
            Err(Errno::AGAIN) => return Err(io::Error::new(io::ErrorKind::TimedOut, "it accepts no connections")),
            Err(error) => return Err(error.into()),
        }
    }
    let stream = UnixStream::from(socket);
    // Non-blocking was for connecting only; its users set timeouts instead.
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// How long a start waits for a socket or lock of a running process, which may be about to exit.
pub const PATIENCE_RUNNING: Duration = Duration::from_secs(2);
/// How long it waits for those of a dead process, which the kernel is still cleaning up.
pub const PATIENCE_DEAD: Duration = Duration::from_secs(20);

/// Whether the process exists and is not about to disappear: a killed process has no memory, and so no command line,
/// before the kernel closes its files.
pub fn is_running(process: u32) -> bool {
    std::fs::read(format!("/proc/{process}/cmdline")).is_ok_and(|line| !line.is_empty())
}

/// Waits until nobody listens at the socket any more, for as long as it takes a killed process to disappear. Returns
/// whether somebody still does.
pub fn is_in_use(path: &Path) -> bool {
    const STEP: Duration = Duration::from_millis(20);
    const CONNECT_TIME: Duration = Duration::from_millis(200);
    let asked = Instant::now();
    loop {
        let listener = match connect(path, CONNECT_TIME) {
            Ok(stream) => rustix::net::sockopt::socket_peercred(&stream).map(|peer| peer.pid),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(Errno::TIMEDOUT),
            // Nobody listens: the file is left over from a process that ended.
            Err(_) => return false,
        };
        let is_alive = listener.is_ok_and(|pid| is_running(pid.as_raw_nonzero().get().unsigned_abs()));
        if asked.elapsed() > if is_alive { PATIENCE_RUNNING } else { PATIENCE_DEAD } {
            return true;
        }
        thread::sleep(STEP);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod tests {
    use super::*;
    use rustix::net::{bind, listen};

    #[test]
    fn an_owner_that_hangs_costs_bounded_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let owner = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        bind(&owner, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&owner, 1).unwrap();
        let patience = Duration::from_millis(50);
        let tried: Vec<_> = (0..4).map(|_| connect(&path, patience)).collect();
        assert!(tried[0].is_ok());
        assert_eq!(tried[3].as_ref().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(connect(&folder.path().join("none"), patience).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
