//! The file access of `redb`.

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Opens the file at a path. Tests inject faults here.
pub type OpenFile = Box<dyn Fn(&Path) -> io::Result<Box<dyn StorageBackend>> + Send>;

/// Opens a file for this user alone.
pub(super) fn open_file(path: &Path) -> io::Result<Box<dyn StorageBackend>> {
    backend(OpenOptions::new().read(true).write(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(path)?)
}

/// Makes a file for this user alone.
pub(super) fn create_file(path: &Path) -> io::Result<Box<dyn StorageBackend>> {
    backend(OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?)
}

fn backend(file: File) -> io::Result<Box<dyn StorageBackend>> {
    const PRIVATE: u32 = 0o600;
    if file.metadata()?.permissions().mode() & 0o777 != PRIVATE {
        file.set_permissions(Permissions::from_mode(PRIVATE))?;
    }
    Ok(Box::new(FileBackend::new(file).map_err(io::Error::other)?))
}

/// Rewrites a file with its present contents and syncs it. After a failed sync the system treats pages as written that
/// are not, and no later sync writes them unless they are written again.
pub(super) fn rewrite(file: &dyn StorageBackend) -> io::Result<()> {
    const PIECE_BYTES: u64 = 1 << 20;
    let (mut piece, mut offset, end) = (Vec::new(), 0, file.len()?);
    while offset < end {
        piece.resize((end - offset).min(PIECE_BYTES) as usize, 0);
        file.read(offset, &mut piece)?;
        file.write(offset, &piece)?;
        offset += piece.len() as u64;
    }
    file.sync_data()
}

/// Any kind of file, for `redb`.
#[derive(Debug)]
pub(super) struct StateFile(pub(super) Box<dyn StorageBackend>);

type Locked<T> = Result<T, BackendError>;

impl StorageBackend for StateFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
        self.0.query_lock_range(start, end)
    }
}
