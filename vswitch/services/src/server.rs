//! The loop of the process: one thread, which waits for guests' packets, for records, and for what is due.

use crate::channel::frames::FrameChannel;
use crate::channel::records::RecordChannel;
use crate::directory::{Asker, GuestDirectory};
use crate::dns::{self, AnswerTarget, AskedBy, DnsTransport, Forwarder, Outcome, QuestionRates, datagram};
use crate::metadata;
use crate::tcp::{ConnectionId, Reaction, Respond, TcpPool};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;
use smoltcp::time::Instant as StackTime;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use vswitch_core::config::services::METADATA_PORT;
use vswitch_core::config::services::frame::{MESSAGE_BYTES_MAX, ServedEni, ServiceFrame};

/// The pause between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(100);
/// Packets that are taken before anything else has its turn.
const PACKETS_PER_TURN: usize = 64;
/// How often the process says that it runs.
const LIFE_SIGN: Duration = Duration::from_secs(1);

/// How the process is to run.
#[derive(Clone, Debug)]
pub struct ServicesConfig {
    /// The forwarding plane's socket for guests' packets.
    pub frames: PathBuf,
    /// The control plane's socket for records.
    pub records: PathBuf,
    /// Who is asked about names outside of a VPC that has a way out.
    pub resolvers: Vec<SocketAddr>,
}

/// Runs until `stop` becomes readable or its other end is closed. `is_alive` is called about once a second, so that somebody
/// notices when it is not.
///
/// # Errors
/// The kernel has no random numbers, or refuses to wait.
pub fn run(config: &ServicesConfig, stop: &UnixStream, mut is_alive: impl FnMut()) -> io::Result<()> {
    let mut seed = [0; 8];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())?;
    let mut server = ServicesLoop {
        config: config.clone(),
        started: Instant::now(),
        frames: Connecting::new(),
        records: Connecting::new(),
        directory: GuestDirectory::default(),
        rates: QuestionRates::default(),
        forwarder: Forwarder::new(config.resolvers.clone(), random),
        tcp: TcpPool::new(u64::from_ne_bytes(seed)),
        message: vec![0; MESSAGE_BYTES_MAX].into(),
    };
    let mut told = Instant::now();
    while !server.wait(stop)? {
        server.turn();
        if told.elapsed() >= LIFE_SIGN {
            told = Instant::now();
            is_alive();
        }
    }
    Ok(())
}

/// A number that nobody can guess. The same number again, should the kernel have none, would only be easier to guess.
fn random() -> u64 {
    let mut bytes = [0; 8];
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u64::from_ne_bytes(bytes)
}

/// A connection that is made again whenever it has ended.
struct Connecting<C> {
    connection: Option<C>,
    not_before: Instant,
}

impl<C> Connecting<C> {
    fn new() -> Self {
        Self { connection: None, not_before: Instant::now() }
    }

    /// Connects if that is due. Whether there is a connection that was not there before.
    fn connect(&mut self, connect: impl FnOnce() -> io::Result<C>) -> bool {
        if self.connection.is_some() || Instant::now() < self.not_before {
            return false;
        }
        self.not_before = Instant::now() + RECONNECT;
        self.connection = connect().ok();
        self.connection.is_some()
    }

    /// When to connect next.
    fn due(&self) -> Option<Instant> {
        self.connection.is_none().then_some(self.not_before)
    }
}

struct ServicesLoop {
    config: ServicesConfig,
    started: Instant,
    frames: Connecting<FrameChannel>,
    records: Connecting<RecordChannel>,
    directory: GuestDirectory,
    rates: QuestionRates,
    forwarder: Forwarder,
    tcp: TcpPool,
    message: Box<[u8]>,
}

/// What serves a connection, at one time.
struct Responder<'a> {
    directory: &'a GuestDirectory,
    rates: &'a mut QuestionRates,
    forwarder: &'a mut Forwarder,
    now_s: u64,
    now_ns: u64,
}

impl Respond for Responder<'_> {
    fn respond(&mut self, asker: &Asker, connection: ConnectionId, input: &[u8]) -> Reaction {
        if connection.port == METADATA_PORT {
            return metadata::react(self.directory, asker, input, self.now_s);
        }
        let target = AnswerTarget { eni: connection.eni, by: AskedBy::Connection(connection.number) };
        let (now, now_s) = (Instant::now(), self.now_s);
        let is_within_rate = || self.rates.admits(asker, self.now_ns);
        let forward = |question| self.forwarder.ask(question, target, (now, now_s));
        dns::react(self.directory, asker, input, is_within_rate, forward)
    }
}

impl ServicesLoop {
    fn now(&self) -> StackTime {
        StackTime::from_micros(i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    /// Waits until there is something to do. Returns whether the process is to end.
    fn wait(&mut self, stop: &UnixStream) -> io::Result<bool> {
        let now = self.now();
        let stack = self.tcp.next_due(now).map(|due| Duration::from(due.max(now) - now));
        let connects = [self.frames.due(), self.records.due(), self.forwarder.next_due()].into_iter().flatten();
        let connects = connects.map(|due| due.saturating_duration_since(Instant::now()));
        let timeout = connects.chain(stack).chain([LIFE_SIGN]).min().map(|wait| Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        });
        let writes = self.frames.connection.as_ref().is_some_and(FrameChannel::is_waiting);
        let mut polled = vec![PollFd::new(stop, PollFlags::IN)];
        if let Some(frames) = &self.frames.connection {
            let flags = if writes { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            polled.push(PollFd::from_borrowed_fd(frames.as_fd(), flags));
        }
        if let Some(records) = &self.records.connection {
            polled.push(PollFd::from_borrowed_fd(records.as_fd(), PollFlags::IN));
        }
        polled.extend(self.forwarder.sockets().map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN)));
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(!polled[0].revents().is_empty()),
            Err(error) => Err(error.into()),
        }
    }

    fn turn(&mut self) {
        // Records first: a guest that asks right after it was made should be known.
        if self.records.connect(|| RecordChannel::connect(&self.config.records)) {
            log::debug!("connected to the control plane");
        }
        if let Some(records) = &mut self.records.connection
            && let Err(error) = records.read_into(&mut self.directory)
        {
            log::warn!("the control plane is away ({error}): guests are told what is known");
            self.records.connection = None;
        }
        if self.frames.connect(|| FrameChannel::connect(&self.config.frames)) {
            log::debug!("connected to the forwarding plane");
        }
        if let Err(error) = self.exchange() {
            log::warn!("the forwarding plane is away ({error})");
            self.frames.connection = None;
            // Another forwarding plane numbers its ENIs anew.
            self.tcp.clear();
            self.forwarder.clear();
        }
    }

    /// Serves the packets that have arrived, and does what is due.
    fn exchange(&mut self) -> io::Result<()> {
        let now = self.now();
        let now_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let now_ns = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let Self { frames, directory, rates, forwarder, tcp, message, .. } = self;
        let Some(frames) = &mut frames.connection else { return Ok(()) };
        let mut answers = Vec::new();
        forwarder
            .turn((Instant::now(), now_s), &mut |target, question, answer| answers.push((target, question, answer)));
        let mut services = Responder { directory, rates, forwarder, now_s, now_ns };
        for (target, question, answer) in answers {
            match target.by {
                AskedBy::Datagram { addresses, ports } => {
                    let reply = dns::fitted(&question, &answer, DnsTransport::Datagram);
                    send_datagram(frames, target.eni, (addresses, ports), reply);
                }
                AskedBy::Connection(number) => {
                    let reply = dns::fitted(&question, &answer, DnsTransport::Connection);
                    let reply = reply.and_then(|reply| dns::framed(&reply)).unwrap_or_default();
                    tcp.answer((target.eni, number, reply), &mut services, now, &mut |frame| frames.send(frame));
                }
            }
        }
        let mut has_taken = false;
        for _ in 0..PACKETS_PER_TURN {
            let Some(message) = frames.receive(message)? else { break };
            has_taken = true;
            let Some(frame) = ServiceFrame::read(message) else { continue };
            // A fault that one guest's bytes find must not take the services from all others.
            let served = catch_unwind(AssertUnwindSafe(|| serve(&frame, (tcp, frames), &mut services, now)));
            if served.is_err() {
                log::error!("a packet of {} met a fault: its connections end", frame.names[1]);
                tcp.remove(frame.eni);
            }
        }
        tcp.tick(&mut services, now, &mut |frame| frames.send(frame));
        if has_taken {
            frames.acknowledge();
        }
        frames.flush()
    }
}

/// Serves a packet.
fn serve(
    frame: &ServiceFrame<'_>,
    (tcp, frames): (&mut TcpPool, &mut FrameChannel),
    services: &mut Responder<'_>,
    now: StackTime,
) {
    let Ok(packet) = SlicedPacket::from_ip(frame.packet) else { return };
    let Some(addresses) = addresses_of(&packet) else { return };
    match &packet.transport {
        Some(TransportSlice::Tcp(segment)) => {
            tcp.receive((frame, addresses, segment), services, now, &mut |frame| frames.send(frame));
        }
        Some(TransportSlice::Udp(datagram)) => {
            let ports = [datagram.source_port(), datagram.destination_port()];
            let asker = Asker { vpc: frame.names[0].into(), eni: frame.names[1].into() };
            let is_within_rate = services.rates.admits(&asker, services.now_ns);
            let (payload, transport) = (datagram.payload(), DnsTransport::Datagram);
            let reply = match dns::answer(services.directory, &asker, payload, transport, is_within_rate) {
                Outcome::Nothing => None,
                Outcome::Reply(reply) => Some(reply),
                Outcome::Forward(question) => {
                    let target = AnswerTarget { eni: frame.eni, by: AskedBy::Datagram { addresses, ports } };
                    let known = services.forwarder.ask((*question).clone(), target, (Instant::now(), services.now_s));
                    known.and_then(|answer| dns::fitted(&question, &answer, transport))
                }
            };
            send_datagram(frames, frame.eni, (addresses, ports), reply);
        }
        // The forwarding plane sends nothing else.
        Some(_) | None => {}
    }
}

/// Sends a reply, if there is one, to a question between these addresses and ports.
fn send_datagram(
    frames: &mut FrameChannel,
    eni: ServedEni,
    (addresses, ports): ([IpAddr; 2], [u16; 2]),
    reply: Option<Vec<u8>>,
) {
    if let Some(packet) = reply.and_then(|reply| datagram::reply(addresses, ports, &reply)) {
        frames.send(&ServiceFrame { eni, mtu_bytes: 0, names: ["", ""], packet: &packet });
    }
}

/// Source and destination of a packet.
fn addresses_of(packet: &SlicedPacket<'_>) -> Option<[IpAddr; 2]> {
    match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => Some([ip.header().source_addr().into(), ip.header().destination_addr().into()]),
        NetSlice::Ipv6(ip) => Some([ip.header().source_addr().into(), ip.header().destination_addr().into()]),
        NetSlice::Arp(_) => None,
    }
}
