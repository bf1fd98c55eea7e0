//! A Unix stream socket on which each frame follows its length, as `-netdev stream` of QEMU and passt speak it: four bytes,
//! the most significant first, then as many bytes of frame. It takes no privilege and has no offloads.
//!
//! The port is open while nobody is at the other end. As a server it serves one peer at a time: whoever connects meanwhile
//! waits in the kernel's queue until that one goes, as the target of a migration does. As a client it connects again
//! for as long as it is open.

use crate::port::buffer_pool::BufferPool;
use crate::port::peer_state::PeerState;
use crate::port::reconnection::Reconnection;
use crate::port::socket_listener::SocketListener;
use crate::port::{Port, Received, drop_all};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use vswitch_core::config::desired::StreamPort;
use vswitch_core::config::limits::{BURST_BYTES, BURST_PACKETS, ETHERNET_HEADER_BYTES, FRAME_BYTES_MAX};
use vswitch_core::packet::Packet;
use vswitch_core::packet::verdict::{DropReason, Verdict};

/// Bytes of the length in front of each frame.
const LENGTH_BYTES: usize = 4;
/// Room for what one read takes: the longest frame, and about as much as a socket holds unless told otherwise.
const INPUT_BYTES: usize = 192 << 10;
/// Different problems of one port that are logged.
const PROBLEMS_LOGGED_MAX: usize = 8;

const _: () = assert!(INPUT_BYTES >= 2 * (LENGTH_BYTES + FRAME_BYTES_MAX));

/// Why a connection ended.
enum StreamEnd {
    /// The peer closed it or is gone.
    ByPeer,
    /// What came is not what the two agreed on.
    Misframed,
}

impl StreamEnd {
    fn problem(&self) -> &'static str {
        match self {
            Self::ByPeer => "the peer has gone",
            Self::Misframed => {
                "the peer sent a length that no frame has, and was disconnected; it must put 4 bytes of length before each \
                 frame, the most significant first"
            }
        }
    }
}

/// A port whose frames cross a Unix stream socket.
#[derive(Debug)]
pub struct UnixStreamPort {
    side: StreamSide,
    connection: Option<FrameStream>,
    /// Becomes readable with the listening socket, the timer and the connection, whichever there are.
    events: OwnedFd,
    peer: PeerState,
    /// What was logged: each problem once, so that a peer that comes and goes fills no log.
    logged: BTreeSet<String>,
    /// For the text of errors.
    description: String,
}

/// How a connection comes to be.
#[derive(Debug)]
enum StreamSide {
    /// Others connect.
    Server(SocketListener),
    /// The switch connects, again and again.
    Client(Reconnection),
}

impl UnixStreamPort {
    /// Listens, or gets ready to connect.
    ///
    /// # Errors
    /// What failed, naming the socket.
    pub fn open(port: &StreamPort) -> io::Result<Self> {
        let description = describe(port);
        Self::open_any(port, description.clone())
            .map_err(|error| io::Error::new(error.kind(), format!("{description}: {error}")))
    }

    fn open_any(port: &StreamPort, description: String) -> io::Result<Self> {
        let path = Path::new(&port.path);
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let side = if port.is_client {
            let reconnection = Reconnection::new(path)?;
            watch(&events, reconnection.timer(), EventFlags::IN)?;
            StreamSide::Client(reconnection)
        } else {
            let listener = SocketListener::bind(path, port.socket_user.as_deref())?;
            watch(&events, listener.listener().as_fd(), EventFlags::IN)?;
            StreamSide::Server(listener)
        };
        let peer = PeerState::absent(format!("{description}: nobody is at the other end yet"));
        Ok(Self { side, connection: None, events, peer, logged: BTreeSet::new(), description })
    }

    /// Takes up a connection if one is to be had.
    fn connect(&mut self) -> io::Result<()> {
        let socket = match &mut self.side {
            StreamSide::Server(listener) => match listener.listener().accept() {
                Ok((socket, _)) => {
                    rewatch(&self.events, listener.listener().as_fd(), EventFlags::empty())?;
                    socket
                }
                // One that gave up before it was served is no reason to close the port.
                Err(_) => return Ok(()),
            },
            StreamSide::Client(reconnection) => match reconnection.connect_if_due() {
                Some(Ok(socket)) => {
                    reconnection.reset_pause();
                    socket
                }
                Some(Err(error)) => {
                    let problem = format!("{}: nobody to connect to: {error}", self.description);
                    self.report(problem);
                    return Ok(());
                }
                None => return Ok(()),
            },
        };
        socket.set_nonblocking(true)?;
        watch(&self.events, socket.as_fd(), EventFlags::IN)?;
        self.connection = Some(FrameStream::new(socket));
        self.peer.set_ready();
        Ok(())
    }

    /// Gives a connection up and gets ready for the next.
    fn disconnect(&mut self, ended: &StreamEnd) -> io::Result<()> {
        self.connection = None;
        let problem = format!("{}: {}", self.description, ended.problem());
        self.report(problem);
        match &mut self.side {
            StreamSide::Server(listener) => rewatch(&self.events, listener.listener().as_fd(), EventFlags::IN),
            StreamSide::Client(reconnection) => {
                reconnection.wait();
                Ok(())
            }
        }
    }

    fn report(&mut self, problem: String) {
        self.peer.set_problem(&problem);
        if self.logged.len() < PROBLEMS_LOGGED_MAX && self.logged.insert(problem.clone()) {
            log::info!("{problem}");
        }
    }
}

impl Port for UnixStreamPort {
    fn receive(&mut self, pool: &mut BufferPool, burst: &mut Vec<Packet>, packets_max: usize) -> io::Result<Received> {
        if self.connection.is_none() {
            self.connect()?;
        }
        let Some(connection) = &mut self.connection else { return Ok(Received::Drained) };
        // The room that the peer made may be all that happened.
        let flushed = connection.flush(&self.events);
        match flushed.and_then(|()| connection.receive(pool, burst, packets_max)) {
            Ok(received) => Ok(received),
            Err(ended) => {
                self.disconnect(&ended)?;
                Ok(Received::MaybeMore)
            }
        }
    }

    fn send(&mut self, burst: &mut [Packet]) -> io::Result<()> {
        let Some(connection) = &mut self.connection else {
            drop_all(burst, DropReason::PortDown);
            return Ok(());
        };
        for some in burst.chunks_mut(BURST_PACKETS) {
            // A connection that has ended is given up by the next receive, for its socket is readable.
            if connection.send(some, &self.events).is_err() {
                drop_all(some, DropReason::PortDown);
            }
        }
        Ok(())
    }

    fn peer(&self) -> Option<PeerState> {
        Some(self.peer.clone())
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.events.as_fd())
    }
}

/// A connection, and what is incomplete in either direction.
#[derive(Debug)]
struct FrameStream {
    socket: UnixStream,
    /// What came in; `unread` of it is not handed on yet.
    input: Box<[u8]>,
    unread: Range<usize>,
    /// The end of a frame whose beginning the socket has taken.
    rest: Vec<u8>,
}

impl FrameStream {
    fn new(socket: UnixStream) -> Self {
        Self { socket, input: vec![0; INPUT_BYTES].into_boxed_slice(), unread: 0..0, rest: Vec::new() }
    }

    fn receive(
        &mut self,
        pool: &mut BufferPool,
        burst: &mut Vec<Packet>,
        packets_max: usize,
    ) -> Result<Received, StreamEnd> {
        let (mut packets, mut bytes) = (0, 0);
        while packets < packets_max && bytes < BURST_BYTES {
            let Some(frame) = next_frame(&self.input[self.unread.clone()])? else {
                match self.read() {
                    Ok(0) => return Err(StreamEnd::ByPeer),
                    Ok(_) => continue,
                    Err(Errno::AGAIN) => return Ok(Received::Drained),
                    Err(Errno::INTR) => return Ok(Received::MaybeMore),
                    Err(_) => return Err(StreamEnd::ByPeer),
                }
            };
            let Some(mut buffer) = pool.take(frame.len()) else { return Ok(Received::MaybeMore) };
            buffer.fill(frame);
            self.unread.start += LENGTH_BYTES + frame.len();
            (packets, bytes) = (packets + 1, bytes + frame.len());
            burst.push(Packet::new(buffer));
        }
        Ok(Received::MaybeMore)
    }

    /// Reads behind what is there, which is less than a frame.
    fn read(&mut self) -> rustix::io::Result<usize> {
        self.input.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        let (read_bytes, _) = rustix::net::recv(&self.socket, &mut self.input[self.unread.end..], RecvFlags::empty())?;
        self.unread.end += read_bytes;
        Ok(read_bytes)
    }

    /// Sends as many packets as the socket takes, the last of them perhaps in part.
    fn send(&mut self, packets: &mut [Packet], events: &OwnedFd) -> Result<(), StreamEnd> {
        self.flush(events)?;
        if !self.rest.is_empty() {
            drop_all(packets, DropReason::PortFull);
            return Ok(());
        }
        let mut pieces = [IoSlice::new(&[]); BURST_PACKETS];
        let mut count = 0;
        for packet in &mut *packets {
            let length = packet.buffer.length();
            if is_frame(length) {
                pieces[count] = IoSlice::new(packet.buffer.frame_with_header(&(length as u32).to_be_bytes()));
                count += 1;
                packet.verdict = Verdict::Deliver;
            } else {
                packet.verdict = Verdict::Drop(DropReason::PortRefused);
            }
        }
        let mut taken_bytes = write(&self.socket, &pieces[..count])?;
        for packet in packets.iter_mut().filter(|packet| packet.verdict == Verdict::Deliver) {
            let piece_bytes = LENGTH_BYTES + packet.buffer.length();
            if taken_bytes == 0 {
                packet.verdict = Verdict::Drop(DropReason::PortFull);
            } else if taken_bytes < piece_bytes {
                let header = (packet.buffer.length() as u32).to_be_bytes();
                self.rest.extend_from_slice(&packet.buffer.frame_with_header(&header)[taken_bytes..]);
                // To be told when there is room, for no frame may come that would have the rest sent.
                let _ = rewatch(events, self.socket.as_fd(), EventFlags::IN | EventFlags::OUT);
            }
            taken_bytes = taken_bytes.saturating_sub(piece_bytes);
        }
        Ok(())
    }

    /// Sends the end of a frame that was begun.
    fn flush(&mut self, events: &OwnedFd) -> Result<(), StreamEnd> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let taken_bytes = write(&self.socket, &[IoSlice::new(&self.rest)])?;
        self.rest.drain(..taken_bytes);
        if self.rest.is_empty() {
            let _ = rewatch(events, self.socket.as_fd(), EventFlags::IN);
        }
        Ok(())
    }
}

/// Whether a frame that is sent may have so many bytes; peers take shorter ones for a fault.
fn is_frame(length: usize) -> bool {
    (ETHERNET_HEADER_BYTES..=FRAME_BYTES_MAX).contains(&length)
}

/// The first frame of what came, if all of it is there. An empty one is a frame: the switch drops and counts it.
fn next_frame(input: &[u8]) -> Result<Option<&[u8]>, StreamEnd> {
    let Some((length, frames)) = input.split_first_chunk() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(StreamEnd::Misframed);
    }
    Ok(frames.get(..length))
}

/// How many bytes the socket took.
fn write(socket: &UnixStream, pieces: &[IoSlice<'_>]) -> Result<usize, StreamEnd> {
    match rustix::net::sendmsg(socket, pieces, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL) {
        Ok(bytes) => Ok(bytes),
        Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::NOMEM) => Ok(0),
        Err(_) => Err(StreamEnd::ByPeer),
    }
}

/// Has the events tell of one more descriptor. That it is ready is seen by trying, so none needs a number.
fn watch(events: &OwnedFd, descriptor: BorrowedFd<'_>, flags: EventFlags) -> io::Result<()> {
    Ok(epoll::add(events, descriptor, EventData::new_u64(0), flags)?)
}

fn rewatch(events: &OwnedFd, descriptor: BorrowedFd<'_>, flags: EventFlags) -> io::Result<()> {
    Ok(epoll::modify(events, descriptor, EventData::new_u64(0), flags)?)
}

pub(super) fn describe(port: &StreamPort) -> String {
    format!("stream socket {}", port.path)
}
