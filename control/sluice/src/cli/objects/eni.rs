//! `sluice eni`.

use crate::cli::output::{duration, fields, list};
use crate::cli::{CliError, CliSession};
use clap::Subcommand;
use control::command::{
    Command, EniAssign, EniAttach, EniCreate, EniDelete, EniDetach, EniModify, EniUnassign, PortSpecification,
};
use control::socket::query::{Answer, EniFilter, EniShow, Query, StatsFilter};
use control::socket::view::EniView;
use vswitch_core::config::desired::{DesiredPort, Direction, TapPort};
use vswitch_core::config::ids::EniId;
use vswitch_core::config::protocol::GuestAsked;
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
                let asked = if session.output.json { None } else { asked(session, &eni.id) };
                session.output.show(&*eni, |eni| told(eni, asked));
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

/// When the guest asked for its configuration last; nothing if the forwarding plane does not say.
fn asked(session: &CliSession, eni: &EniId) -> Option<GuestAsked> {
    match session.ask(Query::Stats(StatsFilter { eni: Some(eni.to_string()) })) {
        Ok(Answer::Stats(stats)) => stats.first().map(|stats| stats.asked),
        _ => None,
    }
}

/// What the guest is told of its network, and when it asked for it last.
fn network(eni: &EniView, asked: Option<GuestAsked>) -> [(&'static str, String); 4] {
    let Some(network) = &eni.guest_network else { return Default::default() };
    let ago = |ms: fn(GuestAsked) -> Option<u64>| match asked.map(ms) {
        Some(Some(ms)) => format!("; asked {} ago", duration(ms.saturating_mul(1_000_000))),
        Some(None) => "; not asked yet".into(),
        None => String::new(),
    };
    let (ipv4, gateway, lease_s) = (network.ipv4, network.ipv4_gateway, network.lease_s);
    let dhcp = format!("{ipv4} for {lease_s} s, default via {gateway}{}", ago(|asked| asked.dhcp_ms_ago));
    let (dhcp6, advertised) = match (network.ipv6, network.ipv6_gateway) {
        (Some(address), Some(gateway)) => {
            let prefix = network.ipv6_prefix.map(|prefix| format!(" and {prefix}")).unwrap_or_default();
            let lease_s = network.ipv6_lease_s;
            let dhcp6 = format!("{address}{prefix} for {lease_s} s{}", ago(|asked| asked.dhcp6_ms_ago));
            (dhcp6, format!("default via {gateway}{}", ago(|asked| asked.router_ms_ago)))
        }
        _ => Default::default(),
    };
    let mut both = vec![format!("host name {}", network.hostname)];
    both.extend(network.mtu_bytes.map(|bytes| format!("MTU {bytes}")));
    both.push(format!("name servers {}", list(&network.name_servers)));
    both.extend(network.domain_name.as_ref().map(|domain| format!("domain {domain}")));
    if !network.ntp_servers.is_empty() {
        both.push(format!("time servers {}", list(&network.ntp_servers)));
    }
    [("dhcp", dhcp), ("dhcpv6", dhcp6), ("router advertised", advertised), ("guest told", both.join(", "))]
}

fn told(eni: &EniView, asked: Option<GuestAsked>) -> String {
    let [dhcp, dhcp6, advertised, both] = network(eni, asked);
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
        dhcp,
        dhcp6,
        advertised,
        both,
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
        ("user data", user_data(eni)),
        ("port", port(eni)),
        ("run in it", reach),
        ("created", eni.created.clone()),
    ])
}

fn user_data(eni: &EniView) -> String {
    if eni.user_data.is_empty() { String::new() } else { format!("{} bytes", eni.user_data.len()) }
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
