//! A frame from the virtual router to a guest.

use etherparse::{EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, UdpHeader};
use std::net::{Ipv4Addr, Ipv6Addr};
use vswitch_core::config::ids::MacAddress;
use vswitch_core::observe::guest_network::GuestNetwork;

/// The hardware address that all stations hear.
pub(super) const BROADCAST: MacAddress = MacAddress([0xff; 6]);
const HOP_LIMIT: u8 = 64;

/// The hardware address of an IPv6 group (RFC 2464 §7).
pub(super) fn group_mac(group: Ipv6Addr) -> MacAddress {
    let [.., a, b, c, d] = group.octets();
    MacAddress([0x33, 0x33, a, b, c, d])
}

fn ethernet(network: &GuestNetwork<'_>, to: MacAddress, ether_type: EtherType) -> Vec<u8> {
    Ethernet2Header { source: network.gateway_mac.0, destination: to.0, ether_type }.to_bytes().to_vec()
}

/// A frame with an IP packet for the ENI's guest. None if it is neither of IPv4 nor of IPv6.
pub(super) fn framed(network: &GuestNetwork<'_>, packet: &[u8]) -> Option<Vec<u8>> {
    let ether_type = match packet.first()? >> 4 {
        4 => EtherType::IPV4,
        6 => EtherType::IPV6,
        _ => return None,
    };
    let mut frame = ethernet(network, network.mac, ether_type);
    frame.extend_from_slice(packet);
    Some(frame)
}

/// Where a datagram is from, and who is to hear it.
#[derive(Clone, Copy, Debug)]
pub(super) struct DatagramEnds<A> {
    pub(super) mac: MacAddress,
    pub(super) source: A,
    pub(super) destination: A,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
}

/// A UDP datagram over IPv4. None if it is too long for one.
pub(super) fn udp4(network: &GuestNetwork<'_>, ends: DatagramEnds<Ipv4Addr>, payload: &[u8]) -> Option<Vec<u8>> {
    let length = payload.len().checked_add(UdpHeader::LEN)?.try_into().ok()?;
    let [source, destination] = [ends.source, ends.destination].map(|address| address.octets());
    let mut ip = Ipv4Header::new(length, HOP_LIMIT, IpNumber::UDP, source, destination).ok()?;
    ip.header_checksum = ip.calc_header_checksum();
    let udp = UdpHeader::with_ipv4_checksum(ends.source_port, ends.destination_port, &ip, payload).ok()?;
    let mut frame = ethernet(network, ends.mac, EtherType::IPV4);
    frame.extend_from_slice(&ip.to_bytes());
    frame.extend_from_slice(&udp.to_bytes());
    frame.extend_from_slice(payload);
    Some(frame)
}

/// What stands before the payload of an IPv6 packet.
pub(super) fn ipv6(payload_bytes: usize, next: IpNumber, hop_limit: u8, ends: [Ipv6Addr; 2]) -> Option<Ipv6Header> {
    let [source, destination] = ends.map(|address| address.octets());
    Some(Ipv6Header {
        traffic_class: 0,
        flow_label: Ipv6FlowLabel::ZERO,
        payload_length: payload_bytes.try_into().ok()?,
        next_header: next,
        hop_limit,
        source,
        destination,
    })
}

/// A UDP datagram over IPv6. None if it is too long for one.
pub(super) fn udp6(network: &GuestNetwork<'_>, ends: DatagramEnds<Ipv6Addr>, payload: &[u8]) -> Option<Vec<u8>> {
    let addresses = [ends.source, ends.destination];
    let ip = ipv6(payload.len() + UdpHeader::LEN, IpNumber::UDP, HOP_LIMIT, addresses)?;
    let udp = UdpHeader::with_ipv6_checksum(ends.source_port, ends.destination_port, &ip, payload).ok()?;
    Some(framed6(network, ends.mac, &[&ip.to_bytes(), &udp.to_bytes(), payload]))
}

/// A frame with an IPv6 packet in parts.
pub(super) fn framed6(network: &GuestNetwork<'_>, to: MacAddress, parts: &[&[u8]]) -> Vec<u8> {
    let mut frame = ethernet(network, to, EtherType::IPV6);
    parts.iter().for_each(|part| frame.extend_from_slice(part));
    frame
}
