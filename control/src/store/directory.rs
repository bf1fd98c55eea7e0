//! The data directory: it is used by one process at a time, and has a mark that a state was stored in it.

use super::StoreError;
use crate::os::private_dir;
use crate::os::small_file;
use crate::os::unix_socket::{PATIENCE_DEAD, PATIENCE_RUNNING, is_running};
use rustix::fs::{FlockOperation, OFlags, flock};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const LOCK_FILE: &str = "lock";

/// A directory that this process uses exclusively until the value is dropped.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    _lock: File,
}

impl DataDirectory {
    /// Locks the directory, making it if it does not exist.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process uses it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        private_dir::ensure(path, 0o700).map_err(|error| StoreError::io("use", path, error))?;
        let lock_path = path.join(LOCK_FILE);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            // A link in the place of the lock file would make this process lock and truncate another file.
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(&lock_path)
            .map_err(|error| StoreError::io("open", &lock_path, error))?;
        let asked = Instant::now();
        // Polled, since a lock that waits could not be given up after a while.
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => return Err(StoreError::io("lock", &lock_path, error)),
            }
            let holder = holder(&mut lock);
            // The kernel frees a dead process's lock only after its memory, so its number may still be there.
            let is_alive = holder.parse().is_ok_and(is_running);
            if asked.elapsed() > if is_alive { PATIENCE_RUNNING } else { PATIENCE_DEAD } {
                return Err(StoreError::InUse { path: path.into(), holder });
            }
            thread::sleep(Duration::from_millis(20));
        }
        // Writing the process number is a courtesy; the lock also holds if a full disk has no room for it.
        let _ = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
        Ok(Self { path: path.into(), _lock: lock })
    }

    /// A file of this directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes renames and new files in this directory durable.
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

    /// Writes a small file durably and atomically.
    pub(super) fn write(&self, name: &str, content: &str) -> Result<(), StoreError> {
        let path = self.file(name);
        small_file::write(&path, content.as_bytes()).map_err(|error| StoreError::io("write", path, error))
    }
}

fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    match lock.rewind().and_then(|()| lock.take(32).read_to_string(&mut text)) {
        Ok(_) if !text.trim().is_empty() => text.trim().into(),
        _ => "unknown".into(),
    }
}
