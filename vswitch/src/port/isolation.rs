//! Isolates the interfaces of ports from the kernel that hosts them (`os/isolation.rs`), each in its namespace.
//!
//! They stay isolated when a process ends, in whatever way, so that no guest bypasses a switch that does not run. The
//! next process takes over those that are still ports. The others, whose ENIs were removed in the meantime, are known
//! from their records in the run directory.

use crate::os::run_dir::{self, RunDir};
use crate::os::{self, namespace};
use crate::port::af_packet::{describe, explain};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use vswitch_core::config::desired::{PacketPort, TapPort};

/// Separates the device's name, which cannot contain it, from the namespace's in the name of a record.
const SEPARATOR: char = ':';

/// Drops everything the kernel would receive from the interface or send through it by itself.
///
/// # Errors
/// Why it is impossible, with interface and namespace. It must not be used as a port then.
pub(super) fn isolate(port: &PacketPort, run_dir: Option<&RunDir>) -> io::Result<()> {
    // Recorded before it is isolated, so that a crash in between leaves a record to clean up by, not a dead interface.
    if let Some(run_dir) = run_dir {
        let folder = run_dir.interfaces();
        let recorded = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        recorded.and_then(|()| fs::write(record_path(run_dir, port), [])).map_err(|error| {
            let text = format!("{}: cannot be recorded in {}: {error}", describe(port), folder.display());
            io::Error::new(error.kind(), text)
        })?;
    }
    let isolated = namespace::within_any(port.namespace.as_deref(), || os::isolation::isolate(&port.device));
    isolated.map_err(|error| explain(&describe(port), error))
}

/// Makes sure that the interface of a running port is still isolated. Returns whether it no longer was.
///
/// # Errors
/// As in [`isolate`].
pub(crate) fn restore(port: &PacketPort) -> io::Result<bool> {
    let kept = namespace::within_any(port.namespace.as_deref(), || os::isolation::restore(&port.device));
    kept.map_err(|error| explain(&describe(port), error))
}

/// Returns the interface to the kernel, once it is no longer a port.
///
/// # Errors
/// What failed, with interface and namespace. It is no error if either no longer exists.
pub fn release(port: &PacketPort, run_dir: Option<&RunDir>) -> io::Result<()> {
    match namespace::within_any(port.namespace.as_deref(), || os::isolation::release(&port.device)) {
        // Interface or namespace may be gone, and its filters with them.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(explain(&describe(port), error)),
        _ => {}
    }
    match run_dir.map(|run_dir| fs::remove_file(record_path(run_dir, port))) {
        Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(explain(&describe(port), error)),
        _ => Ok(()),
    }
}

/// The recorded interfaces: those of this process, and those that an earlier one left.
pub fn recorded(run_dir: &RunDir) -> Vec<PacketPort> {
    let port = |name: String| {
        let (device, namespace) = name.split_once(SEPARATOR)?;
        let namespace = Some(namespace.to_owned()).filter(|name| !name.is_empty());
        Some(PacketPort { device: device.to_owned(), namespace, mtu_bytes: TapPort::default_mtu_bytes() })
    };
    run_dir::names_in(&run_dir.interfaces()).into_iter().filter_map(port).collect()
}

fn record_path(run_dir: &RunDir, port: &PacketPort) -> PathBuf {
    let namespace = port.namespace.as_deref().unwrap_or_default();
    run_dir.interfaces().join(format!("{}{SEPARATOR}{namespace}", port.device))
}
