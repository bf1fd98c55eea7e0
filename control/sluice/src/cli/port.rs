//! `sluice port`.

use super::objects::eni::{self, EniVerb};
use super::output::list;
use super::{CliError, CliSession};
use clap::Subcommand;
use control::command::{EniDetach, PortSpecification};
use control::socket::query::{Answer, Nothing, Query};

/// The verbs of `sluice port`.
#[derive(Debug, Subcommand)]
pub(crate) enum PortVerb {
    /// List all ports, and why those that are down are.
    List,
    /// Attach an ENI to a TAP device, an interface or a socket. Nothing passes before its rules are in force.
    Attach {
        /// The ENI.
        eni: String,
        #[command(flatten)]
        port: PortSpecification,
    },
    /// Unplug an ENI; its sessions end.
    Detach(EniDetach),
}

pub(super) fn run(session: &CliSession, verb: PortVerb) -> Result<(), CliError> {
    match verb {
        PortVerb::List => list_ports(session),
        PortVerb::Attach { eni, port } => eni::run(session, EniVerb::Attach { eni, port }),
        PortVerb::Detach(detach) => eni::run(session, EniVerb::Detach(detach)),
    }
}

fn list_ports(session: &CliSession) -> Result<(), CliError> {
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
