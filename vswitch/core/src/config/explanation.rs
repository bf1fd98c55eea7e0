//! What `explain` reports: the decision about a packet at each ENI on its path, with the ground of each.

use crate::config::desired::{Direction, Policy};
use crate::config::ids::{EniId, GroupId, RuleId};
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// The path of a packet through the switch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Whether the packet would be delivered.
    pub delivered: bool,
    /// What finally happens to it: `deliver`, `answer`, or the name of the drop reason.
    pub verdict: String,
    /// The decisions on its path, in order: egress at its sender, ingress at its receiver.
    #[serde(rename = "judgements")]
    pub decisions: Vec<DecisionReport>,
}

/// One decision, with the names of objects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionReport {
    /// The ENI at which the packet was evaluated.
    pub eni: EniId,
    /// The direction in which it was evaluated.
    pub direction: Direction,
    /// What it decided.
    pub policy: Policy,
    /// The step that decided, by [`Stage::name`](crate::packet::verdict::Stage::name).
    pub stage: String,
    /// The rule that decided, if it was a rule.
    pub rule: Option<RuleId>,
    /// The shared group, if intra-group access decided; the group of the rule, if a rule did.
    pub group: Option<GroupId>,
}
