//! The addresses of an interface: assigning, choosing and removing them. All are in the block of its subnet, and no two
//! interfaces of a subnet share one.

use crate::command::{EniAssign, EniUnassign};
use crate::error::{
    ApiError, ENI_IPV4_COUNT_EXCEEDED, ENI_IPV4_PREFIX_COUNT_EXCEEDED, ENI_IPV6_COUNT_EXCEEDED,
    ENI_IPV6_PREFIX_COUNT_EXCEEDED, INVALID_PARAMETER, IP_ASSIGNED, IP_MALFORMED, IP_NOT_ENOUGH, IP_OUTSIDE_VSWITCH,
    IP_REPEATED, IP_UNASSIGNED, IPV6_NOT_TURNED_ON, MISSING_PARAMETER,
};
use crate::model::eni::Eni;
use crate::model::parse::prefix;
use crate::model::vswitch::VSwitch;
use crate::model::{Event, Model};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vswitch_core::config::ids::{EniId, VSwitchId, quoted};

/// The lengths of delegated prefixes.
const IPV4_PREFIX_BITS: u8 = 28;
const IPV6_PREFIX_BITS: u8 = 80;

impl Model {
    pub(in crate::model) fn eni_assign(&self, assign: &EniAssign) -> Result<Vec<Event>, ApiError> {
        let (id, old) = self.eni(&assign.eni)?;
        let counts = [assign.ipv4_count, assign.ipv6_count, assign.ipv4_prefix_count, assign.ipv6_prefix_count];
        if assign.addresses.is_empty() && assign.prefixes.is_empty() && counts == [0; 4] {
            let message = "give addresses, prefixes, or a count of them";
            return Err(MISSING_PARAMETER.error(message).field("addresses"));
        }
        let mut new = old.clone();
        self.add_addresses(&id, &mut new, &assign.addresses, "addresses")?;
        self.add_prefixes(&id, &mut new, &assign.prefixes)?;
        self.add_counted(&id, &mut new, assign.ipv4_count, assign.ipv6_count)?;
        self.add_counted_prefixes(&id, &mut new, assign.ipv4_prefix_count, assign.ipv6_prefix_count)?;
        self.check_groups(Some((&id, old)), &new)?;
        Ok(vec![Event::Eni(id, Some(Box::new(new)))])
    }

    pub(in crate::model) fn eni_unassign(&self, unassign: &EniUnassign) -> Result<Vec<Event>, ApiError> {
        let (id, old) = self.eni(&unassign.eni)?;
        if unassign.addresses.is_empty() && unassign.prefixes.is_empty() {
            return Err(MISSING_PARAMETER.error("give addresses or prefixes to take").field("addresses"));
        }
        let mut new = old.clone();
        for (place, text) in unassign.addresses.iter().enumerate() {
            let field = format!("addresses[{place}]");
            let address = address(text).map_err(|error| error.field(&field))?;
            if address == IpAddr::V4(old.primary) {
                let message = format!("{address} is the primary address of {id}, which stays");
                return Err(IP_UNASSIGNED.error(message).field(field).object(id));
            }
            let removed = match address {
                IpAddr::V4(address) => new.secondary.remove(&address),
                IpAddr::V6(address) => new.ipv6.remove(&address),
            };
            if !removed {
                return Err(IP_UNASSIGNED.error(format!("{address} is not assigned to {id}")).field(field).object(id));
            }
            self.refuse_floating(&id, &new, IpNet::from(address))?;
        }
        for (place, text) in unassign.prefixes.iter().enumerate() {
            if !prefix(text).is_some_and(|prefix| new.prefixes.remove(&prefix)) {
                let message = format!("{text} is not delegated to {id}", text = quoted(text));
                return Err(IP_UNASSIGNED.error(message).field(format!("prefixes[{place}]")).object(id));
            }
            if let Some(removed) = prefix(text) {
                self.refuse_floating(&id, &new, removed)?;
            }
        }
        Ok(vec![Event::Eni(id, Some(Box::new(new)))])
    }

    /// The primary address that was requested, or the lowest free one.
    pub(in crate::model) fn primary_address(
        &self,
        vswitch_id: &VSwitchId,
        vswitch: &VSwitch,
        wanted: Option<&str>,
    ) -> Result<Ipv4Addr, ApiError> {
        let Some(text) = wanted else { return self.free_ipv4(vswitch_id, vswitch, None) };
        let within = |error: ApiError| error.field("primary_ip");
        let IpAddr::V4(address) = address(text).map_err(within)? else {
            return Err(within(IP_MALFORMED.error(format!("{text} is IPv6: the primary address is IPv4"))));
        };
        self.check_free(vswitch_id, vswitch, IpNet::V4(address.into()), None).map_err(within)?;
        Ok(address)
    }

    /// Gives an interface the addresses that were requested.
    pub(in crate::model) fn add_addresses(
        &self,
        id: &EniId,
        eni: &mut Eni,
        texts: &[String],
        field: &str,
    ) -> Result<(), ApiError> {
        let (vswitch_id, vswitch) = self.vswitch(eni.vswitch.as_str())?;
        for (place, text) in texts.iter().enumerate() {
            let within = |error: ApiError| error.field(format!("{field}[{place}]"));
            let address = address(text).map_err(within)?;
            let other_family = match field {
                "secondary_ips" => address.is_ipv6(),
                "ipv6_addresses" => address.is_ipv4(),
                _ => false,
            };
            if other_family {
                return Err(within(IP_MALFORMED.error(format!("{address} is of the other family"))));
            }
            let single = IpNet::from(address);
            if eni.prefixes_of_all().any(|own| own.contains(&single)) {
                return Err(within(IP_REPEATED.error(format!("{id} has {address} already")).object(id)));
            }
            self.check_free(&vswitch_id, vswitch, single, Some(id)).map_err(within)?;
            match address {
                IpAddr::V4(address) => eni.secondary.insert(address),
                IpAddr::V6(address) => eni.ipv6.insert(address),
            };
        }
        self.check_counts(id, eni)
    }

    /// Delegates prefixes to an interface.
    pub(in crate::model) fn add_prefixes(&self, id: &EniId, eni: &mut Eni, texts: &[String]) -> Result<(), ApiError> {
        let (vswitch_id, vswitch) = self.vswitch(eni.vswitch.as_str())?;
        for (place, text) in texts.iter().enumerate() {
            let within = |error: ApiError| error.field(format!("prefixes[{place}]"));
            let delegated = prefix(text).filter(|prefix| prefix.trunc() == *prefix).filter(|prefix| match prefix {
                IpNet::V4(prefix) => prefix.prefix_len() == IPV4_PREFIX_BITS,
                IpNet::V6(prefix) => prefix.prefix_len() == IPV6_PREFIX_BITS,
            });
            let Some(delegated) = delegated else {
                let message = format!(
                    "{text} is not a prefix to delegate: an IPv4 /28 or IPv6 /80 without host bits",
                    text = quoted(text)
                );
                return Err(within(INVALID_PARAMETER.error(message)));
            };
            if eni.prefixes_of_all().any(|own| own.contains(&delegated) || delegated.contains(&own)) {
                return Err(within(
                    IP_REPEATED.error(format!("{id} has {delegated} or a part of it already")).object(id),
                ));
            }
            self.check_free(&vswitch_id, vswitch, delegated, Some(id)).map_err(within)?;
            let is_kept = vswitch.reservation_of(delegated).is_some_and(|kept| kept.cidr.contains(&delegated));
            if !is_kept && vswitch.reserves(delegated.addr().is_ipv6()) {
                let message = format!("{delegated} is in none of the parts of {vswitch_id} that are kept for prefixes");
                return Err(within(IP_OUTSIDE_VSWITCH.error(message).object(&vswitch_id)));
            }
            eni.prefixes.insert(delegated);
        }
        self.check_counts(id, eni)
    }

    /// Gives an interface the lowest free addresses.
    pub(in crate::model) fn add_counted(&self, id: &EniId, eni: &mut Eni, ipv4: u8, ipv6: u8) -> Result<(), ApiError> {
        let (vswitch_id, vswitch) = self.vswitch(eni.vswitch.as_str())?;
        for _ in 0..ipv4 {
            let address = self.free_ipv4(&vswitch_id, vswitch, Some(eni)).map_err(|error| error.field("ipv4_count"))?;
            eni.secondary.insert(address);
            self.check_counts(id, eni)?;
        }
        for _ in 0..ipv6 {
            let address = self.free_ipv6(&vswitch_id, vswitch, eni).map_err(|error| error.field("ipv6_count"))?;
            eni.ipv6.insert(address);
            self.check_counts(id, eni)?;
        }
        Ok(())
    }

    /// Delegates the lowest free prefixes to an interface.
    fn add_counted_prefixes(&self, id: &EniId, eni: &mut Eni, ipv4: u8, ipv6: u8) -> Result<(), ApiError> {
        let (vswitch_id, vswitch) = self.vswitch(eni.vswitch.as_str())?;
        let wanted = [("ipv4_prefix_count", ipv4, Some(vswitch.cidr.into()), IPV4_PREFIX_BITS)].into_iter().chain([(
            "ipv6_prefix_count",
            ipv6,
            vswitch.ipv6_cidr.map(IpNet::V6),
            IPV6_PREFIX_BITS,
        )]);
        for (field, count, block, bits) in wanted {
            for _ in 0..count {
                let Some(block) = block else { return Err(no_ipv6(&vswitch_id)) };
                // Once a subnet has reservations, prefixes are taken from these alone.
                let kept = vswitch.reservations.values().map(|kept| kept.cidr);
                let kept = kept.filter(|kept| kept.addr().is_ipv6() == block.addr().is_ipv6());
                let sources: Vec<IpNet> =
                    if vswitch.reserves(block.addr().is_ipv6()) { kept.collect() } else { vec![block] };
                let free = sources.iter().find_map(|source| {
                    source.subnets(bits).ok()?.find(|prefix| {
                        let apart = |own: IpNet| !own.contains(prefix) && !prefix.contains(&own);
                        eni.prefixes_of_all().all(apart)
                            && ![prefix.network(), prefix.broadcast()].iter().any(|end| vswitch.is_reserved(*end))
                            && self.index.holder(&vswitch_id, *prefix).is_none()
                    })
                });
                let none = || IP_NOT_ENOUGH.error(format!("{vswitch_id} has no free /{bits} left")).object(&vswitch_id);
                eni.prefixes.insert(free.ok_or_else(none).map_err(|error| error.field(field))?);
                self.check_counts(id, eni)?;
            }
        }
        Ok(())
    }

    fn check_counts(&self, id: &EniId, eni: &Eni) -> Result<(), ApiError> {
        let quotas = &self.quotas;
        let ipv4_prefixes = eni.prefixes.iter().filter(|prefix| prefix.addr().is_ipv4()).count();
        for (count, most, kind, what) in [
            (
                eni.secondary.len(),
                quotas.secondary_ipv4_per_eni_max,
                ENI_IPV4_COUNT_EXCEEDED,
                "secondary IPv4 addresses",
            ),
            (eni.ipv6.len(), quotas.ipv6_per_eni_max, ENI_IPV6_COUNT_EXCEEDED, "IPv6 addresses"),
            (ipv4_prefixes, quotas.prefixes_per_eni_max, ENI_IPV4_PREFIX_COUNT_EXCEEDED, "delegated IPv4 prefixes"),
            (
                eni.prefixes.len() - ipv4_prefixes,
                quotas.prefixes_per_eni_max,
                ENI_IPV6_PREFIX_COUNT_EXCEEDED,
                "delegated IPv6 prefixes",
            ),
        ] {
            if count > most {
                return Err(kind.error(format!("{id} would have {count} {what}, at most {most} may be")).object(id));
            }
        }
        Ok(())
    }

    /// Refuses addresses that are outside the subnet, reserved, or in use by another interface.
    fn check_free(
        &self,
        vswitch_id: &VSwitchId,
        vswitch: &VSwitch,
        wanted: IpNet,
        own: Option<&EniId>,
    ) -> Result<(), ApiError> {
        let block = match wanted {
            IpNet::V4(_) => IpNet::V4(vswitch.cidr),
            IpNet::V6(_) => vswitch.ipv6_cidr.map(IpNet::V6).ok_or_else(|| no_ipv6(vswitch_id))?,
        };
        let show = |prefix: IpNet| match prefix.prefix_len() == prefix.max_prefix_len() {
            true => prefix.addr().to_string(),
            false => prefix.to_string(),
        };
        if !block.contains(&wanted) {
            let message = format!("{} is not inside {block}, the block of {vswitch_id}", show(wanted));
            return Err(IP_OUTSIDE_VSWITCH.error(message).object(vswitch_id));
        }
        if vswitch.is_reserved(wanted.network()) || vswitch.is_reserved(wanted.broadcast()) {
            let message = format!("{}: the first and the last three addresses of {block} are reserved", show(wanted));
            return Err(IP_OUTSIDE_VSWITCH.error(message).object(vswitch_id));
        }
        if let Some(holder) = self.index.holder(vswitch_id, wanted).filter(|holder| Some(*holder) != own) {
            let message = format!("{} belongs to {holder}: choose another address", show(wanted));
            return Err(IP_ASSIGNED.error(message).object(holder));
        }
        Ok(())
    }

    fn free_ipv4(&self, id: &VSwitchId, vswitch: &VSwitch, own: Option<&Eni>) -> Result<Ipv4Addr, ApiError> {
        let first = u32::from(vswitch.cidr.network()) + 1;
        let free = (first..u32::from(vswitch.gateway())).map(Ipv4Addr::from).find(|address| {
            let single = IpNet::V4((*address).into());
            let is_own = own.is_some_and(|eni| eni.prefixes_of_all().any(|own| own.contains(&single)));
            !is_own && self.index.holder(id, single).is_none() && vswitch.reservation_of(single).is_none()
        });
        free.ok_or_else(|| IP_NOT_ENOUGH.error(format!("{id} has no free IPv4 address left")).object(id))
    }

    fn free_ipv6(&self, id: &VSwitchId, vswitch: &VSwitch, own: &Eni) -> Result<Ipv6Addr, ApiError> {
        let Some(block) = vswitch.ipv6_cidr else { return Err(no_ipv6(id)) };
        let first = u128::from(block.network()) + 1;
        // Taken prefixes are skipped as a whole: a delegated /80 is too large to walk through.
        let mut next = first;
        while let Some(taken) = self.taken_at(id, own, Ipv6Addr::from(next)).or(kept_at(vswitch, next)) {
            next = taken.saturating_add(1);
        }
        let address = Ipv6Addr::from(next);
        if !block.contains(&address) || vswitch.is_reserved(IpAddr::V6(address)) {
            return Err(IP_NOT_ENOUGH.error(format!("{id} has no free IPv6 address left")).object(id));
        }
        Ok(address)
    }

    /// The last address of the taken prefix that contains an address.
    fn taken_at(&self, id: &VSwitchId, own: &Eni, address: Ipv6Addr) -> Option<u128> {
        let single = IpNet::V6(address.into());
        let of_own = own.prefixes_of_all().find(|prefix| prefix.contains(&single));
        let last = of_own.map(|prefix| prefix.broadcast()).or_else(|| self.index.end_of_taken(id, single));
        match last? {
            IpAddr::V6(last) => Some(u128::from(last)),
            IpAddr::V4(_) => None,
        }
    }
}

/// The last address of the reservation that contains an address.
fn kept_at(vswitch: &VSwitch, address: u128) -> Option<u128> {
    match vswitch.reservation_of(IpNet::V6(Ipv6Addr::from(address).into()))?.cidr.broadcast() {
        IpAddr::V6(last) => Some(u128::from(last)),
        IpAddr::V4(_) => None,
    }
}

fn no_ipv6(id: &VSwitchId) -> ApiError {
    let message = format!("{id} has no IPv6 block: give it one first with sluice vswitch modify");
    IPV6_NOT_TURNED_ON.error(message).object(id)
}

fn address(text: &str) -> Result<IpAddr, ApiError> {
    text.parse().map_err(|_| {
        IP_MALFORMED.error(format!("{text} is not an address: write one like 10.0.0.7", text = quoted(text)))
    })
}
