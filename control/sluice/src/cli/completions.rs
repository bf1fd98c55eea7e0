//! `sluice completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// A completion script: `sluice completions bash > /etc/bash_completion.d/sluice`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// The shell.
    shell: Shell,
}

pub(super) fn print(arguments: &CompletionsArguments) {
    clap_complete::generate(arguments.shell, &mut super::CliArguments::command(), "sluice", &mut std::io::stdout());
}
