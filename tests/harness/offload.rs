//! Long frames that leave something undone, and what they stand for, cut by the book and summed by `pnet`.

use crate::frame::{Ip, protocol};
use pnet_packet::ipv4::{Ipv4Packet, MutableIpv4Packet};
use pnet_packet::ipv6::{Ipv6Packet, MutableIpv6Packet};
use pnet_packet::tcp::{MutableTcpPacket, TcpFlags};
use pnet_packet::udp::MutableUdpPacket;
use pnet_packet::{ipv4, tcp, udp};
use std::net::IpAddr;
use vswitch_core::packet::offload::{Offload, PartialChecksum, Segmentation};

const ETHERNET_BYTES: usize = 14;

impl Ip {
    /// With more data behind that of [`Ip::tcp`] or [`Ip::udp`], and only the sum of the pseudo-header where the
    /// checksum is to be.
    pub fn undone(mut self, data: &[u8]) -> Self {
        self.payload.extend_from_slice(data);
        let length = self.payload.len() as u16;
        let field = match self.protocol {
            protocol::UDP => {
                self.payload[4..6].copy_from_slice(&length.to_be_bytes());
                6
            }
            _ => 16,
        };
        let words = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets().chunks(2).map(word).sum::<u64>(),
            IpAddr::V6(address) => address.octets().chunks(2).map(word).sum::<u64>(),
        };
        let mut sum = words(self.source) + words(self.destination) + u64::from(self.protocol) + u64::from(length);
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        self.payload[field..field + 2].copy_from_slice(&(sum as u16).to_be_bytes());
        self
    }

    /// UDP that carries this in the place of its data, without a checksum, as tunnels do.
    pub fn carrying(mut self, data: &[u8]) -> Self {
        self.payload.truncate(8);
        self.payload.extend_from_slice(data);
        let length = self.payload.len() as u16;
        self.payload[4..6].copy_from_slice(&length.to_be_bytes());
        self.payload[6..8].fill(0);
        self
    }

    /// What a kernel says of such a packet, to be cut every `segment_bytes` of data; not to be cut if that is zero.
    pub fn offload(&self, segment_bytes: u16) -> Offload {
        let start = self.bytes().len() - self.payload.len() + ETHERNET_BYTES;
        let (offset, header_bytes) = match self.protocol {
            protocol::UDP => (6, 8),
            _ => (16, usize::from(self.payload[12] >> 4) * 4),
        };
        let segmentation = match (segment_bytes, self.protocol, self.source) {
            (0, ..) => Segmentation::None,
            (_, protocol::UDP, _) => Segmentation::Udp,
            (_, _, IpAddr::V4(_)) => Segmentation::TcpV4,
            (_, _, IpAddr::V6(_)) => Segmentation::TcpV6,
        };
        Offload {
            checksum: Some(PartialChecksum { start: start as u16, offset }),
            segmentation,
            segment_bytes,
            header_bytes: (start + header_bytes) as u16,
            marks_congestion_once: false,
        }
    }
}

fn word(pair: &[u8]) -> u64 {
    u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))
}

/// What a long frame stands for.
pub fn cut_slowly(frame: &[u8], offload: &Offload) -> Vec<Vec<u8>> {
    let (headers, data) = frame.split_at(usize::from(offload.header_bytes));
    let chunks: Vec<&[u8]> = data.chunks(usize::from(offload.segment_bytes)).collect();
    let start = offload.checksum.map_or(0, |checksum| usize::from(checksum.start));
    let cut = |(number, chunk): (usize, &&[u8])| {
        let mut bytes = [headers, chunk].concat();
        let done = number * usize::from(offload.segment_bytes);
        let is_last = number + 1 == chunks.len();
        mend_transport(&mut bytes, start, (done, is_last));
        mend_network(&mut bytes[ETHERNET_BYTES..], number as u16);
        mend_checksum(&mut bytes, start);
        bytes
    };
    chunks.iter().enumerate().map(cut).collect()
}

fn mend_network(packet: &mut [u8], number: u16) {
    let length = packet.len() as u16;
    if packet[0] >> 4 == 4 {
        let mut header = MutableIpv4Packet::new(packet).expect("an IPv4 header");
        header.set_total_length(length);
        header.set_identification(header.get_identification().wrapping_add(number));
        header.set_checksum(ipv4::checksum(&header.to_immutable()));
    } else {
        MutableIpv6Packet::new(packet).expect("an IPv6 header").set_payload_length(length - 40);
    }
}

fn mend_transport(frame: &mut [u8], start: usize, (done, is_last): (usize, bool)) {
    let is_tcp = protocol_of(frame) == protocol::TCP;
    let segment = &mut frame[start..];
    let length = segment.len() as u16;
    if is_tcp {
        let mut header = MutableTcpPacket::new(segment).expect("a TCP header");
        header.set_sequence(header.get_sequence().wrapping_add(done as u32));
        if !is_last {
            header.set_flags(header.get_flags() & !(TcpFlags::FIN | TcpFlags::PSH));
        }
    } else {
        MutableUdpPacket::new(segment).expect("a UDP header").set_length(length);
    }
}

/// Writes the checksum of a TCP or UDP packet without extension headers, by `pnet`.
pub fn mend_checksum(frame: &mut [u8], start: usize) {
    let sum = checksum_of(frame, start);
    let field = start + if protocol_of(frame) == protocol::TCP { 16 } else { 6 };
    frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

fn protocol_of(frame: &[u8]) -> u8 {
    if frame[ETHERNET_BYTES] >> 4 == 4 { frame[ETHERNET_BYTES + 9] } else { frame[ETHERNET_BYTES + 6] }
}

fn checksum_of(frame: &[u8], start: usize) -> u16 {
    let (packet, segment) = (&frame[ETHERNET_BYTES..], &frame[start..]);
    let is_tcp = protocol_of(frame) == protocol::TCP;
    let ends: (IpAddr, IpAddr) = if packet[0] >> 4 == 4 {
        let header = Ipv4Packet::new(packet).expect("an IPv4 header");
        (header.get_source().into(), header.get_destination().into())
    } else {
        let header = Ipv6Packet::new(packet).expect("an IPv6 header");
        (header.get_source().into(), header.get_destination().into())
    };
    let tcp = || tcp::TcpPacket::new(segment).expect("a TCP header");
    let udp = || udp::UdpPacket::new(segment).expect("a UDP header");
    let sum = match (is_tcp, ends) {
        (true, (IpAddr::V4(source), IpAddr::V4(destination))) => tcp::ipv4_checksum(&tcp(), &source, &destination),
        (true, (IpAddr::V6(source), IpAddr::V6(destination))) => tcp::ipv6_checksum(&tcp(), &source, &destination),
        (false, (IpAddr::V4(source), IpAddr::V4(destination))) => udp::ipv4_checksum(&udp(), &source, &destination),
        (false, (IpAddr::V6(source), IpAddr::V6(destination))) => udp::ipv6_checksum(&udp(), &source, &destination),
        _ => unreachable!("both are of one family"),
    };
    // Zero would mean that there is no checksum (RFC 768); for TCP both forms say the same.
    if sum == 0 { 0xffff } else { sum }
}
