//! Drops the privileges that each process of Sluice does not need: capabilities, system calls, and ways to regain them.
//!
//! A process keeps only what it needs while it runs, so that input that takes it over gains no more than that.
//! `docs/privileges.md` lists who holds what, and why; `sluice status --privileges` shows what the kernel reports.

mod filter;
mod process;

pub use filter::install as install_filter;
pub use process::Privileges;

use rustix::fs::{Gid, Mode, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// The processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `sluice up`. It holds everything that its planes need, since a child cannot have more than its parent.
    Supervisor,
    /// `sluice vswitch`.
    Forwarding,
    /// `sluice control`.
    Control,
    /// `sluice services`.
    Services,
}

/// For making devices, namespaces and raw sockets, for sharing memory with the kernel, and for giving a socket to the
/// user of a virtual machine. `SYS_ADMIN`, which namespaces require, includes what programs in the kernel require
/// (`BPF`).
const FORWARDING: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::IPC_LOCK)
    .union(CapabilitySet::CHOWN);

/// For becoming another user.
const OTHER_USER: CapabilitySet = CapabilitySet::SETUID.union(CapabilitySet::SETGID);

impl Role {
    /// The subcommand that runs the process.
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Supervisor => "up",
            Self::Forwarding => "vswitch",
            Self::Control => "control",
            Self::Services => "services",
        }
    }

    /// What the process holds, and may pass on, while it starts.
    const fn at_start(self) -> CapabilitySet {
        match self {
            // `SETPCAP` allows each process to reduce its own bounding set, `KILL` to end one that has another user.
            Self::Supervisor => FORWARDING
                .union(CapabilitySet::NET_BIND_SERVICE)
                .union(CapabilitySet::SETPCAP)
                .union(CapabilitySet::KILL)
                .union(OTHER_USER),
            Self::Forwarding => FORWARDING,
            // The HTTP interface may listen on a port below 1024.
            Self::Control => CapabilitySet::NET_BIND_SERVICE,
            Self::Services => OTHER_USER,
        }
    }

    /// What the process holds once it runs.
    const fn permitted(self) -> CapabilitySet {
        match self {
            Self::Supervisor | Self::Forwarding => self.at_start(),
            Self::Control | Self::Services => CapabilitySet::empty(),
        }
    }

    /// The part of it that is in effect without being requested.
    const fn effective(self) -> CapabilitySet {
        match self {
            Self::Forwarding => FORWARDING,
            Self::Supervisor | Self::Control | Self::Services => CapabilitySet::empty(),
        }
    }

    /// What a program that the process starts could have.
    const fn bounding(self) -> CapabilitySet {
        self.permitted()
    }
}

/// Drops what `role` needs neither to start nor to run. Call it first in a process: threads that already run keep what
/// they have. If the kernel refuses a step, that is logged, and the others are done.
pub fn restrict(role: Role) {
    // Files and sockets are for this user alone, even where no mode is given.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    // This also permits a process without privileges to install a filter of system calls.
    tell("cannot renounce new privileges", rustix::thread::set_no_new_privs(true));
    tell("cannot clear its ambient capabilities", rustix::thread::clear_ambient_capability_set());
    tell("cannot reduce its bounding set of capabilities", bound(role.bounding()));
    tell("cannot drop capabilities", keep(role.at_start(), role.at_start()));
}

/// Becomes the user and the group with this number for good, without further groups. Does nothing where the process is not
/// root's. Threads that already run keep their user.
///
/// # Errors
/// The kernel's.
pub fn become_user(number: u32) -> rustix::io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(number), Gid::from_raw(number));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(group, group, group)?;
    rustix::thread::set_thread_res_uid(user, user, user)
}

/// Does something with a capability that this process may have and does not use otherwise.
pub fn with_capability<R>(capability: CapabilitySet, what: impl FnOnce() -> R) -> R {
    let Ok(held) = rustix::thread::capabilities(None) else { return what() };
    let raised = CapabilitySets { effective: held.effective | (capability & held.permitted), ..held };
    // If the kernel refuses, what is done fails, which is for the caller to see.
    let _ = rustix::thread::set_capabilities(None, raised);
    let result = what();
    tell("cannot lower its capabilities", rustix::thread::set_capabilities(None, held));
    result
}

/// Drops what `role` needed only to start, and ends the process at the first system call that `role` never makes. From
/// here on it may read untrusted input.
pub fn seal(role: Role) {
    tell("cannot drop capabilities", keep(role.permitted(), role.effective()));
    tell("cannot filter its system calls", filter::install(role));
}

fn tell<E: std::fmt::Display>(what: &str, result: Result<(), E>) {
    if let Err(error) = result {
        log::warn!("this process {what}: {error}; it continues, and `sluice status --privileges` shows what it holds");
    }
}

/// Keeps these of the present capabilities.
fn keep(permitted: CapabilitySet, effective: CapabilitySet) -> rustix::io::Result<()> {
    let held = rustix::thread::capabilities(None)?.permitted;
    // A capability that the process does not hold cannot be kept; asking for it would fail as a whole.
    let (permitted, effective, inheritable) = (permitted & held, effective & held, CapabilitySet::empty());
    rustix::thread::set_capabilities(None, CapabilitySets { effective, permitted, inheritable })
}

/// Removes all others from the bounding set, including those unknown to this program.
fn bound(kept: CapabilitySet) -> rustix::io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::capability_is_in_bounding_set(capability) {
            Ok(true) if !kept.contains(capability) => rustix::thread::remove_capability_from_bounding_set(capability)?,
            Ok(_) => {}
            // The kernel has no more.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
