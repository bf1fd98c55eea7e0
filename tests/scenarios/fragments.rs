//! Fragments follow the first of them (§2).

use super::*;
use harness::frame::TcpFlags;

fn first(id: u32) -> Ip {
    request().tcp(4000, 80, TcpFlags::SYN).part(id, 0, true)
}

fn later(id: u32) -> Ip {
    request().raw(6, &[0xaa; 16]).part(id, 32, false)
}

#[test]
fn later_fragments_share_the_fate_of_the_first() {
    let mut world = World::new(lab());
    assert_eq!(world.send("client", &later(1)), refused("web", DropReason::DefaultDrop), "none before the first");
    assert_eq!(world.send("client", &first(1)), delivered("web"));
    assert_eq!(world.send("client", &later(1)), delivered("web"));
    assert_eq!(world.send("client", &later(2)), refused("web", DropReason::DefaultDrop), "of another packet");
    assert_eq!(
        world.send("far", &Ip::new(FAR, WEB).raw(6, &[0; 16]).part(1, 32, false)),
        refused("web", DropReason::DefaultDrop)
    );
    assert_eq!(
        world.send("client", &request().raw(17, &[0; 16]).part(1, 32, false)),
        refused("web", DropReason::DefaultDrop)
    );
    world.wait_s(30);
    assert_eq!(world.send("client", &later(1)), refused("web", DropReason::DefaultDrop), "too late");
}

#[test]
fn later_fragments_of_a_refused_packet_are_refused_whatever_rules_say_of_them() {
    let mut world = World::new(lab());
    let no = harness::world::rule("no", Direction::Ingress, vswitch_core::desired::Policy::Drop, "0.0.0.0/0").tcp(80);
    world.set_rules("sg-web", &[no, accept_in("all", "0.0.0.0/0").priority(50)]);
    assert_eq!(world.send("client", &later(1)), delivered("web"), "alone it meets the rule without ports");
    assert_eq!(world.send("client", &first(1)), refused("web", DropReason::RuleDrop));
    assert_eq!(world.send("client", &later(1)), refused("web", DropReason::RuleDrop));
    assert!(world.flows("web").is_empty());
}

#[test]
fn fragments_of_ipv6_follow_behind_extension_headers() {
    let mut world = World::new(lab());
    let part = |id, offset, more| {
        Ip::new(CLIENT_V6, WEB_V6).extension(60, &[0; 6]).tcp(4000, 80, TcpFlags::SYN).part(id, offset, more)
    };
    assert_eq!(world.send("client", &part(7, 0, true)), delivered("web"));
    let rest = Ip::new(CLIENT_V6, WEB_V6).raw(6, &[0xaa; 16]);
    assert_eq!(world.send("client", &rest.clone().part(7, 32, false)), delivered("web"));
    assert_eq!(world.send("client", &rest.part(8, 32, false)), refused("web", DropReason::DefaultDrop));
    // An atomic fragment (RFC 6946) is a whole packet.
    assert_eq!(world.send("client", &part(9, 0, false)), delivered("web"));
    let atomic = Ip::new(CLIENT_V6, WEB_V6).tcp(4000, 22, TcpFlags::SYN).part(9, 0, false);
    assert_eq!(world.send("client", &atomic), refused("web", DropReason::DefaultDrop));
}

#[test]
fn each_fragment_is_judged_alone_where_they_do_not_follow() {
    let mut world = World::new(lab());
    world.change(|desired| desired.settings.follow_first_fragment = false);
    assert_eq!(world.send("client", &first(1)), delivered("web"));
    assert_eq!(world.send("client", &later(1)), refused("web", DropReason::DefaultDrop));
    world.set_rules("sg-web", &[accept_in("tcp-without-ports", "0.0.0.0/0")]);
    assert_eq!(world.send("client", &later(1)), delivered("web"));
}

#[test]
fn fragments_made_to_evade_are_dropped() {
    let mut world = World::new(lab());
    let whole = || request().tcp(4000, 80, TcpFlags::SYN);
    let evasive = [
        request().raw(6, &whole().payload[..8]).part(1, 0, true),
        request().raw(6, &whole().payload[..16]).part(1, 0, true),
        request().raw(6, &[0; 24]).part(1, 8, false),
        request().raw(6, &[0; 24]).part(1, 16, true),
        request().raw(17, &[0; 16]).part(1, 65528, false),
        request().raw(17, &[0; 9]).part(1, 64, true),
        request().raw(17, &[]).part(1, 64, false),
        request().raw(17, &[]).part(1, 0, true),
        Ip::new(CLIENT_V6, WEB_V6).raw(6, &[0; 24]).part(1, 8, false),
        Ip::new(CLIENT_V6, WEB_V6).raw(6, &[0; 16]).part(1, 0, true),
        Ip::new(CLIENT_V6, WEB_V6).raw(17, &[0; 16]).part(1, 65528, false),
    ];
    for packet in evasive {
        assert_eq!(world.send("client", &packet), stopped("client", DropReason::FragmentEvasive), "{packet:?}");
    }
}

#[test]
fn a_fragment_does_not_open_the_way_for_another_protocol() {
    // Protocol 255 is reserved, and no less a guest's to send.
    let mut world = World::new(lab());
    let first = Ip::new(CLIENT_V6, WEB_V6).tcp(4000, 80, TcpFlags::SYN).part(0, 0, true);
    assert_eq!(world.send("client", &first), delivered("web"));
    assert_eq!(
        world.send("client", &Ip::new(CLIENT_V6, WEB_V6).raw(255, &[0; 8])),
        refused("web", DropReason::DefaultDrop)
    );
}

#[test]
fn a_change_that_forbids_nothing_spares_fragments_on_their_way() {
    let mut world = World::new(lab());
    assert_eq!(world.send("client", &first(1)), delivered("web"));
    world.set_rules("sg-web", &[http().to_vec(), vec![accept_in("more", "0.0.0.0/0").tcp(443)]].concat());
    assert_eq!(world.send("client", &later(1)), delivered("web"));
    world.set_rules("sg-web", &[]);
    assert_eq!(world.send("client", &later(1)), refused("web", DropReason::DefaultDrop));
}

#[test]
fn refused_fragments_do_not_use_up_the_sessions_of_their_victim() {
    let mut world = World::new(lab());
    world.change_eni("web", |eni| eni.sessions_max = 16);
    for id in 0..200 {
        let refused_first = request().tcp(4000, 22, TcpFlags::SYN).part(id, 0, true);
        assert_eq!(world.send("client", &refused_first), refused("web", DropReason::DefaultDrop));
    }
    assert_eq!(world.send("far", &Ip::new(FAR, WEB).tcp(1, 80, TcpFlags::SYN)), delivered("web"));
}
