//! Reads one request, admits it, passes it on, and writes the response.

use super::admission::Ticket;
use super::host::region_of_host;
use super::{CallResponse, Dispatcher, unsigned};
use crate::ecs::{Call, Format, Parameters, RequestEnvelope, failure, find_action, read_pairs, success};
use crate::environment::Environment;
use crate::error::{
    ApiError, INTERNAL_ERROR, INVALID_ACTION_NOT_FOUND, INVALID_PARAMETER, REQUEST_TOO_LARGE, SERVICE_UNAVAILABLE,
};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Version};
use std::collections::BTreeMap;
use std::time::Duration;

/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Bytes of the pieces in which a body is kept until it is complete. They all have the same size, so that freed ones
/// can be reused and little memory is wasted.
const BODY_PIECE_BYTES: usize = 16 << 10;
/// How long a client may take for a request's body.
const BODY_TIME: Duration = Duration::from_secs(20);
/// How long the server may take. It waits much less than this for the forwarding plane.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// Characters of the host name that a response repeats.
const HOST_CHARACTERS_MAX: usize = 255;

/// Parameters about the request itself, which actions ignore.
const COMMON: [&str; 14] = [
    "AccessKeyId",
    "Action",
    "Format",
    "OwnerAccount",
    "OwnerId",
    "ResourceOwnerAccount",
    "ResourceOwnerId",
    "SecurityToken",
    "Signature",
    "SignatureMethod",
    "SignatureNonce",
    "SignatureType",
    "SignatureVersion",
    "Timestamp",
];

/// The format of the response that a request asks for.
struct ResponseFormat {
    format: Format,
    host: String,
    request_id: String,
}

/// Answers a request.
pub(super) async fn serve(
    request: Request<Incoming>,
    is_tls: bool,
    dispatcher: &Dispatcher,
    ticket: &Ticket,
) -> Response<Full<Bytes>> {
    let mut format = ResponseFormat {
        // The cloud's format for requests that name none.
        format: Format::Xml,
        host: dispatcher.host(),
        request_id: Environment::real().new_request_id(),
    };
    let (answer, pending) = match answer((request, is_tls), (dispatcher, ticket), &mut format).await {
        Ok((action, CallResponse { answer, pending })) => (answer.map(|answer| (action, answer)), pending),
        Err(error) => (Err(error), None),
    };
    let mut response = match answer {
        Ok((action, answer)) => {
            respond(StatusCode::OK, &format, success(format.format, action, answer, &format.request_id))
        }
        Err(error) => {
            let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            respond(status, &format, failure(format.format, &error, &format.request_id, &format.host))
        }
    };
    if let Some(reason) = pending {
        response.headers_mut().insert("x-sluice-forwarding", HeaderValue::from_static("pending"));
        // A reason with line breaks cannot be a header; the other header still says that there is one.
        if let Ok(reason) = HeaderValue::from_str(&reason) {
            response.headers_mut().insert("x-sluice-forwarding-reason", reason);
        }
    }
    response
}

impl Dispatcher {
    /// The parameters for the action. A missing region is that of the request's host, or the only one.
    fn own_parameters(&self, pairs: &[(String, String)], host: Option<&str>) -> Result<Parameters, ApiError> {
        let is_own = |(name, _): &&(String, String)| !COMMON.contains(&name.as_str()) && name != "Version";
        let mut own: Vec<_> = pairs.iter().filter(is_own).cloned().collect();
        // SDKs send the parameter empty if none is configured.
        if !own.iter().any(|(name, region)| name == "RegionId" && !region.is_empty()) {
            // Among several regions none is presumed: the change would be made where nobody looks for it.
            let only = if let [only] = &self.regions[..] { Some(only.clone()) } else { None };
            if let Some(region) = host.and_then(region_of_host).or(only) {
                own.retain(|(name, _)| name != "RegionId");
                own.push(("RegionId".into(), region));
            }
        }
        Parameters::new(own)
    }
}

fn respond(status: StatusCode, format: &ResponseFormat, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.format.content_type()));
    if let Ok(id) = HeaderValue::from_str(&format.request_id) {
        response.headers_mut().insert("x-acs-request-id", id);
    }
    response
}

async fn answer(
    (request, is_tls): (Request<Incoming>, bool),
    (dispatcher, ticket): (&Dispatcher, &Ticket),
    format: &mut ResponseFormat,
) -> Result<(&'static str, CallResponse), ApiError> {
    let (head, body) = request.into_parts();
    let headers = read_headers(&head.headers);
    if let Some(host) = headers.get("host").filter(|host| host.len() <= HOST_CHARACTERS_MAX) {
        format.host.clone_from(host);
    }
    // The format is settled before anything can fail, because refusals have it too.
    if headers.get("authorization").is_some_and(|value| value.starts_with("ACS3-")) {
        format.format = Format::Json;
    }
    let query = read_pairs(head.uri.query().unwrap_or_default())?;
    let named = |name: &str| query.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
    if format.format == Format::Xml {
        format.format = Format::named(named("Format"));
    }
    // The head is refused before the body is read, so that nobody has to send it in vain.
    check_head(&head)?;
    let body = read_body(body).await?;
    // Only now is the connection safe from giving way: a client that sends slowly must not hold its place that way.
    if !ticket.begin() {
        return Err(SERVICE_UNAVAILABLE.error("The service is unavailable, please try again later."));
    }
    let mut pairs = query.clone();
    let is_form = headers.get("content-type").is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
    if is_form {
        let text = std::str::from_utf8(&body).map_err(|_| INVALID_PARAMETER.error("the form is not UTF-8 text"))?;
        pairs.extend(read_pairs(text)?);
    }
    let parameters = Parameters::new(pairs.iter().cloned())?;
    let envelope = RequestEnvelope {
        method: head.method.as_str(),
        query: &query,
        pairs: &pairs,
        parameters: &parameters,
        headers: &headers,
        body: &body,
    };
    let is_v3 = envelope.is_v3();
    if !is_v3 {
        format.format = Format::named(parameters.text("Format"));
    }
    // The newer signature version uses headers for what the older one has in parameters; an unsigned request may use
    // either.
    let said = |header: &str, parameter: &str| match is_v3 {
        true => envelope.header(header).map(str::to_owned),
        false => parameters.owned(parameter).or_else(|| envelope.header(header).map(str::to_owned)),
    };
    let (version, name) = (said("x-acs-version", "Version"), said("x-acs-action", "Action"));
    let action = find_action(version.as_deref(), name.as_deref())?;
    if dispatcher.authenticator.is_unsigned(&envelope) {
        unsigned::check(&envelope, action.is_question(), is_tls)?;
    }
    let account = dispatcher.authenticator.admit(&envelope, Environment::real().now_s)?;
    // Without a signature anybody could move a connection out of the share of its address.
    if envelope.is_signed() {
        ticket.authenticate(&account);
    }
    let call = Call::new(action, account, dispatcher.own_parameters(&pairs, envelope.header("host"))?);
    let Some(answer) = dispatcher.hand_over(call) else {
        return Err(SERVICE_UNAVAILABLE.error("The service is unavailable, please try again later."));
    };
    match tokio::time::timeout(ANSWER_TIME, answer).await {
        Ok(Ok(made)) => Ok((action.name, made)),
        _ => Err(INTERNAL_ERROR.error("The request processing has failed due to some unknown error.")),
    }
}

/// Refuses a request for an unknown path or without a host.
fn check_head(head: &Parts) -> Result<(), ApiError> {
    // RFC 9112, 3.2. Earlier versions have no such header.
    if head.version == Version::HTTP_11 && head.headers.get_all(HOST).iter().count() != 1 {
        return Err(INVALID_PARAMETER.error("a request of HTTP/1.1 has one header Host").field("Host"));
    }
    match ["/", ""].contains(&head.uri.path()) && [Method::GET, Method::POST].contains(&head.method) {
        true => Ok(()),
        false => Err(INVALID_ACTION_NOT_FOUND.error("Specified api is not found, please check your url and method.")),
    }
}

/// Reads a request's body. It is copied, because many small pieces would take many times their length.
async fn read_body(mut body: Incoming) -> Result<Vec<u8>, ApiError> {
    let too_large =
        || REQUEST_TOO_LARGE.error(format!("a request's body is whole and has at most {BODY_BYTES_MAX} bytes"));
    // The announced length is refused before any of it is read.
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let read = async {
        let (mut pieces, mut length): (Vec<Vec<u8>>, usize) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            // Trailers carry nothing that a request means.
            let Ok(bytes) = frame.map_err(|_| too_large())?.into_data() else { continue };
            length += bytes.len();
            if length > BODY_BYTES_MAX {
                return Err(too_large());
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                if pieces.last().is_none_or(|piece| piece.len() == BODY_PIECE_BYTES) {
                    pieces.push(Vec::with_capacity(BODY_PIECE_BYTES));
                }
                let Some(piece) = pieces.last_mut() else { break };
                let (fits, more) = rest.split_at(rest.len().min(BODY_PIECE_BYTES - piece.len()));
                piece.extend_from_slice(fits);
                rest = more;
            }
        }
        Ok(pieces.concat())
    };
    match tokio::time::timeout(BODY_TIME, read).await {
        Ok(read) => read,
        Err(_) => Err(INVALID_PARAMETER.error("the request's body did not come in time")),
    }
}

/// Headers by lower-case name. Repeated ones are joined; values that are not text are left out.
fn read_headers(headers: &hyper::HeaderMap) -> BTreeMap<String, String> {
    let mut table: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let Ok(value) = std::str::from_utf8(value.as_bytes()) else { continue };
        table
            .entry(name.as_str().to_owned())
            .and_modify(|present| {
                present.push(',');
                present.push_str(value);
            })
            .or_insert_with(|| value.to_owned());
    }
    table
}
