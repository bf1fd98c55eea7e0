//! What the lists of the HTTP interface show for what they are asked.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod lab;

use control::ecs::ApiSettings;
use lab::{Lab, text};
use serde_json::Value;

fn count(answer: &Value) -> u64 {
    answer["TotalCount"].as_u64().unwrap()
}

#[test]
fn instances_are_found_by_what_they_are() {
    let mut lab = Lab::new();
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
    let mut lab = Lab::new();
    lab.base(&["normal"; 3]);
    let both = lab.ok("DescribeSecurityGroups", "PageNumber=1&PageSize=1&MaxResults=2");
    assert!(both.get("TotalCount").is_none());
    assert_eq!(both["SecurityGroups"]["SecurityGroup"].as_array().unwrap().len(), 2);
    for asked in ["MaxResults=0", "MaxResults=-1", "PageNumber=0", "PageSize=0", "PageSize=51", "PageSize=x"] {
        lab.refused("DescribeSecurityGroups", asked, 400, "InvalidParameter");
    }
    let mut lab = Lab::with(ApiSettings { page_numbers: false, ..ApiSettings::default() });
    for asked in ["PageNumber=1", "PageSize=10", "PageNumber=1&MaxResults=10"] {
        lab.refused("DescribeSecurityGroups", asked, 400, "NotSupported.PageNumberAndPageSize");
    }
    lab.ok("DescribeSecurityGroups", "MaxResults=10");
}

#[test]
fn regions_and_zones_know_their_words() {
    let mut lab = Lab::new();
    lab.refused("DescribeRegions", "ResourceType=mars", 404, "InvalidResourceType.NotFound");
    lab.refused("DescribeRegions", "AcceptLanguage=tlh", 404, "InvalidAcceptLanguage.NotFound");
    lab.refused("DescribeZones", "InstanceChargeType=free", 404, "InvalidInstanceChargeType.NotFound");
    lab.refused("DescribeZones", "SpotStrategy=luck", 400, "InvalidSpotStrategy");
    lab.refused("DescribeNetworkInterfaces", "RegionId=!", 400, "InvalidRegionId.MalFormed");
    lab.refused("DescribeNetworkInterfaces", "RegionId=mars", 404, "InvalidRegionId.NotFound");
    let zones = lab.ok("DescribeZones", "InstanceChargeType=postpaid&SpotStrategy=NoSpot&AcceptLanguage=en-US");
    assert_eq!(zones["Zones"]["Zone"][0]["ZoneId"], "cn-hangzhou-a");
}
