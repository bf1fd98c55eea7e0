//! TAP devices that another process hands over, well or ill.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use rustix::fs::OFlags;
use rustix::pipe::pipe;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use vswitch::os::namespace;
use vswitch::os::run_dir::RunDir;
use vswitch::os::sys::{self, TapMode};
use vswitch::port::buffer_pool::{BufferPool, PoolSize};
use vswitch::port::tap::socket::{TapSocket, hand_over};
use vswitch::port::{Port, Received};
use vswitch_core::config::desired::TapSocketPort;
use vswitch_core::config::limits::BURST_PACKETS;
use vswitch_core::packet::offload::Offloads;
use vswitch_core::packet::verdict::{DropReason, Verdict};
use vswitch_core::packet::{FrameBuffer, Packet};

const WAIT_MAX: Duration = Duration::from_secs(60);

/// A port, and a namespace with the devices that are handed over.
struct Handover {
    folder: tempfile::TempDir,
    namespace: String,
    port: TapSocket,
    pool: BufferPool,
}

impl Handover {
    fn new(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !std::path::Path::new("/dev/net/tun").exists() {
            eprintln!("SKIPPED: this needs root and /dev/net/tun");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tap.sock").to_str().unwrap().to_owned();
        let port = TapSocket::open(&TapSocketPort { path, socket_user: None, mtu_bytes: 1500 }, Offloads::ALL).unwrap();
        let namespace = format!("sluice-handover-{test}-{}", std::process::id());
        namespace::ensure(&namespace, &RunDir::default()).unwrap();
        Some(Self { folder, namespace, port, pool: BufferPool::new(PoolSize { small: 64, large: 64 }) })
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("tap.sock")
    }

    fn device(&self, name: &str, has_queues: bool) -> OwnedFd {
        let mode = TapMode { has_header: true, has_queues };
        namespace::within(&self.namespace, || sys::open_tap(name, mode)).unwrap()
    }

    fn receive(&mut self) -> Vec<Packet> {
        let mut burst = Vec::new();
        self.port.await_readiness();
        self.port.receive(&mut self.pool, &mut burst, BURST_PACKETS).unwrap();
        burst
    }

    fn hand_over(&mut self, queues: Vec<OwnedFd>) -> io::Result<UnixStream> {
        let (path, started) = (self.path(), Instant::now());
        let handed = std::thread::spawn(move || hand_over(&path, &queues));
        while !handed.is_finished() {
            assert!(started.elapsed() < WAIT_MAX, "no answer");
            self.receive();
        }
        handed.join().unwrap()
    }

    fn send(&mut self) -> Verdict {
        let mut buffer = FrameBuffer::with_capacity(64);
        buffer.fill(&[2; 60]);
        let mut burst = [Packet::new(buffer)];
        self.port.send(&mut burst).unwrap();
        burst[0].verdict
    }

    fn set_up(&self, device: &str) {
        let mut command = std::process::Command::new("ip");
        let done = command.args(["-n", &self.namespace, "link", "set", device, "up"]).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        let _ = namespace::remove_if_made(&self.namespace, &RunDir::default());
    }
}

#[test]
fn what_is_no_tap_device_is_refused_with_the_reason() {
    let Some(mut handover) = Handover::new("refused") else { return };
    let file = || OwnedFd::from(std::fs::File::open("/proc/self/status").unwrap());
    let tun = || OwnedFd::from(std::fs::File::open("/dev/net/tun").unwrap());
    let cases: [(Vec<OwnedFd>, &str); 5] = [
        (vec![], "1 to 16 descriptors"),
        (vec![pipe().unwrap().0], "no TAP device"),
        (vec![handover.device("one", false), file()], "no TAP device"),
        (vec![tun()], "refused"),
        (vec![handover.device("two", false), handover.device("three", false)], "different devices"),
    ];
    for (number, (descriptors, reason)) in cases.into_iter().enumerate() {
        let error = handover.hand_over(descriptors).unwrap_err().to_string();
        assert!(error.contains(reason), "{number}: {error}");
        assert_eq!(handover.port.peer().unwrap().faults(), number as u64 + 1);
        assert!(handover.port.peer().unwrap().problem().is_some());
        assert_eq!(handover.send(), Verdict::Drop(DropReason::PortDown));
    }
    handover.hand_over(vec![handover.device("four", false)]).unwrap();
    assert_eq!(handover.port.peer().unwrap().problem(), None);
}

#[test]
fn a_device_with_queues_sends_by_one_and_receives_by_all() {
    let Some(mut handover) = Handover::new("queues") else { return };
    let queues: Vec<_> = (0..3).map(|_| handover.device("eth0", true)).collect();
    handover.hand_over(queues).unwrap();
    handover.set_up("eth0");
    assert_eq!(handover.send(), Verdict::Deliver);
    assert!(handover.port.offloads().contains(Offloads::CHECKSUM));
    // What the kernel says when a device comes up, spread as it likes.
    let started = Instant::now();
    while handover.receive().is_empty() {
        assert!(started.elapsed() < WAIT_MAX);
    }
}

#[test]
fn nobody_makes_the_worker_wait() {
    let Some(mut handover) = Handover::new("wait") else { return };
    let device = handover.device("eth0", false);
    let kept = device.try_clone().unwrap();
    let _mute: Vec<_> = (0..5).map(|_| UnixStream::connect(handover.path()).unwrap()).collect();
    handover.hand_over(vec![device]).unwrap();
    rustix::fs::fcntl_setfl(&kept, OFlags::RDWR).unwrap();
    let mut burst = Vec::new();
    // Without frames, a read that may wait would never return.
    let received = handover.port.receive(&mut handover.pool, &mut burst, BURST_PACKETS).unwrap();
    assert_eq!((received, burst.len()), (Received::Drained, 0));
}

#[test]
fn a_device_that_is_gone_is_replaced_by_the_next() {
    let Some(mut handover) = Handover::new("gone") else { return };
    for _ in 0..3 {
        let launcher = handover.hand_over(vec![handover.device("eth0", false)]).unwrap();
        handover.set_up("eth0");
        assert_eq!(handover.send(), Verdict::Deliver);
        drop(launcher);
        assert_eq!(handover.send(), Verdict::Deliver, "the port has the device, not the connection");
        let mut command = std::process::Command::new("ip");
        assert!(command.args(["-n", &handover.namespace, "link", "delete", "eth0"]).status().unwrap().success());
        let started = Instant::now();
        while handover.port.peer().unwrap().problem().is_none() {
            assert!(started.elapsed() < WAIT_MAX);
            handover.receive();
        }
        let problem = handover.port.peer().unwrap().problem().unwrap();
        assert!(problem.contains("was removed") && problem.contains("hand over another"), "{problem}");
        assert_eq!(handover.send(), Verdict::Drop(DropReason::PortDown));
    }
}
