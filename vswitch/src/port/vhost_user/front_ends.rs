//! The front ends of a port: how they come, and which of them has the queues.
//!
//! A guest that is migrated on one machine has two for a while; the one that starts its queues last has them.

use super::front_end::FrontEnd;
use super::port_queues::{PartEvents, SharedQueues};
use crate::port::reconnection::Reconnection;
use crate::port::socket_listener::SocketListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::fd::AsRawFd;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Front ends that a port has at once.
const FRONT_ENDS_MAX: usize = 4;
/// Connections that are accepted before the worker goes on with packets.
const ACCEPTS_MAX: usize = 4;
/// Readiness events taken at once.
const EVENTS_MAX: usize = 128;

/// What else than queues has events.
pub(super) const WAKER: Token = Token(usize::MAX);
const SOCKET_OR_TIMER: Token = Token(usize::MAX - 1);
/// Front ends have the tokens from here on.
const FRONT_END_FIRST: usize = 1 << 16;

/// Who connects.
#[derive(Debug)]
enum SocketRole {
    Server(SocketListener),
    Client(Reconnection),
}

/// How often at most the log tells of front ends that a port has lost.
const TOLD_PERIOD: Duration = Duration::from_secs(10);

/// What the log is told of lost front ends: one that comes and goes a thousand times a second must not fill it.
#[derive(Debug, Default)]
struct LossLog {
    told: Option<Instant>,
    untold: u64,
}

impl LossLog {
    /// Counts a loss; what to add to a line about it, if one is due.
    fn note(&mut self, now: Instant) -> Option<String> {
        if self.told.is_some_and(|told| now.duration_since(told) < TOLD_PERIOD) {
            self.untold += 1;
            return None;
        }
        self.told = Some(now);
        match std::mem::take(&mut self.untold) {
            0 => Some(String::new()),
            untold => Some(format!(" (and {untold} more since the last line about it)")),
        }
    }
}

/// The front ends of a port.
#[derive(Debug)]
pub(super) struct FrontEnds {
    role: SocketRole,
    front_ends: Vec<FrontEnd>,
    queues: SharedQueues,
    next_number: u64,
    has_more: bool,
    loss_log: LossLog,
}

impl FrontEnds {
    /// Listens where the port is a server. Events arrive at the first part of the port.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn new(queues: SharedQueues) -> io::Result<Self> {
        let spec = &queues.spec;
        let path = PathBuf::from(&spec.path);
        let registry = &queues.parts[0].registry;
        let role = if spec.is_client {
            let reconnection = Reconnection::new(&path)?;
            registry.register(&mut SourceFd(&reconnection.timer().as_raw_fd()), SOCKET_OR_TIMER, Interest::READABLE)?;
            SocketRole::Client(reconnection)
        } else {
            let listener = SocketListener::bind(&path, spec.socket_user.as_deref())?;
            registry.register(&mut SourceFd(&listener.listener().as_raw_fd()), SOCKET_OR_TIMER, Interest::READABLE)?;
            SocketRole::Server(listener)
        };
        Ok(Self { role, front_ends: Vec::new(), queues, next_number: 1, has_more: true, loss_log: LossLog::default() })
    }

    /// Why a port without a front end carries nothing.
    pub(super) fn absence(spec: &vswitch_core::config::desired::VhostUserPort) -> String {
        match spec.is_client {
            true => format!("no front end listens at {}", spec.path),
            false => format!("no front end has connected to {}", spec.path),
        }
    }

    /// Does what has come up; to be called again soon while that returns true.
    pub(super) fn attend(&mut self) -> bool {
        let before = self.front_ends.len();
        let mut may_have_more = self.has_more;
        self.has_more = false;
        may_have_more |= self.connect();
        let mut at = 0;
        while let Some(front_end) = self.front_ends.get_mut(at) {
            match front_end.attend() {
                Ok(has_more) => {
                    self.has_more |= has_more;
                    at += 1;
                }
                Err(error) => self.remove(at, &error),
            }
        }
        if before != self.front_ends.len() || may_have_more {
            self.tell_absence();
        }
        self.has_more
    }

    fn remove(&mut self, at: usize, error: &io::Error) {
        let front_end = self.front_ends.remove(at);
        let path = &self.queues.spec.path;
        let is_fault = error.kind() != ErrorKind::ConnectionAborted;
        if is_fault {
            self.queues.peer.count_fault();
        }
        match self.loss_log.note(Instant::now()) {
            Some(more) if is_fault => log::warn!("vhost-user port at {path}: its front end is let go: {error}{more}"),
            Some(more) => log::info!("vhost-user port at {path}: its front end is gone{more}"),
            None => {}
        }
        drop(front_end);
        if let SocketRole::Client(reconnection) = &mut self.role {
            reconnection.wait();
        }
    }

    fn tell_absence(&self) {
        if self.queues.is_active() {
            return;
        }
        match self.front_ends.is_empty() {
            true => self.queues.peer.set_problem(&Self::absence(&self.queues.spec)),
            false => self.queues.peer.set_problem("the guest's driver has not started its queues"),
        };
    }

    fn connect(&mut self) -> bool {
        let mut connected = false;
        for _ in 0..ACCEPTS_MAX {
            let stream = match &mut self.role {
                SocketRole::Server(listener) => match listener.listener().accept() {
                    Ok((stream, _)) => stream,
                    Err(_) => return connected,
                },
                SocketRole::Client(reconnection) if self.front_ends.is_empty() => match reconnection.connect_if_due() {
                    Some(Ok(stream)) => stream,
                    Some(Err(_)) | None => return connected,
                },
                SocketRole::Client(_) => return connected,
            };
            connected = true;
            self.take_up(stream);
        }
        self.has_more = true;
        connected
    }

    fn take_up(&mut self, stream: UnixStream) {
        if self.front_ends.len() == FRONT_ENDS_MAX {
            // One that never started a queue gives way.
            let idle = self.front_ends.iter().position(|other| !self.queues.is_active_for(other.number()));
            match idle {
                Some(at) => self.remove(at, &io::Error::other("there are too many, and it has no queues")),
                None => return,
            }
        }
        let number = self.next_number;
        self.next_number += 1;
        let token = Token(FRONT_END_FIRST + number as usize);
        let registry = self.queues.parts[0].registry.try_clone();
        let taken = registry.and_then(|registry| FrontEnd::new(number, stream, self.queues.clone(), registry, token));
        match taken {
            Ok(front_end) => {
                if let SocketRole::Client(reconnection) = &mut self.role {
                    reconnection.reset_pause();
                }
                self.front_ends.push(front_end);
            }
            Err(error) => log::warn!("vhost-user port at {}: {error}", self.queues.spec.path),
        }
    }
}

/// Takes the events of a part of a port; whether its front ends have to be attended.
pub(super) fn take_events(poll: &mut Poll, events: &mut Events, queues: &SharedQueues) -> bool {
    let mut is_attention_due = false;
    if poll.poll(events, Some(Duration::ZERO)).is_err() {
        // Interrupted: whatever there was is still there.
        return true;
    }
    for event in &*events {
        match event.token() {
            WAKER => {}
            Token(index) if index < queues.count() => queues.note_kick(index),
            Token(_) => is_attention_due = true,
        }
    }
    is_attention_due
}

/// Room for events.
pub(super) fn events() -> Events {
    Events::with_capacity(EVENTS_MAX)
}

/// A poll of one part of a port, and where its events arrive.
///
/// # Errors
/// No descriptors are left.
pub(super) fn part() -> io::Result<(Poll, PartEvents)> {
    let poll = Poll::new()?;
    let events = PartEvents::new(&poll, WAKER)?;
    Ok((poll, events))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_told_of_losses_now_and_then_and_of_how_many() {
        let (mut log, start) = (LossLog::default(), Instant::now());
        assert_eq!(log.note(start).as_deref(), Some(""));
        assert!((1..1000).all(|number| log.note(start + TOLD_PERIOD * number / 1000).is_none()));
        assert!(log.note(start + TOLD_PERIOD).unwrap().contains("999 more"));
        assert_eq!(log.note(start + TOLD_PERIOD * 2).as_deref(), Some(""));
    }
}
