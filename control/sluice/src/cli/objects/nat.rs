//! `sluice eip`, `sluice nat`, `sluice forward` and `sluice peering`.

use crate::cli::output::list;
use crate::cli::{CliError, CliSession};
use clap::Subcommand;
use control::command::{
    Command, EipAllocate, EipAssociate, EipModify, EipRelease, EipUnassociate, ForwardAdd, ForwardModify,
    ForwardRemove, NatCreate, NatDelete, NatModify, PeeringCreate, PeeringDelete, SnatAdd, SnatModify, SnatRemove,
};
use control::socket::query::{Answer, OutsideFilter, Query};
use control::socket::view::{EipView, NatGatewayView};

/// The verbs of `sluice eip`.
#[derive(Debug, Subcommand)]
pub(crate) enum EipVerb {
    /// Take a floating address: `sluice eip allocate`.
    Allocate(EipAllocate),
    /// All floating addresses.
    List(OutsideFilter),
    /// Change a floating address.
    Modify(EipModify),
    /// Make a floating address stand for a private one: `sluice eip associate eip-a eni-web`.
    Associate(EipAssociate),
    /// End what a floating address stands for.
    Unassociate(EipUnassociate),
    /// Give a floating address back.
    Release(EipRelease),
}

pub(crate) fn eip(session: &CliSession, verb: EipVerb) -> Result<(), CliError> {
    match verb {
        EipVerb::Allocate(allocate) => session.change(Command::EipAllocate(allocate)),
        EipVerb::Modify(modify) => session.change(Command::EipModify(modify)),
        EipVerb::Associate(associate) => session.change(Command::EipAssociate(associate)),
        EipVerb::Unassociate(unassociate) => session.change(Command::EipUnassociate(unassociate)),
        EipVerb::Release(release) => session.change(Command::EipRelease(release)),
        EipVerb::List(filter) => {
            if let Answer::Eips(eips) = session.ask(Query::EipList(filter))? {
                let headings = ["eip", "name", "address", "stands for", "vpc"];
                session.output.table(&eips, headings, |eip| {
                    let (address, vpc) = (eip.address.to_string(), list(&eip.vpc));
                    [eip.id.clone(), eip.name.clone(), address, target(eip), vpc]
                });
            }
            Ok(())
        }
    }
}

fn target(eip: &EipView) -> String {
    match (&eip.eni, eip.private_ip, &eip.nat) {
        (Some(eni), Some(private), _) => format!("{private} of {eni}"),
        (_, _, Some(nat)) => nat.clone(),
        _ => "-".into(),
    }
}

/// The verbs of `sluice nat`.
#[derive(Debug, Subcommand)]
pub(crate) enum NatVerb {
    /// Make a NAT gateway: `sluice nat create --vpc vpc-a`.
    Create(NatCreate),
    /// All NAT gateways with their entries for sources.
    List(OutsideFilter),
    /// Change a NAT gateway.
    Modify(NatModify),
    /// Remove a NAT gateway.
    Delete(NatDelete),
    /// Translate private addresses to floating ones: `sluice nat add-source ngw-a --vswitch vsw-a`.
    AddSource(SnatAdd),
    /// Change an entry for sources.
    ModifySource(SnatModify),
    /// End an entry for sources.
    RemoveSource(SnatRemove),
}

pub(crate) fn nat(session: &CliSession, verb: NatVerb) -> Result<(), CliError> {
    match verb {
        NatVerb::Create(create) => session.change(Command::NatCreate(create)),
        NatVerb::Modify(modify) => session.change(Command::NatModify(modify)),
        NatVerb::Delete(delete) => session.change(Command::NatDelete(delete)),
        NatVerb::AddSource(add) => session.change(Command::SnatAdd(add)),
        NatVerb::ModifySource(modify) => session.change(Command::SnatModify(modify)),
        NatVerb::RemoveSource(remove) => session.change(Command::SnatRemove(remove)),
        NatVerb::List(filter) => {
            if let Answer::NatGateways(nats) = session.ask(Query::NatList(filter))? {
                session.output.table(&nats, ["nat", "name", "vpc", "addresses", "sources"], |nat| {
                    [nat.id.clone(), nat.name.clone(), nat.vpc.to_string(), list(&nat.addresses), sources(nat)]
                });
            }
            Ok(())
        }
    }
}

fn sources(nat: &NatGatewayView) -> String {
    list(nat.sources.iter().map(|it| format!("{} {} to {}", it.id, it.source, list(&it.addresses))))
}

/// The verbs of `sluice forward`.
#[derive(Debug, Subcommand)]
pub(crate) enum ForwardVerb {
    /// Lead ports of an external address to a private one: `sluice forward add --vpc vpc-a --ports 8080 --to 10.0.1.10
    /// --to-port 80`.
    Add(ForwardAdd),
    /// All forwards.
    List(OutsideFilter),
    /// Change a forward.
    Modify(ForwardModify),
    /// End a forward.
    Remove(ForwardRemove),
}

pub(crate) fn forward(session: &CliSession, verb: ForwardVerb) -> Result<(), CliError> {
    match verb {
        ForwardVerb::Add(add) => session.change(Command::ForwardAdd(add)),
        ForwardVerb::Modify(modify) => session.change(Command::ForwardModify(modify)),
        ForwardVerb::Remove(remove) => session.change(Command::ForwardRemove(remove)),
        ForwardVerb::List(filter) => {
            if let Answer::Forwards(forwards) = session.ask(Query::ForwardList(filter))? {
                let headings = ["forward", "name", "vpc", "external", "protocol", "to", "eni"];
                session.output.table(&forwards, headings, |it| {
                    let external = format!("{} port {}", it.external, it.ports);
                    let to = format!("{} port {}", it.to, it.to_ports);
                    let (id, protocol) = (it.id.clone(), it.protocol.name().to_owned());
                    [id, it.name.clone(), it.vpc.to_string(), external, protocol, to, list(&it.eni)]
                });
            }
            Ok(())
        }
    }
}

/// The verbs of `sluice peering`.
#[derive(Debug, Subcommand)]
pub(crate) enum PeeringVerb {
    /// Join two VPCs: `sluice peering create vpc-a vpc-b`.
    Create(PeeringCreate),
    /// All peerings.
    List(OutsideFilter),
    /// Part two VPCs.
    Delete(PeeringDelete),
}

pub(crate) fn peering(session: &CliSession, verb: PeeringVerb) -> Result<(), CliError> {
    match verb {
        PeeringVerb::Create(create) => session.change(Command::PeeringCreate(create)),
        PeeringVerb::Delete(delete) => session.change(Command::PeeringDelete(delete)),
        PeeringVerb::List(filter) => {
            if let Answer::Peerings(peerings) = session.ask(Query::PeeringList(filter))? {
                session.output.table(&peerings, ["peering", "name", "vpc", "peer"], |it| {
                    [it.id.clone(), it.name.clone(), it.vpc.to_string(), it.peer.to_string()]
                });
            }
            Ok(())
        }
    }
}
