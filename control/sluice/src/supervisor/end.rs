//! Ends a supervisor that runs elsewhere, and planes that one left behind.

use super::lock::{self, LockHolder, holder};
use super::plane::Plane;
use super::state::SupervisorState;
use crate::cli::CliError;
use crate::cli::paths::Paths;
use crate::cli::up::plane_arguments;
use control::os::unix_socket;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::thread;
use std::time::{Duration, Instant};

/// How long a supervisor may take to end, including its planes.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait for a socket to show whether somebody listens.
const CONNECT_TIME: Duration = Duration::from_secs(1);

/// Ends the Sluice that runs on these folders, if there is one, and returns once it has ended.
pub(crate) fn end_running(paths: &Paths) -> Result<(), CliError> {
    // Taking the lock would make the folder.
    if !paths.run_dir.exists() {
        return Ok(());
    }
    let asked = Instant::now();
    while let LockHolder::Up(process) = holder(&paths.supervisor_lock()) {
        let is_late = asked.elapsed() > PATIENCE;
        let pid = process.and_then(|process| Pid::from_raw(i32::try_from(process).ok()?)).filter(|_| !is_late);
        let Some(pid) = pid else {
            let process = process.map_or_else(|| "unknown".into(), |process| process.to_string());
            return Err(CliError::Usage(format!("`sluice up` (process {process}) does not end: kill it manually")));
        };
        // The lock is held at this moment, so the number is still that of its holder, or the holder is about to end.
        if let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) {
            let _ = pidfd_send_signal(handle, Signal::TERM);
        }
        thread::sleep(Duration::from_millis(50));
    }
    // Prevents a new start in the meantime.
    let _lock = lock::take(&paths.run_dir, &paths.supervisor_lock())?;
    let state = SupervisorState::read(&paths.supervisor_state());
    let processes = state.map(|state| [state.control.process_id, state.forwarding.process_id]).unwrap_or_default();
    let services = holder(&paths.services_lock()).process_id();
    Plane::new(paths, "services", plane_arguments(paths, "services")).take_over(None, services, false);
    let planes = [("control", paths.control_socket()), ("vswitch", paths.vswitch_socket())];
    for ((verb, socket), process) in planes.into_iter().zip(processes) {
        // The same folders and verb identify a plane; its other options, which are unknown here, do not matter.
        Plane::new(paths, verb, plane_arguments(paths, verb)).take_over(Some(&socket), process, false);
        if unix_socket::connect(&socket, CONNECT_TIME).is_ok() {
            return Err(CliError::Usage(format!(
                "a process that `sluice up` did not start listens at {}: end it first",
                socket.display()
            )));
        }
    }
    SupervisorState::remove(&paths.supervisor_state());
    Ok(())
}
