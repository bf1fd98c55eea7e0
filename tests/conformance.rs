//! The project's corpus through the production core.

use control::conform::{Outcome, run_files};
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
            Outcome::Failed(differences) => {
                Some(format!("{} {}\n    {}", report.id, report.title, differences.join("\n    ")))
            }
            _ => None,
        })
        .collect();
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
    let passed = reports.iter().filter(|report| report.outcome == Outcome::Passed).count();
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
    let Outcome::Failed(differences) = report.outcome else { panic!("{:?}", report.outcome) };
    assert_eq!(differences, ["expected accept, decided drop by default at eni-1 ingress"]);
}
