//! Authentication: a request's signature, time and nonce, before anything else is examined.

use super::nonces::Nonces;
use super::parameters::Parameters;
use super::settings::{AccessKey, ApiSettings};
use super::signature::{
    Authorization, V3_ALGORITHM, V3Request, hash, v1_matches, v1_string_to_sign, v3_matches, v3_string_to_sign,
};
use crate::error::{
    ApiError, ILLEGAL_TIMESTAMP, INCOMPLETE_SIGNATURE, KEY_NOT_FOUND, MISSING_PARAMETER, NONCE_USED,
    SIGNATURE_MISMATCH, TIMESTAMP_EXPIRED, TIMESTAMP_FORMAT,
};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use subtle::ConstantTimeEq;

/// How far a request's time may be from ours, seconds.
const WINDOW_S: u64 = 31 * 60;
/// Characters of a nonce.
const NONCE_CHARACTERS_MAX: usize = 256;

/// A request as authentication sees it; nothing in it is trusted.
#[derive(Clone, Copy, Debug)]
pub struct RequestEnvelope<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The parameters of the query.
    pub query: &'a [(String, String)],
    /// The parameters of query and form.
    pub pairs: &'a [(String, String)],
    /// The same as a table.
    pub parameters: &'a Parameters,
    /// The headers, by lower-case name.
    pub headers: &'a BTreeMap<String, String>,
    /// The body.
    pub body: &'a [u8],
}

impl<'a> RequestEnvelope<'a> {
    /// The value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Whether it is signed, in either version.
    pub fn is_signed(&self) -> bool {
        self.is_v3() || self.parameters.given("Signature").is_some()
    }

    /// Whether it is signed in the newer version.
    pub fn is_v3(&self) -> bool {
        self.header("authorization").is_some_and(|value| value.starts_with(V3_ALGORITHM))
    }
}

/// The keys, and the nonces that were used with them.
#[derive(Debug)]
pub struct Authenticator {
    keys: BTreeMap<String, AccessKey>,
    unsigned_account: Option<String>,
    nonces: Mutex<Nonces>,
}

/// What a signature consists of.
struct Credentials<'a> {
    key_id: &'a str,
    time: &'a str,
    nonce: &'a str,
    token: Option<&'a str>,
}

impl Authenticator {
    /// An authenticator for these keys that keeps used nonces in memory.
    pub fn new(settings: &ApiSettings) -> Self {
        let keys = settings.access_keys.iter().map(|key| (key.id.clone(), key.clone())).collect();
        let unsigned_account = settings.unsigned.then(|| settings.first_account().to_owned());
        Self { keys, unsigned_account, nonces: Mutex::default() }
    }

    /// An authenticator for these keys that keeps used nonces in a folder.
    ///
    /// # Errors
    /// The operating system's error about the folder.
    pub fn with_memory(settings: &ApiSettings, folder: &Path, now_s: u64) -> io::Result<Self> {
        Ok(Self { nonces: Mutex::new(Nonces::open(folder, now_s)?), ..Self::new(settings) })
    }

    /// Whether a request is accepted without a signature.
    pub fn is_unsigned(&self, envelope: &RequestEnvelope<'_>) -> bool {
        // Any header of this name counts as signed, so that a misspelled signature is refused instead of ignored.
        let is_signed = envelope.header("authorization").is_some() || envelope.parameters.given("Signature").is_some();
        self.unsigned_account.is_some() && !is_signed
    }

    /// The account that sent a request.
    ///
    /// # Errors
    /// What is wrong with the signature.
    pub fn admit(&self, envelope: &RequestEnvelope<'_>, now_s: u64) -> Result<String, ApiError> {
        match envelope.header("authorization") {
            Some(value) if value.starts_with(V3_ALGORITHM) => self.admit_v3(envelope, value, now_s),
            Some(_) => Err(INCOMPLETE_SIGNATURE.error("the Authorization header is not an ACS3-HMAC-SHA256 signature")),
            None => match &self.unsigned_account {
                Some(account) if envelope.parameters.given("Signature").is_none() => Ok(account.clone()),
                _ => self.admit_v1(envelope, now_s),
            },
        }
    }

    fn admit_v1(&self, envelope: &RequestEnvelope<'_>, now_s: u64) -> Result<String, ApiError> {
        let parameters = envelope.parameters;
        let needed = |name: &str| parameters.text(name).ok_or_else(|| missing(name));
        let credentials = Credentials {
            // The cloud reports a missing time with a code of its own, before any other parameter.
            time: parameters.text("Timestamp").ok_or_else(|| ILLEGAL_TIMESTAMP.error("Timestamp is not supplied."))?,
            key_id: needed("AccessKeyId")?,
            nonce: needed("SignatureNonce")?,
            token: parameters.text("SecurityToken"),
        };
        let signature = needed("Signature")?;
        let method = parameters.text("SignatureMethod").unwrap_or("HMAC-SHA1");
        let version = parameters.text("SignatureVersion").unwrap_or("1.0");
        if !method.eq_ignore_ascii_case("HMAC-SHA1") || version != "1.0" {
            return Err(INCOMPLETE_SIGNATURE.error("sign with HMAC-SHA1, version 1.0, or with ACS3-HMAC-SHA256"));
        }
        // Time, key and nonce are checked first: they cost less than a signature, and a replay is refused without one.
        let (key, until_s) = self.check(&credentials, now_s)?;
        let text = v1_string_to_sign(envelope.method, envelope.pairs);
        if !v1_matches(&key.secret, &text, signature) {
            return Err(mismatch(&text));
        }
        // Only a request with a valid signature uses up its nonce.
        self.nonces().use_once(credentials.key_id, credentials.nonce, until_s, now_s)?;
        Ok(key.account.clone())
    }

    fn admit_v3(&self, envelope: &RequestEnvelope<'_>, value: &str, now_s: u64) -> Result<String, ApiError> {
        let authorization = Authorization::read(value).ok_or_else(|| {
            INCOMPLETE_SIGNATURE.error(
                "the Authorization header needs Credential, SignedHeaders and Signature, and has to cover host and \
                 the x-acs headers action, version, date, signature-nonce and content-sha256",
            )
        })?;
        let needed = |name: &str| envelope.header(name).ok_or_else(|| missing(name));
        let credentials = Credentials {
            key_id: &authorization.key_id,
            time: needed("x-acs-date")?,
            nonce: needed("x-acs-signature-nonce")?,
            token: envelope.header("x-acs-security-token"),
        };
        let (key, until_s) = self.check(&credentials, now_s)?;
        let claimed_hash = needed("x-acs-content-sha256")?;
        let request = V3Request { method: envelope.method, path: "/", query: envelope.query, body_hash: claimed_hash };
        let text = v3_string_to_sign(request, &authorization.signed_headers, |name| envelope.header(name));
        // The signature covers the hash that the header claims, so the body has to be hashed as well.
        let same_body = claimed_hash.eq_ignore_ascii_case(&hash(envelope.body));
        if !same_body || !v3_matches(&key.secret, &text, &authorization.signature) {
            return Err(mismatch(&text));
        }
        // Only a request with a valid signature uses up its nonce.
        self.nonces().use_once(credentials.key_id, credentials.nonce, until_s, now_s)?;
        Ok(key.account.clone())
    }

    /// Checks time, key and nonce, in this order. Returns the key, and until when the request is valid.
    fn check(&self, credentials: &Credentials<'_>, now_s: u64) -> Result<(&AccessKey, u64), ApiError> {
        let time_s = read_time(credentials.time)
            .ok_or_else(|| TIMESTAMP_FORMAT.error("Specified time stamp or date value is not well formatted."))?;
        if time_s.abs_diff(now_s) > WINDOW_S {
            return Err(TIMESTAMP_EXPIRED.error("Specified time stamp or date value is expired."));
        }
        let unknown = || KEY_NOT_FOUND.error("Specified access key is not found.");
        let key = self.keys.get(credentials.key_id).ok_or_else(unknown)?;
        if let Some(token) = &key.security_token {
            let given = credentials.token.unwrap_or_default();
            if !bool::from(token.as_bytes().ct_eq(given.as_bytes())) {
                // A wrong token and an unknown key look alike, or the response would tell which keys exist.
                return Err(unknown());
            }
        }
        if credentials.nonce.is_empty() || credentials.nonce.len() > NONCE_CHARACTERS_MAX {
            return Err(INCOMPLETE_SIGNATURE.error("a nonce has 1 to 256 characters"));
        }
        // The end comes from the request's own time, so that a replay is looked up in the same minute.
        let until_s = time_s + WINDOW_S;
        if self.nonces().is_used(credentials.key_id, credentials.nonce, until_s) {
            return Err(NONCE_USED.error("The request signature nonce has been used."));
        }
        Ok((key, until_s))
    }

    fn nonces(&self) -> std::sync::MutexGuard<'_, Nonces> {
        self.nonces.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn missing(name: &str) -> ApiError {
    let message =
        format!("The input parameter \"{name}\" that is mandatory for processing this request is not supplied.");
    MISSING_PARAMETER.error(message).field(name)
}

fn mismatch(string_to_sign: &str) -> ApiError {
    let message =
        format!("Specified signature is not matched with our calculation. server string to sign is:{string_to_sign}");
    SIGNATURE_MISMATCH.error(message)
}

/// Digits of a fraction of a second.
const FRACTION_DIGITS_MAX: usize = 9;

/// Seconds since 1970 of `2026-11-23T12:00:00Z`. A fraction, as in `12:00:00.123Z`, is ignored.
pub(in crate::ecs) fn read_time(text: &str) -> Option<u64> {
    let whole = match text.split_once('.') {
        Some((whole, fraction)) => {
            let digits = fraction.strip_suffix('Z')?;
            let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
            if !is_number || digits.is_empty() || digits.len() > FRACTION_DIGITS_MAX {
                return None;
            }
            &format!("{whole}Z")
        }
        None => text,
    };
    let bytes = whole.as_bytes();
    let shape = b"dddd-dd-ddTdd:dd:ddZ";
    let fits = bytes.len() == shape.len()
        && bytes.iter().zip(shape).all(|(byte, form)| if *form == b'd' { byte.is_ascii_digit() } else { byte == form });
    let part = |from: usize, to: usize| whole.get(from..to)?.parse::<u64>().ok();
    if !fits {
        return None;
    }
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
    let in_range = year >= 1970 && (1..=12).contains(&month) && (1..=31).contains(&day);
    // A leap second is written as 60 (RFC 3339, 5.6).
    if !in_range || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // With years that begin in March, leap days come last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecs::dialect::parameters::read_pairs;
    use crate::ecs::dialect::signature::{v1_sign, v1_string_to_sign};
    use crate::model::timestamp;

    const NOW_S: u64 = 1_795_437_732;

    fn authenticator() -> Authenticator {
        let key =
            AccessKey { id: "testid".into(), secret: "testsecret".into(), account: "7".into(), security_token: None };
        Authenticator::new(&ApiSettings { access_keys: vec![key], ..ApiSettings::default() })
    }

    fn signed(changes: &str, signed_with: &str) -> Vec<(String, String)> {
        let base = format!(
            "Action=DescribeRegions&AccessKeyId=testid&SignatureMethod=HMAC-SHA1&SignatureVersion=1.0&SignatureNonce=n1&\
             SignatureType=&Timestamp={}",
            timestamp(NOW_S)
        );
        let mut table: BTreeMap<String, String> = read_pairs(&base).unwrap().into_iter().collect();
        table.extend(read_pairs(changes).unwrap());
        let mut pairs: Vec<(String, String)> = table.into_iter().collect();
        let signature = v1_sign(signed_with, &v1_string_to_sign("POST", &pairs));
        pairs.push(("Signature".into(), signature));
        pairs
    }

    fn admit(authenticator: &Authenticator, pairs: &[(String, String)], now_s: u64) -> Result<String, &'static str> {
        let parameters = Parameters::new(pairs.to_vec()).unwrap();
        let headers = BTreeMap::new();
        let envelope = RequestEnvelope {
            method: "POST",
            query: pairs,
            pairs,
            parameters: &parameters,
            headers: &headers,
            body: b"",
        };
        authenticator.admit(&envelope, now_s).map_err(|error| error.code)
    }

    #[test]
    fn times_are_read() {
        for seconds in [0, 951_782_399, 951_782_400, NOW_S] {
            let text = timestamp(seconds);
            assert_eq!(read_time(&text), Some(seconds));
            assert_eq!(read_time(&text.replace('Z', ".999Z")), Some(seconds));
        }
        for text in [
            "",
            "2026-11-23 12:00:00",
            "2026-11-23T12:00:00+",
            "2026-11-23T12:00:00.Z",
            "2026-13-01T00:00:00Z",
            "1969-01-01T00:00:00Z",
        ] {
            assert_eq!(read_time(text), None, "{text}");
        }
    }

    #[test]
    fn a_request_is_good_once() {
        let authenticator = authenticator();
        let request = signed("", "testsecret");
        assert_eq!(admit(&authenticator, &request, NOW_S), Ok("7".into()));
        assert_eq!(admit(&authenticator, &request, NOW_S), Err("SignatureNonceUsed"));
        assert_eq!(admit(&authenticator, &request, NOW_S + WINDOW_S), Err("SignatureNonceUsed"));
        assert_eq!(admit(&authenticator, &request, NOW_S + WINDOW_S + 1), Err("InvalidTimeStamp.Expired"));
        assert_eq!(admit(&authenticator, &signed("SignatureNonce=n2", "testsecret"), NOW_S - WINDOW_S), Ok("7".into()));
    }

    #[test]
    fn refusals_come_in_order() {
        let authenticator = authenticator();
        for (changes, code) in [
            ("Timestamp=now&AccessKeyId=x", "InvalidTimeStamp.Format"),
            ("Timestamp=2016-02-23T12:46:24Z&AccessKeyId=x", "InvalidTimeStamp.Expired"),
            ("AccessKeyId=x", "InvalidAccessKeyId.NotFound"),
            ("SignatureMethod=HMAC-SHA256", "IncompleteSignature"),
            ("Timestamp=", "IllegalTimestamp"),
            ("SignatureNonce=", "MissingParameter"),
        ] {
            assert_eq!(admit(&authenticator, &signed(changes, "testsecret"), NOW_S), Err(code), "{changes}");
        }
        // An invalid signature uses up no nonce.
        assert_eq!(admit(&authenticator, &signed("", "other"), NOW_S), Err("SignatureDoesNotMatch"));
        assert_eq!(admit(&authenticator, &signed("", "testsecret"), NOW_S), Ok("7".into()));
    }
}
