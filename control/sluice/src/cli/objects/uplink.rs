//! `sluice uplink`.

use crate::cli::output::{fields, list};
use crate::cli::{CliError, CliSession};
use clap::Subcommand;
use control::command::{Command, UplinkCreate, UplinkDelete, UplinkModify, UplinkNat};
use control::socket::query::{Answer, OutsideFilter, Query, UplinkShow};
use control::socket::view::UplinkView;
use vswitch_core::config::desired::{DesiredPort, MacvtapPort};
use vswitch_core::config::uplink::NatFiltering;

/// The verbs of `sluice uplink`.
#[derive(Debug, Subcommand)]
pub(crate) enum UplinkVerb {
    /// Make the way out of a VPC: `sluice uplink create --vpc vpc-a --masquerade`.
    Create(Box<UplinkCreate>),
    /// All uplinks.
    List(OutsideFilter),
    /// One uplink.
    Show(UplinkShow),
    /// Change an uplink.
    Modify(UplinkModify),
    /// Remove an uplink: nothing leaves the VPC any more.
    Delete(UplinkDelete),
}

pub(crate) fn run(session: &CliSession, verb: UplinkVerb) -> Result<(), CliError> {
    match verb {
        UplinkVerb::Create(create) => session.change(Command::UplinkCreate(create)),
        UplinkVerb::Modify(modify) => session.change(Command::UplinkModify(modify)),
        UplinkVerb::Delete(delete) => session.change(Command::UplinkDelete(delete)),
        UplinkVerb::List(filter) => {
            if let Answer::Uplinks(uplinks) = session.ask(Query::UplinkList(filter))? {
                let headings = ["uplink", "name", "vpc", "kind", "port", "address", "next hop", "external"];
                session.output.table(&uplinks, headings, |uplink| {
                    let kind = format!("{}{}", uplink.kind.name(), if uplink.masquerade { ", masquerade" } else { "" });
                    let [address, next_hop] = ends(uplink);
                    let (id, vpc) = (uplink.id.to_string(), uplink.vpc.to_string());
                    [id, uplink.name.clone(), vpc, kind, port(uplink), address, next_hop, list(&uplink.addresses)]
                });
            }
            Ok(())
        }
        UplinkVerb::Show(show) => {
            if let Answer::Uplink(uplink) = session.ask(Query::UplinkShow(show))? {
                session.output.show(&uplink, told);
            }
            Ok(())
        }
    }
}

/// The VPC's addresses, and those of the next hop.
fn ends(uplink: &UplinkView) -> [String; 2] {
    let ipv4 = uplink.ipv4.map(|it| (it.address.to_string(), it.next_hop.to_string()));
    let ipv6 = uplink.ipv6.map(|it| (it.address.to_string(), it.next_hop.to_string()));
    let (addresses, next_hops): (Vec<String>, Vec<String>) = ipv4.into_iter().chain(ipv6).unzip();
    [list(addresses), list(next_hops)]
}

fn port(uplink: &UplinkView) -> String {
    if let DesiredPort::Macvtap(MacvtapPort { device, lower_device, lower_namespace, .. }) = &uplink.port {
        let namespace = lower_namespace.as_ref().map(|name| format!(" in {name}")).unwrap_or_default();
        return format!("{device} on {lower_device}{namespace}");
    }
    match uplink.port.resource() {
        Some((device, Some(namespace))) => format!("{device} in {namespace}"),
        Some((device, None)) => device.into(),
        None => uplink.port.kind().into(),
    }
}

fn told(uplink: &UplinkView) -> String {
    let [address, next_hop] = ends(uplink);
    let nat = match uplink.nat {
        UplinkNat::Source => "source",
        UplinkNat::None => "none",
    };
    let filtering = match uplink.nat_filtering {
        NatFiltering::Session => "session",
        NatFiltering::Endpoint => "endpoint",
    };
    fields(&[
        ("uplink", uplink.id.to_string()),
        ("name", uplink.name.clone()),
        ("description", uplink.description.clone()),
        ("vpc", uplink.vpc.to_string()),
        ("kind", uplink.kind.name().into()),
        ("port", port(uplink)),
        ("mac", uplink.mac.to_string()),
        ("address", address),
        ("next hop", next_hop),
        ("external addresses", list(&uplink.addresses)),
        ("nat", nat.into()),
        ("nat filtering", filtering.into()),
        ("nat port blocks", uplink.nat_port_blocks.to_string()),
        ("nat udp timeout", format!("{} s", uplink.nat_udp_timeout_s)),
        ("masquerade", uplink.masquerade.to_string()),
        ("created", uplink.created.clone()),
    ])
}
