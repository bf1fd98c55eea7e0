//! Uplinks: the way out of a VPC. Addresses outside that are customers' own are in [`eip`], [`nat_gateway`], [`snat`]
//! and [`forward`].

mod eip;
mod forward;
mod link;
mod nat_gateway;
mod snat;

pub(crate) use eip::PUBLIC_ADDRESS;
pub use eip::{DEFAULT_POOL, Eip, EipTarget};
pub use forward::{ForwardEntry, ForwardProtocol};
pub use nat_gateway::NatGateway;
pub use snat::SnatEntry;

use super::metadata::Holder;
use super::parse::{block, description, network_name};
use super::{Event, Model, Vpc};
use crate::command::{Command, UplinkCreate, UplinkDelete, UplinkKind, UplinkModify, UplinkNat};
use crate::environment::Environment;
use crate::error::{
    ApiError, CIDR_BLOCK_IN_USE, INTERNAL_ERROR, INVALID_DESCRIPTION, INVALID_PARAMETER, MISSING_PARAMETER,
    UPLINK_EXISTS, UPLINK_NOT_FOUND,
};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use vswitch_core::config::desired::DesiredPort;
use vswitch_core::config::ids::{MacAddress, UplinkId, VpcId};
use vswitch_core::config::limits::NAT_PORT_BLOCKS_PER_ENI_MAX;
use vswitch_core::config::uplink::{DesiredNat, NatFiltering, UplinkIpv4, UplinkIpv6};

/// Blocks of external addresses of one uplink.
const BLOCKS_MAX: usize = 64;

/// The way out of a VPC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uplink {
    /// The VPC.
    pub vpc: VpcId,
    /// What its frames go through.
    pub kind: UplinkKind,
    /// Where its frames come from and go to.
    pub port: DesiredPort,
    /// The VPC's hardware address on it.
    pub mac: MacAddress,
    /// The hardware address of the next hop, where the switch chooses it.
    pub next_hop_mac: Option<MacAddress>,
    /// The VPC's IPv4 address on it, and the router that packets go to.
    pub ipv4: Option<UplinkIpv4>,
    /// The same for IPv6; for a host chosen while the VPC has an IPv6 block.
    pub ipv6: Option<UplinkIpv6>,
    /// Blocks of external addresses.
    pub addresses: Vec<Ipv4Net>,
    /// What happens to private source addresses.
    pub nat: UplinkNat,
    /// Who may use the external port of a connection that was opened inside.
    pub filtering: NatFiltering,
    /// How many blocks of 64 external ports one ENI may have.
    pub port_blocks_max: u16,
    /// The least time for which an idle UDP mapping stays, seconds.
    pub udp_timeout_s: u16,
    /// Whether the machine translates what leaves to its own address.
    pub masquerade: bool,
    /// A name for people.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// When it was made, seconds since 1970.
    pub created_s: u64,
}

impl Uplink {
    /// Whether an external address is one of its own.
    pub(crate) fn holds(&self, address: Ipv4Addr) -> bool {
        self.addresses.iter().any(|block| block.contains(&address))
    }

    /// Its IPv6 side in a VPC.
    pub(crate) fn ipv6_in(&self, vpc: &Vpc) -> Option<UplinkIpv6> {
        match self.kind {
            UplinkKind::Host => vpc.ipv6_cidr.and_then(|_| link::ipv6_of(self.ipv4?)),
            UplinkKind::Interface | UplinkKind::Stream | UplinkKind::Macvtap => self.ipv6,
        }
    }
}

impl Model {
    /// The events of a command about what leaves a VPC. Those of other objects are decided before.
    pub(super) fn decide_outside(
        &self,
        holder: Holder<'_>,
        command: &Command,
        environment: &Environment,
    ) -> Result<Vec<Event>, ApiError> {
        match command {
            Command::UplinkCreate(create) => self.uplink_create(create, environment),
            Command::UplinkModify(modify) => self.uplink_modify(modify),
            Command::UplinkDelete(delete) => self.uplink_delete(delete),
            Command::EipAllocate(allocate) => self.eip_allocate(allocate, holder, environment),
            Command::EipModify(modify) => self.eip_modify(modify),
            Command::EipAssociate(associate) => self.eip_associate(associate),
            Command::EipUnassociate(unassociate) => self.eip_unassociate(unassociate),
            Command::EipRelease(release) => self.eip_release(release),
            Command::NatCreate(create) => self.nat_create(create, environment),
            Command::NatModify(modify) => self.nat_modify(modify),
            Command::NatDelete(delete) => self.nat_delete(delete),
            Command::SnatAdd(add) => self.snat_add(add, environment),
            Command::SnatModify(modify) => self.snat_modify(modify),
            Command::SnatRemove(remove) => self.snat_remove(remove),
            Command::ForwardAdd(add) => self.forward_add(add, environment),
            Command::ForwardModify(modify) => self.forward_modify(modify),
            Command::ForwardRemove(remove) => self.forward_remove(remove),
            Command::PeeringCreate(create) => self.peering_create(create, environment),
            Command::PeeringDelete(delete) => self.peering_delete(delete),
            _ => Err(INTERNAL_ERROR.error("nothing decides about this command")),
        }
    }

    /// The events that make its uplinks, peerings and what is translated.
    pub(super) fn outside_events(&self) -> impl Iterator<Item = Event> + '_ {
        let uplinks = self.uplinks.iter().map(|(id, it)| Event::Uplink(id.clone(), Some(Box::new(it.clone()))));
        let eips = self.eips.iter().map(|(id, it)| Event::Eip(id.clone(), Some(it.clone())));
        let nats = self.nat_gateways.iter().map(|(id, it)| Event::NatGateway(id.clone(), Some(it.clone())));
        let snats = self.snat_entries.iter().map(|(id, it)| Event::SnatEntry(id.clone(), Some(it.clone())));
        let forwards = self.forwards.iter().map(|(id, it)| Event::Forward(id.clone(), Some(it.clone())));
        let peerings = self.peerings.iter().map(|(id, it)| Event::Peering(id.clone(), Some(it.clone())));
        uplinks.chain(eips).chain(nats).chain(snats).chain(forwards).chain(peerings)
    }

    pub(crate) fn uplink(&self, id: &str) -> Result<(UplinkId, &Uplink), ApiError> {
        let id = UplinkId::from(id);
        match self.uplinks.get(&id) {
            Some(uplink) => Ok((id, uplink)),
            None => {
                let message = format!("there is no uplink {id}: see sluice uplink list");
                Err(UPLINK_NOT_FOUND.error(message).field("uplink").object(id))
            }
        }
    }

    /// The uplink of a VPC.
    pub(crate) fn uplink_of(&self, vpc: &VpcId) -> Option<(&UplinkId, &Uplink)> {
        self.uplinks.iter().find(|(_, uplink)| uplink.vpc == *vpc)
    }

    pub(super) fn uplink_create(
        &self,
        create: &UplinkCreate,
        environment: &Environment,
    ) -> Result<Vec<Event>, ApiError> {
        let taken = |id: &str| self.uplinks.contains_key(&id.into());
        let id = UplinkId::from(self.choose_id(create.id.as_deref(), "upl", environment, taken)?);
        let (vpc, _) = self.vpc(&create.vpc)?;
        if let Some((other, _)) = self.uplink_of(&vpc) {
            let message = format!("{vpc} leaves by {other}: a VPC has one uplink");
            return Err(UPLINK_EXISTS.error(message).field("vpc").object(other));
        }
        let link = self.link_of(create, &id, environment)?;
        let uplink = Uplink {
            kind: create.kind.unwrap_or_default(),
            port: link.port,
            mac: environment.new_mac(),
            next_hop_mac: link.next_hop_mac,
            ipv4: link.ipv4,
            ipv6: link.ipv6,
            addresses: match create.addresses.is_empty() {
                true => vec![DEFAULT_POOL],
                false => pool(&create.addresses)?,
            },
            nat: create.nat.unwrap_or_default(),
            filtering: create.nat_filtering.unwrap_or_default(),
            port_blocks_max: create.nat_port_blocks.unwrap_or(DesiredNat::PORT_BLOCKS_MAX_DEFAULT),
            udp_timeout_s: create.nat_udp_timeout_s.unwrap_or(DesiredNat::UDP_TIMEOUT_S_DEFAULT),
            masquerade: create.masquerade,
            name: network_name(create.name.as_deref(), INVALID_PARAMETER)?,
            description: description(create.description.as_deref(), 1, 256, INVALID_DESCRIPTION)?,
            vpc,
            created_s: environment.now_s,
        };
        self.check_uplink(&id, &uplink)?;
        Ok(vec![Event::Uplink(id, Some(Box::new(uplink)))])
    }

    pub(super) fn uplink_modify(&self, modify: &UplinkModify) -> Result<Vec<Event>, ApiError> {
        let (id, old) = self.uplink(&modify.uplink)?;
        let mut new = old.clone();
        if let Some(addresses) = &modify.addresses {
            new.addresses = pool(addresses)?;
        }
        new.nat = modify.nat.unwrap_or(old.nat);
        new.filtering = modify.nat_filtering.unwrap_or(old.filtering);
        new.port_blocks_max = modify.nat_port_blocks.unwrap_or(old.port_blocks_max);
        new.udp_timeout_s = modify.nat_udp_timeout_s.unwrap_or(old.udp_timeout_s);
        new.masquerade = modify.masquerade.unwrap_or(old.masquerade);
        if let Some(text) = &modify.name {
            new.name = network_name(Some(text), INVALID_PARAMETER)?;
        }
        if let Some(text) = &modify.description {
            new.description = description(Some(text), 1, 256, INVALID_DESCRIPTION)?;
        }
        self.check_uplink(&id, &new)?;
        Ok(if new == *old { vec![] } else { vec![Event::Uplink(id, Some(Box::new(new)))] })
    }

    pub(super) fn uplink_delete(&self, delete: &UplinkDelete) -> Result<Vec<Event>, ApiError> {
        let (id, uplink) = self.uplink(&delete.uplink)?;
        let own = uplink.ipv4.map(|it| it.address.addr());
        if let Some((forward, _)) =
            self.forwards.iter().find(|(_, forward)| forward.vpc == uplink.vpc && Some(forward.external) == own)
        {
            let message = format!("the forward {forward} begins at the address of {id}: remove it first");
            return Err(CIDR_BLOCK_IN_USE.error(message).object(id));
        }
        Ok(vec![Event::Uplink(id, None)])
    }

    fn check_uplink(&self, id: &UplinkId, uplink: &Uplink) -> Result<(), ApiError> {
        let refuse = |field: &str, message: String| Err(INVALID_PARAMETER.error(message).field(field));
        if !(1..=NAT_PORT_BLOCKS_PER_ENI_MAX).contains(&uplink.port_blocks_max) {
            let (blocks, most) = (uplink.port_blocks_max, NAT_PORT_BLOCKS_PER_ENI_MAX);
            return refuse("nat_port_blocks", format!("{blocks}: an ENI may have 1 to {most} port blocks"));
        }
        if uplink.udp_timeout_s == 0 {
            return refuse("nat_udp_timeout_s", "a mapping stays for at least 1 s".into());
        }
        if uplink.masquerade && uplink.kind != UplinkKind::Host {
            let message = "only what leaves by the machine's own kernel can be masqueraded: kind host";
            return refuse("masquerade", message.into());
        }
        if let Some(address) = self.external_addresses_of(&uplink.vpc).find(|address| !uplink.holds(*address)) {
            let message = format!("{address} is in use in {} and in none of the blocks of {id}", uplink.vpc);
            return Err(CIDR_BLOCK_IN_USE.error(message).field("addresses").object(id));
        }
        let link = uplink.ipv4.map(|it| [it.address.addr(), it.next_hop]).unwrap_or([Ipv4Addr::UNSPECIFIED; 2]);
        let is_public = |id: &String| self.public_address_of(id).is_some_and(|address| link.contains(&address));
        match self.eips.values().any(|eip| link.contains(&eip.address)) || self.instances.keys().any(is_public) {
            true => refuse("address", format!("{} or {} is a floating address", link[0], link[1])),
            false => Ok(()),
        }
    }
}

/// Blocks of external addresses, none of which overlaps another.
fn pool(texts: &[String]) -> Result<Vec<Ipv4Net>, ApiError> {
    let mut blocks: Vec<Ipv4Net> = Vec::new();
    if texts.is_empty() || texts.len() > BLOCKS_MAX {
        let message = format!("give 1 to {BLOCKS_MAX} blocks of external addresses");
        return Err(MISSING_PARAMETER.error(message).field("addresses"));
    }
    for (place, text) in texts.iter().enumerate() {
        let field = format!("addresses[{place}]");
        let IpNet::V4(block) = block(text, &field, INVALID_PARAMETER)? else {
            return Err(INVALID_PARAMETER.error("IPv6 is not translated: give IPv4 blocks").field(field));
        };
        let address = block.network();
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() || block.prefix_len() < 8 {
            let message = format!("{block} cannot be external addresses: choose a block of at least 8 bits for hosts");
            return Err(INVALID_PARAMETER.error(message).field(field));
        }
        if let Some(other) = blocks.iter().find(|other| other.contains(&block) || block.contains(*other)) {
            return Err(INVALID_PARAMETER.error(format!("{block} overlaps {other}")).field(field));
        }
        blocks.push(block);
    }
    Ok(blocks)
}
