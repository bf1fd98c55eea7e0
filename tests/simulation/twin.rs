//! What the workers should do, foretold turn by turn: the oracle's decisions, and queues, rings and ports as plain
//! lists. It knows three things of a worker's order of work: what waits in its rings comes first, then each port gives
//! one burst in the order in which ports were attached, and what a burst sends to the worker's own ENIs arrives before
//! the next port is asked.

use harness::frame::Ip;
use harness::frame::TcpFlags;
use harness::message::{Content, Message};
use harness::oracle::{EvaluationPlace, Gathered, Oracle};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use vswitch::switch::placement::Placement;
use vswitch_core::compile::Compiler;
use vswitch_core::config::desired::{Desired, DesiredEni, DesiredVswitch, Direction};
use vswitch_core::config::ids::{EniId, MacAddress, VpcId};
use vswitch_core::config::limits::{BURST_PACKETS, HANDOFF_PACKETS};
use vswitch_core::config::refusal::Refusal;
use vswitch_core::packet::verdict::DropReason;

/// Under which name refusals by rules, sessions and quotas are counted together: which of them it was is the subject of
/// the simulation of shards.
pub(crate) const REFUSED: &str = "refused";

/// A frame that a guest sent.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// Also in its last four bytes, so that it is known again.
    pub(crate) serial: u32,
    /// The hardware address it claims to come from.
    pub(crate) mac: MacAddress,
    pub(crate) content: FrameContent,
}

#[derive(Clone, Debug)]
pub(crate) enum FrameContent {
    /// An IP packet.
    Message(Message),
    /// Something that ends at its sender whoever that is.
    Broken(DropReason),
}

/// A frame that waits for a guest to collect it.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) serial: u32,
    /// All its bytes; none where the virtual router wrote the answer.
    pub(crate) bytes: Option<Vec<u8>>,
}

/// A packet in a ring.
#[derive(Clone, Debug)]
struct Parcel {
    serial: u32,
    message: Message,
    hop_limit: u8,
    to: EniId,
    eni_generation: u32,
    /// The generation whose egress passed it.
    generation: u64,
}

/// The far end of a port, there before the ENI is and after it is gone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Guest {
    pub(crate) sent: VecDeque<Frame>,
    pub(crate) arrived: VecDeque<Arrival>,
    pub(crate) is_cut: bool,
    /// The worker has met the cut.
    is_failed: bool,
    /// Packets that others are served first.
    debt: usize,
}

/// Answers of the router that an ENI gets in a second.
const ANSWERS_PER_S: u64 = 1000;
/// What a refused packet costs, counted in packets that pass.
const REFUSED_COST: usize = 5;

#[derive(Clone, Debug, Default)]
struct WorkerTwin {
    crossed: u64,
    /// Ports in the order in which they are asked.
    ready: Vec<EniId>,
    /// Ports on the desk.
    attaching: VecDeque<EniId>,
    /// Whoever had frames in the last turn.
    served: Vec<EniId>,
}

/// Counters of one ENI and direction.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Count {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) answered: u64,
    pub(crate) drops: BTreeMap<String, u64>,
}

impl Count {
    fn pass(&mut self, frame_bytes: usize) {
        self.packets += 1;
        self.bytes += frame_bytes as u64;
    }
}

/// The model of a switch.
pub(crate) struct Twin {
    pub(crate) desired: Desired,
    pub(crate) generation: u64,
    pub(crate) guests: BTreeMap<EniId, Guest>,
    /// Egress and ingress of each ENI.
    pub(crate) counts: BTreeMap<EniId, [Count; 2]>,
    pub(crate) oracle: Oracle,
    /// How many frames met which fate.
    pub(crate) met: BTreeMap<String, u64>,
    compiler: Compiler,
    placement: Placement,
    eni_generations: BTreeMap<EniId, u32>,
    workers: Vec<WorkerTwin>,
    /// From one worker to another.
    rings: Vec<Vec<VecDeque<Parcel>>>,
    /// How many answers of the router each ENI may still get, as of when.
    answers: BTreeMap<EniId, (u64, u64)>,
    /// Packets of the burst in work that were refused.
    refused: usize,
    /// Packets that a ring takes from the port in work.
    ring_packets_max: usize,
    frames_max: usize,
    now_s: u64,
    /// Fragments that wait for their first.
    waiting: BTreeMap<u32, Frame>,
}

impl Twin {
    /// Without ENIs, generation 0; every port holds `frames_max` frames in each direction.
    pub(crate) fn new(workers: usize, frames_max: usize) -> Self {
        Self {
            desired: Desired::default(),
            generation: 0,
            guests: BTreeMap::new(),
            counts: BTreeMap::new(),
            oracle: Oracle::default(),
            met: BTreeMap::new(),
            compiler: Compiler::new([0; 2]),
            placement: Placement::new(workers),
            eni_generations: BTreeMap::new(),
            workers: vec![WorkerTwin::default(); workers],
            rings: vec![vec![VecDeque::new(); workers]; workers],
            answers: BTreeMap::new(),
            refused: 0,
            ring_packets_max: HANDOFF_PACKETS,
            frames_max,
            now_s: 0,
            waiting: BTreeMap::new(),
        }
    }

    pub(crate) fn guest(&mut self, eni: &EniId) -> &mut Guest {
        self.guests.entry(eni.clone()).or_default()
    }

    /// A new state, in force for each worker from its next turn on; or why it cannot be, and nothing has changed.
    pub(crate) fn change(&mut self, desired: Desired, generation: u64) -> Result<(), Vec<Refusal>> {
        self.compiler.replace(&desired, generation)?;
        let enis: BTreeSet<&EniId> = self.desired.enis.keys().chain(desired.enis.keys()).collect();
        self.placement.update(enis.into_iter().map(|eni| (eni, self.compiler.eni_index(eni))));
        let before = std::mem::replace(&mut self.desired, desired);
        self.generation = generation;
        for (id, then) in &before.enis {
            let now = self.desired.enis.get(id);
            if then.port.is_some() && now.is_none_or(|now| now.port.is_none()) {
                self.detach(id);
            }
        }
        let (new, old) = (self.desired.enis.clone(), before.enis);
        for (id, eni) in &new {
            let then = old.get(id);
            if then.is_none() {
                *self.eni_generations.entry(id.clone()).or_default() += 1;
            }
            if then.is_none_or(|then| then.port.is_some() != eni.port.is_some()) {
                self.oracle.forget(id);
                self.counts.insert(id.clone(), Default::default());
                self.answers.remove(id);
            }
            if eni.port.is_some() && then.is_none_or(|then| then.port.is_none()) {
                self.attach(id);
            }
        }
        for id in old.keys().filter(|id| !new.contains_key(*id)) {
            self.oracle.forget(id);
            self.counts.remove(id);
            self.answers.remove(id);
        }
        Ok(())
    }

    /// A port is given to its worker.
    pub(crate) fn attach(&mut self, id: &EniId) {
        let worker = self.owner(id);
        self.workers[worker].attaching.push_back(id.clone());
    }

    fn detach(&mut self, id: &EniId) {
        for worker in &mut self.workers {
            worker.ready.retain(|ready| ready != id);
            worker.attaching.retain(|attaching| attaching != id);
        }
        self.guest(id).is_failed = false;
    }

    fn owner(&self, id: &EniId) -> usize {
        self.placement.owner(id).expect("the ENI is there").0
    }

    /// Whether packets are on their way that older rules admitted.
    pub(crate) fn has_old_packets(&self) -> bool {
        self.rings.iter().flatten().flatten().any(|parcel| parcel.generation != self.generation)
    }

    /// Whether a turn would move nothing.
    pub(crate) fn is_idle(&self) -> bool {
        let has_frames = |id: &EniId| !self.guests[id].sent.is_empty() && !self.guests[id].is_failed;
        self.rings.iter().flatten().all(VecDeque::is_empty)
            && self.workers.iter().all(|worker| worker.attaching.is_empty() && !worker.ready.iter().any(has_frames))
    }

    /// A turn of one worker; how many packets it takes in.
    pub(crate) fn turn(&mut self, worker: usize, now_s: u64) -> usize {
        let crosses = self.workers[worker].crossed != self.generation;
        let mut packets = self.take_in(worker, now_s, if crosses { usize::MAX } else { 1 });
        let before = std::mem::take(&mut self.workers[worker].served);
        for id in self.workers[worker].ready.clone() {
            let guest = self.guest(&id);
            if guest.debt >= BURST_PACKETS && before.iter().any(|other| *other != id) {
                guest.debt -= BURST_PACKETS;
                continue;
            }
            let count = self.serve(&id);
            let debt = self.guest(&id).debt % BURST_PACKETS + self.refused * (REFUSED_COST - 1);
            self.guest(&id).debt = if count == BURST_PACKETS { debt } else { 0 };
            if count > 0 {
                self.workers[worker].served.push(id);
            }
            packets += count;
        }
        packets
    }

    /// What others have for a worker: some of the ports on its desk, and all that its rings hold. How many packets.
    fn take_in(&mut self, worker: usize, now_s: u64, ports_max: usize) -> usize {
        if now_s != self.now_s {
            self.now_s = now_s;
            for (id, serial) in self.oracle.expire(&self.desired.settings, now_s) {
                self.waiting.remove(&serial);
                self.drop(&id, Direction::Egress, DropReason::FragmentOrphaned.name());
            }
        }
        self.workers[worker].crossed = self.generation;
        for _ in 0..ports_max {
            let Some(id) = self.workers[worker].attaching.pop_front() else { break };
            self.workers[worker].ready.retain(|ready| *ready != id);
            self.workers[worker].ready.push(id.clone());
            let guest = self.guest(&id);
            (guest.is_failed, guest.debt) = (false, 0);
        }
        let mut packets = 0;
        for from in 0..self.workers.len() {
            for parcel in std::mem::take(&mut self.rings[from][worker]) {
                packets += 1;
                self.arrive(parcel);
            }
        }
        packets
    }

    /// Makes `workers` workers of those there are: what is on its way arrives first, then ENIs move.
    pub(crate) fn resize(&mut self, workers: usize, now_s: u64) {
        for worker in 0..self.workers.len() {
            self.take_in(worker, now_s, usize::MAX);
        }
        let mut moves = self.placement.moves_to(workers);
        moves.sort_by(|(one, _), (other, _)| one.cmp(other));
        let most = workers.max(self.workers.len());
        self.placement.resize(most);
        self.workers.resize(most, WorkerTwin::default());
        for (id, step) in moves {
            self.placement.set_owner(&id, step.to);
            self.workers[step.from].served.retain(|served| *served != id);
            let before = self.workers[step.from].ready.len();
            self.workers[step.from].ready.retain(|ready| *ready != id);
            if self.workers[step.from].ready.len() < before {
                self.workers[step.to].ready.push(id);
            }
        }
        self.placement.resize(workers);
        self.workers.truncate(workers);
        self.workers.iter_mut().for_each(|worker| worker.crossed = self.generation);
        self.rings = vec![vec![VecDeque::new(); workers]; workers];
    }

    /// One burst of a port.
    fn serve(&mut self, id: &EniId) -> usize {
        let guest = self.guest(id);
        guest.is_failed |= guest.is_cut;
        if guest.is_failed {
            let worker = self.owner(id);
            self.workers[worker].ready.retain(|ready| ready != id);
            return 0;
        }
        let count = guest.sent.len().min(BURST_PACKETS);
        let burst: Vec<Frame> = guest.sent.drain(..count).collect();
        // The last quarter of a ring is for ports that had less than a burst.
        let kept = if count == BURST_PACKETS { HANDOFF_PACKETS / 4 } else { 0 };
        self.ring_packets_max = HANDOFF_PACKETS - kept;
        self.refused = 0;
        let arrivals: Vec<Parcel> = burst.into_iter().filter_map(|frame| self.egress(id, frame, false)).collect();
        arrivals.into_iter().for_each(|parcel| self.arrive(parcel));
        let refused = self.refused;
        for (from, _, serial) in self.oracle.release() {
            let frame = self.waiting.remove(&serial).expect("it waited");
            if let Some(parcel) = self.egress(&from, frame, true) {
                self.arrive(parcel);
            }
        }
        self.refused = refused;
        count
    }

    /// Counts a packet that was evaluated, or not even that, and goes nowhere.
    fn refuse(&mut self, eni: &EniId, direction: Direction, name: &str) {
        self.refused += 1;
        self.drop(eni, direction, name);
    }

    /// A frame through its sender's egress; back if it goes to an ENI of the same worker.
    fn egress(&mut self, id: &EniId, frame: Frame, has_waited: bool) -> Option<Parcel> {
        let parcel = match self.admit(id, frame.clone()) {
            Ok(parcel) => parcel?,
            Err(reason) => {
                self.refuse(id, Direction::Egress, reason.name());
                return None;
            }
        };
        if !has_waited {
            let place = EvaluationPlace {
                desired: &self.desired,
                eni: id,
                direction: Direction::Egress,
                revision: 0,
                now_s: self.now_s,
            };
            match self.oracle.gather(place, &parcel.message, frame.serial) {
                Gathered::Pass => {}
                Gathered::Wait => return self.waiting.insert(frame.serial, frame).and(None),
                Gathered::Drop => {
                    self.refuse(id, Direction::Egress, REFUSED);
                    return None;
                }
            }
        }
        if !self.evaluate(id, Direction::Egress, &parcel.message) {
            self.refuse(id, Direction::Egress, REFUSED);
            return None;
        }
        let frame_bytes = self.frame_to(id, &parcel).len();
        self.count(id, Direction::Egress).pass(frame_bytes);
        let (here, there) = (self.owner(id), self.owner(&parcel.to));
        if here == there {
            return Some(parcel);
        }
        if self.rings[here][there].len() >= self.ring_packets_max {
            self.drop(id, Direction::Egress, DropReason::HandoffFull.name());
        } else {
            self.rings[here][there].push_back(parcel);
        }
        None
    }

    /// The steps before any rule is asked. None if the router answers.
    fn admit(&mut self, id: &EniId, frame: Frame) -> Result<Option<Parcel>, DropReason> {
        let eni = &self.desired.enis[id];
        let serial = frame.serial;
        let message = match frame.content {
            FrameContent::Broken(reason) => return Err(reason),
            FrameContent::Message(message) => message,
        };
        if frame.mac != eni.mac {
            return Err(DropReason::SourceMacSpoofed);
        }
        if eni.source_dest_check && !self.is_own(id, message.source) {
            return Err(DropReason::SourceAddressSpoofed);
        }
        if self.is_gateway(eni, message.destination) {
            let is_answered = match message.content {
                Content::Ping(_) | Content::Udp(..) | Content::FirstPart(..) | Content::Other(_) => true,
                Content::Tcp(.., flags) | Content::Blind(.., flags) => flags & TcpFlags::RST == 0,
                Content::Pong(_) | Content::Unreachable(_) | Content::LaterPart(_) => false,
            };
            return if is_answered { self.answer(id, serial) } else { Err(DropReason::GatewayUnserved) };
        }
        let Some(to) = self.next(eni, message.destination) else {
            let is_reported = !matches!(message.content, Content::Unreachable(_) | Content::LaterPart(_));
            return if is_reported { self.answer(id, serial) } else { Err(DropReason::NoRoute) };
        };
        if to == *id {
            return Err(DropReason::NoRoute);
        }
        let is_near =
            owns(&self.desired.enis[&to], message.destination) && self.desired.enis[&to].vswitch == eni.vswitch;
        let hop_limit = if is_near { 64 } else { 63 };
        let eni_generation = self.eni_generations[&to];
        Ok(Some(Parcel { serial, message, hop_limit, to, eni_generation, generation: self.generation }))
    }

    /// The router answers, or reports, as often as the ENI gets that.
    fn answer(&mut self, id: &EniId, serial: u32) -> Result<Option<Parcel>, DropReason> {
        let (now_s, (left, since_s)) =
            (self.now_s, self.answers.get(id).copied().unwrap_or((ANSWERS_PER_S, self.now_s)));
        let left = (left + (now_s - since_s) * ANSWERS_PER_S).min(ANSWERS_PER_S);
        self.answers.insert(id.clone(), (left.saturating_sub(1), now_s));
        if left == 0 {
            return Err(DropReason::AnswerRate);
        }
        self.count(id, Direction::Egress).answered += 1;
        self.hand_over(id, Arrival { serial, bytes: None });
        Ok(None)
    }

    /// Whether an address is the ENI's own where sources and destinations are checked.
    fn is_own(&self, id: &EniId, address: IpAddr) -> bool {
        let eni = &self.desired.enis[id];
        owns(eni, address) || eni.routed_as_own && self.next(eni, address).as_ref() == Some(id)
    }

    fn arrive(&mut self, parcel: Parcel) {
        let to = &parcel.to.clone();
        let Some(eni) = self.desired.enis.get(to).filter(|_| self.eni_generations[to] == parcel.eni_generation) else {
            // Counted at an ENI that is gone, and gone with it.
            *self.met.entry(DropReason::EniGone.name().into()).or_default() += 1;
            return;
        };
        if eni.source_dest_check && !self.is_own(to, parcel.message.destination) {
            return self.refuse(to, Direction::Ingress, DropReason::DestinationNotOwned.name());
        }
        if !self.evaluate(to, Direction::Ingress, &parcel.message) {
            return self.refuse(to, Direction::Ingress, REFUSED);
        }
        let bytes = self.frame_to(to, &parcel);
        self.count(to, Direction::Ingress).pass(bytes.len());
        self.hand_over(to, Arrival { serial: parcel.serial, bytes: Some(bytes) });
    }

    /// A frame to the port of an ENI.
    fn hand_over(&mut self, to: &EniId, arrival: Arrival) {
        let (has_port, frames_max) = (self.desired.enis[to].port.is_some(), self.frames_max);
        let is_attached = !self.workers[self.owner(to)].attaching.contains(to);
        let guest = self.guest(to);
        guest.is_failed |= guest.is_cut && has_port && is_attached;
        if !has_port || guest.is_failed {
            self.drop(to, Direction::Ingress, DropReason::PortDown.name());
        } else if guest.arrived.len() == frames_max {
            self.drop(to, Direction::Ingress, DropReason::PortFull.name());
        } else {
            guest.arrived.push_back(arrival);
            *self.met.entry("arrived".into()).or_default() += 1;
        }
    }

    fn evaluate(&mut self, eni: &EniId, direction: Direction, message: &Message) -> bool {
        let index = self.compiler.eni_index(eni).expect("it is there");
        let revision = self.compiler.snapshot().revision(index).expect("it is there");
        self.oracle
            .evaluate(EvaluationPlace { desired: &self.desired, eni, direction, revision, now_s: self.now_s }, message)
    }

    fn frame_to(&self, to: &EniId, parcel: &Parcel) -> Vec<u8> {
        let eni = &self.desired.enis[to];
        let gateway = self.desired.vpcs[self.network(eni)].gateway_mac;
        frame_of(parcel.message.packet().hop_limit(parcel.hop_limit), (gateway, eni.mac), parcel.serial)
    }

    fn count(&mut self, eni: &EniId, direction: Direction) -> &mut Count {
        &mut self.counts.get_mut(eni).expect("it is there")[usize::from(direction == Direction::Ingress)]
    }

    fn drop(&mut self, eni: &EniId, direction: Direction, name: &str) {
        *self.count(eni, direction).drops.entry(name.into()).or_default() += 1;
        *self.met.entry(name.into()).or_default() += 1;
    }

    fn network(&self, eni: &DesiredEni) -> &VpcId {
        &self.desired.vswitches[&eni.vswitch].vpc
    }

    fn is_gateway(&self, eni: &DesiredEni, address: IpAddr) -> bool {
        let is_one = |vswitch: &DesiredVswitch| {
            vswitch.ipv4_gateway.map(IpAddr::V4) == Some(address)
                || vswitch.ipv6_gateway.map(IpAddr::V6) == Some(address)
        };
        self.desired.vswitches.values().any(|vswitch| vswitch.vpc == *self.network(eni) && is_one(vswitch))
    }

    /// Where the VPC of `eni` sends what is for this address.
    fn next(&self, eni: &DesiredEni, destination: IpAddr) -> Option<EniId> {
        let vpc = self.network(eni);
        let mut enis = self.desired.enis.iter().filter(|(_, other)| self.network(other) == vpc);
        if let Some((owner, _)) = enis.find(|(_, other)| owns(other, destination)) {
            return Some(owner.clone());
        }
        let routes = self.desired.vpcs[vpc].routes.iter();
        let custom = routes.filter(|(prefix, _)| prefix.contains(&destination));
        custom.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, next)| next.clone())
    }
}

/// The packet's frame, with a serial number where its data ends.
pub(crate) fn frame_of(packet: Ip, (source, destination): (MacAddress, MacAddress), serial: u32) -> Vec<u8> {
    let mut frame = packet.frame(source, destination);
    let end = frame.len() - 4;
    frame[end..].copy_from_slice(&serial.to_be_bytes());
    frame
}

fn owns(eni: &DesiredEni, address: IpAddr) -> bool {
    eni.addresses.iter().any(|prefix: &IpNet| prefix.contains(&address))
}
