//! Whether uplinks, and what is translated there, can be compiled.

use super::{Validator, check_port, overlap};
use crate::config::desired::{DesiredPort, DesiredUplink, DesiredVpc, Protocol};
use crate::config::ids::{UplinkId, VpcId};
use crate::config::limits::{NAT_EXTERNAL_ADDRESSES_MAX, NAT_FORWARDS_MAX, NAT_PORT_BLOCKS_PER_ENI_MAX};
use crate::config::uplink::{DesiredNat, PortForward, PrivateEnd};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;
use ipnet::IpNet;

impl Validator<'_> {
    pub(super) fn uplinks(&mut self) {
        let desired = self.desired;
        let mut by_vpc: BTreeMap<&VpcId, &UplinkId> = BTreeMap::new();
        let enis = desired.enis.iter().filter_map(|(id, eni)| Some((eni.port.as_ref()?.resource()?, id.to_string())));
        let mut devices: BTreeMap<_, String> = enis.collect();
        for (id, uplink) in &desired.uplinks {
            if let Some(other) = by_vpc.insert(&uplink.vpc, id) {
                self.refuse("conflict", format!("uplinks/{id}/vpc"), format!("{} leaves by {other}", uplink.vpc));
            }
            if desired.enis.contains_key(&id.interface()) {
                self.refuse("conflict", format!("uplinks/{id}"), "an ENI has this name".into());
            }
            if let Some(resource) = uplink.port.resource()
                && let Some(other) = devices.insert(resource, id.to_string())
            {
                let message = format!("{} is the port of {other}", resource.0);
                self.refuse("conflict", format!("uplinks/{id}/port"), message);
            }
            if let Err(message) = self.uplink(uplink) {
                self.refuse("invalid", format!("uplinks/{id}"), message);
            }
        }
    }

    fn uplink(&self, uplink: &DesiredUplink) -> Result<(), String> {
        if !self.desired.vpcs.contains_key(&uplink.vpc) {
            return Err(format!("there is no VPC {}", uplink.vpc));
        }
        for mac in [Some(uplink.mac), uplink.next_hop_mac].into_iter().flatten() {
            if mac.is_group() || mac.0 == [0; 6] {
                return Err(format!("{mac} is not the hardware address of a single interface"));
            }
        }
        check_port(&uplink.port)?;
        if matches!(&uplink.port, DesiredPort::Tap(tap) if tap.configure) && uplink.next_hop_mac.is_none() {
            return Err("a device that the switch configures is the next hop: its hardware address is missing".into());
        }
        let ipv4 = uplink.ipv4.map(|it| (IpNet::V4(it.address), IpAddr::V4(it.next_hop)));
        let ipv6 = uplink.ipv6.map(|it| (IpNet::V6(it.address), IpAddr::V6(it.next_hop)));
        if ipv4.is_none() && ipv6.is_none() {
            return Err("it has no address".into());
        }
        for (address, next_hop) in ipv4.into_iter().chain(ipv6) {
            if !address.contains(&next_hop) || next_hop == address.addr() {
                return Err(format!("the next hop {next_hop} is not another address of {}", address.trunc()));
            }
        }
        if ipv4.is_none() && uplink.nat != DesiredNat::default() {
            return Err("IPv4 is translated, and it has no IPv4 address".into());
        }
        self.nat(uplink)
    }

    fn nat(&self, uplink: &DesiredUplink) -> Result<(), String> {
        let nat = &uplink.nat;
        let external = nat.external_addresses();
        if external.len() > NAT_EXTERNAL_ADDRESSES_MAX || nat.forwards.len() > NAT_FORWARDS_MAX {
            let (addresses, forwards) = (NAT_EXTERNAL_ADDRESSES_MAX, NAT_FORWARDS_MAX);
            return Err(format!("an uplink has at most {addresses} external addresses and {forwards} forwards"));
        }
        if !(1..=NAT_PORT_BLOCKS_PER_ENI_MAX).contains(&nat.port_blocks_max) || nat.udp_timeout_s == 0 {
            return Err(format!(
                "an ENI has 1 to {NAT_PORT_BLOCKS_PER_ENI_MAX} port blocks, and a timeout at least 1 s"
            ));
        }
        let next_hop = uplink.ipv4.map(|it| it.next_hop);
        if let Some(address) = external.iter().find(|address| {
            Some(**address) == next_hop || address.is_unspecified() || address.is_loopback() || address.is_multicast()
        }) {
            return Err(format!("{address} cannot be an external address"));
        }
        if let Some((source, _)) = nat.sources.iter().find(|(_, addresses)| addresses.is_empty()) {
            return Err(format!("{source} has no external address"));
        }
        let mut private = BTreeSet::new();
        for (external, end) in &nat.floating {
            self.private_end(end, &uplink.vpc)?;
            if !private.insert(end) {
                return Err(format!("{} has another floating address beside {external}", end.address));
            }
            let shared = nat.sources.values().any(|addresses| addresses.contains(external));
            if shared || nat.forwards.iter().any(|forward| forward.external == *external) {
                return Err(format!("the floating address {external} stands for one private address and nothing else"));
            }
        }
        self.forwards(nat, &uplink.vpc)
    }

    fn forwards(&self, nat: &DesiredNat, vpc: &VpcId) -> Result<(), String> {
        let has_ports = |number| matches!(Protocol::Number(number), Protocol::TCP | Protocol::UDP);
        for forward in &nat.forwards {
            let PortForward { external, protocol, ports, to, port } = forward;
            self.private_end(to, vpc)?;
            ports.check()?;
            if !has_ports(*protocol) || *port == 0 || u32::from(*port) + u32::from(ports.last - ports.first) > 65_535 {
                return Err(format!("the forward of {external} port {}: protocol {protocol}, to {port}", ports.first));
            }
        }
        let mut outside: Vec<_> =
            nat.forwards.iter().map(|it| ((it.protocol, it.external), it.ports.first, it.ports.last)).collect();
        if let Some(((_, external), port)) = shared_port(&mut outside) {
            return Err(format!("two forwards of {external} have port {port}"));
        }
        let length = |forward: &PortForward| forward.ports.last - forward.ports.first;
        let mut inside: Vec<_> =
            nat.forwards.iter().map(|it| ((it.protocol, &it.to), it.port, it.port + length(it))).collect();
        // A packet from there would not show by which of them it has to return.
        match shared_port(&mut inside) {
            Some(((_, to), port)) => Err(format!("two forwards lead to {} port {port}", to.address)),
            None => Ok(()),
        }
    }

    fn private_end(&self, end: &PrivateEnd, vpc: &VpcId) -> Result<(), String> {
        let PrivateEnd { eni, address } = end;
        let found = self.desired.enis.get(eni).ok_or_else(|| format!("there is no ENI {eni}"))?;
        if self.vpc_of(found) != Some(vpc) {
            return Err(format!("{eni} is not in {vpc}"));
        }
        if found.addresses.iter().any(|own| own.contains(&IpAddr::V4(*address))) {
            Ok(())
        } else {
            Err(format!("{address} is not an address of {eni}"))
        }
    }

    /// Checks the blocks of other VPCs to which packets go directly.
    pub(super) fn peers(&mut self, id: &VpcId, vpc: &DesiredVpc) {
        for (block, peer) in &vpc.peers {
            let names_back = self.desired.vpcs.get(peer).is_some_and(|peer| peer.peers.values().any(|it| it == id));
            if peer == id || !names_back {
                let message = format!("{peer} is no other VPC that names this one as its peer");
                self.refuse("unknown", format!("vpcs/{id}/peers/{block}"), message);
            }
            let own = self.desired.vswitches.values().filter(|vswitch| vswitch.vpc == *id).flat_map(super::blocks_of);
            let own: BTreeSet<IpNet> = own.filter(|own| overlap(own, block)).collect();
            for own in own {
                let message = format!("{block} overlaps {own} of a subnet of this VPC");
                self.refuse("conflict", format!("vpcs/{id}/peers/{block}"), message);
            }
        }
    }
}

/// A port that two ranges of one end share.
fn shared_port<K: Ord + Copy>(ranges: &mut [(K, u16, u16)]) -> Option<(K, u16)> {
    ranges.sort_unstable();
    let shared = ranges.windows(2).find(|pair| pair[0].0 == pair[1].0 && pair[1].1 <= pair[0].2)?;
    Some((shared[1].0, shared[1].1))
}

#[cfg(test)]
mod tests {
    use crate::config::desired::Desired;
    use crate::config::validate::validate;
    use alloc::format;
    use alloc::string::String;
    use alloc::vec::Vec;

    const UPLINK: &str = r#""vpc": "vpc-1", "mac": "02:00:00:00:00:f1", "port": {"kind": "memory"},
        "ipv4": {"address": "192.0.2.1/24", "next_hop": "192.0.2.254"}"#;

    /// The refusals of a state with one ENI, 10.0.0.5, and these uplinks.
    fn refusals(uplinks: &str) -> Vec<String> {
        let json = format!(
            r#"{{"vpcs": {{"vpc-1": {{}}}},
                "vswitches": {{"vsw-1": {{"vpc": "vpc-1", "ipv4": "10.0.0.0/24", "ipv4_gateway": "10.0.0.253"}}}},
                "groups": {{"sg-1": {{"vpc": "vpc-1", "kind": "basic", "inner_access": "accept"}}}},
                "enis": {{"eni-1": {{"vswitch": "vsw-1", "mac": "02:00:00:00:00:01", "groups": ["sg-1"],
                                     "addresses": ["10.0.0.5/32"]}}}},
                "uplinks": {{{uplinks}}}}}"#
        );
        let desired: Desired = serde_json::from_str(&json).unwrap();
        validate(&desired).into_iter().map(|refusal| refusal.message).collect()
    }

    fn with_nat(nat: &str) -> Vec<String> {
        refusals(&format!(r#""upl-1": {{{UPLINK}, "nat": {{{nat}}}}}"#))
    }

    #[test]
    fn an_uplink_that_can_run_is_not_refused() {
        let nat = r#""sources": {"10.0.0.0/8": ["192.0.2.1"]}, "floating": {"203.0.113.5": {"eni": "eni-1", "address": "10.0.0.5"}},
            "forwards": [{"external": "192.0.2.1", "protocol": 6, "ports": {"first": 80, "last": 81},
                          "to": {"eni": "eni-1", "address": "10.0.0.5"}, "port": 8080}]"#;
        assert_eq!(with_nat(nat), Vec::<String>::new());
    }

    #[test]
    fn what_could_not_be_translated_back_is_refused() {
        let forward = |external: &str, first: u16, port: u16| {
            format!(
                r#"{{"external": "{external}", "protocol": 6, "ports": {{"first": {first}, "last": {last}}},
                     "to": {{"eni": "eni-1", "address": "10.0.0.5"}}, "port": {port}}}"#,
                last = first + 9
            )
        };
        let two = |one: String, other: String| with_nat(&format!(r#""forwards": [{one}, {other}]"#));
        let shared = two(forward("192.0.2.1", 80, 8000), forward("192.0.2.1", 89, 9000));
        assert_eq!(shared, ["two forwards of 192.0.2.1 have port 89"]);
        let ambiguous = two(forward("192.0.2.1", 80, 8000), forward("192.0.2.2", 80, 8009));
        assert_eq!(ambiguous, ["two forwards lead to 10.0.0.5 port 8009"]);
        let unknown = with_nat(r#""floating": {"203.0.113.5": {"eni": "eni-2", "address": "10.0.0.5"}}"#);
        assert_eq!(unknown, ["there is no ENI eni-2"]);
        let foreign = with_nat(r#""floating": {"203.0.113.5": {"eni": "eni-1", "address": "10.0.0.6"}}"#);
        assert_eq!(foreign, ["10.0.0.6 is not an address of eni-1"]);
    }

    #[test]
    fn a_vpc_has_one_uplink_and_each_has_a_next_hop() {
        let two = refusals(&format!(r#""upl-1": {{{UPLINK}}}, "upl-2": {{{UPLINK}}}"#));
        assert_eq!(two, ["vpc-1 leaves by upl-1"]);
        let aside = UPLINK.replace("192.0.2.254", "192.0.3.254");
        let aside = refusals(&format!(r#""upl-1": {{{aside}}}"#));
        assert_eq!(aside, ["the next hop 192.0.3.254 is not another address of 192.0.2.0/24"]);
    }
}
