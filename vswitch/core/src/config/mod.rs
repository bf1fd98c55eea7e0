//! What control sends and receives: the desired state and its changes, the messages, names and bounds.

mod delta;
pub mod desired;
pub mod dhcp;
pub mod explanation;
pub mod ids;
pub mod limits;
pub mod packed_timeouts;
pub mod phase_times;
pub mod protocol;
pub mod rate_limits;
pub mod refusal;
mod rule;
pub mod services;
pub mod uplink;
pub mod validate;
