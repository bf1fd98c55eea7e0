//! The cost of a change while traffic flows: from the request on the forwarding plane's socket to the reply, which says
//! that every worker evaluates by it; and its effect on the traffic.

use crate::chart::{self, Line, Percentiles, Quantiles};
use crate::fixture;
use crate::fixture::update::{self, UpdateKind};
use crate::in_process_switch::{self, InProcessSwitch, SwitchClient};
use crate::progress::Progress;
use crate::traffic::probe::{Pace, ProbeTraffic, RECEIVER, STEADY, WATCHED};
use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use vswitch::port::factory::PortFactory;
use vswitch::port::memory::MemoryHub;
use vswitch_core::compile::Compiler;
use vswitch_core::config::desired::{Desired, DesiredPort};
use vswitch_core::config::limits::HANDOFF_PACKETS;
use vswitch_core::config::protocol::Delta;

/// Options of `sluice bench update --enis 1000 --rules 1000 --rate 1000`.
#[derive(Clone, Debug, Args, Serialize)]
pub struct UpdateArguments {
    /// ENIs that share the rules.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(3..=40_000))]
    enis: u16,
    /// Rules of each ENI and direction.
    #[arg(long, default_value_t = 1000)]
    rules: usize,
    /// What changes.
    #[arg(long, value_enum, default_value_t = UpdateKind::Rule)]
    kind: UpdateKind,
    /// Other members of the group that is joined and left.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=20_000))]
    members: u16,
    /// Changes a second at most; 0 for one right after another.
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// How many changes.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    changes: u32,
    /// Workers that forward.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    workers: u8,
    #[command(flatten)]
    #[serde(skip)]
    show: crate::Show,
}

impl UpdateArguments {
    pub(crate) const fn show(&self) -> &crate::Show {
        &self.show
    }
}

/// The result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct UpdateReport {
    #[serde(flatten)]
    arguments: UpdateArguments,
    changes_per_second: f64,
    /// From the request to the reply.
    latency_us: Percentiles,
    /// The part until the new rules are compiled, and the part until every worker has crossed.
    compile_us: Percentiles,
    barrier_us: Percentiles,
    /// The time to decide on the same changes in a forwarding plane that does nothing else.
    alone_us: Percentiles,
    /// Packets that no change affects, before and during the changes.
    idle_packets_per_second: f64,
    packets_per_second: f64,
    throughput_of_idle: f64,
    /// How many of them were lost.
    lost: u64,
    /// Packets that a reply said were refused from then on, and that came out later.
    misjudged: u64,
    /// Packets of the alternately admitted and refused flow that arrived.
    watched_delivered: u64,
    #[serde(skip)]
    quantiles: Quantiles,
}

impl crate::Report for UpdateReport {
    fn text(&self) -> String {
        let UpdateArguments { enis, rules, kind, changes, workers, .. } = &self.arguments;
        let line = |name: &str, Percentiles { p50, p99, max }: &Percentiles| {
            format!("{name:<28} {p50:<10.1} {p99:<10.1} {max:.1}\n")
        };
        format!(
            "{changes} changes ({kind:?}), {:.0} a second, {enis} ENIs sharing {rules} rules a direction, workers: {workers}\n\n\
             µs                           median     p99        max\n{}{}{}{}\n\
             packets/s: {:.0} idle, {:.0} meanwhile ({:.2})\n\
             lost {}, forwarded against a reply {}",
            self.changes_per_second,
            line("request to reply", &self.latency_us),
            line("  of it compiling", &self.compile_us),
            line("  of it crossing", &self.barrier_us),
            line("compiling without traffic", &self.alone_us),
            self.idle_packets_per_second,
            self.packets_per_second,
            self.throughput_of_idle,
            self.lost,
            self.misjudged
        )
    }

    fn svg(&self) -> String {
        let UpdateArguments { enis, rules, .. } = &self.arguments;
        let title = format!("From request to reply: {enis} ENIs sharing {rules} rules");
        chart::of_quantiles(&title, "µs", &[Line { name: "changes", quantiles: &self.quantiles }])
    }
}

/// Frames that a port holds.
const PORT_FRAMES: usize = 4096;
const PACE: Pace = Pace { window: 512, steady_per_watched: 16 };
const _: () = assert!(PACE.window as usize * 2 <= HANDOFF_PACKETS && HANDOFF_PACKETS <= PORT_FRAMES);
const IDLE: Duration = Duration::from_millis(1500);

/// Runs the measurement.
pub(crate) fn run(arguments: &UpdateArguments) -> Result<UpdateReport, String> {
    let hub = MemoryHub::new(PORT_FRAMES, true);
    let ports = PortFactory { memory: hub.clone(), ..PortFactory::default() };
    let plane = InProcessSwitch::start(|config| (config.workers, config.ports) = (arguments.workers.into(), ports))
        .map_err(|error| error.to_string())?;
    let mut client = plane.connect().map_err(|error| error.to_string())?;
    let [mut refusing, mut admitting] = [false, true]
        .map(|admits| update::desired((arguments.enis, arguments.members), arguments.rules, arguments.kind, admits));
    let with_port = [STEADY, RECEIVER, WATCHED].map(fixture::eni_id);
    for desired in [&mut refusing, &mut admitting] {
        in_process_switch::attach(desired, |id| with_port.contains(id).then_some(DesiredPort::Memory));
    }
    let deltas = [Delta::between(&admitting, &refusing), Delta::between(&refusing, &admitting)];
    let alone_ns = alone(&refusing, &deltas, arguments.changes)?;
    client.replace(refusing)?;
    let traffic = ProbeTraffic::new(|number| hub.guest(&fixture::eni_id(number)), [RECEIVER], PACE);
    traffic.refused_from_now_on();
    let mut changes = Changes::new(&mut client, deltas, arguments)?;
    let (mut idle_rate, mut busy_rate) = (0.0, 0.0);
    let idle_for = |time: Duration| {
        move || {
            std::thread::sleep(time);
            Ok(())
        }
    };
    traffic.flow_during(|| {
        traffic.rate_during(idle_for(IDLE / 10))?;
        idle_rate = traffic.rate_during(idle_for(IDLE))?;
        busy_rate = traffic.rate_during(|| changes.make(&traffic, arguments))?;
        Ok(())
    })?;
    let sent = traffic.sent.load(Ordering::Relaxed);
    Ok(UpdateReport {
        arguments: arguments.clone(),
        changes_per_second: f64::from(arguments.changes) / changes.spent.as_secs_f64(),
        latency_us: Percentiles::of(&changes.latency_ns),
        compile_us: Percentiles::of(&changes.compile_ns),
        barrier_us: Percentiles::of(&changes.barrier_ns),
        alone_us: Percentiles::of(&alone_ns),
        idle_packets_per_second: idle_rate,
        packets_per_second: busy_rate,
        throughput_of_idle: busy_rate / idle_rate,
        lost: sent - traffic.steady.load(Ordering::Relaxed),
        misjudged: traffic.misjudged.load(Ordering::Relaxed),
        watched_delivered: traffic.watched.load(Ordering::Relaxed),
        quantiles: Quantiles::of(&changes.latency_ns, 1e-3),
    })
}

/// How long a compiler takes for each change, with a core to itself.
fn alone(first: &Desired, deltas: &[Delta; 2], changes: u32) -> Result<Histogram<u64>, String> {
    let mut compiler = Compiler::new([0; 2]);
    let mut made = compiler.replace(first, 1).map_err(|refusals| format!("{refusals:?}"))?;
    let mut spent_ns = Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(|error| error.to_string())?;
    for number in 0..changes {
        let delta = deltas[usize::from(number % 2 == 0)].clone();
        let started = Instant::now();
        let next = compiler.apply(delta, u64::from(number) + 2).map_err(|refusals| format!("{refusals:?}"))?;
        spent_ns.saturating_record(started.elapsed().as_nanos() as u64);
        // The publication releases the previous one after all workers have crossed; do the same here.
        drop(std::mem::replace(&mut made, next));
    }
    Ok(spent_ns)
}

/// Alternating changes.
struct Changes<'a> {
    client: &'a mut SwitchClient,
    deltas: [Delta; 2],
    latency_ns: Histogram<u64>,
    compile_ns: Histogram<u64>,
    barrier_ns: Histogram<u64>,
    spent: Duration,
    progress: Progress,
}

impl<'a> Changes<'a> {
    fn new(client: &'a mut SwitchClient, deltas: [Delta; 2], arguments: &UpdateArguments) -> Result<Self, String> {
        let histogram = || Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(|error| error.to_string());
        let (latency_ns, compile_ns, barrier_ns) = (histogram()?, histogram()?, histogram()?);
        let progress = Progress::new("changing", arguments.show.progress);
        Ok(Self { client, deltas, latency_ns, compile_ns, barrier_ns, spent: Duration::ZERO, progress })
    }

    fn make(&mut self, traffic: &ProbeTraffic, arguments: &UpdateArguments) -> Result<(), String> {
        let started = Instant::now();
        for number in 0..arguments.changes {
            self.progress.show(f64::from(number) / f64::from(arguments.changes));
            if let Some(pause_ns) = 1_000_000_000u64.checked_div(arguments.rate.into()) {
                let due = started + Duration::from_nanos(pause_ns * u64::from(number));
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            let admits = number % 2 == 0;
            let change = self.client.change(self.deltas[usize::from(admits)].clone());
            if admits {
                traffic.admitted_from_now_on();
            }
            let asked = Instant::now();
            let applied = self.client.apply(&change)?;
            self.latency_ns.saturating_record(asked.elapsed().as_nanos() as u64);
            self.compile_ns.saturating_record(applied.compile_ns);
            self.barrier_ns.saturating_record(applied.barrier_ns);
            if !admits {
                traffic.refused_from_now_on();
            }
        }
        self.spent = started.elapsed();
        self.progress.end();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_lose_nothing_and_are_in_force_when_acknowledged() {
        for (kind, workers) in [
            (UpdateKind::Rule, 1),
            (UpdateKind::Membership, 2),
            (UpdateKind::Combination, 1),
            (UpdateKind::PrefixList, 2),
        ] {
            let show = crate::Show::default();
            let arguments =
                UpdateArguments { enis: 4, rules: 10, kind, members: 3, rate: 0, changes: 40, workers, show };
            let report = run(&arguments).expect("every change is accepted");
            assert_eq!((report.lost, report.misjudged), (0, 0), "{kind:?}");
            assert!(report.watched_delivered > 0, "{kind:?}: the watched flow was admitted half of the time");
            assert!(report.packets_per_second > 0.0 && report.latency_us.p50 > 0.0);
        }
    }
}
