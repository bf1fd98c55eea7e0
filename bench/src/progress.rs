//! The progress of a long run, on standard error.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// A progress line. See the module's page.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    is_shown: bool,
    is_terminal: bool,
    next: Instant,
    is_dirty: bool,
}

impl Progress {
    /// Shown on a terminal, and elsewhere only on request.
    pub(crate) fn new(what: &'static str, is_asked_for: bool) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        Self { what, is_shown: is_terminal || is_asked_for, is_terminal, next: Instant::now(), is_dirty: false }
    }

    /// Never shown.
    pub(crate) fn silent() -> Self {
        Self { what: "", is_shown: false, is_terminal: false, next: Instant::now(), is_dirty: false }
    }

    /// Shows which share is done, no more often than one can read.
    pub(crate) fn show(&mut self, share: f64) {
        if !self.is_shown || Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + Duration::from_millis(if self.is_terminal { 200 } else { 2000 });
        self.is_dirty = true;
        let (start, end) = if self.is_terminal { ("\r", "\x1b[K") } else { ("", "\n") };
        // If it cannot be shown, nothing is lost.
        let _ = write!(std::io::stderr(), "{start}{}: {:.0} %{end}", self.what, share * 100.0);
    }

    /// Clears the line.
    pub(crate) fn end(&mut self) {
        if std::mem::take(&mut self.is_dirty) && self.is_terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
