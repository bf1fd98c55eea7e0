//! Sessions: what the switch remembers of a connection at one ENI (`semantics.md` §4).

pub mod key;
pub mod sessions;
pub mod table;
pub mod tcp;

use crate::desired::{Direction, Settings, Timeouts};
use crate::headers::{Addresses, Headers, IcmpKind, Tuple, protocol};
use crate::time::Tick;
use crate::verdict::Stage;

/// Where a session is in its life. Zero means that the record is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum FlowState {
    /// No session.
    #[default]
    Free,
    /// TCP: the opener was heard, the other side not yet.
    TcpOpening,
    /// TCP: the other side answered, the handshake is not complete.
    TcpAnswered,
    /// TCP: both sides were heard and the handshake is complete.
    TcpEstablished,
    /// TCP: the opener sent its FIN.
    TcpClosingOpener,
    /// TCP: the responder sent its FIN.
    TcpClosingResponder,
    /// TCP: the opener sent its FIN before the handshake was complete.
    TcpAbandonedOpener,
    /// TCP: the responder did.
    TcpAbandonedResponder,
    /// TCP: reset, or FIN from both.
    TcpClosed,
    /// UDP.
    Udp,
    /// ICMP queries.
    Icmp,
    /// Any other protocol.
    Other,
    /// Not a session: the fate of the first fragment, for those that follow.
    Fragment,
}

impl FlowState {
    /// The name under which it is reported.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::TcpOpening => "opening",
            Self::TcpAnswered => "answered",
            Self::TcpEstablished => "established",
            Self::TcpClosingOpener | Self::TcpClosingResponder => "closing",
            Self::TcpAbandonedOpener | Self::TcpAbandonedResponder => "abandoned",
            Self::TcpClosed => "closed",
            Self::Udp | Self::Icmp | Self::Other => "open",
            Self::Fragment => "fragments",
        }
    }

    /// The state of a session that this packet opens.
    pub fn opened_by(headers: &Headers) -> Self {
        match headers.tuple.protocol {
            protocol::TCP => tcp::open(headers.tcp_flags),
            protocol::UDP => Self::Udp,
            _ if headers.icmp_kind().is_some() => Self::Icmp,
            _ => Self::Other,
        }
    }

    /// The state after another packet of the session.
    pub fn after(self, headers: &Headers, from_opener: bool) -> Self {
        match headers.tuple.protocol {
            protocol::TCP => tcp::next(self, headers.tcp_flags, from_opener),
            _ => self,
        }
    }

    /// How long a session in this state may idle, seconds (§4.2).
    #[inline]
    pub const fn timeout_s(self, timeouts: PackedTimeouts, settings: &Settings) -> u32 {
        let seconds = match self {
            Self::Free => 0,
            Self::TcpOpening | Self::TcpAnswered | Self::TcpAbandonedOpener | Self::TcpAbandonedResponder => {
                settings.tcp_half_open_timeout_s
            }
            Self::TcpEstablished | Self::TcpClosingOpener | Self::TcpClosingResponder => timeouts.tcp_established_s(),
            Self::TcpClosed => timeouts.tcp_closed_s(),
            Self::Udp | Self::Other => timeouts.udp_s(),
            Self::Icmp => settings.icmp_timeout_s,
            Self::Fragment => FRAGMENT_TIMEOUT_S,
        };
        seconds as u32
    }
}

/// How long a receiver waits for the parts of a packet at most, seconds (RFC 8200 §4.5 says 60, kernels use 30).
const FRAGMENT_TIMEOUT_S: u16 = 30;

/// Whether a packet of this kind may open a session. Errors and announcements never do: nothing answers them.
pub fn opens_session(headers: &Headers) -> bool {
    !matches!(headers.icmp_kind(), Some(IcmpKind::Error | IcmpKind::Other))
}

/// The idle timeouts a session was opened with, in two bytes: places in the lists of what may be chosen (§4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackedTimeouts(u16);

impl PackedTimeouts {
    /// Packs; none if a value may not be chosen.
    pub fn pack(timeouts: Timeouts) -> Option<Self> {
        let (closed_min, closed_max) = Timeouts::TCP_CLOSED_S;
        let established = Timeouts::TCP_ESTABLISHED_S.iter().position(|&s| s == timeouts.tcp_established_s)?;
        let udp = Timeouts::UDP_S.iter().position(|&s| s == timeouts.udp_s)?;
        if !(closed_min..=closed_max).contains(&timeouts.tcp_closed_s) {
            return None;
        }
        Some(Self(established as u16 | timeouts.tcp_closed_s << 4 | (udp as u16) << 8))
    }

    /// Established TCP, seconds.
    #[inline]
    const fn tcp_established_s(self) -> u16 {
        // Only `pack` makes values other than zero, and zero means the first of each list.
        const CHOICES: [u16; 16] = padded(Timeouts::TCP_ESTABLISHED_S);
        CHOICES[(self.0 & 0xf) as usize]
    }

    /// Closed TCP, seconds.
    #[inline]
    const fn tcp_closed_s(self) -> u16 {
        self.0 >> 4 & 0xf
    }

    /// UDP, seconds.
    #[inline]
    const fn udp_s(self) -> u16 {
        const CHOICES: [u16; 16] = padded(Timeouts::UDP_S);
        CHOICES[(self.0 >> 8 & 0xf) as usize]
    }
}

/// The choices in a list that four bits cannot leave.
const fn padded<const N: usize>(choices: [u16; N]) -> [u16; 16] {
    let mut list = [choices[0]; 16];
    let mut place = 0;
    while place < N {
        list[place] = choices[place];
        place += 1;
    }
    list
}

/// What is remembered of a session besides its key.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Flow {
    /// Bytes in the opening direction and in the other.
    pub bytes: [u64; 2],
    /// Packets in the opening direction and in the other.
    pub packets: [u32; 2],
    /// The ENI's policy revision it was last admitted under.
    pub revision: u32,
    /// When its last packet came.
    pub last_seen: Tick,
    /// When it was opened.
    pub opened_at: Tick,
    /// The next record of the table's chain plus one; zero at its end.
    pub(crate) next: u32,
    /// The rule or group that admitted it, as [`Judgement::ground`](crate::verdict::Judgement::ground).
    pub ground: u32,
    /// Idle timeouts, fixed when it was opened.
    pub timeouts: PackedTimeouts,
    /// Where it is in its life.
    pub state: FlowState,
    pub(crate) flags: FlowFlags,
}

/// Direction of the opening packet, its order in the key, revocation, and the admitting stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FlowFlags(u8);

impl FlowFlags {
    const EGRESS: u8 = 1;
    const SWAPPED: u8 = 2;
    const REVOKED: u8 = 4;
    const STAGE_SHIFT: u8 = 4;

    pub(crate) fn new(opened: Direction, swapped: bool, stage: Stage) -> Self {
        let egress = if opened == Direction::Egress { Self::EGRESS } else { 0 };
        let swapped = if swapped { Self::SWAPPED } else { 0 };
        Self(egress | swapped | (stage as u8) << Self::STAGE_SHIFT)
    }
}

const STAGES: [Stage; 12] = [
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

impl Flow {
    /// The direction of the packet that opened it.
    pub const fn opened(&self) -> Direction {
        if self.flags.0 & FlowFlags::EGRESS != 0 { Direction::Egress } else { Direction::Ingress }
    }

    /// Whether the opener's endpoint is the second of the key.
    pub const fn is_swapped(&self) -> bool {
        self.flags.0 & FlowFlags::SWAPPED != 0
    }

    /// Whether the present rules refuse it: it stays as a memory, so that neither side can bring it back (§4.4).
    pub const fn is_revoked(&self) -> bool {
        self.flags.0 & FlowFlags::REVOKED != 0
    }

    /// The step that admitted it.
    pub fn stage(&self) -> Stage {
        STAGES[(self.flags.0 >> FlowFlags::STAGE_SHIFT) as usize % STAGES.len()]
    }

    /// Makes this the fate of the first fragment of a packet with `tuple`; a fate counts nothing, so the counters keep
    /// what the fragments after it do not show.
    pub(crate) const fn remember_first(&mut self, tuple: &Tuple) {
        self.state = FlowState::Fragment;
        self.packets = [tuple.source_port as u32, tuple.destination_port as u32];
        self.bytes[0] = tuple.protocol as u64;
    }

    /// The tuple of the first fragment, whose fate this is.
    pub(crate) const fn first_tuple(&self, addresses: Addresses) -> Tuple {
        Tuple {
            addresses,
            protocol: self.bytes[0] as u8,
            source_port: self.packets[0] as u16,
            destination_port: self.packets[1] as u16,
        }
    }

    pub(crate) fn set_revoked(&mut self, revoked: bool) {
        self.flags.0 = self.flags.0 & !FlowFlags::REVOKED | if revoked { FlowFlags::REVOKED } else { 0 };
    }

    pub(crate) fn set_stage(&mut self, stage: Stage) {
        self.flags.0 = self.flags.0 & 0xf | (stage as u8) << FlowFlags::STAGE_SHIFT;
    }

    /// Whether it idled longer than its state allows.
    #[inline]
    pub fn is_expired(&self, settings: &Settings, now: Tick) -> bool {
        self.last_seen.is_older_than(self.state.timeout_s(self.timeouts, settings), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_of_timeouts_survives_packing() {
        for tcp_established_s in Timeouts::TCP_ESTABLISHED_S {
            for tcp_closed_s in 3..=15 {
                for udp_s in Timeouts::UDP_S {
                    let timeouts = Timeouts { tcp_established_s, tcp_closed_s, udp_s };
                    let packed = PackedTimeouts::pack(timeouts).unwrap();
                    let (tcp_established_s, tcp_closed_s) = (packed.tcp_established_s(), packed.tcp_closed_s());
                    assert_eq!(Timeouts { tcp_established_s, tcp_closed_s, udp_s: packed.udp_s() }, timeouts);
                }
            }
        }
        assert_eq!(PackedTimeouts::pack(Timeouts { udp_s: 31, ..Timeouts::default() }), None);
        assert_eq!(PackedTimeouts::pack(Timeouts { tcp_closed_s: 2, ..Timeouts::default() }), None);
    }

    #[test]
    fn stages_keep_their_numbers() {
        for (number, stage) in STAGES.into_iter().enumerate() {
            assert_eq!(stage as usize, number);
        }
    }
}
