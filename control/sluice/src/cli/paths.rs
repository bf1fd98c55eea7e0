//! The paths of a running Sluice.

use clap::Args;
use std::path::PathBuf;

/// The folders of sockets and state.
#[derive(Clone, Debug, Args)]
pub(crate) struct Paths {
    /// The folder of the sockets.
    #[arg(long, global = true, env = "SLUICE_RUN_DIR", default_value = "/run/sluice", value_name = "DIR")]
    pub(crate) run_dir: PathBuf,
    /// The folder of the state.
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

    /// Held by the services process for as long as it runs.
    pub(crate) fn services_lock(&self) -> PathBuf {
        self.run_dir.join("services.lock")
    }

    /// The supervisor's socket, where the control plane says what is to be masqueraded.
    pub(crate) fn supervisor_socket(&self) -> PathBuf {
        self.run_dir.join("supervisor.sock")
    }

    /// The record of what is masqueraded.
    pub(crate) fn masquerades(&self) -> PathBuf {
        self.run_dir.join("masquerades.json")
    }

    /// The supervisor's state file.
    pub(crate) fn supervisor_state(&self) -> PathBuf {
        self.run_dir.join("supervisor.json")
    }

    /// The file in which the plane started by `verb` says why it could not start.
    pub(crate) fn failure(&self, verb: &str) -> PathBuf {
        self.run_dir.join(format!("{verb}.failure"))
    }
}
