//! The life of a session, as the oracle sees it.

use crate::frame::TcpFlags;
use crate::message::{Message, MessageEnd};
use crate::oracle::{FATE_S, Name};
use std::net::IpAddr;
use vswitch_core::config::desired::{Direction, Settings, TimeoutProfile, Timeouts};
use vswitch_core::packet::headers::Tuple;

/// How long a SYN in the middle of a session is remembered, seconds.
const SYN_S: u64 = 70;
/// The largest window without a scale, and with the largest.
const WINDOW: u32 = 65_535;
const WINDOW_SCALED: u32 = 65_535 << 14;

#[derive(Clone, Debug)]
pub(crate) struct SessionLife {
    pub(crate) opener: MessageEnd,
    pub(crate) opened: Direction,
    pub(crate) opening: Tuple,
    /// The opener is unknown: the rules of both directions have to admit it.
    pub(crate) needs_both: bool,
    pub(crate) last_seen_s: u64,
    pub(crate) timeouts: Timeouts,
    pub(crate) profile: TimeoutProfile,
    pub(crate) revoked: bool,
    pub(crate) life: Life,
    /// The order in which sessions are examined when an ENI is at its limit, lowest first.
    pub(crate) order: u64,
}

#[derive(Clone, Debug)]
pub(crate) enum Life {
    Tcp {
        answered: bool,
        established: bool,
        fins: [bool; 2],
        reset: bool,
        /// The next byte that is expected of the opener, and of the other side.
        expected: [Option<u32>; 2],
        /// Whether a SYN was seen, so that windows are not scaled: no SYN here offers a scale.
        unscaled: bool,
        /// A SYN in the middle of the session: the side it came from, the number that acknowledges it, and when it
        /// came.
        syn: Option<(usize, u32, u64)>,
    },
    /// How often the direction has changed, up to two.
    Udp(u8),
    Other,
    Icmp,
    /// Whether the first fragment passed, the policy revision of that time, and its session.
    Fate(bool, u32, Name),
}

impl SessionLife {
    pub(crate) fn timeout_s(&self, settings: &Settings) -> u64 {
        let half_open = settings.tcp_half_open_timeout_s as u64;
        let of_eni = self.timeouts;
        // By profile: alibaba, aws, linux.
        let seconds = match self.life {
            Life::Tcp { reset: true, .. } | Life::Tcp { fins: [true, true], .. } => {
                [of_eni.tcp_closed_s as u64, 3, 120]
            }
            Life::Tcp { established: true, fins: [false, false], .. } => {
                [of_eni.tcp_established_s as u64, 432_000, 432_000]
            }
            Life::Tcp { established: true, .. } => [of_eni.tcp_established_s as u64, 432_000, 120],
            Life::Tcp { answered: true, fins: [false, false], .. } => [half_open, 30, 60],
            Life::Tcp { .. } => [half_open, 30, 120],
            Life::Udp(2) => [of_eni.udp_s as u64, 180, 120],
            Life::Udp(_) => [of_eni.udp_s as u64, 30, 30],
            Life::Other => [of_eni.udp_s as u64, 30, 600],
            Life::Icmp => [settings.icmp_timeout_s as u64, 30, 30],
            Life::Fate(..) => return FATE_S,
        };
        match self.profile {
            TimeoutProfile::Alibaba => seconds[0],
            TimeoutProfile::Aws => seconds[1],
            TimeoutProfile::Linux => seconds[2],
        }
    }

    /// Whether it may give way to another of its ENI; if so, whether it is closing.
    pub(crate) fn gives_way(&self) -> Option<bool> {
        match self.life {
            _ if self.revoked => None,
            Life::Tcp { reset, fins, .. } if reset || fins.contains(&true) => Some(true),
            Life::Tcp { established: false, .. } | Life::Udp(0..=1) | Life::Icmp => Some(false),
            _ => None,
        }
    }

    /// The address at the other end.
    pub(crate) fn peer(&self, name: &Name) -> IpAddr {
        let Name::Session(_, _, one, other) = name else { unreachable!("fates have no peers") };
        let not_opener = if *one == self.opener { other } else { one };
        if self.opened == Direction::Ingress { self.opener.0 } else { not_opener.0 }
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.life, Life::Tcp { reset: true, .. } | Life::Tcp { fins: [true, true], .. })
    }

    pub(crate) fn hear(&mut self, message: &Message, now_s: u64) {
        let from_opener = message.ends().1 == self.opener;
        let flags = message.tcp_flags();
        let (is_far, has_syn, answers_syn) =
            (self.is_far(message), self.has_syn(now_s), self.answers_syn(message, now_s));
        self.last_seen_s = now_s;
        if flags & TcpFlags::RST != 0 {
            let is_believed = self.believes(message, now_s);
            if let Life::Tcp { reset, syn, .. } = &mut self.life {
                *reset |= is_believed;
                syn.take_if(|_| answers_syn);
            }
            return;
        }
        match &mut self.life {
            Life::Tcp { answered, established, fins, reset, expected, unscaled, syn } => {
                let (sequence, acknowledgment) = message.numbers();
                let (mine, other) = if from_opener { (0, 1) } else { (1, 0) };
                let is_syn = flags & TcpFlags::SYN != 0;
                let (is_answer, next) = (flags & TcpFlags::ACK != 0, sequence.wrapping_add(1));
                let is_shaking_hands = !*established && !fins.contains(&true) && !*reset;
                *unscaled |= is_syn && is_shaking_hands;
                match (is_syn, is_shaking_hands) {
                    (true, true) if is_answer => {
                        (expected[mine], expected[other]) = (Some(next), Some(acknowledgment));
                    }
                    (true, true) => {
                        if expected[mine].is_some_and(|before| before != next) {
                            expected[other] = None;
                            *answered &= !from_opener;
                        }
                        expected[mine] = Some(next);
                    }
                    (true, false) if is_answer && is_far && answers_syn => {
                        (expected[mine], expected[other]) = (Some(next), Some(acknowledgment));
                        (*answered, *established, *unscaled, *syn) = (true, false, true, None);
                        (*fins, *reset) = ([false; 2], false);
                    }
                    (true, false) if is_answer => {}
                    (true, false) if !*reset && *fins != [true; 2] => *syn = Some((mine, next, now_s)),
                    (false, _) if is_answer && has_syn && syn.is_some_and(|(side, ..)| side == mine) => {
                        *syn = None;
                        if is_far && !*reset && *fins != [true; 2] {
                            (expected[mine], expected[other]) = (Some(sequence), Some(acknowledgment));
                            (*answered, *established, *unscaled, *fins) = (true, false, false, [false; 2]);
                        }
                    }
                    _ => {}
                }
                fins[mine] |= flags & TcpFlags::FIN != 0;
                if !fins.contains(&true) && !*reset {
                    *established |= *answered && from_opener && flags & TcpFlags::ACK != 0;
                    *answered |= !from_opener;
                }
                if flags & TcpFlags::ACK != 0 {
                    let moves = |old: u32| acknowledgment.wrapping_sub(old) <= WINDOW_SCALED;
                    if expected[other].is_none_or(moves) {
                        expected[other] = Some(acknowledgment);
                    }
                }
                expected[mine].get_or_insert(sequence.wrapping_add(is_syn as u32));
            }
            Life::Udp(turns) if from_opener == (*turns == 1) && *turns < 2 => *turns += 1,
            _ => {}
        }
    }

    /// Whether a reset is in the window, or answers the SYN.
    pub(crate) fn believes(&self, message: &Message, now_s: u64) -> bool {
        let Life::Tcp { expected, unscaled, .. } = self.life else { return false };
        let (sequence, acknowledgment) = message.numbers();
        let (mine, other) = if message.ends().1 == self.opener { (0, 1) } else { (1, 0) };
        let window = if unscaled { WINDOW } else { WINDOW_SCALED };
        let answers = message.tcp_flags() & TcpFlags::ACK != 0 && Some(acknowledgment) == expected[other];
        match expected[mine] {
            Some(next) => {
                let is_inside = sequence.wrapping_sub(next) <= window;
                is_inside || (self.is_shaking_hands() && answers) || self.answers_syn(message, now_s)
            }
            None => expected[other].is_none() || answers || self.answers_syn(message, now_s),
        }
    }

    pub(crate) fn is_shaking_hands(&self) -> bool {
        matches!(self.life, Life::Tcp { established: false, reset: false, fins: [false, false], .. })
    }

    pub(crate) fn has_syn(&self, now_s: u64) -> bool {
        matches!(self.life, Life::Tcp { syn: Some((_, _, seen_s)), .. } if now_s - seen_s < SYN_S)
    }

    /// Whether a message answers a SYN in the middle of the session, with a SYN of its own or a reset.
    pub(crate) fn answers_syn(&self, message: &Message, now_s: u64) -> bool {
        let Life::Tcp { syn: Some((side, expected, _)), .. } = self.life else { return false };
        let other = if message.ends().1 == self.opener { 1 } else { 0 };
        let is_answer = message.tcp_flags() & TcpFlags::ACK != 0 && self.has_syn(now_s);
        is_answer && (side, expected) == (other, message.numbers().1)
    }

    /// Whether a segment is far from the connection's numbers, and no SYN has announced others.
    pub(crate) fn is_outside(&self, message: &Message, now_s: u64) -> bool {
        !self.is_shaking_hands() && self.is_far(message) && !self.has_syn(now_s)
    }

    pub(crate) fn is_far(&self, message: &Message) -> bool {
        let Life::Tcp { expected, unscaled, .. } = self.life else { return false };
        if message.is_tcp_open() {
            return false;
        }
        let (sequence, acknowledgment) = message.numbers();
        let (mine, other) = if message.ends().1 == self.opener { (0, 1) } else { (1, 0) };
        let window = if unscaled { WINDOW } else { WINDOW_SCALED };
        let is_far = |number: u32, next: u32| {
            let (ahead, behind) = (number.wrapping_sub(next), next.wrapping_sub(number));
            ahead > window && behind > window + 1
        };
        let acknowledges = message.tcp_flags() & TcpFlags::ACK != 0;
        expected[mine].is_some_and(|next| is_far(sequence, next))
            || (acknowledges && expected[other].is_some_and(|next| is_far(acknowledgment, next)))
    }
}
