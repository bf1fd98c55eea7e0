//! A real Sluice in real namespaces: both planes as processes, guests as namespaces that the switch makes.

use control::command::Command as Change;
use control::socket::client::{Client, ClientError};
use control::socket::protocol::{Changed, Forwarding};
use control::socket::query::{Answer, Nothing, Query, StatsFilter};
use control::socket::view::StatusView;
use rustix::process::{Pid, Signal, kill_process};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use vswitch::os::namespace;
use vswitch::os::run_dir::RunDir;
use vswitch_core::config::protocol::{Applied, EniStats};

/// A network namespace that a test makes for itself, besides those of its Sluice. It is removed with the value.
pub struct Namespace(pub String);

impl Namespace {
    /// Makes it.
    pub fn make(name: String) -> Self {
        namespace::ensure(&name, &RunDir::default()).expect("root can make a namespace");
        Self(name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = namespace::remove_if_made(&self.0, &RunDir::default());
    }
}

/// Why tests in namespaces cannot run here, said loudly; nothing if they can. Found out once for all tests of a process.
pub fn cannot_run() -> Option<String> {
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    let reason = REASON.get_or_init(|| {
        let probe = format!("sluice-probe-{}", std::process::id());
        let made = namespace::ensure(&probe, &RunDir::default())
            .and_then(|()| namespace::within(&probe, || std::fs::File::open("/dev/net/tun").map(drop)));
        let removed = namespace::remove_if_made(&probe, &RunDir::default());
        let error = made.and(removed).err()?;
        Some(format!("NOT RUN: network namespaces and /dev/net/tun are needed (root): {error}"))
    });
    reason.clone()
}

/// Whether tests in namespaces that need these programs can run here. Where they cannot, why is said loudly.
pub fn can_run(programs: &[&str]) -> bool {
    let is_missing = |program: &&&str| {
        let known = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().expect("a shell runs");
        !known.status.success()
    };
    let missing = || {
        let program = programs.iter().find(is_missing)?;
        Some(format!("NOT RUN: {program} is missing; scripts/prerequisites clients installs it"))
    };
    let reason = cannot_run().or_else(missing);
    if let Some(reason) = &reason {
        eprintln!("\n*** {reason}\n");
    }
    reason.is_none()
}

/// One running Sluice. Ends with its value, and takes its namespaces along.
pub struct RunningSluice {
    folder: tempfile::TempDir,
    process: Child,
    /// What it is started with.
    arguments: Vec<String>,
    prefix: String,
}

static STARTED: AtomicU32 = AtomicU32::new(0);

impl RunningSluice {
    /// Starts both planes and waits until they are ready.
    pub fn start(workers: usize) -> Self {
        Self::start_as(&["--listen", "none", "--workers", &workers.to_string()])
    }

    /// Starts both planes with these arguments of `sluice up`, and waits until they are ready.
    pub fn start_as(arguments: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("sluice-test-").tempdir().expect("a temporary folder");
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("slt{}-{number}", std::process::id());
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let process = spawn(folder.path(), &arguments);
        let mut running = Self { folder, process, arguments, prefix };
        running.wait_until_ready();
        running
    }

    /// Starts both planes and applies a lab file to them. Nothing, and why is said loudly, where such a lab, or one of
    /// these programs, cannot run here.
    pub fn start_lab(workers: usize, lab: &str, programs: &[&str]) -> Option<Self> {
        if !can_run(programs) {
            return None;
        }
        let running = Self::start(workers);
        running.apply(lab);
        Some(running)
    }

    /// The name of this Sluice's namespace for a guest.
    pub fn namespace(&self, guest: &str) -> String {
        format!("{}-{guest}", self.prefix)
    }

    /// Runs the `sluice` command against this Sluice.
    pub fn sluice(&self, arguments: &[&str]) -> Output {
        self.sluice_command().args(arguments).output().expect("the sluice command runs")
    }

    /// Runs the `sluice` command with the words of a line, which has to succeed, and returns what it said.
    pub fn sluice_line(&self, line: &str) -> String {
        said(line, &self.sluice(&line.split(' ').collect::<Vec<_>>()))
    }

    /// The `sluice` command against this Sluice, to be given its arguments.
    pub fn sluice_command(&self) -> Command {
        sluice_command(self.folder.path())
    }

    /// Applies a lab file in which `@` stands for the prefix of this Sluice's namespaces.
    pub fn apply(&self, lab: &str) -> String {
        let path = self.folder.path().join("lab.toml");
        std::fs::write(&path, lab.replace('@', &self.prefix)).expect("a lab file");
        let output = self.sluice(&["apply", "-f", &path.display().to_string()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A new connection to the control plane.
    pub fn client(&self) -> Client {
        Client::connect(&self.folder.path().join("run/control.sock")).expect("the control plane answers")
    }

    /// Makes a change that has to be in force when it returns.
    pub fn change(&self, change: &Change) -> (Changed, Applied) {
        let changed = self.client().change(change).unwrap_or_else(|error| panic!("{change:?}: {error}"));
        match changed.forwarding.clone() {
            Forwarding::Applied(applied) => (changed, applied),
            other => panic!("{change:?} is not in force: {other:?}"),
        }
    }

    /// The counters of an ENI.
    pub fn stats(&self, eni: &str) -> EniStats {
        match self.client().ask(&Query::Stats(StatsFilter { eni: Some(eni.into()) })) {
            Ok(Answer::Stats(mut stats)) if stats.len() == 1 => stats.remove(0),
            other => panic!("no counters of {eni}: {other:?}"),
        }
    }

    /// Runs a command inside a guest.
    pub fn inside(&self, guest: &str, command: &[&str]) -> Output {
        self.inside_command(guest, command).output().expect("the command runs")
    }

    /// Runs the words of a line inside a guest, where they have to succeed, and returns what they said.
    pub fn inside_line(&self, guest: &str, line: &str) -> String {
        said(line, &self.inside(guest, &line.split(' ').collect::<Vec<_>>()))
    }

    /// A command that will run inside a guest.
    pub fn inside_command(&self, guest: &str, command: &[&str]) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.namespace(guest)]).args(command);
        inside
    }

    /// Does something, such as opening a socket, inside a guest.
    pub fn within<T: Send>(&self, guest: &str, work: impl FnOnce() -> io::Result<T> + Send) -> T {
        namespace::within(&self.namespace(guest), work).expect("work inside a namespace")
    }

    /// What both planes say of themselves.
    pub fn status(&self) -> StatusView {
        match self.client().ask(&Query::Status(Nothing {})) {
            Ok(Answer::Status(status)) => *status,
            other => panic!("no status: {other:?}"),
        }
    }

    /// The process of the supervisor (`up`), of a plane (`vswitch`, `control`) or of the services.
    pub fn process(&self, verb: &str) -> Pid {
        if verb == "services" {
            let mut found = None;
            eventually("the services process has said its number", || {
                let told = std::fs::read_to_string(self.folder.path().join("run/services.lock")).unwrap_or_default();
                found = told.trim().parse().ok().and_then(Pid::from_raw);
                found.is_some()
            });
            return found.expect("found above");
        }
        let status = |status: StatusView| match verb {
            "control" => status.process_id,
            _ => status.forwarding.expect("the forwarding plane answers").process_id,
        };
        let id = if verb == "up" { self.process.id() } else { status(self.status()) };
        Pid::from_raw(i32::try_from(id).expect("a process number")).expect("a process number")
    }

    /// Sends a signal to one of the processes.
    pub fn signal(&self, verb: &str, signal: Signal) {
        kill_process(self.process(verb), signal).expect("the process can be signalled");
    }

    /// Kills one of the planes as a crash would.
    pub fn crash(&mut self, plane: &str) {
        self.signal(plane, Signal::KILL);
    }

    /// Ends all processes at once, without a chance to clean up, and starts again on the same state.
    pub fn restart_violently(&mut self) {
        let planes = ["control", "vswitch"].map(|plane| self.process(plane));
        let _ = self.process.kill();
        for plane in planes {
            kill_process(plane, Signal::KILL).expect("the plane can be killed");
        }
        self.start_again();
    }

    /// Starts `sluice up` again once it has ended, or is about to, and waits until the planes are ready.
    pub fn start_again(&mut self) {
        self.process.wait().expect("it ends");
        self.process = spawn(self.folder.path(), &self.arguments);
        self.wait_until_ready();
    }

    /// Has the next start be with other arguments.
    pub fn set_arguments(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(ToString::to_string).collect();
    }

    /// Waits until the forwarding plane runs the control plane's state.
    pub fn wait_until_ready(&mut self) {
        let socket = self.folder.path().join("run/control.sock");
        eventually("Sluice is ready", || {
            if let Ok(Some(status)) = self.process.try_wait() {
                panic!("sluice up ended: {status}");
            }
            // What answers may be planes that the next supervisor is about to take over.
            let told = std::fs::read(self.folder.path().join("run/supervisor.json")).unwrap_or_default();
            let told: serde_json::Value = serde_json::from_slice(&told).unwrap_or_default();
            if told["process_id"].as_u64() != Some(self.process.id().into()) {
                return false;
            }
            let asked = Client::connect(&socket).and_then(|mut client| client.ask(&Query::Status(Nothing {})));
            matches!(asked, Ok(Answer::Status(status)) if status.link.in_sync && status.forwarding.is_some())
        });
    }

    /// Its folder: sockets in `run`, state in `data`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where its state is.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The refusal of a change.
    pub fn refusal(&self, change: &Change) -> String {
        match self.client().change(change) {
            Err(ClientError::Refused(error)) => error.to_string(),
            other => panic!("{change:?} is not refused: {other:?}"),
        }
    }
}

impl Drop for RunningSluice {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_secs(15) && matches!(self.process.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        // Also planes that a supervisor left, and what was made for guests.
        let _ = self.sluice(&["down"]);
    }
}

/// Whether both planes that run on a folder answer, and the rules are in force.
pub fn is_well(folder: &Path) -> bool {
    status_of(folder).is_some()
}

/// What both planes that run on a folder say of themselves, if both answer and the rules are in force.
pub fn status_of(folder: &Path) -> Option<StatusView> {
    let mut client = Client::connect(&folder.join("run/control.sock")).ok()?;
    match client.ask(&Query::Status(Nothing {})).ok()? {
        Answer::Status(status) if status.link.in_sync && status.forwarding.is_some() => Some(*status),
        _ => None,
    }
}

/// An address that nobody else is likely to listen at: a loopback address of this process alone, with the first port of
/// these that is free. They should be none that the kernel gives to whoever asks for any.
pub fn own_address(mut ports: Range<u16>) -> SocketAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let at = |port| SocketAddr::from(([127, 1, high, low], port));
    ports.find_map(|port| TcpListener::bind(at(port)).ok().map(|_| at(port))).expect("one of them is free")
}

/// The `sluice` program of this build.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let folder = test.parent().and_then(Path::parent).expect("target/PROFILE/deps");
    let program = folder.join("sluice");
    assert!(program.exists(), "{} is missing: run `cargo build` first", program.display());
    program
}

/// The `sluice` command on folders of its own.
pub fn sluice_command(folder: &Path) -> Command {
    let mut command = Command::new(program());
    command.env("SLUICE_RUN_DIR", folder.join("run")).env("SLUICE_DATA_DIR", folder.join("data"));
    command
}

/// What a command line said that has to have succeeded.
fn said(line: &str, output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
    said
}

fn spawn(folder: &Path, arguments: &[String]) -> Child {
    let mut command = sluice_command(folder);
    command.args(["up", "--no-pin", "--sessions-per-worker", "65536"]).args(arguments);
    command.stdout(Stdio::null()).spawn().expect("sluice up starts")
}

/// How long to wait for what has to come, on a machine that does many other things.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for something that has to come true soon.
pub fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_true() {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
