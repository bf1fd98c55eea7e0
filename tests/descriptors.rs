//! Processes that have used up their descriptors: whoever knocks meanwhile is served once there is one, without knocking again.

#![allow(clippy::unwrap_used)] // A test that cannot prepare its world has failed.

use harness::netns::{eventually, is_well, own_address, sluice_command};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

/// How long a process that has nothing else to do has for letting go of connections.
const LET_GO: Duration = Duration::from_millis(100);

/// Both planes, each as its own process without a supervisor. They end with the value.
struct Planes {
    folder: tempfile::TempDir,
    address: SocketAddr,
    children: Vec<Child>,
}

impl Planes {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("run")).unwrap();
        let address = own_address(20_000..30_000);
        let start = |arguments: &[&str]| {
            let mut command = sluice_command(folder.path());
            command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let vswitch = start(&["vswitch", "--no-pin", "--sessions-per-worker", "4096"]);
        let control = start(&["control", "--listen", &address.to_string()]);
        let planes = Self { address, children: vec![vswitch, control], folder };
        eventually("both planes run", || is_well(planes.folder.path()));
        planes
    }

    fn socket(&self, name: &str) -> UnixStream {
        UnixStream::connect(self.folder.path().join("run").join(name)).unwrap()
    }
}

impl Drop for Planes {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Leaves a process no descriptor more than it has.
fn use_up(pid: Pid) {
    let folder = format!("/proc/{pid}/fd");
    let first_free = (0..).find(|number| !Path::new(&folder).join(number.to_string()).exists()).unwrap();
    set_limit(pid, first_free);
}

fn set_limit(pid: Pid, current: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(current), maximum }).unwrap();
}

/// Asks while there is no descriptor for the connection; the answer comes once there is one.
fn assert_served_later<S: Read + Write>(child: &Child, connect: impl Fn() -> S, question: &str, answer: &str) {
    let pid = Pid::from_child(child);
    let mut room = [0; 4096];
    for _ in 0..200 {
        // Time for the process to let go of whoever was connected before. Where that is too short, it is tried again.
        std::thread::sleep(LET_GO);
        use_up(pid);
        let mut stream = connect();
        stream.write_all(question.as_bytes()).unwrap();
        let early = stream.read(&mut room);
        set_limit(pid, 1024);
        if early.is_ok() {
            // A connection from before ended meanwhile, and left its descriptor.
            continue;
        }
        let mut told = Vec::new();
        return eventually("it is served", || {
            let count = stream.read(&mut room).unwrap_or(0);
            told.extend_from_slice(&room[..count]);
            String::from_utf8_lossy(&told).contains(answer)
        });
    }
    panic!("there was a descriptor every time, and the test proves nothing");
}

#[test]
fn whoever_knocks_while_descriptors_are_used_up_is_served_later() {
    const SHORT: Option<Duration> = Some(Duration::from_millis(300));
    let planes = Planes::start();
    let [vswitch, control] = &planes.children[..] else { panic!("two planes") };
    let socket = |name: &'static str| {
        let planes = &planes;
        move || {
            let stream = planes.socket(name);
            stream.set_read_timeout(SHORT).unwrap();
            stream
        }
    };
    let endpoint = || {
        let stream = TcpStream::connect(planes.address).unwrap();
        stream.set_read_timeout(SHORT).unwrap();
        stream
    };
    for _ in 0..2 {
        let status = "{\"version\":1,\"id\":1,\"op\":\"status\"}\n";
        assert_served_later(vswitch, socket("vswitch.sock"), status, "process_id");
        let list = "{\"version\":1,\"request\":1,\"op\":\"vpc-list\"}\n";
        assert_served_later(control, socket("control.sock"), list, "answered");
        assert_served_later(control, endpoint, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 4");
    }
}
