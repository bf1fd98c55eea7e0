//! Which signed requests were made before. A request is good once, also across a restart.
//!
//! A request stays good for a window after the time it names, so it is remembered for that long, under the minute in
//! which that ends; a repetition names the same time, so one look is enough. On disk each minute is a file of digests
//! that goes with the minute. What was written survives the process; a power failure may take the last seconds along.

use crate::error::{ApiError, INTERNAL_ERROR, NONCE_USED, THROTTLING};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Nonces remembered at most: those of half an hour at more than 4,000 requests a second.
const NONCES_MAX: usize = 8_000_000;
const DIGEST_BYTES: usize = 8;

/// The nonces that were used.
#[derive(Debug, Default)]
pub(super) struct Nonces {
    /// By the minute after which they can be forgotten.
    minutes: BTreeMap<u64, Minute>,
    count: usize,
    folder: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Minute {
    seen: HashSet<u64>,
    file: Option<File>,
}

impl Nonces {
    /// Those that a folder tells of and that still matter. The folder is made if there is none.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn open(folder: &Path, now_s: u64) -> io::Result<Self> {
        let mut nonces = Self { folder: Some(folder.to_owned()), ..Self::default() };
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let minute = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok());
            match minute {
                Some(minute) if minute >= now_s / 60 => {
                    // A digest that a crash cut short belongs to a request that was not made.
                    let seen: HashSet<u64> = fs::read(&path)?.chunks_exact(DIGEST_BYTES).map(number).collect();
                    nonces.count += seen.len();
                    nonces.minutes.insert(minute, Minute { seen, file: None });
                }
                Some(_) => fs::remove_file(&path)?,
                None => {}
            }
        }
        Ok(nonces)
    }

    /// Whether a key was used with a nonce in a request that is good until `until_s`.
    pub(super) fn is_used(&self, key_id: &str, nonce: &str, until_s: u64) -> bool {
        self.minutes.get(&(until_s / 60)).is_some_and(|minute| minute.seen.contains(&digest(key_id, nonce)))
    }

    /// Remembers a nonce.
    ///
    /// # Errors
    /// Where it was used before, where there are too many, and where it cannot be kept.
    pub(super) fn use_once(&mut self, key_id: &str, nonce: &str, until_s: u64, now_s: u64) -> Result<(), ApiError> {
        self.forget(now_s / 60);
        if self.count >= NONCES_MAX {
            return Err(THROTTLING.error("Request was denied due to request throttling."));
        }
        let (digest, place) = (digest(key_id, nonce), until_s / 60);
        let minute = self.minutes.entry(place).or_default();
        if !minute.seen.insert(digest) {
            return Err(NONCE_USED.error("The request signature nonce has been used."));
        }
        self.count += 1;
        let kept = match &self.folder {
            Some(folder) => minute.keep(&folder.join(place.to_string()), digest),
            None => Ok(()),
        };
        kept.map_err(|error| INTERNAL_ERROR.error(format!("a nonce cannot be kept: {error}")))
    }

    fn forget(&mut self, now: u64) {
        while let Some(entry) = self.minutes.first_entry().filter(|entry| *entry.key() < now) {
            let (place, minute) = entry.remove_entry();
            self.count -= minute.seen.len();
            if let Some(folder) = &self.folder {
                // One that stays is removed at the next start.
                let _ = fs::remove_file(folder.join(place.to_string()));
            }
        }
    }
}

impl Minute {
    fn keep(&mut self, path: &Path, digest: u64) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
                // Behind what a crash cut short, digests would be read askew.
                let length = file.metadata()?.len();
                file.set_len(length - length % DIGEST_BYTES as u64)?;
                file.flush()?;
                none.insert(file)
            }
        };
        let written = file.write_all(&digest.to_le_bytes());
        if written.is_err() {
            // A part of it may be there: the next one is kept behind a whole number of digests again.
            self.file = None;
        }
        written
    }
}

fn digest(key_id: &str, nonce: &str) -> u64 {
    let mut hasher = Sha256::new();
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
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
        assert_eq!(Nonces::open(&path, 1300).unwrap().count, 0);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }
}
