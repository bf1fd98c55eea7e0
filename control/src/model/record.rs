//! Account records: objects that have nothing to do with packets and are only stored and returned, such as key pairs.

use super::{Event, Model};
use crate::command::{RecordCreate, RecordDelete};
use crate::environment::Environment;
use crate::error::{ApiError, INVALID_PARAMETER, INVALID_PARAMETER_CONFLICT};
use serde::{Deserialize, Serialize};
use vswitch_core::config::ids::quoted;

/// Bytes of a record's identifier or kind.
const NAME_BYTES_MAX: usize = 128;

/// An object that has nothing to do with packets. Its attributes are in its [`Metadata`](super::Metadata).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its kind, as in `key-pair`.
    pub kind: String,
    /// When it was made, seconds since 1970.
    pub created_s: u64,
}

impl Model {
    pub(super) fn record_create(
        &self,
        create: &RecordCreate,
        environment: &Environment,
    ) -> Result<Vec<Event>, ApiError> {
        for (field, text) in [("id", &create.id), ("kind", &create.kind)] {
            let is_plain = !text.chars().any(|letter| letter.is_control() || letter == '/');
            if text.is_empty() || text.len() > NAME_BYTES_MAX || !is_plain {
                let message =
                    format!("{} is not a valid name: 1 to {NAME_BYTES_MAX} bytes without a slash", quoted(text));
                return Err(INVALID_PARAMETER.error(message).field(field));
            }
        }
        if self.has_object(&create.id) {
            let message = format!("there is an object {} already: choose another identifier", create.id);
            return Err(INVALID_PARAMETER_CONFLICT.error(message).field("id").object(&create.id));
        }
        let record = Record { kind: create.kind.clone(), created_s: environment.now_s };
        Ok(vec![Event::Record(create.id.clone(), Some(record))])
    }

    pub(super) fn record_delete(&self, delete: &RecordDelete) -> Result<Vec<Event>, ApiError> {
        if !self.records.contains_key(&delete.record) {
            let message = format!("there is no record {}", quoted(&delete.record));
            return Err(INVALID_PARAMETER.error(message).field("record").object(&delete.record));
        }
        Ok(vec![Event::Record(delete.record.clone(), None)])
    }
}
