//! Traffic while rules change: a steady flow that no change affects, and watched flows, which are alternately admitted
//! and refused.

use crate::traffic::frames::{self, Flow, FlowStep, Shape};
use crate::traffic::mix::FlowTransport;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vswitch::port::memory::MemoryGuest;
use vswitch_core::packet::FrameBuffer;

/// The numbers of the ENIs: sender and receiver of the steady flow, and the sender of the watched flows.
pub(crate) const STEADY: u16 = 1;
pub(crate) const RECEIVER: u16 = 2;
pub(crate) const WATCHED: u16 = 3;

/// How much is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Frames of the steady flow in flight: so few that no queue of the switch is ever full.
    pub(crate) window: u64,
    /// Frames of the steady flow for each frame of the watched flows.
    pub(crate) steady_per_watched: u64,
}

/// The traffic. See the module's page.
pub(crate) struct ProbeTraffic {
    pace: Pace,
    steady_sender: MemoryGuest,
    receiver: MemoryGuest,
    watched_sender: MemoryGuest,
    /// The receivers of the watched flows, one for each.
    watched_receivers: Vec<(u16, MemoryGuest)>,
    started: Instant,
    is_over: AtomicBool,
    /// Counts how often the watched flows were refused and admitted. While it is odd they are refused, and no frame of
    /// theirs may leave the switch.
    period: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) steady: AtomicU64,
    /// Frames of the watched flows that were sent.
    pub(crate) watched_sent: AtomicU64,
    /// Frames of the watched flows that came out.
    pub(crate) watched: AtomicU64,
    /// When the last of them was taken, since the beginning.
    last_watched_ns: AtomicU64,
    pub(crate) misjudged: AtomicU64,
}

/// The EtherType of all flows.
const IPV4: [u8; 2] = [8, 0];

/// How many receivers of watched flows are checked in one round.
const RECEIVERS_A_ROUND: usize = 64;

impl ProbeTraffic {
    /// Traffic between the ends that `guest` returns by number; watched flows go to each of `watched_to`.
    pub(crate) fn new(
        guest: impl Fn(u16) -> MemoryGuest,
        watched_to: impl IntoIterator<Item = u16>,
        pace: Pace,
    ) -> Self {
        let count = AtomicU64::default;
        Self {
            pace,
            steady_sender: guest(STEADY),
            receiver: guest(RECEIVER),
            watched_sender: guest(WATCHED),
            watched_receivers: watched_to.into_iter().map(|number| (number, guest(number))).collect(),
            started: Instant::now(),
            is_over: AtomicBool::new(false),
            period: count(),
            sent: count(),
            steady: count(),
            watched_sent: count(),
            watched: count(),
            last_watched_ns: count(),
            misjudged: count(),
        }
    }

    /// Sends as much as comes out, and takes it, until it is over and everything is out.
    fn flow(&self) {
        let shape = Shape { is_v6: false, transport: FlowTransport::Udp, services: 1, addresses: 1 };
        let frame = |client, server, step| {
            let mut buffer = FrameBuffer::with_capacity(64);
            frames::write(&mut buffer, shape, (Flow { client, server, source_port: 5000 }, step), 64);
            buffer.frame().to_vec()
        };
        let steady = frame(STEADY, RECEIVER, FlowStep::Open);
        let watched: Vec<_> =
            self.watched_receivers.iter().map(|&(server, _)| frame(WATCHED, server, FlowStep::Denied)).collect();
        let mut next_watched = watched.iter().cycle();
        let mut next_receiver = self.watched_receivers.iter().map(|(_, receiver)| receiver).cycle();
        let receivers_a_round = watched.len().min(RECEIVERS_A_ROUND);
        let mut silent_since = Instant::now();
        loop {
            let is_over = self.is_over.load(Ordering::Relaxed);
            let under_way = self.sent.load(Ordering::Relaxed).saturating_sub(self.steady.load(Ordering::Relaxed));
            let mut moved = false;
            if !is_over && under_way < self.pace.window && self.steady_sender.inject(&steady) {
                let sent = self.sent.fetch_add(1, Ordering::Relaxed);
                if sent.is_multiple_of(self.pace.steady_per_watched)
                    && let Some(frame) = next_watched.next()
                {
                    self.watched_sent.fetch_add(self.watched_sender.inject(frame).into(), Ordering::Relaxed);
                }
                moved = true;
            }
            for receiver in [&self.receiver; 2].into_iter().chain(next_receiver.by_ref().take(receivers_a_round)) {
                moved |= self.take(receiver);
            }
            if moved {
                silent_since = Instant::now();
            } else if is_over && (under_way == 0 || silent_since.elapsed() > Duration::from_millis(200)) {
                return;
            } else {
                std::thread::yield_now();
            }
        }
    }

    /// Takes a frame that came out here, if there is one.
    fn take(&self, receiver: &MemoryGuest) -> bool {
        let before = self.period.load(Ordering::SeqCst);
        let flow = |frame: &[u8]| (frame[12..14] == IPV4).then(|| frame[29]);
        let Some(sender) = receiver.collect_with(flow) else { return false };
        // The router advertises itself to a guest whenever it likes: such a frame is of no flow.
        let Some(sender) = sender else { return true };
        if u16::from(sender) == STEADY {
            self.steady.fetch_add(1, Ordering::Relaxed);
        } else {
            self.last_watched_ns.fetch_max(self.now_ns(), Ordering::SeqCst);
            self.watched.fetch_add(1, Ordering::Relaxed);
            // If the period ended while this thread was suspended, it may have ended before the frame came out.
            let is_misjudged = before % 2 == 1 && self.period.load(Ordering::SeqCst) == before;
            self.misjudged.fetch_add(u64::from(is_misjudged), Ordering::Relaxed);
        }
        true
    }

    /// Takes everything that is waiting now.
    fn take_waiting(&self) {
        for (_, receiver) in &self.watched_receivers {
            for _ in 0..receiver.waiting() {
                self.take(receiver);
            }
        }
    }

    /// Notes that the reply has arrived. What is waiting to be taken came out before it.
    pub(crate) fn refused_from_now_on(&self) {
        self.take_waiting();
        self.period.fetch_or(1, Ordering::SeqCst);
    }

    /// Notes that the request is about to be sent.
    pub(crate) fn admitted_from_now_on(&self) {
        // What came out until now was refused.
        self.take_waiting();
        let period = self.period.load(Ordering::SeqCst);
        self.period.store(period.next_multiple_of(2), Ordering::SeqCst);
    }

    /// The time since the beginning.
    pub(crate) fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// When the last frame of a watched flow was taken, since the beginning; 0 if none ever was.
    pub(crate) fn last_watched_ns(&self) -> u64 {
        self.last_watched_ns.load(Ordering::SeqCst)
    }

    /// Frames of the steady flow that arrive per second while `act` runs.
    pub(crate) fn rate_during(&self, act: impl FnOnce() -> Result<(), String>) -> Result<f64, String> {
        let (started, before) = (Instant::now(), self.steady.load(Ordering::Relaxed));
        act()?;
        Ok((self.steady.load(Ordering::Relaxed) - before) as f64 / started.elapsed().as_secs_f64())
    }

    /// Runs `act` while traffic flows, then lets everything come out.
    pub(crate) fn flow_during(&self, act: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        std::thread::scope(|scope| {
            let generator = scope.spawn(|| self.flow());
            let ending = EndOnDrop(&self.is_over);
            let done = act();
            drop(ending);
            generator.join().map_err(|_| "the generator panicked".to_string())?;
            done
        })
    }
}

/// Ends the flow, even after a failure.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
