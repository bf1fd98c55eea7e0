//! `sluice down`: ends Sluice, and removes what it made on this machine for its guests.

use super::supervisor;
use super::{CliError, Session};
use serde::Serialize;
use vswitch::port::persistent;

/// What was done.
#[derive(Serialize)]
struct Down {
    /// The TAP devices that are gone.
    devices: Vec<String>,
    /// The namespaces that are gone.
    namespaces: Vec<String>,
}

pub(super) fn run(session: &Session) -> Result<(), CliError> {
    supervisor::end_running(&session.paths)?;
    let mut devices = Vec::new();
    let removed = persistent::remove_all(&session.paths.vswitch_socket(), |tap| {
        devices.push(match &tap.namespace {
            Some(namespace) => format!("{} in {namespace}", tap.device),
            None => tap.device.clone(),
        });
    });
    let namespaces = removed.map_err(|error| CliError::Usage(error.to_string()))?;
    let down = Down { devices, namespaces };
    session.output.show(&down, text);
    Ok(())
}

fn text(down: &Down) -> String {
    let devices = down.devices.iter().map(|name| format!("\nTAP device {name} removed"));
    let namespaces = down.namespaces.iter().map(|name| format!("\nnetwork namespace {name} removed"));
    format!("sluice is down{}", devices.chain(namespaces).collect::<String>())
}
