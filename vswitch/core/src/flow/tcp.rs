//! The life of a TCP session as seen from outside (`semantics.md` §4.2).

use super::FlowState::{
    self, TcpAbandonedOpener, TcpAbandonedResponder, TcpAnswered, TcpClosed, TcpClosingOpener, TcpClosingResponder,
    TcpEstablished, TcpOpening,
};
use crate::headers::tcp_flags::{ACK, FIN, RST};

/// The state after the packet that opens a session. A packet from the middle of a connection opens one like a SYN does
/// (§4.1: no flags are checked).
pub(super) const fn open(flags: u8) -> FlowState {
    if flags & RST != 0 {
        TcpClosed
    } else if flags & FIN != 0 {
        TcpAbandonedOpener
    } else {
        TcpOpening
    }
}

/// The state after another packet. `established` once both directions were seen with the handshake complete;
/// `closed` after RST, or FIN in both directions.
pub(super) const fn next(state: FlowState, flags: u8, from_opener: bool) -> FlowState {
    if flags & RST != 0 {
        return TcpClosed;
    }
    if flags & FIN != 0 {
        return match (state, from_opener) {
            (TcpClosed, _) => TcpClosed,
            (TcpClosingOpener | TcpAbandonedOpener, false) | (TcpClosingResponder | TcpAbandonedResponder, true) => {
                TcpClosed
            }
            (TcpEstablished, true) => TcpClosingOpener,
            (TcpEstablished, false) => TcpClosingResponder,
            // A FIN does not make a session live as long as an established one does.
            (TcpOpening | TcpAnswered, true) => TcpAbandonedOpener,
            (TcpOpening | TcpAnswered, false) => TcpAbandonedResponder,
            _ => state,
        };
    }
    match (state, from_opener, flags & ACK != 0) {
        (TcpOpening, false, _) => TcpAnswered,
        (TcpAnswered, true, true) => TcpEstablished,
        _ => state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::tcp_flags::SYN;

    fn run(packets: &[(u8, bool)]) -> FlowState {
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
}
