//! When an idle worker goes to sleep. This only decides, by times that the caller passes in.
//!
//! Waking a thread costs the guest's kernel microseconds, so spinning pays off for gaps shorter than that and not for
//! longer ones. The length of the coming gap is unknown; the lengths of the last ones are known.

use vswitch_core::hw::time::Time;

/// How long an idle worker spins if its last sleep was long, ns. It is short because the guests' kernels need the cores
/// as well.
const SPIN_MIN_NS: u64 = 20_000;
/// The longest spin, ns. After a sleep shorter than this, the next spin is twice as long.
const SPIN_MAX_NS: u64 = 50_000;

/// When an idle worker goes to sleep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BusyPoll {
    /// Never; for a core reserved for the worker.
    Always,
    /// After a short spin.
    #[default]
    Adaptive,
    /// At once.
    Never,
}

/// How long one worker has been spinning, and how long it will.
#[derive(Debug)]
pub(crate) struct Spin {
    busy_poll: BusyPoll,
    /// When the first idle turn in a row began; `None` if the last turn did something.
    idle_since: Option<Time>,
    length_ns: u64,
}

impl Spin {
    pub(crate) const fn new(busy_poll: BusyPoll) -> Self {
        Self { busy_poll, idle_since: None, length_ns: SPIN_MIN_NS }
    }

    /// Notes that a turn did something.
    pub(crate) fn was_busy(&mut self) {
        self.idle_since = None;
    }

    /// Notes that a turn which began at `now` was idle. Returns whether to sleep.
    pub(crate) fn is_over(&mut self, now: Time) -> bool {
        let idle_since = self.idle_since.get_or_insert(now);
        match self.busy_poll {
            BusyPoll::Always => false,
            BusyPoll::Adaptive => now.as_ns().saturating_sub(idle_since.as_ns()) >= self.length_ns,
            BusyPoll::Never => true,
        }
    }

    /// Notes that the worker slept from the turn that began at `from` until `now`.
    pub(crate) fn slept(&mut self, from: Time, now: Time) {
        self.idle_since = None;
        // A gap shorter than the longest spin would have been bridged by it.
        let is_short = now.as_ns().saturating_sub(from.as_ns()) < SPIN_MAX_NS;
        self.length_ns = if is_short { (self.length_ns * 2).min(SPIN_MAX_NS) } else { SPIN_MIN_NS };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ns: u64) -> Time {
        Time::from_ns(ns)
    }

    /// How long it spins from `start` on, in steps of a microsecond.
    fn spins(spin: &mut Spin, start: u64) -> u64 {
        (0..=1_000).map(|turn| turn * 1_000).find(|after| spin.is_over(at(start + after))).unwrap_or(u64::MAX)
    }

    #[test]
    fn short_sleeps_make_longer_spins_and_a_long_one_ends_that() {
        let mut spin = Spin::new(BusyPoll::Adaptive);
        assert_eq!(spins(&mut spin, 0), SPIN_MIN_NS);
        spin.slept(at(0), at(10_000));
        assert_eq!(spins(&mut spin, 1_000_000), 2 * SPIN_MIN_NS);
        spin.slept(at(0), at(10_000));
        assert_eq!(spins(&mut spin, 2_000_000), SPIN_MAX_NS);
        spin.slept(at(0), at(SPIN_MAX_NS));
        assert_eq!(spins(&mut spin, 3_000_000), SPIN_MIN_NS);
    }

    #[test]
    fn what_is_busy_starts_anew() {
        let mut spin = Spin::new(BusyPoll::Adaptive);
        assert!(!spin.is_over(at(0)) && !spin.is_over(at(SPIN_MIN_NS - 1)));
        spin.was_busy();
        assert!(!spin.is_over(at(SPIN_MIN_NS)) && spin.is_over(at(2 * SPIN_MIN_NS)));
    }

    #[test]
    fn the_other_ways_are_never_and_at_once() {
        assert_eq!(spins(&mut Spin::new(BusyPoll::Always), 0), u64::MAX);
        assert_eq!(spins(&mut Spin::new(BusyPoll::Never), 0), 0);
    }
}
