//! Desired states of any kind, their differences, and the lines that carry them.

use super::cases;
use harness::random::Random;
use harness::world::{Build, accept_in};
use proptest::prelude::*;
use vswitch_core::compile::{Compiler, compile};
use vswitch_core::config::desired::{
    Desired, DesiredEni, DesiredPort, DesiredPortList, DesiredPrefixList, DesiredRule, DesiredVpc, DesiredVswitch,
    Direction, GroupKind, MacvtapPort, MatchConditions, PacketPort, Policy, PortRange, Ports, Protocol, Remote,
    SecurityGroup, StreamPort, TapPort, TapSocketPort, Timeouts, VhostUserPort,
};
use vswitch_core::config::ids::MacAddress;
use vswitch_core::config::protocol::{self, Delta, RequestBody, SwitchReply, SwitchReplyBody, SwitchRequest, VERSION};
use vswitch_core::config::validate::validate;

const NETS: [&str; 9] = [
    "10.0.0.0/24",
    "10.0.0.5/32",
    "10.0.0.1/32",
    "10.0.1.0/24",
    "0.0.0.0/0",
    "fd00::/64",
    "fd00::5/128",
    "::/0",
    "10.0.0.9/28",
];

fn net(random: &mut Random) -> ipnet::IpNet {
    random.pick(&NETS).parse().expect("a prefix")
}

fn range(random: &mut Random) -> PortRange {
    PortRange { first: random.pick(&[0, 1, 80, 443]), last: random.pick(&[0, 80, 443, 65535]) }
}

fn name<T: for<'a> From<&'a str>>(random: &mut Random, kind: &str) -> T {
    T::from(format!("{kind}-{}", random.below(3)).as_str())
}

/// A state in which little fits together.
fn arbitrary_state(seed: u64) -> Desired {
    let random = &mut Random::new(seed);
    let mut desired = Desired::default();
    let count = 1 + random.below(4);
    for _ in 0..count {
        let routes = (0..random.below(2)).map(|_| (net(random), name(random, "eni"))).collect();
        let gateway_mac = MacAddress([random.pick(&[2, 2, 3]), 0, 0, 0, 0, 1]);
        desired.vpcs.insert(name(random, "vpc"), DesiredVpc { gateway_mac, routes, ..DesiredVpc::default() });
        let vswitch = DesiredVswitch {
            vpc: name(random, "vpc"),
            ipv4: random.pick(&["10.0.0.0/24", "10.0.1.0/24", "10.0.0.0/8"]).parse().ok(),
            ipv4_gateway: random.chance(80).then(|| [10, 0, random.below(2) as u8, 1].into()),
            ipv6: random.chance(50).then(|| "fd00::/64".parse().expect("a prefix")),
            ipv6_gateway: None,
        };
        desired.vswitches.insert(name(random, "vsw"), vswitch);
        let group = SecurityGroup {
            vpc: name(random, "vpc"),
            kind: random.pick(&[GroupKind::Basic, GroupKind::Advanced]),
            inner_access: random.pick(&[Policy::Accept, Policy::Drop]),
            rules: (0..random.below(3)).map(|_| arbitrary_rule(random)).collect(),
        };
        desired.groups.insert(name(random, "sg"), group);
        let entries = (0..random.below(3)).map(|_| net(random)).collect();
        desired.prefix_lists.insert(name(random, "pl"), DesiredPrefixList { entries });
        let entries = (0..random.below(3)).map(|_| range(random)).collect();
        desired.port_lists.insert(name(random, "prl"), DesiredPortList { entries });
        let eni = arbitrary_eni(random);
        desired.enis.insert(name(random, "eni"), eni);
    }
    desired.settings.smtp_closed = random.chance(50);
    desired
}

fn arbitrary_eni(random: &mut Random) -> DesiredEni {
    let port = match random.below(8) {
        0 => None,
        1 => Some(DesiredPort::Memory),
        2 => Some(DesiredPort::Packet(PacketPort {
            device: random.pick(&["tap0", "", "a/b"]).into(),
            namespace: random.chance(30).then(|| "..".into()),
            mtu_bytes: random.pick(&[0, 1500]),
        })),
        3 => Some(DesiredPort::VhostUser(VhostUserPort {
            path: random.pick(&["/run/vm.sock", "vm.sock", ""]).into(),
            is_client: random.chance(50),
            queues: random.pick(&[0, 1, 16, 17]),
            socket_user: random.chance(30).then(|| "nobody".into()),
            mtu_bytes: random.pick(&[0, 1500, 65535]),
        })),
        4 => Some(DesiredPort::Stream(StreamPort {
            path: random.pick(&["/run/vm.sock", "vm.sock", ""]).into(),
            is_client: random.chance(50),
            socket_user: random.chance(30).then(|| "nobody".into()),
            mtu_bytes: random.pick(&[0, 1500, 65535]),
        })),
        6 => Some(DesiredPort::Macvtap(MacvtapPort {
            device: random.pick(&["mvt0", "", "a/b"]).into(),
            lower_device: random.pick(&["eth0", "", "a/b"]).into(),
            lower_namespace: random.chance(30).then(|| "..".into()),
            mtu_bytes: random.pick(&[0, 1500, 65535]),
        })),
        5 => Some(DesiredPort::TapSocket(TapSocketPort {
            path: random.pick(&["/run/vm.sock", "vm.sock", ""]).into(),
            socket_user: random.chance(30).then(|| "nobody".into()),
            mtu_bytes: random.pick(&[0, 1500, 65535]),
        })),
        _ => Some(DesiredPort::Tap(TapPort {
            device: random.pick(&["tap0", "", "a device with a name", "a/b"]).into(),
            namespace: random.chance(30).then(|| "..".into()),
            create_namespace: false,
            configure: true,
            mtu_bytes: random.pick(&[0, 1500, 65535]),
        })),
    };
    DesiredEni {
        vswitch: name(random, "vsw"),
        mac: MacAddress([random.pick(&[0, 1, 2]), 0, 0, 0, 0, 0]),
        addresses: (0..random.below(3)).map(|_| net(random)).collect(),
        groups: (0..random.below(3)).map(|_| name(random, "sg")).collect(),
        source_dest_check: random.chance(50),
        routed_as_own: random.chance(50),
        timeouts: Timeouts { udp_s: random.pick(&[30, 31]), ..Timeouts::default() },
        sessions_max: random.below(3) as u32,
        hostname: None,
        rate_limits: Default::default(),
        tracking: Default::default(),
        port,
    }
}

fn arbitrary_rule(random: &mut Random) -> DesiredRule {
    DesiredRule {
        id: name(random, "r"),
        direction: random.pick(&[Direction::Ingress, Direction::Egress]),
        policy: random.pick(&[Policy::Accept, Policy::Drop]),
        priority: random.pick(&[0, 1, 100, 110, 111, 255]),
        conditions: MatchConditions {
            protocol: random.pick(&[Protocol::All, Protocol::TCP, Protocol::UDP, Protocol::ICMP, Protocol::ICMPV6]),
            ports: match random.below(3) {
                0 => Ports::Any,
                1 => Ports::Range(range(random)),
                _ => Ports::List(name(random, "prl")),
            },
            source_ports: random.chance(20).then(|| range(random)),
            remote: match random.below(3) {
                0 => Remote::Prefix(net(random)),
                1 => Remote::PrefixList(name(random, "pl")),
                _ => Remote::Group(name(random, "sg")),
            },
            local: random.chance(20).then(|| net(random)),
        },
    }
}

/// Takes away objects at fault until the state is valid, so that valid states with odd parts are compiled as well.
fn repaired(mut desired: Desired) -> Desired {
    for _ in 0..200 {
        let Some(refusal) = validate(&desired).into_iter().next() else { break };
        let mut path = refusal.object.splitn(3, '/');
        let (kind, id) = (path.next().unwrap_or_default(), path.next().unwrap_or_default());
        match kind {
            "vpcs" => drop(desired.vpcs.insert(id.into(), DesiredVpc::default())),
            "vswitches" => drop(desired.vswitches.remove(&id.into())),
            "groups" => drop(desired.groups.remove(&id.into())),
            "prefix_lists" => drop(desired.prefix_lists.remove(&id.into())),
            "port_lists" => drop(desired.port_lists.remove(&id.into())),
            "enis" => drop(desired.enis.remove(&id.into())),
            other => panic!("{other} is no kind of object: {refusal:?}"),
        }
    }
    desired
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn any_state_compiles_or_is_refused_by_names(seed in any::<u64>()) {
        let desired = arbitrary_state(seed);
        if let Err(refusals) = compile(&desired, 1) {
            prop_assert!(!refusals.is_empty());
            for refusal in refusals {
                prop_assert!(refusal.object.contains(['/', 's']), "{refusal:?} names no object");
                prop_assert!(!refusal.message.is_empty() && !refusal.code.is_empty());
            }
        }
        let repaired = repaired(desired);
        prop_assert!(compile(&repaired, 1).is_ok(), "{:?}", validate(&repaired));
    }

    #[test]
    fn a_refused_change_leaves_the_old_generation_as_it_was(seed in any::<u64>(), other in any::<u64>()) {
        let good = repaired(arbitrary_state(seed));
        let mut compiler = Compiler::new([0; 2]);
        let snapshot = compiler.replace(&good, 1).expect("a valid state");
        let told = format!("{snapshot:?}");
        let next = arbitrary_state(other);
        let compiled = compiler.replace(&next, 2);
        prop_assert_eq!(compiled.is_ok(), validate(&next).is_empty());
        prop_assert_eq!(format!("{snapshot:?}"), told);
        prop_assert_eq!(compiler.desired(), if compiled.is_ok() { &next } else { &good });
        prop_assert!(compiler.replace(&repaired(next), 2).is_ok());
    }

    #[test]
    fn a_delta_leads_from_one_state_to_the_other(seed in any::<u64>(), other in any::<u64>()) {
        let (old, new) = (arbitrary_state(seed), arbitrary_state(other));
        let delta = Delta::between(&old, &new);
        prop_assert_eq!(delta.is_empty(), old == new);
        prop_assert!(Delta::between(&new, &new).is_empty());
        let mut changed = old.clone();
        delta.clone().apply(&mut changed);
        prop_assert_eq!(&changed, &new);
        delta.apply(&mut changed);
        prop_assert_eq!(changed, new);
    }

    #[test]
    fn a_message_that_is_written_can_be_read(seed in any::<u64>(), other in any::<u64>(), id in any::<u64>()) {
        let (old, new) = (arbitrary_state(seed), arbitrary_state(other));
        let delta = Delta::between(&old, &new);
        let replace = RequestBody::Replace { generation: id, desired: old };
        for body in [replace, RequestBody::Apply { base: 1, generation: id, delta }, RequestBody::Status, RequestBody::Ports] {
            let request = SwitchRequest { version: VERSION, id, body };
            let line = protocol::write(&request);
            prop_assert_eq!(line.iter().position(|&byte| byte == b'\n'), Some(line.len() - 1));
            prop_assert_eq!(protocol::read::<SwitchRequest>(&line), Ok(request));
        }
        let refusals = validate(&new);
        let reply = SwitchReply { version: VERSION, id, body: SwitchReplyBody::Refused { refusals } };
        prop_assert_eq!(protocol::read::<SwitchReply>(&protocol::write(&reply)), Ok(reply));
    }

    #[test]
    fn a_damaged_message_is_refused_and_no_more(
        seed in any::<u64>(),
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
        noise in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let request = SwitchRequest { version: VERSION, id: seed, body: RequestBody::Replace { generation: 1, desired: arbitrary_state(seed) } };
        let mut line = protocol::write(&request);
        for (place, value) in flips {
            let place = place.index(line.len());
            line[place] = value;
        }
        if let Some(cut) = cut { line.truncate(cut.index(line.len())) }
        if let Ok(SwitchRequest { body: RequestBody::Replace { desired, .. }, .. }) = protocol::read::<SwitchRequest>(&line) {
            let _ = compile(&desired, 1);
        }
        let refused = protocol::read::<SwitchRequest>(&noise).expect_err("noise is no message");
        prop_assert!(!refused.code.is_empty() && !refused.message.is_empty());
    }
}

#[test]
fn deep_nesting_is_refused_without_a_panic() {
    for open in ["[", "{\"a\":"] {
        let line = open.repeat(100_000);
        let refusal = protocol::read::<SwitchRequest>(line.as_bytes()).expect_err("no message");
        assert_eq!(refusal.code, "malformed");
    }
}

#[test]
fn a_list_becomes_of_any_family_that_the_rules_with_it_allow() {
    let mut rule = accept_in("r-1", "10.0.0.0/8");
    rule.conditions.remote = Remote::PrefixList("pl-1".into());
    let mut desired = Desired::default().vpc("vpc-1");
    desired.prefix_lists.insert("pl-1".into(), DesiredPrefixList::default());
    let desired = desired.closed_group("sg-1", "vpc-1", &[rule.clone()]);
    for (protocol, allows_v6) in [(Protocol::All, true), (Protocol::ICMP, false)] {
        let mut compiler = Compiler::new([0; 2]);
        let mut desired = desired.clone();
        desired.groups.values_mut().for_each(|group| group.rules[0].conditions.protocol = protocol);
        compiler.replace(&desired, 1).expect("a valid state");
        for (entry, is_allowed) in
            [(Some("10.0.0.0/8"), true), (Some("fd00::/8"), allows_v6), (None, true), (Some("fd00::/8"), allows_v6)]
        {
            let entries = entry.map(|entry| entry.parse().expect("a prefix")).into_iter().collect();
            let prefix_lists = [("pl-1".into(), Some(DesiredPrefixList { entries }))].into();
            let changed = compiler.apply(Delta { prefix_lists, ..Delta::default() }, 2);
            assert_eq!(changed.is_ok(), is_allowed, "{protocol:?} {entry:?}");
            assert!(validate(compiler.desired()).is_empty());
        }
    }
}
