//! A disk that fails: what was acknowledged is never lost, what was refused does not come back, and once the disk is well the
//! store is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use control::model::{Event, Model, Quotas};
use control::store::{DataDirectory, EmbeddedStore, OpenFile, Store};
use redb::{BackendError, StorageBackend};
use serde_json::json;
use std::collections::BTreeSet;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex};

const PAGE_BYTES: u64 = 4096;

/// Changes that each case makes, three of them before the disk may fail.
const APPENDS: u64 = 14;

/// What the next operation of its kind does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Half of a write arrives, and then there is no room.
    ShortWrite,
    /// The file cannot grow.
    NoGrowth,
    /// A sync fails. As Linux does it, what was to be written then counts as written, and no later sync writes it.
    Sync,
    /// A sync fails after all was written.
    LateSync,
}

const FAULTS: [Fault; 4] = [Fault::ShortWrite, Fault::NoGrowth, Fault::Sync, Fault::LateSync];

/// A disk with a cache before it.
#[derive(Debug, Default)]
struct Disk {
    cache: Vec<u8>,
    dirty: BTreeSet<u64>,
    /// What is left when the power fails.
    durable: Vec<u8>,
    /// Operations until the fault, and how often it happens then.
    fault: Option<(Fault, usize, usize)>,
}

impl Disk {
    /// Whether an operation of this kind fails now.
    fn fails(&mut self, kinds: &[Fault]) -> Option<Fault> {
        let (fault, wait, times) = self.fault.as_mut().filter(|(fault, ..)| kinds.contains(fault))?;
        if *wait > 0 {
            *wait -= 1;
            return None;
        }
        let fault = *fault;
        *times -= 1;
        if *times == 0 {
            self.fault = None;
        }
        Some(fault)
    }

    fn flush(&mut self) {
        self.durable.resize(self.cache.len(), 0);
        for page in std::mem::take(&mut self.dirty) {
            let start = (page * PAGE_BYTES) as usize;
            let end = self.cache.len().min(start + PAGE_BYTES as usize);
            if start < end {
                self.durable[start..end].copy_from_slice(&self.cache[start..end]);
            }
        }
    }

    fn put(&mut self, offset: u64, data: &[u8]) {
        let end = offset as usize + data.len();
        self.cache.resize(self.cache.len().max(end), 0);
        self.cache[offset as usize..end].copy_from_slice(data);
        self.dirty.extend(offset / PAGE_BYTES..(end as u64).div_ceil(PAGE_BYTES));
    }
}

#[derive(Debug)]
struct File(Arc<Mutex<Disk>>);

fn no_room() -> io::Error {
    io::Error::from_raw_os_error(28)
}

fn broken() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl StorageBackend for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().cache.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disk = self.0.lock().unwrap();
        let range = offset as usize..offset as usize + out.len();
        out.copy_from_slice(disk.cache.get(range).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        if len > disk.cache.len() as u64 && disk.fails(&[Fault::NoGrowth]).is_some() {
            return Err(no_room());
        }
        disk.cache.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        match disk.fails(&[Fault::Sync, Fault::LateSync]) {
            None => disk.flush(),
            Some(Fault::LateSync) => {
                disk.flush();
                return Err(broken());
            }
            Some(_) => {
                disk.dirty.clear();
                return Err(broken());
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        if disk.fails(&[Fault::ShortWrite]).is_some() {
            disk.put(offset, &data[..data.len() / 2]);
            return Err(no_room());
        }
        disk.put(offset, data);
        Ok(())
    }

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}

fn vpc(number: u64) -> Event {
    // Long enough that a few of them need a page of their own.
    let vpc = json!({"cidr": "10.0.0.0/16", "ipv6_cidr": null, "name": format!("vpc-{number}"),
        "description": "x".repeat(1500), "routes": [], "created_s": number});
    Event::from_record(&format!("vpc/vpc-{number}"), vpc.to_string().as_bytes()).unwrap()
}

fn model(numbers: &[u64]) -> Model {
    Model::load(Quotas::default(), numbers.iter().copied().map(vpc))
}

/// A store on a disk of the test's.
fn store_on(disk: &Arc<Mutex<Disk>>, folder: &Path) -> EmbeddedStore {
    let opened = Arc::clone(disk);
    let open: OpenFile = Box::new(move |path| {
        let mut disk = opened.lock().unwrap();
        if disk.cache.is_empty() {
            disk.cache = std::fs::read(path)?;
            disk.durable = disk.cache.clone();
        }
        drop(disk);
        Ok(Box::new(File(Arc::clone(&opened))))
    });
    EmbeddedStore::open_on(DataDirectory::open(folder).unwrap(), open).unwrap()
}

/// What a start finds after the power failed.
fn after_power_failure(disk: &Mutex<Disk>) -> Model {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("format"), "1\n").unwrap();
    std::fs::write(folder.path().join("state.redb"), &disk.lock().unwrap().durable).unwrap();
    let mut store = EmbeddedStore::open(DataDirectory::open(folder.path()).unwrap()).unwrap();
    Model::load(Quotas::default(), store.load().unwrap())
}

/// Appends while the disk fails `times` times from operation `wait` on. Whether it failed at all.
fn fail_at(fault: Fault, wait: usize, times: usize) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::default();
    let mut store = store_on(&disk, folder.path());
    let mut kept = Vec::new();
    for number in 0..3 {
        store.append(&[vpc(number)]).unwrap();
        kept.push(number);
    }
    disk.lock().unwrap().fault = Some((fault, wait, times));
    let mut failures = 0;
    for number in 3..APPENDS {
        match store.append(&[vpc(number)]) {
            Ok(()) => kept.push(number),
            Err(error) => {
                failures += 1;
                let text = error.to_string();
                assert!(text.contains("cannot store the change") || text.contains("cannot open"), "{text}");
                if times == 1 {
                    assert_eq!(after_power_failure(&disk), model(&kept), "{fault:?} at {wait}: refused is refused");
                }
            }
        }
        if failures == 0 || number % 5 != 0 {
            continue;
        }
        // What is acknowledged is durable, at every moment. What was refused is only there as long as the failure goes on.
        let left = after_power_failure(&disk).events();
        let missing = kept.iter().find(|number| !left.contains(&vpc(**number)));
        assert_eq!(missing, None, "{fault:?} at {wait}, {times} times");
    }
    let is_over = disk.lock().unwrap().fault.is_none();
    assert_eq!(is_over, failures > 0, "{fault:?} at {wait}: a failure is told");
    if is_over {
        let last = store.append(&[vpc(APPENDS)]);
        assert!(last.is_ok(), "{fault:?} at {wait}: an error that is over is over: {last:?}");
        kept.push(APPENDS);
        assert_eq!(Model::load(Quotas::default(), store.load().unwrap()), model(&kept), "{fault:?} at {wait}");
        drop(store);
        assert_eq!(after_power_failure(&disk), model(&kept), "{fault:?} at {wait}");
    }
    is_over
}

#[test]
fn a_failure_that_is_over_is_over_and_loses_nothing() {
    for fault in FAULTS {
        let failed = (0..20).filter(|wait| fail_at(fault, *wait, 1)).count();
        assert!(failed > 0, "{fault:?} never happened, and the test proves nothing");
    }
}

#[test]
fn a_failure_that_goes_on_refuses_until_it_is_over() {
    for fault in FAULTS {
        for times in [2, 5] {
            let failed = (0..12).filter(|wait| fail_at(fault, *wait, times)).count();
            assert!(failed > 0 || fault == Fault::NoGrowth, "{fault:?}");
        }
    }
}
