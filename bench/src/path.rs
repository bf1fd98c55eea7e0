//! The packet path in memory: packets of many flows pass egress at one ENI and ingress at another, and so are evaluated
//! twice, on one core. Preparing packets is not timed; parsing, evaluating, updating sessions, addressing, counting and
//! expiring sessions are.

use crate::baseline::Baseline;
use crate::chart::{self, Line};
use crate::fixture::{self, PAIRS};
use crate::flat_rules;
use crate::progress::Progress;
use crate::timing::{self, CHUNK_ITEMS, Chunks, Round};
use crate::traffic::frames::FlowStep;
use crate::traffic::mix::{FlowTransport, Mix};
use crate::traffic::{Burst, BurstKind, BurstTraffic, checksum};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use vswitch_core::compile::compile;
use vswitch_core::compile::snapshot::Snapshot;
use vswitch_core::config::desired::Direction;
use vswitch_core::config::ids::EniIndex;
use vswitch_core::config::limits::{BURST_PACKETS, SWEEP_RECORDS_PER_TURN};
use vswitch_core::datapath::shard::Shard;
use vswitch_core::hw::time::Time;
use vswitch_core::packet::verdict::Verdict;
use vswitch_core::packet::{FrameBuffer, Packet};

/// Options of `sluice bench path --flows 1000000 --rules 100 --size IMIX --new-share 0.05 --zipf 1`.
#[derive(Clone, Debug, Args)]
pub struct PathArguments {
    #[command(flatten)]
    mix: Mix,
    /// Rules of each ENI and direction.
    #[arg(long, default_value_t = 100)]
    rules: usize,
    /// Packets to measure, in millions.
    #[arg(long, default_value_t = 8.0)]
    millions: f64,
    /// Sessions that each ENI may hold. If it has more flows than that and sends first packets only, each session takes
    /// the place of another, as in a flood of SYNs.
    #[arg(long)]
    sessions_max: Option<u32>,
    /// Also measure a plain implementation, in alternation: a hash map of sessions, and rules one after another.
    #[arg(long)]
    beside_plain: bool,
    #[command(flatten)]
    show: crate::Show,
    /// Measure a round whenever a line is read, so that measurements can alternate with those of another program.
    #[arg(long, hide = true)]
    on_request: bool,
    /// Write the rules of a client's egress, without groups and lists, to this file.
    #[arg(long, hide = true)]
    export_rules: Option<PathBuf>,
}

impl PathArguments {
    pub(crate) const fn show(&self) -> &crate::Show {
        &self.show
    }
}

/// The result: ns per packet through both decisions.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PathReport {
    #[serde(flatten)]
    mix: Mix,
    rules: usize,
    packets: u64,
    /// How many of them the rules dropped, as planned. All others were delivered; otherwise the run is invalid.
    denied: u64,
    #[serde(flatten)]
    round: Round,
    millions_per_second: f64,
    bytes_per_flow: f64,
    /// The same work by the plain implementation, in the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    plain: Option<Round>,
}

impl crate::Report for PathReport {
    fn text(&self) -> String {
        let Round { quiet_ns, median_ns, p99_ns, p999_ns, max_ns, .. } = &self.round;
        let Mix { flows, size, new_share, denied_share, zipf, protocol, ipv6, .. } = &self.mix;
        let family = if *ipv6 { "IPv6" } else { "IPv4" };
        format!(
            "{protocol:?} over {family}, {flows} flows (Zipf {zipf}), frames of {size} bytes, {:.1} % open a flow, \
             {:.1} % are denied, {} rules a direction\n\
             {} packets, {} of them denied as planned, none lost\n\n\
             ns a packet, both decisions\n\
             quiet     median    p99       p99.9     max\n\
             {quiet_ns:<9.1} {median_ns:<9.1} {p99_ns:<9.1} {p999_ns:<9.1} {max_ns:.1}\n\n\
             {:.1} million packets/s when quiet; {:.0} bytes a connection of IPv4{}",
            new_share * 100.0,
            denied_share * 100.0,
            self.rules,
            self.packets,
            self.denied,
            self.millions_per_second,
            self.bytes_per_flow,
            self.plain.as_ref().map(|plain| beside(plain, *quiet_ns)).unwrap_or_default()
        )
    }

    fn svg(&self) -> String {
        let title = format!("The packet path: {} flows, {} rules", self.mix.flows, self.rules);
        let ours = ("chunks of 8,192 packets", &self.round);
        let rounds = std::iter::once(ours).chain(self.plain.iter().map(|plain| ("plain implementation", plain)));
        let lines: Vec<Line<'_>> = rounds.map(|(name, round)| Line { name, quantiles: &round.quantiles }).collect();
        chart::of_quantiles(&title, "ns a packet", &lines)
    }
}

fn beside(plain: &Round, quiet_ns: f64) -> String {
    format!(
        "\na plain implementation takes {:.1} ns when quiet: {:.2} of its time",
        plain.quiet_ns,
        quiet_ns / plain.quiet_ns
    )
}

/// Runs the measurement; returns `None` if rounds were reported one by one.
pub(crate) fn run(arguments: &PathArguments) -> Result<Option<PathReport>, String> {
    let mix = &arguments.mix;
    mix.check()?;
    if arguments.on_request && (mix.denied_share > 0.0 || !matches!(mix.new_share, 0.0 | 1.0)) {
        return Err("--on-request goes with packets of existing flows alone, or first packets alone".into());
    }
    let mut rig = PathRig::new(arguments)?;
    let items = timing::items(arguments.millions)?;
    rig.warm_up()?;
    let bytes_per_flow = rig.bytes_per_flow();
    if arguments.on_request {
        let about = serde_json::json!({ "frames": rig.first_frames(mix), "bytes_per_flow": bytes_per_flow });
        timing::on_request(&mut rig, items, &about)?;
        return Ok(None);
    }
    rig.denied = 0;
    let progress = &mut Progress::new("measuring", arguments.show.progress);
    let (round, plain) = if arguments.beside_plain {
        let mut plain = Baseline::new(mix, arguments.rules);
        plain.warm_up()?;
        let (round, plain) = timing::in_turn(&mut rig, &mut plain, items, progress)?;
        (round, Some(plain))
    } else {
        (timing::measure(&mut rig, items, progress)?, None)
    };
    Ok(Some(PathReport {
        mix: Mix { flows: rig.traffic.flows(), ..mix.clone() },
        rules: arguments.rules,
        packets: (items.div_ceil(CHUNK_ITEMS) * CHUNK_ITEMS) as u64,
        denied: rig.denied,
        millions_per_second: 1e3 / round.quiet_ns,
        round,
        bytes_per_flow,
        plain,
    }))
}

pub(crate) struct PathRig {
    snapshot: Snapshot,
    shard: Shard,
    /// By number.
    enis: Vec<EniIndex>,
    packets: Vec<Packet>,
    bursts: Vec<(EniIndex, Burst)>,
    traffic: BurstTraffic,
    kind: BurstKind,
    clock: VirtualClock,
    denied: u64,
    /// The number of IPv4 connections that the tables are made for.
    room: usize,
}

/// Virtual time, and how many sessions are checked for expiry as it passes.
struct VirtualClock {
    now: Time,
    burst_ns: u64,
    sweeps_per_burst: f64,
    sweeps_due: f64,
}

/// How often all sessions are checked within the time after which an opening one expires. Most expired sessions have
/// been replaced by then.
const SWEEPS_PER_TIMEOUT: f64 = 0.5;
/// The timeout of a handshake in the settings.
const TIMEOUT_NS: f64 = 30e9;

/// How many connections there are for each live one, if connections are only opened and never closed.
const WITH_OVER: f64 = 1.5;

/// The room in the table for each connection that exists at once.
const ROOM: f64 = 1.2;

/// How fast virtual time passes, and how many connections exist at once, including expired ones that have not been
/// removed.
fn pace(mix: &Mix, flows: usize, bursts: f64) -> (f64, f64) {
    let existing = flows as f64;
    let changing = (mix.new_share + mix.denied_share) * BURST_PACKETS as f64;
    if mix.new_share == 1.0 {
        // As many connections are opened as expire.
        (TIMEOUT_NS / (existing / BURST_PACKETS as f64), existing * WITH_OVER)
    } else if changing == 0.0 {
        (100.0, existing)
    } else if mix.protocol == FlowTransport::Tcp {
        // No existing connection expires in the meantime; opened ones are closed, and denied ones expire.
        let burst_ns = (600e9 / bursts).min(10e6);
        let lasting = (TIMEOUT_NS * 1.5 / (burst_ns * bursts)).min(1.0);
        (burst_ns, existing + changing * bursts * lasting)
    } else {
        (TIMEOUT_NS * 0.8 / bursts, existing + changing * bursts)
    }
}

impl PathRig {
    fn new(arguments: &PathArguments) -> Result<Self, String> {
        let mix = &arguments.mix;
        let mut desired = fixture::desired(arguments.rules, mix.seed);
        fixture::give_addresses(&mut desired, mix.addresses);
        if let Some(sessions_max) = arguments.sessions_max {
            desired.enis.values_mut().for_each(|eni| eni.sessions_max = sessions_max);
        }
        if let Some(file) = &arguments.export_rules {
            let text = flat_rules::rules(&desired, &fixture::eni_id(1), Direction::Egress, mix.ipv6);
            std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        let snapshot = compile(&desired, 1).map_err(|refusals| format!("{refusals:?}"))?;
        let bursts = timing::items(arguments.millions)? as f64 / BURST_PACKETS as f64;
        Ok(Self::in_world(snapshot, mix, bursts))
    }

    fn in_world(snapshot: Snapshot, mix: &Mix, bursts: f64) -> Self {
        let traffic = BurstTraffic::new(mix);
        let (burst_ns, connections) = pace(mix, traffic.flows(), bursts);
        let room = connections * ROOM + 1024.0;
        let records_per_burst = room * 4.0 / 3.0 * SWEEPS_PER_TIMEOUT * burst_ns / TIMEOUT_NS;
        let clock = VirtualClock {
            now: Time::from_ns(1_000_000_000),
            burst_ns: burst_ns as u64,
            sweeps_per_burst: records_per_burst / SWEEP_RECORDS_PER_TURN as f64,
            sweeps_due: 0.0,
        };
        let enis = (1..=PAIRS * 2).filter_map(|number| snapshot.eni_index(&fixture::eni_id(number))).collect();
        Self {
            snapshot,
            // The table for IPv6 has a quarter of the room.
            shard: Shard::new(
                room as usize * if mix.ipv6 { 4 } else { 1 },
                [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344],
            ),
            enis,
            packets: (0..CHUNK_ITEMS).map(|_| Packet::new(FrameBuffer::with_capacity(2048))).collect(),
            bursts: Vec::with_capacity(CHUNK_ITEMS / BURST_PACKETS),
            traffic,
            kind: if mix.new_share == 1.0 { BurstKind::First } else { BurstKind::Mixed },
            clock,
            denied: 0,
            room: room as usize * if mix.ipv6 { 4 } else { 1 },
        }
    }

    /// Establishes the state in which to measure.
    fn warm_up(&mut self) -> Result<(), String> {
        let kind = self.kind;
        let steps: &[BurstKind] = match kind {
            BurstKind::First => &[BurstKind::First],
            _ => &[FlowStep::Open, FlowStep::Answer, FlowStep::FromClient].map(BurstKind::InOrder),
        };
        let burst_ns = self.clock.burst_ns;
        if kind != BurstKind::First {
            self.clock.burst_ns = 0;
        }
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
        self.clock.burst_ns = burst_ns;
        if kind != BurstKind::First {
            self.traffic.restart();
        }
        Ok(())
    }

    /// The memory of one of the IPv4 connections that the tables are made for, including the sessions of both ENIs.
    fn bytes_per_flow(&self) -> f64 {
        self.shard.memory_bytes()[0] as f64 / self.room as f64
    }

    /// The checksum of the first frames of such traffic, whatever has been sent in the meantime.
    fn first_frames(&mut self, mix: &Mix) -> String {
        let mut traffic = BurstTraffic::new(mix);
        for burst in self.packets.chunks_mut(BURST_PACKETS) {
            traffic.write(burst, self.kind);
        }
        format!("{:016x}", checksum(self.packets.iter().map(|packet| packet.buffer.frame())))
    }
}

impl Chunks for PathRig {
    fn prepare(&mut self) {
        self.bursts.clear();
        for packets in self.packets.chunks_mut(BURST_PACKETS) {
            let burst = self.traffic.write(packets, self.kind);
            self.denied += u64::from(burst.denied.count_ones());
            self.bursts.push((self.enis[usize::from(burst.eni) - 1], burst));
        }
    }

    fn work(&mut self) {
        let clock = &mut self.clock;
        for (packets, (eni, _)) in self.packets.chunks_mut(BURST_PACKETS).zip(&self.bursts) {
            self.shard.forward((&self.snapshot, clock.now), *eni, packets, |_: EniIndex| true);
            clock.now = clock.now + clock.burst_ns;
            clock.sweeps_due += clock.sweeps_per_burst;
            while clock.sweeps_due >= 1.0 {
                clock.sweeps_due -= 1.0;
                self.shard.sweep(&self.snapshot, clock.now, SWEEP_RECORDS_PER_TURN);
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        for (packets, (_, burst)) in self.packets.chunks(BURST_PACKETS).zip(&self.bursts) {
            for (position, packet) in packets.iter().enumerate() {
                let is_to_be_denied = burst.denied >> position & 1 == 1;
                let is_as_planned = match packet.verdict {
                    Verdict::Deliver => !is_to_be_denied,
                    Verdict::Drop(reason) => is_to_be_denied && reason.name() == "default-drop",
                    _ => false,
                };
                if !is_as_planned {
                    return Err(format!(
                        "a packet ended in {:?} against the plan: nothing was measured",
                        packet.verdict
                    ));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "path_tests.rs"]
mod tests;
