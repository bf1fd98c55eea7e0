//! `sluice status --privileges`: what each process of Sluice may do.

use super::{CliError, CliSession};
use crate::supervisor::{LockHolder, SupervisorState, holder};
use control::os::privileges::Privileges;
use control::socket::query::{Answer, Nothing, Query};
use control::state::switch_link::ask_status;
use serde::Serialize;
use std::time::Duration;

/// How long to wait for the forwarding plane to say which process it is.
const FORWARDING_TIME: Duration = Duration::from_secs(5);

/// A process and its privileges.
#[derive(Serialize)]
struct ProcessPrivileges {
    /// `supervisor`, `forwarding plane`, `control plane` or `services process`.
    name: &'static str,
    /// Its number; `None` if it does not run.
    process_id: Option<u32>,
    /// Its privileges; `None` if it does not run.
    privileges: Option<Privileges>,
}

/// Shows the processes. Returns whether all of them run.
pub(super) fn show(session: &CliSession) -> Result<bool, CliError> {
    let names = ["supervisor", "forwarding plane", "control plane", "services process"];
    let processes = names.into_iter().zip(process_ids(session)).map(|(name, process_id)| {
        let privileges = process_id.and_then(|process_id| Privileges::of(process_id).ok());
        ProcessPrivileges { name, process_id: process_id.filter(|_| privileges.is_some()), privileges }
    });
    let processes: Vec<ProcessPrivileges> = processes.collect();
    session.output.table(
        &processes,
        ["PROCESS", "PID", "USER", "EFFECTIVE", "PERMITTED", "BOUNDING", "NO NEW PRIVS", "SECCOMP"],
        row,
    );
    Ok(processes.iter().all(|process| process.privileges.is_some()))
}

/// The processes of supervisor, forwarding plane, control plane and services: from the supervisor's state, or from the
/// planes' own answers if there is no supervisor.
fn process_ids(session: &CliSession) -> [Option<u32>; 4] {
    if matches!(holder(&session.paths.supervisor_lock()), LockHolder::Up(_))
        && let Some(state) = SupervisorState::read(&session.paths.supervisor_state())
    {
        let SupervisorState { process_id, forwarding, control, services } = state;
        let others = [forwarding, control, services].map(|plane| plane.process_id);
        return [Some(process_id), others[0], others[1], others[2]];
    }
    let forwarding = ask_status(&session.paths.vswitch_socket(), FORWARDING_TIME).ok().map(|status| status.process_id);
    let control = match session.ask(Query::Status(Nothing {})) {
        Ok(Answer::Status(status)) => Some(status.process_id),
        _ => None,
    };
    [None, forwarding, control, holder(&session.paths.services_lock()).process_id()]
}

fn row(process: &ProcessPrivileges) -> [String; 8] {
    let ProcessPrivileges { name, process_id, privileges } = process;
    let (Some(process_id), Some(privileges)) = (process_id, privileges) else {
        return [name, "", "does NOT run", "", "", "", "", ""].map(str::to_owned);
    };
    [
        (*name).to_owned(),
        process_id.to_string(),
        privileges.user.clone(),
        names(&privileges.effective),
        names(&privileges.permitted),
        names(&privileges.bounding),
        if privileges.no_new_privs { "yes" } else { "NO" }.to_owned(),
        privileges.seccomp.clone(),
    ]
}

/// As in `net_admin,net_raw`; `none` if empty.
fn names(capabilities: &[String]) -> String {
    let short: Vec<String> =
        capabilities.iter().map(|name| name.trim_start_matches("CAP_").to_ascii_lowercase()).collect();
    if short.is_empty() { "none".to_owned() } else { short.join(",") }
}
