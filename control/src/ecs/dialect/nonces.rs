//! The nonces of signed requests. Each request is accepted only once, even across a restart.
//!
//! A request is valid for a window around its time, so its nonce is kept until the minute in which the window ends. A
//! replay has the same time, so a single look-up suffices. On disk each minute is a file of digests, which is deleted
//! with the minute. What was written survives the process; a power failure may lose the last seconds.
//!
//! Clocks are sometimes set. One that jumps forward and back must not cause anything to be forgotten in between, so a
//! monotonic clock determines what has expired. What was forgotten nevertheless is recorded as a mark: an older
//! request, which is valid again by a clock that was set back, cannot be distinguished from a replay, and is refused.

use crate::error::{ApiError, INTERNAL_ERROR, NONCE_USED, THROTTLING, TIMESTAMP_EXPIRED};
use crate::os::private_dir;
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The most nonces that are kept: those of half an hour at more than 4,000 requests a second.
const NONCES_MAX: usize = 8_000_000;
const DIGEST_BYTES: usize = 8;
/// How far the clock may jump forward without anything being forgotten too early, seconds.
const JUMP_MAX_S: u64 = 24 * 3600;
/// The prefix of the file whose name says up to which minute nonces may have been forgotten.
const MARK: &str = "forgotten-";

/// The nonces that were used.
#[derive(Debug, Default)]
pub(in crate::ecs) struct Nonces {
    /// By the minute after which they can be forgotten.
    minutes: BTreeMap<u64, Minute>,
    count: usize,
    folder: Option<PathBuf>,
    clock: NonceClock,
    /// Nonces of earlier minutes may have been forgotten.
    forgotten: u64,
}

/// What is certain about the time, however the clock was set in between.
#[derive(Debug, Default)]
struct NonceClock {
    /// The smallest lead of the clock over the monotonic one, seconds.
    offset_s: Option<i64>,
}

impl NonceClock {
    /// A time that has certainly passed, if the clock shows `now_s` and the monotonic one `steady_s`.
    fn over_s(&mut self, now_s: u64, steady_s: u64) -> u64 {
        let offset_s = now_s as i64 - steady_s as i64;
        let least_s = self.offset_s.map_or(offset_s, |least_s| least_s.min(offset_s));
        self.offset_s = Some(least_s);
        (steady_s as i64 + least_s).max(now_s.saturating_sub(JUMP_MAX_S) as i64) as u64
    }
}

/// Seconds since the machine was started, including suspended ones.
fn steady_s() -> u64 {
    rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec as u64
}

#[derive(Debug, Default)]
struct Minute {
    seen: HashSet<u64>,
    file: Option<File>,
}

impl Nonces {
    /// The nonces in a folder that have not expired. The folder is made if it does not exist.
    ///
    /// # Errors
    /// The operating system's error.
    pub(in crate::ecs) fn open(folder: &Path, now_s: u64) -> io::Result<Self> {
        let mut nonces = Self { folder: Some(folder.to_owned()), ..Self::default() };
        private_dir::ensure(folder, 0o700)?;
        let mut over = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let minute = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok());
            match minute {
                // The minute that is running is kept: requests can be valid to its end.
                Some(minute) if minute >= now_s / 60 => {
                    // A digest that a crash truncated belongs to a request that was not made.
                    let seen: HashSet<u64> = fs::read(&path)?.chunks_exact(DIGEST_BYTES).map(number).collect();
                    nonces.count += seen.len();
                    nonces.minutes.insert(minute, Minute { seen, file: None });
                }
                Some(minute) => over.push(minute),
                None => {
                    let mark = path.file_name().and_then(|name| name.to_str()?.strip_prefix(MARK)?.parse().ok());
                    nonces.forgotten = nonces.forgotten.max(mark.unwrap_or_default());
                }
            }
        }
        // What is removed below counts as forgotten, and has to be noted while its files still tell.
        if let Some(last) = over.iter().max().filter(|last| **last >= nonces.forgotten) {
            nonces.keep_mark(last + 1);
        }
        over.iter().try_for_each(|minute| fs::remove_file(folder.join(minute.to_string())))?;
        Ok(nonces)
    }

    /// Whether a key was used with a nonce in a request that is valid until `until_s`.
    pub(in crate::ecs) fn is_used(&self, key_id: &str, nonce: &str, until_s: u64) -> bool {
        self.minutes.get(&(until_s / 60)).is_some_and(|minute| minute.seen.contains(&digest(key_id, nonce)))
    }

    /// Remembers a nonce.
    ///
    /// # Errors
    /// It was used before, there are too many, or it cannot be stored.
    pub(in crate::ecs) fn use_once(
        &mut self,
        key_id: &str,
        nonce: &str,
        until_s: u64,
        now_s: u64,
    ) -> Result<(), ApiError> {
        self.use_once_at(key_id, nonce, until_s, (now_s, steady_s()))
    }

    fn use_once_at(
        &mut self,
        key_id: &str,
        nonce: &str,
        until_s: u64,
        (now_s, steady_s): (u64, u64),
    ) -> Result<(), ApiError> {
        let over_s = self.clock.over_s(now_s, steady_s);
        self.forget(over_s / 60);
        // The check comes after `forget`, which may have just forgotten the minute that this nonce belongs to.
        if until_s / 60 < self.forgotten {
            let message = "Specified time stamp or date value is expired. The clock of this service was set back.";
            return Err(TIMESTAMP_EXPIRED.error(message));
        }
        // Refusing new requests is the only safe answer: forgetting a nonce would allow its replay.
        if self.count >= NONCES_MAX {
            return Err(THROTTLING.error("Request was denied due to request throttling."));
        }
        let (digest, place) = (digest(key_id, nonce), until_s / 60);
        let minute = self.minutes.entry(place).or_default();
        if !minute.seen.insert(digest) {
            return Err(NONCE_USED.error("The request signature nonce has been used."));
        }
        // The nonce stays used if it cannot be stored: the request is refused, but somebody may have seen it.
        self.count += 1;
        let kept = match &self.folder {
            Some(folder) => minute.keep(&folder.join(place.to_string()), digest),
            None => Ok(()),
        };
        kept.map_err(|error| INTERNAL_ERROR.error(format!("a nonce cannot be kept: {error}")))
    }

    fn forget(&mut self, now: u64) {
        // The mark comes before the removals, so that a crash in between forgets nothing unnoticed.
        if now > self.forgotten {
            self.keep_mark(now);
        }
        while let Some(entry) = self.minutes.first_entry().filter(|entry| *entry.key() < now) {
            let (place, minute) = entry.remove_entry();
            self.count -= minute.seen.len();
            if let Some(folder) = &self.folder {
                // One that remains is removed at the next start.
                let _ = fs::remove_file(folder.join(place.to_string()));
            }
        }
    }
}

impl Nonces {
    /// Records that nonces before this minute may have been forgotten, for later processes as well.
    fn keep_mark(&mut self, minute: u64) {
        let before = std::mem::replace(&mut self.forgotten, minute);
        let Some(folder) = &self.folder else { return };
        let file = |minute: u64| folder.join(format!("{MARK}{minute}"));
        // Renaming needs no space and is atomic. If it fails, the only thing not noticed is a clock that is set back
        // while no process runs.
        if fs::rename(file(before), file(minute)).is_err() {
            // There is no former mark at first, and nothing to rename.
            let _ = open_private(&file(minute));
        }
    }
}

impl Minute {
    fn keep(&mut self, path: &Path, digest: u64) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let mut file = open_private(path)?;
                // After a truncated digest, later ones would be misaligned.
                let length = file.metadata()?.len();
                file.set_len(length - length % DIGEST_BYTES as u64)?;
                file.flush()?;
                none.insert(file)
            }
        };
        let written = file.write_all(&digest.to_le_bytes());
        if written.is_err() {
            // A part of it may have been written: the next one is written after a whole number of digests again.
            self.file = None;
        }
        written
    }
}

fn open_private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        // A symbolic link in its place must not make this process write elsewhere.
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(path)?;
    // Whatever the umask.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

fn digest(key_id: &str, nonce: &str) -> u64 {
    let mut hasher = Sha256::new();
    // The length keeps keys and nonces apart: otherwise, `ab` and `c` would share a digest with `a` and `bc`.
    hasher.update((key_id.len() as u64).to_be_bytes());
    hasher.update(key_id.as_bytes());
    hasher.update(nonce.as_bytes());
    number(&hasher.finalize()[..DIGEST_BYTES])
}

fn number(bytes: &[u8]) -> u64 {
    let mut whole = [0; DIGEST_BYTES];
    whole.copy_from_slice(bytes);
    u64::from_le_bytes(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_is_known_after_a_restart_until_it_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nonces");
        let mut nonces = Nonces::open(&path, 0).unwrap();
        nonces.use_once("a", "n1", 600, 0).unwrap();
        nonces.use_once("a", "n2", 1200, 0).unwrap();
        drop(nonces);
        let cut = OpenOptions::new().append(true).open(path.join("10")).unwrap().write_all(b"cut");
        assert!(cut.is_ok());
        let mut nonces = Nonces::open(&path, 60).unwrap();
        assert_eq!(nonces.use_once("a", "n1", 600, 60).unwrap_err().code, NONCE_USED.code);
        nonces.use_once("b", "n1", 600, 60).unwrap();
        drop(nonces);
        let mut nonces = Nonces::open(&path, 120).unwrap();
        assert!(nonces.is_used("b", "n1", 600) && nonces.is_used("a", "n2", 1200));
        assert_eq!(nonces.count, 3);
        // The files go with the minutes.
        nonces.use_once("a", "n3", 1200, 700).unwrap();
        assert_eq!(nonces.count, 2);
        drop(nonces);
        assert_eq!(minutes(&path), 1);
        assert_eq!(Nonces::open(&path, 1300).unwrap().count, 0);
        assert_eq!(minutes(&path), 0);
    }

    fn minutes(folder: &Path) -> usize {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.parse::<u64>().is_ok()).count()
    }

    const WINDOW_S: u64 = 900;
    const JUMP_S: u64 = 32 * 60;
    const NOW_S: u64 = 1_000_000;

    /// Uses a nonce in a request of the time `at_s`, when the clocks say `now_s` and `steady_s`.
    fn uses(nonces: &mut Nonces, nonce: &str, at_s: u64, clocks: (u64, u64)) -> Result<(), &'static str> {
        nonces.use_once_at("key", nonce, at_s + WINDOW_S, clocks).map_err(|error| error.code)
    }

    #[test]
    fn a_clock_that_jumps_forward_and_back_has_nothing_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut nonces = Nonces::open(folder.path(), NOW_S).unwrap();
        uses(&mut nonces, "first", NOW_S, (NOW_S, 10)).unwrap();
        uses(&mut nonces, "ahead", NOW_S + JUMP_S, (NOW_S + JUMP_S, 20)).unwrap();
        let back = (NOW_S + 30, 30);
        assert_eq!(uses(&mut nonces, "first", NOW_S, back), Err(NONCE_USED.code));
        uses(&mut nonces, "next", NOW_S + 30, back).unwrap();
        // The monotonic clock lets expired ones be forgotten all the same.
        uses(&mut nonces, "later", NOW_S + 3600, (NOW_S + 3600, 3610)).unwrap();
        assert_eq!(nonces.count, 1);
    }

    #[test]
    fn what_was_forgotten_is_refused_by_a_clock_that_was_set_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut nonces = Nonces::open(folder.path(), NOW_S).unwrap();
        uses(&mut nonces, "old", NOW_S, (NOW_S, 10)).unwrap();
        uses(&mut nonces, "new", NOW_S + JUMP_S, (NOW_S + JUMP_S, 10 + JUMP_S)).unwrap();
        let back = (NOW_S + 60, 20 + JUMP_S);
        assert_eq!(uses(&mut nonces, "old", NOW_S, back), Err(TIMESTAMP_EXPIRED.code));
        // In a process that started in the meantime, and in one that started while the clock was ahead.
        drop(nonces);
        let mut nonces = Nonces::open(folder.path(), NOW_S + 60).unwrap();
        assert_eq!(uses(&mut nonces, "old", NOW_S, back), Err(TIMESTAMP_EXPIRED.code));
        assert_eq!(uses(&mut nonces, "new", NOW_S + JUMP_S, back), Err(NONCE_USED.code));
        let later_s = NOW_S + JUMP_S;
        uses(&mut nonces, "again", later_s, (later_s, 20 + 2 * JUMP_S)).unwrap();
        drop(nonces);
        drop(Nonces::open(folder.path(), later_s + JUMP_S).unwrap());
        let mut nonces = Nonces::open(folder.path(), later_s).unwrap();
        assert_eq!(uses(&mut nonces, "again", later_s, (later_s, 30)), Err(TIMESTAMP_EXPIRED.code));
    }

    #[test]
    fn a_clock_that_was_far_behind_does_not_have_everything_kept() {
        let mut nonces = Nonces::default();
        uses(&mut nonces, "first", 100, (100, 10)).unwrap();
        for day in 1..5 {
            let now_s = NOW_S + day * 2 * JUMP_MAX_S;
            uses(&mut nonces, "x", now_s, (now_s, 20)).unwrap();
            assert_eq!(nonces.count, 1);
        }
    }
}
