//! What turns did.

/// What a turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Packets taken from ports and from other workers.
    pub packets: usize,
    /// Commands done, and snapshots crossed to.
    pub commands: usize,
    /// A port has more, but the pool has no buffer: they are on their way back from other workers.
    pub is_starved: bool,
    /// Flow records that the sweep should have come to by now.
    pub sweep_due: usize,
}

impl Activity {
    /// Whether there was nothing to do, and nothing is known to come.
    pub const fn is_idle(self) -> bool {
        self.packets == 0 && self.commands == 0 && !self.is_starved && self.sweep_due == 0
    }
}

/// How often what happened to a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnStats {
    /// Turns that moved at least one packet.
    pub turns_busy: u64,
    /// Turns that found nothing to do.
    pub turns_idle: u64,
    /// Times it went to sleep.
    pub sleeps: u64,
}
