//! The buffers of one worker, allocated once.
//!
//! Two sizes: a frame of a guest that leaves cutting to others is up to 64 KiB long, but most are no longer than the
//! usual MTU. If every buffer were large, a ring full of small frames would hold 64 MiB. So the large ones are few, as
//! many as are in work at once and some for the rings; a port that cannot know a frame's length before it has it receives
//! into a large one and copies what is small out of it, which costs tens of nanoseconds beside a system call. A worker
//! without a large buffer leaves frames where they are until some come back.

use vswitch_core::config::limits::{BURST_PACKETS, FRAME_BYTES_MAX};
use vswitch_core::packet::FrameBuffer;

/// Room of a small buffer: a frame of the usual MTU.
pub const SMALL_BYTES: usize = 2048;
/// Large buffers of a worker that is alone: a burst of jumbo frames, and what they answer.
const LARGE_BUFFERS_ALONE: usize = 2 * BURST_PACKETS;
/// Large buffers of a worker whose packets also wait in rings to others.
const LARGE_BUFFERS_IN_COMPANY: usize = 8 * BURST_PACKETS;

/// How many buffers a pool has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolSize {
    /// Small ones.
    pub small: usize,
    /// Large ones.
    pub large: usize,
}

impl PoolSize {
    /// For a worker among `workers` that has `small` buffers for bursts and rings.
    pub const fn for_workers(small: usize, workers: usize) -> Self {
        Self { small, large: if workers > 1 { LARGE_BUFFERS_IN_COMPANY } else { LARGE_BUFFERS_ALONE } }
    }

    /// Of both sizes together.
    pub const fn total(self) -> usize {
        self.small + self.large
    }
}

/// A bounded stock of buffers. The one put back last is taken first, so that few stay warm in the cache and memory
/// that was never needed is never touched.
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

    /// Makes a pool that has all its buffers one of another size. What it lacks it takes from `spare`, as far as that goes;
    /// what it has too much goes there.
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

    /// A buffer with room for `bytes`, unless all such are in use.
    pub fn take(&mut self, bytes: usize) -> Option<FrameBuffer> {
        if bytes <= SMALL_BYTES
            && let Some(buffer) = self.small.pop()
        {
            return Some(buffer);
        }
        self.large.pop()
    }

    /// A buffer with room for any frame, unless all such are in use.
    pub fn take_large(&mut self) -> Option<FrameBuffer> {
        self.large.pop()
    }

    /// A buffer of the size of another, unless all such are in use.
    pub fn take_like(&mut self, other: &FrameBuffer) -> Option<FrameBuffer> {
        if other.capacity() >= FRAME_BYTES_MAX { self.large.pop() } else { self.small.pop() }
    }

    /// Whether there is a buffer of each size.
    pub fn has_all_sizes(&self) -> bool {
        !self.small.is_empty() && !self.large.is_empty()
    }

    /// A small buffer with what a large one holds, which goes back; the same buffer if that is too much for a small one,
    /// or all those are in use.
    pub fn exchange(&mut self, large: FrameBuffer) -> FrameBuffer {
        if large.frame().len() > SMALL_BYTES {
            return large;
        }
        let Some(mut small) = self.small.pop() else { return large };
        small.fill(large.frame());
        self.put(large);
        small
    }

    /// Puts a buffer back. One that the pool never had is freed once the pool is full.
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

    /// Buffers that are not in use.
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
