//! Worlds to measure in: one VPC, pairs of ENIs, and as many rules as wanted.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vswitch_core::config::desired::{
    Desired, Direction, Eni, GroupKind, Policy, Port, PortRange, Ports, PrefixList, Protocol, Remote, Rule,
    SecurityGroup, VSwitch, Vpc,
};
use vswitch_core::config::ids::{EniId, GroupId, MacAddress};

/// A small generator of numbers: the same seed gives the same world everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    /// SplitMix64.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// From 0 to below 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// How many pairs of ENIs there are: the even ones talk to the odd ones.
pub(crate) const PAIRS: u16 = 32;
/// The port that the rules of every world admit, and the last of those that they admit.
pub(crate) const ADMITTED_PORT: u16 = 443;
/// How many ports they admit.
pub(crate) const SERVICES_MAX: u16 = 256;

pub(crate) fn eni_id(number: u16) -> EniId {
    EniId(format!("eni-{number:05}"))
}

pub(crate) fn mac(number: u16) -> MacAddress {
    let [high, low] = number.to_be_bytes();
    MacAddress([2, 0, 0, 0, high, low])
}

pub(crate) fn address(number: u16, is_v6: bool) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    if is_v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number).into()
    } else {
        Ipv4Addr::new(10, 0, high, low).into()
    }
}

/// A world in which every ENI has `rules` rules a direction, like those of real groups: by group, by prefix list, by
/// prefix, with ports and without. The weakest admits what the bench sends.
pub(crate) fn desired(rules: usize, seed: u64) -> Desired {
    let mut random = Random::new(seed);
    let vswitch = VSwitch {
        vpc: "vpc-1".into(),
        ipv4: "10.0.0.0/16".parse().ok(),
        ipv4_gateway: Some(Ipv4Addr::new(10, 0, 255, 253)),
        ipv6: "2001:db8::/64".parse().ok(),
        ipv6_gateway: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0xffff, 0, 0, 0xfffd)),
    };
    let mut desired = Desired {
        vpcs: BTreeMap::from([("vpc-1".into(), Vpc::default())]),
        vswitches: BTreeMap::from([("vsw-1".into(), vswitch)]),
        ..Desired::default()
    };
    for list in 0..8 {
        let entries = (0..20).map(|_| IpAddr::V4(Ipv4Addr::from_bits(random.next() as u32)).into()).collect();
        desired.prefix_lists.insert(format!("pl-{list}").as_str().into(), PrefixList { entries });
    }
    for side in SIDES {
        for direction in [Direction::Ingress, Direction::Egress] {
            let noise = (ADMITTING_RULES..rules).map(|number| noise_rule(&mut random, direction, number));
            let mut group = SecurityGroup {
                vpc: "vpc-1".into(),
                kind: GroupKind::Basic,
                inner_access: Policy::Drop,
                rules: noise.collect(),
            };
            for protocol in [Protocol::TCP, Protocol::UDP] {
                group.rules.extend(["0.0.0.0/0", "::/0"].map(|all| admitting_rule(direction, protocol, all)));
            }
            desired.groups.insert(group_id(side, direction), group);
        }
    }
    for number in 1..=PAIRS * 2 {
        let side = SIDES[usize::from(number % 2 == 0)];
        desired.enis.insert(eni_id(number), eni(number, side));
    }
    desired
}

pub(crate) const SIDES: [&str; 2] = ["client", "server"];

/// A side has a group for each direction: rules of both would be too many for one.
pub(crate) fn group_id(side: &str, direction: Direction) -> GroupId {
    GroupId(format!("sg-{side}-{direction}"))
}

pub(crate) fn eni(number: u16, side: &str) -> Eni {
    Eni {
        vswitch: "vsw-1".into(),
        mac: mac(number),
        addresses: [false, true].map(|is_v6| address(number, is_v6).into()).to_vec(),
        groups: [Direction::Ingress, Direction::Egress].map(|direction| group_id(side, direction)).into(),
        source_dest_check: true,
        timeouts: Default::default(),
        sessions_max: u32::MAX,
        tracking: Default::default(),
        port: Some(Port::Memory),
    }
}

/// How many rules of a direction admit what is sent.
const ADMITTING_RULES: usize = 4;

fn admitting_rule(direction: Direction, protocol: Protocol, everywhere: &str) -> Rule {
    let number = if protocol == Protocol::TCP { 6 } else { 17 };
    Rule {
        id: format!("sgr-{direction}-admit-{number}-{everywhere}").as_str().into(),
        direction,
        policy: Policy::Accept,
        priority: 100,
        protocol,
        ports: Ports::Range(PortRange { first: ADMITTED_PORT + 1 - SERVICES_MAX, last: ADMITTED_PORT }),
        source_ports: None,
        remote: Remote::Prefix(everywhere.parse().unwrap_or_default()),
        local: None,
    }
}

/// A rule that does not meet the admitted port, so that the weakest rule decides.
fn noise_rule(random: &mut Random, direction: Direction, number: usize) -> Rule {
    let first = 1024 + random.below(60_000) as u16;
    let last = first.saturating_add(random.below(2000) as u16);
    let remote = match random.below(10) {
        0..4 => Remote::Group(group_id(SIDES[random.below(2) as usize], direction)),
        4..6 => Remote::PrefixList(format!("pl-{}", random.below(8)).as_str().into()),
        _ => {
            let bits = 8 + random.below(25) as u8;
            let prefix = ipnet_v4(random.next() as u32, bits);
            Remote::Prefix(prefix)
        }
    };
    Rule {
        id: format!("sgr-{direction}-{number}").as_str().into(),
        direction,
        policy: if random.below(4) == 0 { Policy::Drop } else { Policy::Accept },
        priority: 1 + random.below(99) as u8,
        protocol: if random.below(3) == 0 { Protocol::UDP } else { Protocol::TCP },
        ports: Ports::Range(PortRange { first, last }),
        source_ports: None,
        remote,
        local: None,
    }
}

fn ipnet_v4(bits: u32, length: u8) -> vswitch_core::ipnet::IpNet {
    let address = Ipv4Addr::from_bits(bits);
    vswitch_core::ipnet::IpNet::new(address.into(), length).unwrap_or_default()
}
