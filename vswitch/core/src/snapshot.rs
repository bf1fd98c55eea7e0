//! What a packet may read: one generation of the whole configuration, compiled and immutable.

use crate::desired::{Desired, Direction, Settings};
use crate::filter::{Filter, SetId};
use crate::flow::PackedTimeouts;
use crate::headers::{Addresses, Tuple};
use crate::ids::{EniId, EniIndex, FlowScope, GroupId, MacAddress, PrefixListId};
use crate::prefix_map::PrefixMap;
use crate::route::Route;
use crate::verdict::Judgement;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};
use ipnet::IpNet;

/// One generation. Made by [`compile`](crate::compile::compile) alone.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) generation: u64,
    pub(crate) desired: Desired,
    pub(crate) enis: Vec<Option<EniEntry>>,
    pub(crate) by_id: BTreeMap<EniId, EniIndex>,
    pub(crate) vpcs: Vec<VpcNetwork>,
    pub(crate) filters: BTreeMap<Box<[GroupId]>, Arc<Filter>>,
    pub(crate) sets: SetRegistry,
    /// The newest policy revision given to any ENI.
    pub(crate) revision: u32,
    /// The newest flow scope given to any ENI.
    pub(crate) scope: u32,
}

/// An ENI as packets see it.
#[derive(Clone, Debug)]
pub(crate) struct EniEntry {
    pub(crate) id: EniId,
    pub(crate) scope: FlowScope,
    /// Changes with everything that a judgement at this ENI can depend on.
    pub(crate) revision: u32,
    /// Its VPC, as a place in [`Snapshot::vpcs`].
    pub(crate) vpc: usize,
    /// Its subnet, as a place in [`VpcNetwork::vswitches`].
    pub(crate) vswitch: u32,
    pub(crate) mac: MacAddress,
    /// Its first address of each family: nearly every packet has it.
    pub(crate) ipv4: Option<u32>,
    pub(crate) ipv6: Option<u128>,
    pub(crate) source_dest_check: bool,
    /// The largest layer-3 packet that its port carries.
    pub(crate) mtu_bytes: u16,
    pub(crate) timeouts: PackedTimeouts,
    pub(crate) sessions_max: u32,
    pub(crate) filter: Arc<Filter>,
}

/// The sets that an address is in, as one number of its VPC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Class(pub(crate) u32);

/// What a VPC knows of an address, from one look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where packets for it go.
    pub(crate) route: Route,
    /// What rules can tell about it as a peer.
    pub(crate) class: Class,
}

/// A VPC as packets see it.
#[derive(Debug)]
pub(crate) struct VpcNetwork {
    /// Spreads the connections of networks that use the same addresses.
    pub(crate) salt: u32,
    pub(crate) gateway_mac: MacAddress,
    pub(crate) vswitches: Vec<VSwitchEntry>,
    pub(crate) places: PrefixMap<Place>,
    /// The sets that the addresses of a class are in, ascending.
    pub(crate) classes: Vec<Box<[SetId]>>,
}

/// The virtual router's addresses in one subnet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VSwitchEntry {
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
    /// What is known of the source of `addresses`.
    #[inline(always)]
    pub(crate) fn source(&self, addresses: Addresses) -> Place {
        match addresses {
            Addresses::V4 { source, .. } => self.places.find_v4(source),
            Addresses::V6 { source, .. } => self.places.find_v6(source),
        }
    }

    /// What is known of the destination of `addresses`.
    #[inline(always)]
    pub(crate) fn destination(&self, addresses: Addresses) -> Place {
        match addresses {
            Addresses::V4 { destination, .. } => self.places.find_v4(destination),
            Addresses::V6 { destination, .. } => self.places.find_v6(destination),
        }
    }

    /// Where packets for the destination of `addresses` go.
    #[inline(always)]
    pub(crate) fn route(&self, addresses: Addresses) -> Route {
        self.destination(addresses).route
    }

    /// Step 3 (§3.2): an open group of `filter` that holds a peer of this class.
    #[inline]
    pub(crate) fn shared_open_group(&self, filter: &Filter, peer: Class) -> Option<u32> {
        filter.shared_open_group(&self.classes[peer.0 as usize])
    }

    /// Steps 4 and 5 (§3.1, §3.3) of `filter` for a peer of this class: the first matching rule, or the default.
    #[inline]
    pub(crate) fn judge(&self, filter: &Filter, direction: Direction, tuple: &Tuple, peer: Class) -> Judgement {
        filter.judge(direction, tuple, &self.classes[peer.0 as usize])
    }
}

/// What a set is, to recognise it in the next generation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SetKey {
    Prefix(IpNet),
    PrefixList(PrefixListId),
    Group(GroupId),
}

/// The sets in use, their numbers, and what they hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct SetRegistry {
    pub(crate) sets: BTreeMap<SetKey, SetEntry>,
    pub(crate) free: Vec<SetId>,
    pub(crate) next: u32,
}

/// One set.
#[derive(Clone, Debug)]
pub(crate) struct SetEntry {
    pub(crate) id: SetId,
    pub(crate) members: Vec<IpNet>,
}

impl Snapshot {
    /// The number of this generation.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The state this was compiled from.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// Choices that the specification leaves open.
    pub fn settings(&self) -> &Settings {
        &self.desired.settings
    }

    /// The ENI's number.
    pub fn eni_index(&self, id: &EniId) -> Option<EniIndex> {
        self.by_id.get(id).copied()
    }

    /// The ENI's name, if it exists in this generation.
    pub fn eni_id(&self, index: EniIndex) -> Option<&EniId> {
        self.eni(index).map(|eni| &eni.id)
    }

    /// All ENIs.
    pub fn enis(&self) -> impl Iterator<Item = (EniIndex, &EniId)> {
        self.by_id.iter().map(|(id, &index)| (index, id))
    }

    /// The policy revision of an ENI: it changes when anything changes that a judgement at this ENI can depend on.
    pub fn revision(&self, index: EniIndex) -> Option<u32> {
        self.eni(index).map(|eni| eni.revision)
    }

    pub(crate) fn eni(&self, index: EniIndex) -> Option<&EniEntry> {
        self.enis.get(index.0 as usize)?.as_ref()
    }
}
