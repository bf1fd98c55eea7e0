//! A real Sluice in real namespaces: both planes as processes, guests as namespaces that the switch makes.

use control::client::{Client, ClientError};
use control::command::Command as Change;
use control::query::{Answer, Nothing, Query, StatsFilter};
use control::wire::{Changed, Forwarding};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use vswitch_core::protocol::{Applied, EniStats};

/// Why tests in namespaces cannot run here, said loudly; nothing if they can. Found out once for all tests of a process.
pub fn cannot_run() -> Option<String> {
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    let reason = REASON.get_or_init(|| {
        let probe = format!("sluice-probe-{}", std::process::id());
        let made = vswitch::namespace::ensure(&probe)
            .and_then(|()| vswitch::namespace::within(&probe, || std::fs::File::open("/dev/net/tun").map(drop)));
        let removed = vswitch::namespace::remove_if_made(&probe);
        let error = made.and(removed).err()?;
        Some(format!("NOT RUN: network namespaces and /dev/net/tun are needed (root): {error}"))
    });
    reason.clone()
}

/// One running Sluice. Ends with its value, and takes its namespaces along.
pub struct Running {
    folder: tempfile::TempDir,
    process: Child,
    workers: usize,
    prefix: String,
}

static STARTED: AtomicU32 = AtomicU32::new(0);

impl Running {
    /// Starts both planes and waits until they are ready.
    pub fn start(workers: usize) -> Self {
        let folder = tempfile::Builder::new().prefix("sluice-test-").tempdir().expect("a temporary folder");
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("slt{}-{number}", std::process::id());
        let process = spawn(folder.path(), workers);
        let mut running = Self { folder, process, workers, prefix };
        running.wait_until_ready();
        running
    }

    /// The name of this Sluice's namespace for a guest.
    pub fn namespace(&self, guest: &str) -> String {
        format!("{}-{guest}", self.prefix)
    }

    /// Runs the `sluice` command against this Sluice.
    pub fn sluice(&self, arguments: &[&str]) -> Output {
        let mut command = sluice_command(self.folder.path());
        command.args(arguments).output().expect("the sluice command runs")
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

    /// A command that will run inside a guest.
    pub fn inside_command(&self, guest: &str, command: &[&str]) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.namespace(guest)]).args(command);
        inside
    }

    /// Does something, such as opening a socket, inside a guest.
    pub fn within<T: Send>(&self, guest: &str, work: impl FnOnce() -> io::Result<T> + Send) -> T {
        vswitch::namespace::within(&self.namespace(guest), work).expect("work inside a namespace")
    }

    /// Kills one of the planes as a crash would.
    pub fn crash(&mut self, plane: &str) {
        let parent = self.process.id().to_string();
        let status = Command::new("pkill").args(["-KILL", "-P", &parent, "-f", &format!("sluice {plane}")]).status();
        assert!(status.expect("pkill runs").success(), "there is no process of the {plane} plane");
    }

    /// Ends all processes at once, without a chance to clean up, and starts again on the same state.
    pub fn restart_violently(&mut self) {
        let parent = self.process.id().to_string();
        let _ = Command::new("pkill").args(["-KILL", "-P", &parent]).status();
        let _ = self.process.kill();
        let _ = self.process.wait();
        std::thread::sleep(Duration::from_millis(200));
        self.process = spawn(self.folder.path(), self.workers);
        self.wait_until_ready();
    }

    /// Waits until the forwarding plane runs the control plane's state.
    pub fn wait_until_ready(&mut self) {
        let socket = self.folder.path().join("run/control.sock");
        eventually("Sluice is ready", || {
            if let Ok(Some(status)) = self.process.try_wait() {
                panic!("sluice up ended: {status}");
            }
            let asked = Client::connect(&socket).and_then(|mut client| client.ask(&Query::Status(Nothing {})));
            matches!(asked, Ok(Answer::Status(status)) if status.link.in_sync && status.forwarding.is_some())
        });
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

impl Drop for Running {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_secs(15) && matches!(self.process.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
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

fn spawn(folder: &Path, workers: usize) -> Child {
    let mut command = sluice_command(folder);
    command.args([
        "up",
        "--listen",
        "none",
        "--no-pin",
        "--workers",
        &workers.to_string(),
        "--sessions-per-worker",
        "65536",
    ]);
    command.stdout(Stdio::null()).spawn().expect("sluice up starts")
}

/// Waits for something that has to come true soon.
pub fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    const PATIENCE: Duration = Duration::from_secs(30);
    let started = Instant::now();
    while !is_true() {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
