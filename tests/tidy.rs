//! The rules of the house, held against the files that are tracked. Ratchets only tighten.

#[path = "tidy/comments.rs"]
mod comments;
#[path = "tidy/layout.rs"]
mod layout;
#[path = "tidy/parameters.rs"]
mod parameters;

use std::path::{Path, PathBuf};
use std::process::Command;
use vswitch_core::packet::verdict::DropReason;

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const WORDS_BANNED_IN_NAMES: [&str; 5] = ["util", "helper", "common", "manager", "misc"];

/// The files that may hold `unsafe` code.
const UNSAFE_FILES: [&str; 9] = [
    "vswitch/src/os/sys.rs",
    "vswitch/src/os/io_uring.rs",
    "vswitch/src/port/af_packet/socket.rs",
    "vswitch/src/port/af_xdp/socket.rs",
    "vswitch/src/os/bus_error.rs",
    "vswitch/src/port/vhost_user/guest_memory.rs",
    "vswitch/src/port/vhost_user/ring_memory.rs",
    "vswitch/core/src/hw/prefetch.rs",
    "vswitch/core/src/hw/simd.rs",
];

struct SourceFile {
    path: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace holds this package")
}

fn tracked() -> Vec<String> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().expect("git runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("names are text");
    names.split('\0').filter(|name| !name.is_empty() && root().join(name).is_file()).map(Into::into).collect()
}

fn read(path: String) -> Option<SourceFile> {
    let bytes = std::fs::read(root().join(PathBuf::from(&path))).expect("a tracked file can be read");
    Some(SourceFile { path, text: String::from_utf8(bytes).ok()? })
}

fn sources() -> Vec<SourceFile> {
    tracked().into_iter().filter(|path| path.ends_with(".rs")).filter_map(read).collect()
}

fn assert_none(what: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{what}:\n  {}", violations.join("\n  "));
}

/// The lines with a violation, by file and number.
fn lines_where(sources: &[SourceFile], is_violation: impl Fn(&SourceFile, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for (number, line) in source.text.lines().enumerate() {
            if is_violation(source, line) {
                found.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    found
}

/// The code of a line: without its comment, and without what stands in quotes.
fn code(line: &str) -> String {
    let mut code = String::new();
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if quoted => drop(characters.next()),
            '"' => quoted = !quoted,
            '\'' if !quoted && is_character(&mut characters.clone()) => {
                if characters.next() == Some('\\') {
                    characters.next();
                }
                characters.next();
            }
            '/' if !quoted && characters.peek() == Some(&'/') => break,
            _ if quoted => {}
            other => code.push(other),
        }
    }
    code
}

/// Whether a character literal follows, not a lifetime.
fn is_character(rest: &mut dyn Iterator<Item = char>) -> bool {
    match rest.next() {
        Some('\\') => true,
        Some(_) => rest.next() == Some('\''),
        None => false,
    }
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == word)
}

#[test]
fn files_are_short() {
    let long = sources().into_iter().map(|source| (source.text.lines().count(), source.path));
    let long: Vec<String> = long
        .filter(|(lines, _)| *lines > FILE_LINES_MAX)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert_none("a file has at most 600 lines", &long);
}

/// Functions by the line they start in and their length: from `fn` to the line where its braces are closed.
fn functions(text: &str) -> Vec<(usize, usize)> {
    let mut open: Vec<(usize, i64)> = Vec::new();
    let mut awaits_body: Option<usize> = None;
    let mut depth = 0i64;
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = code(line);
        if awaits_body.is_none() && has_word(&code, "fn") && code.contains('(') && !code.contains("fn(") {
            awaits_body = Some(number);
        }
        for character in code.chars() {
            match character {
                '{' => {
                    if let Some(start) = awaits_body.take() {
                        open.push((start, depth));
                    }
                    depth += 1;
                }
                '}' => {
                    depth -= 1;
                    if let Some((start, _)) = open.pop_if(|(_, at)| *at == depth) {
                        found.push((start + 1, number + 1 - start));
                    }
                }
                ';' if depth == open.last().map_or(depth, |(_, at)| at + 1) => awaits_body = None,
                _ => {}
            }
        }
    }
    found
}

#[test]
fn functions_are_short() {
    let mut long = Vec::new();
    for source in sources() {
        for (start, lines) in functions(&source.text).into_iter().filter(|(_, lines)| *lines > FUNCTION_LINES_MAX) {
            long.push(format!("{}:{start}: {lines} lines", source.path));
        }
    }
    assert_none("a function has at most 70 lines", &long);
}

#[test]
fn functions_are_measured() {
    let text = "fn one() {\n    let x = '{';\n}\nimpl A {\n    fn two(\n    ) -> B {\n        \"}\"; // }\n    }\n}\ntrait T {\n    fn t();\n}\nfn three() { f(|| { 1 }) }\n";
    assert_eq!(functions(text), [(1, 3), (5, 4), (13, 1)]);
}

#[test]
fn prose_is_at_most_120_columns_wide() {
    // These are generated, with what is said of one thing in a line.
    const GENERATED: [&str; 2] = ["docs/api.md", "docs/commands.md"];
    let is_written = |path: &String| path.ends_with(".md") && !GENERATED.contains(&path.as_str());
    let pages = tracked().into_iter().filter(is_written).filter_map(read);
    let mut wide = Vec::new();
    for page in pages {
        let mut is_fenced = false;
        for (number, line) in page.text.lines().enumerate() {
            is_fenced ^= line.starts_with("```");
            let is_table = line.starts_with('|');
            if !is_fenced && !is_table && line.chars().count() > 120 {
                wide.push(format!("{}:{}", page.path, number + 1));
            }
        }
    }
    assert_none("prose has at most 120 columns", &wide);
}

#[test]
fn names_of_files_say_what_is_inside() {
    let banned = |path: &String| {
        let parts: Vec<&str> = path.split(['/', '.', '_', '-']).collect();
        WORDS_BANNED_IN_NAMES.iter().any(|word| parts.iter().any(|part| part.trim_end_matches('s') == *word))
    };
    assert_none(
        "a thing without a name has not been understood",
        &tracked().into_iter().filter(banned).collect::<Vec<_>>(),
    );
}

#[test]
fn directions_have_one_name() {
    let outside_of_ports: Vec<SourceFile> = sources()
        .into_iter()
        .filter(|source| !source.path.contains("/port/") && source.path != "tests/tidy.rs")
        .collect();
    // A receive queue of a device is called so everywhere.
    let is_abbreviated = |name: &str| name.replace("rx_queue", "").split('_').any(|part| part == "rx" || part == "tx");
    let found = lines_where(&outside_of_ports, |_, line| {
        code(line).split(|c: char| !c.is_alphanumeric() && c != '_').any(is_abbreviated)
    });
    assert_none("egress leaves the guest, ingress enters it", &found);
}

#[test]
fn unsafe_code_stays_where_it_is_proven() {
    let others: Vec<SourceFile> = sources()
        .into_iter()
        .filter(|source| !UNSAFE_FILES.iter().any(|allowed| source.path.starts_with(allowed)))
        .collect();
    let found = lines_where(&others, |_, line| has_word(&code(line), "unsafe"));
    assert_none("DESIGN D11 names the files of unsafe code", &found);
}

/// What a process that runs for long may not do: print, which panics where a reader is gone or a disk is full, and start a
/// thread in the way that panics where there is none.
#[test]
fn what_the_system_may_refuse_ends_no_process() {
    const PANICS: [&str; 6] = ["print!(", "println!(", "eprint!(", "eprintln!(", "thread::spawn(", "scope.spawn("];
    let is_long_running = |path: &str| {
        let planes = ["control/src/", "vswitch/src/", "control/sluice/src/supervisor/", "control/sluice/src/main.rs"];
        planes.iter().any(|plane| path.starts_with(plane)) && !path.starts_with("control/src/conform/")
    };
    let planes: Vec<SourceFile> = sources()
        .into_iter()
        .filter(|source| is_long_running(&source.path))
        .map(|source| SourceFile {
            text: source.text.split("#[cfg(test)]").next().unwrap_or_default().into(),
            ..source
        })
        .collect();
    assert!(planes.len() > 50, "the planes are somewhere else by now");
    let found = lines_where(&planes, |_, line| PANICS.iter().any(|panics| code(line).contains(panics)));
    assert_none("log by `log`, announce by `logging.rs`, and start threads by a `Builder`", &found);
}

/// Text that people read names things as they do. `{:?}` shows how a value is kept, such as `GroupId("sg-1")`; what somebody
/// wrote is repeated by `ids::quoted`.
#[test]
fn no_text_shows_how_a_value_is_kept() {
    // A hash of a request, which nobody reads.
    const HASHES: &str = "control/src/server/calls.rs";
    let is_shown = |path: &str| {
        let folders = ["control/src/", "vswitch/src/", "vswitch/core/src/"];
        folders.iter().any(|folder| path.starts_with(folder)) && path != HASHES
    };
    let shown: Vec<SourceFile> = sources()
        .into_iter()
        .filter(|source| is_shown(&source.path) && !source.path.ends_with("tests.rs"))
        .map(|source| SourceFile {
            text: source.text.split("#[cfg(test)]").next().unwrap_or_default().into(),
            ..source
        })
        .collect();
    assert!(shown.len() > 50, "the sources are somewhere else by now");
    let is_debug = |line: &str| {
        let specifications = line.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(inside, _)| inside);
        let mut debug = specifications.filter(|inside| inside.ends_with('?') && inside.contains(':'));
        debug.next().is_some()
    };
    let is_check = |line: &str| ["assert", "unreachable!", "panic!"].iter().any(|check| line.contains(check));
    let found = lines_where(&shown, |_, line| is_debug(line) && !is_check(line));
    assert_none("write it as a reader names it", &found);
}

#[test]
fn packages_know_only_those_below_them() {
    let paths = tracked();
    let imports_of = |path: &str, line: &str, package: &str| {
        let code = code(line);
        let named = code.match_indices(&format!("{package}::")).any(|(place, _)| {
            !code[..place].ends_with(|before: char| before.is_alphanumeric() || matches!(before, '_' | ':'))
        });
        // A module beside the file may bear the package's name.
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let own = [format!("{folder}/{package}.rs"), format!("{folder}/{package}/mod.rs")];
        named && !own.iter().any(|module| paths.contains(module))
    };
    let found = lines_where(&sources(), |source, line| {
        let path = source.path.as_str();
        let imports = |line: &str, package: &str| imports_of(path, line, package);
        if path.starts_with("vswitch/core/") {
            ["std", "vswitch", "control", "harness"].iter().any(|package| imports(line, package))
        } else if path.starts_with("vswitch/") {
            imports(line, "control")
        } else if path.starts_with("control/") && !path.starts_with("control/sluice/") {
            ["vswitch", "bench"].iter().any(|package| imports(line, package))
        } else {
            false
        }
    });
    assert_none("core <- vswitch, core <- control, and only `sluice`, `bench` and `tests` know both", &found);
    let dependencies_forbidden: [(&str, &[&str]); 3] = [
        ("vswitch/core/Cargo.toml", &["vswitch.", "control.", "bench.", "tests."]),
        ("vswitch/Cargo.toml", &["control.", "bench.", "tests."]),
        ("control/Cargo.toml", &["vswitch.", "bench.", "tests."]),
    ];
    for (manifest, forbidden) in dependencies_forbidden {
        let text = read(manifest.into()).expect("it is tracked").text;
        let dependencies = text.split("[dev-dependencies]").next().unwrap_or_default();
        let found: Vec<_> =
            dependencies.lines().filter(|line| forbidden.iter().any(|name| line.starts_with(name))).collect();
        assert!(found.is_empty(), "{manifest}: {found:?}");
    }
    let lib = read("vswitch/core/src/lib.rs".into()).expect("it is tracked").text;
    assert!(lib.contains("#![no_std]"), "the compiler guards the purity of the core");
}

#[test]
fn every_drop_reason_has_a_scenario() {
    let verdicts = read("vswitch/core/src/packet/verdict.rs".into()).expect("it is tracked").text;
    let body = verdicts.split("drop_reasons! {").nth(1).and_then(|rest| rest.split("\n}").next()).expect("the table");
    let declared: Vec<&str> = body
        .lines()
        .filter_map(|line| line.trim().split_once(" = \""))
        .map(|(name, _)| name)
        .filter(|name| name.chars().all(char::is_alphanumeric))
        .collect();
    assert_eq!(declared.len(), DropReason::COUNT);
    let scenarios: Vec<SourceFile> =
        sources().into_iter().filter(|source| source.path.starts_with("tests/scenarios")).collect();
    let missing: Vec<String> = declared
        .iter()
        .filter(|name| !scenarios.iter().any(|source| has_reason(&source.text, name)))
        .map(|name| name.to_string())
        .collect();
    assert_none("a drop reason without a scenario is unfinished", &missing);
}

#[test]
fn every_drop_reason_is_told_to_operators() {
    let page = read("docs/semantics.md".into()).expect("it is tracked").text;
    let names = DropReason::ALL.iter().map(|reason| reason.name());
    let missing: Vec<String> = names.filter(|name| !page.contains(&format!("| `{name}` |"))).map(Into::into).collect();
    assert_none("a drop reason is explained in docs/semantics.md", &missing);
}

fn has_reason(text: &str, name: &str) -> bool {
    let wanted = format!("DropReason::{name}");
    text.match_indices(&wanted)
        .any(|(place, _)| !text[place + wanted.len()..].starts_with(|following: char| following.is_alphanumeric()))
}

#[test]
fn nothing_points_at_one_machine_or_waits_to_be_done() {
    let texts: Vec<SourceFile> =
        tracked().into_iter().filter(|path| path != "tests/tidy.rs" && path != "Cargo.lock").filter_map(read).collect();
    let machine = lines_where(&texts, |_, line| {
        let is_path = |folder: &&str| line.contains(&format!("/{folder}/"));
        ["work", "home", "Users"].iter().any(is_path) && !line.contains("://")
    });
    assert_none("a path of one machine", &machine);
    let sources: Vec<SourceFile> = sources().into_iter().filter(|source| source.path != "tests/tidy.rs").collect();
    let waiting = lines_where(&sources, |_, line| ["TODO", "FIXME", "XXX"].iter().any(|mark| has_word(line, mark)));
    assert_none("do it or open an issue", &waiting);
}
