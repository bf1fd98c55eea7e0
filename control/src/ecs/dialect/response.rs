//! Responses as text: one tree, written as JSON or as XML.
//!
//! In XML a member is an element of its name, and a list repeats the element.

use crate::error::ApiError;
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};
use serde_json::{Map, Value, json};

/// The format of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// As JSON.
    Json,
    /// As XML, the default.
    #[default]
    Xml,
}

impl Format {
    /// What the parameter `Format` asks for.
    pub fn named(text: Option<&str>) -> Self {
        match text {
            Some(text) if text.eq_ignore_ascii_case("json") => Self::Json,
            _ => Self::Xml,
        }
    }

    /// The content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json;charset=utf-8",
            Self::Xml => "text/xml;charset=utf-8",
        }
    }

    /// A tree as text.
    pub fn write(self, root: &str, tree: &Value) -> String {
        match self {
            Self::Json => tree.to_string(),
            Self::Xml => xml(root, tree),
        }
    }
}

/// The response to a call that succeeded.
pub fn success(format: Format, action: &str, mut answer: Map<String, Value>, request_id: &str) -> String {
    answer.insert("RequestId".into(), request_id.into());
    format.write(&format!("{action}Response"), &Value::Object(answer))
}

/// The response to a call that was refused.
pub fn failure(format: Format, error: &ApiError, request_id: &str, host: &str) -> String {
    let tree = json!({
        "RequestId": request_id,
        "HostId": host,
        "Code": error.code,
        "Message": error.message,
        "Recommend": format!("https://api.aliyun.com/troubleshoot?q={}&requestId={request_id}", error.code),
    });
    format.write("Error", &tree)
}

fn xml(root: &str, tree: &Value) -> String {
    let mut writer = Writer::new(Vec::new());
    // Writing to memory does not fail, and all names are our own.
    let _ = writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)));
    element(&mut writer, root, tree);
    String::from_utf8(writer.into_inner()).unwrap_or_default()
}

fn element(writer: &mut Writer<Vec<u8>>, name: &str, value: &Value) {
    if let Value::Array(entries) = value {
        for entry in entries {
            element(writer, name, entry);
        }
        return;
    }
    let _ = writer.write_event(Event::Start(BytesStart::new(name)));
    match value {
        Value::Object(members) => {
            for (member, value) in members {
                element(writer, member, value);
            }
        }
        Value::String(text) => {
            let _ = writer.write_event(Event::Text(BytesText::new(&printable(text))));
        }
        Value::Null | Value::Array(_) => {}
        Value::Bool(_) | Value::Number(_) => {
            let _ = writer.write_event(Event::Text(BytesText::new(&value.to_string())));
        }
    }
    let _ = writer.write_event(Event::End(BytesEnd::new(name)));
}

/// A text without the characters that XML does not allow.
fn printable(text: &str) -> String {
    let held = |letter: char| match letter {
        '\t' | '\n' | '\r' => true,
        letter => letter >= ' ' && !('\u{fffe}'..='\u{ffff}').contains(&letter),
    };
    text.chars().map(|letter| if held(letter) { letter } else { '\u{fffd}' }).collect()
}

/// Adds missing members with the empty value of their type, since the cloud omits none. A member that is null is
/// omitted deliberately.
pub fn complete(answer: &mut Value, tree: &Value) {
    match (answer, tree) {
        (Value::Object(members), Value::Object(types)) => {
            for (name, kind) in types {
                let value = members.entry(name.clone()).or_insert_with(|| nothing(kind));
                complete(value, kind);
            }
            members.retain(|_, value| !value.is_null());
        }
        (Value::Array(entries), Value::Array(types)) => {
            for entry in entries {
                if let Some(kind) = types.first() {
                    complete(entry, kind);
                }
            }
        }
        _ => {}
    }
}

fn nothing(kind: &Value) -> Value {
    match kind {
        Value::Object(_) => json!({}),
        Value::Array(_) => json!([]),
        Value::String(name) => match name.as_str() {
            "Integer" | "Long" => json!(0),
            "Double" | "Float" => json!(0.0),
            "Boolean" => json!(false),
            _ => json!(""),
        },
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tree_is_written_both_ways() {
        let tree = json!({"A": {"B": [{"C": "<&>\"'"}, {"C": ""}]}, "N": 1, "T": true, "X": "a\u{1}b"});
        let xml = Format::Xml.write("R", &tree);
        let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><R><A><B><C>&lt;&amp;&gt;&quot;&apos;</C></B><B><C>\
                        </C></B></A><N>1</N><T>true</T><X>a\u{fffd}b</X></R>";
        assert_eq!(xml, expected);
        assert_eq!(serde_json::from_str::<Value>(&Format::Json.write("R", &tree)).unwrap(), tree);
    }

    #[test]
    fn what_is_missing_is_filled_in() {
        let types = json!({"A": "String", "B": "Integer", "C": {"D": [{"E": "Boolean"}]}, "F": "String"});
        let mut answer = json!({"C": {"D": [{}]}, "F": null});
        complete(&mut answer, &types);
        assert_eq!(answer, json!({"A": "", "B": 0, "C": {"D": [{"E": false}]}}));
    }
}
