//! The classifier alone: packets of no session at one ENI whose rules have the shape that groups give them.

use crate::chart::{self, Line};
use crate::flat;
use crate::group_world;
use crate::progress::Progress;
use crate::rounds::{self, CHUNK_ITEMS, Chunks, Round};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;
use vswitch_core::compile::compile;
use vswitch_core::desired::Direction;
use vswitch_core::headers::{Addresses, Tuple};
use vswitch_core::ids::EniIndex;
use vswitch_core::limits::BURST_PACKETS;
use vswitch_core::snapshot::Snapshot;
use vswitch_core::verdict::Judgement;

/// What to measure: `sluice bench classify --rules 1000`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Ingress rules of the ENI: by group, list and prefix, with ports and without.
    #[arg(long, default_value_t = 1000)]
    rules: usize,
    /// IPv6 instead of IPv4.
    #[arg(long)]
    ipv6: bool,
    /// Packets to classify, in millions.
    #[arg(long, default_value_t = 8.0)]
    millions: f64,
    /// The seed of rules and packets.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    show: crate::Show,
    /// Measure a round whenever a line comes in, for comparisons in turn.
    #[arg(long, hide = true)]
    on_request: bool,
    /// Write the rules, without groups and lists, to this file.
    #[arg(long, hide = true)]
    export_rules: Option<PathBuf>,
    /// Write what is classified to this file.
    #[arg(long, hide = true)]
    export_probes: Option<PathBuf>,
}

impl Arguments {
    pub(crate) const fn show(&self) -> &crate::Show {
        &self.show
    }
}

/// What was measured: ns of one look-up.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    rules: usize,
    ipv6: bool,
    #[serde(flatten)]
    round: Round,
    /// Share of the packets that the rules accept.
    accepted: f64,
    /// What compiling the whole world took.
    compile_ms: f64,
}

impl crate::Report for Report {
    fn text(&self) -> String {
        let Round { quiet_ns, median_ns, p99_ns, p999_ns, max_ns, .. } = &self.round;
        format!(
            "{} rules, {}; the whole world compiled in {:.1} ms; {:.0} % of the packets accepted\n\n\
             ns a look-up\n\
             quiet     median    p99       p99.9     max\n\
             {quiet_ns:<9.1} {median_ns:<9.1} {p99_ns:<9.1} {p999_ns:<9.1} {max_ns:.1}",
            self.rules,
            if self.ipv6 { "IPv6" } else { "IPv4" },
            self.compile_ms,
            self.accepted * 100.0
        )
    }

    fn svg(&self) -> String {
        let line = Line { name: "chunks of 8,192 look-ups", quantiles: &self.round.quantiles };
        chart::of_quantiles(&format!("The classifier: {} rules", self.rules), "ns a look-up", &[line])
    }
}

/// Packets that are classified in turn.
const PROBES: usize = 128 * CHUNK_ITEMS;

/// Measures; none if the rounds were reported one by one.
///
/// # Errors
/// If the world does not compile or a file cannot be written.
pub(crate) fn run(arguments: &Arguments) -> Result<Option<Report>, String> {
    let desired = group_world::desired(arguments.rules, arguments.ipv6, arguments.seed);
    let tuples = group_world::probes(&desired, PROBES, arguments.ipv6, arguments.seed ^ 0xabcd);
    if let Some(file) = &arguments.export_rules {
        let text = flat::rules(&desired, &group_world::subject(), Direction::Ingress, arguments.ipv6);
        std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    if let Some(file) = &arguments.export_probes {
        let bytes: Vec<u8> = tuples.iter().flat_map(probe_bytes).collect();
        std::fs::write(file, bytes).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    let started = Instant::now();
    let snapshot = compile(&desired, 1).map_err(|refusals| format!("{refusals:?}"))?;
    let compile_ms = started.elapsed().as_secs_f64() * 1e3;
    let eni = snapshot.eni_index(&group_world::subject()).ok_or("the judging ENI is missing")?;
    let judgements = Vec::with_capacity(BURST_PACKETS);
    let mut rig = Rig { snapshot, eni, tuples, judgements, next: 0, accepted: 0 };
    for _ in 0..PROBES / CHUNK_ITEMS {
        rig.work();
    }
    let accepted = rig.accepted;
    let items = rounds::items(arguments.millions)?;
    if arguments.on_request {
        let about = serde_json::json!({ "accepted": accepted, "compile_ms": compile_ms });
        rounds::on_request(&mut rig, items, &about)?;
        return Ok(None);
    }
    let round = rounds::measure(&mut rig, items, &mut Progress::new("measuring", arguments.show.progress))?;
    let accepted = accepted as f64 / PROBES as f64;
    Ok(Some(Report { rules: arguments.rules, ipv6: arguments.ipv6, round, accepted, compile_ms }))
}

/// A packet as `rte_acl` is asked: protocol, far side, source port, destination port.
fn probe_bytes(tuple: &Tuple) -> Vec<u8> {
    let mut bytes = vec![tuple.protocol, 0, 0, 0];
    match tuple.addresses {
        Addresses::V4 { source, .. } => bytes.extend(source.to_be_bytes()),
        Addresses::V6 { source, .. } => bytes.extend(source.to_be_bytes()),
    }
    bytes.extend(tuple.source_port.to_be_bytes());
    bytes.extend(tuple.destination_port.to_be_bytes());
    bytes
}

struct Rig {
    snapshot: Snapshot,
    eni: EniIndex,
    tuples: Vec<Tuple>,
    judgements: Vec<Judgement>,
    next: usize,
    accepted: u64,
}

impl Chunks for Rig {
    fn prepare(&mut self) {}

    fn work(&mut self) {
        let chunk = &self.tuples[self.next..self.next + CHUNK_ITEMS];
        for burst in chunk.chunks(BURST_PACKETS) {
            self.snapshot.judge_by_rules((self.eni, Direction::Ingress), burst, &mut self.judgements);
            self.accepted += self.judgements.iter().filter(|judgement| judgement.accepts()).count() as u64;
        }
        self.next = (self.next + CHUNK_ITEMS) % PROBES;
    }

    fn check(&self) -> Result<(), String> {
        if self.judgements.len() == BURST_PACKETS { Ok(()) } else { Err("the judging ENI is missing".into()) }
    }
}
