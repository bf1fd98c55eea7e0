//! A blocking client of the control socket, for the command line and for tests.

use crate::command::Command;
use crate::error::ReportedError;
use crate::os::unix_socket;
use crate::socket::protocol::{Changed, Reply, ReplyBody, VERSION};
use crate::socket::query::{Answer, Query};
use serde::Serialize;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The largest reply that a client reads, bytes.
const REPLY_BYTES_MAX: u64 = 1 << 30;
/// How long a client waits for a reply. The control plane waits much less than this for the forwarding plane.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens.
    #[error("nothing answers at {path} ({source}): is Sluice running? Start it with `sluice up`")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The socket belongs to another user.
    #[error("{path} may be used by root and by the user who started Sluice: run this as one of them")]
    Forbidden {
        /// The socket.
        path: PathBuf,
    },
    /// The connection broke, or the other end stopped responding.
    #[error(
        "the control plane at {path} closed the connection ({source}): `sluice status` shows whether the change was made"
    )]
    Broken {
        /// The socket.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The other end does not speak this protocol.
    #[error("what answers at {path} is not a control plane of this version: {reason}")]
    Foreign {
        /// The socket.
        path: PathBuf,
        /// What could not be parsed.
        reason: String,
    },
    /// The request was refused, and nothing changed.
    #[error("{0}")]
    Refused(ReportedError),
}

/// A connection to the control plane.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
    last_request: u64,
}

#[derive(Serialize)]
struct Request<'a, T> {
    version: u64,
    request: u64,
    #[serde(flatten)]
    operation: &'a T,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Nothing listens, or this user may not connect.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let path = path.to_owned();
        let stream = match unix_socket::connect(&path, REPLY_TIMEOUT) {
            Ok(stream) => stream,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(ClientError::Forbidden { path });
            }
            Err(source) => return Err(ClientError::Unreachable { path, source }),
        };
        let bounded = stream.set_read_timeout(Some(REPLY_TIMEOUT));
        match bounded.and_then(|()| stream.set_write_timeout(Some(REPLY_TIMEOUT))) {
            Ok(()) => Ok(Self { path, stream: BufReader::new(stream), last_request: 0 }),
            Err(source) => Err(ClientError::Unreachable { path, source }),
        }
    }

    /// Makes a change. When this returns, the change is durable, and in force if the reply says `Applied`.
    ///
    /// # Errors
    /// A refusal, or a broken connection.
    pub fn change(&mut self, command: &Command) -> Result<Changed, ClientError> {
        match self.exchange(command)? {
            ReplyBody::Changed(changed) => Ok(changed),
            _ => Err(self.foreign("its answer to a change is of another kind".into())),
        }
    }

    /// Sends a query.
    ///
    /// # Errors
    /// A refusal, or a broken connection.
    pub fn ask(&mut self, query: &Query) -> Result<Answer, ClientError> {
        match self.exchange(query)? {
            ReplyBody::Answered { answer } => Ok(answer),
            _ => Err(self.foreign("its answer to a query is of another kind".into())),
        }
    }

    fn exchange<T: Serialize>(&mut self, operation: &T) -> Result<ReplyBody, ClientError> {
        self.last_request += 1;
        let request = Request { version: VERSION, request: self.last_request, operation };
        let mut line = serde_json::to_vec(&request).expect("requests are always expressible as JSON");
        line.push(b'\n');
        let reply = self.send(&line).map_err(|source| self.broken(source))?;
        let reply: Reply = serde_json::from_slice(&reply).map_err(|error| self.foreign(error.to_string()))?;
        // A refusal may answer a request whose number could not be read.
        match reply.body {
            ReplyBody::Refused { error } => Err(ClientError::Refused(error)),
            _ if reply.request != self.last_request => {
                Err(self.foreign(format!("reply {} to request {}", reply.request, self.last_request)))
            }
            body => Ok(body),
        }
    }

    fn send(&mut self, line: &[u8]) -> io::Result<Vec<u8>> {
        // A server that refuses a client says why before it closes the connection, whether or not it received the
        // request.
        let sent = self.stream.get_mut().write_all(line);
        let mut reply = Vec::new();
        let read = (&mut self.stream).take(REPLY_BYTES_MAX).read_until(b'\n', &mut reply);
        match reply.pop() {
            Some(b'\n') => Ok(reply),
            _ => {
                // The error of sending tells more than that of reading what never came.
                sent?;
                read?;
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended"))
            }
        }
    }

    fn broken(&self, source: io::Error) -> ClientError {
        ClientError::Broken { path: self.path.clone(), source }
    }

    fn foreign(&self, reason: String) -> ClientError {
        ClientError::Foreign { path: self.path.clone(), reason }
    }
}
