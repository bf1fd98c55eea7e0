//! One client of the control socket: bytes to lines and back, never more than a bound of either in memory.

use crate::socket::protocol::REQUEST_BYTES_MAX;
use mio::net::UnixStream;
use rustix::process::Uid;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// Bytes read from a client at once.
const READ_BYTES: usize = 64 << 10;

/// Bytes of a request that every client may hold, whatever the others do.
pub(crate) const OWN_BYTES: usize = READ_BYTES;
/// How long a client may take for a request, from its first byte to its end.
pub(crate) const LINE_TIME: Duration = Duration::from_secs(20);

/// Reads of one client before it is others' turn.
const READS_PER_TURN: usize = 16;

/// What a client sent next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// A line, without its end.
    Line(Vec<u8>),
    /// A line too long to be kept; what is left of it is skipped.
    TooLong,
    /// A line for which there is no room now; what is left of it is skipped.
    NoRoom,
    /// Nothing more at present.
    Nothing,
    /// Nothing whole yet, and more to read: it is others' turn.
    More,
    /// Nothing more ever.
    End,
}

#[derive(Debug)]
pub(crate) struct SocketConnection {
    pub(crate) stream: UnixStream,
    /// The user at the other end.
    pub(crate) user: Uid,
    input: Vec<u8>,
    /// When the line that is being read began.
    line_began: Option<Instant>,
    /// Bytes of the request that is being worked on.
    in_work: usize,
    /// How much of the input is known to hold no end of a line.
    scanned: usize,
    skipping: bool,
    ended: bool,
    output: Vec<u8>,
    written: usize,
    /// A request of this client is being worked on. Its next one waits, so that replies keep their order.
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

    /// Bytes held of requests that are not whole or not answered, beyond those that every client may hold.
    pub(crate) fn shared_bytes(&self) -> usize {
        self.unfinished_bytes().saturating_sub(OWN_BYTES)
    }

    /// Bytes held of requests that are not whole or not answered.
    pub(crate) fn unfinished_bytes(&self) -> usize {
        self.input.len() + self.in_work
    }

    /// When the line that is being read has to be whole, if one is.
    pub(crate) fn line_deadline(&self) -> Option<Instant> {
        self.line_began.filter(|_| !self.busy).map(|began| began + LINE_TIME)
    }

    /// The next line, reading only as much as that takes, and of a line no more than there is room for.
    pub(crate) fn next(&mut self, room: usize) -> io::Result<Input> {
        let next = self.read_line(room);
        let is_half = !self.input.is_empty() || self.skipping;
        self.line_began = if is_half { self.line_began.or_else(|| Some(Instant::now())) } else { None };
        if let Ok(Input::Line(line)) = &next {
            self.in_work = line.len();
            // What follows it is a line of its own.
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
                    // The line takes its memory along: a connection that waits holds none.
                    let rest = self.input.split_off(end + 1);
                    let mut line = std::mem::replace(&mut self.input, rest);
                    line.pop();
                    self.scanned = 0;
                    return Some(if line.len() >= REQUEST_BYTES_MAX { Input::TooLong } else { Input::Line(line) });
                }
                (None, true) => {
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

    /// Whether replies wait for the client to read.
    pub(crate) fn is_writing(&self) -> bool {
        self.written < self.output.len()
    }

    /// Writes as much as the client takes.
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
        self.output = Vec::new();
        self.written = 0;
        Ok(())
    }
}
