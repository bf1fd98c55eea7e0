//! What the fuzzers found worth keeping, through the same functions, without a fuzzer.

use harness::fuzz::TARGETS;
use std::path::Path;

#[test]
fn the_corpora_do_no_harm() {
    for (name, target) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("a readable entry").path()).collect();
        paths.sort();
        assert!(!paths.is_empty(), "{name} has no corpus");
        for path in &paths {
            // A panic names no file, so this does.
            println!("{}", path.display());
            target(&std::fs::read(path).expect("a readable file"));
        }
        println!("{name}: {} inputs", paths.len());
    }
}

#[test]
fn every_target_has_a_driver() {
    let manifest = include_str!("fuzz/Cargo.toml");
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name} has no driver in tests/fuzz");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
}
