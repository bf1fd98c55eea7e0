//! Named network namespaces, as `ip netns` keeps them: files of `/run/netns` on which a namespace is mounted.
//!
//! A thread is moved into a namespace, never the process: [`within`] starts one for each piece of work. What the
//! switch made it notes down under `/run/sluice/namespaces`, so that a later process of the switch may remove it, and
//! never removes one that somebody else made. The end of a switch removes none: guests live in them.

use crate::sys;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::LinkNameSpaceType;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

const DIRECTORY: &str = "/run/netns";
const NOTES_DIRECTORY: &str = "/run/sluice";
const MADE_DIRECTORY: &str = "/run/sluice/namespaces";
/// `NSFS_MAGIC` of `linux/magic.h`: what a file says that a namespace is mounted on.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Which namespace a name means at the moment: another one of the same name has another identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn text(self) -> String {
        format!("{}:{}", self.device, self.inode)
    }
}

/// The namespace that the name means now.
///
/// # Errors
/// `NotFound` if there is none of the name, and an explanation if the file is not a namespace.
pub fn identity(name: &str) -> io::Result<Identity> {
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
/// What went wrong on the way into the namespace, or in `work`.
pub fn within<T: Send>(name: &str, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    on_own_thread(|| {
        enter(name)?;
        work()
    })
}

/// Runs `work` inside the namespace if one is named, else here.
///
/// # Errors
/// As [`within`].
pub fn within_any<T: Send>(name: Option<&str>, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    match name {
        Some(name) => within(name, work),
        None => work(),
    }
}

/// The identity of the namespace that the calling thread is in, as text.
pub(crate) fn current() -> io::Result<String> {
    let status = rustix::fs::stat("/proc/thread-self/ns/net")?;
    Ok(Identity { device: status.st_dev, inode: status.st_ino }.text())
}

/// Makes the named namespace unless it exists, and notes that the switch made it.
///
/// # Errors
/// What the kernel says, with the name.
pub fn ensure(name: &str) -> io::Result<()> {
    if identity(name).is_ok() {
        return Ok(());
    }
    let target = path(name)?;
    make_directory().map_err(|error| explain(name, error))?;
    match fs::OpenOptions::new().write(true).create_new(true).open(&target) {
        // A file that no namespace is mounted on is left over from a removal that was interrupted.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(explain(name, error)),
        _ => {}
    }
    let made = on_own_thread(|| {
        sys::enter_new_network_namespace()?;
        Ok(rustix::mount::mount_bind("/proc/thread-self/ns/net", &target)?)
    });
    if let Err(error) = made {
        // The file may be gone already; the error to tell is the one that made the namespace fail.
        let _ = fs::remove_file(&target);
        return Err(explain(name, error));
    }
    write_note(&note(name), &identity(name)?.text()).map_err(|error| explain(name, error))
}

/// Notes that the switch whose control socket is `owner` uses the namespace, if a switch made it: so that a later process of
/// that switch finds it by [`made_for`].
///
/// # Errors
/// What the kernel says, with the name.
pub fn claim(name: &str, owner: &Path) -> io::Result<()> {
    let Some(identity) = noted(name).filter(|_| is_made_by_switch(name)).map(|(identity, _)| identity) else {
        return Ok(());
    };
    let text = format!("{identity}\n{}\n", owner_text(owner));
    match fs::read_to_string(note(name)) {
        Ok(noted) if noted == text => Ok(()),
        _ => write_note(&note(name), &text).map_err(|error| explain(name, error)),
    }
}

/// The names of the namespaces that were made for the switch whose control socket is `owner`.
pub fn made_for(owner: &Path) -> Vec<String> {
    let owner = owner_text(owner);
    let entries = fs::read_dir(MADE_DIRECTORY).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| noted(name).is_some_and(|(_, noted)| noted == owner)).collect()
}

/// The same text wherever a process stands, and by whatever links it names the folder.
pub(crate) fn owner_text(socket: &Path) -> String {
    let folder = socket.parent().and_then(|folder| fs::canonicalize(folder).ok());
    let path = folder.zip(socket.file_name()).map(|(folder, name)| folder.join(name));
    path.unwrap_or_else(|| socket.to_owned()).to_string_lossy().replace('\n', " ")
}

/// What is noted of a namespace: its identity, and for whom it was made, as far as that is known.
fn noted(name: &str) -> Option<(String, String)> {
    let text = fs::read_to_string(note(name)).ok()?;
    let mut lines = text.lines();
    Some((lines.next()?.to_owned(), lines.next().unwrap_or_default().to_owned()))
}

/// Writes down what a later process has to know: a note is there whole or not at all, since one that is cut short would have
/// what it tells of stay for ever.
pub(crate) fn write_note(path: &Path, text: &str) -> io::Result<()> {
    // Whoever could write a note could have the switch remove what is not its own.
    make_public(path.parent().unwrap_or(path))?;
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let beside = Path::new(NOTES_DIRECTORY).join(format!(".new-{}-{number}", std::process::id()));
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes())).and_then(|()| fs::rename(&beside, path));
    written.inspect_err(|_| drop(fs::remove_file(&beside)))
}

/// Whether the switch, this process or an earlier one, made the namespace that the name means now.
pub fn is_made_by_switch(name: &str) -> bool {
    matches!((identity(name), noted(name)), (Ok(identity), Some((noted, _))) if noted == identity.text())
}

/// Removes the namespace if the switch made it; leaves it alone otherwise.
///
/// # Errors
/// What the kernel says, with the name.
pub fn remove_if_made(name: &str) -> io::Result<()> {
    let is_ours = is_made_by_switch(name);
    if let Err(error) = fs::remove_file(note(name))
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(explain(name, error));
    }
    if !is_ours {
        return Ok(());
    }
    let path = path(name)?;
    rustix::mount::unmount(&path, UnmountFlags::DETACH).map_err(|error| explain(name, error.into()))?;
    fs::remove_file(&path).map_err(|error| explain(name, error))
}

/// Replaces this process with the command `argv`, run inside the named namespace. Returns only if that failed.
pub fn exec(name: &str, argv: &[OsString]) -> io::Error {
    let Some((program, arguments)) = argv.split_first() else {
        return io::Error::new(io::ErrorKind::InvalidInput, "no command is given");
    };
    // After `exec` the process is what its calling thread was, namespace included.
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

/// The thread ends with its work: no thread that serves anything else is ever inside a guest's namespace.
fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes `/run/netns` as `ip netns add` does: shared, so that namespaces appear in the mount namespaces of others.
fn make_directory() -> io::Result<()> {
    make_public(Path::new(DIRECTORY))?;
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

/// Makes a directory, and those that it is in, which everybody may look into and nobody else may change, whatever the umask. One
/// that is there stays as it is.
fn make_public(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    directory.parent().map_or(Ok(()), make_public)?;
    match fs::DirBuilder::new().mode(0o755).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| fs::set_permissions(directory, fs::Permissions::from_mode(0o755))),
    }
}

fn path(name: &str) -> io::Result<PathBuf> {
    let is_plain = !name.is_empty() && name.len() <= 255 && !name.contains(['/', '\0']) && name != "." && name != "..";
    if is_plain {
        return Ok(Path::new(DIRECTORY).join(name));
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("'{name}' cannot be the name of a namespace")))
}

fn note(name: &str) -> PathBuf {
    Path::new(MADE_DIRECTORY).join(name.replace('/', "_"))
}

fn explain(name: &str, error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::NotFound {
        return io::Error::new(error.kind(), format!("network namespace {name} does not exist"));
    }
    io::Error::new(error.kind(), format!("network namespace {name}: {error}"))
}
