//! Parameters of a call: from query and form to a flat table, and from there to lists and objects.
//!
//! A list is `Name.N` with N from 1, with gaps allowed; a list of objects is `Name.N.Field`; an object is `Name.Field`.
//! An empty value counts as absent unless stated otherwise.

use crate::error::{ApiError, INVALID_PARAMETER};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::collections::BTreeMap;
use vswitch_core::config::ids::quoted;

/// Parameters of one call.
pub const PARAMETERS_MAX: usize = 8192;
/// Digits of a place in a list.
const PLACE_DIGITS_MAX: usize = 6;

/// The characters that are not percent-encoded (RFC 3986, unreserved).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The parameters of one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    values: BTreeMap<String, String>,
}

/// A text as it is encoded for signing.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// Parses `a=b&c=d`, percent-encoded, with `+` for a space.
///
/// # Errors
/// Text that is not UTF-8, or too many parameters.
pub fn read_pairs(text: &str) -> Result<Vec<(String, String)>, ApiError> {
    let mut pairs = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        // The count is limited while it grows, before memory is taken for all of them.
        if pairs.len() >= PARAMETERS_MAX {
            return Err(INVALID_PARAMETER.error(format!("a call has at most {PARAMETERS_MAX} parameters")));
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        pairs.push((decode(name)?, decode(value)?));
    }
    Ok(pairs)
}

fn decode(text: &str) -> Result<String, ApiError> {
    // `+` first: an encoded plus sign must not become a space.
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(|text| text.into_owned()).map_err(|_| INVALID_PARAMETER.error("a parameter is not UTF-8 text"))
}

/// The pairs on one line, sorted and encoded, as they are signed.
pub fn canonical<'a>(pairs: impl Iterator<Item = &'a (String, String)>) -> String {
    let mut encoded: Vec<(String, String)> = pairs.map(|(name, value)| (encode(name), encode(value))).collect();
    // Sorted as encoded, which differs from the order of the plain text for some characters.
    encoded.sort();
    let joined: Vec<String> = encoded.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    joined.join("&")
}

impl Parameters {
    /// The parameters from the pairs of query and form.
    ///
    /// # Errors
    /// A name with two values, or too many names.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, ApiError> {
        let mut values = BTreeMap::new();
        for (name, value) in pairs {
            // Some clients write the fields of tags in lower case.
            let name = match name.strip_prefix("Tag.").and_then(|rest| rest.split_once('.')) {
                Some((place, "key")) => format!("Tag.{place}.Key"),
                Some((place, "value")) => format!("Tag.{place}.Value"),
                _ => name,
            };
            // The same value twice is harmless, and some SDKs send parameters in the query and the form.
            match values.get(&name) {
                Some(other) if *other != value => {
                    let message =
                        format!("the parameter {} is given twice, with different values", quoted(&shown(&name)));
                    return Err(INVALID_PARAMETER.error(message).field(shown(&name)));
                }
                _ => drop(values.insert(name, value)),
            }
            if values.len() > PARAMETERS_MAX {
                return Err(INVALID_PARAMETER.error(format!("a call has at most {PARAMETERS_MAX} parameters")));
            }
        }
        Ok(Self { values })
    }

    /// A value; `None` if it is absent or empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Replaces a value.
    pub(in crate::ecs) fn replace(&mut self, name: &str, value: &str) {
        // Only a parameter that is there: a call must not gain parameters by letter case.
        if let Some(present) = self.values.get_mut(name) {
            value.clone_into(present);
        }
    }

    /// A value, empty or not.
    pub fn given(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// A copy of a value, as commands take it.
    pub fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    /// `true` or `false` in any letter case.
    ///
    /// # Errors
    /// Anything else.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.text(name) {
            None => Ok(None),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(_) => Err(not_valid(name)),
        }
    }

    /// A decimal number.
    ///
    /// # Errors
    /// Anything else.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.text(name).map(|text| number(text).ok_or_else(|| not_valid(name))).transpose()
    }

    /// A decimal number of a smaller kind.
    ///
    /// # Errors
    /// Anything else, or a number that does not fit the type.
    pub fn count<T: TryFrom<i64>>(&self, name: &str) -> Result<Option<T>, ApiError> {
        self.integer(name)?.map(|value| T::try_from(value).map_err(|_| not_valid(name))).transpose()
    }

    /// The entries of `Name.N`, in the order of N; empty ones are left out.
    ///
    /// # Errors
    /// An index that is not a number from 1.
    pub fn list(&self, name: &str) -> Result<Vec<String>, ApiError> {
        let mut entries = BTreeMap::new();
        for (rest, value) in self.under(name) {
            if !value.is_empty() {
                entries.insert(place(name, rest)?, value.to_owned());
            }
        }
        Ok(entries.into_values().collect())
    }

    /// The entries of `Name.N.Field`, in the order of N, each with its index.
    ///
    /// # Errors
    /// An index that is not a number from 1.
    pub fn objects(&self, name: &str) -> Result<Vec<(u32, Self)>, ApiError> {
        let mut entries: BTreeMap<u32, Self> = BTreeMap::new();
        for (rest, value) in self.under(name) {
            let Some((number, field)) = rest.split_once('.') else { return Err(not_valid(name)) };
            let entry = entries.entry(place(name, number)?).or_default();
            entry.values.insert(field.to_owned(), value.to_owned());
        }
        Ok(entries.into_iter().collect())
    }

    /// The fields of `Name.Field`.
    pub fn object(&self, name: &str) -> Self {
        Self { values: self.under(name).map(|(rest, value)| (rest.to_owned(), value.to_owned())).collect() }
    }

    /// The entries of a JSON array in a single value, or the entries of `Name.N`.
    ///
    /// # Errors
    /// A value that is neither.
    pub fn json_list(&self, name: &str) -> Result<Option<Vec<String>>, ApiError> {
        match self.text(name) {
            // Some clients write the list in their language's syntax, with other quotation marks.
            Some(text) if !text.contains('"') => {
                serde_json::from_str(&text.replace('\'', "\"")).map(Some).map_err(|_| not_valid(name))
            }
            Some(text) => serde_json::from_str(text).map(Some).map_err(|_| not_valid(name)),
            None => Ok(Some(self.list(name)?).filter(|list| !list.is_empty())),
        }
    }

    /// Whether every value is empty.
    pub fn is_empty(&self) -> bool {
        self.values.values().all(String::is_empty)
    }

    /// Whether a parameter, list or object of this name has a value.
    pub fn has(&self, name: &str) -> bool {
        self.text(name).is_some() || self.under(name).any(|(_, value)| !value.is_empty())
    }

    /// All names and values, in order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    fn under(&self, name: &str) -> impl Iterator<Item = (&str, &str)> {
        let prefix = format!("{name}.");
        let length = prefix.len();
        // The dot is in the prefix, so `Tag` does not include `Tags.1`; names under it follow each other in the table.
        let start = self.values.range(prefix.clone()..);
        start
            .take_while(move |(key, _)| key.starts_with(&prefix))
            .map(move |(key, value)| (&key[length..], value.as_str()))
    }
}

fn place(name: &str, text: &str) -> Result<u32, ApiError> {
    let plain = !text.is_empty() && text.len() <= PLACE_DIGITS_MAX && text.bytes().all(|byte| byte.is_ascii_digit());
    // Leading zeros would give two names to one place.
    let number = text.parse().ok().filter(|number| plain && *number > 0 && !text.starts_with('0'));
    number.ok_or_else(|| {
        let message = format!("{name}.{} is not an index in a list: they start at 1", shown(text));
        INVALID_PARAMETER.error(message).field(name)
    })
}

fn number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    // `parse` alone would also accept a plus sign.
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

/// The refusal of an invalid value.
pub(in crate::ecs) fn not_valid(name: &str) -> ApiError {
    INVALID_PARAMETER.error(format!("The specified parameter \"{name}\" is not valid.")).field(name)
}

/// The part of a client's text that a response repeats.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Parameters {
        Parameters::new(read_pairs(text).unwrap()).unwrap()
    }

    #[test]
    fn lists_keep_their_order_over_gaps() {
        let parameters = read("P.10.A=x&P.2.A=y&P.2.B.1=z&L.3=c&L.1=a&L.2=&O.F=1&J=%5B%22a%22%5D&Tag.1.key=k");
        let objects = parameters.objects("P").unwrap();
        assert_eq!(objects.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [2, 10]);
        assert_eq!(objects[0].1.list("B").unwrap(), ["z"]);
        assert_eq!(parameters.list("L").unwrap(), ["a", "c"]);
        assert_eq!(parameters.object("O").text("F"), Some("1"));
        assert_eq!(parameters.json_list("J").unwrap().unwrap(), ["a"]);
        assert_eq!(read("J=['a', 'b']").json_list("J").unwrap().unwrap(), ["a", "b"]);
        assert!(read("J=a,b").json_list("J").is_err());
        assert_eq!(parameters.objects("Tag").unwrap()[0].1.text("Key"), Some("k"));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in ["L.0=a", "L.x=a", "L.01=a", "L.99999999999=a", "L.-1=a", "L.+1=a", "L.=a"] {
            assert!(read(text).list("L").is_err(), "{text}");
        }
        assert!(read("P.1=a").objects("P").is_err());
        assert!(Parameters::new(read_pairs("a=1&a=2").unwrap()).is_err());
        assert!(Parameters::new(read_pairs("a=1&a=1").unwrap()).is_ok());
        assert!(read_pairs("a=%ff").is_err());
        assert!(read_pairs(&"a=1&".repeat(PARAMETERS_MAX + 1)).is_err());
    }

    #[test]
    fn numbers_and_truths_are_strict() {
        let parameters = read("a=12&b=-3&c=+3&d=1e3&e=99999999999999999999&t=True&f=FALSE&n=no");
        assert_eq!(parameters.integer("a").unwrap(), Some(12));
        assert_eq!(parameters.integer("b").unwrap(), Some(-3));
        for name in ["c", "d", "e"] {
            assert!(parameters.integer(name).is_err(), "{name}");
        }
        assert_eq!(parameters.boolean("t").unwrap(), Some(true));
        assert_eq!(parameters.boolean("f").unwrap(), Some(false));
        assert!(parameters.boolean("n").is_err());
    }
}
