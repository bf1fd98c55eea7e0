//! TAP devices that outlive the process that made them: a guest keeps device, addresses, routes and whatever it set itself,
//! through every end of the forwarding plane and until the next one has it again.
//!
//! The kernel keeps a device that it is told to keep. What was set on it is noted beside the control socket, so that the next process knows it for its own, changes only what has changed meanwhile, and may
//! remove it. A device that somebody else made is never noted, and stays as it is.

use crate::os::namespace;
use crate::os::netlink::{self, Interface};
use crate::os::notes::{self, Notes};
use crate::port::tap::{self, Tap, TapIo};
use std::fs;
use std::io;
use std::path::PathBuf;
use vswitch_core::desired::TapPort;
use vswitch_core::offload::Offloads;

/// Folders of notes, of devices of the host and of namespaces, each with a folder of its own.
const HOST_FOLDER: &str = "host";
const NAMESPACES_FOLDER: &str = "namespaces";

/// What is noted of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Note {
    /// Which device of which namespace: another one of the same name has another identity.
    identity: String,
    queues: usize,
    addresses: Vec<ipnet::IpNet>,
    gateways: Vec<std::net::IpAddr>,
}

/// Opens a device for the switch of these notes: its own from before, or a new one, which then outlives the
/// process, or one that somebody else made. Else as [`Tap::open_rx_queues`].
///
/// # Errors
/// As there.
pub fn open(
    tap: &TapPort,
    interface: Option<&Interface>,
    how: (Offloads, TapIo),
    rx_queues: usize,
    notes: &Notes,
) -> io::Result<Vec<Tap>> {
    if let Some(name) = tap.namespace.as_deref().filter(|_| tap.create_namespace) {
        namespace::ensure(name, notes)?;
    }
    // Where that cannot be told, opening says why.
    let Ok(mut found) = identity(tap) else { return Tap::open_rx_queues(tap, interface, how, rx_queues) };
    let mut own = Note::read(tap, notes).filter(|note| Some(&note.identity) == found.as_ref());
    if own.as_ref().is_some_and(|note| note.queues != rx_queues) {
        // The kernel fixes at its making whether a device may have several queues.
        delete(tap)?;
        (found, own) = (None, None);
    }
    let mut queues = Tap::open_rx_queues(tap, interface, how, rx_queues)?;
    if let (Some(note), Some(interface)) = (&own, interface) {
        let (addresses, gateways) = (note.addresses.clone(), note.gateways.clone());
        tap::adjust(tap, interface, Some(&Interface { addresses, gateways, ..interface.clone() }))?;
    }
    if found.is_none() || own.is_some() {
        let kept = identity(tap).and_then(|identity| {
            let mut note = Note { queues: rx_queues, ..Note::default() };
            note.identity = identity.unwrap_or_default();
            note.set(interface);
            note.write(tap, notes)?;
            queues.iter_mut().try_for_each(|queue| queue.persist(true))
        });
        if let Err(error) = kept {
            log::warn!("TAP device {} will not outlive this process: {error}", tap.device);
        }
    }
    Ok(queues)
}

/// Notes what is set on a device of the switch by now.
pub fn note_interface(tap: &TapPort, interface: &Interface, notes: &Notes) {
    if let Some(mut note) = Note::read(tap, notes) {
        note.set(Some(interface));
        if let Err(error) = note.write(tap, notes) {
            log::warn!("what is set on TAP device {} cannot be noted: {error}", tap.device);
        }
    }
}

/// Removes a device that nobody holds any more, if it is the switch's.
///
/// # Errors
/// What the kernel says, with the device.
pub fn remove(tap: &TapPort, notes: &Notes) -> io::Result<()> {
    let Some(note) = Note::read(tap, notes) else { return Ok(()) };
    // A namespace that is gone took its devices along.
    let found = identity(tap).unwrap_or_default();
    if found == Some(note.identity) {
        delete(tap)?;
    }
    let path = path(&tap.device, tap.namespace.as_deref(), notes);
    let _ = fs::remove_file(&path);
    // The folder of a namespace goes with its last device.
    let _ = path.parent().filter(|_| tap.namespace.is_some()).map(fs::remove_dir);
    Ok(())
}

/// The devices that the switch of these notes made.
pub fn made(notes: &Notes) -> Vec<TapPort> {
    let namespaces = notes::names_in(&notes.devices().join(NAMESPACES_FOLDER));
    let all = namespaces.into_iter().map(Some).chain([None]);
    let devices = all.flat_map(|namespace| {
        let folder = path("", namespace.as_deref(), notes);
        notes::names_in(&folder).into_iter().map(move |device| TapPort {
            device,
            namespace: namespace.clone(),
            create_namespace: false,
            configure: false,
            mtu_bytes: TapPort::default_mtu_bytes(),
        })
    });
    devices.filter(|tap| Note::read(tap, notes).is_some()).collect()
}

/// Removes the devices and namespaces that the switch of these notes made. Tells of each that is gone.
///
/// # Errors
/// What the kernel says, with the device or the namespace.
pub fn remove_all(notes: &Notes, mut is_gone: impl FnMut(&TapPort)) -> io::Result<Vec<String>> {
    for tap in made(notes) {
        remove(&tap, notes)?;
        is_gone(&tap);
    }
    let names = namespace::made(notes);
    names.iter().try_for_each(|name| namespace::remove_if_made(name, notes))?;
    Ok(names)
}

/// The device that the name means now, if there is one.
pub(crate) fn identity(tap: &TapPort) -> io::Result<Option<String>> {
    namespace::within_any(tap.namespace.as_deref(), || {
        let index = netlink::index(&tap.device)?;
        index.map(|index| namespace::current().map(|namespace| format!("{namespace} {index}"))).transpose()
    })
}

fn delete(tap: &TapPort) -> io::Result<()> {
    namespace::within_any(tap.namespace.as_deref(), || netlink::delete(&tap.device))
}

fn path(device: &str, namespace: Option<&str>, notes: &Notes) -> PathBuf {
    match namespace {
        Some(name) => notes.devices().join(NAMESPACES_FOLDER).join(name.replace('/', "_")).join(device),
        None => notes.devices().join(HOST_FOLDER).join(device),
    }
}

impl Note {
    fn set(&mut self, interface: Option<&Interface>) {
        self.addresses = interface.map(|interface| interface.addresses.clone()).unwrap_or_default();
        self.gateways = interface.map(|interface| interface.gateways.clone()).unwrap_or_default();
    }

    fn read(tap: &TapPort, notes: &Notes) -> Option<Self> {
        let text = fs::read_to_string(path(&tap.device, tap.namespace.as_deref(), notes)).ok()?;
        let mut note = Self::default();
        for line in text.lines() {
            let (word, value) = line.split_once(' ')?;
            match word {
                "identity" => note.identity = value.into(),
                "queues" => note.queues = value.parse().ok()?,
                "address" => note.addresses.push(value.parse().ok()?),
                "gateway" => note.gateways.push(value.parse().ok()?),
                _ => {}
            }
        }
        Some(note)
    }

    fn write(&self, tap: &TapPort, notes: &Notes) -> io::Result<()> {
        let Self { identity, queues, addresses, gateways } = self;
        let mut text = format!("identity {identity}\nqueues {queues}\n");
        addresses.iter().for_each(|address| text.push_str(&format!("address {address}\n")));
        gateways.iter().for_each(|gateway| text.push_str(&format!("gateway {gateway}\n")));
        notes.write(&path(&tap.device, tap.namespace.as_deref(), notes), &text)
    }
}
