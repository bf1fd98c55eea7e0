//! `sluice status`.

use super::output::fields;
use super::{CliError, Session, workers};
use crate::query::{Answer, Nothing, Query};
use crate::view::{ClientsView, StatusView};

pub(super) fn show(session: &Session) -> Result<(), CliError> {
    if let Answer::Status(status) = session.ask(Query::Status(Nothing {}))? {
        session.output.show(&*status, told);
    }
    Ok(())
}

fn clients(clients: &ClientsView) -> String {
    format!(
        "{} of {} connections, {} of {} bytes unfinished, {} refused",
        clients.connections,
        clients.connections_max,
        clients.unfinished_bytes,
        clients.unfinished_bytes_max,
        clients.refused
    )
}

fn told(status: &StatusView) -> String {
    let objects = &status.objects;
    let link = match (&status.link.reason, status.link.connected, status.link.in_sync) {
        (_, true, true) => format!("in force, generation {}", status.link.generation),
        (Some(reason), ..) => format!("NOT in force: {reason}"),
        (None, ..) => "NOT in force yet".into(),
    };
    let head = fields(&[
        ("control plane", format!("process {}, up {} s", status.process_id, status.uptime_ms / 1000)),
        ("state", status.data_dir.clone()),
        (
            "objects",
            format!(
                "{} VPCs, {} vSwitches, {} groups, {} rules, {} prefix lists, {} port lists, {} ENIs",
                objects.vpcs,
                objects.vswitches,
                objects.groups,
                objects.rules,
                objects.prefix_lists,
                objects.port_lists,
                objects.enis
            ),
        ),
        ("rules", link),
        ("socket clients", clients(&status.socket_clients)),
        ("HTTP clients", status.http_clients.as_ref().map(clients).unwrap_or_default()),
    ]);
    let Some(forwarding) = &status.forwarding else {
        return format!("{head}\nforwarding plane  does not answer at {}", status.link.socket);
    };
    let plane = fields(&[(
        "forwarding plane",
        format!(
            "process {}, up {} s, {} ENIs, {} sessions",
            forwarding.process_id,
            forwarding.uptime_ms / 1000,
            forwarding.enis,
            forwarding.flows
        ),
    )]);
    format!("{head}\n{plane}\n\n{}", workers::table(&forwarding.workers))
}
