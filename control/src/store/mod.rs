//! Stores for the state. A store has one record per object, so it needs no history and no replay: each commit is one
//! durable transaction of the objects it changed.

mod directory;
mod embedded;
mod memory;
mod state_file;

pub use directory::DataDirectory;
pub use embedded::EmbeddedStore;
pub use memory::MemoryStore;
pub use state_file::OpenFile;

use crate::model::{Event, RecordError};
use std::io;
use std::path::PathBuf;

/// A store for the state.
pub trait Store: Send {
    /// Everything that is stored, as events that lead to it from nothing.
    ///
    /// # Errors
    /// The contents are not exactly what was stored.
    fn load(&mut self) -> Result<Vec<Event>, StoreError>;

    /// Stores a change, all or nothing. When it returns, the change survives a crash.
    ///
    /// # Errors
    /// Nothing was stored. Later changes are attempted again, so a temporary error passes.
    fn append(&mut self, events: &[Event]) -> Result<(), StoreError>;
}

/// Why a store cannot work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process uses the directory.
    #[error("data directory {path} is in use by process {holder}: stop that one first, or choose another directory")]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process that uses it, as far as known.
        holder: String,
    },
    /// The contents are not what was written.
    #[error(
        "the state in {path} is damaged: {reason}. Nothing was changed. Restore the file from a backup; or, to begin \
         anew without any VPC, move {path} away and delete the file `format` beside it"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file has another format.
    #[error(
        "the state in {path} has format {found}, and this version of Sluice reads format {expected}: start the version \
         that wrote it, or restore a backup of the older format"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// The format it names.
        found: String,
        /// The format that can be read.
        expected: u64,
    },
    /// An error of the operating system.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A change could not be stored.
    #[error("cannot store the change in {path}: {reason}")]
    Append {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
}

impl StoreError {
    fn damaged(path: impl Into<PathBuf>, reason: impl ToString) -> Self {
        Self::Damaged { path: path.into(), reason: reason.to_string() }
    }

    fn record(path: impl Into<PathBuf>, error: &RecordError) -> Self {
        Self::damaged(path, error)
    }

    fn io(what: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::Io { what, path: path.into(), source: source.into() }
    }
}
