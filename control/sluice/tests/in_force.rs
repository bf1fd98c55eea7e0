//! Whoever asks for a change that is not in force hears so, whether or not the call itself changes anything: beside a
//! real forwarding plane that is stopped and goes on, over the control socket, HTTP and the command line.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use control::command::{Batch, Command, VpcCreate, VpcModify};
use control::ecs::client::{ApiClient, HttpAnswer};
use control::ecs::{AccessKey, ApiSettings, Product};
use control::http::Endpoint;
use control::socket::client::Client;
use control::socket::protocol::Forwarding;
use control::socket::query::{Answer, Nothing, Query};
use control::store::MemoryStore;
use control::{ControlConfig, serve_with};
use rustix::process::{Pid, Signal, kill_process};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a change waits for the forwarding plane here.
const APPLY_TIMEOUT: Duration = Duration::from_millis(300);

fn key() -> AccessKey {
    AccessKey { id: "testid".into(), secret: "testsecret".into(), account: "1".into(), security_token: None }
}

/// A control plane in this process. It stops with the value.
struct Control {
    directory: tempfile::TempDir,
    address: SocketAddr,
    running: Option<(UnixStream, JoinHandle<()>)>,
}

impl Control {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let mut config = ControlConfig::new(path("data"), path("control.sock"), path("vswitch.sock"));
        config.apply_timeout = APPLY_TIMEOUT;
        let settings =
            ApiSettings { access_keys: vec![key()], revoke_absent_rule_succeeds: true, ..ApiSettings::default() };
        let endpoint = Endpoint::new(TcpListener::bind("127.0.0.1:0").unwrap(), settings).unwrap();
        let address = endpoint.address().unwrap();
        let (stop, stopped) = UnixStream::pair().unwrap();
        let store = Box::new(MemoryStore::default());
        let running = thread::spawn(move || serve_with(&config, store, stopped, Some(endpoint)).unwrap());
        let control = Self { directory, address, running: Some((stop, running)) };
        wait_for("the control socket", || UnixStream::connect(control.socket()).is_ok());
        control
    }

    fn folder(&self) -> &Path {
        self.directory.path()
    }

    fn socket(&self) -> PathBuf {
        self.folder().join("control.sock")
    }

    fn client(&self) -> Client {
        Client::connect(&self.socket()).unwrap()
    }

    fn http(&self) -> Http {
        Http(ApiClient::connect(self.address, key()).unwrap())
    }

    /// What the command prints.
    fn sluice(&self, arguments: &[&str]) -> String {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sluice"));
        let output = command.arg("--run-dir").arg(self.folder()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn is_in_sync(&self) -> bool {
        match self.client().ask(&Query::Status(Nothing {})).unwrap() {
            Answer::Status(status) => status.link.in_sync,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Some((stop, running)) = self.running.take() {
            drop(stop);
            let _ = running.join();
        }
    }
}

/// A forwarding plane in a process of its own. It ends with the value.
struct ForwardingPlane(Child);

impl ForwardingPlane {
    fn start(folder: &Path) -> Self {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.arg("--run-dir").arg(folder).args(["vswitch", "--no-pin", "--sessions-per-worker", "1024"]);
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for ForwardingPlane {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Calls over HTTP, and whether their answers say that something is pending.
struct Http(ApiClient);

impl Http {
    fn call(&mut self, action: &str, pairs: &[(&str, &str)]) -> HttpAnswer {
        let product = if action.contains("Vpc") { Product::Vpc } else { Product::Ecs };
        let pairs: Vec<(&str, &str)> = [&[("RegionId", "cn-hangzhou")], pairs].concat();
        self.0.call(product, action, &pairs).unwrap()
    }

    #[track_caller]
    fn is_pending(&mut self, action: &str, pairs: &[(&str, &str)], status: u16) -> bool {
        let answer = self.call(action, pairs);
        assert_eq!(answer.status, status, "{action}: {}", answer.body);
        answer.headers.iter().any(|header| header == "x-sluice-forwarding: pending")
    }
}

#[track_caller]
fn wait_for(what: &str, mut happens: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !happens() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn vpc(id: &str) -> Command {
    Command::VpcCreate(VpcCreate { id: Some(id.into()), cidr: "10.0.0.0/16".into(), ..VpcCreate::default() })
}

fn renamed(name: &str) -> Command {
    Command::VpcModify(VpcModify { vpc: "vpc-1".into(), name: Some(name.into()), ..VpcModify::default() })
}

const LAB: &str = "[[vpc]]\nid = 'vpc-1'\ncidr = '10.0.0.0/16'\n";

#[test]
fn what_is_not_in_force_is_told_to_everybody_who_asks_for_it() {
    let control = Control::start();
    let plane = ForwardingPlane::start(control.folder());
    wait_for("the forwarding plane", || control.is_in_sync());
    let (mut client, mut http) = (control.client(), control.http());
    client.change(&vpc("vpc-1")).unwrap();
    let group = http.call("CreateSecurityGroup", &[("VpcId", "vpc-1")]).json()["SecurityGroupId"].clone();
    let group = group.as_str().unwrap();
    let rule = [("SecurityGroupId", group), ("IpProtocol", "all"), ("SourceCidrIp", "10.0.0.0/8")];
    assert!(!http.is_pending("AuthorizeSecurityGroup", &rule, 200));
    let lab = control.folder().join("lab.toml");
    std::fs::write(&lab, LAB).unwrap();
    let apply = ["apply", "-f", lab.to_str().unwrap()];
    assert_eq!(control.sluice(&apply), "nothing to change\n");
    assert_eq!(client.change(&renamed("one")).unwrap().forwarding, Forwarding::Unchanged);

    plane.signal(Signal::STOP);
    let once = [&rule[..], &[("ClientToken", "once")]].concat();
    for round in 0..3 {
        assert!(http.is_pending("RevokeSecurityGroup", &once, 200), "a token used again, round {round}");
        // Once more without a token: there is no such rule, which is success and changes nothing.
        assert!(http.is_pending("RevokeSecurityGroup", &rule, 200), "a change of nothing, round {round}");
    }
    let is_pending = |forwarding: &Forwarding| matches!(forwarding, Forwarding::Pending { .. });
    let batch = Command::Batch(Batch { commands: vec![] });
    for command in [&batch, &renamed("one"), &renamed("two")] {
        let changed = client.change(command).unwrap();
        assert!(is_pending(&changed.forwarding), "{command:?}: {changed:?}");
    }
    let rename = ["vpc", "modify", "vpc-1", "--name", "two"];
    for arguments in [&apply[..], &rename] {
        let told = control.sluice(arguments);
        assert!(told.contains("nothing to change") && told.contains("NOT in force yet"), "{told}");
        let told = control.sluice(&[arguments, &["--json"]].concat());
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        let changed = told.get("changed").unwrap_or(&told);
        assert_eq!(changed["forwarding"]["state"], "pending", "{told}");
    }
    let told = control.sluice(&[&apply[..], &["--dry-run"]].concat());
    assert!(!told.contains("in force"), "{told}");
    assert!(control.sluice(&["status"]).contains("NOT in force"));
    // Questions are answered at once, from what is stored, and say that it is not in force; so do refusals.
    assert!(http.is_pending("DescribeSecurityGroupAttribute", &[("SecurityGroupId", group)], 200));
    assert!(http.is_pending("DeleteSecurityGroup", &[("SecurityGroupId", "sg-none")], 404));
    assert!(!http.is_pending("CreateVpc", &[("DryRun", "true")], 400));

    plane.signal(Signal::CONT);
    wait_for("the forwarding plane to go on", || control.is_in_sync());
    assert!(!http.is_pending("RevokeSecurityGroup", &once, 200));
    assert!(!http.is_pending("DescribeSecurityGroupAttribute", &[("SecurityGroupId", group)], 200));
    assert_eq!(client.change(&batch).unwrap().forwarding, Forwarding::Unchanged);
    assert_eq!(control.sluice(&apply), "nothing to change\n");
}

/// A change of nothing makes a forwarding plane that came back run what it should, and then says so.
#[test]
fn a_forwarding_plane_that_is_gone_or_back_is_noticed_by_a_change_of_nothing() {
    let control = Control::start();
    let plane = ForwardingPlane::start(control.folder());
    wait_for("the forwarding plane", || control.is_in_sync());
    let mut client = control.client();
    client.change(&vpc("vpc-1")).unwrap();
    let nothing = Command::Batch(Batch { commands: vec![] });
    drop(plane);
    let changed = client.change(&nothing).unwrap();
    assert!(matches!(changed.forwarding, Forwarding::Pending { .. }), "{changed:?}");
    let _plane = ForwardingPlane::start(control.folder());
    wait_for("the forwarding plane to be back", || {
        !matches!(client.change(&nothing).unwrap().forwarding, Forwarding::Pending { .. })
    });
    assert!(control.is_in_sync());
}

/// A stopped process takes nobody out of its queue, and a full queue keeps whoever connects waiting: nobody may.
#[test]
fn a_full_queue_of_a_stopped_forwarding_plane_holds_nobody_up() {
    let control = Control::start();
    let path = control.folder().join("vswitch.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let mut queued = Vec::new();
    loop {
        let flags = rustix::net::SocketFlags::NONBLOCK;
        let kind = rustix::net::SocketType::STREAM;
        let socket = rustix::net::socket_with(rustix::net::AddressFamily::UNIX, kind, flags, None).unwrap();
        let address = rustix::net::SocketAddrUnix::new(&path).unwrap();
        match rustix::net::connect(&socket, &address) {
            Ok(()) => queued.push(socket),
            Err(error) => break assert_eq!(error, rustix::io::Errno::AGAIN),
        }
    }
    let (sender, told) = std::sync::mpsc::channel();
    let mut client = control.client();
    thread::spawn(move || sender.send(client.change(&vpc("vpc-1")).unwrap().forwarding));
    let forwarding = told.recv_timeout(Duration::from_secs(120)).expect("the change is answered");
    assert!(matches!(forwarding, Forwarding::Pending { .. }), "{forwarding:?}");
}
