//! The file format of the cases: plain data.

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use std::collections::BTreeMap;

/// Fields for readers, which may be in any object of a case.
const FOR_PEOPLE: [&str; 5] = ["alternative", "notes", "source", "title", "uncertain"];

/// Why cases could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CaseError(pub String);

/// One case, not yet interpreted, so that a malformed case fails alone.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name.
    pub id: String,
    /// `packet`, `flow`, `sequence` or `api`.
    pub kind: String,
    /// What it is about.
    pub title: String,
    /// The rest of it, without the fields for people.
    body: Value,
}

impl Case {
    /// The same case with the fast path off. Decisions must not depend on it.
    #[must_use]
    pub fn without_fast_path(&self) -> Self {
        let mut case = self.clone();
        if let Value::Object(body) = &mut case.body
            && self.kind != "api"
        {
            // A case without settings has mail closed, as in the cloud.
            let cloud = || Value::Object([("smtp_closed".into(), true.into())].into_iter().collect());
            body.entry("settings").or_insert_with(cloud)["fast_path"] = false.into();
        }
        case
    }

    /// Parses the case by its kind.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, CaseError> {
        read("case", &self.body)
    }
}

/// Parses a part of a case. Unknown fields are an error, since the case would then describe something else.
pub(super) fn read<T: DeserializeOwned>(noun: &str, value: &Value) -> Result<T, CaseError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." { String::new() } else { format!("{path}: ") };
        CaseError(format!("not a {noun}: {place}{}", error.inner()))
    })
}

/// Removes what is for readers. The keys of `params` and `settings`, and the names of lists, are kept.
fn without_words_for_people(value: Value, is_table_of_lists: bool) -> Value {
    match value {
        Value::Array(list) => list.into_iter().map(|value| without_words_for_people(value, false)).collect(),
        Value::Object(object) => object
            .into_iter()
            .filter(|(name, _)| is_table_of_lists || !FOR_PEOPLE.contains(&name.as_str()))
            .map(|(name, value)| match name.as_str() {
                "params" | "settings" if !is_table_of_lists => (name, value),
                _ => {
                    let lists = !is_table_of_lists && ["prefixLists", "portLists"].contains(&name.as_str());
                    (name, without_words_for_people(value, lists))
                }
            })
            .collect(),
        other => other,
    }
}

/// Reads the cases of a file: an object with a list `vectors`, or a list.
///
/// # Errors
/// The text does not have this form.
pub fn read_cases(text: &str, is_toml: bool) -> Result<Vec<Case>, CaseError> {
    let value: Value = if is_toml {
        toml::from_str(text).map_err(|error| CaseError(error.to_string()))?
    } else {
        serde_json::from_str(text).map_err(|error| CaseError(error.to_string()))?
    };
    let list = match value {
        Value::Array(list) => list,
        Value::Object(mut object) => match object.remove("vectors") {
            Some(Value::Array(list)) => list,
            _ => return Err(CaseError("there is no list called vectors".into())),
        },
        _ => return Err(CaseError("neither a list of cases nor an object with a list called vectors".into())),
    };
    let text = |body: &Value, field: &str| body[field].as_str().unwrap_or_default().to_owned();
    let case = |(position, mut body): (usize, Value)| {
        let id = Some(text(&body, "id")).filter(|id| !id.is_empty());
        let (kind, title) = (text(&body, "kind"), text(&body, "title"));
        if let Value::Object(fields) = &mut body {
            fields.retain(|name, _| !["id", "kind"].contains(&name.as_str()));
        }
        let body = without_words_for_people(body, false);
        Case { id: id.unwrap_or_else(|| format!("case {}", position + 1)), kind, title, body }
    };
    Ok(list.into_iter().enumerate().map(case).collect())
}

/// The world of a case, and the fields of all kinds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body {
    #[serde(default)]
    pub(super) groups: Vec<CaseGroup>,
    pub(super) enis: Vec<CaseEni>,
    #[serde(default, rename = "prefixLists")]
    pub(super) prefix_lists: BTreeMap<String, Vec<String>>,
    #[serde(default, rename = "portLists")]
    pub(super) port_lists: BTreeMap<String, Vec<String>>,
    /// Settings that differ from those of the cloud.
    #[serde(default)]
    pub(super) settings: Option<serde_json::Map<String, Value>>,
    pub(super) at: Option<String>,
    pub(super) dir: Option<String>,
    pub(super) initiator: Option<String>,
    pub(super) responder: Option<String>,
    pub(super) packet: Option<PacketText>,
    #[serde(default)]
    pub(super) steps: Vec<CaseStep>,
    #[serde(default)]
    pub(super) expect: Expect,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseGroup {
    pub(super) id: String,
    #[serde(default, rename = "type")]
    pub(super) kind: Option<String>,
    #[serde(default)]
    pub(super) inner: Option<String>,
    #[serde(default)]
    pub(super) rules: Vec<RuleText>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseEni {
    pub(super) id: String,
    pub(super) groups: Vec<String>,
    #[serde(default)]
    pub(super) ips: Vec<String>,
    #[serde(default, rename = "ConnectionTrackingConfiguration")]
    pub(super) timeouts: Option<TimeoutsText>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
pub(super) struct TimeoutsText {
    pub(super) tcp_established_timeout: Option<u16>,
    pub(super) tcp_closed_and_time_wait_timeout: Option<u16>,
    pub(super) udp_timeout: Option<u16>,
}

/// A rule with the names of the API.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
pub(super) struct RuleText {
    #[serde(rename = "id")]
    pub(super) id: String,
    pub(super) direction: String,
    pub(super) policy: Option<String>,
    pub(super) priority: Option<Value>,
    pub(super) ip_protocol: String,
    pub(super) port_range: Option<String>,
    pub(super) source_port_range: Option<String>,
    pub(super) port_range_list_id: Option<String>,
    pub(super) source_cidr_ip: Option<String>,
    pub(super) dest_cidr_ip: Option<String>,
    pub(super) ipv6_source_cidr_ip: Option<String>,
    pub(super) ipv6_dest_cidr_ip: Option<String>,
    pub(super) source_group_id: Option<String>,
    pub(super) dest_group_id: Option<String>,
    pub(super) source_prefix_list_id: Option<String>,
    pub(super) dest_prefix_list_id: Option<String>,
    /// Not compared, since groups are in a VPC.
    #[serde(rename = "NicType")]
    _nic_type: Option<String>,
    #[serde(rename = "Description")]
    _description: Option<String>,
}

/// A packet as text.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PacketText {
    pub(super) proto: Value,
    /// `arp`, `ipv4` or `ipv6`; redundant with `proto` and `src`.
    pub(super) ethertype: Option<String>,
    pub(super) src: String,
    pub(super) dst: String,
    #[serde(default)]
    pub(super) sport: u16,
    #[serde(default)]
    pub(super) dport: u16,
    #[serde(default, rename = "type")]
    pub(super) icmp_type: Option<u8>,
    #[serde(default, rename = "code")]
    pub(super) icmp_code: u8,
    #[serde(default)]
    pub(super) ident: u16,
    pub(super) flags: Option<String>,
    pub(super) via: Option<String>,
    pub(super) inner: Option<Box<PacketText>>,
    #[serde(default, alias = "hopLimit", alias = "hop_limit", alias = "hlim")]
    pub(super) ttl: Option<u8>,
    pub(super) fragment: Option<FragmentText>,
}

/// The part of an IP packet that a fragment is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FragmentText {
    pub(super) id: u32,
    /// Bytes before this fragment; a multiple of 8.
    pub(super) offset: u16,
    pub(super) more: bool,
}

/// One step of a sequence.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseStep {
    /// Seconds since the start.
    pub(super) t: f64,
    pub(super) op: String,
    pub(super) at: Option<String>,
    pub(super) dir: Option<String>,
    pub(super) packet: Option<PacketText>,
    #[serde(default)]
    pub(super) expect: Option<Expect>,
    pub(super) group: Option<String>,
    pub(super) eni: Option<String>,
    pub(super) list: Option<String>,
    /// A rule to add, or the id of one to revoke.
    pub(super) rule: Option<Value>,
    pub(super) inner: Option<String>,
    #[serde(default)]
    pub(super) entries: Vec<String>,
    #[serde(rename = "ConnectionTrackingConfiguration")]
    pub(super) timeouts: Option<TimeoutsText>,
}

/// What a conforming implementation decides.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    pub(super) verdict: Option<String>,
    pub(super) stage: Option<String>,
    pub(super) rule: Option<String>,
    /// The group that decided at stage `intra-group`.
    pub(super) via: Option<String>,
    #[serde(rename = "deniedAt")]
    pub(super) denied_at: Option<String>,
    #[serde(default)]
    pub(super) checks: Vec<Check>,
    /// States that the steps of a sequence hold what is expected.
    #[serde(rename = "perStep")]
    _per_step: Option<IgnoredAny>,
}

/// One decision of a flow.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Check {
    pub(super) at: String,
    pub(super) dir: String,
    verdict: Option<String>,
    stage: Option<String>,
    rule: Option<String>,
    via: Option<String>,
}

impl Check {
    /// What is expected of the decision.
    pub(super) fn expect(&self) -> Expect {
        let Self { at: _, dir: _, verdict, stage, rule, via } = self.clone();
        Expect { verdict, stage, rule, via, ..Expect::default() }
    }
}
