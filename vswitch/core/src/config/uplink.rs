//! The addresses of an uplink, and those that private ones have outside.

use crate::config::ids::EniId;
use crate::config::rule::PortRange;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};
use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// The IPv4 side of an uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UplinkIpv4 {
    /// The router's address, with the prefix of the link.
    pub address: Ipv4Net,
    /// The next hop, an address of the link.
    pub next_hop: Ipv4Addr,
}

/// The IPv6 side of an uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UplinkIpv6 {
    /// The router's address, with the prefix of the link.
    pub address: Ipv6Net,
    /// The next hop, an address of the link.
    pub next_hop: Ipv6Addr,
}

/// Which external addresses stand for which private ones. Where several apply to a packet, floating addresses come before
/// forwards, and forwards before sources. IPv6 is not translated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DesiredNat {
    /// Private sources with the external addresses that their connections may have (SNAT); the longest prefix decides.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<Ipv4Net, BTreeSet<Ipv4Addr>>,
    /// External addresses that stand for one private address, both ways and for all protocols.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub floating: BTreeMap<Ipv4Addr, PrivateEnd>,
    /// Ports of external addresses that lead to a private address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forwards: Vec<PortForward>,
    /// Who outside may use the external port of a connection that was opened inside.
    pub filtering: NatFiltering,
    /// How many blocks of 64 external ports one ENI may have.
    pub port_blocks_max: u16,
    /// The least time for which an idle UDP mapping stays, seconds (RFC 4787 REQ-5).
    pub udp_timeout_s: u16,
    /// Whether packets of private IPv4 addresses without an external one leave, and are let in, as they are. If false, they
    /// go nowhere.
    pub routes_private: bool,
}

impl DesiredNat {
    /// The default of [`DesiredNat::port_blocks_max`].
    pub const PORT_BLOCKS_MAX_DEFAULT: u16 = 64;
    /// The default of [`DesiredNat::udp_timeout_s`].
    pub const UDP_TIMEOUT_S_DEFAULT: u16 = 120;

    /// Every external address.
    pub fn external_addresses(&self) -> BTreeSet<Ipv4Addr> {
        let sources = self.sources.values().flatten();
        let forwards = self.forwards.iter().map(|forward| &forward.external);
        sources.chain(self.floating.keys()).chain(forwards).copied().collect()
    }

    /// Every ENI that it names.
    pub fn enis(&self) -> impl Iterator<Item = &EniId> {
        self.floating.values().map(|end| &end.eni).chain(self.forwards.iter().map(|forward| &forward.to.eni))
    }
}

impl Default for DesiredNat {
    fn default() -> Self {
        Self {
            sources: BTreeMap::new(),
            floating: BTreeMap::new(),
            forwards: Vec::new(),
            filtering: NatFiltering::default(),
            port_blocks_max: Self::PORT_BLOCKS_MAX_DEFAULT,
            udp_timeout_s: Self::UDP_TIMEOUT_S_DEFAULT,
            routes_private: false,
        }
    }
}

/// A private address of an ENI.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivateEnd {
    /// The ENI.
    pub eni: EniId,
    /// One of its addresses.
    pub address: Ipv4Addr,
}

/// Ports of an external address that lead to a private address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortForward {
    /// The external address.
    pub external: Ipv4Addr,
    /// TCP (6) or UDP (17).
    pub protocol: u8,
    /// The external ports.
    pub ports: PortRange,
    /// Where they lead.
    pub to: PrivateEnd,
    /// The private port for the first external one; the others follow in order.
    pub port: u16,
}

/// Who outside may use the external port of a connection that was opened inside (RFC 4787 §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NatFiltering {
    /// Whoever it has a session with: address and port-dependent filtering.
    #[default]
    Session,
    /// Anybody whom the ingress rules admit: endpoint-independent filtering.
    Endpoint,
}
