//! Floating addresses (EIPs): external addresses of customers, each of which stands for one private address or belongs to
//! a NAT gateway.

use crate::command::{EipAllocate, EipAssociate, EipModify, EipRelease, EipUnassociate};
use crate::environment::Environment;
use crate::error::{
    ApiError, EIP_ADDRESS, EIP_DUPLICATED, EIP_IN_USE, EIP_NOT_ENOUGH, EIP_NOT_FOUND, EIP_STATUS, EIP_TARGET_NOT_FOUND,
    INVALID_DESCRIPTION, INVALID_PARAMETER, IP_UNASSIGNED, NAT_NAME,
};
use crate::model::metadata::Holder;
use crate::model::parse::{block, description, network_name};
use crate::model::{Eni, Event, Model};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use vswitch_core::config::ids::{EniId, VpcId, quoted};

/// External addresses where nobody names others. RFC 2544 reserves the block for tests, so it is nobody's on the Internet.
pub const DEFAULT_POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15);

/// The attribute of an instance that holds its public address, which stands for the primary one.
pub(crate) const PUBLIC_ADDRESS: &str = "PublicIpAddress";

/// A floating address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Eip {
    /// The address.
    pub address: Ipv4Addr,
    /// What it stands for, if anything.
    pub target: Option<EipTarget>,
    /// A name for people.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// When it was taken, seconds since 1970.
    pub created_s: u64,
}

/// What a floating address stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum EipTarget {
    /// A private address.
    Eni {
        /// The ENI that has it.
        eni: EniId,
        /// The address.
        private: Ipv4Addr,
        /// The instance that was named, whose primary ENI it is.
        instance: Option<String>,
    },
    /// What the entries of a NAT gateway say.
    Nat(String),
}

impl Eip {
    /// The NAT gateway that it belongs to.
    pub(crate) fn nat(&self) -> Option<&str> {
        match &self.target {
            Some(EipTarget::Nat(nat)) => Some(nat),
            Some(EipTarget::Eni { .. }) | None => None,
        }
    }

    /// The ENI and the private address that it stands for.
    pub(crate) fn end(&self) -> Option<(&EniId, Ipv4Addr)> {
        match &self.target {
            Some(EipTarget::Eni { eni, private, .. }) => Some((eni, *private)),
            Some(EipTarget::Nat(_)) | None => None,
        }
    }
}

impl Model {
    pub(crate) fn eip(&self, id: &str) -> Result<&Eip, ApiError> {
        self.eips.get(id).ok_or_else(|| {
            let message = format!("there is no floating address {id}: see sluice eip list", id = quoted(id));
            EIP_NOT_FOUND.error(message).field("eip").object(id)
        })
    }

    /// The floating addresses of an ENI.
    pub(crate) fn eips_of(&self, eni: &EniId) -> impl Iterator<Item = (&String, &Eip)> {
        self.eips.iter().filter(move |(_, eip)| eip.end().is_some_and(|(of, _)| of == eni))
    }

    /// The VPC in which a floating address stands for something.
    pub(crate) fn vpc_of_eip<'a>(&'a self, eip: &Eip) -> Option<&'a VpcId> {
        match eip.target.as_ref()? {
            EipTarget::Eni { eni, .. } => self.enis.get(eni).map(|eni| &eni.vpc),
            EipTarget::Nat(nat) => self.nat_gateways.get(nat).map(|nat| &nat.vpc),
        }
    }

    /// The floating addresses that stand for something in a VPC.
    pub(in crate::model) fn external_addresses_of(&self, vpc: &VpcId) -> impl Iterator<Item = Ipv4Addr> {
        self.eips.values().filter(move |eip| self.vpc_of_eip(eip) == Some(vpc)).map(|eip| eip.address)
    }

    /// The public address of an instance, which it has without a floating one.
    pub(crate) fn public_address_of(&self, instance: &str) -> Option<Ipv4Addr> {
        self.label(instance).attribute(PUBLIC_ADDRESS).parse().ok()
    }

    /// External addresses that nobody else may get.
    pub(crate) fn taken_external_addresses(&self) -> BTreeSet<Ipv4Addr> {
        let public = self.labels.values().filter_map(|label| label.attribute(PUBLIC_ADDRESS).parse().ok());
        let links = self.uplinks.values().filter_map(|uplink| uplink.ipv4);
        let links = links.flat_map(|link| [link.address.addr(), link.next_hop]);
        self.eips.values().map(|eip| eip.address).chain(public).chain(links).collect()
    }

    pub(in crate::model) fn eip_allocate(
        &self,
        allocate: &EipAllocate,
        holder: Holder<'_>,
        environment: &Environment,
    ) -> Result<Vec<Event>, ApiError> {
        let id = self.choose_id(allocate.id.as_deref(), "eip", environment, |id| self.eips.contains_key(id))?;
        let eip = Eip {
            address: self.free_external_address(allocate, holder)?,
            target: None,
            name: network_name(allocate.name.as_deref(), NAT_NAME)?,
            description: description(allocate.description.as_deref(), 1, 256, INVALID_DESCRIPTION)?,
            created_s: environment.now_s,
        };
        Ok(vec![Event::Eip(id, Some(eip))])
    }

    fn free_external_address(&self, allocate: &EipAllocate, holder: Holder<'_>) -> Result<Ipv4Addr, ApiError> {
        let taken = self.taken_external_addresses();
        let all = || self.uplinks.values().flat_map(|uplink| uplink.addresses.iter().copied());
        let fallback = || match allocate.pool.as_deref() {
            None => Ok(DEFAULT_POOL),
            Some(text) => match block(text, "pool", INVALID_PARAMETER)? {
                IpNet::V4(block) => Ok(block),
                IpNet::V6(_) => Err(INVALID_PARAMETER.error("floating addresses are IPv4").field("pool")),
            },
        };
        if let Some(text) = &allocate.address {
            let address: Option<Ipv4Addr> = text.parse().ok();
            let fallback = fallback()?;
            let address = address.filter(|address| all().chain([fallback]).any(|block| block.contains(address)));
            return address.filter(|address| !taken.contains(address)).ok_or_else(|| {
                let message = format!("{text} is no free address of an uplink's blocks", text = quoted(text));
                EIP_ADDRESS.error(message).field("address")
            });
        }
        let own = self.uplinks.values().filter(|uplink| self.label(uplink.vpc.as_str()).owner == holder.owner);
        let mut blocks: BTreeSet<Ipv4Net> = own.flat_map(|uplink| uplink.addresses.iter().copied()).collect();
        if blocks.is_empty() {
            blocks.insert(fallback()?);
        }
        let free = blocks.into_iter().flat_map(|block| block.hosts()).find(|address| !taken.contains(address));
        free.ok_or_else(|| EIP_NOT_ENOUGH.error("no external address is free: give the uplink more with --addresses"))
    }

    pub(in crate::model) fn eip_modify(&self, modify: &EipModify) -> Result<Vec<Event>, ApiError> {
        let old = self.eip(&modify.eip)?;
        let mut new = old.clone();
        if let Some(text) = &modify.name {
            new.name = network_name(Some(text), NAT_NAME)?;
        }
        if let Some(text) = &modify.description {
            new.description = description(Some(text), 1, 256, INVALID_DESCRIPTION)?;
        }
        Ok(if new == *old { vec![] } else { vec![Event::Eip(modify.eip.clone(), Some(new))] })
    }

    pub(in crate::model) fn eip_associate(&self, associate: &EipAssociate) -> Result<Vec<Event>, ApiError> {
        let old = self.eip(&associate.eip)?;
        let target = self.target_of(associate)?;
        let new = Eip { target: Some(target), ..old.clone() };
        if new == *old {
            return Ok(vec![]);
        }
        if old.target.is_some() {
            let message = format!("{} stands for something already: unassociate it first", old.address);
            return Err(EIP_STATUS.error(message).object(&associate.eip));
        }
        if let Some((eni, private)) = new.end() {
            self.refuse_other_floating(eni, private)?;
        }
        let vpc = self.vpc_of_eip(&new);
        if let Some((uplink, _)) = vpc.and_then(|vpc| self.uplink_of(vpc)).filter(|(_, it)| !it.holds(old.address)) {
            let message = format!("{} is in none of the blocks of {uplink}, by which its VPC leaves", old.address);
            return Err(EIP_ADDRESS.error(message).field("eip").object(&associate.eip));
        }
        Ok(vec![Event::Eip(associate.eip.clone(), Some(new))])
    }

    fn target_of(&self, associate: &EipAssociate) -> Result<EipTarget, ApiError> {
        let EipAssociate { target, private_ip, .. } = associate;
        if self.nat_gateways.contains_key(target) {
            return match private_ip {
                None => Ok(EipTarget::Nat(target.clone())),
                Some(_) => {
                    let message = "a NAT gateway has no private address: leave it out";
                    Err(INVALID_PARAMETER.error(message).field("private_ip"))
                }
            };
        }
        let instance = self.instances.get(target).map(|_| target.clone());
        let primary = self.instances.get(target).and_then(|instance| instance.primary().cloned());
        let id = primary.unwrap_or_else(|| EniId::from(target.as_str()));
        let Some(eni) = self.enis.get(&id) else {
            let message = format!("there is no ENI, instance or NAT gateway {target}", target = quoted(target));
            return Err(EIP_TARGET_NOT_FOUND.error(message).field("target").object(target));
        };
        let private = match private_ip {
            None => eni.primary,
            Some(text) => text.parse().ok().filter(|address| has(eni, *address)).ok_or_else(|| {
                let message = format!("{text} is no IPv4 address of {id}", text = quoted(text));
                IP_UNASSIGNED.error(message).field("private_ip").object(&id)
            })?,
        };
        Ok(EipTarget::Eni { eni: id, private, instance })
    }

    fn refuse_other_floating(&self, eni: &EniId, private: Ipv4Addr) -> Result<(), ApiError> {
        let is_primary = self.enis.get(eni).is_some_and(|eni| eni.primary == private);
        let public = self.instance_of(eni).filter(|(_, instance)| is_primary && instance.primary() == Some(eni));
        let public = public.and_then(|(id, _)| self.public_address_of(id));
        let other = self.eips_of(eni).map(|(_, eip)| eip).find(|eip| eip.end() == Some((eni, private)));
        match other.map(|eip| eip.address).or(public) {
            Some(address) => {
                let message = format!("{address} stands for {private} of {eni} already: an address has one outside");
                Err(EIP_DUPLICATED.error(message).field("target").object(eni))
            }
            None => Ok(()),
        }
    }

    pub(in crate::model) fn eip_unassociate(&self, unassociate: &EipUnassociate) -> Result<Vec<Event>, ApiError> {
        let id = &unassociate.eip;
        let eip = self.eip(id)?;
        if eip.target.is_none() {
            return Ok(vec![]);
        }
        let mut events = match eip.nat() {
            Some(nat) => self.entries_without(nat, eip.address),
            None => Vec::new(),
        };
        if let Some(event) = events.first().filter(|_| !unassociate.force) {
            let message = format!("{} is used by {}: remove that first, or force it", eip.address, event.id());
            return Err(EIP_IN_USE.error(message).object(id));
        }
        events.push(Event::Eip(id.clone(), Some(Eip { target: None, ..eip.clone() })));
        Ok(events)
    }

    pub(in crate::model) fn eip_release(&self, release: &EipRelease) -> Result<Vec<Event>, ApiError> {
        let eip = self.eip(&release.eip)?;
        if eip.target.is_some() {
            let message = format!("{} stands for something: unassociate it first", eip.address);
            return Err(EIP_STATUS.error(message).object(&release.eip));
        }
        Ok(vec![Event::Eip(release.eip.clone(), None)])
    }

    /// Lets floating addresses follow interfaces that end, move to another subnet, or leave their instance.
    pub(in crate::model) fn follow_enis(&self, events: &mut Vec<Event>) {
        let mut changed: BTreeMap<&String, Eip> = BTreeMap::new();
        for event in events.iter() {
            let Event::Eni(id, eni) = event else { continue };
            for (eip_id, eip) in self.eips_of(id) {
                let Some(EipTarget::Eni { private, instance, .. }) = &eip.target else { continue };
                let target = eni.as_ref().map(|eni| EipTarget::Eni {
                    eni: id.clone(),
                    private: if has(eni, *private) { *private } else { eni.primary },
                    instance: instance.clone().filter(|named| eni.instance.as_ref() == Some(named)),
                });
                if target != eip.target {
                    changed.insert(eip_id, Eip { target, ..eip.clone() });
                }
            }
        }
        let changed: Vec<Event> = changed.into_iter().map(|(id, eip)| Event::Eip(id.clone(), Some(eip))).collect();
        events.extend(changed);
    }

    /// Refuses to take an address from an interface while a floating one stands for it.
    pub(in crate::model) fn refuse_floating(&self, id: &EniId, eni: &Eni, removed: IpNet) -> Result<(), ApiError> {
        let stays = |private: Ipv4Addr| has(eni, private) || !removed.contains(&IpAddr::V4(private));
        match self.eips_of(id).find(|(_, eip)| eip.end().is_some_and(|(_, private)| !stays(private))) {
            Some((eip, _)) => {
                let message =
                    format!("the floating address {eip} stands for an address of {removed}: unassociate it first");
                Err(EIP_STATUS.error(message).object(id))
            }
            None => Ok(()),
        }
    }
}

fn has(eni: &Eni, address: Ipv4Addr) -> bool {
    eni.prefixes_of_all().any(|prefix| prefix.contains(&IpAddr::V4(address)))
}
