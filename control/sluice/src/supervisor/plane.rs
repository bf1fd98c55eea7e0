//! Keeps one plane, or the services process, running.

use super::EXIT_CANNOT_START;
use super::process::{Ended, PlaneProcess, Program};
use super::state::PlaneState;
use crate::cli::output;
use crate::cli::paths::Paths;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// The longest reason that a plane leaves, bytes.
const REASON_BYTES_MAX: u64 = 2048;

/// The result of checking a plane.
pub(super) enum PlaneStep {
    /// It runs, or will be retried later.
    Kept,
    /// It reports that it cannot start. If it is checked again, it is retried nevertheless.
    CannotStart(String),
}

/// A plane's process, which is kept running.
pub(super) struct Plane {
    verb: &'static str,
    arguments: Vec<OsString>,
    /// Where the process says why it cannot start.
    failure: PathBuf,
    process: Option<PlaneProcess>,
    started: Instant,
    /// The earliest time of the next start.
    not_before: Instant,
    pause: Duration,
    failures: u32,
    reason: Option<String>,
    life_sign: Option<LifeSign>,
}

/// A file that a process writes again and again while it runs.
struct LifeSign {
    path: PathBuf,
    written: Option<SystemTime>,
    looked: Instant,
    /// How often in a row it looked as before.
    unchanged: u32,
}

impl LifeSign {
    /// How often it is looked at.
    const STEP: Duration = Duration::from_secs(1);
    /// How often it may look as before until the process counts as hung. Looks are counted, and no time, since this process
    /// may be the one that was stopped.
    const UNCHANGED_MAX: u32 = 10;

    fn is_missing(&mut self) -> bool {
        if self.looked.elapsed() < Self::STEP {
            return false;
        }
        self.looked = Instant::now();
        let written = fs::metadata(&self.path).and_then(|file| file.modified()).ok();
        let is_unchanged = written.is_some() && written == self.written;
        self.written = written;
        self.unchanged = if is_unchanged { self.unchanged + 1 } else { 0 };
        self.unchanged >= Self::UNCHANGED_MAX
    }
}

impl Plane {
    const PAUSE_MIN: Duration = Duration::from_millis(50);
    const PAUSE_MAX: Duration = Duration::from_secs(5);
    /// A process that has run this long counts as started.
    const STEADY: Duration = Duration::from_secs(10);
    /// How long a process may take to end after it is asked to.
    const GRACE: Duration = Duration::from_secs(10);

    pub(super) fn new(paths: &Paths, verb: &'static str, arguments: Vec<OsString>) -> Self {
        let now = Instant::now();
        let (pause, failure) = (Self::PAUSE_MIN, paths.failure(verb));
        let (process, reason, life_sign) = (None, None, None);
        Self { verb, arguments, failure, process, started: now, not_before: now, pause, failures: 0, reason, life_sign }
    }

    /// Ends the process from now on whenever it has not written this file for long, so that another takes its place.
    pub(super) fn watch_life_sign(&mut self, path: PathBuf) {
        self.life_sign = Some(LifeSign { path, written: None, looked: Instant::now(), unchanged: 0 });
    }

    /// Adds an argument for all later starts, unless it is there already.
    pub(super) fn add_argument(&mut self, argument: &str) {
        if !self.arguments.iter().any(|given| given == argument) {
            self.arguments.push(argument.into());
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self.verb {
            "vswitch" => "forwarding plane",
            "control" => "control plane",
            _ => "services process",
        }
    }

    /// Whether Sluice is of no use without it.
    pub(super) fn is_essential(&self) -> bool {
        self.verb != "services"
    }

    /// Looks for a process of this plane that an earlier supervisor left. It is kept if it `may_stay` and is what would
    /// be started now; otherwise it is ended, so that none runs twice. Returns whether it is kept.
    pub(super) fn take_over(&mut self, socket: Option<&Path>, known: Option<u32>, may_stay: bool) -> bool {
        let Some(left) = PlaneProcess::left(socket, known, &self.arguments) else { return false };
        let process = left.id();
        if may_stay && left.is_started_as(&self.arguments) {
            log::info!("the {} of an earlier `sluice up` still runs (process {process}): keeping it", self.name());
            self.process = Some(left);
            return true;
        }
        log::info!("the {} of an earlier `sluice up` still runs (process {process}): restarting it", self.name());
        self.process = Some(left);
        self.end();
        false
    }

    /// Starts the process if it does not run and is due.
    pub(super) fn keep_running(&mut self) -> PlaneStep {
        let mut step = PlaneStep::Kept;
        if self.life_sign.as_mut().is_some_and(LifeSign::is_missing)
            && let Some(process) = self.process.take()
        {
            process.kill();
            self.postpone("did not react and was killed", "it did not react any more".into());
        }
        if let Some(process) = &mut self.process {
            let Some(ended) = process.ended() else {
                // Failures are forgotten after a while only, so that the pauses of a plane that starts and soon ends
                // grow.
                if self.failures > 0 && self.started.elapsed() > Self::STEADY {
                    (self.failures, self.reason, self.pause) = (0, None, Self::PAUSE_MIN);
                }
                return step;
            };
            self.process = None;
            let reason = self.left_reason().unwrap_or_else(|| ended.to_string());
            if ended == Ended::Exited(i32::from(EXIT_CANNOT_START)) {
                step = PlaneStep::CannotStart(reason.clone());
            }
            if self.started.elapsed() > Self::STEADY {
                self.pause = Self::PAUSE_MIN;
            }
            self.postpone(&format!("ended ({ended})"), reason);
        }
        if Instant::now() >= self.not_before {
            self.start();
        }
        step
    }

    fn start(&mut self) {
        // A reason that an earlier process left is not why this one ends.
        let _ = fs::remove_file(&self.failure);
        self.started = Instant::now();
        self.life_sign.iter_mut().for_each(|sign| sign.unchanged = 0);
        match Program::own().and_then(|program| program.start(&self.arguments)) {
            Ok(process) => self.process = Some(process),
            // Whatever the system refuses now, it may grant later.
            Err(error) => self.postpone(&format!("cannot be started ({error})"), format!("cannot be started: {error}")),
        }
    }

    fn postpone(&mut self, what: &str, reason: String) {
        let pause = output::duration(self.pause.as_nanos() as u64);
        log::error!("the {} {what}: starting it again in {pause}", self.name());
        self.not_before = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(Self::PAUSE_MAX);
        self.failures += 1;
        self.reason = Some(reason);
    }

    fn left_reason(&self) -> Option<String> {
        let mut bytes = Vec::new();
        File::open(&self.failure).ok()?.take(REASON_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        // The reason becomes part of one line, whatever line breaks the plane wrote.
        let words: Vec<&str> = text.split_whitespace().collect();
        (!words.is_empty()).then(|| words.join(" "))
    }

    /// Whether it should run and does not.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0 && self.process.is_none()
    }

    pub(super) fn state(&self) -> PlaneState {
        let process_id = self.process.as_ref().map(PlaneProcess::id);
        PlaneState { process_id, failures: self.failures, reason: self.reason.clone() }
    }

    /// Asks the process to end, and ends it if it does not.
    pub(super) fn end(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.ask_to_end();
        let asked = Instant::now();
        while process.ended().is_none() {
            if asked.elapsed() > Self::GRACE {
                log::error!("the {} does not end: killing it", self.name());
                return process.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
