//! NAT gateways: whose entries say how the private addresses of a VPC are translated.

use crate::command::{NatCreate, NatDelete, NatModify};
use crate::environment::Environment;
use crate::error::{ApiError, INVALID_DESCRIPTION, INVALID_PARAMETER, NAT_IN_USE, NAT_NAME, NAT_NOT_FOUND, QUOTA_NAT};
use crate::model::parse::{description, network_name};
use crate::model::{Eip, Event, ForwardEntry, Model, SnatEntry};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use vswitch_core::config::ids::{VSwitchId, VpcId, quoted};

/// A NAT gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatGateway {
    /// The VPC.
    pub vpc: VpcId,
    /// The subnet it is placed in, without effect.
    pub vswitch: Option<VSwitchId>,
    /// A name for people.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// When it was made, seconds since 1970.
    pub created_s: u64,
}

impl Model {
    pub(crate) fn nat(&self, id: &str) -> Result<&NatGateway, ApiError> {
        self.nat_gateways.get(id).ok_or_else(|| {
            let message = format!("there is no NAT gateway {id}: see sluice nat list", id = quoted(id));
            NAT_NOT_FOUND.error(message).field("nat").object(id)
        })
    }

    /// The floating addresses of a NAT gateway.
    pub(crate) fn eips_of_nat(&self, nat: &str) -> impl Iterator<Item = (&String, &Eip)> {
        self.eips.iter().filter(move |(_, eip)| eip.nat() == Some(nat))
    }

    /// The entries for sources of a NAT gateway.
    pub(crate) fn snat_entries_of(&self, nat: &str) -> impl Iterator<Item = (&String, &SnatEntry)> {
        self.snat_entries.iter().filter(move |(_, entry)| entry.nat == nat)
    }

    /// The forwards of a NAT gateway.
    pub(crate) fn forwards_of(&self, nat: &str) -> impl Iterator<Item = (&String, &ForwardEntry)> {
        self.forwards.iter().filter(move |(_, forward)| forward.nat.as_deref() == Some(nat))
    }

    pub(in crate::model) fn nat_create(
        &self,
        create: &NatCreate,
        environment: &Environment,
    ) -> Result<Vec<Event>, ApiError> {
        let id = self.choose_id(create.id.as_deref(), "ngw", environment, |id| self.nat_gateways.contains_key(id))?;
        let (vpc, _) = self.vpc(&create.vpc)?;
        let vswitch = match &create.vswitch {
            Some(text) => {
                let (vswitch_id, vswitch) = self.vswitch(text)?;
                if vswitch.vpc != vpc {
                    let message = format!("{vswitch_id} is in {}, not in {vpc}", vswitch.vpc);
                    return Err(INVALID_PARAMETER.error(message).field("vswitch").object(vswitch_id));
                }
                Some(vswitch_id)
            }
            None => None,
        };
        let most = self.quotas.nat_gateways_per_vpc_max;
        if self.nat_gateways.values().filter(|nat| nat.vpc == vpc).count() >= most {
            let message = format!("{vpc} has {most} NAT gateways, as many as may be");
            return Err(QUOTA_NAT.error(message).object(vpc));
        }
        let nat = NatGateway {
            vpc,
            vswitch,
            name: network_name(create.name.as_deref(), NAT_NAME)?,
            description: description(create.description.as_deref(), 1, 256, INVALID_DESCRIPTION)?,
            created_s: environment.now_s,
        };
        Ok(vec![Event::NatGateway(id, Some(nat))])
    }

    pub(in crate::model) fn nat_modify(&self, modify: &NatModify) -> Result<Vec<Event>, ApiError> {
        let old = self.nat(&modify.nat)?;
        let mut new = old.clone();
        if let Some(text) = &modify.name {
            new.name = network_name(Some(text), NAT_NAME)?;
        }
        if let Some(text) = &modify.description {
            new.description = description(Some(text), 1, 256, INVALID_DESCRIPTION)?;
        }
        Ok(if new == *old { vec![] } else { vec![Event::NatGateway(modify.nat.clone(), Some(new))] })
    }

    pub(in crate::model) fn nat_delete(&self, delete: &NatDelete) -> Result<Vec<Event>, ApiError> {
        let id = &delete.nat;
        self.nat(id)?;
        let snats = self.snat_entries_of(id).map(|(entry, _)| Event::SnatEntry(entry.clone(), None));
        let forwards = self.forwards_of(id).map(|(forward, _)| Event::Forward(forward.clone(), None));
        let eips = self.eips_of_nat(id).map(|(eip, object)| {
            let free = Eip { target: None, ..object.clone() };
            Event::Eip(eip.clone(), Some(free))
        });
        let mut events: Vec<Event> = snats.chain(forwards).chain(eips).collect();
        if let Some(event) = events.first().filter(|_| !delete.force) {
            let message = format!("{id} has entries or floating addresses, such as {}: remove them first", event.id());
            return Err(NAT_IN_USE.error(message).object(id));
        }
        events.push(Event::NatGateway(id.clone(), None));
        Ok(events)
    }

    /// What becomes of the entries of a NAT gateway that use an external address, once it is gone.
    pub(in crate::model) fn entries_without(&self, nat: &str, address: Ipv4Addr) -> Vec<Event> {
        let snats = self.snat_entries_of(nat).filter(|(_, entry)| entry.addresses.contains(&address));
        let snats = snats.map(|(id, entry)| {
            let mut left = entry.clone();
            left.addresses.remove(&address);
            Event::SnatEntry(id.clone(), Some(left).filter(|left| !left.addresses.is_empty()))
        });
        let forwards = self.forwards_of(nat).filter(|(_, forward)| forward.external == address);
        snats.chain(forwards.map(|(id, _)| Event::Forward(id.clone(), None))).collect()
    }
}
