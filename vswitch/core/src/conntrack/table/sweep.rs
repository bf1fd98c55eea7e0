//! Removes expired connections, in an endless round through the records, a part at a time.

use crate::conntrack::key::ConnectionKey;
use crate::conntrack::slot::Slot;
use crate::conntrack::table::{ConnectionRecord, SEGMENT_RECORDS, Table};
use crate::conntrack::{Connection, Expiry};
use core::ops::Range;

/// Records that are examined together.
const SWEEP_STRIDE: usize = 64;

impl<K: ConnectionKey> Table<K> {
    /// Advances by `count` records in an endless round and removes expired connections; `forgotten` is called with
    /// each. Segments without connections are skipped.
    pub fn sweep(&mut self, count: usize, expiry: &mut Expiry<'_>, forgotten: &mut dyn FnMut(&Connection)) {
        let mut left = count.min(self.records.len());
        while left > 0 {
            let start = self.sweep_at as usize;
            let segment = start / SEGMENT_RECORDS;
            let is_empty = self.live_in_segments[segment] == 0;
            let stride = if is_empty { (segment + 1) * SEGMENT_RECORDS - start } else { SWEEP_STRIDE };
            let end = self.records.len().min(start + left.min(stride));
            if !is_empty {
                let (due, count) = self.due(start..end, expiry);
                // All are requested before the first is needed, so that their latencies overlap.
                due[..count].iter().for_each(|place| self.prefetch_next(*place));
                due[..count].iter().for_each(|place| self.clear(Slot(*place), expiry, forgotten));
            }
            left -= end - start;
            self.sweep_at = if end == self.records.len() { 0 } else { end as u32 };
        }
    }

    /// Which of these records have to be cleared, and how many they are. Computed without branches, since it is
    /// unpredictable which records have expired.
    #[inline]
    fn due(&self, places: Range<usize>, expiry: &mut Expiry<'_>) -> ([u32; SWEEP_STRIDE], usize) {
        let (mut due, mut count) = ([0; SWEEP_STRIDE], 0);
        for (place, ConnectionRecord { connection, .. }) in (places.start as u32..).zip(&self.records[places]) {
            // Every place is written and overwritten unless it counted; a branch would be mispredicted.
            due[count % SWEEP_STRIDE] = place;
            count += usize::from(expiry.is_over(connection));
        }
        (due, count)
    }

    /// Prefetches the record that may move into a cleared place.
    #[inline]
    fn prefetch_next(&self, place: u32) {
        let next = self.records[place as usize].connection.next;
        let next = if next == 0 { place } else { next - 1 };
        crate::hw::prefetch::prefetch(&self.records[next as usize]);
        crate::hw::prefetch::prefetch(&self.origins[next as usize]);
    }

    /// Removes the connection at a slot if it has expired, and those that move into its place.
    #[inline(never)]
    fn clear(&mut self, slot: Slot, expiry: &mut Expiry<'_>, forgotten: &mut dyn FnMut(&Connection)) {
        // The connection that moves in may have expired as well.
        loop {
            let connection = self.connection(slot);
            // A free record is not expired: it was moved to an earlier one of these places.
            if !expiry.is_over(connection) {
                return;
            }
            forgotten(connection);
            self.remove(slot);
            if !self.refill(slot) {
                return;
            }
        }
    }
}

const _: () = assert!(SEGMENT_RECORDS.is_multiple_of(SWEEP_STRIDE));
