//! The commands of the control socket: every change that can be requested, in the words that a person types.
//!
//! Addresses, prefixes, ports and protocols are text here, and are parsed and checked by the [model](crate::model), so
//! that each refusal can name the field, the value and what to do. On the wire a command is one JSON object whose `op`
//! is the variant's name in kebab case, as in `{"op":"vpc-create","cidr":"10.0.0.0/16"}`; unknown fields are refused.
//!
//! A parameter is described only here: `#[derive(Args)]` makes it an option of the `sluice` command, and the
//! description becomes the help text and the entry in the reference pages. Lab files use the same structures.
//!
//! Where a command creates something, `id` may be given. It is refused if malformed or in use, and made up if absent.

mod eni;
mod group;
mod instance;
mod list;
mod nat;
mod network;
mod rule;
mod settings;
mod uplink;

pub(crate) use eni::USER_DATA_BYTES_MAX;
pub use eni::{
    EniAssign, EniAttach, EniCreate, EniDelete, EniDetach, EniModify, EniUnassign, PortSpecification, RateLimitsChange,
    TimeoutsChange, TrackingChange,
};
pub use group::{GroupCreate, GroupDelete, GroupJoin, GroupLeave, GroupModify};
pub use instance::{
    InstanceAttach, InstanceCreate, InstanceDelete, InstanceModify, InstanceMove, InstanceRun, LabelModify, OnBehalf,
    PortKind, RecordCreate, RecordDelete,
};
pub use list::{
    PortListCreate, PortListDelete, PortListEntry, PortListModify, PrefixListCreate, PrefixListDelete, PrefixListEntry,
    PrefixListModify, port_range,
};
pub use nat::{
    EipAllocate, EipAssociate, EipModify, EipRelease, EipUnassociate, ForwardAdd, ForwardModify, ForwardRemove,
    NatCreate, NatDelete, NatModify, SnatAdd, SnatModify, SnatRemove,
};
pub use network::{
    PeeringCreate, PeeringDelete, VpcCreate, VpcDelete, VpcModify, VpcRouteAdd, VpcRouteRemove, VswitchCreate,
    VswitchDelete, VswitchModify, VswitchReservationModify, VswitchReserve, VswitchUnreserve,
};
pub(crate) use rule::ANY_PORTS;
pub use rule::{RuleAuthorize, RuleChange, RuleModify, RuleRevoke, RuleSpec, RuleView, prefix_without_host_bits};
pub use settings::SettingsModify;
pub use uplink::{UplinkCreate, UplinkDelete, UplinkKind, UplinkModify, UplinkNat};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::{Deserialize, Serialize};

macro_rules! vocabulary {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }
    )*};
}
pub(crate) use vocabulary;

/// A change to the state. It is accepted or refused as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Command {
    /// Makes a VPC.
    VpcCreate(VpcCreate),
    /// Changes a VPC's name, description or blocks.
    VpcModify(VpcModify),
    /// Removes an empty VPC.
    VpcDelete(VpcDelete),
    /// Sends a destination outside the VPC's subnets to one of its ENIs. Set again, it replaces the ENI.
    VpcRouteAdd(VpcRouteAdd),
    /// Removes a custom route.
    VpcRouteRemove(VpcRouteRemove),
    /// Makes a subnet of a VPC.
    VswitchCreate(VswitchCreate),
    /// Changes a subnet's name, description or IPv6 block.
    VswitchModify(VswitchModify),
    /// Removes a subnet without ENIs.
    VswitchDelete(VswitchDelete),
    /// Reserves a part of a subnet's block for delegated prefixes.
    VswitchReserve(VswitchReserve),
    /// Changes the name or description of a reservation.
    VswitchReservationModify(VswitchReservationModify),
    /// Ends a reservation.
    VswitchUnreserve(VswitchUnreserve),
    /// Makes a network interface.
    EniCreate(Box<EniCreate>),
    /// Changes a network interface; `groups` replaces the whole set.
    EniModify(EniModify),
    /// Removes a network interface.
    EniDelete(EniDelete),
    /// Gives an ENI more addresses or delegated prefixes.
    EniAssign(EniAssign),
    /// Takes addresses or delegated prefixes from an ENI.
    EniUnassign(EniUnassign),
    /// Gives an ENI a port.
    EniAttach(EniAttach),
    /// Unplugs an ENI from its port.
    EniDetach(EniDetach),
    /// Makes a security group, without rules.
    GroupCreate(GroupCreate),
    /// Changes a group's name, description or inner access policy.
    GroupModify(GroupModify),
    /// Removes a group without members that no other group's rule names.
    GroupDelete(GroupDelete),
    /// Makes an ENI a member of one more group.
    GroupJoin(GroupJoin),
    /// Takes an ENI out of one group.
    GroupLeave(GroupLeave),
    /// Adds rules to a group, all or none. It is no error if a rule exists already.
    RuleAuthorize(RuleAuthorize),
    /// Removes rules from a group, all or none, by identifier or by their fields.
    RuleRevoke(RuleRevoke),
    /// Changes one rule.
    RuleModify(RuleModify),
    /// Makes a prefix list.
    PrefixListCreate(PrefixListCreate),
    /// Changes a prefix list's name, description or entries, and with the entries every rule that names it.
    PrefixListModify(PrefixListModify),
    /// Removes a prefix list that no rule names.
    PrefixListDelete(PrefixListDelete),
    /// Makes a port list.
    PortListCreate(PortListCreate),
    /// Changes a port list's name, description or entries, and with the entries every rule that names it.
    PortListModify(PortListModify),
    /// Removes a port list that no rule names.
    PortListDelete(PortListDelete),
    /// Changes settings. Absent fields stay.
    SettingsModify(SettingsModify),
    /// Joins two VPCs.
    PeeringCreate(PeeringCreate),
    /// Parts two VPCs.
    PeeringDelete(PeeringDelete),
    /// Makes the way out of a VPC.
    UplinkCreate(Box<UplinkCreate>),
    /// Changes the way out of a VPC.
    UplinkModify(UplinkModify),
    /// Removes the way out of a VPC.
    UplinkDelete(UplinkDelete),
    /// Takes a floating address.
    EipAllocate(EipAllocate),
    /// Changes the name or description of a floating address.
    EipModify(EipModify),
    /// Makes a floating address stand for a private one, or gives it to a NAT gateway.
    EipAssociate(EipAssociate),
    /// Ends what a floating address stands for.
    EipUnassociate(EipUnassociate),
    /// Gives a floating address back.
    EipRelease(EipRelease),
    /// Makes a NAT gateway, without entries.
    NatCreate(NatCreate),
    /// Changes the name or description of a NAT gateway.
    NatModify(NatModify),
    /// Removes a NAT gateway.
    NatDelete(NatDelete),
    /// Adds an entry for sources to a NAT gateway.
    SnatAdd(SnatAdd),
    /// Changes an entry for sources.
    SnatModify(SnatModify),
    /// Removes an entry for sources.
    SnatRemove(SnatRemove),
    /// Leads external ports to a private address.
    ForwardAdd(ForwardAdd),
    /// Changes a forward.
    ForwardModify(ForwardModify),
    /// Removes a forward.
    ForwardRemove(ForwardRemove),
    /// Makes an instance and its primary network interface.
    InstanceCreate(Box<InstanceCreate>),
    /// Changes an instance's names, description and protection.
    InstanceModify(InstanceModify),
    /// Starts or stops an instance, which opens or closes the ports of its interfaces.
    InstanceRun(InstanceRun),
    /// Removes an instance and the interfaces that are deleted with it.
    InstanceDelete(InstanceDelete),
    /// Gives an instance one more interface.
    InstanceAttach(InstanceAttach),
    /// Takes an interface from an instance.
    InstanceDetach(InstanceAttach),
    /// Moves a stopped instance's primary interface to another subnet.
    InstanceMove(InstanceMove),
    /// Changes an object's tags, resource group, zone or attributes.
    LabelModify(LabelModify),
    /// Makes an object that has nothing to do with packets.
    RecordCreate(RecordCreate),
    /// Removes an object that has nothing to do with packets.
    RecordDelete(RecordDelete),
    /// A change made for one account in one region, which own what it creates.
    OnBehalf(OnBehalf),
    /// Several changes as one: each sees the ones before it, and either all are made or none.
    Batch(Batch),
}

vocabulary! {
    /// Several changes as one.
    Batch {
        /// The changes, in order. Batches do not nest.
        commands: Vec<Command>,
    }
}

/// A parser for one of a few names on a command line.
pub fn choice<T: Copy + Send + Sync + 'static, const N: usize>(
    names: [(T, &'static str); N],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(names.map(|(_, name)| name)).try_map(move |chosen| {
        let found = names.into_iter().find(|(_, name)| *name == chosen);
        found.map(|(choice, _)| choice).ok_or("none of the names")
    })
}
