//! How long packets of revoked sessions still pass under load: from the request on the forwarding plane's socket to the
//! reply, and to the last packet that came out. After the reply, none may.
//!
//! One ENI sends to all receivers whose rules change, and each of these sessions is live when the request is sent.
//! Another flow, which no change affects, keeps the workers busy.

use crate::chart::{self, Line, Percentiles, Quantiles};
use crate::fixture;
use crate::fixture::revocation::{self, RevocationKind};
use crate::in_process_switch::{self, InProcessSwitch, SwitchClient};
use crate::progress::Progress;
use crate::traffic::probe::{Pace, ProbeTraffic};
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vswitch::port::factory::PortFactory;
use vswitch::port::memory::MemoryHub;
use vswitch_core::config::desired::DesiredPort;
use vswitch_core::config::protocol::Delta;

/// Options of `sluice bench revoke --enis 1,100,1000 --rules 100`.
#[derive(Clone, Debug, Args, Serialize)]
pub struct RevocationArguments {
    /// ENIs whose rules change, all in one change; several numbers for several worlds, one after another.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 1000], value_parser = clap::value_parser!(u16).range(1..=4000))]
    enis: Vec<u16>,
    /// Rules of each ENI and direction.
    #[arg(long, default_value_t = 100)]
    rules: usize,
    /// What changes; everything that can, if absent.
    #[arg(long, value_enum, value_delimiter = ',')]
    kind: Vec<RevocationKind>,
    /// How many changes of each kind.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    revocations: u32,
    /// Three changes of each kind, some seconds in total.
    #[arg(long, conflicts_with = "revocations")]
    quick: bool,
    /// Workers that forward.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    workers: u8,
    #[command(flatten)]
    #[serde(skip)]
    show: crate::Show,
}

impl RevocationArguments {
    pub(crate) const fn show(&self) -> &crate::Show {
        &self.show
    }

    const fn revocations(&self) -> u32 {
        if self.quick { 3 } else { self.revocations }
    }

    fn kinds(&self) -> &[RevocationKind] {
        if self.kind.is_empty() { RevocationKind::value_variants() } else { &self.kind }
    }
}

/// The result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RevocationReport {
    rules: usize,
    workers: u8,
    revocations: u32,
    worlds: Vec<Measured>,
}

/// Changes of one kind, for a number of ENIs.
#[derive(Clone, Debug, Serialize)]
struct Measured {
    enis: u16,
    kind: RevocationKind,
    /// From the request to the reply.
    reply_us: Percentiles,
    /// From the request until a receiver took the last packet that the change refuses; absent for a change that refuses
    /// none.
    last_packet_us: Option<Percentiles>,
    /// The part until the new rules are compiled, and the part until every worker has crossed.
    compile_us: Percentiles,
    barrier_us: Percentiles,
    /// Packets of all flows that came out in a second.
    packets_per_second: f64,
    /// Lost packets of the flow that no change affects.
    lost: u64,
    /// Packets that came out after the reply that refused them, which is an error.
    forwarded_after_reply: u64,
    #[serde(skip)]
    quantiles: Quantiles,
}

impl crate::Report for RevocationReport {
    fn text(&self) -> String {
        let Self { rules, workers, revocations, .. } = self;
        let mut text = format!(
            "{revocations} changes of each kind, {rules} rules a direction, workers: {workers}; median and longest, µs\n\n\
             ENIs  change          request to reply   last packet out    compiling     packets/s  lost  after the reply\n"
        );
        for world in &self.worlds {
            let both = |times: &Percentiles| format!("{:.0} {:.0}", times.p50, times.max);
            let _ = writeln!(
                text,
                "{:<5} {:<15} {:<18} {:<18} {:<13} {:<10.0} {:<5} {}",
                world.enis,
                world.kind.name(),
                both(&world.reply_us),
                world.last_packet_us.as_ref().map_or("none refused".into(), both),
                both(&world.compile_us),
                world.packets_per_second,
                world.lost,
                world.forwarded_after_reply
            );
        }
        text.truncate(text.trim_end().len());
        text
    }

    fn svg(&self) -> String {
        let enis = self.worlds.last().map_or(0, |world| world.enis);
        let title = format!("From request to reply: {enis} ENIs with {} rules", self.rules);
        let worlds: Vec<_> = self.worlds.iter().filter(|world| world.enis == enis).collect();
        let names: Vec<_> = worlds.iter().map(|world| world.kind.name()).collect();
        let lines = worlds.iter().zip(&names).map(|(world, name)| Line { name, quantiles: &world.quantiles });
        chart::of_quantiles(&title, "µs", &lines.collect::<Vec<_>>())
    }
}

/// Frames that a port holds; there may be a thousand ports.
const PORT_FRAMES: usize = 256;
const PACE: Pace = Pace { window: 128, steady_per_watched: 1 };
const _: () = assert!(PACE.window as usize * 2 <= PORT_FRAMES);
/// How long to wait for packets without which the measurement cannot continue.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the measurement.
pub(crate) fn run(arguments: &RevocationArguments) -> Result<RevocationReport, String> {
    let mut progress = Progress::new("revoking", arguments.show.progress);
    let cells = arguments.enis.iter().flat_map(|&enis| arguments.kinds().iter().map(move |&kind| (enis, kind)));
    let cells: Vec<_> = cells.collect();
    let mut worlds = Vec::new();
    let hub = MemoryHub::new(PORT_FRAMES, true);
    let ports = PortFactory { memory: hub.clone(), ..PortFactory::default() };
    let plane = InProcessSwitch::start(|config| (config.workers, config.ports) = (arguments.workers.into(), ports))
        .map_err(|error| error.to_string())?;
    let mut client = plane.connect().map_err(|error| error.to_string())?;
    for (number, &cell) in cells.iter().enumerate() {
        progress.show(number as f64 / cells.len() as f64);
        worlds.push(measure(cell, arguments, (&hub, &mut client))?);
    }
    progress.end();
    let report = RevocationReport {
        rules: arguments.rules,
        workers: arguments.workers,
        revocations: arguments.revocations(),
        worlds,
    };
    match report.worlds.iter().find(|world| world.forwarded_after_reply > 0) {
        None => Ok(report),
        Some(Measured { enis, kind, forwarded_after_reply, .. }) => Err(format!(
            "{forwarded_after_reply} packets came out after the reply that refused them ({}, {enis} ENIs)",
            kind.name()
        )),
    }
}

/// Measures in one world; another may follow.
fn measure(
    (enis, kind): (u16, RevocationKind),
    arguments: &RevocationArguments,
    (hub, client): (&MemoryHub, &mut SwitchClient),
) -> Result<Measured, String> {
    let [before, after] = [false, true].map(|is_changed| {
        let mut desired = revocation::desired(enis, arguments.rules, kind, is_changed);
        in_process_switch::attach(&mut desired, |_| Some(DesiredPort::Memory));
        desired
    });
    let deltas = [Delta::between(&after, &before), Delta::between(&before, &after)];
    client.replace(after)?;
    let guest = |number| hub.guest(&fixture::eni_id(number));
    let traffic = ProbeTraffic::new(guest, revocation::receivers(enis), PACE);
    if kind.revokes() {
        traffic.refused_from_now_on();
    }
    let mut revocations = Revocations::new(&traffic, (enis, kind))?;
    let started = Instant::now();
    traffic.flow_during(|| (0..arguments.revocations()).try_for_each(|_| revocations.make(client, &deltas)))?;
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let came_out = count(&traffic.steady) + count(&traffic.watched);
    Ok(Measured {
        enis,
        kind,
        reply_us: Percentiles::of(&revocations.reply_ns),
        last_packet_us: kind.revokes().then(|| Percentiles::of(&revocations.last_packet_ns)),
        compile_us: Percentiles::of(&revocations.compile_ns),
        barrier_us: Percentiles::of(&revocations.barrier_ns),
        packets_per_second: came_out as f64 / started.elapsed().as_secs_f64(),
        lost: count(&traffic.sent) - count(&traffic.steady),
        forwarded_after_reply: count(&traffic.misjudged),
        quantiles: Quantiles::of(&revocations.reply_ns, 1e-3),
    })
}

/// Alternating changes, of which those that revoke are measured.
struct Revocations<'a> {
    traffic: &'a ProbeTraffic,
    enis: u16,
    kind: RevocationKind,
    reply_ns: Histogram<u64>,
    last_packet_ns: Histogram<u64>,
    compile_ns: Histogram<u64>,
    barrier_ns: Histogram<u64>,
}

impl<'a> Revocations<'a> {
    fn new(traffic: &'a ProbeTraffic, (enis, kind): (u16, RevocationKind)) -> Result<Self, String> {
        let histogram = || Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(|error| error.to_string());
        let [reply_ns, last_packet_ns, compile_ns, barrier_ns] =
            [histogram()?, histogram()?, histogram()?, histogram()?];
        Ok(Self { traffic, enis, kind, reply_ns, last_packet_ns, compile_ns, barrier_ns })
    }

    /// Admits the flows, waits until a packet reached every receiver, revokes, and waits until a packet to each was
    /// refused.
    fn make(&mut self, client: &mut SwitchClient, [giving, taking]: &[Delta; 2]) -> Result<(), String> {
        let traffic = self.traffic;
        let giving = client.change(giving.clone());
        traffic.admitted_from_now_on();
        client.apply(&giving)?;
        self.await_passing()?;
        let taking = client.change(taking.clone());
        let asked_ns = traffic.now_ns();
        let applied = client.apply(&taking)?;
        let replied_ns = traffic.now_ns();
        self.reply_ns.saturating_record(replied_ns - asked_ns);
        self.compile_ns.saturating_record(applied.compile_ns);
        self.barrier_ns.saturating_record(applied.barrier_ns);
        if self.kind.revokes() {
            traffic.refused_from_now_on();
            // Packets waiting to be taken at the reply had come out by then.
            let last_ns = traffic.last_watched_ns().min(replied_ns);
            self.last_packet_ns.saturating_record(last_ns.saturating_sub(asked_ns));
            self.await_tries()
        } else {
            self.await_passing()
        }
    }

    /// Waits until the switch has evaluated a packet to every receiver that was sent after this began.
    fn await_tries(&self) -> Result<(), String> {
        let sent = || self.traffic.watched_sent.load(Ordering::Relaxed);
        let wanted = sent() + PORT_FRAMES as u64 + u64::from(self.enis);
        let deadline = Instant::now() + PATIENCE;
        while sent() < wanted {
            if Instant::now() > deadline {
                return Err("the switch takes no packets any more".into());
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        Ok(())
    }

    /// Waits until a packet has come out at every receiver. The thread that takes packets may lag behind the switch.
    fn await_passing(&self) -> Result<(), String> {
        let passed = || self.traffic.watched.load(Ordering::Relaxed);
        let before = passed();
        self.await_tries()?;
        let deadline = Instant::now() + PATIENCE;
        while passed() - before < u64::from(self.enis) {
            if Instant::now() > deadline {
                return Err(format!(
                    "only {} packets came out to {} receivers before the change ({})",
                    passed() - before,
                    self.enis,
                    self.kind.name()
                ));
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_out_after_the_reply_whatever_ground_is_taken_away() {
        for (enis, workers) in [(1, 1), (5, 2)] {
            let show = crate::Show::default();
            let (enis, kind) = (vec![enis], Vec::new());
            let arguments = RevocationArguments { enis, rules: 10, kind, revocations: 3, quick: false, workers, show };
            let report = run(&arguments).expect("every change is accepted, and revokes");
            assert_eq!(report.worlds.len(), 6);
            for world in report.worlds {
                assert_eq!((world.lost, world.forwarded_after_reply), (0, 0), "{:?}", world.kind);
                assert!(world.reply_us.p50 > 0.0);
                let last_packet = world.last_packet_us.map(|times| times.max <= world.reply_us.max);
                assert_eq!(last_packet, world.kind.revokes().then_some(true), "{:?}", world.kind);
            }
        }
    }
}
