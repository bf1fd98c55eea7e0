//! `sluice settings`.

use crate::cli::output::fields;
use crate::cli::{CliError, CliSession};
use clap::Subcommand;
use control::command::{Command, SettingsModify};
use control::socket::query::{Answer, Nothing, Query};
use vswitch_core::config::desired::Settings;

/// The verbs of `sluice settings`.
#[derive(Debug, Subcommand)]
pub(crate) enum SettingsVerb {
    /// The settings in force.
    Show,
    /// Change settings: `sluice settings modify --smtp-closed true`.
    Modify(SettingsModify),
}

pub(crate) fn run(session: &CliSession, verb: SettingsVerb) -> Result<(), CliError> {
    match verb {
        SettingsVerb::Show => {
            if let Answer::Settings(settings) = session.ask(Query::SettingsShow(Nothing {}))? {
                session.output.show(&settings, told);
            }
            Ok(())
        }
        SettingsVerb::Modify(modify) => session.change(Command::SettingsModify(modify)),
    }
}

fn told(settings: &Settings) -> String {
    let listed = SettingsModify::listed(settings).into_iter().map(|(name, value)| (name.replace('_', "-"), value));
    let listed: Vec<(String, String)> = listed.collect();
    fields(&listed.iter().map(|(name, value)| (name.as_str(), value.clone())).collect::<Vec<_>>())
}
