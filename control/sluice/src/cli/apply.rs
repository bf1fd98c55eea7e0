//! `sluice apply`.

use super::lab::{self, batch};
use super::output::{forwarding, line, warnings};
use super::{CliError, CliSession};
use clap::Args;
use control::socket::client::ClientError;
use control::socket::query::{Answer, Nothing, Query};
use serde_json::json;
use std::path::PathBuf;

/// A lab to make: `sluice apply -f lab.toml`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArguments {
    /// The lab file; - for standard input.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Only show what would change.
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(session: &CliSession, arguments: &ApplyArguments) -> Result<(), CliError> {
    let name = arguments.file.display().to_string();
    let text = if name == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(&name) };
    let text = text.map_err(|error| CliError::Usage(format!("{name}: {error}")))?;
    let in_file = |error: CliError| CliError::Usage(format!("{name}: {error}"));
    let lab = lab::read(&text).map_err(in_file)?;
    let mut client = session.connect()?;
    let Answer::State(state) = client.ask(&Query::StateShow(Nothing {}))? else {
        return Err(CliError::Usage("the control plane does not report its state".into()));
    };
    let steps = lab::plan(&lab, &state).map_err(in_file)?;
    let told: Vec<String> = steps.iter().map(|step| step.told.clone()).collect();
    if !session.output.json {
        let nothing = "nothing to change".to_owned();
        line(&if told.is_empty() { nothing } else { told.join("\n") });
    }
    if arguments.dry_run {
        if session.output.json {
            line(&json!({ "steps": told, "applied": false }).to_string());
        }
        return Ok(());
    }
    // Sent even without a step: what the file says may be stored and not in force yet.
    let changed = client.change(&batch(steps)).map_err(|error| refused_step(error, &told))?;
    if session.output.json {
        line(&json!({ "steps": told, "applied": !told.is_empty(), "changed": changed }).to_string());
        return Ok(());
    }
    let forwarding = forwarding(&changed.forwarding);
    if !forwarding.is_empty() {
        line(&forwarding);
    }
    warnings(&changed.warnings).for_each(|warning| line(&warning));
    Ok(())
}

/// Names the step that was refused, and says that none was carried out.
fn refused_step(error: ClientError, told: &[String]) -> CliError {
    let ClientError::Refused(refused) = &error else { return error.into() };
    let place = refused.field.as_deref().and_then(|field| field.strip_prefix("commands["));
    let number = place.and_then(|rest| rest.split(']').next()?.parse::<usize>().ok());
    match number.and_then(|number| told.get(number)) {
        Some(step) => CliError::Usage(format!("{refused}\nin the step\n{step}\nnothing was changed")),
        None => CliError::Usage(format!("{refused}\nnothing was changed")),
    }
}
