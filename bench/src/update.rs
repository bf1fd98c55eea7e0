//! What a change costs while traffic flows: from the request on the forwarding plane's socket to the reply that says that
//! every worker judges by it; and what the traffic notices.

use crate::chart::{self, Line, Quantiles};
use crate::frames::{self, Flow, Shape, Step};
use crate::mix::Transport;
use crate::plane::{self, Client, Plane};
use crate::progress::Progress;
use crate::update_world::{self, Kind, RECEIVER, STEADY, WATCHED};
use crate::world;
use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vswitch::port::PortFactory;
use vswitch::port::memory::{MemoryGuest, MemoryHub};
use vswitch_core::desired::Port;
use vswitch_core::limits::HANDOFF_PACKETS;
use vswitch_core::packet::FrameBuffer;
use vswitch_core::protocol::Delta;

/// What to measure: `sluice bench update --enis 1000 --rules 1000 --rate 1000`.
#[derive(Clone, Debug, Args, Serialize)]
pub struct Arguments {
    /// ENIs that share the rules.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(3..=40_000))]
    enis: u16,
    /// Rules of each ENI and direction.
    #[arg(long, default_value_t = 1000)]
    rules: usize,
    /// What changes.
    #[arg(long, value_enum, default_value_t = Kind::Rule)]
    kind: Kind,
    /// Others in the group that is joined and left.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=20_000))]
    members: u16,
    /// Changes a second at most; 0 for one after another.
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

impl Arguments {
    pub(crate) const fn show(&self) -> &crate::Show {
        &self.show
    }
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    arguments: Arguments,
    changes_per_second: f64,
    /// From the request to the reply.
    latency_us: Percentiles,
    /// Of it: until the new rules are compiled, and until every worker has crossed.
    compile_us: Percentiles,
    barrier_us: Percentiles,
    /// Packets that no change was about, before and during the changes.
    idle_packets_per_second: f64,
    packets_per_second: f64,
    throughput_of_idle: f64,
    /// Of them, those that did not arrive.
    lost: u64,
    /// Packets that a reply said were refused from then on, and that came out later.
    misjudged: u64,
    /// Of the flow that is admitted and refused in turn, those that arrived.
    watched_delivered: u64,
    #[serde(skip)]
    quantiles: Quantiles,
}

/// Some percentiles, µs.
#[derive(Clone, Copy, Debug, Serialize)]
struct Percentiles {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

impl crate::Report for Report {
    fn text(&self) -> String {
        let Arguments { enis, rules, kind, changes, workers, .. } = &self.arguments;
        let line = |name: &str, Percentiles { p50, p99, max }: &Percentiles| {
            format!("{name:<28} {p50:<10.1} {p99:<10.1} {max:.1}\n")
        };
        format!(
            "{changes} changes ({kind:?}), {:.0} a second, {enis} ENIs sharing {rules} rules a direction, workers: {workers}\n\n\
             µs                           median     p99        max\n{}{}{}\n\
             packets/s: {:.0} idle, {:.0} meanwhile ({:.2})\n\
             lost {}, forwarded against a reply {}",
            self.changes_per_second,
            line("request to reply", &self.latency_us),
            line("  of it compiling", &self.compile_us),
            line("  of it crossing", &self.barrier_us),
            self.idle_packets_per_second,
            self.packets_per_second,
            self.throughput_of_idle,
            self.lost,
            self.misjudged
        )
    }

    fn svg(&self) -> String {
        let Arguments { enis, rules, .. } = &self.arguments;
        let title = format!("From request to reply: {enis} ENIs sharing {rules} rules");
        chart::of_quantiles(&title, "µs", &[Line { name: "changes", quantiles: &self.quantiles }])
    }
}

/// Frames that a port holds.
const PORT_FRAMES: usize = 4096;
/// Frames of the steady flow on their way at once: so few that no queue of the switch is ever full.
const WINDOW: u64 = 512;
const _: () = assert!(WINDOW as usize * 2 <= HANDOFF_PACKETS && HANDOFF_PACKETS <= PORT_FRAMES);
/// One frame in so many is of the watched flow.
const WATCHED_EVERY: u64 = 16;
const IDLE: Duration = Duration::from_millis(1500);

/// Measures.
pub(crate) fn run(arguments: &Arguments) -> Result<Report, String> {
    let hub = MemoryHub::new(PORT_FRAMES, true);
    let ports = PortFactory { memory: hub.clone(), ..PortFactory::default() };
    let plane = Plane::start(|config| (config.workers, config.ports) = (arguments.workers.into(), ports))
        .map_err(|error| error.to_string())?;
    let mut client = plane.connect().map_err(|error| error.to_string())?;
    let [mut refusing, mut admitting] = [false, true].map(|admits| {
        update_world::desired((arguments.enis, arguments.members), arguments.rules, arguments.kind, admits)
    });
    let with_port = [STEADY, RECEIVER, WATCHED].map(world::eni_id);
    for desired in [&mut refusing, &mut admitting] {
        plane::attach(desired, |id| with_port.contains(id).then_some(Port::Memory));
    }
    let deltas = [Delta::between(&admitting, &refusing), Delta::between(&refusing, &admitting)];
    client.replace(refusing)?;
    let traffic = Traffic::new(with_port.map(|id| hub.guest(&id)));
    let mut changes = Changes::new(&mut client, deltas, arguments)?;
    let (mut idle_rate, mut busy_rate) = (0.0, 0.0);
    std::thread::scope(|scope| {
        let generator = scope.spawn(|| traffic.flow());
        let _ending = Ending(&traffic.is_over);
        let idle_for = |time: Duration| {
            move || {
                std::thread::sleep(time);
                Ok(())
            }
        };
        traffic.rate_during(idle_for(IDLE / 10))?;
        idle_rate = traffic.rate_during(idle_for(IDLE))?;
        busy_rate = traffic.rate_during(|| changes.make(&traffic, arguments))?;
        traffic.is_over.store(true, Ordering::Relaxed);
        generator.join().map_err(|_| "the generator panicked".to_string())
    })?;
    let sent = traffic.sent.load(Ordering::Relaxed);
    Ok(Report {
        arguments: arguments.clone(),
        changes_per_second: f64::from(arguments.changes) / changes.spent.as_secs_f64(),
        latency_us: Percentiles::of(&changes.latency_ns),
        compile_us: Percentiles::of(&changes.compile_ns),
        barrier_us: Percentiles::of(&changes.barrier_ns),
        idle_packets_per_second: idle_rate,
        packets_per_second: busy_rate,
        throughput_of_idle: busy_rate / idle_rate,
        lost: sent - traffic.steady.load(Ordering::Relaxed),
        misjudged: traffic.misjudged.load(Ordering::Relaxed),
        watched_delivered: traffic.watched.load(Ordering::Relaxed),
        quantiles: Quantiles::of(&changes.latency_ns, 1e-3),
    })
}

/// Changes to and fro.
struct Changes<'a> {
    client: &'a mut Client,
    deltas: [Delta; 2],
    latency_ns: Histogram<u64>,
    compile_ns: Histogram<u64>,
    barrier_ns: Histogram<u64>,
    spent: Duration,
    progress: Progress,
}

impl<'a> Changes<'a> {
    fn new(client: &'a mut Client, deltas: [Delta; 2], arguments: &Arguments) -> Result<Self, String> {
        let histogram = || Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(|error| error.to_string());
        let (latency_ns, compile_ns, barrier_ns) = (histogram()?, histogram()?, histogram()?);
        let progress = Progress::new("changing", arguments.show.progress);
        Ok(Self { client, deltas, latency_ns, compile_ns, barrier_ns, spent: Duration::ZERO, progress })
    }

    fn make(&mut self, traffic: &Traffic, arguments: &Arguments) -> Result<(), String> {
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
                traffic.is_refused.store(false, Ordering::SeqCst);
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

/// A steady flow that no change is about, and one that is admitted and refused in turn.
struct Traffic {
    steady_sender: MemoryGuest,
    receiver: MemoryGuest,
    watched_sender: MemoryGuest,
    is_over: AtomicBool,
    /// Every frame of the watched flow that leaves the switch from now on is one too many.
    is_refused: AtomicBool,
    sent: AtomicU64,
    steady: AtomicU64,
    watched: AtomicU64,
    misjudged: AtomicU64,
}

impl Traffic {
    fn new([steady_sender, receiver, watched_sender]: [MemoryGuest; 3]) -> Self {
        let count = AtomicU64::default;
        let (is_over, is_refused) = (AtomicBool::new(false), AtomicBool::new(true));
        let (sent, steady, watched, misjudged) = (count(), count(), count(), count());
        Self { steady_sender, receiver, watched_sender, is_over, is_refused, sent, steady, watched, misjudged }
    }

    /// Sends as much as comes out, and takes it, until it is over and everything is out.
    fn flow(&self) {
        let shape = Shape { is_v6: false, transport: Transport::Udp };
        let frame = |client, step| {
            let mut buffer = FrameBuffer::with_capacity(64);
            frames::write(&mut buffer, shape, (Flow { client, server: RECEIVER, source_port: 5000 }, step), 64);
            buffer.frame().to_vec()
        };
        let (steady, watched) = (frame(STEADY, Step::Open), frame(WATCHED, Step::Denied));
        let mut silent_since = Instant::now();
        loop {
            let is_over = self.is_over.load(Ordering::Relaxed);
            let under_way = self.sent.load(Ordering::Relaxed) - self.steady.load(Ordering::Relaxed);
            let mut moved = false;
            if !is_over && under_way < WINDOW && self.steady_sender.inject(&steady) {
                let sent = self.sent.fetch_add(1, Ordering::Relaxed);
                if sent.is_multiple_of(WATCHED_EVERY) {
                    self.watched_sender.inject(&watched);
                }
                moved = true;
            }
            for _ in 0..2 {
                moved |= self.take();
            }
            if moved {
                silent_since = Instant::now();
            } else if is_over && (under_way == 0 || silent_since.elapsed() > Duration::from_millis(200)) {
                return;
            } else {
                std::thread::yield_now();
            }
        }
    }

    /// Takes a frame that came out, if there is one.
    fn take(&self) -> bool {
        // Read before the frame is taken: what was refused by then must not be there.
        let is_refused = self.is_refused.load(Ordering::SeqCst);
        let Some(sender) = self.receiver.collect_with(|frame| frame[29]) else { return false };
        if u16::from(sender) == STEADY {
            self.steady.fetch_add(1, Ordering::Relaxed);
        } else {
            self.watched.fetch_add(1, Ordering::Relaxed);
            self.misjudged.fetch_add(u64::from(is_refused), Ordering::Relaxed);
        }
        true
    }

    /// The reply has come. What waits to be taken came out before it.
    fn refused_from_now_on(&self) {
        for _ in 0..self.receiver.waiting() {
            self.take();
        }
        self.is_refused.store(true, Ordering::SeqCst);
    }

    /// Frames of the steady flow that arrive a second while something is done.
    fn rate_during(&self, act: impl FnOnce() -> Result<(), String>) -> Result<f64, String> {
        let (started, before) = (Instant::now(), self.steady.load(Ordering::Relaxed));
        act()?;
        Ok((self.steady.load(Ordering::Relaxed) - before) as f64 / started.elapsed().as_secs_f64())
    }
}

/// Ends the flow, also when something fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_lose_nothing_and_are_in_force_when_acknowledged() {
        for (kind, workers) in [(Kind::Rule, 1), (Kind::Membership, 2), (Kind::PrefixList, 2)] {
            let show = crate::Show::default();
            let arguments = Arguments { enis: 4, rules: 10, kind, members: 3, rate: 0, changes: 40, workers, show };
            let report = run(&arguments).expect("every change is accepted");
            assert_eq!((report.lost, report.misjudged), (0, 0), "{kind:?}");
            assert!(report.watched_delivered > 0, "{kind:?}: the watched flow was admitted half of the time");
            assert!(report.packets_per_second > 0.0 && report.latency_us.p50 > 0.0);
        }
    }
}
