//! What the processes of Sluice may do: the kernel's word against `docs/privileges.md`, and filters of system calls that end
//! whoever makes a forbidden one.

#![allow(clippy::unwrap_used)] // A test that cannot prepare its world has failed.

use control::os::privileges::{Role, install_filter};
use harness::netns::{RunningSluice, can_run, eventually, is_well, own_address, program};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsOpenFlags, MountFlags, UnmountFlags, fsopen, mount, mount_bind, unmount};
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, kill_process, pidfd_getfd, pidfd_open};
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces};
use serde_json::Value;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

const FORWARDING: [&str; 5] = ["CAP_CHOWN", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_SYS_ADMIN"];
const SUPERVISOR: [&str; 10] = [
    "CAP_CHOWN",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_SYS_ADMIN",
];

/// The processes, with their effective, permitted and bounding sets.
const HELD: [(&str, [&[&str]; 3]); 4] = [
    ("supervisor", [&[], &SUPERVISOR, &SUPERVISOR]),
    ("forwarding plane", [&FORWARDING, &FORWARDING, &FORWARDING]),
    ("control plane", [&[], &[], &[]]),
    ("services process", [&[], &[], &[]]),
];

fn shown(running: &RunningSluice) -> Vec<Value> {
    let shown = running.sluice(&["status", "--privileges", "--json"]);
    assert!(shown.status.success(), "{shown:?}");
    serde_json::from_slice(&shown.stdout).unwrap()
}

fn assert_held(running: &RunningSluice, when: &str) {
    let shown = shown(running);
    assert_eq!(shown.len(), HELD.len(), "{when}");
    for ((name, [effective, permitted, bounding]), process) in HELD.into_iter().zip(shown) {
        let what = format!("{name} {when}: {process}");
        assert_eq!(process["name"], name);
        let held = &process["privileges"];
        assert_eq!(held["effective"], Value::from(effective), "{what}");
        assert_eq!(held["permitted"], Value::from(permitted), "{what}");
        assert_eq!(held["bounding"], Value::from(bounding), "{what}");
        assert_eq!((&held["inheritable"], &held["ambient"]), (&Value::Array(vec![]), &Value::Array(vec![])), "{what}");
        assert_eq!((&held["no_new_privs"], &held["seccomp"]), (&true.into(), &"filter".into()), "{what}");
        let user = if name == "services process" { "nobody" } else { "root" };
        assert_eq!(held["user"], user, "{what}");
        let told = std::fs::read_to_string(format!("/proc/{}/status", process["process_id"])).unwrap();
        assert!(told.contains("Umask:\t0077"), "{what}");
        // What one thread holds says nothing of the others.
        let tasks = std::fs::read_dir(format!("/proc/{}/task", process["process_id"])).unwrap();
        let field = |text: &str, name: &str| text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        for task in tasks.flatten() {
            let Ok(own) = std::fs::read_to_string(task.path().join("status")) else { continue };
            for name in ["CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp:"] {
                assert_eq!(field(&own, name), field(&told, name), "{what}, thread {:?}", task.file_name());
            }
        }
    }
}

/// A port that only `CAP_NET_BIND_SERVICE` gives.
fn low_address() -> String {
    own_address(600..1024).to_string()
}

#[test]
fn each_process_holds_what_the_page_says_and_no_more() {
    if !can_run(&[]) {
        return;
    }
    let mut running = RunningSluice::start_as(&["--listen", &low_address()]);
    assert_held(&running, "at first");
    for plane in ["control", "vswitch", "services"] {
        let before = running.process(plane);
        running.crash(plane);
        eventually("another process", || is_well(running.folder()) && running.process(plane) != before);
        assert_held(&running, &format!("after a crash of {plane}"));
    }
    let page = include_str!("../docs/privileges.md");
    for (name, sets) in HELD {
        let row = page.lines().find(|line| line.starts_with(&format!("| {name} |"))).unwrap();
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        for (set, cell) in sets.into_iter().zip(&cells[2..]) {
            let words = if set.is_empty() { "none".to_owned() } else { set.join(", ").replace("CAP_", "") };
            assert_eq!(*cell, words, "docs/privileges.md, {name}");
        }
    }
    // Nobody waits for the process: it is still in `/proc`, and runs no more.
    let (supervisor, control) = (running.process("up"), running.process("control"));
    kill_process(supervisor, Signal::STOP).unwrap();
    kill_process(control, Signal::KILL).unwrap();
    eventually("the control plane is gone", || !is_well(running.folder()));
    let told = running.sluice(&["status", "--privileges"]);
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(!told.status.success() && text.contains("does NOT run"), "{text}");
    kill_process(supervisor, Signal::CONT).unwrap();
}

#[test]
fn planes_get_no_environment_and_no_files_of_whoever_starts_sluice() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "").unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "exec 9<\"$0\"; exec \"$@\""]).arg(&secret).arg(program());
    command.env("SLUICE_RUN_DIR", folder.path().join("run")).env("SLUICE_DATA_DIR", folder.path().join("data"));
    command.env("SECRET", "hidden").stdout(Stdio::null());
    command.args(["up", "--listen", "none", "--no-pin", "--sessions-per-worker", "4096"]);
    let mut up = command.spawn().unwrap();
    eventually("Sluice is ready", || is_well(folder.path()));
    let status = harness::netns::status_of(folder.path()).unwrap();
    let has_secret = |process: u32| {
        let files = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten();
        files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|file| file == secret)
    };
    assert!(has_secret(up.id()), "the test proves nothing");
    for process in [status.process_id, status.forwarding.unwrap().process_id] {
        let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap();
        let names = environment.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
        let others: Vec<_> = names.filter(|entry| !entry.starts_with(b"RUST_BACKTRACE=")).collect();
        assert!(others.is_empty(), "{}", String::from_utf8_lossy(&others.concat()));
        assert!(!has_secret(process));
    }
    Command::new("kill").arg(up.id().to_string()).status().unwrap();
    assert!(up.wait().unwrap().success());
}

#[test]
fn namespaces_are_for_everybody_to_look_at_whatever_the_umask() {
    if !can_run(&[]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // A machine that has just booted: nobody made the folders yet.
    const SCRIPT: &str = r#"
        set -e
        umask 077
        mount -t tmpfs none /run
        "$0" up --listen none --no-pin --sessions-per-worker 4096 > /dev/null &
        up=$!
        trap 'kill $up 2> /dev/null || true' EXIT
        until "$0" status > /dev/null 2>&1; do kill -0 $up; sleep 0.1; done
        "$0" vpc create --id vpc-1 --cidr 10.0.0.0/16
        "$0" vswitch create --id vsw-1 --vpc vpc-1 --cidr 10.0.1.0/24
        "$0" sg create --id sg-1 --vpc vpc-1
        "$0" eni create --id eni-1 --vswitch vsw-1 --ip 10.0.1.10 --group sg-1 --namespace guest
        stat -c 'mode %a %n' /run/netns /run/sluice /run/sluice/namespaces /run/sluice/devices
        "$0" down
    "#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", SCRIPT]).arg(program()).env("SLUICE_DATA_DIR", folder.path().join("data"));
    let output = command.env_remove("SLUICE_RUN_DIR").output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}{errors}");
    let modes: Vec<&str> = told.lines().filter(|line| line.starts_with("mode ")).collect();
    assert_eq!(modes.len(), 4, "{told}{errors}");
    assert!(modes.iter().all(|line| line.starts_with("mode 755 ")), "{told}");
}

/// What came of a call is nothing to the filter.
fn tried<T>(_result: T) {}

/// Makes a system call, whatever comes of it.
fn call(name: &str) {
    let own = || Pid::from_raw(std::process::id().cast_signed()).unwrap();
    let network = || rustix::fs::open("/proc/self/ns/net", OFlags::RDONLY, Mode::empty()).unwrap();
    let nowhere = "/nonexistent";
    match name {
        "execve" => tried(Command::new("/bin/true").exec()),
        "chroot" => tried(rustix::process::chroot(nowhere)),
        "pivot_root" => tried(rustix::process::pivot_root(nowhere, nowhere)),
        "fsopen" => tried(fsopen("tmpfs", FsOpenFlags::empty())),
        "pidfd_getfd" => {
            let process = pidfd_open(own(), PidfdFlags::empty()).unwrap();
            tried(pidfd_getfd(process, 0, PidfdGetfdFlags::empty()));
        }
        "mount bind" => tried(mount_bind(nowhere, nowhere)),
        "mount new" => tried(mount(nowhere, nowhere, "tmpfs", MountFlags::empty(), None)),
        "umount" => tried(unmount(nowhere, UnmountFlags::DETACH)),
        "umount force" => tried(unmount(nowhere, UnmountFlags::FORCE)),
        "setns network" => tried(move_into_link_name_space(network().as_fd(), Some(LinkNameSpaceType::Network))),
        "setns other" => {
            tried(move_into_thread_name_spaces(network().as_fd(), ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME))
        }
        "bpf" => tried(vswitch::os::sys::create_socket_map()),
        "io_uring_setup" => tried(vswitch::os::io_uring::BatchRing::new()),
        "socket packet" => tried(socket(AddressFamily::PACKET, SocketType::DGRAM, None)),
        "socket vsock" => tried(socket(AddressFamily::VSOCK, SocketType::STREAM, None)),
        "socket inet" => tried(socket(AddressFamily::INET, SocketType::STREAM, None).unwrap()),
        "open" => tried(std::fs::File::open("/dev/null").unwrap()),
        "thread" => tried(std::thread::spawn(|| 1).join().unwrap()),
        "unlisted" => {
            let refused = rustix::fs::memfd_create("unlisted", rustix::fs::MemfdFlags::empty());
            assert_eq!(refused.unwrap_err(), rustix::io::Errno::NOSYS);
        }
        other => panic!("{other}"),
    }
}

const ROLES: [Role; 3] = [Role::Supervisor, Role::Forwarding, Role::Control];

/// Not a test of its own: what [`a_forbidden_call_ends_the_process`] runs as a process of its own.
#[test]
#[ignore = "a process that another test starts"]
fn filtered_process() {
    let Ok(wanted) = std::env::var("FILTERED_CALL") else { return };
    let (verb, name) = wanted.split_once(' ').unwrap();
    let role = ROLES.into_iter().find(|role| role.verb() == verb).unwrap();
    // The call comes from a thread that ran before there was a filter.
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            told.recv().unwrap();
            call(name);
        });
        install_filter(role).unwrap();
        tell.send(()).unwrap();
    });
}

#[test]
fn a_forbidden_call_ends_the_process() {
    const EVERYWHERE: [&str; 8] =
        ["chroot", "pivot_root", "fsopen", "pidfd_getfd", "socket vsock", "mount new", "umount force", "setns other"];
    const FORWARDING_ONLY: [&str; 6] =
        ["mount bind", "umount", "setns network", "bpf", "io_uring_setup", "socket packet"];
    const ALLOWED: [&str; 4] = ["socket inet", "open", "thread", "unlisted"];
    for role in ROLES {
        let is_control = role == Role::Control;
        let own = FORWARDING_ONLY.map(|name| (name, is_control));
        let programs = [("execve", role != Role::Supervisor)];
        let cases = EVERYWHERE.map(|name| (name, true)).into_iter().chain(own).chain(programs);
        for (name, is_killed) in cases.chain(ALLOWED.map(|name| (name, false))) {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "filtered_process", "--ignored", "--test-threads", "1"]);
            let output = command.env("FILTERED_CALL", format!("{} {name}", role.verb())).output().unwrap();
            let what = format!("{role:?}: {name}: {}", String::from_utf8_lossy(&output.stdout));
            let ended = if is_killed { Some(Signal::SYS.as_raw()) } else { None };
            assert_eq!(output.status.signal(), ended, "{what}");
            assert!(is_killed || output.status.success(), "{what}");
        }
    }
}
