//! `sluice status`.

use super::output::{fields, port_down};
use super::{CliError, CliSession, privileges, workers};
use crate::supervisor::{LockHolder, SupervisorState, holder};
use clap::Args;
use control::socket::client::ClientError;
use control::socket::query::{Answer, Nothing, Query};
use control::socket::view::{ClientsView, StatusView};
use control::state::switch_link::ask;
use serde::Serialize;
use std::time::Duration;
use vswitch_core::config::protocol::{PortStatus, RequestBody, Status, SwitchReplyBody};

/// How long to wait for the forwarding plane if there is no control plane to ask.
const FORWARDING_TIME: Duration = Duration::from_secs(5);

/// What to show.
#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// Show what each process may do: its user, capabilities, and whether its system calls are filtered.
    #[arg(long)]
    privileges: bool,
}

/// The status without a control plane.
#[derive(Serialize)]
struct WithoutControl {
    /// Why the control plane does not answer.
    control_error: String,
    /// The supervisor's state; `None` if there is none.
    supervisor: Option<SupervisorState>,
    /// What the forwarding plane reports; `None` if it does not answer either.
    forwarding: Option<Status>,
    /// The ports that are not up, and why.
    ports_down: Vec<PortStatus>,
}

/// The status of both planes.
#[derive(Serialize)]
struct WithPorts {
    #[serde(flatten)]
    status: StatusView,
    /// The ports that are not up, and why.
    ports_down: Vec<PortStatus>,
}

fn down(ports: Vec<PortStatus>) -> Vec<PortStatus> {
    ports.into_iter().filter(|port| !port.up).collect()
}

/// Shows what is asked for. Returns whether it is complete.
pub(super) fn run(session: &CliSession, arguments: &StatusArguments) -> Result<bool, CliError> {
    if arguments.privileges { privileges::show(session) } else { show(session) }
}

/// Shows both planes. Returns whether the control plane runs.
fn show(session: &CliSession) -> Result<bool, CliError> {
    let error = match session.ask(Query::Status(Nothing {})) {
        Ok(Answer::Status(status)) => {
            // Without a forwarding plane there is nobody to ask, and no port is up.
            let ports = match status.forwarding {
                Some(_) => session.ask(Query::Ports(Nothing {})),
                None => Ok(Answer::Ports(Vec::new())),
            };
            let ports = if let Ok(Answer::Ports(ports)) = ports { ports } else { Vec::new() };
            session.output.show(&WithPorts { status: *status, ports_down: down(ports) }, told);
            return Ok(true);
        }
        Ok(_) => return Ok(true),
        Err(CliError::Client(error @ (ClientError::Unreachable { .. } | ClientError::Broken { .. }))) => error,
        Err(error) => return Err(error),
    };
    let is_supervised = matches!(holder(&session.paths.supervisor_lock()), LockHolder::Up(_));
    let supervisor = SupervisorState::read(&session.paths.supervisor_state()).filter(|_| is_supervised);
    let socket = session.paths.vswitch_socket();
    let forwarding = match ask(&socket, RequestBody::Status, FORWARDING_TIME) {
        Ok(SwitchReplyBody::Status(status)) => Some(status),
        _ => None,
    };
    let ports = match forwarding.as_ref().map(|_| ask(&socket, RequestBody::Ports, FORWARDING_TIME)) {
        Some(Ok(SwitchReplyBody::Ports { ports })) => ports,
        _ => Vec::new(),
    };
    if supervisor.is_none() && forwarding.is_none() {
        return Err(error.into());
    }
    let without = WithoutControl { control_error: error.to_string(), supervisor, forwarding, ports_down: down(ports) };
    session.output.show(&without, told_without_control);
    Ok(false)
}

fn told_without_control(without: &WithoutControl) -> String {
    let WithoutControl { control_error, supervisor, forwarding, ports_down } = without;
    let (supervisor_text, control) = match supervisor {
        None => ("does NOT run: start it with `sluice up`".into(), format!("does NOT run: {control_error}")),
        Some(state) => {
            let control = match (state.control.process_id, &state.control.reason) {
                (Some(process), _) => format!("process {process}, does NOT answer: {control_error}"),
                (None, Some(reason)) => format!("does NOT run, tried {} times: {reason}", state.control.failures),
                (None, None) => "does NOT run yet".into(),
            };
            (format!("process {}", state.process_id), control)
        }
    };
    let reason = supervisor.as_ref().and_then(|state| state.forwarding.reason.as_ref());
    let forwarding = match (forwarding, reason) {
        (Some(forwarding), _) => format!("{}; keeps generation {}", forwarding_text(forwarding), forwarding.generation),
        (None, Some(reason)) => format!("does NOT answer: {reason}"),
        (None, None) => "does NOT answer".into(),
    };
    let head = fields(&[("supervisor", supervisor_text), ("control plane", control), ("forwarding plane", forwarding)]);
    std::iter::once(head).chain(ports_down.iter().map(port_down)).collect::<Vec<_>>().join("\n")
}

fn forwarding_text(forwarding: &Status) -> String {
    format!(
        "process {}, up {} s, {} ENIs, {} sessions",
        forwarding.process_id,
        forwarding.uptime_ms / 1000,
        forwarding.enis,
        forwarding.flows
    )
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

fn told(WithPorts { status, ports_down }: &WithPorts) -> String {
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
    let plane = fields(&[("forwarding plane", forwarding_text(forwarding))]);
    let ports: String = ports_down.iter().map(|port| format!("\n{}", port_down(port))).collect();
    format!("{head}\n{plane}{ports}\n\n{}", workers::table(&forwarding.workers))
}
