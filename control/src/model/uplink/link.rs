//! The link of an uplink: its port, and the addresses at both ends.

use crate::command::{UplinkCreate, UplinkKind};
use crate::environment::Environment;
use crate::error::{ApiError, INVALID_PARAMETER, INVALID_PARAMETER_CONFLICT, IP_NOT_ENOUGH, MISSING_PARAMETER};
use crate::model::Model;
use crate::model::parse::prefix;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vswitch_core::config::desired::{DesiredPort, MacvtapPort, PacketPort, StreamPort, TapPort};
use vswitch_core::config::ids::{MacAddress, UplinkId, quoted};
use vswitch_core::config::uplink::{UplinkIpv4, UplinkIpv6};

/// The links to hosts are in this block, four addresses each. No VPC may contain it, it is not forwarded beyond the machine,
/// and the metadata services of clouds (169.254.169.254) are elsewhere.
const HOST_LINKS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 64, 0), 18);
const HOST_LINK_BITS: u8 = 30;
/// The IPv6 links to hosts, chosen at random once (RFC 4193).
const HOST_LINKS_IPV6: [u16; 3] = [0xfd53, 0x6c75, 0x6963];
/// Bytes of a device's name.
const DEVICE_BYTES_MAX: usize = 15;

/// What an uplink is attached to, and the addresses there.
pub(super) struct UplinkLink {
    pub(super) port: DesiredPort,
    pub(super) next_hop_mac: Option<MacAddress>,
    pub(super) ipv4: Option<UplinkIpv4>,
    pub(super) ipv6: Option<UplinkIpv6>,
}

/// The IPv6 side of a link to a host, by its IPv4 side.
pub(super) fn ipv6_of(ipv4: UplinkIpv4) -> Option<UplinkIpv6> {
    let [_, _, high, low] = ipv4.address.network().octets();
    let [a, b, c] = HOST_LINKS_IPV6;
    let address = |host: u16| Ipv6Addr::new(a, b, c, u16::from_be_bytes([high, low]), 0, 0, 0, host);
    Some(UplinkIpv6 { address: Ipv6Net::new(address(2), 64).ok()?, next_hop: address(1) })
}

impl Model {
    pub(super) fn link_of(
        &self,
        create: &UplinkCreate,
        id: &UplinkId,
        environment: &Environment,
    ) -> Result<UplinkLink, ApiError> {
        let kind = create.kind.unwrap_or_default();
        refuse_foreign(create, kind)?;
        let mtu_bytes = create.mtu.unwrap_or(TapPort::default_mtu_bytes());
        let namespace = create.namespace.clone();
        let port = match kind {
            UplinkKind::Host => {
                let device = create.device.clone().unwrap_or_else(|| device_of(id));
                let create_namespace = namespace.is_some();
                DesiredPort::Tap(TapPort { device, namespace, create_namespace, configure: true, mtu_bytes })
            }
            UplinkKind::Interface => {
                let device = needed(create.device.as_ref(), "device", "name the interface")?;
                DesiredPort::Packet(PacketPort { device, namespace, mtu_bytes })
            }
            UplinkKind::Stream => {
                let path = needed(create.stream.as_ref(), "stream", "name the socket")?;
                let (is_client, socket_user) = (create.client, create.socket_user.clone());
                DesiredPort::Stream(StreamPort { path, is_client, socket_user, mtu_bytes })
            }
            UplinkKind::Macvtap => {
                let lower_device = needed(create.device.as_ref(), "device", "name the device whose network it is on")?;
                let (device, lower_namespace) = (device_of(id), namespace);
                DesiredPort::Macvtap(MacvtapPort { device, lower_device, lower_namespace, mtu_bytes })
            }
        };
        self.check_uplink_port(id, &port)?;
        if kind == UplinkKind::Host {
            let ipv4 = Some(self.free_host_link()?);
            return Ok(UplinkLink { port, next_hop_mac: Some(environment.new_mac()), ipv4, ipv6: None });
        }
        let (ipv4, ipv6) = given_addresses(create)?;
        Ok(UplinkLink { port, next_hop_mac: None, ipv4, ipv6 })
    }

    /// Refuses a port that is invalid or used by an ENI or another uplink.
    fn check_uplink_port(&self, id: &UplinkId, port: &DesiredPort) -> Result<(), ApiError> {
        self.check_port(&id.interface(), port).map_err(|error| {
            let field = error.field.as_deref().map(|field| field.trim_start_matches("port.").to_owned());
            ApiError { field, ..error }
        })
    }

    fn free_host_link(&self) -> Result<UplinkIpv4, ApiError> {
        let is_taken = |link: &Ipv4Net| {
            let mut others = self.uplinks.values().filter_map(|uplink| uplink.ipv4);
            others.any(|other| link.contains(&other.address.addr()))
        };
        let mut links = HOST_LINKS.subnets(HOST_LINK_BITS).into_iter().flatten();
        let link = links.find(|link| !is_taken(link));
        let none = || IP_NOT_ENOUGH.error("there are as many host uplinks as there is room for");
        let mut hosts = link.ok_or_else(none)?.hosts();
        let (next_hop, own) = hosts.next().zip(hosts.next()).ok_or_else(none)?;
        let address = Ipv4Net::new(own, HOST_LINK_BITS).map_err(|_| none())?;
        Ok(UplinkIpv4 { address, next_hop })
    }
}

/// A device name after an identifier.
fn device_of(id: &UplinkId) -> String {
    let text = id.as_str();
    if text.len() <= DEVICE_BYTES_MAX {
        return text.into();
    }
    // `upl-` and twelve made-up characters are one too long.
    text.chars().filter(|letter| *letter != '-').take(DEVICE_BYTES_MAX).collect()
}

fn needed(given: Option<&String>, field: &str, message: &str) -> Result<String, ApiError> {
    given.cloned().ok_or_else(|| MISSING_PARAMETER.error(message).field(field))
}

/// Refuses what belongs to another kind of uplink.
fn refuse_foreign(create: &UplinkCreate, kind: UplinkKind) -> Result<(), ApiError> {
    use UplinkKind::{Host, Interface, Macvtap, Stream};
    let addresses: &[UplinkKind] = &[Interface, Stream, Macvtap];
    let given: [(&str, bool, &[UplinkKind]); 9] = [
        ("device", create.device.is_some(), &[Host, Interface, Macvtap]),
        ("namespace", create.namespace.is_some(), &[Host, Interface, Macvtap]),
        ("stream", create.stream.is_some(), &[Stream]),
        ("client", create.client, &[Stream]),
        ("socket_user", create.socket_user.is_some(), &[Stream]),
        ("address", create.address.is_some(), addresses),
        ("next_hop", create.next_hop.is_some(), addresses),
        ("ipv6_address", create.ipv6_address.is_some(), addresses),
        ("ipv6_next_hop", create.ipv6_next_hop.is_some(), addresses),
    ];
    match given.into_iter().find(|(_, is_given, kinds)| *is_given && !kinds.contains(&kind)) {
        Some((field, _, kinds)) => {
            let kinds: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
            let message = format!("an uplink of kind {} has no {field}; {} has", kind.name(), kinds.join(" or "));
            Err(INVALID_PARAMETER_CONFLICT.error(message).field(field))
        }
        None => Ok(()),
    }
}

/// The addresses at both ends, of either family.
fn given_addresses(create: &UplinkCreate) -> Result<(Option<UplinkIpv4>, Option<UplinkIpv6>), ApiError> {
    let ipv4 = match ends(("address", create.address.as_ref()), ("next_hop", create.next_hop.as_ref()))? {
        Some((IpNet::V4(address), IpAddr::V4(next_hop))) => Some(UplinkIpv4 { address, next_hop }),
        Some(_) => return Err(INVALID_PARAMETER.error("this is IPv6: give ipv6_address").field("address")),
        None => None,
    };
    let fields = (("ipv6_address", create.ipv6_address.as_ref()), ("ipv6_next_hop", create.ipv6_next_hop.as_ref()));
    let ipv6 = match ends(fields.0, fields.1)? {
        Some((IpNet::V6(address), IpAddr::V6(next_hop))) => Some(UplinkIpv6 { address, next_hop }),
        Some(_) => return Err(INVALID_PARAMETER.error("this is IPv4: give address").field("ipv6_address")),
        None => None,
    };
    if ipv4.is_none() && ipv6.is_none() {
        let message = "give the VPC's address outside and the router's, such as 192.0.2.2/24 and 192.0.2.1";
        return Err(MISSING_PARAMETER.error(message).field("address"));
    }
    Ok((ipv4, ipv6))
}

type Field<'a> = (&'static str, Option<&'a String>);

/// An address with the prefix of its link, and the next hop there.
fn ends(address: Field<'_>, next_hop: Field<'_>) -> Result<Option<(IpNet, IpAddr)>, ApiError> {
    let (text, hop_text) = match (address.1, next_hop.1) {
        (None, None) => return Ok(None),
        (Some(text), Some(hop)) => (text, hop),
        (None, _) => return Err(MISSING_PARAMETER.error("whose next hop is it?").field(address.0)),
        (_, None) => return Err(MISSING_PARAMETER.error("where do packets go?").field(next_hop.0)),
    };
    let own = prefix(text).filter(|own| text.contains('/') && own.prefix_len() < own.max_prefix_len());
    let own = own.ok_or_else(|| {
        let message =
            format!("{text} is no address with the prefix of a link, as in 192.0.2.2/24", text = quoted(text));
        INVALID_PARAMETER.error(message).field(address.0)
    })?;
    let hop: Option<IpAddr> = hop_text.parse().ok();
    let hop = hop.filter(|hop| own.contains(hop) && *hop != own.addr()).ok_or_else(|| {
        let message = format!("{text} is not another address of {}", own.trunc(), text = quoted(hop_text));
        INVALID_PARAMETER.error(message).field(next_hop.0)
    })?;
    Ok(Some((own, hop)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_a_name_that_the_kernel_takes() {
        assert_eq!(device_of(&"upl-lab".into()), "upl-lab");
        assert_eq!(device_of(&"upl-k3x09q2m7d1c".into()), "uplk3x09q2m7d1c");
    }

    #[test]
    fn each_link_has_an_ipv6_network_of_its_own() {
        let link = |address: &str, next_hop: &str| {
            let ipv4 = UplinkIpv4 { address: address.parse().unwrap(), next_hop: next_hop.parse().unwrap() };
            ipv6_of(ipv4).unwrap()
        };
        let [one, other] = [link("169.254.64.2/30", "169.254.64.1"), link("169.254.65.2/30", "169.254.65.1")];
        assert_eq!(one.address.to_string(), "fd53:6c75:6963:4000::2/64");
        assert!(one.address.contains(&one.next_hop) && !one.address.contains(&other.next_hop));
    }
}
