//! Forwards (DNAT): ports of an external address that lead to a private one.

use crate::command::{ForwardAdd, ForwardModify, ForwardRemove};
use crate::environment::Environment;
use crate::error::{
    ApiError, FORWARD_DUPLICATED, FORWARD_EXTERNAL, FORWARD_INTERNAL, FORWARD_NOT_FOUND, FORWARD_PORT,
    FORWARD_PROTOCOL, INVALID_PARAMETER, NAT_NAME, QUOTA_FORWARD,
};
use crate::model::parse::network_name;
use crate::model::{Event, Model};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use vswitch_core::config::desired::PortRange;
use vswitch_core::config::ids::{EniId, VpcId, quoted};

/// A forward.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardEntry {
    /// The VPC.
    pub vpc: VpcId,
    /// The NAT gateway to which the external address belongs; none if that is the uplink's own.
    pub nat: Option<String>,
    /// The external address.
    pub external: Ipv4Addr,
    /// What is forwarded.
    pub protocol: ForwardProtocol,
    /// The external ports.
    pub ports: PortRange,
    /// The private address, which need not be an ENI's yet.
    pub private: Ipv4Addr,
    /// The private port of the first external one; the others follow in order.
    pub port: u16,
    /// A name for people.
    pub name: String,
    /// When it was made, seconds since 1970.
    pub created_s: u64,
}

/// What a forward forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Both.
    Any,
}

/// All ports.
const ANY_PORT: PortRange = PortRange { first: 1, last: u16::MAX };

impl ForwardProtocol {
    fn read(text: &str) -> Result<Self, ApiError> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "any" => Ok(Self::Any),
            _ => {
                let message = format!("{text}: write tcp, udp or any", text = quoted(text));
                Err(FORWARD_PROTOCOL.error(message).field("protocol"))
            }
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Any => "any",
        }
    }

    /// The protocol numbers.
    pub fn numbers(self) -> &'static [u8] {
        match self {
            Self::Tcp => &[6],
            Self::Udp => &[17],
            Self::Any => &[6, 17],
        }
    }

    fn overlaps(self, other: Self) -> bool {
        self == other || self == Self::Any || other == Self::Any
    }
}

impl ForwardEntry {
    /// The external ports as people write them.
    pub(crate) fn ports_text(&self) -> String {
        match self.ports {
            ANY_PORT => "any".into(),
            PortRange { first, last } if first == last => first.to_string(),
            PortRange { first, last } => format!("{first}-{last}"),
        }
    }

    /// The private ports as people write them.
    pub(crate) fn private_ports_text(&self) -> String {
        let ports = PortRange { first: self.port, last: self.last_private() };
        Self { ports, ..self.clone() }.ports_text()
    }

    fn last_private(&self) -> u16 {
        self.port.saturating_add(self.ports.last - self.ports.first)
    }

    /// Whether one packet could be meant by both, from either side.
    fn conflicts(&self, other: &Self) -> bool {
        let outside = self.external == other.external
            && self.ports.first <= other.ports.last
            && other.ports.first <= self.ports.last;
        let inside =
            self.private == other.private && self.port <= other.last_private() && other.port <= self.last_private();
        self.vpc == other.vpc && self.protocol.overlaps(other.protocol) && (outside || inside)
    }
}

impl Model {
    pub(crate) fn forward(&self, id: &str) -> Result<&ForwardEntry, ApiError> {
        self.forwards.get(id).ok_or_else(|| {
            let message = format!("there is no forward {id}: see sluice forward list", id = quoted(id));
            FORWARD_NOT_FOUND.error(message).field("forward").object(id)
        })
    }

    /// The ENI that has an address of a VPC.
    pub(crate) fn eni_at(&self, vpc: &VpcId, address: Ipv4Addr) -> Option<&EniId> {
        let mut subnets = self.vswitches.iter().filter(|(_, vswitch)| vswitch.vpc == *vpc);
        let (vswitch, _) = subnets.find(|(_, vswitch)| vswitch.cidr.contains(&address))?;
        self.index.holder(vswitch, IpNet::V4(Ipv4Net::from(address)))
    }

    pub(in crate::model) fn forward_add(
        &self,
        add: &ForwardAdd,
        environment: &Environment,
    ) -> Result<Vec<Event>, ApiError> {
        let id = self.choose_id(add.id.as_deref(), "fwd", environment, |id| self.forwards.contains_key(id))?;
        let (vpc, _) = self.vpc(&add.vpc)?;
        let (external, nat) = self.external_end(&vpc, add.external.as_deref())?;
        let ports = port_range(&add.ports)?;
        let forward = ForwardEntry {
            private: self.private_end(&vpc, &add.to)?,
            nat,
            external,
            protocol: ForwardProtocol::read(add.protocol.as_deref().unwrap_or("tcp"))?,
            ports,
            port: add.to_port.unwrap_or(ports.first),
            name: network_name(add.name.as_deref(), NAT_NAME)?,
            vpc,
            created_s: environment.now_s,
        };
        let most = self.quotas.forwards_per_vpc_max;
        if self.forwards.values().filter(|other| other.vpc == forward.vpc).count() >= most {
            return Err(QUOTA_FORWARD.error(format!("{} has {most} forwards, as many as may be", forward.vpc)));
        }
        self.check_forward(&id, &forward)?;
        Ok(vec![Event::Forward(id, Some(forward))])
    }

    pub(in crate::model) fn forward_modify(&self, modify: &ForwardModify) -> Result<Vec<Event>, ApiError> {
        let old = self.forward(&modify.forward)?;
        let mut new = old.clone();
        if let Some(text) = &modify.external {
            (new.external, new.nat) = self.external_end(&old.vpc, Some(text))?;
        }
        if let Some(text) = &modify.protocol {
            new.protocol = ForwardProtocol::read(text)?;
        }
        if let Some(text) = &modify.ports {
            new.ports = port_range(text)?;
        }
        if let Some(text) = &modify.to {
            new.private = self.private_end(&old.vpc, text)?;
        }
        new.port = modify.to_port.unwrap_or(old.port);
        if let Some(text) = &modify.name {
            new.name = network_name(Some(text), NAT_NAME)?;
        }
        self.check_forward(&modify.forward, &new)?;
        Ok(if new == *old { vec![] } else { vec![Event::Forward(modify.forward.clone(), Some(new))] })
    }

    pub(in crate::model) fn forward_remove(&self, remove: &ForwardRemove) -> Result<Vec<Event>, ApiError> {
        self.forward(&remove.forward)?;
        Ok(vec![Event::Forward(remove.forward.clone(), None)])
    }

    /// The external address of a forward, and the NAT gateway that it belongs to.
    fn external_end(&self, vpc: &VpcId, text: Option<&str>) -> Result<(Ipv4Addr, Option<String>), ApiError> {
        let own = self.uplink_of(vpc).and_then(|(_, uplink)| uplink.ipv4).map(|it| it.address.addr());
        let refuse = |message: String| FORWARD_EXTERNAL.error(message).field("external");
        let Some(text) = text else {
            let none = || refuse(format!("{vpc} has no uplink: name a floating address of its NAT gateway"));
            return own.map(|own| (own, None)).ok_or_else(none);
        };
        let address: Option<Ipv4Addr> = text.parse().ok();
        if let Some(own) = own.filter(|own| Some(*own) == address) {
            return Ok((own, None));
        }
        let eip = self.eips.values().find(|eip| Some(eip.address) == address);
        let nat = eip.and_then(|eip| Some((eip.address, eip.nat()?)));
        let nat = nat.filter(|(_, nat)| self.nat_gateways.get(*nat).is_some_and(|nat| nat.vpc == *vpc));
        nat.map(|(address, nat)| (address, Some(nat.to_owned()))).ok_or_else(|| {
            let text = quoted(text);
            refuse(format!("{text} is neither a floating address of a NAT gateway of {vpc} nor the uplink's own"))
        })
    }

    fn private_end(&self, vpc: &VpcId, text: &str) -> Result<Ipv4Addr, ApiError> {
        let address: Option<Ipv4Addr> = text.parse().ok();
        let blocks = || self.vpcs.get(vpc).into_iter().flat_map(|vpc| vpc.ipv4_cidrs());
        address.filter(|address| blocks().any(|block| block.contains(address))).ok_or_else(|| {
            let message = format!("{text} is no IPv4 address of {vpc}", text = quoted(text));
            FORWARD_INTERNAL.error(message).field("to")
        })
    }

    fn check_forward(&self, id: &str, forward: &ForwardEntry) -> Result<(), ApiError> {
        let length = u32::from(forward.ports.last - forward.ports.first);
        if forward.port == 0 || u32::from(forward.port) + length > u32::from(u16::MAX) {
            let message = format!("{}: from there on, {} ports end after 65535", forward.port, length + 1);
            return Err(INVALID_PARAMETER.error(message).field("to_port"));
        }
        match self.forwards.iter().find(|(other, present)| *other != id && present.conflicts(forward)) {
            Some((other, _)) => {
                let message = format!("{other} has the same ports, outside or inside");
                Err(FORWARD_DUPLICATED.error(message).field("ports").object(other))
            }
            None => Ok(()),
        }
    }
}

/// External ports: one, a range with `-` or `/`, or `any`.
fn port_range(text: &str) -> Result<PortRange, ApiError> {
    if text.eq_ignore_ascii_case("any") {
        return Ok(ANY_PORT);
    }
    let (first, last) = text.split_once(['-', '/']).unwrap_or((text, text));
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0 && !text.starts_with(['0', '+']));
    let range = number(first).zip(number(last)).filter(|(first, last)| first <= last);
    range.map(|(first, last)| PortRange { first, last }).ok_or_else(|| {
        let message = format!("{text}: write a port, a range such as 8000-8010, or any", text = quoted(text));
        FORWARD_PORT.error(message).field("ports")
    })
}
