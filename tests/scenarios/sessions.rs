//! Sessions: their birth, their timeouts, their number, and the errors about them.

use super::*;
use harness::frame::TcpFlags;
use vswitch_core::config::desired::Timeouts;

const SYN_ACK: u8 = TcpFlags::SYN | TcpFlags::ACK;

/// A world where the web server takes everything, and may answer nobody without a session.
fn strict_world() -> World {
    let mut world = World::new(lab().advanced_group("sg-strict", "vpc-1", &[]));
    world.change_eni("web", |eni| eni.groups = ["sg-strict".into()].into());
    world.set_rules("sg-strict", &[accept_in("all", "0.0.0.0/0"), accept_in("all-v6", "::/0")]);
    world
}

fn closed(at: &str) -> Fate {
    stopped(at, DropReason::DefaultDrop)
}

#[test]
fn replies_pass_without_rules_and_requests_do_not() {
    let mut world = strict_world();
    assert_eq!(world.send("web", &reply().tcp(80, 40000, SYN_ACK)), closed("web"), "no flag opens the way");
    assert_eq!(world.send("client", &request().tcp(40000, 80, TcpFlags::SYN)), delivered("web"));
    assert_eq!(world.send("web", &reply().tcp(80, 40000, SYN_ACK)), delivered("client"));
    for (near, far) in [(80, 40001), (81, 40000), (40000, 80)] {
        assert_eq!(world.send("web", &reply().tcp(near, far, SYN_ACK)), closed("web"));
    }
    assert_eq!(world.send("web", &reply().udp(80, 40000)), closed("web"));
    assert_eq!(world.send("client", &request().gre()), delivered("web"));
    assert_eq!(world.send("web", &reply().gre()), delivered("client"));
    assert_eq!(world.send("web", &reply().raw(50, &[0; 8])), closed("web"));
}

#[test]
fn an_echo_reply_passes_and_a_request_the_other_way_does_not() {
    for identifier in [1, 8, 13, 15, 17, 128, 600] {
        let mut world = strict_world();
        assert_eq!(world.send("client", &request().ping(identifier)), delivered("web"));
        assert_eq!(world.send("web", &reply().ping(identifier)), closed("web"), "identifier {identifier}");
        assert_eq!(world.send("web", &reply().pong(identifier)), delivered("client"));
        assert_eq!(world.send("web", &reply().pong(identifier + 1)), closed("web"));
        assert_eq!(world.send("client", &Ip::new(CLIENT_V6, WEB_V6).ping(identifier)), delivered("web"));
        assert_eq!(world.send("web", &Ip::new(WEB_V6, CLIENT_V6).ping(identifier)), closed("web"), "{identifier}");
        assert_eq!(world.send("web", &Ip::new(WEB_V6, CLIENT_V6).pong(identifier)), delivered("client"));
    }
}

/// The state of the only session that the web server has.
fn state(world: &World) -> String {
    let flows = world.flows("web");
    assert_eq!(flows.len(), 1, "{flows:?}");
    flows[0].state.clone()
}

/// Whether the web server would still have a session after so many seconds of silence.
fn survives(world: &World, seconds: u64) -> bool {
    !world.flows_at("web", world.now + seconds * 1_000_000_000).is_empty()
}

#[test]
fn each_protocol_idles_as_long_as_its_eni_says() {
    let mut world = strict_world();
    world.change_eni("client", |eni| eni.timeouts.udp_s = 100);
    world.change_eni("web", |eni| eni.timeouts = Timeouts { tcp_established_s: 100, tcp_closed_s: 7, udp_s: 60 });
    assert_eq!(world.send("client", &request().udp(5, 6)), delivered("web"));
    let answer = reply().udp(6, 5);
    assert!(survives(&world, 59) && !survives(&world, 60));
    // A change counts for sessions that start after it, and each packet restarts the timer.
    world.change_eni("web", |eni| eni.timeouts = Timeouts { udp_s: 10, ..Timeouts::default() });
    world.wait_s(59);
    assert_eq!(world.send("web", &answer), delivered("client"));
    assert!(survives(&world, 59) && !survives(&world, 60));
    world.wait_s(60);
    assert_eq!(world.send("web", &answer), closed("web"));
    assert_eq!(world.send("client", &request().udp(5, 6)), delivered("web"));
    assert!(survives(&world, 9) && !survives(&world, 10));
    assert_eq!(world.send("client", &request().raw(50, &[0; 8])), delivered("web"));
    world.wait_s(10);
    assert_eq!(world.send("web", &reply().raw(50, &[0; 8])), closed("web"), "other protocols idle as UDP");
    assert_eq!(world.send("client", &request().ping(300)), delivered("web"));
    world.wait_s(29);
    assert_eq!(world.send("web", &reply().pong(300)), delivered("client"));
    world.wait_s(30);
    assert_eq!(world.send("web", &reply().pong(300)), closed("web"));
}

#[test]
fn a_tcp_session_lives_as_its_state_says() {
    let mut world = strict_world();
    let (to_web, to_client) = (|flags| request().tcp(5, 6, flags), |flags| reply().tcp(6, 5, flags));
    let check = |world: &World, name: &str, seconds: u64| {
        assert_eq!(state(world), name);
        assert!(survives(world, seconds - 1) && !survives(world, seconds), "{name} idles {seconds} s");
    };
    assert_eq!(world.send("client", &to_web(TcpFlags::SYN)), delivered("web"));
    check(&world, "opening", 30);
    assert_eq!(world.send("web", &to_client(SYN_ACK)), delivered("client"));
    check(&world, "answered", 30);
    assert_eq!(world.send("client", &to_web(TcpFlags::ACK)), delivered("web"));
    check(&world, "established", 910);
    assert_eq!(world.send("web", &to_client(TcpFlags::FIN | TcpFlags::ACK)), delivered("client"));
    check(&world, "closing", 910);
    assert_eq!(world.send("client", &to_web(TcpFlags::FIN | TcpFlags::ACK)), delivered("web"));
    check(&world, "closed", 3);
    assert_eq!(world.send("web", &to_client(TcpFlags::ACK)), delivered("client"));
    check(&world, "closed", 3);
    // A new SYN between the same ports is a new connection, at once.
    assert_eq!(world.send("client", &to_web(TcpFlags::SYN)), delivered("web"));
    check(&world, "opening", 30);
    assert_eq!(world.send("client", &to_web(TcpFlags::RST)), delivered("web"));
    check(&world, "closed", 3);
}

#[test]
fn a_lone_fin_is_not_remembered_longer_than_a_lone_syn() {
    let mut world = strict_world();
    assert_eq!(world.send("client", &request().tcp(40005, 6, TcpFlags::FIN)), delivered("web"));
    assert!(survives(&world, 29) && !survives(&world, 30));
}

#[test]
fn a_full_quota_takes_no_new_session_and_keeps_the_old_ones() {
    let mut world = strict_world();
    world.change_eni("web", |eni| eni.sessions_max = 2);
    for port in [1, 2] {
        stream(&mut world, port);
    }
    let third = || request().udp(3, 80);
    assert_eq!(world.send("client", &third()), refused("web", DropReason::SessionLimit));
    assert_eq!(world.stats()["web"].flows, 2);
    assert_eq!(world.send("web", &reply().udp(80, 1)), delivered("client"));
    assert_eq!(world.send("client", &request().udp(2, 80)), delivered("web"));
    world.wait_s(31);
    // Nothing has looked through the table yet: what is over does not count.
    assert_eq!(world.send("client", &third()), delivered("web"));
    assert_eq!(world.send("client", &request().udp(4, 80)), delivered("web"));
    assert_eq!(world.stats()["web"].flows, 2);
}

#[test]
fn a_quota_counts_the_sessions_of_its_own_eni_alone() {
    let mut world = strict_world();
    world.change_eni("web", |eni| eni.sessions_max = 1);
    assert_eq!(world.send("client", &request().udp(1, 80)), delivered("web"));
    // The ENI leaves and comes back: its sessions end, and so does their count.
    let web = world.desired.enis[&"web".into()].clone();
    world.change(|desired| drop(desired.enis.remove(&"web".into())));
    world.change(|desired| drop(desired.enis.insert("web".into(), web)));
    assert_eq!(world.send("web", &reply().udp(80, 1)), closed("web"));
    assert_eq!(world.send("client", &request().udp(2, 80)), delivered("web"));
    world.wait_s(31);
    world.sweep_all();
    assert_eq!(world.stats()["web"].flows, 0);
    assert_eq!(world.shards[0].flow_count(), 0);
    stream(&mut world, 3);
    assert_eq!(world.send("client", &request().udp(4, 80)), refused("web", DropReason::SessionLimit));
}

/// Datagrams both ways, and another: a session that gives way to nobody.
fn stream(world: &mut World, port: u16) {
    assert_eq!(world.send("client", &request().udp(port, 80)), delivered("web"));
    assert_eq!(world.send("web", &reply().udp(80, port)), delivered("client"));
    assert_eq!(world.send("client", &request().udp(port, 80)), delivered("web"));
}

#[test]
fn sessions_of_an_eni_that_is_gone_do_not_fill_the_table() {
    let mut world = strict_world();
    assert_eq!(world.send("client", &request().tcp(1, 80, TcpFlags::SYN)), delivered("web"));
    assert_eq!(world.send("web", &reply().tcp(80, 1, SYN_ACK)), delivered("client"));
    assert_eq!(world.send("client", &request().tcp(1, 80, TcpFlags::ACK)), delivered("web"));
    let counted = |world: &World| world.shards[0].connection_count(&world.snapshot);
    assert_eq!(counted(&world), 1);
    world.change(|desired| drop(desired.enis.remove(&"web".into())));
    assert_eq!(counted(&world), 1, "the client's own");
    world.wait_s(3);
    world.sweep_all();
    assert_eq!(world.shards[0].flow_count(), 1, "the client's own session stays");
    assert_eq!(world.stats()["client"].flows, 1);
    world.change(|desired| drop(desired.enis.remove(&"client".into())));
    assert_eq!(world.shards[0].flow_count(), 1, "nothing has looked for it yet");
    assert_eq!(counted(&world), 0, "and yet it is not counted");
}

#[test]
fn a_full_table_takes_no_new_session_and_recovers() {
    let mut world = World::with_shards(strict_world().desired, 1, 1);
    let fates: Vec<Fate> = (1..9).map(|port| world.send("client", &request().udp(port, 80))).collect();
    assert!(fates.contains(&stopped("client", DropReason::FlowTableFull)), "{fates:?}");
    assert!(world.shards[0].flow_count() <= world.shards[0].flows_max());
    world.wait_s(31);
    world.sweep_all();
    assert_eq!(world.shards[0].flow_count(), 0);
    assert_eq!(world.send("client", &request().udp(99, 80)), delivered("web"));
}

#[test]
fn detaching_ends_the_sessions_of_an_eni() {
    let mut world = strict_world();
    assert_eq!(world.send("client", &request().udp(1, 80)), delivered("web"));
    world.change_eni("web", |eni| eni.port = None);
    assert_eq!(world.send("web", &reply().udp(80, 1)), closed("web"));
}

#[test]
fn an_error_passes_with_the_session_it_is_about() {
    let mut world = strict_world();
    let sent = request().udp(5, 6);
    assert_eq!(world.send("client", &sent), delivered("web"));
    assert_eq!(world.send("web", &reply().unreachable(&sent)), delivered("client"));
    let flows = world.flows("client");
    assert_eq!((flows.len(), flows[0].packets), (1, [1, 0]), "an error neither opens nor counts");
    let unrelated =
        [request().udp(5, 7), request().udp(4, 6), request().tcp(5, 6, TcpFlags::SYN), Ip::new(CLIENT, FAR).udp(5, 6)];
    for about in unrelated {
        assert_eq!(world.send("web", &reply().unreachable(&about)), closed("web"), "{about:?}");
    }
    // About a packet that the web server itself would have sent: it never crossed this way.
    assert_eq!(world.send("web", &reply().unreachable(&reply().udp(6, 5))), closed("web"));
    // Quoting somebody else's packet to the client.
    assert_eq!(world.send("web", &reply().unreachable(&Ip::new(FAR, WEB).udp(5, 6))), closed("web"));
    assert_eq!(world.send("web", &reply().icmp(3, 3, [0; 4], &sent.bytes()[..27])), closed("web"), "too short a quote");
    assert_eq!(world.send("web", &reply().icmp(3, 3, [0; 4], &sent.bytes()[..28])), delivered("client"));
    world.wait_s(31);
    assert_eq!(world.send("web", &reply().unreachable(&sent)), closed("web"), "the session is over");
}

#[test]
fn an_error_of_ipv6_passes_with_the_session_it_is_about() {
    let mut world = strict_world();
    let sent = Ip::new(CLIENT_V6, WEB_V6).tcp(5, 6, TcpFlags::SYN);
    assert_eq!(world.send("client", &sent), delivered("web"));
    let error = |about: &Ip| Ip::new(WEB_V6, CLIENT_V6).unreachable(about);
    assert_eq!(world.send("web", &error(&sent)), delivered("client"));
    assert_eq!(world.send("web", &error(&Ip::new(CLIENT_V6, WEB_V6).tcp(5, 7, TcpFlags::SYN))), closed("web"));
}

#[test]
fn what_the_shell_drops_is_counted_where_it_was_bound() {
    let mut world = strict_world();
    assert_eq!(world.send("client", &request().udp(1, 2)), delivered("web"));
    let (index, mut expected) = (world.index("web"), world.stats());
    world.shards[0].count_drop(index, Direction::Ingress, DropReason::SessionLimit, 1);
    expected.get_mut("web").expect("it counts").ingress.drops.insert("session-limit".into(), 1);
    assert_eq!(world.stats(), expected);
}
