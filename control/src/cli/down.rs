//! `sluice down`: ends Sluice, removes what it made on this machine for its guests, and gives back what it took.

use super::supervisor;
use super::{CliError, Session};
use serde::Serialize;
use vswitch::port::{isolated, persistent};

/// What was done.
#[derive(Serialize)]
struct Down {
    /// The TAP devices that are gone.
    devices: Vec<String>,
    /// The namespaces that are gone.
    namespaces: Vec<String>,
    /// The interfaces that the kernel that hosts them has again.
    interfaces: Vec<String>,
}

pub(super) fn run(session: &Session) -> Result<(), CliError> {
    supervisor::end_running(&session.paths)?;
    let mut down = Down { devices: Vec::new(), namespaces: Vec::new(), interfaces: Vec::new() };
    let socket = session.paths.vswitch_socket();
    // Before the namespaces, with which those in them go.
    let notes = isolated::notes_of(&socket);
    for port in isolated::noted(&notes) {
        isolated::release(&port, Some(&notes)).map_err(|error| CliError::Usage(error.to_string()))?;
        down.interfaces.push(place(port.device, port.namespace));
    }
    for tap in persistent::made_for(&socket) {
        persistent::remove(&tap).map_err(|error| CliError::Usage(error.to_string()))?;
        down.devices.push(place(tap.device, tap.namespace));
    }
    for name in vswitch::namespace::made_for(&socket) {
        vswitch::namespace::remove_if_made(&name).map_err(|error| CliError::Usage(error.to_string()))?;
        down.namespaces.push(name);
    }
    session.output.show(&down, text);
    Ok(())
}

fn place(device: String, namespace: Option<String>) -> String {
    match namespace {
        Some(namespace) => format!("{device} in {namespace}"),
        None => device,
    }
}

fn text(down: &Down) -> String {
    let devices = down.devices.iter().map(|name| format!("\nTAP device {name} removed"));
    let namespaces = down.namespaces.iter().map(|name| format!("\nnetwork namespace {name} removed"));
    let interfaces = down.interfaces.iter().map(|name| format!("\ninterface {name} given back to the kernel"));
    format!("sluice is down{}", devices.chain(namespaces).chain(interfaces).collect::<String>())
}
