//! The words for rules.

use super::vocabulary;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use vswitch_core::config::desired::Direction;

vocabulary! {
    /// A rule as its author writes it. Exactly one of `cidr`, `ipv6_cidr`, `group`, `prefix_list` is its object; where
    /// several are given, a prefix hides a group and both hide a prefix list, as in the cloud.
    RuleSpec {
        /// `sgr-…`; made up if absent. Without meaning where fields select a rule.
        id: Option<String>,
        /// `accept` (the default) or `drop`.
        policy: Option<String>,
        /// 1 (the strongest, the default) to 100.
        priority: Option<i64>,
        /// `tcp`, `udp`, `icmp`, `icmpv6`, `gre`, `all` or a number 0 to 255.
        protocol: String,
        /// `first/last` for TCP and UDP, 1 to 65535; `-1/-1` or absent for the others.
        ports: Option<String>,
        /// A port list instead of `ports`; TCP and UDP only.
        port_list: Option<String>,
        /// Source ports `first/last`; all if absent or `-1/-1`.
        source_ports: Option<String>,
        /// The far side: an IPv4 or IPv6 address or prefix; host bits may be set.
        cidr: Option<String>,
        /// The far side: an IPv6 address or prefix.
        ipv6_cidr: Option<String>,
        /// The far side: members of this group.
        group: Option<String>,
        /// The far side: entries of this prefix list.
        prefix_list: Option<String>,
        /// The near side: an IPv4 or IPv6 address or prefix of the ENI; all its addresses if absent.
        local_cidr: Option<String>,
        /// The near side: an IPv6 address or prefix of the ENI.
        ipv6_local_cidr: Option<String>,
        /// What it is for: 1 to 512 characters. Not part of a rule's identity.
        description: Option<String>,
    }

    /// The fields of a rule that change; the same words as in [`RuleSpec`].
    RuleChange {
        /// `accept` or `drop`.
        policy: Option<String>,
        /// 1 to 100.
        priority: Option<i64>,
        /// A protocol.
        protocol: Option<String>,
        /// `first/last`.
        ports: Option<String>,
        /// Another port list, for a rule that has one.
        port_list: Option<String>,
        /// Source ports `first/last`.
        source_ports: Option<String>,
        /// Another far side, for a rule whose object is a prefix of the same family.
        cidr: Option<String>,
        /// Another far side, for a rule whose object is an IPv6 prefix.
        ipv6_cidr: Option<String>,
        /// Another group, for a rule whose object is one.
        group: Option<String>,
        /// Another prefix list, for a rule whose object is one.
        prefix_list: Option<String>,
        /// Another near side.
        local_cidr: Option<String>,
        /// Another near side, IPv6.
        ipv6_local_cidr: Option<String>,
        /// Another description.
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleModify {
    /// The group.
    pub group: String,
    /// The rule.
    pub rule: String,
    /// The fields that change.
    #[serde(default)]
    pub change: RuleChange,
}
