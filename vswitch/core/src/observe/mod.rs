//! What a worker reports: counters, explanations, sessions. It only reads, except that a flush ends sessions.

pub mod explain;
pub mod flow_dump;
pub mod guest_network;
pub mod stats;
