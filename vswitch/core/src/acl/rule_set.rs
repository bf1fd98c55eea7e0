//! The rules of one direction as look-ups use them: rows by set, by service and by local address.

use super::bit_matrix::{first_common, first_confirmed, has_bit};
use super::bit_order::BitOrder;
use super::local_address::LocalAddress;
use super::rule_check::{RuleCheck, local_address};
use super::rules_by_set::RulesBySet;
use super::service_rows::ServiceRows;
use crate::config::desired::{Direction, Policy};
use crate::config::ids::{GroupId, RuleId};
use crate::packet::headers::Tuple;
use crate::packet::verdict::{Decision, Stage};
use crate::tables::address_class::SetId;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// The rules of one direction.
#[derive(Clone, Debug)]
pub(crate) struct RuleSet {
    /// The groups that have rules in this direction, ascending. ENIs share the rules if their groups differ only by
    /// groups without such rules.
    pub(super) groups: Box<[GroupId]>,
    /// By bit, so in the order in which they decide (§3.1); `None` for a free bit.
    pub(super) rules: Vec<Option<AclRule>>,
    pub(super) order: BitOrder,
    /// A bit for each rule that accepts.
    pub(super) accepts: Vec<u64>,
    pub(super) rules_by_set: Arc<RulesBySet>,
    pub(super) services: ServiceRows,
    pub(super) local: LocalAddress,
    /// What confirms each rule, if some rows are inexact.
    pub(super) checks: Option<Vec<RuleCheck>>,
}

/// What compilation keeps of a rule.
#[derive(Clone, Debug)]
pub(super) struct AclRule {
    pub(super) id: RuleId,
    /// The index of its group in [`RuleSet::groups`].
    pub(super) group: u32,
}

/// The kinds of rows that a decision has to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowDimensions {
    /// Rows by peer and rows by protocol and destination port always exist.
    pub(crate) by_peer: (),
    pub(crate) by_service: (),
    pub(crate) by_source_port: bool,
    pub(crate) by_local_address: bool,
    /// Some rows are inexact: each rule that they yield has to be confirmed.
    pub(crate) confirms: bool,
}

impl RuleSet {
    /// Every dimension that the rules look at. A new one does not compile before it is added here.
    pub(super) fn row_dimensions(&self) -> RowDimensions {
        let Self { groups: _, rules: _, order: _, accepts: _, rules_by_set: _, services, local, checks } = self;
        RowDimensions {
            by_peer: (),
            by_service: (),
            by_source_port: !services.is_by_destination(),
            by_local_address: !matches!(local, LocalAddress::Any),
            confirms: checks.is_some(),
        }
    }

    /// The decision of the rule that was found, or the default.
    #[inline(always)]
    pub(super) fn decision(&self, found: Option<u32>, default: Decision) -> Decision {
        let Some(ground) = found else { return default };
        let policy = if has_bit(&self.accepts, ground) { Policy::Accept } else { Policy::Drop };
        Decision { policy, stage: Stage::Rule, ground }
    }

    #[inline]
    pub(super) fn first_in_rows(&self, remote: [&[u64]; 2], direction: Direction, tuple: &Tuple) -> Option<u32> {
        let ports = self.services.row(tuple);
        match (self.services.sources(tuple), &self.local, &self.checks) {
            (None, LocalAddress::Any, None) => first_common(remote, ports),
            (sources, local, checks) => {
                // A missing row is replaced by one that is ANDed anyway, which changes nothing and needs no branch.
                let local = local.row(local_address(direction, tuple)).unwrap_or(ports);
                let is_true =
                    |rule| checks.as_ref().is_none_or(|checks| checks[rule as usize].confirms(direction, tuple));
                first_confirmed(remote, [ports, sources.unwrap_or(ports), local], is_true)
            }
        }
    }

    #[cold]
    pub(super) fn first_of_sets(&self, sets: [&[SetId]; 2], direction: Direction, tuple: &Tuple) -> Option<u32> {
        let ports = self.services.row(tuple);
        let sources = self.services.sources(tuple).unwrap_or(ports);
        let local = self.local.row(local_address(direction, tuple)).unwrap_or(ports);
        let is_true = |rule| {
            // The bits are tested one by one here: without a row for the class there is nothing to AND.
            [ports, sources, local].into_iter().all(|row| has_bit(row, rule))
                && self.checks.as_ref().is_none_or(|checks| checks[rule as usize].confirms(direction, tuple))
        };
        self.rules_by_set.first(sets.into_iter().flatten(), is_true)
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.rules)
            + size_of_val(&*self.accepts)
            + self.order.bytes()
            + self.rules_by_set.bytes()
            + self.services.bytes()
            + self.local.bytes()
            + self.checks.as_ref().map_or(0, |checks| size_of_val(&**checks))
    }
}
