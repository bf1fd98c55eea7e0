//! Names of instances that one call makes: a pattern in a name, or a suffix, numbers them.

/// The name of an instance, by its number from 0, among several that one call makes. `web[7,3]x` yields `web007x`,
/// `web008x` …: the first number is at most 999,999, the least number of digits at most 6. Without a pattern,
/// `is_unique` appends `001`, `002` ….
pub(in crate::ecs) fn nth(name: &str, number: u32, is_unique: bool) -> String {
    match pattern(name) {
        Some((before, first, digits, after)) => format!("{before}{:0digits$}{after}", first + number),
        None if is_unique => format!("{name}{:03}", number + 1),
        None => name.to_owned(),
    }
}

/// The host name of an instance that is given none, in the cloud's form.
pub(in crate::ecs) fn usual_host(id: &str) -> String {
    format!("iZ{}Z", id.strip_prefix("i-").unwrap_or(id))
}

/// What is before and after the pattern of a name, its first number and its digits.
fn pattern(name: &str) -> Option<(&str, u32, usize, &str)> {
    let (before, rest) = name.split_once('[')?;
    let (inside, after) = rest.split_once(']')?;
    let (first, digits) = inside.split_once(',')?;
    let number = |text: &str, most: u32| match text.is_empty() {
        true => Some(0),
        false => text.parse::<u32>().ok().filter(|number| text.bytes().all(|b| b.is_ascii_digit()) && *number <= most),
    };
    Some((before, number(first, 999_999)?, number(digits, 6)? as usize, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_or_a_suffix_numbers_names() {
        for (name, number, is_unique, wanted) in [
            ("web", 0, false, "web"),
            ("web", 0, true, "web001"),
            ("web", 11, true, "web012"),
            ("web[7,3]x", 0, true, "web007x"),
            ("web[7,3]x", 3, false, "web010x"),
            ("web[,]", 2, false, "web2"),
            ("web[99,2]", 1, false, "web100"),
            ("web[1000000,2]", 0, false, "web[1000000,2]"),
            ("web[1,7]", 0, false, "web[1,7]"),
            ("web[+1,2]", 0, false, "web[+1,2]"),
            ("web[1]", 0, false, "web[1]"),
        ] {
            assert_eq!(nth(name, number, is_unique), wanted, "{name} {number} {is_unique}");
        }
    }
}
