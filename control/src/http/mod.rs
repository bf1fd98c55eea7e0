//! The HTTP interface: bytes to calls and answers to bytes, on threads of its own.
//!
//! A call goes to the server's one thread through a bounded queue. What a client sends and how slowly it reads is
//! bounded in size, number and time, so that it costs the others nothing.

mod keys;
mod request;
mod tls;
mod unsigned;

use crate::api::{ApiSettings, Call, Gate};
use crate::config::ApiConfig;
use crate::environment::Environment;
use crate::error::ApiError;
use crate::server::RunError;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, oneshot};
use tokio_rustls::TlsAcceptor;

/// Connections at once. More wait in the system's queue.
pub const CONNECTIONS_MAX: usize = 1024;
/// Bytes of a request's line and headers.
const HEAD_BYTES_MAX: usize = 256 << 10;
/// Headers of a request.
const HEADERS_MAX: usize = 100;
/// How long a client may take for a request's head, or for the next request.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// How long a client may take for TLS.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How long one connection may last.
const CONNECTION_TIME: Duration = Duration::from_secs(3600);
/// How long what was sent may wait for a client to take it.
const UNREAD_TIME_MS: u32 = 30_000;
/// Where used nonces are kept in the data directory.
const NONCE_FOLDER: &str = "nonces";
/// Threads for all connections.
const THREADS: usize = 2;

/// A change or a question that waits for the server.
pub struct PendingCall {
    /// The call.
    pub(crate) call: Call,
    /// Who waits.
    pub(crate) reply: Reply,
}

/// Where an answer goes.
pub struct Reply(oneshot::Sender<Result<Made, ApiError>>);

impl Reply {
    /// Whether somebody still waits for it.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.0.is_closed()
    }

    pub(crate) fn send(self, made: Result<Made, ApiError>) {
        // A client that is gone needs no answer.
        let _ = self.0.send(made);
    }
}

/// A call that was made.
#[derive(Debug)]
pub struct Made {
    /// The answer.
    pub answer: Map<String, Value>,
    /// Why the forwarding plane does not run it yet, if it does not.
    pub pending: Option<String>,
}

/// An HTTP interface that listens and is not served yet.
pub struct Endpoint {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    settings: ApiSettings,
    gate: Gate,
}

impl Endpoint {
    /// Listens, with a key of its own making if none is configured, and tells where and how.
    ///
    /// # Errors
    /// An address, a certificate or a key that cannot be used.
    pub fn open(config: &ApiConfig, data_dir: &Path) -> Result<Self, RunError> {
        let listener = match config.listen {
            Some(address) => TcpListener::bind(address)
                .map_err(|error| RunError::Endpoint(format!("cannot listen on {address}: {error}")))?,
            None => usual_listener()?,
        };
        let tls = match &config.tls {
            Some((certificate, key)) => Some(tls::acceptor(certificate, key).map_err(RunError::Endpoint)?),
            None => None,
        };
        let mut settings = config.settings.clone();
        if settings.access_keys.is_empty() {
            settings.access_keys.push(keys::kept_key(data_dir).map_err(RunError::Endpoint)?);
        }
        let endpoint = Self::new(listener, settings)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let address = endpoint.address().map_err(|error| RunError::Endpoint(error.to_string()))?;
        crate::logging::announce(&format!("ECS interface: {scheme}://{address}/"));
        let folder = data_dir.join(NONCE_FOLDER);
        let gate = Gate::with_memory(&endpoint.settings, &folder, Environment::real().now_s);
        let gate = gate.map_err(|error| RunError::Endpoint(format!("cannot use {}: {error}", folder.display())))?;
        Ok(Self { tls, gate, ..endpoint })
    }

    /// An interface on a listener.
    ///
    /// # Errors
    /// Where unsigned requests are allowed on an address that others can reach.
    pub fn new(listener: TcpListener, settings: ApiSettings) -> Result<Self, RunError> {
        let address = listener.local_addr().map_err(|error| RunError::Endpoint(error.to_string()))?;
        if settings.unsigned && !address.ip().is_loopback() {
            let message = format!("unsigned requests are for loopback addresses only, and {address} is none");
            return Err(RunError::Endpoint(message));
        }
        if settings.regions.is_empty() {
            return Err(RunError::Endpoint("name at least one region".into()));
        }
        let gate = Gate::new(&settings);
        Ok(Self { listener, tls: None, settings, gate })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// How it is set up.
    pub fn settings(&self) -> &ApiSettings {
        &self.settings
    }

    /// Serves. Calls go to `calls`, and `wake` tells of each.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn start(
        self,
        calls: SyncSender<PendingCall>,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<HttpServer> {
        let runtime = Builder::new_multi_thread().worker_threads(THREADS).thread_name("http").enable_all().build()?;
        self.listener.set_nonblocking(true)?;
        let desk = Arc::new(Counter {
            gate: self.gate,
            region: self.settings.first_region().to_owned(),
            has_tls: self.tls.is_some(),
            calls,
            wake: Box::new(wake),
        });
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(self.listener)?
        };
        runtime.spawn(accept(listener, self.tls, desk));
        Ok(HttpServer { runtime: Some(runtime) })
    }
}

/// The usual address, or any free port where another process has it.
fn usual_listener() -> Result<TcpListener, RunError> {
    let usual = ApiConfig::LISTEN;
    let taken = match TcpListener::bind(usual) {
        Ok(listener) => return Ok(listener),
        Err(error) => error,
    };
    TcpListener::bind(SocketAddr::new(usual.ip(), 0))
        .map_err(|error| RunError::Endpoint(format!("cannot listen on {usual} ({taken}) nor elsewhere: {error}")))
}

/// A served interface. It ends with the value.
pub struct HttpServer {
    runtime: Option<Runtime>,
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Answers under way get a moment.
            runtime.shutdown_timeout(Duration::from_millis(200));
        }
    }
}

/// Where connections bring their calls.
pub(crate) struct Counter {
    gate: Gate,
    region: String,
    has_tls: bool,
    calls: SyncSender<PendingCall>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Counter {
    /// Hands a call to the server; none if it has too many.
    fn hand_over(&self, call: Call) -> Option<oneshot::Receiver<Result<Made, ApiError>>> {
        let (reply, answer) = oneshot::channel();
        match self.calls.try_send(PendingCall { call, reply: Reply(reply) }) {
            Ok(()) => {
                (self.wake)();
                Some(answer)
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => None,
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, tls: Option<TlsAcceptor>, counter: Arc<Counter>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                // No descriptor left, or a client that gave up: others may end meanwhile.
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        // Without it a client that reads nothing would keep its place for the whole of a connection's time.
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNREAD_TIME_MS);
        let (tls, counter) = (tls.clone(), Arc::clone(&counter));
        tokio::spawn(async move {
            match tls {
                None => converse(stream, counter).await,
                Some(tls) => {
                    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIME, tls.accept(stream)).await {
                        converse(stream, counter).await;
                    }
                }
            }
            drop(place);
        });
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, counter: Arc<Counter>) {
    let service = service_fn(move |request| {
        let counter = Arc::clone(&counter);
        async move { Ok::<_, std::convert::Infallible>(request::serve(request, &counter).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // A connection that breaks has nobody to be told.
    let _ = tokio::time::timeout(CONNECTION_TIME, connection).await;
}
