//! Synchronization primitives under one name for the product and for its models: with `--cfg loom` (`tests/models.rs`)
//! the same code runs on `loom`'s types, which try every interleaving of threads.

#[cfg(not(loom))]
mod real {
    pub(crate) use crossbeam::queue::ArrayQueue;
    pub use mio::Waker;
    pub(crate) use parking_lot::Mutex;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, fence};
    pub(crate) use std::thread::{Thread, current};
}
#[cfg(not(loom))]
pub use real::*;

#[cfg(loom)]
mod modelled;
#[cfg(loom)]
pub use modelled::*;
