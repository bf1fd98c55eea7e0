//! Fault injection around any port, seeded so that a failing run can be replayed.

use crate::port::buffer_pool::BufferPool;
use crate::port::peer_state::PeerState;
use crate::port::{Port, Received, Sent, drop_all};
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use vswitch_core::packet::offload::Offloads;
use vswitch_core::packet::verdict::{DropReason, Verdict};
use vswitch_core::packet::{FrameBuffer, Packet};

/// The rates of faults, in packets per million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The seed of the random numbers.
    pub seed: u64,
    /// Packets that are lost.
    pub lost: u32,
    /// Packets that are duplicated.
    pub doubled: u32,
    /// Packets that change places with the next of their burst.
    pub swapped: u32,
    /// Received packets that are delayed until a few later ones have passed, however long that takes.
    pub held: u32,
    /// Packets that are reported as sent and stay inside, with all that follow them, until a flush; and how often a
    /// flush sends none of them.
    pub unsent: u32,
}

/// How many packets are delayed at once.
const HELD_MAX: usize = 8;

/// How many packets are inside at once.
const UNSENT_MAX: usize = 1024;

/// How often a burst is followed by a delayed packet.
const RELEASED_PER_MILLION: u32 = 500_000;

const MILLION: u64 = 1_000_000;

/// A port with faults in both directions.
#[derive(Debug)]
pub struct FaultyPort {
    port: Box<dyn Port>,
    faults: Faults,
    random: u64,
    held: VecDeque<Packet>,
    /// Reported as sent.
    unsent: VecDeque<Packet>,
    sent: Sent,
}

impl FaultyPort {
    /// Puts faults around a port.
    pub fn new(port: Box<dyn Port>, faults: Faults) -> Self {
        // A xorshift generator must not start at zero.
        Self {
            port,
            faults,
            random: faults.seed.max(1),
            held: VecDeque::new(),
            unsent: VecDeque::new(),
            sent: Sent::default(),
        }
    }

    /// Whether a packet to be sent stays inside, which its sender takes for sent, or finds no room there.
    fn hold_unsent(&mut self, packet: &mut Packet) -> bool {
        // What follows a held packet is held as well, so that packets stay in order.
        let is_kept = self.faults.unsent > 0 && (!self.unsent.is_empty() || self.happens(self.faults.unsent));
        if is_kept && self.unsent.len() < UNSENT_MAX {
            // A copy, since the worker gets its buffer back and reuses it.
            let mut copy = FrameBuffer::with_capacity(packet.buffer.frame().len());
            copy.fill(packet.buffer.frame());
            self.unsent.push_back(Packet::claiming(copy, packet.offload));
            self.sent.given += 1;
            packet.verdict = Verdict::Deliver;
        } else if is_kept {
            packet.verdict = Verdict::Drop(DropReason::PortFull);
        }
        is_kept
    }

    fn happens(&mut self, per_million: u32) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % MILLION < u64::from(per_million)
    }
}

impl Port for FaultyPort {
    fn receive(&mut self, pool: &mut BufferPool, burst: &mut Vec<Packet>, packets_max: usize) -> io::Result<Received> {
        let start = burst.len();
        let result = self.port.receive(pool, burst, packets_max);
        let mut at = start;
        while at < burst.len() {
            if self.happens(self.faults.lost) {
                // A lost packet gives its buffer back, or the pool would run dry.
                pool.put(burst.remove(at).buffer);
                continue;
            }
            if self.held.len() < HELD_MAX && self.happens(self.faults.held) {
                self.held.push_back(burst.remove(at));
                continue;
            }
            if at > start && self.happens(self.faults.swapped) {
                burst.swap(at - 1, at);
            }
            if burst.len() - start < packets_max
                && self.happens(self.faults.doubled)
                && let Some(mut copy) = pool.take(burst[at].buffer.frame().len())
            {
                copy.fill(burst[at].buffer.frame());
                at += 1;
                let offload = burst[at - 1].offload;
                burst.insert(at, Packet::claiming(copy, offload));
            }
            at += 1;
        }
        let has_come = burst.len() > start;
        if has_come && burst.len() - start < packets_max && self.happens(RELEASED_PER_MILLION) {
            burst.extend(self.held.pop_front());
        }
        result
    }

    fn send(&mut self, burst: &mut [Packet]) -> io::Result<()> {
        // What was held goes first, so that this burst does not overtake it.
        self.flush().inspect_err(|_| drop_all(burst, DropReason::PortDown))?;
        let mut at = 0;
        while at < burst.len() {
            let is_swapped = at + 1 < burst.len() && self.happens(self.faults.swapped);
            let pair = if is_swapped { [Some(at + 1), Some(at)] } else { [Some(at), None] };
            for number in pair.into_iter().flatten() {
                if self.happens(self.faults.lost) {
                    // To the sender a lost packet is one that was sent.
                    burst[number].verdict = Verdict::Deliver;
                    continue;
                }
                if self.hold_unsent(&mut burst[number]) {
                    continue;
                }
                let sent = self.port.send(&mut burst[number..=number]);
                sent.inspect_err(|_| drop_all(&mut burst[at..], DropReason::PortDown))?;
                if self.happens(self.faults.doubled) {
                    let verdict = burst[number].verdict;
                    // Whether or not the second is sent, the first decides what happens to the packet.
                    let doubled = self.port.send(&mut burst[number..=number]);
                    burst[number].verdict = verdict;
                    doubled?;
                }
            }
            at += 1 + usize::from(is_swapped);
        }
        Ok(())
    }

    fn sent(&self) -> Sent {
        let inside = self.port.sent();
        Sent { given: self.sent.given + inside.given, taken: self.sent.taken + inside.taken }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.port.flush()?;
        // The kernel may refuse to take anything, as in an XDP socket that is down.
        if self.faults.unsent > 0 && self.happens(self.faults.unsent) {
            return Ok(());
        }
        while let Some(packet) = self.unsent.pop_front() {
            self.sent.taken += 1;
            self.port.send(&mut [packet])?;
        }
        Ok(())
    }

    fn offloads(&self) -> Offloads {
        self.port.offloads()
    }

    fn retire(&mut self) {
        self.port.retire();
    }

    fn await_readiness(&mut self) -> bool {
        self.port.await_readiness()
    }

    fn is_polled_without_call(&self) -> bool {
        self.port.is_polled_without_call()
    }

    fn peer(&self) -> Option<PeerState> {
        self.port.peer()
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        self.port.readiness()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::buffer_pool::PoolSize;
    use crate::port::memory::MemoryHub;
    use vswitch_core::config::ids::EniId;

    fn run(faults: Faults) -> Vec<u8> {
        let hub = MemoryHub::default();
        let eni = EniId::from("eni-1");
        let guest = hub.guest(&eni);
        let mut port = FaultyPort::new(Box::new(hub.open(&eni, 0)), faults);
        for number in 0..100 {
            guest.inject(&[number]);
        }
        let (mut pool, mut burst) = (BufferPool::new(PoolSize { small: 199, large: 1 }), Vec::new());
        port.receive(&mut pool, &mut burst, 200).unwrap();
        assert_eq!(pool.free_count() + burst.len(), 200, "no buffer is lost");
        port.send(&mut burst).unwrap();
        std::iter::from_fn(|| guest.collect().map(|frame| frame[0])).collect()
    }

    #[test]
    fn without_faults_nothing_changes() {
        assert_eq!(run(Faults { seed: 7, ..Faults::default() }), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn what_waits_comes_after_what_was_sent_later() {
        let hub = MemoryHub::default();
        let eni = EniId::from("eni-1");
        let guest = hub.guest(&eni);
        let mut port =
            FaultyPort::new(Box::new(hub.open(&eni, 0)), Faults { seed: 7, held: 200_000, ..Faults::default() });
        let (mut pool, mut all) = (BufferPool::new(PoolSize { small: 199, large: 1 }), Vec::new());
        for number in 0..100 {
            guest.inject(&[number]);
            let mut burst = Vec::new();
            port.receive(&mut pool, &mut burst, 4).unwrap();
            all.extend(burst.drain(..).map(|packet| packet.buffer.frame()[0]));
        }
        let mut sorted = all.clone();
        sorted.sort_unstable();
        assert_ne!(all, sorted);
        assert!(all.len() + HELD_MAX >= 100, "none vanish");
    }

    #[test]
    fn a_seed_replays() {
        let faults = Faults { seed: 7, lost: 100_000, doubled: 100_000, swapped: 100_000, ..Faults::default() };
        let frames = run(faults);
        assert_eq!(frames, run(faults));
        assert_ne!(frames, run(Faults { seed: 8, ..faults }));
        assert!(frames.windows(2).any(|pair| pair[0] == pair[1]), "some came twice");
        assert!(frames.windows(2).any(|pair| pair[0] > pair[1]), "some changed places");
        assert!((0..100).any(|number| !frames.contains(&number)), "some vanished");
    }
}
