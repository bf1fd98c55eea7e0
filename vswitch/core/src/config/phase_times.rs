//! Where the time of bursts was spent, as a worker reports it.

use serde::{Deserialize, Serialize};

/// Time spent in each phase of the bursts that were timed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTimes {
    /// Packets in the timed bursts.
    pub packets: u64,
    /// Receiving bursts from their ports, ns.
    pub receive_ns: u64,
    /// Parsing and routing frames, and prefetching their sessions, ns.
    pub admit_ns: u64,
    /// Deciding at both ENIs, opening and counting sessions, ns.
    pub judge_ns: u64,
    /// Handing packets to other workers and to ports, ns.
    pub send_ns: u64,
}

impl PhaseTimes {
    /// The phases with their names and the time that each takes per packet, ns; `None` before a burst was timed.
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
