//! The model as the forwarding plane needs it: no names, no quotas, only what affects packets.

use crate::model::{Eni, Event, Group, Model, PortList, PrefixList, Rule, VSwitch, Vpc, dhcp};
use crate::state::outside::{self, Touched};
use std::borrow::Cow;
use std::collections::BTreeMap;
use vswitch_core::config::desired::{self, Desired, Ports, Remote};
use vswitch_core::config::ids::{EniId, GroupId, RuleId, VpcId};
use vswitch_core::config::protocol::Delta;

/// The desired state of a model.
pub fn desired(model: &Model) -> Desired {
    Desired {
        settings: model.settings.clone(),
        vpcs: model.vpcs.iter().map(|(id, vpc)| (id.clone(), desired_vpc(model, id, vpc))).collect(),
        vswitches: desired_all(&model.vswitches, desired_vswitch),
        groups: (model.groups.iter())
            .filter_map(|(id, group)| Some((id.clone(), desired_group(model, id, group)?)))
            .collect(),
        prefix_lists: desired_all(&model.prefix_lists, desired_prefix_list),
        port_lists: desired_all(&model.port_lists, desired_port_list),
        enis: model.enis.iter().map(|(id, eni)| (id.clone(), desired_eni(model, eni))).collect(),
        uplinks: model
            .uplinks
            .iter()
            .map(|(id, uplink)| (id.clone(), outside::desired_uplink(model, uplink)))
            .collect(),
    }
}

fn desired_all<K: Ord + Clone, M, D>(objects: &BTreeMap<K, M>, desired: fn(&M) -> D) -> BTreeMap<K, D> {
    objects.iter().map(|(id, object)| (id.clone(), desired(object))).collect()
}

/// The delta from `desired` to the state of `model`, given that they differ only in the objects of `events`.
pub fn affected(model: &Model, events: &[Event], desired: &Desired) -> Delta {
    let mut delta = Delta::default();
    let mut touched = Touched::default();
    for event in events {
        match event {
            Event::Settings(_) => {
                delta.settings = (model.settings != desired.settings).then(|| model.settings.clone());
            }
            Event::Vpc(id, _) => {
                affect_vpc(&mut delta, model, id, desired);
                touched.uplinks_of(id);
            }
            Event::VSwitch(id, _) => {
                touched.subnet(model, id, desired);
                let now = || model.vswitches.get(id).map(desired_vswitch);
                affect(&mut delta.vswitches, id, &desired.vswitches, now);
            }
            Event::Group(id, _) => affect_group(&mut delta, model, id, desired),
            Event::Rule(id, rule, _) => affect_rule(&mut delta, model, (id, rule), desired),
            Event::PrefixList(id, _) => {
                let now = || model.prefix_lists.get(id).map(desired_prefix_list);
                affect(&mut delta.prefix_lists, id, &desired.prefix_lists, now);
            }
            Event::PortList(id, _) => {
                let now = || model.port_lists.get(id).map(desired_port_list);
                affect(&mut delta.port_lists, id, &desired.port_lists, now);
            }
            Event::Eni(id, _) => {
                affect_eni(&mut delta, model, id, desired);
                touched.eni(model, id, desired);
            }
            // An instance lends its name to its ENIs, and their guests are told it.
            Event::Instance(id, _) => {
                let enis = model.instances.get(id).into_iter().flat_map(|instance| instance.enis.keys());
                enis.for_each(|eni| affect_eni(&mut delta, model, eni, desired));
                touched.instance(model, id);
            }
            // Sets of DHCP options are metadata of their own, and several VPCs may use one.
            Event::Metadata(id, _) => {
                let vpcs = model.vpcs.keys().filter(|vpc| dhcp::depends_on(model, vpc, id));
                vpcs.for_each(|vpc| affect_vpc(&mut delta, model, vpc, desired));
                touched.instance(model, id);
            }
            Event::Uplink(id, _) => touched.uplink(id),
            Event::Eip(_, eip) => touched.eip(model, eip.as_ref(), desired),
            // Nothing but the object itself says which VPC it was in.
            Event::NatGateway(..) | Event::SnatEntry(..) | Event::Forward(..) => touched.all_uplinks(),
            Event::Peering(_, peering) => touched.peering(peering.as_ref(), desired),
            Event::Record(..) | Event::Token(..) => {}
        }
    }
    for id in touched.vpcs() {
        affect_vpc(&mut delta, model, id, desired);
    }
    for id in touched.uplinks(model, desired) {
        let now = || model.uplinks.get(id).map(|uplink| outside::desired_uplink(model, uplink));
        affect(&mut delta.uplinks, id, &desired.uplinks, now);
    }
    delta
}

fn affect<K: Ord + Clone, D: PartialEq>(
    changes: &mut BTreeMap<K, Option<D>>,
    id: &K,
    running: &BTreeMap<K, D>,
    now: impl FnOnce() -> Option<D>,
) {
    // The first event of an object has compared its final state already.
    if changes.contains_key(id) {
        return;
    }
    let now = now();
    if now.as_ref() != running.get(id) {
        changes.insert(id.clone(), now);
    }
}

fn affect_vpc(delta: &mut Delta, model: &Model, id: &VpcId, desired: &Desired) {
    affect(&mut delta.vpcs, id, &desired.vpcs, || model.vpcs.get(id).map(|vpc| desired_vpc(model, id, vpc)));
}

fn affect_eni(delta: &mut Delta, model: &Model, id: &EniId, desired: &Desired) {
    affect(&mut delta.enis, id, &desired.enis, || model.enis.get(id).map(|eni| desired_eni(model, eni)));
}

fn affect_group(delta: &mut Delta, model: &Model, id: &GroupId, desired: &Desired) {
    // The whole group replaces single rules.
    delta.rules.remove(id);
    let now = || model.groups.get(id).and_then(|group| desired_group(model, id, group));
    affect(&mut delta.groups, id, &desired.groups, now);
}

/// A rule on its own, unless its group is added, removed or sent as a whole.
fn affect_rule(delta: &mut Delta, model: &Model, (id, rule): (&GroupId, &RuleId), desired: &Desired) {
    // Without the group on both sides, there is no rule to compare with.
    let (true, Some(before)) = (model.groups.contains_key(id), desired.groups.get(id)) else {
        return affect_group(delta, model, id, desired);
    };
    let now = model.rules_of(id).get(rule).map(|content| desired_rule(rule, content));
    if !delta.groups.contains_key(id) && now.as_ref() != before.rules.iter().find(|other| other.id == *rule) {
        delta.rules.entry(id.clone()).or_default().insert(rule.clone(), now);
    }
}

/// The part of `desired` that determines whether it can run after `delta`, which `before` undoes. That is all of it,
/// unless only rules changed: these change far more often than anything else, and only the objects they name matter.
pub fn validated_part<'a>(delta: &Delta, before: &Delta, desired: &'a Desired) -> Cow<'a, Desired> {
    let rules_alone = |(id, group): (&GroupId, &Option<desired::SecurityGroup>)| {
        let alike =
            |old: &desired::SecurityGroup, new: &desired::SecurityGroup| old.vpc == new.vpc && old.kind == new.kind;
        let old = before.groups.get(id).and_then(Option::as_ref);
        group.as_ref().is_some_and(|new| old.is_none_or(|old| alike(old, new)))
    };
    // Destructured, so that a new kind of object does not compile until its validation is considered.
    let Delta { settings, vpcs, vswitches, groups, rules, prefix_lists, port_lists, enis, uplinks } = delta;
    let interfaces = !(enis.is_empty() && uplinks.is_empty());
    let others = settings.is_some() || !(vpcs.is_empty() && vswitches.is_empty()) || interfaces;
    if others || !(prefix_lists.is_empty() && port_lists.is_empty()) || !groups.iter().all(rules_alone) {
        return Cow::Borrowed(desired);
    }
    let mut part = Desired::default();
    for (id, group) in groups.keys().chain(rules.keys()).filter_map(|id| desired.groups.get_key_value(id)) {
        for rule in &group.rules {
            match &rule.conditions.remote {
                Remote::Prefix(_) => {}
                Remote::PrefixList(named) => copy(&mut part.prefix_lists, &desired.prefix_lists, named),
                Remote::Group(named) if part.groups.contains_key(named) => {}
                Remote::Group(named) => part.groups.extend(desired.groups.get(named).map(|group| {
                    // Of a group that is named, only its existence and its VPC matter.
                    let (vpc, rules) = (group.vpc.clone(), Vec::new());
                    (named.clone(), desired::SecurityGroup { vpc, rules, ..*group })
                })),
            }
            if let Ports::List(named) = &rule.conditions.ports {
                copy(&mut part.port_lists, &desired.port_lists, named);
            }
        }
        part.groups.insert(id.clone(), group.clone());
    }
    // Without its routes, which name ENIs.
    let vpcs = part.groups.values().filter(|group| desired.vpcs.contains_key(&group.vpc));
    part.vpcs = vpcs.map(|group| (group.vpc.clone(), desired::DesiredVpc::default())).collect();
    Cow::Owned(part)
}

fn copy<K: Ord + Clone, D: Clone>(part: &mut BTreeMap<K, D>, all: &BTreeMap<K, D>, id: &K) {
    if !part.contains_key(id) {
        part.extend(all.get(id).map(|object| (id.clone(), object.clone())));
    }
}

fn desired_vpc(model: &Model, id: &VpcId, vpc: &Vpc) -> desired::DesiredVpc {
    let routes = vpc.routes.iter().map(|route| (route.destination, route.eni.clone())).collect();
    let (peers, dhcp) = (outside::peers(model, id), dhcp::options_of(model, id));
    desired::DesiredVpc { routes, peers, dhcp, ..desired::DesiredVpc::default() }
}

fn desired_vswitch(vswitch: &VSwitch) -> desired::DesiredVswitch {
    desired::DesiredVswitch {
        vpc: vswitch.vpc.clone(),
        ipv4: Some(vswitch.cidr),
        ipv4_gateway: Some(vswitch.gateway()),
        ipv6: vswitch.ipv6_cidr,
        ipv6_gateway: vswitch.ipv6_gateway(),
    }
}

/// `None` for a group of the classic network, by which no packet is evaluated.
fn desired_group(model: &Model, id: &GroupId, group: &Group) -> Option<desired::SecurityGroup> {
    (!group.is_classic()).then(|| desired::SecurityGroup {
        vpc: group.vpc.clone(),
        kind: group.kind,
        inner_access: group.inner_access,
        rules: model.rules_of(id).iter().map(|(id, rule)| desired_rule(id, rule)).collect(),
    })
}

fn desired_rule(id: &RuleId, rule: &Rule) -> desired::DesiredRule {
    desired::DesiredRule {
        id: id.clone(),
        direction: rule.direction,
        policy: rule.policy,
        priority: rule.priority,
        conditions: rule.conditions.clone(),
    }
}

fn desired_prefix_list(list: &PrefixList) -> desired::DesiredPrefixList {
    desired::DesiredPrefixList { entries: list.entries.keys().copied().collect() }
}

fn desired_port_list(list: &PortList) -> desired::DesiredPortList {
    desired::DesiredPortList { entries: list.entries.iter().map(|item| item.ports).collect() }
}

fn desired_eni(model: &Model, eni: &Eni) -> desired::DesiredEni {
    desired::DesiredEni {
        vswitch: eni.vswitch.clone(),
        mac: eni.mac,
        addresses: eni.prefixes_of_all().collect(),
        groups: eni.groups.clone(),
        source_dest_check: eni.source_dest_check.unwrap_or(true),
        routed_as_own: eni.source_dest_check.is_none(),
        timeouts: eni.timeouts,
        sessions_max: eni.sessions_max,
        hostname: model.hostname_of(eni).cloned(),
        rate_limits: eni.rate_limits,
        tracking: eni.tracking,
        port: eni.port.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use vswitch_core::config::validate::validate;

    fn rule(changes: &Value) -> Value {
        let mut rule = json!({"id": "sgr-1", "direction": "ingress", "policy": "accept", "priority": 1,
                              "protocol": {"number": 6}, "ports": {"range": {"first": 80, "last": 80}},
                              "remote": {"prefix": "10.0.0.0/8"}});
        rule.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        rule
    }

    #[test]
    fn the_part_is_judged_as_the_whole_would_be() {
        let group = |vpc: &str| json!({"vpc": vpc, "kind": "basic", "inner_access": "accept"});
        let whole: Desired = serde_json::from_value(json!({
            "vpcs": {"vpc-1": {"routes": {"0.0.0.0/0": "eni-1"}}, "vpc-2": {}},
            "vswitches": {"vsw-1": {"vpc": "vpc-1", "ipv4": "10.0.0.0/16", "ipv4_gateway": "10.0.255.253"}},
            "groups": {"sg-1": group("vpc-1"), "sg-2": group("vpc-1"), "sg-3": group("vpc-2")},
            "prefix_lists": {"pl-4": {"entries": ["10.0.0.0/8"]}, "pl-6": {"entries": ["2001:db8::/32"]}},
            "port_lists": {"prl-1": {"entries": [{"first": 80, "last": 81}]}},
            "enis": {"eni-1": {"vswitch": "vsw-1", "mac": "02:00:00:00:00:01", "addresses": ["10.0.0.1/32"],
                               "groups": ["sg-1"]}},
        }))
        .unwrap();
        assert_eq!(validate(&whole), vec![]);
        let any = json!({"ports": "any", "protocol": "all"});
        let cases = [
            (json!({}), true),
            (json!({"remote": {"group": "sg-2"}}), true),
            (json!({"remote": {"group": "sg-1"}}), true),
            (json!({"remote": {"group": "sg-3"}}), false),
            (json!({"remote": {"group": "sg-4"}}), false),
            (json!({"remote": {"prefix-list": "pl-4"}, "ports": {"list": "prl-1"}}), true),
            (json!({"remote": {"prefix-list": "pl-6"}, "local": "10.0.0.0/8"}), false),
            (json!({"remote": {"prefix-list": "pl-7"}}), false),
            (json!({"ports": {"list": "prl-2"}}), false),
            (json!({"priority": 111}), false),
            (any, true),
        ];
        for (changes, is_good) in cases {
            let mut changed = group("vpc-1");
            changed["rules"] = json!([rule(&changes)]);
            let rules = json!({"groups": {}, "rules": {"sg-1": {"sgr-1": rule(&changes)}}});
            let delta = if changes == json!({}) { rules } else { json!({"groups": {"sg-1": changed}}) };
            let delta: Delta = serde_json::from_value(delta).unwrap();
            let mut after = whole.clone();
            let before = delta.clone().apply(&mut after);
            let part = validated_part(&delta, &before, &after);
            assert!(matches!(part, Cow::Owned(_)), "{changes}");
            assert_eq!(validate(&part), validate(&after), "{changes}");
            assert_eq!(validate(&part).is_empty(), is_good, "{changes}");
        }
        for other in
            [json!({"groups": {"sg-1": null}}), json!({"groups": {"sg-2": group("vpc-2")}}), json!({"enis": {}})]
        {
            let mut delta: Delta = serde_json::from_value(other.clone()).unwrap();
            delta.settings = delta.is_empty().then(|| whole.settings.clone());
            let mut after = whole.clone();
            let before = delta.clone().apply(&mut after);
            let part = validated_part(&delta, &before, &after);
            assert!(matches!(part, Cow::Borrowed(_)), "{other}");
        }
    }
}
