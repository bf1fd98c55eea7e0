//! Reserves the folder of the sockets for one `sluice up` at a time.

use crate::cli::CliError;
use control::os::private_dir;
use control::os::unix_socket::{PATIENCE_DEAD, PATIENCE_RUNNING, is_running};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Locks the folder for this process, or another part of what runs on it, making it if it does not exist.
pub(crate) fn take(run_dir: &Path, path: &Path) -> Result<File, CliError> {
    let fault = |error: std::io::Error| CliError::Usage(format!("{}: {error}", run_dir.display()));
    private_dir::ensure(run_dir, 0o755).map_err(fault)?;
    // The file is not truncated yet: it holds the number of the present holder.
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::from(0o644)).map_err(|error| fault(error.into()))?);
    let asked = Instant::now();
    // The kernel's lock ends with its holder, however that ends; a file that merely exists would stay behind.
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let owner = owner(&mut file);
        let patience = if owner.is_some_and(is_running) { PATIENCE_RUNNING } else { PATIENCE_DEAD };
        if asked.elapsed() > patience {
            return Err(CliError::Usage(format!(
                "Sluice is already running on {} (process {}): stop it, or choose other folders with --run-dir and --data-dir",
                run_dir.display(),
                owner.map_or_else(|| "unknown".into(), |owner| owner.to_string())
            )));
        }
        thread::sleep(Duration::from_millis(20));
    }
    // Writing the process number is a courtesy; the lock also holds if a full disk has no room for it.
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
    Ok(file)
}

/// Writes the number of this process again into the file that it locks: when that happened last shows that it runs.
pub(crate) fn renew(mut lock: &File) {
    // What is written is what is there already, also if a full disk keeps it from being written.
    let _ = lock.rewind().and_then(|()| write!(lock, "{}", std::process::id()));
}

/// Who holds the folder of the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockHolder {
    /// Nobody.
    None,
    /// A `sluice up`, or whoever else locks the file, with its process if that is known.
    Up(Option<u32>),
}

impl LockHolder {
    /// The holder's process.
    pub(crate) fn process_id(self) -> Option<u32> {
        match self {
            Self::None => None,
            Self::Up(process) => process,
        }
    }
}

/// Who holds the folder now.
pub(crate) fn holder(path: &Path) -> LockHolder {
    let Ok(mut file) = File::open(path) else { return LockHolder::None };
    // A shared lock, so that two processes that ask do not take each other for the holder.
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => LockHolder::None,
        Err(_) => LockHolder::Up(owner(&mut file)),
    }
}

fn owner(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
