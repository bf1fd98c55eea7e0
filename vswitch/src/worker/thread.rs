//! The thread that turns a worker: it spins while there is work, and sleeps soon after there is none.

use crate::exchange::doorbell::Doorbell;
use crate::worker::Worker;
use crate::worker::busy_poll::{BusyPoll, Spin};
use crate::worker::pause::PauseRequest;
use mio::{Events, Poll, Token};
use std::io;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vswitch_core::config::limits::BURST_PACKETS;
use vswitch_core::hw::time::Time;

/// The longest sleep, so that expired sessions are swept at least this often.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// The time between two checks of the descriptors of empty ports, while there is no work and while there is, ns.
const IDLE_POLL_NS: u64 = 4_000;
const BUSY_POLL_NS: u64 = 25_000;
/// How many packets pass before the clock is read again, and how many a turn counts for: reading it takes as long as
/// evaluating a packet.
const PACKETS_PER_TIME: usize = BURST_PACKETS;
const TURN_IN_PACKETS: usize = 4;
/// Readiness events handled at once.
const EVENTS_MAX: usize = 1024;
/// The token of the doorbell; the tokens of ports are their slots.
pub(crate) const DOORBELL: Token = Token(usize::MAX);

/// The origin of [`Time`], chosen once by the daemon.
#[derive(Clone, Copy, Debug)]
pub struct MonotonicClock(Instant);

impl MonotonicClock {
    /// The time for a stopwatch, in ns since the process first asked.
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

/// What a worker's thread needs apart from the worker.
#[derive(Debug)]
pub struct WorkerLoop {
    /// Where its ports and its doorbell are registered.
    pub poll: Poll,
    /// Its doorbell.
    pub doorbell: Arc<Doorbell>,
    /// The core to pin it to.
    pub core: Option<usize>,
    /// When it sleeps.
    pub busy_poll: BusyPoll,
    /// The clock.
    pub clock: MonotonicClock,
}

/// A thread that turns the worker it is given until it is asked to return it.
#[derive(Debug)]
pub struct WorkerThread {
    pause: Arc<PauseRequest>,
    doorbell: Arc<Doorbell>,
    to: Sender<Worker>,
    from: Receiver<Worker>,
    handle: JoinHandle<()>,
}

impl WorkerThread {
    /// Starts a thread that has no worker yet.
    ///
    /// # Errors
    /// The kernel cannot create a thread.
    pub fn spawn(number: usize, mut worker_loop: WorkerLoop) -> io::Result<Self> {
        let (pause, doorbell) = (Arc::<PauseRequest>::default(), Arc::clone(&worker_loop.doorbell));
        let its_pause = Arc::clone(&pause);
        let ((to, inbox), (outbox, from)) = (channel::<Worker>(), channel());
        let handle = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            // A switch that lost a worker would look alive and drop the traffic of some ENIs, so it is better to
            // restart it whole.
            let abort = AbortOnPanic;
            // Pinned by the thread itself: the affinity of Linux belongs to a thread, not to a process.
            worker_loop.pin();
            while let Ok(mut worker) = inbox.recv() {
                worker_loop.run_until_paused(&mut worker, &its_pause);
                if outbox.send(worker).is_err() {
                    break;
                }
            }
            // Forgotten on the orderly way out; it only acts while a panic unwinds.
            std::mem::forget(abort);
        })?;
        Ok(Self { pause, doorbell, to, from, handle })
    }

    /// Gives the thread a worker to turn.
    pub fn give(&self, worker: Worker) {
        // The state is running before the thread has the worker, so that no pause request is overwritten.
        self.pause.start();
        // A thread that panicked has aborted the process.
        let _ = self.to.send(worker);
    }

    /// Whether it has a worker.
    pub fn has_worker(&self) -> bool {
        self.pause.has_worker()
    }

    /// Asks it to return the worker.
    pub fn request_pause(&self) {
        self.pause.request(&self.doorbell);
    }

    /// The worker that was asked for; `None`, and the thread continues with it, if it is not returned in time.
    pub fn take(&self, timeout: Duration) -> Option<Worker> {
        if let Ok(worker) = self.from.recv_timeout(timeout) {
            return Some(worker);
        }
        // Too late to cancel means that the thread has confirmed, so the worker is certain to come.
        if self.pause.cancel() { None } else { self.from.recv().ok() }
    }

    /// Ends the thread and drops its worker.
    pub fn end(self) {
        if self.has_worker() {
            self.request_pause();
        }
        // With the sender gone, a thread that waits for a worker ends.
        drop(self.to);
        // A worker that panics aborts the process, so the result tells nothing.
        let _ = self.handle.join();
    }
}

impl WorkerLoop {
    fn pin(&self) {
        if let Some(id) = self.core {
            core_affinity::set_for_current(core_affinity::CoreId { id });
        }
    }

    fn run_until_paused(&mut self, worker: &mut Worker, pause: &PauseRequest) {
        loop {
            self.run(worker, pause);
            // A request that was cancelled meanwhile lets the worker run on.
            if pause.confirm() {
                return;
            }
        }
    }

    fn run(&mut self, worker: &mut Worker, pause: &PauseRequest) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut spin = Spin::new(self.busy_poll);
        let mut now = self.clock.now();
        let (mut packets, mut polled) = (0, now);
        while pause.is_running() {
            if packets >= PACKETS_PER_TIME {
                (packets, now) = (0, self.clock.now());
            }
            let activity = worker.turn(now);
            packets += TURN_IN_PACKETS + activity.packets;
            let is_idle = activity.is_idle();
            if !is_idle {
                spin.was_busy();
            } else if spin.is_over(now) {
                // A port may have received something after its last poll; then the worker must not sleep.
                if worker.disarm_idle() {
                    self.sleep(worker, pause, &mut events);
                    let slept_at = std::mem::replace(&mut now, self.clock.now());
                    spin.slept(slept_at, now);
                }
                continue;
            }
            // While there is work, descriptors are asked only now and then: a system call per turn would cost more.
            let interval_ns = if is_idle { IDLE_POLL_NS } else { BUSY_POLL_NS };
            if now.as_ns().saturating_sub(polled.as_ns()) >= interval_ns {
                polled = now;
                self.wait(worker, &mut events, Duration::ZERO);
            }
        }
    }

    fn sleep(&mut self, worker: &mut Worker, pause: &PauseRequest, events: &mut Events) {
        // Declared before the last check of the inputs; see `doorbell.rs` for why no wake-up is lost.
        self.doorbell.declare_asleep();
        if !worker.has_input() && pause.is_running() {
            worker.note_sleep();
            self.wait(worker, events, SLEEP_MAX);
        }
        self.doorbell.declare_awake();
    }

    fn wait(&mut self, worker: &mut Worker, events: &mut Events, timeout: Duration) {
        if let Err(error) = self.poll.poll(events, Some(timeout)) {
            // The only error of a valid poll. It is harmless, since the turn that follows checks everything.
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
