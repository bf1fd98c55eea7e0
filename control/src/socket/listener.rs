//! The control socket as a file, and the check of who may use it.

use crate::os::unix_socket;
use mio::net::{UnixListener, UnixStream};
use rustix::process::Uid;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A listening socket whose file is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Listens at `path`. A socket that a dead process left behind is replaced; anything else is not.
    pub(crate) fn listen(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            fs::create_dir_all(directory)?;
        }
        match fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is not a socket"));
            }
            Ok(_) if unix_socket::is_in_use(path) => {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
            }
            Ok(_) => fs::remove_file(path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        // Until the mode is set, others may connect; the check of the peer rejects them.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.into() })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // It is no error if the socket is already gone.
        let _ = fs::remove_file(&self.path);
    }
}

/// The user at the other end, if it is root or the user this process runs as.
pub(crate) fn trusted_user(stream: &UnixStream) -> Option<Uid> {
    let peer = rustix::net::sockopt::socket_peercred(stream).ok()?;
    (peer.uid.is_root() || peer.uid == rustix::process::geteuid()).then_some(peer.uid)
}
