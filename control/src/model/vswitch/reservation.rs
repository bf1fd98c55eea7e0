//! Reservations: parts of a subnet's block for delegated prefixes, from which no single addresses are assigned.

use super::VSwitch;
use crate::command::{VswitchReservationModify, VswitchReserve, VswitchUnreserve};
use crate::environment::Environment;
use crate::error::{
    ApiError, CIDR_BLOCK_IN_USE, CIDR_BLOCK_MALFORMED, CIDR_BLOCK_MASK, CIDR_BLOCK_OVERLAPPED, ErrorKind,
    INVALID_DESCRIPTION, INVALID_PARAMETER, IP_NOT_ENOUGH, IPV6_NOT_TURNED_ON, MISSING_PARAMETER, QUOTA_CIDR_BLOCK,
    RESERVATION_NOT_FOUND,
};
use crate::model::parse::{block, description, name};
use crate::model::{Event, Model};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use vswitch_core::config::ids::VSwitchId;

/// The longest prefixes of reservations: as long as the prefixes that are delegated from them.
const IPV4_BITS_MAX: u8 = 28;
const IPV6_BITS_MAX: u8 = 80;

/// A part of a subnet's block that is reserved for prefixes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reservation {
    /// The block.
    pub cidr: IpNet,
    /// A name for people.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// When it was made, seconds since 1970.
    pub created_s: u64,
}

impl Reservation {
    /// The length of the prefixes that are delegated from it.
    pub fn prefix_bits(&self) -> u8 {
        if self.cidr.addr().is_ipv6() { IPV6_BITS_MAX } else { IPV4_BITS_MAX }
    }
}

impl VSwitch {
    /// The reservation that overlaps a prefix.
    pub(in crate::model) fn reservation_of(&self, prefix: IpNet) -> Option<&Reservation> {
        self.reservations.values().find(|kept| kept.cidr.contains(&prefix) || prefix.contains(&kept.cidr))
    }

    /// Whether prefixes of a family are delegated from reservations only, which is so as soon as there is one.
    pub(in crate::model) fn reserves(&self, ipv6: bool) -> bool {
        self.reservations.values().any(|kept| kept.cidr.addr().is_ipv6() == ipv6)
    }
}

impl Model {
    fn reservation(&self, vswitch: &str, id: &str) -> Result<(VSwitchId, &VSwitch, &Reservation), ApiError> {
        let (vswitch_id, vswitch) = self.vswitch(vswitch)?;
        match vswitch.reservations.get(id) {
            Some(found) => Ok((vswitch_id, vswitch, found)),
            None => {
                let message = format!("{vswitch_id} has no reservation of this name");
                Err(RESERVATION_NOT_FOUND.error(message).field("reservation").object(id))
            }
        }
    }

    pub(in crate::model) fn vswitch_reserve(
        &self,
        reserve: &VswitchReserve,
        environment: &Environment,
    ) -> Result<Vec<Event>, ApiError> {
        let (vswitch_id, vswitch) = self.vswitch(&reserve.vswitch)?;
        let taken = |id: &str| self.vswitches.values().any(|vswitch| vswitch.reservations.contains_key(id));
        let id = self.choose_id(reserve.id.as_deref(), "vcr", environment, taken)?;
        let cidr = match (&reserve.cidr, reserve.mask) {
            (Some(text), None) => self.reserved_block(text, &vswitch_id, vswitch)?,
            (None, Some(bits)) => self.free_block(bits, reserve.ipv6, &vswitch_id, vswitch)?,
            (None, None) => return Err(MISSING_PARAMETER.error("give a block or its length").field("cidr")),
            (Some(_), Some(_)) => {
                return Err(INVALID_PARAMETER.error("give a block or its length, not both").field("mask"));
            }
        };
        let most = self.quotas.reservations_per_vswitch_max;
        if vswitch.reservations.len() >= most {
            let message = format!("{vswitch_id} has {most} reservations, as many as may be");
            return Err(QUOTA_CIDR_BLOCK.error(message).object(vswitch_id));
        }
        let reservation = Reservation {
            cidr,
            name: name(reserve.name.as_deref(), INVALID_PARAMETER)?,
            description: description(reserve.description.as_deref(), 1, 256, INVALID_DESCRIPTION)?,
            tags: reserve.tags.clone(),
            created_s: environment.now_s,
        };
        let mut new = vswitch.clone();
        new.reservations.insert(id, reservation);
        Ok(vec![Event::VSwitch(vswitch_id, Some(new))])
    }

    /// The block of a family in a subnet, and the longest prefix that can be reserved in it.
    fn block_of(id: &VSwitchId, vswitch: &VSwitch, ipv6: bool) -> Result<(IpNet, u8), ApiError> {
        match (ipv6, vswitch.ipv6_cidr) {
            (false, _) => Ok((IpNet::V4(vswitch.cidr), IPV4_BITS_MAX)),
            (true, Some(block)) => Ok((IpNet::V6(block), IPV6_BITS_MAX)),
            (true, None) => Err(IPV6_NOT_TURNED_ON.error(format!("{id} has no IPv6 block")).object(id)),
        }
    }

    fn reserved_block(&self, text: &str, id: &VSwitchId, vswitch: &VSwitch) -> Result<IpNet, ApiError> {
        let refuse = |kind: ErrorKind, message: String| Err(kind.error(message).field("cidr").object(id));
        let cidr = block(text, "cidr", CIDR_BLOCK_MALFORMED)?;
        let (whole, most) = Self::block_of(id, vswitch, cidr.addr().is_ipv6())?;
        if !whole.contains(&cidr) || cidr == whole {
            return refuse(INVALID_PARAMETER, format!("{cidr} is not part of {whole}, the block of {id}"));
        }
        if cidr.prefix_len() > most {
            return refuse(CIDR_BLOCK_MASK, format!("{cidr}: a block that is kept is at most {most} bits long"));
        }
        if vswitch.reservation_of(cidr).is_some() {
            return refuse(CIDR_BLOCK_OVERLAPPED, format!("{cidr} overlaps another reservation of {id}"));
        }
        Ok(cidr)
    }

    /// The first unused block of a length, preferably one whose prefixes can all be used.
    fn free_block(&self, bits: u8, ipv6: bool, id: &VSwitchId, vswitch: &VSwitch) -> Result<IpNet, ApiError> {
        let (whole, most) = Self::block_of(id, vswitch, ipv6)?;
        if bits <= whole.prefix_len() || bits > most {
            let message = format!("{bits}: a block that is kept is {} to {most} bits long", whole.prefix_len() + 1);
            return Err(CIDR_BLOCK_MASK.error(message).field("mask").object(id));
        }
        let is_free =
            |block: &IpNet| vswitch.reservation_of(*block).is_none() && self.index.holder(id, *block).is_none();
        let is_whole =
            |block: &IpNet| ![block.network(), block.broadcast()].iter().any(|end| vswitch.is_reserved(*end));
        let blocks = || whole.subnets(bits).into_iter().flatten().filter(is_free);
        let found = blocks().find(is_whole).or_else(|| blocks().next());
        found.ok_or_else(|| IP_NOT_ENOUGH.error(format!("{id} has no free /{bits} left")).field("mask").object(id))
    }

    pub(in crate::model) fn vswitch_reservation_modify(
        &self,
        modify: &VswitchReservationModify,
    ) -> Result<Vec<Event>, ApiError> {
        let (id, vswitch, old) = self.reservation(&modify.vswitch, &modify.reservation)?;
        let mut new = old.clone();
        if let Some(text) = &modify.name {
            new.name = name(Some(text), INVALID_PARAMETER)?;
        }
        if let Some(text) = &modify.description {
            new.description = description(Some(text), 1, 256, INVALID_DESCRIPTION)?;
        }
        if new == *old {
            return Ok(vec![]);
        }
        let mut changed = vswitch.clone();
        changed.reservations.insert(modify.reservation.clone(), new);
        Ok(vec![Event::VSwitch(id, Some(changed))])
    }

    pub(in crate::model) fn vswitch_unreserve(&self, unreserve: &VswitchUnreserve) -> Result<Vec<Event>, ApiError> {
        let (id, vswitch, old) = self.reservation(&unreserve.vswitch, &unreserve.reservation)?;
        let delegates =
            |eni: &crate::model::Eni| eni.vswitch == id && eni.prefixes.iter().any(|prefix| old.cidr.contains(prefix));
        if let Some((eni, _)) = self.enis.iter().find(|(_, eni)| delegates(eni)) {
            let message = format!("{eni} has prefixes of {}: unassign them first", old.cidr);
            return Err(CIDR_BLOCK_IN_USE.error(message).object(&unreserve.reservation));
        }
        let mut new = vswitch.clone();
        new.reservations.remove(&unreserve.reservation);
        Ok(vec![Event::VSwitch(id, Some(new))])
    }
}
