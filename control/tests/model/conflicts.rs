//! What the model refuses because of what is there: identifiers that are taken, objects that are missing, in use or
//! fixed, quotas that are met.

use crate::fixture::{answer, base, command, ingress, make, refuses, rule};
use control::command::Command;
use control::environment::Environment;
use control::model::{Model, Quotas};
use serde_json::{Value, json};

#[test]
fn identifiers_are_refused_that_are_taken_or_malformed() {
    let web = |id: &str| json!({"id": id, "protocol": "tcp", "ports": "443/443", "cidr": "10.0.0.0/8"});
    let instance =
        |id: &str| json!({"op": "instance-create", "id": id, "port": "none", "primary": {"vswitch": "vsw-1"}});
    let (code, status) = ("InvalidResourceId.AlreadyExists", 409);
    refuses(&[
        (json!({"op": "vswitch-create", "id": "vsw-2", "vpc": "vpc-1", "cidr": "10.0.9.0/24"}), code, status, "id"),
        (json!({"op": "eni-create", "id": "eni-1", "vswitch": "vsw-1", "groups": ["sg-a"]}), code, status, "id"),
        (json!({"op": "group-create", "id": "sg-c", "vpc": "vpc-1"}), code, status, "id"),
        (
            json!({"op": "prefix-list-create", "id": "pl-4", "name": "five", "family": "ipv4", "max_entries": 1}),
            code,
            status,
            "id",
        ),
        (json!({"op": "port-list-create", "id": "prl-1", "name": "web", "max_entries": 1}), code, status, "id"),
        // The identifier of a rule is one in the region, not in its group (§1.3).
        (
            json!({"op": "rule-authorize", "group": "sg-b", "direction": "ingress", "rules": [web("sgr-1")]}),
            code,
            status,
            "rules[0].id",
        ),
        (json!({"op": "batch", "commands": [instance("i-1"), instance("i-1")]}), code, status, "commands[1].id"),
    ]);
    let (code, status) = ("InvalidResourceId.Malformed", 400);
    refuses(&[
        (json!({"op": "vswitch-create", "id": "sw-1", "vpc": "vpc-1", "cidr": "10.0.9.0/24"}), code, status, "id"),
        (json!({"op": "eni-create", "id": "eni-", "vswitch": "vsw-1", "groups": ["sg-a"]}), code, status, "id"),
        (json!({"op": "group-create", "id": "sg-A", "vpc": "vpc-1"}), code, status, "id"),
        (
            json!({"op": "prefix-list-create", "id": "prl-7", "name": "five", "family": "ipv4", "max_entries": 1}),
            code,
            status,
            "id",
        ),
        (json!({"op": "port-list-create", "id": "pl-7", "name": "web", "max_entries": 1}), code, status, "id"),
        (
            json!({"op": "rule-authorize", "group": "sg-b", "direction": "ingress", "rules": [web("rule-1")]}),
            code,
            status,
            "rules[0].id",
        ),
        (instance("i_1"), code, status, "id"),
    ]);
}

#[test]
fn objects_that_are_not_there_are_neither_changed_nor_removed() {
    let of = |noun: &str, id: &str, code: &'static str, status: u16, changes: &[(&str, Value)]| {
        for (op, more) in changes {
            let mut change = more.clone();
            change["op"] = (*op).into();
            change[noun] = id.into();
            refuses(&[(change, code, status, noun)]);
        }
    };
    let route = json!({"destination": "192.168.0.0/16"});
    let mut to = route.clone();
    to["eni"] = "eni-1".into();
    let name = json!({"name": "web"});
    let nothing = json!({});
    let address = json!({"addresses": ["10.0.1.9"]});
    let vpc = [("vpc-modify", name.clone()), ("vpc-route-add", to), ("vpc-route-remove", route)];
    of("vpc", "vpc-9", "InvalidVpcId.NotFound", 404, &vpc);
    let vswitch = [("vswitch-modify", name.clone()), ("vswitch-delete", nothing.clone())];
    of("vswitch", "vsw-9", "InvalidVSwitchId.NotFound", 404, &vswitch);
    let eni = [
        ("eni-modify", name.clone()),
        ("eni-delete", nothing.clone()),
        ("eni-assign", address.clone()),
        ("eni-unassign", address),
        ("eni-attach", json!({"port": {"kind": "memory"}})),
        ("eni-detach", nothing.clone()),
        ("group-leave", json!({"group": "sg-a"})),
        ("vpc-route-add", json!({"vpc": "vpc-1", "destination": "192.168.0.0/16"})),
    ];
    of("eni", "eni-9", "InvalidEniId.NotFound", 404, &eni);
    let group = [
        ("group-modify", name.clone()),
        ("group-join", json!({"eni": "eni-1"})),
        ("group-leave", json!({"eni": "eni-1"})),
        ("rule-revoke", json!({"ids": ["sgr-1"]})),
        ("rule-modify", json!({"rule": "sgr-1", "change": {"priority": 2}})),
    ];
    of("group", "sg-9", "InvalidSecurityGroupId.NotFound", 404, &group);
    of("prefix_list", "pl-9", "InvalidPrefixListId.NotFound", 404, &[("prefix-list-modify", name.clone())]);
    let port_list = [("port-list-modify", name.clone()), ("port-list-delete", nothing.clone())];
    of("port_list", "prl-9", "InvalidPortRangeListId.NotFound", 400, &port_list);
    let instance = [
        ("instance-modify", name),
        ("instance-run", json!({"running": true})),
        ("instance-delete", nothing.clone()),
        ("instance-attach", json!({"eni": "eni-1"})),
        ("instance-detach", json!({"eni": "eni-1"})),
        ("instance-move", json!({"vswitch": "vsw-1"})),
    ];
    of("instance", "i-9", "InvalidInstanceId.NotFound", 404, &instance);
    of("object", "sg-9", "InvalidParameter", 400, &[("label-modify", json!({"tags": {"a": "1"}}))]);
}

/// A change that the base state takes, and one that is asked of what comes of it.
fn after(first: Value, second: Value) -> Value {
    json!({"op": "batch", "commands": [first, second]})
}

#[test]
fn what_is_in_use_is_not_removed() {
    let route = |destination: &str, eni: &str| json!({"op": "vpc-route-add", "vpc": "vpc-1", "destination": destination, "eni": eni});
    let names = |field: &str, id: &str, more: Value| {
        let mut rule = json!({"protocol": "tcp", "ports": "80/80"});
        rule[field] = id.into();
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"op": "rule-authorize", "group": "sg-b", "direction": "egress", "rules": [rule]})
    };
    let by_ports = json!({"op": "rule-authorize", "group": "sg-e", "direction": "egress", "rules": [
        {"protocol": "udp", "port_list": "prl-2", "cidr": "0.0.0.0/0"}]});
    let port_list = json!({"op": "port-list-create", "id": "prl-2", "name": "dns", "max_entries": 1});
    let delete = |op: &str, noun: &str, id: &str| json!({"op": op, noun: id});
    refuses(&[
        (
            after(delete("vswitch-delete", "vswitch", "vsw-2"), delete("vpc-delete", "vpc", "vpc-2")),
            "DependencyViolation.SecurityGroup",
            400,
            "commands[1]",
        ),
        (
            after(route("192.168.0.0/16", "eni-1"), delete("eni-delete", "eni", "eni-1")),
            "DependencyViolation.RouteEntry",
            400,
            "commands[1]",
        ),
        (
            after(route("192.168.0.0/16", "eni-2"), json!({"op": "eni-delete", "eni": "eni-2", "force": true})),
            "DependencyViolation.RouteEntry",
            400,
            "commands[1]",
        ),
        (
            after(
                route("10.0.9.128/25", "eni-1"),
                json!({"op": "vswitch-create", "vpc": "vpc-1", "cidr": "10.0.9.0/24"}),
            ),
            "InvalidCidrBlock.Overlapped",
            400,
            "commands[1].cidr",
        ),
        // Whether a rule lets pass or drops is no matter to the group that it names (§2.1).
        (
            after(names("group", "sg-n", json!({"policy": "drop"})), delete("group-delete", "group", "sg-n")),
            "DependencyViolation",
            403,
            "commands[1]",
        ),
        (
            after(names("prefix_list", "pl-6", json!({})), delete("prefix-list-delete", "prefix_list", "pl-6")),
            "NotAllowed.AssociationExist",
            400,
            "commands[1]",
        ),
        (
            json!({"op": "batch", "commands": [port_list, by_ports, delete("port-list-delete", "port_list", "prl-2")]}),
            "InvalidPortRangeListId.AssociationExist",
            400,
            "commands[2]",
        ),
    ]);
}

#[test]
fn what_is_no_longer_in_use_is_removed() {
    let delete = |op: &str, noun: &str, id: &str| json!({"op": op, noun: id});
    let (mut model, environment) = base();
    let rules = json!({"op": "rule-revoke", "group": "sg-a", "ids": ["sgr-2", "sgr-3"]});
    let out = json!({"op": "group-leave", "group": "sg-b", "eni": "eni-2"});
    let ends = [
        rules,
        out,
        delete("group-delete", "group", "sg-b"),
        delete("prefix-list-delete", "prefix_list", "pl-4"),
        delete("port-list-delete", "port_list", "prl-1"),
        json!({"op": "vpc-route-add", "vpc": "vpc-1", "destination": "192.168.0.0/16", "eni": "eni-1"}),
        json!({"op": "vpc-route-remove", "vpc": "vpc-1", "destination": "192.168.0.0/16"}),
        delete("eni-delete", "eni", "eni-1"),
        delete("vswitch-delete", "vswitch", "vsw-2"),
        delete("group-delete", "group", "sg-c"),
        delete("vpc-delete", "vpc", "vpc-2"),
    ];
    ends.into_iter().for_each(|end| make(&mut model, &environment, end));
    let state = answer(&model, json!({"op": "state-show"}));
    let count = |kind: &str| state["state"][kind].as_array().unwrap().len();
    assert_eq!(["vpcs", "vswitches", "groups", "enis", "prefix_lists", "port_lists"].map(count), [1, 1, 4, 1, 2, 0]);
}

#[test]
fn instances_are_refused_what_their_state_forbids() {
    let instance = |more: Value| {
        let mut all = json!({"op": "instance-create", "id": "i-1", "port": "none",
            "primary": {"id": "eni-p", "vswitch": "vsw-1", "groups": ["sg-a"]}});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let stopped = || instance(json!({}));
    let running = || instance(json!({"running": true}));
    let pair = |op: &str, eni: &str| json!({"op": op, "instance": "i-1", "eni": eni});
    let run = |running: bool| json!({"op": "instance-run", "instance": "i-1", "running": running});
    let moved = json!({"op": "instance-move", "instance": "i-1", "vswitch": "vsw-2", "groups": ["sg-c"]});
    let delete = |force: bool| json!({"op": "instance-delete", "instance": "i-1", "force": force});
    let other = json!({"op": "eni-create", "id": "eni-3", "vswitch": "vsw-2", "groups": ["sg-c"]});
    let three = |one: Value, two: Value, three: Value| json!({"op": "batch", "commands": [one, two, three]});
    let routed = json!({"op": "vpc-route-add", "vpc": "vpc-1", "destination": "192.168.0.0/16", "eni": "eni-p"});
    let more = json!({"op": "eni-assign", "eni": "eni-p", "ipv4_count": 1});
    refuses(&[
        (instance(json!({"name": "1"})), "InvalidInstanceName.Malformed", 400, "name"),
        (instance(json!({"host_name": "-web"})), "InvalidHostName.Malformed", 400, "host_name"),
        (instance(json!({"description": "https://x"})), "InvalidDescription.Malformed", 400, "description"),
        (after(stopped(), run(false)), "IncorrectInstanceStatus", 403, "commands[1]"),
        (after(running(), run(true)), "IncorrectInstanceStatus", 403, "commands[1]"),
        (
            after(stopped(), json!({"op": "instance-run", "instance": "i-1", "running": true, "again": true})),
            "IncorrectInstanceStatus",
            403,
            "commands[1]",
        ),
        (after(running(), delete(false)), "IncorrectInstanceStatus", 403, "commands[1]"),
        (
            after(instance(json!({"deletion_protection": true})), delete(true)),
            "InvalidOperation.DeletionProtection",
            403,
            "commands[1]",
        ),
        (three(stopped(), routed, delete(false)), "DependencyViolation.RouteEntry", 400, "commands[2]"),
        (after(running(), moved.clone()), "IncorrectInstanceStatus", 403, "commands[1]"),
        (three(stopped(), pair("instance-attach", "eni-1"), moved.clone()), "OperationDenied", 403, "commands[2]"),
        (three(stopped(), more, moved), "OperationDenied", 403, "commands[2]"),
        (after(stopped(), pair("instance-attach", "eni-2")), "InvalidOperation.InvalidEniState", 400, "commands[1]"),
        (after(stopped(), pair("instance-attach", "eni-p")), "InvalidOperation.InvalidEniState", 400, "commands[1]"),
        (three(stopped(), other, pair("instance-attach", "eni-3")), "InvalidOperation.VpcMismatch", 403, "commands[2]"),
        (after(stopped(), pair("instance-detach", "eni-1")), "InvalidOperation.InvalidEniState", 400, "commands[1]"),
        (
            after(stopped(), pair("instance-detach", "eni-p")),
            "InvalidOperation.DetachPrimaryEniNotAllowed",
            400,
            "commands[1]",
        ),
        (
            after(stopped(), json!({"op": "eni-delete", "eni": "eni-p", "force": true})),
            "InvalidOperation.InvalidEniState",
            400,
            "commands[1]",
        ),
    ]);
}

/// What is fixed when an object is made is no word of the changes of it (§1.1, §1.6, §1.7), or refused.
#[test]
fn what_is_fixed_does_not_change() {
    for (change, field) in [
        (json!({"op": "vswitch-modify", "vswitch": "vsw-1", "cidr": "10.0.2.0/24"}), "cidr"),
        (json!({"op": "eni-modify", "eni": "eni-1", "primary_ip": "10.0.1.9"}), "primary_ip"),
        (json!({"op": "eni-modify", "eni": "eni-1", "mac": "02:00:00:00:00:09"}), "mac"),
        (json!({"op": "eni-modify", "eni": "eni-1", "vswitch": "vsw-2"}), "vswitch"),
        (json!({"op": "group-modify", "group": "sg-a", "kind": "enterprise"}), "kind"),
        (json!({"op": "group-modify", "group": "sg-a", "vpc": "vpc-2"}), "vpc"),
        (json!({"op": "prefix-list-modify", "prefix_list": "pl-4", "family": "ipv6"}), "family"),
        (json!({"op": "prefix-list-modify", "prefix_list": "pl-4", "max_entries": 9}), "max_entries"),
        (json!({"op": "port-list-modify", "port_list": "prl-1", "max_entries": 9}), "max_entries"),
    ] {
        let error = serde_json::from_value::<Command>(change.clone()).unwrap_err().to_string();
        assert!(error.contains(&format!("unknown field `{field}`")), "{change}: {error}");
    }
    let ipv6 = |block: &str| json!({"op": "vswitch-modify", "vswitch": "vsw-1", "ipv6_cidr": block});
    refuses(&[
        (ipv6("2001:db8:1:2::/64"), "OperationFailed.CidrInUse", 400, "ipv6_cidr"),
        (ipv6(""), "OperationFailed.CidrInUse", 400, "ipv6_cidr"),
        (
            json!({"op": "rule-modify", "group": "sg-a", "rule": "sgr-3", "change": {"ports": "80/80"}}),
            "InvalidOperation.ModifyPortRangeType",
            400,
            "change.ports",
        ),
        (
            json!({"op": "rule-modify", "group": "sg-a", "rule": "sgr-3", "change": {"cidr": "10.0.0.0/8"}}),
            "InvalidOperation.ModifySgRuleEntityType",
            400,
            "change.cidr",
        ),
        (
            json!({"op": "rule-modify", "group": "sg-a", "rule": "sgr-2", "change": {"group": "sg-a"}}),
            "InvalidParamter.Conflict",
            403,
            "change.group",
        ),
        (
            json!({"op": "rule-modify", "group": "sg-a", "rule": "sgr-2", "change": {"group": "sg-c"}}),
            "InvalidSourceGroupId.Mismatch",
            400,
            "change.group",
        ),
        (
            json!({"op": "rule-modify", "group": "sg-a", "rule": "sgr-3", "change": {"prefix_list": "pl-9"}}),
            "InvalidPrefixListId.NotFound",
            404,
            "change.prefix_list",
        ),
        (
            rule("egress", json!({"protocol": "all", "group": "sg-a"})),
            "InvalidSecurityGroup.IsSame",
            403,
            "rules[0].group",
        ),
        (
            rule("egress", json!({"protocol": "all", "group": "sg-c"})),
            "InvalidDestGroupId.Mismatch",
            400,
            "rules[0].group",
        ),
    ]);
    // What it has already is no change.
    let (model, environment) = base();
    assert_eq!(model.decide(&command(ipv6("2001:db8:1:1::/64")), &environment), Ok(vec![]));
}

#[test]
fn addresses_have_one_interface_and_are_taken_from_it_alone() {
    let assign = |addresses: &[&str]| json!({"op": "eni-assign", "eni": "eni-1", "addresses": addresses});
    let delegate = |prefixes: &[&str]| json!({"op": "eni-assign", "eni": "eni-1", "prefixes": prefixes});
    let take = |addresses: &[&str]| json!({"op": "eni-unassign", "eni": "eni-1", "addresses": addresses});
    refuses(&[
        // The primary address of the other interface, and its IPv6 address.
        (assign(&["10.0.1.9", "10.0.1.2"]), "InvalidIp.IpAssigned", 403, "addresses[1]"),
        (assign(&["2001:db8:1:1::1"]), "InvalidIp.IpAssigned", 403, "addresses[0]"),
        (assign(&["10.0.1.1"]), "InvalidIp.IpRepeated", 403, "addresses[0]"),
        (assign(&["10.0.2.1"]), "InvalidVSwitchId.IpInvalid", 403, "addresses[0]"),
        (assign(&["2001:db8:1:2::9"]), "InvalidVSwitchId.IpInvalid", 403, "addresses[0]"),
        (assign(&["nine"]), "InvalidIp.Address", 403, "addresses[0]"),
        (json!({"op": "eni-assign", "eni": "eni-1", "ipv6_count": 11}), "MaxEniIpv6IpsCountExceeded", 403, ""),
        // The first /28 holds the primary addresses of both.
        (delegate(&["10.0.1.0/28"]), "InvalidIp.IpRepeated", 403, "prefixes[0]"),
        (delegate(&["10.0.1.16/28", "10.0.1.16/28"]), "InvalidIp.IpRepeated", 403, "prefixes[1]"),
        (delegate(&["10.0.1.17/28"]), "InvalidParameter", 400, "prefixes[0]"),
        (delegate(&["2001:db8:1:1:1::/64"]), "InvalidParameter", 400, "prefixes[0]"),
        (
            after(delegate(&["10.0.1.16/28"]), assign(&["10.0.1.20"])),
            "InvalidIp.IpRepeated",
            403,
            "commands[1].addresses[0]",
        ),
        (take(&["10.0.1.2"]), "InvalidIp.IpUnassigned", 403, "addresses[0]"),
        (take(&["2001:db8:1:1::1"]), "InvalidIp.IpUnassigned", 403, "addresses[0]"),
        (take(&[]), "MissingParameter", 400, "addresses"),
        (
            json!({"op": "eni-unassign", "eni": "eni-1", "prefixes": ["10.0.1.16/28"]}),
            "InvalidIp.IpUnassigned",
            403,
            "prefixes[0]",
        ),
    ]);
    // An address that was given back is free for another.
    let (mut model, environment) = base();
    let other = json!({"op": "eni-assign", "eni": "eni-2", "addresses": ["10.0.1.9"]});
    make(&mut model, &environment, assign(&["10.0.1.9"]));
    assert_eq!(model.decide(&command(other.clone()), &environment).unwrap_err().code, "InvalidIp.IpAssigned");
    make(&mut model, &environment, take(&["10.0.1.9"]));
    make(&mut model, &environment, other);
    assert_eq!(answer(&model, json!({"op": "eni-show", "eni": "eni-2"}))["eni"]["secondary_ips"], json!(["10.0.1.9"]));
}

#[test]
fn an_object_holds_at_most_20_tags() {
    let label = |more: Value| {
        let mut all = json!({"op": "label-modify", "object": "sg-a"});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let tags = |count: u8| (0..count).map(|place| (format!("k{place}"), json!("v"))).collect::<serde_json::Map<_, _>>();
    refuses(&[(label(json!({"tags": tags(21)})), "QuotaExceed.Tags", 403, "tags")]);
    let (mut model, environment) = base();
    make(&mut model, &environment, label(json!({"tags": tags(20)})));
    let one_more = label(json!({"tags": {"other": ""}}));
    assert_eq!(model.decide(&command(one_more), &environment).unwrap_err().code, "QuotaExceed.Tags");
    // A key that is there gets the new value, and what goes makes room.
    make(&mut model, &environment, label(json!({"tags": {"k0": "w"}})));
    make(&mut model, &environment, label(json!({"tags": {"other": ""}, "untag": ["k1"]})));
    assert_eq!(model.decide(&command(label(json!({"tags": {"k0": "w"}}))), &environment), Ok(vec![]));
    make(&mut model, &environment, label(json!({"untag_all": true})));
    make(&mut model, &environment, label(json!({"tags": tags(20)})));
}

#[test]
fn settings_keep_to_their_limits_and_are_no_accounts() {
    let settings = |more: Value| {
        let mut all = json!({"op": "settings-modify"});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    refuses(&[
        (settings(json!({"icmp_timeout_s": 911})), "InvalidParameter", 400, "icmp_timeout_s"),
        (settings(json!({"tcp_half_open_timeout_s": 0})), "InvalidParameter", 400, "tcp_half_open_timeout_s"),
        (settings(json!({"tcp_half_open_timeout_s": 911})), "InvalidParameter", 400, "tcp_half_open_timeout_s"),
        (
            json!({"op": "on-behalf", "owner": "2", "region": "", "command": settings(json!({"smtp_closed": true}))}),
            "Forbidden.Unauthorized",
            403,
            "command",
        ),
    ]);
    // The choices of §10, until somebody makes another.
    let (mut model, environment) = base();
    let shown = |model: &Model| answer(model, json!({"op": "settings-show"}))["settings"].clone();
    let before = shown(&model);
    for (name, value) in [
        ("intra_group_egress_bypass", json!(true)),
        ("cut_sessions_on_deny", json!(true)),
        ("smtp_closed", json!(false)),
        ("follow_first_fragment", json!(true)),
        ("pmtud_exempt", json!("session")),
        ("tcp_half_open_timeout_s", json!(30)),
        ("icmp_timeout_s", json!(30)),
    ] {
        assert_eq!(before[name], value, "{name}");
    }
    assert_eq!(model.decide(&command(settings(json!({}))), &environment), Ok(vec![]));
    let change = json!({"tcp_half_open_timeout_s": 910, "icmp_timeout_s": 1, "smtp_closed": true});
    make(&mut model, &environment, settings(change.clone()));
    let mut expected = before;
    expected.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    assert_eq!(shown(&model), expected);
}

/// A VPC with a subnet, a group and an interface, made under these quotas.
fn under(quotas: Quotas) -> (Model, Environment) {
    let environment = Environment::fixed(0, 0);
    let mut model = Model::new(quotas);
    for value in [
        json!({"op": "vpc-create", "id": "vpc-1", "cidr": "10.0.0.0/16"}),
        json!({"op": "vswitch-create", "id": "vsw-1", "vpc": "vpc-1", "cidr": "10.0.1.0/24"}),
        json!({"op": "group-create", "id": "sg-a", "vpc": "vpc-1"}),
        json!({"op": "group-create", "id": "sg-b", "vpc": "vpc-1"}),
        json!({"op": "prefix-list-create", "id": "pl-1", "name": "list", "family": "ipv4", "max_entries": 1}),
        json!({"op": "port-list-create", "id": "prl-1", "name": "list", "max_entries": 5}),
        json!({"op": "eni-create", "id": "eni-1", "vswitch": "vsw-1", "groups": ["sg-a"]}),
        json!({"op": "vpc-route-add", "vpc": "vpc-1", "destination": "192.168.0.0/16", "eni": "eni-1"}),
        ingress(json!({"protocol": "all", "prefix_list": "pl-1"})),
    ] {
        make(&mut model, &environment, value);
    }
    (model, environment)
}

#[test]
fn one_more_than_a_quota_is_refused() {
    let route =
        |destination: &str| json!({"op": "vpc-route-add", "vpc": "vpc-1", "destination": destination, "eni": "eni-1"});
    let ports: Vec<Value> = (1..=3).map(|port| json!({"ports": format!("{port}/{port}")})).collect();
    let one = Quotas {
        vswitches_per_vpc_max: 1,
        routes_per_vpc_max: 1,
        enis_max: 1,
        prefix_lists_max: 1,
        port_lists_max: 1,
        prefix_list_groups_max: 1,
        port_list_entries_per_call_max: 2,
        secondary_ipv4_per_eni_max: 1,
        ..Quotas::default()
    };
    let (mut model, environment) = under(one);
    let named = json!({"op": "rule-authorize", "group": "sg-b", "direction": "egress", "rules": [
        {"protocol": "all", "prefix_list": "pl-1"}]});
    for (value, code, status) in [
        (json!({"op": "vswitch-create", "vpc": "vpc-1", "cidr": "10.0.2.0/24"}), "QuotaExceeded.VSwitch", 400),
        (route("192.169.0.0/16"), "QuotaExceeded.RouteEntry", 400),
        (json!({"op": "eni-create", "vswitch": "vsw-1", "groups": ["sg-a"]}), "MaxEniCountExceeded", 403),
        (
            json!({"op": "prefix-list-create", "name": "two", "family": "ipv4", "max_entries": 1}),
            "LimitExceed.PrefixListPerRegion",
            404,
        ),
        (json!({"op": "port-list-create", "name": "two", "max_entries": 1}), "InvalidOperation.MaxCountExceed", 400),
        (json!({"op": "port-list-modify", "port_list": "prl-1", "add": ports}), "LimitExceed.Entry", 400),
        (named, "LimitExceed.PrefixListAssociationResource", 403),
        (json!({"op": "eni-assign", "eni": "eni-1", "ipv4_count": 2}), "MaxEniPrivateIpsCountExceeded", 403),
    ] {
        let error = model.decide(&command(value.clone()), &environment).unwrap_err();
        assert_eq!((error.code, error.status), (code, status), "{value}");
    }
    // What replaces is not one more.
    make(&mut model, &environment, route("192.168.0.0/16"));
    make(&mut model, &environment, ingress(json!({"protocol": "tcp", "ports": "1/1", "prefix_list": "pl-1"})));
}

#[test]
fn an_instance_has_at_most_eight_interfaces() {
    let (mut model, environment) = base();
    let primary = json!({"vswitch": "vsw-1", "groups": ["sg-a"]});
    make(&mut model, &environment, json!({"op": "instance-create", "id": "i-1", "port": "none", "primary": primary}));
    let attach = |model: &mut Model, place: u8| {
        let id = format!("eni-s{place}");
        let create = json!({"op": "eni-create", "id": id, "vswitch": "vsw-1", "groups": ["sg-a"]});
        make(model, &environment, create);
        json!({"op": "instance-attach", "instance": "i-1", "eni": id})
    };
    for place in 1..8 {
        let next = attach(&mut model, place);
        make(&mut model, &environment, next);
    }
    let ninth = command(attach(&mut model, 8));
    let error = model.decide(&ninth, &environment).unwrap_err();
    assert_eq!((error.code, error.status), ("EniPerInstanceLimitExceeded", 403));
    make(&mut model, &environment, json!({"op": "instance-detach", "instance": "i-1", "eni": "eni-s3"}));
    assert!(model.decide(&ninth, &environment).is_ok());
}
