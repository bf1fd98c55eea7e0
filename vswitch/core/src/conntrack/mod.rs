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
    /// The state of a session after its first packet, which came from the opener or was an answer.
    pub fn opened_by(headers: &Headers, from_opener: bool) -> Self {
        match headers.tuple.protocol {
            protocol::TCP if from_opener => tcp::open(headers.tcp_flags),
            // The opener's packet was not seen here, so the answer is evaluated as if it had been.
            protocol::TCP => tcp::next(Self::TcpOpening, headers.tcp_flags, false),
            protocol::UDP => Self::Udp,
            _ if headers.icmp_kind().is_some() => Self::Icmp,
            _ => Self::Other,
        }
    }

    /// The state after another packet of the session. The caller has checked whether a reset counts.
    #[inline(always)]
    pub fn after(self, flags: u8, from_opener: bool) -> Self {
        if !self.is_tcp() {
            return self.after_datagram(from_opener);
        }
        // A plain data packet changes the state only while a handshake is incomplete.
        let is_settled =
            self as u8 > Self::TcpAnswered as u8 && flags & (tcp_flags::SYN | tcp_flags::FIN | tcp_flags::RST) == 0;
        if is_settled {
            return self;
        }
        tcp::next(self, flags, from_opener)
    }

    /// UDP has no handshake: a stream is told from a single query by packets in both directions followed by more from
    /// the opener, as in AWS.
    #[inline(always)]
    const fn after_datagram(self, from_opener: bool) -> Self {
        match (self, from_opener) {
            (Self::Udp, false) => Self::UdpAnswered,
            (Self::UdpAnswered, true) => Self::UdpStream,
            _ => self,
        }
    }
}

/// Whether a packet of this kind may open a session. Errors and announcements may not, since nothing answers them.
pub fn opens_session(headers: &Headers) -> bool {
    !matches!(headers.icmp_kind(), Some(IcmpKind::Error | IcmpKind::Other))
}

/// The part of a record that every packet of a connection reads and writes, apart from the key: 52 bytes, which fill a
/// cache line together with an IPv4 key.
///
/// A record holds the sessions of up to two ENIs, its *sides*: those that a packet between two ENIs of one worker
/// opened together, as long as both have seen the same packets. The first packet that only one of them sees splits the
/// record in two (`datapath/session_update.rs`).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Connection {
    /// IANA protocol number.
    pub protocol: u8,
    /// The state of the connection.
    pub state: ConnectionState,
    /// The idle timeouts, fixed when the connection was opened.
    pub timeouts: PackedTimeouts,
    /// The sessions.
    pub sessions: [Session; 2],
    /// When the last packet arrived.
    pub last_seen: Tick,
    /// The index of the next record in the table's chain plus one; zero at the end.
    pub(crate) next: u32,
    /// Packets in the opening direction and in the reverse one.
    pub(crate) packets: [u32; 2],
    /// Bytes in the opening direction and in the reverse one: the lower 32 bits; see [`Origin`].
    pub(crate) bytes_low: [u32; 2],
    /// TCP: where the receivers' windows begin.
    pub(crate) edges: tcp::Edges,
}

/// The part of a record that few packets touch, stored separately.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Origin {
    /// When the connection was opened.
    pub opened_at: Tick,
    /// The rule or group that admitted each session, as [`Decision::ground`](crate::packet::verdict::Decision::ground).
    pub grounds: [u32; 2],
    /// The upper bits of the byte counts.
    pub(crate) bytes_high: [BytesHigh; 2],
    /// TCP: the receivers' window scales.
    pub(crate) scales: tcp::Scales,
    /// The bucket in which the record's chain begins.
    pub(crate) bucket: u32,
}

impl Origin {
    /// The same as [`Connection::has_seen_the_same`], for this part of the record.
    pub(crate) fn has_seen_the_same(&self, other: &Self) -> bool {
        let seen = |origin: &Self| (origin.opened_at, origin.bytes_high, origin.scales);
        seen(self) == seen(other)
    }
}

/// Bits 32 to 55 of a count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BytesHigh([u8; 3]);

impl BytesHigh {
    /// Adds one, when the lower bits overflow.
    #[cold]
    pub(crate) fn carry(&mut self) {
        let [low, middle, high] = self.0;
        [self.0[0], self.0[1], self.0[2], _] = u32::from_le_bytes([low, middle, high, 0]).wrapping_add(1).to_le_bytes();
    }

    /// The whole count with these lower bits.
    pub(crate) const fn with(self, low: u32) -> u64 {
        let [first, second, third] = self.0;
        (u32::from_le_bytes([first, second, third, 0]) as u64) << 32 | low as u64
    }
}

const _: () = assert!(size_of::<Origin>() == 24);

/// The number of epochs that fit into a session, beside its flags.
pub const EPOCHS_MAX: u32 = 1 << 23;

/// One ENI's session of a connection. All zero means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Session {
    /// The ENI's epoch in the lower bits, flags above it.
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

    /// A session of the ENI `epoch`, opened by a packet in this direction; `swapped` if that packet's source is the
    /// key's second end.
    pub const fn new((epoch, revision): (EniEpoch, u32), opened: Direction, swapped: bool, stage: Stage) -> Self {
        let egress = if matches!(opened, Direction::Egress) { Self::EGRESS } else { 0 };
        let swapped = if swapped { Self::SWAPPED } else { 0 };
        Self { tag: epoch.0 | egress | swapped | (stage as u32) << Self::STAGE_SHIFT, revision }
    }

    /// The session for which [`Session::is`] is true with `live`.
    #[inline(always)]
    pub(crate) const fn of_live(live: u64, opened: Direction, swapped: bool, stage: Stage) -> Self {
        Self::new((EniEpoch(live as u32), (live >> 32) as u32), opened, swapped, stage)
    }

    /// No session, in whose place the external port of the record's packets is remembered. It is not believed without a look
    /// at the mapping.
    pub(crate) const fn none_with_hint(port: u16) -> Self {
        Self { tag: 0, revision: port as u32 }
    }

    /// The port that is remembered in the place of no session; zero if there is none.
    pub(crate) const fn port_hint(self) -> u16 {
        self.revision as u16
    }

    /// The ENI whose session it is; zero if there is none.
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

    /// The same session, marked as one whose opener is unknown: the rules of both directions have to admit it.
    pub(crate) const fn of_unknown_opener(self) -> Self {
        Self { tag: self.tag | Self::BOTH, ..self }
    }

    /// Whether the rules of both directions have to admit it.
    pub(crate) const fn needs_both(self) -> bool {
        self.tag & Self::BOTH != 0
    }

    /// Whether there is a session and the present rules do not refuse it.
    pub(crate) const fn is_live(self) -> bool {
        self.tag & Self::SCOPE != 0 && !self.is_revoked()
    }

    /// Whether the present rules refuse it. It is kept so that neither side can open it again (§4.4).
    pub const fn is_revoked(self) -> bool {
        self.tag & Self::REVOKED != 0
    }

    /// The step that admitted it.
    pub fn stage(self) -> Stage {
        // Four bits hold sixteen values and there are twelve stages: the remainder keeps the index in range.
        STAGES[((self.tag & Self::STAGE) >> Self::STAGE_SHIFT) as usize % STAGES.len()]
    }

    /// Whether a SYN arrived in the middle of it that has not been answered yet ([`syns`]). Such a session never takes
    /// the fast path.
    pub(crate) const fn has_syn(self) -> bool {
        self.tag & Self::SYN != 0
    }

    pub(crate) const fn set_syn(&mut self, has_syn: bool) {
        self.tag = self.tag & !Self::SYN | if has_syn { Self::SYN } else { 0 };
    }

    /// The value that [`Session::is`] compares with: a session of `epoch`, admitted under `revision` and not revoked.
    #[inline(always)]
    pub(crate) const fn live_under(epoch: EniEpoch, revision: u32) -> u64 {
        (revision as u64) << 32 | epoch.0 as u64
    }

    /// Whether it is the session that `live` describes.
    #[inline(always)]
    pub(crate) const fn is(self, live: u64) -> bool {
        // One comparison answers four questions: this ENI, this revision, no SYN under way, not revoked.
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
    /// Which side is the session of `epoch`.
    #[inline]
    pub fn place_of(&self, epoch: EniEpoch) -> Option<usize> {
        match epoch {
            _ if self.sessions[0].epoch() == epoch => Some(0),
            _ if self.sessions[1].epoch() == epoch => Some(1),
            _ => None,
        }
    }

    /// The sessions, each with the index of its side.
    pub fn sessions(&self) -> impl Iterator<Item = (usize, Session)> + use<> {
        self.sessions.into_iter().enumerate().filter(|(_, session)| session.epoch() != EniEpoch::default())
    }

    /// Counts a packet in the direction `way`, which is zero for the opener's, and restarts the timer. Returns whether
    /// the lower part of that direction's byte count overflowed; see [`Origin`].
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

    /// Whether two records of one session each belong to the two ends of a connection, and neither session is revoked.
    pub(crate) fn is_other_end_of(&self, other: &Self) -> bool {
        let only = |connection: &Self| {
            connection.sessions().next().map(|(_, session)| session).filter(|session| !session.is_revoked())
        };
        let (Some(one), Some(two)) = (only(self), only(other)) else { return false };
        // Only the record that was found can be shared: the one to be adopted has a single session.
        !self.is_shared() && one.opened() != two.opened() && one.is_swapped() == two.is_swapped()
    }

    /// Whether both records have counted the same packets.
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

    /// Whether it only holds revoked sessions.
    pub(crate) fn is_dead(&self) -> bool {
        !self.sessions[0].is_live() && !self.sessions[1].is_live()
    }

    /// Whether two ENIs have their sessions in it.
    pub(crate) fn is_shared(&self) -> bool {
        self.sessions[0].epoch() != EniEpoch::default() && self.sessions[1].epoch() != EniEpoch::default()
    }

    /// Whether it has expired at `now`.
    #[inline]
    pub fn is_expired(&self, settings: &Settings, now: Tick) -> bool {
        // A short cut: nearly all records were in use a moment ago. One last seen after `now` takes the full check.
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
