//! What a port is opened from.

use crate::os::netlink::Interface;
use crate::port::{af_packet, stream, tap, vhost_user};
use vswitch_core::config::desired;
use vswitch_core::config::ids::MacAddress;
use vswitch_core::config::limits::ETHERNET_HEADER_BYTES;

/// What a running port was, or a desired port should be, opened from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// What the desired state says.
    pub port: desired::DesiredPort,
    /// The ENI's hardware address.
    pub mac: MacAddress,
    /// What to set on the device; none where the guest configures its own end.
    pub interface: Option<Interface>,
}

impl PortSpec {
    /// The name of the kind of port, as in `PortStatus`.
    pub fn kind(&self) -> &'static str {
        self.port.kind()
    }

    /// The macvtap device, if it is one.
    pub fn macvtap(&self) -> Option<&desired::MacvtapPort> {
        use desired::DesiredPort::{Macvtap, Memory, Packet, Stream, Tap, TapSocket, VhostUser};
        match &self.port {
            Macvtap(macvtap) => Some(macvtap),
            Tap(_) | Packet(_) | VhostUser(_) | Stream(_) | TapSocket(_) | Memory => None,
        }
    }

    /// The TAP device, if it is one.
    pub fn tap(&self) -> Option<&desired::TapPort> {
        use desired::DesiredPort::{Macvtap, Memory, Packet, Stream, Tap, TapSocket, VhostUser};
        match &self.port {
            Tap(tap) => Some(tap),
            Packet(_) | Macvtap(_) | VhostUser(_) | Stream(_) | TapSocket(_) | Memory => None,
        }
    }

    /// What it is and where, for the text of errors.
    pub fn describe(&self) -> String {
        match &self.port {
            desired::DesiredPort::Tap(tap) => tap::describe(tap),
            desired::DesiredPort::Packet(interface) => af_packet::describe(interface),
            desired::DesiredPort::Macvtap(macvtap) => tap::macvtap::describe(macvtap),
            desired::DesiredPort::VhostUser(socket) => vhost_user::describe(socket),
            desired::DesiredPort::Stream(socket) => stream::describe(socket),
            desired::DesiredPort::TapSocket(socket) => tap::socket::describe(socket),
            desired::DesiredPort::Memory => "memory".into(),
        }
    }

    /// The interface, if it is one that exists already.
    pub fn interface_that_exists(&self) -> Option<&desired::PacketPort> {
        use desired::DesiredPort::{Macvtap, Memory, Packet, Stream, Tap, TapSocket, VhostUser};
        match &self.port {
            Packet(packet) => Some(packet),
            Tap(_) | Macvtap(_) | VhostUser(_) | Stream(_) | TapSocket(_) | Memory => None,
        }
    }

    /// Whether a port of this kind may have several rx queues.
    pub fn has_rx_queues(&self) -> bool {
        use desired::DesiredPort::{Macvtap, Memory, Packet, Stream, Tap, TapSocket, VhostUser};
        match self.port {
            Tap(_) | VhostUser(_) | Memory => true,
            Packet(_) | Macvtap(_) | Stream(_) | TapSocket(_) => false,
        }
    }

    /// The longest frame that it may carry, bytes.
    pub fn frame_bytes_max(&self) -> usize {
        usize::from(self.port.mtu_bytes()) + ETHERNET_HEADER_BYTES
    }

    /// The device that this port alone may hold, by its name and namespace.
    pub fn device(&self) -> Option<(&str, Option<&str>)> {
        self.port.device()
    }

    /// Whether `other` can be had by setting this running port anew, without opening another.
    pub fn can_become(&self, other: &Self) -> bool {
        use desired::DesiredPort::{Macvtap, Memory, Packet, Stream, Tap, TapSocket, VhostUser};
        match (&self.port, &other.port) {
            // What is applied by netlink can be changed while the device is open; who configures it cannot.
            (Tap(old), Tap(new)) => self.device() == other.device() && old.configure == new.configure,
            (Packet(_), Packet(_)) => self.device() == other.device(),
            // Its peer stays connected where the MTU alone changes.
            (Stream(old), Stream(new)) => desired::StreamPort { mtu_bytes: new.mtu_bytes, ..old.clone() } == *new,
            (TapSocket(old), TapSocket(new)) => {
                desired::TapSocketPort { mtu_bytes: new.mtu_bytes, ..old.clone() } == *new
            }
            (Tap(_) | Packet(_) | Macvtap(_) | VhostUser(_) | Stream(_) | TapSocket(_) | Memory, _) => false,
        }
    }
}
