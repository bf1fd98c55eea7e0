//! A thread that serves guests: sleeps until a guest asks, or something is due.

use crate::exchange::services::ServiceLink;
use mio::{Events, Poll, Token};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use vswitch_core::hw::time::Time;

/// The token of the doorbell that wakes it.
pub const DOORBELL: Token = Token(0);
/// Beside the doorbell, a listener and a connection may be waited for.
const EVENTS_MAX: usize = 8;

/// What such a thread does, without the thread.
pub trait ServiceTurn {
    /// The link over which workers hand requests over.
    fn link(&self) -> Arc<ServiceLink>;
    /// Answers what waits, and sends what is due. How much that was.
    fn turn(&mut self, now: Time) -> usize;
    /// Whether there is something to take up: to be asked before the thread sleeps.
    fn has_input(&self) -> bool;
    /// When there is something to do unasked.
    fn next_due(&self) -> Option<Time>;
}

/// The thread, until it is ended.
#[derive(Debug)]
pub struct ServiceThread {
    link: Arc<ServiceLink>,
    is_ending: Arc<AtomicBool>,
    handle: JoinHandle<()>,
}

impl ServiceThread {
    /// Starts it under a name. `poll` is where the doorbell of the link is registered.
    ///
    /// # Errors
    /// The kernel has no thread to give.
    pub fn spawn(
        name: &str,
        mut services: impl ServiceTurn + Send + 'static,
        poll: Poll,
        now: impl Fn() -> Time + Send + 'static,
    ) -> io::Result<Self> {
        let link = services.link();
        let is_ending = Arc::<AtomicBool>::default();
        let events = Events::with_capacity(EVENTS_MAX);
        let mut service_loop =
            ServiceLoop { link: Arc::clone(&link), is_ending: Arc::clone(&is_ending), poll, events, now };
        let handle = std::thread::Builder::new().name(name.into()).spawn(move || {
            while !service_loop.is_ending.load(Ordering::Acquire) {
                if services.turn((service_loop.now)()) == 0 {
                    service_loop.sleep(&services);
                }
            }
        })?;
        Ok(Self { link, is_ending, handle })
    }

    /// Ends it.
    pub fn end(self) {
        self.is_ending.store(true, Ordering::Release);
        self.link.doorbell().ring();
        if self.handle.join().is_err() {
            log::error!("a service thread panicked: guests got no answers from it since");
        }
    }
}

struct ServiceLoop<N> {
    link: Arc<ServiceLink>,
    is_ending: Arc<AtomicBool>,
    poll: Poll,
    events: Events,
    now: N,
}

impl<N: Fn() -> Time> ServiceLoop<N> {
    fn sleep(&mut self, services: &impl ServiceTurn) {
        self.link.doorbell().declare_asleep();
        if !services.has_input() && !self.is_ending.load(Ordering::Acquire) {
            let now = (self.now)();
            let due = services.next_due();
            let timeout = due.map(|due| Duration::from_nanos(due.as_ns().saturating_sub(now.as_ns())));
            // The only error of a valid poll is an interruption, after which everything is looked at anyway.
            let _ = self.poll.poll(&mut self.events, timeout);
        }
        self.link.doorbell().declare_awake();
    }
}
