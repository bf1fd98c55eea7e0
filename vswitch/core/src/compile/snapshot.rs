//! What packets may read: one generation of the whole configuration, compiled and immutable. Generations share what did
//! not change between them.

use crate::acl::Acl;
use crate::config::desired::{Direction, Settings};
use crate::config::dhcp::DhcpOptionsSet;
use crate::config::ids::{EniEpoch, EniId, EniIndex, MacAddress, VpcId, VpcIndex};
use crate::config::packed_timeouts::PackedTimeouts;
use crate::config::rate_limits::RateLimits;
use crate::config::uplink::{UplinkIpv4, UplinkIpv6};
use crate::nat::table::NatTable;
use crate::packet::headers::{Addresses, Tuple};
use crate::packet::verdict::Decision;
use crate::tables::address_class::{AddressClass, SetCombinationId, SetId};
use crate::tables::address_entry::AddressEntry;
use crate::tables::address_table::AddressTable;
use crate::tables::cow_array::CowArray;
use crate::tables::route::AddressRoute;
use alloc::string::String;
use alloc::sync::Arc;
use core::net::{Ipv4Addr, Ipv6Addr};
use ipnet::{Ipv4Net, Ipv6Net};

/// One generation. Only a [`Compiler`](crate::compile::Compiler) makes it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) generation: u64,
    /// Identifies the contents: snapshots that differ have different ones, as long as one of them is kept.
    pub(crate) identity: Arc<()>,
    pub(crate) settings: Settings,
    /// Whether any ENI has a rate limit.
    pub(crate) has_rate_limits: bool,
    /// By [`EniIndex`].
    pub(crate) enis: CowArray<Option<EniEntry>>,
    /// By [`EniEntry::vpc`].
    pub(crate) vpcs: CowArray<Option<Arc<VpcNetwork>>>,
    /// The uplinks among the ENIs.
    pub(crate) uplinks: Arc<[EniIndex]>,
    /// No ENI has an older revision.
    pub(crate) revision_min: u32,
    /// Revisions and the generations that introduced them, wherever the two did not advance together.
    pub(crate) numbering: Arc<[(u32, u64)]>,
}

/// An ENI as packets use it.
#[derive(Clone, Debug)]
pub(crate) struct EniEntry {
    pub(crate) id: Arc<EniId>,
    /// What only its guest is told; no packet is evaluated by it.
    pub(crate) guest: Arc<GuestFacts>,
    pub(crate) epoch: EniEpoch,
    /// Changes with everything that affects only decisions at this ENI. See [`Snapshot::revision`].
    pub(crate) revision: u32,
    /// The index of its VPC in [`Snapshot::vpcs`].
    pub(crate) vpc: u32,
    /// The index of its subnet in [`VpcNetwork::vswitches`].
    pub(crate) vswitch: u32,
    /// The index of its groups' rules in [`VpcNetwork::acls`].
    pub(crate) acl: u32,
    pub(crate) mac: MacAddress,
    /// Its first IPv4 address, which nearly every packet has.
    pub(crate) ipv4: Option<u32>,
    pub(crate) ipv6: Option<u128>,
    pub(crate) source_dest_check: bool,
    pub(crate) routed_as_own: bool,
    /// Whether it is the uplink of its VPC, and no guest's.
    pub(crate) is_uplink: bool,
    pub(crate) tcp_window_check: bool,
    /// The largest layer-3 packet that its port carries, bytes.
    pub(crate) mtu_bytes: u16,
    pub(crate) timeouts: PackedTimeouts,
    pub(crate) sessions_max: u32,
    pub(crate) sessions_guaranteed: u32,
    pub(crate) new_sessions_per_s: Option<u32>,
    /// None without any limit.
    pub(crate) rate_limits: Option<Arc<RateLimits>>,
}

/// A VPC as packets use it.
#[derive(Clone, Debug)]
pub(crate) struct VpcNetwork {
    /// Spreads the connections of networks that use the same addresses.
    pub(crate) salt: u32,
    pub(crate) gateway_mac: MacAddress,
    pub(crate) vswitches: CowArray<VSwitchEntry>,
    pub(crate) v4: AddressTable<u32>,
    pub(crate) v6: AddressTable<u128>,
    /// The sets of each set combination, ascending.
    pub(crate) sets: CowArray<Arc<[SetId]>>,
    /// What guests are told.
    pub(crate) dhcp: Arc<DhcpOptionsSet>,
    /// The way out.
    pub(crate) uplink: Option<Arc<UplinkEntry>>,
    /// The rules of each combination of groups that an ENI has.
    pub(crate) acls: CowArray<Option<AclEntry>>,
}

/// The way out of a VPC as packets use it.
#[derive(Debug)]
pub(crate) struct UplinkEntry {
    /// Its index among ENIs.
    pub(crate) index: EniIndex,
    /// The router's hardware address there.
    pub(crate) mac: MacAddress,
    /// The next hop's, if it is configured.
    pub(crate) next_hop_mac: Option<MacAddress>,
    pub(crate) ipv4: Option<UplinkIpv4>,
    pub(crate) ipv6: Option<UplinkIpv6>,
    pub(crate) nat: NatTable,
}

/// The rules of a combination of groups.
#[derive(Clone, Debug)]
pub(crate) struct AclEntry {
    /// Changes with the rules and with the members of every set that they name.
    pub(crate) revision: u32,
    pub(crate) acl: Arc<Acl>,
}

/// What an ENI's guest is told, and no packet is evaluated by.
#[derive(Debug, Default)]
pub(crate) struct GuestFacts {
    /// The VPC.
    pub(crate) vpc: VpcId,
    pub(crate) hostname: Option<String>,
    /// The first IPv6 prefix that is delegated to it.
    pub(crate) ipv6_prefix: Option<Ipv6Net>,
    /// Whether the switch itself configures its device.
    pub(crate) is_configured: bool,
}

/// The virtual router's addresses in a subnet, and the subnet's blocks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct VSwitchEntry {
    pub(crate) ipv4: Option<Ipv4Net>,
    pub(crate) ipv6: Option<Ipv6Net>,
    pub(crate) ipv4_gateway: Option<Ipv4Addr>,
    pub(crate) ipv6_gateway: Option<Ipv6Addr>,
}

impl EniEntry {
    /// Whether the source of `addresses` is the first address of the ENI.
    #[inline(always)]
    pub(crate) fn is_first_address(&self, addresses: Addresses) -> bool {
        match addresses {
            Addresses::V4 { source, .. } => self.ipv4 == Some(source),
            Addresses::V6 { source, .. } => self.ipv6 == Some(source),
        }
    }
}

impl VpcNetwork {
    /// The address table's entry for the source of `addresses`.
    #[inline(always)]
    pub(crate) fn source(&self, addresses: Addresses) -> AddressEntry {
        match addresses {
            Addresses::V4 { source, .. } => self.v4.find(source),
            Addresses::V6 { source, .. } => self.v6.find(source),
        }
    }

    /// The address table's entry for the destination of `addresses`.
    #[inline(always)]
    pub(crate) fn destination(&self, addresses: Addresses) -> AddressEntry {
        self.source(addresses.reverse())
    }

    /// The route for the destination of `addresses`.
    #[inline(always)]
    pub(crate) fn route(&self, addresses: Addresses) -> AddressRoute {
        self.destination(addresses).route()
    }

    /// Step 3 (§3.2): an open group of `acl` that contains a peer of this class.
    #[inline]
    pub(crate) fn shared_open_group(&self, acl: &Acl, peer: AddressClass) -> Option<u32> {
        acl.shared_open_group(peer, |sets| self.sets_of(sets))
    }

    /// Steps 4 and 5 (§3.1, §3.3) with `acl` for a peer of this class: the first matching rule, or the default.
    #[inline]
    pub(crate) fn decide(&self, acl: &Acl, direction: Direction, tuple: &Tuple, peer: AddressClass) -> Decision {
        acl.decide(direction, tuple, peer, |sets| self.sets_of(sets))
    }

    fn sets_of(&self, sets: SetCombinationId) -> &[SetId] {
        self.sets.get(sets.0 as usize).map_or(&[], |sets| sets)
    }
}

impl Snapshot {
    /// The number of this generation.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether any ENI has a rate limit: if not, nobody has to ask for them.
    pub fn has_rate_limits(&self) -> bool {
        self.has_rate_limits
    }

    /// The uplinks among the ENIs.
    pub fn uplinks(&self) -> &[EniIndex] {
        &self.uplinks
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The index of an ENI. Searches all of them.
    pub fn eni_index(&self, id: &EniId) -> Option<EniIndex> {
        self.enis().find(|(_, other)| *other == id).map(|(index, _)| index)
    }

    /// The ENI's name, if it exists in this generation.
    pub fn eni_id(&self, index: EniIndex) -> Option<&EniId> {
        self.eni(index).map(|eni| &*eni.id)
    }

    /// All ENIs, by index.
    pub fn enis(&self) -> impl Iterator<Item = (EniIndex, &EniId)> {
        let entries = self.enis.iter().enumerate();
        entries.filter_map(|(index, eni)| Some((EniIndex(index as u32), &*eni.as_ref()?.id)))
    }

    /// The generation that introduced a policy revision, if it is still known.
    pub(crate) fn generation_of(&self, revision: u32) -> Option<u64> {
        // Revisions after a restart count from another number; between two jumps both advance together.
        let (first, generation) = self.numbering.iter().rfind(|(first, _)| *first <= revision)?;
        Some(generation + u64::from(revision - first))
    }

    /// The policy revision of an ENI. It changes whenever something changes that a decision at this ENI can depend on.
    pub fn revision(&self, index: EniIndex) -> Option<u32> {
        let eni = self.eni(index)?;
        Some(self.revision_of(eni, self.network(eni)?.1))
    }

    #[inline]
    pub(crate) fn eni(&self, index: EniIndex) -> Option<&EniEntry> {
        self.enis.get(index.0 as usize)?.as_ref()
    }

    /// A VPC by its index.
    #[inline]
    pub(crate) fn vpc(&self, index: VpcIndex) -> Option<&VpcNetwork> {
        self.vpcs.get(index.0 as usize)?.as_deref()
    }

    /// The VPC of an ENI, and the rules of its groups.
    #[inline]
    pub(crate) fn network(&self, eni: &EniEntry) -> Option<(&VpcNetwork, &AclEntry)> {
        let network = self.vpcs.get(eni.vpc as usize)?.as_deref()?;
        Some((network, network.acls.get(eni.acl as usize)?.as_ref()?))
    }

    /// A part that changes gets a revision newer than all others, so the maximum changes as well.
    #[inline]
    pub(crate) fn revision_of(&self, eni: &EniEntry, acl: &AclEntry) -> u32 {
        eni.revision.max(acl.revision).max(self.revision_min)
    }
}
