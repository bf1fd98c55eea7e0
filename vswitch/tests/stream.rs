//! Stream ports against peers that keep to no rule, come late, or go: none blocks the port, and what drops is counted.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use vswitch::port::buffer_pool::{BufferPool, PoolSize};
use vswitch::port::stream::UnixStreamPort;
use vswitch::port::{Port, Received};
use vswitch_core::config::desired::StreamPort;
use vswitch_core::config::limits::FRAME_BYTES_MAX;
use vswitch_core::packet::verdict::{DropReason, Verdict};
use vswitch_core::packet::{FrameBuffer, Packet};

/// How long a test waits for what must come.
const WAIT_MAX: Duration = Duration::from_secs(60);

struct StreamRig {
    folder: tempfile::TempDir,
    port: UnixStreamPort,
    pool: BufferPool,
}

impl StreamRig {
    fn new(client: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = UnixStreamPort::open(&desired(&folder.path().join("port.sock"), client)).unwrap();
        Self { folder, port, pool: BufferPool::new(PoolSize { small: 64, large: 4 }) }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("port.sock")
    }

    /// A peer that the port serves.
    fn peer(&mut self) -> UnixStream {
        let peer = UnixStream::connect(self.path()).unwrap();
        peer.set_read_timeout(Some(WAIT_MAX)).unwrap();
        self.turn_until("the peer is served", |rig| rig.problem().is_none());
        peer
    }

    /// Why the port carries nothing.
    fn problem(&self) -> Option<String> {
        self.port.peer().unwrap().problem()
    }

    /// The frames that one receive yields.
    fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut burst = Vec::new();
        self.port.receive(&mut self.pool, &mut burst, 32).unwrap();
        let frames = burst.iter().map(|packet| packet.buffer.frame().to_vec()).collect();
        burst.into_iter().for_each(|packet| self.pool.put(packet.buffer));
        frames
    }

    fn turn_until(&mut self, what: &str, mut is_true: impl FnMut(&mut Self) -> bool) {
        let started = Instant::now();
        loop {
            assert!(self.receive().is_empty(), "nobody sent a frame");
            if is_true(self) {
                return;
            }
            assert!(started.elapsed() < WAIT_MAX, "not in time: {what}; {:?}", self.problem());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn receive_all(&mut self, count: usize) -> Vec<Vec<u8>> {
        let (mut frames, started) = (Vec::new(), Instant::now());
        while frames.len() < count {
            assert!(started.elapsed() < WAIT_MAX, "{} of {count} came", frames.len());
            frames.extend(self.receive());
        }
        frames
    }

    fn send(&mut self, frame: &[u8]) -> Verdict {
        let mut buffer = FrameBuffer::with_capacity(frame.len());
        buffer.fill(frame);
        let mut burst = [Packet::new(buffer)];
        self.port.send(&mut burst).unwrap();
        burst[0].verdict
    }
}

fn desired(path: &Path, client: bool) -> StreamPort {
    StreamPort { path: path.to_str().unwrap().into(), is_client: client, socket_user: None, mtu_bytes: 1500 }
}

fn framed(frame: &[u8]) -> Vec<u8> {
    let length = (frame.len() as u32).to_be_bytes();
    [&length[..], frame].concat()
}

fn read_frame(peer: &mut UnixStream) -> Vec<u8> {
    let mut length = [0; 4];
    peer.read_exact(&mut length).unwrap();
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    peer.read_exact(&mut frame).unwrap();
    frame
}

#[test]
fn frames_that_come_byte_by_byte_are_whole_and_in_order() {
    let mut rig = StreamRig::new(false);
    let mut peer = rig.peer();
    let frames = [vec![1; 60], vec![], vec![2; 14], vec![3; 200]];
    let mut got = Vec::new();
    for byte in frames.iter().flat_map(|frame| framed(frame)) {
        peer.write_all(&[byte]).unwrap();
        got.extend(rig.receive());
    }
    assert_eq!(got, frames, "an empty frame is handed on, for the switch to drop and count");
}

#[test]
fn the_longest_frame_passes_and_a_longer_one_ends_the_connection_alone() {
    let mut rig = StreamRig::new(false);
    let mut peer = rig.peer();
    let longest = vec![7; FRAME_BYTES_MAX];
    let bytes = [framed(&longest), framed(&[8; 60])].concat();
    let writer = std::thread::spawn(move || {
        peer.write_all(&bytes).unwrap();
        peer
    });
    assert_eq!(rig.receive_all(2), [longest, vec![8; 60]]);
    let mut peer = writer.join().unwrap();
    for length in [FRAME_BYTES_MAX as u32 + 1, 0x4745_5420, u32::MAX] {
        peer.write_all(&framed(&[9; 20])).unwrap();
        peer.write_all(&length.to_be_bytes()).unwrap();
        assert_eq!(rig.receive_all(1), [[9; 20]], "what came before is handed on");
        rig.turn_until("the peer is disconnected", |rig| rig.problem().is_some());
        assert!(rig.problem().unwrap().contains("4 bytes of length before each frame"), "{:?}", rig.problem());
        assert_eq!(peer.read(&mut [0]).map_err(|error| error.kind()).unwrap_or(0), 0);
        peer = rig.peer();
    }
}

#[test]
fn a_frame_cut_off_by_the_end_of_its_peer_is_none() {
    let mut rig = StreamRig::new(false);
    for cut in [1, 4, 5, 63] {
        let mut peer = rig.peer();
        peer.write_all(&framed(&[1; 60])[..cut]).unwrap();
        assert!(rig.receive().is_empty());
        drop(peer);
        rig.turn_until("the peer is missed", |rig| rig.problem().is_some());
        assert!(rig.problem().unwrap().contains("the peer has gone"));
    }
    let mut peer = rig.peer();
    peer.write_all(&framed(&[2; 60])).unwrap();
    assert_eq!(rig.receive_all(1), [[2; 60]], "nothing is left of those before");
}

#[test]
fn a_peer_that_never_reads_costs_counted_drops_and_no_memory() {
    let mut rig = StreamRig::new(false);
    let mut peer = rig.peer();
    let frame = vec![5; 9014];
    let mut delivered = 0;
    while rig.send(&frame) == Verdict::Deliver {
        delivered += 1;
        assert!(delivered < 100_000, "the socket takes no end of frames");
    }
    for _ in 0..1000 {
        assert_eq!(rig.send(&frame), Verdict::Drop(DropReason::PortFull));
    }
    // The peer wakes up, and finds whole frames, the one that was half sent too, though nothing more is sent.
    for _ in 0..delivered {
        rig.receive();
        assert_eq!(read_frame(&mut peer), frame);
    }
    assert_eq!(rig.send(&frame), Verdict::Deliver);
    assert_eq!(read_frame(&mut peer), frame);
}

#[test]
fn room_for_the_rest_of_a_frame_is_told_by_the_descriptor() {
    let sizes = [30_000, 40_000, 50_000, 60_000, 65_000];
    let cut = sizes.into_iter().filter(|bytes| {
        let mut rig = StreamRig::new(false);
        let mut peer = rig.peer();
        let (frame, mut delivered) = (vec![5; *bytes], 0);
        while rig.send(&frame) == Verdict::Deliver {
            delivered += 1;
        }
        while rig.port.receive(&mut rig.pool, &mut Vec::new(), 32).unwrap() != Received::Drained {}
        assert!(!is_readable(&rig.port, Duration::ZERO), "nothing has happened");
        peer.set_nonblocking(true).unwrap();
        let mut came = Vec::new();
        assert_eq!(peer.read_to_end(&mut came).unwrap_err().kind(), ErrorKind::WouldBlock);
        let is_cut = came.len() < delivered * (4 + bytes);
        assert_eq!(is_readable(&rig.port, Duration::ZERO), is_cut, "whoever sends next finds the room, else");
        rig.receive();
        let _ = peer.read_to_end(&mut came);
        assert_eq!(came.len(), delivered * (4 + bytes));
        is_cut
    });
    assert!(cut.count() > 0, "some frame was sent in part");
}

fn is_readable(port: &dyn Port, patience: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut asked = [PollFd::from_borrowed_fd(port.readiness().unwrap(), PollFlags::IN)];
    poll(&mut asked, Some(&patience.try_into().unwrap())).unwrap() > 0
}

#[test]
fn without_a_peer_frames_drop_and_the_descriptor_tells_of_one() {
    let mut rig = StreamRig::new(false);
    assert_eq!(rig.send(&[1; 60]), Verdict::Drop(DropReason::PortDown));
    assert!(rig.problem().unwrap().contains("nobody is at the other end yet"));
    assert!(!is_readable(&rig.port, Duration::ZERO));
    let _peer = UnixStream::connect(rig.path()).unwrap();
    assert!(is_readable(&rig.port, WAIT_MAX));
}

#[test]
fn a_second_peer_waits_until_the_first_has_gone_and_loses_nothing() {
    let mut rig = StreamRig::new(false);
    let mut first = rig.peer();
    let mut second = UnixStream::connect(rig.path()).unwrap();
    second.write_all(&framed(&[2; 60])).unwrap();
    assert!(rig.receive().is_empty() && rig.receive().is_empty());
    assert!(!is_readable(&rig.port, Duration::ZERO), "who waits costs the worker nothing");
    first.write_all(&framed(&[1; 60])).unwrap();
    assert_eq!(rig.receive_all(1), [[1; 60]]);
    drop(first);
    assert_eq!(rig.receive_all(1), [[2; 60]]);
    assert_eq!(rig.problem(), None);
}

#[test]
fn a_thousand_peers_that_come_and_go_leave_nothing_behind() {
    let mut rig = StreamRig::new(false);
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for _ in 0..1000 {
        drop(UnixStream::connect(rig.path()).unwrap());
        rig.receive();
        rig.receive();
    }
    let mut last = rig.peer();
    last.write_all(&framed(&[1; 60])).unwrap();
    assert_eq!(rig.receive_all(1), [[1; 60]]);
    // Other tests of this process open and close meanwhile, but not so many.
    assert!(open() < before + 500);
}

#[test]
fn a_client_connects_as_soon_as_somebody_listens_and_again_afterwards() {
    let mut rig = StreamRig::new(true);
    let path = rig.path();
    rig.turn_until("nobody listens", |rig| rig.problem().is_some_and(|text| text.contains("nobody to connect to")));
    for round in 0..3 {
        let listener = UnixListener::bind(&path).unwrap();
        rig.turn_until("it connects", |rig| rig.problem().is_none());
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(&framed(&[round; 60])).unwrap();
        assert_eq!(rig.receive_all(1), [[round; 60]]);
        assert_eq!(rig.send(&[9; 60]), Verdict::Deliver);
        assert_eq!(read_frame(&mut peer), [9; 60]);
        std::fs::remove_file(&path).unwrap();
        drop((listener, peer));
        rig.turn_until("it misses its peer", |rig| rig.problem().is_some());
    }
}

#[test]
fn a_socket_that_cannot_be_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent/port.sock");
    let error = UnixStreamPort::open(&desired(&path, false)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    let path = folder.path().join("port.sock");
    let _first = UnixStreamPort::open(&desired(&path, false)).unwrap();
    let error = UnixStreamPort::open(&desired(&path, false)).unwrap_err();
    assert!(error.to_string().contains("another process listens there already"), "{error}");
}
