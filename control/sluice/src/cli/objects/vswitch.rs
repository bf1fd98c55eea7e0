//! `sluice vswitch`: the subnets, and without a verb the forwarding plane.

use crate::cli::output::{fields, list};
use crate::cli::{CliError, CliSession, up};
use clap::{Args, Subcommand};
use control::command::{
    Command, VswitchCreate, VswitchDelete, VswitchModify, VswitchReservationModify, VswitchReserve, VswitchUnreserve,
};
use control::socket::query::{Answer, Query, VswitchFilter, VswitchShow};
use control::socket::view::VSwitchView;

/// A verb, or the options of the forwarding plane.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct VswitchNounArguments {
    /// What to do with subnets; without a verb, run the forwarding plane.
    #[command(subcommand)]
    pub(crate) verb: Option<VswitchVerb>,
    /// How to run the forwarding plane.
    #[command(flatten)]
    pub(crate) plane: up::VswitchArguments,
}

/// The verbs of `sluice vswitch`.
#[derive(Debug, Subcommand)]
pub(crate) enum VswitchVerb {
    /// Make a subnet: `sluice vswitch create --vpc vpc-lab --cidr 10.0.1.0/24`.
    Create(VswitchCreate),
    /// All subnets.
    List(VswitchFilter),
    /// One subnet.
    Show(VswitchShow),
    /// Change a subnet's name, description or IPv6 block.
    Modify(VswitchModify),
    /// Remove a subnet without ENIs.
    Delete(VswitchDelete),
    /// Reserve a part of a subnet's block for delegated prefixes: `sluice vswitch reserve vsw-lab --mask 27`.
    Reserve(VswitchReserve),
    /// Change the name or description of a reservation.
    ModifyReservation(VswitchReservationModify),
    /// End a reservation.
    Unreserve(VswitchUnreserve),
}

pub(crate) fn run(session: &CliSession, verb: VswitchVerb) -> Result<(), CliError> {
    match verb {
        VswitchVerb::Create(create) => session.change(Command::VswitchCreate(create)),
        VswitchVerb::Modify(modify) => session.change(Command::VswitchModify(modify)),
        VswitchVerb::Delete(delete) => session.change(Command::VswitchDelete(delete)),
        VswitchVerb::Reserve(reserve) => session.change(Command::VswitchReserve(reserve)),
        VswitchVerb::ModifyReservation(modify) => session.change(Command::VswitchReservationModify(modify)),
        VswitchVerb::Unreserve(unreserve) => session.change(Command::VswitchUnreserve(unreserve)),
        VswitchVerb::List(filter) => {
            if let Answer::Vswitches(vswitches) = session.ask(Query::VswitchList(filter))? {
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
        VswitchVerb::Show(show) => {
            if let Answer::Vswitch(vswitch) = session.ask(Query::VswitchShow(show))? {
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
        ("reserved", list(vswitch.reserved.iter().map(|(id, cidr)| format!("{cidr} as {id}")))),
        ("enis", vswitch.enis.to_string()),
        ("created", vswitch.created.clone()),
    ])
}
