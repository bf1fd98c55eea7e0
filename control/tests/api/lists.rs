//! What the lists of the HTTP interface show for what they are asked.

use super::lab::{ApiLab, text};
use control::ecs::ApiSettings;
use serde_json::Value;

fn count(answer: &Value) -> u64 {
    answer["TotalCount"].as_u64().unwrap()
}

#[test]
fn instances_are_found_by_what_they_are() {
    let mut lab = ApiLab::new();
    let (_, vswitch, groups) = lab.base(&["normal"]);
    let run = format!("VSwitchId={vswitch}&SecurityGroupId={}&InstanceType=ecs.g7.large&InstanceName=web", groups[0]);
    lab.ok("RunInstances", &run);
    let made = text(&lab.ok("DescribeInstances", "")["Instances"]["Instance"][0], "CreationTime");
    let minute = format!("{}Z", &made[..16]);
    for (asked, found) in [
        (format!("Filter.1.Key=CreationStartTime&Filter.1.Value={minute}"), 1),
        (format!("Filter.1.Key=CreationEndTime&Filter.1.Value={made}"), 1),
        ("Filter.1.Key=CreationEndTime&Filter.1.Value=2020-01-01T00:00Z".into(), 0),
        ("Filter.3.Key=CreationStartTime&Filter.3.Value=2100-01-01T00:00:00Z".into(), 0),
        ("Filter.1.Key=ExpiredEndTime&Filter.1.Value=2100-01-01T00:00Z".into(), 0),
        ("InstanceTypeFamily=ecs.g7&InstanceChargeType=PostPaid&InstanceNetworkType=vpc&IoOptimized=true".into(), 1),
        ("InstanceTypeFamily=ecs.g6".into(), 0),
        ("InstanceChargeType=PrePaid".into(), 0),
        ("InstanceNetworkType=classic".into(), 0),
        ("DeviceAvailable=False".into(), 0),
        ("PublicIpAddresses=[\"1.2.3.4\"]".into(), 0),
        ("LockReason=security".into(), 0),
        ("Ipv6Address.1=2001:db8::1".into(), 0),
        ("InstanceName=w*".into(), 1),
    ] {
        assert_eq!(count(&lab.ok("DescribeInstances", &asked)), found, "{asked}");
    }
    for (asked, status, code) in [
        ("Filter.1.Key=Creation&Filter.1.Value=2020-01-01T00:00Z", 404, "InvalidFilterKey.NotFound"),
        ("Filter.1.Key=CreationEndTime&Filter.1.Value=today", 400, "InvalidParameter"),
        ("Filter.1.Key=CreationEndTime", 400, "InvalidParameter"),
        ("InstanceChargeType=free", 404, "InvalidInstanceChargeType.NotFound"),
        ("InternetChargeType=free", 404, "InvalidInternetChargeType.ValueNotSupported"),
        ("InstanceNetworkType=radio", 404, "InvalidNetworkType.NotFound"),
        ("LockReason=lost", 404, "InvalidLockReason.NotFound"),
        ("HpcClusterId=hpc-1", 400, "InvalidHpcClusterId.NotFound"),
        ("Status=Lost", 404, "InvalidStatus.NotFound"),
    ] {
        lab.refused("DescribeInstances", asked, status, code);
    }
    lab.refused("DescribeInstanceStatus", "ZoneId=mars", 404, "InvalidZoneId.NotFound");
    assert_eq!(count(&lab.ok("DescribeInstanceStatus", "ZoneId=cn-hangzhou-b")), 1);
    assert_eq!(count(&lab.ok("DescribeInstanceStatus", "ZoneId=cn-hangzhou-c")), 0);
}

#[test]
fn pages_are_asked_for_by_token_or_number() {
    let mut lab = ApiLab::new();
    lab.base(&["normal"; 3]);
    let both = lab.ok("DescribeSecurityGroups", "PageNumber=1&PageSize=1&MaxResults=2");
    assert!(both.get("TotalCount").is_none());
    assert_eq!(both["SecurityGroups"]["SecurityGroup"].as_array().unwrap().len(), 2);
    for asked in ["MaxResults=0", "MaxResults=-1", "PageNumber=0", "PageSize=0", "PageSize=51", "PageSize=x"] {
        lab.refused("DescribeSecurityGroups", asked, 400, "InvalidParameter");
    }
    let mut lab = ApiLab::with(ApiSettings { page_numbers: false, ..ApiSettings::default() });
    for asked in ["PageNumber=1", "PageSize=10", "PageNumber=1&MaxResults=10"] {
        lab.refused("DescribeSecurityGroups", asked, 400, "NotSupported.PageNumberAndPageSize");
    }
    lab.ok("DescribeSecurityGroups", "MaxResults=10");
}

#[test]
fn regions_and_zones_know_their_words() {
    let mut lab = ApiLab::new();
    lab.refused("DescribeRegions", "ResourceType=mars", 404, "InvalidResourceType.NotFound");
    lab.refused("DescribeRegions", "AcceptLanguage=tlh", 404, "InvalidAcceptLanguage.NotFound");
    lab.refused("DescribeZones", "InstanceChargeType=free", 404, "InvalidInstanceChargeType.NotFound");
    lab.refused("DescribeZones", "SpotStrategy=luck", 400, "InvalidSpotStrategy");
    lab.refused("DescribeNetworkInterfaces", "RegionId=!", 400, "InvalidRegionId.MalFormed");
    lab.refused("DescribeNetworkInterfaces", "RegionId=mars", 404, "InvalidRegionId.NotFound");
    let zones = lab.ok("DescribeZones", "InstanceChargeType=postpaid&SpotStrategy=NoSpot&AcceptLanguage=en-US");
    assert_eq!(zones["Zones"]["Zone"][0]["ZoneId"], "cn-hangzhou-a");
}

/// A list of the HTTP interface: the action, the way to its entries, and the name of their identifier.
type List = (&'static str, &'static str, &'static str);

const VPCS: List = ("vpc:DescribeVpcs", "/Vpcs/Vpc", "VpcId");
const VSWITCHES: List = ("vpc:DescribeVSwitches", "/VSwitches/VSwitch", "VSwitchId");
const ENIS: List = ("DescribeNetworkInterfaces", "/NetworkInterfaceSets/NetworkInterfaceSet", "NetworkInterfaceId");
const PREFIX_LISTS: List = ("DescribePrefixLists", "/PrefixLists/PrefixList", "PrefixListId");
const PORT_LISTS: List = ("DescribePortRangeLists", "/PortRangeLists", "PortRangeListId");
const INSTANCES: List = ("DescribeInstances", "/Instances/Instance", "InstanceId");
const GROUPS: List = ("DescribeSecurityGroups", "/SecurityGroups/SecurityGroup", "SecurityGroupId");

fn entries(answer: &Value, (_, place, id): List) -> Vec<String> {
    answer.pointer(place).unwrap().as_array().unwrap().iter().map(|entry| text(entry, id)).collect()
}

fn found(lab: &mut ApiLab, list: List, asked: &str) -> Vec<String> {
    let mut ids = entries(&lab.ok(list.0, asked), list);
    ids.sort();
    ids
}

/// Asserts that pages by number hold everything once and no more, and tell how much there is.
fn turn_pages(lab: &mut ApiLab, list: List, asked: &str, all: &[String]) {
    let mut seen = Vec::new();
    for number in 1..=all.len().div_ceil(5) + 1 {
        let page = lab.ok(list.0, &format!("{asked}&PageSize=5&PageNumber={number}"));
        assert_eq!((&page["PageNumber"], &page["PageSize"]), (&number.into(), &5.into()), "{}", list.0);
        assert_eq!(page["TotalCount"], all.len(), "{}", list.0);
        let left = all.len().saturating_sub(seen.len());
        assert_eq!(entries(&page, list).len(), left.min(5), "{} page {number}", list.0);
        seen.extend(entries(&page, list));
    }
    seen.sort();
    assert_eq!(seen, all, "{}", list.0);
}

/// Asserts the same of pages by token, each of ten entries, and that a token is one of its action.
fn follow_tokens(lab: &mut ApiLab, list: List, asked: &str, all: &[String]) {
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let next = if token.is_empty() { String::new() } else { format!("&NextToken={token}") };
        let page = lab.ok(list.0, &format!("{asked}&MaxResults=10{next}"));
        assert!(page.get("TotalCount").is_none(), "{}", list.0);
        let left = all.len().saturating_sub(seen.len());
        assert_eq!(entries(&page, list).len(), left.min(10), "{} after {}", list.0, seen.len());
        seen.extend(entries(&page, list));
        token = text(&page, "NextToken");
        if token.is_empty() {
            break;
        }
    }
    seen.sort();
    assert_eq!(seen, all, "{}", list.0);
    let code = if list == GROUPS { "InValidParameter.NextToken" } else { "InvalidParameter" };
    lab.refused(list.0, &format!("{asked}&NextToken=x"), 400, code);
}

#[test]
fn networks_are_found_by_what_they_are() {
    let mut lab = ApiLab::new();
    let (vpc, vswitch, _) = lab.base(&[]);
    let create = "CidrBlock=10.0.0.0/8&VpcName=lab&EnableIpv6=true";
    let named = text(&lab.ok("vpc:CreateVpc", create), "VpcId");
    let create = format!("VpcId={named}&CidrBlock=10.0.0.0/16&ZoneId=cn-hangzhou-c&VSwitchName=web&Ipv6CidrBlock=1");
    let web = text(&lab.ok("vpc:CreateVSwitch", &create), "VSwitchId");
    let tag = format!("ResourceType=VSwitch&ResourceId.1={web}&Tag.1.Key=a&Tag.1.Value=1");
    lab.ok("vpc:TagResources", &tag);
    for (asked, expected) in [
        (format!("VpcId={vpc}"), vec![&vpc]),
        (format!("VpcId={vpc},vpc-none"), vec![&vpc]),
        ("VpcId=vpc-none".into(), vec![]),
        ("VpcName=lab".into(), vec![&named]),
        ("VpcName=la".into(), vec![]),
        ("EnableIpv6=true".into(), vec![&named]),
        ("EnableIpv6=false".into(), vec![&vpc]),
        ("IsDefault=true".into(), vec![]),
        ("ResourceGroupId=rg-none".into(), vec![]),
        ("Tag.1.Key=a".into(), vec![]),
    ] {
        assert_eq!(found(&mut lab, VPCS, &asked).iter().collect::<Vec<_>>(), expected, "{asked}");
    }
    for (asked, expected) in [
        (format!("VpcId={vpc}"), vec![&vswitch]),
        (format!("VpcId={named}&VSwitchName=web"), vec![&web]),
        (format!("VpcId={vpc}&VSwitchName=web"), vec![]),
        (format!("VSwitchId={web}"), vec![&web]),
        ("VSwitchId=vsw-none".into(), vec![]),
        ("ZoneId=cn-hangzhou-c".into(), vec![&web]),
        ("ZoneId=cn-hangzhou-b".into(), vec![&vswitch]),
        ("EnableIpv6=true".into(), vec![&web]),
        ("Tag.1.Key=a&Tag.1.Value=1".into(), vec![&web]),
        ("Tag.1.Key=a&Tag.1.Value=2".into(), vec![]),
    ] {
        assert_eq!(found(&mut lab, VSWITCHES, &asked).iter().collect::<Vec<_>>(), expected, "{asked}");
    }
    for number in 2..13 {
        lab.ok("vpc:CreateVpc", &format!("CidrBlock=10.0.0.0/8&VpcName=v{number}"));
        let create = format!("VpcId={vpc}&CidrBlock=10.{number}.0.0/16&ZoneId=cn-hangzhou-b");
        lab.ok("vpc:CreateVSwitch", &create);
    }
    let vpcs = found(&mut lab, VPCS, "PageSize=50");
    assert_eq!(vpcs.len(), 13);
    turn_pages(
        &mut lab,
        VPCS,
        "EnableIpv6=false",
        &vpcs.iter().filter(|id| **id != named).cloned().collect::<Vec<_>>(),
    );
    let vswitches = found(&mut lab, VSWITCHES, &format!("VpcId={vpc}&PageSize=50"));
    assert_eq!(vswitches.len(), 12);
    turn_pages(&mut lab, VSWITCHES, &format!("VpcId={vpc}"), &vswitches);
    for list in [VPCS, VSWITCHES] {
        lab.refused(list.0, "PageSize=51", 400, "InvalidParameter");
        lab.refused(list.0, "PageNumber=x", 400, "InvalidParameter");
        // Ten are shown where nothing is said (§1.5).
        assert_eq!(entries(&lab.ok(list.0, ""), list).len(), 10);
    }
}

#[test]
fn interfaces_are_found_by_what_they_are() {
    let mut lab = ApiLab::new();
    let (vpc, vswitch, groups) = lab.base(&["normal", "normal"]);
    let (a, b) = (&groups[0], &groups[1]);
    let create = format!("VSwitchId={vswitch}&SecurityGroupId={a}&PrimaryIpAddress=10.0.0.9&NetworkInterfaceName=web");
    let web = text(&lab.ok("CreateNetworkInterface", &create), "NetworkInterfaceId");
    lab.ok("AssignPrivateIpAddresses", &format!("NetworkInterfaceId={web}&PrivateIpAddress.1=10.0.0.99"));
    let run = format!("VSwitchId={vswitch}&SecurityGroupId={b}&InstanceType=ecs.g7.large");
    let instance = lab.ok("RunInstances", &run)["InstanceIdSets"]["InstanceIdSet"][0].as_str().unwrap().to_owned();
    let primary = found(&mut lab, ENIS, "Type=Primary").remove(0);
    for (asked, expected) in [
        (format!("VpcId={vpc}&SecurityGroupId={a}"), vec![&web]),
        (format!("VSwitchId={vswitch}&SecurityGroupId={b}"), vec![&primary]),
        (format!("NetworkInterfaceId.1={web}&NetworkInterfaceId.2=eni-none"), vec![&web]),
        ("NetworkInterfaceId.1=eni-none".into(), vec![]),
        ("NetworkInterfaceName=web".into(), vec![&web]),
        ("PrimaryIpAddress=10.0.0.9".into(), vec![&web]),
        ("PrimaryIpAddress=10.0.0.99".into(), vec![]),
        ("PrivateIpAddress.1=10.0.0.99".into(), vec![&web]),
        ("Ipv6Address.1=2001:db8::1".into(), vec![]),
        (format!("InstanceId={instance}"), vec![&primary]),
        ("InstanceId=i-none".into(), vec![]),
        ("Status=Available".into(), vec![&web]),
        ("Status=InUse".into(), vec![&primary]),
        ("Status=Deleting".into(), vec![]),
        ("ServiceManaged=true".into(), vec![]),
        ("VSwitchId=vsw-1_fake".into(), vec![]),
        ("SecurityGroupId=sg-1_fake".into(), vec![]),
    ] {
        assert_eq!(found(&mut lab, ENIS, &asked).iter().collect::<Vec<_>>(), expected, "{asked}");
    }
    lab.refused(ENIS.0, "VSwitchId=vsw-none", 404, "InvalidVSwitchId.NotFound");
    lab.refused(ENIS.0, "SecurityGroupId=sg-none", 404, "InvalidSecurityGroupId.NotFound");
    lab.refused(ENIS.0, "Status=Lost", 400, "InvalidParameter");
    for _ in 0..11 {
        lab.ok("CreateNetworkInterface", &format!("VSwitchId={vswitch}&SecurityGroupId={a}"));
    }
    let all = found(&mut lab, ENIS, &format!("SecurityGroupId={a}&MaxResults=500"));
    assert_eq!(all.len(), 12);
    turn_pages(&mut lab, ENIS, &format!("SecurityGroupId={a}"), &all);
    follow_tokens(&mut lab, ENIS, &format!("SecurityGroupId={a}"), &all);
}

#[test]
fn instances_and_groups_are_listed_in_pages() {
    let mut lab = ApiLab::new();
    let (_, vswitch, groups) = lab.base(&["normal", "enterprise"]);
    let run = format!("VSwitchId={vswitch}&SecurityGroupId={}&InstanceType=ecs.g7.large&Amount=12", groups[0]);
    lab.ok("RunInstances", &run);
    let all = found(&mut lab, INSTANCES, "MaxResults=100");
    assert_eq!(all.len(), 12);
    turn_pages(&mut lab, INSTANCES, &format!("SecurityGroupId={}", groups[0]), &all);
    follow_tokens(&mut lab, INSTANCES, &format!("VSwitchId={vswitch}"), &all);
    let statuses: List = ("DescribeInstanceStatus", "/InstanceStatuses/InstanceStatus", "InstanceId");
    turn_pages(&mut lab, statuses, "ZoneId=cn-hangzhou-b", &all);
    lab.ok("StopInstance", &format!("InstanceId={}", all[3]));
    assert_eq!(found(&mut lab, INSTANCES, "Status=Stopped"), all[3..4]);
    let asked = format!("InstanceIds=[\"{}\",\"{}\",\"i-none\"]&Status=Running", all[3], all[4]);
    assert_eq!(found(&mut lab, INSTANCES, &asked), all[4..5]);

    assert_eq!(found(&mut lab, GROUPS, "SecurityGroupType=enterprise"), groups[1..]);
    lab.ok("ModifySecurityGroupAttribute", &format!("SecurityGroupId={}&SecurityGroupName=web", groups[0]));
    assert_eq!(found(&mut lab, GROUPS, "SecurityGroupName=web"), groups[..1]);
    assert_eq!(found(&mut lab, GROUPS, "VpcId=vpc-none"), Vec::<String>::new());
    lab.refused(GROUPS.0, "SecurityGroupType=great", 400, "InvalidParameter.SecurityGroupType");
    follow_tokens(&mut lab, GROUPS, "NetworkType=vpc", &sorted(&groups));
}

fn sorted(ids: &[String]) -> Vec<String> {
    let mut ids = ids.to_vec();
    ids.sort();
    ids
}

#[test]
fn rules_are_listed_in_pages_and_by_direction() {
    let mut lab = ApiLab::new();
    let (_, _, groups) = lab.base(&["normal"]);
    let group = format!("SecurityGroupId={}", groups[0]);
    for (action, side, count) in
        [("AuthorizeSecurityGroup", "SourceCidrIp", 12), ("AuthorizeSecurityGroupEgress", "DestCidrIp", 3)]
    {
        let rules: Vec<String> = (1..=count)
            .map(|place| format!("Permissions.{place}.IpProtocol=ALL&Permissions.{place}.{side}=10.0.0.{place}"))
            .collect();
        lab.ok(action, &format!("{group}&{}", rules.join("&")));
    }
    let list: List = ("DescribeSecurityGroupAttribute", "/Permissions/Permission", "SecurityGroupRuleId");
    assert_eq!(found(&mut lab, list, &group).len(), 15);
    let inbound = found(&mut lab, list, &format!("{group}&Direction=ingress"));
    assert_eq!(inbound.len(), 12);
    assert_eq!(found(&mut lab, list, &format!("{group}&Direction=egress")).len(), 3);
    let first = lab.ok(list.0, &format!("{group}&Direction=ingress&MaxResults=10"));
    let second = lab.ok(list.0, &format!("{group}&Direction=ingress&NextToken={}", text(&first, "NextToken")));
    assert_eq!((entries(&first, list).len(), text(&second, "NextToken").as_str()), (10, ""));
    assert_eq!(sorted(&[entries(&first, list), entries(&second, list)].concat()), inbound);
    lab.refused(list.0, &format!("{group}&Direction=sideways"), 400, "InvalidParamter");
    lab.refused(list.0, "SecurityGroupId=sg-none", 404, "InvalidSecurityGroupId.NotFound");
    lab.refused("DescribeSecurityGroupReferences", "SecurityGroupId.1=sg-none", 404, "InvalidSecurityGroupId.NotFound");
}

#[test]
fn prefix_and_port_lists_are_found_by_what_they_are() {
    let mut lab = ApiLab::new();
    let (_, _, groups) = lab.base(&["normal", "normal"]);
    let create =
        "AddressFamily=IPv6&PrefixListName=six&MaxEntries=1&Tag.1.Key=a&Tag.1.Value=1&Entry.1.Cidr=2001:db8::1";
    let six = text(&lab.ok("CreatePrefixList", create), "PrefixListId");
    let create = "PortRangeListName=web&MaxEntries=1&Tag.1.Key=a&Tag.1.Value=1&Entry.1.PortRange=80/80";
    let web = text(&lab.ok("CreatePortRangeList", create), "PortRangeListId");
    let (mut prefix_lists, mut port_lists) = (vec![six.clone()], vec![web.clone()]);
    for _ in 0..11 {
        let create = "AddressFamily=IPv4&PrefixListName=four&MaxEntries=1";
        prefix_lists.push(text(&lab.ok("CreatePrefixList", create), "PrefixListId"));
        let create = "PortRangeListName=ports&MaxEntries=1";
        port_lists.push(text(&lab.ok("CreatePortRangeList", create), "PortRangeListId"));
    }
    for (asked, count) in [
        ("AddressFamily=ipv6".to_owned(), 1),
        ("AddressFamily=IPv4&MaxResults=100".into(), 11),
        ("PrefixListName=six".into(), 1),
        ("PrefixListName=fo".into(), 0),
        (format!("PrefixListId.1={six}&PrefixListId.2=pl-none"), 1),
        ("PrefixListId.1=pl-none".into(), 0),
        ("Tag.1.Key=a&Tag.1.Value=1".into(), 1),
        ("Tag.1.Key=a&Tag.1.Value=2".into(), 0),
        ("ResourceGroupId=rg-none".into(), 0),
    ] {
        assert_eq!(found(&mut lab, PREFIX_LISTS, &asked).len(), count, "{asked}");
    }
    for (asked, count) in [
        ("PortRangeListName=web".to_owned(), 1),
        ("PortRangeListName=ports&MaxResults=100".into(), 11),
        (format!("PortRangeListId.1={web}&PortRangeListId.2=prl-none"), 1),
        ("PortRangeListId.1=prl-none".into(), 0),
        ("Tag.1.Key=a&Tag.1.Value=1".into(), 1),
        ("ResourceGroupId=rg-none".into(), 0),
    ] {
        assert_eq!(found(&mut lab, PORT_LISTS, &asked).len(), count, "{asked}");
    }
    follow_tokens(&mut lab, PREFIX_LISTS, "PrefixListName=", &sorted(&prefix_lists));
    follow_tokens(&mut lab, PORT_LISTS, "PortRangeListName=", &sorted(&port_lists));
    lab.refused(PREFIX_LISTS.0, "AddressFamily=IPv5", 400, "InvalidParameter");
    lab.refused(PREFIX_LISTS.0, "MaxResults=101", 400, "InvalidParameter");

    // Each group that names a list is associated with it once, however many of its rules do.
    for group in &groups {
        for protocol in ["TCP", "UDP"] {
            let rule =
                format!("SecurityGroupId={group}&IpProtocol={protocol}&PortRangeListId={web}&SourcePrefixListId={six}");
            lab.ok("AuthorizeSecurityGroup", &rule);
        }
    }
    let associations: List =
        ("DescribePrefixListAssociations", "/PrefixListAssociations/PrefixListAssociation", "ResourceId");
    assert_eq!(found(&mut lab, associations, &format!("PrefixListId={six}")), sorted(&groups));
    let associations: List = ("DescribePortRangeListAssociations", "/PortRangeListAssociations", "ResourceId");
    let one = lab.ok(associations.0, &format!("PortRangeListId={web}&MaxResults=1"));
    let next = format!("PortRangeListId={web}&NextToken={}", text(&one, "NextToken"));
    let other = found(&mut lab, associations, &next);
    assert_eq!(sorted(&[entries(&one, associations), other].concat()), sorted(&groups));
    let shown = lab.ok("DescribePrefixListAttributes", &format!("PrefixListId={six}"));
    assert_eq!(shown["Entries"]["Entry"][0]["Cidr"], "2001:db8::1/128");
    let shown = lab.ok("DescribePortRangeListEntries", &format!("PortRangeListId={web}"));
    assert_eq!(shown["Entries"][0]["PortRange"], "80/80");
    for action in ["DescribePrefixListAttributes", "DescribePrefixListAssociations"] {
        lab.refused(action, "PrefixListId=pl-none", 404, "InvalidPrefixListId.NotFound");
    }
    for action in ["DescribePortRangeListEntries", "DescribePortRangeListAssociations"] {
        lab.refused(action, "PortRangeListId=prl-none", 400, "InvalidPortRangeListId.NotFound");
    }
}

#[test]
fn tags_are_found_by_object_and_by_key() {
    let mut lab = ApiLab::new();
    let (vpc, vswitch, groups) = lab.base(&["normal"; 12]);
    for (place, group) in groups.iter().enumerate() {
        let tags = format!("ResourceType=securitygroup&ResourceId.1={group}&Tag.1.Key=place&Tag.1.Value={place}");
        lab.ok("TagResources", &tags);
    }
    let create = format!("VSwitchId={vswitch}&SecurityGroupId={}&Tag.1.Key=place&Tag.1.Value=0", groups[0]);
    let eni = text(&lab.ok("CreateNetworkInterface", &create), "NetworkInterfaceId");
    let list: List = ("ListTagResources", "/TagResources/TagResource", "ResourceId");
    for (asked, expected) in [
        (format!("ResourceType=securitygroup&ResourceId.1={}", groups[3]), vec![&groups[3]]),
        ("ResourceType=securitygroup&Tag.1.Key=place&Tag.1.Value=4".into(), vec![&groups[4]]),
        ("ResourceType=securitygroup&Tag.1.Key=color".into(), vec![]),
        ("ResourceType=eni".into(), vec![&eni]),
        ("ResourceType=instance".into(), vec![]),
    ] {
        assert_eq!(found(&mut lab, list, &asked).iter().collect::<Vec<_>>(), expected, "{asked}");
    }
    let mut seen = Vec::new();
    let mut next = String::new();
    loop {
        let page = lab.ok(list.0, &format!("ResourceType=securitygroup{next}"));
        seen.extend(entries(&page, list));
        match text(&page, "NextToken") {
            token if token.is_empty() => break,
            token => next = format!("&NextToken={token}"),
        }
        assert!(seen.len() < 12);
    }
    assert_eq!(sorted(&seen), sorted(&groups));
    let resources: List = ("DescribeResourceByTags", "/Resources/Resource", "ResourceId");
    turn_pages(&mut lab, resources, "ResourceType=securitygroup", &sorted(&groups));
    let both = found(&mut lab, resources, "Tag.1.Key=place&Tag.1.Value=0");
    assert_eq!(both, sorted(&[eni, groups[0].clone()]));
    // One tag of two kinds of object is told once, with a count of each.
    let shown = lab.ok("DescribeTags", "Tag.1.Key=place&Tag.1.Value=0");
    let counts = &shown["Tags"]["Tag"][0]["ResourceTypeCount"];
    assert_eq!((&shown["TotalCount"], &counts["Securitygroup"], &counts["Eni"]), (&1.into(), &1.into(), &1.into()));
    lab.ok("vpc:TagResources", &format!("ResourceType=VPC&ResourceId.1={vpc}&Tag.1.Key=a&Tag.1.Value=1"));
    assert_eq!(found(&mut lab, ("vpc:ListTagResources", list.1, list.2), "ResourceType=VPC"), [vpc]);
    lab.refused(list.0, "ResourceType=planet", 404, "InvalidResourceType.NotFound");
}
