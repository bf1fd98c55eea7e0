//! Rules as text: parsing, including all checks that need no other object; changing a rule; and printing.

use crate::command::{ANY_PORTS, RuleChange, RuleSpec, RuleView};
use crate::error::{
    ApiError, ErrorKind, RULE_DESCRIPTION, RULE_DEST_CIDR, RULE_DEST_FAMILIES, RULE_DEST_MISSING, RULE_ENTITY_TYPE,
    RULE_ICMP_WITH_IPV6, RULE_ICMPV6_WITH_IPV4, RULE_IPV6_DEST_CIDR, RULE_IPV6_SOURCE_CIDR, RULE_POLICY,
    RULE_PORT_LIST_PROTOCOL, RULE_PORT_RANGE_TYPE, RULE_PORTS, RULE_PORTS_MISSING, RULE_PRIORITY, RULE_PROTOCOL,
    RULE_PROTOCOL_AND_PORTS, RULE_SAME_SIDES, RULE_SOURCE_CIDR, RULE_SOURCE_FAMILIES, RULE_SOURCE_MISSING,
    RULE_SOURCE_PORTS,
};
use crate::model::parse::{prefix, rule_description, timestamp};
use crate::model::rule::Rule;
use ipnet::IpNet;
use serde::ser::Error;
use serde::{Serialize, Serializer};
use serde_json::json;
use vswitch_core::config::desired::{Direction, MatchConditions, Policy, PortRange, Ports, Protocol, Remote};
use vswitch_core::config::ids::{GroupId, RuleId, quoted};

/// The protocol and policy of a rule, which are checked before everything else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RuleWords {
    protocol: Protocol,
    policy: Policy,
}

impl RuleWords {
    /// Reads both.
    ///
    /// # Errors
    /// The first that is invalid.
    pub(crate) fn read(spec: &RuleSpec) -> Result<Self, ApiError> {
        let protocol = protocol(&spec.protocol)?;
        Ok(Self { protocol, policy: policy(given(&spec.policy).unwrap_or("accept"))? })
    }

    /// Whether packets of the protocol have ports.
    pub(crate) fn has_ports(self) -> bool {
        self.protocol.has_ports()
    }

    /// Checks the rest of a rule in the form that the cloud uses, with separate fields for IPv4 and IPv6 prefixes.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(crate) fn check(self, spec: &RuleSpec, direction: Direction) -> Result<(), ApiError> {
        priority(spec.priority.unwrap_or(1))?;
        for (cidr, side) in
            [(&spec.cidr, RuleEndNames::remote(direction)), (&spec.local_cidr, RuleEndNames::local(direction))]
        {
            if cidr.as_deref().is_some_and(|text| text.contains(':')) {
                let message =
                    format!("{} is IPv6, which has a field of its own", quoted(cidr.as_deref().unwrap_or("")));
                return Err(side.cidr.error(message).field(side.cidr_field));
            }
        }
        read(spec, direction, 0).map(drop)
    }
}

/// Whether a rule is the one that a text describes, except for the description.
pub(crate) fn same_rule(rule: &Rule, spec: &RuleSpec, direction: Direction) -> bool {
    read(spec, direction, 0).is_ok_and(|wanted| rule.equals(&wanted))
}

/// Parses a rule. The objects it names are looked up later.
pub(in crate::model) fn read(spec: &RuleSpec, direction: Direction, created_s: u64) -> Result<Rule, ApiError> {
    let RuleWords { protocol, policy } = RuleWords::read(spec)?;
    let priority = priority(spec.priority.unwrap_or(1))?;
    let (remote, remote_text) = remote(spec, direction)?;
    let local = end_prefix(spec.local_cidr.as_ref(), spec.ipv6_local_cidr.as_ref(), &RuleEndNames::local(direction))?;
    let mut rule = Rule {
        direction,
        policy,
        priority,
        conditions: MatchConditions { protocol, local, ..MatchConditions::of(remote) },
        remote_text,
        local_text: local
            .map(|local| entered(local, spec.local_cidr.as_ref(), spec.ipv6_local_cidr.as_ref()))
            .unwrap_or_default(),
        internet: spec.internet,
        description: String::new(),
        created_s,
    };
    check_families(&rule)?;
    rule.conditions.ports = ports(spec, protocol)?;
    rule.conditions.source_ports = source_ports(given(&spec.source_ports), protocol)?;
    rule.description = rule_description(spec.description.as_deref(), RULE_DESCRIPTION)?;
    Ok(rule)
}

/// Refuses combinations of prefixes and protocols whose address families exclude each other.
pub(in crate::model) fn check_families(rule: &Rule) -> Result<(), ApiError> {
    let remote = match &rule.conditions.remote {
        Remote::Prefix(prefix) => Some(*prefix),
        _ => None,
    };
    if let (Some(remote), Some(local)) = (remote, rule.conditions.local) {
        if remote.trunc() == local.trunc() {
            let message = format!("the near and the far side are both {remote}: leave the near side out");
            return Err(RULE_SAME_SIDES.error(message).field("local_cidr"));
        }
        if is_ipv6(remote) != is_ipv6(local) {
            let message = format!("the far side {remote} and the near side {local} are of different families");
            return Err(RuleEndNames::remote(rule.direction).families.error(message).field("local_cidr"));
        }
    }
    for (prefix, field) in [(remote, "cidr"), (rule.conditions.local, "local_cidr")] {
        let Some(prefix) = prefix else { continue };
        match (rule.conditions.protocol, is_ipv6(prefix)) {
            (Protocol::ICMP, true) => {
                let message = format!("ICMP is IPv4 and {prefix} IPv6: use the protocol icmpv6");
                return Err(RULE_ICMP_WITH_IPV6.error(message).field(field));
            }
            (Protocol::ICMPV6, false) => {
                let message = format!("ICMPv6 is IPv6 and {prefix} IPv4: use the protocol icmp");
                return Err(RULE_ICMPV6_WITH_IPV4.error(message).field(field));
            }
            _ => {}
        }
    }
    Ok(())
}

pub(in crate::model) fn policy(text: &str) -> Result<Policy, ApiError> {
    match text.to_ascii_lowercase().as_str() {
        "accept" => Ok(Policy::Accept),
        "drop" => Ok(Policy::Drop),
        _ => Err(RULE_POLICY
            .error(format!("{text} is not a policy: write accept or drop", text = quoted(text)))
            .field("policy")),
    }
}

pub(in crate::model) fn priority(value: i64) -> Result<u8, ApiError> {
    u8::try_from(value).ok().filter(|priority| (1..=100).contains(priority)).ok_or_else(|| {
        let message = format!("{value} is not a priority: 1 is the strongest and 100 the weakest");
        RULE_PRIORITY.error(message).field("priority")
    })
}

pub(in crate::model) fn protocol(text: &str) -> Result<Protocol, ApiError> {
    match text.to_ascii_lowercase().as_str() {
        "all" => return Ok(Protocol::All),
        "tcp" => return Ok(Protocol::TCP),
        "udp" => return Ok(Protocol::UDP),
        "icmp" => return Ok(Protocol::ICMP),
        "icmpv6" => return Ok(Protocol::ICMPV6),
        "gre" => return Ok(Protocol::GRE),
        _ => {}
    }
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).map(Protocol::Number).ok_or_else(|| {
        let message = format!(
            "{text} is not a protocol: write tcp, udp, icmp, icmpv6, gre, all or a number 0 to 255",
            text = quoted(text)
        );
        RULE_PROTOCOL.error(message).field("protocol")
    })
}

/// A protocol as the cloud writes it.
pub(crate) fn protocol_text(protocol: Protocol) -> String {
    match protocol {
        Protocol::All => "ALL".into(),
        Protocol::TCP => "TCP".into(),
        Protocol::UDP => "UDP".into(),
        Protocol::ICMP => "ICMP".into(),
        Protocol::ICMPV6 => "ICMPv6".into(),
        Protocol::GRE => "GRE".into(),
        Protocol::Number(number) => number.to_string(),
    }
}

/// `first/last`, 1 to 65535 and ascending.
pub(in crate::model) fn port_range(text: &str) -> Option<PortRange> {
    let (first, last) = text.split_once('/')?;
    let port = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let range = PortRange { first: port(first)?, last: port(last)? };
    (1 <= range.first && range.first <= range.last).then_some(range)
}

/// The source ports of a rule: all if they are absent, empty or `-1/-1`.
pub(in crate::model) fn source_ports(text: Option<&str>, protocol: Protocol) -> Result<Option<PortRange>, ApiError> {
    match text {
        None | Some("" | ANY_PORTS) => Ok(None),
        Some(text) if !protocol.has_ports() => {
            let message = format!(
                "{} has no ports: leave {text} out or write {ANY_PORTS}",
                protocol_text(protocol),
                text = quoted(text)
            );
            Err(RULE_SOURCE_PORTS.error(message).field("source_ports"))
        }
        Some(text) => port_range(text).map(Some).ok_or_else(|| {
            let message =
                format!("{text} is not a range of source ports: write first/last or {ANY_PORTS}", text = quoted(text));
            RULE_SOURCE_PORTS.error(message).field("source_ports")
        }),
    }
}

pub(in crate::model) fn ports(spec: &RuleSpec, protocol: Protocol) -> Result<Ports, ApiError> {
    let (range, list) = (given(&spec.ports), given(&spec.port_list));
    if !protocol.has_ports() {
        return match (range, list) {
            (None, None) | (Some(ANY_PORTS), _) => Ok(Ports::Any),
            (None, Some(_)) => {
                let message = format!("{} rules take no port list: only TCP and UDP do", protocol_text(protocol));
                Err(RULE_PORT_LIST_PROTOCOL.error(message).field("port_list"))
            }
            (Some(text), _) => {
                let message = format!(
                    "{} has no ports: leave {text} out or write {ANY_PORTS}",
                    protocol_text(protocol),
                    text = quoted(text)
                );
                Err(RULE_PROTOCOL_AND_PORTS.error(message).field("ports"))
            }
        };
    }
    match (range, list) {
        (Some(text), _) => port_range(text).map(Ports::Range).ok_or_else(|| {
            let message = format!(
                "{text} is not a port range: write first/last as in 80/80, all ports as 1/65535",
                text = quoted(text)
            );
            RULE_PORTS.error(message).field("ports")
        }),
        (None, Some(list)) => Ok(Ports::List(list.into())),
        (None, None) => {
            let message = format!("a {} rule needs ports, as in 80/80, or a port list", protocol_text(protocol));
            Err(RULE_PORTS_MISSING.error(message).field("ports"))
        }
    }
}

/// The parameter names and refusals of one end of a rule, which the cloud calls source and destination.
pub(in crate::model) struct RuleEndNames {
    missing: ErrorKind,
    cidr: ErrorKind,
    ipv6_cidr: ErrorKind,
    families: ErrorKind,
    cidr_field: &'static str,
    ipv6_field: &'static str,
}

impl RuleEndNames {
    const SOURCE: Self = Self {
        missing: RULE_SOURCE_MISSING,
        cidr: RULE_SOURCE_CIDR,
        ipv6_cidr: RULE_IPV6_SOURCE_CIDR,
        families: RULE_SOURCE_FAMILIES,
        cidr_field: "cidr",
        ipv6_field: "ipv6_cidr",
    };
    const DESTINATION: Self = Self {
        missing: RULE_DEST_MISSING,
        cidr: RULE_DEST_CIDR,
        ipv6_cidr: RULE_IPV6_DEST_CIDR,
        families: RULE_DEST_FAMILIES,
        ..Self::SOURCE
    };

    pub(in crate::model) fn remote(direction: Direction) -> Self {
        match direction {
            Direction::Ingress => Self::SOURCE,
            Direction::Egress => Self::DESTINATION,
        }
    }

    pub(in crate::model) fn local(direction: Direction) -> Self {
        Self { cidr_field: "local_cidr", ipv6_field: "ipv6_local_cidr", ..Self::remote(direction.reverse()) }
    }
}

/// The prefix of one end, with host bits masked, if there is one.
pub(in crate::model) fn end_prefix(
    cidr: Option<&String>,
    ipv6: Option<&String>,
    side: &RuleEndNames,
) -> Result<Option<IpNet>, ApiError> {
    let cidr = cidr.filter(|text| !text.is_empty());
    let ipv6 = ipv6.filter(|text| !text.is_empty());
    let (text, kind, field) = match (cidr, ipv6) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            let message = format!("{} and {} are both given: make a rule for each", side.cidr_field, side.ipv6_field);
            return Err(side.families.error(message).field(side.ipv6_field));
        }
        (Some(text), None) => (text, side.cidr, side.cidr_field),
        (None, Some(text)) => (text, side.ipv6_cidr, side.ipv6_field),
    };
    let prefix = prefix(text).filter(|prefix| ipv6.is_none() || is_ipv6(*prefix));
    let prefix = prefix.ok_or_else(|| {
        let example = if ipv6.is_some() { "2001:db8::/32" } else { "10.0.0.0/8" };
        kind.error(format!("{text} is not an address or prefix: write one like {example}", text = quoted(text)))
            .field(field)
    })?;
    Ok(Some(prefix.trunc()))
}

/// The object of a rule, and the text with which a prefix is reported.
pub(in crate::model) fn remote(spec: &RuleSpec, direction: Direction) -> Result<(Remote, String), ApiError> {
    let names = RuleEndNames::remote(direction);
    if let Some(prefix) = end_prefix(spec.cidr.as_ref(), spec.ipv6_cidr.as_ref(), &names)? {
        return Ok((Remote::Prefix(prefix), entered(prefix, spec.cidr.as_ref(), spec.ipv6_cidr.as_ref())));
    }
    if let Some(group) = given(&spec.group) {
        return Ok((Remote::Group(group.into()), String::new()));
    }
    if let Some(list) = given(&spec.prefix_list) {
        return Ok((Remote::PrefixList(list.into()), String::new()));
    }
    let message = "a rule needs an object: give one of cidr, ipv6_cidr, group and prefix_list";
    Err(names.missing.error(message).field("cidr"))
}

/// The text with which a prefix is reported: IPv4 as entered, IPv6 with host bits and in its shortest form.
pub(in crate::model) fn entered(masked: IpNet, cidr: Option<&String>, ipv6: Option<&String>) -> String {
    match masked {
        IpNet::V4(_) => cidr.cloned().unwrap_or_default(),
        IpNet::V6(_) => {
            let given = cidr.filter(|text| !text.is_empty()).or(ipv6);
            given.and_then(|text| prefix(text)).unwrap_or(masked).to_string()
        }
    }
}

fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

pub(in crate::model) fn is_ipv6(prefix: IpNet) -> bool {
    matches!(prefix, IpNet::V6(_))
}

impl Rule {
    /// The rule as it is shown.
    pub(crate) fn view(&self, group: &GroupId, id: &RuleId) -> RuleView {
        let MatchConditions { protocol, ports, source_ports, remote, local } = &self.conditions;
        let (cidr, remote_group, prefix_list) = match remote {
            Remote::Prefix(_) => (Some(self.remote_text.clone()), None, None),
            Remote::Group(group) => (None, Some(group.clone()), None),
            Remote::PrefixList(list) => (None, None, Some(list.clone())),
        };
        let (ports, port_list) = match ports {
            Ports::Any => ("-1/-1".into(), None),
            Ports::Range(range) => (range.to_string(), None),
            Ports::List(list) => (String::new(), Some(list.clone())),
        };
        RuleView {
            id: id.clone(),
            group: group.clone(),
            direction: self.direction,
            policy: self.policy,
            priority: self.priority,
            protocol: protocol_text(*protocol),
            ports,
            port_list,
            source_ports: source_ports.map(|range| range.to_string()),
            cidr,
            remote_group,
            prefix_list,
            local_cidr: *local,
            description: self.description.clone(),
            created: timestamp(self.created_s),
        }
    }
}

/// The conditions as they are stored: the fields of the store's first format are always there, even if empty.
pub(in crate::model) fn stored<S: Serializer>(conditions: &MatchConditions, serializer: S) -> Result<S::Ok, S::Error> {
    let mut record = serde_json::to_value(conditions).map_err(S::Error::custom)?;
    if let Some(fields) = record.as_object_mut() {
        for (name, nothing) in [("ports", json!("any")), ("source_ports", json!(null)), ("local", json!(null))] {
            fields.entry(name).or_insert(nothing);
        }
    }
    record.serialize(serializer)
}

/// The rule as it would be after a change.
pub(in crate::model) fn changed(old: &Rule, change: &RuleChange) -> Result<Rule, ApiError> {
    let mut new = old.clone();
    if let Some(text) = &change.policy {
        new.policy = policy(text)?;
    }
    if let Some(value) = change.priority {
        new.priority = priority(value)?;
    }
    if let Some(text) = &change.protocol {
        new.conditions.protocol = protocol(text)?;
    }
    if let Some(text) = &change.source_ports {
        new.conditions.source_ports = source_ports(Some(text), new.conditions.protocol)?;
    }
    if new.conditions.source_ports.is_some() && !new.conditions.protocol.has_ports() {
        let message = "the rule has source ports, which the new protocol has not: change them to -1/-1 too";
        return Err(RULE_SOURCE_PORTS.error(message).field("source_ports"));
    }
    if let Some(text) = &change.description {
        new.description = rule_description(Some(text), RULE_DESCRIPTION)?;
    }
    new.conditions.ports = changed_ports(old, change, new.conditions.protocol)?;
    change_remote(&mut new, old, change)?;
    let side = RuleEndNames::local(old.direction);
    if let Some(local) = end_prefix(change.local_cidr.as_ref(), change.ipv6_local_cidr.as_ref(), &side)? {
        new.conditions.local = Some(local);
        new.local_text = entered(local, change.local_cidr.as_ref(), change.ipv6_local_cidr.as_ref());
    }
    check_families(&new)?;
    Ok(new)
}

fn changed_ports(old: &Rule, change: &RuleChange, protocol: Protocol) -> Result<Ports, ApiError> {
    let given = change.ports.is_some() || change.port_list.is_some();
    if !given && protocol.has_ports() == old.conditions.protocol.has_ports() {
        return Ok(old.conditions.ports.clone());
    }
    let spec = RuleSpec { ports: change.ports.clone(), port_list: change.port_list.clone(), ..RuleSpec::default() };
    let new = ports(&spec, protocol)?;
    if matches!(old.conditions.ports, Ports::List(_)) != matches!(new, Ports::List(_)) {
        let message = "a rule with a port range keeps one, and a rule with a port list too: make a new rule instead";
        return Err(RULE_PORT_RANGE_TYPE.error(message).field("ports"));
    }
    Ok(new)
}

fn change_remote(new: &mut Rule, old: &Rule, change: &RuleChange) -> Result<(), ApiError> {
    let spec = RuleSpec {
        cidr: change.cidr.clone(),
        ipv6_cidr: change.ipv6_cidr.clone(),
        group: change.group.clone(),
        prefix_list: change.prefix_list.clone(),
        ..RuleSpec::default()
    };
    if [&spec.cidr, &spec.ipv6_cidr, &spec.group, &spec.prefix_list].iter().all(|field| field.is_none()) {
        return Ok(());
    }
    let (remote, text) = remote(&spec, old.direction)?;
    let same_kind = match (&old.conditions.remote, &remote) {
        (Remote::Prefix(old), Remote::Prefix(new)) => is_ipv6(*old) == is_ipv6(*new),
        (old, new) => std::mem::discriminant(old) == std::mem::discriminant(new),
    };
    if !same_kind {
        let message = "the kind of a rule's object cannot change: make a new rule instead";
        return Err(RULE_ENTITY_TYPE.error(message).field("cidr"));
    }
    new.conditions.remote = remote;
    new.remote_text = text;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_the_form_they_had() {
        let record = json!({
            "direction": "ingress", "policy": "accept", "priority": 1, "protocol": {"number": 1}, "ports": "any",
            "source_ports": null, "remote": {"prefix": "10.0.0.0/8"}, "remote_text": "10.0.0.0/8", "local": null,
            "local_text": "", "internet": false, "description": "", "created_s": 7
        });
        let rule: Rule = serde_json::from_value(record.clone()).unwrap();
        assert_eq!(serde_json::to_value(&rule).unwrap(), record);
        let mut unknown = record;
        unknown["colour"] = json!("red");
        assert!(serde_json::from_value::<Rule>(unknown).unwrap_err().to_string().contains("unknown field `colour`"));
    }
}
