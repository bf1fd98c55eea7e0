//! Exchanges guests' packets for metadata and name servers with the services process.
//!
//! That process connects, and is told with each packet which ENI it is from. What it sends goes to the port of the ENI that
//! it names, if the packet comes from an address of a service: it can impersonate nobody else.

use crate::exchange::publish::{Publication, Published};
use crate::exchange::services::{ServiceLink, ServiceOutcome, ServiceReply, ServiceRequest};
use crate::os::seqpacket::{SeqpacketListener, SeqpacketStream};
use crate::services::frame::framed;
use crate::services::thread::ServiceTurn;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::fd::AsRawFd;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vswitch_core::config::limits::{ETHERNET_HEADER_BYTES, SERVICE_FRAME_BYTES_MAX};
use vswitch_core::config::services::frame::{MESSAGE_BYTES_MAX, ServedEni, ServiceFrame};
use vswitch_core::config::services::{PROCESS_USER, ServiceAddress};
use vswitch_core::hw::time::Time;
use vswitch_core::packet::verdict::DropReason;

const LISTENER: Token = Token(1);
const CONNECTION: Token = Token(2);
/// Bytes that wait in the kernel for the process, about.
const SEND_BUFFER_BYTES: usize = 128 << 10;
/// Packets in one direction before the other has its turn.
const PACKETS_PER_TURN: usize = 64;
/// The pause where all buffers for replies are on their way, ns.
const PAUSE_NS: u64 = 1_000_000;
/// How long the process may say nothing after a packet, ns: it acknowledges all that it takes.
const SILENCE_NS: u64 = 3_000_000_000;

/// Where the services process connects.
#[derive(Debug)]
pub struct FrameSocket {
    path: PathBuf,
    listener: SeqpacketListener,
    registry: Registry,
}

impl FrameSocket {
    /// Listens at a path; connections are announced to `registry`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn listen(path: &Path, registry: &Registry) -> io::Result<Self> {
        let listener = SeqpacketListener::bind(path)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen at {}: {error}", path.display())))?;
        registry.register(&mut SourceFd(&listener.as_raw_fd()), LISTENER, Interest::READABLE)?;
        Ok(Self { path: path.to_owned(), listener, registry: registry.try_clone()? })
    }

    /// The newest connection, if there is another.
    fn accept(&self) -> io::Result<Option<SeqpacketStream>> {
        let Some(connection) = self.listener.accept(PROCESS_USER)? else { return Ok(None) };
        connection.set_send_buffer_bytes(SEND_BUFFER_BYTES)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(&mut SourceFd(&connection.as_raw_fd()), CONNECTION, interest)?;
        Ok(Some(connection))
    }
}

impl Drop for FrameSocket {
    fn drop(&mut self) {
        // It is no error if the socket is already gone.
        let _ = fs::remove_file(&self.path);
    }
}

/// The exchange, without a thread.
#[derive(Debug)]
pub struct FrameRelay {
    link: Arc<ServiceLink>,
    publication: Arc<Publication>,
    socket: FrameSocket,
    connection: Option<SeqpacketStream>,
    /// A request that the socket had no room for.
    held: Option<ServiceRequest>,
    /// When the first packet was sent, or held, since the process was heard.
    unheard_since: Option<Time>,
    /// Until when no reply is taken, because no buffer was free.
    paused_until: Option<Time>,
    outgoing: Vec<u8>,
    incoming: Box<[u8]>,
}

impl FrameRelay {
    pub(crate) fn new(link: Arc<ServiceLink>, publication: Arc<Publication>, socket: FrameSocket) -> Self {
        let incoming = vec![0; MESSAGE_BYTES_MAX].into_boxed_slice();
        let outgoing = Vec::with_capacity(MESSAGE_BYTES_MAX);
        let (connection, held, unheard_since, paused_until) = (None, None, None, None);
        Self { link, publication, socket, connection, held, unheard_since, paused_until, outgoing, incoming }
    }

    /// Takes the newest connection in place of an older one: a process that was started anew may be there before the
    /// kernel has taken the old one down.
    fn accept(&mut self) {
        loop {
            match self.socket.accept() {
                Ok(Some(connection)) => {
                    self.disconnect();
                    self.connection = Some(connection);
                    self.link.set_open(true);
                }
                Ok(None) => return,
                // Another attempt of the process comes as another connection.
                Err(error) => return log::warn!("the services process cannot be connected to: {error}"),
            }
        }
    }

    fn disconnect(&mut self) {
        self.link.set_open(false);
        self.connection = None;
        self.unheard_since = None;
        // What was on its way ends here. Requests that come from now on are refused by the workers.
        while let Some(request) = self.held.take().or_else(|| self.link.next_request()) {
            self.settle(request, ServiceOutcome::Dropped(DropReason::ServiceAway));
        }
    }

    /// Gives the buffer of a request back, with what became of it.
    fn settle(&self, request: ServiceRequest, outcome: ServiceOutcome) {
        let ServiceRequest { eni, buffer } = request;
        let location = self.publication.newest().location(eni.index);
        let worker = location.map_or(0, |location| usize::from(location.worker));
        self.link.reply(worker, ServiceReply { eni, outcome, buffer });
    }

    /// Sends requests while there is room. How many.
    fn send(&mut self, published: &Published, now: Time) -> io::Result<usize> {
        let mut sent = 0;
        while sent < PACKETS_PER_TURN
            && let Some(connection) = &self.connection
            && let Some(request) = self.held.take().or_else(|| self.link.next_request())
        {
            self.unheard_since.get_or_insert(now);
            let location = published.location(request.eni.index);
            let is_same = location.is_some_and(|location| location.eni_generation == request.eni.generation);
            let network = published.snapshot.guest_network(request.eni.index).filter(|_| is_same);
            let packet = request.buffer.frame().get(ETHERNET_HEADER_BYTES..);
            let written = network.zip(packet).and_then(|(network, packet)| {
                let names = [network.vpc.as_str(), network.eni.as_str()];
                let frame = ServiceFrame { eni: request.eni, mtu_bytes: network.mtu_bytes, names, packet };
                frame.write(&mut self.outgoing)
            });
            let outcome = match written.map(|()| connection.send(&self.outgoing)) {
                Some(Ok(true)) => ServiceOutcome::Taken,
                Some(Ok(false)) => {
                    self.held = Some(request);
                    break;
                }
                Some(Err(error)) => {
                    self.held = Some(request);
                    return Err(error);
                }
                None => ServiceOutcome::Dropped(DropReason::EniGone),
            };
            sent += 1;
            self.settle(request, outcome);
        }
        Ok(sent)
    }

    /// Takes replies while there are buffers. How many.
    fn receive(&mut self, published: &Published, now: Time) -> io::Result<usize> {
        self.paused_until = None;
        let mut received = 0;
        while received < PACKETS_PER_TURN
            && let Some(connection) = &self.connection
        {
            let Some(mut buffer) = self.link.unsolicited_buffer() else {
                self.paused_until = Some(now + PAUSE_NS);
                break;
            };
            let message = connection.receive(&mut self.incoming);
            let reply = match &message {
                Ok(Some(message)) => reply_of(published, message),
                Ok(None) | Err(_) => None,
            };
            match reply {
                Some((worker, eni, frame)) => {
                    buffer.fill(&frame);
                    self.link.reply(worker, ServiceReply { eni, outcome: ServiceOutcome::Unsolicited, buffer });
                }
                None => self.link.put_back(ServiceOutcome::Unsolicited, buffer),
            }
            if message?.is_none() {
                break;
            }
            self.unheard_since = None;
            received += 1;
        }
        Ok(received)
    }
}

/// Where a message of the services process goes, and the frame. `None` for an ENI that is gone, a packet that its port does
/// not carry, and one that is from no service.
fn reply_of(published: &Published, message: &[u8]) -> Option<(usize, ServedEni, Vec<u8>)> {
    let ServiceFrame { eni, packet, .. } = ServiceFrame::read(message)?;
    let location = published.location(eni.index).filter(|location| location.is_open_for(eni.generation))?;
    let network = published.snapshot.guest_network(eni.index)?;
    let is_short = packet.len() <= usize::from(network.mtu_bytes).min(SERVICE_FRAME_BYTES_MAX - ETHERNET_HEADER_BYTES);
    let is_of_service = source_of(packet).is_some_and(|source| ServiceAddress::served().any(|served| served == source));
    let frame = (is_short && is_of_service).then(|| framed(&network, packet))??;
    Some((usize::from(location.worker), eni, frame))
}

/// The source address of an IP packet.
fn source_of(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => packet.get(12..)?.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        6 => packet.get(8..)?.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        _ => None,
    }
}

impl ServiceTurn for FrameRelay {
    fn link(&self) -> Arc<ServiceLink> {
        Arc::clone(&self.link)
    }

    fn turn(&mut self, now: Time) -> usize {
        self.accept();
        let published = self.publication.newest();
        let both = self.send(&published, now).and_then(|sent| Ok(sent + self.receive(&published, now)?));
        let is_silent = self.unheard_since.is_some_and(|since| since + SILENCE_NS <= now);
        if is_silent && self.connection.is_some() {
            // It exists, and does not run: what guests ask is refused, as if there were none, until it connects again.
            log::warn!("the services process takes no packets any more: what guests ask of it is refused");
        }
        if is_silent || both.is_err() {
            self.disconnect();
        }
        both.unwrap_or(0)
    }

    fn has_input(&self) -> bool {
        // While a request is held, the socket has to announce room first.
        self.held.is_none() && self.connection.is_some() && self.link.has_requests()
    }

    fn next_due(&self) -> Option<Time> {
        self.paused_until.into_iter().chain(self.unheard_since.map(|since| since + SILENCE_NS)).min()
    }
}
