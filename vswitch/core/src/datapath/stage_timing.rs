//! Measures where a worker spends its time: one burst of many is timed, phase by phase.

use crate::config::phase_times::PhaseTimes;

/// Returns the nanoseconds since some fixed moment.
pub type Clock = fn() -> u64;

/// One in this many bursts is timed, since reading a clock takes as long as evaluating a packet.
const BURSTS_PER_SAMPLE: u32 = 64;
/// After one without packets, so many pass before the next is timed: an idle worker would read the clock all the time. Odd,
/// so that it is not always the same one of two ports.
const BURSTS_AFTER_EMPTY: u32 = 15;

/// The phases of a burst, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is received from its port.
    Receive,
    /// Frames are parsed, checked and routed, and sessions are prefetched.
    Admit,
    /// Both ENIs decide, and sessions are opened and counted.
    Evaluate,
    /// It is handed to other workers and to the receivers' ports.
    Send,
}

/// Times some of the bursts.
#[derive(Debug, Default)]
pub struct Stopwatch {
    clock: Option<Clock>,
    bursts: u32,
    /// When the last phase ended, while a burst is being timed.
    last_ns: Option<u64>,
    /// The times so far, without and with the burst being timed.
    times: PhaseTimes,
    timing: PhaseTimes,
}

impl Stopwatch {
    /// A stopwatch with a clock; without one, nothing is timed.
    pub fn new(clock: Clock) -> Self {
        Self { clock: Some(clock), ..Self::default() }
    }

    /// Replaces the clock, and keeps the times so far.
    pub fn set_clock(&mut self, clock: Clock) {
        self.clock = Some(clock);
    }

    /// Begins a burst.
    #[inline]
    pub fn start(&mut self) {
        self.bursts = self.bursts.wrapping_add(1);
        if self.bursts.is_multiple_of(BURSTS_PER_SAMPLE) {
            self.last_ns = self.clock.map(|clock| clock());
            // Work on a copy, so that a burst without packets leaves no trace in the times.
            self.timing = self.times;
        }
    }

    /// Ends a phase.
    #[inline]
    pub fn lap(&mut self, phase: Phase) {
        if let (Some(last_ns), Some(clock)) = (self.last_ns, self.clock) {
            let now_ns = clock();
            let phase_ns = match phase {
                Phase::Receive => &mut self.timing.receive_ns,
                Phase::Admit => &mut self.timing.admit_ns,
                Phase::Evaluate => &mut self.timing.judge_ns,
                Phase::Send => &mut self.timing.send_ns,
            };
            // A clock that steps back must not add centuries.
            *phase_ns += now_ns.saturating_sub(last_ns);
            self.last_ns = Some(now_ns);
        }
    }

    /// Ends a burst. One without packets does not count; another soon is timed instead.
    #[inline]
    pub fn finish(&mut self, packets: usize) {
        if self.last_ns.take().is_none() {
            return;
        }
        if packets == 0 {
            // Idle turns say nothing about packets.
            self.bursts = self.bursts.wrapping_sub(BURSTS_AFTER_EMPTY);
            return;
        }
        self.timing.packets += packets as u64;
        self.times = self.timing;
    }

    /// The times so far.
    pub const fn times(&self) -> PhaseTimes {
        self.times
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicU64, Ordering};

    static NOW_NS: AtomicU64 = AtomicU64::new(0);

    #[test]
    fn one_burst_of_many_is_timed_and_empty_ones_count_for_nothing() {
        let mut stopwatch = Stopwatch::new(|| NOW_NS.load(Ordering::Relaxed));
        let mut burst = |packets: usize| {
            stopwatch.start();
            for (phase, ns) in [(Phase::Receive, 10), (Phase::Admit, 20), (Phase::Evaluate, 30), (Phase::Send, 40)] {
                NOW_NS.fetch_add(ns, Ordering::Relaxed);
                stopwatch.lap(phase);
            }
            stopwatch.finish(packets);
            stopwatch.times()
        };
        for _ in 1..BURSTS_PER_SAMPLE {
            assert_eq!(burst(5), PhaseTimes::default());
        }
        assert_eq!(burst(0), PhaseTimes::default());
        for _ in 1..BURSTS_AFTER_EMPTY {
            assert_eq!(burst(5), PhaseTimes::default());
        }
        let expected = PhaseTimes { packets: 5, receive_ns: 10, admit_ns: 20, judge_ns: 30, send_ns: 40 };
        assert_eq!(burst(5), expected);
        assert_eq!(burst(5), expected);
        assert_eq!(expected.per_packet().map(|phases| phases[1]), Some(("admit", 4.0)));
        assert_eq!(PhaseTimes::default().per_packet(), None);
    }
}
