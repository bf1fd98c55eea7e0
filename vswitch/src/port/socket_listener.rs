//! Unix sockets that programs such as a hypervisor connect to.

use rustix::fs::{AtFlags, CWD, Uid};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Where users and their numbers are listed.
const USERS_FILE: &str = "/etc/passwd";

/// A listening socket, whose file goes with it.
#[derive(Debug)]
pub struct SocketListener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket file, so that another's file of the same name is left alone.
    identity: (u64, u64),
}

impl SocketListener {
    /// Listens at `path`, not blocking, with mode 0600, for `user` (a name or a number) or else the own user. A socket
    /// file that nobody listens at is replaced.
    ///
    /// # Errors
    /// Somebody listens there already, something else than a socket is there, the user is unknown, or what the kernel
    /// says.
    pub fn bind(path: &Path, user: Option<&str>) -> io::Result<Self> {
        let owner = user.map(user_number).transpose()?;
        // Not followed: a link to somebody else's socket is no socket of ours.
        match fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(io::Error::new(ErrorKind::AlreadyExists, "the file exists and is not a socket"));
            }
            Ok(_) if UnixStream::connect(path).is_ok() => {
                return Err(io::Error::new(ErrorKind::AddrInUse, "another process listens there already"));
            }
            Ok(_) => fs::remove_file(path)?,
            Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        let identity = identity(path)?;
        let bound = Self { listener, path: path.to_owned(), identity };
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        if let Some(owner) = owner {
            rustix::fs::chownat(CWD, path, Some(Uid::from_raw(owner)), None, AtFlags::SYMLINK_NOFOLLOW).map_err(
                |error| {
                    let error = io::Error::from(error);
                    io::Error::new(
                        error.kind(),
                        format!("giving the socket to user {owner}: {error}; this needs CAP_CHOWN"),
                    )
                },
            )?;
        }
        bound.listener.set_nonblocking(true)?;
        Ok(bound)
    }

    /// The listening socket.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for SocketListener {
    fn drop(&mut self) {
        // Another process may have replaced the file meanwhile; its socket is not ours to remove.
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // A file that stays is replaced by whoever listens there next.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Connects to a socket without waiting for a server whose queue is full: a worker has other ports to serve.
///
/// # Errors
/// What the kernel says.
pub(crate) fn connect_now(path: &Path) -> io::Result<UnixStream> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The number of a user who is given by name or number.
fn user_number(user: &str) -> io::Result<u32> {
    if let Ok(number) = user.parse() {
        return Ok(number);
    }
    let users = fs::read_to_string(USERS_FILE)?;
    let number = |line: &str| {
        let mut fields = line.split(':');
        let is_theirs = fields.next() == Some(user);
        fields.nth(1).filter(|_| is_theirs)?.parse().ok()
    };
    users.lines().find_map(number).ok_or_else(|| {
        io::Error::new(ErrorKind::NotFound, format!("there is no user '{user}' in {USERS_FILE}; give the number"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_file_is_replaced_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("port.sock");
        drop(UnixListener::bind(&path).unwrap());
        let first = SocketListener::bind(&path, None).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(SocketListener::bind(&path, None).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(first);
        assert!(!path.exists());
        fs::write(&path, "mine").unwrap();
        assert_eq!(SocketListener::bind(&path, None).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn a_socket_of_the_same_name_that_came_later_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("port.sock");
        let first = SocketListener::bind(&path, None).unwrap();
        fs::remove_file(&path).unwrap();
        let _second = UnixListener::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
    }

    #[test]
    fn users_are_known_by_name_and_number() {
        assert_eq!(user_number("root").unwrap(), 0);
        assert_eq!(user_number("4242").unwrap(), 4242);
        assert_eq!(user_number("nobody at all").unwrap_err().kind(), ErrorKind::NotFound);
    }
}
