//! A vhost-user port that is turned by hand.

use super::{FrameLayout, VirtualMachine};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use vswitch::port::Port;
use vswitch::port::buffer_pool::{BufferPool, PoolSize};
use vswitch::port::vhost_user::{DeferredPayloads, VhostUser};
use vswitch_core::config::desired::VhostUserPort;
use vswitch_core::config::ids::MacAddress;
use vswitch_core::config::limits::BURST_PACKETS;
use vswitch_core::packet::offload::Offload;
use vswitch_core::packet::verdict::Verdict;
use vswitch_core::packet::{FrameBuffer, Packet};

/// How long a test waits for what must come.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);
/// A port, turned by hand.
pub(crate) struct SocketRig {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) parts: Vec<Box<dyn Port>>,
    pub(crate) pool: BufferPool,
}

impl SocketRig {
    pub(crate) fn new() -> Self {
        Self::with(|_| {}, 1)
    }

    pub(crate) fn with(adjust: impl FnOnce(&mut VhostUserPort), rx_queues: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vm.sock").to_str().unwrap().to_owned();
        let mut spec = VhostUserPort { path, is_client: false, queues: 4, socket_user: None, mtu_bytes: 1500 };
        adjust(&mut spec);
        let parts = VhostUser::open(&spec, MacAddress([2, 0, 0, 0, 0, 5]), rx_queues).unwrap();
        let parts = parts.into_iter().map(|part| Box::new(part) as Box<dyn Port>).collect();
        Self { folder, parts, pool: BufferPool::new(PoolSize { small: 256, large: 64 }) }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("vm.sock")
    }

    /// One receive of each part, as of workers that have just woken.
    pub(crate) fn receive(&mut self) -> Vec<Vec<u8>> {
        let (mut frames, mut payloads) = (Vec::new(), DeferredPayloads::default());
        for part in &mut self.parts {
            part.await_readiness();
            let mut burst = Vec::with_capacity(BURST_PACKETS);
            part.receive_deferred(&mut self.pool, &mut burst, BURST_PACKETS, &mut payloads).unwrap();
            for mut packet in burst {
                payloads.fetch(&mut packet.buffer);
                frames.push(packet.buffer.frame().to_vec());
                self.pool.put(packet.buffer);
            }
            payloads.clear();
            part.release();
        }
        frames
    }

    pub(crate) fn problem(&self) -> Option<String> {
        self.parts[0].peer().unwrap().problem()
    }

    pub(crate) fn faults(&self) -> u64 {
        self.parts[0].peer().unwrap().faults()
    }

    /// Receives until something is so.
    pub(crate) fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self, &[Vec<u8>]) -> bool) -> Vec<Vec<u8>> {
        let (started, mut frames) = (Instant::now(), Vec::new());
        loop {
            frames.extend(self.receive());
            if is_so(self, &frames) {
                return frames;
            }
            assert!(started.elapsed() < WAIT_MAX, "{what}: {:?}", self.problem());
        }
    }

    /// Has a virtual machine connect and start its queues.
    pub(crate) fn start(&mut self, machine: &mut VirtualMachine) {
        machine.connect(&self.path());
        machine.start();
        machine.fill();
        self.until("it starts", |rig, _| rig.problem().is_none());
        assert!(self.settle().is_empty());
    }

    /// Receives until all messages that have come are handled.
    pub(crate) fn settle(&mut self) -> Vec<Vec<u8>> {
        (0..8).flat_map(|_| self.receive()).collect()
    }

    pub(crate) fn send(&mut self, frames: &[Vec<u8>]) -> Vec<Verdict> {
        let mut burst: Vec<Packet> = frames.iter().map(|frame| packet(frame)).collect();
        self.parts[0].send_deferred(&mut burst, &DeferredPayloads::default()).unwrap();
        burst.iter().map(|packet| packet.verdict).collect()
    }

    /// Frames pass both ways by the first pair of queues.
    pub(crate) fn check_traffic(&mut self, machine: &mut VirtualMachine) {
        let some: Vec<_> = (0..5).map(frame).collect();
        some.iter().for_each(|frame| machine.send(1, frame, Offload::NONE, FrameLayout::One));
        let got = self.until("frames from the guest", |_, frames| frames.len() >= 5);
        assert_eq!(got, some);
        assert_eq!(self.send(&some), [Verdict::Deliver; 5]);
        let got: Vec<_> = machine.collect(0).into_iter().map(|(frame, _)| frame).collect();
        assert_eq!(got, some);
    }
}

pub(crate) fn frame(number: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5, number as u8];
    frame.resize(60 + number * 97, number as u8);
    frame
}

pub(crate) fn packet(frame: &[u8]) -> Packet {
    let mut buffer = FrameBuffer::with_capacity(frame.len());
    buffer.fill(frame);
    Packet::new(buffer)
}
