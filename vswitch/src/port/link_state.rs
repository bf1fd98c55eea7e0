//! Whether the devices of ports can carry frames, as the kernel says at this moment. A port that is open may be of no use:
//! whoever has its device sets it down, takes its carrier, or moves it into another network namespace.

use crate::os::namespace;
use crate::os::netlink::{self, Netlink};
use crate::port::spec::PortSpec;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use rustix::io::Errno;
use std::io;

/// What a device is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// It carries frames.
    Ready,
    /// It is up, and nothing is at its other end.
    NoCarrier,
    /// It is set down, and takes no frame.
    Down,
    /// It is not in its namespace any more.
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

    /// What is wrong with the device of a port, if anything is.
    pub(crate) fn problem(self, spec: &PortSpec) -> Option<String> {
        let device = spec.device().map_or("", |(device, _)| device);
        let text = match self {
            Self::Ready => return None,
            Self::NoCarrier => "it has no carrier".into(),
            Self::Down => format!("it is set down: `ip link set {device} up` where it is"),
            Self::Gone => "it was moved to another network namespace, or removed".to_owned(),
        };
        Some(format!("{}: {text}", spec.describe()))
    }
}

/// The kernel's number for the device of a port.
///
/// # Errors
/// What the kernel says.
pub(crate) fn index(spec: &PortSpec) -> io::Result<Option<u32>> {
    let Some((device, namespace)) = spec.device() else { return Ok(None) };
    namespace::within_any(namespace, || netlink::index(device))
}

/// What each of these devices of one namespace is good for.
///
/// # Errors
/// Why nothing can be told of any of them.
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
