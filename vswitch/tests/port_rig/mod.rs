//! A port of each kind, and the guest at its other end.

use crate::virtio;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};
use vswitch::os::io_uring::BatchRing;
use vswitch::os::namespace;
use vswitch::os::run_dir::RunDir;
use vswitch::os::sys::{self, TapMode};
use vswitch::port::af_packet::AfPacketPort;
use vswitch::port::buffer_pool::{BufferPool, PoolSize};
use vswitch::port::factory::{InterfaceIo, PortFactory};
use vswitch::port::memory::MemoryGuest;
use vswitch::port::spec::PortSpec;
use vswitch::port::tap::{TapIo, socket};
use vswitch::port::{Port, Received};
use vswitch_core::config::desired::{self, TapPort};
use vswitch_core::config::ids::{EniId, MacAddress};
use vswitch_core::config::limits::BURST_PACKETS;
use vswitch_core::packet::offload::{Offload, Offloads};
use vswitch_core::packet::verdict::Verdict;
use vswitch_core::packet::{FrameBuffer, Packet};

/// The type of our frames, for local experiments (IEEE 802 §9.2.4); what kernels say of their own accord has others.
pub(crate) const ETHER_TYPE: [u8; 2] = [0x88, 0xb5];

/// How long a test waits for what must come.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TestedPort {
    Memory,
    Tap(TapIo),
    /// A TAP device that is handed over.
    TapSocket,
    Packet,
    Xdp,
    /// With a guest that has packed rings, or split ones.
    VhostUser {
        is_packed: bool,
    },
    Stream,
}

pub(crate) const KINDS: [TestedPort; 9] = [
    TestedPort::Memory,
    TestedPort::Stream,
    TestedPort::Tap(TapIo::Plain),
    TestedPort::Tap(TapIo::Uring),
    TestedPort::TapSocket,
    TestedPort::Packet,
    TestedPort::Xdp,
    TestedPort::VhostUser { is_packed: false },
    TestedPort::VhostUser { is_packed: true },
];

impl TestedPort {
    /// Whether a device of the kernel is behind it.
    pub(crate) fn is_of_kernel(self) -> bool {
        !matches!(self, Self::Memory | Self::VhostUser { .. } | Self::Stream)
    }

    /// Whether frames cross it with what is left undone.
    pub(crate) fn has_offloads(self) -> bool {
        !matches!(self, Self::Xdp | Self::Stream)
    }
}

/// A port and its guest.
pub(crate) struct PortRig {
    pub(crate) kind: TestedPort,
    pub(crate) namespace: String,
    pub(crate) factory: PortFactory,
    pub(crate) port: Option<Box<dyn Port>>,
    pub(crate) pool: BufferPool,
    pub(crate) guest: Option<PortGuest>,
}

pub(crate) enum PortGuest {
    Memory(MemoryGuest),
    Interface(AfPacketPort, BufferPool),
    Virtio(Box<virtio::VirtualMachine>, tempfile::TempDir),
    Stream(Option<UnixStream>, tempfile::TempDir),
}

pub(crate) fn eni() -> EniId {
    EniId::from("eni-1")
}

pub(crate) fn pool() -> BufferPool {
    BufferPool::new(PoolSize { small: 256, large: 64 })
}

/// Rigs of all kinds that this machine has.
pub(crate) fn rigs(test: &str) -> impl Iterator<Item = PortRig> {
    KINDS.into_iter().filter_map(move |kind| PortRig::new(test, kind))
}

impl PortRig {
    pub(crate) fn new(test: &str, kind: TestedPort) -> Option<Self> {
        let is_able = rustix::process::geteuid().is_root() && std::path::Path::new("/dev/net/tun").exists();
        if kind.is_of_kernel() && !is_able || kind == TestedPort::Tap(TapIo::Uring) && BatchRing::new().is_err() {
            eprintln!("SKIPPED: {kind:?} needs root, /dev/net/tun and, by rings, a kernel that gives them");
            return None;
        }
        let tap_io = if let TestedPort::Tap(io) = kind { io } else { TapIo::Plain };
        let interface_io = if kind == TestedPort::Xdp { InterfaceIo::Xdp } else { InterfaceIo::Packet };
        let factory = PortFactory { tap_io, interface_io, ..PortFactory::default() };
        let namespace = format!("sluice-port-{test}-{}", std::process::id());
        let mut rig = Self { kind, namespace, factory, port: None, pool: pool(), guest: None };
        if kind == TestedPort::Memory {
            let guest = rig.factory.memory.guest(&eni());
            guest.set_offloads(Offloads::ALL);
            rig.guest = Some(PortGuest::Memory(guest));
            rig.open();
            return Some(rig);
        }
        if let TestedPort::VhostUser { is_packed } = kind {
            let features = virtio::MODERN | if is_packed { virtio::PACKED } else { 0 };
            let guest = Box::new(virtio::VirtualMachine::new(features, 1, 256));
            rig.guest = Some(PortGuest::Virtio(guest, tempfile::tempdir().unwrap()));
            rig.open();
            return Some(rig);
        }
        if kind == TestedPort::Stream {
            rig.guest = Some(PortGuest::Stream(None, tempfile::tempdir().unwrap()));
            rig.open();
            return Some(rig);
        }
        namespace::ensure(&rig.namespace, &RunDir::default()).unwrap();
        namespace::within(&rig.namespace, || std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1")).unwrap();
        namespace::within(&rig.namespace, || std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"))
            .unwrap();
        rig.open();
        let far =
            desired::PacketPort { device: "eth0".into(), namespace: Some(rig.namespace.clone()), mtu_bytes: 9000 };
        rig.guest = Some(PortGuest::Interface(AfPacketPort::open(&far).unwrap(), pool()));
        Some(rig)
    }

    /// Opens the port, with a device in the kernel that is up.
    pub(crate) fn open(&mut self) {
        let namespace = Some(self.namespace.clone());
        let mtu_bytes = self.mtu_bytes();
        let mtu = mtu_bytes.to_string();
        let port = match self.kind {
            TestedPort::Memory => desired::DesiredPort::Memory,
            TestedPort::Tap(_) => {
                let (create_namespace, configure) = (false, false);
                let device = "eth0".into();
                desired::DesiredPort::Tap(TapPort { device, namespace, create_namespace, configure, mtu_bytes })
            }
            TestedPort::TapSocket => {
                let path = self.tap_socket().to_str().unwrap().to_owned();
                desired::DesiredPort::TapSocket(desired::TapSocketPort { path, socket_user: None, mtu_bytes })
            }
            TestedPort::Packet | TestedPort::Xdp => {
                self.ip(&["link", "add", "port0", "mtu", &mtu, "type", "veth", "peer", "name", "eth0"]);
                self.ip(&["link", "set", "port0", "up"]);
                desired::DesiredPort::Packet(desired::PacketPort { device: "port0".into(), namespace, mtu_bytes })
            }
            TestedPort::Stream => {
                let (path, is_client, socket_user) = (self.socket_path(), false, None);
                desired::DesiredPort::Stream(desired::StreamPort { path, is_client, socket_user, mtu_bytes })
            }
            TestedPort::VhostUser { .. } => {
                let path = self.socket_path();
                desired::DesiredPort::VhostUser(desired::VhostUserPort {
                    path,
                    is_client: false,
                    queues: 1,
                    socket_user: None,
                    mtu_bytes,
                })
            }
        };
        let (spec, started) = (PortSpec { port, mac: MacAddress([2, 0, 0, 0, 0, 5]), interface: None }, Instant::now());
        let opened = loop {
            match self.factory.open(&eni(), &spec) {
                // A program that another test starts holds all descriptors of this process for a moment.
                Err(error) if error.kind() == ErrorKind::ResourceBusy && started.elapsed() < WAIT_MAX => {}
                opened => break opened,
            }
        };
        self.port = Some(opened.unwrap());
        if self.kind == TestedPort::TapSocket {
            self.hand_over();
        }
        self.connect_guest();
        if self.kind.is_of_kernel() {
            self.ip(&["link", "set", "eth0", "mtu", &mtu, "up"]);
        }
    }

    fn tap_socket(&self) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("{}.sock", self.namespace))
    }

    /// Makes the guest's device, and hands it over.
    fn hand_over(&mut self) {
        let mode = TapMode { has_header: true, has_queues: false };
        let device = namespace::within(&self.namespace, || sys::open_tap("eth0", mode)).unwrap();
        let path = self.tap_socket();
        let handed = std::thread::spawn(move || socket::hand_over(&path, &[device]));
        self.receive_until_peer();
        handed.join().unwrap().unwrap();
    }

    /// Receives until the program at the other end is there.
    fn receive_until_peer(&mut self) {
        let (port, started) = (self.port.as_mut().unwrap(), Instant::now());
        while port.peer().unwrap().problem().is_some() {
            assert!(started.elapsed() < WAIT_MAX, "{:?}", port.peer());
            take(port.as_mut(), &mut self.pool, 0, &mut Vec::new()).unwrap();
        }
    }

    /// Where the front end of a virtual machine connects.
    pub(crate) fn socket_path(&self) -> String {
        match self.guest.as_ref().unwrap() {
            PortGuest::Virtio(_, folder) | PortGuest::Stream(_, folder) => {
                folder.path().join("port.sock").to_str().unwrap().to_owned()
            }
            _ => String::new(),
        }
    }

    /// Has a virtual machine connect, and start its queues.
    pub(crate) fn connect_guest(&mut self) {
        let path = if self.guest.is_some() { self.socket_path() } else { return };
        match self.guest.as_mut().unwrap() {
            PortGuest::Virtio(guest, _) => {
                guest.connect(path.as_ref());
                guest.start();
                guest.fill();
            }
            PortGuest::Stream(guest, _) => {
                let socket = UnixStream::connect(path).unwrap();
                socket.set_read_timeout(Some(WAIT_MAX)).unwrap();
                *guest = Some(socket);
            }
            PortGuest::Memory(_) | PortGuest::Interface(..) => return,
        }
        self.receive_until_peer();
    }

    /// A veth end takes programs in its driver for frames within a page only.
    pub(crate) fn mtu_bytes(&self) -> u16 {
        if self.kind == TestedPort::Xdp { 1500 } else { 9000 }
    }

    pub(crate) fn ip(&self, arguments: &[&str]) {
        let _ = Command::new("ip").args(["-n", &self.namespace]).args(arguments).output().unwrap();
    }

    /// The device that the port holds.
    pub(crate) fn device(&self) -> &'static str {
        if matches!(self.kind, TestedPort::Packet | TestedPort::Xdp) { "port0" } else { "eth0" }
    }

    pub(crate) fn port(&mut self) -> &mut dyn Port {
        self.port.as_mut().unwrap().as_mut()
    }

    /// The guest sends.
    pub(crate) fn give(&mut self, frames: &[Vec<u8>], offload: Offload) {
        match self.guest.as_mut().unwrap() {
            PortGuest::Memory(guest) => {
                frames.iter().for_each(|frame| assert!(guest.inject_with_offload(frame, offload)))
            }
            PortGuest::Interface(socket, _) => {
                let mut burst: Vec<Packet> = frames.iter().map(|frame| packet(frame, offload)).collect();
                socket.send(&mut burst).unwrap();
                assert!(burst.iter().all(|packet| packet.verdict == Verdict::Deliver), "{:?}", self.kind);
            }
            PortGuest::Stream(socket, _) => {
                // In one piece, for which the socket has room.
                let framed = |frame: &Vec<u8>| [&(frame.len() as u32).to_be_bytes()[..], frame].concat();
                let bytes: Vec<u8> = frames.iter().flat_map(framed).collect();
                socket.as_mut().unwrap().write_all(&bytes).unwrap();
            }
            PortGuest::Virtio(guest, _) => {
                let shapes = [virtio::FrameLayout::One, virtio::FrameLayout::Pieces, virtio::FrameLayout::Indirect];
                // All shapes in turn, but no more descriptors at once than the ring has.
                let shape = |at: usize| if frames.len() > 40 { virtio::FrameLayout::One } else { shapes[at % 3] };
                frames.iter().enumerate().for_each(|(at, frame)| guest.send(1, frame, offload, shape(at)));
            }
        }
    }

    /// The guest receives until it has `count` of our frames.
    pub(crate) fn collect(&mut self, count: usize) -> Vec<(Vec<u8>, Offload)> {
        let mut frames = Vec::new();
        let started = Instant::now();
        while frames.len() < count {
            assert!(started.elapsed() < WAIT_MAX, "{:?}: {} of {count} came", self.kind, frames.len());
            match self.guest.as_mut().unwrap() {
                PortGuest::Memory(guest) => frames.extend(guest.collect_with_offload()),
                PortGuest::Interface(socket, pool) => take(socket, pool, usize::MAX, &mut frames).map(drop).unwrap(),
                PortGuest::Stream(socket, _) => {
                    let (socket, mut length) = (socket.as_mut().unwrap(), [0; 4]);
                    socket.read_exact(&mut length).unwrap();
                    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
                    socket.read_exact(&mut frame).unwrap();
                    frames.push((frame, Offload::NONE));
                }
                PortGuest::Virtio(guest, _) => frames.extend(guest.collect(0)),
            }
        }
        frames
    }

    /// The port receives until it is drained, or has `count` of our frames.
    pub(crate) fn receive(&mut self, count: usize) -> Vec<(Vec<u8>, Offload)> {
        let mut frames = Vec::new();
        let port = self.port.as_mut().unwrap().as_mut();
        let started = Instant::now();
        while frames.len() < count {
            assert!(started.elapsed() < WAIT_MAX, "{:?}: {} of {count} came", self.kind, frames.len());
            take(port, &mut self.pool, count - frames.len(), &mut frames).unwrap();
        }
        frames
    }

    /// The fates of frames that the port sends.
    pub(crate) fn send(&mut self, frames: &[Vec<u8>], offload: Offload) -> Vec<Verdict> {
        let mut burst: Vec<Packet> = frames.iter().map(|frame| packet(frame, offload)).collect();
        self.port().send(&mut burst).unwrap();
        assert!(
            burst.iter().zip(frames).all(|(packet, frame)| packet.buffer.frame() == frame),
            "they stay as they are"
        );
        burst.iter().map(|packet| packet.verdict).collect()
    }
}

impl Drop for PortRig {
    fn drop(&mut self) {
        if self.kind.is_of_kernel() {
            let _ = namespace::remove_if_made(&self.namespace, &RunDir::default());
        }
    }
}

/// One receive; our frames of it.
pub(crate) fn take(
    port: &mut dyn Port,
    pool: &mut BufferPool,
    packets_max: usize,
    frames: &mut Vec<(Vec<u8>, Offload)>,
) -> std::io::Result<Received> {
    let mut burst = Vec::new();
    let received = port.receive(pool, &mut burst, packets_max.min(BURST_PACKETS))?;
    for packet in burst {
        let frame = packet.buffer.frame();
        if frame.get(12..14).is_some_and(|kind| kind == ETHER_TYPE || kind == [8, 0] || kind == [0x81, 0]) {
            frames.push((frame.to_vec(), packet.offload));
        }
        pool.put(packet.buffer);
    }
    Ok(received)
}

pub(crate) fn packet(frame: &[u8], offload: Offload) -> Packet {
    let mut buffer = FrameBuffer::with_capacity(frame.len());
    buffer.fill(frame);
    Packet::claiming(buffer, offload)
}

/// A frame with a number in it, of a length that goes with the number.
pub(crate) fn frame(number: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, ETHER_TYPE[0], ETHER_TYPE[1]];
    frame.extend((number as u32).to_be_bytes());
    frame.resize(60 + number * 37 % 1400, number as u8);
    frame
}

pub(crate) fn frames(numbers: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    numbers.map(frame).collect()
}

pub(crate) fn bare(frames: Vec<(Vec<u8>, Offload)>) -> Vec<Vec<u8>> {
    frames.into_iter().map(|(frame, _)| frame).collect()
}
