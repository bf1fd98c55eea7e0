//! `sluice rule`.

use crate::cli::output::{columns, list};
use crate::cli::{CliError, CliSession};
use clap::{Args, Subcommand, ValueEnum};
use control::command::{Command, RuleAuthorize, RuleChange, RuleModify, RuleRevoke, RuleSpec};
use control::socket::query::{Answer, Query, RuleFilter};
use control::socket::view::RuleView;
use vswitch_core::config::desired::{Direction, Policy};

/// What can be done with rules.
#[derive(Debug, Subcommand)]
pub(crate) enum RuleVerb {
    /// Add a rule: `sluice rule add sg-web ingress --protocol tcp --ports 80 --peer 0.0.0.0/0`.
    #[command(visible_alias = "authorize")]
    Add(Add),
    /// Take rules away; live sessions that they alone admitted end at once: `sluice rule revoke sg-web sgr-…`.
    Revoke(Revoke),
    /// Change one rule in place.
    Modify(RuleModifyOptions),
    /// Rules in the order in which they decide.
    List {
        /// Only those of this group.
        group: Option<String>,
        /// Only those of this direction.
        #[arg(long)]
        direction: Option<DirectionArgument>,
    },
}

/// Which way a packet crosses the guest's interface.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DirectionArgument {
    /// Into the guest.
    Ingress,
    /// Out of the guest.
    Egress,
}

impl From<DirectionArgument> for Direction {
    fn from(argument: DirectionArgument) -> Self {
        match argument {
            DirectionArgument::Ingress => Self::Ingress,
            DirectionArgument::Egress => Self::Egress,
        }
    }
}

/// A rule to add.
#[derive(Debug, Args)]
pub(crate) struct Add {
    /// The group.
    group: String,
    /// The direction it evaluates.
    direction: DirectionArgument,
    /// Its identifier, sgr-…; made up if absent.
    #[arg(long)]
    id: Option<String>,
    /// What it is for.
    #[arg(long)]
    description: Option<String>,
    #[command(flatten)]
    fields: RuleFields,
}

/// What identifies a rule besides its group and direction.
#[derive(Debug, Args)]
pub(crate) struct RuleFields {
    /// tcp, udp, icmp, icmpv6, gre, all or a number.
    #[arg(long)]
    protocol: String,
    /// Destination ports: 80, 8000/8099, or a port list prl-…; tcp and udp only.
    #[arg(long)]
    ports: Option<String>,
    /// The far side: an address, a prefix, a group sg-… or a prefix list pl-….
    #[arg(long, visible_aliases = ["from", "to"])]
    peer: String,
    /// accept or drop.
    #[arg(long, default_value = "accept")]
    policy: String,
    /// 1 (the strongest) to 100.
    #[arg(long, default_value_t = 1)]
    priority: i64,
    /// Source ports: 1024/65535.
    #[arg(long)]
    source_ports: Option<String>,
    /// Only this address or prefix of the guest.
    #[arg(long)]
    local: Option<String>,
}

/// Rules to take away.
#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// The group.
    group: String,
    /// The rules.
    #[arg(required = true)]
    rules: Vec<String>,
}

/// Changes to a rule.
#[derive(Debug, Args)]
pub(crate) struct RuleModifyOptions {
    /// The group.
    group: String,
    /// The rule.
    rule: String,
    /// accept or drop.
    #[arg(long)]
    policy: Option<String>,
    /// 1 (the strongest) to 100.
    #[arg(long)]
    priority: Option<i64>,
    /// A protocol.
    #[arg(long)]
    protocol: Option<String>,
    /// Destination ports.
    #[arg(long)]
    ports: Option<String>,
    /// Another far side of the same kind.
    #[arg(long, visible_aliases = ["from", "to"])]
    peer: Option<String>,
    /// What it is for.
    #[arg(long)]
    description: Option<String>,
}

pub(crate) fn run(session: &CliSession, verb: RuleVerb) -> Result<(), CliError> {
    match verb {
        RuleVerb::Add(add) => {
            let rule = RuleSpec { id: add.id, description: add.description, ..spec(add.fields) };
            let authorize = RuleAuthorize { group: add.group, direction: add.direction.into(), rules: vec![rule] };
            session.change(Command::RuleAuthorize(authorize))
        }
        RuleVerb::Revoke(Revoke { group, rules }) => {
            let ids = rules.into_iter().collect();
            session.change(Command::RuleRevoke(RuleRevoke { group, direction: None, ids, rules: Vec::new() }))
        }
        RuleVerb::Modify(modify) => session.change(Command::RuleModify(change(modify))),
        RuleVerb::List { group, direction } => {
            let filter = RuleFilter { group, direction: direction.map(Direction::from) };
            if let Answer::Rules(rules) = session.ask(Query::RuleList(filter))? {
                let text = |rules: &Vec<RuleView>| if rules.is_empty() { "none".into() } else { rule_table(rules) };
                session.output.show(&rules, text);
            }
            Ok(())
        }
    }
}

fn spec(fields: RuleFields) -> RuleSpec {
    let (ports, port_list) = ports(fields.ports);
    let peer = Peer::of(fields.peer);
    RuleSpec {
        policy: Some(fields.policy),
        priority: Some(fields.priority),
        protocol: fields.protocol,
        ports,
        port_list,
        source_ports: fields.source_ports.map(|text| range(&text)),
        cidr: peer.cidr,
        group: peer.group,
        prefix_list: peer.prefix_list,
        local_cidr: fields.local,
        ..RuleSpec::default()
    }
}

fn change(modify: RuleModifyOptions) -> RuleModify {
    let (ports, port_list) = ports(modify.ports);
    let peer = modify.peer.map(Peer::of).unwrap_or_default();
    let change = RuleChange {
        policy: modify.policy,
        priority: modify.priority,
        protocol: modify.protocol,
        ports,
        port_list,
        cidr: peer.cidr,
        group: peer.group,
        prefix_list: peer.prefix_list,
        description: modify.description,
        ..RuleChange::default()
    };
    RuleModify { group: modify.group, rule: modify.rule, change }
}

/// The far side, told apart by how it begins.
#[derive(Default)]
struct Peer {
    cidr: Option<String>,
    group: Option<String>,
    prefix_list: Option<String>,
}

impl Peer {
    fn of(text: String) -> Self {
        if text.starts_with("sg-") {
            Self { group: Some(text), ..Self::default() }
        } else if text.starts_with("pl-") {
            Self { prefix_list: Some(text), ..Self::default() }
        } else {
            Self { cidr: Some(text), ..Self::default() }
        }
    }
}

/// Ports as a range or as a list.
fn ports(text: Option<String>) -> (Option<String>, Option<String>) {
    match text {
        Some(text) if text.starts_with("prl-") => (None, Some(text)),
        text => (text.map(|text| range(&text)), None),
    }
}

/// `80` means `80/80`, and `80-90` means `80/90`.
pub(crate) fn range(text: &str) -> String {
    match text.split_once('-') {
        _ if text.contains('/') => text.to_owned(),
        Some((first, last)) => format!("{first}/{last}"),
        None => format!("{text}/{text}"),
    }
}

/// Rules in the order in which they decide.
pub(crate) fn rule_table(rules: &[RuleView]) -> String {
    let headings = ["direction", "priority", "policy", "protocol", "ports", "peer", "rule", "group", "description"];
    columns(
        headings,
        rules.iter().map(|rule| {
            [
                rule.direction.to_string(),
                rule.priority.to_string(),
                if rule.policy == Policy::Accept { "accept" } else { "drop" }.into(),
                rule.protocol.to_lowercase(),
                ports_told(rule),
                peer_told(rule),
                rule.id.to_string(),
                rule.group.to_string(),
                rule.description.clone(),
            ]
        }),
    )
}

fn ports_told(rule: &RuleView) -> String {
    let destination = match &rule.port_list {
        Some(list) => list.to_string(),
        None if rule.ports == "-1/-1" => "-".into(),
        None => rule.ports.clone(),
    };
    match &rule.source_ports {
        Some(source) => format!("{destination} from {source}"),
        None => destination,
    }
}

fn peer_told(rule: &RuleView) -> String {
    let group = rule.remote_group.as_ref().map(ToString::to_string);
    let prefix_list = rule.prefix_list.as_ref().map(ToString::to_string);
    let peer = list(rule.cidr.clone().into_iter().chain(group).chain(prefix_list));
    match rule.local_cidr {
        Some(local) => format!("{peer} at {local}"),
        None => peer,
    }
}
