//! Lists in pages: by number as in older actions, and by token as in newer ones.

use super::call::Context;
use super::parameters::not_valid;
use super::validate::of_parameter;
use crate::error::ApiError;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

/// The default size of a page by number.
const PAGE_SIZE: usize = 10;
/// The largest page by number, unless the action has a limit of its own.
const PAGE_SIZE_MAX: usize = 100;

/// One page of entries, with its page information.
pub(in crate::ecs) struct Page<T> {
    /// The entries.
    pub entries: Vec<T>,
    /// `NextToken`, or `PageNumber`, `PageSize` and `TotalCount`.
    pub about: Map<String, Value>,
}

/// The page that a call asks for. The keys order the entries, ascending unless `down` is set.
///
/// # Errors
/// A token that is not valid, or an impossible page.
pub(in crate::ecs) fn page<T>(
    context: &Context<'_>,
    mut entries: Vec<(String, T)>,
    down: bool,
) -> Result<Page<T>, ApiError> {
    entries.sort_by(|(one, _), (other, _)| if down { other.cmp(one) } else { one.cmp(other) });
    let fact = context.call.action.schema();
    let takes = |name: &str| fact.params.iter().find(|parameter| parameter.name == name);
    let parameters = context.parameters();
    // One action has it in the singular.
    let size_name = if takes("MaxResult").is_some() { "MaxResult" } else { "MaxResults" };
    let by_token = parameters.text(size_name).is_some() || parameters.text("NextToken").is_some();
    let old = takes("PageNumber").is_some() && !by_token;
    let total = entries.len();
    let (start, size) = match old {
        true => {
            let number = parameters.count::<usize>("PageNumber")?.unwrap_or(1).max(1);
            let most = takes("PageSize").and_then(|fact| fact.max).map_or(PAGE_SIZE_MAX, |most| most as usize);
            let size = parameters.count::<usize>("PageSize")?.unwrap_or(PAGE_SIZE).clamp(1, most);
            ((number - 1).saturating_mul(size), size)
        }
        false => {
            let limits = takes(size_name);
            let default = limits.and_then(|fact| fact.default.as_ref()).and_then(Value::as_u64).unwrap_or(10);
            let size = parameters.count::<u64>(size_name)?.unwrap_or(default);
            // Zero is refused where numbers out of range are; clamped, it would be the least size.
            if size == 0 && !limits.is_some_and(|fact| fact.clamp) {
                return Err(not_valid(size_name));
            }
            let least = limits.and_then(|fact| fact.min).map_or(1, |least| least as u64);
            let most = limits.and_then(|fact| fact.max).map_or(100, |most| most as u64);
            let start = match parameters.text("NextToken") {
                None => 0,
                Some(token) => {
                    let after = read_token(token, context.call.action.name)
                        .ok_or_else(|| of_parameter(fact, "NextToken", not_valid("NextToken")))?;
                    // The place is found by order, not by identity: the entry that the token names may be gone by now.
                    entries.partition_point(|(key, _)| if down { *key >= after } else { *key <= after })
                }
            };
            (start, size.clamp(least, most) as usize)
        }
    };
    let end = start.saturating_add(size).min(total);
    // A last page has no token, or clients that loop until there is none would ask once more.
    let token = match (1..total).contains(&end) {
        true => entries.get(end - 1).map(|(key, _)| write_token(key, context.call.action.name)),
        false => None,
    };
    let mut about = Map::new();
    if old {
        about.insert("TotalCount".into(), json!(total));
        about.insert("PageNumber".into(), json!(parameters.integer("PageNumber")?.unwrap_or(1)));
        about.insert("PageSize".into(), json!(size));
    }
    if takes("NextToken").is_some() {
        let asked_for_pages = parameters.text("PageNumber").is_some() || parameters.text("PageSize").is_some();
        let token = token.filter(|_| !asked_for_pages);
        about.insert("NextToken".into(), json!(token.unwrap_or_default()));
    }
    let entries = entries.into_iter().skip(start).take(size).map(|(_, entry)| entry).collect();
    Ok(Page { entries, about })
}

fn write_token(key: &str, action: &str) -> String {
    // The action is part of the token: a key of another action would name a place in another list.
    URL_SAFE_NO_PAD.encode(format!("1 {action} {key}"))
}

fn read_token(token: &str, action: &str) -> Option<String> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    text.strip_prefix("1 ")?.strip_prefix(action)?.strip_prefix(' ').map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_of_one_action() {
        let token = write_token("sg-1", "DescribeSecurityGroups");
        assert_eq!(read_token(&token, "DescribeSecurityGroups").as_deref(), Some("sg-1"));
        assert_eq!(read_token(&token, "DescribeSecurityGroup"), None);
        assert_eq!(read_token("%", "DescribeSecurityGroups"), None);
        assert_eq!(read_token("", "DescribeSecurityGroups"), None);
    }
}
