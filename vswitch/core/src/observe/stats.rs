//! The numbers that a shard reports.

use crate::compile::snapshot::Snapshot;
use crate::config::ids::{EniId, EniIndex};
use crate::config::protocol::{EniStats, GuestAsked};
use crate::datapath::shard::Shard;

impl Shard {
    /// The number of live connections of the ENIs in `snapshot`. While records of a removed ENI may not be free yet, it
    /// is at most the number of sessions of the other ENIs.
    pub fn connection_count(&self, snapshot: &Snapshot) -> usize {
        let (mut sessions, mut has_orphans) = (0, self.orphans.records_left > 0);
        for (epoch, place) in self.places.iter() {
            // Counters of an ENI that is gone may remain until the next round of the sweep.
            match snapshot.eni(EniIndex(place as u32)).filter(|eni| eni.epoch == epoch) {
                Some(_) => sessions += self.counters_of(place, epoch).map_or(0, |counters| counters.sessions as usize),
                None => has_orphans = true,
            }
        }
        if has_orphans { self.flow_count().min(sessions) } else { self.flow_count() }
    }

    /// The number of connection records in use.
    pub fn flow_count(&self) -> usize {
        self.sessions.len()
    }

    /// How many connections there is room for.
    pub fn flows_max(&self) -> usize {
        self.sessions.capacity()
    }

    /// The fill level of the fuller connection table, as a percentage of its intended size.
    pub fn table_percent(&self) -> usize {
        self.sessions.percent()
    }

    /// The sizes of the connection tables for IPv4 and IPv6 in memory, bytes.
    pub fn memory_bytes(&self) -> [usize; 2] {
        self.sessions.memory_bytes()
    }

    /// What the mappings of external ports take in memory, bytes.
    pub fn nat_memory_bytes(&self) -> usize {
        self.nat.memory_bytes()
    }

    /// The counters of an ENI; `None` if the snapshot does not have it.
    pub fn stats(&self, snapshot: &Snapshot, eni: EniIndex) -> Option<EniStats> {
        let entry = snapshot.eni(eni)?;
        // An ENI that has sent nothing yet has no counters, but a report.
        let empty = crate::datapath::counters::EniCounters::new(entry.epoch);
        let counters = self.counters_of(eni.0 as usize, entry.epoch).unwrap_or(&empty);
        let (nat_mappings, nat_port_blocks) = self.nat.counts(eni);
        Some(EniStats {
            eni: EniId::clone(&entry.id),
            flows: counters.sessions as u64,
            flows_max: u64::from(entry.sessions_max),
            flows_opened: counters.opened,
            flows_evicted: counters.evicted,
            nat_mappings: nat_mappings as u64,
            nat_port_blocks: nat_port_blocks as u64,
            // The service thread knows.
            asked: GuestAsked::default(),
            egress: counters.egress.report(),
            ingress: counters.ingress.report(),
        })
    }
}
