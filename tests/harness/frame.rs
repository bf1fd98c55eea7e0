//! Frames built and parsed with `pnet`, so that the parser under test is not used to check itself.

use pnet_base::MacAddr;
use pnet_packet::arp::{ArpHardwareTypes, ArpOperations, MutableArpPacket};
use pnet_packet::ethernet::{EtherType, EtherTypes, EthernetPacket, MutableEthernetPacket};
use pnet_packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet_packet::ipv4::{Ipv4Packet, MutableIpv4Packet};
use pnet_packet::ipv6::{Ipv6Packet, MutableIpv6Packet};
use pnet_packet::tcp::MutableTcpPacket;
use pnet_packet::udp::MutableUdpPacket;
use pnet_packet::{Packet, icmp, icmpv6, tcp, udp, util};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vswitch_core::config::ids::MacAddress;

pub use pnet_packet::tcp::TcpFlags;

/// IANA protocol numbers.
pub mod protocol {
    #![allow(missing_docs)]
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const IPV6_FRAGMENT: u8 = 44;
    pub const GRE: u8 = 47;
    pub const ICMPV6: u8 = 58;
}

/// Which part of an IP packet to build.
#[derive(Clone, Copy, Debug)]
pub struct FragmentPart {
    /// The identification that all parts share.
    pub id: u32,
    /// Where the part starts in the whole.
    pub offset_bytes: u16,
    /// Whether another part follows.
    pub more: bool,
}

/// A TCP segment to build.
#[derive(Clone, Debug)]
pub struct TcpSegment {
    /// Source and destination port.
    pub ports: (u16, u16),
    /// The flags.
    pub flags: u8,
    /// The sequence number of its first byte.
    pub sequence: u32,
    /// The next byte it expects.
    pub acknowledgment: u32,
    /// The window it announces.
    pub window: u16,
    /// The window scale it offers.
    pub scale: Option<u8>,
    /// Bytes of data.
    pub length: usize,
}

impl TcpSegment {
    /// A segment without data, of a connection whose sides start at 1,000 and have acknowledged nothing yet.
    pub const fn new(ports: (u16, u16), flags: u8) -> Self {
        let sequence = if flags & TcpFlags::SYN == 0 { 1000 } else { 999 };
        let acknowledgment = if flags & TcpFlags::ACK == 0 { 0 } else { 1000 };
        Self { ports, flags, sequence, acknowledgment, window: 0xffff, scale: None, length: 0 }
    }
}

/// An IP packet to build.
#[derive(Clone, Debug)]
pub struct Ip {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// Time to live.
    pub hop_limit: u8,
    /// IPv4 options, padded here to a multiple of four bytes.
    pub options: Vec<u8>,
    /// IPv6 extension headers: the number of each, and its bytes from the third on, padded here.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// Which part of a packet this is, if not the whole.
    pub part: Option<FragmentPart>,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Transport header and data.
    pub payload: Vec<u8>,
}

impl Ip {
    /// An empty packet.
    ///
    /// # Panics
    /// If an address is none.
    pub fn new(source: &str, destination: &str) -> Self {
        let address = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text} is not an address"));
        Self::between(address(source), address(destination))
    }

    /// An empty packet.
    pub fn between(source: IpAddr, destination: IpAddr) -> Self {
        Self {
            source,
            destination,
            hop_limit: 64,
            options: Vec::new(),
            extensions: Vec::new(),
            part: None,
            protocol: 253,
            payload: Vec::new(),
        }
    }

    /// With another time to live.
    pub fn hop_limit(self, hop_limit: u8) -> Self {
        Self { hop_limit, ..self }
    }

    /// With IPv4 options.
    pub fn options(self, options: &[u8]) -> Self {
        Self { options: options.to_vec(), ..self }
    }

    /// With one more IPv6 extension header.
    pub fn extension(mut self, number: u8, body: &[u8]) -> Self {
        self.extensions.push((number, body.to_vec()));
        self
    }

    /// Only a part of it.
    pub fn part(self, id: u32, offset_bytes: u16, more: bool) -> Self {
        Self { part: Some(FragmentPart { id, offset_bytes, more }), ..self }
    }

    /// Carrying anything.
    pub fn raw(self, protocol: u8, payload: &[u8]) -> Self {
        Self { protocol, payload: payload.to_vec(), ..self }
    }

    /// Carrying TCP and 12 bytes of data, so that it is a multiple of 8 bytes. Both sides number from 1,000, and nothing
    /// was acknowledged yet.
    pub fn tcp(self, source_port: u16, destination_port: u16, flags: u8) -> Self {
        self.segment(&TcpSegment { length: 12, ..TcpSegment::new((source_port, destination_port), flags) })
    }

    /// Carrying a TCP segment whose data is zeros.
    pub fn segment(self, segment: &TcpSegment) -> Self {
        self.segment_with(segment, &vec![0; segment.length])
    }

    /// Carrying a TCP segment with this data, whatever length the segment says.
    pub fn segment_with(self, segment: &TcpSegment, data: &[u8]) -> Self {
        let options: &[u8] = match segment.scale {
            Some(scale) => &[3, 3, scale, 0], // Window scale, end of options.
            None => &[],
        };
        let header_bytes = 20 + options.len();
        let mut bytes = vec![0; header_bytes];
        bytes[20..].copy_from_slice(options);
        bytes.extend_from_slice(data);
        if let Some(mut packet) = MutableTcpPacket::new(&mut bytes) {
            packet.set_source(segment.ports.0);
            packet.set_destination(segment.ports.1);
            packet.set_sequence(segment.sequence);
            packet.set_acknowledgement(segment.acknowledgment);
            packet.set_data_offset((header_bytes / 4) as u8);
            packet.set_window(segment.window);
            packet.set_flags(segment.flags);
            let sum = match (self.source, self.destination) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    tcp::ipv4_checksum(&packet.to_immutable(), &source, &destination)
                }
                (IpAddr::V6(source), IpAddr::V6(destination)) => {
                    tcp::ipv6_checksum(&packet.to_immutable(), &source, &destination)
                }
                _ => 0,
            };
            packet.set_checksum(sum);
        }
        self.raw(protocol::TCP, &bytes)
    }

    /// Carrying UDP and 8 bytes of data.
    pub fn udp(self, source_port: u16, destination_port: u16) -> Self {
        let mut bytes = vec![0; 16];
        if let Some(mut packet) = MutableUdpPacket::new(&mut bytes) {
            packet.set_source(source_port);
            packet.set_destination(destination_port);
            packet.set_length(16);
            let sum = match (self.source, self.destination) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    udp::ipv4_checksum(&packet.to_immutable(), &source, &destination)
                }
                (IpAddr::V6(source), IpAddr::V6(destination)) => {
                    udp::ipv6_checksum(&packet.to_immutable(), &source, &destination)
                }
                _ => 0,
            };
            packet.set_checksum(sum);
        }
        self.raw(protocol::UDP, &bytes)
    }

    /// Carrying ICMP of the address family: type, code, the four bytes after the checksum, and the rest.
    pub fn icmp(self, kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Self {
        let mut bytes = vec![kind, code, 0, 0];
        bytes.extend_from_slice(&rest);
        bytes.extend_from_slice(body);
        let number = if self.source.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
        let sum = icmp_checksum(&bytes, (self.source, self.destination));
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        self.raw(number, &bytes)
    }

    /// Carrying an echo request.
    pub fn ping(self, identifier: u16) -> Self {
        let kind = if self.source.is_ipv4() { 8 } else { 128 };
        self.echo(kind, identifier)
    }

    /// Carrying an echo reply.
    pub fn pong(self, identifier: u16) -> Self {
        let kind = if self.source.is_ipv4() { 0 } else { 129 };
        self.echo(kind, identifier)
    }

    fn echo(self, kind: u8, identifier: u16) -> Self {
        let [high, low] = identifier.to_be_bytes();
        self.icmp(kind, 0, [high, low, 0, 1], b"sixteen bytes in")
    }

    /// Carrying "port unreachable" about another packet.
    pub fn unreachable(self, about: &Ip) -> Self {
        let (kind, code) = if self.source.is_ipv4() { (3, 3) } else { (1, 4) };
        self.icmp(kind, code, [0; 4], &about.bytes())
    }

    /// Carrying a neighbour solicitation with the sender's link-layer address.
    pub fn solicit(self, target: Ipv6Addr, link_layer: MacAddress) -> Self {
        let body = [target.octets().as_slice(), &[1, 1], &link_layer.0].concat();
        self.hop_limit(255).icmp(135, 0, [0; 4], &body)
    }

    /// Carrying GRE with an empty payload.
    pub fn gre(self) -> Self {
        self.raw(protocol::GRE, &[0, 0, 0x08, 0, 0, 0, 0, 0])
    }

    /// The packet's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.ipv4(source, destination),
            (IpAddr::V6(source), IpAddr::V6(destination)) => self.ipv6(source, destination),
            _ => panic!("{} and {} are of two families", self.source, self.destination),
        }
    }

    fn ipv4(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let header_bytes = 20 + self.options.len().next_multiple_of(4);
        let mut bytes = vec![0; header_bytes + self.payload.len()];
        bytes[20..20 + self.options.len()].copy_from_slice(&self.options);
        bytes[header_bytes..].copy_from_slice(&self.payload);
        let total = bytes.len() as u16;
        if let Some(mut packet) = MutableIpv4Packet::new(&mut bytes) {
            packet.set_version(4);
            packet.set_header_length((header_bytes / 4) as u8);
            packet.set_total_length(total);
            packet.set_ttl(self.hop_limit);
            packet.set_next_level_protocol(IpNextHeaderProtocol(self.protocol));
            packet.set_source(source);
            packet.set_destination(destination);
            if let Some(part) = self.part {
                packet.set_identification(part.id as u16);
                packet.set_flags(part.more as u8);
                packet.set_fragment_offset(part.offset_bytes / 8);
            }
        }
        let sum = util::checksum(&bytes[..header_bytes], 5);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn ipv6(&self, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
        let mut headers: Vec<(u8, Vec<u8>)> = Vec::new();
        for (number, body) in &self.extensions {
            let mut header = vec![0, 0];
            header.extend_from_slice(body);
            header.resize(header.len().next_multiple_of(8), 0);
            header[1] = (header.len() / 8 - 1) as u8;
            headers.push((*number, header));
        }
        if let Some(part) = self.part {
            let mut header = vec![0, 0];
            header.extend_from_slice(&(part.offset_bytes | part.more as u16).to_be_bytes());
            header.extend_from_slice(&part.id.to_be_bytes());
            headers.push((protocol::IPV6_FRAGMENT, header));
        }
        let mut next = self.protocol;
        let mut payload = self.payload.clone();
        for (number, mut header) in headers.into_iter().rev() {
            header[0] = next;
            next = number;
            header.append(&mut payload);
            payload = header;
        }
        let mut bytes = vec![0; 40];
        if let Some(mut packet) = MutableIpv6Packet::new(&mut bytes) {
            packet.set_version(6);
            packet.set_payload_length(payload.len() as u16);
            packet.set_next_header(IpNextHeaderProtocol(next));
            packet.set_hop_limit(self.hop_limit);
            packet.set_source(source);
            packet.set_destination(destination);
        }
        bytes.append(&mut payload);
        bytes
    }

    /// In an Ethernet frame.
    pub fn frame(&self, source: MacAddress, destination: MacAddress) -> Vec<u8> {
        let kind = if self.source.is_ipv4() { EtherTypes::Ipv4 } else { EtherTypes::Ipv6 };
        ethernet(source, destination, kind.0, &self.bytes())
    }
}

fn icmp_checksum(message: &[u8], ends: (IpAddr, IpAddr)) -> u16 {
    match ends {
        (IpAddr::V4(_), IpAddr::V4(_)) => icmp::IcmpPacket::new(message).map_or(0, |packet| icmp::checksum(&packet)),
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            icmpv6::Icmpv6Packet::new(message).map_or(0, |packet| icmpv6::checksum(&packet, &source, &destination))
        }
        _ => 0,
    }
}

/// An Ethernet frame.
pub fn ethernet(source: MacAddress, destination: MacAddress, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 14];
    if let Some(mut packet) = MutableEthernetPacket::new(&mut frame) {
        packet.set_source(mac(source));
        packet.set_destination(mac(destination));
        packet.set_ethertype(EtherType(ether_type));
    }
    frame.extend_from_slice(payload);
    frame
}

/// The same frame behind an 802.1Q tag.
pub fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0x00], &vlan.to_be_bytes(), &frame[12..]].concat()
}

/// An ARP packet: operation, then hardware and protocol address of sender and of target.
pub fn arp(is_request: bool, sender: (MacAddress, Ipv4Addr), target: (MacAddress, Ipv4Addr)) -> Vec<u8> {
    let mut bytes = vec![0; 28];
    if let Some(mut packet) = MutableArpPacket::new(&mut bytes) {
        packet.set_hardware_type(ArpHardwareTypes::Ethernet);
        packet.set_protocol_type(EtherTypes::Ipv4);
        packet.set_hw_addr_len(6);
        packet.set_proto_addr_len(4);
        packet.set_operation(if is_request { ArpOperations::Request } else { ArpOperations::Reply });
        packet.set_sender_hw_addr(mac(sender.0));
        packet.set_sender_proto_addr(sender.1);
        packet.set_target_hw_addr(mac(target.0));
        packet.set_target_proto_addr(target.1);
    }
    let destination = if is_request { MacAddress([0xff; 6]) } else { target.0 };
    ethernet(sender.0, destination, EtherTypes::Arp.0, &bytes)
}

const fn mac(address: MacAddress) -> MacAddr {
    let [a, b, c, d, e, f] = address.0;
    MacAddr(a, b, c, d, e, f)
}

/// Checks the header checksum of IPv4, and that of ICMP, TCP and UDP of both families, with `pnet`.
///
/// # Panics
/// Where one is wrong.
pub fn assert_checksums(frame: &[u8]) {
    let ethernet = EthernetPacket::new(frame).expect("an Ethernet frame");
    match ethernet.get_ethertype() {
        EtherTypes::Ipv4 => {
            let packet = Ipv4Packet::new(ethernet.payload()).expect("an IPv4 packet");
            let header = &packet.packet()[..packet.get_header_length() as usize * 4];
            assert_eq!(util::checksum(header, 5), packet.get_checksum(), "IPv4 header checksum");
            let ends = (packet.get_source().into(), packet.get_destination().into());
            assert_transport_checksum(packet.get_next_level_protocol(), packet.payload(), ends);
        }
        EtherTypes::Ipv6 => {
            let packet = Ipv6Packet::new(ethernet.payload()).expect("an IPv6 packet");
            let ends = (packet.get_source().into(), packet.get_destination().into());
            assert_transport_checksum(packet.get_next_header(), packet.payload(), ends);
        }
        _ => {}
    }
}

fn assert_transport_checksum(number: IpNextHeaderProtocol, payload: &[u8], ends: (IpAddr, IpAddr)) {
    let written_at = match number {
        IpNextHeaderProtocols::Icmp | IpNextHeaderProtocols::Icmpv6 => 2,
        IpNextHeaderProtocols::Tcp => 16,
        IpNextHeaderProtocols::Udp => 6,
        _ => return,
    };
    let sum = match (number, ends) {
        (IpNextHeaderProtocols::Icmp | IpNextHeaderProtocols::Icmpv6, ends) => icmp_checksum(payload, ends),
        (number, (IpAddr::V4(source), IpAddr::V4(destination))) => {
            util::ipv4_checksum(payload, written_at / 2, &[], &source, &destination, number)
        }
        (number, (IpAddr::V6(source), IpAddr::V6(destination))) => {
            util::ipv6_checksum(payload, written_at / 2, &[], &source, &destination, number)
        }
        _ => return,
    };
    let written = u16::from_be_bytes([payload[written_at], payload[written_at + 1]]);
    assert_eq!(sum, written, "checksum of protocol {}", number.0);
}
