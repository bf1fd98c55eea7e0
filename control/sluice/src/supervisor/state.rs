//! The supervisor's state in a small file, for `sluice status` and for the next supervisor.

use control::os::small_file;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

/// The longest such file, bytes.
const BYTES_MAX: u64 = 64 << 10;

/// Both planes and the services process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SupervisorState {
    /// The supervisor's process.
    pub(crate) process_id: u32,
    /// The forwarding plane.
    pub(crate) forwarding: PlaneState,
    /// The control plane.
    pub(crate) control: PlaneState,
    /// The services process. A supervisor of an older version had none.
    #[serde(default)]
    pub(crate) services: PlaneState,
}

/// A plane as a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlaneState {
    /// Its process, if it has one.
    pub(crate) process_id: Option<u32>,
    /// How often in a row it failed to start or ended soon.
    pub(crate) failures: u32,
    /// Why it ended last.
    pub(crate) reason: Option<String>,
}

impl SupervisorState {
    /// The state that a supervisor last wrote, if any.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let mut text = String::new();
        File::open(path).ok()?.take(BYTES_MAX).read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    pub(super) fn write(&self, path: &Path) {
        let text = serde_json::to_vec(self).unwrap_or_default();
        // If there is no room, `status` shows less, and nothing depends on it.
        let _ = small_file::write(path, &text);
    }

    pub(super) fn remove(path: &Path) {
        let _ = fs::remove_file(path);
    }
}
