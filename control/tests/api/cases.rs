//! The HTTP interface against a real server: refusals to the letter, and what changes show.

use super::lab::{ApiLab, send, text};
use control::conform::ApiRig;
use control::ecs::{AccessKey, ApiSettings};
use control::model::{Model, Quotas};
use serde_json::Value;

#[test]
fn rules_are_refused_to_the_letter() {
    let mut lab = ApiLab::new();
    let (vpc, _, groups) = lab.base(&["normal", "normal", "enterprise"]);
    let (a, b, e) = (&groups[0], &groups[1], &groups[2]);
    let other = text(&lab.ok("vpc:CreateVpc", "CidrBlock=10.0.0.0/8"), "VpcId");
    let c = text(&lab.ok("CreateSecurityGroup", &format!("VpcId={other}")), "SecurityGroupId");
    for (fields, status, code) in [
        ("IpProtocol=TCP&PortRange=22/22", 400, "MissingParameter.Source"),
        ("IpProtocol=TCP&PortRange=-1/-1&SourceCidrIp=0.0.0.0/0", 400, "InvalidParam.PortRange"),
        ("IpProtocol=TCP&SourceCidrIp=0.0.0.0/0", 400, "InvalidPortRange.Malformed"),
        (
            "IpProtocol=TCP&PortRange=22/22&SourceCidrIp=10.0.0.0/8&DestCidrIp=10.0.0.0/8",
            400,
            "InvalidParamter.Conflict",
        ),
        ("IpProtocol=ALL&SourceCidrIp=10.0.0.0/33", 400, "InvalidParam.SourceCidrIp"),
        ("IpProtocol=ALL&SourceCidrIp=::/0", 400, "InvalidParam.SourceCidrIp"),
        ("IpProtocol=ALL&Ipv6SourceCidrIp=10.0.0.0/8", 400, "InvalidParam.Ipv6SourceCidrIp"),
        ("IpProtocol=ALL&SourcePrefixListId=pl-none", 404, "InvalidPrefixListId.NotFound"),
        ("IpProtocol=TCP&PortRangeListId=prl-none&SourceCidrIp=10.0.0.0/8", 400, "InvalidPortRangeListId.NotFound"),
        ("IpProtocol=ALL&SourceCidrIp=10.0.0.0/8&Priority=0", 400, "InvalidPriority.ValueNotSupported"),
        ("IpProtocol=bad&Policy=bad&Priority=x", 400, "InvalidIpProtocol.ValueNotSupported"),
        ("IpProtocol=ALL&Policy=bad&Priority=x", 400, "InvalidPolicy.Malformed"),
        ("IpProtocol=ALL&Priority=x", 400, "InvalidPriority.Malformed"),
        (&format!("IpProtocol=ALL&SourceGroupId={c}"), 400, "InvalidSourceGroupId.Mismatch"),
        (&format!("IpProtocol=ALL&SourceGroupId={b}&SourceGroupOwnerId=7"), 404, "InvalidSourceGroupId.NotFound"),
    ] {
        lab.refused("AuthorizeSecurityGroup", &format!("SecurityGroupId={a}&{fields}"), status, code);
        let listed: Vec<String> = fields.split('&').map(|field| format!("Permissions.1.{field}")).collect();
        let listed = format!("SecurityGroupId={a}&{}", listed.join("&"));
        lab.refused("AuthorizeSecurityGroup", &listed, status, code);
    }
    let advanced = format!("SecurityGroupId={e}&IpProtocol=ALL&SourceGroupId={b}");
    lab.refused("AuthorizeSecurityGroup", &advanced, 400, "InvalidGroupParameter.OperationDenied");
    let mixed =
        format!("SecurityGroupId={a}&IpProtocol=ALL&Permissions.1.IpProtocol=ALL&Permissions.1.SourceCidrIp=::1");
    lab.refused("AuthorizeSecurityGroup", &mixed, 400, "InvalidParam.Permissions");
    let many: Vec<String> = (1..=101)
        .map(|place| format!("Permissions.{place}.IpProtocol=ALL&Permissions.{place}.SourceCidrIp=10.0.0.{place}"))
        .collect();
    let many = format!("SecurityGroupId={a}&{}", many.join("&"));
    lab.refused("AuthorizeSecurityGroup", &many, 400, "InvalidParam.Permissions");
    assert!(lab.rules(a).is_empty());
    let _ = vpc;
}

#[test]
fn rules_are_made_shown_changed_and_revoked() {
    let mut lab = ApiLab::new();
    let (_, _, groups) = lab.base(&["normal", "normal"]);
    let (a, b) = (&groups[0], &groups[1]);
    lab.ok(
        "AuthorizeSecurityGroup",
        &format!(
            "SecurityGroupId={a}&Permissions.1.IpProtocol=tcp&Permissions.1.PortRange=22/22&\
             Permissions.1.SourceCidrIp=10.159.6.18/12&Permissions.1.Policy=DROP&Permissions.1.Priority=7&\
             Permissions.3.IpProtocol=icmpv6&Permissions.3.Ipv6SourceCidrIp=2408:180:0000::1&\
             Permissions.5.IpProtocol=17&Permissions.5.PortRange=53/53&Permissions.5.SourceGroupId={b}"
        ),
    );
    let rules = lab.rules(a);
    assert_eq!(rules.len(), 3);
    let first = rules.iter().find(|rule| rule["Priority"] == "7").unwrap();
    assert_eq!(first["SourceCidrIp"], "10.159.6.18/12");
    assert_eq!((&first["Policy"], &first["IpProtocol"]), (&"Drop".into(), &"TCP".into()));
    assert_eq!((&first["NicType"], &first["Direction"]), (&"intranet".into(), &"ingress".into()));
    assert_eq!(first["DestCidrIp"], "");
    assert!(rules.iter().any(|rule| rule["IpProtocol"] == "UDP" && rule["SourceGroupId"] == b.as_str()));
    let references = lab.ok("DescribeSecurityGroupReferences", &format!("SecurityGroupId.1={b}"));
    let reference = &references["SecurityGroupReferences"]["SecurityGroupReference"][0];
    assert_eq!(reference["ReferencingSecurityGroups"]["ReferencingSecurityGroup"][0]["SecurityGroupId"], a.as_str());

    let id = text(first, "SecurityGroupRuleId");
    let modify = |fields: &str| format!("SecurityGroupId={a}&SecurityGroupRuleId={id}&{fields}");
    let action = "ModifySecurityGroupRule";
    lab.refused(action, &modify(&format!("SourceGroupId={b}")), 400, "InvalidOperation.ModifySgRuleEntityType");
    lab.refused(action, &modify("IpProtocol=icmp"), 400, "InvalidParam.ProtocolAndPortRangeMismatch");
    lab.refused(action, &modify(&format!("DestGroupId={b}")), 400, "InvalidSourceOrDestGroupId.DirectionMissmatch");
    lab.refused("ModifySecurityGroupEgressRule", &modify("Priority=8"), 404, "InvalidSecurityGroupRuleId.NotFound");
    lab.ok(action, &modify("PortRange=80/81&Description=web"));
    let flat = format!("SecurityGroupId={a}&IpProtocol=tcp&PortRange=80/81&SourceCidrIp=10.144.0.0/12&Priority=7");
    lab.refused(action, &format!("{flat}&Description=x"), 404, "SecurityGroupRule.NotFound");
    lab.ok(action, &format!("{flat}&Policy=drop&Description=renamed"));
    assert!(lab.rules(a).iter().any(|rule| rule["Description"] == "renamed" && rule["PortRange"] == "80/81"));

    let action = "RevokeSecurityGroup";
    let twice = format!("SecurityGroupId={a}&SecurityGroupRuleId.1={id}&SecurityGroupRuleId.2={id}");
    lab.refused(action, &twice, 400, "InvalidParam.SecurityGroupRuleIdRepeated");
    let unknown = format!("SecurityGroupId={a}&SecurityGroupRuleId.1=sgr-none");
    lab.refused(action, &unknown, 400, "InvalidParam.SecurityGroupRuleId");
    lab.refused(action, &flat, 400, "InvalidSecurityGroupRule.RuleNotExist");
    lab.ok(action, &format!("SecurityGroupId={a}&SecurityGroupRuleId.1={id}"));
    assert_eq!(lab.rules(a).len(), 2);
    lab.refused("DeleteSecurityGroup", &format!("SecurityGroupId={b}"), 403, "DependencyViolation");
}

#[test]
fn groups_are_listed_in_pages_both_ways() {
    let mut lab = ApiLab::new();
    let (vpc, _, mut groups) = lab.base(&["normal"; 13]);
    groups.sort();
    groups.reverse();
    let ids = |shown: &Value| -> Vec<String> {
        let list = shown["SecurityGroups"]["SecurityGroup"].as_array().unwrap();
        list.iter().map(|group| text(group, "SecurityGroupId")).collect()
    };
    let all = lab.ok("DescribeSecurityGroups", &format!("VpcId={vpc}&PageSize=50"));
    assert_eq!(ids(&all), groups);
    assert_eq!((&all["TotalCount"], &all["PageNumber"]), (&13.into(), &1.into()));
    let first = lab.ok("DescribeSecurityGroups", "MaxResults=10");
    assert!(first.get("TotalCount").is_none());
    let second = lab.ok("DescribeSecurityGroups", &format!("NextToken={}", text(&first, "NextToken")));
    assert_eq!([ids(&first), ids(&second)].concat(), groups);
    assert_eq!(second["NextToken"], "");
    let page = lab.ok("DescribeSecurityGroups", "PageNumber=2&PageSize=10");
    assert_eq!(ids(&page), groups[10..]);
    lab.refused("DescribeSecurityGroups", "NextToken=x", 400, "InValidParameter.NextToken");
    lab.refused("DescribeSecurityGroups", "MaxResults=101", 400, "InvalidParameter");
    lab.refused("DescribeSecurityGroups", "SecurityGroupIds=[", 400, "InvalidSecurityGroupId.Malformed");
    let named = lab.ok("DescribeSecurityGroups", &format!("SecurityGroupIds=[\"{}\",\"sg-none\"]", groups[3]));
    assert_eq!(ids(&named), [groups[3].clone()]);
    assert_eq!(ids(&lab.ok("DescribeSecurityGroups", "SecurityGroupId=sg-none")), Vec::<String>::new());
}

#[test]
fn tokens_and_dry_runs_do_nothing_twice() {
    let mut lab = ApiLab::new();
    let (vpc, _, _) = lab.base(&[]);
    let once = format!("VpcId={vpc}&ClientToken=tok-1&SecurityGroupName=web");
    let first = text(&lab.ok("CreateSecurityGroup", &once), "SecurityGroupId");
    assert_eq!(text(&lab.ok("CreateSecurityGroup", &once), "SecurityGroupId"), first);
    lab.refused("CreateSecurityGroup", &once.replace("web", "db"), 400, "IdempotentParameterMismatch");
    let long = format!("VpcId={vpc}&ClientToken={}", "t".repeat(65));
    lab.refused("CreateSecurityGroup", &long, 400, "InvalidClientToken.ValueNotSupported");
    lab.refused("vpc:DeleteVpc", &format!("VpcId={vpc}&DryRun=true"), 400, "DependencyViolation.VSwitch");
    lab.ok("DeleteSecurityGroup", &format!("SecurityGroupId={first}"));
    let vswitches = lab.ok("vpc:DescribeVSwitches", &format!("VpcId={vpc}"));
    let vswitch = text(&vswitches["VSwitches"]["VSwitch"][0], "VSwitchId");
    lab.refused("vpc:DeleteVSwitch", &format!("VSwitchId={vswitch}&DryRun=True"), 400, "DryRunOperation");
    lab.ok("vpc:DeleteVSwitch", &format!("VSwitchId={vswitch}"));
    lab.ok("vpc:DeleteVpc", &format!("VpcId={vpc}"));
    assert_eq!(lab.ok("vpc:DescribeVpcs", "")["TotalCount"], 0);
}

#[test]
fn instances_live_with_their_interfaces() {
    let mut lab = ApiLab::new();
    let (vpc, vswitch, groups) = lab.base(&["normal", "normal", "enterprise"]);
    let (a, b, e) = (&groups[0], &groups[1], &groups[2]);
    let run = format!("VSwitchId={vswitch}&InstanceType=ecs.g7.large&InstanceName=web&Tag.1.Key=k&Tag.1.Value=v");
    let both = format!("{run}&SecurityGroupId={a}&SecurityGroupIds.1={b}");
    lab.refused("RunInstances", &both, 400, "InvalidParameter");
    lab.refused("RunInstances", "InstanceType=ecs.g7.large", 400, "MissingParameter");
    let outside = format!("{run}&SecurityGroupId={a}&PrivateIpAddress=192.168.0.1");
    lab.refused("RunInstances", &outside, 400, "InvalidPrivateIpAddress");
    lab.refused("RunInstances", &format!("{run}&Amount=101"), 403, "InvalidParam.Amount");
    let made = lab.ok("RunInstances", &format!("{run}&SecurityGroupId={a}&Amount=2&PrivateIpAddress=10.0.0.10"));
    let ids = made["InstanceIdSets"]["InstanceIdSet"].as_array().unwrap().clone();
    assert_eq!(ids.len(), 2);
    let id = ids[0].as_str().unwrap();
    let shown = lab.ok("DescribeInstances", &format!("InstanceIds=[\"{id}\"]"));
    let instance = shown["Instances"]["Instance"][0].clone();
    assert_eq!((&instance["Status"], &instance["InstanceName"]), (&"Running".into(), &"web".into()));
    assert_eq!(instance["VpcAttributes"]["PrivateIpAddress"]["IpAddress"][0], "10.0.0.10");
    assert_eq!(instance["Tags"]["Tag"][0]["TagKey"], "k");
    let primary = text(&instance["NetworkInterfaces"]["NetworkInterface"][0], "NetworkInterfaceId");

    let groups_of = |ids: &[&String]| {
        let pairs: Vec<String> =
            ids.iter().enumerate().map(|(place, id)| format!("SecurityGroupIds.{}={id}", place + 1)).collect();
        format!("InstanceId={id}&{}", pairs.join("&"))
    };
    let action = "ModifyInstanceAttribute";
    lab.refused(action, &groups_of(&[a, e]), 403, "EnterpriseGroupLimited.MutliGroupType");
    lab.refused(action, &groups_of(&[a, a]), 404, "InvalidParameter.SecurityGroupIdRepeated");
    lab.ok(action, &groups_of(&[e]));
    lab.ok(action, &groups_of(&[a]));
    let replace = format!("NetworkInterfaceId={primary}&SecurityGroupId.1={b}");
    let fixed = "InvalidOperation.PrimaryEniOnlySupportModifyNameAndDesc";
    lab.refused("ModifyNetworkInterfaceAttribute", &replace, 404, fixed);
    lab.ok("JoinSecurityGroup", &format!("SecurityGroupId={b}&InstanceId={id}"));
    let again = format!("SecurityGroupId={b}&InstanceId={id}");
    lab.refused("JoinSecurityGroup", &again, 403, "InvalidInstanceId.AlreadyExists");
    lab.ok("LeaveSecurityGroup", &again);
    let last = format!("SecurityGroupId={a}&InstanceId={id}");
    lab.refused("LeaveSecurityGroup", &last, 403, "InstanceLastSecurityGroup");

    let created = lab.ok("CreateNetworkInterface", &format!("VSwitchId={vswitch}&SecurityGroupId={b}"));
    assert_eq!((&created["Status"], &created["Type"]), (&"Available".into(), &"Secondary".into()));
    let eni = text(&created, "NetworkInterfaceId");
    let pair = format!("NetworkInterfaceId={eni}&InstanceId={id}");
    lab.ok("AttachNetworkInterface", &pair);
    lab.refused("AttachNetworkInterface", &pair, 400, "InvalidOperation.InvalidEniState");
    let named = format!("NetworkInterfaceId={eni}");
    lab.refused("DeleteNetworkInterface", &named, 400, "InvalidOperation.InvalidEniState");
    let assigned = lab.ok("AssignPrivateIpAddresses", &format!("{named}&SecondaryPrivateIpAddressCount=2"));
    let set = &assigned["AssignedPrivateIpAddressesSet"]["PrivateIpSet"]["PrivateIpAddress"];
    assert_eq!(set.as_array().unwrap().len(), 2);
    lab.ok("DetachNetworkInterface", &pair);
    let fixed = format!("NetworkInterfaceId={primary}&InstanceId={id}");
    lab.refused("DetachNetworkInterface", &fixed, 400, "InvalidOperation.DetachPrimaryEniNotAllowed");
    lab.ok("DeleteNetworkInterface", &named);
    let named = format!("InstanceId={id}");
    lab.refused("StartInstance", &named, 403, "IncorrectInstanceStatus");
    lab.refused("DeleteInstance", &named, 403, "IncorrectInstanceStatus");
    lab.ok("StopInstance", &named);
    lab.refused("RebootInstance", &named, 403, "IncorrectInstanceStatus");
    lab.ok("DeleteInstance", &named);
    let other = ids[1].as_str().unwrap();
    lab.ok("DeleteInstances", &format!("InstanceId.1={other}&Force=true"));
    assert_eq!(lab.ok("DescribeNetworkInterfaces", "")["TotalCount"], 0);
    lab.refused("DescribeInstanceAttribute", &named, 404, "InvalidInstanceId.NotFound");
    let _ = vpc;
}

#[test]
fn accounts_see_their_own_and_what_is_shared() {
    let key = |id: &str, account: &str| AccessKey {
        id: id.into(),
        secret: format!("secret-{id}"),
        account: account.into(),
        security_token: None,
    };
    let keys = [key("one", "1"), key("two", "2")];
    let mut lab = ApiLab::with(ApiSettings { access_keys: keys.to_vec(), ..ApiSettings::default() });
    let (vpc, _, groups) = lab.base(&["normal"]);
    let mut other = lab.as_account(&keys[1]);
    let shown = send(&mut other, "DescribeSecurityGroups", "").json();
    assert_eq!(shown["TotalCount"], 0);
    let named = format!("SecurityGroupId={}", groups[0]);
    let answer = send(&mut other, "DescribeSecurityGroupAttribute", &named);
    assert_eq!(answer.code().as_deref(), Some("InvalidSecurityGroupId.NotFound"));
    let own = send(&mut other, "CreateSecurityGroup", &format!("VpcId={vpc}"));
    assert_eq!(own.code().as_deref(), Some("InvalidVpcId.NotFound"));
    // Where its owner shares it, the other account has its own groups in it, and names those of the first as such.
    let shared_vpcs = [(vpc.clone(), vec!["2".to_owned()])].into();
    let settings = ApiSettings { access_keys: keys.to_vec(), shared_vpcs, ..ApiSettings::default() };
    share(settings, &keys[1]);
    // A region is a place of its own too.
    let shown = lab.ok("DescribeSecurityGroups", "RegionId=cn-beijing");
    assert_eq!(shown["TotalCount"], 0);
    lab.refused("DescribeSecurityGroups", "RegionId=mars", 404, "InvalidRegionId.NotFound");
}

/// Two accounts in one VPC, on a control plane of its own.
fn share(settings: ApiSettings, other: &AccessKey) {
    let mut model = Model::new(Quotas::default());
    let environment = control::environment::Environment::fixed(0, 0);
    let vpc = settings.shared_vpcs.keys().next().unwrap();
    for command in [
        serde_json::json!({"op": "vpc-create", "id": vpc, "cidr": "10.0.0.0/8"}),
        serde_json::json!({"op": "vswitch-create", "id": "vsw-s", "vpc": vpc, "cidr": "10.0.0.0/16"}),
        serde_json::json!({"op": "group-create", "id": "sg-first", "vpc": vpc}),
    ] {
        let command = serde_json::from_value(command).unwrap();
        for event in model.decide(&command, &environment).unwrap() {
            model.apply(event);
        }
    }
    let rig = ApiRig::start(&model, settings.clone(), Quotas::default()).unwrap();
    let mut shared = ApiLab { client: rig.client().unwrap(), rig };
    let mut guest = shared.as_account(other);
    let group = text(&send(&mut guest, "CreateSecurityGroup", &format!("VpcId={vpc}")).json(), "SecurityGroupId");
    let rule = format!("SecurityGroupId={group}&IpProtocol=all&SourceGroupId=sg-first");
    let answer = send(&mut guest, "AuthorizeSecurityGroup", &rule);
    assert_eq!(answer.code().as_deref(), Some("InvalidSourceGroupId.NotFound"));
    let answer = send(&mut guest, "AuthorizeSecurityGroup", &format!("{rule}&SourceGroupOwnerId=1"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    shared.refused("DeleteSecurityGroup", "SecurityGroupId=sg-first", 403, "DependencyViolation");
    // Each has a default group of its own.
    let run = "VSwitchId=vsw-s&InstanceType=ecs.g7.large";
    shared.ok("RunInstances", run);
    assert_eq!(send(&mut guest, "RunInstances", run).status, 200);
    assert_eq!(send(&mut guest, "RunInstances", run).status, 200);
    let groups = |shown: serde_json::Value| shown["TotalCount"].as_u64().unwrap();
    assert_eq!(groups(shared.ok("DescribeSecurityGroups", "")), 2);
    assert_eq!(groups(send(&mut guest, "DescribeSecurityGroups", "").json()), 2);
    assert_eq!(
        send(&mut guest, "vpc:DeleteVpc", &format!("VpcId={vpc}")).code().as_deref(),
        Some("InvalidVpcId.NotFound")
    );
}

#[test]
fn tags_and_resource_groups_are_kept() {
    let mut lab = ApiLab::new();
    let (vpc, _, groups) = lab.base(&["normal"]);
    let group = &groups[0];
    let of = |more: &str| format!("ResourceType=securitygroup&ResourceId.1={group}&{more}");
    lab.ok("TagResources", &of("Tag.1.Key=a&Tag.1.Value=1&Tag.2.Key=b&Tag.2.Value="));
    lab.refused("TagResources", &of("Tag.1.Key=acs:x&Tag.1.Value=1"), 400, "InvalidTagKey.Malformed");
    lab.refused("TagResources", &of("Tag.1.Key=a&Tag.1.Value=1&Tag.2.Key=a&Tag.2.Value=2"), 400, "Duplicate.TagKey");
    lab.refused("TagResources", &of(""), 404, "MissingParameter.Tags");
    let none = "ResourceType=securitygroup&ResourceId.1=sg-none&Tag.1.Key=a&Tag.1.Value=1";
    lab.refused("TagResources", none, 404, "InvalidResourceId.NotFound");
    let shown = lab.ok("ListTagResources", &of(""));
    assert_eq!(shown["TagResources"]["TagResource"].as_array().unwrap().len(), 2);
    assert_eq!(lab.ok("DescribeSecurityGroups", "Tag.1.Key=a&Tag.1.Value=1")["TotalCount"], 1);
    assert_eq!(lab.ok("DescribeSecurityGroups", "Tag.1.Key=a&Tag.1.Value=2")["TotalCount"], 0);
    lab.ok("UntagResources", &of("TagKey.1=a"));
    let shown = lab.ok("DescribeTags", "ResourceType=securitygroup");
    assert_eq!((&shown["TotalCount"], &shown["Tags"]["Tag"][0]["TagKey"]), (&1.into(), &"b".into()));
    let join = format!("ResourceType=securitygroup&ResourceId={group}&ResourceGroupId=rg-1");
    lab.ok("JoinResourceGroup", &join);
    lab.refused("JoinResourceGroup", &join, 403, "InvalidResourceGroup.Duplicate");
    assert_eq!(lab.ok("DescribeSecurityGroups", "ResourceGroupId=rg-1")["TotalCount"], 1);
    lab.ok("vpc:TagResources", &format!("ResourceType=VPC&ResourceId.1={vpc}&Tag.1.Key=a&Tag.1.Value=1"));
    assert_eq!(lab.ok("vpc:DescribeVpcs", "Tag.1.Key=a")["Vpcs"]["Vpc"][0]["Tags"]["Tag"][0]["Key"], "a");
}

#[test]
fn places_and_states_have_to_fit() {
    let mut lab = ApiLab::new();
    let (vpc, vswitch, groups) = lab.base(&["normal"]);
    let other = format!("VpcId={vpc}&CidrBlock=10.1.0.0/16&ZoneId=cn-hangzhou-c");
    let other = text(&lab.ok("vpc:CreateVSwitch", &other), "VSwitchId");
    let run = format!("VSwitchId={vswitch}&SecurityGroupId={}&InstanceType=ecs.g7.large", groups[0]);
    let instance = lab.ok("RunInstances", &run)["InstanceIdSets"]["InstanceIdSet"][0].as_str().unwrap().to_owned();
    let eni = format!("VSwitchId={other}&SecurityGroupId={}", groups[0]);
    let eni = text(&lab.ok("CreateNetworkInterface", &eni), "NetworkInterfaceId");
    let attach = format!("InstanceId={instance}&NetworkInterfaceId={eni}");
    lab.refused("AttachNetworkInterface", &attach, 403, "InvalidOperation.AvailabilityZoneMismatch");
    let moved = format!("InstanceId={instance}&VSwitchId={other}");
    lab.refused("ModifyInstanceVpcAttribute", &moved, 400, "InvalidVSwitchId.Mismatch");
    let tag = format!("ResourceType=securitygroup&ResourceId.1={}&Tag.1.Value=x", groups[0]);
    lab.refused("TagResources", &tag, 400, "InvalidTag.Mismatch");
    lab.refused("vpc:CreateVpc", "UserCidr=10.0.0.0/8,11.0.0.0/8,12.0.0.0/8,13.0.0.0/8", 400, "InvalidUserCidr.Quota");
    lab.refused("vpc:CreateVpc", "UserCidr=100.64.1.0/24", 400, "InvalidUserCidr.Malformed");
    let mut slow = ApiLab::with(ApiSettings { state_delay_s: 3600, ..ApiSettings::default() });
    let vpc = text(&slow.ok("vpc:CreateVpc", "CidrBlock=10.0.0.0/8"), "VpcId");
    slow.refused("CreateSecurityGroup", &format!("VpcId={vpc}"), 400, "IncorrectVpcStatus");
    slow.refused("vpc:DeleteVpc", &format!("VpcId={vpc}"), 400, "IncorrectVpcStatus");
}

#[test]
fn nobody_looks_at_nic_types_in_a_vpc() {
    let mut lab = ApiLab::new();
    let (_, _, groups) = lab.base(&["normal", "normal"]);
    let (a, b) = (&groups[0], &groups[1]);
    for (nic_type, object) in [("<nil>", "SourceCidrIp=10.0.0.0/8"), ("internet", "SourceCidrIp=10.1.0.0/16")] {
        lab.ok("AuthorizeSecurityGroup", &format!("SecurityGroupId={a}&IpProtocol=ALL&{object}&NicType={nic_type}"));
        // The one without it is the same.
        lab.ok("AuthorizeSecurityGroup", &format!("SecurityGroupId={a}&IpProtocol=ALL&{object}"));
    }
    let by_group = format!("SecurityGroupId={a}&IpProtocol=ALL&SourceGroupId={b}&NicType=internet");
    lab.ok("AuthorizeSecurityGroup", &by_group);
    let rules = lab.rules(a);
    assert_eq!(rules.len(), 3);
    assert!(rules.iter().all(|rule| rule["NicType"] == "intranet"), "{rules:?}");
    let rule = rules.iter().find(|rule| rule["SourceCidrIp"] != "").unwrap();
    let rule = text(rule, "SecurityGroupRuleId");
    let modify = format!("SecurityGroupId={a}&SecurityGroupRuleId={rule}&Priority=7&NicType=internet");
    lab.ok("ModifySecurityGroupRule", &modify);
    lab.ok("RevokeSecurityGroup", &by_group);
    assert_eq!(lab.rules(a).len(), 2);
}

#[test]
fn groups_of_the_classic_network_have_rules_and_no_members() {
    let mut lab = ApiLab::new();
    lab.refused("CreateSecurityGroup", "SecurityGroupName=web", 403, "InvalidVpcId.NotFound");
    let mut lab = ApiLab::with(ApiSettings { classic_network: true, ..ApiSettings::default() });
    lab.refused("CreateSecurityGroup", "SecurityGroupType=enterprise", 400, "InvalidParams.VpcIdGroupType");
    let (_, vswitch, groups) = lab.base(&["normal"]);
    let classic = text(&lab.ok("CreateSecurityGroup", "SecurityGroupName=web"), "SecurityGroupId");
    let far = text(&lab.ok("CreateSecurityGroup", "RegionId=cn-beijing&SecurityGroupName=far"), "SecurityGroupId");
    let names = |lab: &mut ApiLab, asked: &str| {
        let shown = lab.ok("DescribeSecurityGroups", asked);
        let groups = shown["SecurityGroups"]["SecurityGroup"].as_array().unwrap().clone();
        groups.iter().map(|group| text(group, "SecurityGroupId")).collect::<Vec<_>>()
    };
    assert_eq!(names(&mut lab, "NetworkType=classic"), [classic.as_str()]);
    assert_eq!(names(&mut lab, "NetworkType=vpc"), [groups[0].as_str()]);
    assert_eq!(names(&mut lab, "RegionId=cn-beijing&NetworkType=classic"), [far]);
    let add = |more: &str| format!("SecurityGroupId={classic}&IpProtocol=TCP&PortRange=22/22&{more}");
    lab.ok("AuthorizeSecurityGroup", &add("SourceCidrIp=10.0.0.0/8"));
    lab.ok("AuthorizeSecurityGroup", &add("SourceCidrIp=10.0.0.0/8&NicType=intranet"));
    lab.ok("AuthorizeSecurityGroup", &add("SourceCidrIp=10.0.0.0/8&NicType=Internet"));
    let types: Vec<String> = lab.rules(&classic).iter().map(|rule| text(rule, "NicType")).collect();
    assert_eq!(types.len(), 2, "{types:?}");
    let of = |lab: &mut ApiLab, kind: &str| {
        let shown = lab.ok("DescribeSecurityGroupAttribute", &format!("SecurityGroupId={classic}&NicType={kind}"));
        shown["Permissions"]["Permission"].as_array().unwrap().len()
    };
    assert_eq!((of(&mut lab, "internet"), of(&mut lab, "intranet"), of(&mut lab, "<nil>")), (1, 1, 2));
    lab.refused(
        "AuthorizeSecurityGroup",
        &add("SourceCidrIp=1.0.0.0/8&NicType=radio"),
        400,
        "InvalidNicType.ValueNotSupported",
    );
    // A rule names no group of a VPC, and no interface is a member.
    let other = add(&format!("SourceGroupId={}", groups[0]));
    lab.refused("AuthorizeSecurityGroup", &other, 400, "InvalidSourceGroupId.Mismatch");
    let eni = format!("VSwitchId={vswitch}&SecurityGroupId={classic}");
    assert_ne!(lab.send("CreateNetworkInterface", &eni).status, 200);
    let eni = lab.ok("CreateNetworkInterface", &format!("VSwitchId={vswitch}&SecurityGroupId={}", groups[0]));
    let join = format!("SecurityGroupId={classic}&NetworkInterfaceId={}", text(&eni, "NetworkInterfaceId"));
    assert_ne!(lab.send("JoinSecurityGroup", &join).status, 200);
    let rule = text(&lab.rules(&classic)[0], "SecurityGroupRuleId");
    let kind = text(&lab.rules(&classic)[0], "NicType");
    let across = if kind == "internet" { "intranet" } else { "internet" };
    let modify = |nic: &str| format!("SecurityGroupId={classic}&SecurityGroupRuleId={rule}&Priority=9&NicType={nic}");
    lab.refused("ModifySecurityGroupRule", &modify(across), 400, "InvalidOperation.ModifyNicType");
    lab.ok("ModifySecurityGroupRule", &modify(&kind));
    lab.ok("RevokeSecurityGroup", &format!("SecurityGroupId={classic}&SecurityGroupRuleId.1={rule}"));
    lab.ok("DeleteSecurityGroup", &format!("SecurityGroupId={classic}"));
}

#[test]
fn an_ipv6_prefix_reads_back_with_its_host_bits_and_short() {
    let mut lab = ApiLab::new();
    let (_, _, groups) = lab.base(&["normal"]);
    let add = |more: &str| format!("SecurityGroupId={}&IpProtocol=TCP&PortRange=22/22&{more}", groups[0]);
    let long = "2001:0db8:3c4d:0015:0000:0000:1a2f:1a2b";
    for (given, shown) in [
        (format!("{long}/0"), "2001:db8:3c4d:15::1a2f:1a2b/0"),
        (format!("{long}/64"), "2001:db8:3c4d:15::1a2f:1a2b/64"),
    ] {
        lab.ok("AuthorizeSecurityGroup", &add(&format!("Ipv6SourceCidrIp={given}")));
        let rules = lab.rules(&groups[0]);
        assert_eq!(text(&rules[0], "Ipv6SourceCidrIp"), shown);
        // What it masks to is the same rule.
        lab.ok("RevokeSecurityGroup", &add(&format!("Ipv6SourceCidrIp={shown}")));
    }
}
