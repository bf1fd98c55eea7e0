//! Entries for sources (SNAT) of NAT gateways: private addresses, and the external ones that stand for them.

use crate::command::{SnatAdd, SnatModify, SnatRemove};
use crate::environment::Environment;
use crate::error::{
    ApiError, INVALID_PARAMETER, MISSING_PARAMETER, NAT_NAME, QUOTA_SNAT, SNAT_ADDRESS, SNAT_DUPLICATED, SNAT_NOT_FOUND,
};
use crate::model::parse::{block, network_name};
use crate::model::{Event, Model};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use vswitch_core::config::ids::{VSwitchId, quoted};

/// An entry for sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnatEntry {
    /// The NAT gateway.
    pub nat: String,
    /// The private addresses.
    pub source: Ipv4Net,
    /// The subnet that was named, whose block it is.
    pub vswitch: Option<VSwitchId>,
    /// The external addresses.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// A name for people.
    pub name: String,
    /// When it was made, seconds since 1970.
    pub created_s: u64,
}

impl Model {
    pub(crate) fn snat(&self, id: &str) -> Result<&SnatEntry, ApiError> {
        self.snat_entries.get(id).ok_or_else(|| {
            let message = format!("there is no entry {id}: see sluice nat list", id = quoted(id));
            SNAT_NOT_FOUND.error(message).field("snat").object(id)
        })
    }

    pub(in crate::model) fn snat_add(&self, add: &SnatAdd, environment: &Environment) -> Result<Vec<Event>, ApiError> {
        let taken = |id: &str| self.snat_entries.contains_key(id);
        let id = self.choose_id(add.id.as_deref(), "snat", environment, taken)?;
        let nat = self.nat(&add.nat)?;
        let (source, vswitch) = match (&add.vswitch, &add.cidr) {
            (Some(text), None) => {
                let (vswitch_id, vswitch) = self.vswitch(text)?;
                if vswitch.vpc != nat.vpc {
                    let message = format!("{vswitch_id} is in {}, the NAT gateway in {}", vswitch.vpc, nat.vpc);
                    return Err(INVALID_PARAMETER.error(message).field("vswitch").object(vswitch_id));
                }
                (vswitch.cidr, Some(vswitch_id))
            }
            (None, Some(text)) => match block(text, "cidr", INVALID_PARAMETER)? {
                IpNet::V4(source) => (source, None),
                IpNet::V6(_) => return Err(INVALID_PARAMETER.error("IPv6 is not translated").field("cidr")),
            },
            (None, None) => (Ipv4Net::default(), None),
            (Some(_), Some(_)) => {
                return Err(INVALID_PARAMETER.error("give a subnet or a block, not both").field("cidr"));
            }
        };
        let same = |nat_id: &str| self.nat_gateways.get(nat_id).is_some_and(|other| other.vpc == nat.vpc);
        let mut others = self.snat_entries.iter().filter(|(_, entry)| same(&entry.nat));
        if let Some((other, _)) = others.find(|(_, entry)| entry.source == source) {
            let message = format!("{other} says already to what {source} is translated");
            return Err(SNAT_DUPLICATED.error(message).object(other));
        }
        let most = self.quotas.snat_entries_per_nat_max;
        if self.snat_entries_of(&add.nat).count() >= most {
            return Err(QUOTA_SNAT.error(format!("it has {most} entries, as many as may be")).object(&add.nat));
        }
        let addresses = match add.addresses.is_empty() {
            true => self.eips_of_nat(&add.nat).map(|(_, eip)| eip.address).collect(),
            false => self.addresses_of_nat(&add.nat, &add.addresses)?,
        };
        if addresses.is_empty() {
            let message = format!("{} has no floating address: associate one first", add.nat);
            return Err(MISSING_PARAMETER.error(message).field("addresses"));
        }
        let name = network_name(add.name.as_deref(), NAT_NAME)?;
        let entry = SnatEntry { nat: add.nat.clone(), source, vswitch, addresses, name, created_s: environment.now_s };
        Ok(vec![Event::SnatEntry(id, Some(entry))])
    }

    /// External addresses, all of which belong to a NAT gateway.
    fn addresses_of_nat(&self, nat: &str, texts: &[String]) -> Result<BTreeSet<Ipv4Addr>, ApiError> {
        let own: BTreeSet<Ipv4Addr> = self.eips_of_nat(nat).map(|(_, eip)| eip.address).collect();
        let addresses = texts.iter().map(|text| {
            text.parse().ok().filter(|address| own.contains(address)).ok_or_else(|| {
                let message = format!("{text} is no floating address of {nat}", text = quoted(text));
                SNAT_ADDRESS.error(message).field("addresses").object(nat)
            })
        });
        addresses.collect()
    }

    pub(in crate::model) fn snat_modify(&self, modify: &SnatModify) -> Result<Vec<Event>, ApiError> {
        let old = self.snat(&modify.snat)?;
        let mut new = old.clone();
        if let Some(texts) = modify.addresses.as_ref().filter(|texts| !texts.is_empty()) {
            new.addresses = self.addresses_of_nat(&old.nat, texts)?;
        }
        if let Some(text) = &modify.name {
            new.name = network_name(Some(text), NAT_NAME)?;
        }
        Ok(if new == *old { vec![] } else { vec![Event::SnatEntry(modify.snat.clone(), Some(new))] })
    }

    pub(in crate::model) fn snat_remove(&self, remove: &SnatRemove) -> Result<Vec<Event>, ApiError> {
        self.snat(&remove.snat)?;
        Ok(vec![Event::SnatEntry(remove.snat.clone(), None)])
    }
}
