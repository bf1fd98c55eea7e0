//! Memory that a guest shares. Every address is looked up and every length checked here; the guest may change bytes at any
//! time, so they are read and written through raw pointers and atomics alone, and copied before they are judged.

use crate::os::bus_error::GuardedRange;
use rustix::fd::AsFd;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use vswitch_core::hw::prefetch;

/// Regions that one front end may share.
pub(super) const REGIONS_MAX: usize = 509;
const PAGE_BYTES: usize = 4096;

/// Kinds of file systems on which shared memory may be, as in `linux/magic.h`: a server in another process that answers page
/// faults (FUSE, network file systems) could stop a worker for as long as it likes.
const FILE_SYSTEMS: [(u64, usize); 6] = [
    (0x0102_1994, PAGE_BYTES), // tmpfs, and files of memfd_create
    (0x9584_58f6, 2 << 20),    // hugetlbfs; the size of its pages is the block size
    (0x8584_58f6, PAGE_BYTES), // ramfs
    (0xef53, PAGE_BYTES),      // ext4
    (0x5846_5342, PAGE_BYTES), // XFS
    (0x9123_683e, PAGE_BYTES), // Btrfs
];
const HUGETLBFS: u64 = 0x9584_58f6;

/// A mapped file, or a part of one.
#[derive(Debug)]
pub(super) struct FileMapping {
    start: NonNull<u8>,
    bytes: usize,
    /// None only while it is unmapped.
    guard: Option<GuardedRange>,
    /// What a test has in place of a file.
    #[cfg(test)]
    allocation: Option<std::alloc::Layout>,
}

// SAFETY: the mapping is plain memory that the value owns; all access goes through raw pointers and atomics, which other
// processes share anyway.
unsafe impl Send for FileMapping {}
// SAFETY: as above.
unsafe impl Sync for FileMapping {}

impl FileMapping {
    /// Maps `bytes` of a file from its start.
    ///
    /// # Errors
    /// The file is not of plain memory or of a local disk, is shorter, or what the kernel says.
    pub(super) fn new(file: impl AsFd, bytes: u64) -> io::Result<Self> {
        let of_file = rustix::fs::fstatfs(&file)?;
        let kind = of_file.f_type as u64 & 0xffff_ffff;
        let known = FILE_SYSTEMS.iter().find(|(magic, _)| *magic == kind);
        let Some((_, page_bytes)) = known else {
            return Err(io::Error::other(format!(
                "guest memory is on a file system of kind {kind:#x}; memfd, tmpfs, hugetlbfs and local disks will do"
            )));
        };
        let page_bytes = if kind == HUGETLBFS { of_file.f_bsize as usize } else { *page_bytes };
        let bytes = usize::try_from(bytes).ok().and_then(|bytes| bytes.checked_next_multiple_of(page_bytes.max(1)));
        let bytes = bytes.filter(|bytes| *bytes > 0 && *bytes <= isize::MAX as usize);
        let bytes = bytes.ok_or_else(|| io::Error::other("a region of guest memory has no sensible size"))?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory of this process.
        let start = unsafe { mmap(std::ptr::null_mut(), bytes, protection, flags, file, 0) }?;
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("a mapping at address 0"))?;
        let mut mapping = Self {
            start,
            bytes,
            guard: None,
            #[cfg(test)]
            allocation: None,
        };
        mapping.guard = Some(GuardedRange::new(start.as_ptr() as usize, bytes)?);
        Ok(mapping)
    }

    /// Sets bits of a byte; nothing if there is no such byte.
    pub(super) fn set_bits(&self, offset: usize, bits: u8) {
        if offset < self.bytes {
            // SAFETY: the byte is within the mapping, and others access it by atomics or from other processes.
            let byte = unsafe { self.start.add(offset).cast::<AtomicU8>().as_ref() };
            byte.fetch_or(bits, Ordering::Relaxed);
        }
    }

    fn is_lost(&self) -> bool {
        self.guard.as_ref().is_some_and(GuardedRange::is_lost)
    }
}

impl Drop for FileMapping {
    fn drop(&mut self) {
        self.guard = None;
        #[cfg(test)]
        if let Some(layout) = self.allocation {
            // SAFETY: it was allocated with this layout, and whoever points into it holds the value.
            return unsafe { std::alloc::dealloc(self.start.as_ptr(), layout) };
        }
        // SAFETY: the value owns the mapping, and whoever points into it holds the value.
        let _unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// A region as its front end describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RegionSpec {
    /// Where it is for the guest.
    pub(super) guest_address: u64,
    /// Where it is for the front end.
    pub(super) user_address: u64,
    pub(super) bytes: u64,
    /// Where it begins in the file.
    pub(super) file_offset: u64,
}

/// A region of guest memory. Clones share the mapping.
#[derive(Clone, Debug)]
pub(super) struct Region {
    pub(super) spec: RegionSpec,
    /// Where it is mapped.
    start: NonNull<u8>,
    mapping: Arc<FileMapping>,
}

// SAFETY: `start` points into the mapping, which is shared as said above.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Maps it.
    ///
    /// # Errors
    /// As [`FileMapping::new`], or the numbers make no sense.
    pub(super) fn new(spec: RegionSpec, file: impl AsFd) -> io::Result<Self> {
        let sum = |start: u64| start.checked_add(spec.bytes);
        let (Some(_), Some(_), Some(file_bytes)) =
            (sum(spec.guest_address), sum(spec.user_address), sum(spec.file_offset))
        else {
            return Err(io::Error::other("a region of guest memory ends behind the last address"));
        };
        let mapping = Arc::new(FileMapping::new(file, file_bytes)?);
        // SAFETY: the offset is within the mapping, which ends no earlier than the region.
        let start = unsafe { mapping.start.add(spec.file_offset as usize) };
        Ok(Self { spec, start, mapping })
    }

    fn overlaps(&self, other: &Self) -> bool {
        let crosses = |one: u64, another: u64| one < another + other.spec.bytes && another < one + self.spec.bytes;
        crosses(self.spec.guest_address, other.spec.guest_address)
            || crosses(self.spec.user_address, other.spec.user_address)
    }
}

/// All memory that a guest shares. It stays mapped for as long as anything refers to it.
#[derive(Debug)]
pub(super) struct GuestMemory {
    /// The largest first: most frames are there.
    regions: Vec<Region>,
    largest: RegionWindow,
}

/// Where a region is, and no more; empty where there is none.
#[derive(Clone, Copy, Debug)]
struct RegionWindow {
    guest_address: u64,
    bytes: u64,
    start: NonNull<u8>,
}

// SAFETY: a pointer into memory that processes share, accessed as said above.
unsafe impl Send for RegionWindow {}
// SAFETY: as above.
unsafe impl Sync for RegionWindow {}

impl Default for GuestMemory {
    fn default() -> Self {
        Self { regions: Vec::new(), largest: RegionWindow { guest_address: 0, bytes: 0, start: NonNull::dangling() } }
    }
}

/// Bytes of guest memory, all of them mapped.
#[derive(Clone, Copy, Debug)]
pub(super) struct GuestSlice<'a> {
    start: NonNull<u8>,
    bytes: usize,
    memory: std::marker::PhantomData<&'a GuestMemory>,
}

impl GuestMemory {
    /// Memory of these regions.
    ///
    /// # Errors
    /// Two overlap, or there are too many.
    pub(super) fn new(mut regions: Vec<Region>) -> io::Result<Self> {
        if regions.len() > REGIONS_MAX {
            return Err(io::Error::other(format!("more than {REGIONS_MAX} regions of guest memory")));
        }
        let overlap = regions.iter().enumerate().any(|(at, one)| regions[..at].iter().any(|other| one.overlaps(other)));
        if overlap {
            return Err(io::Error::other("regions of guest memory overlap"));
        }
        regions.sort_by_key(|region| std::cmp::Reverse(region.spec.bytes));
        let largest = regions.first().map(|region| {
            let RegionSpec { guest_address, bytes, .. } = region.spec;
            RegionWindow { guest_address, bytes, start: region.start }
        });
        Ok(largest.map_or_else(Self::default, |largest| Self { regions, largest }))
    }

    /// The regions.
    pub(super) fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Where a guest address is, if it is in the largest region: a hint, which may be any address.
    #[inline(always)]
    fn probable_place(&self, address: u64) -> *const u8 {
        let RegionWindow { guest_address, start, .. } = self.largest;
        start.as_ptr().wrapping_add(address.wrapping_sub(guest_address) as usize)
    }

    /// Has the processor fetch the cache line at a guest address.
    #[inline(always)]
    pub(super) fn prefetch(&self, address: u64) {
        prefetch::prefetch_at(self.probable_place(address));
    }

    /// Has the processor fetch the cache line of the next bytes that are written to a guest address.
    #[inline(always)]
    pub(super) fn prefetch_to_write(&self, address: u64) {
        prefetch::prefetch_to_write_at(self.probable_place(address));
    }

    /// Whether memory that was there is gone.
    #[inline]
    pub(super) fn is_lost(&self) -> bool {
        GuardedRange::is_any_lost() && self.regions.iter().any(|region| region.mapping.is_lost())
    }

    /// `bytes` at a guest address; none unless all of them are in one region.
    #[inline(always)]
    pub(super) fn slice(&self, address: u64, bytes: usize) -> Option<GuestSlice<'_>> {
        let RegionWindow { guest_address, bytes: there, start } = self.largest;
        let offset = address.wrapping_sub(guest_address);
        if offset < there && bytes as u64 <= there - offset {
            // SAFETY: the offset is within the region, which ends within its mapping.
            let start = unsafe { start.add(offset as usize) };
            return Some(GuestSlice { start, bytes, memory: std::marker::PhantomData });
        }
        self.slice_elsewhere(address, bytes)
    }

    #[inline(never)]
    fn slice_elsewhere(&self, address: u64, bytes: usize) -> Option<GuestSlice<'_>> {
        self.regions.iter().skip(1).find_map(|region| {
            let offset = address.wrapping_sub(region.spec.guest_address);
            let fits = offset < region.spec.bytes && bytes as u64 <= region.spec.bytes - offset;
            fits.then(|| self.at(region, offset, bytes))
        })
    }

    /// `bytes` at an address of the front end, and where they are for the guest.
    pub(super) fn user_slice(&self, address: u64, bytes: usize) -> Option<(GuestSlice<'_>, u64)> {
        self.regions.iter().find_map(|region| {
            let offset = address.wrapping_sub(region.spec.user_address);
            let fits = offset < region.spec.bytes && bytes as u64 <= region.spec.bytes - offset;
            fits.then(|| (self.at(region, offset, bytes), region.spec.guest_address + offset))
        })
    }

    fn at(&self, region: &Region, offset: u64, bytes: usize) -> GuestSlice<'_> {
        // A region ends within its mapping, which was made from its end in the file.
        debug_assert!(region.spec.file_offset as usize + offset as usize + bytes <= region.mapping.bytes);
        // SAFETY: the offset is within the region, see above.
        let start = unsafe { region.start.add(offset as usize) };
        GuestSlice { start, bytes, memory: std::marker::PhantomData }
    }
}

impl GuestSlice<'_> {
    /// How many bytes it has.
    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.bytes
    }

    /// Where it is. It is mapped for as long as the memory that this borrows from.
    pub(super) const fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Copies as many bytes as both have.
    #[inline(always)]
    pub(super) fn read(&self, into: &mut [u8]) {
        let bytes = into.len().min(self.bytes);
        // SAFETY: `bytes` bytes are mapped from `start`, for as long as the memory that this borrows from, and no reference
        // of this process leads there, so they do not overlap with `into`. The guest may write meanwhile; then any mixture
        // of bytes is read, which is what a device gets too.
        unsafe { copy(self.start.as_ptr(), into.as_mut_ptr(), bytes) }
    }

    /// Copies as many bytes as both have.
    #[inline(always)]
    pub(super) fn write(&self, from: &[u8]) {
        let bytes = from.len().min(self.bytes);
        // SAFETY: as for reading.
        unsafe { copy(from.as_ptr(), self.start.as_ptr(), bytes) }
    }

    /// Copies as many bytes as both have from memory of a guest, which may be another's.
    #[inline(always)]
    pub(super) fn write_from(&self, from: &GuestSlice<'_>) {
        let bytes = from.bytes.min(self.bytes);
        // SAFETY: `bytes` bytes are mapped at both, as for reading; they may overlap where both are of one guest.
        unsafe { std::ptr::copy(from.start.as_ptr(), self.start.as_ptr(), bytes) }
    }

    /// Writes bytes, as far as there is room, unless they are there already: then no cache line is taken from the guest, which
    /// mostly finds the header of a frame as the last one left it.
    #[inline(always)]
    pub(super) fn write_unless_equal<const N: usize>(&self, bytes: &[u8; N]) {
        if self.bytes >= N {
            // SAFETY: as for reading. The guest gains nothing by changing them meanwhile: they are its own to read.
            let there = unsafe { self.start.cast::<[u8; N]>().read_unaligned() };
            if there == *bytes {
                return;
            }
        }
        self.write(bytes);
    }

    /// The part from `offset` on.
    #[inline]
    pub(super) fn from(&self, offset: usize) -> Self {
        let offset = offset.min(self.bytes);
        // SAFETY: `offset` is within the slice.
        Self { start: unsafe { self.start.add(offset) }, bytes: self.bytes - offset, memory: self.memory }
    }
}

/// Copies bytes. Those of short frames are copied as two pieces that may overlap: a call costs as much as that.
///
/// # Safety
/// As for [`std::ptr::copy_nonoverlapping`].
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, bytes: usize) {
    /// Copies the first and the last bytes of at least as many.
    ///
    /// # Safety
    /// As for the whole.
    #[inline(always)]
    unsafe fn ends<const FIRST: usize, const LAST: usize>(from: *const u8, to: *mut u8, bytes: usize) {
        // SAFETY: both pieces are within the bytes that are copied.
        unsafe {
            std::ptr::copy_nonoverlapping(from.cast::<[u8; FIRST]>(), to.cast(), 1);
            let (from, to) = (from.add(bytes - LAST), to.add(bytes - LAST));
            std::ptr::copy_nonoverlapping(from.cast::<[u8; LAST]>(), to.cast(), 1);
        }
    }
    // SAFETY: the same bytes as the caller says.
    unsafe {
        match bytes {
            // The shortest frames, with their headers.
            64..=80 => ends::<64, 16>(from, to, bytes),
            32..=63 => ends::<32, 32>(from, to, bytes),
            81..=128 => ends::<64, 64>(from, to, bytes),
            _ => std::ptr::copy_nonoverlapping(from, to, bytes),
        }
    }
}

/// Memory of a guest, for tests.
#[cfg(test)]
pub(super) mod testing {
    use crate::port::vhost_user::guest_memory::{FileMapping, GuestMemory, PAGE_BYTES, Region, RegionSpec};
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use std::alloc::{Layout, alloc_zeroed};
    use std::os::fd::OwnedFd;
    use std::ptr::NonNull;
    use std::sync::Arc;

    /// A file of `bytes` zeros.
    pub(crate) fn file(bytes: u64) -> OwnedFd {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, bytes).unwrap();
        file
    }

    /// Memory that is no file, so that Miri runs what uses it. Each region has an address for the guest, one for the front end, and
    /// bytes.
    pub(crate) fn memory(regions: &[(u64, u64, u64)]) -> Arc<GuestMemory> {
        let region = |(guest_address, user_address, bytes): (u64, u64, u64)| {
            let layout = Layout::from_size_align(bytes as usize, PAGE_BYTES).unwrap();
            // SAFETY: the layout is not empty.
            let start = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap();
            let mapping = FileMapping { start, bytes: bytes as usize, guard: None, allocation: Some(layout) };
            let spec = RegionSpec { guest_address, user_address, bytes, file_offset: 0 };
            Region { spec, start, mapping: Arc::new(mapping) }
        };
        Arc::new(GuestMemory::new(regions.iter().copied().map(region).collect()).unwrap())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use testing::{file, memory};

    const MEGABYTE: u64 = 1 << 20;

    fn region(guest_address: u64, user_address: u64, bytes: u64) -> Region {
        let spec = RegionSpec { guest_address, user_address, bytes, file_offset: 4096 };
        Region::new(spec, file(4096 + bytes)).unwrap()
    }

    #[test]
    fn only_what_is_within_one_region_is_mapped() {
        let memory = memory(&[(0, 0x7000_0000, MEGABYTE), (MEGABYTE, 0x9000_0000, MEGABYTE)]);
        assert!(memory.slice(0, 64).is_some() && memory.slice(MEGABYTE - 64, 64).is_some());
        assert!(memory.slice(MEGABYTE - 63, 64).is_none(), "it crosses from one region to the next");
        assert!(memory.slice(2 * MEGABYTE, 1).is_none() && memory.slice(u64::MAX - 3, 64).is_none());
        assert!(memory.slice(8, usize::MAX).is_none());
        memory.slice(MEGABYTE + 8, 4).unwrap().write(&[1, 2, 3, 4]);
        let mut bytes = [0; 2];
        memory.slice(MEGABYTE + 9, 2).unwrap().read(&mut bytes);
        assert_eq!(bytes, [2, 3]);
    }

    #[test]
    fn bytes_of_any_length_are_copied_and_no_others() {
        let memory = memory(&[(0, 0x7000_0000, MEGABYTE)]);
        for bytes in (0..300).chain([1500, 9000]) {
            let from: Vec<u8> = (0..bytes).map(|at| at as u8 | 1).collect();
            let place = memory.slice(4096, bytes + 2).unwrap();
            place.write(&vec![0; bytes + 2]);
            place.from(1).write(&from);
            let mut all = vec![7; bytes + 4];
            place.read(&mut all[1..bytes + 3]);
            assert_eq!(all[2..bytes + 2], from);
            assert_eq!([all[0], all[1], all[bytes + 2], all[bytes + 3]], [7, 0, 0, 7], "{bytes} bytes");
        }
    }

    #[test]
    fn regions_that_overlap_or_wrap_are_refused() {
        let (one, two) = (region(0, 0x7000_0000, MEGABYTE), region(MEGABYTE - 1, 0x9000_0000, MEGABYTE));
        assert!(GuestMemory::new(vec![one.clone(), two]).is_err());
        assert!(GuestMemory::new(vec![one.clone(), one]).is_err());
        let spec = RegionSpec { guest_address: u64::MAX, user_address: 0, bytes: 4096, file_offset: 0 };
        assert!(Region::new(spec, file(4096)).is_err());
        let spec = RegionSpec { guest_address: 0, user_address: 0, bytes: 0, file_offset: 0 };
        assert!(Region::new(spec, file(4096)).is_err());
    }

    #[test]
    fn a_file_that_is_shorter_than_said_loses_the_memory_and_nothing_else() {
        let spec = RegionSpec { guest_address: 0, user_address: 0, bytes: MEGABYTE, file_offset: 0 };
        let memory = GuestMemory::new(vec![Region::new(spec, file(4096)).unwrap()]).unwrap();
        memory.slice(0, 64).unwrap().write(&[1; 64]);
        assert!(!memory.is_lost());
        memory.slice(MEGABYTE - 64, 64).unwrap().write(&[1; 64]);
        assert!(memory.is_lost());
    }

    #[test]
    fn memory_that_another_process_serves_is_refused() {
        let of_kernel = std::fs::File::open("/proc/self/status").unwrap();
        assert!(FileMapping::new(&of_kernel, 4096).is_err());
    }
}
