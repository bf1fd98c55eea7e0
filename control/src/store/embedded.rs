//! The state in one file of the data directory, stored with `redb`.
//!
//! redb verifies the checksums of its pages only after a crash, so every record has a checksum of its own, and a seal
//! over all of them shows if records are missing. Transactions commit in two phases, so that after a crash redb never
//! reverts to before the last acknowledged commit.
//!
//! If a commit fails, for lack of space or because of a disk error, the file is restored to the last acknowledged
//! commit: it is rewritten and reopened, and what the failed commit may have left is undone. If that fails as well, the
//! next change retries it first.

use super::state_file::{OpenFile, StateFile, create_file, open_file, rewrite};
use super::{DataDirectory, Store, StoreError};
use crate::model::Event;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// The format of the file.
const FORMAT: u64 = 1;
const STATE_FILE: &str = "state.redb";
/// The name of a new file until it is complete.
const NEW_FILE: &str = "state.redb.new";
/// Marks that a state was stored here, so that a missing file is not mistaken for a first start.
const FORMAT_FILE: &str = "format";
const CHECKSUM_BYTES: usize = 8;

const OBJECTS: TableDefinition<&str, &[u8]> = TableDefinition::new("objects");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const META_FORMAT: &str = "format";
const META_COUNT: &str = "count";
const META_SEAL: &str = "seal";

/// Records in a file.
pub struct EmbeddedStore {
    /// `None` after a failure that could not be repaired yet.
    database: Option<Database>,
    open_file: OpenFile,
    path: PathBuf,
    /// Those of the acknowledged records.
    sums: Sums,
    /// The previous contents of records that a failed commit may have changed.
    before: RecordsBefore,
    /// What was read at the start, until it is taken.
    loaded: Option<Vec<Event>>,
    /// Held so that no other process opens the same file.
    _directory: DataDirectory,
}

/// What shows whether records are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    count: u64,
    seal: u64,
}

/// The contents of records in the file, by key; `None` if a record did not exist.
type RecordsBefore = BTreeMap<String, Option<Vec<u8>>>;

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EmbeddedStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl EmbeddedStore {
    /// Opens the state in a directory, or begins one if there never was any.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] or [`StoreError::Format`] for anything but a complete state of this format.
    pub fn open(directory: DataDirectory) -> Result<Self, StoreError> {
        Self::open_on(directory, Box::new(open_file))
    }

    /// The same as [`EmbeddedStore::open`], for a directory that had a state before; if it has none, it is damaged.
    ///
    /// # Errors
    /// As in [`EmbeddedStore::open`].
    pub fn open_existing(directory: DataDirectory) -> Result<Self, StoreError> {
        let path = directory.file(STATE_FILE);
        // The forwarding plane runs a state that was stored here, so an empty directory cannot be a first start.
        if !path.exists() {
            let reason = "the file is gone, though the forwarding plane runs this state: is its disk mounted?";
            return Err(StoreError::damaged(path, reason));
        }
        Self::open(directory)
    }

    /// The same as [`EmbeddedStore::open`], with files opened by the caller.
    ///
    /// # Errors
    /// As in [`EmbeddedStore::open`].
    pub fn open_on(directory: DataDirectory, open_file: OpenFile) -> Result<Self, StoreError> {
        let path = directory.file(STATE_FILE);
        // An earlier version, which did not write it atomically, left an empty one if it crashed at its first start.
        // The state itself also shows that it exists.
        let mark = directory.read(FORMAT_FILE)?.filter(|mark| !mark.trim().is_empty() || !path.exists());
        if let Some(mark) = &mark {
            match mark.trim().parse::<u64>() {
                Ok(FORMAT) => {}
                Ok(other) => return Err(StoreError::Format { path, found: other.to_string(), expected: FORMAT }),
                Err(_) => return Err(StoreError::damaged(directory.file(FORMAT_FILE), "it does not name a format")),
            }
        }
        match (path.exists(), &mark) {
            (true, _) => {}
            (false, None) => begin(&directory, &path)?,
            (false, Some(_)) => return Err(StoreError::damaged(path, "the file is gone")),
        }
        let database = guard(&path, || open_database(&path, &open_file))?;
        if mark.is_none() {
            directory.write(FORMAT_FILE, &format!("{FORMAT}\n"))?;
        }
        let (events, sums) = guard(&path, || read_all(&database, &path))?;
        let (database, loaded, before) = (Some(database), Some(events), RecordsBefore::new());
        Ok(Self { database, open_file, path, sums, before, loaded, _directory: directory })
    }

    fn failed(&self, reason: impl ToString) -> StoreError {
        StoreError::Append { path: self.path.clone(), reason: reason.to_string() }
    }

    /// Restores the file to what was last acknowledged and opens it, unless it is open.
    fn mend(&mut self) -> Result<(), StoreError> {
        if self.database.is_some() {
            return Ok(());
        }
        let written_over = (self.open_file)(&self.path).and_then(|file| {
            let rewritten = rewrite(&*file);
            file.close()?;
            rewritten
        });
        written_over.map_err(|error| self.failed(format!("an earlier failure persists: {error}")))?;
        let database = guard(&self.path, || open_database(&self.path, &self.open_file))?;
        let (_, found) = guard(&self.path, || read_all(&database, &self.path))?;
        // If the sums agree, the failed commit left nothing.
        if found != self.sums {
            let restored = catch_unwind(AssertUnwindSafe(|| restore(&database, &self.before, self.sums)));
            if let Some(error) = restored.map_or_else(|_| Some("the file is damaged".into()), told) {
                close(database);
                return Err(self.failed(error));
            }
        }
        self.before.clear();
        self.database = Some(database);
        Ok(())
    }
}

fn told(result: Result<(), redb::Error>) -> Option<String> {
    result.err().map(|error| error.to_string())
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        if let Some(database) = self.database.take() {
            close(database);
        }
    }
}

impl Store for EmbeddedStore {
    fn load(&mut self) -> Result<Vec<Event>, StoreError> {
        if let Some(events) = self.loaded.take() {
            return Ok(events);
        }
        self.mend()?;
        let database = self.database.as_ref().ok_or_else(|| self.failed("the file is not open"))?;
        let (events, sums) = guard(&self.path, || read_all(database, &self.path))?;
        self.sums = sums;
        Ok(events)
    }

    fn append(&mut self, events: &[Event]) -> Result<(), StoreError> {
        self.loaded = None;
        self.mend()?;
        // Taken out: if anything fails, it must not be used again.
        let database = self.database.take().ok_or_else(|| self.failed("the file is not open"))?;
        let mut before = RecordsBefore::new();
        let written = catch_unwind(AssertUnwindSafe(|| write(&database, events, self.sums, &mut before)));
        let reason = match written {
            Ok(Ok(sums)) => {
                self.sums = sums;
                self.database = Some(database);
                return Ok(());
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the file is damaged".into(),
        };
        // The database is in an undefined state after a failure, so no further change goes into it.
        close(database);
        self.before = before;
        // At once, so that a crash does not bring back what is refused here. If it fails, the next attempt reports why.
        let _ = self.mend();
        Err(self.failed(reason))
    }
}

/// Makes a complete, empty state under another name first, so that a crash leaves either none or a complete one.
fn begin(directory: &DataDirectory, path: &Path) -> Result<(), StoreError> {
    let new = directory.file(NEW_FILE);
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(StoreError::io("remove", &new, error));
        }
        _ => {}
    }
    let file = create_file(&new).map_err(|error| StoreError::io("make", &new, error))?;
    let made = || -> Result<(), redb::Error> {
        let database = Builder::new().create_with_backend(StateFile(file))?;
        let mut transaction = database.begin_write()?;
        transaction.set_two_phase_commit(true);
        {
            transaction.open_table(OBJECTS)?;
            let mut meta = transaction.open_table(META)?;
            meta.insert(META_FORMAT, FORMAT)?;
            meta.insert(META_COUNT, 0)?;
            meta.insert(META_SEAL, 0)?;
        }
        Ok(transaction.commit()?)
    };
    made().map_err(|error| StoreError::Append { path: new.clone(), reason: error.to_string() })?;
    // The name appears only once the content is complete and synced.
    std::fs::rename(&new, path).map_err(|error| StoreError::io("rename", &new, error))?;
    directory.sync()
}

fn open_database(path: &Path, open_file: &OpenFile) -> Result<Database, StoreError> {
    // An empty file would be mistaken for a new one.
    let length = std::fs::metadata(path).map_err(|error| StoreError::io("read", path, error))?.len();
    if length == 0 {
        return Err(StoreError::damaged(path, "the file is empty"));
    }
    let failed = |error| match error {
        redb::DatabaseError::Storage(redb::StorageError::Io(source)) if source.raw_os_error().is_some() => {
            StoreError::io("open", path, source)
        }
        error => StoreError::damaged(path, error),
    };
    let file = open_file(path).map_err(|error| StoreError::io("open", path, error))?;
    let mut database = Builder::new().create_with_backend(StateFile(file)).map_err(failed)?;
    // Checks every page and repairs redb's own bookkeeping; the seal shows whether the records are complete.
    match catch_unwind(AssertUnwindSafe(|| database.check_integrity())) {
        Ok(Ok(_)) => Ok(database),
        Ok(Err(error)) => {
            close(database);
            Err(failed(error))
        }
        Err(_) => {
            close(database);
            Err(StoreError::damaged(path, "its pages are inconsistent"))
        }
    }
}

/// Closes a database whose file may be damaged: redb writes when it closes, and panics on some kinds of damage.
fn close(database: Database) {
    // Only redb's bookkeeping is lost, which it rebuilds at the next start.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
}

fn read_all(database: &Database, path: &Path) -> Result<(Vec<Event>, Sums), StoreError> {
    let damaged = |reason: String| StoreError::damaged(path, reason);
    let transaction = database.begin_read().map_err(|error| damaged(error.to_string()))?;
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::TableDoesNotExist(_)) => return Err(damaged("it is not a state of Sluice".into())),
        Err(error) => return Err(damaged(error.to_string())),
    };
    let number = |key: &str| -> Result<u64, StoreError> {
        let value = meta.get(key).map_err(|error| damaged(error.to_string()))?;
        value.map(|value| value.value()).ok_or_else(|| damaged(format!("it has no {key}")))
    };
    let format = number(META_FORMAT)?;
    if format != FORMAT {
        return Err(StoreError::Format { path: path.into(), found: format.to_string(), expected: FORMAT });
    }
    let objects = transaction.open_table(OBJECTS).map_err(|error| damaged(error.to_string()))?;
    let (mut events, mut count, mut seal) = (Vec::new(), 0_u64, 0_u64);
    for record in objects.iter().map_err(|error| damaged(error.to_string()))? {
        let (key, value) = record.map_err(|error| damaged(error.to_string()))?;
        let (key, value) = (key.value(), value.value());
        let content = value.get(CHECKSUM_BYTES..).unwrap_or_default();
        let sum = checksum(key, content);
        if value.get(..CHECKSUM_BYTES) != Some(&sum.to_le_bytes()) {
            return Err(damaged(format!("record {key} does not have the content it was written with")));
        }
        events.push(Event::from_record(key, content).map_err(|error| StoreError::record(path, &error))?);
        count += 1;
        // A sum, not a chain: records can be replaced in any order.
        seal = seal.wrapping_add(sum);
    }
    if (count, seal) != (number(META_COUNT)?, number(META_SEAL)?) {
        return Err(damaged(format!("it has {count} records, which are not those that were last written")));
    }
    Ok((events, Sums { count, seal }))
}

/// Stores events. The previous contents of the records are left in `before`, as far as it got.
fn write(database: &Database, events: &[Event], sums: Sums, before: &mut RecordsBefore) -> Result<Sums, redb::Error> {
    let Sums { mut count, mut seal } = sums;
    let mut transaction = database.begin_write()?;
    // In one phase, a crash could bring back the state before the last commit.
    transaction.set_two_phase_commit(true);
    {
        let mut objects = transaction.open_table(OBJECTS)?;
        for event in events {
            let key = event.key();
            let old = match event.value() {
                Some(content) => {
                    let sum = checksum(&key, &content);
                    let record = [&sum.to_le_bytes()[..], &content].concat();
                    count += 1;
                    seal = seal.wrapping_add(sum);
                    objects.insert(key.as_str(), record.as_slice())?
                }
                None => objects.remove(key.as_str())?,
            };
            let old = old.map(|old| old.value().to_vec());
            // Replacing a record takes its old checksum out of the seal.
            if let Some(old) = &old {
                count -= 1;
                seal = seal.wrapping_sub(checksum(&key, old.get(CHECKSUM_BYTES..).unwrap_or_default()));
            }
            // The first content counts: a key may occur twice in one change.
            before.entry(key).or_insert(old);
        }
    }
    let sums = Sums { count, seal };
    write_sums(&transaction, sums)?;
    transaction.commit()?;
    Ok(sums)
}

/// Undoes what a failed commit may have left.
fn restore(database: &Database, before: &RecordsBefore, sums: Sums) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    {
        let mut objects = transaction.open_table(OBJECTS)?;
        for (key, record) in before {
            match record {
                Some(record) => drop(objects.insert(key.as_str(), record.as_slice())?),
                None => drop(objects.remove(key.as_str())?),
            }
        }
    }
    write_sums(&transaction, sums)?;
    Ok(transaction.commit()?)
}

fn write_sums(transaction: &WriteTransaction, sums: Sums) -> Result<(), redb::Error> {
    let mut meta = transaction.open_table(META)?;
    meta.insert(META_COUNT, sums.count)?;
    meta.insert(META_SEAL, sums.seal)?;
    Ok(())
}

/// Reads a file that may be damaged: redb panics on some kinds of damage.
fn guard<T>(path: &Path, read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let reason = panic.downcast_ref::<String>().map(String::as_str);
        let reason = reason.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it cannot be read");
        Err(StoreError::damaged(path, reason))
    })
}

/// FNV-1a over key and content: it detects flipped bits, not forgery.
fn checksum(key: &str, content: &[u8]) -> u64 {
    let bytes = key.bytes().chain([0]).chain(content.iter().copied());
    bytes.fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
