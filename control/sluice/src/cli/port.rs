//! `sluice port`.

use super::output::list;
use super::{CliError, CliSession};
use clap::Subcommand;
use control::socket::query::{Answer, Nothing, Query};

/// The verbs of `sluice port`.
#[derive(Debug, Subcommand)]
pub(crate) enum PortVerb {
    /// List all ports, and why those that are down are.
    List,
}

pub(super) fn run(session: &CliSession, verb: PortVerb) -> Result<(), CliError> {
    let PortVerb::List = verb;
    if let Answer::Ports(ports) = session.ask(Query::Ports(Nothing {}))? {
        let headings = ["eni", "kind", "device", "namespace", "worker", "state", "failures"];
        session.output.table(&ports, headings, |port| {
            let state = match (&port.error, port.up) {
                (_, true) => "up".into(),
                (Some(error), false) => format!("down: {error}"),
                (None, false) => "down".into(),
            };
            [
                port.eni.to_string(),
                port.kind.clone(),
                list(port.device.as_ref()),
                list(port.namespace.as_ref()),
                port.worker.to_string(),
                state,
                port.failures.to_string(),
            ]
        });
    }
    Ok(())
}
