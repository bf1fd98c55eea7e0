//! Seeded worlds in virtual time: random packets and random changes, held against the oracle.
//!
//! A failure names its seed and how to replay it; `SLUICE_SEED=<seed>` runs that world alone. `SLUICE_SIMULATION_S` sets
//! how long new seeds are tried by each simulation, `SLUICE_SIMULATION_PACKETS` and `SLUICE_SIMULATION_CHANGES` how many
//! packets and changes there have to be besides.

#[path = "simulation/changes.rs"]
mod changes;
#[path = "simulation/conversation.rs"]
mod conversation;
#[path = "simulation/endpoints.rs"]
mod endpoints;
#[path = "simulation/networks.rs"]
mod networks;
#[path = "simulation/paths.rs"]
mod paths;
#[path = "simulation/shards.rs"]
mod shards;
#[path = "simulation/sides.rs"]
mod sides;
#[path = "simulation/twin.rs"]
mod twin;
#[path = "simulation/uplinks.rs"]
mod uplinks;
#[path = "simulation/workers.rs"]
mod workers;

use std::time::{Duration, Instant};

const SECONDS_DEFAULT: u64 = 15;

/// A number that the environment asks for; 0 if it does not.
fn wanted(name: &str) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Runs one world after the other until the time is up and enough was seen, or the one that is asked for.
fn until<T>(is_enough: impl Fn(&T) -> bool, seen: &mut T, mut run: impl FnMut(u64, &mut T)) {
    let mut last = 0;
    for_each_seed(|seed| {
        run(seed, seen);
        last = seed;
    });
    while std::env::var("SLUICE_SEED").is_err() && !is_enough(seen) {
        last += 1;
        run(last, seen);
    }
}

/// Runs one world after the other until the time is up, or the one that is asked for.
fn for_each_seed(mut run: impl FnMut(u64)) {
    if let Ok(text) = std::env::var("SLUICE_SEED") {
        return run(text.parse().expect("SLUICE_SEED is a number"));
    }
    let seconds = std::env::var("SLUICE_SIMULATION_S").ok().and_then(|text| text.parse().ok());
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(SECONDS_DEFAULT));
    let mut seed = 1;
    while Instant::now() < until {
        run(seed);
        seed += 1;
    }
    println!("{} worlds", seed - 1);
}
