//! Whoever turns the workers: threads, or a test by hand.

use super::Worker;
use crate::exchange::doorbell::Doorbell;
use std::io;
use std::sync::Arc;
use vswitch_core::time::Time;

/// Whoever turns the workers, and how to wait for them.
pub trait Pacer {
    /// The time.
    fn now(&self) -> Time;
    /// Lets workers go on for a while. Returns early when one of them made progress.
    fn pause(&mut self);
    /// Gets everything ready for there being `workers` workers, which [`Pacer::release`] may then be given. Returns what
    /// those have that are not there yet, or nothing where workers are turned by hand.
    ///
    /// # Errors
    /// Why there cannot be as many. Nothing has changed.
    fn reserve(&mut self, workers: usize) -> io::Result<Vec<WorkerWiring>>;
    /// Takes all workers, each between two turns, until they are released; none, and nothing has changed, if one of them
    /// does not come.
    fn gather(&mut self) -> Option<Vec<Worker>>;
    /// Lets workers turn, as many as were gathered or reserved.
    fn release(&mut self, workers: Vec<Worker>);
}

/// Turns workers by hand while the switch waits for them: for tests and simulation, on one thread, in virtual time.
#[derive(Debug)]
pub struct HandPacer<'a> {
    /// The workers.
    pub workers: &'a mut Vec<Worker>,
    /// The virtual time. Each pause takes a microsecond.
    pub now: Time,
}

impl Pacer for HandPacer<'_> {
    fn now(&self) -> Time {
        self.now
    }

    fn pause(&mut self) {
        self.now = self.now + 1_000;
        for worker in &mut *self.workers {
            worker.turn(self.now);
        }
    }

    fn reserve(&mut self, _workers: usize) -> io::Result<Vec<WorkerWiring>> {
        Ok(Vec::new())
    }

    fn gather(&mut self) -> Option<Vec<Worker>> {
        Some(std::mem::take(self.workers))
    }

    fn release(&mut self, workers: Vec<Worker>) {
        *self.workers = workers;
    }
}

/// What connects a worker that has a thread with those that give it work.
#[derive(Debug)]
pub struct WorkerWiring {
    /// Wakes it.
    pub doorbell: Arc<Doorbell>,
    /// Where its ports' descriptors are registered.
    pub registry: mio::Registry,
    /// The core it is pinned to.
    pub core: Option<usize>,
}
