//! What goes from the packet path to those who serve guests and back: to the service thread, and by another such link to
//! the services process.
//!
//! The buffers are made once and belong to the link: a worker copies a request into one, the service overwrites it with the
//! reply, and the worker that sends the reply puts it back. So requests never take a buffer from the packet path, and as
//! many wait as there are buffers.

use crate::exchange::doorbell::Doorbell;
use crate::exchange::sync::{ArrayQueue, AtomicBool, AtomicU64, Mutex};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vswitch_core::config::ids::EniIndex;
use vswitch_core::config::limits::{
    SERVICE_FRAME_BYTES_MAX, SERVICE_PACKETS_ALL_PER_S, SERVICE_PACKETS_MAX, SERVICE_REQUESTS_ALL_PER_S,
    SERVICE_REQUESTS_MAX, WORKERS_MAX,
};
use vswitch_core::config::services::frame::ServedEni;
use vswitch_core::hw::time::Time;
use vswitch_core::packet::FrameBuffer;
use vswitch_core::packet::verdict::DropReason;

const NS_PER_S: u64 = 1_000_000_000;

/// How much may be on its way over a link.
#[derive(Clone, Copy, Debug)]
pub struct ServiceLimits {
    /// Requests that wait.
    pub requests_max: usize,
    /// Frames without a request that may be on their way at once.
    pub unsolicited_max: usize,
    /// Requests of all ENIs per second.
    pub requests_per_s: u32,
}

impl ServiceLimits {
    /// Of the link to the service thread.
    pub const THREAD: Self =
        Self { requests_max: SERVICE_REQUESTS_MAX, unsolicited_max: 64, requests_per_s: SERVICE_REQUESTS_ALL_PER_S };
    /// Of the link to the services process, whose replies are frames without a request: it keeps connections.
    pub const PROCESS: Self = Self {
        requests_max: SERVICE_PACKETS_MAX,
        unsolicited_max: SERVICE_PACKETS_MAX,
        requests_per_s: SERVICE_PACKETS_ALL_PER_S,
    };
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
    /// The request was taken, and what follows from it comes as other frames.
    Taken,
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

/// The link between all workers and a service.
#[derive(Debug)]
pub struct ServiceLink {
    requests_per_s: u32,
    /// Whether there is somebody to serve.
    is_open: AtomicBool,
    requests: ArrayQueue<ServiceRequest>,
    /// Buffers for requests, and for frames that nobody asked for.
    free: [ArrayQueue<FrameBuffer>; 2],
    /// By the numbers of workers.
    replies: Box<[ArrayQueue<ServiceReply>]>,
    /// When as many requests as were taken would be used up at the permitted rate, ns.
    used_up_ns: AtomicU64,
    doorbell: Doorbell,
    worker_doorbells: Mutex<Arc<[Arc<Doorbell>]>>,
    /// By the number of the ENI: one entry for each is the most there is.
    asked: Mutex<BTreeMap<EniIndex, AskedTimes>>,
}

/// What a guest asks for to configure itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestQuestion {
    /// DHCP.
    Dhcp,
    /// DHCPv6.
    Dhcp6,
    /// A router solicitation.
    Router,
}

/// When one of the ENIs that ever had a number asked last, by [`GuestQuestion`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct AskedTimes {
    generation: u32,
    times: [Option<Time>; 3],
}

impl ServiceLink {
    /// A link whose service is woken by `doorbell`. It is open.
    pub fn new(doorbell: Doorbell, limits: ServiceLimits) -> Self {
        let ServiceLimits { requests_max, unsolicited_max, requests_per_s } = limits;
        let buffers = |count: usize| {
            let free = ArrayQueue::new(count);
            for _ in 0..count {
                let pushed = free.push(FrameBuffer::with_capacity(SERVICE_FRAME_BYTES_MAX));
                debug_assert!(pushed.is_ok(), "it has room for as many");
            }
            free
        };
        // All buffers may be on their way to one worker.
        let replies = || ArrayQueue::new(requests_max + unsolicited_max);
        Self {
            requests_per_s,
            is_open: AtomicBool::new(true),
            requests: ArrayQueue::new(requests_max),
            free: [buffers(requests_max), buffers(unsolicited_max)],
            replies: (0..WORKERS_MAX).map(|_| replies()).collect(),
            used_up_ns: AtomicU64::new(0),
            doorbell,
            worker_doorbells: Mutex::new(Arc::new([])),
            asked: Mutex::new(BTreeMap::new()),
        }
    }

    /// Notes that the guest of an ENI was told what it asked for.
    pub fn note_told(&self, eni: ServedEni, question: GuestQuestion, now: Time) {
        let mut all = self.asked.lock();
        let asked = all.entry(eni.index).or_default();
        if asked.generation != eni.generation {
            *asked = AskedTimes { generation: eni.generation, ..AskedTimes::default() };
        }
        asked.times[question as usize] = Some(now);
    }

    /// When the guest of an ENI was last told what it asked for, by [`GuestQuestion`].
    pub fn told(&self, eni: ServedEni) -> [Option<Time>; 3] {
        let asked = self.asked.lock().get(&eni.index).copied();
        asked.filter(|asked| asked.generation == eni.generation).unwrap_or_default().times
    }

    /// Hands a guest's frame to the service: what `write` writes into a buffer, which has room for a frame of Ethernet.
    ///
    /// # Errors
    /// The reason under which the frame is to be dropped.
    pub fn request(&self, eni: ServedEni, now: Time, write: impl FnOnce(&mut FrameBuffer)) -> Result<(), DropReason> {
        let mut buffer = self.free[0].pop().ok_or(DropReason::ServiceFull)?;
        if !self.admits(now) {
            self.put_back(ServiceOutcome::Reply, buffer);
            return Err(DropReason::ServiceRate);
        }
        write(&mut buffer);
        let pushed = self.requests.push(ServiceRequest { eni, buffer });
        debug_assert!(pushed.is_ok(), "there are no more buffers than it has room for");
        self.doorbell.ring();
        Ok(())
    }

    /// Whether all ENIs together may make another request: at most a second's worth at once.
    fn admits(&self, now: Time) -> bool {
        let cost_ns = NS_PER_S / u64::from(self.requests_per_s);
        let after = |used_up_ns: u64| {
            let after_ns = used_up_ns.max(now.as_ns()) + cost_ns;
            (after_ns <= now.as_ns() + NS_PER_S).then_some(after_ns)
        };
        self.used_up_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after).is_ok()
    }

    /// Whether there is somebody to serve.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Says whether there is somebody to serve.
    pub fn set_open(&self, is_open: bool) {
        self.is_open.store(is_open, Ordering::Release);
    }

    /// The next request, for the service.
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

    /// What wakes the service.
    pub fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }
}

/// The links of all workers to those who serve their guests.
#[derive(Clone, Debug)]
pub struct ServiceLinks {
    /// To the service thread.
    pub thread: Arc<ServiceLink>,
    /// To the services process. It is closed until the process is there.
    pub process: Arc<ServiceLink>,
}

impl ServiceLinks {
    /// Links whose services are woken by these.
    pub fn new(thread: Doorbell, process: Doorbell) -> Self {
        let links = Self {
            thread: Arc::new(ServiceLink::new(thread, ServiceLimits::THREAD)),
            process: Arc::new(ServiceLink::new(process, ServiceLimits::PROCESS)),
        };
        links.process.set_open(false);
        links
    }

    /// From now on these are the doorbells of the workers, by their numbers.
    pub fn set_worker_doorbells(&self, doorbells: &Arc<[Arc<Doorbell>]>) {
        [&self.thread, &self.process].into_iter().for_each(|link| link.set_worker_doorbells(Arc::clone(doorbells)));
    }

    /// Whether there are replies for the ENIs of a worker.
    pub fn has_replies(&self, worker: usize) -> bool {
        self.thread.has_replies(worker) || self.process.has_replies(worker)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod tests {
    use super::*;

    const ENI: ServedEni = ServedEni { index: EniIndex(1), generation: 1 };

    #[test]
    fn as_many_wait_as_there_are_buffers_and_each_comes_back() {
        let link = ServiceLink::new(Doorbell::new(None), ServiceLimits::THREAD);
        let now = Time::from_ns(NS_PER_S);
        for _ in 0..SERVICE_REQUESTS_MAX {
            link.request(ENI, now, |buffer| buffer.fill(&[1; 64])).unwrap();
        }
        assert_eq!(link.request(ENI, now, |buffer| buffer.fill(&[1; 64])), Err(DropReason::ServiceFull));
        while let Some(ServiceRequest { eni, buffer }) = link.next_request() {
            assert_eq!(buffer.frame(), [1; 64]);
            link.reply(3, ServiceReply { eni, outcome: ServiceOutcome::Reply, buffer });
        }
        assert!(link.has_replies(3) && !link.has_replies(2));
        while let Some(reply) = link.next_reply(3) {
            link.put_back(reply.outcome, reply.buffer);
        }
        assert_eq!(link.request(ENI, now, |buffer| buffer.fill(&[1; 64])), Ok(()));
    }

    #[test]
    fn what_was_told_is_known_of_the_eni_that_asked_alone() {
        let link = ServiceLink::new(Doorbell::new(None), ServiceLimits::THREAD);
        let later = ServedEni { generation: 2, ..ENI };
        let (one, two) = (Time::from_ns(1), Time::from_ns(2));
        link.note_told(ENI, GuestQuestion::Dhcp, one);
        link.note_told(ENI, GuestQuestion::Router, two);
        assert_eq!(link.told(ENI), [Some(one), None, Some(two)]);
        assert_eq!(link.told(later), [None; 3]);
        link.note_told(later, GuestQuestion::Dhcp6, two);
        assert_eq!((link.told(later), link.told(ENI)), ([None, Some(two), None], [None; 3]));
    }

    #[test]
    fn all_together_have_a_second_s_worth_at_once() {
        let link = ServiceLink::new(Doorbell::new(None), ServiceLimits::THREAD);
        let mut taken = [0, 0];
        for (second, taken) in (1..).zip(&mut taken) {
            let now = Time::from_ns(second * NS_PER_S);
            while link.request(ENI, now, |buffer| buffer.fill(&[1; 64])) != Err(DropReason::ServiceRate) {
                let request = link.next_request().unwrap();
                link.put_back(ServiceOutcome::Reply, request.buffer);
                *taken += 1;
            }
        }
        assert_eq!(taken, [SERVICE_REQUESTS_ALL_PER_S; 2]);
    }
}
