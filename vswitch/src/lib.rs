//! The forwarding plane: ports, workers and the control socket around `vswitch-core`.
//!
//! `daemon` composes; `worker` is the packet path; `switch` is the cold half that reconciles, publishes and answers.

pub mod control_socket;
mod crew;
pub mod daemon;
pub mod doorbell;
mod flows;
pub mod handoff;
pub mod isolation;
mod link;
pub mod namespace;
pub mod netlink;
pub mod notes;
pub mod packet_socket;
pub mod placement;
mod polling;
pub mod port;
pub mod publish;
pub mod recall;
pub mod reconcile;
mod requests;
pub mod ring;
mod stats;
pub mod switch;
mod sync;
pub mod sys;
pub mod worker;
pub mod worker_desk;
pub mod worker_thread;

pub use daemon::{VswitchConfig, run, run_until};
pub use polling::BusyPoll;
