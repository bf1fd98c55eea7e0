//! Tokens of the metadata service. A token is its end of life and a code over that and the ENI, so nothing about tokens is
//! kept, and they are good after a restart of any process.

use crate::directory::Asker;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;

/// The longest life of a token, seconds.
pub const TTL_S_MAX: u64 = 21_600;
const TIME_BYTES: usize = 8;
const CODE_BYTES: usize = 32;
/// Bytes of the secret.
const KEY_BYTES: usize = 32;

/// The secret that tokens are made with.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenKey([u8; KEY_BYTES]);

impl fmt::Debug for TokenKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TokenKey")
    }
}

impl TokenKey {
    /// The secret in hexadecimal.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut key = [0; KEY_BYTES];
        (text.len() == 2 * KEY_BYTES && text.is_ascii()).then_some(())?;
        for (place, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
        }
        Some(Self(key))
    }

    /// A token for an ENI that is good until a time in seconds since 1970.
    pub fn make(&self, asker: &Asker, until_s: u64) -> String {
        let mut bytes = until_s.to_be_bytes().to_vec();
        bytes.extend(self.code(asker, until_s).map(|code| code.finalize().into_bytes()).unwrap_or_default());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whether a token was made for this ENI and is still good.
    pub fn is_good(&self, token: &str, asker: &Asker, now_s: u64) -> bool {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(token) else { return false };
        let Some((time, code)) = bytes.split_first_chunk::<TIME_BYTES>() else { return false };
        let until_s = u64::from_be_bytes(*time);
        // Compared in a time that tells nothing about how much of it is right.
        let is_genuine = code.len() == CODE_BYTES
            && self.code(asker, until_s).is_some_and(|expected| expected.verify_slice(code).is_ok());
        is_genuine && now_s < until_s
    }

    fn code(&self, asker: &Asker, until_s: u64) -> Option<Hmac<Sha256>> {
        let mut code = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        // Identifiers have no zero bytes, so that no two ENIs are written alike.
        for part in ["metadata-token", asker.vpc.as_str(), asker.eni.as_str()] {
            code.update(part.as_bytes());
            code.update(&[0]);
        }
        code.update(&until_s.to_be_bytes());
        Some(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_eni_and_its_time() {
        let key = TokenKey::from_text(&"5a".repeat(32)).expect("64 digits");
        let asker = |vpc: &str, eni: &str| Asker { vpc: vpc.into(), eni: eni.into() };
        let own = asker("vpc-1", "eni-1");
        let token = key.make(&own, 1000);
        assert!(key.is_good(&token, &own, 999));
        assert!(!key.is_good(&token, &own, 1000));
        for other in [asker("vpc-2", "eni-1"), asker("vpc-1", "eni-2"), asker("vpc-1eni", "-1")] {
            assert!(!key.is_good(&token, &other, 999));
        }
        let other_key = TokenKey::from_text(&"5b".repeat(32)).expect("64 digits");
        assert!(!other_key.is_good(&token, &own, 999));
        // A longer life, with the code of the shorter one.
        let mut bytes = URL_SAFE_NO_PAD.decode(&token).expect("it was encoded so");
        bytes[7] += 1;
        assert!(!key.is_good(&URL_SAFE_NO_PAD.encode(&bytes), &own, 999));
        for text in ["", "!", "AAAA", &token[1..]] {
            assert!(!key.is_good(text, &own, 999), "{text}");
        }
        assert_eq!(TokenKey::from_text("5a"), None);
        assert_eq!(TokenKey::from_text(&"zz".repeat(32)), None);
    }
}
