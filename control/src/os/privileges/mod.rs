//! What each process of Sluice may do, given up at its start: capabilities, system calls, the way back to more of either.
//!
//! A process keeps what it needs for as long as it runs, so that bytes of strangers that take it over get no more than that.
//! `docs/privileges.md` tells who holds what, and why; `sluice status --privileges` shows what the kernel says.

mod filter;
mod process;

pub use filter::install as install_filter;
pub use process::Privileges;

use rustix::fs::Mode;
use rustix::thread::{CapabilitySet, CapabilitySets};

/// The processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `sluice up`. What it allows itself is all that its planes need: a child has nothing that its parent has not.
    Supervisor,
    /// `sluice vswitch`.
    Forwarding,
    /// `sluice control`.
    Control,
}

/// To make devices, namespaces and raw sockets, and to share memory with the kernel. `SYS_ADMIN`, which namespaces take, holds
/// what programs in the kernel take (`BPF`).
const FORWARDING: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::IPC_LOCK);

impl Role {
    /// The word of the command that runs the process.
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Supervisor => "up",
            Self::Forwarding => "vswitch",
            Self::Control => "control",
        }
    }

    /// What the process holds, and may pass on, while it starts.
    const fn at_start(self) -> CapabilitySet {
        match self {
            // `SETPCAP` lets each plane make its own bounding set smaller.
            Self::Supervisor => FORWARDING.union(CapabilitySet::NET_BIND_SERVICE).union(CapabilitySet::SETPCAP),
            Self::Forwarding => FORWARDING,
            // The HTTP interface may listen on a port below 1024.
            Self::Control => CapabilitySet::NET_BIND_SERVICE,
        }
    }

    /// What the process holds once it runs.
    const fn permitted(self) -> CapabilitySet {
        match self {
            Self::Supervisor | Self::Forwarding => self.at_start(),
            Self::Control => CapabilitySet::empty(),
        }
    }

    /// What of that counts without being asked for.
    const fn effective(self) -> CapabilitySet {
        match self {
            Self::Forwarding => FORWARDING,
            Self::Supervisor | Self::Control => CapabilitySet::empty(),
        }
    }

    /// What a program that the process starts could have.
    const fn bounding(self) -> CapabilitySet {
        self.permitted()
    }
}

/// Takes from this process what `role` needs neither to start nor to run. For the first lines of a process: other threads that
/// run already keep what they have. What the kernel does not do is logged, and the rest is done.
pub fn restrict(role: Role) {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    tell("cannot give up new privileges", rustix::thread::set_no_new_privs(true));
    tell("cannot clear its ambient capabilities", rustix::thread::clear_ambient_capability_set());
    tell("cannot make its bounding set of capabilities smaller", bound(role.bounding()));
    tell("cannot give up capabilities", keep(role.at_start(), role.at_start()));
}

/// Takes from this process what `role` needed only to start, and ends it at the first system call that `role` never makes. From
/// here on it may read what strangers send.
pub fn seal(role: Role) {
    tell("cannot give up capabilities", keep(role.permitted(), role.effective()));
    tell("cannot filter its system calls", filter::install(role));
}

fn tell<E: std::fmt::Display>(what: &str, result: Result<(), E>) {
    if let Err(error) = result {
        log::warn!("this process {what}: {error}; it goes on, and `sluice status --privileges` shows what it holds");
    }
}

/// Keeps these of the capabilities that there are.
fn keep(permitted: CapabilitySet, effective: CapabilitySet) -> rustix::io::Result<()> {
    let held = rustix::thread::capabilities(None)?.permitted;
    let (permitted, effective, inheritable) = (permitted & held, effective & held, CapabilitySet::empty());
    rustix::thread::set_capabilities(None, CapabilitySets { effective, permitted, inheritable })
}

/// Takes all others out of the bounding set, also those that this program does not know by name.
fn bound(kept: CapabilitySet) -> rustix::io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::capability_is_in_bounding_set(capability) {
            Ok(true) if !kept.contains(capability) => rustix::thread::remove_capability_from_bounding_set(capability)?,
            Ok(_) => {}
            // The kernel knows no more.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
