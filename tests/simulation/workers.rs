//! The workers themselves, assembled with memory ports and turned by hand in random order, while guests send and the
//! state changes between any two turns: what comes out, where, in which order, and what is counted, turn by turn.
//!
//! A turn is whole here. A change that is published in the middle of one, which is what settling the rings guards
//! against, is the subject of `vswitch/tests/revocation.rs`, with threads.

use crate::changes::{change_list, change_membership, change_rules, change_settings};
use crate::conversation::{PORTS, SOURCE_PORTS, follow_up};
use crate::networks::{
    ROUTER, addresses_of, all_enis, change_eni, change_networks, mac_of, network_of, sender, with_eni, world,
};
use crate::twin::{Count, Frame, FrameContent, REFUSED, Twin, frame_of};
use harness::frame::{TcpFlags, ethernet, tagged};
use harness::message::{Content, Message};
use harness::random::Random;
use harness::world::SECRET;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use vswitch::exchange::doorbell::Doorbell;
use vswitch::exchange::handoff::pool_size;
use vswitch::exchange::services::ServiceLinks;
use vswitch::port::factory::PortFactory;
use vswitch::port::memory::MemoryHub;
use vswitch::switch::{Switch, SwitchConfig, assemble};
use vswitch::worker::Worker;
use vswitch::worker::driver::{WorkerDriver, WorkerEndpoint};
use vswitch_core::config::desired::{Desired, DesiredVpc};
use vswitch_core::config::ids::{EniId, MacAddress};
use vswitch_core::config::limits::HANDOFF_PACKETS;
use vswitch_core::config::protocol::{Delta, DirectionStats, RequestBody, SwitchReplyBody, SwitchRequest, VERSION};
use vswitch_core::hw::time::Time;
use vswitch_core::packet::verdict::DropReason;

const STEPS: usize = 500;
/// Frames that a port holds in each direction: few, so that ports fill up.
const FRAMES_MAX: usize = 64;
/// More sessions than a world ever opens, so that no table is full.
const FLOWS_MAX: usize = 8192;
const NS_PER_SECOND: u64 = 1_000_000_000;
#[test]
fn what_comes_out_of_one_or_two_workers_is_what_the_oracle_foretells() {
    let mut met: BTreeMap<String, u64> = BTreeMap::new();
    crate::for_each_seed(|seed| {
        for (fate, count) in WorkerSimulation::new(seed).run() {
            *met.entry(fate).or_default() += count;
        }
    });
    println!("{met:#?}");
}

struct WorkerSimulation {
    switch: Switch,
    floor: Floor,
}

/// Everything that goes on while the switch waits.
struct Floor {
    seed: u64,
    random: Random,
    workers: Vec<Worker>,
    free_buffers: usize,
    twin: Twin,
    hub: MemoryHub,
    now: Time,
    serial: u32,
    is_changing: bool,
    is_quiet: bool,
    recent: VecDeque<(&'static str, Message)>,
    /// What was done, for a failure's report.
    log: VecDeque<String>,
}

impl WorkerSimulation {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let count = if random.chance(70) { 2 } else { 1 };
        let hub = MemoryHub::new(FRAMES_MAX, false);
        let ports = PortFactory { memory: hub.clone(), ..PortFactory::default() };
        let config = SwitchConfig { workers: count, flows_max_per_worker: FLOWS_MAX, secret: SECRET, ports };
        let links = ServiceLinks::new(Doorbell::new(None), Doorbell::new(None));
        let (switch, workers) = assemble(config, Vec::new(), None, links);
        let floor = Floor {
            seed,
            random,
            free_buffers: workers[0].free_buffers(),
            workers,
            twin: Twin::new(count, FRAMES_MAX),
            hub,
            now: Time::from_ns(NS_PER_SECOND),
            serial: 0,
            is_changing: false,
            is_quiet: false,
            recent: VecDeque::new(),
            log: VecDeque::new(),
        };
        Self { switch, floor }
    }

    /// How many frames met which fate.
    fn run(mut self) -> BTreeMap<String, u64> {
        for id in all_enis() {
            self.floor.twin.guest(&id.into());
        }
        for _ in 0..5 {
            self.floor.send();
        }
        self.floor.turn_any();
        self.apply(world());
        for _ in 0..STEPS {
            match self.floor.random.below(100) {
                0..=9 => self.change(),
                10..=12 => self.replace_eni(),
                13..=14 => self.wait(),
                15..=16 => self.resize(),
                17..=18 => self.floor.cut_or_mend(),
                19..=20 => self.settle(),
                21 => self.floor.flood(),
                22..=36 => self.floor.collect_from_any(),
                37..=62 => self.floor.turn_any(),
                _ => self.floor.send(),
            }
        }
        self.settle();
        self.floor.twin.met
    }

    fn wait(&mut self) {
        let seconds = self.floor.random.pick(&[1, 1, 2, 3, 9, 10, 30, 31, 300]);
        self.floor.note(format!("{seconds} s pass"));
        self.floor.now = self.floor.now + seconds * NS_PER_SECOND;
        self.tick();
    }

    /// Lets the switch look after its ports.
    fn tick(&mut self) {
        let down = |switch: &Switch| switch.ports_down().into_iter().map(|port| port.eni).collect::<BTreeSet<EniId>>();
        let before = down(&self.switch);
        self.switch.tick(&mut self.floor);
        let after = down(&self.switch);
        for id in before.difference(&after) {
            self.floor.note(format!("the port of {id} is opened again"));
            self.floor.twin.attach(id);
        }
    }

    /// Lets everything that waits arrive, and compares all counters.
    fn settle(&mut self) {
        self.floor.is_quiet = true;
        self.floor.turn_all();
        while !self.floor.twin.is_idle() {
            self.floor.turn_all();
        }
        self.floor.now = self.floor.now + NS_PER_SECOND;
        self.tick();
        for _ in 0..3 {
            self.floor.turn_all();
        }
        while !self.floor.twin.is_idle() {
            self.floor.turn_all();
        }
        self.floor.turn_all();
        all_enis().for_each(|id| self.floor.collect(id));
        for stats in self.switch.eni_stats(None, &mut self.floor) {
            let floor = &mut self.floor;
            let found = [counted(&stats.egress), counted(&stats.ingress)];
            let expected = floor.twin.counts[&stats.eni].clone();
            if found != expected {
                floor.fail(&format!("{} counts {found:#?}, foretold {expected:#?}", stats.eni));
            }
            let sessions = floor.twin.oracle.sessions_of(&stats.eni) as u64;
            if stats.flows != sessions {
                floor.fail(&format!("{} holds {} sessions, the oracle has {sessions}", stats.eni, stats.flows));
            }
        }
        for worker in &self.floor.workers {
            if worker.free_buffers() != self.floor.free_buffers {
                self.floor.fail(&format!("worker {} has lost a buffer", worker.number()));
            }
        }
        self.floor.is_quiet = false;
    }

    /// An ENI leaves or comes back. Most are there at most times.
    fn replace_eni(&mut self) {
        let mut desired = self.floor.twin.desired.clone();
        let (present, absent): (Vec<&str>, Vec<&str>) =
            all_enis().partition(|id| desired.enis.contains_key(&EniId::from(*id)));
        let leaves = absent.is_empty() || (present.len() > 2 && self.floor.random.chance(30));
        let id = self.floor.random.pick(if leaves { &present } else { &absent });
        if leaves {
            desired.enis.remove(&EniId::from(id));
            desired.vpcs.values_mut().for_each(|vpc| vpc.routes.retain(|_, next| next.as_str() != id));
        } else {
            desired = with_eni(desired, id);
        }
        self.floor.note(format!("{id} {}", if leaves { "leaves" } else { "comes" }));
        self.apply(desired);
    }

    fn change(&mut self) {
        let mut desired = self.floor.twin.desired.clone();
        let random = &mut self.floor.random;
        let what = match random.below(12) {
            0..=3 => change_rules(random, &mut desired),
            4..=5 => change_membership(random, &mut desired),
            6..=7 => change_list(random, &mut desired),
            8 => change_settings(random, &mut desired),
            9 => change_networks(random, &mut desired),
            _ => change_eni(random, &mut desired),
        };
        // How long a session that idles is remembered after its time depends on the sweep.
        desired.settings.icmp_timeout_s = 30;
        self.floor.note(what);
        if self.floor.random.chance(5) {
            return self.refuse(desired);
        }
        self.apply(desired);
    }

    /// One worker more or fewer, or as many as before: ENIs move with all that is known of them.
    fn resize(&mut self) {
        let workers = 1 + self.floor.random.below(3);
        self.floor.note(format!("{workers} workers from here on"));
        self.floor.twin.resize(workers, self.floor.now.as_ns() / NS_PER_SECOND);
        let reply = self.request(RequestBody::Regroup { workers, lanes: None });
        if !matches!(&reply, SwitchReplyBody::Regrouped(resized) if resized.workers == workers) {
            self.floor.fail(&format!("{workers} workers: {reply:?}"));
        }
        self.floor.free_buffers = pool_size(workers).total();
    }

    /// The whole state, or what is different from the present one.
    fn request_of(&mut self, desired: &Desired, generation: u64) -> RequestBody {
        if self.floor.random.chance(50) {
            return RequestBody::Replace { generation, desired: desired.clone() };
        }
        let delta = Delta::between(&self.floor.twin.desired, desired);
        RequestBody::Apply { base: self.switch.generation(), generation, delta }
    }

    fn request(&mut self, body: RequestBody) -> SwitchReplyBody {
        self.switch.answer(SwitchRequest { version: VERSION, id: 1, body }, &mut self.floor).body
    }

    /// Asks for a state that cannot be.
    fn refuse(&mut self, mut desired: Desired) {
        for eni in desired.enis.values_mut() {
            eni.groups.insert("sg-none".into());
        }
        let generation = self.switch.generation();
        let body = self.request_of(&desired, generation + 1);
        let reply = self.request(body);
        if !matches!(reply, SwitchReplyBody::Refused { .. }) || self.switch.generation() != generation {
            self.floor.fail(&format!("an impossible state was answered with {reply:?}"));
        }
    }

    /// Makes a change and waits until it is acknowledged: nothing that older rules admitted is on its way then.
    fn apply(&mut self, desired: Desired) {
        let generation = self.switch.generation() + 1;
        let body = self.request_of(&desired, generation);
        if let Err(refusals) = self.floor.twin.change(desired, generation) {
            self.floor.fail(&format!("the change is impossible: {refusals:?}"));
        }
        self.floor.is_changing = true;
        let reply = self.request(body);
        self.floor.is_changing = false;
        if !matches!(&reply, SwitchReplyBody::Applied(applied) if applied.generation == generation) {
            self.floor.fail(&format!("the change was answered with {reply:?}"));
        }
        self.floor.note(format!("generation {generation} is acknowledged"));
        if self.floor.twin.has_old_packets() {
            self.floor.fail("a packet that older rules admitted is still on its way");
        }
    }
}

impl WorkerDriver for Floor {
    fn now(&self) -> Time {
        self.now
    }

    /// The switch waits: guests go on sending meanwhile, and workers turn as they like.
    fn wait(&mut self) {
        if !self.is_quiet && self.random.chance(40) {
            self.send();
        }
        self.turn_any();
    }

    fn reserve(&mut self, _workers: usize) -> io::Result<Vec<WorkerEndpoint>> {
        Ok(Vec::new())
    }

    fn pause_all(&mut self) -> Option<Vec<Worker>> {
        Some(std::mem::take(&mut self.workers))
    }

    fn resume(&mut self, workers: Vec<Worker>) {
        self.workers = workers;
    }
}

impl Floor {
    fn note(&mut self, text: String) {
        self.log.push_back(text);
        if self.log.len() > 60 {
            self.log.pop_front();
        }
    }

    fn fail(&self, what: &str) -> ! {
        let log = self.log.iter().fold(String::new(), |text, line| text + "\n  " + line);
        panic!(
            "{what}\nreplay with SLUICE_SEED={} cargo test -p tests --test simulation workers\nlately:{log}\nstate: {:#?}",
            self.seed, self.twin.desired.groups
        );
    }

    fn turn_any(&mut self) {
        let worker = self.random.below(self.workers.len());
        self.turn(worker);
    }

    fn turn_all(&mut self) {
        (0..self.workers.len()).for_each(|worker| self.turn(worker));
    }

    fn turn(&mut self, worker: usize) {
        // Little enough that a world never lives to see the next sixteenth of a second, in which flows count.
        self.now = self.now + self.random.below(2) as u64 * 1_000;
        assert!(self.now.as_ns() % NS_PER_SECOND < NS_PER_SECOND / 16, "the world turns too often");
        let found = self.workers[worker].turn(self.now).packets;
        let expected = self.twin.turn(worker, self.now.as_ns() / NS_PER_SECOND);
        self.note(format!("worker {worker} takes {found}"));
        if found != expected {
            self.fail(&format!("worker {worker} took {found} packets, foretold {expected}"));
        }
        for (id, guest) in &self.twin.guests {
            let (found, expected) = (self.hub.guest(id).waiting(), guest.arrived.len());
            if found != expected {
                self.fail(&format!("{id} has {found} frames waiting, foretold {expected}: {:?}", guest.arrived));
            }
        }
        if !self.is_changing && self.twin.has_old_packets() {
            self.fail("a packet that older rules admitted came into a ring after the reply");
        }
    }

    fn collect_from_any(&mut self) {
        let names: Vec<&str> = all_enis().collect();
        let id = self.random.pick(&names);
        self.collect(id);
    }

    /// Takes all that arrived at a guest: exactly the frames foretold, in their order.
    fn collect(&mut self, id: &str) {
        let guest = self.hub.guest(&id.into());
        while let Some(frame) = guest.collect() {
            let Some(expected) = self.twin.guest(&id.into()).arrived.pop_front() else {
                self.fail(&format!("{id} got a frame that nobody foretold: {frame:?}"));
            };
            let serial = frame.last_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
            let is_same = expected.bytes.as_ref().is_none_or(|bytes| *bytes == frame);
            if serial != expected.serial || !is_same || frame[..6] != mac_of(id).0 {
                self.fail(&format!("{id} got {serial} as {frame:?}, foretold {expected:?}"));
            }
        }
        if !self.twin.guest(&id.into()).arrived.is_empty() {
            self.fail(&format!("frames for {id} are missing"));
        }
    }

    fn cut_or_mend(&mut self) {
        let (cut, whole): (Vec<&str>, Vec<&str>) =
            all_enis().partition(|id| self.twin.guests[&EniId::from(*id)].is_cut);
        let is_cut = cut.is_empty() || (!whole.is_empty() && self.random.chance(30));
        let id = EniId::from(self.random.pick(if is_cut { &whole } else { &cut }));
        self.twin.guest(&id).is_cut = is_cut;
        self.hub.guest(&id).set_failed(is_cut);
        self.note(format!("the port of {id} is {}", if is_cut { "cut" } else { "whole" }));
    }

    /// One guest sends.
    fn send(&mut self) {
        let Some((from, message)) = self.next_message() else { return };
        self.recent.push_back((network_of(from), message.clone()));
        if self.recent.len() > 24 {
            self.recent.pop_front();
        }
        let count = 1 + self.random.below(2);
        self.note(format!("{from} sends {count} after {}: {message:?}", self.serial));
        for _ in 0..count {
            self.send_message(from, &message);
        }
    }

    fn send_message(&mut self, from: &str, message: &Message) {
        self.serial += 1;
        let spoofs = self.random.chance(1);
        let mac = if spoofs { MacAddress([2, 0, 0, 0, 9, 9]) } else { mac_of(from) };
        let bytes = frame_of(message.packet(), (mac, DesiredVpc::default_gateway_mac()), self.serial);
        let (bytes, content) = match self.random.below(300) {
            0 => (bytes[..10].to_vec(), FrameContent::Broken(DropReason::FrameTruncated)),
            1 => (tagged(&bytes, 7), FrameContent::Broken(DropReason::VlanTagged)),
            2 => {
                let unknown = ethernet(mac, DesiredVpc::default_gateway_mac(), 0x88cc, &[0; 50]);
                (unknown, FrameContent::Broken(DropReason::EtherTypeUnknown))
            }
            _ => (bytes, FrameContent::Message(message.clone())),
        };
        let (id, serial) = (EniId::from(from), self.serial);
        let has_room = self.twin.guest(&id).sent.len() < FRAMES_MAX;
        if self.hub.guest(&id).inject(&bytes) != has_room {
            self.fail(&format!("the queue of {from} has room where it should have none, or none where it should"));
        }
        if has_room {
            self.twin.guest(&id).sent.push_back(Frame { serial, mac, content });
        }
    }

    /// One guest sends more than a ring holds, and only its own worker turns.
    fn flood(&mut self) {
        let Some((from, message)) = self.next_message() else { return };
        let worker = self.random.below(self.workers.len());
        let rounds = if self.random.chance(20) { HANDOFF_PACKETS / 32 + 3 } else { 3 };
        self.note(format!("{from} floods after {}: {message:?}", self.serial));
        for _ in 0..rounds {
            for _ in 0..32 {
                self.send_message(from, &message);
            }
            self.turn(worker);
        }
    }

    fn next_message(&mut self) -> Option<(&'static str, Message)> {
        if !self.recent.is_empty() && self.random.chance(65) {
            let (network, past) = self.recent[self.random.below(self.recent.len())].clone();
            let reverse = self.random.chance(60);
            let message = follow_up(&mut self.random, past, reverse);
            return Some((sender(network, message.source)?, message));
        }
        let random = &mut self.random;
        // Mostly an address that is in use.
        let (names, is_v6, is_odd) = (all_enis().collect::<Vec<_>>(), random.chance(30), random.chance(8));
        let (from, to) = (random.pick(&names), random.pick(&names));
        let enis = &self.twin.desired.enis;
        let mut one_of = |id: &str| {
            let mut all = addresses_of(id);
            let is_used = |address: &IpAddr| {
                let is_its_own = |prefix: &IpNet| prefix.addr() == *address;
                enis.get(&EniId::from(id)).is_some_and(|eni| id == ROUTER || eni.addresses.iter().any(is_its_own))
            };
            all.retain(|address| address.is_ipv6() == is_v6 && (is_odd || is_used(address)));
            (!all.is_empty()).then(|| random.pick(&all))
        };
        let (source, mut destination) = (one_of(from)?, one_of(to)?);
        let (source_port, port) = (random.pick(&SOURCE_PORTS), random.pick(&PORTS));
        let mut content = match random.below(10) {
            0..=3 => Content::Tcp(source_port, port, random.pick(&[TcpFlags::SYN, TcpFlags::SYN, TcpFlags::ACK])),
            4..=5 => Content::Udp(source_port, port),
            6 => Content::Ping(300 + random.below(2) as u16),
            7 => Content::FirstPart(random.below(3) as u32, source_port, port),
            8 => Content::LaterPart(random.below(3) as u32),
            _ => Content::Other(random.pick(&[47, 50, 132, 255])),
        };
        if random.chance(3) {
            let gateway = if is_v6 { "fd00:0:0:1::1" } else { "10.0.0.1" };
            (destination, content) = (gateway.parse().expect("an address"), Content::Ping(1));
        } else if random.chance(3) {
            destination = if is_v6 { "fd00:0:0:1::ffff" } else { "10.0.0.200" }.parse().expect("an address");
        }
        (source != destination).then_some((from, Message { source, destination, content }))
    }
}

fn counted(stats: &DirectionStats) -> Count {
    let refusals = [
        DropReason::RuleDrop,
        DropReason::AnswerUnsolicited,
        DropReason::IcmpErrorRate,
        DropReason::DefaultDrop,
        DropReason::SessionRevoked,
        DropReason::SmtpClosed,
        DropReason::QuoteForged,
        DropReason::FragmentDuplicate,
        DropReason::FragmentsFull,
        DropReason::TcpOutOfState,
        DropReason::TcpOutOfWindow,
        DropReason::SessionLimit,
        DropReason::FlowTableFull,
    ];
    let mut count =
        Count { packets: stats.packets, bytes: stats.bytes, answered: stats.answered, drops: stats.drops.clone() };
    let refused: u64 = refusals.iter().filter_map(|reason| count.drops.remove(reason.name())).sum();
    if refused > 0 {
        count.drops.insert(REFUSED.into(), refused);
    }
    count
}
