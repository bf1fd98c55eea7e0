//! A plain implementation of the same: `etherparse` parses, a hash map holds the sessions, and rules are checked one
//! after another. It is not a switch, and does less than one: no anti-spoofing, no routing, no counters per ENI. The
//! packet path is compared with it where no other peer is at hand.

use crate::fixture;
use crate::flat_rules;
use crate::timing::{CHUNK_ITEMS, Chunks};
use crate::traffic::frames::FlowStep;
use crate::traffic::mix::Mix;
use crate::traffic::{BurstKind, BurstTraffic};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use std::collections::VecDeque;
use std::net::IpAddr;
use vswitch_core::config::desired::{Desired, Direction, Policy, Ports, Protocol};
use vswitch_core::config::ids::EniId;
use vswitch_core::config::limits::BURST_PACKETS;
use vswitch_core::ipnet::IpNet;
use vswitch_core::packet::{FrameBuffer, Packet};

/// The ENI, by its address, and the five-tuple from the opener's point of view.
type BaselineKey = (IpAddr, IpAddr, IpAddr, u16, u16, u8);

#[derive(Default)]
struct BaselineSession {
    packets: u64,
    bytes: u64,
}

struct PlainRule {
    policy: Policy,
    protocol: Protocol,
    ports: (u16, u16),
    far_side: Vec<IpNet>,
}

pub(crate) struct Baseline {
    sessions: HashMap<BaselineKey, BaselineSession>,
    /// The oldest first, if as many are ended as are opened.
    opened: VecDeque<BaselineKey>,
    sessions_max: usize,
    /// By direction: ingress and egress.
    rules: [Vec<PlainRule>; 2],
    packets: Vec<Packet>,
    traffic: BurstTraffic,
    kind: BurstKind,
    delivered: usize,
    planned: usize,
}

impl Baseline {
    pub(crate) fn new(mix: &Mix, rules: usize) -> Self {
        let desired = fixture::desired(rules, mix.seed);
        let traffic = BurstTraffic::new(mix);
        let sessions_max = if mix.new_share == 1.0 { traffic.flows() * 2 } else { usize::MAX };
        Self {
            sessions: HashMap::new(),
            opened: VecDeque::new(),
            sessions_max,
            rules: [(2, Direction::Ingress), (1, Direction::Egress)]
                .map(|(eni, direction)| rules_of(&desired, &fixture::eni_id(eni), direction)),
            packets: (0..CHUNK_ITEMS).map(|_| Packet::new(FrameBuffer::with_capacity(2048))).collect(),
            traffic,
            kind: if mix.new_share == 1.0 { BurstKind::First } else { BurstKind::Mixed },
            delivered: 0,
            planned: 0,
        }
    }

    /// Establishes the state in which to measure.
    pub(crate) fn warm_up(&mut self) -> Result<(), String> {
        let kind = self.kind;
        let first = if kind == BurstKind::First { kind } else { BurstKind::InOrder(FlowStep::Open) };
        self.kind = first;
        for _ in 0..self.traffic.flows().div_ceil(CHUNK_ITEMS) {
            self.prepare();
            self.work();
            self.check()?;
        }
        self.kind = kind;
        Ok(())
    }

    /// Whether the packet is delivered; `None` if it cannot be parsed.
    fn forward(&mut self, packet: usize) -> Option<bool> {
        let frame = self.packets[packet].buffer.frame();
        let bytes = frame.len() as u64;
        let (source, destination, from, to, protocol) = read(frame)?;
        let passes_out = self.evaluate((source, source, destination, from, to, protocol), (1, destination, to), bytes);
        Some(
            passes_out && self.evaluate((destination, source, destination, from, to, protocol), (0, source, to), bytes),
        )
    }

    fn evaluate(&mut self, key: BaselineKey, (direction, peer, port): (usize, IpAddr, u16), bytes: u64) -> bool {
        let (eni, source, destination, from, to, protocol) = key;
        let reverse = (eni, destination, source, to, from, protocol);
        let known = if self.sessions.contains_key(&key) { key } else { reverse };
        match self.sessions.entry(known) {
            Entry::Occupied(mut session) => {
                session.get_mut().packets += 1;
                session.get_mut().bytes += bytes;
                return true;
            }
            Entry::Vacant(_) if !accepts(&self.rules[direction], direction, protocol, peer, port) => return false,
            Entry::Vacant(_) => {}
        }
        self.sessions.insert(key, BaselineSession { packets: 1, bytes });
        if self.sessions_max < usize::MAX {
            self.opened.push_back(key);
        }
        if self.sessions.len() > self.sessions_max
            && let Some(oldest) = self.opened.pop_front()
        {
            self.sessions.remove(&oldest);
        }
        true
    }
}

fn read(frame: &[u8]) -> Option<(IpAddr, IpAddr, u16, u16, u8)> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let (source, destination) = match sliced.net? {
        NetSlice::Ipv4(slice) => (slice.header().source_addr().into(), slice.header().destination_addr().into()),
        NetSlice::Ipv6(slice) => (slice.header().source_addr().into(), slice.header().destination_addr().into()),
        NetSlice::Arp(_) => return None,
    };
    match sliced.transport? {
        TransportSlice::Tcp(slice) => Some((source, destination, slice.source_port(), slice.destination_port(), 6)),
        TransportSlice::Udp(slice) => Some((source, destination, slice.source_port(), slice.destination_port(), 17)),
        _ => None,
    }
}

/// The policy of the first rule that matches; without one, egress accepts and ingress drops.
fn accepts(rules: &[PlainRule], direction: usize, protocol: u8, peer: IpAddr, port: u16) -> bool {
    let is_about = |rule: &&PlainRule| {
        (rule.protocol == Protocol::All || rule.protocol == Protocol::Number(protocol))
            && (rule.ports.0..=rule.ports.1).contains(&port)
            && rule.far_side.iter().any(|prefix| prefix.contains(&peer))
    };
    rules.iter().find(is_about).map_or(direction == 1, |rule| rule.policy == Policy::Accept)
}

fn rules_of(desired: &Desired, eni: &EniId, direction: Direction) -> Vec<PlainRule> {
    let in_order = flat_rules::in_order(desired, eni, direction);
    let plain = |rule: &vswitch_core::config::desired::DesiredRule| PlainRule {
        policy: rule.policy,
        protocol: rule.conditions.protocol,
        ports: match &rule.conditions.ports {
            Ports::Range(range) => (range.first, range.last),
            _ => (0, u16::MAX),
        },
        far_side: flat_rules::prefixes(desired, &rule.conditions.remote).collect(),
    };
    in_order.into_iter().map(plain).collect()
}

impl Chunks for Baseline {
    fn prepare(&mut self) {
        self.planned = 0;
        for packets in self.packets.chunks_mut(BURST_PACKETS) {
            let burst = self.traffic.write(packets, self.kind);
            self.planned += packets.len() - burst.denied.count_ones() as usize;
        }
        self.delivered = 0;
    }

    fn work(&mut self) {
        for packet in 0..self.packets.len() {
            self.delivered += usize::from(self.forward(packet) == Some(true));
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.delivered == self.planned {
            Ok(())
        } else {
            Err(format!("the plain implementation delivered {} of {} packets", self.delivered, self.planned))
        }
    }
}
