//! What is configured about external addresses, compiled: read by every worker, changed with the snapshot.

use crate::config::ids::EniIndex;
use crate::config::uplink::{DesiredNat, NatFiltering, PortForward, PrivateEnd};
use crate::nat::port_blocks::PortBlocks;
use crate::packet::headers::Addresses;
use crate::tables::number_hasher::NumberHasher;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hash::BuildHasherDefault;
use core::net::Ipv4Addr;
use hashbrown::HashMap;

/// An address, and a port unless ports stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NatEnd {
    pub(crate) address: u32,
    /// For ICMP the identifier of a query.
    pub(crate) port: Option<u16>,
}

/// What becomes of all packets from a private address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceTranslation {
    /// It stays as it is.
    None,
    /// It becomes this address, and ports stay.
    Address(u32),
    /// It depends on the port.
    ByPort,
}

/// An external address of which ENIs get port blocks.
#[derive(Clone, Debug)]
pub(crate) struct PoolAddress {
    pub(crate) address: u32,
    pub(crate) blocks: Arc<PortBlocks>,
}

/// The external addresses of an uplink.
#[derive(Debug)]
pub(crate) struct NatTable {
    /// Differs between all tables there have been, so that what was derived from one can be told to be of another.
    pub(crate) version: u64,
    pub(crate) filtering: NatFiltering,
    pub(crate) port_blocks_max: usize,
    pub(crate) udp_timeout_s: u32,
    pub(crate) routes_private: bool,
    /// By private address.
    floating_of: ByAddress<u32>,
    /// Ordered by external address, protocol and first port.
    forwards: Vec<Forward>,
    /// Ordered by private address, protocol and first port.
    forwards_back: Vec<Forward>,
    /// By length, the longest first: private prefixes of that length, with their external addresses.
    sources: Vec<(u8, ByAddress<Arc<[PoolAddress]>>)>,
    external: ByAddress<ExternalAddress>,
}

/// What an external address stands for.
#[derive(Debug, Default)]
pub(crate) struct ExternalAddress {
    /// An ENI and its private address, if it is a floating one.
    floating: Option<(EniIndex, u32)>,
    has_forwards: bool,
    /// Its port blocks, if connections get ports of it.
    blocks: Option<Arc<PortBlocks>>,
}

impl ExternalAddress {
    /// The ENI that has a port of it for its connections.
    #[inline]
    pub(crate) fn owner(&self, port: u16) -> Option<EniIndex> {
        self.blocks.as_ref()?.owner(port)
    }
}

type ByAddress<V> = HashMap<u32, V, BuildHasherDefault<NumberHasher>>;

/// Ports that lead from one address to another, seen from either side.
#[derive(Clone, Copy, Debug)]
struct Forward {
    address: u32,
    protocol: u8,
    first: u16,
    last: u16,
    to: u32,
    to_first: u16,
    eni: EniIndex,
}

impl NatTable {
    /// Compiles what is desired. `blocks` has the port blocks of an address that was there before.
    pub(crate) fn new(
        nat: &DesiredNat,
        version: u64,
        index_of: impl Fn(&PrivateEnd) -> EniIndex,
        blocks: impl Fn(u32) -> Option<Arc<PortBlocks>>,
    ) -> Self {
        let mut external: ByAddress<ExternalAddress> = ByAddress::default();
        for (address, to) in &nat.floating {
            external.entry(address.to_bits()).or_default().floating = Some((index_of(to), to.address.to_bits()));
        }
        for forward in &nat.forwards {
            external.entry(forward.external.to_bits()).or_default().has_forwards = true;
        }
        let mut pool_address = |address: &Ipv4Addr| {
            let address = address.to_bits();
            let of_address = &mut external.entry(address).or_default().blocks;
            let blocks =
                of_address.get_or_insert_with(|| blocks(address).unwrap_or_else(|| Arc::new(PortBlocks::new())));
            PoolAddress { address, blocks: Arc::clone(blocks) }
        };
        let mut sources: BTreeMap<u8, ByAddress<Arc<[PoolAddress]>>> = BTreeMap::new();
        for (prefix, addresses) in &nat.sources {
            let addresses = addresses.iter().map(&mut pool_address).collect();
            sources.entry(prefix.prefix_len()).or_default().insert(prefix.network().to_bits(), addresses);
        }
        let order = |forward: &Forward| (forward.address, forward.protocol, forward.first);
        let mut forwards: Vec<Forward> = nat.forwards.iter().map(|it| Forward::inward(it, index_of(&it.to))).collect();
        let mut forwards_back: Vec<Forward> = forwards.iter().map(Forward::back).collect();
        forwards.sort_unstable_by_key(order);
        forwards_back.sort_unstable_by_key(order);
        Self {
            version,
            filtering: nat.filtering,
            port_blocks_max: usize::from(nat.port_blocks_max),
            udp_timeout_s: nat.udp_timeout_s.into(),
            routes_private: nat.routes_private,
            floating_of: nat.floating.iter().map(|(external, to)| (to.address.to_bits(), external.to_bits())).collect(),
            forwards,
            forwards_back,
            sources: sources.into_iter().rev().collect(),
            external,
        }
    }

    /// Whether it is an external address.
    #[inline]
    pub(crate) fn is_external(&self, address: u32) -> bool {
        self.external.contains_key(&address)
    }

    /// Whether packets with these addresses are for an external one.
    #[inline]
    pub(crate) fn is_external_destination(&self, addresses: Addresses) -> bool {
        match addresses {
            Addresses::V4 { destination, .. } => self.is_external(destination),
            Addresses::V6 { .. } => false,
        }
    }

    /// The port blocks of an external address.
    pub(crate) fn blocks_of(&self, address: u32) -> Option<Arc<PortBlocks>> {
        self.external.get(&address)?.blocks.clone()
    }

    /// The ENI that packets for an external end go to.
    #[inline]
    pub(crate) fn eni_of(&self, protocol: u8, external: NatEnd) -> Option<EniIndex> {
        let address = self.external(external.address)?;
        match self.configured_at(address, protocol, external) {
            Some((eni, _)) => Some(eni),
            None => address.owner(external.port?),
        }
    }

    /// The external end that is configured for a private one.
    #[inline]
    pub(crate) fn external_of(&self, protocol: u8, private: NatEnd) -> Option<NatEnd> {
        if let Some(address) = self.floating_of.get(&private.address) {
            return Some(NatEnd { address: *address, port: None });
        }
        forwarded(&self.forwards_back, protocol, private)
    }

    /// What becomes of a private source. None if it goes nowhere.
    pub(crate) fn translation_of_source(&self, private: u32) -> Option<SourceTranslation> {
        if let Some(external) = self.floating_of.get(&private) {
            return Some(SourceTranslation::Address(*external));
        }
        // A port may be that of a forward in either case.
        if self.pool_of(private).is_some() || self.forwards_back.iter().any(|forward| forward.address == private) {
            return Some(SourceTranslation::ByPort);
        }
        self.routes_private.then_some(SourceTranslation::None)
    }

    /// What an address stands for, if it is an external one.
    #[inline]
    pub(crate) fn external(&self, address: u32) -> Option<&ExternalAddress> {
        self.external.get(&address)
    }

    /// The private end that is configured for an external one, and its ENI.
    #[inline]
    pub(crate) fn configured(&self, protocol: u8, end: NatEnd) -> Option<(EniIndex, NatEnd)> {
        self.configured_at(self.external(end.address)?, protocol, end)
    }

    /// The same where `external` is what its address stands for.
    #[inline]
    pub(crate) fn configured_at(
        &self,
        external: &ExternalAddress,
        protocol: u8,
        end: NatEnd,
    ) -> Option<(EniIndex, NatEnd)> {
        if let Some((eni, address)) = external.floating {
            return Some((eni, NatEnd { address, port: None }));
        }
        if !external.has_forwards {
            return None;
        }
        let forward = find(&self.forwards, end.address, protocol, end.port?)?;
        Some((forward.eni, forward.lead(end.port?)))
    }

    /// The external end that a forward has for a private one.
    #[inline]
    pub(crate) fn forwarded_source(&self, protocol: u8, private: NatEnd) -> Option<NatEnd> {
        forwarded(&self.forwards_back, protocol, private)
    }

    /// Whether a forward has this external port, so that no ENI may get it.
    pub(crate) fn is_forwarded(&self, address: u32, port: u16) -> bool {
        let from = self.forwards.partition_point(|forward| forward.address < address);
        let of_address = self.forwards[from..].iter().take_while(|forward| forward.address == address);
        of_address.into_iter().any(|forward| (forward.first..=forward.last).contains(&port))
    }

    /// The external addresses that connections of a private one may have.
    #[inline]
    pub(crate) fn pool_of(&self, private: u32) -> Option<&[PoolAddress]> {
        self.sources.iter().find_map(|(length, prefixes)| {
            let mask = u32::MAX.checked_shl(32 - u32::from(*length)).unwrap_or(0);
            prefixes.get(&(private & mask)).map(|addresses| &**addresses)
        })
    }
}

impl Forward {
    fn inward(forward: &PortForward, eni: EniIndex) -> Self {
        Self {
            address: forward.external.to_bits(),
            protocol: forward.protocol,
            first: forward.ports.first,
            last: forward.ports.last,
            to: forward.to.address.to_bits(),
            to_first: forward.port,
            eni,
        }
    }

    /// Where one of its ports leads.
    const fn lead(&self, port: u16) -> NatEnd {
        NatEnd { address: self.to, port: Some(self.to_first + (port - self.first)) }
    }

    /// The same from the other side.
    const fn back(&self) -> Self {
        let (address, first, last) = (self.to, self.to_first, self.to_first + (self.last - self.first));
        Self { address, first, last, to: self.address, to_first: self.first, ..*self }
    }
}

fn find(forwards: &[Forward], address: u32, protocol: u8, port: u16) -> Option<&Forward> {
    let after = forwards.partition_point(|it| (it.address, it.protocol, it.first) <= (address, protocol, port));
    // No two of an end overlap, so only the last that begins before the port can have it.
    let found = forwards.get(after.checked_sub(1)?)?;
    (found.address == address && found.protocol == protocol && port <= found.last).then_some(found)
}

fn forwarded(forwards: &[Forward], protocol: u8, from: NatEnd) -> Option<NatEnd> {
    let port = from.port?;
    find(forwards, from.address, protocol, port).map(|forward| forward.lead(port))
}
