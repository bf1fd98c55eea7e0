//! Router advertisements (RFC 4861 §4.2), with name servers and domain (RFC 8106).

use crate::services::frame;
use etherparse::{Icmpv6Header, Icmpv6Type, IpNumber};
use std::net::Ipv6Addr;
use vswitch_core::observe::guest_network::GuestNetwork;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// RFC 4861 §11.2: nobody takes one that came through a router.
const HOP_LIMIT: u8 = 255;
/// The hop limit that guests are told to use.
const HOP_LIMIT_OF_GUESTS: u8 = 64;
/// Addresses and other configuration come by DHCP.
const MANAGED_AND_OTHER: u8 = 0xc0;
/// How long the router is there for, s: nine times as long as until the next advertisement.
const LIFETIME_S: u16 = 1800;
/// The bytes of options are counted in eights.
const UNIT: usize = 8;

/// The frame that tells all nodes of the guest's link about their router. None for an ENI without IPv6.
pub(super) fn frame(network: &GuestNetwork<'_>) -> Option<Vec<u8>> {
    network.ipv6?;
    let [lifetime_high, lifetime_low] = LIFETIME_S.to_be_bytes();
    // Times to reach and to repeat are left to the guest.
    let mut body = vec![0; 8];
    body.extend_from_slice(&[1, 1]);
    body.extend_from_slice(&network.gateway_mac.0);
    body.extend_from_slice(&[5, 1, 0, 0]);
    body.extend_from_slice(&u32::from(network.mtu_bytes).to_be_bytes());
    if let Some(block) = network.ipv6_block {
        // Neither on the link, where there is nobody but the router, nor for addresses of the guest's own choice.
        body.extend_from_slice(&[3, 4, block.prefix_len(), 0]);
        body.extend_from_slice(&[0xff; 8]);
        body.extend_from_slice(&[0; 4]);
        body.extend_from_slice(&block.network().octets());
    }
    let name_servers: Vec<Ipv6Addr> = network.dhcp.ipv6_name_servers().collect();
    if !name_servers.is_empty() {
        let servers: Vec<u8> = name_servers.iter().flat_map(Ipv6Addr::octets).collect();
        option(&mut body, 25, &servers);
    }
    if let Some(domain) = &network.dhcp.domain_name {
        let mut name = Vec::with_capacity(domain.len() + 2);
        for label in domain.split('.') {
            name.push(label.len() as u8);
            name.extend_from_slice(label.as_bytes());
        }
        name.push(0);
        option(&mut body, 31, &name);
    }
    let header = [HOP_LIMIT_OF_GUESTS, MANAGED_AND_OTHER, lifetime_high, lifetime_low];
    let kind = Icmpv6Type::Unknown { type_u8: 134, code_u8: 0, bytes5to8: header };
    let source = network.gateway_mac.link_local();
    let icmp = Icmpv6Header::with_checksum(kind, source.octets(), ALL_NODES.octets(), &body).ok()?;
    let ip = frame::ipv6(icmp.header_len() + body.len(), IpNumber::IPV6_ICMP, HOP_LIMIT, [source, ALL_NODES])?;
    let mac = frame::group_mac(ALL_NODES);
    Some(frame::framed6(network, mac, &[&ip.to_bytes(), &icmp.to_bytes(), &body]))
}

/// An option with a lifetime (RFC 8106 §5): as long as the router's.
fn option(body: &mut Vec<u8>, kind: u8, content: &[u8]) {
    let bytes = (UNIT + content.len()).next_multiple_of(UNIT);
    let padding = bytes - UNIT - content.len();
    body.extend_from_slice(&[kind, (bytes / UNIT) as u8, 0, 0]);
    body.extend_from_slice(&u32::from(LIFETIME_S).to_be_bytes());
    body.extend_from_slice(content);
    body.resize(body.len() + padding, 0);
}
