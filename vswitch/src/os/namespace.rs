//! Named network namespaces as `ip netns` keeps them: files in `/run/netns` on which a namespace is mounted.
//!
//! A thread enters a namespace, never the process: [`within`] starts one for each piece of work. The switch records
//! which namespaces it made beside its control socket (`os/run_dir.rs`), so that a later process of the switch may
//! remove them. It never removes one that somebody else made. When a switch ends, it removes none, because guests live
//! in them.

use crate::os::run_dir::{self, RunDir};
use crate::os::sys;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::LinkNameSpaceType;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const DIRECTORY: &str = "/run/netns";
/// `NSFS_MAGIC` of `linux/magic.h`: the file system type of a file on which a namespace is mounted.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Identifies a namespace: another one of the same name has a different identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

/// The namespace that has this name now.
///
/// # Errors
/// `NotFound` if there is none of the name, and an explanation if the file is not a namespace.
pub fn identity(name: &str) -> io::Result<Identity> {
    // `stat` follows the mount to the namespace itself, so its inode identifies the namespace.
    let path = path(name)?;
    let status = rustix::fs::stat(&path).map_err(|error| explain(name, error.into()))?;
    let file_system = rustix::fs::statfs(&path).map_err(|error| explain(name, error.into()))?;
    if file_system.f_type as u64 != NSFS_MAGIC {
        let text = format!("{} exists, and no namespace is mounted on it", path.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    Ok(Identity { device: status.st_dev, inode: status.st_ino })
}

/// Runs `work` on a thread of its own inside the named namespace.
///
/// # Errors
/// What failed while entering the namespace, or in `work`.
pub fn within<T: Send>(name: &str, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    on_own_thread(|| {
        enter(name)?;
        work()
    })
}

/// Runs `work` inside the namespace if one is named, otherwise in the present one.
///
/// # Errors
/// As in [`within`].
pub fn within_any<T: Send>(name: Option<&str>, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    match name {
        Some(name) => within(name, work),
        None => work(),
    }
}

/// A unique text for the calling thread's namespace. It is more than the inode number, because the kernel reuses those
/// and counts anew after a reboot.
pub(crate) fn current() -> io::Result<String> {
    let start = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let number = match sys::network_namespace_cookie() {
        Ok(cookie) => cookie.to_string(),
        // Before Linux 5.14.
        Err(_) => {
            let status = rustix::fs::stat("/proc/thread-self/ns/net")?;
            format!("{}:{}", status.st_dev, status.st_ino)
        }
    };
    Ok(format!("{} {number}", start.trim_end()))
}

/// Makes the named namespace unless it exists, and records that the switch made it.
///
/// # Errors
/// The kernel's error, with the name.
pub fn ensure(name: &str, run_dir: &RunDir) -> io::Result<()> {
    // One that exists is used as it is and not recorded: somebody else may have made it.
    if identity(name).is_ok() {
        return Ok(());
    }
    let target = path(name)?;
    make_directory().map_err(|error| explain(name, error))?;
    match fs::OpenOptions::new().write(true).create_new(true).open(&target) {
        // A file on which no namespace is mounted is left over from an interrupted removal.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(explain(name, error)),
        _ => {}
    }
    let made = on_own_thread(|| {
        sys::enter_new_network_namespace()?;
        // Through the thread's own entry: the process stays in its namespace, and only this thread has the new one.
        Ok(rustix::mount::mount_bind("/proc/thread-self/ns/net", &target)?)
    });
    if let Err(error) = made {
        // The file may already be gone; the error to report is the one from making the namespace.
        let _ = fs::remove_file(&target);
        return Err(explain(name, error));
    }
    let recorded = within(name, current).and_then(|identity| run_dir.write(&record_path(name, run_dir), &identity));
    recorded.map_err(|error| explain(name, error))
}

/// The names of the namespaces that the switch of this run directory made and that still exist. Removes the records of
/// others.
pub fn made(run_dir: &RunDir) -> Vec<String> {
    let names = run_dir::names_in(&run_dir.namespaces());
    let (made, stale): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| is_made(name, run_dir));
    stale.iter().for_each(|name| drop(fs::remove_file(record_path(name, run_dir))));
    made
}

/// Whether the switch of this run directory, in this process or an earlier one, made the namespace that has the name
/// now.
pub fn is_made(name: &str, run_dir: &RunDir) -> bool {
    let recorded = fs::read_to_string(record_path(name, run_dir));
    matches!((within(name, current), recorded), (Ok(identity), Ok(recorded)) if recorded == identity)
}

/// Removes the namespace if the switch made it, and leaves it alone otherwise.
///
/// # Errors
/// The kernel's error, with the name.
pub fn remove_if_made(name: &str, run_dir: &RunDir) -> io::Result<()> {
    let is_ours = is_made(name, run_dir);
    if let Err(error) = fs::remove_file(record_path(name, run_dir))
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(explain(name, error));
    }
    if is_ours { remove(name) } else { Ok(()) }
}

/// Removes the namespace, whoever made it. It is no error if there is none.
///
/// # Errors
/// The kernel's error, with the name.
pub fn remove(name: &str) -> io::Result<()> {
    if identity(name).is_err() {
        return Ok(());
    }
    let path = path(name)?;
    rustix::mount::unmount(&path, UnmountFlags::DETACH).map_err(|error| explain(name, error.into()))?;
    fs::remove_file(&path).map_err(|error| explain(name, error))
}

/// Replaces this process with the command `argv`, run inside the named namespace. Returns only on failure.
pub fn exec(name: &str, argv: &[OsString]) -> io::Error {
    let Some((program, arguments)) = argv.split_first() else {
        return io::Error::new(io::ErrorKind::InvalidInput, "no command was given");
    };
    // After `exec` the process has the namespace of the thread that called it.
    if let Err(error) = enter(name) {
        return error;
    }
    let error = Command::new(program).args(arguments).exec();
    io::Error::new(error.kind(), format!("{}: {error}", Path::new(program).display()))
}

fn enter(name: &str) -> io::Result<()> {
    identity(name)?;
    let namespace = rustix::fs::open(path(name)?, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| explain(name, error.into()))?;
    rustix::thread::move_into_link_name_space(rustix::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network))
        .map_err(|error| explain(name, error.into()))
}

/// The thread ends with its work, so that no thread that serves anything else is ever inside a guest's namespace.
fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes `/run/netns` a shared mount as `ip netns add` does, so that namespaces appear in other mount namespaces.
fn make_directory() -> io::Result<()> {
    run_dir::make_public(Path::new(DIRECTORY))?;
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    match rustix::mount::mount_change(DIRECTORY, shared) {
        // Not a mount point yet.
        Err(rustix::io::Errno::INVAL) => {
            rustix::mount::mount_bind_recursive(DIRECTORY, DIRECTORY)?;
            Ok(rustix::mount::mount_change(DIRECTORY, shared)?)
        }
        result => Ok(result?),
    }
}

fn path(name: &str) -> io::Result<PathBuf> {
    let is_plain = !name.is_empty() && name.len() <= 255 && !name.contains(['/', '\0']) && name != "." && name != "..";
    if is_plain {
        return Ok(Path::new(DIRECTORY).join(name));
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("'{name}' cannot be the name of a namespace")))
}

fn record_path(name: &str, run_dir: &RunDir) -> PathBuf {
    run_dir.namespaces().join(name.replace('/', "_"))
}

fn explain(name: &str, error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::NotFound {
        return io::Error::new(error.kind(), format!("network namespace {name} does not exist"));
    }
    io::Error::new(error.kind(), format!("network namespace {name}: {error}"))
}
