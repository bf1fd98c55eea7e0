//! Which steps lead from the running ports to the desired ones. It only decides; `switch` carries the steps out.

use crate::os::netlink::Interface;
use crate::port::spec::PortSpec;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use vswitch_core::config::desired::{Desired, DesiredEni, DesiredPort, DesiredUplink, DesiredVpc};
use vswitch_core::config::ids::{EniId, UplinkId};

/// One step from the running ports to the desired ones. Steps are carried out in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortStep {
    /// Close the ENI's port before opening any, because another port needs its device.
    CloseFirst(EniId),
    /// Open the ENI's port. It does not pass packets yet.
    Open(EniId),
    /// Publish the snapshot and wait until it is in force everywhere.
    Publish,
    /// Adjust the ENI's device.
    Adjust(EniId),
    /// Close the ENI's previous port.
    Close(EniId),
}

/// The ports that a desired state specifies for some of its ENIs and uplinks.
pub fn port_specs(desired: &Desired, enis: &BTreeSet<EniId>) -> BTreeMap<EniId, PortSpec> {
    let spec = |(id, eni): (&EniId, &DesiredEni)| {
        let port = eni.port.clone()?;
        let interface = match &port {
            DesiredPort::Tap(tap) if tap.configure => Some(interface(eni, desired, tap.mtu_bytes)),
            _ => None,
        };
        Some((id.clone(), PortSpec { port, mac: eni.mac, interface }))
    };
    let uplink = |id: &EniId| {
        let uplink = desired.uplinks.get(&UplinkId::from(id.as_str()))?;
        Some((id.clone(), uplink_spec(uplink, desired)))
    };
    let of_enis = enis.iter().filter_map(|id| desired.enis.get_key_value(id)).filter_map(spec);
    of_enis.chain(enis.iter().filter_map(uplink)).collect()
}

/// The port of an uplink. A device that the switch configures is the next hop: it has its addresses, and routes to what is
/// reached through the uplink.
fn uplink_spec(uplink: &DesiredUplink, desired: &Desired) -> PortSpec {
    // A device that is the VPC's own end of the link has the VPC's hardware address; another is the next hop.
    let mac = match &uplink.port {
        DesiredPort::Macvtap(_) => uplink.mac,
        _ => uplink.next_hop_mac.unwrap_or_default(),
    };
    let interface = match &uplink.port {
        DesiredPort::Tap(tap) if tap.configure => {
            let of_prefix = |address: IpAddr, length| IpNet::new(address, length).ok();
            let ipv4 = uplink.ipv4.and_then(|it| of_prefix(it.next_hop.into(), it.address.prefix_len()));
            let ipv6 = uplink.ipv6.and_then(|it| of_prefix(it.next_hop.into(), it.address.prefix_len()));
            Some(Interface {
                mac,
                mtu_bytes: tap.mtu_bytes,
                addresses: ipv4.into_iter().chain(ipv6).collect(),
                gateways: Vec::new(),
                gateway_mac: uplink.mac,
                routes: routes_through(uplink, desired),
            })
        }
        _ => None,
    };
    PortSpec { port: uplink.port.clone(), mac, interface }
}

/// What is reached through an uplink from outside, each with the router's address there: external addresses, and what is
/// not translated.
fn routes_through(uplink: &DesiredUplink, desired: &Desired) -> Vec<(IpNet, IpAddr)> {
    let own = uplink.ipv4.map(|it| it.address);
    let external =
        uplink.nat.external_addresses().into_iter().filter(|address| own.is_none_or(|own| own.addr() != *address));
    let external = external.map(|address| IpNet::from(IpAddr::V4(address)));
    let subnets: Vec<_> = desired.vswitches.values().filter(|vswitch| vswitch.vpc == uplink.vpc).collect();
    let private =
        subnets.iter().filter_map(|vswitch| vswitch.ipv4.filter(|_| uplink.nat.routes_private)).map(IpNet::V4);
    let ipv6 = subnets.iter().filter_map(|vswitch| vswitch.ipv6).map(IpNet::V6);
    let through = |prefix: IpNet| {
        let ipv4 = || own.map(|address| IpAddr::V4(address.addr()));
        let ipv6 = || uplink.ipv6.map(|it| IpAddr::V6(it.address.addr()));
        Some((prefix, if prefix.addr().is_ipv4() { ipv4() } else { ipv6() }?))
    };
    external.chain(private).chain(ipv6).filter_map(through).collect()
}

fn interface(eni: &DesiredEni, desired: &Desired, mtu_bytes: u16) -> Interface {
    let vswitch = desired.vswitches.get(&eni.vswitch);
    let blocks: Vec<IpNet> = vswitch
        .map(|vswitch| vswitch.ipv4.map(IpNet::V4).into_iter().chain(vswitch.ipv6.map(IpNet::V6)).collect())
        .unwrap_or_default();
    // The guest's address has the prefix length of its subnet, so that neighbours are on its link.
    let on_link = |address: &IpNet| {
        let length =
            blocks.iter().find(|block| block.contains(address)).map_or(address.prefix_len(), IpNet::prefix_len);
        IpNet::new(address.addr(), length).unwrap_or(*address)
    };
    // A delegated prefix is routed to the guest, which decides itself which of the addresses to use.
    let is_host = |address: &&IpNet| address.prefix_len() == address.max_prefix_len();
    let addresses: Vec<IpNet> = eni.addresses.iter().filter(is_host).map(on_link).collect();
    let gateways = vswitch.into_iter().flat_map(|vswitch| {
        let ipv4 = vswitch.ipv4_gateway.map(Into::into);
        ipv4.into_iter().chain(vswitch.ipv6_gateway.map(Into::into))
    });
    // A guest without an address of a family cannot use a router of it.
    let reachable = |gateway: &std::net::IpAddr| addresses.iter().any(|address| address.contains(gateway));
    let gateways = gateways.filter(reachable).collect();
    let vpc = vswitch.and_then(|vswitch| desired.vpcs.get(&vswitch.vpc));
    let gateway_mac = vpc.map_or_else(DesiredVpc::default_gateway_mac, |vpc| vpc.gateway_mac);
    Interface { mac: eni.mac, mtu_bytes, addresses, gateways, gateway_mac, routes: Vec::new() }
}

/// The steps from `running` to `wanted`: open new ports, publish, close old ones. A port is closed first only if
/// another needs its device.
pub fn plan(running: &BTreeMap<EniId, PortSpec>, wanted: &BTreeMap<EniId, PortSpec>) -> Vec<PortStep> {
    let (mut first, mut open, mut adjust, mut close) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let opened = |eni: &EniId, spec: &PortSpec| match running.get(eni) {
        Some(old) => old != spec && !old.can_become(spec),
        None => true,
    };
    // A device can have one port at a time, so its current holder has to close first.
    let needed: BTreeSet<_> =
        wanted.iter().filter(|(eni, spec)| opened(eni, spec)).filter_map(|(_, spec)| spec.port.resource()).collect();
    for (eni, old) in running {
        match wanted.get(eni) {
            // A port that did not change is not touched: reopening would lose frames.
            Some(new) if new == old => continue,
            Some(new) if old.can_become(new) => {
                adjust.push(PortStep::Adjust(eni.clone()));
                continue;
            }
            _ => {}
        }
        let is_needed = old.port.resource().is_some_and(|resource| needed.contains(&resource));
        if is_needed { first.push(PortStep::CloseFirst(eni.clone())) } else { close.push(PortStep::Close(eni.clone())) }
    }
    for (eni, spec) in wanted {
        if opened(eni, spec) {
            open.push(PortStep::Open(eni.clone()));
        }
    }
    // Open before publishing, close after it: at no moment does a live snapshot name a port that is not there.
    first.into_iter().chain(open).chain([PortStep::Publish]).chain(adjust).chain(close).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vswitch_core::config::desired::TapPort;
    use vswitch_core::config::ids::MacAddress;

    fn tap(device: &str, mtu_bytes: u16) -> PortSpec {
        let (namespace, create_namespace, configure) = (Some("guest".to_owned()), false, false);
        let tap = TapPort { device: device.into(), namespace, create_namespace, configure, mtu_bytes };
        PortSpec { port: DesiredPort::Tap(tap), mac: MacAddress::default(), interface: None }
    }

    fn ports(list: &[(&str, PortSpec)]) -> BTreeMap<EniId, PortSpec> {
        list.iter().map(|(eni, spec)| (EniId::from(*eni), spec.clone())).collect()
    }

    #[test]
    fn nothing_changed_is_only_published() {
        let same = ports(&[("a", tap("t0", 1500))]);
        assert_eq!(plan(&same, &same), [PortStep::Publish]);
    }

    #[test]
    fn new_ports_open_before_and_old_ones_close_after() {
        let steps = plan(&ports(&[("a", tap("t0", 1500))]), &ports(&[("b", tap("t1", 1500))]));
        assert_eq!(steps, [PortStep::Open("b".into()), PortStep::Publish, PortStep::Close("a".into())]);
    }

    #[test]
    fn a_device_that_changes_hands_is_let_go_first() {
        let steps = plan(&ports(&[("a", tap("t0", 1500))]), &ports(&[("b", tap("t0", 1500))]));
        assert_eq!(steps, [PortStep::CloseFirst("a".into()), PortStep::Open("b".into()), PortStep::Publish]);
    }

    #[test]
    fn two_enis_may_swap_devices() {
        let steps = plan(
            &ports(&[("a", tap("t0", 1500)), ("b", tap("t1", 1500))]),
            &ports(&[("a", tap("t1", 1500)), ("b", tap("t0", 1500))]),
        );
        let [a, b]: [EniId; 2] = ["a".into(), "b".into()];
        let expected = [
            PortStep::CloseFirst(a.clone()),
            PortStep::CloseFirst(b.clone()),
            PortStep::Open(a),
            PortStep::Open(b),
            PortStep::Publish,
        ];
        assert_eq!(steps, expected);
    }

    #[test]
    fn another_mtu_is_set_on_the_running_device() {
        let steps = plan(&ports(&[("a", tap("t0", 1500))]), &ports(&[("a", tap("t0", 9000))]));
        assert_eq!(steps, [PortStep::Publish, PortStep::Adjust("a".into())]);
    }

    #[test]
    fn another_kind_of_port_is_opened_beside_the_old_one() {
        let memory = PortSpec { port: DesiredPort::Memory, mac: MacAddress::default(), interface: None };
        let steps = plan(&ports(&[("a", tap("t0", 1500))]), &ports(&[("a", memory)]));
        assert_eq!(steps, [PortStep::Open("a".into()), PortStep::Publish, PortStep::Close("a".into())]);
    }

    #[test]
    fn a_guest_learns_its_addresses_and_gateways() {
        let json = r#"{
            "vpcs": {"vpc-1": {}},
            "vswitches": {"vsw-1": {"vpc": "vpc-1", "ipv4": "10.0.0.0/24", "ipv4_gateway": "10.0.0.253",
                                    "ipv6": "2001:db8::/64", "ipv6_gateway": "2001:db8::fd"}},
            "groups": {"sg-1": {"vpc": "vpc-1", "kind": "basic", "inner_access": "accept"}},
            "enis": {"eni-1": {"vswitch": "vsw-1", "mac": "02:00:00:00:00:01", "groups": ["sg-1"],
                               "addresses": ["10.0.0.5/32", "10.0.0.64/28"],
                               "port": {"kind": "tap", "device": "eth0", "namespace": "web"}}}}"#;
        let desired: Desired = serde_json::from_str(json).unwrap();
        let id = EniId::from("eni-1");
        let spec = &port_specs(&desired, &[id.clone()].into())[&id];
        let interface = spec.interface.as_ref().unwrap();
        assert_eq!(interface.addresses, ["10.0.0.5/24".parse::<IpNet>().unwrap()], "a delegated prefix is not set");
        assert_eq!(interface.gateways, ["10.0.0.253".parse::<std::net::IpAddr>().unwrap()], "no IPv6, no IPv6 route");
        assert_eq!(interface.gateway_mac, DesiredVpc::default_gateway_mac());
        assert_eq!(spec.frame_bytes_max(), 1514);
    }
}
