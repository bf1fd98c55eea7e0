//! The layers of each package, and its words: what once was put in order stays so.

use super::{SourceFile, assert_none, code, has_word, lines_where, read, sources};
use std::collections::{BTreeMap, BTreeSet};

const CORE: &str = "vswitch/core/src/";
/// A package whose rooms stand on each other, from the ground up: a room, or a file at the root, imports only from its own
/// room and from those before it.
struct Package {
    sources: &'static str,
    layers: &'static [&'static str],
}

const PACKAGES: [Package; 3] = [
    Package {
        sources: CORE,
        layers: &[
            "config",
            "hw",
            "packet",
            "tables",
            "conntrack",
            "nat",
            "acl",
            "compile",
            "policy",
            "router",
            "datapath",
            "observe",
        ],
    },
    Package {
        sources: "vswitch/src/",
        layers: &["os", "port", "exchange", "services", "worker", "switch", "config", "daemon"],
    },
    Package {
        sources: "control/src/",
        layers: &[
            "os",
            "logging",
            "refusal_log",
            "environment",
            "error",
            "command",
            "model",
            "store",
            "socket",
            "state",
            "ecs",
            "config",
            "http",
            "server",
            "conform",
        ],
    },
];
const FILES_IN_A_FOLDER_MAX: usize = 16;
/// Names of types of the core that have given way to the field's: docs/glossary.md.
const RETIRED: [&str; 31] = [
    "Passage",
    "Fit",
    "Passages",
    "Way",
    "Ways",
    "Lead",
    "Hearing",
    "Bench",
    "Desk",
    "Seat",
    "Judgement",
    "Ruling",
    "Opening",
    "WentOn",
    "Place",
    "Places",
    "SetsId",
    "Chunks",
    "HostMap",
    "Sheet",
    "RulesOfSets",
    "Spares",
    "ClassRows",
    "Flow",
    "Side",
    "FlowScope",
    "Fate",
    "Cover",
    "Worth",
    "Told",
    "Stale",
];

const RETIRED_IN_THE_SHELL: [&str; 10] =
    ["Crew", "Desk", "Ask", "Surroundings", "PortWish", "Aside", "Recall", "Pacer", "Tally", "Unjudged"];
const RETIRED_IN_CONTROL: [&str; 15] = [
    "Authority",
    "Kept",
    "Wish",
    "Work",
    "Making",
    "Performed",
    "Answered",
    "Asked",
    "Counter",
    "Made",
    "Manner",
    "Gate",
    "Desk",
    "Claim",
    "FarEnd",
];

/// The modules of a package by their paths, each with its code.
fn modules(package: &Package) -> BTreeMap<Vec<String>, String> {
    let module = |source: SourceFile| {
        let path = source.path.strip_prefix(package.sources)?.strip_suffix(".rs")?.to_owned();
        let mut path: Vec<String> = path.split('/').map(Into::into).collect();
        path.pop_if(|last| last == "mod" || last == "lib");
        let text = source.text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned();
        Some((path, text.lines().map(code).collect::<Vec<_>>().join("\n")))
    };
    sources().into_iter().filter_map(module).collect()
}

/// The paths that a tree of imports names.
fn expand(tree: &str) -> Vec<String> {
    let Some((before, rest)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or_default().trim().into()];
    };
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (place, character) in inner.char_indices().chain([(inner.len(), ',')]) {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.extend(expand(&format!("{}{}", before.trim(), inner[start..place].trim())));
                start = place + 1;
            }
            _ => {}
        }
    }
    found
}

/// What a module names of its package: whether only to hand it on, and the path from the root.
fn imports(module: &[String], text: &str, all: &BTreeMap<Vec<String>, String>) -> Vec<(bool, Vec<String>)> {
    let mut trees: Vec<(bool, String)> = Vec::new();
    let mut rest = String::new();
    for statement in text.split(';') {
        match statement.rfind("use ").filter(|place| !statement[..*place].ends_with(|c: char| c.is_alphanumeric())) {
            Some(place) if !statement[place..].contains("fn ") => {
                let visibility = statement[..place].trim_end();
                let hands_on = visibility.ends_with("pub") || visibility.ends_with(')');
                trees.push((hands_on, statement[place + 4..].replace('\n', " ")));
            }
            _ => rest.push_str(statement),
        }
    }
    for (place, _) in rest.match_indices("crate::") {
        let path: String =
            rest[place..].chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':')).collect();
        trees.push((false, path));
    }
    let absolute = |path: String| {
        let mut parts: Vec<String> = path.split("::").map(|part| part.trim().into()).collect();
        let mut base = module.to_vec();
        match parts.first().map(String::as_str) {
            Some("crate") => base.clear(),
            Some("super") => drop(base.pop()),
            Some(child) if all.contains_key(&[module, &[child.to_owned()]].concat()) => parts.insert(0, String::new()),
            _ => return None,
        }
        Some([base, parts.split_off(1)].concat())
    };
    let paths =
        trees.into_iter().flat_map(|(hands_on, tree)| expand(&tree).into_iter().map(move |path| (hands_on, path)));
    paths.filter_map(|(hands_on, path)| Some((hands_on, absolute(path)?))).collect()
}

/// Which module imports which, through what others hand on.
fn graph(package: &Package) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let all = modules(package);
    assert!(all.len() > 30, "{} is somewhere else by now", package.sources);
    let named: BTreeMap<_, _> = all.iter().map(|(module, text)| (module, imports(module, text, &all))).collect();
    let resolve = |mut path: Vec<String>| loop {
        let length = (0..=path.len()).rev().find(|length| all.contains_key(&path[..*length])).unwrap_or(0);
        let module = path[..length].to_vec();
        let item = path.get(length);
        let handed_on =
            named[&module].iter().find(|(hands_on, other)| *hands_on && item.is_some() && other.last() == item);
        match handed_on {
            Some((_, other)) if *other != path => path = other.clone(),
            _ => return module,
        }
    };
    let edges = |module: &Vec<String>| {
        let own = named[module].iter().filter(|(hands_on, path)| {
            let is_used = path.last().is_some_and(|name| all[module].matches(name.as_str()).count() > 1);
            !hands_on || is_used
        });
        own.map(|(_, path)| resolve(path.clone())).filter(|other| other != module && !other.is_empty()).collect()
    };
    all.keys().filter(|module| !module.is_empty()).map(|module| (module.clone(), edges(module))).collect()
}

#[test]
fn no_file_of_the_forwarding_plane_imports_itself_in_a_circle() {
    // In `control` the files of a room share the type of its first page.
    for package in PACKAGES.iter().filter(|package| package.sources.starts_with("vswitch/")) {
        let mut left = graph(package);
        // What imports nothing that is left is in no circle.
        while let Some(done) = left.iter().find(|(_, others)| others.iter().all(|other| !left.contains_key(other))) {
            let done = done.0.clone();
            left.remove(&done);
        }
        let circle: Vec<String> = left
            .iter()
            .map(|(module, others)| {
                let others: Vec<String> =
                    others.iter().filter(|other| left.contains_key(*other)).map(|other| other.join("/")).collect();
                format!("{} imports {}", module.join("/"), others.join(", "))
            })
            .collect();
        assert_none("move a type out of the circle, to a file of its own below", &circle);
    }
}

#[test]
fn layers_import_only_those_below() {
    let mut found = Vec::new();
    for package in &PACKAGES {
        let rank = |module: &[String]| package.layers.iter().position(|layer| *layer == module[0]);
        for (module, others) in graph(package) {
            let own = rank(&module).unwrap_or_else(|| panic!("{}{} is in no layer", package.sources, module.join("/")));
            let above = others.iter().filter(|other| rank(other).is_none_or(|other| other > own));
            found.extend(
                above.map(|other| format!("{}{} imports {}", package.sources, module.join("/"), other.join("/"))),
            );
        }
    }
    assert_none("a room imports only from those below it", &found);
}

#[test]
fn folders_are_small() {
    let mut folders: BTreeMap<String, usize> = BTreeMap::new();
    let others = ["control/sluice/src/", "bench/src/"];
    let folders_held = PACKAGES.iter().map(|package| package.sources).chain(others);
    let folders_held: Vec<&str> = folders_held.collect();
    let is_held = |path: &str| folders_held.iter().any(|held| path.starts_with(held));
    for source in sources().into_iter().filter(|source| is_held(&source.path)) {
        *folders.entry(source.path.rsplit_once('/').map_or("", |(folder, _)| folder).into()).or_default() += 1;
    }
    let large = folders.into_iter().filter(|(_, files)| *files > FILES_IN_A_FOLDER_MAX);
    let large: Vec<String> = large.map(|(folder, files)| format!("{folder}: {files} files")).collect();
    assert_none("at most 16 files in a folder", &large);
}

#[test]
fn every_room_is_named_in_the_readme_of_its_package() {
    let mut missing = BTreeSet::new();
    for package in ["vswitch/core", "vswitch", "vswitch/services", "control", "control/sluice", "bench"] {
        let readme = read(format!("{package}/README.md")).expect("a package has one").text;
        let prefix = format!("{package}/src/");
        for source in sources() {
            let Some(path) = source.path.strip_prefix(&prefix) else { continue };
            // A folder, or a file at the root.
            let room = path.split('/').next().unwrap_or_default();
            let room = room.strip_suffix(".rs").unwrap_or(room);
            if !["lib", "main"].contains(&room) && !room.ends_with("_tests") && !has_word(&readme, room) {
                missing.insert(format!("{package}/README.md: {room}"));
            }
        }
    }
    assert_none("say what it is for", &missing.into_iter().collect::<Vec<_>>());
}

#[test]
fn retired_words_stay_retired() {
    let held: [(&str, &[&str]); 3] =
        [(CORE, &RETIRED), ("vswitch/src/", &RETIRED_IN_THE_SHELL), ("control/src/", &RETIRED_IN_CONTROL)];
    let mut found = Vec::new();
    for (sources_of, retired) in held {
        let own: Vec<SourceFile> = sources().into_iter().filter(|source| source.path.starts_with(sources_of)).collect();
        found.extend(lines_where(&own, |_, line| {
            let code = code(line);
            let defines = ["struct ", "enum ", "trait ", "type "].iter().any(|keyword| code.contains(keyword));
            defines && retired.iter().any(|word| has_word(&code, word))
        }));
    }
    assert_none("docs/glossary.md has the word", &found);
}

/// The types that a file defines, by name and line: those of a macro that describes structures, too.
fn types(text: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut is_described = false;
    for (number, line) in text.lines().enumerate() {
        let code = code(line);
        is_described = (is_described || code.ends_with("! {") && !code.starts_with(' ')) && code != "}";
        let words: Vec<&str> =
            code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect();
        // An indented `type` belongs to a trait.
        let is_keyword = |word: &&str| match *word {
            "struct" | "enum" | "trait" => true,
            "type" => !code.starts_with(' '),
            _ => false,
        };
        let keyword = words.iter().position(is_keyword);
        let is_definition = keyword.is_some_and(|place| {
            words[..place].iter().all(|word| ["pub", "in", "crate", "super", "self", "unsafe"].contains(word))
                || words[0] == "pub"
        });
        let name = match keyword {
            Some(place) if is_definition => words.get(place + 1).copied(),
            _ if is_described => code.strip_prefix("    ").and_then(|rest| rest.strip_suffix(" {")),
            _ => None,
        };
        let is_name = |name: &&str| {
            name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(|c| c.is_alphanumeric() || c == '_')
        };
        found.extend(name.filter(is_name).map(|name| (name.to_owned(), number + 1)));
    }
    found
}

#[test]
fn types_are_found() {
    let text = "pub(in crate::a) struct A;\ntype B = u8;\nimpl T for A {\n    type C = u8;\n    fn f(d: D) {\n        \
                enum E {}\n    }\n}\nvocabulary! {\n    /// A word.\n    F {\n        g: H,\n    }\n}\n";
    let names: Vec<String> = types(text).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["A", "B", "E", "F"]);
}

#[test]
fn the_name_of_a_type_is_unique_in_the_workspace() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources() {
        for (name, line) in types(&source.text) {
            places.entry(name).or_default().push(format!("{}:{line}", source.path));
        }
    }
    assert!(places.len() > 500, "types look different by now");
    let shared = places.into_iter().filter(|(_, places)| places.len() > 1);
    let shared: Vec<String> = shared.map(|(name, places)| format!("{name}: {}", places.join(", "))).collect();
    assert_none("one name, one type: docs/glossary.md", &shared);
}

#[test]
fn the_gate_of_the_fast_path_names_every_stage_and_every_condition_of_a_rule() {
    let text = |path: &str| read(format!("{CORE}{path}")).expect("it is tracked").text;
    let gate = text("datapath/eligibility.rs");
    let body = |text: &str, header: &str| {
        text.split(header).nth(1).and_then(|rest| rest.split("\n}").next()).expect("it is there").to_owned()
    };
    let stages = body(&text("packet/verdict.rs"), "pub enum Stage {\n");
    let stages = stages.lines().filter_map(|line| line.trim().strip_suffix(',').map(|name| format!("Stage::{name}")));
    let fields = body(&text("config/rule.rs"), "pub struct MatchConditions {\n");
    let fields = fields
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub ")?.split(':').next().map(|name| format!("{name}: _")));
    let missing: Vec<String> = stages.chain(fields).filter(|name| !gate.contains(name.as_str())).collect();
    assert_none("decide in datapath/eligibility.rs", &missing);
    let shortcuts = gate
        .lines()
        .filter(|line| code(line).contains("_ =>") || code(line).contains("..}") || code(line).contains(".. }"));
    let allowed = ["_ => false"];
    let shortcuts: Vec<String> =
        shortcuts.filter(|line| !allowed.iter().any(|allowed| line.contains(allowed))).map(Into::into).collect();
    assert_none("the gate has no wildcard", &shortcuts);
}
