//! Where one call is worked on: what it asks, what there is, and what of it the caller may see.

use super::Action;
use super::parameters::Parameters;
use super::settings::ApiSettings;
use crate::command::{Batch, Command, LabelModify, OnBehalf};
use crate::environment::Environment;
use crate::error::{
    ApiError, ENI_NOT_FOUND, ErrorKind, GROUP_NOT_FOUND, INSTANCE_NOT_FOUND, INVALID_PARAMETER, PORT_LIST_NOT_FOUND,
    PREFIX_LIST_NOT_FOUND, REGION_NOT_FOUND, VPC_NOT_FOUND, VSWITCH_NOT_FOUND,
};
use crate::model::{Eni, Group, Instance, Label, Model, PortList, PrefixList, VSwitch, Vpc};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use vswitch_core::ids::{EniId, GroupId, PortListId, PrefixListId, VSwitchId, VpcId};

const REGION_MALFORMED: ErrorKind = ErrorKind { code: "InvalidRegionId.MalFormed", status: 400 };
const RESOURCE_GROUP_NOT_FOUND: ErrorKind = ErrorKind { code: "InvalidResourceGroup.NotFound", status: 404 };
const TAG_KEY: ErrorKind = ErrorKind { code: "InvalidTagKey.Malformed", status: 400 };
const TAG_MISMATCH: ErrorKind = ErrorKind { code: "InvalidTag.Mismatch", status: 400 };
const TAG_VALUE: ErrorKind = ErrorKind { code: "InvalidTagValue.Malformed", status: 400 };
const TAG_DUPLICATE: ErrorKind = ErrorKind { code: "Duplicate.TagKey", status: 400 };
const VPC_STATUS: ErrorKind = ErrorKind { code: "IncorrectVpcStatus", status: 400 };
const VSWITCH_STATUS: ErrorKind = ErrorKind { code: "IncorrectVSwitchStatus", status: 400 };
pub(super) const ZONE_NOT_FOUND: ErrorKind = ErrorKind { code: "InvalidZoneId.NotFound", status: 404 };
const INSTANCE_ID: ErrorKind = ErrorKind { code: "InvalidInstanceId.Malformed", status: 400 };
const SECURITY_GROUP_ID: ErrorKind = ErrorKind { code: "InvalidSecurityGroupId.Malformed", status: 400 };

/// A call whose sender is known.
#[derive(Clone, Debug)]
pub struct Call {
    /// What is to be done.
    pub action: &'static Action,
    /// The account that asks.
    pub account: String,
    /// What it says.
    pub parameters: Parameters,
}

/// A call and everything that it is judged by.
#[derive(Clone, Copy)]
pub struct Desk<'a> {
    /// The state.
    pub model: &'a Model,
    /// The call.
    pub call: &'a Call,
    /// The settings.
    pub settings: &'a ApiSettings,
    /// Time and new identifiers.
    pub environment: &'a Environment,
}

/// What is answered once a change is made.
pub(super) type AnswerOf = Box<dyn FnOnce(&Desk<'_>) -> Map<String, Value>>;

/// What a call comes to.
pub enum Plan {
    /// An answer, and no change.
    Answer(Map<String, Value>),
    /// A change, and what is answered once it is made.
    Change(Box<Command>, AnswerOf),
}

/// The members of a JSON object.
pub(super) fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

impl Plan {
    /// An answer, and no change.
    pub fn answer(value: Value) -> Self {
        Self::Answer(members(value))
    }
}

impl<'a> Desk<'a> {
    /// What the call says.
    pub fn parameters(&self) -> &'a Parameters {
        &self.call.parameters
    }

    /// The region that the call names, or the first one.
    pub fn region(&self) -> &'a str {
        self.call.parameters.text("RegionId").unwrap_or(self.settings.first_region())
    }

    /// Refuses a region that there is not.
    pub fn check_region(&self) -> Result<(), ApiError> {
        match self.call.parameters.text("RegionId") {
            Some(region) if !self.settings.regions.iter().any(|known| known == region) => {
                let letters = region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
                let is_malformed = !letters && self.call.action.fact().lists(REGION_MALFORMED.code);
                let kind = if is_malformed { REGION_MALFORMED } else { REGION_NOT_FOUND };
                Err(kind.error("The specified RegionId does not exist.").field("RegionId"))
            }
            _ => Ok(()),
        }
    }

    /// The account that an object belongs to.
    pub fn owner_of(&self, id: &str) -> &'a str {
        match self.model.label(id).owner.as_str() {
            "" => self.settings.first_account(),
            owner => owner,
        }
    }

    /// The region that an object is in.
    pub fn region_of(&self, id: &str) -> &'a str {
        match self.model.label(id).region.as_str() {
            "" => self.settings.first_region(),
            region => region,
        }
    }

    /// What is noted about an object.
    pub fn label(&self, id: &str) -> &'a Label {
        self.model.label(id)
    }

    /// Whether an object is the caller's, and in the region the call names if it names one.
    pub fn owns(&self, id: &str) -> bool {
        let named = self.call.parameters.text("RegionId");
        self.owner_of(id) == self.call.account && named.is_none_or(|region| region == self.region_of(id))
    }

    /// Whether the caller may use a VPC: it owns it, or the VPC is shared with it.
    pub fn sees_vpc(&self, vpc: &VpcId) -> bool {
        let shared = self.settings.shared_vpcs.get(vpc.as_str());
        self.owns(vpc.as_str()) || shared.is_some_and(|accounts| accounts.contains(&self.call.account))
    }

    /// A VPC that the caller may use.
    pub fn vpc(&self, id: &str) -> Result<(VpcId, &'a Vpc), ApiError> {
        let found = self.model.vpcs.get_key_value(&VpcId::from(id)).filter(|(id, _)| self.sees_vpc(id));
        let found = found.map(|(id, vpc)| (id.clone(), vpc));
        found.ok_or_else(|| not_found(VPC_NOT_FOUND, "VPC", id))
    }

    /// A vSwitch that the caller may use.
    pub fn vswitch(&self, id: &str) -> Result<(VSwitchId, &'a VSwitch), ApiError> {
        let found = self.model.vswitches.get_key_value(&VSwitchId::from(id));
        let seen = found.filter(|(id, vswitch)| self.owns(id.as_str()) || self.sees_vpc(&vswitch.vpc));
        let seen = seen.map(|(id, vswitch)| (id.clone(), vswitch));
        seen.ok_or_else(|| not_found(VSWITCH_NOT_FOUND, "vSwitch", id))
    }

    /// Refuses a VPC that is still being made.
    pub fn check_vpc_made(&self, id: &VpcId, vpc: &Vpc) -> Result<(), ApiError> {
        match self.is_passing(vpc.created_s) {
            true => Err(VPC_STATUS.error(format!("{id} is still being made.")).object(id)),
            false => Ok(()),
        }
    }

    /// Refuses a vSwitch that is still being made.
    pub fn check_vswitch_made(&self, id: &VSwitchId, vswitch: &VSwitch) -> Result<(), ApiError> {
        match self.is_passing(vswitch.created_s) {
            true => Err(VSWITCH_STATUS.error(format!("{id} is still being made.")).object(id)),
            false => Ok(()),
        }
    }

    /// One of the caller's security groups.
    pub fn group(&self, id: &str) -> Result<(GroupId, &'a Group), ApiError> {
        self.check_form(id, SECURITY_GROUP_ID, "SecurityGroupId")?;
        let found = self.model.groups.get_key_value(&GroupId::from(id)).filter(|(id, _)| self.owns(id.as_str()));
        let found = found.map(|(id, group)| (id.clone(), group));
        found.ok_or_else(|| not_found(GROUP_NOT_FOUND, "security group", id))
    }

    /// Refuses what can be no identifier, where the action has a code for that.
    fn check_form(&self, id: &str, kind: ErrorKind, name: &str) -> Result<(), ApiError> {
        let letters = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        match (letters && id.len() <= 100) || !self.call.action.fact().lists(kind.code) {
            true => Ok(()),
            false => Err(kind.error("it has at most 100 letters, digits, - and _").field(name)),
        }
    }

    /// Refuses identifiers of groups that are not the caller's.
    pub fn check_groups(&self, ids: &[String]) -> Result<(), ApiError> {
        ids.iter().try_for_each(|id| self.group(id).map(drop))
    }

    /// One of the caller's network interfaces.
    pub fn eni(&self, id: &str) -> Result<(EniId, &'a Eni), ApiError> {
        let found = self.model.enis.get_key_value(&EniId::from(id)).filter(|(id, _)| self.owns(id.as_str()));
        let found = found.map(|(id, eni)| (id.clone(), eni));
        found.ok_or_else(|| not_found(ENI_NOT_FOUND, "network interface", id))
    }

    /// One of the caller's instances.
    pub fn instance(&self, id: &str) -> Result<&'a Instance, ApiError> {
        self.check_form(id, INSTANCE_ID, "InstanceId")?;
        let found = self.model.instances.get(id).filter(|_| self.owns(id));
        found.ok_or_else(|| not_found(INSTANCE_NOT_FOUND, "instance", id))
    }

    /// One of the caller's prefix lists.
    pub fn prefix_list(&self, id: &str) -> Result<(PrefixListId, &'a PrefixList), ApiError> {
        let found = self.model.prefix_lists.get_key_value(&PrefixListId::from(id));
        let own = found.filter(|(id, _)| self.owns(id.as_str())).map(|(id, list)| (id.clone(), list));
        own.ok_or_else(|| not_found(PREFIX_LIST_NOT_FOUND, "prefix list", id))
    }

    /// One of the caller's port lists.
    pub fn port_list(&self, id: &str) -> Result<(PortListId, &'a PortList), ApiError> {
        let found = self.model.port_lists.get_key_value(&PortListId::from(id));
        let own = found.filter(|(id, _)| self.owns(id.as_str())).map(|(id, list)| (id.clone(), list));
        own.ok_or_else(|| not_found(PORT_LIST_NOT_FOUND, "port list", id))
    }

    /// The caller's account as it is noted: the first one needs no note.
    pub(super) fn noted_account(&self) -> String {
        let account = &self.call.account;
        if account == self.settings.first_account() { String::new() } else { account.clone() }
    }

    /// Changes made for the caller, as one, and what is answered then.
    pub fn change(&self, mut commands: Vec<Command>, answer: AnswerOf) -> Plan {
        let command = match (commands.len(), commands.pop()) {
            (1, Some(command)) => command,
            (_, last) => Command::Batch(Batch { commands: commands.into_iter().chain(last).collect() }),
        };
        let region = self.region();
        let on_behalf = OnBehalf {
            owner: self.noted_account(),
            region: if region == self.settings.first_region() { String::new() } else { region.to_owned() },
            command: Box::new(command),
        };
        Plan::Change(Box::new(Command::OnBehalf(on_behalf)), answer)
    }

    /// Changes made for the caller that are answered without particulars.
    pub fn quiet_change(&self, commands: Vec<Command>) -> Plan {
        self.change(commands, Box::new(|_| Map::new()))
    }

    /// The command that notes tags and resource group of a new object, if the call names any.
    pub fn new_label(&self, object: &str, zone: Option<String>) -> Result<Vec<Command>, ApiError> {
        let tags = self.tags("Tag")?;
        let resource_group = self.resource_group()?;
        if tags.is_empty() && resource_group.is_none() && zone.is_none() {
            return Ok(vec![]);
        }
        let modify = LabelModify { object: object.to_owned(), tags, resource_group, zone, ..LabelModify::default() };
        Ok(vec![Command::LabelModify(modify)])
    }

    /// The resource group that the call names.
    pub fn resource_group(&self) -> Result<Option<String>, ApiError> {
        let Some(id) = self.parameters().owned("ResourceGroupId") else { return Ok(None) };
        let groups = &self.settings.resource_groups;
        let exists = if groups.is_empty() { id.starts_with("rg-") && id.len() <= 64 } else { groups.contains_key(&id) };
        match exists {
            true => Ok(Some(id)),
            false => Err(RESOURCE_GROUP_NOT_FOUND
                .error("The ResourceGroup provided does not exist in our records.")
                .field("ResourceGroupId")),
        }
    }

    /// The tags that the call gives, checked.
    pub fn tags(&self, name: &str) -> Result<BTreeMap<String, String>, ApiError> {
        let mut tags = BTreeMap::new();
        for (_, tag) in self.parameters().objects(name)? {
            let key = tag.text("Key").unwrap_or_default().to_owned();
            let value = tag.text("Value").unwrap_or_default().to_owned();
            let link = |text: &str| text.contains("http://") || text.contains("https://");
            let reserved = key.starts_with("aliyun") || key.starts_with("acs:");
            if key.is_empty() && !value.is_empty() && self.call.action.fact().lists(TAG_MISMATCH.code) {
                return Err(TAG_MISMATCH.error("The specified Tag.n.Key and Tag.n.Value are not match.").field(name));
            }
            if key.is_empty() || key.chars().count() > 128 || reserved || link(&key) {
                return Err(TAG_KEY.error("The specified Tag.n.Key is not valid.").field(name));
            }
            if value.chars().count() > 128 || link(&value) {
                return Err(TAG_VALUE.error("The specified Tag.n.Value is not valid.").field(name));
            }
            if tags.insert(key, value).is_some() {
                return Err(TAG_DUPLICATE.error("The Tag.N.Key contain duplicate key.").field(name));
            }
        }
        Ok(tags)
    }

    /// Whether an object has the tags that the call asks for: a tag without a value asks for the key alone.
    pub fn has_tags(&self, id: &str) -> Result<bool, ApiError> {
        let tags = &self.label(id).tags;
        let wanted = self.parameters().objects("Tag")?;
        Ok(wanted.iter().all(|(_, tag)| match (tag.text("Key"), tag.text("Value")) {
            (Some(key), Some(value)) => tags.get(key).is_some_and(|present| present == value),
            (Some(key), None) => tags.contains_key(key),
            (None, _) => true,
        }))
    }

    /// Whether an object is in the resource group that the call asks for.
    pub fn has_resource_group(&self, id: &str) -> bool {
        let wanted = self.parameters().text("ResourceGroupId");
        wanted.is_none_or(|wanted| self.label(id).resource_group == wanted)
    }

    /// An object's tags, as ECS writes them.
    pub fn tags_of(&self, id: &str) -> Value {
        let tags = self.label(id).tags.iter();
        tags.map(|(key, value)| json!({"TagKey": key, "TagValue": value})).collect()
    }

    /// An object's tags, as VPC writes them.
    pub fn vpc_tags_of(&self, id: &str) -> Value {
        self.label(id).tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect()
    }

    /// The zone of a vSwitch.
    pub fn zone_of(&self, vswitch: &VSwitchId) -> String {
        match self.label(vswitch.as_str()).zone.as_str() {
            "" => zones_of(self.region_of(vswitch.as_str())).swap_remove(0),
            zone => zone.to_owned(),
        }
    }

    /// Whether something that changed then still shows a passing state.
    pub fn is_passing(&self, changed_s: u64) -> bool {
        self.environment.now_s < changed_s.saturating_add(self.settings.state_delay_s)
    }

    /// The place among some words of the one that a parameter has, in any letter case.
    pub fn word(&self, name: &str, words: &[&str], kind: ErrorKind) -> Result<Option<usize>, ApiError> {
        let Some(text) = self.parameters().text(name) else { return Ok(None) };
        let place = words.iter().position(|word| word.eq_ignore_ascii_case(text));
        let words = words.iter().filter(|word| !word.is_empty()).copied().collect::<Vec<_>>().join(", ");
        place.map(Some).ok_or_else(|| kind.error(format!("write one of {words}.")).field(name))
    }

    /// Refuses a parameter that makes no sense.
    pub fn refuse<T>(&self, name: &str, reason: &str) -> Result<T, ApiError> {
        Err(INVALID_PARAMETER.error(format!("{name}: {reason}")).field(name))
    }
}

/// The zones of a region.
pub(super) fn zones_of(region: &str) -> Vec<String> {
    let dash = if region.starts_with("cn-") { "-" } else { "" };
    ('a'..='k').map(|letter| format!("{region}{dash}{letter}")).collect()
}

fn not_found(kind: ErrorKind, noun: &str, id: &str) -> ApiError {
    let shown: String = id.chars().take(100).collect();
    kind.error(format!("there is no {noun} {shown:?}"))
}
