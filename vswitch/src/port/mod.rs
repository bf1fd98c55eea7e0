//! Where frames enter and leave. A port moves bytes in bursts and judges nothing.
//!
//! The worker that owns a port calls it; [`PortFactory::open`] runs on the control thread, where it may take its time. A port that
//! fails says so with an `io::Error` and is not called again: the control thread closes it and opens another.

pub mod isolated;
pub mod memory;
mod pace;
pub mod packet;
pub mod persistent;
pub mod pool;
pub mod steering;
pub mod tap;
pub mod virtio;
pub mod wrap;
pub mod xdp;
pub mod xdp_socket;

use crate::netlink::Interface;
use crate::notes::Notes;
use pool::BufferPool;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use vswitch_core::config::desired;
use vswitch_core::config::ids::{EniId, MacAddress};
use vswitch_core::config::limits::ETHERNET_HEADER_BYTES;
use vswitch_core::packet::Packet;
use vswitch_core::packet::offload::Offloads;
use vswitch_core::packet::verdict::{DropReason, Verdict};

/// What a port has left after a burst was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Nothing: the next frame makes the port's descriptor readable anew.
    Drained,
    /// There may be more: the burst or the pool came to its end first.
    MaybeMore,
}

/// How many packets a port said were out, since it was opened, and how many of these its kernel has taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Packets with the verdict [`Verdict::Deliver`].
    pub given: u64,
    /// Those of them that can be kept from the guest no more: they are in the kernel's hands.
    pub taken: u64,
}

impl Sent {
    /// Packets that are still inside the port.
    pub const fn held(self) -> u64 {
        self.given - self.taken
    }
}

/// A source and sink of frames, owned by one worker.
pub trait Port: Send + fmt::Debug {
    /// Receives up to `packets_max` packets into buffers of the pool and appends them to the burst, in order.
    ///
    /// # Errors
    /// The port has failed for good. Packets received before the failure are in the burst.
    fn receive(&mut self, pool: &mut BufferPool, burst: &mut Vec<Packet>, packets_max: usize) -> io::Result<Received>;

    /// Sends a burst in order. What is left undone in its packets is among [`Port::offloads`]. Sets the verdict of
    /// every packet, also where it fails: [`Verdict::Deliver`] if it is out, or will be as [`Port::sent`] tells, else
    /// why it is dropped: the port is full ([`DropReason::PortFull`]) or down, or will never take such a packet
    /// ([`DropReason::PortRefused`]). Frames stay as they are; what is in front of them may change.
    ///
    /// # Errors
    /// The port has failed for good.
    fn send(&mut self, burst: &mut [Packet]) -> io::Result<()>;

    /// How much of what it sent is really out. A port whose [`Port::send`] returns with nothing inside need not count.
    fn sent(&self) -> Sent {
        Sent::default()
    }

    /// Tries once more to get out what is still inside.
    ///
    /// # Errors
    /// The port has failed for good.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// What packets for this port may leave undone. Does not change while the port is open.
    fn offloads(&self) -> Offloads {
        Offloads::NONE
    }

    /// It will not be opened again: a device that was made for it goes with it.
    fn retire(&mut self) {}

    /// What becomes readable when the port has frames; a port without is asked at every turn.
    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Tells of packets that none of them is out.
fn drop_all(burst: &mut [Packet], reason: DropReason) {
    burst.iter_mut().for_each(|packet| packet.verdict = Verdict::Drop(reason));
}

/// What a running port was, or a wished-for port should be, opened from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortWish {
    /// What the desired state says.
    pub port: desired::Port,
    /// The ENI's hardware address.
    pub mac: MacAddress,
    /// What to set on the device; none where the guest configures its own end.
    pub interface: Option<Interface>,
}

impl PortWish {
    /// The name of the kind of port, as in `PortStatus`.
    pub fn kind(&self) -> &'static str {
        match self.port {
            desired::Port::Tap(_) => "tap",
            desired::Port::Packet(_) => "packet",
            desired::Port::Memory => "memory",
        }
    }

    /// The TAP device, if it is one.
    pub fn tap(&self) -> Option<&desired::TapPort> {
        match &self.port {
            desired::Port::Tap(tap) => Some(tap),
            desired::Port::Packet(_) | desired::Port::Memory => None,
        }
    }

    /// What it is and where, for the text of errors.
    pub fn place(&self) -> String {
        match &self.port {
            desired::Port::Tap(tap) => tap::place(tap),
            desired::Port::Packet(interface) => packet::place(interface),
            desired::Port::Memory => "memory".into(),
        }
    }

    /// The interface, if it is one that exists already.
    pub fn interface_that_exists(&self) -> Option<&desired::PacketPort> {
        match &self.port {
            desired::Port::Packet(packet) => Some(packet),
            desired::Port::Tap(_) | desired::Port::Memory => None,
        }
    }

    /// Whether a port of this kind may have several lanes.
    pub fn has_lanes(&self) -> bool {
        self.interface_that_exists().is_none()
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
        self.device().is_some()
            && self.kind() == other.kind()
            && self.device() == other.device()
            && self.tap().map(|tap| tap.configure) == other.tap().map(|tap| tap.configure)
    }
}

/// How frames cross TAP devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TapIo {
    /// One system call for each.
    #[default]
    Plain,
    /// Many in one call, through a ring of the kernel.
    Uring,
}

/// How frames cross interfaces that exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InterfaceIo {
    /// By a raw socket, with offloads.
    #[default]
    Packet,
    /// By an XDP socket where interface and kernel have it, else by a raw one.
    Xdp,
}

/// How ports are made, and what tests may put around them.
#[derive(Clone, Debug, Default)]
pub struct PortFactory {
    /// Whether TAP devices carry every frame whole and by itself, without offloads.
    pub plain_taps: bool,
    /// How frames cross TAP devices.
    pub tap_io: TapIo,
    /// How frames cross interfaces that exist.
    pub interface_io: InterfaceIo,
    /// Whether TCP segments that come one by one are put together for ports that take long frames.
    pub coalesces: bool,
    /// Workers that receive for each TAP device and memory port; one if zero.
    pub lanes: usize,
    /// Queues that each of them is opened with, so that it can have as many lanes later; as many as lanes if fewer.
    pub lanes_max: usize,
    /// Where the far ends of memory ports are found.
    pub memory: memory::MemoryHub,
    /// Where it is noted what the switch made and took, for its next process; TAP devices end with the switch where that is
    /// nowhere.
    pub notes: Option<Notes>,
    /// Faults to inject into every port.
    pub faults: Option<wrap::Faults>,
}

impl PortFactory {
    /// Queues that a port is opened with, if its kind has several.
    pub fn queues(&self) -> usize {
        self.lanes.max(self.lanes_max).max(1)
    }

    fn tap_offloads(&self) -> Offloads {
        if self.plain_taps { Offloads::NONE } else { Offloads::ALL }
    }

    /// Opens the port of an ENI.
    ///
    /// # Errors
    /// Why it cannot be opened now, naming device and namespace.
    pub fn open(&self, eni: &EniId, wish: &PortWish) -> io::Result<Box<dyn Port>> {
        let first = self.open_lanes(eni, wish, 1)?.into_iter().next();
        first.ok_or_else(|| io::Error::other("a port has one lane at least"))
    }

    /// Opens the port of an ENI with up to `lanes` lanes: each receives a part of its frames, all those of a flow the
    /// same one. What is sent on any of them arrives. At least one, where there is no error.
    ///
    /// # Errors
    /// As [`PortFactory::open`].
    pub fn open_lanes(&self, eni: &EniId, wish: &PortWish, lanes: usize) -> io::Result<Vec<Box<dyn Port>>> {
        let ports: Vec<Box<dyn Port>> = match &wish.port {
            desired::Port::Tap(tap) => {
                self.open_tap(tap, wish, lanes)?.into_iter().map(|tap| Box::new(tap) as _).collect()
            }
            desired::Port::Packet(packet) => vec![self.open_interface(packet)?],
            desired::Port::Memory => (0..lanes).map(|lane| Box::new(self.memory.open(eni, lane)) as _).collect(),
        };
        Ok(match self.faults {
            Some(faults) => ports.into_iter().map(|port| Box::new(wrap::Faulty::new(port, faults)) as _).collect(),
            None => ports,
        })
    }

    fn open_tap(&self, tap: &desired::TapPort, wish: &PortWish, lanes: usize) -> io::Result<Vec<tap::Tap>> {
        // What the guest configures itself is its own, once it has it: only a device that is made here and now is set up, and
        // where it is the guest's own device, which one of the host need not be.
        let is_to_be_set = wish.interface.is_none() && tap.namespace.is_some();
        let before = if is_to_be_set { persistent::identity(tap).unwrap_or_default() } else { None };
        let how = (self.tap_offloads(), self.tap_io);
        let queues = match &self.notes {
            Some(notes) => persistent::open(tap, wish.interface.as_ref(), how, lanes, notes)?,
            None => tap::Tap::open_lanes(tap, wish.interface.as_ref(), how, lanes)?,
        };
        if is_to_be_set && persistent::identity(tap)? != before {
            tap::set_link(tap, wish.mac)?;
        }
        Ok(queues)
    }

    fn open_interface(&self, interface: &desired::PacketPort) -> io::Result<Box<dyn Port>> {
        // First, so that its guest reaches no kernel while the port is down either.
        isolated::isolate(interface, self.notes.as_ref())?;
        if self.interface_io == InterfaceIo::Xdp {
            match xdp::XdpPort::open(interface) {
                Ok(port) => return Ok(Box::new(port)),
                // If there is more amiss than that, the raw socket says so.
                Err(error) => log::warn!("no XDP socket, so a raw one: {error}"),
            }
        }
        Ok(Box::new(packet::PacketPort::open(interface)?))
    }
}
