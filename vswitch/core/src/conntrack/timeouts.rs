//! How long sessions may idle, by state and timeout profile (`semantics.md` §4.2).

use crate::config::desired::{Settings, TimeoutProfile};
use crate::config::packed_timeouts::PackedTimeouts;
use crate::conntrack::state::{ConnectionState, LEAST_S};
use crate::conntrack::{Connection, Session};
use crate::hw::time::{TICKS_PER_SECOND, Tick};

/// A profile that is independent of ENIs and settings. Seconds.
struct Profile {
    /// TCP before an answer, and after a FIN before the handshake was complete.
    tcp_opening: u32,
    /// TCP answered, with the handshake incomplete.
    tcp_answered: u32,
    /// TCP established.
    tcp_established: u32,
    /// TCP after the first FIN.
    tcp_closing: u32,
    /// TCP after RST, or FIN from both sides.
    tcp_closed: u32,
    /// UDP in one direction, or one query and its answer.
    udp_single: u32,
    /// UDP that continues after an answer.
    udp_stream: u32,
    /// ICMP queries.
    icmp: u32,
    /// Any other protocol.
    other: u32,
}

/// The defaults of `ConnectionTrackingConfiguration` in the EC2 API reference, which lists established TCP (432,000 s,
/// 350 s on the newest instances), UDP (30 s) and UDP streams (180 s). A half-closed connection counts as established
/// there. What is not documented is as in the profile `alibaba`.
const AWS: Profile = Profile {
    tcp_opening: 30,
    tcp_answered: 30,
    tcp_established: 432_000,
    tcp_closing: 432_000,
    tcp_closed: 3,
    udp_single: 30,
    udp_stream: 180,
    icmp: 30,
    other: 30,
};

/// The defaults of `nf_conntrack_*_timeout_*` in the kernel's `nf_conntrack-sysctl`: `syn_sent`, `syn_recv`,
/// `established`, `fin_wait`, `time_wait`; `udp`, `udp_stream`; `icmp`; `generic`. The kernel has more closing states;
/// this table has the longest timeout of each kind.
const LINUX: Profile = Profile {
    tcp_opening: 120,
    tcp_answered: 60,
    tcp_established: 432_000,
    tcp_closing: 120,
    tcp_closed: 120,
    udp_single: 30,
    udp_stream: 120,
    icmp: 30,
    other: 600,
};

impl Profile {
    const fn of(&self, state: ConnectionState) -> u32 {
        match state {
            ConnectionState::Free => 0,
            ConnectionState::TcpOpening
            | ConnectionState::TcpAbandonedOpener
            | ConnectionState::TcpAbandonedResponder => self.tcp_opening,
            ConnectionState::TcpAnswered => self.tcp_answered,
            ConnectionState::TcpEstablished => self.tcp_established,
            ConnectionState::TcpClosingOpener | ConnectionState::TcpClosingResponder => self.tcp_closing,
            ConnectionState::TcpClosed => self.tcp_closed,
            ConnectionState::Udp | ConnectionState::UdpAnswered => self.udp_single,
            ConnectionState::UdpStream => self.udp_stream,
            ConnectionState::Icmp => self.icmp,
            ConnectionState::Other => self.other,
        }
    }
}

/// Profile `alibaba`: the ENI determines the timeouts of established TCP, closed TCP and UDP, the settings all others.
const fn alibaba(state: ConnectionState, timeouts: PackedTimeouts, settings: &Settings) -> u32 {
    let seconds = match state {
        ConnectionState::Free => 0,
        ConnectionState::TcpOpening
        | ConnectionState::TcpAnswered
        | ConnectionState::TcpAbandonedOpener
        | ConnectionState::TcpAbandonedResponder => settings.tcp_half_open_timeout_s,
        ConnectionState::TcpEstablished | ConnectionState::TcpClosingOpener | ConnectionState::TcpClosingResponder => {
            timeouts.tcp_established_s()
        }
        ConnectionState::TcpClosed => timeouts.tcp_closed_s(),
        ConnectionState::Udp | ConnectionState::UdpAnswered | ConnectionState::UdpStream | ConnectionState::Other => {
            timeouts.udp_s()
        }
        ConnectionState::Icmp => settings.icmp_timeout_s,
    };
    seconds as u32
}

impl ConnectionState {
    /// How long a session in this state may idle, seconds (§4.2).
    #[inline]
    pub const fn timeout_s(self, timeouts: PackedTimeouts, settings: &Settings) -> u32 {
        match timeouts.profile() {
            TimeoutProfile::Alibaba => alibaba(self, timeouts, settings),
            TimeoutProfile::Aws => AWS.of(self),
            TimeoutProfile::Linux => LINUX.of(self),
        }
    }
}

/// Tells which connections have expired at one moment. Nearly all have the same timeouts, which are therefore expanded
/// once.
pub struct Expiry<'a> {
    settings: &'a Settings,
    now: Tick,
    /// The usual timeouts, and the ticks that a session with them may idle, by state; unlimited for a free record.
    usual: PackedTimeouts,
    ticks: [u32; 16],
    /// Selects sessions that are over whatever their timeouts, if there may be any.
    is_orphan: Option<&'a dyn Fn(Session) -> bool>,
}

impl<'a> Expiry<'a> {
    /// Expiry by timeouts alone.
    pub const fn at(now: Tick, settings: &'a Settings) -> Self {
        Self { settings, now, usual: PackedTimeouts::NONE, ticks: [u32::MAX; 16], is_orphan: None }
    }

    /// Also expires records for all of whose sides `is_orphan` holds.
    pub(crate) const fn with_orphans(self, is_orphan: Option<&'a dyn Fn(Session) -> bool>) -> Self {
        Self { is_orphan, ..self }
    }

    /// Whether there is a connection and it [`Connection::is_expired`] or belongs to no ENI.
    #[inline(always)]
    pub(crate) fn is_over(&mut self, connection: &Connection) -> bool {
        let is_there = connection.state != ConnectionState::Free;
        // Bitwise operators, not `&&`: both parts are cheap, a mispredicted branch is not.
        if (is_there & (connection.timeouts != self.usual)) | self.is_orphan.is_some() {
            return is_there && self.is_over_unusual(connection);
        }
        // Sixteen entries for fourteen states: the remainder replaces a bounds check.
        connection.last_seen.age_ticks(self.now) >= self.ticks[connection.state as usize % 16]
    }

    #[inline(never)]
    fn is_over_unusual(&mut self, connection: &Connection) -> bool {
        // The first record of a round stands for most of them: few ENIs have timeouts of their own.
        if self.usual == PackedTimeouts::NONE {
            (self.usual, self.ticks) = (connection.timeouts, ticks_of(connection.timeouts, self.settings));
        }
        connection.is_expired(self.settings, self.now)
            || self.is_orphan.is_some_and(|is_orphan| connection.sessions.into_iter().all(is_orphan))
    }
}

fn ticks_of(timeouts: PackedTimeouts, settings: &Settings) -> [u32; 16] {
    let mut ticks = [u32::MAX; 16];
    for state in ConnectionState::ALL.into_iter().filter(|state| *state != ConnectionState::Free) {
        // `is_expired` ends no session before the shortest timeout, and both must agree.
        let seconds = state.timeout_s(timeouts, settings).max(LEAST_S);
        ticks[state as usize] = seconds.saturating_mul(TICKS_PER_SECOND as u32);
    }
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::desired::Timeouts;

    #[test]
    fn sessions_are_over_when_their_timeouts_say_so() {
        let settings = Settings::default();
        let choice = |udp_s| PackedTimeouts::pack(Timeouts { udp_s, ..Timeouts::default() });
        let [one, other] = Timeouts::UDP_S.map(|udp_s| choice(udp_s).unwrap())[..2] else { unreachable!() };
        for seconds in 0..1000 {
            let now = Tick(20_000 + seconds * 16 + 7);
            let mut expiry = Expiry::at(now, &settings);
            for state in ConnectionState::ALL {
                for timeouts in [one, other, one.under(TimeoutProfile::Aws)] {
                    let connection = Connection { state, timeouts, last_seen: Tick(20_007), ..Connection::default() };
                    let is_over = seconds >= state.timeout_s(timeouts, &settings).max(1);
                    assert_eq!(connection.is_expired(&settings, now), is_over);
                    let is_there = state != ConnectionState::Free;
                    assert_eq!(expiry.is_over(&connection), is_there && is_over, "{state:?}, {seconds} s");
                }
            }
        }
    }

    #[test]
    fn an_eni_chooses_in_profile_alibaba_alone() {
        let chosen = Timeouts { tcp_established_s: 300, tcp_closed_s: 15, udp_s: 100 };
        let seconds = |state: ConnectionState, profile| {
            state.timeout_s(PackedTimeouts::pack(chosen).unwrap().under(profile), &Settings::default())
        };
        for (state, expected) in [
            (ConnectionState::TcpOpening, [30, 30, 120]),
            (ConnectionState::TcpAnswered, [30, 30, 60]),
            (ConnectionState::TcpEstablished, [300, 432_000, 432_000]),
            (ConnectionState::TcpClosingOpener, [300, 432_000, 120]),
            (ConnectionState::TcpClosed, [15, 3, 120]),
            (ConnectionState::Udp, [100, 30, 30]),
            (ConnectionState::UdpStream, [100, 180, 120]),
            (ConnectionState::Icmp, [30, 30, 30]),
            (ConnectionState::Other, [100, 30, 600]),
        ] {
            assert_eq!(TimeoutProfile::NAMES.map(|(profile, _)| seconds(state, profile)), expected, "{state:?}");
        }
    }
}
