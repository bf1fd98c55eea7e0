//! Laws that hold for every sequence of commands: nothing panics, a refusal changes nothing, what is kept is what is
//! true, and what the forwarding plane is sent follows from it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "properties/outside.rs"]
mod outside;

use control::command::*;
use control::environment::Environment;
use control::model::{Event, Model, Quotas};
use control::state::desired_state;
use control::state::transaction::StateOwner;
use control::store::{MemoryStore, Store, StoreError};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::sync::{Arc, Mutex};
use vswitch_core::config::desired::{
    DesiredPort, Direction, PacketPort, StreamPort, TapPort, TapSocketPort, VhostUserPort,
};

/// A store that can be looked into while an authority has it.
#[derive(Clone, Default)]
struct SharedStore(Arc<Mutex<MemoryStore>>);

impl Store for SharedStore {
    fn load(&mut self) -> Result<Vec<Event>, StoreError> {
        self.0.lock().unwrap().load()
    }

    fn append(&mut self, events: &[Event]) -> Result<(), StoreError> {
        self.0.lock().unwrap().append(events)
    }
}

fn quotas() -> Quotas {
    Quotas {
        groups_max: 6,
        rules_per_eni_max: 12,
        group_objects_per_group_max: 2,
        groups_per_eni_max: 2,
        basic_group_addresses_max: 8,
        ..Quotas::default()
    }
}

fn text(of: &'static [&'static str]) -> impl Strategy<Value = String> + Clone {
    select(of).prop_map(String::from)
}

fn vpcs() -> impl Strategy<Value = String> + Clone {
    text(&["vpc-1", "vpc-2"])
}

fn vswitches() -> impl Strategy<Value = String> + Clone {
    text(&["vsw-1", "vsw-2", "vsw-3"])
}

fn enis() -> impl Strategy<Value = String> + Clone {
    text(&["eni-1", "eni-2", "eni-3", "eni-4"])
}

fn groups() -> impl Strategy<Value = String> + Clone {
    text(&["sg-1", "sg-2", "sg-3", "sg-4"])
}

fn addresses() -> impl Strategy<Value = String> + Clone {
    text(&["10.0.1.1", "10.0.1.2", "10.0.1.9", "10.0.2.1", "10.0.2.2", "2001:db8:1:1::1", "2001:db8:1:1::9", "x"])
}

fn prefixes() -> impl Strategy<Value = String> + Clone {
    text(&[
        "10.0.0.0/8",
        "10.0.1.16/28",
        "10.0.1.5/24",
        "2001:db8:1:1:1::/80",
        "::/0",
        "0.0.0.0/0",
        "10.0.1.1",
        "/",
        "1/2",
    ])
}

fn lists() -> impl Strategy<Value = String> + Clone {
    text(&["pl-1", "pl-2", "prl-1", "prl-2"])
}

fn rule() -> impl Strategy<Value = RuleSpec> {
    let what = (
        text(&["tcp", "UDP", "icmp", "icmpv6", "all", "gre", "47", "300"]),
        option::of(text(&["80/80", "1/65535", "-1/-1", "9/1"])),
        option::weighted(0.1, lists()),
        option::weighted(0.3, select(vec![1_i64, 2, 100, 101])),
        option::weighted(0.3, text(&["accept", "DROP", "no"])),
        option::weighted(0.2, text(&["1024/65535", "-1/-1", "9/1", ""])),
        option::weighted(0.3, rule_ids()),
    );
    let sides = (
        option::weighted(0.7, prefixes()),
        option::weighted(0.05, prefixes()),
        option::weighted(0.3, groups()),
        option::weighted(0.3, lists()),
        option::weighted(0.1, prefixes()),
    );
    (what, sides).prop_map(|((protocol, ports, port_list, priority, policy, source_ports, id), sides)| {
        let (cidr, ipv6_cidr, group, prefix_list, local_cidr) = sides;
        let objects = RuleSpec { cidr, ipv6_cidr, group, prefix_list, local_cidr, ..RuleSpec::default() };
        RuleSpec { id, protocol, ports, port_list, priority, policy, source_ports, ..objects }
    })
}

fn rule_ids() -> impl Strategy<Value = String> + Clone {
    text(&["sgr-1", "sgr-2", "sgr-3"])
}

/// A change of a rule: some fields of another one.
fn rule_change() -> impl Strategy<Value = RuleChange> {
    (rule(), vec(any::<bool>(), 9)).prop_map(|(rule, takes)| {
        let of = |place: usize, field: Option<String>| field.filter(|_| takes[place]);
        RuleChange {
            policy: of(0, rule.policy),
            priority: rule.priority.filter(|_| takes[1]),
            protocol: of(2, Some(rule.protocol)),
            ports: of(3, rule.ports),
            port_list: of(4, rule.port_list),
            source_ports: of(5, rule.source_ports),
            cidr: of(6, rule.cidr),
            group: of(6, rule.group),
            prefix_list: of(7, rule.prefix_list),
            local_cidr: of(8, rule.local_cidr),
            ..RuleChange::default()
        }
    })
}

fn network() -> impl Strategy<Value = Command> {
    let block = text(&["10.0.0.0/16", "10.0.1.0/24", "10.0.2.0/29", "10.0.1.128/25", "10.0.0.0/33", "no"]);
    let ipv6 = option::of(text(&["2001:db8:1::/56", "2001:db8:1:1::/64", "2001:db8:1:2::/64", "::/0"]));
    prop_oneof![
        3 => (vpcs(), ipv6.clone()).prop_map(|(id, ipv6_cidr)| Command::VpcCreate(VpcCreate {
            id: Some(id), cidr: "10.0.0.0/16".into(), ipv6_cidr, ..VpcCreate::default()
        })),
        1 => vpcs().prop_map(|vpc| Command::VpcDelete(VpcDelete { vpc })),
        1 => (vpcs(), ipv6.clone()).prop_map(|(vpc, ipv6_cidr)| {
            Command::VpcModify(VpcModify { vpc, ipv6_cidr, ..VpcModify::default() })
        }),
        1 => (vpcs(), prefixes(), enis())
            .prop_map(|(vpc, destination, eni)| Command::VpcRouteAdd(VpcRouteAdd { vpc, destination, eni, ..VpcRouteAdd::default() })),
        1 => (vpcs(), prefixes())
            .prop_map(|(vpc, destination)| Command::VpcRouteRemove(VpcRouteRemove { vpc, destination })),
        4 => (vswitches(), vpcs(), block, ipv6).prop_map(|(id, vpc, cidr, ipv6_cidr)| {
            Command::VswitchCreate(VswitchCreate { id: Some(id), vpc, cidr, ipv6_cidr, ..VswitchCreate::default() })
        }),
        1 => vswitches().prop_map(|vswitch| Command::VswitchDelete(VswitchDelete { vswitch })),
    ]
}

fn interface() -> impl Strategy<Value = Command> {
    let tap = |device: &str| {
        DesiredPort::Tap(TapPort {
            device: device.into(),
            namespace: None,
            create_namespace: false,
            configure: true,
            mtu_bytes: 1500,
        })
    };
    let packet = DesiredPort::Packet(PacketPort { device: "web".into(), namespace: None, mtu_bytes: 1500 });
    let socket = |path: &str| {
        let (path, socket_user) = (path.into(), None);
        DesiredPort::VhostUser(VhostUserPort { path, is_client: false, queues: 2, socket_user, mtu_bytes: 1500 })
    };
    let (shared, relative) = (socket("/run/vm.sock"), socket("vm.sock"));
    let (path, socket_user) = ("/run/vm.sock".into(), None);
    let stream = DesiredPort::Stream(StreamPort { path, is_client: true, socket_user, mtu_bytes: 1500 });
    let (path, socket_user) = ("/run/tap.sock".into(), Some("nobody".into()));
    let handed_over = DesiredPort::TapSocket(TapSocketPort { path, socket_user, mtu_bytes: 1500 });
    let port = select(vec![
        DesiredPort::Memory,
        handed_over,
        packet,
        shared,
        relative,
        stream,
        tap("web"),
        tap("db"),
        tap("far too long a name"),
    ]);
    prop_oneof![
        5 => (option::weighted(0.9, enis()), vswitches(), option::weighted(0.2, addresses()), vec(groups(), 0..3), 0_u8..2)
            .prop_map(|(id, vswitch, primary_ip, groups, ipv6_count)| Command::EniCreate(Box::new(EniCreate {
                id, vswitch, primary_ip, groups, ipv6_count, ..EniCreate::default()
            }))),
        1 => (enis(), any::<bool>()).prop_map(|(eni, force)| Command::EniDelete(EniDelete { eni, force })),
        1 => (enis(), option::of(vec(groups(), 0..3))).prop_map(|(eni, groups)| {
            Command::EniModify(EniModify { eni, groups, ..EniModify::default() })
        }),
        2 => (enis(), vec(addresses(), 0..2), vec(prefixes(), 0..2), 0_u8..2, 0_u8..2)
            .prop_map(|(eni, addresses, prefixes, ipv4_count, ipv6_count)| {
                let (ipv4_prefix_count, ipv6_prefix_count) = (ipv6_count, ipv4_count);
                Command::EniAssign(EniAssign {
                    eni,
                    addresses,
                    prefixes,
                    ipv4_count,
                    ipv6_count,
                    ipv4_prefix_count,
                    ipv6_prefix_count,
                })
            }),
        1 => (enis(), vec(addresses(), 0..2), vec(prefixes(), 0..2))
            .prop_map(|(eni, addresses, prefixes)| Command::EniUnassign(EniUnassign { eni, addresses, prefixes })),
        1 => (enis(), port).prop_map(|(eni, port)| Command::EniAttach(EniAttach { eni, port })),
        1 => enis().prop_map(|eni| Command::EniDetach(EniDetach { eni })),
    ]
}

fn policy() -> impl Strategy<Value = Command> {
    let direction = select(vec![Direction::Ingress, Direction::Egress]);
    let kind = option::of(text(&["normal", "advanced", "other"]));
    prop_oneof![
        4 => (groups(), vpcs(), kind).prop_map(|(id, vpc, kind)| {
            Command::GroupCreate(GroupCreate { id: Some(id), vpc, kind, ..GroupCreate::default() })
        }),
        1 => groups().prop_map(|group| Command::GroupDelete(GroupDelete { group })),
        1 => (groups(), enis()).prop_map(|(group, eni)| Command::GroupJoin(GroupJoin { group, eni })),
        1 => (groups(), enis()).prop_map(|(group, eni)| Command::GroupLeave(GroupLeave { group, eni })),
        4 => (groups(), direction.clone(), vec(rule(), 1..3))
            .prop_map(|(group, direction, rules)| Command::RuleAuthorize(RuleAuthorize { group, direction, rules })),
        2 => (groups(), direction, vec(rule(), 1..2)).prop_map(|(group, direction, rules)| {
            Command::RuleRevoke(RuleRevoke { group, direction: Some(direction), ids: [].into(), rules })
        }),
        3 => (groups(), rule_ids(), rule_change())
            .prop_map(|(group, rule, change)| Command::RuleModify(RuleModify { group, rule, change })),
        1 => (lists(), text(&["ipv4", "ipv6"]), prefixes()).prop_map(|(id, family, cidr)| {
            let entries = vec![PrefixListEntry { cidr, description: None }];
            let (name, description) = ("list".into(), None);
            Command::PrefixListCreate(PrefixListCreate { id: Some(id), name, description, family, max_entries: 3, entries })
        }),
        1 => (lists(), prefixes(), prefixes()).prop_map(|(prefix_list, add, remove)| {
            let add = vec![PrefixListEntry { cidr: add, description: None }];
            Command::PrefixListModify(PrefixListModify { prefix_list, add, remove: vec![remove], ..PrefixListModify::default() })
        }),
        1 => lists().prop_map(|prefix_list| Command::PrefixListDelete(PrefixListDelete { prefix_list })),
        1 => lists().prop_map(|id| Command::PortListCreate(PortListCreate {
            id: Some(id), name: "list".into(), max_entries: 3, ..PortListCreate::default()
        })),
        1 => lists().prop_map(|port_list| Command::PortListDelete(PortListDelete { port_list })),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let single = prop_oneof![1 => network(), 3 => interface(), 3 => policy(), 3 => outside::outside()].boxed();
    prop_oneof![8 => single.clone(), 1 => vec(single, 0..4).prop_map(|commands| Command::Batch(Batch { commands }))]
}

/// What most commands need to have a chance.
fn ground() -> Vec<Command> {
    let group = |id: &str, kind: &str| {
        let (id, vpc, kind) = (Some(id.into()), "vpc-1".into(), Some(kind.into()));
        Command::GroupCreate(GroupCreate { id, vpc, kind, ..GroupCreate::default() })
    };
    let vswitch = |id: &str, cidr: &str, ipv6: Option<&str>| {
        let (id, vpc, ipv6_cidr) = (Some(id.into()), "vpc-1".into(), ipv6.map(String::from));
        Command::VswitchCreate(VswitchCreate { id, vpc, cidr: cidr.into(), ipv6_cidr, ..VswitchCreate::default() })
    };
    vec![
        Command::VpcCreate(VpcCreate {
            id: Some("vpc-1".into()),
            cidr: "10.0.0.0/16".into(),
            ipv6_cidr: Some("2001:db8:1::/56".into()),
            ..VpcCreate::default()
        }),
        vswitch("vsw-1", "10.0.1.0/24", Some("2001:db8:1:1::/64")),
        vswitch("vsw-2", "10.0.2.0/29", None),
        group("sg-1", "basic"),
        group("sg-2", "basic"),
        group("sg-3", "advanced"),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_kept_is_what_is_true(commands in vec(command(), 1..100), together in 1_usize..5, taken_back in 0_usize..4) {
        let store = SharedStore::default();
        let mut authority = StateOwner::load(Box::new(store.clone()), quotas()).unwrap();
        let environment = Environment::fixed(1, 0);
        for command in &ground() {
            authority.change(command, &environment).unwrap();
        }
        for (place, commands) in commands.chunks(together).enumerate() {
            let (model, desired) = (authority.model().clone(), authority.desired().clone());
            for command in commands {
                let before = authority.model().clone();
                if let Err(error) = authority.stage(command, &environment, |_| Vec::new()) {
                    prop_assert!(!error.message.is_empty());
                    prop_assert_eq!(authority.model(), &before);
                }
            }
            let kept = authority.commit();
            prop_assert!(kept.is_ok(), "what the model admits can run: {commands:?}: {kept:?}");
            let kept = kept.unwrap();
            let mut told = desired.clone();
            kept.delta.clone().unwrap_or_default().apply(&mut told);
            prop_assert_eq!(&told, authority.desired());
            prop_assert_eq!(kept.delta.is_some(), told != desired);
            if place % 4 == taken_back {
                authority.undo(kept).unwrap();
                prop_assert_eq!(authority.model(), &model);
                prop_assert_eq!(authority.desired(), &desired);
            }
            let stored = store.clone().load().unwrap();
            prop_assert_eq!(&Model::load(quotas(), stored), authority.model());
            prop_assert_eq!(&Model::load(quotas(), authority.model().events()), authority.model());
            prop_assert_eq!(&desired_state::desired(authority.model()), authority.desired());
        }
    }

    #[test]
    fn no_line_makes_the_reader_panic(line in vec(any::<u8>(), 0..200), op in text(&["vpc-create", "eni-list", "x"])) {
        let _ = control::socket::protocol::read_request(&line);
        let filling = String::from_utf8_lossy(&line).into_owned();
        let request = serde_json::json!({"version": 1, "request": 1, "op": op, "cidr": filling, "vpc": 1});
        let _ = control::socket::protocol::read_request(request.to_string().as_bytes());
    }
}
