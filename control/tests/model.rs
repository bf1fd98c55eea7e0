//! What the model does with commands it accepts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "model/conflicts.rs"]
mod conflicts;
mod fixture;
#[path = "model/lists.rs"]
mod lists;
#[path = "model/outside.rs"]
mod outside;

use control::environment::Environment;
use control::model::{Model, Quotas};
use fixture::{answer, base, command, ingress, make, refuses};
use serde_json::{Value, json};

#[test]
fn a_batch_is_made_whole_or_not_at_all() {
    refuses(&[
        (
            json!({"op": "batch", "commands": [
                {"op": "vpc-create", "id": "vpc-3", "cidr": "10.0.0.0/16"},
                {"op": "group-create", "vpc": "vpc-3"},
                {"op": "vpc-delete", "vpc": "vpc-4"}]}),
            "InvalidVpcId.NotFound",
            404,
            "commands[2].vpc",
        ),
        (json!({"op": "batch", "commands": [{"op": "batch", "commands": []}]}), "InvalidParameter", 400, "commands[0]"),
    ]);
    let (mut model, environment) = base();
    make(
        &mut model,
        &environment,
        json!({"op": "batch", "commands": [
        {"op": "rule-revoke", "group": "sg-a", "ids": ["sgr-2"]},
        {"op": "group-leave", "group": "sg-b", "eni": "eni-2"},
        {"op": "group-delete", "group": "sg-b"}]}),
    );
    assert_eq!(answer(&model, json!({"op": "group-list", "vpc": "vpc-1"}))["groups"].as_array().unwrap().len(), 4);
}

#[test]
fn equal_rules_are_one_rule() {
    let (mut model, environment) = base();
    for again in [
        json!({"protocol": "TCP", "ports": "22/22", "cidr": "10.0.0.0/8", "priority": 1, "policy": "Accept"}),
        json!({"protocol": "6", "ports": "22/22", "cidr": "10.1.2.3/8", "description": "again"}),
        // A prefix hides a group and a list; a range hides a port list.
        json!({"protocol": "tcp", "ports": "22/22", "port_list": "prl-1", "cidr": "10.0.0.0/8", "group": "sg-b"}),
    ] {
        assert_eq!(model.decide(&command(ingress(again)), &environment), Ok(vec![]));
    }
    make(
        &mut model,
        &environment,
        ingress(json!({"id": "sgr-4", "protocol": "tcp", "ports": "22/22", "cidr": "10.0.0.0/8", "priority": 2})),
    );
    let twin = json!({"op": "rule-modify", "group": "sg-a", "rule": "sgr-4", "change": {"priority": 1}});
    let error = model.decide(&command(twin), &environment).unwrap_err();
    assert_eq!(error.code, "InvalidOperation.RuleDuplicate");
    make(&mut model, &environment, ingress(json!({"protocol": "all", "ipv6_cidr": "2408:180:0000::1"})));
    let same = ingress(json!({"protocol": "all", "cidr": "2408:180::1/128"}));
    assert_eq!(model.decide(&command(same), &environment), Ok(vec![]));
    let revoke = json!({"op": "rule-revoke", "group": "sg-a", "direction": "ingress", "rules": [
        {"protocol": "tcp", "ports": "22/22", "cidr": "10.0.0.0/8", "priority": 2}]});
    make(&mut model, &environment, revoke);
    let rules = answer(&model, json!({"op": "rule-list", "group": "sg-a", "direction": "ingress"}));
    let ids: Vec<&str> = rules["rules"].as_array().unwrap().iter().map(|rule| rule["id"].as_str().unwrap()).collect();
    assert!(!ids.contains(&"sgr-4") && ids.contains(&"sgr-1"), "{ids:?}");
}

#[test]
fn rules_are_shown_as_they_were_entered() {
    let (mut model, environment) = base();
    make(&mut model, &environment, ingress(json!({"id": "sgr-5", "protocol": "icmpv6", "ipv6_cidr": "2408:180:0::1"})));
    make(
        &mut model,
        &environment,
        ingress(json!({"id": "sgr-6", "protocol": "132", "cidr": "10.159.6.18/12", "policy": "DROP"})),
    );
    let rules = answer(&model, json!({"op": "rule-list", "group": "sg-a"}));
    let shown = |id: &str| rules["rules"].as_array().unwrap().iter().find(|rule| rule["id"] == id).unwrap().clone();
    assert_eq!(shown("sgr-5")["cidr"], "2408:180::1/128");
    assert_eq!(shown("sgr-5")["protocol"], "ICMPv6");
    assert_eq!(shown("sgr-5")["ports"], "-1/-1");
    assert_eq!(shown("sgr-6")["cidr"], "10.159.6.18/12");
    assert_eq!(shown("sgr-6")["protocol"], "132");
    assert_eq!(shown("sgr-6")["policy"], "drop");
    assert_eq!(shown("sgr-3")["port_list"], "prl-1");
    assert_eq!(shown("sgr-3")["created"], "2026-11-23T12:42:12Z");
    assert_eq!(rules["rules"][0]["id"], "sgr-6", "a drop comes before an accept of the same priority");
}

#[test]
fn addresses_are_chosen_from_the_lowest() {
    let (mut model, environment) = base();
    make(
        &mut model,
        &environment,
        json!({"op": "eni-create", "id": "eni-3", "vswitch": "vsw-1", "groups": ["sg-a"],
        "prefixes": ["10.0.1.16/28", "2001:db8:1:1:1::/80"], "ipv6_count": 2}),
    );
    let eni = &answer(&model, json!({"op": "eni-show", "eni": "eni-3"}))["eni"];
    assert_eq!(eni["primary_ip"], "10.0.1.3");
    assert_eq!(eni["ipv6_addresses"], json!(["2001:db8:1:1::2", "2001:db8:1:1::3"]));
    make(&mut model, &environment, json!({"op": "eni-assign", "eni": "eni-1", "ipv4_count": 13}));
    let eni = &answer(&model, json!({"op": "eni-show", "eni": "eni-1"}))["eni"];
    let last = eni["secondary_ips"].as_array().unwrap().last().unwrap();
    assert_eq!(last, "10.0.1.32", "the delegated prefix is left out");
    // A /29 has four addresses: one network address and the last three are the cloud's.
    for _ in 0..4 {
        make(&mut model, &environment, json!({"op": "eni-create", "vswitch": "vsw-2", "groups": ["sg-c"]}));
    }
    let full = json!({"op": "eni-create", "vswitch": "vsw-2", "groups": ["sg-c"]});
    assert_eq!(model.decide(&command(full), &environment).unwrap_err().code, "InvalidVSwitchId.IpNotEnough");
    let vswitch = &answer(&model, json!({"op": "vswitch-show", "vswitch": "vsw-1"}))["vswitch"];
    assert_eq!(vswitch["gateway"], "10.0.1.253");
    assert_eq!(vswitch["ipv6_gateway"], "2001:db8:1:1:ffff:ffff:ffff:fffd");
}

#[test]
fn an_interface_without_groups_joins_the_default_group() {
    let (mut model, environment) = base();
    make(&mut model, &environment, json!({"op": "eni-create", "id": "eni-3", "vswitch": "vsw-1"}));
    make(&mut model, &environment, json!({"op": "eni-create", "id": "eni-4", "vswitch": "vsw-1"}));
    let enis = answer(&model, json!({"op": "eni-list"}));
    let groups = |place: usize| enis["enis"][place]["groups"].clone();
    assert_eq!(groups(2), groups(3));
    let group = answer(&model, json!({"op": "group-show", "group": groups(2)[0]}));
    assert_eq!(group["group"]["is_default"], true);
    let rules = group["group"]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 3);
    assert!(rules.iter().all(|rule| rule["priority"] == 100 && rule["description"] == "System created rule."));
}

#[test]
fn quotas_are_kept() {
    let environment = Environment::fixed(0, 0);
    let quotas = Quotas {
        groups_max: 2,
        rules_per_eni_max: 3,
        group_objects_per_group_max: 0,
        groups_per_eni_max: 1,
        basic_group_addresses_max: 2,
        ..Quotas::default()
    };
    let mut model = Model::new(quotas);
    for value in [
        json!({"op": "vpc-create", "id": "vpc-1", "cidr": "10.0.0.0/16"}),
        json!({"op": "vswitch-create", "id": "vsw-1", "vpc": "vpc-1", "cidr": "10.0.1.0/24"}),
        json!({"op": "group-create", "id": "sg-a", "vpc": "vpc-1"}),
        json!({"op": "group-create", "id": "sg-b", "vpc": "vpc-1"}),
        json!({"op": "eni-create", "id": "eni-1", "vswitch": "vsw-1", "groups": ["sg-a"]}),
    ] {
        make(&mut model, &environment, value);
    }
    let rules = |count: u16| {
        let rules: Vec<Value> = (1..=count)
            .map(|port| json!({"protocol": "tcp", "ports": format!("{port}/{port}"), "cidr": "0.0.0.0/0"}))
            .collect();
        json!({"op": "rule-authorize", "group": "sg-a", "direction": "egress", "rules": rules})
    };
    for (value, code) in [
        (json!({"op": "group-create", "vpc": "vpc-1"}), "QuotaExceed.SecurityGroup"),
        (rules(4), "AuthorizationLimitExceed"),
        (ingress(json!({"protocol": "all", "group": "sg-b"})), "AuthorizedGroupRule.LimitExceed"),
        (json!({"op": "group-join", "group": "sg-b", "eni": "eni-1"}), "InstanceSecurityGroupLimitExceeded"),
        (json!({"op": "eni-modify", "eni": "eni-1", "groups": ["sg-a", "sg-b"]}), "JoinedGroupLimitExceed"),
        (json!({"op": "eni-assign", "eni": "eni-1", "ipv4_count": 2}), "SecurityGroupInstanceLimitExceed"),
    ] {
        assert_eq!(model.decide(&command(value.clone()), &environment).unwrap_err().code, code, "{value}");
    }
    make(&mut model, &environment, rules(3));
    // A quota that is met refuses more, and nothing else.
    assert_eq!(model.decide(&command(rules(3)), &environment), Ok(vec![]));
}

#[test]
fn quotas_are_those_of_an_account_in_a_region() {
    let environment = Environment::fixed(0, 0);
    let mut model = Model::new(Quotas { groups_max: 2, vpcs_max: 1, ..Quotas::default() });
    let of = |owner: &str, region: &str, command: Value| json!({"op": "on-behalf", "owner": owner, "region": region, "command": command});
    make(&mut model, &environment, json!({"op": "vpc-create", "id": "vpc-1", "cidr": "10.0.0.0/16"}));
    let group = json!({"op": "group-create", "vpc": "vpc-1"});
    for (owner, region) in [("", ""), ("2", ""), ("", "cn-beijing")] {
        make(&mut model, &environment, of(owner, region, group.clone()));
        make(&mut model, &environment, of(owner, region, group.clone()));
        let error = model.decide(&command(of(owner, region, group.clone())), &environment).unwrap_err();
        assert_eq!(error.code, "QuotaExceed.SecurityGroup", "{owner:?} {region:?}");
    }
    // What a batch takes away makes room for what it makes; all of it counts, not each alone.
    let batch = |commands: Vec<Value>| of("3", "", json!({"op": "batch", "commands": commands}));
    let three = vec![group.clone(), group.clone(), group.clone()];
    assert!(model.decide(&command(batch(three)), &environment).is_err());
    let first = model.decide(&command(json!({"op": "vpc-create", "cidr": "10.1.0.0/16"})), &environment);
    assert_eq!(first.unwrap_err().code, "QuotaExceeded.Vpc");
    let instead = vec![
        json!({"op": "group-delete", "group": "sg-000000000002"}),
        json!({"op": "group-create", "id": "sg-new", "vpc": "vpc-1"}),
    ];
    let instead = json!({"op": "batch", "commands": instead});
    assert!(model.decide(&command(instead), &environment).is_ok());
}

#[test]
fn delegated_prefixes_are_the_lowest_free_ones() {
    let (mut model, environment) = base();
    let assign =
        |count: u8| json!({"op": "eni-assign", "eni": "eni-1", "ipv4_prefix_count": count, "ipv6_prefix_count": 1});
    make(&mut model, &environment, json!({"op": "eni-assign", "eni": "eni-2", "addresses": ["10.0.1.40"]}));
    make(&mut model, &environment, assign(2));
    let shown = answer(&model, json!({"op": "eni-show", "eni": "eni-1"}));
    // The first block holds the primary addresses and the third one of another interface.
    let expected = json!(["10.0.1.16/28", "10.0.1.48/28", "2001:db8:1:1:1::/80"]);
    assert_eq!(shown["eni"]["prefixes"], expected, "{shown}");
    let error = model.decide(&command(assign(20)), &environment).unwrap_err();
    assert_eq!(error.code, "InvalidOperation.Ipv4CountExceeded", "{error}");
}

#[test]
fn a_group_can_be_given_to_a_service_and_back() {
    let (mut model, environment) = base();
    let give = |managed: bool| json!({"op": "group-modify", "group": "sg-a", "service_managed": managed});
    let rule = ingress(json!({"protocol": "tcp", "ports": "1/1", "cidr": "0.0.0.0/0"}));
    make(&mut model, &environment, give(true));
    let error = model.decide(&command(rule.clone()), &environment).unwrap_err();
    assert_eq!(error.code, "InvalidOperation.ResourceManagedByCloudProduct");
    // Said again that the service has it, the group is the service's still, and nothing else of it changes (§7).
    assert_eq!(model.decide(&command(give(true)), &environment), Ok(vec![]));
    for (field, value) in [("name", "mine"), ("description", "mine"), ("inner_access", "drop")] {
        let mut change = give(true);
        change[field] = value.into();
        let error = model.decide(&command(change), &environment).unwrap_err();
        assert_eq!(error.code, "InvalidOperation.ResourceManagedByCloudProduct", "{field}");
    }
    make(&mut model, &environment, give(false));
    assert!(model.decide(&command(rule), &environment).is_ok());
}

/// What is accepted and cannot work is said once, when it comes about.
#[test]
fn a_change_that_leaves_something_that_cannot_work_says_so() {
    let (mut model, environment) = base();
    let mut warnings = |value: serde_json::Value| {
        let events = model.decide(&command(value), &environment).unwrap();
        let undo = model.undo(&events);
        events.into_iter().for_each(|event| model.apply(event));
        model.warnings(&undo)
    };
    let route = |eni: &str| json!({"op": "vpc-route-add", "vpc": "vpc-1", "destination": "0.0.0.0/0", "eni": eni});
    let check = |eni: &str, check: bool| json!({"op": "eni-modify", "eni": eni, "source_dest_check": check});
    // Where nothing was said, what is routed to an interface counts as its own.
    assert!(warnings(route("eni-2")).is_empty());
    let told = warnings(check("eni-2", true));
    assert!(told.len() == 1 && told[0].contains("sluice eni modify eni-2 --source-dest-check false"), "{told:?}");
    // What nothing was changed of is not said again.
    assert!(warnings(json!({"op": "vpc-modify", "vpc": "vpc-1", "name": "lab"})).is_empty());
    assert!(warnings(check("eni-2", false)).is_empty());
    let told = warnings(check("eni-2", true));
    assert!(told.len() == 1 && told[0].contains("0.0.0.0/0 to eni-2"), "{told:?}");
    assert!(warnings(check("eni-2", false)).is_empty());
    let told = warnings(json!({"op": "eni-detach", "eni": "eni-2"}));
    assert!(told.len() == 1 && told[0].contains("sluice eni attach eni-2"), "{told:?}");
    assert!(warnings(check("eni-1", true)).is_empty());
    let told = warnings(route("eni-1"));
    assert_eq!(told.len(), 2, "checked, and attached to nothing: {told:?}");
    let tap = json!({"kind": "tap", "device": "tap0", "configure": false});
    let told = warnings(json!({"op": "eni-attach", "eni": "eni-1", "port": tap}));
    assert!(told.len() == 1 && told[0].contains("ip link set tap0 address 02:00:00:00:00:01"), "{told:?}");
    let tracking = json!({"sessions_guaranteed": 20});
    let told = warnings(json!({"op": "eni-modify", "eni": "eni-1", "sessions_max": 10, "tracking": tracking}));
    assert!(told.len() == 1 && told[0].contains("may hold only 10"), "{told:?}");
}

/// What is undone comes back in the order in which it went: what had an address first has it again before the one that
/// took it over is gone.
#[test]
fn an_address_that_was_taken_over_is_given_back() {
    let (mut model, environment) = base();
    let first = json!({"op": "eni-create", "id": "eni-8", "vswitch": "vsw-1", "groups": ["sg-a"],
                       "primary_ip": "10.0.1.80", "mac": "02:00:00:00:00:80"});
    let mut second = first.clone();
    second["id"] = json!("eni-9");
    make(&mut model, &environment, first);
    let before = model.clone();
    let over = json!({"op": "batch", "commands": [{"op": "eni-delete", "eni": "eni-8"}, second]});
    let events = model.decide(&command(over), &environment).unwrap();
    let undo = model.undo(&events);
    events.into_iter().chain(undo).for_each(|event| model.apply(event));
    assert_eq!(model, before);
    assert!(model.decide(&command(second), &environment).is_err());
}
