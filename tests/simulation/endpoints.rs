//! Two ends as RFC 9293 has them, which crash, come back between the same ports and lose segments, through a switch that
//! checks windows or does not: whatever happened before, a connection can be made, and carries data both ways.

use harness::frame::{Ip, TcpFlags, TcpSegment};
use harness::random::Random;
use harness::world::{Build, Fate, Refine, World, accept_in};
use std::collections::VecDeque;
use vswitch_core::config::desired::Desired;

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const FIN: u8 = TcpFlags::FIN;
const RST: u8 = TcpFlags::RST;
/// What a receiver without scaling takes.
const WINDOW: u32 = 65_535;

#[derive(Clone, Copy, Debug, PartialEq)]
enum EndpointState {
    Closed,
    Listen,
    SynSent,
    SynReceived,
    Established,
    /// It sent its FIN, or got one; both are half closed to it.
    Closing,
}

/// One end of a connection (RFC 9293 §3.3.1): what it sends next, and what it expects.
#[derive(Clone, Debug)]
struct ConnectionEnd {
    is_client: bool,
    state: EndpointState,
    send_first: u32,
    send_next: u32,
    receive_next: u32,
}

#[derive(Clone, Copy, Debug)]
struct SentSegment {
    flags: u8,
    sequence: u32,
    acknowledgment: u32,
    length: u32,
}

impl ConnectionEnd {
    fn new(is_client: bool) -> Self {
        let state = if is_client { EndpointState::Closed } else { EndpointState::Listen };
        Self { is_client, state, send_first: 0, send_next: 0, receive_next: 0 }
    }

    fn say(&self, flags: u8) -> SentSegment {
        SentSegment { flags, sequence: self.send_next, acknowledgment: self.receive_next, length: 0 }
    }

    fn connect(&mut self, random: &mut Random) -> SentSegment {
        (self.state, self.send_first) = (EndpointState::SynSent, random.below(1 << 32) as u32);
        self.send_next = self.send_first.wrapping_add(1);
        self.repeat_syn()
    }

    fn repeat_syn(&self) -> SentSegment {
        SentSegment { flags: SYN, sequence: self.send_first, acknowledgment: 0, length: 0 }
    }

    fn send(&mut self, length: u32) -> SentSegment {
        let sent = SentSegment { length, ..self.say(ACK) };
        self.send_next = self.send_next.wrapping_add(length);
        sent
    }

    fn close(&mut self) -> SentSegment {
        let sent = self.say(FIN | ACK);
        (self.state, self.send_next) = (EndpointState::Closing, self.send_next.wrapping_add(1));
        sent
    }

    /// RFC 9293 §3.10.7: what it makes of a segment, and what it answers.
    fn hear(&mut self, sent: SentSegment, random: &mut Random) -> Option<SentSegment> {
        let has = |flag: u8| sent.flags & flag != 0;
        let reset = if has(ACK) {
            SentSegment { flags: RST, sequence: sent.acknowledgment, acknowledgment: 0, length: 0 }
        } else {
            let acknowledgment = sent.sequence.wrapping_add(sent.length + u32::from(has(SYN)));
            SentSegment { flags: RST | ACK, sequence: 0, acknowledgment, length: 0 }
        };
        match self.state {
            EndpointState::Closed => (!has(RST)).then_some(reset),
            EndpointState::Listen if has(RST) => None,
            EndpointState::Listen if has(ACK) => Some(reset),
            EndpointState::Listen if has(SYN) => {
                self.send_first = random.below(1 << 32) as u32;
                (self.state, self.send_next) = (EndpointState::SynReceived, self.send_first.wrapping_add(1));
                self.receive_next = sent.sequence.wrapping_add(1);
                Some(SentSegment { sequence: self.send_first, ..self.say(SYN | ACK) })
            }
            EndpointState::Listen => None,
            EndpointState::SynSent => self.hear_in_syn_sent(sent, reset),
            _ => self.hear_synchronized(sent, reset),
        }
    }

    fn hear_in_syn_sent(&mut self, sent: SentSegment, reset: SentSegment) -> Option<SentSegment> {
        let has = |flag: u8| sent.flags & flag != 0;
        let is_acceptable = has(ACK) && sent.acknowledgment == self.send_next;
        if has(ACK) && !is_acceptable {
            return (!has(RST)).then_some(reset);
        }
        if has(RST) {
            if is_acceptable {
                self.state = EndpointState::Closed;
            }
            return None;
        }
        if !has(SYN) {
            return None;
        }
        self.receive_next = sent.sequence.wrapping_add(1);
        self.state = if is_acceptable { EndpointState::Established } else { EndpointState::SynReceived };
        Some(if is_acceptable {
            self.say(ACK)
        } else {
            SentSegment { sequence: self.send_first, ..self.say(SYN | ACK) }
        })
    }

    fn hear_synchronized(&mut self, sent: SentSegment, reset: SentSegment) -> Option<SentSegment> {
        let has = |flag: u8| sent.flags & flag != 0;
        let is_inside = sent.sequence.wrapping_sub(self.receive_next) <= WINDOW;
        if has(RST) {
            // RFC 5961 §3.2: at the very edge it counts, elsewhere it is asked for again.
            if sent.sequence == self.receive_next {
                self.state = if self.is_client { EndpointState::Closed } else { EndpointState::Listen };
                return None;
            }
            return is_inside.then(|| self.say(ACK));
        }
        if !is_inside
            && has(SYN)
            && self.state == EndpointState::SynReceived
            && sent.sequence.wrapping_add(1) == self.receive_next
        {
            return Some(SentSegment { sequence: self.send_first, ..self.say(SYN | ACK) });
        }
        if !is_inside || has(SYN) {
            return Some(self.say(ACK));
        }
        if !has(ACK) {
            return None;
        }
        if self.state == EndpointState::SynReceived {
            if sent.acknowledgment != self.send_next {
                return Some(reset);
            }
            self.state = EndpointState::Established;
        }
        if sent.sequence != self.receive_next {
            return Some(self.say(ACK));
        }
        self.receive_next = self.receive_next.wrapping_add(sent.length + u32::from(has(FIN)));
        if has(FIN) {
            self.state = EndpointState::Closing;
        }
        (sent.length > 0 || has(FIN)).then(|| self.say(ACK))
    }
}

struct EndpointPair {
    world: World,
    ends: [ConnectionEnd; 2],
    random: Random,
    log: Vec<String>,
}

fn world(random: &mut Random) -> World {
    let mut desired = Desired::default()
        .vpc("vpc-1")
        .vswitch("vsw-1", "vpc-1", "10.0.0.0/24", "fd00::/64")
        .closed_group("sg-server", "vpc-1", &[accept_in("all", "0.0.0.0/0").tcp(80)])
        .closed_group("sg-client", "vpc-1", &[])
        .eni("server", "vsw-1", &["10.0.0.10"], &["sg-server"])
        .eni("client", "vsw-1", &["10.0.0.20"], &["sg-client"]);
    for eni in desired.enis.values_mut() {
        eni.tracking.tcp_window_check = random.chance(70);
    }
    World::with_shards(desired, 1 + random.below(2), 64)
}

impl EndpointPair {
    /// Whether a segment of one end gets through.
    fn carry(&mut self, from: usize, sent: SentSegment) -> bool {
        let SentSegment { flags, sequence, acknowledgment, length } = sent;
        let (guest, ends, ports) = match from {
            0 => ("client", ("10.0.0.20", "10.0.0.10"), (40_000, 80)),
            _ => ("server", ("10.0.0.10", "10.0.0.20"), (80, 40_000)),
        };
        let segment = TcpSegment { sequence, acknowledgment, length: length as usize, ..TcpSegment::new(ports, flags) };
        let fate = self.world.send(guest, &Ip::new(ends.0, ends.1).segment(&segment));
        self.log.push(format!("{guest} {sent:?}: {fate:?}, {:?}", [self.ends[0].state, self.ends[1].state]));
        matches!(fate, Fate::Delivered(_))
    }

    /// A segment and all that follows from it, of which some may be lost.
    fn exchange(&mut self, from: usize, sent: SentSegment, lost_percent: usize) {
        let mut under_way = VecDeque::from([(from, sent)]);
        for _ in 0..40 {
            let Some((from, sent)) = under_way.pop_front() else { return };
            if self.random.chance(lost_percent) || !self.carry(from, sent) {
                continue;
            }
            if let Some(answer) = self.ends[1 - from].hear(sent, &mut self.random) {
                under_way.push_back((1 - from, answer));
            }
        }
    }

    /// Something happens.
    fn live(&mut self) {
        let who = self.random.below(2);
        match self.random.below(12) {
            0..=2 => {
                let syn = self.ends[0].connect(&mut self.random);
                self.exchange(0, syn, 25);
            }
            3 => {
                self.log.push(format!("end {who} crashes"));
                self.ends[who] = ConnectionEnd::new(who == 0);
            }
            4 => self.world.wait_s([1, 3, 31, 200, 911][self.random.below(5)]),
            5 if self.ends[who].state == EndpointState::Established => {
                let fin = self.ends[who].close();
                self.exchange(who, fin, 25);
            }
            6 if self.ends[0].state == EndpointState::SynSent => {
                let syn = self.ends[0].repeat_syn();
                self.exchange(0, syn, 25);
            }
            _ if self.ends[who].state == EndpointState::Established => {
                let length = 1 + self.random.below(1400) as u32;
                let data = self.ends[who].send(length);
                self.exchange(who, data, 25);
            }
            _ => {}
        }
    }

    /// A client that tries for as long as kernels do gets its connection, and data goes both ways.
    fn connects(&mut self) -> bool {
        self.log.push("from here on nothing is lost".into());
        let syn = self.ends[0].connect(&mut self.random);
        self.exchange(0, syn, 0);
        for _ in 0..6 {
            match self.ends[0].state {
                EndpointState::SynSent => {
                    let syn = self.ends[0].repeat_syn();
                    self.exchange(0, syn, 0);
                }
                EndpointState::Closed => {
                    let syn = self.ends[0].connect(&mut self.random);
                    self.exchange(0, syn, 0);
                }
                _ => break,
            }
        }
        let is_up = self.ends.iter().all(|end| end.state == EndpointState::Established);
        is_up
            && [0, 1, 1, 0].into_iter().all(|from| {
                let data = self.ends[from].send(1000);
                let before = self.ends[1 - from].receive_next;
                self.exchange(from, data, 0);
                self.ends[1 - from].receive_next == before.wrapping_add(1000)
            })
    }
}

#[test]
fn a_connection_can_be_made_whatever_became_of_those_before() {
    crate::for_each_seed(|seed| {
        let mut random = Random::new(seed);
        let world = world(&mut random);
        let mut pair = EndpointPair {
            world,
            ends: [ConnectionEnd::new(true), ConnectionEnd::new(false)],
            random,
            log: Vec::new(),
        };
        for _ in 0..3 {
            for _ in 0..pair.random.below(30) {
                pair.live();
            }
            // A server that is still in an old connection does not listen between the same ports.
            assert!(pair.connects(), "seed {seed}:\n{}", pair.log.join("\n"));
        }
    });
}
