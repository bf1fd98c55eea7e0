//! Key pairs: public keys that are stored, listed and bound to instances, which find them in their metadata.

use crate::command::{Command, LabelModify, RecordCreate, RecordDelete};
use crate::ecs::dialect::call::{Context, Plan, members};
use crate::ecs::dialect::hex;
use crate::ecs::dialect::paging::page;
use crate::error::{ApiError, ErrorKind, INTERNAL_ERROR};
use crate::model::{Metadata, Model, timestamp};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use rcgen::KeyPair;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(in crate::ecs) const KIND: &str = "key-pair";
/// The attribute with its name, by which clients refer to it.
pub(in crate::ecs) const NAME: &str = "KeyPairName";
const BODY: &str = "PublicKeyBody";
const NAME_MALFORMED: ErrorKind = ErrorKind { code: "InvalidKeyPairName.Malformed", status: 400 };
const BODY_MALFORMED: ErrorKind = ErrorKind { code: "InvalidPublicKeyBody.Malformed", status: 400 };
const EXISTS: ErrorKind = ErrorKind { code: "KeyPair.AlreadyExists", status: 403 };
const NOT_FOUND: ErrorKind = ErrorKind { code: "InvalidKeyPair.NotFound", status: 404 };
const NAMES: ErrorKind = ErrorKind { code: "InvalidKeyPairNames.ValueNotSupported", status: 400 };
/// Characters of a public key, more than the longest key that ssh-keygen makes.
const BODY_CHARACTERS_MAX: usize = 16 << 10;

/// The MD5 of a public key in OpenSSH's format, in hexadecimal digits; `None` if it is not a key.
fn fingerprint(body: &str) -> Option<String> {
    let mut words = body.split_whitespace();
    let (kind, key) = (words.next()?, words.next()?);
    let key = STANDARD.decode(key).ok().filter(|_| body.len() <= BODY_CHARACTERS_MAX)?;
    // The key begins with its type, after the type's length.
    let said = key.get(4..4 + kind.len())?;
    (said == kind.as_bytes()).then(|| hex(&Md5::digest(&key)))
}

/// The identifier of the caller's key pair with a name.
pub(in crate::ecs) fn find(context: &Context<'_>, name: &str) -> Option<String> {
    let mut own = context.scope.records(KIND).filter(|(_, _, noted)| noted.attribute(NAME) == name);
    own.next().map(|(id, ..)| id.to_owned())
}

/// The public key of an account's key pair with a name.
pub(in crate::ecs) fn public_key(model: &Model, owner: &str, name: &str) -> Option<String> {
    let pairs = model.records.iter().filter(|(_, record)| record.kind == KIND).map(|(id, _)| model.label(id));
    let mut named = pairs.filter(|label| label.owner == owner && label.attribute(NAME) == name);
    named.next().map(|label| label.attribute(BODY).to_owned())
}

/// Refuses a name of which the caller has no key pair.
pub(in crate::ecs) fn check_key_pair(context: &Context<'_>) -> Result<(), ApiError> {
    match context.parameters().text(NAME) {
        Some(name) if find(context, name).is_none() => {
            Err(NOT_FOUND.error("see DescribeKeyPairs, or ImportKeyPair.").field(NAME))
        }
        _ => Ok(()),
    }
}

pub(in crate::ecs) fn import(context: &Context<'_>) -> Result<Plan, ApiError> {
    let name = new_name(context)?;
    let body = context.parameters().text(BODY).unwrap_or_default();
    let Some(print) = fingerprint(body) else {
        return Err(BODY_MALFORMED.error("give one line as OpenSSH writes it: ssh-ed25519 AAAA….").field(BODY));
    };
    let (_, commands) = new_record(context, name, body)?;
    let answer = members(json!({"KeyPairName": name, "KeyPairFingerPrint": print}));
    Ok(context.change(commands, Box::new(move |_| answer)))
}

/// Makes a key. Its private part is only in the response.
pub(in crate::ecs) fn create(context: &Context<'_>) -> Result<Plan, ApiError> {
    let name = new_name(context)?;
    let key = KeyPair::generate().map_err(|_| INTERNAL_ERROR.error("no key can be made here."))?;
    let body = openssh(&key);
    let (id, commands) = new_record(context, name, &body)?;
    let answer = members(json!({
        "KeyPairId": id,
        "KeyPairName": name,
        "KeyPairFingerPrint": fingerprint(&body),
        "PrivateKeyBody": key.serialize_pem(),
    }));
    Ok(context.change(commands, Box::new(move |_| answer)))
}

/// The public part of an ECDSA key on P-256 as OpenSSH writes it (RFC 5656, §3.1).
fn openssh(key: &KeyPair) -> String {
    const KIND_OF_KEY: &str = "ecdsa-sha2-nistp256";
    let mut blob = Vec::new();
    for part in [KIND_OF_KEY.as_bytes(), b"nistp256", key.public_key_raw()] {
        blob.extend((part.len() as u32).to_be_bytes());
        blob.extend(part);
    }
    format!("{KIND_OF_KEY} {}", STANDARD.encode(blob))
}

/// The name of a new key pair.
fn new_name<'a>(context: &Context<'a>) -> Result<&'a str, ApiError> {
    let parameters = context.parameters();
    let name = parameters.text(NAME).unwrap_or_default();
    let letters = |letter: char| letter.is_alphanumeric() || "_-:.".contains(letter);
    let is_plain = name.starts_with(char::is_alphabetic) && name.chars().all(letters);
    if !is_plain || !(2..=128).contains(&name.chars().count()) {
        let message = "2 to 128 letters, digits, _, -, : and ., a letter first.";
        return Err(NAME_MALFORMED.error(message).field(NAME));
    }
    if find(context, name).is_some() {
        return Err(EXISTS.error("choose another name, or delete that one.").field(NAME));
    }
    Ok(name)
}

fn new_record(context: &Context<'_>, name: &str, body: &str) -> Result<(String, Vec<Command>), ApiError> {
    let id = context.environment.new_id("kp");
    let create = Command::RecordCreate(RecordCreate { id: id.clone(), kind: KIND.into() });
    let attributes = BTreeMap::from([(NAME.to_owned(), name.to_owned()), (BODY.to_owned(), body.to_owned())]);
    let named = LabelModify { object: id.clone(), attributes, ..LabelModify::default() };
    let commands = [create, Command::LabelModify(named)].into_iter().chain(context.new_label(&id, None)?).collect();
    Ok((id, commands))
}

pub(in crate::ecs) fn describe(context: &Context<'_>) -> Result<Plan, ApiError> {
    let parameters = context.parameters();
    let with_key = parameters.boolean("IncludePublicKey")?.unwrap_or(false);
    let wanted_name = parameters.text(NAME).unwrap_or("*");
    let mut entries = Vec::new();
    for (id, record, noted) in context.scope.records(KIND) {
        let (name, body) = (noted.attribute(NAME), noted.attribute(BODY));
        let print = fingerprint(body).unwrap_or_default();
        let wanted = pattern_fits(wanted_name, name)
            && parameters.text("KeyPairFingerPrint").is_none_or(|wanted| wanted == print)
            && context.has_resource_group(id)
            && context.has_tags(id)?;
        if wanted {
            let value = json!({
                "KeyPairName": name,
                "KeyPairFingerPrint": print,
                "CreationTime": timestamp(record.created_s),
                "ResourceGroupId": context.scope.resource_group_of(id),
                "PublicKey": if with_key { body } else { "" },
                "Tags": {"Tag": context.tags_of(id)},
            });
            entries.push((name.to_owned(), value));
        }
    }
    let page = page(context, entries, false)?;
    let mut answer = page.about;
    answer.insert("KeyPairs".into(), json!({ "KeyPair": page.entries }));
    Ok(Plan::Answer(answer))
}

/// Whether a name fits a pattern with `*` at its beginning, its end, both or neither.
fn pattern_fits(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(rest), Some(_)) => name.contains(rest.strip_suffix('*').unwrap_or(rest)),
        (Some(rest), None) => name.ends_with(rest),
        (None, Some(rest)) => name.starts_with(rest),
        (None, None) => name == pattern,
    }
}

pub(in crate::ecs) fn delete(context: &Context<'_>) -> Result<Plan, ApiError> {
    let names = context.parameters().json_list("KeyPairNames").ok().flatten();
    let Some(names) = names else {
        return Err(NAMES.error("give a JSON list of names.").field("KeyPairNames"));
    };
    // A name that nobody has counts as deleted.
    let present = names.iter().filter_map(|name| find(context, name));
    let delete = |record| Command::RecordDelete(RecordDelete { record });
    Ok(context.quiet_change(present.map(delete).collect()))
}

pub(in crate::ecs) fn attach(context: &Context<'_>) -> Result<Plan, ApiError> {
    bind(context, |name, _| Some(name.to_owned()))
}

pub(in crate::ecs) fn detach(context: &Context<'_>) -> Result<Plan, ApiError> {
    bind(context, |name, noted| (noted.attribute(NAME) == name).then(String::new))
}

/// Binds another key pair to instances; `change` returns which, if any.
fn bind(context: &Context<'_>, change: impl Fn(&str, &Metadata) -> Option<String>) -> Result<Plan, ApiError> {
    check_key_pair(context)?;
    let parameters = context.parameters();
    let name = parameters.text(NAME).unwrap_or_default();
    let ids = parameters.json_list("InstanceIds")?.unwrap_or_default();
    let (mut commands, mut results) = (Vec::new(), Vec::new());
    for id in ids {
        context.scope.instance(&id)?;
        if let Some(value) = change(name, context.scope.label(&id)) {
            let attributes = BTreeMap::from([(NAME.to_owned(), value)]);
            let object = id.clone();
            commands.push(Command::LabelModify(LabelModify { object, attributes, ..LabelModify::default() }));
        }
        results.push(json!({"InstanceId": id, "Success": "true", "Code": "200", "Message": "successful"}));
    }
    let answer: Value = json!({
        "KeyPairName": name,
        "TotalCount": results.len().to_string(),
        "FailCount": "0",
        "Results": {"Result": results},
    });
    Ok(context.change(commands, Box::new(move |_| members(answer))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_of_a_whole_openssh_key() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBxYAqNGoSY8ZSsTu4RhrsWZTsf6rZ3S9oyLhGRkRr5h someone@example";
        assert_eq!(fingerprint(key).unwrap().len(), 32);
        assert_eq!(fingerprint(key), fingerprint(key.strip_suffix(" someone@example").unwrap()));
        for text in ["", "ssh-ed25519", "ssh-rsa AAAAC3NzaC1lZDI1NTE5", "ssh-ed25519 !!!", "ssh-ed25519 AAAA"] {
            assert_eq!(fingerprint(text), None, "{text}");
        }
    }

    #[test]
    fn a_key_that_is_made_is_one() {
        let key = KeyPair::generate().expect("the operating system is random");
        assert!(fingerprint(&openssh(&key)).is_some());
        assert!(key.serialize_pem().starts_with("-----BEGIN PRIVATE KEY-----"));
    }

    #[test]
    fn a_star_stands_for_any_text_at_the_ends_of_a_name() {
        for (pattern, fits) in
            [("*", true), ("ab*", true), ("*cd", true), ("*bc*", true), ("bc*", false), ("ab", false)]
        {
            assert_eq!(pattern_fits(pattern, "abcd"), fits, "{pattern}");
        }
    }
}
