//! `sluice up`: both planes and the services process as processes of the same program, supervised. Each is restarted
//! without the others.
//!
//! Once both planes have run, only a signal ends this process: a plane that cannot start is retried at growing
//! intervals, while the other goes on. Before that, a plane that reports that it cannot start ends everything at once,
//! so that whoever started Sluice learns about it. `Supervisor::look_after` decides this.
//!
//! The planes outlive a supervisor that is killed. The next one keeps the forwarding plane if it runs as it should.

mod end;
mod lock;
mod masquerade;
mod plane;
mod process;
mod state;

pub(super) use end::end_running;
pub(super) use lock::{LockHolder, holder, renew as renew_lock, take as take_lock};
pub(super) use masquerade::remove_all as remove_masquerades;
pub(super) use state::SupervisorState;

use crate::cli::CliError;
use crate::cli::paths::Paths;
use crate::cli::up::{ConfigFile, UpArguments, control_arguments, forwarding_arguments, services_arguments};
use control::logging;
use control::os::privileges::{self, Role};
use control::socket::client::Client;
use control::socket::query::{Answer, Nothing, Query};
use control::state::switch_link::ask_status;
use plane::{Plane, PlaneStep};
use signal_hook::consts::{SIGINT, SIGTERM};
use state::PlaneState;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The exit status of a plane that will not start however often it is retried.
pub(crate) const EXIT_CANNOT_START: u8 = 2;

/// How often the planes are checked.
const STEP: Duration = Duration::from_millis(20);
/// How long a forwarding plane of an earlier supervisor may take to answer.
const FORWARDING_TIME: Duration = Duration::from_secs(2);
/// How often to report that the planes are not ready yet.
const NOT_READY_PERIOD: Duration = Duration::from_secs(30);

/// Runs both planes until SIGTERM or SIGINT.
pub(crate) fn run(paths: &Paths, arguments: &UpArguments) -> ExitCode {
    match supervise(paths, arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            log::error!("{error}");
            ExitCode::from(EXIT_CANNOT_START)
        }
    }
}

/// Returns whether both planes ran when this was told to end.
fn supervise(paths: &Paths, arguments: &UpArguments) -> Result<bool, CliError> {
    // The descriptors of whoever started this are none of the planes' business.
    if let Err(error) = vswitch::os::sys::close_on_exec_from(3) {
        log::warn!("the planes inherit the open files of this process: {error}");
    }
    privileges::restrict(Role::Supervisor);
    let config = ConfigFile::read(arguments.config.as_deref())?;
    let _lock = lock::take(&paths.run_dir, &paths.supervisor_lock())?;
    // The handlers come after the lock: while it is waited for, a signal ends this process as usual.
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| CliError::Usage(format!("cannot wait for signals: {error}")))?;
    }
    // The state is read under the lock: until then an earlier supervisor still writes it.
    let before = SupervisorState::read(&paths.supervisor_state());
    let process_of =
        |plane: fn(SupervisorState) -> PlaneState| before.clone().and_then(|state| plane(state).process_id);
    let mut forwarding = Plane::new(paths, "vswitch", forwarding_arguments(paths, &arguments.plane, &config));
    let mut control = Plane::new(paths, "control", control_arguments(paths, arguments));
    let mut services = Plane::new(paths, "services", services_arguments(paths, arguments, &config));
    services.watch_life_sign(paths.services_lock());
    // Only the forwarding plane stays: it has sessions and ports to lose, while the other one's state is on disk.
    let is_kept = forwarding.take_over(Some(&paths.vswitch_socket()), process_of(|state| state.forwarding), true);
    control.take_over(Some(&paths.control_socket()), process_of(|state| state.control), false);
    services.take_over(None, holder(&paths.services_lock()).process_id(), true);
    // Examining processes of an earlier supervisor required effective capabilities; starting others requires none.
    privileges::seal(Role::Supervisor);
    masquerade::serve(&paths.supervisor_socket(), paths.masquerades()).map_err(|error| {
        CliError::Usage(format!("cannot listen at {}: {error}", paths.supervisor_socket().display()))
    })?;
    let mut supervisor =
        Supervisor { paths: paths.clone(), planes: [forwarding, control, services], is_settled: false, told: None };
    // Guests may depend on a plane that was kept, so it is not ended because the other one cannot start.
    if is_kept {
        let status = ask_status(&paths.vswitch_socket(), FORWARDING_TIME);
        supervisor.settle(status.is_ok_and(|status| status.generation > 0));
    }
    let result = supervisor.watch(&stop);
    // The planes end whatever the result is, so that none is left without a supervisor.
    supervisor.end();
    result.map(|()| supervisor.planes.iter().all(|plane| !plane.is_failing()))
}

struct Supervisor {
    paths: Paths,
    /// The forwarding plane, the control plane and the services process.
    planes: [Plane; 3],
    /// Both have run, or guests may already depend on the one that does.
    is_settled: bool,
    told: Option<SupervisorState>,
}

impl Supervisor {
    fn watch(&mut self, stop: &AtomicBool) -> Result<(), CliError> {
        let started = Instant::now();
        let mut not_ready_at = started + NOT_READY_PERIOD;
        let mut readiness = None;
        let mut is_told = false;
        while !stop.load(Ordering::Relaxed) {
            self.look_after()?;
            self.tell_state();
            readiness = readiness.or_else(|| ask_until_ready(self.paths.control_socket()));
            if !is_told && readiness.as_ref().is_some_and(|ready| ready.load(Ordering::Acquire)) {
                is_told = true;
                self.settle(true);
                logging::announce(&format!("sluice is up: control socket {}", self.paths.control_socket().display()));
            }
            if !is_told && Instant::now() >= not_ready_at {
                not_ready_at += NOT_READY_PERIOD;
                log::warn!(
                    "the rules are not in force yet after {} s; `sluice status` says why",
                    started.elapsed().as_secs()
                );
            }
            thread::sleep(STEP);
        }
        Ok(())
    }

    /// From now on only a signal ends this process. If it `has_state`, a restarted control plane must find its state:
    /// with an empty one, for example because a disk is not mounted, it would make the forwarding plane end everything
    /// that runs.
    fn settle(&mut self, has_state: bool) {
        let [_, control, _] = &mut self.planes;
        if has_state {
            control.add_argument("--has-state");
        }
        self.is_settled = true;
    }

    /// Starts the planes that do not run and are due.
    fn look_after(&mut self) -> Result<(), CliError> {
        for plane in &mut self.planes {
            if let PlaneStep::CannotStart(reason) = plane.keep_running()
                && !self.is_settled
                && plane.is_essential()
            {
                return Err(CliError::Usage(format!("the {} cannot start: {reason}", plane.name())));
            }
        }
        Ok(())
    }

    fn tell_state(&mut self) {
        let [forwarding, control, services] = &self.planes;
        let state = SupervisorState {
            process_id: std::process::id(),
            forwarding: forwarding.state(),
            control: control.state(),
            services: services.state(),
        };
        // This is checked many times a second, and a file is written only for a change.
        if self.told.as_ref() != Some(&state) {
            state.write(&self.paths.supervisor_state());
            self.told = Some(state);
        }
    }

    fn end(&mut self) {
        // In reverse, so that none loses one that it depends on.
        for plane in self.planes.iter_mut().rev() {
            plane.end();
        }
        SupervisorState::remove(&self.paths.supervisor_state());
    }
}

/// A flag that becomes true once the control plane answers and the forwarding plane runs its state. A thread asks, so
/// that a plane that does not answer does not delay the supervisor. `None` if no thread can be started at present.
fn ask_until_ready(socket: PathBuf) -> Option<Arc<AtomicBool>> {
    let is_ready = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_ready);
    let ask = move || {
        while !asks_well(&socket) {
            thread::sleep(STEP);
        }
        told.store(true, Ordering::Release);
    };
    thread::Builder::new().name("readiness".into()).spawn(ask).ok().map(|_| is_ready)
}

fn asks_well(socket: &Path) -> bool {
    let asked = socket.exists().then(|| Client::connect(socket).ok()?.ask(&Query::Status(Nothing {})).ok());
    matches!(asked.flatten(), Some(Answer::Status(status)) if status.link.in_sync)
}
