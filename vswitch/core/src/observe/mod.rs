//! What a worker tells about itself: counters, explanations, sessions. It reads; only a flush ends sessions.

pub mod explain;
pub mod flow_dump;
pub mod stats;
