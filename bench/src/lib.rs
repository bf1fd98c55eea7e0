//! Benchmarks with generated worlds and packets.

pub mod api;
mod baseline;
mod chart;
mod fixture;
mod flat_rules;
mod in_process_switch;
pub mod path;
mod progress;
pub mod revocation;
pub mod taps;
mod timing;
mod traffic;
pub mod udp;
pub mod update;
pub mod uplink;

use clap::{Args, Subcommand};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

/// The benchmarks.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// The packet path in memory: egress at one ENI, then ingress at another, on one core.
    Path(path::PathArguments),
    /// The way out of a VPC in memory: through an ENI and its uplink and back, with and without translation.
    Uplink(uplink::UplinkArguments),
    /// The HTTP interface: signed rule changes of many clients, beside a running switch.
    Api(api::ApiArguments),
    /// Changes of rules, members and lists while traffic flows over ports in memory: how long until they are in force.
    Update(update::UpdateArguments),
    /// Revocation under load: the time until the reply, and until the last packet of a revoked session.
    Revoke(revocation::RevocationArguments),
    /// Real ports: two namespaces, with kernels and TAP devices at both ends. Needs root.
    Taps(taps::TapsArguments),
    /// Sends UDP packets to `sluice bench receive`, here or on another host: loss, reordering, latency.
    Send(udp::send::SendArguments),
    /// Waits for `sluice bench send` and answers it.
    Receive(udp::receive::ReceiveArguments),
}

/// How to show a measurement.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Show {
    /// Also draw the quantiles to this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Show progress even if standard error is not a terminal.
    #[arg(long)]
    progress: bool,
}

/// The result of a measurement.
trait Report: Serialize {
    /// The result as text.
    fn text(&self) -> String;

    /// The result as a picture.
    fn svg(&self) -> String;
}

/// Runs a measurement and prints the result.
pub fn run(bench: &Bench, json: bool) -> ExitCode {
    let done = match bench {
        Bench::Path(arguments) => path::run(arguments).and_then(|report| print(report, arguments.show(), json)),
        Bench::Uplink(arguments) => {
            uplink::run(arguments).and_then(|report| print(Some(report), arguments.show(), json))
        }
        Bench::Update(arguments) => {
            update::run(arguments).and_then(|report| print(Some(report), arguments.show(), json))
        }
        Bench::Revoke(arguments) => {
            revocation::run(arguments).and_then(|report| print(Some(report), arguments.show(), json))
        }
        Bench::Taps(arguments) => taps::run(arguments).and_then(|report| print(Some(report), arguments.show(), json)),
        Bench::Send(arguments) => {
            udp::send::run(arguments).and_then(|report| print(Some(report), arguments.show(), json))
        }
        Bench::Receive(arguments) => udp::receive::run(arguments, |report| print(Some(report), arguments.show(), json)),
        Bench::Api(arguments) => {
            api::run(arguments).map(|report| println!("{}", if json { report.json() } else { report.text() }))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a result, if there is one.
fn print(report: Option<impl Report>, show: &Show, json: bool) -> Result<(), String> {
    let Some(report) = report else { return Ok(()) };
    if let Some(file) = &show.svg {
        std::fs::write(file, report.svg()).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?);
    } else {
        println!("{}", report.text());
    }
    Ok(())
}
