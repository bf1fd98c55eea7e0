//! The packet path in memory: packets of many flows through egress at one ENI and ingress at another, judged twice, on
//! one core. Preparing packets is not in the time; reading, judging, remembering, addressing, counting and ending what
//! is over are.

use crate::flat;
use crate::frames::{FRAME_BYTES_MIN, Shape, Step};
use crate::rounds::{self, CHUNK_ITEMS, Chunks, Round};
use crate::traffic::{Kind, Traffic, checksum};
use crate::world::{self, PAIRS};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::path::PathBuf;
use vswitch_core::compile::compile;
use vswitch_core::desired::Direction;
use vswitch_core::eni::Shard;
use vswitch_core::ids::EniIndex;
use vswitch_core::limits::{BURST_PACKETS, SWEEP_RECORDS_PER_TURN};
use vswitch_core::packet::{FrameBuffer, Packet};
use vswitch_core::snapshot::Snapshot;
use vswitch_core::time::Time;
use vswitch_core::verdict::Verdict;

/// What to measure: `sluice bench path --flows 1000000 --rules 100`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// How many flows the packets belong to.
    #[arg(long, default_value_t = 8192)]
    pub flows: usize,
    /// Rules of each ENI and direction.
    #[arg(long, default_value_t = 100)]
    pub rules: usize,
    /// What the packets are.
    #[arg(long, value_enum, default_value_t = Work::Established)]
    pub work: Work,
    /// IPv6 instead of IPv4.
    #[arg(long)]
    pub ipv6: bool,
    /// Packets to measure, in millions.
    #[arg(long, default_value_t = 8)]
    pub millions: usize,
    /// The seed of the world and of the order of flows.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Measure a round whenever a line comes in, for comparisons in turn.
    #[arg(long, hide = true)]
    pub on_request: bool,
    /// Write the rules of a client's egress, without groups and lists, to this file.
    #[arg(long, hide = true)]
    pub export_rules: Option<PathBuf>,
}

/// Kinds of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Packets of sessions that exist, from both ends.
    Established,
    /// First packets: judged by rules twice, and remembered; as many sessions end meanwhile.
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
    #[serde(flatten)]
    round: Round,
    millions_per_second: f64,
    bytes_per_flow: f64,
}

impl Report {
    /// As JSON.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// For people.
    pub fn text(&self) -> String {
        let family = if self.ipv6 { "IPv6" } else { "IPv4" };
        let Round { quiet_ns, median_ns, p99_ns } = self.round;
        format!(
            "{:?} {family}, {} flows, {} rules a direction: {quiet_ns:.1} ns a packet for both judgements when quiet \
             (median {median_ns:.1}, p99 of chunks {p99_ns:.1}), {:.1} million packets/s, {:.0} bytes a flow",
            self.work, self.flows, self.rules, self.millions_per_second, self.bytes_per_flow
        )
    }
}

/// Measures; none if the rounds were reported one by one.
///
/// # Errors
/// If the switch does not forward what it should: then the time would mean nothing.
pub fn run(arguments: &Arguments) -> Result<Option<Report>, String> {
    let mut rig = Rig::new(arguments)?;
    let items = arguments.millions * 1_000_000;
    let bytes_per_flow = rig.warm_up()?;
    if arguments.on_request {
        let about = serde_json::json!({ "frames": rig.first_frames(arguments), "bytes_per_flow": bytes_per_flow });
        rounds::on_request(&mut rig, items, &about)?;
        return Ok(None);
    }
    let round = rounds::measure(&mut rig, items)?;
    Ok(Some(Report {
        work: arguments.work,
        ipv6: arguments.ipv6,
        flows: rig.traffic.flows(),
        rules: arguments.rules,
        packets: (items.div_ceil(CHUNK_ITEMS) * CHUNK_ITEMS) as u64,
        millions_per_second: 1e3 / round.quiet_ns,
        round,
        bytes_per_flow,
    }))
}

struct Rig {
    snapshot: Snapshot,
    shard: Shard,
    /// By number.
    enis: Vec<EniIndex>,
    packets: Vec<Packet>,
    /// The ENI that sends each burst.
    senders: Vec<EniIndex>,
    traffic: Traffic,
    kind: Kind,
    clock: Clock,
    resident_empty_bytes: u64,
}

/// Virtual time, and how much of the sessions is looked at for expiry in it.
struct Clock {
    now: Time,
    burst_ns: u64,
    sweeps_per_burst: f64,
    sweeps_due: f64,
}

/// How many times all sessions are looked at within the time after which one that opens is over.
const SWEEPS_PER_TIMEOUT: f64 = 2.0;
/// Sessions that there is room for, for each that is alive: some are over and not swept yet.
const ROOM_FOR_FIRST: f64 = 2.0;
const ROOM_FOR_ESTABLISHED: f64 = 4.0 / 3.0;

impl Rig {
    fn new(arguments: &Arguments) -> Result<Self, String> {
        let desired = world::desired(arguments.rules, arguments.seed);
        if let Some(file) = &arguments.export_rules {
            let text = flat::rules(&desired, &world::eni_id(1), Direction::Egress, arguments.ipv6);
            std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        let snapshot = compile(&desired, 1).map_err(|refusals| format!("{refusals:?}"))?;
        let shape = Shape { is_v6: arguments.ipv6, is_tcp: true };
        let traffic = Traffic::new(shape, FRAME_BYTES_MIN, arguments.flows, arguments.seed);
        // Each connection is a session at either ENI. IPv6 has a quarter of the room.
        let sessions = traffic.flows() as f64 * 2.0 * if arguments.ipv6 { 4.0 } else { 1.0 };
        let (kind, room) = match arguments.work {
            Work::Established => (Kind::Established, sessions * ROOM_FOR_ESTABLISHED),
            Work::First => (Kind::First, sessions * ROOM_FOR_FIRST),
        };
        let timeout_ns = u64::from(desired.settings.tcp_half_open_timeout_s) * 1_000_000_000;
        let bursts_per_timeout = traffic.flows() as f64 / BURST_PACKETS as f64;
        let clock = Clock {
            now: Time::from_ns(1_000_000_000),
            burst_ns: if kind == Kind::First { (timeout_ns as f64 / bursts_per_timeout) as u64 } else { 100 },
            sweeps_per_burst: if kind == Kind::First {
                let records = room / if arguments.ipv6 { 3.0 } else { 0.75 };
                records / SWEEP_RECORDS_PER_TURN as f64 * SWEEPS_PER_TIMEOUT / bursts_per_timeout
            } else {
                0.0
            },
            sweeps_due: 0.0,
        };
        let resident_empty_bytes = rounds::resident_bytes();
        let enis = (1..=PAIRS * 2).filter_map(|number| snapshot.eni_index(&world::eni_id(number))).collect();
        Ok(Self {
            snapshot,
            shard: Shard::new(room as usize, [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344]),
            enis,
            packets: (0..CHUNK_ITEMS).map(|_| Packet::new(FrameBuffer::with_capacity(2048))).collect(),
            senders: Vec::with_capacity(CHUNK_ITEMS / BURST_PACKETS),
            traffic,
            kind,
            clock,
            resident_empty_bytes,
        })
    }

    /// Brings about the state that is measured in; returns the bytes that a connection takes, all sessions counted.
    fn warm_up(&mut self) -> Result<f64, String> {
        let kind = self.kind;
        let steps: &[Kind] = match kind {
            Kind::First => &[Kind::First],
            _ => &[Step::Open, Step::Answer, Step::FromClient].map(Kind::InOrder),
        };
        for step in steps {
            self.kind = *step;
            self.traffic.restart();
            for _ in 0..self.traffic.flows().div_ceil(CHUNK_ITEMS) {
                self.prepare();
                self.work();
                self.check()?;
            }
        }
        self.kind = kind;
        if kind != Kind::First {
            self.traffic.restart();
        }
        let frames_bytes = (CHUNK_ITEMS * FRAME_BYTES_MIN.next_multiple_of(4096)) as u64;
        let taken_bytes = rounds::resident_bytes().saturating_sub(self.resident_empty_bytes + frames_bytes);
        Ok(taken_bytes as f64 / self.traffic.flows() as f64)
    }

    /// The checksum of the first frames of this traffic, whatever was sent meanwhile.
    fn first_frames(&mut self, arguments: &Arguments) -> String {
        let mut traffic = Traffic::new(self.traffic.shape, FRAME_BYTES_MIN, arguments.flows, arguments.seed);
        for burst in self.packets.chunks_mut(BURST_PACKETS) {
            traffic.write(burst, self.kind);
        }
        format!("{:016x}", checksum(self.packets.iter().map(|packet| packet.buffer.frame())))
    }

    fn forward(&mut self) {
        let clock = &mut self.clock;
        for (burst, sender) in self.packets.chunks_mut(BURST_PACKETS).zip(&self.senders) {
            self.shard.forward((&self.snapshot, clock.now), *sender, burst, |_| true);
            clock.now = clock.now + clock.burst_ns;
            clock.sweeps_due += clock.sweeps_per_burst;
            while clock.sweeps_due >= 1.0 {
                clock.sweeps_due -= 1.0;
                self.shard.sweep(&self.snapshot, clock.now);
            }
        }
    }
}

impl Chunks for Rig {
    fn prepare(&mut self) {
        self.senders.clear();
        for burst in self.packets.chunks_mut(BURST_PACKETS) {
            let sender = self.traffic.write(burst, self.kind);
            self.senders.push(self.enis[usize::from(sender) - 1]);
        }
    }

    // A function of its own, so that profiles and instruction counts can name it.
    #[inline(never)]
    fn work(&mut self) {
        self.forward();
    }

    fn check(&self) -> Result<(), String> {
        match self.packets.iter().find(|packet| packet.verdict != Verdict::Deliver) {
            Some(packet) => Err(format!("a packet ended in {:?}, so nothing was measured", packet.verdict)),
            None => Ok(()),
        }
    }
}
