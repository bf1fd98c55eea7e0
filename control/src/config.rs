//! The configuration of a control plane.

use crate::ecs::ApiSettings;
use crate::model::Quotas;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

/// The configuration of one control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlConfig {
    /// The data directory, which is made if it does not exist. Only one process at a time can use it.
    pub data_dir: PathBuf,
    /// The path of the control socket.
    pub socket: PathBuf,
    /// The path of the forwarding plane's control socket.
    pub vswitch_socket: PathBuf,
    /// The path of the supervisor's socket, if there is a supervisor.
    pub supervisor_socket: Option<PathBuf>,
    /// The limits of each account.
    pub quotas: Quotas,
    /// The HTTP interface, if there is one.
    pub api: Option<ApiConfig>,
    /// Whether there has been a state before, so that its absence is damage and not a first start.
    pub has_state: bool,
    /// How long a change may wait for the forwarding plane before its reply says that it is pending.
    pub apply_timeout: Duration,
}

impl ControlConfig {
    /// The default of [`ControlConfig::apply_timeout`].
    pub const APPLY_TIMEOUT: Duration = Duration::from_secs(5);

    /// A control plane with these paths and the default quotas.
    pub fn new(data_dir: impl Into<PathBuf>, socket: impl Into<PathBuf>, vswitch_socket: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            socket: socket.into(),
            vswitch_socket: vswitch_socket.into(),
            supervisor_socket: None,
            quotas: Quotas::default(),
            api: None,
            has_state: false,
            apply_timeout: Self::APPLY_TIMEOUT,
        }
    }
}

/// The address and settings of the HTTP interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiConfig {
    /// The address. If there is none, the usual one, or any free port if that is taken.
    pub listen: Option<SocketAddr>,
    /// Certificate chain and private key, both PEM files, for TLS; if absent, a self-signed certificate is made.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Keys, regions and the like.
    pub settings: ApiSettings,
}

impl ApiConfig {
    /// The default address.
    pub const LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8773));
}
