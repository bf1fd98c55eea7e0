//! Every parameter that an action publishes is honoured, kept, refused or ignored for a reason: none is taken and
//! forgotten.

use super::lab::{ApiLab, name_of, text};
use control::ecs::{ACTIONS, ParameterSchema, Support, schema};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A parameter and its fields, each with its full name.
fn with_fields(fact: &ParameterSchema) -> Vec<(String, &ParameterSchema)> {
    let fields = fact.fields.iter().map(|field| (format!("{}.{}", fact.name, field.name), field));
    std::iter::once((fact.name.clone(), fact)).chain(fields).collect()
}

/// Everything between quotation marks in the program's own code of the interface.
fn words(folder: &Path, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            words(&entry.path(), into);
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            let code = fs::read_to_string(entry.path()).unwrap();
            into.extend(code.split('"').map(str::to_owned));
        }
    }
}

/// Names that no code spells out: bounds are made from the name of an amount.
fn spelled(name: &str) -> &str {
    name.strip_prefix("Minimum").or_else(|| name.strip_prefix("Maximum")).unwrap_or(name)
}

#[test]
fn what_is_honoured_is_read_by_the_code() {
    let mut known = BTreeSet::new();
    for room in ["ecs", "http", "server"] {
        words(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room), &mut known);
    }
    let mut forgotten = Vec::new();
    for action in ACTIONS {
        for fact in &action.schema().params {
            if fact.support != Support::Honoured {
                continue;
            }
            let unread = with_fields(fact).into_iter().filter(|(_, one)| one.support == Support::Honoured);
            let unread = unread.filter(|(_, one)| !known.contains(spelled(&one.name)));
            forgotten.extend(unread.map(|(name, _)| format!("{} {name}", name_of(action))));
        }
    }
    assert!(forgotten.is_empty(), "taken and forgotten: {forgotten:#?}");
}

#[test]
fn what_is_ignored_has_a_reason_and_what_is_refused_a_code() {
    for action in ACTIONS {
        for (name, fact) in action.schema().params.iter().flat_map(with_fields) {
            match &fact.support {
                Support::Ignored(reason) => assert!(reason.len() > 8, "{} {name}", name_of(action)),
                Support::Refused(code) => {
                    let known = schema().common_errors.iter().any(|error| error.code == *code);
                    assert!(known || action.schema().lists(code), "{} {name}: {code}", name_of(action));
                }
                Support::Honoured | Support::Stored => {}
            }
        }
    }
}

/// A value for a parameter that is kept, and one that differs from what is shown where nothing is said.
fn value(fact: &ParameterSchema) -> String {
    if let Some(last) = fact.values.last() {
        return last.as_str().map_or_else(|| last.to_string(), str::to_owned);
    }
    match fact.kind.as_str() {
        "Boolean" => "true".into(),
        "Integer" | "Long" => fact.min.unwrap_or(0).max(3).to_string(),
        "Double" => "0.5".into(),
        _ => "kept-value".into(),
    }
}

/// The pairs that give a parameter, and the values that have to be read back.
fn given(fact: &ParameterSchema) -> Vec<(String, String)> {
    match fact.kind.as_str() {
        "Object" => fact.fields.iter().map(|field| (format!("{}.{}", fact.name, field.name), value(field))).collect(),
        "RepeatList<Object>" => {
            fact.fields.iter().map(|field| (format!("{}.1.{}", fact.name, field.name), value(field))).collect()
        }
        "RepeatList<String>" => vec![(format!("{}.1", fact.name), value(fact))],
        _ => vec![(fact.name.clone(), value(fact))],
    }
}

/// What an instance is made or changed with is in some answer about it, wherever that is.
#[test]
fn what_is_kept_of_an_instance_is_read_back() {
    let mut lab = ApiLab::new();
    let (_, vswitch, groups) = lab.base(&["normal"]);
    let key = "KeyPairName=kept-value&PublicKeyBody=ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBxYAqNGoSY8ZSsTu4RhrsWZTsf6rZ3S9oyLhGRkRr5h";
    lab.ok("ImportKeyPair", key);
    let about = |lab: &mut ApiLab, id: &str| {
        let asked = [
            ("DescribeInstances", format!("InstanceIds=[\"{id}\"]")),
            ("DescribeInstanceAttribute", format!("InstanceId={id}")),
            ("DescribeUserData", format!("InstanceId={id}")),
            ("DescribeInstanceRamRole", format!("InstanceIds=[\"{id}\"]")),
            ("DescribeInstanceMaintenanceAttributes", format!("InstanceId.1={id}")),
            ("DescribeInstanceAttachmentAttributes", format!("InstanceIds=[\"{id}\"]")),
            ("DescribeInstanceAutoRenewAttribute", format!("InstanceId={id}")),
            ("DescribeDisks", format!("InstanceId={id}")),
        ];
        asked.map(|(action, parameters)| lab.ok(action, &parameters).to_string()).join("\n")
    };
    let mut forgotten = Vec::new();
    for name in ["RunInstances", "CreateInstance"] {
        let action = ACTIONS.iter().find(|action| action.name == name).unwrap();
        let stored = action.schema().params.iter().filter(|fact| fact.support == Support::Stored);
        for fact in stored {
            let mut call = format!("InstanceType=ecs.g7.large&VSwitchId={vswitch}&SecurityGroupId={}", groups[0]);
            // What is bought in advance is renewed; the rest of its kind counts with it alone.
            if ["Period", "PeriodUnit", "AutoRenew", "AutoRenewPeriod"].contains(&fact.name.as_str()) {
                call += "&InstanceChargeType=PrePaid";
            }
            let made = lab.ok(name, &format!("{call}&InstanceName=plain"));
            let plain = id_of(&made);
            let pairs = given(fact);
            let said: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let made = lab.ok(name, &format!("{call}&InstanceName=plain&{}", said.join("&")));
            let id = id_of(&made);
            let (with, without) = (about(&mut lab, &id), about(&mut lab, &plain));
            if normal(&with, &id) == normal(&without, &plain) {
                forgotten.push(format!("{name} {}", fact.name));
            }
            for id in [id, plain] {
                lab.ok("DeleteInstance", &format!("InstanceId={id}&Force=true"));
            }
        }
    }
    assert!(forgotten.is_empty(), "kept and not read back: {forgotten:#?}");
}

#[test]
fn an_empty_value_takes_away_what_is_kept_and_a_list_replaces_the_former() {
    let mut lab = ApiLab::new();
    let (_, vswitch, groups) = lab.base(&["normal"]);
    let call = format!("InstanceType=ecs.g7.large&VSwitchId={vswitch}&SecurityGroupId={}&UserData=aGk=", groups[0]);
    let id = id_of(&lab.ok("RunInstances", &call));
    assert_eq!(lab.ok("DescribeUserData", &format!("InstanceId={id}"))["UserData"], "aGk=");
    lab.ok("ModifyInstanceAttribute", &format!("InstanceId={id}&InstanceName=other"));
    assert_eq!(lab.ok("DescribeUserData", &format!("InstanceId={id}"))["UserData"], "aGk=");
    lab.ok("ModifyInstanceAttribute", &format!("InstanceId={id}&UserData="));
    assert_eq!(lab.ok("DescribeUserData", &format!("InstanceId={id}"))["UserData"], "");
    let window = |number: u32| {
        format!(
            "&MaintenanceWindow.{number}.StartTime=0{number}:00:00&MaintenanceWindow.{number}.EndTime=0{number}:30:00"
        )
    };
    let windows = |lab: &mut ApiLab, said: &str| {
        lab.ok("ModifyInstanceMaintenanceAttributes", &format!("InstanceId.1={id}{said}"));
        let shown = lab.ok("DescribeInstanceMaintenanceAttributes", &format!("InstanceId.1={id}"));
        let windows = &shown["MaintenanceAttributes"]["MaintenanceAttribute"][0]["MaintenanceWindows"];
        windows["MaintenanceWindow"].as_array().unwrap().len()
    };
    assert_eq!(windows(&mut lab, &(window(1) + &window(2))), 2);
    assert_eq!(windows(&mut lab, "&ActionOnMaintenance=Stop"), 2, "what is not named stays");
    assert_eq!(windows(&mut lab, &window(1)), 1);
}

#[test]
fn disks_and_key_pairs_have_tags_and_a_resource_group() {
    let mut lab = ApiLab::new();
    let (_, vswitch, groups) = lab.base(&["normal"]);
    let call = format!("InstanceType=ecs.g7.large&VSwitchId={vswitch}&SecurityGroupId={}", groups[0]);
    let id = id_of(&lab.ok("RunInstances", &call));
    let disk = text(&lab.ok("DescribeDisks", &format!("InstanceId={id}"))["Disks"]["Disk"][0], "DiskId");
    lab.ok("CreateKeyPair", "KeyPairName=mine");
    for (kind, name) in [("disk", disk.as_str()), ("keypair", "mine")] {
        let named = format!("ResourceType={kind}&ResourceId.1={name}");
        lab.ok("TagResources", &format!("{named}&Tag.1.Key=a&Tag.1.Value=b"));
        let listed = lab.ok("ListTagResources", &named);
        let tag = &listed["TagResources"]["TagResource"][0];
        assert_eq!((tag["ResourceId"].as_str(), tag["TagValue"].as_str()), (Some(name), Some("b")));
        lab.ok("JoinResourceGroup", &format!("ResourceType={kind}&ResourceId={name}&ResourceGroupId=rg-1"));
    }
    let disks = lab.ok("DescribeDisks", "ResourceGroupId=rg-1&Tag.1.Key=a");
    assert_eq!(disks["Disks"]["Disk"][0]["Tags"]["Tag"][0]["TagKey"], "a");
    assert_eq!(lab.ok("DescribeKeyPairs", "ResourceGroupId=rg-1")["TotalCount"], 1);
    lab.ok("DeleteInstance", &format!("InstanceId={id}&Force=true"));
    assert_eq!(lab.ok("DescribeDisks", "")["TotalCount"], 0, "disks go with their instance");
}

#[test]
fn a_public_address_comes_and_goes_with_the_bandwidth() {
    let mut lab = ApiLab::new();
    let (_, vswitch, groups) = lab.base(&["normal"]);
    let call = format!("InstanceType=ecs.g7.large&VSwitchId={vswitch}&SecurityGroupId={}", groups[0]);
    let addresses = |lab: &mut ApiLab, id: &str| {
        let shown = lab.ok("DescribeInstances", &format!("InstanceIds=[\"{id}\"]"))["Instances"]["Instance"][0].clone();
        let list = shown["PublicIpAddress"]["IpAddress"].as_array().unwrap().clone();
        (list.len(), shown["InternetMaxBandwidthOut"].as_u64().unwrap())
    };
    let id = id_of(&lab.ok("RunInstances", &format!("{call}&InternetMaxBandwidthOut=5")));
    assert_eq!(addresses(&mut lab, &id), (1, 5));
    lab.refused("AllocatePublicIpAddress", &format!("InstanceId={id}"), 403, "AllocatedAlready");
    lab.ok("ModifyInstanceNetworkSpec", &format!("InstanceId={id}&InternetMaxBandwidthOut=0"));
    assert_eq!(addresses(&mut lab, &id), (0, 0));
    lab.ok("ModifyInstanceNetworkSpec", &format!("InstanceId={id}&InternetMaxBandwidthOut=5"));
    assert_eq!(addresses(&mut lab, &id), (0, 5), "it is to be asked for");
    lab.ok("AllocatePublicIpAddress", &format!("InstanceId={id}"));
    assert_eq!(addresses(&mut lab, &id), (1, 5));
    let id = id_of(&lab.ok("RunInstances", &format!("{call}&InstanceChargeType=PrePaid&Period=1")));
    lab.ok("ModifyInstanceNetworkSpec", &format!("InstanceId={id}&InternetMaxBandwidthOut=5"));
    assert_eq!(addresses(&mut lab, &id), (1, 5), "it comes with what is paid for in advance");
}

#[test]
fn an_interface_that_is_free_may_be_the_primary_one() {
    let mut lab = ApiLab::new();
    let (_, vswitch, groups) = lab.base(&["normal"]);
    let make = format!("VSwitchId={vswitch}&SecurityGroupId={}&PrimaryIpAddress=10.0.0.77", groups[0]);
    let eni = text(&lab.ok("CreateNetworkInterface", &make), "NetworkInterfaceId");
    let call = format!(
        "InstanceType=ecs.g7.large&NetworkInterface.1.InstanceType=Primary&NetworkInterface.1.NetworkInterfaceId={eni}"
    );
    lab.refused("RunInstances", &format!("{call}&Amount=2"), 400, "InvalidParam.NetworkInterface");
    let id = id_of(&lab.ok("RunInstances", &call));
    let shown = lab.ok("DescribeInstances", &format!("InstanceIds=[\"{id}\"]"))["Instances"]["Instance"][0].clone();
    assert_eq!(shown["NetworkInterfaces"]["NetworkInterface"][0]["NetworkInterfaceId"], eni.as_str());
    assert_eq!(shown["VpcAttributes"]["PrivateIpAddress"]["IpAddress"][0], "10.0.0.77");
    assert_eq!(shown["SecurityGroupIds"]["SecurityGroupId"][0], groups[0].as_str());
    assert!(lab.send("RunInstances", &call).status >= 400, "it is in use");
    let listed = lab.ok("DescribeNetworkInterfaces", &format!("NetworkInterfaceId.1={eni}"));
    assert_eq!(listed["NetworkInterfaceSets"]["NetworkInterfaceSet"][0]["Type"], "Primary");
}

#[test]
fn interfaces_that_an_instance_is_made_with_read_back() {
    let mut lab = ApiLab::new();
    let (_, vswitch, groups) = lab.base(&["normal"]);
    let group = &groups[0];
    let call = format!(
        "InstanceType=ecs.g7.large&CpuOptions.Core=1&CpuOptions.ThreadsPerCore=1&\
         NetworkInterface.1.InstanceType=Primary&NetworkInterface.1.VSwitchId={vswitch}&\
         NetworkInterface.1.SecurityGroupIds.1={group}&NetworkInterface.1.QueuePairNumber=4&\
         NetworkInterface.1.NetworkInterfaceTrafficMode=HighPerformance&\
         NetworkInterface.2.InstanceType=Secondary&NetworkInterface.2.VSwitchId={vswitch}&\
         NetworkInterface.2.SecurityGroupIds.1={group}&NetworkInterface.2.NetworkCardIndex=1&\
         NetworkInterface.2.SourceDestCheck=true"
    );
    let id = id_of(&lab.ok("RunInstances", &call));
    let listed = lab.ok("DescribeNetworkInterfaces", &format!("InstanceId={id}"));
    let sets = listed["NetworkInterfaceSets"]["NetworkInterfaceSet"].as_array().unwrap();
    let of_type = |kind: &str| sets.iter().find(|set| set["Type"] == kind).unwrap();
    let (primary, secondary) = (of_type("Primary"), of_type("Secondary"));
    assert_eq!((primary["QueuePairNumber"].as_u64(), secondary["QueuePairNumber"].as_u64()), (Some(4), Some(0)));
    assert_eq!(primary["NetworkInterfaceTrafficMode"], "HighPerformance");
    assert_eq!(secondary["NetworkInterfaceTrafficMode"], "Standard");
    assert_eq!(primary["Attachment"]["NetworkCardIndex"], 0);
    assert_eq!(secondary["Attachment"]["NetworkCardIndex"], 1);
    assert_eq!(secondary["SourceDestCheck"], true);
    assert!(primary.get("SourceDestCheck").is_none(), "nobody said it");
    let shown = lab.ok("DescribeInstances", &format!("InstanceIds=[\"{id}\"]"))["Instances"]["Instance"][0].clone();
    assert_eq!((&shown["CpuOptions"]["CoreCount"], &shown["CpuOptions"]["ThreadsPerCore"]), (&1.into(), &1.into()));
}

fn id_of(made: &serde_json::Value) -> String {
    match made["InstanceId"].as_str() {
        Some(id) => id.to_owned(),
        None => made["InstanceIdSets"]["InstanceIdSet"][0].as_str().unwrap().to_owned(),
    }
}

/// An answer without what differs between two instances that are alike.
fn normal(answers: &str, id: &str) -> String {
    let mut text = answers.replace(id, "#");
    for name in [
        "RequestId",
        "SerialNumber",
        "MacAddress",
        "CreationTime",
        "StartTime",
        "AttachedTime",
        "NetworkInterfaceId",
        "DiskId",
        "PrimaryIpAddress",
        "PrivateIpAddress",
    ] {
        let mut rest = text.as_str();
        let mut without = String::new();
        let mark = format!("\"{name}\":\"");
        while let Some(place) = rest.find(&mark) {
            let (before, after) = rest.split_at(place + mark.len());
            without.push_str(before);
            rest = &after[after.find('"').unwrap()..];
        }
        without.push_str(rest);
        text = without;
    }
    // An address stands in a list of its own, too.
    text.split('"').filter(|word| !word.starts_with("10.0.")).collect()
}

/// Launch templates are no objects here: what would be taken from one cannot be.
#[test]
fn what_cannot_be_is_refused() {
    let mut lab = ApiLab::new();
    let (_, vswitch, groups) = lab.base(&["normal"]);
    let call = format!("InstanceType=ecs.g7.large&VSwitchId={vswitch}&SecurityGroupId={}", groups[0]);
    let mut refused = 0;
    for action in ACTIONS.iter().filter(|action| action.name == "RunInstances") {
        for fact in &action.schema().params {
            let Support::Refused(code) = &fact.support else { continue };
            let answer = lab.send(action.name, &format!("{call}&{}={}", fact.name, value(fact)));
            assert_eq!(answer.code().as_deref(), Some(code.as_str()), "{}: {}", fact.name, answer.body);
            assert!(answer.body.contains(&fact.name), "{}", answer.body);
            refused += 1;
        }
    }
    assert!(refused >= 3);
    assert!(!text(&lab.ok("RunInstances", &format!("{call}&ClientToken=x")), "RequestId").is_empty());
}
