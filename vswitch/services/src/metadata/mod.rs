//! The metadata service: what a guest can read about itself, as the cloud's clients expect it.
//!
//! A reply depends on who asks, which the forwarding plane says, and on nothing in the request but its path and its token.

mod document;
pub mod token;
mod tree;

use crate::directory::{Asker, GuestDirectory};
use crate::http::{HttpRequest, ParsedRequest, Response, parse};
use crate::tcp::Reaction;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use token::{TTL_S_MAX, TokenKey};
use tree::Node;
use vswitch_core::config::services::record::GuestRecord;

/// The field with a token.
const TOKEN: &str = "X-aliyun-ecs-metadata-token";
/// The field that says how long a new token is to live.
const TOKEN_TTL: &str = "X-aliyun-ecs-metadata-token-ttl-seconds";
/// Where tokens are made.
const TOKEN_PATH: &str = "/latest/api/token";
/// The versions, all of which are the same.
const VERSIONS: [&str; 3] = ["2014-05-26", "2016-01-01", "latest"];

/// The reaction to the bytes that a client has sent, at a time in seconds since 1970.
pub fn react(directory: &GuestDirectory, asker: &Asker, input: &[u8], now_s: u64) -> Reaction {
    match parse(input, |request| respond(directory, asker, request, now_s)) {
        ParsedRequest::Incomplete => Reaction::Wait,
        ParsedRequest::Answered { consumed, response, keeps_alive, is_head } => Reaction::Reply {
            consumed,
            bytes: response.to_bytes(keeps_alive, is_head),
            closes: !keeps_alive,
            hop_limit: response.hop_limit,
        },
    }
}

/// The reply to a request.
pub fn respond(directory: &GuestDirectory, asker: &Asker, request: &HttpRequest<'_>, now_s: u64) -> Response {
    // Until the control plane has told about an ENI, nothing about it is known to be true.
    let (Some(record), Some(key)) = (directory.record(asker), directory.token_key()) else {
        return Response { fields: vec![("Retry-After", "1".into())], ..Response::of_status(503) };
    };
    let instance = record.instance.as_ref();
    if instance.is_some_and(|instance| !instance.has_metadata) {
        return Response::of_status(403);
    }
    // A proxy adds this field. Whoever made it ask is not its guest (server-side request forgery).
    if request.has_field("X-Forwarded-For") {
        return Response::of_status(403);
    }
    match request.method {
        "PUT" if request.path == TOKEN_PATH => make_token(key, asker, record, request, now_s),
        "GET" | "HEAD" if request.path == TOKEN_PATH => refuse_method("PUT"),
        "GET" | "HEAD" => {
            let is_good = request.field(TOKEN).map(|token| key.is_good(token, asker, now_s));
            match is_good {
                Some(false) => Response::of_status(401),
                None if instance.is_some_and(|instance| instance.needs_token) => Response::of_status(401),
                Some(true) | None => read(directory, asker, record, request.path),
            }
        }
        _ => refuse_method("GET, HEAD"),
    }
}

fn refuse_method(allowed: &str) -> Response {
    Response { fields: vec![("Allow", allowed.into())], ..Response::of_status(405) }
}

fn make_token(key: &TokenKey, asker: &Asker, record: &GuestRecord, request: &HttpRequest<'_>, now_s: u64) -> Response {
    let ttl_s = request.field(TOKEN_TTL).and_then(|text| text.parse::<u64>().ok());
    let Some(ttl_s) = ttl_s.filter(|ttl_s| (1..=TTL_S_MAX).contains(ttl_s)) else { return Response::of_status(400) };
    let hop_limit = record.instance.as_ref().and_then(|instance| instance.put_response_hop_limit);
    Response {
        fields: vec![(TOKEN_TTL, ttl_s.to_string())],
        hop_limit: hop_limit.filter(|hops| *hops > 0),
        ..Response::text(key.make(asker, now_s + ttl_s))
    }
}

fn read(directory: &GuestDirectory, asker: &Asker, record: &GuestRecord, path: &str) -> Response {
    let mut names = path.split('/').filter(|name| !name.is_empty());
    let Some(version) = names.next() else { return Response::text(VERSIONS.join("\n")) };
    if !VERSIONS.contains(&version) {
        return Response::of_status(404);
    }
    let of_instance = record.instance.as_ref().map(|instance| instance.user_data.as_str());
    let user_data = [of_instance, Some(record.user_data.as_str())];
    let user_data = user_data.into_iter().flatten().find(|data| !data.is_empty());
    let node = match names.next() {
        None => {
            let user_data = user_data.map(|_| "\nuser-data").unwrap_or_default();
            return Response::text(format!("dynamic/\nmeta-data/{user_data}"));
        }
        Some("user-data") if names.next().is_none() => {
            // The API takes it in Base64. What is none was given by other means, and is passed on as it is.
            return user_data.map_or(Response::of_status(404), |text| {
                Response::bytes(STANDARD.decode(text).unwrap_or_else(|_| text.into()))
            });
        }
        Some("meta-data") => tree::meta_data(directory, asker, record),
        Some("dynamic") => document::dynamic(asker, record),
        Some(_) => return Response::of_status(404),
    };
    match names.try_fold(node, |node, name| node.child(name)) {
        Some(Node::Leaf(text)) => Response::text(text),
        Some(Node::Folder(children)) => Response::text(tree::listing(&children)),
        None => Response::of_status(404),
    }
}
