//! Mapped memory of other processes that may shrink under the mapping.
//!
//! A process that shares a file may truncate it. The next access then raises SIGBUS, which ends the process unless it is
//! handled. Here the handler puts empty memory of the own process in place of the whole mapping, so that the access goes on, and notes
//! it: whoever uses the mapping asks [`GuardedRange::is_lost`] and stops using it.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Mappings that are guarded at once: 64 ports, each with as much memory as one front end may have.
const RANGES_MAX: usize = 4096;

/// One guarded range of addresses; free while its end is zero.
struct RangeSlot {
    is_taken: AtomicBool,
    start: AtomicUsize,
    end: AtomicUsize,
    is_lost: AtomicBool,
}

static RANGES: [RangeSlot; RANGES_MAX] = [const {
    RangeSlot {
        is_taken: AtomicBool::new(false),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        is_lost: AtomicBool::new(false),
    }
}; RANGES_MAX];

/// Whether any range was ever lost: while none was, a single load answers for all.
static IS_ANY_LOST: AtomicBool = AtomicBool::new(false);

/// A range of mapped addresses in which a bus error does not end the process. To be dropped before it is unmapped.
#[derive(Debug)]
pub struct GuardedRange(usize);

impl GuardedRange {
    /// Guards `bytes` from `start`, both whole pages of one mapping that only this process's caller replaces.
    ///
    /// # Errors
    /// No range is free, or what the kernel says to a signal handler.
    pub fn new(start: usize, bytes: usize) -> io::Result<Self> {
        static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
        INSTALLED.get_or_init(install).map_err(io::Error::from_raw_os_error)?;
        // Claimed before the addresses are written, so that two threads never fill one slot.
        let free = RANGES.iter().position(|slot| !slot.is_taken.swap(true, Ordering::Acquire));
        let index = free.ok_or_else(|| io::Error::other("too many mappings of guest memory"))?;
        let slot = &RANGES[index];
        slot.is_lost.store(false, Ordering::Relaxed);
        slot.start.store(start, Ordering::Relaxed);
        // The end is written last: while it is zero, the handler takes no notice of the slot.
        slot.end.store(start.saturating_add(bytes), Ordering::Release);
        Ok(Self(index))
    }

    /// Whether the memory behind the range went away. The range holds zeros then.
    #[inline]
    pub fn is_lost(&self) -> bool {
        Self::is_any_lost() && RANGES[self.0].is_lost.load(Ordering::Relaxed)
    }

    /// Whether memory behind any range ever went away.
    #[inline]
    pub fn is_any_lost() -> bool {
        IS_ANY_LOST.load(Ordering::Relaxed)
    }
}

impl Drop for GuardedRange {
    fn drop(&mut self) {
        let slot = &RANGES[self.0];
        // Emptied before it is given back, so that the handler never takes another mapping for this one.
        slot.end.store(0, Ordering::Release);
        slot.is_taken.store(false, Ordering::Release);
    }
}

fn install() -> Result<(), i32> {
    // SAFETY: `sigaction` is plain data, for which all zeros is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_bus_error as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: `action` outlives the call and names a handler of the form that `SA_SIGINFO` asks for, which does only what a
    // handler may: it reads and writes atomics and makes system calls.
    let result = unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error().raw_os_error().unwrap_or_default()) }
}

extern "C" fn on_bus_error(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid `siginfo_t` to a handler with `SA_SIGINFO`, and `si_addr` is set for SIGBUS.
    let address = unsafe { (*info).si_addr() } as usize;
    for slot in &RANGES {
        let (end, start) = (slot.end.load(Ordering::Acquire), slot.start.load(Ordering::Relaxed));
        if address < end && address >= start {
            // SAFETY: the whole range is one mapping that its owner made for shared memory of another process and accesses by
            // raw pointers and atomics alone, so its bytes may change at any time; other memory is not touched.
            let mapped = unsafe {
                libc::mmap(
                    start as *mut libc::c_void,
                    end - start,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE,
                    -1,
                    0,
                )
            };
            if mapped as usize == start {
                slot.is_lost.store(true, Ordering::Relaxed);
                IS_ANY_LOST.store(true, Ordering::Relaxed);
                return;
            }
        }
    }
    // Not an address of a guest: the default action, once the access is made again.
    // SAFETY: `SIG_DFL` is a valid disposition of every signal that may be caught.
    unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

    #[test]
    fn memory_that_shrinks_under_its_mapping_reads_as_zeros_and_is_known_for_lost() {
        const BYTES: usize = 4 << 12;
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, BYTES as u64).unwrap();
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses touches no other memory.
        let start = unsafe { mmap(std::ptr::null_mut(), BYTES, protection, MapFlags::SHARED, &file, 0) }.unwrap();
        let range = GuardedRange::new(start as usize, BYTES).unwrap();
        let last = start.cast::<u8>().wrapping_add(BYTES - 1);
        // SAFETY: `last` is within the mapping.
        unsafe { last.write_volatile(7) };
        assert!(!range.is_lost());
        ftruncate(&file, 0).unwrap();
        // SAFETY: as above; the guard keeps the address mapped.
        assert_eq!(unsafe { last.read_volatile() }, 0);
        assert!(range.is_lost());
        // SAFETY: as above.
        unsafe { last.write_volatile(9) };
        drop(range);
        // SAFETY: nothing uses the mapping any more.
        unsafe { munmap(start, BYTES) }.unwrap();
    }
}
