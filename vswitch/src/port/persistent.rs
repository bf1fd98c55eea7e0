//! TAP devices that outlive the process that made them: a guest keeps device, addresses, routes and whatever it set itself,
//! through every end of the forwarding plane and until the next one has it again.
//!
//! The kernel keeps a device that it is told to keep. What was set on it, and for which switch, is noted under
//! `/run/sluice/devices`, so that the next process knows it for its own, changes only what has changed meanwhile, and may
//! remove it. A device that somebody else made is never noted, and stays as it is.

use crate::namespace;
use crate::netlink::{self, Interface};
use crate::port::TapIo;
use crate::port::tap::{self, Tap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use vswitch_core::config::desired::TapPort;
use vswitch_core::packet::offload::Offloads;

const HOST_FOLDER: &str = "/run/sluice/devices/host";
const NAMESPACES_FOLDER: &str = "/run/sluice/devices/namespaces";

/// What is noted of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Note {
    /// Which device of which namespace: another one of the same name has another identity.
    identity: String,
    queues: usize,
    owner: String,
    addresses: Vec<ipnet::IpNet>,
    gateways: Vec<std::net::IpAddr>,
}

/// Opens a device for the switch with the control socket `owner`: its own from before, or a new one, which then outlives the
/// process, or one that somebody else made. Else as [`Tap::open_lanes`].
///
/// # Errors
/// As there.
pub fn open(
    tap: &TapPort,
    interface: Option<&Interface>,
    how: (Offloads, TapIo),
    lanes: usize,
    owner: &Path,
) -> io::Result<Vec<Tap>> {
    if let Some(name) = tap.namespace.as_deref().filter(|_| tap.create_namespace) {
        namespace::ensure(name)?;
    }
    // Where that cannot be told, opening says why.
    let Ok(mut found) = identity(tap) else { return Tap::open_lanes(tap, interface, how, lanes) };
    let mut own = Note::read(tap).filter(|note| Some(&note.identity) == found.as_ref());
    if own.as_ref().is_some_and(|note| note.queues != lanes) {
        // The kernel fixes at its making whether a device may have several queues.
        delete(tap)?;
        (found, own) = (None, None);
    }
    let mut queues = Tap::open_lanes(tap, interface, how, lanes)?;
    if let (Some(note), Some(interface)) = (&own, interface) {
        let (addresses, gateways) = (note.addresses.clone(), note.gateways.clone());
        tap::adjust(tap, interface, Some(&Interface { addresses, gateways, ..interface.clone() }))?;
    }
    if found.is_none() || own.is_some() {
        let kept = identity(tap).and_then(|identity| {
            let mut note = Note { queues: lanes, owner: namespace::owner_text(owner), ..Note::default() };
            note.identity = identity.unwrap_or_default();
            note.set(interface);
            note.write(tap)?;
            queues.iter_mut().try_for_each(|queue| queue.persist(true))
        });
        if let Err(error) = kept {
            log::warn!("TAP device {} will not outlive this process: {error}", tap.device);
        }
    }
    Ok(queues)
}

/// Notes what is set on a device of the switch by now.
pub fn note_interface(tap: &TapPort, interface: &Interface) {
    if let Some(mut note) = Note::read(tap) {
        note.set(Some(interface));
        if let Err(error) = note.write(tap) {
            log::warn!("what is set on TAP device {} cannot be noted: {error}", tap.device);
        }
    }
}

/// Removes a device that nobody holds any more, if it is the switch's.
///
/// # Errors
/// What the kernel says, with the device.
pub fn remove(tap: &TapPort) -> io::Result<()> {
    let Some(note) = Note::read(tap) else { return Ok(()) };
    // A namespace that is gone took its devices along.
    let found = identity(tap).unwrap_or_default();
    if found == Some(note.identity) {
        delete(tap)?;
    }
    let path = path(&tap.device, tap.namespace.as_deref());
    let _ = fs::remove_file(&path);
    // The folder of a namespace goes with its last device.
    let _ = path.parent().filter(|_| tap.namespace.is_some()).map(fs::remove_dir);
    Ok(())
}

/// The devices that were made for the switch with the control socket `owner`.
pub fn made_for(owner: &Path) -> Vec<TapPort> {
    let owner = namespace::owner_text(owner);
    let names = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let places = names(Path::new(NAMESPACES_FOLDER)).into_iter().map(Some).chain([None]);
    let devices = places.flat_map(|namespace| {
        let folder = path("", namespace.as_deref());
        names(&folder).into_iter().map(move |device| TapPort {
            device,
            namespace: namespace.clone(),
            create_namespace: false,
            configure: false,
            mtu_bytes: TapPort::default_mtu_bytes(),
        })
    });
    devices.filter(|tap| Note::read(tap).is_some_and(|note| note.owner == owner)).collect()
}

/// Removes the devices and namespaces that were made for the switch with the control socket `owner`. Tells of each that is gone.
///
/// # Errors
/// What the kernel says, with the device or the namespace.
pub fn remove_all(owner: &Path, mut is_gone: impl FnMut(&TapPort)) -> io::Result<Vec<String>> {
    for tap in made_for(owner) {
        remove(&tap)?;
        is_gone(&tap);
    }
    let names = namespace::made_for(owner);
    names.iter().try_for_each(|name| namespace::remove_if_made(name))?;
    Ok(names)
}

/// The device that the name means now, if there is one.
fn identity(tap: &TapPort) -> io::Result<Option<String>> {
    namespace::within_any(tap.namespace.as_deref(), || {
        let index = netlink::index(&tap.device)?;
        index.map(|index| namespace::current().map(|namespace| format!("{namespace} {index}"))).transpose()
    })
}

fn delete(tap: &TapPort) -> io::Result<()> {
    namespace::within_any(tap.namespace.as_deref(), || netlink::delete(&tap.device))
}

fn path(device: &str, namespace: Option<&str>) -> PathBuf {
    match namespace {
        Some(name) => Path::new(NAMESPACES_FOLDER).join(name.replace('/', "_")).join(device),
        None => Path::new(HOST_FOLDER).join(device),
    }
}

impl Note {
    fn set(&mut self, interface: Option<&Interface>) {
        self.addresses = interface.map(|interface| interface.addresses.clone()).unwrap_or_default();
        self.gateways = interface.map(|interface| interface.gateways.clone()).unwrap_or_default();
    }

    fn read(tap: &TapPort) -> Option<Self> {
        let text = fs::read_to_string(path(&tap.device, tap.namespace.as_deref())).ok()?;
        let mut note = Self::default();
        for line in text.lines() {
            let (word, value) = line.split_once(' ')?;
            match word {
                "identity" => note.identity = value.into(),
                "queues" => note.queues = value.parse().ok()?,
                "owner" => note.owner = value.into(),
                "address" => note.addresses.push(value.parse().ok()?),
                "gateway" => note.gateways.push(value.parse().ok()?),
                _ => {}
            }
        }
        Some(note)
    }

    fn write(&self, tap: &TapPort) -> io::Result<()> {
        let Self { identity, queues, owner, addresses, gateways } = self;
        let mut text = format!("identity {identity}\nqueues {queues}\nowner {owner}\n");
        addresses.iter().for_each(|address| text.push_str(&format!("address {address}\n")));
        gateways.iter().for_each(|gateway| text.push_str(&format!("gateway {gateway}\n")));
        namespace::write_note(&path(&tap.device, tap.namespace.as_deref()), &text)
    }
}
