//! The command line: nouns and verbs over the control socket, with one file per noun.
//!
//! Every command is a request and a way to show its answer; with `--json` the answer is printed as it is.

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
#[cfg(test)]
mod reference;
mod stats;
mod status;
pub(crate) mod up;
mod virtual_machine;
mod workers;

use clap::{Parser, Subcommand};
use control::socket::client::{Client, ClientError};
use objects::{eni, nat, port_list, prefix_list, rule, security_group, settings, uplink, vpc, vswitch};
use output::Output;
use paths::Paths;
use std::process::ExitCode;

/// A userspace virtual switch with the security groups of a public cloud.
///
/// Start it with `sluice up`, describe a lab in a file and `sluice apply` it, or build one step by step with the nouns
/// below. A change to a rule returns once no packet can be evaluated by the old rules any more.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, propagate_version = true, max_term_width = 110)]
pub(crate) struct CliArguments {
    /// Show answers as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    paths: Paths,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: CliCommand,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// Run Sluice on this machine: both planes, supervised.
    Up(up::UpArguments),
    /// End Sluice on this machine, remove the network namespaces, TAP devices and tables of nftables that it made, and
    /// return existing interfaces to the kernel. Merely stopping `sluice up` does none of that.
    Down,
    /// Run the control plane alone.
    Control(up::ControlArguments),
    /// Run the services process alone: metadata and name servers for guests.
    Services(up::ServicesArguments),
    /// Both planes at a glance, or what each process may do.
    Status(status::StatusArguments),
    /// Bring the state in line with a file, and show what changes.
    Apply(apply::ApplyArguments),
    /// VPCs: private networks that may have the same addresses.
    #[command(subcommand)]
    Vpc(vpc::VpcVerb),
    /// vSwitches, the subnets of a VPC; without a verb, run the forwarding plane alone.
    Vswitch(vswitch::VswitchNounArguments),
    /// ENIs: the network interfaces of guests.
    #[command(subcommand)]
    Eni(eni::EniVerb),
    /// Security groups and their members.
    #[command(subcommand)]
    Sg(security_group::GroupVerb),
    /// The rules of security groups.
    #[command(subcommand)]
    Rule(rule::RuleVerb),
    /// Lists of address prefixes that rules may name.
    #[command(subcommand)]
    PrefixList(prefix_list::PrefixListVerb),
    /// Lists of ports that rules may name.
    #[command(subcommand)]
    PortList(port_list::PortListVerb),
    /// Uplinks: the way out of a VPC.
    #[command(subcommand)]
    Uplink(uplink::UplinkVerb),
    /// Floating addresses: external addresses that stand for private ones.
    #[command(subcommand)]
    Eip(nat::EipVerb),
    /// NAT gateways: whose entries say how private addresses are translated.
    #[command(subcommand)]
    Nat(nat::NatVerb),
    /// Forwards: ports of external addresses that lead to private ones.
    #[command(subcommand)]
    Forward(nat::ForwardVerb),
    /// Peerings: VPCs that reach each other directly.
    #[command(subcommand)]
    Peering(nat::PeeringVerb),
    /// Settings: choices that the cloud leaves open.
    #[command(subcommand)]
    Settings(settings::SettingsVerb),
    /// The ports of the forwarding plane.
    #[command(subcommand)]
    Port(port::PortVerb),
    /// The sessions of the forwarding plane: list them, end them, or see who opens most.
    #[command(subcommand)]
    Flow(flow::FlowVerb),
    /// The workers of the forwarding plane: their load, and their number.
    #[command(subcommand)]
    Workers(workers::WorkersVerb),
    /// Counters by ENI, direction and drop reason.
    Stats(stats::StatsArguments),
    /// Explain why a packet would pass or not, by the very rules that forward.
    #[command(visible_alias = "trace")]
    Explain(explain::ExplainArguments),
    /// Namespaces that ENIs are in.
    #[command(subcommand)]
    Ns(namespace::NamespaceVerb),
    /// Virtual machines on ENIs.
    #[command(subcommand)]
    Vm(virtual_machine::VmVerb),
    /// Measure how fast this machine forwards. Needs no running Sluice.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Run conformance cases through the forwarding plane's core. Needs no running Sluice.
    Conform(conform::ConformArguments),
    /// Print a completion script for a shell.
    Completions(completions::CompletionsArguments),
}

/// Why a command failed, as a message for people.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The control plane could not be reached, or refused.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// An error in the command itself.
    #[error("{0}")]
    Usage(String),
}

impl CliArguments {
    /// The paths of sockets and state.
    pub(crate) fn paths(&self) -> &Paths {
        &self.paths
    }
}

/// What a verb needs: a connection to the control plane, and the output format.
pub(crate) struct CliSession {
    pub(crate) paths: Paths,
    pub(crate) output: Output,
}

impl CliSession {
    fn connect(&self) -> Result<Client, CliError> {
        Ok(Client::connect(&self.paths.control_socket())?)
    }

    /// Makes a change and shows the result.
    pub(crate) fn change(&self, command: control::command::Command) -> Result<(), CliError> {
        let changed = self.connect()?.change(&command)?;
        self.output.changed(&changed);
        Ok(())
    }

    /// Sends a query.
    pub(crate) fn ask(&self, query: control::socket::query::Query) -> Result<control::socket::query::Answer, CliError> {
        Ok(self.connect()?.ask(&query)?)
    }
}

/// Runs every command except those that become processes of their own: `up`, `control`, the forwarding plane, `ns
/// exec`.
pub(crate) fn run(arguments: CliArguments) -> ExitCode {
    let session = CliSession { paths: arguments.paths, output: Output { json: arguments.json } };
    let done = match arguments.command {
        CliCommand::Up(_) | CliCommand::Control(_) | CliCommand::Services(_) => Ok(()),
        CliCommand::Down => down::run(&session),
        CliCommand::Status(arguments) => match status::run(&session, &arguments) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
        CliCommand::Apply(arguments) => apply::run(&session, &arguments),
        CliCommand::Vpc(verb) => vpc::run(&session, verb),
        CliCommand::Vswitch(arguments) => arguments.verb.map_or(Ok(()), |verb| vswitch::run(&session, verb)),
        CliCommand::Eni(verb) => eni::run(&session, verb),
        CliCommand::Sg(verb) => security_group::run(&session, verb),
        CliCommand::Rule(verb) => rule::run(&session, verb),
        CliCommand::PrefixList(verb) => prefix_list::run(&session, verb),
        CliCommand::PortList(verb) => port_list::run(&session, verb),
        CliCommand::Uplink(verb) => uplink::run(&session, verb),
        CliCommand::Eip(verb) => nat::eip(&session, verb),
        CliCommand::Nat(verb) => nat::nat(&session, verb),
        CliCommand::Forward(verb) => nat::forward(&session, verb),
        CliCommand::Peering(verb) => nat::peering(&session, verb),
        CliCommand::Settings(verb) => settings::run(&session, verb),
        CliCommand::Port(verb) => port::run(&session, verb),
        CliCommand::Flow(verb) => flow::run(&session, verb),
        CliCommand::Workers(verb) => workers::run(&session, verb),
        CliCommand::Stats(arguments) => stats::run(&session, arguments),
        CliCommand::Explain(arguments) => explain::run(&session, arguments),
        CliCommand::Ns(verb) => namespace::run(&session, verb),
        CliCommand::Vm(verb) => virtual_machine::run(&session, verb),
        CliCommand::Conform(arguments) => return conform::run(&session, &arguments),
        CliCommand::Bench(measurement) => return bench::run(&measurement, session.output.json),
        CliCommand::Completions(arguments) => {
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
