//! Prefetching of memory that will be needed soon.

/// Prefetches the cache line at `value`. A hint: it affects nothing but time.
#[inline(always)]
pub(crate) fn prefetch<T>(value: &T) {
    prefetch_at(core::ptr::from_ref(value).cast());
}

/// Prefetches the cache line at an address, which need not hold anything.
#[inline(always)]
#[allow(unsafe_code)]
pub fn prefetch_at(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: `_mm_prefetch` only hints; it needs SSE, which every x86-64 processor has, and may be given any address.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

/// Prefetches the cache line at an address for writing: another core that has it gives it up.
#[inline(always)]
#[allow(unsafe_code)]
pub fn prefetch_to_write_at(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: PREFETCHW only hints and may be given any address; x86-64 processors without it take it for a NOP. The
    // intrinsic would become a prefetch for reading where it is not known that the processor has it.
    unsafe {
        core::arch::asm!("prefetchw [{}]", in(reg) address as usize, options(nomem, nostack, preserves_flags));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}
