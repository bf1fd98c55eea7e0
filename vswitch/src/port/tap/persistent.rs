//! TAP devices that outlive the process that made them: a guest keeps its device, addresses, routes and its own
//! settings whenever the forwarding plane ends, until the next one attaches again.
//!
//! The kernel keeps a device that is marked as persistent. Its configuration is recorded beside the control socket, so
//! that the next process recognizes it, changes only what has changed in the meantime, and may remove it. A device that
//! somebody else made is never recorded, and stays as it is.

use crate::os::namespace;
use crate::os::netlink::{self, Interface};
use crate::os::run_dir::{self, RunDir};
use crate::port::tap::{self, Tap, TapIo};
use std::fs;
use std::io;
use std::path::PathBuf;
use vswitch_core::config::desired::TapPort;
use vswitch_core::packet::offload::Offloads;

/// The folder with records of the host's devices; those of a namespace have a folder of its name.
const HOST_FOLDER: &str = "host";
const NAMESPACES_FOLDER: &str = "namespaces";

/// The record of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct DeviceRecord {
    /// Identifies the device and its namespace: another one of the same name has a different identity.
    identity: String,
    queues: usize,
    /// Of a macvtap device, what it was made on and with; else empty.
    origin: String,
    addresses: Vec<ipnet::IpNet>,
    gateways: Vec<std::net::IpAddr>,
}

/// Opens a device for the switch of this run directory: its own from before; or a new one, which then outlives the
/// process; or one that somebody else made. Otherwise like [`Tap::open_rx_queues`].
///
/// # Errors
/// As in [`Tap::open_rx_queues`].
pub fn open(
    tap: &TapPort,
    interface: Option<&Interface>,
    how: (Offloads, TapIo),
    rx_queues: usize,
    run_dir: &RunDir,
) -> io::Result<Vec<Tap>> {
    if let Some(name) = tap.namespace.as_deref().filter(|_| tap.create_namespace) {
        namespace::ensure(name, run_dir)?;
    }
    // If it cannot be determined, opening reports why.
    let Ok(mut found) = identity(tap) else { return Tap::open_rx_queues(tap, interface, how, rx_queues) };
    let mut own = DeviceRecord::read(tap, run_dir).filter(|record| Some(&record.identity) == found.as_ref());
    if own.as_ref().is_some_and(|record| record.queues != rx_queues) {
        // The kernel fixes when a device is made whether it may have several queues.
        delete(tap)?;
        (found, own) = (None, None);
    }
    let mut queues = Tap::open_rx_queues(tap, interface, how, rx_queues)?;
    if let (Some(record), Some(interface)) = (&own, interface) {
        let (addresses, gateways) = (record.addresses.clone(), record.gateways.clone());
        tap::adjust(tap, interface, Some(&Interface { addresses, gateways, ..interface.clone() }))?;
    }
    // A device of somebody else is neither recorded nor kept.
    if found.is_none() || own.is_some() {
        let kept = identity(tap).and_then(|identity| {
            let mut record = DeviceRecord { queues: rx_queues, ..DeviceRecord::default() };
            record.identity = identity.unwrap_or_default();
            record.set(interface);
            // Recorded before it is made to stay: a device that stays without a record would never be removed.
            record.write(tap, run_dir)?;
            queues.iter_mut().try_for_each(|queue| queue.persist(true))
        });
        if let Err(error) = kept {
            // Not an error: the port works, and only its device ends with the process.
            log::warn!("TAP device {} will not outlive this process: {error}", tap.device);
        }
    }
    Ok(queues)
}

/// Records a device that was made by other means than [`open`], with what tells it from another that may be wanted under its
/// name later.
///
/// # Errors
/// The device is not there, or the record cannot be written.
pub(super) fn record_made(tap: &TapPort, origin: &str, run_dir: &RunDir) -> io::Result<()> {
    let identity = identity(tap)?.unwrap_or_default();
    let record = DeviceRecord { identity, queues: 1, origin: origin.into(), ..DeviceRecord::default() };
    record.write(tap, run_dir)
}

/// What [`record_made`] recorded of the device that has the name now; nothing if it is somebody else's.
pub(super) fn origin(tap: &TapPort, run_dir: &RunDir) -> io::Result<Option<String>> {
    let found = identity(tap)?;
    Ok(DeviceRecord::read(tap, run_dir).filter(|record| Some(&record.identity) == found.as_ref()).map(|it| it.origin))
}

/// Records the present configuration of a device of the switch.
pub fn record_interface(tap: &TapPort, interface: &Interface, run_dir: &RunDir) {
    if let Some(mut record) = DeviceRecord::read(tap, run_dir) {
        record.set(Some(interface));
        if let Err(error) = record.write(tap, run_dir) {
            log::warn!("the configuration of TAP device {} cannot be recorded: {error}", tap.device);
        }
    }
}

/// Removes a device that no process has open any more, if it is the switch's.
///
/// # Errors
/// The kernel's error, with the device.
pub fn remove(tap: &TapPort, run_dir: &RunDir) -> io::Result<()> {
    let Some(record) = DeviceRecord::read(tap, run_dir) else { return Ok(()) };
    // If the namespace is gone, so are its devices.
    let found = identity(tap).unwrap_or_default();
    if found == Some(record.identity) {
        delete(tap)?;
    }
    let path = path(&tap.device, tap.namespace.as_deref(), run_dir);
    let _ = fs::remove_file(&path);
    // The folder of a namespace is removed with its last device.
    let _ = path.parent().filter(|_| tap.namespace.is_some()).map(fs::remove_dir);
    Ok(())
}

/// The devices that the switch of this run directory made.
pub fn made(run_dir: &RunDir) -> Vec<TapPort> {
    let namespaces = run_dir::names_in(&run_dir.devices().join(NAMESPACES_FOLDER));
    let all = namespaces.into_iter().map(Some).chain([None]);
    let devices = all.flat_map(|namespace| {
        let folder = path("", namespace.as_deref(), run_dir);
        run_dir::names_in(&folder).into_iter().map(move |device| TapPort {
            device,
            namespace: namespace.clone(),
            create_namespace: false,
            configure: false,
            mtu_bytes: TapPort::default_mtu_bytes(),
        })
    });
    devices.filter(|tap| DeviceRecord::read(tap, run_dir).is_some()).collect()
}

/// Removes the devices and namespaces that the switch of this run directory made. Calls `is_gone` with each device
/// removed.
///
/// # Errors
/// The kernel's error, with the device or the namespace.
pub fn remove_all(run_dir: &RunDir, mut is_gone: impl FnMut(&TapPort)) -> io::Result<Vec<String>> {
    for tap in made(run_dir) {
        remove(&tap, run_dir)?;
        is_gone(&tap);
    }
    let names = namespace::made(run_dir);
    names.iter().try_for_each(|name| namespace::remove_if_made(name, run_dir))?;
    Ok(names)
}

/// The identity of the device that has the name now, if there is one.
pub(crate) fn identity(tap: &TapPort) -> io::Result<Option<String>> {
    namespace::within_any(tap.namespace.as_deref(), || {
        let index = netlink::index(&tap.device)?;
        // The index alone is not enough: another namespace may have the same one.
        index.map(|index| namespace::current().map(|namespace| format!("{namespace} {index}"))).transpose()
    })
}

fn delete(tap: &TapPort) -> io::Result<()> {
    namespace::within_any(tap.namespace.as_deref(), || netlink::delete(&tap.device))
}

fn path(device: &str, namespace: Option<&str>, run_dir: &RunDir) -> PathBuf {
    match namespace {
        Some(name) => run_dir.devices().join(NAMESPACES_FOLDER).join(name.replace('/', "_")).join(device),
        None => run_dir.devices().join(HOST_FOLDER).join(device),
    }
}

impl DeviceRecord {
    fn set(&mut self, interface: Option<&Interface>) {
        self.addresses = interface.map(|interface| interface.addresses.clone()).unwrap_or_default();
        self.gateways = interface.map(|interface| interface.gateways.clone()).unwrap_or_default();
    }

    fn read(tap: &TapPort, run_dir: &RunDir) -> Option<Self> {
        let text = fs::read_to_string(path(&tap.device, tap.namespace.as_deref(), run_dir)).ok()?;
        let mut record = Self::default();
        for line in text.lines() {
            let (word, value) = line.split_once(' ')?;
            match word {
                "identity" => record.identity = value.into(),
                "queues" => record.queues = value.parse().ok()?,
                "origin" => record.origin = value.into(),
                "address" => record.addresses.push(value.parse().ok()?),
                "gateway" => record.gateways.push(value.parse().ok()?),
                _ => {}
            }
        }
        Some(record)
    }

    fn write(&self, tap: &TapPort, run_dir: &RunDir) -> io::Result<()> {
        let Self { identity, queues, origin, addresses, gateways } = self;
        let mut text = format!("identity {identity}\nqueues {queues}\n");
        if !origin.is_empty() {
            text.push_str(&format!("origin {origin}\n"));
        }
        addresses.iter().for_each(|address| text.push_str(&format!("address {address}\n")));
        gateways.iter().for_each(|gateway| text.push_str(&format!("gateway {gateway}\n")));
        run_dir.write(&path(&tap.device, tap.namespace.as_deref(), run_dir), &text)
    }
}
