//! `sluice down`: ends Sluice, and removes what it made on this machine for its guests.

use super::supervisor;
use super::{CliError, Session};
use serde::Serialize;

/// What was done.
#[derive(Serialize)]
struct Down {
    /// The namespaces that are gone.
    namespaces: Vec<String>,
}

pub(super) fn run(session: &Session) -> Result<(), CliError> {
    supervisor::end_running(&session.paths)?;
    let mut down = Down { namespaces: Vec::new() };
    for name in vswitch::namespace::made_for(&session.paths.vswitch_socket()) {
        vswitch::namespace::remove_if_made(&name).map_err(|error| CliError::Usage(error.to_string()))?;
        down.namespaces.push(name);
    }
    session.output.show(&down, text);
    Ok(())
}

fn text(down: &Down) -> String {
    let removed = down.namespaces.iter().map(|name| format!("\nnetwork namespace {name} removed"));
    format!("sluice is down{}", removed.collect::<String>())
}
