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
