//! The states of a TCP session, as an observer sees them (`semantics.md` §4.2, RFC 9293 §3.3.2).
//!
//! `next` is a table: the next state, given the state, a packet's flags and its side. [`believes`] decides which resets
//! count, so that nobody who cannot see the connection can end its session; [`is_outside`] is the full check of
//! sequence numbers that can be enabled for an ENI.

use crate::conntrack::state::ConnectionState;
use crate::conntrack::state::ConnectionState::{
    TcpAbandonedOpener, TcpAbandonedResponder, TcpAnswered, TcpClosed, TcpClosingOpener, TcpClosingResponder,
    TcpEstablished, TcpOpening,
};
use crate::packet::headers::Segment;
use crate::packet::headers::tcp_flags::{ACK, FIN, RST, SYN};

/// A packet's flags by their effect. The first that fits counts: a reset is nothing else, and FIN takes precedence over
/// the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum FlagSet {
    /// RST.
    Reset,
    /// FIN, with or without more.
    Finish,
    /// SYN without ACK: opens a connection, possibly from both sides at once.
    Open,
    /// SYN and ACK: answers a SYN.
    OpenAnswer,
    /// ACK without SYN: completes a handshake, or carries data.
    Acknowledge,
    /// None of these: no stack sends that.
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

/// The part of the table for one state: the next state after a packet of the opener and of the responder, by
/// [`FlagSet`].
struct Row {
    from: ConnectionState,
    opener: [ConnectionState; FLAG_SETS],
    responder: [ConnectionState; FLAG_SETS],
}

// Short names for the states, so that the table fits the page.
const OPENING: ConnectionState = TcpOpening;
const ANSWERED: ConnectionState = TcpAnswered;
const LIVE: ConnectionState = TcpEstablished;
const ENDING_O: ConnectionState = TcpClosingOpener;
const ENDING_R: ConnectionState = TcpClosingResponder;
const GIVEN_O: ConnectionState = TcpAbandonedOpener;
const GIVEN_R: ConnectionState = TcpAbandonedResponder;
const OVER: ConnectionState = TcpClosed;

/// The state machine. An entry equal to the present state stands for a retransmission, data or noise.
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
    // Half closed: the other side may go on sending.
    Row { from: ENDING_O,
          opener:                   [OVER,  ENDING_O, ENDING_O, ENDING_O,   ENDING_O,    ENDING_O],
          responder:                [OVER,  OVER,     ENDING_O, ENDING_O,   ENDING_O,    ENDING_O] },
    Row { from: ENDING_R,
          opener:                   [OVER,  OVER,     ENDING_R, ENDING_R,   ENDING_R,    ENDING_R],
          responder:                [OVER,  ENDING_R, ENDING_R, ENDING_R,   ENDING_R,    ENDING_R] },
    // A FIN before the handshake is complete: such a session never has the timeout of an established one.
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

/// The state after the packet that opens a session. A packet from the middle of a connection opens one just as a SYN
/// does (§4.1: flags are not checked), unless the settings say otherwise.
pub(crate) const fn open(flags: u8) -> ConnectionState {
    match FlagSet::of(flags) {
        FlagSet::Reset => TcpClosed,
        FlagSet::Finish => TcpAbandonedOpener,
        _ => TcpOpening,
    }
}

/// The state after another packet: `established` once packets were seen in both directions with the handshake complete,
/// `closed` after RST or after FIN in both directions.
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

/// The lower edges of a connection's windows, by direction: for the opener's bytes, then for the responder's.
///
/// An edge is the next byte that the receiver expects, as far as it has acknowledged. Older bytes have been received;
/// bytes further ahead than the largest window cannot be expected. Zero means unknown.
pub type Edges = [u32; 2];

/// The window scales by direction: the scale of the receiver of the opener's bytes, then of the responder's, each plus
/// one, or `NOT_OFFERED`. Zero means that the handshake was not seen; the largest scale is then assumed.
pub type Scales = [u8; 2];

/// The largest scale (RFC 7323 §2.3).
const SCALE_MAX: u8 = 14;

/// In [`Scales`]: the window is not scaled.
const NOT_OFFERED: u8 = SCALE_MAX + 2;

/// Updates the edges from a segment. Does one comparison for all segments except SYNs, which are rare.
#[inline]
pub fn observe(edges: &mut Edges, segment: Segment, from_opener: bool) {
    let (near, far) = ends(from_opener);
    if segment.flags & ACK != 0 {
        let ahead = segment.acknowledgment.wrapping_sub(edges[far]);
        // An acknowledgement behind the edge is old, and one further ahead than any window is not valid.
        if edges[far] == 0 || ahead <= window(SCALE_MAX) {
            edges[far] = known(segment.acknowledgment);
        }
    }
    if edges[near] == 0 {
        // Nothing has been acknowledged yet: the receiver expects this segment.
        let after_syn = u32::from(segment.flags & SYN != 0);
        edges[near] = known(segment.sequence.wrapping_add(after_syn));
    }
}

/// Records the scale that a SYN offers. It applies to the windows that the SYN's sender will announce, which are for
/// the other side's bytes. Scales count only if both sides offer one (RFC 7323 §2.2).
pub fn observe_scale(scales: &mut Scales, offered: Option<u8>, from_opener: bool) {
    let (near, far) = ends(from_opener);
    match offered {
        None => *scales = [NOT_OFFERED; 2],
        Some(scale) if scales[near] != NOT_OFFERED => scales[far] = scale.min(SCALE_MAX) + 1,
        Some(_) => {}
    }
}

/// Updates the edges from a SYN during a handshake. Returns whether it belongs to another attempt than the one seen so
/// far, of which everything else is forgotten.
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

/// Sets both edges from a SYN that answers another SYN.
pub fn learn_answer(edges: &mut Edges, segment: Segment, from_opener: bool) {
    let (near, far) = ends(from_opener);
    edges[near] = known(segment.sequence.wrapping_add(1));
    edges[far] = known(segment.acknowledgment);
}

/// Sets both edges from a segment of an end that has completed its handshake.
pub fn learn_agreement(edges: &mut Edges, segment: Segment, from_opener: bool) {
    let (near, far) = ends(from_opener);
    edges[near] = known(segment.sequence);
    edges[far] = known(segment.acknowledgment);
}

/// Whether a reset counts: its sequence number is where the receiver may accept it (RFC 5961 §3.2 is stricter, and the
/// receiver enforces that), or it answers the SYN while the receiver waits for such an answer (RFC 9293 §3.10.7.3).
pub fn believes((edges, scales, state): (Edges, Scales, ConnectionState), segment: Segment, from_opener: bool) -> bool {
    let (near, far) = ends(from_opener);
    let answers_syn = segment.flags & ACK != 0 && segment.acknowledgment == edges[far];
    if edges[near] != 0 {
        let is_inside = segment.sequence.wrapping_sub(edges[near]) <= window_of(scales[near]);
        return is_inside || (state.is_shaking_hands() && answers_syn);
    }
    // No byte of this direction is acknowledged: the answer to a SYN counts, and anything if neither edge is known.
    edges[far] == 0 || answers_syn
}

/// Whether a segment is where no sender that sees the connection would put it: beyond the largest window, or before
/// what a retransmission or a keepalive (RFC 9293 §3.8.4) repeats. A SYN never is: it may open the next connection, and
/// if so the receiver's answer ends this one (RFC 5961 §4.2).
pub fn is_outside(edges: Edges, scales: Scales, segment: Segment, from_opener: bool) -> bool {
    let (near, far) = ends(from_opener);
    let is_beyond = |number: u32, end: usize| {
        let window = window_of(scales[end]);
        // A keepalive and a repeated SYN begin with the byte before the edge.
        edges[end] != 0 && number.wrapping_sub(edges[end]).wrapping_add(window + 1) > 2 * window + 1
    };
    match segment.flags & (SYN | ACK) {
        SYN => false,
        // Without ACK the acknowledgment field means nothing (RFC 9293 §3.1).
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

/// An edge that cannot be mistaken for an unknown one. It is off by one for one in four billion numbers.
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
