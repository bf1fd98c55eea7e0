//! Uplinks: bursts out of a VPC and into it, held against a plain model of who is translated to what, with the fast path and
//! without it.
//!
//! The model knows no timeouts: little time passes between packets, or so much that nothing is left.

use harness::frame::{Ip, TcpFlags, protocol};
use harness::random::Random;
use harness::world::{Build, Refine, World, accept_in, accept_out, packet_of, rule};
use std::collections::{BTreeMap, BTreeSet};
use vswitch_core::config::desired::{Desired, Direction, Policy, PortRange};
use vswitch_core::config::ids::{EniId, EniIndex};
use vswitch_core::config::uplink::{DesiredNat, NatFiltering, PortForward, PrivateEnd};
use vswitch_core::packet::Packet;
use vswitch_core::packet::offload::Offload;
use vswitch_core::packet::verdict::Verdict;

const STEPS: usize = 400;
/// Time that may pass before everything is over, seconds: less than any timeout.
const SHORT_S: u64 = 8;
const LONG_S: u64 = 7200;

/// What the packets carry whose sender leaves something undone.
const CLAIMED_DATA: [u8; 40] = [7; 40];

const UPLINK: &str = "upl";
const POOL: &str = "203.0.113.1";
const FORWARDED: &str = "203.0.113.2";
const FLOATING: &str = "203.0.113.3";
/// ENIs with their addresses: the second has the forward, the third the floating address.
const GUESTS: [(&str, &str); 3] = [("client", "10.0.0.20"), ("web", "10.0.0.10"), ("far", "10.0.1.30")];
const PEERS: [&str; 3] = ["198.51.100.7", "198.51.100.8", "203.0.114.9"];
/// The ports that peers serve at, and those that they talk to the forward and to the floating address from.
const SERVICES: [u16; 2] = [443, 8443];
const PEER_PORTS: [u16; 2] = [40_000, 40_001];

type UplinkEnd = (&'static str, u16);

#[test]
fn what_crosses_an_uplink_is_what_a_plain_model_foretells() {
    crate::for_each_seed(|seed| UplinkSimulation::new(seed).run());
}

/// A packet to be sent, with the interface that it is sent at.
#[derive(Clone, Copy, Debug)]
struct UplinkPacket {
    at: &'static str,
    protocol: u8,
    source: UplinkEnd,
    destination: UplinkEnd,
    flags: u8,
    /// Whether its sender leaves the checksum undone, and how long the segments are that it is to be cut into; zero if it is
    /// not to be cut.
    claims: Option<u16>,
}

impl UplinkPacket {
    fn packet(&self, source: (&str, u16), destination: (&str, u16)) -> Ip {
        let ip = Ip::new(source.0, destination.0);
        let ip = match self.protocol {
            protocol::TCP => ip.tcp(source.1, destination.1, self.flags),
            _ => ip.udp(source.1, destination.1),
        };
        if self.claims.is_some() { ip.undone(&CLAIMED_DATA) } else { ip }
    }

    fn offload(&self) -> Offload {
        let ip = self.packet(self.source, self.destination);
        self.claims.map_or(Offload::NONE, |segment_bytes| ip.offload(segment_bytes))
    }

    /// What is left undone once the claim is verified: the length of the headers matters only to segmentation.
    fn verified_offload(&self) -> Offload {
        let claimed = self.offload();
        Offload { header_bytes: if claimed.segment_bytes == 0 { 0 } else { claimed.header_bytes }, ..claimed }
    }
}

/// What the model says of a packet.
#[derive(Clone, Debug)]
enum Foretold {
    /// It is not delivered.
    Stopped,
    /// It leaves with this source, or with a port of the pool that nobody has.
    Leaves(Option<UplinkEnd>),
    /// It reaches this ENI at this end.
    Enters(&'static str, UplinkEnd),
}

/// Who is translated to what, and who talks to whom.
#[derive(Debug, Default)]
struct NatModel {
    /// By protocol and private end: the port of the pool.
    mappings: BTreeMap<(u8, UplinkEnd), u16>,
    /// By protocol and private end: its peers.
    sessions: BTreeSet<(u8, UplinkEnd, UplinkEnd)>,
    /// Peers whom the rules forbid.
    forbidden: BTreeSet<&'static str>,
}

impl NatModel {
    fn has_session(&self, sent: &UplinkPacket, inside: UplinkEnd, peer: UplinkEnd) -> bool {
        self.sessions.contains(&(sent.protocol, inside, peer))
    }

    /// What becomes of a packet of a guest.
    fn outward(&mut self, sent: &UplinkPacket) -> Foretold {
        let UplinkPacket { at, protocol, source, destination, .. } = *sent;
        if self.forbidden.contains(destination.0) {
            return Foretold::Stopped;
        }
        self.sessions.insert((protocol, source, destination));
        Foretold::Leaves(match (at, source.1) {
            ("far", port) => Some((FLOATING, port)),
            ("web", port @ 80..=89) => Some((FORWARDED, port + 8000)),
            _ => self.mappings.get(&(protocol, source)).map(|port| (POOL, *port)),
        })
    }

    /// What becomes of a packet from outside.
    fn inward(&mut self, sent: &UplinkPacket) -> Foretold {
        let UplinkPacket { protocol, source, destination, .. } = *sent;
        let mapped = || self.mappings.iter().find(|((number, _), port)| (*number, **port) == (protocol, destination.1));
        let inside = match destination {
            (FLOATING, port) => Some((GUESTS[2].1, port)),
            (FORWARDED, port @ 8080..=8089) => Some((GUESTS[1].1, port - 8000)),
            (POOL, _) => mapped().map(|((_, inside), _)| *inside),
            _ => None,
        };
        let Some(inside) = inside else { return Foretold::Stopped };
        // Only the port 80 is open, and nobody opens a connection from outside by way of a mapping: its port is another.
        let is_open = inside.1 == 80 || self.has_session(sent, inside, source);
        if !is_open || self.forbidden.contains(source.0) {
            return Foretold::Stopped;
        }
        self.sessions.insert((protocol, inside, source));
        let owner = GUESTS.iter().find(|(_, address)| *address == inside.0).expect("a guest");
        Foretold::Enters(owner.0, inside)
    }
}

struct UplinkSimulation {
    seed: u64,
    random: Random,
    /// With the fast path, and without it.
    worlds: [World; 2],
    model: NatModel,
    elapsed_s: u64,
    filtering: NatFiltering,
}

fn nat(filtering: NatFiltering) -> DesiredNat {
    let external = |text: &str| text.parse().expect("an address");
    let end = |(eni, address): (&str, &str)| PrivateEnd { eni: eni.into(), address: external(address) };
    let forward = |protocol| PortForward {
        external: external(FORWARDED),
        protocol,
        ports: PortRange { first: 8080, last: 8089 },
        to: end(GUESTS[1]),
        port: 80,
    };
    DesiredNat {
        sources: [("10.0.0.0/16".parse().expect("a prefix"), [external(POOL)].into())].into(),
        floating: [(external(FLOATING), end(GUESTS[2]))].into(),
        forwards: vec![forward(protocol::TCP), forward(protocol::UDP)],
        filtering,
        ..DesiredNat::default()
    }
}

fn first_world() -> Desired {
    let rules = [
        accept_in("tcp", "0.0.0.0/0").tcp(80).priority(50),
        accept_in("udp", "0.0.0.0/0").udp(80).priority(50),
        accept_out("out", "0.0.0.0/0").priority(50),
    ];
    let empty = Desired::default()
        .vpc("vpc-1")
        .vswitch("vsw-1", "vpc-1", "10.0.0.0/24", "fd00:0:0:1::/64")
        .vswitch("vsw-2", "vpc-1", "10.0.1.0/24", "fd00:0:0:2::/64")
        .closed_group("sg", "vpc-1", &rules)
        .uplink(UPLINK, "vpc-1", nat(NatFiltering::Session));
    GUESTS.iter().fold(empty, |desired, guest| with_guest(desired, *guest))
}

fn with_guest(desired: Desired, (id, address): (&str, &str)) -> Desired {
    let vswitch = if address.starts_with("10.0.1.") { "vsw-2" } else { "vsw-1" };
    desired.eni(id, vswitch, &[address], &["sg"])
}

impl UplinkSimulation {
    fn new(seed: u64) -> Self {
        let shards = 1 + seed as usize % 3;
        let world = |fast_path| {
            let mut desired = first_world();
            desired.settings.fast_path = fast_path;
            World::with_shards(desired, shards, 1024)
        };
        Self {
            seed,
            random: Random::new(seed),
            worlds: [true, false].map(world),
            model: NatModel::default(),
            elapsed_s: 0,
            filtering: NatFiltering::Session,
        }
    }

    fn run(mut self) {
        for step in 0..STEPS {
            match self.random.below(100) {
                0..=3 => self.forbid_or_admit(),
                4 => self.change_filtering(),
                5 => self.replace_guest(),
                6..=9 => self.wait(),
                10..=54 => self.burst_out(step),
                _ => self.burst_in(step),
            }
        }
    }

    fn change(&mut self, edit: impl Fn(&mut Desired)) {
        self.worlds.iter_mut().for_each(|world| world.change(&edit));
    }

    /// Sessions with a peer whom the rules forbid pass nothing, until they admit it again.
    fn forbid_or_admit(&mut self) {
        let peer = self.random.pick(&PEERS);
        let id = format!("no-{peer}");
        if self.model.forbidden.remove(peer) {
            self.change(|desired| {
                let rules = &mut desired.groups.get_mut(&"sg".into()).expect("the group").rules;
                rules.retain(|rule| rule.id.0 != format!("{id}-in") && rule.id.0 != format!("{id}-out"));
            });
        } else {
            self.model.forbidden.insert(peer);
            let refuse =
                |name: &str, direction| rule(&format!("{id}-{name}"), direction, Policy::Drop, &format!("{peer}/32"));
            self.change(|desired| {
                let rules = &mut desired.groups.get_mut(&"sg".into()).expect("the group").rules;
                rules.extend([refuse("in", Direction::Ingress), refuse("out", Direction::Egress)]);
            });
        }
    }

    /// No mapping has a port that is open, so the rules of ingress refuse whom the filter lets in.
    fn change_filtering(&mut self) {
        self.filtering = match self.filtering {
            NatFiltering::Session => NatFiltering::Endpoint,
            NatFiltering::Endpoint => NatFiltering::Session,
        };
        let filtering = self.filtering;
        self.change(|desired| desired.uplinks.get_mut(&UPLINK.into()).expect("the uplink").nat = nat(filtering));
    }

    /// A guest goes, and all that it had; another takes its address. Those that the uplink names stay.
    fn replace_guest(&mut self) {
        let (id, address) = GUESTS[0];
        self.change(|desired| {
            desired.enis.remove(&EniId::from(id));
        });
        self.change(|desired| *desired = with_guest(std::mem::take(desired), (id, address)));
        self.model.mappings.retain(|(_, inside), _| inside.0 != address);
        self.model.sessions.retain(|(_, inside, _)| inside.0 != address);
    }

    fn wait(&mut self) {
        let seconds = self.random.pick(&[0, 1, 1, 2]);
        let ends = self.elapsed_s + seconds > SHORT_S || self.random.chance(5);
        let seconds = if ends { LONG_S } else { seconds };
        self.elapsed_s = if ends { 0 } else { self.elapsed_s + seconds };
        for world in &mut self.worlds {
            world.wait_s(seconds);
            world.sweep_all();
            if ends {
                // Once a second the mappings of each ENI are looked at.
                (0..GUESTS.len() + 2).for_each(|_| {
                    world.wait_s(2);
                    world.sweep_all();
                });
            }
        }
        if ends {
            let forbidden = std::mem::take(&mut self.model.forbidden);
            self.model = NatModel { forbidden, ..NatModel::default() };
        }
    }

    fn burst_out(&mut self, step: usize) {
        let (at, address) = self.random.pick(&GUESTS);
        let count = 1 + self.random.below(6);
        let burst: Vec<UplinkPacket> = (0..count).map(|_| self.next_outward(at, address)).collect();
        self.send(step, &burst, NatModel::outward);
    }

    fn next_outward(&mut self, at: &'static str, address: &'static str) -> UplinkPacket {
        let protocol = self.random.pick(&[protocol::TCP, protocol::UDP]);
        // Answers to those who came in.
        let incoming = |(number, inside, peer): &&(u8, UplinkEnd, UplinkEnd)| {
            (*number, inside.0) == (protocol, address) && PEER_PORTS.contains(&peer.1)
        };
        let answers: Vec<_> = self.model.sessions.iter().filter(incoming).copied().collect();
        if !answers.is_empty() && self.random.chance(40) {
            let (_, source, destination) = self.random.pick(&answers);
            return UplinkPacket {
                at,
                protocol,
                source,
                destination,
                flags: TcpFlags::ACK,
                claims: self.claims(TcpFlags::ACK),
            };
        }
        let source = (address, 5000 + self.random.below(5) as u16);
        let destination = (self.random.pick(&PEERS), self.random.pick(&SERVICES));
        let is_known = self.model.sessions.contains(&(protocol, source, destination));
        let flags = if is_known { TcpFlags::ACK } else { TcpFlags::SYN };
        UplinkPacket { at, protocol, source, destination, flags, claims: self.claims(flags) }
    }

    fn burst_in(&mut self, step: usize) {
        let count = 1 + self.random.below(8);
        let burst: Vec<UplinkPacket> = (0..count).map(|_| self.next_inward()).collect();
        self.send(step, &burst, NatModel::inward);
    }

    fn next_inward(&mut self) -> UplinkPacket {
        let protocol = self.random.pick(&[protocol::TCP, protocol::UDP]);
        let peer = self.random.pick(&PEERS);
        let mapped: Vec<u16> = self.model.mappings.values().copied().collect();
        let (source, destination) = match self.random.below(10) {
            0..=4 if !mapped.is_empty() => ((peer, self.random.pick(&SERVICES)), (POOL, self.random.pick(&mapped))),
            0..=5 => ((peer, 443), (POOL, 1024 + self.random.below(60_000) as u16)),
            6..=7 => ((peer, self.random.pick(&PEER_PORTS)), (FORWARDED, self.random.pick(&[8080, 8080, 8082, 79]))),
            _ => {
                let ends = [((peer, self.random.pick(&PEER_PORTS)), 80), ((peer, self.random.pick(&SERVICES)), 5001)];
                let (source, port) = self.random.pick(&ends);
                (source, (FLOATING, port))
            }
        };
        let is_new = destination.1 == 80 || destination.1 == 8080;
        let opens = is_new && !self.model.sessions.iter().any(|session| session.2 == source && session.0 == protocol);
        let flags = if opens { TcpFlags::SYN } else { TcpFlags::ACK };
        UplinkPacket { at: UPLINK, protocol, source, destination, flags, claims: self.claims(flags) }
    }

    /// Often nothing, else a checksum to complete, or that and segmentation, which a SYN must not have.
    fn claims(&mut self, flags: u8) -> Option<u16> {
        self.random.pick(&[None, None, Some(0), Some(if flags == TcpFlags::SYN { 0 } else { 9 })])
    }

    /// Sends a burst in both worlds. The model is asked of each packet before the next, since one may open what the next
    /// needs.
    fn send(
        &mut self,
        step: usize,
        burst: &[UplinkPacket],
        foretell: impl Fn(&mut NatModel, &UplinkPacket) -> Foretold,
    ) {
        let at = burst[0].at;
        let frames: Vec<(Vec<u8>, Offload)> = burst
            .iter()
            .map(|sent| (self.worlds[0].frame_from(at, &sent.packet(sent.source, sent.destination)), sent.offload()))
            .collect();
        let [fast, slow] = self.worlds.each_mut().map(|world| pass(world, at, &frames));
        for (number, sent) in burst.iter().enumerate() {
            let (seed, fast, slow) = (self.seed, &fast, &slow);
            let fail = |model: &NatModel, what: &str| -> ! {
                panic!(
                    "{what}: packet {number} of {burst:#?} in step {step}\nfast {:02x?}\nslow {:02x?}\n{:?}\nreplay with \
                     SLUICE_SEED={} cargo test -p tests --test simulation uplinks",
                    fast[number], slow[number], model, seed
                )
            };
            if fast[number] != slow[number] {
                fail(&self.model, "the paths differ");
            }
            let foretold = foretell(&mut self.model, sent);
            let (to, ends) = match (&foretold, &fast[number]) {
                (Foretold::Stopped, None) => continue,
                (Foretold::Leaves(source), Some((to, frame, _))) if to == UPLINK => {
                    let port = u16::from_be_bytes([frame[34], frame[35]]);
                    let is_taken = self.model.mappings.values().any(|taken| *taken == port);
                    let of_forward = (8080..=8089).contains(&port);
                    if source.is_none() && (is_taken || port < 1024 || of_forward) {
                        fail(&self.model, "the port is another's");
                    }
                    if source.is_none() {
                        self.model.mappings.insert((sent.protocol, sent.source), port);
                    }
                    (UPLINK, (source.unwrap_or((POOL, port)), sent.destination))
                }
                (Foretold::Enters(eni, inside), Some((to, ..))) if to == eni => (*eni, (sent.source, *inside)),
                _ => fail(&self.model, &format!("foretold {foretold:?}")),
            };
            let packet = sent.packet(ends.0, ends.1);
            let hop_limit = packet.hop_limit - 1;
            let world = &self.worlds[0];
            let expected = packet.hop_limit(hop_limit).frame(world.gateway_mac(to), world.mac(to));
            if fast[number]
                .as_ref()
                .is_none_or(|(_, frame, offload)| (frame, offload) != (&expected, &sent.verified_offload()))
            {
                fail(&self.model, &format!("not {expected:02x?}"));
            }
        }
    }
}

/// A burst all the way: who got each packet, its frame, and what is left undone in it; none if nobody did.
fn pass(world: &mut World, at: &str, frames: &[(Vec<u8>, Offload)]) -> Vec<Option<(String, Vec<u8>, Offload)>> {
    let index = world.index(at);
    let (own, shards) = (world.shard_of(index), world.shards.len());
    let claiming = |(frame, offload): &(Vec<u8>, Offload)| {
        let mut packet = packet_of(frame);
        packet.offload = *offload;
        packet
    };
    let mut burst: Vec<Packet> = frames.iter().map(claiming).collect();
    world.shards[own]
        .forward((&world.snapshot, world.now), index, &mut burst, |to: EniIndex| to.0 as usize % shards == own);
    let took = |mut packet: Packet| {
        world.ingress(&mut packet);
        let to = world.snapshot.eni_id(packet.receiver).map(|id| id.to_string());
        to.filter(|_| packet.verdict == Verdict::Deliver).map(|to| (to, packet.buffer.frame().to_vec(), packet.offload))
    };
    burst.into_iter().map(took).collect()
}
