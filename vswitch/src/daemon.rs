//! The forwarding plane as a process: it connects the parts, owns the only clock, and runs the control thread's loop.

use crate::config::VswitchConfig;
use crate::exchange::doorbell::{Doorbell, Waker as DoorbellWaker};
use crate::exchange::services::ServiceLinks;
use crate::os::run_dir::RunDir;
use crate::port::tap::steering;
use crate::services::relay::FrameSocket;
use crate::services::thread::{self, ServiceThread};
use crate::switch::control_socket::ControlSocket;
use crate::switch::{Switch, SwitchConfig, assemble};
use crate::worker::Worker;
use crate::worker::driver::WorkerDriver;
use crate::worker::thread::MonotonicClock;
use crate::worker::threads::WorkerThreads;
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::process::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vswitch_core::config::limits::WORKERS_MAX;
use vswitch_core::config::protocol::{self, SwitchReply, SwitchReplyBody, SwitchRequest, VERSION};
use vswitch_core::config::refusal::Refusal;
use vswitch_core::config::services::FRAMES_SOCKET;
use vswitch_core::conntrack::table::LAYOUT_VERSION;

const LISTENER: Token = Token(0);
const STOP: Token = Token(1);
const WORKERS: Token = Token(2);
/// The pause before accepting connections again after the system ran out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Readiness events handled at once.
const EVENTS_MAX: usize = 256;

/// Runs the forwarding plane until SIGTERM or SIGINT.
///
/// # Errors
/// Why it could not start, or why its control thread stopped.
pub fn run(config: VswitchConfig) -> io::Result<()> {
    allow_many_descriptors();
    // A pipe, so that a signal is an event of the poll like any other and no handler has to do more than write.
    let (sender, receiver) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT] {
        signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
    }
    run_until(config, receiver)
}

/// Runs the forwarding plane until `stop` becomes readable or its other end is closed.
///
/// # Errors
/// Why it could not start, or why its control thread stopped.
pub fn run_until(config: VswitchConfig, stop: UnixStream) -> io::Result<()> {
    // Checked before anything is opened: a refused configuration leaves no socket behind.
    if !(1..=WORKERS_MAX).contains(&config.workers) {
        return Err(io::Error::new(ErrorKind::InvalidInput, format!("a switch has 1 to {WORKERS_MAX} workers")));
    }
    let ports = &config.ports;
    if ports.rx_queues > config.workers {
        let text = format!("{} rx queues need as many workers, and there are {}", ports.rx_queues, config.workers);
        return Err(io::Error::new(ErrorKind::InvalidInput, text));
    }
    if ports.queues() > WORKERS_MAX {
        let text = format!("{} rx queues need as many workers, and there may be {WORKERS_MAX}", ports.queues());
        return Err(io::Error::new(ErrorKind::InvalidInput, text));
    }
    // Several queues need the program that keeps a flow in one of them; with one queue, no capability is asked for.
    if ports.queues() > 1 {
        steering::load().map_err(|error| {
            let text = format!(
                "several rx queues require a program in the kernel that keeps flows in order: {error}; use one rx queue"
            );
            io::Error::new(error.kind(), text)
        })?;
    }
    let clock = MonotonicClock::start();
    let poll = Poll::new()?;
    // The socket is bound before workers start: a second switch on it must end before it touches any port.
    let socket = ControlSocket::bind(&config.socket, poll.registry(), LISTENER)?;
    stop.set_nonblocking(true)?;
    let mut stop = mio::net::UnixStream::from_std(stop);
    poll.registry().register(&mut stop, STOP, Interest::READABLE)?;
    let control = Arc::new(Waker::new(poll.registry(), WORKERS)?);
    let [services, relay] = [Poll::new()?, Poll::new()?];
    let doorbell =
        |poll: &Poll| DoorbellWaker::new(poll.registry(), thread::DOORBELL).map(|waker| Doorbell::new(Some(waker)));
    let links = ServiceLinks::new(doorbell(&services)?, doorbell(&relay)?);
    let frames = FrameSocket::listen(&config.socket.with_file_name(FRAMES_SOCKET), relay.registry())?;
    let secret = secret()?;
    let (switch, threads) = start_workers(config, secret, control, links, clock)?;
    let service_threads = [
        ServiceThread::spawn("services", switch.services(secret[0]), services, move || clock.now())?,
        ServiceThread::spawn("relay", switch.frame_relay(frames), relay, move || clock.now())?,
    ];
    let mut control_loop = ControlLoop { poll, socket, switch, threads, accept_at: None };
    let result = control_loop.run();
    // Ports are closed while their workers still turn: a worker has to give each port back.
    control_loop.switch.close_all(&mut control_loop.threads);
    control_loop.threads.end();
    service_threads.into_iter().for_each(ServiceThread::end);
    result
}

/// Raises the limit of open files: every port has one or two descriptors, and the usual limit of 1,024 only exists for
/// programs that use `select`.
fn allow_many_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If it fails, there can be fewer ports, and those that cannot be opened say why.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn start_workers(
    config: VswitchConfig,
    secret: [u64; 2],
    control: Arc<Waker>,
    services: ServiceLinks,
    clock: MonotonicClock,
) -> io::Result<(Switch, WorkerThreads)> {
    let mut threads = WorkerThreads::new(config.pin, config.busy_poll, clock);
    let endpoints = threads.reserve(config.workers)?;
    let flows_max_per_worker = config.flows_max_per_worker;
    let mut ports = config.ports;
    // Notes of what was created lie beside the socket, where the next process on this socket looks for them.
    ports.run_dir = ports.run_dir.or_else(|| Some(RunDir::beside(&config.socket)));
    let config = SwitchConfig { workers: config.workers, flows_max_per_worker, secret, ports };
    let (switch, workers) = assemble(config, endpoints, Some(control), services);
    let memory_mib = workers.iter().map(Worker::flow_memory_bytes).sum::<usize>() >> 20;
    let room = format!("{flows_max_per_worker} connections of IPv4 and {} of IPv6", flows_max_per_worker / 4);
    log::info!(
        "each of {} workers has room for {room}, {memory_mib} MiB in all, layout {LAYOUT_VERSION}",
        workers.len()
    );
    threads.resume(workers);
    Ok((switch, threads))
}

/// From the system's random source, so that nobody can construct collisions in a connection table.
fn secret() -> io::Result<[u64; 2]> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let both = u128::from_ne_bytes(bytes);
    Ok([both as u64, (both >> 64) as u64])
}

struct ControlLoop {
    poll: Poll,
    socket: ControlSocket,
    switch: Switch,
    threads: WorkerThreads,
    /// When to accept waiting connections.
    accept_at: Option<Instant>,
}

impl ControlLoop {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut has_more = false;
        loop {
            let waits = [self.until_next_tick(), self.until_next_accept()].into_iter().flatten().min();
            // A connection with another complete line would not be announced again: its readiness is edge-triggered.
            let timeout = if has_more { Some(Duration::ZERO) } else { waits };
            match self.poll.poll(&mut events, timeout) {
                // An interrupted wait is no error: the loop then handles what is due and waits again.
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    STOP => return Ok(()),
                    LISTENER => self.accept_at = Some(Instant::now()),
                    WORKERS => {}
                    connection => self.socket.mark_ready(connection),
                }
            }
            // Accepting waits for a moment only after a shortage of descriptors, which the listener does not announce
            // as over.
            if self.accept_at.is_some_and(|at| Instant::now() >= at) {
                let again = self.socket.accept(self.poll.registry());
                self.accept_at = again.then(|| Instant::now() + ACCEPT_PAUSE);
            }
            let (switch, threads) = (&mut self.switch, &mut self.threads);
            has_more = self.socket.serve(&mut |line| answer(switch, line, threads));
            self.switch.tick(&mut self.threads);
        }
    }

    fn until_next_accept(&self) -> Option<Duration> {
        self.accept_at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn until_next_tick(&self) -> Option<Duration> {
        let tick = self.switch.next_tick();
        let tick = tick.map(|next| Duration::from_nanos(next.as_ns().saturating_sub(self.threads.now().as_ns())));
        let late = self.socket.next_deadline().map(|late| late.saturating_duration_since(Instant::now()));
        [tick, late].into_iter().flatten().min()
    }
}

fn answer(switch: &mut Switch, line: &[u8], driver: &mut dyn WorkerDriver) -> Vec<u8> {
    let reply = match protocol::read::<SwitchRequest>(line) {
        Ok(request) => switch.answer(request, driver),
        Err(refusal) => refused(refusal),
    };
    let line = protocol::write(&reply);
    // A reply that its reader must refuse would leave the client without an answer.
    if line.len() <= vswitch_core::config::limits::MESSAGE_BYTES_MAX {
        return line;
    }
    let text = "the reply would be too long; request less at once";
    protocol::write(&SwitchReply { id: reply.id, ..refused(Refusal::new("limit", "", text)) })
}

fn refused(refusal: Refusal) -> SwitchReply {
    SwitchReply { version: VERSION, id: 0, body: SwitchReplyBody::Refused { refusals: vec![refusal] } }
}
