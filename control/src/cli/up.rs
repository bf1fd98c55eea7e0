//! `sluice up`: both planes as processes of the same program, supervised. Either is restarted without the other.

use super::CliError;
use super::output::{self, line};
use super::paths::Paths;
use crate::api::ApiSettings;
use crate::client::Client;
use crate::config::ApiConfig;
use crate::query::{Answer, Nothing, Query};
use clap::{Args, ValueEnum};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use serde::Deserialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The exit status of a plane that will not start however often it is tried.
pub const EXIT_CANNOT_START: u8 = 2;

/// How to run Sluice: `sluice up --workers 2`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A file with these settings and quotas; options given here win.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    plane: VswitchArguments,
    #[command(flatten)]
    endpoint: EndpointArguments,
}

/// Where the HTTP interface is offered.
#[derive(Clone, Debug, Default, Args)]
pub struct EndpointArguments {
    /// Where official clients of the cloud reach this machine, as in `127.0.0.1:8773`; `none` for nowhere.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// A certificate chain (PEM) to speak TLS with.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
}

impl EndpointArguments {
    /// The HTTP interface that these options and a settings file ask for.
    ///
    /// # Errors
    /// An address that is none, or a certificate without its key.
    pub fn config(&self, file: &ConfigFile) -> Result<Option<ApiConfig>, CliError> {
        let listen = match self.listen.as_deref().or(file.listen.as_deref()) {
            Some("none") => return Ok(None),
            Some(text) => Some(text.parse().map_err(|_| {
                CliError::Usage(format!("{text:?} is no address to listen on: write one like 127.0.0.1:8773, or none"))
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

/// How to run the forwarding plane.
#[derive(Clone, Debug, Default, Args)]
pub struct VswitchArguments {
    /// Workers, each a thread on a core of its own.
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
    /// Sessions that each worker has room for.
    #[arg(long, value_name = "N")]
    pub sessions_per_worker: Option<usize>,
    /// Leave it to the kernel on which cores the workers run.
    #[arg(long)]
    pub no_pin: bool,
    /// When a worker with nothing to do sleeps: never, after a short spin, or at once [default: adaptive].
    #[arg(long, value_name = "WHEN")]
    pub busy_poll: Option<BusyPoll>,
    /// Let every frame cross TAP devices whole and by itself, without offloads of the kernel.
    #[arg(long)]
    pub plain_taps: bool,
    /// How frames cross TAP devices: what costs least here, many in one io_uring call, or one in each call [default:
    /// auto].
    #[arg(long, value_name = "HOW")]
    pub tap_io: Option<TapIo>,
    /// How frames cross interfaces that exist: by raw sockets, with offloads, or by XDP sockets where interface and kernel have
    /// them [default: packet].
    #[arg(long, value_name = "HOW")]
    pub interface_io: Option<InterfaceIo>,
    /// Hand every TCP segment on by itself, as it came, also to a port that takes many at once.
    #[arg(long)]
    pub no_coalescing: bool,
    /// Workers that receive for each TAP device; no more than there are workers [default: 1].
    #[arg(long, value_name = "N")]
    pub lanes: Option<usize>,
    /// Queues that each TAP device gets, so that `sluice workers set` can have as many lanes later [default: as many as
    /// lanes].
    #[arg(long, value_name = "N")]
    pub lanes_max: Option<usize>,
    /// End when the process that started this one ends.
    #[arg(long, hide = true)]
    pub with_parent: bool,
}

/// How frames cross TAP devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TapIo {
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
pub enum InterfaceIo {
    /// By raw sockets: long frames and undone checksums pass as they are.
    Packet,
    /// By XDP sockets, each frame by itself; by a raw one where that cannot be.
    Xdp,
}

/// Whether workers with nothing to do go on polling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum BusyPoll {
    /// They never sleep: for cores that are theirs alone.
    Always,
    /// They sleep after a short spin.
    Adaptive,
    /// They sleep at once.
    Never,
}

/// How to run the control plane.
#[derive(Debug, Args)]
pub struct ControlArguments {
    /// A file with quotas and the settings of the HTTP interface.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the HTTP interface is offered.
    #[command(flatten)]
    pub endpoint: EndpointArguments,
    /// End when the process that started this one ends.
    #[arg(long, hide = true)]
    pub with_parent: bool,
}

/// The settings file. Absent settings have their defaults.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConfigFile {
    /// Workers of the forwarding plane.
    pub workers: Option<usize>,
    /// Sessions that each worker has room for.
    pub sessions_per_worker: Option<usize>,
    /// Whether workers are pinned to cores.
    pub pin: Option<bool>,
    /// When workers with nothing to do sleep.
    pub busy_poll: Option<BusyPoll>,
    /// Whether frames cross TAP devices without offloads of the kernel.
    pub plain_taps: Option<bool>,
    /// How frames cross TAP devices.
    pub tap_io: Option<TapIo>,
    /// How frames cross interfaces that exist.
    pub interface_io: Option<InterfaceIo>,
    /// Whether TCP segments are put together for ports that take many at once.
    pub coalescing: Option<bool>,
    /// Workers that receive for each TAP device.
    pub lanes: Option<usize>,
    /// Queues that each TAP device gets.
    pub lanes_max: Option<usize>,
    /// How much of everything there may be.
    pub quotas: Option<crate::model::Quotas>,
    /// Where the HTTP interface is offered; `none` for nowhere.
    pub listen: Option<String>,
    /// A certificate chain for it.
    pub tls_certificate: Option<PathBuf>,
    /// The certificate's private key.
    pub tls_key: Option<PathBuf>,
    /// Keys, regions and the like of the HTTP interface.
    pub api: Option<ApiSettings>,
}

impl ConfigFile {
    /// Reads the file; the defaults where none is named.
    ///
    /// # Errors
    /// With the file, the line and the setting at fault.
    pub fn read(path: Option<&Path>) -> Result<Self, CliError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let fault = |error: String| CliError::Usage(format!("{}: {error}", path.display()));
        let text = fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
        toml::from_str(&text).map_err(|error| fault(error.to_string()))
    }
}

/// Asks the kernel to end this process with its parent.
pub fn follow_parent(with_parent: bool) {
    if with_parent {
        // Without it the supervisor still ends its children itself; this covers its own violent end.
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    }
}

/// Runs both planes until SIGTERM or SIGINT.
pub fn run(paths: &Paths, arguments: &Arguments) -> ExitCode {
    match supervise(paths, arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice: {error}");
            ExitCode::from(EXIT_CANNOT_START)
        }
    }
}

fn supervise(paths: &Paths, arguments: &Arguments) -> Result<(), CliError> {
    let config = ConfigFile::read(arguments.config.as_deref())?;
    let _lock = lock(&paths.run_dir)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| CliError::Usage(format!("cannot wait for signals: {error}")))?;
    }
    let mut planes = [
        Plane::new("forwarding plane", forwarding_arguments(paths, &arguments.plane, &config)),
        Plane::new("control plane", control_arguments(paths, arguments)),
    ];
    let result = watch(paths, &mut planes, &stop);
    // The control plane goes first, so that it does not miss the other.
    for plane in planes.iter_mut().rev() {
        plane.end();
    }
    result
}

fn watch(paths: &Paths, planes: &mut [Plane], stop: &AtomicBool) -> Result<(), CliError> {
    const STEP: Duration = Duration::from_millis(20);
    const READY_WITHIN: Duration = Duration::from_secs(30);
    let started = Instant::now();
    let mut told_ready = false;
    while !stop.load(Ordering::Relaxed) {
        for plane in planes.iter_mut() {
            plane.keep_running()?;
        }
        if !told_ready && is_ready(paths) {
            told_ready = true;
            line(&format!("sluice is up: control socket {}", paths.control_socket().display()));
        }
        if !told_ready && started.elapsed() > READY_WITHIN {
            return Err(CliError::Usage("the planes did not become ready within 30 s".into()));
        }
        thread::sleep(STEP);
    }
    Ok(())
}

/// Whether the control plane answers and the forwarding plane runs its state.
fn is_ready(paths: &Paths) -> bool {
    let socket = paths.control_socket();
    let asked = socket.exists().then(|| Client::connect(&socket).ok()?.ask(&Query::Status(Nothing {})).ok());
    matches!(asked.flatten(), Some(Answer::Status(status)) if status.link.in_sync)
}

/// Holds the folder of the sockets for this process.
fn lock(run_dir: &Path) -> Result<File, CliError> {
    let fault = |error: std::io::Error| CliError::Usage(format!("{}: {error}", run_dir.display()));
    fs::DirBuilder::new().recursive(true).mode(0o755).create(run_dir).map_err(fault)?;
    let path = run_dir.join("up.lock");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(&path, flags, Mode::from(0o644)).map_err(|error| fault(error.into()))?);
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut owner = String::new();
        let _ = file.read_to_string(&mut owner);
        return Err(CliError::Usage(format!(
            "Sluice runs already on {} (process {}): stop it, or choose other folders with --run-dir and --data-dir",
            run_dir.display(),
            owner.trim()
        )));
    }
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
    written.map_err(fault)?;
    Ok(file)
}

fn folders(paths: &Paths) -> [OsString; 4] {
    ["--run-dir".into(), paths.run_dir.clone().into(), "--data-dir".into(), paths.data_dir.clone().into()]
}

fn forwarding_arguments(paths: &Paths, given: &VswitchArguments, config: &ConfigFile) -> Vec<OsString> {
    let mut list: Vec<OsString> = vec!["vswitch".into(), "--with-parent".into()];
    let mut number = |name: &str, value: Option<usize>| {
        if let Some(value) = value {
            list.extend([name.into(), value.to_string().into()]);
        }
    };
    number("--workers", given.workers.or(config.workers));
    number("--sessions-per-worker", given.sessions_per_worker.or(config.sessions_per_worker));
    number("--lanes", given.lanes.or(config.lanes));
    number("--lanes-max", given.lanes_max.or(config.lanes_max));
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
    list.extend(folders(paths));
    list
}

fn control_arguments(paths: &Paths, given: &Arguments) -> Vec<OsString> {
    let mut list: Vec<OsString> = vec!["control".into(), "--with-parent".into()];
    list.extend(given.endpoint.arguments());
    if let Some(config) = given.config.as_deref() {
        list.extend(["--config".into(), config.into()]);
    }
    list.extend(folders(paths));
    list
}

/// One process, kept running.
struct Plane {
    name: &'static str,
    arguments: Vec<OsString>,
    child: Option<Child>,
    /// Not started again before then.
    not_before: Instant,
    pause: Duration,
}

impl Plane {
    const PAUSE_MIN: Duration = Duration::from_millis(50);
    const PAUSE_MAX: Duration = Duration::from_secs(5);
    /// A process that ran this long did start.
    const STEADY: Duration = Duration::from_secs(10);

    fn new(name: &'static str, arguments: Vec<OsString>) -> Self {
        Self { name, arguments, child: None, not_before: Instant::now(), pause: Self::PAUSE_MIN }
    }

    fn keep_running(&mut self) -> Result<(), CliError> {
        if let Some(child) = &mut self.child {
            let Ok(Some(status)) = child.try_wait() else { return Ok(()) };
            self.child = None;
            if status.code() == Some(i32::from(EXIT_CANNOT_START)) {
                return Err(CliError::Usage(format!("the {} cannot start, see above", self.name)));
            }
            if self.not_before.elapsed() > Self::STEADY {
                self.pause = Self::PAUSE_MIN;
            }
            let pause = output::duration(self.pause.as_nanos() as u64);
            eprintln!("sluice: the {} ended ({status}): starting it again in {pause}", self.name);
            self.not_before = Instant::now() + self.pause;
            self.pause = (self.pause * 2).min(Self::PAUSE_MAX);
        }
        if Instant::now() < self.not_before {
            return Ok(());
        }
        let program = std::env::current_exe();
        let child = program.and_then(|program| Command::new(program).args(&self.arguments).spawn());
        match child {
            Ok(child) => self.child = Some(child),
            Err(error) => return Err(CliError::Usage(format!("the {} cannot be started: {error}", self.name))),
        }
        Ok(())
    }

    /// Asks the process to end, and ends it if it does not.
    fn end(&mut self) {
        const GRACE: Duration = Duration::from_secs(10);
        let Some(mut child) = self.child.take() else { return };
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let asked = Instant::now();
        while asked.elapsed() < GRACE {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        eprintln!("sluice: the {} does not end: killing it", self.name);
        let _ = child.kill();
        let _ = child.wait();
    }
}
