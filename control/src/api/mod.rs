//! The HTTP interface's actions: one row each, from a call to a plan.
//!
//! A call goes through the row's parameters as the published interface has them ([`facts`]), then its own function,
//! which reads the rest, looks up what the caller may see and says what to change and to answer. Nothing here changes
//! anything: the server does, once it has a [`Plan`].

mod answer;
mod check;
mod context;
mod eni;
mod eni_address;
mod eni_list;
mod facts;
mod gate;
mod group;
mod group_list;
mod instance;
mod instance_create;
mod instance_filter;
mod instance_list;
mod nonces;
mod page;
mod paging;
mod parameters;
mod port_list;
mod prefix_list;
mod region;
mod rule;
mod scope;
mod settings;
mod signature;
mod tag;
mod tag_list;
mod vpc;
mod vswitch;

pub use answer::{Format, complete, failure, success};
pub use context::{Call, Desk, Plan};
pub use facts::{ActionFact, ErrorFact, Facts, ParameterFact, facts};
pub use gate::{Envelope, Gate};
pub use page::reference_page;
pub use parameters::{PARAMETERS_MAX, Parameters, canonical, encode, read_pairs};
pub use settings::{AccessKey, ApiSettings, FIRST_ACCOUNT};
pub use signature::{
    Authorization, V3_ALGORITHM, V3Request, hash, hex, v1_sign, v1_string_to_sign, v3_sign, v3_string_to_sign,
};

use crate::error::{ApiError, INVALID_ACTION_NOT_FOUND, INVALID_VERSION};
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// One of the two products that share the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// Instances, interfaces and security groups.
    Ecs,
    /// Private networks.
    Vpc,
}

impl Product {
    /// Its version, by which requests name it.
    pub fn version(self) -> &'static str {
        match self {
            Self::Ecs => "2014-05-26",
            Self::Vpc => "2016-04-28",
        }
    }

    /// Its name in the published interface.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ecs => "ECS",
            Self::Vpc => "VPC",
        }
    }
}

/// One action.
#[derive(Debug)]
pub struct Action {
    /// Its product.
    pub product: Product,
    /// Its name.
    pub name: &'static str,
    perform: fn(&context::Context<'_>) -> Result<Plan, ApiError>,
}

use Product::{Ecs, Vpc};

macro_rules! actions {
    ($($product:ident $name:literal $perform:path;)*) => {
        /// Every action there is.
        pub static ACTIONS: &[Action] =
            &[$(Action { product: $product, name: $name, perform: $perform },)*];
    };
}

actions! {
    Ecs "CreateSecurityGroup" group::create;
    Ecs "DescribeSecurityGroups" group_list::describe;
    Ecs "DescribeSecurityGroupAttribute" group_list::describe_attribute;
    Ecs "DescribeSecurityGroupReferences" group_list::describe_references;
    Ecs "AuthorizeSecurityGroup" rule::authorize_ingress;
    Ecs "AuthorizeSecurityGroupEgress" rule::authorize_egress;
    Ecs "RevokeSecurityGroup" rule::revoke_ingress;
    Ecs "RevokeSecurityGroupEgress" rule::revoke_egress;
    Ecs "ModifySecurityGroupRule" rule::modify_ingress;
    Ecs "ModifySecurityGroupEgressRule" rule::modify_egress;
    Ecs "ModifySecurityGroupPolicy" group::modify_policy;
    Ecs "ModifySecurityGroupAttribute" group::modify_attribute;
    Ecs "DeleteSecurityGroup" group::delete;
    Ecs "JoinSecurityGroup" group::join;
    Ecs "LeaveSecurityGroup" group::leave;
    Ecs "ModifyInstanceAttribute" instance::modify_attribute;
    Ecs "ModifyNetworkInterfaceAttribute" eni::modify_attribute;
    Ecs "CreatePrefixList" prefix_list::create;
    Ecs "ModifyPrefixList" prefix_list::modify;
    Ecs "DeletePrefixList" prefix_list::delete;
    Ecs "DescribePrefixLists" prefix_list::describe;
    Ecs "DescribePrefixListAttributes" prefix_list::describe_attributes;
    Ecs "DescribePrefixListAssociations" prefix_list::describe_associations;
    Ecs "CreatePortRangeList" port_list::create;
    Ecs "ModifyPortRangeList" port_list::modify;
    Ecs "DeletePortRangeList" port_list::delete;
    Ecs "DescribePortRangeLists" port_list::describe;
    Ecs "DescribePortRangeListEntries" port_list::describe_entries;
    Ecs "DescribePortRangeListAssociations" port_list::describe_associations;
    Ecs "TagResources" tag::tag;
    Ecs "UntagResources" tag::untag;
    Ecs "ListTagResources" tag_list::list;
    Ecs "AddTags" tag::add;
    Ecs "RemoveTags" tag::remove;
    Ecs "DescribeTags" tag_list::describe_tags;
    Ecs "DescribeResourceByTags" tag_list::describe_resources;
    Ecs "JoinResourceGroup" tag::join_resource_group;
    Ecs "CreateNetworkInterface" eni::create;
    Ecs "AttachNetworkInterface" eni::attach;
    Ecs "DetachNetworkInterface" eni::detach;
    Ecs "DeleteNetworkInterface" eni::delete;
    Ecs "DescribeNetworkInterfaces" eni_list::describe;
    Ecs "DescribeNetworkInterfaceAttribute" eni_list::describe_attribute;
    Ecs "AssignPrivateIpAddresses" eni_address::assign_ipv4;
    Ecs "UnassignPrivateIpAddresses" eni_address::unassign_ipv4;
    Ecs "AssignIpv6Addresses" eni_address::assign_ipv6;
    Ecs "UnassignIpv6Addresses" eni_address::unassign_ipv6;
    Ecs "RunInstances" instance_create::run;
    Ecs "CreateInstance" instance_create::create;
    Ecs "StartInstance" instance::start;
    Ecs "StartInstances" instance::start_all;
    Ecs "StopInstance" instance::stop;
    Ecs "StopInstances" instance::stop_all;
    Ecs "RebootInstance" instance::reboot;
    Ecs "DeleteInstance" instance::delete;
    Ecs "DeleteInstances" instance::delete_all;
    Ecs "DescribeInstances" instance_list::describe;
    Ecs "DescribeInstanceStatus" instance_list::describe_status;
    Ecs "DescribeInstanceAttribute" instance_list::describe_attribute;
    Ecs "ModifyInstanceVpcAttribute" instance::modify_vpc_attribute;
    Ecs "DescribeRegions" region::describe_regions;
    Ecs "DescribeZones" region::describe_zones;
    Ecs "DescribeAccountAttributes" region::describe_account_attributes;
    Vpc "CreateVpc" vpc::create;
    Vpc "DescribeVpcs" vpc::describe;
    Vpc "DescribeVpcAttribute" vpc::describe_attribute;
    Vpc "ModifyVpcAttribute" vpc::modify;
    Vpc "DeleteVpc" vpc::delete;
    Vpc "CreateVSwitch" vswitch::create;
    Vpc "DescribeVSwitches" vswitch::describe;
    Vpc "DescribeVSwitchAttributes" vswitch::describe_attributes;
    Vpc "ModifyVSwitchAttribute" vswitch::modify;
    Vpc "DeleteVSwitch" vswitch::delete;
    Vpc "DescribeRegions" region::describe_vpc_regions;
    Vpc "DescribeZones" region::describe_vpc_zones;
    Vpc "TagResources" tag::tag;
    Vpc "UnTagResources" tag::untag;
    Vpc "ListTagResources" tag_list::list;
}

impl Action {
    /// The action of a version and a name.
    ///
    /// # Errors
    /// Where there is no such version or no such action.
    pub fn find(version: Option<&str>, name: Option<&str>) -> Result<&'static Self, ApiError> {
        let product = match version {
            Some("2014-05-26") => Some(Ecs),
            Some("2016-04-28") => Some(Vpc),
            _ => None,
        };
        let product = product
            .ok_or_else(|| INVALID_VERSION.error("Specified parameter Version is not valid.").field("Version"))?;
        let found = ACTIONS.iter().find(|action| action.product == product && Some(action.name) == name);
        found.ok_or_else(|| {
            INVALID_ACTION_NOT_FOUND
                .error("Specified api is not found, please check your url and method.")
                .field("Action")
        })
    }

    /// What the published interface says of it.
    ///
    /// # Panics
    /// If the table has a row that the published interface has not, which a test rules out.
    pub fn fact(&self) -> &'static ActionFact {
        static PLACES: LazyLock<Vec<Option<usize>>> = LazyLock::new(|| {
            let place = |action: &Action| {
                let same = |fact: &ActionFact| fact.action == action.name && fact.product == action.product.name();
                facts().actions.iter().position(same)
            };
            ACTIONS.iter().map(place).collect()
        });
        let row = ACTIONS.iter().position(|other| std::ptr::eq(other, self));
        let place = row.and_then(|row| PLACES[row]).expect("every row is an action of the published interface");
        &facts().actions[place]
    }

    /// Whether it only asks.
    pub fn is_question(&self) -> bool {
        self.name.starts_with("Describe") || self.name.starts_with("List")
    }

    /// Whether it can be tried without doing it.
    pub fn has_dry_run(&self) -> bool {
        self.fact().params.iter().any(|fact| fact.name == "DryRun")
    }
}

/// Refuses a call for what can be seen without looking at the state.
///
/// # Errors
/// A refusal in the action's words.
pub fn check(desk: &Desk<'_>) -> Result<(), ApiError> {
    let checked = check::check_parameters(desk.call.action.fact(), &desk.call.parameters);
    checked.and_then(|()| desk.context().check_region()).map_err(|error| refusal(desk.call, error))
}

/// What a call that was checked comes to.
///
/// # Errors
/// A refusal in the action's words.
pub fn plan(desk: &Desk<'_>) -> Result<Plan, ApiError> {
    (desk.call.action.perform)(&desk.context()).map_err(|error| refusal(desk.call, error))
}

/// A refusal in the action's words.
pub fn refusal(call: &Call, error: ApiError) -> ApiError {
    check::in_words_of(call.action.fact(), error)
}

/// An answer with everything that the published interface has in it.
pub fn completed(action: &Action, answer: Map<String, Value>) -> Map<String, Value> {
    // What pages say and what is bought is there only where it means something.
    const OWN: [&str; 7] = ["RequestId", "NextToken", "TotalCount", "PageNumber", "PageSize", "OrderId", "TradePrice"];
    let mut types = action.fact().response.clone();
    if let Value::Object(members) = &mut types {
        members.retain(|name, _| !OWN.contains(&name.as_str()));
    }
    let mut answer = Value::Object(answer);
    complete(&mut answer, &types);
    context::members(answer)
}
