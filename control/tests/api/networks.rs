//! VPCs, subnets and their routes over the HTTP interface, as infrastructure tools make, change and remove them.

use super::lab::{ApiLab, text};
use control::socket::client::Client;
use control::socket::query::{Answer, Nothing, Query};
use serde_json::{Value, json};

fn list<'a>(answer: &'a Value, path: &str) -> &'a Vec<Value> {
    answer.pointer(path).and_then(Value::as_array).unwrap_or_else(|| panic!("{path} in {answer}"))
}

/// The routes that the forwarding plane gets.
fn routes(lab: &ApiLab) -> Vec<(String, String)> {
    let answer = Client::connect(&lab.rig.control_socket()).unwrap().ask(&Query::VpcList(Nothing {})).unwrap();
    let Answer::Vpcs(vpcs) = answer else { panic!("{answer:?}") };
    let all = vpcs.iter().flat_map(|vpc| &vpc.routes);
    all.map(|route| (route.destination.to_string(), route.eni.to_string())).collect()
}

/// A VPC with a subnet, an instance and an interface: route table, instance, its interface, the other interface.
fn routed(lab: &mut ApiLab) -> (String, String, String, String) {
    let (vpc, vswitch, groups) = lab.base(&["normal"]);
    let table = text(&lab.ok("vpc:DescribeVpcAttribute", &format!("VpcId={vpc}")), "VpcId").replace("vpc-", "vtb-");
    let run = format!("VSwitchId={vswitch}&SecurityGroupId={}&InstanceType=ecs.g7.large", groups[0]);
    let instance = lab.ok("RunInstances", &run)["InstanceIdSets"]["InstanceIdSet"][0].as_str().unwrap().to_owned();
    let shown = lab.ok("DescribeNetworkInterfaces", &format!("InstanceId={instance}"));
    let primary = text(&shown["NetworkInterfaceSets"]["NetworkInterfaceSet"][0], "NetworkInterfaceId");
    let create = format!("VSwitchId={vswitch}&SecurityGroupId={}", groups[0]);
    let eni = text(&lab.ok("CreateNetworkInterface", &create), "NetworkInterfaceId");
    (table, instance, primary, eni)
}

#[test]
fn a_vpc_has_a_route_table_whose_name_is_kept() {
    let mut lab = ApiLab::new();
    let made = lab.ok("vpc:CreateVpc", "CidrBlock=10.0.0.0/8");
    let (vpc, table, router) = (text(&made, "VpcId"), text(&made, "RouteTableId"), text(&made, "VRouterId"));
    lab.ok("vpc:CreateVpc", "CidrBlock=10.0.0.0/8");
    lab.ok("vpc:CreateVSwitch", &format!("VpcId={vpc}&CidrBlock=10.0.1.0/24&ZoneId=cn-hangzhou-b"));
    let modify = format!("RouteTableId={table}&RouteTableName=main&Description=All of it&RoutePropagationEnable=false");
    lab.ok("vpc:ModifyRouteTableAttributes", &modify);
    for asked in [
        format!("VpcId={vpc}"),
        format!("RouteTableId={table}"),
        format!("RouterId={router}&RouterType=VRouter&RouteTableType=System"),
        "RouteTableName=main".into(),
    ] {
        let shown = lab.ok("vpc:DescribeRouteTableList", &asked);
        let tables = list(&shown, "/RouterTableList/RouterTableListType");
        assert_eq!(tables.len(), 1, "{asked}");
        let fields = ["VpcId", "RouterId", "RouteTableId", "RouteTableName", "Description", "RouteTableType"];
        let found = fields.map(|name| text(&tables[0], name));
        assert_eq!(found, [vpc.as_str(), &router, &table, "main", "All of it", "System"]);
        assert_eq!(tables[0]["RoutePropagationEnable"], json!(false));
        assert_eq!(list(&tables[0], "/VSwitchIds/VSwitchId").len(), 1);
    }
    lab.ok("vpc:ModifyRouteTableAttributes", &format!("RouteTableId={table}&Description=&RoutePropagationEnable=true"));
    let shown = lab.ok("vpc:DescribeRouteTableList", &format!("VpcId={vpc}"));
    let shown = &list(&shown, "/RouterTableList/RouterTableListType")[0];
    assert_eq!((text(shown, "Description"), text(shown, "RouteTableName")), (String::new(), "main".into()));
    assert_eq!(shown["RoutePropagationEnable"], json!(true));
    for nothing in ["RouteTableType=Custom", "RouterType=VBR", "RouteTableName=other", "Tag.1.Key=k"] {
        let shown = lab.ok("vpc:DescribeRouteTableList", nothing);
        assert!(list(&shown, "/RouterTableList/RouterTableListType").is_empty(), "{nothing}");
    }
    let routers = lab.ok("vpc:DescribeVRouters", &format!("VRouterId={router}"));
    assert_eq!(routers["VRouters"]["VRouter"][0]["RouteTableIds"]["RouteTableId"][0], json!(table));
    let long = format!("RouteTableId={table}&RouteTableName={}", "x".repeat(129));
    lab.refused("vpc:ModifyRouteTableAttributes", &long, 400, "InvalidParameter");
    lab.refused("vpc:ModifyRouteTableAttributes", "RouteTableId=vtb-none", 404, "InvalidRouteTableId.NotFound");
}

#[test]
fn system_entries_are_the_subnets_and_the_services() {
    let mut lab = ApiLab::new();
    let made = lab.ok("vpc:CreateVpc", "CidrBlock=10.0.0.0/8&Ipv6CidrBlock=2001:db8:1::/56");
    let (vpc, table) = (text(&made, "VpcId"), text(&made, "RouteTableId"));
    let create = format!("VpcId={vpc}&CidrBlock=10.0.1.0/24&ZoneId=cn-hangzhou-b&Ipv6CidrBlock=3");
    lab.ok("vpc:CreateVSwitch", &create);
    let asked = format!("RouteTableId={table}&RouteEntryType=System");
    let shown = lab.ok("vpc:DescribeRouteEntryList", &asked);
    let mut found: Vec<(String, String)> = list(&shown, "/RouteEntrys/RouteEntry")
        .iter()
        .map(|entry| (text(entry, "DestinationCidrBlock"), text(entry, "NextHopType")))
        .collect();
    found.sort();
    let pair = |block: &str, hop: &str| (block.to_owned(), hop.to_owned());
    let expected = [pair("10.0.1.0/24", "local"), pair("100.64.0.0/10", "service"), pair("2001:db8:1:3::/64", "local")];
    assert_eq!(found, expected);
    for (more, count) in [("IpVersion=IPv6", 1), ("NextHopType=service", 1), ("DestCidrBlockList.1=10.0.1.0/24", 1)] {
        let shown = lab.ok("vpc:DescribeRouteEntryList", &format!("{asked}&{more}"));
        assert_eq!(list(&shown, "/RouteEntrys/RouteEntry").len(), count, "{more}");
    }
    let subnet = format!("RouteTableId={table}&DestinationCidrBlock=10.0.1.0/24");
    lab.refused("vpc:DeleteRouteEntry", &subnet, 404, "InvalidRouteEntry.NotFound");
}

#[test]
fn custom_entries_are_the_routes_of_the_switch() {
    let mut lab = ApiLab::new();
    let (table, instance, primary, eni) = routed(&mut lab);
    let create = format!("RouteTableId={table}&RouteEntryName=out&Description=Out of here");
    let by_instance = format!("{create}&DestinationCidrBlock=192.168.0.0/16&NextHopType=Instance&NextHopId={instance}");
    let entry = text(&lab.ok("vpc:CreateRouteEntry", &by_instance), "RouteEntryId");
    let by_eni =
        format!("RouteTableId={table}&DestinationCidrBlock=1.2.3.4&NextHopType=NetworkInterface&NextHopId={eni}");
    lab.ok("vpc:CreateRouteEntry", &by_eni);
    let expected = [("1.2.3.4/32", eni.as_str()), ("192.168.0.0/16", primary.as_str())];
    assert_eq!(routes(&lab), expected.map(|(block, hop)| (block.to_owned(), hop.to_owned())));
    let shown = lab.ok("vpc:DescribeRouteTables", &format!("RouteTableId={table}&Type=Custom"));
    let entries = list(&shown["RouteTables"]["RouteTable"][0], "/RouteEntrys/RouteEntry");
    let found = entries.iter().find(|other| text(other, "RouteEntryId") == entry).unwrap();
    let fields =
        ["DestinationCidrBlock", "NextHopType", "InstanceId", "RouteEntryName", "Description", "Status", "Type"];
    let expected = ["192.168.0.0/16", "Instance", &instance, "out", "Out of here", "Available", "Custom"];
    assert_eq!(fields.map(|name| text(found, name)), expected);
    lab.refused("vpc:CreateRouteEntry", &by_instance, 400, "RouterEntryConflict.Duplicated");
    // A change keeps what it does not name.
    let change = format!("RouteEntryId={entry}&RouteEntryName=away&NewNextHopType=NetworkInterface&NewNextHopId={eni}");
    lab.ok("vpc:ModifyRouteEntry", &change);
    let shown = lab.ok("vpc:DescribeRouteEntryList", &format!("RouteTableId={table}&RouteEntryId={entry}"));
    let found = &list(&shown, "/RouteEntrys/RouteEntry")[0];
    let expected = ["192.168.0.0/16", "NetworkInterface", &eni, "away", "Out of here", "Available", "Custom"];
    assert_eq!(fields.map(|name| text(found, name)), expected);
    lab.refused("DeleteNetworkInterface", &format!("NetworkInterfaceId={eni}"), 400, "DependencyViolation.RouteEntry");
    let elsewhere = format!("RouteTableId={table}&DestinationCidrBlock=1.2.3.4/32&NextHopId={instance}");
    lab.refused("vpc:DeleteRouteEntry", &elsewhere, 404, "InvalidRouteEntry.NotFound");
    lab.ok("vpc:DeleteRouteEntry", &format!("RouteTableId={table}&DestinationCidrBlock=1.2.3.4&NextHopId={eni}"));
    lab.ok("vpc:DeleteRouteEntry", &format!("RouteEntryId={entry}"));
    assert_eq!(routes(&lab), []);
    lab.refused("vpc:DeleteRouteEntry", &format!("RouteEntryId={entry}"), 404, "InvalidRouteEntry.NotFound");
}

#[test]
fn routes_are_refused_to_the_letter() {
    let mut lab = ApiLab::new();
    let (table, instance, _, eni) = routed(&mut lab);
    let other = text(&lab.ok("vpc:CreateVpc", "CidrBlock=10.0.0.0/8"), "RouteTableId");
    for (fields, status, code) in [
        ("DestinationCidrBlock=192.168.0.1/16".to_owned(), 400, "InvalidCidrBlock.Malformed"),
        ("DestinationCidrBlock=100.64.0.0/10".to_owned(), 400, "InvalidCidrBlock.Malformed"),
        ("DestinationCidrBlock=100.100.0.0/16".to_owned(), 400, "InvalidCidrBlock.Malformed"),
        ("DestinationCidrBlock=10.0.0.0/16".to_owned(), 400, "RouterEntryConflict.Duplicated"),
        ("DestinationCidrBlock=10.0.4.0/24".to_owned(), 400, "InvalidCidrBlock.Overlapped"),
        ("DestinationCidrBlock=1.0.0.0/8&NextHopType=NatGateway".to_owned(), 404, "ResourceNotFound.InstanceId"),
        ("DestinationCidrBlock=1.0.0.0/8&NextHopType=Tunnel".to_owned(), 400, "InvalidParameter"),
        ("DestinationCidrBlock=1.0.0.0/8&NextHopType=NetworkInterface".to_owned(), 404, "InvalidEniId.NotFound"),
        ("DestinationCidrBlock=1.0.0.0/8&NextHopList.1.NextHopId=ri-1".to_owned(), 400, "InvalidParameter"),
        ("RouteEntryName=x".to_owned(), 400, "MissingParameter"),
    ] {
        let asked = format!("RouteTableId={table}&NextHopId={instance}&{fields}");
        lab.refused("vpc:CreateRouteEntry", &asked, status, code);
    }
    let elsewhere = format!("RouteTableId={other}&DestinationCidrBlock=1.0.0.0/8&NextHopId={instance}");
    lab.refused("vpc:CreateRouteEntry", &elsewhere, 403, "InvalidOperation.VpcMismatch");
    let none = format!("RouteTableId={table}&DestinationCidrBlock=1.0.0.0/8");
    lab.refused("vpc:CreateRouteEntry", &none, 400, "MissingParameter");
    assert_eq!(routes(&lab), []);
    // A dry run looks, and changes nothing.
    let good = format!("{none}&NextHopType=NetworkInterface&NextHopId={eni}");
    lab.refused("vpc:CreateRouteEntry", &format!("{good}&DryRun=true"), 400, "DryRunOperation");
    assert_eq!(routes(&lab), []);
}

#[test]
fn many_routes_come_and_go_as_far_as_they_can() {
    let mut lab = ApiLab::new();
    let (table, instance, _, eni) = routed(&mut lab);
    let entry = |place: usize, block: &str, kind: &str, hop: &str| {
        let at = format!("RouteEntries.{place}");
        format!("{at}.RouteTableId={table}&{at}.DstCidrBlock={block}&{at}.NextHopType={kind}&{at}.NextHop={hop}")
    };
    let many = [
        entry(1, "192.168.1.0/24", "Instance", &instance),
        entry(2, "10.0.4.0/24", "Instance", &instance),
        entry(3, "192.168.1.0/24", "NetworkInterface", &eni),
        format!(
            "{}&RouteEntries.4.IpVersion=6&RouteEntries.4.Name=six",
            entry(4, "2001:db8::/32", "NetworkInterface", &eni)
        ),
    ];
    let made = lab.ok("vpc:CreateRouteEntries", &many.join("&"));
    assert_eq!((&made["SuccessCount"], &made["FailedCount"]), (&json!(2), &json!(2)));
    assert_eq!(list(&made, "/RouteEntryIds").len(), 2);
    let codes: Vec<String> = list(&made, "/FailedRouteEntries").iter().map(|one| text(one, "FailedCode")).collect();
    assert_eq!(codes, ["InvalidCidrBlock.Overlapped", "RouterEntryConflict.Duplicated"]);
    assert_eq!(routes(&lab).len(), 2);
    lab.refused("vpc:CreateRouteEntries", &many[1], 400, "InvalidCidrBlock.Overlapped");
    let ends = format!(
        "RouteEntries.1.RouteEntryId={}&RouteEntries.1.RouteTableId={table}&RouteEntries.2.RouteTableId={table}&\
         RouteEntries.2.DstCidrBlock=2001:db8::/32&RouteEntries.2.NextHop={eni}",
        made["RouteEntryIds"][0].as_str().unwrap()
    );
    let ended = lab.ok("vpc:DeleteRouteEntries", &ends);
    assert_eq!((&ended["SuccessCount"], &ended["FailedCount"]), (&json!(2), &json!(0)));
    assert_eq!(routes(&lab), []);
}

#[test]
fn old_clients_make_networks_under_the_version_of_instances() {
    let mut lab = ApiLab::new();
    let made = lab.ok("CreateVpc", "CidrBlock=10.0.0.0/8&VpcName=old");
    let (vpc, table, router) = (text(&made, "VpcId"), text(&made, "RouteTableId"), text(&made, "VRouterId"));
    let create = format!("VpcId={vpc}&CidrBlock=10.0.1.0/24&ZoneId=cn-hangzhou-b");
    let vswitch = text(&lab.ok("CreateVSwitch", &create), "VSwitchId");
    lab.ok("ModifyVpcAttribute", &format!("VpcId={vpc}&Description=of old"));
    lab.ok("ModifyVSwitchAttribute", &format!("VSwitchId={vswitch}&VSwitchName=one"));
    lab.ok("ModifyVRouterAttribute", &format!("VRouterId={router}&VRouterName=middle"));
    assert_eq!(text(&lab.ok("DescribeVpcs", "")["Vpcs"]["Vpc"][0], "Description"), "of old");
    assert_eq!(text(&lab.ok("DescribeVSwitches", "")["VSwitches"]["VSwitch"][0], "VSwitchName"), "one");
    assert_eq!(text(&lab.ok("DescribeVRouters", "")["VRouters"]["VRouter"][0], "VRouterName"), "middle");
    let shown = lab.ok("DescribeRouteTables", &format!("RouteTableId={table}"));
    assert_eq!(list(&shown["RouteTables"]["RouteTable"][0], "/RouteEntrys/RouteEntry").len(), 2);
    lab.refused(
        "CreateRouteEntry",
        "RouteTableId=vtb-1&DestinationCidrBlock=1.0.0.0/8&NextHopId=i-1",
        404,
        "InvalidRouteTableId.NotFound",
    );
    lab.refused(
        "DeleteRouteEntry",
        "RouteTableId=vtb-1&DestinationCidrBlock=1.0.0.0/8",
        404,
        "InvalidRouteTableId.NotFound",
    );
    lab.ok("DeleteVSwitch", &format!("VSwitchId={vswitch}"));
    lab.ok("DeleteVpc", &format!("VpcId={vpc}"));
    // What came later is in its own version alone, and instances are in theirs.
    lab.refused("DescribeVpcAttribute", &format!("VpcId={vpc}"), 404, "InvalidAction.NotFound");
    lab.refused("vpc:DescribeInstances", "", 404, "InvalidAction.NotFound");
}

/// What a VPC shows of itself.
fn shown(lab: &mut ApiLab, vpc: &str) -> Value {
    lab.ok("vpc:DescribeVpcAttribute", &format!("VpcId={vpc}"))
}

#[test]
fn what_a_vpc_was_given_reads_back() {
    let mut lab = ApiLab::new();
    let create =
        "VpcName=lab&UserCidr=106.11.62.0/24,10.9.0.0/16&EnableDnsHostname=true&Ipv6Isp=ChinaMobile&EnableIpv6=true";
    let vpc = text(&lab.ok("vpc:CreateVpc", create), "VpcId");
    for found in [shown(&mut lab, &vpc), lab.ok("vpc:DescribeVpcs", "")["Vpcs"]["Vpc"][0].clone()] {
        assert_eq!(found["UserCidrs"]["UserCidr"], json!(["106.11.62.0/24", "10.9.0.0/16"]));
        assert_eq!(text(&found, "DnsHostnameStatus"), "ENABLED");
        assert_eq!(text(&found["Ipv6CidrBlocks"]["Ipv6CidrBlock"][0], "Ipv6Isp"), "ChinaMobile");
        assert_eq!(text(&found, "CidrBlock"), "172.16.0.0/12");
        assert_eq!(found["IsDefault"], json!(false));
    }
    lab.ok("vpc:ModifyVpcAttribute", &format!("VpcId={vpc}&EnableDnsHostname=false&Description=one"));
    let found = shown(&mut lab, &vpc);
    assert_eq!((text(&found, "DnsHostnameStatus"), text(&found, "VpcName")), ("DISABLED".into(), "lab".into()));
    lab.ok("vpc:ModifyVpcAttribute", &format!("VpcId={vpc}&Description="));
    assert_eq!(text(&shown(&mut lab, &vpc), "Description"), "");
    for (fields, status, code) in [
        ("Ipv4IpamPoolId=ipam-pool-1", 404, "ResourceNotFound.IpamPool"),
        ("Ipv4CidrMask=12", 404, "ResourceNotFound.IpamPool"),
        ("Ipv6Isp=Nobody", 400, "InvalidParameter"),
        ("EnableIpv6=false&Ipv6CidrBlock=2001:db8::/56", 400, "InvalidParameter"),
    ] {
        lab.refused("vpc:CreateVpc", fields, status, code);
    }
}

#[test]
fn ipv6_goes_on_off_and_on_while_nothing_uses_it() {
    let mut lab = ApiLab::new();
    let vpc = text(&lab.ok("vpc:CreateVpc", "CidrBlock=10.0.0.0/8"), "VpcId");
    let modify = |fields: &str| format!("VpcId={vpc}&{fields}");
    lab.ok("vpc:ModifyVpcAttribute", &modify("EnableIPv6=true"));
    let block = text(&shown(&mut lab, &vpc), "Ipv6CidrBlock");
    assert!(block.ends_with("/56"), "{block}");
    lab.ok("vpc:ModifyVpcAttribute", &modify("EnableIPv6=true"));
    assert_eq!(text(&shown(&mut lab, &vpc), "Ipv6CidrBlock"), block);
    let create = format!("VpcId={vpc}&CidrBlock=10.0.1.0/24&ZoneId=cn-hangzhou-b&Ipv6CidrBlock=1");
    let vswitch = text(&lab.ok("vpc:CreateVSwitch", &create), "VSwitchId");
    lab.refused("vpc:ModifyVpcAttribute", &modify("EnableIPv6=false"), 400, "OperationFailed.CidrInUse");
    let change = |fields: &str| format!("VSwitchId={vswitch}&{fields}");
    let subnet = |lab: &mut ApiLab| text(&lab.ok("vpc:DescribeVSwitchAttributes", &change("")), "Ipv6CidrBlock");
    let first = subnet(&mut lab);
    lab.ok("vpc:ModifyVSwitchAttribute", &change("EnableIPv6=true&Ipv6CidrBlock=7"));
    assert_ne!(subnet(&mut lab), first);
    lab.refused("vpc:ModifyVSwitchAttribute", &change("EnableIPv6=false&Ipv6CidrBlock=7"), 400, "InvalidParameter");
    let group = text(&lab.ok("CreateSecurityGroup", &format!("VpcId={vpc}")), "SecurityGroupId");
    let create = format!("VSwitchId={vswitch}&SecurityGroupId={group}&Ipv6AddressCount=1");
    let eni = text(&lab.ok("CreateNetworkInterface", &create), "NetworkInterfaceId");
    for fields in ["EnableIPv6=false", "Ipv6CidrBlock=9"] {
        lab.refused("vpc:ModifyVSwitchAttribute", &change(fields), 400, "OperationFailed.CidrInUse");
    }
    lab.ok("DeleteNetworkInterface", &format!("NetworkInterfaceId={eni}"));
    lab.ok("vpc:ModifyVSwitchAttribute", &change("EnableIPv6=false"));
    assert_eq!(subnet(&mut lab), "");
    lab.refused("vpc:ModifyVSwitchAttribute", &change("EnableIPv6=true"), 400, "MissingParameter");
    lab.ok("vpc:ModifyVpcAttribute", &modify("EnableIPv6=false"));
    assert_eq!(text(&shown(&mut lab, &vpc), "Ipv6CidrBlock"), "");
    let turned = change("EnableIPv6=true&Ipv6CidrBlock=1");
    lab.refused("vpc:ModifyVSwitchAttribute", &turned, 403, "InvalidVSwitch.Ipv6NotTurnOn");
}

#[test]
fn blocks_of_a_vpc_change_around_its_subnets() {
    let mut lab = ApiLab::new();
    let vpc = text(&lab.ok("vpc:CreateVpc", "CidrBlock=10.0.0.0/16"), "VpcId");
    let of = |fields: &str| format!("VpcId={vpc}&{fields}");
    lab.ok("vpc:AssociateVpcCidrBlock", &of("SecondaryCidrBlock=192.168.0.0/16&IpVersion=IPV4"));
    let secondary = |lab: &mut ApiLab| shown(lab, &vpc)["SecondaryCidrBlocks"]["SecondaryCidrBlock"].clone();
    assert_eq!(secondary(&mut lab), json!(["192.168.0.0/16"]));
    let create = |cidr: &str| format!("VpcId={vpc}&CidrBlock={cidr}&ZoneId=cn-hangzhou-b");
    let vswitch = text(&lab.ok("vpc:CreateVSwitch", &create("192.168.3.0/24")), "VSwitchId");
    lab.refused("vpc:CreateVSwitch", &create("172.16.0.0/24"), 400, "InvalidParameter");
    // An interface of it is in the switch, as any other.
    let group = text(&lab.ok("CreateSecurityGroup", &format!("VpcId={vpc}")), "SecurityGroupId");
    let eni = lab.ok("CreateNetworkInterface", &format!("VSwitchId={vswitch}&SecurityGroupId={group}"));
    assert_eq!(text(&eni, "PrivateIpAddress"), "192.168.3.1");
    let end = of("SecondaryCidrBlock=192.168.0.0/16");
    lab.refused("vpc:UnassociateVpcCidrBlock", &end, 400, "OperationFailed.CidrInUse");
    lab.refused("vpc:AssociateVpcCidrBlock", &of("SecondaryCidrBlock=10.0.0.0/8"), 400, "InvalidCidrBlock.Overlapped");
    lab.refused("vpc:ModifyVpcAttribute", &of("CidrBlock=192.168.0.0/24"), 400, "InvalidCidrBlock.Overlapped");
    lab.ok("vpc:ModifyVpcAttribute", &of("CidrBlock=172.16.0.0/12"));
    assert_eq!(text(&shown(&mut lab, &vpc), "CidrBlock"), "172.16.0.0/12");
    lab.ok("vpc:CreateVSwitch", &create("172.16.0.0/24"));
    lab.refused("vpc:ModifyVpcAttribute", &of("CidrBlock=10.0.0.0/8"), 400, "OperationFailed.CidrInUse");
    lab.ok("DeleteNetworkInterface", &format!("NetworkInterfaceId={}", text(&eni, "NetworkInterfaceId")));
    lab.ok("vpc:DeleteVSwitch", &format!("VSwitchId={vswitch}"));
    lab.ok("vpc:UnassociateVpcCidrBlock", &end);
    assert_eq!(secondary(&mut lab), json!([]));
    lab.refused("vpc:UnassociateVpcCidrBlock", &end, 404, "InvalidCidrBlock.NotFound");
    for (fields, status, code) in [
        ("", 400, "MissingParameter"),
        ("SecondaryCidrBlock=100.64.0.0/16", 400, "InvalidParameter"),
        ("SecondaryCidrBlock=10.0.0.0/8&IPv6CidrBlock=2001:db8::/56", 400, "InvalidParameter"),
        ("SecondaryCidrMask=16&IpamPoolId=ipam-pool-1", 404, "ResourceNotFound.IpamPool"),
    ] {
        lab.refused("vpc:AssociateVpcCidrBlock", &of(fields.trim_end_matches('&')), status, code);
    }
    let made = lab.ok("vpc:AssociateVpcCidrBlock", &of("IpVersion=IPv6&IPv6CidrBlock=2001:db8:5::/56"));
    assert_eq!(text(&made, "CidrBlock"), "2001:db8:5::/56");
    assert_eq!(text(&shown(&mut lab, &vpc), "Ipv6CidrBlock"), "2001:db8:5::/56");
    lab.refused("vpc:AssociateVpcCidrBlock", &of("IpVersion=IPV6"), 400, "QuotaExceeded.SecondaryCidrBlock");
    lab.ok("vpc:UnassociateVpcCidrBlock", &of("IPv6CidrBlock=2001:db8:5::/56"));
    assert_eq!(text(&shown(&mut lab, &vpc), "Ipv6CidrBlock"), "");
}

#[test]
fn a_region_has_one_default_vpc_and_a_zone_one_default_subnet() {
    let mut lab = ApiLab::new();
    lab.ok("vpc:CreateVpc", "CidrBlock=10.0.0.0/8");
    let first = text(&lab.ok("vpc:CreateDefaultVSwitch", "ZoneId=cn-hangzhou-b"), "VSwitchId");
    let found = lab.ok("vpc:DescribeVpcs", "IsDefault=true");
    let vpc = text(&list(&found, "/Vpcs/Vpc")[0], "VpcId");
    assert_eq!(
        (list(&found, "/Vpcs/Vpc").len(), text(&found["Vpcs"]["Vpc"][0], "CidrBlock")),
        (1, "172.16.0.0/12".into())
    );
    lab.refused("vpc:CreateDefaultVpc", "", 400, "OperationDenied.DefaultVpcExists");
    let again = "ZoneId=cn-hangzhou-b";
    lab.refused("vpc:CreateDefaultVSwitch", again, 400, "OperationDenied.DefaultVSwitchExists");
    lab.ok("vpc:CreateVSwitch", &format!("VpcId={vpc}&CidrBlock=172.16.16.0/24&ZoneId=cn-hangzhou-b"));
    lab.ok("vpc:CreateDefaultVSwitch", "ZoneId=cn-hangzhou-c");
    let found = lab.ok("vpc:DescribeVSwitches", "IsDefault=true&ZoneId=cn-hangzhou-c");
    let second = &list(&found, "/VSwitches/VSwitch")[0];
    assert_eq!((text(second, "CidrBlock"), text(second, "VpcId")), ("172.16.32.0/20".into(), vpc.clone()));
    let shown = lab.ok("vpc:DescribeVSwitchAttributes", &format!("VSwitchId={first}"));
    assert_eq!((text(&shown, "CidrBlock"), &shown["IsDefault"]), ("172.16.0.0/20".into(), &json!(true)));
    assert_eq!(list(&lab.ok("vpc:DescribeVSwitches", "IsDefault=false"), "/VSwitches/VSwitch").len(), 1);
    lab.refused("vpc:CreateDefaultVSwitch", "ZoneId=mars", 404, "InvalidZoneId.NotFound");
    // A basic group that names no VPC is in the default one.
    let group = text(&lab.ok("CreateSecurityGroup", "SecurityGroupName=web"), "SecurityGroupId");
    let shown = lab.ok("DescribeSecurityGroups", &format!("SecurityGroupId={group}"));
    assert_eq!(text(&shown["SecurityGroups"]["SecurityGroup"][0], "VpcId"), vpc);
    lab.refused("CreateSecurityGroup", "SecurityGroupType=enterprise", 400, "InvalidParams.VpcIdGroupType");
    lab.refused("CreateSecurityGroup", "RegionId=cn-beijing", 403, "InvalidVpcId.NotFound");
    // Another region has its own.
    let made = lab.ok(
        "vpc:CreateDefaultVpc",
        "RegionId=cn-beijing&EnableIpv6=true&ResourceGroupId=rg-1&EnableDefaultVSwitch=true&ZoneId=cn-beijing-c",
    );
    let subnet = &list(&made, "/DefaultVSwitchs")[0];
    let found = lab.ok("vpc:DescribeVSwitches", "RegionId=cn-beijing&IsDefault=true");
    let found = &list(&found, "/VSwitches/VSwitch")[0];
    assert_eq!((text(found, "VSwitchId"), text(found, "ZoneId")), (text(subnet, "VSwitchId"), "cn-beijing-c".into()));
    let shown = lab.ok("vpc:DescribeVpcAttribute", &format!("RegionId=cn-beijing&VpcId={}", text(&made, "VpcId")));
    assert_eq!((&shown["IsDefault"], &shown["EnabledIpv6"]), (&json!(true), &json!(true)));
    assert_eq!(text(&shown, "ResourceGroupId"), "rg-1");
    lab.ok("vpc:MoveResourceGroup", &format!("ResourceType=VPC&ResourceId={vpc}&NewResourceGroupId=rg-2"));
    assert_eq!(text(&lab.ok("vpc:DescribeVpcAttribute", &format!("VpcId={vpc}")), "ResourceGroupId"), "rg-2");
    let none = "ResourceType=VPC&ResourceId=vpc-none&NewResourceGroupId=rg-2";
    lab.refused("vpc:MoveResourceGroup", none, 404, "InvalidResourceId.NotFound");
}

#[test]
fn dhcp_options_sets_are_kept_and_attached() {
    let mut lab = ApiLab::new();
    let vpc = text(&lab.ok("vpc:CreateVpc", "CidrBlock=10.0.0.0/8"), "VpcId");
    let create = "DhcpOptionsSetName=lab&DhcpOptionsSetDescription=of the lab&DomainName=example.com&\
                  DomainNameServers=10.0.0.2,10.0.0.3&LeaseTime=7d&Tag.1.Key=k&Tag.1.Value=v";
    let set = text(&lab.ok("vpc:CreateDhcpOptionsSet", create), "DhcpOptionsSetId");
    let other =
        text(&lab.ok("vpc:CreateDhcpOptionsSet", "DomainName=example.org&Tags.1.Key=other"), "DhcpOptionsSetId");
    let named = format!("DhcpOptionsSetId={set}");
    let shown = lab.ok("vpc:GetDhcpOptionsSet", &named);
    assert_eq!(text(&shown, "Status"), "Available");
    assert_eq!(text(&shown, "DhcpOptionsSetName"), "lab");
    assert_eq!(shown["Tags"], json!([{"Key": "k", "Value": "v"}]));
    let options = json!({"DomainName": "example.com", "DomainNameServers": "10.0.0.2,10.0.0.3", "LeaseTime": "7d",
                         "Ipv6LeaseTime": "3650d", "BootFileName": "", "TFTPServerName": ""});
    assert_eq!(shown["DhcpOptions"], options);
    lab.ok("vpc:UpdateDhcpOptionsSetAttribute", &format!("{named}&DomainName=&LeaseTime=24h"));
    let shown = lab.ok("vpc:GetDhcpOptionsSet", &named);
    let options = &shown["DhcpOptions"];
    assert_eq!((text(options, "DomainName"), text(options, "LeaseTime")), (String::new(), "24h".into()));
    lab.ok("vpc:AttachDhcpOptionsSetToVpc", &format!("{named}&VpcId={vpc}"));
    let attach = format!("DhcpOptionsSetId={other}&VpcId={vpc}");
    lab.refused("vpc:AttachDhcpOptionsSetToVpc", &attach, 400, "OperationDenied.DhcpOptionsSetAttached");
    let shown = lab.ok("vpc:GetDhcpOptionsSet", &named);
    assert_eq!(shown["AssociateVpcs"], json!([{"VpcId": vpc, "AssociateStatus": "InUse"}]));
    let of_vpc = lab.ok("vpc:DescribeVpcs", &format!("DhcpOptionsSetId={set}"));
    assert_eq!(text(&of_vpc["Vpcs"]["Vpc"][0], "DhcpOptionsSetId"), set);
    lab.refused("vpc:DeleteDhcpOptionsSet", &named, 400, "DependencyViolation.VpcAttachment");
    for (asked, count) in [
        ("", 2),
        ("DhcpOptionsSetName=lab", 1),
        ("DomainName=example.org", 1),
        ("Tags.1.Key=k", 1),
        ("Tags.1.Key=other", 1),
    ] {
        let listed = lab.ok("vpc:ListDhcpOptionsSets", asked);
        assert_eq!(list(&listed, "/DhcpOptionsSets").len(), count, "{asked}");
    }
    lab.ok("vpc:ReplaceVpcDhcpOptionsSet", &attach);
    lab.refused(
        "vpc:DetachDhcpOptionsSetFromVpc",
        &format!("{named}&VpcId={vpc}"),
        404,
        "InvalidDhcpOptionsSetId.NotFound",
    );
    lab.ok("vpc:DetachDhcpOptionsSetFromVpc", &attach);
    lab.ok("vpc:DeleteDhcpOptionsSet", &named);
    lab.refused("vpc:GetDhcpOptionsSet", &named, 404, "InvalidDhcpOptionsSetId.NotFound");
    for bad in [
        "DomainNameServers=ten",
        "DomainNameServers=1.1.1.1,1.1.1.2,1.1.1.3,1.1.1.4,1.1.1.5",
        "LeaseTime=7",
        "Ipv6LeaseTime=50d",
        "DomainName=a..b",
    ] {
        lab.refused("vpc:CreateDhcpOptionsSet", bad, 400, "InvalidParameter");
    }
}

#[test]
fn prefixes_come_from_what_is_kept_for_them_and_addresses_do_not() {
    let mut lab = ApiLab::new();
    let vpc = text(&lab.ok("vpc:CreateVpc", "CidrBlock=10.0.0.0/8&EnableIpv6=true"), "VpcId");
    let create = format!("VpcId={vpc}&CidrBlock=10.0.1.0/24&ZoneId=cn-hangzhou-b&Ipv6CidrBlock=1");
    let vswitch = text(&lab.ok("vpc:CreateVSwitch", &create), "VSwitchId");
    let group = text(&lab.ok("CreateSecurityGroup", &format!("VpcId={vpc}")), "SecurityGroupId");
    let reserve = |more: &str| format!("VSwitchId={vswitch}&{more}");
    let low =
        reserve("VSwitchCidrReservationCidr=10.0.1.0/27&VSwitchCidrReservationName=pods&Tag.1.Key=k&Tag.1.Value=v");
    let low = text(&lab.ok("vpc:CreateVSwitchCidrReservation", &low), "VSwitchCidrReservationId");
    // Of the /27, the first /28 has the subnet's own address in it.
    let eni =
        lab.ok("CreateNetworkInterface", &format!("VSwitchId={vswitch}&SecurityGroupId={group}&Ipv4PrefixCount=1"));
    assert_eq!(text(&eni, "PrivateIpAddress"), "10.0.1.32");
    assert_eq!(text(&eni["Ipv4PrefixSets"]["Ipv4PrefixSet"][0], "Ipv4Prefix"), "10.0.1.16/28");
    let eni = text(&eni, "NetworkInterfaceId");
    let assign = |more: &str| format!("NetworkInterfaceId={eni}&{more}");
    lab.refused("AssignPrivateIpAddresses", &assign("Ipv4PrefixCount=1"), 403, "InvalidVSwitchId.IpNotEnough");
    lab.refused("AssignPrivateIpAddresses", &assign("Ipv4Prefix.1=10.0.1.64/28"), 403, "InvalidVSwitchId.IpInvalid");
    let of = |more: &str| format!("VSwitchId={vswitch}&{more}");
    let shown = lab.ok("vpc:ListVSwitchCidrReservations", &of("Tags.1.Key=k"));
    let found = &list(&shown, "/VSwitchCidrReservations")[0];
    let fields =
        ["VSwitchCidrReservationId", "VSwitchCidrReservationCidr", "VSwitchCidrReservationName", "Status", "VpcId"];
    assert_eq!(fields.map(|name| text(found, name)), [low.as_str(), "10.0.1.0/27", "pods", "Assigned", &vpc]);
    assert_eq!((&found["AssignedCidrCount"], &found["AvailableCidrCount"]), (&json!(1), &json!(1)));
    let usage = lab.ok("vpc:GetVSwitchCidrReservationUsage", &format!("VSwitchCidrReservationId={low}"));
    assert_eq!(text(&list(&usage, "/CidrReservationUsages")[0], "ResourceId"), eni);
    // 252 of the subnet's 256 addresses are for guests: 32 are kept, and one is the interface's.
    let shown = lab.ok("vpc:DescribeVSwitchAttributes", &of(""));
    assert_eq!(shown["AvailableIpAddressCount"], json!(252 - 32 - 1));
    let named = format!("VSwitchCidrReservationId={low}");
    lab.refused("vpc:DeleteVSwitchCidrReservation", &named, 400, "OperationFailed.CidrInUse");
    lab.ok("UnassignPrivateIpAddresses", &assign("Ipv4Prefix.1=10.0.1.16/28"));
    lab.ok("vpc:ModifyVSwitchCidrReservationAttribute", &format!("{named}&VSwitchCidrReservationDescription=of pods"));
    lab.ok("vpc:DeleteVSwitchCidrReservation", &named);
    lab.refused("vpc:DeleteVSwitchCidrReservation", &named, 404, "ResourceNotFound.VSwitchCidrReservation");
    // By length: the first part in which nothing is. IPv6 likewise.
    let made = lab.ok("vpc:CreateVSwitchCidrReservation", &reserve("VSwitchCidrReservationMask=28"));
    let shown = lab.ok("vpc:ListVSwitchCidrReservations", "");
    assert_eq!(text(&list(&shown, "/VSwitchCidrReservations")[0], "VSwitchCidrReservationCidr"), "10.0.1.16/28");
    lab.ok("vpc:CreateVSwitchCidrReservation", &reserve("VSwitchCidrReservationMask=80&IpVersion=IPv6"));
    let assigned = lab.ok("AssignIpv6Addresses", &assign("Ipv6PrefixCount=1"));
    let kept = lab.ok("vpc:ListVSwitchCidrReservations", "IpVersion=IPv6");
    let kept = text(&list(&kept, "/VSwitchCidrReservations")[0], "VSwitchCidrReservationCidr");
    assert_eq!(assigned["Ipv6PrefixSets"]["Ipv6Prefix"], json!([kept]));
    lab.refused("vpc:ModifyVSwitchAttribute", &of("EnableIPv6=false"), 400, "OperationFailed.CidrInUse");
    for (fields, status, code) in [
        ("VSwitchCidrReservationCidr=10.0.1.0/24", 400, "InvalidParameter"),
        ("VSwitchCidrReservationCidr=10.0.2.0/28", 400, "InvalidParameter"),
        ("VSwitchCidrReservationCidr=10.0.1.16/29", 400, "InvalidCirdrBlock.MaskLength"),
        ("VSwitchCidrReservationCidr=10.0.1.16/28", 400, "InvalidCidrBlock.Overlapped"),
        ("VSwitchCidrReservationCidr=10.0.1.1/28", 400, "InvalidCidrBlock.Malformed"),
        ("VSwitchCidrReservationCidr=10.0.1.32/28&IpVersion=IPv6", 400, "InvalidParameter"),
        ("VSwitchCidrReservationMask=24", 400, "InvalidCirdrBlock.MaskLength"),
        ("VSwitchCidrReservationMask=28&VSwitchCidrReservationType=explicit", 400, "InvalidParameter"),
        ("IpVersion=IPv4", 400, "MissingParameter"),
    ] {
        lab.refused("vpc:CreateVSwitchCidrReservation", &reserve(fields), status, code);
    }
    let _ = made;
}
