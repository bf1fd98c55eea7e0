//! The table of actions, with a row for each and a function that turns a call into a plan.

mod account;
mod catalogue;
mod disk;
mod eni;
mod group;
pub(in crate::ecs) mod instance;
pub(in crate::ecs) mod key_pair;
mod outside;
mod port_list;
mod prefix_list;
mod region;
mod rule;
mod tag;
mod vpc;
mod vswitch;

use super::dialect::{Action, Product};
use crate::error::{ApiError, INVALID_ACTION_NOT_FOUND, INVALID_VERSION};
use Product::{Ecs, ResourceManager, Sts, Vpc};

macro_rules! actions {
    ($($product:ident $name:literal $perform:path;)*) => {
        /// Every action.
        pub static ACTIONS: &[Action] =
            &[$(Action { product: $product, name: $name, perform: $perform },)*];
    };
}

actions! {
    Ecs "CreateSecurityGroup" group::create;
    Ecs "DescribeSecurityGroups" group::list::describe;
    Ecs "DescribeSecurityGroupAttribute" group::list::describe_attribute;
    Ecs "DescribeSecurityGroupReferences" group::list::describe_references;
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
    Ecs "ListTagResources" tag::list::list;
    Ecs "AddTags" tag::add;
    Ecs "RemoveTags" tag::remove;
    Ecs "DescribeTags" tag::list::describe_tags;
    Ecs "DescribeResourceByTags" tag::list::describe_resources;
    Ecs "JoinResourceGroup" tag::join_resource_group;
    Ecs "CreateNetworkInterface" eni::create;
    Ecs "AttachNetworkInterface" eni::attach;
    Ecs "DetachNetworkInterface" eni::detach;
    Ecs "DeleteNetworkInterface" eni::delete;
    Ecs "DescribeNetworkInterfaces" eni::list::describe;
    Ecs "DescribeNetworkInterfaceAttribute" eni::list::describe_attribute;
    Ecs "AssignPrivateIpAddresses" eni::address::assign_ipv4;
    Ecs "UnassignPrivateIpAddresses" eni::address::unassign_ipv4;
    Ecs "AssignIpv6Addresses" eni::address::assign_ipv6;
    Ecs "UnassignIpv6Addresses" eni::address::unassign_ipv6;
    Ecs "RunInstances" instance::create::run;
    Ecs "CreateInstance" instance::create::create;
    Ecs "StartInstance" instance::start;
    Ecs "StartInstances" instance::start_all;
    Ecs "StopInstance" instance::stop;
    Ecs "StopInstances" instance::stop_all;
    Ecs "RebootInstance" instance::reboot;
    Ecs "DeleteInstance" instance::delete;
    Ecs "DeleteInstances" instance::delete_all;
    Ecs "DescribeInstances" instance::list::describe;
    Ecs "DescribeInstanceStatus" instance::list::describe_status;
    Ecs "DescribeInstanceAttribute" instance::list::describe_attribute;
    Ecs "ModifyInstanceVpcAttribute" instance::modify_vpc_attribute;
    Ecs "DescribeUserData" instance::attributes::describe_user_data;
    Ecs "DescribeInstanceRamRole" instance::attributes::describe_ram_roles;
    Ecs "DescribeInstanceMaintenanceAttributes" instance::attributes::describe_maintenance;
    Ecs "DescribeInstanceAttachmentAttributes" instance::attributes::describe_attachment;
    Ecs "DescribeInstanceAutoRenewAttribute" instance::attributes::describe_auto_renew;
    Ecs "ModifyInstanceMetadataOptions" instance::attributes::note;
    Ecs "ModifyInstanceMaintenanceAttributes" instance::attributes::note;
    Ecs "ModifyInstanceAutoRenewAttribute" instance::attributes::note;
    Ecs "ModifyInstanceDeployment" instance::attributes::note;
    Ecs "ModifyInstanceAttachmentAttributes" instance::attributes::note;
    Ecs "ModifyInstanceChargeType" instance::attributes::note;
    Ecs "ModifyInstanceAutoReleaseTime" instance::attributes::auto_release_time;
    Ecs "AttachInstanceRamRole" instance::attributes::attach_ram_role;
    Ecs "DetachInstanceRamRole" instance::attributes::detach_ram_role;
    Ecs "ModifyInstanceNetworkSpec" instance::public_address::modify_network_spec;
    Ecs "AllocatePublicIpAddress" instance::public_address::allocate;
    Ecs "ModifyInstanceSpec" instance::modify_spec;
    Ecs "ModifyPrepayInstanceSpec" instance::modify_spec;
    Ecs "ReplaceSystemDisk" disk::replace_system;
    Ecs "RebootInstances" instance::reboot_all;
    Ecs "DescribeDisks" disk::describe;
    Ecs "CreateDisk" disk::create;
    Ecs "AttachDisk" disk::attach;
    Ecs "DetachDisk" disk::detach;
    Ecs "DeleteDisk" disk::delete;
    Ecs "ModifyDiskAttribute" disk::modify_attribute;
    Ecs "ModifyDiskSpec" disk::modify_spec;
    Ecs "ResizeDisk" disk::resize;
    Ecs "DescribeSnapshots" disk::describe_snapshots;
    Ecs "CreateKeyPair" key_pair::create;
    Ecs "ImportKeyPair" key_pair::import;
    Ecs "DescribeKeyPairs" key_pair::describe;
    Ecs "DeleteKeyPairs" key_pair::delete;
    Ecs "AttachKeyPair" key_pair::attach;
    Ecs "DetachKeyPair" key_pair::detach;
    Ecs "DescribeAvailableResource" catalogue::available_resource;
    Ecs "DescribeInstanceTypes" catalogue::instance_types;
    Ecs "DescribeInstanceTypeFamilies" catalogue::instance_type_families;
    Ecs "DescribeImages" catalogue::images;
    Ecs "DescribeImageSupportInstanceTypes" catalogue::image_support;
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
    Vpc "AssociateVpcCidrBlock" vpc::block::associate;
    Vpc "UnassociateVpcCidrBlock" vpc::block::unassociate;
    Vpc "CreateDefaultVpc" vpc::default::create_vpc;
    Vpc "CreateDefaultVSwitch" vpc::default::create_vswitch;
    Vpc "MoveResourceGroup" tag::move_resource_group;
    Vpc "CreateDhcpOptionsSet" vpc::dhcp::create;
    Vpc "GetDhcpOptionsSet" vpc::dhcp::get;
    Vpc "ListDhcpOptionsSets" vpc::dhcp::list;
    Vpc "UpdateDhcpOptionsSetAttribute" vpc::dhcp::update;
    Vpc "DeleteDhcpOptionsSet" vpc::dhcp::delete;
    Vpc "AttachDhcpOptionsSetToVpc" vpc::dhcp::attach;
    Vpc "ReplaceVpcDhcpOptionsSet" vpc::dhcp::replace;
    Vpc "DetachDhcpOptionsSetFromVpc" vpc::dhcp::detach;
    Vpc "CreateVSwitchCidrReservation" vswitch::reservation::create;
    Vpc "ModifyVSwitchCidrReservationAttribute" vswitch::reservation::modify;
    Vpc "DeleteVSwitchCidrReservation" vswitch::reservation::delete;
    Vpc "ListVSwitchCidrReservations" vswitch::reservation::list;
    Vpc "GetVSwitchCidrReservationUsage" vswitch::reservation::usage;
    Vpc "DescribeVRouters" vpc::route::describe_routers;
    Vpc "ModifyVRouterAttribute" vpc::route::modify_router;
    Vpc "DescribeRouteTableList" vpc::route::describe_table_list;
    Vpc "DescribeRouteTables" vpc::route::describe_tables;
    Vpc "ModifyRouteTableAttributes" vpc::route::modify_table;
    Vpc "DescribeRouteEntryList" vpc::route::describe_entries;
    Vpc "CreateRouteEntry" vpc::route_entry::create;
    Vpc "CreateRouteEntries" vpc::route_entry::create_all;
    Vpc "ModifyRouteEntry" vpc::route_entry::modify;
    Vpc "DeleteRouteEntry" vpc::route_entry::delete;
    Vpc "DeleteRouteEntries" vpc::route_entry::delete_all;
    Vpc "AllocateEipAddress" outside::eip::allocate;
    Vpc "AssociateEipAddress" outside::eip::associate;
    Vpc "UnassociateEipAddress" outside::eip::unassociate;
    Vpc "ReleaseEipAddress" outside::eip::release;
    Vpc "DescribeEipAddresses" outside::eip::describe;
    Vpc "ModifyEipAddressAttribute" outside::eip::modify;
    Vpc "CreateNatGateway" outside::nat_gateway::create;
    Vpc "DescribeNatGateways" outside::nat_gateway::describe;
    Vpc "ModifyNatGatewayAttribute" outside::nat_gateway::modify;
    Vpc "DeleteNatGateway" outside::nat_gateway::delete;
    Vpc "CreateSnatEntry" outside::snat::create;
    Vpc "DescribeSnatTableEntries" outside::snat::describe;
    Vpc "ModifySnatEntry" outside::snat::modify;
    Vpc "DeleteSnatEntry" outside::snat::delete;
    Vpc "CreateForwardEntry" outside::forward::create;
    Vpc "DescribeForwardTableEntries" outside::forward::describe;
    Vpc "ModifyForwardEntry" outside::forward::modify;
    Vpc "DeleteForwardEntry" outside::forward::delete;
    Vpc "DescribeRegions" region::describe_vpc_regions;
    Vpc "DescribeZones" region::describe_vpc_zones;
    Vpc "TagResources" tag::tag;
    Vpc "UnTagResources" tag::untag;
    Vpc "ListTagResources" tag::list::list;
    Sts "GetCallerIdentity" account::caller_identity;
    ResourceManager "ListResourceGroups" account::list_resource_groups;
    ResourceManager "GetResourceGroup" account::resource_group;
}

/// Network actions that also exist in the older API version of instances.
const OLD_NETWORK_ACTIONS: [&str; 27] = [
    "CreateVpc",
    "DescribeVpcs",
    "ModifyVpcAttribute",
    "DeleteVpc",
    "CreateVSwitch",
    "DescribeVSwitches",
    "ModifyVSwitchAttribute",
    "DeleteVSwitch",
    "DescribeVRouters",
    "DescribeRouteTables",
    "CreateRouteEntry",
    "DeleteRouteEntry",
    "ModifyVRouterAttribute",
    "AllocateEipAddress",
    "AssociateEipAddress",
    "UnassociateEipAddress",
    "ReleaseEipAddress",
    "DescribeEipAddresses",
    "ModifyEipAddressAttribute",
    "CreateNatGateway",
    "DescribeNatGateways",
    "DeleteNatGateway",
    "CreateForwardEntry",
    "DescribeForwardTableEntries",
    "ModifyForwardEntry",
    "DeleteForwardEntry",
    "ModifyNatGatewayAttribute",
];

/// The action of a version and a name.
///
/// # Errors
/// There is no such version, or no such action.
pub fn find_action(version: Option<&str>, name: Option<&str>) -> Result<&'static Action, ApiError> {
    let products: &[Product] = match version {
        // Networks were part of this version before they were a product of their own.
        Some("2014-05-26") => &[Ecs, Vpc],
        Some("2016-04-28") => &[Vpc],
        Some("2015-04-01") => &[Sts],
        Some("2020-03-31") => &[ResourceManager],
        _ => return Err(INVALID_VERSION.error("Specified parameter Version is not valid.").field("Version")),
    };
    let is_old = |name: &str| version != Some(Ecs.version()) || OLD_NETWORK_ACTIONS.contains(&name);
    let is_meant = |action: &Action, product| action.product == product && (product != Vpc || is_old(action.name));
    let named = |product| ACTIONS.iter().find(|action| Some(action.name) == name && is_meant(action, product));
    products.iter().find_map(|product| named(*product)).ok_or_else(|| {
        INVALID_ACTION_NOT_FOUND.error("Specified api is not found, please check your url and method.").field("Action")
    })
}
