//! How fast is it? Generated worlds, generated packets, and what becomes of them: in memory, without any port.

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

use clap::{Args, Subcommand};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// The packet path in memory: egress at one ENI, then ingress at another, on one core.
    Path(path::PathArguments),
    /// The HTTP interface: signed rule changes of many clients, beside a running switch.
    Api(api::ApiArguments),
    /// Changes of rules, members and lists while traffic flows over ports in memory: how long until they are in force.
    Update(update::UpdateArguments),
    /// Revocation under load: until the reply, and until the last packet that had its ground taken away.
    Revoke(revocation::RevocationArguments),
    /// Real ports: two namespaces, their kernels and TAP devices at both ends. Needs root.
    Taps(taps::TapsArguments),
    /// Sends UDP packets to `sluice bench receive`, here or on another host: loss, reordering, latency.
    Send(udp::send::SendArguments),
    /// Waits for `sluice bench send` and answers it.
    Receive(udp::receive::ReceiveArguments),
}

/// How a measurement shows itself.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Show {
    /// Draw the quantiles into this file too.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Tell how far the run is, also where standard error is no terminal.
    #[arg(long)]
    progress: bool,
}

/// What was measured.
trait Report: Serialize {
    /// For people.
    fn text(&self) -> String;

    /// As a picture.
    fn svg(&self) -> String;
}

/// Measures and prints.
pub fn run(bench: &Bench, json: bool) -> ExitCode {
    let done = match bench {
        Bench::Path(arguments) => path::run(arguments).and_then(|report| print(report, arguments.show(), json)),
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

/// Prints what there is to print.
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
