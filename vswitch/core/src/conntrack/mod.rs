//! Sessions: what the switch remembers of a connection at one ENI (`semantics.md` §4).

pub(crate) mod fragments;
pub mod key;
pub(crate) mod opener;
pub(crate) mod quota;
pub(crate) mod recent;
pub mod slot;
pub mod state;
pub(crate) mod syns;
pub mod table;
pub mod tables;
pub mod tcp;
mod timeouts;

use crate::config::desired::{Direction, Settings};
use crate::config::ids::EniEpoch;
use crate::config::packed_timeouts::PackedTimeouts;
use crate::conntrack::state::{ConnectionState, LEAST_S};
use crate::hw::time::{TICKS_PER_SECOND, Tick};
use crate::packet::headers::{Headers, IcmpKind, Segment, protocol, tcp_flags};
use crate::packet::offload::Wire;
use crate::packet::verdict::Stage;
pub use timeouts::Expiry;

impl ConnectionState {
    /// The state of a session whose first packet is this one: of its opener, or an answer.
    pub fn opened_by(headers: &Headers, from_opener: bool) -> Self {
        match headers.tuple.protocol {
            protocol::TCP if from_opener => tcp::open(headers.tcp_flags),
            protocol::TCP => tcp::next(Self::TcpOpening, headers.tcp_flags, false),
            protocol::UDP => Self::Udp,
            _ if headers.icmp_kind().is_some() => Self::Icmp,
            _ => Self::Other,
        }
    }

    /// The state after another packet of the session. Whether a reset counts is asked elsewhere.
    #[inline(always)]
    pub fn after(self, flags: u8, from_opener: bool) -> Self {
        if !self.is_tcp() {
            return self.after_datagram(from_opener);
        }
        // Nothing but a handshake goes on with a packet that carries no more than data.
        let is_settled =
            self as u8 > Self::TcpAnswered as u8 && flags & (tcp_flags::SYN | tcp_flags::FIN | tcp_flags::RST) == 0;
        if is_settled {
            return self;
        }
        tcp::next(self, flags, from_opener)
    }

    /// UDP has no handshake: that both sides speak, and go on, tells a stream from one question (AWS counts so).
    #[inline(always)]
    const fn after_datagram(self, from_opener: bool) -> Self {
        match (self, from_opener) {
            (Self::Udp, false) => Self::UdpAnswered,
            (Self::UdpAnswered, true) => Self::UdpStream,
            _ => self,
        }
    }
}

/// Whether a packet of this kind may open a session. Errors and announcements never do: nothing answers them.
pub fn opens_session(headers: &Headers) -> bool {
    !matches!(headers.icmp_kind(), Some(IcmpKind::Error | IcmpKind::Other))
}

/// What every packet of a connection reads and writes, besides the key: 52 bytes, which with those of an IPv4 key fill a
/// cache line.
///
/// A record carries the sessions of up to two ENIs, its *sides*: those that a packet between two ENIs of one worker
/// opened together, for as long as both have seen the same packets. The first packet that only one of them sees splits
/// the record in two (`datapath/forward.rs`).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Connection {
    /// IANA protocol number.
    pub protocol: u8,
    /// Where it is in its life.
    pub state: ConnectionState,
    /// Idle timeouts, fixed when it was opened.
    pub timeouts: PackedTimeouts,
    /// The sessions.
    pub sessions: [Session; 2],
    /// When its last packet came.
    pub last_seen: Tick,
    /// The next record of the table's chain plus one; zero at its end.
    pub(crate) next: u32,
    /// Packets in the opening direction and in the other.
    pub(crate) packets: [u32; 2],
    /// Bytes in the opening direction and in the other: the lower halves, see [`Origin`].
    pub(crate) bytes_low: [u32; 2],
    /// TCP: where the receivers' windows begin.
    pub(crate) edges: tcp::Edges,
}

/// What few packets touch: kept apart from the records.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Origin {
    /// When the connection was opened.
    pub opened_at: Tick,
    /// The rule or group that admitted each session, as [`Decision::ground`](crate::packet::verdict::Decision::ground).
    pub grounds: [u32; 2],
    /// The upper parts of the byte counts.
    pub(crate) bytes_high: [BytesHigh; 2],
    /// TCP: how the receivers scale their windows.
    pub(crate) scales: tcp::Scales,
    /// Where the record's chain begins.
    pub(crate) bucket: u32,
}

impl Origin {
    /// As [`Connection::has_seen_the_same`].
    pub(crate) fn has_seen_the_same(&self, other: &Self) -> bool {
        let seen = |origin: &Self| (origin.opened_at, origin.bytes_high, origin.scales);
        seen(self) == seen(other)
    }
}

/// Bits 32 to 55 of a count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BytesHigh([u8; 3]);

impl BytesHigh {
    /// One more, where the lower half is over.
    #[cold]
    pub(crate) fn carry(&mut self) {
        let [low, middle, high] = self.0;
        [self.0[0], self.0[1], self.0[2], _] = u32::from_le_bytes([low, middle, high, 0]).wrapping_add(1).to_le_bytes();
    }

    /// The count whose lower half this is.
    pub(crate) const fn with(self, low: u32) -> u64 {
        let [first, second, third] = self.0;
        (u32::from_le_bytes([first, second, third, 0]) as u64) << 32 | low as u64
    }
}

const _: () = assert!(size_of::<Origin>() == 24);

/// The most scopes that fit into a record, next to the flags of a session.
pub const EPOCHS_MAX: u32 = 1 << 23;

/// One ENI's session of a connection. All zero: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Session {
    /// The ENI's scope, and above it the flags.
    tag: u32,
    /// The ENI's policy revision under which the session was last admitted.
    pub revision: u32,
}

impl Session {
    const EGRESS: u32 = 1 << 24;
    const SWAPPED: u32 = 1 << 25;
    const BOTH: u32 = 1 << 26;
    const STAGE_SHIFT: u32 = 27;
    const STAGE: u32 = 0xf << Self::STAGE_SHIFT;
    const REVOKED: u32 = 1 << 31;
    const SYN: u32 = 1 << 23;
    const SCOPE: u32 = EPOCHS_MAX - 1;

    /// A session of the ENI `epoch`, opened by a packet in this direction; `swapped` as the key has the packet's ends.
    pub const fn new((epoch, revision): (EniEpoch, u32), opened: Direction, swapped: bool, stage: Stage) -> Self {
        let egress = if matches!(opened, Direction::Egress) { Self::EGRESS } else { 0 };
        let swapped = if swapped { Self::SWAPPED } else { 0 };
        Self { tag: epoch.0 | egress | swapped | (stage as u32) << Self::STAGE_SHIFT, revision }
    }

    /// The session that [`Session::is`] what `live` says.
    #[inline(always)]
    pub(crate) const fn of_live(live: u64, opened: Direction, swapped: bool, stage: Stage) -> Self {
        Self::new((EniEpoch(live as u32), (live >> 32) as u32), opened, swapped, stage)
    }

    /// Whose session it is; zero for nobody's.
    pub const fn epoch(self) -> EniEpoch {
        EniEpoch(self.tag & Self::SCOPE)
    }

    /// The direction of the packet that opened it.
    pub const fn opened(self) -> Direction {
        if self.tag & Self::EGRESS != 0 { Direction::Egress } else { Direction::Ingress }
    }

    /// Whether the opener's end is the second of the key.
    pub const fn is_swapped(self) -> bool {
        self.tag & Self::SWAPPED != 0
    }

    /// The same session, which the rules of both directions have to admit: who opened it is not known.
    pub(crate) const fn of_unknown_opener(self) -> Self {
        Self { tag: self.tag | Self::BOTH, ..self }
    }

    /// Whether the rules of both directions have to admit it.
    pub(crate) const fn needs_both(self) -> bool {
        self.tag & Self::BOTH != 0
    }

    /// Whether it is a session that counts: there is one, and the present rules do not refuse it.
    pub(crate) const fn is_live(self) -> bool {
        self.tag & Self::SCOPE != 0 && !self.is_revoked()
    }

    /// Whether the present rules refuse it: it stays as a memory, so that neither side can bring it back (§4.4).
    pub const fn is_revoked(self) -> bool {
        self.tag & Self::REVOKED != 0
    }

    /// The step that admitted it.
    pub fn stage(self) -> Stage {
        STAGES[((self.tag & Self::STAGE) >> Self::STAGE_SHIFT) as usize % STAGES.len()]
    }

    /// Whether a SYN came in the middle of it that nobody has answered yet ([`syns`]). Such a session never takes the fast path.
    pub(crate) const fn has_syn(self) -> bool {
        self.tag & Self::SYN != 0
    }

    pub(crate) const fn set_syn(&mut self, has_syn: bool) {
        self.tag = self.tag & !Self::SYN | if has_syn { Self::SYN } else { 0 };
    }

    /// What [`Session::is`] compares with: the session of `epoch`, admitted under `revision` and not revoked.
    #[inline(always)]
    pub(crate) const fn live_under(epoch: EniEpoch, revision: u32) -> u64 {
        (revision as u64) << 32 | epoch.0 as u64
    }

    /// Whether it is such a session.
    #[inline(always)]
    pub(crate) const fn is(self, live: u64) -> bool {
        const ASKED: u64 = (u32::MAX as u64) << 32 | (Session::SCOPE | Session::SYN | Session::REVOKED) as u64;
        (((self.revision as u64) << 32 | self.tag as u64) ^ live) & ASKED == 0
    }

    pub(crate) const fn set_revoked(&mut self, revoked: bool) {
        self.tag = self.tag & !Self::REVOKED | if revoked { Self::REVOKED } else { 0 };
    }

    pub(crate) const fn set_stage(&mut self, stage: Stage) {
        self.tag = self.tag & !Self::STAGE | (stage as u32) << Self::STAGE_SHIFT;
    }
}

pub(crate) const STAGES: [Stage; 12] = [
    Stage::ExemptArp,
    Stage::ExemptNd,
    Stage::ExemptDhcp,
    Stage::ExemptMetadata,
    Stage::ExemptPmtud,
    Stage::ExemptSlb,
    Stage::ExemptProbe,
    Stage::PlatformSmtp,
    Stage::Session,
    Stage::IntraGroup,
    Stage::Rule,
    Stage::Default,
];

impl Connection {
    /// Which of the sides is the session of `epoch`.
    #[inline]
    pub fn place_of(&self, epoch: EniEpoch) -> Option<usize> {
        match epoch {
            _ if self.sessions[0].epoch() == epoch => Some(0),
            _ if self.sessions[1].epoch() == epoch => Some(1),
            _ => None,
        }
    }

    /// The sessions, each with its place.
    pub fn sessions(&self) -> impl Iterator<Item = (usize, Session)> + use<> {
        self.sessions.into_iter().enumerate().filter(|(_, session)| session.epoch() != EniEpoch::default())
    }

    /// Counts a packet that goes this `way`, zero for the opener's, and restarts the timer. Whether the lower half of that
    /// way's bytes is over, see [`Origin`].
    #[inline(always)]
    pub(crate) fn count(&mut self, segment: Segment, wire: Wire, way: usize, now: Tick) -> bool {
        let (way, from_opener) = (way % 2, way == 0);
        if segment.flags & tcp_flags::RST == 0 {
            if self.state.is_tcp() {
                tcp::observe(&mut self.edges, segment, from_opener);
            }
            self.state = self.state.after(segment.flags, from_opener);
        }
        self.last_seen = now;
        self.packets[way] = self.packets[way].wrapping_add(wire.packets);
        let (bytes, carries) = self.bytes_low[way].overflowing_add(wire.bytes as u32);
        self.bytes_low[way] = bytes;
        carries
    }

    /// Whether the opener's end is the second of the key.
    #[inline]
    pub const fn is_swapped(&self) -> bool {
        (self.sessions[0].tag | self.sessions[1].tag) & Session::SWAPPED != 0
    }

    /// Whether two records, each of one session, are those of the two ends of a connection, neither of which is revoked.
    pub(crate) fn is_other_end_of(&self, other: &Self) -> bool {
        let only = |connection: &Self| {
            connection.sessions().next().map(|(_, session)| session).filter(|session| !session.is_revoked())
        };
        let (Some(one), Some(two)) = (only(self), only(other)) else { return false };
        !self.is_shared() && one.opened() != two.opened() && one.is_swapped() == two.is_swapped()
    }

    /// Whether the packets of another record of the connection were those of this one.
    pub(crate) fn has_seen_the_same(&self, other: &Self) -> bool {
        let seen = |connection: &Self| {
            (
                connection.state,
                connection.timeouts,
                connection.last_seen,
                connection.packets,
                connection.bytes_low,
                connection.edges,
            )
        };
        seen(self) == seen(other)
    }

    /// Whether it is only the memory of sessions that rules refused.
    pub(crate) fn is_dead(&self) -> bool {
        !self.sessions[0].is_live() && !self.sessions[1].is_live()
    }

    /// Whether two sessions share it.
    pub(crate) fn is_shared(&self) -> bool {
        self.sessions[0].epoch() != EniEpoch::default() && self.sessions[1].epoch() != EniEpoch::default()
    }

    /// Whether it is over at `now`.
    #[inline]
    pub fn is_expired(&self, settings: &Settings, now: Tick) -> bool {
        // Nearly all are asked that were seen a moment ago. One seen ahead of `now` is not told here.
        const LEAST_TICKS: u32 = LEAST_S * TICKS_PER_SECOND as u32;
        now.0.wrapping_sub(self.last_seen.0) >= LEAST_TICKS
            && self.last_seen.is_older_than(self.state.timeout_s(self.timeouts, settings), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_keep_their_numbers() {
        for (number, stage) in STAGES.into_iter().enumerate() {
            assert_eq!(stage as usize, number);
        }
    }
}
