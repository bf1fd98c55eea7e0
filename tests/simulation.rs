//! Two shards, one snapshot, virtual time: seeded random packets and changes, held against the oracle after every
//! packet.
//!
//! A failure names its seed; `SLUICE_SEED=<seed>` replays that world alone. `SLUICE_SIMULATION_S` sets how long new
//! seeds are tried.

use harness::frame::TcpFlags;
use harness::oracle::{Content, Message, Oracle, Place};
use harness::random::Random;
use harness::world::{Build, World, accept_in, prefix_of};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use vswitch_core::desired::{
    Desired, Direction, Eni, Policy, Port, PortList, PortRange, Ports, PrefixList, Protocol, Remote, Rule, Timeouts,
};
use vswitch_core::ids::EniId;
use vswitch_core::protocol::PacketDescription;
use vswitch_core::verdict::{DropReason, Verdict};

const STEPS_PER_SEED: usize = 600;
const SECONDS_DEFAULT: u64 = 15;
const ENIS: [&str; 6] = ["eni-a", "eni-b", "eni-c", "eni-d", "eni-e", "eni-f"];
const BASIC: [&str; 3] = ["sg-closed", "sg-open", "sg-other"];
const ADVANCED: [&str; 2] = ["sg-strict", "sg-stricter"];
const PORTS: [u16; 4] = [0, 53, 80, 443];
const SOURCE_PORTS: [u16; 3] = [53, 1000, 2000];

#[test]
fn every_packet_meets_the_fate_that_the_oracle_gives_it() {
    if let Ok(text) = std::env::var("SLUICE_SEED") {
        return Simulation::new(text.parse().expect("SLUICE_SEED is a number")).run();
    }
    let seconds = std::env::var("SLUICE_SIMULATION_S").ok().and_then(|text| text.parse().ok());
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(SECONDS_DEFAULT));
    let mut seed = 1;
    while Instant::now() < until {
        Simulation::new(seed).run();
        seed += 1;
    }
    println!("{} seeds of {STEPS_PER_SEED} steps", seed - 1);
}

struct Simulation {
    seed: u64,
    random: Random,
    world: World,
    oracle: Oracle,
    now_s: u64,
    /// Messages to answer, repeat and complain about.
    recent: VecDeque<Message>,
    /// What was done, for a failure's report.
    log: VecDeque<String>,
}

fn first_world() -> Desired {
    let mut desired = Desired::default()
        .vpc("vpc-1")
        .vswitch("vsw-1", "vpc-1", "10.0.0.0/24", "fd00:0:0:1::/64")
        .vswitch("vsw-2", "vpc-1", "10.0.1.0/24", "fd00:0:0:2::/64")
        .closed_group("sg-closed", "vpc-1", &[accept_in("r-1", "0.0.0.0/0")])
        .open_group("sg-open", "vpc-1", &[])
        .closed_group("sg-other", "vpc-1", &[accept_in("r-1", "::/0")])
        .advanced_group("sg-strict", "vpc-1", &[])
        .advanced_group("sg-stricter", "vpc-1", &[]);
    desired.prefix_lists.insert("pl-1".into(), PrefixList::default());
    desired.port_lists.insert("prl-1".into(), PortList::default());
    for id in ENIS {
        desired = add_eni(desired, id);
    }
    desired
}

/// The ENI as it is at first: its addresses follow from its name.
fn add_eni(desired: Desired, id: &str) -> Desired {
    let number = ENIS.iter().position(|other| *other == id).expect("a known name");
    let subnet = number % 2;
    let (ipv4, ipv6) =
        (format!("10.0.{subnet}.{}", 10 + number), format!("fd00:0:0:{}::{:x}", subnet + 1, 16 + number));
    let group = if number < 4 { BASIC[number % 3] } else { ADVANCED[number % 2] };
    let mut desired = desired.eni(id, &format!("vsw-{}", subnet + 1), &[&ipv4, &ipv6], &[group]);
    desired.enis.get_mut(&EniId::from(id)).expect("just added").mac.0[5] = number as u8 + 1;
    desired
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            random: Random::new(seed),
            world: World::with_shards(first_world(), 2, 512),
            oracle: Oracle::default(),
            now_s: 1,
            recent: VecDeque::new(),
            log: VecDeque::new(),
        }
    }

    fn run(mut self) {
        for _ in 0..STEPS_PER_SEED {
            match self.random.below(100) {
                0..=11 => self.change(),
                12..=19 => self.wait(),
                20..=21 => self.replace_eni(),
                _ => self.exchange(),
            }
        }
    }

    fn note(&mut self, text: String) {
        self.log.push_back(text);
        if self.log.len() > 25 {
            self.log.pop_front();
        }
    }

    fn fail(&self, what: &str) -> ! {
        let log = self.log.iter().fold(String::new(), |text, line| text + "\n  " + line);
        panic!("{what}\nreplay with SLUICE_SEED={}\nlately:{log}\nstate: {:#?}", self.seed, self.world.desired.groups);
    }

    fn wait(&mut self) {
        let seconds = self.random.pick(&[1, 2, 3, 5, 9, 10, 15, 29, 30, 31, 60, 300, 910]);
        self.note(format!("{seconds} s pass"));
        self.now_s += seconds;
        self.world.wait_s(seconds);
        self.settle();
    }

    /// Both sides forget what is over, so that quotas can be compared.
    fn settle(&mut self) {
        self.world.sweep_all();
        self.oracle.expire(&self.world.desired.settings, self.now_s);
        for id in ENIS {
            let Some(index) = self.world.snapshot.eni_index(&id.into()) else { continue };
            let shard = &self.world.shards[self.world.shard_of(index)];
            let found = shard.stats(&self.world.snapshot, index).map_or(0, |stats| stats.flows);
            let expected = self.oracle.sessions_of(&id.into());
            if found != expected as u64 {
                self.fail(&format!("{id} holds {found} sessions, the oracle has {expected}"));
            }
        }
    }

    /// One packet from one guest to another.
    fn exchange(&mut self) {
        let Some(message) = self.next_message() else { return };
        let (Some(from), Some(to)) = (self.owner(message.source), self.owner(message.destination)) else { return };
        let explained = self.explain(&from, &message);
        let frame = self.world.frame_from(from.as_str(), &message.packet());
        let mut packet = self.world.egress(from.as_str(), &frame);
        self.note(format!("{from} -> {to}: {:?}: {:?}", message.content, packet.verdict));
        let expected = self.expect(&from, Direction::Egress, &message);
        if expected != matches!(packet.verdict, Verdict::Forward(_)) {
            self.fail(&format!("egress of {from}: {:?}, the oracle passes: {expected}: {message:?}", packet.verdict));
        }
        let has_no_room = packet.verdict == Verdict::Drop(DropReason::SessionLimit);
        if explained.is_some_and(|verdict| verdict != packet.verdict && !has_no_room) {
            self.fail(&format!("explained {explained:?}, was {:?}: {message:?}", packet.verdict));
        }
        if expected {
            self.world.ingress(&mut packet);
            self.note(format!("  then {:?}", packet.verdict));
            let expected = self.expect(&to, Direction::Ingress, &message);
            if expected != (packet.verdict == Verdict::Deliver) {
                self.fail(&format!(
                    "ingress of {to}: {:?}, the oracle passes: {expected}: {message:?}",
                    packet.verdict
                ));
            }
        }
        self.recent.push_back(message);
        if self.recent.len() > 24 {
            self.recent.pop_front();
        }
        self.settle();
    }

    fn expect(&mut self, eni: &EniId, direction: Direction, message: &Message) -> bool {
        let index = self.world.index(eni.as_str());
        let revision = self.world.snapshot.revision(index).expect("it is there");
        let place = Place { desired: &self.world.desired, eni, direction, revision, now_s: self.now_s };
        self.oracle.judge(place, message)
    }

    fn explain(&self, from: &EniId, message: &Message) -> Option<Verdict> {
        let (protocol, source_port, destination_port) = match message.content {
            Content::Tcp(source, destination, TcpFlags::SYN) => (6, source, destination),
            Content::Udp(source, destination) => (17, source, destination),
            Content::Other(number) => (number, 0, 0),
            Content::Ping(identifier) => (if message.source.is_ipv4() { 1 } else { 58 }, identifier, 0),
            _ => return None,
        };
        let (source, destination) = (message.source, message.destination);
        let packet =
            PacketDescription { from: None, to: None, protocol, source, destination, source_port, destination_port };
        let index = self.world.index(from.as_str());
        let shard = &self.world.shards[self.world.shard_of(index)];
        let seat = (index, Direction::Egress);
        let explained = shard.explain(&self.world.snapshot, seat, &packet, self.world.now);
        Some(explained.unwrap_or_else(|refusal| self.fail(&format!("{refusal:?}: {message:?}"))).1)
    }

    fn owner(&self, address: std::net::IpAddr) -> Option<EniId> {
        let mut enis = self.world.desired.enis.iter();
        enis.find(|(_, eni)| eni.addresses.iter().any(|prefix| prefix.contains(&address))).map(|(id, _)| id.clone())
    }

    fn next_message(&mut self) -> Option<Message> {
        let random = &mut self.random;
        if !self.recent.is_empty() && random.chance(60) {
            let past = self.recent[random.below(self.recent.len())].clone();
            let reverse = random.chance(60);
            return Some(follow_up(random, past, reverse));
        }
        let is_v6 = random.chance(30);
        let address = |id: &str| {
            let eni = self.world.desired.enis.get(&EniId::from(id))?;
            eni.addresses.iter().find(|prefix| prefix.addr().is_ipv6() == is_v6).map(|prefix| prefix.addr())
        };
        let (source, destination) = (address(random.pick(&ENIS))?, address(random.pick(&ENIS))?);
        let (source_port, port) = (random.pick(&SOURCE_PORTS), random.pick(&PORTS));
        let content = match random.below(10) {
            0..=3 => Content::Tcp(
                source_port,
                port,
                random.pick(&[TcpFlags::SYN, TcpFlags::SYN, TcpFlags::ACK, TcpFlags::FIN]),
            ),
            4..=5 => Content::Udp(source_port, port),
            6 => Content::Ping(300 + random.below(2) as u16),
            7 => Content::FirstPart(random.below(3) as u32, source_port, port),
            8 => Content::LaterPart(random.below(3) as u32),
            _ => Content::Other(random.pick(&[47, 50, 132, 255])),
        };
        (source != destination).then_some(Message { source, destination, content })
    }

    /// An ENI leaves or comes back: nothing of it may be left.
    fn replace_eni(&mut self) {
        let id = self.random.pick(&ENIS);
        let exists = self.world.desired.enis.contains_key(&EniId::from(id));
        self.note(format!("{id} {}", if exists { "leaves" } else { "comes" }));
        self.world.change(|desired| {
            if exists {
                desired.enis.remove(&EniId::from(id));
            } else {
                *desired = add_eni(std::mem::take(desired), id);
            }
        });
        self.oracle.forget(&id.into());
        self.settle();
    }

    fn change(&mut self) {
        let random = &mut self.random;
        let mut desired = self.world.desired.clone();
        let what = match random.below(10) {
            0..=3 => change_rules(random, &mut desired),
            4..=5 => change_membership(random, &mut desired),
            6..=7 => change_list(random, &mut desired),
            8 => change_settings(random, &mut desired),
            _ => change_eni(random, &mut desired, &mut self.oracle),
        };
        self.note(what);
        self.world.change(|current| *current = desired);
        self.settle();
    }
}

/// Another message of the same conversation, or an error about it.
fn follow_up(random: &mut Random, past: Message, reverse: bool) -> Message {
    let Message { source, destination, content } = past.clone();
    let ends = |reverse| if reverse { (destination, source) } else { (source, destination) };
    if random.chance(12) && !matches!(content, Content::Unreachable(_) | Content::LaterPart(_) | Content::FirstPart(..))
    {
        let (source, destination) = ends(random.chance(80));
        return Message { source, destination, content: Content::Unreachable(Box::new(past)) };
    }
    let flags = [
        TcpFlags::SYN,
        TcpFlags::SYN | TcpFlags::ACK,
        TcpFlags::ACK,
        TcpFlags::ACK,
        TcpFlags::FIN | TcpFlags::ACK,
        TcpFlags::RST,
    ];
    let content = match content {
        Content::Tcp(near, far, _) => {
            let (near, far) = if reverse { (far, near) } else { (near, far) };
            Content::Tcp(near, far, random.pick(&flags))
        }
        Content::Udp(near, far) if reverse => Content::Udp(far, near),
        Content::Ping(identifier) if reverse => Content::Pong(identifier),
        Content::Pong(identifier) if reverse => Content::Ping(identifier),
        Content::FirstPart(id, near, far) if reverse => Content::FirstPart(id, far, near),
        Content::FirstPart(id, ..) if random.chance(70) => Content::LaterPart(id),
        other => other,
    };
    let (source, destination) = ends(reverse);
    Message { source, destination, content }
}

fn random_rule(random: &mut Random, number: usize, is_advanced: bool) -> Rule {
    let objects =
        ["0.0.0.0/0", "::/0", "10.0.0.0/24", "10.0.1.11/32", "fd00:0:0:1::/64", "pl-1", "sg-closed", "sg-open"];
    let choices = if is_advanced { 6 } else { objects.len() };
    let object = objects[random.below(choices)];
    let is_v6 = object.contains(':');
    let is_v4 = object.contains('.') || object.starts_with("pl-");
    let port = random.pick(&[53, 80, 443]);
    let icmp = if is_v6 { Protocol::ICMPV6 } else { Protocol::ICMP };
    let (protocol, ports) = match random.below(7) {
        0..=1 => (Protocol::All, Ports::Any),
        2 => (Protocol::UDP, Ports::Range(PortRange { first: port, last: port })),
        3 => (Protocol::TCP, Ports::List("prl-1".into())),
        4 => (icmp, Ports::Any),
        5 => (Protocol::TCP, Ports::Range(PortRange { first: 1, last: port })),
        _ => (Protocol::GRE, Ports::Any),
    };
    Rule {
        id: format!("r-{number}").as_str().into(),
        direction: if random.chance(55) { Direction::Ingress } else { Direction::Egress },
        policy: if random.chance(65) { Policy::Accept } else { Policy::Drop },
        priority: 1 + random.below(4) as u8,
        source_ports: (protocol.has_ports() && random.chance(20)).then_some(PortRange { first: 1000, last: 1999 }),
        protocol,
        ports,
        remote: match object {
            group if group.starts_with("sg-") => Remote::Group(group.into()),
            list if list.starts_with("pl-") => Remote::PrefixList(list.into()),
            prefix => Remote::Prefix(prefix_of(prefix)),
        },
        local: (is_v4 && random.chance(10)).then(|| prefix_of("10.0.0.0/25")),
    }
}

fn change_rules(random: &mut Random, desired: &mut Desired) -> String {
    let groups = [BASIC.as_slice(), &ADVANCED].concat();
    let id = random.pick(&groups);
    let is_advanced = ADVANCED.contains(&id);
    let group = desired.groups.get_mut(&id.into()).expect("a known group");
    if random.chance(15) && !is_advanced {
        group.inner_access = if group.inner_access == Policy::Drop { Policy::Accept } else { Policy::Drop };
        return format!("inner access of {id}: {:?}", group.inner_access);
    }
    if random.chance(40) && !group.rules.is_empty() {
        let gone = group.rules.remove(random.below(group.rules.len()));
        return format!("{id} loses {gone:?}");
    }
    let number = (0..)
        .find(|number| group.rules.iter().all(|rule| rule.id.as_str() != format!("r-{number}")))
        .expect("a free name");
    let rule = random_rule(random, number, is_advanced);
    let text = format!("{id} gets {rule:?}");
    group.rules.push(rule);
    text
}

fn change_membership(random: &mut Random, desired: &mut Desired) -> String {
    let id = random.pick(&ENIS);
    let Some(eni) = desired.enis.get_mut(&EniId::from(id)) else { return "nothing".into() };
    let choices: &[&str] = if random.chance(75) { &BASIC } else { &ADVANCED };
    eni.groups = (0..=random.below(2)).map(|_| (random.pick(choices)).into()).collect();
    format!("{id} is in {:?}", eni.groups)
}

fn change_list(random: &mut Random, desired: &mut Desired) -> String {
    if random.chance(50) {
        let prefixes = ["10.0.0.10/32", "10.0.0.0/28", "10.0.1.0/24", "10.0.0.0/8"];
        let entries = (0..random.below(3)).map(|_| prefix_of(random.pick(&prefixes))).collect();
        desired.prefix_lists.insert("pl-1".into(), PrefixList { entries });
    } else {
        let ranges = [(1, 100), (53, 53), (80, 443), (443, 65535)];
        let entries = (0..random.below(3)).map(|_| random.pick(&ranges)).map(|(first, last)| PortRange { first, last });
        desired.port_lists.insert("prl-1".into(), PortList { entries: entries.collect() });
    }
    format!("lists: {:?} {:?}", desired.prefix_lists, desired.port_lists)
}

fn change_settings(random: &mut Random, desired: &mut Desired) -> String {
    let settings = &mut desired.settings;
    match random.below(4) {
        0 => settings.cut_sessions_on_deny ^= true,
        1 => settings.intra_group_egress_bypass ^= true,
        2 => settings.follow_first_fragment ^= true,
        _ => settings.icmp_timeout_s = random.pick(&[5, 30]),
    }
    format!("{settings:?}")
}

fn change_eni(random: &mut Random, desired: &mut Desired, oracle: &mut Oracle) -> String {
    let id = random.pick(&ENIS);
    let Some(eni) = desired.enis.get_mut(&EniId::from(id)) else { return "nothing".into() };
    match random.below(4) {
        0 => {
            eni.timeouts = Timeouts {
                tcp_established_s: random.pick(&[30, 100, 910]),
                tcp_closed_s: 3,
                udp_s: random.pick(&[10, 30, 100]),
            }
        }
        1 => eni.sessions_max = random.pick(&[2, 4, Eni::default_sessions_max()]),
        2 => {
            let number = eni.mac.0[5] - 1;
            let secondary = prefix_of(&format!("10.0.{}.{}", number % 2, 100 + number));
            if eni.addresses.contains(&secondary) {
                eni.addresses.retain(|prefix| *prefix != secondary);
            } else {
                eni.addresses.push(secondary);
            }
        }
        _ => {
            eni.port = if eni.port.is_some() { None } else { Some(Port::Memory) };
            oracle.forget(&id.into());
        }
    }
    format!("{id}: {eni:?}")
}
