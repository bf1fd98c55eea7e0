//! Messages on the control socket, one JSON object per line: `{"version":1,"request":7,"op":"vpc-list"}` and its reply.
//! The sender chooses the number `request`. It is not called `id`, because many commands use that for the object they
//! create.

use crate::command::Command;
use crate::error::{ApiError, INVALID_ACTION_NOT_FOUND, INVALID_PARAMETER, MISSING_PARAMETER, ReportedError};
use crate::socket::query::{Answer, Query};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::fmt;
use vswitch_core::config::ids::quoted;
use vswitch_core::config::protocol::Applied;
use vswitch_core::config::refusal::Refusal;

/// The version of this protocol.
pub const VERSION: u64 = 1;
/// Bytes of one request, newline included.
pub const REQUEST_BYTES_MAX: usize = 16 << 20;

/// A parsed request.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// A change.
    Change(Box<Command>),
    /// A query.
    Ask(Query),
}

/// A reply on the control socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// [`VERSION`] of the sender.
    pub version: u64,
    /// The request's number; 0 where the request could not be read.
    pub request: u64,
    /// The answer.
    #[serde(flatten)]
    pub body: ReplyBody,
}

/// What the control plane answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum ReplyBody {
    /// A change was made and is durable.
    Changed(Changed),
    /// The answer to a query.
    Answered {
        /// The answer, under its name.
        answer: Answer,
    },
    /// The request was refused, and nothing changed.
    Refused {
        /// The reason.
        error: ReportedError,
    },
}

/// A change that was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// What changed, in order; empty if the state was already as requested.
    pub objects: Vec<ChangedObject>,
    /// What cannot work after the change, each with what to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The effect on the forwarding plane.
    pub forwarding: Forwarding,
}

/// One object of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedObject {
    /// Its noun: `settings`, `vpc`, `vswitch`, `group`, `rule`, `eni`, `prefix-list` or `port-list`.
    pub kind: String,
    /// Its identifier; empty for the settings.
    pub id: String,
    /// The group of a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// What happened to it.
    pub change: ChangeKind,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// It is new.
    Created,
    /// It is different.
    Modified,
    /// It is gone.
    Deleted,
}

/// The effect of a change on the forwarding plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Forwarding {
    /// Every worker runs it: from now on, no packet is evaluated by the old rules.
    Applied(Applied),
    /// It affects no packet, such as a name, or changes nothing; and everything changed earlier is in force.
    Unchanged,
    /// It, or something changed earlier, is stored and not in force yet. It will be as soon as the forwarding plane is
    /// back.
    Pending {
        /// The reason.
        reason: String,
    },
}

/// Parses a request. Its number is returned even if the rest is invalid, as far as it could be read.
///
/// # Errors
/// The refusal, with the field at fault if there is one.
pub fn read_request(line: &[u8]) -> (u64, Result<Operation, ApiError>) {
    let mut fields: Map<String, Value> = match serde_json::from_slice(line) {
        Ok(fields) => fields,
        Err(error) => {
            let message = format!("the request is not a JSON object: {error}");
            return (0, Err(INVALID_PARAMETER.error(message)));
        }
    };
    let request = fields.remove("request").as_ref().and_then(Value::as_u64);
    (request.unwrap_or(0), read_fields(request, fields))
}

fn read_fields(request: Option<u64>, mut fields: Map<String, Value>) -> Result<Operation, ApiError> {
    match fields.remove("version") {
        Some(version) if version.as_u64() == Some(VERSION) => {}
        Some(version) => {
            let message = format!("this is version {VERSION} of the protocol, the request has {version}");
            return Err(INVALID_PARAMETER.error(message).field("version"));
        }
        // The version is checked before anything else, so that a foreign protocol gets a useful refusal.
        None => return Err(MISSING_PARAMETER.error(format!("say \"version\":{VERSION}")).field("version")),
    }
    if request.is_none() {
        let message = "give the request a number in the field request, which the reply repeats";
        return Err(MISSING_PARAMETER.error(message).field("request"));
    }
    let Some(op) = fields.get("op").and_then(Value::as_str) else {
        return Err(MISSING_PARAMETER
            .error("name the operation in the field op, as in \"op\":\"vpc-list\"")
            .field("op"));
    };
    let (op, fields) = (op.to_owned(), Value::Object(fields));
    let read = match Query::is_op(&op) {
        true => from_value(fields).map(Operation::Ask),
        false => from_value(fields).map(Box::new).map(Operation::Change),
    };
    read.map_err(|reason| match reason.starts_with("unknown variant") && reason.contains(&format!("`{op}`")) {
        true => INVALID_ACTION_NOT_FOUND.error(format!("there is no operation {}", quoted(&op))).field("op"),
        false => {
            let field = field_of(&reason);
            let error = INVALID_PARAMETER.error(format!("{op}: {reason}"));
            field.map_or(error.clone(), |field| error.field(field))
        }
    })
}

fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// The field that serde's message names in its first back quotes, as in "missing field `cidr`".
fn field_of(reason: &str) -> Option<String> {
    let named = ["missing field `", "unknown field `"].iter().find_map(|start| reason.split_once(start))?.1;
    named.split_once('`').map(|(field, _)| field.to_owned())
}

impl Reply {
    /// A reply to a request.
    pub fn new(request: u64, body: ReplyBody) -> Self {
        Self { version: VERSION, request, body }
    }

    /// A refusal of a request.
    pub fn refused(request: u64, error: ApiError) -> Self {
        Self::new(request, ReplyBody::Refused { error: error.into() })
    }

    /// The reply as a line.
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("replies are always expressible as JSON");
        line.push(b'\n');
        line
    }
}

/// Refusals of the forwarding plane as one sentence, with objects named as the user knows them.
pub fn refusals_text(refusals: &[Refusal]) -> String {
    const TOLD_MAX: usize = 10;
    let told: Vec<String> = refusals.iter().take(TOLD_MAX).map(refusal_text).collect();
    match refusals.len().saturating_sub(TOLD_MAX) {
        0 => told.join("; "),
        more => format!("{}; and {more} more", told.join("; ")),
    }
}

/// One refusal of the forwarding plane, with the object at fault unless the message already names it.
pub fn refusal_text(refusal: &Refusal) -> String {
    match FieldPlace::of(&refusal.object) {
        Some(place) if !place.is_named_in(&refusal.message) => format!("{place}: {}", refusal.message),
        _ => refusal.message.clone(),
    }
}

/// The identifier of the object that refusals of the forwarding plane are about, if the model has it.
pub fn refused_object(refusals: &[Refusal]) -> Option<String> {
    let place = FieldPlace::of(&refusals.first()?.object)?;
    Some(place.id.to_owned()).filter(|_| place.noun.is_empty())
}

/// What a field in the forwarding plane's state means to a user.
struct FieldPlace<'a> {
    /// Precedes the identifier where the identifier alone is not clear.
    noun: &'static str,
    id: &'a str,
    /// The object that it is a part of, if it is one.
    of: Option<&'a str>,
}

impl<'a> FieldPlace<'a> {
    /// `None` for a field of a request, whose message says what it is about.
    fn of(path: &'a str) -> Option<Self> {
        let (table, rest) = path.split_once('/')?;
        let (id, part) = rest.split_once('/').unwrap_or((rest, ""));
        let part_of = |noun, part| Some(Self { noun, id: part, of: Some(id) });
        match (table, part.split_once('/').unwrap_or((part, ""))) {
            ("settings", _) => Some(Self { noun: "the setting ", id, of: None }),
            ("workers", _) => Some(Self { noun: "worker ", id, of: None }),
            ("vpcs", ("routes", destination)) if !destination.is_empty() => part_of("the route ", destination),
            ("groups", ("rules", rule)) if !rule.is_empty() => part_of("", rule),
            ("rules", (rule, "")) if !rule.is_empty() => part_of("", rule),
            ("vpcs" | "vswitches" | "groups" | "rules" | "prefix_lists" | "port_lists" | "enis", _) => {
                Some(Self { noun: "", id, of: None })
            }
            _ => None,
        }
    }

    fn is_named_in(&self, message: &str) -> bool {
        let name = format!("{}{}", self.noun, self.id);
        let is_part = |letter: char| letter.is_alphanumeric() || letter == '-';
        // A name inside a longer one is another name, such as `sg-1` in `sg-12`.
        message.match_indices(&name).any(|(start, _)| {
            !message[..start].ends_with(is_part) && !message[start + name.len()..].starts_with(is_part)
        })
    }
}

impl fmt::Display for FieldPlace<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { noun, id, of } = self;
        write!(formatter, "{noun}{id}")?;
        of.map_or(Ok(()), |of| write!(formatter, " of {of}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> (u64, ApiError) {
        let (id, operation) = read_request(line.as_bytes());
        (id, operation.unwrap_err())
    }

    #[test]
    fn requests_are_read() {
        let (id, operation) = read_request(br#"{"version":1,"request":7,"op":"vpc-create","cidr":"10.0.0.0/16"}"#);
        assert_eq!(id, 7);
        let Ok(Operation::Change(command)) = operation else { panic!("{operation:?}") };
        assert!(matches!(*command, Command::VpcCreate(create) if create.cidr == "10.0.0.0/16"));
        let (_, operation) = read_request(br#"{"version":1,"request":8,"op":"vpc-list"}"#);
        assert!(matches!(operation, Ok(Operation::Ask(Query::VpcList(_)))));
        let (_, operation) =
            read_request(br#"{"version":1,"request":8,"op":"batch","commands":[{"op":"vpc-delete","vpc":"vpc-1"}]}"#);
        let Ok(Operation::Change(command)) = operation else { panic!("{operation:?}") };
        assert!(matches!(*command, Command::Batch(batch) if batch.commands.len() == 1));
    }

    #[test]
    fn refusals_name_the_field() {
        for (line, id, field) in [
            ("[]", 0, None),
            ("{", 0, None),
            (r#"{"request":3,"op":"vpc-list"}"#, 3, Some("version")),
            (r#"{"version":2,"request":3,"op":"vpc-list"}"#, 3, Some("version")),
            (r#"{"version":1,"op":"vpc-list"}"#, 0, Some("request")),
            (r#"{"version":1,"request":3}"#, 3, Some("op")),
            (r#"{"version":1,"request":3,"op":"fly"}"#, 3, Some("op")),
            (r#"{"version":1,"request":3,"op":"vpc-create"}"#, 3, Some("cidr")),
            (r#"{"version":1,"request":3,"op":"vpc-create","cidr":"10.0.0.0/8","colour":1}"#, 3, Some("colour")),
            (r#"{"version":1,"request":3,"op":"vpc-list","colour":1}"#, 3, Some("colour")),
        ] {
            let (told, error) = refused(line);
            assert_eq!((told, error.field.as_deref()), (id, field), "{line}: {error}");
        }
    }

    #[test]
    fn refusals_of_the_forwarding_plane_name_objects_as_users_do() {
        for (object, message, text) in [
            ("selection/eni", "there is no ENI eni-1", "there is no ENI eni-1"),
            ("enis/eni-1", "there is no ENI eni-1", "there is no ENI eni-1"),
            ("enis/eni-1/groups", "there is no group sg-9", "eni-1: there is no group sg-9"),
            ("enis/eni-1/addresses", "10.0.0.1 belongs to eni-10", "eni-1: 10.0.0.1 belongs to eni-10"),
            ("enis", "a switch holds at most 8 ENIs", "a switch holds at most 8 ENIs"),
            ("groups/sg-1/rules", "a group has at most 9 rules", "sg-1: a group has at most 9 rules"),
            ("groups/sg-1/rules/sgr-1", "it mixes IPv4 and IPv6", "sgr-1 of sg-1: it mixes IPv4 and IPv6"),
            ("rules/sg-1/sgr-1", "the rule has another name", "sgr-1 of sg-1: the rule has another name"),
            ("vpcs/vpc-1/routes/0.0.0.0/0", "no ENI", "the route 0.0.0.0/0 of vpc-1: no ENI"),
            ("settings/icmp_timeout_s", "1 s at least", "the setting icmp_timeout_s: 1 s at least"),
            ("workers/1", "the worker did not answer in time", "worker 1: the worker did not answer in time"),
            ("", "the message names no version", "the message names no version"),
        ] {
            assert_eq!(refusals_text(&[Refusal::new("invalid", object, message)]), text);
        }
        let object = |object| refused_object(&[Refusal::new("invalid", object, "")]);
        assert_eq!(object("enis/eni-1/mac").as_deref(), Some("eni-1"));
        assert_eq!(object("packet/to"), None);
    }
}
