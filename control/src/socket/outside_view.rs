//! Uplinks, and what is translated there, as they are shown.

use super::view::views;
use crate::command::{UplinkKind, UplinkNat};
use crate::error::ApiError;
use crate::model::{
    Eip, EipTarget, Eni, ForwardEntry, ForwardProtocol, Model, NatGateway, Peering, SnatEntry, Uplink, timestamp,
};
use crate::socket::query::OutsideFilter;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use vswitch_core::config::desired::DesiredPort;
use vswitch_core::config::ids::{EniId, MacAddress, UplinkId, VSwitchId, VpcId};
use vswitch_core::config::uplink::{NatFiltering, UplinkIpv4, UplinkIpv6};

views! {
    /// An uplink.
    UplinkView {
        /// Its identifier.
        id: UplinkId,
        /// Its name, or nothing.
        name: String,
        /// What it is for, or nothing.
        description: String,
        /// The VPC.
        vpc: VpcId,
        /// What its frames go through.
        kind: UplinkKind,
        /// Its port.
        port: DesiredPort,
        /// The VPC's hardware address on it.
        mac: MacAddress,
        /// The VPC's IPv4 address on it, and the next hop.
        ipv4: Option<UplinkIpv4>,
        /// The same for IPv6.
        ipv6: Option<UplinkIpv6>,
        /// Blocks of external addresses.
        addresses: Vec<Ipv4Net>,
        /// What happens to private source addresses.
        nat: UplinkNat,
        /// Who may use the external port of a connection that was opened inside.
        nat_filtering: NatFiltering,
        /// How many blocks of 64 external ports one ENI may have.
        nat_port_blocks: u16,
        /// The least time for which an idle UDP mapping stays, seconds.
        nat_udp_timeout_s: u16,
        /// Whether the machine translates what leaves to its own address.
        masquerade: bool,
        /// When it was made.
        created: String,
    }

    /// A floating address.
    EipView {
        /// Its identifier.
        id: String,
        /// Its name, or nothing.
        name: String,
        /// What it is for, or nothing.
        description: String,
        /// The address.
        address: Ipv4Addr,
        /// The VPC in which it stands for something.
        vpc: Option<VpcId>,
        /// The ENI whose address it stands for.
        eni: Option<EniId>,
        /// The private address.
        private_ip: Option<Ipv4Addr>,
        /// The instance that was named.
        instance: Option<String>,
        /// The NAT gateway that it belongs to.
        nat: Option<String>,
        /// When it was taken.
        created: String,
    }

    /// What a private address is outside.
    FloatingView {
        /// The floating address, by its identifier; none if it is the public address of an instance.
        eip: Option<String>,
        /// The external address.
        address: Ipv4Addr,
        /// The private address.
        private_ip: Ipv4Addr,
    }

    /// A NAT gateway.
    NatGatewayView {
        /// Its identifier.
        id: String,
        /// Its name, or nothing.
        name: String,
        /// What it is for, or nothing.
        description: String,
        /// The VPC.
        vpc: VpcId,
        /// The subnet it is placed in.
        vswitch: Option<VSwitchId>,
        /// Its floating addresses.
        addresses: Vec<Ipv4Addr>,
        /// Its entries for sources.
        sources: Vec<SnatView>,
        /// When it was made.
        created: String,
    }

    /// An entry for sources.
    SnatView {
        /// Its identifier.
        id: String,
        /// Its name, or nothing.
        name: String,
        /// The private addresses.
        source: Ipv4Net,
        /// The subnet that was named.
        vswitch: Option<VSwitchId>,
        /// The external addresses.
        addresses: Vec<Ipv4Addr>,
    }

    /// A forward.
    ForwardView {
        /// Its identifier.
        id: String,
        /// Its name, or nothing.
        name: String,
        /// The VPC.
        vpc: VpcId,
        /// The NAT gateway; none if the external address is the uplink's own.
        nat: Option<String>,
        /// The external address.
        external: Ipv4Addr,
        /// What is forwarded.
        protocol: ForwardProtocol,
        /// The external ports.
        ports: String,
        /// The private address.
        to: Ipv4Addr,
        /// The private ports.
        to_ports: String,
        /// The ENI that has the private address; none if there is none, and nothing is forwarded.
        eni: Option<EniId>,
        /// When it was made.
        created: String,
    }

    /// A peering.
    PeeringView {
        /// Its identifier.
        id: String,
        /// Its name, or nothing.
        name: String,
        /// What it is for, or nothing.
        description: String,
        /// One VPC.
        vpc: VpcId,
        /// The other.
        peer: VpcId,
        /// When it was made.
        created: String,
    }
}

impl UplinkView {
    pub(crate) fn new(model: &Model, id: &UplinkId, uplink: &Uplink) -> Self {
        Self {
            id: id.clone(),
            name: uplink.name.clone(),
            description: uplink.description.clone(),
            vpc: uplink.vpc.clone(),
            kind: uplink.kind,
            port: uplink.port.clone(),
            mac: uplink.mac,
            ipv4: uplink.ipv4,
            ipv6: model.vpcs.get(&uplink.vpc).and_then(|vpc| uplink.ipv6_in(vpc)),
            addresses: uplink.addresses.clone(),
            nat: uplink.nat,
            nat_filtering: uplink.filtering,
            nat_port_blocks: uplink.port_blocks_max,
            nat_udp_timeout_s: uplink.udp_timeout_s,
            masquerade: uplink.masquerade,
            created: timestamp(uplink.created_s),
        }
    }
}

impl EipView {
    pub(crate) fn new(model: &Model, id: &str, eip: &Eip) -> Self {
        let end = eip.end();
        let instance = match &eip.target {
            Some(EipTarget::Eni { instance, .. }) => instance.clone(),
            Some(EipTarget::Nat(_)) | None => None,
        };
        Self {
            id: id.to_owned(),
            name: eip.name.clone(),
            description: eip.description.clone(),
            address: eip.address,
            vpc: model.vpc_of_eip(eip).cloned(),
            eni: end.map(|(eni, _)| eni.clone()),
            private_ip: end.map(|(_, private)| private),
            instance,
            nat: eip.nat().map(str::to_owned),
            created: timestamp(eip.created_s),
        }
    }
}

impl FloatingView {
    pub(crate) fn of_eni(model: &Model, id: &EniId, eni: &Eni) -> Vec<Self> {
        let eips = model.eips_of(id).filter_map(|(eip, content)| {
            let (_, private_ip) = content.end()?;
            Some(Self { eip: Some(eip.clone()), address: content.address, private_ip })
        });
        let instance = model.instance_of(id).filter(|(_, instance)| instance.primary() == Some(id));
        let public = instance.and_then(|(instance, _)| model.public_address_of(instance));
        let public = public.map(|address| Self { eip: None, address, private_ip: eni.primary });
        eips.chain(public).collect()
    }
}

impl SnatView {
    fn new(id: &str, entry: &SnatEntry) -> Self {
        let addresses = entry.addresses.iter().copied().collect();
        let (name, vswitch) = (entry.name.clone(), entry.vswitch.clone());
        Self { id: id.to_owned(), name, source: entry.source, vswitch, addresses }
    }
}

impl NatGatewayView {
    pub(crate) fn new(model: &Model, id: &str, nat: &NatGateway) -> Self {
        Self {
            id: id.to_owned(),
            name: nat.name.clone(),
            description: nat.description.clone(),
            vpc: nat.vpc.clone(),
            vswitch: nat.vswitch.clone(),
            addresses: model.eips_of_nat(id).map(|(_, eip)| eip.address).collect(),
            sources: model.snat_entries_of(id).map(|(entry, content)| SnatView::new(entry, content)).collect(),
            created: timestamp(nat.created_s),
        }
    }
}

impl ForwardView {
    pub(crate) fn new(model: &Model, id: &str, forward: &ForwardEntry) -> Self {
        Self {
            id: id.to_owned(),
            name: forward.name.clone(),
            vpc: forward.vpc.clone(),
            nat: forward.nat.clone(),
            external: forward.external,
            protocol: forward.protocol,
            ports: forward.ports_text(),
            to: forward.private,
            to_ports: forward.private_ports_text(),
            eni: model.eni_at(&forward.vpc, forward.private).cloned(),
            created: timestamp(forward.created_s),
        }
    }
}

impl PeeringView {
    pub(crate) fn new(id: &str, peering: &Peering) -> Self {
        let Peering { vpc, peer, name, description, created_s } = peering.clone();
        Self { id: id.to_owned(), name, description, vpc, peer, created: timestamp(created_s) }
    }
}

/// The answers to queries about them.
impl Model {
    fn wanted_vpc(&self, filter: &OutsideFilter) -> Result<impl Fn(&VpcId) -> bool + use<>, ApiError> {
        let wanted = filter.vpc.as_deref().map(|id| self.vpc(id)).transpose()?.map(|(id, _)| id);
        Ok(move |vpc: &VpcId| wanted.as_ref().is_none_or(|wanted| wanted == vpc))
    }

    pub(super) fn uplink_views(&self, filter: &OutsideFilter) -> Result<Vec<UplinkView>, ApiError> {
        let is_wanted = self.wanted_vpc(filter)?;
        let wanted = self.uplinks.iter().filter(|(_, uplink)| is_wanted(&uplink.vpc));
        Ok(wanted.map(|(id, uplink)| UplinkView::new(self, id, uplink)).collect())
    }

    pub(super) fn eip_views(&self, filter: &OutsideFilter) -> Result<Vec<EipView>, ApiError> {
        let is_wanted = self.wanted_vpc(filter)?;
        let wanted = |eip: &Eip| filter.vpc.is_none() || self.vpc_of_eip(eip).is_some_and(&is_wanted);
        let eips = self.eips.iter().filter(|(_, eip)| wanted(eip));
        Ok(eips.map(|(id, eip)| EipView::new(self, id, eip)).collect())
    }

    pub(super) fn nat_views(&self, filter: &OutsideFilter) -> Result<Vec<NatGatewayView>, ApiError> {
        let is_wanted = self.wanted_vpc(filter)?;
        let wanted = self.nat_gateways.iter().filter(|(_, nat)| is_wanted(&nat.vpc));
        Ok(wanted.map(|(id, nat)| NatGatewayView::new(self, id, nat)).collect())
    }

    pub(super) fn forward_views(&self, filter: &OutsideFilter) -> Result<Vec<ForwardView>, ApiError> {
        let is_wanted = self.wanted_vpc(filter)?;
        let wanted = self.forwards.iter().filter(|(_, forward)| is_wanted(&forward.vpc));
        Ok(wanted.map(|(id, forward)| ForwardView::new(self, id, forward)).collect())
    }

    pub(super) fn peering_views(&self, filter: &OutsideFilter) -> Result<Vec<PeeringView>, ApiError> {
        let is_wanted = self.wanted_vpc(filter)?;
        let wanted = self.peerings.iter().filter(|(_, it)| is_wanted(&it.vpc) || is_wanted(&it.peer));
        Ok(wanted.map(|(id, peering)| PeeringView::new(id, peering)).collect())
    }
}
