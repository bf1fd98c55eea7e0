//! When each guest is told about its router without asking (RFC 4861 §6.2.4).

use crate::exchange::publish::Published;
use crate::exchange::services::{ServiceLink, ServiceOutcome, ServiceReply};
use crate::services::router_advert;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use vswitch_core::config::services::frame::ServedEni;
use vswitch_core::hw::time::Time;

const NS_PER_S: u64 = 1_000_000_000;
/// The mean time between two advertisements, ns.
const INTERVAL_NS: u64 = 200 * NS_PER_S;
/// By how much it differs at most, ns, so that guests do not hear of it all at once.
const JITTER_NS: u64 = 50 * NS_PER_S;
/// How often ENIs that are new are looked for, ns: they ask by themselves before.
const RENEWAL_NS: u64 = NS_PER_S;
/// The pause where all buffers are on their way, ns.
const PAUSE_NS: u64 = 10_000_000;

#[derive(Debug)]
pub(super) struct Advertisements {
    due: BinaryHeap<Reverse<(Time, ServedEni)>>,
    /// The publication that is known, and when it was looked at.
    known: (u64, Time),
    /// A newer one waits to be looked at.
    is_stale: bool,
    paused_until: Option<Time>,
    random: u64,
}

impl Advertisements {
    pub(super) fn new(seed: u64) -> Self {
        let known = (0, Time::default());
        Self { due: BinaryHeap::new(), known, is_stale: false, paused_until: None, random: seed | 1 }
    }

    /// Sends what is due. How much that was.
    pub(super) fn turn(&mut self, link: &ServiceLink, published: &Published, now: Time) -> usize {
        self.renew(published, now);
        self.paused_until = None;
        let mut sent = 0;
        while let Some(&Reverse((due, eni))) = self.due.peek()
            && due <= now
        {
            let location = published.location(eni.index).filter(|location| location.is_open_for(eni.generation));
            let network = published.snapshot.guest_network(eni.index);
            if let (Some(location), Some(frame)) = (location, network.and_then(|it| router_advert::frame(&it))) {
                let Some(mut buffer) = link.unsolicited_buffer() else {
                    self.paused_until = Some(now + PAUSE_NS);
                    return sent;
                };
                buffer.fill(&frame);
                let reply = ServiceReply { eni, outcome: ServiceOutcome::Unsolicited, buffer };
                link.reply(usize::from(location.worker), reply);
                sent += 1;
            }
            self.due.pop();
            let next = now + (INTERVAL_NS - JITTER_NS + self.below(2 * JITTER_NS));
            self.due.push(Reverse((next, eni)));
        }
        sent
    }

    /// When there is something to do.
    pub(super) fn next_due(&self) -> Option<Time> {
        let due = self.due.peek().map(|Reverse((due, _))| *due);
        let due = self.paused_until.or(due);
        let renewal = self.is_stale.then(|| self.known.1 + RENEWAL_NS);
        [due, renewal].into_iter().flatten().min()
    }

    /// Takes up ENIs that are new, and lets go of those that are gone.
    fn renew(&mut self, published: &Published, now: Time) {
        self.is_stale = published.sequence != self.known.0;
        if !self.is_stale || (self.known.0 != 0 && now < self.known.1 + RENEWAL_NS) {
            return;
        }
        let before: BTreeMap<ServedEni, Time> = self.due.drain().map(|Reverse((due, eni))| (eni, due)).collect();
        for (index, _) in published.snapshot.enis() {
            let network = published.snapshot.guest_network(index);
            let is_told = network.is_some_and(|network| network.ipv6.is_some() && !network.is_configured);
            let Some(location) = published.location(index).filter(|_| is_told) else { continue };
            let eni = ServedEni { index, generation: location.eni_generation };
            let due = before.get(&eni).copied().unwrap_or_else(|| now + self.below(INTERVAL_NS));
            self.due.push(Reverse((due, eni)));
        }
        (self.known, self.is_stale) = ((published.sequence, now), false);
    }

    /// A number below `limit` (xorshift64*): spreads times, and keeps no secret.
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) % limit
    }
}
