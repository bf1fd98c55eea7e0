//! `sluice vpc`.

use crate::cli::output::{fields, list};
use crate::cli::{CliError, CliSession};
use clap::{Args, Subcommand};
use control::command::{self, Command};
use control::socket::query::{Answer, Nothing, Query, VpcShow};
use control::socket::view::VpcView;

/// What can be done with VPCs.
#[derive(Debug, Subcommand)]
pub(crate) enum VpcVerb {
    /// Make a VPC: `sluice vpc create --cidr 10.0.0.0/16 --name lab`.
    Create(VpcCreateOptions),
    /// All VPCs.
    List,
    /// One VPC.
    Show {
        /// The VPC.
        vpc: String,
    },
    /// Change a VPC's name, description or blocks.
    Modify(VpcModifyOptions),
    /// Remove a VPC that nothing is in.
    Delete {
        /// The VPC.
        vpc: String,
    },
    /// Send a destination outside the VPC's subnets to one of its ENIs.
    AddRoute {
        /// The VPC.
        vpc: String,
        /// As in 0.0.0.0/0.
        destination: String,
        /// The ENI that routes it on; its source and destination check has to be off.
        eni: String,
    },
    /// Take a custom route away.
    RemoveRoute {
        /// The VPC.
        vpc: String,
        /// The route's destination.
        destination: String,
    },
}

/// A new VPC.
#[derive(Debug, Args)]
pub(crate) struct VpcCreateOptions {
    /// Its identifier, vpc-…; made up if absent.
    #[arg(long)]
    id: Option<String>,
    /// Its IPv4 block.
    #[arg(long)]
    cidr: String,
    /// Its IPv6 block.
    #[arg(long)]
    ipv6_cidr: Option<String>,
    /// A name for people.
    #[arg(long)]
    name: Option<String>,
    /// What it is for.
    #[arg(long)]
    description: Option<String>,
}

/// Changes to a VPC.
#[derive(Debug, Args)]
pub(crate) struct VpcModifyOptions {
    /// The VPC.
    vpc: String,
    /// A new name.
    #[arg(long)]
    name: Option<String>,
    /// A new description.
    #[arg(long)]
    description: Option<String>,
    /// Another IPv4 block, in which all its subnets of the old one have to be.
    #[arg(long)]
    cidr: Option<String>,
    /// Another IPv6 block, in which those of all its subnets have to be; empty for none.
    #[arg(long)]
    ipv6_cidr: Option<String>,
    /// One more IPv4 block, apart from the others; may be repeated.
    #[arg(long = "add-cidr", value_name = "CIDR")]
    add_cidrs: Vec<String>,
    /// A block that was added and that no subnet is in; may be repeated.
    #[arg(long = "remove-cidr", value_name = "CIDR")]
    remove_cidrs: Vec<String>,
}

pub(crate) fn run(session: &CliSession, verb: VpcVerb) -> Result<(), CliError> {
    match verb {
        VpcVerb::Create(VpcCreateOptions { id, cidr, ipv6_cidr, name, description }) => {
            session.change(Command::VpcCreate(command::VpcCreate { id, cidr, ipv6_cidr, name, description }))
        }
        VpcVerb::Modify(VpcModifyOptions { vpc, name, description, cidr, ipv6_cidr, add_cidrs, remove_cidrs }) => {
            let modify = command::VpcModify { vpc, name, description, cidr, ipv6_cidr, add_cidrs, remove_cidrs };
            session.change(Command::VpcModify(modify))
        }
        VpcVerb::Delete { vpc } => session.change(Command::VpcDelete(command::VpcDelete { vpc })),
        VpcVerb::AddRoute { vpc, destination, eni } => {
            session.change(Command::VpcRouteAdd(command::VpcRouteAdd { vpc, destination, eni, ..Default::default() }))
        }
        VpcVerb::RemoveRoute { vpc, destination } => {
            session.change(Command::VpcRouteRemove(command::VpcRouteRemove { vpc, destination }))
        }
        VpcVerb::List => {
            if let Answer::Vpcs(vpcs) = session.ask(Query::VpcList(Nothing {}))? {
                let headings = ["vpc", "name", "cidr", "ipv6", "vswitches", "groups", "enis"];
                session.output.table(&vpcs, headings, |vpc| {
                    let ipv6 = list(vpc.ipv6_cidr);
                    let counts = [vpc.vswitches.len(), vpc.groups, vpc.enis].map(|count| count.to_string());
                    let [vswitches, groups, enis] = counts;
                    [vpc.id.to_string(), vpc.name.clone(), vpc.cidr.to_string(), ipv6, vswitches, groups, enis]
                });
            }
            Ok(())
        }
        VpcVerb::Show { vpc } => {
            if let Answer::Vpc(vpc) = session.ask(Query::VpcShow(VpcShow { vpc }))? {
                session.output.show(&vpc, told);
            }
            Ok(())
        }
    }
}

fn told(vpc: &VpcView) -> String {
    let routes = vpc.routes.iter().map(|route| format!("{} via {}", route.destination, route.eni));
    fields(&[
        ("vpc", vpc.id.to_string()),
        ("name", vpc.name.clone()),
        ("description", vpc.description.clone()),
        ("cidr", vpc.cidr.to_string()),
        ("secondary cidrs", list(&vpc.secondary_cidrs)),
        ("ipv6 cidr", list(vpc.ipv6_cidr)),
        ("routes", list(routes)),
        ("vswitches", list(&vpc.vswitches)),
        ("groups", vpc.groups.to_string()),
        ("enis", vpc.enis.to_string()),
        ("created", vpc.created.clone()),
    ])
}
