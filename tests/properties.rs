//! Laws that hold for every input: each module draws at random and compares with something slow and obvious.

#[path = "properties/coalesce.rs"]
mod coalesce;
#[path = "properties/configuration.rs"]
mod configuration;
#[path = "properties/filter.rs"]
mod filter;
#[path = "properties/flow.rs"]
mod flow;
#[path = "properties/headers.rs"]
mod headers;
#[path = "properties/many_sets.rs"]
mod many_sets;
#[path = "properties/rates.rs"]
mod rates;
#[path = "properties/segments.rs"]
mod segments;

use proptest::test_runner::Config;

/// `cases` by default; `PROPTEST_CASES` sets another number for all.
fn cases(cases: u32) -> Config {
    let default = Config { failure_persistence: None, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() { default } else { Config { cases, ..default } }
}
