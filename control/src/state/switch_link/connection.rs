//! One connection to the forwarding plane, with a time limit for each line in either direction.

use crate::os::unix_socket;
use rustix::net::RecvFlags;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use vswitch_core::config::limits::MESSAGE_BYTES_MAX;
use vswitch_core::config::protocol::{self, RequestBody, SwitchReply, SwitchReplyBody, SwitchRequest};

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failure {
    /// A message for people.
    pub(super) text: String,
    /// Whether the other end exists and did not answer in time.
    pub(super) is_silent: bool,
}

impl Failure {
    /// The failure of an answer that did not arrive within `timeout`.
    pub(super) fn silence(timeout: Duration) -> Self {
        let text = format!("the forwarding plane did not answer within {} ms", timeout.as_millis());
        Self { text, is_silent: true }
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self { text, is_silent: false }
    }
}

/// A connection on which requests follow each other.
pub(super) struct SwitchConnection {
    stream: BufReader<UnixStream>,
    last_id: u64,
    timeout: Duration,
}

impl SwitchConnection {
    /// Connects. `timeout` is the time that a message about a missing answer gives.
    pub(super) fn open(socket: &Path, timeout: Duration, deadline: Instant) -> Result<Self, Failure> {
        let patience = deadline.saturating_duration_since(Instant::now());
        // A full queue of connections means that the owner does not accept, which is silence, not absence.
        let stream = unix_socket::connect(socket, patience).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => Failure::silence(timeout),
            _ => format!("the forwarding plane at {} cannot be reached: {error}", socket.display()).into(),
        })?;
        Ok(Self { stream: BufReader::new(stream), last_id: 0, timeout })
    }

    /// Sends a request and waits for the answer. After an error the connection is unusable.
    pub(super) fn ask(&mut self, body: RequestBody, deadline: Instant) -> Result<SwitchReplyBody, Failure> {
        self.exchange(body, deadline).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Failure::silence(self.timeout),
            _ => format!("the connection to the forwarding plane broke: {error}").into(),
        })
    }

    /// Whether the other end closed the connection or sent something unexpected.
    pub(super) fn has_ended(&self) -> bool {
        let mut byte = [0];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        // Nothing is expected between requests: data is as wrong as the end.
        rustix::net::recv(self.stream.get_ref(), &mut byte, flags) != Err(rustix::io::Errno::AGAIN)
    }

    fn exchange(&mut self, body: RequestBody, deadline: Instant) -> io::Result<SwitchReplyBody> {
        self.last_id += 1;
        let request = SwitchRequest { version: protocol::VERSION, id: self.last_id, body };
        self.write(&protocol::write(&request), deadline)?;
        let line = self.read_line(deadline)?;
        let reply: SwitchReply = protocol::read(&line).map_err(|refusal| {
            io::Error::new(io::ErrorKind::InvalidData, format!("its answer cannot be read: {}", refusal.message))
        })?;
        let is_refusal = matches!(reply.body, SwitchReplyBody::Refused { .. });
        // A refusal without a number answers a request that could not be read at all.
        if reply.id != self.last_id && !(is_refusal && reply.id == 0) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it answered another request"));
        }
        Ok(reply.body)
    }

    fn write(&mut self, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            // Set anew for each piece: the deadline is that of the whole message.
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
            // Checked as it grows: whatever is at the other end must not fill memory.
            if line.len() > MESSAGE_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "its answer is too long"));
            }
        }
    }
}

/// The time left, as a valid socket timeout.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left.max(Duration::from_millis(1))) }
}
