//! `sluice eni`.

use crate::cli::output::{fields, list};
use crate::cli::{CliError, CliSession};
use clap::{Args, Subcommand};
use control::command::{self, Command, TimeoutsChange, TrackingChange};
use control::socket::query::{Answer, EniFilter, EniShow, Query};
use control::socket::view::EniView;
use vswitch_core::config::desired::{DesiredPort, PacketPort, TapPort};

/// What can be done with network interfaces.
#[derive(Debug, Subcommand)]
pub(crate) enum EniVerb {
    /// Make an ENI: `sluice eni create --vswitch vsw-a --group sg-web --namespace web`.
    Create(Box<EniCreateOptions>),
    /// All ENIs.
    List {
        /// Only those in this VPC.
        #[arg(long)]
        vpc: Option<String>,
        /// Only those in this subnet.
        #[arg(long)]
        vswitch: Option<String>,
        /// Only members of this group.
        #[arg(long)]
        group: Option<String>,
    },
    /// One ENI, and how to reach it.
    Show {
        /// The ENI.
        eni: String,
    },
    /// Change an ENI.
    Modify(EniModifyOptions),
    /// Remove an ENI; its sessions end.
    Delete {
        /// The ENI.
        eni: String,
        /// Also if it is attached.
        #[arg(long)]
        force: bool,
    },
    /// Give an ENI more addresses or delegated prefixes.
    Assign(Assign),
    /// Take addresses or delegated prefixes from an ENI.
    Unassign(Unassign),
    /// Attach an ENI to a TAP device or an interface; it passes nothing before its rules are in force.
    Attach {
        /// The ENI.
        eni: String,
        #[command(flatten)]
        tap: TapOptions,
    },
    /// Unplug an ENI; its sessions end.
    Detach {
        /// The ENI.
        eni: String,
    },
}

/// A TAP device, or an interface that is there already.
#[derive(Clone, Debug, Args)]
pub(crate) struct TapOptions {
    /// The device's name; eth0 in a namespace.
    #[arg(long)]
    device: Option<String>,
    /// The named network namespace to put it in; made if it does not exist.
    #[arg(long)]
    namespace: Option<String>,
    /// Instead of a TAP device, an interface that exists, as a card or one end of a veth pair: the guest is what is
    /// behind it. With --namespace, the one of that namespace.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["device", "no_configure"])]
    host_interface: Option<String>,
    /// Leave addresses, routes and link state of the device alone, as for a virtual machine. One that is made in a namespace
    /// gets the ENI's hardware address.
    #[arg(long)]
    no_configure: bool,
    /// The largest packet, bytes.
    #[arg(long, default_value_t = TapPort::default_mtu_bytes())]
    mtu: u16,
}

impl TapOptions {
    fn port(self) -> Option<DesiredPort> {
        if let Some(device) = self.host_interface {
            return Some(DesiredPort::Packet(PacketPort { device, namespace: self.namespace, mtu_bytes: self.mtu }));
        }
        let default = self.namespace.is_some().then(|| "eth0".to_owned());
        let device = self.device.or(default)?;
        Some(DesiredPort::Tap(TapPort {
            device,
            create_namespace: self.namespace.is_some(),
            namespace: self.namespace,
            configure: !self.no_configure,
            mtu_bytes: self.mtu,
        }))
    }
}

/// A new ENI.
#[derive(Debug, Args)]
pub(crate) struct EniCreateOptions {
    /// Its identifier, eni-…; made up if absent.
    #[arg(long)]
    id: Option<String>,
    /// The subnet it is in.
    #[arg(long)]
    vswitch: String,
    /// Its primary IPv4 address; the lowest free one if absent.
    #[arg(long)]
    ip: Option<String>,
    /// A secondary IPv4 address; may be repeated.
    #[arg(long = "secondary-ip")]
    secondary_ips: Vec<String>,
    /// An IPv6 address; may be repeated.
    #[arg(long = "ipv6")]
    ipv6_addresses: Vec<String>,
    /// How many IPv6 addresses to choose.
    #[arg(long, default_value_t = 0)]
    ipv6_count: u8,
    /// Its hardware address; made up if absent.
    #[arg(long)]
    mac: Option<String>,
    /// A group it is a member of; may be repeated. The VPC's default group if absent.
    #[arg(long = "group")]
    groups: Vec<String>,
    /// Let it send and get packets for other addresses, as a router does.
    #[arg(long)]
    no_source_dest_check: bool,
    /// The most sessions it may hold at once.
    #[arg(long)]
    sessions_max: Option<u32>,
    #[command(flatten)]
    tracking: TrackingOptions,
    #[command(flatten)]
    timeouts: TimeoutOptions,
    /// A name for people.
    #[arg(long)]
    name: Option<String>,
    /// What it is for.
    #[arg(long)]
    description: Option<String>,
    #[command(flatten)]
    tap: TapOptions,
}

/// What an ENI may ask of the session tables.
#[derive(Debug, Args)]
pub(crate) struct TrackingOptions {
    /// Sessions that find room even in a full table.
    #[arg(long)]
    sessions_guaranteed: Option<u32>,
    /// Sessions that it may open in a second; 0 for as many as it likes.
    #[arg(long)]
    new_sessions_per_s: Option<u32>,
    /// Whether TCP segments outside of their window drop.
    #[arg(long)]
    tcp_window_check: Option<bool>,
}

impl TrackingOptions {
    fn change(&self) -> Option<TrackingChange> {
        let Self { sessions_guaranteed, new_sessions_per_s, tcp_window_check } = *self;
        let change = TrackingChange { sessions_guaranteed, new_sessions_per_s, tcp_window_check };
        (change != TrackingChange::default()).then_some(change)
    }
}

/// Idle timeouts, seconds.
#[derive(Debug, Args)]
pub(crate) struct TimeoutOptions {
    /// Established TCP: 30, 60, 80, 100, 200, 300, 500, 700 or 910 s.
    #[arg(long)]
    tcp_established_s: Option<u16>,
    /// Closed TCP: 3 to 15 s.
    #[arg(long)]
    tcp_closed_s: Option<u16>,
    /// UDP: 10, 20, 30, 60, 80 or 100 s.
    #[arg(long)]
    udp_s: Option<u16>,
}

impl TimeoutOptions {
    fn change(&self) -> Option<TimeoutsChange> {
        let Self { tcp_established_s, tcp_closed_s, udp_s } = *self;
        let given = tcp_established_s.or(tcp_closed_s).or(udp_s).is_some();
        given.then_some(TimeoutsChange { tcp_established_s, tcp_closed_s, udp_s })
    }
}

/// Changes to an ENI.
#[derive(Debug, Args)]
pub(crate) struct EniModifyOptions {
    /// The ENI.
    eni: String,
    /// A group of the whole new set; may be repeated.
    #[arg(long = "group")]
    groups: Vec<String>,
    /// Whether addresses are checked.
    #[arg(long)]
    source_dest_check: Option<bool>,
    /// The most sessions it may hold at once.
    #[arg(long)]
    sessions_max: Option<u32>,
    #[command(flatten)]
    tracking: TrackingOptions,
    #[command(flatten)]
    timeouts: TimeoutOptions,
    /// A new name.
    #[arg(long)]
    name: Option<String>,
    /// A new description.
    #[arg(long)]
    description: Option<String>,
}

/// Addresses to give.
#[derive(Debug, Args)]
pub(crate) struct Assign {
    /// The ENI.
    eni: String,
    /// An IPv4 or IPv6 address; may be repeated.
    #[arg(long = "address")]
    addresses: Vec<String>,
    /// A delegated prefix, IPv4 /28 or IPv6 /80; may be repeated.
    #[arg(long = "prefix")]
    prefixes: Vec<String>,
    /// How many IPv4 addresses to choose.
    #[arg(long, default_value_t = 0)]
    ipv4_count: u8,
    /// How many IPv6 addresses to choose.
    #[arg(long, default_value_t = 0)]
    ipv6_count: u8,
    /// How many IPv4 prefixes to choose and delegate.
    #[arg(long, default_value_t = 0)]
    ipv4_prefix_count: u8,
    /// How many IPv6 prefixes to choose and delegate.
    #[arg(long, default_value_t = 0)]
    ipv6_prefix_count: u8,
}

/// Addresses to take.
#[derive(Debug, Args)]
pub(crate) struct Unassign {
    /// The ENI.
    eni: String,
    /// An address; may be repeated.
    #[arg(long = "address")]
    addresses: Vec<String>,
    /// A delegated prefix; may be repeated.
    #[arg(long = "prefix")]
    prefixes: Vec<String>,
}

pub(crate) fn run(session: &CliSession, verb: EniVerb) -> Result<(), CliError> {
    match verb {
        EniVerb::Create(create) => session.change(Command::EniCreate(Box::new(creation(*create)))),
        EniVerb::Modify(modify) => {
            let (timeouts, tracking) = (modify.timeouts.change(), modify.tracking.change());
            let groups = Some(modify.groups).filter(|groups| !groups.is_empty());
            let EniModifyOptions { eni, source_dest_check, sessions_max, name, description, .. } = modify;
            let modify = command::EniModify {
                eni,
                groups,
                source_dest_check,
                timeouts,
                sessions_max,
                tracking,
                delete_on_release: None,
                name,
                description,
            };
            session.change(Command::EniModify(modify))
        }
        EniVerb::Delete { eni, force } => session.change(Command::EniDelete(command::EniDelete { eni, force })),
        EniVerb::Assign(assign) => {
            let Assign { eni, addresses, prefixes, ipv4_count, ipv6_count, ipv4_prefix_count, ipv6_prefix_count } =
                assign;
            let assign = command::EniAssign {
                eni,
                addresses,
                prefixes,
                ipv4_count,
                ipv6_count,
                ipv4_prefix_count,
                ipv6_prefix_count,
            };
            session.change(Command::EniAssign(assign))
        }
        EniVerb::Unassign(Unassign { eni, addresses, prefixes }) => {
            session.change(Command::EniUnassign(command::EniUnassign { eni, addresses, prefixes }))
        }
        EniVerb::Attach { eni, tap } => {
            let port = tap.port().ok_or_else(|| CliError::Usage("give --namespace or --device".into()))?;
            session.change(Command::EniAttach(command::EniAttach { eni, port }))
        }
        EniVerb::Detach { eni } => session.change(Command::EniDetach(command::EniDetach { eni })),
        EniVerb::List { vpc, vswitch, group } => {
            if let Answer::Enis(enis) = session.ask(Query::EniList(EniFilter { vpc, vswitch, group }))? {
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
        EniVerb::Show { eni } => {
            if let Answer::Eni(eni) = session.ask(Query::EniShow(EniShow { eni }))? {
                session.output.show(&*eni, told);
            }
            Ok(())
        }
    }
}

fn creation(create: EniCreateOptions) -> command::EniCreate {
    command::EniCreate {
        timeouts: create.timeouts.change(),
        id: create.id,
        vswitch: create.vswitch,
        primary_ip: create.ip,
        secondary_ips: create.secondary_ips,
        ipv6_addresses: create.ipv6_addresses,
        ipv6_count: create.ipv6_count,
        prefixes: Vec::new(),
        mac: create.mac,
        groups: create.groups,
        source_dest_check: create.no_source_dest_check.then_some(false),
        sessions_max: create.sessions_max,
        tracking: create.tracking.change(),
        delete_on_release: None,
        instance: None,
        name: create.name,
        description: create.description,
        port: create.tap.port(),
    }
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
    match port.device() {
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
        ("instance", eni.instance.clone().unwrap_or_default()),
        ("port", port(eni)),
        ("run in it", reach),
        ("created", eni.created.clone()),
    ])
}
