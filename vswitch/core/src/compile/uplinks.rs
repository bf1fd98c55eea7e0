//! Uplinks: each has an index among the ENIs, so that ports, counters and packets treat it alike, and no rules.

use super::{AppliedDelta, Compiler, GuestFacts};
use crate::compile::snapshot::{EniEntry, UplinkEntry};
use crate::config::desired::{DesiredPort, DesiredUplink, Tracking};
use crate::config::ids::{EniId, EniIndex, UplinkId, VpcId};
use crate::config::packed_timeouts::PackedTimeouts;
use crate::config::uplink::PrivateEnd;
use crate::nat::table::NatTable;
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

impl Compiler {
    /// Removes uplinks that were removed or changed.
    pub(super) fn take_uplinks_away(&mut self, change: &AppliedDelta<'_>, dirty: &mut BTreeSet<VpcId>) {
        for (id, before) in &change.before.uplinks {
            let Some(before) = before else { continue };
            let index = self.by_id.get(&id.interface()).copied().unwrap_or_default();
            let acl = self.snapshot.eni(index).map(|entry| entry.acl);
            if let (Some(state), Some(acl)) = (self.vpcs.get_mut(&before.vpc), acl) {
                state.remove_acl_use(acl);
                if change.desired.uplinks.get(id).is_none_or(|now| now.vpc != before.vpc) {
                    state.uplink = None;
                }
                dirty.insert(before.vpc.clone());
            }
        }
    }

    /// Adds uplinks that are new or changed, and compiles what is translated there. Returns the ACL of each.
    pub(super) fn put_uplinks_in_place<'a>(
        &mut self,
        change: &AppliedDelta<'a>,
        dirty: &mut BTreeSet<VpcId>,
    ) -> Vec<(&'a UplinkId, u32)> {
        let mut acls = Vec::new();
        for (id, uplink) in &change.desired.uplinks {
            let is_named = change.before.uplinks.contains_key(id);
            // An ENI that is removed and comes back has another index.
            if !is_named && !uplink.nat.enis().any(|eni| change.enis.contains_key(eni)) {
                continue;
            }
            let entry = self.uplink_entry(id, uplink);
            let Some(state) = self.vpcs.get_mut(&uplink.vpc) else { continue };
            state.uplink = Some(Arc::new(entry));
            dirty.insert(uplink.vpc.clone());
            if is_named {
                acls.push((id, state.add_acl_use(Box::default())));
            }
        }
        acls
    }

    fn uplink_entry(&mut self, id: &UplinkId, uplink: &DesiredUplink) -> UplinkEntry {
        let by_id = &self.by_id;
        let index_of = |id: &EniId| by_id.get(id).copied().unwrap_or_default();
        let before = self.vpcs.get(&uplink.vpc).and_then(|state| state.uplink.as_deref());
        // An address that stays keeps its blocks, so that connections go on.
        let blocks = |address| before?.nat.blocks_of(address);
        self.nat_version += 1;
        UplinkEntry {
            index: index_of(&id.interface()),
            mac: uplink.mac,
            next_hop_mac: uplink.next_hop_mac,
            ipv4: uplink.ipv4,
            ipv6: uplink.ipv6,
            nat: NatTable::new(&uplink.nat, self.nat_version, |end: &PrivateEnd| index_of(&end.eni), blocks),
        }
    }

    /// Enters an uplink that is new or changed among the ENIs.
    pub(super) fn enter_uplink(&mut self, change: &AppliedDelta<'_>, id: &UplinkId, acl: u32, revision: u32) {
        let interface = id.interface();
        let Some((uplink, index)) = change.desired.uplinks.get(id).zip(self.by_id.get(&interface).copied()) else {
            return;
        };
        let Some(vpc) = self.vpcs.get(&uplink.vpc).map(|state| state.place) else { return };
        let epoch = self.snapshot.eni(index).map(|entry| entry.epoch).unwrap_or_else(|| self.next_scope());
        let tracking = Tracking::default();
        *self.snapshot.enis.get_mut(index.0 as usize) = Some(EniEntry {
            id: self.names[index.0 as usize].clone().unwrap_or_default(),
            guest: Arc::new(GuestFacts::default()),
            epoch,
            revision,
            vpc,
            // It is in no subnet: whatever crosses it crosses a router.
            vswitch: u32::MAX,
            acl,
            mac: uplink.next_hop_mac.unwrap_or_default(),
            ipv4: None,
            ipv6: None,
            source_dest_check: false,
            routed_as_own: false,
            is_uplink: true,
            tcp_window_check: false,
            mtu_bytes: DesiredPort::mtu_bytes(&uplink.port),
            timeouts: PackedTimeouts::default(),
            sessions_max: 0,
            sessions_guaranteed: tracking.sessions_guaranteed,
            new_sessions_per_s: None,
            rate_limits: None,
        });
    }

    /// The uplinks among the ENIs.
    pub(super) fn uplink_indexes(&self, change: &AppliedDelta<'_>) -> Arc<[EniIndex]> {
        change.desired.uplinks.keys().filter_map(|id| self.by_id.get(&id.interface()).copied()).collect()
    }
}
