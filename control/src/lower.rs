//! The model as the forwarding plane wants it: no names, no quotas, only what a packet can feel.

use crate::model::{Eni, Group, Model, Rule, VSwitch, Vpc};
use vswitch_core::desired::{self, Desired};
use vswitch_core::ids::RuleId;

/// The desired state that a model means.
pub fn lower(model: &Model) -> Desired {
    let groups = model.groups.iter().map(|(id, group)| (id.clone(), lower_group(group, model.rules_of(id).iter())));
    Desired {
        settings: model.settings.clone(),
        vpcs: model.vpcs.iter().map(|(id, vpc)| (id.clone(), lower_vpc(vpc))).collect(),
        vswitches: model.vswitches.iter().map(|(id, vswitch)| (id.clone(), lower_vswitch(vswitch))).collect(),
        groups: groups.collect(),
        prefix_lists: model
            .prefix_lists
            .iter()
            .map(|(id, list)| (id.clone(), desired::PrefixList { entries: list.entries.keys().copied().collect() }))
            .collect(),
        port_lists: model
            .port_lists
            .iter()
            .map(|(id, list)| {
                (id.clone(), desired::PortList { entries: list.entries.iter().map(|item| item.ports).collect() })
            })
            .collect(),
        enis: model.enis.iter().map(|(id, eni)| (id.clone(), lower_eni(eni))).collect(),
    }
}

fn lower_vpc(vpc: &Vpc) -> desired::Vpc {
    let routes = vpc.routes.iter().map(|route| (route.destination, route.eni.clone())).collect();
    desired::Vpc { routes, ..desired::Vpc::default() }
}

fn lower_vswitch(vswitch: &VSwitch) -> desired::VSwitch {
    desired::VSwitch {
        vpc: vswitch.vpc.clone(),
        ipv4: Some(vswitch.cidr),
        ipv4_gateway: Some(vswitch.gateway()),
        ipv6: vswitch.ipv6_cidr,
        ipv6_gateway: vswitch.ipv6_gateway(),
    }
}

fn lower_group<'a>(group: &Group, rules: impl Iterator<Item = (&'a RuleId, &'a Rule)>) -> desired::SecurityGroup {
    desired::SecurityGroup {
        vpc: group.vpc.clone(),
        kind: group.kind,
        inner_access: group.inner_access,
        rules: rules.map(|(id, rule)| lower_rule(id, rule)).collect(),
    }
}

fn lower_rule(id: &RuleId, rule: &Rule) -> desired::Rule {
    desired::Rule {
        id: id.clone(),
        direction: rule.direction,
        policy: rule.policy,
        priority: rule.priority,
        protocol: rule.protocol,
        ports: rule.ports.clone(),
        source_ports: rule.source_ports,
        remote: rule.remote.clone(),
        local: rule.local,
    }
}

fn lower_eni(eni: &Eni) -> desired::Eni {
    desired::Eni {
        vswitch: eni.vswitch.clone(),
        mac: eni.mac,
        addresses: eni.prefixes_of_all().collect(),
        groups: eni.groups.clone(),
        source_dest_check: eni.source_dest_check,
        timeouts: eni.timeouts,
        sessions_max: eni.sessions_max,
        tracking: eni.tracking,
        port: eni.port.clone(),
    }
}
