//! What the published text says of rules, lists and membership, against a real server, and a law: whatever a call says of
//! rules, it is the control plane that refuses it, with a code that the action has.

use super::lab::{ApiLab, text};
use control::ecs::{ACTIONS, Product, schema};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;
use std::cell::RefCell;

fn instance(lab: &mut ApiLab, vswitch: &str, group: &str) -> String {
    let run = format!("VSwitchId={vswitch}&SecurityGroupId={group}&InstanceType=ecs.g7.large");
    lab.ok("RunInstances", &run)["InstanceIdSets"]["InstanceIdSet"][0].as_str().unwrap().to_owned()
}

fn interfaces(lab: &mut ApiLab, asked: &str) -> Vec<Value> {
    let listed = lab.ok("DescribeNetworkInterfaces", asked);
    listed["NetworkInterfaceSets"]["NetworkInterfaceSet"].as_array().unwrap().clone()
}

#[test]
fn only_tcp_and_udp_rules_have_source_ports() {
    let mut lab = ApiLab::new();
    let (_, _, groups) = lab.base(&["normal"]);
    let group = &groups[0];
    for protocol in ["ICMP", "icmpv6", "GRE", "ALL", "47", "50", "0", "255"] {
        let sides =
            if protocol == "icmpv6" { ["Ipv6SourceCidrIp", "Ipv6DestCidrIp"] } else { ["SourceCidrIp", "DestCidrIp"] };
        let block = if protocol == "icmpv6" { "2001:db8::/32" } else { "10.0.0.0/8" };
        for (action, side) in ["AuthorizeSecurityGroup", "AuthorizeSecurityGroupEgress"].into_iter().zip(sides) {
            let rule =
                format!("SecurityGroupId={group}&Permissions.1.IpProtocol={protocol}&Permissions.1.{side}={block}");
            let code = "InvalidSourcePortRange.Malformed";
            for ports in ["1/200", "80/80", "x", "200/1"] {
                lab.refused(action, &format!("{rule}&Permissions.1.SourcePortRange={ports}"), 400, code);
            }
            lab.ok(action, &format!("{rule}&Permissions.1.SourcePortRange=-1/-1"));
        }
    }
    let rule =
        format!("SecurityGroupId={group}&IpProtocol=TCP&PortRange=80/80&SourceCidrIp=10.0.0.0/8&SourcePortRange=1/200");
    lab.ok("AuthorizeSecurityGroup", &rule);
    let rules = lab.rules(group);
    let rule = rules.iter().find(|rule| rule["SourcePortRange"] == "1/200").unwrap();
    let rule = format!("SecurityGroupId={group}&SecurityGroupRuleId={}", text(rule, "SecurityGroupRuleId"));
    // The rule keeps its source ports, which the new protocol has not.
    let without_ports = format!("{rule}&IpProtocol=GRE&PortRange=-1/-1");
    lab.refused("ModifySecurityGroupRule", &without_ports, 400, "InvalidSourcePortRange.Malformed");
    lab.ok("ModifySecurityGroupRule", &format!("{rule}&Priority=7"));
    let emptied = format!("{without_ports}&SourcePortRange=-1/-1&Priority=9");
    lab.ok("ModifySecurityGroupRule", &emptied);
}

#[test]
fn an_entry_that_is_twice_in_a_request_is_refused() {
    let mut lab = ApiLab::new();
    let (_, _, groups) = lab.base(&["normal"]);
    let group = &groups[0];
    let rule = |place: u8, cidr: &str, more: &str| {
        format!("&Permissions.{place}.IpProtocol=ALL&Permissions.{place}.SourceCidrIp={cidr}{more}")
    };
    let one = format!("SecurityGroupId={group}{}", rule(1, "10.0.0.0/8", ""));
    lab.ok("AuthorizeSecurityGroup", &one);
    for second in [rule(2, "10.0.0.0/8", ""), rule(3, "10.9.9.9/8", "&Permissions.3.Description=other")] {
        let twice = format!("{one}{second}");
        lab.refused("RevokeSecurityGroup", &twice, 400, "InvalidParam.DuplicatePermissions");
        lab.refused("AuthorizeSecurityGroup", &twice, 400, "InvalidParam.DuplicatePermissions");
    }
    assert_eq!(lab.rules(group).len(), 1);
    lab.ok("RevokeSecurityGroup", &one);

    let settings = control::ecs::ApiSettings { revoke_absent_rule_succeeds: true, ..Default::default() };
    let mut lenient = ApiLab::with(settings);
    let (_, _, groups) = lenient.base(&["normal"]);
    let one = format!("SecurityGroupId={}{}", groups[0], rule(1, "10.0.0.0/8", ""));
    lenient.ok("RevokeSecurityGroup", &one);
    let twice = format!("{one}{}", rule(2, "10.0.0.0/8", ""));
    lenient.refused("RevokeSecurityGroup", &twice, 400, "InvalidParam.DuplicatePermissions");
}

#[test]
fn the_description_of_a_rule_may_be_a_web_address() {
    let mut lab = ApiLab::new();
    let (_, _, groups) = lab.base(&["normal"]);
    let group = &groups[0];
    let rule = format!("SecurityGroupId={group}&IpProtocol=ALL&SourceCidrIp=10.0.0.0/8");
    lab.ok("AuthorizeSecurityGroup", &format!("{rule}&Description=https://example.org/ticket"));
    assert_eq!(lab.rules(group)[0]["Description"], "https://example.org/ticket");
    lab.ok("ModifySecurityGroupRule", &format!("{rule}&Description=http://x"));
    assert_eq!(lab.rules(group)[0]["Description"], "http://x");
    let code = "InvalidSecurityGroupDiscription.Malformed";
    lab.ok("ModifySecurityGroupRule", &format!("{rule}&Description={}", "d".repeat(512)));
    lab.refused("ModifySecurityGroupRule", &format!("{rule}&Description={}", "d".repeat(513)), 400, code);
    // Groups and lists are another matter.
    let described = format!("SecurityGroupId={group}&Description=https://example.org");
    lab.refused("ModifySecurityGroupAttribute", &described, 400, code);
    let list = "AddressFamily=IPv4&PrefixListName=list&MaxEntries=1&Description=https://example.org";
    lab.refused("CreatePrefixList", list, 400, "InvalidDescription.Malformed");
    let list = "PortRangeListName=list&MaxEntries=1&Entry.1.PortRange=1/2&Entry.1.Description=https://x";
    lab.refused("CreatePortRangeList", list, 400, "InvalidDescription.Malformed");
}

#[test]
fn a_list_does_not_add_and_remove_the_same_entry() {
    let mut lab = ApiLab::new();
    let create = "AddressFamily=IPv4&PrefixListName=list&MaxEntries=3&Entry.1.Cidr=10.0.0.1";
    let list = text(&lab.ok("CreatePrefixList", create), "PrefixListId");
    for entries in [
        "AddEntry.1.Cidr=10.0.0.1&RemoveEntry.1.Cidr=10.0.0.1",
        "AddEntry.1.Cidr=10.0.0.1/32&RemoveEntry.1.Cidr=10.0.0.1",
        "RemoveEntry.1.Cidr=10.0.0.1/32&RemoveEntry.2.Cidr=10.0.0.1",
        "AddEntry.1.Cidr=11.0.0.0/8&AddEntry.2.Cidr=11.0.0.0/8",
    ] {
        let modify = format!("PrefixListId={list}&{entries}");
        lab.refused("ModifyPrefixList", &modify, 400, "InvalidParameter.CidrDuplicated");
    }
    lab.ok("ModifyPrefixList", &format!("PrefixListId={list}&AddEntry.1.Cidr=10.0.0.2&RemoveEntry.1.Cidr=10.0.0.1"));
    let create = "PortRangeListName=ports&MaxEntries=3&Entry.1.PortRange=80/80";
    let list = text(&lab.ok("CreatePortRangeList", create), "PortRangeListId");
    for entries in [
        "AddEntry.1.PortRange=80/80&RemoveEntry.1.PortRange=80/80",
        "RemoveEntry.1.PortRange=80/80&RemoveEntry.2.PortRange=80/80",
        "AddEntry.1.PortRange=1/2&AddEntry.2.PortRange=1/2",
    ] {
        let modify = format!("PortRangeListId={list}&{entries}");
        lab.refused("ModifyPortRangeList", &modify, 400, "InvalidParameter.PortRangeDuplicated");
    }
    let changed = format!("PortRangeListId={list}&AddEntry.1.PortRange=80/80&AddEntry.1.Description=web");
    lab.ok("ModifyPortRangeList", &changed);
    for name in ["com.aliyun.list", "com.alibabacloud", "http://a"] {
        let code = "InvalidParameter.PortRangeListName";
        lab.refused("CreatePortRangeList", &format!("PortRangeListName={name}&MaxEntries=1"), 400, code);
        lab.refused("ModifyPortRangeList", &format!("PortRangeListId={list}&PortRangeListName={name}"), 400, code);
    }
}

#[test]
fn letters_of_enumerations_may_be_of_either_case() {
    let mut lab = ApiLab::new();
    let (_, vswitch, groups) = lab.base(&["normal"]);
    instance(&mut lab, &vswitch, &groups[0]);
    for (asked, count) in
        [("Type=primary", 1), ("Type=PRIMARY&Status=inuse", 1), ("Type=secondary", 0), ("Status=available", 0)]
    {
        assert_eq!(interfaces(&mut lab, asked).len(), count, "{asked}");
    }
    for (action, asked, found) in [
        ("DescribeInstances", "Status=running", "/Instances/Instance/0"),
        ("DescribeSecurityGroups", "NetworkType=VPC", "/SecurityGroups/SecurityGroup/0"),
        ("DescribeSecurityGroups", "SecurityGroupType=Normal", "/SecurityGroups/SecurityGroup/0"),
    ] {
        assert!(lab.ok(action, asked).pointer(found).is_some(), "{action} {asked}");
    }
    let rule = format!("SecurityGroupId={}&IpProtocol=ALL&SourceCidrIp=10.0.0.0/8", groups[0]);
    lab.ok("AuthorizeSecurityGroup", &rule);
    for asked in ["NicType=internet", "NicType=<nil>", "NicType=Intranet", "Direction=Ingress", "Direction=ALL"] {
        let shown = lab.ok("DescribeSecurityGroupAttribute", &format!("SecurityGroupId={}&{asked}", groups[0]));
        assert_eq!(shown["Permissions"]["Permission"].as_array().unwrap().len(), 1, "{asked}");
    }
    lab.refused("DescribeNetworkInterfaces", "Type=tertiary", 400, "InvalidParameter");
}

#[test]
fn the_groups_of_a_primary_interface_are_those_of_its_instance() {
    let mut lab = ApiLab::new();
    let (_, vswitch, groups) = lab.base(&["normal", "normal"]);
    let instance = instance(&mut lab, &vswitch, &groups[0]);
    let primary = text(&interfaces(&mut lab, "Type=Primary")[0], "NetworkInterfaceId");
    let code = "InvalidOperation.InvalidEniType";
    lab.refused("JoinSecurityGroup", &format!("SecurityGroupId={}&NetworkInterfaceId={primary}", groups[1]), 403, code);
    lab.refused(
        "LeaveSecurityGroup",
        &format!("SecurityGroupId={}&NetworkInterfaceId={primary}", groups[0]),
        403,
        code,
    );
    lab.ok("JoinSecurityGroup", &format!("SecurityGroupId={}&InstanceId={instance}", groups[1]));
    lab.ok("LeaveSecurityGroup", &format!("SecurityGroupId={}&InstanceId={instance}", groups[0]));
    // A secondary one has groups of its own, attached or not.
    let create = format!("VSwitchId={vswitch}&SecurityGroupId={}", groups[0]);
    let secondary = text(&lab.ok("CreateNetworkInterface", &create), "NetworkInterfaceId");
    lab.ok("AttachNetworkInterface", &format!("InstanceId={instance}&NetworkInterfaceId={secondary}"));
    lab.ok("JoinSecurityGroup", &format!("SecurityGroupId={}&NetworkInterfaceId={secondary}", groups[1]));
    lab.ok("LeaveSecurityGroup", &format!("SecurityGroupId={}&NetworkInterfaceId={secondary}", groups[0]));
}

#[test]
fn a_move_leaves_nothing_behind() {
    let mut lab = ApiLab::new();
    let (vpc, vswitch, groups) = lab.base(&["normal"]);
    let sibling = format!("VpcId={vpc}&CidrBlock=10.1.0.0/16&ZoneId=cn-hangzhou-b");
    let sibling = text(&lab.ok("vpc:CreateVSwitch", &sibling), "VSwitchId");
    let (other_vpc, other, other_groups) = lab.base(&["normal"]);
    let instance = instance(&mut lab, &vswitch, &groups[0]);
    let primary = text(&interfaces(&mut lab, &format!("InstanceId={instance}"))[0], "NetworkInterfaceId");
    let action = "ModifyInstanceVpcAttribute";
    let away =
        format!("InstanceId={instance}&VSwitchId={other}&VpcId={other_vpc}&SecurityGroupId.1={}", other_groups[0]);
    let aside = format!("InstanceId={instance}&VSwitchId={sibling}");
    lab.refused(action, &away, 400, "IncorrectInstanceStatus");
    lab.ok("StopInstance", &format!("InstanceId={instance}"));

    // A secondary interface would stay in the old VPC; within the VPC it may stay where it is.
    let create = format!("VSwitchId={vswitch}&SecurityGroupId={}", groups[0]);
    let secondary = text(&lab.ok("CreateNetworkInterface", &create), "NetworkInterfaceId");
    let pair = format!("InstanceId={instance}&NetworkInterfaceId={secondary}");
    lab.ok("AttachNetworkInterface", &pair);
    lab.refused(action, &away, 403, "OperationDenied");
    lab.ok(action, &aside);
    lab.ok(action, &format!("InstanceId={instance}&VSwitchId={vswitch}"));
    lab.ok("DetachNetworkInterface", &pair);

    // Addresses besides the primary one would be lost.
    let address = format!("NetworkInterfaceId={primary}&PrivateIpAddress.1=10.0.9.9");
    lab.ok("AssignPrivateIpAddresses", &address);
    lab.refused(action, &away, 403, "OperationDenied");
    lab.refused(action, &aside, 403, "OperationDenied");
    lab.ok(action, &format!("InstanceId={instance}&VSwitchId={vswitch}&PrivateIpAddress=10.0.9.10"));
    let shown = &interfaces(&mut lab, &format!("NetworkInterfaceId.1={primary}"))[0];
    assert_eq!(shown["PrivateIpSets"]["PrivateIpSet"].as_array().unwrap().len(), 2);
    lab.ok("UnassignPrivateIpAddresses", &address);

    // Another VPC has to be named, and groups of it.
    lab.refused(action, &format!("InstanceId={instance}&VSwitchId={other}"), 404, "InvalidVSwitch.NotBelongToVpc");
    let without = format!("InstanceId={instance}&VSwitchId={other}&VpcId={other_vpc}");
    lab.refused(action, &without, 400, "MissingParameter");
    lab.ok(action, &away);
    assert_eq!(interfaces(&mut lab, &format!("InstanceId={instance}"))[0]["VpcId"], other_vpc.as_str());
}

/// What a call may say of a rule: each field with its values, good and bad.
const FIELDS: &[(&str, &[&str])] = &[
    (
        "IpProtocol",
        &["TCP", "udp", "ICMP", "ICMPv6", "GRE", "ALL", "1", "6", "17", "47", "50", "58", "255", "256", "x"],
    ),
    ("PortRange", &["80/80", "1/65535", "-1/-1", "200/1", "0/0", "1/65536", "80", "x"]),
    ("PortRangeListId", &["$prl", "prl-none"]),
    ("SourcePortRange", &["1/200", "-1/-1", "9/1", "0/1", "x"]),
    ("Policy", &["accept", "Drop", "x"]),
    ("Priority", &["1", "100", "0", "101", "x"]),
    ("NicType", &["intranet", "internet", "x"]),
    ("Description", &["text", "https://example.org"]),
    ("SourceCidrIp", &["10.0.0.0/8", "10.1.2.3", "0.0.0.0/0", "10.0.0.0/33", "::/0", "x"]),
    ("DestCidrIp", &["10.0.0.0/8", "10.1.2.3", "0.0.0.0/0", "10.0.0.0/33", "::/0", "x"]),
    ("Ipv6SourceCidrIp", &["::/0", "2001:db8::1", "2001:db8::/129", "10.0.0.0/8"]),
    ("Ipv6DestCidrIp", &["::/0", "2001:db8::1", "2001:db8::/129", "10.0.0.0/8"]),
    ("SourceGroupId", &["$own", "$peer", "$advanced", "$far", "sg-none"]),
    ("DestGroupId", &["$own", "$peer", "$advanced", "$far", "sg-none"]),
    ("SourcePrefixListId", &["$pl4", "$pl6", "$empty6", "pl-none"]),
    ("DestPrefixListId", &["$pl4", "$pl6", "$empty6", "pl-none"]),
];

/// Fields of a rule, with their values.
type RuleFieldValues = Vec<(&'static str, &'static str)>;

/// Some fields of a rule: nearly always a protocol, often sides.
fn fields() -> impl Strategy<Value = RuleFieldValues> {
    let field = |(name, values): &(&'static str, &'static [&'static str])| {
        let name = *name;
        let share = match name {
            "IpProtocol" => 0.95,
            "PortRange" => 0.6,
            "SourceCidrIp" | "DestCidrIp" => 0.4,
            _ => 0.15,
        };
        // Good values come first and more often.
        let values: Vec<&'static str> = values[..values.len().div_ceil(2)].iter().chain(*values).copied().collect();
        proptest::option::weighted(share, select(values)).prop_map(move |value| value.map(|value| (name, value)))
    };
    FIELDS.iter().map(field).collect::<Vec<_>>().prop_map(|fields| fields.into_iter().flatten().collect())
}

const RULE_ACTIONS: [&str; 6] = [
    "AuthorizeSecurityGroup",
    "AuthorizeSecurityGroupEgress",
    "RevokeSecurityGroup",
    "RevokeSecurityGroupEgress",
    "ModifySecurityGroupRule",
    "ModifySecurityGroupEgressRule",
];

#[test]
fn whatever_a_call_says_of_rules_its_refusal_is_one_of_the_actions_own() {
    let mut lab = ApiLab::new();
    let (_, _, groups) = lab.base(&["normal", "normal", "enterprise"]);
    let (_, _, far) = lab.base(&["normal"]);
    let list = |lab: &mut ApiLab, family: &str, entry: &str| {
        let create = format!("AddressFamily={family}&PrefixListName=list&MaxEntries=2{entry}");
        text(&lab.ok("CreatePrefixList", &create), "PrefixListId")
    };
    let pl4 = list(&mut lab, "IPv4", "&Entry.1.Cidr=10.0.0.0/8");
    let pl6 = list(&mut lab, "IPv6", "&Entry.1.Cidr=2001:db8::/32");
    let empty6 = list(&mut lab, "IPv6", "");
    let ports = text(&lab.ok("CreatePortRangeList", "PortRangeListName=ports&MaxEntries=2"), "PortRangeListId");
    let objects = [
        ("$own", groups[0].clone()),
        ("$peer", groups[1].clone()),
        ("$advanced", groups[2].clone()),
        ("$far", far[0].clone()),
        ("$pl4", pl4),
        ("$pl6", pl6),
        ("$empty6", empty6),
        ("$prl", ports),
    ];
    let lab = RefCell::new(lab);
    let call = (select(RULE_ACTIONS.to_vec()), vec(fields(), 1..3), any::<prop::sample::Index>(), any::<bool>());
    let config = Config { cases: 200, failure_persistence: None, ..Config::default() };
    let law = |calls: Vec<(&str, Vec<RuleFieldValues>, prop::sample::Index, bool)>| {
        for (action, rules, place, is_advanced) in calls {
            let mut lab = lab.borrow_mut();
            let group = if is_advanced { &groups[2] } else { &groups[0] };
            let mut said = vec![format!("SecurityGroupId={group}")];
            let by_id = action.starts_with("Modify");
            let present = if by_id { lab.rules(group) } else { Vec::new() };
            if !present.is_empty() {
                said.push(format!("SecurityGroupRuleId={}", text(place.get(&present), "SecurityGroupRuleId")));
            }
            for (number, rule) in rules.iter().enumerate().take(if by_id { 1 } else { 2 }) {
                let within = if by_id { String::new() } else { format!("Permissions.{}.", number + 1) };
                for (name, value) in rule {
                    let object = objects.iter().find(|(known, _)| known == value).map(|(_, id)| id.as_str());
                    said.push(format!("{within}{name}={}", object.unwrap_or(value)));
                }
            }
            let said = said.join("&");
            let answer = lab.send(action, &said);
            let Some(code) = answer.code() else { continue };
            let fact =
                ACTIONS.iter().find(|other| other.name == action && other.product == Product::Ecs).unwrap().schema();
            let is_own = fact.lists(&code) || schema().common_errors.iter().any(|error| error.code == code);
            prop_assert!(is_own && answer.status < 500, "{action} {said}: {}", answer.body);
        }
        Ok(())
    };
    TestRunner::new(config).run(&vec(call, 1..20), law).unwrap();
}
