//! `sluice conform`.

use super::output::line;
use super::{CliError, CliSession};
use clap::Args;
use control::conform::{CaseOutcome, run_files};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Cases to run: `sluice conform tests/corpus/*.toml`.
#[derive(Debug, Args)]
pub(crate) struct ConformArguments {
    /// Files of cases, JSON or TOML.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

pub(super) fn run(session: &CliSession, arguments: &ConformArguments) -> ExitCode {
    let reports = match run_files(&arguments.files) {
        Ok(reports) => reports,
        Err(error) => {
            session.output.error(&CliError::Usage(error.to_string()));
            return ExitCode::FAILURE;
        }
    };
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for report in &reports {
        let (name, details): (&str, &[String]) = match &report.outcome {
            CaseOutcome::Passed => {
                passed += 1;
                ("passed", &[])
            }
            CaseOutcome::Failed(differences) => {
                failed += 1;
                ("failed", differences)
            }
            CaseOutcome::Skipped(_) => {
                skipped += 1;
                ("skipped", &[])
            }
        };
        if session.output.json {
            let case = json!({ "id": report.id, "title": report.title, "outcome": name, "differences": details });
            line(&case.to_string());
        } else if name == "failed" {
            line(&format!("{} {}\n    {}", report.id, report.title, details.join("\n    ")));
        }
    }
    let others = if skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
    if session.output.json {
        line(&json!({ "passed": passed, "failed": failed, "skipped": skipped }).to_string());
    } else {
        line(&format!("{passed} passed, {failed} failed{others}"));
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
