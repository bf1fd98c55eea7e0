//! The table of actions against the published interface: every row, every answer's shape, and the reference page.

use control::conform::ApiRig;
use control::ecs::{ACTIONS, ApiSettings, Product, reference_page, schema};
use control::model::{Model, Quotas};
use serde_json::Value;
use std::collections::BTreeSet;

#[test]
fn every_published_action_has_one_row() {
    let rows: Vec<(&str, &str)> = ACTIONS.iter().map(|action| (action.product.name(), action.name)).collect();
    let unique: BTreeSet<_> = rows.iter().collect();
    assert_eq!(unique.len(), rows.len(), "an action has two rows");
    let published: BTreeSet<(&str, &str)> =
        schema().actions.iter().map(|fact| (fact.product.as_str(), fact.action.as_str())).collect();
    assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), published);
    assert!(published.len() >= 87, "{} actions", published.len());
    for action in ACTIONS {
        assert_eq!(action.schema().action, action.name);
    }
}

#[test]
fn the_reference_page_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.md");
    let page = reference_page();
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let present = std::fs::read_to_string(path).unwrap_or_default();
    assert!(present == page, "docs/api.md is old: renew it with WRITE_DOCS=1");
}

/// A value that passes for a parameter, so that an action is taken as far as its objects.
fn plausible(name: &str, kind: &str) -> &'static str {
    match (name, kind) {
        ("RegionId", _) => "cn-hangzhou",
        ("ZoneId", _) => "cn-hangzhou-b",
        ("DestinationResource", _) => "Zone",
        ("ImageId", _) => "ubuntu_22_04_x64_20G_alibase_20240926.vhd",
        ("AddressFamily", _) => "IPv4",
        ("InnerAccessPolicy", _) => "Drop",
        ("InstanceType", _) => "ecs.g7.large",
        ("ResourceType", _) => "securitygroup",
        ("CidrBlock", _) => "10.0.0.0/16",
        (_, "Integer" | "Long") => "1",
        (_, "Boolean") => "true",
        _ => "none-1",
    }
}

/// Every action with what it requires, on an empty state: an answer of the published shape, or an error that the
/// action lists or that is common to all, in both formats.
#[test]
fn every_action_answers_in_shape_or_with_its_own_errors() {
    let rig = ApiRig::start(&Model::new(Quotas::default()), ApiSettings::default(), Quotas::default()).unwrap();
    let mut client = rig.client().unwrap();
    let mut answered = 0;
    for action in ACTIONS {
        let fact = action.schema();
        let mut pairs = Vec::new();
        for parameter in fact.params.iter().filter(|parameter| parameter.required) {
            let value = plausible(&parameter.name, &parameter.kind);
            match parameter.kind.as_str() {
                "RepeatList<Object>" => pairs.extend([
                    (format!("{}.1.Key", parameter.name), "key".to_owned()),
                    (format!("{}.1.Value", parameter.name), "value".to_owned()),
                ]),
                "RepeatList<String>" => pairs.push((format!("{}.1", parameter.name), value.to_owned())),
                _ => pairs.push((parameter.name.clone(), value.to_owned())),
            }
        }
        for format in ["JSON", "XML"] {
            let mut pairs = pairs.clone();
            pairs.push(("Format".into(), format.into()));
            let answer = client.send(action.product, action.name, pairs).unwrap();
            let place = format!("{} {}: {} {}", action.product.name(), action.name, answer.status, answer.body);
            assert!(answer.status < 500, "{place}");
            if format == "XML" {
                let root = if answer.status == 200 { format!("{}Response", action.name) } else { "Error".into() };
                let begins = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><{root}>");
                assert!(answer.body.starts_with(&begins) && answer.body.ends_with(&format!("</{root}>")), "{place}");
                continue;
            }
            let tree = answer.json();
            if answer.status == 200 {
                answered += 1;
                same_shape(&tree, &fact.response, &place);
                continue;
            }
            let code = answer.code().unwrap();
            let known = fact.errors.iter().any(|error| error.code == code && error.http == answer.status)
                || schema().common_errors.iter().any(|error| error.code == code);
            assert!(known || code.ends_with(".NotFound"), "{place}");
            for name in ["RequestId", "HostId", "Message", "Recommend"] {
                assert!(tree[name].as_str().is_some_and(|text| !text.is_empty()), "{name} of {place}");
            }
        }
    }
    assert!(answered >= 18, "only {answered} actions answered");
}

/// Every member is published, and of its type.
fn same_shape(value: &Value, kind: &Value, place: &str) {
    match (value, kind) {
        (Value::Object(members), Value::Object(kinds)) => {
            for (name, member) in members {
                let kind = kinds.get(name).unwrap_or_else(|| panic!("{name} is not published: {place}"));
                same_shape(member, kind, place);
            }
        }
        (Value::Array(entries), Value::Array(kinds)) => {
            entries.iter().for_each(|entry| same_shape(entry, &kinds[0], place))
        }
        (value, Value::String(kind)) => {
            let fits = match kind.as_str() {
                "Integer" | "Long" => value.is_u64() || value.is_i64(),
                "Double" | "Float" => value.is_number(),
                "Boolean" => value.is_boolean(),
                _ => value.is_string(),
            };
            assert!(fits, "{value} is no {kind}: {place}");
        }
        _ => panic!("{value} is not of the shape {kind}: {place}"),
    }
}

/// Calls that leave something of everything behind; `$Name` stands for an identifier that an earlier answer told.
const EVERYTHING: &[(Product, &str, &str)] = &[
    (Product::Vpc, "CreateVpc", "CidrBlock=10.0.0.0/16&EnableIpv6=true&VpcName=lab&Tag.1.Key=k&Tag.1.Value=v"),
    (Product::Vpc, "CreateVSwitch", "VpcId=$VpcId&CidrBlock=10.0.1.0/24&ZoneId=cn-hangzhou-b&Ipv6CidrBlock=1"),
    (Product::Ecs, "CreateSecurityGroup", "VpcId=$VpcId&Tag.1.Key=k&Tag.1.Value=v"),
    (Product::Ecs, "CreatePrefixList", "AddressFamily=IPv4&MaxEntries=2&PrefixListName=list&Entry.1.Cidr=10.9.0.0/16"),
    (Product::Ecs, "CreatePortRangeList", "MaxEntries=2&PortRangeListName=list&Entry.1.PortRange=80/81"),
    (
        Product::Ecs,
        "AuthorizeSecurityGroup",
        "SecurityGroupId=$SecurityGroupId&IpProtocol=tcp&PortRangeListId=$PortRangeListId&\
         SourcePrefixListId=$PrefixListId&Permissions=",
    ),
    (
        Product::Ecs,
        "AuthorizeSecurityGroupEgress",
        "SecurityGroupId=$SecurityGroupId&IpProtocol=all&DestCidrIp=10.0.0.0/8",
    ),
    (Product::Ecs, "CreateInstance", "InstanceType=ecs.g7.large&VSwitchId=$VSwitchId&SecurityGroupId=$SecurityGroupId"),
    (
        Product::Ecs,
        "CreateNetworkInterface",
        "VSwitchId=$VSwitchId&SecurityGroupId=$SecurityGroupId&Ipv6AddressCount=1&SecondaryPrivateIpAddressCount=1",
    ),
    (Product::Ecs, "AttachNetworkInterface", "NetworkInterfaceId=$NetworkInterfaceId&InstanceId=$InstanceId"),
    (Product::Ecs, "StartInstances", "InstanceId.1=$InstanceId"),
    (Product::Vpc, "CreateVSwitchCidrReservation", "VSwitchId=$VSwitchId&VSwitchCidrReservationMask=28&Tag.1.Key=k"),
    (Product::Vpc, "CreateDhcpOptionsSet", "DomainName=example.com&Tag.1.Key=k&Tag.1.Value=v"),
    (Product::Vpc, "AttachDhcpOptionsSetToVpc", "DhcpOptionsSetId=$DhcpOptionsSetId&VpcId=$VpcId"),
    (
        Product::Vpc,
        "CreateRouteEntry",
        "RouteTableId=$RouteTableId&DestinationCidrBlock=192.168.0.0/16&NextHopId=$InstanceId",
    ),
];

/// The same, for every question, on a state with something of everything.
#[test]
fn full_answers_keep_the_published_shape() {
    let rig = ApiRig::start(&Model::new(Quotas::default()), ApiSettings::default(), Quotas::default()).unwrap();
    let mut client = rig.client().unwrap();
    let mut known: Vec<(String, String)> = vec![("RegionId".into(), "cn-hangzhou".into())];
    for (product, name, text) in EVERYTHING {
        let mut pairs = vec![("RegionId".to_owned(), "cn-hangzhou".to_owned()), ("Format".into(), "JSON".into())];
        for pair in text.split('&') {
            let (name, value) = pair.split_once('=').unwrap();
            let value = match value.strip_prefix('$') {
                Some(wanted) => known.iter().find(|(name, _)| name == wanted).unwrap().1.clone(),
                None => value.to_owned(),
            };
            pairs.push((name.to_owned(), value));
        }
        let answer = client.send(*product, name, pairs).unwrap();
        assert_eq!(answer.status, 200, "{name}: {}", answer.body);
        let action = ACTIONS.iter().find(|action| action.product == *product && action.name == *name).unwrap();
        same_shape(&answer.json(), &action.schema().response, name);
        let ids = answer.json().as_object().unwrap().clone();
        for (name, value) in ids.into_iter().filter(|(name, _)| name.ends_with("Id")) {
            if let Some(value) = value.as_str().filter(|_| !known.iter().any(|(other, _)| *other == name)) {
                known.push((name, value.to_owned()));
            }
        }
    }
    for action in ACTIONS.iter().filter(|action| action.is_question()) {
        let fact = action.schema();
        let mut pairs = vec![("Format".to_owned(), "JSON".to_owned())];
        for parameter in fact.params.iter().filter(|parameter| parameter.required) {
            let value = known.iter().find(|(name, _)| *name == parameter.name).map(|(_, value)| value.clone());
            let of_catalogue = ["DestinationResource", "ImageId"].contains(&parameter.name.as_str());
            let value = value.or_else(|| of_catalogue.then(|| plausible(&parameter.name, &parameter.kind).into()));
            let value = value.unwrap_or_else(|| match action.product {
                Product::Ecs => "securitygroup".into(),
                Product::Vpc => "vpc".into(),
                Product::Sts | Product::ResourceManager => "rg-acfmdefault0001".into(),
            });
            let list = if parameter.kind.starts_with("RepeatList") { ".1" } else { "" };
            pairs.push((format!("{}{list}", parameter.name), value));
        }
        let answer = client.send(action.product, action.name, pairs).unwrap();
        assert_eq!(answer.status, 200, "{}: {}", action.name, answer.body);
        same_shape(&answer.json(), &fact.response, action.name);
    }
}
