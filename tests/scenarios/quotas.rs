//! Who may open sessions, and who gives way when the table is full.

use super::*;
use harness::frame::TcpFlags;
use harness::world::prefix_of;
use vswitch_core::config::desired::Tracking;

/// A lab in which every guest reaches every other, with a table of 64 homes, so 86 records, in one shard.
fn crowded(guaranteed: u32) -> World {
    let mut world = World::with_shards(lab(), 1, 64);
    world.set_rules("sg-web", &[accept_in("all", "0.0.0.0/0")]);
    world.set_rules("sg-client", &[accept_in("all", "0.0.0.0/0")]);
    for eni in ["web", "client", "far"] {
        world.change_eni(eni, |eni| {
            eni.tracking = Tracking { sessions_guaranteed: guaranteed, ..Tracking::default() };
        });
    }
    world
}

fn connect(world: &mut World, from: &str, ends: (&str, &str), port: u16) {
    for (guest, packet) in [
        (from, Ip::new(ends.0, ends.1).tcp(port, 80, TcpFlags::SYN)),
        ("web", Ip::new(ends.1, ends.0).tcp(80, port, TcpFlags::SYN | TcpFlags::ACK)),
        (from, Ip::new(ends.0, ends.1).tcp(port, 80, TcpFlags::ACK)),
    ] {
        assert!(matches!(world.send(guest, &packet), Fate::Delivered(_)), "{from} {port}");
    }
}

/// Embryonic connections of the client to the web server until the table refuses no more of them.
fn flood(world: &mut World, count: u16) -> usize {
    let syn = |port| request().tcp(port, 80, TcpFlags::SYN);
    (0..count).filter(|number| matches!(world.send("client", &syn(1000 + number)), Fate::Delivered(_))).count()
}

#[test]
fn a_flood_gives_way_to_the_new_connections_of_a_neighbour() {
    let mut world = crowded(8);
    for port in 1..=5 {
        connect(&mut world, "far", (FAR, WEB), port);
    }
    let passed = flood(&mut world, 2000);
    assert!(passed > 1000, "the flood itself gives way to itself: {passed}");
    for port in 6..=8 {
        connect(&mut world, "far", (FAR, WEB), port);
    }
    let established = |world: &World| world.flows("far").iter().filter(|flow| flow.state == "established").count();
    assert_eq!(established(&world), 8);
    flood(&mut world, 2000);
    assert_eq!(established(&world), 8, "established connections of others stay");
    assert_eq!(world.stats()["far"].flows_evicted, 0);
    assert!(world.stats()["client"].flows_evicted > 1000);
}

#[test]
fn what_is_closing_goes_before_what_is_embryonic_and_that_before_what_lives() {
    let mut world = crowded(0);
    for port in 1..=20 {
        connect(&mut world, "client", (CLIENT, WEB), port);
    }
    for port in 1..=10 {
        assert_eq!(world.send("client", &request().tcp(port, 80, TcpFlags::RST)), delivered("web"));
        world.wait_s(0);
    }
    let count = |world: &World, state: &str| world.flows("web").iter().filter(|flow| flow.state == state).count();
    assert_eq!((count(&world, "closed"), count(&world, "established")), (10, 10));
    flood(&mut world, 400);
    assert_eq!(count(&world, "closed"), 0, "gone first");
    assert_eq!(count(&world, "established"), 10, "while there are embryonic ones");
}

#[test]
fn nobody_gives_way_who_holds_no_more_than_his_share() {
    let mut world = crowded(1000);
    for port in 0..400 {
        world.send("client", &request().tcp(1000 + port, 80, TcpFlags::SYN));
    }
    let held = world.flows("client").len();
    let full = (0..50).find_map(|port| match world.send("far", &Ip::new(FAR, WEB).tcp(port + 1, 80, TcpFlags::SYN)) {
        Fate::Dropped(_, _, reason) => Some(reason),
        _ => None,
    });
    assert_eq!(full, Some(DropReason::FlowTableFull));
    assert!(world.flows("client").len() >= held, "nothing gave way");
    assert_eq!(world.stats()["client"].flows_evicted, 0);
}

#[test]
fn an_eni_opens_no_more_sessions_in_a_second_than_it_may() {
    let mut world = World::new(lab());
    world.change_eni("client", |eni| eni.tracking.new_sessions_per_s = Some(10));
    let opened = |world: &mut World, ports: std::ops::Range<u16>| {
        let mut fates = ports.map(|port| world.send("client", &request().tcp(port, 80, TcpFlags::SYN)));
        let count = fates.by_ref().take_while(|fate| *fate == delivered("web")).count();
        assert!(fates.all(|fate| fate == stopped("client", DropReason::SessionRate)));
        count
    };
    assert_eq!(opened(&mut world, 1..100), 10);
    assert_eq!(world.send("client", &request().tcp(1, 80, TcpFlags::ACK)), delivered("web"), "what lives goes on");
    world.wait_s(1);
    assert_eq!(opened(&mut world, 100..200), 10);
    world.wait_s(100);
    assert_eq!(opened(&mut world, 200..300), 10, "no more than a second is saved up");
    // The rate of a receiver counts what is opened towards it.
    world.change_eni("client", |eni| eni.tracking.new_sessions_per_s = None);
    world.change_eni("web", |eni| eni.tracking.new_sessions_per_s = Some(1));
    assert_eq!(world.send("client", &request().tcp(500, 80, TcpFlags::SYN)), delivered("web"));
    let second = world.send("client", &request().tcp(501, 80, TcpFlags::SYN));
    assert_eq!(second, refused("web", DropReason::SessionRate));
}

/// The web server may hold a hundred sessions, and everybody may connect.
fn public(shards: usize) -> World {
    let mut world = World::with_shards(lab(), shards, 4096);
    world.set_rules("sg-web", &[accept_in("all", "0.0.0.0/0")]);
    world.change_eni("web", |eni| eni.sessions_max = 100);
    world
}

const SYN_ACK: u8 = TcpFlags::SYN | TcpFlags::ACK;

/// A flood of one peer, which the server's kernel answers: every client that completes its handshake meanwhile gets in, and
/// whoever is in stays.
#[test]
fn a_flood_of_one_peer_takes_its_own_places() {
    for shards in [1, 2] {
        let mut world = public(shards);
        for port in 1..=10 {
            connect(&mut world, "far", (FAR, WEB), 40_000 + port);
        }
        for round in 0..40 {
            for number in 0..50 {
                let port = 1_000 + round * 50 + number;
                assert_eq!(world.send("client", &request().tcp(port, 80, TcpFlags::SYN)), delivered("web"));
                assert_eq!(world.send("web", &reply().tcp(80, port, SYN_ACK)), delivered("client"));
            }
            connect(&mut world, "far", (FAR, WEB), 50_000 + round);
        }
        let flows = world.flows("web");
        let established = flows.iter().filter(|flow| flow.state == "established").count();
        assert_eq!((established, flows.len()), (50, 100));
        assert!(world.stats()["web"].flows_evicted >= 1900);
        assert_eq!(world.stats()["web"].ingress.drops.get("session-limit"), None);
    }
}

/// Subnets number their hosts alike, so the addresses of two peers often differ in their upper and lower halves by as much.
#[test]
fn ipv6_peers_of_two_subnets_are_two_peers() {
    const TWIN_OF_FAR: &str = "fd00:0:0:1::33";
    let mut world = public(1);
    world.set_rules("sg-web", &[accept_in("all", "::/0")]);
    world.change_eni("web", |eni| eni.sessions_max = 4);
    world.change_eni("client", |eni| eni.addresses.push(prefix_of(TWIN_OF_FAR)));
    let mut open = |from: &str, source: &str, port| {
        let syn = Ip::new(source, WEB_V6).tcp(port, 80, TcpFlags::SYN);
        assert_eq!(world.send(from, &syn), delivered("web"), "{source} {port}");
    };
    open("client", TWIN_OF_FAR, 1001);
    open("far", FAR_V6, 1002);
    for port in 1003..=1005 {
        open("client", CLIENT_V6, port);
    }
    let mut ports: Vec<u16> = world.flows("web").iter().map(|flow| flow.source_port).collect();
    ports.sort_unstable();
    assert_eq!(ports, [1001, 1002, 1004, 1005], "the peer with two of them gave up its oldest");
}

/// Questions and answers of one peer, or its pings, take no places of others either.
#[test]
fn what_one_answer_settles_gives_way() {
    let mut world = public(1);
    for port in 0..300 {
        assert_eq!(world.send("client", &request().udp(40_000 + port, 53)), delivered("web"));
        assert_eq!(world.send("web", &reply().udp(53, 40_000 + port)), delivered("client"));
    }
    for identifier in 0..300 {
        assert_eq!(world.send("client", &request().ping(identifier)), delivered("web"));
    }
    connect(&mut world, "far", (FAR, WEB), 40_000);
    assert!((98..=100).contains(&world.stats()["web"].flows), "{}", world.stats()["web"].flows);
}

#[test]
fn established_sessions_give_way_to_nobody() {
    let mut world = public(1);
    for port in 0..100 {
        connect(&mut world, "far", (FAR, WEB), 40_000 + port);
    }
    for port in 0..200 {
        let refusal = refused("web", DropReason::SessionLimit);
        assert_eq!(world.send("client", &request().tcp(40_000 + port, 80, TcpFlags::SYN)), refusal);
    }
    assert_eq!((world.stats()["web"].flows, world.stats()["web"].flows_evicted), (100, 0));
    // One closes, and gives its place away before it is over.
    assert_eq!(world.send("far", &Ip::new(FAR, WEB).tcp(40_050, 80, TcpFlags::RST)), delivered("web"));
    assert_eq!(world.send("client", &request().tcp(41_000, 80, TcpFlags::SYN)), delivered("web"));
}

/// Flow 101 long after the first hundred ended: nothing has swept the table.
#[test]
fn what_is_over_does_not_count() {
    let mut world = public(1);
    for port in 0..100 {
        connect(&mut world, "far", (FAR, WEB), 40_000 + port);
    }
    assert_eq!(world.send("client", &request().udp(40_000, 53)), refused("web", DropReason::SessionLimit));
    world.wait_s(911);
    for port in 0..100 {
        connect(&mut world, "client", (CLIENT, WEB), 40_000 + port);
    }
    assert_eq!(world.stats()["web"].flows, 100);
    assert_eq!(world.stats()["web"].flows_evicted, 0, "they ended by themselves");
}
