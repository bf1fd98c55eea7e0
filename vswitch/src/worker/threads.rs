//! The threads that turn workers, one each; they are started and ended as the number of workers changes.

use crate::exchange::doorbell::{Doorbell, Waker};
use crate::worker::Worker;
use crate::worker::busy_poll::BusyPoll;
use crate::worker::driver::{WorkerDriver, WorkerEndpoint};
use crate::worker::thread::{DOORBELL, MonotonicClock, WorkerLoop, WorkerThread};
use mio::Poll;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use vswitch_core::hw::time::Time;

/// A worker that makes progress ends the control thread's wait at once; this is for one that does not.
const WAIT_MAX: Duration = Duration::from_millis(5);
/// How long a worker may take for a turn.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The threads of all workers. See the module's page.
pub(crate) struct WorkerThreads {
    clock: MonotonicClock,
    busy_poll: BusyPoll,
    /// The cores that workers are pinned to in turn; empty if the kernel chooses.
    cores: Vec<usize>,
    /// By worker number. Reserved threads have no worker yet.
    threads: Vec<WorkerThread>,
}

impl WorkerThreads {
    pub(crate) fn new(pin: bool, busy_poll: BusyPoll, clock: MonotonicClock) -> Self {
        let cores = if pin { core_affinity::get_core_ids().unwrap_or_default() } else { Vec::new() };
        let cores = cores.into_iter().map(|core| core.id).collect();
        Self { clock, busy_poll, cores, threads: Vec::new() }
    }

    /// Ends all threads and drops their workers.
    pub(crate) fn end(self) {
        self.threads.into_iter().for_each(WorkerThread::end);
    }

    fn start(&mut self, number: usize) -> io::Result<WorkerEndpoint> {
        let core = (!self.cores.is_empty()).then(|| self.cores[number % self.cores.len()]);
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let doorbell = Arc::new(Doorbell::new(Some(Waker::new(poll.registry(), DOORBELL)?)));
        let (its_doorbell, busy_poll, clock) = (Arc::clone(&doorbell), self.busy_poll, self.clock);
        let worker_loop = WorkerLoop { poll, doorbell: its_doorbell, core, busy_poll, clock };
        self.threads.push(WorkerThread::spawn(number, worker_loop)?);
        Ok(WorkerEndpoint { doorbell, registry, core })
    }

    fn shrink_to(&mut self, workers: usize) {
        let surplus = self.threads.split_off(workers.min(self.threads.len()));
        surplus.into_iter().for_each(WorkerThread::end);
    }
}

impl WorkerDriver for WorkerThreads {
    fn now(&self) -> Time {
        self.clock.now()
    }

    fn wait(&mut self) {
        std::thread::park_timeout(WAIT_MAX);
    }

    fn reserve(&mut self, workers: usize) -> io::Result<Vec<WorkerEndpoint>> {
        let before = self.threads.len();
        let endpoints: io::Result<Vec<_>> = (before..workers).map(|number| self.start(number)).collect();
        // All or none: threads without workers would only be in the way.
        endpoints.inspect_err(|_| self.shrink_to(before))
    }

    fn pause_all(&mut self) -> Option<Vec<Worker>> {
        let busy: Vec<&WorkerThread> = self.threads.iter().filter(|thread| thread.has_worker()).collect();
        busy.iter().for_each(|thread| thread.request_pause());
        // All are asked before any is waited for, so that the pause is as long as the longest turn.
        let workers: Vec<Option<Worker>> = busy.iter().map(|thread| thread.take(PAUSE_TIMEOUT)).collect();
        if workers.iter().all(Option::is_some) {
            return Some(workers.into_iter().flatten().collect());
        }
        let count = workers.len();
        // One worker did not stop, so those that did go on as before.
        for (thread, worker) in busy.iter().zip(workers) {
            worker.into_iter().for_each(|worker| thread.give(worker));
        }
        self.shrink_to(count);
        None
    }

    fn resume(&mut self, workers: Vec<Worker>) {
        let count = workers.len();
        for (thread, mut worker) in self.threads.iter().zip(workers) {
            worker.set_stopwatch_clock(MonotonicClock::stopwatch_ns);
            thread.give(worker);
        }
        self.shrink_to(count);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod tests {
    use super::*;
    use crate::exchange::publish::{Publication, Published};
    use crate::exchange::services::ServiceLinks;
    use crate::worker::mailbox::Mailbox;
    use vswitch_core::compile::compile;
    use vswitch_core::config::desired::Desired;
    use vswitch_core::datapath::shard::Shard;
    use vswitch_core::tables::cow_array::CowArray;

    fn workers(count: usize) -> Vec<Worker> {
        let snapshot = Arc::new(compile(&Desired::default(), 0).unwrap());
        let publication =
            Arc::new(Publication::new(count, Published { sequence: 0, snapshot, locations: CowArray::default() }));
        let services = ServiceLinks::new(Doorbell::new(None), Doorbell::new(None));
        let one = |number| {
            let mailbox = Arc::new(Mailbox::new(None));
            let (publication, services) = (Arc::clone(&publication), services.clone());
            Worker::new(number, publication, services, mailbox, Shard::new(64, [1, 2]))
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn a_worker_that_is_asked_for_comes_or_goes_on_turning() {
        let mut driver = WorkerThreads::new(false, BusyPoll::default(), MonotonicClock::start());
        driver.reserve(2).unwrap();
        driver.resume(workers(2));
        let mut came = [0, 0];
        for round in 0..4000 {
            // Sometimes too short, sometimes long enough, sometimes just when the wait ends.
            let timeout = Duration::from_nanos([0, 200, 1_000, 5_000, 20_000, 80_000][round % 6]);
            let thread = &driver.threads[round % 2];
            thread.request_pause();
            let worker = thread.take(timeout);
            came[usize::from(worker.is_some())] += 1;
            worker.into_iter().for_each(|worker| thread.give(worker));
        }
        println!("{came:?}");
        assert!(came.iter().all(|count| *count > 0), "{came:?}");
        // Reserved, and then not needed.
        driver.reserve(3).unwrap();
        let workers = driver.pause_all().unwrap();
        assert_eq!(workers.iter().map(Worker::number).collect::<Vec<_>>(), [0, 1]);
        driver.resume(workers);
        assert_eq!(driver.threads.len(), 2);
        driver.end();
    }
}
