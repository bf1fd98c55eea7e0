//! How a control plane is set up.

use crate::model::Quotas;
use std::path::PathBuf;
use std::time::Duration;

/// The setting of one control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlConfig {
    /// Where the state is kept. Made if it does not exist; one process at a time.
    pub data_dir: PathBuf,
    /// Where the control socket is made.
    pub socket: PathBuf,
    /// Where the forwarding plane listens.
    pub vswitch_socket: PathBuf,
    /// How much of everything there may be.
    pub quotas: Quotas,
    /// How long a change may wait for the forwarding plane before its reply says that it is pending.
    pub apply_timeout: Duration,
}

impl ControlConfig {
    /// How long a change waits for the forwarding plane where nothing else is said.
    pub const APPLY_TIMEOUT: Duration = Duration::from_secs(5);

    /// A control plane on these paths, with the usual quotas.
    pub fn new(data_dir: impl Into<PathBuf>, socket: impl Into<PathBuf>, vswitch_socket: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            socket: socket.into(),
            vswitch_socket: vswitch_socket.into(),
            quotas: Quotas::default(),
            apply_timeout: Self::APPLY_TIMEOUT,
        }
    }
}
