//! Who may open a session, and who gives way when a table is full: fairness between ENIs is decided here and carried
//! out in `datapath/session_update.rs`. Also limits how often the virtual router answers (`router/`).

use crate::conntrack::state::ConnectionState;
use crate::hw::time::{TICKS_PER_SECOND, Tick};

/// A rate limit of an ENI, such as for opening sessions: a burst of one second's worth, refilled over time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenBucket {
    /// The level, in units of what one tick refills at a rate of one per second.
    level: u64,
    filled: Tick,
}

impl TokenBucket {
    /// The bucket of an ENI that has done nothing yet.
    pub(crate) const NEW: Self = Self { level: 0, filled: Tick(0) };

    /// A bucket that holds a second's worth at `per_s`, whatever the time.
    pub(crate) const fn full(per_s: u32) -> Self {
        Self { level: per_s as u64 * TICKS_PER_SECOND, filled: Tick(0) }
    }

    /// Takes one token at `now`, refilling at `per_s`. Returns whether there was one.
    pub(crate) fn take(&mut self, per_s: u32, now: Tick) -> bool {
        let refill = u64::from(self.filled.age_ticks(now)) * u64::from(per_s);
        self.level = (self.level + refill).min(u64::from(per_s) * TICKS_PER_SECOND);
        self.filled = now;
        let is_there = self.level >= TICKS_PER_SECOND;
        if is_there {
            self.level -= TICKS_PER_SECOND;
        }
        is_there
    }
}

/// The properties of a connection that decide whether it may be evicted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EvictionCandidate {
    pub(crate) state: ConnectionState,
    /// Whether it only holds revoked sessions.
    pub(crate) is_dead: bool,
    pub(crate) is_expired: bool,
    /// Whether the ENI that opened it, as far as its session is here, holds more than its guaranteed share and no fewer
    /// sessions than the ENI that asks, or is that ENI.
    pub(crate) is_opener_over: bool,
    /// Whether that is true of all its ENIs.
    pub(crate) are_all_over: bool,
    /// How many sessions the ENI that opened it holds.
    pub(crate) held: u32,
    pub(crate) last_seen: Tick,
}

/// The lowest score is evicted first.
pub(crate) type EvictionScore = (u8, u32, Tick);

impl EvictionCandidate {
    /// The score of a connection, or `None` if it must stay. Expired connections go first, then those that only hold
    /// revoked sessions; then, of ENIs above their share, closing ones, unanswered ones, and those that have idled
    /// longest. Established connections of all other ENIs stay.
    pub(crate) fn eviction_score(&self) -> Option<EvictionScore> {
        let class = match self.state {
            _ if self.is_expired => 0,
            ConnectionState::Free => return None,
            _ if self.is_dead => 1,
            ConnectionState::TcpClosed
            | ConnectionState::TcpClosingOpener
            | ConnectionState::TcpClosingResponder
            | ConnectionState::TcpAbandonedOpener
            | ConnectionState::TcpAbandonedResponder => 2,
            ConnectionState::TcpOpening | ConnectionState::TcpAnswered | ConnectionState::Udp => 3,
            ConnectionState::TcpEstablished
            | ConnectionState::UdpAnswered
            | ConnectionState::UdpStream
            | ConnectionState::Icmp
            | ConnectionState::Other => 4,
        };
        let may_go = match class {
            0 | 1 => true,
            2 | 3 => self.is_opener_over,
            // An established connection is also its other end's: an ENI above its share must not cost a neighbour one.
            _ => self.are_all_over,
        };
        // The lowest score goes first, so the ENI that holds most needs the smallest number.
        may_go.then_some((class, u32::MAX - self.held, self.last_seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u32, sixteenths: u32) -> Tick {
        Tick(seconds * 16 + sixteenths)
    }

    #[test]
    fn a_bucket_lets_its_rate_through_and_a_second_of_it_at_once() {
        let mut bucket = TokenBucket::NEW;
        let mut taken = |now| (0..1000).filter(|_| bucket.take(100, now)).count();
        assert_eq!(taken(at(10, 0)), 100, "after a pause");
        assert_eq!(taken(at(10, 0)), 0);
        assert_eq!(taken(at(10, 8)), 50);
        assert_eq!(taken(at(10, 9)), 6, "a sixteenth of a hundred is not lost in parts");
        assert_eq!(taken(at(10, 13)), 25);
        assert_eq!(taken(at(900, 0)), 100);
        let mut slow = TokenBucket::NEW;
        let opened = (160..320).filter(|tick| slow.take(1, Tick(*tick))).count();
        assert_eq!(opened, 10, "one a second for ten seconds");
    }

    #[test]
    fn the_worth_of_connections_keeps_the_order_that_is_promised() {
        let candidate = |state| EvictionCandidate {
            state,
            is_dead: false,
            is_expired: false,
            is_opener_over: true,
            are_all_over: true,
            held: 10,
            last_seen: Tick(100),
        };
        let order = [
            EvictionCandidate {
                is_expired: true,
                is_opener_over: false,
                are_all_over: false,
                ..candidate(ConnectionState::TcpEstablished)
            },
            EvictionCandidate {
                is_dead: true,
                is_opener_over: false,
                are_all_over: false,
                ..candidate(ConnectionState::TcpEstablished)
            },
            candidate(ConnectionState::TcpClosed),
            candidate(ConnectionState::TcpOpening),
            EvictionCandidate { held: 20, ..candidate(ConnectionState::TcpEstablished) },
            EvictionCandidate { last_seen: Tick(50), ..candidate(ConnectionState::UdpStream) },
            candidate(ConnectionState::TcpEstablished),
        ];
        assert!(order.windows(2).all(|pair| pair[0].eviction_score() < pair[1].eviction_score()), "{order:?}");
        let theirs = |state| EvictionCandidate { are_all_over: false, ..candidate(state) };
        assert!(
            theirs(ConnectionState::TcpEstablished).eviction_score().is_none(),
            "established connections of others stay"
        );
        assert!(theirs(ConnectionState::TcpAnswered).eviction_score().is_some());
        let nobodys = EvictionCandidate { is_opener_over: false, ..theirs(ConnectionState::TcpOpening) };
        assert!(nobodys.eviction_score().is_none());
    }
}
