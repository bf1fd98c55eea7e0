//! The forwarding plane: ports, workers and the control socket around `vswitch-core`.

pub mod namespace;
pub mod netlink;
pub mod port;
pub mod sys;
