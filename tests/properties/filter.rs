//! The compiled filter against its slow twin, from scratch and over chains of changes.

use super::cases;
use harness::world::{Build, SECRET, prefix_of};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use std::collections::BTreeSet;
use std::net::IpAddr;
use vswitch_core::acl::reference::{self, ReferenceDecision};
use vswitch_core::compile::snapshot::Snapshot;
use vswitch_core::compile::{Compiler, compile};
use vswitch_core::config::desired::{
    Desired, DesiredPortList, DesiredPrefixList, DesiredRule, Direction, MatchConditions, Policy, PortRange, Ports,
    Protocol, Remote,
};
use vswitch_core::config::ids::{EniId, GroupId};
use vswitch_core::config::protocol::PacketDescription;
use vswitch_core::datapath::shard::Shard;
use vswitch_core::hw::time::Time;
use vswitch_core::packet::headers::{Addresses, Tuple};

const BASIC: [&str; 4] = ["sg-a", "sg-b", "sg-c", "sg-d"];
const ADVANCED: [&str; 2] = ["sg-x", "sg-y"];
const ENIS: [&str; 5] = ["eni-1", "eni-2", "eni-3", "eni-4", "eni-5"];
const PREFIXES_V4: [&str; 7] =
    ["0.0.0.0/0", "10.0.0.0/8", "10.0.0.77/24", "10.0.0.1/32", "10.0.0.2/31", "10.0.9.0/28", "192.0.2.0/24"];
const PREFIXES_V6: [&str; 5] = ["::/0", "fd00::/8", "fd00::1/128", "fd00::2/127", "2001:db8::/32"];
const REMOTES_V4: [&str; 8] =
    ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.9.7", "10.0.0.99", "192.0.2.1", "198.51.100.1"];
const REMOTES_V6: [&str; 5] = ["fd00::1", "fd00::2", "fd00::3", "fd00::99", "2001:db8::1"];
const PORTS: [u16; 8] = [0, 1, 22, 79, 80, 81, 1024, 65535];

fn ranges() -> impl Strategy<Value = PortRange> {
    (select(&PORTS[1..]), select(&PORTS[1..]))
        .prop_map(|(one, other)| PortRange { first: one.min(other), last: one.max(other) })
}

fn services() -> impl Strategy<Value = (Protocol, Ports, Option<PortRange>)> {
    let with_ports = select(vec![Protocol::TCP, Protocol::UDP]);
    let ports = prop_oneof![
        3 => ranges().prop_map(Ports::Range),
        1 => select(vec!["prl-1", "prl-2"]).prop_map(|list| Ports::List(list.into())),
    ];
    let plain = [
        Protocol::All,
        Protocol::ICMP,
        Protocol::ICMPV6,
        Protocol::GRE,
        Protocol::Number(0),
        Protocol::Number(132),
        Protocol::Number(255),
    ];
    prop_oneof![
        3 => (with_ports, ports, proptest::option::weighted(0.3, ranges())),
        2 => select(plain.to_vec()).prop_map(|protocol| (protocol, Ports::Any, None)),
    ]
}

/// Rules that need not be valid; those that are not are left out with [`repaired`].
fn rules(number: usize) -> impl Strategy<Value = DesiredRule> {
    let prefixes = || select(PREFIXES_V4.iter().chain(&PREFIXES_V6).copied().collect::<Vec<_>>());
    let remote = prop_oneof![
        3 => prefixes().prop_map(|text| Remote::Prefix(prefix_of(text))),
        1 => select(vec!["pl-4", "pl-6"]).prop_map(|list| Remote::PrefixList(list.into())),
        2 => select(BASIC.to_vec()).prop_map(|group| Remote::Group(group.into())),
    ];
    let local = proptest::option::weighted(0.2, prefixes().prop_map(prefix_of));
    (any::<bool>(), any::<bool>(), 1u8..4, services(), remote, local).prop_map(
        move |(inbound, accept, priority, (protocol, ports, source_ports), remote, local)| DesiredRule {
            id: format!("r-{number}").as_str().into(),
            direction: if inbound { Direction::Ingress } else { Direction::Egress },
            policy: if accept { Policy::Accept } else { Policy::Drop },
            priority,
            conditions: MatchConditions { protocol, ports, source_ports, remote, local },
        },
    )
}

fn rule_lists() -> impl Strategy<Value = Vec<DesiredRule>> {
    let numbered: Vec<_> = (0..6).map(rules).collect();
    (numbered, 0usize..=6).prop_map(|(mut rules, count)| {
        rules.truncate(count);
        rules
    })
}

#[derive(Clone, Debug)]
enum RuleSetChange {
    Rules(&'static str, Vec<DesiredRule>),
    InnerAccess(&'static str, bool),
    Groups(&'static str, Vec<&'static str>),
    PrefixLists(Vec<&'static str>, Vec<&'static str>),
    PortList(&'static str, Vec<PortRange>),
    Bypass(bool),
    Exists(&'static str, bool),
    Address(&'static str, bool),
}

fn memberships() -> impl Strategy<Value = Vec<&'static str>> {
    prop_oneof![3 => subsequence(BASIC.to_vec(), 1..4), 1 => subsequence(ADVANCED.to_vec(), 1..=2)]
}

fn changes() -> impl Strategy<Value = RuleSetChange> {
    let group = || select([BASIC.as_slice(), &ADVANCED].concat());
    prop_oneof![
        4 => (group(), rule_lists()).prop_map(|(group, rules)| RuleSetChange::Rules(group, rules)),
        1 => (select(BASIC.to_vec()), any::<bool>()).prop_map(|(group, open)| RuleSetChange::InnerAccess(group, open)),
        3 => (select(ENIS.to_vec()), memberships()).prop_map(|(eni, groups)| RuleSetChange::Groups(eni, groups)),
        1 => (subsequence(PREFIXES_V4[1..].to_vec(), 0..3), subsequence(PREFIXES_V6[1..].to_vec(), 0..3))
            .prop_map(|(v4, v6)| RuleSetChange::PrefixLists(v4, v6)),
        1 => (select(vec!["prl-1", "prl-2"]), proptest::collection::vec(ranges(), 0..3))
            .prop_map(|(list, ranges)| RuleSetChange::PortList(list, ranges)),
        1 => any::<bool>().prop_map(RuleSetChange::Bypass),
        1 => (select(ENIS.to_vec()), any::<bool>()).prop_map(|(eni, exists)| RuleSetChange::Exists(eni, exists)),
        1 => (select(ENIS.to_vec()), any::<bool>()).prop_map(|(eni, present)| RuleSetChange::Address(eni, present)),
    ]
}

fn first_state() -> Desired {
    let mut desired = Desired::default()
        .vpc("vpc-1")
        .vswitch("vsw-1", "vpc-1", "10.0.0.0/16", "fd00::/64")
        .open_group("sg-a", "vpc-1", &[])
        .closed_group("sg-b", "vpc-1", &[])
        .open_group("sg-c", "vpc-1", &[])
        .closed_group("sg-d", "vpc-1", &[])
        .advanced_group("sg-x", "vpc-1", &[])
        .advanced_group("sg-y", "vpc-1", &[])
        .closed_group("sg-outside", "vpc-1", &[])
        .eni("eni-outside", "vsw-1", &["10.0.255.254"], &["sg-outside"]);
    // Any ports are probed: what they tell of who opened a connection is no rule's doing.
    desired.settings.pick_up_by_ports = false;
    // A subnet without blocks: whatever no ENI has is outside.
    let vswitch = desired.vswitches.values_mut().next().expect("one subnet");
    (vswitch.ipv4, vswitch.ipv4_gateway, vswitch.ipv6, vswitch.ipv6_gateway) = (None, None, None, None);
    let vpc = desired.vpcs.values_mut().next().expect("one VPC");
    vpc.routes = ["0.0.0.0/0", "::/0"].map(|prefix| (prefix_of(prefix), EniId::from("eni-outside"))).into();
    for list in ["pl-4", "pl-6"] {
        desired.prefix_lists.insert(list.into(), DesiredPrefixList::default());
    }
    for list in ["prl-1", "prl-2"] {
        desired.port_lists.insert(list.into(), DesiredPortList::default());
    }
    ENIS.iter().fold(desired, |desired, id| with_eni(desired, id))
}

fn with_eni(desired: Desired, id: &str) -> Desired {
    let number = &id[4..];
    let mut addresses = vec![format!("10.0.0.{number}"), format!("fd00::{number}")];
    if number == "2" {
        addresses.push("10.0.9.0/28".into()); // A delegated prefix.
    }
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let mut desired = desired.eni(id, "vsw-1", &addresses, &["sg-a"]);
    desired.enis.get_mut(&EniId::from(id)).expect("just added").source_dest_check = false;
    desired
}

impl RuleSetChange {
    fn perform(self, desired: &mut Desired) {
        match self {
            Self::Rules(group, rules) => {
                let rules = rules.into_iter().filter(is_valid).collect();
                desired.groups.get_mut(&GroupId::from(group)).expect("known").rules = rules;
            }
            Self::InnerAccess(group, open) => {
                desired.groups.get_mut(&GroupId::from(group)).expect("known").inner_access =
                    if open { Policy::Accept } else { Policy::Drop };
            }
            Self::Groups(eni, groups) => {
                if let Some(eni) = desired.enis.get_mut(&EniId::from(eni)) {
                    eni.groups = groups.into_iter().map(GroupId::from).collect();
                }
            }
            Self::PrefixLists(v4, v6) => {
                for (list, entries) in [("pl-4", v4), ("pl-6", v6)] {
                    let entries: BTreeSet<_> = entries.into_iter().map(prefix_of).collect();
                    desired.prefix_lists.insert(list.into(), DesiredPrefixList { entries });
                }
            }
            Self::PortList(list, ranges) => {
                desired.port_lists.insert(list.into(), DesiredPortList { entries: ranges.into_iter().collect() });
            }
            Self::Bypass(on) => desired.settings.intra_group_egress_bypass = on,
            Self::Exists(eni, false) => drop(desired.enis.remove(&EniId::from(eni))),
            Self::Exists(eni, true) if !desired.enis.contains_key(&EniId::from(eni)) => {
                *desired = with_eni(std::mem::take(desired), eni);
            }
            Self::Exists(..) => {}
            Self::Address(eni, present) => {
                let secondary = prefix_of(&format!("10.0.0.9{}", &eni[4..]));
                if let Some(eni) = desired.enis.get_mut(&EniId::from(eni)) {
                    eni.addresses.retain(|address| *address != secondary);
                    eni.addresses.extend(present.then_some(secondary));
                }
            }
        }
    }
}

/// Families fit together.
fn is_valid(rule: &DesiredRule) -> bool {
    let remote = match &rule.conditions.remote {
        Remote::Prefix(prefix) => Some(prefix.addr().is_ipv6()),
        Remote::PrefixList(list) => Some(list.as_str() == "pl-6"),
        Remote::Group(_) => None,
    };
    let protocol = match rule.conditions.protocol {
        Protocol::ICMP => Some(false),
        Protocol::ICMPV6 => Some(true),
        _ => None,
    };
    let families: BTreeSet<bool> =
        [remote, protocol, rule.conditions.local.map(|local| local.addr().is_ipv6())].into_iter().flatten().collect();
    families.len() < 2
}

/// A packet at some ENI: whether inbound, IPv6, which remote address, protocol and ports.
type ProbePacket = (bool, bool, usize, u8, u16, u16);

fn probes() -> impl Strategy<Value = Vec<ProbePacket>> {
    let protocols = select(vec![6u8, 6, 6, 17, 17, 1, 58, 47, 0, 132, 255, 50]);
    let probe = (any::<bool>(), any::<bool>(), 0usize..8, protocols, select(PORTS.to_vec()), select(PORTS.to_vec()));
    proptest::collection::vec(probe, 24)
}

fn tuple_of(desired: &Desired, eni: &EniId, probe: &ProbePacket) -> (Direction, PacketDescription, Tuple) {
    let &(inbound, is_v6, remote, protocol, source_port, destination_port) = probe;
    let remotes: &[&str] = if is_v6 { &REMOTES_V6 } else { &REMOTES_V4 };
    let remote: IpAddr = remotes[remote % remotes.len()].parse().expect("an address");
    let own = desired.enis[eni].addresses.iter().map(|prefix| prefix.addr());
    let local = own.into_iter().find(|address| address.is_ipv6() == is_v6).expect("both families");
    let (source, destination) = if inbound { (remote, local) } else { (local, remote) };
    let has_ports = matches!(protocol, 6 | 17);
    let (source_port, destination_port) = if has_ports { (source_port, destination_port) } else { (0, 0) };
    let packet =
        PacketDescription { from: None, to: None, protocol, source, destination, source_port, destination_port };
    let addresses = Addresses::new(source, destination).expect("one family");
    let direction = if inbound { Direction::Ingress } else { Direction::Egress };
    (direction, packet, Tuple::of_connection(addresses, protocol, [source_port, destination_port]))
}

/// The compiled filter decides as the twin does, for every ENI and probe. Returns the twin's decisions.
fn compare(desired: &Desired, snapshot: &Snapshot, probes: &[ProbePacket]) -> Vec<(EniId, Vec<ReferenceDecision>)> {
    let shard = Shard::new(1, SECRET);
    let mut all = Vec::new();
    for (index, id) in snapshot.enis() {
        let mut decisions = Vec::new();
        for probe in probes.iter().filter(|_| id.as_str() != "eni-outside") {
            let (direction, packet, tuple) = tuple_of(desired, id, probe);
            let expected = reference::decide(desired, id, direction, &tuple);
            let explained = shard.explain(snapshot, (index, direction), &packet, Time::default());
            let (report, verdict) = explained.expect("a good description");
            let far = if direction == Direction::Ingress { packet.source } else { packet.destination };
            let is_own = desired.enis[id].addresses.iter().any(|prefix| prefix.contains(&far));
            let Some(report) = report.filter(|_| !is_own) else {
                assert!(is_own, "{id} {packet:?}: no decision but {verdict:?}");
                continue;
            };
            let found = (report.policy, report.stage.as_str());
            assert_eq!(found, (expected.policy, expected.stage.name()), "{id} {direction} {packet:?}: {report:?}");
            assert_eq!(report.rule.is_some(), !expected.rules.is_empty(), "{id} {direction} {packet:?}");
            assert!(report.rule.iter().all(|rule| expected.rules.contains(rule)), "{id} {packet:?}: {report:?}");
            decisions.push(expected);
        }
        all.push((id.clone(), decisions));
    }
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    all
}

fn policies(decisions: &[ReferenceDecision]) -> Vec<Policy> {
    decisions.iter().map(|decision| decision.policy).collect()
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn compiled_rules_decide_as_their_twin_also_after_changes(
        first in proptest::collection::vec(changes(), 8),
        later in proptest::collection::vec(proptest::collection::vec(changes(), 1..3), 5),
        probes in probes(),
    ) {
        let mut desired = first_state();
        first.into_iter().for_each(|change| change.perform(&mut desired));
        let mut compiler = Compiler::new(SECRET);
        let mut snapshot = compiler.replace(&desired, 1).expect("a valid state");
        let mut before = compare(&desired, &snapshot, &probes);
        for changes in later {
            changes.into_iter().for_each(|change| change.perform(&mut desired));
            let next = compiler.replace(&desired, snapshot.generation() + 1).expect("a valid state");
            let after = compare(&desired, &next, &probes);
            let scratch = compile(&desired, 1).expect("a valid state");
            prop_assert_eq!(&compare(&desired, &scratch, &probes), &after);
            for (id, decisions) in &after {
                let Some((_, old)) = before.iter().find(|(old, _)| old == id) else { continue };
                let revisions = [&snapshot, &next].map(|snapshot| snapshot.revision(snapshot.eni_index(id)?));
                if policies(old) != policies(decisions) {
                    prop_assert_ne!(revisions[0], revisions[1], "{} decides otherwise under one revision", id);
                }
            }
            (snapshot, before) = (next, after);
        }
    }
}

#[test]
fn a_peer_in_many_sets_is_judged_by_all_of_them() {
    // More than the filter unites at a time: the peer is in 33 nested prefixes.
    let lengths = (0..=32).map(|length| format!("10.0.0.9/{length}"));
    let drops = lengths.enumerate().map(|(number, prefix)| {
        let mut rule = harness::world::accept_in(&format!("r-{number}"), &prefix);
        rule.priority = 100 - number as u8;
        rule.policy = if number == 32 { Policy::Accept } else { Policy::Drop };
        rule
    });
    let drops: Vec<DesiredRule> = drops.collect();
    let desired = Desired::default()
        .vpc("vpc-1")
        .vswitch("vsw-1", "vpc-1", "10.0.0.0/16", "fd00::/64")
        .closed_group("sg-1", "vpc-1", &drops)
        .closed_group("sg-2", "vpc-1", &[])
        .eni("eni-1", "vsw-1", &["10.0.0.2"], &["sg-1"])
        .eni("eni-2", "vsw-1", &["10.0.0.9"], &["sg-2"]);
    let mut world = harness::world::World::new(desired);
    let packet = harness::frame::Ip::new("10.0.0.9", "10.0.0.2").udp(1, 2);
    assert_eq!(world.send("eni-2", &packet), harness::world::Fate::Delivered("eni-1".into()));
}

#[test]
fn a_change_gives_a_new_revision_to_those_alone_whom_it_can_concern() {
    let accept = |object: &str| harness::world::accept_in("r-1", object);
    let mut desired = Desired::default()
        .vpc("vpc-1")
        .vswitch("vsw-1", "vpc-1", "10.0.0.0/16", "fd00::/64")
        .closed_group("sg-named", "vpc-1", &[])
        .closed_group("sg-naming", "vpc-1", &[accept("sg-named")])
        .closed_group("sg-other", "vpc-1", &[accept("10.9.0.0/16")])
        .eni("eni-1", "vsw-1", &["10.0.0.2"], &["sg-naming"])
        .eni("eni-2", "vsw-1", &["10.0.0.3"], &["sg-naming"])
        .eni("eni-3", "vsw-1", &["10.0.0.4"], &["sg-other"])
        .eni("eni-4", "vsw-1", &["10.0.0.5"], &["sg-named"])
        .eni("eni-5", "vsw-1", &["10.0.0.6"], &["sg-other"]);
    let mut compiler = Compiler::new(SECRET);
    let mut generation = 1;
    compiler.replace(&desired, generation).expect("a valid state");
    let mut concerned = |desired: &Desired| -> Vec<String> {
        let old = compiler.snapshot().clone();
        generation += 1;
        let new = compiler.replace(desired, generation).expect("a valid state");
        let differs = |&(index, _): &(_, &EniId)| old.revision(index) != new.revision(index);
        new.enis().filter(differs).map(|(_, id)| id.to_string()).collect()
    };
    assert!(concerned(&desired).is_empty(), "nothing changed");
    desired.enis.get_mut(&EniId::from("eni-5")).expect("it is there").groups.insert("sg-named".into());
    assert_eq!(concerned(&desired), ["eni-1", "eni-2", "eni-5"], "one joins a group that rules name");
    desired.enis.get_mut(&EniId::from("eni-3")).expect("it is there").addresses.push(prefix_of("10.0.0.40"));
    assert_eq!(concerned(&desired), ["eni-3"], "another address of whom no rule names");
    desired.enis.get_mut(&EniId::from("eni-4")).expect("it is there").addresses.push(prefix_of("10.0.0.50"));
    assert_eq!(concerned(&desired), ["eni-1", "eni-2", "eni-4"], "another address of a member");
    desired.enis.get_mut(&EniId::from("eni-4")).expect("it is there").sessions_max = 7;
    assert!(concerned(&desired).is_empty(), "a limit is no rule");
    desired.groups.get_mut(&GroupId::from("sg-other")).expect("it is there").rules.push(accept("10.8.0.0/16"));
    desired.groups.get_mut(&GroupId::from("sg-other")).expect("it is there").rules[1].id = "r-2".into();
    assert_eq!(concerned(&desired), ["eni-3", "eni-5"], "another rule");
    let passed = desired.enis.get_mut(&EniId::from("eni-4")).expect("it is there").addresses.pop().expect("two");
    desired.enis.get_mut(&EniId::from("eni-5")).expect("it is there").addresses.push(passed);
    assert_eq!(concerned(&desired), ["eni-4", "eni-5"], "an address passes between members: the group stays the same");
    desired.settings.cut_sessions_on_deny = false;
    assert_eq!(concerned(&desired).len(), 5, "all are evaluated otherwise");
}
