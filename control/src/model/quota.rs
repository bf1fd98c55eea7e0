//! Quotas (`semantics.md` §6). The figures are configurable.

use super::{Event, Metadata, Model};
use crate::error::{
    ApiError, ENI_COUNT_EXCEEDED, ErrorKind, QUOTA_EIP, QUOTA_GROUP, QUOTA_PORT_LIST, QUOTA_PREFIX_LIST, QUOTA_RECORD,
    QUOTA_VPC,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The limits of one account in one region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// VPCs.
    pub vpcs_max: usize,
    /// vSwitches of one VPC.
    pub vswitches_per_vpc_max: usize,
    /// Additional IPv4 blocks of one VPC.
    pub secondary_cidrs_per_vpc_max: usize,
    /// Reservations in one vSwitch.
    pub reservations_per_vswitch_max: usize,
    /// Custom routes of one VPC.
    pub routes_per_vpc_max: usize,
    /// Floating addresses.
    pub eips_max: usize,
    /// NAT gateways of one VPC.
    pub nat_gateways_per_vpc_max: usize,
    /// Entries for sources of one NAT gateway.
    pub snat_entries_per_nat_max: usize,
    /// Forwards of one VPC.
    pub forwards_per_vpc_max: usize,
    /// ENIs.
    pub enis_max: usize,
    /// Security groups.
    pub groups_max: usize,
    /// The weight of the rules of both directions in all groups of one ENI. It also limits a single group.
    pub rules_per_eni_max: usize,
    /// Rules of one group with a group as object.
    pub group_objects_per_group_max: usize,
    /// Groups of one ENI.
    pub groups_per_eni_max: usize,
    /// Private addresses of the members of a basic group.
    pub basic_group_addresses_max: usize,
    /// Members of an advanced group.
    pub advanced_group_enis_max: usize,
    /// Rules in one call.
    pub rules_per_call_max: usize,
    /// Prefix lists.
    pub prefix_lists_max: usize,
    /// The largest room a prefix list may have.
    pub prefix_list_entries_max: u32,
    /// Groups that may name one prefix list.
    pub prefix_list_groups_max: usize,
    /// Port lists. The cloud publishes no figure.
    pub port_lists_max: usize,
    /// The largest room a port list may have.
    pub port_list_entries_max: u32,
    /// Entries added to or taken from a port list in one call.
    pub port_list_entries_per_call_max: usize,
    /// Secondary IPv4 addresses of one ENI.
    pub secondary_ipv4_per_eni_max: usize,
    /// IPv6 addresses of one ENI.
    pub ipv6_per_eni_max: usize,
    /// Delegated prefixes of one ENI, of either family.
    pub prefixes_per_eni_max: usize,
    /// Objects that have nothing to do with packets, such as key pairs.
    pub records_max: usize,
    /// Tags of one object.
    pub tags_per_object_max: usize,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            vpcs_max: 1000,
            vswitches_per_vpc_max: 150,
            secondary_cidrs_per_vpc_max: 5,
            reservations_per_vswitch_max: 100,
            routes_per_vpc_max: 200,
            eips_max: 1000,
            nat_gateways_per_vpc_max: 5,
            snat_entries_per_nat_max: 40,
            // Each is one of TCP and one of UDP, if it is for both.
            forwards_per_vpc_max: vswitch_core::config::limits::NAT_FORWARDS_MAX / 2,
            enis_max: vswitch_core::config::limits::ENIS_MAX,
            groups_max: 100,
            rules_per_eni_max: 1000,
            group_objects_per_group_max: 20,
            groups_per_eni_max: 10,
            basic_group_addresses_max: 6000,
            advanced_group_enis_max: 65_536,
            rules_per_call_max: 100,
            prefix_lists_max: 100,
            prefix_list_entries_max: 200,
            prefix_list_groups_max: 1000,
            port_lists_max: 100,
            port_list_entries_max: 2000,
            port_list_entries_per_call_max: 200,
            secondary_ipv4_per_eni_max: 49,
            ipv6_per_eni_max: 10,
            prefixes_per_eni_max: 10,
            // Each instance has at least one disk.
            records_max: 2 * vswitch_core::config::limits::ENIS_MAX,
            tags_per_object_max: 20,
        }
    }
}

/// What an account may have a limited number of in a region.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Counted {
    Vpc,
    Eni,
    Group,
    PrefixList,
    PortList,
    Record,
    Eip,
}

impl Counted {
    fn of(event: &Event) -> Option<Self> {
        match event {
            Event::Vpc(..) => Some(Self::Vpc),
            Event::Eni(..) => Some(Self::Eni),
            Event::Group(..) => Some(Self::Group),
            Event::PrefixList(..) => Some(Self::PrefixList),
            Event::PortList(..) => Some(Self::PortList),
            Event::Record(..) => Some(Self::Record),
            Event::Eip(..) => Some(Self::Eip),
            _ => None,
        }
    }

    fn limit(self, quotas: &Quotas) -> (usize, ErrorKind, &'static str) {
        match self {
            Self::Vpc => (quotas.vpcs_max, QUOTA_VPC, "VPCs"),
            Self::Eni => (quotas.enis_max, ENI_COUNT_EXCEEDED, "network interfaces"),
            Self::Group => (quotas.groups_max, QUOTA_GROUP, "security groups"),
            Self::PrefixList => (quotas.prefix_lists_max, QUOTA_PREFIX_LIST, "prefix lists"),
            Self::PortList => (quotas.port_lists_max, QUOTA_PORT_LIST, "port lists"),
            Self::Record => (quotas.records_max, QUOTA_RECORD, "objects of its kinds"),
            Self::Eip => (quotas.eips_max, QUOTA_EIP, "floating addresses"),
        }
    }
}

impl Model {
    /// Refuses new objects that exceed their account's quota in their region.
    pub(super) fn check_quotas(&self, events: &[Event]) -> Result<(), ApiError> {
        let mut last: BTreeMap<(Counted, &str), bool> = BTreeMap::new();
        let mut labels: BTreeMap<&str, &Metadata> = BTreeMap::new();
        for event in events {
            if let Event::Metadata(id, Some(label)) = event {
                labels.insert(id, label);
            }
            if let Some(kind) = Counted::of(event) {
                last.insert((kind, event.id()), !event.is_end());
            }
        }
        let label = |id: &str| labels.get(id).copied().unwrap_or_else(|| self.label(id));
        let mut new: BTreeMap<(Counted, &str, &str), usize> = BTreeMap::new();
        for ((kind, id), _) in last.iter().filter(|((_, id), stays)| **stays && !self.has_object(id)) {
            *new.entry((*kind, &label(id).owner, &label(id).region)).or_default() += 1;
        }
        for ((kind, owner, region), count) in new {
            let (most, error, what) = kind.limit(&self.quotas);
            let goes = |id: &str| last.get(&(kind, id)) == Some(&false);
            // In most cases all accounts together are below the quota.
            let all = self.ids_of(kind).count();
            let held = match all + count > most {
                true => self.ids_of(kind).filter(|id| !goes(id) && self.is_of(id, owner, region)).count(),
                false => 0,
            };
            if held + count > most {
                return Err(error.error(format!("there are {held} {what}, and at most {most} may be")));
            }
        }
        Ok(())
    }

    fn is_of(&self, id: &str, owner: &str, region: &str) -> bool {
        let label = self.label(id);
        label.owner == owner && label.region == region
    }

    fn ids_of(&self, kind: Counted) -> Box<dyn Iterator<Item = &str> + '_> {
        match kind {
            Counted::Vpc => Box::new(self.vpcs.keys().map(|id| id.as_str())),
            Counted::Eni => Box::new(self.enis.keys().map(|id| id.as_str())),
            Counted::Group => Box::new(self.groups.keys().map(|id| id.as_str())),
            Counted::PrefixList => Box::new(self.prefix_lists.keys().map(|id| id.as_str())),
            Counted::PortList => Box::new(self.port_lists.keys().map(|id| id.as_str())),
            Counted::Record => Box::new(self.records.keys().map(String::as_str)),
            Counted::Eip => Box::new(self.eips.keys().map(String::as_str)),
        }
    }
}
