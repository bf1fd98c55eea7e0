//! Timing in rounds of chunks. The machine is quiet only for moments, so chunks are short, the lowest tenth of a round
//! shows the cost of the work, and programs to be compared take rounds in alternation.

use crate::chart::Quantiles;
use crate::progress::Progress;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::io::{BufRead, Write};
use std::time::Instant;

/// Items timed together: enough for the clock's resolution, few enough to separate quiet moments from others.
pub(crate) const CHUNK_ITEMS: usize = 8192;

/// The times of a round, ns per item.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Round {
    /// The tenth percentile of the chunks, as when nothing else runs on the machine.
    pub(crate) quiet_ns: f64,
    /// The median of the chunks.
    pub(crate) median_ns: f64,
    /// The 99th percentile of the chunks.
    pub(crate) p99_ns: f64,
    /// The 99.9th percentile of the chunks.
    pub(crate) p999_ns: f64,
    /// The worst chunk.
    pub(crate) max_ns: f64,
    #[serde(skip)]
    pub(crate) quantiles: Quantiles,
}

/// Work that can be done in chunks.
pub(crate) trait Chunks {
    /// Prepares the next chunk; not timed.
    fn prepare(&mut self);

    /// Processes the chunk; timed.
    fn work(&mut self);

    /// Whether the chunk was processed as planned; if not, the time means nothing.
    fn check(&self) -> Result<(), String>;
}

/// The number of items in so many millions, in whole chunks.
pub(crate) fn items(millions: f64) -> Result<usize, String> {
    const MILLIONS_MAX: f64 = 1e6;
    if !(0.0..=MILLIONS_MAX).contains(&millions) {
        return Err(format!("--millions lies between 0 and {MILLIONS_MAX}"));
    }
    Ok(((millions * 1e6) as usize).div_ceil(CHUNK_ITEMS).max(1) * CHUNK_ITEMS)
}

/// Measures `items` in one round.
pub(crate) fn measure(chunks: &mut impl Chunks, items: usize, progress: &mut Progress) -> Result<Round, String> {
    let mut times = Times::new()?;
    let count = items / CHUNK_ITEMS;
    for number in 0..count {
        progress.show(number as f64 / count as f64);
        times.add(chunks)?;
    }
    progress.end();
    Ok(times.round())
}

/// Measures `items` of each in alternation, a few chunks at a time, so that both see the same machine.
pub(crate) fn in_turn<A: Chunks, B: Chunks>(
    one: &mut A,
    other: &mut B,
    items: usize,
    progress: &mut Progress,
) -> Result<(Round, Round), String> {
    const CHUNKS_AT_A_TIME: usize = 8;
    let (mut of_one, mut of_other) = (Times::new()?, Times::new()?);
    let turns = (items / CHUNK_ITEMS).div_ceil(CHUNKS_AT_A_TIME);
    for turn in 0..turns {
        progress.show(turn as f64 / turns as f64);
        (0..CHUNKS_AT_A_TIME).try_for_each(|_| of_one.add(one))?;
        (0..CHUNKS_AT_A_TIME).try_for_each(|_| of_other.add(other))?;
    }
    progress.end();
    Ok((of_one.round(), of_other.round()))
}

/// Times of chunks, in hundredths of a ns per item.
struct Times(Histogram<u64>);

const HUNDREDTHS: f64 = 100.0;

impl Times {
    fn new() -> Result<Self, String> {
        Histogram::new_with_bounds(1, 1_000_000_000, 3).map(Self).map_err(|error| error.to_string())
    }

    fn add(&mut self, chunks: &mut impl Chunks) -> Result<(), String> {
        chunks.prepare();
        let started = Instant::now();
        timed(chunks);
        let spent_ns = started.elapsed().as_nanos() as f64;
        self.0.saturating_record((spent_ns * HUNDREDTHS / CHUNK_ITEMS as f64) as u64);
        chunks.check()
    }

    fn round(&self) -> Round {
        let at = |quantile: f64| self.0.value_at_quantile(quantile) as f64 / HUNDREDTHS;
        Round {
            quiet_ns: at(0.1),
            median_ns: at(0.5),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            max_ns: at(1.0),
            quantiles: Quantiles::of(&self.0, 1.0 / HUNDREDTHS),
        }
    }
}

/// A function of its own, by which `scripts/bench-gate` separates what is measured from the rest.
#[inline(never)]
fn timed(chunks: &mut impl Chunks) {
    chunks.work();
}

/// Prints a line of JSON that describes the measurement, then measures a round for every line read, so that another
/// program can run in between.
pub(crate) fn on_request(chunks: &mut impl Chunks, items: usize, about: &serde_json::Value) -> Result<(), String> {
    let mut output = std::io::stdout().lock();
    // The other program waits for the line, so it must not stay in a buffer.
    let mut say = |line: &serde_json::Value| writeln!(output, "{line}").and_then(|()| output.flush());
    say(about).map_err(|error| error.to_string())?;
    for line in std::io::stdin().lock().lines() {
        line.map_err(|error| error.to_string())?;
        let round = measure(chunks, items, &mut Progress::silent())?;
        let round = serde_json::to_value(round).map_err(|error| error.to_string())?;
        say(&round).map_err(|error| error.to_string())?;
    }
    Ok(())
}
