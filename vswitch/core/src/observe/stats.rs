//! What a shard tells about itself in numbers.

use crate::compile::snapshot::Snapshot;
use crate::config::ids::{EniId, EniIndex};
use crate::config::protocol::EniStats;
use crate::datapath::shard::Shard;

impl Shard {
    /// Live connections.
    pub fn flow_count(&self) -> usize {
        self.sessions.len()
    }

    /// Room for connections.
    pub fn flows_max(&self) -> usize {
        self.sessions.capacity()
    }

    /// How full the fuller of the tables of connections is, percent of what it was made for.
    pub fn table_percent(&self) -> usize {
        self.sessions.percent()
    }

    /// Bytes of memory that its tables of connections of IPv4 and IPv6 take.
    pub fn memory_bytes(&self) -> [usize; 2] {
        self.sessions.memory_bytes()
    }

    /// The counters of an ENI; none if the snapshot does not have it.
    pub fn stats(&self, snapshot: &Snapshot, eni: EniIndex) -> Option<EniStats> {
        let entry = snapshot.eni(eni)?;
        let empty = crate::datapath::counters::EniCounters::new(entry.epoch);
        let counters = self.counters_of(eni.0 as usize, entry.epoch).unwrap_or(&empty);
        Some(EniStats {
            eni: EniId::clone(&entry.id),
            flows: counters.sessions as u64,
            flows_max: u64::from(entry.sessions_max),
            flows_opened: counters.opened,
            flows_evicted: counters.evicted,
            egress: counters.egress.report(),
            ingress: counters.ingress.report(),
        })
    }
}
