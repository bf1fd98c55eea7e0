//! What explain tells: the decision of a packet at each ENI it would meet, with the ground of each.

use crate::config::desired::{Direction, Policy};
use crate::config::ids::{EniId, GroupId, RuleId};
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// The way of a packet through the switch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Whether the packet would be delivered.
    pub delivered: bool,
    /// What happens to it in the end: `deliver`, `answer`, or the name of the drop reason.
    pub verdict: String,
    /// The decisions it met, in order: egress at its sender, ingress at its receiver.
    #[serde(rename = "judgements")]
    pub decisions: Vec<DecisionReport>,
}

/// One decision, told with names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionReport {
    /// The ENI that evaluated.
    pub eni: EniId,
    /// The direction it evaluated.
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
