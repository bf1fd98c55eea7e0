//! One client of the control socket: bytes to lines and back, never more than a bound of either in memory.

use crate::wire::REQUEST_BYTES_MAX;
use mio::net::UnixStream;
use std::io::{self, Read, Write};

/// Bytes read from a client at once.
const READ_BYTES: usize = 64 << 10;

/// Reads of one client before it is others' turn.
const READS_PER_TURN: usize = 16;

/// What a client sent next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// A line, without its end.
    Line(Vec<u8>),
    /// A line too long to be kept; what is left of it is skipped.
    TooLong,
    /// Nothing more at present.
    Nothing,
    /// Nothing whole yet, and more to read: it is others' turn.
    More,
    /// Nothing more ever.
    End,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: UnixStream,
    input: Vec<u8>,
    /// How much of the input is known to hold no end of a line.
    scanned: usize,
    skipping: bool,
    ended: bool,
    output: Vec<u8>,
    written: usize,
    /// A request of this client is being worked on. Its next one waits, so that replies keep their order.
    pub(super) busy: bool,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            input: Vec::new(),
            scanned: 0,
            skipping: false,
            ended: false,
            output: Vec::new(),
            written: 0,
            busy: false,
        }
    }

    /// The next line, reading only as much as that takes.
    pub(super) fn next(&mut self) -> io::Result<Input> {
        for _ in 0..READS_PER_TURN {
            if let Some(input) = self.buffered() {
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
        Ok(self.buffered().unwrap_or(Input::More))
    }

    fn buffered(&mut self) -> Option<Input> {
        loop {
            let end = self.input[self.scanned..].iter().position(|byte| *byte == b'\n');
            match (end.map(|end| self.scanned + end), self.skipping) {
                (Some(end), true) => {
                    self.input.drain(..=end);
                    (self.scanned, self.skipping) = (0, false);
                }
                (Some(end), false) => {
                    let mut line: Vec<u8> = self.input.drain(..=end).collect();
                    line.pop();
                    self.scanned = 0;
                    return Some(if line.len() >= REQUEST_BYTES_MAX { Input::TooLong } else { Input::Line(line) });
                }
                (None, true) => {
                    self.input.clear();
                    self.scanned = 0;
                    return None;
                }
                (None, false) if self.input.len() >= REQUEST_BYTES_MAX => {
                    self.input = Vec::new();
                    (self.scanned, self.skipping) = (0, true);
                    return Some(Input::TooLong);
                }
                (None, false) => {
                    self.scanned = self.input.len();
                    return None;
                }
            }
        }
    }

    /// Queues a reply.
    pub(super) fn reply(&mut self, line: &[u8]) {
        self.output.extend_from_slice(line);
    }

    /// Whether replies wait for the client to read.
    pub(super) fn is_writing(&self) -> bool {
        self.written < self.output.len()
    }

    /// Writes as much as the client takes.
    pub(super) fn flush(&mut self) -> io::Result<()> {
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
