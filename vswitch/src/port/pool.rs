//! The buffers of one worker, allocated once.

use vswitch_core::limits::FRAME_BYTES_MAX;
use vswitch_core::packet::FrameBuffer;

/// A bounded stock of buffers. The one put back last is taken first, so that few stay warm in the cache and memory
/// that was never needed is never touched.
#[derive(Debug)]
pub struct BufferPool {
    free: Vec<FrameBuffer>,
    buffers_max: usize,
}

impl BufferPool {
    /// A pool of `buffers_max` buffers.
    pub fn new(buffers_max: usize) -> Self {
        let free = (0..buffers_max).map(|_| FrameBuffer::with_capacity(FRAME_BYTES_MAX)).collect();
        Self { free, buffers_max }
    }

    /// A buffer, unless all are in use.
    pub fn take(&mut self) -> Option<FrameBuffer> {
        self.free.pop()
    }

    /// Puts a buffer back. One that the pool never had is freed once the pool is full.
    pub fn put(&mut self, buffer: FrameBuffer) {
        if self.free.len() < self.buffers_max {
            self.free.push(buffer);
        }
    }

    /// Buffers that are not in use.
    pub fn free_count(&self) -> usize {
        self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_gives_no_more_than_it_has_and_keeps_no_more_than_it_may() {
        let mut pool = BufferPool::new(2);
        let (first, second) = (pool.take().unwrap(), pool.take().unwrap());
        assert!(pool.take().is_none());
        pool.put(first);
        pool.put(second);
        pool.put(FrameBuffer::with_capacity(1));
        assert_eq!(pool.free_count(), 2);
    }
}
