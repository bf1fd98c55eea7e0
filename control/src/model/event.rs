//! What a decision changes: the new state of each object. Also their form as records in a store.

use super::{
    Eip, Eni, ForwardEntry, Group, Instance, Metadata, NatGateway, Peering, PortList, PrefixList, Record, Rule,
    SnatEntry, Token, Uplink, VSwitch, Vpc,
};
use serde::{Serialize, de::DeserializeOwned};
use vswitch_core::config::desired::Settings;
use vswitch_core::config::ids::{EniId, GroupId, PortListId, PrefixListId, RuleId, UplinkId, VSwitchId, VpcId};

/// The new state of one object; `None` if it is removed.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The settings.
    Settings(Settings),
    /// A VPC.
    Vpc(VpcId, Option<Vpc>),
    /// A subnet.
    VSwitch(VSwitchId, Option<VSwitch>),
    /// A security group. Removing it removes its rules.
    Group(GroupId, Option<Group>),
    /// A rule of a group.
    Rule(GroupId, RuleId, Option<Rule>),
    /// A network interface.
    Eni(EniId, Option<Box<Eni>>),
    /// A prefix list.
    PrefixList(PrefixListId, Option<PrefixList>),
    /// A port list.
    PortList(PortListId, Option<PortList>),
    /// An instance, by its identifier.
    Instance(String, Option<Box<Instance>>),
    /// An object that has nothing to do with packets, by its identifier.
    Record(String, Option<Record>),
    /// The way out of a VPC.
    Uplink(UplinkId, Option<Box<Uplink>>),
    /// A floating address, by its identifier.
    Eip(String, Option<Eip>),
    /// A NAT gateway, by its identifier.
    NatGateway(String, Option<NatGateway>),
    /// An entry for sources of a NAT gateway, by its identifier.
    SnatEntry(String, Option<SnatEntry>),
    /// A forward, by its identifier.
    Forward(String, Option<ForwardEntry>),
    /// A peering of two VPCs, by its identifier.
    Peering(String, Option<Peering>),
    /// An object's metadata, by the object's identifier.
    Metadata(String, Option<Metadata>),
    /// The answer to a client token's request, by the token's fingerprint.
    Token(String, Option<Token>),
}

/// A record that is not an object of this version.
#[derive(Debug, thiserror::Error)]
#[error("record {key}: {reason}")]
pub struct RecordError {
    /// The record's key.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Event {
    /// The noun of the object, as in `vpc`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Settings(_) => "settings",
            Self::Vpc(..) => "vpc",
            Self::VSwitch(..) => "vswitch",
            Self::Group(..) => "group",
            Self::Rule(..) => "rule",
            Self::Eni(..) => "eni",
            Self::PrefixList(..) => "prefix-list",
            Self::PortList(..) => "port-list",
            Self::Instance(..) => "instance",
            Self::Record(..) => "record",
            Self::Uplink(..) => "uplink",
            Self::Eip(..) => "eip",
            Self::NatGateway(..) => "nat-gateway",
            Self::SnatEntry(..) => "snat-entry",
            Self::Forward(..) => "forward",
            Self::Peering(..) => "peering",
            Self::Metadata(..) => "label",
            Self::Token(..) => "token",
        }
    }

    /// The object's identifier; empty for the settings.
    pub fn id(&self) -> &str {
        match self {
            Self::Settings(_) => "",
            Self::Vpc(id, _) => id.as_str(),
            Self::VSwitch(id, _) => id.as_str(),
            Self::Group(id, _) => id.as_str(),
            Self::Rule(_, id, _) => id.as_str(),
            Self::Eni(id, _) => id.as_str(),
            Self::PrefixList(id, _) => id.as_str(),
            Self::PortList(id, _) => id.as_str(),
            Self::Uplink(id, _) => id.as_str(),
            Self::Eip(id, _)
            | Self::NatGateway(id, _)
            | Self::SnatEntry(id, _)
            | Self::Forward(id, _)
            | Self::Peering(id, _)
            | Self::Instance(id, _)
            | Self::Record(id, _)
            | Self::Metadata(id, _)
            | Self::Token(id, _) => id,
        }
    }

    /// The group whose rule this is about.
    pub fn group(&self) -> Option<&GroupId> {
        match self {
            Self::Rule(group, ..) => Some(group),
            _ => None,
        }
    }

    /// Whether it is about an object that an account owns by itself: not a rule, which belongs to its group, and not
    /// metadata.
    pub(crate) fn is_object(&self) -> bool {
        !matches!(self, Self::Settings(_) | Self::Rule(..) | Self::Metadata(..) | Self::Token(..))
    }

    /// Whether the object is removed.
    pub fn is_end(&self) -> bool {
        match self {
            Self::Settings(_) => false,
            Self::Vpc(_, object) => object.is_none(),
            Self::VSwitch(_, object) => object.is_none(),
            Self::Group(_, object) => object.is_none(),
            Self::Rule(_, _, object) => object.is_none(),
            Self::Eni(_, object) => object.is_none(),
            Self::PrefixList(_, object) => object.is_none(),
            Self::PortList(_, object) => object.is_none(),
            Self::Instance(_, object) => object.is_none(),
            Self::Record(_, object) => object.is_none(),
            Self::Uplink(_, object) => object.is_none(),
            Self::Eip(_, object) => object.is_none(),
            Self::NatGateway(_, object) => object.is_none(),
            Self::SnatEntry(_, object) => object.is_none(),
            Self::Forward(_, object) => object.is_none(),
            Self::Peering(_, object) => object.is_none(),
            Self::Metadata(_, object) => object.is_none(),
            Self::Token(_, object) => object.is_none(),
        }
    }

    /// The key of the object's record, as in `vpc/vpc-1` or `rule/sg-1/sgr-1`.
    pub fn key(&self) -> String {
        match self {
            Self::Settings(_) => "settings".into(),
            Self::Rule(group, id, _) => format!("rule/{group}/{id}"),
            _ => format!("{}/{}", self.kind(), self.id()),
        }
    }

    /// The content of the object's record; `None` if the record is removed.
    pub fn value(&self) -> Option<Vec<u8>> {
        match self {
            Self::Settings(settings) => Some(to_json(settings)),
            Self::Vpc(_, object) => object.as_ref().map(to_json),
            Self::VSwitch(_, object) => object.as_ref().map(to_json),
            Self::Group(_, object) => object.as_ref().map(to_json),
            Self::Rule(_, _, object) => object.as_ref().map(to_json),
            Self::Eni(_, object) => object.as_ref().map(to_json),
            Self::PrefixList(_, object) => object.as_ref().map(to_json),
            Self::PortList(_, object) => object.as_ref().map(to_json),
            Self::Instance(_, object) => object.as_ref().map(to_json),
            Self::Record(_, object) => object.as_ref().map(to_json),
            Self::Uplink(_, object) => object.as_ref().map(to_json),
            Self::Eip(_, object) => object.as_ref().map(to_json),
            Self::NatGateway(_, object) => object.as_ref().map(to_json),
            Self::SnatEntry(_, object) => object.as_ref().map(to_json),
            Self::Forward(_, object) => object.as_ref().map(to_json),
            Self::Peering(_, object) => object.as_ref().map(to_json),
            Self::Metadata(_, object) => object.as_ref().map(to_json),
            Self::Token(_, object) => object.as_ref().map(to_json),
        }
    }

    /// Reads a record.
    ///
    /// # Errors
    /// The key has an unknown kind, or the content is not an object of that kind.
    pub fn from_record(key: &str, value: &[u8]) -> Result<Self, RecordError> {
        let mut parts = key.splitn(3, '/');
        let (kind, id, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next());
        match (kind, rest) {
            ("settings", None) => Ok(Self::Settings(from_json(key, value)?)),
            ("vpc", None) => Ok(Self::Vpc(id.into(), Some(from_json(key, value)?))),
            ("vswitch", None) => Ok(Self::VSwitch(id.into(), Some(from_json(key, value)?))),
            ("group", None) => Ok(Self::Group(id.into(), Some(from_json(key, value)?))),
            ("rule", Some(rule)) => Ok(Self::Rule(id.into(), rule.into(), Some(from_json(key, value)?))),
            ("eni", None) => Ok(Self::Eni(id.into(), Some(from_json(key, value)?))),
            ("prefix-list", None) => Ok(Self::PrefixList(id.into(), Some(from_json(key, value)?))),
            ("instance", None) => Ok(Self::Instance(id.into(), Some(from_json(key, value)?))),
            ("record", None) => Ok(Self::Record(id.into(), Some(from_json(key, value)?))),
            ("uplink", None) => Ok(Self::Uplink(id.into(), Some(from_json(key, value)?))),
            ("eip", None) => Ok(Self::Eip(id.into(), Some(from_json(key, value)?))),
            ("nat-gateway", None) => Ok(Self::NatGateway(id.into(), Some(from_json(key, value)?))),
            ("snat-entry", None) => Ok(Self::SnatEntry(id.into(), Some(from_json(key, value)?))),
            ("forward", None) => Ok(Self::Forward(id.into(), Some(from_json(key, value)?))),
            ("peering", None) => Ok(Self::Peering(id.into(), Some(from_json(key, value)?))),
            ("label", None) => Ok(Self::Metadata(id.into(), Some(from_json(key, value)?))),
            ("token", None) => Ok(Self::Token(id.into(), Some(from_json(key, value)?))),
            ("port-list", None) => Ok(Self::PortList(id.into(), Some(from_json(key, value)?))),
            _ => Err(RecordError { key: key.into(), reason: "no such kind of object".into() }),
        }
    }
}

fn to_json<T: Serialize>(object: &T) -> Vec<u8> {
    serde_json::to_vec(object).expect("objects of the model are always expressible as JSON")
}

fn from_json<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, RecordError> {
    serde_json::from_slice(value).map_err(|error| RecordError { key: key.into(), reason: error.to_string() })
}
