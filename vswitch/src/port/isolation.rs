//! The interfaces of ports, kept from the kernel that hosts them (`os/isolation.rs`), each in its namespace.
//!
//! A process that ends, in order or not, leaves them so: no guest gets around a switch that does not run. Those that are
//! still ports the next process takes over; for the others, whose ENIs went meanwhile, each is noted down as a file in a
//! folder beside the control socket.

use crate::os::run_dir::{self, RunDir};
use crate::os::{self, namespace};
use crate::port::af_packet::{describe, explain};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use vswitch_core::config::desired::{PacketPort, TapPort};

/// What parts a device's name, which cannot have it, from its namespace's in the name of a note.
const SEPARATOR: char = ':';

/// Drops whatever the kernel would take from the interface, or send through it by itself.
///
/// # Errors
/// Why that cannot be, naming interface and namespace: then it must not be a port.
pub(super) fn isolate(port: &PacketPort, run_dir: Option<&RunDir>) -> io::Result<()> {
    if let Some(run_dir) = run_dir {
        let folder = run_dir.interfaces();
        let recorded = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        recorded.and_then(|()| fs::write(record_path(run_dir, port), [])).map_err(|error| {
            let text = format!("{}: cannot be noted in {}: {error}", describe(port), folder.display());
            io::Error::new(error.kind(), text)
        })?;
    }
    let isolated = namespace::within_any(port.namespace.as_deref(), || os::isolation::isolate(&port.device));
    isolated.map_err(|error| explain(&describe(port), error))
}

/// Sees to it that the interface of a running port stays away from the kernel; whether that was so no more.
///
/// # Errors
/// As when it is opened.
pub(crate) fn restore(port: &PacketPort) -> io::Result<bool> {
    let kept = namespace::within_any(port.namespace.as_deref(), || os::isolation::restore(&port.device));
    kept.map_err(|error| explain(&describe(port), error))
}

/// Gives the interface back to the kernel, once it is no port any more.
///
/// # Errors
/// What failed, naming interface and namespace. An interface or a namespace that is gone is none.
pub fn release(port: &PacketPort, run_dir: Option<&RunDir>) -> io::Result<()> {
    match namespace::within_any(port.namespace.as_deref(), || os::isolation::release(&port.device)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(explain(&describe(port), error)),
        _ => {}
    }
    match run_dir.map(|run_dir| fs::remove_file(record_path(run_dir, port))) {
        Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(explain(&describe(port), error)),
        _ => Ok(()),
    }
}

/// The interfaces that are noted: this process's, and those that an earlier one left.
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
