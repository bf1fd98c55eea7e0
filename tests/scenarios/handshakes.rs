//! Connections that begin anew between the same ports, in whatever state the last one was left (RFC 9293 §3.10.7).

use super::*;
use harness::frame::{TcpFlags, TcpSegment};

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const FIN: u8 = TcpFlags::FIN;
const RST: u8 = TcpFlags::RST;
const SYN_ACK: u8 = SYN | ACK;

/// A world that checks windows at both ends, or at neither.
fn world(is_checked: bool) -> World {
    let mut world = World::new(lab());
    for id in ["client", "web"] {
        world.change_eni(id, |eni| eni.tracking.tcp_window_check = is_checked);
    }
    world
}

/// A segment of the client, or of the web server, with its numbers.
fn send(world: &mut World, from: &str, flags: u8, numbers: (u32, u32)) -> Fate {
    let (packet, ports) = if from == "client" { (request(), (40_000, 80)) } else { (reply(), (80, 40_000)) };
    let (sequence, acknowledgment) = numbers;
    world.send(from, &packet.segment(&TcpSegment { sequence, acknowledgment, ..TcpSegment::new(ports, flags) }))
}

/// Segments that have to get through, one after another.
fn pass(world: &mut World, segments: &[(&str, u8, (u32, u32))]) {
    for (number, (from, flags, numbers)) in segments.iter().enumerate() {
        let fate = send(world, from, *flags, *numbers);
        assert!(matches!(fate, Fate::Delivered(_)), "segment {number} of {from}: {fate:?}");
    }
}

fn state(world: &World) -> String {
    world.flows("web")[0].state.clone()
}

/// A handshake with these first numbers, and data both ways.
fn handshake(client: u32, web: u32) -> [(&'static str, u8, (u32, u32)); 5] {
    let [client_next, web_next] = [client, web].map(|number| number.wrapping_add(1));
    [
        ("client", SYN, (client, 0)),
        ("web", SYN_ACK, (web, client_next)),
        ("client", ACK, (client_next, web_next)),
        ("web", ACK, (web_next, client_next)),
        ("client", ACK, (client_next, web_next)),
    ]
}

#[test]
fn an_unanswered_syn_is_followed_by_another_with_other_numbers() {
    for is_checked in [true, false] {
        let mut world = world(is_checked);
        pass(&mut world, &[("client", SYN, (1000, 0))]);
        pass(&mut world, &handshake(0x7000_0000, 0x1234_5678));
        assert_eq!(state(&world), "established");
        // The answer was lost, and the client tries with a third.
        let mut world = self::world(is_checked);
        pass(&mut world, &handshake(1000, 5000)[..2]);
        pass(&mut world, &handshake(0x7000_0000, 0xf000_0000));
        assert_eq!(state(&world), "established");
    }
}

#[test]
fn both_ends_crashed_and_connect_again() {
    for is_checked in [true, false] {
        for left in [0, 1, 2] {
            let mut world = world(is_checked);
            pass(&mut world, &handshake(1000, 5000));
            if left > 0 {
                let fin =
                    if left == 1 { ("client", FIN | ACK, (1001, 5001)) } else { ("web", FIN | ACK, (5001, 1001)) };
                pass(&mut world, &[fin]);
            }
            pass(&mut world, &handshake(0x7000_0000, 0xc000_0000));
            assert_eq!(state(&world), "established", "left {left}");
            let old = send(&mut world, "client", ACK, (1001, 5001));
            assert_eq!(old == delivered("web"), !is_checked, "what is left of the old one is outside: {old:?}");
        }
    }
}

/// RFC 9293 §3.5.1, figure 9: the server is still in the old connection.
#[test]
fn the_client_crashed_and_the_server_did_not_notice() {
    for is_checked in [true, false] {
        let mut world = world(is_checked);
        pass(&mut world, &handshake(1000, 5000));
        pass(&mut world, &[("client", SYN, (0x7000_0000, 0)), ("web", ACK, (5001, 1001)), ("client", RST, (1001, 0))]);
        assert_eq!(state(&world), "closed");
        pass(&mut world, &handshake(0x7000_0000, 0xc000_0000));
        assert_eq!(state(&world), "established");
        // The same where the switch is younger than the old connection.
        let mut world = self::world(is_checked);
        pass(&mut world, &[("client", SYN, (0x7000_0000, 0)), ("web", ACK, (5001, 1001)), ("client", RST, (1001, 0))]);
        pass(&mut world, &handshake(0x7000_0000, 0xc000_0000));
        assert_eq!(state(&world), "established");
    }
}

#[test]
fn a_refused_syn_ends_the_session_and_a_guess_does_not() {
    for is_checked in [true, false] {
        let mut world = world(is_checked);
        pass(&mut world, &handshake(1000, 5000));
        pass(&mut world, &[("client", SYN, (0x7000_0000, 0))]);
        for guess in [0x6fff_ffff, 0x7000_0000, 0x7000_0002, 0] {
            pass(&mut world, &[("web", RST | ACK, (0, guess))]);
            assert_eq!(state(&world), "established", "{guess:#x} answers nothing");
        }
        pass(&mut world, &[("web", RST | ACK, (0, 0x7000_0001))]);
        assert_eq!(state(&world), "closed");
    }
}

/// A reset that answers the SYN is its answer, and nothing that comes later is. One of the connection before leaves the SYN
/// open, and the connection that both ends then agree on lives like any other.
#[test]
fn a_syn_has_one_answer() {
    let mut world = world(false);
    let syn = ("client", SYN, (0x7000_0000, 0));
    let syn_ack = ("web", SYN_ACK, (0xc000_0000, 0x7000_0001));
    pass(&mut world, &handshake(1000, 5000));
    pass(&mut world, &[syn, ("web", RST | ACK, (0, 0x7000_0001)), syn_ack]);
    assert_eq!(state(&world), "closed");

    world.wait_s(4);
    pass(&mut world, &handshake(1000, 5000));
    pass(&mut world, &[syn, ("web", RST, (5001, 0))]);
    assert_eq!(state(&world), "closed");
    pass(&mut world, &[syn_ack]);
    assert_eq!(state(&world), "answered");
    pass(&mut world, &[("client", ACK, (0x7000_0001, 0xc000_0001))]);
    assert_eq!(state(&world), "established");
}

#[test]
fn both_open_at_once_after_a_crash() {
    for is_checked in [true, false] {
        let mut world = world(is_checked);
        pass(&mut world, &handshake(1000, 5000));
        pass(
            &mut world,
            &[
                ("client", SYN, (0x7000_0000, 0)),
                ("web", SYN, (0xc000_0000, 0)),
                ("client", SYN_ACK, (0x7000_0000, 0xc000_0001)),
                ("web", SYN_ACK, (0xc000_0000, 0x7000_0001)),
                ("client", ACK, (0x7000_0001, 0xc000_0001)),
                ("web", ACK, (0xc000_0001, 0x7000_0001)),
            ],
        );
    }
}

#[test]
fn without_a_syn_nothing_is_learnt_from_the_middle_of_nowhere() {
    let mut world = world(true);
    pass(&mut world, &handshake(1000, 5000));
    for (from, flags) in [("web", SYN_ACK), ("client", SYN_ACK), ("web", ACK), ("client", ACK), ("web", RST)] {
        let fate = send(&mut world, from, flags, (0x9000_0000, 0x9000_0000));
        assert!(matches!(fate, Fate::Dropped(_, _, DropReason::TcpOutOfWindow)), "{from} {flags}: {fate:?}");
    }
    assert_eq!(state(&world), "established");
    // A SYN that comes to nothing leaves the connection where it was: its sender goes on in it.
    pass(&mut world, &[("client", SYN, (0x7000_0000, 0)), ("client", ACK, (1001, 5001))]);
    let fate = send(&mut world, "web", ACK, (0x9000_0000, 0x9000_0000));
    assert_eq!(fate, stopped("web", DropReason::TcpOutOfWindow));
    pass(&mut world, &[("web", ACK, (5001, 1001))]);
}

#[test]
fn what_is_refused_keeps_no_session_alive() {
    let mut world = world(true);
    pass(&mut world, &handshake(1000, 5000));
    world.wait_s(900);
    for _ in 0..3 {
        let fate = send(&mut world, "web", ACK, (0x9000_0000, 0x9000_0000));
        assert_eq!(fate, stopped("web", DropReason::TcpOutOfWindow));
    }
    world.wait_s(10);
    assert_eq!(world.flows("web"), []);
}

#[test]
fn a_syn_of_the_connection_before_opens_no_window_of_the_next() {
    let mut world = world(true);
    pass(&mut world, &handshake(1000, 5000));
    pass(&mut world, &[("client", SYN, (0x7000_0000, 0)), ("web", RST | ACK, (0, 0x7000_0001))]);
    assert_eq!(state(&world), "closed");
    world.wait_s(4);
    assert_eq!(world.flows("web"), []);
    pass(&mut world, &handshake(0x2000_0000, 0x3000_0000));
    let fate = send(&mut world, "web", ACK, (0x9000_0000, 0x9000_0000));
    assert_eq!(fate, stopped("web", DropReason::TcpOutOfWindow));
    let fate = send(&mut world, "web", RST | ACK, (0, 0x7000_0001));
    assert_eq!(fate, stopped("web", DropReason::TcpOutOfWindow), "it answers what is long over");
}
