//! The configuration of a forwarding plane.

use crate::port::factory::PortFactory;
use crate::worker::busy_poll::BusyPoll;
use std::path::PathBuf;

/// The configuration of a forwarding plane.
#[derive(Clone, Debug)]
pub struct VswitchConfig {
    /// The path of the control socket.
    pub socket: PathBuf,
    /// The number of workers.
    pub workers: usize,
    /// How many sessions each worker has room for.
    pub flows_max_per_worker: usize,
    /// Whether each worker is pinned to a core of its own.
    pub pin: bool,
    /// When idle workers sleep.
    pub busy_poll: BusyPoll,
    /// How ports are opened; fault injection and memory ports are for tests.
    pub ports: PortFactory,
}

impl VswitchConfig {
    /// One pinned worker with room for half a million sessions.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            workers: 1,
            flows_max_per_worker: 1 << 19,
            pin: true,
            busy_poll: BusyPoll::default(),
            ports: PortFactory::default(),
        }
    }
}
