//! Changes of rules under live sessions (§4.4).

use super::*;
use harness::frame::TcpFlags;
use harness::world::accept_out;
use vswitch_core::config::desired::Policy;

fn data() -> Ip {
    request().tcp(40000, 80, TcpFlags::ACK)
}

fn answer() -> Ip {
    reply().tcp(80, 40000, TcpFlags::ACK)
}

fn syn() -> Ip {
    request().tcp(40000, 80, TcpFlags::SYN)
}

#[test]
fn a_revoked_session_ends_in_both_directions_at_once() {
    let mut world = connected();
    world.set_rules("sg-web", &[]);
    assert_eq!(world.send("client", &data()), refused("web", DropReason::DefaultDrop));
    // The default would let the server send; the session's memory does not.
    assert_eq!(world.send("web", &answer()), stopped("web", DropReason::SessionRevoked));
    assert_eq!(world.flows("web")[0].state, "revoked");
    assert_eq!(world.send("client", &syn()), refused("web", DropReason::DefaultDrop));
}

#[test]
fn the_reply_direction_meets_the_revocation_first() {
    let mut world = connected();
    world.set_rules("sg-web", &[]);
    assert_eq!(world.send("web", &answer()), stopped("web", DropReason::SessionRevoked));
    assert_eq!(world.send("client", &data()), refused("web", DropReason::DefaultDrop));
}

#[test]
fn udp_and_icmp_are_revoked_like_tcp() {
    let mut world = World::new(lab());
    let open = [accept_in("udp", "0.0.0.0/0").udp(53), accept_in("icmp", "0.0.0.0/0").protocol(1)];
    world.set_rules("sg-web", &open);
    assert_eq!(world.send("client", &request().udp(40000, 53)), delivered("web"));
    assert_eq!(world.send("client", &request().ping(7)), delivered("web"));
    world.set_rules("sg-web", &open[1..]);
    assert_eq!(world.send("web", &reply().udp(53, 40000)), stopped("web", DropReason::SessionRevoked));
    assert_eq!(world.send("web", &reply().pong(7)), delivered("client"));
    world.set_rules("sg-web", &[]);
    assert_eq!(world.send("web", &reply().pong(7)), stopped("web", DropReason::SessionRevoked));
    assert_eq!(world.send("client", &request().ping(7)), refused("web", DropReason::DefaultDrop));
}

#[test]
fn a_session_comes_back_with_its_rule() {
    let mut world = connected();
    world.set_rules("sg-web", &[]);
    assert_eq!(world.send("client", &data()), refused("web", DropReason::DefaultDrop));
    world.set_rules("sg-web", &http());
    assert_eq!(world.send("client", &data()), delivered("web"));
    assert_eq!(world.send("web", &answer()), delivered("client"));
    assert_eq!(world.flows("web")[0].state, "established");
}

#[test]
fn a_session_that_slept_through_a_revocation_never_knew() {
    let mut world = connected();
    world.set_rules("sg-web", &[]);
    world.set_rules("sg-web", &http());
    assert_eq!(world.send("web", &answer()), delivered("client"));
}

#[test]
fn sessions_that_a_change_does_not_forbid_lose_nothing() {
    let mut world = connected();
    let other = |number: u32| accept_in(&format!("other-{number}"), "10.9.0.0/16").tcp(22);
    for number in 0..20 {
        let replaced = accept_in(&format!("http-{number}"), "10.0.0.0/24").tcp(80);
        world.set_rules("sg-web", &[replaced, other(number)]);
        assert_eq!(world.send("client", &data()), delivered("web"));
        assert_eq!(world.send("web", &answer()), delivered("client"));
    }
    let flows = world.flows("web");
    assert_eq!(flows.len(), 1, "it is still the same session");
    assert_eq!(flows[0].packets, [22, 21]);
    assert_eq!(flows[0].rule.as_ref().map(|rule| rule.as_str()), Some("http-19"), "by what admits it now");
}

#[test]
fn an_unrelated_change_does_not_even_ask() {
    let mut world = connected();
    let revision = |world: &World| world.snapshot.revision(world.index("web"));
    let before = revision(&world);
    world.set_rules("sg-client", &[accept_out("all", "0.0.0.0/0")]);
    world.change(|desired| desired.settings.icmp_timeout_s = 10);
    world.change_eni("far", |eni| eni.sessions_max = 7);
    assert_eq!(revision(&world), before);
    world.set_rules("sg-web", &[]);
    assert_ne!(revision(&world), before);
}

#[test]
fn the_initiators_half_is_revoked_by_its_own_rules() {
    let mut world = connected();
    let no = harness::world::rule("no", Direction::Egress, Policy::Drop, "0.0.0.0/0");
    world.set_rules("sg-client", &[no]);
    assert_eq!(world.send("client", &data()), stopped("client", DropReason::RuleDrop));
    assert_eq!(world.send("web", &answer()), refused("client", DropReason::DefaultDrop));
}

#[test]
fn leaving_a_group_revokes_what_it_admitted() {
    let mut world = World::new(lab().closed_group("sg-friends", "vpc-1", &[]));
    world.set_rules("sg-web", &[accept_in("friends", "sg-friends")]);
    world.change_eni("client", |eni| eni.groups = ["sg-friends".into()].into());
    assert_eq!(world.send("client", &request().udp(1, 2)), delivered("web"));
    world.change_eni("client", |eni| eni.groups = ["sg-client".into()].into());
    assert_eq!(world.send("client", &request().udp(1, 2)), refused("web", DropReason::DefaultDrop));
    assert_eq!(world.send("web", &reply().udp(2, 1)), stopped("web", DropReason::SessionRevoked));
}

#[test]
fn closing_a_group_to_its_members_revokes() {
    let mut world = World::new(lab().open_group("sg-open", "vpc-1", &[]));
    for id in ["client", "web"] {
        world.change_eni(id, |eni| eni.groups = ["sg-open".into()].into());
    }
    assert_eq!(world.send("client", &request().udp(1, 2)), delivered("web"));
    world.change(|desired| {
        desired.groups.get_mut(&"sg-open".into()).expect("it is there").inner_access = Policy::Drop;
    });
    assert_eq!(world.send("client", &request().udp(1, 2)), refused("web", DropReason::DefaultDrop));
}

#[test]
fn a_new_connection_of_the_other_side_is_not_blocked_by_the_memory() {
    let mut world = connected();
    world.set_rules("sg-client", &[accept_in("back", "0.0.0.0/0").tcp(40000)]);
    world.set_rules("sg-web", &[]);
    assert_eq!(world.send("client", &data()), refused("web", DropReason::DefaultDrop));
    // The client's own half still knows the connection that it opened; the server's half begins anew.
    assert_eq!(world.send("web", &reply().tcp(80, 40000, TcpFlags::SYN)), delivered("client"));
    assert_eq!(world.send("client", &request().tcp(40000, 80, TcpFlags::SYN | TcpFlags::ACK)), delivered("web"));
}

#[test]
fn the_memory_fades_when_nothing_comes() {
    let mut world = connected();
    world.set_rules("sg-web", &[]);
    assert_eq!(world.send("web", &answer()), stopped("web", DropReason::SessionRevoked));
    world.wait_s(909);
    assert_eq!(world.send("web", &answer()), stopped("web", DropReason::SessionRevoked));
    world.wait_s(1);
    // The memory has gone, and is not needed: it is an answer that nobody may have asked for.
    assert_eq!(world.flows("web"), []);
    assert_eq!(world.send("web", &answer()), stopped("web", DropReason::AnswerUnsolicited));
}

#[test]
fn sessions_live_on_where_they_are_not_cut() {
    let mut world = connected();
    world.change(|desired| desired.settings.cut_sessions_on_deny = false);
    world.set_rules("sg-web", &[]);
    assert_eq!(world.send("client", &data()), delivered("web"));
    assert_eq!(world.send("web", &answer()), delivered("client"));
    assert_eq!(world.send("client", &request().tcp(40001, 80, TcpFlags::SYN)), refused("web", DropReason::DefaultDrop));
    world.change(|desired| desired.settings.cut_sessions_on_deny = true);
    assert_eq!(
        world.send("client", &data()),
        refused("web", DropReason::DefaultDrop),
        "what the setting kept ends with it"
    );
}

#[test]
fn switching_the_cut_off_brings_nothing_back() {
    let mut world = connected();
    world.set_rules("sg-web", &[]);
    assert_eq!(world.send("client", &data()), refused("web", DropReason::DefaultDrop));
    world.change(|desired| desired.settings.cut_sessions_on_deny = false);
    world.set_rules("sg-web", &[accept_in("other", "10.9.9.9/32")]);
    assert_eq!(world.send("client", &data()), refused("web", DropReason::DefaultDrop));
    assert_eq!(world.send("web", &answer()), stopped("web", DropReason::SessionRevoked));
    let error = reply().unreachable(&data());
    world.change_eni("web", |eni| eni.groups = ["sg-client".into()].into());
    assert_eq!(world.send("web", &error), delivered("client"), "the default admits it, not the session");
}

#[test]
fn errors_about_a_revoked_session_are_unrelated() {
    let mut world = World::new(lab().advanced_group("sg-strict", "vpc-1", &[accept_in("udp", "0.0.0.0/0").udp(6)]));
    world.change_eni("web", |eni| eni.groups = ["sg-strict".into()].into());
    let sent = request().udp(5, 6);
    assert_eq!(world.send("client", &sent), delivered("web"));
    assert_eq!(world.send("web", &reply().unreachable(&sent)), delivered("client"));
    world.set_rules("sg-strict", &[]);
    assert_eq!(world.send("web", &reply().unreachable(&sent)), stopped("web", DropReason::DefaultDrop));
}
