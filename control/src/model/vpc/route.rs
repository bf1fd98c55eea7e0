//! Custom routes: destinations outside every subnet of a VPC, each with the interface that packets to it go to.

use crate::command::{VpcRouteAdd, VpcRouteRemove};
use crate::environment::Environment;
use crate::error::{
    ApiError, CIDR_BLOCK_MALFORMED, CIDR_BLOCK_OVERLAPPED, ENI_VPC_MISMATCH, INSTANCE_NOT_FOUND, INVALID_DESCRIPTION,
    INVALID_PARAMETER, QUOTA_ROUTE_ENTRY, ROUTE_ENTRY_NOT_FOUND,
};
use crate::model::parse::{block, description, network_name, prefix};
use crate::model::{Event, Model};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use vswitch_core::config::ids::{EniId, VpcId, quoted};

/// A custom route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its identifier, `rte-…`; empty in old stores.
    #[serde(default)]
    pub id: String,
    /// The destination.
    pub destination: IpNet,
    /// The ENI that packets for it go to.
    pub eni: EniId,
    /// The instance to which it was requested to lead; the ENI is its primary interface.
    #[serde(default)]
    pub instance: Option<String>,
    /// A name for people.
    #[serde(default)]
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// When it was made, seconds since 1970.
    #[serde(default)]
    pub created_s: u64,
}

impl Model {
    pub(in crate::model) fn vpc_route_add(
        &self,
        add: &VpcRouteAdd,
        environment: &Environment,
    ) -> Result<Vec<Event>, ApiError> {
        let (id, old) = self.vpc(&add.vpc)?;
        let destination = block(&add.destination, "destination", CIDR_BLOCK_MALFORMED)?;
        let mut subnets = self.vswitches.iter().filter(|(_, vswitch)| vswitch.vpc == id);
        if let Some((vswitch, _)) =
            subnets.find(|(_, vswitch)| vswitch.blocks().any(|subnet| subnet.contains(&destination)))
        {
            let message = format!("{destination} lies in vSwitch {vswitch}, which is reached without a route");
            return Err(CIDR_BLOCK_OVERLAPPED.error(message).field("destination").object(id));
        }
        let eni = self.next_hop(add, &id)?;
        let before = old.routes.iter().find(|route| route.destination == destination);
        let kept = |new: &Option<String>, old: fn(&Route) -> &String| {
            new.clone().or_else(|| before.map(|route| old(route).clone()))
        };
        let taken = |id: &str| self.vpcs.values().any(|vpc| vpc.routes.iter().any(|route| route.id == id));
        let route = Route {
            id: match before
                .map(|route| &route.id)
                .filter(|id| !id.is_empty() && add.id.as_ref().is_none_or(|new| new == *id))
            {
                Some(id) => id.clone(),
                None => self.choose_id(add.id.as_deref(), "rte", environment, taken)?,
            },
            destination,
            eni,
            instance: add.instance.clone(),
            name: network_name(kept(&add.name, |route| &route.name).as_deref(), INVALID_PARAMETER)?,
            description: description(
                kept(&add.description, |route| &route.description).as_deref(),
                1,
                256,
                INVALID_DESCRIPTION,
            )?,
            created_s: before.map_or(environment.now_s, |route| route.created_s),
        };
        let mut new = old.clone();
        new.routes.retain(|route| route.destination != destination);
        new.routes.push(route);
        new.routes.sort_by_key(|route| route.destination);
        if new.routes.len() > self.quotas.routes_per_vpc_max {
            let message = format!("{id} has {} custom routes, as many as may be", old.routes.len());
            return Err(QUOTA_ROUTE_ENTRY.error(message).object(id));
        }
        Ok(if new == *old { vec![] } else { vec![Event::Vpc(id, Some(new))] })
    }

    /// The interface to which a route leads, in the route's own VPC.
    fn next_hop(&self, add: &VpcRouteAdd, vpc: &VpcId) -> Result<EniId, ApiError> {
        let (eni, router) = self.eni(&add.eni)?;
        if router.vpc != *vpc {
            let message = format!("{eni} is in {}, not in {vpc}: choose an ENI of this VPC", router.vpc);
            return Err(ENI_VPC_MISMATCH.error(message).field("eni").object(eni));
        }
        if let Some(instance) = &add.instance {
            let primary = self.instances.get(instance).and_then(|instance| instance.primary());
            if primary != Some(&eni) {
                let message = format!("{eni} is not the primary interface of an instance {}", quoted(instance));
                return Err(INSTANCE_NOT_FOUND.error(message).field("instance").object(instance));
            }
        }
        Ok(eni)
    }

    pub(in crate::model) fn vpc_route_remove(&self, remove: &VpcRouteRemove) -> Result<Vec<Event>, ApiError> {
        let (id, old) = self.vpc(&remove.vpc)?;
        let destination = prefix(&remove.destination);
        let mut new = old.clone();
        new.routes.retain(|route| Some(route.destination) != destination);
        if new == *old {
            let message = format!("{id} has no custom route to {}", quoted(&remove.destination));
            return Err(ROUTE_ENTRY_NOT_FOUND.error(message).field("destination").object(id));
        }
        Ok(vec![Event::Vpc(id, Some(new))])
    }
}
