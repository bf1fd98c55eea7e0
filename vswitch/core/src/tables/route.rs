//! From a destination to its owner, a router, or nowhere.

use crate::config::ids::{EniIndex, VpcIndex};
use crate::packet::headers::Addresses;
use core::net::{Ipv4Addr, Ipv6Addr};

/// Where packets for an address go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressRoute {
    /// Outside the VPC, and no custom route leads there.
    Nowhere,
    /// Inside a subnet, but nobody has the address.
    Unowned,
    /// The virtual router itself.
    Gateway,
    /// The ENI that owns the address.
    Owner(EniIndex),
    /// The ENI that a custom route names as next hop.
    Via(EniIndex),
    /// Another VPC, in which the address has a route of its own.
    Peer(VpcIndex),
}

impl AddressRoute {
    /// Whether the address belongs to the VPC.
    pub const fn is_inside(self) -> bool {
        matches!(self, Self::Unowned | Self::Gateway | Self::Owner(_))
    }
}

/// An [`AddressRoute`] in one word: its kind in the top three bits, then the ENI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackedRoute(u32);

const _: () = assert!(crate::config::limits::ENIS_MAX < 1 << PackedRoute::KIND_SHIFT);

impl PackedRoute {
    /// No route at all, not even [`AddressRoute::Nowhere`].
    pub(crate) const NONE: Self = Self(u32::MAX);
    const KIND_SHIFT: u32 = 29;

    pub(crate) const fn pack(route: AddressRoute) -> Self {
        let (kind, number) = match route {
            AddressRoute::Nowhere => (0, 0),
            AddressRoute::Unowned => (1, 0),
            AddressRoute::Gateway => (2, 0),
            AddressRoute::Owner(eni) => (3, eni.0),
            AddressRoute::Via(eni) => (4, eni.0),
            AddressRoute::Peer(vpc) => (5, vpc.0),
        };
        Self(kind << Self::KIND_SHIFT | number)
    }

    #[inline]
    pub(crate) const fn unpack(self) -> AddressRoute {
        let eni = EniIndex(self.0 & ((1 << Self::KIND_SHIFT) - 1));
        match self.0 >> Self::KIND_SHIFT {
            0 => AddressRoute::Nowhere,
            1 => AddressRoute::Unowned,
            2 => AddressRoute::Gateway,
            3 => AddressRoute::Owner(eni),
            4 => AddressRoute::Via(eni),
            _ => AddressRoute::Peer(VpcIndex(eni.0)),
        }
    }

    #[inline(always)]
    pub(crate) const fn is_none(self) -> bool {
        self.0 == Self::NONE.0
    }
}

/// Whether the destination is a group address: broadcast or multicast.
pub fn is_group_destination(addresses: Addresses) -> bool {
    match addresses {
        Addresses::V4 { destination, .. } => destination >> 28 == 0b1110 || destination == u32::MAX,
        Addresses::V6 { destination, .. } => destination >> 120 == 0xff,
    }
}

/// Whether the destination is an Internet address, judged by its block alone (RFC 1918, 6598, 3927, 1122, 4193, 4291).
pub fn is_internet_destination(addresses: Addresses) -> bool {
    match addresses {
        Addresses::V4 { destination, .. } => {
            let address = Ipv4Addr::from_bits(destination);
            let shared = destination >> 22 == 0b01_1001_0001; // 100.64.0.0/10
            let local = address.is_private() || address.is_link_local() || address.is_loopback() || shared;
            !local && !is_group_destination(addresses) && destination >> 24 != 0
        }
        Addresses::V6 { destination, .. } => {
            let address = Ipv6Addr::from_bits(destination);
            let local = address.is_unique_local() || address.is_unicast_link_local() || address.is_loopback();
            !local && !is_group_destination(addresses) && destination != 0
        }
    }
}

/// Whether packets for an address may leave a VPC: those for one link, one host or nobody never do (RFC 6890).
#[inline]
pub(crate) fn may_leave(addresses: Addresses) -> bool {
    match addresses {
        Addresses::V4 { destination, .. } => {
            let address = Ipv4Addr::from_bits(destination);
            let is_reserved = destination >> 28 == 0b1111 || destination >> 24 == 0;
            !(address.is_link_local() || address.is_loopback() || address.is_multicast() || is_reserved)
        }
        Addresses::V6 { destination, .. } => {
            let address = Ipv6Addr::from_bits(destination);
            let is_mapped = destination >> 32 == 0xffff;
            let is_local = address.is_unicast_link_local() || address.is_loopback() || address.is_multicast();
            !is_local && !is_mapped && destination != 0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(text: &str) -> Addresses {
        let destination = text.parse().unwrap();
        match destination {
            core::net::IpAddr::V4(address) => Addresses::V4 { source: 0, destination: address.to_bits() },
            core::net::IpAddr::V6(address) => Addresses::V6 { source: 0, destination: address.to_bits() },
        }
    }

    #[test]
    fn private_blocks_are_not_the_internet() {
        for text in
            ["10.1.2.3", "172.31.0.1", "192.168.0.1", "100.64.0.1", "100.127.255.255", "169.254.1.1", "127.0.0.1"]
        {
            assert!(!is_internet_destination(to(text)), "{text}");
        }
        for text in ["224.0.0.1", "255.255.255.255", "fe80::1", "fd00::1", "ff02::1", "::1"] {
            assert!(!is_internet_destination(to(text)), "{text}");
        }
        for text in ["8.8.8.8", "100.63.0.1", "100.128.0.1", "203.0.113.9", "2001:db8::1"] {
            assert!(is_internet_destination(to(text)), "{text}");
        }
    }
}
