//! The world of both simulations at its start, and the random changes that operators make to it.

use harness::random::Random;
use harness::world::{Build, accept_in, prefix_of};
use vswitch_core::config::desired::{
    Desired, DesiredPortList, DesiredPrefixList, DesiredRule, Direction, MatchConditions, Policy, PortRange, Ports,
    Protocol, Remote, TimeoutProfile,
};
use vswitch_core::config::ids::EniId;

pub(crate) const ENIS: [&str; 6] = ["eni-a", "eni-b", "eni-c", "eni-d", "eni-e", "eni-f"];
const BASIC: [&str; 3] = ["sg-closed", "sg-open", "sg-other"];
const ADVANCED: [&str; 2] = ["sg-strict", "sg-stricter"];

pub(crate) fn first_world() -> Desired {
    let mut desired = Desired::default()
        .vpc("vpc-1")
        .vswitch("vsw-1", "vpc-1", "10.0.0.0/24", "fd00:0:0:1::/64")
        .vswitch("vsw-2", "vpc-1", "10.0.1.0/24", "fd00:0:0:2::/64")
        .closed_group("sg-closed", "vpc-1", &[accept_in("r-1", "0.0.0.0/0")])
        .open_group("sg-open", "vpc-1", &[])
        .closed_group("sg-other", "vpc-1", &[accept_in("r-1", "::/0")])
        .advanced_group("sg-strict", "vpc-1", &[])
        .advanced_group("sg-stricter", "vpc-1", &[]);
    desired.prefix_lists.insert("pl-1".into(), DesiredPrefixList::default());
    desired.port_lists.insert("prl-1".into(), DesiredPortList::default());
    for id in ENIS {
        desired = add_eni(desired, id);
    }
    desired
}

/// The ENI as it is at first: its addresses follow from its name.
pub(crate) fn add_eni(desired: Desired, id: &str) -> Desired {
    let number = ENIS.iter().position(|other| *other == id).expect("a known name");
    let subnet = number % 2;
    let (ipv4, ipv6) =
        (format!("10.0.{subnet}.{}", 10 + number), format!("fd00:0:0:{}::{:x}", subnet + 1, 16 + number));
    let group = if number < 4 { BASIC[number % 3] } else { ADVANCED[number % 2] };
    let mut desired = desired.eni(id, &format!("vsw-{}", subnet + 1), &[&ipv4, &ipv6], &[group]);
    let eni = desired.enis.get_mut(&EniId::from(id)).expect("just added");
    eni.mac.0[5] = number as u8 + 1;
    // More than there ever are, and few enough that each is kept in mind.
    eni.sessions_max = 4000;
    desired
}

fn random_rule(random: &mut Random, number: usize, is_advanced: bool) -> DesiredRule {
    let objects =
        ["0.0.0.0/0", "::/0", "10.0.0.0/24", "10.0.1.11/32", "fd00:0:0:1::/64", "pl-1", "sg-closed", "sg-open"];
    let choices = if is_advanced { 6 } else { objects.len() };
    let object = objects[random.below(choices)];
    let is_v6 = object.contains(':');
    let is_v4 = object.contains('.') || object.starts_with("pl-");
    let port = random.pick(&[53, 80, 443]);
    let icmp = if is_v6 { Protocol::ICMPV6 } else { Protocol::ICMP };
    let (protocol, ports) = match random.below(7) {
        0..=1 => (Protocol::All, Ports::Any),
        2 => (Protocol::UDP, Ports::Range(PortRange { first: port, last: port })),
        3 => (Protocol::TCP, Ports::List("prl-1".into())),
        4 => (icmp, Ports::Any),
        5 => (Protocol::TCP, Ports::Range(PortRange { first: 1, last: port })),
        _ => (Protocol::GRE, Ports::Any),
    };
    DesiredRule {
        id: format!("r-{number}").as_str().into(),
        direction: if random.chance(55) { Direction::Ingress } else { Direction::Egress },
        policy: if random.chance(65) { Policy::Accept } else { Policy::Drop },
        priority: 1 + random.below(4) as u8,
        conditions: MatchConditions {
            source_ports: (protocol.has_ports() && random.chance(20)).then_some(PortRange { first: 1000, last: 1999 }),
            protocol,
            ports,
            remote: match object {
                group if group.starts_with("sg-") => Remote::Group(group.into()),
                list if list.starts_with("pl-") => Remote::PrefixList(list.into()),
                prefix => Remote::Prefix(prefix_of(prefix)),
            },
            local: (is_v4 && random.chance(10)).then(|| prefix_of("10.0.0.0/25")),
        },
    }
}

pub(crate) fn change_rules(random: &mut Random, desired: &mut Desired) -> String {
    let groups = [BASIC.as_slice(), &ADVANCED].concat();
    let id = random.pick(&groups);
    let is_advanced = ADVANCED.contains(&id);
    let group = desired.groups.get_mut(&id.into()).expect("a known group");
    if random.chance(15) && !is_advanced {
        group.inner_access = if group.inner_access == Policy::Drop { Policy::Accept } else { Policy::Drop };
        return format!("inner access of {id}: {:?}", group.inner_access);
    }
    if random.chance(40) && !group.rules.is_empty() {
        let gone = group.rules.remove(random.below(group.rules.len()));
        return format!("{id} loses {gone:?}");
    }
    let number = (0..)
        .find(|number| group.rules.iter().all(|rule| rule.id.as_str() != format!("r-{number}")))
        .expect("a free name");
    let rule = random_rule(random, number, is_advanced);
    let text = format!("{id} gets {rule:?}");
    group.rules.push(rule);
    text
}

pub(crate) fn change_membership(random: &mut Random, desired: &mut Desired) -> String {
    let id = random.pick(&ENIS);
    let Some(eni) = desired.enis.get_mut(&EniId::from(id)) else { return "nothing".into() };
    let choices: &[&str] = if random.chance(75) { &BASIC } else { &ADVANCED };
    eni.groups = (0..=random.below(2)).map(|_| (random.pick(choices)).into()).collect();
    format!("{id} is in {:?}", eni.groups)
}

pub(crate) fn change_list(random: &mut Random, desired: &mut Desired) -> String {
    if random.chance(50) {
        let prefixes = ["10.0.0.10/32", "10.0.0.0/28", "10.0.1.0/24", "10.0.0.0/8"];
        let entries = (0..random.below(3)).map(|_| prefix_of(random.pick(&prefixes))).collect();
        desired.prefix_lists.insert("pl-1".into(), DesiredPrefixList { entries });
    } else {
        let ranges = [(1, 100), (53, 53), (80, 443), (443, 65535)];
        let entries = (0..random.below(3)).map(|_| random.pick(&ranges)).map(|(first, last)| PortRange { first, last });
        desired.port_lists.insert("prl-1".into(), DesiredPortList { entries: entries.collect() });
    }
    format!("lists: {:?} {:?}", desired.prefix_lists, desired.port_lists)
}

pub(crate) fn change_settings(random: &mut Random, desired: &mut Desired) -> String {
    let settings = &mut desired.settings;
    match random.below(9) {
        8 => settings.fast_path ^= true,
        6..=7 => settings.pick_up_by_ports ^= true,
        4 => settings.tcp_pick_up ^= true,
        5 => settings.timeout_profile = random.pick(&TimeoutProfile::NAMES).0,
        0 => settings.cut_sessions_on_deny ^= true,
        1 => settings.intra_group_egress_bypass ^= true,
        2 => settings.follow_first_fragment ^= true,
        _ => settings.icmp_timeout_s = random.pick(&[5, 30]),
    }
    format!("{settings:?}")
}
