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
use vswitch_core::compile::snapshot::Snapshot;
use vswitch_core::config::desired::Direction;
use vswitch_core::config::ids::EniIndex;
use vswitch_core::config::limits::BURST_PACKETS;
use vswitch_core::packet::headers::{Addresses, Tuple};
use vswitch_core::packet::verdict::Decision;

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
    let decisions = Vec::with_capacity(BURST_PACKETS);
    let probes = Probes::of(&tuples);
    let mut rig = Rig { snapshot, eni, probes, decisions, next: 0, accepted: 0 };
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

/// What is classified, in as many bytes as the keys of `rte_acl` have: the headers of a burst are read from its frames just
/// before it is judged, so what they are read into is in a core's own cache, and memory has only to bring the keys.
#[derive(Clone, Copy)]
struct Probe<A> {
    peer: A,
    source_port: u16,
    destination_port: u16,
    protocol: u8,
}

const _: () = assert!(size_of::<Probe<[u8; 4]>>() <= 12 && size_of::<Probe<[u8; 16]>>() <= 24);

enum Probes {
    V4(Vec<Probe<[u8; 4]>>),
    V6(Vec<Probe<[u8; 16]>>),
}

impl Probes {
    fn of(tuples: &[Tuple]) -> Self {
        fn probe<A>(tuple: &Tuple, peer: A) -> Probe<A> {
            let Tuple { source_port, destination_port, protocol, .. } = *tuple;
            Probe { peer, source_port, destination_port, protocol }
        }
        let v4 = tuples.iter().filter_map(|tuple| match tuple.addresses {
            Addresses::V4 { source, .. } => Some(probe(tuple, source.to_ne_bytes())),
            Addresses::V6 { .. } => None,
        });
        let v6 = tuples.iter().filter_map(|tuple| match tuple.addresses {
            Addresses::V4 { .. } => None,
            Addresses::V6 { source, .. } => Some(probe(tuple, source.to_ne_bytes())),
        });
        let v4: Vec<_> = v4.collect();
        if v4.is_empty() { Self::V6(v6.collect()) } else { Self::V4(v4) }
    }

    /// The tuples of a burst.
    fn read(&self, start: usize, burst: &mut [Tuple; BURST_PACKETS]) {
        fn fill<A: Copy>(burst: &mut [Tuple], probes: &[Probe<A>], addresses: impl Fn(A) -> Addresses) {
            for (tuple, probe) in burst.iter_mut().zip(probes) {
                let Probe { peer, source_port, destination_port, protocol } = *probe;
                *tuple = Tuple { addresses: addresses(peer), protocol, source_port, destination_port };
            }
        }
        let place = start..start + BURST_PACKETS;
        match self {
            Self::V4(probes) => {
                fill(burst, &probes[place], |peer| Addresses::V4 { source: u32::from_ne_bytes(peer), destination: 0 })
            }
            Self::V6(probes) => {
                fill(burst, &probes[place], |peer| Addresses::V6 { source: u128::from_ne_bytes(peer), destination: 0 })
            }
        }
    }
}

struct Rig {
    snapshot: Snapshot,
    eni: EniIndex,
    probes: Probes,
    decisions: Vec<Decision>,
    next: usize,
    accepted: u64,
}

impl Chunks for Rig {
    fn prepare(&mut self) {}

    fn work(&mut self) {
        let nothing = Addresses::V4 { source: 0, destination: 0 };
        let mut burst = [Tuple { addresses: nothing, protocol: 0, source_port: 0, destination_port: 0 }; BURST_PACKETS];
        for start in (self.next..self.next + CHUNK_ITEMS).step_by(BURST_PACKETS) {
            self.probes.read(start, &mut burst);
            self.snapshot.decide_by_rules((self.eni, Direction::Ingress), &burst, &mut self.decisions);
            self.accepted += self.decisions.iter().filter(|decision| decision.accepts()).count() as u64;
        }
        self.next = (self.next + CHUNK_ITEMS) % PROBES;
    }

    fn check(&self) -> Result<(), String> {
        if self.decisions.len() == BURST_PACKETS { Ok(()) } else { Err("the judging ENI is missing".into()) }
    }
}
