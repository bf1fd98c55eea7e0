//! Bit-vector classification: rules compiled to one *ACL* for each set of groups that an ENI has.
//!
//! Addresses are never compared with rules. The VPC's address table gives the *class* of an address: the sets
//! (prefixes, prefix lists, groups) that contain it, by its prefixes and by the address itself. An ACL has a row of
//! bits for either, with a bit for each rule that names one of the sets. A look-up unites the two rows and intersects
//! them with the row for protocol and ports and the row for the local address. The lowest bit left is the deciding
//! rule, since bits ascend in the order in which rules decide.
//!
//! The size of the rows is limited ([`RowLimits`]). A class has no row if there was no room for it or if it is newer
//! than the rows; its packets go through the rules that name its sets, in order. If the rows for ports would be too
//! large, coarser ones take their place, and each rule that they yield is confirmed.
//!
//! A change of a few rules writes only the rows that contain their bits: some bits are left free for new rules
//! (`bit_order`), and the change is made in the copy that the last one replaced (`left_right`).

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

/// How large the rows of an ACL may be. Beyond that, fewer rows are made, and packets without rows are evaluated rule
/// by rule.
#[derive(Clone, Copy, Debug)]
pub struct RowLimits {
    /// For the rows by peer class, per direction, bytes.
    pub classes_bytes_max: usize,
    /// For the rows by protocol and port, and for those by local address, per direction, bytes.
    pub services_bytes_max: usize,
}

impl RowLimits {
    /// The limits for an ACL with this many rules in a direction.
    pub const fn of_rules(rules: usize) -> Self {
        let wanted = ROWS_BYTES_FREE + rules * ROWS_BYTES_PER_RULE;
        let bytes_max = if wanted < ROWS_BYTES_MAX { wanted } else { ROWS_BYTES_MAX };
        Self { classes_bytes_max: bytes_max, services_bytes_max: bytes_max }
    }
}

/// The rules of a set of groups, compiled for the addresses of a VPC. Every ENI in exactly these groups shares it.
#[derive(Debug)]
pub struct Acl {
    rules: Arc<Rules>,
    /// Made for the classes known at the time. Others are looked up by their sets.
    classes: Arc<PeerRows>,
}

/// All rules of a set of groups. They know sets of addresses, but no addresses.
#[derive(Debug)]
pub struct Rules {
    /// The groups, ascending.
    groups: Box<[AclGroup]>,
    /// Whether members of one of the groups reach each other without rules.
    has_open_groups: bool,
    kind: GroupKind,
    /// Shared with earlier and later versions in which this direction is the same.
    ingress: Arc<RuleSet>,
    egress: Arc<RuleSet>,
    /// Every set that a decision by these rules can depend on, ascending.
    mentions: Box<[SetId]>,
}

/// One group of an ACL.
#[derive(Debug)]
struct AclGroup {
    id: GroupId,
    /// Its members, if they reach each other without rules (§3.2).
    open_members: Option<SetId>,
}

impl Acl {
    /// Makes the rows of `rules` for the known classes of addresses, each given by its sets.
    pub fn new<'a>(rules: Arc<Rules>, classes: impl Iterator<Item = &'a [SetId]>, limits: Option<RowLimits>) -> Self {
        let rules_by_set = rules.rules_by_set();
        let longest = rules_by_set.iter().map(|rules| rules.len()).max().unwrap_or(0);
        let bytes_max = limits.unwrap_or(RowLimits::of_rules(longest)).classes_bytes_max;
        // Rules that name no set do not depend on a class.
        let bytes_max = if rules.mentions.is_empty() { 0 } else { bytes_max };
        let classes = PeerRows::make(rules_by_set, classes, rules.asks_for_open_group(), bytes_max);
        Self { rules, classes: Arc::new(classes) }
    }

    /// The ACL with other `rules` that have the same rows for peers, or `None` if theirs differ.
    // Peer rows depend only on which sets the rules name, so a change of ports or policy keeps them.
    pub(crate) fn with_rules(&self, rules: &Arc<Rules>) -> Option<Self> {
        let is_same = rules.opens_the_same(&self.rules) && self.classes.tell(rules.rules_by_set());
        is_same.then(|| Self { rules: Arc::clone(rules), classes: Arc::clone(&self.classes) })
    }

    /// The ACL with other `rules` of which most are the same: only rows that contain the bit of a changed rule are
    /// written. Returns `None` if the rows have to be made anew.
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

    /// The rules, without the rows by class.
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// Whether members of one of the groups reach each other without rules (§3.2).
    pub(crate) fn has_open_groups(&self) -> bool {
        self.rules.has_open_groups
    }

    /// The number of address classes that have rows; later ones do not. `None` if there is no room for more.
    pub fn classes_known(&self) -> Option<usize> {
        self.classes.known()
    }

    /// The rule that a decision of this ACL gives as its ground, and the rule's group.
    pub fn rule(&self, direction: Direction, ground: u32) -> Option<(&RuleId, &GroupId)> {
        let rules = self.rules.of(direction);
        let rule = rules.rules.get(ground as usize)?.as_ref()?;
        Some((&rule.id, rules.groups.get(rule.group as usize)?))
    }

    /// The group that a decision gives as its ground.
    pub fn group(&self, ground: u32) -> Option<&GroupId> {
        self.rules.groups.get(ground as usize).map(|group| &group.id)
    }

    /// Step 3 (§3.2): an open group that contains a peer of this class. `sets_of` returns the sets of a combination.
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
            // The lowest index wins, as among the groups of one combination.
            of(peer.by_prefix).into_iter().chain(of(peer.by_host)).min()
        })
    }

    /// Steps 4 and 5 (§3.1, §3.3) for a peer of this class: the first matching rule, or the default. `sets_of` returns
    /// the sets of a combination.
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
            // Without rules there is nothing to find, whether the peer's rows were made or not.
            _ if rules.rules.is_empty() => None,
            Some(rows) => rules.first_in_rows(rows, direction, tuple),
            None => rules.first_of_sets([peer.by_prefix, peer.by_host].map(sets_of), direction, tuple),
        };
        rules.decision(found, self.rules.default_of(direction))
    }

    /// The kinds of rows that a decision in one direction has to look at.
    pub(crate) fn row_dimensions(&self, direction: Direction) -> RowDimensions {
        self.rules.of(direction).row_dimensions()
    }

    /// The rows of one direction by peer and service, for a batch of packets. They suffice where [`RowDimensions`]
    /// names no others.
    pub(crate) fn batch_matcher(&self, direction: Direction) -> BatchMatcher<'_> {
        let rules = self.rules.of(direction);
        let default = self.rules.default_of(direction);
        if rules.order.words() <= bit_matrix::NARROW {
            BatchMatcher::Narrow(BatchRows::new(rules, self.classes.matrix(direction), default))
        } else {
            BatchMatcher::Wide(BatchRows::new(rules, self.classes.matrix(direction), default))
        }
    }

    /// The size of the rows and rules without their names, bytes.
    pub fn bytes(&self) -> usize {
        self.classes.bytes() + self.rules.ingress.bytes() + self.rules.egress.bytes()
    }
}

/// The policy if no rule matches (§3.3).
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

    /// Whether the same groups, at the same indexes, are open in both.
    fn opens_the_same(&self, other: &Self) -> bool {
        let open = |group: &AclGroup| group.open_members;
        self.has_open_groups == other.has_open_groups
            // Where no group is open, the indexes are not used and need not agree.
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
