//! Look-up tables: the members of groups, and the addresses in use. Derived from the ENIs, never stored.

use super::Eni;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use vswitch_core::config::ids::{EniId, GroupId, MacAddress, VSwitchId, VpcId};

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Index {
    members: BTreeMap<GroupId, BTreeSet<EniId>>,
    /// By subnet, the first address of each taken prefix. Prefixes never overlap.
    addresses: BTreeMap<VSwitchId, BTreeMap<IpAddr, (IpAddr, EniId)>>,
    macs: BTreeMap<(VpcId, MacAddress), EniId>,
}

impl Index {
    pub(super) fn insert(&mut self, id: &EniId, eni: &Eni) {
        for group in &eni.groups {
            self.members.entry(group.clone()).or_default().insert(id.clone());
        }
        let addresses = self.addresses.entry(eni.vswitch.clone()).or_default();
        for prefix in eni.prefixes_of_all() {
            addresses.insert(prefix.network(), (last(prefix), id.clone()));
        }
        self.macs.insert((eni.vpc.clone(), eni.mac), id.clone());
    }

    pub(super) fn remove(&mut self, id: &EniId, eni: &Eni) {
        for group in &eni.groups {
            if let Some(members) = self.members.get_mut(group) {
                members.remove(id);
                if members.is_empty() {
                    self.members.remove(group);
                }
            }
        }
        if let Some(addresses) = self.addresses.get_mut(&eni.vswitch) {
            for prefix in eni.prefixes_of_all() {
                // If a change is undone, the previous holder of an address may already have it again.
                if addresses.get(&prefix.network()).is_some_and(|(_, holder)| holder == id) {
                    addresses.remove(&prefix.network());
                }
            }
            if addresses.is_empty() {
                self.addresses.remove(&eni.vswitch);
            }
        }
        let mac = (eni.vpc.clone(), eni.mac);
        if self.macs.get(&mac) == Some(id) {
            self.macs.remove(&mac);
        }
    }

    /// Members of a group.
    pub(crate) fn members(&self, group: &GroupId) -> impl ExactSizeIterator<Item = &EniId> + use<'_> {
        static NOBODY: BTreeSet<EniId> = BTreeSet::new();
        self.members.get(group).unwrap_or(&NOBODY).iter()
    }

    /// The interface that has an address of `prefix` in a subnet.
    pub(super) fn holder(&self, vswitch: &VSwitchId, prefix: IpNet) -> Option<&EniId> {
        self.taken(vswitch, prefix).map(|(_, holder)| holder)
    }

    /// The last address of the taken prefix that overlaps `prefix`.
    pub(super) fn end_of_taken(&self, vswitch: &VSwitchId, prefix: IpNet) -> Option<IpAddr> {
        self.taken(vswitch, prefix).map(|(end, _)| *end)
    }

    fn taken(&self, vswitch: &VSwitchId, prefix: IpNet) -> Option<&(IpAddr, EniId)> {
        let (_, taken) = self.addresses.get(vswitch)?.range(..=last(prefix)).next_back()?;
        // Both families share the map: every IPv4 address sorts before every IPv6 address.
        (taken.0.is_ipv4() == prefix.network().is_ipv4() && taken.0 >= prefix.network()).then_some(taken)
    }

    pub(super) fn has_mac(&self, vpc: &VpcId, mac: MacAddress) -> bool {
        self.macs.contains_key(&(vpc.clone(), mac))
    }
}

/// The last address of a prefix; for IPv4 the broadcast address.
fn last(prefix: IpNet) -> IpAddr {
    prefix.broadcast()
}
