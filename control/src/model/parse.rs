//! Parses what all objects share: identifiers, names, descriptions, prefixes and times.

use super::Model;
use crate::environment::Environment;
use crate::error::{ApiError, ErrorKind, ID_ALREADY_EXISTS, INVALID_ID_MALFORMED};
use ipnet::IpNet;
use std::net::IpAddr;
use vswitch_core::config::ids::quoted;

/// Characters of an identifier, its prefix included.
const ID_CHARACTERS_MAX: usize = 64;

impl Model {
    /// The requested identifier, if it is free and well formed; a new one if none was requested.
    pub(super) fn choose_id(
        &self,
        wanted: Option<&str>,
        prefix: &str,
        environment: &Environment,
        taken: impl Fn(&str) -> bool,
    ) -> Result<String, ApiError> {
        let Some(wanted) = wanted else {
            loop {
                let id = environment.new_id(prefix);
                if !taken(&id) {
                    return Ok(id);
                }
            }
        };
        // Without the prefix nothing is left, which is refused below.
        let rest = wanted.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-')).unwrap_or_default();
        let well_formed = rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if rest.is_empty() || !well_formed || wanted.len() > ID_CHARACTERS_MAX {
            let message = format!(
                "{} is not a valid identifier: {prefix}- and lower-case letters, digits or -, at most {ID_CHARACTERS_MAX} characters",
                quoted(wanted)
            );
            return Err(INVALID_ID_MALFORMED.error(message).field("id"));
        }
        if taken(wanted) {
            let message = format!("{wanted} exists already: choose another identifier, or modify that one");
            return Err(ID_ALREADY_EXISTS.error(message).field("id").object(wanted));
        }
        Ok(wanted.into())
    }
}

/// A name: 2 to 128 characters, beginning with a letter, then letters, digits, `:`, `_`, `-`, `.`; empty for none.
pub(super) fn name(text: Option<&str>, kind: ErrorKind) -> Result<String, ApiError> {
    let text = text.unwrap_or_default();
    let mut characters = text.chars();
    // Letters of any script: the cloud's customers write Chinese names.
    let begins = characters.next().is_none_or(char::is_alphabetic);
    let continues = characters.all(|letter| letter.is_alphanumeric() || ":_-.".contains(letter));
    // The limits count characters; one of them can take several bytes.
    let length = text.chars().count();
    if begins && continues && (length == 0 || (2..=128).contains(&length)) {
        return Ok(text.into());
    }
    let message = format!(
        "{text} is not a valid name: 2 to 128 letters, digits, :, _, - or ., beginning with a letter",
        text = quoted(text)
    );
    Err(kind.error(message).field("name"))
}

/// Refuses names of lists that are reserved for the cloud.
pub(super) fn refuse_reserved_name(text: &str, kind: ErrorKind) -> Result<(), ApiError> {
    match ["com.aliyun", "com.alibabacloud"].iter().find(|taken| text.starts_with(*taken)) {
        Some(taken) => Err(kind.error(format!("names that begin with {taken} are the cloud's own")).field("name")),
        None => Ok(()),
    }
}

/// The name of a VPC or vSwitch: 1 to 128 characters that are not a URL; empty for none.
pub(super) fn network_name(text: Option<&str>, kind: ErrorKind) -> Result<String, ApiError> {
    plain_text("name", text, (1, 128), kind)
}

/// A description of `least` to `most` characters that is not a URL; empty for none.
pub(super) fn description(text: Option<&str>, least: usize, most: usize, kind: ErrorKind) -> Result<String, ApiError> {
    plain_text("description", text, (least, most), kind)
}

/// The description of a rule: 1 to 512 characters, which may be a URL; empty for none.
pub(super) fn rule_description(text: Option<&str>, kind: ErrorKind) -> Result<String, ApiError> {
    let text = text.unwrap_or_default();
    if text.chars().count() <= 512 && !text.chars().any(char::is_control) {
        return Ok(text.into());
    }
    Err(kind.error("the description of a rule has 1 to 512 printable characters").field("description"))
}

fn plain_text(noun: &str, text: Option<&str>, limits: (usize, usize), kind: ErrorKind) -> Result<String, ApiError> {
    let (least, most) = limits;
    let text = text.unwrap_or_default();
    let length = text.chars().count();
    let address = text.starts_with("http://") || text.starts_with("https://");
    let control = text.chars().any(char::is_control);
    if !address && !control && (length == 0 || (least..=most).contains(&length)) {
        return Ok(text.into());
    }
    let message =
        format!("a {noun} has {least} to {most} printable characters and does not begin with http:// or https://");
    Err(kind.error(message).field(noun))
}

/// A block without host bits. A bare address is a block of its own.
pub(super) fn block(text: &str, field: &str, kind: ErrorKind) -> Result<IpNet, ApiError> {
    let block = prefix(text).ok_or_else(|| {
        kind.error(format!("{text} is not a prefix: write one like 10.0.0.0/16 or 2001:db8::/56", text = quoted(text)))
            .field(field)
    })?;
    if block.trunc() != block {
        let message = format!("{text} has host bits set: write {}", block.trunc());
        return Err(kind.error(message).field(field));
    }
    Ok(block)
}

/// An address or a prefix, including host bits. Numbers with leading zeros are refused, since other programs read them
/// as octal.
pub(crate) fn prefix(text: &str) -> Option<IpNet> {
    let Some((address, length)) = text.split_once('/') else { return text.parse::<IpAddr>().ok().map(IpNet::from) };
    let plain = length.bytes().all(|byte| byte.is_ascii_digit()) && (length == "0" || !length.starts_with('0'));
    IpNet::new(address.parse().ok()?, length.parse().ok().filter(|_| plain)?).ok()
}

/// A time as the cloud writes it, `2026-11-23T12:00:00Z`.
pub(crate) fn timestamp(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // From days to a Gregorian date, with years that begin in March, so that leap days come last.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year_of_era + era * 400 + next_year;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::INVALID_PARAMETER;

    #[test]
    fn times_are_written_as_the_cloud_does() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_437_732, "2026-11-23T12:42:12Z"),
        ] {
            assert_eq!(timestamp(seconds), text);
        }
    }

    #[test]
    fn prefixes_are_read_strictly() {
        for good in ["10.0.0.7", "10.1.2.3/8", "0.0.0.0/0", "::/0", "2001:DB8::1/32", "::ffff:1.2.3.4"] {
            assert!(prefix(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/33",
            "010.0.0.1/8",
            "10.0.0.1/08",
            "10.0.0/8",
            "10.0.0.1/+8",
            "::/129",
            "::1%1",
            " ::",
        ] {
            assert_eq!(prefix(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_and_descriptions_keep_to_their_letters() {
        for good in ["", "ab", "Web-1.a:b_c", "网络"] {
            assert!(name(Some(good), INVALID_PARAMETER).is_ok(), "{good}");
        }
        for bad in ["a", "1a", "a b", "http://x", &"a".repeat(129)] {
            assert!(name(Some(bad), INVALID_PARAMETER).is_err(), "{bad}");
        }
        assert!(description(Some("http://x"), 2, 256, INVALID_PARAMETER).is_err());
        assert!(description(Some("a\nb"), 2, 256, INVALID_PARAMETER).is_err());
        assert!(description(Some("web servers"), 2, 256, INVALID_PARAMETER).is_ok());
    }

    #[test]
    fn blocks_have_no_host_bits() {
        assert!(block("10.0.0.0/16", "cidr", INVALID_PARAMETER).is_ok());
        let error = block("10.0.0.1/16", "cidr", INVALID_PARAMETER).unwrap_err();
        assert!(error.message.contains("10.0.0.0/16"), "{error}");
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/+8", "x", "10.0.0.0/", "/8"] {
            assert!(block(bad, "cidr", INVALID_PARAMETER).is_err(), "{bad}");
        }
    }
}
