//! Where a running Sluice is found.

use clap::Args;
use std::path::PathBuf;

/// Where sockets and state are.
#[derive(Clone, Debug, Args)]
pub struct Paths {
    /// Folder of the sockets.
    #[arg(long, global = true, env = "SLUICE_RUN_DIR", default_value = "/run/sluice", value_name = "DIR")]
    pub run_dir: PathBuf,
    /// Folder of the state.
    #[arg(long, global = true, env = "SLUICE_DATA_DIR", default_value = "/var/lib/sluice", value_name = "DIR")]
    pub data_dir: PathBuf,
}

impl Paths {
    /// The control plane's socket.
    pub fn control_socket(&self) -> PathBuf {
        self.run_dir.join("control.sock")
    }

    /// The forwarding plane's socket.
    pub fn vswitch_socket(&self) -> PathBuf {
        self.run_dir.join("vswitch.sock")
    }

    /// Held by `sluice up` for as long as it runs.
    pub(super) fn supervisor_lock(&self) -> PathBuf {
        self.run_dir.join("up.lock")
    }

    /// What `sluice up` tells of the planes.
    pub(super) fn supervisor_state(&self) -> PathBuf {
        self.run_dir.join("supervisor.json")
    }

    /// Why the plane that is started by `verb` could not start.
    pub fn failure(&self, verb: &str) -> PathBuf {
        self.run_dir.join(format!("{verb}.failure"))
    }
}
