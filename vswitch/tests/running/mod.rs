//! A switch that runs in this process, and a client of its control socket.

pub(crate) mod lab;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;
use vswitch::os::run_dir::RunDir;
use vswitch::port::factory::PortFactory;
use vswitch::port::tap::persistent;
use vswitch::{VswitchConfig, run_until};
use vswitch_core::config::protocol::{self, RequestBody, SwitchReply, SwitchReplyBody, SwitchRequest, VERSION};

/// A switch on a thread of this process. What it made for its guests goes with the value.
pub(crate) struct RunningSwitch {
    directory: tempfile::TempDir,
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl RunningSwitch {
    pub(crate) fn start(workers: usize) -> Self {
        Self::start_with(workers, PortFactory::default())
    }

    pub(crate) fn start_with(workers: usize, ports: PortFactory) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (stop, stopped) = UnixStream::pair().unwrap();
        let mut config = VswitchConfig::new(directory.path().join("control"));
        (config.workers, config.flows_max_per_worker, config.pin) = (workers, 4096, false);
        config.ports = ports;
        let thread = std::thread::spawn(move || run_until(config, stopped));
        let running = Self { directory, stop: Some(stop), thread: Some(thread) };
        while UnixStream::connect(running.path()).is_err() {
            assert!(!running.thread.as_ref().unwrap().is_finished(), "the switch ended before it listened");
            std::thread::sleep(Duration::from_millis(1));
        }
        running
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("control")
    }

    pub(crate) fn connect(&self) -> TestClient {
        let stream = UnixStream::connect(self.path()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        TestClient { reader: BufReader::new(stream.try_clone().unwrap()), stream }
    }

    /// Ends it, as when a test fails; what it made for its guests stays.
    fn end(&mut self) -> Option<std::thread::Result<std::io::Result<()>>> {
        drop(self.stop.take());
        self.thread.take().map(JoinHandle::join)
    }

    pub(crate) fn stop(&mut self) {
        self.end().unwrap().unwrap().unwrap();
    }
}

impl Drop for RunningSwitch {
    fn drop(&mut self) {
        let _ = self.end();
        let _ = persistent::remove_all(&RunDir::beside(&self.path()), |_| {});
    }
}

/// A connection to it.
pub(crate) struct TestClient {
    pub(crate) stream: UnixStream,
    reader: BufReader<UnixStream>,
}

impl TestClient {
    pub(crate) fn raw(&mut self, line: &[u8]) -> SwitchReply {
        self.stream.write_all(line).unwrap();
        self.read()
    }

    pub(crate) fn read(&mut self) -> SwitchReply {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).unwrap();
        protocol::read(&line).unwrap_or_else(|refusal| panic!("{refusal:?}: {}", String::from_utf8_lossy(&line)))
    }

    pub(crate) fn ask(&mut self, body: RequestBody) -> SwitchReplyBody {
        let reply = self.raw(&protocol::write(&SwitchRequest { version: VERSION, id: 7, body }));
        assert_eq!(reply.id, 7);
        reply.body
    }

    pub(crate) fn refused(&mut self, line: &[u8]) -> (String, String) {
        match self.raw(line).body {
            SwitchReplyBody::Refused { refusals } => (refusals[0].code.clone(), refusals[0].message.clone()),
            other => panic!("not refused: {other:?}"),
        }
    }
}
