//! A macvtap device: a hardware address of its own on the network of another device, the lower device, which may be in
//! another network namespace. Its frames come through a character device as those of a TAP device do.
//!
//! The device is made in the namespace of the switch, wherever its lower device is, since the names of character devices
//! and the part of `/sys` that tells their numbers are those of one namespace. It is recorded like a TAP device
//! ([`persistent`]), stays when the process ends, and is removed with its port.

use super::{Device, Tap, TapIo, negotiate};
use crate::os::namespace;
use crate::os::netlink;
use crate::os::run_dir::RunDir;
use crate::os::sys;
use crate::port::tap::persistent;
use crate::port::virtio_header::HEADER_BYTES;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs;
use std::io;
use vswitch_core::config::desired::{MacvtapPort, TapPort};
use vswitch_core::config::ids::MacAddress;
use vswitch_core::packet::offload::Offloads;

/// Opens the device: the switch's own from before, or a new one.
///
/// # Errors
/// What failed and what would help, with the device and its lower device.
pub fn open(
    port: &MacvtapPort,
    mac: MacAddress,
    wanted: Offloads,
    io: TapIo,
    run_dir: Option<&RunDir>,
) -> io::Result<Tap> {
    let description = describe(port);
    let explain = |error: io::Error| io::Error::new(error.kind(), format!("{description}: {error}"));
    make(port, mac, run_dir).map_err(explain)?;
    netlink::start_macvtap(&port.device, mac, port.mtu_bytes).map_err(|error| explain(explain_start(port, error)))?;
    let descriptor = open_character_device(&port.device).map_err(explain)?;
    sys::set_macvtap_header(&descriptor).map_err(explain)?;
    let offloads = negotiate(&descriptor, wanted).map_err(explain)?.unwrap_or(Offloads::NONE);
    let batches = super::batches(io).map_err(explain)?;
    let device = Device { descriptor, header_bytes: HEADER_BYTES, may_block: false };
    Ok(Tap { device, offloads, batches, description, is_kept: false })
}

/// The device by itself, as it is recorded and removed.
pub(crate) fn device(port: &MacvtapPort) -> TapPort {
    let (device, mtu_bytes) = (port.device.clone(), port.mtu_bytes);
    TapPort { device, namespace: None, create_namespace: false, configure: false, mtu_bytes }
}

/// The error of a port whose device is gone.
pub(crate) fn removed(port: &MacvtapPort) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{}: the device was removed", describe(port)))
}

pub(in crate::port) fn describe(port: &MacvtapPort) -> String {
    format!("macvtap device {} on {}", port.device, lower(port))
}

fn lower(port: &MacvtapPort) -> String {
    match &port.lower_namespace {
        Some(name) => format!("{} in network namespace {name}", port.lower_device),
        None => port.lower_device.clone(),
    }
}

/// Makes the device unless the one that has its name is what is wanted.
fn make(port: &MacvtapPort, mac: MacAddress, run_dir: Option<&RunDir>) -> io::Result<()> {
    let tap = device(port);
    let wanted = format!("{} {mac}", lower(port));
    let has_name = netlink::index(&port.device)?.is_some();
    match run_dir.map(|run_dir| persistent::origin(&tap, run_dir)).transpose()?.flatten() {
        Some(origin) if origin == wanted => return Ok(()),
        Some(_) => netlink::delete(&port.device)?,
        // Without records, whatever has the name is used.
        None if has_name && run_dir.is_none() => return Ok(()),
        None if has_name => {
            let text = format!(
                "a device of this name exists that the switch did not make: remove it (`ip link delete {}`), or give the \
                 uplink another identifier",
                port.device
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        None => {}
    }
    let own = fs::File::open("/proc/thread-self/ns/net")?;
    let add = || netlink::add_macvtap(&port.device, &port.lower_device, mac, own.as_fd());
    match &port.lower_namespace {
        // Told apart from errors of the device, which are explained.
        Some(name) => namespace::within(name, || Ok(add()))?,
        None => add(),
    }
    .map_err(|error| explain_making(port, error))?;
    // One that cannot be recorded would never be removed.
    let recorded = run_dir.map_or(Ok(()), |run_dir| persistent::record_made(&tap, &wanted, run_dir));
    recorded.inspect_err(|_| drop(netlink::delete(&port.device)))
}

fn explain_making(port: &MacvtapPort, error: io::Error) -> io::Error {
    let lower_device = &port.lower_device;
    let text = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NODEV) => format!("there is no device {}", lower(port)),
        Some(Errno::OPNOTSUPP) => {
            "the kernel has no macvtap devices: load its module `macvtap` (`modprobe macvtap`; CONFIG_MACVTAP)".into()
        }
        Some(Errno::BUSY) => {
            format!("{lower_device} is part of a bridge or bond: name the bridge or the bond itself instead")
        }
        Some(Errno::INVAL) => format!("{lower_device} is no Ethernet device that can carry others: {error}"),
        Some(Errno::PERM | Errno::ACCESS) => format!("{error}; this needs the capability CAP_NET_ADMIN"),
        _ => return error,
    };
    io::Error::new(error.kind(), text)
}

fn explain_start(port: &MacvtapPort, error: io::Error) -> io::Error {
    let text = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::INVAL) => format!("{error}; is {} above the MTU of {}?", port.mtu_bytes, port.lower_device),
        _ => return error,
    };
    io::Error::new(error.kind(), text)
}

/// Opens the character device that carries the frames of a macvtap device of this namespace.
fn open_character_device(device: &str) -> io::Result<OwnedFd> {
    let folder = format!("/sys/class/net/{device}");
    let entries = fs::read_dir(&folder).map_err(|error| {
        let text = format!("{folder}: {error}; /sys has to be that of the network namespace of the switch");
        io::Error::new(error.kind(), text)
    })?;
    let mut names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let is_tap = |name: &String| name.strip_prefix("tap").is_some_and(|number| number.parse::<u32>().is_ok());
    let name = names.find(is_tap).ok_or_else(|| io::Error::other("it is no macvtap device"))?;
    let numbers = fs::read_to_string(format!("{folder}/{name}/dev"))?;
    let path = format!("/dev/{name}");
    let missing = |kind, why: &str| {
        let (major, minor) = numbers.trim().split_once(':').unwrap_or_default();
        let text = format!(
            "{why}: where neither devtmpfs nor udev makes it, as in some containers, run \
             `mknod -m 600 {path} c {major} {minor}`; the switch tries again"
        );
        io::Error::new(kind, text)
    };
    // Non-blocking from the beginning: a worker never waits in a read.
    let descriptor = match rustix::fs::open(&path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) {
        Ok(descriptor) => descriptor,
        Err(Errno::NOENT) => return Err(missing(io::ErrorKind::NotFound, &format!("{path} is missing"))),
        Err(Errno::PERM | Errno::ACCESS) => {
            let text = format!("{path}: the device cgroup or its permissions forbid it to the switch: allow {numbers}");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text.trim_end().to_owned()));
        }
        Err(error) => return Err(io::Error::new(io::Error::from(error).kind(), format!("{path}: {error}"))),
    };
    // Another namespace's device of the same index has the same name there.
    let found = rustix::fs::fstat(&descriptor)?.st_rdev;
    match format!("{}:{}", rustix::fs::major(found), rustix::fs::minor(found)) == numbers.trim() {
        true => Ok(descriptor),
        false => Err(missing(io::ErrorKind::InvalidData, &format!("{path} is another device"))),
    }
}
