//! A world in which one flow is admitted or not, in three ways, and everybody shares the rules.

use crate::fixture;
use crate::probe_traffic::WATCHED;
use clap::ValueEnum;
use serde::Serialize;
use std::collections::BTreeSet;
use vswitch_core::config::desired::{
    Desired, Direction, GroupKind, Policy, PortRange, Ports, PrefixList, Protocol, Remote, Rule, SecurityGroup,
};
use vswitch_core::config::ids::GroupId;

/// What a change changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// A rule comes and goes.
    Rule,
    /// An ENI goes from a group into another that a rule names, and back. Others have the same groups before and after.
    Membership,
    /// An ENI joins such a group and leaves it, besides groups that nobody else has together with it: so that rules are
    /// compiled for it alone.
    Combination,
    /// A prefix comes and goes in a list that a rule names.
    PrefixList,
}

/// `enis` ENIs that share `rules` rules a direction, and the `members` of the group that is joined.
pub(crate) fn desired((enis, members): (u16, u16), rules: usize, kind: Kind, admits: bool) -> Desired {
    let mut desired = fixture::desired(rules, 1);
    desired.enis.clear();
    for number in 1..=enis {
        desired.enis.insert(fixture::eni_id(number), fixture::eni(number, fixture::SIDES[1]));
    }
    let watched = GroupId::from("sg-watched");
    for number in enis + 1..=enis + members {
        let mut eni = fixture::eni(number, fixture::SIDES[1]);
        eni.groups = BTreeSet::from([watched.clone()]);
        desired.enis.insert(fixture::eni_id(number), eni);
    }
    let group =
        SecurityGroup { vpc: "vpc-1".into(), kind: GroupKind::Basic, inner_access: Policy::Drop, rules: Vec::new() };
    desired.groups.insert(watched.clone(), group);
    let address = fixture::address(WATCHED, false);
    let entries = (kind == Kind::PrefixList && admits).then(|| address.into()).into_iter().collect();
    desired.prefix_lists.insert("pl-watched".into(), PrefixList { entries });
    let remote = match kind {
        Kind::Rule => Remote::Prefix(address.into()),
        Kind::Membership | Kind::Combination => Remote::Group(watched.clone()),
        Kind::PrefixList => Remote::PrefixList("pl-watched".into()),
    };
    if kind == Kind::Membership {
        join_as_others(&mut desired, (enis, members), admits);
    } else if let Some(eni) =
        desired.enis.get_mut(&fixture::eni_id(WATCHED)).filter(|_| kind == Kind::Combination && admits)
    {
        eni.groups.insert(watched);
    }
    let shared = fixture::group_id(fixture::SIDES[1], Direction::Ingress);
    if (kind != Kind::Rule || admits)
        && let Some(shared) = desired.groups.get_mut(&shared)
    {
        shared.rules.push(admitting(remote));
    }
    // As the control plane keeps them: then one rule that changes is told alone.
    for group in desired.groups.values_mut() {
        group.rules.sort_by(|one, other| one.id.cmp(&other.id));
    }
    desired
}

/// Whose packets are watched is in one of two groups; the members, if there are any, are in one of them already, and one
/// more ENI in either keeps both in use.
fn join_as_others(desired: &mut Desired, (enis, members): (u16, u16), admits: bool) {
    let [waiting, watched] = ["sg-waiting", "sg-watched"].map(GroupId::from);
    let group = desired.groups.get(&watched).cloned();
    desired.groups.extend(group.map(|group| (waiting.clone(), group)));
    let joins = if admits { &watched } else { &waiting };
    for (number, group) in [(WATCHED, joins), (enis + members + 1, &watched), (enis + members + 2, &waiting)] {
        let mut eni = fixture::eni(number, fixture::SIDES[1]);
        eni.groups = BTreeSet::from([group.clone()]);
        desired.enis.insert(fixture::eni_id(number), eni);
    }
}

/// Admits the watched packets of these.
pub(crate) fn admitting(remote: Remote) -> Rule {
    let port = crate::frames::DENIED_PORT;
    Rule {
        id: "sgr-watched".into(),
        direction: Direction::Ingress,
        policy: Policy::Accept,
        priority: 50,
        protocol: Protocol::UDP,
        ports: Ports::Range(PortRange { first: port, last: port }),
        source_ports: None,
        remote,
        local: None,
    }
}
