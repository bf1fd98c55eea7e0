//! Small files that are written atomically.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Replaces the file with `content`, durably and with mode 0600: it is written beside the file, synced, and renamed. If
/// that fails, the file is unchanged.
///
/// # Errors
/// The operating system's error.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a valid file name"));
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let beside = folder.join(format!(".{name}.new"));
    let written = write_whole(&beside, content).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // It may occupy the space that is missing.
        let _ = fs::remove_file(&beside);
    }
    // The rename is durable only once the directory is.
    written.and_then(|()| File::open(folder)?.sync_all())
}

fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    // Whatever has the name is removed: a link there would otherwise lead the new content elsewhere.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // The umask may have taken more permissions than it should.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_whole_leaves_what_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write(&path, b"first").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        // A directory in the place of the new content makes writing it fail.
        fs::create_dir(folder.path().join(".key.new")).unwrap();
        assert!(write(&path, b"second").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        fs::remove_dir(folder.path().join(".key.new")).unwrap();
        // Incomplete content that a crash left is overwritten, and a link is not followed.
        std::os::unix::fs::symlink("/dev/full", folder.path().join(".key.new")).unwrap();
        write(&path, b"third").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
