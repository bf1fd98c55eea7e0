//! The log of pages that are written while a guest is migrated: a bit for each page of 4 KiB of guest memory.

use super::guest_memory::FileMapping;
use rustix::fd::AsFd;
use std::io;

/// Bytes of a page of the log, whatever pages the machine has.
const PAGE_BYTES: u64 = 4096;
/// The largest log, bytes: of 128 TiB of guest memory.
const LOG_BYTES_MAX: u64 = 4 << 30;

/// A log that the front end shares.
#[derive(Debug)]
pub(super) struct DirtyLog {
    mapping: FileMapping,
    offset: u64,
    bytes: u64,
}

impl DirtyLog {
    /// A log of `bytes` from `offset` of a file on.
    ///
    /// # Errors
    /// As for guest memory.
    pub(super) fn new(file: impl AsFd, offset: u64, bytes: u64) -> io::Result<Self> {
        let end = offset.checked_add(bytes).filter(|_| (1..=LOG_BYTES_MAX).contains(&bytes));
        let end = end.ok_or_else(|| io::Error::other("the log of written pages has no sensible size"))?;
        Ok(Self { mapping: FileMapping::new(file, end)?, offset, bytes })
    }

    /// Notes that `bytes` from a guest address on were written.
    pub(super) fn mark(&self, address: u64, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let last = address.saturating_add(bytes as u64 - 1) / PAGE_BYTES;
        for page in address / PAGE_BYTES..=last.min(self.bytes.saturating_mul(8) - 1) {
            self.mapping.set_bits((self.offset + page / 8) as usize, 1 << (page % 8));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::vhost_user::guest_memory::testing::file;
    use std::os::unix::fs::FileExt as _;

    #[test]
    fn each_page_that_is_written_has_its_bit_and_no_other_is_touched() {
        let file = std::fs::File::from(file(8192));
        let log = DirtyLog::new(&file, 4096, 8).unwrap();
        log.mark(0, 1);
        log.mark(9 * 4096 - 1, 2);
        log.mark(63 * 4096, 4096 * 100);
        log.mark(u64::MAX - 1, 4096);
        log.mark(5 * 4096, 0);
        let mut bytes = [0; 16];
        file.read_exact_at(&mut bytes, 4096).unwrap();
        assert_eq!(bytes, [1, 3, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert!(DirtyLog::new(&file, 0, 0).is_err() && DirtyLog::new(&file, u64::MAX, 8).is_err());
    }
}
