//! `sluice eni`.

use crate::cli::output::{fields, list};
use crate::cli::{CliError, CliSession};
use clap::Subcommand;
use control::command::{
    Command, EniAssign, EniAttach, EniCreate, EniDelete, EniDetach, EniModify, EniUnassign, PortSpecification,
};
use control::socket::query::{Answer, EniFilter, EniShow, Query};
use control::socket::view::EniView;
use vswitch_core::config::desired::{DesiredPort, Direction, TapPort};
use vswitch_core::config::rate_limits::RateLimits;

/// The verbs of `sluice eni`.
#[derive(Debug, Subcommand)]
pub(crate) enum EniVerb {
    /// Make an ENI: `sluice eni create --vswitch vsw-a --group sg-web --namespace web`.
    Create {
        #[command(flatten)]
        create: Box<EniCreate>,
        #[command(flatten)]
        port: PortSpecification,
    },
    /// All ENIs.
    List(EniFilter),
    /// One ENI, and how to reach it.
    Show(EniShow),
    /// Change an ENI.
    Modify(EniModify),
    /// Remove an ENI; its sessions end.
    Delete(EniDelete),
    /// Give an ENI more addresses or delegated prefixes.
    Assign(EniAssign),
    /// Take addresses or delegated prefixes from an ENI.
    Unassign(EniUnassign),
    /// Attach an ENI to a TAP device, an interface or a socket. Nothing passes before its rules are in force.
    Attach {
        /// The ENI.
        eni: String,
        #[command(flatten)]
        port: PortSpecification,
    },
    /// Detach an ENI from its port; its sessions end.
    Detach(EniDetach),
}

pub(crate) fn run(session: &CliSession, verb: EniVerb) -> Result<(), CliError> {
    match verb {
        EniVerb::Create { mut create, port } => {
            create.port = specified(&port)?;
            session.change(Command::EniCreate(create))
        }
        EniVerb::Modify(modify) => session.change(Command::EniModify(modify)),
        EniVerb::Delete(delete) => session.change(Command::EniDelete(delete)),
        EniVerb::Assign(assign) => session.change(Command::EniAssign(assign)),
        EniVerb::Unassign(unassign) => session.change(Command::EniUnassign(unassign)),
        EniVerb::Attach { eni, port } => {
            let port = specified(&port)?
                .ok_or_else(|| CliError::Usage("give --namespace, --device, --host-interface or --stream".into()))?;
            session.change(Command::EniAttach(EniAttach { eni, port }))
        }
        EniVerb::Detach(detach) => session.change(Command::EniDetach(detach)),
        EniVerb::List(filter) => {
            if let Answer::Enis(enis) = session.ask(Query::EniList(filter))? {
                let headings = ["eni", "name", "vswitch", "addresses", "groups", "port"];
                session.output.table(&enis, headings, |eni| {
                    [
                        eni.id.to_string(),
                        eni.name.clone(),
                        eni.vswitch.to_string(),
                        addresses(eni),
                        list(&eni.groups),
                        port(eni),
                    ]
                });
            }
            Ok(())
        }
        EniVerb::Show(show) => {
            if let Answer::Eni(eni) = session.ask(Query::EniShow(show))? {
                session.output.show(&*eni, told);
            }
            Ok(())
        }
    }
}

fn specified(port: &PortSpecification) -> Result<Option<DesiredPort>, CliError> {
    port.port().map_err(|error| CliError::Usage(error.into()))
}

fn addresses(eni: &EniView) -> String {
    let v4 =
        std::iter::once(eni.primary_ip).chain(eni.secondary_ips.iter().copied()).map(|address| address.to_string());
    list(
        v4.chain(eni.ipv6_addresses.iter().map(ToString::to_string))
            .chain(eni.prefixes.iter().map(ToString::to_string)),
    )
}

fn port(eni: &EniView) -> String {
    let Some(port) = &eni.port else { return "-".into() };
    match port.resource() {
        Some((device, Some(namespace))) => format!("{device} in {namespace}"),
        Some((device, None)) => device.into(),
        None => port.kind().into(),
    }
}

fn told(eni: &EniView) -> String {
    let timeouts = &eni.timeouts;
    let reach = match &eni.port {
        Some(DesiredPort::Tap(TapPort { namespace: Some(_), .. })) => format!("sluice ns exec {} -- COMMAND", eni.id),
        _ => String::new(),
    };
    fields(&[
        ("eni", eni.id.to_string()),
        ("name", eni.name.clone()),
        ("description", eni.description.clone()),
        ("vpc", eni.vpc.to_string()),
        ("vswitch", eni.vswitch.to_string()),
        ("mac", eni.mac.to_string()),
        ("addresses", addresses(eni)),
        ("outside", list(eni.floating.iter().map(|it| format!("{} for {}", it.address, it.private_ip)))),
        ("groups", list(&eni.groups)),
        ("source/dest check", eni.source_dest_check.to_string()),
        (
            "idle timeouts",
            format!(
                "tcp {} s, closed {} s, udp {} s",
                timeouts.tcp_established_s, timeouts.tcp_closed_s, timeouts.udp_s
            ),
        ),
        ("sessions at most", eni.sessions_max.to_string()),
        ("sessions guaranteed", eni.tracking.sessions_guaranteed.to_string()),
        ("new sessions", eni.tracking.new_sessions_per_s.map(|rate| format!("{rate} a second")).unwrap_or_default()),
        ("tcp window check", if eni.tracking.tcp_window_check { "on" } else { "" }.into()),
        ("rate limits", rate_limits(&eni.rate_limits)),
        ("instance", eni.instance.clone().unwrap_or_default()),
        ("port", port(eni)),
        ("run in it", reach),
        ("created", eni.created.clone()),
    ])
}

fn rate_limits(limits: &RateLimits) -> String {
    let told = |direction: Direction| {
        let [kbit, packets] = limits.of(direction);
        let kbit = kbit.map(|rate| format!("{rate} kbit/s"));
        let packets = packets.map(|rate| format!("{rate} packets/s"));
        let rates: Vec<String> = kbit.into_iter().chain(packets).collect();
        (!rates.is_empty()).then(|| format!("{direction} {}", rates.join(" and ")))
    };
    let told: Vec<String> = [Direction::Egress, Direction::Ingress].into_iter().filter_map(told).collect();
    if told.is_empty() { String::new() } else { format!("{}, bursts of {} ms", told.join(", "), limits.burst_ms) }
}
