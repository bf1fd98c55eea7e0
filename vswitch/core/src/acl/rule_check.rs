//! Confirms rules that the rows found, for conditions that the rows cannot express.

use crate::acl::service_rows::{Numbered, PortCheck};
use crate::config::desired::{Direction, MatchConditions};
use crate::packet::headers::{Addresses, Tuple};
use core::net::IpAddr;
use ipnet::IpNet;

/// The conditions of a rule that rows may not express exactly.
#[derive(Clone, Debug, Default)]
pub(super) struct RuleCheck {
    ports: PortCheck,
    local: Option<IpNet>,
}

impl RuleCheck {
    pub(super) fn new(Numbered { rule, ranges, .. }: Numbered<'_>) -> Self {
        Self { ports: PortCheck::new(rule, ranges), local: rule.conditions.local }
    }

    /// Whether a rule has a condition that no rows express, so that the rules of its direction have to be confirmed.
    pub(super) const fn is_needed_for(conditions: &MatchConditions) -> bool {
        // Field by field: a new condition does not compile until it has rows or is confirmed below.
        let MatchConditions {
            // Expressed by `ServiceRows`; confirmed by `PortCheck` if these are not exact.
            protocol: _,
            ports: _,
            source_ports: _,
            // Expressed by `RulesBySet`.
            remote: _,
            // Expressed by `LocalAddress`; confirmed by `local` if that is `Checked`.
            local: _,
        } = conditions;
        false
    }

    pub(super) fn confirms(&self, direction: Direction, tuple: &Tuple) -> bool {
        let local = || match local_address(direction, tuple) {
            Addresses::V4 { source, .. } => IpAddr::V4(source.into()),
            Addresses::V6 { source, .. } => IpAddr::V6(source.into()),
        };
        self.ports.covers(tuple) && self.local.is_none_or(|prefix| prefix.trunc().contains(&local()))
    }
}

/// The local side of a packet that crosses an ENI in `direction`, as the source.
pub(super) fn local_address(direction: Direction, tuple: &Tuple) -> Addresses {
    match direction {
        Direction::Egress => tuple.addresses,
        Direction::Ingress => tuple.addresses.reverse(),
    }
}
