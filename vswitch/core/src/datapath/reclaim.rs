//! What gives way when an ENI at its session limit opens another session: first expired sessions, then closing ones,
//! then unanswered ones and those that one answer completed, beginning with the oldest of the peer that has most of
//! them. Established connections stay. So a flood of SYNs displaces its own sessions, not those of others.

use crate::config::desired::Direction;
use crate::config::limits::{RECLAIM_BATCH, RECLAIM_WINDOW};
use crate::conntrack::Session;
use crate::conntrack::recent::RecentSession;
use crate::conntrack::slot::Slot;
use crate::conntrack::state::ConnectionState;
use crate::conntrack::tables::SessionSlot;
use crate::datapath::shard::Shard;
use crate::hw::time::Tick;
use crate::packet::headers::Addresses;
use crate::policy::eni_context::EniContext;

/// How soon a live session gives way to another of the same ENI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReclaimClass {
    Closing,
    Unanswered,
    Established,
}

impl ReclaimClass {
    const fn of(state: ConnectionState) -> Self {
        match state {
            ConnectionState::Free
            | ConnectionState::TcpClosed
            | ConnectionState::TcpClosingOpener
            | ConnectionState::TcpClosingResponder
            | ConnectionState::TcpAbandonedOpener
            | ConnectionState::TcpAbandonedResponder => Self::Closing,
            // The server's kernel answers a flood like anything else: no handshake is complete before its third packet.
            ConnectionState::TcpOpening
            | ConnectionState::TcpAnswered
            | ConnectionState::Udp
            | ConnectionState::UdpAnswered
            | ConnectionState::Icmp => Self::Unanswered,
            ConnectionState::TcpEstablished | ConnectionState::UdpStream | ConnectionState::Other => Self::Established,
        }
    }
}

/// A session that may give way.
#[derive(Clone, Copy, Debug)]
struct ReclaimCandidate {
    session: RecentSession,
    slot: SessionSlot,
    is_closing: bool,
    /// The address at the other end.
    peer: u128,
}

impl ReclaimCandidate {
    const NONE: Self =
        Self { session: RecentSession::NONE, slot: SessionSlot::V4(Slot::FIRST), is_closing: false, peer: 0 };
}

/// `::ffff:0:0/96` (RFC 4291, section 2.5.5.2).
const IPV4_MAPPED: u128 = 0xffff << 32;

/// Some of the oldest sessions of an ENI, in order.
struct Window {
    candidates: [ReclaimCandidate; RECLAIM_WINDOW],
    count: usize,
}

impl Shard {
    /// Ends sessions of an ENI at its limit so that it may open another, and some more at once if it may hold many.
    /// Examines a bounded number of its oldest remembered sessions. Returns whether there is room afterwards.
    #[cold]
    pub(crate) fn reclaim(&mut self, context: &EniContext<'_>, now: Tick) -> bool {
        let (held, most) =
            (self.counters[context.counters_index()].sessions as usize, context.eni.sessions_max as usize);
        // Where the limit is large, some more end at once, so that a flood pays for one search per batch.
        let wanted = (held + 1).saturating_sub(most) + (most / RECLAIM_WINDOW).min(RECLAIM_BATCH - 1);
        let mut window = Window { candidates: [ReclaimCandidate::NONE; RECLAIM_WINDOW], count: 0 };
        let freed = self.look_through(context, &mut window, now);
        let candidates = &window.candidates[..window.count];
        let victims = choose(candidates, wanted.saturating_sub(freed));
        // What stays returns to its position.
        for (place, candidate) in candidates.iter().enumerate().rev() {
            if victims & 1 << place != 0 {
                self.end_session(candidate.slot, context.eni.epoch);
                self.counters[context.counters_index()].evicted += 1;
            } else {
                self.recent[context.counters_index()].put_back(candidate.session);
            }
        }
        self.has_room(context)
    }

    /// Examines the oldest remembered sessions of an ENI: ends expired ones and collects those that may give way.
    /// Returns how many had expired. Established ones become the newest, so that others are examined next time.
    fn look_through(&mut self, context: &EniContext<'_>, window: &mut Window, now: Tick) -> usize {
        let (epoch, mut freed) = (context.eni.epoch, 0);
        let mut oldest = [RecentSession::NONE; RECLAIM_WINDOW];
        let mut count = 0;
        // All are taken out and prefetched before the first is looked up, so that their latencies overlap.
        while let Some(session) = self.recent[context.counters_index()].pop_if(count < RECLAIM_WINDOW) {
            self.sessions.prefetch_recent(session);
            oldest[count] = session;
            count += 1;
        }
        let repeated = repeated_later(&oldest[..count]);
        for (place, &session) in oldest[..count].iter().enumerate() {
            // Only the latest of several sessions between the same ports counts.
            if repeated & 1 << place != 0 {
                continue;
            }
            let Some(slot) = self.sessions.find_recent(session, epoch) else { continue };
            let connection = *self.sessions.connection(slot);
            let Some(held) = connection.sessions.into_iter().find(|held| held.epoch() == epoch) else { continue };
            if connection.is_expired(context.snapshot.settings(), now) {
                // A revoked session does not count toward the limit, so ending it frees nothing.
                freed += usize::from(held.is_live());
                self.end_session(slot, epoch);
                continue;
            }
            match ReclaimClass::of(connection.state) {
                // It may be closed or readmitted before it is examined again.
                _ if held.is_revoked() => self.recent[context.counters_index()].push(session),
                ReclaimClass::Established => self.recent[context.counters_index()].push(session),
                class => {
                    let (is_closing, peer) = (class == ReclaimClass::Closing, self.peer(slot, held));
                    window.candidates[window.count] = ReclaimCandidate { session, slot, is_closing, peer };
                    window.count += 1;
                }
            }
        }
        freed
    }

    /// The address at the other end of a session, with IPv4 addresses mapped to IPv6. It must not be folded: the halves
    /// of IPv6 addresses are not random, so that any fold would confuse some peers of two subnets.
    fn peer(&self, slot: SessionSlot, held: Session) -> u128 {
        let new_connection = self.sessions.addresses(slot, held.is_swapped());
        // If the packet that opened it came in, it came from the peer.
        let from_peer = if held.opened() == Direction::Ingress { new_connection } else { new_connection.reverse() };
        match from_peer {
            Addresses::V4 { source, .. } => IPV4_MAPPED | u128::from(source),
            Addresses::V6 { source, .. } => source,
        }
    }
}

/// A bit for each session that occurs again later. Only those with equal hashes are compared.
fn repeated_later(sessions: &[RecentSession]) -> u64 {
    let (mut seen, mut repeated) = ([0u64; 8], 0);
    for (place, session) in sessions.iter().enumerate().rev() {
        let hash = session.hash();
        let (word, bit) = (&mut seen[hash as usize % 8], 1 << (hash >> 8 & 63));
        // The bit only rules out; equal hashes of different sessions are told apart by comparison.
        if *word & bit != 0 && sessions[place + 1..].contains(session) {
            repeated |= 1 << place;
        }
        *word |= bit;
    }
    repeated
}

/// A bit for each candidate that gives way, of which there should be `wanted`; the candidates are ordered from the
/// oldest. Closing ones go first, then as many of each peer as are needed to level the peers with the most.
// Whether the compiler inlined it by itself depended on code elsewhere.
#[inline(always)]
fn choose(candidates: &[ReclaimCandidate], wanted: usize) -> u64 {
    let (mut left, mut victims) = (wanted, 0);
    // The candidates are in order, so of several closing ones the oldest go.
    for (place, _) in candidates.iter().enumerate().filter(|(_, candidate)| candidate.is_closing) {
        victims |= u64::from(take(&mut left)) << place;
    }
    if left == 0 {
        return victims;
    }
    let (mut peers, mut peers_count) = ([(0, 0); RECLAIM_WINDOW], 0);
    let unanswered = || candidates.iter().enumerate().filter(|(_, candidate)| !candidate.is_closing);
    for (_, candidate) in unanswered() {
        match peers[..peers_count].iter_mut().find(|(peer, _)| *peer == candidate.peer) {
            Some((_, count)) => *count += 1,
            None => {
                peers[peers_count] = (candidate.peer, 1);
                peers_count += 1;
            }
        }
    }
    let peers = &mut peers[..peers_count];
    let above =
        |level: usize| peers.iter().map(|(_, count): &(u128, usize)| count.saturating_sub(level)).sum::<usize>();
    let most = peers.iter().map(|(_, count)| *count).max().unwrap_or(0);
    // The highest level that yields enough: peers below it keep all they have.
    let level = (0..most).rev().find(|level| above(*level) >= left).unwrap_or(0);
    for (place, candidate) in unanswered() {
        let Some((_, count)) = peers.iter_mut().find(|(peer, _)| *peer == candidate.peer) else { continue };
        if *count > level && take(&mut left) {
            *count -= 1;
            victims |= 1 << place;
        }
    }
    victims
}

/// Takes one of what is left, if there is any.
const fn take(left: &mut usize) -> bool {
    let is_there = *left > 0;
    *left -= is_there as usize;
    is_there
}

const _: () = assert!(RECLAIM_WINDOW <= u64::BITS as usize);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::slot::Trace;
    use alloc::vec::Vec;

    fn victims(sessions: &[(bool, u128)], wanted: usize) -> Vec<usize> {
        let candidate =
            |&(is_closing, peer): &(bool, u128)| ReclaimCandidate { is_closing, peer, ..ReclaimCandidate::NONE };
        let candidates: Vec<ReclaimCandidate> = sessions.iter().map(candidate).collect();
        let chosen = choose(&candidates, wanted);
        (0..sessions.len()).filter(|place| chosen & 1 << place != 0).collect()
    }

    #[test]
    fn a_session_that_comes_again_is_found_wherever_it_is() {
        let sessions: Vec<RecentSession> = [7, 8, 7, 9, 8, 7, 10]
            .into_iter()
            .map(|bucket| RecentSession::new(Trace { bucket, ports: 443 }, false))
            .collect();
        assert_eq!(repeated_later(&sessions), 0b111);
        let many: Vec<_> =
            (0..32).chain(0..32).map(|bucket| RecentSession::new(Trace { bucket, ports: 1 }, false)).collect();
        assert_eq!(repeated_later(&many), (1 << 32) - 1);
        assert_eq!(repeated_later(&many[..32]), 0);
        assert_eq!(repeated_later(&[]), 0);
    }

    #[test]
    fn the_peer_that_has_most_gives_way_first_and_its_oldest() {
        let sessions = [(false, 1), (false, 2), (false, 2), (true, 3), (false, 2), (false, 1), (false, 4)];
        assert!(victims(&sessions, 0).is_empty());
        assert_eq!(victims(&sessions, 1), [3], "what is closing");
        assert_eq!(victims(&sessions, 2), [1, 3]);
        assert_eq!(victims(&sessions, 3), [0, 1, 3], "two and two: the oldest");
        assert_eq!(victims(&sessions, 4), [0, 1, 2, 3]);
        assert_eq!(victims(&sessions, 5), [0, 1, 2, 3, 4]);
        assert_eq!(victims(&sessions, 99), [0, 1, 2, 3, 4, 5, 6]);
    }
}
