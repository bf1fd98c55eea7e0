//! The forwarding plane: ports, workers and the control socket around `vswitch-core`.
//!
//! `daemon` connects the parts; `worker` is the packet path; `switch` runs on the control thread: it reconciles,
//! publishes and answers. Folders import only from those below them: `os`, `port`, `exchange`, `services`, `worker`,
//! `switch`.

pub mod config;
pub mod daemon;
pub mod exchange;
pub mod os;
pub mod port;
pub mod services;
pub mod switch;
pub mod worker;

pub use config::VswitchConfig;
pub use daemon::{run, run_until};
pub use worker::busy_poll::BusyPoll;
