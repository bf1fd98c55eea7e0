//! Walls between accounts and regions: every action with what belongs to somebody else, or is somewhere else.
//!
//! The walk takes its actions from the interface's own table. Each call succeeds with what its caller has. Then each
//! place that names an object names one of the owner's instead: nothing of the owner's may change, and what is
//! answered must be what is answered about an object that does not exist.

mod calls;
use super::lab::{name_of, send};
use calls::{CALLS, NO_OBJECTS};
use control::command::Command;
use control::conform::ApiRig;
use control::ecs::client::{ApiClient, HttpAnswer};
use control::ecs::{ACTIONS, AccessKey, Action, ApiSettings, ParameterSchema, Product, Support};
use control::environment::Environment;
use control::model::{Event, Metadata, Model, Quotas};
use control::socket::client::Client;
use control::socket::query::{Nothing, Query};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const FIRST: &str = "1";
const SECOND: &str = "2";
const GUEST: &str = "8";
const STRANGER: &str = "9";
const REGIONS: [&str; 2] = ["cn-hangzhou", "cn-beijing"];

/// Actions that place something of the caller's own in a network, or look at one. A guest may.
const USING: [&str; 14] = [
    "CreateSecurityGroup",
    "CreateNetworkInterface",
    "RunInstances",
    "CreateInstance",
    "ModifyInstanceVpcAttribute",
    "DescribeNetworkInterfaces",
    "DescribeVpcs",
    "DescribeVpcAttribute",
    "DescribeVSwitches",
    "DescribeVSwitchAttributes",
    "DescribeVRouters",
    "DescribeRouteTableList",
    "DescribeRouteTables",
    "DescribeRouteEntryList",
];

fn key(account: &str) -> AccessKey {
    AccessKey { id: format!("k{account}"), secret: "s".into(), account: account.into(), security_token: None }
}

/// Accounts, and a VPC of set `s` that is shared with the guest.
fn settings() -> ApiSettings {
    ApiSettings {
        access_keys: [FIRST, SECOND, GUEST, STRANGER].map(key).into(),
        shared_vpcs: [("vpc-s".to_owned(), vec![GUEST.to_owned()])].into(),
        ..ApiSettings::default()
    }
}

/// What a word of a call stands for in a set of objects.
fn object(set: &str, account: &str, region: &str, noun: &str) -> String {
    match noun {
        "vpc" => format!("vpc-{set}"),
        "free_vpc" => format!("vpc-{set}-free"),
        "table" => format!("vtb-{set}"),
        "kept" => format!("vcr-{set}"),
        "dhcp" => format!("dopt-{set}"),
        "free_dhcp" => format!("dopt-{set}-free"),
        "router" => format!("vrt-{set}"),
        "route" => format!("rte-{set}-out"),
        "hop" => format!("eni-{set}-hop"),
        "vswitch" => format!("vsw-{set}"),
        "plain_vswitch" => format!("vsw-{set}-plain"),
        "group" => format!("sg-{set}"),
        "other" | "third" | "free" => format!("sg-{set}-{noun}"),
        "eni" => format!("eni-{set}"),
        "attached" => format!("eni-{set}-attached"),
        "instance" => format!("i-{set}"),
        "stopped" => format!("i-{set}-stopped"),
        "prefix_list" => format!("pl-{set}"),
        "free_prefix_list" => format!("pl-{set}-free"),
        "port_list" => format!("prl-{set}"),
        "free_port_list" => format!("prl-{set}-free"),
        "ingress" | "named" | "egress" | "outward" => format!("sgr-{set}-{noun}"),
        "key_pair" => format!("key-{set}"),
        "disk" => format!("d-{set}"),
        "free_disk" => format!("d-{set}-free"),
        "nat" => format!("ngw-{set}"),
        "eip" => format!("eip-{set}"),
        "free_eip" | "bound_eip" => format!("eip-{set}-{}", &noun[..noun.len() - 4]),
        "nat_address" => format!("198.18.5.{}", NAT_SETS.iter().position(|other| *other == set).unwrap_or(8) + 1),
        "snat_table" => format!("stb-{set}"),
        "snat" => format!("snat-{set}"),
        "forward_table" => format!("ftb-{set}"),
        "forward" => format!("fwd-{set}"),
        "account" => account.to_owned(),
        "zone" => format!("{region}-b"),
        "secondary" => "10.0.0.100".to_owned(),
        "ipv6" => "2001:db8:1:1::100".to_owned(),
        _ => panic!("there is no {noun}"),
    }
}

/// The sets, in the order of the addresses of their NAT gateways.
const NAT_SETS: [&str; 3] = ["s", "p", "home"];

/// What no account has to itself.
const SHARED_NOUNS: [&str; 4] = ["account", "zone", "secondary", "ipv6"];

/// A NAT gateway with entries, and floating addresses: one of the gateway, one of an interface, and a free one.
fn addresses_outside(id: impl Fn(&str) -> String) -> Vec<Value> {
    vec![
        json!({"op": "nat-create", "id": id("nat"), "vpc": id("vpc"), "vswitch": id("vswitch")}),
        json!({"op": "eip-allocate", "id": id("eip"), "address": id("nat_address")}),
        json!({"op": "eip-allocate", "id": id("free_eip")}),
        json!({"op": "eip-allocate", "id": id("bound_eip")}),
        json!({"op": "eip-associate", "eip": id("eip"), "target": id("nat")}),
        json!({"op": "eip-associate", "eip": id("bound_eip"), "target": id("hop")}),
        json!({"op": "snat-add", "id": id("snat"), "nat": id("nat"), "vswitch": id("vswitch")}),
        json!({"op": "forward-add", "id": id("forward"), "vpc": id("vpc"), "external": id("nat_address"), "ports": "80",
               "to": "10.0.0.1"}),
    ]
}

/// Something of every kind, tagged, for an account in a region.
fn furnish(model: &mut Model, set: &str, account: &str, region: &str) {
    let id = |noun: &str| object(set, account, region, noun);
    let eni = |noun: &str| json!({"op": "eni-create", "id": id(noun), "vswitch": id("vswitch"), "groups": [id("group"), id("third")]});
    let primary = |noun: &str| json!({"id": format!("eni-{}", id(noun)), "vswitch": id("vswitch"), "groups": [id("group"), id("third")]});
    let mut first = eni("eni");
    first["secondary_ips"] = json!(["10.0.0.100"]);
    first["ipv6_addresses"] = json!(["2001:db8:1:1::100"]);
    let group = |noun: &str| json!({"op": "group-create", "id": id(noun), "vpc": id("vpc")});
    let prefix_list = |noun: &str| json!({"op": "prefix-list-create", "id": id(noun), "name": "list", "family": "ipv4", "max_entries": 2});
    let port_list = |noun: &str| json!({"op": "port-list-create", "id": id(noun), "name": "list", "max_entries": 2});
    let ingress = json!({"op": "rule-authorize", "group": id("group"), "direction": "ingress", "rules": [
        {"id": id("ingress"), "protocol": "tcp", "port_list": id("port_list"), "prefix_list": id("prefix_list")},
        {"id": id("named"), "protocol": "all", "group": id("third")}]});
    let egress = json!({"op": "rule-authorize", "group": id("group"), "direction": "egress", "rules": [
        {"id": id("egress"), "protocol": "all", "group": id("other")},
        {"id": id("outward"), "protocol": "tcp", "port_list": id("port_list"), "prefix_list": id("prefix_list"),
         "priority": 9}]});
    let mut commands = vec![
        json!({"op": "vpc-create", "id": id("vpc"), "cidr": "10.0.0.0/8", "ipv6_cidr": "2001:db8:1::/56"}),
        json!({"op": "vpc-create", "id": id("free_vpc"), "cidr": "10.0.0.0/8"}),
        json!({"op": "vswitch-create", "id": id("vswitch"), "vpc": id("vpc"), "cidr": "10.0.0.0/16",
               "ipv6_cidr": "2001:db8:1:1::/64"}),
        json!({"op": "vswitch-create", "id": id("plain_vswitch"), "vpc": id("vpc"), "cidr": "10.1.0.0/16"}),
    ];
    commands.extend(["group", "other", "third", "free"].map(group));
    commands.extend([prefix_list("prefix_list"), prefix_list("free_prefix_list")]);
    commands.extend([
        port_list("port_list"),
        port_list("free_port_list"),
        ingress,
        egress,
        first,
        eni("attached"),
        eni("hop"),
    ]);
    for noun in ["instance", "stopped"] {
        let running = noun == "instance";
        commands.push(json!({"op": "instance-create", "id": id(noun), "primary": primary(noun), "port": "none",
                             "running": running}));
    }
    commands.push(json!({"op": "instance-attach", "instance": id("instance"), "eni": id("attached")}));
    commands.push(json!({"op": "vswitch-reserve", "id": id("kept"), "vswitch": id("plain_vswitch"), "mask": 20,
                         "tags": {"k": set}}));
    for noun in ["dhcp", "free_dhcp"] {
        commands.push(json!({"op": "record-create", "id": id(noun), "kind": "dhcp-options-set"}));
    }
    let noted = json!({"DhcpOptionsSetId": id("dhcp")});
    commands.push(json!({"op": "label-modify", "object": id("vpc"), "attributes": noted}));
    commands.push(json!({"op": "vpc-modify", "vpc": id("free_vpc"), "add_cidrs": ["192.168.0.0/16"]}));
    commands.push(json!({"op": "vpc-route-add", "vpc": id("vpc"), "destination": "192.168.9.0/24", "eni": id("hop"),
                         "id": id("route")}));
    commands.extend(addresses_outside(id));
    for noun in ["vpc", "vswitch", "group", "eni", "instance", "prefix_list", "port_list", "dhcp", "eip", "nat"] {
        commands.push(json!({"op": "label-modify", "object": id(noun), "tags": {"k": set}, "resource_group": format!("rg-{set}")}));
    }
    commands.push(json!({"op": "record-create", "id": id("disk"), "kind": "disk"}));
    commands.push(json!({"op": "record-create", "id": id("free_disk"), "kind": "disk"}));
    commands.push(json!({"op": "label-modify", "object": id("disk"), "attributes": {"InstanceId": id("instance")}}));
    let key_pair = format!("kp-{set}");
    commands.push(json!({"op": "record-create", "id": key_pair, "kind": "key-pair"}));
    commands.push(json!({"op": "label-modify", "object": key_pair, "attributes": {"KeyPairName": id("key_pair")}}));
    let noted = |text: &str, first: &str| if text == first { String::new() } else { text.to_owned() };
    let command = json!({"op": "on-behalf", "owner": noted(account, FIRST), "region": noted(region, REGIONS[0]),
                         "command": {"op": "batch", "commands": commands}});
    let command: Command = serde_json::from_value(command).unwrap();
    for event in model.decide(&command, &Environment::fixed(0, 0)).unwrap() {
        model.apply(event);
    }
}

/// A call as it is sent, with one word of it, if any, put in another way.
fn write(call: &str, home: impl Fn(&str) -> String, swapped: Option<(usize, &str)>) -> String {
    let mut pieces = call.split('$');
    let mut text = pieces.next().unwrap().to_owned();
    for (place, piece) in pieces.enumerate() {
        let end = piece.find(|letter: char| !letter.is_ascii_lowercase() && letter != '_' && letter != '6');
        let (noun, rest) = piece.split_at(end.unwrap_or(piece.len()));
        let put = swapped.filter(|(swapped, _)| *swapped == place).map(|(_, put)| put.to_owned());
        text.push_str(&put.unwrap_or_else(|| home(noun)));
        text.push_str(rest);
    }
    text
}

/// The words of a call that stand for objects, in order.
fn nouns(call: &str) -> Vec<&str> {
    let end = |piece: &str| piece.find(|letter: char| !letter.is_ascii_lowercase() && letter != '_' && letter != '6');
    call.split('$').skip(1).map(|piece| &piece[..end(piece).unwrap_or(piece.len())]).collect()
}

/// A caller: who it is, and what it looks at from where.
struct WallCaller {
    account: &'static str,
    region: &'static str,
}

/// The owner's objects, of two sets, and a caller with a set of its own.
fn world(owner: (&str, &str), caller: &WallCaller) -> (ApiRig, ApiClient) {
    let mut model = Model::new(Quotas::default());
    furnish(&mut model, "s", owner.0, owner.1);
    furnish(&mut model, "p", owner.0, owner.1);
    furnish(&mut model, "home", caller.account, caller.region);
    let rig = ApiRig::start(&model, settings(), Quotas::default()).unwrap();
    let mut client = ApiClient::connect(rig.address, key(caller.account)).unwrap();
    // The first answer shows that the control plane has started, and with it its socket.
    assert_eq!(send(&mut client, "DescribeRegions", "").status, 200);
    (rig, client)
}

/// The owner's objects, and what it noted about them.
struct Seen {
    owned: Vec<Value>,
    noted: Vec<Value>,
}

/// The owner's objects as the operator sees them, but for how many others are in its networks.
fn owned(rig: &ApiRig) -> Vec<Value> {
    let answer = Client::connect(&rig.control_socket()).unwrap().ask(&Query::StateShow(Nothing {})).unwrap();
    let state = serde_json::to_value(answer).unwrap();
    let mut found = Vec::new();
    for (kind, list) in state.as_object().unwrap().values().find_map(Value::as_object).unwrap() {
        for object in list.as_array().into_iter().flatten() {
            let id = object["id"].as_str().unwrap();
            let of_owner = ["-s", "-p"].iter().any(|set| id.ends_with(set) || id.contains(&format!("{set}-")));
            let mut object = object.clone();
            if ["vpcs", "vswitches"].contains(&kind.as_str()) {
                object
                    .as_object_mut()
                    .unwrap()
                    .retain(|name, _| !["groups", "enis", "vswitches"].contains(&name.as_str()));
            }
            if of_owner {
                found.push(object);
            }
        }
    }
    assert!(found.len() > 30, "{} objects", found.len());
    found
}

/// What the owner noted about its objects.
fn noted(rig: &ApiRig, owner: (&str, &str)) -> Vec<Value> {
    let mut client = ApiClient::connect(rig.address, key(owner.0)).unwrap();
    let mut list = |action: &str, kind: &str| {
        let shown = send(&mut client, action, &format!("RegionId={}&ResourceType={kind}", owner.1));
        assert_eq!(shown.status, 200, "{}", shown.body);
        shown.json()["TagResources"].clone()
    };
    let ecs = ["instance", "securitygroup", "eni", "prefixlist", "portrangelist"];
    let mut all: Vec<Value> = ecs.iter().map(|kind| list("ListTagResources", kind)).collect();
    all.extend(["vpc", "vswitch", "dhcpoptionsset"].map(|kind| list("vpc:ListTagResources", kind)));
    all
}

/// An answer without what differs from call to call, and with one name for what was asked about.
fn told(answer: &HttpAnswer, asked: &str) -> (u16, String) {
    let mut tree = answer.json();
    for name in ["RequestId", "Recommend"] {
        tree.as_object_mut().unwrap().remove(name);
    }
    (answer.status, tree.to_string().replace(asked, "#"))
}

/// Fails where an answer tells of the owner's objects. What is shared it may tell of, without what its owner noted.
#[track_caller]
fn refuse_told(answer: &HttpAnswer, is_guest: bool, what: &str) {
    let mut body = answer.body.clone();
    for kind in ["vpc", "vsw", "vrt", "vtb", "rte"].iter().filter(|_| is_guest) {
        for shared in ["-free", "-plain", "-out", ""] {
            body = body.replace(&format!("{kind}-s{shared}"), "#");
        }
    }
    for part in ["-s\"", "-s-", "-s ", "-p\"", "-p-", "-p ", "\"s\"", "\"p\""] {
        assert!(!body.contains(part), "{part} in {body}: {what}");
    }
}

/// One call of one caller, in every way that reaches for the owner's.
fn try_call(action: &Action, call: &str, owner: (&str, &str), caller: &WallCaller, before: &Seen) {
    let name = name_of(action);
    let home = |noun: &str| object("home", caller.account, caller.region, noun);
    let place = |text: &str| format!("RegionId={}&{text}", caller.region);
    let (rig, mut client) = world(owner, caller);
    let is_guest = caller.account == GUEST && caller.region == owner.1;
    for (position, noun) in nouns(call).into_iter().enumerate().filter(|(_, noun)| !SHARED_NOUNS.contains(noun)) {
        for set in ["s", "p"] {
            let real = object(set, owner.0, owner.1, noun);
            let fiction = format!("{real}x");
            // Where a call says whose object it means, it says whose this one is.
            let whose = |noun: &str| if noun == "account" { owner.0.to_owned() } else { home(noun) };
            let mut ask = |id: &str| send(&mut client, &name, &place(&write(call, whose, Some((position, id)))));
            let (fictitious, answer) = (ask(&fiction), ask(&real));
            let what = format!("{name} {call} by {} in {}, {real}: {}", caller.account, caller.region, answer.body);
            let is_used =
                USING.contains(&action.name) && ["vpc", "vswitch", "table", "router", "plain_vswitch"].contains(&noun);
            match is_guest && set == "s" && is_used {
                true => refuse_told(&answer, true, &what),
                false => assert_eq!(told(&answer, &real), told(&fictitious, &fiction), "{what}"),
            }
        }
    }
    if !action.is_question() {
        assert_eq!(noted(&rig, owner), before.noted, "{name} {call} by {}", caller.account);
    }
    assert_eq!(owned(&rig), before.owned, "{name} {call} by {}", caller.account);
    // What it has of its own the call is good for, so that the refusals above had one reason; and it tells of its own.
    let answer = send(&mut client, &name, &place(&write(call, home, None)));
    let is_good = answer.status == 200 || answer.code().as_deref() == Some("DryRunOperation");
    assert!(is_good, "{name} {call} by {}: {}", caller.account, answer.body);
    refuse_told(&answer, is_guest, &format!("{name} {call} by {}", caller.account));
    assert_eq!(owned(&rig), before.owned, "{name} {call} by {}", caller.account);
}

fn walk(owner: (&'static str, &'static str), caller: &WallCaller) {
    let rig = world(owner, caller).0;
    let before = Seen { owned: owned(&rig), noted: noted(&rig, owner) };
    for action in ACTIONS {
        let name = name_of(action);
        let calls = CALLS.iter().find(|(other, _)| *other == name).unwrap_or_else(|| panic!("{name} has no call here"));
        calls.1.iter().for_each(|call| try_call(action, call, owner, caller, &before));
    }
}

#[test]
fn a_stranger_reaches_nothing() {
    walk((SECOND, REGIONS[1]), &WallCaller { account: STRANGER, region: REGIONS[1] });
}

#[test]
fn the_first_account_reaches_nothing_of_the_others() {
    walk((SECOND, REGIONS[0]), &WallCaller { account: FIRST, region: REGIONS[0] });
}

#[test]
fn a_guest_uses_a_network_and_changes_nothing_of_it() {
    walk((FIRST, REGIONS[0]), &WallCaller { account: GUEST, region: REGIONS[0] });
    walk((SECOND, REGIONS[1]), &WallCaller { account: GUEST, region: REGIONS[1] });
}

#[test]
fn a_region_is_a_place_of_its_own() {
    walk((FIRST, REGIONS[0]), &WallCaller { account: FIRST, region: REGIONS[1] });
    walk((SECOND, REGIONS[1]), &WallCaller { account: SECOND, region: REGIONS[0] });
    // Also for a guest: what is shared is shared where it is.
    walk((FIRST, REGIONS[0]), &WallCaller { account: GUEST, region: REGIONS[1] });
}

/// The names of a parameter and of its fields, as far as they name objects.
fn object_names(fact: &ParameterSchema) -> Vec<&str> {
    let all = std::iter::once(&fact.name).chain(fact.fields.iter().map(|field| &field.name));
    let names = all.map(String::as_str).filter(|name| name.ends_with("Id") || name.ends_with("Ids"));
    names.filter(|name| !NO_OBJECTS.contains(name)).collect()
}

#[test]
fn every_parameter_that_names_an_object_is_walked() {
    let known: BTreeSet<String> = ACTIONS.iter().map(name_of).collect();
    assert_eq!(CALLS.iter().map(|(name, _)| (*name).to_owned()).collect::<BTreeSet<_>>(), known);
    for action in ACTIONS {
        let calls = CALLS.iter().find(|(name, _)| *name == name_of(action)).unwrap().1.join("&");
        // What is without effect, or refused, reaches nothing.
        let reaches = |fact: &&ParameterSchema| matches!(fact.support, Support::Honoured | Support::Stored);
        for name in action.schema().params.iter().filter(reaches).flat_map(object_names) {
            let named = calls.split('&').filter_map(|pair| pair.split_once('='));
            let mut named = named.filter(|(_, value)| value.contains('$')).flat_map(|(key, _)| key.split('.'));
            assert!(named.any(|part| part == name), "no call of {} names an object by {name}", name_of(action));
        }
    }
}

fn two_in_one_network() -> (ApiRig, ApiClient, ApiClient) {
    let mut model = Model::new(Quotas::default());
    furnish(&mut model, "s", SECOND, REGIONS[0]);
    let rig = ApiRig::start(&model, settings(), Quotas::default()).unwrap();
    let client = |account: &str| ApiClient::connect(rig.address, key(account)).unwrap();
    let (owner, guest) = (client(SECOND), client(GUEST));
    (rig, owner, guest)
}

fn listed(client: &mut ApiClient, action: &str, query: &str) -> Vec<Value> {
    let shown = send(client, action, query);
    assert_eq!(shown.status, 200, "{}", shown.body);
    let tree = shown.json();
    let wrapped = tree.as_object().unwrap().values().find_map(Value::as_object).unwrap();
    wrapped.values().next().unwrap().as_array().unwrap().clone()
}

#[test]
fn what_one_call_makes_joins_the_default_group_of_its_account() {
    let (rig, _, mut guest) = two_in_one_network();
    let mut first = rig.client().unwrap();
    let secondary = "&NetworkInterface.1.VSwitchId=vsw-s";
    for query in ["Amount=3", &format!("Amount=2{secondary}"), &format!("Amount=1{secondary}")] {
        let made = send(&mut guest, "RunInstances", &format!("VSwitchId=vsw-s&{query}"));
        assert_eq!(made.status, 200, "{}", made.body);
    }
    let groups = listed(&mut guest, "DescribeSecurityGroups", "");
    assert_eq!(groups.len(), 1, "{groups:?}");
    let own = &groups[0]["SecurityGroupId"];
    let enis = listed(&mut guest, "DescribeNetworkInterfaces", "PageSize=50");
    assert_eq!(enis.len(), 9);
    for eni in enis {
        assert_eq!(eni["SecurityGroupIds"]["SecurityGroupId"], json!([own]), "{eni}");
        assert_eq!(eni["OwnerId"], GUEST);
    }
    assert_eq!(listed(&mut first, "DescribeSecurityGroups", ""), Vec::<Value>::new());
}

#[test]
fn a_subnet_is_in_the_region_of_its_network() {
    let mut model = Model::new(Quotas::default());
    furnish(&mut model, "s", SECOND, REGIONS[1]);
    let rig = ApiRig::start(&model, settings(), Quotas::default()).unwrap();
    let mut owner = ApiClient::connect(rig.address, key(SECOND)).unwrap();
    let mut call = |action: &str, pairs: &[(&str, &str)]| owner.call(Product::Vpc, action, pairs).unwrap();
    let create = |zone| [("VpcId", "vpc-s"), ("CidrBlock", "10.5.0.0/16"), ("ZoneId", zone)];
    let elsewhere = call("CreateVSwitch", &create("cn-hangzhou-b"));
    assert_eq!(elsewhere.code().as_deref(), Some("InvalidZoneId.NotFound"), "{}", elsewhere.body);
    let made = call("CreateVSwitch", &create("cn-beijing-b")).json();
    let id = made["VSwitchId"].as_str().unwrap();
    let shown = |answer: HttpAnswer| answer.json()["TotalCount"].clone();
    assert_eq!(shown(call("DescribeVSwitches", &[("RegionId", REGIONS[0]), ("VSwitchId", id)])), 0);
    assert_eq!(shown(call("DescribeVSwitches", &[("RegionId", REGIONS[1]), ("VSwitchId", id)])), 1);
    let deleted = call("DeleteVSwitch", &[("RegionId", REGIONS[1]), ("VSwitchId", id)]);
    assert_eq!(deleted.status, 200, "{}", deleted.body);
}

#[test]
fn a_region_that_was_noted_wrongly_becomes_that_of_the_network() {
    let mut model = Model::new(Quotas::default());
    furnish(&mut model, "s", SECOND, REGIONS[1]);
    let records: Vec<Event> = model.events();
    let astray = records.iter().cloned().map(|event| match event {
        // What is in no network keeps what was noted.
        Event::Metadata(id, Some(label))
            if !["vpc-", "pl-", "prl-", "kp-", "dopt-", "d-", "eip-"].iter().any(|kind| id.starts_with(kind)) =>
        {
            Event::Metadata(id, Some(Metadata { region: String::new(), ..label }))
        }
        event => event,
    });
    let astray: Vec<Event> = astray.collect();
    assert_ne!(astray, records);
    assert_eq!(Model::load(Quotas::default(), astray).events(), records);
}

#[test]
fn refusals_name_nobody_elses_objects() {
    let (_rig, mut owner, mut guest) = two_in_one_network();
    let group = send(&mut guest, "CreateSecurityGroup", "VpcId=vpc-s").json()["SecurityGroupId"].clone();
    let group = group.as_str().unwrap();
    let taken = format!("VSwitchId=vsw-s&SecurityGroupId={group}&PrimaryIpAddress=10.0.0.100");
    let refused = send(&mut guest, "CreateNetworkInterface", &taken);
    assert_eq!(refused.code().as_deref(), Some("InvalidPrivateIpAddress.Duplicated"), "{}", refused.body);
    assert!(!refused.body.contains("eni-s"), "{}", refused.body);
    let rule = format!("SecurityGroupId={group}&IpProtocol=all&SourceGroupId=sg-s-free&SourceGroupOwnerId={SECOND}");
    assert_eq!(send(&mut guest, "AuthorizeSecurityGroup", &rule).status, 200);
    let refused = send(&mut owner, "DeleteSecurityGroup", "SecurityGroupId=sg-s-free");
    assert_eq!(refused.code().as_deref(), Some("DependencyViolation"));
    assert!(refused.body.contains("sg-s-free") && !refused.body.contains(group), "{}", refused.body);
    let shown = send(&mut owner, "DescribeSecurityGroupReferences", "SecurityGroupId.1=sg-s-free");
    assert!(shown.body.contains(group) && shown.body.contains(GUEST), "{}", shown.body);
}

#[test]
fn a_client_token_is_its_accounts() {
    let (rig, _, mut guest) = two_in_one_network();
    let mut stranger = ApiClient::connect(rig.address, key(STRANGER)).unwrap();
    let call = "AddressFamily=IPv4&MaxEntries=2&PrefixListName=new&ClientToken=same";
    let ids =
        [&mut guest, &mut stranger].map(|client| send(client, "CreatePrefixList", call).json()["PrefixListId"].clone());
    assert!(ids[0].is_string() && ids[0] != ids[1], "{ids:?}");
    assert_eq!(send(&mut guest, "CreatePrefixList", call).json()["PrefixListId"], ids[0]);
}

/// The second wall, behind the look-ups: the model itself.
#[test]
fn the_model_changes_for_an_account_only_what_is_its_own() {
    let mut model = Model::new(Quotas::default());
    furnish(&mut model, "s", FIRST, REGIONS[0]);
    furnish(&mut model, "home", GUEST, REGIONS[0]);
    let decide = |command: Value| {
        let command = json!({"op": "on-behalf", "owner": GUEST, "region": "", "command": command});
        model.decide(&serde_json::from_value(command).unwrap(), &Environment::fixed(0, 0)).map_err(|error| error.code)
    };
    let forbidden = Err("Forbidden.Unauthorized");
    for command in [
        json!({"op": "vpc-modify", "vpc": "vpc-s", "name": "mine"}),
        json!({"op": "vswitch-modify", "vswitch": "vsw-s", "name": "mine"}),
        json!({"op": "group-delete", "group": "sg-s-free"}),
        json!({"op": "rule-revoke", "group": "sg-s", "ids": ["sgr-s-ingress"]}),
        json!({"op": "eni-modify", "eni": "eni-s", "name": "mine"}),
        json!({"op": "group-join", "group": "sg-home", "eni": "eni-s-attached"}),
        json!({"op": "instance-run", "instance": "i-s", "running": false}),
        json!({"op": "prefix-list-modify", "prefix_list": "pl-s", "name": "mine"}),
        json!({"op": "port-list-delete", "port_list": "prl-s-free"}),
        json!({"op": "label-modify", "object": "vsw-s", "tags": {"mine": "mine"}}),
        json!({"op": "settings-modify", "smtp_closed": true}),
        json!({"op": "eni-modify", "eni": "eni-home", "groups": ["sg-s"]}),
        json!({"op": "eni-create", "vswitch": "vsw-s", "groups": ["sg-s"]}),
        json!({"op": "rule-authorize", "group": "sg-home", "direction": "ingress",
               "rules": [{"protocol": "all", "prefix_list": "pl-s"}]}),
        json!({"op": "rule-authorize", "group": "sg-home", "direction": "ingress",
               "rules": [{"protocol": "tcp", "port_list": "prl-s", "cidr": "10.0.0.0/8"}]}),
    ] {
        let name = command["op"].clone();
        let batch = json!({"op": "batch", "commands": [command.clone()]});
        for command in [command, batch] {
            let decided = decide(command).map(|_| ());
            // Where the networks differ too, that is found first.
            let is_mixed = ["group-join", "eni-modify"].contains(&name.as_str().unwrap()) && decided.is_err();
            let is_refused = decided == forbidden || is_mixed;
            assert!(is_refused, "{name}: {decided:?}");
        }
    }
    let nested =
        json!({"op": "on-behalf", "owner": FIRST, "region": "", "command": {"op": "vpc-create", "cidr": "10.0.0.0/8"}});
    assert_eq!(decide(nested).map(|_| ()), Err("InvalidParameter"));
    assert!(decide(json!({"op": "group-create", "vpc": "vpc-s"})).is_ok());
}
