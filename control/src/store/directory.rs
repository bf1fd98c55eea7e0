//! The data directory: one process at a time, and a mark that says what was kept here.

use super::StoreError;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const LOCK_FILE: &str = "lock";

/// A directory that this process has to itself until the value is dropped.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    _lock: File,
}

impl DataDirectory {
    /// Takes the directory, making it if it does not exist.
    ///
    /// # Errors
    /// [`StoreError::InUse`] where another process has it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| StoreError::io("make", path, error))?;
        let lock_path = path.join(LOCK_FILE);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|error| StoreError::io("open", &lock_path, error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StoreError::InUse { path: path.into(), holder: holder(&mut lock) });
            }
            Err(error) => return Err(StoreError::io("lock", &lock_path, error)),
        }
        let told = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        told.map_err(|error| StoreError::io("write", &lock_path, error))?;
        Ok(Self { path: path.into(), _lock: lock })
    }

    /// A file of this directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes renames and new files of this directory durable.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let synced = File::open(&self.path).and_then(|directory| directory.sync_all());
        synced.map_err(|error| StoreError::io("sync", &self.path, error))
    }

    /// The content of a small file, if it exists.
    pub(super) fn read(&self, name: &str) -> Result<Option<String>, StoreError> {
        let path = self.file(name);
        match fs::read(&path) {
            Ok(content) => Ok(Some(String::from_utf8_lossy(&content).into_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("read", path, error)),
        }
    }

    /// Writes a small file durably.
    pub(super) fn write(&self, name: &str, content: &str) -> Result<(), StoreError> {
        let path = self.file(name);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| {
            file.write_all(content.as_bytes())?;
            file.sync_all()
        });
        written.map_err(|error| StoreError::io("write", path, error))?;
        self.sync()
    }
}

fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    match lock.take(32).read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => text.trim().into(),
        _ => "unknown".into(),
    }
}
