//! Flows, and the frames that their ends send.

use crate::fixture::{self, ADMITTED_PORT};
use crate::traffic::mix::FlowTransport;
use std::net::IpAddr;
use vswitch_core::config::ids::MacAddress;
use vswitch_core::packet::FrameBuffer;
use vswitch_core::packet::headers::protocol::{TCP, UDP};
use vswitch_core::packet::headers::tcp_flags::{ACK, FIN, SYN};

/// One flow: the ENI that opens it, the one that answers, and the opener's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) client: u16,
    pub(crate) server: u16,
    pub(crate) source_port: u16,
}

/// Ports that a client uses towards one server.
const PORTS: usize = 60_000;

impl Flow {
    /// The flow that the client or server with this index among `pairs` has in this turn.
    pub(crate) fn of(place: usize, turn: usize, is_client: bool, pairs: usize) -> Self {
        Self::numbered(Self::number_of(place, turn, is_client, pairs), pairs)
    }

    /// The flow with this number: spread first over clients, then over ports, then over other servers.
    fn numbered(number: usize, pairs: usize) -> Self {
        let (pair, turn) = (number % pairs, number / pairs);
        let server = (turn / PORTS + pair) % pairs;
        Self { client: pair as u16 * 2 + 1, server: server as u16 * 2 + 2, source_port: 1024 + (turn % PORTS) as u16 }
    }

    fn number_of(place: usize, turn: usize, is_client: bool, pairs: usize) -> usize {
        // The inverse of `numbered`: the servers move on by one each time the ports are used up.
        let pair = if is_client { place } else { (place + pairs - turn / PORTS % pairs) % pairs };
        turn * pairs + pair
    }
}

/// The role of a packet in the life of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlowStep {
    /// The client's first.
    Open,
    /// The server's answer to it.
    Answer,
    /// From the client, once the flow is established.
    FromClient,
    /// From the server.
    FromServer,
    /// The client's last.
    CloseClient,
    /// The server's last.
    CloseServer,
    /// From the client, to a port that no rule admits.
    Denied,
}

impl FlowStep {
    pub(crate) const fn is_from_client(self) -> bool {
        matches!(self, Self::Open | Self::FromClient | Self::CloseClient | Self::Denied)
    }

    /// The next step in the life of a flow that is opened and closed.
    pub(crate) const fn following(self, transport: FlowTransport) -> Option<Self> {
        match (transport, self) {
            (FlowTransport::Tcp, Self::Open) => Some(Self::Answer),
            (FlowTransport::Udp, Self::Open) | (FlowTransport::Tcp, Self::FromClient) => Some(Self::FromServer),
            (FlowTransport::Tcp, Self::Answer) => Some(Self::FromClient),
            (FlowTransport::Tcp, Self::FromServer) => Some(Self::CloseClient),
            (FlowTransport::Tcp, Self::CloseClient) => Some(Self::CloseServer),
            _ => None,
        }
    }

    pub(crate) const fn tcp_flags(self) -> u8 {
        match self {
            Self::Open | Self::Denied => SYN,
            Self::Answer => SYN | ACK,
            Self::FromClient | Self::FromServer => ACK,
            Self::CloseClient | Self::CloseServer => FIN | ACK,
        }
    }
}

/// What all frames of a run have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) is_v6: bool,
    pub(crate) transport: FlowTransport,
    /// How many ports of each server flows use, one after the other.
    pub(crate) services: u16,
    /// How many addresses of each client.
    pub(crate) addresses: u16,
}

/// A port that no rule of the world admits by itself.
pub(crate) const DENIED_PORT: u16 = 444;

/// Writes the frame that a flow sends in a step, of `frame_bytes` or as long as its headers.
pub(crate) fn write(buffer: &mut FrameBuffer, shape: Shape, (flow, step): (Flow, FlowStep), frame_bytes: usize) {
    let service = ADMITTED_PORT - flow.source_port % shape.services;
    let service_port = if step == FlowStep::Denied { DENIED_PORT } else { service };
    let client =
        (fixture::client_address(flow.client, flow.source_port % shape.addresses, shape.is_v6), flow.source_port);
    let server = (fixture::address(flow.server, shape.is_v6), service_port);
    let (number, ends) =
        if step.is_from_client() { (flow.client, [client, server]) } else { (flow.server, [server, client]) };
    let frame_ends = FrameEnds { macs: [ROUTER_MAC, fixture::mac(number)], ends };
    write_between(buffer, shape.transport, &frame_ends, step.tcp_flags(), frame_bytes);
}

/// The router's hardware address: no fixture configures another one.
const ROUTER_MAC: MacAddress = MacAddress([0xee, 0xff, 0xff, 0xff, 0xff, 0xff]);

/// Where a frame comes from and goes to.
pub(crate) struct FrameEnds {
    /// The hardware addresses of its receiver and its sender.
    pub(crate) macs: [MacAddress; 2],
    /// Source and destination, both of one family.
    pub(crate) ends: [(IpAddr, u16); 2],
}

/// Where the transport header is.
pub(super) const TRANSPORT_V4: usize = 14 + 20;
pub(super) const TRANSPORT_V6: usize = 14 + 40;

/// Writes a frame of `frame_bytes`, or as long as its headers.
pub(crate) fn write_between(
    buffer: &mut FrameBuffer,
    transport: FlowTransport,
    &FrameEnds { macs: [receiver, sender], ends: [from, to] }: &FrameEnds,
    tcp_flags: u8,
    frame_bytes: usize,
) {
    let (protocol, transport_bytes) = match transport {
        FlowTransport::Tcp => (TCP, 20),
        FlowTransport::Udp => (UDP, 8),
    };
    let transport_at = if from.0.is_ipv6() { TRANSPORT_V6 } else { TRANSPORT_V4 };
    buffer.set_length(frame_bytes.max(transport_at + transport_bytes));
    let frame = buffer.frame_mut();
    // Buffers are used again, so an earlier frame's headers have to go; what follows the headers does not matter.
    frame[..transport_at + transport_bytes].fill(0);
    frame[..6].copy_from_slice(&receiver.0);
    frame[6..12].copy_from_slice(&sender.0);
    let after_ethernet = frame.len() - 14;
    match (from.0, to.0) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let [high, low] = (after_ethernet as u16).to_be_bytes();
            frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, high, low, 0, 0, 0x40, 0, 64, protocol]);
            frame[26..30].copy_from_slice(&source.octets());
            frame[30..34].copy_from_slice(&destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let [high, low] = ((after_ethernet - 40) as u16).to_be_bytes();
            frame[12..22].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, high, low, protocol, 64]);
            frame[22..38].copy_from_slice(&source.octets());
            frame[38..54].copy_from_slice(&destination.octets());
        }
        _ => unreachable!("both ends are of one family"),
    }
    let header = &mut frame[transport_at..];
    header[..2].copy_from_slice(&from.1.to_be_bytes());
    header[2..4].copy_from_slice(&to.1.to_be_bytes());
    match transport {
        FlowTransport::Tcp => header[12..16].copy_from_slice(&[0x50, tcp_flags, 0xff, 0xff]),
        FlowTransport::Udp => {
            let length = header.len() as u16;
            header[4..6].copy_from_slice(&length.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_number_is_another_flow_and_is_found_from_both_ends() {
        let numbers: HashSet<usize> = (0..5_000_000).step_by(97).chain(0..100_000).collect();
        for pairs in [32, 3] {
            let mut seen = HashSet::new();
            for &number in numbers.iter().filter(|&&number| number < pairs * pairs * PORTS) {
                let flow = Flow::numbered(number, pairs);
                seen.insert((flow.client, flow.server, flow.source_port));
                let turn = number / pairs;
                for (eni, is_client) in [(flow.client, true), (flow.server, false)] {
                    assert_eq!(Flow::number_of((usize::from(eni) - 1) / 2, turn, is_client, pairs), number);
                }
            }
            assert_eq!(seen.len(), numbers.iter().filter(|&&number| number < pairs * pairs * PORTS).count());
        }
    }

    #[test]
    fn a_life_has_as_many_packets_as_it_says() {
        for transport in [FlowTransport::Tcp, FlowTransport::Udp] {
            let life = std::iter::successors(Some(FlowStep::Open), |step| step.following(transport));
            assert_eq!(life.count(), transport.packets_of_life());
        }
    }
}
