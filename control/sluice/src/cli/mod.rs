//! The command line: nouns and verbs over the control socket, one file a noun.
//!
//! Every command is a request and a way to show its answer; with `--json` the answer is shown as it came.

mod apply;
mod completions;
mod conform;
mod down;
mod explain;
mod flow;
mod lab;
pub(crate) mod namespace;
mod objects;
pub(crate) mod output;
pub(crate) mod paths;
mod port;
mod privileges;
mod stats;
mod status;
pub(crate) mod up;
mod workers;

use clap::{Parser, Subcommand};
use control::socket::client::{Client, ClientError};
use objects::{eni, port_list, prefix_list, rule, security_group, settings, vpc, vswitch};
use output::Output;
use paths::Paths;
use std::process::ExitCode;

/// A userspace virtual switch with the security groups of a public cloud.
///
/// Start it with `sluice up`, describe a lab in a file and `sluice apply` it, or build one by hand with the nouns
/// below. A change to a rule returns when no packet can be judged by the old rules any more.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, propagate_version = true, max_term_width = 110)]
pub(crate) struct Arguments {
    /// Show answers as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    paths: Paths,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run Sluice on this machine: both planes, supervised.
    Up(up::Arguments),
    /// End Sluice on this machine, remove the network namespaces and TAP devices that it made, and give interfaces that exist
    /// back to the kernel. A mere end does none of that.
    Down,
    /// Run the control plane alone.
    Control(up::ControlArguments),
    /// Both planes at a glance, or what each process may do.
    Status(status::Arguments),
    /// Make the state what a file says, and show what changes.
    Apply(apply::Arguments),
    /// VPCs: private networks that may have the same addresses.
    #[command(subcommand)]
    Vpc(vpc::Verb),
    /// vSwitches, the subnets of a VPC; without a verb, run the forwarding plane alone.
    Vswitch(vswitch::Arguments),
    /// ENIs: the network interfaces of guests.
    #[command(subcommand)]
    Eni(eni::Verb),
    /// Security groups and their members.
    #[command(subcommand)]
    Sg(security_group::Verb),
    /// The rules of security groups.
    #[command(subcommand)]
    Rule(rule::Verb),
    /// Lists of address prefixes that rules may name.
    #[command(subcommand)]
    PrefixList(prefix_list::Verb),
    /// Lists of ports that rules may name.
    #[command(subcommand)]
    PortList(port_list::Verb),
    /// Choices that the cloud leaves open.
    #[command(subcommand)]
    Settings(settings::Verb),
    /// The ports of the forwarding plane.
    #[command(subcommand)]
    Port(port::Verb),
    /// The sessions of the forwarding plane: list them, end them, see who opens most.
    #[command(subcommand)]
    Flow(flow::Verb),
    /// The workers of the forwarding plane: what they hold, and how many there are.
    #[command(subcommand)]
    Workers(workers::Verb),
    /// Counters by ENI, direction and drop reason.
    Stats(stats::Arguments),
    /// Why a packet would pass, or not: the judgement of the very rules that forward.
    #[command(visible_alias = "trace")]
    Explain(explain::Arguments),
    /// Namespaces that ENIs are in.
    #[command(subcommand)]
    Ns(namespace::Verb),
    /// Measure how fast this machine forwards; needs nothing running.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Run conformance cases through the forwarding plane's core; needs nothing running.
    Conform(conform::Arguments),
    /// Print a completion script for a shell.
    Completions(completions::Arguments),
}

/// Why a command failed, to be shown to a person.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The control plane could not be asked, or refused.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// Something on this side.
    #[error("{0}")]
    Usage(String),
}

impl Arguments {
    /// Where things are.
    pub(crate) fn paths(&self) -> &Paths {
        &self.paths
    }
}

/// What a verb needs: the way to the control plane, and the way to show.
pub(crate) struct Session {
    pub(crate) paths: Paths,
    pub(crate) output: Output,
}

impl Session {
    fn connect(&self) -> Result<Client, CliError> {
        Ok(Client::connect(&self.paths.control_socket())?)
    }

    /// Makes a change and shows what became of it.
    pub(crate) fn change(&self, command: control::command::Command) -> Result<(), CliError> {
        let changed = self.connect()?.change(&command)?;
        self.output.changed(&changed);
        Ok(())
    }

    /// Asks a question.
    pub(crate) fn ask(&self, query: control::socket::query::Query) -> Result<control::socket::query::Answer, CliError> {
        Ok(self.connect()?.ask(&query)?)
    }
}

/// Runs every command but those that are processes of their own: `up`, `control`, the forwarding plane, `ns exec`.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let session = Session { paths: arguments.paths, output: Output { json: arguments.json } };
    let done = match arguments.command {
        Command::Up(_) | Command::Control(_) => Ok(()),
        Command::Down => down::run(&session),
        Command::Status(arguments) => match status::run(&session, &arguments) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
        Command::Apply(arguments) => apply::run(&session, &arguments),
        Command::Vpc(verb) => vpc::run(&session, verb),
        Command::Vswitch(arguments) => arguments.verb.map_or(Ok(()), |verb| vswitch::run(&session, verb)),
        Command::Eni(verb) => eni::run(&session, verb),
        Command::Sg(verb) => security_group::run(&session, verb),
        Command::Rule(verb) => rule::run(&session, verb),
        Command::PrefixList(verb) => prefix_list::run(&session, verb),
        Command::PortList(verb) => port_list::run(&session, verb),
        Command::Settings(verb) => settings::run(&session, verb),
        Command::Port(verb) => port::run(&session, verb),
        Command::Flow(verb) => flow::run(&session, verb),
        Command::Workers(verb) => workers::run(&session, verb),
        Command::Stats(arguments) => stats::run(&session, arguments),
        Command::Explain(arguments) => explain::run(&session, arguments),
        Command::Ns(verb) => namespace::run(&session, verb),
        Command::Conform(arguments) => return conform::run(&session, &arguments),
        Command::Bench(measurement) => return bench::run(&measurement, session.output.json),
        Command::Completions(arguments) => {
            completions::print(&arguments);
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            session.output.error(&error);
            ExitCode::FAILURE
        }
    }
}
