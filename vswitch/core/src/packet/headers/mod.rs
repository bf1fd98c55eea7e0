//! Bytes to headers, once per packet. Every length is checked before a byte is read; nothing here panics.

use crate::config::limits::{ETHERNET_HEADER_BYTES, FRAME_BYTES_MAX, ICMP_ERROR_BYTES_MAX_V4, ICMP_ERROR_BYTES_MAX_V6};
use crate::packet::fragment_coverage::Part;
use crate::packet::verdict::DropReason;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use extension::{authentication_header, extension_headers, has_source_route};
pub use fast_parse::Segment;
use fragment::PartOfPacket;

mod extension;
pub(crate) mod fast_parse;
mod fragment;
pub(crate) mod tcp_options;

/// IANA protocol numbers that the switch looks into.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
}

/// TCP flag bits (RFC 9293 §3.1).
pub mod tcp_flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 0x10;
}

/// Source and destination of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Addresses {
    /// IPv4, in host order.
    V4 {
        /// Source.
        source: u32,
        /// Destination.
        destination: u32,
    },
    /// IPv6, in host order.
    V6 {
        /// Source.
        source: u128,
        /// Destination.
        destination: u128,
    },
}

impl Addresses {
    /// The source as a library type.
    pub fn source(self) -> IpAddr {
        match self {
            Self::V4 { source, .. } => Ipv4Addr::from_bits(source).into(),
            Self::V6 { source, .. } => Ipv6Addr::from_bits(source).into(),
        }
    }

    /// The destination as a library type.
    pub fn destination(self) -> IpAddr {
        match self {
            Self::V4 { destination, .. } => Ipv4Addr::from_bits(destination).into(),
            Self::V6 { destination, .. } => Ipv6Addr::from_bits(destination).into(),
        }
    }

    /// Both addresses; none if they are of two families.
    pub fn new(source: IpAddr, destination: IpAddr) -> Option<Self> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Some(Self::V4 { source: source.to_bits(), destination: destination.to_bits() })
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                Some(Self::V6 { source: source.to_bits(), destination: destination.to_bits() })
            }
            _ => None,
        }
    }

    /// The same pair seen from the other side.
    pub const fn reverse(self) -> Self {
        match self {
            Self::V4 { source, destination } => Self::V4 { source: destination, destination: source },
            Self::V6 { source, destination } => Self::V6 { source: destination, destination: source },
        }
    }
}

/// What rules and sessions look at.
///
/// For ICMP queries the identifier stands in the requester's place and the request's type in the responder's, so that a
/// reply is the reverse of its request and a request of the other side is not. Other protocols have zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source and destination addresses.
    pub addresses: Addresses,
    /// IANA protocol number; for IPv6, what follows the extension headers.
    pub protocol: u8,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

impl Tuple {
    /// The tuple of the answer.
    pub const fn reverse(self) -> Self {
        Self {
            addresses: self.addresses.reverse(),
            protocol: self.protocol,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }

    /// The tuple as rules see it where ports are unknown.
    pub const fn without_ports(self) -> Self {
        Self { source_port: 0, destination_port: 0, ..self }
    }
}

/// Which part of an IP packet a packet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fragment {
    /// All of it.
    #[default]
    Whole,
    /// The first part, with the transport header.
    First,
    /// Another part, without.
    Later,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// ARP for IPv4 over Ethernet.
    Arp,
    /// IPv4 or IPv6.
    Ip,
}

/// What a packet's headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// What the frame carries. The other fields but `end` mean something for [`Network::Ip`] alone.
    pub network: Network,
    /// Addresses, protocol, ports.
    pub tuple: Tuple,
    /// Which part of an IP packet this is.
    pub fragment: Fragment,
    /// Which IP packet the fragment is of.
    pub fragment_id: u32,
    /// Which bytes of that packet's payload the fragment is; nothing for a whole packet.
    pub(crate) part: Part,
    /// Time to live, or hop limit.
    pub hop_limit: u8,
    /// TCP flags.
    pub tcp_flags: u8,
    /// TCP: the number of the first byte.
    pub sequence: u32,
    /// TCP: the next byte that the sender expects, if the flags say so.
    pub acknowledgment: u32,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
    /// Whether it has an IPv4 source route option, loose or strict.
    pub(crate) has_source_route: bool,
    /// Where the transport header starts in the frame.
    pub transport_offset: u32,
    /// Where the packet ends in the frame; padding may follow.
    pub end: u32,
    /// A whole TCP or UDP packet that no exemption and no answer of the router concerns. Only what nearly all packets
    /// are has this mark: without it nothing is known.
    pub(crate) is_plain: bool,
}

impl Default for Headers {
    fn default() -> Self {
        Self::of(Tuple {
            addresses: Addresses::V4 { source: 0, destination: 0 },
            protocol: 0,
            source_port: 0,
            destination_port: 0,
        })
    }
}

/// What kind of ICMP message a packet is, for sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpKind {
    /// Asks for a reply with the same identifier.
    Request,
    /// Such a reply.
    Reply,
    /// Reports a problem with a packet that it quotes.
    Error,
    /// Anything else.
    Other,
}

impl Headers {
    /// Headers of an unfragmented packet with `tuple`, of no frame.
    pub const fn of(tuple: Tuple) -> Self {
        Self {
            network: Network::Unknown,
            tuple,
            fragment: Fragment::Whole,
            fragment_id: 0,
            part: Part::NONE,
            hop_limit: 64,
            tcp_flags: 0,
            sequence: 0,
            acknowledgment: 0,
            icmp_type: 0,
            icmp_code: 0,
            has_source_route: false,
            transport_offset: 0,
            end: 0,
            is_plain: false,
        }
    }

    /// What it says of a TCP stream; all zero for other protocols.
    #[inline]
    pub const fn segment(&self) -> Segment {
        Segment { sequence: self.sequence, acknowledgment: self.acknowledgment, flags: self.tcp_flags }
    }

    /// The kind of ICMP message, if it is one. A later fragment does not tell.
    pub fn icmp_kind(&self) -> Option<IcmpKind> {
        if self.fragment == Fragment::Later {
            return None;
        }
        match (self.tuple.addresses, self.tuple.protocol) {
            (Addresses::V4 { .. }, protocol::ICMP) => Some(match self.icmp_type {
                8 | 13 | 15 | 17 => IcmpKind::Request,
                0 | 14 | 16 | 18 => IcmpKind::Reply,
                3 | 4 | 5 | 11 | 12 => IcmpKind::Error,
                _ => IcmpKind::Other,
            }),
            (Addresses::V6 { .. }, protocol::ICMPV6) => Some(match self.icmp_type {
                128 => IcmpKind::Request,
                129 => IcmpKind::Reply,
                1..=127 => IcmpKind::Error,
                _ => IcmpKind::Other,
            }),
            _ => None,
        }
    }

    /// Whether this is an ICMP error that has to quote a packet: unreachable, time exceeded, parameter problem (RFC 792),
    /// packet too big (RFC 4443).
    pub(crate) fn has_quote(&self) -> bool {
        self.icmp_kind() == Some(IcmpKind::Error)
            && match self.tuple.addresses {
                Addresses::V4 { .. } => matches!(self.icmp_type, 3 | 11 | 12),
                Addresses::V6 { .. } => matches!(self.icmp_type, 1..=4),
            }
    }

    /// Whether this is the report that a packet is too big for the path: ICMP type 3 code 4, ICMPv6 type 2 (§3.4).
    pub(crate) fn is_path_mtu_report(&self) -> bool {
        self.icmp_kind() == Some(IcmpKind::Error)
            && match self.tuple.addresses {
                Addresses::V4 { .. } => self.icmp_type == 3 && self.icmp_code == 4,
                Addresses::V6 { .. } => self.icmp_type == 2,
            }
    }

    /// Whether this is no longer than an ICMP error may be, and whole. A described packet has no length.
    pub(crate) fn has_error_length(&self) -> bool {
        let most = match self.tuple.addresses {
            Addresses::V4 { .. } => ICMP_ERROR_BYTES_MAX_V4,
            Addresses::V6 { .. } => ICMP_ERROR_BYTES_MAX_V6,
        };
        self.fragment == Fragment::Whole && self.end as usize <= ETHERNET_HEADER_BYTES + most
    }

    /// Whether this is an ICMP query whose identifier has the number of a request's type: then the tuples of a request
    /// and of a reply the same way can be equal, and only the type tells them apart.
    pub fn may_be_its_own_reverse(&self) -> bool {
        const REQUEST_TYPES: [u16; 5] = [8, 13, 15, 17, 128];
        matches!(self.icmp_kind(), Some(IcmpKind::Request | IcmpKind::Reply))
            && REQUEST_TYPES.contains(&self.tuple.source_port)
            && REQUEST_TYPES.contains(&self.tuple.destination_port)
    }

    /// Whether this is neighbour discovery as RFC 4861 §6.1 and §7.1 accept it.
    pub fn is_neighbor_discovery(&self) -> bool {
        self.tuple.protocol == protocol::ICMPV6
            && matches!(self.tuple.addresses, Addresses::V6 { .. })
            && self.fragment == Fragment::Whole
            && matches!(self.icmp_type, 133..=137)
            && self.hop_limit == 255
    }

    /// Whether this is UDP from one port to another.
    pub fn is_udp(&self, source_port: u16, destination_port: u16) -> bool {
        self.tuple.protocol == protocol::UDP
            && self.fragment != Fragment::Later
            && self.tuple.source_port == source_port
            && self.tuple.destination_port == destination_port
    }

    /// Whether this is what a DHCP server sends (RFC 2131 §4.1, RFC 8415 §7.2).
    pub fn is_dhcp_answer(&self) -> bool {
        self.is_udp(67, 68) || self.is_udp(547, 546)
    }

    /// Whether this opens a TCP connection: SYN without ACK.
    pub fn is_tcp_open(&self) -> bool {
        self.tuple.protocol == protocol::TCP
            && self.fragment != Fragment::Later
            && self.tcp_flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN
    }
}

/// The address of the metadata service, 100.100.100.200 (`semantics.md` §3.4).
pub(crate) const METADATA_SERVICE: u32 = 0x6464_64c8;

const ETHER_TYPE_IPV4: u16 = 0x0800;
const ETHER_TYPE_ARP: u16 = 0x0806;
const ETHER_TYPE_IPV6: u16 = 0x86dd;
const ETHER_TYPES_VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];
const ARP_BYTES: usize = 28;

/// Reads the headers of a frame.
///
/// # Errors
/// The reason under which the frame is to be dropped.
pub fn parse(frame: &[u8]) -> Result<Headers, DropReason> {
    let ether_type = read_u16(frame, 12).ok_or(DropReason::FrameTruncated)?;
    if frame.len() > FRAME_BYTES_MAX {
        return Err(DropReason::FrameTooLong);
    }
    let packet = &frame[ETHERNET_HEADER_BYTES..];
    let mut headers = match ether_type {
        ETHER_TYPE_IPV4 => ipv4(packet, Trust::Whole)?,
        ETHER_TYPE_IPV6 => ipv6(packet, Trust::Whole)?,
        ETHER_TYPE_ARP => arp(packet)?,
        tag if ETHER_TYPES_VLAN.contains(&tag) => return Err(DropReason::VlanTagged),
        _ => return Err(DropReason::EtherTypeUnknown),
    };
    headers.transport_offset += ETHERNET_HEADER_BYTES as u32;
    headers.end += ETHERNET_HEADER_BYTES as u32;
    Ok(headers)
}

/// Reads the headers of a frame into `headers`, which mean nothing if that fails.
///
/// # Errors
/// The reason under which the frame is to be dropped.
#[inline]
pub(crate) fn read(frame: &[u8], headers: &mut Headers) -> Result<(), DropReason> {
    if fast_parse::read(frame, headers).is_none() {
        *headers = parse(frame)?;
    }
    Ok(())
}

/// Reads the packet that an ICMP error quotes (RFC 792, RFC 4443 §2.4): at least its ports or identifier, unless it is a
/// later fragment. None where it quotes too little.
pub fn quoted(frame: &[u8], headers: &Headers) -> Option<Headers> {
    let start = headers.transport_offset as usize + ICMP_HEADER_BYTES;
    let quote = frame.get(start..headers.end as usize)?;
    let inner = match headers.tuple.addresses {
        Addresses::V4 { .. } => ipv4(quote, Trust::Quote),
        Addresses::V6 { .. } => ipv6(quote, Trust::Quote),
    };
    inner.ok()
}

/// Whether the bytes are a packet, or only the beginning of one.
#[derive(Clone, Copy, PartialEq)]
enum Trust {
    Whole,
    Quote,
}

/// Bytes of an ICMP header, of either family.
pub(crate) const ICMP_HEADER_BYTES: usize = 8;

fn arp(packet: &[u8]) -> Result<Headers, DropReason> {
    let fixed = packet.get(..ARP_BYTES).ok_or(DropReason::FrameTruncated)?;
    let for_ipv4_over_ethernet = fixed[..6] == [0, 1, 8, 0, 6, 4];
    if !for_ipv4_over_ethernet || !matches!(read_u16(fixed, 6), Some(1 | 2)) {
        return Err(DropReason::ArpMalformed);
    }
    Ok(Headers { network: Network::Arp, end: ARP_BYTES as u32, ..Headers::default() })
}

fn ipv4(packet: &[u8], trust: Trust) -> Result<Headers, DropReason> {
    const FIXED_BYTES: usize = 20;
    let fixed = packet.get(..FIXED_BYTES).ok_or(DropReason::FrameTruncated)?;
    let header_bytes = (fixed[0] & 0x0f) as usize * 4;
    let total_bytes = u16::from_be_bytes([fixed[2], fixed[3]]) as usize;
    if fixed[0] >> 4 != 4 || header_bytes < FIXED_BYTES || total_bytes < header_bytes {
        return Err(DropReason::Ipv4Malformed);
    }
    let end = match trust {
        Trust::Whole if total_bytes > packet.len() => return Err(DropReason::Ipv4Malformed),
        Trust::Whole => total_bytes,
        Trust::Quote => total_bytes.min(packet.len()),
    };
    if end < header_bytes {
        return Err(DropReason::Ipv4Malformed);
    }
    let flags_and_offset = u16::from_be_bytes([fixed[6], fixed[7]]);
    let offset_bytes = (flags_and_offset & 0x1fff) as usize * 8;
    let more = flags_and_offset & 0x2000 != 0;
    let part = PartOfPacket { start: offset_bytes, end: offset_bytes + total_bytes - header_bytes, more };
    let mut headers = Headers {
        network: Network::Ip,
        tuple: Tuple {
            addresses: Addresses::V4 {
                source: u32::from_be_bytes([fixed[12], fixed[13], fixed[14], fixed[15]]),
                destination: u32::from_be_bytes([fixed[16], fixed[17], fixed[18], fixed[19]]),
            },
            protocol: fixed[9],
            source_port: 0,
            destination_port: 0,
        },
        fragment: part.classify(fixed[9], trust)?,
        part: part.kept(),
        fragment_id: u16::from_be_bytes([fixed[4], fixed[5]]) as u32,
        hop_limit: fixed[8],
        has_source_route: has_source_route(packet.get(FIXED_BYTES..header_bytes).unwrap_or_default()),
        transport_offset: header_bytes as u32,
        end: end as u32,
        ..Headers::default()
    };
    authentication_header(&packet[..end], &mut headers)?;
    transport(&packet[headers.transport_offset as usize..end], &mut headers, trust)?;
    Ok(headers)
}

fn ipv6(packet: &[u8], trust: Trust) -> Result<Headers, DropReason> {
    const FIXED_BYTES: usize = 40;
    let fixed: &[u8; FIXED_BYTES] = packet.first_chunk().ok_or(DropReason::FrameTruncated)?;
    let total_bytes = FIXED_BYTES + u16::from_be_bytes([fixed[4], fixed[5]]) as usize;
    if fixed[0] >> 4 != 6 || (trust == Trust::Whole && total_bytes > packet.len()) {
        return Err(DropReason::Ipv6Malformed);
    }
    let end = total_bytes.min(packet.len());
    let source = read_u128(fixed, 8).ok_or(DropReason::FrameTruncated)?;
    let destination = read_u128(fixed, 24).ok_or(DropReason::FrameTruncated)?;
    let mut headers = Headers {
        network: Network::Ip,
        tuple: Tuple {
            addresses: Addresses::V6 { source, destination },
            protocol: fixed[6],
            source_port: 0,
            destination_port: 0,
        },
        hop_limit: fixed[7],
        transport_offset: FIXED_BYTES as u32,
        end: end as u32,
        ..Headers::default()
    };
    extension_headers(&packet[..end], &mut headers, trust)?;
    transport(&packet[headers.transport_offset as usize..end], &mut headers, trust)?;
    Ok(headers)
}

fn transport(bytes: &[u8], headers: &mut Headers, trust: Trust) -> Result<(), DropReason> {
    if headers.fragment == Fragment::Later {
        return Ok(());
    }
    let (is_icmp, header_bytes_min) = match (headers.tuple.addresses, headers.tuple.protocol) {
        (_, protocol::TCP) => (false, 20),
        (_, protocol::UDP) => (false, 8),
        (Addresses::V4 { .. }, protocol::ICMP) => (true, ICMP_HEADER_BYTES),
        (Addresses::V6 { .. }, protocol::ICMPV6) => (true, ICMP_HEADER_BYTES),
        _ => return Ok(()),
    };
    // Quotes hold at least 8 bytes of it; a first fragment must hold it all (RFC 7112).
    let needed = if trust == Trust::Quote { 8 } else { header_bytes_min };
    let truncated = match headers.fragment {
        Fragment::Whole => DropReason::TransportTruncated,
        _ => DropReason::FragmentTiny,
    };
    let start = bytes.get(..needed).ok_or(truncated)?;
    if is_icmp {
        read_icmp(start, headers);
        return Ok(());
    }
    headers.tuple.source_port = u16::from_be_bytes([start[0], start[1]]);
    headers.tuple.destination_port = u16::from_be_bytes([start[2], start[3]]);
    if trust == Trust::Quote {
        return Ok(());
    }
    if headers.tuple.protocol == protocol::TCP {
        let header_bytes = (start[12] >> 4) as usize * 4;
        headers.tcp_flags = start[13];
        headers.sequence = u32::from_be_bytes([start[4], start[5], start[6], start[7]]);
        headers.acknowledgment = u32::from_be_bytes([start[8], start[9], start[10], start[11]]);
        if header_bytes < header_bytes_min || header_bytes > bytes.len() {
            return Err(truncated);
        }
    } else if headers.fragment == Fragment::Whole {
        let length_bytes = u16::from_be_bytes([start[4], start[5]]) as usize;
        if length_bytes < header_bytes_min || length_bytes > bytes.len() {
            return Err(truncated);
        }
    }
    Ok(())
}

fn read_icmp(start: &[u8], headers: &mut Headers) {
    headers.icmp_type = start[0];
    headers.icmp_code = start[1];
    let identifier = u16::from_be_bytes([start[4], start[5]]);
    match headers.icmp_kind() {
        Some(IcmpKind::Request) => {
            headers.tuple.source_port = identifier;
            headers.tuple.destination_port = headers.icmp_type as u16;
        }
        Some(IcmpKind::Reply) => {
            headers.tuple.source_port = request_type(headers.icmp_type) as u16;
            headers.tuple.destination_port = identifier;
        }
        _ => {}
    }
}

/// The type of the request that a reply of this type answers.
const fn request_type(reply_type: u8) -> u8 {
    match reply_type {
        0 => 8,
        other => other - 1,
    }
}

fn read_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u16::from_be_bytes(*chunk))
}

fn read_u128(bytes: &[u8], offset: usize) -> Option<u128> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u128::from_be_bytes(*chunk))
}
