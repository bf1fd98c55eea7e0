//! Whether a desired state can be compiled: all refusals at once, each naming its object.

mod references;
mod uplinks;

use crate::config::desired::{
    Desired, DesiredEni, DesiredPort, DesiredPortList, DesiredPrefixList, DesiredRule, DesiredVswitch, MatchConditions,
    Ports, Protocol, Remote, SecurityGroup, Settings, Timeouts, VhostUserPort,
};
use crate::config::dhcp::is_domain_name;
use crate::config::ids::{EniId, GroupId, PortListId, PrefixListId, VpcId, quoted};
use crate::config::limits::{
    ADDRESSES_PER_ENI_MAX, ENIS_MAX, GROUPS_PER_ENI_MAX, MTU_BYTES_MAX, MTU_BYTES_MIN, RULES_PER_FILTER_MAX,
};
use crate::config::packed_timeouts::PackedTimeouts;
use crate::config::refusal::Refusal;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;
use ipnet::IpNet;

pub(crate) use references::References;

/// Every fault of `desired`.
pub fn validate(desired: &Desired) -> Vec<Refusal> {
    let mut check = Validator { desired, refusals: Vec::new() };
    check.settings();
    check.vpcs();
    check.vswitches();
    check.groups();
    check.lists();
    check.enis();
    check.uplinks();
    check.refusals
}

struct Validator<'a> {
    desired: &'a Desired,
    refusals: Vec<Refusal>,
}

impl<'a> Validator<'a> {
    fn refuse(&mut self, code: &str, object: String, message: String) {
        self.refusals.push(Refusal::new(code, object, message));
    }

    fn settings(&mut self) {
        let Settings { tcp_half_open_timeout_s, icmp_timeout_s, .. } = self.desired.settings;
        for (name, timeout_s) in
            [("tcp_half_open_timeout_s", tcp_half_open_timeout_s), ("icmp_timeout_s", icmp_timeout_s)]
        {
            if timeout_s == 0 {
                self.refuse("invalid", format!("settings/{name}"), "a timeout is at least 1 s".into());
            }
        }
    }

    fn vpcs(&mut self) {
        for (id, vpc) in &self.desired.vpcs {
            if vpc.gateway_mac.is_group() {
                self.refuse("invalid", format!("vpcs/{id}/gateway_mac"), "a router's address has no group bit".into());
            }
            if let Some(fault) = vpc.dhcp.fault() {
                self.refuse("invalid", format!("vpcs/{id}/dhcp"), fault.into());
            }
            self.peers(id, vpc);
            for (prefix, eni) in &vpc.routes {
                let inside = self.desired.enis.get(eni).is_some_and(|eni| self.vpc_of(eni) == Some(id));
                if !inside {
                    let message = format!("the next hop {eni} is not an ENI of this VPC");
                    self.refuse("unknown", format!("vpcs/{id}/routes/{prefix}"), message);
                }
            }
        }
    }

    fn vpc_of(&self, eni: &DesiredEni) -> Option<&VpcId> {
        self.desired.vswitches.get(&eni.vswitch).map(|vswitch| &vswitch.vpc)
    }

    fn vswitches(&mut self) {
        let mut blocks: BTreeMap<&VpcId, Vec<IpNet>> = BTreeMap::new();
        for (id, vswitch) in &self.desired.vswitches {
            if !self.desired.vpcs.contains_key(&vswitch.vpc) {
                self.refuse("unknown", format!("vswitches/{id}/vpc"), format!("there is no VPC {}", vswitch.vpc));
            }
            for gateway in gateways_of(vswitch) {
                if !blocks_of(vswitch).any(|block| block.contains(&gateway)) {
                    let message = format!("the gateway {gateway} lies outside the blocks of the subnet");
                    self.refuse("invalid", format!("vswitches/{id}"), message);
                }
            }
            let others = blocks.entry(&vswitch.vpc).or_default();
            for block in blocks_of(vswitch) {
                if let Some(other) = others.iter().find(|other| overlap(other, &block)) {
                    let message = format!("{block} overlaps {other} of another subnet of {}", vswitch.vpc);
                    self.refusals.push(Refusal::new("conflict", format!("vswitches/{id}"), message));
                }
                others.push(block);
            }
        }
    }

    fn groups(&mut self) {
        for (id, group) in &self.desired.groups {
            self.group(id, group);
        }
    }

    fn group(&mut self, id: &GroupId, group: &SecurityGroup) {
        if !self.desired.vpcs.contains_key(&group.vpc) {
            self.refuse("unknown", format!("groups/{id}/vpc"), format!("there is no VPC {}", group.vpc));
        }
        if group.rules.len() > RULES_PER_FILTER_MAX {
            let message = format!("a group has at most {RULES_PER_FILTER_MAX} rules");
            self.refuse("limit", format!("groups/{id}/rules"), message);
        }
        let mut names = BTreeSet::new();
        for rule in &group.rules {
            if !names.insert(&rule.id) {
                let message = format!("two rules have the identifier {}", rule.id);
                self.refuse("conflict", format!("groups/{id}/rules"), message);
            }
            if let Err(message) = self.rule(rule, &group.vpc) {
                self.refuse("invalid", format!("groups/{id}/rules/{}", rule.id), message);
            }
        }
    }

    fn rule(&self, rule: &DesiredRule, vpc: &VpcId) -> Result<(), String> {
        if !(1..=110).contains(&rule.priority) {
            return Err(format!("priority {} is not within 1 to 110", rule.priority));
        }
        let MatchConditions { protocol, ports, remote, local, .. } = &rule.conditions;
        rule.conditions.check()?;
        if let Ports::List(list) = ports
            && !self.desired.port_lists.contains_key(list)
        {
            return Err(format!("there is no port list {list}"));
        }
        let object_is_v6 = match remote {
            Remote::Prefix(prefix) => Some(matches!(prefix, IpNet::V6(_))),
            Remote::PrefixList(list) => {
                let Some(list) = self.desired.prefix_lists.get(list) else {
                    return Err(format!("there is no prefix list {list}"));
                };
                list.entries.first().map(|entry| matches!(entry, IpNet::V6(_)))
            }
            Remote::Group(group) => match self.desired.groups.get(group) {
                Some(group) if group.vpc == *vpc => None,
                Some(group) => return Err(format!("the group it names is in {}, not in {vpc}", group.vpc)),
                None => return Err(format!("there is no group {group}")),
            },
        };
        let wanted = match *protocol {
            Protocol::ICMP => Some(false),
            Protocol::ICMPV6 => Some(true),
            _ => None,
        };
        let local = local.map(|local| matches!(local, IpNet::V6(_)));
        let families: BTreeSet<bool> = [object_is_v6, wanted, local].into_iter().flatten().collect();
        if families.len() > 1 { Err("it mixes IPv4 and IPv6".into()) } else { Ok(()) }
    }

    fn lists(&mut self) {
        for (id, list) in &self.desired.prefix_lists {
            self.prefix_list(id, list);
        }
        for (id, list) in &self.desired.port_lists {
            self.port_list(id, list);
        }
    }

    fn prefix_list(&mut self, id: &PrefixListId, list: &DesiredPrefixList) {
        let families: BTreeSet<bool> = list.entries.iter().map(|entry| matches!(entry, IpNet::V6(_))).collect();
        if families.len() > 1 {
            self.refuse("invalid", format!("prefix_lists/{id}"), "a list holds prefixes of one family".into());
        }
    }

    fn port_list(&mut self, id: &PortListId, list: &DesiredPortList) {
        for range in &list.entries {
            if let Err(message) = range.check() {
                self.refuse("invalid", format!("port_lists/{id}"), message);
            }
        }
    }

    fn enis(&mut self) {
        if self.desired.enis.len() > ENIS_MAX {
            self.refuse("limit", "enis".into(), format!("a switch holds at most {ENIS_MAX} ENIs"));
        }
        let mut owners: BTreeMap<(&VpcId, IpNet), &EniId> = BTreeMap::new();
        let mut devices: BTreeMap<(Option<&str>, &str), &EniId> = BTreeMap::new();
        for (id, eni) in &self.desired.enis {
            if eni.hostname.as_ref().is_some_and(|name| !is_domain_name(name)) {
                let message = "a host name has labels of letters, digits and -".into();
                self.refuse("invalid", format!("enis/{id}/hostname"), message);
            }
            if let Some(fault) = eni.rate_limits.fault() {
                self.refuse("invalid", format!("enis/{id}/rate_limits"), fault.into());
            }
            let Some(vswitch) = self.eni(id, eni) else { continue };
            for address in &eni.addresses {
                if let Some(other) = owners.insert((&vswitch.vpc, address.trunc()), id) {
                    let message = format!("{address} belongs to {other}");
                    self.refuse("conflict", format!("enis/{id}/addresses"), message);
                }
            }
            if let Some((device, namespace)) = eni.port.as_ref().and_then(DesiredPort::resource)
                && let Some(other) = devices.insert((namespace, device), id)
            {
                let message = format!("{device} is the port of {other}");
                self.refuse("conflict", format!("enis/{id}/port"), message);
            }
        }
        self.nested(&owners);
    }

    /// Refuses a prefix of one ENI that contains an address of another: the groups of both would apply to it.
    fn nested(&mut self, owners: &BTreeMap<(&VpcId, IpNet), &EniId>) {
        let mut around: Vec<(&VpcId, IpNet, &EniId)> = Vec::new();
        for (&(vpc, address), &eni) in owners {
            // Prefixes come in the order of their networks, the shorter first, so what holds this one came before.
            around.retain(|(of, outer, _)| *of == vpc && outer.contains(&address));
            if let Some((_, outer, owner)) = around.iter().find(|(.., owner)| *owner != eni) {
                let message = format!("{address} lies inside {outer}, which belongs to {owner}");
                self.refuse("conflict", format!("enis/{eni}/addresses"), message);
            }
            around.push((vpc, address, eni));
        }
    }

    /// Checks an ENI by itself. Returns its subnet.
    fn eni(&mut self, id: &EniId, eni: &DesiredEni) -> Option<&'a DesiredVswitch> {
        let desired = self.desired;
        let Some(vswitch) = desired.vswitches.get(&eni.vswitch) else {
            self.refuse("unknown", format!("enis/{id}/vswitch"), format!("there is no subnet {}", eni.vswitch));
            return None;
        };
        self.eni_values(id, eni);
        self.eni_groups(id, eni, &vswitch.vpc);
        for address in &eni.addresses {
            if let Err(message) = check_address(address, vswitch) {
                self.refuse("invalid", format!("enis/{id}/addresses"), message);
            }
        }
        if let Some(port) = &eni.port
            && let Err(message) = check_port(port)
        {
            self.refuse("invalid", format!("enis/{id}/port"), message);
        }
        Some(vswitch)
    }

    fn eni_values(&mut self, id: &EniId, eni: &DesiredEni) {
        if eni.mac.is_group() || eni.mac.0 == [0; 6] {
            let message = format!("{} is not the hardware address of a single interface", eni.mac);
            self.refuse("invalid", format!("enis/{id}/mac"), message);
        }
        if eni.addresses.is_empty() || eni.addresses.len() > ADDRESSES_PER_ENI_MAX {
            let message = format!("an ENI has 1 to {ADDRESSES_PER_ENI_MAX} addresses");
            self.refuse("limit", format!("enis/{id}/addresses"), message);
        }
        if PackedTimeouts::pack(eni.timeouts).is_none() {
            let (closed_min, closed_max) = Timeouts::TCP_CLOSED_S;
            let message = format!(
                "established TCP may idle for one of {} s, closed TCP {closed_min} to {closed_max} s, UDP one of {} s",
                listed(&Timeouts::TCP_ESTABLISHED_S),
                listed(&Timeouts::UDP_S)
            );
            self.refuse("invalid", format!("enis/{id}/timeouts"), message);
        }
    }

    fn eni_groups(&mut self, id: &EniId, eni: &DesiredEni, vpc: &VpcId) {
        let object = || format!("enis/{id}/groups");
        if eni.groups.is_empty() || eni.groups.len() > GROUPS_PER_ENI_MAX {
            let message = format!("an ENI is a member of 1 to {GROUPS_PER_ENI_MAX} groups");
            self.refuse("limit", object(), message);
        }
        let unknown: Vec<&GroupId> = eni.groups.iter().filter(|id| !self.desired.groups.contains_key(*id)).collect();
        for group in unknown {
            self.refuse("unknown", object(), format!("there is no group {group}"));
        }
        let groups = eni.groups.iter().filter_map(|id| Some((id, self.desired.groups.get(id)?)));
        let foreign: Vec<&GroupId> = groups.clone().filter(|(_, group)| group.vpc != *vpc).map(|(id, _)| id).collect();
        let kinds: BTreeSet<_> = groups.map(|(_, group)| group.kind).collect();
        for group in foreign {
            self.refuse("invalid", object(), format!("the group {group} is not in {vpc}"));
        }
        if kinds.len() > 1 {
            self.refuse("invalid", object(), "basic and advanced groups cannot be mixed on one ENI".into());
        }
    }
}

fn blocks_of(vswitch: &DesiredVswitch) -> impl Iterator<Item = IpNet> {
    vswitch.ipv4.map(IpNet::V4).into_iter().chain(vswitch.ipv6.map(IpNet::V6))
}

fn gateways_of(vswitch: &DesiredVswitch) -> impl Iterator<Item = IpAddr> {
    vswitch.ipv4_gateway.map(IpAddr::V4).into_iter().chain(vswitch.ipv6_gateway.map(IpAddr::V6))
}

fn listed(numbers: &[u16]) -> String {
    numbers.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

fn check_address(address: &IpNet, vswitch: &DesiredVswitch) -> Result<(), String> {
    let mut of_family =
        blocks_of(vswitch).filter(|block| block.addr().is_ipv4() == address.addr().is_ipv4()).peekable();
    if of_family.peek().is_some() && !of_family.any(|block| block.contains(address)) {
        return Err(format!("{address} lies outside the blocks of the subnet"));
    }
    match gateways_of(vswitch).find(|gateway| address.contains(gateway)) {
        Some(gateway) => Err(format!("{address} holds {gateway}, the router's own address")),
        None => Ok(()),
    }
}

/// Bytes of the longest path of a Unix socket (`sun_path`, less its final zero).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Why a path cannot be a socket's, or a number of queues a port's.
///
/// # Errors
/// In words.
pub fn check_socket(port: &DesiredPort) -> Result<(), String> {
    let Some(path) = port.socket_path() else { return Ok(()) };
    if !path.starts_with('/') || path.len() > SOCKET_PATH_BYTES_MAX || path.contains(char::is_control) {
        return Err(format!(
            "{path} is no absolute path of at most {SOCKET_PATH_BYTES_MAX} bytes, as a socket has",
            path = quoted(path)
        ));
    }
    let is_of_the_other_side = match port {
        DesiredPort::VhostUser(socket) => socket.is_client && socket.socket_user.is_some(),
        DesiredPort::Stream(socket) => socket.is_client && socket.socket_user.is_some(),
        DesiredPort::Tap(_)
        | DesiredPort::Packet(_)
        | DesiredPort::Macvtap(_)
        | DesiredPort::TapSocket(_)
        | DesiredPort::Memory => false,
    };
    if is_of_the_other_side {
        return Err("a socket that the hypervisor listens at is the hypervisor's: leave its user out".into());
    }
    match port {
        DesiredPort::VhostUser(socket) if !(1..=VhostUserPort::QUEUES_MAX).contains(&socket.queues) => {
            Err(format!("{} pairs of queues: a port has 1 to {}", socket.queues, VhostUserPort::QUEUES_MAX))
        }
        _ => Ok(()),
    }
}

fn check_port(port: &DesiredPort) -> Result<(), String> {
    if let Some((device, namespace)) = port.device() {
        check_device(device, namespace)?;
    }
    if let DesiredPort::Macvtap(macvtap) = port {
        check_device(&macvtap.lower_device, macvtap.lower_namespace.as_deref())?;
    }
    check_socket(port)?;
    if !(MTU_BYTES_MIN..=MTU_BYTES_MAX).contains(&usize::from(port.mtu_bytes())) {
        return Err(format!("an MTU has {MTU_BYTES_MIN} to {MTU_BYTES_MAX} bytes"));
    }
    Ok(())
}

fn check_device(device: &str, namespace: Option<&str>) -> Result<(), String> {
    const NAME_BYTES_MAX: usize = 15;
    let is_name = |text: &str| {
        !text.is_empty()
            && !matches!(text, "." | "..")
            && !text.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control())
    };
    if !is_name(device) || device.len() > NAME_BYTES_MAX || device.contains([':', '%']) {
        return Err(format!(
            "{device} is not a valid device name of 1 to {NAME_BYTES_MAX} bytes",
            device = quoted(device)
        ));
    }
    if let Some(namespace) = namespace.filter(|name| !is_name(name) || name.len() > 255) {
        return Err(format!("{namespace} is not a valid name of a network namespace", namespace = quoted(namespace)));
    }
    Ok(())
}
