//! Who opened the connection of a packet that has no session.
//!
//! A session may be lost while its connection lives: after a restart or a flush, after idling, or by giving way in a
//! full table. The next packet may come from either end. If its sender always counted as the opener, an answer would be
//! evaluated by the rules of the wrong direction, and would open a session that admits the whole connection although
//! the rules that once admitted it are gone. So the TCP flags, the ICMP type and the ports are considered first; where
//! they do not tell, the rules of both directions have to admit the connection. A datagram may just as well be the
//! first of all, so only its own direction counts, except where it leaves and looks like an answer.

use crate::config::desired::{Direction, Settings};
use crate::config::limits::EPHEMERAL_PORT_MIN;
use crate::packet::headers::{Fragment, Headers, IcmpKind, protocol, tcp_flags};

/// Who opened a packet's connection, which determines whose rules have to admit it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opener {
    /// The sender: the rules of the packet's direction.
    Sender,
    /// The receiver, so that the packet is an answer: the rules of the other direction.
    Receiver,
    /// Unknown, or the packet is an answer that perhaps nobody asked for: the rules of both directions.
    Unknown,
}

impl Opener {
    /// The opener of a packet without a session that crosses an ENI in `direction`.
    pub(crate) fn of(headers: &Headers, direction: Direction, settings: &Settings) -> Self {
        // A later fragment shows neither ports nor flags to judge by.
        if !settings.pick_up_by_ports || headers.fragment == Fragment::Later {
            return Self::Sender;
        }
        let tuple = &headers.tuple;
        let [from_service, to_service] = [tuple.source_port, tuple.destination_port].map(is_service);
        match tuple.protocol {
            protocol::TCP => of_segment(headers.tcp_flags, (from_service, to_service)),
            protocol::UDP
                if direction == Direction::Egress && is_like_answer(tuple.source_port, tuple.destination_port) =>
            {
                Self::Unknown
            }
            _ if headers.icmp_kind() == Some(IcmpKind::Reply) => Self::Unknown,
            _ => Self::Sender,
        }
    }
}

/// Whether a port is one that services listen on, rather than an ephemeral one. Port zero is neither.
#[inline(always)]
const fn is_service(port: u16) -> bool {
    port.wrapping_sub(1) < EPHEMERAL_PORT_MIN - 1
}

/// Whether a datagram between these ports looks like an answer.
#[inline(always)]
pub(crate) const fn is_like_answer(source: u16, destination: u16) -> bool {
    is_service(source) && destination >= EPHEMERAL_PORT_MIN
}

const fn of_segment(flags: u8, (from_service, to_service): (bool, bool)) -> Opener {
    match (flags & (tcp_flags::SYN | tcp_flags::ACK), from_service, to_service) {
        // A segment from an ephemeral port to a service goes the way its connection was opened, with or without ACK.
        (tcp_flags::SYN, ..) | (tcp_flags::ACK | 0, false, true) => Opener::Sender,
        // In a connection, a stack sends no packet without ACK except the first SYN.
        (tcp_flags::ACK, true, false) => Opener::Receiver,
        // A SYN with ACK mostly answers, but either end sends one in a simultaneous open (RFC 9293 §3.5).
        _ => Opener::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::headers::{Addresses, Tuple};
    use tcp_flags::{ACK, FIN, RST, SYN};

    fn opener(number: u8, ports: [u16; 2], flags: u8, direction: Direction) -> Opener {
        let [source_port, destination_port] = ports;
        let addresses = Addresses::V4 { source: 1, destination: 2 };
        let tuple = Tuple::of_connection(addresses, number, [source_port, destination_port]);
        let headers = Headers { tcp_flags: flags, ..Headers::of(tuple) };
        Opener::of(&headers, direction, &Settings::default())
    }

    #[test]
    fn flags_tell_more_than_ports_and_ports_more_than_nothing() {
        use Opener::{Receiver, Sender, Unknown};
        let (request, answer, alike) = ([40_000, 443], [443, 40_000], [5_000, 443]);
        for (ports, flags, expected) in [
            (request, SYN, Sender),
            (answer, SYN, Sender),
            (alike, SYN, Sender),
            (request, ACK, Sender),
            (request, FIN, Sender),
            (answer, ACK, Receiver),
            (answer, FIN | ACK, Receiver),
            (answer, RST | ACK, Receiver),
            (alike, ACK, Unknown),
            ([40_000, 50_000], ACK, Unknown),
            (request, SYN | ACK, Unknown),
            (answer, SYN | ACK, Unknown),
            (answer, FIN, Unknown),
            (answer, RST, Unknown),
            (answer, 0, Unknown),
        ] {
            for direction in [Direction::Egress, Direction::Ingress] {
                assert_eq!(opener(protocol::TCP, ports, flags, direction), expected, "{ports:?} {flags:#x}");
            }
        }
    }

    #[test]
    fn a_datagram_is_held_to_both_directions_only_where_it_leaves_like_an_answer() {
        for (ports, direction, expected) in [
            ([53, 40_000], Direction::Egress, Opener::Unknown),
            ([53, 40_000], Direction::Ingress, Opener::Sender),
            ([40_000, 53], Direction::Egress, Opener::Sender),
            ([123, 123], Direction::Egress, Opener::Sender),
            ([40_000, 33_434], Direction::Egress, Opener::Sender),
            ([0, 33_434], Direction::Egress, Opener::Sender),
            ([53, 0], Direction::Egress, Opener::Sender),
        ] {
            assert_eq!(opener(protocol::UDP, ports, 0, direction), expected, "{ports:?} {direction:?}");
        }
    }
}
