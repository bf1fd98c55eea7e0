//! The buffers of one worker, allocated once.
//!
//! Buffers have two sizes: a frame of a guest that offloads segmentation may be 64 KiB long, but most fit the usual
//! MTU. If every buffer were large, a ring full of small frames would hold 64 MiB. So large buffers are few: as many as
//! are in use at once, and some for the rings. A port that cannot know a frame's length in advance receives into a
//! large buffer and copies small frames out of it, which takes tens of nanoseconds next to a system call. A worker
//! without a free large buffer leaves frames where they are until one returns.

use vswitch_core::config::limits::{BURST_PACKETS, FRAME_BYTES_MAX};
use vswitch_core::packet::FrameBuffer;

/// The size of a small buffer, for a frame of the usual MTU.
pub const SMALL_BYTES: usize = 2048;
/// Large buffers of a single worker: for a burst of jumbo frames and the answers to it.
const LARGE_BUFFERS_ALONE: usize = 2 * BURST_PACKETS;
/// Large buffers of a worker whose packets may also wait in rings to others.
const LARGE_BUFFERS_IN_COMPANY: usize = 8 * BURST_PACKETS;

/// The number of buffers in a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolSize {
    /// Small buffers.
    pub small: usize,
    /// Large buffers.
    pub large: usize,
}

impl PoolSize {
    /// The pool of one of `workers` workers, with `small` small buffers for bursts and rings.
    pub const fn for_workers(small: usize, workers: usize) -> Self {
        Self { small, large: if workers > 1 { LARGE_BUFFERS_IN_COMPANY } else { LARGE_BUFFERS_ALONE } }
    }

    /// The buffers of both sizes.
    pub const fn total(self) -> usize {
        self.small + self.large
    }
}

/// A bounded stack of buffers. The last one returned is taken first, so that few buffers stay warm in the cache and
/// memory that is never needed is never touched.
#[derive(Debug, Default)]
pub struct BufferPool {
    small: Vec<FrameBuffer>,
    large: Vec<FrameBuffer>,
    size: PoolSize,
}

impl BufferPool {
    /// A full pool.
    pub fn new(size: PoolSize) -> Self {
        let some = |count, bytes| (0..count).map(|_| FrameBuffer::with_capacity(bytes)).collect();
        Self { small: some(size.small, SMALL_BYTES), large: some(size.large, FRAME_BYTES_MAX), size }
    }

    /// Changes the size of a pool all of whose buffers are free. Missing buffers are taken from `spare` as far as it
    /// has them; surplus ones go there.
    pub fn resize(&mut self, size: PoolSize, spare: &mut Self) {
        let stocks = [
            (&mut self.small, &mut spare.small, size.small, SMALL_BYTES),
            (&mut self.large, &mut spare.large, size.large, FRAME_BYTES_MAX),
        ];
        for (stock, spare, wanted, bytes) in stocks {
            spare.extend(stock.drain(wanted.min(stock.len())..));
            let lacking = (wanted - stock.len()).min(spare.len());
            stock.extend(spare.drain(spare.len() - lacking..));
            stock.resize_with(wanted, || FrameBuffer::with_capacity(bytes));
        }
        self.size = size;
    }

    /// A buffer with room for `bytes`, unless all such buffers are in use.
    #[inline]
    pub fn take(&mut self, bytes: usize) -> Option<FrameBuffer> {
        if bytes <= SMALL_BYTES
            && let Some(buffer) = self.small.pop()
        {
            return Some(buffer);
        }
        // A small frame may have a large buffer if no small one is free; the reverse would not fit.
        self.large.pop()
    }

    /// A buffer with room for any frame, unless all such buffers are in use.
    pub fn take_large(&mut self) -> Option<FrameBuffer> {
        self.large.pop()
    }

    /// A buffer of the same size as another, unless all such buffers are in use.
    pub fn take_like(&mut self, other: &FrameBuffer) -> Option<FrameBuffer> {
        if other.capacity() >= FRAME_BYTES_MAX { self.large.pop() } else { self.small.pop() }
    }

    /// Whether there is a buffer of each size.
    pub fn has_all_sizes(&self) -> bool {
        !self.small.is_empty() && !self.large.is_empty()
    }

    /// Copies the contents of a large buffer to a small one and returns the large one to the pool. Returns the same
    /// buffer if it holds too much for that, or if no small one is free.
    pub fn exchange(&mut self, large: FrameBuffer) -> FrameBuffer {
        if large.frame().len() > SMALL_BYTES {
            return large;
        }
        let Some(mut small) = self.small.pop() else { return large };
        small.fill(large.frame());
        self.put(large);
        small
    }

    /// Returns a buffer to the pool. A surplus one is freed once the pool is full.
    #[inline]
    pub fn put(&mut self, buffer: FrameBuffer) {
        let (stock, buffers_max) = match buffer.capacity() {
            FRAME_BYTES_MAX.. => (&mut self.large, self.size.large),
            SMALL_BYTES.. => (&mut self.small, self.size.small),
            _ => return,
        };
        if stock.len() < buffers_max {
            stock.push(buffer);
        }
    }

    /// The number of free buffers.
    pub fn free_count(&self) -> usize {
        self.small.len() + self.large.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_of_other_sizes_pass_on_what_they_have() {
        let (mut pool, mut spare) = (BufferPool::new(PoolSize { small: 4, large: 2 }), BufferPool::default());
        pool.resize(PoolSize { small: 1, large: 1 }, &mut spare);
        assert_eq!((pool.free_count(), spare.free_count()), (2, 4));
        pool.resize(PoolSize { small: 3, large: 4 }, &mut spare);
        assert_eq!((pool.free_count(), spare.free_count()), (7, 1), "two large ones are new");
    }

    #[test]
    fn a_pool_gives_no_more_than_it_has_and_keeps_no_more_than_it_may() {
        let mut pool = BufferPool::new(PoolSize { small: 2, large: 1 });
        let (first, second, third) = (pool.take(60).unwrap(), pool.take(60).unwrap(), pool.take(60).unwrap());
        assert_eq!([&first, &second, &third].map(FrameBuffer::capacity), [SMALL_BYTES, SMALL_BYTES, FRAME_BYTES_MAX]);
        assert!(pool.take(60).is_none() && pool.take_large().is_none());
        pool.put(first);
        assert!(pool.take(SMALL_BYTES + 1).is_none(), "it has only a small one");
        pool.put(second);
        pool.put(third);
        pool.put(FrameBuffer::with_capacity(1));
        pool.put(FrameBuffer::with_capacity(SMALL_BYTES));
        assert_eq!(pool.free_count(), 3);
    }
}
