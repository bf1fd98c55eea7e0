//! Packets in an abstract form, as the oracle evaluates them, and their conversion to the form that the switch gets.

use crate::frame::{Ip, TcpFlags, TcpSegment, protocol};
use crate::oracle::EvaluationPlace;
use std::net::IpAddr;
use vswitch_core::config::desired::Direction;
use vswitch_core::packet::headers::{Addresses, Tuple};

/// The first port that no service uses.
const EPHEMERAL: u16 = 32_768;
/// Far from the numbers of the connections in these worlds.
const BLIND_GUESS: u32 = 0x9000_0000;

/// A packet in abstract form.
#[derive(Clone, Debug)]
pub struct Message {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// What it carries.
    pub content: Content,
}

/// What a message carries.
#[derive(Clone, Debug)]
pub enum Content {
    /// TCP: source port, destination port, flags. The numbers are those with which both sides of every connection here
    /// go on.
    Tcp(u16, u16, u8),
    /// The same, from somebody who guesses the numbers wrongly.
    Blind(u16, u16, u8),
    /// UDP: source port, destination port.
    Udp(u16, u16),
    /// An echo request with an identifier.
    Ping(u16),
    /// An echo reply with an identifier.
    Pong(u16),
    /// Any protocol without ports.
    Other(u8),
    /// "Port unreachable" about another message.
    Unreachable(Box<Message>),
    /// The first part of a UDP packet: identification and ports.
    FirstPart(u32, u16, u16),
    /// Another part of a UDP packet: identification.
    LaterPart(u32),
}

impl Message {
    /// The message as a packet.
    pub fn packet(&self) -> Ip {
        let ip = Ip::between(self.source, self.destination);
        match &self.content {
            &Content::Tcp(source, destination, flags) => ip.tcp(source, destination, flags),
            &Content::Blind(source, destination, flags) => {
                let (sequence, acknowledgment) = self.numbers();
                let segment = TcpSegment { sequence, acknowledgment, ..TcpSegment::new((source, destination), flags) };
                ip.segment(&TcpSegment { length: 12, ..segment })
            }
            &Content::Udp(source, destination) => ip.udp(source, destination),
            &Content::Ping(identifier) => ip.ping(identifier),
            &Content::Pong(identifier) => ip.pong(identifier),
            &Content::Other(number) => ip.raw(number, &[0; 16]),
            Content::Unreachable(about) => ip.unreachable(&about.packet()),
            &Content::FirstPart(id, source, destination) => ip.udp(source, destination).part(id, 0, true),
            &Content::LaterPart(id) => ip.raw(protocol::UDP, &[0xaa; 16]).part(id, 16, false),
        }
    }

    /// The tuple that rules see; ports are zero if there are none.
    pub(crate) fn tuple(&self) -> Tuple {
        let icmp = if self.source.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
        let (number, source_port, destination_port) = match self.content {
            Content::Tcp(source, destination, _) | Content::Blind(source, destination, _) => {
                (protocol::TCP, source, destination)
            }
            Content::Udp(source, destination) | Content::FirstPart(_, source, destination) => {
                (protocol::UDP, source, destination)
            }
            Content::Other(number) => (number, 0, 0),
            Content::LaterPart(_) => (protocol::UDP, 0, 0),
            Content::Ping(_) | Content::Pong(_) | Content::Unreachable(_) => (icmp, 0, 0),
        };
        let addresses = Addresses::new(self.source, self.destination).expect("one family");
        Tuple::of_connection(addresses, number, [source_port, destination_port])
    }

    /// The name of its session: protocol, source and destination.
    pub(crate) fn ends(&self) -> (u8, MessageEnd, MessageEnd) {
        let tuple = self.tuple();
        let (near, far) = match self.content {
            Content::Ping(identifier) => (Mark::Requester(identifier), Mark::Responder),
            Content::Pong(identifier) => (Mark::Responder, Mark::Requester(identifier)),
            _ => (Mark::Port(tuple.source_port), Mark::Port(tuple.destination_port)),
        };
        (tuple.protocol, (self.source, near), (self.destination, far))
    }

    pub(crate) const fn tcp_flags(&self) -> u8 {
        match self.content {
            Content::Tcp(_, _, flags) | Content::Blind(_, _, flags) => flags,
            _ => 0,
        }
    }

    /// The sequence number of its first byte, and its acknowledgment number.
    pub(crate) fn numbers(&self) -> (u32, u32) {
        let segment = TcpSegment::new((0, 0), self.tcp_flags());
        match self.content {
            // Such a SYN and its answer match.
            Content::Blind(..) if self.tcp_flags() & TcpFlags::SYN != 0 => (BLIND_GUESS - 1, BLIND_GUESS),
            Content::Blind(..) => (BLIND_GUESS, BLIND_GUESS),
            _ => (segment.sequence, segment.acknowledgment),
        }
    }

    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self.content, Content::Tcp(..) | Content::Blind(..))
    }

    /// Who opened the connection of a message without a session; `None` if unknown.
    pub(crate) fn opener(&self, place: EvaluationPlace<'_>) -> Option<MessageOpener> {
        let Tuple { source_port, destination_port, .. } = self.tuple();
        let is_service = |port| (1..EPHEMERAL).contains(&port);
        let (from_service, to_service) = (is_service(source_port), is_service(destination_port));
        let flags = self.tcp_flags();
        let (is_syn, is_ack) = (flags & TcpFlags::SYN != 0, flags & TcpFlags::ACK != 0);
        match self.content {
            _ if !place.desired.settings.pick_up_by_ports => Some(MessageOpener::Sender),
            Content::Tcp(..) | Content::Blind(..) if is_syn => (!is_ack).then_some(MessageOpener::Sender),
            Content::Tcp(..) | Content::Blind(..) => match (from_service, to_service) {
                (false, true) => Some(MessageOpener::Sender),
                (true, false) if is_ack => Some(MessageOpener::Receiver),
                _ => None,
            },
            Content::Udp(..) | Content::FirstPart(..) if place.direction == Direction::Egress => {
                (!from_service || destination_port < EPHEMERAL).then_some(MessageOpener::Sender)
            }
            Content::Pong(_) => None,
            _ => Some(MessageOpener::Sender),
        }
    }

    pub(crate) fn is_tcp_open(&self) -> bool {
        self.is_tcp() && self.tcp_flags() & (TcpFlags::SYN | TcpFlags::ACK) == TcpFlags::SYN
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Mark {
    Port(u16),
    Requester(u16),
    Responder,
}

pub(crate) type MessageEnd = (IpAddr, Mark);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageOpener {
    Sender,
    Receiver,
}
