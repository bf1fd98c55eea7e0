//! The sweep of a shard, which ends expired sessions and those of ENIs that no longer exist.

use crate::compile::snapshot::Snapshot;
use crate::config::ids::{EniEpoch, EniIndex};
use crate::config::limits::SWEEP_RECORDS_PER_TURN;
use crate::conntrack::{Expiry, Session};
use crate::datapath::shard::Shard;
use crate::hw::time::{Tick, Time};
use crate::packet::verdict::DropReason;

/// How often the sweep checks whether the ENIs of its sessions still exist, seconds.
const ORPHANS_INTERVAL_S: u32 = 1;

impl Shard {
    /// Ends the expired sessions among the next `records` of each table, in an endless round.
    pub fn sweep(&mut self, snapshot: &Snapshot, now: Time, records: usize) {
        let (tick, settings) = (now.tick(), snapshot.settings());
        self.note_orphans(snapshot, tick);
        let Self { sessions, counters, places, orphans, .. } = self;
        // An empty half of a record is nobody's, so it does not keep the record alive.
        let is_orphan = |session: Session| session.epoch() == EniEpoch::default() || !places.contains(session.epoch());
        let is_orphan: Option<&dyn Fn(Session) -> bool> =
            if orphans.records_left > 0 { Some(&is_orphan) } else { None };
        orphans.records_left = orphans.records_left.saturating_sub(records);
        let mut expiry = Expiry::at(tick, settings).with_orphans(is_orphan);
        sessions.sweep(records, &mut expiry, |epoch| {
            if let Some(place) = places.of(epoch, counters) {
                counters[place].forget_session();
            }
        });
        self.nat.sweep(snapshot, tick);
        let Self { sessions, counters, places, .. } = self;
        sessions.syns.sweep(tick);
        // Fragments are counted at the sender, where they were held.
        sessions.fragments.sweep(tick, |epoch| {
            if let Some(place) = places.of(epoch, counters) {
                counters[place].egress.count_undelivered(DropReason::FragmentOrphaned, 1);
            }
        });
    }

    /// Checks from time to time whether an ENI with sessions no longer exists; if so, the next round of the sweep
    /// removes them.
    fn note_orphans(&mut self, snapshot: &Snapshot, now: Tick) {
        // Every check looks up every ENI; once a second is soon enough, since orphans match nothing.
        if !self.orphans.looked_at.is_older_than(ORPHANS_INTERVAL_S, now) {
            return;
        }
        self.orphans.looked_at = now;
        let is_there = |epoch, place| snapshot.eni(EniIndex(place as u32)).is_some_and(|eni| eni.epoch == epoch);
        if self.places.retain(is_there) {
            // A whole round, and what one turn may overlap, so that no record is missed.
            self.orphans.records_left = self.sessions.capacity() + SWEEP_RECORDS_PER_TURN;
        }
    }
}
