//! The output of long-running processes, on standard output and standard error.
//!
//! A reader that is gone or does not read, or a full disk behind a file, costs lines but never the process: nothing
//! here panics or waits. Lost lines are counted, and the count is written with the next line that succeeds.

use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Bytes of a line including its end. A pipe accepts this many as a whole or not at all (`PIPE_BUF`).
const LINE_BYTES_MAX: usize = 4096;

/// Sends everything that this process logs to standard error, with the prefix `name`. Only the first call has an
/// effect.
pub fn install(name: &'static str) {
    // If a file reaches its size limit, be it a log's, the write must fail instead of ending the process. If the
    // handler cannot be installed, nothing changes.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
    static LOGGER: OnceLock<Logger> = OnceLock::new();
    let logger = LOGGER.get_or_init(|| Logger { name, output: LogOutput::new(&io::stderr()) });
    if log::set_logger(logger).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

/// Writes a line to standard output.
pub fn announce(text: &str) {
    static OUTPUT: OnceLock<LogOutput> = OnceLock::new();
    OUTPUT.get_or_init(|| LogOutput::new(&io::stdout())).write(&io::stdout(), format_args!("{text}"));
}

struct Logger {
    name: &'static str,
    output: LogOutput,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        // Libraries log much at lower levels.
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            self.output.write(&io::stderr(), format_args!("{}: {}", self.name, record.args()));
        }
    }

    fn flush(&self) {}
}

/// Where lines go.
struct LogOutput {
    /// The pipe, opened again, so that it can be non-blocking for this process without being so for others that write
    /// to it.
    pipe: Option<OwnedFd>,
    lost: AtomicU64,
}

impl LogOutput {
    fn new(stream: &impl AsFd) -> Self {
        Self { pipe: open_again(stream.as_fd()), lost: AtomicU64::new(0) }
    }

    fn write(&self, stream: &impl AsFd, text: fmt::Arguments) {
        let descriptor = self.pipe.as_ref().map_or_else(|| stream.as_fd(), AsFd::as_fd);
        // Taken out and put back with the line: of two threads, only one reports a count.
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let is_out = match lost {
            0 => write_line(descriptor, &text.to_string()),
            _ => write_line(descriptor, &format!("{text} ({lost} lines before this one were lost)")),
        };
        if !is_out {
            self.lost.fetch_add(lost + 1, Ordering::Relaxed);
        }
    }
}

fn open_again(descriptor: BorrowedFd<'_>) -> Option<OwnedFd> {
    // Only a pipe can make a writer wait for its reader; files are always ready.
    use std::os::fd::AsRawFd as _;
    let status = rustix::fs::fstat(descriptor).ok()?;
    if FileType::from_raw_mode(status.st_mode) != FileType::Fifo {
        return None;
    }
    let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).ok()
}

/// Writes a line. Returns whether that succeeded.
fn write_line(descriptor: BorrowedFd<'_>, text: &str) -> bool {
    // Further lines of a text are indented, so that they cannot be taken for entries of their own.
    let mut line = text.replace('\n', "\n  ");
    // Cut at a character, or the log would no longer be valid UTF-8.
    let end = line.floor_char_boundary(LINE_BYTES_MAX - 1);
    line.truncate(end);
    line.push('\n');
    // Asked first: a descriptor that others share may be blocking.
    has_room(descriptor) && rustix::io::write(descriptor, line.as_bytes()).is_ok()
}

/// Whether a line can be written without waiting for a reader. Files are always ready, if only to report that they are
/// full.
fn has_room(descriptor: BorrowedFd<'_>) -> bool {
    let mut asked = [PollFd::from_borrowed_fd(descriptor, PollFlags::OUT)];
    let polled = poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    polled.is_ok() && asked[0].revents().contains(PollFlags::OUT)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};
    use std::io::Read;

    #[test]
    fn a_reader_that_does_not_read_costs_lines_and_no_time() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let output = LogOutput::new(&writer);
        for number in 0..100_000 {
            output.write(&writer, format_args!("line {number}"));
        }
        assert!(output.lost.load(Ordering::Relaxed) > 0, "the pipe took everything, and the test proves nothing");
        let mut reader = std::fs::File::from(reader);
        let mut room = vec![0; 1 << 20];
        let count = reader.read(&mut room).unwrap();
        assert!(room[..count].ends_with(b"\n"), "no line is cut");
        output.write(&writer, format_args!("again"));
        let count = reader.read(&mut room).unwrap();
        let told = String::from_utf8_lossy(&room[..count]).into_owned();
        assert!(told.starts_with("again (") && told.ends_with("lines before this one were lost)\n"), "{told}");
    }

    #[test]
    fn a_reader_that_is_gone_and_a_full_disk_cost_lines() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        drop(reader);
        let output = LogOutput::new(&writer);
        output.write(&writer, format_args!("into nowhere"));
        assert_eq!(output.lost.load(Ordering::Relaxed), 1);
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = LogOutput::new(&full);
        output.write(&full, format_args!("onto a full disk"));
        assert_eq!(output.lost.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_line_is_bounded_and_ends_within_no_character() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        LogOutput::new(&writer).write(&writer, format_args!("x{}", "ä".repeat(LINE_BYTES_MAX)));
        drop(writer);
        let mut text = String::new();
        std::fs::File::from(reader).read_to_string(&mut text).unwrap();
        assert!(text.len() <= LINE_BYTES_MAX && text.ends_with("ä\n"), "{}", text.len());
    }
}
