//! What depends on the machine: vector instructions, prefetching, and the type of an instant. The unsafe code is here.

pub(crate) mod prefetch;
pub(crate) mod simd;
pub mod time;
