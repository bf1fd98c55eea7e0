//! How fast is it? Generated worlds, generated packets, and the time they take in memory, without any port.

pub mod path;
mod world;

use clap::Subcommand;
use std::process::ExitCode;

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// The packet path in memory: egress at one ENI, then ingress at another, on one core.
    Path(path::Arguments),
}

/// Measures and prints.
pub fn run(bench: &Bench, json: bool) -> ExitCode {
    match bench {
        Bench::Path(arguments) => match path::run(arguments) {
            Ok(report) => {
                println!("{}", if json { report.json() } else { report.text() });
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("sluice: {error}");
                ExitCode::FAILURE
            }
        },
    }
}
