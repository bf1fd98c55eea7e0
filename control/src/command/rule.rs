//! The words for rules.

use super::{port_range, vocabulary};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use vswitch_core::config::desired::Direction;

vocabulary! {
    /// A rule as its author writes it. Exactly one of `cidr`, `ipv6_cidr`, `group`, `prefix_list` is its object; where
    /// several are given, a prefix hides a group and both hide a prefix list, as in the cloud.
    #[derive(Args)]
    RuleSpec {
        /// `sgr-…`; made up if absent. Without meaning where fields select a rule.
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
        /// Whether it is about the public side of the classic network: only in groups without a VPC, where nothing
        /// goes by it.
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
    /// The direction all of them evaluate.
    pub direction: Direction,
    /// The rules: 1 to 100.
    pub rules: Vec<RuleSpec>,
}

/// Takes rules from a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleRevoke {
    /// The group.
    pub group: String,
    /// The direction they evaluate. Needed where `rules` selects; otherwise it only checks.
    #[serde(default)]
    pub direction: Option<Direction>,
    /// Rules by identifier, at most 100.
    #[serde(default)]
    pub ids: BTreeSet<String>,
    /// Rules by their fields, at most 100; policy and priority are `accept` and 1 where absent.
    #[serde(default)]
    pub rules: Vec<RuleSpec>,
}

/// Changes one rule: each given field replaces; object kind, direction and the form of the ports cannot change.
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
