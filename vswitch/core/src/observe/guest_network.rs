//! What the guest of an ENI is told about its network. No packet is evaluated by it: the services of the switch ask.

use crate::compile::snapshot::Snapshot;
use crate::config::dhcp::DhcpOptionsSet;
use crate::config::ids::{EniId, EniIndex, MacAddress, VpcId};
use core::net::{Ipv4Addr, Ipv6Addr};
use ipnet::{Ipv4Net, Ipv6Net};

/// The network as the guest of one ENI is to know it.
#[derive(Clone, Copy, Debug)]
pub struct GuestNetwork<'a> {
    /// The VPC of the ENI.
    pub vpc: &'a VpcId,
    /// The ENI.
    pub eni: &'a EniId,
    /// The hardware address of the ENI.
    pub mac: MacAddress,
    /// The hardware address of the virtual router.
    pub gateway_mac: MacAddress,
    /// The first IPv4 address, with the length of its subnet's prefix.
    pub ipv4: Option<Ipv4Net>,
    /// The router's IPv4 address in the subnet.
    pub ipv4_gateway: Option<Ipv4Addr>,
    /// The first IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// The IPv6 block of the subnet.
    pub ipv6_block: Option<Ipv6Net>,
    /// The first IPv6 prefix that is delegated to the ENI.
    pub ipv6_prefix: Option<Ipv6Net>,
    /// Whether the switch itself configures the guest's device, which then needs to be told nothing.
    pub is_configured: bool,
    /// The largest layer-3 packet that its port carries, bytes.
    pub mtu_bytes: u16,
    /// The name that the guest is to have.
    pub hostname: &'a str,
    /// The options of its VPC.
    pub dhcp: &'a DhcpOptionsSet,
}

impl Snapshot {
    /// What the guest of an ENI is told; none if there is no such ENI.
    pub fn guest_network(&self, index: EniIndex) -> Option<GuestNetwork<'_>> {
        let eni = self.eni(index)?;
        let (network, _) = self.network(eni)?;
        let vswitch = network.vswitches.get(eni.vswitch as usize)?;
        // Both are needed: an address without its subnet's prefix length would be no network.
        let ipv4 = eni.ipv4.map(Ipv4Addr::from_bits).zip(vswitch.ipv4);
        Some(GuestNetwork {
            vpc: &eni.guest.vpc,
            eni: &eni.id,
            mac: eni.mac,
            gateway_mac: network.gateway_mac,
            ipv4: ipv4.and_then(|(address, block)| Ipv4Net::new(address, block.prefix_len()).ok()),
            ipv4_gateway: vswitch.ipv4_gateway,
            ipv6: eni.ipv6.map(Ipv6Addr::from_bits),
            ipv6_block: vswitch.ipv6,
            ipv6_prefix: eni.guest.ipv6_prefix,
            is_configured: eni.guest.is_configured,
            mtu_bytes: eni.mtu_bytes,
            hostname: eni.guest.hostname.as_deref().unwrap_or(eni.id.as_str()),
            dhcp: &network.dhcp,
        })
    }
}
