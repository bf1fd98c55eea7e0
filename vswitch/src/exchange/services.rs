//! What goes from the packet path to the service thread and back: requests of guests, and replies for them.
//!
//! The buffers are made once and belong to this link: a worker copies a request into one, the service thread overwrites it
//! with the reply, and the worker that sends the reply puts it back. So requests never take a buffer from the packet path,
//! and as many wait as there are buffers.

use crate::exchange::doorbell::Doorbell;
use crate::exchange::sync::{ArrayQueue, AtomicU64, Mutex};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vswitch_core::config::ids::EniIndex;
use vswitch_core::config::limits::{
    SERVICE_FRAME_BYTES_MAX, SERVICE_REQUESTS_ALL_PER_S, SERVICE_REQUESTS_MAX, WORKERS_MAX,
};
use vswitch_core::hw::time::Time;
use vswitch_core::packet::FrameBuffer;
use vswitch_core::packet::verdict::DropReason;

/// Frames without a request that may be on their way at once.
const UNSOLICITED_MAX: usize = 64;
const NS_PER_S: u64 = 1_000_000_000;

/// One of the ENIs that ever had a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServedEni {
    /// Its number.
    pub index: EniIndex,
    /// Which of those that ever had it is meant.
    pub generation: u32,
}

/// What a guest asks of the switch.
#[derive(Debug)]
pub struct ServiceRequest {
    /// The ENI of the guest.
    pub eni: ServedEni,
    /// The frame.
    pub buffer: FrameBuffer,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceOutcome {
    /// The buffer has the reply.
    Reply,
    /// The buffer has a frame that nobody asked for.
    Unsolicited,
    /// There is no reply.
    Dropped(DropReason),
}

/// What a service has for a guest.
#[derive(Debug)]
pub struct ServiceReply {
    /// The ENI of the guest.
    pub eni: ServedEni,
    /// What it is.
    pub outcome: ServiceOutcome,
    /// The frame.
    pub buffer: FrameBuffer,
}

/// The link between all workers and the service thread.
#[derive(Debug)]
pub struct ServiceLink {
    requests: ArrayQueue<ServiceRequest>,
    /// Buffers for requests, and for frames that nobody asked for.
    free: [ArrayQueue<FrameBuffer>; 2],
    /// By the numbers of workers.
    replies: Box<[ArrayQueue<ServiceReply>]>,
    /// When as many requests as were taken would be used up at the permitted rate, ns.
    used_up_ns: AtomicU64,
    doorbell: Doorbell,
    worker_doorbells: Mutex<Arc<[Arc<Doorbell>]>>,
}

impl ServiceLink {
    /// A link whose service thread is woken by `doorbell`.
    pub fn new(doorbell: Doorbell) -> Self {
        let buffers = |count: usize| {
            let free = ArrayQueue::new(count);
            for _ in 0..count {
                let pushed = free.push(FrameBuffer::with_capacity(SERVICE_FRAME_BYTES_MAX));
                debug_assert!(pushed.is_ok(), "it has room for as many");
            }
            free
        };
        // All buffers may be on their way to one worker.
        let replies = || ArrayQueue::new(SERVICE_REQUESTS_MAX + UNSOLICITED_MAX);
        Self {
            requests: ArrayQueue::new(SERVICE_REQUESTS_MAX),
            free: [buffers(SERVICE_REQUESTS_MAX), buffers(UNSOLICITED_MAX)],
            replies: (0..WORKERS_MAX).map(|_| replies()).collect(),
            used_up_ns: AtomicU64::new(0),
            doorbell,
            worker_doorbells: Mutex::new(Arc::new([])),
        }
    }

    /// Hands a guest's frame to the service thread.
    ///
    /// # Errors
    /// The reason under which the frame is to be dropped.
    pub fn request(&self, eni: ServedEni, frame: &[u8], now: Time) -> Result<(), DropReason> {
        let mut buffer = self.free[0].pop().ok_or(DropReason::ServiceFull)?;
        if !self.admits(now) {
            self.put_back(ServiceOutcome::Reply, buffer);
            return Err(DropReason::ServiceRate);
        }
        buffer.fill(frame);
        let pushed = self.requests.push(ServiceRequest { eni, buffer });
        debug_assert!(pushed.is_ok(), "there are no more buffers than it has room for");
        self.doorbell.ring();
        Ok(())
    }

    /// Whether all ENIs together may make another request: at most a second's worth at once.
    fn admits(&self, now: Time) -> bool {
        let cost_ns = NS_PER_S / u64::from(SERVICE_REQUESTS_ALL_PER_S);
        let after = |used_up_ns: u64| {
            let after_ns = used_up_ns.max(now.as_ns()) + cost_ns;
            (after_ns <= now.as_ns() + NS_PER_S).then_some(after_ns)
        };
        self.used_up_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after).is_ok()
    }

    /// The next request, for the service thread.
    pub fn next_request(&self) -> Option<ServiceRequest> {
        self.requests.pop()
    }

    /// Whether there are requests.
    pub fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    /// A buffer for a frame that nobody asked for, unless as many as may be are on their way.
    pub fn unsolicited_buffer(&self) -> Option<FrameBuffer> {
        self.free[1].pop()
    }

    /// Gives a reply to the worker that has the ENI.
    pub fn reply(&self, worker: usize, reply: ServiceReply) {
        let outcome = reply.outcome;
        match self.replies.get(worker).map(|replies| replies.push(reply)) {
            Some(Err(reply)) => self.put_back(outcome, reply.buffer),
            Some(Ok(())) => {
                let doorbells = Arc::clone(&self.worker_doorbells.lock());
                doorbells.get(worker).into_iter().for_each(|doorbell| doorbell.ring());
            }
            None => {}
        }
    }

    /// The next reply for the ENIs of a worker.
    pub fn next_reply(&self, worker: usize) -> Option<ServiceReply> {
        self.replies.get(worker)?.pop()
    }

    /// Whether there are replies for the ENIs of a worker.
    pub fn has_replies(&self, worker: usize) -> bool {
        self.replies.get(worker).is_some_and(|replies| !replies.is_empty())
    }

    /// Takes back the buffer of a reply that was sent, or not.
    pub fn put_back(&self, outcome: ServiceOutcome, buffer: FrameBuffer) {
        let place = usize::from(outcome == ServiceOutcome::Unsolicited);
        let pushed = self.free[place].push(buffer);
        debug_assert!(pushed.is_ok(), "it has room for all there are");
    }

    /// From now on these are the doorbells of the workers, by their numbers.
    pub fn set_worker_doorbells(&self, doorbells: Arc<[Arc<Doorbell>]>) {
        *self.worker_doorbells.lock() = doorbells;
    }

    /// What wakes the service thread.
    pub fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod tests {
    use super::*;

    const ENI: ServedEni = ServedEni { index: EniIndex(1), generation: 1 };

    #[test]
    fn as_many_wait_as_there_are_buffers_and_each_comes_back() {
        let link = ServiceLink::new(Doorbell::new(None));
        let now = Time::from_ns(NS_PER_S);
        for _ in 0..SERVICE_REQUESTS_MAX {
            link.request(ENI, &[1; 64], now).unwrap();
        }
        assert_eq!(link.request(ENI, &[1; 64], now), Err(DropReason::ServiceFull));
        while let Some(ServiceRequest { eni, buffer }) = link.next_request() {
            assert_eq!(buffer.frame(), [1; 64]);
            link.reply(3, ServiceReply { eni, outcome: ServiceOutcome::Reply, buffer });
        }
        assert!(link.has_replies(3) && !link.has_replies(2));
        while let Some(reply) = link.next_reply(3) {
            link.put_back(reply.outcome, reply.buffer);
        }
        assert_eq!(link.request(ENI, &[1; 64], now), Ok(()));
    }

    #[test]
    fn all_together_have_a_second_s_worth_at_once() {
        let link = ServiceLink::new(Doorbell::new(None));
        let mut taken = [0, 0];
        for (second, taken) in (1..).zip(&mut taken) {
            let now = Time::from_ns(second * NS_PER_S);
            while link.request(ENI, &[1; 64], now) != Err(DropReason::ServiceRate) {
                let request = link.next_request().unwrap();
                link.put_back(ServiceOutcome::Reply, request.buffer);
                *taken += 1;
            }
        }
        assert_eq!(taken, [SERVICE_REQUESTS_ALL_PER_S; 2]);
    }
}
