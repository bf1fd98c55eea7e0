//! The commands for rules, and rules as text.

use super::{port_range, vocabulary};
use clap::Args;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;
use vswitch_core::config::desired::{Direction, Policy};
use vswitch_core::config::ids::{GroupId, PortListId, PrefixListId, RuleId};

/// How "all" is written where ports do not matter.
pub(crate) const ANY_PORTS: &str = "-1/-1";

vocabulary! {
    /// A rule as its author writes it. Exactly one of `cidr`, `ipv6_cidr`, `group`, `prefix_list` is its object. If
    /// several are given, a prefix takes precedence over a group, and both over a prefix list, as in the cloud.
    #[derive(Args, Eq, PartialOrd, Ord)]
    RuleSpec {
        /// `sgr-…`; made up if absent. Ignored where fields select a rule.
        #[arg(long)]
        id: Option<String>,
        /// `accept` (the default) or `drop`.
        #[arg(long)]
        policy: Option<String>,
        /// 1 (the strongest, the default) to 100.
        #[arg(long)]
        priority: Option<i64>,
        /// `tcp`, `udp`, `icmp`, `icmpv6`, `gre`, `all` or a number 0 to 255.
        #[arg(long)]
        protocol: String,
        /// Destination ports `first/last` for TCP and UDP, 1 to 65535; `-1/-1` or absent for the others. On a command line
        /// `80`, `80-90` and a port list `prl-…`, too.
        #[arg(long, value_parser = port_range)]
        ports: Option<String>,
        /// A port list instead of `ports`; TCP and UDP only.
        #[arg(long)]
        port_list: Option<String>,
        /// Source ports `first/last`; all if absent or `-1/-1`.
        #[arg(long, value_parser = port_range)]
        source_ports: Option<String>,
        /// The far side: an IPv4 or IPv6 address or prefix; host bits may be set.
        #[arg(long)]
        cidr: Option<String>,
        /// The far side: an IPv6 address or prefix.
        #[arg(long)]
        ipv6_cidr: Option<String>,
        /// The far side: members of this group.
        #[arg(long = "peer-group")]
        group: Option<String>,
        /// The far side: entries of this prefix list.
        #[arg(long)]
        prefix_list: Option<String>,
        /// The near side: an IPv4 or IPv6 address or prefix of the ENI; all its addresses if absent.
        #[arg(long = "local", alias = "local-cidr")]
        local_cidr: Option<String>,
        /// The near side: an IPv6 address or prefix of the ENI.
        #[arg(long = "ipv6-local", alias = "ipv6-local-cidr")]
        ipv6_local_cidr: Option<String>,
        /// Whether it applies to the public side of the classic network: only in groups without a VPC, where it has no
        /// effect.
        #[serde(default)]
        #[arg(skip)]
        internet: bool,
        /// What it is for: 1 to 512 characters. Not part of a rule's identity.
        #[arg(long)]
        description: Option<String>,
    }

    /// The fields of a rule that change; the same words as in [`RuleSpec`].
    #[derive(Args)]
    RuleChange {
        /// `accept` or `drop`.
        #[arg(long)]
        policy: Option<String>,
        /// 1 to 100.
        #[arg(long)]
        priority: Option<i64>,
        /// A protocol.
        #[arg(long)]
        protocol: Option<String>,
        /// Destination ports, in the same form.
        #[arg(long, value_parser = port_range)]
        ports: Option<String>,
        /// Another port list, for a rule that has one.
        #[arg(long)]
        port_list: Option<String>,
        /// Source ports `first/last`.
        #[arg(long, value_parser = port_range)]
        source_ports: Option<String>,
        /// Another far side, for a rule whose object is a prefix of the same family.
        #[arg(long)]
        cidr: Option<String>,
        /// Another far side, for a rule whose object is an IPv6 prefix.
        #[arg(long)]
        ipv6_cidr: Option<String>,
        /// Another group, for a rule whose object is one.
        #[arg(long = "peer-group")]
        group: Option<String>,
        /// Another prefix list, for a rule whose object is one.
        #[arg(long)]
        prefix_list: Option<String>,
        /// Another near side.
        #[arg(long = "local", alias = "local-cidr")]
        local_cidr: Option<String>,
        /// Another near side, IPv6.
        #[arg(long = "ipv6-local", alias = "ipv6-local-cidr")]
        ipv6_local_cidr: Option<String>,
        /// Another description.
        #[arg(long)]
        description: Option<String>,
    }
}

/// Adds rules to a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleAuthorize {
    /// The group.
    pub group: String,
    /// The direction of all of them.
    pub direction: Direction,
    /// The rules: 1 to 100.
    pub rules: Vec<RuleSpec>,
}

/// Removes rules from a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleRevoke {
    /// The group.
    pub group: String,
    /// The direction of the rules. Required where `rules` selects; otherwise it only has to match.
    #[serde(default)]
    pub direction: Option<Direction>,
    /// Rules by identifier, at most 100.
    #[serde(default)]
    pub ids: BTreeSet<String>,
    /// Rules by their fields, at most 100; policy and priority default to `accept` and 1.
    #[serde(default)]
    pub rules: Vec<RuleSpec>,
}

/// Changes one rule. Each given field replaces the present one; the kind of object, the direction and the form of the
/// ports cannot change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Args)]
#[serde(deny_unknown_fields)]
pub struct RuleModify {
    /// The group.
    #[arg(id = "of_group", value_name = "GROUP")]
    pub group: String,
    /// The rule.
    pub rule: String,
    /// The fields that change.
    #[serde(default)]
    #[command(flatten)]
    pub change: RuleChange,
}

/// A rule as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleView {
    /// Its identifier.
    pub id: RuleId,
    /// Its group.
    pub group: GroupId,
    /// Its direction.
    pub direction: Direction,
    /// What it does.
    pub policy: Policy,
    /// 1 is the strongest.
    pub priority: u8,
    /// As in `TCP`, `ALL` or `132`.
    pub protocol: String,
    /// Destination ports as in `80/80`; `-1/-1` if they do not matter; empty if a port list has them.
    pub ports: String,
    /// The port list with its destination ports.
    pub port_list: Option<PortListId>,
    /// Source ports, if they are restricted.
    pub source_ports: Option<String>,
    /// The far side, if it is a prefix: IPv4 as entered, IPv6 normalised.
    pub cidr: Option<String>,
    /// The far side, if it is a group.
    pub remote_group: Option<GroupId>,
    /// The far side, if it is a prefix list.
    pub prefix_list: Option<PrefixListId>,
    /// The near side, if it is restricted.
    pub local_cidr: Option<IpNet>,
    /// What it is for, or nothing.
    pub description: String,
    /// When it was made.
    pub created: String,
}

impl RuleView {
    /// The ports that it covers, for people.
    pub fn ports_text(&self) -> String {
        let destination = match &self.port_list {
            Some(list) => list.to_string(),
            None if self.ports == ANY_PORTS => "-".into(),
            None => self.ports.clone(),
        };
        match &self.source_ports {
            Some(source) => format!("{destination} from {source}"),
            None => destination,
        }
    }

    /// The far side and the near one, for people.
    pub fn peer_text(&self) -> String {
        let group = self.remote_group.as_ref().map(ToString::to_string);
        let prefix_list = self.prefix_list.as_ref().map(ToString::to_string);
        let peer = self.cidr.clone().or(group).or(prefix_list).unwrap_or_default();
        match self.local_cidr {
            Some(local) => format!("{peer} at {local}"),
            None => peer,
        }
    }
}

impl From<&RuleView> for RuleSpec {
    fn from(view: &RuleView) -> Self {
        // Field by field, so that a new one does not compile before its text form is defined here.
        let RuleView {
            id,
            group: _,
            direction: _,
            policy,
            priority,
            protocol,
            ports,
            port_list,
            source_ports,
            cidr,
            remote_group,
            prefix_list,
            local_cidr,
            description,
            created: _,
        } = view.clone();
        Self {
            id: Some(id.to_string()),
            policy: Some(if policy == Policy::Accept { "accept" } else { "drop" }.into()),
            priority: Some(priority.into()),
            protocol,
            ports: Some(ports).filter(|ports| !ports.is_empty()),
            port_list: port_list.map(|list| list.to_string()),
            source_ports,
            cidr,
            ipv6_cidr: None,
            group: remote_group.map(|group| group.to_string()),
            prefix_list: prefix_list.map(|list| list.to_string()),
            local_cidr: local_cidr.map(|local| local.to_string()),
            ipv6_local_cidr: None,
            internet: false,
            description: Some(description),
        }
    }
}

impl From<RuleSpec> for RuleChange {
    /// The rule with everything that its text says.
    fn from(spec: RuleSpec) -> Self {
        let RuleSpec {
            id: _,
            policy,
            priority,
            protocol,
            ports,
            port_list,
            source_ports,
            cidr,
            ipv6_cidr,
            group,
            prefix_list,
            local_cidr,
            ipv6_local_cidr,
            // There is no such side in a VPC.
            internet: _,
            description,
        } = spec;
        Self {
            policy,
            priority,
            protocol: Some(protocol),
            ports,
            port_list,
            source_ports,
            cidr,
            ipv6_cidr,
            group,
            prefix_list,
            local_cidr,
            ipv6_local_cidr,
            description,
        }
    }
}

impl RuleSpec {
    /// The identity of a rule within a group and direction, in normalised form (`semantics.md` §1.5).
    pub fn identity(&self) -> Self {
        // Field by field, so that a new one does not compile before it is decided here whether it counts.
        let Self {
            id: _,
            policy,
            priority,
            protocol,
            ports,
            port_list,
            source_ports,
            cidr,
            ipv6_cidr,
            group,
            prefix_list,
            local_cidr,
            ipv6_local_cidr,
            // The groups of a lab are in VPCs, where no rule is about the Internet side.
            internet: _,
            description: _,
        } = self;
        let has_cidr = cidr.is_some() || ipv6_cidr.is_some();
        let prefix = |text: &Option<String>, ipv6: &Option<String>| {
            text.as_ref().or(ipv6.as_ref()).map(|text| prefix_without_host_bits(text))
        };
        Self {
            policy: Some(policy.as_deref().unwrap_or("accept").to_ascii_lowercase()),
            priority: Some(priority.unwrap_or(1)),
            protocol: protocol_name(protocol),
            ports: ports.clone().or_else(|| port_list.is_none().then(|| ANY_PORTS.into())),
            port_list: port_list.clone().filter(|_| ports.is_none()),
            source_ports: source_ports.clone().filter(|ports| ports != ANY_PORTS),
            cidr: prefix(cidr, ipv6_cidr),
            group: group.clone().filter(|_| !has_cidr),
            prefix_list: prefix_list.clone().filter(|_| !has_cidr && group.is_none()),
            local_cidr: prefix(local_cidr, ipv6_local_cidr),
            ..Self::default()
        }
    }

    /// The rule on one line, given its [identity](Self::identity).
    pub fn told(&self) -> String {
        let Self { priority, policy, protocol, ports, port_list, cidr, group, prefix_list, .. } = self;
        let ports = ports.as_ref().filter(|ports| *ports != ANY_PORTS).or(port_list.as_ref());
        let ports = ports.map(|ports| format!(" {ports}")).unwrap_or_default();
        let peer = cidr.as_ref().or(group.as_ref()).or(prefix_list.as_ref()).map_or("", |text| text);
        let policy = policy.as_deref().unwrap_or("accept");
        format!("{policy} {protocol}{ports} {peer} at {}", priority.unwrap_or(1))
    }
}

fn protocol_name(text: &str) -> String {
    match text.to_ascii_lowercase().as_str() {
        "6" => "tcp".into(),
        "17" => "udp".into(),
        "1" => "icmp".into(),
        "58" => "icmpv6".into(),
        "47" => "gre".into(),
        name => name.into(),
    }
}

/// A prefix without host bits, or an address as a prefix; other text is unchanged.
pub fn prefix_without_host_bits(text: &str) -> String {
    let prefix = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    prefix.map_or_else(|| text.to_owned(), |prefix| prefix.trunc().to_string())
}
