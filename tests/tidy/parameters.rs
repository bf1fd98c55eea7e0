//! Parameters of functions that are packed into a tuple: what belongs together has a name, a structure. A ratchet.

use super::{SourceFile, sources};

/// How many there are by package. A lower number belongs here as soon as it is lower.
const PACKED: [(&str, usize); 5] = [
    ("vswitch/core/src/", 65),
    ("vswitch/src/", 5),
    ("control/src/", 13),
    ("control/sluice/src/", 0),
    ("bench/src/", 8),
];

/// What stands between commas that are in no bracket.
fn parts(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (place, character) in list.char_indices().chain([(list.len(), ',')]) {
        match character {
            '(' | '[' | '{' | '<' => depth += 1,
            ')' | ']' | '}' | '>' => depth -= 1,
            ',' if depth == 0 => {
                found.push(list[start..place].trim());
                start = place + 1;
            }
            _ => {}
        }
    }
    found.into_iter().filter(|part| !part.is_empty()).collect()
}

/// The parameters of each function, as they are written.
fn signatures(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (place, _) in text.match_indices("fn ") {
        let rest = &text[place + 3..];
        let name = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(0);
        let (mut depth, mut start) = (0, None);
        // Generic parameters stand before, in brackets of their own; an arrow closes none.
        for (at, character) in rest.char_indices().skip(name) {
            match character {
                '<' | '(' => {
                    depth += 1;
                    if character == '(' && depth == 1 {
                        start = Some(at + 1);
                    }
                }
                '>' if rest[..at].ends_with('-') => {}
                '>' | ')' => {
                    depth -= 1;
                    if let (0, Some(start)) = (depth, start) {
                        found.push(&rest[start..at]);
                        break;
                    }
                }
                '{' | ';' if depth == 0 => break,
                _ => {}
            }
        }
    }
    found
}

/// Whether the type of a parameter is a tuple of several.
fn is_packed(parameter: &str) -> bool {
    let mut depth = 0;
    let colon = parameter.char_indices().find(|(_, character)| {
        depth += i32::from("([{".contains(*character)) - i32::from(")]}".contains(*character));
        depth == 0 && *character == ':'
    });
    let Some((colon, _)) = colon else { return false };
    let tuple = parameter[colon + 1..].trim().trim_start_matches('&').trim_start_matches("mut ");
    tuple.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).is_some_and(|inside| parts(inside).len() > 1)
}

fn packed(source: &SourceFile) -> usize {
    let text = source.text.split("#[cfg(test)]").next().unwrap_or_default();
    signatures(text).iter().flat_map(|list| parts(list)).filter(|parameter| is_packed(parameter)).count()
}

#[test]
fn packed_parameters_are_found() {
    let text =
        "fn a<F: Fn(u8) -> (u8, u8)>(b: F, (c, d): (u8, &[u8; 2]), e: &mut (A, B), f: (A,), g: [(A, B); 2]) {}\n";
    let source = SourceFile { path: String::new(), text: text.into() };
    assert_eq!(packed(&source), 2);
}

#[test]
fn packed_parameters_grow_no_more() {
    for (package, known) in PACKED {
        let count: usize = sources().iter().filter(|source| source.path.starts_with(package)).map(packed).sum();
        assert!(count <= known, "{package} packs {count} parameters into tuples, {known} before: name a structure");
        assert!(count == known, "{package} packs {count} parameters into tuples, fewer than {known}: say so here");
    }
}
