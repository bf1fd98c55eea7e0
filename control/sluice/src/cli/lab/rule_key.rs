//! When a rule of a lab file is one that the group has already.

use control::command::RuleSpec;
use control::socket::view::RuleView;
use ipnet::IpNet;
use std::net::IpAddr;
use vswitch_core::config::desired::Policy;

/// What makes two rules of a group and direction the same, normalised (`semantics.md` §1.5).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RuleKey {
    priority: i64,
    policy: String,
    protocol: String,
    ports: String,
    peer: String,
    source_ports: String,
    local: String,
}

impl RuleKey {
    pub(super) fn of_spec(spec: &RuleSpec) -> Self {
        // Field by field, so that a new one does not compile until it is said here whether it counts.
        let RuleSpec {
            id: _,
            policy,
            priority,
            protocol,
            ports,
            port_list,
            source_ports,
            cidr,
            ipv6_cidr,
            group,
            prefix_list,
            local_cidr,
            ipv6_local_cidr,
            // A lab's groups are in VPCs, where no rule is about the internet side.
            internet: _,
            description: _,
        } = spec;
        let cidr = cidr.as_ref().or(ipv6_cidr.as_ref()).map(|text| prefix_text(text));
        let local = local_cidr.as_ref().or(ipv6_local_cidr.as_ref());
        Self {
            priority: priority.unwrap_or(1),
            policy: policy.as_deref().unwrap_or("accept").to_ascii_lowercase(),
            protocol: protocol_text(protocol),
            ports: ports.clone().or_else(|| port_list.clone()).unwrap_or_else(|| "-1/-1".into()),
            peer: cidr.or_else(|| group.clone()).or_else(|| prefix_list.clone()).unwrap_or_default(),
            source_ports: source_ports.clone().filter(|ports| ports != "-1/-1").unwrap_or_default(),
            local: local.map(|text| prefix_text(text)).unwrap_or_default(),
        }
    }

    pub(super) fn of_view(view: &RuleView) -> Self {
        let RuleView {
            id: _,
            group: _,
            direction: _,
            policy,
            priority,
            protocol,
            ports,
            port_list,
            source_ports,
            cidr,
            remote_group,
            prefix_list,
            local_cidr,
            description: _,
            created: _,
        } = view;
        let group = remote_group.as_ref().map(ToString::to_string);
        let list = prefix_list.as_ref().map(ToString::to_string);
        let port_list = port_list.as_ref().map(ToString::to_string);
        Self {
            priority: (*priority).into(),
            policy: if *policy == Policy::Accept { "accept" } else { "drop" }.into(),
            protocol: protocol_text(protocol),
            ports: port_list.unwrap_or_else(|| ports.clone()),
            peer: cidr.as_deref().map(prefix_text).or(group).or(list).unwrap_or_default(),
            source_ports: source_ports.clone().unwrap_or_default(),
            local: local_cidr.map(|local| local.trunc().to_string()).unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for RuleKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { priority, policy, protocol, ports, peer, .. } = self;
        let ports = if ports == "-1/-1" { String::new() } else { format!(" {ports}") };
        write!(formatter, "{policy} {protocol}{ports} {peer} at {priority}")
    }
}

fn protocol_text(text: &str) -> String {
    match text.to_ascii_lowercase().as_str() {
        "6" => "tcp".into(),
        "17" => "udp".into(),
        "1" => "icmp".into(),
        "58" => "icmpv6".into(),
        "47" => "gre".into(),
        name => name.into(),
    }
}

/// A prefix without host bits, an address as its prefix; other text as it is.
pub(super) fn prefix_text(text: &str) -> String {
    let prefix = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    prefix.map_or_else(|| text.to_owned(), |prefix| prefix.trunc().to_string())
}
