//! Sessions, listed by what they are and ended from outside.

use super::*;
use harness::frame::TcpFlags;
use vswitch_core::config::protocol::FlowSelection;
use vswitch_core::conntrack::state::ConnectionState;
use vswitch_core::observe::flow_dump::STATE_NAMES;

/// Three sessions at the web server: TCP of the client, UDP of the far one, and its own ping over IPv6.
fn busy() -> World {
    let mut world = connected();
    world.set_rules("sg-web", &[http().to_vec(), vec![accept_in("dns", "0.0.0.0/0").udp(53)]].concat());
    assert_eq!(world.send("far", &Ip::new(FAR, WEB).udp(9000, 53)), delivered("web"));
    world.set_rules("sg-client", &[accept_in("ping", "::/0").protocol(58)]);
    assert_eq!(world.send("web", &Ip::new(WEB_V6, CLIENT_V6).ping(80)), delivered("client"));
    world
}

/// The sources of the sessions of the web server that fit.
fn sources(world: &World, selection: FlowSelection) -> Vec<String> {
    let selection = FlowSelection { eni: Some("web".into()), ..selection };
    let shard = &world.shards[0];
    let (mut found, mut next) = (Vec::new(), Some(0));
    while let Some(place) = next {
        let page = shard.list_flows((&world.snapshot, world.now), &selection, (place, 1));
        found.extend(page.flows.into_iter().map(|flow| flow.source.to_string()));
        next = page.next;
    }
    found.sort();
    found
}

#[test]
fn a_selection_names_sessions_by_any_of_their_marks() {
    let world = busy();
    let all = FlowSelection::default;
    let cases: [(FlowSelection, &[&str]); 12] = [
        (all(), &[CLIENT, FAR, WEB_V6]),
        (FlowSelection { protocol: Some(6), ..all() }, &[CLIENT]),
        (FlowSelection { port: Some(53), ..all() }, &[FAR]),
        (FlowSelection { port: Some(9000), ..all() }, &[FAR]),
        (FlowSelection { port: Some(80), ..all() }, &[CLIENT]),
        (FlowSelection { prefix: Some("10.0.1.0/24".parse().unwrap()), ..all() }, &[FAR]),
        (FlowSelection { prefix: Some("10.0.0.10/32".parse().unwrap()), ..all() }, &[CLIENT, FAR]),
        (FlowSelection { prefix: Some("fd00::/16".parse().unwrap()), ..all() }, &[WEB_V6]),
        (FlowSelection { state: Some("established".into()), ..all() }, &[CLIENT]),
        (FlowSelection { rule: Some("dns".into()), ..all() }, &[FAR]),
        (FlowSelection { rule: Some("http-v6".into()), ..all() }, &[]),
        (FlowSelection { port: Some(53), protocol: Some(6), ..all() }, &[]),
    ];
    for (selection, expected) in cases {
        assert_eq!(sources(&world, selection.clone()), expected, "{selection:?}");
    }
}

#[test]
fn a_session_names_the_generation_that_admitted_it() {
    let mut world = busy();
    let generation = |world: &World| world.flows("web").iter().find(|flow| flow.protocol == 6).unwrap().generation;
    let admitted = world.snapshot.generation() - 1; // The last change was one of the clients' group.
    assert_eq!(generation(&world), Some(1), "it has sent nothing since the rules changed");
    assert_eq!(world.send("client", &request().tcp(40000, 80, TcpFlags::ACK)), delivered("web"));
    assert_eq!(generation(&world), Some(admitted));
    world.change(|desired| desired.settings.icmp_timeout_s = 29);
    assert_eq!(generation(&world), Some(admitted), "a change that touches no decision");
}

#[test]
fn a_flushed_session_is_over_and_its_next_packet_judged_as_new() {
    let mut world = busy();
    let selection = FlowSelection { eni: Some("web".into()), protocol: Some(6), ..FlowSelection::default() };
    let (ended, next) = world.shards[0].flush_flows((&world.snapshot, world.now), &selection, 0);
    assert_eq!(ended, 1);
    assert!(next.is_some(), "the table is longer than one step");
    assert_eq!(sources(&world, FlowSelection::default()), [FAR, WEB_V6]);
    assert_eq!(world.stats()["web"].flows, 2);
    assert_eq!(world.stats()["client"].flows, 2, "the client's own session of that connection is another");
    world.set_rules("sg-web", &[]);
    let packet = request().tcp(40000, 80, TcpFlags::ACK);
    assert_eq!(world.send("client", &packet), refused("web", DropReason::DefaultDrop), "nothing is left to revoke");
    assert!(sources(&world, FlowSelection { state: Some("revoked".into()), ..FlowSelection::default() }).is_empty());
}

#[test]
fn every_state_can_be_asked_for() {
    let states = [
        ConnectionState::TcpOpening,
        ConnectionState::TcpAnswered,
        ConnectionState::TcpEstablished,
        ConnectionState::TcpClosingOpener,
        ConnectionState::TcpAbandonedResponder,
        ConnectionState::TcpClosed,
        ConnectionState::Udp,
        ConnectionState::Icmp,
        ConnectionState::Other,
    ];
    assert!(states.iter().all(|state| STATE_NAMES.contains(&state.name())));
}
