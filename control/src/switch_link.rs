//! The connection to the forwarding plane, on a thread of its own so that nobody else waits for it.
//!
//! Level-triggered: the link knows what should run (`target`) and what of it was not acknowledged yet (`untold`), and
//! closes the gap with that delta, or with the whole state wherever the other end may run something else. Generations
//! begin above what the forwarding plane reports, so either side may restart. A lost message costs a reconnection,
//! nothing more.

use crate::view::LinkView;
use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use vswitch_core::desired::Desired;
use vswitch_core::limits::MESSAGE_BYTES_MAX;
use vswitch_core::protocol::{self, Applied, Delta, Refusal, Reply, ReplyBody, Request, RequestBody, Status};

/// Jobs that may wait for the link.
const JOBS_MAX: usize = 1024;
/// How often a quiet connection is looked at.
const WATCH_PERIOD: Duration = Duration::from_millis(100);
/// The first and the longest pause between attempts to reconnect or to bring a refused state about.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Something for the link to do.
#[derive(Debug)]
pub enum Job {
    /// Make this run, and with it all that was not acknowledged before.
    Apply {
        /// Repeated in the report.
        ticket: u64,
        /// What changes in the state that should run; empty to bring about only what was not acknowledged.
        delta: Delta,
    },
    /// Ask the forwarding plane.
    Ask {
        /// Repeated in the report.
        ticket: u64,
        /// The question.
        body: RequestBody,
    },
    /// Tell how the link is doing.
    Status {
        /// Repeated in the report.
        ticket: u64,
    },
}

/// What became of a job.
#[derive(Debug)]
pub enum Report {
    /// Of [`Job::Apply`].
    Apply {
        /// The job's.
        ticket: u64,
        /// What became of the state.
        outcome: Outcome,
    },
    /// Of [`Job::Ask`].
    Ask {
        /// The job's.
        ticket: u64,
        /// The answer, or why there is none.
        answer: Result<ReplyBody, String>,
    },
    /// Of [`Job::Status`].
    Status {
        /// The job's.
        ticket: u64,
        /// How the link is doing.
        link: LinkView,
        /// What the forwarding plane says of itself, if it can be asked.
        forwarding: Option<Status>,
    },
}

/// What became of a state.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Every worker runs it.
    Applied(Applied),
    /// It was empty, and every worker runs all that was told before.
    InForce,
    /// The forwarding plane refused it. The link has returned to the state before it.
    Refused(Vec<Refusal>),
    /// It does not run yet. The link goes on trying.
    Pending(String),
}

/// More jobs wait for the link than may.
#[derive(Debug, thiserror::Error)]
#[error("too many requests wait for the forwarding plane")]
pub struct LinkBusy;

/// The near end of the link.
#[derive(Debug)]
pub struct SwitchLink {
    jobs: SyncSender<Job>,
    pending: Pending,
}

/// Why the state that should run is not known to run, if it is not. Written by the link's thread.
type Pending = Arc<Mutex<Option<String>>>;

impl SwitchLink {
    /// Starts the link. It connects by itself and makes `desired` run. It ends when the value is dropped.
    ///
    /// # Errors
    /// Where there is no thread to be had.
    pub fn start(
        socket: &Path,
        timeout: Duration,
        desired: Desired,
        report: impl Fn(Report) + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, inbox) = sync_channel(JOBS_MAX);
        let reason = "no attempt to connect was made yet".to_owned();
        let pending = Arc::new(Mutex::new(Some(reason.clone())));
        let far_end = FarEnd {
            pending: Arc::clone(&pending),
            socket: socket.into(),
            timeout,
            target: desired,
            untold: Delta::default(),
            connection: None,
            running: None,
            generation: 0,
            reason: Some(reason),
            retry_at: Instant::now(),
            back_off: BACK_OFF.0,
        };
        thread::Builder::new().name("switch-link".into()).spawn(move || far_end.run(&inbox, report))?;
        Ok(Self { jobs, pending })
    }

    /// Why what was handed over and reported is not known to run, if it is not.
    pub fn pending(&self) -> Option<String> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands a job over.
    ///
    /// # Errors
    /// Where too many jobs wait or the link has ended.
    pub fn send(&self, job: Job) -> Result<(), LinkBusy> {
        self.jobs.try_send(job).map_err(|_| LinkBusy)
    }
}

/// The thread's side.
struct FarEnd {
    pending: Pending,
    socket: PathBuf,
    timeout: Duration,
    /// What should run.
    target: Desired,
    /// What leads from what was acknowledged last, if anything was, to the target.
    untold: Delta,
    connection: Option<Connection>,
    /// The generation that the forwarding plane acknowledged last on this connection.
    running: Option<u64>,
    /// The highest generation either side has named.
    generation: u64,
    /// Why the target does not run.
    reason: Option<String>,
    retry_at: Instant,
    back_off: Duration,
}

impl FarEnd {
    fn run(mut self, inbox: &Receiver<Job>, report: impl Fn(Report)) {
        loop {
            let pause = match self.in_sync() {
                true => WATCH_PERIOD,
                false => self.retry_at.saturating_duration_since(Instant::now()).min(WATCH_PERIOD),
            };
            match inbox.recv_timeout(pause) {
                Ok(job) => {
                    let done = self.perform(job);
                    self.publish();
                    report(done);
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.watch();
                    self.publish();
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn perform(&mut self, job: Job) -> Report {
        match job {
            Job::Apply { ticket, delta } if delta.is_empty() && self.still_in_sync() => {
                Report::Apply { ticket, outcome: Outcome::InForce }
            }
            Job::Apply { ticket, delta } => {
                let untold = self.untold.clone();
                if self.running.is_some() {
                    extend(&mut self.untold, delta.clone());
                }
                let undo = delta.apply(&mut self.target);
                let outcome = self.bring_about();
                if matches!(outcome, Outcome::Refused(_)) {
                    undo.apply(&mut self.target);
                    self.untold = untold;
                }
                Report::Apply { ticket, outcome }
            }
            Job::Ask { ticket, body } => Report::Ask { ticket, answer: self.ask(body) },
            Job::Status { ticket } => {
                let forwarding = match self.ask(RequestBody::Status) {
                    Ok(ReplyBody::Status(status)) => Some(status),
                    _ => None,
                };
                Report::Status { ticket, link: self.view(), forwarding }
            }
        }
    }

    fn in_sync(&self) -> bool {
        self.connection.is_some() && self.running.is_some() && self.untold.is_empty()
    }

    /// Notices a connection that ended: whoever acknowledged the state on it may be gone.
    fn still_in_sync(&mut self) -> bool {
        if self.connection.as_ref().is_some_and(Connection::has_ended) {
            self.disconnect("the forwarding plane closed the connection".into());
            (self.retry_at, self.back_off) = (Instant::now(), BACK_OFF.0);
        }
        self.in_sync()
    }

    fn publish(&self) {
        let reason = || self.reason.clone().unwrap_or_else(|| "the forwarding plane has not acknowledged it".into());
        let pending = if self.in_sync() { None } else { Some(reason()) };
        *self.pending.lock().unwrap_or_else(PoisonError::into_inner) = pending;
    }

    /// Notices a connection that ended, and tries again what is due.
    fn watch(&mut self) {
        if !self.still_in_sync() && Instant::now() >= self.retry_at {
            // The outcome stays in `reason`.
            self.bring_about();
        }
    }

    /// Makes the target run, within the timeout.
    fn bring_about(&mut self) -> Outcome {
        let outcome = match self.try_bring_about(Instant::now() + self.timeout) {
            Ok(outcome) => outcome,
            Err(reason) => {
                self.disconnect(reason.clone());
                Outcome::Pending(reason)
            }
        };
        match &outcome {
            Outcome::Applied(_) | Outcome::InForce => {
                self.reason = None;
                self.back_off = BACK_OFF.0;
            }
            Outcome::Refused(refusals) => {
                self.postpone(format!("the forwarding plane refused: {}", crate::wire::refusals_text(refusals)));
            }
            Outcome::Pending(reason) => self.postpone(reason.clone()),
        }
        outcome
    }

    fn try_bring_about(&mut self, deadline: Instant) -> Result<Outcome, String> {
        self.connect(deadline)?;
        if let Some(base) = self.running {
            let delta = self.untold.clone();
            let body = RequestBody::Apply { base, generation: self.generation + 1, delta };
            match self.submit(body, deadline)? {
                Outcome::Refused(refusals) if refusals.iter().any(|refusal| refusal.code == "generation-mismatch") => {
                    self.running = None;
                    self.learn_generation(deadline)?;
                }
                outcome => return Ok(outcome),
            }
        }
        let body = RequestBody::Replace { generation: self.generation + 1, desired: self.target.clone() };
        self.submit(body, deadline)
    }

    fn submit(&mut self, body: RequestBody, deadline: Instant) -> Result<Outcome, String> {
        self.generation += 1;
        match self.exchange(body, deadline)? {
            ReplyBody::Applied(applied) => {
                self.generation = self.generation.max(applied.generation);
                self.running = Some(applied.generation);
                self.untold = Delta::default();
                Ok(Outcome::Applied(applied))
            }
            ReplyBody::Refused { refusals } => {
                if refusals.iter().any(|refusal| refusal.code == "timeout") {
                    // Either state may be in force: only the whole one makes sure.
                    self.running = None;
                }
                Ok(Outcome::Refused(refusals))
            }
            other => Err(format!("the forwarding plane gave an unexpected answer: {other:?}")),
        }
    }

    fn ask(&mut self, body: RequestBody) -> Result<ReplyBody, String> {
        let deadline = Instant::now() + self.timeout;
        let answer = self.connect(deadline).and_then(|()| self.exchange(body, deadline));
        if let Err(reason) = &answer {
            self.disconnect(reason.clone());
        }
        answer
    }

    fn connect(&mut self, deadline: Instant) -> Result<(), String> {
        if self.connection.is_some() {
            return Ok(());
        }
        let stream = connect_at_once(&self.socket)
            .map_err(|error| format!("the forwarding plane at {} cannot be reached: {error}", self.socket.display()))?;
        self.connection = Some(Connection { stream: BufReader::new(stream), last_id: 0 });
        self.running = None;
        self.learn_generation(deadline)
    }

    fn learn_generation(&mut self, deadline: Instant) -> Result<(), String> {
        match self.exchange(RequestBody::Status, deadline)? {
            ReplyBody::Status(status) => self.generation = self.generation.max(status.generation),
            other => return Err(format!("the forwarding plane did not tell its generation: {other:?}")),
        }
        Ok(())
    }

    fn exchange(&mut self, body: RequestBody, deadline: Instant) -> Result<ReplyBody, String> {
        let connection = self.connection.as_mut().ok_or("the forwarding plane is not connected")?;
        connection.exchange(body, deadline).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("the forwarding plane did not answer within {} ms", self.timeout.as_millis())
            }
            _ => format!("the connection to the forwarding plane broke: {error}"),
        })
    }

    fn disconnect(&mut self, reason: String) {
        self.connection = None;
        self.running = None;
        self.reason = Some(reason);
    }

    fn postpone(&mut self, reason: String) {
        self.reason = Some(reason);
        self.retry_at = Instant::now() + self.back_off;
        self.back_off = (self.back_off * 2).min(BACK_OFF.1);
    }

    fn view(&self) -> LinkView {
        LinkView {
            socket: self.socket.display().to_string(),
            connected: self.connection.is_some(),
            in_sync: self.in_sync(),
            generation: self.running.unwrap_or(0),
            reason: if self.in_sync() { None } else { self.reason.clone() },
        }
    }
}

/// Connects, or fails at once where the other end's queue is full: one that is stopped takes nobody out of it.
fn connect_at_once(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Adds a later change to an earlier one.
fn extend(delta: &mut Delta, later: Delta) {
    let Delta { settings, vpcs, vswitches, groups, rules, prefix_lists, port_lists, enis } = later;
    delta.settings = settings.or(delta.settings.take());
    delta.vpcs.extend(vpcs);
    delta.vswitches.extend(vswitches);
    // A group that is told whole needs none of its rules told before.
    delta.rules.retain(|id, _| !groups.contains_key(id));
    delta.groups.extend(groups);
    for (id, rules) in rules {
        delta.rules.entry(id).or_default().extend(rules);
    }
    delta.prefix_lists.extend(prefix_lists);
    delta.port_lists.extend(port_lists);
    delta.enis.extend(enis);
}

struct Connection {
    stream: BufReader<UnixStream>,
    last_id: u64,
}

impl Connection {
    /// Whether the other end closed, or says something nobody asked for.
    fn has_ended(&self) -> bool {
        let mut byte = [0];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        rustix::net::recv(self.stream.get_ref(), &mut byte, flags) != Err(rustix::io::Errno::AGAIN)
    }

    fn exchange(&mut self, body: RequestBody, deadline: Instant) -> io::Result<ReplyBody> {
        self.last_id += 1;
        let request = Request { version: protocol::VERSION, id: self.last_id, body };
        self.write(&protocol::write(&request), deadline)?;
        let line = self.read_line(deadline)?;
        let reply: Reply = protocol::read(&line).map_err(|refusal| {
            io::Error::new(io::ErrorKind::InvalidData, format!("its answer cannot be read: {}", refusal.message))
        })?;
        let is_refusal = matches!(reply.body, ReplyBody::Refused { .. });
        if reply.id != self.last_id && !(is_refusal && reply.id == 0) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it answered another request"));
        }
        Ok(reply.body)
    }

    fn write(&mut self, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.get_ref().set_write_timeout(Some(left(deadline)?))?;
            match self.stream.get_mut().write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read_line(&mut self, deadline: Instant) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        loop {
            self.stream.get_ref().set_read_timeout(Some(left(deadline)?))?;
            let bytes = match self.stream.fill_buf() {
                Ok([]) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it was closed")),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let (taken, ends) = match bytes.iter().position(|byte| *byte == b'\n') {
                Some(place) => (place + 1, true),
                None => (bytes.len(), false),
            };
            line.extend_from_slice(&bytes[..taken]);
            self.stream.consume(taken);
            if ends {
                return Ok(line);
            }
            if line.len() > MESSAGE_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "its answer is too long"));
            }
        }
    }
}

/// The time left, which a socket can be given as a timeout.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left.max(Duration::from_millis(1))) }
}
