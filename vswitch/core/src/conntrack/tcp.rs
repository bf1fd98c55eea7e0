//! The life of a TCP session as seen from outside (`semantics.md` §4.2, RFC 9293 §3.3.2).
//!
//! `next` is a table: what a packet with these flags, from this side, makes of a session in this state. [`believes`]
//! says which resets count, so that nobody who cannot see the connection ends its session; [`is_outside`] is the full
//! check of sequence numbers that an ENI may ask for.

use crate::conntrack::state::ConnectionState;
use crate::conntrack::state::ConnectionState::{
    TcpAbandonedOpener, TcpAbandonedResponder, TcpAnswered, TcpClosed, TcpClosingOpener, TcpClosingResponder,
    TcpEstablished, TcpOpening,
};
use crate::packet::headers::Segment;
use crate::packet::headers::tcp_flags::{ACK, FIN, RST, SYN};

/// What a packet's flags say. The first that fits: a reset is nothing else, and a FIN ends whatever else it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum FlagSet {
    /// RST.
    Reset,
    /// FIN, with or without more.
    Finish,
    /// SYN without ACK: opens a connection, also from both sides at once.
    Open,
    /// SYN and ACK: answers one.
    OpenAnswer,
    /// ACK without SYN: completes a handshake, or carries data.
    Acknowledge,
    /// None of them: nothing that a stack sends.
    Nothing,
}

const FLAG_SETS: usize = 6;

impl FlagSet {
    const fn of(flags: u8) -> Self {
        if flags & RST != 0 {
            Self::Reset
        } else if flags & FIN != 0 {
            Self::Finish
        } else {
            match flags & (SYN | ACK) {
                SYN => Self::Open,
                ACK => Self::Acknowledge,
                0 => Self::Nothing,
                _ => Self::OpenAnswer,
            }
        }
    }
}

/// One state's part of the table: what follows packets of the opener, and of the responder, by [`FlagSet`].
struct Row {
    from: ConnectionState,
    opener: [ConnectionState; FLAG_SETS],
    responder: [ConnectionState; FLAG_SETS],
}

// The states, short enough for a table.
const OPENING: ConnectionState = TcpOpening;
const ANSWERED: ConnectionState = TcpAnswered;
const LIVE: ConnectionState = TcpEstablished;
const ENDING_O: ConnectionState = TcpClosingOpener;
const ENDING_R: ConnectionState = TcpClosingResponder;
const GIVEN_O: ConnectionState = TcpAbandonedOpener;
const GIVEN_R: ConnectionState = TcpAbandonedResponder;
const OVER: ConnectionState = TcpClosed;

/// The state machine. Where it says nothing new, the packet is a retransmission, data, or noise.
#[rustfmt::skip]
const TABLE: [Row; 8] = [
    //                               Reset  Finish    Open      OpenAnswer  Acknowledge  Nothing
    Row { from: OPENING,
          opener:                   [OVER,  GIVEN_O,  OPENING,  OPENING,    OPENING,     OPENING],
          // An Open here is a simultaneous open (RFC 9293 §3.5): the opener's OpenAnswer then completes it.
          responder:                [OVER,  GIVEN_R,  ANSWERED, ANSWERED,   ANSWERED,    ANSWERED] },
    Row { from: ANSWERED,
          opener:                   [OVER,  GIVEN_O,  ANSWERED, LIVE,       LIVE,        ANSWERED],
          responder:                [OVER,  GIVEN_R,  ANSWERED, ANSWERED,   ANSWERED,    ANSWERED] },
    Row { from: LIVE,
          opener:                   [OVER,  ENDING_O, LIVE,     LIVE,       LIVE,        LIVE],
          responder:                [OVER,  ENDING_R, LIVE,     LIVE,       LIVE,        LIVE] },
    // Half closed: the other side may send for as long as it likes.
    Row { from: ENDING_O,
          opener:                   [OVER,  ENDING_O, ENDING_O, ENDING_O,   ENDING_O,    ENDING_O],
          responder:                [OVER,  OVER,     ENDING_O, ENDING_O,   ENDING_O,    ENDING_O] },
    Row { from: ENDING_R,
          opener:                   [OVER,  OVER,     ENDING_R, ENDING_R,   ENDING_R,    ENDING_R],
          responder:                [OVER,  ENDING_R, ENDING_R, ENDING_R,   ENDING_R,    ENDING_R] },
    // A FIN before the handshake is complete: such a session never lives as long as an established one.
    Row { from: GIVEN_O,
          opener:                   [OVER,  GIVEN_O,  GIVEN_O,  GIVEN_O,    GIVEN_O,     GIVEN_O],
          responder:                [OVER,  OVER,     GIVEN_O,  GIVEN_O,    GIVEN_O,     GIVEN_O] },
    Row { from: GIVEN_R,
          opener:                   [OVER,  OVER,     GIVEN_R,  GIVEN_R,    GIVEN_R,     GIVEN_R],
          responder:                [OVER,  GIVEN_R,  GIVEN_R,  GIVEN_R,    GIVEN_R,     GIVEN_R] },
    // A new connection between the same ports is a new session, not a state of this one.
    Row { from: OVER,
          opener:                   [OVER,  OVER,     OVER,     OVER,       OVER,        OVER],
          responder:                [OVER,  OVER,     OVER,     OVER,       OVER,        OVER] },
];

const _: () = {
    let mut place = 0;
    while place < TABLE.len() {
        assert!(
            TABLE[place].from as usize == TcpOpening as usize + place,
            "a row stands where its state's number says"
        );
        place += 1;
    }
};

/// The state after the packet that opens a session. A packet from the middle of a connection opens one like a SYN does
/// (§4.1: no flags are checked), unless the settings say otherwise.
pub(crate) const fn open(flags: u8) -> ConnectionState {
    match FlagSet::of(flags) {
        FlagSet::Reset => TcpClosed,
        FlagSet::Finish => TcpAbandonedOpener,
        _ => TcpOpening,
    }
}

/// The state after another packet. `established` once both directions were seen with the handshake complete;
/// `closed` after RST, or FIN in both directions.
#[inline]
pub(crate) const fn next(state: ConnectionState, flags: u8, from_opener: bool) -> ConnectionState {
    let place = (state as usize).wrapping_sub(TcpOpening as usize);
    if place >= TABLE.len() {
        return state;
    }
    let row = &TABLE[place];
    let end = if from_opener { &row.opener } else { &row.responder };
    end[FlagSet::of(flags) as usize]
}

/// Where a connection's windows begin, by direction: the opener's bytes, then the responder's.
///
/// An edge is the next byte that the receiver expects, as far as it has said so: what is older was received, and what
/// is newer by more than the largest window cannot be expected. Zero means that nothing is known yet.
pub type Edges = [u32; 2];

/// The window scales by direction: the receiver's of the opener's bytes, then of the responder's, each plus one, or
/// `NOT_OFFERED`. Zero means that the handshake was not seen: then the largest counts.
pub type Scales = [u8; 2];

/// The largest scale (RFC 7323 §2.3).
const SCALE_MAX: u8 = 14;

/// In [`Scales`]: windows are not scaled.
const NOT_OFFERED: u8 = SCALE_MAX + 2;

/// Notes what a segment tells of the windows: one comparison for all but a SYN, which is cold.
#[inline]
pub fn observe(edges: &mut Edges, segment: Segment, from_opener: bool) {
    let (near, far) = ends(from_opener);
    if segment.flags & ACK != 0 {
        let ahead = segment.acknowledgment.wrapping_sub(edges[far]);
        // What lies behind is old, and what lies further ahead than any window is no acknowledgement.
        if edges[far] == 0 || ahead <= window(SCALE_MAX) {
            edges[far] = known(segment.acknowledgment);
        }
    }
    if edges[near] == 0 {
        // Nothing was acknowledged yet: the receiver expects what comes first.
        let after_syn = u32::from(segment.flags & SYN != 0);
        edges[near] = known(segment.sequence.wrapping_add(after_syn));
    }
}

/// Notes the scale that a SYN offers for the windows it will announce, which are those of the other side's bytes. A
/// scale counts only if both sides offer one (RFC 7323 §2.2).
pub fn observe_scale(scales: &mut Scales, offered: Option<u8>, from_opener: bool) {
    let (near, far) = ends(from_opener);
    match offered {
        None => *scales = [NOT_OFFERED; 2],
        Some(scale) if scales[near] != NOT_OFFERED => scales[far] = scale.min(SCALE_MAX) + 1,
        Some(_) => {}
    }
}

/// Takes up what a SYN says while a handshake is under way: whether it is one of another attempt than was seen so far, of
/// which everything else is forgotten.
pub fn learn_syn(edges: &mut Edges, scales: &mut Scales, segment: Segment, from_opener: bool) -> bool {
    let (near, far) = ends(from_opener);
    let number = known(segment.sequence.wrapping_add(1));
    let is_another = edges[near] != 0 && edges[near] != number;
    if is_another {
        (edges[far], *scales) = (0, [0; 2]);
    }
    edges[near] = number;
    is_another
}

/// Takes up what both ends agree on, as far as seen, where a SYN is answered by another SYN: the numbers of both.
pub fn learn_answer(edges: &mut Edges, segment: Segment, from_opener: bool) {
    let (near, far) = ends(from_opener);
    edges[near] = known(segment.sequence.wrapping_add(1));
    edges[far] = known(segment.acknowledgment);
}

/// Takes up the numbers of a segment of an end that is past its handshake.
pub fn learn_agreement(edges: &mut Edges, segment: Segment, from_opener: bool) {
    let (near, far) = ends(from_opener);
    edges[near] = known(segment.sequence);
    edges[far] = known(segment.acknowledgment);
}

/// Whether a reset counts: whether its number lies where the receiver may take it (RFC 5961 §3.2 asks for more, and
/// gets it from the receiver), or whether it answers the SYN where that is what its receiver waits for (RFC 9293
/// §3.10.7.3).
pub fn believes((edges, scales, state): (Edges, Scales, ConnectionState), segment: Segment, from_opener: bool) -> bool {
    let (near, far) = ends(from_opener);
    let answers_syn = segment.flags & ACK != 0 && segment.acknowledgment == edges[far];
    if edges[near] != 0 {
        let is_inside = segment.sequence.wrapping_sub(edges[near]) <= window_of(scales[near]);
        return is_inside || (state.is_shaking_hands() && answers_syn);
    }
    edges[far] == 0 || answers_syn
}

/// Whether a segment lies where no sender who sees the connection would put it: beyond the largest window, or before
/// what a retransmission or a keepalive (RFC 9293 §3.8.4) repeats. A SYN lies nowhere: it may be the next connection's,
/// and what its receiver answers ends this one if so (RFC 5961 §4.2).
pub fn is_outside(edges: Edges, scales: Scales, segment: Segment, from_opener: bool) -> bool {
    let (near, far) = ends(from_opener);
    let is_beyond = |number: u32, end: usize| {
        let window = window_of(scales[end]);
        // The byte before the first is what a keepalive and a repeated SYN begin with.
        edges[end] != 0 && number.wrapping_sub(edges[end]).wrapping_add(window + 1) > 2 * window + 1
    };
    match segment.flags & (SYN | ACK) {
        SYN => false,
        0 => is_beyond(segment.sequence, near),
        _ => is_beyond(segment.sequence, near) || is_beyond(segment.acknowledgment, far),
    }
}

const fn ends(from_opener: bool) -> (usize, usize) {
    if from_opener { (0, 1) } else { (1, 0) }
}

/// The largest window that a receiver with this scale can announce, bytes.
const fn window(scale: u8) -> u32 {
    (u16::MAX as u32) << scale
}

const fn window_of(scale_plus_one: u8) -> u32 {
    window(match scale_plus_one {
        0 => SCALE_MAX,
        NOT_OFFERED => 0,
        known => known - 1,
    })
}

/// An edge that does not look unknown: off by one once in four billion bytes.
const fn known(number: u32) -> u32 {
    if number == 0 { 1 } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::headers::tcp_flags::SYN;

    fn run(packets: &[(u8, bool)]) -> ConnectionState {
        let mut state = open(packets[0].0);
        for &(flags, from_opener) in &packets[1..] {
            state = next(state, flags, from_opener);
        }
        state
    }

    #[test]
    fn handshake_then_both_fins() {
        let handshake = [(SYN, true), (SYN | ACK, false), (ACK, true)];
        assert_eq!(run(&handshake[..1]), TcpOpening);
        assert_eq!(run(&handshake[..2]), TcpAnswered);
        assert_eq!(run(&handshake), TcpEstablished);
        let mut packets = handshake.to_vec();
        packets.push((FIN | ACK, false));
        assert_eq!(run(&packets), TcpClosingResponder);
        packets.push((ACK, true));
        assert_eq!(run(&packets), TcpClosingResponder);
        packets.push((FIN | ACK, true));
        assert_eq!(run(&packets), TcpClosed);
        packets.push((ACK, false));
        assert_eq!(run(&packets), TcpClosed);
    }

    #[test]
    fn the_same_fin_twice_closes_one_side_only() {
        assert_eq!(run(&[(SYN, true), (SYN | ACK, false), (ACK, true), (FIN, true), (FIN, true)]), TcpClosingOpener);
    }

    #[test]
    fn simultaneous_open_and_mid_stream_pick_up_get_established() {
        assert_eq!(run(&[(SYN, true), (SYN, false), (SYN | ACK, true)]), TcpEstablished);
        assert_eq!(run(&[(ACK, true), (ACK, false), (ACK, true)]), TcpEstablished);
    }

    #[test]
    fn a_fin_before_the_handshake_is_complete_establishes_nothing() {
        assert_eq!(run(&[(FIN, true)]), TcpAbandonedOpener);
        assert_eq!(run(&[(SYN, true), (FIN, true), (ACK, false), (ACK, true)]), TcpAbandonedOpener);
        assert_eq!(run(&[(SYN, true), (FIN | ACK, false)]), TcpAbandonedResponder);
        assert_eq!(run(&[(SYN, true), (FIN | ACK, false), (FIN | ACK, true)]), TcpClosed);
    }

    #[test]
    fn reset_closes_at_once() {
        assert_eq!(run(&[(SYN, true), (RST | ACK, false)]), TcpClosed);
        assert_eq!(run(&[(RST, true)]), TcpClosed);
    }

    #[test]
    fn half_closed_stays_open_for_the_other_side() {
        let half = [(SYN, true), (SYN | ACK, false), (ACK, true), (FIN | ACK, true), (ACK, false), (ACK, false)];
        assert_eq!(run(&half), TcpClosingOpener);
    }

    #[test]
    fn states_of_no_tcp_session_have_no_next() {
        for state in [ConnectionState::Free, ConnectionState::Udp, ConnectionState::Icmp, ConnectionState::Other] {
            assert_eq!(next(state, SYN | ACK, false), state);
        }
    }

    const fn segment(sequence: u32, acknowledgment: u32, flags: u8) -> Segment {
        Segment { sequence, acknowledgment, flags }
    }

    /// A connection whose handshake both sides saw: the opener's bytes start at `start`, the responder's at 7,000.
    fn shaken(start: u32, scale: Option<u8>) -> (Edges, Scales) {
        let (mut edges, mut scales) = ([0; 2], [0; 2]);
        let begin = start.wrapping_sub(1);
        let packets = [
            (segment(begin, 0, SYN), true),
            (segment(6_999, start, SYN | ACK), false),
            (segment(start, 7_000, ACK), true),
        ];
        for (packet, from_opener) in packets {
            if packet.flags & SYN != 0 {
                observe_scale(&mut scales, scale, from_opener);
            }
            observe(&mut edges, packet, from_opener);
        }
        (edges, scales)
    }

    #[test]
    fn a_handshake_tells_both_edges() {
        assert_eq!(shaken(1_000, Some(7)), ([1_000, 7_000], [8, 8]));
        assert_eq!(shaken(0, None), ([1, 7_000], [NOT_OFFERED; 2]), "zero would mean unknown");
    }

    #[test]
    fn a_scale_counts_only_if_both_offer_one() {
        for (opener, responder, expected) in [
            (Some(7), Some(2), [3, 8]),
            (Some(0), Some(2), [3, 1]),
            (Some(7), None, [NOT_OFFERED; 2]),
            (None, Some(7), [NOT_OFFERED; 2]),
            (Some(200), Some(14), [15, 15]),
        ] {
            let mut scales = [0; 2];
            // Retransmissions change nothing.
            for (scale, from_opener) in [(opener, true), (opener, true), (responder, false), (responder, false)] {
                observe_scale(&mut scales, scale, from_opener);
            }
            assert_eq!(scales, expected, "{opener:?} {responder:?}");
        }
    }

    #[test]
    fn only_resets_inside_the_window_are_believed() {
        for start in [1_000, u32::MAX - 5_000, 0x7fff_f000] {
            let (edges, scales) = shaken(start, None);
            let reset = |number: u32| believes((edges, scales, TcpEstablished), segment(number, 0, RST), true);
            assert!(reset(start) && reset(start.wrapping_add(65_535)));
            assert!(!reset(start.wrapping_sub(1)) && !reset(start.wrapping_add(65_536)), "blind");
            assert!(!reset(start.wrapping_add(0x8000_0000)));
        }
        let (edges, scales) = shaken(1_000, Some(3));
        let reset = |number: u32| believes((edges, scales, TcpEstablished), segment(number, 0, RST), false);
        assert!(reset(7_000 + (65_535 << 3)) && !reset(7_001 + (65_535 << 3)));
    }

    #[test]
    fn a_refused_syn_is_believed_and_a_guess_is_not() {
        let mut edges = [0; 2];
        observe(&mut edges, segment(999, 0, SYN), true);
        let answer = |number, acknowledgment, flags| {
            believes((edges, [0; 2], TcpOpening), segment(number, acknowledgment, flags), false)
        };
        assert!(answer(0, 1_000, RST | ACK));
        assert!(!answer(0, 1_001, RST | ACK) && !answer(0, 999, RST | ACK));
        assert!(!answer(1_000, 0, RST), "a reset without ACK answers no SYN");
        assert!(believes((edges, [0; 2], TcpOpening), segment(1_000, 0, RST), true), "the opener gives up");
    }

    #[test]
    fn edges_move_with_acknowledgements_and_never_back() {
        let (mut edges, _) = shaken(u32::MAX - 100, Some(7));
        let start = u32::MAX - 100;
        observe(&mut edges, segment(7_000, start.wrapping_add(5_000), ACK), false);
        assert_eq!(edges[0], start.wrapping_add(5_000), "across the end of the numbers");
        observe(&mut edges, segment(7_000, start.wrapping_add(2_000), ACK), false);
        observe(&mut edges, segment(7_000, start.wrapping_add(0x9000_0000), ACK), false);
        assert_eq!(edges[0], start.wrapping_add(5_000), "old and impossible ones are not believed");
    }

    #[test]
    fn what_a_stack_sends_is_inside() {
        let (edges, scales) = shaken(1_000, None);
        let inside = |number: u32| !is_outside(edges, scales, segment(number, 7_000, ACK), true);
        assert!(inside(1_000) && inside(1_000 + 65_535), "up to the end of a full window, and a probe of a closed one");
        assert!(inside(999), "a keepalive");
        assert!(inside(1_000u32.wrapping_sub(65_000)), "a late copy");
        assert!(!inside(1_000 + 65_536), "beyond every window");
        assert!(!inside(1_000u32.wrapping_sub(65_537)));
        let forged = segment(1_000, 7_000 + 65_536, ACK);
        assert!(is_outside(edges, scales, forged, true), "acknowledges what was never sent");
        assert!(!is_outside(edges, scales, segment(77, 0, SYN), true), "perhaps the next connection");
    }

    #[test]
    fn a_connection_found_half_way_is_not_held_to_what_nobody_saw() {
        let mut edges = [0; 2];
        let first = segment(5_000, 90_000, ACK);
        assert!(!is_outside(edges, [0; 2], first, true));
        observe(&mut edges, first, true);
        assert_eq!(edges, [5_000, 90_000]);
        let answer = segment(90_000, 5_000 + 900_000, ACK);
        assert!(!is_outside(edges, [0; 2], answer, false), "the window may be large");
        observe(&mut edges, answer, false);
        assert_eq!(edges[0], 905_000);
    }
}
