//! `sluice vpc`.

use crate::cli::output::{fields, list};
use crate::cli::{CliError, CliSession};
use clap::Subcommand;
use control::command::{Command, VpcCreate, VpcDelete, VpcModify, VpcRouteAdd, VpcRouteRemove};
use control::socket::query::{Answer, Nothing, Query, VpcShow};
use control::socket::view::VpcView;

/// The verbs of `sluice vpc`.
#[derive(Debug, Subcommand)]
pub(crate) enum VpcVerb {
    /// Make a VPC: `sluice vpc create --cidr 10.0.0.0/16 --name lab`.
    Create(VpcCreate),
    /// All VPCs.
    List,
    /// One VPC.
    Show(VpcShow),
    /// Change a VPC's name, description or blocks.
    Modify(VpcModify),
    /// Remove an empty VPC.
    Delete(VpcDelete),
    /// Route a destination outside the VPC's subnets to one of its ENIs.
    AddRoute(VpcRouteAdd),
    /// Remove a custom route.
    RemoveRoute(VpcRouteRemove),
}

pub(crate) fn run(session: &CliSession, verb: VpcVerb) -> Result<(), CliError> {
    match verb {
        VpcVerb::Create(create) => session.change(Command::VpcCreate(create)),
        VpcVerb::Modify(modify) => session.change(Command::VpcModify(modify)),
        VpcVerb::Delete(delete) => session.change(Command::VpcDelete(delete)),
        VpcVerb::AddRoute(add) => session.change(Command::VpcRouteAdd(add)),
        VpcVerb::RemoveRoute(remove) => session.change(Command::VpcRouteRemove(remove)),
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
        VpcVerb::Show(show) => {
            if let Answer::Vpc(vpc) = session.ask(Query::VpcShow(show))? {
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
        ("ipv6 cidr", list(vpc.ipv6_cidr)),
        ("routes", list(routes)),
        ("vswitches", list(&vpc.vswitches)),
        ("groups", vpc.groups.to_string()),
        ("enis", vpc.enis.to_string()),
        ("created", vpc.created.clone()),
    ])
}
