//! Where a running Sluice is found.

use clap::Args;
use std::path::PathBuf;

/// Where sockets and state are.
#[derive(Clone, Debug, Args)]
pub(crate) struct Paths {
    /// Folder of the sockets.
    #[arg(long, global = true, env = "SLUICE_RUN_DIR", default_value = "/run/sluice", value_name = "DIR")]
    pub(crate) run_dir: PathBuf,
    /// Folder of the state.
    #[arg(long, global = true, env = "SLUICE_DATA_DIR", default_value = "/var/lib/sluice", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
}

impl Paths {
    /// The control plane's socket.
    pub(crate) fn control_socket(&self) -> PathBuf {
        self.run_dir.join("control.sock")
    }

    /// The forwarding plane's socket.
    pub(crate) fn vswitch_socket(&self) -> PathBuf {
        self.run_dir.join("vswitch.sock")
    }

    /// Held by `sluice up` for as long as it runs.
    pub(crate) fn supervisor_lock(&self) -> PathBuf {
        self.run_dir.join("up.lock")
    }

    /// What `sluice up` tells of the planes.
    pub(crate) fn supervisor_state(&self) -> PathBuf {
        self.run_dir.join("supervisor.json")
    }

    /// Why the plane that is started by `verb` could not start.
    pub(crate) fn failure(&self, verb: &str) -> PathBuf {
        self.run_dir.join(format!("{verb}.failure"))
    }
}
