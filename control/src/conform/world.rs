//! The world of a case as a desired state.

use super::format::{Body, CaseEni, CaseError, CaseGroup, RuleText, TimeoutsText};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;
use vswitch_core::config::desired::{
    self, Desired, DesiredPort, DesiredRule, DesiredVpc, DesiredVswitch, Direction, GroupKind, MatchConditions,
    PmtudExempt, Policy, PortRange, Ports, Protocol, Remote, SecurityGroup, Settings, Timeouts,
};
use vswitch_core::config::ids::{EniId, GroupId, MacAddress, VpcId};

/// Stands for everything outside the VPC: the next hop of its default routes.
pub(super) const OUTSIDE: &str = "outside";
const VPC: &str = "vpc-1";
const VSWITCH: &str = "vsw-1";

/// The desired state that a case describes. Packets to addresses of no ENI leave by a router ENI.
pub(super) fn build(body: &Body) -> Result<Desired, CaseError> {
    let settings = settings(body)?;
    let outside = EniId::from(OUTSIDE);
    let default_routes = ["0.0.0.0/0", "::/0"].into_iter().filter_map(|prefix| prefix.parse().ok());
    let vpc = DesiredVpc {
        routes: default_routes.map(|prefix| (prefix, outside.clone())).collect(),
        ..DesiredVpc::default()
    };
    let no_blocks = DesiredVswitch { vpc: VPC.into(), ipv4: None, ipv4_gateway: None, ipv6: None, ipv6_gateway: None };
    let mut desired = Desired {
        settings,
        vpcs: BTreeMap::from([(VpcId::from(VPC), vpc)]),
        vswitches: BTreeMap::from([(VSWITCH.into(), no_blocks)]),
        ..Desired::default()
    };
    for (id, entries) in &body.prefix_lists {
        desired.prefix_lists.insert(id.as_str().into(), prefix_list(entries)?);
    }
    for (id, entries) in &body.port_lists {
        desired.port_lists.insert(id.as_str().into(), port_list(entries)?);
    }
    for described in &body.groups {
        desired.groups.insert(described.id.as_str().into(), group(described)?);
    }
    for (position, described) in body.enis.iter().enumerate() {
        desired.enis.insert(described.id.as_str().into(), eni(described, position)?);
    }
    let router =
        CaseEni { id: OUTSIDE.into(), groups: vec![OUTSIDE.into()], ips: vec!["192.0.0.8".into()], timeouts: None };
    desired.groups.insert(OUTSIDE.into(), empty_group());
    desired.enis.insert(outside, eni(&router, 0xfffe)?);
    complete(&mut desired);
    Ok(desired)
}

/// The settings for the documented behaviour of the cloud, except for those that the case gives. If it gives any, mail
/// is closed only if they say so.
fn settings(body: &Body) -> Result<Settings, CaseError> {
    let cloud = Settings {
        smtp_closed: body.settings.is_none(),
        pick_up_by_ports: false,
        pmtud_exempt: PmtudExempt::Always,
        ..Settings::default()
    };
    let Some(given) = &body.settings else { return Ok(cloud) };
    let fault = |error: serde_json::Error| CaseError(format!("settings: {error}"));
    let mut all = serde_json::to_value(cloud).map_err(fault)?;
    for (name, value) in given {
        all[name.as_str()] = value.clone();
    }
    serde_json::from_value(all).map_err(fault)
}

/// Adds empty objects for everything that rules and ENIs name and the case does not describe.
pub(super) fn complete(desired: &mut Desired) {
    let rules: Vec<DesiredRule> = desired.groups.values().flat_map(|group| group.rules.clone()).collect();
    for rule in rules {
        match rule.conditions.remote {
            Remote::Group(group) => drop(desired.groups.entry(group).or_insert_with(empty_group)),
            Remote::PrefixList(list) => drop(desired.prefix_lists.entry(list).or_default()),
            Remote::Prefix(_) => {}
        }
        if let Ports::List(list) = rule.conditions.ports {
            desired.port_lists.entry(list).or_default();
        }
    }
}

fn empty_group() -> SecurityGroup {
    SecurityGroup { vpc: VPC.into(), kind: GroupKind::Basic, inner_access: Policy::Drop, rules: Vec::new() }
}

fn group(described: &CaseGroup) -> Result<SecurityGroup, CaseError> {
    let kind = match described.kind.as_deref() {
        None | Some("normal") => GroupKind::Basic,
        Some("enterprise") => GroupKind::Advanced,
        Some(other) => return Err(CaseError(format!("group {}: unknown type {other}", described.id))),
    };
    let inner_access = match &described.inner {
        Some(text) => policy(text)?,
        None if kind == GroupKind::Basic => Policy::Accept,
        None => Policy::Drop,
    };
    let rules = described.rules.iter().map(rule).collect::<Result<_, _>>()?;
    Ok(SecurityGroup { vpc: VPC.into(), kind, inner_access, rules })
}

pub(super) fn policy(text: &str) -> Result<Policy, CaseError> {
    match text.to_ascii_lowercase().as_str() {
        "accept" => Ok(Policy::Accept),
        "drop" => Ok(Policy::Drop),
        _ => Err(CaseError(format!("{text} is neither accept nor drop"))),
    }
}

pub(super) fn direction(text: &str) -> Result<Direction, CaseError> {
    match text {
        "ingress" => Ok(Direction::Ingress),
        "egress" => Ok(Direction::Egress),
        _ => Err(CaseError(format!("{text} is neither ingress nor egress"))),
    }
}

fn eni(described: &CaseEni, position: usize) -> Result<desired::DesiredEni, CaseError> {
    let [.., high, low] = position.to_be_bytes();
    Ok(desired::DesiredEni {
        vswitch: VSWITCH.into(),
        mac: MacAddress([2, 0, 0, 0, high, low]),
        addresses: described.ips.iter().map(|text| prefix(text)).collect::<Result<_, _>>()?,
        groups: described.groups.iter().map(|id| GroupId::from(id.as_str())).collect(),
        source_dest_check: false,
        routed_as_own: false,
        timeouts: described.timeouts.map(timeouts).unwrap_or_default(),
        sessions_max: desired::DesiredEni::default_sessions_max(),
        hostname: None,
        rate_limits: Default::default(),
        tracking: desired::Tracking::default(),
        port: Some(DesiredPort::Memory),
    })
}

pub(super) fn timeouts(text: TimeoutsText) -> Timeouts {
    let default = Timeouts::default();
    Timeouts {
        tcp_established_s: text.tcp_established_timeout.unwrap_or(default.tcp_established_s),
        tcp_closed_s: text.tcp_closed_and_time_wait_timeout.unwrap_or(default.tcp_closed_s),
        udp_s: text.udp_timeout.unwrap_or(default.udp_s),
    }
}

pub(super) fn prefix_list(entries: &[String]) -> Result<desired::DesiredPrefixList, CaseError> {
    Ok(desired::DesiredPrefixList { entries: entries.iter().map(|text| prefix(text)).collect::<Result<_, _>>()? })
}

pub(super) fn port_list(entries: &[String]) -> Result<desired::DesiredPortList, CaseError> {
    let range = |text: &String| {
        port_range(text)?.ok_or_else(|| CaseError(format!("{text} is not a port range in a port list")))
    };
    Ok(desired::DesiredPortList { entries: entries.iter().map(range).collect::<Result<_, _>>()? })
}

fn prefix(text: &str) -> Result<IpNet, CaseError> {
    let bare = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(bare).ok_or_else(|| CaseError(format!("{text} is not an address or prefix")))
}

/// `None` for `-1/-1`, which means all ports.
fn port_range(text: &str) -> Result<Option<PortRange>, CaseError> {
    if text == "-1/-1" || text.is_empty() {
        return Ok(None);
    }
    let range = text
        .split_once('/')
        .and_then(|(first, last)| Some(PortRange { first: first.parse().ok()?, last: last.parse().ok()? }));
    range.map(Some).ok_or_else(|| CaseError(format!("{text} is not a port range like 80/80")))
}

/// A rule as the specification reads it (`semantics.md` §1.3, §1.4).
pub(super) fn rule(text: &RuleText) -> Result<DesiredRule, CaseError> {
    let fault = |error: CaseError| CaseError(format!("rule {}: {error}", text.id));
    let direction = direction(&text.direction).map_err(fault)?;
    let protocol = protocol(&text.ip_protocol).map_err(fault)?;
    let source_side = PacketEnd {
        v4: &text.source_cidr_ip,
        v6: &text.ipv6_source_cidr_ip,
        group: &text.source_group_id,
        list: &text.source_prefix_list_id,
    };
    let destination_side = PacketEnd {
        v4: &text.dest_cidr_ip,
        v6: &text.ipv6_dest_cidr_ip,
        group: &text.dest_group_id,
        list: &text.dest_prefix_list_id,
    };
    let (object, near) = match direction {
        Direction::Ingress => (source_side, destination_side),
        Direction::Egress => (destination_side, source_side),
    };
    let ports = match (&text.port_range, &text.port_range_list_id) {
        _ if !protocol.has_ports() => Ports::Any,
        (Some(range), _) if !range.is_empty() => {
            let range = port_range(range).map_err(fault)?;
            Ports::Range(range.ok_or_else(|| fault(CaseError("TCP and UDP need ports".into())))?)
        }
        (_, Some(list)) => Ports::List(list.as_str().into()),
        _ => return Err(fault(CaseError("TCP and UDP need ports".into()))),
    };
    let source_ports = text.source_port_range.as_deref().map(port_range).transpose().map_err(fault)?.flatten();
    Ok(DesiredRule {
        id: text.id.as_str().into(),
        direction,
        policy: text.policy.as_deref().map_or(Ok(Policy::Accept), policy).map_err(fault)?,
        priority: priority(&text.priority).map_err(fault)?,
        conditions: MatchConditions {
            protocol,
            ports,
            source_ports: source_ports.filter(|_| protocol.has_ports()),
            local: near.prefix().map_err(fault)?,
            ..MatchConditions::of(object.remote().map_err(fault)?)
        },
    })
}

struct PacketEnd<'a> {
    v4: &'a Option<String>,
    v6: &'a Option<String>,
    group: &'a Option<String>,
    list: &'a Option<String>,
}

impl PacketEnd<'_> {
    fn prefix(&self) -> Result<Option<IpNet>, CaseError> {
        let given = self.v4.iter().chain(self.v6).find(|text| !text.is_empty());
        given.map(|text| prefix(text)).transpose()
    }

    /// §1.4: a CIDR takes precedence over a group, and either over a list.
    fn remote(&self) -> Result<Remote, CaseError> {
        if let Some(prefix) = self.prefix()? {
            return Ok(Remote::Prefix(prefix));
        }
        match (self.group, self.list) {
            (Some(group), _) if !group.is_empty() => Ok(Remote::Group(group.as_str().into())),
            (_, Some(list)) if !list.is_empty() => Ok(Remote::PrefixList(list.as_str().into())),
            _ => Err(CaseError("it has no object".into())),
        }
    }
}

fn priority(value: &Option<serde_json::Value>) -> Result<u8, CaseError> {
    let number = match value {
        None => return Ok(1),
        Some(serde_json::Value::String(text)) => text.parse().ok(),
        Some(value) => value.as_u64(),
    };
    number.and_then(|number| u8::try_from(number).ok()).ok_or_else(|| CaseError("its priority is not a number".into()))
}

fn protocol(text: &str) -> Result<Protocol, CaseError> {
    match text.to_ascii_uppercase().as_str() {
        "ALL" => Ok(Protocol::All),
        name => protocol_number(name).map(Protocol::Number),
    }
}

pub(super) fn protocol_number(text: &str) -> Result<u8, CaseError> {
    match text.to_ascii_uppercase().as_str() {
        "TCP" => Ok(6),
        "UDP" => Ok(17),
        "ICMP" => Ok(1),
        "ICMPV6" => Ok(58),
        "GRE" => Ok(47),
        number => number.parse().map_err(|_| CaseError(format!("{text} is not a protocol"))),
    }
}
