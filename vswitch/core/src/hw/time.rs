//! Time as the core sees it: an argument, never a call to the machine.

use core::ops::Add;

/// An instant, in nanoseconds since an origin that the shell chooses once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

/// The time resolution of sessions: sixteenths of a second, so that 32 bits last eight years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u32);

/// Ticks of a second.
pub(crate) const TICKS_PER_SECOND: u64 = 16;
const NS_PER_SECOND: u64 = 1_000_000_000;

impl Time {
    /// The instant `ns` nanoseconds after the origin.
    pub const fn from_ns(ns: u64) -> Self {
        Self(ns)
    }

    /// Nanoseconds since the origin.
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// This instant in the resolution of sessions.
    pub const fn tick(self) -> Tick {
        Tick((self.0 / (NS_PER_SECOND / TICKS_PER_SECOND)) as u32)
    }
}

impl Add<u64> for Time {
    type Output = Self;

    /// This instant `ns` nanoseconds later.
    fn add(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }
}

impl Tick {
    /// Whether at least `seconds` have passed from `self` to `now`.
    pub const fn is_older_than(self, seconds: u32, now: Tick) -> bool {
        self.age_ticks(now) as u64 >= seconds as u64 * TICKS_PER_SECOND
    }

    /// Ticks from `self` to `now`; zero if `self` lies ahead.
    pub const fn age_ticks(self, now: Tick) -> u32 {
        now.0.saturating_sub(self.0)
    }

    /// Milliseconds from `self` to `now`; zero if `self` lies ahead.
    pub const fn age_ms(self, now: Tick) -> u64 {
        self.age_ticks(now) as u64 * 1000 / TICKS_PER_SECOND
    }
}
