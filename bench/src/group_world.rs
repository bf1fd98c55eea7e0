//! A world for the classifier alone: one ENI with many rules of the shape that groups give them, and peers for it.

use crate::world::{self, Random};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vswitch_core::config::desired::{
    Desired, Direction, Eni, GroupKind, Policy, Port, PortRange, Ports, PrefixList, Protocol, Remote, Rule,
    SecurityGroup, VSwitch, Vpc,
};
use vswitch_core::config::ids::{EniId, GroupId};
use vswitch_core::ipnet::IpNet;
use vswitch_core::packet::headers::{Addresses, Tuple};

/// ENIs besides the one that judges.
const PEERS: u64 = 16_384;
/// Groups that rules name, each of 1 to [`GROUP_MEMBERS_MAX`] members; small ones are as frequent as large ones.
const GROUPS: u64 = 60;
const GROUP_MEMBERS_MAX_BITS: u64 = 12;
const LISTS: u64 = 20;
const LIST_ENTRIES: usize = 20;
/// The number of the ENI that judges.
const SUBJECT: u16 = 1;

pub(crate) fn subject() -> EniId {
    world::eni_id(SUBJECT)
}

/// One ENI with `rules` ingress rules, its peers, and their groups.
pub(crate) fn desired(rules: usize, is_v6: bool, seed: u64) -> Desired {
    let random = &mut Random::new(seed);
    let vswitch = VSwitch {
        vpc: "vpc-1".into(),
        ipv4: "10.0.0.0/16".parse().ok(),
        ipv4_gateway: Some(Ipv4Addr::new(10, 0, 255, 253)),
        ipv6: "2001:db8::/64".parse().ok(),
        ipv6_gateway: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0xffff, 0, 0, 0xfffd)),
    };
    let mut memberships: Vec<BTreeSet<GroupId>> = vec![BTreeSet::from(["sg-rest".into()]); PEERS as usize];
    let mut names: Vec<GroupId> = vec!["sg-subject".into(), "sg-rest".into()];
    for number in 0..GROUPS {
        let name = GroupId(format!("sg-{number:02}"));
        let members = 1u64 << random.below(GROUP_MEMBERS_MAX_BITS + 1);
        for _ in 0..members - random.below(members / 2 + 1) {
            let groups = &mut memberships[random.below(PEERS) as usize];
            if groups.len() < vswitch_core::config::limits::GROUPS_PER_ENI_MAX {
                groups.insert(name.clone());
            }
        }
        names.push(name);
    }
    let group =
        SecurityGroup { vpc: "vpc-1".into(), kind: GroupKind::Basic, inner_access: Policy::Drop, rules: Vec::new() };
    let mut desired = Desired {
        vpcs: BTreeMap::from([("vpc-1".into(), Vpc::default())]),
        vswitches: BTreeMap::from([("vsw-1".into(), vswitch)]),
        groups: names.into_iter().map(|name| (name, group.clone())).collect(),
        ..Desired::default()
    };
    for list in 0..LISTS {
        let entries = (0..LIST_ENTRIES).map(|_| prefix(random, is_v6)).collect();
        desired.prefix_lists.insert(format!("pl-{list}").as_str().into(), PrefixList { entries });
    }
    desired.enis.insert(subject(), eni(SUBJECT, BTreeSet::from(["sg-subject".into()])));
    for (place, groups) in memberships.into_iter().enumerate() {
        let number = SUBJECT + 1 + place as u16;
        desired.enis.insert(world::eni_id(number), eni(number, groups));
    }
    let rules = (0..rules).map(|number| rule(random, number, is_v6)).collect();
    if let Some(group) = desired.groups.get_mut(&GroupId::from("sg-subject")) {
        group.rules = rules;
    }
    desired
}

/// Packets to the subject, each of which a random rule is about: no locality.
pub(crate) fn probes(desired: &Desired, count: usize, is_v6: bool, seed: u64) -> Vec<Tuple> {
    let random = &mut Random::new(seed);
    let rules = desired.groups.get(&GroupId::from("sg-subject")).map(|group| group.rules.as_slice());
    let objects: Vec<(&Rule, Vec<IpNet>)> = rules
        .unwrap_or_default()
        .iter()
        .map(|rule| {
            let prefixes = crate::flat::prefixes(desired, &rule.remote);
            (rule, prefixes.filter(|prefix| matches!(prefix, IpNet::V6(_)) == is_v6).collect())
        })
        .filter(|(_, prefixes): &(_, Vec<IpNet>)| !prefixes.is_empty())
        .collect();
    let probe = |_| {
        let (rule, prefixes) = &objects[random.below(objects.len() as u64) as usize];
        let prefix = prefixes[random.below(prefixes.len() as u64) as usize];
        let protocol = match rule.protocol {
            Protocol::All => 6,
            Protocol::Number(number) => number,
        };
        let mut port_in = |range: PortRange| range.first + random.below(u64::from(range.last - range.first) + 1) as u16;
        let (source_port, destination_port) = match (&rule.ports, rule.protocol) {
            (Ports::Range(range), _) => (port_in(PortRange { first: 1024, last: 65535 }), port_in(*range)),
            (_, Protocol::All) => (40_000, port_in(PortRange::ALL)),
            _ => (0, 0),
        };
        let peer = address_in(random, prefix);
        let addresses = Addresses::new(peer, world::address(SUBJECT, is_v6))?;
        Some(Tuple { addresses, protocol, source_port, destination_port })
    };
    (0..count).filter_map(probe).collect()
}

fn eni(number: u16, groups: BTreeSet<GroupId>) -> Eni {
    Eni {
        vswitch: "vsw-1".into(),
        mac: world::mac(number),
        addresses: [false, true].map(|is_v6| world::address(number, is_v6).into()).to_vec(),
        groups,
        source_dest_check: true,
        timeouts: Default::default(),
        sessions_max: u32::MAX,
        tracking: Default::default(),
        port: Some(Port::Memory),
    }
}

/// Of ten objects four are groups, the others lists, prefixes, hosts and everything.
fn rule(random: &mut Random, number: usize, is_v6: bool) -> Rule {
    let remote = match random.below(100) {
        0..40 => Remote::Group(GroupId(format!("sg-{:02}", random.below(GROUPS)))),
        40..55 => Remote::PrefixList(format!("pl-{}", random.below(LISTS)).as_str().into()),
        55..85 => Remote::Prefix(prefix(random, is_v6)),
        85..95 => Remote::Prefix(world::address(2 + random.below(PEERS) as u16, is_v6).into()),
        _ => Remote::Prefix(if is_v6 { "::/0" } else { "0.0.0.0/0" }.parse().unwrap_or_default()),
    };
    let (protocol, ports) = match remote {
        // What is open to everybody is one port.
        Remote::Prefix(prefix) if prefix.prefix_len() == 0 => (Protocol::TCP, one_port(random)),
        _ => service(random, is_v6),
    };
    Rule {
        id: format!("sgr-{number}").as_str().into(),
        direction: Direction::Ingress,
        policy: if random.below(4) == 0 { Policy::Drop } else { Policy::Accept },
        priority: 1 + random.below(100) as u8,
        protocol,
        ports,
        source_ports: None,
        remote,
        local: None,
    }
}

fn service(random: &mut Random, is_v6: bool) -> (Protocol, Ports) {
    let protocol = match random.below(100) {
        0..70 => Protocol::TCP,
        70..92 => Protocol::UDP,
        92..98 if is_v6 => Protocol::ICMPV6,
        92..98 => Protocol::ICMP,
        _ => Protocol::All,
    };
    if !protocol.has_ports() {
        return (protocol, Ports::Any);
    }
    let ports = match random.below(100) {
        0..55 => one_port(random),
        55..95 => {
            let first = 1024 + random.below(60_000) as u16;
            Ports::Range(PortRange { first, last: first + random.below(1000) as u16 })
        }
        95..98 => Ports::Range(PortRange { first: 32_768, last: 60_999 }),
        _ => Ports::Range(PortRange::ALL),
    };
    (protocol, ports)
}

fn one_port(random: &mut Random) -> Ports {
    const WELL_KNOWN: [u16; 12] = [22, 25, 53, 80, 123, 389, 443, 3306, 5432, 6379, 8080, 9092];
    let is_well_known = random.below(2) == 0;
    let port = if is_well_known {
        WELL_KNOWN[random.below(WELL_KNOWN.len() as u64) as usize]
    } else {
        1 + random.below(10_000) as u16
    };
    Ports::Range(PortRange { first: port, last: port })
}

/// Half of the prefixes lie among the peers, half anywhere.
fn prefix(random: &mut Random, is_v6: bool) -> IpNet {
    let is_near = random.below(2) == 0;
    let near = (PEERS.next_power_of_two() - 1) & random.next();
    let net = if is_v6 {
        let base = u128::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0));
        let far = (0x2000u128 << 112) | (u128::from(random.next()) << 49);
        let (address, length) =
            if is_near { (base | u128::from(near), 116 + random.below(12)) } else { (far, 20 + random.below(44)) };
        IpNet::new(Ipv6Addr::from_bits(address).into(), length as u8)
    } else {
        let (address, length) = if is_near {
            (0x0a00_0000 | near as u32, 20 + random.below(12))
        } else {
            (random.next() as u32, 8 + random.below(24))
        };
        IpNet::new(Ipv4Addr::from_bits(address).into(), length as u8)
    };
    net.map(|net| net.trunc()).unwrap_or_default()
}

fn address_in(random: &mut Random, prefix: IpNet) -> IpAddr {
    match prefix {
        IpNet::V4(prefix) => {
            let host = random.next() as u32 & prefix.hostmask().to_bits();
            Ipv4Addr::from_bits(prefix.network().to_bits() | host).into()
        }
        IpNet::V6(prefix) => {
            let noise = u128::from(random.next()) << 64 | u128::from(random.next());
            Ipv6Addr::from_bits(prefix.network().to_bits() | (noise & prefix.hostmask().to_bits())).into()
        }
    }
}
