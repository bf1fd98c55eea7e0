//! Where a connection probably is: found out while its records are still on their way from memory.

use super::Table;
use crate::config::ids::EniEpoch;
use crate::conntrack::key::ConnectionKey;
use crate::conntrack::slot::Slot;

impl<K: ConnectionKey> Table<K> {
    /// For a key that is at `guess` or later in its chain: `guess` if it is there, else the next record; and whether it may
    /// be even later. Selected without a branch, since the outcome is unpredictable. Prefetches the record.
    #[inline(always)]
    pub(crate) fn guess_on(&self, key: &K, guess: Slot) -> (Slot, bool) {
        let record = &self.records[guess.0 as usize];
        let (is_here, next) = (record.key == *key, record.connection.next);
        let is_settled = is_here | (next == 0);
        let guess = if is_settled { guess.0 } else { next.wrapping_sub(1) };
        if let Some(record) = self.records.get(guess as usize) {
            crate::hw::prefetch::prefetch(record);
        }
        (Slot(guess), !is_settled)
    }

    /// [`Table::find`], which looks at `guess` first.
    #[inline(always)]
    pub(crate) fn find_guessed(&self, key: &K, protocol: u8, epoch: EniEpoch, hash: u64, guess: Slot) -> Option<Slot> {
        let record = &self.records[guess.0 as usize];
        if record.is_of(key, protocol) && record.connection.place_of(epoch).is_some() {
            Some(guess)
        } else {
            self.find(key, protocol, epoch, hash)
        }
    }
}
