//! A disk without room, a real one: changes are refused, nothing else is lost, and room is all it takes to go on.

#![allow(clippy::unwrap_used)] // A test that cannot prepare its world has failed.

use control::client::{Client, ClientError};
use control::command::{Command as Change, GroupCreate, VpcCreate};
use control::query::{Answer, Nothing, Query};
use control::view::StatusView;
use harness::netns::{eventually, program};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

/// A Sluice whose state is on a small disk of its own, in a mount namespace. It ends with the value.
struct Small {
    folder: tempfile::TempDir,
    up: Child,
}

impl Small {
    fn start() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("\n*** NOT RUN: a disk of its own needs root\n");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        let mount = "mount -t tmpfs -o size=4m,mode=700 none \"$0\" && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", mount]).arg(folder.path().join("data")).arg(program());
        command.args(["up", "--listen", "none", "--no-pin", "--sessions-per-worker", "4096"]);
        command.env("SLUICE_RUN_DIR", folder.path().join("run")).env("SLUICE_DATA_DIR", folder.path().join("data"));
        let small = Self { up: command.spawn().unwrap(), folder };
        small.wait();
        Some(small)
    }

    fn wait(&self) {
        eventually("both planes run", || self.status().is_some_and(|status| status.link.in_sync));
    }

    fn client(&self) -> Option<Client> {
        Client::connect(&self.folder.path().join("run/control.sock")).ok()
    }

    fn status(&self) -> Option<StatusView> {
        match self.client()?.ask(&Query::Status(Nothing {})).ok()? {
            Answer::Status(status) => Some(*status),
            _ => None,
        }
    }

    /// The disk, as its processes see it.
    fn disk(&self) -> PathBuf {
        let data = self.folder.path().join("data");
        Path::new(&format!("/proc/{}/root", self.up.id())).join(data.strip_prefix("/").unwrap())
    }

    fn fill(&self) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.disk().join("filler")).unwrap();
        for size in [65_536, 4096, 1] {
            while file.write_all(&vec![7; size]).is_ok() {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.disk().join("filler")).unwrap();
    }

    fn crash_control(&self) {
        let before = self.status().unwrap().process_id;
        kill_process(Pid::from_raw(before as i32).unwrap(), Signal::KILL).unwrap();
        eventually("another control plane runs", || {
            self.status().is_some_and(|status| status.process_id != before && status.link.in_sync)
        });
    }

    fn groups(&self) -> BTreeSet<String> {
        match self.client().unwrap().ask(&Query::GroupList(Default::default())).unwrap() {
            Answer::Groups(groups) => groups.into_iter().map(|group| group.id.to_string()).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn create(&self, id: &str) -> Result<(), ClientError> {
        let description = "x".repeat(200);
        let create = GroupCreate {
            id: Some(id.into()),
            vpc: "vpc-1".into(),
            description: Some(description),
            ..GroupCreate::default()
        };
        self.client().unwrap().change(&Change::GroupCreate(create)).map(drop)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.up);
        let _ = kill_process(pid, Signal::TERM);
        let _ = self.up.wait();
    }
}

#[test]
fn a_full_disk_refuses_changes_until_it_has_room() {
    let Some(small) = Small::start() else { return };
    let vpc = VpcCreate { id: Some("vpc-1".into()), cidr: "10.0.0.0/16".into(), ..VpcCreate::default() };
    small.client().unwrap().change(&Change::VpcCreate(vpc)).unwrap();
    let mut kept: BTreeSet<String> = BTreeSet::new();
    for round in 0..3 {
        small.fill();
        let mut refused = None;
        for number in 0..3000 {
            let id = format!("sg-{round}-{number}");
            match small.create(&id) {
                Ok(()) => drop(kept.insert(id)),
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        let refused = refused.expect("the disk is full").to_string();
        assert!(refused.contains("No space left"), "{refused}");
        assert_eq!(small.groups(), kept, "refused is refused, and questions are answered");
        if round > 0 {
            // Also a process that starts on the full disk has all that was acknowledged.
            small.crash_control();
            assert_eq!(small.groups(), kept);
        }
        let process = small.status().unwrap().process_id;
        small.make_room();
        let id = format!("sg-room-{round}");
        small.create(&id).unwrap();
        kept.insert(id);
        assert_eq!(small.status().unwrap().process_id, process, "without a restart");
    }
    small.crash_control();
    assert_eq!(small.groups(), kept);
}

#[test]
fn a_file_that_may_grow_no_more_refuses_changes_until_it_may() {
    let Some(small) = Small::start() else { return };
    let vpc = VpcCreate { id: Some("vpc-1".into()), cidr: "10.0.0.0/16".into(), ..VpcCreate::default() };
    small.client().unwrap().change(&Change::VpcCreate(vpc)).unwrap();
    let process = small.status().unwrap().process_id;
    let limit = |current| {
        let pid = Pid::from_raw(process as i32);
        prlimit(pid, Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
    };
    limit(Some(4096));
    let refused = small.create("sg-1").unwrap_err().to_string();
    assert!(refused.contains("File too large"), "{refused}");
    assert!(small.create("sg-2").is_err() && small.groups().is_empty());
    limit(None);
    small.create("sg-3").unwrap();
    assert_eq!(small.groups().len(), 1);
    assert_eq!(small.status().unwrap().process_id, process);
}

/// Starts a control plane twice: on a disk with so much room, and once there is more. How each ended, and how much the disk
/// then held, KiB.
fn start_twice(room_kib: u64) -> (String, u64) {
    let folder = tempfile::tempdir().unwrap();
    let (run, data) = (folder.path().join("run"), folder.path().join("data"));
    std::fs::create_dir(&run).unwrap();
    std::fs::create_dir(&data).unwrap();
    let script = "
        mount -t tmpfs -o size=8m,mode=700 none \"$0\"
        head -c $((8 * 1048576 - $1 * 1024)) /dev/zero > \"$0/filler\"; shift
        timeout -k 120 2 \"$@\"; rm \"$0/filler\"
        timeout -k 120 2 \"$@\"; echo; echo second $?; echo used $(du -sk \"$0\" | cut -f 1)";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(&data).arg(room_kib.to_string()).arg(program());
    command.args(["control", "--listen", "127.0.0.1:0"]);
    command.env("SLUICE_RUN_DIR", &run).env("SLUICE_DATA_DIR", &data);
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let used = told.lines().find_map(|line| line.strip_prefix("used ")?.parse().ok()).unwrap();
    (told + &String::from_utf8_lossy(&output.stderr), used)
}

#[test]
fn a_start_that_found_no_room_hinders_no_later_one() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("\n*** NOT RUN: a disk of its own needs root\n");
        return;
    }
    let (_, whole_kib) = start_twice(8192);
    // Room for some of the files that a first start makes, and none for the next.
    std::thread::scope(|scope| {
        for room_kib in (0..whole_kib).step_by(4) {
            scope.spawn(move || {
                let (told, _) = start_twice(room_kib);
                // 124 is of `timeout`: it ran until then.
                let is_started = told.contains("second 124") || told.contains("second 0");
                assert!(is_started, "{room_kib} KiB: {told}");
            });
        }
    });
}
