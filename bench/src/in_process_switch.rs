//! A forwarding plane on threads of this process, and a client of its socket, so that the production code is measured.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vswitch::{VswitchConfig, run_until};
use vswitch_core::config::desired::{Desired, DesiredPort};
use vswitch_core::config::protocol::{
    self, Applied, Delta, RequestBody, SwitchReply, SwitchReplyBody, SwitchRequest, VERSION,
};

/// How long the plane may take to start or to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running forwarding plane. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct InProcessSwitch {
    directory: tempfile::TempDir,
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl InProcessSwitch {
    /// Starts one; `configure` adjusts its configuration.
    pub(crate) fn start(configure: impl FnOnce(&mut VswitchConfig)) -> io::Result<Self> {
        let directory = tempfile::tempdir()?;
        // The plane ends when the other end of this pair closes, which a drop does on every way out.
        let (stop, stopped) = UnixStream::pair()?;
        let mut config = VswitchConfig::new(directory.path().join("vswitch.sock"));
        configure(&mut config);
        let thread = std::thread::Builder::new().name("plane".into()).spawn(move || run_until(config, stopped))?;
        let mut plane = Self { directory, stop: Some(stop), thread: Some(thread) };
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(plane.path()).is_err() {
            if plane.thread.as_ref().is_none_or(JoinHandle::is_finished) || Instant::now() > deadline {
                plane.end()?;
                return Err(io::Error::other("the forwarding plane does not start to listen"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(plane)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("vswitch.sock")
    }

    pub(crate) fn connect(&self) -> io::Result<SwitchClient> {
        let stream = UnixStream::connect(self.path())?;
        // A plane that hangs must not hang the measurement.
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(SwitchClient { reader: BufReader::new(stream.try_clone()?), stream, generation: 0 })
    }

    fn end(&mut self) -> io::Result<()> {
        drop(self.stop.take());
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the forwarding plane panicked")),
            None => Ok(()),
        }
    }
}

impl Drop for InProcessSwitch {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("sluice: the forwarding plane failed: {error}");
        }
    }
}

/// The only client of a plane.
#[derive(Debug)]
pub(crate) struct SwitchClient {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
    generation: u64,
}

/// A change as it is sent over the socket, encoded beforehand.
pub(crate) struct EncodedChange(Vec<u8>);

impl SwitchClient {
    /// Applies a whole state.
    pub(crate) fn replace(&mut self, desired: Desired) -> Result<Applied, String> {
        self.generation += 1;
        let line = request(RequestBody::Replace { generation: self.generation, desired });
        applied(self.ask(&line)?)
    }

    /// The next change, ready to be sent.
    pub(crate) fn change(&mut self, delta: Delta) -> EncodedChange {
        let base = self.generation;
        self.generation += 1;
        EncodedChange(request(RequestBody::Apply { base, generation: self.generation, delta }))
    }

    /// Sends a change and waits until it is in force.
    pub(crate) fn apply(&mut self, change: &EncodedChange) -> Result<Applied, String> {
        applied(self.ask(&change.0)?)
    }

    fn ask(&mut self, line: &[u8]) -> Result<SwitchReplyBody, String> {
        let mut answer = Vec::new();
        self.stream
            .write_all(line)
            .and_then(|()| self.reader.read_until(b'\n', &mut answer))
            .map_err(|error| format!("the forwarding plane does not answer: {error}"))?;
        let reply: SwitchReply = protocol::read(&answer).map_err(|refusal| refusal.message)?;
        Ok(reply.body)
    }
}

fn request(body: RequestBody) -> Vec<u8> {
    protocol::write(&SwitchRequest { version: VERSION, id: 1, body })
}

fn applied(body: SwitchReplyBody) -> Result<Applied, String> {
    match body {
        SwitchReplyBody::Applied(applied) => match applied.ports_down.first() {
            None => Ok(applied),
            // A measurement over a port that is down would measure drops.
            Some(port) => {
                let why = port.error.clone().unwrap_or_default();
                Err(format!("the port of {} is down: {why}", port.eni))
            }
        },
        SwitchReplyBody::Refused { refusals } => {
            Err(refusals.first().map(|refusal| refusal.message.clone()).unwrap_or_default())
        }
        _ => Err("the forwarding plane gave an unexpected answer".into()),
    }
}

/// Attaches these ENIs to ports, and detaches all others.
pub(crate) fn attach(
    desired: &mut Desired,
    port_of: impl Fn(&vswitch_core::config::ids::EniId) -> Option<DesiredPort>,
) {
    for (id, eni) in &mut desired.enis {
        eni.port = port_of(id);
    }
}
