//! A call as its action sees it: the request, and the state as far as the caller may see it.

use super::parameters::Parameters;
use super::schema::Support;
use super::scope::Scope;
use super::settings::{ApiSettings, DEFAULT_RESOURCE_GROUP};
use super::validate::published_value;
use crate::command::{Batch, Command, LabelModify, OnBehalf};
use crate::ecs::dialect::Action;
use crate::environment::Environment;
use crate::error::{ApiError, ErrorKind, INVALID_PARAMETER, REGION_NOT_FOUND};
use crate::model::{Model, Token, VSwitch, Vpc};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use vswitch_core::config::ids::{VSwitchId, VpcId};

const REGION_MALFORMED: ErrorKind = ErrorKind { code: "InvalidRegionId.MalFormed", status: 400 };
pub(in crate::ecs) const RESOURCE_GROUP_NOT_FOUND: ErrorKind =
    ErrorKind { code: "InvalidResourceGroup.NotFound", status: 404 };
const TAG_KEY: ErrorKind = ErrorKind { code: "InvalidTagKey.Malformed", status: 400 };
const TAG_MISMATCH: ErrorKind = ErrorKind { code: "InvalidTag.Mismatch", status: 400 };
const TAG_VALUE: ErrorKind = ErrorKind { code: "InvalidTagValue.Malformed", status: 400 };
const TAG_DUPLICATE: ErrorKind = ErrorKind { code: "Duplicate.TagKey", status: 400 };
const VPC_STATUS: ErrorKind = ErrorKind { code: "IncorrectVpcStatus", status: 400 };
const VSWITCH_STATUS: ErrorKind = ErrorKind { code: "IncorrectVSwitchStatus", status: 400 };
pub(in crate::ecs) const ZONE_NOT_FOUND: ErrorKind = ErrorKind { code: "InvalidZoneId.NotFound", status: 404 };

/// A call of an authenticated caller.
#[derive(Clone, Debug)]
pub struct Call {
    /// The action.
    pub action: &'static Action,
    /// The caller's account.
    pub account: String,
    /// The parameters.
    pub parameters: Parameters,
}

impl Call {
    /// A call. Enumerated values are changed to the letter case of the published API: `primary` becomes `Primary`.
    pub fn new(action: &'static Action, account: String, mut parameters: Parameters) -> Self {
        for fact in &action.schema().params {
            let meant = parameters.text(&fact.name).and_then(|text| published_value(fact, text));
            if let Some(value) = meant {
                parameters.replace(&fact.name, value);
            }
        }
        Self { action, account, parameters }
    }
}

/// A call and everything needed to carry it out. An action gets it as a context, in which the scope is the only access
/// to the state.
#[derive(Clone, Copy)]
pub struct CallInput<'a> {
    /// The state.
    pub model: &'a Model,
    /// The call.
    pub call: &'a Call,
    /// The settings.
    pub settings: &'a ApiSettings,
    /// Time and new identifiers.
    pub environment: &'a Environment,
}

impl<'a> CallInput<'a> {
    pub(in crate::ecs) fn context(&self) -> Context<'a> {
        let Self { model, call, settings, environment } = *self;
        Context { scope: Scope::new(model, settings, call), call, settings, environment }
    }

    /// The stored answer to the caller's client token, if it is still valid.
    // A run-out entry may still be stored: the sweep that removes it comes later.
    pub fn token(&self, id: &str) -> Option<&'a Token> {
        self.model.tokens.get(id).filter(|token| !token.is_over(self.environment.now_s))
    }

    /// The refusal without anything that the caller may not see.
    pub fn redacted(&self, error: ApiError) -> ApiError {
        let named = |id: &str| self.call.parameters.pairs().any(|(_, value)| value.contains(id));
        ApiError { message: self.context().scope.redacted(&error.message, named), ..error }
    }
}

/// A call as its action sees it.
#[derive(Clone, Copy)]
pub(in crate::ecs) struct Context<'a> {
    /// The state as far as the caller may see it; the only access to it.
    pub(in crate::ecs) scope: Scope<'a>,
    /// The call.
    pub(in crate::ecs) call: &'a Call,
    /// The settings.
    pub(in crate::ecs) settings: &'a ApiSettings,
    /// Time and new identifiers.
    pub(in crate::ecs) environment: &'a Environment,
}

/// The response once a change is made.
pub(in crate::ecs) type AnswerOf = Box<dyn FnOnce(&CallInput<'_>) -> Map<String, Value>>;
/// The same, with a context as its argument.
pub(in crate::ecs) type AnswerInContext = Box<dyn FnOnce(&Context<'_>) -> Map<String, Value>>;

/// The result of a call.
pub enum Plan {
    /// A response without a change.
    Answer(Map<String, Value>),
    /// A change, and the response once it is made.
    Change(Box<Command>, AnswerOf),
}

/// The members of a JSON object.
pub(in crate::ecs) fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

impl Plan {
    /// A response without a change.
    pub fn answer(value: Value) -> Self {
        Self::Answer(members(value))
    }
}

impl<'a> Context<'a> {
    /// The parameters of the call.
    pub(in crate::ecs) fn parameters(&self) -> &'a Parameters {
        &self.call.parameters
    }

    /// The region that the call names, or the first one.
    pub(in crate::ecs) fn region(&self) -> &'a str {
        self.call.parameters.text("RegionId").unwrap_or(self.settings.first_region())
    }

    /// Refuses an unknown region.
    pub(in crate::ecs) fn check_region(&self) -> Result<(), ApiError> {
        match self.call.parameters.text("RegionId") {
            Some(region) if !self.settings.regions.iter().any(|known| known == region) => {
                // Some actions list a code of their own for text that cannot be a region; the others know one code for
                // both.
                let letters = region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
                let is_malformed = !letters && self.call.action.schema().lists(REGION_MALFORMED.code);
                let kind = if is_malformed { REGION_MALFORMED } else { REGION_NOT_FOUND };
                Err(kind.error("The specified RegionId does not exist.").field("RegionId"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a VPC that is still being made.
    pub(in crate::ecs) fn check_vpc_made(&self, id: &VpcId, vpc: &Vpc) -> Result<(), ApiError> {
        match self.is_passing(vpc.created_s) {
            true => Err(VPC_STATUS.error(format!("{id} is still being made.")).object(id)),
            false => Ok(()),
        }
    }

    /// Refuses a vSwitch that is still being made.
    pub(in crate::ecs) fn check_vswitch_made(&self, id: &VSwitchId, vswitch: &VSwitch) -> Result<(), ApiError> {
        match self.is_passing(vswitch.created_s) {
            true => Err(VSWITCH_STATUS.error(format!("{id} is still being made.")).object(id)),
            false => Ok(()),
        }
    }

    /// Refuses identifiers of groups that are not the caller's.
    pub(in crate::ecs) fn check_groups(&self, ids: &[String]) -> Result<(), ApiError> {
        ids.iter().try_for_each(|id| self.scope.group(id).map(drop))
    }

    /// The caller's account as metadata has it, where the default account is empty.
    fn noted_account(&self) -> String {
        let account = &self.call.account;
        if account == self.settings.first_account() { String::new() } else { account.clone() }
    }

    /// Changes for the caller, made as one, and the response to them.
    pub(in crate::ecs) fn change(&self, mut commands: Vec<Command>, answer: AnswerInContext) -> Plan {
        let command = match (commands.len(), commands.pop()) {
            (1, Some(command)) => command,
            (_, last) => Command::Batch(Batch { commands: commands.into_iter().chain(last).collect() }),
        };
        let named = self.parameters().text("RegionId").filter(|region| *region != self.settings.first_region());
        let on_behalf = OnBehalf {
            owner: self.noted_account(),
            region: named.unwrap_or_default().to_owned(),
            command: Box::new(command),
        };
        Plan::Change(Box::new(Command::OnBehalf(on_behalf)), Box::new(move |input| answer(&input.context())))
    }

    /// Changes for the caller with an empty response.
    pub(in crate::ecs) fn quiet_change(&self, commands: Vec<Command>) -> Plan {
        self.change(commands, Box::new(|_| Map::new()))
    }

    /// The command that sets tags and resource group of a new object, if the call has any.
    pub(in crate::ecs) fn new_label(&self, object: &str, zone: Option<String>) -> Result<Vec<Command>, ApiError> {
        let tags = self.tags("Tag")?;
        let resource_group = self.resource_group()?;
        let attributes = self.attributes();
        if tags.is_empty() && resource_group.is_none() && zone.is_none() && attributes.is_empty() {
            return Ok(vec![]);
        }
        let object = object.to_owned();
        let modify = LabelModify { object, tags, resource_group, zone, attributes, ..LabelModify::default() };
        Ok(vec![Command::LabelModify(modify)])
    }

    /// The parameters that are stored as attributes, by name, as in `SystemDisk.Size` for a field of an object.
    pub(in crate::ecs) fn attributes(&self) -> BTreeMap<String, String> {
        let stored = self.call.action.schema().params.iter().filter(|fact| fact.support == Support::Stored);
        let mut attributes = BTreeMap::new();
        for fact in stored {
            // An empty value is passed on: it removes the attribute.
            if let Some(text) = self.parameters().given(&fact.name) {
                attributes.insert(fact.name.clone(), text.to_owned());
            }
            let object = self.parameters().object(&fact.name);
            attributes.extend(object.pairs().map(|(field, text)| (format!("{}.{field}", fact.name), text.to_owned())));
        }
        attributes
    }

    /// The command that stores the call's attributes with an object. An empty value removes an attribute, and a list
    /// replaces the previous one.
    pub(in crate::ecs) fn note_attributes(&self, object: &str) -> Option<Command> {
        let mut attributes = self.attributes();
        for fact in self.call.action.schema().params.iter().filter(|fact| fact.kind.starts_with("RepeatList")) {
            let prefix = format!("{}.", fact.name);
            let is_of_list = |name: &&String| name.starts_with(&prefix);
            if attributes.keys().any(|name| is_of_list(&name)) {
                // Entries that the new list does not reach are given as empty, which removes them.
                for name in self.scope.label(object).attributes.keys().filter(is_of_list) {
                    attributes.entry(name.clone()).or_default();
                }
            }
        }
        let object = object.to_owned();
        let modify = LabelModify { object, attributes, ..LabelModify::default() };
        (!modify.attributes.is_empty()).then_some(Command::LabelModify(modify))
    }

    /// The resource group that the call names.
    pub(in crate::ecs) fn resource_group(&self) -> Result<Option<String>, ApiError> {
        self.resource_group_named("ResourceGroupId")
    }

    /// The resource group that a parameter of the call names.
    pub(in crate::ecs) fn resource_group_named(&self, name: &str) -> Result<Option<String>, ApiError> {
        let Some(id) = self.parameters().owned(name) else { return Ok(None) };
        let groups = &self.settings.resource_groups;
        // Without groups in the configuration, any identifier in the cloud's form is accepted.
        let exists = match groups.is_empty() {
            true => id.starts_with("rg-") && id.len() <= 64,
            false => groups.contains_key(&id) || id == DEFAULT_RESOURCE_GROUP,
        };
        match exists {
            true => Ok(Some(id)),
            false => Err(RESOURCE_GROUP_NOT_FOUND
                .error("The ResourceGroup provided does not exist in our records.")
                .field(name)),
        }
    }

    /// The tags that the call gives, checked.
    pub(in crate::ecs) fn tags(&self, name: &str) -> Result<BTreeMap<String, String>, ApiError> {
        let mut tags = BTreeMap::new();
        for (_, tag) in self.parameters().objects(name)? {
            let key = tag.text("Key").unwrap_or_default().to_owned();
            let value = tag.text("Value").unwrap_or_default().to_owned();
            let link = |text: &str| text.contains("http://") || text.contains("https://");
            let reserved = key.starts_with("aliyun") || key.starts_with("acs:");
            if key.is_empty() && !value.is_empty() && self.call.action.schema().lists(TAG_MISMATCH.code) {
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
    pub(in crate::ecs) fn has_tags(&self, id: &str) -> Result<bool, ApiError> {
        self.has_tags_named("Tag", id)
    }

    /// The same as [`Context::has_tags`], for another parameter.
    pub(in crate::ecs) fn has_tags_named(&self, name: &str, id: &str) -> Result<bool, ApiError> {
        let tags = &self.scope.label(id).tags;
        let wanted = self.parameters().objects(name)?;
        Ok(wanted.iter().all(|(_, tag)| match (tag.text("Key"), tag.text("Value")) {
            (Some(key), Some(value)) => tags.get(key).is_some_and(|present| present == value),
            (Some(key), None) => tags.contains_key(key),
            (None, _) => true,
        }))
    }

    /// Whether an object is in the resource group that the call asks for.
    pub(in crate::ecs) fn has_resource_group(&self, id: &str) -> bool {
        let wanted = self.parameters().text("ResourceGroupId");
        wanted.is_none_or(|wanted| self.scope.resource_group_of(id) == wanted)
    }

    /// An object's tags, in the form of ECS.
    pub(in crate::ecs) fn tags_of(&self, id: &str) -> Value {
        let tags = self.scope.label(id).tags.iter();
        tags.map(|(key, value)| json!({"TagKey": key, "TagValue": value})).collect()
    }

    /// An object's tags, in the form of VPC.
    pub(in crate::ecs) fn vpc_tags_of(&self, id: &str) -> Value {
        self.scope.label(id).tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect()
    }

    /// The zones of a region.
    pub(in crate::ecs) fn zones_of(&self, region: &str) -> Vec<String> {
        self.settings.catalogue.zones_of(region)
    }

    /// The zone of a vSwitch.
    pub(in crate::ecs) fn zone_of(&self, vswitch: &VSwitchId) -> String {
        match self.scope.zone_noted(vswitch) {
            "" => self.zones_of(self.scope.region_of(vswitch.as_str())).into_iter().next().unwrap_or_default(),
            zone => zone.to_owned(),
        }
    }

    /// Whether an object that changed at this time still shows a transient state.
    pub(in crate::ecs) fn is_passing(&self, changed_s: u64) -> bool {
        self.environment.now_s < changed_s.saturating_add(self.settings.state_delay_s)
    }

    /// The index of the word that a parameter has, in any letter case.
    pub(in crate::ecs) fn word(&self, name: &str, words: &[&str], kind: ErrorKind) -> Result<Option<usize>, ApiError> {
        let Some(text) = self.parameters().text(name) else { return Ok(None) };
        let place = words.iter().position(|word| word.eq_ignore_ascii_case(text));
        let words = words.iter().filter(|word| !word.is_empty()).copied().collect::<Vec<_>>().join(", ");
        place.map(Some).ok_or_else(|| kind.error(format!("write one of {words}.")).field(name))
    }

    /// Refuses a name or description that is too long or a URL.
    pub(in crate::ecs) fn check_text(&self, name: &str, text: &str, most: usize) -> Result<(), ApiError> {
        let is_address = text.starts_with("http://") || text.starts_with("https://");
        match is_address || text.chars().any(char::is_control) || text.chars().count() > most {
            true => self.refuse(name, &format!("write 1 to {most} characters that are not a URL")),
            false => Ok(()),
        }
    }

    /// Refuses a parameter that makes no sense.
    pub(in crate::ecs) fn refuse<T>(&self, name: &str, reason: &str) -> Result<T, ApiError> {
        Err(INVALID_PARAMETER.error(format!("{name}: {reason}")).field(name))
    }
}
