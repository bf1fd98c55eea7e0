//! What a store promises: an acknowledged change outlives its process, damage is told and never taken for a fresh
//! start, and one process at a time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use control::model::{Event, Model, Quotas};
use control::store::{DataDirectory, EmbeddedStore, MemoryStore, Store, StoreError};
use serde_json::json;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use vswitch_core::config::ids::VpcId;

const CHILD_DIRECTORY: &str = "SLUICE_TEST_STORE_CHILD";

fn vpc(number: u64) -> Event {
    let vpc = json!({"cidr": "10.0.0.0/16", "ipv6_cidr": null, "name": format!("vpc-{number}"), "description": "",
        "routes": [], "created_s": number});
    Event::from_record(&format!("vpc/vpc-{number}"), vpc.to_string().as_bytes()).unwrap()
}

fn open(path: &Path) -> Result<EmbeddedStore, StoreError> {
    EmbeddedStore::open(DataDirectory::open(path)?)
}

fn load(path: &Path) -> Result<Model, StoreError> {
    Ok(Model::load(Quotas::default(), open(path)?.load()?))
}

fn model(numbers: impl Iterator<Item = u64>) -> Model {
    Model::load(Quotas::default(), numbers.map(vpc))
}

fn filled(path: &Path, count: u64) {
    let mut store = open(path).unwrap();
    for number in 0..count {
        store.append(&[vpc(number)]).unwrap();
    }
}

#[test]
fn every_store_gives_back_what_it_was_given() {
    let directory = tempfile::tempdir().unwrap();
    let embedded = open(directory.path()).unwrap();
    for mut store in [Box::new(MemoryStore::default()) as Box<dyn Store>, Box::new(embedded)] {
        assert_eq!(store.load().unwrap(), vec![]);
        store.append(&[vpc(1), vpc(2)]).unwrap();
        store.append(&[Event::Vpc(VpcId::from("vpc-1"), None), vpc(3), vpc(3)]).unwrap();
        store.append(&[Event::Vpc(VpcId::from("vpc-9"), None)]).unwrap();
        let loaded = Model::load(Quotas::default(), store.load().unwrap());
        assert_eq!(loaded, model([2, 3].into_iter()));
    }
    assert_eq!(load(directory.path()).unwrap(), model([2, 3].into_iter()));
}

/// Not a test of its own: the process that the next one kills.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Ok(path) = std::env::var(CHILD_DIRECTORY) else { return };
    let mut store = open(Path::new(&path)).unwrap();
    for number in 0.. {
        store.append(&[vpc(number)]).unwrap();
        println!("\nkept {number}");
    }
}

fn spawn_child(path: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_writes_until_it_is_killed", "--nocapture"])
        .env(CHILD_DIRECTORY, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn an_acknowledged_change_survives_kill_9() {
    for least in [1, 7, 40] {
        let directory = tempfile::tempdir().unwrap();
        let mut child = spawn_child(directory.path());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut kept = 0;
        for line in lines.map_while(Result::ok) {
            if let Some(number) = line.strip_prefix("kept ") {
                kept = number.parse::<u64>().unwrap() + 1;
                if kept == least {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        let mut store = open(directory.path()).unwrap();
        let loaded = store.load().unwrap().len() as u64;
        // The change that was in the making may be there or not; those acknowledged are.
        assert!(kept >= least && (kept..=kept + 1).contains(&loaded), "{kept} acknowledged, {loaded} found");
        store.append(&[vpc(1_000_000)]).unwrap();
    }
}

#[test]
fn a_second_process_is_refused_by_the_name_of_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = spawn_child(directory.path());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("kept")));
    let error = open(directory.path()).unwrap_err();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&child.id().to_string()) && text.contains(directory.path().to_str().unwrap()), "{text}");
    assert!(open(directory.path()).is_ok());
}

#[test]
fn damage_is_told_and_never_taken_for_a_fresh_start() {
    let pristine = tempfile::tempdir().unwrap();
    filled(pristine.path(), 40);
    let bytes = fs::read(pristine.path().join("state.redb")).unwrap();
    let whole = model(0..40);
    let try_with = |bytes: &[u8]| {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("format"), "1\n").unwrap();
        fs::write(directory.path().join("state.redb"), bytes).unwrap();
        load(directory.path())
    };
    assert_eq!(try_with(&bytes).unwrap(), whole);
    let is_told = |result: Result<Model, StoreError>, what: &str| match result {
        // Bytes that mean nothing, such as those of free pages, may change.
        Ok(model) => assert_eq!(model, whole, "{what}"),
        Err(error) => {
            assert!(matches!(error, StoreError::Damaged { .. } | StoreError::Format { .. }), "{what}: {error}");
            assert!(error.to_string().contains("backup"), "{what}: {error}");
        }
    };
    let mut damaged = 0;
    for offset in (0..200).chain((200..bytes.len()).step_by(bytes.len() / 400)) {
        let mut flipped = bytes.clone();
        flipped[offset] ^= 0x10;
        let result = try_with(&flipped);
        damaged += usize::from(result.is_err());
        is_told(result, &format!("byte {offset} flipped"));
    }
    assert!(damaged > 10, "only {damaged} flips were found");
    for length in [0, 1, 100, 4096, bytes.len() / 2] {
        assert!(try_with(&bytes[..length]).is_err(), "cut to {length} bytes");
    }
    assert!(try_with(&vec![0; bytes.len()]).is_err(), "zeroes");
    assert!(try_with(b"something else entirely").is_err());
    // A byte of every record's text.
    let text = b"vpc-17\"";
    for start in bytes.windows(text.len()).enumerate().filter(|(_, window)| window == text).map(|(place, _)| place) {
        let mut flipped = bytes.clone();
        flipped[start + 4] = b'9';
        is_told(try_with(&flipped), "a digit of a name");
    }
}

#[test]
fn a_state_that_vanished_or_is_of_another_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 3);
    fs::remove_file(directory.path().join("state.redb")).unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }) && error.to_string().contains("gone"), "{error}");
    fs::write(directory.path().join("format"), "2\n").unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::Format { .. }) && error.to_string().contains("format 2"), "{error}");
}

#[test]
fn a_first_start_that_was_cut_short_hinders_no_later_one() {
    let directory = tempfile::tempdir().unwrap();
    let format = directory.path().join("format");
    filled(directory.path(), 3);
    fs::write(&format, "").unwrap();
    fs::write(directory.path().join(".format.new"), "hal").unwrap();
    assert_eq!(load(directory.path()).unwrap(), model(0..3));
    assert_eq!(fs::read_to_string(&format).unwrap(), "1\n");
    assert!(!directory.path().join(".format.new").exists());
    // It is written once there is a state: without one, that is gone.
    fs::write(&format, "").unwrap();
    fs::remove_file(directory.path().join("state.redb")).unwrap();
    assert!(matches!(open(directory.path()), Err(StoreError::Damaged { .. })));
}
