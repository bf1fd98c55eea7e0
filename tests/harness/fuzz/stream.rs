//! Peers of a stream port that send anything in pieces of any size, read or do not, and come and go.

use arbitrary::Unstructured;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use vswitch::port::Port;
use vswitch::port::buffer_pool::{BufferPool, PoolSize};
use vswitch::port::stream::UnixStreamPort;
use vswitch_core::config::desired::StreamPort;
use vswitch_core::config::limits::{BURST_PACKETS, FRAME_BYTES_MAX};
use vswitch_core::packet::verdict::Verdict;
use vswitch_core::packet::{FrameBuffer, Packet};

/// What happens in one run.
const STEPS_MAX: usize = 48;
/// Receives in which what a peer sent has come.
const RECEIVES_MAX: usize = 64;

struct FuzzedStream {
    folder: tempfile::TempDir,
    port: UnixStreamPort,
    pool: BufferPool,
}

impl FuzzedStream {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = path(folder.path()).display().to_string();
        let spec = StreamPort { path, is_client: false, socket_user: None, mtu_bytes: 1500 };
        let port = UnixStreamPort::open(&spec).expect("a socket in a folder of its own");
        Self { folder, port, pool: BufferPool::new(PoolSize { small: 64, large: 8 }) }
    }

    fn connect(&self) -> Option<UnixStream> {
        let peer = UnixStream::connect(path(self.folder.path())).ok()?;
        peer.set_nonblocking(true).expect("a socket that does not wait");
        Some(peer)
    }

    fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut burst = Vec::new();
        self.port.receive(&mut self.pool, &mut burst, BURST_PACKETS).expect("a peer does not end the port");
        let frames = burst.iter().map(|packet| packet.buffer.frame().to_vec()).collect();
        burst.into_iter().for_each(|packet| self.pool.put(packet.buffer));
        frames
    }

    fn send(&mut self, length: usize) {
        let mut buffer = FrameBuffer::with_capacity(FRAME_BYTES_MAX);
        buffer.fill(&vec![7; length]);
        let mut burst = [Packet::new(buffer)];
        self.port.send(&mut burst).expect("a peer does not end the port");
        assert!(matches!(burst[0].verdict, Verdict::Deliver | Verdict::Drop(_)));
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("port.sock")
}

/// Runs one sequence of steps. Afterwards no buffer is lost, and another peer is served as ever.
pub fn stream(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let mut rig = FuzzedStream::new();
    let (buffers, mut peer) = (rig.pool.free_count(), None);
    for _ in 0..STEPS_MAX {
        if input.is_empty() || step(&mut input, &mut rig, &mut peer).is_err() {
            break;
        }
    }
    drop(peer);
    assert_eq!(rig.pool.free_count(), buffers);
    // What the last ones left is read first.
    let (next, frame) = (rig.connect().expect("room for a peer"), [9; 77]);
    let mut framed = (frame.len() as u32).to_be_bytes().to_vec();
    framed.extend(frame);
    (&next).write_all(&framed).expect("a new connection takes a frame");
    let last = (0..RECEIVES_MAX * STEPS_MAX).find_map(|_| rig.receive().pop().filter(|last| last == &frame));
    assert!(last.is_some(), "the next peer is served");
}

fn step(input: &mut Unstructured, rig: &mut FuzzedStream, peer: &mut Option<UnixStream>) -> arbitrary::Result<()> {
    match input.int_in_range(0..=7)? {
        0 => *peer = rig.connect(),
        1 => *peer = None,
        2 | 3 => {
            let length = input.int_in_range(0..=200)?;
            let some = input.bytes(usize::min(length, input.len()))?;
            // One that is gone, or full, takes none.
            let _ = peer.as_ref().map(|mut peer| peer.write(some));
        }
        4 => {
            let (length, body) = (input.int_in_range(0..=FRAME_BYTES_MAX as u32)?, [5; 300]);
            let _ = peer.as_ref().map(|mut peer| peer.write(&[&length.to_be_bytes()[..], &body].concat()));
        }
        5 => rig.send(input.int_in_range(0..=FRAME_BYTES_MAX)?),
        6 => {
            let _ = peer.as_ref().map(|mut peer| peer.read(&mut [0; 5000]));
        }
        _ => assert!(rig.receive().iter().all(|frame| frame.len() <= FRAME_BYTES_MAX)),
    }
    Ok(())
}
