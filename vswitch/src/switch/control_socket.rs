//! The control socket: framing, limits and credentials. What a line means is decided elsewhere in `switch`.

use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::net::sockopt::socket_peercred;
use rustix::process::Uid;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use vswitch_core::config::limits::MESSAGE_BYTES_MAX;
use vswitch_core::config::protocol::{self, SwitchReply, SwitchReplyBody, VERSION};
use vswitch_core::config::refusal::Refusal;

/// Connections at once. There is one control plane, and a few people use the command line.
const CONNECTIONS_MAX: usize = 64;
/// Additional connections for root, if the switch runs as another user.
const CONNECTIONS_RESERVED: usize = 16;
/// Bytes of an unfinished message that every connection may always hold.
const OWN_BYTES: usize = READ_BYTES;
/// Bytes of unfinished messages beyond that, of all connections together except the large one.
const SHARED_BYTES_MAX: usize = 64 << 20;
/// How long a client may take for a message, from its first byte to its last.
const MESSAGE_TIME: Duration = Duration::from_secs(20);
/// Refusals for lack of room are logged at most this often.
const TOLD_PERIOD: Duration = Duration::from_secs(10);
/// Bytes read at once. The buffer of a line grows with what has arrived, never ahead of it.
const READ_BYTES: usize = 64 << 10;

/// How long a start waits for the socket of a running process, which may be about to exit.
const PATIENCE_RUNNING: Duration = Duration::from_secs(2);
/// How long it waits for the socket of a dead process.
const PATIENCE_DEAD: Duration = Duration::from_secs(20);

/// The first token of a connection; those below belong to the daemon.
const FIRST_CONNECTION: usize = 1 << 16;

/// A listening control socket and its connections.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    connections: BTreeMap<Token, ControlConnection>,
    next_token: usize,
    line_bytes_max: usize,
    /// The one connection that is receiving a message of unlimited size: a whole state is sent as one message.
    large: Option<Token>,
    refusals: Refusals,
}

/// Refusals for lack of room, counted and logged together.
#[derive(Debug, Default)]
struct Refusals {
    total: u64,
    /// When they were last logged, and how many there were then.
    told: Option<(Instant, u64)>,
}

impl Refusals {
    fn count(&mut self, now: Instant) {
        self.total += 1;
        // Without this, a client in a loop would write the log full.
        let before = match self.told {
            Some((at, _)) if now.duration_since(at) < TOLD_PERIOD => return,
            told => told.map_or(0, |(_, before)| before),
        };
        self.told = Some((now, self.total));
        log::warn!(
            "no room for {} more, {} in all: the control socket takes {CONNECTIONS_MAX} connections, \
             and {SHARED_BYTES_MAX} bytes of unfinished messages besides one",
            self.total - before,
            self.total
        );
    }
}

#[derive(Debug)]
struct ControlConnection {
    stream: UnixStream,
    received: Vec<u8>,
    /// When the message being received began.
    began: Option<Instant>,
    /// How far `received` has been searched for the end of a line.
    searched: usize,
    /// Whether the line being received was refused for its length, so that the rest of it is discarded.
    is_discarding: bool,
    unsent: Vec<u8>,
    sent: usize,
    /// Whether edge-triggered readiness has not been used up yet.
    is_readable: bool,
    is_finished: bool,
}

impl ControlSocket {
    /// Listens at `path`, with mode 0600. A socket at which nobody listens is replaced.
    ///
    /// # Errors
    /// Somebody already listens there, something other than a socket is there, or an error of the kernel.
    pub fn bind(path: &Path, registry: &Registry, token: Token) -> io::Result<Self> {
        let explain = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        // Not followed: a link is no socket, and what it points to must not be replaced.
        match fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(explain(io::Error::new(ErrorKind::AlreadyExists, "exists and is not a socket")));
            }
            Ok(_) if is_in_use(path) => {
                return Err(explain(io::Error::new(ErrorKind::AddrInUse, "a switch already listens here")));
            }
            Ok(_) => fs::remove_file(path).map_err(explain)?,
            Err(_) => {}
        }
        // The mode is set before anyone can connect: connections are accepted later, and the owner of each is checked
        // then as well.
        let mut listener = UnixListener::bind(path).map_err(explain)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(explain)?;
        registry.register(&mut listener, token, Interest::READABLE)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            connections: BTreeMap::new(),
            next_token: FIRST_CONNECTION,
            line_bytes_max: MESSAGE_BYTES_MAX,
            large: None,
            refusals: Refusals::default(),
        })
    }

    /// Accepts all waiting connections. Returns whether to try again after a pause because the system had no descriptor
    /// or memory for one, which the edge-triggered listener will not announce again.
    pub fn accept(&mut self, registry: &Registry) -> bool {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(stream, registry),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                // Only the peer is affected.
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(_) => return true,
            }
        }
    }

    fn admit(&mut self, mut stream: UnixStream, registry: &Registry) {
        // The kernel tells who is at the other end (SO_PEERCRED); nothing that the client says counts.
        let own = rustix::process::geteuid();
        let refusal = match socket_peercred(&stream) {
            Ok(peer) if peer.uid != own && !peer.uid.is_root() => {
                Some(Refusal::new("forbidden", "", "only root and the user that runs the switch may control it"))
            }
            Ok(peer) if self.connections.len() >= connections_max(peer.uid, own) => {
                self.refusals.count(Instant::now());
                let text = format!("{} connections are open; close one", self.connections.len());
                Some(Refusal::new("limit", "", text))
            }
            Ok(_) => None,
            Err(error) => Some(Refusal::new("forbidden", "", format!("cannot determine who you are: {error}"))),
        };
        if let Some(refusal) = refusal {
            // A courtesy to the rejected client; the socket is new, so its buffer has room.
            let _ = stream.write(&refuse(refusal));
            return;
        }
        let token = Token(self.next_token);
        self.next_token += 1;
        if registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE).is_ok() {
            self.connections.insert(token, ControlConnection::new(stream));
        }
    }

    /// Notes that a connection became readable or writable.
    pub fn mark_ready(&mut self, token: Token) {
        if let Some(connection) = self.connections.get_mut(&token) {
            // Readable and writable alike: `serve` first sends, then reads, and finds out what is possible.
            connection.is_readable = true;
        }
    }

    /// Serves at most one line of each connection; `answer` turns a request line into a reply line. Returns whether
    /// some connection can be served again at once.
    pub fn serve(&mut self, answer: &mut dyn FnMut(&[u8]) -> Vec<u8>) -> bool {
        let now = Instant::now();
        let mut has_more = false;
        // Collected first: the room of each connection depends on all others.
        let tokens: Vec<Token> = self.connections.keys().copied().collect();
        for token in tokens {
            let room = self.room_of(token);
            let Some(connection) = self.connections.get_mut(&token) else { continue };
            has_more |= connection.serve(answer);
            if connection.bound(self.line_bytes_max, room) || connection.end_if_late(now) {
                self.refusals.count(now);
            }
        }
        self.connections.retain(|_, connection| !connection.is_finished);
        has_more
    }

    /// How many bytes a connection's message may have. One that needs more than its share becomes the large one, unless
    /// there is one already.
    fn room_of(&mut self, token: Token) -> usize {
        let is_small = |connection: &ControlConnection| connection.shared_bytes() == 0;
        // The large one gives up its place once its message is complete.
        self.large = self.large.filter(|large| self.connections.get(large).is_some_and(|one| !is_small(one)));
        let others = self.connections.iter().filter(|(other, _)| **other != token && Some(**other) != self.large);
        let held: usize = others.map(|(_, connection)| connection.shared_bytes()).sum();
        let left = SHARED_BYTES_MAX.saturating_sub(held);
        let own = self.connections.get(&token).map_or(0, ControlConnection::shared_bytes);
        // Only one connection may exceed its share, so the memory for messages stays bounded.
        if self.large.is_none() && own + READ_BYTES > left {
            self.large = Some(token);
        }
        if self.large == Some(token) { self.line_bytes_max } else { OWN_BYTES + left }
    }

    /// When the next incomplete message times out, if there is one.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.connections.values().filter_map(ControlConnection::deadline).min()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // If it is gone already, nothing is left to do.
        let _ = fs::remove_file(&self.path);
    }
}

fn connections_max(peer: Uid, own: Uid) -> usize {
    if peer == own { CONNECTIONS_MAX } else { CONNECTIONS_MAX + CONNECTIONS_RESERVED }
}

/// Waits until nobody listens at the socket any more, for as long as it takes a killed process to disappear. Returns
/// whether somebody still does.
fn is_in_use(path: &Path) -> bool {
    let asked = Instant::now();
    while let Ok(stream) = std::os::unix::net::UnixStream::connect(path) {
        // The kernel frees a process's memory, and with it the command line, before it closes its files.
        let listener = socket_peercred(&stream).map(|peer| fs::read(format!("/proc/{}/cmdline", peer.pid)));
        let is_alive = matches!(listener, Ok(Ok(line)) if !line.is_empty());
        if asked.elapsed() > if is_alive { PATIENCE_RUNNING } else { PATIENCE_DEAD } {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

fn refuse(refusal: Refusal) -> Vec<u8> {
    protocol::write(&SwitchReply {
        version: VERSION,
        id: 0,
        body: SwitchReplyBody::Refused { refusals: vec![refusal] },
    })
}

impl ControlConnection {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            received: Vec::new(),
            began: None,
            searched: 0,
            is_discarding: false,
            unsent: Vec::new(),
            sent: 0,
            is_readable: true,
            is_finished: false,
        }
    }

    /// Sends what is unsent and only then reads and answers one line. So a client that does not read its replies is not
    /// served, and does not delay others.
    fn serve(&mut self, answer: &mut dyn FnMut(&[u8]) -> Vec<u8>) -> bool {
        self.send();
        // Unsent bytes first: a client that does not read is not read from, and so cannot fill memory.
        if self.is_finished || !self.unsent.is_empty() {
            return false;
        }
        if let Some(line) = self.next_line() {
            self.reply(&line, answer);
            // Another line may be waiting in `received`, and no event will announce it.
            return !self.is_finished && self.unsent.is_empty();
        }
        if !self.is_readable {
            return false;
        }
        self.receive();
        !self.is_finished && (self.is_readable || self.has_line())
    }

    fn reply(&mut self, line: &[u8], answer: &mut dyn FnMut(&[u8]) -> Vec<u8>) {
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        self.unsent = answer(line);
        self.sent = 0;
        self.send();
    }

    fn receive(&mut self) {
        let start = self.received.len();
        self.received.resize(start + READ_BYTES, 0);
        let result = self.stream.read(&mut self.received[start..]);
        self.received.truncate(start + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(0) => self.is_finished = true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_readable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.is_finished = true,
        }
    }

    /// Bytes held of a message, beyond those that every connection may hold.
    fn shared_bytes(&self) -> usize {
        self.received.len().saturating_sub(OWN_BYTES)
    }

    /// When the message being received times out, if there is one. A client that does not read its replies is not read
    /// from, so its message cannot time out.
    fn deadline(&self) -> Option<Instant> {
        self.began.filter(|_| self.unsent.is_empty()).map(|began| began + MESSAGE_TIME)
    }

    /// Ends the connection if its message has timed out and no more of it can be read.
    fn end_if_late(&mut self, now: Instant) -> bool {
        let is_half = (!self.received.is_empty() || self.is_discarding) && !self.has_line() && self.unsent.is_empty();
        // The time runs from the first byte that was seen without the rest.
        self.began = if is_half { self.began.or(Some(now)) } else { None };
        // What has arrived in time but was not read yet must not be counted as late.
        let is_late = !self.is_readable && self.deadline().is_some_and(|deadline| deadline <= now);
        if is_late {
            let text = format!("a message has to be complete within {} s", MESSAGE_TIME.as_secs());
            self.unsent = refuse(Refusal::new("timeout", "", text));
            self.sent = 0;
            self.send();
            self.is_finished = true;
        }
        is_late
    }

    fn has_line(&self) -> bool {
        // Continues where the last search ended, so that a long line is not searched anew with each piece.
        self.received[self.searched..].contains(&b'\n')
    }

    fn next_line(&mut self) -> Option<Vec<u8>> {
        while let Some(position) = self.received[self.searched..].iter().position(|byte| *byte == b'\n') {
            let rest = self.received.split_off(self.searched + position + 1);
            let line = std::mem::replace(&mut self.received, rest);
            self.searched = 0;
            // The rest of a refused line ends here; what follows is a new message.
            if !std::mem::take(&mut self.is_discarding) {
                return Some(line);
            }
        }
        self.searched = self.received.len();
        None
    }

    /// Refuses a line as soon as it is too long or exceeds the room there is, and discards it. Returns whether it was
    /// for lack of room.
    fn bound(&mut self, line_bytes_max: usize, room: usize) -> bool {
        let most = line_bytes_max.min(room);
        let is_within = self.received.len() < most && !self.is_discarding;
        // First the reply that is being sent; nothing is read in the meantime.
        if is_within || !self.unsent.is_empty() || self.has_line() {
            return false;
        }
        let refuses = !self.is_discarding;
        if refuses {
            self.is_discarding = true;
            let refusal = match self.received.len() < line_bytes_max {
                true => Refusal::new("limit", "", "other clients have too many unfinished messages; try again later"),
                false => Refusal::new("too-large", "", format!("a message may have at most {line_bytes_max} bytes")),
            };
            self.unsent = refuse(refusal);
            self.sent = 0;
            self.send();
        }
        let had_no_room = refuses && self.received.len() < line_bytes_max;
        // The memory is given back as well: the rest of the line is discarded as it arrives.
        self.received = Vec::new();
        self.searched = 0;
        had_no_room
    }

    fn send(&mut self) {
        while self.sent < self.unsent.len() {
            match self.stream.write(&self.unsent[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.is_finished = true;
                    return;
                }
            }
        }
        // The memory of a long reply is not kept for connections that may stay idle.
        self.unsent = Vec::new();
        self.sent = 0;
    }
}
