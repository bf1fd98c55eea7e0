//! One client of the control socket: from bytes to lines and back, with bounded memory for either.

use crate::socket::protocol::REQUEST_BYTES_MAX;
use mio::net::UnixStream;
use rustix::process::Uid;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// Bytes read from a client at once.
const READ_BYTES: usize = 64 << 10;

/// Bytes of a request that every client may always hold.
pub(crate) const OWN_BYTES: usize = READ_BYTES;
/// How long a client may take for a request, from its first byte to its last.
pub(crate) const LINE_TIME: Duration = Duration::from_secs(20);

/// How many reads of one client are made before others get their turn.
const READS_PER_TURN: usize = 16;

/// What was read from a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// A line, without its end.
    Line(Vec<u8>),
    /// A line that is too long; the rest of it is skipped.
    TooLong,
    /// A line for which there is no room now; the rest of it is skipped.
    NoRoom,
    /// Nothing more at present.
    Nothing,
    /// No complete line yet, and more to read, but others get their turn.
    More,
    /// The end of the connection.
    End,
}

#[derive(Debug)]
pub(crate) struct SocketConnection {
    pub(crate) stream: UnixStream,
    /// The user at the other end.
    pub(crate) user: Uid,
    input: Vec<u8>,
    /// When the line being read began.
    line_began: Option<Instant>,
    /// Bytes of the request being processed.
    in_work: usize,
    /// How much of the input has been searched for the end of a line.
    scanned: usize,
    skipping: bool,
    ended: bool,
    output: Vec<u8>,
    written: usize,
    /// Whether a request of this client is being processed. Its next one waits, so that replies stay in order.
    pub(crate) busy: bool,
}

impl SocketConnection {
    pub(crate) fn new(stream: UnixStream, user: Uid) -> Self {
        Self {
            stream,
            user,
            input: Vec::new(),
            line_began: None,
            in_work: 0,
            scanned: 0,
            skipping: false,
            ended: false,
            output: Vec::new(),
            written: 0,
            busy: false,
        }
    }

    /// Bytes of unfinished or unanswered requests, beyond those that every client may hold.
    pub(crate) fn shared_bytes(&self) -> usize {
        self.unfinished_bytes().saturating_sub(OWN_BYTES)
    }

    /// Bytes of unfinished or unanswered requests.
    pub(crate) fn unfinished_bytes(&self) -> usize {
        self.input.len() + self.in_work
    }

    /// When the line being read times out, if there is one.
    pub(crate) fn line_deadline(&self) -> Option<Instant> {
        self.line_began.filter(|_| !self.busy).map(|began| began + LINE_TIME)
    }

    /// The next line. Reads only as much as that takes, and no more than there is room for.
    pub(crate) fn next(&mut self, room: usize) -> io::Result<Input> {
        let next = self.read_line(room);
        let is_half = !self.input.is_empty() || self.skipping;
        self.line_began = if is_half { self.line_began.or_else(|| Some(Instant::now())) } else { None };
        if let Ok(Input::Line(line)) = &next {
            self.in_work = line.len();
            // What follows is a line of its own.
            self.line_began = None;
        }
        next
    }

    fn read_line(&mut self, room: usize) -> io::Result<Input> {
        for _ in 0..READS_PER_TURN {
            if let Some(input) = self.buffered(room) {
                return Ok(input);
            }
            if self.ended {
                return Ok(Input::End);
            }
            let before = self.input.len();
            self.input.resize(before + READ_BYTES, 0);
            let read = self.stream.read(&mut self.input[before..]);
            self.input.truncate(before + read.as_ref().map_or(0, |count| *count));
            match read {
                Ok(0) => self.ended = true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Input::Nothing),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.buffered(room).unwrap_or(Input::More))
    }

    fn buffered(&mut self, room: usize) -> Option<Input> {
        loop {
            let end = self.input[self.scanned..].iter().position(|byte| *byte == b'\n');
            match (end.map(|end| self.scanned + end), self.skipping) {
                (Some(end), true) => {
                    self.input.drain(..=end);
                    (self.scanned, self.skipping) = (0, false);
                }
                (Some(end), false) => {
                    // The line takes the buffer with it, so that an idle connection holds no memory.
                    let rest = self.input.split_off(end + 1);
                    let mut line = std::mem::replace(&mut self.input, rest);
                    line.pop();
                    self.scanned = 0;
                    return Some(if line.len() >= REQUEST_BYTES_MAX { Input::TooLong } else { Input::Line(line) });
                }
                (None, true) => {
                    // Skipped as it arrives, so that a refused line holds no memory.
                    self.input = Vec::new();
                    self.scanned = 0;
                    return None;
                }
                (None, false) if self.input.len() >= REQUEST_BYTES_MAX => {
                    self.input = Vec::new();
                    (self.scanned, self.skipping) = (0, true);
                    return Some(Input::TooLong);
                }
                (None, false) if self.input.len() >= room => {
                    self.input = Vec::new();
                    (self.scanned, self.skipping) = (0, true);
                    return Some(Input::NoRoom);
                }
                (None, false) => {
                    self.scanned = self.input.len();
                    return None;
                }
            }
        }
    }

    /// Queues a reply.
    pub(crate) fn reply(&mut self, line: &[u8]) {
        self.in_work = 0;
        self.output.extend_from_slice(line);
    }

    /// Whether replies are waiting for the client to read.
    pub(crate) fn is_writing(&self) -> bool {
        self.written < self.output.len()
    }

    /// Writes as much as the client accepts.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.is_writing() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // The memory of a long reply is not kept for an idle connection.
        self.output = Vec::new();
        self.written = 0;
        Ok(())
    }
}
