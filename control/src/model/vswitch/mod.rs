//! Subnets. The first address and the last three of a block are reserved; the third last is the gateway, such as .253
//! in a /24. In an IPv6 block they are also the first and the last three, and `…:ffff:fffd` is the gateway.

mod reservation;

pub use reservation::Reservation;

use super::parse::{block, description, network_name};
use super::vpc::Vpc;
use super::{Event, Model};
use crate::command::{VswitchCreate, VswitchDelete, VswitchModify};
use crate::environment::Environment;
use crate::error::{
    ApiError, CIDR_BLOCK_IN_USE, CIDR_BLOCK_MALFORMED, CIDR_BLOCK_MASK, CIDR_BLOCK_OVERLAPPED,
    DEPENDENCY_VSWITCH_IN_USE, INVALID_PARAMETER, QUOTA_VSWITCH, VSWITCH_DESCRIPTION_MALFORMED, VSWITCH_NAME_MALFORMED,
    VSWITCH_NOT_FOUND,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vswitch_core::config::ids::{VSwitchId, VpcId};

/// A subnet of a VPC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VSwitch {
    /// The VPC it is part of.
    pub vpc: VpcId,
    /// Its IPv4 block.
    pub cidr: Ipv4Net,
    /// Its IPv6 block.
    pub ipv6_cidr: Option<Ipv6Net>,
    /// Reservations for delegated prefixes, by identifier.
    #[serde(default)]
    pub reservations: BTreeMap<String, Reservation>,
    /// A name for people.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// When it was made, seconds since 1970.
    pub created_s: u64,
}

impl VSwitch {
    /// The router's IPv4 address.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.cidr.broadcast()) - 2)
    }

    /// The router's IPv6 address.
    pub fn ipv6_gateway(&self) -> Option<Ipv6Addr> {
        self.ipv6_cidr.map(|cidr| Ipv6Addr::from(u128::from(cidr.broadcast()) - 2))
    }

    /// Its blocks of both families.
    pub fn blocks(&self) -> impl Iterator<Item = IpNet> {
        std::iter::once(IpNet::V4(self.cidr)).chain(self.ipv6_cidr.map(IpNet::V6))
    }

    /// Whether an address of its blocks is reserved.
    pub(in crate::model) fn is_reserved(&self, address: IpAddr) -> bool {
        match (address, self.ipv6_cidr) {
            (IpAddr::V4(address), _) => address == self.cidr.network() || address >= self.gateway(),
            (IpAddr::V6(address), Some(cidr)) => {
                address == cidr.network() || self.ipv6_gateway().is_some_and(|gateway| address >= gateway)
            }
            (IpAddr::V6(_), None) => true,
        }
    }
}

impl Model {
    pub(crate) fn vswitch(&self, id: &str) -> Result<(VSwitchId, &VSwitch), ApiError> {
        let id = VSwitchId::from(id);
        match self.vswitches.get(&id) {
            Some(vswitch) => Ok((id, vswitch)),
            None => {
                let message = format!("there is no vSwitch {id}: see sluice vswitch list");
                Err(VSWITCH_NOT_FOUND.error(message).field("vswitch").object(id))
            }
        }
    }

    pub(in crate::model) fn vswitch_create(
        &self,
        create: &VswitchCreate,
        environment: &Environment,
    ) -> Result<Vec<Event>, ApiError> {
        let taken = |id: &str| self.vswitches.contains_key(&id.into());
        let id = self.choose_id(create.id.as_deref(), "vsw", environment, taken)?;
        let (vpc_id, vpc) = self.vpc(&create.vpc)?;
        let vswitch = VSwitch {
            cidr: self.subnet(&create.cidr, &vpc_id, vpc)?,
            ipv6_cidr: create.ipv6_cidr.as_deref().map(|text| self.ipv6_subnet(text, &vpc_id, vpc)).transpose()?,
            name: network_name(create.name.as_deref(), VSWITCH_NAME_MALFORMED)?,
            description: description(create.description.as_deref(), 1, 256, VSWITCH_DESCRIPTION_MALFORMED)?,
            vpc: vpc_id,
            reservations: BTreeMap::new(),
            created_s: environment.now_s,
        };
        let siblings = self.vswitches.values().filter(|sibling| sibling.vpc == vswitch.vpc).count();
        if siblings >= self.quotas.vswitches_per_vpc_max {
            let message = format!("{} has {siblings} vSwitches, as many as may be", vswitch.vpc);
            return Err(QUOTA_VSWITCH.error(message).object(&vswitch.vpc));
        }
        Ok(vec![Event::VSwitch(id.into(), Some(vswitch))])
    }

    pub(in crate::model) fn vswitch_modify(&self, modify: &VswitchModify) -> Result<Vec<Event>, ApiError> {
        let (id, old) = self.vswitch(&modify.vswitch)?;
        let mut new = old.clone();
        if let Some(text) = &modify.name {
            new.name = network_name(Some(text), VSWITCH_NAME_MALFORMED)?;
        }
        if let Some(text) = &modify.description {
            new.description = description(Some(text), 1, 256, VSWITCH_DESCRIPTION_MALFORMED)?;
        }
        if let Some(text) = modify.ipv6_cidr.as_ref().filter(|text| text.parse().ok() != old.ipv6_cidr) {
            let (vpc_id, vpc) = self.vpc(old.vpc.as_str())?;
            self.refuse_ipv6_in_use(&id)?;
            new.ipv6_cidr = match text.as_str() {
                "" => None,
                text => Some(self.ipv6_subnet(text, &vpc_id, vpc)?),
            };
        }
        Ok(if new == *old { vec![] } else { vec![Event::VSwitch(id, Some(new))] })
    }

    pub(in crate::model) fn vswitch_delete(&self, delete: &VswitchDelete) -> Result<Vec<Event>, ApiError> {
        let (id, _) = self.vswitch(&delete.vswitch)?;
        if let Some((eni, _)) = self.enis.iter().find(|(_, eni)| eni.vswitch == id) {
            let message = format!("{id} has network interfaces, such as {eni}: delete them first");
            return Err(DEPENDENCY_VSWITCH_IN_USE.error(message).object(id));
        }
        let snat =
            self.snat_entries.iter().find(|(_, entry)| entry.vswitch.as_ref() == Some(&id)).map(|(snat, _)| snat);
        let nat = self.nat_gateways.iter().find(|(_, nat)| nat.vswitch.as_ref() == Some(&id)).map(|(nat, _)| nat);
        if let Some(user) = snat.or(nat) {
            let message = format!("{user} names {id}: remove it first");
            return Err(DEPENDENCY_VSWITCH_IN_USE.error(message).object(id));
        }
        Ok(vec![Event::VSwitch(id, None)])
    }

    /// Refuses to remove a subnet's IPv6 block while interfaces have addresses in it.
    fn refuse_ipv6_in_use(&self, id: &VSwitchId) -> Result<(), ApiError> {
        let mut enis = self.enis.iter().filter(|(_, eni)| eni.vswitch == *id);
        let used = enis.find(|(_, eni)| eni.prefixes_of_all().any(|prefix| prefix.addr().is_ipv6()));
        if let Some((eni, _)) = used {
            let message = format!("{eni} has IPv6 addresses of {id}: unassign them first");
            return Err(CIDR_BLOCK_IN_USE.error(message).field("ipv6_cidr").object(id));
        }
        if self.vswitches.get(id).is_some_and(|vswitch| vswitch.reserves(true)) {
            let message = format!("a part of the block of {id} is reserved: end that first");
            return Err(CIDR_BLOCK_IN_USE.error(message).field("ipv6_cidr").object(id));
        }
        Ok(())
    }

    fn subnet(&self, text: &str, vpc_id: &VpcId, vpc: &Vpc) -> Result<Ipv4Net, ApiError> {
        let IpNet::V4(cidr) = block(text, "cidr", CIDR_BLOCK_MALFORMED)? else {
            let message = format!("{text} is IPv6: give an IPv4 block here, and this one as ipv6_cidr");
            return Err(CIDR_BLOCK_MALFORMED.error(message).field("cidr"));
        };
        if !(16..=29).contains(&cidr.prefix_len()) {
            let message = format!("{text}: the block of a vSwitch is 16 to 29 bits long");
            return Err(CIDR_BLOCK_MASK.error(message).field("cidr"));
        }
        if !vpc.holds(IpNet::V4(cidr)) {
            let blocks: Vec<String> = vpc.ipv4_cidrs().map(|block| block.to_string()).collect();
            let message = format!("{text} is not inside {}, the block of {vpc_id}", blocks.join(" or "));
            return Err(INVALID_PARAMETER.error(message).field("cidr"));
        }
        self.refuse_overlap(IpNet::V4(cidr), "cidr", vpc_id, vpc)?;
        Ok(cidr)
    }

    fn ipv6_subnet(&self, text: &str, vpc_id: &VpcId, vpc: &Vpc) -> Result<Ipv6Net, ApiError> {
        let field = "ipv6_cidr";
        let IpNet::V6(cidr) = block(text, field, CIDR_BLOCK_MALFORMED)? else {
            return Err(CIDR_BLOCK_MALFORMED.error(format!("{text} is IPv4: give an IPv6 block here")).field(field));
        };
        if cidr.prefix_len() != 64 {
            let message = format!("{text}: the IPv6 block of a vSwitch is 64 bits long");
            return Err(CIDR_BLOCK_MASK.error(message).field(field));
        }
        if !vpc.ipv6_cidr.is_some_and(|block| block.contains(&cidr)) {
            let message = match vpc.ipv6_cidr {
                Some(block) => format!("{text} is not inside {block}, the IPv6 block of {vpc_id}"),
                None => format!("{vpc_id} has no IPv6 block: give it one first with sluice vpc modify"),
            };
            return Err(INVALID_PARAMETER.error(message).field(field));
        }
        self.refuse_overlap(IpNet::V6(cidr), field, vpc_id, vpc)?;
        Ok(cidr)
    }

    fn refuse_overlap(&self, cidr: IpNet, field: &str, vpc_id: &VpcId, vpc: &Vpc) -> Result<(), ApiError> {
        let overlaps = |other: IpNet| other.contains(&cidr) || cidr.contains(&other);
        let mut siblings = self.vswitches.iter().filter(|(_, vswitch)| vswitch.vpc == *vpc_id);
        if let Some((sibling, _)) = siblings.find(|(_, vswitch)| vswitch.blocks().any(overlaps)) {
            let message =
                format!("{cidr} overlaps vSwitch {sibling}: choose a block apart from the others of {vpc_id}");
            return Err(CIDR_BLOCK_OVERLAPPED.error(message).field(field).object(sibling));
        }
        if let Some(route) = vpc.routes.iter().find(|route| cidr.contains(&route.destination)) {
            let message = format!("{cidr} covers the custom route to {}: remove the route first", route.destination);
            return Err(CIDR_BLOCK_OVERLAPPED.error(message).field(field).object(vpc_id));
        }
        self.refuse_peered(cidr, vpc_id, field)
    }
}
