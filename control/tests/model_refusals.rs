//! What the model refuses: commands, and the code, status and field they meet. Each is asked of the same base state,
//! and changes nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod fixture;

use fixture::{ingress, refuses, rule};
use serde_json::{Value, json};

#[test]
fn networks_are_refused_with_their_reason() {
    let vpc = |cidr: &str| json!({"op": "vpc-create", "cidr": cidr});
    let vsw = |cidr: &str| json!({"op": "vswitch-create", "vpc": "vpc-1", "cidr": cidr});
    let route = |destination: &str, eni: &str| json!({"op": "vpc-route-add", "vpc": "vpc-1", "destination": destination, "eni": eni});
    refuses(&[
        (vpc("10.0.0.1/16"), "InvalidParameter", 400, "cidr"),
        (vpc("2001:db8::/56"), "InvalidParameter", 400, "cidr"),
        (vpc("10.0.0.0/29"), "InvalidParameter", 400, "cidr"),
        (vpc("127.0.0.0/16"), "InvalidParameter", 400, "cidr"),
        (vpc("0.0.0.0/0"), "InvalidParameter", 400, "cidr"),
        (
            json!({"op": "vpc-create", "id": "vpc-1", "cidr": "10.0.0.0/16"}),
            "InvalidResourceId.AlreadyExists",
            409,
            "id",
        ),
        (json!({"op": "vpc-create", "id": "VPC", "cidr": "10.0.0.0/16"}), "InvalidResourceId.Malformed", 400, "id"),
        (
            json!({"op": "vpc-create", "name": "http://x", "cidr": "10.0.0.0/16"}),
            "InvalidVpcName.Malformed",
            400,
            "name",
        ),
        (
            json!({"op": "vpc-create", "ipv6_cidr": "fe80::/56", "cidr": "10.0.0.0/16"}),
            "InvalidParameter",
            400,
            "ipv6_cidr",
        ),
        (json!({"op": "vpc-delete", "vpc": "vpc-9"}), "InvalidVpcId.NotFound", 404, "vpc"),
        (json!({"op": "vpc-delete", "vpc": "vpc-1"}), "DependencyViolation.VSwitch", 400, ""),
        (
            json!({"op": "vpc-modify", "vpc": "vpc-1", "ipv6_cidr": "2001:db8:2::/56"}),
            "OperationFailed.CidrInUse",
            400,
            "ipv6_cidr",
        ),
        (vsw("10.1.0.0/24"), "InvalidParameter", 400, "cidr"),
        (vsw("10.0.1.128/25"), "InvalidCidrBlock.Overlapped", 400, "cidr"),
        (vsw("10.0.0.0/16"), "InvalidCidrBlock.Overlapped", 400, "cidr"),
        (vsw("10.0.2.0/30"), "InvalidCirdrBlock.MaskLength", 400, "cidr"),
        (vsw("x"), "InvalidCidrBlock.Malformed", 400, "cidr"),
        (
            json!({"op": "vswitch-create", "vpc": "vpc-2", "cidr": "10.0.2.0/24", "ipv6_cidr": "2001:db8:1:2::/64"}),
            "InvalidParameter",
            400,
            "ipv6_cidr",
        ),
        (json!({"op": "vswitch-delete", "vswitch": "vsw-1"}), "DependencyViolation", 400, ""),
        (route("10.0.1.0/25", "eni-1"), "InvalidCidrBlock.Overlapped", 400, "destination"),
        (route("192.168.0.1/16", "eni-1"), "InvalidCidrBlock.Malformed", 400, "destination"),
        (route("192.168.0.0/16", "eni-9"), "InvalidEniId.NotFound", 404, "eni"),
        (
            json!({"op": "vpc-route-add", "vpc": "vpc-2", "destination": "192.168.0.0/16", "eni": "eni-1"}),
            "InvalidOperation.VpcMismatch",
            403,
            "eni",
        ),
        (
            json!({"op": "vpc-route-remove", "vpc": "vpc-1", "destination": "192.168.0.0/16"}),
            "InvalidRouteEntry.NotFound",
            404,
            "destination",
        ),
    ]);
}

#[test]
fn blocks_of_a_vpc_are_refused_with_their_reason() {
    let modify = |fields: Value| {
        let mut all = json!({"op": "vpc-modify", "vpc": "vpc-1"});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        all
    };
    refuses(&[
        (modify(json!({"ipv6_cidr": ""})), "OperationFailed.CidrInUse", 400, "ipv6_cidr"),
        (modify(json!({"cidr": "192.168.0.0/16"})), "OperationFailed.CidrInUse", 400, "cidr"),
        (modify(json!({"cidr": "10.0.0.0/7"})), "InvalidParameter", 400, "cidr"),
        (modify(json!({"add_cidrs": ["10.0.0.0/8"]})), "InvalidCidrBlock.Overlapped", 400, "add_cidrs"),
        (
            modify(json!({"add_cidrs": ["192.168.0.0/16", "192.168.1.0/24"]})),
            "InvalidCidrBlock.Overlapped",
            400,
            "add_cidrs",
        ),
        (modify(json!({"add_cidrs": ["100.64.0.0/16"]})), "InvalidParameter", 400, "add_cidrs[0]"),
        (modify(json!({"remove_cidrs": ["192.168.0.0/16"]})), "InvalidCidrBlock.NotFound", 404, "remove_cidrs[0]"),
        (
            modify(
                json!({"add_cidrs": ["11.0.0.0/8", "12.0.0.0/8", "13.0.0.0/8", "14.0.0.0/8", "15.0.0.0/8", "16.0.0.0/8"]}),
            ),
            "QuotaExceeded.SecondaryCidrBlock",
            400,
            "add_cidrs",
        ),
    ]);
}

#[test]
fn new_interfaces_are_refused_with_their_reason() {
    let eni = |fields: Value| {
        let mut all = json!({"op": "eni-create", "vswitch": "vsw-1", "groups": ["sg-a"]});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        all
    };
    refuses(&[
        (eni(json!({"primary_ip": "10.0.2.1"})), "InvalidVSwitchId.IpInvalid", 403, "primary_ip"),
        (eni(json!({"primary_ip": "10.0.1.0"})), "InvalidVSwitchId.IpInvalid", 403, "primary_ip"),
        (eni(json!({"primary_ip": "10.0.1.253"})), "InvalidVSwitchId.IpInvalid", 403, "primary_ip"),
        (eni(json!({"primary_ip": "10.0.1.255"})), "InvalidVSwitchId.IpInvalid", 403, "primary_ip"),
        (eni(json!({"primary_ip": "10.0.1.1"})), "InvalidIp.IpAssigned", 403, "primary_ip"),
        (eni(json!({"primary_ip": "ten"})), "InvalidIp.Address", 403, "primary_ip"),
        (eni(json!({"secondary_ips": ["10.0.1.9", "10.0.1.9"]})), "InvalidIp.IpRepeated", 403, "secondary_ips[1]"),
        (eni(json!({"ipv6_count": 11})), "MaxEniIpv6IpsCountExceeded", 403, ""),
        (eni(json!({"ipv6_addresses": ["2001:db8:1:1::1"]})), "InvalidIp.IpAssigned", 403, "ipv6_addresses[0]"),
        (
            eni(json!({"ipv6_addresses": ["2001:db8:1:1:ffff:ffff:ffff:fffd"]})),
            "InvalidVSwitchId.IpInvalid",
            403,
            "ipv6_addresses[0]",
        ),
        (
            eni(json!({"vswitch": "vsw-2", "groups": ["sg-c"], "ipv6_count": 1})),
            "InvalidVSwitch.Ipv6NotTurnOn",
            403,
            "ipv6_count",
        ),
        (eni(json!({"prefixes": ["10.0.1.16/29"]})), "InvalidParameter", 400, "prefixes[0]"),
        (eni(json!({"prefixes": ["10.0.1.240/28"]})), "InvalidVSwitchId.IpInvalid", 403, "prefixes[0]"),
        (eni(json!({"mac": "02:00:00:00:00:01"})), "InvalidParameter", 400, "mac"),
        (eni(json!({"mac": "01:00:00:00:00:01"})), "InvalidParameter", 400, "mac"),
        (eni(json!({"mac": "ee:ff:ff:ff:ff:ff"})), "InvalidParameter", 400, "mac"),
        (eni(json!({"mac": "no"})), "InvalidParameter", 400, "mac"),
        (eni(json!({"vswitch": "vsw-9"})), "InvalidVSwitchId.NotFound", 404, "vswitch"),
        (eni(json!({"groups": ["sg-9"]})), "InvalidSecurityGroupId.NotFound", 404, "groups"),
        (eni(json!({"groups": ["sg-c"]})), "InvalidOperation.VpcMismatch", 403, "groups"),
        (eni(json!({"groups": ["sg-a", "sg-e"]})), "InvalidOperation.MultiGroupType", 403, "groups"),
        (eni(json!({"groups": ["sg-m"]})), "InvalidOperation.ResourceManagedByCloudProduct", 403, "groups"),
        (
            eni(json!({"timeouts": {"udp_s": 45}})),
            "InvalidParameter.EniConnectionTrackingConfiguration",
            400,
            "timeouts.udp_s",
        ),
        (eni(json!({"sessions_max": 0})), "InvalidParameter", 400, "sessions_max"),
    ]);
}

#[test]
fn changes_of_interfaces_are_refused_with_their_reason() {
    let change = |fields: Value| {
        let mut all = json!({"op": "eni-modify", "eni": "eni-1"});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        all
    };
    let attach = |port: Value| json!({"op": "eni-attach", "eni": "eni-1", "port": port});
    refuses(&[
        (change(json!({"groups": ["sg-a", "sg-a"]})), "InvalidParameter.SecurityGroupIdRepeated", 404, "groups"),
        (change(json!({"groups": []})), "MissingParameter", 400, "groups"),
        (
            change(json!({"timeouts": {"tcp_established_s": 911}})),
            "InvalidParameter.EniConnectionTrackingConfiguration",
            400,
            "timeouts.tcp_established_s",
        ),
        (
            change(json!({"timeouts": {"tcp_closed_s": 2}})),
            "InvalidParameter.EniConnectionTrackingConfiguration",
            400,
            "timeouts.tcp_closed_s",
        ),
        (
            attach(json!({"kind": "tap", "device": "web0", "namespace": "web"})),
            "InvalidParameter.Conflict",
            400,
            "port.device",
        ),
        (attach(json!({"kind": "tap", "device": "a-name-too-long-for-linux"})), "InvalidParameter", 400, "port.device"),
        (attach(json!({"kind": "tap", "device": "w", "namespace": "../x"})), "InvalidParameter", 400, "port.namespace"),
        (
            attach(json!({"kind": "tap", "device": "w", "create_namespace": true})),
            "InvalidParameter",
            400,
            "port.create_namespace",
        ),
        (attach(json!({"kind": "tap", "device": "w", "mtu_bytes": 100})), "InvalidParameter", 400, "port.mtu_bytes"),
        (
            json!({"op": "eni-attach", "eni": "eni-2", "port": {"kind": "memory"}}),
            "InvalidOperation.InvalidEniState",
            400,
            "",
        ),
        (json!({"op": "eni-delete", "eni": "eni-2"}), "InvalidOperation.InvalidEniState", 400, ""),
        (
            json!({"op": "eni-unassign", "eni": "eni-1", "addresses": ["10.0.1.1"]}),
            "InvalidIp.IpUnassigned",
            403,
            "addresses[0]",
        ),
        (json!({"op": "eni-assign", "eni": "eni-1"}), "MissingParameter", 400, "addresses"),
        (json!({"op": "eni-assign", "eni": "eni-1", "ipv4_count": 50}), "MaxEniPrivateIpsCountExceeded", 403, ""),
    ]);
}

#[test]
fn groups_and_memberships_are_refused_with_their_reason() {
    let join = |group: &str, eni: &str| json!({"op": "group-join", "group": group, "eni": eni});
    let leave = |group: &str, eni: &str| json!({"op": "group-leave", "group": group, "eni": eni});
    let delete = |group: &str| json!({"op": "group-delete", "group": group});
    refuses(&[
        (json!({"op": "group-create", "vpc": "vpc-1", "kind": "great"}), "InvalidParams.GroupType", 400, "kind"),
        (
            json!({"op": "group-create", "vpc": "vpc-1", "inner_access": "maybe"}),
            "InvalidPolicy.Malformed",
            400,
            "inner_access",
        ),
        (
            json!({"op": "group-create", "vpc": "vpc-1", "kind": "advanced", "inner_access": "accept"}),
            "InvalidParameter.InnerAccessPolicy",
            404,
            "inner_access",
        ),
        (
            json!({"op": "group-create", "vpc": "vpc-1", "name": "http://x"}),
            "InvalidSecurityGroupName.Malformed",
            400,
            "name",
        ),
        (
            json!({"op": "group-create", "vpc": "vpc-1", "description": "x"}),
            "InvalidSecurityGroupDiscription.Malformed",
            400,
            "description",
        ),
        (json!({"op": "group-create", "vpc": "vpc-9"}), "InvalidVpcId.NotFound", 404, "vpc"),
        (
            json!({"op": "group-modify", "group": "sg-e", "inner_access": "accept"}),
            "InvalidParameter.InnerAccessPolicy",
            404,
            "inner_access",
        ),
        (
            json!({"op": "group-modify", "group": "sg-m", "name": "mine"}),
            "InvalidOperation.ResourceManagedByCloudProduct",
            403,
            "group",
        ),
        (delete("sg-none"), "InvalidSecurityGroup.NotFound", 404, "group"),
        (delete("sg-a"), "DependencyViolation", 403, ""),
        (delete("sg-b"), "DependencyViolation", 403, ""),
        (delete("sg-m"), "InvalidOperation.ResourceManagedByCloudProduct", 403, "group"),
        (join("sg-a", "eni-1"), "InvalidInstanceId.AlreadyExists", 403, "eni"),
        (join("sg-c", "eni-1"), "InvalidOperation.VpcMismatch", 403, "group"),
        (join("sg-e", "eni-1"), "InvalidOperation.MultiGroupType", 400, "group"),
        (join("sg-m", "eni-1"), "InvalidOperation.ResourceManagedByCloudProduct", 403, "group"),
        (join("sg-b", "eni-9"), "InvalidEniId.NotFound", 404, "eni"),
        (leave("sg-a", "eni-1"), "InvalidOperation.AtLeastInOneGroup", 403, "group"),
        (leave("sg-b", "eni-1"), "InvalidSecurityGroupAssociation.NotFound", 400, "group"),
    ]);
}

fn all(fields: Value) -> Value {
    let mut all = json!({"protocol": "ALL", "ports": "-1/-1"});
    all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    all
}

fn tcp(ports: &str) -> Value {
    ingress(json!({"protocol": "TCP", "ports": ports, "cidr": "0.0.0.0/0"}))
}

fn web() -> Value {
    json!({"protocol": "TCP", "ports": "80/80", "cidr": "10.0.0.0/8"})
}

fn with(key: &str, value: Value) -> Value {
    let mut rule = web();
    rule[key] = value;
    ingress(rule)
}

#[test]
fn requests_for_rules_are_refused_with_the_codes_of_the_cloud() {
    refuses(&[
        (
            json!({"op": "rule-authorize", "group": "sg-none", "direction": "ingress", "rules": [web()]}),
            "InvalidSecurityGroupId.NotFound",
            404,
            "group",
        ),
        (
            json!({"op": "rule-authorize", "group": "sg-m", "direction": "ingress", "rules": [web()]}),
            "InvalidOperation.ResourceManagedByCloudProduct",
            403,
            "group",
        ),
        (
            json!({"op": "rule-authorize", "group": "sg-a", "direction": "ingress", "rules": []}),
            "InvalidParam.Permissions",
            400,
            "rules",
        ),
        (
            json!({"op": "rule-authorize", "group": "sg-a", "direction": "ingress", "rules": vec![web(); 101]}),
            "InvalidParam.Permissions",
            400,
            "rules",
        ),
        (
            json!({"op": "rule-authorize", "group": "sg-a", "direction": "ingress", "rules": [web(), web()]}),
            "InvalidParam.DuplicatePermissions",
            400,
            "rules[1]",
        ),
        (with("priority", json!(101)), "InvalidPriority.ValueNotSupported", 400, "rules[0].priority"),
        (with("priority", json!(0)), "InvalidPriority.ValueNotSupported", 400, "rules[0].priority"),
        (with("policy", json!("reject")), "InvalidPolicy.Malformed", 400, "rules[0].policy"),
        (
            with("description", json!("x".repeat(513))),
            "InvalidSecurityGroupDiscription.Malformed",
            400,
            "rules[0].description",
        ),
    ]);
}

#[test]
fn sides_of_rules_are_refused_with_the_codes_of_the_cloud() {
    refuses(&[
        (ingress(json!({"protocol": "TCP", "ports": "22/22"})), "MissingParameter.Source", 400, "rules[0].cidr"),
        (rule("egress", json!({"protocol": "TCP", "ports": "22/22"})), "MissingParameter.Dest", 400, "rules[0].cidr"),
        (
            ingress(all(json!({"cidr": "0.0.0.0/0", "ipv6_cidr": "::/0"}))),
            "InvalidParam.SourceIp",
            400,
            "rules[0].ipv6_cidr",
        ),
        (
            rule("egress", all(json!({"cidr": "0.0.0.0/0", "ipv6_cidr": "::/0"}))),
            "InvalidParam.DestIp",
            400,
            "rules[0].ipv6_cidr",
        ),
        (
            ingress(all(json!({"cidr": "0.0.0.0/0", "local_cidr": "::/0"}))),
            "InvalidParam.SourceIp",
            400,
            "rules[0].local_cidr",
        ),
        (
            ingress(all(json!({"cidr": "10.0.0.1/8", "local_cidr": "10.0.0.0/8"}))),
            "InvalidParamter.Conflict",
            400,
            "rules[0].local_cidr",
        ),
        (with("cidr", json!("10.0.0.0/99")), "InvalidParam.SourceCidrIp", 400, "rules[0].cidr"),
        (with("local_cidr", json!("x")), "InvalidParam.DestCidrIp", 400, "rules[0].local_cidr"),
    ]);
}

#[test]
fn ports_and_protocols_of_rules_are_refused_with_the_codes_of_the_cloud() {
    refuses(&[
        (
            ingress(json!({"protocol": "SCTPX", "cidr": "0.0.0.0/0"})),
            "InvalidIpProtocol.ValueNotSupported",
            400,
            "rules[0].protocol",
        ),
        (
            ingress(json!({"protocol": "256", "cidr": "0.0.0.0/0"})),
            "InvalidIpProtocol.ValueNotSupported",
            400,
            "rules[0].protocol",
        ),
        (tcp("200/1"), "InvalidParam.PortRange", 400, "rules[0].ports"),
        (tcp("-1/-1"), "InvalidParam.PortRange", 400, "rules[0].ports"),
        (tcp("0/80"), "InvalidParam.PortRange", 400, "rules[0].ports"),
        (tcp("1/65536"), "InvalidParam.PortRange", 400, "rules[0].ports"),
        (tcp("+1/80"), "InvalidParam.PortRange", 400, "rules[0].ports"),
        (ingress(json!({"protocol": "TCP", "cidr": "0.0.0.0/0"})), "InvalidPortRange.Malformed", 400, "rules[0].ports"),
        (
            ingress(json!({"protocol": "ICMP", "ports": "1/10", "cidr": "0.0.0.0/0"})),
            "OperationDenied",
            400,
            "rules[0].ports",
        ),
        (with("source_ports", json!("9/1")), "InvalidSourcePortRange.Malformed", 400, "rules[0].source_ports"),
        (
            ingress(json!({"protocol": "ICMP", "ipv6_cidr": "::/0"})),
            "InvalidParam.Ipv4ProtocolConflictWithIpv6Address",
            400,
            "rules[0].cidr",
        ),
        (
            ingress(json!({"protocol": "icmpv6", "cidr": "0.0.0.0/0"})),
            "InvalidParam.Ipv6ProtocolConflictWithIpv4Address",
            400,
            "rules[0].cidr",
        ),
        (
            ingress(json!({"protocol": "58", "cidr": "0.0.0.0/0"})),
            "InvalidParam.Ipv6ProtocolConflictWithIpv4Address",
            400,
            "rules[0].cidr",
        ),
    ]);
}

#[test]
fn objects_of_rules_are_refused_with_the_codes_of_the_cloud() {
    refuses(&[
        (
            ingress(json!({"protocol": "icmp", "prefix_list": "pl-6"})),
            "InvalidParam.Ipv4ProtocolConflictWithIpv6Address",
            400,
            "rules[0].prefix_list",
        ),
        (
            ingress(all(json!({"prefix_list": "pl-6", "local_cidr": "10.0.0.1"}))),
            "InvalidParam.PrefixListAddressFamilyMismatch",
            400,
            "rules[0].prefix_list",
        ),
        (ingress(all(json!({"prefix_list": "pl-9"}))), "InvalidPrefixListId.NotFound", 404, "rules[0].prefix_list"),
        (ingress(all(json!({"group": "sg-a"}))), "InvalidParamter.Conflict", 403, "rules[0].group"),
        (ingress(all(json!({"group": "sg-none"}))), "InvalidSourceGroupId.NotFound", 404, "rules[0].group"),
        (rule("egress", all(json!({"group": "sg-none"}))), "InvalidDestGroupId.NotFound", 404, "rules[0].group"),
        (ingress(all(json!({"group": "sg-c"}))), "InvalidSourceGroupId.Mismatch", 400, "rules[0].group"),
        (ingress(all(json!({"group": "sg-e"}))), "InvalidGroupAuthParameter.OperationDenied", 400, "rules[0].group"),
        (
            json!({"op": "rule-authorize", "group": "sg-e", "direction": "ingress", "rules": [all(json!({"group": "sg-a"}))]}),
            "InvalidGroupParameter.OperationDenied",
            400,
            "rules[0].group",
        ),
        (
            ingress(json!({"protocol": "ICMP", "port_list": "prl-1", "cidr": "0.0.0.0/0"})),
            "InvalidParam.ProtocolNotSupportPortRangeList",
            400,
            "rules[0].port_list",
        ),
        (
            ingress(json!({"protocol": "tcp", "port_list": "prl-9", "cidr": "0.0.0.0/0"})),
            "InvalidPortRangeListId.NotFound",
            400,
            "rules[0].port_list",
        ),
    ]);
}

#[test]
fn changes_of_rules_are_refused_with_the_codes_of_the_cloud() {
    refuses(&[
        // 200 prefixes by 5 ranges weigh as much as an interface may have in all.
        (
            ingress(json!({"protocol": "tcp", "port_list": "prl-1", "prefix_list": "pl-big"})),
            "AuthorizationLimitExceed",
            403,
            "",
        ),
        (
            json!({"op": "rule-revoke", "group": "sg-a", "ids": ["sgr-9"]}),
            "InvalidParam.SecurityGroupRuleId",
            400,
            "ids",
        ),
        (
            json!({"op": "rule-revoke", "group": "sg-a", "direction": "egress", "ids": ["sgr-1"]}),
            "InvalidParam.SecurityGroupRuleId",
            400,
            "ids",
        ),
        (
            json!({"op": "rule-revoke", "group": "sg-a", "direction": "ingress", "rules": [web()]}),
            "InvalidSecurityGroupRule.RuleNotExist",
            400,
            "rules[0]",
        ),
        (json!({"op": "rule-revoke", "group": "sg-a", "rules": [web()]}), "MissingParameter", 400, "direction"),
        (
            json!({"op": "rule-modify", "group": "sg-a", "rule": "sgr-9", "change": {"priority": 2}}),
            "InvalidSecurityGroupRuleId.NotFound",
            404,
            "rule",
        ),
        (
            json!({"op": "rule-modify", "group": "sg-a", "rule": "sgr-1"}),
            "InvalidParam.InvalidModifyRuleRequest",
            400,
            "change",
        ),
        (
            json!({"op": "rule-modify", "group": "sg-a", "rule": "sgr-1", "change": {"group": "sg-b"}}),
            "InvalidOperation.ModifySgRuleEntityType",
            400,
            "change.cidr",
        ),
        (
            json!({"op": "rule-modify", "group": "sg-a", "rule": "sgr-1", "change": {"cidr": "::/0"}}),
            "InvalidOperation.ModifySgRuleEntityType",
            400,
            "change.cidr",
        ),
        (
            json!({"op": "rule-modify", "group": "sg-a", "rule": "sgr-1", "change": {"port_list": "prl-1"}}),
            "InvalidOperation.ModifyPortRangeType",
            400,
            "change.ports",
        ),
        (
            json!({"op": "rule-modify", "group": "sg-a", "rule": "sgr-1", "change": {"protocol": "icmp", "ports": "22/22"}}),
            "OperationDenied",
            400,
            "change.ports",
        ),
    ]);
}

#[test]
fn lists_are_refused_with_their_reason() {
    let list = |entries: Value| json!({"op": "prefix-list-create", "name": "list", "family": "ipv4", "max_entries": 1, "entries": entries});
    let ports =
        |entries: Value| json!({"op": "port-list-create", "name": "list", "max_entries": 1, "entries": entries});
    refuses(&[
        (list(json!([{"cidr": "10.0.0.1/8"}])), "InvalidParameter.CidrMalformed", 400, "entries[0].cidr"),
        (list(json!([{"cidr": "::/0"}])), "InvalidParameter.CidrMalformed", 400, "entries[0].cidr"),
        (
            list(json!([{"cidr": "10.0.0.1"}, {"cidr": "10.0.0.1/32"}])),
            "InvalidParameter.CidrDuplicated",
            400,
            "entries[1].cidr",
        ),
        (list(json!([{"cidr": "10.0.0.1"}, {"cidr": "10.0.0.2"}])), "LimitExceed.MaxEntries", 400, "entries"),
        (
            json!({"op": "prefix-list-create", "name": "list", "family": "ipv5", "max_entries": 1}),
            "InvalidParameter.AddressFamily",
            400,
            "family",
        ),
        (
            json!({"op": "prefix-list-create", "name": "list", "family": "ipv4", "max_entries": 201}),
            "LimitExceed.MaxEntries",
            400,
            "max_entries",
        ),
        (
            json!({"op": "prefix-list-create", "name": "", "family": "ipv4", "max_entries": 1}),
            "MissingParameter",
            400,
            "name",
        ),
        (
            json!({"op": "prefix-list-modify", "prefix_list": "pl-4", "remove": ["10.8.0.0/16"]}),
            "InvalidParameter.CidrMalformed",
            400,
            "remove[0]",
        ),
        (json!({"op": "prefix-list-delete", "prefix_list": "pl-4"}), "NotAllowed.AssociationExist", 400, ""),
        (
            json!({"op": "prefix-list-delete", "prefix_list": "pl-9"}),
            "InvalidPrefixListId.NotFound",
            404,
            "prefix_list",
        ),
        (ports(json!([{"ports": "9/1"}])), "InvalidParameter.PortRange", 400, "entries[0].ports"),
        (
            ports(json!([{"ports": "1/1"}, {"ports": "1/1"}])),
            "InvalidParameter.PortRangeDuplicated",
            400,
            "entries[1].ports",
        ),
        (ports(json!([{"ports": "1/1"}, {"ports": "2/2"}])), "LimitExceed.MaxEntries", 400, "entries"),
        (
            json!({"op": "port-list-create", "name": "list", "max_entries": 2001}),
            "InvalidOperation.MaxEntriesCountExceed",
            400,
            "max_entries",
        ),
        (json!({"op": "port-list-delete", "port_list": "prl-1"}), "InvalidPortRangeListId.AssociationExist", 400, ""),
        (json!({"op": "settings-modify", "icmp_timeout_s": 0}), "InvalidParameter", 400, "icmp_timeout_s"),
    ]);
}
