//! Private networks: their blocks here, their custom routes in [`route`], their peerings in [`peering`].

pub(crate) mod dhcp;
mod peering;
mod route;

pub use peering::Peering;
pub use route::Route;

use super::parse::{block, description, network_name};
use super::{Event, Model};
use crate::command::{VpcCreate, VpcDelete, VpcModify};
use crate::environment::Environment;
use crate::error::{
    ApiError, CIDR_BLOCK_IN_USE, CIDR_BLOCK_MASK, CIDR_BLOCK_NOT_FOUND, CIDR_BLOCK_OVERLAPPED, DEPENDENCY_NAT_GATEWAY,
    DEPENDENCY_PEERING, DEPENDENCY_SECURITY_GROUP, DEPENDENCY_UPLINK, DEPENDENCY_VSWITCH, INVALID_PARAMETER,
    QUOTA_CIDR_BLOCK, VPC_DESCRIPTION_MALFORMED, VPC_NAME_MALFORMED, VPC_NOT_FOUND,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use vswitch_core::config::ids::VpcId;

/// Blocks with a special meaning, in which no VPC may be.
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
    /// Additional IPv4 blocks, in the order in which they were added.
    #[serde(default)]
    pub secondary_cidrs: Vec<Ipv4Net>,
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

impl Vpc {
    /// All its IPv4 blocks, its own first.
    pub fn ipv4_cidrs(&self) -> impl Iterator<Item = Ipv4Net> {
        std::iter::once(self.cidr).chain(self.secondary_cidrs.iter().copied())
    }

    /// Whether a block lies in one of its blocks.
    pub(in crate::model) fn holds(&self, block: IpNet) -> bool {
        match block {
            IpNet::V4(block) => self.ipv4_cidrs().any(|own| own.contains(&block)),
            IpNet::V6(block) => self.ipv6_cidr.is_some_and(|own| own.contains(&block)),
        }
    }
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
            cidr: vpc_block(&create.cidr, "cidr")?,
            secondary_cidrs: Vec::new(),
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
        if let Some(text) = &modify.cidr {
            new.cidr = vpc_block(text, "cidr")?;
        }
        match modify.ipv6_cidr.as_deref() {
            Some("") => new.ipv6_cidr = None,
            Some(text) => new.ipv6_cidr = Some(vpc_ipv6_block(text)?),
            None => {}
        }
        self.change_secondary(&id, &mut new, modify)?;
        self.refuse_bare_subnets(&id, &new)?;
        Ok(if new == *old { vec![] } else { vec![Event::Vpc(id, Some(new))] })
    }

    /// Removes and adds additional blocks of a VPC.
    fn change_secondary(&self, id: &VpcId, vpc: &mut Vpc, modify: &VpcModify) -> Result<(), ApiError> {
        for (place, text) in modify.remove_cidrs.iter().enumerate() {
            let field = format!("remove_cidrs[{place}]");
            let cidr = vpc_block(text, &field)?;
            let Some(found) = vpc.secondary_cidrs.iter().position(|other| *other == cidr) else {
                let message = format!("{cidr} is none of the secondary blocks of {id}");
                return Err(CIDR_BLOCK_NOT_FOUND.error(message).field(field).object(id));
            };
            vpc.secondary_cidrs.remove(found);
        }
        for (place, text) in modify.add_cidrs.iter().enumerate() {
            vpc.secondary_cidrs.push(vpc_block(text, &format!("add_cidrs[{place}]"))?);
        }
        let most = self.quotas.secondary_cidrs_per_vpc_max;
        if vpc.secondary_cidrs.len() > most {
            let message =
                format!("{id} would have {} secondary blocks, at most {most} may be", vpc.secondary_cidrs.len());
            return Err(QUOTA_CIDR_BLOCK.error(message).field("add_cidrs").object(id));
        }
        let all: Vec<Ipv4Net> = vpc.ipv4_cidrs().collect();
        for (place, one) in all.iter().enumerate() {
            if let Some(other) = all[..place].iter().find(|other| other.contains(one) || one.contains(*other)) {
                let message = format!("{one} overlaps {other}, another block of {id}");
                return Err(CIDR_BLOCK_OVERLAPPED.error(message).field("add_cidrs").object(id));
            }
        }
        Ok(())
    }

    /// Refuses blocks of a VPC that do not contain all its subnets.
    fn refuse_bare_subnets(&self, id: &VpcId, vpc: &Vpc) -> Result<(), ApiError> {
        for (vswitch_id, vswitch) in self.vswitches.iter().filter(|(_, vswitch)| vswitch.vpc == *id) {
            if let Some(block) = vswitch.blocks().find(|block| !vpc.holds(*block)) {
                let message = format!("{block} of vSwitch {vswitch_id} is in use: {id} needs a block that holds it");
                let field = if block.addr().is_ipv6() { "ipv6_cidr" } else { "cidr" };
                return Err(CIDR_BLOCK_IN_USE.error(message).field(field).object(id));
            }
        }
        Ok(())
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
        if let Some((uplink, _)) = self.uplink_of(&id) {
            let message = format!("{id} leaves by {uplink}: delete it first");
            return Err(DEPENDENCY_UPLINK.error(message).object(id));
        }
        if let Some((nat, _)) = self.nat_gateways.iter().find(|(_, nat)| nat.vpc == id) {
            let message = format!("{id} has NAT gateways, such as {nat}: delete them first");
            return Err(DEPENDENCY_NAT_GATEWAY.error(message).object(id));
        }
        if let Some(peer) = self.peers_of(&id).next() {
            let message = format!("{id} is a peer of {peer}: delete the peering first");
            return Err(DEPENDENCY_PEERING.error(message).object(&id));
        }
        Ok(vec![Event::Vpc(id, None)])
    }
}

fn vpc_block(text: &str, field: &str) -> Result<Ipv4Net, ApiError> {
    let IpNet::V4(cidr) = block(text, field, INVALID_PARAMETER)? else {
        let message = format!("{text} is IPv6: give an IPv4 block here, and this one as ipv6_cidr");
        return Err(INVALID_PARAMETER.error(message).field(field));
    };
    if !(8..=28).contains(&cidr.prefix_len()) {
        let message = format!("{text}: the block of a VPC is 8 to 28 bits long");
        return Err(INVALID_PARAMETER.error(message).field(field));
    }
    if let Some(reserved) = RESERVED_BLOCKS.iter().find(|reserved| reserved.contains(&cidr) || cidr.contains(*reserved))
    {
        let message = format!("{text} overlaps {reserved}, which has another meaning: choose a private block");
        return Err(INVALID_PARAMETER.error(message).field(field));
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
