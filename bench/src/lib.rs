//! How fast is it? Generated worlds, generated packets, and the time they take in memory, without any port.

pub mod api;
pub mod classify;
mod flat;
mod frames;
mod group_world;
pub mod path;
mod rounds;
mod traffic;
mod world;

use clap::Subcommand;
use std::process::ExitCode;

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// The packet path in memory: egress at one ENI, then ingress at another, on one core.
    Path(path::Arguments),
    /// The classifier alone: packets of no session, against rules of groups, lists and prefixes.
    Classify(classify::Arguments),
    /// The HTTP interface: signed rule changes of many clients, beside a running switch.
    Api(api::Arguments),
}

/// Measures and prints.
pub fn run(bench: &Bench, json: bool) -> ExitCode {
    let report = match bench {
        Bench::Path(arguments) => {
            path::run(arguments).map(|report| report.map(|report| if json { report.json() } else { report.text() }))
        }
        Bench::Classify(arguments) => {
            classify::run(arguments).map(|report| report.map(|report| if json { report.json() } else { report.text() }))
        }
        Bench::Api(arguments) => {
            api::run(arguments).map(|report| Some(if json { report.json() } else { report.text() }))
        }
    };
    match report {
        Ok(report) => {
            report.iter().for_each(|report| println!("{report}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("sluice: {error}");
            ExitCode::FAILURE
        }
    }
}
