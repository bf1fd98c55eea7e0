//! How many frames a port requests from its kernel at once.

use rustix::io::Errno;
use vswitch_core::config::limits::{BURST_BYTES, BURST_PACKETS};
use vswitch_core::packet::Packet;

/// How many frames are waiting is unknown beforehand, and requesting more has a cost. So a port requests one more than
/// arrived last time, twice as many as long as all requests are filled, and no more bytes than a burst of frames of the
/// recent size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchSize {
    next: usize,
    frame_bytes: usize,
}

impl BatchSize {
    pub(crate) const fn new() -> Self {
        Self { next: 1, frame_bytes: 1 }
    }

    /// Fills the burst by calling `some` with the number of frames to append at most; it returns why it appended fewer.
    /// Returns the same for the whole.
    pub(crate) fn receive(
        &mut self,
        burst: &mut Vec<Packet>,
        packets_max: usize,
        mut some: impl FnMut(&mut Vec<Packet>, usize) -> Option<Errno>,
    ) -> Option<Errno> {
        let (start, mut bytes) = (burst.len(), 0);
        let ended = loop {
            let (before, left) = (burst.len(), packets_max.saturating_sub(burst.len() - start));
            let fit = BURST_BYTES.saturating_sub(bytes).div_ceil(self.frame_bytes);
            let wanted = self.next.min(BURST_PACKETS).min(left).min(fit);
            let ended = if wanted > 0 { some(burst, wanted) } else { None };
            let frames = burst.len() - before;
            let came: usize = burst[before..].iter().map(|packet| packet.buffer.frame().len()).sum();
            bytes += came;
            // At least one byte, since the size divides.
            self.frame_bytes = came.checked_div(frames).unwrap_or(self.frame_bytes).max(1);
            if ended.is_some() || frames < wanted || wanted == 0 {
                break ended;
            }
            self.next = (self.next * 2).min(BURST_PACKETS);
        };
        // One more than arrived: a queue that grows is noticed by the request that is filled.
        self.next = burst.len() - start + 1;
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vswitch_core::config::limits::FRAME_BYTES_MAX;
    use vswitch_core::packet::FrameBuffer;

    /// The sizes requested until `waiting` frames of `bytes` are exhausted or a burst is full.
    fn asked(batch_size: &mut BatchSize, mut waiting: usize, bytes: usize) -> Vec<usize> {
        let (mut asked, mut burst) = (Vec::new(), Vec::new());
        batch_size.receive(&mut burst, BURST_PACKETS, |burst, wanted| {
            asked.push(wanted);
            let taken = wanted.min(waiting);
            waiting -= taken;
            burst.extend((0..taken).map(|_| {
                let mut buffer = FrameBuffer::with_capacity(bytes);
                buffer.set_length(bytes);
                Packet::new(buffer)
            }));
            (taken < wanted).then_some(Errno::AGAIN)
        });
        asked
    }

    #[test]
    fn it_asks_for_what_there_is_likely_to_be() {
        let mut batch_size = BatchSize::new();
        assert_eq!(asked(&mut batch_size, 0, 60), [1]);
        assert_eq!(asked(&mut batch_size, 1, 60), [1, 2], "a lone frame costs two calls");
        assert_eq!(asked(&mut batch_size, 1, 60), [2], "and one when they keep coming");
        assert_eq!(asked(&mut batch_size, 100, 60), [2, 4, 8, 16, 2], "no more than a burst has");
        assert_eq!(asked(&mut batch_size, 100, 60), [32]);
        assert_eq!(asked(&mut batch_size, 0, 60), [32]);
        assert_eq!(asked(&mut batch_size, 0, 60), [1]);
    }

    #[test]
    fn long_frames_end_a_burst_early() {
        let mut batch_size = BatchSize::new();
        assert_eq!(asked(&mut batch_size, 100, FRAME_BYTES_MAX), [1, 2, 1]);
        assert_eq!(asked(&mut batch_size, 100, FRAME_BYTES_MAX), [4]);
    }
}
