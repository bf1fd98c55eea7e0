//! HTTP/1.1, as far as reading metadata needs it: requests without a body, replies of a known length.

mod request;
mod response;

pub use request::{HEAD_BYTES_MAX, HttpRequest, ParsedRequest, parse};
pub use response::Response;
