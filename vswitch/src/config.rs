//! How a forwarding plane is to run.

use crate::port::factory::PortFactory;
use crate::worker::busy_poll::BusyPoll;
use std::path::PathBuf;

/// How the forwarding plane is to run.
#[derive(Clone, Debug)]
pub struct VswitchConfig {
    /// Where the control socket is to be.
    pub socket: PathBuf,
    /// How many workers.
    pub workers: usize,
    /// Sessions each worker has room for.
    pub flows_max_per_worker: usize,
    /// Whether each worker is pinned to a core of its own.
    pub pin: bool,
    /// When workers with nothing to do sleep.
    pub busy_poll: BusyPoll,
    /// How ports are made; faults and memory ports are for tests.
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
