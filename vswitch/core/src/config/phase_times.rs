//! Where the time of bursts went, as a worker reports it.

use serde::{Deserialize, Serialize};

/// Time that the phases of the bursts that were timed took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTimes {
    /// Packets in these bursts.
    pub packets: u64,
    /// Taking bursts from their ports, ns.
    pub receive_ns: u64,
    /// Reading and routing frames, and asking for their sessions, ns.
    pub admit_ns: u64,
    /// Deciding at both ENIs, opening and counting sessions, ns.
    pub judge_ns: u64,
    /// Handing over to other workers and to ports, ns.
    pub send_ns: u64,
}

impl PhaseTimes {
    /// The phases with their names and the time that one packet takes in each, ns; nothing before a burst was timed.
    pub fn per_packet(&self) -> Option<[(&'static str, f64); 4]> {
        let one = |ns: u64| ns as f64 / self.packets as f64;
        let phases = [
            ("receive", one(self.receive_ns)),
            ("admit", one(self.admit_ns)),
            ("judge", one(self.judge_ns)),
            ("send", one(self.send_ns)),
        ];
        (self.packets > 0).then_some(phases)
    }
}
