//! Directories that nobody else may change: whoever can write to where the sockets and the state are can impersonate
//! either plane.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// Write permission of group and others.
const OTHERS_WRITE: u32 = 0o022;

/// Makes the directory with this mode, whatever the umask, or checks the existing one.
///
/// # Errors
/// `PermissionDenied` if somebody else owns it or may write to it, with what to do; otherwise the operating system's
/// error.
pub fn ensure(path: &Path, mode: u32) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(_) => check(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(mode).create(path)?;
            fs::set_permissions(path, Permissions::from_mode(mode))
        }
        Err(error) => Err(error),
    }
}

/// Checks a directory.
///
/// # Errors
/// As in [`ensure`].
pub fn check(path: &Path) -> io::Result<()> {
    // Both the link and what it leads to: whoever owns the link can redirect it.
    let link = fs::symlink_metadata(path)?;
    check_owner(&link)?;
    let directory = fs::metadata(path)?;
    check_owner(&directory)?;
    if !directory.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a directory"));
    }
    match directory.mode() & OTHERS_WRITE {
        0 => Ok(()),
        _ => Err(denied(format!("others may write to it (mode {:o}): `chmod go-w` it", directory.mode() & 0o7777))),
    }
}

fn check_owner(metadata: &Metadata) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    match metadata.uid() {
        // Root may own it: root can change everything anyway.
        uid if uid == own || uid == 0 => Ok(()),
        uid => Err(denied(format!("it belongs to user {uid}: `chown` it to user {own}, or choose another directory"))),
    }
}

fn denied(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_others_may_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        ensure(&path, 0o700).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        for (mode, is_good) in [(0o755, true), (0o775, false), (0o1777, false), (0o702, false), (0o500, true)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(ensure(&path, 0o700).is_ok(), is_good, "{mode:o}");
        }
        let linked = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &linked).unwrap();
        ensure(&linked, 0o700).unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(ensure(&file, 0o700).is_err());
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
            for path in [&path, &linked] {
                assert_eq!(ensure(path, 0o700).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            }
        }
    }
}
