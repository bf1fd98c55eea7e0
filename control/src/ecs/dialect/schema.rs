//! What the published interface says of each action: parameters, answer and errors, from `actions.json`.

use serde::Deserialize;
use serde_json::Value;
use std::sync::LazyLock;

/// Everything the published interface says.
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
    /// What it takes.
    pub params: Vec<ParameterSchema>,
    /// What it answers, as a tree of type names.
    pub response: Value,
    /// What it may refuse with, besides the common errors.
    pub errors: Vec<ErrorSchema>,
    /// What else is known.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Whether another action has taken its place.
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
    /// Whether the case of its letters does not matter.
    #[serde(default)]
    pub case_insensitive: bool,
    /// Whether numbers out of range are moved into it.
    #[serde(default)]
    pub clamp: bool,
    /// Whether another parameter has taken its place.
    #[serde(default)]
    pub deprecated: bool,
    /// How its text is built.
    pub format: Option<String>,
    /// When it has to be given.
    pub required_when: Option<String>,
    /// What a call with it comes to.
    #[serde(default)]
    pub support: Support,
    /// The fields of an object or of the entries of a list.
    #[serde(default)]
    pub fields: Vec<ParameterSchema>,
}

/// What becomes of a parameter that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Support {
    /// It does what the published interface says.
    #[default]
    Honoured,
    /// It has nothing to do with packets: it is kept with the object as it was given, and read back.
    Stored,
    /// A call with it is refused, with this code of the action.
    Refused(String),
    /// It is without effect, for this reason.
    Ignored(String),
}

/// One error.
#[derive(Debug, Deserialize)]
pub struct ErrorSchema {
    /// Its code.
    pub code: String,
    /// Its HTTP status.
    pub http: u16,
    /// Its message; `%s` stands for what the server says.
    pub message: String,
}

/// What the published interface says.
///
/// # Panics
/// If the file that this program was built with is damaged.
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
