//! Golden pairs: one history in which every action is made with success, each call and its answer in both formats.
//! `WRITE_GOLDEN=1` renews the file; a change to it is a change of what clients see.

use control::ecs::{ACTIONS, ApiSettings, Call, CallInput, FIRST_ACCOUNT, Format, Parameters, Plan, find_action};
use control::ecs::{check, completed, plan, read_pairs, success};
use control::environment::Environment;
use control::model::{Model, Quotas};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Calls in order. `$Name` is the first identifier of that name that an answer gave, `$Name.2` the second.
const HISTORY: &str = include_str!("answers/history.txt");

#[test]
fn every_action_answers_as_it_did() {
    let settings = ApiSettings::default();
    let environment = Environment::fixed(1_795_437_732, 0);
    let mut model = Model::new(Quotas::default());
    let mut known: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut made = BTreeSet::new();
    let mut text = String::new();
    for line in HISTORY.lines().filter(|line| !line.is_empty()) {
        let (name, query) = line.split_once(' ').unwrap_or((line, ""));
        let (version, name) = match name.split_once(':') {
            Some(("vpc", name)) => ("2016-04-28", name),
            Some(("sts", name)) => ("2015-04-01", name),
            Some((_, name)) => ("2020-03-31", name),
            None => ("2014-05-26", name),
        };
        let action = find_action(Some(version), Some(name)).unwrap();
        let query = filled(&format!("RegionId=cn-hangzhou&{query}"), &known);
        let parameters = Parameters::new(read_pairs(&query).unwrap()).unwrap();
        let call = Call::new(action, FIRST_ACCOUNT.into(), parameters);
        let input = CallInput { model: &model, call: &call, settings: &settings, environment: &environment };
        let planned = check(&input).and_then(|()| plan(&input)).unwrap_or_else(|error| panic!("{line}: {error:?}"));
        let answer = match planned {
            Plan::Answer(answer) => answer,
            Plan::Change(command, answer_of) => {
                let events = model.decide(&command, &environment).unwrap_or_else(|error| panic!("{line}: {error:?}"));
                for event in events {
                    model.apply(event);
                }
                answer_of(&CallInput { model: &model, call: &call, settings: &settings, environment: &environment })
            }
        };
        let mut answer = completed(action, answer);
        // A key is another one each time.
        if action.name == "CreateKeyPair" {
            for name in ["PrivateKeyBody", "KeyPairFingerPrint"] {
                assert!(answer.insert(name.into(), "…".into()).is_some_and(|made| made.as_str().unwrap().len() >= 32));
            }
        }
        learn(&serde_json::Value::Object(answer.clone()), &mut known);
        made.insert((action.product.name(), action.name));
        let id = "473469C7-AA6F-4DC5-B3DB-A3DC0DE3C83E";
        let _ = writeln!(text, "> {} {query}", action.name);
        for format in [Format::Json, Format::Xml] {
            let _ = writeln!(text, "{}", success(format, action.name, answer.clone(), id));
        }
        text.push('\n');
    }
    for action in ACTIONS {
        assert!(made.contains(&(action.product.name(), action.name)), "{} has no golden pair", action.name);
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/answers/expected.txt");
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let present = std::fs::read_to_string(path).unwrap_or_default();
    for (old, new) in present.lines().zip(text.lines()) {
        assert_eq!(old, new);
    }
    assert_eq!(present.lines().count(), text.lines().count());
}

fn filled(query: &str, known: &BTreeMap<String, Vec<String>>) -> String {
    let fill = |pair: &str| match pair.split_once('$') {
        Some((before, wanted)) => {
            let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '.';
            let end = wanted.find(|letter| !is_name(letter)).unwrap_or(wanted.len());
            let (wanted, after) = wanted.split_at(end);
            let (wanted, place) = wanted.split_once('.').unwrap_or((wanted, "1"));
            let place: usize = place.parse().unwrap();
            format!("{before}{}{after}", known[wanted][place - 1])
        }
        None => pair.to_owned(),
    };
    let pairs: Vec<String> = query.split('&').filter(|pair| !pair.is_empty()).map(fill).collect();
    pairs.join("&")
}

/// Remembers every identifier of an answer.
fn learn(value: &serde_json::Value, known: &mut BTreeMap<String, Vec<String>>) {
    match value {
        serde_json::Value::Object(members) => {
            for (name, value) in members {
                let texts = value.as_array().into_iter().flatten().chain([value]).filter_map(|value| value.as_str());
                for text in texts.filter(|text| !text.is_empty() && (name.ends_with("Id") || name.ends_with("IdSet"))) {
                    let list = known.entry(name.clone()).or_default();
                    if !list.iter().any(|other| other == text) {
                        list.push(text.to_owned());
                    }
                }
                learn(value, known);
            }
        }
        serde_json::Value::Array(entries) => entries.iter().for_each(|entry| learn(entry, known)),
        _ => {}
    }
}
