//! Signatures of both generations: what is signed, and whether it was signed with the key.
//!
//! V1 signs method and parameters with HMAC-SHA1; V3 signs method, query, headers and the body's hash with
//! HMAC-SHA256. Comparison takes the same time wherever the difference is.

use super::parameters::{canonical, encode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// What the value of a V3 `Authorization` header begins with.
pub const V3_ALGORITHM: &str = "ACS3-HMAC-SHA256";
/// Headers that a V3 signature has to cover.
const V3_HEADERS: [&str; 6] =
    ["host", "x-acs-action", "x-acs-version", "x-acs-date", "x-acs-signature-nonce", "x-acs-content-sha256"];
/// Headers that a V3 signature may cover.
const V3_HEADERS_MAX: usize = 64;

/// The string that a V1 request signs: all of its parameters but `Signature`.
pub fn v1_string_to_sign(method: &str, pairs: &[(String, String)]) -> String {
    let line = canonical(pairs.iter().filter(|(name, _)| name != "Signature"));
    format!("{method}&{}&{}", encode("/"), encode(&line))
}

/// Whether `signature` is that of a string with a V1 key.
pub(in crate::ecs) fn v1_matches(secret: &str, string_to_sign: &str, signature: &str) -> bool {
    // The protocol appends the ampersand to the secret.
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(format!("{secret}&").as_bytes()) else { return false };
    mac.update(string_to_sign.as_bytes());
    STANDARD.decode(signature).is_ok_and(|bytes| mac.verify_slice(&bytes).is_ok())
}

/// The V1 signature of a string.
pub fn v1_sign(secret: &str, string_to_sign: &str) -> String {
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(format!("{secret}&").as_bytes()) else { return String::new() };
    mac.update(string_to_sign.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// The value of a V3 `Authorization` header, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// The access key's identifier.
    pub key_id: String,
    /// The signed headers, in the order they are signed.
    pub signed_headers: Vec<String>,
    /// The signature, in hexadecimal digits.
    pub signature: String,
}

impl Authorization {
    /// Reads `ACS3-HMAC-SHA256 Credential=…,SignedHeaders=a;b,Signature=…`. None: it is no such thing, or does not
    /// cover what it has to.
    pub fn read(value: &str) -> Option<Self> {
        let rest = value.strip_prefix(V3_ALGORITHM)?.strip_prefix(' ')?;
        let (mut key_id, mut headers, mut signature) = (None, None, None);
        for part in rest.split(',') {
            let (name, value) = part.trim().split_once('=')?;
            let slot = match name {
                "Credential" => &mut key_id,
                "SignedHeaders" => &mut headers,
                "Signature" => &mut signature,
                _ => return None,
            };
            // A part that comes twice is refused: another reader could take the other one.
            if slot.replace(value).is_some() {
                return None;
            }
        }
        let signed_headers: Vec<String> = headers?.split(';').map(str::to_ascii_lowercase).collect();
        // What is not covered could be changed on the way, above all the action and the body's hash.
        let covered = V3_HEADERS.iter().all(|name| signed_headers.iter().any(|signed| signed == name));
        if !covered || signed_headers.len() > V3_HEADERS_MAX {
            return None;
        }
        Some(Self { key_id: key_id?.to_owned(), signed_headers, signature: signature?.to_owned() })
    }
}

/// What a V3 signature is about, besides the headers' names.
#[derive(Clone, Copy, Debug)]
pub struct V3Request<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The path, `/`.
    pub path: &'a str,
    /// The parameters of the query.
    pub query: &'a [(String, String)],
    /// The body's hash, in hexadecimal digits.
    pub body_hash: &'a str,
}

/// The string that a V3 request signs. `header` gives the value of a header by its small name.
pub fn v3_string_to_sign<'a>(
    request: V3Request<'_>,
    signed_headers: &[String],
    header: impl Fn(&str) -> Option<&'a str>,
) -> String {
    let mut lines = String::new();
    for name in signed_headers {
        lines.push_str(&format!("{name}:{}\n", header(name).unwrap_or_default().trim()));
    }
    let V3Request { method, path, query, body_hash } = request;
    let query = canonical(query.iter());
    let names = signed_headers.join(";");
    let whole = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{body_hash}");
    format!("{V3_ALGORITHM}\n{}", hex(&Sha256::digest(whole.as_bytes())))
}

/// Whether `signature` is that of a string with a V3 key.
pub(in crate::ecs) fn v3_matches(secret: &str, string_to_sign: &str, signature: &str) -> bool {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return false };
    mac.update(string_to_sign.as_bytes());
    unhex(signature).is_some_and(|bytes| mac.verify_slice(&bytes).is_ok())
}

/// The V3 signature of a string.
pub fn v3_sign(secret: &str, string_to_sign: &str) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(string_to_sign.as_bytes());
    hex(&mac.finalize().into_bytes())
}

/// The SHA-256 of bytes, in hexadecimal digits.
pub fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|letter| letter.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn the_known_answer_of_the_first_generation() {
        let request = pairs(&[
            ("Action", "DescribeRegions"),
            ("Format", "XML"),
            ("Version", "2014-05-26"),
            ("AccessKeyId", "testid"),
            ("SignatureMethod", "HMAC-SHA1"),
            ("SignatureVersion", "1.0"),
            ("SignatureNonce", "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf"),
            ("Timestamp", "2016-02-23T12:46:24Z"),
            ("Signature", "is not signed"),
        ]);
        let text = v1_string_to_sign("GET", &request);
        assert_eq!(v1_sign("testsecret", &text), "OLeaidS1JvxuMvnyHOwuJ+uX5qY=");
        assert!(v1_matches("testsecret", &text, "OLeaidS1JvxuMvnyHOwuJ+uX5qY="));
        for wrong in ["", "OLeaidS1JvxuMvnyHOwuJ+uX5qZ=", "%", "AAAA"] {
            assert!(!v1_matches("testsecret", &text, wrong), "{wrong}");
        }
        assert!(!v1_matches("other", &text, "OLeaidS1JvxuMvnyHOwuJ+uX5qY="));
    }

    #[test]
    fn the_known_answer_of_the_third_generation() {
        let empty = hash(b"");
        assert_eq!(empty, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        let signature = "06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0";
        let authorization = Authorization::read(&format!(
            "ACS3-HMAC-SHA256 Credential=YourAccessKeyId,SignedHeaders=host;x-acs-action;x-acs-content-sha256;\
             x-acs-date;x-acs-signature-nonce;x-acs-version,Signature={signature}"
        ))
        .unwrap();
        let headers = [
            ("host", "ecs.cn-shanghai.aliyuncs.com"),
            ("x-acs-action", "RunInstances"),
            ("x-acs-content-sha256", empty.as_str()),
            ("x-acs-date", "2023-10-26T10:22:32Z"),
            ("x-acs-signature-nonce", "3156853299f313e23d1673dc12e1703d"),
            ("x-acs-version", "2014-05-26"),
        ];
        let query =
            pairs(&[("RegionId", "cn-shanghai"), ("ImageId", "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd")]);
        let request = V3Request { method: "POST", path: "/", query: &query, body_hash: &empty };
        let header = |name: &str| headers.iter().find(|(candidate, _)| *candidate == name).map(|(_, value)| *value);
        let text = v3_string_to_sign(request, &authorization.signed_headers, header);
        let expected = "ACS3-HMAC-SHA256\n7ea06492da5221eba5297e897ce16e55f964061054b7695beedaac1145b1e259";
        assert_eq!(text, expected);
        assert_eq!(v3_sign("YourAccessKeySecret", &text), signature);
        assert!(v3_matches("YourAccessKeySecret", &text, &authorization.signature));
        for wrong in ["", "06", "zz", &signature[1..]] {
            assert!(!v3_matches("YourAccessKeySecret", &text, wrong), "{wrong}");
        }
    }

    #[test]
    fn authorizations_that_cover_too_little_are_none() {
        for text in [
            "",
            "Bearer x",
            "ACS3-HMAC-SHA256",
            "ACS3-HMAC-SHA256 Credential=a,SignedHeaders=host,Signature=00",
            "ACS3-HMAC-SHA256 Credential=a,Credential=b,SignedHeaders=host,Signature=00",
            "ACS3-HMAC-SHA256 Credential",
        ] {
            assert_eq!(Authorization::read(text), None, "{text}");
        }
    }
}
