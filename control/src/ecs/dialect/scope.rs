//! The isolation of accounts and regions: the only access of a call to the state.
//!
//! No action holds the model. Whatever a call names or lists is looked up here, for its account and region, and for the
//! kind of access. What the caller may not see is refused as if it did not exist.

use super::settings::{ApiSettings, DEFAULT_RESOURCE_GROUP};
use crate::command::Command;
use crate::ecs::dialect::Action;
use crate::environment::Environment;
use crate::error::{
    ApiError, EIP_NOT_FOUND, ENI_NOT_FOUND, ErrorKind, GROUP_NOT_FOUND, INSTANCE_NOT_FOUND, NAT_NOT_FOUND,
    PORT_LIST_NOT_FOUND, PREFIX_LIST_NOT_FOUND, VPC_NOT_FOUND, VSWITCH_NOT_FOUND,
};
use crate::model::{
    Eip, Eni, ForwardEntry, Group, Instance, Metadata, Model, NatGateway, PortList, PrefixList, Quotas, Record, Rule,
    SnatEntry, VSwitch, Vpc,
};
use ipnet::{IpNet, Ipv6Net};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use vswitch_core::config::ids::{EniId, GroupId, PortListId, PrefixListId, RuleId, VSwitchId, VpcId, quoted};

const INSTANCE_ID: ErrorKind = ErrorKind { code: "InvalidInstanceId.Malformed", status: 400 };
const SECURITY_GROUP_ID: ErrorKind = ErrorKind { code: "InvalidSecurityGroupId.Malformed", status: 400 };

/// The kind of access to a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ecs) enum Access {
    /// To look at it, or to place one's own objects in it. Sharing a VPC with an account grants this for the VPC and
    /// its subnets.
    Use,
    /// To change it or its metadata. Only its owner may.
    Own,
}

/// The state as one call may see it.
#[derive(Clone, Copy)]
pub(in crate::ecs) struct Scope<'a> {
    model: &'a Model,
    settings: &'a ApiSettings,
    action: &'static Action,
    account: &'a str,
    /// The region that the call names. If it names none, it applies to objects of all regions.
    region: Option<&'a str>,
}

impl<'a> Scope<'a> {
    pub(in crate::ecs) fn new(model: &'a Model, settings: &'a ApiSettings, call: &'a crate::ecs::Call) -> Self {
        let region = call.parameters.text("RegionId");
        Self { model, settings, action: call.action, account: &call.account, region }
    }

    /// Whether an object belongs to the caller and is in the call's region.
    fn owns(&self, id: &str) -> bool {
        self.owner_of(id) == self.account && self.is_here(id)
    }

    fn is_here(&self, id: &str) -> bool {
        self.region.is_none_or(|region| region == self.region_of(id))
    }

    /// Whether a network, `id`, which is a VPC or in one, grants this access.
    fn grants(&self, id: &str, vpc: &VpcId, access: Access) -> bool {
        let shared =
            || self.settings.shared_vpcs.get(vpc.as_str()).is_some_and(|all| all.iter().any(|one| one == self.account));
        // What somebody owns in a VPC that is not theirs is theirs; the VPC's owner and its users only use the rest.
        self.owns(id) || access == Access::Use && self.is_here(vpc.as_str()) && (self.owns(vpc.as_str()) || shared())
    }

    /// The account that an object belongs to.
    pub(in crate::ecs) fn owner_of(&self, id: &str) -> &'a str {
        match self.model.label(id).owner.as_str() {
            "" => self.settings.first_account(),
            owner => owner,
        }
    }

    /// The region that an object is in.
    pub(in crate::ecs) fn region_of(&self, id: &str) -> &'a str {
        match self.model.label(id).region.as_str() {
            "" => self.settings.first_region(),
            region => region,
        }
    }

    /// The metadata of an object, which only its owner may see.
    pub(in crate::ecs) fn label(&self, id: &str) -> &'a Metadata {
        static NOTHING: Metadata = Metadata::NOTHING;
        // Tags are the owner's: sharing a VPC does not share them.
        if self.owns(id) { self.model.label(id) } else { &NOTHING }
    }

    /// The resource group of one of the caller's objects, each of which has one; empty for others' objects.
    pub(in crate::ecs) fn resource_group_of(&self, id: &str) -> &'a str {
        match self.label(id).resource_group.as_str() {
            "" if self.owns(id) => DEFAULT_RESOURCE_GROUP,
            noted => noted,
        }
    }

    /// The recorded zone of a subnet; empty for its region's first one.
    pub(in crate::ecs) fn zone_noted(&self, vswitch: &VSwitchId) -> &'a str {
        &self.model.label(vswitch.as_str()).zone
    }

    /// A VPC.
    pub(in crate::ecs) fn vpc(&self, id: &str, access: Access) -> Result<(VpcId, &'a Vpc), ApiError> {
        let found = self.model.vpcs.get_key_value(&VpcId::from(id));
        let granted = found.filter(|(id, _)| self.grants(id.as_str(), id, access));
        granted.map(|(id, vpc)| (id.clone(), vpc)).ok_or_else(|| not_found(VPC_NOT_FOUND, "VPC", id))
    }

    /// A subnet.
    pub(in crate::ecs) fn vswitch(&self, id: &str, access: Access) -> Result<(VSwitchId, &'a VSwitch), ApiError> {
        let found = self.model.vswitches.get_key_value(&VSwitchId::from(id));
        let granted = found.filter(|(id, vswitch)| self.grants(id.as_str(), &vswitch.vpc, access));
        granted.map(|(id, object)| (id.clone(), object)).ok_or_else(|| not_found(VSWITCH_NOT_FOUND, "vSwitch", id))
    }

    /// One of the caller's security groups.
    pub(in crate::ecs) fn group(&self, id: &str) -> Result<(GroupId, &'a Group), ApiError> {
        self.check_form(id, SECURITY_GROUP_ID, "SecurityGroupId")?;
        let found = self.model.groups.get_key_value(&GroupId::from(id)).filter(|(id, _)| self.owns(id.as_str()));
        found.map(|(id, group)| (id.clone(), group)).ok_or_else(|| not_found(GROUP_NOT_FOUND, "security group", id))
    }

    /// One of the caller's network interfaces.
    pub(in crate::ecs) fn eni(&self, id: &str) -> Result<(EniId, &'a Eni), ApiError> {
        let found = self.model.enis.get_key_value(&EniId::from(id)).filter(|(id, _)| self.owns(id.as_str()));
        found.map(|(id, eni)| (id.clone(), eni)).ok_or_else(|| not_found(ENI_NOT_FOUND, "network interface", id))
    }

    /// One of the caller's instances.
    pub(in crate::ecs) fn instance(&self, id: &str) -> Result<&'a Instance, ApiError> {
        self.check_form(id, INSTANCE_ID, "InstanceId")?;
        let found = self.model.instances.get(id).filter(|_| self.owns(id));
        found.ok_or_else(|| not_found(INSTANCE_NOT_FOUND, "instance", id))
    }

    /// One of the caller's floating addresses.
    pub(in crate::ecs) fn eip(&self, id: &str) -> Result<&'a Eip, ApiError> {
        let found = self.model.eips.get(id).filter(|_| self.owns(id));
        found.ok_or_else(|| not_found(EIP_NOT_FOUND, "floating address", id))
    }

    /// One of the caller's NAT gateways.
    pub(in crate::ecs) fn nat_gateway(&self, id: &str) -> Result<&'a NatGateway, ApiError> {
        let found = self.model.nat_gateways.get(id).filter(|_| self.owns(id));
        found.ok_or_else(|| not_found(NAT_NOT_FOUND, "NAT gateway", id))
    }

    /// One of the caller's prefix lists.
    pub(in crate::ecs) fn prefix_list(&self, id: &str) -> Result<(PrefixListId, &'a PrefixList), ApiError> {
        let found = self.model.prefix_lists.get_key_value(&PrefixListId::from(id));
        let own = found.filter(|(id, _)| self.owns(id.as_str())).map(|(id, list)| (id.clone(), list));
        own.ok_or_else(|| not_found(PREFIX_LIST_NOT_FOUND, "prefix list", id))
    }

    /// One of the caller's port lists.
    pub(in crate::ecs) fn port_list(&self, id: &str) -> Result<(PortListId, &'a PortList), ApiError> {
        let found = self.model.port_lists.get_key_value(&PortListId::from(id));
        let own = found.filter(|(id, _)| self.owns(id.as_str())).map(|(id, list)| (id.clone(), list));
        own.ok_or_else(|| not_found(PORT_LIST_NOT_FOUND, "port list", id))
    }

    /// Whether a rule of the group `holder` may name this group of `account`: any of the caller's own, and of another
    /// account one in the same VPC. Of others the caller cannot tell whether they exist.
    pub(in crate::ecs) fn is_peer(&self, id: &str, account: &str, holder: &Group) -> bool {
        let found = self.model.groups.get(&GroupId::from(id)).filter(|_| self.owner_of(id) == account);
        found.is_some_and(|group| {
            // A group of another account is admitted only by account and VPC together, so an identifier alone tells
            // nothing.
            self.owns(id) || account != self.account && group.vpc == holder.vpc && !group.is_classic()
        })
    }

    /// Refuses what can be no identifier, where the action has a code for that.
    fn check_form(&self, id: &str, kind: ErrorKind, name: &str) -> Result<(), ApiError> {
        let letters = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        match (letters && id.len() <= 100) || !self.action.schema().lists(kind.code) {
            true => Ok(()),
            false => Err(kind.error("it has at most 100 letters, digits, - and _").field(name)),
        }
    }
}

/// Everything of a kind that the caller may see.
impl<'a> Scope<'a> {
    pub(in crate::ecs) fn vpcs(self) -> impl Iterator<Item = (&'a VpcId, &'a Vpc)> {
        self.model.vpcs.iter().filter(move |(id, _)| self.grants(id.as_str(), id, Access::Use))
    }

    pub(in crate::ecs) fn vswitches(self) -> impl Iterator<Item = (&'a VSwitchId, &'a VSwitch)> {
        let seen = move |id: &VSwitchId, vpc: &VpcId| self.grants(id.as_str(), vpc, Access::Use);
        self.model.vswitches.iter().filter(move |(id, vswitch)| seen(id, &vswitch.vpc))
    }

    pub(in crate::ecs) fn groups(self) -> impl Iterator<Item = (&'a GroupId, &'a Group)> {
        self.model.groups.iter().filter(move |(id, _)| self.owns(id.as_str()))
    }

    pub(in crate::ecs) fn enis(self) -> impl Iterator<Item = (&'a EniId, &'a Eni)> {
        self.model.enis.iter().filter(move |(id, _)| self.owns(id.as_str()))
    }

    pub(in crate::ecs) fn instances(self) -> impl Iterator<Item = (&'a String, &'a Instance)> {
        self.model.instances.iter().filter(move |(id, _)| self.owns(id))
    }

    pub(in crate::ecs) fn prefix_lists(self) -> impl Iterator<Item = (&'a PrefixListId, &'a PrefixList)> {
        self.model.prefix_lists.iter().filter(move |(id, _)| self.owns(id.as_str()))
    }

    pub(in crate::ecs) fn port_lists(self) -> impl Iterator<Item = (&'a PortListId, &'a PortList)> {
        self.model.port_lists.iter().filter(move |(id, _)| self.owns(id.as_str()))
    }

    pub(in crate::ecs) fn eips(self) -> impl Iterator<Item = (&'a String, &'a Eip)> {
        self.model.eips.iter().filter(move |(id, _)| self.owns(id))
    }

    pub(in crate::ecs) fn nat_gateways(self) -> impl Iterator<Item = (&'a String, &'a NatGateway)> {
        self.model.nat_gateways.iter().filter(move |(id, _)| self.owns(id))
    }

    pub(in crate::ecs) fn snat_entries(self) -> impl Iterator<Item = (&'a String, &'a SnatEntry)> {
        self.model.snat_entries.iter().filter(move |(id, _)| self.owns(id))
    }

    pub(in crate::ecs) fn forwards(self) -> impl Iterator<Item = (&'a String, &'a ForwardEntry)> {
        self.model.forwards.iter().filter(move |(id, _)| self.owns(id))
    }

    /// The caller's records of a kind, with what is noted about them.
    pub(in crate::ecs) fn records(self, kind: &'a str) -> impl Iterator<Item = (&'a str, &'a Record, &'a Metadata)> {
        let own = self.model.records.iter().filter(move |(id, record)| record.kind == kind && self.owns(id));
        own.map(move |(id, record)| (id.as_str(), record, self.model.label(id)))
    }

    /// The caller's groups with a rule of this kind.
    pub(in crate::ecs) fn groups_with(self, is_one: impl Fn(&Rule) -> bool) -> impl Iterator<Item = &'a GroupId> {
        let holders = self.model.rules.iter().filter(move |(id, _)| self.owns(id.as_str()));
        holders.filter(move |(_, rules)| rules.values().any(&is_one)).map(|(id, _)| id)
    }
}

/// What hangs on an object that the caller was granted.
impl<'a> Scope<'a> {
    /// The rules of one of the caller's groups; of another's none.
    pub(in crate::ecs) fn rules_of(&self, group: &GroupId) -> &'a BTreeMap<RuleId, Rule> {
        static NONE: BTreeMap<RuleId, Rule> = BTreeMap::new();
        if self.owns(group.as_str()) { self.model.rules_of(group) } else { &NONE }
    }

    /// Other groups, of any account, whose rules name one of the caller's groups. Who grants traffic to a group is told
    /// to its owner, who cannot delete it meanwhile.
    pub(in crate::ecs) fn holders_naming(self, group: &'a GroupId) -> impl Iterator<Item = &'a GroupId> {
        let own = self.owns(group.as_str());
        let holders = self.model.rules.iter().filter(move |(holder, _)| own && *holder != group);
        holders.filter(move |(_, rules)| rules.values().any(|rule| rule.names_group(group))).map(|(id, _)| id)
    }

    /// The members of one of the caller's groups.
    pub(in crate::ecs) fn members(self, group: &GroupId) -> impl ExactSizeIterator<Item = &'a EniId> {
        self.model.index.members(group)
    }

    /// How many addresses an interface takes in its groups.
    pub(in crate::ecs) fn address_count(&self, eni: &EniId) -> usize {
        self.model.enis.get(eni).map_or(0, |eni| eni.prefixes_of_all().count())
    }

    /// The instance that one of the caller's interfaces belongs to.
    pub(in crate::ecs) fn instance_of(&self, eni: &EniId) -> Option<(&'a String, &'a Instance)> {
        self.model.instance_of(eni).filter(|(id, _)| self.owns(id))
    }

    /// The primary interface of one of the caller's instances.
    pub(in crate::ecs) fn primary_of(&self, instance: &'a Instance) -> Option<(&'a EniId, &'a Eni)> {
        self.model.enis.get_key_value(instance.primary()?).filter(|(id, _)| self.owns(id.as_str()))
    }

    /// IPv4 addresses of a subnet that somebody has, or that are kept for prefixes.
    pub(in crate::ecs) fn taken_ipv4_addresses(&self, vswitch: &VSwitchId) -> u64 {
        let enis = self.model.enis.values().filter(|eni| eni.vswitch == *vswitch);
        let kept: Vec<IpNet> = self
            .model
            .vswitches
            .get(vswitch)
            .map_or_else(Vec::new, |vswitch| vswitch.reservations.values().map(|kept| kept.cidr).collect());
        let size = |prefix: IpNet| match prefix {
            IpNet::V4(prefix) => 1_u64 << (32 - u32::from(prefix.prefix_len())),
            IpNet::V6(_) => 0,
        };
        // Addresses of a prefix that is kept count once, with the prefix.
        let apart = |prefix: &IpNet| !kept.iter().any(|kept| kept.contains(prefix));
        enis.flat_map(Eni::prefixes_of_all).filter(apart).chain(kept.iter().copied()).map(size).sum()
    }

    /// The prefixes of a subnet that are delegated, each with the interface that has it; of others' interfaces without.
    pub(in crate::ecs) fn delegated(self, vswitch: &VSwitchId) -> impl Iterator<Item = (IpNet, Option<&'a EniId>)> {
        let vswitch = vswitch.clone();
        let enis = self.model.enis.iter().filter(move |(_, eni)| eni.vswitch == vswitch);
        enis.flat_map(move |(id, eni)| {
            // A prefix of somebody else is shown as taken, because it is; by whom is not the caller's business.
            let shown = Some(id).filter(|id| self.owns(id.as_str()));
            eni.prefixes.iter().map(move |prefix| (*prefix, shown))
        })
    }

    /// Whether some VPC, whosever, has this block.
    pub(in crate::ecs) fn is_ipv6_block_taken(&self, block: &Ipv6Net) -> bool {
        self.model.vpcs.values().any(|vpc| vpc.ipv6_cidr.as_ref() == Some(block))
    }

    /// External addresses that somebody has, whoever.
    pub(in crate::ecs) fn taken_external_addresses(&self) -> BTreeSet<Ipv4Addr> {
        self.model.taken_external_addresses()
    }

    /// How much of everything an account may have.
    pub(in crate::ecs) fn quotas(&self) -> &'a Quotas {
        &self.model.quotas
    }

    /// Whether the model would make a change for the caller.
    pub(in crate::ecs) fn could_change(&self, command: &Command, environment: &Environment) -> Result<(), ApiError> {
        self.model.decide(command, environment).map(drop)
    }

    /// A message without the identifiers of what the caller may not see, but for those that it named itself.
    pub(in crate::ecs) fn redacted(&self, message: &str, is_named: impl Fn(&str) -> bool) -> String {
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
        let mut text = String::with_capacity(message.len());
        for word in message.split_inclusive(|letter| !is_part(letter)) {
            let end = word.find(|letter| !is_part(letter)).unwrap_or(word.len());
            let (word, rest) = word.split_at(end);
            // Identifiers have a dash; without this test, each word of a message would be looked up in every table.
            let hidden = word.contains('-') && self.is_hidden(word) && !is_named(word);
            text.push_str(if hidden { "another object" } else { word });
            text.push_str(rest);
        }
        text
    }

    /// Whether this is an object, or a rule, that the caller may not see.
    fn is_hidden(&self, id: &str) -> bool {
        if self.model.has_object(id) {
            let vswitch = self.model.vswitches.get(&VSwitchId::from(id));
            // A subnet is seen through its VPC, which may be shared; for all other objects this VPC does not exist.
            let vpc = vswitch.map_or_else(|| VpcId::from(id), |vswitch| vswitch.vpc.clone());
            return !self.grants(id, &vpc, Access::Use);
        }
        let rule = RuleId::from(id);
        // The rule is searched everywhere: a message can name it without its group.
        self.model.rules.iter().any(|(group, rules)| rules.contains_key(&rule) && !self.owns(group.as_str()))
    }
}

fn not_found(kind: ErrorKind, noun: &str, id: &str) -> ApiError {
    // The client's text is cut, so that it does not determine the length of a response.
    let shown: String = id.chars().take(100).collect();
    kind.error(format!("there is no {noun} {shown}", shown = quoted(&shown)))
}
