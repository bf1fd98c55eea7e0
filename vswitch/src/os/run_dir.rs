//! The run directory: records of what a switch made and took on this machine, as files beside its control socket, so that
//! whoever runs there next finds them, and nobody else does.

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

/// Those of whoever makes a namespace and is no switch with a socket.
impl Default for RunDir {
    fn default() -> Self {
        Self { folder: "/run/sluice".into() }
    }
}

impl RunDir {
    /// Those of the switch with this control socket.
    pub fn beside(socket: &Path) -> Self {
        Self { folder: socket.parent().unwrap_or(Path::new("")).to_owned() }
    }

    /// Of the network namespaces that it made.
    pub(crate) fn namespaces(&self) -> PathBuf {
        self.folder.join("namespaces")
    }

    /// Of the TAP devices that it made.
    pub(crate) fn devices(&self) -> PathBuf {
        self.folder.join("devices")
    }

    /// Of the interfaces that it keeps from the kernel.
    pub(crate) fn interfaces(&self) -> PathBuf {
        self.folder.join("interfaces")
    }

    /// Writes down what a later process has to know: a note is there whole or not at all, since one that is cut short would have
    /// what it tells of stay for ever.
    pub(crate) fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        // Whoever could write a note could have the switch remove what is not its own.
        make_public(path.parent().unwrap_or(path))?;
        static WRITTEN: AtomicU64 = AtomicU64::new(0);
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let beside = self.folder.join(format!(".new-{}-{number}", std::process::id()));
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside);
        let written =
            file.and_then(|mut file| file.write_all(text.as_bytes())).and_then(|()| fs::rename(&beside, path));
        written.inspect_err(|_| drop(fs::remove_file(&beside)))
    }
}

/// The names of the files in a folder; none if there is no such folder.
pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Makes a directory, and those that it is in, which everybody may look into and nobody else may change, whatever the umask. One
/// that is there stays as it is.
pub(crate) fn make_public(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    directory.parent().map_or(Ok(()), make_public)?;
    match fs::DirBuilder::new().mode(0o755).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| fs::set_permissions(directory, fs::Permissions::from_mode(0o755))),
    }
}
