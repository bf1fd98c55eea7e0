//! A forwarding plane in this process on real TAP devices, with the faults that a test asks for around every port.

use crate::netns::eventually;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use vswitch::os::namespace;
use vswitch::os::run_dir::RunDir;
use vswitch::port::factory::PortFactory;
use vswitch::port::tap::persistent;
use vswitch::{VswitchConfig, run_until};
use vswitch_core::config::desired::{Desired, DesiredPort, TapPort};
use vswitch_core::config::ids::EniId;
use vswitch_core::config::protocol::{
    self, EniStats, FlowDescription, FlowSelection, RequestBody, SwitchReply, SwitchReplyBody, SwitchRequest, VERSION,
};

static STARTED: AtomicU32 = AtomicU32::new(0);

/// The plane, and a connection to its control socket. Its namespaces go with it.
pub struct TestPlane {
    folder: tempfile::TempDir,
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
    control: Option<BufReader<UnixStream>>,
    prefix: String,
    generation: u64,
}

impl TestPlane {
    /// Starts one with room for `flows_max` sessions a worker.
    pub fn start(workers: usize, flows_max: usize, ports: PortFactory) -> Self {
        let folder = tempfile::Builder::new().prefix("sluice-test-").tempdir().expect("a temporary folder");
        let (stop, stopped) = UnixStream::pair().expect("a pair of sockets");
        let mut config = VswitchConfig::new(folder.path().join("vswitch.sock"));
        (config.workers, config.flows_max_per_worker, config.pin, config.ports) = (workers, flows_max, false, ports);
        let thread = std::thread::spawn(move || run_until(config, stopped));
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("slp{}-{number}", std::process::id());
        let mut plane = Self { folder, stop: Some(stop), thread: Some(thread), control: None, prefix, generation: 0 };
        eventually("the plane listens", || {
            plane.control = UnixStream::connect(plane.folder.path().join("vswitch.sock")).ok().map(BufReader::new);
            plane.control.is_some()
        });
        plane
    }

    /// The namespace of a guest.
    pub fn namespace(&self, guest: &str) -> String {
        format!("{}-{guest}", self.prefix)
    }

    /// Asks over the control socket.
    pub fn ask(&mut self, body: RequestBody) -> SwitchReplyBody {
        let control = self.control.as_mut().expect("connected");
        let request = protocol::write(&SwitchRequest { version: VERSION, id: 1, body });
        control.get_mut().write_all(&request).expect("the plane takes requests");
        let mut line = Vec::new();
        control.read_until(b'\n', &mut line).expect("the plane answers");
        let reply: SwitchReply = protocol::read(&line).unwrap_or_else(|refusal| panic!("{refusal:?}"));
        reply.body
    }

    /// Makes a state run in which every ENI has `eth0` in a namespace of its name.
    pub fn run(&mut self, desired: &Desired) {
        let mut desired = desired.clone();
        for (id, eni) in &mut desired.enis {
            eni.port = Some(DesiredPort::Tap(TapPort {
                device: "eth0".into(),
                namespace: Some(self.namespace(id.as_str())),
                create_namespace: true,
                configure: true,
                mtu_bytes: TapPort::default_mtu_bytes(),
            }));
        }
        self.generation += 1;
        match self.ask(RequestBody::Replace { generation: self.generation, desired }) {
            SwitchReplyBody::Applied(applied) => assert!(applied.ports_down.is_empty(), "{:?}", applied.ports_down),
            other => panic!("not applied: {other:?}"),
        }
    }

    /// Does something, such as opening a socket, inside a guest.
    pub fn within<T: Send>(&self, guest: &str, work: impl FnOnce() -> std::io::Result<T> + Send) -> T {
        namespace::within(&self.namespace(guest), work).expect("work inside a namespace")
    }

    /// The first sessions of an ENI.
    pub fn flows(&mut self, eni: &str) -> Vec<FlowDescription> {
        let selection = FlowSelection { eni: Some(eni.into()), ..FlowSelection::default() };
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let body = RequestBody::Flows { selection: selection.clone(), cursor, limit: 1000 };
            let SwitchReplyBody::Flows { flows, next } = self.ask(body) else { panic!("no flows of {eni}") };
            all.extend(flows);
            match next {
                Some(next) => cursor = Some(next),
                None => return all,
            }
        }
    }

    /// The counters of an ENI.
    pub fn stats(&mut self, eni: &str) -> EniStats {
        match self.ask(RequestBody::Stats { eni: Some(EniId::from(eni)) }) {
            SwitchReplyBody::Stats { mut enis } if enis.len() == 1 => enis.remove(0),
            other => panic!("no counters of {eni}: {other:?}"),
        }
    }
}

impl Drop for TestPlane {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = persistent::remove_all(&RunDir::beside(&self.folder.path().join("vswitch.sock")), |_| {});
    }
}
