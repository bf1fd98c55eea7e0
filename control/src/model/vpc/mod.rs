//! Private networks: their blocks here, their custom routes in [`route`].

mod route;

pub use route::Route;

use super::parse::{block, description, network_name};
use super::{Event, Model};
use crate::command::{VpcCreate, VpcDelete, VpcModify};
use crate::environment::Environment;
use crate::error::{
    ApiError, CIDR_BLOCK_MASK, DEPENDENCY_SECURITY_GROUP, DEPENDENCY_VSWITCH, INVALID_PARAMETER,
    INVALID_PARAMETER_CONFLICT, VPC_DESCRIPTION_MALFORMED, VPC_NAME_MALFORMED, VPC_NOT_FOUND,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use vswitch_core::config::ids::VpcId;

/// Blocks that have another meaning everywhere, so that no VPC may lie in them.
const RESERVED_BLOCKS: [Ipv4Net; 5] = [
    Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// A private network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vpc {
    /// Its IPv4 block.
    pub cidr: Ipv4Net,
    /// Its IPv6 block.
    pub ipv6_cidr: Option<Ipv6Net>,
    /// A name for people.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Destinations outside every subnet, and the ENIs they are sent to.
    pub routes: Vec<Route>,
    /// When it was made, seconds since 1970.
    pub created_s: u64,
}

impl Model {
    pub(crate) fn vpc(&self, id: &str) -> Result<(VpcId, &Vpc), ApiError> {
        let id = VpcId::from(id);
        match self.vpcs.get(&id) {
            Some(vpc) => Ok((id, vpc)),
            None => {
                Err(VPC_NOT_FOUND.error(format!("there is no VPC {id}: see sluice vpc list")).field("vpc").object(id))
            }
        }
    }

    pub(in crate::model) fn vpc_create(
        &self,
        create: &VpcCreate,
        environment: &Environment,
    ) -> Result<Vec<Event>, ApiError> {
        let id = self.choose_id(create.id.as_deref(), "vpc", environment, |id| self.vpcs.contains_key(&id.into()))?;
        let vpc = Vpc {
            cidr: vpc_block(&create.cidr)?,
            ipv6_cidr: create.ipv6_cidr.as_deref().map(vpc_ipv6_block).transpose()?,
            name: network_name(create.name.as_deref(), VPC_NAME_MALFORMED)?,
            description: description(create.description.as_deref(), 1, 256, VPC_DESCRIPTION_MALFORMED)?,
            routes: Vec::new(),
            created_s: environment.now_s,
        };
        Ok(vec![Event::Vpc(id.into(), Some(vpc))])
    }

    pub(in crate::model) fn vpc_modify(&self, modify: &VpcModify) -> Result<Vec<Event>, ApiError> {
        let (id, old) = self.vpc(&modify.vpc)?;
        let mut new = old.clone();
        if let Some(text) = &modify.name {
            new.name = network_name(Some(text), VPC_NAME_MALFORMED)?;
        }
        if let Some(text) = &modify.description {
            new.description = description(Some(text), 1, 256, VPC_DESCRIPTION_MALFORMED)?;
        }
        if let Some(text) = &modify.ipv6_cidr {
            new.ipv6_cidr = Some(first_block(old.ipv6_cidr, vpc_ipv6_block(text)?, &modify.vpc)?);
        }
        Ok(if new == *old { vec![] } else { vec![Event::Vpc(id, Some(new))] })
    }

    pub(in crate::model) fn vpc_delete(&self, delete: &VpcDelete) -> Result<Vec<Event>, ApiError> {
        let (id, _) = self.vpc(&delete.vpc)?;
        if let Some((vswitch, _)) = self.vswitches.iter().find(|(_, vswitch)| vswitch.vpc == id) {
            let message = format!("{id} has vSwitches, such as {vswitch}: delete them first");
            return Err(DEPENDENCY_VSWITCH.error(message).object(id));
        }
        if let Some((group, _)) = self.groups.iter().find(|(_, group)| group.vpc == id) {
            let message = format!("{id} has security groups, such as {group}: delete them first");
            return Err(DEPENDENCY_SECURITY_GROUP.error(message).object(id));
        }
        Ok(vec![Event::Vpc(id, None)])
    }
}

fn vpc_block(text: &str) -> Result<Ipv4Net, ApiError> {
    let IpNet::V4(cidr) = block(text, "cidr", INVALID_PARAMETER)? else {
        let message = format!("{text} is IPv6: give an IPv4 block here, and this one as ipv6_cidr");
        return Err(INVALID_PARAMETER.error(message).field("cidr"));
    };
    if !(8..=28).contains(&cidr.prefix_len()) {
        let message = format!("{text}: the block of a VPC is 8 to 28 bits long");
        return Err(INVALID_PARAMETER.error(message).field("cidr"));
    }
    if let Some(reserved) = RESERVED_BLOCKS.iter().find(|reserved| reserved.contains(&cidr) || cidr.contains(*reserved))
    {
        let message = format!("{text} overlaps {reserved}, which has another meaning: choose a private block");
        return Err(INVALID_PARAMETER.error(message).field("cidr"));
    }
    Ok(cidr)
}

fn vpc_ipv6_block(text: &str) -> Result<Ipv6Net, ApiError> {
    let field = "ipv6_cidr";
    let IpNet::V6(cidr) = block(text, field, INVALID_PARAMETER)? else {
        return Err(INVALID_PARAMETER.error(format!("{text} is IPv4: give an IPv6 block here")).field(field));
    };
    if !(16..=64).contains(&cidr.prefix_len()) {
        return Err(CIDR_BLOCK_MASK
            .error(format!("{text}: the IPv6 block of a VPC is 16 to 64 bits long"))
            .field(field));
    }
    let address = cidr.network();
    if address.is_multicast() || address.is_unicast_link_local() || address.octets()[..8] == [0; 8] {
        let message = format!("{text} is not for hosts: choose a global or a unique local block such as fd00:1::/56");
        return Err(INVALID_PARAMETER.error(message).field(field));
    }
    Ok(cidr)
}

/// An IPv6 block can be given to what has none, and is fixed from then on.
pub(in crate::model) fn first_block(old: Option<Ipv6Net>, new: Ipv6Net, id: &str) -> Result<Ipv6Net, ApiError> {
    match old {
        Some(old) if old != new => {
            let message = format!("{id} has the IPv6 block {old} already, and it cannot change");
            Err(INVALID_PARAMETER_CONFLICT.error(message).field("ipv6_cidr").object(id))
        }
        _ => Ok(new),
    }
}
