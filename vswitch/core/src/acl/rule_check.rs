//! What rows may not tell of a rule: each rule that they find is confirmed by it. The place for a condition without rows.

use crate::acl::service_rows::{Numbered, PortCheck};
use crate::config::desired::{Direction, MatchConditions};
use crate::packet::headers::{Addresses, Tuple};
use core::net::IpAddr;
use ipnet::IpNet;

/// The conditions of a rule that rows may not tell exactly.
#[derive(Clone, Debug, Default)]
pub(super) struct RuleCheck {
    ports: PortCheck,
    local: Option<IpNet>,
}

impl RuleCheck {
    pub(super) fn new(Numbered { rule, ranges, .. }: Numbered<'_>) -> Self {
        Self { ports: PortCheck::new(rule, ranges), local: rule.conditions.local }
    }

    /// Whether a rule asks what no rows tell, so that the rules of its direction have to be confirmed.
    pub(super) const fn is_needed_for(conditions: &MatchConditions) -> bool {
        // Field by field: a new one does not compile until it has rows, or is asked for here and confirmed below.
        let MatchConditions {
            // `ServiceRows`, and `PortCheck` where these are not exact.
            protocol: _,
            ports: _,
            source_ports: _,
            // `RulesBySet`.
            remote: _,
            // `LocalAddress`, and `local` where it is `Checked`.
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

/// The near side of a packet that crosses an ENI in `direction`.
pub(super) fn local_address(direction: Direction, tuple: &Tuple) -> Addresses {
    match direction {
        Direction::Egress => tuple.addresses,
        Direction::Ingress => tuple.addresses.reverse(),
    }
}
