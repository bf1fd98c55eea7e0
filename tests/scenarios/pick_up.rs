//! Connections whose sessions are gone: what was revoked stays dead, and what is allowed goes on, whoever speaks next.

use super::*;
use harness::frame::TcpFlags;
use harness::world::accept_out;
use vswitch_core::config::protocol::FlowSelection;

/// How a session comes to be gone.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// The forwarding plane starts anew.
    Restart,
    /// An operator flushes it.
    Flush,
    /// It idled too long.
    Idle,
}

const LOSSES: [Loss; 3] = [Loss::Restart, Loss::Flush, Loss::Idle];

/// What goes from the client to the web server, what comes back, and what comes first.
#[derive(Clone, Debug)]
struct Talk {
    first: Ip,
    request: Ip,
    reply: Ip,
}

const SERVICE: u16 = 7000;

fn tcp(client: u16, server: u16) -> Talk {
    let [syn, data] = [TcpFlags::SYN, TcpFlags::ACK].map(|flags| request().tcp(client, server, flags));
    Talk { first: syn, request: data, reply: reply().tcp(server, client, TcpFlags::ACK) }
}

fn udp(client: u16, server: u16) -> Talk {
    let datagram = request().udp(client, server);
    Talk { first: datagram.clone(), request: datagram, reply: reply().udp(server, client) }
}

fn icmp() -> Talk {
    Talk { first: request().ping(40_000), request: request().ping(40_000), reply: reply().pong(40_000) }
}

/// The web server lets in what the talks need, and what else is its own; the client lets nothing in.
fn world(shards: usize) -> World {
    let mut world = World::with_shards(lab(), shards, 512);
    world.set_rules("sg-web", &admitting());
    world
}

fn admitting() -> Vec<DesiredRule> {
    let all = |id: &str| accept_in(id, "0.0.0.0/0");
    let service = |mut rule: DesiredRule| {
        rule.conditions.ports = vswitch_core::config::desired::Ports::Range(range(SERVICE, 60_000));
        rule
    };
    vec![service(all("tcp").tcp(1)), service(all("udp").udp(1)), all("icmp").protocol(1)]
}

const fn range(first: u16, last: u16) -> vswitch_core::config::desired::PortRange {
    vswitch_core::config::desired::PortRange { first, last }
}

fn start(world: &mut World, talk: &Talk) {
    assert_eq!(world.send("client", &talk.first), delivered("web"));
    assert_eq!(world.send("web", &talk.reply), delivered("client"));
    assert_eq!(world.send("client", &talk.request), delivered("web"));
}

fn lose(world: &mut World, loss: Loss) {
    match loss {
        Loss::Restart => {
            let (now, shards) = (world.now, world.shards.len());
            *world = World::with_shards(world.desired.clone(), shards, 512);
            world.now = now;
        }
        Loss::Flush => {
            for shard in &mut world.shards {
                let mut next = Some(0);
                while let Some(place) = next {
                    let selection = FlowSelection::default();
                    next = shard.flush_flows((&world.snapshot, world.now), &selection, place).1;
                }
            }
        }
        Loss::Idle => world.wait_s(911),
    }
    assert_eq!((world.flows("web"), world.flows("client")), (vec![], vec![]));
}

fn is_delivered(fate: &Fate) -> bool {
    matches!(fate, Fate::Delivered(_))
}

#[test]
fn what_was_revoked_stays_dead_without_its_session() {
    let talks = [tcp(40_000, SERVICE), tcp(5_000, SERVICE), tcp(40_000, 50_000), udp(40_000, SERVICE), icmp()];
    for shards in [1, 2] {
        for loss in LOSSES {
            for (number, talk) in talks.iter().enumerate() {
                for server_first in [false, true] {
                    let context = format!("{shards} shards, {loss:?}, talk {number}, server first: {server_first}");
                    let mut world = world(shards);
                    start(&mut world, talk);
                    world.set_rules("sg-web", &[]);
                    for _ in 0..2 {
                        assert!(!is_delivered(&world.send("web", &talk.reply)), "{context}");
                        assert!(!is_delivered(&world.send("client", &talk.request)), "{context}");
                    }
                    lose(&mut world, loss);
                    for round in 0..4 {
                        let turns = [("web", &talk.reply), ("client", &talk.request)];
                        let turns = if server_first { turns } else { [turns[1], turns[0]] };
                        for (from, packet) in turns {
                            let fate = world.send(from, packet);
                            assert!(!is_delivered(&fate), "{context}, round {round}: {from} reaches the other");
                        }
                    }
                    assert_eq!(world.flows("web"), [], "{context}");
                }
            }
        }
    }
}

#[test]
fn what_is_allowed_goes_on_whoever_speaks_next_and_is_cut_when_it_is_revoked() {
    for shards in [1, 2] {
        for loss in LOSSES {
            for server_first in [false, true] {
                let context = format!("{shards} shards, {loss:?}, server first: {server_first}");
                let (mut world, talk) = (world(shards), tcp(40_000, SERVICE));
                start(&mut world, &talk);
                lose(&mut world, loss);
                if server_first {
                    for _ in 0..3 {
                        assert_eq!(world.send("web", &talk.reply), delivered("client"), "{context}: a silent client");
                    }
                }
                assert_eq!(world.send("client", &talk.request), delivered("web"), "{context}");
                assert_eq!(world.send("web", &talk.reply), delivered("client"), "{context}");
                assert_eq!(world.send("client", &talk.request), delivered("web"), "{context}");
                let flows = world.flows("web");
                assert_eq!(flows.len(), 1);
                let told = (flows[0].opened, flows[0].rule.as_ref().map(|rule| rule.as_str()), flows[0].state.as_str());
                assert_eq!(told, (Direction::Ingress, Some("tcp"), "established"), "{context}");
                assert_eq!(world.flows("client")[0].opened, Direction::Egress);
                world.set_rules("sg-web", &[accept_in("other", "10.9.0.0/16")]);
                assert!(!is_delivered(&world.send("web", &talk.reply)), "{context}");
                assert!(!is_delivered(&world.send("client", &talk.request)), "{context}");
            }
        }
    }
}

#[test]
fn the_clients_own_rules_are_asked_where_the_server_speaks_first() {
    let (mut world, talk) = (world(1), tcp(40_000, SERVICE));
    let only = harness::world::rule("no", Direction::Egress, vswitch_core::config::desired::Policy::Drop, "0.0.0.0/0");
    world.set_rules("sg-client", &[only]);
    assert_eq!(world.send("web", &talk.reply), refused("client", DropReason::AnswerUnsolicited));
    // The server's half stands. It is the client's that refuses.
    assert_eq!(world.send("client", &talk.request), stopped("client", DropReason::RuleDrop));
}

#[test]
fn where_ports_do_not_tell_both_directions_have_to_admit_a_connection() {
    let talk = tcp(5_000, SERVICE);
    let mut world = world(1);
    assert_eq!(world.send("client", &talk.request), stopped("client", DropReason::AnswerUnsolicited));
    world.set_rules("sg-client", &[accept_in("back", "0.0.0.0/0").tcp(5_000)]);
    assert_eq!(world.send("client", &talk.request), delivered("web"));
    assert_eq!(world.send("web", &talk.reply), delivered("client"));
    // Either end's rules cut it, whichever direction they are of.
    let no = harness::world::rule("no", Direction::Egress, vswitch_core::config::desired::Policy::Drop, "0.0.0.0/0");
    for rules in [vec![accept_in("other", "10.9.0.0/16")], [admitting(), vec![no]].concat()] {
        world.set_rules("sg-web", &rules);
        assert!(!is_delivered(&world.send("client", &talk.request)));
        assert!(!is_delivered(&world.send("web", &talk.reply)));
        world.set_rules("sg-web", &admitting());
        assert_eq!(world.send("client", &talk.request), delivered("web"));
    }
}

/// An answer to nothing reaches nobody, whatever port it comes from (§4.1).
#[test]
fn answers_to_nothing_are_refused_by_their_own_direction() {
    let mut world = World::new(lab());
    let closed = refused("client", DropReason::DefaultDrop);
    assert_eq!(world.send("web", &reply().udp(53, 40_000)), stopped("web", DropReason::AnswerUnsolicited));
    world.set_rules("sg-web", &[accept_in("dns", "0.0.0.0/0").udp(53), accept_in("icmp", "0.0.0.0/0").protocol(1)]);
    assert_eq!(world.send("web", &reply().udp(53, 40_000)), closed);
    assert_eq!(world.send("web", &reply().pong(7)), closed);
    world.set_rules("sg-web", &http());
    assert_eq!(world.send("web", &reply().tcp(80, 40_000, TcpFlags::SYN | TcpFlags::ACK)), closed);
    // Without ACK it is no segment of a connection.
    for flags in [0, TcpFlags::FIN, TcpFlags::RST] {
        assert_eq!(world.send("web", &reply().tcp(80, 40_000, flags)), closed, "{flags}");
    }
}

/// Between two ports of the same kind a datagram may be the first of all: nothing but its own direction is asked.
#[test]
fn first_datagrams_need_the_rules_of_their_own_direction_alone() {
    for ports in [(123, 123), (40_000, 53), (40_000, 33_434)] {
        let mut world = World::new(lab());
        world.set_rules("sg-web", &[accept_in("udp", "0.0.0.0/0").udp(ports.1)]);
        assert_eq!(world.send("client", &request().udp(ports.0, ports.1)), delivered("web"));
        assert_eq!(world.send("web", &reply().udp(ports.1, ports.0)), delivered("client"));
    }
}

/// Where only the memory of a session refuses its packets, it lives for as long as they come; where rules do, it does not.
#[test]
fn a_memory_lasts_while_it_is_needed() {
    let (near, far) = (udp(123, SERVICE), udp(40_000, SERVICE));
    for (talk, is_needed) in [(near, true), (far, false)] {
        let mut world = world(1);
        start(&mut world, &talk);
        world.set_rules("sg-web", &[]);
        for _ in 0..10 {
            world.wait_s(20);
            for (from, packet) in [("web", &talk.reply), ("client", &talk.request)] {
                assert!(!is_delivered(&world.send(from, packet)), "{talk:?}");
            }
        }
        assert_eq!(world.flows("web").len(), usize::from(is_needed), "{talk:?}");
    }
}

#[test]
fn what_was_revoked_takes_nothing_of_what_an_eni_may_hold() {
    let mut world = World::new(lab());
    world.change_eni("web", |eni| eni.sessions_max = 2);
    let connect = |world: &mut World, port: u16| {
        for (from, packet) in [
            ("client", request().tcp(port, 80, TcpFlags::SYN)),
            ("web", reply().tcp(80, port, TcpFlags::SYN | TcpFlags::ACK)),
            ("client", request().tcp(port, 80, TcpFlags::ACK)),
        ] {
            assert!(is_delivered(&world.send(from, &packet)), "{port}");
        }
    };
    connect(&mut world, 40_001);
    connect(&mut world, 40_002);
    assert_eq!(world.stats()["web"].flows, 2);
    world.set_rules("sg-web", &[]);
    for port in [40_001, 40_002] {
        assert!(!is_delivered(&world.send("client", &request().tcp(port, 80, TcpFlags::ACK))));
    }
    assert_eq!((world.stats()["web"].flows, world.flows("web").len()), (0, 2), "remembered, and not counted");
    world.set_rules("sg-web", &http());
    connect(&mut world, 40_003);
    connect(&mut world, 40_004);
    // What comes back with its rule counts again.
    assert!(is_delivered(&world.send("client", &request().tcp(40_001, 80, TcpFlags::ACK))));
    assert_eq!(world.stats()["web"].flows, 3);
    world.wait_s(911);
    world.sweep_all();
    assert_eq!((world.stats()["web"].flows, world.shards[0].flow_count()), (0, 0));
}

/// 72 refused packets a second held a server's table for ever: each made a memory that the next one refreshed.
#[test]
fn a_flood_of_revoked_packets_shuts_nobody_out() {
    let mut world = World::with_shards(lab(), 1, 256);
    world.change_eni("web", |eni| eni.sessions_max = 100);
    world.set_rules("sg-web", &[accept_in("udp", "10.0.0.20/32").udp(9_000), accept_in("far", "10.0.1.30/32").udp(53)]);
    for port in 0..100 {
        assert_eq!(world.send("client", &request().udp(40_000 + port, 9_000)), delivered("web"));
    }
    world.set_rules("sg-web", &[accept_in("far", "10.0.1.30/32").udp(53)]);
    for second in 0..60 {
        for port in 0..100 {
            assert_eq!(
                world.send("client", &request().udp(40_000 + port, 9_000)),
                refused("web", DropReason::DefaultDrop)
            );
        }
        let other = Ip::new(FAR, WEB).udp(40_000 + second, 53);
        assert_eq!(world.send("far", &other), delivered("web"), "second {second}");
        world.wait_s(1);
    }
    world.sweep_all();
    assert!(world.flows("web").iter().all(|flow| flow.state != "revoked"), "nothing refreshes them");
}

#[test]
fn the_cloud_takes_every_sender_for_the_opener() {
    let mut world = world(1);
    world.change(|desired| desired.settings.pick_up_by_ports = false);
    world.set_rules("sg-web", &[]);
    world.set_rules("sg-client", &[accept_in("back", "0.0.0.0/0"), accept_out("out", "0.0.0.0/0")]);
    assert_eq!(world.send("web", &reply().tcp(80, 40_000, TcpFlags::ACK)), delivered("client"));
    assert_eq!(world.flows("web")[0].opened, Direction::Egress);
    assert_eq!(world.send("web", &reply().udp(53, 40_000)), delivered("client"));
    assert_eq!(world.send("web", &reply().pong(7)), delivered("client"));
}
