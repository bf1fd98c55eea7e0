//! A plane's process: started here, or left by an earlier supervisor.

use control::os::{privileges, unix_socket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::CapabilitySet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;
use vswitch_core::config::services::PROCESS_USER;

const OWN_PROGRAM: &str = "/proc/self/exe";
/// The environment variables that a plane gets: whether to print where a panic came from. Everything else is in its
/// arguments.
const ENVIRONMENT: [&str; 1] = ["RUST_BACKTRACE"];

/// The program that this process runs. It is the same file even if the path has since been replaced or removed, so that
/// both planes have the same version until everything is restarted.
pub(super) struct Program {
    path: PathBuf,
    name: OsString,
}

impl Program {
    pub(super) fn own() -> io::Result<Self> {
        let own = fs::metadata(OWN_PROGRAM)?;
        let path = std::env::current_exe()?;
        let name = std::env::args_os().next().unwrap_or_else(|| "sluice".into());
        // Started by its path, a plane is listed by the name of the program; by the link it would be listed as `exe`.
        let is_there = fs::metadata(&path).is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino()));
        Ok(Self { path: if is_there { path } else { OWN_PROGRAM.into() }, name })
    }

    pub(super) fn start(&self, arguments: &[OsString]) -> io::Result<PlaneProcess> {
        let environment = ENVIRONMENT.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        let mut command = Command::new(&self.path);
        command.arg0(&self.name).args(arguments).env_clear().envs(environment);
        command.spawn().map(PlaneProcess::Child)
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Exited(i32),
    Killed(i32),
    /// Unknown, since it was not a child of this process.
    Somehow,
}

impl fmt::Display for Ended {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(formatter, "exit status {status}"),
            Self::Killed(signal) => write!(formatter, "signal {signal}"),
            Self::Somehow => formatter.write_str("for an unknown reason"),
        }
    }
}

impl From<ExitStatus> for Ended {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exited(code),
            (None, Some(signal)) => Self::Killed(signal),
            (None, None) => Self::Somehow,
        }
    }
}

/// A process of a plane.
pub(super) enum PlaneProcess {
    Child(Child),
    /// A child of an earlier supervisor.
    Left {
        pid: Pid,
        handle: OwnedFd,
    },
}

impl PlaneProcess {
    /// The process that an earlier supervisor started with `arguments` or similar ones: it listens at the plane's
    /// socket, or has the number `known`, and its command line is that of the plane with the same folders.
    pub(super) fn left(socket: Option<&Path>, known: Option<u32>, arguments: &[OsString]) -> Option<Self> {
        let known = known.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        [socket.and_then(listener), known].into_iter().flatten().find_map(|pid| {
            // Open the handle first: until it reports the end, the number refers to this process.
            let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
            let user = fs::metadata(format!("/proc/{pid}")).ok()?.uid();
            // The services process of root has a user of its own.
            let is_own = user == rustix::process::geteuid().as_raw() || user == PROCESS_USER;
            let found = Self::Left { pid, handle };
            let is_plane = is_own && is_same_plane(&command_line(pid)?, arguments);
            // The end is checked last: until here the number, and so the command line, may have been another
            // process's.
            (is_plane && !found.has_ended()).then_some(found)
        })
    }

    pub(super) fn id(&self) -> u32 {
        match self {
            Self::Child(child) => child.id(),
            Self::Left { pid, .. } => pid.as_raw_nonzero().get().unsigned_abs(),
        }
    }

    /// Whether it is what would be started now: the same program with the same arguments.
    pub(super) fn is_started_as(&self, arguments: &[OsString]) -> bool {
        let Self::Left { pid, .. } = self else { return true };
        let file = |path: String| fs::metadata(path).map(|program| (program.dev(), program.ino())).ok();
        let own = file(OWN_PROGRAM.into());
        own.is_some() && own == file(format!("/proc/{pid}/exe")) && command_line(*pid).as_deref() == Some(arguments)
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<Ended> {
        match self {
            Self::Child(child) => child.try_wait().ok().flatten().map(Ended::from),
            Self::Left { .. } => self.has_ended().then_some(Ended::Somehow),
        }
    }

    fn has_ended(&self) -> bool {
        let Self::Left { handle, .. } = self else { return false };
        let mut asked = [PollFd::new(handle, PollFlags::IN)];
        // The kernel reports a process handle as readable once the process has ended.
        let polled = poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        polled.is_ok() && asked[0].revents().contains(PollFlags::IN)
    }

    pub(super) fn ask_to_end(&self) {
        self.signal(Signal::TERM);
    }

    pub(super) fn kill(mut self) {
        self.signal(Signal::KILL);
        // A child that nobody waits for would stay as a zombie.
        if let Self::Child(child) = &mut self {
            let _ = child.wait();
        }
    }

    /// A process that is already gone needs no signal.
    fn signal(&self, signal: Signal) {
        let _ = privileges::with_capability(CapabilitySet::KILL, || match self {
            // The number of a child cannot be reused before it was waited for.
            Self::Child(child) => rustix::process::kill_process(Pid::from_child(child), signal),
            Self::Left { handle, .. } => pidfd_send_signal(handle, signal),
        });
    }
}

/// The process that listens at a socket.
fn listener(socket: &Path) -> Option<Pid> {
    const PATIENCE: Duration = Duration::from_millis(200);
    let stream = unix_socket::connect(socket, PATIENCE).ok()?;
    // For a connected socket the kernel reports the process that called `listen`, without its help.
    socket_peercred(&stream).ok().map(|peer| peer.pid)
}

/// The arguments of a process, without its name.
fn command_line(pid: Pid) -> Option<Vec<OsString>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    // A process that has ended and a kernel thread have no arguments, not even an empty one.
    let words = bytes.strip_suffix(&[0])?.split(|byte| *byte == 0);
    Some(words.skip(1).map(|word| OsStr::from_bytes(word).to_owned()).collect())
}

/// Whether two argument lists start the same plane under a supervisor, on the same folders.
fn is_same_plane(found: &[OsString], arguments: &[OsString]) -> bool {
    let run_dir = |list: &[OsString]| list.iter().skip_while(|word| *word != "--run-dir").nth(1).cloned();
    found.iter().take(2).eq(arguments.iter().take(2)) && run_dir(found) == run_dir(arguments)
}
