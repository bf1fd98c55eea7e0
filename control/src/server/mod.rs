//! The server: one thread that owns the state and waits with `mio`. Only the link to the forwarding plane has threads
//! of its own, so no client ever waits because another is slow.
//!
//! Changes are decided one after another. Those that arrive while the forwarding plane is busy are stored and sent to
//! it together, and each is answered once it has acknowledged them. Queries about the model are answered at once.
//! Clients take turns: one request of each at a time.

mod calls;
mod changes;
mod clients;
mod record_feed;

use crate::config::ControlConfig;
use crate::ecs::{ApiSettings, guest_record};
use crate::error::{
    ApiError, DRY_RUN, ENI_NOT_FOUND, FORWARDING_UNAVAILABLE, INTERNAL_ERROR, INVALID_PARAMETER, REQUEST_TOO_LARGE,
};
use crate::http::{Endpoint, EndpointError, HttpServer, PendingCall};
use crate::model::Model;
use crate::os::privileges::{self, Role};
use crate::refusal_log::RefusalLog;
use crate::socket::connection::{Input, SocketConnection};
use crate::socket::listener::Socket;
use crate::socket::protocol::{
    Operation, REQUEST_BYTES_MAX, Reply, ReplyBody, read_request, refusals_text, refused_object,
};
use crate::socket::query::{Answer, Query};
use crate::socket::view::{ObjectCounts, StatusView};
use crate::state::masquerade::MasqueradeLink;
use crate::state::switch_link::{LinkReport, Question, SwitchLink};
use crate::state::transaction::StateOwner;
use crate::store::{DataDirectory, EmbeddedStore, Store, StoreError};
use changes::{ChangeSource, InFlight, QueuedChange};
use mio::net::UnixStream;
use mio::{Events, Interest, Poll, Token, Waker};
use record_feed::RecordFeed;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::time::{Duration, Instant};
use vswitch_core::config::protocol::{RequestBody, SwitchReplyBody};
use vswitch_core::config::refusal::Refusal;
use vswitch_core::config::services::RECORDS_SOCKET;

/// Clients at once.
pub const CONNECTIONS_MAX: usize = 256;
/// How many sessions a query returns if it has no limit.
const FLOWS_DEFAULT: usize = 1000;
/// The pause before accepting clients again after the system ran out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a stopping server waits for clients to read their last replies.
const FAREWELL: Duration = Duration::from_millis(200);

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const STOP: Token = Token(2);
const FIRST_CONNECTION: usize = 3;

/// Why a control plane could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state is not available.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The control socket is not available.
    #[error("cannot listen at {path}: {source}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The HTTP interface is not available.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The operating system refused something else.
    #[error("the control plane cannot {what}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
}

/// Runs a control plane in this process until SIGTERM or SIGINT. Before it accepts the first client, the process
/// permanently drops what it needed only to start ([`privileges::seal`]).
///
/// # Errors
/// Why it cannot start or continue.
pub fn run(config: &ControlConfig) -> Result<(), RunError> {
    let io = |what| move |source| RunError::Io { what, source };
    let (stop, stopped) = StdUnixStream::pair().map_err(io("watch for signals"))?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        let end = stop.try_clone().map_err(io("watch for signals"))?;
        signal_hook::low_level::pipe::register(signal, end).map_err(io("watch for signals"))?;
    }
    allow_many_descriptors();
    let directory = DataDirectory::open(&config.data_dir)?;
    let store = match config.has_state {
        true => EmbeddedStore::open_existing(directory)?,
        false => EmbeddedStore::open(directory)?,
    };
    // Opened before privileges are dropped: the port may be below 1024.
    let endpoint = match &config.api {
        Some(api) => Some(Endpoint::open(api, &config.data_dir)?),
        None => None,
    };
    // There are no other threads yet, and no client has been accepted.
    privileges::seal(Role::Control);
    serve_with(config, Box::new(store), stopped, endpoint)
}

/// Raises the limit of open files: HTTP and control socket clients together may exceed the usual limit of 1,024, which
/// only exists for programs that use `select`.
fn allow_many_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If it fails, some clients have to wait for others to disconnect.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Runs a control plane on any store until `stop` becomes readable or its other end is closed.
///
/// # Errors
/// Why it cannot start or continue.
pub fn serve(config: &ControlConfig, store: Box<dyn Store>, stop: StdUnixStream) -> Result<(), RunError> {
    serve_with(config, store, stop, None)
}

/// Like [`serve`], with an HTTP interface.
///
/// # Errors
/// Why it cannot start or continue.
pub fn serve_with(
    config: &ControlConfig,
    store: Box<dyn Store>,
    stop: StdUnixStream,
    endpoint: Option<Endpoint>,
) -> Result<(), RunError> {
    Server::start(config, store, stop, endpoint)?.run()
}

/// A query that was passed to the link for a client.
struct PendingQuery {
    origin: ReplyTarget,
}

/// Where a reply goes.
#[derive(Clone, Copy, Debug)]
enum ReplyTarget {
    /// A client of the control socket.
    Socket { token: Token, request: u64 },
    /// A call through HTTP, by its number.
    Http(u64),
}

/// The response to an HTTP call once its change is in force.
type ResponseBody = Map<String, Value>;

struct Server {
    config: ControlConfig,
    started: Instant,
    state: StateOwner,
    poll: Poll,
    socket: Socket,
    /// Held so that the end of the other side can be detected.
    _stop: UnixStream,
    link: SwitchLink,
    reports: Receiver<LinkReport>,
    connections: BTreeMap<Token, SocketConnection>,
    next_token: usize,
    /// When to accept waiting clients.
    accept_at: Option<Instant>,
    /// Clients that may have a request to read.
    ready: VecDeque<Token>,
    next_ticket: u64,
    asked: BTreeMap<u64, PendingQuery>,
    in_flight: Option<InFlight>,
    masquerade: MasqueradeLink,
    /// Changes after those in flight: at most one per client.
    waiting: VecDeque<QueuedChange>,
    stopping: bool,
    settings: ApiSettings,
    calls: Receiver<PendingCall>,
    callers: BTreeMap<u64, calls::Caller>,
    refusals: RefusalLog,
    record_feed: RecordFeed,
    /// Ends with the server.
    http: Option<HttpServer>,
}

impl Server {
    fn start(
        config: &ControlConfig,
        store: Box<dyn Store>,
        stop: StdUnixStream,
        endpoint: Option<Endpoint>,
    ) -> Result<Self, RunError> {
        let io = |what| move |source| RunError::Io { what, source };
        let state = StateOwner::load(store, config.quotas.clone())?;
        let poll = Poll::new().map_err(io("wait for clients"))?;
        let path = config.socket.clone();
        let mut socket = Socket::listen(&path).map_err(|source| RunError::Socket { path, source })?;
        stop.set_nonblocking(true).map_err(io("watch for its end"))?;
        let mut stop = UnixStream::from_std(stop);
        let registry = poll.registry();
        registry.register(&mut socket.listener, LISTENER, Interest::READABLE).map_err(io("wait for clients"))?;
        registry.register(&mut stop, STOP, Interest::READABLE).map_err(io("watch for its end"))?;
        let waker = Arc::new(Waker::new(registry, WAKER).map_err(io("wait for the forwarding plane"))?);
        let (calls_in, calls) = sync_channel(calls::CALLS_MAX);
        let settings = endpoint.as_ref().map(|endpoint| endpoint.settings().clone()).unwrap_or_default();
        let wake = Arc::clone(&waker);
        // Waking fails only if a wake-up is pending already.
        let http = endpoint.map(|endpoint| endpoint.start(calls_in, move || drop(wake.wake()))).transpose();
        let http = http.map_err(io("start the HTTP interface"))?;
        let (sender, reports) = channel();
        let report = move |report| {
            // If the server is gone, nobody needs the report; otherwise the next one wakes it.
            let _ = sender.send(report);
            let _ = waker.wake();
        };
        let record_feed = start_record_feed(config, state.model(), &settings)?;
        let desired = state.desired().clone();
        let link = SwitchLink::start(&config.vswitch_socket, config.apply_timeout, desired, report)
            .map_err(io("start the link to the forwarding plane"))?;
        Ok(Self {
            config: config.clone(),
            started: Instant::now(),
            state,
            poll,
            socket,
            _stop: stop,
            link,
            reports,
            connections: BTreeMap::new(),
            next_token: FIRST_CONNECTION,
            accept_at: None,
            ready: VecDeque::new(),
            next_ticket: 0,
            asked: BTreeMap::new(),
            in_flight: None,
            masquerade: MasqueradeLink::new(config.supervisor_socket.clone()),
            waiting: VecDeque::new(),
            stopping: false,
            settings,
            calls,
            callers: BTreeMap::new(),
            refusals: RefusalLog::new(clients::bounds()),
            record_feed,
            http,
        })
    }

    fn run(mut self) -> Result<(), RunError> {
        let mut events = Events::with_capacity(1024);
        let mut has_calls = false;
        // A change in flight is waited for, since its client must learn whether it is in force.
        while !(self.stopping && self.in_flight.is_none()) {
            let has_more = has_calls || (!self.ready.is_empty() && !self.stopping);
            let pause = if has_more { Some(Duration::ZERO) } else { self.until_due() };
            self.wait(&mut events, pause)?;
            self.accept_again();
            self.take_reports();
            has_calls = self.take_calls();
            if !self.stopping {
                self.serve_round();
                self.end_slow_clients();
            }
            self.change_next();
            self.masquerade.try_again(self.state.model());
        }
        // Give clients a moment to read their last reply.
        let farewell = Instant::now() + FAREWELL;
        while self.connections.values().any(SocketConnection::is_writing) && Instant::now() < farewell {
            self.wait(&mut events, Some(farewell.saturating_duration_since(Instant::now())))?;
        }
        Ok(())
    }

    fn wait(&mut self, events: &mut Events, pause: Option<Duration>) -> Result<(), RunError> {
        match self.poll.poll(events, pause) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            polled => polled.map_err(|source| RunError::Io { what: "wait for clients", source })?,
        }
        for event in events.iter() {
            match event.token() {
                LISTENER => self.accept(),
                WAKER => {}
                STOP => self.stopping = true,
                token => {
                    // Written before reading: a client that has not read its reply gets no further one.
                    self.flush(token);
                    self.make_ready(token);
                }
            }
        }
        Ok(())
    }

    /// How long until something is due: accepting clients again, disconnecting a slow one, or masquerading.
    fn until_due(&self) -> Option<Duration> {
        let late = self.next_line_deadline().filter(|_| !self.stopping);
        let due = [late, self.accept_at, self.masquerade.due()].into_iter().flatten().min();
        due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    fn make_ready(&mut self, token: Token) {
        // A busy client has its next request wait, so that its replies stay in order.
        let listening =
            self.connections.get(&token).is_some_and(|connection| !connection.busy && !connection.is_writing());
        if listening && !self.ready.contains(&token) {
            self.ready.push_back(token);
        }
    }

    /// Serves one request of every client that is ready.
    fn serve_round(&mut self) {
        // Taken out: clients that become ready meanwhile wait for the next round.
        for token in std::mem::take(&mut self.ready) {
            let room = self.room_of(token);
            let Some(connection) = self.connections.get_mut(&token) else { continue };
            match connection.next(room) {
                Ok(Input::Line(line)) => {
                    self.handle(token, &line);
                    self.make_ready(token);
                }
                Ok(Input::TooLong) => {
                    let message = format!("a request may have at most {REQUEST_BYTES_MAX} bytes: split it");
                    self.refuse(ReplyTarget::Socket { token, request: 0 }, REQUEST_TOO_LARGE.error(message));
                }
                Ok(Input::NoRoom) => self.refuse_line(token),
                Ok(Input::Nothing) => {}
                Ok(Input::More) => self.make_ready(token),
                Ok(Input::End) | Err(_) => drop(self.connections.remove(&token)),
            }
        }
    }

    fn handle(&mut self, token: Token, line: &[u8]) {
        let (request, operation) = read_request(line);
        let origin = ReplyTarget::Socket { token, request };
        match operation {
            Err(error) => self.refuse(origin, error),
            Ok(Operation::Ask(query)) => self.answer(origin, &query),
            Ok(Operation::Change(command)) => {
                self.set_busy(token);
                self.waiting.push_back(QueuedChange {
                    origin,
                    source: ChangeSource::Command(command),
                    asked: Instant::now(),
                    alone: false,
                });
            }
        }
    }

    fn set_busy(&mut self, token: Token) {
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.busy = true;
        }
    }

    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    fn answer(&mut self, origin: ReplyTarget, query: &Query) {
        let body = match query {
            Query::Ports(_) => RequestBody::Ports,
            Query::Stats(filter) => RequestBody::Stats { eni: filter.eni.as_deref().map(Into::into) },
            Query::Flows(list) => RequestBody::Flows {
                selection: list.selection.clone().unwrap_or_default(),
                cursor: list.cursor,
                limit: list.limit.unwrap_or(FLOWS_DEFAULT),
            },
            Query::FlowFlush(flush) => {
                RequestBody::FlushFlows { selection: flush.selection.clone(), cursor: flush.cursor }
            }
            Query::WorkersSet(set) => RequestBody::Regroup { workers: set.workers, lanes: set.lanes },
            Query::Explain(explain) => RequestBody::Explain { packet: explain.packet.clone() },
            Query::Status(_) => return self.hand_over(origin, None),
            query => {
                return match self.state.model().answer(query) {
                    Ok(Some(answer)) => self.reply(origin, ReplyBody::Answered { answer }),
                    Ok(None) => self.refuse(origin, INTERNAL_ERROR.error("this query cannot be answered here")),
                    Err(error) => self.refuse(origin, error),
                };
            }
        };
        self.hand_over(origin, Some(body));
    }

    fn hand_over(&mut self, origin: ReplyTarget, body: Option<RequestBody>) {
        let ticket = self.ticket();
        match self.link.ask(Question { ticket, body, asked: Instant::now() }) {
            Ok(()) => {
                if let ReplyTarget::Socket { token, .. } = origin {
                    self.set_busy(token);
                }
                self.asked.insert(ticket, PendingQuery { origin });
            }
            Err(_) => {
                let message = "too many requests wait for the forwarding plane: try again later";
                self.refuse(origin, FORWARDING_UNAVAILABLE.error(message));
            }
        }
    }

    fn take_reports(&mut self) {
        while let Ok(report) = self.reports.try_recv() {
            match report {
                LinkReport::Apply { ticket, outcome } => {
                    // A report of an earlier change that was given up on has another ticket.
                    if let Some(in_flight) = self.in_flight.take_if(|in_flight| in_flight.ticket == ticket) {
                        self.finish(in_flight, outcome);
                    }
                }
                LinkReport::Ask { ticket, answer } => {
                    let Some(PendingQuery { origin }) = self.asked.remove(&ticket) else { continue };
                    match answer_of(answer) {
                        Ok(answer) => self.reply(origin, ReplyBody::Answered { answer }),
                        Err(error) => self.refuse(origin, error),
                    }
                }
                LinkReport::Status { ticket, link, forwarding } => {
                    let Some(PendingQuery { origin }) = self.asked.remove(&ticket) else { continue };
                    let status = StatusView {
                        process_id: std::process::id(),
                        uptime_ms: self.started.elapsed().as_millis() as u64,
                        data_dir: self.config.data_dir.display().to_string(),
                        objects: ObjectCounts::new(self.state.model()),
                        link,
                        forwarding,
                        socket_clients: self.clients(),
                        http_clients: self.http.as_ref().map(HttpServer::status),
                    };
                    self.reply(origin, ReplyBody::Answered { answer: Answer::Status(Box::new(status)) });
                }
            }
        }
    }

    fn refuse(&mut self, origin: ReplyTarget, error: ApiError) {
        match origin {
            ReplyTarget::Socket { .. } => self.reply(origin, ReplyBody::Refused { error: error.into() }),
            ReplyTarget::Http(_) => {
                // A dry run depends on nothing.
                let pending = self.pending().filter(|_| error.code != DRY_RUN.code);
                self.answer_call(origin, Err(error), pending);
            }
        }
    }

    fn reply(&mut self, origin: ReplyTarget, body: ReplyBody) {
        let ReplyTarget::Socket { token, request } = origin else { return };
        let Some(connection) = self.connections.get_mut(&token) else { return };
        connection.busy = false;
        connection.reply(&Reply::new(request, body).to_line());
        // Most replies fit into the socket's buffer, so no event is needed for them.
        self.flush(token);
        self.make_ready(token);
    }

    fn flush(&mut self, token: Token) {
        if self.connections.get_mut(&token).is_some_and(|connection| connection.flush().is_err()) {
            self.connections.remove(&token);
        }
    }
}

fn start_record_feed(config: &ControlConfig, model: &Model, settings: &ApiSettings) -> Result<RecordFeed, RunError> {
    let records = model.enis.keys().filter_map(|id| Some((id.clone(), guest_record(model, settings, id)?)));
    let path = config.socket.with_file_name(RECORDS_SOCKET);
    RecordFeed::start(&path, &config.data_dir, records.collect()).map_err(|source| RunError::Socket { path, source })
}

/// Converts a reply of the forwarding plane.
fn answer_of(answer: Result<SwitchReplyBody, String>) -> Result<Answer, ApiError> {
    match answer {
        Ok(SwitchReplyBody::Ports { ports }) => Ok(Answer::Ports(ports)),
        Ok(SwitchReplyBody::Stats { enis }) => Ok(Answer::Stats(enis)),
        Ok(SwitchReplyBody::Flows { flows, next }) => Ok(Answer::Flows { flows, next }),
        Ok(SwitchReplyBody::Flushed { flows, next }) => Ok(Answer::Flushed { flows, next }),
        Ok(SwitchReplyBody::Regrouped(regrouped)) => Ok(Answer::Regrouped(regrouped)),
        Ok(SwitchReplyBody::Explained(explanation)) => Ok(Answer::Explanation(Box::new(explanation))),
        Ok(SwitchReplyBody::Refused { refusals }) => Err(refused_question(&refusals)),
        Ok(_) => Err(INTERNAL_ERROR.error("the forwarding plane gave an unexpected answer")),
        Err(reason) => Err(FORWARDING_UNAVAILABLE.error(reason)),
    }
}

fn refused_question(refusals: &[Refusal]) -> ApiError {
    let is_unknown = refusals.iter().any(|refusal| refusal.code == "unknown");
    let kind = if is_unknown { ENI_NOT_FOUND } else { INVALID_PARAMETER };
    ApiError { object: refused_object(refusals), ..kind.error(refusals_text(refusals)) }
}
