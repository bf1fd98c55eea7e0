//! Peerings: two VPCs that reach each other's subnets directly.

use crate::command::{PeeringCreate, PeeringDelete};
use crate::environment::Environment;
use crate::error::{
    ApiError, CIDR_BLOCK_OVERLAPPED, INVALID_DESCRIPTION, INVALID_PARAMETER, PEERING_DUPLICATED, PEERING_NOT_FOUND,
};
use crate::model::parse::{description, network_name};
use crate::model::{Event, Model};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use vswitch_core::config::ids::{VSwitchId, VpcId, quoted};

/// A peering.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peering {
    /// The VPC that asked for it.
    pub vpc: VpcId,
    /// The other.
    pub peer: VpcId,
    /// A name for people.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// When it was made, seconds since 1970.
    pub created_s: u64,
}

impl Peering {
    /// The VPC at the other end.
    pub(crate) fn other_end(&self, vpc: &VpcId) -> Option<&VpcId> {
        match (self.vpc == *vpc, self.peer == *vpc) {
            (true, _) => Some(&self.peer),
            (_, true) => Some(&self.vpc),
            (false, false) => None,
        }
    }
}

impl Model {
    /// The VPCs that a VPC reaches directly.
    pub(crate) fn peers_of(&self, vpc: &VpcId) -> impl Iterator<Item = &VpcId> {
        self.peerings.values().filter_map(move |peering| peering.other_end(vpc))
    }

    /// The blocks of a VPC's subnets.
    pub(crate) fn subnets_of(&self, vpc: &VpcId) -> impl Iterator<Item = (&VSwitchId, IpNet)> {
        let own = self.vswitches.iter().filter(move |(_, vswitch)| vswitch.vpc == *vpc);
        own.flat_map(|(id, vswitch)| vswitch.blocks().map(move |block| (id, block)))
    }

    pub(in crate::model) fn peering_create(
        &self,
        create: &PeeringCreate,
        environment: &Environment,
    ) -> Result<Vec<Event>, ApiError> {
        let id = self.choose_id(create.id.as_deref(), "pcc", environment, |id| self.peerings.contains_key(id))?;
        let (vpc, _) = self.vpc(&create.vpc)?;
        let (peer, _) = self.vpc(&create.peer).map_err(|error| error.field("peer"))?;
        if vpc == peer {
            return Err(INVALID_PARAMETER.error("a VPC is no peer of its own").field("peer").object(peer));
        }
        if self.peers_of(&vpc).any(|present| *present == peer) {
            return Err(PEERING_DUPLICATED.error(format!("{vpc} and {peer} are peers already")).object(peer));
        }
        for (_, block) in self.subnets_of(&vpc) {
            self.refuse_ambiguous(block, &peer, &vpc, "peer")?;
        }
        for (_, block) in self.subnets_of(&peer) {
            self.refuse_ambiguous(block, &vpc, &peer, "peer")?;
        }
        let peering = Peering {
            vpc,
            peer,
            name: network_name(create.name.as_deref(), INVALID_PARAMETER)?,
            description: description(create.description.as_deref(), 1, 256, INVALID_DESCRIPTION)?,
            created_s: environment.now_s,
        };
        Ok(vec![Event::Peering(id, Some(peering))])
    }

    pub(in crate::model) fn peering_delete(&self, delete: &PeeringDelete) -> Result<Vec<Event>, ApiError> {
        let id = &delete.peering;
        if !self.peerings.contains_key(id) {
            let message = format!("there is no peering {id}: see sluice peering list", id = quoted(id));
            return Err(PEERING_NOT_FOUND.error(message).field("peering").object(id));
        }
        Ok(vec![Event::Peering(id.clone(), None)])
    }

    /// Refuses a new subnet's block that a peer of its VPC could not tell from another.
    pub(in crate::model) fn refuse_peered(&self, block: IpNet, vpc: &VpcId, field: &str) -> Result<(), ApiError> {
        self.peers_of(vpc).try_for_each(|peer| self.refuse_ambiguous(block, peer, vpc, field))
    }

    /// Refuses a block of `vpc` that overlaps what `peer` has, or reaches at its other peers.
    fn refuse_ambiguous(&self, block: IpNet, peer: &VpcId, vpc: &VpcId, field: &str) -> Result<(), ApiError> {
        let others = self.peers_of(peer).filter(|other| *other != vpc);
        let mut reached = std::iter::once(peer).chain(others).flat_map(|reached| self.subnets_of(reached));
        match reached.find(|(_, other)| other.contains(&block) || block.contains(other)) {
            Some((vswitch, other)) => {
                let message = format!("{block} of {vpc} overlaps {other} of {vswitch}, which {peer} reaches too");
                Err(CIDR_BLOCK_OVERLAPPED.error(message).field(field).object(vswitch))
            }
            None => Ok(()),
        }
    }
}
