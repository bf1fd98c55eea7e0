//! What the fuzzers found worth keeping, through the same functions, without a fuzzer.

use harness::fuzz::TARGETS;
use harness::random::Random;
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

/// What a guest asks for is read by a decoder that is not Sluice's own: it is tried with damaged messages in every run.
/// `SLUICE_MUTATIONS` says how many of each.
#[test]
fn damaged_messages_to_services_do_no_harm() {
    let mutations = std::env::var("SLUICE_MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
    for (name, target) in
        TARGETS.into_iter().filter(|(name, _)| ["dhcp", "dhcpv6", "ra", "http", "dns", "nat"].contains(name))
    {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let entries =
            std::fs::read_dir(&folder).expect("a corpus").map(|entry| entry.expect("a readable entry").path());
        let mut paths: Vec<_> = entries.collect();
        paths.sort();
        for (seed, path) in (1..).zip(paths) {
            let (random, whole) = (&mut Random::new(seed), std::fs::read(&path).expect("a readable file"));
            for number in 0..mutations {
                let mut bytes = whole.clone();
                for _ in 0..=random.below(4) {
                    damage(random, &mut bytes);
                }
                // A panic does not name its input, so this does.
                println!("{} with seed {seed}, number {number}: {bytes:02x?}", path.display());
                target(&bytes);
            }
        }
    }
}

/// Changes a byte, preferably of the options, cuts the end off, or repeats a part.
fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let options_at = if bytes.len() > 240 && random.chance(90) { 240 } else { 0 };
    let place = options_at + random.below(bytes.len() - options_at);
    match random.below(8) {
        0 => bytes.truncate(place),
        1 => {
            let part = bytes[place..].to_vec();
            bytes.extend(part);
        }
        2 => drop(bytes.remove(place)),
        3 => bytes[place] = random.pick(&[0, 1, 255]),
        _ => bytes[place] = random.below(256) as u8,
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
