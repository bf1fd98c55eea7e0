//! The loop of the process: one thread, which waits for guests' packets, for records, and for what is due.

use crate::channel::frames::FrameChannel;
use crate::channel::records::RecordChannel;
use crate::directory::{Asker, GuestDirectory};
use crate::dns::{self, DnsTransport, QuestionRates, datagram};
use crate::metadata;
use crate::tcp::{Reaction, Respond, TcpPool};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;
use smoltcp::time::Instant as StackTime;
use std::io;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use vswitch_core::config::services::METADATA_PORT;
use vswitch_core::config::services::frame::{MESSAGE_BYTES_MAX, ServiceFrame};

/// The pause between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(100);
/// Packets that are taken before anything else has its turn.
const PACKETS_PER_TURN: usize = 64;

/// How the process is to run.
#[derive(Clone, Debug)]
pub struct ServicesConfig {
    /// The forwarding plane's socket for guests' packets.
    pub frames: PathBuf,
    /// The control plane's socket for records.
    pub records: PathBuf,
}

/// Runs until `stop` becomes readable or its other end is closed.
///
/// # Errors
/// The kernel has no random numbers, or refuses to wait.
pub fn run(config: &ServicesConfig, stop: &UnixStream) -> io::Result<()> {
    let mut seed = [0; 8];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())?;
    let mut server = ServicesLoop {
        config: config.clone(),
        started: Instant::now(),
        frames: Connecting::new(),
        records: Connecting::new(),
        directory: GuestDirectory::default(),
        rates: QuestionRates::default(),
        tcp: TcpPool::new(u64::from_ne_bytes(seed)),
        message: vec![0; MESSAGE_BYTES_MAX].into(),
    };
    while !server.wait(stop)? {
        server.turn();
    }
    Ok(())
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
    tcp: TcpPool,
    message: Box<[u8]>,
}

/// What serves a connection, at one time.
struct Responder<'a> {
    directory: &'a GuestDirectory,
    rates: &'a mut QuestionRates,
    now_s: u64,
    now_ns: u64,
}

impl Respond for Responder<'_> {
    fn respond(&mut self, asker: &Asker, port: u16, input: &[u8]) -> Reaction {
        match port {
            METADATA_PORT => metadata::react(self.directory, asker, input, self.now_s),
            _ => dns::react(self.directory, asker, input, || self.rates.admits(asker, self.now_ns)),
        }
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
        let connects = [self.frames.due(), self.records.due()].into_iter().flatten();
        let connects = connects.map(|due| due.saturating_duration_since(Instant::now()));
        let timeout = connects.chain(stack).min().map(|wait| Timespec {
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
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(!polled[0].revents().is_empty()),
            Err(error) => Err(error.into()),
        }
    }

    fn turn(&mut self) {
        // Records first: a guest that asks right after it was made should be known.
        if self.records.connect(|| RecordChannel::connect(&self.config.records)) {
            log::info!("connected to the control plane");
        }
        if let Some(records) = &mut self.records.connection
            && let Err(error) = records.read_into(&mut self.directory)
        {
            log::warn!("the control plane is away ({error}): guests are told what is known");
            self.records.connection = None;
        }
        if self.frames.connect(|| FrameChannel::connect(&self.config.frames)) {
            log::info!("connected to the forwarding plane");
        }
        if let Err(error) = self.exchange() {
            log::warn!("the forwarding plane is away ({error})");
            self.frames.connection = None;
            // Another forwarding plane numbers its ENIs anew.
            self.tcp.clear();
        }
    }

    /// Serves the packets that have arrived, and does what is due.
    fn exchange(&mut self) -> io::Result<()> {
        let now = self.now();
        let now_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let Some(frames) = &mut self.frames.connection else { return Ok(()) };
        let now_ns = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut services = Responder { directory: &self.directory, rates: &mut self.rates, now_s, now_ns };
        for _ in 0..PACKETS_PER_TURN {
            let Some(message) = frames.receive(&mut self.message)? else { break };
            let Some(frame) = ServiceFrame::read(message) else { continue };
            let Ok(packet) = SlicedPacket::from_ip(frame.packet) else { continue };
            let Some(addresses) = addresses_of(&packet) else { continue };
            match &packet.transport {
                Some(TransportSlice::Tcp(segment)) => {
                    self.tcp.receive((&frame, addresses, segment), &mut services, now, &mut |frame| frames.send(frame));
                }
                Some(TransportSlice::Udp(datagram)) => {
                    let ports = [datagram.source_port(), datagram.destination_port()];
                    let asker = Asker { vpc: frame.names[0].into(), eni: frame.names[1].into() };
                    let is_within_rate = services.rates.admits(&asker, now_ns);
                    let reply = dns::answer(
                        &self.directory,
                        &asker,
                        datagram.payload(),
                        DnsTransport::Datagram,
                        is_within_rate,
                    );
                    if let Some(packet) = reply.and_then(|reply| datagram::reply(addresses, ports, &reply)) {
                        frames.send(&ServiceFrame { names: ["", ""], packet: &packet, ..frame });
                    }
                }
                // The forwarding plane sends nothing else.
                Some(_) | None => {}
            }
        }
        self.tcp.tick(&mut services, now, &mut |frame| frames.send(frame));
        frames.flush()
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
