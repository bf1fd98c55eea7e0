//! Fragments follow the first of them (§2), and none slips past a rule.

use super::*;
use harness::frame::TcpFlags;
use vswitch_core::config::desired::Policy;

fn first(id: u32) -> Ip {
    request().tcp(40000, 80, TcpFlags::SYN).part(id, 0, true)
}

fn later(id: u32) -> Ip {
    request().raw(6, &[0xaa; 16]).part(id, 32, false)
}

/// What became of the fragments that waited.
fn released(world: &mut World) -> Vec<Fate> {
    world.release().into_iter().map(|(_, fate, _)| fate).collect()
}

#[test]
fn later_fragments_share_the_fate_of_the_first() {
    let mut world = World::new(lab());
    assert_eq!(world.send("client", &first(1)), delivered("web"));
    assert_eq!(world.send("client", &later(1)), delivered("web"));
    assert_eq!(world.send("client", &later(2)), Fate::Waiting, "of another packet");
    assert_eq!(world.send("far", &Ip::new(FAR, WEB).raw(6, &[0; 16]).part(1, 32, false)), Fate::Waiting);
    assert_eq!(world.send("client", &request().raw(17, &[0; 16]).part(1, 32, false)), Fate::Waiting);
    assert_eq!(world.send("client", &first(3)), delivered("web"));
    world.wait_s(30);
    assert_eq!(world.send("client", &later(3)), Fate::Waiting, "too late");
    assert_eq!(released(&mut world), []);
}

#[test]
fn a_fragment_that_comes_early_waits_for_the_first() {
    for (ports, fate) in [(80, delivered("web")), (22, refused("web", DropReason::DefaultDrop))] {
        let mut world = World::new(lab());
        let middle = request().raw(6, &[0xbb; 16]).part(1, 48, true);
        let last = request().raw(6, &[0xcc; 16]).part(1, 64, false);
        for early in [&last, &middle, &later(2)] {
            let early = if early.part.unwrap().id == 2 { first(2).part(2, 32, true) } else { early.clone() };
            assert_eq!(world.send("client", &early), Fate::Waiting);
        }
        let begin = request().tcp(40000, ports, TcpFlags::SYN).part(1, 0, true);
        assert_eq!(world.send("client", &begin), fate);
        let found = world.release();
        assert_eq!(found.iter().map(|(_, fate, _)| fate.clone()).collect::<Vec<_>>(), [fate.clone(), fate.clone()]);
        if fate == delivered("web") {
            assert!(found[0].2.ends_with(&[0xcc; 16]) && found[1].2.ends_with(&[0xbb; 16]), "in the order they came");
        }
        assert_eq!(world.send("client", &request().raw(6, &[0xdd; 16]).part(1, 32, true)), fate, "the last gap");
    }
}

#[test]
fn a_fragment_whose_first_never_comes_is_dropped_and_counted() {
    let mut world = World::new(lab());
    assert_eq!(world.send("client", &later(1)), Fate::Waiting);
    world.wait_s(1);
    world.sweep_all();
    assert!(world.stats()["client"].egress.drops.is_empty());
    world.wait_s(1);
    world.sweep_all();
    let orphaned = DropReason::FragmentOrphaned;
    assert_eq!(world.stats()["client"].egress.drops.get(orphaned.name()), Some(&1));
    assert_eq!(world.send("client", &first(1)), delivered("web"));
    assert_eq!(released(&mut world), [], "nothing waits any more");
}

#[test]
fn later_fragments_of_a_refused_packet_are_refused_whatever_rules_say_of_them() {
    let mut world = World::new(lab());
    let no = harness::world::rule("no", Direction::Ingress, Policy::Drop, "0.0.0.0/0").tcp(80);
    world.set_rules("sg-web", &[no, accept_in("all", "0.0.0.0/0").priority(50)]);
    assert_eq!(world.send("client", &first(1)), refused("web", DropReason::RuleDrop));
    assert_eq!(world.send("client", &later(1)), refused("web", DropReason::RuleDrop));
    assert!(world.flows("web").is_empty());
}

#[test]
fn fragments_of_ipv6_follow_behind_extension_headers() {
    let mut world = World::new(lab());
    let part = |id, offset, more| {
        Ip::new(CLIENT_V6, WEB_V6).extension(60, &[0; 6]).tcp(40000, 80, TcpFlags::SYN).part(id, offset, more)
    };
    assert_eq!(world.send("client", &part(7, 0, true)), delivered("web"));
    let rest = Ip::new(CLIENT_V6, WEB_V6).raw(6, &[0xaa; 16]);
    assert_eq!(world.send("client", &rest.clone().part(7, 32, false)), delivered("web"));
    assert_eq!(world.send("client", &rest.part(8, 32, false)), Fate::Waiting);
    // An atomic fragment (RFC 6946) is a whole packet.
    assert_eq!(world.send("client", &part(9, 0, false)), delivered("web"));
    let atomic = Ip::new(CLIENT_V6, WEB_V6).tcp(40000, 22, TcpFlags::SYN).part(9, 0, false);
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
fn fragments_cut_to_evade_are_dropped_and_told_apart() {
    let mut world = World::new(lab());
    let whole = || request().tcp(40000, 80, TcpFlags::SYN);
    let v6 = || Ip::new(CLIENT_V6, WEB_V6);
    let (tiny, oversized, malformed) =
        (DropReason::FragmentTiny, DropReason::FragmentOversized, DropReason::FragmentMalformed);
    for (packet, reason) in [
        (request().raw(6, &whole().payload[..8]).part(1, 0, true), tiny),
        (request().raw(6, &whole().payload[..16]).part(1, 0, true), tiny),
        (request().raw(6, &[0; 24]).part(1, 8, false), tiny),
        (request().raw(6, &[0; 24]).part(1, 16, true), tiny),
        (request().raw(17, &[]).part(1, 0, true), tiny),
        (v6().raw(6, &[0; 24]).part(1, 8, false), tiny),
        (v6().raw(6, &[0; 16]).part(1, 0, true), tiny),
        (request().raw(17, &[0; 16]).part(1, 65528, false), oversized),
        (v6().raw(17, &[0; 16]).part(1, 65528, false), oversized),
        (request().raw(17, &[0; 9]).part(1, 64, true), malformed),
        (request().raw(17, &[]).part(1, 64, false), malformed),
        (v6().raw(17, &[0; 9]).part(1, 64, true), malformed),
    ] {
        assert_eq!(world.send("client", &packet), stopped("client", reason), "{packet:?}");
    }
}

/// Everything that a sender can do with parts to get a packet for the closed port 22 past a rule for port 80, in IPv4 and
/// IPv6. The guest's kernel would put the parts together; what it gets must never be such a packet.
#[test]
fn no_way_of_cutting_a_packet_gets_it_past_a_rule_for_ports() {
    let overlap = stopped("client", DropReason::FragmentOverlap);
    let duplicate = stopped("client", DropReason::FragmentDuplicate);
    let closed = refused("web", DropReason::DefaultDrop);
    let tiny = stopped("client", DropReason::FragmentTiny);
    for is_v6 in [false, true] {
        let base = || if is_v6 { Ip::new(CLIENT_V6, WEB_V6) } else { request() };
        let open = |id| base().tcp(40000, 80, TcpFlags::SYN).part(id, 0, true);
        let hidden = |id| base().tcp(40000, 22, TcpFlags::SYN).part(id, 0, true);
        let rest = |id, offset, more| base().raw(6, &[0xaa; 32]).part(id, offset, more);
        let mut world = World::new(lab());
        let mut try_all = |what: &str, parts: &[(Ip, Fate)]| {
            for (number, (part, fate)) in parts.iter().enumerate() {
                assert_eq!(world.send("client", part), *fate, "{what}, part {number}, IPv6: {is_v6}");
                let waited = world.release();
                let none_passes = waited.iter().all(|(_, fate, _)| !matches!(fate, Fate::Delivered(_)));
                assert!(none_passes || what.starts_with("honest"), "{what}: {waited:?}");
            }
        };
        try_all("honest", &[(open(1), delivered("web")), (rest(1, 32, false), delivered("web"))]);
        try_all(
            "the header rewritten by a second first",
            &[(open(2), delivered("web")), (hidden(2), duplicate.clone())],
        );
        let shifted = base().raw(6, &[0; 24]).part(3, 24, false);
        try_all("the end of the header overwritten", &[(open(3), delivered("web")), (shifted, overlap.clone())]);
        let over_start = base().raw(6, &[0; 64]).part(4, 0, true);
        let wide = Ip { payload: [hidden(4).payload, vec![0; 32]].concat(), ..over_start };
        try_all("a longer first over a shorter one", &[(open(4), delivered("web")), (wide, overlap.clone())]);
        try_all("nothing of a packet whose parts overlapped", &[(rest(4, 64, false), overlap.clone())]);
        let early = base().raw(6, &[0; 32]).part(5, 24, false);
        try_all("the overwriting part first", &[(early, Fate::Waiting), (open(5), overlap.clone())]);
        try_all(
            "a header without its flags",
            &[(base().raw(6, &hidden(6).payload[..8]).part(6, 0, true), tiny.clone())],
        );
        let flags = base().raw(6, &hidden(7).payload[8..24]).part(7, 8, false);
        try_all("flags by the second part", &[(flags, tiny.clone())]);
        try_all("the closed port in parts", &[(hidden(8), closed.clone()), (rest(8, 32, false), closed.clone())]);
        try_all("the rest first", &[(rest(9, 32, false), Fate::Waiting), (hidden(9), closed.clone())]);
        let beyond = rest(10, 96, true);
        let end = rest(10, 32, false);
        try_all(
            "parts beyond the last",
            &[(open(10), delivered("web")), (beyond, delivered("web")), (end, overlap.clone())],
        );
        let two_ends = [(open(11), delivered("web")), (rest(11, 32, false), delivered("web"))];
        try_all("honest, then a second end", &two_ends);
        try_all("a second end", &[(rest(11, 64, false), overlap.clone())]);
        if is_v6 {
            // RFC 7112: the first part has all headers.
            let chain = base().extension(60, &[0; 6]).raw(6, &[]).part(12, 0, true);
            try_all("headers in the second part", &[(chain, tiny.clone())]);
            let other_protocol = base().raw(17, &[0xaa; 16]).part(1, 64, false);
            try_all("another protocol in the second part", &[(other_protocol, overlap.clone())]);
        }
        let nobody = rest(13, 32, false);
        try_all("no first at all", &[(nobody, Fate::Waiting)]);
    }
}

#[test]
fn a_number_may_be_used_again_once_its_packet_is_whole() {
    let mut world = World::new(lab());
    for _ in 0..3 {
        assert_eq!(world.send("client", &first(1)), delivered("web"));
        assert_eq!(world.send("client", &later(1)), delivered("web"));
        assert_eq!(world.send("client", &later(1)), stopped("client", DropReason::FragmentDuplicate));
    }
}

#[test]
fn waiting_fragments_are_bounded_at_each_eni() {
    let mut world = World::new(lab());
    let full = stopped("client", DropReason::FragmentsFull);
    for id in 0..60 {
        let expected = if id < 48 { Fate::Waiting } else { full.clone() };
        assert_eq!(world.send("client", &later(id)), expected, "{id}");
    }
    assert_eq!(world.send("far", &Ip::new(FAR, WEB).raw(6, &[0; 16]).part(1, 32, false)), Fate::Waiting);
    world.wait_s(2);
    world.sweep_all();
    assert_eq!(world.send("client", &later(70)), Fate::Waiting);
}

#[test]
fn a_flood_of_parts_leaves_a_neighbour_his_packets() {
    let mut world = World::new(lab());
    let theirs = |offset, more| Ip::new(FAR, WEB).tcp(40000, 80, TcpFlags::SYN).part(7, offset, more);
    assert_eq!(world.send("far", &theirs(0, true)), delivered("web"));
    for id in 0..20_000 {
        assert_eq!(world.send("client", &first(id)), delivered("web"));
    }
    let rest = Ip::new(FAR, WEB).raw(6, &[0xaa; 16]).part(7, 32, false);
    assert_eq!(world.send("far", &rest), delivered("web"));
}

#[test]
fn a_fragment_does_not_open_the_way_for_another_protocol() {
    // Protocol 255 is reserved, and no less a guest's to send.
    let mut world = World::new(lab());
    let first = Ip::new(CLIENT_V6, WEB_V6).tcp(40000, 80, TcpFlags::SYN).part(0, 0, true);
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
    assert_eq!(world.send("client", &request().raw(6, &[0; 16]).part(1, 32, true)), delivered("web"));
    world.set_rules("sg-web", &[]);
    assert_eq!(
        world.send("client", &request().raw(6, &[0; 16]).part(1, 48, false)),
        refused("web", DropReason::DefaultDrop)
    );
}

#[test]
fn refused_fragments_do_not_use_up_the_sessions_of_their_victim() {
    let mut world = World::new(lab());
    world.change_eni("web", |eni| eni.sessions_max = 16);
    for id in 0..200 {
        let refused_first = request().tcp(40000, 22, TcpFlags::SYN).part(id, 0, true);
        assert_eq!(world.send("client", &refused_first), refused("web", DropReason::DefaultDrop));
    }
    assert_eq!(world.send("far", &Ip::new(FAR, WEB).tcp(1, 80, TcpFlags::SYN)), delivered("web"));
}
