//! Clients of the control socket: limits on their number and on their unfinished requests.

use super::{ACCEPT_PAUSE, CONNECTIONS_MAX, ReplyTarget, Server};
use crate::error::{ApiError, FORBIDDEN, REQUEST_TIMEOUT, SERVICE_UNAVAILABLE};
use crate::socket::connection::{LINE_TIME, OWN_BYTES, SocketConnection};
use crate::socket::listener::trusted_user;
use crate::socket::protocol::{REQUEST_BYTES_MAX, Reply};
use crate::socket::view::ClientsView;
use mio::net::UnixStream;
use mio::{Interest, Token};
use rustix::process::Uid;
use std::io;
use std::time::Instant;

/// Connections reserved for root.
const CONNECTIONS_RESERVED: usize = 64;
/// Bytes of unfinished or unanswered requests, of all clients together, beyond [`OWN_BYTES`] of each.
const SHARED_BYTES_MAX: usize = 48 << 20;
/// The part of these that is reserved for root.
const SHARED_BYTES_RESERVED: usize = REQUEST_BYTES_MAX;
/// The limit of unfinished requests in total, bytes.
const UNFINISHED_BYTES_MAX: usize = SHARED_BYTES_MAX + CONNECTIONS_MAX * OWN_BYTES;

const _: () = assert!(SHARED_BYTES_MAX >= SHARED_BYTES_RESERVED + REQUEST_BYTES_MAX);
const _: () = assert!(UNFINISHED_BYTES_MAX <= 64 << 20);

/// The limits as text, for the log.
pub(super) fn bounds() -> String {
    format!(
        "the control socket takes {CONNECTIONS_MAX} clients and {UNFINISHED_BYTES_MAX} bytes of unfinished requests, \
         each complete within {} s",
        LINE_TIME.as_secs()
    )
}

impl Server {
    /// Accepts clients again that could not be accepted when they came, once that is due.
    pub(super) fn accept_again(&mut self) {
        if self.accept_at.is_some_and(|at| Instant::now() >= at) {
            self.accept();
        }
    }

    pub(super) fn accept(&mut self) {
        self.accept_at = None;
        loop {
            let stream = match self.socket.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // That client gave up; there may already be another.
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {
                    continue;
                }
                // No free descriptor or memory. Waiting clients cause no further event, so try again after a pause.
                Err(_) => {
                    self.accept_at = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            };
            match self.admission(&stream) {
                Ok(user) => self.admit(stream, user),
                Err(refusal) => turn_away(stream, refusal),
            }
        }
    }

    /// The user who connects, or why the connection is refused.
    fn admission(&self, stream: &UnixStream) -> Result<Uid, ApiError> {
        if self.stopping {
            return Err(SERVICE_UNAVAILABLE.error("the control plane is stopping"));
        }
        let Some(user) = trusted_user(stream) else {
            return Err(FORBIDDEN.error("this socket is only for root and the user who started Sluice"));
        };
        // Root can always connect to see and mend what others have done.
        let reserved = if user.is_root() { 0 } else { CONNECTIONS_RESERVED };
        if self.connections.len() >= CONNECTIONS_MAX - reserved {
            self.refusals.count();
            let message =
                format!("{} clients are connected, the most there may be: try again later", self.connections.len());
            return Err(SERVICE_UNAVAILABLE.error(message));
        }
        Ok(user)
    }

    fn admit(&mut self, mut stream: UnixStream, user: Uid) {
        let token = Token(self.next_token);
        self.next_token += 1;
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut stream, token, interest).is_ok() {
            self.connections.insert(token, SocketConnection::new(stream, user));
            // A client may have sent its request before it was registered.
            self.make_ready(token);
        }
    }

    /// How many bytes a client's line may have.
    pub(super) fn room_of(&self, token: Token) -> usize {
        let others = self.connections.iter().filter(|(other, _)| **other != token);
        let held: usize = others.map(|(_, connection)| connection.shared_bytes()).sum();
        let is_root = self.connections.get(&token).is_some_and(|connection| connection.user.is_root());
        let most = if is_root { SHARED_BYTES_MAX } else { SHARED_BYTES_MAX - SHARED_BYTES_RESERVED };
        OWN_BYTES + most.saturating_sub(held)
    }

    /// Tells a client that there is no room for its line.
    pub(super) fn refuse_line(&mut self, token: Token) {
        self.refusals.count();
        let message = "other clients have too many unfinished requests: try again later, or send less at once";
        self.refuse(ReplyTarget::Socket { token, request: 0 }, SERVICE_UNAVAILABLE.error(message));
    }

    /// When the next incomplete line times out, if there is one.
    pub(super) fn next_line_deadline(&self) -> Option<Instant> {
        self.connections.values().filter_map(SocketConnection::line_deadline).min()
    }

    /// Disconnects clients whose line timed out and of which no more can be read.
    pub(super) fn end_slow_clients(&mut self) {
        let now = Instant::now();
        let slow = |connection: &SocketConnection| connection.line_deadline().is_some_and(|deadline| deadline <= now);
        let late =
            // What arrived in time but has not been read is not late.
            self.connections.iter().filter(|(token, connection)| slow(connection) && !self.ready.contains(token));
        let late: Vec<Token> = late.map(|(token, _)| *token).collect();
        for token in late {
            self.refusals.count();
            let message = format!("a request has to be complete within {} s", LINE_TIME.as_secs());
            self.refuse(ReplyTarget::Socket { token, request: 0 }, REQUEST_TIMEOUT.error(message));
            self.connections.remove(&token);
        }
    }

    /// The counts and limits of clients.
    pub(super) fn clients(&self) -> ClientsView {
        ClientsView {
            connections: self.connections.len(),
            connections_max: CONNECTIONS_MAX,
            unfinished_bytes: self.connections.values().map(SocketConnection::unfinished_bytes).sum(),
            unfinished_bytes_max: UNFINISHED_BYTES_MAX,
            refused: self.refusals.total(),
        }
    }
}

/// Tells a client why it is refused, as far as its socket takes the message, and closes the connection.
fn turn_away(mut stream: UnixStream, refusal: ApiError) {
    // Best effort: the client may be gone, and the next attempt says the same.
    let _ = io::Write::write(&mut stream, &Reply::refused(0, refusal).to_line());
}
