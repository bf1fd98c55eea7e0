//! Comments in production code: they give reasons that the code cannot, so there is a least share of them.

use super::{SourceFile, sources};

/// The least share of lines that hold a plain comment, in hundredths of a per cent. More is better, up to 6 %.
const SHARE_MIN: usize = 200;

/// Whether a file goes into a program that is delivered, or into the measurements of one.
fn is_production(path: &str) -> bool {
    let mut folders: Vec<&str> = path.split('/').collect();
    let name = folders.pop().unwrap_or_default();
    let is_test = name == "tests.rs" || name.ends_with("_tests.rs");
    let is_delivered = folders.first().is_some_and(|first| ["bench", "control", "vswitch"].contains(first));
    is_delivered && !is_test && !folders.iter().any(|folder| ["benches", "examples", "tests"].contains(folder))
}

/// What comes before the tests at the end of a file.
fn without_tests(text: &str) -> &str {
    let ends = text.match_indices("\n#[cfg(test)]\n").find(|(place, line)| {
        let mut following = text[place + line.len()..].lines().filter(|line| !line.starts_with("#["));
        following.next().is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
    });
    ends.map_or(text, |(place, _)| &text[..=place])
}

/// Lines that hold a plain comment and nothing else, and all lines. `///` and `//!` document an interface; they are
/// lines like any other.
fn count(text: &str) -> (usize, usize) {
    let is_plain = |line: &&str| {
        let rest = line.trim_start().strip_prefix("//");
        rest.is_some_and(|rest| !rest.starts_with(['/', '!']))
    };
    (text.lines().filter(is_plain).count(), text.lines().count())
}

/// All lines of production code count, those of documentation and blank ones included. Comments behind code on the
/// same line do not count.
#[test]
fn comments_give_reasons_in_two_of_a_hundred_lines() {
    let (mut comments, mut lines) = (0, 0);
    for SourceFile { text, .. } in sources().into_iter().filter(|source| is_production(&source.path)) {
        let (more, all) = count(without_tests(&text));
        comments += more;
        lines += all;
    }
    assert!(lines > 0, "there is no production code");
    let share = comments * 10_000 / lines;
    assert!(
        share >= SHARE_MIN,
        "{comments} of {lines} lines of production code are comments, {}.{:02} %; at least {}.{:02} % are: say why, \
         above the statement that a reader would wonder about",
        share / 100,
        share % 100,
        SHARE_MIN / 100,
        SHARE_MIN % 100
    );
}

#[test]
fn only_plain_comments_of_production_code_are_counted() {
    let text = "//! About.\n/// About it.\nfn run() {\n    // Why.\n    go(); // There.\n}\n\n#[cfg(test)]\n\
                #[allow(x)]\nmod tests {\n    // Not this.\n}\n";
    assert_eq!(count(without_tests(text)), (1, 7));
    assert!(is_production("vswitch/core/src/acl/mod.rs"));
    for other in ["tests/tidy.rs", "control/tests/store.rs", "control/src/state/tests.rs", "bench/benches/hot.rs"] {
        assert!(!is_production(other), "{other}");
    }
}
