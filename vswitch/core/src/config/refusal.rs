//! Why a change or a query is refused.

use alloc::string::String;
use serde::{Deserialize, Serialize};

/// A reason why something was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The kind of refusal, for programs: `malformed`, `version`, `too-large`, `generation-mismatch`, `unknown`,
    /// `invalid`, `conflict`, `limit`, `forbidden` (to a peer that may not control the switch), `timeout` (a worker did
    /// not follow; the only refusal after which a new state may be in force).
    pub code: String,
    /// The object at fault, as in `enis/eni-1/mac`; empty if it is the message itself.
    pub object: String,
    /// What is wrong and what would be right, for people.
    pub message: String,
}

impl Refusal {
    /// A refusal that concerns `object`.
    pub fn new(code: &str, object: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), object: object.into(), message: message.into() }
    }
}
