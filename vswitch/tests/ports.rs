//! What every port promises, for each kind and each way of moving frames: the contract of [`Port`]. The far end of a port
//! of the kernel is a raw socket on the guest's interface. Without root, kernel ports say so and pass.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod virtio;

use std::io::ErrorKind;
use std::process::Command;
use std::time::{Duration, Instant};
use vswitch::os::io_uring::BatchRing;
use vswitch::os::namespace;
use vswitch::os::run_dir::RunDir;
use vswitch::port::af_packet::AfPacketPort;
use vswitch::port::af_xdp::AfXdpPort;
use vswitch::port::buffer_pool::{BufferPool, PoolSize};
use vswitch::port::factory::{InterfaceIo, PortFactory};
use vswitch::port::memory::MemoryGuest;
use vswitch::port::spec::PortSpec;
use vswitch::port::tap::TapIo;
use vswitch::port::{Port, Received};
use vswitch_core::config::desired::{self, TapPort};
use vswitch_core::config::ids::{EniId, MacAddress};
use vswitch_core::config::limits::BURST_PACKETS;
use vswitch_core::packet::offload::{Offload, Offloads, PartialChecksum, Segmentation};
use vswitch_core::packet::verdict::DropReason;
use vswitch_core::packet::verdict::Verdict;
use vswitch_core::packet::{FrameBuffer, Packet};

/// The type of our frames, for local experiments (IEEE 802 §9.2.4); what kernels say of their own accord has others.
const ETHER_TYPE: [u8; 2] = [0x88, 0xb5];

/// How long a test waits for what must come.
const WAIT_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TestedPort {
    Memory,
    Tap(TapIo),
    Packet,
    Xdp,
    /// With a guest that has packed rings, or split ones.
    VhostUser {
        is_packed: bool,
    },
}

const KINDS: [TestedPort; 7] = [
    TestedPort::Memory,
    TestedPort::Tap(TapIo::Plain),
    TestedPort::Tap(TapIo::Uring),
    TestedPort::Packet,
    TestedPort::Xdp,
    TestedPort::VhostUser { is_packed: false },
    TestedPort::VhostUser { is_packed: true },
];

impl TestedPort {
    /// Whether a device of the kernel is behind it.
    fn is_of_kernel(self) -> bool {
        !matches!(self, Self::Memory | Self::VhostUser { .. })
    }
}

/// A port and its guest.
struct PortRig {
    kind: TestedPort,
    namespace: String,
    factory: PortFactory,
    port: Option<Box<dyn Port>>,
    pool: BufferPool,
    guest: Option<PortGuest>,
}

enum PortGuest {
    Memory(MemoryGuest),
    Interface(AfPacketPort, BufferPool),
    Virtio(Box<virtio::Guest>, tempfile::TempDir),
}

fn eni() -> EniId {
    EniId::from("eni-1")
}

fn pool() -> BufferPool {
    BufferPool::new(PoolSize { small: 256, large: 64 })
}

/// Rigs of all kinds that this machine has.
fn rigs(test: &str) -> impl Iterator<Item = PortRig> {
    KINDS.into_iter().filter_map(move |kind| PortRig::new(test, kind))
}

impl PortRig {
    fn new(test: &str, kind: TestedPort) -> Option<Self> {
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
            let guest = Box::new(virtio::Guest::new(features, 1, 256));
            rig.guest = Some(PortGuest::Virtio(guest, tempfile::tempdir().unwrap()));
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
    fn open(&mut self) {
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
            TestedPort::Packet | TestedPort::Xdp => {
                self.ip(&["link", "add", "port0", "mtu", &mtu, "type", "veth", "peer", "name", "eth0"]);
                self.ip(&["link", "set", "port0", "up"]);
                desired::DesiredPort::Packet(desired::PacketPort { device: "port0".into(), namespace, mtu_bytes })
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
        self.connect_guest();
        if self.kind.is_of_kernel() {
            self.ip(&["link", "set", "eth0", "mtu", &mtu, "up"]);
        }
    }

    /// Where the front end of a virtual machine connects.
    fn socket_path(&self) -> String {
        match self.guest.as_ref().unwrap() {
            PortGuest::Virtio(_, folder) => folder.path().join("port.sock").to_str().unwrap().to_owned(),
            _ => String::new(),
        }
    }

    /// Has a virtual machine connect, and start its queues.
    fn connect_guest(&mut self) {
        let path = if let Some(PortGuest::Virtio(..)) = &self.guest { self.socket_path() } else { return };
        let Some(PortGuest::Virtio(guest, _)) = &mut self.guest else { return };
        guest.connect(path.as_ref());
        guest.start();
        guest.fill();
        let (port, started) = (self.port.as_mut().unwrap(), Instant::now());
        while port.peer().unwrap().problem().is_some() {
            assert!(started.elapsed() < WAIT_MAX, "{:?}", port.peer());
            take(port.as_mut(), &mut self.pool, 0, &mut Vec::new()).unwrap();
        }
    }

    /// A veth end takes programs in its driver for frames within a page only.
    fn mtu_bytes(&self) -> u16 {
        if self.kind == TestedPort::Xdp { 1500 } else { 9000 }
    }

    fn ip(&self, arguments: &[&str]) {
        let _ = Command::new("ip").args(["-n", &self.namespace]).args(arguments).output().unwrap();
    }

    /// The device that the port holds.
    fn device(&self) -> &'static str {
        if matches!(self.kind, TestedPort::Packet | TestedPort::Xdp) { "port0" } else { "eth0" }
    }

    fn port(&mut self) -> &mut dyn Port {
        self.port.as_mut().unwrap().as_mut()
    }

    /// The guest sends.
    fn give(&mut self, frames: &[Vec<u8>], offload: Offload) {
        match self.guest.as_mut().unwrap() {
            PortGuest::Memory(guest) => {
                frames.iter().for_each(|frame| assert!(guest.inject_with_offload(frame, offload)))
            }
            PortGuest::Interface(socket, _) => {
                let mut burst: Vec<Packet> = frames.iter().map(|frame| packet(frame, offload)).collect();
                socket.send(&mut burst).unwrap();
                assert!(burst.iter().all(|packet| packet.verdict == Verdict::Deliver), "{:?}", self.kind);
            }
            PortGuest::Virtio(guest, _) => {
                let shapes = [virtio::Shape::One, virtio::Shape::Pieces, virtio::Shape::Indirect];
                // All shapes in turn, but no more descriptors at once than the ring has.
                let shape = |at: usize| if frames.len() > 40 { virtio::Shape::One } else { shapes[at % 3] };
                frames.iter().enumerate().for_each(|(at, frame)| guest.send(1, frame, offload, shape(at)));
            }
        }
    }

    /// The guest receives until it has `count` of our frames.
    fn collect(&mut self, count: usize) -> Vec<(Vec<u8>, Offload)> {
        let mut frames = Vec::new();
        let started = Instant::now();
        while frames.len() < count {
            assert!(started.elapsed() < WAIT_MAX, "{:?}: {} of {count} came", self.kind, frames.len());
            match self.guest.as_mut().unwrap() {
                PortGuest::Memory(guest) => frames.extend(guest.collect_with_offload()),
                PortGuest::Interface(socket, pool) => take(socket, pool, usize::MAX, &mut frames).map(drop).unwrap(),
                PortGuest::Virtio(guest, _) => frames.extend(guest.collect(0)),
            }
        }
        frames
    }

    /// The port receives until it is drained, or has `count` of our frames.
    fn receive(&mut self, count: usize) -> Vec<(Vec<u8>, Offload)> {
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
    fn send(&mut self, frames: &[Vec<u8>], offload: Offload) -> Vec<Verdict> {
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
fn take(
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

fn packet(frame: &[u8], offload: Offload) -> Packet {
    let mut buffer = FrameBuffer::with_capacity(frame.len());
    buffer.fill(frame);
    Packet::claiming(buffer, offload)
}

/// A frame with a number in it, of a length that goes with the number.
fn frame(number: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, ETHER_TYPE[0], ETHER_TYPE[1]];
    frame.extend((number as u32).to_be_bytes());
    frame.resize(60 + number * 37 % 1400, number as u8);
    frame
}

fn frames(numbers: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    numbers.map(frame).collect()
}

fn bare(frames: Vec<(Vec<u8>, Offload)>) -> Vec<Vec<u8>> {
    frames.into_iter().map(|(frame, _)| frame).collect()
}

#[test]
fn frames_pass_both_ways_whole_and_in_order() {
    for mut rig in rigs("order") {
        let free = rig.pool.free_count();
        let mut at = 0;
        for count in [1, 1, 2, 7, 32, 33, 100, 0, 1, 64] {
            let some = frames(at..at + count);
            rig.give(&some, Offload::NONE);
            assert_eq!(bare(rig.receive(count)), some, "{:?}", rig.kind);
            assert_eq!(rig.send(&some, Offload::NONE), vec![Verdict::Deliver; count], "{:?}", rig.kind);
            assert_eq!(bare(rig.collect(count)), some, "{:?}", rig.kind);
            at += count;
        }
        let mut rest = Vec::new();
        while take(rig.port.as_mut().unwrap().as_mut(), &mut rig.pool, 32, &mut rest).unwrap() != Received::Drained {}
        assert!(rest.is_empty(), "{:?}: what it sent must not come back: {rest:?}", rig.kind);
        assert_eq!(rig.pool.free_count(), free, "no buffer is lost");
    }
}

#[test]
fn a_port_takes_no_more_than_it_is_asked_for() {
    for mut rig in rigs("asked") {
        let some = frames(0..50);
        rig.give(&some, Offload::NONE);
        let mut got = Vec::new();
        for packets_max in [1, 2, 3, 4, 5, 6, 7, 22] {
            got.extend(bare(rig.receive(packets_max)));
        }
        assert_eq!(got, some, "{:?}: what is not asked for waits", rig.kind);
    }
}

#[test]
fn without_buffers_frames_wait() {
    for mut rig in rigs("wait") {
        let some = frames(0..40);
        rig.give(&some, Offload::NONE);
        let mut poor = BufferPool::new(PoolSize { small: 3, large: 2 });
        let (mut got, mut held) = (Vec::new(), Vec::new());
        while got.len() < some.len() {
            let mut burst = Vec::new();
            let received = rig.port().receive(&mut poor, &mut burst, BURST_PACKETS).unwrap();
            assert!(burst.len() <= 5, "it has no more buffers");
            if burst.is_empty() && held.is_empty() {
                assert_eq!(received, Received::Drained);
            }
            let is_ours = |packet: &&Packet| packet.buffer.frame()[12..14] == ETHER_TYPE;
            got.extend(burst.iter().filter(is_ours).map(|packet| packet.buffer.frame().to_vec()));
            // The buffers of one burst come back after the next was tried.
            held.into_iter().for_each(|packet: Packet| poor.put(packet.buffer));
            held = burst;
        }
        assert_eq!(got, some, "{:?}", rig.kind);
    }
}

#[test]
fn what_is_left_undone_passes_with_the_frame() {
    for mut rig in rigs("undone").filter(|rig| rig.kind != TestedPort::Xdp) {
        let (long, offload) = datagrams(60_000, 1400);
        let (short, sum_only) = datagrams(100, 0);
        for (frame, offload) in [(long, offload), (short, sum_only)] {
            assert!(rig.port().offloads().contains(Offloads::ALL), "{:?}", rig.kind);
            rig.give(std::slice::from_ref(&frame), offload);
            assert_eq!(rig.receive(1), [(frame.clone(), offload)], "{:?}", rig.kind);
            rig.send(std::slice::from_ref(&frame), offload);
            assert_eq!(rig.collect(1), [(frame, offload)], "{:?}", rig.kind);
        }
    }
}

/// Datagrams of `segment_bytes` as one frame; one with its checksum undone if that is zero.
fn datagrams(data_bytes: usize, segment_bytes: u16) -> (Vec<u8>, Offload) {
    let length = (8 + data_bytes) as u16;
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame[16..18].copy_from_slice(&(20 + length).to_be_bytes());
    let words = frame[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    frame[24..26].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    frame.extend([0x10, 0, 0x20, 0, 0, 0, 0, 0]);
    frame[38..40].copy_from_slice(&length.to_be_bytes());
    let sum = 0x0a00 + 1 + 0x0a00 + 2 + 17 + u32::from(length);
    frame[40..42].copy_from_slice(&(((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    frame.resize(frame.len() + data_bytes, 7);
    let is_long = segment_bytes > 0;
    let offload = Offload {
        checksum: Some(PartialChecksum { start: 34, offset: 6 }),
        segmentation: if is_long { Segmentation::Udp } else { Segmentation::None },
        segment_bytes,
        header_bytes: if is_long { 42 } else { 0 },
        marks_congestion_once: false,
    };
    (frame, offload)
}

#[test]
fn what_a_port_refuses_is_dropped_alone() {
    for mut rig in rigs("refused") {
        let mut some = frames(0..9);
        some[4].truncate(5);
        if let Some(PortGuest::Memory(guest)) = &rig.guest {
            guest.refuse(5);
        }
        let mut expected = vec![Verdict::Deliver; 9];
        expected[4] = Verdict::Drop(DropReason::PortRefused);
        assert_eq!(rig.send(&some, Offload::NONE), expected, "{:?}", rig.kind);
        some.remove(4);
        assert_eq!(bare(rig.collect(8)), some, "{:?}", rig.kind);
    }
}

#[test]
fn a_tap_whose_guest_sets_it_down_drops_and_comes_back() {
    for mut rig in rigs("down").filter(|rig| matches!(rig.kind, TestedPort::Tap(_))) {
        let some = frames(0..40);
        rig.ip(&["link", "set", "eth0", "down"]);
        let mut none = Vec::new();
        while take(rig.port.as_mut().unwrap().as_mut(), &mut rig.pool, 32, &mut none).unwrap() != Received::Drained {}
        assert_eq!(rig.send(&some, Offload::NONE), vec![Verdict::Drop(DropReason::PortDown); 40], "{:?}", rig.kind);
        rig.ip(&["link", "set", "eth0", "up"]);
        assert_eq!(rig.send(&some, Offload::NONE), vec![Verdict::Deliver; 40], "{:?}", rig.kind);
    }
}

#[test]
fn an_interface_that_is_down_is_no_port_until_it_is_up() {
    let Some(mut rig) = PortRig::new("link", TestedPort::Packet) else { return };
    rig.ip(&["link", "set", "port0", "down"]);
    assert_eq!(rig.send(&frames(0..2), Offload::NONE), [Verdict::Drop(DropReason::PortDown); 2]);
    let error = take(rig.port.as_mut().unwrap().as_mut(), &mut rig.pool, 32, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("is down"), "{error}");
    let (device, namespace) = ("port0".to_owned(), Some(rig.namespace.clone()));
    let error = AfPacketPort::open(&desired::PacketPort { device, namespace, mtu_bytes: 1500 }).unwrap_err();
    assert!(error.to_string().contains("is down"), "{error}");
    rig.open();
    assert_eq!(rig.send(&frames(0..2), Offload::NONE), [Verdict::Deliver; 2]);
}

#[test]
fn a_removed_device_is_an_error_that_says_so_and_can_be_had_again() {
    for mut rig in rigs("removed").filter(|rig| rig.kind.is_of_kernel()) {
        rig.ip(&["link", "delete", rig.device()]);
        let started = Instant::now();
        let error = loop {
            assert!(started.elapsed() < WAIT_MAX, "{:?}", rig.kind);
            match take(rig.port.as_mut().unwrap().as_mut(), &mut rig.pool, 32, &mut Vec::new()) {
                Ok(_) => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.contains("was removed") && error.contains(&rig.namespace), "{error}");
        let mut burst = [packet(&frame(0), Offload::NONE), packet(&frame(1), Offload::NONE)];
        assert!(rig.port().send(&mut burst).is_err(), "{:?}", rig.kind);
        assert!(burst.iter().all(|packet| packet.verdict == Verdict::Drop(DropReason::PortDown)), "{:?}", rig.kind);
        rig.port = None;
        rig.open();
        assert_eq!(rig.send(&frames(0..2), Offload::NONE), [Verdict::Deliver; 2], "{:?}", rig.kind);
    }
}

#[test]
fn a_port_closed_with_frames_waiting_leaves_nothing_behind() {
    for mut rig in rigs("closed").filter(|rig| matches!(rig.kind, TestedPort::Tap(_))) {
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        rig.give(&frames(0..50), Offload::NONE);
        rig.receive(3);
        rig.guest = None;
        rig.port = None;
        let before = open();
        const TIMES: usize = 40;
        for _ in 0..TIMES {
            rig.open();
            rig.send(&frames(0..3), Offload::NONE);
            rig.port = None;
        }
        // Other tests of this process open and close meanwhile, but not so many.
        assert!(open() < before + TIMES, "{:?}", rig.kind);
    }
}

#[test]
fn a_tag_that_the_kernel_took_out_is_put_back() {
    let Some(mut rig) = PortRig::new("tagged", TestedPort::Packet) else { return };
    let mut tagged = frame(3);
    tagged.splice(12..12, [0x81, 0, 0x20, 7]);
    rig.give(std::slice::from_ref(&tagged), Offload::NONE);
    assert_eq!(bare(rig.receive(1)), [tagged]);
}

#[test]
fn an_interface_that_is_none_is_refused_with_the_reason() {
    let Some(rig) = PortRig::new("none", TestedPort::Packet) else { return };
    for (device, reason) in [("absent0", "there is no such interface"), ("lo", "no Ethernet interface")] {
        let (device, namespace) = (device.to_owned(), Some(rig.namespace.clone()));
        let error = AfPacketPort::open(&desired::PacketPort { device, namespace, mtu_bytes: 1500 }).unwrap_err();
        assert!(error.to_string().contains(reason) && error.to_string().contains(&rig.namespace), "{error}");
    }
}

fn interface(rig: &PortRig) -> desired::PacketPort {
    desired::PacketPort { device: "port0".into(), namespace: Some(rig.namespace.clone()), mtu_bytes: 1500 }
}

#[test]
fn an_xdp_port_tells_checksums_that_are_undone_and_takes_none() {
    let Some(mut rig) = PortRig::new("xdp-sum", TestedPort::Xdp) else { return };
    assert_eq!(rig.port().offloads(), Offloads::NONE);
    let link = Command::new("ip").args(["-n", &rig.namespace, "-d", "link", "show", "port0"]).output().unwrap();
    let link = String::from_utf8(link.stdout).unwrap();
    assert!(link.contains("promiscuity 1") && link.contains("xdp"), "{link}");
    let (frame, offload) = datagrams(100, 0);
    rig.give(std::slice::from_ref(&frame), offload);
    assert_eq!(rig.receive(1), [(frame.clone(), offload)]);
    rig.give(std::slice::from_ref(&frame), Offload::NONE);
    assert_eq!(rig.receive(1), [(frame, offload)], "nobody says so, but it is to be seen");
    let (mut summed, _) = datagrams(100, 0);
    summed[40] ^= 0x55;
    rig.give(std::slice::from_ref(&summed), Offload::NONE);
    assert_eq!(rig.receive(1), [(summed, Offload::NONE)]);
}

#[test]
fn an_xdp_port_whose_interface_is_set_down_drops_and_comes_back() {
    let Some(mut rig) = PortRig::new("xdp-down", TestedPort::Xdp) else { return };
    rig.ip(&["link", "set", "port0", "down"]);
    // The first to find out; what is in line then waits there.
    rig.send(&frames(0..2), Offload::NONE);
    assert_eq!(rig.send(&frames(2..9), Offload::NONE), [Verdict::Drop(DropReason::PortDown); 7]);
    let mut none = Vec::new();
    for _ in 0..20 {
        assert_eq!(take(rig.port.as_mut().unwrap().as_mut(), &mut rig.pool, 32, &mut none).unwrap(), Received::Drained);
    }
    rig.ip(&["link", "set", "port0", "up"]);
    assert_eq!(rig.send(&frames(9..20), Offload::NONE), [Verdict::Deliver; 11]);
    assert_eq!(bare(rig.collect(13)), [frames(0..2), frames(9..20)].concat());
}

#[test]
fn where_an_xdp_socket_cannot_be_a_raw_one_takes_its_place() {
    let Some(mut rig) = PortRig::new("xdp-not", TestedPort::Xdp) else { return };
    let error = AfXdpPort::open(&interface(&rig)).unwrap_err().to_string();
    assert!(error.contains("has the interface already") && error.contains(&rig.namespace), "{error}");
    rig.port = None;
    let remake = |rig: &PortRig, options: &[&str]| {
        rig.ip(&["link", "delete", "port0"]);
        rig.ip(&[&["link", "add", "port0"], options, &["type", "veth", "peer", "name", "eth0"], options].concat());
        rig.ip(&["link", "set", "eth0", "up"]);
        rig.ip(&["link", "set", "port0", "up"]);
    };
    remake(&rig, &["numrxqueues", "2", "numtxqueues", "2"]);
    let error = AfXdpPort::open(&interface(&rig)).unwrap_err().to_string();
    assert!(error.contains("over 2 queues"), "{error}");
    remake(&rig, &["mtu", "9000"]);
    let error = AfXdpPort::open(&interface(&rig)).unwrap_err().to_string();
    assert!(error.contains("lower the MTU"), "{error}");
    let spec =
        PortSpec { port: desired::DesiredPort::Packet(interface(&rig)), mac: MacAddress::default(), interface: None };
    let port = rig.factory.open(&eni(), &spec).unwrap();
    assert!(port.offloads().contains(Offloads::CHECKSUM), "{port:?}");
}

#[test]
fn after_an_xdp_port_the_kernel_has_the_frames_again() {
    let Some(mut rig) = PortRig::new("xdp-end", TestedPort::Xdp) else { return };
    let mut kernel = AfPacketPort::open(&interface(&rig)).unwrap();
    let (mut pool, mut seen) = (pool(), Vec::new());
    rig.give(&frames(0..3), Offload::NONE);
    assert_eq!(bare(rig.receive(3)), frames(0..3));
    rig.port = None;
    let started = Instant::now();
    while seen.is_empty() && started.elapsed() < WAIT_MAX {
        // A program that another test starts holds all descriptors of this process for a moment, the port's too.
        rig.give(&frames(3..5), Offload::NONE);
        std::thread::sleep(Duration::from_millis(20));
        take(&mut kernel, &mut pool, 32, &mut seen).unwrap();
    }
    let seen = bare(seen);
    assert!(!seen.is_empty() && seen.iter().all(|frame| frames(3..5).contains(frame)), "and had none before");
}
