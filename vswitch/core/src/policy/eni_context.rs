//! The context of a decision: one ENI, one direction, one generation.

use crate::acl::Acl;
use crate::compile::snapshot::{EniEntry, Snapshot, UplinkEntry, VpcNetwork};
use crate::config::desired::Direction;
use crate::config::ids::EniIndex;
use crate::config::packed_timeouts::PackedTimeouts;

/// The context of a decision.
#[derive(Clone, Copy)]
pub(crate) struct EniContext<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) index: EniIndex,
    pub(crate) eni: &'a EniEntry,
    pub(crate) network: &'a VpcNetwork,
    /// The rules of the ENI's groups.
    pub(crate) acl: &'a Acl,
    /// Changes with everything that a decision at this ENI can depend on.
    pub(crate) revision: u32,
    pub(crate) direction: Direction,
}

/// The context of what an uplink does.
#[derive(Clone, Copy)]
pub(crate) struct UplinkContext<'a> {
    pub(crate) context: EniContext<'a>,
    pub(crate) entry: &'a UplinkEntry,
}

impl<'a> EniContext<'a> {
    /// The context of `direction` at an ENI; `None` if the snapshot does not have the ENI.
    pub(crate) fn new(snapshot: &'a Snapshot, index: EniIndex, direction: Direction) -> Option<Self> {
        let eni = snapshot.eni(index)?;
        let (network, entry) = snapshot.network(eni)?;
        let revision = snapshot.revision_of(eni, entry);
        Some(Self { snapshot, index, eni, network, acl: &entry.acl, revision, direction })
    }

    /// The context of the uplink, if it is one and no guest's.
    #[inline(always)]
    pub(crate) fn as_uplink(self) -> Option<UplinkContext<'a>> {
        // Asked first: nearly all contexts are of guests, and the entry is elsewhere in memory.
        if !self.eni.is_uplink {
            return None;
        }
        let entry = self.network.uplink.as_deref()?;
        Some(UplinkContext { context: self, entry })
    }

    /// The idle timeouts of a session that is opened in this context.
    pub(crate) fn timeouts(&self) -> PackedTimeouts {
        self.eni.timeouts.under(self.snapshot.settings().timeout_profile)
    }

    /// The index of the ENI's counters in a worker.
    #[inline(always)]
    pub(crate) const fn counters_index(&self) -> usize {
        self.index.0 as usize
    }
}
