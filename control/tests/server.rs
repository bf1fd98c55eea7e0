//! The control socket from outside: a control plane in this process, and a forwarding plane played by the test.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use control::command::{Command, GroupCreate, VpcCreate, VpcModify};
use control::ecs::ApiSettings;
use control::error::ReportedError;
use control::http::Endpoint;
use control::socket::client::{Client, ClientError};
use control::socket::protocol::{self as socket_protocol, ChangeKind, Changed, Forwarding, REQUEST_BYTES_MAX};
use control::socket::query::{Answer, Nothing, Query, VpcShow};
use control::store::MemoryStore;
use control::{ControlConfig, serve, serve_with};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use vswitch_core::config::desired::Desired;
use vswitch_core::config::protocol::{self, Applied, RequestBody, Status, SwitchReply, SwitchReplyBody, SwitchRequest};
use vswitch_core::config::refusal::Refusal;

/// A control plane, and where to reach it. It stops with the value.
struct ServerWorld {
    directory: tempfile::TempDir,
    control: Option<(UnixStream, JoinHandle<()>)>,
}

impl ServerWorld {
    fn start(apply_timeout: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let mut config = ControlConfig::new(path("data"), path("control.sock"), path("vswitch.sock"));
        config.apply_timeout = apply_timeout;
        let (stop, stopped) = UnixStream::pair().unwrap();
        let control = thread::spawn(move || serve(&config, Box::new(MemoryStore::default()), stopped).unwrap());
        let world = Self { directory, control: Some((stop, control)) };
        wait_for("the control socket", || UnixStream::connect(world.socket()).is_ok());
        world
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    fn client(&self) -> Client {
        Client::connect(&self.socket()).unwrap()
    }

    fn switch(&self) -> IdleSwitch {
        IdleSwitch::start(self.directory.path().join("vswitch.sock"))
    }

    fn stop(&mut self) {
        if let Some((stop, control)) = self.control.take() {
            drop(stop);
            control.join().unwrap();
        }
    }
}

impl Drop for ServerWorld {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.stop();
        }
    }
}

/// What the played forwarding plane does and has.
#[derive(Default)]
struct SwitchState {
    generation: u64,
    desired: Desired,
    silent: bool,
    refuse_vpc: Option<String>,
    replaced: usize,
    delta_count: usize,
    questions: usize,
}

/// A forwarding plane that runs nothing but tells so. It ends with the value.
struct IdleSwitch {
    state: Arc<Mutex<SwitchState>>,
    path: PathBuf,
    connections: Arc<Mutex<Vec<UnixStream>>>,
}

impl IdleSwitch {
    fn start(path: PathBuf) -> Self {
        let listener = UnixListener::bind(&path).unwrap();
        let state = Arc::new(Mutex::new(SwitchState::default()));
        let connections = Arc::new(Mutex::new(Vec::new()));
        let (shared, streams) = (Arc::clone(&state), Arc::clone(&connections));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                streams.lock().unwrap().push(stream.try_clone().unwrap());
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve_switch(stream, &shared));
            }
        });
        Self { state, path, connections }
    }

    fn has(&self, vpc: &str) -> bool {
        self.state.lock().unwrap().desired.vpcs.contains_key(&vpc.into())
    }
}

impl Drop for IdleSwitch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        for stream in self.connections.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn serve_switch(stream: UnixStream, state: &Mutex<SwitchState>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        let request: SwitchRequest = protocol::read(&line).unwrap();
        line.clear();
        let mut state = state.lock().unwrap();
        let body = state.answer(request.body);
        if state.silent {
            continue;
        }
        let reply = SwitchReply { version: protocol::VERSION, id: request.id, body };
        if writer.write_all(&protocol::write(&reply)).is_err() {
            return;
        }
    }
}

impl SwitchState {
    fn answer(&mut self, body: RequestBody) -> SwitchReplyBody {
        let refused = |code: &str, message: &str| SwitchReplyBody::Refused {
            refusals: vec![Refusal::new(code, "vpcs", message)],
        };
        let (generation, desired) = match body {
            RequestBody::Replace { generation, desired } => {
                self.replaced += 1;
                (generation, desired)
            }
            RequestBody::Apply { base, .. } if base != self.generation => {
                return refused("generation-mismatch", "another generation runs");
            }
            RequestBody::Apply { generation, delta, .. } => {
                self.delta_count += 1;
                let mut desired = self.desired.clone();
                delta.apply(&mut desired);
                (generation, desired)
            }
            RequestBody::Ports => {
                self.questions += 1;
                return SwitchReplyBody::Ports { ports: vec![] };
            }
            RequestBody::Status => return SwitchReplyBody::Status(self.status()),
            _ => return refused("unknown", "no such ENI"),
        };
        if self.refuse_vpc.as_ref().is_some_and(|vpc| desired.vpcs.contains_key(&vpc.as_str().into())) {
            return refused("limit", "there is no room for it");
        }
        assert!(generation > self.generation, "{generation} after {}", self.generation);
        (self.generation, self.desired) = (generation, desired);
        SwitchReplyBody::Applied(Applied { generation, compile_ns: 1, barrier_ns: 2, ports_down: vec![] })
    }

    fn status(&self) -> Status {
        let (generation, process_id) = (self.generation, std::process::id());
        Status { generation, process_id, uptime_ms: 0, enis: 0, flows: 0, lanes: 1, lanes_max: 1, workers: vec![] }
    }
}

#[track_caller]
fn wait_for(what: &str, mut happens: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !happens() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn vpc(id: &str) -> Command {
    Command::VpcCreate(VpcCreate { id: Some(id.into()), cidr: "10.0.0.0/16".into(), ..VpcCreate::default() })
}

fn in_sync(client: &mut Client) -> bool {
    match client.ask(&Query::Status(Nothing {})).unwrap() {
        Answer::Status(status) => status.link.in_sync,
        other => panic!("{other:?}"),
    }
}

fn vpc_count(client: &mut Client) -> usize {
    match client.ask(&Query::VpcList(Nothing {})).unwrap() {
        Answer::Vpcs(vpcs) => vpcs.len(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_change_is_answered_when_it_is_applied() {
    let world = ServerWorld::start(Duration::from_secs(60));
    let switch = world.switch();
    let mut client = world.client();
    wait_for("the link", || in_sync(&mut client));
    let changed = client.change(&vpc("vpc-1")).unwrap();
    assert_eq!((changed.objects[0].id.as_str(), changed.objects[0].change), ("vpc-1", ChangeKind::Created));
    let Forwarding::Applied(applied) = changed.forwarding else { panic!("{changed:?}") };
    assert_eq!((applied.compile_ns, applied.barrier_ns), (1, 2));
    assert!(switch.has("vpc-1"));
    let rename =
        Command::VpcModify(VpcModify { vpc: "vpc-1".into(), name: Some("lab".into()), ..VpcModify::default() });
    assert_eq!(client.change(&rename).unwrap().forwarding, Forwarding::Unchanged);
    assert_eq!(client.ask(&Query::Ports(Nothing {})).unwrap(), Answer::Ports(vec![]));
    let state = switch.state.lock().unwrap();
    assert_eq!((state.replaced, state.delta_count), (1, 1), "one whole state, then differences");
}

#[test]
fn without_a_forwarding_plane_changes_are_kept_and_said_to_be_pending() {
    let world = ServerWorld::start(Duration::from_secs(60));
    let mut client = world.client();
    let changed = client.change(&vpc("vpc-1")).unwrap();
    let Forwarding::Pending { reason } = changed.forwarding else { panic!("{changed:?}") };
    assert!(reason.contains("vswitch.sock"), "{reason}");
    let error = client.ask(&Query::Ports(Nothing {})).unwrap_err();
    assert!(matches!(&error, ClientError::Refused(error) if error.status == 503), "{error}");
    let switch = world.switch();
    wait_for("the state to arrive", || switch.has("vpc-1"));
    wait_for("the link", || in_sync(&mut client));
    // A forwarding plane that starts again begins with nothing, and numbers of its own.
    drop(switch);
    let switch = world.switch();
    wait_for("the state to arrive again", || switch.has("vpc-1"));
    switch.state.lock().unwrap().generation = 1000;
    let changed = client.change(&vpc("vpc-2")).unwrap();
    let Forwarding::Applied(applied) = changed.forwarding else { panic!("{changed:?}") };
    assert!(applied.generation > 1000 && switch.has("vpc-2"));
}

#[test]
fn a_silent_forwarding_plane_holds_nobody_up() {
    let world = ServerWorld::start(Duration::from_secs(3));
    let switch = world.switch();
    let mut client = world.client();
    wait_for("the link", || in_sync(&mut client));
    switch.state.lock().unwrap().silent = true;
    let mut other = world.client();
    let waiting = thread::spawn(move || client.change(&vpc("vpc-1")).unwrap());
    wait_for("the change", || vpc_count(&mut other) == 1);
    assert!(!waiting.is_finished(), "questions wait for no change");
    let changed = waiting.join().unwrap();
    assert!(matches!(&changed.forwarding, Forwarding::Pending { reason } if reason.contains("3000 ms")), "{changed:?}");
    switch.state.lock().unwrap().silent = false;
    wait_for("the link to recover", || in_sync(&mut other));
}

#[test]
fn what_the_forwarding_plane_refuses_is_not_kept() {
    let world = ServerWorld::start(Duration::from_secs(60));
    let switch = world.switch();
    let mut client = world.client();
    wait_for("the link", || in_sync(&mut client));
    switch.state.lock().unwrap().refuse_vpc = Some("vpc-2".into());
    client.change(&vpc("vpc-1")).unwrap();
    let error = client.change(&vpc("vpc-2")).unwrap_err();
    assert!(matches!(&error, ClientError::Refused(error) if error.code == "ForwardingRefused"), "{error}");
    assert!(error.to_string().contains("there is no room for it"), "{error}");
    let error = client.ask(&Query::VpcShow(VpcShow { vpc: "vpc-2".into() })).unwrap_err();
    assert!(matches!(&error, ClientError::Refused(error) if error.code == "InvalidVpcId.NotFound"), "{error}");
    assert!(matches!(client.change(&vpc("vpc-3")).unwrap().forwarding, Forwarding::Applied(_)));
    assert!(switch.has("vpc-1") && !switch.has("vpc-2") && switch.has("vpc-3"));
}

#[test]
fn refusals_carry_code_field_and_object() {
    let world = ServerWorld::start(Duration::from_secs(60));
    let create = GroupCreate { vpc: "vpc-9".into(), ..GroupCreate::default() };
    let error = world.client().change(&Command::GroupCreate(create)).unwrap_err();
    let ClientError::Refused(error) = error else { panic!("{error}") };
    assert_eq!((error.code.as_str(), error.status), ("InvalidVpcId.NotFound", 404));
    assert_eq!((error.field.as_deref(), error.object.as_deref()), (Some("vpc"), Some("vpc-9")));
}

#[test]
fn bad_lines_are_answered_and_the_connection_lives_on() {
    let world = ServerWorld::start(Duration::from_secs(60));
    let mut stream = UnixStream::connect(world.socket()).unwrap();
    let mut replies = BufReader::new(stream.try_clone().unwrap());
    let mut ask = |line: &[u8]| -> serde_json::Value {
        stream.write_all(line).unwrap();
        let mut reply = String::new();
        replies.read_line(&mut reply).unwrap();
        serde_json::from_str(&reply).unwrap()
    };
    for bad in [&b"\n"[..], b"{\n", b"[1]\n", b"\xff\xfe\n", b"{\"version\":1,\"request\":1}\n", b"null\n"] {
        assert_eq!(ask(bad)["reply"], "refused", "{bad:?}");
    }
    let reply = ask(b"{\"version\":1,\"request\":5,\"op\":\"vpc-create\",\"cidr\":7}\n");
    assert_eq!((&reply["request"], &reply["reply"]), (&5.into(), &"refused".into()));
    let mut long = vec![b'x'; REQUEST_BYTES_MAX + (1 << 20)];
    long.push(b'\n');
    assert_eq!(ask(&long)["error"]["code"], "RequestTooLarge");
    let deep = [vec![b'['; 100_000], vec![b'\n']].concat();
    assert_eq!(ask(&deep)["reply"], "refused");
    assert_eq!(ask(b"{\"version\":1,\"request\":6,\"op\":\"vpc-list\"}\n")["reply"], "answered");
}

#[test]
fn a_client_that_reads_nothing_holds_nobody_up() {
    let world = ServerWorld::start(Duration::from_secs(60));
    let mut slow = UnixStream::connect(world.socket()).unwrap();
    slow.set_nonblocking(true).unwrap();
    // As many questions as fit, and no answer taken.
    let question = b"{\"version\":1,\"request\":1,\"op\":\"state-show\"}\n".repeat(100);
    while slow.write(&question).is_ok() {}
    let _half = UnixStream::connect(world.socket()).unwrap().write_all(b"{\"version\":1,");
    let mut client = world.client();
    // A server that waited for the slow one would do so for ever.
    for _ in 0..50 {
        assert_eq!(vpc_count(&mut client), 0);
    }
}

#[test]
fn clients_beyond_the_bound_are_told_so() {
    let world = ServerWorld::start(Duration::from_secs(60));
    let clients: Vec<UnixStream> =
        (0..control::server::CONNECTIONS_MAX).map(|_| UnixStream::connect(world.socket()).unwrap()).collect();
    let error = world.client().ask(&Query::VpcList(Nothing {})).unwrap_err();
    assert!(error.to_string().contains("clients are connected"), "{error}");
    drop(clients);
    wait_for("room", || world.client().ask(&Query::VpcList(Nothing {})).is_ok());
}

#[test]
fn the_socket_is_private_and_goes_with_its_server() {
    let mut world = ServerWorld::start(Duration::from_secs(60));
    let mode = std::fs::metadata(world.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    world.stop();
    let error = Client::connect(&world.socket()).unwrap_err().to_string();
    assert!(error.contains("control.sock") && error.contains("sluice up"), "{error}");
}

/// Changes that all wait while the forwarding plane is held up, each of a client of its own, of VPCs with these identifiers.
fn change_together(world: &ServerWorld, switch: &IdleSwitch, ids: &[&str]) -> Vec<Result<Changed, ReportedError>> {
    let held = switch.state.lock().unwrap();
    let mut asking = world.client();
    let mut clients: Vec<UnixStream> = Vec::new();
    for id in ids {
        let mut line = serde_json::to_value(vpc(id)).unwrap();
        (line["version"], line["request"]) = (1.into(), 1.into());
        let mut client = UnixStream::connect(world.socket()).unwrap();
        client.write_all(format!("{line}\n").as_bytes()).unwrap();
        if clients.is_empty() {
            wait_for("the first change, before any other comes", || vpc_count(&mut asking) == 1);
        }
        clients.push(client);
    }
    // Two questions: the first may be read together with the lines that were written before it.
    for _ in 0..2 {
        vpc_count(&mut asking);
    }
    drop(held);
    let answer = |client: UnixStream| {
        let mut line = String::new();
        BufReader::new(client).read_line(&mut line).unwrap();
        match serde_json::from_str::<socket_protocol::Reply>(&line).unwrap().body {
            socket_protocol::ReplyBody::Changed(changed) => Ok(changed),
            socket_protocol::ReplyBody::Refused { error } => Err(error),
            other => panic!("{other:?}"),
        }
    };
    clients.into_iter().map(answer).collect()
}

#[test]
fn changes_that_wait_together_are_made_together() {
    let world = ServerWorld::start(Duration::from_secs(60));
    let switch = world.switch();
    wait_for("the link", || in_sync(&mut world.client()));
    let made = change_together(&world, &switch, &["vpc-1", "vpc-2", "vpc-3", "vpc-3", "vpc-4"]);
    // One of the two that want the same identifier is refused, and hurts no other.
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 4);
    let generations = made.iter().flatten().map(|changed| match &changed.forwarding {
        Forwarding::Applied(applied) => applied.generation,
        other => panic!("{other:?}"),
    });
    let generations: Vec<u64> = generations.collect();
    assert!(generations[1..].iter().all(|generation| *generation == generations[0] + 1), "{generations:?}");
    assert_eq!(switch.state.lock().unwrap().delta_count, 2);
}

#[test]
fn of_changes_refused_together_only_the_one_to_blame_is_refused() {
    let world = ServerWorld::start(Duration::from_secs(60));
    let switch = world.switch();
    wait_for("the link", || in_sync(&mut world.client()));
    switch.state.lock().unwrap().refuse_vpc = Some("vpc-3".into());
    let ids = ["vpc-1", "vpc-2", "vpc-3", "vpc-4", "vpc-5"];
    let made = change_together(&world, &switch, &ids);
    for (id, made) in ids.iter().zip(made) {
        assert_eq!(made.is_ok(), *id != "vpc-3", "{id}: {made:?}");
        assert_eq!(switch.has(id), *id != "vpc-3", "{id}");
    }
    assert_eq!(vpc_count(&mut world.client()), 4);
}

#[test]
fn questions_to_a_silent_forwarding_plane_hold_neither_changes_nor_each_other_up() {
    const QUESTIONS: usize = 100;
    const TIMEOUT: Duration = Duration::from_millis(300);
    let world = ServerWorld::start(TIMEOUT);
    let switch = world.switch();
    wait_for("the link", || in_sync(&mut world.client()));
    switch.state.lock().unwrap().silent = true;
    let clients: Vec<Client> = (0..QUESTIONS).map(|_| world.client()).collect();
    thread::scope(|scope| {
        let asked: Vec<_> = clients
            .into_iter()
            .map(|mut client| scope.spawn(move || client.ask(&Query::Ports(Nothing {})).unwrap_err()))
            .collect();
        for number in 0..10 {
            let changed = world.client().change(&vpc(&format!("vpc-{number}"))).unwrap();
            assert!(matches!(changed.forwarding, Forwarding::Pending { .. }), "{changed:?}");
        }
        for error in asked.into_iter().map(|asked| asked.join().unwrap()) {
            assert!(matches!(&error, ClientError::Refused(error) if error.status == 503), "{error}");
        }
    });
    // One after another they would take the time of an answer each; those that waited as long are not even put.
    let put = switch.state.lock().unwrap().questions;
    assert!(put < QUESTIONS, "{put} of {QUESTIONS} were put");
    switch.state.lock().unwrap().silent = false;
    wait_for("the changes to arrive", || switch.has("vpc-9"));
}

#[test]
fn steady_questions_do_not_keep_the_state_from_a_forwarding_plane_that_started_again() {
    let world = ServerWorld::start(Duration::from_secs(60));
    world.client().change(&vpc("vpc-1")).unwrap();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = world.client();
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = client.ask(&Query::Ports(Nothing {}));
                }
            });
        }
        for _ in 0..3 {
            let switch = world.switch();
            let deadline = Instant::now() + Duration::from_secs(120);
            while !switch.has("vpc-1") && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(5));
            }
            let has = switch.has("vpc-1");
            is_over.fetch_or(!has, std::sync::atomic::Ordering::Relaxed);
            assert!(has, "the state does not arrive");
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// Calls through HTTP whose callers do not wait for the answer.
#[test]
fn changes_whose_callers_are_gone_are_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let mut config = ControlConfig::new(path("data"), path("control.sock"), path("vswitch.sock"));
    config.apply_timeout = Duration::from_secs(3);
    let settings = ApiSettings { unsigned: true, ..ApiSettings::default() };
    let endpoint = Endpoint::new(TcpListener::bind("127.0.0.1:0").unwrap(), settings).unwrap();
    let address = endpoint.address().unwrap();
    let (stop, stopped) = UnixStream::pair().unwrap();
    let store = Box::new(MemoryStore::default());
    let control = thread::spawn(move || serve_with(&config, store, stopped, Some(endpoint)).unwrap());
    wait_for("the control socket", || UnixStream::connect(path("control.sock")).is_ok());
    let client = || Client::connect(&path("control.sock")).unwrap();
    let switch = IdleSwitch::start(path("vswitch.sock"));
    wait_for("the link", || in_sync(&mut client()));
    switch.state.lock().unwrap().silent = true;
    let first = thread::spawn({
        let mut client = client();
        move || client.change(&vpc("vpc-1")).unwrap()
    });
    wait_for("the first change", || vpc_count(&mut client()) == 1);
    for _ in 0..50 {
        let body = "Action=CreateVpc&Version=2016-04-28&RegionId=cn-hangzhou&CidrBlock=10.0.0.0/16";
        let head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n";
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    }
    first.join().unwrap();
    client().change(&vpc("vpc-2")).unwrap();
    assert_eq!(vpc_count(&mut client()), 2, "nobody waits for the others");
    drop(stop);
    control.join().unwrap();
}

#[test]
fn steady_changes_do_not_keep_the_link_from_a_forwarding_plane_that_answers_again() {
    let world = ServerWorld::start(Duration::from_millis(300));
    let switch = world.switch();
    wait_for("the link", || in_sync(&mut world.client()));
    switch.state.lock().unwrap().silent = true;
    let is_over = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = world.client();
            for name in (0..).map(|number| format!("name-{number}")) {
                client.change(&vpc(&name.replace("name", "vpc"))).unwrap();
                if is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
            }
        });
        wait_for("changes that are pending", || vpc_count(&mut world.client()) > 3);
        switch.state.lock().unwrap().silent = false;
        let deadline = Instant::now() + Duration::from_secs(120);
        while !switch.has("vpc-3") && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(switch.has("vpc-3"), "the state does not arrive");
    });
}
