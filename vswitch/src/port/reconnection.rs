//! When a port whose peer listens connects to it again: after pauses that grow while nobody is there.

use crate::port::socket_listener::connect_now;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The first pause between two attempts; each is twice as long as the one before.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
/// The longest pause. Some peers give up for good after a minute without a switch.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The shortest time of a timer: zero would stop it.
const AT_ONCE: Duration = Duration::from_nanos(1);

/// A socket to connect to, and a timer that tells when.
#[derive(Debug)]
pub(super) struct Reconnection {
    path: PathBuf,
    timer: OwnedFd,
    pause: Duration,
}

impl Reconnection {
    /// The first attempt is due at once.
    ///
    /// # Errors
    /// No descriptors are left.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let reconnection = Self { path: path.to_owned(), timer, pause: PAUSE_FIRST };
        reconnection.set_timer(AT_ONCE);
        Ok(reconnection)
    }

    /// Becomes readable when an attempt is due.
    pub(super) fn timer(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// Connects if an attempt is due. If it fails, the next is due after a pause.
    pub(super) fn connect_if_due(&mut self) -> Option<io::Result<UnixStream>> {
        let is_due = rustix::io::read(&self.timer, &mut [0; 8]) == Ok(8);
        let connected = is_due.then(|| connect_now(&self.path))?;
        if connected.is_err() {
            self.wait();
        }
        Some(connected)
    }

    /// Has the next attempt be due after a pause.
    pub(super) fn wait(&mut self) {
        self.set_timer(self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// The connection is in use: the next pause is as short as the first.
    pub(super) fn reset_pause(&mut self) {
        self.pause = PAUSE_FIRST;
    }

    fn set_timer(&self, after: Duration) {
        let it_value = Timespec { tv_sec: after.as_secs() as i64, tv_nsec: after.subsec_nanos().into() };
        let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        // Only a malformed time is refused.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn pauses_grow_until_somebody_listens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let mut reconnection = Reconnection::new(&path).unwrap();
        let mut attempt = || loop {
            if let Some(connected) = reconnection.connect_if_due() {
                let pause = reconnection.pause;
                if connected.is_ok() {
                    reconnection.reset_pause();
                }
                return (connected.is_ok(), pause);
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(attempt(), (false, PAUSE_FIRST * 2));
        assert_eq!(attempt(), (false, PAUSE_FIRST * 4));
        let listener = UnixListener::bind(&path).unwrap();
        assert!(attempt().0);
        drop(listener);
        reconnection.wait();
        assert_eq!(reconnection.pause, PAUSE_FIRST * 2, "anew");
        (0..10).for_each(|_| reconnection.wait());
        assert_eq!(reconnection.pause, PAUSE_MAX);
        assert!(reconnection.connect_if_due().is_none(), "not before its time");
    }
}
