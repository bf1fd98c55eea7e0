//! Whoever turns the workers: threads, or a test by hand.

use super::Worker;
use crate::exchange::doorbell::Doorbell;
use std::io;
use std::sync::Arc;
use vswitch_core::hw::time::Time;

/// Whoever turns the workers, and how to wait for them.
pub trait WorkerDriver {
    /// The time.
    fn now(&self) -> Time;
    /// Lets workers go on for a while. Returns early when one of them made progress.
    fn wait(&mut self);
    /// Gets everything ready for there being `workers` workers, which [`WorkerDriver::resume`] may then be given. Returns what
    /// those have that are not there yet, or nothing where workers are turned by hand.
    ///
    /// # Errors
    /// Why there cannot be as many. Nothing has changed.
    fn reserve(&mut self, workers: usize) -> io::Result<Vec<WorkerEndpoint>>;
    /// Takes all workers, each between two turns, until they are resumed; none, and nothing has changed, if one of them
    /// does not come.
    fn pause_all(&mut self) -> Option<Vec<Worker>>;
    /// Lets workers turn, as many as were paused or reserved.
    fn resume(&mut self, workers: Vec<Worker>);
}

/// Turns workers by hand while the switch waits for them: for tests and simulation, on one thread, in virtual time.
#[derive(Debug)]
pub struct ManualDriver<'a> {
    /// The workers.
    pub workers: &'a mut Vec<Worker>,
    /// The virtual time. Each wait takes a microsecond.
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

/// What connects a worker that has a thread with those that give it work.
#[derive(Debug)]
pub struct WorkerEndpoint {
    /// Wakes it.
    pub doorbell: Arc<Doorbell>,
    /// Where its ports' descriptors are registered.
    pub registry: mio::Registry,
    /// The core it is pinned to.
    pub core: Option<usize>,
}
