//! What a connection's state says of its packets, and how long it is remembered, in each profile.

use super::*;
use harness::frame::{TcpFlags, TcpSegment};
use vswitch_core::config::desired::TimeoutProfile;

/// Whether the web server would still have a session after so many seconds of silence.
fn survives(world: &World, seconds: u64) -> bool {
    !world.flows_at("web", world.now + seconds * 1_000_000_000).is_empty()
}

#[test]
fn each_profile_has_its_own_timeouts_for_sessions_that_start_under_it() {
    for (profile, established_s, single_s, stream_s) in
        [(TimeoutProfile::Aws, 432_000, 30, 180), (TimeoutProfile::Linux, 432_000, 30, 120)]
    {
        let mut world = connected();
        world.change(|desired| desired.settings.timeout_profile = profile);
        assert!(survives(&world, 909) && !survives(&world, 910), "what lives keeps what it started with");
        world.wait_s(910);
        for (packet, from) in [
            (request().tcp(40000, 80, TcpFlags::SYN), "client"),
            (reply().tcp(80, 40000, TcpFlags::SYN | TcpFlags::ACK), "web"),
            (request().tcp(40000, 80, TcpFlags::ACK), "client"),
        ] {
            assert!(matches!(world.send(from, &packet), Fate::Delivered(_)));
        }
        assert!(survives(&world, established_s - 1) && !survives(&world, established_s), "{profile:?}");
        world.wait_s(established_s);
        world.set_rules("sg-web", &[accept_in("dns", "0.0.0.0/0").udp(53)]);
        assert_eq!(world.send("client", &request().udp(5, 53)), delivered("web"));
        assert_eq!(world.send("web", &reply().udp(53, 5)), delivered("client"));
        assert_eq!(world.flows("web")[0].state, "single");
        assert!(survives(&world, single_s - 1) && !survives(&world, single_s), "{profile:?}");
        assert_eq!(world.send("client", &request().udp(5, 53)), delivered("web"));
        assert_eq!(world.flows("web")[0].state, "stream");
        assert!(survives(&world, stream_s - 1) && !survives(&world, stream_s), "{profile:?}");
    }
}

#[test]
fn only_a_syn_opens_a_session_where_connections_are_not_picked_up() {
    let mut world = World::new(lab());
    world.change(|desired| desired.settings.tcp_pick_up = false);
    let out = stopped("client", DropReason::TcpOutOfState);
    for flags in [TcpFlags::ACK, TcpFlags::FIN | TcpFlags::ACK, TcpFlags::RST, 0] {
        assert_eq!(world.send("client", &request().tcp(40000, 80, flags)), out, "{flags}");
    }
    assert_eq!(world.send("web", &reply().tcp(80, 40000, TcpFlags::ACK)), stopped("web", DropReason::TcpOutOfState));
    assert_eq!(world.send("client", &request().tcp(40000, 80, TcpFlags::SYN)), delivered("web"));
    assert_eq!(world.send("web", &reply().tcp(80, 40000, TcpFlags::SYN | TcpFlags::ACK)), delivered("client"));
    assert_eq!(world.send("client", &request().tcp(40000, 80, TcpFlags::ACK)), delivered("web"));
    world.wait_s(910);
    assert_eq!(world.send("client", &request().tcp(40000, 80, TcpFlags::ACK)), out, "too late");
    let closed = refused("web", DropReason::DefaultDrop);
    assert_eq!(world.send("client", &request().tcp(40000, 22, TcpFlags::SYN)), closed, "rules come first");
}

/// Sends segments from the client (`true`) or the web server, each of which must pass.
fn pass(world: &mut World, segments: &[(bool, TcpSegment)]) {
    for (from_client, segment) in segments {
        let fate = send(world, *from_client, segment);
        assert!(matches!(fate, Fate::Delivered(_)), "{fate:?}: {segment:?}");
    }
}

fn send(world: &mut World, from_client: bool, segment: &TcpSegment) -> Fate {
    let segment = if from_client { TcpSegment { ports: (40000, 80), ..segment.clone() } } else { segment.clone() };
    let (guest, packet) = if from_client { ("client", request()) } else { ("web", reply()) };
    world.send(guest, &packet.segment(&segment))
}

/// A segment of the web server's port to the client's; [`send`] turns it for the client.
fn segment(flags: u8, sequence: u32, acknowledgment: u32) -> TcpSegment {
    TcpSegment { sequence, acknowledgment, ..TcpSegment::new((80, 40000), flags) }
}

fn handshake(scale: Option<u8>) -> [(bool, TcpSegment); 3] {
    [
        (true, TcpSegment { scale, ..segment(SYN, 999, 0) }),
        (false, TcpSegment { scale, ..segment(SYN | ACK, 4_999, 1000) }),
        (true, segment(ACK, 1000, 5000)),
    ]
}

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const FIN: u8 = TcpFlags::FIN;
const RST: u8 = TcpFlags::RST;

fn state(world: &World) -> String {
    world.flows("web")[0].state.clone()
}

#[test]
fn blind_resets_change_nothing_and_a_true_one_ends_the_session() {
    for scale in [None, Some(7)] {
        let mut world = World::new(lab());
        pass(&mut world, &handshake(scale));
        let window = 65_535 << scale.unwrap_or(0);
        for guess in [0, 999, 1000 + window + 1, 0x8000_0000, u32::MAX] {
            pass(
                &mut world,
                &[(true, segment(RST, guess, 0)), (false, segment(RST | ACK, guess.wrapping_add(4000), 1))],
            );
            assert_eq!(state(&world), "established", "a guess of {guess}");
        }
        pass(&mut world, &[(true, segment(RST, 1000 + window, 0))]);
        assert_eq!(state(&world), "closed");
        assert!(survives(&world, 2) && !survives(&world, 3));
    }
}

#[test]
fn a_storm_of_resets_keeps_a_session_closed_and_opens_none() {
    let mut world = World::new(lab());
    pass(&mut world, &handshake(None));
    for number in 0..1000 {
        pass(&mut world, &[(number % 2 == 0, segment(RST | ACK, if number % 2 == 0 { 1000 } else { 5000 }, 0))]);
    }
    assert_eq!(state(&world), "closed");
    assert_eq!(world.flows("web").len(), 1);
    // A new connection between the same ports is another session.
    pass(&mut world, &handshake(None));
    assert_eq!(state(&world), "established");
}

#[test]
fn a_refused_syn_closes_its_session_and_a_forged_refusal_does_not() {
    let mut world = World::new(lab());
    pass(&mut world, &[(true, segment(SYN, 999, 0)), (false, segment(RST | ACK, 0, 12_345))]);
    assert_ne!(state(&world), "closed");
    pass(&mut world, &[(false, segment(RST | ACK, 0, 1000))]);
    assert_eq!(state(&world), "closed");
}

#[test]
fn both_sides_may_open_at_once() {
    let mut world = World::new(lab());
    pass(&mut world, &[(true, segment(SYN, 999, 0)), (false, segment(SYN, 4_999, 0))]);
    assert_eq!(state(&world), "answered");
    pass(&mut world, &[(true, segment(SYN | ACK, 999, 5000)), (false, segment(SYN | ACK, 4_999, 1000))]);
    assert_eq!(state(&world), "established");
    pass(&mut world, &[(true, segment(ACK, 1000, 5000)), (false, segment(ACK, 5000, 1000))]);
}

#[test]
fn a_half_closed_connection_carries_data_the_other_way_for_as_long_as_it_likes() {
    let mut world = World::new(lab());
    pass(&mut world, &handshake(None));
    pass(&mut world, &[(true, segment(FIN | ACK, 1000, 5000)), (false, segment(ACK, 5000, 1001))]);
    let mut sequence = 5000;
    for _ in 0..20 {
        world.wait_s(800);
        pass(&mut world, &[(false, segment(ACK, sequence, 1001)), (true, segment(ACK, 1001, sequence + 1000))]);
        sequence += 1000;
    }
    assert_eq!(state(&world), "closing");
    pass(&mut world, &[(false, segment(FIN | ACK, sequence, 1001)), (true, segment(ACK, 1001, sequence + 1))]);
    assert_eq!(state(&world), "closed");
}

/// Both ENIs check windows.
fn checked() -> World {
    let mut world = World::new(lab());
    for eni in ["web", "client"] {
        world.change_eni(eni, |eni| eni.tracking.tcp_window_check = true);
    }
    world
}

#[test]
fn keepalives_and_probes_of_a_closed_window_pass_the_check_after_hours() {
    let mut world = checked();
    world.change(|desired| desired.settings.timeout_profile = TimeoutProfile::Linux);
    pass(&mut world, &handshake(Some(7)));
    for _ in 0..10 {
        world.wait_s(7200);
        pass(&mut world, &[(true, segment(ACK, 999, 5000)), (false, segment(ACK, 5000, 1000))]);
    }
    pass(&mut world, &[(false, TcpSegment { window: 0, ..segment(ACK, 5000, 1000) })]);
    for seconds in [1, 2, 4, 8, 16, 32, 64, 120, 120] {
        world.wait_s(seconds);
        pass(&mut world, &[(true, TcpSegment { length: 1, ..segment(ACK, 1000, 5000) })]);
        pass(&mut world, &[(false, TcpSegment { window: 0, ..segment(ACK, 5000, 1000) })]);
    }
    assert_eq!(state(&world), "established");
}

#[test]
fn segments_outside_of_the_window_drop_where_that_is_checked() {
    let mut world = checked();
    pass(&mut world, &handshake(None));
    let out = stopped("client", DropReason::TcpOutOfWindow);
    for (sequence, acknowledgment) in
        [(1000 + 65_536, 5000), (999u32.wrapping_sub(65_536), 5000), (1000, 5000 + 65_536)]
    {
        for flags in [ACK, FIN | ACK, RST | ACK, SYN | ACK] {
            let packet = segment(flags, sequence, acknowledgment);
            assert_eq!(send(&mut world, true, &packet), out, "{packet:?}");
        }
    }
    assert_eq!(state(&world), "established");
    // The receiver's ENI checks as well, whatever the sender's does.
    world.change_eni("client", |eni| eni.tracking.tcp_window_check = false);
    let at_web = refused("web", DropReason::TcpOutOfWindow);
    assert_eq!(send(&mut world, true, &segment(ACK, 1000 + 70_000, 5000)), at_web);
    world.change_eni("web", |eni| eni.tracking.tcp_window_check = false);
    pass(&mut world, &[(true, segment(ACK, 1000 + 70_000, 5000))]);
}

#[test]
fn a_peer_that_restarted_can_connect_again_though_windows_are_checked() {
    let mut world = checked();
    pass(&mut world, &handshake(None));
    // Its SYN is answered with what the old connection expects, which it resets.
    pass(&mut world, &[(true, segment(SYN, 0x7000_0000, 0)), (false, segment(ACK, 5000, 1000))]);
    pass(&mut world, &[(true, segment(RST, 1000, 0))]);
    assert_eq!(state(&world), "closed");
    pass(&mut world, &handshake(Some(7)));
    assert_eq!(state(&world), "established");
}

#[test]
fn an_error_with_a_quote_that_cannot_be_is_dropped_whatever_rules_say() {
    let mut world = connected();
    world.set_rules("sg-web", &[http().to_vec(), vec![accept_in("icmp", "0.0.0.0/0").protocol(1)]].concat());
    let error = |quote: &[u8]| request().icmp(3, 3, [0; 4], quote);
    let about = reply().tcp(80, 40000, TcpFlags::ACK).bytes();
    assert_eq!(world.send("client", &error(&about)), delivered("web"));
    for length in [0, 10, 19, 20, 27] {
        let cut = error(&about[..length]);
        assert_eq!(world.send("client", &cut), stopped("client", DropReason::QuoteTruncated), "{length} bytes");
    }
    assert_eq!(world.send("client", &error(&about[..28])), delivered("web"), "ports are enough");
    // About a packet that the web server cannot have sent.
    let forged = error(&request().tcp(40000, 80, TcpFlags::ACK).bytes());
    assert_eq!(world.send("client", &forged), stopped("client", DropReason::QuoteForged));
    for (kind, code) in [(11, 0), (12, 0)] {
        let other = request().icmp(kind, code, [0; 4], &about[..8]);
        assert_eq!(world.send("client", &other), stopped("client", DropReason::QuoteTruncated));
    }
    let v6 = |kind, quote: &[u8]| Ip::new(CLIENT_V6, WEB_V6).icmp(kind, 0, [0; 4], quote);
    for kind in [1, 2, 3, 4] {
        assert_eq!(world.send("client", &v6(kind, &[0x60; 20])), stopped("client", DropReason::QuoteTruncated));
    }
}
