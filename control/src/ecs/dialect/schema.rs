//! The published description of each action: parameters, response and errors, from `actions.json`.

use serde::Deserialize;
use serde_json::Value;
use std::sync::LazyLock;

/// The published description of the API.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Schema {
    /// Errors that any action may give.
    pub common_errors: Vec<ErrorSchema>,
    /// The actions.
    pub actions: Vec<ActionSchema>,
}

/// One action.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActionSchema {
    /// Its name.
    pub action: String,
    /// `ECS` or `VPC`.
    pub product: String,
    /// `core`, `adjacent` or `stub`.
    pub tier: String,
    /// Its parameters.
    pub params: Vec<ParameterSchema>,
    /// Its response, as a tree of type names.
    pub response: Value,
    /// Its errors, in addition to the common ones.
    pub errors: Vec<ErrorSchema>,
    /// Further notes.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Whether another action replaces it.
    #[serde(default)]
    pub deprecated: bool,
    /// Which one.
    #[serde(default)]
    pub replaced_by: Option<String>,
}

/// One parameter.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParameterSchema {
    /// Its name.
    pub name: String,
    /// `String`, `Boolean`, `Integer`, `Long`, `Double`, `Object` or `RepeatList<…>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it has to be given.
    #[serde(default)]
    pub required: bool,
    /// The least number.
    pub min: Option<i64>,
    /// The greatest number.
    pub max: Option<i64>,
    /// The fewest characters.
    pub min_length: Option<usize>,
    /// The most characters.
    pub max_length: Option<usize>,
    /// The fewest entries.
    pub min_items: Option<usize>,
    /// The most entries.
    pub max_items: Option<usize>,
    /// The values it may have.
    #[serde(rename = "enum", default)]
    pub values: Vec<Value>,
    /// What its absence means.
    pub default: Option<Value>,
    /// Whether letter case is ignored.
    #[serde(default)]
    pub case_insensitive: bool,
    /// Whether numbers out of range are clamped.
    #[serde(default)]
    pub clamp: bool,
    /// Whether another parameter replaces it.
    #[serde(default)]
    pub deprecated: bool,
    /// The format of its text.
    pub format: Option<String>,
    /// When it is required.
    pub required_when: Option<String>,
    /// What happens to a call with it.
    #[serde(default)]
    pub support: Support,
    /// The fields of an object or of the entries of a list.
    #[serde(default)]
    pub fields: Vec<ParameterSchema>,
}

/// What happens to a parameter that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Support {
    /// It has its published effect.
    #[default]
    Honoured,
    /// It has nothing to do with packets: it is stored with the object as it was given, and returned.
    Stored,
    /// A call with it is refused, with this code of the action.
    Refused(String),
    /// It is ignored, for this reason.
    Ignored(String),
}

/// One error.
#[derive(Debug, Deserialize)]
pub struct ErrorSchema {
    /// Its code.
    pub code: String,
    /// Its HTTP status.
    pub http: u16,
    /// Its message; `%s` stands for the server's part.
    pub message: String,
}

/// The published description of the API.
///
/// # Panics
/// If the file built into this program is damaged.
pub fn schema() -> &'static Schema {
    static FACTS: LazyLock<Schema> = LazyLock::new(|| {
        serde_json::from_str(include_str!("actions.json")).expect("the interface's own description can be read")
    });
    &FACTS
}

impl ActionSchema {
    /// An error that the action lists, or one common to all.
    pub fn error(&self, code: &str, status: u16) -> Option<&ErrorSchema> {
        let listed = || self.errors.iter().filter(|error| error.code == code);
        let same = listed().find(|error| error.http == status);
        let common = || schema().common_errors.iter().find(|error| error.code == code);
        same.or_else(|| listed().next()).or_else(common)
    }

    /// Whether the action lists an error.
    pub fn lists(&self, code: &str) -> bool {
        self.errors.iter().any(|error| error.code == code)
    }
}
