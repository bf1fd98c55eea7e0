//! `sluice workers`: the threads that forward, and their number.

use super::output::{columns, duration, port_down};
use super::{CliError, CliSession};
use clap::Subcommand;
use control::socket::query::{Answer, Nothing, Query, WorkersSet};
use vswitch_core::config::protocol::{Regrouped, Status, WorkerStatus};

/// The verbs of `sluice workers`.
#[derive(Debug, Subcommand)]
pub(crate) enum WorkersVerb {
    /// Show the workers with their load, and how many of them receive for each port.
    Show,
    /// Change the number of workers while traffic flows: `sluice workers set 2`.
    ///
    /// ENIs move with their sessions, as few as are needed so that no worker has two more than another; setting the
    /// present number evens them out again. Packets already taken from a port arrive, and flows stay in order; frames
    /// wait in their devices for the time that the answer reports. It lasts until the forwarding plane restarts;
    /// `workers` and `rx_queues` in the file for `sluice up --config` are permanent.
    Set(WorkersSet),
}

pub(super) fn run(session: &CliSession, verb: WorkersVerb) -> Result<(), CliError> {
    match verb {
        WorkersVerb::Show => {
            let Answer::Status(status) = session.ask(Query::Status(Nothing {}))? else { return Ok(()) };
            let Some(forwarding) = status.forwarding else {
                return Err(CliError::Usage(format!("the forwarding plane does not answer at {}", status.link.socket)));
            };
            // What is of the workers alone, and not of the plane's state.
            let shown = serde_json::json!({
                "lanes": forwarding.lanes, "lanes_max": forwarding.lanes_max, "workers": forwarding.workers
            });
            session.output.show(&shown, |_| told(&forwarding));
        }
        WorkersVerb::Set(set) => {
            if let Answer::Regrouped(regrouped) = session.ask(Query::WorkersSet(set))? {
                session.output.show(&regrouped, regrouping);
            }
        }
    }
    Ok(())
}

fn told(status: &Status) -> String {
    let lanes = format!("rx queues: {} of at most {}", status.lanes, status.lanes_max);
    format!("{}\n\n{lanes}", table(&status.workers))
}

/// A row for each worker.
pub(super) fn table(workers: &[WorkerStatus]) -> String {
    let headings = ["worker", "core", "enis", "sessions", "room", "turns busy", "turns idle", "sleeps"];
    let row = |(number, worker): (usize, &WorkerStatus)| {
        [
            number.to_string(),
            worker.core.map_or_else(|| "-".into(), |core| core.to_string()),
            worker.enis.to_string(),
            worker.flows.to_string(),
            worker.flows_max.to_string(),
            worker.turns_busy.to_string(),
            worker.turns_idle.to_string(),
            worker.sleeps.to_string(),
        ]
    };
    columns(headings, workers.iter().enumerate().map(row))
}

fn regrouping(regrouped: &Regrouped) -> String {
    let Regrouped { workers, lanes, enis_moved, sessions_moved, pause_ns, ports_down } = regrouped;
    let mut text = format!(
        "workers: {workers}, rx queues: {lanes}, ENIs moved: {enis_moved}, sessions moved: {sessions_moved}, paused: {}",
        duration(*pause_ns)
    );
    ports_down.iter().for_each(|port| text.push_str(&format!("\n{}", port_down(port))));
    text
}
