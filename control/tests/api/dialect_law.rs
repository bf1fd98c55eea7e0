//! A law: whatever a call says, the control plane refuses it before the forwarding plane has to.

use super::lab::{ApiLab, name_of, text};
use control::ecs::{ACTIONS, Action, ParameterSchema, schema};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

/// What exists at first, by what names it.
struct LawWorld {
    lab: ApiLab,
    names: Vec<(&'static str, Vec<String>)>,
}

impl LawWorld {
    /// Two VPCs, each with two subnets, groups of both kinds, an instance, two spare interfaces; lists of each kind.
    fn new() -> Self {
        let mut lab = ApiLab::new();
        let (mut vpcs, mut vswitches, mut groups) = (Vec::new(), Vec::new(), Vec::new());
        let (mut instances, mut enis) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let vpc = text(&lab.ok("vpc:CreateVpc", "CidrBlock=10.0.0.0/8&EnableIpv6=true"), "VpcId");
            for place in 0..2 {
                let blocks = format!("CidrBlock=10.{place}.0.0/16&Ipv6CidrBlock={place}");
                let create = format!("VpcId={vpc}&{blocks}&ZoneId=cn-hangzhou-b");
                vswitches.push(text(&lab.ok("vpc:CreateVSwitch", &create), "VSwitchId"));
            }
            for kind in ["normal", "normal", "enterprise"] {
                let create = format!("VpcId={vpc}&SecurityGroupType={kind}");
                groups.push(text(&lab.ok("CreateSecurityGroup", &create), "SecurityGroupId"));
            }
            let place =
                format!("VSwitchId={}&SecurityGroupId={}", vswitches[vswitches.len() - 2], groups[groups.len() - 3]);
            let run = lab.ok("RunInstances", &format!("{place}&InstanceType=ecs.g7.large"));
            instances.push(run["InstanceIdSets"]["InstanceIdSet"][0].as_str().unwrap().to_owned());
            for _ in 0..2 {
                enis.push(text(&lab.ok("CreateNetworkInterface", &place), "NetworkInterfaceId"));
            }
            vpcs.push(vpc);
        }
        lab.ok("StopInstance", &format!("InstanceId={}", instances[0]));
        let primaries = lab.ok("DescribeNetworkInterfaces", "Type=Primary");
        let primaries = primaries["NetworkInterfaceSets"]["NetworkInterfaceSet"].as_array().unwrap().clone();
        enis.extend(primaries.iter().map(|eni| text(eni, "NetworkInterfaceId")));
        let list = |lab: &mut ApiLab, family: &str| {
            let create = format!("AddressFamily={family}&PrefixListName=list&MaxEntries=2");
            text(&lab.ok("CreatePrefixList", &create), "PrefixListId")
        };
        let prefix_lists = vec![list(&mut lab, "IPv4"), list(&mut lab, "IPv6")];
        let port_list = text(&lab.ok("CreatePortRangeList", "PortRangeListName=ports&MaxEntries=2"), "PortRangeListId");
        let names = vec![
            ("SecurityGroupId", groups.clone()),
            ("SecurityGroupIds", groups.clone()),
            ("SourceGroupId", groups.clone()),
            ("DestGroupId", groups),
            ("NetworkInterfaceId", enis),
            ("InstanceId", instances),
            ("VSwitchId", vswitches),
            ("VpcId", vpcs),
            ("PrefixListId", prefix_lists.clone()),
            ("SourcePrefixListId", prefix_lists.clone()),
            ("DestPrefixListId", prefix_lists),
            ("PortRangeListId", vec![port_list]),
        ];
        Self { lab, names }
    }

    /// Values that a parameter may have, good and bad. None where it says nothing about the network.
    fn values(&self, fact: &ParameterSchema) -> Vec<String> {
        if let Some((_, ids)) = self.names.iter().find(|(name, _)| *name == fact.name) {
            return ids.clone();
        }
        let values: &[&str] = match fact.name.as_str() {
            "IpProtocol" => &["TCP", "UDP", "ICMP", "ICMPv6", "GRE", "ALL", "50"],
            "PortRange" => &["80/80", "1/65535", "-1/-1", "0/1"],
            "SourcePortRange" => &["1/200", "-1/-1"],
            "Priority" => &["1", "100", "110"],
            "Policy" => &["accept", "drop"],
            "InnerAccessPolicy" => &["Accept", "Drop"],
            "SourceCidrIp" | "DestCidrIp" => &["10.0.0.0/8", "10.0.0.7", "::/0"],
            "Ipv6SourceCidrIp" | "Ipv6DestCidrIp" => &["::/0", "2001:db8::1", "10.0.0.0/8"],
            "Cidr" => &["10.0.0.0/8", "10.0.0.7", "::/0", "2001:db8::/32"],
            "CidrBlock" => &["10.0.0.0/8", "10.2.0.0/16", "10.0.0.0/24", "192.168.0.0/24"],
            "Ipv6CidrBlock" => &["1", "2", "2001:db8::/56"],
            "PrivateIpAddress" | "PrimaryIpAddress" => &["10.0.0.9", "10.0.0.17", "10.1.0.9", "10.9.0.9", "x"],
            "Ipv4Prefix" => &["10.0.0.16/28", "10.1.0.16/28", "10.0.0.0/28"],
            "TcpEstablishedTimeout" => &["910", "30", "31", "0"],
            "TcpClosedAndTimeWaitTimeout" => &["3", "15", "16"],
            "UdpTimeout" => &["10", "100", "45"],
            "AddressFamily" => &["IPv4", "IPv6"],
            "ZoneId" => &["cn-hangzhou-b", "cn-hangzhou-c"],
            "InstanceType" if fact.values.is_empty() => &["ecs.g7.large"],
            "PrefixListName" | "PortRangeListName" => &["list", "com.aliyun"],
            "MaxEntries" => &["1", "2", "0"],
            "Amount" => &["1", "2"],
            "SecondaryPrivateIpAddressCount" | "Ipv6AddressCount" | "Ipv4PrefixCount" | "Ipv6PrefixCount" => {
                &["1", "2", "49"]
            }
            _ if fact.kind == "Boolean" => &["true", "false"],
            _ => &[],
        };
        values.iter().map(ToString::to_string).collect()
    }

    /// A call of an action: what has to be given, and a share of the rest.
    fn call(&self, action: &Action, choices: &mut impl Iterator<Item = usize>) -> String {
        let mut said = Vec::new();
        let choose = |said: &mut Vec<String>,
                      choices: &mut dyn Iterator<Item = usize>,
                      fact: &ParameterSchema,
                      name: &str,
                      share: usize| {
            let values = self.values(fact);
            let mut choice = || choices.next().unwrap_or(99);
            // The first values are good, and go together: they come more often.
            let count = values.len().max(1);
            let (taken, place) = (choice(), (choice() % count).min(choice() % count));
            let is_left_out = !fact.required && taken % 100 >= share || values.is_empty();
            if !is_left_out && fact.name != "RegionId" {
                said.push(format!("{name}={}", values[place]));
            }
        };
        for fact in &action.schema().params {
            // Dry runs change nothing, deletions by force end most walks early, and the old form of rules excludes the new.
            if fact.deprecated || ["DryRun", "Force", "ForceStop", "ForceDelete"].contains(&fact.name.as_str()) {
                continue;
            }
            let share = match fact.name.as_str() {
                "Permissions" | "Entry" | "AddEntry" | "InstanceType" => 95,
                name if name.ends_with("Id") => 50,
                _ => 10,
            };
            match fact.kind.as_str() {
                "RepeatList<Object>" => {
                    let fields = || fact.fields.iter().filter(|field| field.name != "InstanceType");
                    for (place, share) in [(1, share), (2, share / 4)] {
                        if !fact.required && choices.next().unwrap_or(99) % 100 >= share {
                            continue;
                        }
                        for field in fields() {
                            let is_needed = ["IpProtocol", "Cidr", "PortRange"].contains(&field.name.as_str());
                            let share = if is_needed { 95 } else { 30 };
                            choose(&mut said, choices, field, &format!("{}.{place}.{}", fact.name, field.name), share);
                        }
                    }
                }
                "Object" => {
                    for field in &fact.fields {
                        choose(&mut said, choices, field, &format!("{}.{}", fact.name, field.name), share);
                    }
                }
                "RepeatList<String>" => {
                    choose(&mut said, choices, fact, &format!("{}.1", fact.name), share.max(40));
                    choose(&mut said, choices, fact, &format!("{}.2", fact.name), 15);
                }
                _ => choose(&mut said, choices, fact, &fact.name, share),
            }
        }
        said.join("&")
    }
}

#[test]
fn the_forwarding_plane_has_nothing_left_to_refuse() {
    let mut actions: Vec<&Action> = ACTIONS.iter().filter(|action| !action.is_question()).collect();
    // Walks in which little is left are short of breath.
    let made = actions.iter().filter(|action| !action.name.starts_with("Delete")).copied().collect::<Vec<_>>();
    actions.extend(made.iter().cycle().take(made.len() * 3));
    let call = (any::<Index>(), proptest::collection::vec(0_usize..10_000, 300));
    let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
    let law = |calls: Vec<(Index, Vec<usize>)>| {
        let mut world = LawWorld::new();
        for (place, choices) in calls {
            let action = *place.get(&actions);
            let said = world.call(action, &mut choices.into_iter());
            let answer = world.lab.send(&name_of(action), &said);
            let Some(code) = answer.code() else { continue };
            // What stops several instances publishes fewer codes than what stops one.
            let single = ACTIONS.iter().find(|other| action.name.strip_suffix('s') == Some(other.name));
            let lists = |action: &Action| action.schema().lists(&code);
            let is_own = lists(action) || single.is_some_and(lists);
            let is_common = || schema().common_errors.iter().any(|error| error.code == code);
            prop_assert!(is_own || is_common(), "{} {said}: {}", action.name, answer.body);
            prop_assert!(code != "ForwardingRefused" && answer.status < 500, "{} {said}: {}", action.name, answer.body);
        }
        Ok(())
    };
    TestRunner::new(config).run(&proptest::collection::vec(call, 1..100), law).unwrap();
}
