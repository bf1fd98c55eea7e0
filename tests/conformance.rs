//! The project's corpus through the production core.

use control::conform::{CaseOutcome, run_files};
use std::path::PathBuf;

fn corpus() -> Vec<PathBuf> {
    let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus")).expect("the corpus is there");
    let mut files: Vec<PathBuf> = folder.map(|entry| entry.expect("a readable entry").path()).collect();
    files.sort();
    files
}

#[test]
fn every_case_of_the_corpus_is_decided_as_expected() {
    let reports = run_files(&corpus()).expect("the corpus can be read");
    let failures: Vec<String> = reports
        .iter()
        .filter_map(|report| match &report.outcome {
            CaseOutcome::Failed(differences) => {
                Some(format!("{} {}\n    {}", report.id, report.title, differences.join("\n    ")))
            }
            _ => None,
        })
        .collect();
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
    let passed = reports.iter().filter(|report| report.outcome == CaseOutcome::Passed).count();
    assert!(passed >= 86, "only {passed} cases ran");
    for page in ["README.md", "docs/conformance.md"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(page);
        let text = std::fs::read_to_string(path).expect("the page can be read");
        let shown = format!("{passed} passed, 0 failed");
        assert!(text.contains(&shown), "{page} shows another closing line than `{shown}`");
    }
}

#[test]
fn every_case_is_decided_the_same_without_the_fast_path() {
    let mut passed = 0;
    for file in corpus() {
        let text = std::fs::read_to_string(&file).expect("the file can be read");
        for case in control::conform::read_cases(&text, true).expect("a list") {
            let found = control::conform::run_case(&case.without_fast_path()).outcome;
            assert_eq!(found, control::conform::run_case(&case).outcome, "{}", case.id);
            passed += usize::from(found == CaseOutcome::Passed);
        }
    }
    assert!(passed >= 86, "only {passed} cases ran");
}

#[test]
fn a_wrong_expectation_is_found() {
    let text = r#"[{
        "id": "wrong", "kind": "packet", "at": "eni-1", "dir": "ingress",
        "groups": [{ "id": "sg-1", "type": "normal", "rules": [] }],
        "enis": [{ "id": "eni-1", "groups": ["sg-1"], "ips": ["10.0.0.1"] }],
        "packet": { "proto": "tcp", "src": "203.0.113.9", "dst": "10.0.0.1", "sport": 1, "dport": 22 },
        "expect": { "verdict": "accept" }
    }]"#;
    let cases = control::conform::read_cases(text, false).expect("a list");
    let report = control::conform::run_case(&cases[0]);
    let CaseOutcome::Failed(differences) = report.outcome else { panic!("{:?}", report.outcome) };
    assert_eq!(differences, ["expected accept, decided drop by default at eni-1 ingress"]);
}

/// A case of each kind that passes.
fn cases_of_all_kinds() -> serde_json::Value {
    serde_json::json!([
        {
            "id": "packet", "kind": "packet", "at": "eni-1", "dir": "ingress",
            "groups": [{ "id": "sg-1", "type": "normal", "rules": [
                { "id": "r", "Direction": "ingress", "IpProtocol": "TCP", "PortRange": "22/22", "SourcePrefixListId": "pl-1",
                  "NicType": "intranet", "Description": "SSH" },
            ] }],
            "enis": [{ "id": "eni-1", "groups": ["sg-1"], "ips": ["10.0.0.1"],
                       "ConnectionTrackingConfiguration": { "UdpTimeout": 30 } }],
            "prefixLists": { "pl-1": ["203.0.113.0/24"] },
            "portLists": { "prl-1": ["80/80"] },
            "settings": { "smtp_closed": true },
            "packet": { "proto": "tcp", "src": "203.0.113.9", "dst": "10.0.0.1", "sport": 1, "dport": 22,
                        "ethertype": "ipv4", "fragment": { "id": 1, "offset": 0, "more": true } },
            "expect": { "verdict": "accept", "rule": "r" },
        },
        {
            "id": "flow", "kind": "flow", "initiator": null, "responder": "eni-1",
            "groups": [{ "id": "sg-1" }],
            "enis": [{ "id": "eni-1", "groups": ["sg-1"], "ips": ["10.0.0.1"] }],
            "packet": { "proto": "icmp", "type": 3, "code": 1, "src": "203.0.113.9", "dst": "10.0.0.1",
                        "inner": { "proto": "udp", "src": "10.0.0.1", "dst": "203.0.113.9", "sport": 1, "dport": 2 } },
            "expect": { "verdict": "drop", "deniedAt": "eni-1:ingress", "checks": [
                { "at": "eni-1", "dir": "ingress", "verdict": "drop", "stage": "default" },
            ] },
        },
        {
            "id": "sequence", "kind": "sequence", "at": "eni-1", "groups": [{ "id": "sg-1" }],
            "enis": [{ "id": "eni-1", "groups": ["sg-1"], "ips": ["10.0.0.1"] }],
            "expect": { "perStep": true },
            "steps": [
                { "t": 0, "op": "authorize", "group": "sg-1", "rule": { "id": "r", "Direction": "ingress", "IpProtocol": "ALL",
                                                                        "SourceCidrIp": "0.0.0.0/0" } },
                { "t": 1, "op": "packet", "dir": "ingress", "expect": { "verdict": "accept" },
                  "packet": { "proto": "gre", "src": "203.0.113.9", "dst": "10.0.0.1" } },
                { "t": 2, "op": "timeouts", "eni": "eni-1", "ConnectionTrackingConfiguration": { "UdpTimeout": 30 } },
                { "t": 3, "op": "revoke", "group": "sg-1", "rule": { "id": "r", "Direction": "ingress", "IpProtocol": "ALL" } },
            ],
        },
        {
            "id": "api", "kind": "api", "action": "RevokeSecurityGroup",
            "params": { "RegionId": "cn-hangzhou", "SecurityGroupId": "sg-1", "Permissions.1.IpProtocol": "GRE",
                        "Permissions.1.SourceCidrIp": "10.0.0.0/8" },
            "state": {
                "vpcs": ["vpc-1"],
                "groups": [{ "id": "sg-1", "type": "normal", "vpc": "vpc-1" }],
                "enis": [{ "id": "eni-1", "vpc": "vpc-1", "groups": ["sg-1"], "ips": ["10.0.0.1"], "kind": "Primary" }],
                "prefixLists": { "pl-1": { "family": "IPv4", "max": 1 } },
                "portLists": { "prl-1": { "max": 1 } },
                "existingRules": [
                    { "group": "sg-1", "IpProtocol": "TCP", "PortRange": "22/22", "SourceCidrIp": "10.0.0.0/8" },
                    { "group": "sg-1", "IpProtocol": "GRE", "SourceCidrIp": "10.0.0.0/8" },
                ],
                "priorCalls": [{ "action": "RevokeSecurityGroup", "params": {
                    "RegionId": "cn-hangzhou", "SecurityGroupId": "sg-1", "Permissions.1.IpProtocol": "GRE",
                    "Permissions.1.SourceCidrIp": "10.0.0.0/8" } }],
            },
            "after": { "ruleCount": 1 },
            "expect": { "http": 400, "code": ["InvalidSecurityGroupRule.RuleNotExist", "Other"] },
        },
    ])
}

fn outcomes(cases: &serde_json::Value) -> Vec<CaseOutcome> {
    let cases = control::conform::read_cases(&cases.to_string(), false).expect("a list");
    cases.iter().map(|case| control::conform::run_case(case).outcome).collect()
}

/// The JSON pointers of the objects in a value.
fn objects(value: &serde_json::Value, place: String, found: &mut Vec<String>) {
    let entries: Vec<(String, &serde_json::Value)> = match value {
        serde_json::Value::Array(list) => list.iter().enumerate().map(|(n, value)| (n.to_string(), value)).collect(),
        serde_json::Value::Object(object) => object.iter().map(|(name, value)| (name.clone(), value)).collect(),
        _ => return,
    };
    if value.is_object() {
        found.push(place.clone());
    }
    for (name, value) in entries {
        objects(value, format!("{place}/{name}"), found);
    }
}

/// Objects whose keys are names of the author's choice: lists, and parameters of a call.
fn has_free_names(place: &str) -> bool {
    ["/params", "/prefixLists", "/portLists"].iter().any(|end| place.ends_with(end))
}

#[test]
fn a_field_that_is_not_known_fails_the_case_by_its_name() {
    let cases = cases_of_all_kinds();
    assert_eq!(outcomes(&cases), vec![CaseOutcome::Passed; 4]);
    for case in cases.as_array().expect("a list") {
        let mut places = Vec::new();
        objects(case, String::new(), &mut places);
        places.retain(|place| !has_free_names(place));
        for place in &places {
            let mut with_stranger = case.clone();
            with_stranger.pointer_mut(place).expect("an object")["stranger"] = 1.into();
            let outcome = outcomes(&serde_json::json!([with_stranger])).remove(0);
            let CaseOutcome::Failed(differences) = &outcome else { panic!("{} {place}: {outcome:?}", case["id"]) };
            assert!(differences[0].contains("`stranger`"), "{} {place}: {differences:?}", case["id"]);
        }
    }
}

#[test]
fn fields_for_people_may_stand_anywhere() {
    let mut cases = cases_of_all_kinds();
    for case in cases.as_array_mut().expect("a list") {
        let mut places = Vec::new();
        objects(case, String::new(), &mut places);
        for place in places.iter().filter(|place| !has_free_names(place) && !place.ends_with("/settings")) {
            for name in ["title", "source", "uncertain", "notes", "alternative"] {
                case.pointer_mut(place).expect("an object")[name] = serde_json::json!({ "kind": "doc" });
            }
        }
    }
    assert_eq!(outcomes(&cases), vec![CaseOutcome::Passed; 4]);
}

#[test]
fn a_prior_call_that_is_refused_and_a_code_that_is_not_listed_fail_the_case() {
    let case = cases_of_all_kinds()[3].take();
    let mut refused = case.clone();
    refused["state"]["priorCalls"][0]["params"]["SecurityGroupId"] = "sg-none".into();
    let mut unlisted = case;
    unlisted["expect"]["code"] = serde_json::json!(["Other"]);
    let outcomes = outcomes(&serde_json::json!([refused, unlisted]));
    for (outcome, named) in outcomes.iter().zip(["state.priorCalls[0]", "expected 400 Other"]) {
        let CaseOutcome::Failed(differences) = outcome else { panic!("{outcome:?}") };
        assert!(differences[0].contains(named), "{differences:?}");
    }
}
