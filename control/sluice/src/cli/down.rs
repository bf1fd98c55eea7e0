//! `sluice down`: ends Sluice, removes what it made on this machine for its guests, and releases what it took over.

use super::{CliError, CliSession};
use crate::supervisor;
use serde::Serialize;
use vswitch::os::run_dir::RunDir;
use vswitch::port::isolation;
use vswitch::port::tap::persistent;
use vswitch_core::config::desired::TapPort;

/// What was done.
#[derive(Serialize)]
struct Down {
    /// The TAP devices that were removed.
    devices: Vec<String>,
    /// The namespaces that were removed.
    namespaces: Vec<String>,
    /// The interfaces that were returned to the kernel.
    interfaces: Vec<String>,
    /// The tables of nftables that were removed.
    tables: Vec<String>,
}

pub(super) fn run(session: &CliSession) -> Result<(), CliError> {
    supervisor::end_running(&session.paths)?;
    // Before the namespaces, in which some are.
    let tables = supervisor::remove_masquerades(&session.paths.masquerades());
    let socket = session.paths.vswitch_socket();
    let fault = |error: std::io::Error| CliError::Usage(error.to_string());
    let (mut devices, mut interfaces) = (Vec::new(), Vec::new());
    // Before the namespaces, since devices disappear with their namespace.
    let run_dir = RunDir::beside(&socket);
    for port in isolation::recorded(&run_dir) {
        isolation::release(&port, Some(&run_dir)).map_err(fault)?;
        interfaces.push(place(&port.device, port.namespace.as_deref()));
    }
    let is_gone = |tap: &TapPort| devices.push(place(&tap.device, tap.namespace.as_deref()));
    let namespaces = persistent::remove_all(&run_dir, is_gone).map_err(fault)?;
    let down = Down { devices, namespaces, interfaces, tables };
    session.output.show(&down, text);
    Ok(())
}

fn place(device: &str, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("{device} in {namespace}"),
        None => device.to_owned(),
    }
}

fn text(down: &Down) -> String {
    let devices = down.devices.iter().map(|name| format!("\nTAP device {name} removed"));
    let namespaces = down.namespaces.iter().map(|name| format!("\nnetwork namespace {name} removed"));
    let interfaces = down.interfaces.iter().map(|name| format!("\ninterface {name} returned to the kernel"));
    let tables = down.tables.iter().map(|name| format!("\ntable inet {name} removed"));
    format!("sluice is down{}", devices.chain(namespaces).chain(interfaces).chain(tables).collect::<String>())
}
