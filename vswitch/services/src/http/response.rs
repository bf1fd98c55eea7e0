//! A reply.

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The media type of the body.
    pub content_type: &'static str,
    /// Further fields.
    pub fields: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// How many hops the reply may take, if not as many as usual.
    pub hop_limit: Option<u8>,
}

impl Response {
    /// A reply with text.
    pub fn text(body: impl Into<String>) -> Self {
        let body = body.into().into_bytes();
        Self { status: 200, content_type: "text/plain", fields: Vec::new(), body, hop_limit: None }
    }

    /// A reply with bytes that are no text, as far as is known.
    pub fn bytes(body: Vec<u8>) -> Self {
        Self { content_type: "application/octet-stream", body, ..Self::text("") }
    }

    /// A reply that says no more than its status.
    pub fn of_status(status: u16) -> Self {
        Self { status, ..Self::text(format!("{status} - {}\n", reason(status))) }
    }

    /// The reply as it is sent.
    pub fn to_bytes(&self, keeps_alive: bool, is_head: bool) -> Vec<u8> {
        let connection = if keeps_alive { "keep-alive" } else { "close" };
        let mut head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: {connection}\r\n",
            self.status,
            reason(self.status),
            self.content_type,
            self.body.len()
        );
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if !is_head {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        _ => "Service Unavailable",
    }
}
