//! Rules, groups, lists and exemptions, changed while packets flow.

use super::*;
use harness::frame::TcpFlags;
use harness::world::{accept_out, prefix_of, rule};
use vswitch_core::config::desired::{DesiredPortList, DesiredPrefixList, PmtudExempt, Policy, PortRange};
use vswitch_core::packet::Marker;
use vswitch_core::packet::verdict::{ServedBy, Stage, Verdict};

fn syn(port: u16) -> Ip {
    request().tcp(40000, port, TcpFlags::SYN)
}

fn drop_in(id: &str, remote: &str) -> DesiredRule {
    rule(id, Direction::Ingress, Policy::Drop, remote)
}

fn drop_out(id: &str, remote: &str) -> DesiredRule {
    rule(id, Direction::Egress, Policy::Drop, remote)
}

#[test]
fn what_no_rule_admits_is_dropped_by_default() {
    let mut world = World::new(lab());
    assert_eq!(world.send("client", &syn(80)), delivered("web"));
    assert_eq!(world.send("client", &syn(22)), refused("web", DropReason::DefaultDrop));
    assert_eq!(world.send("client", &request().udp(1, 80)), refused("web", DropReason::DefaultDrop));
    assert_eq!(world.send("client", &request().ping(9)), refused("web", DropReason::DefaultDrop));
    assert_eq!(world.send("client", &request().gre()), refused("web", DropReason::DefaultDrop));
}

#[test]
fn a_drop_rule_is_told_from_the_default() {
    let mut world = World::new(lab());
    world.set_rules("sg-web", &[drop_in("no", "10.0.0.0/24").tcp(80), accept_in("yes", "0.0.0.0/0").tcp(80)]);
    assert_eq!(world.send("client", &syn(80)), refused("web", DropReason::RuleDrop));
    assert_eq!(world.send("far", &Ip::new(FAR, WEB).tcp(1, 80, TcpFlags::SYN)), delivered("web"));
    world.set_rules("sg-client", &[drop_out("no-mail", "0.0.0.0/0").tcp(25)]);
    assert_eq!(world.send("client", &syn(25)), stopped("client", DropReason::RuleDrop));
}

#[test]
fn port_zero_is_covered_by_rules_without_ports_alone() {
    let mut world = World::new(lab());
    let mut all_ports = accept_in("tcp", "0.0.0.0/0").tcp(1);
    all_ports.conditions.ports = vswitch_core::config::desired::Ports::Range(PortRange::ALL);
    world.set_rules("sg-web", &[all_ports]);
    assert_eq!(world.send("client", &syn(0)), refused("web", DropReason::DefaultDrop));
    world.set_rules("sg-web", &[accept_in("all", "0.0.0.0/0")]);
    assert_eq!(world.send("client", &syn(0)), delivered("web"));
}

#[test]
fn advanced_groups_are_closed_both_ways() {
    let mut world = World::new(lab());
    world.change(|desired| {
        *desired = std::mem::take(desired).advanced_group("sg-strict", "vpc-1", &[]);
        desired.enis.get_mut(&"client".into()).expect("it is there").groups = ["sg-strict".into()].into();
    });
    assert_eq!(world.send("client", &syn(80)), stopped("client", DropReason::DefaultDrop));
    world.set_rules("sg-strict", &[accept_out("http", "10.0.0.10/32").tcp(80)]);
    assert_eq!(world.send("client", &syn(80)), delivered("web"));
    assert_eq!(world.send("web", &reply().tcp(80, 40000, TcpFlags::SYN | TcpFlags::ACK)), delivered("client"));
    world.change_eni("web", |eni| eni.groups = ["sg-strict".into()].into());
    assert_eq!(world.send("client", &syn(80)), refused("web", DropReason::DefaultDrop), "members are isolated");
}

#[test]
fn members_of_an_open_group_pass_their_rules() {
    let mut world = World::new(lab());
    world.change(|desired| {
        let no = [drop_in("no-in", "0.0.0.0/0"), drop_out("no-out", "0.0.0.0/0")];
        *desired = std::mem::take(desired).open_group("sg-open", "vpc-1", &no);
        for id in ["client", "web"] {
            desired.enis.get_mut(&id.into()).expect("it is there").groups = ["sg-open".into()].into();
        }
    });
    let ping = || request().ping(500);
    assert_eq!(world.send("client", &ping()), delivered("web"));
    assert_eq!(world.send("client", &Ip::new(CLIENT, FAR).ping(500)), stopped("client", DropReason::RuleDrop));
    world.change(|desired| desired.settings.intra_group_egress_bypass = false);
    assert_eq!(world.send("client", &ping()), stopped("client", DropReason::RuleDrop));
    world.change(|desired| desired.settings.intra_group_egress_bypass = true);
    assert_eq!(world.send("client", &ping()), delivered("web"));
    world.change(|desired| {
        desired.groups.get_mut(&"sg-open".into()).expect("it is there").inner_access = Policy::Drop;
    });
    assert_eq!(world.send("client", &ping()), stopped("client", DropReason::RuleDrop));
}

#[test]
fn membership_of_a_group_object_counts_at_once() {
    let mut world = World::new(lab());
    world.change(|desired| {
        *desired = std::mem::take(desired).closed_group("sg-friends", "vpc-1", &[]);
    });
    world.set_rules("sg-web", &[accept_in("friends", "sg-friends").tcp(22)]);
    assert_eq!(world.send("client", &syn(22)), refused("web", DropReason::DefaultDrop));
    world.change_eni("client", |eni| eni.groups.extend(["sg-friends".into()]));
    assert_eq!(world.send("client", &syn(22)), delivered("web"));
    assert_eq!(world.send("client", &Ip::new(CLIENT_V6, WEB_V6).tcp(1, 22, TcpFlags::SYN)), delivered("web"));
    world.change_eni("client", |eni| eni.addresses.push(prefix_of("10.0.0.21")));
    assert_eq!(world.send("client", &Ip::new("10.0.0.21", WEB).tcp(1, 22, TcpFlags::SYN)), delivered("web"));
    world.change_eni("client", |eni| eni.groups.retain(|group| group.as_str() != "sg-friends"));
    assert_eq!(world.send("client", &syn(22)), refused("web", DropReason::DefaultDrop));
    assert_eq!(
        world.send("client", &Ip::new(CLIENT_V6, WEB_V6).tcp(1, 22, TcpFlags::SYN)),
        refused("web", DropReason::DefaultDrop)
    );
}

#[test]
fn prefix_lists_and_port_lists_count_as_they_are_now() {
    let mut world = World::new(lab());
    world.change(|desired| {
        desired.prefix_lists.insert("pl-1".into(), DesiredPrefixList::default());
        desired.port_lists.insert("prl-1".into(), DesiredPortList::default());
    });
    world.set_rules("sg-web", &[accept_in("listed", "pl-1").tcp_list("prl-1")]);
    let set = |world: &mut World, prefixes: &[&str], ports: &[u16]| {
        world.change(|desired| {
            let entries = prefixes.iter().map(|text| prefix_of(text)).collect();
            desired.prefix_lists.insert("pl-1".into(), DesiredPrefixList { entries });
            let entries = ports.iter().map(|&port| PortRange { first: port, last: port }).collect();
            desired.port_lists.insert("prl-1".into(), DesiredPortList { entries });
        });
    };
    assert_eq!(world.send("client", &syn(22)), refused("web", DropReason::DefaultDrop));
    set(&mut world, &["10.0.0.20/32"], &[22]);
    assert_eq!(world.send("client", &syn(22)), delivered("web"));
    set(&mut world, &["10.0.0.20/32"], &[23]);
    assert_eq!(world.send("client", &syn(22)), refused("web", DropReason::DefaultDrop));
    assert_eq!(world.send("client", &syn(23)), delivered("web"));
    set(&mut world, &["10.0.1.0/24"], &[23]);
    assert_eq!(world.send("client", &syn(23)), refused("web", DropReason::DefaultDrop));
    set(&mut world, &[], &[23]);
    assert_eq!(
        world.send("far", &Ip::new(FAR, WEB).tcp(1, 23, TcpFlags::SYN)),
        refused("web", DropReason::DefaultDrop)
    );
}

#[test]
fn a_quintuple_rule_is_about_one_local_address() {
    let mut world = World::new(lab());
    world.change_eni("web", |eni| eni.addresses.push(prefix_of("10.0.0.11")));
    world.set_rules("sg-web", &[accept_in("one", "0.0.0.0/0").tcp(22).local("10.0.0.11/32")]);
    assert_eq!(world.send("client", &syn(22)), refused("web", DropReason::DefaultDrop));
    assert_eq!(world.send("client", &Ip::new(CLIENT, "10.0.0.11").tcp(1, 22, TcpFlags::SYN)), delivered("web"));
}

#[test]
fn ipv6_is_judged_by_ipv6_rules() {
    let mut world = World::new(lab());
    let syn = |port| Ip::new(CLIENT_V6, WEB_V6).extension(60, &[1, 4, 0, 0, 0, 0]).tcp(40000, port, TcpFlags::SYN);
    assert_eq!(world.send("client", &syn(80)), delivered("web"));
    assert_eq!(world.send("client", &syn(22)), refused("web", DropReason::DefaultDrop));
    world.set_rules("sg-web", &[accept_in("http", "0.0.0.0/0").tcp(80), accept_in("ping", "::/0").protocol(58)]);
    assert_eq!(world.send("client", &syn(80)), refused("web", DropReason::DefaultDrop));
    assert_eq!(world.send("client", &Ip::new(CLIENT_V6, WEB_V6).ping(4)), delivered("web"));
    assert_eq!(world.send("web", &Ip::new(WEB_V6, CLIENT_V6).pong(4)), delivered("client"));
    assert_eq!(
        world.send("client", &request().raw(58, &[128, 0, 0, 0, 0, 0, 0, 0])),
        refused("web", DropReason::DefaultDrop)
    );
}

/// Two advanced ENIs without rules: nothing passes but what is exempt.
fn closed_world() -> World {
    let mut world = World::new(lab().advanced_group("sg-strict", "vpc-1", &[]));
    for id in ["client", "web", "far"] {
        world.change_eni(id, |eni| eni.groups = ["sg-strict".into()].into());
    }
    world
}

fn stage_of(packet: &vswitch_core::packet::Packet) -> Option<Stage> {
    packet.decision.map(|decision| decision.stage)
}

#[test]
fn the_metadata_service_is_reachable_and_may_answer() {
    const METADATA: &str = "100.100.100.200";
    let mut world = closed_world();
    world.change(|desired| {
        // An ENI that has the address itself is asked in place of the switch.
        *desired = desired.clone().vswitch("vsw-platform", "vpc-1", "100.100.100.0/24", "fd00:100:0:1::/64");
        let far = desired.enis.get_mut(&"far".into()).expect("it is there");
        (far.vswitch, far.addresses) = ("vsw-platform".into(), vec![prefix_of("100.100.100.200/32")]);
        desired.groups.get_mut(&"sg-strict".into()).expect("it is there").rules = vec![
            accept_in("in", "10.0.0.0/8").local("100.100.100.200/32"),
            accept_out("out", "10.0.0.0/8").local("100.100.100.200/32"),
        ];
    });
    let question = Ip::new(CLIENT, METADATA).tcp(50000, 80, TcpFlags::SYN);
    let answer = || Ip::new(METADATA, CLIENT).tcp(80, 50000, TcpFlags::SYN | TcpFlags::ACK);
    assert_eq!(world.send("far", &answer()), refused("client", DropReason::DefaultDrop), "unasked");
    assert_eq!(world.send("client", &question), delivered("far"));
    assert_eq!(world.send("far", &answer()), delivered("client"));
    world.set_rules("sg-strict", &[]);
    assert_eq!(world.inject("client", &answer(), Marker::None).verdict, Verdict::Deliver, "no rule admitted it");
}

#[test]
fn path_mtu_reports_need_no_session_where_all_are_exempt() {
    let mut world = closed_world();
    world.change(|desired| desired.settings.pmtud_exempt = PmtudExempt::Always);
    let about = reply().udp(1, 2);
    let too_big = Ip::new("192.0.2.7", WEB).icmp(3, 4, [0, 0, 5, 0], &about.bytes());
    let packet = world.inject("web", &too_big, Marker::None);
    assert_eq!((packet.verdict, stage_of(&packet)), (Verdict::Deliver, Some(Stage::ExemptPmtud)));
    let too_big = Ip::new("2001:db8::7", WEB_V6).icmp(2, 0, [0, 0, 5, 0], &[0; 48]);
    let packet = world.inject("web", &too_big, Marker::None);
    assert_eq!((packet.verdict, stage_of(&packet)), (Verdict::Deliver, Some(Stage::ExemptPmtud)));
    for (kind, code) in [(3, 3), (3, 13), (11, 0), (5, 0), (8, 4)] {
        let other = Ip::new("192.0.2.7", WEB).icmp(kind, code, [0; 4], &about.bytes());
        assert_eq!(world.inject("web", &other, Marker::None).verdict, Verdict::Drop(DropReason::DefaultDrop));
    }
    // Outbound, a report is no exemption.
    let out = Ip::new(WEB, CLIENT).icmp(3, 4, [0; 4], &request().udp(1, 2).bytes());
    assert_eq!(world.send("web", &out), stopped("web", DropReason::DefaultDrop));
}

/// What the web server gets of a router's report about what it sent.
fn reported(world: &mut World, report: &Ip) -> (Verdict, Option<Stage>) {
    let packet = world.inject("web", report, Marker::None);
    (packet.verdict, stage_of(&packet))
}

#[test]
fn a_path_mtu_report_is_about_a_session_of_its_receiver() {
    let mut world = World::new(lab());
    let closed = (Verdict::Drop(DropReason::DefaultDrop), Some(Stage::Default));
    let passes = (Verdict::Deliver, Some(Stage::Session));
    let sent = [reply().udp(1000, 2000), Ip::new(WEB_V6, CLIENT_V6).udp(1000, 2000)];
    let report = |about: &Ip| match about.source.is_ipv4() {
        true => Ip::new("192.0.2.7", WEB).icmp(3, 4, [0, 0, 5, 0], &about.bytes()),
        false => Ip::new("2001:db8::7", WEB_V6).icmp(2, 0, [0, 0, 5, 0], &about.bytes()),
    };
    for about in &sent {
        assert_eq!(reported(&mut world, &report(about)), closed, "never sent");
        assert_eq!(world.send("web", about), refused("client", DropReason::DefaultDrop));
        assert_eq!(reported(&mut world, &report(about)), passes);
    }
    assert_eq!(reported(&mut world, &report(&reply().udp(1000, 2001))), closed, "another connection");
    // It never crossed this way.
    assert_eq!(reported(&mut world, &report(&Ip::new(CLIENT, WEB).udp(2000, 1000))), {
        (Verdict::Drop(DropReason::DefaultDrop), Some(Stage::Default))
    });
    world.wait_s(31);
    assert_eq!(reported(&mut world, &report(&sent[0])), closed, "the session is over");
}

#[test]
fn errors_about_a_session_are_bounded_in_length_and_number() {
    let mut world = World::new(lab());
    let about = reply().udp(1000, 2000);
    assert_eq!(world.send("web", &about), refused("client", DropReason::DefaultDrop));
    let error = |kind: (u8, u8), padding: usize| {
        let quote = [about.bytes(), vec![7; padding]].concat();
        Ip::new("192.0.2.7", WEB).icmp(kind.0, kind.1, [0, 0, 5, 0], &quote)
    };
    let fits = 576 - 28 - about.bytes().len();
    for kind in [(3, 4), (3, 3), (11, 0), (12, 0)] {
        assert_eq!(reported(&mut world, &error(kind, fits)).0, Verdict::Deliver, "{kind:?}");
        let longer = reported(&mut world, &error(kind, fits + 1));
        assert_eq!(longer.0, Verdict::Drop(DropReason::DefaultDrop), "{kind:?}");
        let in_parts = reported(&mut world, &error(kind, 100).part(7, 0, true));
        assert_eq!(in_parts.0, Verdict::Drop(DropReason::DefaultDrop), "{kind:?}");
    }
    // Redirects and source quench are no errors that a session admits (§4.3).
    for kind in [(5, 0), (5, 1), (4, 0)] {
        assert_eq!(reported(&mut world, &error(kind, 0)).0, Verdict::Drop(DropReason::DefaultDrop), "{kind:?}");
    }
    world.wait_s(1);
    let fates: Vec<Verdict> = (0..1010).map(|_| reported(&mut world, &error((3, 4), 0)).0).collect();
    assert!(fates[..1000].iter().all(|fate| *fate == Verdict::Deliver));
    assert!(fates[1000..].iter().all(|fate| *fate == Verdict::Drop(DropReason::IcmpErrorRate)));
    world.wait_s(1);
    assert_eq!(reported(&mut world, &error((3, 4), 0)).0, Verdict::Deliver);
    let unknown = Ip::new("2001:db8::7", WEB_V6);
    let sent = Ip::new(WEB_V6, CLIENT_V6).udp(1000, 2000);
    assert_eq!(world.send("web", &sent), refused("client", DropReason::DefaultDrop));
    for (kind, passes) in [(1, true), (2, true), (3, true), (4, true), (5, false), (100, false), (127, false)] {
        let fate = reported(&mut world, &unknown.clone().icmp(kind, 0, [0; 4], &sent.bytes())).0;
        assert_eq!(fate == Verdict::Deliver, passes, "{kind}");
    }
}

#[test]
fn what_the_data_path_marks_is_exempt_and_its_replies_pass() {
    for (marker, stage) in [(Marker::LoadBalancer, Stage::ExemptSlb), (Marker::Probe, Stage::ExemptProbe)] {
        let mut world = closed_world();
        let packet = world.inject("web", &syn(80), Marker::None);
        assert_eq!(packet.verdict, Verdict::Drop(DropReason::DefaultDrop));
        let packet = world.inject("web", &syn(80), marker);
        assert_eq!((packet.verdict, stage_of(&packet)), (Verdict::Deliver, Some(stage)));
        let answer = world.frame_from("web", &reply().tcp(80, 40000, TcpFlags::SYN | TcpFlags::ACK));
        assert!(matches!(world.egress("web", &answer).verdict, Verdict::Forward(_)));
        world.set_rules("sg-strict", &[accept_in("other", "10.9.9.9/32")]);
        assert!(matches!(world.egress("web", &answer).verdict, Verdict::Forward(_)), "no rule admitted it");
    }
}

#[test]
fn dhcp_to_the_guest_is_exempt() {
    let mut world = closed_world();
    let offers = [Ip::new("10.0.0.1", WEB).udp(67, 68), Ip::new("fe80::1", WEB_V6).udp(547, 546)];
    for offer in offers {
        let packet = world.inject("web", &offer, Marker::None);
        assert_eq!((packet.verdict, stage_of(&packet)), (Verdict::Deliver, Some(Stage::ExemptDhcp)));
    }
    let reversed = world.inject("web", &Ip::new("10.0.0.1", WEB).udp(68, 67), Marker::None);
    assert_eq!(reversed.verdict, Verdict::Drop(DropReason::DefaultDrop));
}

#[test]
fn arp_and_neighbor_discovery_pass_a_closed_group() {
    let mut world = closed_world();
    let mac = world.mac("client");
    let question = harness::frame::arp(true, (mac, CLIENT.parse().expect("v4")), (mac, WEB.parse().expect("v4")));
    let packet = world.egress("client", &question);
    assert_eq!((packet.verdict, stage_of(&packet)), (Verdict::Answer, Some(Stage::ExemptArp)));
    let question = Ip::new(CLIENT_V6, "ff02::1:ff00:10").solicit(WEB_V6.parse().expect("v6"), mac);
    let frame = world.frame_from("client", &question);
    let packet = world.egress("client", &frame);
    assert_eq!((packet.verdict, stage_of(&packet)), (Verdict::Answer, Some(Stage::ExemptNd)));
}

#[test]
fn mail_to_the_internet_is_closed_on_request() {
    let mut world = World::new(lab());
    world.change(|desired| {
        let vpc = desired.vpcs.get_mut(&"vpc-1".into()).expect("it is there");
        vpc.routes.insert(prefix_of("0.0.0.0/0"), "far".into());
        desired.enis.get_mut(&"far".into()).expect("it is there").source_dest_check = false;
    });
    world.set_rules("sg-client", &[accept_in("all", "0.0.0.0/0")]);
    let mail = |to: &str| Ip::new(CLIENT, to).tcp(40000, 25, TcpFlags::SYN);
    assert_eq!(world.send("client", &mail("203.0.113.5")), delivered("far"));
    world.change(|desired| desired.settings.smtp_closed = true);
    assert_eq!(world.send("client", &mail("203.0.113.5")), stopped("client", DropReason::SmtpClosed));
    assert_eq!(world.send("client", &mail("203.0.113.5").part(1, 0, true)), stopped("client", DropReason::SmtpClosed));
    assert_eq!(world.send("client", &mail(FAR)), delivered("far"));
    assert_eq!(world.send("client", &mail("192.168.7.7")), delivered("far"));
    assert_eq!(world.send("client", &Ip::new(CLIENT, "203.0.113.5").udp(40000, 25)), delivered("far"));
}

#[test]
fn an_address_inside_the_prefix_of_another_eni_is_refused() {
    // Whose member would it be? The prefix's group would lend its trust to the single address, or the reverse.
    let mut desired = lab();
    desired.enis.get_mut(&"client".into()).expect("it is there").addresses.push(prefix_of("10.0.0.8/29"));
    let refusals = vswitch_core::compile::compile(&desired, 1).expect_err("web lies inside");
    assert!(
        refusals.iter().any(|refusal| refusal.object == "enis/web/addresses" && refusal.code == "conflict"),
        "{refusals:?}"
    );
    desired.enis.get_mut(&"client".into()).expect("it is there").addresses =
        vec![prefix_of(CLIENT), prefix_of("10.0.0.16/28")];
    assert!(vswitch_core::compile::compile(&desired, 1).is_ok(), "inside its own prefix");
}

#[test]
fn explain_tells_of_dhcp_what_forwarding_does() {
    let world = World::new(lab());
    let packet = vswitch_core::config::protocol::PacketDescription {
        from: None,
        to: None,
        protocol: 17,
        source: CLIENT.parse().expect("an address"),
        destination: WEB.parse().expect("an address"),
        source_port: 68,
        destination_port: 67,
    };
    let explained =
        world.shards[0].explain(&world.snapshot, (world.index("client"), Direction::Egress), &packet, world.now);
    assert_eq!(explained.expect("a good description").1, Verdict::Serve(ServedBy::Thread));
}

#[test]
fn what_is_remembered_of_a_service_goes_with_the_rules() {
    let mut world = World::new(lab());
    let syn = |source, destination| request().tcp(source, destination, TcpFlags::SYN);
    for turn in 0..3 {
        let open: &[DesiredRule] = if turn == 1 { &[] } else { &[accept_in("http", "0.0.0.0/0").tcp(80)] };
        world.set_rules("sg-web", open);
        for source in 5000..5003 {
            let source = source + 10 * turn;
            let fate = if turn == 1 { refused("web", DropReason::DefaultDrop) } else { delivered("web") };
            assert_eq!(world.send("client", &syn(source, 80)), fate, "turn {turn}");
            // One that is remembered in the same place, and another protocol.
            assert_eq!(world.send("client", &syn(source, 84)), refused("web", DropReason::DefaultDrop));
            assert_eq!(world.send("client", &request().udp(source, 80)), refused("web", DropReason::DefaultDrop));
        }
    }
}

#[test]
fn nothing_is_remembered_of_a_service_where_source_ports_count() {
    let mut world = World::new(lab());
    let from = PortRange { first: 6000, last: 6001 };
    let mut http = accept_in("http", "0.0.0.0/0").tcp(80);
    http.conditions.source_ports = Some(from);
    world.set_rules("sg-web", &[http]);
    for source in [6000, 6002, 6001, 5999] {
        let is_admitted = (from.first..=from.last).contains(&source);
        let fate = if is_admitted { delivered("web") } else { refused("web", DropReason::DefaultDrop) };
        assert_eq!(world.send("client", &request().tcp(source, 80, TcpFlags::SYN)), fate, "from {source}");
    }
}
