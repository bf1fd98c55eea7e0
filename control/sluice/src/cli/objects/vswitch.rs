//! `sluice vswitch`: the subnets, and without a verb the forwarding plane.

use crate::cli::output::{fields, list};
use crate::cli::{CliError, CliSession, up};
use clap::{Args, Subcommand};
use control::command::{self, Command};
use control::socket::query::{Answer, Query, VswitchFilter, VswitchShow};
use control::socket::view::VSwitchView;

/// A verb, or the forwarding plane's own settings.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct VswitchNounArguments {
    /// What to do with subnets; nothing to run the forwarding plane.
    #[command(subcommand)]
    pub(crate) verb: Option<VswitchVerb>,
    /// How to run the forwarding plane.
    #[command(flatten)]
    pub(crate) plane: up::VswitchArguments,
}

/// What can be done with subnets.
#[derive(Debug, Subcommand)]
pub(crate) enum VswitchVerb {
    /// Make a subnet: `sluice vswitch create --vpc vpc-lab --cidr 10.0.1.0/24`.
    Create(VswitchCreateOptions),
    /// All subnets.
    List {
        /// Only those of this VPC.
        #[arg(long)]
        vpc: Option<String>,
    },
    /// One subnet.
    Show {
        /// The subnet.
        vswitch: String,
    },
    /// Change a subnet's name, description or IPv6 block.
    Modify(VswitchModifyOptions),
    /// Remove a subnet without ENIs.
    Delete {
        /// The subnet.
        vswitch: String,
    },
}

/// A new subnet.
#[derive(Debug, Args)]
pub(crate) struct VswitchCreateOptions {
    /// Its identifier, vsw-…; made up if absent.
    #[arg(long)]
    id: Option<String>,
    /// The VPC it is part of.
    #[arg(long)]
    vpc: String,
    /// Its IPv4 block, inside the VPC's.
    #[arg(long)]
    cidr: String,
    /// Its IPv6 block, a /64 inside the VPC's.
    #[arg(long)]
    ipv6_cidr: Option<String>,
    /// A name for people.
    #[arg(long)]
    name: Option<String>,
    /// What it is for.
    #[arg(long)]
    description: Option<String>,
}

/// Changes to a subnet.
#[derive(Debug, Args)]
pub(crate) struct VswitchModifyOptions {
    /// The subnet.
    vswitch: String,
    /// A new name.
    #[arg(long)]
    name: Option<String>,
    /// A new description.
    #[arg(long)]
    description: Option<String>,
    /// An IPv6 block for a subnet without one.
    #[arg(long)]
    ipv6_cidr: Option<String>,
}

pub(crate) fn run(session: &CliSession, verb: VswitchVerb) -> Result<(), CliError> {
    match verb {
        VswitchVerb::Create(VswitchCreateOptions { id, vpc, cidr, ipv6_cidr, name, description }) => {
            let create = command::VswitchCreate { id, vpc, cidr, ipv6_cidr, name, description };
            session.change(Command::VswitchCreate(create))
        }
        VswitchVerb::Modify(VswitchModifyOptions { vswitch, name, description, ipv6_cidr }) => {
            let modify = command::VswitchModify { vswitch, name, description, ipv6_cidr };
            session.change(Command::VswitchModify(modify))
        }
        VswitchVerb::Delete { vswitch } => session.change(Command::VswitchDelete(command::VswitchDelete { vswitch })),
        VswitchVerb::List { vpc } => {
            if let Answer::Vswitches(vswitches) = session.ask(Query::VswitchList(VswitchFilter { vpc }))? {
                let headings = ["vswitch", "name", "vpc", "cidr", "gateway", "ipv6", "enis"];
                session.output.table(&vswitches, headings, |vswitch| {
                    [
                        vswitch.id.to_string(),
                        vswitch.name.clone(),
                        vswitch.vpc.to_string(),
                        vswitch.cidr.to_string(),
                        vswitch.gateway.to_string(),
                        list(vswitch.ipv6_cidr),
                        vswitch.enis.to_string(),
                    ]
                });
            }
            Ok(())
        }
        VswitchVerb::Show { vswitch } => {
            if let Answer::Vswitch(vswitch) = session.ask(Query::VswitchShow(VswitchShow { vswitch }))? {
                session.output.show(&vswitch, told);
            }
            Ok(())
        }
    }
}

fn told(vswitch: &VSwitchView) -> String {
    fields(&[
        ("vswitch", vswitch.id.to_string()),
        ("name", vswitch.name.clone()),
        ("description", vswitch.description.clone()),
        ("vpc", vswitch.vpc.to_string()),
        ("cidr", vswitch.cidr.to_string()),
        ("gateway", vswitch.gateway.to_string()),
        ("ipv6 cidr", list(vswitch.ipv6_cidr)),
        ("ipv6 gateway", list(vswitch.ipv6_gateway)),
        ("enis", vswitch.enis.to_string()),
        ("created", vswitch.created.clone()),
    ])
}
