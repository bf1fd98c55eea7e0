//! Replacements based on `loom`'s types, with the guarantees of the originals and no stronger ones.

use loom::sync::atomic::AtomicUsize;
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, fence};
use loom::sync::{MutexGuard, Notify};
pub(crate) use loom::thread::{Thread, current};
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// Like `parking_lot`'s.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Like `crossbeam`'s. Its length is a separate counter, as there, so that asking for it takes no lock that would
/// impose more order.
#[derive(Debug)]
pub struct ArrayQueue<T> {
    capacity: usize,
    length: AtomicUsize,
    values: Mutex<VecDeque<T>>,
}

impl<T> ArrayQueue<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, length: AtomicUsize::new(0), values: Mutex::default() }
    }

    /// Appends a value, or returns it if the queue is full.
    ///
    /// # Errors
    /// The queue is full.
    pub fn push(&self, value: T) -> Result<(), T> {
        let mut values = self.values.lock();
        if values.len() == self.capacity {
            return Err(value);
        }
        values.push_back(value);
        self.length.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Removes the first value.
    pub fn pop(&self) -> Option<T> {
        let mut values = self.values.lock();
        let value = values.pop_front()?;
        self.length.fetch_sub(1, Ordering::SeqCst);
        Some(value)
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.length.load(Ordering::SeqCst)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Like `mio`'s, for a thread that waits for a notification instead of a descriptor.
#[derive(Debug)]
pub struct Waker(Arc<Notify>);

impl Waker {
    pub(crate) fn new(_: &mio::Registry, _: mio::Token) -> io::Result<Self> {
        Ok(Self::of(Arc::default()))
    }

    /// A waker for whoever waits for `sleeper`.
    pub fn of(sleeper: Arc<Notify>) -> Self {
        Self(sleeper)
    }

    pub(crate) fn wake(&self) -> io::Result<()> {
        self.0.notify();
        Ok(())
    }
}
