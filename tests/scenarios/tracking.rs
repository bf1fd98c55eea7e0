//! What a connection's state says of its packets, and how long it is remembered, in each profile.

use super::*;
use harness::frame::TcpFlags;
use vswitch_core::desired::TimeoutProfile;

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
            (request().tcp(4000, 80, TcpFlags::SYN), "client"),
            (reply().tcp(80, 4000, TcpFlags::SYN | TcpFlags::ACK), "web"),
            (request().tcp(4000, 80, TcpFlags::ACK), "client"),
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
    for flags in [TcpFlags::ACK, TcpFlags::SYN | TcpFlags::ACK, TcpFlags::FIN | TcpFlags::ACK, TcpFlags::RST, 0] {
        assert_eq!(world.send("client", &request().tcp(4000, 80, flags)), out, "{flags}");
    }
    let refused_anyway = Ip::new(WEB, CLIENT).tcp(80, 4000, TcpFlags::ACK);
    assert_eq!(world.send("web", &refused_anyway), stopped("web", DropReason::TcpOutOfState));
    assert_eq!(world.send("client", &request().tcp(4000, 80, TcpFlags::SYN)), delivered("web"));
    assert_eq!(world.send("web", &reply().tcp(80, 4000, TcpFlags::SYN | TcpFlags::ACK)), delivered("client"));
    assert_eq!(world.send("client", &request().tcp(4000, 80, TcpFlags::ACK)), delivered("web"));
    world.wait_s(910);
    assert_eq!(world.send("client", &request().tcp(4000, 80, TcpFlags::ACK)), out, "too late");
    let closed = refused("web", DropReason::DefaultDrop);
    assert_eq!(world.send("client", &request().tcp(4000, 22, TcpFlags::SYN)), closed, "rules come first");
}
