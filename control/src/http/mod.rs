//! The HTTP interface: turns bytes into calls and responses into bytes, on threads of its own.
//!
//! A call goes to the server's single thread through a bounded queue. What a client sends and how slowly it reads is
//! limited in size, number and time, per peer and in total, so that it cannot delay others.

mod admission;
mod host;
mod keys;
mod metered;
mod peer;
mod refusal;
mod request;
mod tls;
mod unsigned;

use crate::config::ApiConfig;
use crate::ecs::{ApiSettings, Authenticator, Call};
use crate::environment::Environment;
use crate::error::ApiError;
use crate::socket::view::ClientsView;
use admission::{AdmissionControl, Ticket};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metered::Metered;
use peer::HttpPeer;
use refusal::{NO_ROOM, malformed, refuse};
use serde_json::{Map, Value};
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, oneshot};
use tokio_rustls::TlsAcceptor;

pub use admission::{CONNECTIONS_MAX, PEER_CONNECTIONS_MAX, UNFINISHED_BYTES_MAX};

/// Bytes of a request line and headers, and of a connection's read buffer. A line has at most 64 KiB.
const HEAD_BYTES_MAX: usize = 96 << 10;
/// Headers of a request.
const HEADERS_MAX: usize = 100;
/// How long a client may take for a request's head, or until the next request.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// How long a TLS handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// The first byte of a TLS connection: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;
/// How long one connection may last.
const CONNECTION_TIME: Duration = Duration::from_secs(3600);
/// How long sent data may wait for a client to read it.
const UNREAD_TIME_MS: u32 = 30_000;
/// How many refused clients are waited for at once.
const LINGERING_MAX: usize = 64;
/// The folder for used nonces in the data directory.
const NONCE_FOLDER: &str = "nonces";
/// Threads for all connections.
const THREADS: usize = 2;

/// A change or query that waits for the server.
pub struct PendingCall {
    /// The call.
    pub(crate) call: Call,
    /// Who waits.
    pub(crate) reply: ResponseSender,
}

/// Takes the response to a call.
pub struct ResponseSender(oneshot::Sender<CallResponse>);

impl ResponseSender {
    /// Whether somebody still waits for it.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.0.is_closed()
    }

    pub(crate) fn send(self, response: CallResponse) {
        // A client that is gone needs no response.
        let _ = self.0.send(response);
    }
}

/// The response to a call that was made or refused.
#[derive(Debug)]
pub struct CallResponse {
    /// The answer, or the refusal.
    pub answer: Result<Map<String, Value>, ApiError>,
    /// Why the state that the answer relies on is not in force, if it is not.
    pub pending: Option<String>,
}

/// An HTTP interface that listens and does not serve yet.
pub struct Endpoint {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    settings: ApiSettings,
    authenticator: Authenticator,
}

impl Endpoint {
    /// Listens, with a generated key if none is configured, and announces the address and key.
    ///
    /// # Errors
    /// An address, certificate or key cannot be used.
    pub fn open(config: &ApiConfig, data_dir: &Path) -> Result<Self, EndpointError> {
        // An address from the configuration is never replaced by another: clients would not look there.
        let listener = match config.listen {
            Some(address) => TcpListener::bind(address)
                .map_err(|error| EndpointError(format!("cannot listen on {address}: {error}")))?,
            None => usual_listener()?,
        };
        // The port is only known now if it was left to the kernel.
        let address = listener.local_addr().map_err(|error| EndpointError(error.to_string()))?;
        let (certificate, key) = match &config.tls {
            Some(files) => files.clone(),
            None => tls::kept_files(data_dir, address.ip()).map_err(EndpointError)?,
        };
        let tls = Some(tls::acceptor(&certificate, &key).map_err(EndpointError)?);
        let mut settings = config.settings.clone();
        if settings.access_keys.is_empty() {
            settings.access_keys.push(keys::kept_key(data_dir).map_err(EndpointError)?);
        }
        let endpoint = Self::new(listener, settings)?;
        crate::logging::announce(&format!("ECS interface: http://{address}/"));
        crate::logging::announce(&format!("the same by https, for clients that trust {}", certificate.display()));
        let folder = data_dir.join(NONCE_FOLDER);
        let authenticator = Authenticator::with_memory(&endpoint.settings, &folder, Environment::real().now_s);
        let authenticator =
            authenticator.map_err(|error| EndpointError(format!("cannot use {}: {error}", folder.display())))?;
        Ok(Self { tls, authenticator, ..endpoint })
    }

    /// An interface on an open listener.
    ///
    /// # Errors
    /// Unsigned requests are allowed, and the address can be reached by others.
    pub fn new(listener: TcpListener, settings: ApiSettings) -> Result<Self, EndpointError> {
        let address = listener.local_addr().map_err(|error| EndpointError(error.to_string()))?;
        if settings.unsigned && !address.ip().is_loopback() {
            let message = format!("unsigned requests are for loopback addresses only, and {address} is none");
            return Err(EndpointError(message));
        }
        if settings.regions.is_empty() {
            return Err(EndpointError("name at least one region".into()));
        }
        if settings.catalogue.zones.is_empty() {
            return Err(EndpointError("name at least one zone in the catalogue".into()));
        }
        let authenticator = Authenticator::new(&settings);
        Ok(Self { listener, tls: None, settings, authenticator })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// How it is set up.
    pub fn settings(&self) -> &ApiSettings {
        &self.settings
    }

    /// Starts serving. Calls go to `calls`, and `wake` announces each.
    ///
    /// # Errors
    /// The operating system's error.
    pub(crate) fn start(
        self,
        calls: SyncSender<PendingCall>,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<HttpServer> {
        let runtime = Builder::new_multi_thread().worker_threads(THREADS).thread_name("http").enable_all().build()?;
        // Tokio leaves the mode as it is, and a blocking `accept` would stop a thread that others are served by.
        self.listener.set_nonblocking(true)?;
        let input = Arc::new(Dispatcher {
            authenticator: self.authenticator,
            regions: self.settings.regions,
            calls,
            wake: Box::new(wake),
        });
        let listener = {
            // Tokio registers a listener with the runtime that the present thread is in.
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(self.listener)?
        };
        let admission = Arc::new(AdmissionControl::default());
        runtime.spawn(accept(listener, self.tls, input, Arc::clone(&admission)));
        Ok(HttpServer { runtime: Some(runtime), admission })
    }
}

/// The default address, or any free port if another process uses it.
fn usual_listener() -> Result<TcpListener, EndpointError> {
    let usual = ApiConfig::LISTEN;
    let taken = match TcpListener::bind(usual) {
        Ok(listener) => return Ok(listener),
        Err(error) => error,
    };
    TcpListener::bind(SocketAddr::new(usual.ip(), 0))
        .map_err(|error| EndpointError(format!("cannot listen on {usual} ({taken}) nor elsewhere: {error}")))
}

/// An HTTP interface that serves until this is dropped.
pub struct HttpServer {
    runtime: Option<Runtime>,
    admission: Arc<AdmissionControl>,
}

impl HttpServer {
    /// The counts and limits of its connections.
    pub fn status(&self) -> ClientsView {
        self.admission.status()
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Responses in progress get a moment.
            runtime.shutdown_timeout(Duration::from_millis(200));
        }
    }
}

/// Why the HTTP interface cannot be offered.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP interface cannot start: {0}")]
pub struct EndpointError(String);

/// Passes the calls of connections to the server.
pub(crate) struct Dispatcher {
    authenticator: Authenticator,
    /// At least one.
    regions: Vec<String>,
    calls: SyncSender<PendingCall>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Dispatcher {
    /// The host name to use if a request has none.
    fn host(&self) -> String {
        format!("ecs.{}.aliyuncs.com", self.regions.first().map_or("", String::as_str))
    }

    /// Passes a call to the server; returns `None` if too many wait.
    fn hand_over(&self, call: Call) -> Option<oneshot::Receiver<CallResponse>> {
        let (reply, answer) = oneshot::channel();
        // Waiting for room would stop a thread that many connections share.
        match self.calls.try_send(PendingCall { call, reply: ResponseSender(reply) }) {
            Ok(()) => {
                (self.wake)();
                Some(answer)
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => None,
        }
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    tls: Option<TlsAcceptor>,
    dispatcher: Arc<Dispatcher>,
    admission: Arc<AdmissionControl>,
) {
    let lingering = Arc::new(Semaphore::new(LINGERING_MAX));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(_) => {
                // No free descriptor, or a client that gave up: other connections may end in the meantime.
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        // Without it, a response in two segments could wait for a delayed acknowledgement; it works all the same.
        let _ = stream.set_nodelay(true);
        // Without it, a client that reads nothing would keep its connection for the whole of its time.
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNREAD_TIME_MS);
        let Ok(own) = stream.local_addr() else { continue };
        match admission.admit(HttpPeer::at(peer, own)) {
            Some(ticket) => drop(tokio::spawn(attend(stream, tls.clone(), Arc::clone(&dispatcher), Arc::new(ticket)))),
            // A client that speaks TLS cannot read such a response; closing the connection tells it as much.
            None => {
                if let Ok(permit) = Arc::clone(&lingering).try_acquire_owned() {
                    tokio::spawn(async move {
                        refuse(stream, NO_ROOM).await;
                        drop(permit);
                    });
                } else {
                    // The loop never waits for a client that is refused: who does not take the response at once goes
                    // without.
                    let _ = stream.try_write(NO_ROOM);
                }
            }
        }
    }
}

/// Serves a connection until it ends or has to give way to another.
async fn attend(stream: TcpStream, tls: Option<TlsAcceptor>, dispatcher: Arc<Dispatcher>, ticket: Arc<Ticket>) {
    // One port serves both: no HTTP request begins with the byte that a TLS handshake begins with.
    let mut first = [0];
    let is_tls = match &tls {
        None => false,
        Some(_) => {
            // The byte is only looked at, so that whichever protocol follows still finds it.
            let peeked = tokio::time::timeout(HEAD_TIME, stream.peek(&mut first));
            match before(peeked, ticket.gives_way()).await {
                Some(Ok(Ok(1))) => first[0] == TLS_HANDSHAKE,
                Some(_) => return,
                None => {
                    ticket.count_refusal();
                    return refuse(stream, NO_ROOM).await;
                }
            }
        }
    };
    match tls.filter(|_| is_tls) {
        None => serve_connection(stream, false, dispatcher, ticket).await,
        Some(tls) => {
            let handshake = tokio::time::timeout(HANDSHAKE_TIME, tls.accept(stream));
            match before(handshake, ticket.gives_way()).await {
                Some(Ok(Ok(stream))) => serve_connection(stream, true, dispatcher, ticket).await,
                Some(_) => {}
                // A client in a handshake cannot read a response in plain text.
                None => ticket.count_refusal(),
            }
        }
    }
}

async fn serve_connection<S>(stream: S, is_tls: bool, dispatcher: Arc<Dispatcher>, ticket: Arc<Ticket>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let host = dispatcher.host();
    let own = Arc::clone(&ticket);
    let service = service_fn(move |request| {
        let (dispatcher, ticket) = (Arc::clone(&dispatcher), Arc::clone(&own));
        async move {
            let mut response = request::serve(request, is_tls, &dispatcher, &ticket).await;
            if ticket.finish() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    // Without a timer, the HTTP library panics at the time limit for heads.
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(Metered::new(stream, Arc::clone(&ticket))), service);
    // If a connection breaks, there is nobody to tell.
    let served = tokio::time::timeout(CONNECTION_TIME, &mut connection);
    let gives_way = before(served, ticket.gives_way()).await.is_none();
    // A client that waits for nothing gets nothing: it would take it for the response to its next request.
    let is_waiting = ticket.is_reading();
    let Metered { stream, has_room, withheld, .. } = connection.into_parts().io.into_inner();
    if gives_way {
        ticket.count_refusal();
    }
    if is_waiting && (gives_way || !has_room) {
        refuse(stream, NO_ROOM).await;
    } else if let Some(status) = withheld {
        refuse(stream, &malformed(status, &host)).await;
    }
}

/// The result of `work`, if it completes before `end`.
async fn before<T>(work: impl Future<Output = T>, end: impl Future<Output = ()>) -> Option<T> {
    let (mut work, mut end) = (pin!(work), pin!(end));
    // The work is polled first, so a result that is ready is never lost to an end at the same moment.
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => end.as_mut().poll(context).map(|()| None),
    })
    .await
}
