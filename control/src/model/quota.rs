//! How much of everything there may be (`semantics.md` §6). The figures are configuration.

use serde::{Deserialize, Serialize};

/// The limits of one account in one region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// VPCs.
    pub vpcs_max: usize,
    /// vSwitches of one VPC.
    pub vswitches_per_vpc_max: usize,
    /// Custom routes of one VPC.
    pub routes_per_vpc_max: usize,
    /// ENIs.
    pub enis_max: usize,
    /// Security groups.
    pub groups_max: usize,
    /// Rules, weighed, of both directions and all groups of one ENI. Also of one group alone.
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
    /// Delegated prefixes of one ENI.
    pub prefixes_per_eni_max: usize,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            vpcs_max: 1000,
            vswitches_per_vpc_max: 150,
            routes_per_vpc_max: 200,
            enis_max: vswitch_core::limits::ENIS_MAX,
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
        }
    }
}
