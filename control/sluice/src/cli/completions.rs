//! `sluice completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Which shell: `sluice completions bash > /etc/bash_completion.d/sluice`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The shell.
    shell: Shell,
}

pub(super) fn print(arguments: &Arguments) {
    clap_complete::generate(arguments.shell, &mut super::Arguments::command(), "sluice", &mut std::io::stdout());
}
