//! The thread that turns a worker: spins while there is work, sleeps soon after there is none.

use crate::doorbell::Doorbell;
use crate::polling::{BusyPoll, Spin};
use crate::worker::Worker;
use mio::{Events, Poll, Token};
use std::io;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vswitch_core::time::Time;

/// The longest sleep: idle sessions are swept at least so often.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// Turns between two looks at the descriptors of ports that were drained.
const TURNS_PER_POLL: u32 = 8;
/// Readiness events taken at once.
const EVENTS_MAX: usize = 1024;
/// The token of the doorbell; ports have their slots.
pub(crate) const DOORBELL: Token = Token(usize::MAX);

/// The origin of [`Time`], chosen once by the daemon.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Now for a stopwatch, ns since the process first asked.
    pub fn stopwatch_ns() -> u64 {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed().as_nanos() as u64
    }

    /// A clock that starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    pub fn now(self) -> Time {
        Time::from_ns(self.0.elapsed().as_nanos() as u64)
    }
}

/// What a worker's thread needs beside the worker.
#[derive(Debug)]
pub struct WorkerLoop {
    /// Where its ports and its doorbell are registered.
    pub poll: Poll,
    /// The bells of all workers.
    pub doorbells: Arc<[Doorbell]>,
    /// The core to be pinned to.
    pub core: Option<usize>,
    /// When it sleeps.
    pub busy_poll: BusyPoll,
    /// Set to end the thread; the doorbell is to be rung after that.
    pub stop: Arc<AtomicBool>,
    /// The clock.
    pub clock: Clock,
}

impl WorkerLoop {
    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel has no thread to give.
    pub fn spawn(self, worker: Worker) -> io::Result<JoinHandle<()>> {
        let name = format!("worker-{}", worker.number());
        std::thread::Builder::new().name(name).spawn(move || {
            // A switch that lost a worker would look alive and drop the traffic of some: better to be restarted whole.
            let abort = AbortOnPanic;
            self.run(worker);
            std::mem::forget(abort);
        })
    }

    fn run(mut self, mut worker: Worker) {
        if let Some(id) = self.core {
            core_affinity::set_for_current(core_affinity::CoreId { id });
        }
        worker.time_with(Clock::stopwatch_ns);
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut spin = Spin::new(self.busy_poll);
        let mut turns: u32 = 0;
        while !self.stop.load(Ordering::Acquire) {
            turns = turns.wrapping_add(1);
            let now = self.clock.now();
            if !worker.turn(now).is_idle() {
                spin.was_busy();
            } else if spin.is_over(now) {
                worker.rest();
                self.sleep(&mut worker, &mut events);
                spin.slept(now, self.clock.now());
                continue;
            }
            if turns.is_multiple_of(TURNS_PER_POLL) {
                self.wait(&mut worker, &mut events, Duration::ZERO);
            }
        }
    }

    fn sleep(&mut self, worker: &mut Worker, events: &mut Events) {
        let number = worker.number();
        self.doorbells[number].declare_asleep();
        if !worker.has_input() && !self.stop.load(Ordering::Acquire) {
            worker.note_sleep();
            self.wait(worker, events, SLEEP_MAX);
        }
        self.doorbells[number].declare_awake();
    }

    fn wait(&mut self, worker: &mut Worker, events: &mut Events, timeout: Duration) {
        if let Err(error) = self.poll.poll(events, Some(timeout)) {
            // The only one that a valid poll gives, and harmless: the turn that follows looks at everything.
            debug_assert_eq!(error.kind(), io::ErrorKind::Interrupted);
            return;
        }
        for event in events.iter().filter(|event| event.token() != DOORBELL) {
            worker.mark_ready(event.token().0);
        }
    }
}

struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        std::process::abort();
    }
}
