//! Many reads or writes of one descriptor in one system call, through a ring of the kernel (`io_uring`).
//!
//! Nothing is in flight between two calls. Every request is marked as non-blocking, so it completes at once, with
//! `EAGAIN` if there is nothing to read, and a call returns only after it has seen the completion of every request it
//! made. So the kernel holds no pointer to memory that others may use or free, a port can be closed at any time, and a
//! port that is not polled consumes no frames. Waiting for a descriptor's readiness works as without a ring.

use io_uring::{IoUring, opcode, squeue, types};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd};
use rustix::io::Errno;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};
use vswitch_core::config::limits::BURST_PACKETS;

/// `RWF_NOWAIT` of `linux/fs.h`.
const NO_WAIT: i32 = 8;

/// Batches that [`is_cheaper`] times. The fastest of many shows the cost without interference.
const ROUNDS: usize = 64;

/// The address and size of a piece of memory.
type Span = (*mut u8, usize);

const NOWHERE: Span = (std::ptr::null_mut(), 0);

/// The result of each request of a batch: the number of bytes, or an error.
pub type Outcomes = [Result<usize, Errno>; BURST_PACKETS];

/// A ring with room for one burst.
pub struct BatchRing(IoUring);

impl fmt::Debug for BatchRing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("BatchRing")
    }
}

impl BatchRing {
    /// Asks the kernel for a ring.
    ///
    /// # Errors
    /// The kernel's error: `EPERM` or `ENOSYS` where rings are forbidden or unknown.
    pub fn new() -> io::Result<Self> {
        let ring = IoUring::builder().build(BURST_PACKETS as u32)?;
        let mut probe = io_uring::Probe::new();
        // Asked for at once, so that a kernel without these operations is noticed here and not with the first frame.
        ring.submitter().register_probe(&mut probe)?;
        if probe.is_supported(opcode::Read::CODE) && probe.is_supported(opcode::Write::CODE) {
            return Ok(Self(ring));
        }
        Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel's rings cannot read and write"))
    }

    /// Reads once into each of the buffers, in order; at most [`BURST_PACKETS`] of them.
    pub fn read<'a>(&mut self, from: BorrowedFd<'_>, rooms: impl Iterator<Item = &'a mut [u8]>) -> Outcomes {
        let mut spans = [NOWHERE; BURST_PACKETS];
        let count = spans.iter_mut().zip(rooms).map(|(span, room)| *span = (room.as_mut_ptr(), room.len())).count();
        let descriptor = types::Fd(from.as_raw_fd());
        // SAFETY: the buffers are exclusively borrowed for `'a`, which outlives this call, and are as long as the spans
        // say; the descriptor is borrowed and thereby open until the call ends.
        unsafe {
            self.perform(&spans[..count], |(room, bytes)| {
                opcode::Read::new(descriptor, room, bytes as u32).rw_flags(NO_WAIT).build()
            })
        }
    }

    /// Writes each of the pieces, in order, whether or not earlier ones succeeded; at most [`BURST_PACKETS`] of them.
    pub fn write<'a>(&mut self, to: BorrowedFd<'_>, pieces: impl Iterator<Item = &'a [u8]>) -> Outcomes {
        let mut spans = [NOWHERE; BURST_PACKETS];
        let count =
            spans.iter_mut().zip(pieces).map(|(span, piece)| *span = (piece.as_ptr().cast_mut(), piece.len())).count();
        let descriptor = types::Fd(to.as_raw_fd());
        // SAFETY: the pieces are borrowed for `'a`, which outlives this call, and are as long as the spans say; the
        // kernel only reads them. The descriptor is borrowed and thereby open until the call ends.
        unsafe {
            self.perform(&spans[..count], |(piece, bytes)| {
                opcode::Write::new(descriptor, piece, bytes as u32).rw_flags(NO_WAIT).build()
            })
        }
    }

    /// Makes a request for each of at most [`BURST_PACKETS`] spans and waits until all have completed.
    ///
    /// # Safety
    /// The descriptor and the memory that the requests name must be valid until this returns. It returns only when as
    /// many requests have completed as were made, so the kernel does not use them afterwards; otherwise it aborts the
    /// process.
    unsafe fn perform(&mut self, spans: &[Span], request: impl Fn(Span) -> squeue::Entry) -> Outcomes {
        let mut outcomes = [Err(Errno::AGAIN); BURST_PACKETS];
        let mut open = 0;
        for (number, span) in spans.iter().enumerate() {
            let request = request(*span).user_data(number as u64);
            // SAFETY: what the request names is valid until `perform` returns, by its contract, and the loop below lets
            // it return only after the request has completed. Nothing in between can unwind.
            let pushed = unsafe { self.0.submission().push(&request) };
            // The queue has room for a burst, and it is empty whenever `perform` begins, because it ends with nothing
            // in flight.
            open += usize::from(pushed.is_ok());
        }
        while open > 0 {
            match self.0.submit_and_wait(open).map_err(|error| Errno::from_io_error(&error)) {
                // The second and third are for lack of memory or room, which completing requests free.
                Ok(_) | Err(Some(Errno::INTR | Errno::AGAIN | Errno::BUSY)) => {}
                // The kernel may still be writing, so the caller must not get its memory back.
                Err(_) => std::process::abort(),
            }
            for end in self.0.completion() {
                open = open.saturating_sub(1);
                if let Some(outcome) = outcomes.get_mut(end.user_data() as usize) {
                    *outcome = usize::try_from(end.result()).map_err(|_| Errno::from_raw_os_error(-end.result()));
                }
            }
        }
        outcomes
    }
}

/// Whether a batch through a ring is cheaper on this machine than as many system calls: it saves a kernel entry per
/// request, but each request has a cost of its own. Takes about a millisecond.
pub fn is_cheaper() -> bool {
    let (Ok(mut ring), Ok(counter)) = (BatchRing::new(), eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK))
    else {
        return false;
    };
    let mut rooms = [[0; size_of::<u64>()]; BURST_PACKETS];
    let mut fastest = [Duration::MAX; 2];
    for _ in 0..ROUNDS {
        let started = Instant::now();
        for room in &mut rooms {
            // There is nothing to read, which is the cheapest request there is.
            let _ = rustix::io::read(&counter, room);
        }
        let between = Instant::now();
        // The results are of no interest: nothing can be read from a counter that is zero.
        let _ = ring.read(counter.as_fd(), rooms.iter_mut().map(<[u8; 8]>::as_mut_slice));
        let times = [between - started, between.elapsed()];
        fastest.iter_mut().zip(times).for_each(|(fastest, time)| *fastest = time.min(*fastest));
    }
    fastest[1] < fastest[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    #[test]
    fn a_batch_moves_in_order_and_ends_where_there_is_nothing() {
        let Ok(mut ring) = BatchRing::new() else { return eprintln!("SKIPPED: this kernel gives no rings") };
        let flags = SocketFlags::CLOEXEC;
        let (near, far) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        for round in 0..3_u8 {
            let pieces: Vec<Vec<u8>> = (0..5).map(|number| vec![round * 5 + number; usize::from(number) + 1]).collect();
            let written = ring.write(near.as_fd(), pieces.iter().map(Vec::as_slice));
            assert_eq!(written[..5], [1, 2, 3, 4, 5].map(Ok));
            let mut rooms = vec![[0; 8]; BURST_PACKETS];
            let read = ring.read(far.as_fd(), rooms.iter_mut().take(7).map(<[u8; 8]>::as_mut_slice));
            assert_eq!(read[..5], [1, 2, 3, 4, 5].map(Ok));
            assert_eq!(read[5..], [Err(Errno::AGAIN); BURST_PACKETS - 5], "a descriptor that could wait does not");
            for (room, piece) in rooms.iter().zip(&pieces) {
                assert_eq!(room[..piece.len()], piece[..]);
            }
        }
    }

    #[test]
    fn each_request_has_its_own_outcome() {
        let Ok(mut ring) = BatchRing::new() else { return eprintln!("SKIPPED: this kernel gives no rings") };
        let counter = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let (one, short) = (1_u64.to_ne_bytes(), [0; 4]);
        let written = ring.write(counter.as_fd(), [&one[..], &short, &one].into_iter());
        assert_eq!(written[..3], [Ok(8), Err(Errno::INVAL), Ok(8)]);
        let mut room = [0; 8];
        assert_eq!(ring.read(counter.as_fd(), [&mut room[..]].into_iter())[0], Ok(8));
        assert_eq!(u64::from_ne_bytes(room), 2);
        assert_eq!(ring.read(counter.as_fd(), std::iter::empty())[0], Err(Errno::AGAIN));
    }
}
