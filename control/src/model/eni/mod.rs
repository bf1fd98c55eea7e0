//! Network interfaces (`semantics.md` §1.2, §4.2).

mod address;

use super::metadata::Holder;
use super::parse::{description, name};
use super::{Event, Model};
use crate::command::{EniAttach, EniCreate, EniDelete, EniDetach, EniModify, TimeoutsChange, USER_DATA_BYTES_MAX};
use crate::environment::Environment;
use crate::error::{
    ApiError, DEPENDENCY_ROUTE_ENTRY, ENI_NAME_MALFORMED, ENI_NOT_FOUND, ENI_STATE, ENI_TIMEOUTS, INVALID_DESCRIPTION,
    INVALID_PARAMETER, INVALID_PARAMETER_CONFLICT,
};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use vswitch_core::config::desired::{self, DesiredPort, Timeouts, Tracking};
use vswitch_core::config::ids::{EniId, GroupId, MacAddress, VSwitchId, VpcId, quoted};
use vswitch_core::config::limits::{MTU_BYTES_MAX, MTU_BYTES_MIN};
use vswitch_core::config::rate_limits::RateLimits;
use vswitch_core::config::validate::check_socket;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Eni {
    /// The VPC of its subnet.
    pub vpc: VpcId,
    /// Its subnet.
    pub vswitch: VSwitchId,
    /// Its hardware address.
    pub mac: MacAddress,
    /// Its primary IPv4 address.
    pub primary: Ipv4Addr,
    /// Its secondary IPv4 addresses.
    pub secondary: BTreeSet<Ipv4Addr>,
    /// Its IPv6 addresses.
    pub ipv6: BTreeSet<Ipv6Addr>,
    /// Prefixes delegated to it.
    pub prefixes: BTreeSet<IpNet>,
    /// The groups it is a member of.
    pub groups: BTreeSet<GroupId>,
    /// Whether its packets must have its own address as their source or destination. If unset they must, and blocks
    /// that a custom route sends to it count as its own.
    pub source_dest_check: Option<bool>,
    /// How long its sessions may idle.
    pub timeouts: Timeouts,
    /// The most sessions it may hold at once.
    pub sessions_max: u32,
    /// Limits on its sessions, and checks in addition to the rules.
    #[serde(default)]
    pub tracking: Tracking,
    /// How much it may send and receive.
    #[serde(default)]
    pub rate_limits: RateLimits,
    /// The instance it belongs to, if any.
    pub instance: Option<String>,
    /// A name for people.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// User data for its guest, as text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user_data: String,
    /// Its port, if it has one.
    pub port: Option<DesiredPort>,
    /// Whether it is deleted with the instance it is attached to.
    #[serde(default = "released")]
    pub delete_on_release: bool,
    /// When it was made, seconds since 1970.
    pub created_s: u64,
}

fn released() -> bool {
    true
}

impl Eni {
    /// All its addresses, the primary one first, and its delegated prefixes.
    pub fn prefixes_of_all(&self) -> impl Iterator<Item = IpNet> {
        let primary = IpNet::V4(Ipv4Net::from(self.primary));
        let secondary = self.secondary.iter().map(|address| IpNet::V4((*address).into()));
        let ipv6 = self.ipv6.iter().map(|address| IpNet::V6((*address).into()));
        std::iter::once(primary).chain(secondary).chain(ipv6).chain(self.prefixes.iter().copied())
    }
}

/// User data as it is given, unless it is too long.
fn user_data(text: Option<&str>) -> Result<Option<String>, ApiError> {
    match text {
        Some(text) if text.len() > USER_DATA_BYTES_MAX => {
            let message = format!("user data of more than {USER_DATA_BYTES_MAX} bytes: have the guest fetch the rest");
            Err(INVALID_PARAMETER.error(message).field("user_data"))
        }
        text => Ok(text.map(ToOwned::to_owned)),
    }
}

impl Model {
    pub(crate) fn eni(&self, id: &str) -> Result<(EniId, &Eni), ApiError> {
        let id = EniId::from(id);
        match self.enis.get(&id) {
            Some(eni) => Ok((id, eni)),
            None => {
                let message = format!("there is no network interface {id}: see sluice eni list");
                Err(ENI_NOT_FOUND.error(message).field("eni").object(id))
            }
        }
    }

    pub(super) fn eni_create(
        &self,
        create: &EniCreate,
        holder: Holder<'_>,
        environment: &Environment,
    ) -> Result<Vec<Event>, ApiError> {
        let id = self.choose_id(create.id.as_deref(), "eni", environment, |id| self.enis.contains_key(&id.into()))?;
        let id = EniId::from(id);
        let (vswitch_id, vswitch) = self.vswitch(&create.vswitch)?;
        let (groups, events) = match create.groups.is_empty() {
            true => {
                let (group, events) = self.default_group(&vswitch.vpc, holder.owner, environment)?;
                (BTreeSet::from([group]), events)
            }
            false => (self.group_set(&create.groups)?, vec![]),
        };
        let mut eni = Eni {
            vpc: vswitch.vpc.clone(),
            primary: self.primary_address(&vswitch_id, vswitch, create.primary_ip.as_deref())?,
            vswitch: vswitch_id,
            mac: self.choose_mac(create.mac.as_deref(), &vswitch.vpc, environment)?,
            secondary: BTreeSet::new(),
            ipv6: BTreeSet::new(),
            prefixes: BTreeSet::new(),
            groups,
            source_dest_check: create.source_dest_check,
            timeouts: timeouts(Timeouts::default(), create.timeouts.as_ref())?,
            sessions_max: sessions_max(create.sessions_max)?.unwrap_or(desired::DesiredEni::default_sessions_max()),
            tracking: create.tracking.clone().unwrap_or_default().over(Tracking::default()),
            rate_limits: create.rate_limits.clone().unwrap_or_default().over(RateLimits::default()),
            instance: create.instance.clone().filter(|instance| !instance.is_empty()),
            name: name(create.name.as_deref(), ENI_NAME_MALFORMED)?,
            description: description(create.description.as_deref(), 2, 256, INVALID_DESCRIPTION)?,
            user_data: user_data(create.user_data.as_deref())?.unwrap_or_default(),
            port: create.port.clone(),
            delete_on_release: create.delete_on_release.unwrap_or(true),
            created_s: environment.now_s,
        };
        self.add_addresses(&id, &mut eni, &create.secondary_ips, "secondary_ips")?;
        self.add_addresses(&id, &mut eni, &create.ipv6_addresses, "ipv6_addresses")?;
        self.add_prefixes(&id, &mut eni, &create.prefixes)?;
        self.add_counted(&id, &mut eni, 0, create.ipv6_count)?;
        if let Some(port) = &create.port {
            self.check_port(&id, port)?;
        }
        if events.is_empty() {
            self.check_groups(None, &eni)?;
        }
        Ok(events.into_iter().chain([Event::Eni(id, Some(Box::new(eni)))]).collect())
    }

    pub(super) fn eni_modify(&self, modify: &EniModify) -> Result<Vec<Event>, ApiError> {
        let (id, old) = self.eni(&modify.eni)?;
        let mut new = old.clone();
        if let Some(check) = modify.source_dest_check {
            new.source_dest_check = Some(check);
        }
        new.delete_on_release = modify.delete_on_release.unwrap_or(old.delete_on_release);
        new.timeouts = timeouts(old.timeouts, modify.timeouts.as_ref())?;
        new.sessions_max = sessions_max(modify.sessions_max)?.unwrap_or(old.sessions_max);
        new.tracking = modify.tracking.clone().unwrap_or_default().over(old.tracking);
        new.rate_limits = modify.rate_limits.clone().unwrap_or_default().over(old.rate_limits);
        if let Some(text) = &modify.name {
            new.name = name(Some(text), ENI_NAME_MALFORMED)?;
        }
        if let Some(text) = &modify.description {
            new.description = description(Some(text), 2, 256, INVALID_DESCRIPTION)?;
        }
        if let Some(text) = user_data(modify.user_data.as_deref())? {
            new.user_data = text;
        }
        if let Some(groups) = &modify.groups {
            new.groups = self.group_set(groups)?;
            self.check_groups(Some((&id, old)), &new)?;
        }
        Ok(if new == *old { vec![] } else { vec![Event::Eni(id, Some(Box::new(new)))] })
    }

    pub(super) fn eni_delete(&self, delete: &EniDelete) -> Result<Vec<Event>, ApiError> {
        let (id, eni) = self.eni(&delete.eni)?;
        self.refuse_of_instance(&id)?;
        if eni.port.is_some() && !delete.force {
            let message = format!("{id} is attached to a port: detach it first, or force the deletion");
            return Err(ENI_STATE.error(message).object(id));
        }
        self.refuse_routed(&id, eni)?;
        Ok(vec![Event::Eni(id, None)])
    }

    /// Refuses to remove an interface to which a custom route leads.
    pub(super) fn refuse_routed(&self, id: &EniId, eni: &Eni) -> Result<(), ApiError> {
        let route = self.vpcs.get(&eni.vpc).and_then(|vpc| vpc.routes.iter().find(|route| route.eni == *id));
        if let Some(route) = route {
            let message = format!("{} of {} is routed to {id}: remove the route first", route.destination, eni.vpc);
            return Err(DEPENDENCY_ROUTE_ENTRY.error(message).object(id));
        }
        Ok(())
    }

    pub(super) fn eni_attach(&self, attach: &EniAttach) -> Result<Vec<Event>, ApiError> {
        let (id, old) = self.eni(&attach.eni)?;
        if old.port.as_ref() == Some(&attach.port) {
            return Ok(vec![]);
        }
        if old.port.is_some() {
            return Err(ENI_STATE.error(format!("{id} is attached to another port: detach it first")).object(id));
        }
        self.check_port(&id, &attach.port)?;
        let new = Eni { port: Some(attach.port.clone()), ..old.clone() };
        Ok(vec![Event::Eni(id, Some(Box::new(new)))])
    }

    pub(super) fn eni_detach(&self, detach: &EniDetach) -> Result<Vec<Event>, ApiError> {
        let (id, old) = self.eni(&detach.eni)?;
        if old.port.is_none() {
            return Ok(vec![]);
        }
        let new = Eni { port: None, ..old.clone() };
        Ok(vec![Event::Eni(id, Some(Box::new(new)))])
    }

    fn choose_mac(&self, wanted: Option<&str>, vpc: &VpcId, environment: &Environment) -> Result<MacAddress, ApiError> {
        let gateway = desired::DesiredVpc::default_gateway_mac();
        let Some(text) = wanted else {
            loop {
                let mac = environment.new_mac();
                if mac != gateway && !self.index.has_mac(vpc, mac) {
                    return Ok(mac);
                }
            }
        };
        let refuse = |message: String| INVALID_PARAMETER.error(message).field("mac");
        let mac: MacAddress =
            text.parse().map_err(|error| refuse(format!("{text} is {error}", text = quoted(text))))?;
        if mac.is_group() || mac == MacAddress::default() || mac == gateway {
            return Err(refuse(format!("{mac} cannot be an interface's: choose one like 02:00:00:00:00:01")));
        }
        if self.index.has_mac(vpc, mac) {
            return Err(refuse(format!("{mac} belongs to another interface of {vpc}: choose another one")));
        }
        Ok(mac)
    }

    /// Refuses a port that is invalid or used by another ENI.
    pub(super) fn check_port(&self, id: &EniId, port: &DesiredPort) -> Result<(), ApiError> {
        if let Some((device, namespace)) = port.device() {
            check_device(port, device, namespace)?;
        }
        check_socket(port).map_err(|message| INVALID_PARAMETER.error(message).field("port"))?;
        let mtu_bytes = port.mtu_bytes();
        if !(MTU_BYTES_MIN..=MTU_BYTES_MAX).contains(&usize::from(mtu_bytes)) {
            let message = format!("{mtu_bytes}: an MTU is {MTU_BYTES_MIN} to {MTU_BYTES_MAX} bytes");
            return Err(INVALID_PARAMETER.error(message).field("port.mtu_bytes"));
        }
        let Some(resource) = port.resource() else { return Ok(()) };
        let same = |other: &DesiredPort| other.resource() == Some(resource);
        let enis = self.enis.iter().filter(|(_, eni)| eni.port.as_ref().is_some_and(same)).map(|(id, _)| id.clone());
        let uplinks = self.uplinks.iter().filter(|(_, uplink)| same(&uplink.port)).map(|(id, _)| id.interface());
        if let Some(holder) = enis.chain(uplinks).find(|other| other != id) {
            let (kind, field) = if port.socket_path().is_some() { ("socket", "path") } else { ("device", "device") };
            let name = resource.0;
            let message = format!("{kind} {name} belongs to {holder}: choose another name, or detach that one");
            return Err(INVALID_PARAMETER_CONFLICT.error(message).field(format!("port.{field}")).object(holder));
        }
        Ok(())
    }
}

fn check_device(port: &DesiredPort, device: &str, namespace: Option<&str>) -> Result<(), ApiError> {
    let refuse = |field: &str, message: String| Err(INVALID_PARAMETER.error(message).field(format!("port.{field}")));
    let is_name = |text: &str, most: usize| {
        let letters = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"/%:".contains(&byte));
        letters && (1..=most).contains(&text.len()) && text != "." && text != ".."
    };
    if !is_name(device, 15) {
        return refuse(
            "device",
            format!(
                "{device} is not a valid device name: 1 to 15 letters without / : % and spaces",
                device = quoted(device)
            ),
        );
    }
    if let Some(name) = namespace.filter(|name| !is_name(name, 64)) {
        return refuse("namespace", format!("{name} is not a valid name of a namespace", name = quoted(name)));
    }
    if matches!(port, DesiredPort::Tap(tap) if tap.create_namespace && tap.namespace.is_none()) {
        return refuse("create_namespace", "which namespace? give its name as namespace".into());
    }
    Ok(())
}

fn sessions_max(value: Option<u32>) -> Result<Option<u32>, ApiError> {
    match value {
        Some(0) => {
            let message = "0 sessions would let nothing pass: allow at least 1, or detach the interface";
            Err(INVALID_PARAMETER.error(message).field("sessions_max"))
        }
        value => Ok(value),
    }
}

fn one_of(seconds: &[u16]) -> String {
    format!("one of {}", seconds.iter().map(u16::to_string).collect::<Vec<_>>().join(", "))
}

fn timeouts(old: Timeouts, change: Option<&TimeoutsChange>) -> Result<Timeouts, ApiError> {
    let Some(change) = change else { return Ok(old) };
    let refuse = |field: &str, value: u16, allowed: String| {
        let message = format!("{value} s is not a possible timeout: choose {allowed}");
        ENI_TIMEOUTS.error(message).field(format!("timeouts.{field}"))
    };
    let new = change.over(old);
    if !Timeouts::TCP_ESTABLISHED_S.contains(&new.tcp_established_s) {
        let allowed = one_of(&Timeouts::TCP_ESTABLISHED_S);
        return Err(refuse("tcp_established_s", new.tcp_established_s, allowed));
    }
    let (least, most) = Timeouts::TCP_CLOSED_S;
    if !(least..=most).contains(&new.tcp_closed_s) {
        return Err(refuse("tcp_closed_s", new.tcp_closed_s, format!("{least} to {most}")));
    }
    if !Timeouts::UDP_S.contains(&new.udp_s) {
        return Err(refuse("udp_s", new.udp_s, one_of(&Timeouts::UDP_S)));
    }
    Ok(new)
}
