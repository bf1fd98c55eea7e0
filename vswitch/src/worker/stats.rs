//! Counts of what turns did.

/// What a turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Packets taken from ports and from other workers.
    pub packets: usize,
    /// Commands run, and snapshots crossed to.
    pub commands: usize,
    /// Whether a port has more frames, but the pool has no buffer until some return from other workers.
    pub is_starved: bool,
    /// How many records the sweep is behind.
    pub sweep_due: usize,
}

impl Activity {
    /// Whether there was nothing to do, and nothing is known to be coming.
    pub const fn is_idle(self) -> bool {
        self.packets == 0 && self.commands == 0 && !self.is_starved && self.sweep_due == 0
    }
}

/// Counts of a worker's turns and sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnStats {
    /// Turns that moved at least one packet.
    pub turns_busy: u64,
    /// Turns that were idle.
    pub turns_idle: u64,
    /// How often it went to sleep.
    pub sleeps: u64,
}
