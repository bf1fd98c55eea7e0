//! Rules compiled for what a packet asks: one *filter* for every set of groups that some ENI has.
//!
//! Addresses never meet rules. The VPC's address map tells which *sets* (prefixes, prefix lists, groups) an address is
//! in; a filter holds, for each set its rules name, one row of bits with a bit for each rule. Rows of the peer's sets
//! are united, then narrowed by the rows of protocol and ports and of the local address; the lowest bit left is the
//! deciding rule, since rules are numbered in the order in which they decide.

pub mod compile;
pub mod reference;
mod rows;

use crate::desired::{Direction, GroupKind, Policy};
use crate::headers::{Addresses, Tuple};
use crate::ids::{GroupId, RuleId};
use crate::verdict::{Judgement, Stage};
use alloc::boxed::Box;
use rows::{RowMatrix, Services};

/// A set of addresses that rules speak of: a prefix, a prefix list, or the members of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(pub u32);

/// All rules of a set of groups, compiled. Shared by every ENI that has exactly these groups.
#[derive(Debug)]
pub struct Filter {
    /// The groups, ascending.
    pub(crate) groups: Box<[FilterGroup]>,
    pub(crate) kind: GroupKind,
    pub(crate) ingress: RuleSet,
    pub(crate) egress: RuleSet,
    /// Every set that a judgement by this filter can depend on.
    pub(crate) mentions: Box<[SetId]>,
}

/// One group of a filter.
#[derive(Debug)]
pub(crate) struct FilterGroup {
    pub(crate) id: GroupId,
    /// Its members, if they reach each other without rules (§3.2).
    pub(crate) open_members: Option<SetId>,
}

/// The rules of one direction.
#[derive(Debug)]
pub struct RuleSet {
    /// In the order in which they decide: priority, then drop before accept (§3.1).
    pub(crate) rules: Box<[FilterRule]>,
    /// Row of each set that a rule names as its object, ascending by set.
    remote: Box<[(SetId, u32)]>,
    remote_rows: RowMatrix,
    services: Services,
    local: Option<rows::LocalRows>,
}

/// What is left of a rule after compilation.
#[derive(Debug)]
pub(crate) struct FilterRule {
    pub(crate) id: RuleId,
    pub(crate) policy: Policy,
    /// Its group, as a place in [`Filter::groups`].
    pub(crate) group: u32,
}

/// Sets of a peer whose rows are united at a time; more are taken in several rounds.
const ROWS_AT_ONCE: usize = 16;

impl Filter {
    /// The rules of a direction.
    pub fn rules(&self, direction: Direction) -> &RuleSet {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// The name of the rule that a judgement of this filter names as its ground, and its group.
    pub fn rule(&self, direction: Direction, ground: u32) -> Option<(&RuleId, &GroupId)> {
        let rule = self.rules(direction).rules.get(ground as usize)?;
        Some((&rule.id, self.group(rule.group)?))
    }

    /// The group that a judgement names as its ground.
    pub fn group(&self, ground: u32) -> Option<&GroupId> {
        self.groups.get(ground as usize).map(|group| &group.id)
    }

    /// Step 3 (§3.2): an open group that holds a peer with these sets.
    pub fn shared_open_group(&self, peer_sets: &[SetId]) -> Option<u32> {
        let is_shared =
            |group: &FilterGroup| group.open_members.is_some_and(|set| peer_sets.binary_search(&set).is_ok());
        self.groups.iter().position(is_shared).map(|place| place as u32)
    }

    /// Steps 4 and 5 (§3.1, §3.3): the first matching rule, or the default.
    pub fn judge(&self, direction: Direction, tuple: &Tuple, peer_sets: &[SetId]) -> Judgement {
        let rules = self.rules(direction);
        match rules.first_match(direction, tuple, peer_sets) {
            Some(ground) => Judgement { policy: rules.rules[ground as usize].policy, stage: Stage::Rule, ground },
            None => Judgement::by(default_policy(self.kind, direction), Stage::Default),
        }
    }
}

/// What happens where no rule matches (§3.3).
pub const fn default_policy(kind: GroupKind, direction: Direction) -> Policy {
    match (kind, direction) {
        (GroupKind::Basic, Direction::Egress) => Policy::Accept,
        _ => Policy::Drop,
    }
}

impl RuleSet {
    fn first_match(&self, direction: Direction, tuple: &Tuple, peer_sets: &[SetId]) -> Option<u32> {
        let services = self.services.rows(tuple);
        let local = self.local.as_ref().map(|local| local.row(local_address(direction, tuple)));
        let mut remote = [[].as_slice(); ROWS_AT_ONCE];
        let mut count = 0;
        let mut first: Option<u32> = None;
        for (position, set) in peer_sets.iter().enumerate() {
            if let Ok(place) = self.remote.binary_search_by_key(set, |&(set, _)| set) {
                remote[count] = self.remote_rows.row(self.remote[place].1);
                count += 1;
            }
            if count == ROWS_AT_ONCE || (position + 1 == peer_sets.len() && count > 0) {
                let found = first_common(&remote[..count], services, local);
                first = first.into_iter().chain(found).min();
                count = 0;
            }
        }
        first
    }
}

/// The lowest bit that is set in one of the remote rows and in all others.
fn first_common(remote: &[&[u64]], (ports, sources): (&[u64], Option<&[u64]>), local: Option<&[u64]>) -> Option<u32> {
    for (word, &by_port) in ports.iter().enumerate() {
        let by_remote = remote.iter().fold(0, |union, row| union | row[word]);
        let by_source = sources.map_or(u64::MAX, |row| row[word]);
        let by_local = local.map_or(u64::MAX, |row| row[word]);
        let common = by_remote & by_port & by_source & by_local;
        if common != 0 {
            return Some(word as u32 * u64::BITS + common.trailing_zeros());
        }
    }
    None
}

/// The near side of a packet that crosses an ENI in `direction`.
fn local_address(direction: Direction, tuple: &Tuple) -> Addresses {
    match direction {
        Direction::Egress => tuple.addresses,
        Direction::Ingress => tuple.addresses.reverse(),
    }
}
