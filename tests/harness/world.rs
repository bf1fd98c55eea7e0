//! Small worlds, and a rig that sends packets through the door of one or more shards under virtual time.
//!
//! Every packet that the rig sends is also accounted for: exactly the counters that its fate names may move.

use crate::frame::Ip;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use vswitch_core::compile::Compiler;
use vswitch_core::compile::snapshot::Snapshot;
use vswitch_core::config::desired::{
    Desired, DesiredEni, DesiredPort, DesiredRule, DesiredUplink, DesiredVpc, DesiredVswitch, Direction, GroupKind,
    MatchConditions, Policy, PortRange, Ports, Protocol, Remote, SecurityGroup, Timeouts, Tracking,
};
use vswitch_core::config::ids::{EniId, EniIndex, GroupId, MacAddress};
use vswitch_core::config::protocol::{DirectionStats, EniStats, FlowDescription, FlowSelection};
use vswitch_core::config::uplink::{DesiredNat, UplinkIpv4, UplinkIpv6};
use vswitch_core::datapath::shard::Shard;
use vswitch_core::hw::time::Time;
use vswitch_core::packet::offload::{Offload, Wire};
use vswitch_core::packet::verdict::{DropReason, Verdict};
use vswitch_core::packet::{FrameBuffer, Marker, Packet};

/// A secret that is no secret.
pub const SECRET: [u64; 2] = [0x5851_f42d_4c95_7f2d, 0x1405_7b7e_f767_814f];
/// Room of the buffers that frames travel in.
const BUFFER_BYTES: usize = 2048;

/// A rule, to be refined.
pub fn rule(id: &str, direction: Direction, policy: Policy, remote: &str) -> DesiredRule {
    DesiredRule { id: id.into(), direction, policy, priority: 1, conditions: MatchConditions::of(remote_of(remote)) }
}

/// The variable of the environment that runs all worlds without the fast path where it is `off`.
pub const FAST_PATH: &str = "SLUICE_FAST_PATH";

fn is_fast_path_off() -> bool {
    std::env::var(FAST_PATH).is_ok_and(|value| value == "off")
}

/// `sg-…` is a group, `pl-…` a prefix list, anything else a prefix.
fn remote_of(text: &str) -> Remote {
    match text {
        group if group.starts_with("sg-") => Remote::Group(group.into()),
        list if list.starts_with("pl-") => Remote::PrefixList(list.into()),
        prefix => Remote::Prefix(prefix.parse().unwrap_or_else(|_| panic!("{prefix} is no prefix"))),
    }
}

/// An inbound rule that accepts.
pub fn accept_in(id: &str, remote: &str) -> DesiredRule {
    rule(id, Direction::Ingress, Policy::Accept, remote)
}

/// An outbound rule that accepts.
pub fn accept_out(id: &str, remote: &str) -> DesiredRule {
    rule(id, Direction::Egress, Policy::Accept, remote)
}

/// Refines a rule.
pub trait Refine: Sized {
    /// Of one protocol without ports.
    fn protocol(self, number: u8) -> Self;
    /// For TCP to one port.
    fn tcp(self, port: u16) -> Self;
    /// For UDP to one port.
    fn udp(self, port: u16) -> Self;
    /// For TCP to the ports of a list.
    fn tcp_list(self, list: &str) -> Self;
    /// With a priority.
    fn priority(self, priority: u8) -> Self;
    /// For packets of this local side.
    fn local(self, prefix: &str) -> Self;
}

impl Refine for DesiredRule {
    fn protocol(mut self, number: u8) -> Self {
        self.conditions.protocol = Protocol::Number(number);
        self
    }

    fn tcp(mut self, port: u16) -> Self {
        self.conditions.protocol = Protocol::TCP;
        self.conditions.ports = Ports::Range(PortRange { first: port, last: port });
        self
    }

    fn udp(self, port: u16) -> Self {
        let mut rule = self.tcp(port);
        rule.conditions.protocol = Protocol::UDP;
        rule
    }

    fn tcp_list(mut self, list: &str) -> Self {
        self.conditions.protocol = Protocol::TCP;
        self.conditions.ports = Ports::List(list.into());
        self
    }

    fn priority(self, priority: u8) -> Self {
        DesiredRule { priority, ..self }
    }

    fn local(mut self, prefix: &str) -> Self {
        self.conditions.local = Some(prefix.parse().unwrap_or_else(|_| panic!("{prefix} is no prefix")));
        self
    }
}

/// Builds a desired state.
pub trait Build: Sized {
    /// A VPC without custom routes.
    fn vpc(self, id: &str) -> Self;
    /// A subnet: an IPv4 and an IPv6 block, whose first addresses are the router's.
    fn vswitch(self, id: &str, vpc: &str, ipv4: &str, ipv6: &str) -> Self;
    /// A basic group whose members do not reach each other without rules.
    fn closed_group(self, id: &str, vpc: &str, rules: &[DesiredRule]) -> Self;
    /// A basic group whose members reach each other.
    fn open_group(self, id: &str, vpc: &str, rules: &[DesiredRule]) -> Self;
    /// An advanced group.
    fn advanced_group(self, id: &str, vpc: &str, rules: &[DesiredRule]) -> Self;
    /// An uplink on a memory port: 192.0.2.1 and 2001:db8:f::1 on its link, the next hops .254 and ::fe there.
    fn uplink(self, id: &str, vpc: &str, nat: DesiredNat) -> Self;
    /// An ENI on a memory port; its hardware address follows from how many there are.
    fn eni(self, id: &str, vswitch: &str, addresses: &[&str], groups: &[&str]) -> Self;
}

impl Build for Desired {
    fn vpc(mut self, id: &str) -> Self {
        self.vpcs.insert(id.into(), DesiredVpc::default());
        self
    }

    fn vswitch(mut self, id: &str, vpc: &str, ipv4: &str, ipv6: &str) -> Self {
        let ipv4: ipnet::Ipv4Net = ipv4.parse().expect("an IPv4 block");
        let ipv6: ipnet::Ipv6Net = ipv6.parse().expect("an IPv6 block");
        let vswitch = DesiredVswitch {
            vpc: vpc.into(),
            ipv4: Some(ipv4),
            ipv4_gateway: ipv4.hosts().next(),
            ipv6: Some(ipv6),
            ipv6_gateway: ipv6.hosts().nth(1),
        };
        self.vswitches.insert(id.into(), vswitch);
        self
    }

    fn closed_group(self, id: &str, vpc: &str, rules: &[DesiredRule]) -> Self {
        group(self, (id, vpc), GroupKind::Basic, Policy::Drop, rules)
    }

    fn open_group(self, id: &str, vpc: &str, rules: &[DesiredRule]) -> Self {
        group(self, (id, vpc), GroupKind::Basic, Policy::Accept, rules)
    }

    fn advanced_group(self, id: &str, vpc: &str, rules: &[DesiredRule]) -> Self {
        group(self, (id, vpc), GroupKind::Advanced, Policy::Drop, rules)
    }

    fn uplink(mut self, id: &str, vpc: &str, nat: DesiredNat) -> Self {
        let uplink = DesiredUplink {
            vpc: vpc.into(),
            mac: MacAddress([2, 0, 0, 0, 0xf, 1]),
            next_hop_mac: Some(MacAddress([2, 0, 0, 0, 0xf, 0xfe])),
            ipv4: Some(UplinkIpv4 {
                address: "192.0.2.1/24".parse().expect("an address"),
                next_hop: Ipv4Addr::new(192, 0, 2, 254),
            }),
            ipv6: Some(UplinkIpv6 {
                address: "2001:db8:f::1/64".parse().expect("an address"),
                next_hop: "2001:db8:f::fe".parse().expect("an address"),
            }),
            port: DesiredPort::Memory,
            nat,
        };
        self.uplinks.insert(id.into(), uplink);
        self
    }

    fn eni(mut self, id: &str, vswitch: &str, addresses: &[&str], groups: &[&str]) -> Self {
        let number = self.enis.len() as u8 + 1;
        let eni = DesiredEni {
            vswitch: vswitch.into(),
            mac: MacAddress([2, 0, 0, 0, 0, number]),
            addresses: addresses.iter().map(|text| prefix_of(text)).collect(),
            groups: groups.iter().map(|&id| GroupId::from(id)).collect::<BTreeSet<_>>(),
            source_dest_check: true,
            routed_as_own: false,
            timeouts: Timeouts::default(),
            sessions_max: DesiredEni::default_sessions_max(),
            hostname: None,
            rate_limits: Default::default(),
            tracking: Tracking::default(),
            port: Some(DesiredPort::Memory),
        };
        self.enis.insert(id.into(), eni);
        self
    }
}

fn group(
    mut desired: Desired,
    (id, vpc): (&str, &str),
    kind: GroupKind,
    inner_access: Policy,
    rules: &[DesiredRule],
) -> Desired {
    desired.groups.insert(id.into(), SecurityGroup { vpc: vpc.into(), kind, inner_access, rules: rules.to_vec() });
    desired
}

/// A prefix, or a bare address.
pub fn prefix_of(text: &str) -> ipnet::IpNet {
    text.parse()
        .or_else(|_| text.parse::<IpAddr>().map(Into::into))
        .unwrap_or_else(|_| panic!("{text} is not an address"))
}

/// What became of a packet in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The guest behind this ENI got it.
    Delivered(String),
    /// The virtual router answered.
    Answered,
    /// The service thread is to reply, which counts it.
    Served,
    /// It waits for the first fragment of its packet.
    Waiting,
    /// Dropped at this ENI, in this direction, for this reason.
    Dropped(String, Direction, DropReason),
}

/// Shards and the snapshot they read, under virtual time.
pub struct World {
    /// What should be. [`World::change`] edits it.
    pub desired: Desired,
    /// What is.
    pub snapshot: Snapshot,
    compiler: Compiler,
    /// The workers' parts. ENIs are spread over them by number.
    pub shards: Vec<Shard>,
    /// The present.
    pub now: Time,
}

impl World {
    /// One shard.
    pub fn new(desired: Desired) -> Self {
        Self::with_shards(desired, 1, 1024)
    }

    /// Several shards, each with room for `flows_max` sessions.
    pub fn with_shards(mut desired: Desired, shards: usize, flows_max: usize) -> Self {
        desired.settings.fast_path &= !is_fast_path_off();
        let mut compiler = Compiler::new(SECRET);
        let snapshot = compiler.replace(&desired, 1).unwrap_or_else(|refusals| panic!("refused: {refusals:#?}"));
        let shards = (0..shards).map(|_| Shard::new(flows_max, SECRET)).collect();
        Self { desired, snapshot, compiler, shards, now: Time::from_ns(1_000_000_000) }
    }

    /// Changes what should be, and makes it so.
    pub fn change(&mut self, edit: impl FnOnce(&mut Desired)) {
        edit(&mut self.desired);
        let compiled = self.compiler.replace(&self.desired, self.snapshot.generation() + 1);
        self.snapshot = compiled.unwrap_or_else(|refusals| panic!("refused: {refusals:#?}"));
    }

    /// Replaces the rules of a group.
    pub fn set_rules(&mut self, group: &str, rules: &[DesiredRule]) {
        self.change(|desired| {
            desired.groups.get_mut(&GroupId::from(group)).expect("a group").rules = rules.to_vec();
        });
    }

    /// Changes one ENI.
    pub fn change_eni(&mut self, id: &str, edit: impl FnOnce(&mut DesiredEni)) {
        self.change(|desired| edit(desired.enis.get_mut(&EniId::from(id)).expect("an ENI")));
    }

    /// Lets time pass.
    pub fn wait_s(&mut self, seconds: u64) {
        self.now = self.now + seconds * 1_000_000_000;
    }

    /// Lets every shard look at every record once.
    pub fn sweep_all(&mut self) {
        for shard in &mut self.shards {
            shard.sweep(&self.snapshot, self.now, shard.flows_max());
        }
    }

    /// The number of an ENI.
    pub fn index(&self, id: &str) -> EniIndex {
        self.snapshot.eni_index(&id.into()).unwrap_or_else(|| panic!("there is no {id}"))
    }

    /// The shard that owns an ENI.
    pub fn shard_of(&self, index: EniIndex) -> usize {
        index.0 as usize % self.shards.len()
    }

    /// The hardware address of an ENI, or of the next hop of an uplink.
    pub fn mac(&self, id: &str) -> MacAddress {
        match self.desired.uplinks.get(&id.into()) {
            Some(uplink) => uplink.next_hop_mac.unwrap_or_default(),
            None => self.desired.enis[&EniId::from(id)].mac,
        }
    }

    /// The hardware address of the router that an ENI, or the next hop of an uplink, sees.
    pub fn gateway_mac(&self, id: &str) -> MacAddress {
        if let Some(uplink) = self.desired.uplinks.get(&id.into()) {
            return uplink.mac;
        }
        let vswitch = &self.desired.vswitches[&self.desired.enis[&EniId::from(id)].vswitch];
        self.desired.vpcs[&vswitch.vpc].gateway_mac
    }

    /// The frame in which the guest behind `from` sends a packet.
    pub fn frame_from(&self, from: &str, packet: &Ip) -> Vec<u8> {
        packet.frame(self.mac(from), self.gateway_mac(from))
    }

    /// A frame out of the guest behind `from`, through egress alone.
    pub fn egress(&mut self, from: &str, frame: &[u8]) -> Packet {
        self.egress_claiming(from, frame, Offload::NONE)
    }

    /// The same with something left undone, as the guest claims.
    pub fn egress_claiming(&mut self, from: &str, frame: &[u8], offload: Offload) -> Packet {
        let index = self.index(from);
        let shard = self.shard_of(index);
        let mut packet = packet_of(frame);
        packet.offload = offload;
        self.shards[shard].egress(&self.snapshot, index, std::slice::from_mut(&mut packet), self.now);
        packet
    }

    /// A packet that egress passed, through ingress.
    pub fn ingress(&mut self, packet: &mut Packet) {
        if let Verdict::Forward(index) = packet.verdict {
            let shard = self.shard_of(index);
            self.shards[shard].ingress(&self.snapshot, std::slice::from_mut(packet), self.now);
        }
    }

    /// A frame that the data path itself puts at the ingress of `to`.
    pub fn inject(&mut self, to: &str, packet: &Ip, marker: Marker) -> Packet {
        let mut packet = packet_of(&packet.frame(self.gateway_mac(to), self.mac(to)));
        packet.parse().expect("a well-formed frame");
        packet.marker = marker;
        packet.verdict = Verdict::Forward(self.index(to));
        self.ingress(&mut packet);
        packet
    }

    /// Sends a packet all the way; exactly the counters that its fate names must move.
    pub fn send(&mut self, from: &str, packet: &Ip) -> Fate {
        self.send_frame(from, &self.frame_from(from, packet)).0
    }

    /// Sends a frame all the way; exactly the counters that its fate names must move. Returns what is left of it.
    pub fn send_frame(&mut self, from: &str, frame: &[u8]) -> (Fate, Vec<u8>) {
        let (fate, packet) = self.send_claiming(from, frame, Offload::NONE);
        (fate, packet.buffer.frame().to_vec())
    }

    /// The same with something left undone, as the guest claims. Returns what is left of the packet.
    pub fn send_claiming(&mut self, from: &str, frame: &[u8], offload: Offload) -> (Fate, Packet) {
        let mut packet = packet_of(frame);
        packet.offload = offload;
        let fate = self.carry(from, &mut packet, false);
        (fate, packet)
    }

    /// Sends the fragments on their way that waited for the first of their packet, which has come: what became of each,
    /// and its bytes.
    pub fn release(&mut self) -> Vec<(String, Fate, Vec<u8>)> {
        let mut released = Vec::new();
        for shard in 0..self.shards.len() {
            while let Some(bytes) = self.shards[shard].released_bytes() {
                let mut packet = packet_of(&vec![0; bytes]);
                let eni = self.shards[shard].take_released(&mut packet.buffer).expect("it was there");
                let from = self.snapshot.eni_id(eni).expect("the sender is there").to_string();
                let fate = self.carry(&from, &mut packet, true);
                released.push((from, fate, packet.buffer.frame().to_vec()));
            }
        }
        released
    }

    /// A packet of a guest all the way; exactly the counters that its fate names must move.
    fn carry(&mut self, from: &str, packet: &mut Packet, has_waited: bool) -> Fate {
        let mut expected = self.stats();
        let index = self.index(from);
        let (own, shards) = (self.shard_of(index), self.shards.len());
        let is_here = |to: EniIndex| to.0 as usize % shards == own;
        let (at, burst) = ((&self.snapshot, self.now), std::slice::from_mut(packet));
        if has_waited {
            self.shards[own].forward_released(at, index, burst, is_here);
        } else {
            self.shards[own].forward(at, index, burst, is_here);
        }
        self.ingress(packet);
        let wire = packet.wire();
        let receiver = self.snapshot.eni_id(packet.receiver).map(|id| id.to_string());
        let fate = match (packet.verdict, receiver) {
            (Verdict::Deliver, Some(to)) => Fate::Delivered(to),
            (Verdict::Answer, _) => Fate::Answered,
            (Verdict::Serve(_), _) => Fate::Served,
            (Verdict::Wait, _) => Fate::Waiting,
            (Verdict::Drop(reason), Some(to))
                if self.drops(&to, Direction::Ingress) != drops_of(&expected[&to].ingress) =>
            {
                Fate::Dropped(to, Direction::Ingress, reason)
            }
            (Verdict::Drop(reason), _) => Fate::Dropped(from.into(), Direction::Egress, reason),
            (other, _) => panic!("the door leaves {other:?}"),
        };
        expect(&mut expected, from, &fate, wire);
        let mut found = self.stats();
        for (id, stats) in &mut found {
            // Counted where sessions are the subject.
            stats.flows = expected[id].flows;
            stats.flows_opened = expected[id].flows_opened;
            stats.flows_evicted = expected[id].flows_evicted;
            stats.nat_mappings = expected[id].nat_mappings;
            stats.nat_port_blocks = expected[id].nat_port_blocks;
        }
        assert_eq!(found, expected, "after {fate:?}");
        fate
    }

    fn drops(&self, id: &str, direction: Direction) -> u64 {
        let stats = &self.stats()[id];
        drops_of(if direction == Direction::Egress { &stats.egress } else { &stats.ingress })
    }

    /// The counters of every ENI.
    pub fn stats(&self) -> BTreeMap<String, EniStats> {
        let of = |(index, id): (EniIndex, &EniId)| {
            let stats = self.shards[self.shard_of(index)].stats(&self.snapshot, index)?;
            Some((id.to_string(), stats))
        };
        self.snapshot.enis().filter_map(of).collect()
    }

    /// The live sessions of one ENI.
    pub fn flows(&self, id: &str) -> Vec<FlowDescription> {
        self.flows_at(id, self.now)
    }

    /// The sessions of one ENI that would be live at another time, if nobody sent until then.
    pub fn flows_at(&self, id: &str, time: Time) -> Vec<FlowDescription> {
        let shard = &self.shards[self.shard_of(self.index(id))];
        let selection = FlowSelection { eni: Some(id.into()), ..FlowSelection::default() };
        let (mut flows, mut next) = (Vec::new(), Some(0));
        while let Some(place) = next {
            let page = shard.list_flows((&self.snapshot, time), &selection, (place, usize::MAX));
            flows.extend(page.flows);
            next = page.next;
        }
        flows
    }
}

/// Moves exactly the counters that a fate names.
fn expect(counters: &mut BTreeMap<String, EniStats>, from: &str, fate: &Fate, wire: Wire) {
    fn of<'a>(counters: &'a mut BTreeMap<String, EniStats>, id: &str) -> &'a mut EniStats {
        counters.get_mut(id).unwrap_or_else(|| panic!("{id} counts"))
    }
    match fate {
        Fate::Answered => of(counters, from).egress.answered += 1,
        Fate::Waiting | Fate::Served => {}
        Fate::Dropped(_, Direction::Egress, reason) => count_drop(&mut of(counters, from).egress, *reason, wire),
        Fate::Dropped(to, Direction::Ingress, reason) => {
            count_pass(&mut of(counters, from).egress, wire);
            count_drop(&mut of(counters, to).ingress, *reason, wire);
        }
        Fate::Delivered(to) => {
            count_pass(&mut of(counters, from).egress, wire);
            count_pass(&mut of(counters, to).ingress, wire);
        }
    }
}

fn drops_of(counters: &DirectionStats) -> u64 {
    counters.drops.values().sum()
}

/// A packet as a port hands it over.
pub fn packet_of(frame: &[u8]) -> Packet {
    let mut packet = Packet::new(FrameBuffer::with_capacity(BUFFER_BYTES.max(frame.len())));
    packet.buffer.fill(frame);
    packet
}

fn count_pass(counters: &mut DirectionStats, wire: Wire) {
    counters.packets += u64::from(wire.packets);
    counters.bytes += wire.bytes;
}

fn count_drop(counters: &mut DirectionStats, reason: DropReason, wire: Wire) {
    *counters.drops.entry(reason.name().into()).or_default() += u64::from(wire.packets);
}
