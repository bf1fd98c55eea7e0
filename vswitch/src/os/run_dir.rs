//! The run directory: records of what a switch made and took over on this machine, as files beside its control socket,
//! so that the next switch with this socket finds them, and no other does.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The run directory of a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    folder: PathBuf,
}

/// The run directory of a process that makes namespaces without being a switch with a socket.
impl Default for RunDir {
    fn default() -> Self {
        Self { folder: "/run/sluice".into() }
    }
}

impl RunDir {
    /// The run directory of the switch with this control socket.
    pub fn beside(socket: &Path) -> Self {
        Self { folder: socket.parent().unwrap_or(Path::new("")).to_owned() }
    }

    /// Records of the network namespaces that it made.
    pub(crate) fn namespaces(&self) -> PathBuf {
        self.folder.join("namespaces")
    }

    /// Records of the TAP devices that it made.
    pub(crate) fn devices(&self) -> PathBuf {
        self.folder.join("devices")
    }

    /// Records of the interfaces that it isolates from the kernel.
    pub(crate) fn interfaces(&self) -> PathBuf {
        self.folder.join("interfaces")
    }

    /// Writes a record for later processes, atomically: what a truncated record refers to would never be removed.
    pub(crate) fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        // Whoever could write a record could make the switch remove what does not belong to it.
        make_public(path.parent().unwrap_or(path))?;
        static WRITTEN: AtomicU64 = AtomicU64::new(0);
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        // A name of its own: two threads may write records at the same time.
        let beside = self.folder.join(format!(".new-{}-{number}", std::process::id()));
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside);
        let written =
            file.and_then(|mut file| file.write_all(text.as_bytes())).and_then(|()| fs::rename(&beside, path));
        // What was written in part must not remain; a record that exists is untouched, since only the rename replaces
        // it.
        written.inspect_err(|_| drop(fs::remove_file(&beside)))
    }
}

/// The names of the files in a folder; none if the folder does not exist.
pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Makes a directory and its parents with read access for everybody and write access for the owner, whatever the umask.
/// An existing one is left as it is.
pub(crate) fn make_public(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    directory.parent().map_or(Ok(()), make_public)?;
    match fs::DirBuilder::new().mode(0o755).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // The umask may have taken permissions that readers of the records need.
        made => made.and_then(|()| fs::set_permissions(directory, fs::Permissions::from_mode(0o755))),
    }
}
