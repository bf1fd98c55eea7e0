//! The processing of a burst, and the state that each worker owns.

pub(crate) mod anti_spoof;
pub(crate) mod counters;
mod eligibility;
pub(crate) mod fast_path;
pub mod forward;
pub mod migrate;
pub(crate) mod packet_context;
pub(crate) mod path_cache;
mod rate_limit;
mod reclaim;
pub(crate) mod session_update;
pub mod shard;
pub(crate) mod slow_path;
pub mod stage_timing;
pub(crate) mod sweep;
pub(crate) mod uplink;
