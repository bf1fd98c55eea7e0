//! The reference: a slow and literal implementation of `semantics.md` §2 and §3 over the desired state. Tests compare
//! the compiled ACL with it; no packet is forwarded by it.

use crate::config::desired::{
    Desired, DesiredEni, DesiredRule, Direction, GroupKind, MatchConditions, Policy, Ports, Protocol, Remote,
};
use crate::config::ids::{EniId, GroupId, RuleId};
use crate::packet::headers::{Tuple, protocol};
use crate::packet::verdict::Stage;
use alloc::vec::Vec;
use core::net::IpAddr;
use ipnet::IpNet;

/// A decision of the reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceDecision {
    /// Whether the packet passes.
    pub policy: Policy,
    /// The step that decided.
    pub stage: Stage,
    /// The deciding rules; several if rules of equal rank match.
    pub rules: Vec<RuleId>,
}

/// Steps 3 to 5 of §3 for a packet that crosses `eni` in `direction`.
pub fn decide(desired: &Desired, eni: &EniId, direction: Direction, tuple: &Tuple) -> ReferenceDecision {
    let here = &desired.enis[eni];
    let remote = match direction {
        Direction::Ingress => tuple.addresses.source(),
        Direction::Egress => tuple.addresses.destination(),
    };
    let bypass = direction == Direction::Ingress || desired.settings.intra_group_egress_bypass;
    // A guest's own other addresses are no members of its group as peers (§3.2): a peer is another ENI.
    if bypass && here.groups.iter().any(|group| is_open_to(desired, group, eni, remote)) {
        return ReferenceDecision { policy: Policy::Accept, stage: Stage::IntraGroup, rules: Vec::new() };
    }
    let groups = here.groups.iter().filter_map(|id| desired.groups.get(id));
    let matching: Vec<&DesiredRule> = groups
        .clone()
        .flat_map(|group| &group.rules)
        .filter(|rule| rule.direction == direction && matches(desired, rule, tuple))
        .collect();
    // An equivalent form of §3.1: among the rules of the smallest priority, a drop wins.
    if let Some(priority) = matching.iter().map(|rule| rule.priority).min() {
        let strongest = matching.into_iter().filter(|rule| rule.priority == priority);
        let policy = strongest.clone().map(|rule| rule.policy).max().unwrap_or(Policy::Drop);
        let rules = strongest.filter(|rule| rule.policy == policy).map(|rule| rule.id.clone()).collect();
        return ReferenceDecision { policy, stage: Stage::Rule, rules };
    }
    let basic = groups.clone().any(|group| group.kind == GroupKind::Basic);
    let policy = if basic && direction == Direction::Egress { Policy::Accept } else { Policy::Drop };
    ReferenceDecision { policy, stage: Stage::Default, rules: Vec::new() }
}

fn is_open_to(desired: &Desired, group: &GroupId, eni: &EniId, remote: IpAddr) -> bool {
    let open = desired
        .groups
        .get(group)
        .is_some_and(|group| group.kind == GroupKind::Basic && group.inner_access == Policy::Accept);
    let another_member_is_there =
        |(id, other): (&EniId, &DesiredEni)| id != eni && other.groups.contains(group) && owns(other, remote);
    open && desired.enis.iter().any(another_member_is_there)
}

fn owns(eni: &DesiredEni, address: IpAddr) -> bool {
    eni.addresses.iter().any(|prefix| contains(prefix, address))
}

fn contains(prefix: &IpNet, address: IpAddr) -> bool {
    prefix.trunc().contains(&address)
}

/// §2: whether a rule matches a packet. The rule's direction is not checked.
fn matches(desired: &Desired, rule: &DesiredRule, tuple: &Tuple) -> bool {
    // Field by field, so that a new condition does not compile before its meaning is defined here.
    let MatchConditions { protocol: covered, ports: destination_ports, source_ports, remote: object, local: near } =
        &rule.conditions;
    let (source, destination) = (tuple.addresses.source(), tuple.addresses.destination());
    let (remote, local) = match rule.direction {
        Direction::Ingress => (source, destination),
        Direction::Egress => (destination, source),
    };
    let is_object = match object {
        Remote::Prefix(prefix) => contains(prefix, remote),
        Remote::PrefixList(list) => {
            desired.prefix_lists.get(list).is_some_and(|list| list.entries.iter().any(|entry| contains(entry, remote)))
        }
        Remote::Group(group) => {
            desired.enis.values().any(|member| member.groups.contains(group) && owns(member, remote))
        }
    };
    let has_protocol = match *covered {
        Protocol::All => true,
        Protocol::ICMP => tuple.protocol == protocol::ICMP && remote.is_ipv4(),
        Protocol::ICMPV6 => tuple.protocol == protocol::ICMPV6 && remote.is_ipv6(),
        Protocol::Number(number) => tuple.protocol == number,
    };
    // Later fragments come here with port zero, which only rules without ports cover.
    let has_ports = if matches!(tuple.protocol, protocol::TCP | protocol::UDP) && covered.has_ports() {
        let destination = match destination_ports {
            Ports::Any => false,
            Ports::Range(range) => range.contains(tuple.destination_port),
            Ports::List(list) => desired
                .port_lists
                .get(list)
                .is_some_and(|list| list.entries.iter().any(|range| range.contains(tuple.destination_port))),
        };
        destination && source_ports.is_none_or(|range| range.contains(tuple.source_port))
    } else {
        true
    };
    is_object && has_protocol && has_ports && near.is_none_or(|prefix| contains(&prefix, local))
}
