//! What a packet may read: one generation of the whole configuration, compiled and immutable.

use crate::desired::{Desired, Settings};
use crate::filter::{Filter, SetId};
use crate::flow::PackedTimeouts;
use crate::headers::Addresses;
use crate::ids::{EniId, EniIndex, FlowScope, GroupId, MacAddress, PrefixListId};
use crate::prefix_map::PrefixMap;
use crate::route::Route;
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
    /// The generation that brought the revision.
    pub(crate) since_generation: u64,
    /// Its VPC, as a place in [`Snapshot::vpcs`].
    pub(crate) vpc: usize,
    /// Its subnet, as a place in [`VpcNetwork::vswitches`].
    pub(crate) vswitch: u32,
    pub(crate) mac: MacAddress,
    /// Its first address of each family: nearly every packet has it.
    pub(crate) ipv4: Option<u32>,
    pub(crate) ipv6: Option<u128>,
    pub(crate) source_dest_check: bool,
    pub(crate) tcp_window_check: bool,
    /// The largest layer-3 packet that its port carries.
    pub(crate) mtu_bytes: u16,
    pub(crate) timeouts: PackedTimeouts,
    pub(crate) sessions_max: u32,
    pub(crate) filter: Arc<Filter>,
}

/// A VPC as packets see it.
#[derive(Debug)]
pub(crate) struct VpcNetwork {
    /// Spreads the connections of networks that use the same addresses.
    pub(crate) salt: u32,
    pub(crate) gateway_mac: MacAddress,
    pub(crate) vswitches: Vec<VSwitchEntry>,
    pub(crate) routes: PrefixMap<Route>,
    /// The class of every address, as a place in `classes`.
    pub(crate) class_of: PrefixMap<u32>,
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
    #[inline]
    pub(crate) fn is_first_address(&self, addresses: Addresses) -> bool {
        match addresses {
            Addresses::V4 { source, .. } => self.ipv4 == Some(source),
            Addresses::V6 { source, .. } => self.ipv6 == Some(source),
        }
    }
}

impl VpcNetwork {
    /// The sets that the source of `addresses` is in.
    pub(crate) fn sets_of_source(&self, addresses: Addresses) -> &[SetId] {
        let class = match addresses {
            Addresses::V4 { source, .. } => self.class_of.find_v4(source),
            Addresses::V6 { source, .. } => self.class_of.find_v6(source),
        };
        &self.classes[class as usize]
    }

    /// Where packets for the destination of `addresses` go.
    pub(crate) fn route(&self, addresses: Addresses) -> Route {
        match addresses {
            Addresses::V4 { destination, .. } => self.routes.find_v4(destination),
            Addresses::V6 { destination, .. } => self.routes.find_v6(destination),
        }
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
