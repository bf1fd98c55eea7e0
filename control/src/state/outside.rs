//! What leaves a VPC, as the forwarding plane needs it: its uplink with the addresses that are translated there, and the
//! subnets of its peers.

use crate::command::UplinkNat;
use crate::model::{Eip, EipTarget, Model, Peering, Uplink};
use ipnet::{IpNet, Ipv4Net};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use vswitch_core::config::desired::{Desired, DesiredUplink};
use vswitch_core::config::ids::{EniId, UplinkId, VSwitchId, VpcId};
use vswitch_core::config::uplink::{DesiredNat, PortForward, PrivateEnd};

/// An uplink.
pub(super) fn desired_uplink(model: &Model, uplink: &Uplink) -> DesiredUplink {
    let ipv6 = model.vpcs.get(&uplink.vpc).and_then(|vpc| uplink.ipv6_in(vpc));
    // Without an IPv4 side, nothing is translated.
    let nat = uplink.ipv4.map(|ipv4| desired_nat(model, uplink, ipv4.address.addr())).unwrap_or_default();
    DesiredUplink {
        vpc: uplink.vpc.clone(),
        mac: uplink.mac,
        next_hop_mac: uplink.next_hop_mac,
        ipv4: uplink.ipv4,
        ipv6,
        port: uplink.port.clone(),
        nat,
    }
}

fn desired_nat(model: &Model, uplink: &Uplink, own: Ipv4Addr) -> DesiredNat {
    DesiredNat {
        sources: sources(model, uplink, own),
        floating: floating(model, uplink),
        forwards: forwards(model, uplink),
        filtering: uplink.filtering,
        port_blocks_max: uplink.port_blocks_max,
        udp_timeout_s: uplink.udp_timeout_s,
        routes_private: uplink.nat == UplinkNat::None,
    }
}

fn sources(model: &Model, uplink: &Uplink, own: Ipv4Addr) -> BTreeMap<Ipv4Net, BTreeSet<Ipv4Addr>> {
    let nats: Vec<&String> =
        model.nat_gateways.iter().filter(|(_, nat)| nat.vpc == uplink.vpc).map(|(id, _)| id).collect();
    match uplink.nat {
        UplinkNat::None => BTreeMap::new(),
        UplinkNat::Source if nats.is_empty() => BTreeMap::from([(Ipv4Net::default(), BTreeSet::from([own]))]),
        UplinkNat::Source => {
            let entries = model.snat_entries.values().filter(|entry| nats.contains(&&entry.nat));
            entries.map(|entry| (entry.source, entry.addresses.clone())).collect()
        }
    }
}

fn floating(model: &Model, uplink: &Uplink) -> BTreeMap<Ipv4Addr, PrivateEnd> {
    let is_inside = |eni: &EniId| model.enis.get(eni).is_some_and(|eni| eni.vpc == uplink.vpc);
    let eips = model.eips.values().filter_map(|eip| Some((eip.address, eip.end()?)));
    let eips = eips.filter(|(_, (eni, _))| is_inside(eni));
    let mut floating: BTreeMap<Ipv4Addr, PrivateEnd> =
        eips.map(|(external, (eni, address))| (external, PrivateEnd { eni: eni.clone(), address })).collect();
    for (id, instance) in &model.instances {
        let Some(external) = model.public_address_of(id).filter(|external| uplink.holds(*external)) else { continue };
        let Some((eni, primary)) = instance.primary().and_then(|id| model.enis.get_key_value(id)) else { continue };
        let end = PrivateEnd { eni: eni.clone(), address: primary.primary };
        if primary.vpc == uplink.vpc && !floating.values().any(|other| *other == end) {
            floating.entry(external).or_insert(end);
        }
    }
    floating
}

fn forwards(model: &Model, uplink: &Uplink) -> Vec<PortForward> {
    let of_vpc = model.forwards.values().filter(|forward| forward.vpc == uplink.vpc);
    let forwards = of_vpc.filter_map(|forward| {
        // A forward to an address that no ENI has waits for one.
        let eni = model.eni_at(&forward.vpc, forward.private)?.clone();
        let to = PrivateEnd { eni, address: forward.private };
        Some(forward.protocol.numbers().iter().map(move |protocol| PortForward {
            external: forward.external,
            protocol: *protocol,
            ports: forward.ports,
            to: to.clone(),
            port: forward.port,
        }))
    });
    forwards.flatten().collect()
}

/// The subnets that a VPC reaches directly, each with the VPC that it is in.
pub(super) fn peers(model: &Model, vpc: &VpcId) -> BTreeMap<IpNet, VpcId> {
    // One that has no subnet yet is reached by nobody, and reaches nobody.
    let peers = model.peers_of(vpc).filter(|_| model.subnets_of(vpc).next().is_some());
    peers.flat_map(|peer| model.subnets_of(peer).map(|(_, block)| (block, peer.clone()))).collect()
}

/// What a change has to do with besides the objects that it names.
#[derive(Default)]
pub(super) struct Touched {
    /// VPCs whose peers changed.
    vpcs: BTreeSet<VpcId>,
    /// VPCs whose uplink may translate something else.
    inside: BTreeSet<VpcId>,
    uplinks: BTreeSet<UplinkId>,
    all_uplinks: bool,
}

impl Touched {
    pub(super) fn vpcs(&self) -> impl Iterator<Item = &VpcId> {
        self.vpcs.iter()
    }

    pub(super) fn uplinks<'a>(&'a self, model: &'a Model, desired: &'a Desired) -> BTreeSet<&'a UplinkId> {
        let present = model.uplinks.iter().filter(|(_, it)| self.all_uplinks || self.inside.contains(&it.vpc));
        let known = desired.uplinks.keys().filter(|_| self.all_uplinks);
        present.map(|(id, _)| id).chain(known).chain(&self.uplinks).collect()
    }

    pub(super) fn uplink(&mut self, id: &UplinkId) {
        self.uplinks.insert(id.clone());
    }

    pub(super) fn uplinks_of(&mut self, vpc: &VpcId) {
        self.inside.insert(vpc.clone());
    }

    pub(super) fn all_uplinks(&mut self) {
        self.all_uplinks = true;
    }

    pub(super) fn eni(&mut self, model: &Model, id: &EniId, desired: &Desired) {
        let before = desired.enis.get(id).and_then(|eni| desired.vswitches.get(&eni.vswitch)).map(|it| &it.vpc);
        self.inside.extend(model.enis.get(id).map(|eni| &eni.vpc).or(before).cloned());
    }

    pub(super) fn instance(&mut self, model: &Model, id: &str) {
        let primary = model.instances.get(id).and_then(|instance| model.enis.get(instance.primary()?));
        self.inside.extend(primary.map(|eni| eni.vpc.clone()));
    }

    pub(super) fn eip(&mut self, model: &Model, eip: Option<&Eip>, desired: &Desired) {
        // One that is given back stands for nothing.
        let Some(eip) = eip else { return };
        let translates = |nat: &DesiredNat| {
            let in_sources = nat.sources.values().any(|addresses| addresses.contains(&eip.address));
            in_sources || nat.floating.contains_key(&eip.address)
        };
        let before = desired.uplinks.iter().filter(|(_, uplink)| translates(&uplink.nat));
        self.uplinks.extend(before.map(|(id, _)| id.clone()));
        if matches!(eip.target, Some(EipTarget::Eni { .. })) {
            self.inside.extend(model.vpc_of_eip(eip).cloned());
        }
    }

    pub(super) fn subnet(&mut self, model: &Model, id: &VSwitchId, desired: &Desired) {
        let before = desired.vswitches.get(id).map(|vswitch| &vswitch.vpc);
        let Some(vpc) = model.vswitches.get(id).map(|vswitch| &vswitch.vpc).or(before) else { return };
        let peers: Vec<VpcId> = model.peers_of(vpc).cloned().collect();
        self.vpcs.extend((!peers.is_empty()).then(|| vpc.clone()));
        self.vpcs.extend(peers);
    }

    pub(super) fn peering(&mut self, peering: Option<&Peering>, desired: &Desired) {
        match peering {
            Some(Peering { vpc, peer, .. }) => self.vpcs.extend([vpc.clone(), peer.clone()]),
            // Which VPCs it joined is not said any more.
            None => {
                self.vpcs.extend(desired.vpcs.iter().filter(|(_, it)| !it.peers.is_empty()).map(|(id, _)| id.clone()))
            }
        }
    }
}
