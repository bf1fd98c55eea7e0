//! What the model shows of each kind of object, by filter and one by one.

use crate::fixture::{answer, base, command, make};
use control::socket::query::Query;
use serde_json::{Value, json};

/// The identifiers of a list, in its order.
fn ids(answer: &Value, kind: &str) -> Vec<String> {
    answer[kind].as_array().unwrap().iter().map(|object| object["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn lists_show_all_or_what_is_asked_for() {
    let (mut model, environment) = base();
    make(&mut model, &environment, json!({"op": "eni-create", "id": "eni-3", "vswitch": "vsw-2", "groups": ["sg-c"]}));
    let egress = json!({"op": "rule-authorize", "group": "sg-b", "direction": "egress", "rules": [
        {"id": "sgr-8", "protocol": "all", "cidr": "10.0.0.0/8", "priority": 9},
        {"id": "sgr-9", "protocol": "all", "cidr": "10.0.0.0/8", "priority": 8}]});
    make(&mut model, &environment, egress);
    for (query, kind, expected) in [
        (json!({"op": "vpc-list"}), "vpcs", &["vpc-1", "vpc-2"][..]),
        (json!({"op": "vswitch-list"}), "vswitches", &["vsw-1", "vsw-2"]),
        (json!({"op": "vswitch-list", "vpc": "vpc-2"}), "vswitches", &["vsw-2"]),
        (json!({"op": "eni-list"}), "enis", &["eni-1", "eni-2", "eni-3"]),
        (json!({"op": "eni-list", "vpc": "vpc-1"}), "enis", &["eni-1", "eni-2"]),
        (json!({"op": "eni-list", "vswitch": "vsw-2"}), "enis", &["eni-3"]),
        (json!({"op": "eni-list", "group": "sg-b"}), "enis", &["eni-2"]),
        (json!({"op": "eni-list", "vpc": "vpc-2", "group": "sg-b"}), "enis", &[]),
        (json!({"op": "group-list"}), "groups", &["sg-a", "sg-b", "sg-c", "sg-e", "sg-m", "sg-n"]),
        (json!({"op": "group-list", "vpc": "vpc-2"}), "groups", &["sg-c"]),
        (json!({"op": "rule-list", "group": "sg-b"}), "rules", &["sgr-9", "sgr-8"]),
        (json!({"op": "rule-list", "group": "sg-b", "direction": "ingress"}), "rules", &[]),
        (json!({"op": "rule-list", "direction": "egress"}), "rules", &["sgr-9", "sgr-8"]),
        (json!({"op": "prefix-list-list"}), "prefix-lists", &["pl-4", "pl-6", "pl-big"]),
        (json!({"op": "port-list-list"}), "port-lists", &["prl-1"]),
    ] {
        assert_eq!(ids(&answer(&model, query.clone()), kind), expected, "{query}");
    }
    // A list of a group's rules, or a group's members, is the group's own too.
    let group = answer(&model, json!({"op": "group-show", "group": "sg-b"}));
    assert_eq!(group["group"]["members"], json!(["eni-2"]));
    assert_eq!(ids(&group["group"], "rules"), ["sgr-9", "sgr-8"]);
}

#[test]
fn what_is_not_there_is_not_shown() {
    let (model, _) = base();
    for (query, code, status, field) in [
        (json!({"op": "vpc-show", "vpc": "vpc-9"}), "InvalidVpcId.NotFound", 404, "vpc"),
        (json!({"op": "vswitch-show", "vswitch": "vsw-9"}), "InvalidVSwitchId.NotFound", 404, "vswitch"),
        (json!({"op": "vswitch-list", "vpc": "vpc-9"}), "InvalidVpcId.NotFound", 404, "vpc"),
        (json!({"op": "eni-show", "eni": "eni-9"}), "InvalidEniId.NotFound", 404, "eni"),
        (json!({"op": "eni-list", "group": "sg-9"}), "InvalidSecurityGroupId.NotFound", 404, "group"),
        (json!({"op": "eni-list", "vswitch": "vsw-9"}), "InvalidVSwitchId.NotFound", 404, "vswitch"),
        (json!({"op": "group-show", "group": "sg-9"}), "InvalidSecurityGroupId.NotFound", 404, "group"),
        (json!({"op": "group-list", "vpc": "vpc-9"}), "InvalidVpcId.NotFound", 404, "vpc"),
        (json!({"op": "rule-list", "group": "sg-9"}), "InvalidSecurityGroupId.NotFound", 404, "group"),
        (json!({"op": "prefix-list-show", "prefix_list": "pl-9"}), "InvalidPrefixListId.NotFound", 404, "prefix_list"),
        (json!({"op": "port-list-show", "port_list": "prl-9"}), "InvalidPortRangeListId.NotFound", 400, "port_list"),
    ] {
        let question: Query = serde_json::from_value(query.clone()).unwrap();
        let error = model.answer(&question).unwrap_err();
        assert_eq!((error.code, error.status, error.field.as_deref()), (code, status, Some(field)), "{query}");
    }
}

#[test]
fn lists_of_prefixes_and_ports_show_their_entries_and_who_names_them() {
    let (mut model, environment) = base();
    for change in [
        json!({"op": "prefix-list-modify", "prefix_list": "pl-4", "remove": ["10.9.0.0/16"],
               "add": [{"cidr": "10.8.0.1", "description": "office"}, {"cidr": "10.7.0.0/16"}]}),
        json!({"op": "port-list-modify", "port_list": "prl-1", "remove": ["80/80"],
               "add": [{"ports": "22/22", "description": "ssh"}]}),
    ] {
        make(&mut model, &environment, change);
    }
    let list = &answer(&model, json!({"op": "prefix-list-show", "prefix_list": "pl-4"}))["prefix-list"];
    // A bare address is a /32 (§1.6).
    let entry = |value: &str, description: &str| json!({"value": value, "description": description});
    assert_eq!(list["entries"], json!([entry("10.7.0.0/16", ""), entry("10.8.0.1/32", "office")]));
    assert_eq!((&list["max_entries"], &list["groups"]), (&json!(5), &json!(["sg-a"])));
    let list = &answer(&model, json!({"op": "port-list-show", "port_list": "prl-1"}))["port-list"];
    assert_eq!(list["entries"], json!([entry("22/22", "ssh"), entry("443/443", "")]));
    assert_eq!((&list["max_entries"], &list["groups"]), (&json!(5), &json!(["sg-a"])));
    make(&mut model, &environment, json!({"op": "rule-revoke", "group": "sg-a", "ids": ["sgr-3"]}));
    let list = answer(&model, json!({"op": "port-list-show", "port_list": "prl-1"}));
    assert_eq!(list["port-list"]["groups"], json!([]));
}

#[test]
fn a_destination_has_one_route() {
    let (mut model, environment) = base();
    let add = |destination: &str, eni: &str| json!({"op": "vpc-route-add", "vpc": "vpc-1", "destination": destination, "eni": eni});
    let mut named = add("192.168.0.0/16", "eni-1");
    named["id"] = json!("rte-1");
    named["name"] = json!("office");
    for change in [named, add("172.16.0.0/12", "eni-1"), add("192.168.0.0/16", "eni-2")] {
        make(&mut model, &environment, change);
    }
    assert_eq!(model.decide(&command(add("192.168.0.0/16", "eni-2")), &environment), Ok(vec![]));
    let routes = |model: &_| answer(model, json!({"op": "vpc-show", "vpc": "vpc-1"}))["vpc"]["routes"].clone();
    // A route that is set again keeps its identifier and name.
    let made = "rte-000000000003";
    let route = |id: &str, name: &str, destination: &str, eni: &str| json!({"id": id, "name": name, "description": "", "destination": destination, "eni": eni});
    let office = route("rte-1", "office", "192.168.0.0/16", "eni-2");
    assert_eq!(routes(&model), json!([route(made, "", "172.16.0.0/12", "eni-1"), office]));
    make(&mut model, &environment, json!({"op": "vpc-route-remove", "vpc": "vpc-1", "destination": "172.16.0.0/12"}));
    assert_eq!(routes(&model), json!([office]));
}
