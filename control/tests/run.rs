//! A whole control plane in a process of its own: killed, started again, stopped by a signal, started twice.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use control::client::Client;
use control::command::{Command, VpcCreate};
use control::query::{Answer, Nothing, Query};
use control::{ControlConfig, run};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const CHILD_DIRECTORY: &str = "SLUICE_TEST_RUN_CHILD";

/// Not a test of its own: the process that the others start.
#[test]
fn child_that_runs_until_it_is_told_to_stop() {
    let Ok(directory) = std::env::var(CHILD_DIRECTORY) else { return };
    let path = |name: &str| Path::new(&directory).join(name);
    if let Err(error) = run(&ControlConfig::new(path("data"), path("control.sock"), path("vswitch.sock"))) {
        eprintln!("refused: {error}");
        std::process::exit(3);
    }
}

fn spawn(directory: &Path) -> Child {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_runs_until_it_is_told_to_stop", "--nocapture"])
        .env(CHILD_DIRECTORY, directory)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn client(directory: &Path) -> Client {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        match Client::connect(&directory.join("control.sock")) {
            Ok(client) => return client,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn add_vpc(client: &mut Client, number: usize) {
    let id = Some(format!("vpc-{number}"));
    let create = VpcCreate { id, cidr: "10.0.0.0/16".into(), ..VpcCreate::default() };
    client.change(&Command::VpcCreate(create)).unwrap();
}

fn vpc_count(client: &mut Client) -> usize {
    match client.ask(&Query::VpcList(Nothing {})).unwrap() {
        Answer::Vpcs(vpcs) => vpcs.len(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_acknowledged_is_there_after_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let mut child = spawn(directory.path());
        let mut client = client(directory.path());
        assert_eq!(vpc_count(&mut client), round);
        add_vpc(&mut client, round);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_second_control_plane_is_refused_and_a_signal_ends_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = spawn(directory.path());
    add_vpc(&mut client(directory.path()), 1);
    let second = spawn(directory.path()).wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(3), "{told}");
    assert!(told.contains("in use by process") && told.contains(&first.id().to_string()), "{told}");
    assert_eq!(vpc_count(&mut client(directory.path())), 1);
    let pid = rustix::process::Pid::from_child(&first);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(first.wait().unwrap().success());
    assert!(!directory.path().join("control.sock").exists());
}
