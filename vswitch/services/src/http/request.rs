//! The head of a request.

use super::Response;
use httparse::{EMPTY_HEADER, Status};

/// Bytes of a request's head.
pub const HEAD_BYTES_MAX: usize = 4096;
/// Fields of a request's head.
const FIELDS_MAX: usize = 32;

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct HttpRequest<'a> {
    /// The method, as in `GET`.
    pub method: &'a str,
    /// The path, without a query.
    pub path: &'a str,
    /// Whether the client keeps the connection for another request.
    pub keeps_alive: bool,
    fields: &'a [httparse::Header<'a>],
}

/// What became of a client's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParsedRequest {
    /// The head is not complete.
    Incomplete,
    /// There is a reply.
    Answered {
        /// Bytes of the request.
        consumed: usize,
        /// The reply.
        response: Response,
        /// Whether the connection stays open for another request.
        keeps_alive: bool,
        /// Whether the reply has no body, since only its head was asked for.
        is_head: bool,
    },
}

impl<'a> HttpRequest<'a> {
    /// The value of a field, if it has one that is text. The name's case does not matter.
    pub fn field(&self, name: &str) -> Option<&'a str> {
        let field = self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(field.value).ok().map(str::trim)
    }

    /// Whether there is a field of this name.
    pub fn has_field(&self, name: &str) -> bool {
        self.fields.iter().any(|field| field.name.eq_ignore_ascii_case(name))
    }

    /// Whether a body follows the head.
    fn has_body(&self) -> bool {
        self.has_field("Transfer-Encoding") || self.field("Content-Length").is_some_and(|length| length != "0")
    }
}

/// Reads a request from the first bytes of `input` and has `answer` reply to it. What is no request is refused, and ends the
/// connection.
pub fn parse(input: &[u8], answer: impl FnOnce(&HttpRequest<'_>) -> Response) -> ParsedRequest {
    let mut fields = [EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    let refused = |status| ParsedRequest::Answered {
        consumed: input.len(),
        response: Response::of_status(status),
        keeps_alive: false,
        is_head: false,
    };
    let head = &input[..input.len().min(HEAD_BYTES_MAX)];
    let consumed = match parsed.parse(head) {
        Ok(Status::Complete(consumed)) => consumed,
        Ok(Status::Partial) if input.len() < HEAD_BYTES_MAX => return ParsedRequest::Incomplete,
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => return refused(431),
        Err(_) => return refused(400),
    };
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return refused(400);
    };
    // A target with a host is how proxies are asked (RFC 9112 §3.2.2), and this is none.
    if !target.starts_with('/') {
        return refused(400);
    }
    let path = target.split(['?', '#']).next().unwrap_or(target);
    let mut request = HttpRequest { method, path, keeps_alive: minor == 1, fields: parsed.headers };
    if let Some(connection) = request.field("Connection") {
        let has = |word: &str| connection.split(',').any(|part| part.trim().eq_ignore_ascii_case(word));
        request.keeps_alive = (request.keeps_alive || has("keep-alive")) && !has("close");
    }
    // Nothing that is served needs one, and its end would have to be found.
    if request.has_body() {
        return refused(413);
    }
    let (keeps_alive, is_head) = (request.keeps_alive, method == "HEAD");
    ParsedRequest::Answered { consumed, response: answer(&request), keeps_alive, is_head }
}
