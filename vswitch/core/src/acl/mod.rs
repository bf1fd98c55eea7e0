//! Rules compiled for what a packet asks: one *filter* for every set of groups that some ENI has.
//!
//! Addresses never meet rules. The VPC's address map tells the *class* of an address: which sets (prefixes, prefix
//! lists, groups) it is in, by the prefixes around it and by itself. A filter holds a row of bits for either, with a bit
//! for each rule that names one of the sets. The two are united, then narrowed by the rows of protocol and ports and of the
//! local address; the lowest bit left is the deciding rule, since rules are numbered in the order in which they decide.
//!
//! Rows take room, so they are bounded ([`RowLimits`]). A class without rows, because there was no room or because it
//! is newer than the rows, is evaluated by going through the rules that name its sets, in order. Where the rows of ports
//! would take too much, coarser ones take their place, and each rule that they leave is confirmed.
//!
//! A change of a few rules touches the rows that have their bits: some bits are free for rules to come (`order`), and
//! what a change replaced is what the next one is made in (`left_right`).

mod batch_matcher;
mod bit_matrix;
mod bit_order;
pub mod compile;
mod left_right;
mod local_address;
mod peer_rows;
mod port_rows;
pub mod reference;
mod rule_check;
mod rule_set;
mod rules_by_set;
mod service_rows;

use crate::config::desired::{Direction, GroupKind, Policy};
use crate::config::ids::{GroupId, RuleId};
use crate::config::limits::{ROWS_BYTES_FREE, ROWS_BYTES_MAX, ROWS_BYTES_PER_RULE};
use crate::packet::headers::Tuple;
use crate::packet::verdict::{Decision, Stage};
use crate::tables::address_class::{AddressClass, SetCombinationId, SetId};
use alloc::boxed::Box;
use alloc::sync::Arc;
pub(crate) use batch_matcher::{BatchMatcher, BatchRows};
pub(crate) use left_right::LeftRight;
pub(crate) use peer_rows::PeerRows;
pub(crate) use rule_set::{RowDimensions, RuleSet};
use rules_by_set::RulesBySet;

/// How much room the rows of a filter may take. Beyond it, fewer rows are made, and the packets that miss them are
/// evaluated rule by rule.
#[derive(Clone, Copy, Debug)]
pub struct RowLimits {
    /// Bytes of the rows by class of peers, for each direction.
    pub classes_bytes_max: usize,
    /// Bytes of the rows by protocol and port, and of those by local address, for each direction.
    pub services_bytes_max: usize,
}

impl RowLimits {
    /// For a filter with this many rules in a direction.
    pub const fn of_rules(rules: usize) -> Self {
        let wanted = ROWS_BYTES_FREE + rules * ROWS_BYTES_PER_RULE;
        let bytes_max = if wanted < ROWS_BYTES_MAX { wanted } else { ROWS_BYTES_MAX };
        Self { classes_bytes_max: bytes_max, services_bytes_max: bytes_max }
    }
}

/// The rules of a set of groups, compiled for the addresses of a VPC. Shared by every ENI that has exactly these groups.
#[derive(Debug)]
pub struct Acl {
    rules: Arc<Rules>,
    /// Made for what was known of addresses then; the others are looked up by their sets.
    classes: Arc<PeerRows>,
}

/// All rules of a set of groups. They know sets of addresses, and no address.
#[derive(Debug)]
pub struct Rules {
    /// The groups, ascending.
    groups: Box<[AclGroup]>,
    /// Whether members of one of them reach each other without rules.
    has_open_groups: bool,
    kind: GroupKind,
    /// Shared with rules before and after, where a change was not about a direction.
    ingress: Arc<RuleSet>,
    egress: Arc<RuleSet>,
    /// Every set that a decision by these rules can depend on, ascending.
    mentions: Box<[SetId]>,
}

/// One group of a filter.
#[derive(Debug)]
struct AclGroup {
    id: GroupId,
    /// Its members, if they reach each other without rules (§3.2).
    open_members: Option<SetId>,
}

impl Acl {
    /// Makes the rows of `rules` for the classes of addresses that are known, each given by its sets.
    pub fn new<'a>(rules: Arc<Rules>, classes: impl Iterator<Item = &'a [SetId]>, limits: Option<RowLimits>) -> Self {
        let rules_by_set = rules.rules_by_set();
        let longest = rules_by_set.iter().map(|rules| rules.len()).max().unwrap_or(0);
        let bytes_max = limits.unwrap_or(RowLimits::of_rules(longest)).classes_bytes_max;
        // Rules that name nothing ask nothing of a class.
        let bytes_max = if rules.mentions.is_empty() { 0 } else { bytes_max };
        let classes = PeerRows::make(rules_by_set, classes, rules.asks_for_open_group(), bytes_max);
        Self { rules, classes: Arc::new(classes) }
    }

    /// The filter with other `rules` whose rows for peers are the same; none if they are not.
    pub(crate) fn with_rules(&self, rules: &Arc<Rules>) -> Option<Self> {
        let is_same = rules.opens_the_same(&self.rules) && self.classes.tell(rules.rules_by_set());
        is_same.then(|| Self { rules: Arc::clone(rules), classes: Arc::clone(&self.classes) })
    }

    /// The filter with other `rules`, of which most are the same: only the rows change that a changed rule has a bit in.
    /// None if that cannot be.
    pub(crate) fn following<'a>(
        &self,
        rules: &Arc<Rules>,
        classes: impl Iterator<Item = &'a [SetId]> + Clone,
        left_right: &mut LeftRight<PeerRows>,
    ) -> Option<Self> {
        if !rules.opens_the_same(&self.rules) {
            return None;
        }
        let follow =
            |rows: &mut PeerRows| rows.follow(rules.rules_by_set(), classes.clone(), rules.asks_for_open_group());
        let classes = left_right.change(&self.classes, |rows, ()| follow(rows), (), self.classes.bytes())?;
        Some(Self { rules: Arc::clone(rules), classes })
    }

    /// The rules without their rows by class.
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// Whether members of one of its groups reach each other without rules (§3.2).
    pub(crate) fn has_open_groups(&self) -> bool {
        self.rules.has_open_groups
    }

    /// How many classes of addresses it knows: none of those that came later. None if it has no room for more.
    pub fn classes_known(&self) -> Option<usize> {
        self.classes.known()
    }

    /// The name of the rule that a decision of this filter names as its ground, and its group.
    pub fn rule(&self, direction: Direction, ground: u32) -> Option<(&RuleId, &GroupId)> {
        let rules = self.rules.of(direction);
        let rule = rules.rules.get(ground as usize)?.as_ref()?;
        Some((&rule.id, rules.groups.get(rule.group as usize)?))
    }

    /// The group that a decision names as its ground.
    pub fn group(&self, ground: u32) -> Option<&GroupId> {
        self.rules.groups.get(ground as usize).map(|group| &group.id)
    }

    /// Step 3 (§3.2): an open group that holds a peer of this class; `sets_of` tells what sets a number stands for.
    #[inline]
    pub fn shared_open_group<'a>(
        &self,
        peer: AddressClass,
        sets_of: impl Fn(SetCombinationId) -> &'a [SetId],
    ) -> Option<u32> {
        if !self.rules.has_open_groups {
            return None;
        }
        self.classes.open_group(peer).unwrap_or_else(|| {
            let of = |sets| self.rules.open_group(sets_of(sets));
            of(peer.by_prefix).into_iter().chain(of(peer.by_host)).min()
        })
    }

    /// Steps 4 and 5 (§3.1, §3.3) for a peer of this class: the first matching rule, or the default. `sets_of` tells what
    /// sets a number stands for.
    #[inline]
    pub fn decide<'a>(
        &self,
        direction: Direction,
        tuple: &Tuple,
        peer: AddressClass,
        sets_of: impl Fn(SetCombinationId) -> &'a [SetId],
    ) -> Decision {
        let rules = self.rules.of(direction);
        let found = match self.classes.rows(direction, peer) {
            _ if rules.rules.is_empty() => None,
            Some(rows) => rules.first_in_rows(rows, direction, tuple),
            None => rules.first_of_sets([peer.by_prefix, peer.by_host].map(sets_of), direction, tuple),
        };
        rules.decision(found, self.rules.default_of(direction))
    }

    /// What a decision in one direction has to look at.
    pub(crate) fn row_dimensions(&self, direction: Direction) -> RowDimensions {
        self.rules.of(direction).row_dimensions()
    }

    /// The rows of one direction by peer and service, for packet after packet. They tell all where [`RowDimensions`] has no
    /// others.
    pub(crate) fn batch_matcher(&self, direction: Direction) -> BatchMatcher<'_> {
        let rules = self.rules.of(direction);
        let default = self.rules.default_of(direction);
        if rules.order.words() <= bit_matrix::NARROW {
            BatchMatcher::Narrow(BatchRows::new(rules, self.classes.matrix(direction), default))
        } else {
            BatchMatcher::Wide(BatchRows::new(rules, self.classes.matrix(direction), default))
        }
    }

    /// Bytes that its rows and rules take, without their names.
    pub fn bytes(&self) -> usize {
        self.classes.bytes() + self.rules.ingress.bytes() + self.rules.egress.bytes()
    }
}

/// What happens where no rule matches (§3.3).
pub const fn default_policy(kind: GroupKind, direction: Direction) -> Policy {
    match (kind, direction) {
        (GroupKind::Basic, Direction::Egress) => Policy::Accept,
        _ => Policy::Drop,
    }
}

impl Rules {
    fn of(&self, direction: Direction) -> &Arc<RuleSet> {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    const fn default_of(&self, direction: Direction) -> Decision {
        Decision::by(default_policy(self.kind, direction), Stage::Default)
    }

    /// Every set that a decision by these rules can depend on, ascending.
    pub fn mentions(&self) -> &[SetId] {
        &self.mentions
    }

    fn rules_by_set(&self) -> [&Arc<RulesBySet>; 2] {
        [&self.ingress.rules_by_set, &self.egress.rules_by_set]
    }

    /// Whether the same groups are open as in others, at the same places.
    fn opens_the_same(&self, other: &Self) -> bool {
        let open = |group: &AclGroup| group.open_members;
        self.has_open_groups == other.has_open_groups
            && (!self.has_open_groups || self.groups.iter().map(open).eq(other.groups.iter().map(open)))
    }

    fn asks_for_open_group(&self) -> Option<impl Fn(&[SetId]) -> Option<u32>> {
        self.has_open_groups.then_some(|sets: &[SetId]| self.open_group(sets))
    }

    fn open_group(&self, peer_sets: &[SetId]) -> Option<u32> {
        let is_shared = |group: &AclGroup| group.open_members.is_some_and(|set| peer_sets.binary_search(&set).is_ok());
        self.groups.iter().position(is_shared).map(|place| place as u32)
    }
}
