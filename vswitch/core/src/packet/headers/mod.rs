//! What the headers of a packet say. `parse` reads any frame, `fast_parse` reads nearly all of them.

use crate::config::limits::{ETHERNET_HEADER_BYTES, ICMP_ERROR_BYTES_MAX_V4, ICMP_ERROR_BYTES_MAX_V6};
use crate::config::services::{METADATA_V4, METADATA_V6};
use crate::packet::fragment_coverage::Part;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

mod extension;
pub(crate) mod fast_parse;
mod fragment;
pub mod parse;
pub(crate) mod tcp_options;

/// IANA protocol numbers whose headers the switch parses.
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
    /// The acknowledgement field is valid.
    pub const ACK: u8 = 0x10;
}

/// Source and destination address, of one family.
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
    /// The source address as a standard library type.
    pub fn source(self) -> IpAddr {
        match self {
            Self::V4 { source, .. } => Ipv4Addr::from_bits(source).into(),
            Self::V6 { source, .. } => Ipv6Addr::from_bits(source).into(),
        }
    }

    /// The destination address as a standard library type.
    pub fn destination(self) -> IpAddr {
        match self {
            Self::V4 { destination, .. } => Ipv4Addr::from_bits(destination).into(),
            Self::V6 { destination, .. } => Ipv6Addr::from_bits(destination).into(),
        }
    }

    /// Both addresses; `None` if they are of different families.
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

    /// The same pair with source and destination exchanged.
    pub const fn reverse(self) -> Self {
        match self {
            Self::V4 { source, destination } => Self::V4 { source: destination, destination: source },
            Self::V6 { source, destination } => Self::V6 { source: destination, destination: source },
        }
    }
}

/// The fields that rules and sessions use.
///
/// For ICMP queries the identifier takes the place of the requester's port and the request's type that of the
/// responder's, so that a reply is the reverse of its request, and a request from the other side is not. Other
/// protocols have zeros.
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
    /// What the key of a connection says about its packets. Fields that no key holds have the value that rules see
    /// where they are unknown.
    pub const fn of_connection(addresses: Addresses, protocol: u8, [source_port, destination_port]: [u16; 2]) -> Self {
        Self { addresses, protocol, source_port, destination_port }
    }

    /// The tuple of the reply.
    pub const fn reverse(self) -> Self {
        let (source_port, destination_port) = (self.destination_port, self.source_port);
        Self { addresses: self.addresses.reverse(), source_port, destination_port, ..self }
    }

    /// The tuple as rules see it where ports are not known.
    pub const fn without_ports(self) -> Self {
        Self { source_port: 0, destination_port: 0, ..self }
    }
}

/// Which part of an IP packet a frame carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fragment {
    /// The whole packet.
    #[default]
    Whole,
    /// The first fragment, with the transport header.
    First,
    /// A later fragment, without the transport header.
    Later,
}

/// What a frame contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Not parsed yet.
    #[default]
    Unknown,
    /// ARP for IPv4 over Ethernet.
    Arp,
    /// IPv4 or IPv6.
    Ip,
}

/// The stream-related fields of a TCP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// The sequence number of its first byte.
    pub sequence: u32,
    /// The next byte that its sender expects; valid with ACK only.
    pub acknowledgment: u32,
    /// The flags.
    pub flags: u8,
}

/// What a packet's headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// What the frame contains. The other fields, except `end`, are meaningful for [`Network::Ip`] only.
    pub network: Network,
    /// Addresses, protocol, ports.
    pub tuple: Tuple,
    /// Which part of an IP packet this is.
    pub fragment: Fragment,
    /// The identification of the fragmented IP packet.
    pub fragment_id: u32,
    /// The bytes of that packet's payload that the fragment carries; none for an unfragmented packet.
    pub(crate) part: Part,
    /// Time to live, or hop limit.
    pub hop_limit: u8,
    /// TCP flags.
    pub tcp_flags: u8,
    /// TCP: the sequence number of the first byte.
    pub sequence: u32,
    /// TCP: the next byte that the sender expects; valid with ACK only.
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
    /// Whether it is an unfragmented TCP or UDP packet that no exemption and no reply of the router concerns. Only the
    /// fast parser sets this; a packet without the mark may still be one.
    pub(crate) is_plain: bool,
}

impl Default for Headers {
    fn default() -> Self {
        Self::of(Tuple::of_connection(Addresses::V4 { source: 0, destination: 0 }, 0, [0; 2]))
    }
}

/// The kind of an ICMP message, as sessions distinguish them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpKind {
    /// A query, which asks for a reply with the same identifier.
    Request,
    /// The reply to a query.
    Reply,
    /// An error, which reports a problem with a packet that it quotes.
    Error,
    /// Anything else.
    Other,
}

impl Headers {
    /// Headers of an unfragmented packet with `tuple`, without a frame.
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

    /// The stream-related fields of TCP; all zero for other protocols.
    #[inline]
    pub const fn segment(&self) -> Segment {
        Segment { sequence: self.sequence, acknowledgment: self.acknowledgment, flags: self.tcp_flags }
    }

    /// The kind of ICMP message, if it is one. A later fragment does not say.
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

    /// Whether this is an ICMP error that must quote a packet: unreachable, time exceeded, parameter problem (RFC 792),
    /// packet too big (RFC 4443).
    pub(crate) fn has_quote(&self) -> bool {
        self.icmp_kind() == Some(IcmpKind::Error)
            && match self.tuple.addresses {
                Addresses::V4 { .. } => matches!(self.icmp_type, 3 | 11 | 12),
                Addresses::V6 { .. } => matches!(self.icmp_type, 1..=4),
            }
    }

    /// Whether this reports that a packet is too big for the path: ICMP type 3 code 4, ICMPv6 type 2 (§3.4).
    pub(crate) fn is_path_mtu_report(&self) -> bool {
        self.icmp_kind() == Some(IcmpKind::Error)
            && match self.tuple.addresses {
                Addresses::V4 { .. } => self.icmp_type == 3 && self.icmp_code == 4,
                Addresses::V6 { .. } => self.icmp_type == 2,
            }
    }

    /// Whether this is complete and no longer than an ICMP error may be. A packet described for explain has no length.
    pub(crate) fn has_error_length(&self) -> bool {
        let most = match self.tuple.addresses {
            Addresses::V4 { .. } => ICMP_ERROR_BYTES_MAX_V4,
            Addresses::V6 { .. } => ICMP_ERROR_BYTES_MAX_V6,
        };
        self.fragment == Fragment::Whole && self.end as usize <= ETHERNET_HEADER_BYTES + most
    }

    /// Whether this is an ICMP query whose identifier equals the number of a request type. Then the tuples of a request
    /// and of a reply in the same direction can be equal, and only the type distinguishes them.
    pub fn may_be_its_own_reverse(&self) -> bool {
        const REQUEST_TYPES: [u16; 5] = [8, 13, 15, 17, 128];
        matches!(self.icmp_kind(), Some(IcmpKind::Request | IcmpKind::Reply))
            && REQUEST_TYPES.contains(&self.tuple.source_port)
            && REQUEST_TYPES.contains(&self.tuple.destination_port)
    }

    /// Whether this is neighbour discovery that RFC 4861 §6.1 and §7.1 accept.
    pub fn is_neighbor_discovery(&self) -> bool {
        self.tuple.protocol == protocol::ICMPV6
            && matches!(self.tuple.addresses, Addresses::V6 { .. })
            && self.fragment == Fragment::Whole
            && matches!(self.icmp_type, 133..=137)
            // Hop limit 255 proves that no router forwarded it (RFC 4861 §6.1), so it comes from this link.
            && self.hop_limit == 255
    }

    /// Whether this is neighbour discovery that asks for routers (RFC 4861 §4.1).
    pub(crate) fn is_router_solicitation(&self) -> bool {
        self.icmp_type == 133 && self.is_neighbor_discovery()
    }

    /// Whether this is what only a router sends to its link, a router advertisement or a redirect (RFC 4861 §4.2, §4.5),
    /// whole or the beginning of it, and whatever its hop limit.
    pub(crate) fn is_of_router(&self) -> bool {
        self.tuple.protocol == protocol::ICMPV6
            && matches!(self.tuple.addresses, Addresses::V6 { .. })
            // The first fragment suffices to tell; it must not slip through because the rest is elsewhere.
            && self.fragment != Fragment::Later
            && matches!(self.icmp_type, 134 | 137)
    }

    /// Whether this is UDP from one port to another.
    pub fn is_udp(&self, source_port: u16, destination_port: u16) -> bool {
        self.tuple.protocol == protocol::UDP
            && self.fragment != Fragment::Later
            && self.tuple.source_port == source_port
            && self.tuple.destination_port == destination_port
    }

    /// Whether a DHCP client sent this to a server or relay (RFC 2131 §4.1, RFC 8415 §7.2).
    pub fn is_dhcp_request(&self) -> bool {
        match self.tuple.addresses {
            Addresses::V4 { .. } => self.is_udp(68, 67),
            Addresses::V6 { .. } => self.is_udp(546, 547),
        }
    }

    /// Whether a DHCP server sent this (RFC 2131 §4.1, RFC 8415 §7.2).
    pub fn is_dhcp_answer(&self) -> bool {
        self.is_udp(67, 68) || self.is_udp(547, 546)
    }

    /// Whether this is TCP with its header.
    pub(crate) fn is_tcp(&self) -> bool {
        self.tuple.protocol == protocol::TCP && self.fragment != Fragment::Later
    }

    /// Whether this opens a TCP connection: SYN without ACK.
    pub fn is_tcp_open(&self) -> bool {
        self.tuple.protocol == protocol::TCP
            && self.fragment != Fragment::Later
            && self.tcp_flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN
    }
}

/// Whether the destination is the metadata service (`semantics.md` §3.4).
#[inline]
pub(crate) const fn is_to_metadata(addresses: Addresses) -> bool {
    match addresses {
        Addresses::V4 { destination, .. } => destination == METADATA_V4.to_bits(),
        Addresses::V6 { destination, .. } => destination == METADATA_V6.to_bits(),
    }
}

/// Bytes of an ICMP header, of either family.
pub(crate) const ICMP_HEADER_BYTES: usize = 8;
