//! Where the state outlives the process. A store keeps one record per object, so it needs no history and no replay:
//! what is kept together is one durable transaction of the objects it changed.

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

/// A place for the state.
pub trait Store: Send {
    /// Everything that is kept, as events that lead there from nothing.
    ///
    /// # Errors
    /// Anything that is not exactly what was kept.
    fn load(&mut self) -> Result<Vec<Event>, StoreError>;

    /// Keeps what changed, all or nothing. On return it survives a crash.
    ///
    /// # Errors
    /// Where nothing was kept. What follows is tried again: an error that is over is forgotten.
    fn append(&mut self, events: &[Event]) -> Result<(), StoreError>;
}

/// What keeps a store from its work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the directory.
    #[error("data directory {path} is in use by process {holder}: stop that one first, or choose another directory")]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process that has it, as far as it says.
        holder: String,
    },
    /// The file is not what was written.
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
    /// The file is of another version.
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
    /// The operating system refused.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A change could not be kept.
    #[error("cannot keep the change in {path}: {reason}")]
    Append {
        /// The file.
        path: PathBuf,
        /// Why.
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
