//! The options of `sluice up` and of each plane, and the settings file.

use super::CliError;
use super::paths::Paths;
use clap::{Args, ValueEnum};
use control::config::ApiConfig;
use control::ecs::ApiSettings;
use serde::Deserialize;
use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use vswitch_core::config::ids::quoted;
use vswitch_core::config::services::DNS_PORT;

/// Name servers that the services process asks, in turn.
const RESOLVERS_MAX: usize = 4;

/// Options for running Sluice: `sluice up --workers 2`.
#[derive(Debug, Args)]
pub(crate) struct UpArguments {
    /// A file with these settings and quotas; options on the command line take precedence.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) plane: VswitchArguments,
    #[command(flatten)]
    endpoint: EndpointArguments,
    #[command(flatten)]
    resolvers: ResolverArguments,
}

/// The options of the HTTP interface.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct EndpointArguments {
    /// The address for official clients of the cloud, as in `127.0.0.1:8773`; `none` to turn the interface off.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    /// A certificate chain (PEM) for TLS.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub(crate) tls_key: Option<PathBuf>,
}

impl EndpointArguments {
    /// The HTTP interface that these options and a settings file configure.
    ///
    /// # Errors
    /// An invalid address, or a certificate without its key.
    pub(crate) fn config(&self, file: &ConfigFile) -> Result<Option<ApiConfig>, CliError> {
        let listen = match self.listen.as_deref().or(file.listen.as_deref()) {
            Some("none") => return Ok(None),
            Some(text) => Some(text.parse().map_err(|_| {
                CliError::Usage(format!(
                    "{text} is not an address to listen on: write one like 127.0.0.1:8773, or none",
                    text = quoted(text)
                ))
            })?),
            None => None,
        };
        let certificate = self.tls_certificate.clone().or_else(|| file.tls_certificate.clone());
        let tls = match (certificate, self.tls_key.clone().or_else(|| file.tls_key.clone())) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            _ => return Err(CliError::Usage("TLS needs both a certificate and its key".into())),
        };
        Ok(Some(ApiConfig { listen, tls, settings: file.api.clone().unwrap_or_default() }))
    }

    fn arguments(&self) -> Vec<OsString> {
        // Only what the command line says: the control plane reads the file itself, which can be changed before a
        // restart.
        let mut list: Vec<OsString> = Vec::new();
        if let Some(listen) = &self.listen {
            list.extend(["--listen".into(), listen.into()]);
        }
        for (name, path) in [("--tls-certificate", &self.tls_certificate), ("--tls-key", &self.tls_key)] {
            if let Some(path) = path {
                list.extend([name.into(), path.into()]);
            }
        }
        list
    }
}

/// The options of the forwarding plane.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct VswitchArguments {
    /// Workers, each a thread on a core of its own.
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<usize>,
    /// Sessions that each worker has room for.
    #[arg(long, value_name = "N")]
    pub(crate) sessions_per_worker: Option<usize>,
    /// Let the kernel choose the cores of the workers.
    #[arg(long)]
    pub(crate) no_pin: bool,
    /// When an idle worker sleeps: never, after a short spin, or at once [default: adaptive].
    #[arg(long, value_name = "WHEN")]
    pub(crate) busy_poll: Option<BusyPollOption>,
    /// Pass every frame through TAP devices whole and by itself, without offloads of the kernel.
    #[arg(long)]
    pub(crate) plain_taps: bool,
    /// How frames cross TAP devices: whichever is cheaper here, many per io_uring call, or one per call [default:
    /// auto].
    #[arg(long, value_name = "HOW")]
    pub(crate) tap_io: Option<TapIoOption>,
    /// How frames cross existing interfaces: through raw sockets, with offloads, or through XDP sockets if interface
    /// and kernel support them [default: packet].
    #[arg(long, value_name = "HOW")]
    pub(crate) interface_io: Option<InterfaceIoOption>,
    /// Pass on every TCP segment by itself, as it came, even to a port that takes many at once.
    #[arg(long)]
    pub(crate) no_coalescing: bool,
    /// Workers that receive for each TAP device; at most as many as there are workers [default: 1].
    #[arg(long, alias = "lanes", value_name = "N")]
    pub(crate) rx_queues: Option<usize>,
    /// Queues of each TAP device, so that `sluice workers set` can have as many rx queues later [default: as many as rx
    /// queues].
    #[arg(long, alias = "lanes-max", value_name = "N")]
    pub(crate) rx_queues_max: Option<usize>,
    /// How it was started.
    #[command(flatten)]
    pub(crate) parent: ParentArguments,
}

/// How frames cross TAP devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TapIoOption {
    /// As a short measurement at the start finds cheaper on this machine.
    Auto,
    /// Many in one call, by `io_uring`.
    Uring,
    /// One in each call.
    Plain,
}

/// How frames cross interfaces that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum InterfaceIoOption {
    /// By raw sockets: long frames and undone checksums pass as they are.
    Packet,
    /// By XDP sockets, each frame by itself; by a raw one where that cannot be.
    Xdp,
}

/// Whether workers with nothing to do go on polling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BusyPollOption {
    /// They never sleep: for cores that are theirs alone.
    Always,
    /// They sleep after a short spin.
    Adaptive,
    /// They sleep at once.
    Never,
}

/// How to run the control plane.
#[derive(Debug, Args)]
pub(crate) struct ControlArguments {
    /// A file with quotas and the settings of the HTTP interface.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where the HTTP interface is offered.
    #[command(flatten)]
    pub(crate) endpoint: EndpointArguments,
    /// There was a state before: without one, do not begin anew.
    #[arg(long, hide = true)]
    pub(crate) has_state: bool,
    /// How it was started.
    #[command(flatten)]
    pub(crate) parent: ParentArguments,
}

/// How to run the services process.
#[derive(Debug, Args)]
pub(crate) struct ServicesArguments {
    #[command(flatten)]
    resolvers: ResolverArguments,
    /// How it was started.
    #[command(flatten)]
    pub(crate) parent: ParentArguments,
}

/// Who is asked about names outside of a VPC.
#[derive(Clone, Debug, Default, Args)]
struct ResolverArguments {
    /// A name server that is asked about names outside of a VPC that has a way out, as in `192.0.2.53`; may be repeated
    /// [default: those of /etc/resolv.conf].
    #[arg(long = "resolver", value_name = "ADDRESS")]
    list: Vec<IpAddr>,
}

impl ServicesArguments {
    /// Those that the options name, else those of the machine.
    pub(crate) fn resolvers(&self) -> Vec<SocketAddr> {
        let named = self.resolvers.list.clone();
        let list = if named.is_empty() { resolvers_of_machine() } else { named };
        list.into_iter().map(|address| SocketAddr::new(address, DNS_PORT)).collect()
    }
}

/// The name servers of the machine; none where it has none that can be asked by an address.
fn resolvers_of_machine() -> Vec<IpAddr> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers.filter_map(|server| server.trim().parse().ok()).take(RESOLVERS_MAX).collect()
}

/// Who started a plane, and how it lives with that process.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ParentArguments {
    /// End when the process that started this one ends.
    #[arg(long, hide = true)]
    pub(crate) with_parent: bool,
    /// Started by `sluice up`: leave word in the folder of the sockets why it cannot start, and outlive the supervisor.
    #[arg(long, hide = true)]
    pub(crate) supervised: bool,
}

/// The settings file. Absent settings have their defaults.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ConfigFile {
    /// Workers of the forwarding plane.
    pub(crate) workers: Option<usize>,
    /// Sessions that each worker has room for.
    pub(crate) sessions_per_worker: Option<usize>,
    /// Whether workers are pinned to cores.
    pub(crate) pin: Option<bool>,
    /// When workers with nothing to do sleep.
    pub(crate) busy_poll: Option<BusyPollOption>,
    /// Whether frames cross TAP devices without offloads of the kernel.
    pub(crate) plain_taps: Option<bool>,
    /// How frames cross TAP devices.
    pub(crate) tap_io: Option<TapIoOption>,
    /// How frames cross interfaces that exist.
    pub(crate) interface_io: Option<InterfaceIoOption>,
    /// Whether TCP segments are put together for ports that take many at once.
    pub(crate) coalescing: Option<bool>,
    /// Workers that receive for each TAP device.
    #[serde(alias = "lanes")]
    pub(crate) rx_queues: Option<usize>,
    /// Queues that each TAP device gets.
    #[serde(alias = "lanes_max")]
    pub(crate) rx_queues_max: Option<usize>,
    /// How much of everything there may be.
    pub(crate) quotas: Option<control::model::Quotas>,
    /// Name servers that are asked about names outside of a VPC.
    pub(crate) resolvers: Option<Vec<IpAddr>>,
    /// Where the HTTP interface is offered; `none` for nowhere.
    pub(crate) listen: Option<String>,
    /// A certificate chain for it.
    pub(crate) tls_certificate: Option<PathBuf>,
    /// The certificate's private key.
    pub(crate) tls_key: Option<PathBuf>,
    /// Keys, regions and the like of the HTTP interface.
    pub(crate) api: Option<ApiSettings>,
}

impl ConfigFile {
    /// Reads the file; the defaults where none is named.
    ///
    /// # Errors
    /// With the file, the line and the setting at fault.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self, CliError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let fault = |error: String| CliError::Usage(format!("{}: {error}", path.display()));
        let text = fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
        toml::from_str(&text).map_err(|error| fault(error.to_string()))
    }
}

impl ParentArguments {
    /// Has the kernel end this process with its parent, where that is asked for.
    pub(crate) fn follow(&self) {
        if self.with_parent {
            // A parent that ends in order ends this one itself; this covers its violent end.
            let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
        }
    }
}

/// What every plane is started with under a supervisor.
pub(crate) fn plane_arguments(paths: &Paths, verb: &str) -> Vec<OsString> {
    let (run_dir, data_dir) = (absolute(&paths.run_dir), absolute(&paths.data_dir));
    vec![verb.into(), "--supervised".into(), "--run-dir".into(), run_dir, "--data-dir".into(), data_dir]
}

/// The same place wherever a process stands. The next supervisor knows its planes by it.
fn absolute(path: &Path) -> OsString {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).into()
}

pub(crate) fn forwarding_arguments(paths: &Paths, given: &VswitchArguments, config: &ConfigFile) -> Vec<OsString> {
    // The forwarding plane reads no file, so what the file says becomes options; they also show whether it may be
    // kept.
    let mut list = plane_arguments(paths, "vswitch");
    let mut number = |name: &str, value: Option<usize>| {
        if let Some(value) = value {
            list.extend([name.into(), value.to_string().into()]);
        }
    };
    number("--workers", given.workers.or(config.workers));
    number("--sessions-per-worker", given.sessions_per_worker.or(config.sessions_per_worker));
    number("--rx-queues", given.rx_queues.or(config.rx_queues));
    number("--rx-queues-max", given.rx_queues_max.or(config.rx_queues_max));
    if given.no_pin || config.pin == Some(false) {
        list.push("--no-pin".into());
    }
    if let Some(when) = given.busy_poll.or(config.busy_poll).and_then(|when| when.to_possible_value()) {
        list.extend(["--busy-poll".into(), when.get_name().into()]);
    }
    if given.plain_taps || config.plain_taps == Some(true) {
        list.push("--plain-taps".into());
    }
    if let Some(how) = given.interface_io.or(config.interface_io).and_then(|how| how.to_possible_value()) {
        list.extend(["--interface-io".into(), how.get_name().into()]);
    }
    if given.no_coalescing || config.coalescing == Some(false) {
        list.push("--no-coalescing".into());
    }
    if let Some(how) = given.tap_io.or(config.tap_io).and_then(|how| how.to_possible_value()) {
        list.extend(["--tap-io".into(), how.get_name().into()]);
    }
    list
}

pub(crate) fn services_arguments(paths: &Paths, given: &UpArguments, config: &ConfigFile) -> Vec<OsString> {
    let mut list = plane_arguments(paths, "services");
    let given = &given.resolvers.list;
    let resolvers = if given.is_empty() { config.resolvers.as_deref().unwrap_or_default() } else { given };
    for resolver in resolvers {
        list.extend(["--resolver".into(), resolver.to_string().into()]);
    }
    list
}

pub(crate) fn control_arguments(paths: &Paths, given: &UpArguments) -> Vec<OsString> {
    let mut list = plane_arguments(paths, "control");
    list.extend(given.endpoint.arguments());
    if let Some(config) = given.config.as_deref() {
        list.extend(["--config".into(), absolute(config)]);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn old_names_of_rx_queues_are_taken() {
        let config: ConfigFile = toml::from_str("lanes = 2\nlanes_max = 4").expect("the old names are known");
        assert_eq!((config.rx_queues, config.rx_queues_max), (Some(2), Some(4)));
        let config: ConfigFile = toml::from_str("rx_queues = 2\nrx_queues_max = 4").expect("so are the new ones");
        assert_eq!((config.rx_queues, config.rx_queues_max), (Some(2), Some(4)));
        for line in ["sluice vswitch --lanes 2 --lanes-max 4", "sluice vswitch --rx-queues 2 --rx-queues-max 4"] {
            let arguments = crate::cli::CliArguments::try_parse_from(line.split(' ')).expect("the command is taken");
            let crate::cli::CliCommand::Vswitch(vswitch) = arguments.command else { panic!("another command") };
            assert_eq!((vswitch.plane.rx_queues, vswitch.plane.rx_queues_max), (Some(2), Some(4)), "{line}");
        }
    }
}
