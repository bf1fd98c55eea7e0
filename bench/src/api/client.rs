//! A client that signs as official ones do, with one connection and one call at a time.

use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// What stays as it is in a percent-encoded text (RFC 3986, unreserved).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const ALGORITHM: &str = "ACS3-HMAC-SHA256";
const SIGNED_HEADERS: &str =
    "accept;host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version";
const EMPTY_HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const TIMEOUT: Duration = Duration::from_secs(60);
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// An access key.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) id: String,
    pub(super) secret: String,
}

/// One connection.
pub(super) struct Client {
    stream: BufReader<TcpStream>,
    address: SocketAddr,
    key: Key,
}

impl Client {
    pub(super) fn connect(address: SocketAddr, key: &Key) -> Result<Self, String> {
        let connected = || {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            Ok::<_, std::io::Error>(stream)
        };
        let stream = connected().map_err(|error| format!("{address} cannot be reached: {error}"))?;
        Ok(Self { stream: BufReader::new(stream), address, key: key.clone() })
    }

    /// Makes a call; its answer, if it succeeds.
    pub(super) fn call(&mut self, is_vpc: bool, action: &str, parameters: &[(&str, &str)]) -> Result<String, String> {
        let request = self.sign(is_vpc, action, parameters);
        let (status, body) = self.exchange(&request).map_err(|error| format!("{action}: {error}"))?;
        if status == 200 { Ok(body) } else { Err(format!("{action}: {status} {body}")) }
    }

    /// Makes a call that answers with the identifier of something new.
    pub(super) fn id(
        &mut self,
        field: &str,
        is_vpc: bool,
        action: &str,
        parameters: &[(&str, &str)],
    ) -> Result<String, String> {
        let answer = self.call(is_vpc, action, parameters)?;
        let answer: Value = serde_json::from_str(&answer).map_err(|error| error.to_string())?;
        answer[field].as_str().map(str::to_owned).ok_or_else(|| format!("{action} answered without {field}: {answer}"))
    }

    fn sign(&self, is_vpc: bool, action: &str, parameters: &[(&str, &str)]) -> String {
        static NONCES: AtomicU64 = AtomicU64::new(0);
        let (version, address) = (if is_vpc { "2016-04-28" } else { "2014-05-26" }, self.address);
        let date = humantime::format_rfc3339_seconds(SystemTime::now());
        let nonce = format!("{}-{}", std::process::id(), NONCES.fetch_add(1, Ordering::Relaxed));
        let mut pairs: Vec<String> = parameters
            .iter()
            .chain([&("RegionId", "cn-hangzhou")])
            .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
            .collect();
        pairs.sort();
        let query = pairs.join("&");
        let headers = format!(
            "accept:application/json\nhost:{address}\nx-acs-action:{action}\nx-acs-content-sha256:{EMPTY_HASH}\n\
             x-acs-date:{date}\nx-acs-signature-nonce:{nonce}\nx-acs-version:{version}\n"
        );
        let canonical = format!("POST\n/\n{query}\n{headers}\n{SIGNED_HEADERS}\n{EMPTY_HASH}");
        let text = format!("{ALGORITHM}\n{}", hex(&Sha256::digest(canonical.as_bytes())));
        let signature = Hmac::<Sha256>::new_from_slice(self.key.secret.as_bytes()).map(|mut mac| {
            mac.update(text.as_bytes());
            hex(&mac.finalize().into_bytes())
        });
        let authorization = format!(
            "{ALGORITHM} Credential={},SignedHeaders={SIGNED_HEADERS},Signature={}",
            self.key.id,
            signature.unwrap_or_default()
        );
        format!(
            "POST /?{query} HTTP/1.1\r\n{}authorization: {authorization}\r\ncontent-length: 0\r\n\r\n",
            headers.replace('\n', "\r\n").replace("accept:", "accept: ")
        )
    }

    fn exchange(&mut self, request: &str) -> std::io::Result<(u16, String)> {
        let strange = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        let (mut status, mut length) = (None, None);
        loop {
            line.clear();
            if self.stream.by_ref().take(1 << 16).read_line(&mut line)? == 0 {
                return Err(strange("the connection ended"));
            }
            match (status, line.trim_end().split_once(':')) {
                (None, _) => status = line.split(' ').nth(1).and_then(|text| text.parse().ok()),
                (_, Some((name, value))) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse::<usize>().ok();
                }
                _ if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        let status = status.ok_or_else(|| strange("the answer is not of HTTP"))?;
        let length = length.filter(|length| *length <= ANSWER_BYTES_MAX);
        let mut body = vec![0; length.ok_or_else(|| strange("the answer has no length"))?];
        self.stream.read_exact(&mut body)?;
        Ok((status, String::from_utf8(body).map_err(|_| strange("the answer is no text"))?))
    }
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
