//! What the guest of an ENI is told about its network, as it is shown.

use super::view::views;
use crate::model::{Eni, Model, dhcp};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vswitch_core::config::desired::DesiredVpc;
use vswitch_core::config::ids::EniId;

views! {
    /// What a guest gets by DHCP, DHCPv6 and router advertisements if it asks.
    GuestNetworkView {
        /// Its IPv4 address, with the length of the subnet's prefix.
        ipv4: Ipv4Net,
        /// The router of its IPv4 default route, which is the DHCP server too.
        ipv4_gateway: Ipv4Addr,
        /// How long the address is leased, seconds.
        lease_s: u32,
        /// Its IPv6 address.
        ipv6: Option<Ipv6Addr>,
        /// The prefix that is delegated to it.
        ipv6_prefix: Option<Ipv6Net>,
        /// The router of its IPv6 default route, which is the DHCPv6 server too.
        ipv6_gateway: Option<Ipv6Addr>,
        /// How long these are leased, seconds.
        ipv6_lease_s: u32,
        /// Name servers of both families.
        name_servers: Vec<IpAddr>,
        /// Its domain, and the one that it searches.
        domain_name: Option<String>,
        /// Time servers.
        ntp_servers: Vec<Ipv4Addr>,
        /// The largest packet, bytes; none while it has no port.
        mtu_bytes: Option<u16>,
        /// Its host name.
        hostname: String,
    }
}

impl GuestNetworkView {
    /// `None` for an ENI whose subnet is not known.
    pub(crate) fn new(model: &Model, id: &EniId, eni: &Eni) -> Option<Self> {
        let vswitch = model.vswitches.get(&eni.vswitch)?;
        let options = dhcp::options_of(model, &eni.vpc);
        let ipv6 = eni.ipv6.first().copied();
        let delegated = eni.prefixes.iter().find_map(|prefix| match prefix {
            IpNet::V6(prefix) => Some(*prefix),
            IpNet::V4(_) => None,
        });
        Some(Self {
            ipv4: Ipv4Net::new(eni.primary, vswitch.cidr.prefix_len()).ok()?,
            ipv4_gateway: vswitch.gateway(),
            lease_s: options.lease_s,
            ipv6,
            // Who has no address is not served.
            ipv6_prefix: delegated.filter(|_| ipv6.is_some()),
            ipv6_gateway: ipv6.map(|_| DesiredVpc::default_gateway_mac().link_local()),
            ipv6_lease_s: options.ipv6_lease_s,
            name_servers: options.name_servers,
            domain_name: options.domain_name,
            ntp_servers: options.ntp_servers,
            mtu_bytes: eni.port.as_ref().map(|port| port.mtu_bytes()),
            hostname: model.hostname_of(eni).map_or_else(|| id.to_string(), Clone::clone),
        })
    }
}
