//! What ends, and in which order, without taking guests down: signals, crashes, closed pipes, and planes that cannot start.

#![allow(clippy::unwrap_used)] // A test that cannot prepare its world has failed.

use harness::netns::{
    Namespace, RunningSluice, can_run, eventually, is_well, own_address, program, sluice_command, status_of,
};
use rustix::process::{Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use vswitch::os::namespace::{self, Identity};

const LAB: &str = r#"
    vpc = [{ id = "vpc-1", cidr = "10.0.0.0/16" }]
    vswitch = [{ id = "vsw-1", vpc = "vpc-1", cidr = "10.0.1.0/24" }]
    [[group]]
    id = "sg-1"
    vpc = "vpc-1"
    [[eni]]
    id = "eni-a"
    vswitch = "vsw-1"
    ip = "10.0.1.10"
    groups = ["sg-1"]
    namespace = "@-a"
    [[eni]]
    id = "eni-b"
    vswitch = "vsw-1"
    ip = "10.0.1.20"
    groups = ["sg-1"]
    namespace = "@-b"
"#;

/// A Sluice with two guests that reach each other, or a loud word why not.
fn lab(arguments: &[&str]) -> Option<RunningSluice> {
    if !can_run(&[]) {
        return None;
    }
    let running = RunningSluice::start_as(arguments);
    running.apply(LAB);
    assert_guests_talk(&running, "at first");
    Some(running)
}

fn talks(running: &RunningSluice) -> bool {
    running.inside("a", &["ping", "-q", "-c", "1", "-W", "1", "10.0.1.20"]).status.success()
}

fn assert_guests_talk(running: &RunningSluice, when: &str) {
    eventually(&format!("guests talk {when}"), || talks(running));
}

fn identities(running: &RunningSluice) -> [Identity; 2] {
    ["a", "b"].map(|guest| namespace::identity(&running.namespace(guest)).expect("the guest's namespace is there"))
}

/// The device of a guest with its addresses, and the routes there, as the kernel tells them.
fn device(running: &RunningSluice) -> [String; 2] {
    let ip = |arguments: &[&str]| {
        let output = running.inside("a", &[&["ip", "-o"], arguments].concat()).stdout;
        String::from_utf8_lossy(&output).replace("linkdown ", "")
    };
    [ip(&["-4", "address", "show", "dev", "eth0"]), ip(&["route"])]
}

/// A program that a guest runs. It ends with the value.
struct GuestProgram(Child);

impl GuestProgram {
    fn start(running: &RunningSluice) -> Self {
        Self(running.inside_command("a", &["sleep", "600"]).spawn().unwrap())
    }
}

impl Drop for GuestProgram {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn no_end_of_a_process_takes_from_a_guest_what_it_has() {
    let Some(mut running) = lab(&["--listen", "none"]) else { return };
    assert!(running.inside("a", &["ip", "address", "add", "10.77.0.1/24", "dev", "eth0"]).status.success());
    let (was, device_was) = (identities(&running), device(&running));
    assert!(device_was[0].contains("10.0.1.10") && device_was[1].contains("default via"), "{device_was:?}");
    let mut program = GuestProgram::start(&running);
    for (process, signal) in [
        ("vswitch", Signal::KILL),
        ("vswitch", Signal::TERM),
        ("control", Signal::TERM),
        ("control", Signal::KILL),
        ("up", Signal::TERM),
        ("up", Signal::KILL),
        ("up", Signal::INT),
    ] {
        let what = format!("after {signal:?} of {process}");
        let before = running.process(process);
        running.signal(process, signal);
        eventually("it is gone", || !is_alive(before));
        assert_eq!((identities(&running), device(&running)), (was, device_was.clone()), "{what}");
        match process {
            "up" => running.start_again(),
            plane => {
                eventually("another process", || is_well(running.folder()) && running.process(plane) != before);
                running.wait_until_ready();
            }
        }
        assert_eq!((identities(&running), device(&running)), (was, device_was.clone()), "{what}");
        assert_guests_talk(&running, &what);
    }
    running.restart_violently();
    assert_eq!((identities(&running), device(&running)), (was, device_was));
    assert_guests_talk(&running, "after everything was killed");
    assert!(program.0.try_wait().unwrap().is_none(), "the guest's program runs on");
}

#[test]
fn what_was_made_goes_with_its_eni_or_when_told_to() {
    let Some(mut running) = lab(&["--listen", "none"]) else { return };
    let there = |running: &RunningSluice, guest: &str| namespace::identity(&running.namespace(guest)).is_ok();
    // Also an ENI that is deleted by a later process, and while no forwarding plane runs.
    running.restart_violently();
    assert!(running.sluice(&["eni", "delete", "eni-a", "--force"]).status.success());
    assert!(!there(&running, "a") && there(&running, "b"));
    running.apply(LAB);
    running.signal("up", Signal::STOP);
    let forwarding = running.process("vswitch");
    kill_process(forwarding, Signal::KILL).unwrap();
    eventually("the forwarding plane is gone", || running.status().forwarding.is_none());
    let deleted = running.sluice(&["eni", "delete", "eni-a", "--force"]);
    assert!(String::from_utf8_lossy(&deleted.stdout).contains("NOT in force yet"), "{deleted:?}");
    assert!(there(&running, "a"));
    kill_process(running.process("up"), Signal::CONT).unwrap();
    eventually("the namespace is removed", || !there(&running, "a"));
    assert!(there(&running, "b"));
    let down = running.sluice(&["down"]);
    assert!(down.status.success() && String::from_utf8_lossy(&down.stdout).contains("-b removed"), "{down:?}");
    assert!(!there(&running, "b"));
    assert!(!running.sluice(&["status"]).status.success());
}

/// An interface that exists is kept from the kernel that hosts it for as long as its ENI exists.
#[test]
fn an_interface_that_is_a_port_is_given_back_when_told_to_and_by_no_stop() {
    let Some(mut running) = lab(&["--listen", "none"]) else { return };
    let host = Namespace::make(running.namespace("host"));
    let made = running.inside("host", &["ip", "link", "add", "port0", "type", "veth", "peer", "name", "port1"]);
    assert!(made.status.success(), "{made:?}");
    let is_shut = || namespace::within(&host.0, || Ok(vswitch::os::isolation::is_isolated("port0"))).unwrap();
    running.apply(&LAB.replace(r#"namespace = "@-b""#, "namespace = \"@-host\"\nhost_interface = \"port0\""));
    assert!(is_shut());
    for signal in [Signal::TERM, Signal::KILL] {
        for process in ["vswitch", "up"] {
            let before = running.process(process);
            running.signal(process, signal);
            eventually("it is gone", || !is_alive(before));
            assert!(is_shut(), "after {signal:?} of {process}");
            if process == "up" {
                running.start_again();
            }
            running.wait_until_ready();
            assert!(is_shut(), "another process after {signal:?} of {process}");
        }
    }
    let down = running.sluice(&["down"]);
    let told = String::from_utf8_lossy(&down.stdout).into_owned();
    assert!(
        down.status.success() && told.contains(&format!("interface port0 in {} returned to the kernel", host.0)),
        "{down:?}"
    );
    assert!(!is_shut());
}

#[test]
fn planes_outlive_their_supervisor_and_the_next_one_takes_them_over() {
    let Some(mut running) = lab(&["--listen", "none"]) else { return };
    let forwarding = running.process("vswitch");
    let supervisor = running.process("up");
    running.signal("up", Signal::KILL);
    eventually("the supervisor is gone", || !is_alive(supervisor));
    assert_guests_talk(&running, "without a supervisor");
    running.start_again();
    assert_eq!(running.process("vswitch"), forwarding, "it stays, with its sessions");
    assert_eq!(processes_of(&running, "vswitch"), 1);
    assert_eq!(processes_of(&running, "control"), 1);
    // Started in another way, it is not the one that is wanted.
    running.signal("up", Signal::KILL);
    running.set_arguments(&["--listen", "none", "--workers", "2"]);
    running.start_again();
    assert_ne!(running.process("vswitch"), forwarding);
    assert_eq!(running.status().forwarding.unwrap().workers.len(), 2);
    assert_eq!((processes_of(&running, "vswitch"), processes_of(&running, "control")), (1, 1));
    assert_guests_talk(&running, "by another forwarding plane");
    // One that was taken over is looked after as any other.
    let taken_over = running.process("vswitch");
    running.signal("up", Signal::KILL);
    running.start_again();
    let control = running.process("control");
    running.crash("control");
    eventually("another control plane runs", || !is_alive(control) && is_well(running.folder()));
    running.crash("vswitch");
    eventually("another one runs", || is_well(running.folder()) && running.process("vswitch") != taken_over);
    assert_guests_talk(&running, "after a crash of one that was taken over");
}

/// Whether a thread of the process still runs. Its first thread may be a zombie while another one, which shares its
/// sockets and files, is yet to end.
fn is_alive(process: rustix::process::Pid) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return false };
    let runs = |thread: std::fs::DirEntry| {
        std::fs::read_to_string(thread.path().join("stat")).is_ok_and(|stat| !stat.contains(") Z"))
    };
    threads.flatten().any(runs)
}

/// How many processes of a plane run on the folders of this Sluice.
fn processes_of(running: &RunningSluice, verb: &str) -> usize {
    let run_dir = running.folder().join("run").display().to_string();
    let command_line = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("cmdline")).ok();
    let lines = std::fs::read_dir("/proc").unwrap().flatten().filter_map(command_line);
    lines.filter(|line| line.split('\0').nth(1) == Some(verb) && line.split('\0').any(|word| word == run_dir)).count()
}

/// Has the control plane crash, with `change` made before it is started again.
fn crash_control(running: &RunningSluice, change: impl FnOnce()) {
    let control = running.process("control");
    running.signal("up", Signal::STOP);
    kill_process(control, Signal::KILL).unwrap();
    eventually("the control plane is gone", || !is_alive(control));
    change();
    kill_process(running.process("up"), Signal::CONT).unwrap();
}

/// The control plane does not start for a reason in which `reason` is found, forwarding does not mind, and once `mend` was
/// done everything is as before.
fn assert_forwarding_does_not_mind(running: &mut RunningSluice, reason: &str, mend: impl FnOnce()) {
    let forwarding = || {
        let status = running.sluice(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
        status["forwarding"]["process_id"].as_u64()
    };
    eventually("the reason is told", || {
        let status = running.sluice(&["status"]);
        let told = String::from_utf8_lossy(&status.stdout).into_owned();
        assert!(!status.status.success(), "{told}");
        told.contains(reason) && told.contains("times")
    });
    let before = forwarding();
    assert!(before.is_some());
    assert!(talks(running), "{reason}");
    mend();
    running.wait_until_ready();
    assert_eq!(running.status().forwarding.map(|status| u64::from(status.process_id)), before, "{reason}");
    assert!(running.sluice(&["status"]).status.success());
    assert_eq!(running.status().objects.enis, 2);
}

#[test]
fn a_control_plane_that_cannot_start_leaves_forwarding_alone() {
    let address = own_address(20_000..30_000);
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("settings.toml");
    std::fs::write(&settings, "").unwrap();
    let arguments = ["--listen", &address.to_string(), "--config", &settings.display().to_string()];
    let Some(mut running) = lab(&arguments) else { return };

    let mut taken = None;
    // A thread that the list of threads did not show may have held the socket for a moment more.
    crash_control(&running, || {
        eventually("its address is free", || {
            taken = TcpListener::bind(address).ok();
            taken.is_some()
        })
    });
    assert_forwarding_does_not_mind(&mut running, "cannot listen on", || drop(taken));

    crash_control(&running, || std::fs::write(&settings, "workers = \"many\"").unwrap());
    assert_forwarding_does_not_mind(&mut running, "settings.toml", || std::fs::write(&settings, "").unwrap());

    let state = running.data_dir().join("state.redb");
    let mut whole = Vec::new();
    crash_control(&running, || {
        whole = std::fs::read(&state).unwrap();
        std::fs::write(&state, b"something else").unwrap();
    });
    assert_forwarding_does_not_mind(&mut running, "is damaged", || std::fs::write(&state, &whole).unwrap());

    // A disk that is not mounted looks like a first start, and would end all that runs.
    let data = running.data_dir();
    let elsewhere = data.with_extension("away");
    crash_control(&running, || std::fs::rename(&data, &elsewhere).unwrap());
    assert_forwarding_does_not_mind(&mut running, "the file is gone", || {
        std::fs::remove_dir_all(&data).unwrap();
        std::fs::rename(&elsewhere, &data).unwrap();
    });

    // A folder that is read-only for everybody: another file system over it.
    let data = running.data_dir();
    let mount = |options: &[&str]| assert!(Command::new("mount").args(options).arg(&data).status().unwrap().success());
    crash_control(&running, || {
        mount(&["--bind", &data.display().to_string()]);
        mount(&["-o", "remount,bind,ro"]);
    });
    assert_forwarding_does_not_mind(&mut running, "Read-only file system", || {
        assert!(Command::new("umount").arg(&data).status().unwrap().success());
    });
}

#[test]
fn the_same_errors_refuse_a_fresh_start_at_once() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let up = sluice_command(folder.path()).args(["up", "--no-pin", "--listen", &address]).output().unwrap();
    let told = String::from_utf8_lossy(&up.stderr).into_owned();
    assert_eq!(up.status.code(), Some(2), "{told}");
    assert!(told.contains(&address), "{told}");
    assert!(!folder.path().join("run/vswitch.sock").exists(), "the other plane is ended");
}

#[test]
fn a_program_that_was_replaced_starts_its_planes_nevertheless() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("sluice");
    // By a process of its own: what another test starts meanwhile would inherit the copy, open for writing, and it could not run.
    assert!(Command::new("cp").arg(program()).arg(&copy).status().unwrap().success());
    let mut up = up_of(&copy, folder.path(), Stdio::null(), Stdio::null());
    wait_for_status(folder.path());
    for replaced in [true, false] {
        std::fs::remove_file(&copy).unwrap();
        if replaced {
            std::fs::write(&copy, "#!/bin/false\n").unwrap();
        }
        for plane in ["forwarding", "control"] {
            crash(folder.path(), plane);
            wait_for_status(folder.path());
        }
        std::fs::write(&copy, "").unwrap();
    }
    end(&mut up, folder.path());
}

#[test]
fn readers_that_are_gone_or_do_not_read_end_nothing() {
    for reads_on in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let errors = OwnedFd::from(writer.try_clone().unwrap());
        let mut up = up_of(&program(), folder.path(), OwnedFd::from(writer).into(), errors.into());
        let mut reader = BufReader::new(reader);
        let mut line = String::new();
        // As `sluice up 2>&1 | head -1` does.
        reader.read_line(&mut line).unwrap();
        let kept = reads_on.then_some(reader);
        wait_for_status(folder.path());
        if kept.is_some() {
            fill(&up);
        }
        for plane in ["control", "forwarding", "control"] {
            crash(folder.path(), plane);
            wait_for_status(folder.path());
        }
        assert!(up.try_wait().unwrap().is_none());
        end(&mut up, folder.path());
    }
}

#[test]
fn what_is_kept_is_private_and_nothing_secret_is_told() {
    let folder = tempfile::tempdir().unwrap();
    // Files are private whatever the umask, and the folder of the sockets is open for whoever may connect.
    for umask in ["0", "077"] {
        let folder = folder.path().join(umask);
        std::fs::create_dir(&folder).unwrap();
        let told = folder.join("told");
        let script = "umask $0; exec \"$@\" > told 2>&1";
        let mut command = Command::new("sh");
        command.current_dir(&folder).args(["-c", script, umask]).arg(program());
        command.env("SLUICE_RUN_DIR", folder.join("run")).env("SLUICE_DATA_DIR", folder.join("data"));
        command.args(["up", "--listen", "127.0.0.1:0", "--no-pin", "--sessions-per-worker", "4096"]);
        let mut up = command.spawn().unwrap();
        wait_for_status(&folder);
        let mut files = 0;
        for entry in ["run", "data"].iter().flat_map(|part| std::fs::read_dir(folder.join(part)).unwrap()) {
            let entry = entry.unwrap();
            let (metadata, name) = (entry.metadata().unwrap(), entry.file_name());
            let mode = metadata.permissions().mode() & 0o777;
            // The services process has a user of its own: these look at who connects.
            let is_for_services = ["frames.sock", "records.sock"].iter().any(|socket| name == *socket);
            let is_lock = name == "up.lock" || name == "services.lock";
            let is_open = is_for_services || (is_lock && mode & 0o022 == 0);
            assert!(is_open || mode & 0o077 == 0, "umask {umask}: {name:?} has mode {mode:o}");
            files += usize::from(metadata.is_file());
        }
        assert!(files >= 6, "{files}");
        assert_eq!(std::fs::metadata(folder.join("run")).unwrap().permissions().mode() & 0o777, 0o755);
        let key = std::fs::read_to_string(folder.join("data/access-key.toml")).unwrap();
        let secret = key.lines().find_map(|line| line.strip_prefix("secret = ")).unwrap().trim_matches('"').to_owned();
        let told = std::fs::read_to_string(told).unwrap();
        assert!(told.contains("access-key.toml") && !told.contains(&secret), "{told}");
        end(&mut up, &folder);
    }
    // What others may change is refused, with the way out.
    for part in ["run", "data"] {
        let folder = folder.path().join(format!("open-{part}"));
        std::fs::create_dir_all(folder.join(part)).unwrap();
        std::fs::set_permissions(folder.join(part), std::fs::Permissions::from_mode(0o777)).unwrap();
        let up = sluice_command(&folder).args(["up", "--listen", "none", "--no-pin"]).output().unwrap();
        let told = String::from_utf8_lossy(&up.stderr).into_owned();
        assert_eq!(up.status.code(), Some(2), "{told}");
        assert!(told.contains("others may write to it") && told.contains("chmod go-w"), "{told}");
    }
}

/// Fills the pipe that a process has for its errors.
fn fill(process: &Child) {
    let path = format!("/proc/{}/fd/2", process.id());
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
    let pipe = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).unwrap();
    for size in [4096, 1] {
        while rustix::io::write(&pipe, &vec![b'x'; size]).is_ok() {}
    }
}

/// A `sluice up` of a certain program, without guests.
fn up_of(program: &Path, folder: &Path, output: Stdio, errors: Stdio) -> Child {
    let mut command = Command::new(program);
    command.env("SLUICE_RUN_DIR", folder.join("run")).env("SLUICE_DATA_DIR", folder.join("data"));
    command.args(["up", "--listen", "none", "--no-pin", "--sessions-per-worker", "4096"]);
    command.stdout(output).stderr(errors).spawn().unwrap()
}

fn wait_for_status(folder: &Path) {
    eventually("both planes run", || is_well(folder));
}

/// Kills a plane, and waits until it is gone.
fn crash(folder: &Path, plane: &str) {
    let status = status_of(folder).unwrap();
    let id = if plane == "control" { status.process_id } else { status.forwarding.unwrap().process_id };
    let id = rustix::process::Pid::from_raw(id as i32).unwrap();
    kill_process(id, Signal::KILL).unwrap();
    eventually("the plane is gone", || !is_alive(id));
}

fn end(up: &mut Child, folder: &Path) {
    assert!(sluice_command(folder).arg("down").status().unwrap().success());
    eventually("it ends", || up.try_wait().unwrap().is_some());
}
