//! TCP toward guests: a stack for each ENI that has connections, so that equal addresses of two VPCs never meet.
//!
//! All is bounded: connections in all and of one ENI, the bytes that each buffers, and the time that it may take. Where there
//! is no room, a client is refused at once.

mod device;
mod stack;

use crate::directory::Asker;
use crate::tcp::stack::TcpStack;
use etherparse::TcpSlice;
use smoltcp::time::Instant;
use std::collections::BTreeMap;
use std::net::IpAddr;
use vswitch_core::config::services::frame::{ServedEni, ServiceFrame};

/// Connections of all ENIs together.
pub const CONNECTIONS_MAX: usize = 256;
/// Connections of one ENI.
pub const CONNECTIONS_PER_ENI_MAX: usize = 4;
/// Bytes that a connection buffers in each direction.
pub const BUFFER_BYTES: usize = 8 << 10;
/// How long a client may take for a request, and for reading the reply, ms.
pub const REQUEST_MS: u64 = 10_000;

/// What comes of the bytes that a client has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// They are no whole request yet.
    Wait,
    /// They begin with a request whose reply comes later ([`TcpPool::answer`]).
    Later {
        /// Bytes of the request.
        consumed: usize,
    },
    /// They begin with a request.
    Reply {
        /// Bytes of the request.
        consumed: usize,
        /// The reply.
        bytes: Vec<u8>,
        /// Whether the connection ends after the reply.
        closes: bool,
        /// How many hops the reply may take, if not as many as usual.
        hop_limit: Option<u8>,
    },
}

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionId {
    /// The ENI of its client.
    pub eni: ServedEni,
    /// Its number, which no other connection of the ENI gets.
    pub number: u64,
    /// The port that it is to.
    pub port: u16,
}

/// What serves connections.
pub trait Respond {
    /// The reaction to what a client has sent to a port and has not been replied to.
    fn respond(&mut self, asker: &Asker, connection: ConnectionId, input: &[u8]) -> Reaction;
}

/// All connections.
#[derive(Debug)]
pub struct TcpPool {
    stacks: BTreeMap<ServedEni, TcpStack>,
    connections: usize,
    seed: u64,
}

/// The ends of a TCP segment: where it is from and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SegmentEnds {
    from: (IpAddr, u16),
    to: (IpAddr, u16),
}

impl TcpPool {
    /// A pool without connections. `seed` makes the sequence numbers that connections begin with hard to guess.
    pub fn new(seed: u64) -> Self {
        Self { stacks: BTreeMap::new(), connections: 0, seed }
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// Takes a packet with a TCP segment, and hands the packets that follow from it to `send`.
    pub fn receive(
        &mut self,
        (frame, addresses, segment): (&ServiceFrame<'_>, [IpAddr; 2], &TcpSlice<'_>),
        respond: &mut dyn Respond,
        now: Instant,
        send: &mut dyn FnMut(&ServiceFrame<'_>),
    ) {
        let [vpc, eni] = frame.names;
        let asker = Asker { vpc: vpc.into(), eni: eni.into() };
        // Numbers of ENIs are those of one forwarding plane; another one may give them to others.
        if self.stacks.get(&frame.eni).is_some_and(|stack| *stack.asker() != asker) {
            self.remove(frame.eni);
        }
        self.seed = self.seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let seed = self.seed;
        let stack = self
            .stacks
            .entry(frame.eni)
            .or_insert_with(|| TcpStack::new((frame.eni, asker), frame.mtu_bytes, seed, now));
        let before = stack.connections();
        let ends =
            SegmentEnds { from: (addresses[0], segment.source_port()), to: (addresses[1], segment.destination_port()) };
        if segment.syn() && !segment.ack() {
            stack.make_room(ends, self.connections < CONNECTIONS_MAX, now);
        }
        stack.receive(frame.packet, now);
        stack.serve(respond, now);
        stack.send_to(send);
        let after = stack.connections();
        self.connections = self.connections + after - before;
        if after == 0 {
            self.stacks.remove(&frame.eni);
        }
    }

    /// Does what is due by now: sends again what was lost, and ends what took too long.
    pub fn tick(&mut self, respond: &mut dyn Respond, now: Instant, send: &mut dyn FnMut(&ServiceFrame<'_>)) {
        for stack in self.stacks.values_mut() {
            if stack.next_due(now).is_some_and(|due| due <= now) {
                stack.serve(respond, now);
                stack.send_to(send);
            }
        }
        self.stacks.retain(|_, stack| stack.connections() > 0);
        self.connections = self.stacks.values().map(TcpStack::connections).sum();
    }

    /// Replies to a request whose reply was to come later. Nothing happens if its connection is gone.
    pub fn answer(
        &mut self,
        (eni, number, reply): (ServedEni, u64, Vec<u8>),
        respond: &mut dyn Respond,
        now: Instant,
        send: &mut dyn FnMut(&ServiceFrame<'_>),
    ) {
        if let Some(stack) = self.stacks.get_mut(&eni) {
            stack.answer(number, reply);
            stack.serve(respond, now);
            stack.send_to(send);
        }
    }

    /// When something is due next.
    pub fn next_due(&mut self, now: Instant) -> Option<Instant> {
        self.stacks.values_mut().filter_map(|stack| stack.next_due(now)).min()
    }

    /// Ends all connections without a word: nobody is there who could deliver it.
    pub fn clear(&mut self) {
        self.stacks.clear();
        self.connections = 0;
    }

    /// Ends the connections of an ENI without a word.
    pub fn remove(&mut self, eni: ServedEni) {
        if let Some(stack) = self.stacks.remove(&eni) {
            self.connections -= stack.connections();
        }
    }
}
