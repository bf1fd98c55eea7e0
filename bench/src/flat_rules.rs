//! Rules in the form for classifiers without groups and lists: a line for each prefix of a rule's object.

use std::fmt::Write;
use std::net::IpAddr;
use vswitch_core::config::desired::{Desired, DesiredRule, Direction, Policy, PortRange, Ports, Protocol, Remote};
use vswitch_core::config::ids::EniId;
use vswitch_core::ipnet::IpNet;

/// The rules of one direction at an ENI that can match packets of one family, in deciding order. Each line has the
/// position in that order, 1 for accept or 0 for drop, the protocol or -1, the remote prefix in hexadecimal digits and
/// its length, and the first and last destination port.
pub(crate) fn rules(desired: &Desired, eni: &EniId, direction: Direction, is_v6: bool) -> String {
    let mut text = String::new();
    for (place, rule) in in_order(desired, eni, direction).into_iter().enumerate() {
        let accepts = u8::from(rule.policy == Policy::Accept);
        let protocol = match rule.conditions.protocol {
            Protocol::All => -1,
            Protocol::Number(number) => i32::from(number),
        };
        for prefix in
            prefixes(desired, &rule.conditions.remote).filter(|prefix| matches!(prefix, IpNet::V6(_)) == is_v6)
        {
            for PortRange { first, last } in port_ranges(desired, &rule.conditions.ports) {
                let (address, length) = (digits(prefix.network()), prefix.prefix_len());
                let _ = writeln!(text, "{place} {accepts} {protocol} {address} {length} {first} {last}");
            }
        }
    }
    text
}

/// The rules of one direction at an ENI, in deciding order.
pub(crate) fn in_order<'a>(desired: &'a Desired, eni: &EniId, direction: Direction) -> Vec<&'a DesiredRule> {
    let groups = desired.enis.get(eni).into_iter().flat_map(|eni| &eni.groups);
    let of_groups = groups.filter_map(|group| desired.groups.get(group)).flat_map(|group| &group.rules);
    let mut ordered: Vec<&DesiredRule> = of_groups.filter(|rule| rule.direction == direction).collect();
    // At equal priority the cloud lets drop decide before accept.
    ordered.sort_by_key(|rule| (rule.priority, rule.policy == Policy::Accept));
    ordered
}

/// The prefixes that the object of a rule now stands for.
pub(crate) fn prefixes<'a>(desired: &'a Desired, remote: &'a Remote) -> Box<dyn Iterator<Item = IpNet> + 'a> {
    match remote {
        Remote::Prefix(prefix) => Box::new(std::iter::once(*prefix)),
        Remote::PrefixList(list) => {
            Box::new(desired.prefix_lists.get(list).into_iter().flat_map(|list| list.entries.iter().copied()))
        }
        Remote::Group(group) => {
            let members = desired.enis.values().filter(move |eni| eni.groups.contains(group));
            Box::new(members.flat_map(|eni| eni.addresses.iter().copied()))
        }
    }
}

fn port_ranges(desired: &Desired, ports: &Ports) -> Vec<PortRange> {
    match ports {
        Ports::Any => vec![PortRange { first: 0, last: u16::MAX }],
        Ports::Range(range) => vec![*range],
        Ports::List(list) => {
            desired.port_lists.get(list).into_iter().flat_map(|list| list.entries.iter().copied()).collect()
        }
    }
}

fn digits(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{:08x}", address.to_bits()),
        IpAddr::V6(address) => format!("{:032x}", address.to_bits()),
    }
}
