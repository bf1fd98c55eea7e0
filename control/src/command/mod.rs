//! The control socket's vocabulary: every change that can be asked for, in the words a person types.
//!
//! Addresses, prefixes, ports and protocols are text here, read and evaluated by the [model](crate::model), so that each
//! refusal can name the field, the value and the way out. On the wire a command is one JSON object whose `op` is the
//! variant's name in kebab case, as in `{"op":"vpc-create","cidr":"10.0.0.0/16"}`; unknown fields are refused.
//!
//! Where a command creates something, `id` may be given: refused if malformed or taken, made up if absent.

mod instance;
mod rule;

pub use instance::{
    InstanceAttach, InstanceCreate, InstanceDelete, InstanceModify, InstanceMove, InstanceRun, LabelModify, OnBehalf,
    PortKind, RecordCreate, RecordDelete,
};
pub use rule::{RuleAuthorize, RuleChange, RuleModify, RuleRevoke, RuleSpec};

use serde::{Deserialize, Serialize};
use vswitch_core::config::desired::{DesiredPort, PmtudExempt, TimeoutProfile, Tracking};

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

/// A change to the state. Accepted whole or refused whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Command {
    /// Makes a VPC.
    VpcCreate(VpcCreate),
    /// Changes a VPC's name, description or blocks.
    VpcModify(VpcModify),
    /// Removes a VPC that nothing is in.
    VpcDelete(VpcDelete),
    /// Sends a destination outside the VPC's subnets to one of its ENIs. Set again, it replaces the ENI.
    VpcRouteAdd(VpcRouteAdd),
    /// Takes a custom route away.
    VpcRouteRemove(VpcRouteRemove),
    /// Makes a subnet of a VPC.
    VswitchCreate(VswitchCreate),
    /// Changes a subnet's name, description or IPv6 block.
    VswitchModify(VswitchModify),
    /// Removes a subnet without ENIs.
    VswitchDelete(VswitchDelete),
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
    /// Says where an ENI's frames come from and go to.
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
    /// Adds rules to a group, all or none. A rule that exists already is success without a new one.
    RuleAuthorize(RuleAuthorize),
    /// Takes rules from a group, all or none, by identifier or by their fields.
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
    /// Changes the choices that the specification leaves open. Absent fields stay.
    SettingsModify(SettingsModify),
    /// Makes an instance and its primary network interface.
    InstanceCreate(Box<InstanceCreate>),
    /// Changes what an instance is called and how it is protected.
    InstanceModify(InstanceModify),
    /// Starts or stops an instance, which gives its interfaces their ports or takes them.
    InstanceRun(InstanceRun),
    /// Removes an instance with the interfaces that go with it.
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

    /// Makes a VPC.
    VpcCreate {
        /// `vpc-…`; made up if absent.
        id: Option<String>,
        /// The IPv4 block, 8 to 28 bits long, as in `10.0.0.0/16`.
        cidr: String,
        /// The IPv6 block, at most 64 bits long and best 56, as in `2001:db8:1:100::/56`.
        ipv6_cidr: Option<String>,
        /// A name for people.
        name: Option<String>,
        /// What it is for.
        description: Option<String>,
    }

    /// Changes a VPC. Absent fields stay.
    VpcModify {
        /// The VPC.
        vpc: String,
        /// A new name; empty for none.
        name: Option<String>,
        /// A new description; empty for none.
        description: Option<String>,
        /// Another IPv4 block, which has to hold what its subnets have of the old one.
        cidr: Option<String>,
        /// Another IPv6 block, which has to hold those of its subnets; empty for none.
        ipv6_cidr: Option<String>,
        /// More IPv4 blocks, apart from each other and from those that it has.
        #[serde(default)]
        add_cidrs: Vec<String>,
        /// Blocks of these to take away, in which no subnet is.
        #[serde(default)]
        remove_cidrs: Vec<String>,
    }

    /// Removes a VPC.
    VpcDelete {
        /// The VPC.
        vpc: String,
    }

    /// Adds or replaces a custom route.
    VpcRouteAdd {
        /// The VPC.
        vpc: String,
        /// The destination, IPv4 or IPv6, outside every subnet of the VPC, as in `192.168.0.0/16`.
        destination: String,
        /// The ENI that packets for it go to: in this VPC, normally with its source and destination check off.
        eni: String,
        /// `rte-…`; made up if absent.
        id: Option<String>,
        /// The instance that is meant, where the ENI is its primary interface.
        instance: Option<String>,
        /// A name for people; that of the route it replaces if absent.
        name: Option<String>,
        /// What it is for; that of the route it replaces if absent.
        description: Option<String>,
    }

    /// Takes a custom route away.
    VpcRouteRemove {
        /// The VPC.
        vpc: String,
        /// The destination of the route.
        destination: String,
    }

    /// Makes a subnet.
    VswitchCreate {
        /// `vsw-…`; made up if absent.
        id: Option<String>,
        /// The VPC it is part of.
        vpc: String,
        /// The IPv4 block, 16 to 29 bits long, inside the VPC's and apart from its other subnets. The first and the
        /// last three addresses are the cloud's; the third last is the gateway.
        cidr: String,
        /// The IPv6 block: a /64 inside the VPC's. The third last address is the gateway.
        ipv6_cidr: Option<String>,
        /// A name for people.
        name: Option<String>,
        /// What it is for.
        description: Option<String>,
    }

    /// Changes a subnet. Absent fields stay.
    VswitchModify {
        /// The subnet.
        vswitch: String,
        /// A new name; empty for none.
        name: Option<String>,
        /// A new description; empty for none.
        description: Option<String>,
        /// Another IPv6 block, as long as no interface has an address of the old one; empty for none.
        ipv6_cidr: Option<String>,
    }

    /// Removes a subnet.
    VswitchDelete {
        /// The subnet.
        vswitch: String,
    }

    /// Makes a network interface.
    EniCreate {
        /// `eni-…`; made up if absent.
        id: Option<String>,
        /// The subnet it is in.
        vswitch: String,
        /// The primary IPv4 address; the lowest free one of the subnet if absent.
        primary_ip: Option<String>,
        /// Secondary IPv4 addresses, at most 49.
        #[serde(default)]
        secondary_ips: Vec<String>,
        /// IPv6 addresses, at most 10.
        #[serde(default)]
        ipv6_addresses: Vec<String>,
        /// How many IPv6 addresses to choose besides.
        #[serde(default)]
        ipv6_count: u8,
        /// Delegated prefixes: IPv4 /28 or IPv6 /80.
        #[serde(default)]
        prefixes: Vec<String>,
        /// The hardware address, as in `02:00:00:00:00:01`; a random locally administered one if absent.
        mac: Option<String>,
        /// The groups it is a member of, all of one kind and of the subnet's VPC; the VPC's default group, made when
        /// first needed, if empty.
        #[serde(default)]
        groups: Vec<String>,
        /// Whether what it sends must carry its own address and what it gets must be for one. On if absent.
        source_dest_check: Option<bool>,
        /// How long its sessions may idle.
        timeouts: Option<TimeoutsChange>,
        /// The most sessions it may hold at once.
        sessions_max: Option<u32>,
        /// What it may ask of the session tables, and what is checked besides rules.
        tracking: Option<TrackingChange>,
        /// The instance it belongs to, if any.
        instance: Option<String>,
        /// Whether it goes with an instance that it is attached to; it does if absent.
        delete_on_release: Option<bool>,
        /// A name for people.
        name: Option<String>,
        /// What it is for.
        description: Option<String>,
        /// Where its frames come from and go to; none yet if absent.
        port: Option<DesiredPort>,
    }

    /// Idle timeouts, seconds. Absent fields stay, or have their defaults in a new ENI.
    TimeoutsChange {
        /// Established TCP: 30, 60, 80, 100, 200, 300, 500, 700 or 910.
        tcp_established_s: Option<u16>,
        /// Closed TCP: 3 to 15.
        tcp_closed_s: Option<u16>,
        /// UDP: 10, 20, 30, 60, 80 or 100.
        udp_s: Option<u16>,
    }

    /// What an ENI may ask of the session tables. Absent fields stay, or have their defaults in a new ENI.
    TrackingChange {
        /// Sessions that find room even in a full table.
        sessions_guaranteed: Option<u32>,
        /// Sessions that it may open in a second; 0 for as many as it likes.
        new_sessions_per_s: Option<u32>,
        /// Whether TCP segments outside of their window drop.
        tcp_window_check: Option<bool>,
    }

    /// Changes a network interface. Absent fields stay.
    EniModify {
        /// The ENI.
        eni: String,
        /// The whole new set of groups.
        groups: Option<Vec<String>>,
        /// Whether addresses are checked.
        source_dest_check: Option<bool>,
        /// How long sessions that start from now on may idle.
        timeouts: Option<TimeoutsChange>,
        /// The most sessions it may hold at once.
        sessions_max: Option<u32>,
        /// What it may ask of the session tables, and what is checked besides rules.
        tracking: Option<TrackingChange>,
        /// Whether it goes with an instance that it is attached to.
        delete_on_release: Option<bool>,
        /// A new name; empty for none.
        name: Option<String>,
        /// A new description; empty for none.
        description: Option<String>,
    }

    /// Removes a network interface.
    EniDelete {
        /// The ENI.
        eni: String,
        /// Also if it is attached to a port.
        #[serde(default)]
        force: bool,
    }

    /// Gives an ENI addresses.
    EniAssign {
        /// The ENI.
        eni: String,
        /// Addresses of its subnet's IPv4 or IPv6 block.
        #[serde(default)]
        addresses: Vec<String>,
        /// Delegated prefixes: IPv4 /28 or IPv6 /80.
        #[serde(default)]
        prefixes: Vec<String>,
        /// How many secondary IPv4 addresses to choose besides.
        #[serde(default)]
        ipv4_count: u8,
        /// How many IPv6 addresses to choose besides.
        #[serde(default)]
        ipv6_count: u8,
        /// How many IPv4 prefixes to choose and delegate besides.
        #[serde(default)]
        ipv4_prefix_count: u8,
        /// How many IPv6 prefixes to choose and delegate besides.
        #[serde(default)]
        ipv6_prefix_count: u8,
    }

    /// Takes addresses from an ENI.
    EniUnassign {
        /// The ENI.
        eni: String,
        /// Its addresses to take, but the primary one.
        #[serde(default)]
        addresses: Vec<String>,
        /// Its delegated prefixes to take.
        #[serde(default)]
        prefixes: Vec<String>,
    }

    /// Unplugs an ENI.
    EniDetach {
        /// The ENI.
        eni: String,
    }

    /// Makes a security group.
    GroupCreate {
        /// `sg-…`; made up if absent.
        id: Option<String>,
        /// The VPC it has effect in.
        vpc: String,
        /// `normal` or `basic` (the default), `enterprise` or `advanced`. Fixed from then on.
        kind: Option<String>,
        /// `accept` (the default) or `drop`: whether members of a basic group reach each other without rules.
        inner_access: Option<String>,
        /// Whether a cloud service owns the group, so that users may only look at it.
        #[serde(default)]
        service_managed: bool,
        /// A name for people: 2 to 128 characters, beginning with a letter.
        name: Option<String>,
        /// What it is for: 2 to 256 characters.
        description: Option<String>,
    }

    /// Changes a group. Absent fields stay.
    GroupModify {
        /// The group.
        group: String,
        /// A new name; empty for none.
        name: Option<String>,
        /// A new description; empty for none.
        description: Option<String>,
        /// `accept` or `drop`; basic groups only.
        inner_access: Option<String>,
        /// Whether a cloud service owns the group, so that users may only look at it. One that is owned can be changed
        /// in no other way.
        #[serde(default)]
        service_managed: Option<bool>,
    }

    /// Removes a group.
    GroupDelete {
        /// The group.
        group: String,
    }

    /// Makes an ENI a member.
    GroupJoin {
        /// The group.
        group: String,
        /// The ENI.
        eni: String,
    }

    /// Ends an ENI's membership.
    GroupLeave {
        /// The group.
        group: String,
        /// The ENI.
        eni: String,
    }

    /// Changes a prefix list. Absent fields stay.
    PrefixListModify {
        /// The list.
        prefix_list: String,
        /// A new name.
        name: Option<String>,
        /// A new description; empty for none.
        description: Option<String>,
        /// Entries to add; an entry that exists gets the new description.
        #[serde(default)]
        add: Vec<PrefixListEntry>,
        /// Prefixes to take out, before the others are added.
        #[serde(default)]
        remove: Vec<String>,
    }

    /// Makes a prefix list.
    PrefixListCreate {
        /// `pl-…`; made up if absent.
        id: Option<String>,
        /// A name for people: 2 to 128 characters.
        name: String,
        /// What it is for: 2 to 256 characters.
        description: Option<String>,
        /// `ipv4` or `ipv6`. Fixed from then on.
        family: String,
        /// Room for this many entries, 1 to 200; what the list weighs in quotas. Fixed from then on.
        max_entries: u32,
        /// The entries.
        #[serde(default)]
        entries: Vec<PrefixListEntry>,
    }

    /// One entry of a prefix list.
    PrefixListEntry {
        /// A prefix without host bits, or an address.
        cidr: String,
        /// What it is for: 2 to 32 characters.
        description: Option<String>,
    }

    /// Removes a prefix list.
    PrefixListDelete {
        /// The list.
        prefix_list: String,
    }

    /// Makes a port list.
    PortListCreate {
        /// `prl-…`; made up if absent.
        id: Option<String>,
        /// A name for people: 2 to 128 characters.
        name: String,
        /// What it is for: 2 to 256 characters.
        description: Option<String>,
        /// Room for this many entries, 1 to 2,000; what the list weighs in quotas. Fixed from then on.
        max_entries: u32,
        /// The entries, at most 200 per request.
        #[serde(default)]
        entries: Vec<PortListEntry>,
    }

    /// One entry of a port list.
    PortListEntry {
        /// `first/last`.
        ports: String,
        /// What it is for: 2 to 32 characters.
        description: Option<String>,
    }

    /// Changes a port list. Absent fields stay.
    PortListModify {
        /// The list.
        port_list: String,
        /// A new name.
        name: Option<String>,
        /// A new description; empty for none.
        description: Option<String>,
        /// Entries to add; an entry that exists gets the new description.
        #[serde(default)]
        add: Vec<PortListEntry>,
        /// Ranges to take out, before the others are added.
        #[serde(default)]
        remove: Vec<String>,
    }

    /// Removes a port list.
    PortListDelete {
        /// The list.
        port_list: String,
    }

    /// Changes settings. Absent fields stay.
    SettingsModify {
        /// Members of an open group reach each other past their outbound rules too.
        intra_group_egress_bypass: Option<bool>,
        /// A session that the present rules refuse ends with its next packet.
        cut_sessions_on_deny: Option<bool>,
        /// TCP to port 25 of Internet addresses is closed whatever the rules say.
        smtp_closed: Option<bool>,
        /// Later fragments share the fate of the first.
        follow_first_fragment: Option<bool>,
        /// A TCP packet from the middle of a connection opens a session where rules let it pass.
        tcp_pick_up: Option<bool>,
        /// A packet without a session is evaluated by who opened its connection, as far as flags, type and ports tell.
        pick_up_by_ports: Option<bool>,
        /// IPv4 packets with a source route option drop.
        drop_source_routed: Option<bool>,
        /// Nearly all packets take the fast path. Without it every packet takes the slow one, with the same result: for incidents.
        fast_path: Option<bool>,
        /// Which path-MTU reports pass whatever the rules say: `session`, those about a session of their receiver, or
        /// `always`.
        pmtud_exempt: Option<PmtudExempt>,
        /// Whose idle timeouts sessions have that start from now on: `alibaba`, `aws` or `linux`.
        timeout_profile: Option<TimeoutProfile>,
        /// How long a TCP session may idle before its handshake is complete: 1 to 910 seconds.
        tcp_half_open_timeout_s: Option<u16>,
        /// How long an ICMP session may idle: 1 to 910 seconds.
        icmp_timeout_s: Option<u16>,
    }
}

impl TrackingChange {
    /// What becomes of `old`.
    pub fn over(&self, old: Tracking) -> Tracking {
        Tracking {
            sessions_guaranteed: self.sessions_guaranteed.unwrap_or(old.sessions_guaranteed),
            new_sessions_per_s: match self.new_sessions_per_s {
                Some(0) => None,
                Some(rate) => Some(rate),
                None => old.new_sessions_per_s,
            },
            tcp_window_check: self.tcp_window_check.unwrap_or(old.tcp_window_check),
        }
    }
}

/// Attaches an ENI to a port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EniAttach {
    /// The ENI, not attached yet.
    pub eni: String,
    /// The port.
    pub port: DesiredPort,
}
