//! The world of the workers at its start, and the random changes that only they see: networks, attachments, addresses.

use crate::changes::{ENIS, add_eni, first_world};
use harness::random::Random;
use harness::world::{Build, accept_in, prefix_of};
use std::net::IpAddr;
use vswitch_core::config::desired::{Desired, DesiredPort, DesiredVpc, Policy, Timeouts};
use vswitch_core::config::ids::{EniId, MacAddress, VpcId};

/// A router for destinations outside the VPC, and two ENIs of a VPC with the addresses of `eni-a` and `eni-b`.
pub(crate) const ROUTER: &str = "eni-r";
const FAR: [&str; 2] = ["eni-x", "eni-y"];

pub(crate) fn all_enis() -> impl Iterator<Item = &'static str> {
    ENIS.into_iter().chain([ROUTER]).chain(FAR)
}

pub(crate) fn network_of(id: &str) -> &'static str {
    if FAR.contains(&id) { "vpc-2" } else { "vpc-1" }
}

/// Every address that the ENI has at some time.
pub(crate) fn addresses_of(id: &str) -> Vec<IpAddr> {
    let texts = match id {
        ROUTER => vec!["10.0.0.50".into(), "192.168.7.1".into(), "fd00:0:0:1::50".into(), "2001:db8::1".into()],
        _ => {
            let number = number_of(id);
            let subnet = number % 2;
            let v6 = format!("fd00:0:0:{}::{:x}", subnet + 1, 16 + number);
            vec![format!("10.0.{subnet}.{}", 10 + number), format!("10.0.{subnet}.{}", 100 + number), v6]
        }
    };
    texts.into_iter().map(|text: String| text.parse().expect("an address")).collect()
}

fn number_of(id: &str) -> usize {
    let names = if FAR.contains(&id) { FAR.as_slice() } else { &ENIS };
    names.iter().position(|other| *other == id).expect("a known name")
}

pub(crate) fn mac_of(id: &str) -> MacAddress {
    let number = all_enis().position(|other| other == id).expect("a known name") as u8 + 1;
    MacAddress([2, 0, 0, 0, 0, number])
}

pub(crate) fn with_eni(desired: Desired, id: &str) -> Desired {
    let mut desired = match id {
        ROUTER => desired.eni(id, "vsw-1", &["10.0.0.50", "fd00:0:0:1::50"], &["sg-open"]),
        _ if FAR.contains(&id) => {
            let (vswitch, addresses) = (["vsw-3", "vsw-4"][number_of(id)], addresses_of(id));
            let addresses = [addresses[0].to_string(), addresses[2].to_string()];
            desired.eni(id, vswitch, &[&addresses[0], &addresses[1]], &["sg-far"])
        }
        _ => add_eni(desired, id),
    };
    let eni = desired.enis.get_mut(&EniId::from(id)).expect("just added");
    eni.mac = mac_of(id);
    eni.source_dest_check = id != ROUTER;
    if id == ROUTER {
        let routes = &mut network(&mut desired, "vpc-1").routes;
        routes.insert(prefix_of("192.168.0.0/16"), id.into());
        routes.insert(prefix_of("2001:db8::/32"), id.into());
    }
    desired
}

fn network<'a>(desired: &'a mut Desired, id: &str) -> &'a mut DesiredVpc {
    desired.vpcs.get_mut(&VpcId::from(id)).expect("a known VPC")
}

pub(crate) fn world() -> Desired {
    let desired = first_world()
        .vpc("vpc-2")
        .vswitch("vsw-3", "vpc-2", "10.0.0.0/24", "fd00:0:0:1::/64")
        .vswitch("vsw-4", "vpc-2", "10.0.1.0/24", "fd00:0:0:2::/64")
        .open_group("sg-far", "vpc-2", &[])
        .closed_group("sg-apart", "vpc-2", &[accept_in("r-1", "10.0.0.0/8")]);
    [ROUTER].into_iter().chain(FAR).fold(desired, with_eni)
}

/// Who in the VPC sends from this address.
pub(crate) fn sender(network: &str, address: IpAddr) -> Option<&'static str> {
    all_enis().find(|id| network_of(id) == network && addresses_of(id).contains(&address))
}

pub(crate) fn change_networks(random: &mut Random, desired: &mut Desired) -> String {
    if random.chance(50) {
        let group = desired.groups.get_mut(&"sg-far".into()).expect("a known group");
        group.inner_access = random.pick(&[Policy::Accept, Policy::Drop]);
        let group = random.pick(&["sg-far", "sg-apart"]);
        if let Some(eni) = desired.enis.get_mut(&EniId::from(random.pick(&FAR))) {
            eni.groups = [group.into()].into();
        }
        return format!("the other VPC: {:?}", desired.groups[&"sg-far".into()].inner_access);
    }
    let next = EniId::from(random.pick(&["eni-c", "eni-d", ROUTER]));
    let exists = desired.enis.contains_key(&next);
    let routes = &mut network(desired, "vpc-1").routes;
    let prefix = prefix_of(random.pick(&["192.168.7.0/24", "192.168.0.0/16", "2001:db8::/64"]));
    if routes.remove(&prefix).is_none() && exists {
        routes.insert(prefix, next);
    }
    format!("routes: {routes:?}")
}

pub(crate) fn change_eni(random: &mut Random, desired: &mut Desired) -> String {
    let names: Vec<&str> = all_enis().collect();
    let id = random.pick(&names);
    let Some(eni) = desired.enis.get_mut(&EniId::from(id)) else { return "nothing".into() };
    match random.below(7) {
        6 => eni.tracking.tcp_window_check ^= true,
        0 => {
            let (tcp_established_s, udp_s) = (random.pick(&[30, 100, 910]), random.pick(&[10, 30, 100]));
            eni.timeouts = Timeouts { tcp_established_s, tcp_closed_s: 3, udp_s };
        }
        1..=2 if ENIS.contains(&id) => {
            let secondary = prefix_of(&addresses_of(id)[1].to_string());
            if eni.addresses.contains(&secondary) {
                eni.addresses.retain(|prefix| *prefix != secondary);
            } else {
                eni.addresses.push(secondary);
            }
        }
        3 => {
            eni.source_dest_check ^= true;
            eni.routed_as_own = random.chance(50);
        }
        // Most are attached at most times.
        _ => match desired.enis.values_mut().find(|eni| eni.port.is_none()) {
            Some(eni) => eni.port = Some(DesiredPort::Memory),
            None => desired.enis.values_mut().filter(|other| other.mac == mac_of(id)).for_each(|eni| eni.port = None),
        },
    }
    let eni = &desired.enis[&EniId::from(id)];
    format!("{id}: {eni:?}")
}
