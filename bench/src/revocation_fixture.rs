//! A world in which one ENI reaches many others for one ground, and ways of taking that ground away.

use crate::fixture;
use crate::probe_traffic::{RECEIVER, STEADY, WATCHED};
use crate::update_fixture::admitting;
use clap::ValueEnum;
use serde::Serialize;
use vswitch_core::config::desired::{Desired, Direction, GroupKind, Policy, PrefixList, Remote, SecurityGroup};
use vswitch_core::config::ids::GroupId;

/// What a change changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// The rule goes.
    Rule,
    /// The sender leaves the group that the rule names.
    Membership,
    /// The sender's address leaves the list that the rule names.
    PrefixList,
    /// The group that they all are in closes itself to its members.
    InnerPolicy,
    /// The receivers get another group in place of the one with the rule.
    GroupReplaced,
    /// The receivers get other timeouts: nothing is revoked.
    Timeouts,
}

impl Kind {
    /// Its name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether it takes the ground away.
    pub(crate) const fn revokes(self) -> bool {
        !matches!(self, Self::Timeouts)
    }
}

/// The numbers of the receivers whose rules change.
pub(crate) fn receivers(enis: u16) -> std::ops::Range<u16> {
    let first = WATCHED + 1;
    first..first + enis
}

/// `enis` receivers that share `rules` rules a direction: before a change of this kind, or after it.
pub(crate) fn desired(enis: u16, rules: usize, kind: Kind, is_changed: bool) -> Desired {
    let mut desired = fixture::desired(rules, 1);
    desired.enis.clear();
    for (numbers, side) in [([STEADY, RECEIVER, WATCHED].to_vec(), 0), (receivers(enis).collect(), 1)] {
        let enis =
            numbers.into_iter().map(|number| (fixture::eni_id(number), fixture::eni(number, fixture::SIDES[side])));
        desired.enis.extend(enis);
    }
    let [named, inner, with_rule, without_rule] =
        ["sg-named", "sg-inner", "sg-with-rule", "sg-without-rule"].map(GroupId::from);
    for id in [&named, &inner, &with_rule, &without_rule] {
        desired.groups.insert(id.clone(), closed_group());
    }
    let shared = fixture::group_id(fixture::SIDES[1], Direction::Ingress);
    let address = fixture::address(WATCHED, false).into();
    let mut listed = PrefixList::default();
    let admit = |desired: &mut Desired, group: &GroupId, remote| {
        if let Some(group) = desired.groups.get_mut(group) {
            group.rules.push(admitting(remote));
        }
    };
    match kind {
        Kind::Rule if is_changed => {}
        Kind::Rule => admit(&mut desired, &shared, Remote::Prefix(address)),
        Kind::Membership => {
            admit(&mut desired, &shared, Remote::Group(named.clone()));
            join(&mut desired, (!is_changed).then_some(WATCHED), &named);
        }
        Kind::PrefixList => {
            admit(&mut desired, &shared, Remote::PrefixList("pl-watched".into()));
            listed.entries.extend((!is_changed).then_some(address));
        }
        Kind::InnerPolicy => {
            join(&mut desired, receivers(enis).chain([WATCHED]), &inner);
            if let (false, Some(inner)) = (is_changed, desired.groups.get_mut(&inner)) {
                inner.inner_access = Policy::Accept;
            }
        }
        Kind::GroupReplaced => {
            admit(&mut desired, &with_rule, Remote::Prefix(address));
            join(&mut desired, receivers(enis), if is_changed { &without_rule } else { &with_rule });
        }
        Kind::Timeouts => {
            admit(&mut desired, &shared, Remote::Prefix(address));
            for number in receivers(enis) {
                if let (true, Some(eni)) = (is_changed, desired.enis.get_mut(&fixture::eni_id(number))) {
                    eni.timeouts.udp_s = 100;
                }
            }
        }
    }
    desired.prefix_lists.insert("pl-watched".into(), listed);
    // As the control plane keeps them: then one rule that changes is told alone.
    for group in desired.groups.values_mut() {
        group.rules.sort_by(|one, other| one.id.cmp(&other.id));
    }
    desired
}

fn closed_group() -> SecurityGroup {
    SecurityGroup { vpc: "vpc-1".into(), kind: GroupKind::Basic, inner_access: Policy::Drop, rules: Vec::new() }
}

fn join(desired: &mut Desired, numbers: impl IntoIterator<Item = u16>, group: &GroupId) {
    for number in numbers {
        if let Some(eni) = desired.enis.get_mut(&fixture::eni_id(number)) {
            eni.groups.insert(group.clone());
        }
    }
}
