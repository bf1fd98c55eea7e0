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
}
