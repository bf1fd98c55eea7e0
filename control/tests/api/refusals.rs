//! Refusals of the HTTP interface that take a state of their own: full groups, quotas, states, families.

use super::lab::{ApiLab, text};
use control::conform::ApiRig;
use control::ecs::{ApiSettings, Product};
use control::environment::Environment;
use control::model::{Model, Quotas};
use serde_json::json;

fn instance(lab: &mut ApiLab, vswitch: &str, group: &str) -> String {
    let run = format!("VSwitchId={vswitch}&SecurityGroupId={group}&InstanceType=ecs.g7.large");
    lab.ok("RunInstances", &run)["InstanceIdSets"]["InstanceIdSet"][0].as_str().unwrap().to_owned()
}

fn eni(lab: &mut ApiLab, vswitch: &str, group: &str) -> String {
    let create = format!("VSwitchId={vswitch}&SecurityGroupId={group}");
    text(&lab.ok("CreateNetworkInterface", &create), "NetworkInterfaceId")
}

#[test]
fn full_groups_take_no_more() {
    for (kind, join_code, replace_code, replace_status, modify_eni_code, create_code) in [
        (
            "enterprise",
            "InvalidOperation.NetworkInterfaceCountExceeded",
            "InvalidOperation.EniCountExceeded",
            400,
            "InvalidOperation.EniCountExceeded",
            "SecurityGroupInstanceLimitExceed",
        ),
        (
            "normal",
            "SecurityGroupInstanceLimitExceeded",
            "SecurityGroupInstanceLimitExceed",
            403,
            "SecurityGroupInstanceLimitExceed",
            "SecurityGroupInstanceLimitExceed",
        ),
    ] {
        let quotas = Quotas {
            advanced_group_enis_max: 1,
            basic_group_addresses_max: 1,
            groups_per_eni_max: 2,
            ..Quotas::default()
        };
        let mut lab = ApiLab::with_quotas(ApiSettings::default(), quotas);
        let (_, vswitch, groups) = lab.base(&[kind; 5]);
        let full = &groups[0];
        instance(&mut lab, &vswitch, full);
        let other = instance(&mut lab, &vswitch, &groups[1]);
        let eni = eni(&mut lab, &vswitch, &groups[2]);
        let join = format!("SecurityGroupId={full}&InstanceId={other}");
        lab.refused("JoinSecurityGroup", &join, 403, join_code);
        let replace = format!("InstanceId={other}&SecurityGroupIds.1={full}");
        lab.refused("ModifyInstanceAttribute", &replace, replace_status, replace_code);
        let replace = format!("NetworkInterfaceId={eni}&SecurityGroupId.1={full}");
        lab.refused("ModifyNetworkInterfaceAttribute", &replace, 403, modify_eni_code);
        let create = format!("VSwitchId={vswitch}&SecurityGroupId={full}");
        lab.refused("CreateNetworkInterface", &create, 403, create_code);
        let run = format!("{create}&InstanceType=ecs.g7.large");
        lab.refused("RunInstances", &run, 403, "SecurityGroupInstanceLimitExceed");
        // The number of an interface's groups.
        lab.ok("JoinSecurityGroup", &format!("SecurityGroupId={}&InstanceId={other}", groups[3]));
        let third = format!("SecurityGroupId={}&InstanceId={other}", groups[4]);
        lab.refused("JoinSecurityGroup", &third, 403, "InstanceSecurityGroupLimitExceeded");
        let all = format!(
            "InstanceId={other}&SecurityGroupIds.1={}&SecurityGroupIds.2={}&SecurityGroupIds.3={}",
            groups[1], groups[3], groups[4]
        );
        lab.refused("ModifyInstanceAttribute", &all, 400, "JoinedGroupLimitExceed");
    }
}

#[test]
fn rules_and_their_objects_have_to_fit() {
    let mut lab = ApiLab::new();
    let (_, _, groups) = lab.base(&["normal", "normal"]);
    let a = &groups[0];
    let itself = format!("SecurityGroupId={a}&Permissions.1.IpProtocol=ALL");
    let egress = format!("{itself}&Permissions.1.DestGroupId={a}");
    lab.refused("AuthorizeSecurityGroupEgress", &egress, 403, "InvalidSecurityGroup.IsSame");
    let ingress = format!("{itself}&Permissions.1.SourceGroupId={a}");
    lab.refused("AuthorizeSecurityGroup", &ingress, 403, "InvalidParamter.Conflict");
    for source in ["010.0.0.1/8", "10.0.0.1/08", "10.0.0/8", "10.0.0.1/33", "::/0"] {
        let rule = format!("{itself}&Permissions.1.SourceCidrIp={source}");
        lab.refused("AuthorizeSecurityGroup", &rule, 400, "InvalidParam.SourceCidrIp");
    }
    let nothing = format!("SecurityGroupId={a}");
    lab.refused("JoinSecurityGroup", &format!("{nothing}&InstanceId=i!"), 400, "InvalidInstanceId.Malformed");
    lab.refused("JoinSecurityGroup", &format!("{nothing}&InstanceId=i-none"), 404, "InvalidInstanceId.NotFound");
    lab.refused("JoinSecurityGroup", "SecurityGroupId=sg!&InstanceId=i-none", 404, "InvalidSecurityGroupId.NotFound");
    lab.refused("DescribeSecurityGroupAttribute", "SecurityGroupId=sg!", 400, "InvalidSecurityGroupId.Malformed");
    lab.refused("DeleteSecurityGroup", "SecurityGroupId=sg!", 404, "InvalidSecurityGroup.NotFound");
    lab.refused("ModifySecurityGroupRule", &nothing, 400, "InvalidParam.InvalidModifyRuleRequest");
    for (family, prefix, near, protocol, protocol_code) in [
        ("IPv6", "::/0", "DestCidrIp=10.0.0.0/8", "ICMP", "InvalidParam.Ipv4ProtocolConflictWithIpv6Address"),
        ("IPv4", "0.0.0.0/0", "Ipv6DestCidrIp=::1", "ICMPv6", "InvalidParam.Ipv6ProtocolConflictWithIpv4Address"),
    ] {
        let create = format!("PrefixListName=list&AddressFamily={family}&MaxEntries=2&Entry.1.Cidr={prefix}");
        let list = text(&lab.ok("CreatePrefixList", &create), "PrefixListId");
        let rule = format!("SecurityGroupId={a}&SourcePrefixListId={list}&IpProtocol=");
        let near = format!("{rule}ALL&{near}");
        lab.refused("AuthorizeSecurityGroup", &near, 400, "InvalidParam.PrefixListAddressFamilyMismatch");
        lab.refused("AuthorizeSecurityGroup", &format!("{rule}{protocol}"), 400, protocol_code);
    }
}

#[test]
fn interfaces_hold_so_many_prefixes_of_a_family() {
    let quotas = Quotas { prefixes_per_eni_max: 2, ..Quotas::default() };
    let mut lab = ApiLab::with_quotas(ApiSettings::default(), quotas);
    let vpc = text(&lab.ok("vpc:CreateVpc", "CidrBlock=10.0.0.0/8&EnableIpv6=true"), "VpcId");
    let create = format!("VpcId={vpc}&CidrBlock=10.0.0.0/16&ZoneId=cn-hangzhou-b&Ipv6CidrBlock=1");
    let vswitch = text(&lab.ok("vpc:CreateVSwitch", &create), "VSwitchId");
    let group = text(&lab.ok("CreateSecurityGroup", &format!("VpcId={vpc}")), "SecurityGroupId");
    let eni = format!("NetworkInterfaceId={}", eni(&mut lab, &vswitch, &group));
    lab.ok("AssignPrivateIpAddresses", &format!("{eni}&Ipv4PrefixCount=2"));
    lab.ok("AssignIpv6Addresses", &format!("{eni}&Ipv6PrefixCount=2"));
    let code = "InvalidOperation.Ipv4CountExceeded";
    lab.refused("AssignPrivateIpAddresses", &format!("{eni}&Ipv4PrefixCount=1"), 403, code);
    let code = "InvalidOperation.Ipv6CountExceeded";
    lab.refused("AssignIpv6Addresses", &format!("{eni}&Ipv6PrefixCount=1"), 403, code);
    lab.refused("AssignIpv6Addresses", &format!("{eni}&Ipv6AddressCount=11"), 403, "MaxEniIpv6IpsCountExceeded");
}

#[test]
fn each_action_has_its_code_for_a_missing_region() {
    let mut lab = ApiLab::new();
    for (action, parameters, status, code) in [
        ("DescribeSecurityGroups", "", 400, "MissingParameter.RegionId"),
        ("DescribeSecurityGroupAttribute", "SecurityGroupId=sg-1", 400, "MissingParameter.RegionId"),
        ("DeleteSecurityGroup", "SecurityGroupId=sg-1", 400, "MissingParameter.RegionId"),
        ("ModifySecurityGroupPolicy", "SecurityGroupId=sg-1&InnerAccessPolicy=Drop", 400, "MissingParamter.RegionId"),
        ("JoinSecurityGroup", "SecurityGroupId=sg-1&NetworkInterfaceId=eni-1", 400, "MissingParameter.RegionId"),
        ("LeaveSecurityGroup", "SecurityGroupId=sg-1&NetworkInterfaceId=eni-1", 400, "MissingParameter.RegionId"),
        ("JoinSecurityGroup", "SecurityGroupId=sg-1&InstanceId=i-1", 404, "InvalidSecurityGroupId.NotFound"),
        ("ListTagResources", "ResourceType=securitygroup", 404, "MissingParameter.RegionId"),
        ("DescribeAccountAttributes", "", 403, "Invalid.Parameter"),
        ("CreateSecurityGroup", "", 400, "MissingParameter"),
        ("DescribeNetworkInterfaces", "", 400, "MissingParameter"),
    ] {
        let pairs: Vec<(&str, &str)> = parameters.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let answer = lab.client.call(Product::Ecs, action, &pairs).unwrap();
        let found = (answer.status, answer.code().unwrap_or_default());
        assert_eq!(found, (status, code.to_owned()), "{action}: {}", answer.body);
    }
    lab.refused("DescribeSecurityGroups", "RegionId=mars", 404, "InvalidRegionId.NotFound");
}

#[test]
fn what_is_still_being_made_is_not_used() {
    let settings = ApiSettings { state_delay_s: 3600, ..ApiSettings::default() };
    let mut model = Model::new(Quotas::default());
    let old = Environment::fixed(0, 0);
    for (environment, command) in [
        (&old, json!({"op": "vpc-create", "id": "vpc-1", "cidr": "10.0.0.0/8"})),
        (&old, json!({"op": "vswitch-create", "id": "vsw-old", "vpc": "vpc-1", "cidr": "10.0.0.0/16"})),
        (
            &old,
            json!({"op": "instance-create", "id": "i-1", "port": "none", "running": false, "primary": {"vswitch": "vsw-old"}}),
        ),
        (&Environment::real(), json!({"op": "vswitch-create", "id": "vsw-new", "vpc": "vpc-1", "cidr": "10.1.0.0/16"})),
    ] {
        let command = serde_json::from_value(command).unwrap();
        for event in model.decide(&command, environment).unwrap() {
            model.apply(event);
        }
    }
    let rig = ApiRig::start(&model, settings, Quotas::default()).unwrap();
    let mut lab = ApiLab { client: rig.client().unwrap(), rig };
    let made = lab.ok("vpc:DescribeVSwitchAttributes", "VSwitchId=vsw-new");
    assert_eq!(made["Status"], "Pending");
    let code = "IncorrectVSwitchStatus";
    lab.refused("RunInstances", "VSwitchId=vsw-new&InstanceType=ecs.g7.large", 400, code);
    lab.refused("CreateInstance", "VSwitchId=vsw-new&InstanceType=ecs.g7.large", 400, code);
    lab.refused("ModifyInstanceVpcAttribute", "VSwitchId=vsw-new&InstanceId=i-1", 400, code);
    lab.refused("vpc:DeleteVSwitch", "VSwitchId=vsw-new", 400, code);
}

#[test]
fn lists_and_names_keep_to_their_limits() {
    let quotas = Quotas { prefix_list_entries_max: 300, port_list_entries_max: 3, ..Quotas::default() };
    let mut lab = ApiLab::with_quotas(ApiSettings::default(), quotas);
    let prefix_list = |more: &str| format!("AddressFamily=IPv4&PrefixListName=list&{more}");
    for (more, code) in [
        ("MaxEntries=0", "InvalidParameter"),
        ("MaxEntries=x", "InvalidParameter"),
        ("MaxEntries=301", "LimitExceed.MaxEntries"),
        ("MaxEntries=1&Entry.1.Cidr=10.0.0.0/8&Entry.2.Cidr=11.0.0.0/8", "LimitExceed.MaxEntries"),
        ("MaxEntries=2&Entry.1.Description=office", "MissingParameter"),
        ("MaxEntries=2&Entry.1.Cidr=10.0.0.0/33", "InvalidParameter.CidrMalformed"),
        ("MaxEntries=2&Entry.1.Cidr=10.0.0.0/8&Entry.2.Cidr=10.0.0.0/8", "InvalidParameter.CidrDuplicated"),
    ] {
        lab.refused("CreatePrefixList", &prefix_list(more), 400, code);
    }
    for name in ["com.aliyun.list", "com.alibabacloud", "http://a", "1a", "a"] {
        let create = format!("AddressFamily=IPv4&MaxEntries=1&PrefixListName={name}");
        lab.refused("CreatePrefixList", &create, 400, "InvalidParameter.PrefixListName");
    }
    lab.ok("CreatePrefixList", &prefix_list("MaxEntries=300"));
    let code = "InvalidOperation.MaxEntriesCountExceed";
    lab.refused("CreatePortRangeList", "PortRangeListName=list&MaxEntries=4", 400, code);
    for name in ["x", "1 net", &"n".repeat(128)] {
        lab.ok("vpc:CreateVpc", &format!("CidrBlock=10.0.0.0/8&VpcName={name}"));
    }
    for name in ["http://x", "https://x", &"n".repeat(129)] {
        let create = format!("CidrBlock=10.0.0.0/8&VpcName={name}");
        lab.refused("vpc:CreateVpc", &create, 400, "InvalidVpcName.Malformed");
    }
    let vpc = text(&lab.ok("vpc:CreateVpc", "CidrBlock=10.0.0.0/8"), "VpcId");
    let tags: Vec<String> = (1..=21).map(|place| format!("Tag.{place}.Key=k{place}")).collect();
    let create = format!("VpcId={vpc}&{}", tags.join("&"));
    lab.refused("CreateSecurityGroup", &create, 403, "QuotaExceed.Tags");
    let run = "InstanceType=ecs.g7.large&VSwitchId=vsw-none&Amount=2&MinAmount=3";
    lab.refused("RunInstances", run, 400, "InvalidMinAmount.Malformed");
}

#[test]
fn managed_groups_are_looked_at_only() {
    let mut lab = ApiLab::new();
    let (vpc, vswitch, groups) = lab.base(&["normal"]);
    let created = lab.ok("CreateSecurityGroup", &format!("VpcId={vpc}&ServiceManaged=true"));
    let managed = text(&created, "SecurityGroupId");
    let instance = instance(&mut lab, &vswitch, &groups[0]);
    let eni = eni(&mut lab, &vswitch, &groups[0]);
    let group = format!("SecurityGroupId={managed}");
    let rule = format!("{group}&IpProtocol=ALL&SourceCidrIp=10.0.0.0/8");
    let resource = format!("ResourceType=securitygroup&ResourceId.1={managed}");
    let old_resource = format!("ResourceType=securitygroup&ResourceId={managed}");
    for (action, parameters) in [
        ("AuthorizeSecurityGroup", rule.clone()),
        ("RevokeSecurityGroup", rule.clone()),
        ("ModifySecurityGroupRule", format!("{rule}&Description=x")),
        ("ModifySecurityGroupRule", format!("{group}&SecurityGroupRuleId=sgr-1&Priority=2")),
        ("ModifySecurityGroupPolicy", format!("{group}&InnerAccessPolicy=Drop")),
        ("ModifySecurityGroupAttribute", format!("{group}&SecurityGroupName=web")),
        ("DeleteSecurityGroup", group.clone()),
        ("JoinSecurityGroup", format!("{group}&InstanceId={instance}")),
        ("LeaveSecurityGroup", format!("{group}&NetworkInterfaceId={eni}")),
        ("ModifyInstanceAttribute", format!("InstanceId={instance}&SecurityGroupIds.1={managed}")),
        ("ModifyNetworkInterfaceAttribute", format!("NetworkInterfaceId={eni}&SecurityGroupId.1={managed}")),
        ("CreateNetworkInterface", format!("VSwitchId={vswitch}&{group}")),
        ("RunInstances", format!("VSwitchId={vswitch}&{group}&InstanceType=ecs.g7.large")),
        ("TagResources", format!("{resource}&Tag.1.Key=a&Tag.1.Value=b")),
        ("UntagResources", format!("{resource}&All=true")),
        ("AddTags", format!("{old_resource}&Tag.1.Key=a&Tag.1.Value=b")),
        ("JoinResourceGroup", format!("{old_resource}&ResourceGroupId=rg-1")),
    ] {
        lab.refused(action, &parameters, 403, "InvalidOperation.ResourceManagedByCloudProduct");
    }
    lab.ok("DescribeSecurityGroupAttribute", &group);
    lab.ok("DescribeSecurityGroupReferences", &format!("SecurityGroupId.1={managed}"));
    assert_eq!(lab.ok("DescribeSecurityGroups", "ServiceManaged=true")["TotalCount"], 1);
}

#[test]
fn several_instances_start_together_or_one_by_one() {
    let mut lab = ApiLab::new();
    let (_, vswitch, groups) = lab.base(&["normal"]);
    let (one, two) = (instance(&mut lab, &vswitch, &groups[0]), instance(&mut lab, &vswitch, &groups[0]));
    lab.ok("StopInstance", &format!("InstanceId={one}"));
    let both = format!("InstanceId.1={one}&InstanceId.2={two}&InstanceId.3=i-none");
    lab.refused("StartInstances", &both, 403, "IncorrectInstanceStatus");
    lab.refused("StartInstances", &format!("{both}&BatchOptimization=Luck"), 400, "InvalidParameter");
    let answer = lab.ok("StartInstances", &format!("{both}&BatchOptimization=SuccessFirst"));
    let responses = answer["InstanceResponses"]["InstanceResponse"].as_array().unwrap();
    let told = |place: usize| {
        let response: &serde_json::Value = &responses[place];
        ["Code", "PreviousStatus", "CurrentStatus"].map(|name| response[name].as_str().unwrap().to_owned())
    };
    assert_eq!(told(0), ["200", "Stopped", "Running"]);
    assert_eq!(told(1), ["IncorrectInstanceStatus", "Running", "Running"]);
    assert_eq!(told(2), ["InvalidInstanceId.NotFound", "", ""]);
}

#[test]
fn networks_in_use_or_in_the_way_are_refused() {
    let mut lab = ApiLab::new();
    let (vpc, vswitch, groups) = lab.base(&["normal"]);
    let eni = eni(&mut lab, &vswitch, &groups[0]);
    let subnet = |block: &str| format!("VpcId={vpc}&CidrBlock={block}&ZoneId=cn-hangzhou-b");
    for (block, code) in [
        ("10.0.0.0/16", "InvalidCidrBlock.Overlapped"),
        ("10.0.128.0/17", "InvalidCidrBlock.Overlapped"),
        ("10.1.0.0/15", "InvalidCidrBlock.Malformed"),
        ("10.2.0.0/15", "InvalidCirdrBlock.MaskLength"),
        ("10.2.0.0/30", "InvalidCirdrBlock.MaskLength"),
        ("11.0.0.0/16", "InvalidParameter"),
        ("x", "InvalidCidrBlock.Malformed"),
    ] {
        lab.refused("vpc:CreateVSwitch", &subnet(block), 400, code);
    }
    let named = |name: &str| format!("{}&VSwitchName={name}", subnet("10.2.0.0/16"));
    lab.refused("vpc:CreateVSwitch", &named("http://x"), 400, "InvalidVSwitchName.Malformed");
    let described = format!("{}&Description=http://x", subnet("10.2.0.0/16"));
    lab.refused("vpc:CreateVSwitch", &described, 400, "InvalidVSwitchDiscription.Malformed");
    let elsewhere = format!("VpcId={vpc}&CidrBlock=10.2.0.0/16&ZoneId=mars");
    lab.refused("vpc:CreateVSwitch", &elsewhere, 404, "InvalidZoneId.NotFound");
    lab.refused(
        "vpc:CreateVSwitch",
        "VpcId=vpc-none&CidrBlock=10.2.0.0/16&ZoneId=cn-hangzhou-b",
        404,
        "InvalidVpcId.NotFound",
    );
    lab.refused("vpc:CreateVpc", "CidrBlock=10.0.0.0/8&Description=http://x", 400, "InvalidVpcDiscription.Malformed");

    let network = format!("VpcId={vpc}");
    let part = format!("VSwitchId={vswitch}");
    lab.refused("vpc:DeleteVpc", &network, 400, "DependencyViolation.VSwitch");
    lab.refused("vpc:DeleteVSwitch", &part, 400, "DependencyViolation");
    lab.ok("DeleteNetworkInterface", &format!("NetworkInterfaceId={eni}"));
    lab.ok("vpc:DeleteVSwitch", &part);
    lab.refused("vpc:DeleteVpc", &network, 400, "DependencyViolation.SecurityGroup");
    lab.ok("DeleteSecurityGroup", &format!("SecurityGroupId={}", groups[0]));
    lab.ok("vpc:DeleteVpc", &network);
    for action in ["vpc:DeleteVpc", "vpc:ModifyVpcAttribute", "vpc:DescribeVpcAttribute"] {
        lab.refused(action, &network, 404, "InvalidVpcId.NotFound");
    }
    for action in ["vpc:DeleteVSwitch", "vpc:ModifyVSwitchAttribute", "vpc:DescribeVSwitchAttributes"] {
        lab.refused(action, &part, 404, "InvalidVSwitchId.NotFound");
    }
    lab.refused("CreateSecurityGroup", &network, 404, "InvalidVpcId.NotFound");
}

#[test]
fn lists_in_use_and_lists_that_are_gone_are_refused() {
    let mut lab = ApiLab::new();
    let (_, _, groups) = lab.base(&["normal"]);
    let create = "AddressFamily=IPv4&PrefixListName=list&MaxEntries=2&Entry.1.Cidr=10.0.0.0/8";
    let list = format!("PrefixListId={}", text(&lab.ok("CreatePrefixList", create), "PrefixListId"));
    let create = "PortRangeListName=list&MaxEntries=2&Entry.1.PortRange=80/80";
    let ports = format!("PortRangeListId={}", text(&lab.ok("CreatePortRangeList", create), "PortRangeListId"));
    let rule = format!("SecurityGroupId={}&IpProtocol=TCP&Source{list}&{ports}", groups[0]);
    lab.ok("AuthorizeSecurityGroup", &rule);
    lab.refused("DeletePrefixList", &list, 400, "NotAllowed.AssociationExist");
    lab.refused("DeletePortRangeList", &ports, 400, "InvalidPortRangeListId.AssociationExist");
    for (entries, code) in [
        ("AddEntry.1.Cidr=11.0.0.0/8&AddEntry.2.Cidr=12.0.0.0/8", "LimitExceed.MaxEntries"),
        ("AddEntry.1.Cidr=10.0.0.1/8", "InvalidParameter.CidrMalformed"),
        ("AddEntry.1.Cidr=::/0", "InvalidParameter.CidrMalformed"),
        ("PrefixListName=1", "InvalidParameter.PrefixListName"),
    ] {
        lab.refused("ModifyPrefixList", &format!("{list}&{entries}"), 400, code);
    }
    for (entries, code) in [
        ("AddEntry.1.PortRange=200/1", "InvalidParameter.PortRange"),
        ("AddEntry.1.PortRange=0/1", "InvalidParameter.PortRange"),
        ("RemoveEntry.1.PortRange=x", "InvalidParameter.PortRange"),
        ("PortRangeListName=1", "InvalidParameter.PortRangeListName"),
        ("Description=x", "InvalidDescription.Malformed"),
    ] {
        lab.refused("ModifyPortRangeList", &format!("{ports}&{entries}"), 400, code);
    }
    lab.refused("ModifyPrefixList", &list, 400, "MissingParameter");
    lab.refused("ModifyPortRangeList", &ports, 400, "MissingParameter");
    let many: Vec<String> = (1..=201).map(|port| format!("AddEntry.{port}.PortRange={port}/{port}")).collect();
    lab.refused("ModifyPortRangeList", &format!("{ports}&{}", many.join("&")), 400, "LimitExceed.Entry");
    lab.ok("RevokeSecurityGroup", &rule);
    lab.ok("DeletePrefixList", &list);
    lab.ok("DeletePortRangeList", &ports);
    lab.refused("DeletePrefixList", &list, 404, "InvalidPrefixListId.NotFound");
    lab.refused("ModifyPrefixList", &format!("{list}&Description=gone"), 404, "InvalidPrefixListId.NotFound");
    lab.refused("DeletePortRangeList", &ports, 400, "InvalidPortRangeListId.NotFound");
    lab.refused("ModifyPortRangeList", &format!("{ports}&Description=gone"), 400, "InvalidPortRangeListId.NotFound");
}

#[test]
fn addresses_and_interfaces_in_use_are_refused() {
    let mut lab = ApiLab::new();
    let (_, vswitch, groups) = lab.base(&["normal"]);
    let (one, other) = (eni(&mut lab, &vswitch, &groups[0]), eni(&mut lab, &vswitch, &groups[0]));
    let (one, other) = (format!("NetworkInterfaceId={one}"), format!("NetworkInterfaceId={other}"));
    let address = "PrivateIpAddress.1=10.0.9.9";
    lab.ok("AssignPrivateIpAddresses", &format!("{one}&{address}"));
    lab.refused("AssignPrivateIpAddresses", &format!("{other}&{address}"), 403, "InvalidIp.IpAssigned");
    lab.refused("AssignPrivateIpAddresses", &format!("{one}&{address}"), 403, "InvalidIp.IpRepeated");
    let outside = format!("{one}&PrivateIpAddress.1=10.9.0.1");
    lab.refused("AssignPrivateIpAddresses", &outside, 403, "InvalidVSwitchId.IpInvalid");
    lab.refused(
        "AssignPrivateIpAddresses",
        &format!("{one}&SecondaryPrivateIpAddressCount=49"),
        403,
        "MaxEniPrivateIpsCountExceeded",
    );
    lab.refused("AssignIpv6Addresses", &format!("{one}&Ipv6AddressCount=1"), 403, "InvalidVSwitch.Ipv6NotTurnOn");
    lab.refused("UnassignPrivateIpAddresses", &format!("{other}&{address}"), 403, "InvalidIp.IpUnassigned");
    lab.refused("UnassignIpv6Addresses", &format!("{one}&Ipv6Address.1=2001:db8::1"), 403, "InvalidIp.IpUnassigned");
    lab.ok("UnassignPrivateIpAddresses", &format!("{one}&{address}"));
    lab.ok("AssignPrivateIpAddresses", &format!("{other}&{address}"));
    let create = format!("VSwitchId={vswitch}&SecurityGroupId={}", groups[0]);
    let both = format!("{create}&SecurityGroupIds.1={}", groups[0]);
    lab.refused("CreateNetworkInterface", &both, 400, "InvalidParameter.Conflict");
    lab.refused("CreateNetworkInterface", &format!("VSwitchId={vswitch}"), 400, "MissingParameter");
    let gone = "VSwitchId=vsw-none&SecurityGroupId=sg-none";
    lab.refused("CreateNetworkInterface", gone, 404, "InvalidVSwitchId.NotFound");
    lab.refused(
        "ModifyNetworkInterfaceAttribute",
        &format!("{one}&NetworkInterfaceName=1"),
        403,
        "InvalidParams.NetworkInterfaceName",
    );
    let timeout = format!("{one}&ConnectionTrackingConfiguration.UdpTimeout=45");
    let code = "InvalidParameter.EniConnectionTrackingConfiguration";
    lab.refused("ModifyNetworkInterfaceAttribute", &timeout, 400, code);

    let (first, second) = (instance(&mut lab, &vswitch, &groups[0]), instance(&mut lab, &vswitch, &groups[0]));
    lab.ok("AttachNetworkInterface", &format!("{one}&InstanceId={first}"));
    let code = "InvalidOperation.InvalidEniState";
    lab.refused("AttachNetworkInterface", &format!("{one}&InstanceId={second}"), 400, code);
    lab.refused("DetachNetworkInterface", &format!("{one}&InstanceId={second}"), 400, code);
    lab.refused("DetachNetworkInterface", &format!("{other}&InstanceId={first}"), 400, code);
    lab.refused("DeleteNetworkInterface", &one, 400, code);
    lab.refused("AttachNetworkInterface", &format!("{other}&InstanceId=i-none"), 404, "InvalidEcsId.NotFound");
    let none = "NetworkInterfaceId=eni-none";
    lab.refused("AttachNetworkInterface", &format!("{none}&InstanceId={first}"), 404, "InvalidEniId.NotFound");
    for action in ["DescribeNetworkInterfaceAttribute", "ModifyNetworkInterfaceAttribute"] {
        lab.refused(action, none, 404, "InvalidEniId.NotFound");
    }
    // One that goes with its instance is gone with it.
    lab.ok("ModifyNetworkInterfaceAttribute", &format!("{one}&DeleteOnRelease=true"));
    lab.ok("DeleteInstance", &format!("InstanceId={first}&Force=true"));
    lab.refused("DescribeNetworkInterfaceAttribute", &one, 404, "InvalidEniId.NotFound");
}

#[test]
fn instances_that_are_protected_or_misnamed_are_refused() {
    let mut lab = ApiLab::new();
    let (_, vswitch, groups) = lab.base(&["normal"]);
    let id = format!("InstanceId={}", instance(&mut lab, &vswitch, &groups[0]));
    let action = "ModifyInstanceAttribute";
    lab.refused(action, &format!("{id}&InstanceName=1"), 400, "InvalidInstanceName.Malformed");
    lab.refused(action, &format!("{id}&HostName=-web"), 400, "InvalidHostName.Malformed");
    lab.refused(action, &format!("{id}&Description=http://x"), 400, "InvalidDescription.Malformed");
    lab.refused(action, &format!("{id}&SecurityGroupIds.1=sg-none"), 404, "InvalidSecurityGroupId.NotFound");
    lab.ok(action, &format!("{id}&DeletionProtection=true"));
    let code = "InvalidOperation.DeletionProtection";
    lab.refused("DeleteInstance", &format!("{id}&Force=true"), 403, code);
    lab.refused("DeleteInstances", &format!("{}&Force=true", id.replace('=', ".1=")), 403, code);
    lab.ok(action, &format!("{id}&DeletionProtection=false"));
    lab.ok("DeleteInstance", &format!("{id}&Force=true"));
    for action in ["StartInstance", "StopInstance", "RebootInstance", "DeleteInstance", "ModifyInstanceAttribute"] {
        lab.refused(action, &id, 404, "InvalidInstanceId.NotFound");
    }
}

#[test]
fn tags_that_do_not_fit_are_refused() {
    let mut lab = ApiLab::new();
    let (_, _, groups) = lab.base(&["normal"]);
    let of = |more: &str| format!("ResourceType=securitygroup&ResourceId.1={}&{more}", groups[0]);
    let tags = |from: u8, to: u8| {
        let tags: Vec<String> = (from..=to).map(|key| format!("Tag.{key}.Key=k{key}&Tag.{key}.Value=v")).collect();
        tags.join("&")
    };
    lab.refused("TagResources", &of(&tags(1, 21)), 400, "NumberExceed.Tags");
    lab.ok("TagResources", &of(&tags(1, 20)));
    lab.ok("TagResources", &of("Tag.1.Key=k1&Tag.1.Value=w"));
    for (parameters, status, code) in [
        (of("Tag.1.Key=aliyun&Tag.1.Value=1"), 400, "InvalidTagKey.Malformed"),
        (of("Tag.1.Key=a&Tag.1.Value=http://x"), 400, "InvalidTagValue.Malformed"),
        ("ResourceType=planet&ResourceId.1=x&Tag.1.Key=a&Tag.1.Value=1".into(), 404, "InvalidResourceType.NotFound"),
        (
            format!("ResourceType=eni&ResourceId.1={}&Tag.1.Key=a&Tag.1.Value=1", groups[0]),
            404,
            "InvalidResourceId.NotFound",
        ),
    ] {
        lab.refused("TagResources", &parameters, status, code);
    }
    lab.refused(
        "UntagResources",
        "ResourceType=securitygroup&ResourceId.1=sg-none&All=true",
        404,
        "InvalidResourceId.NotFound",
    );
    let join = "ResourceType=securitygroup&ResourceId=sg-none&ResourceGroupId=rg-1";
    lab.refused("JoinResourceGroup", join, 404, "InvalidResourceId.NotFound");
    lab.ok("UntagResources", &of("All=true"));
    let shown = lab.ok("ListTagResources", &of(""));
    assert_eq!(shown["TagResources"]["TagResource"], json!([]));
}

/// A name or a block that an action lists no code of its own for is a parameter that is not valid.
#[test]
fn actions_refuse_names_and_blocks_with_codes_that_they_list() {
    let mut lab = ApiLab::new();
    let (vpc, vswitch, groups) = lab.base(&["normal"]);
    let eni = format!("VSwitchId={vswitch}&SecurityGroupId={}", groups[0]);
    let instance = format!("{eni}&InstanceType=ecs.g7.large");
    lab.refused("CreateNetworkInterface", &format!("{eni}&NetworkInterfaceName=1"), 400, "InvalidParameter");
    for action in ["RunInstances", "CreateInstance"] {
        for field in ["InstanceName=1", "HostName=-web", "Description=http://x"] {
            lab.refused(action, &format!("{instance}&{field}"), 400, "InvalidParameter");
        }
    }
    for field in ["Ipv6CidrBlock=2001:db8::/80", "Ipv6CidrBlock=fe80::/56", "CidrBlock=10.0.0.0/29"] {
        lab.refused("vpc:CreateVpc", field, 400, "InvalidParameter");
    }
    for (action, object, name) in [
        ("vpc:ModifyVpcAttribute", format!("VpcId={vpc}"), "VpcName"),
        ("vpc:ModifyVSwitchAttribute", format!("VSwitchId={vswitch}"), "VSwitchName"),
    ] {
        for field in [name, "Description"] {
            lab.refused(action, &format!("{object}&{field}=http://x"), 400, "InvalidParameter");
        }
    }
}
