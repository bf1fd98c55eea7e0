//! Filters of many rules over many overlapping sets, with every kind of row, held against their slow twin.

use super::cases;
use harness::random::Random;
use harness::world::{Build, SECRET};
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vswitch_core::acl::RowLimits;
use vswitch_core::acl::reference;
use vswitch_core::compile::Compiler;
use vswitch_core::config::desired::{
    Desired, DesiredPortList, DesiredPrefixList, DesiredRule, Direction, MatchConditions, Policy, PortRange, Ports,
    Protocol, Remote,
};
use vswitch_core::config::ids::EniId;
use vswitch_core::config::protocol::Delta;
use vswitch_core::ipnet::IpNet;
use vswitch_core::packet::headers::{Addresses, Tuple};
use vswitch_core::packet::verdict::{Decision, Stage};

const PEERS: usize = 60;
const GROUPS: usize = 12;
const LISTS: usize = 6;
const SUBJECT: &str = "eni-subject";

/// An address near the peers, so that what is drawn overlaps.
fn address(random: &mut Random, is_v6: bool) -> IpAddr {
    let low = random.below(64) as u32;
    let high = random.below(4) as u32;
    if is_v6 {
        Ipv6Addr::from_bits(0xfd00_u128 << 112 | u128::from(high) << 60 | u128::from(low)).into()
    } else {
        Ipv4Addr::from_bits(0x0a00_0000 | high << 20 | low).into()
    }
}

fn prefix(random: &mut Random, is_v6: bool) -> IpNet {
    let length = match random.below(4) {
        0 => random.below(if is_v6 { 129 } else { 33 }),
        1 => {
            if is_v6 {
                128
            } else {
                32
            }
        }
        _ => (if is_v6 { 120 } else { 24 }) + random.below(9),
    };
    IpNet::new(address(random, is_v6), length as u8).expect("a length of the family")
}

fn range(random: &mut Random) -> PortRange {
    let first = random.pick(&[1u16, 22, 80, 255, 256, 443, 1000, 5000, 65_535]);
    let last = if random.chance(50) { first } else { first.saturating_add(random.below(600) as u16) };
    PortRange { first, last }
}

fn rule(random: &mut Random, number: usize) -> DesiredRule {
    let is_v6 = random.chance(50);
    let protocol = random.pick(&[
        Protocol::TCP,
        Protocol::TCP,
        Protocol::UDP,
        Protocol::All,
        if is_v6 { Protocol::ICMPV6 } else { Protocol::ICMP },
        Protocol::Number(255),
    ]);
    let ports = match (protocol.has_ports(), random.below(4)) {
        (false, _) => Ports::Any,
        (true, 0) => Ports::List(format!("prl-{}", random.below(LISTS)).into()),
        (true, _) => Ports::Range(range(random)),
    };
    DesiredRule {
        id: format!("r-{number:05}").into(),
        direction: random.pick(&[Direction::Ingress, Direction::Egress]),
        policy: random.pick(&[Policy::Accept, Policy::Drop]),
        priority: 1 + random.below(100) as u8,
        conditions: MatchConditions {
            protocol,
            ports,
            source_ports: (protocol.has_ports() && random.chance(10)).then(|| range(random)),
            remote: match random.below(10) {
                0..3 => Remote::Group(format!("sg-{}", random.below(GROUPS)).into()),
                3..5 => Remote::PrefixList(format!("pl-{}-{}", u8::from(is_v6), random.below(LISTS)).into()),
                _ => Remote::Prefix(prefix(random, is_v6)),
            },
            local: random.chance(5).then(|| prefix(random, is_v6)),
        },
    }
}

fn state(random: &mut Random, rules: usize) -> Desired {
    let mut desired = Desired::default().vpc("vpc-1").vswitch("vsw-1", "vpc-1", "10.0.0.0/8", "fd00::/16");
    let vswitch = desired.vswitches.values_mut().next().expect("one subnet");
    (vswitch.ipv4_gateway, vswitch.ipv6_gateway) = (None, None);
    for list in 0..LISTS {
        for is_v6 in [false, true] {
            let entries = (0..random.below(20)).map(|_| prefix(random, is_v6)).collect();
            desired.prefix_lists.insert(format!("pl-{}-{list}", u8::from(is_v6)).into(), DesiredPrefixList { entries });
        }
        let entries = (0..random.below(5)).map(|_| range(random)).collect();
        desired.port_lists.insert(format!("prl-{list}").into(), DesiredPortList { entries });
    }
    for group in 0..GROUPS {
        let (id, is_open) = (format!("sg-{group}"), random.chance(10));
        desired = if is_open { desired.open_group(&id, "vpc-1", &[]) } else { desired.closed_group(&id, "vpc-1", &[]) };
    }
    let rules: Vec<DesiredRule> = (0..rules).map(|number| rule(random, number)).collect();
    desired = desired.closed_group("sg-subject", "vpc-1", &rules);
    let mut taken = BTreeSet::new();
    desired = with_eni(desired, random, SUBJECT, &mut taken);
    for number in 0..PEERS {
        desired = with_eni(desired, random, &format!("eni-{number}"), &mut taken);
    }
    let own = random.chance(30).then(|| "sg-0".into());
    let subject = desired.enis.get_mut(&EniId::from(SUBJECT)).expect("just added");
    subject.groups = own.into_iter().chain(["sg-subject".into()]).collect();
    desired
}

fn with_eni(desired: Desired, random: &mut Random, id: &str, taken: &mut BTreeSet<IpAddr>) -> Desired {
    let mut free = |is_v6| loop {
        let address = address(random, is_v6);
        if taken.insert(address) {
            return address.to_string();
        }
    };
    let addresses = [false, true].map(&mut free);
    let groups: BTreeSet<String> = (0..1 + random.below(4)).map(|_| format!("sg-{}", random.below(GROUPS))).collect();
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    desired.eni(id, "vsw-1", &addresses.each_ref().map(String::as_str), &groups)
}

/// A change of one kind, as a delta.
fn change(random: &mut Random, desired: &Desired) -> Delta {
    let mut delta = Delta::default();
    match random.below(5) {
        0 => {
            let rules = &desired.groups[&"sg-subject".into()].rules;
            let mut changed = rules[random.below(rules.len())].clone();
            let (id, is_gone) = (changed.id.clone(), random.chance(30));
            if random.chance(50) {
                changed = DesiredRule { id: id.clone(), ..rule(random, 0) };
            } else if changed.conditions.protocol.has_ports() {
                changed.conditions.ports = Ports::Range(range(random));
            }
            delta.rules.insert("sg-subject".into(), [(id, (!is_gone).then_some(changed))].into());
        }
        1 => {
            let number = 90_000 + random.below(100);
            let new = rule(random, number);
            delta.rules.insert("sg-subject".into(), [(new.id.clone(), Some(new))].into());
        }
        2 => {
            let is_v6 = random.chance(50);
            let entries = (0..random.below(20)).map(|_| prefix(random, is_v6)).collect();
            let id = format!("pl-{}-{}", u8::from(is_v6), random.below(LISTS));
            delta.prefix_lists.insert(id.into(), Some(DesiredPrefixList { entries }));
        }
        3 => {
            let entries = (0..random.below(5)).map(|_| range(random)).collect();
            delta.port_lists.insert(format!("prl-{}", random.below(LISTS)).into(), Some(DesiredPortList { entries }));
        }
        _ => {
            let id = EniId::from(format!("eni-{}", random.below(PEERS)));
            let mut eni = desired.enis[&id].clone();
            eni.groups = (0..1 + random.below(4)).map(|_| format!("sg-{}", random.below(GROUPS)).into()).collect();
            delta.enis.insert(id, Some(eni));
        }
    }
    delta
}

fn probe(random: &mut Random, desired: &Desired, direction: Direction) -> Tuple {
    let is_v6 = random.chance(50);
    let peer = address(random, is_v6);
    let own = desired.enis[&EniId::from(SUBJECT)].addresses.iter().map(|prefix| prefix.addr());
    let own = own.into_iter().find(|address| address.is_ipv6() == is_v6).expect("both families");
    let (source, destination) = if direction == Direction::Ingress { (peer, own) } else { (own, peer) };
    let protocol = random.pick(&[6u8, 6, 17, 1, 58, 255, 47]);
    let mut port =
        || if matches!(protocol, 6 | 17) { random.pick(&[22, 80, 255, 256, 300, 443, 512, 5100]) } else { 0 };
    let (source_port, destination_port) = (port(), port());
    let addresses = Addresses::new(source, destination).expect("one family");
    Tuple::of_connection(addresses, protocol, [source_port, destination_port])
}

fn compare(random: &mut Random, compiler: &Compiler, label: &str) {
    let (snapshot, desired, id) = (compiler.snapshot(), compiler.desired(), EniId::from(SUBJECT));
    let eni = compiler.eni_index(&id).expect("it is there");
    for direction in [Direction::Ingress, Direction::Egress] {
        let tuples: Vec<Tuple> = (0..50).map(|_| probe(random, desired, direction)).collect();
        for tuple in &tuples {
            let [decision, of_slow_path] = snapshot.decide_by_rules((eni, direction), tuple).expect("it is there");
            assert_eq!(decision, of_slow_path, "{label} {direction} {tuple:?}");
            let expected = reference::decide(desired, &id, direction, tuple);
            let Decision { policy, stage, ground } = decision;
            assert_eq!((policy, stage), (expected.policy, expected.stage), "{label} {direction} {tuple:?}");
            if stage == Stage::Rule {
                let rule = snapshot.rule_of(eni, direction, ground).expect("it has a name");
                assert!(expected.rules.contains(rule), "{label} {direction} {tuple:?}: {rule} of {:?}", expected.rules);
            }
        }
    }
}

/// Room for every row, for some, for no row by class, for no exact row by port, and for none at all.
const LIMITS: [Option<RowLimits>; 5] = [
    None,
    Some(RowLimits { classes_bytes_max: 1500, services_bytes_max: 1 << 20 }),
    Some(RowLimits { classes_bytes_max: 0, services_bytes_max: 1 << 20 }),
    Some(RowLimits { classes_bytes_max: 1 << 20, services_bytes_max: 600 }),
    Some(RowLimits { classes_bytes_max: 0, services_bytes_max: 0 }),
];

proptest! {
    #![proptest_config(cases(10))]

    #[test]
    fn every_kind_of_row_decides_as_the_twin(seed in any::<u64>(), size in 0usize..4) {
        let random = &mut Random::new(seed);
        let desired = state(random, [3, 70, 300, 600][size]);
        let mut compilers = LIMITS.map(|limits| {
            let compiler = Compiler::new(SECRET);
            limits.map_or_else(|| Compiler::new(SECRET), |limits| compiler.with_limits(limits))
        });
        for (compiler, limits) in compilers.iter_mut().zip(LIMITS) {
            compiler.replace(&desired, 1).expect("a valid state");
            compare(random, compiler, &format!("{limits:?}"));
        }
        for generation in 2..5 {
            let delta = change(random, compilers[0].desired());
            let mut scratch = Compiler::new(SECRET);
            for (compiler, limits) in compilers.iter_mut().zip(LIMITS) {
                if compiler.apply(delta.clone(), generation).is_ok() {
                    compare(random, compiler, &format!("{limits:?} after {delta:?}"));
                }
            }
            scratch.replace(compilers[0].desired(), 1).expect("a valid state");
            compare(random, &scratch, "from scratch");
        }
    }
}

/// A few rules come, go and become others, mostly ones that did so before, anywhere in the order.
fn few_rules(random: &mut Random, desired: &Desired) -> Delta {
    let group = &desired.groups[&"sg-subject".into()];
    let changes = (0..1 + random.below(3)).map(|_| {
        let found = (!group.rules.is_empty()).then(|| &group.rules[random.below(group.rules.len().max(1))]);
        let number = 90_000 + random.below(40);
        let new = rule(random, number);
        // All with the same priority as many others, first of all, last of all, or between.
        let priority = random.pick(&[1, 1, 50, 50, 100, 100, new.priority]);
        let new = DesiredRule { priority, ..new };
        match (found, random.below(4)) {
            (Some(found), 0) => (found.id.clone(), None),
            (Some(found), 1) => (found.id.clone(), Some(DesiredRule { id: found.id.clone(), ..new })),
            (Some(found), 2) => (found.id.clone(), Some(DesiredRule { priority, ..found.clone() })),
            _ => (new.id.clone(), Some(new)),
        }
    });
    Delta { rules: [("sg-subject".into(), changes.collect())].into(), ..Delta::default() }
}

proptest! {
    #![proptest_config(cases(4))]

    /// Sizes around those at which rows become longer. Some snapshots are kept, as workers do that are late.
    #[test]
    fn rules_that_change_one_by_one_decide_as_the_twin(seed in any::<u64>(), size in select(vec![1, 30, 63, 64, 250, 256, 257, 1020])) {
        let random = &mut Random::new(seed);
        let mut desired = state(random, size);
        let group = desired.groups.get_mut(&"sg-subject".into()).expect("it is there");
        for rule in group.rules.iter_mut().filter(|rule| rule.conditions.local.is_some() || rule.conditions.source_ports.is_some()) {
            // Else nearly every change would be compiled anew.
            if seed % 2 == 0 { (rule.conditions.local, rule.conditions.source_ports) = (None, None) }
        }
        let mut compilers = LIMITS.map(|limits| match limits {
            Some(limits) => Compiler::new(SECRET).with_limits(limits),
            None => Compiler::new(SECRET),
        });
        compilers.iter_mut().for_each(|compiler| drop(compiler.replace(&desired, 1).expect("a valid state")));
        let mut kept = Vec::new();
        for generation in 2..25 {
            let delta = few_rules(random, compilers[0].desired());
            for (compiler, limits) in compilers.iter_mut().zip(LIMITS) {
                if let Ok(snapshot) = compiler.apply(delta.clone(), generation) {
                    if random.chance(20) {
                        kept.push(snapshot);
                    }
                    compare(random, compiler, &format!("{limits:?} after {delta:?}"));
                }
            }
            kept.truncate(3);
            if random.chance(20) {
                kept.clear();
            }
        }
    }
}

/// One set for every rule, thousands of them, one inside the other and side by side.
#[test]
fn thousands_of_overlapping_sets_decide_as_the_twin() {
    let random = &mut Random::new(4);
    let mut desired = state(random, 0);
    let rules = (0..3000).map(|number| {
        let is_v6 = number % 2 == 0;
        let remote = Remote::Prefix(prefix(random, is_v6));
        let new = rule(random, number);
        DesiredRule { conditions: MatchConditions { remote, local: None, ..new.conditions }, ..new }
    });
    let fits = |rule: &DesiredRule| {
        let is_v6 = matches!(rule.conditions.remote, Remote::Prefix(IpNet::V6(_)));
        rule.conditions.protocol != if is_v6 { Protocol::ICMP } else { Protocol::ICMPV6 }
    };
    let rules: Vec<DesiredRule> = rules.filter(fits).collect();
    desired.groups.get_mut(&"sg-subject".into()).expect("it is there").rules = rules;
    for limits in LIMITS {
        let compiler = Compiler::new(SECRET);
        let mut compiler = if let Some(limits) = limits { compiler.with_limits(limits) } else { compiler };
        compiler.replace(&desired, 1).expect("a valid state");
        compare(random, &compiler, &format!("{limits:?}"));
    }
}
