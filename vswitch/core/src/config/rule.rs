//! Rules of security groups, as the control plane sends them.

use crate::config::ids::{GroupId, PortListId, PrefixListId, RuleId};
use alloc::string::String;
use core::fmt;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Which way a packet crosses an ENI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Into the guest.
    Ingress,
    /// Out of the guest.
    Egress,
}

impl Direction {
    /// Both directions with their names.
    pub const NAMES: [(Self, &'static str); 2] = [(Self::Ingress, "ingress"), (Self::Egress, "egress")];

    /// The other direction.
    pub const fn reverse(self) -> Self {
        match self {
            Self::Ingress => Self::Egress,
            Self::Egress => Self::Ingress,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// What a rule, or a group's inner access policy, does with matching packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Let it pass. Declared first so that `Drop > Accept`.
    Accept,
    /// Drop it silently.
    Drop,
}

/// One rule of a security group (§1.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredRule {
    /// Its name, as explain and flow listings show it.
    pub id: RuleId,
    /// The direction it applies to.
    pub direction: Direction,
    /// What it does.
    pub policy: Policy,
    /// 1 is the strongest; up to 110 (rules made by older systems).
    pub priority: u8,
    /// Which packets it matches.
    #[serde(flatten)]
    pub conditions: MatchConditions,
}

/// The match conditions of a rule: it matches packets for which all of them hold. The control plane's rules use the
/// same structure. A condition that is absent holds for every packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchConditions {
    /// The protocols it matches.
    pub protocol: Protocol,
    /// The destination ports it matches, in both directions.
    #[serde(default, skip_serializing_if = "Ports::is_any")]
    pub ports: Ports,
    /// The source ports it matches; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ports: Option<PortRange>,
    /// The far side: the rule's peer object.
    pub remote: Remote,
    /// The near side of a quintuple rule; all of the ENI's addresses if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<IpNet>,
}

impl MatchConditions {
    /// Conditions that match all packets to or from these peers.
    pub const fn of(remote: Remote) -> Self {
        Self { protocol: Protocol::All, ports: Ports::Any, source_ports: None, remote, local: None }
    }

    /// Whether the conditions are consistent, as far as that depends on no other object.
    ///
    /// # Errors
    /// The first inconsistency, in words.
    pub(crate) fn check(&self) -> Result<(), String> {
        // Field by field, so that a new one does not compile until it is said here what it may be.
        let Self { protocol, ports, source_ports, remote: _, local: _ } = self;
        if protocol.has_ports() == ports.is_any() {
            return Err("TCP and UDP rules need destination ports, others have none".into());
        }
        if source_ports.is_some() && !protocol.has_ports() {
            return Err("only TCP and UDP rules may have source ports".into());
        }
        if let Ports::Range(range) = ports {
            range.check()?;
        }
        source_ports.map_or(Ok(()), PortRange::check)
    }
}

/// Protocols of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Every protocol of the address family that the peer object implies.
    All,
    /// One IANA number. 1 (ICMP) covers IPv4 only, 58 (ICMPv6) IPv6 only.
    Number(u8),
}

impl Protocol {
    /// ICMP for IPv4.
    pub const ICMP: Self = Self::Number(1);
    /// TCP.
    pub const TCP: Self = Self::Number(6);
    /// UDP.
    pub const UDP: Self = Self::Number(17);
    /// GRE.
    pub const GRE: Self = Self::Number(47);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self::Number(58);

    /// Whether rules of this protocol match ports.
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP)
    }
}

/// Destination ports of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ports {
    /// Ports are not considered: every protocol but TCP and UDP.
    #[default]
    Any,
    /// One range.
    Range(PortRange),
    /// Any range of a list.
    List(PortListId),
}

impl Ports {
    /// Whether ports are not considered.
    pub const fn is_any(&self) -> bool {
        matches!(self, Self::Any)
    }
}

/// An inclusive range of ports, written `first/last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port, not below `first`.
    pub last: u16,
}

impl PortRange {
    /// Every port that a rule can name.
    pub const ALL: Self = Self { first: 1, last: 65535 };

    /// Whether the range is valid.
    ///
    /// # Errors
    /// Where it is reversed or contains port 0, which no rule matches.
    pub(crate) fn check(self) -> Result<(), String> {
        if self.first == 0 || self.first > self.last {
            return Err(alloc::format!("{self} is not a port range from 1 to 65535"));
        }
        Ok(())
    }

    /// Whether the range contains `port`.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.first, self.last)
    }
}

/// The peer object of a rule: whom it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remote {
    /// Addresses of one prefix; host bits are masked.
    Prefix(IpNet),
    /// Addresses in any entry of a list.
    PrefixList(PrefixListId),
    /// Private addresses of the group's current members (§2.1).
    Group(GroupId),
}
