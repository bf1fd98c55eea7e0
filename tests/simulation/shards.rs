//! Two shards, one snapshot: every packet's verdict, its explanation and the sessions it leaves, one by one. Quotas bind
//! here, and timeouts change.

use crate::changes::{ENIS, add_eni, change_list, change_membership, change_rules, change_settings, first_world};
use crate::conversation::{PORTS, SOURCE_PORTS, follow_up};
use harness::frame::TcpFlags;
use harness::message::{Content, Message};
use harness::oracle::{EvaluationPlace, Gathered, Oracle};
use harness::random::Random;
use harness::world::{World, prefix_of};
use std::collections::VecDeque;
use vswitch_core::config::desired::{Desired, DesiredPort, Direction, Timeouts};
use vswitch_core::config::ids::{EniId, EniIndex};
use vswitch_core::config::protocol::PacketDescription;
use vswitch_core::packet::verdict::{DropReason, Verdict};
use vswitch_core::packet::{FrameBuffer, Packet};

const STEPS: usize = 600;

#[test]
fn every_packet_meets_the_fate_that_the_oracle_gives_it() {
    let mut tally = Tally::default();
    crate::until(
        |tally: &Tally| tally.packets >= crate::wanted("SLUICE_SIMULATION_PACKETS"),
        &mut tally,
        |seed, tally| ShardSimulation::new(seed, 12).run(tally),
    );
    println!("{tally:?}");
}

/// Half of what happens is a change, of every kind that can take a session's ground away.
#[test]
fn no_packet_is_forwarded_by_a_revoked_rule() {
    let mut tally = Tally::default();
    crate::until(
        |tally: &Tally| tally.changes >= crate::wanted("SLUICE_SIMULATION_CHANGES"),
        &mut tally,
        |seed, tally| ShardSimulation::new(seed, 50).run(tally),
    );
    println!("{tally:?}");
    // One world that is replayed may have ended none.
    let is_replay = std::env::var("SLUICE_SEED").is_ok();
    assert!(is_replay || tally.refused_sessions > tally.changes / 1000, "changes must have ended sessions");
    assert_eq!(tally.forwarded_by_revoked, 0);
}

/// What a simulation has seen.
#[derive(Debug, Default)]
struct Tally {
    packets: u64,
    changes: u64,
    /// Packets of sessions that the rules of the moment refuse, as the oracle says.
    refused_sessions: u64,
    /// Of those, how many were forwarded. One fails the test at once.
    forwarded_by_revoked: u64,
}

struct ShardSimulation {
    seed: u64,
    random: Random,
    /// How many of a hundred steps are changes.
    changes_percent: usize,
    tally: Tally,
    world: World,
    oracle: Oracle,
    now_s: u64,
    /// Messages to answer, repeat and complain about.
    recent: VecDeque<Message>,
    /// What was done, for a failure's report.
    log: VecDeque<String>,
}

impl ShardSimulation {
    fn new(seed: u64, changes_percent: usize) -> Self {
        Self {
            seed,
            random: Random::new(seed),
            changes_percent,
            tally: Tally::default(),
            world: World::with_shards(first_world(), 2, 512),
            oracle: Oracle::default(),
            now_s: 1,
            recent: VecDeque::new(),
            log: VecDeque::new(),
        }
    }

    fn run(mut self, tally: &mut Tally) {
        for _ in 0..STEPS {
            match self.random.below(100) {
                step if step < self.changes_percent => self.change(),
                step if step < self.changes_percent + 8 => self.wait(),
                step if step < self.changes_percent + 10 => self.replace_eni(),
                _ => self.exchange(),
            }
        }
        tally.packets += self.tally.packets;
        tally.changes += self.tally.changes;
        tally.refused_sessions += self.oracle.refused_sessions();
        tally.forwarded_by_revoked += self.tally.forwarded_by_revoked;
    }

    fn note(&mut self, text: String) {
        self.log.push_back(text);
        if self.log.len() > 25 {
            self.log.pop_front();
        }
    }

    fn fail(&self, what: &str) -> ! {
        let log = self.log.iter().fold(String::new(), |text, line| text + "\n  " + line);
        panic!(
            "{what}\nreplay with SLUICE_SEED={} cargo test -p tests --test simulation shards\nlately:{log}\nstate: {:#?}",
            self.seed, self.world.desired.groups
        );
    }

    fn wait(&mut self) {
        let seconds = self.random.pick(&[1, 2, 3, 5, 9, 10, 15, 29, 30, 31, 60, 120, 180, 300, 600, 910, 432_000]);
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
        self.tally.packets += 1;
        let frame = self.world.frame_from(from.as_str(), &message.packet());
        let mut packet = self.world.egress(from.as_str(), &frame);
        self.note(format!("{from} -> {to}: {:?}: {:?}", message.content, packet.verdict));
        let after_egress = packet.verdict;
        let gathered = self.gather(&from, &message);
        if (gathered == Gathered::Wait) != (packet.verdict == Verdict::Wait) {
            self.fail(&format!("egress of {from}: {:?}, the oracle says {gathered:?}: {message:?}", packet.verdict));
        }
        if gathered != Gathered::Wait {
            let passes = gathered == Gathered::Pass;
            self.check(&message, passes, (&from, &to), &mut packet);
            let has_no_room = matches!(after_egress, Verdict::Drop(DropReason::SessionLimit | DropReason::SessionRate));
            if explained.is_some_and(|verdict| verdict != after_egress && !has_no_room) {
                self.fail(&format!("explained {explained:?}, was {after_egress:?}: {message:?}"));
            }
        }
        self.release();
        self.recent.push_back(message);
        if self.recent.len() > 24 {
            self.recent.pop_front();
        }
        self.settle();
    }

    /// What waited goes on, in both worlds.
    fn release(&mut self) {
        for (from, message, _) in self.oracle.release() {
            let Some(to) = self.owner(message.destination) else { continue };
            let (shard, index) =
                (self.world.shard_of(self.world.index(from.as_str())), self.world.index(from.as_str()));
            let mut packet = Packet::new(FrameBuffer::with_capacity(512));
            if self.world.shards[shard].take_released(&mut packet.buffer) != Some(index) {
                self.fail(&format!("{message:?} of {from} should wait no longer"));
            }
            let (at, burst) = ((&self.world.snapshot, self.world.now), std::slice::from_mut(&mut packet));
            self.world.shards[shard].forward_released(at, index, burst, |_: EniIndex| false);
            self.note(format!("{from} -> {to}: {:?} waited: {:?}", message.content, packet.verdict));
            self.check(&message, true, (&from, &to), &mut packet);
        }
        if self.world.shards.iter().any(|shard| shard.released_bytes().is_some()) {
            self.fail("a fragment waits no longer, and should");
        }
    }

    /// Holds what became of a packet in egress against the oracle, and takes it through ingress.
    fn check(&mut self, message: &Message, goes_on: bool, (from, to): (&EniId, &EniId), packet: &mut Packet) {
        let refused_before = self.oracle.refused_sessions();
        let expected = goes_on && self.expect(from, Direction::Egress, message);
        let is_revoked = self.oracle.refused_sessions() > refused_before;
        self.tally.forwarded_by_revoked += u64::from(is_revoked && matches!(packet.verdict, Verdict::Forward(_)));
        if expected != matches!(packet.verdict, Verdict::Forward(_)) {
            self.fail(&format!("egress of {from}: {:?}, the oracle passes: {expected}: {message:?}", packet.verdict));
        }
        if expected {
            self.world.ingress(packet);
            self.note(format!("  then {:?}", packet.verdict));
            let refused_before = self.oracle.refused_sessions();
            let expected = self.expect(to, Direction::Ingress, message);
            let is_revoked = self.oracle.refused_sessions() > refused_before;
            self.tally.forwarded_by_revoked += u64::from(is_revoked && packet.verdict == Verdict::Deliver);
            if expected != (packet.verdict == Verdict::Deliver) {
                self.fail(&format!(
                    "ingress of {to}: {:?}, the oracle passes: {expected}: {message:?}",
                    packet.verdict
                ));
            }
        }
    }

    fn gather(&mut self, eni: &EniId, message: &Message) -> Gathered {
        let revision = self.world.snapshot.revision(self.world.index(eni.as_str())).expect("it is there");
        let (desired, now_s) = (&self.world.desired, self.now_s);
        self.oracle.gather(EvaluationPlace { desired, eni, direction: Direction::Egress, revision, now_s }, message, 0)
    }

    fn expect(&mut self, eni: &EniId, direction: Direction, message: &Message) -> bool {
        let index = self.world.index(eni.as_str());
        let revision = self.world.snapshot.revision(index).expect("it is there");
        let place = EvaluationPlace { desired: &self.world.desired, eni, direction, revision, now_s: self.now_s };
        self.oracle.evaluate(place, message)
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
        self.tally.changes += 1;
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

fn change_eni(random: &mut Random, desired: &mut Desired, oracle: &mut Oracle) -> String {
    let id = random.pick(&ENIS);
    let Some(eni) = desired.enis.get_mut(&EniId::from(id)) else { return "nothing".into() };
    match random.below(6) {
        5 => eni.tracking.new_sessions_per_s = random.pick(&[None, Some(1), Some(3)]),
        4 => eni.tracking.tcp_window_check ^= true,
        0 => {
            eni.timeouts = Timeouts {
                tcp_established_s: random.pick(&[30, 100, 910]),
                tcp_closed_s: 3,
                udp_s: random.pick(&[10, 30, 100]),
            }
        }
        1 => eni.sessions_max = random.pick(&[2, 4, 4000]),
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
            eni.port = if eni.port.is_some() { None } else { Some(DesiredPort::Memory) };
            oracle.forget(&id.into());
        }
    }
    format!("{id}: {eni:?}")
}
