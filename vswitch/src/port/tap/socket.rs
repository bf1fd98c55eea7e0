//! A TAP device that another process made, perhaps as an ordinary user in namespaces of its own. It hands over the device's
//! descriptors, one for each queue, at a socket of the port: one message of any bytes with the descriptors (`SCM_RIGHTS`).
//! The answer is a line, `ok` or why not.
//!
//! The other process may keep its descriptors, hostile as it may be: it may change the device under the port, and have calls
//! wait that do not say otherwise. So each call says so, and what makes no sense is a frame that is dropped.

use super::{Device, Tap, negotiate};
use crate::os::sys;
use crate::port::buffer_pool::BufferPool;
use crate::port::peer_state::PeerState;
use crate::port::socket_listener::SocketListener;
use crate::port::{Port, Received, drop_all};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use vswitch_core::config::desired::TapSocketPort;
use vswitch_core::packet::Packet;
use vswitch_core::packet::offload::Offloads;
use vswitch_core::packet::verdict::DropReason;

/// Descriptors that are handed over at once.
const QUEUES_MAX: usize = 16;
/// Receives between two looks at the socket, while the guest has frames.
const RECEIVES_PER_ATTENTION: u32 = 256;

/// A port whose TAP device is handed over at a socket.
#[derive(Debug)]
pub struct TapSocket {
    listener: SocketListener,
    /// Who connected last and has not handed over anything yet. Whoever comes later takes the place, so that one who says
    /// nothing keeps nobody out.
    visitor: Option<UnixStream>,
    /// Who handed over the device: it learns by the end of the connection that the port is gone.
    _launcher: Option<UnixStream>,
    /// The queues of the device; none while nobody has handed over any.
    queues: Vec<Tap>,
    next_queue: usize,
    wanted: Offloads,
    receives: u32,
    /// Becomes readable with the socket, the visitor and the queues.
    events: OwnedFd,
    peer: PeerState,
    description: String,
}

impl TapSocket {
    /// Listens.
    ///
    /// # Errors
    /// What failed, naming the socket.
    pub fn open(port: &TapSocketPort, wanted: Offloads) -> io::Result<Self> {
        let description = describe(port);
        let explain = |error: io::Error| io::Error::new(error.kind(), format!("{description}: {error}"));
        let listener = SocketListener::bind(Path::new(&port.path), port.socket_user.as_deref()).map_err(explain)?;
        let events = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from).map_err(explain)?;
        watch(&events, listener.listener()).map_err(explain)?;
        let peer = PeerState::absent(absence(&port.path));
        let (visitor, queues, next_queue, receives) = (None, Vec::new(), 0, 0);
        Ok(Self { listener, visitor, _launcher: None, queues, next_queue, wanted, receives, events, peer, description })
    }

    /// Looks whether somebody has come, and whether a device was handed over.
    fn attend(&mut self) -> io::Result<bool> {
        if let Ok((visitor, _)) = self.listener.listener().accept() {
            visitor.set_nonblocking(true)?;
            watch(&self.events, &visitor)?;
            self.visitor = Some(visitor);
        }
        let Some(visitor) = self.visitor.take() else { return Ok(false) };
        let descriptors = match take_descriptors(&visitor) {
            Err(Errno::AGAIN | Errno::INTR) => {
                self.visitor = Some(visitor);
                return Ok(false);
            }
            taken => taken.unwrap_or_default(),
        };
        let taken_up = self.take_up(descriptors);
        let answer = taken_up.as_ref().err().map_or("ok", |reason| reason);
        // The connection is new, so that there is room for a line; who has gone does not read it.
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let _ = rustix::net::send(&visitor, format!("{answer}\n").as_bytes(), flags);
        match taken_up {
            Ok(()) => {
                let _ = epoll::delete(&self.events, &visitor);
                self._launcher = Some(visitor);
                Ok(true)
            }
            Err(_) => {
                self.peer.count_fault();
                Ok(false)
            }
        }
    }

    /// Goes on with other descriptors; why not, if so, and then with those that there were.
    fn take_up(&mut self, descriptors: Vec<OwnedFd>) -> Result<(), String> {
        if let Err(reason) = check(&descriptors) {
            // To close what is no TAP device may take as long as another process likes.
            let _ = std::thread::Builder::new().name("close".into()).spawn(move || drop(descriptors));
            return Err(reason);
        }
        let mut queues = Vec::new();
        for descriptor in descriptors {
            queues.push(self.queue(descriptor).map_err(|error| error.to_string())?);
        }
        for queue in &queues {
            watch(&self.events, &queue.device.descriptor).map_err(|error| error.to_string())?;
        }
        self.queues = queues;
        self.peer.set_ready();
        log::info!("{}: a TAP device with {} queues was handed over", self.description, self.queues.len());
        Ok(())
    }

    fn queue(&self, descriptor: OwnedFd) -> io::Result<Tap> {
        let (_, mode) = sys::tap_of(&descriptor)?;
        let (header_bytes, offloads) = match mode.has_header {
            true => (super::HEADER_BYTES, negotiate(&descriptor, self.wanted)?.unwrap_or(Offloads::NONE)),
            false => (0, Offloads::NONE),
        };
        let device = Device { descriptor, header_bytes, may_block: true };
        Ok(Tap { device, offloads, batches: None, description: self.description.clone(), is_kept: false })
    }

    /// Gives up a device that is gone. The port waits for another.
    fn lose(&mut self, error: &io::Error) {
        self.queues.clear();
        if self.peer.set_problem(&format!("{error}; hand over another")) {
            log::warn!("{error}");
        }
    }
}

/// Hands the queues of a TAP device over to the port that listens at `path`. The connection ends when the port is gone.
///
/// # Errors
/// Nobody listens there, or the port refuses them and says why.
pub fn hand_over(path: &Path, descriptors: &[OwnedFd]) -> io::Result<UnixStream> {
    let connection = UnixStream::connect(path)?;
    let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(QUEUES_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if borrowed.len() > QUEUES_MAX || !ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(io::Error::other(format!("a device has at most {QUEUES_MAX} queues")));
    }
    sendmsg(&connection, &[IoSlice::new(b"tap\n")], &mut ancillary, SendFlags::NOSIGNAL)?;
    let mut answer = String::new();
    BufReader::new(&connection).read_line(&mut answer)?;
    match answer.trim_end() {
        "ok" => Ok(connection),
        "" => Err(io::ErrorKind::UnexpectedEof.into()),
        reason => Err(io::Error::new(io::ErrorKind::InvalidInput, reason.to_owned())),
    }
}

/// Whether descriptors are queues of one TAP device.
fn check(descriptors: &[OwnedFd]) -> Result<(), String> {
    let mut device = None;
    for descriptor in descriptors {
        let (name, mode) = sys::tap_of(descriptor).map_err(|error| format!("a descriptor was refused: {error}"))?;
        let its = (name, mode.has_header);
        if device.get_or_insert_with(|| its.clone()) != &its {
            return Err("the descriptors are of different devices".into());
        }
    }
    device.map(drop).ok_or_else(|| format!("a message with 1 to {QUEUES_MAX} descriptors was expected"))
}

/// What came with a message; nothing if there was more than there may be.
fn take_descriptors(visitor: &UnixStream) -> rustix::io::Result<Vec<OwnedFd>> {
    let mut bytes = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(QUEUES_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = recvmsg(visitor, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)?;
    let descriptors: Vec<OwnedFd> = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    Ok(if message.flags.contains(ReturnFlags::CTRUNC) { Vec::new() } else { descriptors })
}

/// Has the events tell of one more descriptor, until it is closed.
fn watch(events: &OwnedFd, descriptor: impl AsFd) -> io::Result<()> {
    Ok(epoll::add(events, descriptor, EventData::new_u64(0), EventFlags::IN)?)
}

pub(in crate::port) fn describe(port: &TapSocketPort) -> String {
    format!("TAP device handed over at {}", port.path)
}

fn absence(path: &str) -> String {
    format!("no TAP device has been handed over at {path} since the forwarding plane started")
}

impl Port for TapSocket {
    fn receive(&mut self, pool: &mut BufferPool, burst: &mut Vec<Packet>, packets_max: usize) -> io::Result<Received> {
        if self.queues.is_empty() || self.receives == 0 {
            self.receives = RECEIVES_PER_ATTENTION;
            self.attend()?;
        }
        self.receives -= 1;
        let mut received = Received::Drained;
        // Another queue begins each time, so that none starves the others.
        for _ in 0..self.queues.len() {
            let room = packets_max.saturating_sub(burst.len());
            if room == 0 {
                return Ok(Received::MaybeMore);
            }
            self.next_queue = (self.next_queue + 1) % self.queues.len();
            match self.queues[self.next_queue].receive(pool, burst, room) {
                Ok(Received::Drained) => {}
                Ok(Received::MaybeMore) => received = Received::MaybeMore,
                Err(error) => {
                    self.lose(&error);
                    return Ok(Received::MaybeMore);
                }
            }
        }
        Ok(received)
    }

    fn send(&mut self, burst: &mut [Packet]) -> io::Result<()> {
        // The kernel learns from this which queue a flow's answers belong to.
        let Some(queue) = self.queues.first_mut() else {
            drop_all(burst, DropReason::PortDown);
            return Ok(());
        };
        if let Err(error) = queue.send(burst) {
            self.lose(&error);
        }
        Ok(())
    }

    fn offloads(&self) -> Offloads {
        self.queues.first().map_or(Offloads::NONE, |queue| queue.offloads)
    }

    fn await_readiness(&mut self) -> bool {
        // The worker is not told again of a visitor that it was told of while it asked for frames alone. What fails here fails
        // again then.
        !self.attend().unwrap_or(false)
    }

    fn peer(&self) -> Option<PeerState> {
        Some(self.peer.clone())
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.events.as_fd())
    }
}
