//! What depends on the hardware: vector instructions, prefetching, and the type of an instant. All unsafe code of the
//! core is here.

pub mod prefetch;
pub(crate) mod simd;
pub mod time;
