//! The interface to whatever turns the workers: threads, or a test.

use super::Worker;
use crate::exchange::doorbell::Doorbell;
use std::io;
use std::sync::Arc;
use vswitch_core::hw::time::Time;

/// Turns the workers and waits for them.
pub trait WorkerDriver {
    /// The current time.
    fn now(&self) -> Time;
    /// Lets workers run for a while. Returns early when one of them makes progress.
    fn wait(&mut self);
    /// Prepares for `workers` workers, which may then be passed to [`WorkerDriver::resume`]. Returns the endpoints of
    /// the new ones, or none if workers are driven manually.
    ///
    /// # Errors
    /// Why there cannot be as many; nothing has changed then.
    fn reserve(&mut self, workers: usize) -> io::Result<Vec<WorkerEndpoint>>;
    /// Takes all workers, each between two turns, until they are resumed. Returns `None`, having changed nothing, if
    /// one of them does not stop.
    fn pause_all(&mut self) -> Option<Vec<Worker>>;
    /// Lets workers run, as many as were paused or reserved.
    fn resume(&mut self, workers: Vec<Worker>);
}

/// Turns workers while the switch waits for them, on one thread and in virtual time, for tests and simulation.
#[derive(Debug)]
pub struct ManualDriver<'a> {
    /// The workers.
    pub workers: &'a mut Vec<Worker>,
    /// The virtual time. Each wait takes one microsecond.
    pub now: Time,
}

impl WorkerDriver for ManualDriver<'_> {
    fn now(&self) -> Time {
        self.now
    }

    fn wait(&mut self) {
        self.now = self.now + 1_000;
        for worker in &mut *self.workers {
            worker.turn(self.now);
        }
    }

    fn reserve(&mut self, _workers: usize) -> io::Result<Vec<WorkerEndpoint>> {
        Ok(Vec::new())
    }

    fn pause_all(&mut self) -> Option<Vec<Worker>> {
        Some(std::mem::take(self.workers))
    }

    fn resume(&mut self, workers: Vec<Worker>) {
        *self.workers = workers;
    }
}

/// The connections to a worker that has a thread.
#[derive(Debug)]
pub struct WorkerEndpoint {
    /// Wakes the worker.
    pub doorbell: Arc<Doorbell>,
    /// Registers the descriptors of its ports.
    pub registry: mio::Registry,
    /// The core that it is pinned to.
    pub core: Option<usize>,
}
