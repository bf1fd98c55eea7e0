//! The packet path in memory: packets of many flows through egress at one ENI and ingress at another, judged twice, on
//! one core. Preparing packets is not in the time; reading, judging, remembering, addressing and counting are.

use crate::world::{self, ADMITTED_PORT, PAIRS, Random};
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::net::IpAddr;
use std::time::Instant;
use vswitch_core::compile::compile;
use vswitch_core::eni::Shard;
use vswitch_core::ids::EniIndex;
use vswitch_core::limits::BURST_PACKETS;
use vswitch_core::packet::{FrameBuffer, Packet};
use vswitch_core::snapshot::Snapshot;
use vswitch_core::time::Time;
use vswitch_core::verdict::Verdict;

/// What to measure: `sluice bench path --flows 1000000 --rules 100`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// How many flows the packets belong to.
    #[arg(long, default_value_t = 8192)]
    flows: usize,
    /// Rules of each ENI and direction.
    #[arg(long, default_value_t = 100)]
    rules: usize,
    /// What the packets are.
    #[arg(long, value_enum, default_value_t = Work::Established)]
    work: Work,
    /// IPv6 instead of IPv4.
    #[arg(long)]
    ipv6: bool,
    /// Packets to measure, in millions.
    #[arg(long, default_value_t = 8)]
    millions: usize,
    /// The seed of the world and of the order of flows.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Kinds of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Packets of sessions that exist.
    Established,
    /// First packets: judged by rules twice, and remembered.
    First,
}

/// What was measured: ns of one packet through both judgements.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    work: Work,
    ipv6: bool,
    flows: usize,
    rules: usize,
    packets: u64,
    /// The lowest tenth of the chunks: what the machine does when nothing else runs on it.
    quiet_ns: f64,
    median_ns: f64,
    p99_ns: f64,
    millions_per_second: f64,
}

impl Report {
    /// As JSON.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// For people.
    pub fn text(&self) -> String {
        let family = if self.ipv6 { "IPv6" } else { "IPv4" };
        format!(
            "{:?} {family}, {} flows, {} rules a direction: {:.1} ns a packet for both judgements when quiet \
             (median {:.1}, p99 of chunks {:.1}), {:.1} million packets/s",
            self.work, self.flows, self.rules, self.quiet_ns, self.median_ns, self.p99_ns, self.millions_per_second
        )
    }
}

/// Packets timed together: long enough for the clock, short enough to tell quiet moments from others.
const CHUNK_PACKETS: usize = 8192;
const FRAME_BYTES: usize = 64;

/// Measures.
///
/// # Errors
/// If the switch does not forward what it should: then the time would mean nothing.
pub fn run(arguments: &Arguments) -> Result<Report, String> {
    let mut rig = Rig::new(arguments)?;
    let chunks = (arguments.millions * 1_000_000).div_ceil(CHUNK_PACKETS).max(1);
    if arguments.work == Work::Established {
        rig.open_all(arguments.flows)?;
    }
    let mut histogram: Histogram<u64> =
        Histogram::new_with_bounds(1, 1_000_000_000, 3).map_err(|error| error.to_string())?;
    for _ in 0..chunks {
        rig.prepare(arguments.work);
        let started = Instant::now();
        measured(&mut rig);
        let spent_ns = started.elapsed().as_nanos() as u64;
        histogram.saturating_record(spent_ns * 100 / CHUNK_PACKETS as u64);
        rig.check()?;
        rig.expire(arguments.work);
    }
    let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 100.0;
    Ok(Report {
        work: arguments.work,
        ipv6: arguments.ipv6,
        flows: arguments.flows,
        rules: arguments.rules,
        packets: (chunks * CHUNK_PACKETS) as u64,
        quiet_ns: at(0.1),
        median_ns: at(0.5),
        p99_ns: at(0.99),
        millions_per_second: 1e3 / at(0.1),
    })
}

/// What is timed. A function of its own, so that profiles and instruction counts can name it.
#[inline(never)]
fn measured(rig: &mut Rig) {
    rig.forward();
}

struct Rig {
    snapshot: Snapshot,
    shard: Shard,
    enis: Vec<EniIndex>,
    packets: Vec<Packet>,
    random: Random,
    now: Time,
    flows: usize,
    is_v6: bool,
    /// Next flow that was never seen.
    fresh: usize,
}

/// One flow: who sends to whom, from which port.
#[derive(Clone, Copy)]
struct Flow {
    from: u16,
    to: u16,
    source_port: u16,
}

impl Flow {
    /// The flow with this number: spread over the pairs of ENIs, then over ports, then over other peers.
    fn numbered(number: usize) -> Self {
        const PORTS: usize = 60_000;
        let (pair, turn) = (number % PAIRS as usize, number / PAIRS as usize);
        let peer = (turn / PORTS + pair) % PAIRS as usize;
        Self { from: pair as u16 * 2 + 1, to: peer as u16 * 2 + 2, source_port: 1024 + (turn % PORTS) as u16 }
    }
}

impl Rig {
    fn new(arguments: &Arguments) -> Result<Self, String> {
        let desired = world::desired(arguments.rules, arguments.seed);
        let snapshot = compile(&desired, 1, None).map_err(|refusals| format!("{refusals:?}"))?;
        let room = arguments.flows * 2 * if arguments.ipv6 { 4 } else { 1 };
        let enis = (1..=PAIRS * 2).filter_map(|number| snapshot.eni_index(&world::eni_id(number))).collect();
        Ok(Self {
            snapshot,
            shard: Shard::new(room * 4 / 3, [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344]),
            enis,
            packets: (0..CHUNK_PACKETS).map(|_| Packet::new(FrameBuffer::with_capacity(2048))).collect(),
            random: Random::new(arguments.seed ^ 0xabcd),
            now: Time::from_ns(1_000_000_000),
            flows: arguments.flows,
            is_v6: arguments.ipv6,
            fresh: 0,
        })
    }

    /// Opens every flow.
    fn open_all(&mut self, flows: usize) -> Result<(), String> {
        for start in (0..flows).step_by(CHUNK_PACKETS) {
            for (position, packet) in self.packets.iter_mut().enumerate() {
                write(packet, Flow::numbered((start + position) % flows), self.is_v6);
            }
            self.forward();
            self.check()?;
        }
        Ok(())
    }

    fn prepare(&mut self, work: Work) {
        for position in 0..self.packets.len() {
            let number = match work {
                Work::Established => self.random.below(self.flows as u64) as usize,
                Work::First => {
                    self.fresh += 1;
                    self.fresh % self.flows
                }
            };
            write(&mut self.packets[position], Flow::numbered(number), self.is_v6);
        }
        // A port hands over packets of one ENI at a time.
        self.packets.sort_by_key(|packet| packet.buffer.frame()[11]);
    }

    fn forward(&mut self) {
        let mut rest = self.packets.as_mut_slice();
        while !rest.is_empty() {
            let from = rest[0].buffer.frame()[11];
            let same = rest.iter().take(BURST_PACKETS).take_while(|packet| packet.buffer.frame()[11] == from).count();
            let (burst, others) = rest.split_at_mut(same);
            self.shard.egress(&self.snapshot, self.enis[from as usize - 1], burst, self.now);
            self.shard.ingress(&self.snapshot, burst, self.now);
            rest = others;
        }
    }

    fn check(&self) -> Result<(), String> {
        match self.packets.iter().find(|packet| packet.verdict != Verdict::Deliver) {
            Some(packet) => Err(format!("a packet ended in {:?}, so nothing was measured", packet.verdict)),
            None => Ok(()),
        }
    }

    /// First packets need room: what was opened a round of flows ago is over.
    fn expire(&mut self, work: Work) {
        self.now = self.now + 1_000_000;
        if work == Work::First && self.fresh + CHUNK_PACKETS >= self.flows {
            self.fresh = 0;
            self.now = self.now + 200_000_000_000;
            for _ in 0..self.shard.flows_max().div_ceil(128) {
                self.shard.sweep(&self.snapshot, self.now);
            }
        }
    }
}

/// Writes the frame of a flow's packet.
fn write(packet: &mut Packet, flow: Flow, is_v6: bool) {
    let mut frame = [0; 14 + 40 + 8 + 2];
    frame[..6].copy_from_slice(&[0xee, 0xff, 0xff, 0xff, 0xff, 0xff]);
    frame[6..12].copy_from_slice(&world::mac(flow.from).0);
    let ends = (world::address(flow.from, is_v6), world::address(flow.to, is_v6));
    let transport_at = match ends {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total_bytes = (FRAME_BYTES - 14) as u8;
            frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, total_bytes, 0, 0, 0x40, 0, 64, 17]);
            frame[26..30].copy_from_slice(&source.octets());
            frame[30..34].copy_from_slice(&destination.octets());
            34
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame[12..22].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 10, 17, 64]);
            frame[22..38].copy_from_slice(&source.octets());
            frame[38..54].copy_from_slice(&destination.octets());
            54
        }
        _ => return,
    };
    let length = (FRAME_BYTES - transport_at) as u8;
    frame[transport_at..transport_at + 2].copy_from_slice(&flow.source_port.to_be_bytes());
    frame[transport_at + 2..transport_at + 4].copy_from_slice(&ADMITTED_PORT.to_be_bytes());
    frame[transport_at + 5] = length;
    packet.buffer.fill(&frame);
}
