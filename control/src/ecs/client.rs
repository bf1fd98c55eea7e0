//! A small client of the HTTP interface, for conformance cases, tests and benches: one connection, one call at a time.

use crate::ecs::{
    AccessKey, Product, V3_ALGORITHM, V3Request, encode, hash, v1_sign, v1_string_to_sign, v3_sign, v3_string_to_sign,
};
use crate::environment::Environment;
use crate::model::timestamp;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of the largest answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// An answer: status, headers and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The header lines after the first, unchanged.
    pub headers: Vec<String>,
    /// The body.
    pub body: String,
}

impl HttpAnswer {
    /// The body as JSON; null if it is not.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The error's code, if it is one.
    pub fn code(&self) -> Option<String> {
        self.json()["Code"].as_str().map(str::to_owned)
    }
}

/// A connection that signs what it sends.
#[derive(Debug)]
pub struct ApiClient {
    stream: BufReader<TcpStream>,
    address: SocketAddr,
    key: AccessKey,
    environment: Environment,
}

impl ApiClient {
    /// Connects.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn connect(address: SocketAddr, key: AccessKey) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), address, key, environment: Environment::real() })
    }

    /// Makes a call as current SDKs do, signed by V3, and parses the response as JSON.
    ///
    /// # Errors
    /// The operating system's error, or an invalid response.
    pub fn call(&mut self, product: Product, action: &str, parameters: &[(&str, &str)]) -> io::Result<HttpAnswer> {
        let pairs = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let form = form(&pairs.collect::<Vec<_>>());
        let body_hash = hash(form.as_bytes());
        let address = self.address.to_string();
        let now = timestamp(Environment::real().now_s);
        let nonce = self.environment.new_id("nonce");
        let signed = [
            ("accept", "application/json"),
            ("host", address.as_str()),
            ("x-acs-action", action),
            ("x-acs-content-sha256", &body_hash),
            ("x-acs-date", &now),
            ("x-acs-signature-nonce", &nonce),
            ("x-acs-version", product.version()),
        ];
        let names = signed.map(|(name, _)| name.to_owned());
        let request = V3Request { method: "POST", path: "/", query: &[], body_hash: &body_hash };
        let header = |name: &str| signed.iter().find(|(signed, _)| *signed == name).map(|(_, value)| *value);
        let signature = v3_sign(&self.key.secret, &v3_string_to_sign(request, &names, header));
        let authorization = format!(
            "{V3_ALGORITHM} Credential={},SignedHeaders={},Signature={signature}",
            self.key.id,
            names.join(";")
        );
        self.post(&[&signed[..], &[("authorization", &authorization)]].concat(), &form)
    }

    /// Makes a call with exactly these parameters, signed by V1.
    ///
    /// # Errors
    /// The operating system's error, or an invalid response.
    pub fn send(&mut self, product: Product, action: &str, mut pairs: Vec<(String, String)>) -> io::Result<HttpAnswer> {
        let now = timestamp(Environment::real().now_s);
        let common = [
            ("Action", action),
            ("Version", product.version()),
            ("AccessKeyId", &self.key.id),
            ("SignatureMethod", "HMAC-SHA1"),
            ("SignatureVersion", "1.0"),
            ("SignatureNonce", &self.environment.new_id("nonce")),
            ("Timestamp", &now),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        pairs.extend(common);
        let signature = v1_sign(&self.key.secret, &v1_string_to_sign("POST", &pairs));
        pairs.push(("Signature".into(), signature));
        let address = self.address.to_string();
        self.post(&[("host", &address)], &form(&pairs))
    }

    fn post(&mut self, headers: &[(&str, &str)], form: &str) -> io::Result<HttpAnswer> {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = form.len();
        let request = format!(
            "POST / HTTP/1.1\r\n{headers}content-type: application/x-www-form-urlencoded\r\n\
             content-length: {length}\r\n\r\n{form}"
        );
        self.exchange(request.as_bytes())
    }

    /// Sends bytes and reads one response.
    ///
    /// # Errors
    /// The operating system's error, or an invalid response.
    pub fn exchange(&mut self, request: &[u8]) -> io::Result<HttpAnswer> {
        self.stream.get_mut().write_all(request)?;
        let strange = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|text| text.parse().ok());
        let status = status.ok_or_else(|| strange("the answer is not of HTTP"))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            headers.push(line);
        }
        let length = headers.iter().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        let length = length.filter(|length| *length <= ANSWER_BYTES_MAX).ok_or_else(|| strange("it has no length"))?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        let body = String::from_utf8(body).map_err(|_| strange("it is not text"))?;
        Ok(HttpAnswer { status, headers, body })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.by_ref().take(1 << 16).read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

fn form(pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    pairs.join("&")
}
