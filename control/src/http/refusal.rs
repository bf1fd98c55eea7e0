//! The responses to clients that are refused before there is a request: for lack of room, or because the bytes are
//! malformed.
//!
//! The HTTP library responds to the latter by itself, with a status and nothing else, which a client of this dialect
//! cannot parse. That response is recognized when it is written, withheld, and replaced by one with a body.

use crate::ecs::{Format, failure};
use crate::environment::Environment;
use crate::error::{ErrorKind, INVALID_PARAMETER, REQUEST_TOO_LARGE};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The response to a client for which there is no room.
pub(super) const NO_ROOM: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json;charset=utf-8\r\n\
    Content-Length: 110\r\nRetry-After: 1\r\nConnection: close\r\n\r\n\
    {\"Code\":\"ServiceUnavailable\",\"Message\":\"Too many connections or unfinished requests: please try again later.\"}";
/// How long to read from a refused client, so that it gets the response before the connection ends.
const LINGER_TIME: Duration = Duration::from_secs(1);
/// Bytes of the longest response that the library generates: a status, `Connection`, `Content-Length` and `Date`.
const AUTOMATIC_BYTES_MAX: usize = 256;

/// A response of the library's own at the end of what is written: where it begins, and its status. Responses to calls
/// always have a body.
pub(super) fn automatic(written: &[u8]) -> Option<(usize, u16)> {
    if !written.ends_with(b"\r\n\r\n") {
        return None;
    }
    let place = written.len().saturating_sub(AUTOMATIC_BYTES_MAX);
    let tail = written.get(place..)?;
    // Only the last response in the bytes can be the library's own: it closes the connection after it.
    let start = tail.windows(7).rposition(|bytes| bytes == b"HTTP/1.")?;
    let head = std::str::from_utf8(tail.get(start..)?).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok().filter(|status| (400..500).contains(status))?;
    let is_empty = head.lines().any(|line| line.eq_ignore_ascii_case("content-length: 0"));
    is_empty.then_some((place + start, status))
}

/// The response with a body that replaces an automatic one.
pub(super) fn malformed(status: u16, host: &str) -> Vec<u8> {
    let (kind, reason, message): (ErrorKind, _, _) = match status {
        431 => (
            REQUEST_TOO_LARGE,
            "Request Header Fields Too Large",
            "the request has too many headers, or too long ones: at most 100, and 96 KiB in all",
        ),
        414 => (REQUEST_TOO_LARGE, "URI Too Long", "the request's line is too long: at most 64 KiB"),
        _ => (INVALID_PARAMETER, "Bad Request", "what was sent is not a request of HTTP/1.1 or HTTP/1.0"),
    };
    let request_id = Environment::real().new_request_id();
    // The requested format is unknown; the official SDKs can read this one, whatever they request.
    let format = Format::Json;
    let body = failure(format, &kind.error(message), &request_id, host);
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\nx-acs-request-id: {request_id}\r\n\
         Connection: close\r\n\r\n",
        format.content_type(),
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

/// Tells a client why it is refused. What it still sends is read and discarded for a moment, since closing a connection
/// with unread data would discard the response.
pub(super) async fn refuse(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8]) {
    let told = async {
        stream.write_all(answer).await?;
        stream.shutdown().await?;
        let mut unread = [0; 4096];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    // A client that does not read it is gone.
    let _ = tokio::time::timeout(LINGER_TIME, told).await;
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod tests {
    use super::*;
    use serde_json::Value;

    fn body(answer: &[u8]) -> Value {
        let (head, body) = std::str::from_utf8(answer).unwrap().split_once("\r\n\r\n").unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        assert_eq!(length.parse::<usize>().unwrap(), body.len());
        serde_json::from_str(body).unwrap()
    }

    #[test]
    fn refusals_are_as_long_as_they_say() {
        assert_eq!(body(NO_ROOM)["Code"], "ServiceUnavailable");
        for (status, code) in [(400, "InvalidParameter"), (414, "RequestTooLarge"), (431, "RequestTooLarge")] {
            let answer = malformed(status, "host");
            assert!(answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes()));
            assert_eq!(body(&answer)["Code"], code);
        }
    }

    #[test]
    fn only_an_answer_without_a_body_is_automatic() {
        let bad = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: now\r\n\r\n";
        assert_eq!(automatic(bad), Some((0, 400)));
        let mut both = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_vec();
        assert_eq!(automatic(&both), None);
        let before = both.len();
        both.extend(bad);
        assert_eq!(automatic(&both), Some((before, 400)));
        for other in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 12\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"\r\n\r\n",
            b"",
        ] {
            assert_eq!(automatic(other), None, "{}", String::from_utf8_lossy(other));
        }
        assert_eq!(automatic(&[&malformed(400, "host")[..], b"\r\n\r\n"].concat()), None);
    }
}
