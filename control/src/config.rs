//! How a control plane is set up.

use crate::ecs::ApiSettings;
use crate::model::Quotas;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
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
    /// The HTTP interface, if there is one.
    pub api: Option<ApiConfig>,
    /// Whether there was a state here already: its absence is damage then, and not a first start.
    pub has_state: bool,
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
            api: None,
            has_state: false,
            apply_timeout: Self::APPLY_TIMEOUT,
        }
    }
}

/// Where and how the HTTP interface is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiConfig {
    /// The address; where none was asked for, the usual one, or any free port if that is taken.
    pub listen: Option<SocketAddr>,
    /// Certificate chain and private key, both PEM files, for TLS; a certificate of its own making if absent.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Keys, regions and the like.
    pub settings: ApiSettings,
}

impl ApiConfig {
    /// The usual address.
    pub const LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8773));
}
