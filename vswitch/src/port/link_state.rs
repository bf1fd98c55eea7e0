//! Whether the devices of ports can carry frames at the moment, according to the kernel. A port may be open and yet
//! useless: somebody set its device down, disconnected it, or moved it to another network namespace.

use crate::os::namespace;
use crate::os::netlink::{self, Netlink};
use crate::port::spec::PortSpec;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use rustix::io::Errno;
use std::io;

/// The state of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// It carries frames.
    Ready,
    /// It is up, but has no carrier.
    NoCarrier,
    /// It is set down.
    Down,
    /// It is no longer in its namespace.
    Gone,
}

impl LinkState {
    fn of(flags: LinkFlags) -> Self {
        match (flags.contains(LinkFlags::Up), flags.contains(LinkFlags::LowerUp)) {
            (true, true) => Self::Ready,
            (true, false) => Self::NoCarrier,
            (false, _) => Self::Down,
        }
    }

    /// What is wrong with the device of a port, if anything.
    pub(crate) fn problem(self, spec: &PortSpec) -> Option<String> {
        let device = spec.device().map_or("", |(device, _)| device);
        let text = match self {
            Self::Ready => return None,
            Self::NoCarrier => "it has no carrier".into(),
            Self::Down => format!("it is set down: run `ip link set {device} up` in its namespace"),
            Self::Gone => "it was moved to another network namespace, or removed".to_owned(),
        };
        Some(format!("{}: {text}", spec.describe()))
    }
}

/// The kernel's index of a port's device.
///
/// # Errors
/// The kernel's error.
pub(crate) fn index(spec: &PortSpec) -> io::Result<Option<u32>> {
    let Some((device, namespace)) = spec.device() else { return Ok(None) };
    namespace::within_any(namespace, || netlink::index(device))
}

/// The states of these devices of one namespace.
///
/// # Errors
/// Why none of them can be determined.
pub(crate) fn query(namespace: Option<&str>, devices: &[u32]) -> io::Result<Vec<LinkState>> {
    namespace::within_any(namespace, || {
        let mut netlink = Netlink::open()?;
        devices.iter().map(|device| query_one(&mut netlink, *device)).collect()
    })
}

fn query_one(netlink: &mut Netlink, device: u32) -> io::Result<LinkState> {
    let mut wanted = LinkMessage::default();
    wanted.header.index = device;
    match netlink.get(RouteNetlinkMessage::GetLink(wanted)) {
        // Moved to another namespace, the device has its index there and none here.
        Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(LinkState::Gone),
        Err(error) => Err(error),
        Ok(told) => Ok(told.iter().find_map(link_of).unwrap_or(LinkState::Gone)),
    }
}

fn link_of(message: &RouteNetlinkMessage) -> Option<LinkState> {
    match message {
        RouteNetlinkMessage::NewLink(link) => Some(LinkState::of(link.header.flags)),
        _ => None,
    }
}
