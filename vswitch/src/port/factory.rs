//! Opens ports of every kind.

use crate::os::run_dir::RunDir;
use crate::port::spec::PortSpec;
use crate::port::tap::{TapIo, macvtap, persistent};
use crate::port::{Port, af_packet, af_xdp, faults, isolation, memory, stream, tap, vhost_user};
use std::io;
use vswitch_core::config::desired;
use vswitch_core::config::ids::EniId;
use vswitch_core::packet::offload::Offloads;

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
    pub gro: bool,
    /// Workers that receive for each TAP device and memory port; one if zero.
    pub rx_queues: usize,
    /// Queues that each of them is opened with, so that it can have as many rx queues later; as many as rx queues if fewer.
    pub rx_queues_max: usize,
    /// Where the far ends of memory ports are found.
    pub memory: memory::MemoryHub,
    /// Where it is noted what the switch made and took, for its next process; TAP devices end with the switch where that is
    /// nowhere.
    pub run_dir: Option<RunDir>,
    /// Faults to inject into every port.
    pub faults: Option<faults::Faults>,
}

impl PortFactory {
    /// Queues that a port is opened with, if its kind has several.
    pub fn queues(&self) -> usize {
        self.rx_queues.max(self.rx_queues_max).max(1)
    }

    fn tap_offloads(&self) -> Offloads {
        if self.plain_taps { Offloads::NONE } else { Offloads::ALL }
    }

    /// Opens the port of an ENI.
    ///
    /// # Errors
    /// Why it cannot be opened now, naming device and namespace.
    pub fn open(&self, eni: &EniId, spec: &PortSpec) -> io::Result<Box<dyn Port>> {
        let first = self.open_rx_queues(eni, spec, 1)?.into_iter().next();
        first.ok_or_else(|| io::Error::other("a port has at least one rx queue"))
    }

    /// Opens the port of an ENI with up to `rx_queues` rx queues: each receives a part of its frames, all those of a flow the
    /// same one. What is sent on any of them arrives. At least one, where there is no error.
    ///
    /// # Errors
    /// As [`PortFactory::open`].
    pub fn open_rx_queues(&self, eni: &EniId, spec: &PortSpec, rx_queues: usize) -> io::Result<Vec<Box<dyn Port>>> {
        let ports: Vec<Box<dyn Port>> = match &spec.port {
            desired::DesiredPort::Tap(tap) => {
                self.open_tap(tap, spec, rx_queues)?.into_iter().map(|tap| Box::new(tap) as _).collect()
            }
            desired::DesiredPort::Packet(packet) => vec![self.open_interface(packet)?],
            desired::DesiredPort::Macvtap(port) => {
                let (offloads, run_dir) = (self.tap_offloads(), self.run_dir.as_ref());
                vec![Box::new(macvtap::open(port, spec.mac, offloads, self.tap_io, run_dir)?)]
            }
            desired::DesiredPort::VhostUser(socket) => {
                let parts = vhost_user::VhostUser::open(socket, spec.mac, rx_queues)?;
                parts.into_iter().map(|part| Box::new(part) as _).collect()
            }
            desired::DesiredPort::Stream(socket) => vec![Box::new(stream::UnixStreamPort::open(socket)?)],
            desired::DesiredPort::TapSocket(socket) => {
                vec![Box::new(tap::socket::TapSocket::open(socket, self.tap_offloads())?)]
            }
            desired::DesiredPort::Memory => {
                (0..rx_queues).map(|rx_queue| Box::new(self.memory.open(eni, rx_queue)) as _).collect()
            }
        };
        Ok(match self.faults {
            // Around each rx queue by itself, so that faults hit every queue.
            Some(faults) => {
                ports.into_iter().map(|port| Box::new(faults::FaultyPort::new(port, faults)) as _).collect()
            }
            None => ports,
        })
    }

    fn open_tap(&self, tap: &desired::TapPort, spec: &PortSpec, rx_queues: usize) -> io::Result<Vec<tap::Tap>> {
        // What the guest configures itself is its own, once it has it: only a device that is made here and now is set up, and
        // where it is the guest's own device, which one of the host need not be.
        let is_to_be_set = spec.interface.is_none() && tap.namespace.is_some();
        let before = if is_to_be_set { persistent::identity(tap).unwrap_or_default() } else { None };
        let how = (self.tap_offloads(), self.tap_io);
        let queues = match &self.run_dir {
            Some(run_dir) => persistent::open(tap, spec.interface.as_ref(), how, rx_queues, run_dir)?,
            None => tap::Tap::open_rx_queues(tap, spec.interface.as_ref(), how, rx_queues)?,
        };
        if is_to_be_set && persistent::identity(tap)? != before {
            tap::set_link(tap, spec.mac)?;
        }
        Ok(queues)
    }

    fn open_interface(&self, interface: &desired::PacketPort) -> io::Result<Box<dyn Port>> {
        // First, so that its guest reaches no kernel while the port is down either.
        isolation::isolate(interface, self.run_dir.as_ref())?;
        if self.interface_io == InterfaceIo::Xdp {
            match af_xdp::AfXdpPort::open(interface) {
                Ok(port) => return Ok(Box::new(port)),
                // If there is more amiss than that, the raw socket says so.
                Err(error) => log::warn!("using a raw socket instead of an XDP socket: {error}"),
            }
        }
        Ok(Box::new(af_packet::AfPacketPort::open(interface)?))
    }
}
